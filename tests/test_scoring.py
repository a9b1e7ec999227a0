"""Windows, batches and memory: every token once, with the context that the rule promises; the model comes back as it came."""

import random
import re
import time

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memorization import UniformModel, compress_bits
from memorization.errors import ImpossibleTokenError, InputError, ModelError
from memorization.measure.opening import open_model
from memorization.measure.passes import windows

VOCAB = 11
TABLE = np.random.default_rng(5).normal(scale=3.0, size=(257, VOCAB))

OPENING, TRIAL = 3, 1  # forward passes: of the check at opening; of a window alone, to see whether company changes it


class History:
    """Logits that depend on every input of the window so far, its number and order included. Keeps the shapes that it was given."""

    def __init__(self):
        self.table = torch.from_numpy(TABLE).float()
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, ids: Tensor) -> Tensor:
        self.shapes.append((ids.shape[0], ids.shape[1]))
        state, states = torch.ones(len(ids), dtype=torch.int64), []
        for column in ids.T:
            state = (state * 31 + column + 7) % 8191
            states.append(state)
        return self.table[torch.stack(states, dim=1) % 257]


def bits_given(context, token: int) -> float:
    """-log2 p(token) under `History` after these inputs, in plain Python and float64."""
    state = 1
    for token_id in context:
        state = (state * 31 + int(token_id) + 7) % 8191
    row = TABLE[state % 257]
    return float((np.log(np.exp(row - row.max()).sum()) + row.max() - row[token]) / np.log(2))


def documented_bits(sample, first_token, max_length, stride) -> list[float]:
    """The documented rule, token by token.

    The first window codes the first max_length predictions; later ones come in blocks of `stride`, and a block reads
    the max_length tokens before its last one.
    """
    context = [first_token] if isinstance(first_token, int) else []
    text = [*context, *sample]
    last = len(text) - 1
    bits = []
    for p in range(1, len(text)):
        if max_length is None or p <= max_length:
            start = 0
        else:
            block = (p - max_length - 1) // stride
            start = min(max_length + (block + 1) * stride, last) - max_length
        bits.append(bits_given(text[start:p], text[p]))
    return [float(np.log2(VOCAB)), *bits] if first_token == "uniform" else bits


def rolling_bits(tokens, prefix, max_length) -> list[float]:
    """lm-eval's rolling windows, from their description: disjoint predictions, inputs as long as the window allows.

    The first window predicts tokens[:max_length] from [prefix, *tokens[:max_length - 1]]. Each later one predicts the
    next (at most max_length) tokens; its inputs are the max_length tokens that end one before its last prediction.
    """
    done, bits = 0, []
    while done < len(tokens):
        n = min(max_length, len(tokens) - done)
        end = done + n
        inputs = [prefix, *tokens[: n - 1]] if done == 0 else tokens[end - max_length - 1 : end - 1]
        assert len(inputs) <= max_length
        for j in range(done, end):
            bits.append(bits_given(inputs[: len(inputs) - (end - 1 - j)], tokens[j]))
        done = end
    return bits


def by_sample(lengths) -> list[np.ndarray]:
    return [lengths.token_bits[a:b] for a, b in zip(lengths.token_offsets[:-1], lengths.token_offsets[1:], strict=True)]


def rows_of(rng, *lengths: int, start: int = 0) -> list[list[int]]:
    return [rng.integers(start, VOCAB, n).tolist() for n in lengths]


# --- windows


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    max_length=st.integers(1, 12),
    stride_share=st.floats(0, 1),
    batch_size=st.one_of(st.just("auto"), st.integers(1, 9)),
    first_token=st.sampled_from(["uniform", "skip", 0, 4]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=120)
def test_every_token_is_coded_once_with_the_documented_context(
    lengths, max_length, stride_share, batch_size, first_token, seed
):
    samples = rows_of(np.random.default_rng(seed), *lengths)
    stride = 1 + int(stride_share * (max_length - 1))
    model = History()
    measured = compress_bits(
        model, samples, first_token=first_token, max_length=max_length, stride=stride, batch_size=batch_size
    )
    for sample, bits in zip(samples, by_sample(measured), strict=True):
        np.testing.assert_allclose(bits, documented_bits(sample, first_token, max_length, stride), atol=2e-5)
    assert measured.n_tokens.tolist() == [n - (first_token == "skip") for n in lengths]
    assert max(columns for _, columns in model.shapes) <= max(max_length, 1)
    if batch_size != "auto":
        assert max(rows for rows, _ in model.shapes) <= batch_size


