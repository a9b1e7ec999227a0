"""Models that are spread over devices, offloaded or quantized: the bits, the fingerprint and the counts they had."""

import contextlib
import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memorization import UniformModel, compress_bits, unintended_memorization
from memorization.cli import main
from memorization.errors import InputError, ModelError, NotCausalError
from memorization.measure import fingerprint, open_model
from memorization.measure.fingerprint import same_model
from memorization.measure.parameters import n_non_embedding_params, n_params, uncounted
from memorization.measure.wrappers import where_it_lies

SAMPLES = [[5, 7, 9, 11, 3, 2, 8], [1, 2, 3]]
CONTROL = [[4, 4, 8, 1], [9, 2, 6]]
WEIGHTS_BYTES = 4 * 64 * 128  # of an embedding of the models below, in float32


def llama(seed: int = 0, scale: float = 1.0) -> Any:
    """Embeddings that are not tied, of sizes that 4-bit blocks of 64 divide."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=128,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(scale)
    return model


def gpt2() -> Any:
    """A head that is tied to the embedding."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=128,
        n_embd=64,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config).eval()


MODELS = {"llama": llama, "gpt2": gpt2}


@contextlib.contextmanager
def measured(model: Any, **options: Any) -> Iterator[tuple[np.ndarray, dict[str, Any], nn.Module]]:
    """Bits of each token, the record, and the module, while it is open."""
    with open_model(model, progress=False, **options) as opened:
        lengths = compress_bits(opened, SAMPLES, first_token=0, progress=False)
        yield lengths.token_bits, opened.record, opened.logits.model


def told(model: Any, **options: Any) -> tuple[list[float], dict[str, Any]]:
    with measured(model, **options) as (bits, record, _):
        return bits.tolist(), {key: record[key] for key in record if key != "name"}


# --- spread by accelerate


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """As if main memory held so many bytes."""
    pytest.importorskip("accelerate")
    placing = pytest.importorskip("transformers.integrations.accelerate")

    def limit(n_bytes: int) -> None:
        monkeypatch.setattr(placing, "accelerate_max_memory", lambda max_memory=None: {"cpu": n_bytes})

    return limit


@pytest.mark.parametrize("name", MODELS)
def test_what_does_not_fit_lies_on_disk_and_is_the_same_model(
    name: str, tmp_path: Path, short_of_memory: Callable[[int], None]
) -> None:
    MODELS[name]().save_pretrained(tmp_path, max_shard_size="100KB")
    whole = told(tmp_path)
    short_of_memory(5 * WEIGHTS_BYTES)
    with measured(tmp_path, device="auto") as (bits, record, model):
        assert "disk" in model.hf_device_map.values()
        assert any(parameter.is_meta for parameter in model.parameters())
        assert bits.tolist() == whole[0]
        assert {key: record[key] for key in record if key != "name"} == whole[1]
        assert record["n_params"] == n_params(MODELS[name]())


def test_where_all_of_it_fits_nothing_is_offloaded(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    llama().save_pretrained(tmp_path)
    assert told(tmp_path, device="auto") == told(tmp_path)


def test_an_adapter_goes_where_its_base_is_whole(tmp_path: Path, short_of_memory: Callable[[int], None]) -> None:
    peft = pytest.importorskip("peft")
    llama().save_pretrained(tmp_path / "base")
    import transformers

    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "down_proj"])
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    whole = told(tmp_path / "adapter")
    short_of_memory(100 * WEIGHTS_BYTES)
    assert told(tmp_path / "adapter", device="auto") == whole
    short_of_memory(5 * WEIGHTS_BYTES)
    with pytest.raises(ModelError, match=r"a part of it is offloaded: .* \(merge_and_unload\(\)\)"):
        told(tmp_path / "adapter", device="auto")


def test_models_in_memory_stay_where_they_are() -> None:
    model = llama()
    assert told(model, device="auto") == told(model)
    assert told(UniformModel(16), device="auto") == told(UniformModel(16))
    with open_model(model) as opened, open_model(opened, device="auto") as again:
        assert again is opened


def test_without_accelerate_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama().save_pretrained(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "accelerate" else find(name))
    with pytest.raises(ModelError, match=r'device="auto" places .* with accelerate, .*: pip install accelerate\.'):
        told(tmp_path, device="auto")
    told(tmp_path, device="cpu")


