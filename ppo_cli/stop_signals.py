"""The signals that ask a run to stop, and how the processes that it forks leave them to it."""

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Ctrl-C, what `kill` and a cluster's time limit send, SLURM's warning (`--signal=USR1@60`), and a terminal
# that closes; Windows has the first two.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def held_back() -> Iterator[None]:
    """Keeps the stop signals waiting while a process is forked, which gets none until `leave_to_parent`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def without_jax() -> Iterator[None]:
    """Silences what JAX says of every fork, where the forked process will not use it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        yield


def leave_to_parent() -> None:
    """Ignores the stop signals in a process that was forked in `held_back`: its parent ends it."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