@given(length=st.integers(2, 200), max_length=st.integers(1, 50), stride_share=st.floats(0, 1))
def test_windows_partition_the_predictions(length, max_length, stride_share):
    stride = 1 + int(stride_share * (max_length - 1))
    spans = windows(length, max_length, stride)
    predicted = [p for start, stop, n in spans for p in range(stop - n + 1, stop + 1)]
    assert predicted == list(range(1, length))
    assert all(0 <= start < stop and stop - start <= max_length and n <= stop - start for start, stop, n in spans)
    assert spans[0][0] == 0
    assert all(n == stride for _, _, n in spans[1:-1])
    assert all(stop - start == max_length for start, stop, _ in spans[1:])


def test_without_a_limit_there_is_one_window():
    model = History()
    (sample,) = rows_of(np.random.default_rng(0), 500)
    measured = compress_bits(model, [sample], first_token=0)
    assert max(columns for _, columns in model.shapes) == 500
    np.testing.assert_allclose(measured.token_bits, documented_bits(sample, 0, None, None), atol=2e-5)
    assert measured.settings["max_length"] is None
    assert measured.settings["stride"] is None


def test_default_stride_is_half_a_window():
    samples = rows_of(np.random.default_rng(1), 60)
    for max_length, stride in ((8, 4), (9, 4), (1, 1)):
        default = compress_bits(History(), samples, first_token=0, max_length=max_length)
        assert (default.settings["max_length"], default.settings["stride"]) == (max_length, stride)
        np.testing.assert_allclose(default.token_bits, documented_bits(samples[0], 0, max_length, stride), atol=2e-5)


@given(length=st.integers(1, 60), max_length=st.integers(1, 12), seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_stride_of_a_whole_window_is_the_rolling_window_of_lm_eval(length, max_length, seed):
    tokens = np.random.default_rng(seed).integers(0, VOCAB, length).tolist()
    measured = compress_bits(History(), [tokens], first_token=3, max_length=max_length, stride=max_length)
    np.testing.assert_allclose(measured.token_bits, rolling_bits(tokens, 3, max_length), atol=2e-5)


def own_bits(model, inputs, targets) -> np.ndarray:
    """-log2 p of the last len(targets) predictions of one unpadded window, by a float64 log-softmax."""
    with torch.no_grad():
        logits = model(torch.tensor([inputs])).logits[0].double()
    return -(
        logits.log_softmax(-1)[-len(targets) :].gather(1, torch.tensor(targets)[:, None])[:, 0] / np.log(2)
    ).numpy()


@pytest.mark.parametrize(("asked", "stride"), [(None, 32), (64, 64), (10, 10), (1, 1)])
def test_a_text_longer_than_the_positions_of_the_model(tiny_gpt2, asked, stride):
    """GPT-2 of 64 positions fails on a 65th input. 129 to 200 tokens take two to some hundred windows."""
    rng = np.random.default_rng(2)
    for n in (63, 64, 65, 129, 200) if stride > 1 else (80,):
        ids = rng.integers(0, 300, n).tolist()
        measured = compress_bits(tiny_gpt2, [ids], first_token=7, stride=asked, batch_size=3)
        assert (measured.settings["max_length"], measured.settings["stride"]) == (64, stride)
        text = [7, *ids]
        done = min(64, n)
        expected = [own_bits(tiny_gpt2, text[:done], text[1 : done + 1])]
        while done < n:
            end = min(done + stride, n)
            expected.append(own_bits(tiny_gpt2, text[end - 64 : end], text[done + 1 : end + 1]))
            done = end
        np.testing.assert_allclose(measured.token_bits, np.concatenate(expected), atol=1e-4)


def test_the_context_token_occupies_one_input():
    (ids,) = rows_of(np.random.default_rng(3), 9)
    for first_token, n_windows in ((0, 2), ("uniform", 1), ("skip", 1)):
        model = History()
        compress_bits(model, [ids], first_token=first_token, max_length=8, stride=8, batch_size=1)
        n_asked_again = n_windows - 1  # of later windows, with the context token before them
        assert len(model.shapes) - OPENING == n_windows + n_asked_again, first_token


# --- batches and memory


def test_auto_batches_are_bounded_by_logits_and_by_tokens():
    shapes = []

    def record(ids: Tensor) -> Tensor:
        shapes.append(tuple(ids.shape))
        return torch.zeros(1).expand(*ids.shape, 50_257)

    compress_bits(record, np.zeros((60, 40), dtype=np.int64), first_token=0)
    del shapes[:OPENING]
    assert max(rows * columns * 50_257 * 4 for rows, columns in shapes) <= 2**28
    assert shapes[0][0] > 1
    history = History()
    compress_bits(history, np.zeros((900, 40), dtype=np.int64), first_token=0)
    assert max(rows * columns for rows, columns in history.shapes) <= 2**14
    assert len(history.shapes) == OPENING + TRIAL + 3


def test_long_samples_come_first_and_batches_hold_similar_lengths():
    model = History()
    samples = rows_of(np.random.default_rng(4), 3, 30, 4, 29, 5, 28)
    measured = compress_bits(model, samples, first_token=0, batch_size=3)
    assert model.shapes[OPENING:] == [(3, 30), (1, 3), (3, 28)]  # the shortest beside the longest, and alone
    assert measured.settings["largest_batch"] == 3
    for sample, bits in zip(samples, by_sample(measured), strict=True):
        np.testing.assert_allclose(bits, documented_bits(sample, 0, None, None), atol=2e-5)


class Hungry(History):
    """Fails where a batch has more token positions than `most`."""

    def __init__(self, most: int, error: Exception):
        super().__init__()
        self.most, self.error, self.failures = most, error, 0

    def __call__(self, ids: Tensor) -> Tensor:
        if ids.numel() > self.most:
            self.failures += 1
            raise self.error
        return super().__call__(ids)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried to allocate"
    ),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "linux", "windows", "python"])
