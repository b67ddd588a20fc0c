"""The plans are complete, ordered by seed, and choose learning rates without the test set."""

import statistics
from dataclasses import replace
from itertools import combinations, groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ninlab import experiments, failures, records
from ninlab.architectures import ARCHITECTURES, architecture, normalized, variant_of
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.experiments import (
    PLANS,
    REST,
    Experiment,
    PlannedRun,
    RateRule,
    Ready,
    Row,
    Stage,
    best_rate,
    plans,
    ready,
    safe_rate,
)
from ninlab.layers import BatchNorm
from ninlab.recipes import EvaluationSet
from ninlab.records import LossCurve, Outcome, RunRecord
from ninlab.relapses import relapse
from ninlab.steps import Precision
from tests.records import A_RECORD

EACH_PLAN = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
H100 = "nvidia-h100-80gb-hbm3"
RUN_IDS = {name: [run.id("cpu") for run in plan.runs] for name, plan in PLANS.items()}


def swept(rate: float, accuracy: float, outcome: Outcome = Outcome.FINISHED):
    """A sweep's record at that rate with that held-out accuracy."""
    recipe = replace(A_RECORD.recipe, learning_rate=rate, evaluation_set=EvaluationSet.HELD_OUT)
    epochs = (replace(A_RECORD.last, test_accuracy=accuracy),)
    return replace(
        A_RECORD, experiment=experiments.SWEEP, recipe=recipe, epochs=epochs, outcome=outcome
    )


JUDGED = A_RECORD.network


def row_of(run: PlannedRun) -> tuple[str, str]:
    return run.experiment, run.row.name


@EACH_PLAN
def test_a_rate_is_chosen_by_runs_of_the_kernels_that_train_at_it(plan):
    for row in plan.by_path.values():
        judges = {plan.by_path[path].recipe.kernels for path in row.rate_from}
        assert judges <= {row.recipe.kernels}


@pytest.mark.parametrize("rule", RateRule)
def test_no_rate_is_chosen_among_runs_by_two_kernels(rule):
    torchs = swept(0.1, 0.8)
    fused = replace(torchs, recipe=replace(torchs.recipe, learning_rate=0.2, kernels="fused"))
    with pytest.raises(NinlabError, match="of the same kernels, not of fused and torch"):
        rule.rate([torchs, fused], JUDGED)


def test_no_two_runs_of_any_plan_share_an_id():
    ids = [identifier for of_plan in RUN_IDS.values() for identifier in of_plan]
    assert len(ids) == len(set(ids))


@EACH_PLAN
def test_within_a_stage_seed_0_of_everything_comes_before_any_other_seed(plan):
    stages = [(stage, list(runs)) for stage, runs in groupby(plan.runs, lambda run: run.stage)]
    assert [stage for stage, _ in stages] == [*(one.name for one in plan.stages), REST]
    for _, runs in stages:
        seeds = [run.seed for run in runs]
        assert seeds == sorted(seeds)


def test_the_compact_plan_has_one_stage_in_the_order_of_its_experiments():
    first = [run.experiment for run in PLANS["compact"].runs if run.seed == 0]
    assert list(dict.fromkeys(first)) == [one.name for one in PLANS["compact"].experiments]


@EACH_PLAN
def test_a_stage_ends_with_the_seeds_that_it_names(plan):
    made: dict[str, set[int]] = {}
    for stage in plan.stages:
        for run in plan.runs:
            if run.stage == stage.name:
                made.setdefault("/".join(row_of(run)), set()).add(run.seed)
        for name, seeds in stage.seeds.items():
            for path in [name] if "/" in name else plan.experiment(name).by_path:
                assert made[path] >= set(range(seeds)), stage.name
                assert seeds <= plan.by_path[path].seeds


def test_no_stage_of_the_full_plan_is_longer_than_a_gpu_is_lent():
    plan = PLANS["full"]
    estimates = plan.estimates(records.load(), plan.made_on(records.load()))
    for stage in plan.stages:
        of_stage = [run.row for run in plan.runs if run.stage == stage.name]
        assert sum(estimates.seconds(row.network, row.recipe) for row in of_stage) < 15 * 60


