"""What a joint code over whole samples does not see: samples of which the target knows parts."""

from typing import TYPE_CHECKING, Any

from memorization.errors import InputError
from memorization.stats.levels import Interval
from memorization.stats.means import difference_interval
from memorization.unintended.joint import joint_of
from memorization.unintended.means import Means, labels_of_both

if TYPE_CHECKING:
    from memorization.measure.code_lengths import CodeLengths
    from memorization.unintended.control import Control

__all__ = ["InParts"]

_LEVEL = 0.99
_WORTH_TELLING = 1.0  # bits a sample
_LONGEST = 20_000  # tokens of a sample: the switch goes through them one by one


class InParts(Means):
    """Whether samples are memorized in parts, by a joint code that may change models at every token."""

    __slots__ = ()

    oracle: "CodeLengths"
    control: "Control | None"
    settings: dict[str, Any]

    @property
    def in_parts(self) -> Interval:
        """How much higher net memU is by joint="switch", in bits a sample: a 99 % interval.

        Above 0, the target knows parts of samples by heart that it codes worse than the oracle as a whole. Unknown
        without a control, for samples of over 20,000 tokens, and where it is not known which bytes the tokens of two
        tokenizers cover.
        """
        return self._once("in_parts", self._in_parts)

    def _in_parts(self) -> Interval:
        control = self.control
        if control is None or max(self.target.n_tokens.max(), control.target.n_tokens.max()) > _LONGEST:
            return Interval.unknown()
        by_switch = {**self.settings, "joint": "switch"}
        pairs = (self.target, self.oracle), (control.target, control.oracle)
        try:
            more = [joint_of(*pair, self.settings, "bits") - joint_of(*pair, by_switch, "bits") for pair in pairs]
        except InputError:
            return Interval.unknown()
        groups = labels_of_both(self.documents, control.documents, (len(self.bits), len(control.bits)))
        return difference_interval(more[0], more[1], level=_LEVEL, groups=groups)

    def in_parts_lines(self) -> list[str]:
        """A line for a result's table, where there is something to tell."""
        found = self.in_parts
        if not found.is_known or found.low < _WORTH_TELLING:
            return []
        return [
            f'  in parts     net memU is {found:,.2f} bits a sample higher by joint="switch" (99 %): parts of samples '
            "are known by heart"
        ]
