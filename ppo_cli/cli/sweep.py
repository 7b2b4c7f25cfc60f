"""Sweeps: `ppo-train -m ...`, and `ppo-train sweep.resume=SWEEP_DIR`, which goes on with one.

Before the first job starts, the sweep's folder has `jobs.json`: every job, with its folder and its config.
What is left to do is read from the folders alone, so that a sweep goes on wherever it was stopped. Hydra's
launchers run the jobs; on going on, each from the config in its folder, so that nothing stored is composed.
"""

import contextlib
import importlib.util
import logging
import os
import signal
import traceback
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from ppo_cli.cli import board
from ppo_cli.cli.board import Board, reason
from ppo_cli.cli.endings import Interrupted, RunError, StopSignal
from ppo_cli.cli.folder import evaluated_at
from ppo_cli.cli.jobs import Job, Sweep, check_config, load_jobs, save_jobs
from ppo_cli.cli.resume import resume
from ppo_cli.cli.run_dir import is_hydra, job_names, lock_run, make_exclusive
from ppo_cli.config import Config, ConfigError, conf_dir, from_stored, load_yaml, parse, save_yaml, to_dict
from ppo_cli.envs.make import EnvError
from ppo_cli.envs.workers import end_with_parent
from ppo_cli.files import make_folder, printable, read_json, write_whole

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
) -> None:
    """Makes the folder of a new sweep, whose jobs are composed and checked, and runs it.

    Raises:
        ConfigError: a setting of Hydra's does not go together with a sweep.
        Interrupted: a signal ended it.
        RunError: jobs failed.
    """
    typed = list(overrides)
    if config_dir is not None:
        typed.append(f"hydra.searchpath=['file://{Path(config_dir).resolve()}']")
    if len({tuple(o for o in job if is_hydra(o)) for job, _ in jobs}) > 1:
        raise ConfigError("settings of Hydra's can't be swept: give each one value")
    if any(override.startswith("hydra.sweep.subdir=") for override in typed):
        raise ConfigError("hydra.sweep.subdir: a sweep's jobs are named by what they differ in; leave it out")
    if HydraConfig.get().sweeper.params:  # of the job that was composed last
        raise ConfigError("hydra.sweeper.params: type what to sweep on the command line")
    folder = sweep_folder(typed)
    names = job_names([job for job, _ in jobs])
    planned = [Job(name, job, to_dict(config)) for name, (job, config) in zip(names, jobs, strict=True)]
    plan = Sweep(config_name, typed, planned)
    save_jobs(plan, folder)
    _run(folder, plan)


