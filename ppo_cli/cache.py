"""Where compiled libraries are kept between runs, and that only what this user compiled is loaded again.

A library is code that is run when it is loaded. So its folder must belong to this user, and nobody else may
write to it; a library's name holds the SHA-256 of its contents, which is checked before it is loaded.
"""

import contextlib
import functools
import hashlib
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import Self

from ppo_cli.files import read_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LONGEST = 2**30  # bytes of a library; the update of a small network takes 0.4 MB
PLAIN = re.compile(r"[\w./+:\\-]+", re.ASCII)  # a path that needs no quotes
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
LONGEST_WAIT, POLL_SECONDS = 600.0, 0.05


def trusted_folder(wanted: Path) -> Path:
    """A folder for libraries: ``wanted``, or else one in the temporary folder, each made where it is missing.

    A line says where it is not ``wanted`` although that is there.
    """
    refusal = _refusal(wanted)
    if refusal is None:
        return wanted
    if os.path.lexists(wanted):
        logger.warning("compiled code is not kept in %s: %s", wanted, refusal)
    return _temporary_folder()


def find(name: str, folder: Path) -> Path | None:
    """An intact library that this user compiled, or None; what is damaged or somebody else's is removed."""
    places = [folder] if _is_writable(folder) else [folder, _temporary_folder()]
    for path in (path for place in places for path in sorted(place.glob(f"{name}-*.pt2"))):
        with contextlib.suppress(OSError):
            if _is_own(path) and path.stem == f"{name}-{_digest(path)}":
                return path
            path.unlink()
    return None


def store(name: str, built: Path, folder: Path) -> None:
    """Puts a library into a folder, or into the temporary one where that can't be written to.

    Whole or not at all: jobs of a sweep may compile the same step at once.

    Raises:
        OSError: it can't be written, as on a full disk.
    """
    place = folder if _is_writable(folder) else _temporary_folder()
    descriptor, aside = tempfile.mkstemp(prefix=".", suffix=".part", dir=place)  # for this user alone
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(read_bytes(built, LONGEST))
        os.replace(aside, place / f"{name}-{_digest(built)}.pt2")
    except BaseException:
        os.unlink(aside)
        raise


class Turn:
    """The right to compile a library, which one process at a time has, so that others wait for what it makes.

    It is a lock on a file, which the kernel opens again when its owner ends, however that ends. Where files
    can't be locked everybody has the right, and at worst a library is compiled twice.
    """

    def __init__(self, name: str, folder: Path) -> None:
        """Has nothing yet.

        Args:
            name: The library's name.
            folder: The folder in which it is to be kept.
        """
        place = folder if _is_writable(folder) else _temporary_folder()
        self._path = place / f".{name}.lock"
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether others wait for this one."""
        return self._descriptor is not None

    def take(self) -> bool:
        """Takes it; False where another process has it."""
        if fcntl is None:
            return True
        descriptor = None
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if descriptor is not None:
                os.close(descriptor)
            return not isinstance(error, BlockingIOError)
        self._descriptor = descriptor
        return True

    def wait(self, quietly: bool) -> None:
        """Takes it when the process that has it has compiled, or at the latest after ten minutes.

        Args:
            quietly: Whether no line says that it waits.
        """
        until = time.monotonic() + LONGEST_WAIT
        if self.take():
            return
        if not quietly:
            logger.info("another process compiles the same update: waiting for it")
        while not self.take():
            if time.monotonic() > until:
                logger.warning("it took longer than %.0f s: compiling it here, too", LONGEST_WAIT)
                return
            time.sleep(POLL_SECONDS)

    def leave(self) -> None:
        """Leaves it to a process that was forked while this one had it, and which has it until it ends."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        """Has been taken, or waited for."""
        return self

    def __exit__(self, *_: object) -> None:
        """Gives it to the next one."""
        if self.is_held:
            self._path.unlink(missing_ok=True)
            self.leave()


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """An empty folder to compile in, for this user alone, whose name a command line takes as it is.

    PyTorch puts paths into the compiler's command line unquoted, so that one with a space compiles nothing.
    """
    usual = tempfile.gettempdir()
    places = [usual, "/tmp", "/var/tmp", os.getcwd()]
    place = next((p for p in places if PLAIN.fullmatch(p) and os.access(p, os.W_OK | os.X_OK)), usual)
    with tempfile.TemporaryDirectory(prefix="ppo-cli-", dir=place) as folder:
        yield Path(folder)


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, LONGEST)).hexdigest()


@functools.cache
def _temporary_folder() -> Path:
    """This user's own in the temporary folder, or a new one where that can't be trusted."""
    own = Path(tempfile.gettempdir()) / ("ppo-cli" if _user() is None else f"ppo-cli-{_user()}")
    refusal = _refusal(own)
    if refusal is None:
        return own
    new = Path(tempfile.mkdtemp(prefix="ppo-cli-"))
    logger.warning("compiled code is not kept in %s: %s; this run's is in %s", own, refusal, new)
    return new


def _refusal(folder: Path) -> str | None:
    """Why a folder, made where it is missing, can't be trusted, in a few words; None where it can."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(status.st_mode):
        return "it is a link, or no folder"
    if _user() not in (None, status.st_uid):
        return "it is another user's"
    if _user() is not None and status.st_mode & OTHERS_WRITE:
        return f"other users can write to it (chmod 700 '{folder}' after looking into it)"
    return None


def _is_own(path: Path) -> bool:
    status = path.lstat()
    shared = _user() is not None and status.st_mode & OTHERS_WRITE
    return stat.S_ISREG(status.st_mode) and _user() in (None, status.st_uid) and not shared


def _user() -> int | None:
    """This user's number; None on Windows, whose temporary and cache folders are a user's own."""
    return os.getuid() if hasattr(os, "getuid") else None
