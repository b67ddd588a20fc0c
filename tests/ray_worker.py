"""What the workers of a Ray cluster do in the tests. Loads no torch: their children do."""

import os
import sys
from dataclasses import replace
from multiprocessing.connection import Connection

from ninlab.recording import apart, cluster
from ninlab.recording.tasks import Answer, Made, Task

REAL = cluster.make_on_node


def make_and_say_where(task: Task) -> Answer:
    """`cluster.make_on_node`; the record's command is the name of the node that made it."""
    apart._serve = serve
    sys.modules["__main__"].__file__ = None  # a child would load ray's program, a second long
    answer = REAL(task)
    assert isinstance(answer, Made), answer
    assert "torch" not in sys.modules  # that is for the child
    provenance = replace(answer.record.provenance, command=os.environ["NODE"])
    return replace(answer, record=replace(answer.record, provenance=provenance))


def serve(talk: Connection, stack: Connection) -> None:
    """A child process whose runs take no time."""
    from ninlab.recording import making
    from tests.recorders import REAL_SERVE, train_at_once

    making.train = train_at_once
    REAL_SERVE(talk, stack)


def raise_an_error(task: Task) -> Answer:
    raise ModuleNotFoundError("No module named 'ninlab'")
