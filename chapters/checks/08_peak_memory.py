# The numbers of 08_peak_memory, proved: each part runs behind the cell that it names.

# %% hidden-imports
from ninlab.formulas import parameters, saved_bytes
from ninlab.networks import build
from ninlab.units import format_shape

# %% check-question
assert f"{parameters(alexnet) // parameters(nin)} times" == "23 times"
assert f"{saved_bytes(nin) / saved_bytes(alexnet):.1f} times" == "1.9 times"
assert [format_shape(n.input_shape) for n in (nin, alexnet)] == ["1x224x224"] * 2
assert format_shape(architecture("vgg11").input_shape) == "1x224x224"
assert format_shape(architecture("googlenet").input_shape) == "1x96x96"
weights = {n.name: 4 * parameters(n) for n in (nin, alexnet)}
kept = {n.name: saved_bytes(n) for n in (nin, alexnet)}
assert [format_bytes(w) for w in weights.values()] == [
    "7.60 MiB",
    "178 MiB",
]
assert [format_bytes(k) for k in kept.values()] == ["7.29 MiB", "3.79 MiB"]
on_paper = 2 * (weights["alexnet"] - weights["nin"]) / (kept["nin"] - kept["alexnet"])
assert f"{on_paper:.1f}" == "97.5"

# %% check-crossing
assert (crossing, crossing - 1) == (96, 95)
top = [format_bytes(peak.tensor_peak_bytes) for peak in peaks.values()]
assert top == ["737 MiB", "737 MiB"]
by_category = {
    name: {
        str(category): size / peak.tensor_peak_bytes for category, size in peak.by_category.items()
    }
    for name, peak in peaks.items()
}
assert f"{by_category['nin']['activation']:.0%}" == "96%"
base = by_category["alexnet"]["parameter"] + by_category["alexnet"]["gradient"]
assert f"{base:.0%}" == "48%"
assert [p.at for p in peaks.values()] == [
    "backward block3.relu3 threshold_backward",
    "backward relu2 threshold_backward",
]
low = [
    1 - (2 * weights[name] + kept[name] * 96) / peak.tensor_peak_bytes
    for name, peak in peaks.items()
]
assert [f"{share:.1%}" for share in low] == ["2.9%", "2.2%"]

# %% count-envelope
lines = liveness.envelope(steps["nin"])
assert [line.first_batch for line in lines] == [1, 2, 29]
assert f"{lines[-1].bytes_per_image / kept['nin'] - 1:.1%}" == "4.1%"
assert all(
    liveness.peak_bytes(steps["nin"], n)
    == max(line.constant_bytes + n * line.bytes_per_image for line in lines)
    for n in range(1, 300)
)

# %% count-table
at_one = [liveness.peak_bytes(steps[name], 1) for name in networks[:2]]
assert f"{at_one[1] / at_one[0]:.0f}" == "17"
phone = device("phone_512mb").memory_bytes
fits = [liveness.largest_batch(steps[n], phone) for n in networks]
assert fits == [63, 33, 0, 75]
assert liveness.largest_batch(forward["vgg11"], phone) == 0
assert f"{format_bytes(phone)}, {phone / 1e6:.0f} MB" == "488 MiB, 512 MB"
assert format_bytes(liveness.peak_bytes(forward["vgg11"], 1)) == "516 MiB"
t4 = {n: liveness.largest_batch(steps[n], device("t4").memory_bytes) for n in networks[:3]}
assert [f"{size:,}" for size in t4.values()] == ["2,008", "3,742", "304"]
slopes = [liveness.envelope(forward[n])[0].bytes_per_image for n in networks[:2]]
assert slopes == [2_440_232, 2_440_232]
assert liveness.crossing(forward["nin"], forward["alexnet"]) is None

# %% count-optimizers
assert [row[-1] for row in rows.values()] == [96, 144, 191, 203]
shares = [
    liveness.peak_bytes(liveness.timeline(architecture(n), "sgd", "bf16"), 128)
    / liveness.peak_bytes(steps[n], 128)
    for n in networks[:2]
]
assert [f"{share:.0%}" for share in shares] == ["58%", "83%"]
adam = liveness.timeline(alexnet, "adam")
at_32 = tensor_peak(adam, 32)
assert at_32.at == "step _foreach_sqrt"
assert f"{at_32.tensor_peak_bytes / weights['alexnet']:.1f}, batch {32}" == "5.0, batch 32"

# %% check-allocator
training = on_h100["nin"].training
assert training.tensor_peak_bytes == liveness.peak_bytes(steps["nin"], 128)
ours = [on_h100[name].training for name in networks[:2]]
assert [f"{cost.requested_peak_bytes / cost.tensor_peak_bytes - 1:.0%}" for cost in ours] == [
    "7%",
    "10%",
]
assert [f"{cost.reserved_peak_bytes / cost.tensor_peak_bytes:.1f} times" for cost in ours] == [
    "1.9 times",
    "2.1 times",
]
assert setting["batch_size"] == 128
assert release.rpartition(".")[0] == "2.11"
assert len(copies) == 2
assert {format_bytes(size) for size in copies.values()} == {"273 MiB"}

# %% measured-pairs
assert len(pairs) == 10
assert format_shape(cases[-1].input_shape) == "1x28x28"
assert max(map(abs, apart)) <= 8  # some builds wrap one scalar of Adam's

# %% tools
rule, vgg = peers.RULES["peak_bytes"], architecture("vgg11")
known = 8 * parameters(vgg)
kept_by_kitsune = peers.RULES["saved_bytes"]["kitsune"](vgg, 1)
margin = rule["kitsune"](vgg, 1) / (known + kept_by_kitsune) - 1
assert f"{margin:.0%}" == "15%"
copies = rule["alloc"](vgg, 1) / (4 * parameters(vgg))
assert f"{copies:.1f} times" == "4.4 times"

# %% exercises
one_output = 96 * 54 * 54
assert format_shape((96, 54, 54)) == "96x54x54"
assert f"{one_output:,}" == "279,936"
three = 3 * 4 * one_output * 96
assert format_bytes(three) == "308 MiB"
assert f"{three / peaks['nin'].tensor_peak_bytes:.0%}" == "42%"
saved = profile("nin", batch_size=96).saved_tensors
relu = [t for t in saved if (t.kind, t.layer[:7]) == ("relu_result", "block1.")]
assert sum(t.bytes for t in relu) == three

# %% exercise-fit
constant, slope, _ = lines[-1]
assert f"{constant:,} {slope:,}" == "8,107,836 7,963,736"
room = 8 * 2**30
assert room == 2**33
assert f"{room / 2**30:.0f} GiB" == "8 GiB"
assert f"{(room - constant) / slope:,.1f}" == "1,077.6"
promised = (room - 2 * weights["nin"]) // kept["nin"]
assert (liveness.largest_batch(steps["nin"], room), promised) == (
    1077,
    1120,
)
assert format_bytes(liveness.peak_bytes(steps["nin"], promised)) == "8.31 GiB"

# %% exercise-inplace
kinds_of_peak = {}
for name in networks[:2]:
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
first_map, image, scores = 4 * one_output, 4 * 224 * 224, 4 * 10
assert f"{first_map:,} {image:,} {scores}" == "1,119,744 200,704 40"
assert scores == 40
assert 2 * first_map + image + scores == slopes[0]
moments = [tensor_peak(forward[name], 1).at for name in networks[:2]]
assert moments == ["forward block1.relu1 relu", "forward relu1 relu"]
