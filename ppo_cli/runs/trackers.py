"""Hooks for trackers of experiments, each with an extra: Weights & Biases, and MLflow."""

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ppo_cli.config.convert import dotted
from ppo_cli.episodes import Evaluation
from ppo_cli.hooks import Hook, RunState
from ppo_cli.runs.log import evaluation_scalars

MOST_PARAMS = 100  # that MLflow takes at once
LONGEST_PARAM = 500  # characters of one, that its older servers take


class WandbHook(Hook):
    """Sends a run's config, scalars and evaluations to Weights & Biases.

    A run that is resumed goes on in the same one there. The files of W&B lie in ``wandb/`` in the run's
    folder.
    """

    def __init__(
        self,
        project: str = "ppo-cli",
        entity: str | None = None,
        group: str | None = None,
        run_name: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        mode: str | None = None,
    ) -> None:
        """Takes what `wandb.init` takes.

        Args:
            project: The project.
            entity: The user or the team.
            group: The name that runs are grouped by.
            run_name: The run's name there; the name of its folder if it is None.
            tags: Words to find it by.
            notes: A longer description.
            mode: ``online``, ``offline`` (nothing is sent until ``wandb sync``) or ``disabled``; W&B's own
                setting, such as ``WANDB_MODE``, if it is None.
        """
        self._name = run_name
        self._options: dict[str, Any] = {
            "project": project, "entity": entity, "group": group, "tags": list(tags), "notes": notes,
            "mode": mode,
        }  # fmt: skip
        self._id = uuid4().hex[:12]
        self._run: Any = None

    def start(self, run: RunState) -> None:
        """Begins the run there, or goes on with it."""
        import wandb

        folder = run.folder.resolve()
        # it neither takes over the standard streams nor makes links beside its own logs
        settings = wandb.Settings(console="off", symlink=False, save_code=False)
        with _environment("WANDB_CACHE_DIR", str(folder / "wandb")):
            self._run = wandb.init(
                **self._options, name=self._name or folder.name, id=self._id, resume="allow", dir=folder,
                config=dict(run.config), settings=settings,
            )  # fmt: skip
        self._run.define_metric("*", step_metric="global_step")

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Sends the scalars."""
        self._run.log({**_known(scalars), "global_step": run.steps})

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Sends what it gave."""
        self._run.log({**_known(evaluation_scalars(evaluation)), "global_step": run.steps})

    def end(self, run: RunState, error: BaseException | None) -> None:
        """Ends the run there, finished or failed."""
        if self._run is not None:
            if run.stopped:
                self._run.summary["stopped"] = run.stopped
            self._run.finish(exit_code=0 if error is None else 1)

    def state_dict(self) -> dict[str, Any]:
        """What the run is called there."""
        return {"id": self._id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with that one."""
        self._id = str(state["id"])


class MlflowHook(Hook):
    """Sends a run's config, scalars and evaluations to MLflow.

    A run that is resumed goes on in the same one there.
    """

    def __init__(
        self,
        experiment: str = "ppo-cli",
        tracking_uri: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Decides where to.

        Args:
            experiment: The experiment, which is made if there is none.
            tracking_uri: A server or a database, such as ``sqlite:///mlflow.db`` in the current folder. If
                it is None, ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the run's folder.
            run_name: The run's name there; the name of its folder if it is None.
            tags: Words to find it by, each with a value.
        """
        self._experiment, self._uri, self._name = experiment, tracking_uri, run_name
        self._tags = {key: str(value) for key, value in (tags or {}).items()}
        self._id: str | None = None
        self._client: Any = None

    def start(self, run: RunState) -> None:
        """Begins the run there, or goes on with it."""
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it would tell of each table that it makes
        folder = run.folder.resolve()
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        if self._id is None:
            experiment, name = self._experiment_at(folder), self._name or folder.name
            self._id = self._client.create_run(experiment, run_name=name, tags=self._tags).info.run_id
            self._send_config(run)
        else:
            self._client.update_run(self._id, status="RUNNING")

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Sends the scalars."""
        self._send(scalars, run.steps)

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Sends what it gave."""
        self._send(evaluation_scalars(evaluation), run.steps)

    def end(self, run: RunState, error: BaseException | None) -> None:
        """Ends the run there, finished, failed or killed."""
        if self._client is not None and self._id is not None:
            if run.stopped:
                self._client.set_tag(self._id, "stopped", run.stopped)
            failed = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            self._client.set_terminated(self._id, "FINISHED" if error is None else failed)

    def state_dict(self) -> dict[str, Any]:
        """What the run is called there."""
        return {"id": self._id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with that one."""
        self._id = state["id"]

    def _experiment_at(self, folder: Path) -> str:
        """The experiment's id; what its runs keep beside numbers lies in this run's folder, if it is new."""
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        local = None if self._uri or "MLFLOW_TRACKING_URI" in os.environ else (folder / "mlflow").as_uri()
        return str(self._client.create_experiment(self._experiment, artifact_location=local))

    def _send_config(self, run: RunState) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in dotted(run.config)]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + MOST_PARAMS])

    def _send(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(tag, value, now, step) for tag, value in _known(values).items()]
        self._client.log_batch(self._id, metrics=metrics)


def _known(values: Mapping[str, float]) -> dict[str, float]:
    return {tag: value for tag, value in values.items() if not math.isnan(value)}


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Sets a variable for what is started in it, unless the user has set it."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
