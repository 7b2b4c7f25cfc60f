"""The typed config: its schema, the ranges of its values, and the checks across them.

`conf/config.yaml` holds the default of every knob; this module holds its type and range. Nothing here builds
anything: `ppo_cli.cli` turns a checked `Config` into objects.
"""

import contextlib
import difflib
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from ppo_cli.files import read_yaml, write_whole

if TYPE_CHECKING:
    Boolean = bool
    Integer = int
else:  # OmegaConf converts to a plain type, and takes a value of a union as it is
    Boolean = Union[bool, bytes]  # noqa: UP007 - a `bool` would take 2, "3" and "yes" for true
    Integer = Union[int, float]  # noqa: UP007 - integral floats (1e6) are welcome; `_integer` makes them int

FLOAT32 = 2.0**-126, (2 - 2**-23) * 2.0**127  # what networks compute with: smallest normal and largest number


class ConfigError(ValueError):
    """A config can't be run; the message is one line: the key, what was given, what is allowed."""


@dataclass(frozen=True)
class Range:
    """Allowed values of a number: an interval, open at its low end where that is said."""

    low: float
    high: float = sys.float_info.max  # finite
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether ``value`` lies in the interval (NaN does not)."""
        return (value > self.low if self.open_low else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        """The interval in words."""
        low = f"{'above' if self.open_low else 'from'} {self.low:.10g}"
        return low if self.high >= sys.float_info.max else f"{low} to {self.high:.10g}"


@dataclass
class EnvConfig:
    """What is trained on."""

    id: str = MISSING
    kwargs: dict[str, Any] = MISSING
    wrappers: list[dict[str, Any]] = MISSING
    reset_options: dict[str, Any] = MISSING
    seed_below: Optional[Integer] = MISSING  # noqa: UP045
    action_mask: Union[bool, str] = MISSING  # noqa: UP007
    timeout: float = MISSING
    on_error: str = MISSING


@dataclass
class AnnealConfig:
    """How one knob changes over the run."""

    final: Optional[float] = MISSING  # noqa: UP045 - OmegaConf reads this form on Python 3.10
    shape: str = MISSING


@dataclass
class AnnealsConfig:
    """How each annealed knob changes over the run."""

    learning_rate: AnnealConfig = field(default_factory=AnnealConfig)
    gamma: AnnealConfig = field(default_factory=AnnealConfig)
    gae_lambda: AnnealConfig = field(default_factory=AnnealConfig)
    clip_ratio: AnnealConfig = field(default_factory=AnnealConfig)
    vf_clip_ratio: AnnealConfig = field(default_factory=AnnealConfig)
    ent_coef: AnnealConfig = field(default_factory=AnnealConfig)
    vf_coef: AnnealConfig = field(default_factory=AnnealConfig)
    max_grad_norm: AnnealConfig = field(default_factory=AnnealConfig)
    target_kl: AnnealConfig = field(default_factory=AnnealConfig)


@dataclass
class NetworkConfig:
    """The actor-critic network."""

    hidden_sizes: list[Integer] = MISSING
    activation: str = MISSING
    layer_norm: Boolean = MISSING
    shared: Boolean = MISSING
    ortho_init: Boolean = MISSING
    log_std: str = MISSING
    log_std_init: float = MISSING
    image_encoder: str = MISSING
    encoders: dict[str, Any] = MISSING
    memory: str = MISSING
    memory_size: Integer = MISSING
    sequence_length: Integer = MISSING


@dataclass
class NormalizeConfig:
    """Running normalisation."""

    observations: Boolean = MISSING
    rewards: Boolean = MISSING
    clip: float = MISSING


@dataclass
class EvalConfig:
    """The final evaluation, and those on the way."""

    every: Integer = MISSING
    episodes: Integer = MISSING
    deterministic: Boolean = MISSING
    max_steps: Integer = MISSING
    seed: Integer = MISSING


@dataclass
class CheckpointConfig:
    """What is kept of a run while it goes on."""

    every: Union[Integer, str] = MISSING  # noqa: UP007
    keep: Integer = MISSING
    exact: Boolean = MISSING


@dataclass
class LogConfig:
    """What is logged beside what every run logs."""

    info_keys: Any = MISSING


@dataclass
class Config:
    """Every knob; `conf/config.yaml` says what each means."""

    env: EnvConfig = field(default_factory=EnvConfig)
    seed: Integer = MISSING
    total_timesteps: Integer = MISSING
    n_envs: Integer = MISSING
    n_steps: Integer = MISSING
    vectorization: str = MISSING
    batch_size: Integer = MISSING
    n_epochs: Integer = MISSING
    learning_rate: float = MISSING
    gamma: float = MISSING
    gae_lambda: float = MISSING
    clip_ratio: float = MISSING
    vf_clip_ratio: Optional[float] = MISSING  # noqa: UP045
    normalize_advantage: Boolean = MISSING
    ent_coef: float = MISSING
    vf_coef: float = MISSING
    max_grad_norm: float = MISSING
    target_kl: Optional[float] = MISSING  # noqa: UP045
    use_sde: Boolean = MISSING
    sde_sample_freq: Integer = MISSING
    objective: str = MISSING
    objective_kwargs: dict[str, Any] = MISSING
    extra_losses: list[dict[str, Any]] = MISSING
    optimizer: str = MISSING
    optimizer_kwargs: dict[str, Any] = MISSING
    squash_actions: Boolean = MISSING
    anneal: AnnealsConfig = field(default_factory=AnnealsConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    device: str = MISSING
    threads: Union[Integer, str] = MISSING  # noqa: UP007
    compile: Union[bool, str] = MISSING  # noqa: UP007
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


ANNEALED = tuple(item.name for item in fields(AnnealsConfig))
_POSITIVE, _NON_NEGATIVE = Range(0, open_low=True), Range(0)
_COUNT = Range(1, 10**9)  # of what nobody would see the end above
_SEED = Range(0, 2**32 - 1)
_WIDTH = Range(1, 2**14)
RANGES = {
    "seed": _SEED,
    "total_timesteps": Range(1, 10**15),
    "n_envs": Range(1, 2**16),
    "n_steps": _COUNT,
    "batch_size": _COUNT,
    "n_epochs": Range(1, 10**6),
    "learning_rate": _POSITIVE,
    "gamma": Range(0, 1),
    "gae_lambda": Range(0, 1),
    "clip_ratio": _POSITIVE,
    "vf_clip_ratio": _POSITIVE,
    "ent_coef": _NON_NEGATIVE,
    "vf_coef": _NON_NEGATIVE,
    "max_grad_norm": Range(0, math.inf, open_low=True),
    "target_kl": _POSITIVE,
    "sde_sample_freq": Range(-1, 10**9),
    **{f"anneal.{knob}.final": _NON_NEGATIVE for knob in ANNEALED},
    "anneal.gamma.final": Range(0, 1),
    "anneal.gae_lambda.final": Range(0, 1),
    "network.hidden_sizes": _WIDTH,
    "network.log_std_init": Range(-20, 20),
    "network.memory_size": _WIDTH,
    "network.sequence_length": _COUNT,
    "normalize.clip": _POSITIVE,
    "threads": Range(1, 1024),  # each is one of the system's own, whatever the machine has
    "eval.every": Range(0, 10**9),
    "eval.episodes": Range(0, 10**6),
    "eval.seed": _SEED,
    "eval.max_steps": _COUNT,
    "env.seed_below": Range(1, 2**32),
    "env.timeout": Range(0, math.inf, open_low=True),
    "checkpoint.every": _COUNT,
    "checkpoint.keep": _COUNT,
}
_INTEGERS = (Integer, list[Integer], Union[Integer, str], Optional[Integer])  # noqa: UP007, UP045
MOST_LAYERS = 64  # of network.hidden_sizes
MOST_WRAPPERS = MOST_LOSSES = 64
SHAPES = ("linear", "cosine", "exponential")  # of annealing
MOST_INFO_KEYS, LONGEST_INFO_KEY = 50, 100
MOST_VALUES = 20_000  # in a stored config, which OmegaConf takes some 0.1 ms each to read
OPEN = {  # sections whose keys are the user's own, and what a key there is
    "env.kwargs.": "a new argument of the environment",
    "env.reset_options.": "an option of its resets",
    "network.encoders.": "an observation's encoder",
    "objective_kwargs.": "an option of the objective",
    "optimizer_kwargs.": "an option of the optimizer",
}
CHOICES = {
    "env.on_error": ("stop", "restart"),
    "vectorization": ("auto", "sync", "async", "envpool"),
    **{f"anneal.{knob}.shape": SHAPES for knob in ANNEALED},
    "network.log_std": ("free", "state"),
    "network.image_encoder": ("auto", "nature_cnn", "impala_cnn", "flatten"),
    "network.memory": ("none", "lstm", "gru"),
    "network.activation": ("tanh", "relu", "leaky_relu", "elu", "gelu", "silu"),
}


def conf_dir() -> Path:
    """The folder of the YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def register_schema() -> None:
    """Makes the schema known to Hydra under the name that `conf/config.yaml` lists first."""
    ConfigStore.instance().store(name="schema", node=Config, provider="ppo_cli")


