"""Which of a run's processes this one is, as torchrun's environment variables say."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_cli.errors import ConfigError
from ppo_cli.stop_signals import held_back, leave_to_parent

if TYPE_CHECKING:
    from ppo_cli.config.schema import Config
    from ppo_cli.runs.pulse import Pulse

NOTES = "PPO_CLI_NOTES"  # names the folder in which processes leave notes to their launcher and each other
SAID, GONE = "said", "gone"  # why the run ends is said; one was killed before it could take part
STARTED = b"\x00"  # what a process tells its guard once it needs none
SOON = 0.5  # seconds in which it is noted who is gone, where the launcher ends the others
beside: "Pulse | None" = None  # what this process has of what is beside it, where it is one of several


def world_size() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def are_many() -> bool:
    """Whether this process is one of several."""
    return world_size() > 1


def rank() -> int:
    """The number of this process; the first one, 0, has the folder and the terminal."""
    return int(os.environ.get("RANK", "0")) if are_many() else 0


def check_processes(config: "Config") -> None:
    """Raises ConfigError where processes are not as many as a run asks for, or can't share its shards."""
    many = world_size()
    if config.processes not in ("auto", many):
        raise ConfigError(
            f"processes={config.processes}: this run has {many}; `ppo-train` starts more of a single run, "
            "torchrun of one with processes=auto"
        )
    if config.shards % many:
        raise ConfigError(
            f"{many} processes can't share shards={config.shards} equally: expected a multiple of {many}"
        )


def has_agent() -> bool:
    """Whether torchrun's agent, or ours, has started this process, and has a store in which all can meet."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def here() -> str:
    """Which process this is, and on which machine."""
    return f"process {rank()} on {socket.gethostname()}"


def note(what: str) -> None:
    """Leaves a note, where a launcher of ours has started this process."""
    if NOTES in os.environ:
        with suppress(OSError):  # it has ended
            (Path(os.environ[NOTES]) / what).touch()


def is_noted(what: str, seconds: float = 0.0) -> bool:
    """Whether one of the processes that our launcher has started has left a note, or does so soon."""
    if NOTES not in os.environ:
        return False
    end = time.monotonic() + seconds
    while not (there := (Path(os.environ[NOTES]) / what).exists()) and time.monotonic() < end:
        time.sleep(0.1)
    return there


def taking_part(lead: Callable[[], None]) -> Callable[[], int | None]:
    """What a process does where it may be one of several: the first one leads the others, which follow.

    Args:
        lead: What one process alone does: it alone reads what is typed.
    """
    if not are_many():
        return lead

    def work() -> int | None:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise ConfigError(f"WORLD_SIZE={world_size()} without {name}: torchrun sets where all meet")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # who is gone is said in a line
        with _guarded():
            from ppo_cli.runs.following import follow  # late: they bring PyTorch, which takes a while
            from ppo_cli.runs.pulse import Pulse, take_part

            pulse = Pulse(rank(), world_size())
        return take_part(pulse, lead, follow)

    return work


@contextmanager
def _guarded() -> Iterator[None]:
    """Has another process tell the others where this one is killed before it can have anything beside it."""
    process, (reading, writing) = os.getpid(), os.pipe()
    with held_back():
        if not os.fork():
            os.close(writing)
            leave_to_parent()
            status = os.read(reading, 1)  # nothing where it is killed
            if not status:
                note(GONE)
            if status != STARTED:
                from ppo_cli.runs.pulse import stand_beside

                stand_beside(rank(), world_size(), process, status=status[0] if status else None)
            os._exit(0)
    os.close(reading)
    status = b"\x01"
    try:
        yield
        status = STARTED
    except KeyboardInterrupt as error:
        status = bytes([128 + getattr(error, "number", signal.SIGINT)])
        if is_noted(GONE, SOON):
            sys.exit(1)
        raise
    finally:
        os.write(writing, status)
        os.close(writing)
