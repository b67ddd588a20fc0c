"""The law that an assertion asks the code has teeth: what it finds, and what it lets through."""

from __future__ import annotations

import ast

import pytest

from tests.origins import empty_assertions

CHAPTER = """
import math
import torch
from dataclasses import replace
from ninlab.architectures import Architecture, architecture
from ninlab.layers import Conv
from ninlab.recipes import Recipe
from ninlab.formulas import macs
from ninlab.units import format_bytes
batch = 128
rows = {"nin": 3}
def found(name):
    hidden = 1
    return rows[name]
"""


@pytest.mark.parametrize(
    "typed",
    [
        "assert True",
        'assert (100, 30) == (100, 30), "an identity"',
        'assert f"{0.95:.0%}" == "95%"',
        'assert "{}x{}".format(28, 28) == "28x28"',
        "assert 3 * 3 * 64 == 576",
        "assert abs(-3) + len([1, 2]) == 5",
        'assert format_bytes(2**30) == "1.00 GiB"',
        'assert f"{math.log(10):.2f}" == "2.30"',
        "assert torch.tensor([1.0, 3.0]).mean() == 2",
        "assert max(r for r in range(9) if 3 * r < 20) == 6",
        "assert hidden == 1",  # a name that the chapter has in a function alone
    ],
)
def test_what_only_the_author_typed_proves_nothing(typed: str) -> None:
    assert len(empty_assertions([CHAPTER], [typed])) == 1


@pytest.mark.parametrize(
    "laundry",
    [
        "room = 8 * 2**30\nassert room == 2**33",
        "room = batch\nroom = 8\nassert room == 8",
        "classes, gone = 100, 30\nassert gone / classes == 0.3",
        "classes, gone = 100, batch\nassert classes == 100",
        "def weights(r):\n    return 768 * r\nassert weights(2) == 1536",
        "side = lambda pixels: pixels // 2\nassert side(8) == 4",
        "sides = [8]\nfor _ in 'ab':\n    sides.append(sides[-1] // 2)\nassert sides == [8, 4, 2]",
        "for side in (28, 56):\n    twice = 2 * side\n    assert twice > side",
        'printed = {2021: 0.842}\nassert [f"{one:.1%}" for one in printed.values()] == ["84.2%"]',
        "from math import comb\nassert comb(8, 3) == 56",
        "same = batch\nassert same == batch",
        "same = batch\nagain = same\nassert batch == again",
        "with open('x') as file:\n    assert 1 == 1",
        "try:\n    half = 1 / 2\nexcept ZeroDivisionError as error:\n    assert str(error) == ''",
    ],
)
def test_a_name_is_no_better_than_what_it_is_bound_to(laundry: str) -> None:
    assert len(empty_assertions([CHAPTER], [laundry])) == 1


@pytest.mark.parametrize(
    "half",
    [
        'assert f"{batch} {0.95:.0%}" == "128 95%"',
        "assert (batch, 448) == (128, 2 * 224)",
        "assert [batch, [3, 4]] == [128, [3, 4]]",
        'assert [f"{batch}", f"{10} classes"] == ["128", "10 classes"]',
        'assert {f"{rows[name]}×{28}" for name in rows} == {"3×28"}',
        'assert batch > 1 and str(8 * 8) == "64"',
        "assert all(2 * side == side + side for side in (batch, 3)) and (3 == 3)",
        "assert macs(batch) == macs(batch)",
        "assert 0 < batch == batch",
        "assert [1 for name in rows if 4 == 2 * 2] == [1]",
        "assert '%d of %d' % (3, batch) == '3 of 128'",
        "assert '%d classes' % 10 == f'{batch} classes'",
        "assert '3 of ' + str(batch) == '3 of 128'",
        "assert str(batch) + ' of ' + str(3) == '128 of 3'",
        "assert ' '.join(['3', 'of', str(batch)]) == '3 of 128'",
        "assert ' '.join([f'{3}' for name in rows]) == '3'",
        "assert batch in (batch, 576)",
        "assert (batch and 576) == 576",
        "assert str(576 if batch else batch) == '576'",
        "assert macs(batch) == 3 and all(macs(one) == 3 for one in [])",
    ],
)
def test_half_a_proof_is_none_for_the_other_half(half: str) -> None:
    assert len(empty_assertions([CHAPTER], [half])) == 1


@pytest.mark.parametrize(
    "test",
    [
        "(batch, '576')",
        "[batch == 576]",
        "f'{batch}'",
        "batch == 128 or batch == 576",
        "not (batch != 128 and batch != 576)",
        "all(macs(name) == 3 or batch == 576 for name in rows)",
        "batch == 576 if rows else batch == 128",
    ],
)
def test_a_test_that_holds_by_a_part_of_it_or_by_nothing_proves_nothing(test: str) -> None:
    assert empty_assertions([CHAPTER], [f"assert {test}"]) == [ast.unparse(ast.parse(test).body[0])]


