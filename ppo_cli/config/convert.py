"""A checked `Config` from plain values, YAML files and what Hydra composes, and the way back."""

import contextlib
import copy
import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

import ppo_cli.config.published  # noqa: F401 - which files of conf/ take values from
from ppo_cli.config.checks import check
from ppo_cli.config.knob import describe_type
from ppo_cli.config.quoting import literal_text
from ppo_cli.config.schema import KNOBS, Config, conf_dir, find_knob
from ppo_cli.errors import ConfigError
from ppo_cli.files import read_yaml, write_whole
from ppo_cli.text import flat, headline

_INTERPOLATION = re.compile(r"(?<!\\)(\\\\)*\$\{")  # no letters, as behind an odd number of backslashes
TEXTS = frozenset(name for name, known in KNOBS.items() if known.kind is str)
MOST_VALUES = 20_000  # in a stored config, which OmegaConf takes some 0.1 ms each to read


@functools.cache
def register_schema() -> None:
    """Makes the schema known to Hydra under the name that `conf/config.yaml` lists first."""
    ConfigStore.instance().store(name="schema", node=_schema(), provider="ppo_cli")


def parse(composed: DictConfig) -> Config:
    """A checked config from a composed one (whose ``hydra`` node, if any, is ignored).

    Raises:
        ConfigError: a value is missing, of a wrong type or out of range, or two values do not go together.
    """
    raw: Any = OmegaConf.to_container(composed)
    raw.pop("hydra", None)
    if (known := _of_schema(composed, raw)) is not None:
        check(known)
        return known
    try:  # without its types, which would refuse the text that an environment variable resolves to
        plain = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    if not isinstance(plain, dict):
        raise ConfigError(f"expected a mapping of knobs, given {plain!r}")
    typed = {str(name): _as_typed(str(name), raw[name], value) for name, value in plain.items()}
    return from_dict(_map_texts(typed, literal_text))


def _of_schema(composed: DictConfig, raw: Mapping[str, Any]) -> Config | None:
    """The config itself, where Hydra has laid every value over the schema, which gave it its type.

    None where only `parse`'s slower way can tell: a value is an interpolation, which may give a text for a
    number, or something is missing.
    """
    if OmegaConf.get_type(composed) is not Config:  # the primary config is another's, without the schema
        return None
    if any(name not in TEXTS and "${" in str(value) for name, value in dotted(raw)):
        return None
    found: dict[str, Any] = {}
    try:
        for name in raw:
            value = composed[name]
            found[name] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        return None
    return Config(**found)


def _as_typed(key: str, raw: Any, resolved: Any) -> Any:  # noqa: ANN401
    """What an interpolation resolved to, text read as if typed in its place: 7, true, [64]."""
    if isinstance(raw, dict) and isinstance(resolved, dict):
        return {name: _as_typed(f"{key}.{name}", raw[name], value) for name, value in resolved.items()}
    if isinstance(raw, list) and isinstance(resolved, list):
        return [_as_typed(key, *pair) for pair in zip(raw, resolved, strict=True)]
    if (
        isinstance(resolved, str)
        and _INTERPOLATION.search(str(raw))
        and (key not in KNOBS or KNOBS[key].kind is not str)
    ):
        with contextlib.suppress(yaml.YAMLError, OmegaConfBaseException):  # no YAML: it stays a text
            return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={resolved}"]))["value"]  # type: ignore[call-overload,index]
    return resolved


def from_dict(plain: Mapping[Any, Any]) -> Config:
    """A checked config from nested dicts of plain values, as `to_dict` and checkpoints hold them.

    Raises:
        ConfigError: as `parse`.
    """
    try:
        config = OmegaConf.to_object(OmegaConf.merge(_schema(), dict(plain)))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    if not isinstance(config, Config):
        raise ConfigError(f"expected a mapping of knobs, given {plain!r}")
    check(config)
    return config


def from_stored(plain: Mapping[Any, Any]) -> Config:
    """A checked config that an older version may have stored: younger knobs get their defaults.

    Interpolations such as ``${oc.env:HOME}`` are not resolved: they stand for themselves.

    Raises:
        ConfigError: as `parse`.
    """
    if _count(plain) > MOST_VALUES:
        raise ConfigError(f"a config of more than {MOST_VALUES:,} values")
    return from_dict(_laid_over(_defaults(), _map_texts(plain, _without_interpolations)))


