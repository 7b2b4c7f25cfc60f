"""Searches: `ppo-train -m hydra/sweeper=optuna ...`, and `ppo-train sweep.resume=DIR`, which joins one.

The study (SQLite) says which trials there are and what they draw; the folders say what has been run. A
process owns a trial by a lock that ends with the process, so that what a dead one leaves is taken over.
"""

import csv
import io
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from ppo_cli.config.compose import fixed_folder
from ppo_cli.config.convert import from_stored, learned_part
from ppo_cli.config.quoting import shell_quoted
from ppo_cli.config.schema import ConfigError
from ppo_cli.config.trust import imports
from ppo_cli.errors import RunError
from ppo_cli.files import first_line, lock_file, make_folder, printable, write_whole
from ppo_cli.runs.endings import StopSignal
from ppo_cli.runs.folder import RunFolder
from ppo_cli.sweeps.eta import about
from ppo_cli.sweeps.search.plan import (
    PLAN,
    Plan,
    check_classes,
    command_line,
    job_config,
    load_plan,
    make_plan,
    save_plan,
    trial_folder,
)
from ppo_cli.sweeps.search.settings import PREFIX
from ppo_cli.sweeps.sweep import one_line, sweep_folder, table
from ppo_cli.terminal import is_live, output_console, width, wrapped
from ppo_cli.text import short, words_in

if TYPE_CHECKING:
    import optuna

    from ppo_cli.sweeps.search.trial import Outcome

SWEEPER = "hydra/sweeper=optuna"
STUDY = "study.db"
LOCKS = ".locks"
PAUSE = 1.0  # seconds between looks at what another process does


@dataclass(frozen=True)
class Claim:
    """A trial that this process owns."""

    trial: "optuna.Trial"
    values: dict[str, str]


@dataclass(frozen=True)
class Pace:
    """When a process began to take part in a search, and how many trials had ended then.

    Attributes:
        began: in seconds of some clock.
        ended: number of trials.
    """

    began: float
    ended: int

    def left(self, now: float, ended: int, total: int) -> float | None:
        """Seconds for the trials that are left, at the rate at which all processes together ended some.

        Args:
            now: on the same clock.
            ended: number of trials that have ended.
            total: number of all.
        """
        if ended <= self.ended or ended >= total:
            return None
        return (now - self.began) * (total - ended) / (ended - self.ended)


def choose_search(overrides: Sequence[str]) -> list[str]:
    """The overrides, with the sweeper that a ready space, ``search=NAME``, is for."""
    ready = any(override.startswith("search=") for override in overrides)
    if ready and not any(override.startswith("hydra/sweeper=") for override in overrides):
        return [*overrides, SWEEPER]
    return list(overrides)


