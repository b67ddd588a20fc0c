"""How much faster does a run get its images from the device than from a DataLoader?

Trains the same network with the same steps twice, in turns: fed by ninlab's resident tensors,
and by torchvision's FashionMNIST, the textbook's transforms and torch's DataLoader. Prints the
images per second of both, as medians over the turns, and their ratio; then the same for the
input alone, without a network. Ratios are of one process on one device, so they may be compared
between machines; the rates may not.

    python benchmarks/input_pipeline.py --network nin_28 --turns 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from ninlab import data
from ninlab.architectures import architecture
from ninlab.environment import describe_device, describe_software, parse_device
from ninlab.networks import build
from ninlab.recipes import Recipe
from ninlab.training import Engine


def torchvision_batches(
    root: Path, images: int, size: int, batch_size: int, workers: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The textbook's loader: resize and convert each image, shuffle, and stack the batch."""
    transform = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
    dataset = Subset(FashionMNIST(str(root), train=True, transform=transform), range(images))
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, drop_last=True)


def unpack(root: Path) -> None:
    """Lay the checked files out as torchvision expects them."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    source = data.find() or data.download()
    for name, published in data.FILES.items():
        values = data.read_idx(source, name).numpy().tobytes()
        (folder / name).write_bytes(published.header + values)


def images_per_second(images: int, device: torch.device, work: Callable[[], object]) -> float:
    """The rate at which work, which handles that many images, gets through them."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def main() -> None:
    """Print one JSON object with rates, ratios, device and software."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--network", default="nin_28")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=12800, help="images a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="processes of the DataLoader")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = parse_device(options.device)
    size = architecture(options.network).input_shape[-1]
    recipe = Recipe(0.01, 2 * options.turns + 1, batch_size=options.batch_size)
    images = options.images // options.batch_size * options.batch_size
    training = data.fashion_mnist()[0].take(slice(images)).to(device).resized(size)
    network = build(options.network, seed=0).to(device).to(memory_format=torch.channels_last)
    engine = Engine(network, training, recipe, seed=0)
    plain = build(options.network, seed=0).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, fused=True)

    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder))
        loader = torchvision_batches(
            Path(folder), images, size, options.batch_size, options.workers
        )

        def loaded() -> Iterator[tuple[Tensor, Tensor]]:
            for pixels, labels in loader:
                yield pixels.to(device), labels.to(device)

        def resident() -> Iterator[tuple[Tensor, Tensor]]:
            order = torch.randperm(images).to(device).view(-1, options.batch_size)
            for batch in order:
                pixels = engine.normalize(training.images.index_select(0, batch))
                yield pixels, training.labels.index_select(0, batch)

        def train_loaded() -> None:
            for pixels, labels in loaded():
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(plain(pixels), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

        works: dict[str, dict[str, Callable[[], object]]] = {
            "training": {"resident": engine.epoch, "dataloader": train_loaded},
            "input alone": {
                "resident": lambda: [None for _ in resident()],
                "dataloader": lambda: [None for _ in loaded()],
            },
        }
        result: dict[str, object] = {
            "network": options.network,
            "batch_size": options.batch_size,
            "images_a_turn": images,
            "turns": options.turns,
            "dataloader_workers": options.workers,
            "device": describe_device(device).name,
            "threads": options.threads,
            "torch": describe_software().torch,
        }
        for what, feeds in works.items():
            for work in feeds.values():
                work()  # warm caches, kernels and allocator
            rates: dict[str, list[float]] = {name: [] for name in feeds}
            for _ in range(options.turns):
                for name, work in feeds.items():
                    rates[name].append(images_per_second(images, device, work))
            medians = {name: statistics.median(of_feed) for name, of_feed in rates.items()}
            result[what] = {
                "images_per_second": {name: round(rate) for name, rate in medians.items()},
                "ratio": round(medians["resident"] / medians["dataloader"], 2),
            }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
