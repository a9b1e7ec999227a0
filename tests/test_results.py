"""Results as folders: old ones load, what is saved comes back, and whatever happens to a folder, numbers are never mixed."""

import contextlib
import dataclasses
import functools
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from saved_folders import as_saved_by_0_1_0

import memorization
from memorization import (
    Capacity,
    CapacityComparison,
    CodeLengths,
    Extraction,
    Memorization,
    Quickstart,
    TextSweep,
    UniformModel,
    compress_bits,
    fit_capacity,
    load,
    unintended_memorization,
)
from memorization.errors import InputError, MeasurementWarning, ResultError
from memorization.report.draw import PICTURES
from memorization.results import KINDS, ReadOnly, Result, plain
from memorization.results.kinds import DRAWN
from memorization.stats.levels import Interval
from memorization.tracking.reading import read
from memorization.tracking.result import trajectory_of

OLD = Path(__file__).parent / "fixtures" / "results_0_1_0"
NUMBERS = json.loads((OLD / "numbers.json").read_text(encoding="utf-8"))
PROJECT = Path(memorization.__file__).parents[1]


def quickstart() -> Quickstart:
    members = Memorization.load(OLD / "Memorization_with_control")
    paths = [Path(name) for name in ("target", "oracle", "members.jsonl", "heldout.jsonl")]
    return Quickstart(members, *paths, command="memorization measure", reused=("target",), seconds=1.5)


def one_of(name: str) -> Result:
    if name == "CapacityComparison":
        one = load(OLD / "Capacity_of_one_size")
        assert isinstance(one, Capacity)
        return CapacityComparison({"mine": one, "GPT-2": one}, {"mine": "GPT-2", "GPT-2": "GPT-2"})
    if name == "Audit":
        return an_audit()
    if name == "Trajectory":
        return a_trajectory()
    return quickstart() if name == "Quickstart" else load(OLD / name)


@functools.cache
def an_audit() -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        known, unseen = torch.arange(600).reshape(30, 20) % 16, torch.arange(0, 1800, 3).reshape(30, 20) % 16
        options = {"fail_on": ["extracted > 0"], "progress": False}
        return memorization.audit(bigram(0), UniformModel(16), known, unseen, **options)


@functools.cache
def a_trajectory() -> Result:
    found = [Memorization.load(OLD / "Memorization_with_control")] * 2
    return trajectory_of([read(one, f"checkpoint-{k}", float(k)) for k, one in enumerate(found)], found[0])


NAMES = [*NUMBERS, "Audit", "Trajectory", "Quickstart", "CapacityComparison"]


def bigram(seed: int):
    table = torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)) * 2
    return lambda ids: table[ids]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fields_of(value: object) -> object:
    """Numbers of a result by its fields, as the fixture's script wrote them."""
    if dataclasses.is_dataclass(value):
        named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: plain(one) if name == "settings" else fields_of(one) for name, one in named.items()}
    if isinstance(value, pd.DataFrame):
        return {name: plain([None if one is pd.NA else one for one in value[name].tolist()]) for name in value}
    if isinstance(value, dict):
        return {str(key): fields_of(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray, float, int, str, np.generic, Path)) or value is None:
        return plain(value)
    return type(value).__name__


def assert_equal_numbers(ours: object, theirs: object, where: str = "") -> None:
    """All that stands in `ours` stands in `theirs`, number by number."""
    if isinstance(ours, dict):
        assert set(ours) <= set(theirs), where
        for key in ours:
            assert_equal_numbers(ours[key], theirs[key], f"{where}/{key}")
    elif where.rsplit("/", 1)[-1] in ("mem_bits", "intended_bits"):  # kept as a difference, and added again
        np.testing.assert_allclose(theirs, ours, rtol=1e-12, atol=1e-12, err_msg=where)
    else:
        assert ours == theirs, where


# --- What version 0.1.0 saved