def check_optuna() -> None:
    """Raises ConfigError, which names the extra to install, where Optuna is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{SWEEPER} needs an extra: pip install 'ppo-cli[optuna]'") from error


def start_search(
    typed: Sequence[str],
    overrides: Sequence[str],
    config_dir: str | None,
    config_name: str,
    go_on: bool = False,
) -> None:
    """Composes and checks a search, makes its folder, and runs it.

    Args:
        typed: overrides as the user typed them.
        overrides: the same in Hydra's own terms.
        config_dir: a folder of the user's own files, or None.
        config_name: of the primary config.
        go_on: with the search that is there already, if one is.

    Raises:
        ConfigError: it can't be searched like that, or another search is there; there is no folder then.
        Interrupted: a signal ended it.
        RunError: trials failed.
    """
    check_optuna()
    plan = make_plan(typed, overrides, config_dir, config_name)
    there = fixed_folder("sweep") if go_on else None
    if there is not None and is_search(there):
        if load_plan(there) != plan:
            raise ConfigError(
                f"the search in {there} is another than is typed now; name another folder for this one, or "
                f"sweep.resume={shell_quoted(there)} to go on with that"
            )
        _search(there, plan)
        return
    with sweep_folder() as folder:
        save_plan(plan, folder)
        seeds = f"{len(plan.seeds)} seeds each"
        print(f"a search of {plan.settings.n_trials} trials, {seeds} · {folder}", flush=True)
        _search(folder, plan)


def is_search(folder: Path) -> bool:
    """Whether a folder is that of a search."""
    return (folder / PLAN).is_file()


def resume_search(folder: Path, overrides: Sequence[str]) -> None:
    """Takes part in a search: goes on with what no process works on, and draws what is missing.

    Args:
        folder: of the search.
        overrides: ``hydra.sweeper.n_trials=N`` or none.

    Raises:
        ConfigError: an override can't be taken.
        Interrupted: a signal ended it.
        RunError: trials failed.
    """
    check_optuna()
    plan = load_plan(folder)
    key = f"{PREFIX}n_trials"
    for override in overrides:
        name, _, number = override.partition("=")
        if name != key or not number.isdigit():
            raise ConfigError(f"{override}: on going on with a search only {key}=N, an integer, can change")
        plan = replace(plan, settings=replace(plan.settings, n_trials=int(number)))
    if overrides:
        check_classes(plan.settings)
        save_plan(plan, folder)
    lines = (line for base in plan.bases for line in imports(from_stored(base.config), folder / PLAN))
    for line in dict.fromkeys(lines):
        print(line, flush=True)
    _search(folder, plan)


def _search(folder: Path, plan: Plan) -> None:
    """Runs trials until none is left, of another process neither, and says what was found."""
    from ppo_cli.sweeps.search.study import open_study

    advice = f"`ppo-train sweep.resume={shell_quoted(folder)}` goes on with the search"
    _own_folder(folder / LOCKS)
    with StopSignal(lambda: advice, at_once=True):  # while a run trains, its own takes over
        with lock_file(folder / LOCKS / "study"), _reading(folder):
            study = open_study(folder / STUDY, plan.settings)
            pace = Pace(time.monotonic(), _ended_trials(study))
        said = False
        while True:
            StopSignal.check()
            with _claim(folder, plan, study) as claim:
                if claim is not None:
                    _run_claim(folder, plan, study, claim, pace)
                    said = False
                    continue
            with _reading(folder):
                running = _running(study)
            if not running:
                break
            if not said:
                print(f"waiting for trial {running[0].number}, which another process runs", flush=True)
            said = True
            time.sleep(PAUSE)
    with _reading(folder):
        _conclude(folder, plan, study)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """What goes wrong inside is the study's: Optuna and SQLAlchemy raise whatever its contents lead to.

    Raises:
        ConfigError: the study can't be read, in one line.
    """
    try:
        yield
    except (ConfigError, RunError, OSError):
        raise
    except Exception as error:
        raise ConfigError(
            f"{folder / STUDY} is damaged, or no study of this search: {one_line(error)}"
        ) from error


def _own_folder(path: Path) -> None:
    try:
        make_folder(path)
    except OSError as error:
        raise ConfigError(str(error)) from error


def _running(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


@contextmanager
def _claim(folder: Path, plan: Plan, study: "optuna.Study") -> Iterator[Claim | None]:
    """A trial for this process to own meanwhile: one that a dead process left, or else a new one, or None."""
    with ExitStack() as own:
        with lock_file(folder / LOCKS / "study"), _reading(folder):  # one process at a time
            trial = _take(folder, plan, study, own)
            values = {axis.key: axis.suggest(trial) for axis in plan.axes} if trial is not None else {}
        yield None if trial is None else Claim(trial, values)


def _take(folder: Path, plan: Plan, study: "optuna.Study", own: ExitStack) -> "optuna.Trial | None":
    import optuna

    for left in _running(study):
        try:
            own.enter_context(lock_file(folder / LOCKS / str(left.number), "it has an owner"))
        except OSError:
            continue
        return optuna.Trial(study, left._trial_id)
    if len(study.get_trials(deepcopy=False)) >= plan.settings.n_trials:
        return None
    trial = study.ask()
    own.enter_context(lock_file(folder / LOCKS / str(trial.number), "it has an owner"))
    return trial


def _run_claim(folder: Path, plan: Plan, study: "optuna.Study", claim: Claim, pace: Pace) -> None:
    """Runs a trial, tells the study, says lines on it, and brings the tables up to date."""
    from ppo_cli.sweeps.search.trial import run_trial  # late: it brings PyTorch

    number, values = claim.trial.number, claim.values
    own = folder / trial_folder(number, values)
    goes_on = " goes on" if own.exists() else ""
    _own_folder(own)
    knobs = " ".join(f"{key}={value}" for key, value in values.items())
    print("\n".join(words_in(f"trial {number}{goes_on}: {knobs}", width(), 0, 2)), flush=True)
    outcome = run_trial(plan, claim.trial, own, values)
    with (
        lock_file(folder / LOCKS / "study"),
        _reading(folder),
    ):  # the trial's is held still: told, then let go
        study.tell(claim.trial, outcome.value, outcome.state)
        write_tables(folder, plan, study)
        ended, best = _ended_trials(study), _best_so_far(study)
    state = [f"{ended}/{plan.settings.n_trials} trials", *best]
    if (left := pace.left(time.monotonic(), ended, plan.settings.n_trials)) is not None:
        state.append(about(left))
    print(wrapped(f"trial {number} {_ended(outcome)}"))
    print(f"  {' · '.join(state)}", flush=True)


def _ended_trials(study: "optuna.Study") -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _ended(outcome: "Outcome") -> str:
    if outcome.value is not None:
        return f"returned {short(outcome.value)}"
    if outcome.state.name == "FAIL":
        return f"failed: {outcome.line}"
    return outcome.line.replace("pruned", "was pruned", 1)


def _best_so_far(study: "optuna.Study") -> list[str]:
    best = best_trial(study)
    return [] if best is None else [f"best is trial {best.number}: {_value(best)}"]


def best_trial(study: "optuna.Study") -> "optuna.trial.FrozenTrial | None":
    """The complete trial of the highest value, the first of several; None where none is complete."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def _value(trial: "optuna.trial.FrozenTrial") -> str:
    return short(trial.value or 0.0)  # of a complete one, which has some


