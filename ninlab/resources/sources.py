"""Which object does a reader's text mean: ``package.module:factory`` or ``path.py:factory``?

A file is run as ``python path.py`` would run it: without arguments, and what lies beside it can
be imported. It runs anew with every call; what it imports is imported once, as always.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ninlab.errors import NinlabError
from ninlab.resources.strangers import place, quoted, said

WAYS = "write package.module:factory or path.py:factory"


def names_a_source(text: str) -> bool:
    """Whether the text can only mean a file or a package: no network of the book is called so."""
    return not {":", ".", "/", "\\"}.isdisjoint(text)


def build(reference: str) -> object:
    """What the reference names; called without arguments, if it is no module but can be called.

    The colon that counts is the last one: ``C:/models/net.py:Net`` is a path too.
    Raises NinlabError for what cannot be found, imported or built, and lets whatever ends the
    process through.
    """
    source, attribute = _split(reference)
    with _as_a_program(source):
        holder: Any = _import(source)
        for number, part in enumerate(parts := attribute.split(".")):
            if not hasattr(holder, part):
                path = ":".join([source, ".".join(parts[:number])]).rstrip(":")
                near = get_close_matches(part, dir(holder), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise NinlabError(f"{path} has no {part!r}{hint}")
            holder = getattr(holder, part)
        if isinstance(holder, nn.Module) or not callable(holder):
            return holder
        return _called(reference, holder)


def _split(reference: str) -> tuple[str, str]:
    """The file or package, and the path of attributes in it.

    Raises NinlabError where one of them is missing, with what to write.
    """
    source, colon, attribute = reference.rstrip(":").rpartition(":")
    if not colon or _is_path(attribute):  # ``C:/models/net.py`` has a colon, and no factory
        source, attribute = f"{source}{colon}{attribute}", ""
    is_torn = source.endswith(":") or attribute.strip(".") != attribute or ".." in attribute
    if is_torn or not source:
        raise NinlabError(f"{reference!r} names no network; {WAYS}")
    if not attribute:
        raise NinlabError(
            f"{reference!r} names no network; write {source}:factory, where factory is a module "
            "or makes one without arguments"
        )
    if reference.endswith(":"):
        raise NinlabError(f"{reference!r} names no network; write {source}:{attribute}")
    return source, attribute


def _is_path(source: str) -> bool:
    return source.endswith(".py") or not {"/", "\\"}.isdisjoint(source)


@contextmanager
def _as_a_program(source: str) -> Iterator[None]:
    """The command line that a script of that name would read, which has no arguments."""
    arguments = sys.argv
    sys.argv = [source]
    try:
        yield
    finally:
        sys.argv = arguments


def _called(reference: str, factory: Any) -> object:
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                made = factory()
        except Exception:
            # Some constructors compute with values, which the meta device does not have.
            try:
                made = factory()
            except Exception as error:
                raise NinlabError(
                    f"{reference!r} could not be built without arguments: "
                    f"{quoted(error)}{place(error)}"
                ) from error
    if inspect.iscoroutine(made):
        made.close()  # or Python warns that nobody has awaited it
    return made


def _import(source: str) -> ModuleType:
    try:
        return _import_file(source) if _is_path(source) else importlib.import_module(source)
    except NinlabError:
        raise
    except Exception as error:
        where = place(error)
        is_misnamed = isinstance(error, ImportError) and not where
        advice = f"; {WAYS}" if is_misnamed or "relative import" in said(error) else ""
        raise NinlabError(f"cannot import {source!r}: {quoted(error)}{where}{advice}") from error


def _import_file(source: str) -> ModuleType:
    file = Path(source)
    if not source.endswith(".py"):
        raise NinlabError(f"{source!r} is no Python file; {WAYS}")
    if not file.is_file():
        raise NinlabError(f"there is no file {source!r}; {WAYS}")
    name = f"_ninlab_subject_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    _siblings.are_those_in(file.resolve().parent)
    spec.loader.exec_module(module)
    return module


class _Siblings(MetaPathFinder):
    """Finds what lies beside the file that was imported last.

    It goes on doing so, because a forward pass may import as well. Modules of Python's own come
    first, whatever a file beside is called.
    """

    def __init__(self) -> None:
        self._folder = ""
        self._found: set[str] = set()

    def are_those_in(self, folder: Path) -> None:
        """Look there from now on; names that were found elsewhere mean nothing any more."""
        if str(folder) == self._folder:
            return
        for name in [each for each in sys.modules if each.partition(".")[0] in self._found]:
            del sys.modules[name]
        self._folder = str(folder)
        self._found.clear()
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """As Python does with a script's folder at the head of its path."""
        if path is not None or fullname in sys.stdlib_module_names:
            return None
        spec = PathFinder.find_spec(fullname, [self._folder, *sys.path], target)
        if spec is not None:
            places = (spec.origin or "", *(spec.submodule_search_locations or ()))
            if self._folder in {str(Path(each).parent) for each in places}:
                self._found.add(fullname)
        return spec


_siblings = _Siblings()
