"""Whatever is typed, a command that cannot do it says so in one sentence, and does nothing.

Each line of the table is refused before any work begins: with exit code 2, nothing on stdout and
one sentence of at most 300 characters that a terminal can show.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ninlab import data, measurement, profiling, recording, selfcheck, training
from ninlab.__main__ import COMMANDS, main
from tests.processes import python

LONG = "9" * 5000  # more digits than Python reads
ENDLESS = "x" * 100_000
ESCAPES = "\x1b[2J\x1b[31mred\nand a second line"
NO_TEXT = "\udcff"  # how Python reads a byte that is none

NO_WHOLE_NUMBERS = (
    "",
    " ",
    "x",
    "1.5",
    "nan",
    "inf",
    "0x10",
    "-1",
    LONG,
    f"-{LONG}",
    ENDLESS,
    ESCAPES,
)
NO_NUMBERS = ("", "x", "nan", "inf", "-inf", "1e999", "-1", LONG, ENDLESS, ESCAPES)
NO_NAMES = ("", " ", "no_such", ENDLESS, ESCAPES, NO_TEXT)

ARGUMENTS = {
    "resources": ["lenet"],
    "networks": [],
    "train": ["nin_28", "--allow-dirty", "--device", "cpu", "--runs", "{folder}"],
    "record": ["--allow-dirty", "--device", "cpu", "--runs", "{folder}"],
    "runs": ["--runs", "{folder}"],
    "measure": ["lenet", "--allow-dirty", "--device", "cpu", "--runs", "{folder}"],
    "profile": ["lenet", "--allow-dirty", "--device", "cpu", "--runs", "{folder}"],
    "collect": ["{folder}", "--runs", "{folder}"],
    "selfcheck": ["--runs", "{folder}"],
}
"""With what a command would begin to work, {folder} being an empty folder, {file} a file."""

WHOLE_NUMBERS = {
    "resources": {"--batch-size": ["0", "2147483648"]},
    "train": {
        "--batch-size": ["0", "60001"],
        "--epochs": ["0", "5334", "99999999999"],
        "--train-images": ["0", "60001", "31"],
        "--seed": ["9223372036854775808", "18446744073709551616"],
        "--threads": ["0", "1025", "99999999999"],
    },
    "record": {"--workers": ["0", "257"], "--threads": ["0", "99999999999"]},
    "measure": {
        "--batch-size": ["0", "2147483648"],
        "--timed-steps": ["0", "1", "1000001"],
        "--threads": ["0", "99999999999"],
    },
    "profile": {
        "--batch-size": ["0", "2147483648"],
        "--steps": ["0", "1", "401"],
        "--threads": ["0", "99999999999"],
    },
    "selfcheck": {"--threads": ["0", "99999999999"]},
}
"""Options of whole numbers by command, with numbers just beyond what they take."""

NUMBERS = {
    "train": {
        "--learning-rate": [],
        "--momentum": ["1", "1.5"],
        "--weight-decay": [],
    },
    "record": {
        "--budget-seconds": [],
        "--deadline": [],
        "--gpus-per-run": ["1.5"],
        "--patience": ["0", "0.99"],
    },
    "measure": {"--deadline": []},
}

NAMES = {
    "resources": {
        "--optimizer": ["SGD", "lion"],
        "--precision": ["FP32", "float32", "half"],
        "--device": ["gpu", "H100", "cuda"],
        "--by": ["layers", "Layer"],
        "--format": ["JSON", "yaml"],
        "--fit": ["16", "GiB", "-1GiB", "0GiB", "nanGiB", "16 PiB", f"{LONG}GiB", "8589934592GiB"],
        "--input": [
            "224",
            "1x2",
            "1x2x3x4",
            "0x28x28",
            "-1x28x28",
            "1X28X28",
            "1x28x",
            "1,28,28",
            f"1x{LONG}x28",
            "1x99999999999x99999999999",
            "1xnanx28",
            "1x2.5x28",
        ],
        "--batches": ["0", "1,", ",", "1,,2", "1;2", "-1,2", "1,1.5", f"1,{LONG}", "1,2147483648"],
    },
    "networks": {"--format": ["CSV", "yaml"]},
    "train": {
        "--optimizer": ["SGD", "momentum", "adagrad", "adamw"],
        "--precision": ["FP32", "float32", "half", "fp64"],
        "--schedule": ["cosine", "one-cycle", "ONE_CYCLE"],
        "--kernels": ["Fused", "triton", "chained", "fused"],
        "--augmentation": ["mirror", "Flip"],
        "--device": ["gpu", "CPU", "cuda:99", "cuda:-1", "cuda:", "cpu:1", "mps", "meta", "auto:0"],
        "--name": ["NiN", "a/b", "../a", "a b", ".hidden", "-dash", "ñ", "a" * 101],
        "--corrects": ["collapse/nin_28", "../../secret", "/etc/passwd"],
        "--runs": ["no/such/folder", "{file}"],
    },
    "record": {
        "--plan": ["Compact", "compcat"],
        "--experiment": ["Collapse", "colapse"],
        "--executor": ["Ray", "slurm"],
        "--device": ["gpu", "cuda:-1", "mps"],
        "--runs": ["no/such/folder", "{file}"],
    },
    "runs": {
        "--outcome": ["Finished", "lost"],
        "--format": ["JSON", "yaml"],
        "--missing": ["ful", "Full"],
        "--decide": ["ful", "Full"],
        "--power": ["ful", "Full"],
        "--runs": ["no/such/folder", "{file}"],
    },
    "measure": {
        "--precision": ["FP32", "float32", "half"],
        "--mode": ["training", "SGD", "Inference"],
        "--allocator": ["Default", "native", "default", "expandable_segments"],
        "--device": ["gpu", "cuda:-1", "cuda:99", "mps"],
        "--runs": ["no/such/folder", "{file}"],
    },
    "profile": {
        "--precision": ["FP32", "float32", "half"],
        "--kernels": ["Torch", "triton"],
        "--device": ["gpu", "cuda:-1", "cuda:99", "mps"],
        "--runs": ["no/such/folder", "{file}"],
    },
    "collect": {"--skip": ["single/nin_28-seed0-cpu"], "--runs": ["no/such/folder", "{file}"]},
    "selfcheck": {
        "--device": ["gpu", "CPU", "cuda:x", "cuda:1000"],
        "--only": ["Images", "imges"],
        "--runs": ["no/such/folder", "{file}"],
    },
}
"""Options of names, sizes and lists by command, with what is near to one and none."""

OTHERS = {
    "": ["netwroks", "resource nin", "Networks", "train-all", "--verbose networks", "-x"],
    "resources": ["", "NIN", "nin-28", "VGG-11", "lenett lenet", "nin.py", "no.such.module",
                  "lenet --torch 2.11", "lenet --device h100 --torch nonsense",
                  "lenet --device h100 --torch 0", "lenet --layers --by layer --format csv",
                  "lenet --layers --batches 1,2 --format csv"],
    "networks": ["NIN", "nin-28", "vgg_11", "nin lenett"],
    "train": ["", "NIN", "nin-28", "nin_29", "nin_28 lenet",
              "nin_28 --optimizer adam --momentum 0.9", "nin_28 --optimizer adamw",
              "nin_28 --batch-size 128 --train-images 127"],
    "record": ["nin_28", "--plan full --experiment colapse"],
    "runs": ["nin_28", "--validate --outcome stuck", "--validate --format json",
             "--validate --summary", "--validate --missing full", "--validate --experiment head",
             "--missing full --network nin", "--missing full --format csv",
             "--missing full --decide full", "--decide full --summary",
             "--decide full --format csv", "--missing full --experiment none",
             "--missing full --device ''", "--missing full --device no/slug",
             "--decide full --device no/slug", "--decide full --power full",
             "--power full --missing full", "--power full --format csv", "--power full --summary",
             "--validate --power full", "--power full --device no/slug"],
    "measure": ["", "NIN", "nin-28", "lenet lenett",
                "lenet --properties {folder}/gpu.json", "lenet --events {file}",
                "lenet --results {file}", "lenet --precision tf32"],
    "profile": ["", "NIN", "nin-28", "lenet lenett",
                "lenet --results {file}", "lenet --precision tf32"],
    "collect": ["", "no/such/folder", "{file}"],
    "selfcheck": ["images", "--only images --decisive", "--report {file}/report.json",
                  "--report {folder}"],
}  # fmt: skip
"""What is wrong as a whole: names, and options that do not go together."""


def table() -> Iterator[tuple[str, ...]]:
    """Every bad command line, word by word, as a shell would hand it over."""
    for options, values in (
        (WHOLE_NUMBERS, NO_WHOLE_NUMBERS),
        (NUMBERS, NO_NUMBERS),
        (NAMES, NO_NAMES),
    ):
        for command, of_command in options.items():
            for option, own in of_command.items():
                for value in (*values, *own):
                    yield (command, *ARGUMENTS[command], f"{option}={value}")
    for command, lines in OTHERS.items():
        place = ARGUMENTS[command][1:] if command in ("train", "measure", "profile") else []
        for line in lines:
            yield (*filter(None, [command]), *shlex.split(line), *place)
    for word in (ENDLESS, ESCAPES, NO_TEXT):
        yield (word,)
    for command in COMMANDS:
        for wrong in ("--no-such-option", "-z", f"--{ENDLESS}", f"--{ESCAPES}", "--help=x"):
            yield (command, *ARGUMENTS[command], wrong)


VALID = ("--name=no_such",)
TABLE = [line for line in dict.fromkeys(table()) if not line[-1].startswith(VALID)]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """An empty folder and a file, by what stands for them in the table."""
    top = tmp_path_factory.mktemp("places")
    (top / "folder").mkdir()
    (top / "file").touch()
    return {"{folder}": str(top / "folder"), "{file}": str(top / "file")}


@pytest.fixture
def no_work(monkeypatch, tmp_path) -> None:
    """Whatever works, measures or downloads is a failure; the folder is an empty one."""
    monkeypatch.chdir(tmp_path)

    def work(*_: object, **__: object) -> None:
        pytest.fail("work began")

    for module, name in (
        (data, "fashion_mnist"),
        (measurement, "measure_in_process"),
        (profiling, "profiled"),
        (recording, "record_with_workers"),
        (recording, "record_with_ray"),
        (selfcheck, "results"),
        (training, "choose_split"),
        (training, "train"),
    ):
        monkeypatch.setattr(module, name, work)


def is_one_sentence(said: str) -> bool:
    """Whether this is one line for a reader, on any terminal."""
    line = said.removesuffix("\n")
    return (
        line.startswith("error: ")
        and len(line) <= 300
        and line.isprintable()
        and "Value error" not in line  # words of what checks the values
        and "Traceback" not in line
    )


def test_the_table_has_bad_lines_of_every_command():
    assert {line[0] for line in TABLE} >= set(COMMANDS)
    assert len(TABLE) >= 300


def test_a_bad_command_line_is_refused_in_one_sentence_before_any_work(
    places, no_work, tmp_path, capsys
):
    wrong = []
    for line in TABLE:
        words = [re.sub(r"{\w+}", lambda found: places[found[0]], word) for word in line]
        code = main(words)
        said = capsys.readouterr()
        if (code, said.out) != (2, "") or not is_one_sentence(said.err):
            wrong.append((code, [word[:40] for word in line], said.out[:80], said.err[:400]))
    assert wrong == []
    assert [*tmp_path.iterdir(), *Path(places["{folder}"]).iterdir()] == []


def test_what_was_typed_is_repeated_and_no_terminal_obeys_it(refusal):
    assert r"'\x1b[2J\x1b[31mred\nand a second line'" in refusal("networks", ESCAPES)
    assert "xxx…xxx" in refusal("networks", ENDLESS)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("resource nin", "resources"),
        ("resources NIN", "nin"),
        ("resources nin-28", "nin_28"),
        ("resources VGG-11", "vgg11"),
        ("resources lenet --optimizer SGD", "sgd"),
        ("resources lenet --optimizer nesterov", "momentum"),
        ("resources lenet --precision FP32", "fp32"),
        ("resources lenet --precision float32", "fp32"),
        ("resources lenet --precision bfloat16", "bf16"),
        ("resources lenet --precision half", "bf16"),
        ("resources lenet --format JSON", "json"),
        ("resources lenet --device H-100", "h100"),
        ("record --experiment Collapse", "collapse"),
    ],
)
def test_a_name_in_another_case_or_spelling_is_told_what_was_meant(line, meant, refusal):
    assert f"did you mean {meant!r}?" in refusal(*line.split())


def test_an_unknown_network_is_told_where_all_are_listed(refusal):
    said = refusal("networks", "no_such")
    assert said.endswith("more; `python -m ninlab networks` lists them")


@pytest.mark.parametrize("line", [("networks", "--format", ENDLESS), ("Networks",), (NO_TEXT,)])
def test_a_process_refuses_as_the_function_does(line, refusal):
    ended = python("-m", "ninlab", *line)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [refusal(*line)]
