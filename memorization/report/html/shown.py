"""Text of unknown origin made visible: nothing in it moves a cursor, turns a line around or fills a page."""

import math
import re

from memorization.results import visible

__all__ = ["HIDDEN", "MOST_CHARACTERS", "UNKNOWN", "Shown", "figure", "p_value", "shown", "without_quotes"]

MOST_CHARACTERS = 2000  # of one text: a screenful, of records that can have a megabyte
HIDDEN = "(hidden)"
UNKNOWN = "unknown"

_PLAIN = re.compile(r"[\x20-\x7e\n\t\xa0-\xac\xae-\u02ff]*")
_LINES = re.compile(r"([\n\t])")
_QUOTED = re.compile(r"""(?<!\w)(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")(?!\w)""", re.DOTALL)


class Shown(str):
    """A text that has been made visible."""

    __slots__ = ()


def shown(text: str, most: int = MOST_CHARACTERS) -> Shown:
    r"""A text as a page may show it: what cannot be seen is written as in Python, and a long one is cut with a note.

    What `memorization.results.visible` writes out, so that of terminals' codes, bidi marks and lone surrogates. Line
    ends and tabs stay.

    Args:
        text: any.
        most: characters that are kept.

    Examples:
        >>> shown("a\x1b[31mb\u202ec\0"), shown("xxxx", 3)
        ('a\\x1b[31mb\\u202ec\\x00', 'xxx … (cut: the first 3 of 4 characters)')
    """
    cut = text[:most]
    if not _PLAIN.fullmatch(cut):
        cut = "".join(part if part in ("\n", "\t") else visible(part) for part in _LINES.split(cut))
    return Shown(cut if len(text) <= most else f"{cut} … (cut: the first {most:,} of {len(text):,} characters)")


def without_quotes(sentence: str) -> str:
    """A sentence of the library without what it quotes, which can be a record's text.

    Examples:
        >>> without_quotes("the model's token 'Ann' in sample 3")
        "the model's token (hidden) in sample 3"
    """
    return _QUOTED.sub(HIDDEN, sentence)


def figure(value: float | int | None, digits: int = 1) -> str:
    """A number with so many digits after the point.

    Examples:
        >>> figure(1234.56), figure(-0.01), figure(float("nan")), figure(float("inf"))
        ('1,234.6', '0.0', 'unknown', 'never')
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "never" if value > 0 else "−never"
    told = f"{value:,.{digits}f}"
    told = told.removeprefix("-") if not float(told.replace(",", "")) else told
    return told.replace("-", "−")


def p_value(value: float | int | None) -> str:
    """A probability with two digits.

    Examples:
        >>> p_value(0.05), p_value(0.00012), p_value(None)
        ('0.050', '1e−4', 'unknown')
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    if 0 < value < 0.001:
        mantissa, exponent = f"{value:.0e}".split("e-")
        return f"{mantissa}e−{int(exponent)}"
    return f"{value:#.2g}" if value else "0"
