"""Whether an oracle is strong enough: the rule, and its reasons in words."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from memorization.stats.levels import Interval

__all__ = ["FEWEST", "TOLERANCE", "Evidence", "Step", "Verdict", "judge"]

Verdict: TypeAlias = Literal["validated", "cannot tell", "weak"]

TOLERANCE = 0.05  # of net memU: what the oracle may still lack
SHOWN = 0.2  # of that: what other codes may show that it lacks, each knowing only a part of it
FEWEST = 16  # samples, and control samples (of documents, these): below, no interval is to be believed
UNIFORM = "uniform code"
_EXACT = 0.01  # bits a sample
_FAR = 30  # times the control: nobody will bring more, so it is not advised


@dataclass(frozen=True, slots=True)
class Step:
    """Bits a control sample by which one code is shorter than another: mean, 95 % interval and spread.

    Attributes:
        name: of the other code.
        mean: above 0 where the first code is the shorter one.
        interval: of the mean.
        spread: standard deviation over samples; of documents, what it would be for as many independent samples.
    """

    name: str
    mean: float
    interval: Interval
    spread: float

    @property
    def is_clear(self) -> bool:
        """Whether the first code is shorter beyond chance, and by more than logits are exact to."""
        return self.interval.low > _EXACT

    def turned(self) -> "Step":
        """The same by which the other code is the shorter one."""
        return Step(self.name, -self.mean, Interval(-self.interval.high, -self.interval.low), self.spread)

    def within(self, bits: float) -> bool:
        """Whether the step is at most so large, its interval included."""
        return self.interval.high <= bits

    def samples_needed(self, bits: float) -> int | None:
        """Control samples from which its interval would end below `bits`; None where the step itself is larger."""
        room = bits - max(self.mean, 0.0)
        return math.ceil((1.96 * self.spread / room) ** 2) if room > 0 else None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the verdict goes by, all in bits a sample.

    Attributes:
        oracle: name of the oracle: of those given, the one with the fewest bits on the control.
        n_samples: samples, or the documents that they are of.
        n_control: the same of the control.
        unit: what is counted: "samples" or "documents".
        net: mean net memU.
        net_interval: of it.
        gap: 95 % interval of the gap: signed bits of the samples over the control's.
        spreads: standard deviations of memU over samples, and over control samples, or documents.
        target: what the target codes the control in, fewer than the oracle.
        over_built_in: what the oracle saves over each built-in rung, on the control.
        last_step: what the oracle saves over the next oracle given that is another model; None where there is none.
        continued: what the oracle would save if what it does better than another one given were done more.
        mixture: what the best mixture of all rungs and the target saves over the oracle; None where tokens differ.
        seen: bits a token of the oracle on the samples less those on the control.
        copies: names of oracles given that are copies of the oracle or of the target, or nearly.
    """

    oracle: str
    n_samples: int
    n_control: int
    unit: str
    net: float
    net_interval: Interval
    gap: Interval
    spreads: tuple[float, float]
    target: Step
    over_built_in: tuple[Step, ...]
    last_step: Step | None
    continued: Step | None
    mixture: Step | None
    seen: Interval
    copies: tuple[str, ...]

    @property
    def tolerance(self) -> float:
        """Bits a sample that the oracle may still lack."""
        return TOLERANCE * max(self.net_interval.low, 0.0)


def judge(found: Evidence) -> tuple[Verdict, str]:
    """The verdict, and why, in sentences.

    *weak*: the target, or a built-in rung, codes the control in clearly fewer bits than the oracle. *validated*: not
    weak, and each of these: at least 16 samples and 16 control samples (of documents, 16 of each); net memU above 0
    beyond its interval; the oracle clearly shorter than every built-in rung; a second oracle, another model, that needs
    at most 5 % of net memU more; the best mixture of everything, the target included, saves at most a fifth of that,
    and so does the oracle continued from another one; and the oracle's bits a token are alike on samples and control.
    Else *cannot tell*.
    Intervals count against the oracle, as does what is unknown.
    """
    weak = _why_weak(found)
    if weak:
        return "weak", weak
    doubts = _doubts(found)
    if doubts:
        told = " ".join(doubts)
        return "cannot tell", told[0].lower() + told[1:]
    assert found.last_step is not None
    assert found.mixture is not None
    return "validated", (
        f"no stronger code was found among those looked for: the next oracle ({found.last_step.name}) needs "
        f"{found.last_step.mean:,.2f} bits a sample more ({found.tolerance:,.2f} are allowed, 5 % of net memU), and "
        f"the best mixture of everything, the target included, saves {max(found.mixture.mean, 0.0):,.2f} (of "
        f"{SHOWN * found.tolerance:,.2f}). What no code here sees is not seen."
    )


