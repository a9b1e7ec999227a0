"""Claims: processes that share a folder agree on who does what, with no server and no lock that a crash leaves shut.

A claim is a small file that was created exclusively and is renewed by a thread while the work is done. One that has not
changed for a while is stale: whoever waits takes it over by creating, exclusively again, the file of the next number.
Nobody deletes a claim to take it over, so two that find one stale at once cannot both have it. Ages are watched and not
read: clocks of machines differ. On Linux a claim whose process ran on this machine and has ended is stale at once.

Locks of the operating system (as of the library filelock) would need none of this, but they exist on no object store,
and on a network folder only where its administrator switched them on.
"""

import inspect
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["CLAIM_SECONDS", "Claims"]

# Network folders may show another machine's change a minute late (the longest that NFS keeps a folder's entries).
CLAIM_SECONDS = 120.0
_RENEWALS = 6  # within that time


class Claims:
    """Claims of one process in a folder that it shares with others: who works on what.

    Args:
        files: an fsspec file system.
        root: the folder of the claims there, made when it is needed.
        seconds: a claim that was not renewed for so long is stale. The same for all who share the folder.

    Guarantees:
        While a claim is held and renewed, nobody else has it: on local and network folders, which create files
        exclusively, and on object stores whose fsspec class has `pipe_file(mode="create")` on the server's side (S3 by
        s3fs, Google Cloud Storage by gcsfs). Other file systems look before they write: two that start in the same
        instant may both have it. A process that was stopped for longer than `seconds` and goes on may find its work
        done by another. So whoever claims work writes its result in one step, and two equal results do no harm.

    Examples:
        >>> import fsspec
        >>> ours, theirs = (Claims(fsspec.filesystem("memory"), "/claims-example") for _ in range(2))
        >>> with ours.hold("shard 1") as mine, theirs.hold("shard 1") as also_theirs, theirs.hold("shard 2") as other:
        ...     mine, also_theirs, other
        (True, False, True)
    """

    def __init__(self, files: Any, root: str, seconds: float = CLAIM_SECONDS) -> None:
        self._files, self._root, self._seconds = files, root.rstrip("/"), seconds
        self._held: dict[str, bytes] = {}  # our files, and who we are in them
        self._seen: dict[str, tuple[bytes, float]] = {}  # others' files: content, and since when they have had it
        self._lock = threading.Lock()
        self._none_held = threading.Event()

    @contextmanager
    def hold(self, *names: str) -> Iterator[bool]:
        """Claim work for the time of the block, all of these names or none; True: it is ours.

        Look for the result after claiming, since another may just have finished; write it before the block ends, after
        which anybody may claim the work.

        Args:
            names: of the work: any text.
        """
        mine: list[str] = []
        try:
            # In one order for all, so that of two who want some of the same one gets all.
            for name in sorted(set(names)):
                path = self._take(name)
                if path is None:
                    break
                mine.append(path)
            yield len(mine) == len(set(names))
        finally:
            self._release(mine)

    def holder(self, name: str) -> str | None:
        """Who has claimed this, in words ("host-3, process 4711"); None where nobody has, or the claim is stale."""
        last = self._last(self._path(name))
        if last is None or self._is_stale(*last):
            return None
        return _in_words(last[1])

    def others(self) -> set[str]:
        """Who else is at work on anything here, in words."""
        self._files.invalidate_cache(self._root)
        try:
            files = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return set()
        paths = {f"{self._root}/{str(file).rpartition('/')[2].rpartition('.')[0]}" for file in files}
        found = [last for last in map(self._last, sorted(paths)) if last is not None and last[0] not in self._held]
        return {_in_words(content) for file, content in found if not self._is_stale(file, content)}

    def _path(self, name: str) -> str:
        safe = "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in name)
        # Names that differ in other signs alone stay apart.
        return f"{self._root}/{safe[:80]}-{uuid.uuid5(uuid.NAMESPACE_OID, name).hex[:12]}"

    def _take(self, name: str) -> str | None:
        path = self._path(name)
        last = self._last(path)
        if last is not None and not self._is_stale(*last):
            return None
        number = 0 if last is None else int(last[0].rpartition(".")[2]) + 1
        return self._create(f"{path}.{number}")

    def _last(self, path: str) -> tuple[str, bytes] | None:
        """The claim that counts, of those that were taken over one after another: its file and content."""
        found = None
        for number in range(10_000):  # so many processes never die at one piece of work
            try:
                found = f"{path}.{number}", self._files.cat_file(f"{path}.{number}")
            except FileNotFoundError:
                break
        return found

    def _is_stale(self, file: str, content: bytes) -> bool:
        before, since = self._seen.get(file, (None, 0.0))
        now = time.monotonic()
        if content != before:
            self._seen[file] = content, now
            return _is_gone(content)
        return now - since > self._seconds or _is_gone(content)

    def _create(self, file: str) -> str | None:
        content = json.dumps({**_who(), "claim": uuid.uuid4().hex}).encode()
        if not _create_exclusively(self._files, file, content):
            return None
        with self._lock:
            self._held[file] = content
            if len(self._held) == 1:
                self._none_held = threading.Event()
                threading.Thread(target=self._renew, args=(self._none_held,), daemon=True).start()
        return file

    def _renew(self, none_held: threading.Event) -> None:
        count = 0
        while not none_held.wait(self._seconds / _RENEWALS):
            count += 1
            with self._lock:
                for file, content in self._held.items():
                    # A file system that fails now may not the next time; else the claim goes stale, as it should.
                    with suppress(Exception):
                        self._files.pipe_file(file, content + b"\n" + str(count).encode())

    def _release(self, files: list[str]) -> None:
        with self._lock:
            for file in files:
                del self._held[file]
            if not self._held:
                self._none_held.set()
        for file in files:
            path, _, number = file.rpartition(".")
            last = self._last(path)
            # A claim that was taken over stays: without it another could have the same number as who took it.
            if last is not None and last[0] == file:
                for earlier in range(int(number) + 1):
                    with suppress(OSError):  # what cannot be deleted goes stale
                        self._files.rm_file(f"{path}.{earlier}")


