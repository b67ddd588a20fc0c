"""A profile's events find their operators in the roofline, or say that they do not; its record is
valid or not written, and a table says what takes longest.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from ninlab import figures, records
from ninlab.architectures import architecture
from ninlab.commands import validation
from ninlab.devices import device
from ninlab.errors import NinlabError, RecordError, UnknownNameError
from ninlab.profiles import (
    LONGEST_NAME,
    RATES,
    Event,
    KernelTime,
    OperatorTime,
    Place,
    Setting,
    StepProfile,
    Work,
    at_the_least,
    joined,
    load_records,
    longest_rows,
    newest,
    record_id,
    step_operators,
)
from ninlab.reports import Phase
from ninlab.roofline import Operator, time_bound
from ninlab.steps import Kernels, Precision
from tests.records import A_RECORD, H200, NOBODY, a_profile, without_one_field

NETWORKS = ("nin_28", "googlenet_28")
BEGINS = Event("Optimizer.zero_grad#SGD.zero_grad", 0.0)
DATA_SHEET = device("h100")


def seconds_of(number: int) -> float:
    """Of the number-th event of a step: no two events take the same time."""
    return 1e-6 * (1 + number)


def events_of(operators: Sequence[Operator], *, without: int | None = None) -> list[Event]:
    """A step of those operators as torch's profiler shows it; without one of its calls."""
    step = [BEGINS]
    calls = [operator for operator in operators if operator.calls]
    for number, operator in enumerate(calls):
        if number == without:
            continue
        took = seconds_of(number)
        called = Event(f"aten::{operator.name}", took, ((f"{operator.name}_kernel", took),))
        if operator.phase is Phase.STEP:
            called = Event("Optimizer.step#SGD.step", 0.0, (), (called,))
        elif operator.phase is Phase.BACKWARD and operator.name != "ones_like":
            node = Event("SomeBackward0", 0.0, (), (called,))
            called = Event("autograd::engine::evaluate_function: SomeBackward0", 0.0, (), (node,))
        elif operator.name == "convolution":
            inside = Event("aten::_convolution", 0.0, (), (Event("cudaLaunchKernel", 0.0),))
            called = Event("aten::conv2d", 0.0, (), (replace(called, children=(inside,)),))
        step.append(called)
    return step


def total(operators: Sequence[OperatorTime]) -> float:
    return math.fsum(operator.seconds for operator in operators)


# ---------------------------------------------------------------- the join


@pytest.mark.parametrize("kernels", Kernels)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_call_of_a_step_finds_its_layer_and_work(name, precision, kernels):
    operators = step_operators(Setting(name, 4, precision, kernels))
    calls = [operator for operator in operators if operator.calls]
    found = joined(operators, [events_of(operators)])
    assert [(one.name, one.layer or "", one.phase) for one in found] == [
        (call.name, call.layer, call.phase) for call in calls
    ]
    assert [one.seconds for one in found] == [seconds_of(i) for i in range(len(calls))]
    for quantity in ("flops", "bytes"):
        counted = sum(getattr(operator, quantity) for operator in operators)
        assert sum(getattr(one, quantity) for one in found) == counted
    for one in found:
        assert one.kernels == (KernelTime(f"{one.name}_kernel", 1.0, one.seconds),)


def test_both_halves_of_a_convolutions_way_back_are_one_event():
    operators = step_operators(Setting("nin_28", 4))
    found = joined(operators, [events_of(operators)])
    bound = time_bound(operators, DATA_SHEET, "bf16").seconds
    halves = [operator for operator in operators if operator.name == "convolution_backward"]
    both = [one for one in found if one.name == "convolution_backward"]
    assert len(both) == sum(half.calls for half in halves) < len(halves)
    assert [work for one in both for work in one.work] == [
        Work(half.flops, half.bytes) for half in halves
    ]
    assert math.fsum(one.least_seconds(DATA_SHEET, "bf16") or 0 for one in found) == pytest.approx(
        bound, rel=1e-12
    )


