# The numbers of self_test_exercises, proved: each part runs behind the cell that it names.

# %% layers
import math

from ninlab import formulas, liveness
from ninlab.answers import answer, recorded
from ninlab.architectures import architecture
from ninlab.comparisons import difference
from ninlab.experiments import PLANS
from ninlab.measurement import load_records
from ninlab.records import runs_folder
from ninlab.shapes import at_input, placed_layers
from ninlab.units import format_bytes, format_shape

with_all, without = (
    at_input(architecture(name), (1, 224, 224)) for name in ("nin_fixed", "nin_fixed_no_1x1")
)


def falls(count):
    return f"{1 - count(without) / count(with_all):.0%}"


def to_train(network):
    return liveness.peak_bytes(liveness.timeline(network), 128)


assert falls(formulas.parameters) == "22%"
assert falls(formulas.macs) == "24%"
assert falls(to_train) == "47%"
assert PLANS["full"].runs[0].row.recipe.batch_size == 128
assert format_shape(with_all.input_shape) == "1x224x224"
assert "{1}×{2}".format(*with_all.input_shape) == "224×224"

# %% head
head = formulas.parameters(architecture("nin_fixed_linear_head")) - formulas.parameters(
    architecture("nin_fixed")
)
maps = {at.name: at.output_shape for at in placed_layers(architecture("nin"))}["classes.conv3"]
assert maps == (10, 5, 5)
assert f"{math.prod(maps)} {head:,}" == "250 2,510"

# %% crossing
steps = {
    name: liveness.timeline(at_input(architecture(name), (1, 224, 224)))
    for name in ("nin", "alexnet")
}


def one_more(name):
    step = steps[name]
    return format_bytes(liveness.peak_bytes(step, 1_000) - liveness.peak_bytes(step, 999))


def needs_more(batch):
    nin, alexnet = (liveness.peak_bytes(steps[name], batch) for name in ("nin", "alexnet"))
    return nin > alexnet


assert [batch for batch in (1, 1_000) if needs_more(batch)] == [1_000]
assert liveness.crossing(steps["nin"], steps["alexnet"]) == 96
assert f"{one_more('nin')} {one_more('alexnet')}" == "7.59 MiB 3.98 MiB"

# %% peaks
for step in load_records(runs_folder()):
    found = step.measured
    peaks = [
        found.tensor_peak_bytes,
        found.requested_peak_bytes,
        found.allocated_peak_bytes,
        found.reserved_peak_bytes,
    ]
    ascending = [peak for peak in peaks if peak is not None]
    assert ascending == sorted(ascending)

# %% bottleneck
compact, _ = recorded()
steps_of = answer("bottleneck", compact).runs
in_one = answer("collapse", compact).runs["nin_28"]
gap = difference(steps_of["nin_28_gradual"], in_one)
assert not gap.shown
assert gap.low < 0 < gap.high
assert gap.high > 0.01  # "more than a point"
in_compact = {at.name: at.input_shape for at in placed_layers(architecture("nin_28"))}
assert in_compact["classes.conv1"][0] == 48
before_classes = {at.name: at.input_shape for at in placed_layers(architecture("nin"))}
assert before_classes["classes.conv1"][0] == 384
