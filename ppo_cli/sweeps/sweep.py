"""Sweeps: `ppo-train -m ...`, and `ppo-train sweep.resume=SWEEP_DIR`, which goes on with one.

Before the first job starts, the sweep's folder has `jobs.json`: every job, with its folder and its config.
What is left to do is read from the folders alone, so that a sweep goes on wherever it was stopped. Hydra's
launchers run the jobs; on going on, each from the config in its folder, so that nothing stored is composed.
"""

import contextlib
import importlib.util
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from ppo_cli.config.compose import composing, explain_error, fixed_folder, given_folder, with_folder
from ppo_cli.config.convert import from_stored, parse, save_yaml, to_dict
from ppo_cli.config.presets import preset_words
from ppo_cli.config.quoting import hydra_quoted, program_to_paste, shell_quoted
from ppo_cli.config.schema import Config, ConfigError, conf_dir
from ppo_cli.config.trust import imports
from ppo_cli.envs.backends import backend
from ppo_cli.envs.make import EnvError
from ppo_cli.envs.workers import end_with_parent
from ppo_cli.errors import RunError
from ppo_cli.files import make_folder, printable, write_whole
from ppo_cli.runs.endings import StopSignal
from ppo_cli.runs.folder import RunFolder, identity, lock_run, note_failure
from ppo_cli.runs.resume import resume
from ppo_cli.runs.run_dir import is_hydra, job_names, make_exclusive, new_folder
from ppo_cli.schedules import trained_steps
from ppo_cli.sweeps import progress as board
from ppo_cli.sweeps.jobs import JOBS, REPLACED, Job, Sweep, check_config, load_jobs, save_jobs
from ppo_cli.sweeps.progress import Board, reason
from ppo_cli.terminal import replace_unprintable
from ppo_cli.text import flat, words_in

logger = logging.getLogger(__name__)

EXTRAS = {  # of launchers: what each needs, and the extra that brings it
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "ray": ("ray", "ray"),
}


def check_launcher(overrides: Sequence[str]) -> None:
    """Raises ConfigError, which names the extra to install, where a launcher's plugin is missing."""
    for override in overrides:
        key, _, name = override.partition("=")
        if key == "hydra/launcher" and name in EXTRAS:
            module, extra = EXTRAS[name]
            if importlib.util.find_spec(module) is None:  # not imported: Ray reads its settings when it is
                raise ConfigError(f"{override} needs an extra: pip install 'ppo-cli[{extra}]'")


def start_sweep(
    overrides: Sequence[str],
    jobs: Sequence[tuple[list[str], Config]],
    config_dir: str | None,
    config_name: str,
    go_on: bool = False,
) -> None:
    """Makes the folder of a new sweep, whose jobs are composed and checked, and runs it.

    Args:
        overrides: as typed, in Hydra's own terms.
        jobs: they stand for.
        config_dir: a folder of the user's own files, or None.
        config_name: of the primary config.
        go_on: with the sweep that is there already, if one is.

    Raises:
        ConfigError: a setting of Hydra's does not go together with a sweep, or another sweep is there.
        Interrupted: a signal ended it.
        RunError: jobs failed.
    """
    typed = with_folder(overrides, config_dir)
    if len({tuple(o for o in job if is_hydra(o)) for job, _ in jobs}) > 1:
        raise ConfigError("settings of Hydra's can't be swept: give each one value")
    if any(override.startswith("hydra.sweep.subdir=") for override in typed):
        raise ConfigError("hydra.sweep.subdir: a sweep's jobs are named by what they differ in; leave it out")
    if HydraConfig.get().sweeper.params:  # of the job that was composed last
        raise ConfigError("hydra.sweeper.params: type what to sweep on the command line")
    names = job_names([job for job, _ in jobs])
    planned = [Job(name, job, to_dict(config)) for name, (job, config) in zip(names, jobs, strict=True)]
    there = fixed_folder("sweep") if go_on else None
    if there is not None and (there / JOBS).is_file():
        settings = [o for o in typed if is_hydra(o) and o.partition("=")[0] not in REPLACED]
        resume_sweep(there, settings, planned)
        return
    plan = Sweep(config_name, typed, planned)
    with sweep_folder() as folder:
        save_jobs(plan, folder)
        _run(folder, plan)


