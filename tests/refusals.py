"""The lines with which configs are refused, without composing each of them."""

import functools

import pytest

from ppo_cli.config.compose import load, override_config
from ppo_cli.errors import ConfigError
from ppo_cli.runs.build import check_environment

composed = functools.cache(load)


def refusal(base, *typed):
    """The one line that says what is wrong with a config that is fine but for some knobs.

    Args:
        base: Overrides of a config that can be trained.
        *typed: Further ones, with which it can't.
    """
    with pytest.raises(ConfigError) as error:
        check_environment(override_config(composed(*base), typed))
    assert "\n" not in str(error.value)
    return str(error.value)
