"""What a config must hold beyond its types: the range and choices of each knob, and rules across knobs."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Optional, Union, get_args, get_origin

from ppo_cli.config.knob import Integer, Knob, Range, describe_type
from ppo_cli.config.schema import KL, KNOBS, SHAPES, WARMUP, AnnealConfig, Config, NetworkConfig
from ppo_cli.envs.backends import REFUSALS, backend
from ppo_cli.errors import ConfigError
from ppo_cli.text import nearest, seconds_of

FLOAT32 = 2.0**-126, (2 - 2**-23) * 2.0**127  # what networks compute with: smallest normal and largest number
MOST_LAYERS = 64  # of network.hidden_sizes
MOST_WRAPPERS = MOST_LOSSES = MOST_HOOKS = 64
MOST_INFO_KEYS, LONGEST_INFO_KEY = 50, 100
_INTEGERS = (
    Integer, list[Integer], Union[Integer, str], Optional[Integer], Optional[list[Integer]],  # noqa: UP007, UP045
)  # fmt: skip


def check(config: Config) -> None:
    """Makes integral floats integers, and raises ConfigError on the first thing that is wrong."""
    check_fields(config, KNOBS)
    _check_across(config)


def check_fields(section: Any, known: Mapping[str, Knob], prefix: str = "") -> None:  # noqa: ANN401
    """Makes integral floats integers, and holds every value of a section against what is known of its knob.

    Args:
        section: A dataclass of knobs and sections.
        known: The knobs by dotted name.
        prefix: The beginning of the names there.

    Raises:
        ConfigError: a value is of a wrong type, out of its range, or none of the choices.
    """
    for item in fields(section):
        key, value = f"{prefix}{item.name}", getattr(section, item.name)
        if is_dataclass(value):
            check_fields(value, known, f"{key}.")
            continue
        knob = known[key]
        if not _fits(knob.kind, value):  # OmegaConf does not look at a text with `${`
            raise ConfigError(f"{key}: expected {describe_type(knob.kind)}, given {value!r}")
        if knob.kind in _INTEGERS:
            value = [_integer(key, v) for v in value] if isinstance(value, list) else _integer(key, value)
            setattr(section, item.name, value)
        if knob.range is not None:
            _check_numbers(key, value if isinstance(value, list) else [value], knob.range)
        if knob.choices and value not in knob.choices:
            hint = nearest(str(value), list(knob.choices))
            raise ConfigError(f"{key}={value}: expected one of {', '.join(knob.choices)}{hint}")


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


def _check_numbers(key: str, numbers: list[object], allowed: Range) -> None:
    """Raises ConfigError where a number is out of its range, or beyond what networks compute with."""
    if len(numbers) > MOST_LAYERS:
        raise ConfigError(f"{key} has {len(numbers)} entries: expected at most {MOST_LAYERS}")
    for number in numbers:
        if not isinstance(number, (int, float)):
            continue
        if number not in allowed:
            raise ConfigError(f"{key}={number}: expected a value {allowed}")
        if not (number == 0 or math.isinf(number) or FLOAT32[0] <= abs(number) <= FLOAT32[1]):
            raise ConfigError(
                f"{key}={number}: beyond 32-bit numbers, "
                f"which reach from {FLOAT32[0]:.3g} to {FLOAT32[1]:.3g}"
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


def _check_hooks(hooks: list[dict[str, Any]]) -> None:
    if len(hooks) > MOST_HOOKS:
        raise ConfigError(f"hooks: expected at most {MOST_HOOKS}, given {len(hooks)}")
    for entry in hooks:
        if not isinstance(entry.get("name"), str):
            raise ConfigError(f"hooks: expected {{name: HOOK, ...}}, given {entry} without a name")


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
        warmup = entry.get("warmup", 0)
        if not (_is_number(warmup) and warmup in WARMUP):
            raise ConfigError(f"extra_losses: {name} has warmup={warmup}: expected a value {WARMUP}")
        if shape == "exponential" and final is not None and min(coef, final) <= 0:
            raise ConfigError(
                f"extra_losses: {name} has shape=exponential: expected both ends above 0, given "
                f"coef={coef:g} and final={final:g}; use linear or cosine"
            )


def _check_values(config: Config) -> None:
    """Raises ConfigError where the value's loss has no use for what is asked of it."""
    loss = config.value_loss
    if config.normalize.values and loss in ("symlog", "two_hot"):
        raise ConfigError(
            f"normalize.values=true: value_loss={loss} has a scale of its own; set it to false, "
            "or use mse or huber"
        )
    if config.vf_clip_ratio is not None and loss not in ("mse", "huber", "symlog"):
        raise ConfigError(
            f"vf_clip_ratio={config.vf_clip_ratio:g}: value_loss={loss} clips no values; set it to null, "
            "or use mse, huber or symlog"
        )


