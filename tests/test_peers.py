"""The rules of other tools against what the tools said, and against modules that run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ninlab import peers, resources
from ninlab.architectures import ARCHITECTURES, Architecture, architecture
from ninlab.errors import RecordError
from ninlab.layers import BatchNorm
from ninlab.networks import build
from ninlab.records import record_path
from ninlab.shapes import placed_layers
from tests.records import A_RECORD, NOBODY
from tests.strategies import architectures

with_rules = pytest.mark.parametrize("quantity", sorted(peers.RULES))


# ---------------------------------------------------------------- what the tools said


@with_rules
def test_each_answer_of_each_tool_with_a_rule_is_what_the_rule_says(quantity: str) -> None:
    compared = peers.latest(quantity)
    by_rule = compared.by_rule(quantity)
    assert by_rule == {tool: compared.said[quantity][tool] for tool in by_rule}


PLAYS_A_STEP = {"peak_bytes": {"ninlab", "liveness", "mem_tracker"}}


@with_rules
def test_what_plays_no_step_has_a_rule(quantity: str) -> None:
    asked = peers.latest(quantity).said[quantity].keys()
    assert peers.RULES[quantity].keys() == asked - PLAYS_A_STEP.get(quantity, set())


# ---------------------------------------------------------------- what modules put out


class JoinedValues(TorchDispatchMode):
    """Counts the values that concatenations give."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.cat.default:
            self.values += result.numel()
        return result


@contextmanager
def values_put_out(module: nn.Module) -> Iterator[list[int]]:
    """The number of values that each call of a leaf module gives."""
    found: list[int] = []
    leaves = [child for child in module.modules() if not list(child.children())]
    hooks = [
        leaf.register_forward_hook(lambda _, __, output: found.append(output.numel()))
        for leaf in leaves
    ]
    yield found
    for hook in hooks:
        hook.remove()


@settings(deadline=None, max_examples=30)
@given(network=architectures())
def test_what_layers_put_out_and_branches_join_is_what_modules_do(network: Architecture) -> None:
    module = build(network, device="meta").eval()
    with torch.no_grad(), values_put_out(module) as given_out, JoinedValues() as joins:
        module(torch.zeros(1, *network.input_shape, device="meta"))
    assert peers.put_out(network) == sum(given_out)
    assert peers.joined(network) == joins.values


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, network in ARCHITECTURES.items()
        if not any(isinstance(at.layer, BatchNorm) for at in placed_layers(network))
    ],
)
def test_fvcores_rules_are_fvcore(name: str) -> None:
    """Batch normalization is left out: fvcore counts it, and no network of the record has it."""
    counts = resources.count(resources.load(name, None))
    assert peers.RULES["macs"]["fvcore"](architecture(name), 1) == counts.fvcore_flops
    assert peers.RULES["saved_bytes"]["fvcore"](architecture(name), 1) == (
        4 * counts.fvcore_activations
    )


# ---------------------------------------------------------------- reading


def said(case: dict, tool: str, **quantities: int) -> dict:
    """What a tool answered of a case, in no time."""
    return {
        **case, "tool": tool, **dict.fromkeys(peers.QUANTITIES), **quantities,
        "start_up_seconds": 1.0, "first_seconds": 0.5, "again_seconds": None,
        "resident_growth_bytes": 0,
    }  # fmt: skip


def comparison(day: str = "2026-12-24", **answer: int) -> dict:
    """A record in which one tool is right about two batches and another says what is asked."""
    cases = [{"network": "nin", "batch_size": size} for size in (1, 2)]
    peak = "tensor_peak_bytes", "requested_peak_bytes"
    return {
        "id": f"benchmarks/peers-{day}-cpu",
        "kind": peers.KIND,
        "schema_version": peers.SCHEMA_VERSION,
        "provenance": asdict(NOBODY) | {"utc": f"{day}T12:00:00Z"},
        "device": asdict(A_RECORD.device),
        "software": asdict(A_RECORD.software),
        "peers": {"torch-low": "1.0", "needed-by-it": "2.0"},
        "tools": {"low": "low", "right": "the right one", "silent": "the silent one"},
        "steps": [{**case, **dict.fromkeys(peak, 100 * case["batch_size"])} for case in cases],
        "answers": [
            said(cases[0], "low", peak_bytes=75, **answer),
            said(cases[1], "low", peak_bytes=75),
            *(said(case, "right", peak_bytes=100 * case["batch_size"]) for case in cases),
            said(cases[0], "silent", peak_bytes=100),
            {**cases[1], "tool": "silent", "error": "out of memory"},
        ],
    }


def write(folder, *contents: dict) -> None:
    (folder / "benchmarks").mkdir()
    for content in contents:
        record_path(folder, content["id"]).write_text(json.dumps(content))


def test_errors_are_of_the_tools_that_answered_everything_the_best_first() -> None:
    read = peers.Comparison.from_json(comparison())
    errors = read.errors("peak_bytes", read.peaks)
    assert list(errors.index) == ["the right one", "low"]
    assert errors.loc["low"].to_dict() == {("nin", 1): -25, ("nin", 2): -125}
    assert errors.loc["the right one"].to_list() == [0, 0]


def test_what_was_said_stands_below_the_truth() -> None:
    read = peers.Comparison.from_json(comparison())
    table = read.beside("peak_bytes", read.peaks, lambda said, true: f"{said}/{true}", str)
    assert list(table.columns) == ["NiN, 1 images", "NiN, 2 images"]
    assert list(table.index) == ["the truth", "the right one", "low"]
    assert list(table.loc["the truth"]) == ["100", "200"]
    assert list(table.loc["low"]) == ["75/100", "75/200"]
    (of_one_batch,) = read.beside("peak_bytes", {("nin", 1): 100}, min, str).columns
    assert of_one_batch == "NiN"


def test_the_latest_comparison_is_the_newest_that_answers(tmp_path) -> None:
    older, newer = comparison("2026-12-24", macs=7), comparison("2026-12-25")
    write(tmp_path, older, newer)
    assert peers.latest("peak_bytes", tmp_path).id == newer["id"]
    assert peers.latest("macs", tmp_path).id == older["id"]
    with pytest.raises(RecordError, match="saved_bytes"):
        peers.latest("saved_bytes", tmp_path)


def test_versions_are_those_of_the_tools_and_not_of_what_they_need() -> None:
    assert peers.Comparison.from_json(comparison()).versions == {"torch-low": "1.0"}


@pytest.mark.parametrize("part", sorted(comparison().keys() - {"id", "kind"}))
def test_a_comparison_without_one_of_its_parts_is_refused_by_name(tmp_path, part: str) -> None:
    whole = comparison()
    write(tmp_path, {key: value for key, value in whole.items() if key != part})
    with pytest.raises(RecordError, match=f"{whole['id']}.*{part}"):
        peers.latest("peak_bytes", tmp_path)


def test_a_comparison_of_another_version_is_refused(tmp_path) -> None:
    write(tmp_path, comparison() | {"schema_version": peers.SCHEMA_VERSION + 1})
    with pytest.raises(RecordError, match="schema_version"):
        peers.latest("peak_bytes", tmp_path)


@given(error=st.floats(-1, 1e4))
def test_an_error_is_written_with_its_side(error: float) -> None:
    written = peers.format_error(error)
    assert (written == "equal") == (error == 0)
    assert written.startswith("-") == (error < 0)
    assert written.startswith("×") == (error > 1)
