r"""How large is the workspace of each convolution on a GPU that is not here?

`ninlab.cudnn` asks cuDNN for a device that is only described. This tool asks it, for every
convolution of every architecture of ninlab, which plan PyTorch would run on such a device, and
writes the plans' workspace sizes as a table that `ninlab.workspaces` reads.

A table holds for one cuDNN version; another version differs in about one size of
four. Ask the version that a torch release pins::

    pip install --target SITE --no-deps nvidia-cudnn-cu13==9.19.0.56 \
        nvidia-cublas==13.1.0.3 nvidia-cuda-nvrtc==13.0.88
    python tools/cudnn_workspaces.py --device h100 --torch 2.11.0 --site SITE
    python tools/cudnn_workspaces.py --device h100 --torch 2.15.0

Without ``--site`` the cuDNN of this environment answers. The library loads in
seconds and answers in about 2 ms a plan. `ninlab.devices` describes the devices
by public data-sheet figures; ``--device-json`` takes what a real device serialized of itself, as
``python -m ninlab measure`` stores it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ninlab.architectures import ARCHITECTURES, Architecture
from ninlab.cudnn import Cudnn, Oracle, modes, site_of_this_environment
from ninlab.devices import DEVICES
from ninlab.errors import NinlabError
from ninlab.layers import Conv
from ninlab.shapes import layer_parameters, placed_layers
from ninlab.workspaces import ConvCall, Direction, Source

BATCH_SIZES = (1, 8, 16, 32, 64, 96, 128, 192, 256)
TABLES = Path(__file__).resolve().parents[1] / "ninlab" / "tables"

DATA_SHEET = "public data-sheet and programming-guide figures, not serialized by a device"

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


def table_rows(oracle: Oracle, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """{call: {direction: [a list over batch_sizes for each mode]}} over all architectures."""
    wanted = dict.fromkeys(
        pair for architecture in ARCHITECTURES.values() for pair in convolutions(architecture)
    )
    rows: dict[str, Any] = {}
    for call, direction in wanted:
        rows.setdefault(call.key, {})[direction.value] = [
            [
                oracle.workspace_bytes(call, direction, batch_size, mode)
                for batch_size in batch_sizes
            ]
            for mode in modes(oracle.properties)
        ]
    return dict(sorted(rows.items()))


def write_table(path: Path, head: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """One JSON object, its rows one a line, so that two versions can be compared by eye."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(
        f"  {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in rows.items()
    )
    text = "\n".join(["{", *lines, ' "rows": {', body, " }", "}"]) + "\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Writes one table; see the module's documentation."""
    described = {name: each.described for name, each in DEVICES.items() if each.described}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument(
        "--device", required=True, help=f"name of the table: {', '.join(described)}"
    )
    parser.add_argument("--torch", required=True, help="torch release that pins this cuDNN: 2.11.0")
    parser.add_argument("--site", type=Path, help="directory that holds nvidia/cudnn")
    parser.add_argument("--device-json", type=Path, help="properties a real device serialized")
    parser.add_argument("--output", type=Path, default=TABLES, help="directory of the tables")
    arguments = parser.parse_args()
    if arguments.device_json:
        properties = json.loads(arguments.device_json.read_text(encoding="utf-8"))
        source = "serialized by the device"
    elif arguments.device in described:
        properties, source = dict(described[arguments.device]), DATA_SHEET
    else:
        parser.error(f"{arguments.device!r} needs --device-json; described: {', '.join(described)}")
    site = arguments.site or site_of_this_environment()
    if site is None:
        parser.error("this environment has no nvidia-cudnn wheel; name one with --site")
    try:
        cudnn = Cudnn(site)
    except NinlabError as error:
        parser.error(str(error))
    started = time.perf_counter()
    rows = table_rows(Oracle(cudnn, properties), BATCH_SIZES)
    options = [f"--device {arguments.device}", f"--torch {arguments.torch}"]
    options += ["--site SITE"] if arguments.site else []
    options += [f"--device-json {arguments.device_json.name}"] if arguments.device_json else []
    head = {
        "device": arguments.device,
        "cudnn": cudnn.version,
        "torch": arguments.torch,
        "generated": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python tools/cudnn_workspaces.py", *options]),
        "source": Source.DESCRIBED,
        "device_properties_source": source,
        "device_properties": properties,
        "modes": modes(properties),
        "batch_sizes": BATCH_SIZES,
    }
    path = arguments.output / "-".join(
        ["cudnn", cudnn.version, f"torch{arguments.torch}", f"{arguments.device}.json"]
    )
    write_table(path, head, rows)
    sizes = sum(len(sizes) for row in rows.values() for mode in row.values() for sizes in mode)
    seconds = time.perf_counter() - started
    print(f"{path.name}: {len(rows)} convolutions, {sizes} sizes, {seconds:.0f} s", file=sys.stderr)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the module's documentation."""


if __name__ == "__main__":
    main()
