"""Trajectories: checkpoints found and measured with one oracle, resumed, and followed while a Trainer trains."""

import json
import math
import os
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from memorization import (
    CodeLengths,
    Memorization,
    MemorizationCallback,
    Trajectory,
    UniformModel,
    cli,
    load,
    track,
    unintended_memorization,
)
from memorization.errors import InputError, MeasurementWarning, ModelError, SameModelWarning
from memorization.measure import pair as of_pairs
from memorization.tracking import measure as place
from memorization.tracking import passes
from memorization.tracking.checkpoints import find_checkpoints

V, LENGTH, N, N_CONTROL = 64, 16, 24, 48
STEPS = [20, 40, 100]
pytestmark = pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")


def draws(n: int, seed: int) -> list[list[int]]:
    """Uniform tokens: nothing can be generalized from one set to another."""
    return np.random.default_rng(seed).integers(1, V, size=(n, LENGTH)).tolist()


MEMBERS, UNSEEN = draws(N, 0), draws(N_CONTROL, 1)


def base_model():
    """Near to uniform, with dropout, so that training asks for random numbers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=V, n_positions=32, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, resid_pdrop=0.1
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(config)


def trainer_of(model, folder: Path, callbacks=(), *, max_steps: int = STEPS[-1], save_steps: int = 20, **more):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=max_steps,
        per_device_train_batch_size=N,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        save_steps=save_steps,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
        **more,
    )
    rows = [{"input_ids": [0, *ids], "labels": [0, *ids]} for ids in MEMBERS]
    return Trainer(model=model, args=arguments, train_dataset=rows, callbacks=list(callbacks))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A Trainer's folder with the checkpoints 20, 40 and 100, and its base beside it. Shared: leave it as it is."""
    folder = tmp_path_factory.mktemp("run")
    model = base_model()
    model.save_pretrained(folder / "base")
    trainer_of(model, folder / "finetune").train()
    for step in (60, 80):
        shutil.rmtree(folder / "finetune" / f"checkpoint-{step}")
    return folder


@pytest.fixture
def own(run, tmp_path) -> Path:
    """The same, to be changed."""
    shutil.copytree(run, tmp_path / "own")
    return tmp_path / "own"


def tracked(folder: Path, **more) -> Trajectory:
    options = {"first_token": 0, "progress": False, **more}
    return track(folder / "finetune", folder / "base", MEMBERS, UNSEEN, **options)


# --- what is there


def test_net_memu_rises_with_the_step_and_the_control_stays_at_0(run):
    found = tracked(run)
    table = found.to_pandas()
    assert table["step"].tolist() == STEPS
    assert table["name"].tolist() == [f"checkpoint-{step}" for step in STEPS]
    assert (np.diff(table["net_bits"]) > 0).all()
    assert table["net_low"].iloc[-1] > 0.5 * N * LENGTH * math.log2(V)  # most of what there is to know
    assert table["net_bits"].iloc[-1] <= N * LENGTH * math.log2(V) * 1.02
    assert (table["control_mean_bits"] < 0.5).all()
    assert table["n_memorized"].iloc[-1] == N
    assert found.memorized[-1].all()
    assert (table["low"] <= table["mean_bits"]).all()
    assert (table["mean_bits"] <= table["high"]).all()


def test_a_run_that_learns_nothing_shows_nothing(run, tmp_path):
    from transformers import GPT2LMHeadModel

    for step in (10, 20):
        model = GPT2LMHeadModel.from_pretrained(run / "base")
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 1e-3 * torch.randn(weight.shape, generator=generator)
        model.save_pretrained(tmp_path / f"checkpoint-{step}")
    table = track(tmp_path, run / "base", MEMBERS, UNSEEN, first_token=0, progress=False).to_pandas()
    assert (table["net_bits"].abs() < 0.01 * N * LENGTH * math.log2(V)).all()
    assert not (table["n_memorized"] > 0).any()


