"""Can runs be recorded here, and how? Every path that a run takes, tried once, a line each.

A GPU is often lent for minutes only: what does not work there has to be known in the first of
them. A `Check` is data: what is done, what to do when it fails, and what its failure means for
all of the rest. `checks` lists those of a GPU, or their CPU forms; `results` makes them one
after the other, and no failure stops the next; `verdict` says what they mean together.

The order is part of the design. A capture that failed cannot be undone, and may spoil what
comes after it in its process: so whether anything can be recorded is decided by eager steps,
before the first capture.

torch, and all that needs it, is imported inside the checks: a torch that cannot be imported is a
failed check like any other.

Known limits. A check that hangs is not ended here; the caller has to set a limit, and a report
without a verdict says that it was cut short. Seconds are those of one short trial.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ninlab import records
from ninlab.architectures import architecture
from ninlab.errors import NinlabError, UnknownNameError
from ninlab.recipes import Recipe, improved
from ninlab.records import Device, RunRecord
from ninlab.steps import Kernels, Optimizer, Precision
from ninlab.units import format_bytes, format_seconds

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ninlab.measurement import Allocator, Case

ALL_WORKS = 0
SOMETHING_FAILS = 1
"""A check failed on which recording does not depend."""
NOTHING_WORKS = 3
"""Nothing can be recorded."""
GRAPHS_FAIL = 4
"""Steps work, but not as a CUDA graph: record with --eager."""
ANOTHER_GPU = 6
"""The records would not join those of another GPU that are there."""

_WORST_FIRST = (NOTHING_WORKS, ANOTHER_GPU, GRAPHS_FAIL, SOMETHING_FAILS)
_COMMAND = "python -m ninlab selfcheck"
_COMPACT_SIDE = 28  # pixels; the images of the scale that is meant for a CPU
_OUR_CODE = Path(__file__).resolve().parent
_LONGEST_ANSWER = 500  # characters; some errors of CUDA libraries print whole programs

PredictedPeaks = Callable[["Case", "Allocator", Device | None], Mapping[str, int]]
"""The calculator's peaks of a case by name: `ninlab.predictions.predicted_peaks`."""


@dataclass(frozen=True)
class Subject:
    """What is checked: the device and the folder with which a recorder would work."""

    device_name: str  # as typed: cpu, cuda, cuda:1 or auto
    predicted_peaks: PredictedPeaks
    folder: Path | None = None  # of the records; None for the book's
    threads: int = 1
    allow_dirty: bool = False
    any_gpu: bool = False  # records of another GPU are welcome

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is meant; for "auto", whether there is one."""
        if self.device_name != "auto":
            return self.device_name.startswith("cuda")
        try:
            return self.device().type == "cuda"
        except Exception:  # whatever it is, the first check meets it again and says it
            return False

    def device(self) -> torch.device:
        """The device, with torch's threads set. Raises NinlabError when it is not there."""
        import torch

        from ninlab.environment import parse_device

        torch.set_num_threads(self.threads)
        return parse_device(self.device_name)

    def about(self) -> Device:
        """What a record says of the device. Raises NinlabError when it is not there."""
        from ninlab.environment import describe_device

        return describe_device(self.device())

    def runs_folder(self) -> Path:
        """Where records are kept. Raises RecordError when this ninlab came without records."""
        return records.runs_folder() if self.folder is None else self.folder


@dataclass(frozen=True)
class Check:
    """One thing that has to work.

    work returns what it found, in words, and raises any exception when it fails. advice is one
    sentence that says what to do then. means is the exit code that a failure asks for. Decisive
    checks are those by which to decide, in seconds, whether and how to record. When one that
    settles it fails, no other can change what to do.
    """

    name: str
    work: Callable[[Subject], str]
    advice: str
    means: int = SOMETHING_FAILS
    decisive: bool = False
    settles: bool = False


