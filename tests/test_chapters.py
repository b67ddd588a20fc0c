"""The form of a chapter, and the rule that no number stands in its prose unproved.

A number in prose needs proof when it is a decimal, a percentage, has a unit or a comma, or is
above twelve; the shape of a map (``96×54×54``) does too, the window of a layer (``3×3``) does
not, and neither does a quotation. What is counted of runs, seeds, rows, classes or epochs needs
proof however small it is, in words as in digits: "four of the five runs" asks for "4 of 5 runs".
Proof is an ``assert`` in the file of assertions beside the chapter (`ninlab.checks`) that something
equals the number as it is written, unit included (``assert f"{share:.0%}" == "93%"``), or the bare
whole number. That something comes from the code (`tests.origins`): what the author typed twice is
no proof. The few numbers that no code can know, because a question makes them up or a cited work
printed them, are listed in the metadata of their cell (``"quoted": ["8 GiB"]``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ninlab import checks
from tests import book, origins
from tests.test_book_sources import (
    CITATION,
    EXERCISE,
    SOLUTION,
    captions,
    code_cells,
    markdown,
    prose,
)
from tools import set_repository

SECTIONS = [
    "Question",
    "Prediction",
    "Count",
    "Measurement",
    "Conclusion",
    "Limits",
    "Exercises",
]
FEWEST_WORDS, MOST_WORDS = 900, 2200
MOST_WORDS_BEFORE_AN_OUTPUT = 250
LONGEST_TITLE, LONGEST_CLAIM = 28, 30  # letters of a title in the sidebar, words of a claim
QUESTIONS_OF_A_SELF_TEST = 5
LONGEST_PLOT = 30  # lines, what is drawn included; what is longer belongs into ninlab
LARGEST_FREE_NUMBER = 12
FREE_NUMBERS = {*range(LARGEST_FREE_NUMBER + 1), *range(1950, 2050)}  # small ones and years

CREDITS = {
    "NiN": {"Lin2013"},
    "[Tt]extbook": {"Zhang2023"},
    "AlexNet": {"Krizhevsky2012", "Krizhevsky2014"},
    "VGG": {"Simonyan2014"},
    "GoogLeNet": {"Szegedy2014"},
    "ResNet": {"He2016"},
    "MobileNet": {"Howard2017"},
    "LeNet": {"LeCun1998"},
    "Caffe": {"Jia2014"},
    "fvcore": {"fvcore"},
    "[Rr]oofline": {"Williams2009"},
    "Kaiming": {"He2015"},
    "Xavier": {"Glorot2010"},
    "[Bb]atch normalization": {"Ioffe2015"},
    "Adam": {"Kingma2014"},
    "Fashion-MNIST": {"Xiao2017"},
    "confidence of [0-9.]+%": {"Welch1947"},
}
"""Who is to be cited where a name stands; where there are two papers, either will do."""

BRITISH = re.compile(
    r"\w*(?:colour|behaviour|favour|neighbour|isation|labelled|modelled)\w*|grey|centre"
)
MOST_NUMBERS = 5  # in a paragraph of up to a hundred words; more belong into a table
SHORTEST_SOLUTION = 20  # words: a number, and the way to it

numbered = pytest.mark.parametrize(
    "path",
    [path for path in book.notebooks() if path.stem[:2].isdigit()],
    ids=lambda path: path.stem,
)
every = pytest.mark.parametrize("path", book.notebooks(), ids=lambda path: path.stem)


# ---------------------------------------------------------------- numbers

NOT_PROSE = [
    re.compile(pattern, re.M)
    for pattern in (
        r"^```.*?^```",
        r"^\(.*\)=$",  # labels
        r"^\s*:(?:class|label|name|header-rows|widths|width|alt|align|columns):.*$",
        r"^\s*:{3,}.*$",  # the titles of boxes and exercises
        r"\$\$ \([\w-]+\)$",
        r"\{[\w:]+\}`[^`]*`",  # roles: citations and references
        r"`[^`]*`",  # code
        r'"[^"\n]*"',  # what somebody else says
        r"\]\([^)]*\)",  # where links lead
        r"[A-Za-z][A-Za-z]*-?\d[\w.]*",  # names: VGG-11, H100, float32
        r"\^\{?-?\d+\}?",  # exponents
        r"_\{?\w+\}?",  # indices
        r"\b10\^",
    )
]
UNITS = "TiB|GiB|MiB|KiB|TB|GB|MB|kB|B|T|G|M|k|ms|µs|ns|s|min|times|TFLOP/s|GFLOP/s"
NUMBER = re.compile(
    r"(?<![\w.,×])"
    r"(?:(?P<shape>\d+(?:×\d+)+)"
    r"|(?P<value>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?:(?P<percent>\s?%)|\s(?P<unit>"
    + UNITS
    + r")\b)?)"
    r"(?![\w×])"
)

WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
VALUES = {"one": 1, **{word: value for value, word in enumerate(WORDS, start=2)}}
_SOME = rf"(?:{'|'.join(WORDS)}|\d+)"
_BETWEEN = r"(?:(?!of|and|or|the|in|with|to|for|from|than|at|by|on|a|as)[a-z][\w-]*\s+){0,2}?"
COUNTED = re.compile(
    rf"(?<![\w.,×-])(?:(?P<part>one|{_SOME})\s+of\s+(?:the\s+|its\s+|these\s+|all\s+|those\s+)?)?"
    rf"(?P<count>{_SOME})\s+{_BETWEEN}(?P<noun>seeds|runs|rows|classes|epochs)\b"
    rf"|rows?\s+but\s+the\s+(?P<place>first|last)\s+(?P<places>{_SOME})\b",
    re.I,
)
"""Numbers of what an experiment consists of. "two classes" and "two more classes" alike."""


def counts(text: str) -> Iterator[str]:
    """What a text counts of runs and their like, in digits: ``5 seeds``, ``4 of 5 runs``."""

    def digits(number: str) -> str:
        return str(VALUES.get(number.lower(), number))

    for match in COUNTED.finditer(text):
        if match["place"]:
            yield f"{match['place']} {digits(match['places'])}"
            continue
        part = f"{digits(match['part'])} of " if match["part"] else ""
        yield f"{part}{digits(match['count'])} {match['noun'].lower()}"


def written(cell: Any) -> str:
    """What a reader reads in a cell: its text, or the caption of its figure."""
    if cell.cell_type == "markdown":
        return str(cell.source)
    return str(cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", ""))


def text_of(path: Path) -> str:
    """The prose of a chapter with code, names, labels and markup taken out."""
    return plain(prose(path))


def plain(text: str) -> str:
    """Prose with code, names, labels and markup taken out."""
    text = text.replace("{,}", ",").replace(r"\%", "%").replace("\N{NO-BREAK SPACE}", " ")
    text = re.sub(r"\\text\{([^}]*)\}", r"\1", text)
    for pattern in NOT_PROSE:
        text = pattern.sub(" ", text)
    return text


def claims(text: str) -> Iterator[str]:
    """Every number in a text that needs proof, unit included."""
    for match in NUMBER.finditer(text):
        if shape := match["shape"]:
            if len(set(shape.split("×"))) > 1 or int(shape.split("×")[0]) > LARGEST_FREE_NUMBER:
                yield shape
            continue
        value = match["value"]
        if match["percent"]:
            yield f"{value}%"
        elif match["unit"]:
            yield f"{value} {match['unit']}"
        elif not value.isdigit() or int(value) not in FREE_NUMBERS:
            yield value


def proofs(path: Path) -> str:
    """Every string and whole number that an assertion beside the chapter finds equal, joined."""
    return " | ".join(found_equal(checks.file_of(path).read_text()))


def found_equal(source: str) -> list[str]:
    """What the assertions of a program compare with ``==``, as a reader writes it."""
    found: list[str] = []
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Assert):
            for node in claimed(statement.test):
                if isinstance(node, ast.Compare):
                    for (left, right), operation in zip(
                        pairwise((node.left, *node.comparators)), node.ops, strict=True
                    ):
                        if isinstance(operation, ast.Eq):
                            found += (*constants(left), *constants(right))
    return found


def claimed(test: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a test, but for what stands under a ``not``."""
    if not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
        yield test
        for child in ast.iter_child_nodes(test):
            yield from claimed(child)


