"""Memory as a share of what parameters can hold."""

import math
from typing import TYPE_CHECKING, Any

from memorization.capacity import EXPECTED_BITS_PER_PARAM
from memorization.unintended.means import Means

if TYPE_CHECKING:
    from memorization.unintended.control import Control

__all__ = ["Shares"]

_RECORDED = {
    "n_params": "parameters",
    "n_non_embedding_params": "non-embedding parameters",
    "n_trained_params": "trained parameters",
}


class Shares(Means):
    """Net memU (total_bits where there is no control) / (3.6 bits x parameters), whichever parameters are meant."""

    __slots__ = ()

    control: "Control | None"
    settings: dict[str, Any]

    @property
    def capacity_share(self) -> float:
        """Net memU (total_bits where there is no control) / (3.6 bits x parameters); NaN where these are unknown."""
        return self._share("n_params")

    @property
    def capacity_share_non_embedding(self) -> float:
        """The same with non-embedding parameters; NaN where their number is unknown."""
        return self._share("n_non_embedding_params")

    @property
    def capacity_share_trained(self) -> float:
        """The same with the parameters that were trained, where the target is an adapter (PEFT); NaN elsewhere."""
        return self._share("n_trained_params")

    def _share(self, which: str) -> float:
        bits = float(self.bits.sum()) if self.control is None else self.control.net_bits
        n_params = self.target.settings["model"].get(which)  # results of before have no trained ones
        return bits / (EXPECTED_BITS_PER_PARAM * n_params) if n_params else math.nan

    def _capacity_in_words(self) -> str:
        of_what = "memU" if self.control is None else "net memU"
        shares = {whose: self._share(which) for which, whose in _RECORDED.items()}
        told = [f"{100 * share:.3g} % of 3.6 bits x {whose}" for whose, share in shares.items() if share == share]
        return f"{of_what} is {', '.join(told)}" if told else "unknown: how many parameters the target has is not known"
