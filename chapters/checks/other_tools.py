# The numbers of other_tools, proved: each part runs behind the cell that it names.

# %% setup
from ninlab import liveness
from ninlab.layers import MaxPool
from ninlab.shapes import placed_layers

pools = [at.layer for at in placed_layers(networks["nin"]) if isinstance(at.layer, MaxPool)]
assert {(pool.kernel_size**2 - 1, pool.kernel_size**2) for pool in pools} == {(8, 9)}

# %% show-macs
assert len(counts.titles) == 15
assert {size for _, size in counts.peaks} == {8, 128}
assert ("lenet", 128) in counts.peaks
exact = {
    tool
    for tool, told in counts.said["macs"].items()
    if all(told[workload] == count for workload, count in true_macs.items())
}
assert exact == {"ninlab", "flop_counter", "torchscan"}
for small in ("alexnet", "vgg11"):
    assert counts.said["macs"]["torchmeter"][small, 8] < true_macs[small, 8]

# %% show-kept
assert peers.format_error(1.04) == "×2.0"
for n in names:
    share = kept.said["saved_bytes"]["vram_check"][n, 8] / formulas.parameters(networks[n])
    assert share == 8 * 8

# %% show-peaks
for one, quantity, true in ((kept, "saved_bytes", true_kept), (peaks, "peak_bytes", true_peaks)):
    said = one.said[quantity].get("kitsune", {})  # another record may be without
    assert all(said[case] > true[case] for case in said.keys() & true.keys())
off = {
    name: told / true_peaks[name, size] - 1
    for (name, size), told in peaks.said["peak_bytes"].get("mem_tracker", {}).items()
    if (name, size) in true_peaks
}
assert {name for name, error in off.items() if error} <= {"googlenet"}
assert all(abs(error) < 0.005 for error in off.values())
step_rules, vgg = peers.RULES["peak_bytes"], architecture("vgg11")
known = 8 * formulas.parameters(vgg)
outputs = peers.RULES["saved_bytes"]["kitsune"](vgg, 1)
margin = step_rules["kitsune"](vgg, 1) / (known + outputs) - 1
assert f"{margin:.0%}" == "15%"
copies = step_rules["alloc"](vgg, 1) / (4 * formulas.parameters(vgg))
assert f"{copies:.1f} times" == "4.4 times"
assert step_rules["alloc"](vgg, 1) == step_rules["alloc"](vgg, 128)
small_peaks = {n: liveness.peak_bytes(liveness.timeline(networks[n]), 8) for n in names}
assert 2 * 4 * formulas.parameters(networks["alexnet"]) > small_peaks["alexnet"] / 2
for one in ("torchinfo", "torchmeter"):
    assert step_rules[one](networks["alexnet"], 8) < small_peaks["alexnet"]
    assert step_rules[one](networks["nin"], 8) > small_peaks["nin"]
