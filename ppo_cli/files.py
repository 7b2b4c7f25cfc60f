"""Files as they are safe to use: only plain ones are read, to a limit, and none is written through a link.

Text is UTF-8 wherever it is written or read, whatever the locale says.
"""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ppo_cli.text import flat

MOST_TEXT = 16 * 2**20  # bytes of a file that is read whole
DEEPEST = 50  # levels of YAML; configs have five
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
    with _opened(path, os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY), "rb") as file:
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


def read_json(path: Path, limit: int = MOST_TEXT) -> Any:  # noqa: ANN401
    """What a plain file holds as JSON; that a key comes twice in a mapping is no JSON here.

    Raises:
        ValueError: it is no JSON, is nested too deep, or is not UTF-8; one line.
        OSError: as `read_bytes`.
    """
    try:
        return json.loads(read_text(path, limit), object_pairs_hook=_without_twins)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _without_twins(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:40]!r} comes twice")
        found[key] = value
    return found


def read_yaml(path: Path, limit: int = 2**20) -> str:
    """The text of a plain file, which is YAML that is safe to load with a safe loader.

    An alias stands for what is written elsewhere, so that a few lines of them make billions of values or a
    mapping that holds itself; no config of ours has one.

    Raises:
        ValueError: it is no YAML, has an alias, is nested too deep, or is not UTF-8; one line.
        OSError: as `read_bytes`.
    """
    import yaml  # late: PyYAML is not needed to write a file

    text = read_text(path, limit)
    depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has an alias (*NAME), which is not taken")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError("it is nested too deep")
    except yaml.YAMLError as error:
        raise ValueError(flat(error)) from error
    return text


def first_line(path: Path) -> str:
    """The first line of a plain file, or nothing where it can't be read; only what can be printed."""
    try:
        text = read_bytes(path).decode("utf-8", "replace")
    except OSError:
        return ""
    return printable(text.splitlines()[0]) if text else ""


def printable(text: str) -> str:
    """A text in which what is no letter, sign or space, as what steers a terminal, is an escape instead."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def make_folder(path: Path) -> None:
    """Makes a folder, or takes the one that is there: a real one, in which there is no link and no device.

    Raises:
        NotPlainError: it is a link or no folder, or something in it is neither a plain file nor a folder.
        OSError: it can't be made.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    if not stat.S_ISDIR(path.lstat().st_mode):
        what = "a link" if path.is_symlink() else "a file"
        raise NotPlainError(f"{path} is {what}, where a folder is expected; nothing is written through it")
    with os.scandir(path) as entries:
        for entry in entries:
            if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                what = "a link" if entry.is_symlink() else "no plain file"
                raise NotPlainError(
                    f"{Path(entry.path)} is {what}, in a folder that is written to; remove it"
                )


def open_own(path: Path, *, new: bool = False) -> BinaryIO:
    """Opens a file of one's own to read and write, at its beginning and as it is; never through a link.

    Args:
        path: The path of the file, which is made where it is missing.
        new: Whether there must be none.

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
    return _opened(path, descriptor, "r+b")


@contextlib.contextmanager
def written_aside(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """A path to write to what is to lie at another whole or not at all; then it is renamed, at once.

    What lay at the path, a link included, is replaced and not written to. An error leaves it as it was.
    """
    aside = path.with_name(f".{path.name}{suffix}")
    try:
        aside.unlink(missing_ok=True)  # of a process that was killed, or a trap
        yield aside
        aside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_whole(path: Path, data: str | bytes) -> None:
    """Writes a file whole or not at all; what lay there, a link included, is replaced and not written to."""
    with written_aside(path) as aside, open_own(aside, new=True) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextlib.contextmanager
def lock_file(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Holds a file against other processes.

    The lock is the process's own: it ends with it, however it ends, and its workers do not share it.

    Args:
        path: The path of the file, which is made.
        refusal: The message where another process holds it; None waits until it does not.

    Raises:
        OSError: another process holds it.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    with open_own(path) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except OSError as error:
            raise OSError(refusal or f"{path} can't be locked: {error}") from error
        yield


def sync_folder(path: Path) -> None:
    """Makes the names of the files in a folder survive a power cut, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path, descriptor: int, mode: Literal["rb", "r+b"]) -> BinaryIO:
    try:
        _check_plain(path, descriptor)
        return os.fdopen(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise


def _check_plain(path: Path, descriptor: int) -> None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise NotPlainError(f"{path} is no plain file, where one is expected")
