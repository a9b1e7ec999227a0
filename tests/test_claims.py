"""Claims: of all who want the same work at the same time one has it, until it ends, dies or falls silent."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from memorization.results import Claims, claims


class Simple(MemoryFileSystem):
    """A file system that knows no exclusive writing."""

    protocol = "simple"
    store, pseudo_dirs = {}, [""]

    def pipe_file(self, path, value):
        super().pipe_file(path, value)


@pytest.fixture(params=["folder", "memory", "simple"])
def shared(request, tmp_path):
    """File system and root."""
    if request.param == "folder":
        return fsspec.filesystem("file"), str(tmp_path / "deep" / "claims")
    files = fsspec.filesystem("memory") if request.param == "memory" else Simple()
    return files, f"/{uuid.uuid4().hex}"


def two(shared, **options):
    return Claims(*shared, **options), Claims(*shared, **options)


def left_in(shared):
    files, root = shared
    return [path for path in files.find(root) if files.isfile(path)]


def test_one_of_two_has_it_and_then_the_other(shared):
    ours, theirs = two(shared)
    assert theirs.holder("a") is None
    with ours.hold("a") as mine, theirs.hold("a") as also, theirs.hold("b") as other:
        assert (mine, also, other) == (True, False, True)
        assert theirs.holder("a").endswith(f", process {os.getpid()}")
    with theirs.hold("a") as mine:
        assert mine
    assert not left_in(shared)


def test_one_process_does_not_have_the_same_work_twice(shared):
    ours = Claims(*shared)
    with ours.hold("a") as mine, ours.hold("a") as again:
        assert (mine, again) == (True, False)
    with ours.hold("a") as mine:
        assert mine


def test_all_or_nothing(shared):
    ours, theirs = two(shared)
    with ours.hold("b") as mine, theirs.hold("c", "b", "a") as all_of_them:
        assert (mine, all_of_them) == (True, False)
        assert ours.holder("a") is not None  # held until the block ends, by one order for all
    with theirs.hold("c", "b", "a", "a") as all_of_them, ours.hold("c") as mine:
        assert (all_of_them, mine) == (True, False)
    with ours.hold() as nothing:
        assert nothing
    assert not left_in(shared)


def test_an_error_sets_the_work_free(shared):
    ours, theirs = two(shared)
    with pytest.raises(ZeroDivisionError), ours.hold("a"):
        raise ZeroDivisionError
    with theirs.hold("a") as mine:
        assert mine


@pytest.mark.parametrize("pair", [("x/y", "x_y"), ("a" * 300, "a" * 299 + "b"), ("ä", "ö"), ("", "_")])
def test_names_that_differ_are_different_work(shared, pair):
    ours, theirs = two(shared)
    with ours.hold(pair[0]) as mine, theirs.hold(pair[1]) as other:
        assert (mine, other) == (True, True)


def fall_silent(ours: Claims) -> None:
    """As a machine does that is switched off: nothing is renewed or released any more, and its process is unknown here."""
    ours._none_held.set()


def silent_claim(shared, monkeypatch, name="a", seconds=0.3):
    """A claim of another machine that is never renewed."""
    with monkeypatch.context() as patch:
        patch.setattr(claims, "_system", lambda: "another machine")
        ours = Claims(*shared, seconds=seconds)
        hold = ours.hold(name)
        assert hold.__enter__()
        fall_silent(ours)
    return hold


def test_a_claim_that_is_not_renewed_goes_stale_as_watched(shared, monkeypatch):
    """Not as its clock says: who has just come waits the whole time."""
    hold = silent_claim(shared, monkeypatch)
    time.sleep(0.4)
    theirs = Claims(*shared, seconds=0.3)
    with theirs.hold("a") as mine:
        assert not mine
    time.sleep(0.4)
    assert theirs.holder("a") is None
    with theirs.hold("a") as mine:
        assert mine
        # Whoever was silent finds itself replaced, and leaves the claim of the other alone.
        hold.__exit__(None, None, None)
        with Claims(*shared, seconds=0.3).hold("a") as third:
            assert not third
    assert not left_in(shared)


def test_a_claim_that_is_renewed_does_not(tmp_path):
    ours, theirs = two((fsspec.filesystem("file"), str(tmp_path)), seconds=1.0)
    with ours.hold("a"):
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            with theirs.hold("a") as mine:
                assert not mine
            time.sleep(0.02)


def test_of_many_who_find_a_claim_stale_one_has_it(tmp_path, monkeypatch):
    """Each with its own watch, all at the same instant, again and again."""
    shared = fsspec.filesystem("file"), str(tmp_path)
    silent = []
    for turn in range(20):
        silent.append(silent_claim(shared, monkeypatch, f"{turn}", seconds=0.02))
        everybody = [Claims(*shared, seconds=0.02) for _ in range(8)]
        for one in everybody:
            assert one.holder(f"{turn}") is not None
        time.sleep(0.05)
        together, both = threading.Barrier(8), threading.Barrier(8)

        def take(one, name=f"{turn}", together=together, both=both):
            together.wait(30)
            with one.hold(name) as mine:
                both.wait(30)
                return mine

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(take, everybody)) == 1


def test_of_many_who_come_at_once_one_has_it(tmp_path):
    shared = fsspec.filesystem("file"), str(tmp_path)
    for turn in range(20):
        together, both = threading.Barrier(8), threading.Barrier(8)

        def take(one, name=f"{turn}", together=together, both=both):
            together.wait(30)
            with one.hold(name) as mine:
                both.wait(30)
                return mine

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(take, [Claims(*shared) for _ in range(8)])) == 1


HOLD = """
import sys, time, fsspec
from memorization.results import Claims
with Claims(fsspec.filesystem("file"), sys.argv[1]).hold("a") as mine:
    print(mine, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_process_that_was_killed_here_has_nothing_any_more(tmp_path):
    """At once, whatever the time-out; and not before."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "True\n"
            ours = Claims(fsspec.filesystem("file"), str(tmp_path))
            assert ours.holder("a").endswith(f", process {other.pid}")
            with ours.hold("a") as mine:
                assert not mine
        finally:
            os.kill(other.pid, signal.SIGKILL)
    with ours.hold("a") as mine:
        assert mine
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"system": "another boot"}, {"system": None}, {"pid": None}])
def test_processes_of_elsewhere_are_not_looked_up(tmp_path, change):
    """The number of a process of another machine says nothing here, nor does one of which nothing is known."""
    shared = fsspec.filesystem("file"), str(tmp_path)
    ours, theirs = two(shared)
    with ours.hold("a"):
        (file,) = tmp_path.iterdir()
        who = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**who, "began": "1", **change}), encoding="utf-8")
        with theirs.hold("a") as mine:
            assert not mine
        file.write_text(json.dumps({**who, "began": "1"}), encoding="utf-8")  # its number is another process's now
        with theirs.hold("a") as mine:
            assert mine is Path("/proc/self/stat").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"3", b'{"host": "h'])
def test_a_half_written_claim_is_one(tmp_path, content):
    shared = fsspec.filesystem("file"), str(tmp_path)
    ours, theirs = two(shared, seconds=0.3)
    with ours.hold("a"):
        fall_silent(ours)
        (file,) = tmp_path.iterdir()
        file.write_bytes(content)
        assert theirs.holder("a") is not None
        time.sleep(0.4)
        with theirs.hold("a") as mine:  # of who died while writing it
            assert mine
