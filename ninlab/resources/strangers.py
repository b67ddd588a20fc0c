"""What may code of others do while it runs here, and how is it told?

The file that a module comes from, its factory, its forward pass and its hooks are code that
nobody here has read. It runs inside `at_work`: whatever it raises comes out as one sentence
about the network.

Known limits. ``os._exit`` and a signal, as of a crash in C++, end the process at once: nothing
is answered, and nothing can be said. Its exit code is theirs, and after ``os._exit(0)`` it is 0.
What code of others changes elsewhere in the process, such as the attributes of another module,
stays changed.
"""

from __future__ import annotations

import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb

import torch

from ninlab.errors import NinlabError

_END_OF_SENTENCE = re.compile(
    # Of a window that does not fit torch tells in three sentences, and the last is the reason.
    r"\.\s+(?=[A-Z])(?!Calculated output size|Kernel size|Output size)"
)
_OURS = Path(__file__).parents[1]
_LIBRARIES = (_OURS, Path(torch.__file__).parent)
_PYTHONS = Path(sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}  # may lie inside the folder of Python's own


@contextmanager
def at_work(name: str) -> Iterator[None]:
    """Code of the network of that name runs inside.

    There torch does what it does by default, whatever the caller has chosen for other code:
    tensors are float32, and gradients are recorded. No warning is shown: what is wrong is said in
    the error. Afterwards the process is in the folder that it was in, and torch does what it did
    before.
    Raises NinlabError for any error and for any attempt to end the process, SystemExit with
    code 0 included. An error of ninlab's own passes, and so does KeyboardInterrupt: a person
    at the keyboard has the last word.
    """
    try:
        with _folder_kept(), _defaults_of_torch(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (NinlabError, KeyboardInterrupt):
        raise
    except RecursionError as error:
        raise NinlabError(
            f"{name} cannot be counted: it is nested too deeply for Python{place(error)}"
        ) from error
    except Exception as error:
        raise NinlabError(f"{name} cannot be counted: {quoted(error)}") from error
    except BaseException as error:
        raise NinlabError(
            f"{name} ended itself by {quoted(error)}{place(error)}; leave that out"
        ) from error


@contextmanager
def _folder_kept() -> Iterator[None]:
    folder = None
    with suppress(OSError):  # somebody may have removed it
        folder = os.getcwd()
    try:
        yield
    finally:
        if folder is not None:
            with suppress(OSError):
                os.chdir(folder)


@contextmanager
def _defaults_of_torch() -> Iterator[None]:
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autograd.set_detect_anomaly(False),  # it reads values
    ):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            if not _is_default(device):
                torch.set_default_device(None if device.type == "cpu" else device)


def _is_default(device: torch.device) -> bool:
    try:
        return torch.get_default_device() == device
    except RuntimeError:  # somebody chose a GPU, and there is none
        return False


# ---------------------------------------------------------------- what they say


def quoted(error: BaseException) -> str:
    """The type of an error and its first sentence: ``ValueError: no such layer``."""
    says = _first_sentence(error)
    return f"{type(error).__name__}: {says}" if says else type(error).__name__


def _first_sentence(error: BaseException) -> str:
    """The first sentence of a message that may go on with advice of torch's and a C++ stack."""
    lines = said(error).strip().splitlines() or [""]
    return _END_OF_SENTENCE.split(lines[0])[0].rstrip(".").replace(". ", "; ")


def said(error: BaseException) -> str:
    """The whole message of an error; nothing, where the error itself fails at giving it."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # its __str__ may be code of others as well
        return ""


def place(error: BaseException) -> str:
    """Where in the code of others it was raised: `` (forward, line 12 of net.py)``.

    Empty where none of it ran, as when it was called with arguments that it does not take.
    """
    for frame, line in reversed(list(walk_tb(error.__traceback__))):
        code = frame.f_code
        if _is_of_others(code.co_filename):
            function = "" if code.co_name.startswith("<") else f"{code.co_name}, "
            return f" ({function}line {line} of {Path(code.co_filename).name})"
    return ""


def _is_of_others(file: str) -> bool:
    path = Path(file)
    if file.startswith("<") or any(path.is_relative_to(folder) for folder in _LIBRARIES):
        return False
    return not path.is_relative_to(_PYTHONS) or not _INSTALLED.isdisjoint(path.parts)
