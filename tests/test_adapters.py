"""Adapters (PEFT) as models: the base found, switched off as an oracle, what was trained; and a truth that is planted."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import peft
import pytest
import torch
import transformers

from memorization import (
    CodeLengths,
    UniformModel,
    audit,
    audit_membership,
    compress_bits,
    extract,
    load,
    unintended_memorization,
)
from memorization.cli import main
from memorization.errors import InputError, MeasurementWarning, ModelError, SameModelWarning
from memorization.lab.training import train
from memorization.measure import open_model
from memorization.measure.fingerprint import same_model

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning"),
]
VOCAB, WIDTH, RANK = 64, 32, 4
LORA = 2 * 2 * RANK * WIDTH  # parameters: two maps a layer, A and B, one layer each of two
OFF = "base-of-target"


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        intermediate_size=48,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).eval()


def lora(**changes: Any) -> Any:
    asked: dict[str, Any] = {"r": RANK, "target_modules": ["q_proj"], "init_lora_weights": False} | changes
    return peft.LoraConfig(task_type="CAUSAL_LM", **asked)


def ids(n: int, seed: int, length: int = 12) -> list[list[int]]:
    return np.random.default_rng(seed).integers(VOCAB, size=(n, length)).tolist()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    llama().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def on(base: Path, config: Any, name: str = "default") -> Any:
    torch.manual_seed(1)
    return peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(base), config, adapter_name=name
    ).eval()


@pytest.fixture
def adapter(base: Path) -> Path:
    on(base, lora()).save_pretrained(base.parent / "adapter")
    return base.parent / "adapter"


def names_base(adapter: Path, place: str) -> Path:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": place}))
    return adapter


SAMPLES, CONTROL = ids(5, 2), ids(5, 3)


def bits(model: Any) -> float:
    return compress_bits(model, SAMPLES, first_token="skip", progress=False).ideal_bits.sum()


def memorized(target: Any, oracle: Any = OFF, **options: Any) -> Any:
    asked = {"control": CONTROL, "first_token": "skip", "progress": False} | options
    return unintended_memorization(target, oracle, SAMPLES, **asked)


def refused(target: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        memorized(target, **options)
    return str(caught.value)


# --- where the base is


def test_a_base_is_found_from_the_adapters_folder(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bits(adapter)
    names_base(adapter, "../base")
    assert bits(adapter) == expected
    shutil.move(adapter.parent / "base", adapter / "base")
    names_base(adapter, "base")
    monkeypatch.chdir(adapter.parent)  # where there is no such folder
    assert bits("adapter") == expected


def test_a_base_that_was_moved_with_its_adapter(adapter: Path, base: Path, tmp_path: Path) -> None:
    expected = bits(adapter)
    new = tmp_path / "elsewhere" / "run" / "checkpoint-3"
    shutil.copytree(adapter, new)
    shutil.move(base, tmp_path / "elsewhere" / "base")
    with pytest.warns(MeasurementWarning, match=rf"{tmp_path / 'elsewhere' / 'base'} has the same name"):
        assert bits(new) == expected


def test_a_base_that_is_nowhere(adapter: Path, base: Path) -> None:
    shutil.move(base, base.parent / "another")
    with pytest.raises(ModelError, match=r"is not there\. Looked for: ") as caught:
        bits(adapter)
    message = str(caught.value)
    for place in (base, adapter / "base"):
        assert f"{place}" in message
    assert f"into base_model_name_or_path of {adapter / 'adapter_config.json'}" in message
    names_base(adapter, "some/name")  # may be on the hub, which is out of reach here
    with pytest.raises(ModelError, match="the base cannot be loaded: 'some/name' is neither a folder here nor"):
        bits(adapter)


def test_the_tokenizer_is_the_bases_where_the_adapter_has_none(
    tmp_path: Path, tiny_gpt2: "GPT2LMHeadModel", bpe_tokenizer: "PreTrainedTokenizerFast"
) -> None:
    tiny_gpt2.save_pretrained(tmp_path / "base")
    bpe_tokenizer.save_pretrained(tmp_path / "base")
    config = lora(target_modules=["c_attn"], fan_in_fan_out=True)
    on(tmp_path / "base", config).save_pretrained(tmp_path / "adapter")
    names_base(tmp_path / "adapter", "../base")
    text = ["The house met."]
    found = compress_bits(tmp_path / "adapter", text, progress=False)
    assert found.settings["tokenizer"]["vocab_size"] == len(bpe_tokenizer)
    result = unintended_memorization(tmp_path / "adapter", OFF, text, progress=False)
    alone = unintended_memorization(tmp_path / "adapter", tmp_path / "base", text, progress=False)
    assert result.oracle.bits.tolist() == alone.oracle.bits.tolist()
    assert result.bits.tolist() == alone.bits.tolist()


def test_without_peft_the_extra_is_named(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(ModelError, match=r"install peft: pip install 'lm-memorization\[peft\]'"):
        memorized(adapter)


# --- on and off

KINDS: dict[str, Callable[[], Any]] = {
    "lora": lora,
    "dora": lambda: lora(use_dora=True),
    "embeddings": lambda: lora(target_modules=["q_proj", "embed_tokens"]),
    "a copy of the head": lambda: lora(modules_to_save=["lm_head"]),
    "some tokens": lambda: lora(trainable_token_indices=[1, 2]),
    "ia3": lambda: peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[], init_ia3_weights=False
    ),
    "loha": lambda: peft.LoHaConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_weights=False),
    "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}
N_TRAINED = {
    "lora": LORA,
    "dora": LORA + 2 * WIDTH,
    "embeddings": LORA + RANK * (VOCAB + WIDTH),
    "a copy of the head": LORA + VOCAB * WIDTH,
    "some tokens": LORA + 2 * WIDTH,
    "ia3": 2 * WIDTH,
    "prompt": 3 * WIDTH,
}


@pytest.mark.parametrize("place", ["folder", "memory"])
@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_it_is_the_base_to_the_last_digit(kind: str, place: str, base: Path) -> None:
    model = on(base, KINDS[kind]())
    if kind == "a copy of the head":
        with torch.no_grad():
            model.get_output_embeddings().modules_to_save["default"].weight.mul_(1.5)
    if place == "folder":
        model.save_pretrained(base.parent / "adapter")
    target = model if place == "memory" else base.parent / "adapter"
    found, alone = memorized(target), memorized(target, base)
    for part in ("bits", "signed_bits", "ideal_bits"):
        assert getattr(found, part).tolist() == getattr(alone, part).tolist()
    assert found.oracle.token_bits.tolist() == alone.oracle.token_bits.tolist()
    assert found.control.oracle.token_bits.tolist() == alone.control.oracle.token_bits.tolist()
    assert np.abs(found.signed_bits).max() > 0.01
    ours, theirs = (result.oracle.settings["model"] for result in (found, alone))
    different = {key for key in {*ours, *theirs} - {"base_of"} if ours.get(key) != theirs.get(key)}
    assert not different
    target_record = found.target.settings["model"]
    assert target_record["fingerprint"] != ours["fingerprint"]
    assert same_model(ours, theirs)
    assert not same_model(target_record, ours)
    assert target_record["n_trained_params"] == N_TRAINED.get(kind, target_record["n_trained_params"])
    replaced = VOCAB * WIDTH if kind == "a copy of the head" else 0
    assert target_record["n_params"] == ours["n_params"] + target_record["n_trained_params"] - replaced
    assert theirs["n_trained_params"] is None


def test_both_are_asked_in_one_model(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load_one = transformers.AutoModelForCausalLM.from_pretrained

    def counted(name: str, *args: Any, **options: Any) -> Any:
        loaded.append(name)
        return load_one(name, *args, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", counted)
    options: dict[str, Any] = {"first_token": "skip", "progress": False}
    unintended_memorization(adapter, OFF, SAMPLES, control=CONTROL, **options)
    assert loaded == [str(adapter.parent / "base")]
    audit_membership(adapter, SAMPLES, CONTROL, oracle=OFF, **options)
    assert len(loaded) == 2
    extract(adapter, SAMPLES, CONTROL, oracle=OFF, prefix_tokens=[2], **options)
    assert len(loaded) == 3
    unintended_memorization(adapter, [OFF, UniformModel(VOCAB)], SAMPLES, control=CONTROL, **options)
    assert len(loaded) == 4


def test_the_other_verbs_see_the_base_too(adapter: Path, base: Path) -> None:
    options: dict[str, Any] = {"first_token": "skip", "progress": False}
    found, alone = (audit_membership(adapter, SAMPLES, CONTROL, oracle=oracle, **options) for oracle in (OFF, base))
    assert found.attacks["reference"].member_scores.tolist() == alone.attacks["reference"].member_scores.tolist()
    options |= {"prefix_tokens": [2]}
    found, alone = (extract(adapter, SAMPLES, CONTROL, oracle=oracle, **options) for oracle in (OFF, base))
    assert found.member_oracle_bits.tolist() == alone.member_oracle_bits.tolist()
    assert found.member_bits.tolist() != found.member_oracle_bits.tolist()
    found, alone = (memorized(on(base, lora()), [oracle, UniformModel(VOCAB)]) for oracle in (OFF, base))
    assert found.bits.tolist() == alone.bits.tolist()
    with open_model(adapter, progress=False) as opened:
        assert memorized(opened).bits.tolist() == memorized(adapter).bits.tolist()


def test_the_model_comes_back_switched_on(base: Path) -> None:
    model = on(base, lora())
    before = model(torch.tensor(SAMPLES)).logits
    memorized(model)
    assert torch.equal(model(torch.tensor(SAMPLES)).logits, before)
    ours, theirs = memorized(model), memorized(transformers_loads(model, base))
    assert ours.bits.tolist() == theirs.bits.tolist()
    assert theirs.target.settings["model"]["n_trained_params"] == LORA


def transformers_loads(model: Any, base: Path) -> Any:
    """A model that transformers puts together by itself, without a PeftModel around it."""
    model.save_pretrained(base.parent / "again")
    return transformers.AutoModelForCausalLM.from_pretrained(base.parent / "again")


def test_of_several_adapters_the_active_ones_count(base: Path) -> None:
    model = on(base, lora(), name="one")
    model.add_adapter("two", lora(r=2 * RANK))
    found = {}
    for active in (["one"], ["two"], ["one", "two"]):
        model.base_model.set_adapter(active)
        found["+".join(active)] = memorized(model)
    records = [result.target.settings["model"] for result in found.values()]
    assert [record["n_trained_params"] for record in records] == [LORA, 2 * LORA, 3 * LORA]
    assert len({record["fingerprint"] for record in records}) == 3
    assert [record["adapter"]["active"] for record in records] == [["one"], ["two"], ["one", "two"]]
    assert len({tuple(result.oracle.bits) for result in found.values()}) == 1
    assert {result.oracle.settings["model"]["name"] for result in found.values()} == {str(base)}


def test_a_fingerprint_is_of_weights_not_of_an_adapters_name(base: Path, adapter: Path) -> None:
    with open_model(on(base, lora(), name="mine")) as ours, open_model(adapter, progress=False) as theirs:
        assert ours.record["fingerprint"] == theirs.record["fingerprint"]


# --- refusals


def test_a_target_without_an_adapter_is_refused(base: Path) -> None:
    for target in (base, llama(), UniformModel(VOCAB), on(base, lora()).merge_and_unload()):
        assert "measures a PEFT adapter switched on and off, and the target" in refused(target)
    lengths = compress_bits(base, SAMPLES, first_token="skip", progress=False)
    assert "needs the target as a model" in refused(lengths, control=None)
    with pytest.raises(InputError, match="here a model is needed"):
        compress_bits(OFF, SAMPLES)


def trains_biases(base: Path) -> Any:
    return on(base, lora(bias="all"))


def merged(base: Path) -> Any:
    model = on(base, lora())
    model.merge_adapter()
    return model


def off_already(base: Path) -> Any:
    model = on(base, lora())
    model.base_model.disable_adapter_layers()
    return model


def free_base(base: Path) -> Any:
    model = on(base, lora())
    model.get_input_embeddings().weight.requires_grad_(True)
    return model


def resized(base: Path) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(VOCAB + 3)
    return peft.get_peft_model(model, lora())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (trains_biases, "its adapter trains biases of the base"),
        (merged, "its adapter is merged into the base's weights"),
        (off_already, "its adapter is switched off already"),
        (free_base, "1 weights of its base are free to be trained"),
        (resized, f"its base has {VOCAB + 3} tokens, and "),
        (lambda base: on(base, lora(init_lora_weights="pissa")), "has changed the base's weights when it was made"),
    ],
)
def test_what_is_not_the_base_when_it_is_off_is_refused(make: Callable[[Path], Any], why: str, base: Path) -> None:
    message = refused(make(base))
    assert why in message
    assert f"Pass the base itself as the oracle ({base})" in message


def test_a_folder_that_brings_weights_of_the_base_is_measured_and_refused_as_a_base(base: Path) -> None:
    folder = base.parent / "resized"
    model = resized(base)
    with torch.no_grad():
        model.get_output_embeddings().weight.add_(0.1)
    model.save_pretrained(folder)
    assert bits(folder) == pytest.approx(bits(model), abs=1e-6)
    assert "its folder brings 2 weights of the base itself, the first is model.embed_tokens.weight" in refused(folder)
    with open_model(folder, progress=False) as opened:
        assert opened.record["n_trained_params"] == LORA + 2 * (VOCAB + 3) * WIDTH


def test_biases_in_a_folder(tmp_path: Path, tiny_gpt2: "GPT2LMHeadModel") -> None:
    tiny_gpt2.save_pretrained(tmp_path / "base")
    model = on(tmp_path / "base", lora(target_modules=["c_attn"], bias="all", fan_in_fan_out=True))
    n_biases = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.1)
                n_biases += parameter.numel()
    model.save_pretrained(tmp_path / "adapter")
    with open_model(tmp_path / "adapter", progress=False) as ours, open_model(model) as theirs:
        assert "(resized embeddings, or biases that were trained)" in ours.record["adapter"]["not_base"]
        assert ours.record["n_trained_params"] == theirs.record["n_trained_params"] > n_biases


def test_pissa_in_a_folder(base: Path) -> None:
    on(base, lora(init_lora_weights="pissa")).save_pretrained(base.parent / "pissa")
    assert "loading it changes 2 weights of the base itself" in refused(base.parent / "pissa")
    with open_model(base.parent / "pissa", progress=False) as opened:
        assert opened.record["n_trained_params"] == LORA


# --- a planted truth

MEMBERS, HELDOUT = ids(8, 4), ids(40, 5)


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on all maps of a base, which has its members by heart."""
    folder = tmp_path_factory.mktemp("finetuned")
    model = llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(0.4)  # near uniform: the best model of such text
    model.save_pretrained(folder / "base")
    untrained = lora(r=8, target_modules="all-linear", init_lora_weights=True)
    model = on(folder / "base", untrained)
    model.save_pretrained(folder / "untrained")
    train(model, torch.tensor(MEMBERS), context=0, steps=200, batch_size=8, peak_lr=2e-2, seed=0)
    model.save_pretrained(folder / "adapter")
    return folder


