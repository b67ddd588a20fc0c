"""Races: each network gets its turns, and what disturbs all of them leaves their ratios alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import race as benchmark
from benchmarks import typed
from benchmarks.race import in_turns
from ninlab.architectures import architecture
from ninlab.errors import NinlabError, RecordError
from ninlab.networks import build
from ninlab.races import FILE, Race, Ratio, Step, load, newest
from tests.races import raced

COSTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 10), min_size=1)
"""Seconds that a turn of each takes on an idle machine."""


class FakeMachine:
    """A clock that only turns move, by their cost times the load of that moment."""

    def __init__(self, load: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 0.0
        self.load = load
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def turns(self, costs: dict[str, float]) -> dict[str, Callable[[], None]]:
        def turn(name: str) -> None:
            self.log.append(name)
            self.now += costs[name] * self.load(self.now)

        return {name: lambda name=name: turn(name) for name in costs}


def on_a_fake(
    costs: dict[str, float], rounds: int, seed: int = 0, **options: float
) -> tuple[FakeMachine, dict[str, list[float]]]:
    machine = FakeMachine()
    shuffle = random.Random(seed)
    taken = in_turns(machine.turns(costs), rounds, shuffle=shuffle, clock=machine.clock, **options)
    return machine, taken


def in_rounds(log: list[str], of: int) -> Iterator[list[str]]:
    for start in range(0, len(log), of):
        yield log[start : start + of]


@given(COSTS, st.integers(1, 6), st.integers())
def test_every_network_takes_one_turn_in_each_round_and_one_to_warm_up(costs, rounds, seed):
    machine, taken = on_a_fake(costs, rounds, seed)
    assert [sorted(turn) for turn in in_rounds(machine.log, len(costs))] == [sorted(costs)] * (
        rounds + 1
    )
    assert {name: len(seconds) for name, seconds in taken.items()} == dict.fromkeys(costs, rounds)


@given(COSTS, st.integers(1, 6))
def test_what_is_timed_is_the_turn_alone_and_never_the_warm_up(costs, rounds):
    machine, taken = on_a_fake(costs, rounds)
    for name, cost in costs.items():
        assert taken[name] == pytest.approx([cost] * rounds)
    assert machine.now == pytest.approx(sum(costs.values()) * (rounds + 1))


def test_the_order_is_another_in_other_rounds_and_the_same_for_the_same_seed():
    costs = dict.fromkeys("abcdef", 1.0)
    one, again, other = (on_a_fake(costs, 10, seed)[0].log for seed in (0, 0, 1))
    assert one == again != other
    assert len({tuple(order) for order in in_rounds(one, 6)}) > 5


def test_each_place_in_a_round_comes_to_each_network():
    log = on_a_fake(dict.fromkeys("abc", 1.0), 300)[0].log[3:]
    for place in range(3):
        counts = [[order[place] for order in in_rounds(log, 3)].count(name) for name in "abc"]
        assert min(counts) > 60  # of 100 expected; fewer has a chance of 1e-6


@given(COSTS, st.floats(0, 20))
def test_no_round_begins_after_the_budget_but_the_first(costs, budget_seconds):
    _, taken = on_a_fake(costs, 50, budget_seconds=budget_seconds)
    a_round = sum(costs.values())
    rounds = len(next(iter(taken.values())))
    assert {len(seconds) for seconds in taken.values()} == {rounds}
    assert rounds == 1 or (rounds - 1) * a_round < budget_seconds * (1 + 1e-9)
    assert rounds == 50 or rounds * a_round >= budget_seconds * (1 - 1e-9)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20))
def test_a_network_takes_exactly_as_long_as_itself(seconds):
    assert raced({"nin": seconds}).ratio("nin", "nin") == Ratio(1.0, 1.0, 1.0)


@given(
    st.lists(st.tuples(*[st.floats(0.1, 10)] * 2), min_size=1, max_size=9),
    st.lists(st.floats(0.1, 100), min_size=9, max_size=9),
)
def test_a_load_that_slows_a_round_as_a_whole_leaves_the_ratio_alone(rounds, loads):
    calm = raced({name: [pair[i] for pair in rounds] for i, name in enumerate("ab")})
    busy = raced(
        {
            name: [pair[i] * load for pair, load in zip(rounds, loads, strict=False)]
            for i, name in enumerate("ab")
        }
    )
    found, wanted = busy.ratio("a", "b"), calm.ratio("a", "b")
    assert asdict(found) == pytest.approx(asdict(wanted))


def test_turns_find_the_ratio_under_a_load_that_comes_and_goes_where_runs_in_a_row_do_not():
    costs = {"a": 1.0, "b": 1.2}
    busy_later = FakeMachine(load=lambda now: 1.0 if now < 300 else 9.0)
    taken = in_turns(busy_later.turns(costs), 200, shuffle=random.Random(0), clock=busy_later.clock)
    assert raced(taken).ratio("b", "a").median == pytest.approx(1.2)
    in_a_row = FakeMachine(load=busy_later.load)
    alone = {
        name: in_turns({name: turn}, 200, shuffle=random.Random(0), clock=in_a_row.clock)[name]
        for name, turn in in_a_row.turns(costs).items()
    }
    assert median(alone["b"]) / median(alone["a"]) > 5


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=30))
def test_a_ratio_is_the_median_and_the_quartiles_of_the_rounds(rounds):
    found = Ratio.of(rounds)
    wanted = np.quantile(rounds, [0.25, 0.5, 0.75])  # outside oracle
    assert [found.low, found.median, found.high] == pytest.approx(list(wanted))


# ---------------------------------------------------------------- a real one, and its file


@pytest.fixture(scope="module")
def tiny() -> Race:
    return benchmark.race(
        ["nin_28", "nin_28_no_1x1"], batch_size=4, steps_a_turn=2, rounds=2, command="a race"
    )


OF_TINY = {"batch_size": 4, "input_shape": (1, 28, 28)}


def of_lanes(race: Race, **changes: object) -> Race:
    return replace(race, lanes=tuple(replace(lane, **changes) for lane in race.lanes))


def test_a_race_has_a_lane_for_each_network_and_kind_of_step(tiny):
    assert [(lane.network, lane.step) for lane in tiny.lanes] == [
        (network, step) for network in ("nin_28", "nin_28_no_1x1") for step in Step
    ]
    for lane in tiny.lanes:
        assert len(lane.seconds) == tiny.rounds == 2
        assert lane.input_shape == architecture(lane.network).input_shape
        assert lane.network_digest == architecture(lane.network).digest
        assert min(lane.seconds) > 0
    assert (tiny.batch_size, tiny.steps_a_turn) == (4, 2)


def test_a_turn_of_training_takes_so_many_steps_of_the_loop():
    images = benchmark.images_for("nin_28", None, 6)
    turn = benchmark.training_turn("nin_28", images, batch_size=2, rounds=2)
    engine = turn.__self__
    assert (engine.steps_an_epoch, len(engine.training)) == (3, 6)
    before = {name: value.clone() for name, value in engine.network.state_dict().items()}
    for _ in range(3):  # the rounds, and one to warm up
        losses, _ = turn()
        assert len(losses) == 3
    after = engine.network.state_dict()
    assert any((before[name] != after[name]).any() for name in before)


def test_a_turn_of_inference_reads_every_batch_once_without_dropout_or_gradients(monkeypatch):
    built = []
    monkeypatch.setattr(
        benchmark, "build", lambda *args, **kwargs: built.append(build(*args, **kwargs)) or built[0]
    )
    images = benchmark.images_for("nin_28", None, 6)
    turn = benchmark.inference_turn("nin_28", images, batch_size=2)
    (network,), seen = built, []
    network.register_forward_hook(lambda module, inputs, scores: seen.append((inputs, scores)))
    turn()
    assert not network.training
    read = torch.cat([images for (images,), _ in seen])
    assert torch.equal(read, images.images.float() / 255)
    assert not any(scores.requires_grad for _, scores in seen)


def test_networks_race_at_another_side_where_it_is_asked_for():
    small = benchmark.race(
        ["nin_28"],
        steps=[Step.INFERENCE],
        batch_size=1,
        steps_a_turn=1,
        rounds=1,
        side=36,
        command="a race",
    )
    assert small.lanes[0].input_shape == (1, 36, 36)


def test_a_race_is_read_as_it_was_written_and_the_newest_counts(tiny, tmp_path):
    output = tmp_path / FILE
    later = replace(tiny, provenance=replace(tiny.provenance, command="another race"))
    for one in (tiny, later, raced({"vgg11": [1.0]})):
        benchmark.append(one, output)
    assert load(tmp_path)[:2] == [tiny, later]
    assert newest(["nin_28_no_1x1"], **OF_TINY, folder=tmp_path) == later
    with pytest.raises(NinlabError, match=r"race\.py nin_28 vgg11_28 --batch-size 4 --side 28"):
        newest(["vgg11_28", "nin_28"], **OF_TINY, folder=tmp_path)
    assert load(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    "changed",
    [
        lambda race: replace(race, batch_size=8),
        lambda race: of_lanes(race, input_shape=(1, 36, 36)),
        lambda race: of_lanes(race, network_digest="0" * 12),
    ],
)
def test_a_later_race_of_another_batch_side_or_network_does_not_take_over(tiny, changed, tmp_path):
    for one in (tiny, changed(tiny)):
        benchmark.append(one, tmp_path / FILE)
    assert newest(tiny.networks, **OF_TINY, folder=tmp_path) == tiny


def test_a_line_of_the_first_version_is_read_and_states_no_digest(tiny, tmp_path):
    line = asdict(tiny)
    del line["schema_version"]
    for lane in line["lanes"]:
        del lane["network_digest"]
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(json.dumps(line))
    assert load(tmp_path) == [of_lanes(tiny, network_digest=None)]
    assert newest(tiny.networks, **OF_TINY, folder=tmp_path).networks == tiny.networks


def test_the_networks_of_the_recorded_races_are_those_of_the_checkout():
    recorded = load()
    assert recorded  # chapters read them
    for race in recorded:
        assert race.provenance.clean_tree
        for lane in race.lanes:
            network = architecture(lane.network)
            assert lane.input_shape == network.input_shape
            assert lane.network_digest in (None, network.digest)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"lanes": []}, "lanes"),
        ({"host": None}, "host"),
        ({"extra": 1}, "extra"),
        ({"kind": "banana"}, "banana"),
        ({"kind": None}, "kind"),
        ({"schema_version": 99}, "of version"),
    ],
)
def test_a_line_that_is_no_race_is_refused_with_its_place(change, said, tmp_path):
    output = tmp_path / FILE
    benchmark.append(raced({"a": [1.0, 2.0]}), output)
    line = json.loads(output.read_text())
    with output.open("a") as file:
        file.write(json.dumps(line | change) + "\n")
    with pytest.raises(RecordError, match=f"line 2: .*{said}"):
        load(tmp_path)


def test_lanes_of_different_length_or_of_one_name_are_refused():
    with pytest.raises(RecordError, match="rounds"):
        raced({"a": [1.0], "b": [1.0, 2.0]})
    one = raced({"a": [1.0]})
    with pytest.raises(RecordError, match="one network"):
        replace(one, lanes=one.lanes * 2)


def test_a_network_that_did_not_race_is_refused_with_those_that_did():
    with pytest.raises(NinlabError, match=r"'b'.*there are: a"):
        raced({"a": [1.0]}).seconds("b")
    with pytest.raises(NinlabError, match="inference"):
        raced({"a": [1.0]}).seconds("a", Step.INFERENCE)


@pytest.mark.parametrize("option", ["--output {}", "--output={}", "--out {}"])
def test_a_recorded_command_names_its_output_from_the_checkout_on(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output, said in (
        (typed.CHECKOUT / "runs" / FILE, f"runs/{FILE}"),
        (tmp_path / "deep" / "a.json", "a.json"),
        (Path("deep/a.json"), "a.json"),
    ):
        words = option.format(output).split()
        wanted = f"python -m benchmarks.race nin_28 {option.format(said)}"
        assert typed.command("race", ["nin_28", *words], output) == wanted


def test_the_command_line_writes_the_race_and_names_itself(tmp_path, capsys):
    output = tmp_path / FILE
    words = ["nin_28", "--batch-size", "2", "--steps", "1", "--rounds", "1"]
    assert benchmark.main([*words, "--step", "inference", "--output", str(output)]) == 0
    (found,) = load(tmp_path)
    assert found.networks == ["nin_28"]
    assert found.provenance.command == (
        "python -m benchmarks.race nin_28 --batch-size 2 --steps 1 --rounds 1 --step inference "
        "--output race.jsonl"  # without the folder, which is of this machine
    )
    assert "rounds: 1, steps a turn: 1, images a step: 2" in capsys.readouterr().out
