"""`jobs.json`, in a sweep's folder: every job with its config, and what was typed.

The folder may come from anybody. What is read of it is a closed list: names of folders in this one, configs
that are checked, a launcher by its name, and settings of it that are numbers or words. Nothing of it is
composed: the jobs' configs are whole, and whatever else was typed for the sweep has to be typed again.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ppo_cli.config.compose import compose_jobs, given_folder
from ppo_cli.config.convert import from_stored, to_dict
from ppo_cli.config.quoting import shell_quoted
from ppo_cli.envs.make import resolve_env_id
from ppo_cli.errors import ConfigError
from ppo_cli.files import printable, read_json, write_whole
from ppo_cli.importing import importing
from ppo_cli.runs.new_folder import is_hydra, job_names, new_folder
from ppo_cli.runs.signals import no_advice
from ppo_cli.sweeps.job import Job
from ppo_cli.terminal import wrapped
from ppo_cli.text import flat

JOBS = "jobs.json"
LONGEST = 256 * 2**20  # bytes of it: some 50,000 jobs
LAUNCHER, SETTING = "hydra/launcher", "hydra.launcher."
NUMBER, SWITCH, WORD = r"null|-?\d+(\.\d+)?", r"true|false", r"[\w.,:@%+-]+"
QUEUE = {
    **dict.fromkeys(
        ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes"), NUMBER
    ),
    "name": WORD,
    "stderr_to_stdout": SWITCH,
}
# Settings of each launcher that a file may hold, and what they may be. Not among them are those that are
# commands or are put into one (setup, additional_parameters), paths, and the address of a cluster of Ray's.
LAUNCHERS: Mapping[str, Mapping[str, str]] = {
    "basic": {},
    "joblib": {
        **dict.fromkeys(("n_jobs", "verbose", "timeout"), NUMBER),
        **dict.fromkeys(("backend", "prefer", "require", "batch_size", "max_nbytes"), WORD),
        "pre_dispatch": r"all|\d+|\d+\*n_jobs",
    },
    "submitit_local": QUEUE,
    "submitit_slurm": {
        **QUEUE,
        **dict.fromkeys(("cpus_per_gpu", "gpus_per_task", "signal_delay_s"), NUMBER),
        **dict.fromkeys(("max_num_timeout", "array_parallelism"), NUMBER),
        **dict.fromkeys(("partition", "qos", "comment", "constraint", "exclude", "gres"), WORD),
        **dict.fromkeys(("mem_per_gpu", "mem_per_cpu", "account"), WORD),
    },
    "ray": {
        "ray.init.address": r"null|auto",
        "ray.init.log_to_driver": SWITCH,
        "ray.init.logging_level": WORD,
        **dict.fromkeys(
            ("ray.init.num_cpus", "ray.remote.num_cpus", "ray.remote.num_gpus", "ray.remote.max_retries"),
            NUMBER,
        ),
    },
}
OTHERS = {"hydra.sweeper.max_batch_size": NUMBER, "hydra.verbose": SWITCH}
# What going on with a sweep has no use for: it is where it is, and no file of anybody's is looked for.
REPLACED = (
    "hydra.sweep.dir",
    "hydra.run.dir",
    "hydra.searchpath",
    "hydra.mode",
    "hydra/sweeper",
    "hydra.sweeper.stored",
)


@dataclass(frozen=True)
class Sweep:
    """What `jobs.json` holds: Hydra's settings, the overrides as typed, and the jobs they stand for."""

    config_name: str = field(compare=False)
    overrides: list[str] = field(compare=False)
    jobs: list[Job]


def plan_jobs(overrides: Sequence[str], config_dir: str | None, config_name: str) -> Sweep:
    """The jobs that overrides stand for, whose environments were tried; says what is to be known of all.

    Raises:
        ConfigError: one line on the first thing that is wrong.
    """
    if any(override.startswith("hydra.sweep.subdir=") for override in overrides):
        raise ConfigError("hydra.sweep.subdir: a sweep's jobs are named by what they differ in; leave it out")
    jobs = compose_jobs(overrides, config_dir, config_name)
    for _, config in jobs:
        resolve_env_id(config.env.id)  # a misspelt id is said before PyTorch is there
    with importing():
        from ppo_cli.runs.build import check_environment
        from ppo_cli.runs.watchdog import Watchdog

    with Watchdog(max(config.env.timeout for _, config in jobs), no_advice):  # one for all
        # the weights that a job begins with are looked at and given a lasting name, but not kept
        checked = [replace(check_environment(config), beginning=None) for _, config in jobs]
    for notice in dict.fromkeys(notice for each in checked for notice in each.notices):
        print(wrapped(notice))
    planned = [
        Job(
            name,
            [override for override in job if not is_hydra(override)],
            to_dict(replace(config, init_from=found.config.init_from)),
        )
        for name, (job, config), found in zip(job_names([job for job, _ in jobs]), jobs, checked, strict=True)
    ]
    return Sweep(config_name, list(overrides), planned)