@dataclass(frozen=True)
class Result:
    """What one check gave. answer is what was found, or what went wrong and where."""

    check: Check
    ok: bool
    seconds: float
    answer: str

    @property
    def lines(self) -> str:
        """The result for a reader: one line, and the advice on a second one after a failure."""
        line = f"{'ok' if self.ok else 'FAIL':4} {self.seconds:6.1f} s  {self.check.name}: "
        advice = "" if self.ok else f"\n{'':15}{self.check.advice}"
        return f"{line}{self.answer}{advice}"

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values; there is advice only where it failed."""
        return {
            "name": self.check.name,
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "answer": self.answer,
            "advice": None if self.ok else self.check.advice,
        }


class _Wrong(Exception):
    """A check ran to its end, and its answer is wrong."""


# ---------------------------------------------------------------- making checks


def chosen(
    there_are: Sequence[Check], names: Sequence[str] = (), *, decisive: bool = False
) -> list[Check]:
    """Those of these names, in the order of the list, or the decisive ones, or all of them.

    Raises UnknownNameError for a name that is not in the list, NinlabError for both at once.
    """
    if names and decisive:
        raise NinlabError("--decisive chooses the checks, and so does --only; give one of them")
    known = [check.name for check in there_are]
    for name in names:
        if name not in known:
            raise UnknownNameError("check", name, known)
    return [
        check
        for check in there_are
        if (check.name in names if names else check.decisive or not decisive)
    ]


def results(
    chosen_checks: Iterable[Check], subject: Subject, *, until_settled: bool = False
) -> Iterator[Result]:
    """The result of each check as soon as it is there. A check that fails stops none.

    With until_settled a failed check that settles what to do is the last one, for whoever only
    wants to decide.
    """
    for check in chosen_checks:
        started = time.perf_counter()
        try:
            ok, answer = True, check.work(subject)
        except Exception as error:
            ok, answer = False, _in_words(error)
        yield Result(check, ok, time.perf_counter() - started, answer)
        if until_settled and check.settles and not ok:
            return
        _release_memory()


def verdict(made: Sequence[Result]) -> tuple[int, str]:
    """(exit code, one sentence) of all results together: the worst that one of them means."""
    failed = [result.check for result in made if not result.ok]
    if not failed:
        return ALL_WORKS, f"all is well: {len(made)} of {len(made)} checks are ok"
    code = next(code for code in _WORST_FIRST if any(check.means == code for check in failed))
    why = ", ".join(check.name for check in failed)
    return code, f"{_VERDICTS[code]}; {len(failed)} of {len(made)} checks failed: {why}"


_VERDICTS = {
    NOTHING_WORKS: "nothing can be recorded",
    GRAPHS_FAIL: "steps work only without a graph: record with --eager",
    ANOTHER_GPU: "records made here would not join those of another GPU",
    SOMETHING_FAILS: "recording works",
}


def _in_words(error: Exception) -> str:
    """What went wrong on one line: the error, and where our code and the innermost code raised."""
    said = (str(error).strip().splitlines() or ["no reason given"])[0][:_LONGEST_ANSWER]
    if isinstance(error, _Wrong):
        return said
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_OUR_CODE)]
    places = [
        f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
        for frame in [*frames[-1:], *ours[-1:]]
    ]
    return f"{type(error).__name__}: {said} (at {', from '.join(dict.fromkeys(places))})"


def _release_memory() -> None:
    """Give the GPU's memory back for the checks that follow."""
    torch = sys.modules.get("torch")
    if torch is not None:
        with suppress(Exception):  # on a lost device; the next check says so
            if torch.cuda.is_initialized():
                gc.collect()
                torch.cuda.empty_cache()


# ---------------------------------------------------------------- records of another GPU


def stranger_to(runs: Iterable[RunRecord], device: Device) -> str | None:
    """One sentence when full-scale runs are there of other GPUs and none of this one, else None.

    Results of two GPUs are never put into one table or mean, so runs of this one would begin
    the experiments anew. A CPU is nobody's stranger: the book keeps its runs apart anyhow.
    """
    of_gpus = [
        run.device
        for run in runs
        if run.device.slug != "cpu" and run.input_shape[-1] > _COMPACT_SIDE
    ]
    if device.slug == "cpu" or not of_gpus or device.slug in {one.slug for one in of_gpus}:
        return None
    counts = Counter(one.name for one in of_gpus).most_common()
    there = " and ".join(f"{n} run{'s' * (n != 1)} of {name}" for name, n in counts)
    return f"runs/ holds {there}; those of this {device.name} would not join them"


