"""Weights of Stable-Baselines3's ``.zip`` files, under our names.

Such a file holds ``policy.pth``, the weights as `torch.save` writes them, and ``data``, which is JSON.
Objects in there are pickles in letters beside their attributes as texts: the pickles are never looked at,
and of the rest only numbers, switches and names. The statistics of its ``VecNormalize`` lie in another file,
which is a pickle as a whole, and is not read.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppo_cli.errors import ConfigError
from ppo_cli.files import printable, read_bytes
from ppo_cli.runs.checkpoint import MOST_BYTES, check_container, check_plain, load_tensors
from ppo_cli.text import flat

ACTIVATIONS = {
    "Tanh": "tanh", "ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "GELU": "gelu", "SiLU": "silu",
}  # fmt: skip
EXTRACTORS = ("pi_features_extractor.", "vf_features_extractor.")  # other names of `features_extractor`
# Their names of modules, and ours; {} is a layer's number, of which an activation takes every second.
NAMES = (
    ("mlp_extractor.shared_net.{}", "trunk.layers.{}"),
    ("mlp_extractor.policy_net.{}", "trunk.layers.{}"),
    ("mlp_extractor.value_net.{}", "value_trunk.layers.{}"),
    ("features_extractor.cnn.{}", "encoder.convolutions.{}"),
    ("features_extractor.linear.0", "encoder.linear"),
    ("value_net", "value_head"),
)
TOLD = {"use_expln": False, "normalize_images": True}  # options of a policy that ours has no other value of


class SB3Policy(NamedTuple):
    """What is taken of a file.

    Attributes:
        weights: The weights under our names, float32.
        settings: The knobs that say what the policy makes of them, by dotted name.
        steps: The environment steps that it was trained for.
    """

    weights: dict[str, Tensor]
    settings: dict[str, Any]
    steps: int


def read_sb3(path: Path) -> SB3Policy:
    """The actor and critic of an ``MlpPolicy`` or ``CnnPolicy``.

    Raises:
        ConfigError: the file can't be read, is damaged, or holds another policy; one line.
    """
    try:
        data = read_bytes(path, MOST_BYTES)
        check_container(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            told, policy = json.loads(archive.read("data")), archive.read("policy.pth")
        weights = load_tensors(policy)
        weights = dict(weights) if isinstance(weights, Mapping) else weights  # of torch, ordered
        check_plain(weights, len(policy))
        return _translated(told, weights)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (Exception, RecursionError) as error:  # a damaged file makes its readers raise almost anything
        why = printable(flat(error))[:200]
        raise ConfigError(
            f"{path} is not a readable file of Stable-Baselines3's: {type(error).__name__}: {why}"
        ) from error


def _translated(told: Any, theirs: Any) -> SB3Policy:  # noqa: ANN401
    """Everything under our names.

    Raises:
        ConfigError: it is no policy of those that can be taken.
    """
    if not isinstance(told, dict) or not isinstance(theirs, dict):
        raise ConfigError("expected settings and weights by name")
    options = told.get("policy_kwargs")
    options = options if isinstance(options, dict) else {}
    _check_options(options)
    _check_extractors(theirs)
    nets = {name.split(".")[1] for name in theirs if name.startswith("mlp_extractor.")}
    if "shared_net" in nets and len(nets) > 1:
        raise ConfigError("its policy and value share some hidden layers, and ours share all or none")
    has_deviation = "log_std" in theirs
    weights = {}
    for name, weight in theirs.items():
        if name.startswith(EXTRACTORS):
            continue
        ours = _our_name(name, has_deviation)
        if ours is None or ours in weights:
            raise ConfigError(
                f"its weights {printable(name)[:80]} are none of an MlpPolicy or CnnPolicy, which are read"
            )
        if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or not weight.isfinite().all():
            raise ConfigError(f"its weights {printable(name)[:80]} are no finite 32-bit numbers")
        weights[ours] = weight
    if not {"value_head.weight", "value_head.bias"} <= weights.keys():
        raise ConfigError("it holds no actor and critic; those of PPO and A2C can be taken")
    steps = told.get("num_timesteps")
    settings = _settings(told, options, weights, "shared_net" in nets)
    return SB3Policy(weights, settings, steps if type(steps) is int and 0 <= steps < 2**53 else 0)


def _our_name(name: str, has_deviation: bool) -> str | None:
    module, _, kind = name.rpartition(".")
    if name == "log_std":
        return "policy_head.log_std"
    if kind not in ("weight", "bias"):
        return None
    if module == "action_net":
        return f"policy_head.{'linear.' if has_deviation else ''}{kind}"
    for theirs, ours in NAMES:
        found = re.fullmatch(re.escape(theirs).replace(r"\{\}", r"(0|[1-9]\d?\d?)"), module)
        if found and not found.groups():
            return f"{ours}.{kind}"
        if found and int(found[1]) % 2 == 0:
            return f"{ours.format(int(found[1]) // 2)}.{kind}"
    return None


def _check_options(options: Mapping[str, Any]) -> None:
    for option, only in TOLD.items():
        if options.get(option, only) not in (only, str(only)):
            raise ConfigError(f"its policy has {option}={not only}, which ours has nothing for")


def _check_extractors(theirs: Mapping[str, Any]) -> None:
    """Raises ConfigError where policy and value see observations through different weights."""
    for name, weight in theirs.items():
        for prefix in EXTRACTORS:
            same = theirs.get(f"features_extractor.{name.removeprefix(prefix)}")
            if name.startswith(prefix) and not (
                isinstance(weight, Tensor) and isinstance(same, Tensor) and torch.equal(weight, same)
            ):
                raise ConfigError(
                    "its policy and value have feature extractors of their own "
                    "(share_features_extractor=False), and ours share theirs"
                )


def _settings(
    told: Mapping[str, Any], options: Mapping[str, Any], weights: Mapping[str, Tensor], is_shared: bool
) -> dict[str, Any]:
    """What the weights alone don't say, and how the network that has them is typed."""
    sizes, critic = _widths("trunk", weights), _widths("value_trunk", weights)
    named = re.search(r"(\w+)'?>?$", str(options.get("activation_fn", "Tanh")))
    activation = named[1] if named else "?"
    squashes = options.get("squash_output", False) in (True, "True")
    found: dict[str, Any] = {
        "network.hidden_sizes": sizes,
        "use_sde": told.get("use_sde") is True,
        "squash_actions": squashes,
        "network.memory": "none",
        "network.log_std": "free",
        "network.log_std_min": None,
        "network.log_std_max": None,
        "network.layer_norm": False,
        "network.trunk": "mlp",
        "box_policy": "gaussian",
        "value_loss": "mse",
    }
    if sizes or critic:  # or else there is nothing to share, and nothing behind which an activation stands
        found["network.activation"] = ACTIVATIONS.get(activation, activation)
        found["network.shared"] = is_shared
        found["network.critic.hidden_sizes"] = None if is_shared or critic == sizes else critic
    return found


def _widths(trunk: str, weights: Mapping[str, Tensor]) -> list[int]:
    is_bias = re.compile(rf"{trunk}\.layers\.\d+\.bias").fullmatch
    return [len(weight) for name, weight in weights.items() if is_bias(name)]
