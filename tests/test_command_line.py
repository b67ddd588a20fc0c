"""The command line as a reader meets it: what it prints, and its exit codes."""

import contextlib
import csv
import errno
import io
import json
import re
import statistics
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ninlab import comparisons, formulas, power, records, training
from ninlab.__main__ import COMMANDS, main
from ninlab.architectures import ARCHITECTURES
from ninlab.commands import shared
from ninlab.commands.record import warn_of_another_gpu
from ninlab.commands.runs import RowSummary
from ninlab.commands.shared import write_csv
from ninlab.experiments import PLANS
from ninlab.records import Outcome
from ninlab.units import format_seconds
from tests.processes import python, run
from tests.records import A_RECORD, H100, H200, possible
from tests.test_comparisons import group


def test_the_list_of_networks_is_complete_and_exact(printed):
    listed = json.loads(printed("networks", "--format", "json"))["networks"]
    assert [row["network"] for row in listed] == list(ARCHITECTURES)
    for row in listed:
        assert row["parameters"] == formulas.parameters(ARCHITECTURES[row["network"]])
        assert row["macs"] == formulas.macs(ARCHITECTURES[row["network"]])


def test_the_networks_as_csv_are_the_networks_as_json(printed):
    listed = json.loads(printed("networks", "--format", "json"))["networks"]
    rows = list(csv.DictReader(io.StringIO(printed("networks", "--format", "csv"))))
    for row, network in zip(rows, listed, strict=True):
        assert row.keys() == network.keys()
        for name in ("network", "title", "source", "digest"):
            assert row[name] == network[name]
        for name in ("num_classes", "parameters", "macs"):
            assert int(row[name]) == network[name]
        assert row["deviations"] == "; ".join(network["deviations"])


def test_the_table_of_networks_has_one_line_for_every_network_wherever_it_goes():
    lines = python("-m", "ninlab", "networks").stdout.splitlines()
    for network in ARCHITECTURES.values():
        (line,) = [line for line in lines if f" {network.name} " in line]
        assert network.title in line
        assert network.source in line


@given(st.lists(st.fixed_dictionaries({"name": st.text(), "count": st.integers()}), max_size=5))
@example(
    [{"name": "=1+1", "count": -1}, {"name": "'=1+1", "count": 0}, {"name": "\t-1", "count": 1}]
)
def test_no_text_of_a_csv_is_a_formula_and_every_text_can_be_read_again(rows):
    with contextlib.redirect_stdout(io.StringIO(newline="")) as file:
        write_csv(rows, ["name", "count"])
    read = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert not any(row["name"].startswith(tuple("=+-@\t\r\n\0")) for row in read)
    assert [row["name"].removeprefix("'") for row in read] == [row["name"] for row in rows]
    assert [int(row["count"]) for row in read] == [row["count"] for row in rows]


def test_the_name_of_a_file_is_no_formula_in_the_csv(tmp_path, printed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "=net.py").write_text("from torch import nn\nnet = nn.Linear(4, 2)\n")
    asked = ("resources", "=net.py:net", "--input", "1x1x4", "--layers", "--format", "csv")
    told = list(csv.DictReader(io.StringIO(printed(*asked))))
    assert {row["network"] for row in told} == {"'=net.py:net"}


def test_a_network_that_is_asked_for_tells_its_deviations(printed, refusal):
    told = printed("networks", "nin_cifar10", "googlenet_28")
    for name in ("nin_cifar10", "googlenet_28"):
        for deviation in ARCHITECTURES[name].deviations:
            assert deviation in told
    assert "alexnet" not in told
    assert "did you mean 'googlenet'?" in refusal("networks", "googlenett")


@pytest.mark.parametrize(
    "arguments", [("netwroks",), ("networks", "--format", "yaml"), ("networks", "--color")]
)
def test_bad_usage_is_one_line_on_stderr_and_exit_code_2(arguments, refusal):
    said = refusal(*arguments)
    assert arguments[-1] in said
    assert "Value error" not in said  # words of what checks the values, not of the reader's


