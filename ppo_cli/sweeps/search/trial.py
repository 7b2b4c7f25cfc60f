"""One trial of a search: its runs, seed after seed, each watched as it is evaluated."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from ppo_cli.config.convert import to_dict
from ppo_cli.config.schema import Config
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import RunError
from ppo_cli.files import first_line, make_folder, read_text, write_whole
from ppo_cli.hooks import Hook, RunState
from ppo_cli.runs.caller import Caller
from ppo_cli.runs.folder import RunFolder
from ppo_cli.statistics import iqm
from ppo_cli.sweeps.job import Job, begin_or_go_on, failure_note, one_line
from ppo_cli.sweeps.live import Board
from ppo_cli.sweeps.schema import SearchSettings
from ppo_cli.sweeps.search.plan import Plan, job_config
from ppo_cli.sweeps.search.study import report
from ppo_cli.terminal import is_live, output_console
from ppo_cli.text import short

CURVE = "evaluations.csv"
PRUNED, FAILED = "pruned.txt", RunFolder.failed_txt.name

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
        curve: The curve of the run, at least one evaluation.
        objective: ``final``, the last of them; ``auc``, their mean, each weighted by the steps since the one
            before, which is the area under the curve divided by the steps.
        until: The step to look at; before the first evaluation that one counts.
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


class Pruning(Hook):
    """Keeps the curve of a run, and ends a trial that the pruner gives up."""

    def __init__(
        self, plan: Plan, trial: optuna.Trial, path: Path, curve: Curve, before: Sequence[Curve]
    ) -> None:
        """Follows the evaluations of a run.

        Args:
            plan: The plan of the search.
            trial: The trial to report to.
            path: The path of the file in which the curve is kept.
            curve: The evaluations of the run so far, to which its further ones are added.
            before: The curves of the seeds before.
        """
        self._plan, self._trial, self._path, self._curve, self._before = plan, trial, path, curve, before

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Reports it.

        Raises:
            Pruned: The pruner gives up.
            RunError: The mean return is not finite.
        """
        if not math.isfinite(evaluation.mean):
            raise RunError(f"the evaluation at step {run.steps} returned {evaluation.mean}")
        self._curve[run.steps] = evaluation.mean
        _save_curve(self._path, self._curve)
        is_last_seed = len(self._before) == len(self._plan.seeds) - 1
        if not (run.is_over and is_last_seed):  # or else the trial is complete
            curves = [*self._before, self._curve]
            _report(self._plan.settings, self._trial, curves, run.steps, run.total_timesteps)


def run_trial(plan: Plan, trial: optuna.Trial, folder: Path, values: Mapping[str, str]) -> Outcome:
    """Runs what is missing of a trial; how it ended is in its folder before this returns.

    Args:
        plan: The plan of the search.
        trial: The trial to report to.
        folder: The folder of the trial.
        values: The trial's value for each axis.

    Raises:
        Interrupted: a signal ended it; it can go on.
    """
    for mark, state in ((PRUNED, TrialState.PRUNED), (FAILED, TrialState.FAIL)):
        if (folder / mark).exists():  # it ended, and the process did before it could tell the study
            return Outcome(state, None, first_line(folder / mark) or f"{mark} is empty")
    curves: list[Curve] = []
    seed = plan.seeds[0]
    try:
        configs = {seed: job_config(plan, values, seed) for seed in plan.seeds}
        with _table(folder, configs):
            for seed, config in configs.items():
                curves.append(_run_seed(plan, trial, folder / f"seed={seed}", config, curves))
    except Pruned as end:
        line = f"seed={seed} {end}"
        write_whole(folder / PRUNED, f"{line}\n")
        return Outcome(TrialState.PRUNED, None, line)
    except Exception as error:
        write_whole(folder / FAILED, f"seed={seed}: {failure_note(error)}")
        return Outcome(TrialState.FAIL, None, f"seed={seed}: {one_line(error)}")
    scores = [score(curve, plan.settings.objective) for curve in curves]
    return Outcome(TrialState.COMPLETE, aggregate(scores, plan.settings.aggregate))


def _table(folder: Path, configs: Mapping[int, Config]) -> AbstractContextManager[object]:
    """Shows on a terminal, while a trial runs, how far those of its runs are that are not finished."""
    if not is_live(output_console()):
        return nullcontext()
    jobs = [Job(f"seed={seed}", [f"seed={seed}"], to_dict(config)) for seed, config in configs.items()]
    return Board(
        folder, [job for job in jobs if not RunFolder(folder / job.folder).is_finished], passing=True
    )


def _run_seed(
    plan: Plan, trial: optuna.Trial, folder: Path, config: Config, before: Sequence[Curve]
) -> Curve:
    """The evaluations of one run, which begins, goes on, or is finished already."""
    make_folder(folder)
    curve = _load_curve(folder / CURVE)
    if RunFolder(folder).is_finished and curve:
        return curve
    hook = Pruning(plan, trial, folder / CURVE, curve, before)
    begin_or_go_on(config, folder, Caller(live=False, own_hooks=[hook]))
    return curve


def _report(
    settings: SearchSettings, trial: optuna.Trial, curves: Sequence[Curve], steps: int, total: int
) -> None:
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
