"""Every benchmark runs, on its smallest size: what it imports and calls is there."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
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
    "processes.py": (
        ("1", "2", "--repeats", "1", "--predict", "8", "--wire", "30", "1000",
         "--set", *EAGER[:-1], "n_envs=2", "shards=2", "compile=false"),
        "A shard a process, latency 30 µs, bandwidth 1,000 MB/s:",
    ),
    "peers/run_sb3.py": (("sb3", "config.json"), '"steps": 96'),
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
FAST = ("difference.py", "peers/run_sb3.py", "split.py")
ELSEWHERE = ("results.py",)  # tests/test_results.py
# Environments that start.py and scaling.py train on, and what processes.py predicts by.
MODULES = ("cost_model.py", "timed_env.py", "toy_env.py")

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
def benchmarks(monkeypatch):
    """Lets a test import the benchmarks."""
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def config():
    """A small config as a peer's runner reads it."""
    from ppo_cli.config.compose import load
    from ppo_cli.config.convert import to_dict

    return to_dict(load(*SMALL))


@pytest.fixture
def measured(tmp_path, config):
    """What difference.py and run_sb3.py read."""
    (tmp_path / "peer.txt").write_text('{"mean": 3.0}\nnoise\n{"mean": 5.0}\n')
    for name, mean in (("one", 2.0), ("two", 4.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"mean": mean}))
    (tmp_path / "config.json").write_text(json.dumps(config))


def test_no_benchmark_is_left_out():
    scripts = {path.name for path in FOLDER.glob("*.py")}
    assert scripts | {"peers/run_sb3.py"} == {*RUNS, *ELSEWHERE, *MODULES}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in RUNS]
)
def test_a_benchmark_runs_on_its_smallest_size(benchmark, measured, name):
    if name in ("difference.py", "intervals.py"):
        pytest.importorskip("scipy")
    if name in ("peers/run_sb3.py", "returns.py", "throughput.py"):
        pytest.importorskip("stable_baselines3")
    if name == "images.py":
        pytest.importorskip("ale_py")
    arguments, words = RUNS[name]
    assert words in benchmark(name, *arguments)


def test_the_model_of_processes_tells_what_it_was_measured_by_and_where_more_of_them_stop_paying(benchmarks):
    from cost_model import Loop, Update, Wire, efficiency, exchange, iteration, speed_up
    from processes import wire_of

    wire = Wire(latency=1e-4, bandwidth=1e9)
    measured = {numbers: exchange(wire, numbers, 2, 2) for numbers in (10, 1_700_000)}
    assert wire_of(measured, 2) == pytest.approx(wire)
    update = Update(numbers=1_000_000, call=1e-3, row=1e-4, step=4.9e-3, shard=1e-4)
    loop = Loop(steps=1024, collect=1.0, minibatches=10, batch_size=256)
    alone = 1.0 + 10 * (1e-3 + 256e-4 + 5e-3)
    assert iteration(loop, update, wire, 1, 1) == pytest.approx(alone)
    assert iteration(loop, update, wire, 2, 1) == pytest.approx(alone + 10 * (1e-3 + 1e-4))  # of each part
    two = 0.5 + 10 * (1e-3 + 128e-4 + 5e-3 + 1e-4 + 1e-4 + 4e6 / 1e9) + 8e-4
    assert iteration(loop, update, wire, 2, 2) == pytest.approx(two)
    assert exchange(wire, 1_000_000, 64, 64) == pytest.approx(2 * 63e-4 + 4e6 * 2 * 63 / 64 / 1e9)  # slices
    assert exchange(wire, 100, 64, 64) == pytest.approx(63e-4 + 4 * 100 * 63 / 1e9)  # whole vectors
    rates = [speed_up(loop, update, wire, 2**n) for n in range(10)]
    assert rates[0] == 1 < rates[1] < max(rates) > rates[-1]
    shares = [efficiency(loop, update, wire, 2**n) for n in range(10)]
    assert shares == sorted(shares, reverse=True)
    assert shares[1] == pytest.approx(alone / (alone + 10 * (1e-4 + 1e-4 + 4e6 / 1e9) + 8e-4))


def test_every_runner_is_in_the_table_of_peers(benchmarks):
    from peers.table import PEERS

    assert {f"{peer.module}.py" for peer in PEERS.values()} == {
        path.name for path in FOLDER.glob("peers/run_*.py")
    }


def test_every_peer_takes_or_lacks_each_knob_that_is_compared(benchmarks, config):
    from peers.peer import COMPARED, lookup
    from peers.table import PEERS

    for knob in COMPARED:
        lookup(config, knob)
    for name, peer in PEERS.items():
        assert sorted([*peer.names, *peer.derived, *peer.lacks]) == sorted(COMPARED), name


