"""What a run shows and leaves: TensorBoard, metrics.csv and the progress line."""

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from typing_extensions import Self

from ppo_cli.envs.infos import MOST_LOGGED
from ppo_cli.files import sync_folder
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.log_files import INFO, EventFile, RowFile
from ppo_cli.terminal import LiveLine, is_live, output_console
from ppo_cli.text import clock, short

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
COUNT_SECONDS = 10.0  # between plain lines on how far an evaluation is

Knob = bool | int | float | str | None


class RunLog:
    """Writes one row of scalars an iteration to TensorBoard and metrics.csv, and shows the progress.

    On a terminal there is one live line; elsewhere a plain log line for each twentieth of the run.

    Attributes:
        recent_return: mean return of the episodes that ended last in training; NaN before one has.
    """

    def __init__(
        self,
        run_dir: Path,
        total_timesteps: int,
        lengths: Mapping[str, Any] | None = None,
        live: bool = True,
        expected: Collection[str] = (),
        begun: int = 0,
    ) -> None:
        """Opens the files.

        Args:
            run_dir: the run's folder.
            total_timesteps: budget in whole iterations, for the progress line.
            lengths: from `lengths` of the run that goes on here; what was written after is cut off.
            live: whether this run has the terminal to itself.
            expected: tags ``info/<key>`` that were asked for; a line says which of them no episode tells.
            begun: environment steps with which the run goes on here.
        """
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        events, rows, infos = None, None, 0
        if lengths is not None:
            rows, infos = lengths["csv"], lengths.get("infos", 0)  # older checkpoints have none
            if (run_dir / lengths["event_file"]).exists():
                name, events = lengths["event_file"], lengths["events"]
            else:
                logger.warning("%s is missing: TensorBoard shows the run from here on", lengths["event_file"])
        self._events = EventFile(run_dir / name, events)
        self._rows = RowFile(RunFolder(run_dir).metrics_csv, TAGS, rows, infos)
        sync_folder(run_dir)
        self._total = total_timesteps
        self._begun = begun
        self._started = time.perf_counter()
        self._reported = 0
        self._is_full = False
        self._expected = expected
        self.recent_return = math.nan
        console = output_console()
        self._line = LiveLine(console, total_timesteps, "starting") if live and is_live(console) else None

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flushes and closes the files and the live line."""
        self.stop_progress()
        self._events.close()
        self._rows.close()

    def lengths(self) -> dict[str, int | str]:
        """Name and length of the files in bytes, for a checkpoint."""
        return {
            "event_file": self._events.path.name,
            "events": self._events.length(),
            "csv": self._rows.length(),
            "infos": len(self._rows.infos),
        }

    def sync(self) -> None:
        """Brings to disk what was written, so that what `lengths` says is true after a power cut too."""
        self._events.sync()
        self._rows.sync()

    def iteration(self, iteration: int, step: int, values: Mapping[str, float]) -> None:
        """Writes one row; a NaN (no episode ended, say) is an empty cell and no point in TensorBoard.

        Args:
            iteration: number of the iteration, from 1.
            step: environment steps so far.
            values: a value for each of `TAGS`, and those of ``info/<key>`` that there are.
        """
        known = {tag: value for tag, value in values.items() if not math.isnan(value)}
        self._add_columns(known)
        if "charts/episodic_return" in known:
            self._say_missing()
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in known.items()])
        self._events.add(summary, step)  # one event for all tags is cheaper
        self._rows.add(iteration, step, known)
        self.recent_return = known.get("charts/episodic_return", self.recent_return)
        self._show(step, values["charts/SPS"])

    def _add_columns(self, known: dict[str, float]) -> None:
        """Gives new keys of ``info`` a column, and takes out those beyond the most that are logged."""
        infos = self._rows.infos
        new = [tag for tag in known if tag.startswith(INFO) and tag not in infos]
        room = max(0, MOST_LOGGED - len(infos))
        for tag in new[room:]:
            del known[tag]
        if new[room:] and not self._is_full:
            self._is_full = True
            logger.warning(
                "info has more than %d keys with numbers: %s and what comes later are not logged; "
                "log.info_keys chooses which are", MOST_LOGGED, new[room],
            )  # fmt: skip
        if new[:room]:
            self._rows.widen(new[:room])

    def _say_missing(self) -> None:
        missing = [tag for tag in self._expected if tag not in self._rows.infos]
        self._expected = ()
        if missing:
            keys = ", ".join(tag.removeprefix(INFO) for tag in missing)
            logger.warning("log.info_keys: the info of no episode so far has a number %s", keys)

    def evaluation(self, step: int, mean: float, infos: Mapping[str, float]) -> None:
        """Writes the mean return of an evaluation, and what its infos told, by key."""
        values = {EVAL_TAG: mean, **{f"eval/{INFO}{key}": value for key, value in infos.items()}}
        self._events.add(
            Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]), step
        )

    def hyperparameters(self, values: Mapping[str, Knob], first: Collection[str]) -> None:
        """Writes the run's row in TensorBoard's HPARAMS table, beside its final evaluation.

        Args:
            values: every knob; one that is None has a column, for the runs in which it is set.
            first: the knobs whose columns come first: those that were typed.
        """
        for summary in _hparams(values, first):
            self._events.add(summary)

    def status(self, text: str) -> None:
        """Shows what takes long before the first iteration."""
        if self._line is not None:
            self._line.update(text)
        else:
            logger.info(text)

    @contextmanager
    def counting(self, total: int) -> Iterator[Callable[[int], None]]:
        """Shows how many of an evaluation's episodes have ended, as a function is told that this gives."""
        if self._line is not None:
            with self._line.counting(f"evaluating {total:,} episodes", total) as count:
                yield count
            return
        said = time.perf_counter()

        def say(done: int) -> None:
            nonlocal said
            if done < total and time.perf_counter() - said >= COUNT_SECONDS:
                said = time.perf_counter()
                logger.info("evaluated %d of %d episodes", done, total)

        yield say

    def stop_progress(self) -> None:
        """Ends the live line, so that plain lines follow it."""
        if self._line is not None:
            self._line.stop()
            self._line = None

    def _show(self, step: int, steps_per_second: float) -> None:
        recent = "–" if math.isnan(self.recent_return) else short(self.recent_return)
        if self._line is not None:
            text = (
                f"{step:,} steps · {steps_per_second:,.0f}/s · return {recent}"  # beside a bar in 60 columns
            )
            self._line.update(text, min(step, self._total))
            return
        text = f"{step:,} steps · {steps_per_second:,.0f} steps/s · return {recent}"
        twentieth = 20 * step // self._total
        if twentieth > self._reported:
            self._reported = twentieth
            elapsed = time.perf_counter() - self._started
            left = max(0.0, elapsed * (self._total - step) / max(1, step - self._begun))
            done = min(100.0, 100 * step / self._total)
            logger.info("%3.0f%% · %s · %s left", done, text, clock(left))


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
        elif isinstance(value, str):
            kind = api_pb2.DATA_TYPE_STRING
            session.hparams[name].string_value = value
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
