"""The store of a sweep: what was kept is found again, whole, and only by the experiment it belongs to."""

import gc
import json
import math
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorization.errors import ResultError
from memorization.lab.store import Store

EXPERIMENT = {"vocab_size": 128, "models": ["gpt2 8", "gpt2 16"], "rate": 0.05}
CELL = {"n_samples": 100, "seed": 0, "peak_lr": 0.05}
RESULT = {"memorized_bits": 0.1 + 0.2, "diverged_at": None}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(params=["folder", "memory"])
def place(request, tmp_path) -> str:
    return str(tmp_path / "deep" / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


def test_what_is_put_is_found_again_to_the_last_digit(place):
    store = Store(place, EXPERIMENT)
    assert store.get(CELL) is None
    store.put(CELL, RESULT)
    for again in (store, Store(place, EXPERIMENT), Store(place, dict(reversed(EXPERIMENT.items())))):
        assert again.get(CELL) == RESULT
        assert again.get(dict(reversed(CELL.items()))) == RESULT


@pytest.mark.parametrize("change", [{"seed": 1}, {"n_samples": 101}, {"peak_lr": 0.05000001}, {"steps": 750}])
def test_any_other_cell_is_another_one(place, change):
    store = Store(place, EXPERIMENT)
    store.put(CELL, RESULT)
    assert store.get({**CELL, **change}) is None
    store.put({**CELL, **change}, {"memorized_bits": 1.0})
    assert store.get(CELL) == RESULT


def test_a_result_can_be_replaced(place):
    store = Store(place, EXPERIMENT)
    store.put(CELL, RESULT)
    store.put(CELL, {"memorized_bits": 2.0})
    assert Store(place, EXPERIMENT).get(CELL) == {"memorized_bits": 2.0}


def test_a_decision_is_made_once(place):
    decided = iter([750, 90])
    assert Store(place, EXPERIMENT).once("first_steps", lambda: next(decided)) == 750
    store = Store(place, EXPERIMENT)
    assert store.once("first_steps", lambda: pytest.fail("decided again")) == 750
    assert store.once("batch", lambda: next(decided)) == 90


def test_a_decision_that_failed_is_not_kept(place):
    store = Store(place, EXPERIMENT)
    with pytest.raises(ZeroDivisionError):
        store.once("first_steps", lambda: 1 // 0)
    assert store.once("first_steps", lambda: 3) == 3


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ({**EXPERIMENT, "vocab_size": 64}, "another experiment: vocab_size is 128 there and 64 here; name another"),
        ({**EXPERIMENT, "models": ["gpt2 8"]}, r"models is \['gpt2 8', 'gpt2 16'\] there and \['gpt2 8'\] here;"),
        ({**EXPERIMENT, "dtype": "float32"}, "dtype is None there and 'float32' here;"),
        ({"vocab_size": 128, "models": ["gpt2 8", "gpt2 16"]}, "rate is 0.05 there and None here;"),
        ({"vocab_size": 1}, r"vocab_size is 128 there and 1 here \(models, rate differ too\); name another store"),
    ],
)
def test_another_experiment_is_refused_by_what_differs(place, experiment, message):
    Store(place, EXPERIMENT).put(CELL, RESULT)
    with pytest.raises(ResultError, match=message):
        Store(place, experiment)
    assert Store(place, EXPERIMENT).get(CELL) == RESULT


def test_tuples_and_lists_are_the_same_experiment(tmp_path):
    Store(tmp_path, {"sizes": (1, 2)}).put(CELL, RESULT)
    assert Store(tmp_path, {"sizes": [1, 2]}).get(CELL) == RESULT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no experiment that this version can read; name another store"),
        ("3", "holds no experiment that this version can read; name another store"),
        (
            '{"format": 1, "experiment": {}}',
            r"written by another version of this library \(format 1, and this one has 2\)",
        ),
        ('{"experiment": {}}', r"written by another version of this library \(format None"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, content, message):
    (tmp_path / "experiment.json").write_text(content, encoding="utf-8")
    with pytest.raises(ResultError, match=message):
        Store(tmp_path, EXPERIMENT)