@pytest.mark.parametrize("name", NUMBERS)
def test_a_folder_of_0_1_0_loads_with_equal_numbers(name):
    found = load(OLD / name)
    assert type(found).__name__ == NUMBERS[name]["kind"]
    fields = dict(NUMBERS[name]["fields"])
    if fields.get("control"):  # what 0.1.0 called net is the gap; intervals are not saved, and made otherwise since
        made = ("net_interval", "mean_interval")
        fields["control"] = {key: value for key, value in fields["control"].items() if key not in made}
        fields["control"]["gap_bits"] = fields["control"].pop("net_bits")
    assert_equal_numbers(fields, fields_of(found))
    made = ("low", "high") if name == "DoseResponse" else ()
    table = {key: value for key, value in NUMBERS[name]["table"].items() if key not in made}
    today = found.to_pandas()
    if "metric" in today:  # 0.1.0 had no such row, and its scores do not say which samples are of one document
        unknown = today["metric"] == "auc_p_value"
        assert today.loc[unknown, "value"].isna().all()
        today = today[~unknown].reset_index(drop=True)
    assert_equal_numbers(table, fields_of(today))
    assert type(found).load(OLD / name).settings == found.settings


def test_every_kind_has_a_folder_of_0_1_0_or_is_newer_and_a_picture():
    drawn = set(PICTURES) - {"Ladder", "TokenBits"}  # worked out from a saved result, not saved itself
    assert (
        {one["kind"] for one in NUMBERS.values()}
        | {"Audit", "Quickstart", "IdentifierAudit", "CapacityComparison", "SpanMemorization", "Trajectory"}
        == set(KINDS)
        == drawn
    )


@pytest.mark.parametrize("name", NUMBERS)
def test_saving_over_a_folder_of_0_1_0_leaves_nothing_of_it(name, tmp_path):
    shutil.copytree(OLD / name, tmp_path / "there")
    (tmp_path / "there" / "picture.png").write_bytes(b"a picture")
    of_other_files = "MIScalingLaw_published" if name.startswith("Capacity") else "Capacity_of_one_size"
    one_of(of_other_files).save(tmp_path / "there", overwrite=True)
    one_of(of_other_files).save(tmp_path / "alone")
    kept = {"picture.png", *files_of(tmp_path / "alone")}
    assert set(files_of(tmp_path / "there")) == kept
    assert {path.name for path in (tmp_path / "there").iterdir()} == kept


def test_of_an_old_result_no_picture_and_no_report_is_left_in_its_parts_either(tmp_path):
    one_of("Memorization_with_control").save(tmp_path / "out")
    parts = [path.parent for path in (tmp_path / "out").rglob("settings.json")]
    assert len(parts) > 3  # the models' code lengths are parts of it
    for part in parts:
        for name in (*sorted(DRAWN), "mine.png"):
            (part / name).write_bytes(b"of the old result")
    one_of("Capacity_of_one_size").save(tmp_path / "out", overwrite=True)
    one_of("Capacity_of_one_size").save(tmp_path / "alone")
    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    mine = {(part / "mine.png").relative_to(tmp_path / "out").as_posix() for part in parts}
    assert left == mine | set(files_of(tmp_path / "alone"))


def test_the_same_result_again_leaves_no_picture_either(tmp_path):
    found = one_of("Memorization_with_control")
    found.save(tmp_path)
    saved = files_of(tmp_path)
    for name in ("memorization.svg", "report.html", "target/code_lengths.png", "control/target/code_lengths.pdf"):
        (tmp_path / name).write_bytes(b"of the old result")
    found.save(tmp_path, overwrite=True)
    assert files_of(tmp_path) == saved


def test_pictures_in_a_folder_without_a_result_are_not_of_an_old_one(tmp_path):
    (tmp_path / "roc.png").write_bytes(b"drawn for something else")
    one_of("Capacity_of_one_size").save(tmp_path)
    assert (tmp_path / "roc.png").is_file()


# --- Saved and loaded

ODD = {
    "numpy_integer": np.int64(3),
    "numpy_float": np.float32(0.5),
    "numpy_bool": np.bool_(True),
    "unknown": math.nan,
    "endless": -math.inf,
    "pair": (1, math.nan),
    "array": np.arange(3),
    "by_number": {0.5: np.float64(math.nan)},
    "path": Path("some/where"),
    "dtype": torch.float32,
}


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", NAMES)
def test_save_load_save_is_the_identity(name, tmp_path):
    result = one_of(name)
    if name != "Quickstart":
        result = dataclasses.replace(result, settings={**result.settings, "odd": ODD})
    result.save(tmp_path / "one")
    back = type(result).load(tmp_path / "one")
    back.save(str(tmp_path / "two"))
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one == two
    assert not [path for path in one if "/." in f"/{path}"]
    assert_equal_numbers(fields_of(result), fields_of(back))
    assert_equal_numbers(fields_of(back), fields_of(load(tmp_path / "two")))
    for path, content in one.items():
        if path.endswith(".json"):
            json.loads(content, parse_constant=refuse)
    content = json.loads(one["settings.json"])
    assert (content["kind"], content["format"]) == (type(result).__name__, 2)


