"""The statistics that evaluations, searches and reports share: one interquartile mean, one bootstrap."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9_999


def has_scipy() -> bool:
    """Whether SciPy is installed, which intervals need."""
    return importlib.util.find_spec("scipy") is not None


def iqm(values: Sequence[float] | Floats, axis: int = -1) -> Floats:
    """Interquartile mean: without the lowest and the highest ⌊n/4⌋ of n values (Agarwal et al. 2021).

    Args:
        values: The values; those along the axis are averaged.
        axis: The axis.
    """
    ordered = np.moveaxis(np.sort(values, axis=axis), axis, -1)
    n = ordered.shape[-1]
    return np.asarray(np.mean(ordered[..., n // 4 : n - n // 4], axis=-1))


def bootstrap_interval(
    samples: Sequence[Sequence[float] | Floats],
    statistic: Callable[..., Any],
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    batch: int | None = None,
) -> tuple[Any, Any]:
    """The percentile bootstrap's interval of a statistic: the same every time for one seed.

    The percentile method, since BCa has no interval where all values are equal.

    Args:
        samples: The samples, each resampled along its last axis.
        statistic: The statistic of the samples, called with an ``axis``.
        seed: The seed of the resampling.
        confidence: The share of intervals that is to hold the truth.
        resamples: The number of resamples.
        batch: The number of resamples that are held in memory at once; None for all.

    Returns:
        The ends of the interval, as the statistic gives them.

    Raises:
        ModuleNotFoundError: SciPy is not installed.
    """
    from scipy.stats import bootstrap  # late: an extra, and slow to import

    found = bootstrap(
        tuple(np.asarray(values) for values in samples),
        statistic,
        n_resamples=resamples,
        batch=batch,
        vectorized=True,
        axis=-1,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),  # SciPy's older name of rng, which newer ones take too
    ).confidence_interval
    return found.low, found.high
