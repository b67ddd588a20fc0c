"""A recipe holds only what can be trained, written and read again."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ninlab.errors import NinlabError
from ninlab.recipes import MOST_STEPS, TRAINED, Augmentation, EvaluationSet, Recipe, Schedule
from ninlab.records import Outcome, RunRecord
from ninlab.steps import Kernels, Precision
from tests.records import A_RECORD, H100, possible

NO_NUMBERS = (math.nan, math.inf, -math.inf, True, "1", None)
ENDS = (-1, -0.1, 0, 5e-324, 0.5, 0.9, 1, 2, 127, 128, 55_001, 60_000, 60_001, 10**30, 1e308)
NUMBERS = st.sampled_from((*NO_NUMBERS, *ENDS))
FIELDS = {
    "learning_rate": NUMBERS,
    "epochs": NUMBERS,
    "batch_size": NUMBERS,
    "momentum": NUMBERS,
    "weight_decay": NUMBERS,
    "train_images": NUMBERS,
    "optimizer": st.sampled_from(TRAINED),
    "nesterov": st.booleans(),
    "schedule": st.sampled_from(Schedule),
    "precision": st.sampled_from(Precision),
    "augmentation": st.sampled_from(Augmentation),
    "standardize": st.booleans(),
    "evaluation_set": st.sampled_from(EvaluationSet),
    "kernels": st.sampled_from(Kernels),
}


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_a_recipe_is_refused_or_can_be_trained_written_and_read(fields):
    try:
        recipe = Recipe(**{"learning_rate": 0.1, "epochs": 1} | fields)
    except NinlabError:
        return
    assert 1 <= recipe.steps <= MOST_STEPS
    rates = [recipe.learning_rate_at(step, recipe.steps) for step in (0, recipe.steps - 1)]
    assert all(map(math.isfinite, rates))
    assume(recipe.epochs <= 1000)
    record = possible(
        replace(
            A_RECORD,
            recipe=recipe,
            device=H100 if recipe.kernels is Kernels.FUSED else A_RECORD.device,
            outcome=Outcome.DIVERGED,  # which may end before its last epoch
            data_set=replace(A_RECORD.data_set, train_images=recipe.images),
        )
    )
    written = json.dumps(record.to_json(), allow_nan=False)
    assert RunRecord.from_json(json.loads(written)) == record


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"weight_decay": math.inf}, "weight decay is inf"),
        ({"weight_decay": math.nan}, "weight decay is nan"),
        ({"momentum": math.nan}, "momentum is nan"),
        ({"momentum": "0.9"}, "momentum is '0.9'"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": 10**5000}, "epochs is 0x"),
        ({"epochs": 10_001}, "at most 10000"),
        ({"epochs": 167, "batch_size": 1}, "at most 166"),
        ({"batch_size": 60_001}, "batch size is 60001, but must be from 1 to 60000"),
        ({"batch_size": 65, "train_images": 64}, "from 1 to 64"),
        ({"train_images": 60_001}, "training images is 60001"),
        ({"train_images": 55_001, "evaluation_set": "held_out"}, "from 1 to 55000"),
    ],
)
def test_a_number_with_which_nothing_can_be_trained_is_refused(fields, complaint):
    with pytest.raises(NinlabError, match=complaint):
        Recipe(**{"learning_rate": 0.1, "epochs": 1} | fields)


def test_kernels_that_no_gpu_has_shown_to_pay_are_refused():
    with pytest.raises(NinlabError, match=r"nobody trains with chained kernels yet.*torch, fused$"):
        Recipe(0.1, 1, kernels="chained")
    with pytest.raises(NinlabError, match="unknown kernels 'Fused'; did you mean 'fused'"):
        Recipe(0.1, 1, kernels="Fused")
