r"""How large is the workspace of each convolution on a GPU?

`ninlab.cudnn` asks cuDNN for a device that is only described. This tool asks it, for every
convolution of every architecture of ninlab, which plan PyTorch would run on such a device, and
writes the plans' workspace sizes as a table that `ninlab.workspaces` reads.

A table holds for one cuDNN version; another version differs in about one size of
four. Ask the version that a torch release pins::

    pip install --target SITE --no-deps nvidia-cudnn-cu13==9.19.0.56 \
        nvidia-cublas==13.1.0.3 nvidia-cuda-nvrtc==13.0.88
    python tools/cudnn_workspaces.py --device h100 --torch 2.11.0 --torchvision --site SITE
    python tools/cudnn_workspaces.py --device h100 --torch 2.15.0

Without ``--site`` the cuDNN of this environment answers. The library loads in
seconds and answers in about 2 ms a plan. `ninlab.devices` describes the devices
by public data-sheet figures; ``--device-json`` takes what a real device serialized of itself, as
``python -m ninlab measure`` stores it.

What a device itself answered, which can be something else, is in the file that
`tools/ask_cudnn.py` wrote there. This makes the table of it::

    python tools/cudnn_workspaces.py --device h100 --torch 2.11.0 --answers FILE

``source`` in the head of a table says which of the two it is, "device" or "described".
A device is asked for more calls, and not for each in every mode and batch size: what nobody
asked is null. Of depthwise convolutions of contiguous images, which ATen may compute
itself, the table has what they took when ATen ran them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ninlab import exits
from ninlab.architectures import ARCHITECTURES, Architecture
from ninlab.cudnn import Cudnn, CudnnError, Oracle, modes, site_of_this_environment
from ninlab.devices import DEVICES
from ninlab.errors import NinlabError
from ninlab.layers import Conv
from ninlab.shapes import layer_parameters, placed_layers
from ninlab.workspaces import ConvCall, Direction, Source
from tools.whole_files import replace_files

BATCH_SIZES = (1, 8, 16, 32, 64, 96, 128, 192, 256)
TABLES = Path(__file__).resolve().parents[1] / "ninlab" / "tables"
TORCHVISION = Path(__file__).with_name("torchvision_calls.json")

DEVICE, DESCRIBED, ATEN = Source.DEVICE, Source.DESCRIBED, "aten"
"""Who answers: cuDNN with a handle, cuDNN without one, what a call took when ATen ran it."""

WRONG_CONTENT = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What comes of reading a file that somebody else wrote, or something else."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,59}")

DATA_SHEET = "public data-sheet and programming-guide figures, not serialized by a device"
SERIALIZED = "serialized by the device"

# ---------------------------------------------------------------- the book's convolutions


def convolutions(architecture: Architecture) -> Iterator[tuple[ConvCall, Direction]]:
    """Every convolution that one training step of the network computes.

    The input gradient is left out where nothing before the layer has parameters: the
    images need no gradient.
    """
    learns_before = False
    for placed in placed_layers(architecture):
        if isinstance(placed.layer, Conv):
            conv = placed.layer
            channels = placed.input_shape[0]
            window = (conv.kernel_size, conv.kernel_size)
            call = ConvCall(
                input_shape=placed.input_shape,
                weight_shape=(conv.out_channels, channels // conv.groups, *window),
                stride=(conv.stride, conv.stride),
                padding=(conv.padding, conv.padding),
                groups=conv.groups,
            )
            yield call, Direction.FORWARD
            yield call, Direction.WEIGHT_GRADIENT
            if learns_before:
                yield call, Direction.INPUT_GRADIENT
        learns_before = learns_before or layer_parameters(placed.layer, placed.input_shape) > 0


def torchvision_convolutions() -> Iterator[tuple[ConvCall, Direction]]:
    """Those of torchvision's networks, which tools/torchvision_calls.py traced."""
    content = json.loads(TORCHVISION.read_text(encoding="utf-8"))
    for key, (directions, _) in content["calls"].items():
        for direction in directions.split():
            yield ConvCall.of(key), Direction(direction)


