"""What the intervals of `ppo-report` cover with few seeds, and how often its tests raise a false alarm.

`python benchmarks/intervals.py` simulates final returns of 2 to 10 seeds from distributions that are known,
has the report's own functions make an interval of each sample, and counts how many hold the true value, in
per cent. Where the report gives no interval, the table has a dash.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from ppo_cli.report.aggregates import (
    estimate_pooled,
    improvement_over_tasks,
    pooled_iqm,
)
from ppo_cli.report.statistics import CURVE_RESAMPLES, estimate, estimate_improvement, improvements
from ppo_cli.statistics import Floats, iqm

SEEDS = range(2, 11)
REPEATS = 1_000
TRUTH = 1_000_000  # samples that the true value is taken from
ROWS = 50  # samples whose resamples are in memory together

Sampler = Callable[[np.random.Generator, tuple[int, ...]], Floats]


class Row(NamedTuple):
    """What was simulated, and for each number of seeds the share; None where the report gives nothing."""

    what: str
    shares: list[float | None]


def normal(mean: float, spread: float) -> Sampler:
    return lambda rng, shape: rng.normal(mean, spread, shape)


def skewed(shift: float = 0.0) -> Sampler:
    """Lognormal, its logarithm with a standard deviation of 1."""
    return lambda rng, shape: 100 * (rng.lognormal(0, 1, shape) + shift)


def solved(share: float, exactly: bool = False) -> Sampler:
    """Around 500, or 500 exactly, in a share of the runs, and around 50 in the others, which failed."""
    return lambda rng, shape: np.where(
        rng.random(shape) < share,
        500.0 if exactly else rng.normal(500, 5, shape),
        rng.normal(50, 20, shape),
    )


def bounded(mean: float) -> Sampler:
    """Normal, but at most 500."""
    return lambda rng, shape: np.minimum(500.0, rng.normal(mean, 60, shape))


GROUPS: dict[str, Sampler] = {
    "normal": normal(300, 50),
    "skewed (lognormal)": skewed(),
    "half solved, half failed": solved(0.5),
    "half solved with 500 exactly": solved(0.5, exactly=True),
    "3 in 10 failed": solved(0.7),
    "1 in 5 failed": solved(0.8),
    "at most 500, 37 % there": bounded(480),
    "at most 500, 60 % there": bounded(515),
}
PAIRS: dict[str, tuple[Sampler, Sampler]] = {
    **{f"equal: {name}": (sampler, sampler) for name, sampler in GROUPS.items()},
    "normal, one deviation apart": (normal(350, 50), normal(300, 50)),
    "normal, two deviations apart": (normal(400, 50), normal(300, 50)),
    "normal, three times the spread": (normal(300, 150), normal(300, 50)),
    "normal, ten times the spread": (normal(300, 500), normal(300, 50)),
    "skewed, one apart": (skewed(1.0), skewed()),
    "solved by 4 in 5 against 1 in 2": (solved(0.8), solved(0.5)),
    "solved by 4 in 5 against 1 in 5": (solved(0.8), solved(0.2)),
    "solved by 4 in 5 against normal": (solved(0.8), normal(300, 50)),
    "at most 500, 60 % there against 37 %": (bounded(515), bounded(480)),
}
TASKS = {  # environments that are aggregated
    "three environments together": ("normal", "3 in 10 failed", "at most 500, 60 % there"),
}


def iqm_coverage(repeats: int, drawn: int = TRUTH) -> Iterator[Row]:
    """How many intervals of an IQM hold the true one: final returns, AUC and every point of a curve."""
    for name, sampler in GROUPS.items():
        truth = float(iqm(sampler(np.random.default_rng(0), (drawn,))))
        shares: list[float | None] = []
        for seeds in SEEDS:
            samples = sampler(np.random.default_rng(seeds), (repeats, seeds))
            ends = [estimate(part, CURVE_RESAMPLES) for part in np.array_split(samples, -(-repeats // ROWS))]
            shares.append(_share([(one.low, one.high) for one in ends], truth))
        yield Row(name, shares)
    yield from _over_environments(repeats, drawn)


def _over_environments(repeats: int, drawn: int = TRUTH) -> Iterator[Row]:
    """How many intervals of the IQM of several environments' scores hold the true one."""
    for what, names in TASKS.items():
        rng = np.random.default_rng(0)
        truth = float(pooled_iqm([GROUPS[name](rng, (drawn,)) for name in names]))
        shares = []
        for seeds in SEEDS:
            rng = np.random.default_rng(seeds)
            samples = ([GROUPS[name](rng, (seeds,)) for name in names] for _ in range(repeats))
            shares.append(_held([estimate_pooled(sample, 0, CURVE_RESAMPLES) for sample in samples], truth))
        yield Row(what, shares)


