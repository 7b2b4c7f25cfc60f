"""`hydra/sweeper=jobs`, ppo-train's default, and `hydra/sweeper=optuna`: what Hydra makes for ``-m``.

They lie here because Hydra takes plugins from the namespace package `hydra_plugins` alone; what they do is in
`ppo_cli.sweeps`. Their settings are in ``conf/hydra/sweeper``.
"""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ppo_cli.importing import importing


class _Planned(Sweeper):
    """Takes what Hydra has for every sweeper."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - they are read from the config, and checked
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra has; the jobs are runs, whatever the task."""
        self._context, self._config = hydra_context, config

    def _typed(self, arguments: list[str]) -> list[str]:
        """The whole command line: of the settings of Hydra's, all but what chose this."""
        settings = [str(override) for override in self._config.hydra.overrides.hydra]
        return [*(override for override in settings if not override.startswith("hydra.mode=")), *arguments]


class JobSweeper(_Planned):
    """A sweep: every job of a grid, each planned before the first one starts."""

    def sweep(self, arguments: list[str]) -> None:
        """Plans and runs the jobs that the arguments stand for."""
        from ppo_cli.sweeps.sweep import sweep  # late: Hydra imports this file whenever it starts

        sweep(self._context, self._config, self._typed(arguments))


class OptunaSweeper(_Planned):
    """A search by Optuna: trial after trial, in this process and others that join it."""

    def sweep(self, arguments: list[str]) -> None:
        """Plans the search that the arguments stand for, and takes part in it."""
        with importing():  # late, as above
            from ppo_cli.sweeps.search.run import search

        search(str(self._config.hydra.job.config_name), self._typed(arguments))