def test_the_command_takes_auto(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("accelerate")
    llama().save_pretrained(tmp_path / "model")
    (tmp_path / "ids.jsonl").write_text('{"ids": [5, 7, 9]}\n')
    asked = ["bits", "--target", str(tmp_path / "model"), "--data", str(tmp_path / "ids.jsonl"), "--text-column", "ids"]
    said = []
    for k, device in enumerate(["cpu", "auto"]):
        with pytest.raises(SystemExit) as ended:
            main([*asked, "--output", str(tmp_path / str(k)), "--device", device, "--quiet", "--first-token", "0"])
        said.append((ended.value.code, capsys.readouterr().out.replace(str(tmp_path / str(k)), "")))
    assert said[0] == said[1]
    assert said[0][0] == 0
    assert "bits" in said[0][1]


# --- offloaded in memory


@pytest.mark.parametrize("kind", ["cpu_offload", "disk_offload"])
@pytest.mark.parametrize("name", MODELS)
def test_offloaded_models_are_the_same_model(name: str, kind: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    whole, model = told(MODELS[name]()), MODELS[name]()
    place = [str(tmp_path)] if kind == "disk_offload" else []
    getattr(accelerate, kind)(model, *place, execution_device="cpu")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert told(model) == whole
    with pytest.raises(InputError, match="is offloaded, so it cannot be moved"):
        told(model, device="meta")


def test_an_offloaded_value_moves_the_fingerprint(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    digests = []
    for scale in (1.0, 1.0 + 1e-6):
        model = llama(scale=scale)
        accelerate.cpu_offload(model, execution_device="cpu")
        digests.append(told(model)[1])
    assert digests[0]["probe"]["sha256"] == digests[1]["probe"]["sha256"]
    assert digests[0]["fingerprint"] != digests[1]["fingerprint"]
    assert not same_model(digests[0] | {"name": "a"}, digests[1] | {"name": "a"})


def test_ids_go_to_the_input_embedding() -> None:
    """The first weight may be that of another module, on another device."""

    class Spread(nn.Module):
        def __init__(self, device: str):
            super().__init__()
            self.head = nn.Linear(4, 8)
            self.table = nn.Embedding(8, 4, device=device)

        def get_input_embeddings(self) -> nn.Module:
            return self.table

    assert where_it_lies(Spread("cpu"), "it") == (torch.device("cpu"), True)
    model = Spread("meta")
    hook = SimpleNamespace(execution_device="cuda:1", offload=True)
    model.table._hf_hook = SimpleNamespace(hooks=[SimpleNamespace(execution_device=None), hook])
    place, movable = where_it_lies(model, "it")
    assert (str(place), movable) == ("cuda:1", False)


# --- what cannot be read


def test_files_stand_for_values_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that say the same of the probe are told apart by their files."""
    for name, scale in (("one", 1.0), ("other", 1.0 + 1e-6)):
        llama(scale=scale).save_pretrained(tmp_path / name)
    assert told(tmp_path / "one")[1]["weight_files"] is None
    monkeypatch.setattr(fingerprint, "some_values", lambda *_: None)
    one, again, other = (told(tmp_path / name)[1] for name in ("one", "one", "other"))
    content = (tmp_path / "one" / "model.safetensors").read_bytes()
    assert one["weight_files"] == {"model.safetensors": hashlib.sha256(content).hexdigest()}
    assert one["unread_weights"]["n"] > 0
    assert same_model(one, again)
    assert not same_model(one, other)
    in_memory = told(llama())[1]
    assert in_memory["weight_files"] is None
    assert same_model(one, in_memory)  # by what they say


def test_files_of_an_adapter_are_those_of_its_base_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peft = pytest.importorskip("peft")
    llama().save_pretrained(tmp_path / "base")
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr(fingerprint, "some_values", lambda *_: None)
    assert set(told(tmp_path / "adapter")[1]["weight_files"]) == {"model.safetensors", "adapter_model.safetensors"}


class Packed(nn.Module):
    """A layer as those of GPTQ and AWQ: eight weights of 4 bits in an integer, none of them a parameter."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.in_features, self.out_features = n_in, n_out
        self.register_buffer("qweight", torch.zeros(n_in // 8, n_out, dtype=torch.int32))
        self.register_buffer("scales", torch.ones(1, n_out))
        self.register_buffer("bias", torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True).expand(*x.shape[:-1], self.out_features)


def test_layers_in_packed_buffers_count_as_what_they_stand_for() -> None:
    model = nn.Sequential(nn.Embedding(16, 8), Packed(8, 16))
    assert uncounted(model) is None
    assert n_params(model) == 16 * 8 + (8 * 16 + 16)
    assert n_non_embedding_params(model) == 8 * 16 + 16
    del model[1].in_features
    assert uncounted(model) == "1 (Packed)"


# --- quantized


def bitsandbytes(**options: Any) -> Callable[[], Any]:
    def config() -> Any:
        pytest.importorskip("bitsandbytes")
        pytest.importorskip("accelerate")
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(**options)

    return config


def torchao(name: str, **options: Any) -> Callable[[], Any]:
    def config() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantization = pytest.importorskip("torchao.quantization", exc_type=ImportError)
        pytest.importorskip("accelerate")
        from transformers import TorchAoConfig

        return TorchAoConfig(getattr(quantization, name)(**options))

    return config


QUANTIZED = {
    "8 bits": bitsandbytes(load_in_8bit=True, llm_int8_threshold=0.0),
    "4 bits": bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "4 bits, scales in 8": bitsandbytes(load_in_4bit=True, bnb_4bit_use_double_quant=True),
    "torchao 8 bits": torchao("Int8WeightOnlyConfig"),
    "torchao 4 bits": torchao("IntxWeightOnlyConfig", weight_dtype=torch.int4),
}


def quantized(folder: Path, config: Any) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.bfloat16)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_models_are_counted_read_and_told_apart(kind: str, tmp_path: Path) -> None:
    config = QUANTIZED[kind]()
    records = []
    for name, scale in (("one", 1.0), ("other", 2.0)):  # twice the weights are the same integers, with other scales
        llama(scale=scale).save_pretrained(tmp_path / name)
        model = quantized(tmp_path / name, config)
        records.append(told(model)[1])
        model.save_pretrained(tmp_path / f"quantized {name}")
    whole = llama()
    one, other = records
    assert one["n_params"] == n_params(whole) == model.num_parameters()
    assert one["n_non_embedding_params"] == n_non_embedding_params(whole)
    assert one["unread_weights"] is one["uncounted"] is None
    assert one["fingerprint"] != other["fingerprint"]
    assert one["fingerprint"] != told(tmp_path / "one")[1]["fingerprint"]
    saved = told(tmp_path / "quantized one")
    assert saved[1]["fingerprint"] == one["fingerprint"]
    assert saved[0] == told(quantized(tmp_path / "one", config))[0]
    assert told(tmp_path / "quantized one", device="cpu") == saved == told(tmp_path / "quantized one", device="auto")


@pytest.mark.filterwarnings("ignore")
def test_outliers_of_all_tokens_are_not_causal(tmp_path: Path) -> None:
    """LLM.int8() reads a column in 16 bits for all tokens where one of them, perhaps a later one, is large in it."""
    config = bitsandbytes(load_in_8bit=True)()
    llama().save_pretrained(tmp_path)
    with pytest.raises(NotCausalError, match=r"llm_int8_threshold=0\.0 turns that off"):
        told(quantized(tmp_path, config))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["8 bits", "4 bits"])
def test_an_adapter_on_a_quantized_base(kind: str, tmp_path: Path) -> None:
    config = QUANTIZED[kind]()
    peft = pytest.importorskip("peft")
    llama().save_pretrained(tmp_path / "whole")
    quantized(tmp_path / "whole", config).save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj"])
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    peft.get_peft_model(base, lora).save_pretrained(tmp_path / "adapter")
    alone, record = told(tmp_path / "base"), told(tmp_path / "adapter")[1]
    assert record["n_trained_params"] == 2 * 2 * (64 + 64)
    assert record["n_params"] == alone[1]["n_params"] + record["n_trained_params"]
    options: dict[str, Any] = {"first_token": 0, "progress": False}
    found = unintended_memorization(tmp_path / "adapter", "base-of-target", SAMPLES, **options)
    assert found.oracle.token_bits.tolist() == alone[0]
    assert found.oracle.settings["model"]["fingerprint"] == alone[1]["fingerprint"]
    assert np.abs(found.ideal_signed_bits).max() > 0.01


# --- two models on two devices


def test_open_models_are_each_asked_where_they_lie() -> None:
    options: dict[str, Any] = {"control": CONTROL, "first_token": 0, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one_by_one = unintended_memorization(llama(), llama(1), SAMPLES, **options)
        with open_model(llama(), device="cpu") as target, open_model(llama(1), device="cpu") as oracle:
            together = unintended_memorization(target, oracle, SAMPLES, **options)
            with pytest.raises(InputError, match="Leave device out"):
                unintended_memorization(target, oracle, SAMPLES, device="meta", **options)
    assert together.ideal_signed_bits.tolist() == one_by_one.ideal_signed_bits.tolist()
