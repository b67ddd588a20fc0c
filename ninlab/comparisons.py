"""Is the difference between two groups of runs more than the luck of their seeds?

A group is the runs of one row of a plan, one a seed. `summary` says how the group ended;
`difference` says how far two groups lie apart and how well that is known; `share` says how often
something happened, and how well that is known; `gaps` and `gap_difference` ask the same of
overfitting. An interval that holds 0 means that these runs show no difference, not that there is
none: whether they show that there is none that matters is what `equivalence` tests, against a
margin that was stated before. `interaction` asks whether what one change does hangs on another.
`conditions`, `effects` and `in_words` say the same of several groups, as a heading, a table and a
paragraph, whatever was recorded.

Runs that diverged, got stuck or relapsed have failed (`relapses.failed`). They are counted and
named, never averaged in: the mean of runs that learned and of one that did not describes neither.
So a design has two answers, where its runs end if they hold and how often they do, which
`share_of_failures` gives and `shares_differ` compares.

A group's runs have their kernels in common, for kernels add in orders of their own; where groups
differ in them, headings and labels say so. Runs that trained on a part of the images are neither
averaged with those of all nor tested against them.

Known limits: the interval is that of the seeds alone; all runs see the same test images, whose
choice adds `sampling_error`. Where runs failed, it is that of the runs that held. The intervals
of one table, panel or paragraph hold together, by `confidence_of_each`; `difference` by itself
knows nothing of other comparisons, and nothing corrects for a reader who looks at many tables.
Accuracies are taken to spread as a normal distribution does.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from math import sqrt
from typing import NamedTuple, TypeVar

from ninlab.devices import of_cuda_name
from ninlab.errors import NinlabError, quoted
from ninlab.records import Outcome, RunRecord
from ninlab.relapses import ending, failed, held
from ninlab.steps import Kernels

CONFIDENCE = 0.95

MARGIN = 0.01
"""By how much accuracies may differ and count as equal: a point, three times the sampling error of
10,000 test images at 90 %."""

Groups = Mapping[str, Sequence[RunRecord]]
"""The runs of each label; all others are compared with the first."""

Label = TypeVar("Label")


@dataclass(frozen=True)
class Summary:
    """How one group of runs ended: test accuracy after the last epoch, of those that held.

    mean, least and greatest are None where none held, deviation where fewer than two did.
    """

    runs: int
    failed: int  # diverged, stuck or relapsed; in no accuracy
    mean: float | None
    least: float | None
    greatest: float | None
    deviation: float | None  # between seeds, with n - 1

    @property
    def held(self) -> int:
        """How many runs the accuracies are of."""
        return self.runs - self.failed

    def __str__(self) -> str:
        of = f" of {self.runs}" if self.failed else ""
        if self.mean is None:
            return f"none held (n = 0{of})"
        spread = f"{self.least:.1%} to {self.greatest:.1%}, " if self.held > 1 else ""
        return f"{self.mean:.1%} ({spread}n = {self.held}{of})"


class Verdict(StrEnum):
    """What an interval shows. It never turns "not shown" into "equal"."""

    EQUAL = "equal"  # all of it lies within a margin, 0 in it or not
    GAIN = "a gain"
    LOSS = "a loss"
    NOT_SHOWN = "not shown"
    NOT_TESTED = "not tested"  # for want of a second run

    def within(self, margin: float) -> str:
        """The verdict for a reader, with the margin that it was made with: equal within 1 point."""
        if self is not Verdict.EQUAL:
            return str(self)
        points = f"{100 * margin:g}"
        return f"{self} within {points} {'point' if points == '1' else 'points'}"


@dataclass(frozen=True)
class Difference:
    """Mean accuracy of one group less that of another, with its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> Verdict:
        """What the interval shows without a margin: a gain or a loss; nothing where it holds 0."""
        if not self.shown:
            return Verdict.NOT_SHOWN
        return Verdict.GAIN if self.mean > 0 else Verdict.LOSS

    def verdict_within(self, margin: float) -> Verdict:
        """What the interval shows by a margin: equal where all of it lies within.

        So a gain that is too small to matter counts as equal. Raises NinlabError for a margin that
        is not between 0 and 1.
        """
        check_margin(margin)
        is_equal = -margin < self.low and self.high < margin
        return Verdict.EQUAL if is_equal else self.verdict

    def __str__(self) -> str:
        """In points: hundredths of accuracy."""
        mean, low, high = (
            f"{round(100 * share, 1) or 0.0:+.1f}" for share in (self.mean, self.low, self.high)
        )
        return f"{mean} ({low} to {high})"


