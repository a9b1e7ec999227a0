"""Unintended memorization (memU) of a target model against an oracle, per sample."""

from memorization.unintended.control import Control
from memorization.unintended.ladder import Ladder
from memorization.unintended.measure import unintended_memorization
from memorization.unintended.result import Memorization

__all__ = ["Control", "Ladder", "Memorization", "unintended_memorization"]
