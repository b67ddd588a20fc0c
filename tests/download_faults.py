"""What becomes of the data set when something stops a download: faults by their number.

``python -m tests.download_faults 1000`` tries so many, each on a machine without the data, and
counts what came of them. Small files stand for the published ones, a server of this process for
torchvision's mirror. After the fault comes a start without one, which must have the whole data set.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest
from torchvision.datasets import FashionMNIST
from torchvision.datasets import utils as torchvision_utils

from ninlab import data_files
from ninlab.data_files import IdxFile
from ninlab.errors import DataError
from tests.disks import disk_with_room_for

SHAPES = {
    "train-images-idx3-ubyte": (200, 14, 14),  # more than one piece of a download, 32 KiB
    "train-labels-idx1-ubyte": (200,),
    "t10k-images-idx3-ubyte": (3, 14, 14),
    "t10k-labels-idx1-ubyte": (3,),
}
SECONDS = 20
"""After so long a process that should have ended hangs."""


def _content(name: str) -> bytes:
    shape = SHAPES[name]
    header = IdxFile("", shape).header
    return header + random.Random(name).randbytes(IdxFile("", shape).size - len(header))


CONTENTS = {name: _content(name) for name in SHAPES}
PACKED = {name: gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}


# ---------------------------------------------------------------- a machine without the data


@dataclass
class Mirror:
    """What a server answers, and what it was asked for."""

    answer: Callable[[str, bytes], bytes | None] = lambda name, packed: packed
    """The bytes sent for a file, of which the head of the answer gives the published number."""
    open: threading.Event = field(default_factory=threading.Event)  # until then, silence
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open.set()


@contextmanager
def served(mirror: Mirror) -> Iterator[str]:
    """The address of the mirror, while it is there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").removesuffix(".gz")
            if self.headers["Method"] == "HEAD":  # torchvision looks whether it is sent elsewhere
                self.send_response(200)
                self.end_headers()
                return
            mirror.asked.append(name)
            mirror.open.wait(SECONDS)
            sent = mirror.answer(name, PACKED[name])
            if sent is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(PACKED[name])))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """A client that was killed is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@contextmanager
def machine(folder: Path, mirror: Mirror) -> Iterator[Path]:
    """The cache of a machine that has no data, and the small files for the published ones."""
    published = {
        name: IdxFile(hashlib.sha256(content).hexdigest(), SHAPES[name])
        for name, content in CONTENTS.items()
    }
    sums = [(f"{name}.gz", hashlib.md5(packed).hexdigest()) for name, packed in PACKED.items()]
    with served(mirror) as address, pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_files, "FILES", published)
        patch.setattr(data_files, "DEBIAN_FOLDER", folder / "debian")
        patch.delenv(data_files.FOLDER_VARIABLE, raising=False)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(FashionMNIST, "mirrors", [address])
        patch.setattr(FashionMNIST, "resources", sums)
        yield folder / "cache" / "ninlab"


# ---------------------------------------------------------------- faults


@contextmanager
def at_line(number: int, happens: Callable[[], object]) -> Iterator[list[int]]:
    """Let something happen before the numbered line of a download; gives how many were reached."""
    files = {data_files.__file__, torchvision_utils.__file__}
    reached = [0]

    def trace(frame, event, argument):  # type: ignore[no-untyped-def]
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            reached[0] += 1
            if reached[0] == number:
                happens()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield reached
    finally:
        sys.settrace(before)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(action: Callable[[], object]) -> int:
    """The id of a process that does this and then ends, with 0, or 1 after an error."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            action()
        code = 0
    finally:
        os._exit(code)


def ending(process: int) -> int:
    """The exit code of a child, negative for a signal. One that hangs is killed, and an error."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise AssertionError(f"a download hung for {SECONDS} s")


ANSWERS: Mapping[str, Callable[[str, bytes], bytes | None]] = {
    "nothing": lambda name, packed: b"",
    "no such file": lambda name, packed: None,
    "a page": lambda name, packed: b"<html>sign in</html>".ljust(len(packed)),
    "other content": lambda name, packed: gzip.compress(bytes(len(CONTENTS[name]))),
    "one byte changed": lambda name, packed: packed[:-9] + bytes([packed[-9] ^ 1]) + packed[-8:],
    "more than was published": lambda name, packed: packed + b"\0",
}
"""What mirrors, proxies and the sign-in pages of a hotel give instead of a file."""

PLANTED: Mapping[str, Callable[[str], Mapping[str, bytes]]] = {
    "absent": lambda name: {},
    "whole": lambda name: {f"{name}.gz": PACKED[name]},
    "unpacked": lambda name: {name: CONTENTS[name]},
    "torn": lambda name: {f"{name}.gz": PACKED[name][: len(PACKED[name]) // 2]},
    "torn while it was unpacked": lambda name: {
        f"{name}.gz": PACKED[name], name: CONTENTS[name][:-1]
    },
    "empty": lambda name: {f"{name}.gz": b"", name: b""},
    "another": lambda name: {f"{name}.gz": gzip.compress(b"another")},
    "a bomb": lambda name: {f"{name}.gz": gzip.compress(bytes(2**20))},
}  # fmt: skip
"""How earlier starts, of torchvision's own downloader too, can have left one file."""