@pytest.mark.parametrize("name", ["relu", "convolution_backward", "_to_copy", "nll_loss_forward"])
def test_a_call_that_is_missing_leaves_its_name_alone_without_layers(name):
    operators = step_operators(Setting("nin_28", 4))
    calls = [operator for operator in operators if operator.calls]
    number = next(i for i, call in enumerate(calls) if call.name == name)
    step = events_of(operators, without=number)
    found = joined(operators, [step])
    (unknown,) = (one for one in found if one.name == name)
    assert (unknown.layer, unknown.phase, unknown.work) == (None, None, ())
    assert (unknown.flops, unknown.bytes, unknown.least_seconds(DATA_SHEET, "bf16")) == (None,) * 3
    assert unknown.calls == sum(call.name == name for call in calls) - 1
    others = [(call.name, call.layer) for call in calls if call.name != name]
    assert [(one.name, one.layer or "") for one in found if one is not unknown] == others
    whole = total(joined(operators, [events_of(operators)]))
    assert total(found) == pytest.approx(whole - seconds_of(number), rel=1e-12)


def test_a_call_too_many_leaves_its_name_without_layers():
    operators = step_operators(Setting("nin_28", 4))
    step = events_of(operators)
    step.insert(1, Event("aten::relu", 1e-6))
    (unknown,) = (one for one in joined(operators, [step]) if one.name == "relu")
    assert unknown.phase is None


def test_a_call_less_forward_and_one_more_on_the_way_back_are_no_match():
    operators = step_operators(Setting("nin_28", 4))
    number = [one.name for one in operators if one.calls].index("_to_copy")
    step = events_of(operators, without=number)
    copy = Event("aten::_to_copy", 1e-6)
    step.insert(-1, Event("autograd::engine::evaluate_function: X", 0.0, (), (copy,)))
    found = joined(operators, [step])
    (unknown,) = (one for one in found if one.name == "_to_copy")
    assert unknown.calls == sum(one.name == "_to_copy" for one in operators)
    assert unknown.phase is None
    assert all(one.phase for one in found if one is not unknown)


def test_a_name_that_one_step_of_several_calls_otherwise_has_no_layers():
    operators = step_operators(Setting("nin_28", 4))
    number = [one.name for one in operators if one.calls].index("relu")
    steps = [events_of(operators), events_of(operators, without=number)]
    (unknown,) = (one for one in joined(operators, steps) if one.name == "relu")
    relus = sum(one.name == "relu" for one in operators)
    assert unknown.calls == relus - 0.5
    assert unknown.phase is None


def test_a_name_that_is_never_called_is_there_with_no_call():
    operators = step_operators(Setting("nin_28", 4))
    step = [event for event in events_of(operators) if event.name != "aten::native_dropout"]
    (never,) = (one for one in joined(operators, [step]) if one.name == "native_dropout")
    assert (never.calls, never.seconds, never.phase) == (0, 0, None)


def test_seconds_and_kernels_are_means_over_the_steps():
    operators = step_operators(Setting("nin_28", 4))

    def slower(event: Event) -> Event:
        return replace(
            event,
            seconds=3 * event.seconds,
            kernels=tuple((name, 3 * took) for name, took in event.kernels),
            children=tuple(map(slower, event.children)),
        )

    once = events_of(operators)
    (one, both) = (joined(operators, steps) for steps in ([once], [once, [*map(slower, once)]]))
    for alone, mean in zip(one, both, strict=True):
        assert mean.seconds == pytest.approx(2 * alone.seconds, rel=1e-12)
        assert mean.kernels[0].seconds == pytest.approx(2 * alone.seconds, rel=1e-12)
        assert (mean.calls, mean.kernels[0].calls) == (1, 1)


def test_what_the_engine_calls_around_a_step_is_never_taken_for_an_operator_of_it():
    operators = step_operators(Setting("nin_28", 4))
    copy = Event("aten::_to_copy", 2e-6, (("a copy", 2e-6),))
    around = Event("aten::to", 1e-6, (("a cast", 1e-6),), (copy,))
    step = [around, *events_of(operators), Event("aten::sum", 4e-6, (("a sum", 4e-6),))]
    found = joined(operators, [step])
    outside = [one for one in found if one.place is Place.OUTSIDE]
    assert [(one.name, one.seconds, one.calls) for one in outside] == [
        ("to", 3e-6, 1),
        ("sum", 4e-6, 1),
    ]
    assert [kernel.name for kernel in outside[0].kernels] == ["a copy", "a cast"]
    assert all(one.phase for one in found if one.place is Place.COUNTED)


def test_what_a_step_calls_beside_the_roofline_is_listed_by_its_outermost_event():
    operators = step_operators(Setting("nin_28", 4))
    step = events_of(operators)
    fill = Event("aten::fill_", 5e-6, (("a fill", 5e-6),))
    node = "autograd::engine::evaluate_function: torch::autograd::AccumulateGrad"
    step[-1:-1] = [Event(node, 0.0, (), (fill,)), Event(node, 0.0, (), (fill,))]
    (beside,) = (one for one in joined(operators, [step]) if one.place is Place.UNCOUNTED)
    assert (beside.name, beside.calls, beside.seconds) == ("AccumulateGrad", 2, 1e-5)
    assert beside.kernels == (KernelTime("a fill", 2.0, 1e-5),)


