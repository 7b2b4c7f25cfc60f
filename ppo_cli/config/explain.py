"""One line for whatever Hydra, OmegaConf or YAML raise while a config is composed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ppo_cli.config.convert import explain
from ppo_cli.config.overrides import GROUPS
from ppo_cli.config.schema import KNOBS, find_knob, is_entry
from ppo_cli.errors import ConfigError, EnvError, RunError
from ppo_cli.text import flat, nearest


@contextmanager
def composing() -> Iterator[None]:
    """Makes one line of whatever Hydra, OmegaConf or YAML raise meanwhile, or a file that can't be read.

    No one has a list of what they raise.

    Raises:
        ConfigError: something was raised; the line has the innermost cause.
    """
    try:
        yield
    except (ConfigError, EnvError, RunError):
        raise
    except Exception as error:
        raise ConfigError(explain_error(error)) from error


def explain_error(error: Exception) -> str:
    """One line for what composing raised: its own, and the cause of all where that says more."""
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:  # on a knob, given in a file
        if isinstance(cause, OmegaConfBaseException) and str(cause.full_key) in KNOBS:
            return explain(cause)
    if isinstance(error, HydraException) and (line := _explain_hydra(error)) is not None:
        return line
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return explain(error)
    if isinstance(causes[-1], RecursionError):
        return f"config files, or values in one, hold themselves in a circle: {_text(error)}"
    if isinstance(causes[-1], OSError):
        return _text(causes[-1])
    if any(isinstance(cause, (YAMLError, UnicodeDecodeError)) for cause in causes):
        return f"a config file can't be read: {_text(causes[-1])}"
    first, last = _text(error), _text(causes[-1])
    return first if last in first else f"{first.rstrip('.')}: {last}"


def _text(error: BaseException) -> str:
    lines = str(error).strip().partition("\nfull_key:")[0]
    text = " ".join(re.sub(r",? ?set env var HYDRA_FULL_ERROR=1[^\n]*", "", lines).split())
    ours = isinstance(error, (HydraException, OmegaConfBaseException, YAMLError, OSError, ValueError))
    return text if ours and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _missing_choice(error: MissingConfigException) -> str:
    text = str(error)
    found = re.search(r"Could not find '(?P<group>.+)/(?P<name>[^/']+)'", text)
    if found is None or error.options is None:
        return " ".join(text.split())
    group, name = found["group"], found["name"]
    return f"{group}={name}: expected one of {', '.join(error.options)}{nearest(name, list(error.options))}"


def _explain_hydra(error: HydraException) -> str | None:
    """One line for Hydra's error where it is about a key; None where it is about something else."""
    cause = error.__cause__
    text = flat(error)
    if isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or "")
        if is_entry(key):
            return f"unknown key {key!r}: {find_knob(key).entries} takes a plus, +{key}=VALUE"
        return explain(cause)
    unknown = re.search(r"In '(?P<file>[^']+)'.*Key '(?P<key>[^']+)' not in", text)
    if unknown is None:
        return None
    file, key = unknown["file"], unknown["key"]
    if key in GROUPS or file.partition("/")[0] in ("env", "experiment"):
        head = "; its keys are knobs only below a first line `# @package _global_`"
    else:
        head = ""
    names = [name for knob in KNOBS for name in (knob, knob.rpartition(".")[2])]
    return f"unknown key {key!r} in {file}.yaml{nearest(key, names)}{head}"