def test_out_of_memory_halves_the_batch_and_changes_nothing(error):
    samples = rows_of(np.random.default_rng(6), *range(2, 22), 20, 20)
    model = Hungry(70, error)
    measured = compress_bits(model, samples, first_token=0)
    assert model.failures > 1  # 22 rows, 11, 5: more than 70 positions each
    assert measured.settings["largest_batch"] > 1
    assert max(rows * columns for rows, columns in model.shapes) <= 70
    for sample, bits in zip(samples, by_sample(measured), strict=True):
        np.testing.assert_allclose(bits, documented_bits(sample, 0, None, None), atol=2e-5)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "linux", "windows", "python"])
def test_out_of_memory_with_a_single_window(error):
    samples = rows_of(np.random.default_rng(7), 9, 40)
    with pytest.raises(ModelError, match=r"out of memory with 1 x 40 tokens .* Pass a smaller max_length") as caught:
        compress_bits(Hungry(39, error), samples, first_token=0)
    assert caught.value.__cause__ is error


def test_out_of_memory_with_a_batch_size_that_was_asked_for():
    model = Hungry(30, OUT_OF_MEMORY[0])
    with pytest.raises(
        ModelError, match=r'out of memory with 4 x 10 tokens .* Pass batch_size="auto" or a smaller one'
    ):
        compress_bits(model, rows_of(np.random.default_rng(8), *[10] * 8), first_token=0, batch_size=4)
    assert model.failures == 1


def test_another_error_of_the_model_is_told_and_not_taken_for_memory():
    model = Hungry(30, RuntimeError("index out of range in self"))
    with pytest.raises(
        ModelError, match=r"Hungry failed on a batch of 8 x 10 token ids: index out of range in self\. .*max_length"
    ):
        compress_bits(model, rows_of(np.random.default_rng(8), *[10] * 8), first_token=0)
    assert model.failures == 1


# --- errors name the token


