"""The plans are complete, ordered by seed, and choose learning rates without the test set."""

import math
import statistics
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import experiments, records
from ninlab.architectures import ARCHITECTURES
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.experiments import PLANS, PlannedRun, best_rate, ready_recipe
from ninlab.measurement import load_records
from ninlab.recipes import EvaluationSet, Precision
from ninlab.records import Outcome, RunRecord
from tests.test_records import A_RECORD

EACH_PLAN = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
RUN_IDS = {name: [run.id("cpu") for run in plan.runs] for name, plan in PLANS.items()}


def swept(rate: float, accuracy: float, outcome: Outcome = Outcome.FINISHED):
    """A sweep's record at that rate with that held-out accuracy."""
    recipe = replace(A_RECORD.recipe, learning_rate=rate, evaluation_set=EvaluationSet.HELD_OUT)
    epochs = (replace(A_RECORD.last, test_accuracy=accuracy),)
    return replace(
        A_RECORD, experiment=experiments.SWEEP, recipe=recipe, epochs=epochs, outcome=outcome
    )


def row(run: PlannedRun) -> tuple[str, str]:
    return run.experiment, run.variant.name


def test_no_two_runs_of_any_plan_share_an_id():
    ids = [identifier for of_plan in RUN_IDS.values() for identifier in of_plan]
    assert len(ids) == len(set(ids))


@EACH_PLAN
def test_seed_0_of_everything_comes_before_any_other_seed(plan):
    seeds = [run.seed for run in plan.runs]
    assert seeds == sorted(seeds)
    rows = {row(run) for run in plan.runs}
    assert {row(run) for run in plan.runs if run.seed == 0} == rows


@EACH_PLAN
def test_every_row_has_the_seeds_below_its_number(plan):
    for experiment in plan.experiments:
        for variant in experiment.variants:
            seeds = [run.seed for run in plan.runs if row(run) == (experiment.name, variant.name)]
            assert seeds == list(range(variant.seeds))


@EACH_PLAN
def test_every_experiment_asks_a_question_of_a_chapter_about_known_networks(plan):
    for experiment in plan.experiments:
        assert experiment.question.endswith("?")
        assert experiment.chapter[:2].isdigit()
        assert {variant.network for variant in experiment.variants} <= set(ARCHITECTURES)


@EACH_PLAN
def test_every_borrowed_row_is_run_by_another_experiment_of_the_plan(plan):
    rows = {"/".join(row(run)) for run in plan.runs}
    for experiment in plan.experiments:
        assert set(experiment.compare_with) <= rows


@EACH_PLAN
def test_rows_that_stand_in_one_table_have_names_of_their_own(plan):
    for experiment in plan.experiments:
        names = [path.partition("/")[2] for path in experiment.compare_with]
        names += [variant.name for variant in experiment.variants]
        assert len(set(names)) == len(names)


@EACH_PLAN
def test_a_sweep_comes_before_the_runs_that_wait_for_it(plan):
    order = [run.id("cpu") for run in plan.runs]
    waiting = [run for run in plan.runs if run.variant.rate_from]
    assert waiting
    for run in waiting:
        for source in run.rate_sources("cpu"):
            assert order.index(source) < order.index(run.id("cpu"))


@EACH_PLAN
def test_sweeps_and_only_sweeps_are_measured_on_held_out_images(plan):
    for run in plan.runs:
        held_out = run.variant.recipe.evaluation_set is EvaluationSet.HELD_OUT
        assert held_out == (run.experiment == experiments.SWEEP)


def test_both_scales_ask_the_same_questions_but_for_precision():
    full, compact = ([e.name for e in PLANS[name].experiments] for name in ("full", "compact"))
    assert full == [*compact, "precision"]
    for name in compact:
        counterparts = [PLANS[scale].experiment(name).variants for scale in PLANS]
        assert len(counterparts[0]) == len(counterparts[1]) or name == experiments.SWEEP
    recipes = {v.recipe.precision for v in PLANS["full"].experiment("precision").variants}
    assert recipes == {Precision.TF32}


