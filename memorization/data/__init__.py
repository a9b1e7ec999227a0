"""The public-domain text that the quickstart trains on and measures; see README.md beside this file for its source."""

import lzma
from importlib import resources

__all__ = ["addresses"]


def addresses() -> list[list[str]]:
    r"""Annual messages of the presidents of the United States, 1790-1829: 41 addresses, each a list of paragraphs.

    They come in order of time: two of 1790, then one a year, so address `i` is of the year `1790 + max(0, i - 1)`.

    Returns:
        One list of paragraphs (texts without line breaks) for each address.

    Guarantees:
        `"\n\n".join(paragraphs)` is the source file of an address, byte for byte.

    Examples:
        >>> from memorization.data import addresses
        >>> sum(len("\n\n".join(paragraphs).encode()) for paragraphs in addresses())
        890121
    """
    packed = resources.files(__name__).joinpath("addresses_1790_1829.txt.xz").read_bytes()
    text = lzma.decompress(packed).decode("utf-8")
    return [address.split("\n") for address in text.rstrip("\n").split("\n\n")]
