"""Formats of identifiers: sets of strings of one length, whose number is known exactly, and uniform draws from them."""

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from memorization.errors import InputError
from memorization.integers import as_integer

__all__ = ["NAMES", "Format", "FormatLike", "UniformTokens", "resolve_formats"]

_DIGITS, _HEX = string.digits, "0123456789abcdef"
_LETTERS_OR_DIGITS = r"[^\W_]"
_MADE_UP = 1e-6  # a string is taken for an example where a draw looks as regular with less than this probability


@dataclass(frozen=True)
class Format:
    r"""Strings of one length with a set of characters for each position, each string equally probable.

    Strings of one length are what makes the code of one never the beginning of another's code, so that their
    probabilities add up to at most 1.

    Attributes:
        name: what tables call it.
        alphabets: the characters that may stand at each position; one character where it is fixed.
        n_given: characters at the beginning that are taken from the text, as its context is: the issuer of a card, the
            area code of a number. They count neither as random nor as memorized.
        luhn: the last digit is the check digit of Luhn's algorithm (ISO/IEC 7812) over all digits before it.
        before: a regular expression of what may stand between the identifier and the letter or digit before it.

    Examples:
        >>> Format.of("hex40").bits, Format.of("uuid4").bits, round(Format.of(r"sk-[A-Za-z0-9]{20}").bits, 2)
        (160.0, 122.0, 119.08)
        >>> [one["found"] for one in Format.of("hex8").pattern.finditer("0xdeadbeef, not deadbeef0 or DEADBEEF")]
        ['deadbeef']
    """

    name: str
    alphabets: tuple[str, ...]
    n_given: int = 0
    luhn: bool = False
    before: str = ""

    @classmethod
    def of(cls, template: str) -> "Format":
        r"""The format of a name with one layout (hex40, HEX40, uuid4, UUID4, digits16), or of a template.

        A template is text in which `[...]` stands for one of the characters in it, `\d` for a digit and `{n}` for n of
        what stands before it: `sk-[A-Za-z0-9]{20}`. Other signs of regular expressions stand after a backslash.

        Raises:
            InputError: a template whose strings cannot be counted or differ in length, or that is one string only.
        """
        named = re.fullmatch(r"(hex|HEX|digits)([1-9]\d{0,3})", template)
        if named is not None:
            digits = {"hex": _HEX, "HEX": _HEX.upper(), "digits": _DIGITS}[named[1]]
            return cls(template, (digits,) * int(named[2]), before="" if digits == _DIGITS else "(?:0[xX])?")
        if template in ("uuid4", "UUID4"):
            hexadecimal, variant = (_HEX, "89ab") if template == "uuid4" else (_HEX.upper(), "89AB")
            parts = ([hexadecimal] * 8, [hexadecimal] * 4, ["4", *[hexadecimal] * 3], [variant, *[hexadecimal] * 3])
            joined = [one for part in parts for one in (*part, "-")]
            return cls(template, (*joined, *[hexadecimal] * 12))
        return cls(template, _alphabets_of(template))

    def __post_init__(self) -> None:
        if self.n_strings < 2:
            raise InputError(
                f"the format {self.name!r} has no random character, so there is nothing to memorize. Name one of "
                f"{', '.join(NAMES)}, or write a template such as sk-[A-Za-z0-9]{{20}}."
            )

    def __len__(self) -> int:
        """Characters of a string."""
        return len(self.alphabets)

    @cached_property
    def random(self) -> tuple[int, ...]:
        """Positions of the characters that are drawn."""
        last = len(self) - int(self.luhn)
        return tuple(i for i in range(self.n_given, last) if len(self.alphabets[i]) > 1)

    @cached_property
    def n_strings(self) -> int:
        """Strings that share the given characters, exactly."""
        return math.prod(len(self.alphabets[i]) for i in self.random)

    @cached_property
    def bits(self) -> float:
        """log2 of `n_strings`: what the exact oracle needs for one."""
        return math.log2(self.n_strings)

    @cached_property
    def pattern(self) -> "re.Pattern[str]":
        """What finds the strings in a text: they begin and end where a run of letters and digits does."""
        classes = "".join(f"[{re.escape(one)}]" if len(one) > 1 else re.escape(one) for one in self.alphabets)
        start, end = (any(one.isalnum() for one in self.alphabets[i]) for i in (0, -1))
        before = f"(?<!{_LETTERS_OR_DIGITS}){self.before}" if start else ""
        # A number that goes on behind a point or a comma is no identifier.
        number = all(one == _DIGITS for one in self.alphabets)
        before = rf"(?<!\d[.,]){before}" if number else before
        after = f"(?!{_LETTERS_OR_DIGITS})" if end else ""
        after += r"(?![.,]\d)" if number else ""
        return re.compile(f"{before}(?P<found>{classes}){after}")

    def holds(self, text: str) -> bool:
        """Whether a text that the pattern has found is a string of the format: its check digit is right."""
        return not self.luhn or text[-1] == _luhn_digit(text[:-1])

    def draw(self, found: str, generator: np.random.Generator) -> str:
        """A string of the format that shares the given characters of `found`, each equally probable.

        Args:
            found: a string of the format.
            generator: what is drawn with.

        Returns:
            The string.
        """
        characters = list(found[: self.n_given]) + [one[0] for one in self.alphabets[self.n_given :]]
        for i in self.random:
            characters[i] = self.alphabets[i][int(generator.integers(len(self.alphabets[i])))]
        if self.luhn:
            characters[-1] = _luhn_digit("".join(characters[:-1]))
        return "".join(characters)

    def probes(self, found: str, n_more: int, generator: np.random.Generator) -> list[str]:
        """A draw that begins with each of the characters that may come first, and so many more.

        Args:
            found: a string of the format, whose given characters are kept.
            n_more: further draws.
            generator: what is drawn with.

        Returns:
            The strings.
        """
        drawn = [self.draw(found, generator) for _ in range(n_more)]
        first = self.random[0]
        for character in self.alphabets[first]:
            other = self.draw(found, generator)
            other = other[:first] + character + other[first + 1 :]
            drawn.append(other[:-1] + _luhn_digit(other[:-1]) if self.luhn else other)
        return drawn

    def made_up(self, found: str) -> bool:
        """Whether a string is so regular that hardly a draw is: one character repeated, 1234..., a block repeated.

        Args:
            found: the string.

        Returns:
            Whether it is left out as an example.
        """
        k = max(len(self.alphabets[i]) for i in self.random)
        values = [self.alphabets[i].index(found[i]) for i in self.random if len(self.alphabets[i]) == k]
        n = len(values)
        for period in range(1, n // 2 + 1):
            steps = [(b - a) % k for a, b in zip(values, values[period:], strict=False)]
            for step in (0, 1, k - 1) if period == 1 else (0,):
                m = steps.count(step)
                # The probability that m of the steps are this one is at most comb(n, m) k^-m.
                if math.log(math.comb(len(steps), m)) - m * math.log(k) < math.log(_MADE_UP / n):
                    return True
        return False


@dataclass(frozen=True)
class UniformTokens:
    """Canaries of token ids: the last `length` ids of a sample, each drawn uniformly from [0, vocab_size).

    Attributes:
        vocab_size: what ids are drawn from; the model's vocabulary may be larger.
        length: ids of a canary. What stands before them in a sample is its context.

    Examples:
        >>> UniformTokens(vocab_size=512, length=16).bits
        144.0
    """

    vocab_size: int
    length: int

    def __post_init__(self) -> None:
        sizes = as_integer(self.vocab_size), as_integer(self.length)
        if None in sizes or self.vocab_size < 2 or self.length < 1:
            raise InputError(
                "canaries of uniform tokens need at least 2 ids to draw from and a length of at least 1; they have "
                f"vocab_size={self.vocab_size!r} and length={self.length!r}."
            )

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"tokens:{self.length}x{self.vocab_size}"

    @property
    def bits(self) -> float:
        """Bits of one canary: log2 of the number of canaries, which is what the exact oracle needs for one."""
        return self.length * math.log2(self.vocab_size)


FormatLike: TypeAlias = str | Format | UniformTokens | Sequence[str | Format]


def _layouts(name: str, templates: Sequence[str], n_random: int, luhn: bool) -> tuple[Format, ...]:
    """One format for each way of writing it, all but the last digits given."""
    found = []
    for template in templates:
        alphabets = _alphabets_of(template)
        drawn = [i for i, one in enumerate(alphabets) if len(one) > 1][-n_random - int(luhn)]
        found.append(Format(name, alphabets, n_given=drawn, luhn=luhn))
    return tuple(found)


# Since 2022 the first eight digits of a card name its issuer (ISO/IEC 7812-1:2017), who fills the others but the last.
_CARDS = (r"\d{16}", r"\d{4} \d{4} \d{4} \d{4}", r"\d{4}-\d{4}-\d{4}-\d{4}")
# North American numbers: area code and exchange say where, and only the four digits of the line differ from one
# telephone there to the next.
_AREA = r"[2-9]\d\d"
_PHONES = tuple(
    template.replace("A", _AREA)
    for template in (r"A-A-\d{4}", r"\(A\) A-\d{4}", r"A\.A\.\d{4}", r"A A \d{4}", r"\+1AA\d{4}")
)
NAMES = ("hex40", "HEX40", "uuid4", "UUID4", "digits16", "card", "phone", "tokens:16x512")


def resolve_formats(asked: FormatLike) -> tuple[Format, ...] | UniformTokens:
    """The formats that were asked for, several where a name has several layouts.

    Raises:
        InputError: what is neither a name nor a template that can be counted.
    """
    if isinstance(asked, UniformTokens):
        return asked
    if isinstance(asked, str) and (tokens := re.fullmatch(r"tokens:(\d+)x(\d+)", asked)):
        return UniformTokens(vocab_size=int(tokens[2]), length=int(tokens[1]))
    if isinstance(asked, Format):
        return (asked,)
    if isinstance(asked, str):
        if asked == "card":
            return _layouts("card", _CARDS, 7, luhn=True)
        if asked == "phone":
            return _layouts("phone", _PHONES, 4, luhn=False)
        return (Format.of(asked),)
    if not isinstance(asked, Sequence) or not asked:
        raise InputError(f"format must name a format ({', '.join(NAMES)}), be a template, or a list; it is {asked!r}.")
    formats = [resolve_formats(one) for one in asked]
    if any(isinstance(one, UniformTokens) for one in formats):
        raise InputError("formats of tokens and of texts cannot be asked for in one call: their samples differ.")
    return tuple(one for each in formats if not isinstance(each, UniformTokens) for one in each)


def _luhn_digit(digits: str) -> str:
    """The check digit after these digits; what is no digit is skipped."""
    values = [int(one) for one in digits if one.isdigit()][::-1]
    doubled = [2 * one - 9 * (one > 4) for one in values[::2]]
    return str(-(sum(doubled) + sum(values[1::2])) % 10)


def _alphabets_of(template: str) -> tuple[str, ...]:
    """The characters of each position of a template."""
    found: list[str] = []
    rest = template
    while rest:
        token = re.match(r"\[((?:\\.|[^\]\\])+)\]|\\(.)|\{(\d+)\}|([^\\\[\]{}()*+?|.^$])", rest, re.DOTALL)
        if token is None:
            raise InputError(
                f"the format {template!r} cannot be counted at {rest[:8]!r}: an e-value needs strings of one length "
                "whose number is known exactly. A template has text, [classes], \\d and {n}; other signs of regular "
                "expressions stand after a backslash."
            )
        inside, escaped, times, literal = token.groups()
        if times is not None:
            if not found or not 1 <= int(times) <= 10_000:
                raise InputError(
                    f"the format {template!r}: {{{times}}} must follow what it repeats, 1 to 10,000 times."
                )
            found += [found[-1]] * (int(times) - 1)
        else:
            found.append(
                _characters(inside, template) if inside else _escaped(escaped, template) if escaped else literal
            )
        rest = rest[token.end() :]
    return tuple(found)


def _escaped(character: str, template: str) -> str:
    if character == "d":
        return _DIGITS
    if character.isalnum():
        raise InputError(f"the format {template!r}: \\{character} is not known; \\d is, and [...] lists characters.")
    return character


def _characters(inside: str, template: str) -> str:
    """The characters of a class in order, such as those of A-Za-z0-9."""
    if inside.startswith("^"):
        raise InputError(f"the format {template!r}: [^...] has no end. List the characters that may come.")
    units = re.findall(r"\\.|[^\\]", inside, re.DOTALL)
    plain = [_escaped(unit[1], template) if len(unit) > 1 else unit for unit in units]
    found: list[str] = []
    i = 0
    while i < len(plain):
        if i + 2 < len(plain) and units[i + 1] == "-":
            low, high = plain[i], plain[i + 2]
            if len(low) > 1 or len(high) > 1 or low > high:
                raise InputError(f"the format {template!r}: {low}-{high} is no range of characters.")
            found += [chr(one) for one in range(ord(low), ord(high) + 1)]
            i += 3
        else:
            found += plain[i]
            i += 1
    return "".join(sorted(set(found)))
