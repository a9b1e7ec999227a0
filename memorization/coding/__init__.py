"""From probabilities to bits. Nothing in here knows a model."""
