"""The groups of one environment, summarised and held against each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppo_cli.report.runs import Floats, Group, Run
from ppo_cli.report.statistics import (
    WINDOW,
    Estimate,
    common_span,
    estimate,
    interpolate,
    iqm,
    mean,
    mean_over_steps,
    probability_of_improvement,
    steps_to_threshold,
)

GAINED = 0.9  # of what the baseline gains in training: the threshold where nobody names one


@dataclass(frozen=True)
class Curve:
    """A group's learning curve, up to where its shortest run stands."""

    steps: Floats
    returns: Estimate


@dataclass(frozen=True)
class Summary:
    """What is said of one group.

    Attributes:
        group: the group.
        iqm: interquartile mean of the final returns.
        mean: mean of the final returns.
        area: mean return over the steps that all runs of the environment have; None where there are none.
        curve: the learning curve; None where the runs have no steps in common.
        reached: steps of each run to the threshold, infinite where it was not reached; None without one.
        improvement: probability of a better final return than the baseline's; None for the baseline.
    """

    group: Group
    iqm: Estimate
    mean: Estimate
    area: Estimate | None
    curve: Curve | None
    reached: Floats | None
    improvement: Estimate | None

    @property
    def speed(self) -> float:
        """Environment steps per second, the median of the runs."""
        return float(np.median([run.speed for run in self.group.runs]))

    @property
    def median_steps(self) -> float:
        """Median over runs of the steps to the threshold; infinite where half the runs did not reach it."""
        assert self.reached is not None
        middle = (len(self.reached) - 1) // 2, len(self.reached) // 2
        return float(np.sort(self.reached)[list(middle)].mean())

    @property
    def source(self) -> str:
        """Where the final returns are from."""
        evaluated = sum(run.evaluated is not None for run in self.group.runs)
        if evaluated in (0, len(self.group.runs)):
            return "evaluation" if evaluated else "training"
        return f"{evaluated} evaluation, {len(self.group.runs) - evaluated} training"


@dataclass(frozen=True)
class Comparison:
    """What is said of one environment.

    Attributes:
        env_id: the environment.
        summaries: of its groups, in the order of their knobs.
        baseline: the name of the group that the others are held against.
        threshold: the return that `Summary.reached` asks for, or None.
        derived: whether the threshold was taken from the baseline's learning curve.
        span: the steps that all runs have, or None.
    """

    env_id: str
    summaries: tuple[Summary, ...]
    baseline: str
    threshold: float | None
    span: tuple[float, float] | None
    derived: bool = False

    def notes(self) -> list[str]:
        """Lines on what a reader of the table must know."""
        runs = [run for summary in self.summaries for run in summary.group.runs]
        lines = [_unfinished(summary.group) for summary in self.summaries if _is_going(summary.group)]
        lines += [_inexact(summary.group) for summary in self.summaries if _is_inexact(summary.group)]
        if any(len(summary.group.runs) == 1 for summary in self.summaries):
            lines.append("One seed gives no interval.")
        if any(len(summary.group.runs) in (2, 3, 4) for summary in self.summaries):
            lines.append("Intervals from two to four seeds are too narrow: take them as a hint.")
        if len({run.evaluated is None for run in runs}) > 1:
            lines.append("Final returns of evaluations and of training, whose policy samples, are not alike.")
        unlike = sorted({run.evaluation for run in runs if run.evaluated is not None})
        if len(unlike) > 1:
            lines.append(f"Final returns are of unlike evaluations: {'; '.join(unlike)}.")
        if self.span:
            lines.append(f"AUC: mean return over steps {self.span[0]:,.0f} to {self.span[1]:,.0f}.")
        else:
            lines.append("AUC: the runs have no steps in common at which episodes ended.")
        if self.threshold is not None:
            lines.append(
                f"Steps to {self.threshold:g}: median over the runs of the first step at which the last "
                f"{WINDOW} logged returns average to it, and how many runs got there."
            )
        if self.derived:
            lines.append(
                f"{self.threshold:g} is {GAINED:.0%} of the way that {self.baseline} comes in training; "
                f"--threshold {self.env_id}=NUMBER asks for another return."
            )
        return lines


def compare(
    env_id: str, groups: Sequence[Group], threshold: float | None = None, baseline: str | None = None
) -> Comparison:
    """Summarises the groups of one environment.

    Args:
        env_id: the environment.
        groups: its groups, at least one.
        threshold: a return to reach; None takes one from the baseline's learning curve.
        baseline: name of the group to hold the others against; the first where it is None or not among them.
    """
    base = next((group for group in groups if group.name == baseline), groups[0])
    span = common_span([run for group in groups for run in group.runs])
    derived = threshold is None
    if threshold is None:
        threshold = _most_of_the_way(_curve(base.runs))
    summaries = []
    for group in groups:
        final = _final_returns(group)
        reached = None
        if threshold is not None:
            reached = np.array([steps_to_threshold(run, threshold) for run in group.runs])
        improvement = None
        if group is not base:
            improvement = estimate(probability_of_improvement, final, _final_returns(base))
        summaries.append(
            Summary(
                group=group,
                iqm=estimate(iqm, final),
                mean=estimate(mean, final),
                area=_area(group.runs, span),
                curve=_curve(group.runs),
                reached=reached,
                improvement=improvement,
            )
        )
    return Comparison(env_id, tuple(summaries), base.name, threshold, span, derived and threshold is not None)


def _most_of_the_way(curve: Curve | None) -> float | None:
    """A return that is reached late in a learning curve; None where it does not rise."""
    if curve is None:
        return None
    first, last = float(curve.returns.value[0]), float(curve.returns.value[-1])
    return float(f"{first + GAINED * (last - first):.3g}") if last > first else None


def _final_returns(group: Group) -> Floats:
    return np.array([run.final_return for run in group.runs])


def _area(runs: Sequence[Run], span: tuple[float, float] | None) -> Estimate | None:
    if span is None:
        return None
    return estimate(mean, np.array([mean_over_steps(run, span) for run in runs]))


def _curve(runs: Sequence[Run]) -> Curve | None:
    span = common_span(runs)
    if span is None:
        return None
    steps, returns = interpolate(runs, span)
    return Curve(steps, estimate(iqm, returns))


def _is_going(group: Group) -> bool:
    return any(run.last_step < run.budget for run in group.runs)


def _is_inexact(group: Group) -> bool:
    return any(run.cut_episodes for run in group.runs)


def _inexact(group: Group) -> str:
    cut = [run for run in group.runs if run.cut_episodes]
    seeds = ", ".join(str(run.seed) for run in cut)
    return (
        f"{group.name}: {len(cut)} of {len(group.runs)} runs (seed {seeds}) went on after a stop with new "
        "episodes, and are not to the bit what they would have been."
    )


def _unfinished(group: Group) -> str:
    going = [run for run in group.runs if run.last_step < run.budget]
    least = min(run.last_step for run in going)
    seeds = ", ".join(str(run.seed) for run in going)
    return (
        f"{group.name}: {len(going)} of {len(group.runs)} runs (seed {seeds}) still short of "
        f"{group.runs[0].budget:,} steps; the shortest stands at {least:,}."
    )
