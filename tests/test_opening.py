"""A model opened: once, as it came afterwards, whatever surrounds or wraps it; and what it is known by."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memorization import UniformModel, compress_bits, unintended_memorization
from memorization.errors import ImpossibleTokenError, InputError, MeasurementWarning, ModelError, ResultError
from memorization.lab.architectures import count_params
from memorization.measure import OpenModel, open_model
from memorization.measure.fingerprint import same_model
from memorization.measure.parameters import n_non_embedding_params, n_params
from memorization.measure.tokenizers import load_tokenizer, tokenizer_record, vocabulary_size

SAMPLES = [[5, 7, 9, 11, 3, 2, 8], [1, 2, 3]]


def bits(model, samples=SAMPLES, **options) -> np.ndarray:
    return compress_bits(model, samples, first_token=0, progress=False, **options).ideal_bits


def record_of(model) -> dict:
    with open_model(model) as opened:
        return opened.record


def bigram(seed: int, vocab_size: int = 16):
    table = torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed)) * 3
    return lambda ids: table[ids]


class Counted(nn.Embedding):
    """Counts its calls and its moves."""

    def __init__(self):
        super().__init__(16, 16)
        self.calls, self.moves = 0, []

    def forward(self, ids: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(ids)

    def to(self, *args, **kwargs):
        self.moves.append(str(args[0]))
        return self  # it stays, so that no second device is needed


# --- opened once


def test_an_open_model_is_handed_on():
    model = Counted()
    with open_model(model) as opened:
        assert not model.training
        calls = model.calls
        with open_model(opened) as again:
            assert again is opened
        assert not model.training  # whoever opened it closes it
        assert model.calls == calls  # and it is not probed again
        first = compress_bits(opened, SAMPLES, progress=False)
        measuring = model.calls - calls
    assert model.training
    before = model.calls
    np.testing.assert_array_equal(first.ideal_bits, compress_bits(model, SAMPLES, progress=False).ideal_bits)
    assert model.calls - before == measuring + calls  # opening it anew costs the probe again


def test_an_open_model_is_no_model_after_its_block():
    model = nn.Sequential(nn.Embedding(16, 16), nn.Dropout(0.5)).train()
    with open_model(model) as opened:
        pass
    with pytest.raises(ModelError, match="was opened in a block that has ended"):
        compress_bits(opened, SAMPLES)


def test_an_open_model_is_what_it_is(tiny_gpt2, bpe_tokenizer, model_folder):
    with open_model(tiny_gpt2, tokenizer=bpe_tokenizer) as opened:
        with open_model(opened, device="cpu", dtype="float32", tokenizer=model_folder) as again:
            assert again is opened  # the same tokenizer, read from a folder
        for options, message in [
            ({"dtype": torch.bfloat16}, "is open in float32. Leave dtype out"),
            ({"device": "meta"}, "is open on cpu. Leave device out"),
            ({"revision": "v1"}, "is open at revision None"),
            ({"tokenizer": (lambda text: [1], lambda ids: "a")}, "is open with another one"),
        ]:
            with pytest.raises(InputError, match=message), open_model(opened, **options):
                pass


def test_an_open_model_without_a_tokenizer_takes_one(bpe_tokenizer):
    with open_model(UniformModel(300)) as opened:
        assert compress_bits(opened, ["The house met."], tokenizer=bpe_tokenizer, progress=False).n_tokens[0] > 0
        assert opened.tokenizer is None


def test_what_was_loaded_here_is_dropped_where_it_is(model_folder, monkeypatch):
    """The weights of a model that nobody else holds need not be carried back."""
    moves = []
    import memorization.measure.opening as opening

    loaded = Counted()
    monkeypatch.setattr(opening, "load_model", lambda *a, **k: (loaded, None, None))
    monkeypatch.setattr(opening, "where_it_lies", lambda model, name: (torch.device("meta"), True))
    with open_model(str(model_folder), device="cpu"):
        moves += loaded.moves
    assert moves == ["cpu"]
    assert loaded.moves == ["cpu"]
    with open_model(loaded, device="cpu"):
        pass
    assert loaded.moves == ["cpu", "cpu", "meta"]  # what the caller handed in goes back


# --- whatever surrounds it


@pytest.mark.parametrize(
    "surroundings",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.inference_mode,
        torch.no_grad,
        lambda: torch.device("meta"),
    ],
)
@pytest.mark.parametrize("first_token", [0, "uniform"])
def test_surroundings_change_no_bit(tiny_gpt2, surroundings, first_token):
    expected = compress_bits(tiny_gpt2, SAMPLES, first_token=first_token, progress=False)
    with surroundings():
        before = torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(), torch.empty(0).device
        found = compress_bits(tiny_gpt2, SAMPLES, first_token=first_token, progress=False)
        assert before == (torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(), torch.empty(0).device)
    np.testing.assert_array_equal(found.ideal_bits, expected.ideal_bits)
    np.testing.assert_array_equal(found.bits, expected.bits)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_no_bit(model_folder, tiny_gpt2, dtype):
    expected = [bits(model) for model in (tiny_gpt2, str(model_folder), UniformModel(300))]
    torch.set_default_dtype(dtype)
    try:
        found = [bits(model) for model in (tiny_gpt2, str(model_folder), UniformModel(300))]
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, expected)


def test_ids_of_padding_are_no_news(tiny_gpt2, caplog):
    """transformers recommends an attention mask where an id is the padding token; a causal model cannot see it."""
    import logging

    log = logging.getLogger("transformers.modeling_utils")
    before = list(log.filters)
    with open_model(tiny_gpt2):
        assert not log.filter(
            log.makeRecord("", 30, "", 0, "We strongly recommend passing in an `attention_mask`", (), None)
        )
        assert log.filter(log.makeRecord("", 30, "", 0, "something else", (), None))
    assert log.filters == before


# --- whatever wraps it


class Wrapped(nn.Module):
    def __init__(self, inner, wrap=lambda output: output):
        super().__init__()
        self.inner, self.wrap = inner, wrap

    def forward(self, ids: Tensor):
        return self.wrap(self.inner(ids))


WRAPPERS = {
    "inside a module": lambda model: Wrapped(model),
    "DataParallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "logits, loss": lambda model: Wrapped(model, lambda output: (output.logits, None)),
    "a list": lambda model: Wrapped(model, lambda output: [output.logits]),
    "a dictionary": lambda model: Wrapped(model, lambda output: {"loss": 0.0, "logits": output.logits}),
    "an object": lambda model: Wrapped(model, lambda output: SimpleNamespace(logits=output.logits)),
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_wrappers(tiny_gpt2, name):
    plain = compress_bits(tiny_gpt2, SAMPLES, first_token=0, progress=False)
    wrapped = compress_bits(WRAPPERS[name](tiny_gpt2), SAMPLES, first_token=0, progress=False)
    np.testing.assert_allclose(wrapped.ideal_bits, plain.ideal_bits, atol=1e-4)
    assert wrapped.settings["max_length"] == plain.settings["max_length"] == 64  # found through the wrapper
    if name in ("DataParallel", "compiled"):
        assert same_model(wrapped.settings["model"], plain.settings["model"])
        assert wrapped.settings["model"]["class"] == "GPT2LMHeadModel"


def test_position_limits_of_other_configurations():
    model = nn.Embedding(16, 16)
    model.config = SimpleNamespace(vocab_size=16, block_size=5)
    assert compress_bits(model, SAMPLES[1:], progress=False).settings["max_length"] == 5
    model.config = SimpleNamespace(vocab_size=np.int64(16), block_size=np.int32(5))
    assert compress_bits(model, SAMPLES[1:], progress=False).settings["max_length"] == 5
    model.config = {"vocab_size": 16, "max_position_embeddings": True}  # a dictionary, and no number
    assert compress_bits(model, SAMPLES[1:], progress=False).settings["max_length"] is None


class FewPositions(nn.Module):
    def __init__(self, n_positions: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(16, 16), nn.Embedding(n_positions, 16)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))


@pytest.mark.parametrize("n_positions", [1, 2, 3, 4, 7, 8])
def test_a_model_of_few_positions_is_probed_with_few(n_positions):
    ids = [list(range(1, n_positions + 1))]
    assert bits(FewPositions(n_positions), ids)[0] > 0
    with pytest.raises(ModelError, match="pass max_length"):
        bits(FewPositions(n_positions), [list(range(1, n_positions + 2))])


def test_all_nan_is_refused_though_no_token_needs_it():
    """One token, coded uniformly, needs no logit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (torch.nan, torch.inf, -torch.inf):
            with pytest.raises(ImpossibleTokenError, match="NaN or infinite at all of"):
                compress_bits(lambda ids, value=value: torch.full((*ids.shape, 10), value), [[3]], progress=False)


