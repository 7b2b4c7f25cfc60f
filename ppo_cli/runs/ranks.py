"""Which of a run's processes this one is, as torchrun's environment variables say."""

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_cli.errors import ConfigError
from ppo_cli.runs.system import status_of
from ppo_cli.stop_signals import held_back, leave_to_parent

if TYPE_CHECKING:
    from ppo_cli.config.schema import Config
    from ppo_cli.runs.pulse import Pulse

SAID = "PPO_CLI_SAID"  # names the file that says to our launcher that it need not say why the run ended
POLL = 0.1  # seconds between two looks at a process
SILENCE = 12.0  # seconds after which what gives no sign of life is gone
STARTED = b"\x00"  # what a process tells its guard once it needs none
pulse: "Pulse | None" = None  # of this process, where it is one of several


def world_size() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def are_many() -> bool:
    """Whether this process is one of several."""
    return world_size() > 1


def rank() -> int:
    """The number of this process; the first one, 0, has the folder and the terminal."""
    return int(os.environ.get("RANK", "0")) if are_many() else 0


def is_first_here() -> bool:
    """Whether this process is the first of those on its machine, as far as that is known."""
    return int(os.environ.get("LOCAL_RANK", max(rank() - 1, 0))) == 0


def check_processes(config: "Config") -> None:
    """Raises ConfigError where processes are not as many as a run asks for, or can't share its shards."""
    many = world_size()
    if many > 1 and config.processes not in ("auto", many):
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


def still() -> str:
    """That this process stands still, as its sidecar sees."""
    return f"{here()} stands still for {SILENCE:.0f} seconds"


def is_launched() -> bool:
    """Whether a launcher of ours has started this process."""
    return SAID in os.environ


def note_said() -> None:
    """Tells a launcher of ours that it is said why the run ended."""
    if is_launched():
        with suppress(OSError):  # it has ended
            Path(os.environ[SAID]).touch()


def has_ended_launcher() -> bool:
    """Whether a launcher of ours has ended already, which has said why the run did."""
    return is_launched() and not Path(os.environ[SAID]).parent.exists()


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
        with guarded():
            from ppo_cli.runs.following import follow  # late: they bring PyTorch, which takes a while
            from ppo_cli.runs.pulse import Pulse, take_part

            pulse = Pulse(rank(), world_size())
        return take_part(pulse, lead, follow)

    return work


@contextmanager
def guarded(trains: bool = True) -> Iterator[None]:
    """Has another process tell the others where this one is killed or stopped before it has a sidecar.

    Args:
        trains: Whether this process is to become one of a run.
    """
    if not (trains and are_many()):
        yield
        return
    process, (reading, writing) = os.getpid(), os.pipe()
    with held_back():
        if not os.fork():
            os.close(writing)
            leave_to_parent()
            _guard(process, reading)
            os._exit(0)
    os.close(reading)
    status = b"\x01"
    try:
        yield
        status = STARTED
    except KeyboardInterrupt as error:
        status = bytes([128 + getattr(error, "number", signal.SIGINT)])
        if rank() or has_agent():  # which knows whether it was sent one, or another process is gone
            os.write(writing, status)
            os._exit(status[0])  # whatever is around would say that it was interrupted
        raise
    finally:
        os.write(writing, status)
        os.close(writing)


def _guard(process: int, reading: int) -> None:
    """Waits until a process has started; where it does not, is its sidecar."""
    looks = 0  # in a row that find it stopped
    while looks * POLL < SILENCE and not select.select([reading], [], [], POLL)[0]:
        looks = looks + 1 if status_of(process)[0] == "T" else 0
    status = os.read(reading, 1) if looks * POLL < SILENCE else None
    if status == STARTED:
        return
    from ppo_cli.runs.pulse import be_sidecar

    end = None  # it was killed
    if status is None:
        end = still(), 1, False
    elif status:  # a signal's speaks for itself
        end = "" if status[0] > 128 else f"{here()} did not start", status[0], True
    be_sidecar(rank(), world_size(), process, end=end)
