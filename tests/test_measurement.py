import contextlib
import gzip
import io
import json
import signal
import sys
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ninlab import handover, measurement, records, torch_private
from ninlab.__main__ import main
from ninlab.architectures import architecture
from ninlab.commands.measure import _save_properties as save_properties
from ninlab.errors import NinlabError, RecordError, UnknownNameError
from ninlab.liveness import peak_bytes, timeline
from ninlab.measurement import (
    MODES,
    WARM_STEPS,
    Allocator,
    Case,
    CaseOutcome,
    Failed,
    GpuEvent,
    Measured,
    MemoryRecord,
    describe_in_process,
    events_path,
    from_start_path,
    gpu,
    load_records,
    measure,
    measure_in_process,
    processes,
    record_id,
    tensor_peak,
    with_grown_results,
)
from ninlab.measurement.cpu import marked, recorded, without_scratch
from ninlab.measurement.gpu import _events
from ninlab.networks import build
from ninlab.records import Device, Provenance, Software
from ninlab.steps import OPTIMIZERS
from tests.records import without_one_field

CPU = torch.device("cpu")
LENET = (1, 28, 28)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


COUNT_STEPS = [
    name
    for name, rule in OPTIMIZERS.items()
    if any(call.moved_lists == 0 for call in rule.calls)  # the counters are no lists of parameters
]


def predicted_peak(case: Case) -> int:
    training = case.mode != "inference"
    optimizer = case.mode if training else "sgd"
    events = timeline(architecture(case.network), optimizer, case.precision, training=training)
    return peak_bytes(events, case.batch_size)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch_size", [4, 64])
@pytest.mark.parametrize("mode", MODES)
def test_tensors_of_a_cpu_step_are_those_that_were_predicted(mode, batch_size, precision):
    case = Case("lenet", LENET, batch_size, precision, mode)
    measured = measure(case, CPU, timed_steps=2)
    counters = 0
    if mode in COUNT_STEPS:  # in one float32 a parameter tensor, on the CPU in any case
        counters = 4 * len(list(build("lenet", device="meta").parameters()))
    assert measured.tensor_peak_bytes == predicted_peak(case) + counters


@pytest.mark.parametrize("mode", ["inference", "sgd"])
def test_scratch_only_adds_to_what_tensors_take(mode):
    measured = measure(Case("nin_28", (1, 28, 28), 8, mode=mode), CPU, timed_steps=2)
    assert measured.requested_peak_bytes >= measured.tensor_peak_bytes > 0


def test_scratch_is_what_one_operator_makes_and_frees_whichever_overload_was_called():
    images = torch.ones(64)
    with recorded() as events:
        with marked("where"):  # makes a scalar of the number, then chooses
            torch.where(images > 0, images, 0.0)
        with marked("std"):  # one kernel, which takes a mean for itself
            images.std()
    sizes = {
        step: [each.bytes for each in without_scratch(events) if each.step == step]
        for step in ("where", "std")
    }
    assert sorted(size for size in sizes["where"] if size > 0) == [4, 64, 256]
    assert [size for size in sizes["std"] if size > 0] == [4]
    assert sum(each.step == "std" and each.bytes > 0 for each in events) > 1


def test_a_network_of_ones_own_is_measured_as_one_of_the_book():
    case = Case("lenet", LENET, 8)
    mine = replace(case, network="mine")
    measured = measure(mine, CPU, timed_steps=0, build_network=lambda: build("lenet", seed=0))
    assert measured == measure(case, CPU, timed_steps=0)


def test_what_only_a_gpu_tells_is_none_on_a_cpu():
    measured = measure(Case("lenet", LENET, 2), CPU, timed_steps=2)
    assert measured.allocated_peak_bytes is None
    assert measured.reserved_peak_bytes is None
    assert measured.overhead_bytes is None


def test_the_quartiles_of_the_step_are_in_order():
    measured = measure(Case("lenet", LENET, 2), CPU, timed_steps=5)
    assert list(measured.step_seconds) == sorted(measured.step_seconds)
    assert measured.median_seconds == measured.step_seconds[1] > 0
    assert measured.timed_steps == 5


