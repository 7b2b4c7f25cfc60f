"""All of it composes: every pair of kinds of spaces, networks, memories, masks and ways to run."""

import csv
import itertools
import json
import sys

import pytest
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE

from ppo_cli.cli import evaluate as eval_cli
from ppo_cli.cli import export as export_cli

MASKABLE = ("discrete", "start", "multi_discrete")
FACTORS = {
    "observation": ("dict", "vector", "hwc", "tuple", "float64", "discrete", "multi_binary", "chw"),
    "action": (
        "discrete", "start", "multi_discrete", "multi_binary", "box", "squashed", "sde", "state_std",
        "product",
    ),
    "network": ("mlp", "norm_separate", "nature_cnn", "impala_cnn", "own"),
    "memory": ("none", "lstm", "gru"),
    "mask": ("none", "info", "key"),
    "backend": ("sync", "async"),
    "normalize": ("false", "true"),
    "values": ("mse", "huber", "symlog", "two_hot", "popart"),
    "intrinsic": ("none", "rnd"),
    "compile": ("false", "true"),
    "export": ("onnx", "onnx-sample", "torchscript", "torchscript-sample"),
}  # fmt: skip
BOXES = {
    "squashed": ("squash_actions=true",),
    "sde": ("use_sde=true", "sde_sample_freq=3"),
    "state_std": ("network.log_std=state",),
}
NETWORKS = {
    "mlp": (),
    "norm_separate": ("network.layer_norm=true", "network.shared=false"),
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
TINY = (
    "env.id=zoo_envs:Zoo-v0", "preset=none", "n_envs=2", "n_steps=8", "batch_size=16", "n_epochs=1",
    "total_timesteps=48", "network.hidden_sizes=[8]", "network.memory_size=8", "network.sequence_length=3",
    "checkpoint.every=1", "eval.episodes=3", "learning_rate=0.01",
)  # fmt: skip


def allowed(pair):
    return pair.get("mask", "none") == "none" or pair.get("action", MASKABLE[0]) in MASKABLE


def covering_array(factors, allowed):
    """Settings that cover every allowed pair of levels: greedily, each the best of the pairs left over."""
    pairs = [
        {one: level, other: further}
        for one, other in itertools.combinations(factors, 2)
        for level, further in itertools.product(factors[one], factors[other])
    ]
    left = [pair for pair in pairs if allowed(pair)]

    def gain(setting):
        return sum(pair.items() <= setting.items() for pair in left)

    while left:
        setting = dict(left[0])
        for name in factors:
            if name not in setting:
                options = [{**setting, name: level} for level in factors[name]]
                # the levels that stand in most pairs left over, so that none is left to the end
                setting = max(
                    filter(allowed, options),
                    key=lambda option: (gain(option), sum(option[name] == pair.get(name) for pair in left)),
                )
        left = [pair for pair in left if not pair.items() <= setting.items()]
        yield setting


def ordered(settings):
    """The settings, those first whose levels have been seen least."""
    settings = list(settings)
    seen = {(name, level): 0 for name, levels in FACTORS.items() for level in levels}
    while settings:
        best = max(settings, key=lambda setting: sum(4.0 ** -seen[item] for item in setting.items()))
        settings.remove(best)
        for item in best.items():
            seen[item] += 1
        yield best


COVERING = list(covering_array(FACTORS, allowed))
SETTINGS = [
    setting
    for compiled in FACTORS["compile"]
    for setting in ordered(setting for setting in COVERING if setting["compile"] == compiled)
]
QUICK = 11  # that the fast suite runs; they have every level but the compiler's, which takes long


def command_line(setting):
    action = "box" if setting["action"] in BOXES else setting["action"]
    key = {"dict": "camera", "tuple": "1.a"}.get(setting["observation"], "observation")
    if setting["mask"] == "key" and key == "observation":
        key = "seen"
    if setting["observation"] == "tuple" and setting["mask"] != "none":
        key = {"info": "observation", "key": "seen"}[setting["mask"]] + ".1.a"
    own = (f"+network.encoders.{key}={{name: zoo_envs.OwnEncoder, size: 5}}",)
    return (
        *TINY,
        INTERRUPTIBLE,
        f"+env.kwargs.observation={setting['observation']}",
        f"+env.kwargs.action={action}",
        f"+env.kwargs.mask={setting['mask']}",
        *BOXES.get(setting["action"], ()),
        *(own if setting["network"] == "own" else NETWORKS[setting["network"]]),
        f"network.memory={setting['memory']}",
        *VALUES[setting["values"]],
        f"vectorization={setting['backend']}",
        f"compile={setting['compile']}",
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
            assert {setting[name] for setting in SETTINGS[:QUICK]} == set(levels), name


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(setting, id="-".join(setting.values()), marks=[pytest.mark.slow] if i >= QUICK else [])
        for i, setting in enumerate(SETTINGS)
    ],
)
def test_trains_resumes_evaluates_and_exports(ppo_train, tmp_path, monkeypatch, capfd, interrupt, setting):
    arguments = command_line(setting)

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
