"""The groups of one environment, summarised and held against each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppo_cli.report.endings import ending_notes
from ppo_cli.report.groups import RunGroup
from ppo_cli.report.knobs import annealed
from ppo_cli.report.runs import FailedRun, Run
from ppo_cli.report.statistics import (
    CURVE_RESAMPLES,
    FEWEST_FOR_IQM,
    FEWEST_SEEDS,
    WINDOW,
    Estimate,
    Improvement,
    common_span,
    estimate,
    improvements,
    interpolate,
    mean_over_steps,
    smoothed_curve,
    smoothing,
    steps_to_threshold,
)
from ppo_cli.statistics import Floats, iqm

UNLIKE_STEPS = "steps not equal"
UNLIKE_RETURNS = "returns not alike"  # of evaluations and of training, or of two kinds of evaluation
ROUNDED = 1.02  # how far apart the steps of one budget may be, in whole iterations, without a note
WHY = {
    UNLIKE_STEPS: "runs' steps are not equal",
    UNLIKE_RETURNS: "final returns are not of one kind of evaluation or of training alone",
}
GAINED = 0.9  # of what the baseline gains in training: the threshold where nobody names one


@dataclass(frozen=True)
class Curve:
    """A group's smoothed learning curve, up to where its shortest run stands.

    Attributes:
        steps: The steps of its points.
        returns: The interquartile mean over the seeds, which of one to three seeds is their mean.
        each: The runs' own curves, a column a run.
    """

    steps: Floats
    returns: Estimate
    each: Floats

    @property
    def seeds(self) -> int:
        """Number of runs that it is of."""
        return int(self.each.shape[-1])


@dataclass(frozen=True)
class Summary:
    """What is said of one group.

    Attributes:
        group: The group.
        iqm: The interquartile mean of the final returns.
        mean: The mean of final returns, which gets no interval: of few seeds none covers where a few runs are
            far from the others.
        area: The interquartile mean over the runs of the mean return over the steps that all runs of the
            environment have; None where there are none.
        curve: The learning curve; None where the runs have no steps in common.
        reached: The steps of each run to the threshold, infinite where it was not reached; None without one.
        improvement: How its final returns do against the baseline's; None for the baseline, and where the two
            are not comparable.
        unlike: A few words on why its final returns can't be held against the baseline's, or nothing.
    """

    group: RunGroup
    iqm: Estimate
    mean: float
    area: Estimate | None
    curve: Curve | None
    reached: Floats | None
    improvement: Improvement | None
    unlike: str

    @property
    def comparable(self) -> bool:
        """Whether its final returns can be held against the baseline's."""
        return not self.unlike

    @property
    def few(self) -> bool:
        """Whether it has fewer seeds than an interval takes."""
        return len(self.group.runs) < FEWEST_SEEDS

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
        env_id: The environment.
        summaries: The summaries of its groups, in the order of their knobs.
        baseline: The name of the group that the others are held against.
        threshold: The return that `Summary.reached` asks for, or None.
        span: The steps that all runs have, or None.
        derived: Whether the threshold was taken from the baseline's learning curve.
        smooth: The number of logged returns that are averaged in learning curves and for the threshold.
        failed: The runs that failed, in the order of the groups: each group's name and the run.
        asked: The name of the group that was to be the baseline, or None.
    """

    env_id: str
    summaries: tuple[Summary, ...]
    baseline: str
    threshold: float | None
    span: tuple[float, float] | None
    derived: bool = False
    smooth: int = WINDOW
    failed: tuple[tuple[str, Run | FailedRun], ...] = ()
    asked: str | None = None

    @property
    def goal(self) -> str:
        """The threshold with all its digits."""
        return f"{self.threshold:.12g}"

    def notes(self) -> list[str]:
        """Lines on what a reader of the table must know, but for the failed runs, which have their own."""
        runs = [run for summary in self.summaries for run in summary.group.runs]
        lines = ending_notes([summary.group for summary in self.summaries])
        if self.asked not in (None, self.baseline) and self.summaries:
            lines.append(
                f"The baseline is {self.baseline}: no run of {self.asked} here to hold the others against."
            )
        lines += self._apart()
        lines += self._tests()
        if any(len(summary.group.runs) < FEWEST_FOR_IQM for summary in self.summaries):
            lines.append(
                f"Too few seeds to tell: an IQM has an interval from {FEWEST_FOR_IQM} seeds on, P(better) "
                f"and its test from {FEWEST_SEEDS} on each side; with fewer it would not hold what it says."
            )
        if len({run.evaluated is None for run in runs}) > 1:
            lines.append("Final returns of evaluations and of training, whose policy samples, are not alike.")
        steps = [run.last_step for run in runs if run.status == "finished" and not run.stopped]
        if steps and len({run.budget for run in runs}) == 1 and max(steps) > ROUNDED * min(steps):
            lines.append(
                f"Finished runs trained for {min(steps):,} to {max(steps):,} steps: a budget is rounded up "
                "to whole iterations."
            )
        evaluations = sorted({run.evaluation for run in runs if run.evaluated is not None})
        if len(evaluations) > 1:
            lines.append(f"Final returns are of unlike evaluations: {'; '.join(evaluations)}.")
        if self.span:
            lines.append(f"AUC: mean return over steps {self.span[0]:,.0f} to {self.span[1]:,.0f}.")
        elif runs:
            lines.append("AUC: the runs have no steps in common at which episodes ended.")
        if self.threshold is not None:
            short = any(smoothing(len(run.returns), self.smooth) < self.smooth for run in runs)
            few = " (of a run with few, half of them)" if short else ""
            lines.append(
                f"Steps to {self.goal}: median over the runs of the first step at which the last "
                f"{self.smooth} logged returns{few} average to it, and how many runs got there."
            )
        if self.derived:
            lines.append(
                f"{self.goal} is {GAINED:.0%} of the way that {self.baseline} comes in training; "
                f"--threshold {self.env_id}=NUMBER asks for another return."
            )
        return lines

    def _apart(self) -> list[str]:
        """Lines on the groups that are not compared with the baseline, and why."""
        base = next((summary for summary in self.summaries if summary.group.name == self.baseline), None)
        others = [summary for summary in self.summaries if summary is not base]
        if base is None or not others:
            return []
        if base.unlike:
            return [f"None is compared with {self.baseline}, whose own {WHY[base.unlike]}."]
        lines = []
        for short, why in WHY.items():
            if names := "; ".join(summary.group.name for summary in others if summary.unlike == short):
                lines.append(f"Not compared with {self.baseline}, since the {why}: {names}.")
        return lines

    def _tests(self) -> list[str]:
        """A line on which comparisons with the baseline stay after correction for their number."""
        found = [(summary.group.name, summary.improvement) for summary in self.summaries]
        tested = [(name, one) for name, one in found if one is not None and one.p_value is not None]
        if not tested:
            return []
        many = f"{len(tested)} comparison{'s' if len(tested) > 1 else ''} with {self.baseline}"
        if all(one.stays is None for _, one in tested):
            return [f"{many}: too few seeds to tell any apart after Holm's correction for so many."]
        names = "; ".join(name for name, one in tested if one.stays)
        what = f"these differ at the 5 % level: {names}" if names else "none differs at the 5 % level"
        return [f"{many}, exact rank tests, after Holm's correction {what}."]


def compare(
    env_id: str,
    groups: Sequence[RunGroup],
    threshold: float | None = None,
    baseline: str | None = None,
    smooth: int = WINDOW,
) -> Comparison:
    """Summarises the groups of one environment.

    Args:
        env_id: The environment.
        groups: The groups, at least one; those whose runs all failed early are listed and not summarised.
        threshold: A return to reach; None takes one from the baseline's learning curve.
        baseline: The name of the group to hold the others against; the first with runs where it is None, or
            none with runs has it.
        smooth: The number of logged returns that are averaged in learning curves and for the threshold.
    """
    failed = tuple((group.name, run) for group in groups for run in _failed(group))
    groups = [group for group in groups if group.runs]
    if not groups:
        return Comparison(env_id, (), "", None, None, smooth=smooth, failed=failed)
    base = next((group for group in groups if group.name == baseline), groups[0])
    span = common_span([(run.steps, run.returns) for group in groups for run in group.runs])
    derived = threshold is None
    if threshold is None:
        threshold = _most_of_the_way(_curve(base.runs, smooth))
    improvements = _improvements(base, groups)
    summaries = []
    for group, improvement in zip(groups, improvements, strict=True):
        final = _final_returns(group)
        reached = None
        if threshold is not None:
            reached = np.array([steps_to_threshold(run, threshold, smooth) for run in group.runs])
        summaries.append(
            Summary(
                group=group,
                iqm=_final(group, final),
                mean=float(final.mean()),
                area=_area(group.runs, span),
                curve=_curve(group.runs, smooth),
                reached=reached,
                improvement=improvement,
                unlike=unlike(group, base),
            )
        )
    return Comparison(
        env_id,
        tuple(summaries),
        base.name,
        threshold,
        span,
        derived and threshold is not None,
        smooth,
        failed,
        baseline,
    )


def cross_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Lines on knobs that are swept in several environments and mean different things there."""
    swept = {
        comparison.env_id: comparison.summaries[0].group.knobs
        for comparison in comparisons
        if comparison.summaries
    }
    lines = []
    for knob in dict.fromkeys(name for knobs in swept.values() for name in knobs):
        manners: dict[str, list[str]] = {}
        for comparison in comparisons:
            if knob in swept.get(comparison.env_id, ()):
                manners.setdefault(_manner(comparison, knob), []).append(comparison.env_id)
        if len(manners) > 1:
            where = "; ".join(f"{manner} in {', '.join(env_ids)}" for manner, env_ids in manners.items())
            lines.append(f"{knob} is not one knob in all environments: {where}.")
    return lines