@pytest.mark.slow
def test_a_process_of_its_own_measures_the_same_bytes_and_says_how_a_case_failed_or_crashed(
    tmp_path, monkeypatch
):
    log = tmp_path / "log"
    (tmp_path / "some_factories.py").write_text(
        "import os, sys\n"
        "from ninlab.networks import build\n"
        "def lenet(): return build('lenet', seed=0)\n"
        "def failing(): return build('no_such_network', seed=0)\n"
        "def crashing():\n"
        f"    open({str(log)!r}, 'a').write('x')\n"
        "    sys.stderr.write('what(): CUDA error: misaligned address\\nframe #0: c10::Error\\n')\n"
        "    sys.stderr.write('Compile with debugging.\\n')\n"
        "    sys.stderr.flush()\n"
        "    os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    asked = (("lenet", 8), ("lenet", 2), ("failing", 2), ("crashing", 2))
    cases = [Case(name, LENET, batch_size) for name, batch_size in asked]
    *elsewhere, failed, crashed = measure_in_process(
        cases, CPU, Allocator.CPU, timed_steps=2, factories="some_factories"
    )
    here = [measure(case, CPU, timed_steps=2) for case in cases[:2]]
    assert [m.tensor_peak_bytes for m in elsewhere] == [m.tensor_peak_bytes for m in here]
    assert failed.sentence.startswith("unknown network 'no_such_network'")
    assert crashed == Failed("its process crashed: what(): CUDA error: misaligned address")
    assert log.read_text() == "xx"


def test_a_measuring_process_answers_whatever_a_case_raises(monkeypatch, capsys):
    def measure_or_raise(case, *_):
        print("a library's chatter")
        if case.batch_size == 3:
            raise RuntimeError("CUDA error: launch failed\nCompile with debugging.")
        return Measured(CaseOutcome.FINISHED, case.batch_size)

    monkeypatch.setattr(processes, "measure", measure_or_raise)
    settings = {"device": "cpu", "timed_steps": 0, "threads": 1}
    settings |= {"events_folder": None, "factories": None}
    job = [settings, *(asdict(Case("lenet", LENET, size)) for size in (2, 3, 4))]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{json.dumps(x)}\n" for x in job)))
    processes.serve()
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["measured"]["requested_peak_bytes"] == 2
    assert second == {"failed": "RuntimeError: CUDA error: launch failed"}
    assert third["measured"]["requested_peak_bytes"] == 4


STAND_IN = """
import json, os, sys
settings = json.loads(sys.stdin.readline())
open({log!r}, "a").write("started ")
for line in sys.stdin:
    size = json.loads(line)["batch_size"]
    open({log!r}, "a").write(f"{{size}} ")
    deaths = open({log!r}).read().split().count(str(size))
    if size in {deadly} and deaths <= {times}:
        sys.exit("lost the device")
    if size == {failing}:
        print(json.dumps({{"failed": "no such kernel"}}), flush=True)
    else:
        print(json.dumps({{"measured": {{**{measured}, "timed_steps": size}}}}), flush=True)
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Puts a process without torch in the measuring one's place; gives its log, word by word."""
    log = tmp_path / "log"

    def install(deadly=(), times=0, failing=None):
        on_cpu = Measured(CaseOutcome.FINISHED, 5, 4, step_seconds=(0.1, 0.2, 0.3))
        measured = {**asdict(on_cpu), "outcome": "finished"}
        names = {"log": str(log), "deadly": deadly, "times": times, "failing": failing}
        program = STAND_IN.format(**names, measured=measured)
        monkeypatch.setattr(processes, "_COMMAND", [sys.executable, "-c", program])
        return lambda: log.read_text().split() if log.exists() else []

    return install


def answers(sizes, **options):
    return measure_in_process(
        [Case("lenet", LENET, size) for size in sizes], CPU, Allocator.CPU, **options
    )


def test_a_measuring_process_that_dies_is_replaced_for_the_cases_that_remain(stand_in):
    said = stand_in(deadly=[2], times=1)
    assert [answer.timed_steps for answer in answers([1, 2, 3])] == [1, 2, 3]
    assert said() == ["started", "1", "2", "started", "2", "3"]


def test_a_case_at_which_two_processes_die_has_failed_and_those_behind_it_are_measured(stand_in):
    said = stand_in(deadly=[2], times=2)
    first, second, third = answers([1, 2, 3])
    assert (first.timed_steps, third.timed_steps) == (1, 3)
    assert second == Failed("its process crashed: lost the device")
    assert said() == ["started", "1", "2", "started", "2", "started", "3"]


def test_two_cases_in_a_row_at_which_two_processes_die_are_a_device_that_is_lost(stand_in):
    stand_in(deadly=[2, 3], times=2)
    results = answers([1, 2, 3, 4])
    assert [isinstance(next(results), kind) for kind in (Measured, Failed)] == [True, True]
    with pytest.raises(NinlabError, match=r"two cases in a row.* lenet-b3-.*: lost the device;"):
        next(results)


def test_two_cases_apart_at_which_two_processes_die_are_two_failed_cases(stand_in):
    stand_in(deadly=[1, 3, 5], times=2, failing=4)
    kinds = [isinstance(answer, Measured) for answer in answers([1, 2, 3, 4, 5, 6])]
    assert kinds == [False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("loading\nRuntimeError: no kernel\nsee the manual\n", "RuntimeError: no kernel"),
        ("Fatal Python error: Aborted\n\nframe #0: c10::Error()", "Fatal Python error: Aborted"),
        (
            "terminate called: 'c10::Error'\n  what():  CUDA error: no\nCompile with debugging",
            "what():  CUDA error: no",
        ),
        ("one\n  two  \n\n", "two"),
        ("", ""),
    ],
)
def test_last_words_are_those_that_tell_of_an_error(said, told):
    assert processes._last_words(said) == told


