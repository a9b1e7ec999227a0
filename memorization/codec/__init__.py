"""Data compressed with a model, and given back: `compress` and `decompress`.

A model's probabilities drive an entropy coder, as in `compress_bits`; here what it writes is kept, in a container that
says what is needed to read it, and that proves what was read.
"""

from memorization.codec.compress import compress, decompress

__all__ = ["compress", "decompress"]