@dataclass(frozen=True)
class Equivalence:
    """Whether two groups differ by less than a margin, by their difference and its interval.

    p_value is that of the two one-sided tests: how probable runs like these are at most where the
    groups differ by the margin or more.
    """

    difference: Difference
    margin: float
    p_value: float

    @property
    def verdict(self) -> Verdict:
        """What the interval shows by the margin."""
        return self.difference.verdict_within(self.margin)

    def __str__(self) -> str:
        return f"{self.difference}: {self.verdict.within(self.margin)}"


@dataclass(frozen=True)
class Share:
    """How many of some runs something is true of, with the interval of its true share."""

    count: int
    of: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.count} of {self.of} ({self.low:.0%} to {self.high:.0%})"


def summary(runs: Sequence[RunRecord]) -> Summary:
    """How the runs ended. Raises NinlabError without a run, as `kernels_of` and `images_of` do."""
    if not runs:
        raise NinlabError("no run was given; a group needs at least one")
    accuracies = held_accuracies(runs)
    return Summary(
        runs=len(runs),
        failed=len(runs) - len(accuracies),
        mean=statistics.fmean(accuracies) if accuracies else None,
        least=min(accuracies, default=None),
        greatest=max(accuracies, default=None),
        deviation=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
    )


def share(holds: Iterable[bool], confidence: float = CONFIDENCE) -> Share:
    """In how many of some cases something holds, with the exact interval of the true share.

    Source: Clopper1934; the interval is never narrower than its confidence.
    Raises NinlabError without a case, and for a confidence that is not between 0 and 1.
    """
    from scipy import stats

    _check_confidence(confidence)
    cases = list(holds)
    if not cases:
        raise NinlabError("a share needs at least one case")
    interval = stats.binomtest(sum(cases), len(cases)).proportion_ci(confidence, method="exact")
    return Share(sum(cases), len(cases), float(interval.low), float(interval.high))


def share_of_failures(runs: Iterable[RunRecord], confidence: float = CONFIDENCE) -> Share:
    """In how many of the runs training failed. Raises NinlabError as `share` does."""
    return share(map(failed, runs), confidence)


def shares_differ(ours: Share, theirs: Share) -> float:
    """How probable shares as unlike as these are, or more so, where the true shares are the same.

    The p-value of Fisher's exact test, of both sides. Source: R. A. Fisher, Statistical Methods for
    Research Workers (1934), section 21.02.
    """
    from scipy import stats

    table = [[one.count, one.of - one.count] for one in (ours, theirs)]
    return float(stats.fisher_exact(table).pvalue)


def difference(
    runs: Sequence[RunRecord], baseline: Sequence[RunRecord], confidence: float = CONFIDENCE
) -> Difference:
    """How much more accurate the runs are than the baseline, of those that held.

    The interval is Welch's, which lets the groups spread differently, as far as accuracies can
    differ at all. Source: Welch1947.
    Raises NinlabError when a group has fewer than two runs that held, for one run has no spread,
    for a confidence that is not between 0 and 1, and as `images_of` does for all runs together.
    """
    images_of([*runs, *baseline])
    return _welch(held_accuracies(runs), held_accuracies(baseline), confidence, limit=1.0)