# --- random, not "not causal"


@pytest.mark.parametrize("max_length", [None, 1])
def test_dropout_is_named(max_length):
    random = nn.Sequential(nn.Embedding(16, 16), nn.Dropout(0.2)).train()
    with pytest.raises(ModelError, match=r"gives other logits to the same ids each time.*dropout") as caught:
        bits(lambda ids: random(ids), max_length=max_length)
    assert "causal" not in str(caught.value)
    assert bits(random).all()  # in eval mode it is not random
    assert random.training


def test_noise_within_rounding_is_not_random():
    table = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    assert bits(lambda ids: table[ids] + 1e-6 * torch.randn(16, generator=generator)).all()


# --- what a model is known by


def test_callables_are_told_apart():
    assert same_model(record_of(bigram(0)), record_of(bigram(0)))
    assert not same_model(record_of(bigram(0)), record_of(bigram(1)))
    assert not same_model(record_of(bigram(0)), record_of(bigram(0, vocab_size=17)))
    records = [record_of(bigram(seed)) for seed in range(50)]
    assert len({record["probe"]["sha256"] for record in records}) == 50
    uniform = UniformModel(16)
    samples, others = [[1, 2, 3, 4], [5, 6, 7, 8]], [[2, 4, 6, 8], [1, 3, 5, 7]]
    saved = [compress_bits(model, samples, progress=False) for model in (bigram(0), uniform)]
    for seed in (0, 99):
        control = tuple(compress_bits(model, others, progress=False) for model in (bigram(seed), uniform))
        if seed:
            with pytest.raises(ResultError, match="the control's target is another model"):
                unintended_memorization(*saved, samples, control=control, progress=False)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                unintended_memorization(*saved, samples, control=control, progress=False)


