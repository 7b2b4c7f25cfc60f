"""Where a run is written: names of folders under outputs/, and making them exclusively."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ppo_cli.errors import ConfigError
from ppo_cli.files import NotPlainError
from ppo_cli.runs.folder import RunFolder

LONGEST_NAME = 120  # bytes; most file systems take 255, and numbers and endings come behind


def folder_name(text: str) -> str:
    """A text as the name of one folder: separators become ``-``, a long name ends in a hash."""
    name = re.sub(r"[/\\:\s]+", "-", text)
    name = re.sub(r"['\"{}\[\]]", "", name)
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    kept = data[: LONGEST_NAME - 9].decode("utf-8", "ignore")
    return f"{kept}_{hashlib.sha256(data).hexdigest()[:8]}"


def run_dir(env_id: str, overrides: Sequence[str], now: datetime) -> Path:
    """``outputs/<env>/<timestamp>[_<overrides>]``, the overrides without what chose the environment."""
    typed = [o for o in overrides if not o.startswith(("env=", "env.id=", "hydra."))]
    name = "_".join([now.strftime("%Y-%m-%d_%H-%M-%S"), *([",".join(typed)] if typed else [])])
    return Path("outputs") / folder_name(env_id) / folder_name(name)


def is_hydra(override: str) -> bool:
    """Whether an override sets something of Hydra's own."""
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def job_names(jobs: Sequence[Sequence[str]]) -> list[str]:
    """A folder name for each job of a sweep: the overrides in which jobs differ; no two are the same."""
    shared = set(jobs[0]).intersection(*jobs[1:]) if len(jobs) > 1 else set()
    names: list[str] = []
    taken: set[str] = set()
    for job in jobs:
        own = sorted(o for o in job if o not in shared and not is_hydra(o))
        name = unique = folder_name(",".join(own)) or "job"
        number = 1
        while unique.casefold() in taken:  # some file systems do not tell case apart
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.casefold())
        names.append(unique)
    return names


def make_exclusive(path: Path) -> Path:
    """Creates a folder that did not exist: ``path``, or ``path_2``, ``path_3``, ... where it did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, 10_000):
        candidate = path if attempt == 1 else path.with_name(f"{path.name}_{attempt}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise FileExistsError(f"{path} and 9,998 numbered folders beside it exist already")


@contextmanager
def new_folder(path: Path, exclusive: bool) -> Iterator[Path]:
    """A folder to run something in: ``path``, or where it has to be new, ``path_2`` and so on.

    What was made is taken away again, folders above it too, if bad input ends the work before it has trained.

    Raises:
        ConfigError: the folder can't be made.
    """
    made, before = [], set[Path]()
    try:
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        if exclusive:
            path = make_exclusive(path)
            made = [path, *made]
        else:
            path.mkdir(parents=True, exist_ok=True)
            RunFolder(path).check_own()  # before Hydra writes there
            before = set(path.iterdir())
    except NotPlainError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{path} can't be made: {error}") from error
    try:
        yield path
    except ConfigError:
        if not any(path.rglob(RunFolder.checkpoints.name)):
            for left in set(path.iterdir()) - before:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            for folder in made:
                with suppress(OSError):  # somebody else's files are in it by now
                    folder.rmdir()
        raise