STATES = list(product(PLANTED, repeat=len(SHAPES)))


@dataclass(frozen=True)
class Fault:
    """The numbered one of its kind."""

    kind: str
    number: int


def lines_of_a_download() -> int:
    """How many lines run when a machine without the data gets it."""
    with tempfile.TemporaryDirectory() as folder, machine(Path(folder), Mirror()):
        with at_line(-1, _interrupt) as reached, redirect_stderr(io.StringIO()):
            data_files.load()
        return reached[0]


def numbers() -> dict[str, int]:
    """How many faults there are of each kind."""
    lines, sent = lines_of_a_download(), len(PACKED["train-images-idx3-ubyte"])
    return {
        "interrupted": lines,  # at that line
        "killed": lines,
        "cut": sent,  # after so many bytes of each answer
        "full disk": sent,
        "answered": len(ANSWERS),
        "left behind": len(STATES),  # in that state
    }


def spread(count: int) -> list[Fault]:
    """So many faults, of all kinds in turn, at numbers that lie evenly over all that there are."""
    known = numbers()
    turns = [list(known)[place % len(known)] for place in range(count)]
    of_kind, seen = Counter(turns), Counter[str]()
    faults = []
    for kind in turns:
        faults.append(Fault(kind, seen[kind] * known[kind] // of_kind[kind]))
        seen[kind] += 1
    return faults


# ---------------------------------------------------------------- what came of one


@dataclass(frozen=True)
class Outcome:
    """How the start with the fault ended, and what the start after it found."""

    ended: str  # "whole", "said" for a DataError, "interrupted", "killed", or the error's class
    half_written: tuple[str, ...]  # files under their final names that are not whole
    whole_after: bool  # the next start had the whole data set
    leftovers: tuple[str, ...]  # files outside the data set that it did not sweep

    @property
    def is_sound(self) -> bool:
        """Nothing lost, nothing half-written, and no traceback."""
        return (
            self.ended in {"whole", "said", "interrupted", "killed"}
            and not self.half_written
            and self.whole_after
            and not self.leftovers
        )


def _start() -> str:
    try:
        whole = data_files.load()[1] == CONTENTS
    except DataError:
        return "said"
    except KeyboardInterrupt:
        return "interrupted"
    return "whole" if whole else "wrong"


def _start_with(fault: Fault, mirror: Mirror) -> str:
    match fault.kind:
        case "interrupted":
            with at_line(fault.number, _interrupt):
                return _start()
        case "killed":
            with at_line(fault.number, _kill):
                process = in_a_child(data_files.load)
            return {0: "whole", -signal.SIGKILL: "killed"}.get(ending(process), "traceback")
        case "cut":
            mirror.answer = lambda name, packed: packed[: fault.number]
            return _start()
        case "answered":
            mirror.answer = list(ANSWERS.values())[fault.number]
            return _start()
        case "full disk":
            with disk_with_room_for(fault.number):
                return _start()
    return _start()


def try_one(fault: Fault, folder: Path) -> Outcome:
    """A start with that fault on a machine without the data, and one without it."""
    mirror = Mirror()
    with machine(folder, mirror) as cache, redirect_stderr(io.StringIO()):
        raw = cache / "FashionMNIST" / "raw"
        if fault.kind == "left behind":
            raw.mkdir(parents=True)
            for name, state in zip(SHAPES, STATES[fault.number], strict=True):
                for file, content in PLANTED[state](name).items():
                    (raw / file).write_bytes(content)
        try:
            ended = _start_with(fault, mirror)
        except Exception as error:  # what a reader would see as a traceback
            ended = type(error).__name__
        half_written = tuple(
            name
            for name in SHAPES
            if (raw / f"{name}.gz").exists() and (raw / f"{name}.gz").read_bytes() != PACKED[name]
        )
        mirror.answer = lambda name, packed: packed
        whole_after = _start() == "whole"
        leftovers = tuple(str(path) for path in cache.glob("*/*") if path.is_file())
        return Outcome(ended, half_written, whole_after, leftovers)


def main(count: int) -> int:
    """Try so many, say what came of them; 1 when one was not sound."""
    outcomes = Counter[tuple[str, str]]()
    unsound = 0
    for fault in spread(count):
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_one(fault, Path(folder))
        outcomes[fault.kind, outcome.ended] += 1
        if not outcome.is_sound:
            unsound += 1
            print(fault, outcome)
    for (kind, ended), number in sorted(outcomes.items()):
        print(f"{number:5} {kind}: {ended}")
    print(f"{unsound} of {count} faults lost something or ended in a traceback")
    return int(unsound > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
