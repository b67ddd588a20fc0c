# The numbers of 13_flops_are_not_time, proved: each part runs behind the cell that it names.

# %% setup
from ninlab.formulas import layer_costs, macs
from ninlab.roofline import inference_operators
from ninlab.units import format_shape

# %% count-ridge
assert f"{h100.peak('tf32') / 1e12} TFLOP/s" == "494.5 TFLOP/s"
assert f"{h100.bandwidth() / 1e9:,.0f} GB" == "3,350 GB"
assert f"{ridge:.0f}" == "148"
layer = dict(architecture("nin").named_leaves())["block1.conv2"]
assert (layer.out_channels, layer.kernel_size) == (96, 1)
width = layer.out_channels  # and as many are read
a_byte = 2 * width * width / (4 * (width + width))
assert f"{a_byte:.0f}, {ridge / a_byte:.0f}" == "24, 6"

# %% figure-intensity
tf32 = {name: row["H100, TF32"] for name, row in bounds.items()}
assert f"{tf32['nin'].flops / tf32['alexnet'].flops:.2f}" == "0.81"
assert [f"{ratio:.2f}" for ratio in ratios.values()] == [
    "1.11",
    "1.33",
    "0.89",
    "0.82",
]
assert f"{ratios['H100, TF32']:.2f} times" == "1.33 times"
assert [format_seconds(tf32[name].seconds) for name in names[:2]] == [
    "3.32 ms",
    "2.49 ms",
]
assert f"{tf32['vgg11_quarter'].flops / tf32['alexnet'].flops:.2f}" == "0.55"
assert f"{tf32['vgg11_quarter'].seconds / tf32['alexnet'].seconds:.2f} times" == "1.52 times"
assert [f"{r:.0f}" for r in ridges.values()] == ["4", "25", "148"]
assert format_shape(architecture("nin").input_shape) == "1x224x224"
assert format_shape(architecture("googlenet").input_shape) == "1x96x96"
one_image = sum(one.flops for one in training_operators(architecture("nin"), 1, "sgd", "tf32"))
assert flops["nin"] / one_image == 128
without = {
    name: time_bound([one for one in step if not one.flops], h100, "tf32").seconds
    / tf32[name].seconds
    for name, step in steps.items()
}
assert [f"{without[n]:.0%}" for n in names[:2]] == ["43%", "36%"]
assert max(without.values()) > 0.5
waiting = {
    n: sum(o.flops for o in step if o.flops and o.flops / o.bytes < ridge) / flops[n]
    for n, step in steps.items()
}
assert [f"{waiting[n]:.0%}" for n in names[:2]] == ["28%", "7%"]
sizes = {path: getattr(leaf, "kernel_size", 0) for path, leaf in architecture("nin").named_leaves()}
left_of_ridge = {True: 0, False: 0}  # by whether it is a 1x1 layer
for operator in steps["nin"]:
    if operator.flops and operator.flops / operator.bytes < ridge:
        left_of_ridge[sizes.get(operator.layer) == 1] += operator.flops
share = left_of_ridge[True] / sum(left_of_ridge.values())
assert f"{share:.0%}" == "89%"
memory = [tf32[n].memory_bound_seconds / tf32[n].seconds for n in names[:2]]
assert [f"{share:.0%}" for share in memory] == ["75%", "46%"]

# %% figure-order
assert {"vgg11_quarter", "nin"} == {
    n for n in names if flops[n] < flops["alexnet"] and least[n] > least["alexnet"]
}
assert sorted(names, key=flops.get) != sorted(names, key=least.get)
assert sorted(names, key=flops.get)[:3] == [
    "googlenet",
    "vgg11_quarter",
    "nin",
]
calls = {name: one.calls for name, one in tf32.items()}
assert (calls["googlenet"], calls["nin"]) == (302, 64)

# %% figure-roofline
reached = {n: one.flops / one.seconds / h100.peak("tf32") for n, one in tf32.items()}
assert [f"{reached[n]:.0%}" for n in names] == [
    "35%",
    "58%",
    "21%",
    "52%",
    "22%",
]
intensity = tf32["alexnet"].flops / tf32["alexnet"].bytes
assert f"{intensity:.0f} and {ridges['H100, TF32']:.0f}" == "151 and 148"

# %% figure-race
calls_small = {n: sum(o.calls for o in training_operators(architecture(n), 64)) for n in small}
assert min(small, key=macs_of.get) == "googlenet_28"
more = macs(architecture("nin_28")) / macs(architecture("googlenet_28"))
assert f"{more:.1f} times" == "2.4 times"
assert (calls_small["googlenet_28"], calls_small["nin_28"]) == (302, 62)
assert format_shape(architecture("nin_28").input_shape) == "1x28x28"

# %% rate-sentence
assert set(small) <= set(race.networks)
assert f"batches of {race.batch_size}" == "batches of 128"
assert f"{race.steps_a_turn} steps" == "5 steps"

# %% exercises
assert [f"{r:.1f}" for r in ridges.values()] == ["4.2", "25.3", "147.6"]
assert f"{4 * ridges['phone']:.1f}" == "16.8"
assert [f"{4 * ridges[where]:.0f}" for where in ("T4", "H100, TF32")] == [
    "101",
    "590",
]
widths = [
    layer.out_channels
    for _, layer in architecture("nin").named_leaves()
    if getattr(layer, "kernel_size", 0) == 1
]
assert max(widths) == 384

# %% exercise-three
forward_flops = 2 * 128 * macs(architecture("nin"))
assert f"{flops['nin'] / forward_flops:.3f} times" == "2.956 times"
first = layer_costs(architecture("nin"))[0].macs / macs(architecture("nin"))
assert f"{first:.1%}, {first:.3f}" == "4.4%, 0.044"
assert f"{3 - first:.3f}" == "2.956"


# %% exercise-batch
def intensity(batch_size):
    step = inference_operators(architecture("alexnet"), batch_size, "tf32")
    one = next(o for o in step if (o.layer, o.name) == ("head.linear1", "addmm"))
    return one.flops / one.bytes


assert f"{intensity(1):.1f}, {intensity(128):.0f}" == "0.5, 61"
assert next(n for n in range(1, 1000) if intensity(n) > ridge) == 335
features = layer_costs(architecture("alexnet"))
flat = next(row for row in features if row.kind == "Flatten")
hidden = next(row for row in features if row.name == "head.linear1")
assert format_shape((*flat.output_shape, *hidden.output_shape)) == "6400x4096"
assert flat.output_shape == (6400,)

# %% exercise-fuse
relus = {"relu", "threshold_backward"}
fused = {
    n: time_bound([o for o in steps[n] if o.name not in relus], h100, "tf32").seconds
    for n in names[:2]
}
saved = [1 - fused[n] / tf32[n].seconds for n in names[:2]]
assert [f"{share:.0%}" for share in saved] == ["35%", "19%"]
assert [format_seconds(t) for t in fused.values()] == ["2.15 ms", "2.03 ms"]
assert f"{fused['nin'] / fused['alexnet']:.2f}" == "1.06"