def test_a_fused_update_and_sums_of_gradients_in_place_are_known_by_their_own_names():
    operators = step_operators(Setting("googlenet_28", 4))

    def renamed(event: Event) -> Event:
        name = {"aten::_foreach_add_": "aten::_fused_sgd_", "aten::add": "aten::add_"}
        children = tuple(map(renamed, event.children))
        return replace(event, name=name.get(event.name, event.name), children=children)

    found = joined(operators, [[*map(renamed, events_of(operators))]])
    assert all(one.phase for one in found)
    names = Counter(one.name for one in found)
    assert names["add_"] == sum(operator.name == "add" for operator in operators) > 0
    assert names["_fused_sgd_"] == 1


def test_an_operator_of_ninlab_is_known_by_its_name_without_namespace():
    operators = [Operator("block1", Phase.FORWARD, "ninlab::bias_relu_", 0, 8)]
    (one,) = joined(operators, [[BEGINS, Event("ninlab::bias_relu_", 1e-6)]])
    assert (one.name, one.layer, one.bytes) == ("bias_relu_", "block1", 8)


def test_long_names_of_kernels_keep_both_ends():
    operators = [Operator("block1", Phase.FORWARD, "relu", 0, 8)]
    name = "void " + "x" * 1000 + "<float>"
    (one,) = joined(operators, [[BEGINS, Event("aten::relu", 1e-6, ((name, 1e-6),))]])
    (kernel,) = one.kernels
    assert len(kernel.name) == LONGEST_NAME
    assert kernel.name.startswith("void xx")
    assert kernel.name.endswith("<float>")


def test_no_step_is_no_profile():
    with pytest.raises(NinlabError, match="no step was profiled"):
        joined(step_operators(Setting("nin_28", 4)), [])


@pytest.mark.parametrize("kernels", Kernels)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("name", NETWORKS)
def test_only_torchs_kernels_cast_images_to_the_type_of_the_network(name, precision, kernels):
    operators = step_operators(Setting(name, 4, precision, kernels))
    pixels = 4 * math.prod(architecture(name).input_shape)
    casts = [
        one
        for one in operators
        if (one.layer, one.phase) == (operators[0].layer, Phase.FORWARD)
        and (one.name, one.bytes) == ("_to_copy", pixels * (4 + 2))
    ]
    assert len(casts) == (precision is Precision.BF16 and kernels is Kernels.TORCH)


def test_at_the_least_a_step_takes_its_bound():
    operators = step_operators(Setting("googlenet_28", 4))
    least = at_the_least(operators, DATA_SHEET, "bf16")
    assert total(least) == pytest.approx(
        time_bound(operators, DATA_SHEET, "bf16").seconds, rel=1e-12
    )
    assert len(least) == sum(operator.calls for operator in operators)
    assert all(one.seconds == one.least_seconds(DATA_SHEET, "bf16") for one in least)


# ---------------------------------------------------------------- the record


def test_a_profile_is_read_as_it_was_written(folder):
    written = a_profile()
    assert records.write(folder, written) == records.record_path(folder, written.id)
    assert load_records(folder) == [written]
    assert list(validation.problems(folder)) == []


def test_a_second_profile_of_a_setting_never_replaces_the_first(folder):
    records.write(folder, a_profile())
    with pytest.raises(RecordError, match="never overwritten"):
        records.write(folder, replace(a_profile(slowdown=3.0), called_seconds=1.0))


def test_every_part_of_a_setting_is_in_the_records_id():
    settings = [
        Setting(name, batch, precision, kernels)
        for name in ("nin", "nin_28")
        for batch in (1, 128)
        for precision in Precision
        for kernels in Kernels
    ]
    ids = {record_id(setting, "2.11.0+cu130", slug) for setting in settings for slug in "ab"}
    assert len(ids) == 2 * len(settings)
    expected = "profile/nin-b128-bf16-torch-torch2.11.0-cpu"
    assert record_id(Setting("nin"), "2.11.0+cu130", "cpu") == expected