class Broken(History):
    """The row that follows an input of 10 is spoilt."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def __call__(self, ids: Tensor) -> Tensor:
        logits = super().__call__(ids)
        spoilt = ids == 10
        if self.how == "nan":
            logits[spoilt, 3] = torch.nan
        elif self.how == "+inf":
            logits[spoilt, 3] = torch.inf
        elif self.how == "all -inf":
            logits[spoilt] = -torch.inf
        else:
            logits[spoilt, 5] = -torch.inf
        return logits


@pytest.mark.parametrize(("max_length", "stride"), [(None, None), (4, 1), (4, 2), (4, 4), (1, 1)])
@pytest.mark.parametrize(("first_token", "shift"), [("uniform", 0), (2, 0), ("skip", -1)])
def test_an_impossible_token_is_named_by_sample_and_position(max_length, stride, first_token, shift):
    rng = np.random.default_rng(9)
    for place, how in ((1, "nan"), (2, "coded -inf"), (4, "+inf"), (5, "all -inf"), (6, "nan"), (11, "coded -inf")):
        samples = [[token % 10 for token in row] for row in rows_of(rng, 5, 14, 12, 12)]
        samples[2][place - 1 : place + 1] = [10, 5]
        with pytest.raises(ImpossibleTokenError) as caught:
            compress_bits(Broken(how), samples, first_token=first_token, max_length=max_length, stride=stride)
        assert f"position {place + shift} of sample 2 (coded tokens counted from 0)" in str(caught.value)
        expected = "gives probability 0 to" if how == "coded -inf" else "are NaN, +inf, or all -inf"
        assert expected in str(caught.value)


def test_position_of_an_impossible_first_token():
    """Given its context token, the first token of a sample is position 0."""
    with pytest.raises(ImpossibleTokenError, match="position 0 of sample 1 "):
        compress_bits(Broken("coded -inf"), [[1, 2], [5, 1]], first_token=10)


@pytest.mark.parametrize(("sample", "position"), [([3, 10, 5], 2), ([0, 3, 10, 5], 2), ([0, 10, 5], 1), ([10, 5], 1)])
def test_position_of_an_impossible_token_after_a_bos(sample, position):
    """Ids that begin with the BOS bring it as context: the positions are those of the coded tokens."""

    class Tokenizer:
        bos_token_id = 0

        def __call__(self, texts, **_):
            return {"input_ids": [self.encode(text) for text in texts]}

        def encode(self, text):
            return [int(word) for word in text.split()]

        def decode(self, ids, **_):
            return " ".join(map(str, ids))

        def __len__(self):
            return VOCAB

        def get_vocab(self):
            return {str(i): i for i in range(VOCAB)}

        def convert_ids_to_tokens(self, token_id):
            return str(token_id)

    for max_length, stride in ((None, None), (2, 1), (1, 1)):
        with pytest.raises(ImpossibleTokenError, match=f"position {position} of sample 1 "):
            compress_bits(Broken("nan"), [[1, 2], sample], tokenizer=Tokenizer(), max_length=max_length, stride=stride)


def test_the_named_sample_is_that_of_the_input(tmp_path):
    path = tmp_path / "ids.jsonl"
    path.write_text('{"text": [1]}\n\n{"text": [1, 2, 3]}\n{"text": [1, 10, 5]}\n', encoding="utf-8")
    with pytest.raises(ImpossibleTokenError, match="position 2 of sample 3 "):
        compress_bits(Broken("nan"), path)


def test_minus_infinity_elsewhere_is_legal():
    samples = [[token if token != 5 else 6 for token in row] for row in rows_of(np.random.default_rng(10), 30, 20)]
    measured = compress_bits(Broken("coded -inf"), samples, first_token=0)
    for sample, bits in zip(samples, by_sample(measured), strict=True):
        for p, (previous, token) in enumerate(zip([0, *sample], sample, strict=False)):
            expected = bits_given([0, *sample[:p]], token)
            if previous == 10:
                expected += np.log2(1 - 2 ** -bits_given([0, *sample[:p]], 5))  # 5 is left out of the sum
            assert bits[p] == pytest.approx(expected, abs=2e-5)
    assert any(10 in sample[:-1] for sample in samples)


def test_a_spoilt_row_that_predicts_nothing_is_legal():
    """The last input of a window predicts padding, and padding predicts nothing at all."""

    def nan_after_the_end(ids: Tensor) -> Tensor:
        logits = History()(ids)
        logits[ids == 0] = torch.nan  # padding, as it happens
        return logits

    samples = [[3, 4, 5, 6, 7], [8, 9, 10], [1, 2]]
    measured = compress_bits(nan_after_the_end, samples, batch_size=3)
    for sample, bits in zip(samples, by_sample(measured), strict=True):
        np.testing.assert_allclose(bits, documented_bits(sample, "uniform", None, None), atol=2e-5)


# --- the model comes back as it came


class Moody(nn.Module):
    """Dropout and batch statistics: whatever is left in training mode shows in the logits, and in the buffers."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding = nn.Embedding(VOCAB, 8)
            self.norm = nn.BatchNorm1d(8)
            self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Tanh())
            self.head = nn.Linear(8, VOCAB)
        self.seen: dict[str, list] = {"training": [], "grad": [], "device": []}
        self.fail = False

    def forward(self, ids: Tensor) -> Tensor:
        self.seen["training"].append([m.training for m in self.modules()])
        self.seen["grad"].append(torch.is_grad_enabled())
        self.seen["device"].append(ids.device)
        if self.fail and ids.shape[1] != 8:
            raise RuntimeError("no")
        hidden = self.norm(self.embedding(ids).transpose(1, 2)).transpose(1, 2)
        return self.head(self.body(hidden))


