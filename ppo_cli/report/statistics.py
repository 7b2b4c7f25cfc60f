"""Aggregates over seeds as Agarwal et al. 2021 (https://arxiv.org/abs/2108.13264) ask, intervals and tests.

The intervals are chosen by what they cover with few seeds: `benchmarks/intervals.py` measures it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import integrate, optimize, stats

from ppo_cli.report.runs import Run
from ppo_cli.statistics import CONFIDENCE, RESAMPLES, Floats, bootstrap_interval, iqm

CURVE_RESAMPLES = 1_999  # for each point of a learning curve
GRID = 100  # points of a learning curve
WINDOW = 5  # logged returns that are averaged, in learning curves and where a threshold counts as reached
# The fewest seeds of each group for an interval of P(better) and a test. Of 5 against 5, 2 of 252 orders are
# as far apart as can be, p = 0.008, and the interval then begins at 0.55. Of 4 against 4, p is 0.029 at best,
# and where one group is better every other time, all of 4 are better in 6 %.
FEWEST_SEEDS = 5
# The fewest for an interval of an IQM. No interval knows of what none of its seeds shows, and where a little
# more than a quarter of all runs fail, all of 8 seeds are spared in (3/4)^8 = 10 %, all of 7 in 13 %: from 8
# seeds on, 90 % of intervals can cover. benchmarks/intervals.py simulates that they do.
FEWEST_FOR_IQM = 8
MOST_EXACT = 2_500  # pairs of seeds up to which the test counts every order
TOO_FEW = "too few seeds to tell"
ALL_EQUAL = "all seeds equal"


@dataclass(frozen=True)
class Estimate:
    """A number, or one for each point of a curve, and its interval.

    Attributes:
        value: The number.
        low: The lower end of the interval; None where there is none.
        high: The upper end, or None.
        why: A few words on why there is no interval; empty where there is one.
    """

    value: Floats
    low: Floats | None = None
    high: Floats | None = None
    why: str = ""


@dataclass(frozen=True)
class Improvement:
    """How a group does against the baseline.

    Attributes:
        estimate: The probability that a run of it ends higher than one of the baseline's.
        p_value: The two-sided one that the two do not differ, of this comparison; None with too few seeds.
        stays: Whether the difference is significant after Holm's correction for all the comparisons of the
            environment; None with too few seeds.
    """

    estimate: Estimate
    p_value: float | None = None
    stays: bool | None = None


def probability_of_improvement(x: Floats, y: Floats) -> Floats:
    """P(X > Y): the share of pairs in which x is larger, an equal pair for half (Agarwal et al. 2021).

    Args:
        x: The returns of one group's seeds, along the last axis.
        y: The values of the baseline.
    """
    return np.asarray(_pairs(x, y).mean(axis=(-2, -1)))


def _pairs(x: Floats, y: Floats) -> Floats:
    """1 where a return is above one of the baseline's, 0.5 where they are equal: [m], [n] to [m, n]."""
    left, right = x[..., :, np.newaxis], y[..., np.newaxis, :]
    return np.asarray((left > right) + 0.5 * (left == right))


def estimate(values: Floats, resamples: int = RESAMPLES) -> Estimate:
    """The IQM over seeds with its expanded percentile interval; of a curve, a point at a time.

    The bootstrap's quantiles are those of a spread that is too small by n - 1 to n, and know nothing of
    Student's t, so that they are taken further out (Hesterberg 2015, https://arxiv.org/abs/1411.5279)::

        α'/2 = Φ(-√(n / (n - 1)) t_{1 - α/2, n - 1})

    Args:
        values: The values of seeds along the last axis; a curve has a row for each of its points.
        resamples: The number of resamples.

    Returns:
        The estimate; of a curve, ends are NaN at points where all seeds are equal.
    """
    value, seeds = iqm(values), values.shape[-1]
    if seeds < FEWEST_FOR_IQM:
        return Estimate(value, why=TOO_FEW)
    equal = np.ptp(values, axis=-1) == 0
    if equal.all():
        return Estimate(value, why=ALL_EQUAL)
    low, high = bootstrap_interval(
        [values], iqm, confidence=1 - 2 * expanded_tail(seeds), resamples=resamples
    )
    # One far seed among many equal ones may be in too few resamples to be seen in their quantiles.
    flat = low == high
    low, high = np.where(flat, values.min(axis=-1), low), np.where(flat, values.max(axis=-1), high)
    if equal.ndim:
        low, high = np.where(equal, np.nan, low), np.where(equal, np.nan, high)
    return Estimate(value, low, high)


