"""Words as they have to be typed, so that the shell and Hydra read what is meant."""

import contextlib
import re
import shlex
import shutil
import sys
from pathlib import Path


def shell_quoted(text: object) -> str:
    """A text as one word of a shell's, in quotes whether it needs them or not."""
    return "'" + str(text).replace("'", "'\"'\"'") + "'"


def literal_text(text: str) -> str:
    """A text as a value of OmegaConf's, with every ``${`` as letters rather than an interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: f"{2 * found[1]}\\${{", text)


def hydra_quoted(text: object) -> str:
    """A text as a value in Hydra's grammar, in which quotes, and backslashes before them, are escaped."""
    literal = literal_text(str(text))
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), literal)
    return f"'{escaped}'"


def typed_path(text: str) -> Path:
    """The path that a word stands for: without quotes around it, ``~`` being the home folder.

    The shell leaves both in the middle of a word, as in ``resume=~/run`` or ``"resume='run'"``.
    """
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = re.sub(r"(\\*)\\(['\"])", lambda found: found[1][::2] + found[2], text[1:-1])
    with contextlib.suppress(RuntimeError):  # ~name of nobody
        return Path(text).expanduser()
    return Path(text)


def program_to_paste(name: str) -> str:
    """How a program that is installed beside Python is typed, whether or not its folder is on the path."""
    beside = Path(sys.executable).parent / name
    if shutil.which(name) is not None or not beside.is_file():
        return name
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))
