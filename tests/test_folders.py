"""Model folders that are damaged, incomplete or of another kind: each is named, with what to do; none is measured in part."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from memorization import UniformModel, compress_bits, unintended_memorization
from memorization.errors import MeasurementWarning, ModelError

IDS = [[5, 7, 9, 11, 3]]


@pytest.fixture
def folder(model_folder, tmp_path) -> Path:
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture
def sharded(tiny_gpt2, tmp_path) -> Path:
    tiny_gpt2.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    return tmp_path / "sharded"


def refusal(model, samples=IDS, **options) -> str:
    with pytest.raises(ModelError) as caught:
        compress_bits(model, samples, progress=False, **options)
    message = str(caught.value)
    assert message.endswith((".", "?", ")"))
    assert "\n" not in message
    return message


# --- names and places


@pytest.mark.parametrize("make", [str, Path, lambda path: f"{path}/"])
def test_a_misspelled_folder_fails_at_once(folder, make, monkeypatch):
    import transformers

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("the hub"))
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: pytest.fail("the hub"))
    wrong = make(folder.parent / "modle")
    message = refusal(wrong)
    assert "there is no folder" in message
    assert f"Did you mean {folder}?" in message
    with pytest.raises(ModelError, match="Did you mean"):
        unintended_memorization(wrong, UniformModel(300), ["a"], progress=False)
    with pytest.raises(ModelError, match="there is no folder"):
        compress_bits(UniformModel(300), ["a"], tokenizer=wrong)


def test_relative_folders(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert "Did you mean model?" in refusal("./modell")
    assert "is neither a folder here nor a model that the hub delivered" in refusal("modell")
    assert "Did you mean model?" in refusal("modell")
    assert "Nor is there a folder /no/such." in refusal("/no/such/folder")
    monkeypatch.chdir(folder.parent.parent)
    assert "there is no folder" in refusal(f"{folder.parent.name}/modell")  # it looks like the hub, and lies here
    monkeypatch.setenv("HOME", str(folder.parent))
    assert compress_bits("~/model", IDS, progress=False).settings["model"]["name"] == str(folder)


def test_the_folder_of_a_training_names_its_checkpoints(folder, tmp_path):
    for step in (5, 100, 20):
        shutil.copytree(folder, tmp_path / "run" / f"checkpoint-{step}")
    message = refusal(tmp_path / "run")
    assert "newest first: checkpoint-100, checkpoint-20, checkpoint-5. Pass one of them" in message
    with pytest.raises(ModelError, match="checkpoint-100"):
        unintended_memorization(str(tmp_path / "run"), UniformModel(300), ["a"], progress=False)
    assert compress_bits(tmp_path / "run" / "checkpoint-100", IDS, progress=False).total_bits > 0


# --- weights


def test_a_missing_shard(sharded):
    (sharded / "model-00002-of-00005.safetensors").unlink(missing_ok=True)
    gone = sorted(sharded.glob("model-*.safetensors"))[1]
    gone.unlink()
    message = refusal(sharded)
    assert gone.name in message or "model-00002" in message
    assert "Download the model again" in message
    assert "allow_pickle" not in message


def test_a_missing_index(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    message = refusal(sharded)
    assert "and not model.safetensors.index.json" in message
    assert "allow_pickle" not in message


@pytest.mark.parametrize(
    "places", [None, ["model-1.safetensors"], {}, {"a": 1}, {"a": None}, {"a": ["b"]}, "model-1.safetensors"]
)
def test_an_index_that_names_no_files(sharded, places):
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert "its weight_map does not say which file each weight is in" in refusal(sharded)
    index.write_text('{"metadata": {}}')
    assert "its weight_map does not say which file each weight is in" in refusal(sharded)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_links_to_nothing_are_not_absent(folder, name):
    """The cache of the hub holds links; the files may have been removed."""
    for file in folder.iterdir():
        if file.name.startswith(name.split(".")[0].split("_")[0]):
            file.unlink()
            file.symlink_to(folder / "blobs" / "0123")
    message = refusal(folder)
    assert name.split(".")[0].split("_")[0] in message
    assert "is a link to" in message
    assert "which is not there" in message


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_folders_in_the_place_of_files(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    assert f"{name} is no file" in refusal(folder)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a/" + "x" * 300])
def test_names_that_no_file_may_have(name):
    assert name in refusal(name)


def test_pickled_weights_that_are_none(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not weights")
    message = refusal(folder, allow_pickle=True)
    assert "its pickled weights are damaged, or hold other objects than tensors" in message
    assert "weights_only" not in message


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda whole: b"", "is empty"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (lambda whole: whole[: len(whole) // 2], "is cut off|is damaged"),
        (lambda whole: b"\x00\x01 not at all" * 9, "is damaged|is cut off"),
    ],
)
def test_damaged_files_are_named(folder, name, damage, told, allow_pickle):
    """Also where the samples are ids: a tokenizer that cannot be read is not one that is absent."""
    file = folder / name
    file.write_bytes(damage(file.read_bytes()))
    message = refusal(folder, allow_pickle=allow_pickle)
    assert name in message
    assert any(part in message for part in told.split("|"))
    assert "pickle" not in message


def test_a_tokenizer_of_a_newer_version_is_an_error(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["type"] = "OfTomorrow"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "Was it made by a newer version of transformers" in refusal(folder)


def test_settings_of_a_tokenizer_are_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    message = refusal(folder)
    assert "no vocabulary" in message
    assert "newer version" not in message


def test_weights_under_another_name(folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    message = refusal(folder)
    assert "holds weights.safetensors, and no model.safetensors" in message
    assert "pickle" not in message


# --- more, less, or other than the configuration says


def test_weights_without_a_place(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 1}))
    with pytest.warns(
        MeasurementWarning, match=r"holds 1[12] weights that a GPT2LMHeadModel .* has no place for, the first is"
    ):
        found = compress_bits(folder, IDS, progress=False)
    assert found.settings["model"]["unexpected_weights"]["n"] >= 11  # to transformers one of them looks like a mask
    assert "h.1." in found.settings["model"]["unexpected_weights"]["first"]
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    assert "lacks 12 of the weights" in refusal(folder)
    (folder / "config.json").write_text(json.dumps({**config, "n_positions": 32}))
    message = refusal(folder)
    assert "weights of other sizes" in message
    assert "wpe.weight: (64, 32) where (32, 32) is expected" in message


def test_a_whole_folder_has_nothing_left_over(model_folder):
    assert compress_bits(model_folder, IDS, progress=False).settings["model"]["unexpected_weights"] is None


def test_the_head_of_a_classifier(tmp_path):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(vocab_size=97, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.warns(MeasurementWarning, match="the first is score.weight"):
        compress_bits(tmp_path, IDS, progress=False)


def test_a_head_of_its_own_where_the_configuration_ties_it(folder, tiny_gpt2):
    """transformers 5 unties such a head; older ones drop it, which has to be said."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.zeros(300, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert compress_bits(folder, IDS, first_token="skip", progress=False).token_bits == pytest.approx(8.2288, abs=1e-3)


