"""`ppo-train --help`: every knob with its value and meaning, from the comments of conf/config.yaml."""

import re
import textwrap
from typing import Any

from ppo_cli.config import Config, conf_dir, knobs, to_dict

_LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:#\s*(?P<comment>.*))?$")

_HEAD = """\
ppo-train: PPO experiments from the command line.

usage: ppo-train [KEY=VALUE ...]                 one run, into outputs/<env>/
       ppo-train -m KEY=V1,V2 'seed=range(3)'    a sweep, into outputs/sweeps/
       ppo-train -m search=NAME                  a search by Optuna: {searches}
       ppo-train resume=FOLDER [KEY=VALUE ...]   go on with a run; resume=auto: begin it or go on
       ppo-train --cfg job --resolve             print the config and stop

  env=ID            any Gymnasium id, module:Id too; its preset is loaded where there is one
  preset=none       the plain defaults although the environment has a preset
  network=NAME      {networks}
  experiment=NAME   {experiments}
  --config-dir DIR  a folder of your own env/, network/, experiment/ and search/ files
  --shell-completion install=bash   prints completion; eval "$(ppo-train -sc install=bash)"
  --hydra-help      the options that come from Hydra

presets: {presets}
"""


def knob_comments() -> dict[str, str]:
    """The one-line comment of each knob in conf/config.yaml, by dotted name."""
    comments: dict[str, str] = {}
    path: list[str] = []
    for line in (conf_dir() / "config.yaml").read_text(encoding="utf-8").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        path[len(match["indent"]) // 2 :] = [match["key"]]
        if match["comment"]:
            comments[".".join(path)] = match["comment"].strip()
    return comments


def help_text(config: Config) -> str:
    """The whole page; values are those of ``config``, so that other overrides on the line show."""
    comments = knob_comments()
    lines = [
        _HEAD.format(
            presets=_choices("env"),
            networks=_choices("network"),
            experiments=_choices("experiment"),
            searches=_choices("search"),
        )
    ]
    lines.append("knobs, with their values for this command line:\n")
    values = to_dict(config)
    for key, _ in knobs():
        lines += _row(f"{key}={_shown(_lookup(values, key))}", comments.get(key, ""))
    return "\n".join(lines)


def _row(left: str, comment: str) -> list[str]:
    first, *rest = textwrap.wrap(comment, 72) or [""]
    if len(left) > 36:
        return [f"  {left}", *(f"  {'':36}  {line}" for line in (first, *rest))]
    return [f"  {left:36}  {first}", *(f"  {'':36}  {line}" for line in rest)]


def _lookup(values: Any, key: str) -> Any:  # noqa: ANN401
    for part in key.split("."):
        values = values[part]
    return values


def _shown(value: Any) -> str:  # noqa: ANN401
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _choices(group: str) -> str:
    folder = conf_dir() / group
    return ", ".join(sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml")))
