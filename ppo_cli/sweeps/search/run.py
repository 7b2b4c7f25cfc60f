"""Searches: `ppo-train -m hydra/sweeper=optuna ...`, and `ppo-train sweep.resume=DIR`, which joins one.

The study (SQLite) says which trials there are and what they draw; the folders say what has been run. A
process owns a trial by a lock that ends with the process, so that what a dead one leaves is taken over.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ppo_cli.config.convert import from_stored
from ppo_cli.config.quoting import shell_quoted
from ppo_cli.config.schema import ConfigError
from ppo_cli.config.trust import imports
from ppo_cli.errors import RunError
from ppo_cli.files import make_folder
from ppo_cli.runs.endings import StopSignal
from ppo_cli.runs.run_dir import lock_file
from ppo_cli.sweeps.ending import stoppable
from ppo_cli.sweeps.eta import Pace, about
from ppo_cli.sweeps.job import one_line
from ppo_cli.sweeps.search.plan import (
    PLAN,
    Plan,
    check_classes,
    load_plan,
    make_plan,
    save_plan,
    trial_folder,
)
from ppo_cli.sweeps.search.results import best_so_far, conclude, ended_trials, write_tables
from ppo_cli.sweeps.search.settings import PREFIX
from ppo_cli.sweeps.start import OPTUNA, folder_to_go_on, sweep_folder
from ppo_cli.terminal import width, wrapped
from ppo_cli.text import short, words_in

if TYPE_CHECKING:
    import optuna

    from ppo_cli.sweeps.search.trial import Outcome

STUDY = "study.db"
LOCKS = ".locks"
PAUSE = 1.0  # seconds between looks at what another process does


@dataclass(frozen=True)
class Claim:
    """A trial that this process owns."""

    trial: "optuna.Trial"
    values: dict[str, str]


def search(config: DictConfig, arguments: Sequence[str]) -> None:
    """What Hydra's `multirun` has our sweeper do: plan a search, or go on with that of a folder, and run it.

    Args:
        config: Hydra's of the search.
        arguments: The overrides as typed, but for settings of Hydra's, which are in the config.

    Raises:
        ConfigError: it can't be searched like that, or another search is there; there is no folder then.
        Interrupted: a signal ended it.
        RunError: trials failed.
    """
    check_optuna()
    HydraConfig.instance().set_config(config)
    resume = config.hydra.sweeper.resume
    plan = None
    if resume != "always":
        plan = make_plan([*config.hydra.overrides.hydra, *arguments], None, str(config.hydra.job.config_name))
    folder = folder_to_go_on(resume, PLAN)
    if folder is not None:
        stored = load_plan(folder)
        if plan is not None and plan != replace(stored, typed=plan.typed):
            raise ConfigError(
                f"the search in {folder} is another than is typed now; name another folder for this one, or "
                f"sweep.resume={shell_quoted(folder)} to go on with that"
            )
        _take_part(folder, stored)
    elif plan is not None:
        with sweep_folder() as folder:
            save_plan(plan, folder)
            seeds = f"{len(plan.seeds)} seeds each"
            print(f"a search of {plan.settings.n_trials} trials, {seeds} · {folder}", flush=True)
            _take_part(folder, plan)


def check_optuna() -> None:
    """Raises ConfigError, which names the extra to install, where Optuna is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{OPTUNA} needs an extra: pip install 'ppo-cli[optuna]'") from error


def is_search(folder: Path) -> bool:
    """Whether a folder is that of a search."""
    return (folder / PLAN).is_file()


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
    _take_part(folder, plan)


def _take_part(folder: Path, plan: Plan) -> None:
    """Runs trials until none is left, of another process neither, and says what was found."""
    from ppo_cli.sweeps.search.study import open_study

    _own_folder(folder / LOCKS)
    with stoppable(folder, "search"):
        with lock_file(folder / LOCKS / "study"), _reading(folder):
            study = open_study(folder / STUDY, plan.settings)
            pace = Pace(time.monotonic(), ended_trials(study))
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
    """A trial whose lock is held in ``own``; its sampler is its own, whoever draws."""
    import optuna

    from ppo_cli.sweeps.search.study import make_sampler

    for left in _running(study):
        try:
            own.enter_context(lock_file(folder / LOCKS / str(left.number), "it has an owner"))
        except OSError:
            continue
        study.sampler = make_sampler(plan.settings, left.number)
        return optuna.Trial(study, left._trial_id)
    number = len(study.get_trials(deepcopy=False))
    if number >= plan.settings.n_trials:
        return None
    study.sampler = make_sampler(plan.settings, number)
    trial = study.ask()
    own.enter_context(lock_file(folder / LOCKS / str(number), "it has an owner"))
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
    with lock_file(folder / LOCKS / "study"), _reading(folder):  # the trial's is held still
        study.tell(claim.trial, outcome.value, outcome.state)
        write_tables(folder, plan, study)
        ended, best = ended_trials(study), best_so_far(study)
    state = [f"{ended}/{plan.settings.n_trials} trials", *best]
    if (left := pace.left(time.monotonic(), ended, plan.settings.n_trials)) is not None:
        state.append(about(left))
    print(wrapped(f"trial {number} {_ended(outcome)}"))
    print(f"  {' · '.join(state)}", flush=True)


def _ended(outcome: "Outcome") -> str:
    if outcome.value is not None:
        return f"returned {short(outcome.value)}"
    if outcome.state.name == "FAIL":
        return f"failed: {outcome.line}"
    return outcome.line.replace("pruned", "was pruned", 1)
