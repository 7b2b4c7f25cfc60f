"""One training run of sheeprl with our settings: `python -m peers.run_sheeprl sheeprl CONFIG.json`."""

import os
import sys
from typing import Any

import sheeprl.algos.ppo.ppo as algorithm
from sheeprl.cli import run

from peers.common import ACTIVATIONS, Clock, annealed, read, rollouts, rows
from peers.peer import lookup
from peers.table import PEERS


def arguments(config: dict[str, Any]) -> list[str]:
    """sheeprl's command line."""
    network, sizes = config["network"], config["network"]["hidden_sizes"]
    if len(set(sizes)) != 1:
        sys.exit("sheeprl has hidden layers of one size only")
    activation = ACTIVATIONS[network["activation"]]
    settings = {
        **PEERS["sheeprl"].settings(config),
        "env.sync_env": True,
        "env.capture_video": False,
        "env.wrapper.render_mode": "null",
        **{f"+env.wrapper.{name}": value for name, value in config["env"]["kwargs"].items()},
        "algo.total_steps": rollouts(config) * rows(config),
        "algo.anneal_lr": annealed(config),
        "algo.anneal_clip_coef": lookup(config, "anneal.clip_ratio.final") == 0,
        "algo.clip_vloss": config["vf_clip_ratio"] is not None,
        "algo.encoder.mlp_layers": 0,
        "algo.mlp_layers": len(sizes),
        "algo.dense_units": sizes[0],
        "algo.dense_act": f"torch.nn.{activation.__name__}",
        "algo.actor.ortho_init": network["ortho_init"],
        "algo.critic.ortho_init": network["ortho_init"],
        "algo.run_test": False,
        "buffer.memmap": False,
        "checkpoint.every": 0,
        "checkpoint.save_last": False,
        "metric.log_level": 0,
    }
    return ["exp=ppo", *(f"{name}={value}" for name, value in settings.items())]


def main() -> None:
    """Trains and prints."""
    config = read()
    clock = Clock()
    train = algorithm.train

    def timed(*words: Any, **named: Any) -> int:
        steps: int = train(*words, **named)
        clock.note(len(clock.marks) * rows(config))
        return steps

    algorithm.train = timed
    os.environ["HYDRA_FULL_ERROR"] = "1"  # without it the last line of a failure is not its reason
    sys.argv = ["sheeprl", *arguments(config)]
    clock.note(0)
    run()
    clock.report()


if __name__ == "__main__":
    main()
