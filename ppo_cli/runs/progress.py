"""What a terminal shows of a run while it goes on."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.style  # noqa: F401 - now: importing it draws from Python's generator, which a run seeds

from ppo_cli.episodes import Evaluation
from ppo_cli.hooks import Hook, RunState
from ppo_cli.runs.messages import result_words
from ppo_cli.terminal import Line, live_line
from ppo_cli.text import clock, short

logger = logging.getLogger(__name__)

COUNT_SECONDS = 10.0  # between plain lines on how far an evaluation is


class Progress(Hook):
    """Shows how far a run is: a live line on a terminal, elsewhere a plain one for each twentieth of it.

    Attributes:
        recent_return: The mean return of the episodes that ended last in training; NaN before one has.
    """

    def __init__(self, total_timesteps: int, live: bool = True) -> None:
        """Shows nothing yet.

        Args:
            total_timesteps: The budget in whole iterations.
            live: Whether this run has the terminal to itself.
        """
        self.recent_return = math.nan
        self._total, self._live = total_timesteps, live
        self._line: Line | None = None
        self._reported = 0

    def start(self, run: RunState) -> None:
        """Begins the live line, and says what takes long before the first iteration."""
        self._begun, self._started = run.steps, time.perf_counter()
        self._line = live_line(self._total, "starting") if self._live else None
        if run.agent.compiled and not run.is_over:
            self._say("compiling the update (kept for later runs)")

    def end(self, run: RunState, error: BaseException | None) -> None:
        """Ends the live line."""
        self.stop()

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Shows the steps so far, the speed and the return."""
        returned = scalars["charts/episodic_return"]
        self.recent_return = self.recent_return if math.isnan(returned) else returned
        self._show(run.steps, scalars["charts/SPS"])

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Says what an evaluation on the way gave."""
        if not run.trained:
            mark = " · best so far" if run.improved else ""
            logger.info("eval at %s steps: %s%s", f"{run.steps:,}", result_words(evaluation), mark)

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

    def stop(self) -> None:
        """Ends the live line, so that plain lines follow it."""
        if self._line is not None:
            self._line.stop()
            self._line = None

    def _say(self, text: str) -> None:
        if self._line is not None:
            self._line.update(text)
        else:
            logger.info(text)

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