def test_a_process_ends_with_the_same_line_and_exit_code_2(refusal):
    arguments = ("resources", "nin", "--input", "1x20x20")
    ended = python("-m", "ninlab", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [refusal(*arguments)]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("resources", "--batch-size <int from 1 to 2147483647>"),
        ("record", "--gpus-per-run <float from 0 to 1>"),
        ("record", "--patience <float of at least 1>"),
        ("train", "--epochs <int>"),
    ],
)
def test_help_tells_which_numbers_an_option_takes(command, shown, printed):
    assert shown in " ".join(printed(command, "--help").split())


@pytest.mark.parametrize("arguments", [["networks"], ["selfcheck", "--device", "none"]])
def test_torch_is_not_imported_before_it_is_needed(arguments):
    run(f"""
        import sys
        from ninlab.__main__ import main
        main({arguments!r})
        assert "torch" not in sys.modules, "torch was imported"
    """)


def test_help_names_every_command(printed):
    told = printed("--help")
    for command in COMMANDS:
        assert command in told


# ---------------------------------------------------------------- runs


@pytest.fixture
def folder(tmp_path):
    """Two runs of one row, one of them replaced, and one on another device."""
    run = replace(A_RECORD, network_digest=ARCHITECTURES[A_RECORD.network].digest)
    correction = replace(run, seed=1, name="nin_28_again", corrects=run.id)
    for record in (run, correction, possible(replace(run, device=H100))):
        records.write(tmp_path, record)
    return tmp_path


@pytest.fixture
def answers(folder, printed):
    """What ``runs`` writes about the folder."""
    return lambda *arguments: printed("runs", *arguments, "--runs", folder)


def test_runs_of_one_device_are_chosen_by_its_name(answers):
    rows = list(csv.DictReader(io.StringIO(answers("--device", "nvidia-h100", "--format", "csv"))))
    assert [row["id"] for row in rows] == ["collapse/nin_28-seed0-nvidia-h100"]


def test_a_summary_leaves_out_what_was_replaced_and_keeps_devices_apart(answers):
    expected = {("nin_28", "nvidia-h100"): 1, ("nin_28_again", "cpu"): 1}
    variants = json.loads(answers("--summary", "--format", "json"))["variants"]
    assert {(row["name"], row["device_slug"]): row["runs"] for row in variants} == expected
    assert all(row["accuracy_deviation"] is None for row in variants)  # JSON has no NaN
    rows = csv.DictReader(io.StringIO(answers("--summary", "--format", "csv")))
    assert {(row["name"], row["device_slug"]): int(row["runs"]) for row in rows} == expected


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(Outcome)), min_size=1, max_size=5))
def test_a_summary_counts_every_run_and_averages_those_that_finished(endings):
    runs = [
        replace(
            A_RECORD,
            seed=seed,
            outcome=outcome,
            epochs=(replace(A_RECORD.last, test_accuracy=accuracy, dead_classes=seed),),
        )
        for seed, (accuracy, outcome) in enumerate(endings)
    ]
    summary = RowSummary.of(runs)
    assert summary.runs == len(endings) == sum(getattr(summary, outcome) for outcome in Outcome)
    finished = [accuracy for accuracy, outcome in endings if outcome is Outcome.FINISHED]
    if finished:
        assert summary.accuracy_mean == pytest.approx(statistics.fmean(finished))
    assert summary.accuracy_lowest == min(finished, default=None)
    assert summary.accuracy_highest == max(finished, default=None)
    if len(finished) > 1:
        assert summary.accuracy_deviation == pytest.approx(statistics.stdev(finished))
    else:
        assert summary.accuracy_deviation is None
    assert summary.most_dead_classes == len(endings) - 1
    assert summary.most_never_predicted == A_RECORD.never_predicted


def test_the_list_marks_the_run_that_another_replaces(answers):
    marked = [line for line in answers().splitlines() if "replaced" in line]
    assert len(marked) == 1
    assert A_RECORD.id in marked[0]


def cells(line: str) -> list[str]:
    """The cells of one line of a printed table."""
    return [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]


def test_a_printed_list_has_the_last_epoch_of_each_run_under_its_column(answers, folder):
    diverged = possible(replace(A_RECORD, seed=2, outcome=Outcome.DIVERGED))
    records.write(folder, diverged)
    _, header, *lines = answers().splitlines()
    rows = {row[0]: row for row in map(cells, lines) if len(row) > 1}
    assert cells(header) == [
        "run", "outcome", "test accuracy", "train loss", "dead", "never predicted", "images/s",
    ]  # fmt: skip
    gpu = "collapse/nin_28-seed0-nvidia-h100"
    lost = str(A_RECORD.never_predicted)
    assert rows[gpu] == [gpu, "finished", "0.6000", "1.200", "0", lost, "14,976"]
    assert rows[diverged.id][1:4] == ["diverged", "0.6000", "not finite"]


