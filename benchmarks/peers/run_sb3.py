"""One training run of Stable-Baselines3 or SBX with our settings: `python -m peers.run_sb3 PEER CONFIG.json`.

PEER is sb3, sb3-rendering or sbx. `sb3-rendering` takes its environments from Stable-Baselines3's
`make_vec_env`, which makes them with ``render_mode="rgb_array"``: LunarLander then simulates the engines'
exhaust, for pictures that nobody takes.
"""

import sys
from typing import Any

import gymnasium as gym
import torch

try:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed: pip install 'ppo-cli[bench]'")

from peers.common import ACTIVATIONS, Clock, read
from peers.table import PEERS


class Noting(BaseCallback):
    """Notes the time at the start of every rollout."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def _on_rollout_start(self) -> None:
        self.clock.note(self.num_timesteps)

    def _on_step(self) -> bool:
        return True


def make_envs(config: dict[str, Any], rendering: bool) -> VecEnv:
    """The peer's own vector environment, without rendering unless it is asked for."""
    env_id, kwargs = config["env"]["id"], config["env"]["kwargs"]
    envs: VecEnv
    if is_atari(config):
        return VecFrameStack(make_atari_env(env_id, config["n_envs"], env_kwargs=kwargs), 4)
    if rendering:
        envs = make_vec_env(env_id, n_envs=config["n_envs"], env_kwargs=kwargs)
    else:
        envs = DummyVecEnv([lambda: gym.make(env_id, render_mode=None, **kwargs)] * config["n_envs"])
    normalize = config["normalize"]
    if normalize["observations"] or normalize["rewards"]:
        envs = VecNormalize(
            envs, norm_obs=normalize["observations"], norm_reward=normalize["rewards"], gamma=config["gamma"]
        )
    return envs


def is_atari(config: dict[str, Any]) -> bool:
    """Whether the config has the published wrappers of Atari, which the peer has of its own."""
    return any(entry["name"] == "AtariPreprocessing" for entry in config["env"]["wrappers"])


def annealed(config: dict[str, Any], knob: str) -> Any:
    """A knob as Stable-Baselines3 takes it: a number, or a function of the progress that remains."""
    start, final = config[knob], config["anneal"][knob]["final"]
    return start if final is None else lambda remaining: final + (start - final) * remaining


def make_peer(peer: str, config: dict[str, Any]) -> Any:
    """The peer's agent on its environments, with our settings and one thread."""
    torch.set_num_threads(1)
    network = config["network"]
    policy_kwargs: dict[str, Any] = {"net_arch": network["hidden_sizes"]}
    if is_atari(config):
        import ale_py

        gym.register_envs(ale_py)
        config["env"]["kwargs"].pop("obs_type", None)  # its wrappers make the grey themselves
    settings = PEERS[peer].settings(config)
    if peer == "sbx":
        from sbx import PPO
    else:
        from stable_baselines3 import PPO

        settings["device"] = "cpu"
        policy_kwargs |= {
            "activation_fn": ACTIVATIONS[network["activation"]],
            "ortho_init": network["ortho_init"],
            "log_std_init": network["log_std_init"],
        }
    return PPO(
        "CnnPolicy" if is_atari(config) else "MlpPolicy",
        make_envs(config, peer == "sb3-rendering"),
        learning_rate=annealed(config, "learning_rate"),
        clip_range=annealed(config, "clip_ratio"),
        policy_kwargs=policy_kwargs,
        **settings,
    )


def main() -> None:
    """Trains and prints."""
    config = read()
    model = make_peer(sys.argv[1], config)
    clock = Clock()
    model.learn(config["total_timesteps"], callback=Noting(clock))
    clock.note(model.num_timesteps)
    clock.report()


if __name__ == "__main__":
    main()