def drawn(plan: Plan, trial: "optuna.trial.FrozenTrial") -> dict[str, str]:
    """What a trial has for each axis, as typed."""
    from optuna.trial import FixedTrial

    fixed = FixedTrial(trial.params)
    return {axis.key: axis.suggest(fixed) for axis in plan.axes}


def write_tables(folder: Path, plan: Plan, study: "optuna.Study") -> None:
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
    config = learned_part(job_config(plan, drawn(plan, best), plan.seeds[0]))
    head = (
        f"# @package _global_\n# Trial {best.number} of {printable(folder.name)}: {_value(best)} "
        f"({_objective(plan)}).\n# As experiment/best.yaml in a folder DIR of yours: "
        "ppo-train --config-dir DIR experiment=best\n"
    )
    write_whole(folder / "best.yaml", head + OmegaConf.to_yaml(config))


def _objective(plan: Plan) -> str:
    what = {"final": "last evaluation", "auc": "area under the evaluations"}[plan.settings.objective]
    how = {"mean": "mean", "iqm": "IQM"}[plan.settings.aggregate]
    return f"{what}, {how} of {len(plan.seeds)} seeds"


def _conclude(folder: Path, plan: Plan, study: "optuna.Study") -> None:
    """Says the best trial and what to type for it; raises RunError with a table where trials failed."""
    trials = study.get_trials(deepcopy=False)
    states = [trial.state.name for trial in trials]
    counts = [("COMPLETE", "complete"), ("PRUNED", "pruned"), ("FAIL", "failed")]
    ended = ", ".join(f"{states.count(state)} {word}" for state, word in counts)
    print(wrapped(f"{len(trials)} trials: {ended} · {folder}"))
    best = best_trial(study)
    if best is not None:
        values = drawn(plan, best)
        print(f"best: trial {best.number}, {_value(best)} ({_objective(plan)})\n  {folder / 'best.yaml'}")
        print("\n".join(_shell_lines(command_line(plan, values))), flush=True)
    failed = [
        (name, _reason(folder / name))
        for name in (trial_folder(t.number, drawn(plan, t)) for t in trials if t.state.name == "FAIL")
    ]
    if failed:
        more = f"{PREFIX}n_trials={len(trials) + len(failed)}"
        raise RunError(
            f"{len(failed)} of {len(trials)} trials failed, and are not tried again; "
            f"`ppo-train sweep.resume={shell_quoted(folder)} {more}` draws others{table(failed)}"
        )


def _shell_lines(command: str) -> list[str]:
    """A command as it can be copied: on a live terminal in lines that the shell takes for one."""
    if not is_live(output_console()):
        return [f"  {command}"]
    words = [shlex.quote(word).replace(" ", "\0") for word in shlex.split(command)]
    *lines, last = (line.replace("\0", " ") for line in words_in(" ".join(words), width() - 2, 2, 4))
    return [*(f"{line} \\" for line in lines), last]


def _reason(folder: Path) -> str:
    failed = RunFolder(folder).failed_txt
    return first_line(failed) or f"{failed.name}, which said why, is gone"