def test_the_collapse_is_tried_with_five_seeds_and_everything_small_with_three():
    compact = PLANS["compact"]
    for experiment in compact.experiments:
        wanted = {"collapse": 5, experiments.SWEEP: 1}.get(experiment.name, 3)
        assert {variant.seeds for variant in experiment.variants} == {wanted}


def test_the_plans_take_about_an_hour_of_one_core_and_less_than_one_of_a_gpu():
    assert PLANS["compact"].estimated_seconds < 1.2 * 3600
    assert PLANS["full"].estimated_seconds < 3600


def test_the_full_plans_estimates_are_right_to_a_fifth_for_what_they_are_fitted_to():
    """The H100's first whole runs and two of its measured steps, which stay what they are."""
    commit = "213faead372d9856643130e8aba2108e51a0d890"
    whole = {
        run.id: run
        for run in records.load()
        if run.provenance.commit == commit and len(run.epochs) == run.recipe.epochs
    }
    off = [
        planned.estimated_seconds / whole[identifier].wall_seconds
        for planned in PLANS["full"].runs
        if (identifier := planned.id("nvidia-h100-80gb-hbm3")) in whole
    ]
    assert len(off) == 18
    cost = PLANS["full"].step_cost
    steps = [
        step
        for step in load_records(records.runs_folder())
        if step.provenance.commit == commit
        and (step.case.precision, step.case.mode) == ("bf16", "sgd")
        and step.case.network in ("alexnet", "vgg11")
    ]
    off += [
        cost.step_seconds(step.case.network, step.case.batch_size) / step.measured.median_seconds
        for step in steps
    ]
    assert len(off) == 20
    assert all(0.8 < factor < 1.2 for factor in off)


def test_the_full_plan_keeps_the_weights_of_one_run():
    """Two would make what a GPU machine is sent too large to travel."""
    kept = [run.id("gpu") for run in PLANS["full"].runs if run.keeps_weights]
    assert kept == ["collapse/nin_fixed-seed0-gpu"]


@EACH_PLAN
def test_a_plan_takes_as_long_as_its_experiments_one_after_the_other(plan):
    alone = [replace(plan, experiments=(one,)).estimated_seconds for one in plan.experiments]
    assert plan.estimated_seconds == pytest.approx(sum(alone))


def test_the_estimates_are_those_of_the_machine_to_which_they_were_fitted():
    # StepCost promises a factor of 1.5; single runs had to share their core with other work.
    recorded = {run.id: run for run in records.load() if run.device.name == "AMD EPYC"}
    ratios = [
        sum(epoch.seconds for epoch in recorded[run.id("cpu")].epochs) / run.estimated_seconds
        for run in PLANS["compact"].runs
        if run.id("cpu") in recorded
    ]
    assert 1 / 1.5 < statistics.median(ratios) < 1.5


def test_what_is_recorded_of_a_plan_is_what_the_plan_asks_for():
    found = {run.id: run for run in records.load()}
    made = [
        (planned, found[planned.id(device)], device)
        for device in {run.device.slug for run in found.values()}
        for plan in PLANS.values()
        for planned in plan.runs
        if planned.id(device) in found
    ]
    assert made
    for planned, run, device in made:
        assert run.network == planned.variant.network
        assert run.recipe == ready_recipe(planned, found, device)
        assert run.learning_rate_from == planned.rate_sources(device)
        assert (run.weights_sha256 is not None) == planned.keeps_weights


def test_every_network_is_still_the_one_that_was_recorded():
    for run in records.current(records.load()):
        assert ARCHITECTURES[run.network].digest == run.network_digest, run.id