def test_modules_of_one_name_are_told_apart_by_weights_and_by_what_they_say():
    torch.manual_seed(0)
    one, other = nn.Embedding(16, 16), nn.Embedding(16, 16)
    assert not same_model(record_of(one), record_of(other))
    nearly = nn.Embedding(16, 16)
    nearly.load_state_dict(one.state_dict())
    assert same_model(record_of(one), record_of(nearly))
    with torch.no_grad():
        nearly.weight[15, 15] += 1.0  # seen by no probe: the weights tell
    assert not same_model(record_of(one), record_of(nearly))

    class Doubled(nn.Embedding):
        def forward(self, ids: Tensor) -> Tensor:
            return 2 * super().forward(ids)

    doubled = Doubled(16, 16)
    doubled.load_state_dict(one.state_dict())
    assert record_of(one)["fingerprint"] == record_of(doubled)["fingerprint"]  # of the weights alone
    assert not same_model(record_of(one), record_of(doubled))


def test_noise_of_kernels_makes_no_other_model():
    def noisy(seed: int, share: float, dtype=torch.float32):
        table = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * 3
        noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))
        return lambda ids: (table + share * noise)[ids].to(dtype)

    plain = record_of(noisy(1, 0.0))
    assert all(same_model(plain, record_of(noisy(seed, 1e-5))) for seed in range(20))
    assert not any(same_model(plain, record_of(noisy(seed, 0.1))) for seed in range(20))
    half = record_of(noisy(1, 0.0, torch.bfloat16))
    assert all(same_model(half, record_of(noisy(seed, 1e-2, torch.bfloat16))) for seed in range(20))
    same = sum(record_of(noisy(seed, 3e-6))["probe"]["sha256"] == plain["probe"]["sha256"] for seed in range(100))
    assert same >= 85  # the digest, which knows no tolerance


