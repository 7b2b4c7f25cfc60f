"""Groups over several environments, by normalised scores, as Agarwal et al. 2021 (arXiv:2108.13264) ask.

The estimators are rliable's; environments with unlike numbers of seeds weigh the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ppo_cli.report.comparison import Comparison, Summary, unlike
from ppo_cli.report.statistics import (
    ALL_EQUAL,
    FEWEST_FOR_IQM,
    FEWEST_SEEDS,
    TOO_FEW,
    Estimate,
    estimate_improvement,
    expanded_tail,
    probability_of_improvement,
)
from ppo_cli.statistics import CONFIDENCE, RESAMPLES, Floats

POINTS = 101  # of a performance profile
CONFIG = "each environment's config"  # the name of a group where no environment has another


@dataclass(frozen=True)
class Scale:
    """How returns of an environment become scores: `low` is 0 and `high` is 1.

    Attributes:
        env_id: The environment.
        low: The return whose score is 0.
        high: The return whose score is 1.
        of_low: Words for what the low return is.
        of_high: Words for what the high one is.
    """

    env_id: str
    low: float
    high: float
    of_low: str
    of_high: str

    def scores(self, returns: Floats) -> Floats:
        """(R − low) / (high − low)."""
        return (returns - self.low) / (self.high - self.low)

    def __str__(self) -> str:
        return f"{self.env_id}: 0 is {self.low:,.6g} ({self.of_low}), 1 is {self.high:,.6g} ({self.of_high})"


@dataclass(frozen=True)
class Aggregate:
    """What is said of one group over all environments.

    Attributes:
        name: The name of the group.
        runs: How many there are in all environments together.
        iqm: The interquartile mean of all scores.
        mean: The mean of all scores, with no interval, nor have the next two: all runs count in them, and no
            interval knows of a failed run that none of the seeds shows.
        median: The median over environments of their mean scores.
        gap: The optimality gap: how far scores stay below 1 in the mean.
        profile: The share of runs whose score is above each of `Overall.taus`.
        improvement: P(better) than the baseline, the mean over environments; None for the baseline.
    """

    name: str
    runs: int
    iqm: Estimate
    mean: float
    median: float
    gap: float
    profile: Estimate
    improvement: Estimate | None


@dataclass(frozen=True)
class Overall:
    """What is said of all environments together.

    Attributes:
        scales: The scales of the environments that count.
        groups: The groups in all of them; none where there are no two environments to aggregate.
        baseline: The name of the group that the others are held against.
        taus: The scores at which the performance profiles stand.
        left_out: The lines on environments that do not count.
    """

    scales: tuple[Scale, ...]
    groups: tuple[Aggregate, ...]
    baseline: str
    taus: Floats
    left_out: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Lines on what a reader of the aggregates must know."""
        if not self.groups:
            return [*self.left_out, "No aggregate over environments: fewer than two have the same groups."]
        lines = [f"Normalised score of {scale}." for scale in self.scales]
        lines.append(
            "IQM, mean and optimality gap: of the scores of all runs, each environment weighing the same; "
            "median: of the environments' means; P(better): mean over the environments."
        )
        if all(group.iqm.low is None for group in self.groups):
            lines.append(
                f"Fewer than {FEWEST_FOR_IQM} seeds in an environment are too few for an interval of the IQM."
            )
        else:
            lines.append(
                f"In brackets behind an IQM: {CONFIDENCE:.0%} intervals, the expanded percentiles of "
                f"{RESAMPLES:,} stratified bootstrap resamples of the seeds within each environment. They do "
                "not know of what none of the seeds shows: one run in ten that fails, say."
            )
        if any(group.improvement and group.improvement.low is not None for group in self.groups):
            lines.append(f"Of P(better): the environments' {CONFIDENCE:.0%} intervals together.")
        return [*lines, *self.left_out]


def aggregate(
    comparisons: Sequence[Comparison],
    given: Mapping[str, tuple[float, float]] | None = None,
    *,
    by_iqm: bool = False,
) -> Overall | None:
    """Aggregates the groups over the environments in which all of them have runs; None for one environment.

    Where runs of the baseline failed, it is left out, and the others are held against the first that is not.

    Args:
        comparisons: A comparison for each environment.
        given: The returns whose scores are 0 and 1, by environment; the others' are found by `scale_of`.
        by_iqm: Whether the group with the highest IQM comes first, and not that of the first environment.
    """
    if len(comparisons) < 2:
        return None
    unequal = {name: why for comparison in comparisons for name, why in _unfair(comparison).items()}
    members = [_members(comparison, unequal) for comparison in comparisons]
    names = list(dict.fromkeys(name for found in members for name in found))
    left_out = [f"Not in the aggregates: {name}, {why}." for name, why in sorted(unequal.items())]
    counted: list[tuple[Scale, dict[str, Floats]]] = []
    baselines: list[str] = []  # of the environments that count
    incomplete: dict[str, list[str]] = {}  # environments by the groups that they lack
    for comparison, found in zip(comparisons, members, strict=True):
        env_id = comparison.env_id
        lacking = [name for name in names if name not in found]
        scale = scale_of(comparison, (given or {}).get(env_id))
        if lacking:
            incomplete.setdefault("; ".join(lacking), []).append(env_id)
        elif scale is None:
            left_out.append(
                f"Not in the aggregates: {env_id}, where nothing was learned; --normalize {env_id}=LOW,HIGH "
                "says which returns are 0 and 1."
            )
        else:
            counted.append(
                (scale, {name: scale.scores(_final_returns(summary)) for name, summary in found.items()})
            )
            baselines.append(comparison.baseline)
    left_out += [
        f"Not in the aggregates: {', '.join(env_ids)}, without a run of {lacking}."
        for lacking, env_ids in incomplete.items()
    ]
    if len(counted) < 2 or not names:
        return Overall((), (), "", np.empty(0), tuple(left_out))
    overall = _overall(counted, baselines[0], tuple(left_out))
    if by_iqm:
        overall = replace(overall, groups=tuple(sorted(overall.groups, key=lambda group: -group.iqm.value)))
    return overall