def gaps(runs: Sequence[RunRecord]) -> list[float]:
    """Training less test accuracy after the last epoch, of each run that held.

    Large where a network overfits. Training images are judged before each step of the epoch and
    with dropout on, test images after it: of a network that does not overfit it may be below 0.
    Raises NinlabError as `kernels_of` and `images_of` do.
    """
    kernels_of(runs)
    images_of(runs)
    return [run.last.train_accuracy - run.last.test_accuracy for run in held(runs)]


def gap_difference(
    runs: Sequence[RunRecord], baseline: Sequence[RunRecord], confidence: float = CONFIDENCE
) -> Difference:
    """How much larger the `gaps` of the runs are than those of the baseline.

    The interval is that of `difference`, and so are the errors.
    """
    images_of([*runs, *baseline])
    return _welch(gaps(runs), gaps(baseline), confidence, limit=2.0)


def equivalence(
    runs: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
) -> Equivalence:
    """Whether the runs end as the baseline does, to within a margin of accuracy.

    Of those that held. Two one-sided tests, with Welch's standard error, ask whether the groups
    differ by less than the margin up and down. Both must reject at half of what the confidence
    leaves: just then the whole interval lies within the margin, so that one interval decides
    whether the groups are equal, one gains, or nothing is shown. That is stricter than the usual
    choice, by which each test has a level of 5 % and the interval of 90 % decides.

    Sources: Schuirmann1987; with unequal spreads: Welch1947.
    Raises NinlabError when a group has fewer than two runs that held, for a margin or a confidence
    that is not between 0 and 1, and as `images_of` does for all runs together.
    """
    images_of([*runs, *baseline])
    contrast = _contrast((1, held_accuracies(runs)), (-1, held_accuracies(baseline)))
    found = contrast.interval(confidence, limit=1.0)
    check_margin(margin)
    return Equivalence(found, margin, contrast.chance_beyond(margin))


def interaction(
    *,
    both: Sequence[RunRecord],
    first: Sequence[RunRecord],
    second: Sequence[RunRecord],
    neither: Sequence[RunRecord],
    confidence: float = CONFIDENCE,
) -> Difference:
    """How much more a first change gains where a second one was made than where it was not.

    Of the runs with both changes, with one of them and without any, those that held. Above 0 the
    changes help one another; with the other sign they stand in each other's way. The interval is
    Welch's for a sum of four means, which may all spread differently. Source: Welch1947.
    Raises NinlabError as `difference` does, of the runs that held.
    """
    images_of([*both, *first, *second, *neither])
    corners = ((1, both), (-1, second), (-1, first), (1, neither))
    contrast = _contrast(*((weight, held_accuracies(runs)) for weight, runs in corners))
    return contrast.interval(confidence, limit=2.0)


def _welch(
    ours: Sequence[float], theirs: Sequence[float], confidence: float, limit: float
) -> Difference:
    """The difference of two means with Welch's interval, cut where no difference can lie."""
    return _contrast((1, ours), (-1, theirs)).interval(confidence, limit)


@dataclass(frozen=True)
class _Contrast:
    """A sum of weighted means, its standard error, and Student's degrees of freedom."""

    mean: float
    error: float  # 0 where no sample spreads; the degrees then mean nothing
    degrees: float

    def interval(self, confidence: float, limit: float) -> Difference:
        """The sum with its interval, cut at what it cannot exceed either way."""
        # scipy takes its time to import, which readers of counts need not wait for
        from scipy.special import stdtrit

        _check_confidence(confidence)
        if not self.error:
            return Difference(self.mean, self.mean, self.mean)
        half = float(stdtrit(self.degrees, (1 + confidence) / 2)) * self.error
        # What lies beyond what the values can differ by covers nothing.
        return Difference(self.mean, max(self.mean - half, -limit), min(self.mean + half, limit))

    def chance_beyond(self, margin: float) -> float:
        """The p-value of two one-sided tests that the true sum lies within the margin."""
        from scipy.special import stdtr

        if not self.error:
            return 0.0 if abs(self.mean) < margin else 1.0
        # Of the two, the test on the side where the mean lies rejects less.
        return float(stdtr(self.degrees, (abs(self.mean) - margin) / self.error))