def table_rows(
    oracle: Oracle, batch_sizes: Sequence[int], *, torchvision: bool = False
) -> dict[str, Any]:
    """{call: {direction: [a list over batch_sizes for each mode]}} over all architectures.

    And over torchvision's networks if asked for. None stands where cuDNN has no plan.
    """
    wanted = dict.fromkeys(
        pair for architecture in ARCHITECTURES.values() for pair in convolutions(architecture)
    )
    if torchvision:
        wanted |= dict.fromkeys(torchvision_convolutions())

    def size(call: ConvCall, direction: Direction, batch_size: int, mode: str) -> int | None:
        try:
            return oracle.workspace_bytes(call, direction, batch_size, mode)
        except CudnnError:
            return None

    rows: dict[str, Any] = {}
    for call, direction in wanted:
        rows.setdefault(call.key, {})[direction.value] = [
            [size(call, direction, batch_size, mode) for batch_size in batch_sizes]
            for mode in modes(oracle.properties)
        ]
    return dict(sorted(rows.items()))


# ---------------------------------------------------------------- what a device answered


class Answers:
    """What `tools/ask_cudnn.py` wrote into a file. Raises NinlabError where it has no head."""

    def __init__(self, file: Path) -> None:
        try:
            whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")  # the last may be torn
            lines = [json.loads(line) for line in whole.splitlines()]
            heads = [line for line in lines if "properties" in line]
            self._sizes = {
                (line["how"], line["call"], line["direction"], line["mode"], batch_size): size
                for line in lines
                if line.get("how") in (DEVICE, DESCRIBED, ATEN)
                for batch_size, (_, size) in zip(line["batch_sizes"], line["answers"], strict=True)
            }
        except WRONG_CONTENT as error:
            raise NinlabError(f"{file} is no file of ask_cudnn.py: {error!r}") from error
        if not heads:
            raise NinlabError(
                f"{file} does not begin with what was asked; name one of ask_cudnn.py"
            )
        self.head: Mapping[str, Any] = heads[0]

    def asked(self, how: str) -> set[tuple[str, str]]:
        """Each (call, direction) that was asked in that way."""
        return {(call, direction) for way, call, direction, *_ in self._sizes if way == how}

    def size(self, how: str, call: str, direction: str, mode: str, batch_size: int) -> int | None:
        """The answer in bytes; None where nobody asked or cuDNN had no plan."""
        size = self._sizes.get((how, call, direction, mode, batch_size))
        return size if isinstance(size, int) else None

    def agreement(self, one: str, other: str) -> tuple[int, int]:
        """Of how many sizes the two ways have an answer, and how many of these are equal."""
        both = [
            (size, self._sizes[(other, *question)])
            for (how, *question), size in self._sizes.items()
            if how == one and (other, *question) in self._sizes
        ]
        return len(both), sum(first == second for first, second in both)

    def rows(self, how: str, batch_sizes: Sequence[int]) -> dict[str, Any]:
        """The rows of a table, see `table_rows`, with None for what is not known."""
        rows: dict[str, Any] = {}
        for call, direction in sorted(self.asked(how)):
            sizes = [
                [self._in_table(how, call, direction, mode, batch) for batch in batch_sizes]
                for mode in modes(self.head["properties"])
            ]
            if any(size is not None for of_mode in sizes for size in of_mode):
                rows.setdefault(call, {})[direction] = sizes
        return rows

    def _in_table(
        self, how: str, call: str, direction: str, mode: str, batch_size: int
    ) -> int | None:
        if mode.endswith("contiguous") and ConvCall.of(call).is_depthwise:
            how = ATEN
        return self.size(how, call, direction, mode, batch_size)