@pytest.mark.parametrize(
    ("program", "ending"),
    [
        ("import os; os.kill(os.getpid(), 9)", f"was ended by signal 9: {signal.strsignal(9)}"),
        ("raise SystemExit(7)", "ended with exit code 7"),
    ],
)
def test_a_process_that_says_nothing_is_known_by_how_it_ended(program, ending, monkeypatch):
    monkeypatch.setattr(processes, "_COMMAND", [sys.executable, "-c", program])
    assert list(answers([1])) == [Failed(f"its process crashed: it said nothing and {ending}")]


def test_a_process_in_which_a_case_failed_measures_no_other(stand_in):
    said = stand_in(failing=2)
    first, second, third = answers([1, 2, 3])
    assert (first.timed_steps, second, third.timed_steps) == (1, Failed("no such kernel"), 3)
    assert said() == ["started", "1", "2", "started", "3"]


def test_no_case_is_begun_after_the_deadline(stand_in, monkeypatch):
    said = stand_in()
    now = iter([10.0, 20.0, 30.0])
    monkeypatch.setattr(processes.time, "time", lambda: next(now))
    assert [answer.timed_steps for answer in answers([1, 2, 3], deadline=30.0)] == [1, 2]
    assert said() == ["started", "1", "2"]


def test_a_case_is_begun_when_its_answer_is_wanted_and_not_before(stand_in):
    said = stand_in()
    results = answers([1, 2])
    assert said() == []
    next(results)
    assert said() == ["started", "1"]
    results.close()


def test_tf32_is_not_measured_on_a_cpu():
    with pytest.raises(NinlabError, match="tf32 is arithmetic of NVIDIA GPUs"):
        measure(Case("lenet", LENET, 2, "tf32"), CPU)


def test_cases_that_do_not_exist_are_answered_with_those_that_do():
    with pytest.raises(UnknownNameError, match="known: fp32, tf32, bf16"):
        Case("lenet", LENET, 2, "fp16")
    with pytest.raises(UnknownNameError, match="known: inference, sgd, momentum, adam"):
        Case("lenet", LENET, 2, mode="lion")
    with pytest.raises(NinlabError, match="at least 1, not 0"):
        Case("lenet", LENET, 0)


# ---------------------------------------------------------------- the trace of a GPU


@st.composite
def traces(draw):
    """(trace, bytes alive before it): blocks of tensors and scratch, freed in any order."""
    events, alive, before = [], {}, draw(st.integers(0, 2**20))
    for _ in range(draw(st.integers(1, 40))):
        if alive and draw(st.booleans()):
            address = draw(st.sampled_from(sorted(alive)))
            events.append(GpuEvent(False, address, alive.pop(address), False))
        else:
            address = min(set(range(len(alive) + 1)) - set(alive))  # addresses are used again
            alive[address] = draw(st.integers(1, 2**20))
            events.append(GpuEvent(True, address, alive[address], draw(st.booleans())))
    return events, before


@given(traces())
def test_the_peak_without_scratch_is_that_of_the_trace_without_scratch_blocks(drawn):
    trace, before = drawn
    tensors, peak = {}, before
    for event in trace:
        if event.allocates and not event.is_scratch:
            tensors[event.address] = event.bytes
        elif not event.allocates:
            tensors.pop(event.address, None)
        peak = max(peak, before + sum(tensors.values()))
    told_apart = any(event.allocates and not event.is_scratch for event in trace)
    assert tensor_peak(trace, before) == (peak if told_apart else None)


