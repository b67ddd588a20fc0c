# The numbers of 08_peak_memory, proved: each part runs behind the cell that it names.

# %% setup
from math import prod

from ninlab.formulas import layer_costs, parameters, saved_bytes
from ninlab.layers import Conv
from ninlab.networks import build
from ninlab.reports import Category, tensor_peak
from ninlab.shapes import placed_layers
from ninlab.units import format_shape
from ninlab.workspaces import Workspaces

# %% question-two
assert f"{parameters(alexnet) // parameters(nin)} times" == "23 times"
assert f"{saved_bytes(nin) / saved_bytes(alexnet):.1f} times" == "1.9 times"
assert [format_shape(n.input_shape) for n in (nin, alexnet)] == ["1x224x224"] * 2
assert format_shape(architecture("vgg11").input_shape) == "1x224x224"
assert format_shape(architecture("googlenet").input_shape) == "1x96x96"

# %% prediction
weights = {n.name: 4 * parameters(n) for n in (nin, alexnet)}
kept = {n.name: saved_bytes(n) for n in (nin, alexnet)}
assert [format_bytes(w) for w in weights.values()] == ["7.60 MiB", "178 MiB"]
assert [format_bytes(k) for k in kept.values()] == ["7.29 MiB", "3.79 MiB"]
on_paper = 2 * (weights["alexnet"] - weights["nin"]) / (kept["nin"] - kept["alexnet"])
assert f"{on_paper:.1f}" == "97.5"

# %% count-peak
assert sum(event.bytes(batch) for event in at_peak) == peak
assert format_bytes(peak) == "737 MiB"

# %% count-largest
assert [(one.layer, one.phase) for one in largest[12:14]] == [
    ("maxpool3", "backward"),
    ("block3.relu3", "backward"),
]
assert {one.phase for one in largest[:12]} == {"forward"}

# %% count-steps
reached = {name: tensor_peak(steps[name], batch) for name in ("nin", "alexnet")}
assert steps["nin"] == step
assert liveness.crossing(steps["nin"], steps["alexnet"]) == batch
assert (batch, batch - 1) == (96, 95)
assert [format_bytes(found.tensor_peak_bytes) for found in reached.values()] == ["737 MiB"] * 2
by_category = {
    name: {
        str(category): size / found.tensor_peak_bytes
        for category, size in found.by_category.items()
    }
    for name, found in reached.items()
}
assert f"{by_category['nin']['activation']:.0%}" == "96%"
base = by_category["alexnet"]["parameter"] + by_category["alexnet"]["gradient"]
assert f"{base:.0%}" == "48%"
assert [found.at for found in reached.values()] == [
    "backward block3.relu3 threshold_backward",
    "backward relu2 threshold_backward",
]
low = [
    1 - (2 * weights[name] + kept[name] * batch) / found.tensor_peak_bytes
    for name, found in reached.items()
]
assert [f"{share:.1%}" for share in low] == ["2.9%", "2.2%"]

# %% count-envelope
assert {
    tensor_peak(events, 2**power).at.partition(" ")[0]
    for events in steps.values()
    for power in range(11)
} == {"backward"}
by_batch = liveness.envelope(steps["nin"])
assert [line.first_batch for line in by_batch] == [1, 2, 29]
assert f"{by_batch[-1].bytes_per_image / kept['nin'] - 1:.1%}" == "4.1%"
assert all(
    liveness.peak_bytes(steps["nin"], n)
    == max(line.constant_bytes + n * line.bytes_per_image for line in by_batch)
    for n in range(1, 300)
)

# %% count-table
at_one = [liveness.peak_bytes(steps[name], 1) for name in ("nin", "alexnet")]
assert f"{at_one[1] / at_one[0]:.0f}" == "17"

# %% count-fits
phone = device("phone_512mb").memory_bytes
assert liveness.largest_batch(forward["vgg11"], phone) == 0
assert f"{format_bytes(phone)}, {phone / 1e6:.0f} MB" == "488 MiB, 512 MB"
assert format_bytes(liveness.peak_bytes(forward["vgg11"], 1)) == "516 MiB"
slopes = [liveness.envelope(forward[n])[0].bytes_per_image for n in ("nin", "alexnet")]
assert slopes == [2_440_232, 2_440_232]
assert liveness.crossing(forward["nin"], forward["alexnet"]) is None

# %% count-optimizers
assert [row[-1] for row in crossings.values()] == [96, 144, 191, 203]
shares = [
    liveness.peak_bytes(liveness.timeline(architecture(n), "sgd", "bf16"), 128)
    / liveness.peak_bytes(steps[n], 128)
    for n in ("nin", "alexnet")
]
assert [f"{share:.0%}" for share in shares] == ["58%", "83%"]
adam = liveness.timeline(alexnet, "adam")
in_update = [
    size for size in (1, 32, 64, 128) if tensor_peak(adam, size).at == "step _foreach_sqrt"
]
assert f"batch {in_update[-1]}" == "batch 32"
copies = tensor_peak(adam, in_update[-1]).tensor_peak_bytes / weights["alexnet"]
assert f"{copies:.1f} times" == "5.0 times"