def sweep_folder(overrides: Sequence[str]) -> Path:
    """Makes a folder for a sweep whose jobs are composed: what ``hydra.sweep.dir=`` says, or by the time.

    Raises:
        ConfigError: there is something in it.
    """
    if not any(override.startswith("hydra.sweep.dir=") for override in overrides):
        return make_exclusive(Path("outputs") / "sweeps" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    folder = Path(HydraConfig.get().sweep.dir)  # of the job that was composed last
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"hydra.sweep.dir={folder} is not empty; sweep.resume='{folder}' goes on with a sweep"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def resume_sweep(folder: Path, overrides: Sequence[str]) -> None:
    """Runs what is missing of a sweep, goes on with what is partial, and leaves alone what is finished.

    Args:
        folder: of the sweep.
        overrides: settings of Hydra's to change, such as the launcher.

    Raises:
        ConfigError: the folder holds no sweep, or an override can't be taken.
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
    check_launcher(plan.overrides)
    _check_folders(folder, plan)
    _run(folder, plan, going_on=True)


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
    own = folder / job.folder
    make_folder(own)
    if not (own / "config.yaml").exists():
        save_yaml(from_stored(job.config), own / "config.yaml")
    if not (own / ".hydra").exists():
        make_folder(own / ".hydra")
        write_whole(own / ".hydra" / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(job.overrides)))
    return Job(job.folder, [], job.config)


def _launcher_folder(folder: Path, plan: Sweep) -> list[str]:
    """A new folder for what submitit's processes tell each other: it unpickles whatever lies in its own."""
    launchers = [override for override in plan.overrides if override.startswith("hydra/launcher=submitit")]
    key = "hydra.launcher.submitit_folder="
    if not launchers or any(override.startswith(key) for override in plan.overrides):
        return []
    own = make_exclusive(folder / ".submitit")
    return [key + _quoted(f"{own}/%j")]


def _run(folder: Path, plan: Sweep, going_on: bool = False) -> None:
    """Runs the jobs that are not finished, and ends with what became of them."""
    advice = f"`ppo-train sweep.resume='{folder}'` goes on with the sweep"
    ended = ""
    with lock_run(folder), StopSignal(advice, at_once=True) as stop:  # while a job trains, its own takes over
        left = [job for job in plan.jobs if not is_finished(folder / job.folder)]
        if len(left) < len(plan.jobs):
            print(f"finished already: {len(plan.jobs) - len(left)} of {len(plan.jobs)} jobs")
        if going_on:
            left = [_prepare(folder, job) for job in [check_config(folder, job) for job in left]]
            plan = Sweep(plan.config_name, [*plan.overrides, *_launcher_folder(folder, plan)], plan.jobs)
        try:
            _launch(folder, plan, left)
        except ConfigError:
            raise
        except KeyboardInterrupt as error:
            number = getattr(error, "number", stop.number or signal.SIGINT)  # Ray raises its own in its place
            raise Interrupted(number, advice) from error
        except Exception as error:  # of the launcher: jobs note their own
            ended = f"the launcher ended: {one_line(error)}; "
        failed = [
            (job.folder, reason(folder / job.folder))
            for job in plan.jobs
            if not is_finished(folder / job.folder)
        ]
    if failed or ended:
        raise RunError(f"{ended}{len(failed)} of {len(plan.jobs)} jobs failed; {advice}{table(failed)}")
    print(f"finished: {len(plan.jobs)} of {len(plan.jobs)} jobs · {folder}")


def _launch(folder: Path, plan: Sweep, jobs: Sequence[Job]) -> None:
    """Hands jobs to Hydra's launcher, as Hydra's own sweeper does, which can't leave out any."""
    if not jobs:
        return
    settings = [*plan.overrides, f"hydra.sweep.dir={_quoted(str(folder))}", "hydra.mode=MULTIRUN"]
    with initialize_config_dir(config_dir=str(conf_dir()), job_name="train", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        try:
            config = loader.load_configuration(plan.config_name, settings, RunMode.MULTIRUN)
        except HydraException as error:
            raise ConfigError(one_line(error)) from error
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        callbacks = Callbacks(config)
        callbacks.on_multirun_start(config=config, config_name=plan.config_name)
        write_whole(folder / "multirun.yaml", OmegaConf.to_yaml(config))
        for name in ("hydra", "hydra_plugins"):  # the launchers' own lines: the board says more
            logging.getLogger(name).setLevel(logging.WARNING)
        task = partial(_run_watched, os.getpid())
        launcher = Plugins.instance().instantiate_launcher(HydraContext(loader, callbacks), task, config)
        batch = config.hydra.sweeper.max_batch_size or len(jobs)
        overrides = [_job_overrides(folder, job) for job in jobs]
        on_board = [
            board.Job(job.folder, int(job.config["total_timesteps"]), bool(job.config["eval"]["episodes"]))
            for job in jobs
        ]
        with Board(folder, on_board):
            for first in range(0, len(jobs), batch):
                launcher.launch(overrides[first : first + batch], initial_job_idx=first)
        callbacks.on_multirun_end(config=config, config_name=plan.config_name)


def _job_overrides(folder: Path, job: Job) -> list[str]:
    own = [override for override in job.overrides if not is_hydra(override)]
    own.append(f"hydra.sweep.subdir={_quoted(job.folder)}")
    if os.path.lexists(folder / job.folder / ".hydra"):
        own.append("hydra.output_subdir=null")  # what it holds is how the job began
    return own


def _quoted(text: str) -> str:
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


def _run_watched(parent: int, composed: DictConfig) -> float:
    """A job that the board shows: it writes into its train.log, and only warns on the terminal."""
    if os.getppid() == parent:  # a worker of joblib's, which would go on alone after a `kill -9` of the sweep
        end_with_parent()
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
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    note = folder / "failed.txt"
    try:
        note.unlink(missing_ok=True)
        return _begin_or_go_on(composed, folder, live)
    except Exception as error:
        logger.log(logging.ERROR if live else logging.INFO, "%s failed: %s", folder, one_line(error))
        with contextlib.suppress(OSError):  # a full disk may be what failed
            write_whole(note, f"{one_line(error)}\n\n{traceback.format_exc()}")
        return float("nan")


def _begin_or_go_on(composed: DictConfig, folder: Path, live: bool) -> float:
    if (folder / "config.yaml").exists():
        resume(folder, [], live)
    else:
        from ppo_cli.cli.run import run  # late: it brings PyTorch

        run(parse(composed), folder, live=live)
    evaluation = folder / "eval.json"
    return float(read_json(evaluation)["mean"]) if evaluation.exists() else float("nan")


def is_finished(folder: Path) -> bool:
    """Whether a run has trained to its budget and is evaluated."""
    from ppo_cli.checkpoint import CheckpointError, load_newest  # late: they bring PyTorch

    try:
        saved, _ = load_newest(folder / "checkpoints")
        if saved is None:
            return False
        config = from_stored(load_yaml(folder / "config.yaml"))
    except (CheckpointError, ConfigError):  # the job itself says what is wrong
        return False
    evaluated = not config.eval.episodes or evaluated_at(folder) == saved["steps"]
    return bool(saved["steps"] >= config.total_timesteps and evaluated)


def check_search(folder: Path) -> None:
    """Raises RunError with a table where jobs failed in a sweep of another sweeper's."""
    failed = [(note.parent.name, reason(note.parent)) for note in sorted(folder.glob("*/failed.txt"))]
    if failed:
        raise RunError(f"{len(failed)} jobs of {folder} failed{table(failed)}")


def table(failed: Sequence[tuple[str, str]]) -> str:
    """What failed and why, a line each, to stand below a message."""
    width = max((len(name) for name, _ in failed), default=0)
    return "".join(f"\n  {name:{width}}  {reason}" for name, reason in failed)


def one_line(error: BaseException) -> str:
    """An error in one line, with its type where the text is not made for a user."""
    text = printable(" ".join(str(error).split()))
    ours = isinstance(error, (RunError, ConfigError, EnvError, HydraException))
    return text if ours else f"{type(error).__name__}: {text}"
