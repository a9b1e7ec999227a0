"""Training and sweeps: what experiments on memorization need around the measuring core."""