def test_two_precisions_are_compared_in_recipes_that_differ_in_nothing_else():
    plan = PLANS["full"]
    (ours,) = plan.experiment("precision").variants
    (path,) = plan.experiment("precision").compare_with
    theirs = next(run.variant for run in plan.runs if "/".join(row(run)) == path)
    assert ours.network == theirs.network
    assert replace(ours.recipe, precision=theirs.recipe.precision) == theirs.recipe
    assert plan.experiment("precision").question == (
        f"Does {theirs.recipe.precision} arithmetic cost accuracy against {ours.recipe.precision}?"
    )
    assert ours.recipe.precision is not theirs.recipe.precision


@pytest.mark.parametrize("name", PLANS)
@given(data=st.data())
def test_what_is_missing_is_what_is_not_recorded_in_order(name, data):
    recorded = data.draw(st.sets(st.sampled_from(RUN_IDS[name])))
    missing = [run.id("cpu") for run in PLANS[name].missing(recorded, "cpu")]
    assert missing == [identifier for identifier in RUN_IDS[name] if identifier not in recorded]


@EACH_PLAN
def test_twice_the_epochs_take_twice_as_long(plan):
    def seconds(factor: int) -> float:
        grown = tuple(
            replace(e, variants=tuple(
                replace(v, recipe=replace(v.recipe, epochs=factor * v.recipe.epochs))
                for v in e.variants
            ))
            for e in plan.experiments
        )  # fmt: skip
        return replace(plan, experiments=grown).estimated_seconds

    assert seconds(2) == pytest.approx(2 * seconds(1))


# ---------------------------------------------------------------- choosing a rate


@given(st.lists(st.tuples(st.floats(1e-3, 1), st.integers(0, 100)), min_size=1, max_size=6))
def test_the_best_rate_is_the_smallest_of_the_most_accurate(points):
    chosen = best_rate([swept(rate, accuracy / 100) for rate, accuracy in points])
    top = max(accuracy for _, accuracy in points)
    assert chosen == min(rate for rate, accuracy in points if accuracy == top)


def test_a_run_that_did_not_finish_is_never_the_best():
    sweep = [swept(0.1, 0.5), swept(0.2, 0.9, Outcome.STUCK), swept(0.4, 0.9, Outcome.DIVERGED)]
    assert best_rate(sweep) == 0.1
    assert best_rate(sweep[1:]) == 0.2  # nothing finished: the smallest


def test_a_rate_is_not_chosen_on_the_test_set():
    with pytest.raises(NinlabError, match="measured on test images"):
        best_rate([swept(0.1, 0.5), A_RECORD])


def test_a_run_is_ready_when_its_sweep_is_whole():
    plan = PLANS["compact"]
    run = next(run for run in plan.runs if run.variant.rate_from)
    sources = run.rate_sources("cpu")
    sweep = {
        source: swept(rate, accuracy)
        for source, rate, accuracy in zip(
            sources, (0.1, 0.2, 0.3, 0.4), (0.5, 0.8, 0.7, 0.6), strict=True
        )
    }
    assert ready_recipe(run, dict(list(sweep.items())[:-1]), "cpu") is None
    assert ready_recipe(run, sweep, "cpu") == replace(run.variant.recipe, learning_rate=0.2)


# ---------------------------------------------------------------- looking things up


def test_an_unknown_plan_and_an_unknown_experiment_are_refused_by_name():
    with pytest.raises(UnknownNameError, match="unknown plan 'compcat'; did you mean 'compact'"):
        experiments.plan("compcat")
    with pytest.raises(UnknownNameError, match="unknown experiment 'colapse'"):
        PLANS["full"].experiment("colapse")


def test_an_experiments_runs_come_with_those_beside_it_in_its_order():
    plan = PLANS["compact"]
    family = plan.experiment("family")
    found = [
        replace(A_RECORD, experiment=e, name=name, seed=seed)
        for seed in (1, 0)
        for e, name in [("family", v.name) for v in family.variants]
        + [("collapse", "nin_28"), ("collapse", "nin_28_textbook")]
    ]
    runs = experiments.runs_of(family, found)
    assert list(runs) == ["nin_28", *(variant.name for variant in family.variants)]
    assert all(a.seed < b.seed for of_row in runs.values() for a, b in pairwise(of_row))


