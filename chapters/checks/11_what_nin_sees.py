# The numbers of 11_what_nin_sees, proved: each part runs behind the cell that it names.

# %% setup
from ninlab.architectures import architecture
from ninlab.formulas import layer_costs
from ninlab.shapes import receptive_field
from ninlab.units import format_shape

torch.set_num_threads(1)

# %% maps
assert all(found.shape == (1000, 10, 2, 2) for found in maps)
assert len(test) == 1_000
assert f"{len(networks)} runs" == "5 runs"
assert f"{len({run.seed for run in trained})} seeds" == "5 seeds"
num_classes = architecture("nin_28").num_classes
assert f"{num_classes} classes" == "10 classes"
assert format_shape(architecture("nin_28").input_shape) == "1x28x28"
shapes = {c.name: c.output_shape for c in layer_costs(architecture("nin_28"))}
assert shapes["classes.conv3"] == (10, 2, 2)
with torch.no_grad():
    scores = networks[0](test.images.float() / 255)
assert torch.allclose(scores, maps[0].mean((2, 3)), atol=1e-5)

# %% fig-maps
of_right = [bool(correct[i]) for i in examples]
assert of_right == sorted(of_right, reverse=True)
assert f"{sum(of_right)} rows" == "2 rows"
(_, named_map, true_map) = rows[2]
lead = torch.tensor(true_map.values) > torch.tensor(named_map.values)
assert lead.tolist() == [[True, False], [False, False]]

# %% alone
shares_alone = [count / 5000 for count in alone.values()]
by_mean = answers["the mean of all four"] / 5000
assert f"{by_mean:.0%}" == "84%"
assert f"{min(shares_alone):.0%} {max(shares_alone):.0%}" == "57% 71%"
assert len(networks) * len(test) == 5_000
for guess, four in zip(guesses, maps, strict=True):
    single = (four.argmax(1) == test.labels[:, None, None]).float()
    assert (guess == test.labels).float().mean() > single.mean(0).max()

# %% halves
means = [sum(upper) / len(upper), sum(lower) / len(lower)]
assert [f"{share:.0%}" for share in means] == ["53%", "49%"]
both = upper + lower
assert f"{min(both):.0%} {max(both):.0%}" == "39% 68%"

# %% fig-patches
assert f"{-min(map(min, lost)):.0f}" == "22"
inner = [lost[y][x] for y in (1, 2) for x in (1, 2)]
outside = [lost[y][x] for y in (0, 3) for x in (0, 3)]
assert min(inner) == min(map(min, lost))
assert min(outside) > max(inner)
assert f"{-min(outside):.0f}" == "3"
assert sum(len(line) for line in kept) == 16

# %% fig-canvas
own = {
    place: shares[place].reshape(2, 2, 2, 2).sum((1, 3))[at[1] // 28, at[0] // 28].item()
    for place, at in places.items()
}
named = {place: sum(hit for _, hit in results) / len(results) for place, results in moved.items()}
assert f"{min(own.values()):.0%} {max(own.values()):.0%}" == "53% 68%"
assert min(own.values()) > 0.5
assert max(named, key=named.get) == "upper left"
assert min(named, key=named.get) == "lower right"
ends = (named["upper left"], named["lower right"])
assert [f"{share:.0%}" for share in ends] == ["49%", "18%"]
assert f"{1 / len(places):.0%}" == "25%"
canvas = on_canvas(test.images[:1], 56, right=0, down=0)
assert format_shape(tuple(canvas.shape[1:])) == "1x56x56"
assert len(shares["upper left"].flatten()) == 16
field = receptive_field(architecture("nin_28"))
assert field == 97
assert field > canvas.shape[-1] == 2 * test.images.shape[-1]  # it reaches over the canvas

# %% limits
(epochs,) = {run.recipe.epochs for run in trained}
assert f"{epochs} epochs" == "5 epochs"
of_full = {c.name: c.output_shape for c in layer_costs(architecture("nin_fixed"))}
assert of_full["classes.conv3"] == (10, 5, 5)

# %% ex-mean
two_maps = torch.tensor([[[[4.0, -2], [1, 1]], [[1, 1], [2, 1]]]])
by_mean = networks[0].globalavgpool1(two_maps).flatten()
by_largest = torch.nn.AdaptiveMaxPool2d(1)(two_maps).flatten()
assert (f"{by_mean[0]:g}", f"{by_mean[1]}") == ("1", "1.25")
assert (int(by_mean.argmax()), int(by_largest.argmax())) == (1, 0)

# %% ex-canvas
sides = [times * test.images.shape[-1] for times in (1, 2, 4)]
assert [f"{side}×{side}" for side in sides] == ["28×28", "56×56", "112×112"]
sides_of_maps = [class_maps(networks[0], torch.zeros(1, 1, s, s)).shape[-1] for s in sides]
assert sides_of_maps == [2, 4, 7]
assert [side**2 for side in sides_of_maps] == [4, 16, 49]
steps_down = [
    c.output_shape[1] for c in layer_costs(architecture("nin_28")) if c.name[-5:] == "conv1"
]
assert steps_down[0] == 14

# %% ex-agree
agreed = torch.stack(
    [
        (found.argmax(1) == guess[:, None, None]).flatten(1).all(1)
        for found, guess in zip(maps, guesses, strict=True)
    ]
)
hits_of_all = torch.stack([guess == test.labels for guess in guesses])
three_shares = [agreed, hits_of_all[agreed], hits_of_all[~agreed]]
assert [f"{t.float().mean():.0%}" for t in three_shares] == [
    "39%",
    "94%",
    "78%",
]
assert hits_of_all.numel() == 5_000
