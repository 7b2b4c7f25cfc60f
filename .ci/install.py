"""`pip install` of what the arguments name, told in a line every few seconds.

`make` calls it with the Python of .venv. It needs the standard library alone and takes the pip that
`ensurepip` brings with any Python since 3.10. Where pip fails, what it said is printed, and its status is
this one's.
"""

import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 3.0  # seconds between lines where there is something new
SILENCE = 10.0  # and where there is not

_FILE = re.compile(
    r"(?:Downloading|Using cached|Processing) (?P<path>\S*?(?P<name>[\w.]+)-(?P<version>\d[\w.!+]*?)"
    r"(?:-\S*\.whl|\.tar\.gz|\.zip))(?: \((?P<size>[\d.]+) (?P<unit>bytes|kB|MB|GB)\))?$"
)
_UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass
class Install:
    """What pip has told so far."""

    sizes: dict[str, float] = field(default_factory=dict)  # bytes of the package files, by name
    doing: str = "looking for packages"
    file: str | None = None  # that pip may be fetching
    log: list[str] = field(default_factory=list)

    def hear(self, line: str) -> None:
        """Takes a line of pip's."""
        self.log.append(line)
        if found := _FILE.match(line.strip()):
            self.sizes[found["name"].lower()] = _size(found["path"], found["size"], found["unit"])
            self.doing = f"{found['name']} {found['version']}"
            self.file = Path(found["path"]).name
        elif line.startswith("Installing collected packages: "):
            self.doing, self.file = "installing them", None

    def total(self) -> str:
        """How many packages, and how large."""
        count = len(self.sizes)
        return f"{count} package{'' if count == 1 else 's'}, {sum(self.sizes.values()) / 1e6:,.0f} MB"


def _size(path: str, number: str | None, unit: str | None) -> float:
    """Bytes of a package file: what pip says, or those of a file that lies here."""
    if number is not None and unit is not None:
        return float(number) * _UNITS[unit]
    return Path(path).stat().st_size if Path(path).is_file() else 0.0


def arrived(folder: Path, file: str | None) -> str:
    """How much there is of a file that pip writes into its temporary folder; nothing of a small one."""
    try:
        size = max((path.stat().st_size for path in folder.glob(f"pip-unpack-*/{file}")), default=0)
    except OSError:  # it is there no longer
        size = 0
    return f", {size / 1e6:,.0f} MB of it here" if size > 1e6 else ""


def _read(stream: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert stream.stdout is not None
    for line in stream.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _watch(process: "subprocess.Popen[str]", install: Install, temporary: Path) -> None:
    """Prints how far pip is, until it ends."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    start = said = time.monotonic()
    told = ""
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            line = ""
        if line is None:
            return
        if line:
            install.hear(line)
        now, state = time.monotonic(), f"{install.total()}: {install.doing}"
        if "Retrying" in line:
            print(f"  {now - start:4.0f} s  the connection broke; pip tries again", flush=True)
        elif now - said > (EVERY if state != told else SILENCE):
            print(f"  {now - start:4.0f} s  {state}{arrived(temporary, install.file)}", flush=True)
            said, told = now, state


def main(arguments: Sequence[str]) -> int:
    """Runs `pip install` with the arguments; returns its status."""
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--progress-bar", "off", *arguments]
    install, start = Install(), time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": temporary},
        )
        try:
            _watch(process, install, Path(temporary))
        except KeyboardInterrupt:  # pip has got the signal too
            process.wait()
            return 128 + signal.SIGINT
        status = process.wait()
    if status:
        first = next((i for i, line in enumerate(install.log) if "error" in line.lower()), 0)
        print("\n".join(install.log[first:]), file=sys.stderr)
        return status if status > 0 else 128 - status
    print(f"  {time.monotonic() - start:4.0f} s  done: {install.total()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