def _contrast(*weighted: tuple[int, Sequence[float]]) -> _Contrast:
    """The sum of the samples' means, each with its weight. Source: Welch1947.

    Raises NinlabError for a sample of fewer than two.
    """
    counts = [len(sample) for _, sample in weighted]
    if min(counts) < 2:
        *some, last = map(str, counts)
        raise NinlabError(
            "a difference needs at least two runs of each group that did not fail, not "
            f"{', '.join(some)} and {last}"
        )
    squared = [weight**2 * statistics.variance(s) / len(s) for weight, s in weighted]
    total = sum(squared)
    return _Contrast(
        mean=sum(weight * statistics.fmean(sample) for weight, sample in weighted),
        error=sqrt(total),
        degrees=total**2 / sum(one**2 / (n - 1) for one, n in zip(squared, counts, strict=True))
        if total
        else 0.0,
    )


# ---------------------------------------------------------------- several groups, for a reader


class Scale(NamedTuple):
    """What runs have in common that may stand in one table."""

    side: int  # of an image
    device_slug: str
    train_images: int | None  # None for all images of the split

    def __str__(self) -> str:
        images = "" if self.train_images is None else f" with {self.train_images:,} images"
        return f"{self.side}x{self.side} on {self.device_slug}{images}"


def scale_of(runs: Sequence[RunRecord]) -> Scale:
    """The scale at which all of the runs were made.

    Raises NinlabError without runs, and for runs of several scales, which no list, table or mean
    may mix: between two scales more changes than the network.
    """
    scales = {Scale(*run.scale, run.recipe.train_images) for run in runs}
    if len(scales) != 1:
        listed = " and ".join(sorted(map(str, scales)))
        raise NinlabError(f"runs of one scale belong together, not of {listed or 'none'}")
    return scales.pop()


def images_of(runs: Sequence[RunRecord]) -> int | None:
    """To how many training images the recipe limits all of the runs; None for no limit or no run.

    Raises NinlabError for runs of several limits: a network that sees fewer images is worse for
    that alone.
    """
    found = {run.recipe.train_images for run in runs}
    if len(found) > 1:
        listed = sorted("all" if images is None else f"{images:,}" for images in found)
        raise NinlabError(
            f"runs that are averaged or compared train on as many images, but those of "
            f"{runs[0].experiment}/{runs[0].name} and of what they stand with on "
            f"{' and on '.join(listed)}; make a group of each, and compare within them"
        )
    return found.pop() if found else None


def kernels_of(runs: Sequence[RunRecord]) -> Kernels:
    """Whose kernels computed all of the runs of one group; torch's, of no run.

    Raises NinlabError for runs of several: they add in other orders and take other times, so that
    no mean, spread or time is of all of them.
    """
    found = sorted({run.recipe.kernels for run in runs})
    if len(found) > 1:
        raise NinlabError(
            f"the runs of a group share their kernels, but those of {runs[0].experiment}/"
            f"{runs[0].name} were made by {' and by '.join(found)}; make a group of each"
        )
    return found[0] if found else Kernels.TORCH


def told_apart(
    groups: Groups, among: Iterable[Groups] = (), *, rates: bool = True
) -> dict[str, Sequence[RunRecord]]:
    """The same groups, with rate and kernels in the label where they are not those of most groups.

    Of most of these groups, or of all that among holds, where several stand under one heading. What
    `conditions` states of them is then true of every row that names nothing else. A label that
    names its rate or its kernels already does not say so twice. Without rates only kernels are
    named: no rate changes a time. Raises NinlabError as `kernels_of`, and where two groups would
    have one label.
    """
    if not groups:
        return {}
    all_groups = [*chain.from_iterable(part.values() for part in [*among] or [groups])]
    usual = {*_rates(all_groups)[:1], _kernels(all_groups)[0]}
    found: dict[str, Sequence[RunRecord]] = {}
    for label, group in groups.items():
        clear = label
        for own, said in _named(group, rates).items():
            if own not in usual and f"{said}," not in f"{clear},":
                clear += said
        if clear in found:
            raise NinlabError(f"two groups would have the label {quoted(clear)}; rename one")
        found[clear] = group
    return found


