"""What evaluations found, as a terminal shows it: lines for one run, a table for several."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group

from ppo_cli.names import split_name
from ppo_cli.tables import Column, draw
from ppo_cli.text import decimals_of, mean_and_deviation, short

Summary = dict[str, Any]  # of one run: what `ppo-eval --json` writes

DECIMALS = 2  # of returns, at least


@dataclass(frozen=True)
class EvaluatedRun:
    """A run whose policy was evaluated.

    Attributes:
        run: The run, as it was typed.
        summary: The summary of its episodes.
        film: A line on where the film of one of them lies, or nothing.
    """

    run: str
    summary: Summary
    film: str = ""


def lines(evaluated: EvaluatedRun) -> str:
    """What was found of one run, a line each."""
    summary = evaluated.summary
    lengths = summary["lengths"]
    kind = "deterministic" if summary["deterministic"] else "sampled"
    episodes = "episode" if summary["episodes"] == 1 else "episodes"
    text = [
        f"{evaluated.run} · {Path(summary['checkpoint']).name}, {summary['steps']:,} steps · "
        f"{summary['episodes']} {kind} {episodes}, seed {summary['seed']}",
        f"return  {mean_and_deviation(summary['mean'], summary['std'], DECIMALS)}",
        f"IQM     {_rounded(summary['iqm'])}",
        f"95 %    {_interval(summary)} (bootstrap interval of the mean)",
        f"length  {np.mean(lengths):.1f} ({min(lengths)} to {max(lengths)})",
    ]
    text += [f"{key}  {value:.2f}" for key, value in _successes(summary).items()]
    if evaluated.film:
        text.append(f"film    {evaluated.film}")
    return "\n".join(text)


def _successes(summary: Summary) -> dict[str, float]:
    """What the environment told of success: the share of the episodes, by key."""
    return {key: value for key, value in summary.get("info", {}).items() if "success" in key.lower()}


def table(evaluated: Sequence[EvaluatedRun], console: Console) -> Group:
    """A row for each run, in the order in which they were given; what all share is in the title."""
    summaries = [each.summary for each in evaluated]
    how = {
        "actions": ["deterministic" if summary["deterministic"] else "sampled" for summary in summaries],
        "episodes": [f"{summary['episodes']:,}" for summary in summaries],
        "seed": [str(summary["seed"]) for summary in summaries],
        "steps": [f"{summary['steps']:,}" for summary in summaries],
        "checkpoint": [Path(summary["checkpoint"]).name for summary in summaries],
    }
    shared = {key: cells[0] for key, cells in how.items() if len(set(cells)) == 1}
    successes = [_successes(summary) for summary in summaries]
    columns = [
        Column("return", _aligned([mean_and_deviation(s["mean"], s["std"], DECIMALS) for s in summaries])),
        Column("IQM", [_rounded(summary["iqm"]) for summary in summaries], 2),
        Column("95 % of the mean", [_interval(summary) for summary in summaries], 3),
        Column("length", [f"{np.mean(summary['lengths']):,.1f}" for summary in summaries], 4),
        *(
            Column(key, [f"{told[key]:.2f}" if key in told else "" for told in successes], 1)
            for key in dict.fromkeys(key for told in successes for key in told)
        ),
        *(
            Column(key, cells, 0 if key == "steps" else 1, key not in ("actions", "checkpoint"))
            for key, cells in how.items()
            if key not in shared
        ),
    ]
    names = [split_name(os.path.normpath(each.run)) for each in evaluated]
    return draw(console, "run", names, columns, title=_shared_words(shared))


def _shared_words(shared: Mapping[str, str]) -> str:
    """What is the same for all runs, in words."""
    words = []
    if "episodes" in shared:
        words.append(
            " ".join([shared["episodes"], *([shared["actions"]] if "actions" in shared else [])])
            + " episodes each"
        )
    elif "actions" in shared:
        words.append(f"{shared['actions']} episodes")
    if "seed" in shared:
        words.append(f"seed {shared['seed']}")
    if "checkpoint" in shared:
        words.append(shared["checkpoint"])
    if "steps" in shared:
        words.append(f"{shared['steps']} steps")
    return " · ".join(words)


def _aligned(cells: Sequence[str], between: str = " ± ") -> list[str]:
    """Pairs of numbers, each below the one of the row before."""
    pairs = [cell.split(between) for cell in cells]
    width = max(len(second) for _, second in pairs)
    return [f"{first}{between}{second:>{width}}" for first, second in pairs]


def _rounded(value: float) -> str:
    return short(value, max(DECIMALS, decimals_of(value)))


def _interval(summary: Summary) -> str:
    return "–" if summary["interval"] is None else " to ".join(map(_rounded, summary["interval"]))
