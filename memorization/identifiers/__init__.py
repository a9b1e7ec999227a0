"""Identifiers: strings of a known format, whose oracle is exact: the bits memorized of them need no other model."""

from memorization.identifiers.formats import Format, UniformTokens
from memorization.identifiers.measure import audit_identifiers
from memorization.identifiers.result import IdentifierAudit

__all__ = ["Format", "IdentifierAudit", "UniformTokens", "audit_identifiers"]
