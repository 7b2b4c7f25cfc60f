"""What there is to say of a peer: its pinned packages, how our knobs reach it, and what differs there.

Imports nothing but the standard library: the runners read it with the peers' own interpreters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

# The knobs that decide how much work a training step is. Each peer takes or lacks each of them.
COMPARED = (
    "env.id",
    "env.kwargs",
    "seed",
    "total_timesteps",
    "n_envs",
    "n_steps",
    "batch_size",
    "n_epochs",
    "learning_rate",
    "anneal.learning_rate.final",
    "gamma",
    "gae_lambda",
    "clip_ratio",
    "anneal.clip_ratio.final",
    "vf_clip_ratio",
    "normalize_advantage",
    "ent_coef",
    "vf_coef",
    "max_grad_norm",
    "target_kl",
    "use_sde",
    "sde_sample_freq",
    "network.hidden_sizes",
    "network.activation",
    "network.shared",
    "network.ortho_init",
    "network.log_std_init",
    "normalize.observations",
    "normalize.rewards",
)


@dataclass(frozen=True)
class Peer:
    """How to run one peer.

    Attributes:
        title: Its name and version for a table.
        module: The runner in this folder.
        packages: What pip installs into its environment.
        imports: What our own environment has to have to run it there, with the extra `bench`.
        without_dependencies: What pip installs after them, without asking what it depends on.
        sources: Files that belong to no package: address and SHA-256.
        names: Our knobs that are passed unchanged, with the names they have there.
        derived: Our knobs that are passed otherwise, and how.
        lacks: Our knobs that it does not have, with the value that it has instead.
        compiles: Whether it compiles into a cache that a later run finds.
        differs: What else is not the same, for the reader of a figure.
    """

    title: str
    module: str
    packages: tuple[str, ...]
    differs: str
    imports: tuple[str, ...] = ()
    without_dependencies: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    compiles: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    lacks: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The knobs that it takes unchanged, under its own names."""
        return {theirs: lookup(config, ours) for ours, theirs in self.names.items()}

    def unlike(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The knobs whose value in a config it cannot have, with the value it has instead."""
        return {knob: value for knob, value in self.lacks.items() if lookup(config, knob) != value}


def lookup(config: Mapping[str, Any], knob: str) -> Any:
    """The value of a knob with dots in its name."""
    return reduce(lambda section, name: section[name], knob.split("."), config)