@EACH_PLAN
def test_every_row_that_chooses_a_rate_is_trained_once_at_a_rate_of_its_own(plan):
    for row in plan.by_path.values():
        sweep = [plan.by_path[path] for path in row.rate_from]
        assert len({(one.network, one.recipe.learning_rate) for one in sweep}) == len(sweep)
        judge = row.rate_judge or row.network
        assert not sweep or any(one.network == judge for one in sweep)


def test_a_stage_that_names_what_is_not_there_is_refused():
    for name in ("colapse", "collapse/nine"):
        plan = replace(PLANS["full"], stages=(Stage("first", "a typing error", {name: 1}),))
        with pytest.raises(UnknownNameError):
            plan.runs  # noqa: B018


def test_part_of_a_plan_keeps_the_order_of_the_whole():
    plan = PLANS["full"]
    part = plan.only(["collapse", "head"])
    assert [run.id("gpu") for run in part.runs] == [
        run.id("gpu") for run in plan.runs if run.experiment in ("collapse", "head")
    ]


def test_what_the_first_stage_of_the_full_plan_showed_is_what_the_others_are_made_for():
    """The reasons beside the plan, held against the records that they speak of."""
    first = {run.id(H100) for run in PLANS["full"].runs if run.stage == "first"}
    runs = [run for run in records.load() if run.id in first]
    assert len(runs) == 19
    steps_an_epoch = runs[0].recipe.steps_an_epoch
    fell = [at.step / steps_an_epoch for run in runs if (at := relapse(run)) is not None]
    assert (len(fell), sum(epoch > 3 for epoch in fell)) == (7, 5)
    held = {
        run.name
        for run in runs
        if relapse(run) is None and run.outcome is Outcome.FINISHED and run.last.test_accuracy > 0.5
    }
    tried = PLANS["full"].experiment(experiments.SWEEP).rows
    assert {row.network for row in tried if row.recipe.learning_rate == 0.1} <= held
    assert not {row.network for row in tried if row.recipe.learning_rate == 0.0125} & held


def test_the_endings_of_one_seed_have_nothing_in_common():
    by_row: dict[tuple[str, str], dict[int, float]] = {}
    for run in records.load():
        if run.device.slug == "cpu" and run.experiment not in (experiments.SWEEP, "single"):
            by_row.setdefault((run.experiment, run.name), {})[run.seed] = run.last.test_accuracy
    rows = [[of[seed] for seed in range(3)] for of in by_row.values() if {0, 1, 2} <= set(of)]
    pairs = [statistics.correlation(a, b) for a, b in combinations(rows, 2)]
    assert len(rows) >= 18
    assert abs(statistics.fmean(pairs)) < 0.1


@EACH_PLAN
def test_every_row_has_the_seeds_below_its_number(plan):
    for experiment in plan.experiments:
        for row in experiment.rows:
            seeds = [run.seed for run in plan.runs if row_of(run) == (experiment.name, row.name)]
            assert seeds == list(range(row.seeds))


@EACH_PLAN
def test_every_experiment_asks_a_question_about_known_networks(plan):
    for experiment in plan.experiments:
        assert experiment.question.endswith("?")
        assert {row.network for row in experiment.rows} <= set(ARCHITECTURES)


@EACH_PLAN
def test_the_question_about_the_baselines_names_those_that_are_trained_and_no_other(plan):
    asked = plan.experiment("baselines")
    families = {"AlexNet": "alexnet", "VGG": "vgg", "GoogLeNet": "googlenet"}
    named = {family for title, family in families.items() if title in asked.question}
    assert named == {architecture(row.network).family for row in asked.rows}


@EACH_PLAN
def test_every_borrowed_row_is_run_by_another_experiment_of_the_plan(plan):
    rows = {"/".join(row_of(run)) for run in plan.runs}
    for experiment in plan.experiments:
        assert set(experiment.compare_with) <= rows