def test_every_runner_passes_the_settings_of_its_own_row(benchmarks):
    from peers.table import PEERS

    for name, peer in PEERS.items():
        text = (FOLDER / "peers" / f"{peer.module}.py").read_text()
        assert f'PEERS["{name}"].settings(config)' in text or "PEERS[peer].settings(config)" in text, name


def test_a_peer_gets_our_values_under_its_own_names_and_says_which_it_cannot_have(benchmarks, config):
    from peers.table import PEERS

    settings = {**config, "gamma": 0.9, "clip_ratio": 0.3, "target_kl": 0.02}
    taken = PEERS["tianshou"].settings(settings)
    assert (taken["gamma"], taken["eps_clip"]) == (0.9, 0.3)
    assert "target_kl" not in taken
    assert PEERS["tianshou"].unlike(settings) == {"network.shared": False, "target_kl": None}
    settings["network"]["shared"], settings["target_kl"] = False, None
    assert PEERS["tianshou"].unlike(settings) == {}


def test_a_peer_that_is_not_installed_is_left_out_and_said(benchmarks, monkeypatch, capfd, tmp_path):
    import throughput
    from peers import environments

    monkeypatch.setattr(environments, "find_spec", lambda name: None if name == "sbx" else object())
    assert throughput.installed(["sb3", "sbx", "skrl"], tmp_path) == {"sb3": Path(sys.executable)}
    assert capfd.readouterr().out.splitlines() == [
        "sbx is left out: no sbx; pip install 'ppo-cli[bench]'",
        f"skrl is left out: not in {tmp_path / 'skrl'}; python benchmarks/throughput.py --install skrl",
    ]


def test_a_peer_that_fails_is_left_out_and_the_others_go_on(benchmarks, monkeypatch, capfd):
    import throughput
    from peers.environments import PeerError

    def run_side(side, peers, overrides, seed, cold):
        if side == "skrl" and seed == 1:
            raise PeerError("no continuous actions")
        wall = {"ours": 10.0, "sb3": 40.0, "skrl": 20.0}[side] + seed
        return {"wall": wall, "rate": 960 / wall, "steady": 1000 / wall}

    monkeypatch.setattr(throughput, "run_side", run_side)
    monkeypatch.setattr(throughput, "warm_up", lambda *_: None)
    peers = dict.fromkeys(("sb3", "skrl"), Path(sys.executable))
    results = throughput.measure(list(SMALL), peers, repeats=2, cold=False)
    assert {side: len(rows) for side, rows in results.items()} == {"ours": 2, "sb3": 2}
    assert "CartPole-v1 skrl is left out: no continuous actions\n" in capfd.readouterr().out
    assert throughput.ratios(results, "sb3", "rate") == pytest.approx((41 / 11, (4 + 41 / 11) / 2, 4))
    ours, sb3 = throughput.table("CartPole-v1", results, throughput.load(*SMALL)).splitlines()[2:]
    assert ours == "| ppo-cli | 92 (87–96) | 95 (91–100) |  |  |  |"
    assert "| 24 (23–24) | 25 (24–25) | 3.86 × (3.73–4.00) | 3.86 × (3.73–4.00) |" in sb3


def test_the_last_line_of_a_peer_that_ends_badly_is_its_reason(benchmarks, monkeypatch, tmp_path):
    from peers import environments
    from peers.table import PEERS

    monkeypatch.setitem(PEERS, "sb3", replace(PEERS["sb3"], module="run_nothing"))
    with pytest.raises(environments.PeerError, match=r"No module named peers.run_nothing$"):
        environments.run_peer("sb3", Path(sys.executable), tmp_path / "config.json", tmp_path, {})


def test_a_file_that_is_not_the_pinned_one_is_refused(benchmarks, monkeypatch, tmp_path):
    from peers import environments

    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(environments.venv, "create", lambda *_, **__: (tmp_path / "cleanrl").mkdir())
    monkeypatch.setattr(environments.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(environments, "fetch", lambda _, path: path.write_text("another script"))
    with pytest.raises(environments.PeerError, match=r"ppo\.py is not the file that was measured"):
        environments.install("cleanrl", tmp_path)


def test_without_the_peers_a_benchmark_of_them_says_how_to_install_them(tmp_path):
    program = (
        "import sys, runpy; sys.modules['stable_baselines3'] = None; sys.argv = ['run_sb3', 'sb3', 'x']\n"
        f"sys.path.insert(0, {str(FOLDER)!r}); runpy.run_module('peers.run_sb3', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("is not installed: pip install 'ppo-cli[bench]'\n")
    assert done.stderr.count("\n") == 1
