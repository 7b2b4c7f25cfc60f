"""One training run of a peer with our settings: `python benchmarks/peers.py PEER CONFIG.json`.

PEER is sb3, sb3-rendering or sbx. Prints a line of JSON: environment steps, and steps a second after the
first tenth of the run. `sb3-rendering` takes its environments from Stable-Baselines3's `make_vec_env`, which
makes them with ``render_mode="rgb_array"``: LunarLander then simulates the engines' exhaust, for pictures
that nobody takes.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

try:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed: pip install 'ppo-cli[bench]'")

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "gelu": torch.nn.GELU}


class Clock(BaseCallback):
    """Notes the time at the end of every rollout."""

    def _on_training_start(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def _on_rollout_start(self) -> None:
        self.marks.append((time.perf_counter(), self.num_timesteps))

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
    settings: dict[str, Any] = {
        knob: config[knob]
        for knob in ("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "vf_coef",
                     "max_grad_norm", "use_sde", "sde_sample_freq", "target_kl", "seed")
    }  # fmt: skip
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
    peer, path = sys.argv[1:]
    config = json.loads(Path(path).read_text())
    model = make_peer(peer, config)
    clock = Clock()
    model.learn(config["total_timesteps"], callback=clock)
    marks = [*clock.marks, (time.perf_counter(), model.num_timesteps)]
    (first, before), (last, after) = marks[len(marks) // 10], marks[-1]
    print(json.dumps({"steps": after, "steady": (after - before) / (last - first)}))


if __name__ == "__main__":
    main()