@EACH_PLAN
def test_rows_that_stand_in_one_table_have_names_of_their_own(plan):
    for experiment in plan.experiments:
        names = [path.partition("/")[2] for path in experiment.compare_with]
        names += [row.name for row in experiment.rows]
        assert len(set(names)) == len(names)


@EACH_PLAN
def test_a_sweep_comes_before_the_runs_that_wait_for_it(plan):
    order = [run.id("cpu") for run in plan.runs]
    waiting = [run for run in plan.runs if run.row.rate_from]
    assert bool(waiting) == ("own_rate" in {one.name for one in plan.experiments})
    for run in waiting:
        for source in run.rate_sources("cpu"):
            assert order.index(source) < order.index(run.id("cpu"))


@EACH_PLAN
def test_sweeps_and_only_sweeps_are_measured_on_held_out_images(plan):
    for run in plan.runs:
        held_out = run.row.recipe.evaluation_set is EvaluationSet.HELD_OUT
        assert held_out == (run.experiment in (experiments.SWEEP, experiments.PEAK_SWEEP))


def designs_of(experiment: Experiment) -> set[tuple[str, str]]:
    networks = [ARCHITECTURES[row.network] for row in experiment.rows]
    return {(network.family, network.variant) for network in networks}


def test_what_a_gpu_is_asked_the_compact_scale_is_asked_too():
    full, compact = (PLANS[name] for name in ("full", "compact"))
    for experiment in full.experiments:
        if experiment.name in ("precision", experiments.PEAK_SWEEP):  # of a GPU's arithmetic
            continue
        small = compact.experiment(experiment.name)
        if experiment.name not in (experiments.SWEEP, "own_rate"):  # tried where it matters
            assert designs_of(experiment) <= designs_of(small)
    recipes = {v.recipe.precision for v in full.experiment("precision").rows}
    assert recipes == {Precision.TF32}


def test_the_middle_scale_asks_what_the_compact_one_asks_of_the_same_designs():
    for experiment in PLANS["middle"].experiments:
        assert designs_of(experiment) <= designs_of(PLANS["compact"].experiment(experiment.name))


@EACH_PLAN
def test_rows_that_are_compared_were_trained_on_as_many_images(plan):
    for experiment in plan.experiments:
        rows = [*experiment.rows, *(plan.by_path[path] for path in experiment.compare_with)]
        assert len({row.recipe.train_images for row in rows}) == 1, experiment.name


@EACH_PLAN
def test_every_row_of_several_seeds_stands_in_one_comparison_or_is_what_others_are_compared_with(
    plan,
):
    compared = [row for _, rows in plan.comparisons for row in rows]
    compared += [square.both for square in plan.squares]
    assert len(set(compared)) == len(compared)
    references = {reference for reference, _ in plan.comparisons}
    several = {path for path, row in plan.by_path.items() if row.seeds > 1}
    assert several <= {*compared, *references}
    for one in plan.experiments:
        beside = set(one.compare_with)
        assert set(one.against) <= {row.name for row in one.rows}
        assert set(one.against.values()) <= beside
        assert len(beside) < 2 or one.is_corner or len(one.against) == len(one.rows)


def test_each_network_without_dropout_is_compared_with_the_same_network_with_it():
    of = {row: reference for reference, rows in PLANS["compact"].comparisons for row in rows}
    for row in PLANS["compact"].experiment("dropout").by_path:
        assert row.split("/")[1] == variant_of(of[row].split("/")[1], "no_dropout").name


def test_the_corners_of_a_square_have_one_recipe_and_two_changes():
    plan = PLANS["compact"]
    assert len(plan.squares) == 2
    for square in plan.squares:
        rows = {corner: plan.by_path[path] for corner, path in square._asdict().items()}
        assert len({row.recipe for row in rows.values()}) == 1
        variant = {
            corner: architecture(row.network).variant.replace("batch_norm", "").strip("_")
            for corner, row in rows.items()
        }
        assert variant["neither"] == ""
        assert variant["both"] == f"{variant['first']}_{variant['second']}"


