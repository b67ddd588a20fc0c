# The numbers of gpu_memory, proved: each part runs behind the cell that it names.

# %% summary
from ninlab.devices import device
from ninlab.memory_laws import LAWS, TENSORS, TOLERANCE, without
from ninlab.split_sums import ASSUMED_PROCESSORS

assert len(LAWS) == 9
judged = {group: laws.summary(ALL_LAWS, group, "allocated") for group in groups.values()}
for found in judged.values():
    assert found.right == found.steps  # "often to the byte", and never far off
assert sum(found.exact for found in judged.values()) > sum(f.steps for f in judged.values()) / 2

# %% range
for group in groups.values():
    by_rules = laws.summary(ALL_LAWS, group, "reserved").mean
    assert laws.factor_error(group, "reserved") > 5 * by_rules

# %% rules
assert (ASSUMED_PROCESSORS, device("h100").described["multiProcessorCount"]) == (18, 132)


# %% rules-text
def bought(group, law):
    """By how much the mean error grows without that rule alone."""
    means = [laws.summary(variant, group, "reserved").mean for variant in (without(law), ALL_LAWS)]
    return means[0] - means[1]


bought_by = {group: {law: bought(group, law) for law in LAWS} for group in (OWN, STRANGERS)}
first = {
    group: sorted(list(LAWS)[1:], key=bought_by[group].get, reverse=True)[:2]
    for group in (OWN, STRANGERS)
}
assert set(first[OWN]) == {"products", "late_cublas"}
assert set(first[STRANGERS]) == {"attention", "split_sums"}
assert bought_by[OWN]["attention"] == 0
assert len({s.network for s in laws.of(STRANGERS) if s.network.startswith("vit")}) == 1
rows = list(LAWS)
before, after = (laws.summary(law, STRANGERS, "reserved") for law in rows[-2:])
assert before.mean > after.mean
assert before.exact > after.exact
for group in (OWN, STRANGERS):
    means = [laws.summary(law, group, "reserved").mean for law in (TENSORS, *LAWS)]
    assert max(one / other for one, other in zip(means[1:], means, strict=False)) < 1.1
    assert all(means[-1] < mean for mean in means[:-1])

# %% trace-sentence
assert case.batch_size == 128
assert max(at.traced_bytes for at in moments) == peak
assert max(sum(at.live.values()) for at in moments) == peak
assert abs(worst) < 2**21
assert apart.count(0) > len(apart) / 2
assert -400 in apart
rest = [each for each in apart if each]
assert rest.count(-400) > len(rest) / 2

# %% missed
assert 0 < len(missed) < len(laws.steps) / 3
limit = min(abs(one.error(ALL_LAWS, "reserved")) for one in laws.missed())
assert limit > TOLERANCE
assert f"{TOLERANCE:.0%}" == "1%"
