"""Groups over several environments, by normalised scores, as Agarwal et al. 2021 (arXiv:2108.13264) ask.

The estimators are rliable's; environments with unlike numbers of seeds weigh the same.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ppo_cli.report.comparison import Comparison, Summary
from ppo_cli.report.runs import Floats
from ppo_cli.report.statistics import (
    ALL_EQUAL,
    CONFIDENCE,
    CURVE_RESAMPLES,
    FEWEST_FOR_IQM,
    RESAMPLES,
    TOO_FEW,
    Estimate,
    estimate_improvement,
    probability_of_improvement,
)

POINTS = 101  # of a performance profile
CONFIG = "each environment's config"  # the name of a group where no environment has another


@dataclass(frozen=True)
class Scale:
    """How returns of an environment become scores: `low` is 0 and `high` is 1.

    Attributes:
        env_id: the environment.
        low: the return whose score is 0.
        high: the return whose score is 1.
        of_low: what the return is, in words.
        of_high: likewise.
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
        name: of the group.
        runs: how many there are in all environments together.
        iqm: interquartile mean of all scores.
        mean: mean of all scores.
        median: median over environments of their mean scores.
        gap: optimality gap: how far scores stay below 1 in the mean.
        profile: for each of `Overall.taus` the share of runs whose score is above it.
        improvement: P(better) than the baseline, the mean over environments; None for the baseline.
    """

    name: str
    runs: int
    iqm: Estimate
    mean: Estimate
    median: Estimate
    gap: Estimate
    profile: Estimate
    improvement: Estimate | None


@dataclass(frozen=True)
class Overall:
    """What is said of all environments together.

    Attributes:
        scales: of the environments that count.
        groups: the groups in all of them; none where there are no two environments to aggregate.
        baseline: the name of the group that the others are held against.
        taus: the scores at which the performance profiles stand.
        left_out: lines on environments that do not count.
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
            lines.append(f"Fewer than {FEWEST_FOR_IQM} seeds in an environment are too few for intervals.")
        else:
            lines.append(
                f"In brackets {CONFIDENCE:.0%} intervals: the expanded percentiles of {RESAMPLES:,} "
                "stratified bootstrap resamples of the seeds within each environment; of P(better) the "
                "environments' intervals together."
            )
        return [*lines, *self.left_out]