def test_a_record_without_one_field_of_its_own_or_of_its_parts_is_refused():
    few = a_profile()
    few = replace(few, operators=few.operators[:2], device_seconds=total(few.operators[:2]))
    content = json.loads(json.dumps(few.to_json()))
    for field, rest in without_one_field(content):
        with pytest.raises(RecordError, match=field):
            StepProfile.from_json(rest)


def first(**changes: object) -> Callable[[StepProfile], StepProfile]:
    """The profile with a change of its first operator."""
    return lambda one: replace(
        one, operators=(replace(one.operators[0], **changes), *one.operators[1:])
    )


ON_CPU = A_RECORD.device


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: replace(one, device_seconds=1.01 * one.device_seconds), "device_seconds"),
        (first(seconds=0.0), "device_seconds"),
        (first(kernels=()), r"operators\[0\]\.seconds"),
        (first(kernels=a_profile().operators[0].kernels[::-1]), r"operators\[0\]\.kernels"),
        (first(calls=2.0), r"operators\[0\]\.calls"),
        (first(place=Place.UNCOUNTED), r"operators\[0\]\.calls"),
        (first(work=()), r"operators\[0\]\.phase"),
        (first(phase=None), r"operators\[0\]\.phase"),
        (first(layer=None), r"operators\[0\]\.layer"),
        (first(phase=Phase.STEP), r"operators\[0\]\.layer"),
        (first(phase=None, layer=None, work=(), calls=0.0), r"operators\[0\]\.calls"),
        (lambda one: replace(one, device=ON_CPU), "graph_seconds"),
        (lambda one: replace(one, device=ON_CPU, graph_seconds=None), r"kernels are a GPU's"),
    ],
)
def test_a_profile_that_breaks_a_law_is_neither_written_nor_read(change, said, folder):
    wrong = change(a_profile())
    with pytest.raises(RecordError, match=said):
        StepProfile.from_json(json.loads(json.dumps(wrong.to_json())))
    with pytest.raises(RecordError, match="not written"):
        records.write(folder, wrong)


def test_a_profile_of_nothing_that_the_roofline_counts_is_refused():
    alone = replace(a_profile().operators[0], layer=None, phase=None, work=())
    wrong = replace(a_profile(), operators=(alone,), device_seconds=alone.seconds)
    with pytest.raises(RecordError, match="operators have no work"):
        StepProfile.from_json(json.loads(json.dumps(wrong.to_json())))


def test_a_profile_of_another_network_than_the_checkouts_is_found(folder):
    records.write(folder, replace(a_profile(), network_digest="0" * 12))
    (problem,) = validation.problems(folder)
    assert "setting.network 'nin_28' of network_digest" in problem


def test_kernels_by_share_are_every_operators_kernels_added_up():
    profile = a_profile()
    kernels = profile.kernels_by_share()
    assert math.fsum(one.seconds for one in kernels) == pytest.approx(profile.device_seconds)
    assert [one.seconds for one in kernels] == sorted((o.seconds for o in kernels), reverse=True)
    relus = sum(one.name == "relu" for one in profile.operators)
    (relu,) = (kernel for kernel in kernels if kernel.name == "relu_kernel<0>")
    assert relu.calls == relus


def test_the_least_time_of_a_step_is_known_where_all_of_its_work_and_the_rates_are():
    profile = a_profile()
    bound = time_bound(step_operators(profile.setting), DATA_SHEET, "bf16").seconds
    assert profile.least_seconds == pytest.approx(bound, rel=1e-12)
    beside = OperatorTime("fill_", Place.UNCOUNTED, None, None, 1.0, 0.0, ())
    assert replace(profile, operators=(*profile.operators, beside)).least_seconds == (
        profile.least_seconds
    )
    unknown = replace(beside, name="native_dropout", place=Place.COUNTED)
    assert replace(profile, operators=(*profile.operators, unknown)).least_seconds is None
    elsewhere = replace(profile, device=replace(H200, name="a GPU that nobody knows"))
    assert elsewhere.least_seconds is None
    for one in (profile, elsewhere):
        assert ("by its data sheet" in one.in_words) == (one.least_seconds is not None)


def test_of_each_gpu_the_newest_profile_counts_and_none_of_a_cpu():
    old = a_profile()
    new = replace(old, provenance=replace(NOBODY, utc="2026-02-01T00:00:00Z"))
    other = a_profile(on=H200)
    cpu = replace(old, device=ON_CPU)
    assert newest([new, old, cpu, other]) == [new, other]


# ---------------------------------------------------------------- what takes longest


