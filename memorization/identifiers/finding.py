"""Where identifiers stand in texts, and whether what is found looks drawn from its format."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from memorization.errors import InputError
from memorization.identifiers.formats import Format
from memorization.results import counted

__all__ = ["Found", "Place", "check_drawn", "find"]

# An identifier whose beginning, of so many bits, stands in the text before it is taken for copied from there: by chance
# that happens once in 2^28 places.
_GIVEN_AWAY_BITS = 28
_NOT_DRAWN = 1e-6  # draws look so uneven with less than this probability
_EXPECTED = 3  # counts of each character, for a chi-square statistic
_MOST_CHARACTERS = 20_000  # of a text before an identifier that are read, and at most 200 after it
_AFTER = 200


@dataclass(frozen=True, slots=True)
class Place:
    """An identifier where it stands first.

    Attributes:
        row: of the sample among those measured.
        start: position of its first character in the sample.
        format: what it is a string of.
        found: the identifier.
        text: the sample, or the part of it about the identifier that is read.
        at: position of its first character in `text`.
    """

    row: int
    start: int
    format: Format
    found: str
    text: str
    at: int

    def with_another(self, drawn: str) -> str:
        """The text with another identifier in place of this one, here and wherever this one comes again."""
        after = self.text[self.at + len(self.found) :]
        return self.text[: self.at] + drawn + after.replace(self.found, drawn)


@dataclass(slots=True)
class Found:
    """Identifiers, and how many were not taken.

    Attributes:
        places: one for each different identifier, in the order of the texts.
        n_texts: texts in which each stands.
        n_made_up: different strings left out because they look like examples.
        n_given_away: different strings left out because the text before them holds them, or how they begin.
    """

    places: list[Place] = field(default_factory=list)
    n_texts: list[int] = field(default_factory=list)
    n_made_up: int = 0
    n_given_away: int = 0


def find(texts: Sequence[str], formats: Sequence[Format]) -> Found:
    """The first occurrence of each different identifier: what stands in a text again is copied from it, not memorized.

    Raises:
        InputError: there is none.
    """
    found, counts = Found(), Counter[str]()
    first: dict[str, Place] = {}
    made_up, given_away = set[str](), set[str]()
    for row, text in enumerate(texts):
        in_text = set[str]()
        for at, format_, string in _matches(text, formats):
            if string in in_text:
                continue
            in_text.add(string)
            if format_.made_up(string):
                made_up.add(string)
            elif _given_away(text, at, format_, string):
                given_away.add(string)
            else:
                counts[string] += 1
                if string not in first:
                    first[string] = Place(row, at, format_, string, *_about(text, at, at + len(string)))
    found.places = list(first.values())
    found.n_texts = [counts[string] for string in first]
    found.n_made_up, found.n_given_away = len(made_up), len(given_away - set(first))
    if not found.places:
        raise InputError(_nothing(texts, formats, found))
    return found


def _about(text: str, start: int, end: int) -> tuple[str, int]:
    """What of a text is read about [start, end), and where it stands in that: all of it, unless it is long."""
    if len(text) <= _MOST_CHARACTERS:
        return text, start
    low = max(0, start - _MOST_CHARACTERS)
    while text[low].isspace():  # some tokenizers drop spaces in front
        low += 1
    return text[low : end + _AFTER], start - low


def _matches(text: str, formats: Sequence[Format]) -> Iterator[tuple[int, Format, str]]:
    """Strings of the formats in a text, from left to right; where two overlap, the longer one."""
    all_found = [
        (match.start("found"), format_, match["found"])
        for format_ in formats
        for match in format_.pattern.finditer(text)
        if format_.holds(match["found"])
    ]
    end = 0
    for at, format_, string in sorted(all_found, key=lambda one: (one[0], -len(one[2]), one[1].bits)):
        if at >= end:
            yield at, format_, string
            end = at + len(string)


def _given_away(text: str, at: int, format_: Format, string: str) -> bool:
    """Whether the text before an identifier holds it, or how it begins, in either case of letters."""
    bits = 0.0
    for i in format_.random:
        bits += math.log2(len(format_.alphabets[i]))
        if bits >= _GIVEN_AWAY_BITS:
            return string[: i + 1].casefold() in text[:at].casefold()
    return string.casefold() in text[:at].casefold()


def _nothing(texts: Sequence[str], formats: Sequence[Format], found: Found) -> str:
    names = " or ".join(sorted({one.name for one in formats}))
    left_out = [
        f"{found.n_made_up} that look like examples (one character repeated, 1234...)" if found.n_made_up else "",
        f"{found.n_given_away} whose text holds them, or their beginning, before" if found.n_given_away else "",
    ]
    reasons = " and ".join(filter(None, left_out))
    return (
        f"no identifier of the format {names} stands in the {counted(len(texts), 'text')}"
        + (f", but for {reasons}" if reasons else "")
        + ". It must begin and end where letters and digits do; a hash of 40 digits is hex40, in capitals HEX40."
    )


def check_drawn(places: Sequence[Place]) -> None:
    """Refuse strings whose characters, at one position or at all together, are too uneven for uniform draws.

    Then the oracle is not exact: words match [a-z]{4}, and time stamps match digits10. A model that knows how these
    begin would be said to have memorized them.

    Raises:
        InputError: it names the format, the position and the character.
    """
    by_format: dict[Format, list[str]] = {}
    for place in places:
        by_format.setdefault(place.format, []).append(place.found)
    for format_, strings in by_format.items():
        positions = format_.random
        groups: list[tuple[int, ...]] = [(i,) for i in positions]
        if len({format_.alphabets[i] for i in positions}) == 1:
            groups.append(positions)
        for where in groups:
            counts = Counter(string[i] for string in strings for i in where)
            k, n = len(format_.alphabets[where[0]]), counts.total()
            if _probability(counts, k) * len(groups) < _NOT_DRAWN:
                character, most = counts.most_common(1)[0]
                place_ = f"at character {where[0] + 1}" if len(where) == 1 else "of all characters"
                raise InputError(
                    f"the format {format_.name!r} fits {len(strings)} strings of these texts that are not drawn from "
                    f"it: {place_}, {character!r} makes up {most / n:.1%}, and {1 / k:.1%} would be expected. The "
                    "oracle is not exact then, and there is no e-value. Write what is fixed into the template, such "
                    "as 0000[0-9a-f]{60}, or leave such texts out."
                )


def _probability(counts: Counter[str], k: int) -> float:
    """An upper bound, roughly, of the probability of counts as uneven as these where each of k is equally probable."""
    from scipy.special import bdtrc, chdtrc

    n = counts.total()
    largest = float(bdtrc(max(counts.values()) - 1, n, 1 / k)) * k
    if n < _EXPECTED * k:  # too few for the statistic to be chi-square
        return largest
    statistic = sum(count**2 for count in counts.values()) * k / n - n
    return min(largest, float(chdtrc(k - 1, statistic))) * 2
