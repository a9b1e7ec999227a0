"""`text_sweep`: samples, test samples and nested data sets, oracles, runs, and the tables made of them."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import numpy as np
import torch
from jaxtyping import Int64

from memorization.capacity import EXPECTED_BITS_PER_PARAM, Capacity
from memorization.errors import InputError, MeasurementWarning, warn
from memorization.integers import check_integer, check_integers
from memorization.lab.builders import Builder, known_builder, list_of_builders, stream
from memorization.lab.cells import Run, device_of, experiment, stackable
from memorization.lab.engines.chosen import EngineLike, engine_of
from memorization.lab.engines.runs import each_share, until_finished
from memorization.lab.options import check_positive
from memorization.lab.store import Store
from memorization.lab.text.documents import FixedLength, fixed_length
from memorization.lab.text.oracles import OracleBits, TrainedOracles, given_oracle_bits
from memorization.lab.text.result import TextSweep
from memorization.lab.text.runs import ModelSize, TextData, runs_of_size
from memorization.lab.text.split import Split, split_documents
from memorization.lab.text.tables import assemble
from memorization.measure.opening import DeviceLike, ModelLike
from memorization.measure.tokenizers import TokenizerLike
from memorization.samples import GroupsLike, SamplesLike

__all__ = ["text_sweep"]

# Data of these multiples of the capacity, at half of log2 V bits a token: from where everything is memorized to where
# F1 is chance.
_LEAST_MULTIPLE, _MOST_MULTIPLE = 0.06, 16.0
_FEWEST = 16  # samples of a data set


def text_sweep(
    build_models: Builder | Sequence[Builder],
    documents: SamplesLike,
    *,
    seq_len: int = 32,
    vocab_size: int | None = None,
    tokenizer: TokenizerLike | None = None,
    text_column: str = "text",
    groups: GroupsLike | None = None,
    samples_per_document: int | None = None,
    n_samples: Literal["auto"] | Iterable[SupportsIndex] = "auto",
    n_test: int = 1024,
    seeds: Iterable[SupportsIndex] = (0, 1),
    steps: int = 3000,
    batch_size: int = 32,
    peak_lr: Literal["auto"] | float = "auto",
    oracle: ModelLike | None = None,
    build_oracle: Builder | None = None,
    oracle_epochs: int | float = 2.0,
    oracle_batch_size: int = 128,
    folds: int = 2,
    bits_per_param: int | float | Capacity = EXPECTED_BITS_PER_PARAM,
    prefix_tokens: Iterable[SupportsIndex] = (8, 16),
    device: DeviceLike | None = None,
    store: str | Path | None = None,
    engine: EngineLike = "local",
    shard: str | None = None,
    progress: bool = True,
) -> TextSweep:
    """Train models of several sizes on nested, growing data sets, and measure in bits what each holds of its own.

    Documents become distinct samples of seq_len tokens. Samples of one document say something of each other, so whole
    documents are held out: a tenth of them, or as many as n_test samples need. n_test of their samples, drawn at
    random, are the test samples; no model here is trained on anything of these documents. The samples of the other
    documents are the pool. Each seed shuffles the pool, and its data sets are the first 2^k samples. A model trains on
    one data set for a fixed number of steps with its learning rate decaying to zero, and is then measured on all its
    samples and on the test samples: bits per token, memU, membership attacks, extraction.

    The oracle decides what counts as memorized. An oracle trained on all of the pool has seen the samples, and what it
    has memorized of them is hidden. Cross-fitted oracles have not: the documents of the pool are dealt into folds, and
    each sample is asked of an oracle that trained on the other folds, and so on nothing of its document. Both stand
    side by side.

    Args:
        build_models: called with (vocab_size, seq_len), returns a module that maps int64 ids (sample, position) to
            logits, without dropout; for example a `memorization.lab.architectures.Architecture`. A list of them:
            several model sizes.
        documents: texts or token ids, as `compress_bits` takes them, or a file (of several:
            `memorization.lab.text.documents.documents_of`). Each is cut into consecutive samples, and is a document
            unless `groups` says otherwise: a line of a .txt file.
        seq_len: tokens of a sample.
        vocab_size: of a byte-level BPE trained on the texts (None: 512), or of token ids (None: the largest and one
            more).
        tokenizer: for texts, in place of one that is trained. Its BOS stands before each sample, without one token 0.
        text_column: of a file.
        groups: where a document is more than one text: a column of the file that names it, or a label a text.
        samples_per_document: only the first so many samples of each document (1: as in the paper); None: all.
        n_samples: sizes of the data sets; "auto": powers of two from about 0.06 to 16 times what a model size holds, as
            far as the pool goes (at 3.6 bits a parameter, whatever bits_per_param).
        n_test: test samples; at most as many members are attacked and asked to be extracted.
        seeds: one run of each cell for each; weights, data and order are drawn from separate streams of a seed.
        steps: of each run.
        batch_size: samples a step.
        peak_lr: "auto": found by a short pilot for each model size.
        oracle: a model of the same tokens, as `compress_bits` takes it, in place of the trained ones.
        build_oracle: architecture of the trained oracles; None: the largest of build_models.
        oracle_epochs: passes of each trained oracle over the samples it is trained on.
        oracle_batch_size: samples a step of an oracle.
        folds: cross-fitted oracles, at least 2.
        bits_per_param: to state data-set sizes in units of capacity: bits a parameter, or a measured `Capacity`, of
            which each model size has its own capacity where that was measured, else the bits a parameter.
        prefix_tokens: prefixes for extraction, each shorter than seq_len.
        device: torch device; None: a GPU if there is one.
        store: folder or fsspec URL that keeps each finished run: made again, the call goes on where it was.
        engine: where models are trained, as for `capacity_bits_per_param`.
        shard: "k/n", to train only every n-th model, as for `capacity_bits_per_param`.
        progress: bars on stderr, with the time left of each part.

    Returns:
        A row a run, memU a sample, the pictures, where the test bits peak, and the membership law of these models.

    Raises:
        InputError: options that cannot be used, samples shorter than seq_len, too few samples or documents for the test
            samples or the data sets, or an oracle of another vocabulary.
        ModelError: a model that has the wrong output or diverges at every rate.
        ResultError: the store belongs to another experiment.
        UnfinishedError: a shard has trained what it could, and nobody is at work on the others.

    Guarantees:
        torch's global generator is left as it was. A finished run is never repeated with the same store. Nothing of a
        test sample's document is trained on, by models or oracles, and an unseen oracle has seen nothing of a sample's
        document. Members of smaller data sets of a seed are members of its larger ones. Intervals are of whole
        documents.

    Examples:
        Two steps teach nothing, so members cost what test samples cost.

        >>> from memorization.lab.architectures import Architecture
        >>> ids = torch.randint(16, (400, 8), generator=torch.Generator().manual_seed(0))
        >>> sweep = text_sweep(
        ...     Architecture("gpt2", width=4),
        ...     ids,
        ...     vocab_size=16,
        ...     seq_len=8,
        ...     n_samples=[64],
        ...     n_test=64,
        ...     steps=2,
        ...     seeds=[0],
        ...     peak_lr=1e-4,
        ...     prefix_tokens=[4],
        ...     progress=False,
        ... )
        >>> run = sweep.cells.iloc[0]
        >>> print(f"members {run.train_bits_per_token:.1f}, test {run.test_bits_per_token:.1f} bits per token")
        members 4.0, test 4.0 bits per token

    Source: Morris et al., arXiv:2505.24832, sections 4 and 5. Differences: the start token, decaying rates,
    cross-fitted oracles; several samples a document, with whole documents held out.
    """
    builders = list_of_builders("build_models", build_models)
    chosen_seeds, wanted = check_integers("seeds", seeds), _wanted(n_samples)
    seq_len, n_test, folds = (
        check_integer(name, value, at_least=2)
        for name, value in (("seq_len", seq_len), ("n_test", n_test), ("folds", folds))
    )
    steps, batch_size = check_integer("steps", steps), check_integer("batch_size", batch_size)
    oracle_batch_size = check_integer("oracle_batch_size", oracle_batch_size)
    oracle_epochs = check_positive("oracle_epochs", oracle_epochs)
    if peak_lr != "auto":
        peak_lr = check_positive("peak_lr", peak_lr, besides='"auto"')
    prefixes = _prefixes(prefix_tokens, seq_len)
    measured = bits_per_param if isinstance(bits_per_param, Capacity) else None
    per_param = check_positive("bits_per_param", bits_per_param if measured is None else measured.bits_per_param)
    samples = fixed_length(
        documents,
        seq_len=seq_len,
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        text_column=text_column,
        groups=groups,
        samples_per_document=samples_per_document,
    )
    split = split_documents(samples.document, n_test, np.random.default_rng(stream("split", 0)))
    if len(split.pool) < 2 * _FEWEST:
        raise InputError(
            f"there are {len(samples.ids)} distinct samples of {seq_len} tokens; with {split.n_documents_held_out} "
            f"documents held out for n_test={n_test} test samples the pool has {len(split.pool)}, and needs "
            f"{2 * _FEWEST}: bring more text, or take a smaller n_test or seq_len."
        )
    test, pool = torch.from_numpy(samples.ids[split.test]), torch.from_numpy(samples.ids[split.pool])
    place, runs_by = device_of(device), engine_of(engine, shard)
    sizes = [_size(build, samples.vocab_size, seq_len, wanted, len(pool), place) for build in builders]
    sizes.sort(key=lambda size: size.params.total)
    if len({size.params.total for size in sizes}) < len(sizes):
        raise InputError(
            "each builder must have a number of parameters of its own, which is what tells model sizes apart."
        )
    bos = getattr(samples.tokenizer, "bos_token_id", None)
    context = 0 if bos is None else int(bos)
    facts: dict[str, Any] = {
        "seq_len": seq_len,
        "vocab_size": samples.vocab_size,
        "n_test": n_test,
        "prefix_tokens": list(prefixes),
        "context": context,
        "texts": samples.tokenizer is not None,
        "split_sha256": _digest(samples, split),
    }
    kept = Store(store, experiment("nested data sets of text", place, **facts))
    largest = max(size.n_samples[-1] for size in sizes)
    members = {seed: _shuffle(len(pool), seed)[:largest] for seed in chosen_seeds}
    if oracle is not None:
        asked = np.zeros(len(pool), dtype=bool)
        asked[np.concatenate(list(members.values()))] = True
        given = given_oracle_bits(
            oracle,
            pool,
            test,
            asked,
            vocab_size=samples.vocab_size,
            context=context,
            device=place,
            progress=progress,
        )
    else:
        trained = TrainedOracles(
            of=known_builder(build_oracle or sizes[-1].build, samples.vocab_size, seq_len),
            folds=folds,
            epochs=oracle_epochs,
            batch_size=oracle_batch_size,
            vocab_size=samples.vocab_size,
            context=context,
            device=place,
            store=kept,
            progress=progress,
            engine=runs_by,
        )
    data = TextData(pool, test, samples.vocab_size, members, context, tuple(prefixes), samples.tokenizer, str(place))
    how: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "peak_lr": peak_lr, "progress": progress}

    def everything() -> tuple[OracleBits, list[Run]]:
        """What oracles and models say, which do not depend on each other."""
        asked: list[OracleBits] = [] if oracle is None else [given]

        def ask() -> list[Run]:
            asked.append(trained.bits(pool, test, samples.document[split.pool]))
            return []

        jobs: list[Callable[[], list[Run]]] = [] if asked else [ask]
        jobs += [partial(runs_of_size, data, size, kept, **how, engine=runs_by) for size in sizes]
        found = each_share(jobs)
        return asked[0], [run for runs in found for run in runs]

    oracle_bits, runs = until_finished(everything, kept)
    settings = {
        **facts,
        "n_documents": samples.n_documents,
        "samples_per_document": samples_per_document,
        "n_short": samples.n_short,
        "n_duplicates": samples.n_duplicates,
        "n_pool": len(pool),
        "n_documents_cut": split.n_documents,
        "n_documents_held_out": split.n_documents_held_out,
        "n_left_out": split.n_left_out,
        "seeds": list(chosen_seeds),
        "steps": steps,
        "batch_size": batch_size,
        "models": [size.identity.rsplit(" ", 1)[0] for size in sizes],
        "capacity_bits": _capacity_bits(sizes, per_param, measured),
        "oracle": {**oracle_bits.record, "bits_per_token": oracle_bits.bits_per_token},
        "device": str(place),
    }
    documents_of_both = samples.document[split.pool], samples.document[split.test]
    return assemble(runs, members, oracle_bits, (pool.numpy(), *documents_of_both), samples.tokenizer, settings)


def _digest(samples: FixedLength, split: Split) -> str:
    """Of test samples and pool, and of which of them share a document: another split is another experiment."""
    order = np.concatenate([split.test, split.pool])
    content = [samples.ids[order], samples.document[order], np.array([len(split.test)])]
    return hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in content)).hexdigest()


def _shuffle(n_pool: int, seed: int) -> Int64[np.ndarray, " sample"]:
    return np.random.default_rng(stream("members", seed)).permutation(n_pool)


def _capacity_bits(sizes: list[ModelSize], per_param: float, measured: Capacity | None) -> dict[str, float]:
    """Capacity in bits by number of parameters (a string, as the store keeps JSON)."""
    own = (
        {} if measured is None else dict(zip(measured.n_params.tolist(), measured.capacity_bits.tolist(), strict=True))
    )
    missing = [size.params.trainable for size in sizes if size.params.trainable not in own]
    if measured is not None and missing:
        warn(
            f"the Capacity was measured on models of {', '.join(map(str, own))} parameters, and of "
            f"{', '.join(map(str, missing))} it says nothing: these are taken to hold {per_param:.3g} bits a "
            "parameter. Measure it with the same seq_len and vocab_size.",
            MeasurementWarning,
        )
    return {str(size.params.total): own.get(size.params.trainable, per_param * size.params.total) for size in sizes}


def _size(
    build: Builder,
    vocab_size: int,
    seq_len: int,
    wanted: list[int] | None,
    n_pool: int,
    device: torch.device,
) -> ModelSize:
    known = known_builder(build, vocab_size, seq_len)
    if wanted is not None:
        grid = wanted
        if grid[-1] > n_pool:
            raise InputError(
                f"a data set of {grid[-1]} samples was asked for, and the pool holds {n_pool}: bring more text, or "
                "take fewer or shorter samples."
            )
    else:
        full = EXPECTED_BITS_PER_PARAM * known.params.total / (seq_len * math.log2(vocab_size) / 2)
        first = max(math.log2(_FEWEST), round(math.log2(full * _LEAST_MULTIPLE)))
        last = min(math.log2(n_pool), round(math.log2(full * _MOST_MULTIPLE)))
        grid = [2**k for k in range(int(min(first, last)), int(last) + 1)]
    stacked = stackable(build, vocab_size, seq_len, device)
    return ModelSize(build, known.identity, known.params, tuple(grid), stacked)


def _wanted(n_samples: Any) -> list[int] | None:
    """Sizes of the data sets, ascending; None: those that fit the model sizes."""
    if isinstance(n_samples, str) and n_samples == "auto":
        return None
    return sorted(set(check_integers("n_samples", n_samples, at_least=2, different=False, besides='"auto"')))


def _prefixes(prefix_tokens: Any, seq_len: int) -> list[int]:
    prefixes = check_integers("prefix_tokens", prefix_tokens, at_least=1, different=False)
    if max(prefixes) >= seq_len:
        raise InputError(
            f"prefix_tokens must lie in [1, seq_len - 1] = [1, {seq_len - 1}], at least one; got {prefixes}."
        )
    return prefixes