def test_what_is_not_known_is_null_in_json_and_nan_in_memory(tmp_path):
    result = dataclasses.replace(fit_capacity([1000], [3600.0]), gain_per_doubling=math.nan, bias=math.inf)
    result.save(tmp_path)
    saved = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    assert saved["gain_per_doubling"] is saved["bias"] is None
    assert saved["interval"] == [None, None]
    back = Capacity.load(tmp_path)
    assert all(math.isnan(one) for one in (back.gain_per_doubling, back.bias, *back.interval))


def test_a_measurement_with_numpy_options_is_saved(tmp_path, no_type_checker):
    found = compress_bits(UniformModel(16), [[1, 2, 3]], batch_size=np.int64(2), progress=False)
    found = dataclasses.replace(found, settings={**found.settings, "batch_size": np.int64(2)})
    found.save(tmp_path)
    assert load(tmp_path).settings["batch_size"] == 2


def test_settings_in_memory_are_those_on_disk(tmp_path):
    found = unintended_memorization(bigram(0), bigram(1), [[1, 2, 3], [4, 5, 6]], progress=False)
    found.save(tmp_path)
    saved = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert set(saved) - {"kind", "format", "digests"} == set(found.settings) == set(summary["settings"])
    for role in ("target", "oracle"):
        assert found.settings[role] == getattr(found, role).settings == saved[role] == summary["settings"][role]
    old = Memorization.load(OLD / "Memorization")  # which had them in summary.json alone
    assert old.settings["oracle"] == old.oracle.settings


def test_tokens_of_an_extraction_join_its_samples(tmp_path):
    one_of("Extraction").save(tmp_path)
    tokens, samples = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("tokens", "samples"))
    joined = tokens.merge(samples, on=["member", "sample"], validate="many_to_one")
    assert len(joined) == len(tokens)
    wrong = joined[~joined["correct"]].groupby(["member", "sample"])["position"].max() + 1
    needed = samples.set_index(["member", "sample"])["prefix_needed"]
    assert (wrong.reindex(needed.index).fillna(0) == needed).all()


# --- Folders that hold something


def test_a_saved_result_is_not_overwritten_in_silence(tmp_path):
    one_of("Capacity").save(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(
        ResultError, match=r"holds a saved result.*: pass overwrite=True to replace it, or another folder"
    ):
        one_of("CodeLengths").save(tmp_path, overwrite=False)
    assert files_of(tmp_path) == before
    with pytest.warns(FutureWarning, match=r"the Capacity that .* holds is replaced"):
        one_of("CodeLengths").save(tmp_path)
    assert set(files_of(tmp_path)) == {"settings.json", "samples.parquet", "tokens.parquet"}


def test_what_belongs_to_no_result_stays(tmp_path):
    with_control, without = one_of("Memorization_with_control"), one_of("Memorization")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "samples.parquet").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with_control.save(tmp_path)
    (tmp_path / "control" / "notes.txt").write_text("mine")
    without.save(tmp_path, overwrite=True)
    assert load(tmp_path).control is None
    left = files_of(tmp_path / "control")
    assert set(left) == {"notes.txt"}
    assert (tmp_path / "runs" / "samples.parquet").read_text() == (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "control" / "notes.txt").unlink()
    with_control.save(tmp_path, overwrite=True)
    without.save(tmp_path, overwrite=True)
    assert not (tmp_path / "control").exists()


def test_a_tokenizer_of_an_earlier_sweep_is_not_read(tmp_path):
    sweep = one_of("TextSweep")
    assert sweep.tokenizer is not None
    sweep.save(tmp_path)
    assert TextSweep.load(tmp_path).tokenizer.decode([5, 6]) == sweep.tokenizer.decode([5, 6])
    dataclasses.replace(sweep, tokenizer=None).save(tmp_path, overwrite=True)
    assert TextSweep.load(tmp_path).tokenizer is None
    assert not (tmp_path / "tokenizer").exists()


