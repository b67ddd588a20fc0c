# The numbers of the records, proved: each part runs behind the cell that it names.

# %% coverage
from ninlab.architectures import architecture
from ninlab.experiments import PLANS
from ninlab.units import format_shape

assert f"{len(PLANS)} plans" == "3 plans"
assert list(PLANS) == ["compact", "middle", "full"]
assert PLANS["compact"].experiment("collapse").rows[0].network == "nin_28_textbook"
assert format_shape(architecture("nin_28").input_shape) == "1x28x28"
trained_alike = {row.recipe.train_images for row in PLANS["middle"].by_path.values()}
assert all(images < 60_000 for images in trained_alike)
at_96 = [architecture(row.network) for row in PLANS["middle"].by_path.values()]
assert {format_shape(network.input_shape) for network in at_96} == {"1x96x96"}
assert [run.seed for run in PLANS["compact"].runs] == sorted(
    run.seed for run in PLANS["compact"].runs
)
taken_from = [
    (row.rate_rule, one.by_path[path].recipe.evaluation_set)
    for one in PLANS.values()
    for row in one.by_path.values()
    for path in row.rate_from
]
assert {seen for rule, seen in taken_from if rule != "safe"} == {"held_out"}