@contextlib.contextmanager
def sweep_folder() -> Iterator[Path]:
    """A folder for a sweep whose jobs are composed: what ``hydra.sweep.dir`` says, or by the time.

    Raises:
        ConfigError: there is something in it.
    """
    given = given_folder("sweep")
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    path = Path("outputs") / "sweeps" / now if given is None else given
    if given is not None and path.is_dir() and any(not file.name.startswith(".") for file in path.iterdir()):
        raise ConfigError(
            f"hydra.sweep.dir={path} is not empty; sweep.resume={shell_quoted(path)} goes on with a sweep"
        )
    with new_folder(path, exclusive=given is None) as folder:
        yield folder


def resume_sweep(folder: Path, overrides: Sequence[str], expected: Sequence[Job] | None = None) -> None:
    """Runs what is missing of a sweep, goes on with what is partial, and leaves alone what is finished.

    Args:
        folder: of the sweep.
        overrides: settings of Hydra's to change, such as the launcher.
        expected: the jobs that it has to have, or None for any.

    Raises:
        ConfigError: the folder holds no sweep, or another one than expected, or an override can't be taken.
        Interrupted: a signal ended it.
        RunError: jobs failed.
    """
    for override in overrides:
        if not is_hydra(override):
            raise ConfigError(
                f"{override}: sweep.resume= takes settings of Hydra's only, such as hydra/launcher=joblib; "
                "the jobs keep their configs"
            )
    plan = load_jobs(folder, overrides)
    if expected is not None and _typed_jobs(expected) != _typed_jobs(plan.jobs):
        raise ConfigError(
            f"the sweep in {folder} has other jobs than are typed now; name another folder for these, or "
            f"sweep.resume={shell_quoted(folder)} to go on with those"
        )
    check_launcher(plan.overrides)
    _check_folders(folder, plan)
    for line in dict.fromkeys(line for job in plan.jobs for line in _imports(folder, job)):
        print(line, flush=True)
    _run(folder, plan, going_on=True)


def _imports(folder: Path, job: Job) -> list[str]:
    """Lines on what a job's stored config has imported; none where it can't be run, as the job will say."""
    own = RunFolder(folder / job.folder)
    with contextlib.suppress(ConfigError):
        if own.config_yaml.exists():
            return imports(own.config, own.config_yaml)
        return imports(from_stored(job.config), folder / JOBS)
    return []


