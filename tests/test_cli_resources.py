"""``python -m ninlab resources`` as a reader meets it: answers, and one line for each mistake."""

import csv
import io
import json
import os
import re
import subprocess
from dataclasses import replace

import pytest

from ninlab import formulas, liveness, records
from ninlab.__main__ import main
from ninlab.architectures import ARCHITECTURES
from ninlab.commands import resources as commands
from ninlab.reports import live_bytes, tensor_peak
from ninlab.resources import StepTimeline, load, profile, trace_batches, trace_step
from ninlab.units import format_bytes
from ninlab.workspaces import available
from tests.disks import disk_with_room_for

# fmt: off
KEYS = [
    "network", "input_shape", "batch_size", "optimizer", "precision", "kernels", "device",
    "parameters", "macs", "flops", "fvcore_flops", "fvcore_activations", "saved_bytes", "training",
    "inference", "unsupported_operators",
]
PEAKS = [
    "tensor_peak_bytes", "requested_peak_bytes", "allocated_peak_bytes", "reserved_peak_bytes",
    "at",
]
# fmt: on


@pytest.fixture
def answers(capsys):
    """What the command writes to stdout; it must end well and write nothing to stderr."""

    def run(*arguments: str) -> str:
        assert main(["resources", *arguments]) == 0
        written = capsys.readouterr()
        assert written.err == ""
        return written.out

    return run


# ---------------------------------------------------------------- answers


def test_json_has_the_agreed_keys_with_exact_integers(answers):
    found = json.loads(answers("nin", "alexnet", "vgg11", "--batch-size", "4", "--format", "json"))
    assert list(found) == ["networks"]
    for network in found["networks"]:
        assert list(network) == KEYS  # with a device also who knows its scratch, tested below
        assert list(network["training"]) == list(network["inference"]) == PEAKS
        architecture = ARCHITECTURES[network["network"]]
        assert network["parameters"] == formulas.parameters(architecture)
        assert network["macs"] == formulas.macs(architecture)
        assert network["flops"] == 2 * network["macs"]
        assert network["saved_bytes"] == formulas.saved_bytes(architecture, 4)
        assert network["training"]["tensor_peak_bytes"] == liveness.peak_bytes(
            liveness.timeline(architecture), 4
        )
        assert network["training"]["allocated_peak_bytes"] is None
        assert network["unsupported_operators"] == {}


@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_with_a_device_the_answer_says_who_knows_its_scratch(answers, precision):
    asked = ("nin", "--device", "h100", "--torch", "2.11", "--batch-size", "8")
    (network,) = json.loads(answers(*asked, "--precision", precision, "--format", "json"))[
        "networks"
    ]
    assert list(network) == [*KEYS, "scratch_sources"]
    results = 3 * 12 - 1  # of NiN's convolutions; the images need no gradient
    assert network["scratch_sources"] == {"described": results}
    sentence = f"{results} as cuDNN plans for a device described to it"
    assert sentence in " ".join(answers(*asked).split())


@pytest.mark.parametrize("kernels", ["fused", "chained"])
def test_kernels_that_join_layers_change_memory_and_not_counts(answers, kernels):
    asked = ("nin", "--batch-size", "4", "--format", "json")
    (stock,), (joined,) = (
        json.loads(answers(*asked, *more))["networks"] for more in ((), ("--kernels", kernels))
    )
    assert (stock["kernels"], joined["kernels"]) == ("torch", kernels)
    for count in ("parameters", "macs", "flops", "fvcore_flops", "fvcore_activations"):
        assert joined[count] == stock[count]
    nin = ARCHITECTURES["nin"]
    assert joined["saved_bytes"] == formulas.saved_bytes(nin, 4, kernels=kernels)
    assert joined["training"]["tensor_peak_bytes"] == liveness.peak_bytes(
        liveness.timeline(nin, kernels=kernels), 4
    )
    assert joined["saved_bytes"] < stock["saved_bytes"]


