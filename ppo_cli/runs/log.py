"""What a run leaves of its scalars: TensorBoard's events and metrics.csv."""

import logging
import math
import os
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from ppo_cli.envs.infos import MOST_LOGGED
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import RunError
from ppo_cli.files import sync_folder
from ppo_cli.hooks import Hook, RunState
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.log_files import INFO, MOST_COLUMNS, Columns, EventFile, RowFile

logger = logging.getLogger(__name__)

TAGS = (
    "charts/episodic_return",
    "charts/episodic_length",
    "charts/SPS",
    "charts/learning_rate",
    "charts/clip_ratio",
    "charts/ent_coef",
    "charts/vf_coef",
    "losses/policy_loss",
    "losses/value_loss",
    "losses/entropy",
    "losses/total_loss",
    "losses/approx_kl",
    "losses/clipfrac",
    "losses/explained_variance",
    "losses/grad_norm",
    "charts/env_faults",
    "charts/cut_episodes",
    "time/collect",
    "time/update",
)
EVAL_TAG = "eval/episodic_return"

Knob = bool | int | float | str | None


class RunLog(Hook):
    """Writes one row of scalars an iteration to TensorBoard and metrics.csv."""

    def __init__(
        self, run_dir: Path, lengths: Mapping[str, Any] | None = None, expected: Collection[str] = ()
    ) -> None:
        """Notes where to.

        Args:
            run_dir: The run's folder.
            lengths: What `lengths` gave in the run that goes on here; what was written after is cut off.
            expected: Tags ``info/<key>`` that were asked for; a line says which of them no episode tells.
        """
        self._folder, self._lengths, self._expected = run_dir, lengths, expected
        self._is_full = False
        self._files: list[EventFile | RowFile] = []

    def start(self, run: RunState) -> None:
        """Opens the files."""
        folder, lengths = self._folder, self._lengths
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        events = rows = None
        if lengths is not None:
            rows = lengths["csv"]
            if (folder / lengths["event_file"]).exists():
                name, events = lengths["event_file"], lengths["events"]
            else:
                logger.warning("%s is missing: TensorBoard shows the run from here on", lengths["event_file"])
        self._events = EventFile(folder / name, events)
        self._files.append(self._events)
        self._rows = RowFile(RunFolder(folder).metrics_csv, TAGS, rows, _columns(lengths or {}))
        self._files.append(self._rows)
        sync_folder(folder)

    def end(self, run: RunState, error: BaseException | None) -> None:
        """Closes the files."""
        for file in self._files:
            file.close()

    def lengths(self) -> dict[str, int | str]:
        """Name and length of the files in bytes, and the number of columns, for a checkpoint."""
        return {
            "event_file": self._events.path.name,
            "events": self._events.length(),
            "csv": self._rows.length(),
            "columns": len(self._rows.tags),
        }

    def sync(self) -> None:
        """Brings to disk what was written, so that what `lengths` says is true after a power cut too."""
        for file in self._files:
            file.sync()

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Writes one row; a NaN (no episode ended, say) is an empty cell and no point in TensorBoard."""
        known = {tag: value for tag, value in scalars.items() if not math.isnan(value)}
        self._add_columns(known)
        if "charts/episodic_return" in known:
            self._say_missing()
        self._add_event(known, run.steps)
        self._rows.add(run.iteration, run.steps, known)

    def _add_columns(self, known: dict[str, float]) -> None:
        """Gives new tags a column, and takes out keys of ``info`` beyond the most that are logged."""
        columns = self._rows.tags
        new = [tag for tag in known if tag not in columns]
        infos = [tag for tag in new if tag.startswith(INFO)]
        room = max(0, MOST_LOGGED - sum(tag.startswith(INFO) for tag in columns))
        for tag in infos[room:]:
            del known[tag]
        if infos[room:] and not self._is_full:
            self._is_full = True
            logger.warning(
                "info has more than %d keys with numbers: %s and what comes later are not logged; "
                "log.info_keys chooses which are", MOST_LOGGED, infos[room],
            )  # fmt: skip
        new = [tag for tag in new if tag in known]
        if len(columns) + len(new) > MOST_COLUMNS:
            raise RunError(f"more than {MOST_COLUMNS} tags: {new[-1]} and others can't be logged")
        if new:
            self._rows.widen(new)

    def _say_missing(self) -> None:
        missing = [tag for tag in self._expected if tag not in self._rows.tags]
        self._expected = ()
        if missing:
            keys = ", ".join(tag.removeprefix(INFO) for tag in missing)
            logger.warning("log.info_keys: the info of no episode so far has a number %s", keys)

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Writes the mean return of an evaluation, and what its infos told, by key."""
        self._add_event(evaluation_scalars(evaluation), run.steps)

    def _add_event(self, values: Mapping[str, float], step: int) -> None:
        """Writes one event for all tags, which is cheaper than one for each."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._events.add(summary, step)

    def hyperparameters(self, values: Mapping[str, Knob], first: Collection[str]) -> None:
        """Writes the run's row in TensorBoard's HPARAMS table, beside its final evaluation.

        Args:
            values: Every knob; one that is None has a column, for the runs in which it is set.
            first: The knobs whose columns come first: those that were typed.
        """
        for summary in _hparams(values, first):
            self._events.add(summary)


def evaluation_scalars(evaluation: Evaluation) -> dict[str, float]:
    """What is logged of an evaluation, by tag."""
    infos = {f"eval/{INFO}{key}": value for key, value in evaluation.infos.items()}
    return {EVAL_TAG: evaluation.mean, **infos}


def _columns(lengths: Mapping[str, Any]) -> Columns:
    """What a checkpoint says of the columns of metrics.csv; older ones know those of ``info`` alone."""
    return Columns(lengths.get("columns"), lengths.get("infos", 0))


def _hparams(values: Mapping[str, Knob], first: Collection[str]) -> list[Summary]:
    """What TensorBoard reads as a run's row: the columns, the knobs and that the run is finished.

    TensorBoard takes the columns from one run of all that it shows, and puts first, by name, those that
    "differ". It leaves out a column that this run lacks, so that unset knobs are named too.
    """
    experiment = api_pb2.Experiment(metric_infos=[{"name": {"tag": EVAL_TAG}}])
    session = SessionStartInfo()
    for name, value in values.items():
        if isinstance(value, bool):
            kind = api_pb2.DATA_TYPE_BOOL
            session.hparams[name].bool_value = value
        elif isinstance(value, str) or (value is not None and not math.isfinite(value)):
            kind = api_pb2.DATA_TYPE_STRING  # of inf too: TensorBoard shows no such number
            session.hparams[name].string_value = str(value)
        else:
            kind = api_pb2.DATA_TYPE_FLOAT64
            if value is not None:
                session.hparams[name].number_value = value
        experiment.hparam_infos.add(name=name, type=kind, differs=name in first)
    ended = SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
    return [
        _hparams_summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        _hparams_summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=session)),
        _hparams_summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=ended)),
    ]


def _hparams_summary(tag: str, content: HParamsPluginData) -> Summary:
    content.version = metadata.PLUGIN_DATA_VERSION
    plugin = {"plugin_name": metadata.PLUGIN_NAME, "content": content.SerializeToString()}
    return Summary(value=[Summary.Value(tag=tag, metadata={"plugin_data": plugin})])