def _named(group: Sequence[RunRecord], rates: bool) -> dict[str, str]:
    """Rate, if rates are asked for, and kernels of a group, and what a label says of each."""
    kernels = kernels_of(group)
    named = {rate: f", {rate}" for rate in _rates([group])} if rates else {}
    return named | {kernels: _said(kernels)}


def by_kernels(
    groups: Mapping[Label, Iterable[RunRecord]],
) -> dict[tuple[Label, str], list[RunRecord]]:
    """The runs of each group by their kernels, under its label and what is to be said behind it.

    That is ``, fused kernels``, and empty for torch's, or where all runs have the same kernels.
    """
    kinds = {run.recipe.kernels for group in groups.values() for run in group}
    found: dict[tuple[Label, str], list[RunRecord]] = {}
    for label, group in groups.items():
        for run in group:
            kernels = run.recipe.kernels
            goes_without = len(kinds) == 1 or kernels is Kernels.TORCH
            found.setdefault((label, "" if goes_without else _said(kernels)), []).append(run)
    return found


def _said(kernels: Kernels) -> str:
    """What a label says of kernels, behind its name."""
    return f", {kernels} kernels"


def by_scale(groups: Groups) -> list[dict[str, Sequence[RunRecord]]]:
    """The groups of each scale, scales and groups in the order given.

    Raises NinlabError for a group that `scale_of` refuses.
    """
    parts: dict[Scale, dict[str, Sequence[RunRecord]]] = {}
    for label, runs in groups.items():
        parts.setdefault(scale_of(runs), {})[label] = runs
    return list(parts.values())


def conditions(groups: Groups) -> str:
    """What the runs of one scale have in common, for the heading of a panel or a table.

    As in ``224×224: H100, bf16, rate 0.05, 10 epochs, one seed``; kernels are named where any are
    not torch's, and the number of training images where a recipe limits it. Where groups ran at
    several learning rates or by several kernels, those of most groups stand, and a row has to name
    its own, as `told_apart` makes it. Raises NinlabError as `scale_of` and `kernels_of`.
    """
    runs = list(chain.from_iterable(groups.values()))
    side, slug, images = scale_of(runs)
    rate, *others = _rates(groups.values())
    kernels, *other_kernels = _kernels(groups.values())
    named = f"{kernels} kernels" + (" if no row names others" if other_kernels else "")
    return ", ".join(
        [
            f"{side}×{side}: {'CPU' if slug == 'cpu' else device_name(runs[0])}",
            " and ".join(sorted({str(run.recipe.precision) for run in runs})),
            *([named] if other_kernels or kernels is not Kernels.TORCH else []),
            rate + (" if no row names another" if others else ""),
            _from_to([run.recipe.epochs for run in runs], "epoch")
            + (f" of {images:,} images" if images is not None else ""),
            _from_to([len(group) for group in groups.values()], "seed"),
        ]
    )


def _rates(groups: Iterable[Sequence[RunRecord]]) -> list[str]:
    """The learning rates of the groups in words, that of most of them first."""
    rates = Counter(group[0].recipe.rate_in_words for group in groups if group)
    return [rate for rate, _ in rates.most_common()]


def _kernels(groups: Iterable[Sequence[RunRecord]]) -> list[Kernels]:
    """The kernels of the groups, those of most of them first."""
    return [kernels for kernels, _ in Counter(map(kernels_of, groups)).most_common()]


def device_name(run: RunRecord) -> str:
    """What the book calls the device of a run: ``H100`` where a data sheet knows it."""
    known = of_cuda_name(run.device.name)
    return known.name.upper() if known else run.device.name


def _from_to(counts: Sequence[int], what: str) -> str:
    fewest, most = min(counts), max(counts)
    if most == 1:
        return f"one {what}"
    return f"{fewest} {what}s" if fewest == most else f"{fewest} to {most} {what}s"