def expanded_tail(seeds: int) -> float:
    """What is beyond each end of the interval of `estimate`."""
    reach = math.sqrt(seeds / (seeds - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1)
    return float(stats.norm.cdf(-reach))


def improvements(groups: Sequence[Floats], base: Floats) -> list[Improvement]:
    """Each group's final returns against the baseline's, tested, with Holm's correction for their number.

    Holm 1979: with the p-values in rising order, the i-th of k stays where (k - i + 1) p_i is below α, and
    those before it stay. Its interval has to be without 0.5 too, so that the two say the same. Where not even
    the farthest outcome could stay as the first, nothing is said.
    """
    alpha = 1 - CONFIDENCE
    estimates = [estimate_improvement(group, base) for group in groups]
    p_values = [
        None if found.low is None else rank_test(group, base)
        for found, group in zip(estimates, groups, strict=True)
    ]
    tested = sorted((p, position) for position, p in enumerate(p_values) if p is not None)
    smallest = [2 / math.comb(len(groups[position]) + len(base), len(base)) for _, position in tested]
    could = any(len(tested) * p < alpha for p in smallest)
    stays: list[bool | None] = [None] * len(groups)
    standing = True
    for rank, (p, position) in enumerate(tested):
        standing = standing and (len(tested) - rank) * p < alpha
        low, high = estimates[position].low, estimates[position].high
        apart = low is not None and high is not None and not low <= 0.5 <= high
        stays[position] = standing and apart if could else None
    return [Improvement(*found) for found in zip(estimates, p_values, stays, strict=True)]


def estimate_improvement(x: Floats, y: Floats) -> Estimate:
    """`probability_of_improvement` θ of two groups of m and n seeds, with its interval.

    Newcombe 2006 (https://doi.org/10.1002/sim.2324, method 5): the θ that θ̂ is at most z standard errors
    away from, where those are of θ and not of what was seen, so that there is no interval of no width::

        V(θ) = θ (1 - θ) (1 + ((m + n)/2 - 1) ((1 - θ)/(2 - θ) + θ/(1 + θ))) / (m n)

    V(1/2) is what the rank test's is without ties. Where groups have unlike spreads the interval is too
    short, so that it holds that of Brunner and Munzel 2000, θ̂ ± t √(S_x²/m + S_y²/n), too; S² are the
    variances of each seed's share of the other group's seeds below it, t has Welch's degrees of freedom.
    Where one group lies above the other altogether, S² is 0, and the interval goes to α^(1/k) with the k
    seeds of the smaller group: where runs are better with a probability below it, k of k are in less than α
    of cases. And where the exact test does not tell the groups apart, the interval holds 1/2.
    """
    pairs = _pairs(x, y)
    m, n = pairs.shape
    found = float(pairs.mean())
    if min(m, n) < FEWEST_SEEDS:
        return Estimate(np.asarray(found), why=TOO_FEW)
    z = stats.norm.ppf((1 + CONFIDENCE) / 2)

    def outside(theta: float) -> float:
        shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + ((m + n) / 2 - 1) * shape) / (m * n)
        return float((found - theta) ** 2 - z**2 * variance)

    # V is 0 at both ends, where θ̂ may be: the other root is looked for.
    low = 0.0 if found == 0 else optimize.brentq(outside, 0.0, min(found, 1 - 1e-9))
    high = 1.0 if found == 1 else optimize.brentq(outside, max(found, 1e-9), 1.0)
    of_x, of_y = pairs.mean(axis=1).var(ddof=1) / m, pairs.mean(axis=0).var(ddof=1) / n
    if of_x + of_y > 0:
        degrees = (of_x + of_y) ** 2 / (of_x**2 / (m - 1) + of_y**2 / (n - 1))
        half = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * math.sqrt(of_x + of_y)
        low, high = min(low, max(0.0, found - half)), max(high, min(1.0, found + half))
    elif found in (0.0, 1.0):
        unseen = (1 - CONFIDENCE) ** (1 / min(m, n))
        low, high = (min(low, unseen), high) if found else (low, max(high, 1 - unseen))
    if rank_test(x, y) >= 1 - CONFIDENCE:
        low, high = min(low, 0.5), max(high, 0.5)
    return Estimate(np.asarray(found), np.asarray(low), np.asarray(high))