def state_of(model: nn.Module) -> dict:
    return {
        "training": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "where": [(t.device, t.dtype, t.data_ptr()) for t in model.state_dict().values()],
        "values": [t.clone().tolist() for t in model.state_dict().values()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    }


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
@pytest.mark.parametrize("fail", [False, True])
def test_modes_gradients_and_buffers_come_back(mode, fail):
    model = Moody().train(mode != "eval")
    if mode == "mixed":
        model.norm.eval()
        model.body[1].eval()
        model.training = False  # itself in eval mode, some of its children not
    model.head.weight.requires_grad_(False)
    before = state_of(model)
    model.fail = fail
    samples = rows_of(np.random.default_rng(11), 6, 10)
    if fail:
        with pytest.raises(ModelError, match="no"):
            compress_bits(model, samples)
    else:
        compress_bits(model, samples)
    assert state_of(model) == before
    assert not any(any(modes) for modes in model.seen["training"])
    assert not any(model.seen["grad"])


def test_dropout_is_off():
    model = Moody().train()
    (sample,) = rows_of(np.random.default_rng(12), 20)
    first, second = (compress_bits(model, [sample]).token_bits for _ in range(2))
    assert first.tolist() == second.tolist()
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([sample])).double()[0, :-1].log_softmax(-1)
    expected = -logits.gather(1, torch.tensor(sample)[1:, None])[:, 0].numpy() / np.log(2)
    np.testing.assert_allclose(first[1:], expected, atol=1e-5)


