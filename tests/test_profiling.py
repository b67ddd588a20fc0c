"""What torch's profiler sees of the training loop's step becomes a record, network by network."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ninlab import data, fused, profiling, records
from ninlab.__main__ import main
from ninlab.data import LabeledImages
from ninlab.errors import NinlabError
from ninlab.profiles import NO_OPERATOR, Event, Place, Setting, load_records, step_operators
from ninlab.profiling import Profile, _of_no_operator, _profiled_epoch, _steps, profiled
from ninlab.reports import Phase
from ninlab.steps import Kernels, Precision
from tests.records import a_profile

STEPS, BATCH_SIZE = 3, 8
SMALL = Setting("nin_28", BATCH_SIZE, Precision.FP32)
CPUS_OWN = {"native_dropout", "native_dropout_backward"}
"""What a CPU calls by other names than CUDA: it draws a mask and multiplies."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> LabeledImages:
    count = STEPS * BATCH_SIZE
    pixels = torch.arange(count * 28 * 28).remainder(256).to(torch.uint8)
    return LabeledImages(pixels.view(count, 1, 28, 28), torch.arange(count) % 10)


@pytest.fixture(scope="module")
def made(images) -> Profile:
    return profiled(SMALL, images, STEPS)


# ---------------------------------------------------------------- a step on the CPU


def test_every_operator_that_a_cpu_calls_by_the_rooflines_name_has_its_layer(made):
    operators = [one for one in step_operators(SMALL) if one.calls]
    known = [one for one in made.operators if one.phase is not None]
    expected = [(one.layer, one.phase) for one in operators if one.name not in CPUS_OWN]
    assert [(one.layer or "", one.phase) for one in known] == expected
    names = {one.name for one in operators}
    for one in known:  # the fused update is the only one by another name
        assert one.name in names or (one.name, one.phase) == ("_fused_sgd_", Phase.STEP)
    never = [one for one in made.operators if one.place is Place.COUNTED and one.phase is None]
    assert {one.name for one in never} == CPUS_OWN
    assert [one.calls for one in never] == [0] * len(never)


@pytest.mark.parametrize("kernels", [Kernels.FUSED, Kernels.CHAINED])
def test_every_fused_operator_has_its_layer_and_work(kernels, images):
    setting = Setting("nin_28", BATCH_SIZE, Precision.BF16, kernels)
    found = [one for one in profiled(setting, images, 2).operators if one.place is Place.COUNTED]
    expected = [one for one in step_operators(setting) if one.name not in CPUS_OWN]
    known = [one for one in found if one.phase is not None]
    calls = [(one.layer, one.phase) for one in expected if one.calls]
    assert [(one.layer or "", one.phase) for one in known] == calls
    assert sum(one.bytes or 0 for one in known) == sum(one.bytes for one in expected)
    assert {one.name for one in found if one.phase is None} == CPUS_OWN
    assert {"fold", "bias_relu_", "bias_relu_max_pool_backward"} <= {one.name for one in known}


def test_flops_and_bytes_of_a_profile_are_the_rooflines(made):
    counted = [one for one in step_operators(SMALL) if one.name not in CPUS_OWN]
    for quantity in ("flops", "bytes"):
        profiled_in_all = sum(getattr(one, quantity) or 0 for one in made.operators)
        assert profiled_in_all == sum(getattr(one, quantity) for one in counted)


def test_every_time_is_above_zero_and_they_add_up_to_the_devices(made):
    called = [one for one in made.operators if one.calls]
    assert all(one.seconds > 0 for one in called)
    assert made.device_seconds == pytest.approx(sum(one.seconds for one in called), rel=1e-12)
    assert made.called_seconds > 0
    assert made.graph_seconds is None
    assert made.profiled_steps == STEPS - 1


def test_what_the_engine_does_around_the_network_has_rows_of_its_own(made):
    outside = {one.name: one for one in made.operators if one.place is Place.OUTSIDE}
    assert {"index_select", "argmax", "index_copy_"} <= outside.keys()
    assert outside["index_select"].calls == 2  # images and labels
    assert not {"conv2d", "relu", "cross_entropy_loss"} & outside.keys()