def test_every_answer_is_of_the_kernels_that_were_asked_about(answers):
    asked = ("nin_28", "--kernels", "fused", "--fit", "1GiB", "--batches", "2,9")
    (network,) = json.loads(answers(*asked, "--format", "json"))["networks"]
    events = {
        name: liveness.timeline(ARCHITECTURES["nin_28"], training=training, kernels="fused")
        for name, training in (("training", True), ("inference", False))
    }
    for name, steps in events.items():
        assert network["largest_batch"][name] == liveness.largest_batch(steps, 2**30)
        for point in network["sweep"]:
            peak = liveness.peak_bytes(steps, point["batch_size"])
            assert point[f"{name}_tensor_peak_bytes"] == peak
    (row,) = csv.DictReader(io.StringIO(answers("nin_28", "--kernels", "fused", "--format", "csv")))
    assert row["kernels"] == "fused"
    assert "fp32, fused kernels; counts" in " ".join(
        answers("nin_28", "--kernels", "fused").split()
    )


def test_where_nothing_is_joined_a_sentence_says_so_and_the_costs_are_torchs(capsys):
    assert main(["resources", "lenet", "--kernels", "fused", "--format", "json"]) == 0
    written = capsys.readouterr()
    assert written.err == (
        "lenet: no layers that fused kernels compute together, so that its costs are those of "
        "torch kernels\n"
    )
    (lenet,) = json.loads(written.out)["networks"]
    assert lenet["saved_bytes"] == formulas.saved_bytes(ARCHITECTURES["lenet"], 1)


def test_nin_has_the_textbooks_counts(answers):
    (nin,) = json.loads(answers("nin", "--format", "json"))["networks"]
    assert (nin["parameters"], nin["macs"]) == (1_992_166, 762_297_352)


@pytest.mark.parametrize("torch_version", sorted({table.torch for table in available()}))
def test_a_device_adds_scratch_and_its_allocator(answers, torch_version):
    (nin,) = json.loads(
        answers(
            *("nin", "--batch-size", "128", "--device", "h100", "--precision", "tf32"),
            *("--torch", torch_version, "--format", "json"),
        )
    )["networks"]
    for step in (nin["training"], nin["inference"]):
        tensors, requested, allocated, reserved = (step[key] for key in PEAKS[:4])
        assert tensors <= requested <= allocated <= reserved


def test_a_reserved_peak_that_hangs_on_addresses_is_written_as_a_range(answers, monkeypatch):
    def with_a_range(*arguments, **options):
        cost = profile(*arguments, **options)
        report = replace(cost.training, reserved_range_bytes=(17 * 2**30, 2**60))
        return replace(cost, training=report)

    monkeypatch.setattr(commands, "profile", with_a_range)
    asked = ("lenet", "--device", "h100", "--torch", "2.11")
    (network,) = json.loads(answers(*asked, "--format", "json"))["networks"]
    assert network["training"]["reserved_range_bytes"] == [17 * 2**30, 2**60]
    assert network["inference"]["reserved_range_bytes"] is None
    (row,) = csv.DictReader(io.StringIO(answers(*asked, "--format", "csv")))
    assert row["training.reserved_range_bytes"] == f"{17 * 2**30} {2**60}"
    assert row["inference.reserved_range_bytes"] == ""
    written = " ".join(answers(*asked).split())
    ends = f"{format_bytes(17 * 2**30)} to {format_bytes(2**60)}"
    assert f"lenet: training reserves {ends} on h100" in written
    assert "prediction reserves" not in written
    assert "training and prediction" not in written  # no device has the most that may be needed


def test_a_device_without_a_table_says_tensors_only(answers):
    asked = ("nin", "--device", "phone_8gb")
    (nin,) = json.loads(answers(*asked, "--format", "json"))["networks"]
    assert nin["training"]["tensor_peak_bytes"] > 0
    assert [nin["training"][key] for key in PEAKS[1:4]] == [None] * 3
    assert "unknown" in answers(*asked)
    assert "nin: no table says how much scratch it takes on phone_8gb" in answers(*asked)


def test_a_chain_without_a_kernel_is_why_its_scratch_is_unknown(answers):
    asked = ("nin_28", "--kernels", "chained", "--device", "h100")
    assert "nin_28: ninlab::chain, ninlab::chain_backward run as plain torch" in answers(*asked)