def _manner(comparison: Comparison, knob: str) -> str:
    """How a knob changes over the runs of an environment, in words."""
    found = {annealed(summary.group.runs[0].knobs, knob) for summary in comparison.summaries}
    return " or ".join(f"annealed ({way})" if way else "constant" for way in sorted(found))


def _improvements(base: RunGroup, groups: Sequence[RunGroup]) -> list[Improvement | None]:
    """Each group against the baseline; None for the baseline itself, and where the two are not comparable."""
    compared = [group is not base and not unlike(group, base) for group in groups]
    finals = [
        _final_returns(group) for group, is_compared in zip(groups, compared, strict=True) if is_compared
    ]
    found = iter(improvements(finals, _final_returns(base)))
    return [next(found) if is_compared else None for is_compared in compared]


def unlike(*groups: RunGroup) -> str:
    """Why final returns can't be held against each other, a key of `WHY`; nothing where they can.

    They can where all runs have used up one budget, or stand at one step, and returns are of one kind: a
    deterministic policy returns more than one that samples, whatever was learned. Of a group in which runs
    failed early, those that are left are no fair sample.
    """
    runs = [run for group in groups for run in group.runs]
    whole = all(run.status == "finished" and not run.stopped for run in runs)
    is_alike = (whole and len({run.budget for run in runs}) == 1) or len({run.last_step for run in runs}) == 1
    if any(group.failed for group in groups) or not is_alike:
        return UNLIKE_STEPS
    return UNLIKE_RETURNS if len({run.kind for run in runs}) > 1 else ""