def test_each_checkpoint_is_what_it_is_by_itself(run):
    found = tracked(run)
    for k, step in enumerate(STEPS):
        target = run / "finetune" / f"checkpoint-{step}"
        alone = unintended_memorization(target, run / "base", MEMBERS, control=UNSEEN, first_token=0, progress=False)
        np.testing.assert_array_equal(found.bits[k], alone.bits)
        np.testing.assert_array_equal(found.signed_bits[k], alone.signed_bits)
        np.testing.assert_array_equal(found.q_values[k], alone.q_values)
        np.testing.assert_array_equal(found.control_bits[k], alone.control.bits)
        row = found.to_pandas().iloc[k]
        assert [row["low"], row["high"]] == list(alone.interval)
        assert [row["net_bits"], row["net_low"]] == [alone.control.net_bits, alone.control.net_interval.low]
        assert row["verdict"] == alone.verdict
        assert row["n_memorized"] == alone.memorized().sum()


def test_the_oracle_is_run_once(run, monkeypatch):
    ran = []

    def counting(module):
        real = module.measure
        monkeypatch.setattr(
            module,
            "measure",
            lambda model, *args, **more: ran.append(model.record["name"]) or real(model, *args, **more),
        )

    counting(of_pairs)
    counting(passes)
    tracked(run)
    names = [Path(name).name for name in ran]
    assert names.count("base") == 2  # samples, and control
    assert [names.count(f"checkpoint-{step}") for step in STEPS] == [2, 2, 2]


def test_the_first_token_is_decided_once(model_folder, tmp_path):
    """By the first checkpoint: later ones are read like it, whatever they would say of a BOS."""
    from transformers import GPT2LMHeadModel

    texts = [f"The house met and adjourned, call {k}12-55{k}4." for k in range(1, 9)]
    for step in (1, 2, 3):
        model = GPT2LMHeadModel.from_pretrained(model_folder)
        with torch.no_grad():
            model.transformer.wte.weight[0] += (
                3.0 * (step - 1) * torch.randn(32, generator=torch.Generator().manual_seed(step))
            )
        shutil.copytree(model_folder, tmp_path / f"checkpoint-{step}")
        model.save_pretrained(tmp_path / f"checkpoint-{step}")
    output = tmp_path / "out"
    track(tmp_path, UniformModel(320), texts, oracle_tokenizer=str(model_folder), output=output, progress=False)
    rules = set()
    for step in (1, 2, 3):
        rule = Memorization.load(output / "checkpoints" / f"checkpoint-{step}").target.settings["first_token"]
        rules.add((rule["rule"], rule["id"], rule["in_front"], rule["every_window"]))
    assert len(rules) == 1


def test_tables_have_a_row_a_sample_and_step(run):
    found = tracked(run)
    table = found.samples_to_pandas()
    assert len(table) == len(STEPS) * N
    assert table.columns.tolist() == ["step", "name", "sample", "bits", "signed_bits", "q_value", "preview"]
    one = table[(table["step"] == 40) & (table["sample"] == 5)]
    assert one["bits"].item() == found.bits[1, 5]
    assert one["preview"].item().startswith(" ".join(map(str, MEMBERS[5][:3])))
    control = found.control_to_pandas()
    assert len(control) == len(STEPS) * N_CONTROL
    assert control["bits"].tolist() == found.control_bits.ravel().tolist()


