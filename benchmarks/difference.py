"""Our returns against a peer's: means over seeds, and the bootstrap interval of their difference.

    for s in 0 1 2; do python benchmarks/returns.py env=Hopper-v5 seed=$s eval.episodes=100; done > sb3.txt
    ppo-train -m env=Hopper-v5 eval.episodes=100 'seed=range(3)'
    python benchmarks/difference.py sb3.txt outputs/sweeps/2026-01-31_12-00-00/*/eval.json

The first file holds the peer's evaluations, a line of JSON each; the others are ours.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ppo_cli.statistics import Floats, bootstrap_interval


def main() -> None:
    """Reads a file of the peer's JSON lines and our runs' eval.json, and prints."""
    peer, *ours = map(Path, sys.argv[1:])
    theirs = means(line for line in peer.read_text().splitlines() if line.startswith("{"))
    own = means(path.read_text() for path in ours)
    for name, values in (("ours", own), ("peer", theirs)):
        seeds = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name:10} {text(np.mean, values)}  seeds: {seeds}")
    print(f"{'difference':10} {text(difference, own, theirs)}")


def means(evaluations: Iterable[str]) -> Floats:
    """The mean return of each evaluation."""
    return np.array([json.loads(evaluation)["mean"] for evaluation in evaluations])


def difference(x: Floats, y: Floats, axis: int = -1) -> Floats:
    """Difference of the means over seeds."""
    return np.asarray(np.mean(x, axis) - np.mean(y, axis))


def text(statistic: Callable[..., Floats], *samples: Floats) -> str:
    """A statistic with its 95 % percentile bootstrap interval, where there are two seeds or more."""
    value = f"{statistic(*samples):.1f}"
    if min(map(len, samples)) < 2:
        return value
    low, high = bootstrap_interval(samples, statistic, resamples=2_000)
    return f"{value} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
