"""Searches: `ppo-train -m hydra/sweeper=optuna ...`, and `ppo-train sweep.resume=DIR`, which joins one.

The study (SQLite) says which trials there are and what they draw; the folders say what has been run. A
process owns a trial by a lock that ends with the process, so that what a dead one leaves is taken over.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from ppo_cli.config.trust import imports
from ppo_cli.errors import ConfigError, RunError
from ppo_cli.files import lock_file
from ppo_cli.runs.signals import StopSignal
from ppo_cli.sweeps.ending import stoppable
from ppo_cli.sweeps.eta import Pace, about
from ppo_cli.sweeps.job import one_line, own_folder, say_imports
from ppo_cli.sweeps.plan import sweep_folder
from ppo_cli.sweeps.schema import PREFIX, SearchSettings, read_settings
from ppo_cli.sweeps.search.plan import (
    PLAN,
    Plan,
    check_classes,
    end_configs,
    load_plan,
    make_plan,
    save_plan,
    trial_folder,
)
from ppo_cli.sweeps.search.results import best_so_far, conclude, drawn, ended_trials, write_tables
from ppo_cli.sweeps.search.study import make_sampler, open_study
from ppo_cli.sweeps.search.trial import Outcome, run_trial
from ppo_cli.terminal import width, wrapped
from ppo_cli.text import short, words_in

STUDY = "study.db"
LOCKS = ".locks"
PAUSE = 1.0  # seconds between looks at what another process does


def search(config_name: str, overrides: Sequence[str]) -> None:
    """What Hydra's `multirun` has our sweeper do: plan a search, and take part in it.

    Args:
        config_name: The name of the primary config.
        overrides: The overrides as typed, in Hydra's own terms.

    Raises:
        ConfigError: it can't be searched like that; there is no folder then.
        Interrupted: a signal ended it.
        RunError: trials failed.
    """
    plan = make_plan(overrides, None, config_name)
    with sweep_folder() as folder:
        save_plan(plan, folder)
        seeds = f"{len(plan.seeds)} seeds each"
        print(f"a search of {plan.settings.n_trials} trials, {seeds} · {folder}", flush=True)
        _take_part(folder, plan)


def resume_search(folder: Path, overrides: Sequence[str]) -> None:
    """Takes part in a search: goes on with what no process works on, and draws what is missing.

    Args:
        folder: The folder of the search.
        overrides: ``hydra.sweeper.n_trials=N`` or none.

    Raises:
        ConfigError: an override can't be taken.
        Interrupted: a signal ended it.
        RunError: trials failed.
    """
    plan = load_plan(folder)
    key = f"{PREFIX}n_trials"
    for override in overrides:
        name, _, number = override.partition("=")
        if name != key or not number.isdigit():
            raise ConfigError(f"{override}: on going on with a search only {key}=N, an integer, can change")
        changed = {**asdict(plan.settings), "n_trials": int(number)}
        plan = replace(plan, settings=read_settings(SearchSettings, changed))
    if overrides:
        check_classes(plan.settings)
        save_plan(plan, folder)
    say_imports(line for config in end_configs(plan) for line in imports(config, folder / PLAN))
    _take_part(folder, plan)


def _take_part(folder: Path, plan: Plan) -> None:
    """Runs trials until none is left, of another process neither, and says what was found."""
    own_folder(folder / LOCKS)
    with stoppable(folder, "search"):
        with lock_file(folder / LOCKS / "study"), _reading(folder):
            study = open_study(folder / STUDY, plan.settings)
            pace = Pace(time.monotonic(), ended_trials(study))
        said = False
        while True:
            StopSignal.check()
            with ExitStack() as own:
                if (trial := _take(folder, plan, study, own)) is not None:
                    _run(folder, plan, study, trial, pace)
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
        conclude(folder, plan, study)


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


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _take(folder: Path, plan: Plan, study: optuna.Study, own: ExitStack) -> optuna.Trial | None:
    """A trial that a dead process left, or else a new one, or None; its lock is held in ``own``."""
    with lock_file(folder / LOCKS / "study"), _reading(folder):  # one process at a time
        trial = _left(folder, plan, study, own) or _new(folder, plan, study, own)
        if trial is not None:
            for axis in plan.axes:
                axis.suggest(trial)
        return trial


def _left(folder: Path, plan: Plan, study: optuna.Study, own: ExitStack) -> optuna.Trial | None:
    for left in _running(study):
        with suppress(OSError):
            own.enter_context(lock_file(folder / LOCKS / str(left.number), "it has an owner"))
            study.sampler = make_sampler(plan.settings, left.number)
            return optuna.Trial(study, left._trial_id)
    return None


def _new(folder: Path, plan: Plan, study: optuna.Study, own: ExitStack) -> optuna.Trial | None:
    number = len(study.get_trials(deepcopy=False))
    if number >= plan.settings.n_trials:
        return None
    own.enter_context(lock_file(folder / LOCKS / str(number), "it has an owner"))
    study.sampler = make_sampler(plan.settings, number)
    return study.ask()


def _run(folder: Path, plan: Plan, study: optuna.Study, trial: optuna.Trial, pace: Pace) -> None:
    """Runs a trial, tells the study, says lines on it, and brings the tables up to date."""
    number, values = trial.number, drawn(plan, trial)
    own = folder / trial_folder(number, values)
    goes_on = " goes on" if own.exists() else ""
    own_folder(own)
    knobs = " ".join(f"{key}={value}" for key, value in values.items())
    print("\n".join(words_in(f"trial {number}{goes_on}: {knobs}", width(), 0, 2)), flush=True)
    outcome = run_trial(plan, trial, own, values)
    with lock_file(folder / LOCKS / "study"), _reading(folder):  # the trial's is held still
        study.tell(trial, outcome.value, outcome.state)
        write_tables(folder, plan, study)
        ended, best = ended_trials(study), best_so_far(study)
    state = [f"{ended}/{plan.settings.n_trials} trials", *best]
    if (left := pace.time_left(time.monotonic(), ended, plan.settings.n_trials)) is not None:
        state.append(about(left))
    print(wrapped(f"trial {number} {_ended(outcome)}"))
    print(f"  {' · '.join(state)}", flush=True)


def _ended(outcome: Outcome) -> str:
    if outcome.value is not None:
        return f"returned {short(outcome.value)}"
    if outcome.state.name == "FAIL":
        return f"failed: {outcome.line}"
    return outcome.line.replace("pruned", "was pruned", 1)