def test_a_printed_summary_has_the_numbers_of_each_row_under_their_columns(answers, folder):
    for seed, accuracy in ((1, 0.8), (2, 0.1)):
        outcome = Outcome.STUCK if accuracy < 0.5 else Outcome.FINISHED
        last = replace(A_RECORD.last, test_accuracy=accuracy, dead_classes=3 * seed)
        run = replace(A_RECORD, seed=seed, name="family", outcome=outcome, epochs=(last,))
        records.write(folder, possible(run))
    _, header, *lines = answers("--summary").splitlines()
    rows = {row[0]: row for row in map(cells, lines) if len(row) > 1}
    assert cells(header) == [
        "row", "device", "kernels", "images", "n", "accuracy, mean", "lowest", "highest",
        "most dead", "most never predicted", "relapsed", "outcomes",
    ]  # fmt: skip
    assert rows["collapse/family"][1:] == [
        "cpu", "torch", "all", "2", "0.8000", "0.8000", "0.8000", "6",
        str(A_RECORD.never_predicted), "0", "1 finished, 1 stuck",
    ]  # fmt: skip


def test_a_summary_keeps_kernels_apart(folder, answers):
    run = replace(A_RECORD, name="family", device=H100)
    records.write(folder, possible(run))
    fused = replace(run, seed=1, recipe=replace(run.recipe, kernels="fused"))
    records.write(folder, possible(fused))
    rows = csv.DictReader(io.StringIO(answers("--summary", "--format", "csv")))
    own = [row for row in rows if (row["name"], row["device_slug"]) == ("family", H100.slug)]
    assert {row["kernels"]: row["runs"] for row in own} == {"torch": "1", "fused": "1"}


def test_a_summary_keeps_runs_on_a_part_of_the_images_apart(folder, answers):
    run = replace(A_RECORD, name="family")
    few = replace(run, seed=1, recipe=replace(run.recipe, train_images=1_000))
    for one in (run, few):
        records.write(folder, possible(one))
    rows = csv.DictReader(io.StringIO(answers("--summary", "--format", "csv")))
    own = [row for row in rows if row["name"] == "family"]
    assert {row["train_images"]: row["runs"] for row in own} == {"": "1", "1000": "1"}
    *_, part = (line for line in answers("--summary").splitlines() if "family" in line)
    assert "1,000" in part


COLUMNS = {
    ("runs",): """id experiment name network seed device device_slug outcome test_accuracy
        test_loss train_accuracy train_loss dead_classes never_predicted epochs learning_rate
        optimizer momentum precision evaluation_set parameters images_per_second wall_seconds utc
        commit kernels""",
    ("runs", "--summary"): """experiment name device_slug network runs accuracy_mean
        accuracy_deviation accuracy_lowest accuracy_highest most_dead_classes
        most_never_predicted relapsed finished diverged stuck kernels train_images""",
    ("resources", "lenet", "--fit", "1GiB"): """network input_shape batch_size optimizer precision
        device parameters macs flops fvcore_flops fvcore_activations saved_bytes
        training.tensor_peak_bytes training.requested_peak_bytes training.allocated_peak_bytes
        training.reserved_peak_bytes training.at inference.tensor_peak_bytes
        inference.requested_peak_bytes inference.allocated_peak_bytes
        inference.reserved_peak_bytes inference.at unsupported_operators largest_batch.training
        largest_batch.inference kernels""",
}
"""Of each command that writes CSV, in the order in which they came to be."""


@pytest.mark.parametrize("asked", COLUMNS, ids=" ".join)
def test_a_new_column_of_csv_moves_none_that_was_there(asked, folder, printed):
    """Programs may read them by position."""
    where = ("--runs", folder) if asked[0] == "runs" else ()
    header, *_ = printed(*asked, "--format", "csv", *where).splitlines()
    known = COLUMNS[asked].split()
    assert header.split(",")[: len(known)] == known