def test_short_probes_are_compared_where_both_looked():
    with open_model(bigram(0), max_length=3) as short:
        pass
    assert same_model(short.record, record_of(bigram(0)))
    assert not same_model(short.record, record_of(bigram(1)))


def test_records_of_the_last_version_are_compared_as_they_were():
    old = {"name": "a", "fingerprint": "1"}
    assert same_model(old, {"name": "b", "fingerprint": "1"})
    assert not same_model(old, {"name": "a", "fingerprint": "2"})
    assert same_model({"name": "a", "fingerprint": None}, {"name": "a", "fingerprint": None})
    assert not same_model({"name": "a", "fingerprint": None}, {"name": "b", "fingerprint": None})


def test_the_digest_is_the_same_in_another_process():
    code = (
        "import torch; from memorization.measure import open_model\n"
        "t = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)) * 3\n"
        "with open_model(lambda ids: t[ids]) as m: print(m.fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with open_model(bigram(0)) as opened:
        assert isinstance(opened, OpenModel)
        assert done.stdout.strip() == opened.fingerprint == opened.record["probe"]["sha256"]


# --- weights that cannot be read, or are packed


def llama():
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=1,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_packed_weights_are_counted_and_read():
    class Net(nn.Sequential):
        def forward(self, ids: Tensor) -> Tensor:
            return torch.cat(
                [super(Net, self).forward(row[:, None]) for row in ids.T], dim=1
            )  # causal: a token at a time

    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Net(nn.Embedding(16, 8), nn.Linear(8, 16))

    def quantized(seed: int) -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(build(seed), {nn.Linear}, dtype=torch.qint8)

    record = record_of(quantized(0))
    assert record["n_params"] == n_params(build(0)) == 16 * 8 + 8 * 16 + 16
    assert record["n_non_embedding_params"] == 8 * 16 + 16
    assert record["fingerprint"] == record_of(quantized(0))["fingerprint"]
    assert record["fingerprint"] != record_of(quantized(1))["fingerprint"]
    assert record["unread_weights"] is None


def test_what_cannot_be_read_or_counted_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(16, 16)
            self.register_buffer("qweight", torch.zeros(2, dtype=torch.int32))

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids)

        def get_extra_state(self):
            return object()

    record = record_of(Odd())
    assert record["unread_weights"] == {"n": 1, "first": "_extra_state"}
    assert record["n_params"] is None
    assert "Odd" in record["uncounted"]
    assert same_model(record, record)


def test_weights_that_hold_no_values():
    with pytest.raises(ModelError, match="weights on the meta device, which hold no values"):
        bits(nn.Embedding(16, 16, device="meta"))
    with pytest.raises(ModelError, match="returned logits on the meta device"):
        bits(lambda ids: torch.zeros(*ids.shape, 10, device="meta"))


def test_lazy_modules_are_counted_after_their_first_call():
    model = nn.Sequential(nn.Embedding(16, 8), nn.LazyLinear(16))
    assert record_of(model)["n_params"] == 16 * 8 + 8 * 16 + 16


def test_one_count_of_parameters(tiny_gpt2):
    for model in (tiny_gpt2, llama(), nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))):
        counts, record = count_params(model), record_of(model)
        assert counts.total == record["n_params"] == n_params(model)
        assert counts.non_embedding == record["n_non_embedding_params"] == n_non_embedding_params(model)