def test_layers_of_csv_add_up_to_the_row_of_the_network(answers):
    (total,) = csv.DictReader(io.StringIO(answers("googlenet", "--format", "csv")))
    layers = list(csv.DictReader(io.StringIO(answers("googlenet", "--format", "csv", "--layers"))))
    for column in ("parameters", "macs", "saved_bytes"):
        assert sum(int(row[column]) for row in layers) == int(total[column])
    assert layers[-1]["name"] == "loss"


@pytest.mark.parametrize("by", ["category", "layer"])
def test_the_parts_of_the_peak_add_up(answers, by):
    (network,) = json.loads(answers("googlenet", "--by", by, "--format", "json"))["networks"]
    parts = network[f"training_peak_by_{by}"]
    assert sum(parts.values()) == network["training"]["tensor_peak_bytes"]


def test_the_largest_phase_holds_the_peak(answers):
    (network,) = json.loads(answers("googlenet", "--by", "phase", "--format", "json"))["networks"]
    phases = network["training_peak_by_phase"]
    assert max(phases.values()) == network["training"]["tensor_peak_bytes"]
    assert list(phases) == ["setup", "zero_grad", "forward", "loss", "backward", "step"]


def test_a_table_names_every_network_and_device(answers):
    printed = answers("nin", "alexnet", "--batch-size", "128", "--layers", "--by", "category")
    for word in ("nin", "alexnet", "1.99 M", "block1.conv1", "activation", "H100", "phone"):
        assert word in printed


def peak(step: StepTimeline) -> int:
    return max(live_bytes(step.events, step.batch_size))


@pytest.mark.parametrize("network", ["nin", "googlenet_28"])
@pytest.mark.parametrize("memory", [2**24, 2**28])
def test_the_largest_batch_fits_and_one_image_more_does_not(answers, network, memory):
    found = json.loads(answers(network, "--fit", f"{memory}B", "--format", "json"))["networks"]
    subject = load(network)
    for what, training in (("training", True), ("inference", False)):
        largest = found[0]["largest_batch"][what]
        fits = [
            batch_size == 0 or peak(trace_step(subject, batch_size, training=training)) <= memory
            for batch_size in (largest, largest + 1)
        ]
        assert fits == [True, False]


def test_nin_needs_more_training_memory_than_alexnet_from_batch_96_on(answers):
    found = json.loads(answers("nin", "alexnet", "--batches", "95,96", "--format", "json"))
    assert found["crossings"] == [
        {"network": "nin", "needs_more_than": "alexnet", "from_batch_size": 96}
    ]
    before, after = (
        [network["sweep"][i]["training_tensor_peak_bytes"] for network in found["networks"]]
        for i in range(2)
    )
    assert before[0] < before[1]
    assert after[0] > after[1]
    assert "nin needs more training memory than alexnet from batch 96 on" in answers(
        "nin", "alexnet", "--batches", "96"
    )


@pytest.mark.parametrize("name", ["nin", "googlenet_28"])
def test_traced_batches_are_the_closed_form(name):
    closed = liveness.timeline(ARCHITECTURES[name], "adam")
    traced = trace_batches(load(name), "adam")
    for batch_size in (2, 5, 64, 1000):
        assert tensor_peak(traced, batch_size) == tensor_peak(closed, batch_size)


def test_a_plot_is_a_page_that_needs_nothing_else(answers, tmp_path):
    page = tmp_path / "out.html"
    answers("nin_28", "lenet", "--plot", str(page))
    written = page.read_text(encoding="utf-8")
    assert "nin_28, sgd, fp32" in written
    assert "lenet, sgd, fp32" in written
    # Plotly's own script names the addresses of icons for maps, which the page has not.
    loads = r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="http'
    assert re.findall(loads, '<script defer src="https://example.org/plotly.js">')
    assert re.findall(loads, written) == []