def test_saved_and_loaded_it_is_the_same(run, tmp_path):
    found = tracked(run)
    found.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert isinstance(again, Trajectory)
    assert repr(again) == repr(found)
    for name in ("steps", "bits", "signed_bits", "q_values", "control_bits", "control_signed_bits", "index"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.to_pandas().equals(found.to_pandas())
    assert again.samples_to_pandas().equals(found.samples_to_pandas())
    assert again.settings["weights"]["checkpoint-20"]["model.safetensors"]


def test_without_a_control_it_says_so(run):
    found = track(run / "finetune", run / "base", MEMBERS, first_token=0, progress=False)
    assert "control      none: pass unseen samples" in repr(found)
    assert found.to_pandas()[["net_bits", "control_mean_bits", "n_memorized", "set_p_value"]].isna().all(axis=None)
    assert found.to_pandas()["verdict"].isna().all()
    assert not found.memorized.any()
    assert found.control_bits.shape == (3, 0)
    assert len(found.plot().lines) == 2  # of the samples, and 0


def test_one_checkpoint_is_a_trajectory(run, tmp_path):
    found = track([run / "finetune" / "checkpoint-40"], run / "base", MEMBERS, UNSEEN, first_token=0, progress=False)
    assert repr(found).startswith("Trajectory of 1 checkpoint: memU of 24 samples, 48 unseen ones beside them")
    found.save(tmp_path / "one")
    assert load(tmp_path / "one").bits.tolist() == found.bits.tolist()
    found.plot()
    found.plot(against="samples")


@pytest.mark.parametrize("kind", ["lengths", "result", "folder"])
def test_an_oracle_that_is_measured_is_not_run_again(run, tmp_path, kind, monkeypatch):
    first = unintended_memorization(
        run / "finetune" / "checkpoint-20", run / "base", MEMBERS, control=UNSEEN, first_token=0, progress=False
    )
    first.save(tmp_path / "saved")
    oracle = {
        "lengths": (first.oracle, first.control.oracle),
        "result": first,
        "folder": tmp_path / "saved",
    }[kind]
    whole = tracked(run)
    monkeypatch.setattr(of_pairs, "load_tokenizer", lambda *_, **__: None)
    found = track(run / "finetune", oracle, MEMBERS, UNSEEN, first_token=0, progress=False)
    np.testing.assert_array_equal(found.bits, whole.bits)
    np.testing.assert_array_equal(found.control_bits, whole.control_bits)


def test_lengths_of_the_control_are_needed_too(run, tmp_path):
    first = unintended_memorization(run / "base", UniformModel(V), MEMBERS, first_token=0, progress=False)
    with pytest.raises(InputError, match="code lengths of the samples alone, and there is a control"):
        track(run / "finetune", first.oracle, MEMBERS, UNSEEN, progress=False)
    with pytest.raises(InputError, match="one model, or CodeLengths of samples and of control; a list of 3 came"):
        track(run / "finetune", [first.oracle] * 3, MEMBERS, UNSEEN, progress=False)
    tracked(run).save(tmp_path / "saved")
    with pytest.raises(InputError, match="oracle names a saved Trajectory: expected is a model"):
        track(run / "finetune", tmp_path / "saved", MEMBERS, progress=False)


# --- going on


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """The checkpoints that are measured, by name."""
    names: list[str] = []
    for name in ("first_pairs", "pairs_like"):
        real = getattr(place, name)

        def counting(source, *args, _real=real, **more):
            names.append(Path(source).name)
            return _real(source, *args, **more)

        monkeypatch.setattr(place, name, counting)
    return names


def test_the_same_call_goes_on(own, tmp_path, measured):
    output = tmp_path / "track"
    late = own / "finetune" / "checkpoint-100"
    late.rename(own / "later")
    first = tracked(own, output=output)
    assert measured == ["checkpoint-20", "checkpoint-40"]
    assert Memorization.load(output / "checkpoints" / "checkpoint-20").bits.tolist() == first.bits[0].tolist()
    (own / "later").rename(late)
    measured.clear()
    second = tracked(own, output=output)
    assert measured == ["checkpoint-100"]
    np.testing.assert_array_equal(second.bits, tracked(own).bits)
    measured.clear()
    assert repr(tracked(own, output=output)) == repr(second)
    assert measured == []


def test_what_is_measured_is_there_when_the_next_fails(own, tmp_path, measured):
    output = tmp_path / "track"
    weights = own / "finetune" / "checkpoint-40" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:100])
    with pytest.raises((ModelError, InputError)):
        tracked(own, output=output)
    assert Memorization.load(output / "checkpoints" / "checkpoint-20")
    weights.write_bytes(good)
    measured.clear()
    assert len(tracked(own, output=output)) == 3
    assert measured == ["checkpoint-40", "checkpoint-100"]


