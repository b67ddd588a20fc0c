"""What is asked of cuDNN on a device: in which order, written as it goes, and made a table of."""

import json

import pytest
import torch

from benchmarks import strangers
from ninlab import cudnn
from ninlab.architectures import ARCHITECTURES
from ninlab.devices import DEVICES
from ninlab.workspaces import ConvCall, Direction, Workspaces
from tools import ask_cudnn, cudnn_workspaces, torchvision_calls
from tools.ask_cudnn import ATEN, DESCRIBED, DEVICE, LIST, STAND_IN

CPU = torch.device("cpu")
SMALL = ask_cudnn.networks(["lenet"], [])
MODES = cudnn.modes(DEVICES["h100"].described)


@pytest.fixture
def file(tmp_path):
    """Where answers go; there is a cuDNN to give them."""
    if cudnn.installed() is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    return tmp_path / "answers.jsonl"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of all answers."""
    if cudnn.installed() is None:
        pytest.skip("a CPU build of torch brings no cuDNN")
    path = tmp_path_factory.mktemp("answers") / "whole.jsonl"
    ask_cudnn.ask(path, CPU, SMALL)
    return path


def test_the_most_wanted_calls_are_asked_first_each_of_the_device_and_then_of_its_description():
    asked = ask_cudnn.networks(ARCHITECTURES, None)
    agenda = list(ask_cudnn.agenda(asked, MODES))
    parts = list(dict.fromkeys(who for who, _ in agenda))
    assert parts == [DEVICE, DESCRIBED, LIST, ATEN]
    (of_book, book), *_ = agenda
    assert (of_book, book.batch_sizes) == (DEVICE, (128,))
    first = 2 * len(asked.book)  # in two precisions
    assert [question for _, question in agenda[:first]] == [
        question for _, question in agenda[first : 2 * first]
    ]
    assert {who for who, _ in agenda[first : 2 * first]} == {DESCRIBED}
    listed = {question.call for who, question in agenda if who == LIST}
    assert listed
    assert all(call.weight_shape[2:] == (1, 1) for call in listed)


def test_every_size_of_a_table_is_asked_of_the_device():
    asked = ask_cudnn.networks(ARCHITECTURES, [])
    sizes = {
        (question.call.key, question.direction, question.mode, batch_size)
        for who, question in ask_cudnn.agenda(asked, MODES)
        if who == DEVICE
        for batch_size in question.batch_sizes
    }
    table = Workspaces.load("h100")
    assert sizes == {
        (call, direction, mode, batch_size)
        for call, row in table.rows.items()
        for direction in row
        for mode in table.modes
        for batch_size in table.batch_sizes
    }


def test_the_measured_networks_are_those_that_are_measured():
    assert ask_cudnn.MEASURED == strangers.NETWORKS
    assert {*strangers.NETWORKS} <= {*torchvision_calls.NETWORKS}


def test_the_committed_calls_are_those_that_torchvision_makes():
    known = ask_cudnn.networks([], None).torchvision
    assert {*known} == {*torchvision_calls.NETWORKS}
    traced = torchvision_calls.calls_of("squeezenet1_1")
    pairs = {(call, direction) for call, directions in traced.items() for direction in directions}
    assert pairs <= {*known["squeezenet1_1"]}  # which may have the input gradient of another's
    assert {*traced} == {call for call, _ in known["squeezenet1_1"]}


class Killed(BaseException):
    """What no handler of errors catches."""


def test_a_process_that_is_killed_loses_a_line_and_the_next_one_goes_on(whole, file, monkeypatch):
    add, lines = ask_cudnn.Log.add, iter(range(20))

    def add_until_killed(log, *line):
        add(log, *line)
        if next(lines) == 19:
            raise Killed

    monkeypatch.setattr(ask_cudnn.Log, "add", add_until_killed)
    with pytest.raises(Killed):
        ask_cudnn.ask(file, CPU, SMALL)
    monkeypatch.undo()
    before = file.read_bytes()
    file.write_bytes(before[:-7])  # the last line is torn
    ask_cudnn.ask(file, CPU, SMALL)
    assert file.read_text() == whole.read_text()
    ask_cudnn.ask(file, CPU, SMALL)
    assert file.read_text() == whole.read_text()


def test_after_the_deadline_nothing_is_asked_and_what_is_left_is_said(file, capsys):
    ask_cudnn.ask(file, CPU, SMALL, deadline=0)
    (head,) = map(json.loads, file.read_text().splitlines())
    assert head["properties"] == DEVICES["h100"].described
    assert head["cudnn"] == cudnn.installed().version
    assert {"commit", "torch", "device"} <= head.keys()
    printed = capsys.readouterr().out
    assert "0 sizes asked" in printed
    assert "sizes left for want of time" in printed


def test_a_table_of_what_a_description_answered_is_the_committed_one(whole, tmp_path, capsys):
    release = torch.__version__.partition("+")[0]
    arguments = ["--device", "h100", "--torch", release, "--answers", str(whole)]
    with pytest.raises(SystemExit):
        cudnn_workspaces.main(arguments)
    assert "holds no answer of cuDNN that is called 'device'" in capsys.readouterr().err
    cudnn_workspaces.main([*arguments, "--how", "described", "--output", str(tmp_path)])
    (written,) = tmp_path.glob("cudnn-*.json")
    made = json.loads(written.read_text())
    assert made["source"] == "described"
    assert [*made["rows"]] == sorted({call.key for call, _ in SMALL.book})
    table = Workspaces.load("h100")
    if written.name != f"cudnn-{table.cudnn}-torch{table.torch}-h100.json":
        pytest.skip(f"no table was made with the cuDNN of torch {torch.__version__}")
    for call, row in made["rows"].items():
        for direction, sizes in row.items():
            for mode, of_mode in enumerate(sizes):
                expected = table.rows[call][direction][mode]
                wanted = table.modes[mode] in ask_cudnn.WANTED  # the others are the device's alone
                assert of_mode == (list(expected) if wanted else [None] * len(of_mode))


def test_a_depthwise_call_has_what_aten_took_where_the_images_are_contiguous(tmp_path):
    call = ConvCall((32, 28, 28), (32, 1, 3, 3), padding=(1, 1), groups=32)
    file = tmp_path / "answers.jsonl"
    log = ask_cudnn.Log(file)
    log.write({"properties": DEVICES["h100"].described})
    for how, size in ((DEVICE, 7), (DESCRIBED, 7), (ATEN, 11)):
        for mode in ("tf32 contiguous", "tf32 channels_last"):
            question = ask_cudnn.Question(call, Direction.FORWARD, mode, (8,))
            log.add(how, question, [[None, size]])
    answers = cudnn_workspaces.Answers(file)
    rows = answers.rows(DEVICE, [8, 16])[call.key]["fwd"]
    assert dict(zip(MODES, rows, strict=True)) == {mode: [None, None] for mode in MODES} | {
        "tf32 contiguous": [11, None],
        "tf32 channels_last": [7, None],
    }
    assert answers.agreement(DEVICE, DESCRIBED) == (2, 2)
    assert answers.agreement(DEVICE, ATEN) == (2, 0)


def test_what_has_no_plan_and_what_cannot_run_is_answered_in_words(file):
    oracle = cudnn.Oracle(cudnn.installed(), DEVICES["h100"].described)
    no_room = (ConvCall((1, 4, 4), (1, 1, 9, 9)), Direction.FORWARD, 8, "tf32 contiguous")
    for answerer in (ask_cudnn.first_plan(oracle), ask_cudnn.under_aten(CPU)):
        engine, words = answerer(*no_room)
        assert engine is None
        assert isinstance(words, str)
    plans = ask_cudnn.all_plans(oracle)(ConvCall((8, 4, 4), (8, 8, 1, 1)), *no_room[1:])
    assert len(plans) > 1
    assert all(isinstance(engine, int) for engine, _ in plans)


@pytest.mark.parametrize("direction", Direction)
def test_every_direction_runs_under_aten_in_both_memory_formats(direction):
    call = ConvCall((4, 8, 8), (4, 1, 3, 3), padding=(1, 1), groups=4)
    for mode in ("tf32 contiguous", "bf16 channels_last"):
        assert ask_cudnn.under_aten(CPU)(call, direction, 128, mode) == [None, 0]


def test_a_stand_in_is_not_called_a_device(whole):
    said = {json.loads(line).get("how") for line in whole.read_text().splitlines()}
    assert said == {None, STAND_IN, DESCRIBED, ATEN}
