"""Runs ppo-train inside the test process, in an empty folder."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ppo_cli.cli.train import main
from ppo_cli.runs.log import RunLog


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    status: int
    out: str
    err: str


@pytest.fixture
def ppo_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """A function that runs `ppo-train ARGUMENTS` in an empty folder (the current one from then on)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # as in an active venv

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ppo-train", *arguments])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def interrupt(monkeypatch):
    """A function that makes runs get a signal when they have logged an iteration, or (None) no more."""
    at = {"iteration": None, "signal": signal.SIGTERM}
    log = RunLog.iteration

    def log_and_raise(self, iteration, *rest):
        log(self, iteration, *rest)
        if iteration == at["iteration"]:
            signal.raise_signal(at["signal"])

    monkeypatch.setattr(RunLog, "iteration", log_and_raise)
    return lambda iteration, number=signal.SIGTERM: at.update(iteration=iteration, signal=number)
