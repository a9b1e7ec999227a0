"""Unintended memorization (memU) of a target model against an oracle, per sample."""

from memorization.unintended.control import Control
from memorization.unintended.measure import unintended_memorization
from memorization.unintended.result import Memorization

__all__ = ["Control", "Memorization", "unintended_memorization"]
