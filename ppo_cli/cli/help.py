"""`ppo-train --help`: every knob with its value and meaning, from the comments of conf/config.yaml."""

from typing import Any

from ppo_cli.config.comments import knob_comments, knob_sections
from ppo_cli.config.convert import from_stored, to_dict
from ppo_cli.config.schema import Config, conf_dir
from ppo_cli.text import words_in

LEAST_COMMENT = 36  # columns of text beside what it explains; where there are fewer, it stands below
MARK = "*"  # of a value that is not the default

_USAGE = (
    ("ppo-train [KEY=VALUE ...]", "one run, into outputs/<env>/"),
    ("ppo-train -m KEY=V1,V2 'seed=range(3)'", "a sweep, into outputs/sweeps/"),
    ("ppo-train -m search=NAME", "a search by Optuna: {search}"),
    ("ppo-train resume=FOLDER [KEY=VALUE ...]", "go on with a run; resume=auto: begin it or go on"),
    ("ppo-train --cfg job --resolve", "print the config and stop"),
)
_CHOICES = (
    ("env=ID", "any Gymnasium id, module:Id too; its preset is loaded where there is one"),
    ("preset=none", "the plain defaults although the environment has a preset"),
    ("network=NAME", "{network}"),
    ("experiment=NAME", "{experiment}"),
    ("--config-dir DIR", "a folder of your own env/, network/, experiment/ and search/ files"),
    ("--shell-completion install=bash", 'prints completion; eval "$(ppo-train -sc install=bash)"'),
    ("--hydra-help", "the options that come from Hydra"),
    ("-V, --version", "versions of this package and of what it runs on"),
)


def help_text(config: Config, whose: str, columns: int) -> str:
    """The whole page.

    Args:
        config: The config whose values are shown; those that are not the plain defaults are marked.
        whose: Words for whose values they are.
        columns: The number of columns that no line exceeds, but for a single longer word.
    """
    names = {group: _choices(group) for group in ("search", "network", "experiment")}
    lines = ["ppo-train: PPO experiments from the command line.", "", "usage:"]
    for left, text in _USAGE:
        lines += _row(f"  {left}", text.format(**names), columns, 42)
    lines.append("")
    for left, text in _CHOICES:
        lines += _row(f"  {left}", text.format(**names), columns, 20)
    lines += ["", "presets:", *words_in(_choices("env"), columns, 2, 2), ""]
    lines += words_in(f"knobs, with {whose}:", columns)
    comments, values = knob_comments(), to_dict(config)
    defaults = to_dict(from_stored({"env": {"id": config.env.id}}))
    for title, keys in knob_sections():
        lines += ["", *words_in(f"{title[0].upper()}{title[1:]}", columns)]
        said: set[str] = set()  # what one comment says of a key in every section stands beside the first
        for key in keys:
            value = _lookup(values, key)
            mark = " " if value == _lookup(defaults, key) else MARK
            comment = "" if comments[key] in said else comments[key]
            lines += _row(f"{mark} {key}={_shown(value)}", comment, columns, 36)
            said.add(comments[key])
    return "\n".join(lines)


def _row(left: str, text: str, columns: int, indent: int) -> list[str]:
    """A text beside what it explains, or below it where that is long or the columns are few."""
    if not text:
        return words_in(left, columns, 0, 4)
    if columns - indent < LEAST_COMMENT:
        return [*words_in(left, columns, 0, 4), *words_in(text, columns, 6, 6)]
    beside = words_in(text, columns, indent, indent)
    if len(left) + 2 > indent:
        return [*words_in(left, columns, 0, 4), *beside]
    return [f"{left:{indent}}{beside[0].strip()}", *beside[1:]]


def _lookup(values: Any, key: str) -> Any:  # noqa: ANN401
    for part in key.split("."):
        values = values[part]
    return values


def _shown(value: Any) -> str:  # noqa: ANN401
    """A value as it can be typed, but for quotes."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        separator = ", " if any(isinstance(item, dict) for item in value) else ","
        return f"[{separator.join(map(_shown, value))}]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _choices(group: str) -> str:
    folder = conf_dir() / group
    return ", ".join(sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml")))