def test_a_part_of_a_plan_says_which_row_it_lacks_to_be_compared():
    with pytest.raises(UnknownNameError, match="collapse/nin_28"):
        _ = PLANS["compact"].only(["window"]).comparisons


@pytest.mark.parametrize("name", ["compact", "full"])
def test_every_exercise_is_asked_under_the_better_recipe_at_one_rate(name):
    plan = PLANS[name]
    asked = [one for one in plan.experiments if one.name in plans.AGAIN]
    assert {one.name.removesuffix("_improved") for one in asked} == {
        exercise.name for exercise in plans.EXERCISES
    }
    (reference,) = {path for one in asked for path in one.compare_with}
    for row in (row for one in asked for row in one.rows):
        assert row.recipe == plan.by_path[reference].recipe
        assert row.rate_from == plan.by_path[reference].rate_from
        assert is_normalized(row)


def test_on_a_gpu_the_row_that_all_others_are_compared_with_has_the_most_seeds():
    plan = PLANS["full"]
    asked = [plan.experiment(name) for name in plans.AGAIN]
    (reference,) = {path for one in asked for path in one.compare_with}
    assert {row.seeds for one in asked for row in one.rows} < set(
        range(plan.by_path[reference].seeds)
    )


@pytest.mark.parametrize("name", plans.AGAIN)
def test_the_compact_scale_asks_the_same_designs_under_both_recipes(name):
    compact = PLANS["compact"]
    plain = compact.experiment(name.removesuffix("_improved"))
    assert [row.network for row in compact.experiment(name).rows] == [
        variant_of(row.network, normalized(ARCHITECTURES[row.network].variant)).name
        for row in plain.rows
    ]


def is_normalized(row: Row) -> bool:
    return any(type(layer) is BatchNorm for _, layer in ARCHITECTURES[row.network].named_leaves())


def test_a_compact_row_has_the_more_seeds_the_more_its_recipe_spreads():
    own_rates = {
        (run.name, run.recipe.learning_rate)
        for run in records.load()
        if (run.experiment, run.device.slug) == ("own_rate", "cpu")
    }
    for path, row in PLANS["compact"].by_path.items():
        experiment = path.partition("/")[0]
        if experiment == experiments.SWEEP:
            wanted = 1
        elif row.recipe.train_images is not None:
            wanted = plans.WIDE_IMPROVED_SEEDS if row.recipe.momentum else plans.WIDE_SEEDS
        elif row.recipe.momentum:
            wanted = plans.IMPROVED_SEEDS
        elif is_normalized(row):
            wanted = plans.NORMALIZED_SEEDS
        elif experiment == "own_rate" and (row.name, row.recipe.learning_rate) in own_rates:
            wanted = 3  # its own rate is the common one: its runs repeat others
        else:
            wanted = plans.PLAIN_SEEDS
        assert row.seeds == wanted, path


def test_vgg11_is_trained_once_and_after_all_that_is_wanted_more():
    runs = [run for run in PLANS["full"].runs if run.stage != REST]
    assert [run.row.network for run in runs].index("vgg11") == len(runs) - 1


def test_the_full_plan_keeps_the_weights_of_one_run():
    """Two would make what a GPU machine is sent too large to travel."""
    kept = [run.id("gpu") for run in PLANS["full"].runs if run.keeps_weights]
    assert kept == ["collapse/nin_fixed-seed0-gpu"]