@pytest.mark.parametrize(
    ("setting", "steps", "said"),
    [
        (SMALL, 1, "has none after its first"),
        (SMALL, STEPS + 1, "but there are 24"),
        (replace(SMALL, network="nin-28"), STEPS, "nin_28"),
    ],
)
def test_a_profile_that_cannot_be_taken_is_refused(setting, steps, said, images):
    with pytest.raises(NinlabError, match=said):
        profiled(setting, images, steps)


# ---------------------------------------------------------------- a GPU's events, made up


@dataclass(eq=False)
class FakeEvent:
    """What is read of an event of torch's profiler. Times are microseconds."""

    name: str
    start: float
    end: float
    kernels: list[Any] = field(default_factory=list)
    cpu_children: list[Any] = field(default_factory=list)
    cpu_parent: Any = None
    on: str = "CPU"
    overload_name: str = ""
    is_async: bool = False
    is_user_annotation: bool = False

    def __post_init__(self) -> None:
        for child in self.cpu_children:
            child.cpu_parent = self

    @property
    def device_type(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.on)

    @property
    def time_range(self) -> SimpleNamespace:
        return SimpleNamespace(start=self.start, end=self.end)

    @property
    def self_cpu_time_total(self) -> float:
        return 1000.0

    def all(self) -> Iterator["FakeEvent"]:
        yield self
        for child in self.cpu_children:
            yield from child.all()


def kernel(name: str, duration: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, duration=duration)


def a_step(start: float) -> list[FakeEvent]:
    """On the host: what picks images, zero_grad, an operator, its way back, the update, a mark.

    The update's events come before those of the way back, as they may: of another thread.
    """
    zero_grad, update = "Optimizer.zero_grad#SGD.zero_grad", "Optimizer.step#SGD.step"
    launch = FakeEvent("cudaLaunchKernel", start + 21, start + 22)
    relu = FakeEvent("aten::relu", start + 20, start + 25, [kernel("relu_k", 3)], [launch])
    back = FakeEvent("aten::threshold_backward", start + 31, start + 32, [kernel("back_k", 4)])
    fused = FakeEvent("aten::_fused_sgd_", start + 41, start + 42, [kernel("sgd_k", 5)])
    node = "autograd::engine::evaluate_function: ReluBackward0"
    return [
        FakeEvent("aten::index_select", start, start + 5, [kernel("pick_k", 2)]),
        FakeEvent(zero_grad, start + 10, start + 12, [kernel(zero_grad, 900)]),
        relu,
        FakeEvent(update, start + 40, start + 45, [kernel(update, 800)], [fused]),
        FakeEvent(node, start + 30, start + 33, [], [back]),
        FakeEvent("ninlab: a step is taken", start + 50, start + 51),
    ]


def seen_by_a_gpu(steps: int, *more: FakeEvent) -> list[FakeEvent]:
    """Of so many steps, on the host and on the GPU, as one list."""
    host = [one for number in range(steps) for root in a_step(100.0 * number) for one in root.all()]
    device = [
        FakeEvent(
            one.name, 7000.0, 7000.0 + one.duration, on="CUDA",
            is_user_annotation=one.name.startswith("Optimizer"),
        )
        for event in host
        for one in event.kernels
    ]  # fmt: skip
    return [*device, *host, *more]


def test_the_steps_of_a_profile_are_those_behind_the_first_in_the_hosts_order():
    steps = [*_steps(seen_by_a_gpu(3))]
    assert len(steps) == 2
    for step in steps:
        assert [event.name for event in step] == [
            "aten::index_select",
            "Optimizer.zero_grad#SGD.zero_grad",
            "aten::relu",
            "autograd::engine::evaluate_function: ReluBackward0",
            "Optimizer.step#SGD.step",
        ]


def test_on_a_gpu_an_operator_takes_what_its_kernels_take():
    step = next(_steps(seen_by_a_gpu(2)))
    found = {event.name: event for root in step for event in root.all()}
    assert found["aten::relu"] == Event("aten::relu", 3e-6, (("relu_k", 3e-6),))
    assert found["aten::threshold_backward"].seconds == 4e-6