def test_what_an_adapter_was_trained_on_is_found(finetuned: Path) -> None:
    result = unintended_memorization(
        finetuned / "adapter", OFF, MEMBERS, control=HELDOUT, first_token=0, progress=False
    )
    assert result.bits.min() > 20
    assert result.control is not None
    assert result.control.bits.mean() < 2
    assert result.control.net_bits > 200
    model = result.target.settings["model"]
    share = result.control.net_bits / (3.6 * model["n_trained_params"])
    assert result.capacity_share_trained == pytest.approx(share, rel=1e-9)
    assert result.summary()["capacity_share_trained"] == result.capacity_share_trained > result.capacity_share
    assert f"{100 * share:.3g} % of 3.6 bits x trained parameters" in repr(result)
    assert f"{model['n_trained_params']:,} of them trained" in repr(result)


def test_an_untrained_adapter_has_memorized_nothing_and_is_named(finetuned: Path) -> None:
    with pytest.warns(SameModelWarning, match="the adapter changes none of them, switched on or off"):
        result = unintended_memorization(finetuned / "untrained", OFF, MEMBERS, control=HELDOUT, first_token=0)
    assert result.bits.tolist() == [0.0] * 8
    ours, theirs = (lengths.settings["model"] for lengths in (result.target, result.oracle))
    assert not same_model(ours, theirs)