def save_jobs(sweep: Sweep, hydra: DictConfig, folder: Path) -> None:
    """Writes `jobs.json`, whole or not at all; the launcher is noted that a file of the user's chose."""
    typed = [*sweep.overrides, *_chosen_launcher(sweep.overrides, hydra)]
    stored = Sweep(sweep.config_name, typed, sweep.jobs)
    write_whole(folder / JOBS, json.dumps(asdict(stored), indent=1) + "\n")


def _chosen_launcher(typed: Sequence[str], hydra: DictConfig) -> list[str]:
    """Overrides for the launcher in Hydra's config, where none is typed."""
    name = str(hydra.runtime.choices.get(LAUNCHER))
    if name not in LAUNCHERS or name == "basic" or any(key_of(override) == LAUNCHER for override in typed):
        return []
    found = [f"{LAUNCHER}={name}"]
    for key, allowed in LAUNCHERS[name].items():
        value = OmegaConf.select(hydra.launcher, key)
        text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
        if re.fullmatch(allowed, text):
            found.append(f"{SETTING}{key}={text}")
    return found


def load_jobs(folder: Path, typed: Sequence[str]) -> Sweep:
    """The sweep in a folder, as it may go on: its jobs, and the settings of Hydra's to run them with.

    Args:
        folder: The folder of the sweep.
        typed: Hydra's settings; each takes the place of the stored one, a launcher that of all its own.

    Raises:
        ConfigError: the file is none of a sweep, or asks for what only a user may; one line.
    """
    path = folder / JOBS
    try:
        stored = read_json(path, LONGEST)
        overrides, jobs = _texts(stored["overrides"]), [_job(job) for job in stored["jobs"]]
    except FileNotFoundError as error:
        raise ConfigError(
            f"sweep.resume={folder}: no sweep there (no {JOBS}); sweeps lie below outputs/sweeps/"
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        text = printable(flat(error))
        raise ConfigError(f"{path} is not a list of jobs: {type(error).__name__}: {text}") from error
    names = [job.folder.casefold() for job in jobs]
    if len(set(names)) < len(names) or not names:
        raise ConfigError(f"{path}: expected jobs in folders that differ, at least one")
    try:
        settings = _settings([o for o in overrides if is_hydra(o)], typed)
        for job in jobs:
            _settings([o for o in job.overrides if is_hydra(o)], typed)
    except ValueError as error:
        raise ConfigError(
            f"{path} has {error}, which isn't taken from a file: type it, or another value, behind "
            f"sweep.resume={shell_quoted(folder)} if you trust it"
        ) from error
    own = [Job(job.folder, [o for o in job.overrides if not is_hydra(o)], job.config) for job in jobs]
    return Sweep("config", [*settings, *typed], own)


def check_config(folder: Path, job: Job) -> Job:
    """A job whose config is checked.

    Raises:
        ConfigError: it can't be run; one line that names the job.
    """
    try:
        return Job(job.folder, job.overrides, to_dict(from_stored(job.config)))
    except ConfigError as error:
        raise ConfigError(f"{folder / JOBS}, job {job.folder}: {error}") from error


def _job(stored: Any) -> Job:  # noqa: ANN401
    job = Job(stored["folder"], _texts(stored["overrides"]), stored["config"])
    if not (isinstance(job.folder, str) and _is_name(job.folder)):
        raise ValueError(f"{job.folder!r:.80} is no name of a folder in the sweep's own")
    if not isinstance(job.config, dict):
        raise TypeError(f"the config of {job.folder} is no mapping")
    return job


def _is_name(text: str) -> bool:
    """Whether a text is one component of a path, as `new_folder.folder_name` makes them."""
    plain = text.isprintable() and not re.search(r"[/\\:\s'\"{}\[\]]", text)
    return plain and 0 < len(text) <= 200 and not text.startswith(".")


def _texts(values: Any) -> list[str]:  # noqa: ANN401
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("expected a list of overrides")
    return values


def key_of(override: str) -> str:
    """What an override sets."""
    return override.lstrip("+~").partition("=")[0]


def _settings(stored: Iterable[str], typed: Sequence[str]) -> list[str]:
    """The stored settings of Hydra's that hold still, each known to be harmless.

    Raises:
        ValueError: one is not; the message is that one.
    """
    taken = {key_of(override) for override in typed}
    before = [o for o in stored if key_of(o) not in (*REPLACED, *taken)]
    if LAUNCHER in taken:
        before = [o for o in before if not key_of(o).startswith(SETTING)]
    names = [o.partition("=")[2] for o in (*before, *typed) if key_of(o) == LAUNCHER]
    own = LAUNCHERS.get((names or ["basic"])[-1], {})
    allowed = {LAUNCHER: "|".join(LAUNCHERS), **OTHERS, **{f"{SETTING}{key}": own[key] for key in own}}
    kept = []
    for override in before:
        key, _, value = override.lstrip("+").partition("=")
        plain = value[1:-1] if len(value) > 1 and value[0] == value[-1] == "'" else value
        if key not in allowed or not re.fullmatch(allowed[key], plain, re.ASCII):
            raise ValueError(printable(f"{override:.200}"))
        kept.append(f"{key}={plain}" if re.fullmatch(r"[\w.+-]+", plain) else f"{key}='{plain}'")
    return kept


@contextmanager
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