def _typed_jobs(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """What was typed for each job, by its folder; not Hydra's settings, and not what presets said then."""
    return {job.folder: [override for override in job.overrides if not is_hydra(override)] for job in jobs}


def _check_folders(folder: Path, plan: Sweep) -> None:
    """Raises ConfigError where a job's folder is a link, or holds one, through which it would write."""
    try:
        for job in plan.jobs:
            if os.path.lexists(folder / job.folder):
                make_folder(folder / job.folder)
    except OSError as error:
        raise ConfigError(str(error)) from error


def _prepare(folder: Path, job: Job) -> Job:
    """The job as its folder alone says it, where what it lacks to begin is put: presets may have changed."""
    own = RunFolder(folder / job.folder)
    make_folder(own.path)
    if not own.config_yaml.exists():
        save_yaml(from_stored(job.config), own.config_yaml)
    if not own.hydra.exists():
        make_folder(own.hydra)
        write_whole(own.overrides_yaml, OmegaConf.to_yaml(OmegaConf.create(job.overrides)))
    return Job(job.folder, [], job.config)


def _launcher_folder(folder: Path, plan: Sweep) -> list[str]:
    """A new folder for what submitit's processes tell each other: it unpickles whatever lies in its own."""
    launchers = [override for override in plan.overrides if override.startswith("hydra/launcher=submitit")]
    key = "hydra.launcher.submitit_folder="
    if not launchers or any(override.startswith(key) for override in plan.overrides):
        return []
    own = make_exclusive(folder / ".submitit")
    return [key + hydra_quoted(f"{own}/%j")]


def _run(folder: Path, plan: Sweep, going_on: bool = False) -> None:
    """Runs the jobs that are not finished, and ends with what became of them."""
    advice = f"`ppo-train sweep.resume={shell_quoted(folder)}` goes on with the sweep"
    ended = ""
    with lock_run(folder), StopSignal(lambda: advice, at_once=True):  # while a job trains, its own takes over
        left = [job for job in plan.jobs if not RunFolder(folder / job.folder).is_finished]
        if len(left) < len(plan.jobs):
            print(f"finished already: {len(plan.jobs) - len(left)} of {len(plan.jobs)} jobs")
        if going_on:
            left = [_prepare(folder, job) for job in [check_config(folder, job) for job in left]]
            plan = Sweep(plan.config_name, [*plan.overrides, *_launcher_folder(folder, plan)], plan.jobs)
        try:
            _launch(folder, plan, left)
        except ConfigError:
            raise
        except Exception as error:  # of the launcher: jobs note their own
            if not any(RunFolder(folder / job.folder).lock.exists() for job in left):  # none has begun
                raise ConfigError(explain_error(error)) from error
            ended = f"the launcher ended: {one_line(error)}; "
        failed = [
            (job.folder, reason(folder / job.folder))
            for job in plan.jobs
            if not RunFolder(folder / job.folder).is_finished
        ]
    finished = len(plan.jobs) - len(failed)
    if finished:
        print(f"finished: {finished} of {len(plan.jobs)} jobs · {folder}")
        print(f"next: {program_to_paste('ppo-report')} {shell_quoted(folder)}", flush=True)
    if failed or ended:
        what = f"{ended}{len(failed)} of {len(plan.jobs)} jobs failed{table(failed)}"
        raise RunError(f"{what}\nto try them again:\nppo-train sweep.resume={shell_quoted(folder)}")


def _launch(folder: Path, plan: Sweep, jobs: Sequence[Job]) -> None:
    """Hands jobs to Hydra's launcher, as Hydra's own sweeper does, which can't leave out any."""
    if not jobs:
        return
    settings = [*plan.overrides, f"hydra.sweep.dir={hydra_quoted(folder)}", "hydra.mode=MULTIRUN"]
    with initialize_config_dir(str(conf_dir()), "train", "1.3"):
        loader = GlobalHydra.instance().config_loader()
        with composing():
            config = loader.load_configuration(plan.config_name, settings, RunMode.MULTIRUN)
            configure_log(config.hydra.hydra_logging, config.hydra.verbose)
            callbacks = Callbacks(config)
        callbacks.on_multirun_start(config=config, config_name=plan.config_name)
        write_whole(folder / "multirun.yaml", OmegaConf.to_yaml(config))
        for name in ("hydra", "hydra_plugins"):  # the launchers' own lines: the board says more
            logging.getLogger(name).setLevel(logging.WARNING)
        task = partial(_run_watched, os.getpid())
        with composing():
            launcher = Plugins.instance().instantiate_launcher(HydraContext(loader, callbacks), task, config)
        batch = config.hydra.sweeper.max_batch_size or len(jobs)
        if not isinstance(batch, int) or batch < 1:
            raise ConfigError(f"hydra.sweeper.max_batch_size={batch}: expected null, or an integer from 1")
        overrides = [_job_overrides(folder, job) for job in jobs]
        typed = {job.folder: job.overrides for job in plan.jobs}
        on_board = [
            board.Job(
                job.folder,
                _last_step(job.config),
                bool(job.config["eval"]["episodes"]),
                tuple(override for override in typed[job.folder] if not is_hydra(override)),
            )
            for job in jobs
        ]
        with Board(folder, on_board):
            for first in range(0, len(jobs), batch):
                StopSignal.check()
                launcher.launch(overrides[first : first + batch], initial_job_idx=first)
        callbacks.on_multirun_end(config=config, config_name=plan.config_name)


def _last_step(config: Mapping[str, Any]) -> int:
    """The steps of a whole job, by its config."""
    asked, n_envs, n_steps = (int(config[key]) for key in ("total_timesteps", "n_envs", "n_steps"))
    return trained_steps(asked, n_envs, n_steps, filled=backend(config["vectorization"]).fills)


def _job_overrides(folder: Path, job: Job) -> list[str]:
    own = [override for override in job.overrides if not is_hydra(override)]
    own.append(f"hydra.sweep.subdir={hydra_quoted(job.folder)}")
    if os.path.lexists(RunFolder(folder / job.folder).hydra):
        own.append("hydra.output_subdir=null")  # what it holds is how the job began
    return own


def _run_watched(parent: int, composed: DictConfig) -> float:
    """A job that the board shows: it writes into its train.log, and only warns on the terminal."""
    if os.getppid() == parent:  # a worker of joblib's, which would go on alone after a `kill -9` of the sweep
        end_with_parent()
    logging.raiseExceptions = False  # as in the process of the sweep: what can't be logged ends no job
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.WARNING)
    return run_job(composed, live=False)