# %% count-allocator
training = on_h100["nin"].training
assert training.tensor_peak_bytes == liveness.peak_bytes(steps["nin"], 128)
ours = [on_h100[name].training for name in ("nin", "alexnet")]
assert [f"{cost.requested_peak_bytes / cost.tensor_peak_bytes - 1:.0%}" for cost in ours] == [
    "5%",
    "11%",
]
assert all(1.6 < cost.reserved_peak_bytes / cost.tensor_peak_bytes < 2.4 for cost in ours)
assert {cost.batch_size for cost in on_h100.values()} == {128}
assert Workspaces.load("h100", torch="2.11").torch.rpartition(".")[0] == "2.11"
shape_of = {cost.name: cost.output_shape for cost in layer_costs(nin)}
with_scratch = {
    event.layer
    for event in on_h100["nin"].training_events
    if (event.category, event.phase) == (Category.WORKSPACE, "forward")
}
for layer in ("block1.conv2", "block1.conv3"):
    assert shape_of[layer] == shape_of["block1.conv1"]  # what it reads is as large
    assert format_bytes(2 * 4 * 128 * prod(shape_of[layer])) == "273 MiB"
windows = {at.name: at.layer.kernel_size for at in placed_layers(nin) if isinstance(at.layer, Conv)}
assert not [layer for layer in with_scratch if windows[layer] == 1]
assert [layer for layer in with_scratch if windows[layer] > 1]

# %% measure
assert real.tensor_peak_bytes == liveness.peak_bytes(step, 8)
assert f"{real.tensor_peak_bytes:,}" == "75,230,204"

# %% figure-measured
assert {one.batch_size for one in cases} == {32}
assert {format_shape(one.input_shape) for one in cases} == {"1x28x28"}
assert (
    max(abs(pair.measured - pair.predicted) for pair in pairs) <= 8
)  # some builds wrap one scalar of Adam's

# %% exercises
one_output = prod(shape_of["block1.relu1"])
assert format_shape(shape_of["block1.relu1"]) == "96x54x54"
assert f"{one_output:,}" == "279,936"
three = 3 * 4 * one_output * batch
assert format_bytes(three) == "308 MiB"
assert f"{three / reached['nin'].tensor_peak_bytes:.0%}" == "42%"
saved = profile("nin", batch_size=96).saved_tensors
relu = [t for t in saved if (t.kind, t.layer[:7]) == ("relu_result", "block1.")]
assert sum(t.bytes for t in relu) == three

# %% exercise-fit
constant, slope, _ = by_batch[-1]
assert f"{constant:,} {slope:,}" == "8,107,836 7,963,736"
room = 8 * 2**30
assert f"{(room - constant) / slope:,.1f}" == "1,077.6"
promised = (room - 2 * weights["nin"]) // kept["nin"]
assert (liveness.largest_batch(steps["nin"], room), promised) == (
    1077,
    1120,
)
assert format_bytes(liveness.peak_bytes(steps["nin"], promised)) == "8.31 GiB"

# %% exercise-inplace
kinds_of_peak = {}
for name in ("nin", "alexnet"):
    module = build(name)
    for layer in module.modules():
        if isinstance(layer, torch.nn.ReLU):
            layer.inplace = True
    usual = profile(name, batch_size=96)
    changed = profile(module, (1, 224, 224), batch_size=96)
    assert changed.saved_bytes == usual.saved_bytes
    assert changed.training.tensor_peak_bytes == usual.training.tensor_peak_bytes
    kinds_of_peak[name] = [
        format_bytes(cost.inference.tensor_peak_bytes) for cost in (usual, changed)
    ]
assert kinds_of_peak["nin"] == ["231 MiB", "231 MiB"]
assert kinds_of_peak["alexnet"] == ["402 MiB", "371 MiB"]

# %% exercise-equal
first_map, image, scores = (
    4 * size for size in (one_output, prod(nin.input_shape), nin.num_classes)
)
assert f"{first_map:,} {image:,} {scores}" == "1,119,744 200,704 40"
assert shape_of["block1.relu1"] == {c.name: c for c in layer_costs(alexnet)}["relu1"].output_shape
assert 2 * first_map + image + scores == slopes[0]
worst = [tensor_peak(forward[name], 1).at for name in ("nin", "alexnet")]
assert worst == ["forward block1.relu1 relu", "forward relu1 relu"]
