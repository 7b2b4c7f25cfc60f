"""What conf/config.yaml says of the knobs: a comment each, below the titles of its parts."""

import re
from collections.abc import Iterator

from ppo_cli.config.schema import KNOBS, conf_dir

_LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:#\s*(?P<comment>.*))?$")
_OF_ALL = re.compile(r"^ +# (?P<key>\w+): (?P<comment>.*)$")  # of the key in every section that stands below


def knob_comments() -> dict[str, str]:
    """The one-line comment of each knob in conf/config.yaml, by dotted name."""
    comments: dict[str, str] = {}
    of_all: dict[str, str] = {}
    path: list[str] = []
    for line in (conf_dir() / "config.yaml").read_text(encoding="utf-8").splitlines():
        if (match := _OF_ALL.match(line)) is not None:
            of_all[f"{path[0]}.{match['key']}"] = match["comment"]
        if (match := _LINE.match(line)) is None:
            continue
        path[len(match["indent"]) // 2 :] = [match["key"]]
        if match["comment"]:
            comments[".".join(path)] = match["comment"].strip()
    for key in KNOBS:
        section, _, rest = key.partition(".")
        if (comment := of_all.get(f"{section}.{rest.rpartition('.')[2]}")) is not None:
            comments.setdefault(key, comment)
    return comments


def knob_sections() -> Iterator[tuple[str, list[str]]]:
    """Title and knobs of each part of conf/config.yaml that a comment `# --- title` heads."""
    for block in (conf_dir() / "config.yaml").read_text(encoding="utf-8").split("\n\n"):
        titled = re.match(r"# --- (.*)", block)
        tops = re.findall(r"^(\w+):", block, re.MULTILINE)
        names = [key for key in KNOBS if key.split(".")[0] in tops]
        if titled and names:
            yield titled[1], names
