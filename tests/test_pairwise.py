"""All of it composes: every pair of kinds of spaces, networks, memories, masks and ways to run."""

import csv
import itertools
import json
import sys
from collections import Counter

import pytest
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE

from ppo_cli.cli import evaluate as eval_cli
from ppo_cli.cli import export as export_cli

MASKABLE = ("discrete", "start", "multi_discrete")
FACTORS = {  # of each the level first that takes least time
    "observation": ("vector", "dict", "hwc", "tuple", "float64", "discrete", "multi_binary", "chw"),
    "action": (
        "discrete", "start", "multi_discrete", "multi_binary", "box", "squashed", "sde", "state_std",
        "softplus_std", "beta", "binned", "product",
    ),
    "network": ("mlp", "nature_cnn", "impala_cnn", "norm_separate", "simba", "own"),
    "memory": ("none", "lstm", "gru"),
    "critic": ("same", "own"),
    "mask": ("none", "info", "key"),
    "backend": ("sync", "async"),
    "normalize": ("false", "true"),
    "values": ("mse", "huber", "symlog", "two_hot", "popart"),
    "intrinsic": ("none", "rnd"),
    "begin": ("fresh", "from_frozen"),
    "course": ("constant", "kl", "warmup", "stop"),
    "compile": ("false", "true"),
    "diagnostics": ("false", "true"),
    "export": ("torchscript", "torchscript-sample", "onnx", "onnx-sample"),
}  # fmt: skip
BOXES = {
    "squashed": ("squash_actions=true",),
    "sde": ("use_sde=true", "sde_sample_freq=3"),
    "state_std": ("network.log_std=state", "network.log_std_min=-1", "network.log_std_max=0.5"),
    "softplus_std": ("network.log_std=softplus",),
    "beta": ("box_policy=beta",),
    "binned": ("box_policy=categorical", "action_bins=5"),
}
NETWORKS = {
    "mlp": (),
    "norm_separate": ("network.layer_norm=true", "network.shared=false"),
    "simba": ("network.trunk=simba", "network.hidden_sizes=[8,8]", "network.shared=false"),
    "nature_cnn": ("network.image_encoder=nature_cnn",),
    "impala_cnn": ("network.image_encoder=impala_cnn",),
}
VALUES = {
    "mse": (),
    "huber": ("value_loss=huber", "vf_clip_ratio=0.2"),
    "symlog": ("value_loss=symlog", "vf_clip_ratio=0.2", "value_lambda=1", "anneal.value_lambda.final=0.9"),
    "two_hot": ("value_loss=two_hot",),
    "popart": ("normalize.values=true", "value_lambda=0.5"),
}
COURSES = {
    "kl": ("anneal.learning_rate.shape=kl",),
    "warmup": ("anneal.learning_rate.warmup=0.5", "anneal.clip_ratio.warmup=0.5"),
    "stop": ("stop.return=1e9", "stop.window=2", "stop.patience=9", "eval.every=1"),
}
TINY = (
    "env.id=zoo_envs:Zoo-v0", "preset=none", "n_envs=2", "n_steps=8", "batch_size=16", "n_epochs=1",
    "total_timesteps=48", "network.hidden_sizes=[8]", "network.memory_size=8", "network.sequence_length=3",
    "checkpoint.every=1", "eval.episodes=3", "learning_rate=0.01",
)  # fmt: skip


def allowed(pair):
    return pair.get("mask", "none") == "none" or pair.get("action", MASKABLE[0]) in MASKABLE


def quick_settings(factors, apt):
    """As few settings as have every level, each level once apart from the first one of its factor.

    A factor's further levels begin where those of the factor before ended, so that they meet those of others.
    """
    count, start = max(map(len, factors.values())), 0
    settings = [{name: levels[0] for name, levels in factors.items()} for _ in range(count)]
    for name, levels in factors.items():
        for level in levels[1:]:
            places = [(start + i) % count for i in range(count)]
            free = (i for i in places if settings[i][name] == levels[0] and apt({**settings[i], name: level}))
            place = next(free)
            settings[place][name], start = level, place + 1
    return settings


def is_apt(setting):
    """Whether it is allowed and its network sees what it is made for."""
    is_image = setting["observation"] in ("dict", "hwc", "chw")
    return allowed(setting) and (is_image or not setting["network"].endswith("cnn"))


def covering_array(factors, allowed, settings):
    """Further settings that cover every allowed pair of levels: greedily, each the best of the pairs left."""
    pairs = (
        ((one, level), (other, further))
        for one, other in itertools.combinations(factors, 2)
        for level, further in itertools.product(factors[one], factors[other])
    )
    left = {frozenset(pair): pair for pair in pairs if allowed(dict(pair))}

    def cover(setting):
        for pair in itertools.combinations(setting.items(), 2):
            left.pop(frozenset(pair), None)

    for setting in settings:
        cover(setting)
    while left:
        setting = dict(next(iter(left.values())))
        stand_in = Counter(itertools.chain.from_iterable(left))
        for name in factors:
            if name not in setting:
                options = [(name, level) for level in factors[name] if allowed({**setting, name: level})]
                # the levels that stand in most pairs left over, so that none is left to the end
                best = max(
                    options,
                    key=lambda option: (
                        sum(frozenset((option, other)) in left for other in setting.items()), stand_in[option]
                    ),
                )  # fmt: skip
                setting[name] = best[1]
        cover(setting)
        yield {name: setting[name] for name in factors}


