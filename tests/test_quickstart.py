"""The embedded demonstration, run for real; its text, its training loop and its pictures."""

import json
import math
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memorization import CodeLengths, Memorization
from memorization.cli import main
from memorization.data import addresses
from memorization.errors import InputError
from memorization.lab import quickstart
from memorization.lab.quickstart import Quickstart, run_quickstart
from memorization.lab.training import train
from memorization.report.code_lengths import plot_code_lengths, plot_token_bits
from memorization.report.memorization import plot_memorization
from memorization.report.quickstart import plot_quickstart

VERMILION, BLUE = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)


# The whole demonstration, once. -------------------------------------------------------------------------------------


def test_members_are_memorized_and_heldout_samples_are_not(quickstart_run: tuple[Quickstart, float]) -> None:
    result, _ = quickstart_run
    assert len(result.members.bits) == len(result.heldout.bits) == 96
    assert result.members.bits.mean() > 100
    assert result.heldout.bits.mean() < 1
    assert result.members.signed_bits.min() > result.heldout.signed_bits.max()
    # The oracle has learned the language: far below log2(1024) = 10 bits a token, equally on both sets of unseen text.
    assert result.heldout.oracle.bits_per_token < 6
    assert abs(result.heldout.oracle.bits_per_token - result.members.oracle.bits_per_token) < 0.4


def test_it_takes_less_than_three_minutes_of_one_core(quickstart_run: tuple[Quickstart, float]) -> None:
    # CPU seconds, because the wall clock of a shared machine measures its other users. Training runs on one thread.
    assert quickstart_run[1] < 180


def test_samples_are_disjoint_and_have_64_tokens(quickstart_run: tuple[Quickstart, float]) -> None:
    result, _ = quickstart_run
    texts = [
        json.loads(line)["text"]
        for path in (result.members_path, result.heldout_path)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(texts) == len(set(texts)) == 192
    for lengths in (result.members.target, result.members.oracle, result.heldout.target, result.heldout.oracle):
        assert set(lengths.n_tokens) == {64}
    book = [" ".join(paragraphs) for paragraphs in addresses()]
    assert all(any(text in address for address in book) for text in texts)
    assert all("".join(result.token_strings(i)) == texts[i] for i in range(96))


def test_both_folders_open_in_transformers_without_this_library(quickstart_run: tuple[Quickstart, float]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result, _ = quickstart_run
    text = json.loads(result.members_path.read_text(encoding="utf-8").splitlines()[0])["text"]
    for folder, lengths, n_params in (
        (result.target_dir, result.members.target, 169_728),
        (result.oracle_dir, result.members.oracle, 536_064),
    ):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert sum(parameter.numel() for parameter in model.parameters()) == n_params
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        assert tokenizer.decode(ids[0]) == text
        inputs = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids[:, :-1]], dim=1)
        with torch.no_grad():
            logits = model.eval()(inputs).logits.double()
        bits = -logits.log_softmax(-1).gather(-1, ids[..., None]).sum().item() / math.log(2)
        assert bits == pytest.approx(lengths.ideal_bits[0], abs=1e-3)


