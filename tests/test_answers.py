"""A page shows the runs that answer its question: of one scale, of one device, in its order."""

from dataclasses import replace
from itertools import pairwise

import pytest

from ninlab import answers, records
from ninlab.answers import Recorded, comparison, labeled_runs, runs_of
from ninlab.architectures import ARCHITECTURES, architecture
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.experiments import PLANS, plans
from ninlab.records import RunRecord
from tests.records import A_RECORD, H100, H200

WITH_FAMILY = [
    scale for scale, plan in PLANS.items() if "family" in {one.name for one in plan.experiments}
]


def test_an_experiments_runs_come_with_those_beside_it_in_its_order():
    plan = PLANS["compact"]
    family = plan.experiment("family")
    found = [
        replace(A_RECORD, experiment=e, name=name, seed=seed)
        for seed in (1, 0)
        for e, name in [("family", row.name) for row in family.rows]
        + [("collapse", "nin_28"), ("collapse", "nin_28_textbook")]
    ]
    runs = runs_of(family, found)
    assert list(runs) == ["nin_28", *(row.name for row in family.rows)]
    assert all(a.seed < b.seed for of_row in runs.values() for a, b in pairwise(of_row))


@pytest.mark.parametrize("order", [1, -1])
def test_a_second_device_repeats_seeds_and_is_never_pooled_with_the_first(order):
    family = PLANS["compact"].experiment("family")
    found = made("compact", "family")
    other = [on_another_device(run) for run in found]
    rows = {name: [run.seed for run in group] for name, group in runs_of(family, found).items()}
    both = runs_of(family, [*found, *other][::order])
    assert {name: [run.seed for run in group] for name, group in both.items()} == rows
    assert len({run.device.slug for group in both.values() for run in group}) == 1


def test_the_device_that_made_more_of_an_experiments_rows_answers_it():
    family = PLANS["compact"].experiment("family")
    found = made("compact", "family")
    answering = runs_of(family, [*found[1:], *map(on_another_device, found)])
    assert {run.device.slug for group in answering.values() for run in group} == {"another"}


def made(plan_name: str, experiment_name: str):
    """A run of every row of that experiment, at the row's network and rate."""
    experiment = PLANS[plan_name].experiment(experiment_name)
    return [
        replace(
            A_RECORD,
            experiment=experiment_name,
            name=row.name,
            network=row.network,
            input_shape=ARCHITECTURES[row.network].input_shape,
            recipe=replace(A_RECORD.recipe, learning_rate=row.recipe.learning_rate),
        )
        for row in experiment.rows
    ]


def on_another_device(run: RunRecord) -> RunRecord:
    return replace(run, device=replace(run.device, slug="another"))


def test_an_answer_is_of_the_scale_that_was_asked_and_of_no_other():
    compact, full = made("compact", "collapse"), made("full", "collapse")
    for scale, own in (("compact", compact), ("full", full)):
        shown = answers.answer("collapse", compact + full, scale)
        assert shown.plan.name == scale
        assert [run.name for group in shown.runs.values() for run in group] == [
            run.name for run in own
        ]
    assert answers.answer("collapse", compact, "full").runs == {}
    assert answers.answer("collapse", full[1:], "full").runs.keys() == {
        run.name for run in full[1:]
    }
    with pytest.raises(UnknownNameError, match="unknown plan"):
        answers.answer("collapse", compact, "huge")


def test_rows_are_called_by_their_networks_title_and_by_their_rate_where_two_share_it():
    answer = answers.answer("collapse", made("compact", "collapse"))
    titles = list(answer.titled)
    assert len(titles) == len(answer.runs)
    assert "NiN at 28x28, repaired" in titles
    assert "NiN at 28x28, textbook start, rate 0.05" in titles


def test_a_readers_labels_stand_for_the_rows_of_either_scale_and_tell_two_rates_apart():
    labels = ["start", "start", *"abcdefg"]
    for scale, rates in (("compact", ("0.1", "0.05")), ("full", ("0.05", "0.1"))):
        found = made(scale, "collapse")
        labeled = answers.answer("collapse", found, scale).labeled(labels)
        assert list(labeled) == [*(f"start, rate {rate}" for rate in rates), *"abcdefg"]
        assert [run.name for group in labeled.values() for run in group] == [
            run.name for run in found
        ]
        part = answers.answer("collapse", [found[0], found[4]], scale).labeled(labels)
        assert list(part) == ["start", "c"]
    with pytest.raises(NinlabError, match=r"8 labels for 9 rows of collapse: nin, nin_lr0\.1"):
        answers.answer("collapse", found, "full").labeled(labels[1:])


