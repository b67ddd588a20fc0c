"""Which operators of a training step take longest, and how near are they to a device's rates?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum

import pandas as pd

from ninlab.devices import DataSheet, device
from ninlab.figures.tables import Tables
from ninlab.profiles import (
    COLUMNS,
    RATES,
    Setting,
    StepProfile,
    at_the_least,
    longest_rows,
    newest,
    step_operators,
)
from ninlab.steps import Kernels, Precision, named
from ninlab.units import format_seconds


def longest_operators(
    profiles: Sequence[StepProfile],
    network: str,
    kernels: str = Kernels.TORCH,
    *,
    batch_size: int = 128,
    precision: str = Precision.BF16,
    device_name: str = "h100",
    most: int = 12,
) -> Tables:
    """The operators of a network's training step that take longest, a table for each GPU.

    A heading says what was profiled, and how long its step takes. Without a profile of that step
    by a GPU it says so, and the table has the least times by the data sheet of device_name. Rates
    have no columns then: they would be the data sheet's own. `profiles.longest_rows` makes the
    rows.
    Raises NinlabError for a network, a precision or kernels that there are not.
    """
    setting = Setting(network, batch_size, named(Precision, precision), named(Kernels, kernels))
    found = newest(one for one in profiles if one.setting == setting)
    if not found:
        return _least(setting, device(device_name), most)
    return Tables(
        {
            one.in_words: _frame(longest_rows(one.operators, one.data_sheet, precision, most))
            for one in found
        }
    )


def _least(setting: Setting, on: DataSheet, most: int) -> Tables:
    """The table of the least times, under a heading that says that nothing is measured."""
    operators = at_the_least(step_operators(setting), on, setting.precision)
    heading = (
        "Nothing in this table is measured, for no GPU has profiled this step yet: these are the "
        f"least times that the data sheet of the {on.title} allows. {setting.in_words}: "
        f"{format_seconds(fsum(one.seconds for one in operators))} in all."
    )
    rows = longest_rows(operators, None, setting.precision, most)
    return Tables({heading: _frame(rows).drop(columns=[*RATES]).rename(columns=_AT_THE_LEAST)})


_AT_THE_LEAST = {"ms": "least ms", "of the step": "of their sum"}


def _frame(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows).set_index(COLUMNS[0]).rename_axis(None)
