# The calculator's numbers, proved: each part runs behind the cell that it names.

# %% title
from dataclasses import replace

from ninlab import formulas, liveness
from ninlab.architectures import NIN, Head, architecture, nin_layers
from ninlab.devices import DEVICES, device
from ninlab.errors import ShapeError
from ninlab.shapes import at_input, smallest_input
from ninlab.units import format_bytes, format_count

# %% question
assert f"{device('t4').memory_bytes / 10**9:.0f} GB" == "16 GB"

# %% as-python
step = liveness.timeline(NIN)
forward = liveness.timeline(NIN, training=False)
assert cost.batch_size == 128
assert cost.parameters == formulas.parameters(NIN)
assert cost.macs == formulas.macs(NIN)
assert cost.saved_bytes == formulas.saved_bytes(NIN, 128)
assert cost.training.tensor_peak_bytes == liveness.peak_bytes(step, 128)
assert cost.inference.tensor_peak_bytes == liveness.peak_bytes(forward, 128)

# %% how
per_pixel = {}
for row in formulas.layer_costs(NIN):
    if row.kind == "Conv2d":
        pixels = row.output_shape[1] * row.output_shape[2]
        block = row.name.partition(".")[0]
        per_pixel[block] = per_pixel.get(block, 0) + row.macs // pixels
assert list(per_pixel.values()) == [30_048, 745_472, 1_179_648, 34_760]


# %% exercises
def nin(**knobs):
    """The textbook's NiN with one decision changed."""
    return replace(NIN, layers=nin_layers(**knobs))


def training_peak(network, batch=128):
    return liveness.peak_bytes(liveness.timeline(network), batch)


wide = nin(inner_kernel_size=3)
both = NIN, wide
assert [format_count(formulas.parameters(n)) for n in both] == [
    "1.99 M",
    "5.55 M",
]
assert [format_count(formulas.macs(n)) for n in both] == ["762 M", "2.24 G"]
assert [format_bytes(training_peak(n)) for n in both] == [
    "980 MiB",
    "993 MiB",
]
growth = training_peak(wide) / training_peak(NIN) - 1
assert f"{growth:.1%}" == "1.4%"
assert formulas.saved_bytes(NIN, 128) == formulas.saved_bytes(wide, 128)

# %% exercise-depth
by_depth = [nin(one_by_one_layers=count) for count in (0, 2, 3)]
assert [format_count(formulas.parameters(n)) for n in by_depth] == [
    "1.55 M",
    "1.99 M",
    "2.22 M",
]
assert [format_bytes(training_peak(n)) for n in by_depth] == [
    "519 MiB",
    "980 MiB",
    "1.20 GiB",
]
t4 = device("t4").memory_bytes
fits = [liveness.largest_batch(liveness.timeline(n), t4) for n in by_depth]
assert [f"{batch:,}" for batch in fits] == ["3,829", "2,008", "1,599"]


# %% exercise-adam
def line_at(network, batch):
    """Bytes once and for each image, of the peak at that batch."""
    lines = liveness.envelope(liveness.timeline(network, "adam"))
    return max(lines, key=lambda line: line[0] + line[1] * batch)


alexnet = architecture("alexnet")
lines = [line_at(network, 150) for network in (NIN, alexnet)]
assert 150 in range(lines[0].first_batch, 191)
assert [[format_bytes(size) for size in line[:2]] for line in lines] == [
    ["22.9 MiB", "7.59 MiB"],
    ["711 MiB", "3.98 MiB"],
]
apart, closer = ((b - a) / 2**20 for a, b in zip(lines[0][:2], lines[1][:2], strict=True))
assert f"{-apart / closer:.1f}" == "190.5"
crossings = [
    liveness.crossing(*(liveness.timeline(n, optimizer) for n in (NIN, alexnet)))
    for optimizer in ("sgd", "adam")
]
assert crossings == [96, 191]
assert crossings[1] - 1 == 190

# %% exercise-image
large = [at_input(network, (1, 448, 448)) for network in (NIN, alexnet)]
assert formulas.parameters(NIN) == formulas.parameters(large[0])
assert large[0].input_shape[1] == 2 * NIN.input_shape[1] == 448
ratio = formulas.macs(large[0]) / formulas.macs(NIN)
assert f"{ratio:.2f} times" == "4.38 times"
ratio = formulas.parameters(large[1]) / formulas.parameters(alexnet)
assert f"{ratio:.2f} times" == "3.67 times"
assert format_count(formulas.parameters(large[1])) == "172 M"
try:
    at_input(NIN, (1, 66, 66))
except ShapeError as error:
    sentence = str(error)
assert sentence.startswith("nin cannot read 1x66x66")
side = smallest_input(NIN)[1]
assert f"{side - 1}x{side - 1}, {side}x{side}" == "66x66, 67x67"

# %% exercise-head
headed = nin(head=Head.FULLY_CONNECTED)
phone = device("phone_512mb").memory_bytes
assert f"{phone / 10**6:.0f} MB, {format_bytes(phone)}" == "512 MB, 488 MiB"
largest = [liveness.largest_batch(liveness.timeline(n), phone) for n in (NIN, headed)]
assert largest == [63, 6]
assert largest[1] < 32 < largest[0]
headed_step = liveness.timeline(headed)
assert [
    name
    for name, one in DEVICES.items()
    if liveness.largest_batch(headed_step, one.memory_bytes) < 32
] == ["phone_512mb"]
assert format_count(formulas.parameters(headed)) == "58.1 M"
assert format_bytes(8 * formulas.parameters(headed)) == "443 MiB"