def failures(runs: Sequence[RunRecord]) -> str:
    """How many of the runs failed in which way: ``1 diverged, 2 relapsed``; empty if none did."""
    how = Counter(ending(run) for run in runs if failed(run))
    return ", ".join(f"{count} {one}" for one, count in sorted(how.items()))


_EQUAL = Verdict.EQUAL.within(MARGIN)
_ONE_SEED = "not tested (one seed)"
_ONE_HELD = "not tested (one run held)"
_NONE_HELD = "not tested (no run held)"
_NO_REFERENCE = "not tested (no run of the first row held)"
_NOT_TESTED = {
    _ONE_SEED: "for want of a second seed",
    _ONE_HELD: "as a single run held",
    _NONE_HELD: "as no run held",
    _NO_REFERENCE: "as no run of the first one held",
}
"""What a table says of a row without an interval, and why it has none."""


def effects(
    groups: Groups, confidence: float = CONFIDENCE, among: Iterable[Groups] = ()
) -> dict[str, dict[str, str]]:
    """The rows of a table: how each group of one scale ended, compared with the first group.

    By label: the difference from the first group in points, with its interval; whether that is
    equal within a point, a gain, a loss, not shown, or not tested, and why; the mean accuracy of
    the runs that held; the number of runs and of failures of each kind; in how many runs training
    failed, with the interval of that share. Where the speeds of all runs compare, also the
    milliseconds of a training step. All intervals hold together with that confidence, as do those
    of all parts among which the groups share a table. Labels are told apart by `told_apart`. Empty
    without groups. Raises NinlabError for groups of several scales.
    """
    if not groups:
        return {}
    confidence = confidence_of_rows(*([*among] or [groups]), confidence=confidence)
    groups = told_apart(groups)
    scale_of(list(chain.from_iterable(groups.values())))
    with_times = speeds_compare(chain.from_iterable(groups.values()))
    rows = {}
    for label, group in groups.items():
        ended, how = summary(group), failures(group)
        points, shown = _against_first(group, groups, confidence)
        rows[label] = {
            "points": points,
            "shown": shown,
            "mean": "" if ended.mean is None else f"{ended.mean:.1%}",
            "runs": f"{ended.runs}" + (f", {how}" if how else ""),
            "failed": str(share_of_failures(group)),
        }
        if with_times:
            rows[label]["ms a step"] = f"{1e3 * step_seconds(group):.2f}"
    return rows


def train_loss(runs: Sequence[RunRecord], epoch: int) -> float:
    """The mean training loss of an epoch, 0 the first and -1 the last: the median over the runs.

    Runs that diverged or got stuck are left out; those that relapsed count, for a loss on the way
    is what is asked. Raises NinlabError where none finished.
    """
    losses = [run.epochs[epoch].train_loss for run in runs if run.outcome is Outcome.FINISHED]
    if not losses:
        raise NinlabError("a median loss needs at least one run that finished")
    return statistics.median(loss for loss in losses if loss is not None)


def speeds_compare(runs: Iterable[RunRecord]) -> bool:
    """Whether the speeds of these runs say something of what they trained.

    They do where all were made on one device that each had to itself; of a CPU, by the same
    processor and instructions. The time of a run beside others is that of the load. `races`
    compares networks that took turns.
    """
    found = list(runs)
    return len(_devices(found)) == 1 and all(run.had_its_device for run in found)


def _devices(runs: Iterable[RunRecord]) -> set[tuple[object, ...]]:
    """What sets the speed of a run by itself.

    On a CPU its processor and instructions, too: one name stands for several. A GPU's speed is
    taken to be its own, whatever machine it is in.
    """
    return {
        (
            run.device.name,
            run.device.threads,
            run.host.kernels if run.host is not None and run.device.slug == "cpu" else None,
        )
        for run in runs
    }