def test_a_plot_is_refused_before_anything_is_counted(refusal, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "load", None)
    with disk_with_room_for(0):
        said = refusal("resources", "lenet", "--plot", tmp_path / "out.html")
    assert said.endswith("File too large; no file was left behind")
    assert [*tmp_path.iterdir()] == []


def test_a_plot_that_does_not_fit_leaves_the_older_one(refusal, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "check_can_write", lambda path: None)  # it fitted at that moment
    page = tmp_path / "out.html"
    page.write_text("an older one")
    with disk_with_room_for(1000):
        refusal("resources", "lenet", "--plot", page)
    assert [*tmp_path.iterdir()] == [page]
    assert page.read_text() == "an older one"


def test_a_plot_follows_a_link_and_goes_into_a_pipe(answers, tmp_path):
    page, link, pipe = tmp_path / "page", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(page)
    answers("lenet", "--plot", str(link))
    assert link.is_symlink()
    os.mkfifo(pipe)
    with (
        open(tmp_path / "received", "wb") as received,
        subprocess.Popen(["cat", pipe], stdout=received) as cat,
    ):
        try:
            answers("lenet", "--plot", str(pipe))
            assert pipe.is_fifo()
            cat.wait()
        finally:
            cat.kill()
    identity = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # of the figure
    one, other = (identity.sub(b"", each.read_bytes()) for each in (page, tmp_path / "received"))
    assert one == other


def test_modules_of_ones_own_are_found_by_package_and_by_file(answers, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "def network():\n"
        "    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(10))\n"
        "class Own(nn.Conv2d):\n"
        "    def __init__(self):\n"
        "        super().__init__(1, 4, 3)\n"
        "ready = network()\n"
    )
    for name in ("network", "Own", "ready"):
        found = json.loads(answers(f"{file}:{name}", "--input", "1x8x8", "--format", "json"))
        assert found["networks"][0]["macs"] >= 4 * 9 * 36
    (resnet,) = json.loads(
        answers("torchvision.models:resnet18", "--input", "3x224x224", "--format", "json")
    )["networks"]
    assert resnet["parameters"] == 11_689_512


def test_what_is_left_out_and_what_a_gpu_does_otherwise_are_told_apart(answers, tmp_path):
    (tmp_path / "mixed.py").write_text(
        "import torch\n"
        "class Mixed(torch.nn.Module):\n"
        "    def forward(self, images):\n"
        "        return torch.fft.rfft(images.prod(1)).abs().flatten(1)\n"
    )
    said = answers(f"{tmp_path / 'mixed.py'}:Mixed", "--input", "2x4x4").splitlines()
    assert any("no rule for aten::_fft_r2c (1x); what is above leaves it out" in x for x in said)
    assert any("on a GPU aten::prod (1x) may allocate otherwise" in x for x in said)


def test_a_network_that_skips_layers_by_chance_is_told_of(answers, tmp_path):
    (tmp_path / "chance.py").write_text(
        "import random, torch\n"
        "class Chance(torch.nn.Conv2d):\n"
        "    def __init__(self):\n"
        "        super().__init__(3, 3, 1)\n"
        "    def forward(self, images):\n"
        "        return super().forward(images) if random.random() < 0.5 else images\n"
    )
    said = answers(f"{tmp_path / 'chance.py'}:Chance", "--input", "3x4x4")
    assert "draws random numbers on the host" in said
    assert "no rule for" not in said


def test_what_a_module_prints_is_no_part_of_the_answer(capsys, tmp_path):
    (tmp_path / "noisy.py").write_text(
        "import torch\n"
        "print('imported')\n"
        "class Noisy(torch.nn.Flatten):\n"
        "    def forward(self, images):\n"
        "        print('running')\n"
        "        return super().forward(images)\n"
    )
    network = f"{tmp_path / 'noisy.py'}:Noisy"
    assert main(["resources", network, "--input", "3x4x4", "--format", "json"]) == 0
    written = capsys.readouterr()
    assert json.loads(written.out)["networks"][0]["parameters"] == 0
    assert set(written.err.splitlines()) == {"imported", "running"}


