"""Published settings: tables in `conf/base/`, of which an experiment takes the row of its environment.

``${published:rl_zoo3,n_envs}`` in a config file is what ``rl_zoo3.yaml`` says of ``n_envs`` for ``env.id``.
"""

import functools
import operator
import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ppo_cli.config.schema import conf_dir
from ppo_cli.errors import ConfigError
from ppo_cli.files import read_yaml
from ppo_cli.text import nearest


def published(table: str, key: str, *, _root_: DictConfig) -> object:
    """What a table has for the environment of a config: the resolver behind ``${published:TABLE,KEY}``.

    Args:
        table: The table's name.
        key: A dotted name in its rows.
        _root_: The whole config, which OmegaConf hands on.

    Raises:
        ConfigError: The table has no row for the environment.
    """
    env_id = str(_root_.env.id)
    name = re.sub(r"-v\d+$", "", env_id.rpartition(":")[2])
    rows = _rows(table)
    if name not in rows:
        others = f"{', '.join(rows)}{nearest(name, rows)}"
        raise ConfigError(f"experiment={table} has no settings for {env_id}, only for {others}")
    return functools.reduce(operator.getitem, key.split("."), rows[name])


@functools.cache
def _rows(table: str) -> dict[str, Any]:
    """The settings of each environment, by its id without a version."""
    read = OmegaConf.create(read_yaml(conf_dir() / "base" / f"{table}.yaml"))
    found = {}
    for row in read["rows"]:
        whole = OmegaConf.to_container(OmegaConf.merge(read["otherwise"], row))
        found.update(dict.fromkeys(row["environments"], whole))
    return found


OmegaConf.register_new_resolver("published", published, replace=True)
