"""Every benchmark runs, on its smallest size: what it imports and calls is there."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SIZE = ("n_envs=1", "n_steps=32", "batch_size=32", "n_epochs=1", "total_timesteps=96")
SMALL = ("env=CartPole-v1", "preset=none", *SIZE)
EAGER = (*SMALL, "compile=false")
ATARI = ("env=ALE/Pong-v5", *SIZE, "n_steps=8", "batch_size=8", "total_timesteps=24", "compile=false")

# Of each benchmark what is typed, and what its output has to have in it.
RUNS = {
    "cold.py": ((*SMALL, "--repeats", "1"), "| first update | "),
    "difference.py": (("peer.txt", "one.json", "two.json"), "difference -1.0 [-3.0, 1.0]"),
    "images.py": (("--no-peer", *ATARI), "limit, channels last: training has, %"),
    "intervals.py": (("--repeats", "2", "--truth", "1000"), "| normal | – | – |"),
    "micro.py": (
        ("--rounds", "1", "--calls", "1", *SMALL, "--batch-sizes", "32"), '{"shared, batch 32": {"compiled"',
    ),
    "peers.py": (("sb3", "config.json"), '"steps": 96'),
    "returns.py": ((*SMALL, "eval.episodes=1"), '{"mean": '),
    "scaling.py": (
        ("--axes", "actions", "cores", "--cores", "1", "--points", "1", "--iterations", "1", "--repeats", "1",
         "--plot", "pictures", "--set", "compile=false"),
        "| 1 | ",
    ),
    "split.py": (EAGER, "SyncVectorEnv"),
    "start.py": (("--repeats", "1", "--jobs", "2"), "| a sweep's job, to its first step | "),
    "throughput.py": (("CartPole-v1", "--repeats", "1", "--no-split", "--set", *EAGER[1:]), "ours is"),
}  # fmt: skip
FAST = ("difference.py", "peers.py", "split.py")
MODULES = ("timed_env.py", "toy_env.py")  # environments that start.py and scaling.py train on

if not FOLDER.is_dir():
    pytest.skip("benchmarks/ is not part of the source archive", allow_module_level=True)


@pytest.fixture
def benchmark(tmp_path, monkeypatch, capfd):
    """A function that runs a benchmark with arguments, and gives what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capfd.readouterr()
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        return capfd.readouterr().out

    return call


@pytest.fixture
def measured(tmp_path):
    """What difference.py and peers.py read."""
    from ppo_cli.config.compose import load
    from ppo_cli.config.convert import to_dict

    (tmp_path / "peer.txt").write_text('{"mean": 3.0}\nnoise\n{"mean": 5.0}\n')
    for name, mean in (("one", 2.0), ("two", 4.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"mean": mean}))
    config = load(*EAGER)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))


def test_no_benchmark_is_left_out():
    assert {path.name for path in FOLDER.glob("*.py")} == {*RUNS, *MODULES}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in RUNS]
)
def test_a_benchmark_runs_on_its_smallest_size(benchmark, measured, name):
    if name in ("difference.py", "intervals.py"):
        pytest.importorskip("scipy")
    if name in ("peers.py", "returns.py", "throughput.py"):
        pytest.importorskip("stable_baselines3")
    if name == "images.py":
        pytest.importorskip("ale_py")
    arguments, words = RUNS[name]
    assert words in benchmark(name, *arguments)


def test_a_peer_that_is_not_installed_is_left_out_and_said(benchmark, monkeypatch, capfd):
    import throughput

    monkeypatch.setattr(throughput, "find_spec", lambda name: None if name == "sbx" else object())
    assert throughput.installed(["sb3", "sbx"]) == ["sb3"]
    assert capfd.readouterr().out == "sbx is left out: no sbx; pip install 'ppo-cli[bench]'\n"


def test_without_the_peers_a_benchmark_of_them_says_how_to_install_them(tmp_path):
    program = (
        "import sys, runpy; sys.modules['stable_baselines3'] = None; sys.argv = ['peers.py', 'sb3', 'x']\n"
        f"runpy.run_path({str(FOLDER / 'peers.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("is not installed: pip install 'ppo-cli[bench]'\n")
    assert done.stderr.count("\n") == 1
