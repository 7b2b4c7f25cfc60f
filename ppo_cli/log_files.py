"""Files that a run goes on writing where a checkpoint left them: its TensorBoard events and its rows."""

import csv
import io
import logging
import os
import re
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from ppo_cli.files import open_own

logger = logging.getLogger(__name__)

HEADER = re.compile(rb"iteration,step(,[\w/]{1,200}){1,1000}\r?\n", re.ASCII)
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


class RowFile:
    """A metrics.csv that is written at once, a row an iteration, and can be cut back to a length."""

    def __init__(self, path: Path, tags: Sequence[str], length: int | None = None) -> None:
        """Opens a new file in the place of any other, or goes on behind ``length`` bytes of an old one.

        Args:
            path: of the file.
            tags: its columns; an old file goes on with its own.
            length: what of it a checkpoint knows.
        """
        self._file = open_own(path)
        _cut(self._file, 0 if length is None else _whole_rows(self._file, length), length or 0, path.name)
        self._text = io.TextIOWrapper(self._file, encoding="utf-8", newline="", write_through=True)
        self._csv = csv.writer(self._text)
        self._tags = tags
        if self.length():
            self._tags = self._header()[2:]
        else:
            self._csv.writerow(["iteration", "step", *tags])
            self._text.flush()

    def add(self, iteration: int, step: int, values: Mapping[str, float]) -> None:
        """Writes a row; a value that is missing is an empty cell."""
        self._csv.writerow([iteration, step, *(values.get(tag, "") for tag in self._tags)])
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
        end = self._file.tell()
        self._file.seek(0)
        line = self._file.readline().decode("utf-8", "replace")
        self._file.seek(end)
        return next(csv.reader([line]))


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