# those of the fast suite: they have every level but the compiler's, which takes long
QUICK = quick_settings({**FACTORS, "compile": FACTORS["compile"][:1]}, is_apt)
SLOW = sorted(covering_array(FACTORS, allowed, QUICK), key=lambda setting: setting["compile"])
SETTINGS = [*QUICK, *SLOW]


def command_line(setting):
    action = "box" if setting["action"] in BOXES else setting["action"]
    key = {"dict": "camera", "tuple": "1.a"}.get(setting["observation"], "observation")
    if setting["mask"] == "key" and key == "observation":
        key = "seen"
    if setting["observation"] == "tuple" and setting["mask"] != "none":
        key = {"info": "observation", "key": "seen"}[setting["mask"]] + ".1.a"
    own = (f"+network.encoders.{key}={{name: zoo_envs.OwnEncoder, size: 5}}",)
    eyes = f"+network.critic.encoders.{key}=flatten"
    if setting["observation"] in ("dict", "tuple"):  # the critic sees the other keys, too
        eyes = f"network.actor.observations=[{key}]"
    critic = ("network.shared=false", "network.critic.hidden_sizes=[6]", eyes)
    return (
        *TINY,
        INTERRUPTIBLE,
        f"+env.kwargs.observation={setting['observation']}",
        f"+env.kwargs.action={action}",
        f"+env.kwargs.mask={setting['mask']}",
        *BOXES.get(setting["action"], ()),
        *(own if setting["network"] == "own" else NETWORKS[setting["network"]]),
        *(critic if setting["critic"] == "own" else ()),
        *COURSES.get(setting["course"], ()),
        f"network.memory={setting['memory']}",
        *VALUES[setting["values"]],
        f"vectorization={setting['backend']}",
        f"compile={setting['compile']}",
        f"log.diagnostics={setting['diagnostics']}",
        f"normalize.observations={setting['normalize']}",
        f"normalize.rewards={setting['normalize']}",
        f"intrinsic={setting['intrinsic']}",
    )


def test_the_settings_cover_every_pair_and_the_quick_ones_the_levels():
    for one, other in itertools.combinations(FACTORS, 2):
        for pair in itertools.product(FACTORS[one], FACTORS[other]):
            wanted = dict(zip((one, other), pair, strict=True))
            assert not allowed(wanted) or any(wanted.items() <= setting.items() for setting in SETTINGS)
    for name, levels in FACTORS.items():
        if name != "compile":
            assert {setting[name] for setting in QUICK} == set(levels), name


@pytest.mark.parametrize(
    "setting",
    [
        *(pytest.param(setting, id="-".join(setting.values())) for setting in QUICK),
        *(pytest.param(setting, id="-".join(setting.values()), marks=pytest.mark.slow) for setting in SLOW),
    ],
)
def test_trains_resumes_evaluates_and_exports(ppo_train, tmp_path, monkeypatch, capfd, interrupt, setting):
    arguments = command_line(setting)
    if setting["begin"] == "from_frozen":
        short = ("total_timesteps=16", "compile=false", "seed=1", "hydra.run.dir=source")
        assert ppo_train(*arguments, *short).status == 0
        arguments = (*arguments, "init_from=source", "freeze=[trunk]")

    def finish(main, *argv):
        monkeypatch.setattr(sys, "argv", [main.__module__, *argv])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert ended.value.code == 0, err
        return out

    whole = ppo_train(*arguments, "hydra.run.dir=whole")
    assert whole.status == 0, whole.err
    assert "can't be compiled" not in whole.err
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:  # one minibatch an epoch: the ratio is 1, and advantages of mean 0 give no loss
        assert abs(float(row["losses/approx_kl"])) < 1e-6
        assert float(row["losses/clipfrac"]) == 0.0
        assert abs(float(row["losses/policy_loss"])) < 1e-5
        assert float(row["losses/grad_norm"]) > 0
        assert ("diagnostics/weight_norm" in row) == (setting["diagnostics"] == "true")
    interrupt(2)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    stored = json.loads((tmp_path / "whole" / "eval.json").read_text())
    shown = json.loads(finish(eval_cli.main, "whole", "--json"))
    assert shown["returns"] == stored["returns"]
    assert shown["lengths"] == stored["lengths"]
    kind, *sample = setting["export"].split("-")
    assert "1,000 observations" in finish(
        export_cli.main, "whole", "--format", kind, *("--sample" for _ in sample)
    )