def _is_number(value: Any) -> bool:  # noqa: ANN401
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


def check_backend(config: Config, advice: str = "leave it out, or use vectorization=auto") -> None:
    """Raises ConfigError where a backend can't do what is asked of it, with what to do."""
    env, chosen = config.env, backend(config.vectorization)
    for knob, need, is_asked in (
        ("env.kwargs", "kwargs", bool(env.kwargs)),
        ("env.wrappers", "wrappers", bool(env.wrappers)),
        ("env.action_mask=true", "masks", env.action_mask is True),
        ("env.reset_options", "resets", bool(env.reset_options)),
        ("env.seed_below", "resets", env.seed_below is not None),
        ("env.on_error=restart", "restarts", env.on_error == "restart"),
        ("checkpoint.exact=true", "restores", config.checkpoint.exact),
    ):
        if is_asked and not chosen.can(need, env.id):
            said = f"vectorization={config.vectorization} {REFUSALS[need]}"
            raise ConfigError(f"{knob}: {said}; {advice}")


def _check_eyes(network: NetworkConfig) -> None:
    """Raises ConfigError where actor or critic would see nothing, or the critic has no place for its own."""
    for who, part in (("actor", network.actor), ("critic", network.critic)):
        if part.observations == []:
            raise ConfigError(
                f"network.{who}.observations=[]: expected keys of the observation, or null for all of them"
            )
    own = {"hidden_sizes": network.critic.hidden_sizes, "encoders": network.critic.encoders or None}
    for name, value in own.items():
        if network.shared and value is not None:
            raise ConfigError(
                f"network.critic.{name}={value}: network.shared=true has one trunk for policy and value; "
                "set network.shared=false"
            )


def _check_box_policy(config: Config) -> None:
    """Raises ConfigError where the knobs of Box actions do not go together."""
    network = config.network
    for knob, value, plain in (
        ("log_std", network.log_std, "free"),
        ("log_std_min", network.log_std_min, None),
        ("log_std_max", network.log_std_max, None),
    ):
        if config.use_sde and value != plain:
            raise ConfigError(
                f"network.{knob}={value}: use_sde=true has deviations of its own; set it to {plain or 'null'}"
            )
    if config.box_policy == "gaussian":
        return
    for knob, is_set in (("use_sde", config.use_sde), ("squash_actions", config.squash_actions)):
        if is_set:
            raise ConfigError(
                f"{knob}=true: it is of Gaussian policies, given box_policy={config.box_policy}; "
                f"set {knob}=false or box_policy=gaussian"
            )


def _check_shards(config: Config) -> None:
    """Raises ConfigError where a run can't be cut into so many equal parts."""
    shards = config.shards
    if config.processes != "auto" and shards % int(config.processes):
        raise ConfigError(
            f"processes={config.processes}: expected a divisor of shards={shards}, which they share"
        )
    if shards == 1:
        return
    rows = (
        ("n_envs", config.n_envs, False),
        ("batch_size", config.batch_size, config.batch_size >= config.rollout_rows),
    )
    for name, value, is_any in rows:
        if value % shards and not is_any:
            raise ConfigError(
                f"shards={shards} cuts {name}={value} into unequal parts: expected a multiple of {shards}"
            )
    if config.has_intrinsic:
        raise ConfigError(
            f"shards={shards}: intrinsic={config.intrinsic} learns from whole rollouts; use shards=1, or "
            "intrinsic=none"
        )


