"""A comparison as rows for CSV files: numbers, and an empty cell for what does not exist."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ppo_cli.files import printable
from ppo_cli.report.aggregates import Overall
from ppo_cli.report.comparison import Comparison, Summary
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Estimate

Cell = str | float | int | None


def table_rows(comparisons: Iterable[Comparison]) -> Iterator[dict[str, Cell]]:
    """The tables as numbers, a row for each group; an empty cell is what does not exist."""
    for comparison in comparisons:
        for summary in comparison.summaries:
            reached, improvement = summary.reached, summary.improvement
            yield {
                "environment": comparison.env_id,
                "group": summary.group.name,
                "seeds": len(summary.group.runs),
                "failed": sum(name == summary.group.name for name, _ in comparison.failed),
                "steps_min": min(run.last_step for run in summary.group.runs),
                "steps_max": max(run.last_step for run in summary.group.runs),
                "final_return_from": summary.source,
                **_numbers("iqm", summary.iqm),
                "mean": summary.mean,
                **_numbers("auc", summary.area),
                "steps_per_second": summary.speed,
                "threshold": comparison.threshold,
                "reached": None if reached is None else sum(map(math.isfinite, reached)),
                "steps_to_threshold": None if reached is None else _finite(summary.median_steps),
                "baseline": comparison.baseline,
                **_numbers("p_better", None if improvement is None else improvement.estimate),
                "p_value": None if improvement is None else improvement.p_value,
                "stays": None if improvement is None or improvement.stays is None else int(improvement.stays),
                "few": int(summary.few),
                "comparable": int(summary.comparable),
                **{f"info/{key}": _info(summary, key) for key in info_keys(summary.group.runs)},
            }


def curve_rows(comparisons: Iterable[Comparison]) -> Iterator[dict[str, Cell]]:
    """The learning curves, a row for each point."""
    for comparison in comparisons:
        for summary in comparison.summaries:
            if (curve := summary.curve) is None:
                continue
            for point, step in enumerate(curve.steps):
                yield {
                    "environment": comparison.env_id,
                    "group": summary.group.name,
                    "step": float(step),
                    "iqm": float(curve.returns.value[point]),
                    "iqm_low": None if curve.returns.low is None else _finite(curve.returns.low[point]),
                    "iqm_high": None if curve.returns.high is None else _finite(curve.returns.high[point]),
                }


def run_rows(comparisons: Iterable[Comparison]) -> Iterator[dict[str, Cell]]:
    """What was read of each run."""
    for comparison in comparisons:
        for summary in comparison.summaries:
            for position, run in enumerate(summary.group.runs):
                reached = None if summary.reached is None else _finite(summary.reached[position])
                yield {
                    "environment": comparison.env_id,
                    "group": summary.group.name,
                    "seed": run.seed,
                    "folder": printable(str(run.folder)),
                    "status": run.status,
                    "reason": run.reason or run.stopped,
                    "steps": run.last_step,
                    "final_return": run.final_return,
                    "final_return_from": "training" if run.evaluated is None else "evaluation",
                    "steps_per_second": run.speed,
                    "cut_episodes": run.cut_episodes,
                    "steps_to_threshold": reached,
                    **{f"info/{key}": _finite(run.final_info(key)) for key in info_keys([run])},
                }
        for name, lost in comparison.failed:
            if not isinstance(lost, Run):
                yield {
                    "environment": comparison.env_id,
                    "group": name,
                    "seed": lost.seed,
                    "folder": printable(str(lost.folder)),
                    "status": "failed",
                    "reason": lost.reason,
                    "steps": lost.last_step,
                }


def overall_rows(overall: Overall) -> Iterator[dict[str, Cell]]:
    """The aggregates over environments, a row for each group."""
    for group in overall.groups:
        yield {
            "group": group.name,
            "environments": len(overall.scales),
            "runs": group.runs,
            **_numbers("iqm", group.iqm),
            "median": group.median,
            "mean": group.mean,
            "optimality_gap": group.gap,
            "baseline": overall.baseline,
            **_numbers("p_better", group.improvement),
        }


def info_keys(runs: Sequence[Run]) -> list[str]:
    """What runs have logged of their environment's `info`, in alphabetical order."""
    return sorted({key for run in runs for key, values in run.infos.items() if np.isfinite(values).any()})


def _info(summary: Summary, key: str) -> float | None:
    """Mean over seeds of the last tenth of what was logged under a key."""
    values = [run.final_info(key) for run in summary.group.runs]
    logged = [value for value in values if math.isfinite(value)]
    return float(np.mean(logged)) if logged else None


def _numbers(name: str, estimate: Estimate | None) -> dict[str, Cell]:
    """An estimate as three columns."""
    ends = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    keys = (name, f"{name}_low", f"{name}_high")
    return {key: None if end is None else float(end) for key, end in zip(keys, ends, strict=True)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
