"""What a redacted report leaves out: every place that a text of the user's could come through goes by here."""

import re
import shlex
from dataclasses import dataclass

from memorization.report.html.shown import HIDDEN, shown, without_quotes

__all__ = ["Texts"]

_PIECE = 40  # characters of a token: longer ones are runs of one sign, or files of ids
_PREVIEW = 80
_SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "⏎"}
_SPAN = re.compile(r"([^=]*)=.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts as the report shows them, or "(hidden)" in their place.

    Attributes:
        hide: whether texts are left out.
    """

    hide: bool

    def whole(self, text: str | None) -> str:
        """A text, cut where it is long."""
        return HIDDEN if self.hide else "" if text is None else shown(text)

    def preview(self, text: str | None) -> str:
        """How a text begins, on one line."""
        if self.hide or text is None:
            return HIDDEN if self.hide else ""
        line = " ".join(text[: 4 * _PREVIEW].split())
        return shown(line if len(line) <= _PREVIEW else f"{line[:_PREVIEW]} …")

    def piece(self, text: str) -> str:
        """A token's text; ends of lines and tabs as signs."""
        if self.hide:
            return "▮"
        return shown("".join(_SIGNS.get(one, one) for one in text[:_PIECE])) + ("…" if len(text) > _PIECE else "")

    def sentence(self, told: str) -> str:
        """A sentence of the library, whose quotes can be of a text."""
        return without_quotes(told) if self.hide else told

    def column(self, value: str) -> str:
        """What stands in a column of the user's that was kept."""
        return HIDDEN if self.hide else shown(value, _PREVIEW)

    def command(self, told: str) -> str:
        """A command line, whose patterns of spans can be of a text."""
        if not self.hide:
            return told
        try:
            words = shlex.split(told)
        except ValueError:
            return HIDDEN
        for k, word in enumerate(words):
            if word.startswith("--span="):
                words[k] = "--span=" + _SPAN.sub(rf"\1={HIDDEN}", word.removeprefix("--span="))
            elif k and words[k - 1] == "--span":
                words[k] = _SPAN.sub(rf"\1={HIDDEN}", word)
        return shlex.join(words)
