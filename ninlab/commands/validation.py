"""What makes a record of the runs folder valid, whatever its kind?

`records` knows what a record must be by itself. Here it is held against what is known beside it:
the networks of this checkout, and the images that were published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ninlab import (
    data_files,
    failures,
    memory_laws,
    peers,
    profiles,
    races,
    readouts,
    records,
    starts,
)
from ninlab.architectures import ARCHITECTURES
from ninlab.errors import RecordError
from ninlab.formulas import parameters
from ninlab.recipes import EvaluationSet
from ninlab.records import RunRecord
from ninlab.records.schema import shown

DATA_SET = "fashion-mnist"
TEST_IMAGES_OF_A_CLASS = 1_000
"""Fashion-MNIST's test images are balanced. Source: Xiao2017."""


def readers() -> dict[str, records.FromJson[Any]]:
    """How records are read that are no training runs, by their kind."""
    from ninlab import measurement  # waits for torch

    return {
        measurement.KIND: measurement.MemoryRecord.from_json,
        peers.KIND: peers.Comparison.from_json,
        memory_laws.KIND: memory_laws.MemoryLaws.from_json,
        profiles.KIND: profiles.StepProfile.from_json,
        failures.KIND: failures.FailureRecord.from_json,
    }


def problems(folder: Path) -> Iterator[str]:
    """One sentence for every file of a runs folder that is not valid, or contradicts the book."""
    yield from records.problems(folder, readers(), contradictions)
    yield from _of_probes(folder)


def _of_probes(folder: Path) -> Iterator[str]:
    """What is wrong with those probes that pages read as a whole."""
    readers_of: dict[Path, Callable[[Path], object]] = {
        races.FILE: races.load,
        readouts.PATH: readouts.Readouts.load,
        starts.PATH: starts.Starts.load,
    }
    for path, load in readers_of.items():
        if (folder / path).exists():
            try:
                load(folder)
            except RecordError as error:
                yield str(error).replace(f"{folder}/", "")


def contradictions(record: Any) -> Iterator[str]:
    """What a record says that is not so in this checkout, a sentence each, with the field."""
    from ninlab import measurement

    if isinstance(record, measurement.MemoryRecord):
        shape = record.case.input_shape
        yield from _of_network(record.case.network, record.network_digest, "case.", shape)
    if isinstance(record, profiles.StepProfile):
        network_name, shape = record.setting.network, record.input_shape
        yield from _of_network(network_name, record.network_digest, "setting.", shape)
    if isinstance(record, RunRecord):
        yield from _of_network(record.network, record.network_digest, "", record.input_shape)
        network = ARCHITECTURES.get(record.network)
        if network is not None and network.digest == record.network_digest:
            if record.parameters != (count := parameters(network)):
                yield f"parameters is {record.parameters}, but {record.network} has {count}"
            if len(record.confusion) != network.num_classes:
                yield (
                    f"confusion has {len(record.confusion)} rows, but {record.network} tells "
                    f"{network.num_classes} classes apart"
                )
        yield from _of_images(record)


def _of_network(name: str, digest: str, place: str, input_shape: tuple[int, ...]) -> Iterator[str]:
    network = ARCHITECTURES.get(name)
    if network is None or network.digest != digest:
        yield (
            f"{place}network {shown(name)} of network_digest {shown(digest)} is not the network of "
            "this checkout; record a correction"
        )
    elif network.input_shape != input_shape:
        yield (
            f"{place}input_shape is {list(input_shape)}, but {name} reads "
            f"{list(network.input_shape)}"
        )


def _of_images(run: RunRecord) -> Iterator[str]:
    """What cannot be where the images are those that the recipe names."""
    images, recipe = run.data_set, run.recipe
    if images.name != DATA_SET:
        yield f"data_set.name is {shown(images.name)}, but runs are made on {DATA_SET}"
        return
    for file in sorted(images.sha256.keys() | _published().keys()):
        if images.sha256.get(file) != _published().get(file):
            yield f"data_set.sha256.{shown(file)} is not that of the published file"
    for field, count in (
        ("train_images", recipe.images),
        ("evaluation_images", recipe.evaluation_images),
    ):
        if getattr(images, field) != count:
            yield f"data_set.{field} is {getattr(images, field)}, but recipe asks for {count}"
    if recipe.evaluation_set is EvaluationSet.TEST:
        for label, row in enumerate(run.confusion):
            if sum(row) != TEST_IMAGES_OF_A_CLASS:
                yield (
                    f"confusion[{label}] holds {sum(row)} images, but {DATA_SET} has "
                    f"{TEST_IMAGES_OF_A_CLASS} of each class to test"
                )
                return


@cache
def _published() -> dict[str, str]:
    """The sums of the decompressed files, by their names."""
    return {file: published.sha256 for file, published in data_files.FILES.items()}
