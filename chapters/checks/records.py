# The numbers of the records, proved: each part runs behind the cell that it names.

# %% coverage
from ninlab.architectures import architecture
from ninlab.experiments import PLANS
from ninlab.units import format_shape

assert PLANS["compact"].experiment("collapse").rows[0].network == "nin_28_textbook"
assert format_shape(architecture("nin_28").input_shape) == "1x28x28"
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