def scale_of(comparison: Comparison, given: tuple[float, float] | None = None) -> Scale | None:
    """The scale of an environment.

    0 is the mean of the runs' first logged returns, which is what the untrained policy gets; 1 is the return
    that counts as solved, or where nobody names one the best final return of any run. None where the first is
    not lower than the second.
    """
    if given is not None:
        return Scale(comparison.env_id, *given, "given", "given")
    runs = [run for summary in comparison.summaries for run in summary.group.runs]
    firsts = [run.returns[0] for run in runs if len(run.returns)]
    if not firsts:
        return None
    low = float(np.mean(firsts))
    if comparison.threshold is not None and not comparison.derived:
        high, of_high = comparison.threshold, "the threshold"
    else:
        high, of_high = max(run.final_return for run in runs), "the best run's final return"
    return (
        Scale(comparison.env_id, low, high, "mean at the start of training", of_high) if low < high else None
    )


def _unfair(comparison: Comparison) -> dict[str, str]:
    """Why groups can't be held against the others, by their names."""
    groups = [summary.group for summary in comparison.summaries]
    fair = [group for group in groups if not unlike(group)]
    base = next((group for group in fair if group.name == comparison.baseline), fair[0] if fair else None)
    found = {group.name: unlike(group) or (unlike(group, base) if base else "") for group in groups}
    return {name: why for name, why in found.items() if why}


def _members(comparison: Comparison, without: Collection[str]) -> dict[str, Summary]:
    """The groups that count, by the name that they have in all environments."""
    summaries = [summary for summary in comparison.summaries if summary.group.name not in without]
    if len(summaries) == 1 and not summaries[0].group.knobs:
        return {CONFIG: summaries[0]}
    return {summary.group.name: summary for summary in summaries}


def _final_returns(summary: Summary) -> Floats:
    return np.array([run.final_return for run in summary.group.runs])


def _overall(
    counted: Sequence[tuple[Scale, Mapping[str, Floats]]],
    baseline: str,
    left_out: tuple[str, ...],
) -> Overall:
    names = list(counted[0][1])
    tables = {name: [scores[name] for _, scores in counted] for name in names}
    every = np.concatenate([np.concatenate(table) for table in tables.values()])
    beside = 0.1 * float(np.ptp(every)) or 0.1  # where all runs are above, and where none is
    taus = np.linspace(float(every.min()) - beside, float(every.max()) + beside, POINTS)
    if baseline not in tables:
        baseline = names[0]
    groups = []
    for seed, (name, table) in enumerate(tables.items()):
        better = None
        if name != baseline:
            better = improvement_over_tasks(table, tables[baseline])
        groups.append(
            Aggregate(
                name=name,
                runs=sum(map(len, table)),
                iqm=estimate_pooled(table, seed),
                mean=float(pooled_mean(table)),
                median=float(median_of_means(table)),
                gap=float(optimality_gap(table)),
                profile=estimate_profile(table, taus),
                improvement=better,
            )
        )
    return Overall(tuple(scale for scale, _ in counted), tuple(groups), baseline, taus, left_out)


# --- estimators: of a list with the scores [..., seeds] of each environment