@pytest.mark.parametrize("order", [1, -1])
def test_a_second_device_repeats_seeds_and_is_never_pooled_with_the_first(order):
    family = PLANS["compact"].experiment("family")
    found = recorded("compact", "family")
    other = [on_another_device(run) for run in found]
    rows = {name: [run.seed for run in group] for name, group in
            experiments.runs_of(family, found).items()}  # fmt: skip
    both = experiments.runs_of(family, [*found, *other][::order])
    assert {name: [run.seed for run in group] for name, group in both.items()} == rows
    assert len({run.device.slug for group in both.values() for run in group}) == 1


def test_the_device_that_made_more_of_an_experiments_rows_answers_it():
    family = PLANS["compact"].experiment("family")
    found = recorded("compact", "family")
    answering = experiments.runs_of(family, [*found[1:], *map(on_another_device, found)])
    assert {run.device.slug for group in answering.values() for run in group} == {"another"}


def test_dead_class_floors_rise_from_nothing_to_guessing():
    floors = [experiments.loss_floor(dead, 10) for dead in range(11)]
    roofs = [experiments.accuracy_roof(dead, 10) for dead in range(11)]
    assert floors[0] == 0
    assert roofs[0] == 1
    assert floors[10] == pytest.approx(math.log(10))
    assert all(a < b for a, b in pairwise(floors))
    assert roofs[9] == roofs[10] == 0.1  # somebody is always guessed


@given(st.integers(0, 10), st.integers(0, 10))
def test_a_class_that_is_never_predicted_adds_less_to_the_floor_than_a_dead_one(dead, lost):
    floor = experiments.loss_floor(dead, 10, never_predicted=lost)
    assert experiments.loss_floor(dead, 10) <= floor <= experiments.loss_floor(max(dead, lost), 10)
    assert floor <= math.log(10)


def test_every_recorded_run_respects_the_roof_and_the_floor_of_its_lost_classes():
    for run in records.load():
        sizes = sorted(sum(row) for row in run.confusion)
        roof = sum(sizes[run.never_predicted :]) / sum(sizes)
        assert run.last.test_accuracy <= roof + 1e-9, run.id
        if len(set(sizes)) == 1:  # held-out images are not equally many of each class
            assert roof == pytest.approx(experiments.accuracy_roof(run.never_predicted, 10))
            least = experiments.loss_floor(0, 10, run.never_predicted)
            assert run.last.test_loss is None or run.last.test_loss >= least, run.id


def recorded(plan_name: str, experiment_name: str):
    """A run of every variant of that experiment, at the variant's network and rate."""
    experiment = PLANS[plan_name].experiment(experiment_name)
    return [
        replace(
            A_RECORD,
            experiment=experiment_name,
            name=variant.name,
            network=variant.network,
            input_shape=ARCHITECTURES[variant.network].input_shape,
            recipe=replace(A_RECORD.recipe, learning_rate=variant.recipe.learning_rate),
        )
        for variant in experiment.variants
    ]


def on_another_device(run: RunRecord) -> RunRecord:
    return replace(run, device=replace(run.device, slug="another"))


def test_an_answer_is_of_the_scale_that_was_asked_and_of_no_other():
    compact, full = recorded("compact", "collapse"), recorded("full", "collapse")
    for scale, own in (("compact", compact), ("full", full)):
        shown = experiments.answer("collapse", compact + full, scale)
        assert shown.plan.name == scale
        assert [run.name for group in shown.runs.values() for run in group] == [
            run.name for run in own
        ]
    assert experiments.answer("collapse", compact, "full").runs == {}
    assert experiments.answer("collapse", full[1:], "full").runs.keys() == {
        run.name for run in full[1:]
    }
    with pytest.raises(UnknownNameError, match="unknown plan"):
        experiments.answer("collapse", compact, "huge")