@pytest.mark.parametrize("scale", WITH_FAMILY)
def test_a_comparison_has_the_rows_that_are_recorded_in_the_order_of_its_labels(scale):
    family, collapse = made(scale, "family"), made(scale, "collapse")
    labels = {"": "four", "8_blocks": "eight", "6_blocks": "six"}
    rows = comparison(["family"], labels, family + collapse, scale)
    assert list(rows) == ["four", "eight", "six"]
    part = [run for run in family if architecture(run.network).variant != "8_blocks"]
    assert list(comparison(["family"], labels, part + collapse, scale)) == ["four", "six"]
    assert list(comparison(["family"], labels, collapse, scale)) == ["four"]


def test_a_comparison_at_both_scales_is_that_of_either():
    labels = {"": "four", "8_blocks": "eight", "doubling": "four, doubling"}
    found = [made(scale, "family") + made(scale, "collapse") for scale in Recorded._fields]
    book = Recorded(*found)
    small, large = book.compare(["family"], labels)
    assert small == comparison(["family"], labels, book.compact, "compact")
    assert large == comparison(["family"], labels, book.full, "full")
    assert list(small) == list(labels.values())
    assert list(large) == ["four", "eight"]  # a GPU has no time for the other


@pytest.mark.parametrize("scale", WITH_FAMILY)
def test_without_the_network_compared_with_there_is_no_comparison(scale):
    labels = {"": "four", "6_blocks": "six"}
    assert comparison(["family"], labels, made(scale, "family"), scale) == {}


def test_a_label_has_the_runs_of_its_network_at_full_size_and_of_its_counterpart_at_the_other():
    wanted = {
        "as the book has it": ("collapse", "nin"),
        "repaired": ("collapse", "nin_fixed"),
        "eight": ("family", "nin_fixed_8_blocks"),
    }
    networks = {
        "full": ["nin", "nin_fixed", "nin_fixed_8_blocks"],
        "compact": ["nin_28_textbook", "nin_28", "nin_28_8_blocks"],
    }
    found = [run for s in WITH_FAMILY for e in ("family", "collapse") for run in made(s, e)]
    found += made("middle", "collapse")
    for scale, expected in networks.items():
        rows = labeled_runs(wanted, found, scale)
        assert list(rows) == list(wanted)
        assert [run.network for group in rows.values() for run in group] == expected
    part = [run for run in found if run.network != "nin_28"]
    assert list(labeled_runs(wanted, part, "compact")) == ["as the book has it", "eight"]
    eight = wanted.pop("eight")
    rows = labeled_runs(wanted, found, "middle")
    assert [run.network for group in rows.values() for run in group] == [
        "nin_96_textbook",
        "nin_96",
    ]
    with pytest.raises(UnknownNameError, match="unknown variant of nin_96 '8_blocks'"):
        labeled_runs({"eight": eight}, found, "middle")


def test_labeled_runs_are_of_one_device_and_of_networks_with_a_counterpart():
    found = made("full", "collapse")
    other = on_another_device(found[0])
    rows = labeled_runs({"NiN": ("collapse", "nin")}, [other, *found], "full")
    assert {run.device.slug for run in rows["NiN"]} == {found[0].device.slug}
    with pytest.raises(UnknownNameError, match="known: nin, nin_fixed"):
        labeled_runs({"AlexNet": ("improved", "alexnet")}, found, "compact")


def test_compact_rows_stay_those_of_a_cpu_whatever_a_gpu_has_made_of_the_plan():
    own = made("compact", "collapse")
    more = [replace(run, device=H100, seed=seed) for run in own for seed in range(9)]
    rows = labeled_runs({"NiN": ("collapse", "nin")}, [*more, *own], "compact")
    assert {run.device.slug for run in rows["NiN"]} == {"cpu"}


def test_the_rows_of_a_comparison_are_of_one_device_that_has_what_they_are_compared_with():
    labels = {"": "four", "6_blocks": "six", "8_blocks": "eight"}
    family, collapse = made("full", "family"), made("full", "collapse")
    elsewhere = [on_another_device(run) for run in family for _ in range(2)]
    rows = comparison(["family"], labels, family[:1] + collapse + elsewhere, "full")
    assert list(rows) == ["four", "six"]  # the other device has more, and nothing to compare with
    theirs = elsewhere + [on_another_device(run) for run in collapse]
    rows = comparison(["family"], labels, family[:1] + collapse + theirs, "full")
    assert list(rows) == ["four", "six", "eight"]
    assert {run.device.slug for group in rows.values() for run in group} == {"another"}


