"""How right are the calculators about memory, and what does asking them cost?

    python benchmarks/peers.py run --runs runs       # resumes; keeps answers in benchmarks/.answers
    python benchmarks/peers.py table RECORD          # the record as Markdown tables

Every tool answers about every network and batch in a process of its own
(benchmarks/calculators.py). The truth comes from this machine's real step on the CPU: bytes
from the profiler's memory events (`ninlab.measurement`), kept bytes from torch's
saved-tensor hooks, MACs from torch's FLOP counter.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from calculators import PEERS, TOOLS

from ninlab import records
from ninlab.architectures import ARCHITECTURES
from ninlab.environment import describe_device, describe_software
from ninlab.errors import NinlabError
from ninlab.measurement import Allocator, Case, Failed, measure_in_process
from ninlab.peers import KIND, SCHEMA_VERSION, Comparison
from ninlab.units import format_bytes, format_seconds

HERE = Path(__file__).parent
ANSWERS = HERE / ".answers"
TOOL_SECONDS = 1800  # after which a tool is given up

STEPS = [
    (network, batch_size)
    for network in ("lenet", "nin", "alexnet", "vgg11", "googlenet")
    for batch_size in (8, 128)
]
"""What is asked of every tool, and run for real."""

ANALYSES = [("vgg19", 128)]
"""What only the tools that allocate nothing are asked: its step takes more than 11 GB."""


# ---------------------------------------------------------------- asking


def questions() -> Iterator[tuple[str, str, int]]:
    """(tool, network, batch size) of everything that is asked."""
    for key, tool in TOOLS.items():
        for network, batch_size in STEPS + (ANALYSES if tool.device == "meta" else []):
            yield key, network, batch_size


def ask(key: str, network: str, batch_size: int) -> dict[str, Any]:
    """The tool's answer, or {"error": last words} where it has none."""
    command = [sys.executable, str(HERE / "calculators.py"), key, network, str(batch_size)]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=TOOL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {TOOL_SECONDS} s"}
    except subprocess.CalledProcessError as failure:
        words = failure.stderr.strip().splitlines() or [f"ended with {failure.returncode}"]
        return {"error": words[-1]}
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def real_step(network: str, batch_size: int) -> dict[str, Any]:
    """Peak bytes of a real SGD step on this CPU, with and without oneDNN's scratch."""
    case = Case(network, ARCHITECTURES[network].input_shape, batch_size)
    (measured,) = measure_in_process([case], torch.device("cpu"), Allocator.CPU, timed_steps=0)
    if isinstance(measured, Failed):
        raise NinlabError(f"{case} was not measured: {measured.sentence}")
    return {
        "tensor_peak_bytes": measured.tensor_peak_bytes,
        "requested_peak_bytes": measured.requested_peak_bytes,
    }


def remembered(name: str, find_out: Any, *arguments: Any) -> dict[str, Any]:
    """What was found out before under that name, else what is found out now."""
    path = ANSWERS / f"{name}.json"
    if not path.exists():
        print(name, file=sys.stderr)
        records.write_bytes(path, json.dumps(find_out(*arguments)).encode())
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def run(folder: Path) -> Path:
    """Asks what was not asked yet and writes the record of it all."""
    provenance = records.provenance(shlex.join(["python", "benchmarks/peers.py", *sys.argv[1:]]))
    answers = [
        {"tool": key, "network": network, "batch_size": batch_size}
        | remembered(f"{key}-{network}-{batch_size}", ask, key, network, batch_size)
        for key, network, batch_size in questions()
    ]
    steps = [
        {"network": network, "batch_size": batch_size}
        | remembered(f"step-{network}-{batch_size}", real_step, network, batch_size)
        for network, batch_size in STEPS
    ]
    installed = {one.name: one.version for one in distributions(path=[str(PEERS)])}
    device = describe_device(torch.device("cpu"))
    moment = provenance.utc[:16].replace(":", "").lower()  # a second record a day is none too many
    identifier = f"benchmarks/peers-{moment}-{device.slug}"
    path = records.record_path(folder, identifier)
    content = {
        "id": identifier,
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "provenance": asdict(provenance),
        "device": asdict(device),
        "software": asdict(describe_software()),
        "peers": dict(sorted(installed.items())),
        "tools": {key: asdict(tool)["title"] for key, tool in TOOLS.items()},
        "steps": steps,
        "answers": answers,
    }
    Comparison.from_json(content)  # what the book cannot read is not recorded
    records.write_json_once(path, content)
    return path


# ---------------------------------------------------------------- tables


def table(record: Mapping[str, Any]) -> str:
    """Markdown: the error of each tool in each quantity, and what its analysis took."""
    answers = {(a["tool"], a["network"], a["batch_size"]): a for a in record["answers"]}
    steps = {(s["network"], s["batch_size"]): s for s in record["steps"]}

    def truth(quantity: str, network: str, batch_size: int) -> int | None:
        case = (network, batch_size)
        if quantity == "peak_bytes":
            return steps[case]["tensor_peak_bytes"] if case in steps else None
        oracle = {"macs": "flop_counter", "saved_bytes": "saved_tensors"}[quantity]
        value: int | None = answers.get((oracle, *case), {}).get(quantity)
        return value

    cases = list(dict.fromkeys((a["network"], a["batch_size"]) for a in record["answers"]))
    parts = []
    for quantity, heading in (
        ("peak_bytes", "Peak of a training step (SGD): error against the real step's tensors"),
        ("saved_bytes", "Bytes kept for backward: error against torch's saved-tensor hooks"),
        ("macs", "MACs of a forward pass: error against torch's FLOP counter"),
    ):
        rows = []
        for key, title in record["tools"].items():
            cells = [
                _error(answers.get((key, *case), {}).get(quantity), truth(quantity, *case))
                for case in cases
            ]
            if any(cells):
                rows.append([title, *cells])
        rows.insert(0, ["truth", *(_amount(quantity, truth(quantity, *case)) for case in cases)])
        parts.append(f"### {heading}\n\n{_markdown(cases, rows)}")
    for field, heading, write in (
        ("first_seconds", "Processor time of one analysis", format_seconds),
        ("resident_growth_bytes", "Memory of one analysis", format_bytes),
    ):
        rows = []
        for key, title in record["tools"].items():
            values = [answers.get((key, *case), {}).get(field) for case in cases]
            rows.append([title, *("" if value is None else write(value) for value in values)])
        parts.append(f"### {heading}\n\n{_markdown(cases, rows)}")
    return "\n\n".join(parts)


def _error(claimed: int | None, true: int | None) -> str:
    if claimed is None or true is None:
        return ""
    return "0" if claimed == true else f"{claimed / true - 1:+.2%}"


def _amount(quantity: str, value: int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if quantity == "macs" else format_bytes(value)


def _markdown(cases: Sequence[tuple[str, int]], rows: Sequence[Sequence[str]]) -> str:
    heads = ["", *(f"{network} {batch_size}" for network, batch_size in cases)]
    lines = [heads, ["---", *["---:"] * len(cases)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """See the module's documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="ask every tool and write the record")
    running.add_argument("--runs", type=Path, required=True, help="folder of the records")
    showing = commands.add_parser("table", help="print a record as Markdown")
    showing.add_argument("record", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "run":
        print(run(arguments.runs))
    else:
        print(table(json.loads(arguments.record.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
