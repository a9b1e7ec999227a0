"""What every result is: read-only, written as a folder, read back whole or refused, described in words, and drawn."""

from memorization.results.folder import check_free
from memorization.results.kinds import KINDS
from memorization.results.read_only import ReadOnly
from memorization.results.result import Pictured, Result, load, pictures_from
from memorization.results.saved import Saved
from memorization.results.words import counted, describe_first_token, describe_model, number, plain, versions

__all__ = [
    "KINDS",
    "Pictured",
    "ReadOnly",
    "Result",
    "Saved",
    "check_free",
    "counted",
    "describe_first_token",
    "describe_model",
    "load",
    "number",
    "pictures_from",
    "plain",
    "versions",
]
