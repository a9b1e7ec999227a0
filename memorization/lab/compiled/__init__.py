"""The library's GPT-2 trained in one compiled loop: forward, backward and optimizer, by numba."""

from memorization.lab.compiled.training import can_compile, train_compiled

__all__ = ["can_compile", "train_compiled"]