def test_a_model_without_an_adapter_has_no_share_of_trained_parameters() -> None:
    result = unintended_memorization(llama(), UniformModel(VOCAB), SAMPLES, first_token="skip", progress=False)
    assert np.isnan(result.capacity_share_trained)
    assert result.summary()["capacity_share_trained"] is None
    assert "trained parameters" not in repr(result)


def test_an_audit_takes_the_base_of_its_target(finetuned: Path) -> None:
    found = audit(finetuned / "adapter", OFF, MEMBERS, HELDOUT[:8], first_token=0, progress=False)
    assert set(found.settings["weights"]["target"]) == {"adapter_model.safetensors"}
    assert set(found.settings["weights"]["oracle"]) == {"model.safetensors"}
    assert found.memorization.control.net_bits > 100


# --- the command line


def test_the_commands_take_an_adapter_and_its_base(
    finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, samples in (("members", MEMBERS), ("heldout", HELDOUT)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in samples))
    where = ["--data", str(tmp_path / "members.jsonl"), "--control", str(tmp_path / "heldout.jsonl")]
    models = ["--target", str(finetuned / "adapter"), "--oracle", OFF, "--first-token", "0", "--quiet"]
    for command, more in (("measure", []), ("attack", []), ("extract", ["--prefix", "2"])):
        with pytest.raises(SystemExit) as caught:
            main([command, *models, *where, *more, "--output", str(tmp_path / command)])
        assert caught.value.code == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    assert "of 3.6 bits x trained parameters" in printed.out
    saved = load(tmp_path / "measure")
    assert isinstance(saved.oracle, CodeLengths)
    assert saved.oracle.settings["model"]["base_of"] == str(finetuned / "adapter")
    models[1] = str(finetuned / "base")
    with pytest.raises(SystemExit) as caught:
        main(["measure", *models, *where, "--output", str(tmp_path / "no")])
    assert caught.value.code == 2
    assert "--oracle base-of-target measures a PEFT adapter switched on and off" in capsys.readouterr().err


