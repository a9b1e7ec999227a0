"""Was a sample in the training data? Attacks that rank samples by their token bits, and a control of the split."""

from memorization.membership.attacks import (
    loss_attack,
    min_k_attack,
    min_k_plus_plus_attack,
    reference_attack,
    token_moments,
    zlib_attack,
    zlib_bits,
)
from memorization.membership.audit import audit_membership
from memorization.membership.metrics import f1_and_auc, f1_and_auc_intervals, membership_metrics
from memorization.membership.result import FPRS, Membership, MembershipAudit
from memorization.membership.split import BagOfWords, bag_of_words_auc
from memorization.samples import check_disjoint

__all__ = [
    "FPRS",
    "BagOfWords",
    "Membership",
    "MembershipAudit",
    "audit_membership",
    "bag_of_words_auc",
    "check_disjoint",
    "f1_and_auc",
    "f1_and_auc_intervals",
    "loss_attack",
    "membership_metrics",
    "min_k_attack",
    "min_k_plus_plus_attack",
    "reference_attack",
    "token_moments",
    "zlib_attack",
    "zlib_bits",
]
