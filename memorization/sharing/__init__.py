"""Who does what of a common work: shares of it, and tasks of a Ray cluster."""
