"""`compress_bits`: exact code length of samples under a causal language model."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from memorization.measure.code_lengths import CodeLengths, measure_sets, tokenize
from memorization.measure.in_shards import Beside, Scored, decided, identity_of
from memorization.measure.opening import DeviceLike, DTypeLike, ModelLike, OpenModel, open_model
from memorization.measure.passes import check_windows
from memorization.measure.scans import Scan, survey
from memorization.measure.shard_files import ShardRun, free_folder, save_measured
from memorization.measure.shared import Sharing, score_shards
from memorization.measure.tokenizers import TokenizerLike
from memorization.results import Result
from memorization.samples import Samples, SampleShards, SamplesLike, read_samples, scan_samples

__all__ = ["compress_bits", "score_in_shards"]


def compress_bits(
    model: ModelLike,
    samples: SamplesLike | SampleShards,
    *,
    tokenizer: TokenizerLike | None = None,
    first_token: str | int = "auto",
    max_length: int | None = None,
    stride: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    max_batch_tokens: int | None = None,
    device: DeviceLike | None = None,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    text_column: str = "text",
    limit: int | None = None,
    on_lossy_text: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    allow_pickle: bool = False,
    store: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> CodeLengths:
    """Code length in bits of each sample under a causal language model, by entropy coding of its token probabilities.

    Args:
        model: hub id or folder, a transformers model, any torch module or callable from int64 ids (batch, position) to
            logits (batch, position, vocabulary) or to an object with `.logits`, or `UniformModel(vocab_size)`.
        samples: a text, texts, lists or arrays of token ids, a `datasets.Dataset`, a file (.txt, .jsonl, .csv,
            .parquet), or what `read_samples` made of one: with prompts, lengths are of what follows them.
        tokenizer: object, name or folder; None is the model's own where the model is named.
        first_token: what stands in front of a sample, and what its first token costs. "bos": the tokenizer's BOS stands
            in front, is not coded, and the first token is coded given it; an id or a token: the same with that token;
            "uniform": nothing, and log2 of the vocabulary size; "skip": nothing, and the first token is left out.
            "auto" is bos where the tokenizer has one, unless the model codes the samples in clearly fewer bits without:
            a few dozen are asked both ways. Later windows of long samples get the BOS in front by the same evidence.
            Without a BOS it is uniform.
        max_length: inputs a window holds, the context token included; None is the model's limit.
        stride: new tokens of each window after the first, for samples longer than a window; None is max_length // 2.
        batch_size: samples (windows) a forward pass. "auto" fits it to the memory, and puts together what is of similar
            length: padding never costs more than the forward pass that it saves.
        max_batch_tokens: tokens a forward pass, padding counted, at most; beside a `batch_size` both bounds hold. None:
            what the memory holds where `batch_size` is "auto".
        device: None is where the model lies; a GPU if there is one for models loaded here.
        dtype: of the weights of models loaded here; None is the checkpoint's own. Logits are always read in float32.
        revision: of a hub model.
        trust_remote_code: run code that the checkpoint brings.
        text_column: column of a file or data set.
        limit: only the first so many samples.
        on_lossy_text: "raise" on texts that the tokenizer does not give back byte for byte, or "skip" and count them.
        progress: a bar on stderr for what takes longer than a second.
        allow_pickle: load pickled weights, which can run code.
        store: folder to measure into, for what takes long or does not fit into memory. Samples (what `scan_samples`
            takes as well) are read some at a time, their code lengths are kept as they come, and the same call goes on
            where it was stopped; several processes with the same call share the work. The result is saved there as
            `CodeLengths.save` does.
        overwrite: whether a result in `store` may be replaced, once the new one is whole, and an unfinished run of
            something else thrown away.
        shard: "k/n": measure only every n-th part of a `store`, from the k-th on. Whoever finishes last puts the result
            together, and so does the same call without a shard.
        engine: who measures into the `store`: "local", this process; "ray", tasks of a Ray cluster (extra `ray`), as
            many as it has CPUs (or GPUs, where `device` or this process has one), each with the model of its own.
            All workers must see the store, the model and the samples under the same paths.
        address: of the Ray cluster; None: RAY_ADDRESS, else Ray starts on this machine.

    Returns:
        Code lengths in the order of the samples. Of several shards in a `store`, those of each token are
        read from there when they are asked for.

    Raises:
        InputError: samples or options that cannot be used.
        LossyTextError: a text that its tokenizer does not give back.
        ResultError: `store` holds a result, or an unfinished run of something else.
        UnfinishedError: a shard has measured its share, and others are missing.
        ModelError: a model that cannot be loaded or returns no logits; NotCausalError where later tokens move earlier
            logits; ImpossibleTokenError for NaN logits or a coded token of probability 0.

    Warns:
        FirstTokenWarning: what stands in front is likely not what the model was trained with; or "auto" left the BOS.

    Guarantees:
        Each token is coded exactly once. On a CPU in float32, a sample of up to 256 tokens has the same ideal bits
        within 1e-3 and the same coded bits within 0.05 alone, in any batch and in any order. The model comes back as it
        was: mode, device, weights.

    Examples:
        >>> from memorization import UniformModel, compress_bits
        >>> lengths = compress_bits(UniformModel(2048), [list(range(64))])
        >>> lengths.ideal_bits.tolist(), abs(lengths.total_bits - 704) < 0.05
        ([704.0], True)

    Source:
        Morris et al., "How much do language models memorize?", arXiv:2505.24832, section 2.3: H(x | m) = -log2 p_m(x).
    """
    sharing = Sharing.of(shard, engine, address, store)
    max_length, stride, batches = check_windows(max_length, stride, batch_size, max_batch_tokens)
    opening: dict[str, Any] = {
        "tokenizer": tokenizer,
        "device": device,
        "dtype": dtype,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "allow_pickle": allow_pickle,
        "max_length": max_length,
        "progress": progress,
    }
    how: dict[str, Any] = {
        "first_token": first_token,
        "max_length": max_length,
        "stride": stride,
        "batch_size": batches,
        "on_lossy_text": on_lossy_text,
    }
    if store is not None:
        shards = scan_samples(samples, text_column=text_column, limit=limit)
        return _into(free_folder(store, overwrite=overwrite), overwrite, model, shards, opening, how, sharing)
    raw = read_samples(cast(SamplesLike, samples), text_column=text_column, limit=limit)
    with open_model(model, **opening) as opened:
        return measure_sets(opened, [raw], **how, progress=progress)[0]


def _into(
    folder: Path,
    overwrite: bool,
    model: ModelLike,
    shards: SampleShards,
    opening: dict[str, Any],
    how: dict[str, Any],
    sharing: Sharing,
) -> CodeLengths:
    """Measure shard by shard into a folder; samples of a single shard at once."""
    scan, progress = survey("samples", shards), bool(opening["progress"])
    if len(scan.digests) == 1 and sharing.share.n == 1:
        with open_model(model, **opening) as opened:
            measured = measure_sets(opened, [shards.only()], **how, progress=progress)[0]
        save_measured(measured, folder, overwrite=overwrite)
        return measured
    score_in_shards(folder, overwrite, model, [scan], opening, how, lambda lengths, _: lengths[0], sharing)
    return CodeLengths.load(folder)


def score_in_shards(
    folder: Path,
    overwrite: bool,
    model: ModelLike,
    scans: Sequence[Scan],
    opening: Mapping[str, Any],
    how: Mapping[str, Any],
    result_of: Callable[[list[CodeLengths], list[dict[str, Any]]], Result],
    sharing: Sharing,
    *,
    beside: Beside | None = None,
    further: Mapping[str, Any] | None = None,
) -> None:
    """Measure sets of samples under one model into a folder, shard by shard, and save there what comes of it.

    Args:
        folder: of the result.
        overwrite: whether an unfinished run of something else may be thrown away.
        model: as for `open_model`.
        scans: the sets; a few samples of the first decide what stands in front of all.
        opening: the other arguments of `open_model`.
        how: of `measure_sets`.
        result_of: the result, from the code lengths of each set and from the columns beside them.
        sharing: who measures.
        beside: what else is asked of the model while it is open.
        further: what else determines that, by name.
    """
    identity = identity_of({"model": model}, scans, {"dtype": opening["dtype"], **how, **(further or {})})
    run = ShardRun(folder, identity, overwrite=overwrite)

    def decide() -> dict[str, Any]:
        with open_model(model, **opening) as opened:
            return measure_sets(opened, [scans[0].spread()], **how, progress=False)[0].settings

    settings = decided(run, decide)
    options = {name: how[name] for name in ("max_length", "stride", "batch_size")}

    def in_tokens(shard: Samples, opened: OpenModel) -> Samples:
        return tokenize(shard, opened.tokenizer, on_lossy_text=how["on_lossy_text"])

    def concluded(lengths: list[list[CodeLengths]]) -> Result:
        return result_of(lengths[0], [run.beside(f"{scan.name}/model", len(scan.digests)) for scan in scans])

    scored = Scored("model", model, opening, settings, options, in_tokens, beside)
    score_shards(run, scans, [scored], concluded, sharing=sharing, progress=bool(opening["progress"]))