def _why_weak(found: Evidence) -> str:
    clear = [step for step in (*(one.turned() for one in found.over_built_in), found.target) if step.is_clear]
    if not clear:
        return ""
    best = max(clear, key=lambda step: step.mean)
    otherwise = " Or the target has seen the control, which is then none: take another." if best is found.target else ""
    return (
        f"the {best.name} codes unseen text in {best.mean:,.2f} bits a sample fewer than the oracle (95 % interval "
        f"{best.interval.low:,.2f} to {best.interval.high:,.2f}), so memU includes generalization. Take a stronger "
        f"oracle.{otherwise}"
    )


def _doubts(found: Evidence) -> list[str]:
    n = (found.n_samples, found.n_control)
    if min(n) < FEWEST:
        return [f"{n[0]} {found.unit} and {n[1]} control {found.unit} are too few: {FEWEST} of each are the least."]
    doubts = [*_of_nothing(found), *_of_built_in(found), *_of_oracles(found)]
    seen = found.seen
    if not seen.is_known or not seen.low <= 0 <= seen.high:
        doubts.append(
            "The oracle's bits a token differ between samples and control"
            + (
                f" by {seen:.3f}: it has seen the ones it needs fewer bits for, or the two sets are not drawn alike."
                if seen.is_known
                else " by an unknown amount."
            )
        )
    return doubts


def _of_nothing(found: Evidence) -> list[str]:
    """What it means that net memU may be 0; nothing where it is above."""
    if found.net_interval.low > 0:
        return []
    # With more than this share of samples of a kind, at least one would have been drawn with 97.5 %.
    unseen = 1 - 0.025 ** (1 / max(found.n_samples, 1))
    told = (
        f"Net memU is not told from 0; it is at most {found.net_interval.high:,.2f} bits a sample, if the oracle has "
        "not seen the samples and both models are read as they were trained. That is of samples like these: memorized "
        f"ones that are up to {100 * unseen:.2g} % of all may be missing among {found.n_samples:,} "
        f"{found.unit}.{_more_control(found, found.net)}"
    )
    if found.gap.low > _EXACT:
        told += (
            f" Yet the target knows them better than the control, by {found.gap.low:,.2f} to {found.gap.high:,.2f} "
            "bits a sample over what the oracle does: something is memorized. Against this oracle it does not show, "
            "for the target is worse than it by more than that. Take the oracle that the target was made of, or one "
            "like it; and see whether the first token is the one it was trained with."
        )
    return [told]


def _more_control(found: Evidence, half_width: float) -> str:
    """How many control samples it takes for net memU's interval to have this half width."""
    rest = (half_width / 1.96) ** 2 - found.spreads[0] ** 2 / found.n_samples if half_width > 0 else 0.0
    if rest <= 0:
        return f" More {found.unit} are needed, not only more of the control." if half_width > 0 else ""
    needed = math.ceil(found.spreads[1] ** 2 / rest)
    if needed > _FAR * found.n_control:
        return ""
    return f" About {needed:,} control {found.unit} would tell." if needed > found.n_control else ""


def _of_built_in(found: Evidence) -> list[str]:
    close = [step.name for step in found.over_built_in if not step.is_clear]
    if not close:
        return []
    if UNIFORM in close:
        return [
            "No code beats the uniform one on the control: where the samples are uniform draws by construction, a "
            "uniform oracle is exact, and nothing here can show it."
        ]
    return [f"The oracle is not clearly better than the {' and the '.join(close)}, which has seen the control alone."]


def _of_oracles(found: Evidence) -> list[str]:
    doubts = []
    copies = f" ({', '.join(found.copies)}: too like it, or the target, to count)" if found.copies else ""
    if found.last_step is None:
        steps = [step for step in found.over_built_in if step.name != UNIFORM] or list(found.over_built_in)
        least = min(steps, key=lambda step: step.mean)
        doubts.append(
            f"One oracle was given{copies}, and a stronger one could lower memU: the last step, from the {least.name} "
            f"to the oracle, took {least.mean:,.1f} bits a sample off. Give a second, stronger oracle of another kind."
        )
    else:
        doubts += _still_moving(
            found, found.last_step, found.tolerance, "from the next oracle ({name}) to the best one"
        )
    if found.mixture is None:
        doubts.append("Tokens differ between the models, so that no mixture could be tried.")
    else:
        doubts += _still_moving(found, found.mixture, SHOWN * found.tolerance, "from the oracle to the {name}")
    if found.continued is not None:
        doubts += _still_moving(found, found.continued, SHOWN * found.tolerance, "along the {name}")
    return doubts


def _still_moving(found: Evidence, step: Step, most: float, way: str) -> list[str]:
    if step.within(most) or not most > 0:
        return []
    needed = step.samples_needed(most)
    told = (
        f"About {needed:,} control {found.unit} would tell."
        if needed is not None and found.n_control < needed <= _FAR * found.n_control
        else "Give a stronger oracle, of another kind."
    )
    if not step.interval.is_known:
        return [f"Whether memU is still moving {way.format(name=step.name)} is unknown."]
    return [
        f"memU may still be moving: {way.format(name=step.name)} it falls by {step.mean:,.2f} bits a sample, by "
        f"{step.interval.high:,.2f} at the most (95 % interval), and {most:,.2f} are allowed. {told}"
    ]