def _share(ends: list[tuple[Floats | None, Floats | None]], truth: float) -> float | None:
    """Of intervals, where there are any, those that hold a value but for rounding."""
    if any(low is None for low, _ in ends):
        return None
    low, high = (np.concatenate(side) for side in zip(*ends, strict=True))
    given = np.isfinite(low)  # none where all seeds are equal
    near = 1e-9 * abs(truth)
    return float(np.mean((low[given] <= truth + near) & (high[given] >= truth - near)))


def mean_coverage(repeats: int, drawn: int = TRUTH) -> Iterator[Row]:
    """How many intervals of a mean would hold the true one, which is why the report gives none."""
    for name, sampler in GROUPS.items():
        truth = float(np.mean(sampler(np.random.default_rng(0), (drawn,))))
        shares: dict[str, list[float | None]] = {"Student's t": [], "BCa": []}
        for seeds in SEEDS:
            samples = sampler(np.random.default_rng(seeds), (repeats, seeds))
            half = stats.t.ppf(0.975, seeds - 1) * stats.sem(samples, axis=-1)
            middle = samples.mean(axis=-1)
            shares["Student's t"].append(_share([(middle - half, middle + half)], truth))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of equal seeds, which have none
                bca = [
                    stats.bootstrap(
                        (part,), np.mean, axis=-1, n_resamples=CURVE_RESAMPLES, rng=np.random.default_rng(0)
                    ).confidence_interval
                    for part in np.array_split(samples, -(-repeats // ROWS))
                ]
            shares["BCa"].append(_share([(one.low, one.high) for one in bca], truth))
        yield from (Row(f"{name}: {method}", found) for method, found in shares.items())


def better_coverage(repeats: int, drawn: int = TRUTH) -> Iterator[Row]:
    """How many intervals of P(better) hold the true one; the baseline has as many seeds, or twice as many."""
    for name, (first, second) in PAIRS.items():
        rng = np.random.default_rng(0)
        x, y = first(rng, (drawn,)), second(rng, (drawn,))
        truth = float(np.mean((x > y) + 0.5 * (x == y)))
        for twice, ending in ((1, ""), (2, "; twice the seeds"))[: 1 if name.startswith("equal") else 2]:
            shares = []
            for seeds in SEEDS:
                rng = np.random.default_rng(seeds)
                pairs = zip(first(rng, (repeats, seeds)), second(rng, (repeats, twice * seeds)), strict=True)
                shares.append(_held([estimate_improvement(*pair) for pair in pairs], truth))
            yield Row(name + ending, shares)
    better, base = PAIRS["solved by 4 in 5 against 1 in 2"]
    rng = np.random.default_rng(0)
    shares = []
    truth = float(np.mean([0.5, np.mean(better(rng, (drawn,)) > base(rng, (drawn,)))]))
    for seeds in SEEDS:
        rng = np.random.default_rng(seeds)
        found = []
        for _ in range(repeats):
            drawn = [(x(rng, (seeds,)), y(rng, (seeds,))) for x, y in ((base, base), (better, base))]
            found.append(improvement_over_tasks(*zip(*drawn, strict=True)))
        shares.append(_held(found, truth))
    yield Row("two environments together", shares)


def _held(found: list, truth: float) -> float | None:
    if any(one.low is None for one in found):
        return None
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def false_alarms(repeats: int, groups: int = 4) -> Iterator[Row]:
    """How often at least one of several groups that equal the baseline is marked as different, after Holm."""
    for name, sampler in GROUPS.items():
        shares: list[float | None] = []
        for seeds in SEEDS:
            rng = np.random.default_rng(seeds)
            marks = [
                [one.stays for one in improvements(list(drawn[1:]), drawn[0])]
                for drawn in sampler(rng, (repeats, groups + 1, seeds))
            ]
            untold = all(mark is None for row in marks for mark in row)
            shares.append(None if untold else float(np.mean([any(row) for row in marks])))
        yield Row(name, shares)


def table(title: str, rows: list[Row]) -> str:
    """Rows as Markdown."""
    lines = [f"| {title} | " + " | ".join(map(str, SEEDS)) + " |", "|---|" + "--:|" * len(SEEDS)]
    for what, shares in rows:
        cells = ("–" if share is None else f"{100 * share:.1f}" for share in shares)
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS, help="samples of each kind")
    parser.add_argument("--truth", type=int, default=TRUTH, help="samples for the true values")
    options = parser.parse_args()
    sizes = options.repeats, options.truth
    print(table("IQM: coverage in %, by seeds", list(iqm_coverage(*sizes))), end="\n\n")
    print(table("mean: coverage in %, by seeds", list(mean_coverage(*sizes))), end="\n\n")
    print(table("P(better): coverage in %, by seeds", list(better_coverage(*sizes))), end="\n\n")
    print(table("false alarms in %, four groups against a baseline", list(false_alarms(*sizes))))


if __name__ == "__main__":
    main()
