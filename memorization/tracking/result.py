"""The result of `track`: memU by checkpoint, and of each sample by checkpoint."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from memorization.errors import InputError
from memorization.results import About, Result, Saved, counted, describe_first_token, describe_model, with_about
from memorization.stats.significance import selected
from memorization.tracking.reading import COLUMNS, FDR, Reading

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trajectory", "trajectory_of"]

_SAMPLES = ("bits", "signed_bits", "q_value")
_SHOWN = 40  # checkpoints that are printed


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory(Result):
    """memU of samples and control at the checkpoints of one run, against one oracle, in bits, by step.

    A saved folder holds trajectory.parquet (a row a checkpoint), samples.parquet (a row a sample and checkpoint),
    control.parquet and settings.json. What `track` measured of each checkpoint in full lies in folders checkpoints/NAME
    of its output; each is a `Memorization`.

    Attributes:
        names: of the checkpoints.
        steps: of the training, float64; NaN where it is not known.
        figures: a row a checkpoint, as `to_pandas` gives them.
        bits: memU of each sample at each checkpoint, float64.
        signed_bits: the same, signed.
        q_values: the lowest false discovery rate at which each is selected as memorized; NaN without a control.
        control_bits: memU of each control sample at each checkpoint; no columns without a control.
        control_signed_bits: the same, signed.
        index: position of each sample in the input, int64.
        control_index: of each control sample.
        about: how each sample begins, its id and the columns that were kept.
        settings: "oracle", "first_token", "joint", "samples"; "warnings" by checkpoint; "gone" (checkpoints that were
            measured earlier, and whose folders are not there any more) and "missing" (that vanished before they were
            measured); "left_out"; "weights": SHA-256 of the files of each.

    Examples:
        Two checkpoints, of which the second knows the next token, and so all but the first one's 6 bits of 18.

        >>> import torch
        >>> from memorization import UniformModel, unintended_memorization
        >>> from memorization.tracking.reading import read
        >>> counts = lambda ids: 99.0 * torch.nn.functional.one_hot((ids + 1) % 64, 64)
        >>> models = {"step-0": UniformModel(64), "step-1": counts}
        >>> measured = [unintended_memorization(one, UniformModel(64), [[1, 2, 3]]) for one in models.values()]
        >>> points = [read(one, name, float(step)) for step, (name, one) in enumerate(zip(models, measured))]
        >>> trajectory_of(points, measured[-1]).bits.round().tolist()
        [[0.0], [12.0]]
    """

    names: tuple[str, ...]
    steps: Float64[np.ndarray, " checkpoint"]
    figures: "pd.DataFrame"
    bits: Float64[np.ndarray, "checkpoint sample"]
    signed_bits: Float64[np.ndarray, "checkpoint sample"]
    q_values: Float64[np.ndarray, "checkpoint sample"]
    control_bits: Float64[np.ndarray, "checkpoint control"]
    control_signed_bits: Float64[np.ndarray, "checkpoint control"]
    index: Int64[np.ndarray, " sample"]
    control_index: Int64[np.ndarray, " control"]
    about: About | None
    settings: dict[str, Any]

    @property
    def has_control(self) -> bool:
        """Whether there are control samples."""
        return bool(self.settings["has_control"])

    @property
    def memorized(self) -> Bool[np.ndarray, "checkpoint sample"]:
        """Which samples are selected as memorized at a false discovery rate of 5 %, at each checkpoint by itself."""
        return selected(self.q_values.ravel(), FDR).reshape(self.q_values.shape)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a checkpoint.

        step and name; mean_bits, memU in bits a sample, and its 95 % interval low to high; mean_signed_bits; net_bits,
        memU of all samples over the control's, with net_low and net_high; the control's mean, interval and signed mean;
        n_memorized, samples selected at FDR 5 % (NaN where it cannot be told); set_p_value; verdict on the oracle;
        target_bits_per_token. What needs a control is NaN without one.
        """
        return self.figures.copy()

    def samples_to_pandas(self) -> "pd.DataFrame":
        """One row a sample and checkpoint: step, name, sample, memU, signed memU, q_value, preview.

        And id behind sample, and the columns that were kept at the end, where `read_samples` was told of them.
        """
        import pandas as pd

        n, k = len(self.index), len(self)
        table = pd.DataFrame(
            {
                "step": np.repeat(self.steps, n),
                "name": np.repeat(np.array(self.names, dtype=object), n),
                "sample": np.tile(self.index, k),
                "bits": self.bits.ravel(),
                "signed_bits": self.signed_bits.ravel(),
                "q_value": self.q_values.ravel(),
            }
        )
        about = None if self.about is None else self.about.take(np.tile(np.arange(n), k))
        return with_about(table, about)

    def control_to_pandas(self) -> "pd.DataFrame":
        """One row a control sample and checkpoint: step, name, sample, memU, signed memU; no rows without a control."""
        import pandas as pd

        n = self.control_bits.shape[1]
        return pd.DataFrame(
            {
                "step": np.repeat(self.steps, n),
                "name": np.repeat(np.array(self.names, dtype=object), n),
                "sample": np.tile(self.control_index, len(self)),
                "bits": self.control_bits.ravel(),
                "signed_bits": self.control_signed_bits.ravel(),
            }
        )

    def _tables(self) -> "dict[str, pd.DataFrame]":
        return {
            "trajectory": self.to_pandas(),
            "samples": self.samples_to_pandas(),
            "control": self.control_to_pandas(),
        }

    def _facts(self) -> dict[str, Any]:
        return {"settings": self.settings}

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Trajectory":
        figures = saved.table("trajectory", ("step", "name", *COLUMNS))
        samples = saved.table("samples", ("sample", *_SAMPLES))
        control = saved.table("control", ("sample", "bits", "signed_bits"))
        k = len(figures)
        if not k or len(samples) % k or len(control) % k:
            raise saved.damaged("its tables differ in length")
        n, m = len(samples) // k, len(control) // k
        about = saved.about("samples")

        def matrix(table: "pd.DataFrame", column: str, width: int) -> Float64[np.ndarray, "checkpoint _"]:
            return table[column].to_numpy(np.float64).reshape(k, width)

        return cls(
            names=tuple(figures["name"]),
            steps=figures["step"].to_numpy(np.float64),
            figures=figures,
            bits=matrix(samples, "bits", n),
            signed_bits=matrix(samples, "signed_bits", n),
            q_values=matrix(samples, "q_value", n),
            control_bits=matrix(control, "bits", m),
            control_signed_bits=matrix(control, "signed_bits", m),
            index=samples["sample"].to_numpy(np.int64)[:n],
            control_index=control["sample"].to_numpy(np.int64)[:m],
            about=None if about is None else about.take(range(n)),
            settings=saved.need("settings")["settings"],
        )

    def __len__(self) -> int:
        """Number of checkpoints."""
        return len(self.names)

    def __repr__(self) -> str:
        n, m, settings = len(self.index), len(self.control_index), self.settings
        beside = f", {counted(m, 'unseen one')} beside them" if m else ""
        lines = [f"Trajectory of {counted(len(self), 'checkpoint')}: memU of {counted(n, 'sample')}{beside}"]
        lines += self._table_lines()
        if not self.has_control:
            lines.append(
                "  control      none: pass unseen samples to learn what memU shows where nothing was memorized"
            )
        lines += [f"  {kind.replace('_', ' '):<12} {told}" for kind, told in self._what_lacks()]
        lines += [
            f"  oracle       {describe_model(settings['oracle'])}",
            f"  first token  {describe_first_token(settings['first_token'], settings['samples'])}",
            f"  joint code   {settings['joint']}",
        ]
        return "\n".join(lines)

    def _what_lacks(self) -> list[tuple[str, str]]:
        words = {
            "left_out": "{}: the oracle itself",
            "missing": "{}: vanished before it could be measured",
            "gone": "{}: measured earlier; the folder is not there any more",
        }
        found = ((kind, ", ".join(self.settings.get(kind) or ())) for kind in words)
        return [(kind, words[kind].format(names)) for kind, names in found if names]

    def _table_lines(self) -> list[str]:
        head = ["step", "memU", "95 % interval"]
        if self.has_control:
            head += ["control", "signed", "net, in all", "95 % interval", "memorized", "oracle"]
        rows = [tuple(head)]
        for row in self.figures.to_dict("records"):
            step = row["name"] if math.isnan(row["step"]) else f"{row['step']:,.0f}"
            cells = [step, f"{row['mean_bits']:,.2f}", _span(row["low"], row["high"], 2)]
            if self.has_control:
                chosen = row["n_memorized"]
                cells += [f"{row['control_mean_bits']:,.2f}", f"{row['control_mean_signed_bits']:,.1f}"]
                cells += [f"{row['net_bits']:,.0f}"]
                cells += [_span(row["net_low"], row["net_high"], 0)]
                cells += ["cannot tell" if math.isnan(chosen) else f"{chosen:,.0f} of {len(self.index):,}"]
                cells += [str(row["verdict"])]
            rows.append(tuple(cells))
        if len(rows) > _SHOWN + 1:
            half, dots = _SHOWN // 2, tuple("..." for _ in head)
            rows = [*rows[: half + 1], dots, *rows[-half:]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]


