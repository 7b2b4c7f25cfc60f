"""Several processes of one run on this machine, started by PyTorch's own launcher."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

from ppo_cli.config.schema import Config
from ppo_cli.errors import RunError
from ppo_cli.runs.ranks import SAID, are_many
from ppo_cli.runs.signals import Interrupted

WORKER = "import sys; from ppo_cli.cli.entry import train; sys.argv[0] = 'ppo-train'; train()"
PATIENCE = 600  # seconds from a signal until processes that still save are killed


def launch_others(config: Config) -> None:
    """Where a config asks for several processes and this is the only one, has them do what is typed."""
    if not are_many() and config.processes not in ("auto", 1):
        launch(int(config.processes), sys.argv[1:])


def launch(processes: int, arguments: Sequence[str]) -> NoReturn:
    """Runs `ppo-train ARGUMENTS` as that many processes, and ends when all of them have ended.

    The first of them says what is to be said, and what went wrong too.

    Args:
        processes: Their number.
        arguments: What is typed.

    Raises:
        RunError: Something has killed one of them.
        Interrupted: A signal came before they had met.
        SystemExit: With their status, the first one's of those that failed, or that of a signal.
    """
    logging.disable()  # the launcher's own, which knows no more than that a process has ended
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="ppo-train",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=PATIENCE,
    )
    if hasattr(signal, "SIGUSR1"):  # which PyTorch leaves alone
        signal.signal(signal.SIGUSR1, _hand_on)
    with TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        os.environ[SAID] = str(said)
        try:
            elastic_launch(settings, sys.executable)("-c", WORKER, *arguments)
        except SignalException as error:
            if not said.exists():
                raise Interrupted(int(error.sigval)) from None
            sys.exit(128 + int(error.sigval))
        except ChildFailedError as error:
            rank, first = error.get_first_failure()
            if first.exitcode < 0 and not said.exists():  # it was killed before it could take part
                name = signal.Signals(-first.exitcode).name
                raise RunError(f"process {rank} on {socket.gethostname()} was ended by {name}") from None
            if first.exitcode > 128 and not said.exists():
                raise Interrupted(first.exitcode - 128) from None
            # Any other is that of code of somebody's, such as an environment's that has left by `os._exit`.
            sys.exit(first.exitcode if first.exitcode == 2 or first.exitcode > 128 else 1)
    sys.exit(0)


def _hand_on(number: int, _frame: FrameType | None) -> NoReturn:
    """Ends the processes by the signal that came, as PyTorch does by others."""
    from torch.distributed.elastic.multiprocessing import SignalException

    raise SignalException(f"signal {number}", signal.Signals(number))
