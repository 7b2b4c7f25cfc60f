"""Files as they are safe to use: only plain ones are read, to a limit, and none is written through a link.

Text is UTF-8 wherever it is written or read, whatever the locale says.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST_TEXT = 16 * 2**20  # bytes of a file that is read whole
_BINARY = getattr(os, "O_BINARY", 0)  # Windows has this one and lacks the others
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO would wait for its other end
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class NotPlainError(OSError):
    """A link, a folder, a FIFO or a device lies where a plain file is expected; the message is one line."""


def read_bytes(path: Path, limit: int = MOST_TEXT) -> bytes:
    """The contents of a plain file, or of one that a link leads to.

    Raises:
        NotPlainError: it is no plain file, or longer than ``limit`` bytes.
        OSError: it can't be read.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY), "rb") as file:
        _check_plain(path, file.fileno())
        data = file.read(limit + 1)
    if len(data) > limit:
        raise NotPlainError(f"{path} is longer than {limit:,} bytes, the most that is read of such a file")
    return data


def read_text(path: Path, limit: int = MOST_TEXT) -> str:
    """`read_bytes` as text.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, limit).decode("utf-8")


def open_own(path: Path, *, new: bool = False) -> BinaryIO:
    """Opens a file of one's own to read and write, at its beginning and as it is; never through a link.

    Args:
        path: of the file, which is made where it is missing.
        new: whether there must be none.

    Raises:
        FileExistsError: there is one, and it has to be ``new``.
        NotPlainError: a link or anything else that is no plain file lies there.
        OSError: it can't be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | _NO_FOLLOW | _NO_WAIT | _BINARY | (os.O_EXCL if new else 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise NotPlainError(f"{path} is a link, through which nothing is written; remove it") from error
        raise
    try:
        _check_plain(path, descriptor)
        return os.fdopen(descriptor, "r+b")
    except BaseException:
        os.close(descriptor)
        raise


def write_whole(path: Path, data: str | bytes) -> None:
    """Writes a file whole or not at all; what lay there, a link included, is replaced and not written to."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        aside.unlink(missing_ok=True)  # of a process that was killed, or a trap
        with open_own(aside, new=True) as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
        aside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Makes the names of the files in a folder survive a power cut, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_plain(path: Path, descriptor: int) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no plain file"
        raise NotPlainError(f"{path} is {what}, where a plain file is expected")