def _check_across(config: Config) -> None:
    if not config.env.id:
        raise ConfigError("env.id is empty: type env=ID, or env.id=ID for an id without its preset")
    if config.init_from is not None and not config.init_from.strip():
        raise ConfigError("init_from= names nothing: expected a run's folder or a file, or null")
    _check_wrappers(config)
    _check_hooks(config.hooks)
    _check_info_keys(config.log.info_keys)
    if config.sde_sample_freq == 0:
        raise ConfigError("sde_sample_freq=0: expected at least 1, or -1 for once a rollout")
    _check_box_policy(config)
    for name, value, allowed in (
        ("threads", config.threads, "an integer"),
        ("processes", config.processes, "an integer"),
        ("compile", config.compile, "true, false"),
        ("env.action_mask", config.env.action_mask, "true, false"),
        ("checkpoint.every", config.checkpoint.every, "an integer"),
    ):
        if isinstance(value, str) and value != "auto":
            raise ConfigError(f"{name}={value}: expected {allowed} or auto")
    check_backend(config)
    _check_shards(config)
    _check_eyes(config.network)
    if config.eval.every and not config.eval.episodes:
        raise ConfigError(f"eval.every={config.eval.every} needs eval.episodes of at least 1, given 0")
    _check_device(config.device)
    _check_extra_losses(config.extra_losses)
    _check_values(config)
    _check_stop(config)
    _check_learning_rate(config)
    for name, known in KNOBS.items():
        if known.annealed:
            _check_schedule(name, getattr(config, name), getattr(config.anneal, name))


def _check_stop(config: Config) -> None:
    """Raises ConfigError where what is to end a run never could."""
    time, patience = config.stop.time, config.stop.patience
    if time is not None and seconds_of(time) is None:
        raise ConfigError(
            f"stop.time={time}: expected a number of seconds above 0, or a time such as 90s, 30m, 2h or 1d"
        )
    if patience is not None and not config.eval.every:
        raise ConfigError(f"stop.patience={patience} counts evaluations on the way: set eval.every, given 0")


def _check_learning_rate(config: Config) -> None:
    """Raises ConfigError where the learning rate can't be steered as it is asked to."""
    if not config.adapts_learning_rate:
        return
    warmup = config.anneal.learning_rate.warmup
    low, high = config.learning_rate_min, config.learning_rate_max
    if warmup:
        raise ConfigError(
            f"anneal.learning_rate.warmup={warmup:g}: shape={KL} raises the rate by itself, from "
            "learning_rate on; leave it out, or use another shape"
        )
    if low > high:
        raise ConfigError(f"learning_rate_min={low:g}: expected at most learning_rate_max={high:g}")
    if not low <= config.learning_rate <= high:
        raise ConfigError(
            f"learning_rate={config.learning_rate:g}: expected a value from learning_rate_min={low:g} to "
            f"learning_rate_max={high:g}, between which anneal.learning_rate.shape={KL} steers it"
        )


def _check_schedule(name: str, start: float | None, anneal: AnnealConfig) -> None:
    """Raises ConfigError where a knob can't go from its value to the end of its schedule."""
    if anneal.shape == KL and name != "learning_rate":
        allowed = ", ".join(SHAPES)
        raise ConfigError(f"anneal.{name}.shape={KL} is for the learning rate alone: expected {allowed}")
    if anneal.warmup and (start is None or math.isinf(start)):
        raise ConfigError(f"anneal.{name}.warmup={anneal.warmup:g}: expected a finite {name} to rise to")
    if anneal.final is None:
        return
    if start is None or math.isinf(start):
        raise ConfigError(f"anneal.{name}.final={anneal.final:g}: expected a finite {name} to start from")
    if anneal.shape == "exponential" and not (start > 0 and anneal.final > 0):
        raise ConfigError(
            f"anneal.{name}.shape=exponential: expected both ends above 0, given {name}={start:g} and "
            f"anneal.{name}.final={anneal.final:g}; use linear or cosine"
        )