def write_table(path: Path, head: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """One JSON object, its rows one a line, so that two versions can be compared by eye."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(
        f"  {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in rows.items()
    )
    text = "\n".join(["{", *lines, ' "rows": {', body, " }", "}"]) + "\n"
    replace_files({path: text})


@dataclass(frozen=True)
class Made:
    """What a table is made of."""

    cudnn: str
    properties: Mapping[str, Any]
    properties_source: str
    source: str
    rows: Mapping[str, Any]


def made_here(
    device: str, site: Path | None, device_json: Path | None, *, torchvision: bool
) -> Made:
    """What cuDNN answers here, without a device. Raises NinlabError where it cannot be asked."""
    described = DEVICES[device].described if device in DEVICES else None
    if device_json:
        try:
            properties = dict(json.loads(device_json.read_text(encoding="utf-8")))
            modes(properties)
        except WRONG_CONTENT as error:
            raise NinlabError(f"{device_json} describes no device: {error!r}") from error
        properties_source = SERIALIZED
    elif described:
        properties, properties_source = dict(described), DATA_SHEET
    else:
        raise NinlabError(f"{device!r} needs --device-json; described: {', '.join(_described())}")
    site = site or site_of_this_environment()
    if site is None:
        raise NinlabError("this environment has no nvidia-cudnn wheel; name one with --site")
    cudnn = Cudnn(site)
    rows = table_rows(Oracle(cudnn, properties), BATCH_SIZES, torchvision=torchvision)
    return Made(cudnn.version, properties, properties_source, DESCRIBED, rows)


def made_there(file: Path, how: str) -> Made:
    """What cuDNN answered on a machine with the device. Raises NinlabError where it did not."""
    answers = Answers(file)
    rows = answers.rows(how, BATCH_SIZES)
    if not rows:
        raise NinlabError(f"{file} holds no answer of cuDNN that is called {str(how)!r}")
    for other in {DEVICE, DESCRIBED, ATEN} - {how}:
        both, equal = answers.agreement(how, other)
        print(f"{how} and {other}: {equal} of {both} sizes are equal", file=sys.stderr)
    head = answers.head
    return Made(head["cudnn"], head["properties"], head["properties_source"], how, rows)


def _described() -> list[str]:
    return [name for name, each in DEVICES.items() if each.described]


def main(words: Sequence[str] | None = None) -> None:
    """Writes one table; see the module's documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument(
        "--device", required=True, help=f"name of the table: {', '.join(_described())}"
    )
    parser.add_argument("--torch", required=True, help="torch release that pins this cuDNN: 2.11.0")
    parser.add_argument("--site", type=Path, help="directory that holds nvidia/cudnn")
    parser.add_argument(
        "--torchvision", action="store_true", help="ask for torchvision's networks, too"
    )
    parser.add_argument("--device-json", type=Path, help="properties a real device serialized")
    parser.add_argument("--answers", type=Path, help="what ask_cudnn.py wrote on the device")
    parser.add_argument(
        "--how", choices=(DEVICE, DESCRIBED), default=DEVICE, help="which of these answers"
    )
    parser.add_argument("--output", type=Path, default=TABLES, help="directory of the tables")
    arguments = parser.parse_args(words)
    for name in ("device", "torch"):  # both become part of the table's name
        if not _NAME.fullmatch(getattr(arguments, name)):
            parser.error(f"--{name} takes letters, digits, dots, hyphens and + alone, as in 2.11.0")
    if not arguments.output.is_dir():  # said before anything is asked
        parser.error(f"--output is no folder: {str(arguments.output)[:80]}")
    started = time.perf_counter()
    options = [f"--device {arguments.device}", f"--torch {arguments.torch}"]
    try:
        if arguments.answers:
            made = made_there(arguments.answers, arguments.how)
            options += [f"--answers {arguments.answers.name}", f"--how {arguments.how}"]
        else:
            made = made_here(
                *(arguments.device, arguments.site, arguments.device_json),
                torchvision=arguments.torchvision,
            )
    except (NinlabError, OSError) as error:
        parser.error(str(error))
    options += ["--torchvision"] if arguments.torchvision else []
    options += ["--site SITE"] if arguments.site else []
    options += [f"--device-json {arguments.device_json.name}"] if arguments.device_json else []
    head = {
        "device": arguments.device,
        "cudnn": made.cudnn,
        "torch": arguments.torch,
        "source": made.source,
        "generated": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python tools/cudnn_workspaces.py", *options]),
        "device_properties_source": made.properties_source,
        "device_properties": made.properties,
        "modes": modes(made.properties),
        "batch_sizes": BATCH_SIZES,
    }
    path = arguments.output / "-".join(
        ["cudnn", made.cudnn, f"torch{arguments.torch}", f"{arguments.device}.json"]
    )
    write_table(path, head, made.rows)
    lists = [sizes for row in made.rows.values() for mode in row.values() for sizes in mode]
    sizes = sum(size is not None for sizes in lists for size in sizes)
    seconds = time.perf_counter() - started
    print(
        f"{path.name}: {len(made.rows)} convolutions, {sizes} sizes, {seconds:.0f} s",
        file=sys.stderr,
    )


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the module's documentation."""


if __name__ == "__main__":
    exits.run(main)
