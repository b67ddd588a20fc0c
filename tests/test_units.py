import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ninlab.errors import NinlabError, ShapeError, UnknownNameError
from ninlab.units import (
    format_bytes,
    format_count,
    format_seconds,
    format_shape,
    parse_bytes,
    parse_device_name,
    parse_number,
    parse_shape,
    parse_whole,
)

BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


@given(st.tuples(*[st.integers(1, 10_000)] * 3))
def test_a_shape_survives_being_written_and_read(shape):
    assert parse_shape(format_shape(shape)) == shape


@pytest.mark.parametrize(
    "text",
    ["", "224", "1x224", "1x2x3x4", "0x224x224", "axbxc", "1X2X3", "-1x2x2", f"1x{'9' * 5000}x1"],
)
def test_what_is_no_shape_is_refused_with_an_example(text):
    with pytest.raises(ShapeError, match="3x224x224"):
        parse_shape(text)


@given(st.integers(1, 4096), st.integers(0, 4))
def test_a_binary_prefix_is_a_power_of_1024_and_a_decimal_one_of_1000(number, power):
    binary, decimal = BINARY[power], ("B", "KB", "MB", "GB", "TB")[power]
    assert parse_bytes(f"{number}{binary}") == number * 1024**power
    assert parse_bytes(f" {number} {binary.lower()} ") == number * 1024**power
    assert parse_bytes(f"{number}{decimal}") == number * 1000**power


@given(st.integers(1, 2**63 - 1))
@example(2**53 + 1)  # which no float is
def test_a_memory_size_is_read_to_the_byte(count):
    assert parse_bytes(f"{count}B") == count


def test_a_memory_size_may_have_a_fraction_and_is_rounded_down():
    assert parse_bytes("1.5GiB") == 3 * 2**29
    assert parse_bytes("1.0009KB") == 1000


@pytest.mark.parametrize("text", ["", "16", "GiB", "16 apples", "0GiB", "-1GiB", "0.1B", "nanGiB"])
def test_what_is_no_memory_size_is_refused(text):
    with pytest.raises(NinlabError, match="size"):
        parse_bytes(text)


@given(st.integers(0, 2**60))
def test_written_bytes_are_the_bytes_to_three_digits(count):
    number, unit = format_bytes(count).split()
    assert float(number) * 1024 ** BINARY.index(unit) == pytest.approx(count, rel=5e-3)


@given(st.integers(0, 10**15))
def test_written_counts_are_the_counts_to_three_digits(count):
    number, _, prefix = format_count(count).partition(" ")
    power = ("", "k", "M", "G", "T").index(prefix)
    assert float(number) * 1000**power == pytest.approx(count, rel=5e-3)


@given(st.integers(2**10, 2**46), st.integers(-600, 600))
@example(10**6, -500)  # 999.5 µs, which is halfway to 1 ms and no binary fraction
def test_no_number_is_written_that_fills_the_next_unit(count, offset):
    for near in (count, 2 ** round(math.log2(count)) + offset):
        assert float(format_bytes(near).split()[0]) < 1024
    for near in (count, 10 ** round(math.log10(count)) + offset):
        assert float(format_count(near).split()[0]) < 1000
        if near < 100 * 10**9:
            assert float(format_seconds(near / 10**9).split()[0]) < 1000


def test_a_chosen_unit_is_kept_and_an_unknown_one_refused():
    assert format_bytes(411_041_792, "MiB") == "392 MiB"
    with pytest.raises(NinlabError, match="MiB"):
        format_bytes(1, "MB")


def test_counts_and_seconds_carry_their_prefix():
    assert format_count(1_992_166) == "1.99 M"
    assert format_count(762_297_352) == "762 M"
    assert format_count(10) == "10"
    assert format_seconds(0.0123) == "12.3 ms"
    assert format_seconds(605) == "10 min 5 s"
    assert format_bytes(1_073_400_000) == "1.00 GiB"


@given(st.floats(1e-9, 110))
def test_written_seconds_are_the_seconds_to_three_digits(seconds):
    number, unit = format_seconds(seconds).split()
    scale = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert float(number) * scale == pytest.approx(seconds, rel=6e-3)


def test_a_misspelt_name_is_answered_with_the_nearest_and_with_all():
    message = str(UnknownNameError("network", "ninn", ["alexnet", "nin"]))
    assert "unknown network 'ninn'" in message
    assert "did you mean 'nin'?" in message
    assert "known: alexnet, nin" in message


@given(st.integers(-(2**70), 2**70))
def test_a_whole_number_survives_being_written_and_read(number):
    assert parse_whole(str(number)) == number
    assert parse_whole(str(number), number, number) == number
    assert parse_whole(f" {number:+d}\n") == number
    for least, most in ((number + 1, number + 2), (number - 2, number - 1)):
        with pytest.raises(NinlabError, match=f"from {least} to {most}"):
            parse_whole(str(number), least, most)


@pytest.mark.parametrize(
    "text", ["", " ", "1.0", "1e3", "0x1", "1_0", "+-1", "--1", "- 1", "1 2", "٣", "9" * 5000]
)
def test_what_is_no_whole_number_is_refused_however_long_it_is(text):
    with pytest.raises(NinlabError, match="is no whole number"):
        parse_whole(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_being_written_and_read(number):
    assert parse_number(str(number)) == number
    assert parse_number(str(number), number, number) == number


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "9" * 5000, "-1"])
def test_what_is_not_finite_is_in_no_range(text):
    with pytest.raises(NinlabError, match="is no finite number of at least 0"):
        parse_number(text, 0)


@pytest.mark.parametrize("text", ["8EiB", "8388608TiB", f"{'9' * 5000}B", "1e3B", "-1B", "nanB"])
def test_what_no_memory_can_be_is_no_memory_size(text):
    with pytest.raises(NinlabError, match="memory size"):
        parse_bytes(text)


def test_an_image_larger_than_any_memory_is_refused():
    with pytest.raises(ShapeError, match="larger than 2\\^63 bytes"):
        parse_shape("3x1000000000x1000000000")


@pytest.mark.parametrize(
    "text", ["", "gpu", "CPU", "cpu:1", "cuda:", "cuda:-1", "cuda:9999", "mps"]
)
def test_what_names_no_device_is_refused(text):
    with pytest.raises(NinlabError, match="write cpu, cuda, cuda:0 or auto"):
        parse_device_name(text)
