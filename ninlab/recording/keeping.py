"""What does a recorder write? Records, weights and notes: it alone, and only whole.

What can be known before a run is made is asked before it. A run that cannot be written all the
same is laid aside.
"""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path

from ninlab import formulas, records
from ninlab.architectures import architecture
from ninlab.errors import RecordError
from ninlab.experiments import PlannedRun
from ninlab.failures import FailureRecord
from ninlab.recording.site import Site
from ninlab.recording.stacks import how_it_ended, was_tried_eagerly
from ninlab.recording.tasks import Made, Task

_SLACK_BYTES = 2**22
"""More than a record takes, and than weights take beside their parameters."""


class Keeper:
    """Writes into a runs folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check_room(self, run: PlannedRun, device_slug: str) -> None:
        """Raises RecordError unless all that the run may leave can be written, here and now."""
        folder, identifier = self._folder, run.id(device_slug)
        records.check_can_write(records.record_path(folder, identifier), _SLACK_BYTES)
        if run.keeps_weights:
            size = 4 * formulas.parameters(architecture(run.row.network)) + _SLACK_BYTES
            records.check_can_write(records.weights_path(folder, identifier), size)

    def keep(self, made: Made) -> None:
        """Write the run. Raises RecordError, the run laid aside, when that cannot be done."""
        try:
            _write(self._folder, made)
        except RecordError as error:
            if _is_there(self._folder, made):
                raise  # it is whole, and only its way to the disk is in doubt
            raise RecordError(f"{error}; {self._lay_aside(made)}") from error

    def note(self, failure: FailureRecord) -> None:
        """Write down that a run came to nothing."""
        path = records.record_path(self._folder, failure.id)
        if not path.exists():  # without code to tell them apart, the first failure stays
            records.write(self._folder, failure)

    @cached_property
    def _aside(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="ninlab-runs-"))

    def _lay_aside(self, made: Made) -> str:
        """Keep the run even where a law or its schema refuses it: that may be at fault."""
        identifier = made.record.id
        try:
            if made.weights is not None:
                records.write_bytes(records.weights_path(self._aside, identifier), made.weights)
            path = records.record_path(self._aside, identifier)
            records.write_json_once(path, made.record.to_json())
        except (RecordError, OSError) as error:
            return f"the run is lost, for it could not be laid aside either: {error}"
        return f"the run is kept in {self._aside}: copy that into the folder when there is room"


def _write(folder: Path, made: Made) -> None:
    """The weights first: a record is there only when all that it names is."""
    if made.weights is not None:
        records.write_bytes(records.weights_path(folder, made.record.id), made.weights)
    records.write(folder, made.record)


def _is_there(folder: Path, made: Made) -> bool:
    try:
        return records.read(records.record_path(folder, made.record.id)) == made.record
    except (RecordError, OSError):
        return False


# ---------------------------------------------------------------- notes for the next start


def stack_file(folder: Path, identifier: str) -> Path:
    """Where this process leaves its stack, should the run that it makes hang or crash it."""
    return records.claim_note(folder, identifier, "stack")


def lost_its_graph(folder: Path, identifier: str) -> Path:
    """The file that says that the run lost its device in a CUDA graph: the next try goes without.

    Empty; it is removed when the run is recorded.
    """
    return records.claim_note(folder, identifier, "graph-lost-the-device")


def take_note(task: Task, site: Site) -> FailureRecord | None:
    """How a process hung or crashed that made this run before, or None if none did.

    To be called by who has claimed the run. The file of the stack stays until the failure is noted.
    """
    try:
        stack = stack_file(site.folder, task.identifier).read_text()
    except FileNotFoundError:
        return None
    ended = how_it_ended(stack)
    if ended is None:  # the process was killed by others
        return None
    from ninlab.environment import describe_software

    tried_eagerly = was_tried_eagerly(stack)
    return task.failure(*ended, site.about, describe_software(), tried_eagerly=tried_eagerly)
