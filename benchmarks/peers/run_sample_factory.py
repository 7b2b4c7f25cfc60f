"""One training run of Sample Factory with our settings.

It runs as it is meant to: environments, policy and learner are processes of their own, and the next rollout
is collected while the learner is at the last one. So it uses a second core, where there is one. Command:
`python -m peers.run_sample_factory sample_factory CONFIG.json`.
"""

from functools import partial
from typing import Any

from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner

from peers.common import Clock, annealed, make_env, minibatches, read, rollouts, rows
from peers.table import PEERS


class Noting(AlgoObserver):
    """Notes the time at the start, and when the learner is done with a rollout."""

    def __init__(self, clock: Clock, rows: int) -> None:
        self.clock, self.rows = clock, rows

    def on_start(self, runner: Runner) -> None:
        self.clock.note(0)

    def on_training_step(self, runner: Runner, training_iteration_since_resume: int) -> None:
        self.clock.note(training_iteration_since_resume * self.rows)


def arguments(config: dict[str, Any]) -> list[str]:
    """Sample Factory's command line."""
    settings = {
        **PEERS["sample_factory"].settings(config),
        "experiment": "run",
        "rollout": min(config["n_steps"], config["batch_size"]),  # a minibatch is made of whole rollouts
        "device": "cpu",
        "num_workers": 1,
        "worker_num_splits": 2 if config["n_envs"] % 2 == 0 else 1,
        "num_batches_per_epoch": minibatches(config),
        # it ends one training step after it has more than these
        "train_for_env_steps": (rollouts(config) - 1) * rows(config) - 1,
        "lr_schedule": "linear_decay" if annealed(config) else "constant",
        "ppo_clip_value": config["vf_clip_ratio"] or 1e6,
        "nonlinearity": config["network"]["activation"],
        "policy_initialization": "orthogonal" if config["network"]["ortho_init"] else "torch_default",
        "actor_critic_share_weights": config["network"]["shared"],
        "initial_stddev": 1.0,
        "adaptive_stddev": False,
        "use_rnn": False,
        "recurrence": 1,
        "with_vtrace": False,
        "value_bootstrap": True,
        "normalize_input": False,
        "normalize_returns": False,
        "shuffle_minibatches": True,
        "decorrelate_envs_on_one_worker": False,
        "restart_behavior": "overwrite",
        "max_policy_lag": 10**9,  # a minibatch counts as one; it would drop whole rollouts as too old
        "reward_clip": 1e6,
    }
    words = [f"--{name}={value}" for name, value in settings.items()]
    return [*words, "--encoder_mlp_layers", *map(str, config["network"]["hidden_sizes"])]


def make(config: dict[str, Any], name: str, *_: Any, render_mode: str | None = None) -> Any:
    """An environment, as Sample Factory asks for one."""
    return make_env(config)


def main() -> None:
    """Trains and prints."""
    config = read()
    register_env(config["env"]["id"], partial(make, config))
    parser, _ = parse_sf_args(arguments(config))
    _, runner = make_runner(parse_full_cfg(parser, arguments(config)))
    clock = Clock()
    runner.register_observer(Noting(clock, rows(config)))
    if runner.init() == ExperimentStatus.SUCCESS:
        runner.run()
    clock.report()


if __name__ == "__main__":
    main()