def test_the_printed_command_repeats_the_bits(quickstart_run: tuple[Quickstart, float]) -> None:
    result, _ = quickstart_run
    assert result.command in str(result)
    # "memorization" where a shell finds it; a path, or a module of Python's, where the environment is not on the PATH.
    words = shlex.split(result.command)
    program, arguments = words[: words.index("measure")], words[words.index("measure") :]
    assert Path(program[0]).stem == "memorization" or program[1:] == ["-m", "memorization.cli"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--quiet"])
    assert not stopped.value.code
    again = Memorization.load(arguments[arguments.index("--output") + 1])
    np.testing.assert_array_equal(again.bits, result.members.bits)
    np.testing.assert_array_equal(again.signed_bits, result.members.signed_bits)
    assert again.control is not None
    np.testing.assert_array_equal(again.control.bits, result.heldout.bits)


def test_table_states_what_was_measured(quickstart_run: tuple[Quickstart, float]) -> None:
    result, _ = quickstart_run
    rows = {line[:33].strip(): line[33:].split() for line in result.table().splitlines()}
    assert rows["memU, mean bits a sample"] == [f"{side.bits.mean():.1f}" for side in (result.members, result.heldout)]
    assert rows["above every held-out sample"] == ["100%"]
    assert "reused" not in result.table()


def test_picture_shows_both_sides(quickstart_run: tuple[Quickstart, float], tmp_path: Path) -> None:
    from matplotlib.image import imread

    plot_quickstart(quickstart_run[0], tmp_path / "quickstart.png")
    pixels = np.round(imread(tmp_path / "quickstart.png")[..., :3] * 255).astype(int)
    assert 0.005 < np.mean(np.any(pixels < 200, axis=-1)) < 0.5
    for colour in (VERMILION, BLUE):
        assert np.sum(np.abs(pixels - colour).max(axis=-1) < 8) > 500


def test_a_second_run_reuses_both_models(quickstart_run: tuple[Quickstart, float]) -> None:
    first, _ = quickstart_run
    weights = first.oracle_dir / "model.safetensors"
    written = weights.stat().st_mtime_ns
    second = run_quickstart(first.target_dir.parent, progress=False)
    assert second.reused == ("target", "oracle")
    assert "oracle: trained in an earlier run" in second.table()
    assert weights.stat().st_mtime_ns == written
    np.testing.assert_array_equal(second.members.bits, first.members.bits)


# Resuming, with two steps of training. ------------------------------------------------------------------------------


@pytest.fixture
def two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TARGET", "ORACLE"):
        monkeypatch.setattr(quickstart, name, replace(getattr(quickstart, name), steps=2))


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")  # an oracle of two steps knows nothing
@pytest.mark.usefixtures("two_steps")
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(model: nn.Module, ids: Tensor, **settings: object) -> Tensor:
        if len(ids) > 96:  # the oracle's
            raise KeyboardInterrupt
        return train(model, ids, **settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(quickstart, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_quickstart(tmp_path, progress=False)
    assert (tmp_path / "target").is_dir()
    assert not (tmp_path / "oracle").exists()

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert run_quickstart(tmp_path, progress=False).reused == ("target",)
    assert torch.equal(torch.rand(1), expected), "the global RNG moved"
    assert run_quickstart(tmp_path, seed=1, progress=False).reused == ()
    assert not list(tmp_path.glob(".*")), "unfinished folders were left behind"


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")  # an oracle of two steps knows nothing
@pytest.mark.usefixtures("two_steps")
def test_the_oracle_sees_neither_members_nor_heldout_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = {}

    def recorded(model: nn.Module, ids: Tensor, **settings: object) -> Tensor:
        trained["target" if len(ids) == 96 else "oracle"] = {tuple(row) for row in ids.tolist()}
        return train(model, ids, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(quickstart, "train", recorded)
    result = run_quickstart(tmp_path, progress=True)
    bars = capsys.readouterr().err
    assert "target: 100%" in bars
    assert "oracle: 100%" in bars
    members, heldout = (
        {tuple(row) for row in lengths.token_ids.reshape(-1, 64).tolist()}
        for lengths in (result.members.oracle, result.heldout.oracle)
    )
    assert trained["target"] == members
    assert len(trained["oracle"]) > 4_000
    assert not trained["oracle"] & (members | heldout)


@pytest.mark.parametrize("name", ["target", "members.jsonl"])
def test_somebody_elses_files_are_refused_and_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"already holds {name}.*nothing was touched"):
        run_quickstart(tmp_path, progress=False)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


# The text. ----------------------------------------------------------------------------------------------------------


def test_text_is_the_source_byte_for_byte() -> None:
    book = addresses()
    # 41 files of the source, whose paragraphs are separated by empty lines: nothing was dropped.
    assert sum(len("\n\n".join(paragraphs).encode()) for paragraphs in book) == 890_121
    assert [len(book), sum(map(len, book))] == [41, 1_442]
    assert all(paragraph and paragraph == paragraph.strip() for paragraphs in book for paragraph in paragraphs)
    assert "North Carolina" in book[0][1]
    assert "Ôtil the 1st day of the year 1808" in " ".join(book[1806 - 1790 + 1])


# Training. ----------------------------------------------------------------------------------------------------------


class Bigram(nn.Module):
    """Logits of the next token by table; its minimum is the conditional entropy of the bigrams it was shown."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)
        self.frozen = nn.BatchNorm1d(1)
        nn.init.zeros_(self.table.weight)
        self.seen: list[Tensor] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.seen.append(ids)
        logits = self.table(ids)
        assert isinstance(logits, Tensor)
        return logits


def conditional_entropy_bits(rows: list[list[int]], context: int) -> float:
    """Bits per token of the best bigram code of the rows, each preceded by the context."""
    pairs = Counter(pair for row in rows for pair in zip([context, *row], row, strict=False))
    before = Counter[int]()
    for (previous, _), count in pairs.items():
        before[previous] += count
    total = sum(pairs.values())
    return sum(count * -math.log2(count / before[previous]) for (previous, _), count in pairs.items()) / total


def test_training_reaches_the_conditional_entropy() -> None:
    ids = torch.randint(5, (40, 7), generator=torch.Generator().manual_seed(3))
    ids[:, 0] %= 2
    bits = train(Bigram(6), ids, context=5, steps=600, batch_size=40, peak_lr=0.1, seed=0, progress=False)
    assert bits[0].item() == pytest.approx(math.log2(6), abs=1e-5)
    # Token 5 never comes, and a softmax needs for ever to say so: the entropy is approached from above.
    assert 0 < bits[-1].item() - conditional_entropy_bits(ids.tolist(), 5) < 2e-3


def test_training_leaves_states_gradients_and_the_global_rng_as_they_were() -> None:
    model = Bigram(4)
    model.eval()
    model.table.train()
    ids = torch.zeros(3, 2, dtype=torch.int64)
    before = torch.get_rng_state()
    train(model, ids, context=0, steps=3, batch_size=2, peak_lr=0.1, seed=0, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert (model.training, model.table.training, model.frozen.training) == (False, True, False)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_sample_is_seen_equally_often_and_the_order_depends_on_the_seed() -> None:
    # The second input is the sample's first token, here its name.
    ids = torch.arange(10)[:, None].expand(10, 2)
    orders = []
    for seed in (0, 0, 1):
        model = Bigram(10)
        train(model, ids, context=0, steps=5, batch_size=4, peak_lr=0.1, seed=seed, progress=False)
        orders.append(torch.cat(model.seen)[:, 1].tolist())
    assert Counter(orders[0]) == dict.fromkeys(range(10), 2)
    assert orders[0] == orders[1] != orders[2]


def test_learning_rate_rises_and_falls_in_straight_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    step = torch.optim.AdamW.step

    def recorded(self: torch.optim.AdamW, *arguments: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    ids = torch.zeros(1, 2, dtype=torch.int64)
    train(Bigram(4), ids, context=0, steps=7, batch_size=1, peak_lr=1.0, seed=0, warmup_steps=3, progress=False)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25])


def test_training_refuses_what_it_cannot_do() -> None:
    ids = torch.zeros(3, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"batch_size must lie in \[1, 3\], the number of samples; got 4"):
        train(Bigram(4), ids, context=0, steps=1, batch_size=4, peak_lr=0.1, seed=0, progress=False)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1; it is 0"):
        train(Bigram(4), ids, context=0, steps=0, batch_size=1, peak_lr=0.1, seed=0, progress=False)
    model = Bigram(4)
    nn.init.constant_(model.table.weight, math.nan)
    with pytest.raises(FloatingPointError, match="diverged at step 0 of 4: bits per token are nan"):
        train(model, ids, context=0, steps=4, batch_size=1, peak_lr=0.1, seed=0, progress=False)


# Pictures. ----------------------------------------------------------------------------------------------------------


def test_single_pictures_carry_units(quickstart_run: tuple[Quickstart, float]) -> None:
    members = quickstart_run[0].members
    without_control = replace(members, control=None)
    for axes in (
        plot_memorization(members),
        plot_memorization(without_control),
        plot_code_lengths(members.target),
        plot_token_bits(members.target, members.oracle, 0),
    ):
        axes.get_figure().draw_without_rendering()
        assert "bits" in axes.get_xlabel() + axes.get_ylabel()
        assert axes.get_legend() is not None


def test_token_picture_shows_each_token_and_refuses_mismatches(quickstart_run: tuple[Quickstart, float]) -> None:
    members = quickstart_run[0].members
    tokens = ["$a_b$", "\n", *quickstart_run[0].token_strings(0)[2:]]
    axes = plot_token_bits(members.target, members.oracle, 0, tokens)
    axes.get_figure().draw_without_rendering()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[:2] == ["$a_b$", "\\n"]
    assert labels[2:] == [token.replace(" ", "·") for token in tokens[2:]]
    with pytest.raises(ValueError, match="64 coded tokens; tokens holds 3"):
        plot_token_bits(members.target, members.oracle, 0, ["a", "b", "c"])
    shorter = _first_tokens(members.oracle, 5)
    with pytest.raises(ValueError, match="a part of sample 0 is not coded: a comparison needs all of both"):
        plot_token_bits(members.target, shorter, 0)


def _first_tokens(lengths: CodeLengths, count: int) -> CodeLengths:
    return replace(lengths, token_offsets=np.minimum(lengths.token_offsets, count))