def _records_of_this_device(subject: Subject) -> str:
    try:
        about = subject.about()
        runs = records.load(subject.runs_folder())
    except NinlabError as error:  # a missing device, a broken record: no word about another GPU
        return f"not compared: {error}"
    stranger = stranger_to(runs, about)
    if stranger is not None and subject.any_gpu:
        return f"{stranger}, which was allowed"
    if stranger is not None:
        raise _Wrong(stranger)
    own = sum(run.device.slug == about.slug for run in runs)
    return f"{own} of {len(runs)} runs in the folder are of this {about.name}"


# ---------------------------------------------------------------- what recording needs


def _import_and_device(subject: Subject) -> str:
    """Imports all that a recorder imports, and computes something on the device."""
    started = time.perf_counter()
    import safetensors.torch  # noqa: F401
    import torch

    from ninlab.environment import describe_software
    from ninlab.recording import making  # noqa: F401  it imports the rest

    imported = time.perf_counter() - started
    device, about, software = subject.device(), subject.about(), describe_software()
    total = torch.ones(1000, device=device).sum().item()
    if total != 1000:
        raise _Wrong(f"a thousand ones add up to {total:g} on {about.name}")
    cuda = f", CUDA {software.cuda}, cuDNN {software.cudnn}" if subject.on_gpu else ""
    return (
        f"{about.name}, torch {software.torch}{cuda}, {torch.get_num_threads()} threads, "
        f"imported in {format_seconds(imported)}"
    )


def _images(subject: Subject) -> str:
    from ninlab import data, data_files

    training, test = data.fashion_mnist()
    return f"{len(training):,} and {len(test):,} images in {data_files.find()}"


def _commit(subject: Subject) -> str:
    from ninlab.recording import check_tree

    found = records.provenance(_COMMAND)
    check_tree(found, subject.allow_dirty)
    tree = "clean" if found.clean_tree else "not as committed, which was allowed"
    return f"commit {(found.commit or 'unknown')[:12]}, {tree}"


def _runs_folder(subject: Subject) -> str:
    """Claims, writes and reads a file beside the records, where links and locks are theirs."""
    folder = subject.runs_folder()
    # A killed check may leave this folder; git ignores its name as it does a killed writer's.
    with TemporaryDirectory(dir=folder, prefix=".selfcheck-", suffix=".tmp") as name:
        trial = Path(name)
        with records.claim(trial, "selfcheck") as mine:
            if not mine:
                raise _Wrong(f"a file in {folder} that nobody else knows is locked already")
            records.write_json_once(trial / "selfcheck/written.json", {"kind": "selfcheck"})
        if records.kinds(trial) != {"selfcheck": 1}:
            raise _Wrong(f"what was written in {folder} cannot be read again")
    return str(folder)