def constants(node: ast.expr) -> Iterator[str]:
    """The constants that an operand consists of, as a reader writes them."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=str(text)):
            yield text.replace("x", "×")
        case ast.Constant(value=int(number)):
            yield from (str(number), f"{number:,}")
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            for element in elements:
                yield from constants(element)


ASKS = re.compile(r"\{exercise(?:-start)?\}|^## (?:Prediction|Question)", re.M)
"""What makes numbers up: an exercise, a prediction, a question of a self-test."""


def is_proved(claim: str, proved: str) -> bool:
    return bool(re.search(rf"(?<![\w.,]){re.escape(claim)}(?![\d%]|[.,]\d)", proved))


def unproved(path: Path, numbers: Callable[[str], Iterable[str]]) -> list[str]:
    """The numbers of a page that no assertion proves and their cell does not list as quoted."""
    proved = proofs(path)
    return [
        number
        for cell in book.read(path).cells
        for number in numbers(plain(written(cell)))
        if not is_proved(number, proved)
        and not is_proved(number, " | ".join(cell.metadata.get("quoted", ())))
    ]


@every
def test_every_number_in_prose_stands_in_an_assertion(path: Path) -> None:
    assert unproved(path, claims) == []


@every
def test_every_number_of_runs_and_their_like_stands_in_an_assertion(path: Path) -> None:
    assert unproved(path, counts) == []


@every
def test_a_quoted_number_is_in_the_text_is_not_proved_and_is_made_up_or_cited(path: Path) -> None:
    proved = proofs(path)
    for cell in book.read(path).cells:
        if "quoted" in cell.metadata:
            assert wrongly_quoted(written(cell), cell.metadata.quoted, proved) == [], cell.id


def wrongly_quoted(text: str, quoted: list[str], proved: str) -> list[str]:
    """What is wrong with the list of quoted numbers of a cell, in a few words each."""
    needed = {*claims(plain(text)), *counts(plain(text))}
    wrong = [f"{number} needs no proof here" for number in quoted if number not in needed]
    wrong += [f"{number} is proved" for number in quoted if is_proved(number, proved)]
    if not quoted:
        wrong.append("nothing is listed")
    if not (ASKS.search(text) or CITATION.search(text)):
        wrong.append("nothing is asked or cited")
    return wrong


@pytest.mark.parametrize(
    ("text", "quoted", "wrong"),
    [
        (":::{exercise} A card\nA card has 8 GiB.", ["8 GiB"], []),
        ("## Prediction\n\nNearer to 10 MiB?", ["10 MiB"], []),
        ("It ended at 84.2% {cite:p}`D2LSlides2023`.", ["84.2%"], []),
        ("It ended at 84.2%.", ["84.2%"], ["nothing is asked or cited"]),
        (":::{exercise} A card\nA card has 16 GiB.", ["16 GiB"], ["16 GiB is proved"]),
        (":::{exercise} A card\nIt has `8 GiB`.", ["8 GiB"], ["8 GiB needs no proof here"]),
        (":::{exercise} A card\nA card.", [], ["nothing is listed"]),
    ],
)
def test_what_may_be_quoted(text: str, quoted: list[str], wrong: list[str]) -> None:
    assert wrongly_quoted(text, quoted, proved="16 GiB") == wrong


@pytest.mark.parametrize(
    ("assertion", "found"),
    [
        ('assert f"{share:.0%}" == "93%"', ["93%"]),
        ("assert sides == [54, 26]", ["54", "54", "26", "26"]),
        ("assert all(run.batch == 1_000 for run in runs)", ["1000", "1,000"]),
        ("assert 20 < size <= 400", []),
        ("assert size != 128", []),
        ("assert 0 < size == 96", ["96", "96"]),
        ("size == 96", []),
        ("assert not (size == 96)", []),
        ("assert size == 54 and not all(side == 96 for side in sides)", ["54", "54"]),
    ],
)
def test_a_number_is_proved_where_something_equals_it(assertion: str, found: list[str]) -> None:
    assert found_equal(assertion) == found


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("Four of the five runs end, in ten epochs", ["4 of 5 runs", "10 epochs"]),
        ("one of three gradual runs and 2 more dead classes", ["1 of 3 runs", "2 classes"]),
        ("two layers and three seeds of each", ["3 seeds"]),
        ("All three failures among the 45 runs", ["45 runs"]),
        ("each row but the last two changes one decision", ["last 2"]),
        ("one run, no class, the seeds, VGG-11 runs", []),
    ],
)
def test_what_counts_as_a_number_of_runs(sentence: str, found: list[str]) -> None:
    assert list(counts(sentence)) == found


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("holds 1,992,166 parameters, 93% of them in 3 layers", ["1,992,166", "93%"]),
        ("a 3×3 window on a map of 12×12 or 54×54", ["54×54"]),
        ("411 MB or 392 MiB, 1.9 times as much", ["411 MB", "392 MiB", "1.9 times"]),
        ("VGG-11 in float32 on 96×54×54, as in 2013", ["96×54×54"]),
        (r"$9 \cdot 384^2$ is 331,776", ["384", "331,776"]),
        ('the matrix of "almost 400 MB" has 411 MB', ["411 MB"]),
        ("`x[25]` of {cite:p}`Lin2013` and {numref}`fig-a-100`", []),
    ],
)
def test_what_counts_as_a_number_that_needs_proof(sentence: str, found: list[str]) -> None:
    for pattern in NOT_PROSE:
        sentence = pattern.sub(" ", sentence)
    assert list(claims(sentence)) == found


def paragraphs(path: Path) -> list[str]:
    """The paragraphs that a page shows open, captions among them: no table, code or equation.

    Folded arithmetic, exercises and their solutions are for paper and pencil.
    """
    text = prose(path).partition("\n## Exercises\n")[0] + "\n\n" + "\n\n".join(captions(path))
    for not_read in (
        r"^(:{3,})\{\w+\}.*\n:class: dropdown\n[\s\S]*?\n\1$",
        r"^:::\{dropdown\}[\s\S]*?^:::$",
        r"\$\$[\s\S]*?\$\$",
        r"\$[^$]*\$",
        r"^\s*\|.*$",
    ):
        text = re.sub(not_read, "", text, flags=re.M)
    text = plain(text)
    return [part for part in re.split(r"\n\s*\n|\n(?=- |\d\. )", text) if part.strip()]


def numbers_written(text: str) -> list[str]:
    """The numbers that a reader meets in a text; a window (1×1) and a year are names."""
    found = [match[0] for match in NUMBER.finditer(text)]
    return [number for number in found if not re.fullmatch(r"(\d)×\1|(?:19|20)\d\d", number)]


def numbers_beyond_reading(text: str) -> int:
    """How many numbers a paragraph has above `MOST_NUMBERS` in a hundred words."""
    words = len(re.findall(r"[A-Za-z][\w'’-]*", text))
    return len(numbers_written(text)) - int(MOST_NUMBERS * max(1, words / 100))


@every
def test_a_paragraph_has_few_numbers(path: Path) -> None:
    full = [text for text in paragraphs(path) if numbers_beyond_reading(text) > 0]
    assert full == []


@pytest.mark.parametrize(
    ("text", "beyond"),
    [
        ("86.3%, 83.8% and 44.4%, in 2013 as with a 1×1 layer, and 980 MiB and 12×12", 0),
        ("1, 2, 3, 4, 5 and 6 seeds", 1),
        ("one of five in 1, 2, 3, 4, 5", 0),
        ("word " * 120 + "1, 2, 3, 4, 5, 6", 0),
        ("word " * 119 + "1, 2, 3, 4, 5, 6", 1),
    ],
)
def test_what_are_many_numbers_for_a_paragraph(text: str, beyond: int) -> None:
    assert max(0, numbers_beyond_reading(text)) == beyond


def test_a_number_is_proved_by_itself_and_not_by_a_longer_one() -> None:
    assert is_proved("93%", "93%")
    assert is_proved("54×54", "96×54×54")
    assert is_proved("2.5", "between 2.5.")
    assert not is_proved("93", "93%")
    assert not is_proved("3%", "93%")
    assert not is_proved("992,166", "1,992,166")
    assert not is_proved("2.5", "2.53")


# ---------------------------------------------------------------- anatomy


def sections(path: Path) -> dict[str, str]:
    """The text below each heading; what stands before the first has the key ""."""
    text = re.sub(r"^```.*?^```", "", markdown(path), flags=re.M | re.S)
    before, *rest = re.split(r"^## (.*)\n+", text, flags=re.M)
    return {"": before} | dict(zip(rest[::2], rest[1::2], strict=True))


@numbered
def test_a_chapter_goes_from_the_question_to_the_exercises(path: Path) -> None:
    assert list(sections(path)) == ["", *SECTIONS]


@numbered
def test_what_a_chapter_teaches_is_said_first_and_what_to_take_away_behind_the_conclusion(
    path: Path,
) -> None:
    parts = sections(path)
    assert "{admonition} You will be able to" in parts[""]
    assert "{admonition} Take away" in parts["Conclusion"]


@numbered
def test_the_prediction_asks_the_reader(path: Path) -> None:
    assert "?" in sections(path)["Prediction"]


@numbered
def test_the_conclusion_is_one_bold_sentence_and_then_what_would_change_it(path: Path) -> None:
    bold, rest = sections(path)["Conclusion"].split("\n\n", maxsplit=1)
    assert re.fullmatch(r"\*\*[^*]+\.\*\*", bold)
    assert "What would change it" in rest


@numbered
def test_a_chapter_has_limits(path: Path) -> None:
    assert len(re.findall(r"^- ", sections(path)["Limits"], re.M)) >= 2


def words(text: str) -> list[str]:
    """The words of plain prose."""
    return re.findall(r"[A-Za-z][\w'’-]*", text)


@numbered
def test_a_chapter_has_a_readable_length(path: Path) -> None:
    assert FEWEST_WORDS <= len(words(text_of(path))) <= MOST_WORDS


@numbered
def test_the_title_fits_the_sidebar_and_the_claim_stands_below_it(path: Path) -> None:
    first = book.read(path).cells[0].source
    title, claim = re.search(r"^# (.+)\n\n(.+)\n", first, re.M).groups()
    assert len(title) <= LONGEST_TITLE
    assert re.fullmatch(r"\*[^*]+[.?]\*", claim), "the claim is one emphasized paragraph"
    assert len(words(plain(claim))) <= LONGEST_CLAIM


@numbered
def test_a_reader_sees_something_before_reading_much(path: Path) -> None:
    before = ""
    for cell in book.read(path).cells:
        if cell.cell_type == "markdown":
            before += f"\n\n{cell.source}"
        elif not book.tags(cell) & book.HIDDEN_OUTPUT:
            program = ast.parse(cell.source).body
            if program and isinstance(program[-1], ast.Expr):
                break
    assert len(words(plain(before))) <= MOST_WORDS_BEFORE_AN_OUTPUT


def test_every_part_of_the_book_ends_in_a_self_test() -> None:
    pages = book.documents()
    ends = [
        following
        for page, following in pairwise(pages)
        if Path(page).name[:2].isdigit() and not Path(following).name[:2].isdigit()
    ]
    assert len(ends) == 3
    for page in ends:
        assert "self_test" in page
        questions = re.findall(r"^## Question \d", prose(book.source(page)), re.M)
        assert len(questions) == QUESTIONS_OF_A_SELF_TEST


self_tests = pytest.mark.parametrize(
    "path",
    [path for path in book.notebooks() if path.stem.startswith("self_test")],
    ids=lambda path: path.stem,
)


@self_tests
def test_one_answer_of_a_self_test_is_right_and_an_assertion_stands_behind_it(path: Path) -> None:
    questions = [
        (cell, following)
        for cell, following in pairwise([*checks.read(path).cells, None])
        if cell.source.startswith("## Question")
    ]
    for question, check in questions:
        answers = re.findall(r"^:::\{dropdown\} .+\n(.*)", question.source, re.M)
        assert len(answers) >= 2
        assert [answer[:8] for answer in answers].count("**Yes.**") == 1
        assert check is not None
        assert "assert " in check.source


@numbered
def test_a_chapter_has_two_to_five_figures(path: Path) -> None:
    assert 2 <= len(book.figure_labels(path)) <= 5


@numbered
def test_a_chapter_has_three_to_five_exercises_with_a_checked_solution_each(path: Path) -> None:
    assert 3 <= len(EXERCISE.findall(prose(path))) <= 5
    for cell, following in pairwise(checks.read(path).cells):
        if cell.cell_type == "markdown" and SOLUTION.search(cell.source):
            assert "assert " in following.source, cell.source.splitlines()[0]


@numbered
def test_a_solution_says_how_and_not_only_how_much(path: Path) -> None:
    solutions = re.findall(r":::\{solution\} ([\w-]+)\n(.*?)\n:::", markdown(path), re.S)
    assert len(solutions) == len(EXERCISE.findall(prose(path)))
    for exercise, text in solutions:
        assert len(text.split()) >= SHORTEST_SOLUTION, exercise


@numbered
def test_a_caption_concludes_and_says_how_to_read_the_figure(path: Path) -> None:
    for caption in captions(path):
        assert len(re.split(r"(?<=[.!?])\s+", caption)) >= 2, caption
        assert caption.endswith("."), caption


@every
def test_the_code_of_a_figure_is_folded_and_short(path: Path) -> None:
    for cell in code_cells(path):
        if cell.metadata.get("mystnb", {}).get("figure"):
            assert "hide-input" in book.tags(cell)
            assert len(cell.source.splitlines()) <= LONGEST_PLOT


@every
def test_a_caption_leaves_its_provenance_to_code(path: Path) -> None:
    for caption in captions(path):
        assert not re.search(r"Counted:|Measured:", caption)


@every
def test_assertions_stand_beside_a_chapter_and_not_in_it(path: Path) -> None:
    for cell in code_cells(path):
        assert not re.search(r"^\s*assert ", cell.source, re.M), cell.id


@every
def test_an_assertion_asks_something_that_may_change(path: Path) -> None:
    chapter = [cell.source for cell in code_cells(path) if not set_repository.is_setup_cell(cell)]
    parts = [source for _, source in checks.parts(checks.file_of(path).read_text())]
    assert origins.empty_assertions(chapter, parts) == []


# ---------------------------------------------------------------- literature and language


@numbered
def test_a_work_is_cited_in_every_chapter_that_names_it(path: Path) -> None:
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", prose(path))
    cited = {key.strip() for keys in CITATION.findall(prose(path)) for key in keys.split(",")}
    uncredited = [
        name for name, keys in CREDITS.items() if re.search(rf"\b{name}", text) and not keys & cited
    ]
    assert uncredited == []


@every
def test_the_book_is_written_in_american_english(path: Path) -> None:
    assert BRITISH.findall(markdown(path)) == []


@pytest.mark.parametrize("page", ["glossary", "notation"])
def test_a_page_that_says_how_many_words_the_glossary_has_counts_them(page: str) -> None:
    chapters = book.ROOT / "chapters"
    (glossary,) = re.findall(
        r"^```\{glossary\}\n(.*?)^```$", (chapters / "glossary.md").read_text(), re.M | re.S
    )
    terms = re.findall(r"^\S.*$", glossary, re.M)
    said = re.findall(r"\b(\w+) words that", (chapters / f"{page}.md").read_text())
    assert [VALUES[word.lower()] for word in said] == [len(terms)]


@pytest.mark.slow  # for it needs the built book
def test_every_cell_of_a_chapter_ran_as_it_stands_when_the_book_was_built() -> None:
    for document in book.documents():
        if book.source(document).suffix == ".ipynb":
            code = [cell for cell in book.executed(document).cells if cell.cell_type == "code"]
            assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
            outputs = {output.output_type for cell in code for output in cell.outputs}
            assert "error" not in outputs, document
