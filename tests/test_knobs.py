"""What the schema says of each knob in its line, and what follows from the values of several."""

import pytest

from ppo_cli.config.checks import check
from ppo_cli.config.convert import from_dict, from_stored, learned_part, to_dict
from ppo_cli.config.knob import Range
from ppo_cli.config.schema import KNOBS, SCHEMA, AnnealsConfig, find_knob, is_entry
from ppo_cli.errors import ConfigError


def stored(**knobs):
    return from_stored({"env": {"id": "CartPole-v1"}, **knobs})


def test_a_section_of_annealing_is_made_for_each_annealed_knob():
    annealed = [name for name, known in KNOBS.items() if known.annealed]
    assert [name for name in KNOBS if name.startswith("anneal.")] == [
        f"anneal.{name}.{what}" for name in annealed for what in ("final", "shape", "warmup")
    ]
    assert {"learning_rate", "clip_ratio", "ent_coef", "vf_coef"} <= set(annealed)
    assert AnnealsConfig.__module__ == "ppo_cli.config.schema"  # where a pickle looks for it


def test_a_schedule_ends_in_the_range_of_its_knob_or_at_its_open_end():
    assert KNOBS["clip_ratio"].range == Range(0, open_low=True)
    assert KNOBS["anneal.clip_ratio.final"].range == Range(0)


def test_what_holds_of_a_section_holds_of_its_knobs_and_of_entries_of_a_users_own():
    assert KNOBS["network.memory_size"].fixed and not KNOBS["n_epochs"].fixed
    assert not KNOBS["eval.seed"].learned and not KNOBS["eval.seed"].searched
    assert find_knob("env.kwargs.gravity") == KNOBS["env.kwargs"] and is_entry("env.kwargs.gravity")
    assert not find_knob("log.of_a_later_version").learned and not is_entry("log.of_a_later_version")
    assert find_knob("env") == SCHEMA["env"] and find_knob("of_a_later_version").learned


def test_sizes_follow_from_the_knobs():
    config = stored(total_timesteps=1000, n_envs=3, n_steps=50, batch_size=64, n_epochs=2)
    assert (config.rollout_rows, config.iterations, config.minibatches) == (150, 7, 3)
    assert (config.trained_steps, config.checkpoint_interval) == (1050, 334)
    assert stored().sequence_length == 1
    assert stored(network={"memory": "lstm"}).sequence_length == 16
    assert stored(network={"memory": "lstm"}, n_steps=5).sequence_length == 5
    assert stored(checkpoint={"every": 7}).checkpoint_interval == 7
    assert stored(vectorization="envpool", total_timesteps=1000).trained_steps == 1000


def test_auto_is_resolved_from_the_config_alone():
    config = stored()
    assert (config.device_name, config.cpu_threads) == ("cpu", 1)
    assert stored(threads=4).cpu_threads == 4
    budget = {"n_envs": 1, "n_steps": 100, "batch_size": 10, "n_epochs": 5}  # 50 steps an iteration
    assert stored(total_timesteps=10_000, **budget).wants_compile
    assert not stored(total_timesteps=9_900, **budget).wants_compile
    assert stored(total_timesteps=100, compile=True).wants_compile
    assert not stored(compile=False).wants_compile


def test_a_config_from_before_a_knob_existed_gets_its_default():
    old = to_dict(stored(clip_ratio=0.1))
    del old["anneal"]["vf_coef"], old["log"], old["n_epochs"]
    assert to_dict(from_stored(old)) == to_dict(stored(clip_ratio=0.1))
    with pytest.raises(ConfigError):
        from_dict(old)


def test_what_is_learned_leaves_out_how_a_run_is_run():
    part = learned_part(stored(env={"id": "CartPole-v1", "kwargs": {"path": "${oc.env:HOME}"}}))
    assert set(part) == {name.split(".")[0] for name, known in KNOBS.items() if known.learned}
    assert "timeout" not in part.env and part.env.kwargs.path == "${oc.env:HOME}"
    assert not {"seed", "device", "threads", "compile", "eval", "checkpoint", "log"} & set(part)


def test_a_schedule_needs_a_number_to_start_from(monkeypatch):
    config = stored()
    config.anneal.clip_ratio.final = 0.1
    check(config)
    config.clip_ratio = float("inf")
    monkeypatch.setitem(KNOBS, "clip_ratio", KNOBS["max_grad_norm"].__class__(float, annealed=True))
    with pytest.raises(ConfigError, match=r"anneal\.clip_ratio\.final=0\.1: expected a finite clip_ratio"):
        check(config)


def test_what_is_done_to_one_config_is_done_to_no_other():
    first = stored(env={"id": "CartPole-v1", "kwargs": {"gravity": [9.8]}})
    plain = to_dict(first)
    first.env.kwargs["gravity"].append(1)
    first.network.hidden_sizes.append(3)
    first.hooks.append({"name": "wandb"})
    assert to_dict(stored()) == to_dict(stored(**{**plain, "env": {"id": "CartPole-v1"}})) != to_dict(first)
    assert to_dict(from_dict(plain)) == plain
