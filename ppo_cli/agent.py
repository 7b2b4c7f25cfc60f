"""PPOAgent: acts, estimates advantages and updates the network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.advantages import explained_variance
from ppo_cli.arrays import Array
from ppo_cli.collective import ALONE, Collective
from ppo_cli.compiled_step import blank_minibatch
from ppo_cli.distributions import Distribution
from ppo_cli.numpy_actor import numpy_actor
from ppo_cli.optimizers.optimizer import restored
from ppo_cli.rollout import ActorOutputs, Batch, Rollout, sequences
from ppo_cli.schedules import Schedules
from ppo_cli.sharded import Data, ShardedStep, WholeStep, gathered, sharded_minibatches
from ppo_cli.targets import adapt_values, compute_batch
from ppo_cli.update import Hyperparameters, first_state, mean_metrics, parameter_shapes, run_epochs


class PPOAgent:
    """Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

    Attributes:
        model: The network; its parameters, but for frozen ones, are views of one flat vector.
        optimizer: The optimizer's state over that vector.
        keeps_outputs: Whether what `act` computes is kept, because computing it again would cost more.
        knobs: The values in use of what may be annealed, by name, set by `anneal`; `update` changes those of
            them that it steers itself.
    """

    def __init__(
        self,
        model: ActorCritic,
        distribution: Distribution,
        hyper: Hyperparameters,
        schedules: Schedules,
        minibatch_generators: Sequence[Generator],
        n_envs: int,
        device: torch.device,
        compile_cache: Path | None = None,
        collective: Collective = ALONE,
    ) -> None:
        """Takes over the model.

        Args:
            model: The network, on the CPU; it is moved to ``device``.
            distribution: The distribution over the environment's action space.
            hyper: The constant knobs.
            schedules: The schedules of the numbers that may be annealed.
            minibatch_generators: CPU generators that draw the permutations, one for each shard of the run.
            n_envs: The number of environments that it will act for at once, those of a shard.
            device: The device on which the network runs.
            compile_cache: The folder that the compiled step is kept in; None runs it as it is.
            collective: The processes of the run.
        """
        self.model = model.to(device)
        self.distribution = distribution
        self.hyper = hyper
        self.schedules = schedules
        self.device = device
        self._minibatch_generators = list(minibatch_generators)
        self._collective = collective
        self._params = flatten_parameters(model)
        self._numpy_actor = numpy_actor(model, n_envs)
        self.keeps_outputs = model.is_heavy
        self.optimizer = hyper.optimizer.init(self._params, parameter_shapes(model))
        self._steered: dict[str, float] = {}
        if hyper.adaptive is not None:
            self._steered["learning_rate"] = schedules["learning_rate"].initial
        self.compiled = compile_cache is not None
        update = (model, distribution, hyper, tuple(schedules))
        self._step = (
            WholeStep(*update, compile_cache)
            if len(self._minibatch_generators) == 1
            else ShardedStep(*update, collective, compile_cache)
        )
        self.anneal(0.0)

    def anneal(self, progress: float, step: float = 0.0) -> None:
        """Sets every knob that may be annealed for ``progress`` in [0, 1], as `Schedule` takes it."""
        self.knobs = {name: schedule(progress, step) for name, schedule in self.schedules.items()}
        self.knobs |= self._steered

    def update_ent_coef(self, progress: float) -> None:
        """Anneals the entropy coefficient, from exploration to exploitation, for ``progress`` in [0, 1]."""
        self.knobs["ent_coef"] = self.schedules["ent_coef"](progress)

    def exploration_noise(
        self, n_steps: int, n_envs: int, generator: Generator, in_tensors: bool = False
    ) -> Iterator[Any]:
        """The noise of each step of a rollout.

        Args:
            n_steps: The number of steps T.
            n_envs: The number of environments N.
            generator: Draws it, on the CPU.
            in_tensors: Whether `act` is given observations as tensors.

        Returns:
            T times what `act` takes as noise, [N, ...]. With gSDE that is N exploration matrices [N, F, A],
            drawn anew every ``sde_sample_freq`` steps, or once a rollout where that is -1.
        """
        in_numpy, period = self._numpy_actor is not None and not in_tensors, self.hyper.sde_sample_freq

        def place(noise: Tensor) -> Any:  # noqa: ANN401 - a tensor or an array
            return noise.numpy() if in_numpy else noise.to(self.device)

        return self.model.policy_head.noise(n_steps, n_envs, generator, period, place)

    def act(self, obs: Array, noise: Any, states: Tensor) -> tuple[Array, ActorOutputs | None]:  # noqa: ANN401
        """Actions sampled from the policy, [N, *action_shape], and what else was computed, if that is kept.

        Args:
            obs: The observations as the rollout stores them, [N, *shape]: arrays, or tensors on the device,
                as the actions are then.
            noise: One step's item of `exploration_noise`.
            states: The memory's states, [N, S].
        """
        if isinstance(obs, Tensor):
            return self._act_in_torch(obs, noise, states)
        if self._numpy_actor is not None and obs.dtype == np.float32:
            return self._numpy_actor(obs, noise), None
        noise = torch.as_tensor(noise, device=self.device)
        actions, outputs = self._act_in_torch(torch.from_numpy(obs), noise, states)
        return actions.cpu().numpy(), outputs

    @torch.inference_mode()
    def _act_in_torch(self, obs: Tensor, noise: Tensor, states: Tensor) -> tuple[Tensor, ActorOutputs | None]:
        obs, states = obs.to(self.device), states.to(self.device)
        encoded, after = self.model.encode(obs, states)
        features = self.model.trunk(encoded)
        logits = self.model.logits(features, obs)
        actions = self.distribution.sample(logits, self.model.policy_head.action_noise(features, noise))
        if not self.keeps_outputs:
            return actions, None
        logprobs = self.distribution.log_prob(logits, actions)
        return actions, ActorOutputs(logprobs, *self.model.judge(obs, states, encoded, after))

    @torch.inference_mode()
    def compute_gae(self, rollout: Rollout) -> Batch:
        """Values, log-probabilities, advantages and value targets of a rollout, flattened for the update."""
        return compute_batch(rollout, self.model, self.distribution, self.knobs, self.device)

    def update(self, batches: Sequence[Batch], valid: Sequence[Tensor]) -> dict[str, float]:
        """Epochs of minibatch steps; gives means over the minibatches, and the critic's fit to the rollout.

        Args:
            batches: What `compute_gae` made of the shards of this process, in their order.
            valid: Whether a row is a transition, of all shards in their order, bool [T, N] each.
        """
        hyper, generators = self.hyper, self._minibatch_generators
        knobs = torch.tensor(list(self.knobs.values()), device=self.device)
        cuts = [sequences(each, hyper.sequence_length) for each in valid]
        size = min(hyper.batch_size // len(cuts), cuts[0].total)
        epochs = (sharded_minibatches(cuts, size, generators) for _ in range(hyper.n_epochs))
        advantages, values, targets = gathered(batches, valid, self._collective)
        fit = explained_variance(values, targets)
        data = Data(adapt_values(self.model.value_head, batches, targets), advantages)
        params = self._params.clone()  # an optimizer may keep it
        state = first_state(params, self.optimizer, hyper, self.knobs["learning_rate"])
        state = run_epochs(self._step, state, data, epochs, knobs)
        self._params.copy_(state.params)
        self.optimizer = state.optimizer
        if state.learning_rate is not None:
            self._steered["learning_rate"] = state.learning_rate.item()
            self.knobs |= self._steered
        return {**mean_metrics(state, hyper), "explained_variance": fit.item()}

    def compile_ahead(self, rollout: Rollout) -> None:
        """Has the update compiled, where it is, beside what is done until the first one.

        Frozen weights are constants of what is compiled, and may still be set to those of another run: then
        nothing is done.

        Args:
            rollout: Any that is like those that it will learn from.
        """
        is_trained = all(parameter.requires_grad for parameter in self.model.parameters())
        if not (self.compiled and is_trained):
            return
        size = self.hyper.batch_size // len(self._minibatch_generators)
        example = blank_minibatch(rollout, replace(self.hyper, batch_size=size), self.model.state_size)
        state = first_state(self._params, self.optimizer, self.hyper)
        self._step.compile_ahead(state, *example, torch.tensor(list(self.knobs.values())))

    def is_finite(self) -> bool:
        """Whether no weight that is trained is NaN or infinite."""
        return bool(torch.isfinite(self._params).all())

    def state_dict(self) -> dict[str, object]:
        """Weights, optimiser and generators, as a checkpoint stores them."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer._asdict(),
            "minibatch_generator": torch.cat([each.get_state() for each in self._minibatch_generators]),
            "steered": dict(self._steered),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets all that `state_dict` stores; a RuntimeError says that it is that of another network."""
        self.model.load_state_dict(state["model"])
        self.optimizer = restored(self.optimizer, state["optimizer"])
        generators = self._minibatch_generators
        states = state["minibatch_generator"].chunk(len(generators))
        for generator, own in zip(generators, states, strict=True):
            generator.set_state(own.clone())  # PyTorch crashes on a view that begins further on
        known = {
            name: float(value) for name, value in state.get("steered", {}).items() if name in self._steered
        }
        self._steered |= known  # a run may have begun without


def flatten_parameters(model: ActorCritic) -> Tensor:
    """Moves the parameters into one vector [P] and makes each a view of it, but for frozen ones."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = piece.view(parameter.shape)
    return flat