# --- adapters

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture
def adapter(folder, tmp_path) -> Path:
    import peft
    import torch
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True
    )
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@needs_peft
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:peft")
def test_an_adapter_is_measured_on_its_base(adapter, folder, monkeypatch):
    import peft
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    expected = compress_bits(model, ["The house met."], tokenizer=folder, progress=False)
    found = compress_bits(adapter, ["The house met."], progress=False)  # with its base's tokenizer
    assert found.ideal_bits == pytest.approx(expected.ideal_bits, abs=1e-4)
    assert abs(found.ideal_bits - compress_bits(folder, ["The house met."], progress=False).ideal_bits) > 1

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refusal(adapter)
    assert f"holds an adapter (PEFT) for the base model {folder}. To measure both together install peft" in message


@needs_peft
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:peft")
def test_an_adapter_without_its_base(adapter, folder):
    shutil.move(folder, folder.parent / "moved")
    message = refusal(adapter)
    assert str(adapter) in message
    assert f"the base model {folder}, and that is not there. Looked for: {folder}, " in message
    assert "into base_model_name_or_path of" in message


@needs_peft
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:peft")
def test_a_damaged_adapter(adapter):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "adapter_model.safetensors is cut off" in refusal(adapter)
    weights.unlink()
    assert "neither adapter_model.safetensors nor adapter_model.bin" in refusal(adapter)
    (adapter / "adapter_model.bin").write_bytes(b"x")
    assert "pickled weights" in refusal(adapter)
    (adapter / "adapter_config.json").write_text("{}")
    assert "names no base model" in refusal(adapter)
