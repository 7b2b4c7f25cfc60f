"""`hydra/launcher=ray`: each job of a sweep is a task of Ray's, on this machine or on a cluster.

It lies here because Hydra takes plugins from the namespace package `hydra_plugins` alone. hydra-ray-launcher
1.2.2 needs boto3 and cloudpickle<3, which do not go with the pinned versions; its settings
have the same names.
"""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

logger = logging.getLogger(__name__)

# Of a Ray that is started here: a sweep needs no dashboard, and next to no memory that tasks share.
LOCAL = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
# Nothing is sent out, and a notice on GPUs that is for Ray's own users is not shown.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
CARRIED = (
    "PYTHONPATH",
    "XDG_CACHE_HOME",
)  # to where the jobs run: modules, and the cache of compiled updates


@dataclass
class RaySettings:
    """What `ray.init` and `ray.remote` are given; `+hydra.launcher.ray.init.KEY=VALUE` adds to it."""

    init: dict[str, Any] = field(
        default_factory=lambda: {
            "address": None,  # of a cluster: auto, or HOST:PORT; null starts Ray here and ends it
            "num_cpus": None,  # of a Ray that is started here: how many jobs at once; null for all cores
            "log_to_driver": False,  # whether what jobs print comes here; it is in their train.log
            "logging_level": "WARNING",
        }
    )
    remote: dict[str, Any] = field(
        default_factory=lambda: {
            "num_cpus": 1,  # cores of a job
            "num_gpus": 0,  # GPUs of a job, or a part of one
            "max_retries": 3,  # starts of a job whose process or machine was lost; it goes on where it was
        }
    )


@dataclass
class RayLauncherConf:
    """`hydra/launcher=ray`."""

    _target_: str = "hydra_plugins.ppo_cli_ray_launcher.RayLauncher"
    ray: RaySettings = field(default_factory=RaySettings)


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="ppo-cli")


@dataclass(frozen=True)
class _Shared:
    """What all jobs need, and where the process is that hands them out."""

    context: HydraContext
    config: DictConfig
    task: TaskFunction
    singletons: Any
    folder: str
    modules: list[str]
    environment: dict[str, str]


class RayLauncher(Launcher):
    """Runs each job as a task of Ray's."""

    def __init__(self, ray: DictConfig) -> None:
        self._init: dict[str, Any] = _plain(ray.init)
        self._remote: dict[str, Any] = _plain(ray.remote)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra has for every launcher."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs jobs; the results are in their order. A job that Ray lost has failed, and stops no other."""
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        environment = {name: os.environ[name] for name in CARRIED if name in os.environ}
        shared = _Shared(
            self._context, self._config, self._task, Singleton.get_state(), os.getcwd(), sys.path, environment
        )
        with _running(self._init) as ray:
            task = ray.remote(**self._remote)(_run)
            stored = ray.put(shared)
            numbers = {
                task.remote(stored, initial_job_idx + i, list(overrides)): i
                for i, overrides in enumerate(job_overrides)
            }
            results: dict[int, JobReturn] = {}
            waiting = list(numbers)
            while waiting:
                (done,), waiting = ray.wait(waiting)
                results[numbers[done]] = _result(ray, done, initial_job_idx + numbers[done])
        return [results[i] for i in range(len(job_overrides))]


def _plain(config: DictConfig) -> Any:  # noqa: ANN401 - settings of Ray's own
    return OmegaConf.to_container(config, resolve=True)


@contextmanager
def _running(settings: dict[str, Any]) -> Iterator[Any]:
    """The module `ray`, connected; what was started for it ends with it."""
    given = {key: value for key, value in settings.items() if value is not None}
    quiet = QUIET
    if "address" not in given and "ray" not in sys.modules:  # it reads them once; without, it keeps a token
        quiet = {**QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    import ray  # late: Hydra imports this file whenever it starts

    handler = signal.getsignal(signal.SIGTERM)
    ray.init(**(given if "address" in given else {**LOCAL, **given}))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there, which says nothing
    try:
        yield ray
    finally:
        ray.shutdown()


def _run(shared: _Shared, number: int, overrides: list[str]) -> JobReturn:
    """One job, in a process of Ray's: everything as it is where the sweep was started."""
    os.environ.update(shared.environment)
    sys.path.extend(path for path in shared.modules if path not in sys.path)
    os.chdir(shared.folder)
    setup_globals()
    Singleton.set_state(shared.singletons)
    config = shared.context.config_loader.load_sweep_config(shared.config, overrides)
    with open_dict(config):
        config.hydra.job.id = f"{config.hydra.job.name}_{number}"
        config.hydra.job.num = number
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=shared.context,
        task_function=shared.task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _result(ray: Any, reference: Any, number: int) -> JobReturn:  # noqa: ANN401 - Ray is an extra
    try:
        result: JobReturn = ray.get(reference)
    except ray.exceptions.RayError as error:
        logger.error("Ray lost job %d: %s", number, " ".join(str(error).split()))
        result = JobReturn()
        result.return_value, result.status = error, JobStatus.FAILED
    return result