def check_speeds(runs: Iterable[RunRecord]) -> None:
    """Raises NinlabError unless `speeds_compare` for these runs."""
    found = list(runs)
    if not speeds_compare(found):
        shared = sum(not run.had_its_device for run in found)
        devices = len(_devices(found))
        reasons = [
            *([f"{shared} shared their CPU with other work, or do not say"] if shared else []),
            *([f"they are of {devices} devices"] if devices > 1 else []),
        ]
        raise NinlabError(
            f"the speeds of these {len(found)} runs do not compare: "
            f"{' and '.join(reasons) or 'there is none'}; let the networks take turns "
            "(benchmarks/race.py)"
        )


def step_seconds(runs: Sequence[RunRecord]) -> float:
    """Seconds of one training step: the median over the runs, each the median of its epochs.

    Raises NinlabError as `kernels_of` and `check_speeds` do.
    """
    kernels_of(runs)
    check_speeds(runs)
    return statistics.median(run.recipe.batch_size / run.images_per_second for run in runs)


def in_words(
    groups: Groups,
    wanted: Iterable[str] = (),
    confidence: float = CONFIDENCE,
    *,
    spread_of: Sequence[RunRecord] = (),
    among: Iterable[Groups] = (),
) -> str:
    """A paragraph that says what the groups of one scale show against the first of them.

    It begins with the conditions, keeps what is shown, equal, not shown and not tested apart, and
    names the runs that failed. Its intervals hold together with that confidence, as do those of all
    parts among which the groups share a table. wanted are the labels that the question asks for:
    those without a run are named as not recorded. spread_of are runs
    of another scale whose seeds tell how far luck may set two single runs apart. Without any group
    it says that there is nothing to compare.
    Raises NinlabError for groups of several scales.
    """
    missing = [label for label in wanted if label not in groups]
    if not groups:
        return "Nothing to compare is recorded yet."
    confidence = confidence_of_rows(*([*among] or [groups]), confidence=confidence)
    groups = told_apart(groups)
    first, *others = groups
    parts = [f"{conditions(groups)}."]
    base = summary(groups[first])
    if base.mean is not None:
        of = f" of {base.runs}" if base.failed else ""
        parts.append(f"{_capitalized(first)} ended at {base.mean:.1%} (n = {base.held}{of}).")
    told: dict[str, list[str]] = {}
    for label in others:
        points, shown = _against_first(groups[label], groups, confidence)
        apart, space, interval = points.partition(" ")
        ended = summary(groups[label]).mean
        if apart:
            label = f"{label}, {apart} points{space}{interval}"
        elif ended is not None:  # where the first group has no mean
            label = f"{label}, at {ended:.1%}"
        told.setdefault(shown, []).append(label)
    for shown in ("a gain", "a loss"):
        if shown in told:
            parts.append(f"Against that, the runs show {shown} for {_listed(told[shown])}.")
    if _EQUAL in told:
        parts.append(f"{_capitalized(_EQUAL)}: {_listed(told[_EQUAL])}.")
    if "not shown" in told:
        parts.append(f"They do not show a difference for {_listed(told['not shown'])}.")
    parts += [
        f"Not tested, {reason}: {_listed(told[why])}."
        for why, reason in _NOT_TESTED.items()
        if why in told
    ]
    how = {label: failures(group) for label, group in groups.items()}
    if any(how.values()):
        named = (f"{label} ({how[label]} of {len(groups[label])})" for label in how if how[label])
        parts.append(f"Failed, and in no mean: {_listed(named)}.")
    if _ONE_SEED in told and spread_of and (spread := summary(spread_of).deviation):
        parts.append(
            f"If seeds spread as those of the {spread_of[0].input_shape[-1]}×"
            f"{spread_of[0].input_shape[-1]} network, by {100 * spread:.1f} points, luck alone may "
            f"set two single runs {100 * 1.96 * sqrt(2) * spread:.0f} points apart. A smaller "
            "distance between them shows nothing."
        )
    if missing:
        parts.append(f"Not recorded yet: {_listed(missing)}.")
    return " ".join(parts)