def _failed(group: RunGroup) -> list[Run | FailedRun]:
    runs: list[Run | FailedRun] = [run for run in group.runs if run.status == "failed"]
    runs += group.failed
    return sorted(runs, key=lambda run: run.seed)


def _most_of_the_way(curve: Curve | None) -> float | None:
    """A return that is reached late in a learning curve; None where it does not rise.

    It has three digits of what is gained: those of the return itself may be above all of the curve.
    """
    if curve is None:
        return None
    first, last = float(curve.returns.value[0]), float(curve.returns.value[-1])
    gain = last - first
    return round(first + GAINED * gain, 2 - math.floor(math.log10(gain))) if gain > 0 else None


def _final_returns(group: RunGroup) -> Floats:
    return np.array([run.final_return for run in group.runs])


def _final(group: RunGroup, final: Floats) -> Estimate:
    """The IQM of final returns; no interval where they are no sample of one thing."""
    why = unlike(group)
    return Estimate(iqm(final), why=why) if why else estimate(final)


def _area(runs: Sequence[Run], span: tuple[float, float] | None) -> Estimate | None:
    if span is None:
        return None
    return estimate(np.array([mean_over_steps(run, span) for run in runs]))


def _curve(runs: Sequence[Run], smooth: int) -> Curve | None:
    curves = [smoothed_curve(run, smooth) for run in runs]
    span = common_span(curves)
    if span is None:
        return None
    steps, returns = interpolate(curves, span)
    return Curve(steps, estimate(returns, CURVE_RESAMPLES), returns)
