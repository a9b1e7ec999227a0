"""The audit: everything that the library can say of one checkpoint and its data, for people who decide."""

from memorization.auditing.figures import FIGURES
from memorization.auditing.measure import audit
from memorization.auditing.policy import Check, check_policy, read_policy
from memorization.auditing.result import Audit

__all__ = ["FIGURES", "Audit", "Check", "audit", "check_policy", "read_policy"]