def test_what_is_missing_is_asked_of_the_device_that_made_most_of_the_plan(folder, answers, capsys):
    for seed in (0, 1):
        run = replace(A_RECORD, name="nin_fixed", network="nin_fixed", seed=seed, device=H100)
        records.write(folder, possible(run))
    plan = PLANS["full"]
    made = {f"collapse/nin_fixed-seed{seed}-{H100.slug}" for seed in (0, 1)}
    left = [run for run in plan.runs if run.id(H100.slug) not in made]
    assert main(["runs", "--missing", "full", "--runs", str(folder)]) == 0
    written = capsys.readouterr()
    assert written.out.splitlines() == [run.id(H100.slug) for run in left]
    estimates = plan.estimates(records.load(folder), H100)
    seconds = format_seconds(
        sum(estimates.seconds(run.row.network, run.row.recipe) for run in left)
    )
    assert written.err == (
        f"{len(left)} of {len(plan.runs)} are missing on nvidia-h100: {seconds}\n"
    )
    of_cpu = answers("--missing", "full", "--device", "cpu")
    assert len(of_cpu.splitlines()) == len(plan.runs)


@pytest.mark.parametrize("arguments", [(), ("--summary",), ("--experiment", "collapse")])
def test_where_there_is_no_run_a_sentence_says_so(arguments, tmp_path, printed):
    assert printed("runs", *arguments, "--runs", tmp_path).startswith("no run is like that")


def test_an_export_of_no_run_has_its_header_all_the_same(tmp_path, answers, printed):
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments in ([], ["--summary"]):
        header = answers(*arguments, "--format", "csv").splitlines()[0]
        exported = printed("runs", *arguments, "--format", "csv", "--runs", empty)
        assert exported.splitlines() == [header]


def test_validation_counts_every_kind_and_names_what_was_cut_off(answers, folder):
    half = ".nin_28.json.elsewhere.1.tmp"
    (folder / "collapse" / half).write_text("{")
    told = answers("--validate")
    assert "3 valid records" in told
    assert f"collapse/{half} is of a write that was cut off; remove it" in told


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("steps/nin.json", "step", "kind is 'step', but must be one of benchmark, failure, memory"),
        ("memory/nin.json", "memory", "case is missing"),
    ],
)
def test_validation_reads_every_kind_and_refuses_one_that_it_does_not_know(
    name, kind, said, folder, capsys
):
    records.write_json_once(folder / name, {"kind": kind, "id": name})
    assert main(["runs", "--validate", "--runs", str(folder)]) == 2
    written = capsys.readouterr()
    assert f"{name}: {said}" in written.out
    assert "1 problem of the files" in written.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--validate", "--network", "nin_28"), "takes no --network"),
        (("--validate", "--missing", "compact"), "takes no --missing"),
        (("--missing", "compact", "--outcome", "stuck", "--format", "csv"), "--outcome, --format"),
        (("--missing", "compact", "--experiment", "colapse"), "did you mean 'collapse'?"),
        (("--validate", "--device", ""), "takes no --device"),
        (("--device", "nvidia-h10"), "did you mean 'nvidia-h100'?"),
        (("--device", "CPU"), "did you mean 'cpu'?"),
    ],
)
def test_an_option_without_bearing_on_the_question_is_refused(arguments, said, folder, refusal):
    assert said in refusal("runs", *arguments, "--runs", folder)


def test_of_many_names_a_few_are_said_and_what_lists_the_rest(tmp_path, refusal):
    for number in range(20):
        run = replace(A_RECORD, experiment=f"experiment_{number}")
        records.write(tmp_path, possible(run))
    said = refusal("runs", "--experiment", "none", "--runs", tmp_path)
    assert said.endswith("and 15 more; `python -m ninlab runs` lists them")