def test_shares_of_the_longest_and_of_the_rest_make_the_whole_step():
    profile = a_profile()
    for most in (1, 5, 1000):
        rows = longest_rows(profile.operators, DATA_SHEET, "bf16", most)
        assert len(rows) == min(most + 1, len(profile.operators))
        shares = [float(row["of the step"].removesuffix("%")) for row in rows]
        assert sum(shares) == pytest.approx(100, abs=0.05 * len(rows))  # each is rounded
        longest = [one.seconds for one in sorted(profile.operators, key=lambda o: -o.seconds)]
        assert rows[0]["ms"] == f"{1e3 * longest[0]:.3f}"


def test_an_operator_at_half_a_rate_says_of_which():
    rows = longest_rows(a_profile(Setting("nin")).operators, DATA_SHEET, "bf16", 1000)
    assert {row["of the data sheet"].partition(" ")[0] for row in rows} == {"50%"}
    by_limit = {row["of the data sheet"].partition(" ")[2]: row for row in rows}
    assert by_limit["memory"]["GB/s"] == f"{DATA_SHEET.bandwidth() / 2e9:,.0f}"
    assert by_limit["peak"]["TFLOP/s"] == f"{DATA_SHEET.peak('bf16') / 2e12:,.0f}"


def test_without_a_layer_or_a_data_sheet_nothing_is_said_of_rates():
    unknown = OperatorTime("dropout", Place.UNCOUNTED, None, None, 1.0, 1e-3, ())
    outside = replace(unknown, name="index_select", place=Place.OUTSIDE)
    several = replace(unknown, name="relu", place=Place.COUNTED, calls=3.0)
    rows = longest_rows([unknown, outside, several], DATA_SHEET, "bf16", 5)
    assert [row["layer"] for row in rows] == ["no layer", "outside the network", "several layers"]
    for row in rows:
        assert (row["GB/s"], row["TFLOP/s"], row["of the data sheet"]) == ("", "", "")
    for row in longest_rows(a_profile().operators, None, "bf16", 1000):
        assert row["GB/s"]
        assert row["of the data sheet"] == ""


def cells(tables: figures.Tables) -> Iterator[tuple[str, list[dict[str, str]]]]:
    for heading, frame in tables.frames.items():
        yield heading, [{"layer": i} | dict(row) for i, row in frame.iterrows()]


def test_a_table_has_the_rows_of_each_gpus_profile_under_what_was_profiled():
    of_h100 = a_profile(Setting("nin_28"), slowdown=3.0)
    of_h200 = a_profile(Setting("nin_28"), on=H200)
    others = [a_profile(Setting("nin_28", 8)), a_profile(Setting("googlenet_28"))]
    shown = figures.longest_operators([of_h100, *others, of_h200], "nin_28", most=4)
    assert [*cells(shown)] == [
        (one.in_words, longest_rows(one.operators, one.data_sheet, "bf16", 4))
        for one in (of_h100, of_h200)
    ]
    assert "replayed as a graph" in of_h100.in_words


def test_a_profile_of_a_cpu_is_no_gpus():
    cpu = replace(a_profile(Setting("nin_28")), device=ON_CPU)
    (heading,) = figures.longest_operators([cpu], "nin_28").frames
    assert "no GPU has profiled this step yet" in heading


def test_without_a_profile_a_table_says_so_and_has_the_least_times_and_no_rates():
    setting = Setting("nin")
    ((heading, rows),) = cells(figures.longest_operators([], "nin", most=1000))
    assert heading.startswith("Nothing in this table is measured, for no GPU has profiled this")
    assert DATA_SHEET.title in heading
    least = at_the_least(step_operators(setting), DATA_SHEET, "bf16")
    in_full = longest_rows(least, DATA_SHEET, "bf16", 1000)
    assert {row["of the data sheet"].partition(" ")[0] for row in in_full} == {"100%"}
    assert [row["least ms"] for row in rows] == [row["ms"] for row in in_full]
    (measured,) = figures.longest_operators([a_profile(setting)], "nin").frames.values()
    assert set(RATES) <= set(measured.columns)
    assert set(rows[0]) == {"layer", "operator", "least ms", "of their sum"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"network": "no_such"}, "no_such"),
        ({"network": "nin", "kernels": "mine"}, "mine"),
        ({"network": "nin", "precision": "fp64"}, "fp64"),
        ({"network": "nin", "device_name": "h1000"}, "h1000"),
    ],
)
def test_a_table_of_what_there_is_not_is_refused(asked, said):
    with pytest.raises(UnknownNameError, match=said):
        figures.longest_operators([], **asked)