def aggregate(
    comparisons: Sequence[Comparison], given: Mapping[str, tuple[float, float]] | None = None
) -> Overall | None:
    """Aggregates the groups over the environments in which all of them have runs; None for one environment.

    Args:
        comparisons: one for each environment.
        given: returns whose scores are 0 and 1, by environment; the others' are found by `scale_of`.
    """
    if len(comparisons) < 2:
        return None
    unequal = {
        summary.group.name
        for comparison in comparisons
        for summary in comparison.summaries
        if not summary.comparable
    }
    members = [_members(comparison, unequal) for comparison in comparisons]
    names = list(dict.fromkeys(name for found in members for name in found))
    left_out = [
        f"Not in the aggregates: {name}, whose runs' steps are not equal." for name in sorted(unequal)
    ]
    counted: list[tuple[Scale, dict[str, Floats]]] = []
    for comparison, found in zip(comparisons, members, strict=True):
        env_id = comparison.env_id
        lacking = [name for name in names if name not in found]
        scale = scale_of(comparison, (given or {}).get(env_id))
        if lacking:
            left_out.append(f"Not in the aggregates: {env_id}, which has no run of {'; '.join(lacking)}.")
        elif scale is None:
            left_out.append(
                f"Not in the aggregates: {env_id}, where nothing was learned; --normalize {env_id}=LOW,HIGH "
                "says which returns are 0 and 1."
            )
        else:
            counted.append(
                (scale, {name: scale.scores(_final_returns(summary)) for name, summary in found.items()})
            )
    if len(counted) < 2 or not names:
        return Overall((), (), "", np.empty(0), tuple(left_out))
    baseline = CONFIG if names == [CONFIG] else comparisons[0].baseline
    return _overall(counted, names, baseline, tuple(left_out))


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
    names: Sequence[str],
    baseline: str,
    left_out: tuple[str, ...],
) -> Overall:
    tables = {name: [scores[name] for _, scores in counted] for name in names}
    every = np.concatenate([np.concatenate(table) for table in tables.values()])
    taus = np.linspace(min(0.0, float(every.min())), max(1.0, float(every.max())), POINTS)
    if baseline not in tables:
        baseline = names[0]
    drawn = {name: resampled(table, seed) for seed, (name, table) in enumerate(tables.items())}
    groups = []
    for name, table in tables.items():
        better = None
        if name != baseline:
            better = improvement_over_tasks(table, tables[baseline])
        groups.append(
            Aggregate(
                name=name,
                runs=sum(map(len, table)),
                iqm=estimate_over(pooled_iqm, table, drawn[name]),
                mean=estimate_over(pooled_mean, table, drawn[name]),
                median=estimate_over(median_of_means, table, drawn[name]),
                gap=estimate_over(optimality_gap, table, drawn[name]),
                profile=_profile(table, taus, drawn[name]),
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
    """`mean_improvement` with an interval, of the K environments' own ones, which are independent.

    Zou and Donner 2008 (https://doi.org/10.1002/sim.3095), where θ_k has the interval l_k to u_k::

        θ - √(Σ (θ_k - l_k)²) / K   to   θ + √(Σ (u_k - θ_k)²) / K
    """
    value = mean_improvement(scores, base)
    found = [estimate_improvement(x, y) for x, y in zip(scores, base, strict=True)]
    below = [one.value - one.low for one in found if one.low is not None]
    above = [one.high - one.value for one in found if one.high is not None]
    if len(below) < len(found) or len(above) < len(found):
        return Estimate(value, why=TOO_FEW)
    low, high = value - np.linalg.norm(below) / len(found), value + np.linalg.norm(above) / len(found)
    return Estimate(value, np.maximum(low, 0.0), np.minimum(high, 1.0))


def _means(scores: Sequence[Floats]) -> Floats:
    """Mean scores [environments, ...]."""
    return np.stack([values.mean(-1) for values in scores])


def _weights(scores: Sequence[Floats]) -> Floats:
    """Of each score in the row of all: environments alike, and the seeds of one alike."""
    return np.concatenate(
        [np.full(values.shape[-1], 1 / values.shape[-1] / len(scores)) for values in scores]
    )


def resampled(scores: Sequence[Floats], seed: int) -> list[Floats] | None:
    """Scores [resamples, seeds] drawn with replacement in each environment; None where seeds are too few."""
    if min(map(len, scores)) < FEWEST_FOR_IQM:
        return None
    rng = np.random.default_rng(seed)  # the same report every time
    return [values[rng.integers(len(values), size=(RESAMPLES, len(values)))] for values in scores]


def estimate_over(
    statistic: Callable[[Sequence[Floats]], Floats], scores: Sequence[Floats], drawn: Sequence[Floats] | None
) -> Estimate:
    """A statistic of a group's scores, with the expanded percentile interval of its resamples."""
    value = statistic(scores)
    if drawn is None:
        return Estimate(value, why=TOO_FEW)
    tail = _tail(scores)
    low, high = np.quantile(statistic(drawn), [tail, 1 - tail], axis=0)
    return Estimate(value, why=ALL_EQUAL) if np.all(low == high) else Estimate(value, low, high)


def _profile(scores: Sequence[Floats], taus: Floats, drawn: Sequence[Floats] | None) -> Estimate:
    """The performance profile with its interval at each τ, of fewer resamples than a single number's."""
    few = None if drawn is None else [values[:CURVE_RESAMPLES] for values in drawn]
    return estimate_over(lambda found: performance_profile(found, taus), scores, few)


def _tail(scores: Sequence[Floats]) -> float:
    """What is beyond each end of an expanded interval, as of `ppo_cli.report.statistics.estimate`.

    The degrees of freedom are those of the environment with the fewest seeds, which is the least
    that they can be where environments have unlike spreads.
    """
    least = min(map(len, scores))
    return float(stats.norm.cdf(-np.sqrt(least / (least - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, least - 1)))
