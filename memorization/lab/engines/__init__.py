"""Engines: where the cells of an experiment are run."""
