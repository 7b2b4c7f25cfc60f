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
WINDOW = 5  # points of a learning curve that are averaged before a threshold counts as reached


@dataclass(frozen=True)
class Estimate:
    """A number, or one for each point of a curve, and its interval; None where one seed gives none."""

    value: Floats
    low: Floats | None = None
    high: Floats | None = None


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
    if min(sample.shape[-1] for sample in samples) < 2:
        return Estimate(value)
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


def common_span(runs: Sequence[Run]) -> tuple[float, float] | None:
    """First and last environment step at which every run has a return, or None."""
    if not all(len(run.steps) for run in runs):
        return None
    first, last = max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs)
    return (first, last) if first < last else None


def interpolate(runs: Sequence[Run], span: tuple[float, float]) -> tuple[Floats, Floats]:
    """Learning curves on a common grid: its steps [`GRID`], and the returns [`GRID`, runs]."""
    grid = np.linspace(*span, GRID)
    return grid, np.stack([np.interp(grid, run.steps, run.returns) for run in runs], axis=-1)


def mean_over_steps(run: Run, span: tuple[float, float]) -> float:
    """Area under a learning curve between two steps, divided by their distance: a mean return."""
    steps, values = interpolate([run], span)
    return float(integrate.trapezoid(values[:, 0], steps)) / (span[1] - span[0])


def steps_to_threshold(run: Run, threshold: float) -> float:
    """First step at which the mean of the last `WINDOW` logged returns reaches a threshold, or infinity."""
    window = min(WINDOW, len(run.returns))
    if not window:
        return math.inf
    averages = np.convolve(run.returns, np.full(window, 1 / window), "valid")
    reached = np.flatnonzero(averages >= threshold - 1e-9 * abs(threshold))  # the averages are rounded
    return float(run.steps[window - 1 + reached[0]]) if len(reached) else math.inf