def test_what_an_operator_with_kernels_of_its_own_calls_belongs_to_it():
    inner = FakeEvent("aten::copy_", 3, 4, [kernel("copy_k", 2)])
    cast = FakeEvent("aten::to", 2, 5, [], [inner], overload_name="dtype")
    divided = FakeEvent("aten::div_", 1, 6, [kernel("div_k", 3)], [cast], overload_name="Tensor")
    dropout = FakeEvent("aten::dropout", 0, 7, [], [divided])
    mark = [FakeEvent("ninlab: a step is taken", at, at) for at in (-1, 8)]
    of_gpu = FakeEvent("div_k", 3, 6, on="CUDA")
    ((found,),) = _steps([*mark, *dropout.all(), of_gpu])
    (whole,) = found.children
    assert (found.name, found.seconds) == ("aten::dropout", 0.0)  # only calls others
    assert whole == Event("aten::div_", pytest.approx(5e-6), (("div_k", 3e-6), ("copy_k", 2e-6)))


def test_the_span_of_torchs_own_mark_is_no_kernel():
    for event in next(_steps(seen_by_a_gpu(2))):
        if event.name.startswith("Optimizer"):
            assert (event.seconds, event.kernels) == (0.0, ())
    assert [*_of_no_operator(seen_by_a_gpu(2), 2)] == []


def test_kernels_that_no_operator_launched_are_listed_by_themselves():
    stray = [
        FakeEvent("relu_k", 8000.0, 8003.0, on="CUDA"),  # as long as an operator's own
        FakeEvent("stray_k", 8000.0, 8007.0, on="CUDA"),
        FakeEvent("a note", 8000.0, 9000.0, on="CUDA", is_user_annotation=True),
    ]
    (row,) = _of_no_operator(seen_by_a_gpu(2, *stray), 2)
    assert (row.name, row.place, row.phase) == (NO_OPERATOR, Place.UNCOUNTED, None)
    assert [(one.name, one.calls) for one in row.kernels] == [("stray_k", 0.5), ("relu_k", 0.5)]
    assert row.seconds == pytest.approx(5e-6, rel=1e-12)


def test_a_profiler_that_sees_nothing_of_a_gpu_is_said(monkeypatch):
    class Blind:
        def __enter__(self) -> "Blind":
            return self

        def __exit__(self, *_: object) -> None: ...
        def events(self) -> list[FakeEvent]:
            return [event for event in seen_by_a_gpu(2) if event.on == "CPU"]

    monkeypatch.setattr(profiling, "profile_of_operators", lambda **_: Blind())
    on_gpu = SimpleNamespace(images=SimpleNamespace(is_cuda=True))
    engine: Any = SimpleNamespace(training=on_gpu, epoch=lambda _: None)
    with pytest.raises(NinlabError, match="saw no kernel of the GPU"):
        _profiled_epoch(engine)


# ---------------------------------------------------------------- the command


@pytest.fixture
def answers(monkeypatch, images):
    """Profiles are made up; a network's name may stand for an error in place of one."""
    monkeypatch.setattr(data, "fashion_mnist", lambda: (images, images))

    def install(before=lambda setting: None, **errors: BaseException) -> None:
        def answer(setting: Setting, *_: object) -> Profile:
            before(setting)
            if setting.network in errors:
                raise errors[setting.network]
            made_up = a_profile(setting)
            operators = tuple(replace(one, kernels=()) for one in made_up.operators)
            return Profile(3, made_up.called_seconds, None, operators)

        monkeypatch.setattr(profiling, "profiled", answer)

    return install


def ask(folder, *arguments: str) -> int:
    return main(["profile", *arguments, "--device", "cpu", "--allow-dirty", "--runs", str(folder)])


def test_the_command_records_each_setting_once(images, monkeypatch, folder, capsys):
    monkeypatch.setattr(data, "fashion_mnist", lambda: (images, images))
    size = ("--batch-size", str(BATCH_SIZE), "--steps", str(STEPS), "--precision", "fp32")
    assert ask(folder, "nin_28", *size) == 0
    assert "1 profiled, 0 were there already" in capsys.readouterr().out
    assert ask(folder, "nin_28", *size) == 0
    assert "0 profiled, 1 were there already" in capsys.readouterr().out
    (record,) = load_records(folder)
    assert record.setting == SMALL
    assert record.device.slug == "cpu"
    assert record.profiled_steps == STEPS - 1


