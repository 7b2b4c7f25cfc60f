"""What ends a run before its budget is used up: a return that is reached, a time, or no improvement."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppo_cli.config.schema import StopConfig
from ppo_cli.episodes import Evaluation
from ppo_cli.hooks import Hook, RunState
from ppo_cli.text import seconds_of, short

NAME = "stop"  # what checkpoints call the hook


def make_stopping(settings: StopConfig) -> "Stopping | None":
    """What ends a run before its budget is used up; None where nothing does."""
    values = vars(settings)
    asked = any(values[knob] is not None for knob in ("return", "time", "patience"))
    return Stopping(settings) if asked else None


def reached(state: Mapping[str, Any]) -> str:
    """The knob ``stop.*`` that has ended the run of a checkpoint with this state; empty where none has."""
    return str(state.get("reached", ""))


class Stopping(Hook):
    """Ends a run by ``stop.return``, ``stop.time`` or ``stop.patience``."""

    def __init__(self, settings: StopConfig) -> None:
        """Takes what the config says.

        Args:
            settings: The knobs ``stop``.
        """
        self._goal: float | None = getattr(settings, "return")
        self._window, self._patience = settings.window, settings.patience
        self._time = settings.time
        self._seconds = None if settings.time is None else seconds_of(settings.time)
        self._returns: deque[float] = deque(maxlen=settings.window)
        self._waited = 0  # evaluations since the best one
        self._before = 0.0  # seconds of earlier sittings
        self._started = time.perf_counter()
        self._reached = ""

    def start(self, run: RunState) -> None:
        """Begins to count the time."""
        self._started = time.perf_counter()

    def after_rollout(self, run: RunState, rollout: object) -> None:
        """Notes the returns of the episodes that ended."""
        if self._goal is not None:
            self._returns.extend(run.shards.told.ended.returns)

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Ends the run where the return is reached, or the time is over."""
        if self._goal is not None and len(self._returns) == self._window:
            mean = float(np.mean(self._returns))
            if mean >= self._goal:
                self._stop(run, "return", f"{self._goal:g}: {short(mean)} over {self._window:,} episodes")
        if self._seconds is not None and self._trained >= self._seconds:
            self._stop(run, "time", f"{self._time}")

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Ends the run where no evaluation has been better for long."""
        self._waited = 0 if run.improved else self._waited + 1
        if self._patience is not None and self._waited >= self._patience and not run.trained:
            self._stop(run, "patience", f"{self._patience}: no evaluation above {short(run.best)} since")

    @property
    def _trained(self) -> float:
        """Seconds of training, earlier sittings included."""
        return self._before + time.perf_counter() - self._started

    def _stop(self, run: RunState, knob: str, why: str) -> None:
        if not run.stopped:
            self._reached = f"stop.{knob}"
        run.stop(f"stop.{knob}={why}")

    def state_dict(self) -> dict[str, Any]:
        """The returns of the last episodes, the evaluations waited for, the seconds, the knob reached."""
        state: dict[str, Any] = {"waited": self._waited, "reached": self._reached}
        if self._goal is not None:
            state["returns"] = np.array(self._returns)
        if self._seconds is not None:  # a run that no clock ends is the same to the bit each time
            state["seconds"] = self._trained
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self._waited = int(state["waited"])
        self._returns.extend(np.asarray(state.get("returns", ())).tolist())
        self._before = float(state.get("seconds", 0.0))
