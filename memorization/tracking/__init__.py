"""How memU grows over the checkpoints of one training run, measured afterwards or while it trains."""

from memorization.tracking.callback import MemorizationCallback
from memorization.tracking.measure import track
from memorization.tracking.result import Trajectory

__all__ = ["MemorizationCallback", "Trajectory", "track"]