def _create_exclusively(files: Any, file: str, content: bytes) -> bool:
    """Write a file that does not exist; False where it does."""
    if _is_local(files):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(file, "xb") as opened:
                opened.write(content)
        except FileExistsError:
            return False
        return True
    files.makedirs(file.rpartition("/")[0], exist_ok=True)
    options = {"mode": "create"} if "mode" in inspect.signature(files.pipe_file).parameters else {}
    if not options and files.exists(file):
        return False
    try:
        files.pipe_file(file, content, **options)
    except FileExistsError:
        return False
    return True


def _is_local(files: Any) -> bool:
    return "file" in ([files.protocol] if isinstance(files.protocol, str) else files.protocol)


def _who() -> dict[str, Any]:
    """This process, in its claims."""
    return {"host": socket.gethostname(), "system": _system(), "pid": os.getpid(), "began": _began(os.getpid())}


@cache
def _system() -> str | None:
    """What tells process numbers of this machine, and of this container, from those of others; None where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: numbers are used again. None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie has ended


def _read(content: bytes) -> dict[str, Any]:
    """The process that wrote this; empty where it is half-written."""
    try:
        found = json.loads(content.partition(b"\n")[0])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_gone(content: bytes) -> bool:
    """Whether a claim is of a process on this machine that has ended."""
    who = _read(content)
    known = who.get("system") is not None and who.get("began") is not None and isinstance(who.get("pid"), int)
    return known and who["system"] == _system() and _began(who["pid"]) != who["began"]


def _in_words(content: bytes) -> str:
    who = _read(content)
    return f"{who.get('host', 'another machine')}, process {who.get('pid', 'unknown')}"