def test_other_weights_are_measured_anew(own, tmp_path, measured):
    output = tmp_path / "track"
    before = tracked(own, output=output)
    weights = [own / "finetune" / f"checkpoint-{step}" / "model.safetensors" for step in (40, 20)]
    shutil.copy(*weights)
    measured.clear()
    after = tracked(own, output=output)
    assert measured == ["checkpoint-20"]
    np.testing.assert_array_equal(after.bits[0], before.bits[1])


def test_a_damaged_measurement_is_measured_anew(own, tmp_path, measured):
    output = tmp_path / "track"
    before = tracked(own, output=output)
    table = output / "checkpoints" / "checkpoint-40" / "target" / "tokens.parquet"
    table.write_bytes(table.read_bytes()[:-8])
    (output / "checkpoints" / "checkpoint-20" / "track.json").write_text("{")
    measured.clear()
    np.testing.assert_array_equal(tracked(own, output=output).bits, before.bits)
    assert measured == ["checkpoint-20", "checkpoint-40"]


def test_another_question_is_not_mixed_in(own, tmp_path, measured):
    output = tmp_path / "track"
    tracked(own, output=output)
    arguments = (own / "finetune", own / "base")
    with pytest.raises(InputError, match="measured with other samples, so its checkpoints and these would not"):
        track(*arguments, MEMBERS[:-1], UNSEEN, output=output, first_token=0, progress=False)
    with pytest.raises(InputError, match="with other control and joint and first_token"):
        track(*arguments, MEMBERS, UNSEEN[:-1], output=output, joint="mixture", first_token=1, progress=False)
    measured.clear()
    found = track(*arguments, MEMBERS[:-1], UNSEEN, output=output, overwrite=True, first_token=0, progress=False)
    assert len(measured) == 3
    assert found.bits.shape == (3, N - 1)
    weights = own / "base" / "model.safetensors"
    shutil.copy(own / "finetune" / "checkpoint-20" / "model.safetensors", weights)
    with pytest.raises(InputError, match="measured with other oracle"):
        track(*arguments, MEMBERS[:-1], UNSEEN, output=output, first_token=0, progress=False)


def test_a_result_of_another_kind_is_not_replaced(own, tmp_path):
    found = unintended_memorization(own / "base", UniformModel(V), MEMBERS, first_token=0, progress=False)
    found.save(tmp_path / "other")
    with pytest.raises(InputError, match="other holds a Memorization: name another output, or pass overwrite=True"):
        tracked(own, output=tmp_path / "other")


def test_an_oracle_in_memory_is_not_taken_for_another(own, tmp_path):
    output = tmp_path / "track"
    options = {"output": output, "first_token": 0, "progress": False}
    track(own / "finetune", base_model(), MEMBERS, UNSEEN, **options)
    with pytest.raises(InputError, match="measured with other oracle"):
        track(own / "finetune", base_model(), MEMBERS, UNSEEN, **options)


# --- what vanishes


def vanishing(monkeypatch, folder: Path, *, whole: bool = True) -> None:
    """The folder goes when its turn comes, as a Trainer with save_total_limit deletes it."""
    for name in ("first_pairs", "pairs_like"):
        real = getattr(place, name)

        def going(source, *args, _real=real, **more):
            if Path(source).name == folder.name:
                shutil.rmtree(folder) if whole else (folder / "model.safetensors").unlink()
            return _real(source, *args, **more)

        monkeypatch.setattr(place, name, going)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_checkpoint_that_vanishes_is_named_and_the_others_are_there(own, monkeypatch, step, whole):
    vanishing(monkeypatch, own / "finetune" / f"checkpoint-{step}", whole=whole)
    with pytest.warns(MeasurementWarning, match=f"checkpoint-{step} vanished before being measured; all others were"):
        found = tracked(own)
    assert found.steps.tolist() == [one for one in STEPS if one != step]
    assert found.settings["missing"] == [f"checkpoint-{step}"]
    assert f"checkpoint-{step}: vanished before it could be measured" in repr(found)