def test_global_state_is_left_alone(tiny_gpt2, bpe_tokenizer, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # beartype draws from `random` to check lists

    def global_state():
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global generator is what is watched
            random.getstate(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            np.geterr(),
        )

    before = global_state()
    compress_bits(tiny_gpt2, ["some text", "and more"], tokenizer=bpe_tokenizer)
    assert global_state() == before
    with pytest.raises(InputError):
        compress_bits(tiny_gpt2, [[300]])
    assert global_state() == before
    with torch.no_grad():
        compress_bits(tiny_gpt2, [[1, 2]])
        assert not torch.is_grad_enabled()


def test_device_moves_the_model_and_moves_it_back():
    class Movable(Moody):
        def to(self, device):
            moves.append(str(device))
            return super().to(device)

    moves: list[str] = []
    model = Movable()
    measured = compress_bits(model, [[1, 2, 3]], device="cpu:0")
    assert moves == ["cpu:0", "cpu"]
    assert measured.settings["model"]["device"] == "cpu:0"
    model.fail = True
    with pytest.raises(ModelError):
        compress_bits(model, [[1, 2, 3]], device=torch.device("cpu:0"))
    assert moves == ["cpu:0", "cpu"] * 2
    del moves[:]
    assert compress_bits(Movable(), [[1, 2, 3]], device="cpu").settings["model"]["device"] == "cpu"
    assert moves == []


def test_ids_are_given_on_the_device_of_the_model():
    meta = torch.device("meta")
    given = []

    def record(ids: Tensor) -> Tensor:
        given.append(ids.device)
        return torch.zeros(*ids.shape, 5)

    with open_model(record, device=meta) as opened:
        assert opened.device == meta
    assert given
    assert all(device == meta for device in given)


# --- loaded from a folder


def test_a_folder_is_loaded_with_its_tokenizer(model_folder, tiny_gpt2, bpe_tokenizer):
    texts = ["The house met again.", "How many bits?"]
    in_memory = compress_bits(tiny_gpt2, texts, tokenizer=bpe_tokenizer)
    for folder in (model_folder, str(model_folder)):
        loaded = compress_bits(folder, texts)
        np.testing.assert_allclose(loaded.ideal_bits, in_memory.ideal_bits, atol=1e-4)
        assert loaded.settings["first_token"]["rule"] == "bos"
        assert loaded.settings["max_length"] == 64
        assert loaded.settings["model"]["name"] == str(model_folder)
        assert loaded.settings["model"]["class"] == "GPT2LMHeadModel"
        assert loaded.settings["model"]["dtype"] == "float32"
        assert loaded.settings["model"]["fingerprint"] == in_memory.settings["model"]["fingerprint"]
        assert loaded.settings["tokenizer"]["vocab_sha256"] == in_memory.settings["tokenizer"]["vocab_sha256"]


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_dtype_of_a_loaded_model(model_folder, tiny_gpt2, dtype):
    ids = np.random.default_rng(13).integers(0, 300, 60).tolist()
    measured = compress_bits(model_folder, [ids], dtype=dtype, first_token=0)
    assert measured.settings["model"]["dtype"] == "bfloat16"
    exact = compress_bits(model_folder, [ids], dtype="float32", first_token=0)
    assert exact.settings["model"]["dtype"] == "float32"
    difference = abs(measured.ideal_bits[0] - exact.ideal_bits[0])
    assert 1e-3 < difference < 0.02 * exact.ideal_bits[0]
    # The logits are bfloat16, their softmax is not: the same bits by float64 from the same logits.
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).eval()
    np.testing.assert_allclose(measured.token_bits, own_bits(model, [0, *ids[:-1]], ids), atol=1e-4)


def test_checkpoint_dtype_is_the_default(tiny_gpt2, tmp_path):
    import copy

    copy.deepcopy(tiny_gpt2).to(torch.bfloat16).save_pretrained(tmp_path)
    assert compress_bits(tmp_path, [[1, 2, 3]]).settings["model"]["dtype"] == "bfloat16"


def test_settings_tell_models_apart(tiny_gpt2):
    import copy

    other = copy.deepcopy(tiny_gpt2)
    records = [compress_bits(model, [[1, 2]]).settings["model"] for model in (tiny_gpt2, other)]
    assert records[0] == records[1]
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight[0, 0] += 1.0
    assert compress_bits(other, [[1, 2]]).settings["model"]["fingerprint"] != records[0]["fingerprint"]


def test_parameters_are_counted_once(tiny_gpt2):
    """GPT-2, tied: V d + P d + layers (12 d^2 + 13 d) + 2 d; the first two terms are embeddings."""
    d, layers, vocab_size, positions = 32, 2, 300, 64
    body = layers * (12 * d * d + 13 * d) + 2 * d
    record = compress_bits(tiny_gpt2, [[1, 2]]).settings["model"]
    assert record["n_params"] == vocab_size * d + positions * d + body
    assert record["n_non_embedding_params"] == body


# --- the progress bar


def slow(ids: Tensor) -> Tensor:
    time.sleep(0.25)
    return torch.zeros(*ids.shape, 5)


def test_progress_goes_to_stderr(capsys):
    compress_bits(slow, [[1, 2, 3]] * 5, batch_size=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"\b15(\.0)?/15|10(\.0)?/10", err)
    assert "tok" in err


def test_no_progress_where_none_was_asked_for(capsys):
    compress_bits(slow, [[1, 2, 3]] * 5, batch_size=1, progress=False)
    assert capsys.readouterr() == ("", "")


def test_no_progress_for_what_is_quick(capsys):
    compress_bits(UniformModel(5), [[1, 2, 3]] * 5)
    assert capsys.readouterr() == ("", "")
