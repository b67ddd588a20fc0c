"""Quoted figures: each has its source, and the digits that were printed."""

from __future__ import annotations

import re

import pytest
from pybtex.database import parse_file

from ninlab.architectures import architecture
from ninlab.published import NIN_ERRORS, STRIDED_END, TEXTBOOK_ENDS, ReportedEnd, ReportedError
from tests import book

every = pytest.mark.parametrize("reported", NIN_ERRORS, ids=lambda r: f"{r.data_set}-{r.source}")


@every
def test_a_quoted_figure_names_a_publication_of_nins_authors(reported: ReportedError) -> None:
    entry = parse_file(book.ROOT / "references.bib").entries[reported.source]
    assert "Lin" in {name for person in entry.persons["author"] for name in person.last_names}


@every
def test_a_quoted_error_is_a_percentage_as_it_was_printed(reported: ReportedError) -> None:
    assert re.fullmatch(r"\d{1,2}\.\d{1,2}", reported.error_percent)
    assert 0 < float(reported.error_percent) < 100


def test_conditions_are_quoted_once_and_augmentation_helps() -> None:
    rows = [(reported.data_set, reported.conditions) for reported in NIN_ERRORS]
    assert len(rows) == len(set(rows))
    errors = {row: float(r.error_percent) for row, r in zip(rows, NIN_ERRORS, strict=True)}
    plain, augmented = (
        errors["CIFAR-10", conditions] for conditions in ("dropout", "dropout and augmentation")
    )
    assert augmented < plain


def test_two_publications_of_one_network_agree_to_their_digits() -> None:
    of_card = next(r for r in NIN_ERRORS if r.source == "LinCard")
    of_paper = next(r for r in NIN_ERRORS if r.data_set == "CIFAR-10" and r.source == "Lin2013")
    assert f"{float(of_paper.error_percent):.1f}" == of_card.error_percent


ends = pytest.mark.parametrize("end", [*TEXTBOOK_ENDS, STRIDED_END], ids=lambda e: f"{e.accuracy}")


@ends
def test_a_reported_end_is_of_a_network_of_the_book_and_names_its_source(end: ReportedEnd) -> None:
    assert architecture(end.network).family.startswith("nin")
    assert end.source in parse_file(book.ROOT / "references.bib").entries


@ends
def test_a_reported_end_has_a_share_and_a_loss_as_they_were_printed(end: ReportedEnd) -> None:
    assert re.fullmatch(r"0\.\d{3,4}", end.accuracy)
    assert end.loss is None or re.fullmatch(r"\d\.\d{3}", end.loss)


def test_the_textbook_printed_one_end_a_year_and_its_source_says_when() -> None:
    years = [end.year for end in TEXTBOOK_ENDS]
    assert years == sorted(set(years))
    for end in TEXTBOOK_ENDS:
        assert (
            str(end.year)
            in parse_file(book.ROOT / "references.bib").entries[end.source].fields["note"]
        )