def _record(subject: Subject) -> str:
    """A run of two eager steps on the device, and its record."""
    from ninlab import data
    from ninlab.training import train

    training, test = data.fashion_mnist()
    run = train(
        "nin_28",
        Recipe(0.01, 1, batch_size=8),
        seed=0,
        device=subject.device(),
        split=(training.take(slice(16)), test.take(slice(20))),
        use_graph=False,
    )
    made = run.record(
        experiment="selfcheck", name="nin_28", provenance=records.provenance(_COMMAND)
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = records.write(folder, made)
        if records.read(path) != made:
            raise _Wrong("the record that was read is not the one that was written")
        for problem in records.problems(folder):
            raise _Wrong(problem)
        return f"{made.id}, {path.stat().st_size:,} bytes, read back and valid"


# ---------------------------------------------------------------- images and steps


def _resized(subject: Subject, *, images: int, side: int) -> str:
    import torch

    from ninlab import data

    device, some = subject.device(), data.fashion_mnist()[1].take(slice(images))
    here, there = some.resized(side).images, some.to(device).resized(side).images.cpu()
    if not torch.equal(here, there):
        raise _Wrong(f"{int((here != there).sum()):,} of {here.numel():,} pixels differ")
    return f"{images} images at {side}x{side} are those of the CPU"


_NOT_CAPTURED = "the step was not captured, or its replay was not like an eager step"


def _losses(
    subject: Subject, network: str, recipe: Recipe, *, steps: int, use_graph: bool
) -> Tensor:
    """Training losses of that many first steps, captured or eager."""
    import torch

    from ninlab import data
    from ninlab.environment import arithmetic
    from ninlab.networks import build
    from ninlab.training import Engine

    device = subject.device()
    images = data.fashion_mnist()[0].take(slice(recipe.batch_size * steps)).to(device)
    module = build(network, seed=0).to(device).to(memory_format=torch.channels_last)
    with arithmetic(recipe.precision, benchmark=True):
        engine = Engine(module, images, recipe, seed=0, use_graph=use_graph)
        if use_graph and engine.graph is None:
            raise _Wrong(_NOT_CAPTURED)
        return torch.tensor(engine.epoch()[0])


def _repeated(subject: Subject, network: str, recipe: Recipe, *, steps: int) -> str:
    """On a CPU the same seed gives the same losses, bit for bit, on one machine and torch."""
    one, other = (_losses(subject, network, recipe, steps=steps, use_graph=False) for _ in range(2))
    apart = float((one - other).abs().max())
    if apart != 0:  # so is a loss that is no number
        raise _Wrong(f"the same {steps} steps gave losses that differ by {apart:.1e}")
    return f"{steps} steps gave the same losses twice, to the bit"


def _captured(subject: Subject, network: str, recipe: Recipe, *, steps: int) -> str:
    """A captured step takes the losses of an eager one, as closely as eager ones agree."""
    eager, again, graph = (
        _losses(subject, network, recipe, steps=steps, use_graph=use_graph)
        for use_graph in (False, False, True)
    )
    noise, apart = float((again - eager).abs().max()), float((graph - eager).abs().max())
    if not apart <= allowed(noise, recipe.precision):  # a loss that is no number is not, either
        raise _Wrong(
            f"losses of graph and eager steps differ by {apart:.1e}, those of eager steps and "
            f"their repetition by {noise:.1e}"
        )
    if apart == 0:
        return f"{steps} captured steps have the losses of eager ones, to the bit"
    return f"{steps} captured steps are within {apart:.1e} of eager ones, which vary by {noise:.1e}"


def allowed(noise: float, precision: Precision) -> float:
    """By how much losses of graph and eager steps may differ, where eager ones differ by noise.

    cuDNN adds in no fixed order, so that eager steps differ from themselves: ten times that is
    allowed, and the rounding of one step besides: that of a score below 2 to bfloat16, 2**-8, and
    2**-10 where float32 is kept or rounded to TF32. Eager steps of an H100 were seen to repeat to
    the bit in bfloat16, where ten times nothing would forbid a graph on another GPU its last bit.
    """
    rounding = 2**-8 if precision is Precision.BF16 else 2**-10
    return 10 * noise + rounding


@dataclass(frozen=True)
class _Trial:
    """How much is trained and evaluated to see how fast it goes."""

    recipe: Recipe
    steps: int
    test_images: int
    passes: int


def _steps(subject: Subject, network: str, trial: _Trial, *, use_graph: bool) -> str:
    """Trains and evaluates: seconds of both, after a first time in which cuDNN chooses."""
    import torch

    from ninlab import data
    from ninlab.environment import arithmetic
    from ninlab.networks import build
    from ninlab.training import Engine, evaluate

    recipe = replace(trial.recipe, epochs=trial.passes)
    device, side = subject.device(), architecture(network).input_shape[-1]
    training, test = (
        part.take(slice(count)).to(device).resized(side)
        for part, count in zip(
            data.fashion_mnist(), (recipe.batch_size * trial.steps, trial.test_images), strict=True
        )
    )
    module = build(network, seed=0).to(device).to(memory_format=torch.channels_last)
    with arithmetic(recipe.precision, benchmark=True):
        started = time.perf_counter()
        engine = Engine(module, training, recipe, seed=0, use_graph=use_graph)
        prepared = time.perf_counter() - started
        if use_graph and engine.graph is None:
            raise _Wrong(_NOT_CAPTURED)
        step_seconds, losses = [], []
        for _ in range(trial.passes):
            started = time.perf_counter()
            losses += engine.epoch()[0]
            step_seconds.append((time.perf_counter() - started) / trial.steps)
        evaluations = []
        for _ in range(2):
            started = time.perf_counter()
            with arithmetic(recipe.precision, benchmark=False):  # as a run does
                evaluate(engine.stepping, test, recipe.precision, engine.normalize)
            evaluations.append(time.perf_counter() - started)
    if not all(map(math.isfinite, losses)):
        raise _Wrong(f"a loss of the first {len(losses)} steps is no finite number")
    peak = (
        "" if engine.peak_bytes is None else f", peak {format_bytes(engine.peak_bytes.allocated)}"
    )
    return (
        f"{format_seconds(statistics.median(step_seconds))} a step of {recipe.batch_size} images, "
        f"{format_seconds(evaluations[-1])} to evaluate {trial.test_images:,}, "
        f"{format_seconds(prepared)} to prepare{peak}"
    )


# ---------------------------------------------------------------- fused kernels

MOST_GRADIENT_ERROR = 1.1
"""How many times as far from float32's the gradients of a fused step may be as torch's are."""


def gradient_error(
    network: str,
    kernels: Kernels,
    *,
    device: torch.device,
    precision: Precision = Precision.BF16,
    batch_size: int = 128,
    seed: int = 0,
) -> float:
    """How far the gradients of one step are from those of torch's layers in float32.

    The 2-norm of the difference over that of the latter, all parameters together, at the weights
    of that seed and the first images. Nothing is dropped out: masks are drawn in another order in
    each precision.
    """
    exact = _gradients(network, Kernels.TORCH, Precision.FP32, device, batch_size, seed)
    found = _gradients(network, kernels, precision, device, batch_size, seed)
    return float((found - exact).norm() / exact.norm())


def _gradients(
    network: str,
    kernels: Kernels,
    precision: Precision,
    device: torch.device,
    batch_size: int,
    seed: int,
) -> Tensor:
    """The gradients of one step, of all parameters in one row of float64, on the CPU."""
    import torch
    import torch.nn.functional as F

    from ninlab import data
    from ninlab.environment import arithmetic
    from ninlab.fused import fuse
    from ninlab.networks import build
    from ninlab.training import Normalize, autocast

    images = data.fashion_mnist()[0].take(slice(batch_size)).to(device)
    images = images.resized(architecture(network).input_shape[-1])
    module = build(network, seed=seed).to(device).to(memory_format=torch.channels_last).eval()
    read = Normalize().by(kernels, precision)
    with arithmetic(precision, benchmark=False):
        with autocast(device, precision):
            scores = fuse(module, kernels)(read(images.images))
        F.cross_entropy(scores.float(), images.labels).backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(gradients).double().cpu()


def _fused(subject: Subject, *, network: str, batch_size: int) -> str:
    from ninlab.training import check_kernels

    device = subject.device()
    check_kernels(architecture(network), Kernels.FUSED, device)
    torchs, fused = (
        gradient_error(network, kernels, device=device, batch_size=batch_size)
        for kernels in (Kernels.TORCH, Kernels.FUSED)
    )
    said = f"{fused:.2%} from float32's, torch's {torchs:.2%}"
    if not fused <= MOST_GRADIENT_ERROR * torchs:  # nor is a gradient that is no number
        raise _Wrong(f"gradients of a fused step of {network} are {said}")
    return f"gradients of a fused step of {network} in bf16 are {said}"


# ---------------------------------------------------------------- memory


def _measured(
    subject: Subject, network: str, batch_size: int, precision: str, allocator: str
) -> str:
    """One case, measured in a process of its own, beside its prediction."""
    from ninlab.measurement import PEAKS, Allocator, Case, Failed, measure_in_process

    case = Case(network, architecture(network).input_shape, batch_size, precision, "sgd")
    setting = Allocator(allocator)
    (measured,) = measure_in_process(
        [case], subject.device(), setting, timed_steps=2, threads=subject.threads
    )
    if isinstance(measured, Failed):
        raise _Wrong(f"{case.slug} failed: {measured.sentence}")
    tensors = measured.tensor_peak_bytes
    if tensors is None:
        raise _Wrong(f"{case.slug} was not measured: {measured.outcome}")
    predicted = subject.predicted_peaks(case, setting, subject.about() if subject.on_gpu else None)
    # Scratch is known for few devices and versions. Tensors are the same on all of them, but for
    # buffers of sums and means that count as such: under 64 KiB.
    if abs(predicted["tensor_peak_bytes"] - tensors) > max(tensors / 1000, 64 * 2**10):
        raise _Wrong(
            f"the tensors of {case.slug} took {format_bytes(tensors)}, but "
            f"{format_bytes(predicted['tensor_peak_bytes'])} were predicted"
        )
    found = []
    for peak in PEAKS.values():
        value, expected = getattr(measured, peak), predicted.get(peak)
        if value:
            error = "" if expected is None else f" ({expected / value - 1:+.2%} predicted)"
            found.append(f"{peak.removesuffix('_peak_bytes')} {format_bytes(value)}{error}")
    return f"{case.slug}, {setting}: {', '.join(found)}"


def _cudnn(subject: Subject) -> str:
    import torch

    from ninlab.cudnn import device_properties

    device = subject.device()
    ones = torch.ones(1, 1, 3, 3, device=device)
    torch.nn.functional.conv2d(ones, ones)  # loads cuDNN, where no check before this one did
    properties = device_properties(ones.device.index)
    return f"{properties.get('deviceName', 'no name')}, {len(properties)} properties"


# ---------------------------------------------------------------- the lists

_BF16 = Recipe(0.05, 1, batch_size=128, precision=Precision.BF16)
_ADAM = Recipe(0.002, 1, batch_size=128, optimizer=Optimizer.ADAM)
_GRAPHS = {  # name: network and recipe; together they use all that a recipe can ask for
    "nin_28 in tf32": ("nin_28", replace(_BF16, precision=Precision.TF32)),
    "nin_28 by the improved recipe": ("nin_28", improved(_BF16)),
    "nin_28 by adam": ("nin_28", _ADAM),
    "alexnet_28 in bf16": ("alexnet_28", _BF16),
    "nin_28_batch_norm in bf16": ("nin_28_batch_norm", _BF16),
}
_GPU_STEPS = 20
_CPU_STEPS = 3
_CPU_BATCH = 32
# A rate at which no network diverges within the trial: its losses have to be finite.
_GPU_TRIAL = _Trial(replace(_BF16, learning_rate=0.01), steps=40, test_images=2000, passes=3)
_CPU_TRIAL = _Trial(Recipe(0.01, 1, batch_size=_CPU_BATCH), steps=2, test_images=100, passes=1)

_EAGER_ADVICE = "Record with --eager: runs then take the same steps, one kernel at a time."
_DEVICE_ADVICE = (
    "See whether nvidia-smi lists the GPU and whether this torch is built for its driver; "
    "--device cpu checks the rest."
)
_STEPS_ADVICE = (
    "No run would get further than this: free the device's memory or take another device, and "
    "if it fails there too, report it with this line."
)
_FUSED_ADVICE = "Train nothing by fused kernels here; runs by torch's need none of it."
_FUSED_PLANNED_ADVICE = "Take another GPU, or record only experiments without fused kernels."
_FUSED_RECIPE = replace(_BF16, kernels=Kernels.FUSED)
_FUSED_TRIAL = replace(_GPU_TRIAL, recipe=replace(_GPU_TRIAL.recipe, kernels=Kernels.FUSED))
_MEASURE_ADVICE = "Leave out memory measurements here; training runs do not need them."


def checks(on_gpu: bool, *, fused_planned: bool = False) -> tuple[Check, ...]:
    """Every check of a GPU, or the CPU forms of those that make sense there, in order.

    Whether a fused step has the right gradients decides whether to record only where runs by fused
    kernels are planned.
    """
    return (*_ground(on_gpu), *(_gpu_checks(fused_planned) if on_gpu else _cpu_checks()))


def _ground(on_gpu: bool) -> Iterator[Check]:
    """What recording needs before a step is taken."""
    decides = partial(Check, means=NOTHING_WORKS, decisive=True)
    yield decides(
        "import and device",
        _import_and_device,
        _DEVICE_ADVICE
        if on_gpu
        else "Install ninlab anew from its checkout, with all that it needs.",
    )
    yield Check(
        "records of this device",
        _records_of_this_device,
        "Wait for the GPU whose runs are there, or give --runs a folder of this GPU's own, or "
        "--any-gpu to begin the experiments anew beside those runs.",
        means=ANOTHER_GPU,
        decisive=True,
        settles=True,
    )
    yield decides(
        "images",
        _images,
        "Copy the four files of Fashion-MNIST into a folder and name it in NINLAB_DATA.",
    )
    yield decides(
        "commit",
        _commit,
        "Record from a clean git checkout, or for yourself with --allow-dirty.",
    )
    yield decides(
        "runs folder",
        _runs_folder,
        "Give --runs a folder on a local disk that this user may write to.",
    )
    yield decides(
        "a record",
        _record,
        "Take another device if a step failed, free space for temporary files if a file did.",
    )


def _eager_steps(network: str, trial: _Trial) -> Check:
    return Check(
        f"eager steps of {network}",
        partial(_steps, network=network, trial=trial, use_graph=False),
        _STEPS_ADVICE,
        means=NOTHING_WORKS,
        decisive=True,
    )


def _fused_step(planned: bool) -> Check:
    return Check(
        "a fused step of nin",
        partial(_fused, network="nin", batch_size=128),
        _FUSED_PLANNED_ADVICE if planned else _FUSED_ADVICE,
        means=NOTHING_WORKS if planned else SOMETHING_FAILS,
        decisive=planned,
    )


def _gpu_checks(fused_planned: bool) -> Iterator[Check]:
    yield Check(
        "images resized on the device",
        partial(_resized, images=500, side=224),
        "Record nothing here: networks would see other images than on other devices.",
        means=NOTHING_WORKS,
        decisive=True,
    )
    yield _eager_steps("nin", _GPU_TRIAL)
    if fused_planned:
        yield _fused_step(planned=True)
    graph = partial(Check, advice=_EAGER_ADVICE, means=GRAPHS_FAIL)
    yield graph(
        "graph of nin_28 in bf16",
        partial(_captured, network="nin_28", recipe=_BF16, steps=_GPU_STEPS),
        decisive=True,
    )
    yield graph(
        "captured steps of nin",
        partial(_steps, network="nin", trial=_GPU_TRIAL, use_graph=True),
        decisive=True,
    )
    for name, (network, recipe) in _GRAPHS.items():
        yield graph(
            f"graph of {name}",
            partial(_captured, network=network, recipe=recipe, steps=_GPU_STEPS),
        )
    for network in ("alexnet", "vgg11", "googlenet"):
        yield Check(
            f"captured steps of {network}",
            partial(_steps, network=network, trial=_GPU_TRIAL, use_graph=True),
            f"Leave out the runs of {network} here, or try them with --eager.",
        )
    yield Check(
        "memory in a process of its own",
        partial(_measured, network="nin", batch_size=16, precision="tf32",
                allocator="expandable_segments"),
        _MEASURE_ADVICE,
    )  # fmt: skip
    yield Check(
        "cuDNN's description of the device",
        _cudnn,
        "Leave out measure --properties: only a workspace table of this GPU needs it.",
    )
    if not fused_planned:
        yield _fused_step(planned=False)
    yield Check(
        "graph of nin_28 by fused kernels",
        partial(_captured, network="nin_28", recipe=_FUSED_RECIPE, steps=_GPU_STEPS),
        _FUSED_ADVICE,
    )
    yield Check(
        "captured steps of nin by fused kernels",
        partial(_steps, network="nin", trial=_FUSED_TRIAL, use_graph=True),
        _FUSED_ADVICE,
    )


def _cpu_checks() -> Iterator[Check]:
    yield _eager_steps("nin_28", _CPU_TRIAL)
    for name, network, recipe in (
        (
            "nin_28 by the improved recipe",
            "nin_28",
            improved(replace(_BF16, precision=Precision.FP32)),
        ),
        ("alexnet_28 by adam", "alexnet_28", _ADAM),
        ("nin_28_batch_norm", "nin_28_batch_norm", replace(_BF16, precision=Precision.FP32)),
    ):
        yield Check(
            f"repeated steps of {name}",
            partial(_repeated, network=network, steps=_CPU_STEPS,
                    recipe=replace(recipe, batch_size=_CPU_BATCH)),
            "Record with --threads 1, and say in what you write that runs do not repeat here.",
        )  # fmt: skip
    yield Check(
        "memory in a process of its own",
        partial(_measured, network="nin_28", batch_size=2, precision="fp32", allocator="cpu"),
        _MEASURE_ADVICE,
    )