STACKS = {
    "an empty tensor": ["at::detail::empty_generic(c10::ArrayRef<long>)", "at::native::empty_cuda"],
    "a result that grows": [
        "c10::cuda::CUDACachingAllocator::Native::NativeCachingAllocator::allocate(unsigned long)",
        "at::native::resize_bytes_cuda(c10::StorageImpl*, unsigned long)",
        "at::native::resize_cuda_(at::Tensor const&, c10::ArrayRef<long>)",
        "at::native::(anonymous namespace)::conv_depthwise2d_forward_out(at::Tensor const&)",
    ],
    "a workspace": [
        "c10::cuda::CUDACachingAllocator::Native::NativeCachingAllocator::allocate(unsigned long)",
        "at::native::run_conv_plan(cudnnContext*, at::Tensor const&)",
        "at::native::raw_cudnn_convolution_forward_out(at::Tensor const&, at::Tensor const&)",
    ],
}


@pytest.mark.parametrize("what", STACKS)
def test_a_block_is_scratch_unless_it_is_the_storage_of_a_new_or_of_a_growing_tensor(what):
    frames = [{"name": name} for name in STACKS[what]]
    entry = {"action": "alloc", "addr": 512, "size": 4, "frames": frames}
    assert _events([entry]) == [GpuEvent(True, 512, 4, what == "a workspace")]


KEPT = 33
"""Bytes of a block that the library keeps, in the traces below."""


def test_scratch_that_is_there_when_a_tensor_comes_was_a_result():
    grown, workspace, library, tensor = 1, 2, 3, 4
    trace = [
        GpuEvent(True, library, KEPT, True),
        GpuEvent(True, grown, 10, True),
        GpuEvent(True, workspace, 20, True),
        GpuEvent(False, workspace, 20, False),
        GpuEvent(True, tensor, 5, False),
        GpuEvent(False, grown, 10, False),
        GpuEvent(True, grown, 7, True),  # at the same address, and there to the end
        GpuEvent(True, 5, KEPT, True),  # no matter how large it is
        GpuEvent(True, 6, 1, False),
        GpuEvent(False, 5, KEPT, False),
    ]
    told = with_grown_results(trace, {KEPT})
    scratch = {event.bytes for event in told if event.is_scratch}
    assert scratch == {KEPT, 20}
    assert sum(event.is_scratch for event in told) == 2
    assert [replace(event, is_scratch=False) for event in told] == [
        replace(event, is_scratch=False) for event in trace
    ]
    assert (tensor_peak(trace, 0), tensor_peak(told, 0)) == (6, 5 + 7 + KEPT + 1)


@given(traces())
def test_where_nothing_outlives_its_operator_a_trace_is_right_as_it_is(drawn):
    trace, _ = drawn
    tensors = [event for event in trace if not event.is_scratch]
    assert with_grown_results(tensors, ()) == tensors


class StandInCuda:
    """Counts blocks and keeps their history as torch.cuda does; a segment comes before each."""

    OutOfMemoryError = torch.OutOfMemoryError

    def __init__(self):
        self.cuda = self.memory = self._C = self
        self.history, self.sizes, self.peak = None, {}, 0
        self.current = 7  # what somebody left there
        self.recorded_steps = []
        self.symbolized = []  # each entry, whenever its functions are named

    def note(self, action, address, size):
        if self.history is not None:
            frames = [{"name": "at::detail::empty_generic"}] if address % 2 else []
            entry = {"action": action, "addr": address, "size": size, "frames": frames}
            self.history.append(entry)

    def allocate(self, address, size):
        self.note("segment_alloc", address, 2 * size)
        self.note("alloc", address, size)
        self.sizes[address] = size
        self.current += size
        self.peak = max(self.peak, self.current)

    def free(self, address):
        self.note("free_requested", address, self.sizes[address])
        self.note("free_completed", address, self.sizes[address])
        self.current -= self.sizes.pop(address)

    def _record_memory_history(self, enabled="all", **_):
        self.history = None if enabled is None else []

    def _snapshot(self, _):
        self.symbolized += self.history
        return {"device_traces": [list(self.history)]}

    def memory_stats(self, _):
        peaks = {f"{kind}_bytes.all.peak": self.peak for kind in ("allocated", "reserved")}
        peaks |= {"requested_bytes.all.peak": self.peak}
        return peaks | {"requested_bytes.all.current": self.current}

    def reset_peak_memory_stats(self, _):
        self.peak = self.current

    def device(self, _):
        return contextlib.nullcontext()

    def init(self):
        pass

    def mem_get_info(self, _):
        return 0, 0

    def memory_reserved(self, _):
        return 0

    def current_device(self):
        return 0

    def synchronize(self, _):
        pass

    _cuda_clearCublasWorkspaces = empty_cache = init