def test_no_image_fits_where_one_image_cannot_be_learned_from(answers):
    arguments = (RESNET, "--input", "3x32x32", "--batch-size", "2", "--fit", "1MiB")
    found = json.loads(answers(*arguments, "--format", "json"))["networks"]
    assert found[0]["largest_batch"] == {"training": 0, "inference": 0}


# ---------------------------------------------------------------- mistakes

RESNET = "torchvision.models:resnet18"
MISTAKES = {
    "unknown network": (["nins"], "unknown network 'nins'; did you mean 'nin'?"),
    "unknown precision": (
        ["nin", "--precision", "fp16"],
        "unknown value 'fp16'; did you mean 'bf16'",
    ),
    "unknown optimizer": (["nin", "--optimizer", "adm"], "did you mean 'adam'?"),
    "unknown format": (
        ["nin", "--format", "yaml"],
        "unknown value 'yaml'; known: table, json, csv",
    ),
    "unknown device": (["nin", "--device", "h10"], "unknown device 'h10'; did you mean 'h100'?"),
    "unknown torch": (
        ["nin", "--device", "h100", "--torch", "1.0"],
        "unknown torch version of a h100 workspace table '1.0'",
    ),
    "unknown part": (
        ["nin", "--by", "color"],
        "unknown value 'color'; known: category, layer, phase",
    ),
    "unknown option": (["nin", "--batchsize", "2"], "--batchsize"),
    "no network": ([], "Missing argument"),
    "too small": (["nin", "--input", "1x20x20"], "the smallest input that works is 1x67x67"),
    "too small for a module": (
        ["torchvision.models:alexnet", "--input", "3x32x32"],
        "the smallest input that works is 3x63x63",
    ),
    "wrong channels": (["nin", "--input", "3x224x224"], "try 1x224x224"),
    "wrong channels for a module": ([RESNET, "--input", "1x64x64"], "try 3x64x64"),
    "no shape": (["nin", "--input", "224"], "must be three numbers"),
    "no input for a module": ([RESNET], "needs an input shape; for example 3x224x224"),
    "empty batch": (["nin", "--batch-size", "0"], "'0' is no whole number from 1 to"),
    "batch too small to train": (
        [RESNET, "--input", "3x32x32"],
        "cannot take a training step on 1 image(s) of 3x32x32",
    ),
    "a batch among others too small to train": (
        [RESNET, "--input", "3x32x32", "--batch-size", "2", "--batches", "1,2"],
        "cannot take a training step on 1 image(s) of 3x32x32",
    ),
    "no factory": ([RESNET.partition(":")[0], "--input", "3x32x32"], "torchvision.models:factory"),
    "no such package": (
        ["torchvison.models:resnet18", "--input", "3x32x32"],
        "cannot import 'torchvison.models'",
    ),
    "no such factory": (
        ["torchvision.models:resnet81", "--input", "3x32x32"],
        "has no 'resnet81'; did you mean 'resnet18'?",
    ),
    "no such file": (["nowhere.py:network", "--input", "3x32x32"], "there is no file 'nowhere.py'"),
    "no module": (["math:pi", "--input", "3x32x32"], "is a float, no torch.nn.Module"),
    "a factory with arguments": (
        ["torch.nn:Conv2d", "--input", "3x32x32"],
        "could not be built without arguments",
    ),
    "no batch sizes": (["nin", "--batches", "1,x"], "'1,x' is no list of batch sizes"),
    "no memory size": (["nin", "--fit", "16"], "'16' is no memory size"),
    "two tables in one csv": (
        ["nin", "--format", "csv", "--layers", "--by", "layer"],
        "csv holds one table",
    ),
    "no folder for the plot": (
        ["nin_28", "--plot", "/no/such/out.html"],
        "'/no/such/out.html' lies in a folder that does not exist; create it first",
    ),
    "a folder for the plot": (["nin_28", "--plot", "/"], "'/' is a folder; name a file"),
    "a file as a folder": (
        ["nin_28", "--plot", "/dev/null/out.html"],
        "'/dev/null/out.html' lies in a folder that does not exist",
    ),
}


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_write_instead(arguments, says, refusal):
    assert says in refusal("resources", *arguments)