def test_rows_are_called_by_their_networks_title_and_by_their_rate_where_two_share_it():
    answer = experiments.answer("collapse", recorded("compact", "collapse"))
    titles = list(answer.titled)
    assert len(titles) == len(answer.runs)
    assert "NiN at 28x28" in titles
    assert "NiN at 28x28, textbook start, rate 0.05" in titles


@pytest.mark.parametrize("scale", experiments.PLANS)
def test_a_comparison_has_the_rows_that_are_recorded_in_the_order_of_its_labels(scale):
    family, collapse = recorded(scale, "family"), recorded(scale, "collapse")
    labels = {"": "four", "_8_blocks": "eight", "_6_blocks": "six"}
    rows = experiments.comparison(["family"], labels, family + collapse, scale)
    assert list(rows) == ["four", "eight", "six"]
    part = [run for run in family if not run.name.endswith("_8_blocks")]
    assert list(experiments.comparison(["family"], labels, part + collapse, scale)) == [
        "four",
        "six",
    ]
    assert list(experiments.comparison(["family"], labels, collapse, scale)) == ["four"]


@pytest.mark.parametrize("scale", experiments.PLANS)
def test_without_the_network_compared_with_there_is_no_comparison(scale):
    assert experiments.comparison(["family"], {"": "four", "_6_blocks": "six"},
                                  recorded(scale, "family"), scale) == {}  # fmt: skip


def test_the_rows_of_a_comparison_are_of_one_device_that_has_what_they_are_compared_with():
    labels = {"": "four", "_6_blocks": "six", "_8_blocks": "eight"}
    family, collapse = recorded("full", "family"), recorded("full", "collapse")
    elsewhere = [on_another_device(run) for run in family for _ in range(2)]
    rows = experiments.comparison(["family"], labels, family[:1] + collapse + elsewhere, "full")
    assert list(rows) == ["four", "six"]  # the other device has more, and nothing to compare with
    theirs = elsewhere + [on_another_device(run) for run in collapse]
    rows = experiments.comparison(["family"], labels, family[:1] + collapse + theirs, "full")
    assert list(rows) == ["four", "six", "eight"]
    assert {run.device.slug for group in rows.values() for run in group} == {"another"}


def test_several_questions_are_answered_by_one_device():
    labels = {"": "two", "_no_1x1": "none", "_3x3": "3x3"}
    here = [run for name in ("collapse", "one_by_one") for run in recorded("full", name)]
    there = [on_another_device(run) for name in ("collapse", "window")
             for run in recorded("full", name)]  # fmt: skip
    rows = experiments.comparison(["one_by_one", "window"], labels, here + there, "full")
    assert len({run.device.slug for group in rows.values() for run in group}) == 1


def test_a_rate_of_its_own_is_a_row_where_it_is_not_the_common_rate():
    runs = [run for name in ("family", "collapse") for run in recorded("compact", name)]
    common = experiments.COMPACT_SCALE.fixed_rate
    own = [
        replace(run, recipe=replace(run.recipe, learning_rate=rate))
        for run in recorded("compact", "own_rate")
        for rate in [common / 2 if run.name.endswith("8_blocks") else common]
    ]
    labels = {"_6_blocks": "six", "": "four", "_8_blocks": "eight"}
    rows = experiments.comparison(["family"], labels, runs + own, "compact")
    assert list(rows) == [*labels.values(), f"eight, rate {common / 2:g}"]


def test_an_experiment_that_compares_with_no_other_compares_with_its_first_variant():
    runs = recorded("compact", "collapse")
    rows = experiments.comparison(["collapse"], {"": "as printed"}, runs, "compact")
    assert [run.name for run in rows["as printed"]] == [runs[0].name]
