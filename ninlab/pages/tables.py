"""How does a table of results fit on a page, at a desk and on a phone?

pandas writes plain tables. Each is measured here in characters, for the browser measures too
too late for a page that should not jump. One that is wider than a phone becomes cards there: a
card for each row, its name as heading, a line for each column. One that is wider than the column
of a desk becomes cards everywhere. Roles keep for screen readers what that layout takes away.

Known limits: the measure is an estimate, which takes every letter to be as wide as the mean one;
only tables of pandas (class ``dataframe``) are looked at.
"""

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString
from docutils import nodes
from sphinx.application import Sphinx

LETTER, BOLD_LETTER = 7.7, 8.6
"""Pixels of a digit or a small letter in the size of these tables."""
WIDE_LETTERS = 1.4
"""What a capital letter counts, a percent sign and the like."""
PADDING, SMALL_PADDING = 15, 11
"""Pixels beside the text of a cell and of its border; the small one where all margins are used."""
PHONE = 342
"""Pixels that a table may take on the narrowest common phone, 390 pixels wide."""
DESK = 676
"""Pixels of the column of text in a window of 1280 pixels."""
WITH_MARGINS = 736
"""The same, and the empty margins beside that column."""
LABELED = 16
"""Columns for which ninlab.css has a place; a table of more scrolls."""
UNBROKEN = 12
"""Characters of the longest cell that stays on one line: a number and its unit, a date."""
UNBROKEN_INSERTION = 16
"""Characters of the longest text in parentheses that does: an interval, a number of seeds."""

SCROLLS = "ninlab-scrolls"
"""The class of what may be wider than the page, and scrolls in its own box."""

_TABLE = re.compile(r"<table\b[^>]*\bdataframe\b.*?</table>", re.DOTALL)
_INSERTION = re.compile(rf"\([^()]{{1,{UNBROKEN_INSERTION - 2}}}\)")
_BREAK = r"(?<=/)(?=[a-z]{3})"  # in "dead/never", not in "images/s"
_QUANTITY = re.compile(r"(?<=\d) (?=[A-Za-z]{1,3}\b)")
_NO_BREAK = "\u00a0"
_ROLES = {"thead": "rowgroup", "tbody": "rowgroup", "tr": "row", "td": "cell", "th": "columnheader"}


@dataclass(frozen=True)
class Grid:
    """A table whose every row has a cell for each column: one that spans several stands in each."""

    header: list[list[Tag]]
    body: list[list[Tag]]

    @classmethod
    def of(cls, table: Tag) -> "Grid":
        """The grid of a table; cells that it repeats are the same object."""
        parts = []
        for part in ("thead", "tbody"):
            rows: list[list[Tag]] = []
            below: dict[int, tuple[Tag, int]] = {}
            for row in table.select(f"{part} > tr"):
                rows.append(list(_cells_of(row, below)))
            parts.append(rows)
        return cls(*parts)

    def names(self) -> int:
        """How many cells at the start of each row name it: those of an index, else the first."""
        counts = [sum(cell.name == "th" for cell in row) for row in self.body]
        return max(min(counts, default=1), 1)

    def labels(self) -> list[str]:
        """What the header says of each column, from the top down."""
        columns = zip(*self.header, strict=True)
        return [", ".join(dict.fromkeys(filter(None, map(_text, column)))) for column in columns]

    def pixels(self) -> float:
        """The least width: of each column the longest part that does not break."""
        columns = zip(*self.header, *self.body, strict=True)
        return sum(max(map(_least_pixels, column)) for column in columns)


def _cells_of(row: Tag, below: dict[int, tuple[Tag, int]]) -> Iterator[Tag]:
    """The cells of a row with those that reach into it; below holds what reaches further down."""
    own = iter(row.find_all(["th", "td"], recursive=False))
    column = 0
    while True:
        if column in below:
            (cell, left), width = below.pop(column), 1
        elif (new := next(own, None)) is not None:
            cell, left, width = new, _span(new, "rowspan"), _span(new, "colspan")
        else:
            return
        for at in range(column, column + width):
            if left > 1:
                below[at] = cell, left - 1
            yield cell
        column += width


