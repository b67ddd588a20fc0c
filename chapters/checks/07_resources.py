# The numbers of 07_resources, proved: each part runs behind the cell that it names.

# %% setup
import math

from ninlab import liveness
from ninlab.devices import device
from ninlab.units import format_shape

parameters = {n: formulas.parameters(one) for n, one in networks.items()}
macs = {n: formulas.macs(one) for n, one in networks.items()}
kept = {n: formulas.saved_bytes(one) for n, one in networks.items()}
train_events = {n: liveness.timeline(one) for n, one in networks.items()}
use_events = {n: liveness.timeline(one, training=False) for n, one in networks.items()}
training = {n: liveness.peak_bytes(events, batch) for n, events in train_events.items()}
prediction = {n: liveness.peak_bytes(events, batch) for n, events in use_events.items()}

# %% question-two
assert {format_shape(network.input_shape) for network in networks.values()} == {"1x224x224"}
assert str(batch) == "128"
assert {f"{network.num_classes} classes" for network in networks.values()} == {"10 classes"}

# %% prediction
assert format_count(parameters["nin"]) == "1.99 M"
assert format_count(parameters["alexnet"]) == "46.8 M"
assert format_bytes(2 * 4 * parameters["nin"]) == "15.2 MiB"
first_block = next(c for c in formulas.layer_costs(networks["nin"]) if c.name == "block1.relu1")
assert format_shape(first_block.output_shape) == "96x54x54"
one_result = 4 * math.prod(first_block.output_shape)
assert format_bytes(one_result) == "1.07 MiB"
assert format_bytes(3 * one_result * batch) == "410 MiB"
choices = {"10 MiB": 10, "100 MiB": 100, "1,000 MiB": 1000}
nearest = min(
    choices,
    key=lambda choice: abs(choices[choice] - training["nin"] / 2**20),
)
assert nearest == "1,000 MiB"

# %% count-three-code
nin_row = rows["NiN"]
assert nin_row["fvcore"] - nin_row["closed form"] == 250
assert [r["fvcore"] - r["closed form"] for r in rows.values()] == [250, 0, 0]
assert all(r["PyTorch"] == 2 * r["closed form"] for r in rows.values())
assert f"{macs['nin']:,}" == "762,297,352"
assert f"{nin_row['PyTorch']:,}" == "1,524,594,704"
outputs = resources.profile("nin").fvcore_activations
assert f"{outputs:,}" == "1,525,614"
assert f"{macs['nin'] + outputs:,}" == "763,822,966"

# %% count-kept-code
assert [sum(k) for k in kinds.values()] == list(kept.values())
assert [format_bytes(k) for k in kept.values()] == [
    "7.29 MiB",
    "3.79 MiB",
    "46.1 MiB",
]
assert f"{kinds['NiN']['ReLU results'] / kept['nin']:.0%}" == "80%"
assert f"{kinds['NiN']['places of maxima'] / kept['nin']:.0%}" == "12%"
assert f"{kinds['VGG-11']['places of maxima'] / kept['vgg11']:.0%}" == "25%"
assert f"{kept['nin'] / kept['alexnet']:.1f} times" == "1.9 times"
assert f"{parameters['alexnet'] // parameters['nin']} times" == "23 times"

# %% count-peak-code
assert [cost.macs for cost in costs.values()] == list(macs.values())
assert [cost.parameters for cost in costs.values()] == list(parameters.values())
assert format_count(macs["nin"]) == "762 M"
assert [format_bytes(b) for b in training.values()] == [
    "980 MiB",
    "864 MiB",
    "6.80 GiB",
]
assert [format_bytes(b) for b in prediction.values()] == [
    "305 MiB",
    "476 MiB",
    "3.57 GiB",
]
assert f"{training['nin'] / training['alexnet'] - 1:.0%}" == "13%"
assert [
    macs["nin"] < macs["alexnet"],
    prediction["nin"] < prediction["alexnet"],
] == [True, True]
assert training["nin"] > training["alexnet"]
per_image = [liveness.envelope(events)[-1].bytes_per_image for events in use_events.values()]
assert per_image[0] == per_image[1] == 4 * (224 * 224 + 2 * 96 * 54 * 54 + 10)
assert format_bytes(per_image[0]) == "2.33 MiB"
assert liveness.crossing(train_events["nin"], train_events["alexnet"]) == 96

