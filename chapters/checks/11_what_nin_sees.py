# The numbers of 11_what_nin_sees, proved: each part runs behind the cell that it names.

# %% hidden-imports
from ninlab.architectures import architecture
from ninlab.formulas import layer_costs

# %% check-count
assert all(found.shape == (1000, 10, 2, 2) for found in maps)
assert len(test) == 1_000
assert f"{len(networks)} runs" == "5 runs"
assert f"{len({run.seed for run in trained})} seeds" == "5 seeds"
num_classes = architecture("nin_28").num_classes
assert f"{num_classes} classes" == "10 classes"
assert f"{28}×{28}" == "28×28"
shapes = {c.name: c.output_shape for c in layer_costs(architecture("nin_28"))}
assert shapes["classes.conv3"] == (10, 2, 2)
with torch.no_grad():
    scores = networks[0](test.images.float() / 255)
assert torch.allclose(scores, maps[0].mean((2, 3)), atol=1e-5)
of_right = [bool(right[0][i]) for i in examples]
assert of_right == sorted(of_right, reverse=True)
assert f"{sum(of_right)} rows" == "2 rows"
(_, named_map, true_map) = rows[2]
lead = torch.tensor(true_map.values) > torch.tensor(named_map.values)
assert lead.tolist() == [[True, False], [False, False]]

# %% check-cells
shares_alone = [count / 5000 for count in alone.values()]
assert f"{together['the mean of all four'] / 5000:.0%}" == "84%"
assert f"{min(shares_alone):.0%} {max(shares_alone):.0%}" == "57% 71%"
assert 5 * len(test) == 5_000
assert f"{100 * together['the mean of all four'] / 5000:.0f} of {100}" == "84 of 100"

# %% halves
means = [sum(upper) / len(upper), sum(lower) / len(lower)]
assert [f"{share:.0%}" for share in means] == ["53%", "49%"]
both = upper + lower
assert f"{min(both):.0%} {max(both):.0%}" == "39% 68%"
assert f"{0.5:.0%}" == "50%"

# %% hidden-patches
assert f"{-min(map(min, lost)):.0f}" == "22"
middle = [lost[y][x] for y in (1, 2) for x in (1, 2)]
outside = [lost[y][x] for y in (0, 3) for x in (0, 3)]
assert min(middle) == min(map(min, lost))
assert min(outside) > max(middle)
assert f"{-min(outside):.0f}" == "3"
assert sum(len(line) for line in kept) == 16

# %% hidden-canvas
own = {
    corner: shares[corner].reshape(2, 2, 2, 2).sum((1, 3))[at[1] // 28, at[0] // 28].item()
    for corner, at in corners.items()
}
named = {corner: sum(hit for _, hit in results) / len(results) for corner, results in found.items()}
assert f"{min(own.values()):.0%} {max(own.values()):.0%}" == "53% 68%"
assert min(own.values()) > 0.5
assert max(named, key=named.get) == "upper left"
assert min(named, key=named.get) == "lower right"
ends = (named["upper left"], named["lower right"])
assert [f"{share:.0%}" for share in ends] == ["49%", "18%"]
assert f"{1 / 4:.0%}" == "25%"
assert f"{56}×{56}" == "56×56"
assert 2 * 28 == 56
assert len(shares["upper left"].flatten()) == 16
assert 97 > 56

# %% limits
(epochs,) = {run.recipe.epochs for run in trained}
assert f"{epochs} epochs" == "5 epochs"
full = {c.name: c.output_shape for c in layer_costs(architecture("nin_fixed"))}
assert full["classes.conv3"] == (10, 5, 5)

# %% ex-mean
assert sum((4, -2, 1, 1)) / 4 == 1
assert f"{sum((1, 1, 2, 1)) / 4}" == "1.25"

# %% ex-canvas
sides = [class_maps(networks[0], torch.zeros(1, 1, s, s)).shape[-1] for s in (28, 56, 112)]
assert sides == [2, 4, 7]
assert [f"{s}×{s}" for s in (28, 56, 112)] == ["28×28", "56×56", "112×112"]
assert [side**2 for side in sides] == [4, 16, 49]
assert (28, 14, 7, 4, 2)[1] == 14
assert 112 == 2 * 56

# %% ex-agree
agreed = torch.stack(
    [
        (found.argmax(1) == guess[:, None, None]).flatten(1).all(1)
        for found, guess in zip(maps, guesses, strict=True)
    ]
)
hits = torch.stack(right)
three_shares = [agreed, hits[agreed], hits[~agreed]]
assert [f"{t.float().mean():.0%}" for t in three_shares] == [
    "39%",
    "94%",
    "78%",
]
assert hits.numel() == 5_000
