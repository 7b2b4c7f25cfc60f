"""Files that a run goes on writing where a checkpoint left them: its TensorBoard events and its rows."""

import csv
import io
import logging
import os
import re
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from ppo_cli.files import open_own, sync_folder, written_aside

logger = logging.getLogger(__name__)

MOST_COLUMNS = 1000  # of a row, and so of tags in a run
HEADER = re.compile(rb"iteration,step(,[\w./-]{1,200}){1,%d}\r?\n" % MOST_COLUMNS, re.ASCII)
LONGEST_LINE = 2**20  # bytes of a row: so many columns take less
INFO = "info/"  # what the tags of what environments tell begin with
RECORD_EXTRA = 16  # bytes of a record of an event file that are not its data


class EventFile:
    """A TensorBoard event file that is written at once, so that its length can be known and cut back to."""

    def __init__(self, path: Path, length: int | None = None) -> None:
        """Opens a new file, or goes on behind the first ``length`` bytes of an old one, if they are there."""
        self.path = path
        self._file = open_own(path, new=length is None)
        self._records = RecordWriter(self._file)
        if length is not None:
            _cut(self._file, _whole_records(self._file, length), length, path.name)
        if not self.length():
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, summary: Summary, step: int | None = None) -> None:
        """Writes one summary."""
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def length(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def sync(self) -> None:
        """Brings to disk what was written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


class Columns(NamedTuple):
    """How many columns a metrics.csv had, but for those of iteration and step.

    Attributes:
        number: All of them; None in a checkpoint of before, when only those of ``info`` came on the way.
        infos: The number of columns of ``info`` then.
    """

    number: int | None = None
    infos: int = 0

    def of(self, tags: Sequence[str]) -> int:
        """The number, for a file that has these by now."""
        if self.number is not None:
            return self.number
        return sum(not tag.startswith(INFO) for tag in tags) + self.infos


class RowFile:
    """A metrics.csv that is written at once, a row an iteration, and can be cut back to a length.

    Columns come on the way, of keys of ``info`` and of hooks: then the file is written anew, each row with an
    empty cell more, and takes the old one's place. Cut back to a length from before, it loses them again.

    Attributes:
        tags: The columns, but for those of iteration and step.
    """

    def __init__(
        self, path: Path, tags: Sequence[str], length: int | None = None, columns: Columns | None = None
    ) -> None:
        """Opens a new file in the place of any other, or goes on behind ``length`` bytes of an old one.

        Args:
            path: The path of the file.
            tags: The columns; an old file goes on with its own.
            length: The length of it that a checkpoint knows.
            columns: How many columns it had then.
        """
        self._path = path
        self._use(open_own(path))
        whole = 0
        if length is not None:
            header = self._header()[2:]
            surplus = len(header) - (columns or Columns()).of(header)
            if surplus > 0:
                self._replace(_within(_narrowed(_lines(self._file), surplus), length))
            whole = _whole_rows(self._file, length)
        _cut(self._file, whole, length or 0, path.name)
        self.tags = list(tags)
        if self.length():
            self.tags = self._header()[2:]
        else:
            self._csv.writerow(["iteration", "step", *tags])
            self._text.flush()

    def widen(self, tags: Sequence[str]) -> None:
        """Adds columns, which the rows so far leave empty."""
        self._replace(_widened(_lines(self._file), tags))
        self._file.seek(0, os.SEEK_END)
        self.tags += tags

    def add(self, iteration: int, step: int, values: Mapping[str, float]) -> None:
        """Writes a row; a value that is missing is an empty cell."""
        self._csv.writerow([iteration, step, *(values.get(tag, "") for tag in self.tags)])
        self._text.flush()

    def length(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def sync(self) -> None:
        """Brings to disk what was written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._text.close()

    def _header(self) -> list[str]:
        """Names of all columns; none where the file does not begin with them."""
        end = self._file.tell()
        self._file.seek(0)
        line = self._file.readline(LONGEST_LINE)
        self._file.seek(end)
        return line.decode().rstrip("\r\n").split(",") if HEADER.fullmatch(line) else []

    def _use(self, file: BinaryIO) -> None:
        self._file = file
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._csv = csv.writer(self._text)

    def _replace(self, lines: Iterable[bytes]) -> None:
        """Puts a file of those lines in the place of this one: wherever a run is killed there is one, whole.

        Raises:
            OSError: it can't be written, or another file lies there by now.
        """
        if not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
            raise OSError(f"{self._path} is another file than the run wrote: it was moved or replaced")
        with written_aside(self._path) as aside:
            with open_own(aside, new=True) as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            self._text.close()
        sync_folder(self._path.parent)
        self._use(open_own(self._path))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The whole lines of a file of rows, from its beginning, up to what is no row."""
    file.seek(0)
    while (line := file.readline(LONGEST_LINE)).endswith(b"\n") and b"\0" not in line:
        yield line


def _widened(lines: Iterable[bytes], tags: Sequence[str]) -> Iterator[bytes]:
    """A file's lines with those columns behind its own."""
    more = "".join(f",{tag}" for tag in tags).encode()
    for line in lines:
        yield line.rstrip(b"\r\n") + more + b"\r\n"
        more = b"," * len(tags)


def _narrowed(lines: Iterable[bytes], n: int) -> Iterator[bytes]:
    """A file's lines without the last n columns, up to one that has not so many."""
    for line in lines:
        first, *cells = line.rsplit(b",", n)
        if len(cells) < n:
            return
        yield first + b"\r\n"


def _within(lines: Iterable[bytes], length: int) -> Iterator[bytes]:
    """The first lines that have no more than ``length`` bytes together."""
    for line in lines:
        length -= len(line)
        if length < 0:
            return
        yield line


def _cut(file: BinaryIO, whole: int, expected: int, name: str) -> None:
    """Goes on behind the first ``whole`` bytes of a file, and says where it lacks some of those expected."""
    file.truncate(whole)
    file.seek(whole)
    if whole < expected:
        logger.warning(
            "%s has %s of the %s bytes that the checkpoint recorded (a power cut? a copy of a running run?): "
            "it goes on behind what is whole",
            name, f"{whole:,}", f"{expected:,}",
        )  # fmt: skip


def _whole_rows(file: BinaryIO, length: int) -> int:
    """Bytes of the whole rows in the first ``length`` bytes of a file; 0 where it begins with no header."""
    data = file.read(min(length, os.fstat(file.fileno()).st_size))
    gap = data.find(b"\0")  # what was not on disk yet when the power was cut
    end = data.rfind(b"\n", 0, None if gap < 0 else gap) + 1
    return end if HEADER.match(data) else 0


def _whole_records(file: BinaryIO, length: int) -> int:
    """Bytes of the whole records in the first ``length`` bytes of an event file.

    A record is its length (8 bytes), the length's checksum (4), the data, and the data's checksum (4).
    """
    length = min(length, os.fstat(file.fileno()).st_size)
    end = 0
    while end + RECORD_EXTRA <= length:
        file.seek(end)
        size, checksum = file.read(8), file.read(4)
        if struct.unpack("<I", checksum) != (masked_crc32c(size),):
            break
        after = end + RECORD_EXTRA + int(struct.unpack("<Q", size)[0])
        if after > length:
            break
        end = after
    return end
