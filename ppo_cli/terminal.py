"""The terminal, where there is one: whether it is live, how wide it is, and lines that are drawn again.

Rich is imported late: an error and a page of help need none of it. (A run imports it before it seeds.)
"""

import html
import io
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from ppo_cli.text import clock, register_spelling, words_in

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80  # where nothing says how wide it is, as in a pipe
REDRAW_SECONDS = 0.2  # between two pictures of a notebook's line, each of which is a message to a browser


def output_console() -> "Console":
    """Standard output; a file or pipe is no terminal, whatever FORCE_COLOR says."""
    from rich.console import Console

    stream = getattr(sys.stdout, "rich_proxied_file", sys.stdout)  # below a line that is drawn
    return Console(highlight=False, force_terminal=None if stream.isatty() else False)


def is_live(console: "Console") -> bool:
    """Whether what a console has written can be drawn again: not in a file or pipe, nor with TERM=dumb."""
    return console.is_terminal and not console.is_dumb_terminal


def width() -> int:
    """Columns of the terminal, or as COLUMNS says."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def wrapped(text: str) -> str:
    """A text as it is printed: on a live terminal its lines end between words, elsewhere as it is."""
    if not is_live(output_console()):
        return text
    return "\n".join(line for each in text.splitlines() for line in words_in(each, width()))


def wrapped_error(text: str) -> str:
    """A text as it is printed on standard error: likewise, but lines after the first stay as they are."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return text
    first, newline, rest = text.partition("\n")
    return "\n".join(words_in(first, width())) + newline + rest


def replace_unprintable() -> None:
    """Has this process spell or escape what the output's encoding lacks (ε, ±, a name's bytes), and go on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not closed, and no stand-in
            stream.reconfigure(errors=register_spelling())


class WordFormatter(logging.Formatter):
    """Formats records as lines that `wrapped` gives."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text, as on the terminal that there is."""
        return wrapped(super().format(record))


class Line(Protocol):
    """A line with a bar that is drawn again and again."""

    def update(self, text: str, completed: int | None = None) -> None:
        """Shows another text, and how much of the total is done."""

    def counting(self, text: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A bar below this line, gone afterwards, that a function sets."""

    def stop(self) -> None:
        """Leaves the line as it is."""


def live_line(total: int, text: str) -> Line | None:
    """A line that is drawn again and again, on a terminal or in a notebook; None where there is neither.

    Args:
        total: The number at which the bar is full.
        text: The text of the line to begin with.
    """
    console = output_console()
    if console.is_jupyter:
        return NotebookLine(total, text)
    return LiveLine(console, total, text) if is_live(console) else None


class LiveLine:
    """A line of text with a bar that is drawn again and again; what is logged meanwhile stands above it."""

    def __init__(self, console: "Console", total: int, text: str) -> None:
        """Begins to draw.

        Args:
            console: The console that is live.
            total: The total of the bar.
            text: The text to begin with.
        """
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.fields[text]}"),
            BarColumn(None),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("", total=total, text=text)
        before = sys.stdout
        self._progress.start()  # from here on, sys.stdout writes above the line
        self._handlers = [
            handler
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is before
        ]
        self._log_to(sys.stdout)
        self._before = before

    def update(self, text: str, completed: int | None = None) -> None:
        """Shows another text, and how much of the total is done."""
        self._progress.update(self._task, completed=completed, text=text)

    @contextmanager
    def counting(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar below this line, gone afterwards, that a function sets."""
        task = self._progress.add_task("", total=total, text=text)
        try:
            yield lambda done: self._progress.update(task, completed=done)
        finally:
            self._progress.remove_task(task)

    def stop(self) -> None:
        """Leaves the line as it is."""
        self._log_to(self._before)
        self._progress.stop()

    def _log_to(self, stream: TextIO) -> None:
        for handler in self._handlers:
            cast("logging.StreamHandler[TextIO]", handler).setStream(stream)


class NotebookLine:
    """A `LiveLine` in the output of a notebook's cell."""

    def __init__(self, total: int, text: str) -> None:
        """Begins to draw.

        Args:
            total: The number at which the bar is full.
            text: The text of the line to begin with.
        """
        from IPython.display import DisplayHandle

        self._total, self._text = total, text
        self._completed = 0
        self._first: int | None = None  # what was done when it began to be told
        self._began = self._drawn = time.monotonic()
        self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
        self._handle.display(self._shown(), raw=True)  # type: ignore[no-untyped-call]

    def update(self, text: str, completed: int | None = None) -> None:
        """Shows another text, and how much of the total is done."""
        self._text = text
        if completed is not None:
            self._completed = completed
            if self._first is None:  # a run that goes on has done much already
                self._first, self._began = completed, time.monotonic()
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._draw()

    @contextmanager
    def counting(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows another bar meanwhile, that a function sets."""
        before, paused = (self._text, self._total, self._completed, self._first), time.monotonic()
        began = self._began
        self._text, self._total, self._completed, self._first = text, total, 0, 0
        self._began = paused
        try:
            yield lambda done: self.update(text, done)
        finally:
            self._text, self._total, self._completed, self._first = before
            self._began = began + time.monotonic() - paused

    def stop(self) -> None:
        """Leaves the line as it is."""
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._handle.update(self._shown(), raw=True)  # type: ignore[no-untyped-call]

    def _shown(self) -> dict[str, str]:
        """The line as the notebook's front end and, where that shows plain text alone, as text."""
        share = min(1.0, self._completed / max(1, self._total))
        text = f"{self._text} · {share:.0%}"
        done = self._completed - (self._first or 0)
        if done > 0 and share < 1:
            left = (time.monotonic() - self._began) * (self._total - self._completed) / done
            text += f" · {clock(left)} left"
        bar = f'<progress value="{share:.3f}" style="width: 20em; vertical-align: middle"></progress>'
        return {"text/plain": text, "text/html": f"<code>{html.escape(text)}</code> {bar}"}
