"""Texts as they can be printed: on one line, in a terminal, a table or a page, without an effect on what is near."""

import unicodedata

__all__ = ["preview", "quoted", "visible"]

_PREVIEW = 40  # characters: a line of a table holds them beside its numbers
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # parts of Persian words and of emoji; they move nothing
_MARKS = 4  # combining marks in a row that a letter of some language has; more grow over the lines above


def visible(text: object, limit: int | None = None) -> str:
    r"""A text on one line, without characters that do something where they are printed.

    Control characters (with them the codes of terminals), marks that turn the direction of writing, lone surrogates and
    other characters that cannot be seen become escapes such as \n, \x1b and \u202e; spaces of all kinds become a
    space. Letters of every script stay. HTML is not escaped here.

    Args:
        text: what is not a str is printed first.
        limit: characters of the text that are shown; where more follow, "..." stands in their place.

    Examples:
        >>> print(visible("one\ntwo \x1b[31mred\x1b[0m \u202eback"))
        one\ntwo \x1b[31mred\x1b[0m \u202eback
        >>> visible("To be or not to be", limit=8)
        'To be or...'
    """
    text = text if isinstance(text, str) else str(text)
    cut = limit is not None and len(text) > limit
    head = text[:limit] if cut else text
    return (head if head.isascii() and head.isprintable() else _shown(head)) + ("..." if cut else "")


def _shown(text: str) -> str:
    shown, marks = [], 0
    for one in text:
        marks = marks + 1 if _is_mark(one) else 0
        if marks <= _MARKS:
            shown.append(_visible(one))
    return "".join(shown)


def preview(text: object) -> str:
    """How a text begins, as `visible` shows it: its first 40 characters."""
    return visible(text, _PREVIEW)


def quoted(text: str) -> str:
    r"""A text in quotes, as `visible` shows it.

    Examples:
        >>> print(quoted("one\ntwo"))
        'one\ntwo'
    """
    mark = '"' if "'" in text and '"' not in text else "'"
    return f"{mark}{visible(text)}{mark}"


def _visible(one: str) -> str:
    if one.isprintable() or one in _JOINERS:
        return one
    if one.isspace() and one not in "\n\r\t\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        return " "
    return _ESCAPES.get(one) or one.encode("unicode_escape").decode("ascii")


def _is_mark(one: str) -> bool:
    return one > "\u02ff" and unicodedata.combining(one) != 0
