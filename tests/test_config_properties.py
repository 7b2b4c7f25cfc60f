"""Generated configs: each trains two iterations, or ends in one line with status 2 and leaves nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_cli.config.schema import KNOBS

PROGRAM = "from ppo_cli.cli.train import main; main()"
ENVS = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "FrozenLake-v1", "Blackjack-v1", "Nothing-v0", "a b"]
SMALL = ("n_envs=2", "n_steps=16", "total_timesteps=64", "n_epochs=1", "eval.episodes=1", "eval.max_steps=30",
         "compile=false", "vectorization=sync")  # fmt: skip

numbers = st.one_of(
    st.floats(0.001, 1.0).map(lambda x: f"{x:.4g}"),
    st.sampled_from(["0", "1", "-1", "0.5", "2", "1e-3", "1e30", "inf", "nan", "null", "true", "auto", ""]),
)
integers = st.one_of(st.integers(-1, 40).map(str), st.sampled_from(["1.5", "2e1", "null", "auto", "1e400"]))
switches = st.sampled_from(["true", "false", "yes", "2", "null", "maybe"])
TYPED = {
    **dict.fromkeys(
        ["learning_rate", "gamma", "gae_lambda", "clip_ratio", "vf_clip_ratio", "ent_coef"], numbers
    ),
    **dict.fromkeys(["vf_coef", "max_grad_norm", "target_kl", "normalize.clip", "env.timeout"], numbers),
    **dict.fromkeys([f"anneal.{knob}.final" for knob, known in KNOBS.items() if known.annealed], numbers),
    **dict.fromkeys(
        ["batch_size", "sde_sample_freq", "checkpoint.every", "checkpoint.keep", "seed"], integers
    ),
    **dict.fromkeys(["normalize_advantage", "use_sde", "network.shared", "network.ortho_init"], switches),
    **dict.fromkeys(["normalize.observations", "normalize.rewards", "eval.deterministic"], switches),
    **{
        key: st.sampled_from([*known.choices, "wrong"])
        for key, known in KNOBS.items()
        if known.choices and key != "vectorization"
    },
    "network.hidden_sizes": st.sampled_from(["[8]", "[]", "[8,8]", "[0]", "[-1]", "8", "[a]", "null"]),
    "network.log_std_init": numbers,
    "device": st.sampled_from(["auto", "cpu", "cuda:7", "tpu"]),
    "clip_rato": numbers,
    "network": st.sampled_from(["mlp", "mlp_separate", "mlp_sde", "transformer"]),
}
overrides = st.dictionaries(st.sampled_from(sorted(TYPED)), st.none(), max_size=4).flatmap(
    lambda keys: st.tuples(*(TYPED[key].map(lambda value, key=key: f"{key}={value}") for key in keys))
)
commands = st.tuples(st.sampled_from(ENVS).map(lambda name: f"env={name}"), overrides)


def check(status, err, left, command):
    """Holds an outcome against what is promised."""
    assert "Traceback" not in err, (command, err)
    assert status in (0, 1, 2), (command, status, err)
    if status:
        assert err.startswith("ppo-train: "), (command, err)
        assert err.count("\n") == 1, (command, err)
    if status == 1:  # a legal config on which training diverges
        assert "lower learning_rate" in err, (command, err)
    if status == 2:
        assert not left, (command, left)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands)
def test_generated_configs_in_this_process(ppo_train, tmp_path, command):
    env, typed = command
    before = set(tmp_path.rglob("*"))
    outcome = ppo_train(env, *SMALL, *typed)
    check(outcome.status, outcome.err, set(tmp_path.rglob("*")) - before, command)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands)
def test_generated_configs_in_processes(tmp_path, command):
    env, typed = command
    before = set(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, env, *SMALL, *typed],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    check(done.returncode, done.stderr, set(tmp_path.rglob("*")) - before, command)


def test_help_and_errors_do_not_import_pytorch_and_only_an_id_needs_gymnasium(tmp_path):
    program = (
        "import sys\nfrom ppo_cli.cli.train import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "finally: print(*(name for name in ('gymnasium', 'numpy', 'rich', 'torch', 'ppo_cli.sweeps.plan')"
        " if name in sys.modules))"
    )
    for arguments in (["--help"], ["clip_rato=0.1"], ["gamma=2"], ["env=CartPol-v1"], ["resume=nowhere"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        needed = ["gymnasium numpy"] if arguments == ["env=CartPol-v1"] else [""]
        assert done.stdout.splitlines()[-1:] == needed, arguments
    assert list(Path(tmp_path).iterdir()) == []