def _span(low: float, high: float, digits: int) -> str:
    return "unknown" if math.isnan(low) else f"{low:,.{digits}f} to {high:,.{digits}f}"


def trajectory_of(
    readings: Sequence[Reading], found: Any, about: About | None = None, more: dict[str, Any] | None = None
) -> Trajectory:
    """The trajectory that readings make.

    Args:
        readings: of the checkpoints, in order.
        found: the `Memorization` of one of them, which says what they have in common: oracle, samples, first token.
        about: what is known of each sample; None where that measurement says it.
        more: further settings.

    Raises:
        InputError: there are none.
    """
    import pandas as pd

    if not readings:
        raise InputError("no checkpoint has been measured, so there is no trajectory.")
    table = pd.DataFrame([{"step": one.step, "name": one.name, **one.row} for one in readings])
    table["step"] = table["step"].astype(np.float64)
    control = found.control
    return Trajectory(
        names=tuple(one.name for one in readings),
        steps=np.array([one.step for one in readings], dtype=np.float64),
        figures=table,
        bits=np.stack([one.bits for one in readings]),
        signed_bits=np.stack([one.signed_bits for one in readings]),
        q_values=np.stack([one.q_values for one in readings]),
        control_bits=np.stack([one.control_bits for one in readings]),
        control_signed_bits=np.stack([one.control_signed_bits for one in readings]),
        index=found.target.index,
        control_index=np.zeros(0, np.int64) if control is None else control.target.index,
        about=found.about if about is None else about,
        settings={
            "has_control": control is not None,
            "oracle": found.oracle.settings["model"],
            "first_token": found.target.settings["first_token"],
            "joint": found.settings["joint"],
            "samples": found.target.settings["samples"],
            "control_samples": None if control is None else control.target.settings["samples"],
            "versions": found.settings["versions"],
            **(more or {}),
        },
    )