def test_peft_is_imported_only_for_adapters(base: Path) -> None:
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from memorization import compress_bits\n"
        f"print(compress_bits({str(base)!r}, [[1, 2, 3]], progress=False).total_bits)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_adapter_on_the_hub_reads_with_its_bases_tokenizer(model_folder: Path, tmp_path: Path) -> None:
    config = lora(target_modules=["c_attn"], fan_in_fan_out=True)
    on(model_folder, config).save_pretrained(tmp_path / "adapter")
    commit = "a" * 40
    for name, source in (("base", model_folder), ("adapter", names_base(tmp_path / "adapter", "some/base"))):
        kept = tmp_path / "home" / "hub" / f"models--some--{name}"
        shutil.copytree(source, kept / "snapshots" / commit)
        (kept / "refs").mkdir()
        (kept / "refs" / "main").write_text(commit)
    code = (
        "from memorization import unintended_memorization as measured\n"
        f"for name in {str(tmp_path / 'adapter')!r}, 'some/adapter':\n"
        "    found = measured(name, 'base-of-target', ['The house met.'], progress=False)\n"
        "    print(found.target.total_bits, found.oracle.total_bits, found.oracle.settings['model']['name'])\n"
    )
    home = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=home)
    assert done.returncode == 0, done.stderr
    folder, hub = done.stdout.splitlines()
    assert folder == hub
    assert folder.endswith("some/base")
