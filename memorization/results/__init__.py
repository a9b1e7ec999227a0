"""What every result is: read-only, written as a folder, read back whole or refused, described in words, and drawn."""

from memorization.results.about import About, about_of, check_kept, one_kind, with_about
from memorization.results.claims import Claims
from memorization.results.folder import check_free
from memorization.results.kinds import KINDS
from memorization.results.read_only import ReadOnly
from memorization.results.result import Pictured, Result, load
from memorization.results.saved import Saved
from memorization.results.visible import preview, quoted, visible
from memorization.results.words import counted, describe_first_token, describe_model, number, plain, versions

__all__ = [
    "KINDS",
    "About",
    "Claims",
    "Pictured",
    "ReadOnly",
    "Result",
    "Saved",
    "about_of",
    "check_free",
    "check_kept",
    "counted",
    "describe_first_token",
    "describe_model",
    "load",
    "number",
    "one_kind",
    "plain",
    "preview",
    "quoted",
    "versions",
    "visible",
    "with_about",
]