@pytest.mark.parametrize("content", ['{"editor.tabSize": 2}', "[1]"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_settings_of_another_program_are_never_overwritten(tmp_path, content, overwrite):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ResultError, match="another folder"):
        one_of("Capacity").save(tmp_path, overwrite=overwrite)
    assert files_of(tmp_path) == {"settings.json": content.encode()}


def test_settings_cut_short_may_be_overwritten(tmp_path):
    (tmp_path / "settings.json").write_text('{"kind": "Capa')
    one_of("Capacity").save(tmp_path, overwrite=True)
    assert isinstance(load(tmp_path), Capacity)


@pytest.mark.parametrize("name", ["../mine.parquet", "a/../../mine.parquet", "{absolute}", "./settings.json"])
def test_overwriting_removes_nothing_outside_whatever_the_old_settings_say(tmp_path, name):
    mine = tmp_path / "mine.parquet"
    mine.write_text("mine")
    one_of("Capacity").save(tmp_path / "out")
    settings = tmp_path / "out" / "settings.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    content["digests"][name.format(absolute=mine)] = "0" * 64
    settings.write_text(json.dumps(content), encoding="utf-8")
    one_of("CodeLengths").save(tmp_path / "out", overwrite=True)
    assert mine.read_text() == "mine"
    assert isinstance(load(tmp_path / "out"), CodeLengths)


def test_a_save_that_fails_leaves_the_old_result_and_nothing_else(tmp_path):
    one_of("Capacity").save(tmp_path)
    before = files_of(tmp_path)
    broken = dataclasses.replace(one_of("Memorization"), control=one_of("Memorization_with_control").control)
    object.__setattr__(broken.control.oracle, "token_ids", np.zeros(3, dtype=np.int64))  # a table that cannot be made
    with pytest.raises(ValueError, match="same length"):
        broken.save(tmp_path, overwrite=True)
    assert files_of(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == set(before)


# --- Mixed, torn, swapped


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_result_is_refused_by_name(name, tmp_path):
    """Each file in its turn, as it would lie there had another result been saved."""
    one_of(name).save(tmp_path / "whole")
    for file in files_of(tmp_path / "whole"):
        if file in ("settings.json", "summary.json", "members/summary.json"):
            continue
        folder = tmp_path / "mixed"
        shutil.copytree(tmp_path / "whole", folder)
        path = folder / file
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            pd.concat([table, table.iloc[:1]]).to_parquet(path, index=False)
        else:
            path.write_bytes(path.read_bytes().replace(b"1", b"2", 1) + b"\n")
        with pytest.raises(ResultError, match=r"is not the file that .*settings\.json was saved with") as error:
            load(folder)
        assert file in str(error.value)
        shutil.rmtree(folder)


@pytest.mark.parametrize("old_format", [False, True])
def test_the_oracle_of_other_samples_is_refused(tmp_path, old_format):
    found = unintended_memorization(bigram(0), bigram(1), [[1, 2, 3], [4, 5, 6]], progress=False)
    found.save(tmp_path / "r")
    if old_format:
        as_saved_by_0_1_0(tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "oracle")
    compress_bits(UniformModel(16), [[9, 9, 9], [8, 8, 8]], progress=False).save(tmp_path / "r" / "oracle")
    with pytest.raises(ResultError, match="oracle"):
        load(tmp_path / "r")
    assert isinstance(load(tmp_path / "r" / "oracle"), CodeLengths)  # by itself it is sound


def test_tables_of_one_measurement_and_settings_of_another_are_refused(tmp_path):
    for name, ids in (("one", [[1, 2, 3], [4, 5, 6]]), ("other", [[7, 7, 7], [8, 8, 8]])):
        compress_bits(UniformModel(16), ids, progress=False).save(tmp_path / name)
    for table in ("samples", "tokens"):
        shutil.copy(tmp_path / "other" / f"{table}.parquet", tmp_path / "one" / f"{table}.parquet")
    with pytest.raises(ResultError, match=r"samples\.parquet|tokens\.parquet"):
        CodeLengths.load(tmp_path / "one")


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
import memorization

old, new, folder = map(Path, sys.argv[1:])
before, after = memorization.load(old), memorization.load(new)
before.save(folder / "warm"); after.save(folder / "warm", overwrite=True)
text = {"old": repr(before) + str(before.to_pandas().sum().to_dict()), "new": repr(after) + str(after.to_pandas().sum().to_dict())}
STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
seen, step, names = [], 0, set()
while True:
    there = folder / "there"
    shutil.rmtree(there, ignore_errors=True)
    before.save(there)
    child = os.fork()
    if child == 0:
        left = step
        def die(event, args):
            global left
            if event in STEPS and str(there) in str(args[0]):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
        sys.addaudithook(die)
        after.save(there, overwrite=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = memorization.load(there)
    found = repr(found) + str(found.to_pandas().sum().to_dict())
    seen.append(next((name for name, one in text.items() if one == found), "mixed"))
    after.save(there, overwrite=True)  # goes through whatever was left
    again = memorization.load(there)
    assert repr(again) + str(again.to_pandas().sum().to_dict()) == text["new"]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    step += 1
print(json.dumps(seen))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("old", "new"),
    [("Memorization_with_control", "Memorization"), ("Capacity", "TextSweep")],
)
def test_killed_at_any_moment_of_an_overwrite_the_old_result_or_the_new_one_is_there(old, new, tmp_path):
    """kill -9 of a real process, before each of its steps in the folder in turn."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, OLD / old, OLD / new, tmp_path], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen) > 15
    first_new = seen.index("new")
    assert set(seen[:first_new]) == {"old"}
    assert set(seen[first_new:]) == {"new"}
    assert len(seen) - first_new > 4  # killed after settings.json, too, while files still waited


SAVERS = """
import sys
import warnings
from pathlib import Path
import memorization

result, folder = memorization.load(sys.argv[1]), Path(sys.argv[2])
lost = 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    try:
        result.save(folder, overwrite=True)
    except memorization.errors.ResultError:
        lost += 1
print(lost, flush=True)
"""


def test_two_processes_that_save_into_one_folder_never_mix(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    names = ["Memorization_with_control", "Memorization"]
    texts = {repr(load(OLD / name)) for name in names}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAVERS, OLD / name, tmp_path / "there"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in names
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    while any(process.poll() is None for process in processes):
        with contextlib.suppress(ResultError):  # refused, which is allowed while others write
            assert repr(load(tmp_path / "there")) in texts
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-2000:]
    with contextlib.suppress(ResultError):  # both at once: then the folder is refused, until somebody saves again
        assert repr(load(tmp_path / "there")) in texts
    one_of("Memorization").save(tmp_path / "there", overwrite=True)
    assert repr(load(tmp_path / "there")) == repr(one_of("Memorization"))


def test_a_folder_that_another_process_removes_while_it_is_empty_is_made_again(tmp_path, monkeypatch):
    make, removed = Path.mkdir, []

    def made_and_removed(path, *args, **options):
        make(path, *args, **options)
        if path.name == "control" and len(removed) < 3:
            path.rmdir()
            removed.append(path)

    monkeypatch.setattr(Path, "mkdir", made_and_removed)
    result = load(OLD / "Memorization_with_control")
    result.save(tmp_path / "there")
    assert len(removed) == 3
    assert repr(load(tmp_path / "there")) == repr(result)


# --- Found by kind


def test_load_says_what_is_there_and_where_to_look(tmp_path):
    one_of("Capacity").save(tmp_path / "results" / "capacity")
    with pytest.raises(ResultError, match=r"holds no saved result.*Did you mean .*results.capacity\?"):
        load(tmp_path / "results")
    with pytest.raises(ResultError, match=r"There is no such folder\. Did you mean .*results.capacity\?"):
        load(tmp_path / "results" / "capacitty")
    with pytest.raises(ResultError, match=r"holds a Capacity, not a CodeLengths.*memorization\.load or Capacity\.load"):
        CodeLengths.load(tmp_path / "results" / "capacity")
    settings = tmp_path / "results" / "capacity" / "settings.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps(content | {"kind": "Surprise"}), encoding="utf-8")
    with pytest.raises(
        ResultError, match="is of kind 'Surprise'; known are Audit, Capacity, CapacityComparison, CodeLengths"
    ):
        load(tmp_path / "results" / "capacity")
    settings.write_text(json.dumps(content | {"format": 3}), encoding="utf-8")
    with pytest.raises(
        ResultError, match=r"has format 3, a format that this version does not read \(it reads 1 and 2\)"
    ):
        load(tmp_path / "results" / "capacity")
    settings.write_text(json.dumps({"kind": "Capacity", "format": 2}), encoding="utf-8")
    with pytest.raises(ResultError, match="is damaged"):
        load(tmp_path / "results" / "capacity")


@pytest.mark.parametrize("name", NUMBERS)
def test_settings_that_lack_something_are_damage_not_a_crash(name, tmp_path):
    """Each key in its turn: the result loads without it, or is refused."""
    shutil.copytree(OLD / name, tmp_path / "there")
    settings = tmp_path / "there" / "settings.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    for key in content:
        for changed in ({k: v for k, v in content.items() if k != key}, {**content, key: 7}):
            settings.write_text(json.dumps(changed), encoding="utf-8")
            with contextlib.suppress(ResultError):
                load(tmp_path / "there")


# --- In memory


@pytest.mark.parametrize("name", NUMBERS)
def test_arrays_are_read_only_and_intervals_are_intervals(name):
    found = load(OLD / name)
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if isinstance(value, np.ndarray):
            assert not value.flags.writeable, field.name
        if field.name.endswith("interval"):
            assert all(isinstance(one, Interval) for one in (value.values() if isinstance(value, dict) else [value]))


def test_who_made_an_array_may_go_on_writing_to_it():
    bits = np.array([3600.0])
    found = dataclasses.replace(fit_capacity([1000], [3600.0]), capacity_bits=bits)
    assert np.shares_memory(found.capacity_bits, bits)
    bits[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        found.capacity_bits[0] = 2.0


def test_pairs_that_are_given_as_intervals_become_intervals():
    @dataclasses.dataclass(frozen=True, slots=True, eq=False)
    class Found(ReadOnly):
        interval: tuple[float, float]
        by_prefix_interval: dict[int, tuple[float, float]]

    found = Found((1.0, 2.0), {3: (0.0, 1.0)})
    assert f"{found.interval:.1f} {found.by_prefix_interval[3]:.0f}" == "[1.0, 2.0] [0, 1]"
    assert pickle.loads(pickle.dumps(load(OLD / "Capacity"))).interval == load(OLD / "Capacity").interval


def test_intervals_are_worked_out_once(monkeypatch):
    from memorization.unintended import means as place

    asked = []
    real = place.mean_interval
    monkeypatch.setattr(place, "mean_interval", lambda *args, **more: asked.append(1) or real(*args, **more))
    found = load(OLD / "Memorization_with_control")
    asked.clear()
    shown = repr(found), found.summary()
    assert len(asked) == 2  # memU, and signed
    assert (repr(found), found.summary()) == shown
    assert len(asked) == 2
    assert list(found.interval) == found.summary()["mean_interval"] == list(real(found.bits))
    assert load(OLD / "Memorization").interval == real(load(OLD / "Memorization").bits)


def test_samples_and_control_say_the_same_by_the_same_names():
    found = load(OLD / "Memorization_with_control")
    for side in (found, found.control):
        assert side.mean_bits == side.bits.mean()
        assert side.mean_signed_bits == side.signed_bits.mean()
        assert side.mean_bits in side.interval
        assert side.mean_signed_bits in side.signed_interval


def test_a_table_that_was_handed_out_can_be_changed_without_harm():
    found = load(OLD / "DoseResponse")
    table = found.to_pandas()
    table["mean_bits"] = 0.0
    assert (found.to_pandas()["mean_bits"] != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_every_result_draws_the_picture_of_its_name(name):
    import matplotlib.pyplot as plt

    drawn = one_of(name).plot()
    try:
        assert (drawn if hasattr(drawn, "savefig") else drawn.figure).axes
    finally:
        plt.close("all")


def test_a_sweep_does_not_draw_on_one_axes():
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    with pytest.raises(InputError, match="four pictures, which do not fit on one Axes"):
        one_of("TextSweep").plot(ax)
    plt.close(figure)


def test_extraction_without_held_out_samples_has_empty_ones():
    found = Extraction.load(OLD / "Extraction_without_heldout")
    assert len(found.heldout_correct) == 0
    assert found.rate(1).n_heldout == 0


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("name", [None, 5, b"folder", "x" * 300, "a\0b"])
def test_names_that_no_folder_can_have(name):
    result = compress_bits(UniformModel(16), [[1, 2]])
    for use in (result.save, CodeLengths.load, memorization.load):
        with pytest.raises(ResultError, match="folder"):
            use(name)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    result = compress_bits(UniformModel(16), [[1, 2]])
    for place in (tmp_path / "file", tmp_path / "file" / "deep" / "er"):
        with pytest.raises(ResultError, match="file is a file, so no folder can be made there"):
            result.save(place)
    assert (tmp_path / "file").read_text() == "kept"
