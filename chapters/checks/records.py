# The numbers of records, proved: each part runs behind the cell that it names.

# %% hidden-imports
from ninlab.architectures import architecture
from ninlab.units import format_shape

# %% plans
assert PLANS["compact"].experiment("collapse").rows[0].network == "nin_28_textbook"
assert format_shape(architecture("nin_28").input_shape) == "1x28x28"
assert [run.seed for run in PLANS["compact"].runs] == sorted(
    run.seed for run in PLANS["compact"].runs
)
