"""Output that may get lost, and ends nothing then: a full disk, a reader that is gone, a closed terminal."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ppo_cli.files import open_own
from ppo_cli.terminal import WordFormatter


class _Lasting(io.RawIOBase):
    """Writes to a descriptor; what can't be written is dropped.

    Attributes:
        failure: The first reason for which something could not be written.
    """

    def __init__(self, descriptor: int, failed: Callable[[OSError], None] | None = None) -> None:
        self.failure: OSError | None = None
        self._descriptor, self._failed = descriptor, failed

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - bytes, in any form
        left = memoryview(data).cast("B")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            if self.failure is None:
                self.failure = error
                if self._failed is not None:
                    self._failed(error)
        return len(memoryview(data).cast("B"))


class _LastingText(io.TextIOWrapper):
    """A text stream over `_Lasting`."""

    def __init__(self, raw: _Lasting, like: TextIO) -> None:
        unbuffered = getattr(like, "write_through", False)
        buffer: Any = raw if unbuffered else io.BufferedWriter(raw)
        super().__init__(
            buffer,
            encoding=like.encoding,
            errors=like.errors,
            line_buffering=getattr(like, "line_buffering", False),
            write_through=unbuffered,
        )
        self.raw = raw


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Standard output and error are streams that last, also where they were closed from the start."""
    _occupy()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


def output_failure() -> OSError | None:
    """Why something could not be written to standard output; None where all could."""
    return sys.stdout.raw.failure if isinstance(sys.stdout, _LastingText) else None


def _occupy() -> None:
    """Opens the descriptors of the standard streams that are closed, so that no file of a run gets them."""
    for descriptor in range(3):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if os.name == "nt" or isinstance(stream, _LastingText):
        return stream
    try:
        stream.flush()
        return _LastingText(_Lasting(stream.fileno()), stream)
    except (OSError, ValueError):  # no file, such as where a test takes what is printed
        return stream


class LogFile(logging.FileHandler):
    """A log that a run goes on without, where it can't be opened or written; it says so once, on stderr."""

    def __init__(self, filename: str | Path, mode: str = "a", encoding: str | None = "utf-8") -> None:
        """Opens it, to go on at its end.

        Args:
            filename: The path of the log.
            mode: The mode that a handler is given, always that.
            encoding: The encoding of the text.
        """
        super().__init__(filename, mode, encoding or "utf-8")

    def _open(self) -> io.TextIOWrapper:
        try:
            with open_own(Path(self.baseFilename)) as file:
                descriptor = os.dup(file.fileno())
            os.lseek(descriptor, 0, os.SEEK_END)
        except OSError as error:
            self._say(error)
            descriptor = os.open(os.devnull, os.O_WRONLY)
        raw = _Lasting(descriptor, self._say)
        return io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=self.encoding,
            errors="backslashreplace",
        )

    def close(self) -> None:
        """Closes the file: not so a stream of the process's, a log's descriptor is its own."""
        with self.lock or contextlib.nullcontext():
            descriptor = None if self.stream is None else self.stream.fileno()
            super().close()
            if descriptor is not None:
                os.close(descriptor)

    def _say(self, error: OSError) -> None:
        what = str(error) if error.strerror is None else f"{self.baseFilename}: {error.strerror}"
        print(f"ppo-train: {what}; the run goes on without this log", file=sys.stderr, flush=True)


class _Console(logging.StreamHandler[TextIO]):
    """Writes to what standard output is at the moment, since a live line puts itself before it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(WordFormatter())

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout


@contextlib.contextmanager
def logging_to(path: Path, verbose: bool) -> Iterator[None]:
    """Has what this package logs stand in a file and on standard output meanwhile.

    The root logger, which belongs to the program or notebook around, stays as it is and gets none of it.

    Args:
        path: The file, which is appended to.
        verbose: Whether all lines are shown, or warnings alone.
    """
    console, own = _Console(), logging.getLogger("ppo_cli")
    console.setLevel(logging.INFO if verbose else logging.WARNING)
    handlers: list[logging.Handler] = [LogFile(path), console]
    before = own.level, own.propagate
    own.setLevel(logging.INFO)
    own.propagate = False
    for handler in handlers:
        own.addHandler(handler)
    try:
        yield
    finally:
        own.setLevel(before[0])
        own.propagate = before[1]
        for handler in handlers:
            own.removeHandler(handler)
            handler.close()
