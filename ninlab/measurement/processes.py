"""How are cases measured: here, or in a fresh process for each allocator setting?

``python -m ninlab.measurement`` is such a process: it reads its settings, then a case a line on
stdin, and answers each with a line on stdout. It is asked for one case at a time, so that what
the asker does with an answer neither disturbs the next case nor is lost with it.

Known limit: a case that never ends is waited for; whoever asks must end this process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ninlab.errors import NinlabError
from ninlab.measurement.cases import Allocator, Case, Failed, Measured, measured_from_json
from ninlab.measurement.cpu import measure_on_cpu
from ninlab.measurement.gpu import events_path, measure_on_gpu
from ninlab.measurement.steps import NetworkFactory
from ninlab.steps import Precision

DEFAULT_TIMED_STEPS = 20

_DESCRIBING_SECONDS = 15
_TELLING = re.compile("Error|Fatal|error:")
_COMMAND = [sys.executable, "-m", "ninlab.measurement"]


def measure(
    case: Case,
    device: torch.device,
    timed_steps: int = DEFAULT_TIMED_STEPS,
    events: Path | None = None,
    build_network: NetworkFactory | None = None,
) -> Measured:
    """Peaks and duration of that case on that device, in this process.

    With ``timed_steps=0`` only the bytes are measured. events names a file (.json.gz) for
    the allocator's trace of one warm step on a GPU: a list with the fields of `GpuEvent`. Beside
    it lies ``...-from-start.json.gz``: an object with the fields of `TraceFromStart`.
    build_network makes another network than the book's of the case's name.
    Raises NinlabError for TF32 on a CPU, which has none.
    """
    check_precision(case.precision, device)
    if device.type == "cuda":
        return measure_on_gpu(case, device, timed_steps, events, build_network)
    return measure_on_cpu(case, device, timed_steps, build_network)


def check_precision(precision: str, device: torch.device) -> None:
    """Raises NinlabError for arithmetic that the device has not."""
    if precision == Precision.TF32 and device.type != "cuda":
        raise NinlabError("tf32 is arithmetic of NVIDIA GPUs; measure fp32 or bf16 on a CPU")


def measure_in_process(
    cases: Iterable[Case],
    device: torch.device,
    allocator: Allocator,
    *,
    timed_steps: int = DEFAULT_TIMED_STEPS,
    threads: int = 1,
    events_folder: Path | None = None,
    deadline: float | None = None,
    factories: str | None = None,
) -> Iterator[Measured | Failed]:
    """One answer for each case: what was measured, or why it failed.

    The cases run one after the other in a fresh process with that allocator setting, and each
    answer comes as soon as it is known. With ``timed_steps=0`` only the bytes are measured. On a
    GPU two traces of each case are written into events_folder. deadline is in seconds since the
    epoch: no case starts after it, so there may be fewer answers than cases.
    factories is a module with a function for each network, by its name, such as
    torchvision.models; None stands for the book's own networks.
    After a failed case a new process is started, because the old one may hold memory or a broken
    device. A case whose process crashes is tried once more; after a second crash the last words of
    that process are its answer. Raises NinlabError when the next case crashes twice, too: then the
    device is at fault and not the case.
    """
    settings = {
        "device": str(device),
        "timed_steps": timed_steps,
        "threads": threads,
        "events_folder": None if events_folder is None else str(events_folder),
        "factories": factories,
    }
    with contextlib.ExitStack() as open_processes:
        process: _Process | None = None
        crashed_before = False
        for case in cases:
            answer = None
            for _ in range(2):
                if deadline is not None and time.time() >= deadline:
                    return
                process = process or open_processes.enter_context(_Process(settings, allocator))
                answer = process.ask(case)
                if not isinstance(answer, Measured):
                    process.end()
                    last_words, process = process.last_words, None
                if answer is not None:
                    break
            crashed = answer is None
            if crashed and crashed_before:
                raise NinlabError(
                    f"the measuring process crashed at two cases in a row, twice at each; the last "
                    f"is {case.slug}: {last_words}; see whether the device still works"
                )
            yield answer or Failed(f"its process crashed: {last_words}")
            crashed_before = crashed


class _Process:
    """A fresh process that measures; as a context, it ends with the block."""

    def __init__(self, settings: Mapping[str, Any], allocator: Allocator) -> None:
        # What a crash leaves may be no text. end() closes the file.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(allocator),
            text=True,
        )
        self.last_words = ""
        self._tell(settings)

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _tell(self, content: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, and reading will show that
            self._process.stdin.write(f"{json.dumps(content)}\n")
            self._process.stdin.flush()

    def ask(self, case: Case) -> Measured | Failed | None:
        """The answer to that case; None when the process ends without one."""
        assert self._process.stdout is not None
        self._tell(asdict(case))
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            return None
        answer = json.loads(line)
        if "failed" in answer:
            return Failed(answer["failed"])
        return measured_from_json(answer["measured"])

    def end(self) -> None:
        """Ends the process, if it has not ended, and reads its last words."""
        if self._errors.closed:
            return
        self._process.terminate()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        code = self._process.wait()
        self._errors.seek(0)
        self.last_words = _last_words(self._errors.read()) or f"it said nothing {_ending(code)}"
        self._errors.close()


def _last_words(said: str) -> str:
    """The last line of stderr that tells of an error, else the last one; empty without any.

    Behind the error come a stack, whose frames are passed over, and advice on debugging.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line) and not line.startswith("frame #")]
    return (telling or lines or [""])[-1]