def gaps_in_words(groups: Groups, confidence: float = CONFIDENCE) -> str:
    """Sentences on who overfits: the mean of the `gaps` of each group, against the first one's.

    The intervals hold together with that confidence. Where a single run of a group held, its
    distance is not tested, and the sentence says so. Empty where no run held.
    """
    found = {label: runs for label, runs in told_apart(groups).items() if gaps(runs)}
    if not found:
        return ""
    means = [f"{label}, {_points(statistics.fmean(gaps(runs)))}" for label, runs in found.items()]
    words = [f"Training less test accuracy, in points: {_listed(means)}."]
    confidence = confidence_of_rows(found, confidence=confidence)
    first, *others = found
    for label in others:
        if min(len(gaps(found[label])), len(gaps(found[first]))) < 2:
            words.append(f"Not tested, for want of a second run: {label} against {first}.")
            continue
        apart = gap_difference(found[label], found[first], confidence)
        verdict = "a difference is shown" if apart.shown else "a difference is not shown"
        distance = str(apart).replace("-", "\N{MINUS SIGN}")
        words.append(f"{_capitalized(label)} against {first}: {distance}, {verdict}.")
    return " ".join(words)


def _points(share: float) -> str:
    return f"{round(100 * share, 1) or 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(parts: Iterable[str]) -> str:
    return "; ".join(parts)


def _against_first(
    group: Sequence[RunRecord], groups: Groups, confidence: float
) -> tuple[str, str]:
    """The difference from the first group in points, and what it shows; nothing of itself."""
    first = next(iter(groups.values()))
    if group is first:
        return "", ""
    ours, theirs = held_accuracies(group), held_accuracies(first)
    if min(len(ours), len(theirs)) > 1:
        apart = difference(group, first, confidence)
        points, shown = str(apart), apart.verdict_within(MARGIN).within(MARGIN)
    elif ours and theirs:
        points = f"{100 * (statistics.fmean(ours) - statistics.fmean(theirs)):+.1f}"
        shown = _ONE_SEED if min(len(group), len(first)) == 1 else _ONE_HELD
    else:
        points, shown = "", _NO_REFERENCE if ours else _NONE_HELD
    return points.replace("-", "\N{MINUS SIGN}"), shown


def confidence_of_each(comparisons: int, confidence: float = CONFIDENCE) -> float:
    """The confidence of each of several intervals with which all hold at once with the given one.

    Their chances to miss add up at most; each gets an equal part of what is left (Bonferroni).
    Raises NinlabError without a comparison, and for a confidence that is not between 0 and 1.
    """
    _check_confidence(confidence)
    if comparisons < 1:
        raise NinlabError(f"a confidence is shared by at least one comparison, not {comparisons}")
    return 1 - (1 - confidence) / comparisons


def confidence_of_rows(*parts: Groups, confidence: float = CONFIDENCE) -> float:
    """The confidence of each interval with which all those of one table or panel hold at once.

    Each part is compared with its own first group. What counts are the comparisons that can be
    made: of groups of which two runs or more held, where as many of the first one did.
    """
    comparisons = 0
    for part in parts:
        first, *others = [len(held(group)) > 1 for group in part.values()] or [False]
        comparisons += sum(others) if first else 0
    return confidence_of_each(max(comparisons, 1), confidence)


def sampling_error(accuracy: float, images: int) -> float:
    """Standard deviation of an accuracy measured on that many images drawn at random."""
    return sqrt(accuracy * (1 - accuracy) / images)


def held_accuracies(runs: Sequence[RunRecord]) -> list[float]:
    """Test accuracy after the last epoch, of each run that held.

    Raises NinlabError as `kernels_of` and `images_of` do.
    """
    kernels_of(runs)
    images_of(runs)
    return [run.last.test_accuracy for run in held(runs)]


def check_margin(margin: float) -> None:
    """Raises NinlabError for a margin of accuracy that is not between 0 and 1."""
    if not 0 < margin < 1:
        raise NinlabError(
            f"the margin is {margin}, but must be above 0 and below 1, such as {MARGIN}"
        )


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise NinlabError(f"a confidence lies between 0 and 1, as 0.95 does, not {confidence}")
