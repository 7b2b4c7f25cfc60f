"""What a search has found: its tables, its best trial, and its last lines."""

import csv
import io
import shlex
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import optuna
from omegaconf import OmegaConf
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from ppo_cli.config.convert import learned_part
from ppo_cli.config.quoting import shell_quoted
from ppo_cli.errors import RunError
from ppo_cli.files import printable, write_whole
from ppo_cli.sweeps.ending import failed_table
from ppo_cli.sweeps.schema import PREFIX
from ppo_cli.sweeps.search.plan import Plan, command_line, job_config, trial_folder
from ppo_cli.terminal import is_live, output_console, width, wrapped
from ppo_cli.text import short, words_in

FEWEST = 4  # different values of complete trials that an importance is estimated from


def ended_trials(study: optuna.Study) -> int:
    """How many trials have ended."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def best_so_far(study: optuna.Study) -> list[str]:
    """The best trial in words, where there is one."""
    best = best_trial(study)
    return [] if best is None else [f"best is trial {best.number}: {_value(best)}"]


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial of the highest value, the first of several; None where none is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def _value(trial: FrozenTrial) -> str:
    return short(trial.value or 0.0)  # of a complete one, which has some


def drawn(plan: Plan, trial: optuna.Trial | FrozenTrial) -> dict[str, str]:
    """What a trial has for each axis, as typed."""
    fixed = FixedTrial(trial.params)
    return {axis.key: axis.suggest(fixed) for axis in plan.axes}


def write_tables(folder: Path, plan: Plan, study: optuna.Study) -> None:
    """Writes `trials.csv`, a row a trial, and `best.yaml`, the best one's config as an experiment."""
    trials = study.get_trials(deepcopy=False)
    rows: list[list[object]] = [["number", "state", "value", "folder", *(axis.key for axis in plan.axes)]]
    for trial in trials:
        if trial.state.is_finished():
            values = drawn(plan, trial)
            value = "" if trial.value is None else trial.value
            name = trial_folder(trial.number, values)
            rows.append([trial.number, trial.state.name.lower(), value, name, *values.values()])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(folder / "trials.csv", text.getvalue())
    best = best_trial(study)
    if best is None:
        return
    whole = job_config(plan, drawn(plan, best), plan.seeds[0])
    typed = plan.bases[0].config["eval"]["every"]  # else it is the search's own
    config = OmegaConf.merge(learned_part(whole), {"eval": {**asdict(whole.eval), "every": typed}})
    head = (
        f"# @package _global_\n# Trial {best.number} of {printable(folder.name)}: {_value(best)} "
        f"({_objective(plan)}).\n# As experiment/best.yaml in a folder DIR of yours: "
        "ppo-train --config-dir DIR experiment=best\n"
    )
    write_whole(folder / "best.yaml", head + OmegaConf.to_yaml(config))


def importances(study: optuna.Study) -> dict[str, float]:
    """How much of the variance of the trials' values each axis explains, by itself or with others.

    Functional ANOVA of a random forest (Hutter, Hoos & Leyton-Brown 2014) over the complete trials. A
    pruned one has no value that compares, so that what only bad trials had looks less important than it is.

    Returns:
        Shares in [0, 1] that sum to 1, the largest first; none where fewer than `FEWEST` trials are
        complete, or all returned the same.
    """
    values = {trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
    if len(values) < FEWEST:
        return {}
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {key: float(share) for key, share in shares.items()}


def _say_importances(folder: Path, study: optuna.Study) -> None:
    """Says what mattered, and writes it to `importances.csv`."""
    if find_spec("sklearn") is None:
        print("what mattered: this needs scikit-learn, pip install 'ppo-cli[optuna]'")
        return
    found = importances(study)
    if found:
        rows = [("knob", "importance"), *((key, f"{share:.4f}") for key, share in found.items())]
        write_whole(folder / "importances.csv", "".join(f"{key},{share}\n" for key, share in rows))
        shares = ", ".join(f"{key} {share:.0%}" for key, share in found.items())
        print("\n".join(words_in(f"what mattered: {shares}", width(), 0, 2)))


def _objective(plan: Plan) -> str:
    what = {"final": "last evaluation", "auc": "area under the evaluations"}[plan.settings.objective]
    how = {"mean": "mean", "iqm": "IQM"}[plan.settings.aggregate]
    return f"{what}, {how} of {len(plan.seeds)} seeds"


def conclude(folder: Path, plan: Plan, study: optuna.Study) -> None:
    """Says the best trial and what to type for it; raises RunError with a table where trials failed."""
    trials = study.get_trials(deepcopy=False)
    states = [trial.state.name for trial in trials]
    counts = [("COMPLETE", "complete"), ("PRUNED", "pruned"), ("FAIL", "failed")]
    ended = ", ".join(f"{states.count(state)} {word}" for state, word in counts)
    print(wrapped(f"{len(trials)} trials: {ended} · {folder}"))
    _say_importances(folder, study)
    best = best_trial(study)
    if best is not None:
        values = drawn(plan, best)
        print(f"best: trial {best.number}, {_value(best)} ({_objective(plan)})\n  {folder / 'best.yaml'}")
        print("\n".join(_shell_lines(command_line(plan, values))), flush=True)
    failed = [trial_folder(t.number, drawn(plan, t)) for t in trials if t.state.name == "FAIL"]
    if failed:
        more = f"{PREFIX}n_trials={len(trials) + len(failed)}"
        raise RunError(
            f"{len(failed)} of {len(trials)} trials failed, and are not tried again; `ppo-train "
            f"sweep.resume={shell_quoted(folder)} {more}` draws others{failed_table(folder, failed)}"
        )


def _shell_lines(command: str) -> list[str]:
    """A command as it can be copied: on a live terminal in lines that the shell takes for one."""
    if not is_live(output_console()):
        return [f"  {command}"]
    words = [shlex.quote(word).replace(" ", "\0") for word in shlex.split(command)]
    *lines, last = (line.replace("\0", " ") for line in words_in(" ".join(words), width() - 2, 2, 4))
    return [*(f"{line} \\" for line in lines), last]