def test_the_designs_of_a_plan_are_decided_against_their_reference(tmp_path, printed, refusal):
    def runs(experiment, name, *accuracies):
        for seed, accuracy in enumerate(accuracies):
            last = replace(A_RECORD.last, test_accuracy=accuracy)
            run = replace(A_RECORD, experiment=experiment, name=name, network=name, seed=seed)
            records.write(tmp_path, possible(replace(run, epochs=(last,))))

    runs("collapse", "nin_28", 0.900, 0.901, 0.899)
    runs("window", "nin_28_3x3", 0.930, 0.931)
    runs("head", "nin_28_linear_head", 0.9)
    told = printed("runs", "--decide", "compact", "--runs", tmp_path)
    rows = [row for row in map(cells, told.splitlines()[3:]) if len(row) > 3]
    assert {row[0]: [*row[1:3], row[-1]] for row in rows} == {
        "collapse/nin_28 (reference)": ["3", "3", ""],
        "window/nin_28_3x3": ["2", "2", "a gain"],
        "head/nin_28_linear_head": ["1", "1", "not tested"],
    }
    assert "collapse/nin_28: 0 of 3 (0% to 71%) never predict a class" in told
    told = printed("runs", "--decide", "full", "--runs", tmp_path)
    assert told.startswith("nothing of the plan full is recorded on cpu")
    assert refusal("runs", "--decide", "compact", "--missing", "full")
    assert refusal("runs", "--decide", "compcat")


def test_each_comparison_of_a_plan_says_how_many_seeds_it_needs(tmp_path, printed, refusal):
    def runs(experiment, name, *accuracies):
        for seed, accuracy in enumerate(accuracies):
            last = replace(A_RECORD.last, test_accuracy=accuracy)
            run = replace(A_RECORD, experiment=experiment, name=name, network=name, seed=seed)
            records.write(tmp_path, possible(replace(run, epochs=(last,))))

    def told():
        printed_rows = printed("runs", "--power", "compact", "--runs", tmp_path).splitlines()
        return {row[0]: row[1:] for row in map(cells, printed_rows) if len(row) == 7}

    row, reference = "window/nin_28_3x3", "collapse/nin_28"
    assert told()[row][1:] == ["0", "0", "not known", "", ""]
    runs("collapse", "nin_28", 0.90, 0.91, 0.92)
    found = told()
    at_once = next(len(rows) for _, rows in PLANS["compact"].comparisons if row in rows)
    planned = PLANS["compact"].by_path[row].seeds
    assert found[f"{reference} (reference)"] == [str(planned), "3", "3", "1.00", "", ""]
    assert found[row][3:] == [
        "(1.00)",
        str(power.seeds_for_equality(0.01, comparisons=at_once)),
        f"{100 * power.smallest_shown(0.01, planned, planned, comparisons=at_once):.1f}",
    ]
    runs("window", "nin_28_3x3", 0.70, 0.72, 0.74)
    assert told()[row][1:4] == ["3", "3", "2.00"]
    assert told()[row][4:] == [
        f"{power.seeds_for_equality([0.02, 0.01], comparisons=at_once):,}",
        f"{100 * power.smallest_shown([0.02, 0.01], planned, planned, comparisons=at_once):.1f}",
    ]
    square = "one_by_one_and_head/nin_28_no_1x1_fully_connected (square)"
    of_square = power.pooled_deviation([group([0.90, 0.91, 0.92])])
    assert told()[square][3:] == [
        "(1.00)",
        str(power.seeds_for_equality(of_square, groups=4)),
        f"{100 * power.smallest_shown(of_square, *[planned] * 4):.1f}",
    ]
    assert refusal("runs", "--power", "compcat")


@pytest.mark.parametrize("name", PLANS)
def test_of_each_experiment_the_rows_are_compared_as_they_are_in_the_whole_plan(
    name, tmp_path, printed
):
    plan = PLANS[name]
    rows_of = {one.name: set(one.by_path) for one in plan.experiments}
    compared = {row for _, rows in plan.comparisons for row in rows}
    compared |= {square.both for square in plan.squares}
    fixed = plan.experiment("baselines").compare_with[-1]
    for number, path in enumerate(plan.by_path):
        experiment, row = path.split("/")
        tested = path == fixed or experiment in ("window", "head")  # all would take a minute
        for seed in range(1 + tested):
            last = replace(A_RECORD.last, test_accuracy=0.5 + number / 1000 + seed / 100)
            run = replace(A_RECORD, experiment=experiment, name=row, seed=seed, epochs=(last,))
            records.write(tmp_path, possible(run))

    def told(*options):
        found = printed("runs", *options, "--runs", tmp_path).splitlines()
        cut = [cells(line) for line in found if "/" in line]
        return {
            row[0].removesuffix(" (square)"): row[1:]
            for row in cut
            if len(row) > 5 and "(reference)" not in row[0]
        }

    for option in ("--power", "--decide"):
        whole = told(option, name)
        assert whole.keys() == compared
        for experiment, rows in rows_of.items():
            part = told(option, name, "--experiment", experiment)
            assert part == {row: whole[row] for row in rows & compared}


