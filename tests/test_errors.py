"""Whatever is wrong, it is said in one line that a terminal can show, with the nearest names."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ninlab.errors import (
    LONGEST_SENTENCE,
    LONGEST_VALUE,
    UnknownNameError,
    one_sentence,
    quoted,
    shortened,
)
from ninlab.steps import Optimizer, Precision, named

TEXTS = st.text(max_size=400) | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl"]))


@given(TEXTS, st.integers(1, 200))
@example("\x1b[2J", 200)
@example("\u202eevil", 200)
@example("x" * 10**5, 60)
def test_a_shortened_text_is_one_printable_line_of_at_most_its_limit(text, limit):
    shown = shortened(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=50))
def test_a_short_printable_text_stays_as_it_is(text):
    assert shortened(text, 50) == text


@given(st.text("ab", min_size=61, max_size=99))
def test_of_a_long_text_the_middle_is_left_out(text):
    shown = shortened(text, 60)
    begin, _, end = shown.partition("…")
    assert text.startswith(begin)
    assert text.endswith(end)
    assert len(shown) == 60
    assert 0 <= len(begin) - len(end) <= 1


@given(TEXTS | st.integers() | st.floats() | st.none() | st.binary())
@example(10**5000)
def test_any_value_can_be_repeated(value):
    assert len(quoted(value)) <= LONGEST_VALUE


@given(TEXTS)
def test_any_error_is_one_sentence(text):
    said = one_sentence(ValueError(text))
    assert len(said) <= LONGEST_SENTENCE
    assert said.isprintable()
    assert not {"  ", "\n"} & set(said)


@given(TEXTS, st.lists(TEXTS, max_size=30))
def test_an_unknown_name_is_said_at_once_however_many_names_there_are(name, known):
    said = str(UnknownNameError("thing", name, known))
    assert said.startswith("unknown thing ")
    assert len(said) <= LONGEST_SENTENCE
    assert said.isprintable()


@given(st.sampled_from([*Precision, *Optimizer]), st.sampled_from([str.upper, str.title]))
def test_case_does_not_hide_what_was_meant(member, change):
    if (typed := change(member)) != member:
        with pytest.raises(UnknownNameError, match=f"did you mean '{member}'"):
            named(type(member), typed)


def test_of_a_long_list_the_nearest_come_first_and_the_others_are_counted():
    known = [f"network_{number}" for number in range(60)]
    said = str(UnknownNameError("network", "network-7", known, printed_by="list them"))
    assert "did you mean 'network_7'?" in said
    assert "known: network_7, " in said
    assert said.endswith("and 55 more; `list them` lists them")