class StandInStep:
    """Weights at 1; each step takes a tensor at 3 and scratch at 4, the first keeps one at 5."""

    def __init__(self, cuda):
        self.cuda = cuda
        cuda.allocate(1, 100)

    def __call__(self):
        self.cuda.recorded_steps.append(self.cuda.history is not None)
        self.cuda.allocate(3, 30)
        self.cuda.allocate(4, 40)
        self.cuda.free(4)
        self.cuda.free(3)
        if 5 not in self.cuda.sizes:
            self.cuda.allocate(5, 50)


def stand_in_for_torch(monkeypatch, cuda):
    for module in (gpu, torch_private):
        monkeypatch.setattr(module, "torch", cuda)
    monkeypatch.setattr(gpu, "CaseStep", lambda *_: StandInStep(cuda))


@pytest.fixture
def cuda(monkeypatch):
    stand_in = StandInCuda()
    stand_in_for_torch(monkeypatch, stand_in)
    return stand_in


CASE = Case("lenet", LENET, 2)


def read(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def test_the_trace_from_the_start_says_where_each_step_begins(cuda, tmp_path):
    gpu.measure_on_gpu(CASE, CPU, 0, tmp_path / "case.json.gz")
    trace = read(tmp_path / "case-from-start.json.gz")
    step = [[True, 3, 30, False], [True, 4, 40, True]]
    step += [[False, 4, 40, False], [False, 3, 30, False]]
    assert trace["events"] == [[True, 1, 100, False], *step, [True, 5, 50, False], *step]
    assert trace["step_begins"] == [1, 6]
    assert trace["bytes_before"] == 7
    taken = [(0, 1, 200), (1, 3, 60), (2, 4, 80), (5, 5, 100), (6, 3, 60), (7, 4, 80)]
    assert trace["segments"] == [[index, True, address, size] for index, address, size in taken]


def test_the_trace_of_a_warm_step_holds_nothing_of_the_steps_before_it(cuda, tmp_path):
    gpu.measure_on_gpu(CASE, CPU, 0, tmp_path / "case.json.gz")
    assert [address for _, address, *_ in read(tmp_path / "case.json.gz")] == [3, 4, 4, 3]


def test_each_entry_of_a_trace_is_symbolized_once(cuda, tmp_path):
    gpu.measure_on_gpu(CASE, CPU, 0, tmp_path / "case.json.gz")
    assert len(cuda.symbolized) == len({id(entry) for entry in cuda.symbolized}) > 0


@pytest.mark.parametrize("count", [0, 3])
def test_a_segment_stands_before_the_block_that_it_was_taken_for(count):
    block = {"action": "alloc", "addr": 1, "size": 2}
    segment = {"action": "segment_map", "addr": 8, "size": 9}
    back = {"action": "segment_unmap", "addr": 8, "size": 9}
    passed_over = {"action": "free_requested", "addr": 1, "size": 2}
    entries = [*[passed_over, block] * count, segment, block, back]
    assert gpu._segments(entries) == [(count, True, 8, 9), (count + 1, False, 8, 9)]


def test_asking_for_events_changes_no_measured_byte_and_records_no_timed_step(
    cuda, monkeypatch, tmp_path
):
    without = gpu.measure_on_gpu(CASE, CPU, 5, None)
    assert cuda.recorded_steps == [False] * (2 + WARM_STEPS + 5) + [True]
    other = StandInCuda()
    stand_in_for_torch(monkeypatch, other)
    traced = gpu.measure_on_gpu(CASE, CPU, 5, tmp_path / "case.json.gz")
    assert other.recorded_steps == [True] * 2 + [False] * (WARM_STEPS + 5) + [True]
    assert replace(traced, step_seconds=without.step_seconds) == without
    assert without.requested_peak_bytes == 7 + 100 + 50 + 30 + 40
    assert without.tensor_peak_bytes == without.requested_peak_bytes - 40


def test_a_case_that_runs_out_of_memory_leaves_no_history_on(cuda, monkeypatch, tmp_path):
    def step(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu, "CaseStep", step)
    measured = gpu.measure_on_gpu(CASE, CPU, 0, tmp_path / "case.json.gz")
    assert measured == Measured(CaseOutcome.OUT_OF_MEMORY)
    assert cuda.history is None
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- records


def record(**changes) -> MemoryRecord:
    return replace(
        MemoryRecord(
            case=Case("lenet", LENET, 16, "tf32", "adam"),
            network_digest=architecture("lenet").digest,
            allocator=Allocator.EXPANDABLE_SEGMENTS,
            measured=Measured(CaseOutcome.FINISHED, 5, 4, 6, 7, 8, (0.1, 0.2, 0.3), 20),
            predicted={"tensor_peak_bytes": 4},
            provenance=Provenance("2026-01-31T12:00:00Z", "python -m ninlab measure", None, False),
            device=Device("nvidia-h100", "NVIDIA H100", 80 * 10**9, driver="580.1"),
            software=Software("3.11.7", "2.11.0+cu130", "0.1.0", "13.0", "91900"),
        ),
        **changes,
    )


def test_a_record_read_back_is_the_record_that_was_written(tmp_path):
    for written in (record(), record(measured=Measured(CaseOutcome.OUT_OF_MEMORY))):
        folder = tmp_path / written.measured.outcome
        records.write_json_once(records.record_path(folder, written.id), written.to_json())
        assert load_records(folder) == [written]


def test_every_network_is_still_the_one_that_was_measured():
    for step in load_records(records.runs_folder()):
        assert architecture(step.case.network).digest == step.network_digest, step.id


def test_a_records_id_tells_case_allocator_torch_and_device():
    assert record().id == ("memory/lenet-b16-tf32-adam-expandable_segments-torch2.11.0-nvidia-h100")


def test_runs_of_training_pass_over_measured_steps(tmp_path):
    records.write_json_once(records.record_path(tmp_path, record().id), record().to_json())
    assert records.load(tmp_path) == []
    readers = {measurement.KIND: MemoryRecord.from_json}
    assert list(records.problems(tmp_path, readers)) == []


@pytest.mark.parametrize(
    "change",
    [{"id": "memory/other"}, {"schema_version": 99}, {"allocator": "pool"}, {"measured": {}}],
    ids=lambda change: next(iter(change)),
)
def test_a_record_that_does_not_fit_the_schema_is_refused(change):
    content = json.loads(json.dumps(record().to_json()))
    with pytest.raises(RecordError):
        MemoryRecord.from_json(content | change)


def test_a_record_without_one_field_of_its_own_or_of_its_parts_is_refused():
    content = json.loads(json.dumps(record(predicted={}).to_json()))
    for field, rest in without_one_field(content):
        with pytest.raises(RecordError, match=field):
            MemoryRecord.from_json(rest)


# ---------------------------------------------------------------- the command


@pytest.mark.slow
def test_the_command_records_each_case_once(tmp_path, capsys):
    arguments = ["measure", "lenet", "--batch-size", "2", "--mode", "sgd", "--precision", "fp32"]
    arguments += ["--device", "cpu", "--timed-steps", "2", "--allow-dirty", "--runs", str(tmp_path)]
    assert main(arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "tensor: 1 of 1 predictions within 1%, the worst +0.00%" in printed
    assert "1 measured, 0 were there already" in printed
    assert main(arguments) == 0
    assert "0 measured, 1 were there already" in " ".join(capsys.readouterr().out.split())
    (made,) = load_records(tmp_path)
    case = Case("lenet", LENET, 2)
    assert made.case == case
    assert made.measured.tensor_peak_bytes == predicted_peak(case)
    assert made.id == record_id(case, Allocator.CPU, torch.__version__, "cpu")


@pytest.fixture
def answered(monkeypatch):
    """Puts given answers in the measuring process's place."""

    def install(*answers):
        monkeypatch.setattr(measurement, "measure_in_process", lambda *_, **__: iter(answers))

    return install


def measure_lenet(folder, *options, batch_sizes=(2, 3)):
    arguments = ["measure", "lenet", "--device", "cpu", "--mode", "sgd", "--precision", "fp32"]
    arguments += ["--allow-dirty", "--runs", str(folder), *options]
    return main(arguments + [word for size in batch_sizes for word in ("--batch-size", str(size))])


def test_a_failing_case_is_said_and_recorded_nowhere_and_those_after_it_are(
    answered, tmp_path, capsys
):
    answered(Failed("RuntimeError: no [kernel] for it"), Measured(CaseOutcome.FINISHED, 5, 4))
    assert measure_lenet(tmp_path) == 1
    (made,) = load_records(tmp_path)
    assert made.case.batch_size == 3
    printed = capsys.readouterr()
    first, *_, last = printed.err.splitlines()
    assert first.startswith("1/2 lenet-b2-")
    assert first.endswith("failed: RuntimeError: no [kernel] for it")
    assert last == "1 of 2 cases failed; nothing is recorded for them"
    assert "1 measured, 0 were there already" in " ".join(printed.out.split())


def test_what_is_asked_for_twice_is_measured_once(stand_in, tmp_path):
    said = stand_in()
    twice = ["--allocator", "cpu", "--allocator", "cpu", "--mode", "sgd"]
    assert measure_lenet(tmp_path, *twice, batch_sizes=[2, 3, 2]) == 0
    assert said() == ["started", "2", "3"]
    assert [made.case.batch_size for made in load_records(tmp_path)] == [2, 3]


def test_a_case_that_cannot_be_predicted_is_recorded_without_a_prediction(
    answered, monkeypatch, tmp_path, capsys
):
    def fail(*_):
        raise RuntimeError("no such table")

    monkeypatch.setattr("ninlab.commands.measure.predicted", fail)
    answered(Measured(CaseOutcome.FINISHED, 5, 4))
    assert measure_lenet(tmp_path, batch_sizes=[2]) == 0
    (made,) = load_records(tmp_path)
    assert made.predicted == {}
    assert "is not predicted: RuntimeError: no such table" in capsys.readouterr().err


def test_everything_new_is_handed_over_before_the_first_case_and_after_each(
    answered, monkeypatch, tmp_path
):
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()
    handed_over = []
    monkeypatch.setattr(
        handover,
        "hand_over",
        lambda folder, to: handed_over.append((len(load_records(folder)), to)),
    )
    answered(
        Measured(CaseOutcome.FINISHED, 5, 4),
        Failed("it broke"),
        Measured(CaseOutcome.FINISHED, 5, 4),
    )
    arguments = {"batch_sizes": (2, 3, 4)}
    assert measure_lenet(runs, "--results", str(results), **arguments) == 1
    assert handed_over == [(0, results), (1, results), (1, results), (2, results)]


def test_cases_that_an_earlier_machine_handed_over_are_not_measured_again(
    answered, tmp_path, capsys
):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        answered(Measured(CaseOutcome.FINISHED, 5, 4))
        assert measure_lenet(tmp_path / name, "--results", str(tmp_path / "results")) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert f"1 measured, {'0' if name == 'one' else '1'} were there already" in printed
    assert len(load_records(tmp_path / "other")) == 2


def test_results_that_cannot_be_written_stop_the_work_before_it_begins_and_not_later(
    monkeypatch, tmp_path, capsys
):
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()

    def answer(cases, *_, **__):
        for _ in cases:
            if results.is_dir():
                results.rename(tmp_path / "moved")
                results.write_text("in the way")
            yield Measured(CaseOutcome.FINISHED, 5, 4)

    monkeypatch.setattr(measurement, "measure_in_process", answer)
    assert measure_lenet(runs, "--results", str(results)) == 0
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("not handed over: ") for line in lines) == 2
    assert len(load_records(runs)) == 2
    assert measure_lenet(runs, "--results", str(results), batch_sizes=[4]) == 2
    assert len(load_records(runs)) == 2


@pytest.fixture
def on_a_gpu(monkeypatch, tmp_path):
    """Lets ``measure`` believe that it has a GPU; gives what was asked of it, and its arguments."""
    asked = []
    h100 = Device("nvidia-h100", "NVIDIA H100", 80 * 10**9, driver="580.1")
    command = "ninlab.commands.measure"
    monkeypatch.setattr(f"{command}.parse_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(f"{command}.describe_device", lambda _: h100)
    monkeypatch.setattr(f"{command}.describe_software", lambda: record().software)
    monkeypatch.setattr(f"{command}._predicted", lambda *_: {})
    monkeypatch.setattr(measurement, "probe_rate", lambda *_: 10**12)

    def answer(cases, _, setting, *, timed_steps, events_folder, **__):
        for case in cases:
            asked.append((case.batch_size, setting, timed_steps))
            if events_folder is not None:
                trace = from_start_path(events_path(events_folder, case))
                trace.parent.mkdir(parents=True, exist_ok=True)
                trace.write_bytes(b"")
            seconds = (0.1, 0.2, 0.3) if timed_steps else None
            finished = Measured(CaseOutcome.FINISHED, 5, 4, 6, 7, 8, seconds, timed_steps)
            yield Measured(CaseOutcome.OUT_OF_MEMORY) if case.batch_size == 9 else finished

    monkeypatch.setattr(measurement, "measure_in_process", answer)
    runs = tmp_path / "runs"
    runs.mkdir()
    return asked, ["--device", "cuda", "--timed-steps", "2"]


def test_a_recorded_case_without_its_traces_is_measured_again_for_them_alone(
    on_a_gpu, tmp_path, capsys
):
    asked, options = on_a_gpu
    runs, events = tmp_path / "runs", tmp_path / "events"
    default, expandable = Allocator.DEFAULT, Allocator.EXPANDABLE_SEGMENTS
    assert measure_lenet(runs, *options, "--allocator", "default", batch_sizes=[2, 9]) == 0
    (kept,) = [record for record in load_records(runs) if record.case.batch_size == 2]
    asked.clear()
    capsys.readouterr()
    options += ["--events", str(events)]
    assert measure_lenet(runs, *options, "--dry-run", batch_sizes=[2, 9]) == 0
    assert "3 of 4 cases to measure" in capsys.readouterr().out
    assert measure_lenet(runs, *options, batch_sizes=[2, 9]) == 0
    # What is not recorded comes first; what ran out of memory has no traces.
    assert asked == [(2, expandable, 2), (9, expandable, 2), (2, default, 0)]
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 measured, 2 were there already, 1 traced again" in printed
    assert kept in load_records(runs)
    assert len(load_records(runs)) == 4
    asked.clear()
    assert measure_lenet(runs, *options, batch_sizes=[2, 9]) == 0
    assert asked == []


def test_cudnn_is_asked_for_its_description_where_there_is_none(on_a_gpu, tmp_path, monkeypatch):
    described = []
    monkeypatch.setattr(
        measurement, "describe_in_process", lambda device: described.append(device) or {"a": 1}
    )
    _, options = on_a_gpu
    options += ["--properties", str(tmp_path / "probes" / "device.json")]
    for batch_size in (2, 3):
        assert measure_lenet(tmp_path / "runs", *options, batch_sizes=[batch_size]) == 0
    assert len(described) == 1


def test_cases_behind_the_deadline_are_counted_as_left(stand_in, tmp_path, capsys):
    said = stand_in()
    assert measure_lenet(tmp_path, "--deadline", "0") == 0
    assert said() == []
    printed = " ".join(capsys.readouterr().out.split())
    assert "0 measured, 0 were there already" in printed
    assert "2 cases left for want of time" in printed
    assert measure_lenet(tmp_path, "--deadline", "1e12") == 0
    assert "left" not in capsys.readouterr().out


def test_a_description_that_cudnn_refuses_is_said_and_is_no_error(monkeypatch, tmp_path, capsys):
    def refuse(_):
        raise NinlabError("cuDNN answered with status 1")

    monkeypatch.setattr(measurement, "describe_in_process", refuse)
    file = tmp_path / "probes" / "device.json"
    save_properties(file, torch.device("cuda"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("device.json: cuDNN answered with status 1")
    assert not file.exists()
    monkeypatch.setattr(measurement, "describe_in_process", lambda _: {"deviceVer": 900})
    save_properties(file, torch.device("cuda"))
    assert json.loads(file.read_text()) == {"deviceVer": 900}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="cuDNN describes the GPU that is here")
def test_a_device_that_is_not_there_is_not_described():
    with pytest.raises(NinlabError):
        describe_in_process(torch.device("cuda"))


def test_a_dry_run_lists_the_cases_and_writes_nothing(tmp_path, capsys):
    arguments = ["measure", "lenet", "--device", "cpu", "--mode", "sgd", "--dry-run"]
    assert main([*arguments, "--runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("lenet") == 3 * 2  # batch sizes, precisions of a CPU
    assert "6 of 6 cases to measure" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ninn"], "did you mean 'nin'"),
        (["lenet", "--precision", "fp16"], "known: fp32, tf32, bf16"),
        (["lenet", "--device", "cpu", "--allocator", "default"], "not the CPU's; known there: cpu"),
        (["lenet", "--runs", "/no/such/folder"], "is no folder"),
        (
            ["lenet", "--device", "cpu", "--properties", "device.json", "--allow-dirty"],
            "--properties needs a GPU",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, said, refusal):
    assert said in refusal("measure", *arguments)
