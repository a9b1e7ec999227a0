"""Experiments that train models: capacity, sweeps over text, canaries, and the quickstart."""
