"""How is a run made so that its crash ends nothing else? In a child process.

A child makes one run after the other, because torch takes seconds to load. It dies with its
parent, and the parent reads from a pipe how it hung or crashed. The same children serve several
processes on one machine and the workers of a Ray cluster.

torch is imported in the children only.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import NamedTuple

from ninlab.errors import NinlabError
from ninlab.recording.stacks import how_it_ended, was_tried_eagerly
from ninlab.recording.tasks import Answer, Failed, Killed, Made, Refused, Task
from ninlab.records import Device, Software


class Apart:
    """Makes runs in child processes, as many at a time as threads ask for."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._closed = False
        self._lock = threading.Lock()

    def make(self, task: Task) -> Answer:
        """What became of the run. A child that met trouble is not used again."""
        child = self._free_child()
        answer = child.make(task)
        if isinstance(answer, Made):
            self._idle.append(child)
        else:
            self._all.discard(child)
            child.end()
        return answer

    def close(self) -> None:
        """End all children, whatever they do."""
        with self._lock:
            self._closed = True
            for child in self._all.copy():
                child.end()

    def _free_child(self) -> _Child:
        with self._lock:  # one birth at a time: none may inherit the ends of another's pipes
            while self._idle:
                child = self._idle.pop()
                if child.lives:
                    return child
                self._all.discard(child)
            child = _Child()
            self._all.add(child)
            if self._closed:  # meanwhile
                child.end()
            return child


@contextmanager
def processes(apart: Apart, workers: int) -> Iterator[ThreadPoolExecutor]:
    """An executor of so many threads, each of which waits for a child process."""
    executor = ThreadPoolExecutor(workers)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        apart.close()
        executor.shutdown()


class _Begun(NamedTuple):
    """What a child says before it makes a run: a failure's record names it."""

    about: Device
    software: Software


class _Child:
    """A process that makes runs, seen from its parent."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked CUDA context does not work
        self._talk, talk = context.Pipe()
        self._stack, stack = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(talk, stack), daemon=True)
        self._process.start()
        talk.close()  # else the end of the child would not be the end of the pipe
        stack.close()

    @property
    def lives(self) -> bool:
        """Whether nobody has ended it."""
        return self._process.is_alive()

    def make(self, task: Task) -> Answer:
        """The child's answer, or what its end says of the run."""
        while self._stack.poll() and self._read_stack():
            pass  # what it noted of the run before
        stack, begun = b"", None
        try:
            self._talk.send(task)
            while True:
                if self._talk in connection.wait([self._talk, self._stack]):
                    message = self._talk.recv()
                    if not isinstance(message, _Begun):
                        return message  # type: ignore[no-any-return]
                    begun = message
                elif not (more := self._read_stack()):
                    raise EOFError
                else:
                    stack += more
        except (EOFError, OSError):  # it ended
            while more := self._read_stack():
                stack += more
        self._process.join()
        text = stack.decode(errors="replace")
        ended = how_it_ended(text)
        if ended is None or begun is None:
            return Killed(f"its process ended with {self._process.exitcode}")
        return Failed(task.failure(*ended, *begun, tried_eagerly=was_tried_eagerly(text)))

    def end(self) -> None:
        """No child is left."""
        self._process.kill()
        self._process.join()

    def _read_stack(self) -> bytes:
        return os.read(self._stack.fileno(), 2**16)


def _serve(talk: Connection, stack: Connection) -> None:
    """What a child does: it makes every run that it is sent, until its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from ninlab.environment import describe_software
    from ninlab.recording.making import device_here, make

    gone = suppress(EOFError, BrokenPipeError, ConnectionResetError)  # the parent, just now
    with gone, open(stack.fileno(), "w", closefd=False) as file:
        while True:
            task = talk.recv()
            try:
                talk.send(_Begun(device_here(task), describe_software()))
                answer: Answer = make(task, file)
            except NinlabError as error:
                answer = Refused(str(error))
            talk.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
