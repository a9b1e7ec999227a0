"""Who runs the cells of an experiment."""