@pytest.mark.parametrize("keep", [0, 40])
def test_a_damaged_file_is_named(tmp_path, keep):
    store = Store(tmp_path, EXPERIMENT)
    store.put(CELL, RESULT)
    (cell,) = (tmp_path / "cells").iterdir()
    cell.write_bytes(cell.read_bytes()[:keep])
    with pytest.raises(ResultError, match=f"{cell.name} is damaged .*; delete it, and it is measured again"):
        store.get(CELL)
    cell.unlink()
    assert store.get(CELL) is None


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"cell": {}, "result": []}'])
def test_a_file_that_is_json_and_no_result_is_damaged_too(tmp_path, content):
    store = Store(tmp_path, EXPERIMENT)
    store.put(CELL, RESULT)
    (cell,) = (tmp_path / "cells").iterdir()
    cell.write_text(content, encoding="utf-8")
    with pytest.raises(ResultError, match=rf"{cell.name} is damaged \(it holds no result\); delete it"):
        store.get(CELL)
    (tmp_path / "first_steps.json").write_text(content, encoding="utf-8")
    with pytest.raises(ResultError, match=r"first_steps.json is damaged \(it holds no first_steps\)"):
        store.once("first_steps", lambda: 3)


ANY = Store(None, EXPERIMENT)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=5), json_values, max_size=4),
    st.dictionaries(st.text(max_size=5), json_values, max_size=4),
)
def test_whatever_is_put_comes_back(cell, result):
    ANY.put(cell, result)
    assert ANY.get(cell) == result


def test_a_store_of_another_recipe_or_torch_says_how_to_go_on(tmp_path):
    of = {**EXPERIMENT, "recipe": 1, "torch": "2.9"}
    Store(tmp_path, of).put(CELL, RESULT)
    with pytest.raises(
        ResultError, match=r"torch is '2\.9' there and '2\.10' here\. Install torch 2\.9 to go on there"
    ):
        Store(tmp_path, {**of, "torch": "2.10"})
    with pytest.raises(ResultError, match=r"recipe is 1 there and 2 here\. .* the one that experiment\.json names"):
        Store(tmp_path, {**of, "recipe": 2})
    assert "torch" in json.loads((tmp_path / "experiment.json").read_text(encoding="utf-8"))["begun_with"]


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    """Nothing but finished files after a run; what a killed one left half-written, under any name it uses, is not read."""
    store = Store(tmp_path, EXPERIMENT)
    store.put(CELL, RESULT)
    store.once("first_steps", lambda: 3)
    kept = files(tmp_path)
    assert len(kept) == 3
    assert not [name for name in kept if not name.endswith(".json")]

    written = []
    monkeypatch.setattr(store._files, "mv", lambda old, new: written.append((Path(old), Path(new))))
    other = {**CELL, "seed": 1}
    store.put(other, RESULT)  # killed before the rename
    ((unfinished, final),) = written
    assert unfinished.exists()
    assert not final.exists()
    assert unfinished.parent == tmp_path  # of one file system with its goal, or renaming is not atomic
    unfinished.write_text(unfinished.read_text(encoding="utf-8")[:20], encoding="utf-8")
    again = Store(tmp_path, EXPERIMENT)
    assert again.get(other) is None
    assert again.get(CELL) == RESULT


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_only_finite_numbers_are_kept(tmp_path, number):
    store = Store(tmp_path, EXPERIMENT)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put(CELL, {"memorized_bits": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.get({**CELL, "peak_lr": number})
    assert files(tmp_path) == ["experiment.json"]


def test_a_file_says_which_cell_it_is(tmp_path):
    Store(tmp_path, EXPERIMENT).put(CELL, RESULT)
    (cell,) = (tmp_path / "cells").iterdir()
    assert json.loads(cell.read_text(encoding="utf-8")) == {"cell": CELL, "result": RESULT}


@pytest.mark.filterwarnings("error")
def test_without_a_place_nothing_stays():
    store = Store(None, EXPERIMENT)
    store.put(CELL, RESULT)
    assert store.get(CELL) == RESULT
    assert Store(None, EXPERIMENT).get(CELL) is None
    folder = Path(store._root)
    assert len(files(folder)) == 2
    del store
    gc.collect()
    assert not folder.exists()