def run_job(composed: DictConfig, live: bool = True) -> float:
    """One job, in whatever process the launcher has for it: begins it, or goes on where it stopped.

    A failure is said, noted in the job's folder, and not raised, so that the other jobs go on.

    Args:
        composed: the job's config.
        live: whether the job has the terminal to itself.

    Returns:
        The evaluation's mean return, which a search maximises; NaN where there is none.
    """
    replace_unprintable()  # in a launcher's process
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    own = identity(folder)
    StopSignal.check()
    try:
        RunFolder(folder).failed_txt.unlink(missing_ok=True)
        return _begin_or_go_on(composed, folder, live)
    except Exception as error:
        StopSignal.check()
        logger.log(logging.ERROR if live else logging.INFO, "%s failed: %s", folder, one_line(error))
        note_failure(folder, own, f"{one_line(error)}\n\n{traceback.format_exc()}")
        return float("nan")


def _begin_or_go_on(composed: DictConfig, folder: Path, live: bool) -> float:
    own = RunFolder(folder)
    if own.config_yaml.exists():
        resume(folder, [], live)
    else:
        from ppo_cli.runs.run import run  # late: it brings PyTorch

        run(parse(composed), folder, live=live, preset=preset_words())
    evaluation = own.evaluation
    return float("nan") if evaluation is None else float(evaluation["mean"])


def check_search(folder: Path) -> None:
    """Raises RunError with a table where jobs failed in a sweep of another sweeper's."""
    failed = [
        (note.parent.name, reason(note.parent))
        for note in sorted(folder.glob(f"*/{RunFolder.failed_txt.name}"))
    ]
    if failed:
        raise RunError(f"{len(failed)} jobs of {folder} failed{table(failed)}")


def table(failed: Sequence[tuple[str, str]]) -> str:
    """What failed and why, a line each, to stand below a message; on a terminal broken between words."""
    width = max((len(name) for name, _ in failed), default=0)
    rows = [f"  {name:{width}}  {reason}" for name, reason in failed]
    if sys.stderr.isatty():
        columns = shutil.get_terminal_size().columns
        rows = [line for row in rows for line in words_in(row.strip(), columns, 2, 4)]
    return "".join(f"\n{row}" for row in rows)


def one_line(error: BaseException) -> str:
    """An error in one line, with its type where the text is not made for a user."""
    text = printable(flat(error))
    ours = isinstance(error, (RunError, ConfigError, EnvError, HydraException))
    return text if ours else f"{type(error).__name__}: {text}"