def _span(cell: Tag, name: str) -> int:
    return int(str(cell.get(name, "1")))


def _text(cell: Tag) -> str:
    return " ".join(cell.get_text().split(" ")).strip()


def _least_pixels(cell: Tag) -> float:
    if _span(cell, "colspan") > 1:
        return 0
    parts = re.split(rf"[ \n]|{_BREAK}", _text(cell))
    letter = BOLD_LETTER if cell.name == "th" else LETTER
    return max(map(_letters, parts)) * letter + PADDING


def _letters(text: str) -> float:
    wide = sum(letter.isupper() or letter in "%mw×" for letter in text)
    return len(text) + (WIDE_LETTERS - 1) * wide


def _keep_together(text: str) -> str:
    """A cell's text with breaks only where they do not tear a number from what belongs to it."""
    if len(text) <= UNBROKEN:
        return text.replace(" ", _NO_BREAK)
    text = _INSERTION.sub(lambda found: found[0].replace(" ", _NO_BREAK), text)
    return _QUANTITY.sub(_NO_BREAK, text)


def fitted(html: str) -> str:
    """A piece of HTML whose tables fit; the rest of it stays as it is."""
    return _TABLE.sub(lambda found: _fitted_table(found[0]), html)


def _fitted_table(html: str) -> str:
    table = BeautifulSoup(html, "html.parser").table
    assert table is not None
    del table["border"]
    for row in table.select("tr[style]"):
        del row["style"]
    for cell in table.select("td"):
        for text in cell.find_all(string=True):
            text.replace_with(NavigableString(_keep_together(str(text))))
    for cell in table.select("th"):
        for text in cell.find_all(string=True):
            first, *others = re.split(_BREAK, str(text))
            breaks = [part for other in others for part in (_may_break(), other)]
            text.replace_with(first, *breaks)
    grid = Grid.of(table)
    pixels = grid.pixels()
    if pixels > PHONE and len(grid.labels()) > LABELED:
        table["class"] = f"dataframe {SCROLLS}"
    elif pixels > PHONE:
        table["class"] = f"dataframe {_class_of(pixels, len(grid.labels()))}"
        _make_ready_for_cards(table, grid)
    return str(table)


def _may_break() -> Tag:
    return Tag(name="wbr", can_be_empty_element=True)


def _class_of(pixels: float, columns: int) -> str:
    if pixels <= DESK:
        return "ninlab-wide"
    if pixels - columns * (PADDING - SMALL_PADDING) <= WITH_MARGINS:
        return "ninlab-wide ninlab-outset"
    return "ninlab-cards"


def _make_ready_for_cards(table: Tag, grid: Grid) -> None:
    table["role"] = "table"
    for part in table.select("thead, tbody, tr, th, td"):
        part["role"] = _ROLES[part.name]
    names = grid.names()
    labels = enumerate(grid.labels()[names:], start=names + 1)
    # Once for the table, not at each cell: the page of the records has thousands.
    table["style"] = ";".join(f"--label-{place}:{_quoted(label)}" for place, label in labels)
    rows = table.select("tbody > tr")
    for row, cells in zip(rows, grid.body, strict=True):
        for place, cell in enumerate(cells[:names]):
            if cell.parent is not row:  # a name of several rows heads the card of each
                again = Tag(name="th", attrs={"class": "ninlab-again", "role": "rowheader"})
                again.extend(copy(part) for part in cell.contents)
                row.insert(place, again)
            else:
                cell["role"] = "rowheader"


def _quoted(text: str) -> str:
    """A string of CSS."""
    return "'" + text.replace("\\", r"\\").replace("'", r"\'") + "'"


def _fit_tables(app: Sphinx, document: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    for raw in list(document.findall(nodes.raw)):
        if "html" in raw["format"].split() and _TABLE.search(text := raw.astext()):
            new = fitted(text)
            raw.replace_self(nodes.raw(new, new, **raw.attributes))


def connect(app: Sphinx) -> None:
    """Fit the tables of a build."""
    app.connect("doctree-resolved", _fit_tables)