# %% measure-kept-code
assert (f"{expected:,}", f"{measured:,}") == ("61,193,028", "61,423,428")
assert f"{measured - expected:,}" == "230,400"
pools = [c for c in formulas.layer_costs(networks["nin"]) if c.kind == "MaxPool2d"]
dropped = len(images) * math.prod(pools[-1].output_shape)
assert measured - expected == 3 * dropped
assert f"{dropped:,}" == "76,800"
assert f"{(measured - expected) / expected:.1%}" == "0.4%"
assert formulas.saved_bytes(networks["nin"], 2) - 2 * kept["nin"] == -4

# %% measure-torchvision-code
assert published["num_params"] == formulas.parameters(narrow) == 61_100_840
assert published["_ops"] == round(formulas.macs(narrow) / 1e9, 3) == 0.714
assert f"{published['_ops']}" == "0.714"
assert f"{formulas.macs(narrow):,}" == "714,188,480"
assert f"{2 * formulas.macs(narrow) / 1e9:.2f}" == "1.43"

# %% conclusion-text
stem = next(c for c in formulas.layer_costs(networks["nin"]) if c.name == "block1.conv1")
values = math.prod(stem.output_shape)
assert f"{values:,}, {stem.macs + values:,}, {stem.macs:,}" == "279,936, 34,152,192, 33,872,256"
convolutions = [c for c in formulas.layer_costs(networks["nin"]) if c.kind == "Conv2d"]
assert len(convolutions) == 12
assert (
    sum(c.output_shape[0] * c.output_shape[1] * c.output_shape[2] for c in convolutions) == outputs
)

# %% exercise-indices
pooled = sum(math.prod(pool.output_shape) for pool in pools)
assert f"{pooled:,}, {8 * pooled:,}, {7 * pooled:,}" == "111,360, 890,880, 779,520"
assert 8 * pooled == kinds["NiN"]["places of maxima"]
assert [pool.output_shape for pool in pools] == [(96, 26, 26), (256, 12, 12), (384, 5, 5)]
assert format_bytes(7 * pooled * batch) == "95.2 MiB"
assert f"{7 * pooled * batch / training['nin']:.2f}" == "0.10"

# %% exercise-phone
phone = device("phone_512mb").memory_bytes
matrix = next(c for c in formulas.layer_costs(networks["vgg11"]) if c.kind == "Linear")
assert matrix.macs == 25088 * 4096
assert format_bytes(4 * matrix.macs) == "392 MiB"
assert f"{phone / 10**6:.0f} MB" == "512 MB"
assert f"{parameters['vgg11']:,}" == "128,806,154"
assert f"{4 * parameters['vgg11'] / 10**6:.0f} MB" == "515 MB"
assert 4 * parameters["vgg11"] > phone
assert f"{4 * parameters['nin'] / 10**6:.2f} MB, {per_image[0]:,}" == "7.97 MB, 2,440,232"
assert liveness.largest_batch(use_events["nin"], phone) == 206
assert liveness.largest_batch(use_events["vgg11"], phone) == 0
assert f"{2 * parameters['vgg11'] / phone:.0%}" == "50%"

# %% exercise-own
resnet = resources.profile("torchvision.models:resnet18", (3, 224, 224), batch_size=32)
assert format_shape(resnet.input_shape) == "3x224x224"
assert str(resnet.batch_size) == "32"
assert format_count(resnet.parameters) == "11.7 M"
assert format_count(resnet.macs) == "1.81 G"
assert format_bytes(resnet.training.tensor_peak_bytes) == "743 MiB"
assert format_bytes(resnet.inference.tensor_peak_bytes) == "259 MiB"
assert format_bytes(resnet.saved_bytes) == "677 MiB"
assert str(batch) == "128"
assert batch == 4 * resnet.batch_size
fewer = training["nin"] / resnet.training.tensor_peak_bytes
assert fewer > 1
assert f"{4 / fewer:.1f} times" == "3.0 times"
assert not resnet.unsupported_operators