@pytest.mark.parametrize(
    "read_back",
    [
        "assert Conv(10, 1).out_channels == 10",
        "last = Conv(10, 1)\nassert last.out_channels == 10",
        "from ninlab import layers\nlast = layers.Conv(10, 1)\nassert last.kernel_size == 1",
        "first, last = Conv(96, 11), Conv(10, 1)\nassert f'{last.out_channels} classes' == '10'",
        "plain = Recipe(0.1, epochs=5)\nassert f'{plain.epochs} epochs' == '5 epochs'",
        "long = replace(Recipe(0.1, 5), epochs=50)\nassert long.epochs == 50",
        "long = replace(architecture('nin'), num_classes=7)\nassert long.num_classes == 7",
        "last = Architecture('a', 'a', (192, 8, 8), 10, (), '')\nassert last.input_shape[0] == 192",
    ],
)
def test_a_field_that_was_typed_and_is_read_back_proves_nothing(read_back: str) -> None:
    assert len(empty_assertions([CHAPTER], [read_back])) == 1


@pytest.mark.parametrize(
    "proof",
    [
        "assert batch == 128",
        "assert found('nin') == macs('nin') == 3",
        'assert f"{batch / 2:.0f} of {len(rows)}" == "64 of 1"',
        "assert batch == 2 * 64 == 128",
        "assert 0 < batch < 400",
        "assert not rows",
        "assert torch.zeros(3).sum() == 0",
        "assert torch.tensor([batch]).item() == 128",
        'assert format_bytes(4 * batch) == "512 B"',
        "half = batch / 2\nassert (half, 2 * half) == (64, 128)",
        "total = 0\nfor name in rows:\n    total += rows[name]\nassert total == 3",
        "widths = []\nfor name in rows:\n    widths.append(macs(name))\nassert widths == [3]",
        "by_name = {'x': 1}\nby_name['x'] = batch\nassert by_name == {'x': 128}",
        "smaller = 1\nif rows:\n    smaller = batch\nassert smaller == 128",
        "def twice(name):\n    return 2 * macs(name)\nassert twice('nin') == 6",
        "def power(k):\n    return k**2\nassert power(batch) == 128**2",
        "assert sorted(rows, key=lambda name: macs(name)) == ['nin']",
        "try:\n    macs('x')\nexcept KeyError as error:\n    said = str(error)\nassert 'x' in said",
        'assert [f"block{i}" for i in range(batch)] == [*rows]',
        "assert Conv(10, 1).stride == 1",
        "assert Conv(batch, 1).out_channels == 128",
        "plain = Recipe(0.1, epochs=5)\nassert (plain.batch_size, plain.steps) == (128, 2340)",
        "last = Conv(10, 1)\nlast = architecture('nin')\nassert last.num_classes == 10",
        "assert replace(architecture('nin'), title='').num_classes == 10",
        "assert not any(macs(name) == 4 or batch == 576 for name in rows)",
        "assert 'block' + str(batch) == 'block128'",
        "assert '%d classes' % batch == '128 classes'",
        "assert ', '.join([str(batch), 'classes']) == '128, classes'",
        "assert batch + 1 == 129",
        "before = batch\nbatch = macs('nin')\nassert before == batch",
        "assert batch in (128, 576)",
        "assert (batch if rows else len(rows)) == 128",
        "from ninlab import formulas as f\nassert f.macs('nin') == 3",
    ],
)
def test_what_comes_from_the_code_may_be_compared_with_what_is_typed(proof: str) -> None:
    assert empty_assertions([CHAPTER], [proof]) == []


@pytest.mark.parametrize(
    "where",
    [
        "def late():\n    {}",
        "class Late:\n    {}",
        "if batch > 576:\n    {}",
        "if batch:\n    pass\nelse:\n    {}",
        "while batch > 576:\n    {}",
        "for none in []:\n    {}",
        "for one in rows:\n    for none in range(0):\n        {}",
    ],
)
def test_an_assertion_that_may_never_run_proves_nothing(where: str) -> None:
    assert empty_assertions([CHAPTER], [where.format("assert batch == 128")]) == ["batch == 128"]


def test_between_two_parts_the_chapter_may_bind_a_name_again() -> None:
    assert empty_assertions([CHAPTER], ["before = batch", "assert before != batch"]) == []


def test_a_name_holds_over_the_parts_of_a_page_in_their_order() -> None:
    parts = ["room = batch\nassert room == 128", "room = 8\nassert room == 8"]
    assert empty_assertions([CHAPTER], parts) == ["room == 8"]