def rank_test(x: Floats, y: Floats) -> float:
    """Two-sided p-value of Mann and Whitney's test that two groups do not differ, exact with ties too.

    SciPy's exact one is not for ties, and its permutations take seconds: here the sums of ranks of every
    choice of m out of all seeds are counted, one seed after the other (twice the ranks: ties have halves).
    """
    m, n = len(x), len(y)
    if m * n > MOST_EXACT:
        return float(stats.mannwhitneyu(x, y, method="asymptotic").pvalue)
    ranks = np.rint(2 * stats.rankdata(np.concatenate([x, y]))).astype(int)
    counts = np.zeros((m + 1, ranks.sum() + 1))  # choices so far, by their size and their sum
    counts[0, 0] = 1
    for rank in ranks:
        counts[1:, rank:] += counts[:-1, : counts.shape[1] - rank]
    share, found = counts[m] / counts[m].sum(), ranks[:m].sum()
    return min(1.0, 2 * float(min(share[: found + 1].sum(), share[found:].sum())))


def smoothing(logged: int, window: int) -> int:
    """How many logged returns are averaged: the window, or half of a run's where it has few."""
    return max(1, min(window, (logged + 1) // 2))


def smoothed(returns: Floats, window: int = WINDOW) -> Floats:
    """Means of the last ``w`` logged returns, from the ``w``-th on: [n] to [n - w + 1]; w by `smoothing`."""
    if not len(returns):
        return returns
    width = smoothing(len(returns), window)
    return np.convolve(returns, np.full(width, 1 / width), "valid")


def smoothed_curve(run: Run, window: int = WINDOW) -> tuple[Floats, Floats]:
    """Steps and `smoothed` returns of a run, each mean at the step of its last return."""
    values = smoothed(run.returns, window)
    return run.steps[len(run.steps) - len(values) :], values


def common_span(curves: Sequence[tuple[Floats, Floats]]) -> tuple[float, float] | None:
    """First and last environment step at which every curve has a return, or None."""
    if not curves or not all(len(steps) for steps, _ in curves):
        return None
    first, last = max(float(steps[0]) for steps, _ in curves), min(float(steps[-1]) for steps, _ in curves)
    return (first, last) if first < last else None


def interpolate(curves: Sequence[tuple[Floats, Floats]], span: tuple[float, float]) -> tuple[Floats, Floats]:
    """Learning curves on a common grid: its steps [`GRID`], and the returns [`GRID`, runs]."""
    grid = np.linspace(*span, GRID)
    return grid, np.stack([np.interp(grid, steps, returns) for steps, returns in curves], axis=-1)


def mean_over_steps(run: Run, span: tuple[float, float]) -> float:
    """Area under a learning curve as it was logged, between two steps, by their distance: a mean return."""
    first, last = span
    inside = run.steps[(run.steps > first) & (run.steps < last)]
    steps = np.concatenate([[first], inside, [last]])
    return float(integrate.trapezoid(np.interp(steps, run.steps, run.returns), steps)) / (last - first)


def steps_to_threshold(run: Run, threshold: float, window: int = WINDOW) -> float:
    """First step at which the `smoothed` returns reach a threshold, or infinity."""
    steps, averages = smoothed_curve(run, window)
    reached = np.flatnonzero(averages >= threshold - 1e-9 * abs(threshold))  # the averages are rounded
    return float(steps[reached[0]]) if len(reached) else math.inf
