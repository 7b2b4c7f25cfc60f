"""Running what was composed, as Hydra runs a job: with its files, its callbacks and, if wanted, its logs."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime, configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict, read_write

from ppo_cli.config.compose import Composed
from ppo_cli.config.convert import register_schema
from ppo_cli.config.explain import composing
from ppo_cli.config.quoting import hydra_quoted, literal_text
from ppo_cli.config.schema import conf_dir


def run_composed(
    job: Composed, folder: Path, work: Callable[[], float], config_name: str = "config", log: bool = True
) -> None:
    """Does a run's work as Hydra's own `Hydra.run` does, but for composing it again.

    Args:
        job: The job that was composed.
        folder: The run's folder, which is there.
        work: The function that does the run's work; what it raises is raised here.
        config_name: The name of the primary config.
        log: Whether Hydra sets up the process's logging, as a command wants it.

    Raises:
        ConfigError: A setting of Hydra's is none.
    """
    failed: list[BaseException] = []

    def task(_: DictConfig) -> float:
        try:
            return work()
        except BaseException as error:
            failed.append(error)
            raise

    settings = job.whole.hydra
    with read_write(settings), open_dict(settings):
        settings.mode, settings.run.dir = RunMode.RUN, literal_text(str(folder))
        own = [text for text in settings.overrides.hydra if not text.startswith("hydra.run.dir=")]
        settings.overrides.hydra = [*own, f"hydra.run.dir={hydra_quoted(folder)}", "hydra.mode=RUN"]
    with composing(), initialize_config_dir(str(conf_dir()), "train", "1.3"):
        if log:
            configure_log(settings.hydra_logging, settings.verbose)
            hydra = GlobalHydra.instance().hydra
            if hydra is not None and logging.getLogger("hydra").isEnabledFor(logging.DEBUG):
                typed = [*settings.overrides.hydra, *settings.overrides.task]  # hydra.verbose=true
                hydra.compose_config(config_name, typed, RunMode.RUN, with_log_configuration=True)  # prints
        callbacks = Callbacks(job.whole)
        callbacks.on_run_start(config=job.whole, config_name=config_name)
        context = HydraContext(GlobalHydra.instance().config_loader(), callbacks)
        done = run_job(task, job.whole, "hydra.run.dir", None, context, configure_logging=log)
        callbacks.on_run_end(config=job.whole, config_name=config_name, job_return=done)
    if failed:
        raise failed[0]


@contextmanager
def hydra_kept() -> Iterator[None]:
    """Puts aside what Hydra holds for the program around, perhaps an application of Hydra's own."""
    register_schema()  # for good: it is made once
    running, settings, store = GlobalHydra.instance(), HydraConfig.instance(), ConfigStore.instance()
    before, config, nodes = running.hydra, settings.cfg, dict(store.repo)
    runtime, job = JobRuntime.instance(), JobRuntime.instance().conf.copy()
    running.clear()
    store.repo = {name: node for name, node in nodes.items() if name == "hydra" or _is_known(node)}
    try:
        yield
    finally:
        running.hydra, settings.cfg, store.repo, runtime.conf = before, config, nodes, job


def _is_known(node: object) -> bool:
    """Whether a node in Hydra's store is one of Hydra's, or ours."""
    return getattr(node, "provider", None) in ("hydra", "ppo_cli")
