"""How the policy has changed, how wide it is, and what the rollout is like that it learns from."""

import math
from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Tensor

from ppo_cli.actor_critic import ILLEGAL
from ppo_cli.advantages import varies
from ppo_cli.distributions import DiagonalGaussian, Distribution
from ppo_cli.losses import weighted_mean
from ppo_cli.rollout import Batch, Rollout

SOME_CHOICE = 1e-4  # nats of the uniform policy, below which a mask leaves nothing to choose


def is_continuous(part: Distribution) -> bool:
    """Whether actions are drawn from a density over a Box, rather than chosen."""
    return isinstance(part.space, spaces.Box) and part.action_dtype.is_floating_point


def kl_k1(new_logprobs: Tensor, old_logprobs: Tensor, weights: Tensor) -> Tensor:
    """KL(π_old ‖ π_θ) ≈ E[-log r], unbiased, and negative at times (http://joschu.net/blog/kl-approx.html)."""
    return weighted_mean(old_logprobs - new_logprobs, weights)


def deviation_and_share(distribution: Distribution, logits: Tensor) -> tuple[float, float]:
    """How wide a policy is: that of Box actions by its deviation, that of choices by its entropy.

    The deviation is that of a normal distribution with as much entropy a component, exp(S/n) / √(2πe): the
    geometric mean of the σ of a normal policy; of a squashed one in units of half the range. The share is
    S / S_max, where the uniform policy over what the mask leaves has S_max.

    Args:
        distribution: The distribution; of a product, each part counts by itself.
        logits: The logits, [B, P].

    Returns:
        Means over rows and parts; NaN where there are no parts of that kind, or nothing to choose.
    """
    deviations, shares = [], []
    pieces = logits.split([part.logits_size for part in distribution.parts], dim=-1)
    for part, piece in zip(distribution.parts, pieces, strict=True):
        entropy = part.entropy(piece)
        if is_continuous(part):
            a_component = entropy / math.prod(part.action_shape)
            deviations.append((a_component - 0.5 * math.log(2 * math.pi * math.e)).exp())
            continue
        most = part.entropy(torch.where(piece <= ILLEGAL, piece, 0.0))
        shares.append((entropy / most)[most > SOME_CHOICE])
    return _mean(deviations), _mean(shares)


def _mean(values: Sequence[Tensor]) -> float:
    return torch.cat(list(values)).mean().item() if values else math.nan


def clipped_actions(distribution: Distribution, actions: Tensor) -> float:
    """Share of Box actions' components that are sampled outside the bounds, and clipped on the way out.

    Args:
        distribution: The distribution; a product's parts that are no Box, or are squashed, count for nothing.
        actions: The actions as they were sampled, [B, *action_shape].

    Returns:
        The share; NaN where no action can be clipped.
    """
    outside = []
    parts = distribution.parts
    sizes = [math.prod(part.action_shape) for part in parts]
    for part, taken in zip(parts, actions.reshape(len(actions), -1).split(sizes, dim=-1), strict=True):
        if isinstance(part, DiagonalGaussian) and not part.is_squashed:
            half = 0.0 if part.space.dtype.kind == "f" else 0.5  # what rounds to a bound is no further out
            low, high = (
                torch.from_numpy(bound.reshape(-1).astype("f4"))
                for bound in (part.space.low, part.space.high)
            )
            low, high = low.to(taken.device) - half, high.to(taken.device) + half
            outside.append((taken < low) | (taken > high))
    return torch.cat(outside, dim=-1).float().mean().item() if outside else math.nan


def moments(values: Tensor) -> tuple[float, float, float, float]:
    """Mean, deviation, skewness E[z³] and kurtosis E[z⁴] of values [B], z = (x - mean) / deviation.

    A normal distribution has skewness 0 and kurtosis 3; values that do not vary have neither.
    """
    differ, values = varies(values), values.double()
    mean, deviation = values.mean(), values.std(unbiased=False)
    z = ((values - mean) / deviation).where(differ, math.nan)
    return mean.item(), deviation.item(), (z**3).mean().item(), (z**4).mean().item()


def value_bias(batch: Batch, rollout: Rollout, gamma: float) -> float:
    """E[V(s_t) - G_t] over the steps of a rollout whose episodes end in it.

    G_t = r_t + γ r_{t+1} + … is the discounted return to the episode's end; where that was cut, the value of
    its final observation stands for what would have come. (What estimates of Q are held against in Fujimoto
    et al. 2018, https://arxiv.org/abs/1802.09477, figure 1.)

    Args:
        batch: The batch made of the rollout.
        rollout: The rollout.
        gamma: The discount factor γ.

    Returns:
        The mean; NaN where no episode ended.
    """
    shape, done = rollout.rewards.shape, rollout.dones.to(batch.values.device)
    values, targets, rewards = (
        batch.values.view(shape),
        batch.returns.view(shape),
        rollout.rewards.to(done.device),
    )
    ended = (done.flip(0).cumsum(0).flip(0) > 0) & rollout.valid.to(done.device)
    if not ended.any():
        return math.nan
    # the target of an episode's last step is r, plus γ V(s') where it was cut, whatever λ is
    realised = discounted_sums(torch.where(done, targets, rewards), gamma * (~done).to(rewards.dtype))
    return (values - realised)[ended].mean().item()


def discounted_sums(rewards: Tensor, decays: Tensor) -> Tensor:
    """G_t = r_t + d_t G_{t+1} over T steps, 0 behind the last, both [T, N].

    In about log2 T steps for all of them, each of which joins neighbouring sums of a length into sums of
    twice that (Hillis & Steele 1986, https://doi.org/10.1145/7902.7903).
    """
    sums, length = rewards.clone(), 1
    while length < len(rewards):
        sums[:-length] += decays[:-length] * sums[length:].clone()
        decays = torch.cat([decays[:-length] * decays[length:], torch.zeros_like(decays[-length:])])
        length *= 2
    return sums
