"""The result of `unintended_memorization`: memU of samples and what it is made of."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from jaxtyping import Float64, Int64

from memorization.measure.code_lengths import CodeLengths
from memorization.measure.context import FirstToken
from memorization.measure.pair import Pair, check_same_samples
from memorization.results import Saved, counted, describe_first_token, describe_model, plain
from memorization.results.chunks import Chunks
from memorization.samples import left_out
from memorization.stats.levels import Interval
from memorization.unintended.control import Control, control_of, with_groups
from memorization.unintended.in_parts import InParts
from memorization.unintended.joint import joint_of, with_count
from memorization.unintended.ladder import Ladder, Sets, build_ladder
from memorization.unintended.means import Means, sample_keys
from memorization.unintended.rows import RowsOfMemorization
from memorization.unintended.shares import Shares
from memorization.unintended.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd


_ROLES = ("target", "oracle")


@dataclass(frozen=True, slots=True, eq=False)
class Memorization(RowsOfMemorization, InParts, Shares):
    """Unintended memorization of samples by a target model against an oracle, in bits, in the order of the input.

    A saved folder holds memorization.parquet (a row a sample) and control.parquet; target/ and oracle/ (and the same in
    control/), the code lengths, with a row a token in their tokens.parquet; settings.json; and summary.json with every
    figure, setting, fingerprint and version.

    Attributes:
        bits: memU(x) = H(x | oracle) - H(x | oracle, target), from coded lengths, float64. With joint="max" never below
            0.
        signed_bits: H(x | oracle) - H(x | target), from coded lengths: never clipped, so noise averages out.
        ideal_bits: memU from -log2 p.
        ideal_signed_bits: the signed difference from -log2 p.
        joint_bits: H(x | oracle, target), from coded lengths.
        mem_bits: total information mem(x) = H(x) - H(x | target), H(x) being the stated baseline.
        intended_bits: memI(x) = mem(x) - memU(x), generalization; may be negative.
        target: code lengths under the target.
        oracle: code lengths under the oracle.
        control: the same of samples that neither model has seen; None where none were given.
        settings: what was decided, by the caller or for the caller; those of the code lengths are its "target" and
            "oracle". "n_repeated" counts samples that are the same as an earlier one.
        other_oracles: code lengths of samples and control under each further oracle that was given.
        groups: the document of each sample; None where each is on its own.

    Examples:
        >>> import torch
        >>> from memorization import UniformModel, unintended_memorization
        >>> after = torch.eye(256).roll(1, 1) * 50  # a model that counts
        >>> found = unintended_memorization(lambda ids: after[ids], UniformModel(256), [[1, 2, 3]], first_token=0)
        >>> found.signed_bits.round().tolist()
        [24.0]
    """

    bits: Float64[np.ndarray, " sample"]
    signed_bits: Float64[np.ndarray, " sample"]
    ideal_bits: Float64[np.ndarray, " sample"]
    ideal_signed_bits: Float64[np.ndarray, " sample"]
    joint_bits: Float64[np.ndarray, " sample"]
    mem_bits: Float64[np.ndarray, " sample"]
    intended_bits: Float64[np.ndarray, " sample"]
    target: CodeLengths
    oracle: CodeLengths
    control: Control | None
    settings: dict[str, Any]
    other_oracles: tuple[Sets, ...] = ()
    groups: tuple[str, ...] | None = None

    @property
    def total_bits(self) -> float:
        """memU of all samples together, in bits: an estimate of the data set's, too high by what the oracle lacks.

        It is a lower bound only for independent samples and conditional information under their true distribution
        (paper, section 2).
        """
        return float(self.bits.sum())

    @property
    def ladder(self) -> Ladder | None:
        """memU by oracles of different strength, and what that says about the oracle; None without a control."""
        control = self.control
        if control is None:
            return None
        return self._once(
            "ladder",
            lambda: build_ladder(
                (self.target, control.target),
                [(self.oracle, control.oracle), *self.other_oracles],
                self,
                control,
                joint=self.settings["joint"],
                counted=bool(self.settings["token_count_code"]),
            ),
        )

    @property
    def verdict(self) -> Verdict | None:
        """On the oracle: "validated", "cannot tell" or "weak"; `ladder.reason` says why. None without a control."""
        return None if self.ladder is None else self.ladder.verdict

    def to_pandas(self) -> "pd.DataFrame":
        """One row a sample: sample (its position in the input), memU, what it is made of, p_value, q_value, preview.

        And where these are known: id and group behind sample, and the columns that were kept at the end.
        """
        return self._rows(0, len(self))

    def _rows(self, low: int, high: int) -> "pd.DataFrame":
        return self._rows_at(range(low, high))

    def _rows_at(self, places: range | Int64[np.ndarray, " some"]) -> "pd.DataFrame":
        """These rows of `to_pandas`, whose names are their places."""
        import pandas as pd

        part = slice(places.start, places.stop) if isinstance(places, range) else places
        columns = {
            "sample": self.target.index,
            "bits": self.bits,
            "signed_bits": self.signed_bits,
            "ideal_bits": self.ideal_bits,
            "ideal_signed_bits": self.ideal_signed_bits,
            "joint_bits": self.joint_bits,
            "mem_bits": self.mem_bits,
            "intended_bits": self.intended_bits,
            "target_bits": self.target.bits,
            "oracle_bits": self.oracle.bits,
            "target_n_tokens": self.target.n_tokens,
            "oracle_n_tokens": self.oracle.n_tokens,
            "n_bytes": self.target.n_bytes,
            "p_value": self.p_values,
            "q_value": self.q_values,
        }
        table = pd.DataFrame(
            {name: values[part] for name, values in columns.items()}, index=pd.RangeIndex(len(self))[part]
        )
        groups = None if self.groups is None else tuple(self.groups[place] for place in places)
        return with_groups(table, groups, self.target._about_at(places))

    @property
    def _in_files(self) -> bool:
        return self.target._in_files

    def _row_ranges(self) -> list[tuple[int, int]]:
        return self.target._row_ranges()

    _row_tables: ClassVar[tuple[str, ...]] = ("memorization", "control")

    def _tables(self) -> "dict[str, pd.DataFrame | Chunks]":
        tables = {"memorization": self._table()}
        return tables if self.control is None else {**tables, "control": self.control.to_pandas()}

    def _facts(self) -> dict[str, Any]:
        return self.settings

    def _parts(self) -> dict[str, CodeLengths]:
        parts = {role: getattr(self, role) for role in _ROLES}
        if self.control is not None:
            parts |= {f"control/{role}": getattr(self.control, role) for role in _ROLES}
        for k, sets in enumerate(self.other_oracles):
            parts |= dict(zip(_places(k), sets, strict=True))
        return parts

    def _write_more(self, folder: Path) -> None:
        content = {"kind": "summary", **plain(self.summary()), "settings": plain(self.settings)}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")

    def _of_places(self, places: Int64[np.ndarray, " kept"]) -> "Memorization":
        """Of these samples against the whole control: what unseen samples look like does not change."""
        pairs = [(self.target._of_places(places), self.oracle._of_places(places))]
        groups = [None if self.groups is None else tuple(self.groups[place] for place in places)]
        if self.control is not None:
            pairs.append((self.control.target, self.control.oracle))
            groups.append(self.control.groups)
        others = [(lengths._of_places(places), of_control) for lengths, of_control in self.other_oracles]
        target_bits = with_count(pairs[0][0].bits, pairs[0][0], self.settings)
        return combined(pairs, self.settings, self.mem_bits[places] + target_bits, others, groups)

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Memorization":
        """memU is computed again from the code lengths."""
        settings = saved.need("joint", "baseline", "token_count_code", "has_control")
        folders = ["", "control/"] if settings["has_control"] else [""]
        pairs = []
        for folder in folders:
            target, oracle = (saved.part(folder + role, CodeLengths) for role in _ROLES)
            check_same_samples(oracle, target, f"{saved.folder} is damaged: the CodeLengths in {folder}oracle")
            pairs.append((target, oracle))
        others = []
        for k in range(len(settings.get("other_oracles", ()))):
            sets = [saved.part(place, CodeLengths) for place in _places(k)]
            for place, lengths, (target, _) in zip(_places(k), sets, pairs, strict=True):
                check_same_samples(lengths, target, f"{saved.folder} is damaged: the CodeLengths in {place}")
            others.append((sets[0], sets[1]))
        table = saved.table("memorization", ("mem_bits",), optional=("group",))
        groups = [_groups_of(table)]
        if settings["has_control"] and groups[0] is not None:
            groups.append(_groups_of(saved.table("control", ("group",))))
        if len(table) != len(pairs[0][0]):
            raise saved.damaged("its tables differ in length")
        target_bits = with_count(pairs[0][0].bits, pairs[0][0], settings)
        return combined(pairs, settings, table["mem_bits"].to_numpy(np.float64) + target_bits, others, groups)

    def summary(self) -> dict[str, Any]:
        """The figures of the table, by name; unknown ones are None."""
        figures: dict[str, Any] = {
            "n_samples": len(self),
            "total_bits": self.total_bits,
            "mean_bits": self.mean_bits,
            "mean_interval": self.interval,
            "mean_signed_bits": self.mean_signed_bits,
            "mean_signed_interval": self.signed_interval,
            "total_ideal_bits": float(self.ideal_bits.sum()),
            "mem_bits": float(self.mem_bits.sum()),
            "intended_bits": float(self.intended_bits.sum()),
            "target_bits_per_token": self.target.bits_per_token,
            "oracle_bits_per_token": self.oracle.bits_per_token,
            "target_bits_per_byte": self.target.bits_per_byte,
            "oracle_bits_per_byte": self.oracle.bits_per_byte,
            "capacity_share": self.capacity_share,
            "capacity_share_non_embedding": self.capacity_share_non_embedding,
            "capacity_share_trained": self.capacity_share_trained,
        }
        if self.control is not None and self.ladder is not None:
            figures |= {
                "control_n_samples": len(self.control.bits),
                "control_mean_bits": self.control.mean_bits,
                "control_mean_signed_bits": self.control.mean,
                "control_mean_signed_interval": self.control.mean_interval,
                "control_signed_quantiles": {f"{q:g}": bits for q, bits in self.control.quantiles.items()},
                "net_bits": self.control.net_bits,
                "net_interval": self.control.net_interval,
                "gap_bits": self.control.gap_bits,
                "gap_interval": self.control.gap_interval,
                "set_p_value": self.set_p_value,
                "in_parts_interval": self.in_parts,
                "bracket": self.ladder.bracket,
                "verdict": self.ladder.verdict,
                "verdict_reason": self.ladder.reason,
            }
        return cast(dict[str, Any], plain(figures))

    def __len__(self) -> int:
        return len(self.bits)

    def __repr__(self) -> str:
        control, settings = self.control, self.settings
        lines = [
            f"Memorization of {counted(len(self), 'sample')}{_of_documents(self)}",
            f"  memU         {self.mean_bits:,.2f} {_span(self.interval)} bits a sample, {self.total_bits:,.1f} in all",
            f"  signed       {self.mean_signed_bits:,.2f} {_span(self.signed_interval)} bits a sample",
        ]
        if control is None:
            lines.append(
                "  control      none: pass unseen samples to learn what memU shows where nothing was memorized"
            )
        else:
            lines += [
                f"  control      {control.mean:,.2f} {_span(control.mean_interval)} bits a sample signed, "
                f"memU {control.mean_bits:,.2f}; {counted(len(control.bits), 'unseen sample')}{_of_documents(control)}",
                f"  net memU     {control.net_bits:,.1f} {_span(control.net_interval)} bits in all: memU over the "
                "control's",
                f"  gap          {control.gap_bits:,.1f} {_span(control.gap_interval)} bits in all: signed over the "
                "control's; seen against unseen text, no amount of memory",
                *self.in_parts_lines(),
                *(self.ladder.lines() if self.ladder is not None else ()),
                *self.selection_lines(is_weak=self.verdict == "weak"),
            ]
        counts = ", token counts added (two tokenizers)" if settings["token_count_code"] else ""
        lines += [
            f"  mem, memI    {self.mem_bits.sum():,.1f} and {self.intended_bits.sum():,.1f} bits in all; H(x): "
            f"{settings['baseline']}",
            f"  capacity     {self._capacity_in_words()}",
            f"  target       {self.target.bits_per_token:.4g} bits a token; "
            f"{describe_model(self.target.settings['model'])}",
            f"  oracle       {self.oracle.bits_per_token:.4g} bits a token; "
            f"{describe_model(self.oracle.settings['model'])}",
            *(
                f"  and oracle   {sets[0].bits_per_token:.4g} bits a token; {describe_model(sets[0].settings['model'])}"
                for sets in self.other_oracles
            ),
            *self._first_tokens(),
            f"  joint code   {settings['joint']}{counts}",
            *_repeats(settings["n_repeated"], len(self)),
            *left_out(
                {
                    "samples": self.target.settings["samples"],
                    "control": settings.get("control_samples"),
                }
            ),
        ]
        return "\n".join(lines)

    def _first_tokens(self) -> list[str]:
        """What stands before a sample, once where both models read the same."""
        settings = [getattr(self, role).settings for role in _ROLES]
        told = [describe_first_token(own["first_token"], own["samples"]) for own in settings]
        rules = [FirstToken.from_record(own["first_token"]) for own in settings]
        lines = [f"  first token  {told[0]}"]
        if rules[0].context != rules[1].context or rules[0].every_window != rules[1].every_window:
            lines.append(f"  of oracle    {told[1]}")
        return lines


def combined(
    pairs: Sequence[Pair],
    settings: dict[str, Any],
    baseline_bits: Float64[np.ndarray, " sample"],
    other_oracles: Sequence[Sets] = (),
    groups: Sequence[tuple[str, ...] | None] = (),
) -> Memorization:
    """The result, from two code lengths of the samples and two of the control: under the target, under the oracle.

    `groups` are the documents of the samples and of the control, where they are known.
    """
    target, oracle = pairs[0]
    of = [*groups, None, None]
    settings = {
        **settings,
        "target": target.settings,
        "oracle": oracle.settings,
        "other_oracles": [sets[0].settings for sets in other_oracles],
        "n_repeated": len(target) - len(np.unique(sample_keys(target))),
    }
    target_bits, oracle_bits = (with_count(lengths.bits, lengths, settings) for lengths in (target, oracle))
    target_ideal, oracle_ideal = (with_count(lengths.ideal_bits, lengths, settings) for lengths in (target, oracle))
    joint = joint_of(target, oracle, settings, "bits")
    signed_bits, bits = oracle_bits - target_bits, oracle_bits - joint
    mem_bits = baseline_bits - target_bits
    return Memorization(
        bits=bits,
        signed_bits=signed_bits,
        ideal_bits=oracle_ideal - joint_of(target, oracle, settings, "ideal_bits"),
        ideal_signed_bits=oracle_ideal - target_ideal,
        joint_bits=joint,
        mem_bits=mem_bits,
        intended_bits=mem_bits - bits,
        target=target,
        oracle=oracle,
        control=control_of(pairs, settings, (bits, signed_bits), (of[0], of[1])) if len(pairs) > 1 else None,
        settings=settings,
        other_oracles=tuple(other_oracles),
        groups=of[0],
    )


def _places(k: int) -> tuple[str, str]:
    """Folders of the code lengths under the k-th further oracle."""
    return f"other_oracles/{k}", f"control/other_oracles/{k}"


def _repeats(n_repeated: int, n_samples: int) -> list[str]:
    if not n_repeated:
        return []
    return [
        f"  repeats      {n_repeated:,} of {counted(n_samples, 'sample')} are the same as an earlier one: they "
        "count each time "
        "in sums and means, once in what intervals and p-values take for independent"
    ]


def _groups_of(table: "pd.DataFrame") -> tuple[str, ...] | None:
    return tuple(table["group"]) if "group" in table else None


def _span(interval: Interval) -> str:
    return f"{interval:,.2f}" if interval.is_known else "[no interval from one sample]"


def _of_documents(means: Means) -> str:
    return "" if means.groups is None else f" of {counted(means.n_independent, 'document')}"
