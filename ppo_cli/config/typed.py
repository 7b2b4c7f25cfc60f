"""Values that are typed beside a config, as KEY=VALUE with YAML for the value."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ppo_cli.errors import ConfigError


def typed_values(option: str, typed: Sequence[str], remedy: str = "") -> dict[str, Any]:
    """What an option of several KEY=VALUE holds, the values read as ppo-train reads them from YAML.

    Args:
        option: The option, for the message.
        typed: The words that were typed.
        remedy: The words that are added on what is no KEY=VALUE.

    Raises:
        ConfigError: One is no KEY=VALUE, or its value is no YAML.
    """
    values: dict[str, Any] = {}
    for item in typed:
        key, equals, _ = item.partition("=")
        if not (equals and key.isidentifier()):
            raise ConfigError(f"{option} {item}: expected KEY=VALUE{remedy}")
        try:
            read = OmegaConf.to_container(OmegaConf.from_dotlist([item]))
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{option} {item}: the value is no YAML") from error
        values[key] = read[key] if isinstance(read, dict) else None
    return values
