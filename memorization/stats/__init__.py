"""From arrays to estimates with errors: numpy and scipy only, no samples and no models."""
