"""The exceptions and warnings that a caller may want to catch.

Every message says what was expected, what came, where, and what to try.
"""

import sys
import warnings

_PACKAGE = __name__.split(".")[0]


class InputError(ValueError):
    """The samples, or an option of a call, cannot be used as they are."""


class LossyTextError(InputError):
    """A text does not survive its tokenizer: decode(encode(text)) is another text, whose bits would be measured."""


class ModelError(ValueError):
    """A model cannot be loaded, or what it returns cannot be measured."""


class NotCausalError(ModelError):
    """Changing a later token moved the logits of an earlier position, so the model does not define a code."""


class ImpossibleTokenError(ModelError):
    """The model's logits are NaN or +inf, or give a coded token probability 0: its code length is not finite."""


class DivergedError(ModelError, FloatingPointError):
    """Training ended in logits that are not finite: the learning rate is too high, or the model's loss is at fault."""


class ContainerError(InputError):
    """What should be decompressed is damaged, cut short, of another format version, or was not made by `compress`."""


class OtherModelError(ModelError):
    """Compressed data need the model that they were made with: other weights, another dtype or tokenizer came."""


class NotReproducedError(ModelError):
    """The model gives other probabilities than when the data were compressed, so that what was decoded is not they."""


class ResultError(ValueError):
    """A saved result is damaged, of another kind, or does not belong to the samples it is used with."""


class NotSavedError(ResultError):
    """A result could not be written where it should be; the message says where what was measured is instead."""


class UnfinishedError(ResultError):
    """A shard has run its share of an experiment; what comes next needs the shares of others, which are missing."""


class MeasurementWarning(UserWarning):
    """The number is right as defined, but a reader could take it for more than it is."""


class FirstTokenWarning(MeasurementWarning):
    """The context of the first token is likely not the one the model was trained with."""


class WeakOracleWarning(MeasurementWarning):
    """The target, or a code made of the control, beats the oracle on unseen text: memU includes generalization."""


class SeenByOracleWarning(MeasurementWarning):
    """The oracle needs fewer bits a token for the samples than for the control: it may have seen them."""


class SameModelWarning(MeasurementWarning):
    """Target and oracle give every token the same bits: one model under two names, so that memU is 0."""


class LengthMismatchWarning(MeasurementWarning):
    """Samples and control differ in length, so net memU compares unlike things."""


class NearCopiesWarning(MeasurementWarning):
    """Control samples are nearly copies of samples, so that what was memorized looks like what unseen text shows."""


class NotConvergedWarning(MeasurementWarning):
    """Longer training would still raise the memorized bits: the capacity is a lower bound."""


class NotIdentifiedWarning(MeasurementWarning):
    """Many laws fit the points equally well: the constants are one choice among them, and their errors unknown."""


class ExtrapolationWarning(MeasurementWarning):
    """A law was asked where it has no points: what its formula gives there was never measured."""


class NothingSelectedWarning(MeasurementWarning):
    """Nothing was selected where few memorized ones could not have been: that none is memorized is not shown."""


class UnequalSetsWarning(MeasurementWarning):
    """Members and non-members differ in number, so some of the larger set were left out of what needs equal numbers."""


class SplitLeakWarning(MeasurementWarning):
    """Word counts alone tell members from non-members: whatever an attack finds may be the split, not memorization."""


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the caller's line: the nearest one outside this library, however deep in it the warning arises.

    Args:
        message: the text, or a warning.
        category: class of the warning, where the message is a text.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    there = frame.f_globals
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=there.get("__name__", "<unknown>"),
        registry=there.setdefault("__warningregistry__", {}),
    )


# What may lie between the library and its caller: the import machinery (old module names), and decorators.
_BETWEEN = (
    _PACKAGE,
    "importlib",
    "_frozen_importlib",
    "_frozen_importlib_external",
    "contextlib",
    "functools",
    "jaxtyping",
)


def _is_inside(module: str) -> bool:
    return module.split(".")[0] in _BETWEEN