def test_what_was_measured_of_a_checkpoint_that_is_gone_is_kept(own, tmp_path, measured):
    output = tmp_path / "track"
    before = tracked(own, output=output)
    shutil.rmtree(own / "finetune" / "checkpoint-20")
    measured.clear()
    found = tracked(own, output=output)
    assert measured == []
    np.testing.assert_array_equal(found.bits, before.bits)
    assert found.settings["gone"] == ["checkpoint-20"]
    assert "checkpoint-20: measured earlier; the folder is not there any more" in repr(found)


def test_if_all_vanish_nothing_is_made_up(own, monkeypatch):
    for step in STEPS:
        vanishing(monkeypatch, own / "finetune" / f"checkpoint-{step}")
    with pytest.raises(ModelError, match="every checkpoint vanished before it could be measured"):
        tracked(own)


# --- which checkpoints


def test_steps_are_numbers(tmp_path):
    for step in (1000, 20, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-last").mkdir()
    (tmp_path / "runs").mkdir()
    assert [one.step for one in find_checkpoints(tmp_path)] == [3, 20, 1000]
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text(json.dumps({"global_step": 5000}))
    assert [one.step for one in find_checkpoints(tmp_path)] == [20, 1000, 5000]


def test_globs_and_lists(tmp_path, monkeypatch):
    for name in ("step_100", "step_20", "final"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "step_1.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert [one.name for one in find_checkpoints("runs/step_*")] == ["step_20", "step_100"]
    named = find_checkpoints(["runs/step_100", "runs/final", "gpt2", "org/model-step20"])
    assert [one.name for one in named] == ["step_100", "final", "gpt2", "org/model-step20"]  # as they were named
    assert [one.step for one in named][0::3] == [100, 20]
    assert all(math.isnan(one.step) for one in named[1:3])
    assert named[3].folder_name == "org--model-step20"
    (tmp_path / "other" / "step_20").mkdir(parents=True)
    with pytest.raises(InputError, match="two checkpoints are called step_20"):
        find_checkpoints(["runs/step_20", "other/step_20"])


def test_no_checkpoint_says_what_was_looked_for_and_what_is_there(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty, model, logs, models = (tmp_path / name for name in ("empty", "model", "logs", "models"))
    empty.mkdir()
    shutil.copytree(run / "base", model)
    (logs / "runs").mkdir(parents=True)
    (logs / "trainer_state.json").touch()
    shutil.copytree(model, models / "epoch-1")
    for asked, told in [
        ("empty", "empty holds no checkpoint: looked for folders checkpoint-N in it; it is empty"),
        ("model", "looked for folders checkpoint-N in it; it is itself a model"),
        ("logs", r"looked for folders checkpoint-N in it; there is runs, trainer_state.json"),
        ("models", r"it holds the models epoch-1. Name these by a glob: run='models/\*'"),
        ("modell", r"run='modell' is not there \(in . there is model"),
        ("mod*/checkpoint-*", r"run='mod\*/checkpoint-\*' matches nothing: expected is a glob of folders"),
        ("logs/*.json", "matches 1 file and no folder"),
        ([], "it held an empty list"),
        (["./nowhere"], "checkpoint ./nowhere is not there, or is no folder"),
    ]:
        with pytest.raises(InputError, match=told):
            track(asked, UniformModel(V), MEMBERS, progress=False)
    with pytest.raises(InputError, match=r"is the folder of a run .checkpoint-20, checkpoint-40, checkpoint-100."):
        find_checkpoints([run / "finetune"])


@pytest.mark.usefixtures("no_type_checker")
def test_models_in_memory_are_followed_by_the_callback():
    with pytest.raises(InputError, match=r"it held GPT2LMHeadModel\. Models in memory are followed by Memorization"):
        track([base_model()], UniformModel(V), MEMBERS)


@pytest.mark.parametrize("copied", [True, False])
def test_the_oracle_is_no_checkpoint(run, tmp_path, copied):
    folder = tmp_path / "finetune"
    shutil.copytree(run / "finetune", folder)
    shutil.copytree(run / "base", folder / "checkpoint-0")
    oracle = run / "base" if copied else folder / "checkpoint-0"
    with pytest.warns(SameModelWarning, match="checkpoint-0 is the oracle .*, or has its weights, and is left out"):
        found = track(folder, oracle, MEMBERS, UNSEEN, first_token=0, progress=False)
    assert found.steps.tolist() == STEPS
    assert "checkpoint-0: the oracle itself" in repr(found)
    with pytest.raises(InputError, match="is the only checkpoint"):
        track([folder / "checkpoint-0"], oracle, MEMBERS, UNSEEN, first_token=0, progress=False)


def test_warnings_come_once_a_kind(run):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = track(run / "finetune", UniformModel(V), MEMBERS, UNSEEN[:8], first_token=0, progress=False)
    kinds = [one.category.__name__ for one in said if issubclass(one.category, MeasurementWarning)]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {kind for pairs in found.settings["warnings"].values() for kind, _ in pairs}


# --- pictures


@pytest.mark.usefixtures("no_type_checker")
def test_the_heat_map_has_the_most_memorized_on_top(run):
    found = tracked(run)
    ax = found.plot(against="samples")
    shown = np.asarray(ax.images[0].get_array())
    assert shown.shape == (N, 3)
    assert (np.diff(shown[:, -1]) <= 0).all()
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels[0] == str(int(np.argmax(found.bits[-1])))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["20", "40", "100"]
    with pytest.raises(InputError, match='against must be "steps" or "samples"'):
        found.plot(against="time")


def test_the_lines_are_the_figures(run):
    found = tracked(run)
    ax = found.plot()
    table = found.to_pandas()
    for line, column in zip(ax.lines, ("mean_bits", "control_mean_bits"), strict=False):
        assert line.get_xdata().tolist() == STEPS
        assert line.get_ydata().tolist() == table[column].tolist()


def test_checkpoints_without_steps_stand_by_their_names(run, tmp_path):
    for name in ("early", "late"):
        shutil.copytree(run / "finetune" / f"checkpoint-{ {'early': 20, 'late': 100}[name] }", tmp_path / name)
        (tmp_path / name / "trainer_state.json").unlink()
    found = track([tmp_path / "late", tmp_path / "early"], run / "base", MEMBERS, first_token=0, progress=False)
    assert found.names == ("late", "early")
    assert np.isnan(found.steps).all()
    assert [tick.get_text() for tick in found.plot().get_xticklabels()] == ["late", "early"]
    found.save(tmp_path / "saved")
    assert np.isnan(load(tmp_path / "saved").steps).all()


# --- while it trains


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def test_training_goes_on_as_without_the_callback(run, tmp_path):
    plain = base_model()
    without = trainer_of(plain, tmp_path / "without", max_steps=12, save_steps=6)
    without.train()
    watched = base_model()
    watch = MemorizationCallback(run / "base", MEMBERS, UNSEEN, every=5, first_token=0)  # 10: a step that is logged
    with_it = trainer_of(watched, tmp_path / "with", max_steps=12, save_steps=6)
    watch.add_to(with_it)
    with_it.train()
    ours, theirs = weights_of(watched), weights_of(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert watch.result.steps.tolist() == [0, 5, 10, 12]

    def own(trainer):  # what the Trainer logs by itself is logged as ever
        return [(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row]

    assert own(with_it) == own(without)
    assert own(with_it)


@pytest.mark.usefixtures("no_type_checker")  # which draws random numbers of its own
def test_mode_gradients_and_random_states_are_left_alone(run, tmp_path):
    from transformers import TrainerControl, TrainerState

    model = base_model().train()
    model.transformer.h[0].eval()  # as somebody who freezes a block
    model(torch.tensor([MEMBERS[0]]), labels=torch.tensor([MEMBERS[0]])).loss.backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    watch = MemorizationCallback(run / "base", MEMBERS, every=1, first_token=0)
    state, control = TrainerState(is_world_process_zero=True), TrainerControl(should_log=True)
    watch.on_train_begin(None, state, control, model=model)
    state.global_step = 1
    watch.on_step_end(None, state, control, model=model)
    assert len(watch.result) == 2
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(weight.grad, old) for weight, old in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert control.should_log
    assert torch.is_grad_enabled()


def test_what_is_logged_is_the_trajectory(run, tmp_path):
    watch = MemorizationCallback(run / "base", MEMBERS, UNSEEN, every=20, first_token=0)
    trainer = trainer_of(base_model(), tmp_path / "run", [watch], max_steps=40)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "memorization/mean_bits" in row]
    table = watch.result.to_pandas()
    assert [row["step"] for row in rows] == table["step"].tolist() == [0, 20, 40]
    for column in ("mean_bits", "net_bits", "control_mean_bits"):
        assert [row[f"memorization/{column}"] for row in rows] == table[column].tolist()
    assert rows[-1]["memorization/n_memorized"] == N
    assert rows[-1]["epoch"] == 40
    # The same as the checkpoints that this training saved, but that it measured the start as well.
    after = track(tmp_path / "run", run / "base", MEMBERS, UNSEEN, first_token=0, progress=False)
    np.testing.assert_allclose(watch.result.bits[1:], after.bits, rtol=1e-6)
    watch.result.save(tmp_path / "watched")
    assert load(tmp_path / "watched").bits.tolist() == watch.result.bits.tolist()


def test_add_to_reaches_whatever_the_trainer_reports_to(run, tmp_path):
    from transformers import TrainerCallback

    heard = []

    class Reporter(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **others):
            heard.append((state.global_step, dict(logs)))

    trainer = trainer_of(base_model(), tmp_path / "run", [Reporter()], max_steps=10, save_steps=5)
    watch = MemorizationCallback(run / "base", MEMBERS, first_token=0).add_to(trainer)
    trainer.train()
    found = [(step, logs["memorization/mean_bits"]) for step, logs in heard if "memorization/mean_bits" in logs]
    assert [step for step, _ in found] == watch.result.steps.tolist() == [0, 5, 10]  # at each save
    assert [bits for _, bits in found] == watch.result.to_pandas()["mean_bits"].tolist()
    assert any("loss" in logs and step == 10 for step, logs in heard)
    assert not any("net_bits" in name for _, logs in heard for name in logs)  # unknown without a control


def test_a_training_that_is_resumed_goes_on(run, tmp_path):
    watch = MemorizationCallback(run / "base", MEMBERS, every=5, first_token=0)
    trainer_of(base_model(), tmp_path / "run", [watch], max_steps=10, save_steps=5).train()
    assert watch.result.steps.tolist() == [0, 5, 10]
    again = trainer_of(base_model(), tmp_path / "run", [watch], max_steps=15, save_steps=5)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    assert watch.result.steps.tolist() == [0, 5, 10, 15]
    trainer_of(base_model(), tmp_path / "new", [watch], max_steps=5, save_steps=5).train()
    assert watch.result.steps.tolist() == [0, 5]


def test_the_start_is_the_oracle_and_nobody_is_warned_of_it(run, tmp_path):
    watch = MemorizationCallback(run / "base", MEMBERS, UNSEEN, every=5, first_token=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SameModelWarning)
        trainer_of(base_model(), tmp_path / "run", [watch], max_steps=5).train()
    assert watch.result.bits[0].tolist() == [0.0] * N


def test_lengths_are_an_oracle_for_the_callback(run, tmp_path):
    first = unintended_memorization(
        UniformModel(V), run / "base", MEMBERS, control=UNSEEN, first_token=0, progress=False
    )
    lengths = (first.oracle, first.control.oracle)
    assert all(isinstance(one, CodeLengths) for one in lengths)
    watch = MemorizationCallback(lengths, MEMBERS, UNSEEN, every=5, first_token=0)
    trainer_of(base_model(), tmp_path / "run", [watch], max_steps=5).train()
    other = MemorizationCallback(run / "base", MEMBERS, UNSEEN, every=5, first_token=0)
    trainer_of(base_model(), tmp_path / "other", [other], max_steps=5).train()
    np.testing.assert_array_equal(watch.result.bits, other.result.bits)


@pytest.mark.usefixtures("no_type_checker")
def test_what_the_callback_refuses(run):
    with pytest.raises(InputError, match="every must be"):
        MemorizationCallback(run / "base", MEMBERS, every=0)
    with pytest.raises(InputError, match="sample 0 is also control sample 0"):
        MemorizationCallback(run / "base", MEMBERS, MEMBERS)
    with pytest.raises(InputError, match="joint must be"):
        MemorizationCallback(run / "base", MEMBERS, joint="min")  # type: ignore[arg-type]
    watch = MemorizationCallback(run / "base", MEMBERS)
    with pytest.raises(InputError, match="no checkpoint has been measured"):
        _ = watch.result
    spread = type("Arguments", (), {"fsdp": ["full_shard"]})()
    with pytest.raises(InputError, match=r"FSDP spreads it over all\. Save checkpoints, and measure them with track"):
        watch.on_train_begin(spread, None, None)
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        _ = watch.no_such_thing
    assert watch.on_event_of_another_version(None, None, None) is None


# --- the command


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    found = {}
    for name, rows in (("data", MEMBERS), ("control", UNSEEN)):
        found[name] = tmp_path / f"{name}.jsonl"
        found[name].write_text("".join(json.dumps({"text": ids}) + "\n" for ids in rows))
    return found


def test_the_command_measures_and_goes_on(own, files, tmp_path, capsys, measured):
    output = tmp_path / "track"
    arguments = [
        *("track", "--run", own / "finetune", "--oracle", own / "base", "--data", files["data"]),
        *("--control", files["control"], "--output", output, "--first-token", 0, "--quiet"),
    ]
    assert command(*arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Trajectory of 3 checkpoints: memU of 24 samples, 48 unseen ones beside them")
    assert {"trajectory.parquet", "samples.parquet", "trajectory.png", "trajectory_samples.svg"} <= set(
        os.listdir(output)
    )
    np.testing.assert_array_equal(load(output).bits, tracked(own).bits)
    measured.clear()
    shutil.copytree(own / "finetune" / "checkpoint-40", own / "finetune" / "checkpoint-41")
    (own / "finetune" / "checkpoint-41" / "trainer_state.json").unlink()
    assert command(*arguments) == 0
    assert measured == ["checkpoint-41"]
    assert load(output).steps.tolist() == [20, 40, 41, 100]
    assert command(*arguments, "--limit", 20) == 2
    assert "measured with other samples and control" in capsys.readouterr().err
    assert command(*arguments, "--limit", 20, "--overwrite") == 0
    assert load(output).bits.shape == (4, 20)


def test_the_command_speaks_of_options(own, files, tmp_path, capsys):
    rest = ["--oracle", own / "base", "--data", files["data"], "--output", tmp_path / "track"]
    assert command("track", *rest) == 2
    assert "name the checkpoints by --run, or by --target, several times; one of the two" in capsys.readouterr().err
    assert command("track", *rest, "--run", "nowhere", "--target", "a") == 2
    assert "one of the two" in capsys.readouterr().err
    assert command("track", *rest, "--run", own / "base") == 2
    assert "looked for folders checkpoint-N in it; it is itself a model" in capsys.readouterr().err
    assert command("track", *rest, "--run", "no/*/thing") == 2
    assert "--run 'no/*/thing' matches nothing" in capsys.readouterr().err
    named = [("--target", own / "finetune" / f"checkpoint-{step}") for step in (40, 20)]
    assert command("track", *rest, *named[0], *named[1], "--first-token", 0, "--quiet") == 0
    assert load(tmp_path / "track").steps.tolist() == [20, 40]
