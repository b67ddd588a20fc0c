"""What do fused operators buy on a GPU, and do they compute the same?

The rows, those first that decide whether runs may be made by fused operators:

- whole steps of NiN by torch's layers and by fused operators, called and captured, with what they
  keep, and how far their gradients are from float32's beside torch's;
- the losses of an epoch with two seeds each;
- ten epochs by fused operators in seconds, with everything counted;
- each operator beside the calls of torch that it stands for, on NiN's own maps: microseconds of a
  replayed graph, GB/s of the bytes that it reads and writes once, errors against float32;
- the chained 1x1 layers and their step; and ten epochs by torch's layers, known from records.

    python benchmarks/fused_step.py --device cuda --output runs/probes/fused_step.jsonl   # 90 s
    python benchmarks/fused_step.py --device cpu    # a rehearsal: tiny, by plain twins

A row is printed and appended to the file as soon as it is there. One that fails is a row with its
error, and stops nothing: where it took the process or the device with it, the next one begins in a
new process. No row begins after the deadline. Exit code 1 where a row failed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ninlab import data, fused, records
from ninlab.architectures import architecture
from ninlab.data import LabeledImages
from ninlab.devices import of_cuda_name
from ninlab.environment import arithmetic, describe_device, describe_software, parse_device
from ninlab.errors import KernelsError, one_sentence
from ninlab.networks import build
from ninlab.recipes import Recipe
from ninlab.roofline import time_bound, training_operators
from ninlab.selfcheck import gradient_error
from ninlab.steps import Kernels, Precision
from ninlab.torch_private import product_bias_relu
from ninlab.training import Engine, Normalize, autocast, train

LOST = 7
"""Exit code of a process whose device answers no more; its last row is written."""

MOST_BREAKS = 3
"""Processes in a row that may end without a good row."""

KEPT_POINTS = 26
"""Of the losses of an epoch: means of 18 of its 468 steps."""

own = torch.ops.ninlab
aten = torch.ops.aten

Row = dict[str, Any]
Work = Callable[[], Row]


@dataclass(frozen=True)
class Size:
    """How much is measured: all of it on a GPU, a rehearsal on a CPU."""

    device: torch.device
    network: str
    learner: str  # the same network without a start that kills it, so that losses say something
    batch_size: int
    images: int | None  # of an epoch whose losses are kept; None for all
    test_images: int | None
    epochs: int  # of the whole runs
    timed_steps: int  # of an epoch that is timed
    maps: tuple[tuple[int, int], ...]  # (channels, side) of the blocks, in front of their pools
    image_side: int
    dtype: torch.dtype

    @classmethod
    def of(cls, device: torch.device) -> Size:
        """The whole on a GPU. In bfloat16 there, in float32 on a CPU."""
        if device.type == "cuda":
            maps = ((96, 54), (256, 26), (384, 12))
            whole = ("nin", "nin_fixed", 128, None, None, 10, 40)
            return cls(device, *whole, maps=maps, image_side=224, dtype=torch.bfloat16)
        tiny = ("nin_28", "nin_28", 8, 64, 100, 1, 2)
        return cls(device, *tiny, maps=((16, 7),), image_side=28, dtype=torch.float32)

    @property
    def precision(self) -> Precision:
        """In which the steps compute."""
        return Precision.BF16 if self.dtype is torch.bfloat16 else Precision.FP32

    @property
    def recipe(self) -> Recipe:
        """That of the textbook, as the full plan trains."""
        return Recipe(
            0.05,
            self.epochs,
            batch_size=self.batch_size,
            precision=self.precision,
            train_images=self.images,
        )


# ---------------------------------------------------------------- time


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, the median of three groups: on a GPU of its replayed graph."""
    if device.type != "cuda":
        call()
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    repeats, groups = 20, []
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    graph.replay()
    for _ in range(3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        groups.append(begin.elapsed_time(end) / 1e3 / repeats)
    return statistics.median(groups)


# ---------------------------------------------------------------- operators


@dataclass(frozen=True)
class Case:
    """One operator on given operands, and what torch calls in its place.

    Both take the operands by name and return what is compared. They may change their operands.
    Biases stay float32, as parameters are: ours rounds them, torch's calls are given them rounded.
    """

    ours: Callable[..., tuple[Tensor, ...]]
    torchs: Callable[..., tuple[Tensor, ...]]
    operands: Mapping[str, Tensor]
    also_moved: int = 0  # bytes beyond those of operands and results, each of which counts once


def compared(make: Callable[[], Case], size: Size) -> Row:
    """The row of the case that is made."""
    case = make()

    def fresh(dtype: torch.dtype, *, of_biases: torch.dtype | None = None) -> dict[str, Tensor]:
        return {
            name: one.to(of_biases or dtype if name.startswith("bias") else dtype, copy=True)
            for name, one in case.operands.items()
        }

    both = {
        "": (case.ours, fresh(size.dtype, of_biases=torch.float32)),
        "torch_": (case.torchs, fresh(size.dtype)),
    }
    exact = [one.double() for one in case.torchs(**fresh(torch.float32))]
    row: Row = {}
    for whose, (call, operands) in both.items():
        found = call(**{name: one.clone() for name, one in operands.items()})
        row[f"{whose}error"] = max(
            float((one.double() - wide).norm() / wide.norm().clamp_min(1e-30))
            for one, wide in zip(found, exact, strict=True)
        )
        row[f"{whose}us"] = 1e6 * seconds_of(partial(call, **operands), size.device)
        if not whose:
            moved = [*operands.values(), *found]
            total = case.also_moved + sum(one.numel() * one.element_size() for one in moved)
            row["gb_s"] = total / row["us"] / 1e3
    return row


def noise_of(size: Size) -> Callable[..., Tensor]:
    """What makes random float32 tensors that have the same numbers in the type of the steps."""
    generator = torch.Generator(size.device).manual_seed(0)

    def noise(*shape: int, scale: float = 1.0) -> Tensor:
        made = torch.randn(shape, generator=generator, device=size.device) * scale
        made = made.to(size.dtype).float()
        return made.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else made

    return noise


def bias_relu_case(size: Size, channels: int, side: int) -> Case:
    """One pass in place of two."""
    noise = noise_of(size)
    operands = {"z": noise(size.batch_size, channels, side, side), "bias": noise(channels)}
    return Case(bias_relu, torchs_bias_relu, operands)


def relu_backward_case(size: Size, channels: int, side: int) -> Case:
    """The way back of the same."""
    noise = noise_of(size)
    shape = size.batch_size, channels, side, side
    operands = {"gradient": noise(*shape), "result": noise(*shape).relu()}
    return Case(own.relu_bias_backward, torchs_relu_backward, operands)


def pool_case(size: Size, channels: int, side: int) -> Case:
    """Bias, ReLU and max pool of a block's end, with codes in place of indices."""
    operands = bias_relu_case(size, channels, side).operands
    codes = size.batch_size * channels * ((side - 3) // 2 + 1) ** 2
    return Case(pooled, torchs_pooled, operands, also_moved=codes)


def product_case(size: Size, channels: int, side: int) -> Case:
    """A 1x1 layer and its ReLU."""
    weight = noise_of(size)(channels, channels, 1, 1, scale=channels**-0.5)
    operands = {**bias_relu_case(size, channels, side).operands, "weight": weight}
    return Case(product, lambda z, bias, weight: (F.relu(F.conv2d(z, weight, bias)),), operands)


def stem_case(size: Size, both_ways: bool) -> Case:
    """11x11 at stride 4 on one channel, or the gradient of its weight after it."""
    noise = noise_of(size)
    images = noise(size.batch_size, 1, size.image_side, size.image_side)
    operands = {"images": images, "weight": noise(size.maps[0][0], 1, 11, 11, scale=0.1)}
    if not both_ways:
        return Case(folded, torchs_stem, operands)
    (result,) = torchs_stem(**operands)
    # On the way there the result is written, on the way back it is read, and so are the images.
    between = (2 * result.numel() + images.numel()) * size.dtype.itemsize
    return Case(
        partial(with_gradient, folded), partial(with_gradient, torchs_stem), operands, between
    )


def bias_relu(z: Tensor, bias: Tensor) -> tuple[Tensor]:
    """In place."""
    own.bias_relu_(z, bias)
    return (z,)


def torchs_bias_relu(z: Tensor, bias: Tensor) -> tuple[Tensor]:
    """A convolution adds its bias in place, and the ReLU makes a new map."""
    return (F.relu(z.add_(bias.view(1, -1, 1, 1))),)


def torchs_relu_backward(gradient: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """And the sum of the convolution's backward pass."""
    passed = aten.threshold_backward(gradient, result, 0)
    return passed, passed.sum((0, 2, 3))


def pooled(z: Tensor, bias: Tensor) -> tuple[Tensor]:
    """With codes, as in training."""
    return (own.bias_relu_max_pool(z, bias, 3, 2, 0, True)[0],)


def torchs_pooled(z: Tensor, bias: Tensor) -> tuple[Tensor]:
    """With indices, as in training."""
    return (aten.max_pool2d_with_indices(torchs_bias_relu(z, bias)[0], 3, 2)[0],)


def pool_backward_case(size: Size, channels: int, side: int) -> Case:
    """The pool's way back, with the codes and the indices of one way there."""
    z, bias = bias_relu_case(size, channels, side).operands.values()
    _, codes = own.bias_relu_max_pool(z, bias, 3, 2, 0, True)
    activated = torchs_bias_relu(z.clone(), bias)[0]
    top, indices = aten.max_pool2d_with_indices(activated, 3, 2)
    height, width = z.shape[-2:]

    def ours(gradient: Tensor) -> tuple[Tensor, Tensor]:
        maps, of_bias = own.bias_relu_max_pool_backward(gradient, codes, height, width, 3, 2, 0)
        return maps, of_bias

    def torchs(gradient: Tensor) -> tuple[Tensor, Tensor]:
        activations = of_type[gradient.dtype]
        maps = aten.max_pool2d_with_indices_backward(
            gradient, activations, [3, 3], [2, 2], [0, 0], [1, 1], False, indices
        )
        return torchs_relu_backward(maps, activations)

    of_type = {dtype: activated.to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return Case(ours, torchs, {"gradient": noise_of(size)(*top.shape)}, also_moved=codes.numel())


def product(z: Tensor, bias: Tensor, weight: Tensor) -> tuple[Tensor]:
    """As maps, for the comparison."""
    rows = z.permute(0, 2, 3, 1).flatten(0, 2)
    made = product_bias_relu(bias.to(z.dtype), rows, weight.flatten(1).T)
    batch, _, height, width = z.shape
    return (made.view(batch, height, width, -1).permute(0, 3, 1, 2),)


def folded(images: Tensor, weight: Tensor) -> tuple[Tensor]:
    """The stem as the fused network computes it, without its bias."""
    layer = fused.layers.ConvWithoutBias(torch.nn.Conv2d(1, 1, 11, 4))
    return (torch.func.functional_call(layer, {"weight": weight}, images),)


def torchs_stem(images: Tensor, weight: Tensor) -> tuple[Tensor]:
    """The stem as torch computes it."""
    return (F.conv2d(images, weight, None, 4),)


def with_gradient(
    stem: Callable[[Tensor, Tensor], tuple[Tensor]], images: Tensor, weight: Tensor
) -> tuple[Tensor, ...]:
    """The gradient of the weight, of the sum of squares by two."""
    learned = weight.detach().requires_grad_()
    (made,) = stem(images, learned)
    return torch.autograd.grad(made, learned, made.detach())


def picked(size: Size) -> Row:
    """The images of a batch, by one operator and by torch's three or five."""
    images, _ = some_images(size, 4 * size.batch_size)
    indices = torch.arange(0, 4 * size.batch_size, 4, device=size.device)
    torchs, ours = Normalize(), Normalize().by(Kernels.FUSED, size.precision)
    apart = ours(images.images, indices) != torchs(images.images, indices).to(size.dtype)
    pixels = size.batch_size * images.images[0].numel()
    seconds, torch_seconds = (
        seconds_of(lambda read=read: read(images.images, indices).to(size.dtype), size.device)
        for read in (ours, torchs)
    )
    return {
        "us": 1e6 * seconds,
        "torch_us": 1e6 * torch_seconds,
        "gb_s": pixels * (1 + size.dtype.itemsize) / seconds / 1e9,
        "other_bits": int(apart.sum()),
    }


def chain_case(size: Size, backward: bool) -> Case:
    """The 1x1 layers of the first block, one way."""
    channels, side = size.maps[0]
    noise = noise_of(size)
    scale = channels**-0.5
    operands = {
        "z": noise(size.batch_size, channels, side, side),
        "bias1": noise(channels),
        "weight2": noise(channels, channels, 1, 1, scale=scale),
        "bias2": noise(channels),
        "weight3": noise(channels, channels, 1, 1, scale=scale),
    }

    def torchs(
        z: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, weight3: Tensor
    ) -> tuple[Tensor]:
        first = F.relu(z + bias1.view(1, -1, 1, 1))
        return (F.conv2d(F.relu(F.conv2d(first, weight2, bias2)), weight3),)

    def torchs_back(gradient: Tensor, **leaves: Tensor) -> tuple[Tensor, ...]:
        leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
        return torch.autograd.grad(torchs(**leaves), [*leaves.values()], gradient)

    if not backward:
        return Case(lambda **operands: (own.chain(*operands.values()),), torchs, operands)
    gradient = {"gradient": noise(*operands["z"].shape)}
    return Case(
        lambda **operands: own.chain_backward(*operands.values()),
        torchs_back,
        gradient | operands,
    )


# ---------------------------------------------------------------- steps


def some_images(size: Size, count: int | None) -> tuple[LabeledImages, LabeledImages]:
    """(training, test) images on the device, as the network reads them."""
    side = architecture(size.network).input_shape[-1]
    training, test = data.fashion_mnist()
    parts = training.take(slice(count)), test.take(slice(size.test_images))
    one, other = (part.to(size.device).resized(side) for part in parts)
    return one, other


def engine_of(
    size: Size, network: str, kernels: Kernels, images: LabeledImages, **options: Any
) -> Engine:
    """An engine as a run makes it. The recipe is torch's, so that the chain steps, too."""
    module = build(network, seed=options.get("seed", 0)).to(size.device)
    module = module.to(memory_format=torch.channels_last)
    rate = options.pop("rate", 0.01)
    recipe = replace(size.recipe, learning_rate=rate, epochs=1 + TIMED_EPOCHS)
    return Engine(module, images, recipe, kernels=kernels, **{"seed": 0} | options)


def step(size: Size, kernels: Kernels) -> Row:
    """What one step of the network takes, keeps and gets wrong."""
    images, _ = some_images(size, size.timed_steps * size.batch_size)
    with arithmetic(size.precision, benchmark=True):
        row = called(engine_of(size, size.network, kernels, images, use_graph=False), size)
        start = time.perf_counter()
        captured = engine_of(size, size.network, kernels, images)
        row["prepare_seconds"] = time.perf_counter() - start
        row["graph_ms"] = None if captured.graph is None else fastest_ms(captured)
    least = bound_seconds(size, kernels)
    if least is not None and row["graph_ms"]:
        row |= {"bound_ms": 1e3 * least, "share_of_bound": 1e3 * least / row["graph_ms"]}
    torchs, error = (
        gradient_error(
            size.network,
            one,
            device=size.device,
            precision=size.precision,
            batch_size=size.batch_size,
        )
        for one in (Kernels.TORCH, kernels)
    )
    row |= {"gradient_error": error, "torch_gradient_error": torchs}
    return row | {"error_ratio": error / torchs if torchs else None}


TIMED_EPOCHS = 3


def fastest_ms(engine: Engine) -> float:
    """Milliseconds of a step: the fastest of a few short epochs, after one."""
    seconds = []
    for _ in range(1 + TIMED_EPOCHS):
        start = time.perf_counter()
        engine.epoch()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds[1:]) / engine.steps_an_epoch


def called(engine: Engine, size: Size) -> Row:
    """What steps take that are called kernel by kernel, what they keep, and their way there."""
    peak = engine.peak_bytes
    return {
        "eager_ms": fastest_ms(engine),
        "forward_ms": 1e3 * seconds_of(lambda: prediction(engine), size.device),
        "kept_mib": kept_bytes(engine) / 2**20,
        "peak_mib": None if peak is None else peak.allocated / 2**20,
    }


def prediction(engine: Engine) -> Tensor:
    """The scores of a batch, as evaluation computes them."""
    engine.stepping.eval()
    images = engine.normalize(engine.training.images, engine._indices)
    with torch.no_grad(), autocast(images.device, engine.recipe.precision):
        scores: Tensor = engine.stepping(images)
    return scores


def kept_bytes(engine: Engine) -> int:
    """Bytes of what autograd keeps of a step's forward pass, beside the parameters."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    engine.stepping.train()
    images = engine.normalize(engine.training.images, engine._indices)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(images.device, engine.recipe.precision),
    ):
        scores = engine.stepping(images)
    parameters = {p.untyped_storage().data_ptr() for p in engine.network.parameters()}
    del scores
    return sum(size for address, size in kept.items() if address not in parameters)


def bound_seconds(size: Size, kernels: Kernels) -> float | None:
    """The least time of a step by these kernels and the data sheet; None where there is none."""
    on = of_cuda_name(describe_device(size.device).name)
    if on is None:
        return None
    operators = training_operators(
        architecture(size.network), size.batch_size, "sgd", size.precision, kernels=kernels
    )
    return time_bound(operators, on, size.precision).seconds


def epoch(size: Size, kernels: Kernels, seed: int) -> Row:
    """The losses of one epoch, as means of some steps."""
    images, _ = some_images(size, size.images)
    with arithmetic(size.precision, benchmark=True):
        rate = size.recipe.learning_rate
        engine = engine_of(size, size.learner, kernels, images, rate=rate, seed=seed)
        losses, accuracy = engine.epoch()
    each = max(1, len(losses) // KEPT_POINTS)
    points = [statistics.fmean(losses[at : at + each]) for at in range(0, len(losses), each)]
    return {"steps_a_point": each, "losses": points, "train_accuracy": accuracy}


def whole(size: Size, kernels: Kernels) -> Row:
    """A run with everything counted, as its record would have it."""
    recipe = replace(size.recipe, kernels=kernels)
    split = None
    if size.images is not None:
        training, test = data.fashion_mnist()
        split = (training.take(slice(size.images)), test.take(slice(size.test_images)))
    run = train(size.learner, recipe, seed=0, device=size.device, split=split)
    return {
        "epochs": recipe.epochs,
        "wall_seconds": run.wall_seconds,
        "training_seconds": sum(one.seconds for one in run.epochs),
        "evaluation_seconds": sum(one.evaluation_seconds for one in run.epochs),
        "execution": run.execution,
        "outcome": str(run.outcome),
        "test_accuracy": run.epochs[-1].test_accuracy,
    }


# ---------------------------------------------------------------- rows


def rows(size: Size) -> list[tuple[str, Work]]:
    """All rows, the most wanted first: a name, and what makes it."""
    pair = (Kernels.TORCH, Kernels.FUSED)
    found: list[tuple[str, Work]] = [(f"step by {one}", partial(step, size, one)) for one in pair]
    found += [
        (f"epoch by {one}, seed {seed}", partial(epoch, size, one, seed))
        for seed in range(2)
        for one in pair
    ]
    found.append(("whole run by fused", partial(whole, size, Kernels.FUSED)))
    for name, make in OPERATORS.items():
        for channels, side in size.maps:
            case = partial(make, size, channels, side)
            found.append((f"{name} {channels}x{side}x{side}", partial(compared, case, size)))
    found += [
        ("stem forward", partial(compared, partial(stem_case, size, False), size)),
        ("stem both ways, weight", partial(compared, partial(stem_case, size, True), size)),
        ("pick", partial(picked, size)),
        ("chain", partial(compared, partial(chain_case, size, False), size)),
        (
            "chain backward, torch both ways",
            partial(compared, partial(chain_case, size, True), size),
        ),
        ("step by chained", partial(step, size, Kernels.CHAINED)),
        ("whole run by torch", partial(whole, size, Kernels.TORCH)),
    ]
    return found


OPERATORS = {
    "bias_relu": bias_relu_case,
    "relu_bias_backward": relu_backward_case,
    "bias_relu_max_pool": pool_case,
    "bias_relu_max_pool_backward": pool_backward_case,
    "product_bias_relu": product_case,
}


def made(work: Work) -> Row:
    """The row, or why there is none."""
    try:
        return work()
    except KernelsError as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"failed": one_sentence(f"{type(error).__name__}: {error}", 500)}


def in_words(name: str, row: Row) -> str:
    """The row in a line."""
    told = (
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in row.items()
        if not isinstance(value, list)
    )
    return f"{name:40} {', '.join(told)}"


def put(name: str, row: Row, output: Path) -> None:
    """Print a row, and append it to the file."""
    print(in_words(name, row), flush=True)
    append({"row": name, **row}, output)


def append(content: Mapping[str, Any], output: Path) -> None:
    """One line more."""
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


def make_rows(first: int, size: Size, output: Path, deadline: float) -> int:
    """Make the rows from that number on, in this process; the exit code says how that ended."""
    failed = False
    for name, work in rows(size)[first:]:
        if time.time() >= deadline:
            break
        row = made(work)
        failed = failed or "failed" in row
        put(name, row, output)
        if size.device.type == "cuda":
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:  # an illegal access stays in the context
                return LOST
    return 1 if failed else 0


def make_all(device_name: str, output: Path, deadline: float) -> int:
    """Make all rows, in as many processes as it takes; 1 where a row failed.

    The file holds its first line already.
    """
    names = [name for name, _ in rows(Size.of(parse_device(device_name)))]
    before = len(output.read_text(encoding="utf-8").splitlines())
    first = barren = 0
    failed = False
    while first < len(names) and barren < MOST_BREAKS and time.time() < deadline:
        words = ["--device", device_name, "--deadline", str(deadline), "--output", str(output)]
        command = [sys.executable, __file__, "--from", str(first), *words]
        ended = subprocess.run(command, check=False).returncode
        failed = failed or ended != 0
        if ended in (0, 1):
            break
        there = len(output.read_text(encoding="utf-8").splitlines()) - before
        if ended != LOST and there < len(names):
            put(names[there], {"failed": f"its process ended with {ended}"}, output)
            there += 1
        barren = 0 if there > first + 1 else barren + 1
        first = there
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row each, append them to the file, and say by the exit code whether one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="file to which rows are appended as JSON")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="in s since 1970")
    parser.add_argument("--from", type=int, dest="first", help="make the rows from that one on")
    options = parser.parse_args(arguments)
    device = parse_device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    if options.first is not None:
        return make_rows(options.first, Size.of(device), options.output, options.deadline)
    with tempfile.TemporaryDirectory() as scratch:
        output = options.output or Path(scratch) / "rows.jsonl"
        output.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "kind": "probe",
            "provenance": asdict(records.provenance("python benchmarks/fused_step.py")),
            "device": asdict(describe_device(device)),
            "software": asdict(describe_software()),
            "refused": fused.why_not(device),
        }
        append(content, output)
        if device.type == "cpu":  # which nothing takes along
            return make_rows(0, Size.of(device), output, options.deadline)
        return make_all(options.device, output, options.deadline)


if __name__ == "__main__":
    sys.exit(main())
