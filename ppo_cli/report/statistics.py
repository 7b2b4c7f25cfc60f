"""Aggregates over seeds and their intervals, as Agarwal et al. 2021 (https://arxiv.org/abs/2108.13264) ask.

SciPy resamples; each estimator here is a function of the last axis, so that all resamples are one call.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import integrate, stats

from ppo_cli.report.runs import Floats, Run

RESAMPLES = 2_000
CONFIDENCE = 0.95
GRID = 100  # points of a learning curve
WINDOW = 5  # logged returns that are averaged, in learning curves and where a threshold counts as reached
FEWEST_SEEDS = (
    5  # of a group, for an interval and a test: below, coverage falls short (benchmarks/coverage.py)
)
TOO_FEW = "too few seeds to tell"


@dataclass(frozen=True)
class Estimate:
    """A number, or one for each point of a curve, and its interval.

    Attributes:
        value: the number.
        low: lower end of the interval; None where there is none.
        high: upper end, or None.
        why: a few words on why there is no interval; empty where there is one.
    """

    value: Floats
    low: Floats | None = None
    high: Floats | None = None
    why: str = ""


@dataclass(frozen=True)
class Improvement:
    """How a group does against the baseline.

    Attributes:
        estimate: the probability that a run of it ends higher than one of the baseline's.
        p_value: two-sided, that the two do not differ, of this comparison alone; None with too few seeds.
        stays: whether the difference is significant after Holm's correction for all the comparisons of the
            environment; None with too few seeds.
    """

    estimate: Estimate
    p_value: float | None = None
    stays: bool | None = None


def mean(values: Floats, axis: int = -1) -> Floats:
    """Mean over seeds."""
    return np.asarray(np.mean(values, axis=axis))


def iqm(values: Floats, axis: int = -1) -> Floats:
    """Interquartile mean over seeds: without the lowest and highest quarter (Agarwal et al. 2021)."""
    return np.asarray(stats.trim_mean(values, 0.25, axis=axis))


def probability_of_improvement(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """P(X > Y): the share of pairs in which x is larger, an equal pair for half (Agarwal et al. 2021).

    Args:
        x: returns of one group's seeds, along the last axis.
        y: of the baseline's.
        axis: SciPy names it; always the last.
    """
    left, right = x[..., :, np.newaxis], y[..., np.newaxis, :]
    return np.asarray(((left > right) + 0.5 * (left == right)).mean(axis=(-2, -1)))


def estimate(statistic: Callable[..., Floats], *samples: Floats) -> Estimate:
    """A statistic with its percentile bootstrap interval; each sample is a stratum, resampled on its own.

    Args:
        statistic: of one or more samples, over the last axis.
        samples: values of seeds along the last axis; curves have a row for each of their points.
    """
    value = statistic(*samples)
    if min(sample.shape[-1] for sample in samples) < FEWEST_SEEDS:
        return Estimate(value, why=TOO_FEW)
    interval = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        vectorized=True,
        axis=-1,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),  # the same report every time
    ).confidence_interval
    return Estimate(value, interval.low, interval.high)


def estimate_over_tasks(statistic: Callable[..., Floats], scores: Sequence[Floats]) -> Estimate:
    """A statistic of the normalised scores of all environments together, as rliable aggregates them.

    Args:
        statistic: `iqm` or `mean`, over the last axis.
        scores: of the seeds of each environment, an array each.
    """
    return Estimate(statistic(np.concatenate(list(scores))))


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
    steps, values = interpolate([(run.steps, run.returns)], span)
    return float(integrate.trapezoid(values[:, 0], steps)) / (span[1] - span[0])


def steps_to_threshold(run: Run, threshold: float, window: int = WINDOW) -> float:
    """First step at which the `smoothed` returns reach a threshold, or infinity."""
    steps, averages = smoothed_curve(run, window)
    reached = np.flatnonzero(averages >= threshold - 1e-9 * abs(threshold))  # the averages are rounded
    return float(steps[reached[0]]) if len(reached) else math.inf