def test_a_square_is_decided_by_the_interaction_of_its_runs_that_held(tmp_path, printed):
    square = PLANS["compact"].squares[0]
    corners = {}
    accuracies = ([0.91, 0.92], [0.85, 0.86], [0.80, 0.81], [0.90, 0.91])
    for (corner, path), of_corner in zip(square._asdict().items(), accuracies, strict=True):
        experiment, row = path.split("/")
        corners[corner] = [
            replace(one, experiment=experiment, name=row, network=row) for one in group(of_corner)
        ]
        for one in corners[corner]:
            records.write(tmp_path, possible(one))
    asked = ("runs", "--decide", "compact", "--experiment", "one_by_one_and_head")
    (told,) = (
        cells(line)
        for line in printed(*asked, "--runs", tmp_path).splitlines()
        if f"{square.both} (square)" in line
    )
    found = comparisons.interaction(**corners)
    assert told[-2:] == [str(found), found.verdict_within(comparisons.MARGIN)]


def test_who_records_on_another_gpu_is_told_so_before_any_work(tmp_path, capsys):
    records.write(tmp_path, possible(replace(A_RECORD, device=H100, input_shape=(1, 224, 224))))
    warn_of_another_gpu(tmp_path, H100)
    warn_of_another_gpu(tmp_path, A_RECORD.device)
    assert capsys.readouterr().err == ""
    warn_of_another_gpu(tmp_path, H200)
    assert capsys.readouterr().err == (
        "runs/ holds 1 run of NVIDIA H100; those of this NVIDIA H200 would not join them\n"
    )


# ---------------------------------------------------------------- train


@pytest.fixture
def untrained(folder, monkeypatch, refusal):
    """The refusal of a run of nin_28, which must come before its training."""

    def train(*_: object, **__: object) -> None:
        pytest.fail("the training began")

    monkeypatch.setattr(training, "choose_split", train)
    monkeypatch.setattr(training, "train", train)
    asked = ("train", "nin_28", "--allow-dirty", "--device", "cpu", "--runs", folder)
    return lambda *options: refusal(*asked, *options)


def test_a_file_where_the_folder_of_the_record_must_be_is_found_before_the_training(
    untrained, folder
):
    (folder / "single").touch()
    assert "could not be written" in untrained()


def test_a_folder_where_the_record_must_be_is_found_before_the_training(untrained, folder):
    (folder / "single/nin_28-seed0-cpu.json").mkdir(parents=True)
    assert "exists; choose another --name or --seed" in untrained()


def test_a_full_disk_is_found_before_the_training(untrained, monkeypatch):
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "could not be written: No space left on device" in untrained()


def test_only_a_run_of_the_folder_can_be_corrected(untrained, folder):
    records.write_json_once(folder / "memory/lenet.json", {"kind": "memory", "id": "memory/lenet"})
    (folder.parent / "secret.json").write_text("{}")
    for corrected in ("memory/lenet", "../secret", "collapse/none", "single/nin_28-seed0-cpu"):
        untrained("--corrects", corrected)


def test_a_name_is_as_long_as_its_files_may_be(untrained):
    assert "take at most 100" in untrained("--name", "a" * 101)


def test_a_command_is_recorded_as_text_whatever_bytes_were_typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ninlab", "train", "--runs", "bad\udcff"])
    command = shared.typed_command()
    assert command.encode()
    assert command.endswith("'bad\\udcff'")


def test_a_batch_that_the_memory_does_not_hold_is_one_sentence(folder, monkeypatch, capsys):
    def train(*_: object, **__: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(training, "choose_split", lambda _: None)
    monkeypatch.setattr(training, "train", train)
    asked = ["train", "nin_28", "--allow-dirty", "--device", "cpu", "--runs", str(folder)]
    assert main(asked) == 2
    said = capsys.readouterr().err.splitlines()[-1]  # behind the bar of the run
    assert said.startswith("error: cpu has not the memory for batches of 32 images")
    assert not (folder / "single/nin_28-seed0-cpu.json").exists()