def test_several_questions_are_answered_by_one_device():
    labels = {"": "two", "no_1x1": "none", "3x3": "3x3"}
    here = [run for name in ("collapse", "one_by_one") for run in made("full", name)]
    elsewhere = [run for name in ("collapse", "window") for run in made("full", name)]
    there = [on_another_device(run) for run in elsewhere]
    rows = comparison(["one_by_one", "window"], labels, here + there, "full")
    assert len({run.device.slug for group in rows.values() for run in group}) == 1


def test_a_rate_of_its_own_is_a_row_where_it_is_not_the_common_rate():
    runs = [run for name in ("family", "collapse") for run in made("compact", name)]
    common = plans.COMPACT.fixed_rate
    own = [
        replace(run, recipe=replace(run.recipe, learning_rate=rate))
        for run in made("compact", "own_rate")
        for rate in [common / 2 if architecture(run.network).variant == "8_blocks" else common]
    ]
    labels = {"6_blocks": "six", "": "four", "8_blocks": "eight"}
    rows = comparison(["family"], labels, runs + own, "compact")
    assert list(rows) == [*labels.values(), f"eight, rate {common / 2:g}"]


def test_rows_that_share_a_label_are_told_apart_by_their_kernels():
    def by(kernels, runs):
        return [replace(run, recipe=replace(run.recipe, kernels=kernels)) for run in runs]

    runs = [run for name in ("family", "collapse") for run in made("compact", name)]
    own = by("fused", made("compact", "own_rate"))
    rate = A_RECORD.recipe.learning_rate
    runs = [replace(run, recipe=replace(run.recipe, learning_rate=rate)) for run in (*runs, *own)]
    rows = comparison(["family"], {"": "four", "8_blocks": "eight"}, runs, "compact")
    assert [*rows] == ["four", "four, fused kernels", "eight", "eight, fused kernels"]
    ours, theirs = (answers.Answer(PLANS["compact"], PLANS["compact"].experiment("head"), {
        "a": [A_RECORD], "b": by(kernels, [A_RECORD])
    }) for kernels in ("torch", "fused"))  # fmt: skip
    title = architecture(A_RECORD.network).title
    assert [*theirs.titled] == [f"{title}, torch kernels", f"{title}, fused kernels"]
    assert [*ours.titled] == [f"{title}, rate {rate:g}"]


def test_an_experiment_that_compares_with_no_other_compares_with_its_first_row():
    runs = made("compact", "collapse")
    rows = comparison(["collapse"], {"": "as printed"}, runs, "compact")
    assert [run.name for run in rows["as printed"]] == [runs[0].name]


def test_the_books_runs_come_by_scale_and_full_size_ones_of_the_device_with_the_most(monkeypatch):
    of_gpu = [replace(run, device=H100) for run in made("full", "family")]
    fewer = [replace(run, device=H200) for run in of_gpu[1:]]
    compact = made("compact", "family")
    monkeypatch.setattr(records, "load", lambda: [*fewer, *compact, *of_gpu])
    assert answers.recorded() == (compact, of_gpu)


def test_the_runs_of_a_scale_are_found_by_its_name_and_are_of_no_other(monkeypatch):
    of_gpu = [replace(run, device=H100) for run in made("full", "collapse")]
    compact, middle = made("compact", "collapse"), made("middle", "collapse")
    monkeypatch.setattr(records, "load", lambda: [*middle, *of_gpu, *compact])
    for scale, own in (("compact", compact), ("middle", middle), ("full", of_gpu)):
        assert answers.recorded_at(scale) == own
        shown = answers.answer("collapse", answers.recorded_at(scale), scale).runs
        assert [run for group in shown.values() for run in group] == own
    assert answers.recorded() == (compact, of_gpu)
    with pytest.raises(UnknownNameError, match="known: compact, middle, full"):
        answers.recorded_at("huge")


def test_a_run_that_a_later_one_corrects_is_not_among_the_books_runs(monkeypatch):
    first, *others = made("compact", "family")
    better = replace(first, seed=77, corrects=first.id)
    monkeypatch.setattr(records, "load", lambda: [first, *others, better])
    assert answers.recorded() == ([*others, better], [])