@functools.cache
def _defaults() -> dict[str, Any]:
    """The values of `conf/config.yaml`, read once: reading it takes longer than all else."""
    tops = {name.split(".")[0] for name in KNOBS}
    defaults = {key: value for key, value in load_yaml(conf_dir() / "config.yaml").items() if key in tops}
    del defaults["env"]["id"]  # which, only a config says: ours is whatever is being composed
    return defaults


def _laid_over(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
    """Nested mappings with the values of others in their place."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _laid_over(under, value) if both else value  # type: ignore[arg-type]
    return merged


def to_dict(config: Config) -> dict[str, Any]:
    """Nested dicts of plain values."""
    return asdict(config)


def same_named(section: object, kind: Any) -> dict[str, Any]:  # noqa: ANN401
    """The knobs of a section, or of the whole config, that a dataclass has fields of the same names for.

    Args:
        section: The section.
        kind: The dataclass, to be made of them.
    """
    names = [each.name for each in fields(kind)]
    return {name: getattr(section, name) for name in names if hasattr(section, name)}


def dotted(
    values: Mapping[Any, Any], whole: Collection[str] = (), prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Every value inside nested mappings, with its dotted name.

    Args:
        values: The mappings, as `to_dict` or a config file has them.
        whole: The names at which a mapping is a value.
        prefix: What the names begin with.
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in whole:
            yield from dotted(value, whole, f"{name}.")
        else:
            yield name, value


def as_omegaconf(config: Config) -> DictConfig:
    """The config as OmegaConf holds it, with every ``${`` as a literal."""
    return _literal(to_dict(config))


def learned_part(config: Config) -> DictConfig:
    """`as_omegaconf` of what is learned, without how a run is run."""

    def part(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            key: value if f"{prefix}{key}" in KNOBS else part(value, f"{prefix}{key}.")
            for key, value in values.items()
            if find_knob(f"{prefix}{key}").learned
        }

    return _literal(part(to_dict(config), ""))


def _literal(plain: Mapping[str, Any]) -> DictConfig:
    return OmegaConf.create(_map_texts(plain, literal_text))  # type: ignore[no-any-return]


def _count(value: Any) -> int:  # noqa: ANN401
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, below))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _without_interpolations(text: str) -> str:
    """A stored text, in which what would be an interpolation stands for itself."""
    return re.sub(r"(\\*)\$\{", lambda found: found[0] if len(found[1]) % 2 else literal_text(found[0]), text)


def save_yaml(config: Config, path: Path) -> None:
    """Writes the config as YAML of literal values, whole or not at all.

    It is what `OmegaConf.to_yaml` gives of `as_omegaconf`, which takes as long to make as to write.
    """
    literal = _map_texts(to_dict(config), literal_text)
    dumper = get_omega_conf_dumper()  # quotes the texts that YAML would read as numbers
    write_whole(
        path, yaml.dump(literal, Dumper=dumper, allow_unicode=True, default_flow_style=False, sort_keys=False)
    )


def load_yaml(path: Path) -> dict[Any, Any]:
    """The mapping in a YAML file, interpolations left as they are.

    Raises:
        ConfigError: the file can't be read, or holds something else.
    """
    try:
        loaded = OmegaConf.to_container(OmegaConf.create(read_yaml(path)))
    except Exception as error:  # what lies there may lead to anything
        raise ConfigError(f"{path} can't be read: {flat(error)}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping of knobs")
    return loaded


@functools.cache
def _schema() -> DictConfig:
    """A config without values that knows the type of every knob; making one takes as long as filling it."""
    return OmegaConf.structured(Config)  # type: ignore[no-any-return]


@functools.cache
def _types() -> DictConfig:
    """Another, to try values in."""
    return copy.deepcopy(_schema())


def check_type(key: str, value: Any, typed: str) -> None:  # noqa: ANN401
    """Raises ConfigError where a value, given on the command line as ``typed``, is not of the knob's type."""
    try:
        OmegaConf.update(_types(), key, value)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{typed}: expected {describe_type(KNOBS[key].kind)}") from error


def explain(error: OmegaConfBaseException) -> str:
    """One line for a value that OmegaConf refuses: the key, what was given, what is allowed."""
    key = str(error.full_key or "")
    if isinstance(error, InterpolationResolutionError):
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ConfigError):
            cause = cause.__context__
        if cause is not None:  # a resolver of ours has said it
            return str(cause)
    elif key in KNOBS:
        return f"{key}: expected {describe_type(KNOBS[key].kind)}, given {error.value!r}"
    return f"{key}: {headline(error.msg or error)}" if key else headline(error)
