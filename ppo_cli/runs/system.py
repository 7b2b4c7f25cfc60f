"""What Linux says of processes; elsewhere, nothing."""

import os
from contextlib import suppress
from pathlib import Path


def status_of(process: int) -> tuple[str, int, str]:
    """What Linux has of a process: a letter, T where it is stopped; its parent's number; when it began."""
    try:
        words = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return words[0], int(words[1]), words[19]
    except (OSError, IndexError):
        return "", 0, ""


def descendants(process: int) -> list[int]:
    """A process, those that it has started, and so on, without this one; but on Linux it alone."""
    numbers = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    parents = {number: status_of(number)[1] for number in numbers if number != os.getpid()}
    found = [process]
    for each in found:
        found += [number for number, parent in parents.items() if parent == each]
    return found


def killed_for_memory() -> int:
    """How many processes this machine has killed because it was out of memory, where it says so."""
    with suppress(OSError, ValueError):
        words = Path("/proc/vmstat").read_text(encoding="utf-8").split()
        return int(words[words.index("oom_kill") + 1])
    return 0