def test_networks_precisions_and_kernels_are_profiled_in_the_order_given(answers, folder):
    asked: list[str] = []
    answers(lambda setting: asked.append(setting.slug))
    given = ["--precision", "bf16", "--precision", "fp32", "--kernels", "torch"]
    assert ask(folder, "nin_28", "lenet", *given) == 0
    assert asked == [
        f"{name}-b128-{precision}-torch"
        for name in ("nin_28", "lenet")
        for precision in ("bf16", "fp32")
    ]


def test_what_fails_is_said_and_recorded_nowhere_and_those_after_it_are(answers, folder, capsys):
    answers(nin_28=RuntimeError("CUDA error: no [kernel] image\nand more"))
    assert ask(folder, "nin_28", "lenet") == 1
    (record,) = load_records(folder)
    assert record.setting.network == "lenet"
    said = capsys.readouterr().err.splitlines()
    assert said[1] == "nin_28-b128-bf16-torch failed: RuntimeError: CUDA error: no [kernel] image"
    assert said[-1] == "1 of 2 profiles failed; nothing is recorded for them"


def test_kernels_that_cannot_run_here_are_refused_and_torchs_are_profiled(answers, folder, capsys):
    answers()
    assert ask(folder, "nin_28", "--kernels", "fused", "--kernels", "torch") == 1
    (record,) = load_records(folder)
    assert record.setting.kernels is Kernels.TORCH
    failed = "nin_28-b128-bf16-fused failed: fused kernels need a CUDA device"
    assert failed in capsys.readouterr().err


def test_a_network_with_nothing_to_join_is_refused_and_the_others_profiled(
    answers, folder, capsys, monkeypatch
):
    answers()
    monkeypatch.setattr(fused, "why_not", lambda device: None)
    assert ask(folder, "lenet", "nin_28", "--kernels", "fused") == 1
    assert [one.setting.slug for one in load_records(folder)] == ["nin_28-b128-bf16-fused"]
    failed = "lenet-b128-bf16-fused failed: lenet has no layers that fused kernels compute"
    assert failed in capsys.readouterr().err


def test_what_is_asked_for_twice_is_profiled_once(answers, folder):
    asked: list[str] = []
    answers(lambda setting: asked.append(setting.network))
    twice = ["--precision", "bf16", "--precision", "bf16", "--kernels", "torch"]
    assert ask(folder, "nin_28", "nin_28", "lenet", *twice, "--kernels", "torch") == 0
    assert asked == ["nin_28", "lenet"]


def test_a_profile_that_is_interrupted_keeps_what_was_measured(answers, folder, tmp_path):
    results = tmp_path / "results"
    there: list[list[str]] = []

    def look(setting: Setting) -> None:  # what a killed process leaves is what lies there now
        archives = [path.name for path in results.glob("*")]
        there.append([*(one.setting.network for one in load_records(folder)), *archives])

    answers(look, alexnet_28=KeyboardInterrupt())
    ended = ask(folder, "nin_28", "alexnet_28", "lenet", "--results", str(results))
    assert ended == 130
    assert there == [["records.tar.gz"], ["nin_28", "records.tar.gz"]]
    assert [one.setting.network for one in load_records(folder)] == ["nin_28"]


def test_a_printed_profile_names_the_longest_and_on_a_gpu_their_kernels(capsys):
    from ninlab.commands.profile import print_profile
    from ninlab.commands.shared import wide_console

    record = a_profile(Setting("nin"))
    print_profile(wide_console(), record)
    printed = " ".join(capsys.readouterr().out.split())
    longest = max(record.operators, key=lambda one: one.seconds)
    assert record.in_words in printed
    assert f"│ {longest.layer} │ {longest.name}" in printed
    assert f"{record.kernels_by_share()[0].name} │" in printed


def test_a_record_of_the_command_passes_validation(answers, folder, capsys):
    answers()
    assert ask(folder, "nin_28") == 0
    assert main(["runs", "--validate", "--runs", str(folder)]) == 0
    assert "1 of kind 'profile'" in capsys.readouterr().out
    assert records.kinds(folder) == {"profile": 1}