def knobs(schema: type = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every knob, sections (dataclasses) flattened."""
    for name, kind in get_type_hints(schema).items():
        if is_dataclass(kind) and isinstance(kind, type):
            yield from knobs(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def describe_type(kind: Any) -> str:  # noqa: ANN401
    """What a knob of that type takes, in words."""
    words = {
        float: "a number",
        Boolean: "true or false",
        str: "a word",
        Integer: "an integer",
        list[Integer]: "a list of integers",
        list[dict[str, Any]]: "a list of mappings such as {name: FrameStackObservation, stack_size: 4}",
        Optional[float]: "a number or null",  # noqa: UP045
        Optional[Integer]: "an integer or null",  # noqa: UP045
        Union[Integer, str]: "an integer or auto",  # noqa: UP007
        Union[bool, str]: "true, false or auto",  # noqa: UP007
        Any: "auto, null, or a list of keys such as [is_success,reward_forward:mean]",
    }
    return words.get(kind, "a mapping")


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean ...?` with the closest spelling, or nothing where none is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def parse(composed: DictConfig) -> Config:
    """A checked config from a composed one (whose ``hydra`` node, if any, is ignored).

    Raises:
        ConfigError: a value is missing, of a wrong type or out of range, or two values do not go together.
    """
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    raw: Any = OmegaConf.to_container(own)
    try:  # without its types, which would refuse the text that an environment variable resolves to
        plain = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    if not isinstance(plain, dict):
        raise ConfigError(f"expected a mapping of knobs, given {plain!r}")
    typed = {str(name): _as_typed(str(name), raw[name], value) for name, value in plain.items()}
    return from_dict(_map_texts(typed, lambda text: _escape(text, every=True)))


def _as_typed(key: str, raw: Any, resolved: Any) -> Any:  # noqa: ANN401
    """What an interpolation resolved to, text read as if typed in its place: 7, true, [64]."""
    if isinstance(raw, dict) and isinstance(resolved, dict):
        return {name: _as_typed(f"{key}.{name}", raw[name], value) for name, value in resolved.items()}
    if isinstance(raw, list) and isinstance(resolved, list):
        return [_as_typed(key, *pair) for pair in zip(raw, resolved, strict=True)]
    if isinstance(resolved, str) and "${" in str(raw) and dict(knobs()).get(key) is not str:
        with contextlib.suppress(YAMLError, OmegaConfBaseException):  # text that is no YAML stays as it is
            return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={resolved}"]))["value"]  # type: ignore[call-overload,index]
    return resolved


def from_dict(plain: Mapping[Any, Any]) -> Config:
    """A checked config from nested dicts of plain values, as `to_dict` and checkpoints hold them.

    Raises:
        ConfigError: as `parse`.
    """
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), dict(plain)))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    if not isinstance(config, Config):
        raise ConfigError(f"expected a mapping of knobs, given {plain!r}")
    _check_fields(config, "")
    _check_across(config)
    return config


def from_stored(plain: Mapping[Any, Any]) -> Config:
    """A checked config that an older version may have stored: younger knobs get their defaults.

    Interpolations such as ``${oc.env:HOME}`` are not resolved: they stand for themselves.

    Raises:
        ConfigError: as `parse`.
    """
    tops = {name.split(".")[0] for name, _ in knobs()}
    defaults = {key: value for key, value in load_yaml(conf_dir() / "config.yaml").items() if key in tops}
    if _count(plain) > MOST_VALUES:
        raise ConfigError(f"a config of more than {MOST_VALUES:,} values")
    own = _map_texts(plain, lambda text: _escape(text, every=False))
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(defaults, own))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    return from_dict(merged if isinstance(merged, dict) else {})


def to_dict(config: Config) -> dict[str, Any]:
    """Nested dicts of plain values."""
    return asdict(config)


def as_omegaconf(config: Config) -> DictConfig:
    """The config as OmegaConf holds it, with every ``${`` as a literal."""
    literal: dict[str, Any] = _map_texts(to_dict(config), lambda text: _escape(text, every=True))
    return OmegaConf.create(literal)


def _count(value: Any) -> int:  # noqa: ANN401
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, below))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _escape(text: str, every: bool) -> str:
    """A text whose ``${`` OmegaConf takes as letters: those that would be an interpolation, or every one."""

    def escaped(found: re.Match[str]) -> str:
        slashes = found[1]
        return found[0] if not every and len(slashes) % 2 else f"{2 * slashes}\\${{"

    return re.sub(r"(\\*)\$\{", escaped, text)


def save_yaml(config: Config, path: Path) -> None:
    """Writes the config as YAML of literal values, whole or not at all."""
    write_whole(path, OmegaConf.to_yaml(as_omegaconf(config)))


def load_yaml(path: Path) -> dict[Any, Any]:
    """The mapping in a YAML file, interpolations left as they are.

    Raises:
        ConfigError: the file can't be read, or holds something else.
    """
    try:
        loaded = OmegaConf.to_container(OmegaConf.create(read_yaml(path)))
    except Exception as error:  # what lies there may lead to anything
        raise ConfigError(f"{path} can't be read: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping of knobs")
    return loaded


def check_type(key: str, value: Any, typed: str) -> None:  # noqa: ANN401
    """Raises ConfigError where a value, given on the command line as ``typed``, is not of the knob's type."""
    try:
        OmegaConf.update(OmegaConf.structured(Config), key, value)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{typed}: expected {describe_type(dict(knobs())[key])}") from error


def explain(error: OmegaConfBaseException) -> str:
    """One line for a value that OmegaConf refuses: the key, what was given, what is allowed."""
    kinds = dict(knobs())
    key = str(error.full_key or "")
    if key in kinds and not isinstance(error, InterpolationResolutionError):
        return f"{key}: expected {describe_type(kinds[key])}, given {error.value!r}"
    return f"{key}: {str(error.msg or error).splitlines()[0]}" if key else str(error).splitlines()[0]


def _check_fields(section: Any, prefix: str) -> None:  # noqa: ANN401
    """Makes integral floats integers and holds every value against `RANGES` and `CHOICES`."""
    hints = get_type_hints(type(section))
    for item in fields(section):
        key, value = f"{prefix}{item.name}", getattr(section, item.name)
        if is_dataclass(value):
            _check_fields(value, f"{key}.")
            continue
        if not _fits(hints[item.name], value):  # OmegaConf does not look at a text with `${`
            raise ConfigError(f"{key}: expected {describe_type(hints[item.name])}, given {value!r}")
        if hints[item.name] in _INTEGERS:
            value = [_integer(key, v) for v in value] if isinstance(value, list) else _integer(key, value)
            setattr(section, item.name, value)
        numbers = value if isinstance(value, list) else [value]
        if key in RANGES and len(numbers) > MOST_LAYERS:
            raise ConfigError(f"{key} has {len(numbers)} entries: expected at most {MOST_LAYERS}")
        for number in numbers:
            _check_number(key, number)
        choices = CHOICES.get(key)
        if choices and value not in choices:
            hint = nearest(str(value), list(choices))
            raise ConfigError(f"{key}={value}: expected one of {', '.join(choices)}{hint}")


def _fits(kind: Any, value: Any) -> bool:  # noqa: ANN401
    """Whether a value is of a knob's type."""
    arguments = get_args(kind)
    if kind is Any:
        return True  # what it may be is looked at in `_check_across`
    if get_origin(kind) is Union:
        return any(_fits(each, value) for each in arguments)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(arguments[0], each) for each in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if kind in (int, float, bytes):  # `bytes` only stands beside `bool`
        return kind is not bytes and isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _integer(key: str, value: Any) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, str):
        return value  # none, or auto, which `_check_across` looks at
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise ConfigError(f"{key}={value}: expected an integer")
    return int(value)


def _check_number(key: str, number: object) -> None:
    """Raises ConfigError where a number is out of its range, or beyond what networks compute with."""
    if key not in RANGES or not isinstance(number, (int, float)):
        return
    if number not in RANGES[key]:
        raise ConfigError(f"{key}={number}: expected a value {RANGES[key]}")
    if not (number == 0 or math.isinf(number) or FLOAT32[0] <= abs(number) <= FLOAT32[1]):
        raise ConfigError(
            f"{key}={number}: beyond 32-bit numbers, which reach from {FLOAT32[0]:.3g} to {FLOAT32[1]:.3g}"
        )


def _cuda_devices() -> int:
    import torch  # late: it takes longer to import than an error should to appear

    return torch.cuda.device_count()


def _check_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ConfigError(f"device={device}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= (count := _cuda_devices()):
        raise ConfigError(f"device={device}: PyTorch sees {count} CUDA devices; use cpu or auto")


def _check_wrappers(config: Config) -> None:
    if len(config.env.wrappers) > MOST_WRAPPERS:
        raise ConfigError(f"env.wrappers: expected at most {MOST_WRAPPERS}, given {len(config.env.wrappers)}")
    for entry in config.env.wrappers:
        if not isinstance(entry.get("name"), str):
            raise ConfigError(f"env.wrappers: expected {{name: WRAPPER, ...}}, given {entry} without a name")
        if entry.get("when") not in (None, "train"):
            raise ConfigError(
                f"env.wrappers: {entry['name']} has when={entry['when']}: expected train, or no when"
            )


def _check_extra_losses(entries: list[dict[str, Any]]) -> None:
    if len(entries) > MOST_LOSSES:
        raise ConfigError(f"extra_losses: expected at most {MOST_LOSSES}, given {len(entries)}")
    for entry in entries:
        name, coef, final = entry.get("name"), entry.get("coef"), entry.get("final")
        if not (isinstance(name, str) and _is_number(coef)):
            raise ConfigError(
                f"extra_losses: expected {{name: package.module.function, coef: 0.1, ...}}, given {entry}"
            )
        if not (final is None or _is_number(final)):
            raise ConfigError(f"extra_losses: {name} has final={final}: expected a number or null")
        shape = entry.get("shape", "linear")
        if shape not in SHAPES:
            hint = nearest(str(shape), list(SHAPES))
            raise ConfigError(f"extra_losses: {name} has shape={shape}: expected {', '.join(SHAPES)}{hint}")
        if shape == "exponential" and final is not None and min(coef, final) <= 0:
            raise ConfigError(
                f"extra_losses: {name} has shape=exponential: expected both ends above 0, given "
                f"coef={coef:g} and final={final:g}; use linear or cosine"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= FLOAT32[1]


def _check_info_keys(value: Any) -> None:  # noqa: ANN401
    if value in ("auto", None):
        return
    allowed = f"expected {describe_type(Any)}"
    if not (isinstance(value, list) and all(isinstance(key, str) for key in value)):
        words = {"auto": "auto", "none": "null"}  # as they are spelt elsewhere
        hint = f"; did you mean {words.get(value.lower(), f'[{value}]')}?" if isinstance(value, str) else ""
        raise ConfigError(f"log.info_keys={value}: {allowed}{hint}")
    if len(value) > MOST_INFO_KEYS:
        raise ConfigError(f"log.info_keys has {len(value)} keys: expected at most {MOST_INFO_KEYS}")
    named = []
    for typed in value:
        key, colon, how = typed.rpartition(":") if ":" in typed else (typed, "", "")
        if not 0 < len(key) <= LONGEST_INFO_KEY or (colon and how not in ("last", "mean", "sum")):
            raise ConfigError(f"log.info_keys: {typed!r} is none of KEY, KEY:last, KEY:mean and KEY:sum")
        if key in named:
            raise ConfigError(f"log.info_keys names {key!r} twice: expected each key once")
        named.append(key)


def _check_envpool(config: Config) -> None:
    for knob in ("wrappers", "reset_options", "seed_below"):
        if getattr(config.env, knob) not in ([], {}, None):
            what = "no wrappers" if knob == "wrappers" else "their seeds at once and no options"
            raise ConfigError(f"env.{knob}: EnvPool's environments take {what}; use vectorization=auto")
    if config.env.on_error == "restart":
        raise ConfigError("env.on_error=restart: EnvPool's environments can't be restarted; use stop")
    if config.checkpoint.exact:
        raise ConfigError(
            "checkpoint.exact=true: EnvPool's environments can't be brought back; use vectorization=auto"
        )


def _check_across(config: Config) -> None:
    if not config.env.id:
        raise ConfigError("env.id is empty: type env=ID, or env.id=ID for an id without its preset")
    _check_wrappers(config)
    _check_info_keys(config.log.info_keys)
    if config.sde_sample_freq == 0:
        raise ConfigError("sde_sample_freq=0: expected at least 1, or -1 for once a rollout")
    if config.use_sde and config.network.log_std == "state":
        raise ConfigError("network.log_std=state: use_sde=true has deviations of its own; set it to free")
    for name, value, allowed in (
        ("threads", config.threads, "an integer"),
        ("compile", config.compile, "true, false"),
        ("env.action_mask", config.env.action_mask, "true, false"),
        ("checkpoint.every", config.checkpoint.every, "an integer"),
    ):
        if isinstance(value, str) and value != "auto":
            raise ConfigError(f"{name}={value}: expected {allowed} or auto")
    if config.vectorization == "envpool":
        _check_envpool(config)
    if config.eval.every and not config.eval.episodes:
        raise ConfigError(f"eval.every={config.eval.every} needs eval.episodes of at least 1, given 0")
    _check_device(config.device)
    _check_extra_losses(config.extra_losses)
    _check_anneals(config)


def _check_anneals(config: Config) -> None:
    for name in ANNEALED:
        anneal: AnnealConfig = getattr(config.anneal, name)
        start = getattr(config, name)
        if anneal.final is not None and (start is None or math.isinf(start)):
            raise ConfigError(
                f"anneal.{name}.final={anneal.final:g}: expected a number to begin with, "
                f"given {name}={'null' if start is None else start}"
            )
        if (
            anneal.shape == "exponential"
            and anneal.final is not None
            and not (start > 0 and anneal.final > 0)
        ):
            raise ConfigError(
                f"anneal.{name}.shape=exponential: expected both ends above 0, given {name}={start:g} and "
                f"anneal.{name}.final={anneal.final:g}; use linear or cosine"
            )
