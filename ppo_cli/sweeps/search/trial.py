"""One trial of a search: its runs, seed after seed, each watched as it is evaluated."""

import csv
import io
import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from ppo_cli.errors import RunError
from ppo_cli.files import first_line, make_folder, read_text, write_whole
from ppo_cli.runs.evaluation import Evaluation
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.run import run
from ppo_cli.runs.streams import LogFile
from ppo_cli.statistics import iqm
from ppo_cli.sweeps.search.plan import Plan, job_config
from ppo_cli.sweeps.search.settings import Settings
from ppo_cli.sweeps.search.study import report
from ppo_cli.sweeps.sweep import one_line
from ppo_cli.text import short
from ppo_cli.trainer import Position

CURVE = "evaluations.csv"
PRUNED = "pruned.txt"

Curve = dict[int, float]  # mean return of each evaluation, by environment steps


class Pruned(BaseException):
    """The pruner ended a trial, which is no error and leaves no note of one; the message says where."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its value where it is complete, or else a line on why not."""

    state: TrialState
    value: float | None = None
    line: str = ""


def score(curve: Mapping[int, float], objective: str, until: float = math.inf) -> float:
    """What a run is worth by its evaluations up to some step.

    Args:
        curve: of the run, at least one evaluation.
        objective: ``final``, the last of them; ``auc``, their mean, each weighted by the steps since the one
            before, which is the area under the curve divided by the steps.
        until: step to look at; before the first evaluation that one counts.
    """
    points = sorted(curve.items())
    points = [point for point in points if point[0] <= until] or points[:1]
    steps, means = (np.array(column, float) for column in zip(*points, strict=True))
    if objective == "final":
        return float(means[-1])
    return float(np.average(means, weights=np.diff(steps, prepend=0.0)))


def aggregate(scores: Sequence[float], how: str) -> float:
    """The mean of the seeds' scores, or their interquartile mean."""
    return float(iqm(scores) if how == "iqm" else np.mean(sorted(scores)))


def run_trial(plan: Plan, trial: optuna.Trial, folder: Path, values: Mapping[str, str]) -> Outcome:
    """Runs what is missing of a trial; how it ended is in its folder before this returns.

    Args:
        plan: of the search.
        trial: to report to.
        folder: of the trial.
        values: what it has for each axis.

    Raises:
        Interrupted: a signal ended it; it can go on.
    """
    for mark, state in ((PRUNED, TrialState.PRUNED), (RunFolder.failed_txt.name, TrialState.FAIL)):
        if (folder / mark).exists():  # it ended, and the process did before it could tell the study
            return Outcome(state, None, first_line(folder / mark) or f"{mark} is empty")
    curves: list[Curve] = []
    for seed in plan.seeds:
        job = folder / f"seed={seed}"
        try:
            curves.append(_run_seed(plan, trial, job, values, seed, curves))
        except Pruned as end:
            line = f"seed={seed} {end}"
            write_whole(folder / PRUNED, f"{line}\n")
            return Outcome(TrialState.PRUNED, None, line)
        except Exception as error:
            line = f"seed={seed}: {one_line(error)}"
            write_whole(RunFolder(folder).failed_txt, f"{line}\n\n{traceback.format_exc()}")
            return Outcome(TrialState.FAIL, None, line)
    scores = [score(curve, plan.settings.objective) for curve in curves]
    return Outcome(TrialState.COMPLETE, aggregate(scores, plan.settings.aggregate))


def _run_seed(
    plan: Plan,
    trial: optuna.Trial,
    folder: Path,
    values: Mapping[str, str],
    seed: int,
    before: Sequence[Curve],
) -> Curve:
    """The evaluations of one run, which begins, goes on, or is finished already."""
    make_folder(folder)
    curve = _load_curve(folder / CURVE)
    if RunFolder(folder).is_finished and curve:
        return curve
    config = job_config(plan, values, seed)
    handler = LogFile(RunFolder(folder).train_log)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)
    saved, _ = RunFolder(folder).newest()
    total = int(config.total_timesteps)

    def watch(position: Position, evaluation: Evaluation) -> None:
        if not math.isfinite(evaluation.mean):
            raise RunError(f"the evaluation at step {position.steps} returned {evaluation.mean}")
        curve[position.steps] = evaluation.mean
        _save_curve(folder / CURVE, curve)
        if position.steps < total or len(before) < len(plan.seeds) - 1:  # or else the trial is complete
            _report(plan.settings, trial, [*before, curve], position.steps, total)

    try:
        run(config, folder, saved, watch=watch)
    finally:
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    return curve


def _report(settings: Settings, trial: optuna.Trial, curves: Sequence[Curve], steps: int, total: int) -> None:
    """Reports the seeds so far, each as it stood at this step; raises Pruned where the pruner says so.

    Trials are compared at the same seeds and the same fraction of the budget, whatever their rollouts'
    length: steps of Optuna's are points of comparison, of the first seed, then of the second, and so on.
    """
    point = min(settings.evaluations, settings.evaluations * steps // total)
    earlier = [s for s in curves[-1] if settings.evaluations * s // total >= point and s < steps]
    if settings.pruner == "none" or point == 0 or earlier:
        return
    offset = settings.evaluations * (len(curves) - 1)
    value = aggregate([score(curve, settings.objective, steps) for curve in curves], settings.aggregate)
    if report(trial, settings, offset + point, value, offset):
        raise Pruned(f"pruned at step {steps:,}: {short(value)}")


def _load_curve(path: Path) -> Curve:
    if not path.exists():
        return {}
    try:
        rows = csv.DictReader(io.StringIO(read_text(path)))
        curve = {int(row["step"]): float(row["mean"]) for row in rows}
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise RunError(f"{path} is damaged: {one_line(error)}") from error
    if not all(step > 0 and math.isfinite(mean) for step, mean in curve.items()):
        raise RunError(f"{path} is damaged: a step or a mean is no number")
    return curve


def _save_curve(path: Path, curve: Curve) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("step", "mean"), *sorted(curve.items())])
    write_whole(path, text.getvalue())
