"""What was measured, on what, by which code? One JSON file a run, written once.

A record is the only way in which a measured number enters the book. It is written whole
or not at all, never changed and never overwritten: a correction is a new record that
names the old one in ``corrects``. Failed runs stay.

`runs` holds what is recorded of a training run, `schema` what all kinds of records share, `laws`
what holds between fields, `folders` where records lie. `reading` and `writing` are the only ways in
and out; `claims` keeps two recorders from one run; `origin` names the code; `frames` makes tables.

Known limit: recording needs a POSIX system; reading does not.
"""

from __future__ import annotations

from ninlab.records.claims import claim, claim_holders, claim_note
from ninlab.records.folders import record_path, runs_folder, weights_path
from ninlab.records.frames import to_frame
from ninlab.records.laws import STUCK_LOSS, check_origin, out_of_order
from ninlab.records.origin import code_id, provenance, utc_now
from ninlab.records.reading import current, kinds, load, load_file, load_kind, problems, read
from ninlab.records.runs import (
    SCHEMA_VERSION,
    TRAINING,
    DataSet,
    Device,
    EpochResult,
    Host,
    LossCurve,
    Outcome,
    Provenance,
    RunRecord,
    Software,
    finite,
    run_id,
)
from ninlab.records.schema import (
    FromJson,
    Part,
    Record,
    Recorded,
    check_schema,
    check_slug,
    from_fields,
    part,
)
from ninlab.records.writing import (
    check_can_write,
    leftovers,
    write,
    write_bytes,
    write_json_once,
)

__all__ = [
    "SCHEMA_VERSION",
    "STUCK_LOSS",
    "TRAINING",
    "DataSet",
    "Device",
    "EpochResult",
    "FromJson",
    "Host",
    "LossCurve",
    "Outcome",
    "Part",
    "Provenance",
    "Record",
    "Recorded",
    "RunRecord",
    "Software",
    "check_can_write",
    "check_origin",
    "check_schema",
    "check_slug",
    "claim",
    "claim_holders",
    "claim_note",
    "code_id",
    "current",
    "finite",
    "from_fields",
    "kinds",
    "leftovers",
    "load",
    "load_file",
    "load_kind",
    "out_of_order",
    "part",
    "problems",
    "provenance",
    "read",
    "record_path",
    "run_id",
    "runs_folder",
    "to_frame",
    "utc_now",
    "weights_path",
    "write",
    "write_bytes",
    "write_json_once",
]
