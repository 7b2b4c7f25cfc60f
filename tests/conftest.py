"""Runs ppo-train inside the test process, in an empty folder."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from run_hooks import Interrupt

from ppo_cli.cli.train import main


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
    """A function that makes runs with `INTERRUPTIBLE` get a signal in an iteration, or (None) no more."""
    monkeypatch.setattr(Interrupt, "at", None)
    monkeypatch.setattr(Interrupt, "number", signal.SIGTERM)

    def at(iteration, number=signal.SIGTERM):
        Interrupt.at, Interrupt.number = iteration, number

    return at