def test_what_is_recorded_of_a_plan_is_what_the_plan_asks_for():
    found = {run.id: run for run in records.load()}
    failed = {failure.run for failure in failures.load(records.runs_folder())}
    made = [
        (planned, found[planned.id(device)], device)
        for device in {run.device.slug for run in found.values()}
        for plan in PLANS.values()
        for planned in plan.runs
        if planned.id(device) in found
    ]
    assert made
    for planned, run, device in made:
        asked = planned.row
        assert run.network == asked.network
        sources = set(planned.rate_sources(device))
        assert sources - set(run.learning_rate_from) <= failed
        sweep = [found[identifier] for identifier in run.learning_rate_from]
        rate = asked.recipe.learning_rate
        if sweep:
            rate = asked.rate_rule.rate(sweep, asked.rate_judge or asked.network)
        assert run.recipe == replace(asked.recipe, learning_rate=rate)
        assert set(run.learning_rate_from) <= sources
        assert (run.weights_sha256 is not None) == planned.keeps_weights


def test_every_network_is_still_the_one_that_was_recorded():
    for run in records.current(records.load()):
        assert ARCHITECTURES[run.network].digest == run.network_digest, run.id


def test_two_precisions_are_compared_in_recipes_that_differ_in_nothing_else():
    plan = PLANS["full"]
    (ours,) = plan.experiment("precision").rows
    (path,) = plan.experiment("precision").compare_with
    theirs = next(run.row for run in plan.runs if "/".join(row_of(run)) == path)
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
@given(data=st.data())
def test_what_fits_a_budget_is_missing_ready_and_no_longer_than_it(plan, data):
    recorded = data.draw(st.sets(st.sampled_from(RUN_IDS[plan.name])))
    budget = data.draw(st.floats(0, 10_000))
    estimates = plan.estimates()
    fitting = plan.fitting(recorded, "cpu", estimates, budget)
    made = set(recorded)
    for run in fitting:
        assert run.id("cpu") not in made
        assert made.issuperset(run.rate_sources("cpu"))
        made.add(run.id("cpu"))
    seconds = [estimates.seconds(run.row.network, run.row.recipe) for run in fitting]
    assert sum(seconds) <= budget + 1e-6
    left = [run for run in plan.missing(made, "cpu") if made.issuperset(run.rate_sources("cpu"))]
    for run in left:
        assert estimates.seconds(run.row.network, run.row.recipe) > budget - sum(seconds)


@EACH_PLAN
def test_without_a_budget_all_that_is_missing_fits(plan):
    assert plan.fitting((), "cpu", plan.estimates(), None) == list(plan.runs)


# ---------------------------------------------------------------- choosing a rate


@given(st.lists(st.tuples(st.floats(1e-3, 1), st.integers(0, 100)), min_size=1, max_size=6))
def test_the_best_rate_is_the_smallest_of_the_most_accurate(points):
    chosen = best_rate([swept(rate, accuracy / 100) for rate, accuracy in points], JUDGED)
    top = max(accuracy for _, accuracy in points)
    assert chosen == min(rate for rate, accuracy in points if accuracy == top)


def test_a_run_that_did_not_finish_is_never_the_best():
    sweep = [swept(0.1, 0.5), swept(0.2, 0.9, Outcome.STUCK), swept(0.4, 0.9, Outcome.DIVERGED)]
    assert best_rate(sweep, JUDGED) == 0.1
    assert best_rate(sweep[1:], JUDGED) == 0.2  # nothing finished: the smallest


def test_a_rate_is_not_chosen_on_the_test_set():
    with pytest.raises(NinlabError, match="measured on test images"):
        best_rate([swept(0.1, 0.5), A_RECORD], JUDGED)


def test_a_rate_from_which_on_another_network_is_harmed_is_not_the_best():
    sweep = [swept(0.1, 0.5), swept(0.2, 0.8), swept(0.4, 0.9)]

    def chosen(rate, outcome=Outcome.FINISHED):
        return replace(swept(rate, 0.9, outcome), network="nin_28_no_1x1")

    assert best_rate(sweep, JUDGED) == 0.4
    assert best_rate([*sweep, chosen(0.2)], JUDGED) == 0.4
    assert best_rate([chosen(0.2, Outcome.DIVERGED), *sweep], JUDGED) == 0.1  # 0.4 is above it
    assert best_rate([*sweep, fallen_back(chosen(0.4))], JUDGED) == 0.2
    assert best_rate([sweep[1], chosen(0.1, Outcome.STUCK)], JUDGED) == 0.2  # nothing is left
    with pytest.raises(NinlabError, match="no run of nin_28_3x3 is in the sweep"):
        best_rate(sweep, "nin_28_3x3")


