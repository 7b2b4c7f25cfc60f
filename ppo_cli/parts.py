"""Parts of a network by name: those that are not trained, and those that are taken from another network."""

from collections.abc import Sequence

from torch import nn

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.text import nearest


def chosen_parts(model: ActorCritic, which: str) -> list[str]:
    """The names of the parts that a choice stands for, those among them that this network lacks.

    Args:
        model: The network.
        which: ``all``; ``policy``, what actions are computed with; ``value``, what values are computed with;
            or ``encoder``.
    """
    eyes = ["value_encoder", "value_memory"] if model.has_own_critic else ["encoder", "memory"]
    shared = ["trunk"] if model.value_trunk is None else []
    parts = {
        "policy": ["encoder", "memory", "trunk", "policy_head"],
        "value": [*eyes, *shared, "value_trunk", "value_head", "intrinsic_head"],
        "encoder": ["encoder"],
    }
    return parts.get(which, [name for name, _ in model.named_children()])


def trained_parts(model: ActorCritic) -> dict[str, nn.Module]:
    """The parts that have weights which are trained, by name."""
    return {
        name: part
        for name, part in model.named_children()
        if any(weight.requires_grad for weight in part.parameters())
    }


def frozen_parts(model: ActorCritic) -> list[str]:
    """The names of the parts that have weights none of which is trained."""
    trained = trained_parts(model)
    return [name for name, part in model.named_children() if name not in trained and list(part.parameters())]


def freeze(model: ActorCritic, names: Sequence[str]) -> None:
    """Has parts of a network keep the weights that they have.

    Raises:
        ValueError: there is no such part, or nothing would be left to train.
    """
    known = trained_parts(model)
    for name in names:
        if name not in known:
            raise ValueError(
                f"freeze: {name!r} is no part of this network with weights that are trained: expected some "
                f"of {', '.join(known)}{nearest(name, known)}"
            )
        known[name].requires_grad_(False)
    if not trained_parts(model):
        raise ValueError(f"freeze=[{','.join(names)}] leaves nothing to train: leave out one of them")