def pooled_iqm(scores: Sequence[Floats]) -> Floats:
    """Interquartile mean of all N scores, each environment weighing the same.

    The mean of the quantile function between c and 1 − c, where c = ⌊N/4⌋/N: with equally many seeds in each
    environment that is the mean without the lowest and the highest ⌊N/4⌋ scores, as rliable's aggregate_iqm.
    """
    values = np.concatenate(scores, axis=-1)
    order = np.argsort(values, axis=-1)
    upper = np.cumsum(_weights(scores)[order], axis=-1)
    lower = np.concatenate([np.zeros_like(upper[..., :1]), upper[..., :-1]], axis=-1)
    cut = (values.shape[-1] // 4) / values.shape[-1]
    kept = np.clip(np.minimum(upper, 1 - cut) - np.maximum(lower, cut), 0, None)
    return np.asarray((kept * np.take_along_axis(values, order, -1)).sum(-1) / kept.sum(-1))


def pooled_mean(scores: Sequence[Floats]) -> Floats:
    """Mean over environments of their mean scores (rliable's aggregate_mean)."""
    return np.asarray(_means(scores).mean(0))


def median_of_means(scores: Sequence[Floats]) -> Floats:
    """Median over environments of their mean scores (rliable's aggregate_median)."""
    return np.asarray(np.median(_means(scores), axis=0))


def optimality_gap(scores: Sequence[Floats]) -> Floats:
    """1 − mean of min(score, 1) (rliable's aggregate_optimality_gap)."""
    return np.asarray(1 - _means([np.minimum(values, 1) for values in scores]).mean(0))


def performance_profile(scores: Sequence[Floats], taus: Floats) -> Floats:
    """Share of runs whose score is above each τ [..., τ], each environment weighing the same."""
    above = [(values[..., np.newaxis, :] > taus[:, np.newaxis]).mean(-1) for values in scores]
    return np.asarray(np.mean(above, axis=0))


def mean_improvement(scores: Sequence[Floats], base: Sequence[Floats]) -> Floats:
    """P(X > Y) of each environment, the mean over them (rliable's probability_of_improvement)."""
    found = [probability_of_improvement(x, y) for x, y in zip(scores, base, strict=True)]
    return np.asarray(np.mean(found, axis=0))


def improvement_over_tasks(scores: Sequence[Floats], base: Sequence[Floats]) -> Estimate:
    """`mean_improvement` with the interval that the environments' own ones make (`over_environments`)."""
    value = mean_improvement(scores, base)
    found = [estimate_improvement(x, y) for x, y in zip(scores, base, strict=True)]
    ends = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
    if len(ends) < len(found):
        return Estimate(value, why=TOO_FEW)
    low, high = (np.stack(side) for side in zip(*ends, strict=True))
    return over_environments(np.stack([one.value for one in found]), low, high)


def estimate_profile(scores: Sequence[Floats], taus: Floats) -> Estimate:
    """`performance_profile` with an interval at each τ.

    An environment's share of runs above τ has Clopper and Pearson's interval, which has a width where all
    runs or none are above; `over_environments` makes one of them.
    """
    if min(map(len, scores)) < FEWEST_SEEDS:
        return Estimate(performance_profile(scores, taus), why=TOO_FEW)
    shares, lows, highs = [], [], []
    for values in scores:
        above = (values > taus[:, np.newaxis]).sum(-1)
        count = len(values)
        ends = np.array([stats.binomtest(k, count).proportion_ci(CONFIDENCE) for k in range(count + 1)])
        shares.append(above / count)
        lows.append(ends[above, 0])
        highs.append(ends[above, 1])
    return over_environments(np.stack(shares), np.stack(lows), np.stack(highs))


def over_environments(values: Floats, lows: Floats, highs: Floats) -> Estimate:
    """The mean of K environments' shares, which are independent, with the interval that theirs make.

    Zou and Donner 2008 (https://doi.org/10.1002/sim.3095), where θ_k has the interval l_k to u_k::

        θ - √(Σ (θ_k - l_k)²) / K   to   θ + √(Σ (u_k - θ_k)²) / K

    Args:
        values: The values θ_k, [environments, ...].
        lows: The lower ends l_k, likewise.
        highs: The upper ends u_k, likewise.
    """
    value = values.mean(0)
    low = value - np.linalg.norm(values - lows, axis=0) / len(values)
    high = value + np.linalg.norm(highs - values, axis=0) / len(values)
    return Estimate(value, np.maximum(low, 0.0), np.minimum(high, 1.0))


def _means(scores: Sequence[Floats]) -> Floats:
    """Mean scores [environments, ...]."""
    return np.stack([values.mean(-1) for values in scores])


def _weights(scores: Sequence[Floats]) -> Floats:
    """The weight of each score in the row of all: environments alike, and the seeds of one alike."""
    return np.concatenate(
        [np.full(values.shape[-1], 1 / values.shape[-1] / len(scores)) for values in scores]
    )


def estimate_pooled(scores: Sequence[Floats], seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """`pooled_iqm` with the expanded percentile interval of a bootstrap that is stratified by environment.

    It is expanded as for the environment with the fewest seeds: there are no fewer degrees of freedom than
    its, whatever the spreads.
    """
    value, least = pooled_iqm(scores), min(map(len, scores))
    if least < FEWEST_FOR_IQM:
        return Estimate(value, why=TOO_FEW)
    if all(np.ptp(values) == 0 for values in scores):
        return Estimate(value, why=ALL_EQUAL)
    rng, tail = np.random.default_rng(seed), expanded_tail(least)  # the same report every time
    drawn = [values[rng.integers(len(values), size=(resamples, len(values)))] for values in scores]
    low, high = np.quantile(pooled_iqm(drawn), [tail, 1 - tail])
    if low == high:
        # One far seed among many equal ones may be in too few resamples to be seen in their quantiles.
        every = np.concatenate(scores)
        low, high = every.min(), every.max()
    return Estimate(value, low, high)
