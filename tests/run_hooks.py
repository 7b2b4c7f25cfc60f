"""Hooks that tests give to runs by their import path."""

import os
import resource
import signal
import uuid
from pathlib import Path
from typing import ClassVar

from ppo_cli.hooks import Hook, Hooks, RunState

INTERRUPTIBLE = "hooks=[{name: run_hooks.Interrupt}]"


class Interrupt(Hook):
    """Sends its process a signal, as the fixture `interrupt` or the environment says.

    Attributes:
        at: the iteration of a run in which it does, or None.
        left: after how many iterations it does, over all runs of the process; 0 is never.
        number: of the signal.
    """

    at: ClassVar[int | None] = None
    left: ClassVar[int] = int(os.environ.get("KILL_AFTER", "0"))
    number: ClassVar[int] = signal.SIGKILL

    def after_iteration(self, run, scalars):
        Interrupt.left -= 1
        if run.iteration == Interrupt.at or Interrupt.left == 0:
            signal.raise_signal(Interrupt.number)


class Named(Hook):
    """Has a name of its own, which a run that goes on keeps."""

    def __init__(self):
        self.name = ""

    def start(self, run):
        self.name = self.name or uuid.uuid4().hex

    def state_dict(self):
        return {"name": self.name}

    def load_state_dict(self, state):
        self.name = state["name"]


class StopAbove(Hook):
    """Stops a run whose mean return has been above a bound in a number of iterations in a row."""

    def __init__(self, mean_return, iterations):
        self.mean_return, self.iterations, self.count = mean_return, iterations, 0

    def after_iteration(self, run, scalars):
        self.count = self.count + 1 if scalars["charts/episodic_return"] > self.mean_return else 0
        if self.count == self.iterations:
            run.stop(f"above {self.mean_return}")


class FullDisk(Hook):
    """A limit on the size of files fails as a full disk does, with an OSError in the middle of a write."""

    def __init__(self, at):
        self.at = at

    def after_iteration(self, run, scalars):
        if run.iteration == self.at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


class Move(Hook):
    """Moves the run's folder away, and may put another one in its place."""

    def __init__(self, at, replace):
        self.at, self.replace = at, replace

    def after_iteration(self, run, scalars):
        if run.iteration == self.at:
            run.folder.rename("moved")
            if self.replace:
                (Path(run.folder) / "checkpoints").mkdir(parents=True)


def tell(caller, folder, config, steps, evaluation):
    """Tells a caller's hooks of an evaluation, as a run does."""
    hooks = Hooks(caller.own_hooks)
    run = RunState(folder, {}, None, None, config.total_timesteps, hooks, steps=steps)
    hooks.after_evaluation(run, evaluation)