def test_two_weights_in_a_byte_are_two():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = bitsandbytes.nn.Linear4bit(64, 32, bias=True).to("cpu")
    assert n_params(layer) == 64 * 32 + 32


# --- tokenizers of other makes


def test_tokenizers_of_other_makes(bpe_tokenizer):
    texts = ["The house met again.", "How many bits?"]
    expected = compress_bits(UniformModel(300), texts, tokenizer=bpe_tokenizer, first_token="uniform", progress=False)
    inner = bpe_tokenizer.backend_tokenizer
    for tokenizer in (inner, (lambda text: inner.encode(text).ids, lambda ids: inner.decode(ids))):
        found = compress_bits(UniformModel(300), texts, tokenizer=tokenizer, progress=False)
        np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    assert tokenizer_record(load_tokenizer(inner))["vocab_sha256"] == tokenizer_record(bpe_tokenizer)["vocab_sha256"]


def test_tiktoken():
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([i]): i for i in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={"<|end|>": 300})
    lengths = compress_bits(UniformModel(301), ["héllo"], tokenizer=encoding, first_token="<|end|>", progress=False)
    assert lengths.token_ids.tolist() == list("héllo".encode())
    assert lengths.settings["first_token"]["id"] == 300
    assert vocabulary_size(load_tokenizer(encoding)) == 301  # with holes


def test_a_tokenizer_of_ones_own():
    class Characters:
        def __init__(self, shift: int = 0):
            self.shift = shift

        def encode(self, text):
            return torch.tensor([ord(character) - 97 + self.shift for character in text])

        def decode(self, ids):
            return "".join(chr(number + 97 - self.shift) for number in ids)

    lengths = compress_bits(UniformModel(32), ["abc"], tokenizer=Characters(), progress=False)
    assert lengths.token_ids.tolist() == [0, 1, 2]
    assert lengths.ideal_bits[0] == pytest.approx(15.0)  # it does not say how many it knows: the model does
    records = [tokenizer_record(load_tokenizer(Characters(shift))) for shift in (0, 0, 1)]
    assert records[0] == records[1]
    assert records[0]["vocab_sha256"] != records[2]["vocab_sha256"]


@pytest.mark.parametrize(
    ("tokenizer", "came"),
    [
        (lambda text: [1], "a function, which cannot decode"),
        (3, "a int"),
        ({"a": 1}, "a dict"),
        (nn.Embedding, "class"),
    ],
)
def test_what_is_no_tokenizer(tokenizer, came):
    with pytest.raises(InputError, match=f"a tokenizer must encode and decode: expected is .*{came}.* came"):
        compress_bits(UniformModel(10), ["a"], tokenizer=tokenizer)


def test_a_tokenizer_that_fails_is_named():
    def fails(text):
        raise KeyError("z")

    with pytest.raises(InputError, match=r"the tokenizer \(pair of functions\) cannot encode 'a'.*KeyError"):
        compress_bits(UniformModel(10), ["a"], tokenizer=(fails, lambda ids: "a"))


def test_vocabularies_with_holes():
    """Fewer tokens than the largest id says: a uniform code has to give each of them bits."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"a": 0, "b": 9, "[UNK]": 3}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    assert len(tokenizer) < 10
    lengths = compress_bits(UniformModel(16), ["b"], tokenizer=tokenizer, progress=False)
    assert lengths.ideal_bits[0] == pytest.approx(np.log2(10))


# --- one model in two roles


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_put_into_the_oracle_is_noticed():
    peft = pytest.importorskip("peft")
    oracle = llama()
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights=False)
    target = peft.get_peft_model(oracle, config)
    with pytest.warns(MeasurementWarning, match="they are one model"):
        unintended_memorization(target, oracle, SAMPLES, first_token=0, progress=False)