def fallen_back(run: RunRecord) -> RunRecord:
    """The same run, its loss back at guessing in the end."""
    return replace(run, loss=LossCurve(20, (2.3, 0.5, 0.4, 2.3)))


@given(st.lists(st.tuples(st.sampled_from((0.1, 0.2, 0.3, 0.4)), st.booleans()), min_size=1))
def test_a_safe_rate_is_the_highest_below_which_no_run_fell_back(tried):
    steady = replace(A_RECORD, loss=LossCurve(20, (2.3, 0.5, 0.4)))
    sweep = [
        replace(run, recipe=replace(run.recipe, learning_rate=rate))
        for rate, holds in tried
        for run in [steady if holds else fallen_back(steady)]
    ]
    broken = [rate for rate, holds in tried if not holds]
    held = [rate for rate, _ in tried if rate < min(broken, default=1)]
    assert safe_rate(sweep) == max(held, default=min(rate for rate, _ in tried))


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.STUCK])
def test_a_rate_at_which_a_run_did_not_finish_is_not_safe(outcome):
    assert safe_rate([swept(0.1, 0.5), swept(0.2, 0.9, outcome)]) == 0.1


def test_a_run_whose_sweep_failed_is_ready_with_what_is_left_of_it():
    run = next(run for run in PLANS["compact"].runs if run.row.rate_from)
    first, second, *rest = run.rate_sources("cpu")
    found = {second: replace(swept(0.05, 0.5), network=run.row.network)}
    assert ready(run, found, "cpu", failed={first}) is None
    chosen = ready(run, found, "cpu", failed={first, *rest})
    assert chosen.recipe.learning_rate == 0.05
    assert chosen.chosen_by == (found[second].id,)
    assert ready(run, {}, "cpu", {first, second, *rest}) == Ready(run.row.recipe)


def whole_sweep(run: PlannedRun) -> dict[str, RunRecord]:
    """What chooses that run's rate, by id; the best of four is 0.2."""
    points = zip((0.1, 0.2, 0.3, 0.4), (0.5, 0.8, 0.7, 0.6), strict=True)
    made = [replace(swept(*point), network=run.row.network) for point in points]
    return dict(zip(run.rate_sources("cpu"), made, strict=True))


def test_the_rate_of_a_rows_first_run_stands_though_its_sweep_has_grown():
    run = next(run for run in PLANS["compact"].runs if run.row.rate_from and run.seed == 1)
    found, sources = whole_sweep(run), run.rate_sources("cpu")
    assert ready(run, found, "cpu").recipe.learning_rate == 0.2
    earlier = replace(swept(0.1, 0.9), learning_rate_from=sources[:1])
    with_sibling = found | {replace(run, seed=0).id("cpu"): earlier}
    assert ready(run, with_sibling, "cpu") == Ready(
        replace(run.row.recipe, learning_rate=0.1), sources[:1]
    )


def test_a_run_is_ready_when_its_sweep_is_whole():
    run = next(run for run in PLANS["compact"].runs if run.row.rate_from)
    sweep = whole_sweep(run)
    assert ready(run, dict(list(sweep.items())[:-1]), "cpu") is None
    assert ready(run, sweep, "cpu").recipe == replace(run.row.recipe, learning_rate=0.2)


# ---------------------------------------------------------------- looking things up


def test_an_unknown_plan_and_an_unknown_experiment_are_refused_by_name():
    with pytest.raises(UnknownNameError, match="unknown plan 'compcat'; did you mean 'compact'"):
        experiments.plan("compcat")
    with pytest.raises(UnknownNameError, match="unknown experiment 'colapse'"):
        PLANS["full"].experiment("colapse")
