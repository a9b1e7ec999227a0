"""`which_samples`: memU beside the rarity of a sample's tokens and the number of its duplicates."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from memorization.errors import InputError, warn
from memorization.measure.pair import check_measured
from memorization.measure.tokenizers import TokenizerLike, load_tokenizer, tokenizer_record
from memorization.rarity.correlations import correlation_table
from memorization.rarity.duplicates import N_PERMUTATIONS, SEED, check_near_options, count_duplicates, sample_keys
from memorization.rarity.result import Rarity, lengths_vary, share_memorized
from memorization.rarity.tfidf import as_tokens, mean_bits
from memorization.renamed import renamed_keywords
from memorization.results import counted, versions, visible
from memorization.samples import GroupsLike, Samples, SamplesLike, check_documents, read_samples
from memorization.stats.levels import check_level
from memorization.unintended import Memorization
from memorization.unintended.joint import with_count

_PREVIEW = 60  # characters of a sample in a table

_PREVIEW_IDS = 12  # without a tokenizer


@renamed_keywords(interval="level", n_permutations="", seed="")
def which_samples(
    memorized: Memorization | Sequence[float] | np.ndarray,
    samples: SamplesLike,
    training_set: SamplesLike | None = None,
    *,
    tokenizer: TokenizerLike | None = None,
    near: float = 0.8,
    shingle_tokens: int = 5,
    oracle_bits: Sequence[float] | np.ndarray | None = None,
    groups: GroupsLike | None = None,
    level: float = 0.95,
) -> Rarity:
    """Which samples are memorized: does memU, in bits, rank with the rarity of their tokens, or with their duplicates?

    Args:
        memorized: a `Memorization` of the samples, of which the signed bits count; or bits, one a sample.
        samples: those that were measured, as `compress_bits` takes them.
        training_set: what the target was trained on, repeats included; None is the samples themselves.
        tokenizer: for texts, best that of the target: an object, or the folder or name to load one from. For ids it
            decodes previews.
        near: as for `duplicate_counts`; on tokens here.
        shingle_tokens: tokens of a shingle.
        oracle_bits: of each sample under the oracle, where `memorized` is bits; a `Memorization` brings its own.
        groups: which document each sample is of: a column of the samples' file, or a label a sample; None: those of the
            `Memorization`, where it has them. Intervals and p-values of correlations are then of whole documents.
        level: of the intervals of the rank correlations.

    Returns:
        A row a sample, and Spearman's correlations of memU with TF-IDF and with the numbers of exact and near
        duplicates. Where the longest sample has over 10 % more tokens than the shortest, also those of memU a token,
        and of memU and TF-IDF with the length: memU in bits a sample grows with the length, whatever is in a sample.
        Where the oracle's bits are known, also those of memU with them; of the share memorized, which is memU over the
        oracle's bits, with the three; and of memU with the three given the oracle's bits. Rare samples cost the oracle
        more, so there is more of them to memorize: where all of it is memorized, memU *is* the oracle's bits.

    Raises:
        InputError: texts without a tokenizer, bits that are not finite or not one a sample, oracle's bits below 0 or
            beside a Memorization, options out of range, or datasketch is not installed.
        ResultError: the Memorization is of other samples.

    Guarantees:
        Equal samples count once in the correlations: a model gives copies the same bits, and counted n times they would
            be taken for n
        observations. So where memU is drawn at random p-values are uniform, and 95 % intervals covered in 94 to 97 % of
        2,000 trials (rho 0 to 0.95, 10 to 300 samples). Near duplicates are not independent either, and are counted as
        if they were: read p-values of sets full of them as too small. With groups, see `stats.ranks.spearman`.

    Examples:
        >>> samples = [[1, 1], [1, 2], [2, 2], [3, 1], [3, 4], [1, 1]]
        >>> result = which_samples([0.0, 2.0, 2.5, 3.0, 9.0, 0.0], samples)
        >>> result.tfidf_bits.round(2).tolist(), result.exact_duplicates.tolist()
        ([0.0, 0.5, 1.0, 0.79, 2.08, 0.0], [2, 1, 1, 1, 1, 2])
        >>> float(round(result.correlations["rho"][0], 2)), int(result.correlations["n"][0])
        (0.9, 5)

    Source:
        Morris et al., arXiv:2505.24832, section 4; Bonett and Wright, doi:10.1007/BF02294183 (intervals);
        Kendall, doi:10.1093/biomet/32.3-4.277 (partial rank correlation).
    """
    level = check_level(level)
    shingle_tokens = check_near_options(near, shingle_tokens)
    read = read_samples(samples, groups=groups)
    if groups is not None and read.groups is not None:
        check_documents(read.groups, "samples", at_least=3)
    read, bits, of_oracle = _bits_of_both(memorized, oracle_bits, read)
    tokenizer = load_tokenizer(tokenizer)
    own = as_tokens(read, tokenizer, "sample")
    training = own if training_set is None else as_tokens(read_samples(training_set), tokenizer, "training sample")
    counts = count_duplicates(
        own, training, near=near, shingle_tokens=shingle_tokens, n_permutations=N_PERMUTATIONS, seed=SEED
    )
    n_tokens = np.array([len(ids) for ids in own.ids or ()], dtype=np.int64)
    columns: dict[str, np.ndarray] = {
        "signed_bits": bits,
        "oracle_bits": of_oracle,
        "tfidf_bits": mean_bits(own, training),
        "exact_duplicates": counts.exact,
        "near_duplicates": counts.near,
        "n_tokens": n_tokens,
    }
    one_of_each = list({key: i for i, key in enumerate(sample_keys(own))}.values())
    compared = columns | {"signed_bits_per_token": bits / n_tokens, "share_memorized": share_memorized(bits, of_oracle)}
    if np.isnan(of_oracle).all():
        del compared["oracle_bits"]
    different = {name: values[one_of_each] for name, values in compared.items()}
    labels = read.groups
    if labels is None and isinstance(memorized, Memorization):
        labels = memorized.groups
    documents = None if labels is None else np.asarray(labels)[one_of_each]
    previews = list(_previews(own, tokenizer))
    about = read.about
    if about.row_ids is None and not about.kept and isinstance(memorized, Memorization):
        about = memorized.about or about
    return Rarity(
        **columns,
        correlations=correlation_table(different, lengths_vary=lengths_vary(n_tokens), level=level, groups=documents),
        index=read.index,
        previews=previews,
        about=replace(about, previews=tuple(previews)),
        settings={
            "interval_level": level,
            "n_documents": None if labels is None else len({*labels}),
            "near": float(near),
            "shingle_tokens": shingle_tokens,
            "n_permutations": N_PERMUTATIONS,
            "seed": SEED,
            "samples": own.record(),
            "training_set": training.record(),
            "tokenizer": tokenizer_record(tokenizer),
            "versions": versions(),
        },
    )


def rarity(*args: Any, **kwargs: Any) -> Rarity:
    """The old name of `which_samples`."""
    warn("rarity is now which_samples; the old name goes with the next version.", DeprecationWarning)
    return which_samples(*args, **kwargs)


def _same_samples(memorized: Memorization, read: Samples) -> Samples:
    """The samples that were measured, without lossy ones, after checking that they are the same."""
    measured = memorized.target.settings["samples"]
    read = read.as_measured(measured)
    check_measured(measured, read, "the Memorization is")
    return read


def _bits_of_both(memorized: Any, oracle_bits: Any, read: Samples) -> tuple[Samples, np.ndarray, np.ndarray]:
    """The samples that count, their signed memU, and their bits under the oracle, NaN where these are unknown."""
    if isinstance(memorized, Memorization):
        if oracle_bits is not None:
            raise InputError("oracle_bits is for bits without an oracle; a Memorization brings its own. Leave it out.")
        of_oracle = with_count(memorized.oracle.bits, memorized.oracle, memorized.settings)
        return _same_samples(memorized, read), memorized.signed_bits, of_oracle
    bits = _bits("memorized", memorized, len(read))
    if oracle_bits is None:
        return read, bits, np.full(len(bits), np.nan)
    of_oracle = _bits("oracle_bits", oracle_bits, len(bits))
    if (of_oracle < 0).any():
        raise InputError(f"oracle_bits are code lengths, 0 or more; the least of them is {of_oracle.min():g}.")
    return read, bits, of_oracle


def _bits(name: str, values: Any, n_samples: int) -> Float64[np.ndarray, " sample"]:
    try:
        bits = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        what = "a Memorization, or a flat array" if name == "memorized" else "a flat array"
        raise InputError(f"{name} must be {what} of bits, one a sample: {error}.") from error
    if bits.shape != (n_samples,):
        raise InputError(
            f"{name} holds bits, one a sample: {counted(n_samples, 'sample')} came, and bits of shape "
            f"{list(bits.shape)}."
        )
    wrong = np.flatnonzero(~np.isfinite(bits))
    if len(wrong):
        raise InputError(
            f"bits must be finite; that of sample {wrong[0]} in {name} is {bits[wrong[0]]} ({len(wrong)} such)."
        )
    return bits


def _previews(samples: Samples, tokenizer: Any) -> Iterator[str]:
    """How each sample begins, in a few words."""
    for i, ids in enumerate(samples.ids or ()):
        if samples.texts is not None:
            text, whole = samples.texts[i][:_PREVIEW], len(samples.texts[i]) <= _PREVIEW
        elif tokenizer is not None:  # a token is rarely less than a character
            text = tokenizer.decode(ids[:_PREVIEW])
            text, whole = text[:_PREVIEW], len(text) <= _PREVIEW and len(ids) <= _PREVIEW
        else:
            text, whole = " ".join(map(str, ids[:_PREVIEW_IDS].tolist())), len(ids) <= _PREVIEW_IDS
        yield visible(text if whole else f"{text} ...")