def _ending(code: int) -> str:
    """How a process ended, by its exit code, which is a signal's number where it is negative."""
    if code >= 0:
        return f"and ended with exit code {code}"
    return f"and was ended by signal {-code}: {signal.strsignal(-code)}"


def describe_in_process(device: torch.device) -> dict[str, Any]:
    """What `ninlab.cudnn.device_properties` says, asked in a process of its own.

    A library that crashes ends that process only, and what it keeps on the device is gone with
    it, so that the overhead of no later case grows. Raises NinlabError with its last words.
    """
    program = (
        "import json, sys, torch\n"
        "from ninlab.cudnn import device_properties\n"
        # cuDNN has been asked with CUDA at work only
        "device = torch.zeros(1, device=sys.argv[1]).device\n"
        "print(json.dumps(device_properties(device.index)))\n"
    )
    command = [sys.executable, "-c", program, str(device)]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_DESCRIBING_SECONDS
        ).stdout
    except subprocess.TimeoutExpired:
        raise NinlabError(f"cuDNN gave no answer within {_DESCRIBING_SECONDS} s") from None
    except subprocess.CalledProcessError as failure:
        words = failure.stderr.strip().splitlines() or [f"it ended with {failure.returncode}"]
        raise NinlabError(words[-1].removeprefix("ninlab.errors.NinlabError: ")) from None
    properties: dict[str, Any] = json.loads(answer)
    return properties


def _environment(allocator: Allocator) -> dict[str, str]:
    """This process's environment with that setting of the CUDA allocator, and no other."""
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    if allocator is Allocator.EXPANDABLE_SEGMENTS:
        environment[names[0]] = "expandable_segments:True"
    return environment


def serve() -> None:
    """Answers each case on stdin, after a line of settings, with one JSON object a line."""
    settings = json.loads(sys.stdin.readline())
    torch.set_num_threads(settings["threads"])
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), settings)), flush=True)


def _answer(content: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What that case took, or the sentence that it failed with."""
    folder = settings["events_folder"]
    try:
        case = Case(**{**content, "input_shape": tuple(content["input_shape"])})
        events = events_path(Path(folder), case) if folder else None
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers only
            measured = measure(
                case,
                torch.device(settings["device"]),
                settings["timed_steps"],
                events,
                _factory(settings["factories"], case.network),
            )
    except Exception as error:  # whatever it is, the next case may still be measured
        return {"failed": Failed.of(error).sentence}
    return {"measured": asdict(measured)}


def _factory(module: str | None, network: str) -> NetworkFactory | None:
    if module is None:
        return None
    factory: NetworkFactory = getattr(importlib.import_module(module), network)
    return factory
