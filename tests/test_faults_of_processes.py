"""Processes of a run that are killed, hang or fail: all end, and one line says why."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from test_shards import TINY, assert_same, learnt

from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.runs.system import status_of
from ppo_cli.runs.talk import Ending

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
TESTS = Path(__file__).parent
LONG = (*TINY, "total_timesteps=1e6", "checkpoint.every=5", "checkpoint.keep=2")
TRAIN = ("-c", "import sys; from ppo_cli.cli.entry import train; train()")
TORCHRUN = ("-m", "torch.distributed.run")
CUT = "cut/checkpoints/*[1-9]*.pt"
END = 60  # seconds until all has ended that is ended: half of it where nothing else runs
WHOLE = 400  # until what goes well has


def variables(**more):
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


class Started:
    """Programs that belong together, in a folder, and all that they have started."""

    def __init__(self, folder):
        self.folder, self.tag, self.programs = folder, f"STARTED={uuid.uuid4().hex}", []

    def add(self, *words, **more):
        name, _, tag = self.tag.partition("=")
        number = len(self.programs)
        out, err = (open(self.folder / f"{kind}{number}", "w") for kind in ("out", "err"))  # noqa: SIM115
        with out, err:
            self.programs.append(
                subprocess.Popen(
                    [sys.executable, *words], cwd=self.folder, env=variables(**{name: tag}, **more),
                    stdout=out, stderr=err, start_new_session=True,
                )
            )  # fmt: skip

    def by_hand(self, processes, *typed):
        port = str(random.randint(20_000, 32_000))
        meeting = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in range(processes):
            self.add(*TRAIN, *(typed if rank == 0 else ()), RANK=str(rank), **meeting)

    def all(self):
        """The numbers of all processes that still live."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_own(pid)]

    def _is_own(self, pid):
        try:
            return self.tag.encode() in Path(f"/proc/{pid}/environ").read_bytes() and status_of(pid)[0] != "Z"
        except OSError:
            return False

    def rank(self, number):
        """The process of that number, which a program is or has started."""
        tops = [program.pid for program in self.programs]
        for pid in self.all():
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            parent = status_of(pid)[1]
            if f"RANK={number}".encode() in words and (pid in tops or parent in tops):
                return pid
        raise AssertionError(f"no process {number}")

    def wait_for(self, pattern, seconds=WHOLE):
        end = time.monotonic() + seconds
        while not list(self.folder.glob(pattern)):
            assert time.monotonic() < end, pattern
            time.sleep(0.1)

    def end(self, seconds=END):
        """Statuses, and the lines on standard error of ours, once nothing is left."""
        end = time.monotonic() + seconds
        while self.all() and time.monotonic() < end:
            time.sleep(0.1)
        assert not self.all()
        said = [(self.folder / f"err{i}").read_text().splitlines() for i in range(len(self.programs))]
        lines = [
            line for each in said for line in each if line.startswith(("ppo-train: ", "python -m ppo_cli"))
        ]
        return [program.wait() for program in self.programs], lines


@pytest.fixture
def started(tmp_path):
    everything = Started(tmp_path)
    yield everything
    for pid in everything.all():
        os.kill(pid, signal.SIGKILL)


def test_an_ending_is_said_by_the_first_process_unless_told_otherwise():
    assert Ending("gone") == ("gone", 1, 0)


def test_linux_says_what_a_process_does():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert status_of(process.pid)[0] == "T"
        process.send_signal(signal.SIGCONT)
        process.communicate(b"\n")
    assert status_of(process.pid)[0] == ""


def test_processes_are_told_where_to_meet(ppo_train, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    found = ppo_train(*TINY)
    assert found.status == 2
    assert "WORLD_SIZE=2 without MASTER_ADDR" in found.err


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, "was killed, or crashed"), (signal.SIGSTOP, "stands still for 12 seconds")],
)
@pytest.mark.parametrize("start", ["hand", "launcher", "torchrun"])
def test_a_process_that_is_gone_ends_all_and_is_named(start, number, said, rank, started):
    if start == "hand":
        started.by_hand(2, *LONG, "hydra.run.dir=cut")
    elif start == "launcher":
        started.add(*TRAIN, *LONG, "hydra.run.dir=cut", "processes=2")
    else:
        started.add(*TORCHRUN, "--nproc_per_node=2", "-m", "ppo_cli", *LONG, "hydra.run.dir=cut")
    started.wait_for(CUT)
    os.kill(started.rank(rank), number)
    statuses, lines = started.end()
    assert all(statuses)
    (line,) = lines
    assert f"process {rank} on {os.uname().nodename} {said}; `ppo-train resume='cut'` goes on" in line
    assert load_checkpoint(started.folder / "cut" / "checkpoints" / "last.pt")["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGKILL, "was killed"), (signal.SIGSTOP, "stands still for 12 seconds")]
)
def test_a_process_that_is_gone_before_it_has_a_sidecar_ends_all(number, said, rank, started):
    started.by_hand(2, *LONG)
    victim = started.rank(rank)
    while not any(status_of(pid)[1] == victim for pid in started.all()):  # what guards it while it imports
        time.sleep(0.01)
    os.kill(victim, number)
    statuses, lines = started.end(2 * END)
    assert all(statuses)
    (line,) = lines
    assert f"process {rank} on {os.uname().nodename} {said}" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("raise", "environment 2 raised ArithmeticError: cursed (lonely_envs.py, line"),
        ("hang", "a step of environment 2 took more than env.timeout=2 s"),
        ("memory", "environment 2 raised MemoryError: no more"),
    ],
)
def test_an_environment_of_any_process_that_goes_wrong_ends_all_with_a_line(mode, said, started):
    typed = ["env.id=lonely_envs:Lonely-v0", f"+env.kwargs.mode={mode}", "env.timeout=2", *LONG[1:]]
    started.by_hand(2, *typed, "hydra.run.dir=cut", "checkpoint.every=1")
    started.wait_for("cut")
    statuses, lines = started.end(2 * END)
    assert all(statuses)
    (line,) = lines
    assert said in line
    assert f"it was process 1 on {os.uname().nodename}; `ppo-train resume='cut'`" in line
    assert "Traceback" not in (started.folder / "err0").read_text() + (started.folder / "err1").read_text()


@pytest.mark.slow
def test_the_status_of_a_fault_is_1_whatever_that_of_who_left(started):
    typed = ["env.id=lonely_envs:Lonely-v0", "+env.kwargs.mode=leave", *LONG[1:]]
    started.add(*TRAIN, *typed, "hydra.run.dir=cut", "checkpoint.every=1", "processes=2")
    (status,), (line,) = started.end()
    assert status == 1
    assert f"process 1 on {os.uname().nodename} was killed, or crashed" in line


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("whom", ["launcher", 0, 1])
def test_a_signal_to_any_process_or_the_launcher_ends_the_iteration_saved(number, whom, started):
    started.add(*TRAIN, *LONG, "hydra.run.dir=cut", "processes=2")
    started.wait_for(CUT)
    os.kill(started.programs[0].pid if whom == "launcher" else started.rank(whom), number)
    (status,), (line,) = started.end()
    assert status == 128 + number
    assert line == f"ppo-train: {number.name}: `ppo-train resume='cut'` goes on from the last checkpoint"


@pytest.mark.slow
def test_a_run_that_was_finished_already_keeps_no_process_waiting(started):
    started.by_hand(2, *TINY, "hydra.run.dir=cut")
    assert started.end(WHOLE)[0] == [0, 0]
    started.by_hand(2, "resume=cut")
    assert started.end(WHOLE)[0] == [0, 0, 0, 0]


@pytest.mark.slow
def test_torchrun_goes_on_by_itself_with_the_same_end(started):
    typed = (*TINY, "total_timesteps=4800", "checkpoint.every=5", "resume=auto")
    many = (*TORCHRUN, "--nproc_per_node=2", "--max-restarts=2", "-m", "ppo_cli", *typed, "hydra.run.dir=cut")
    started.add(*many)
    started.wait_for(CUT)
    os.kill(started.rank(1), signal.SIGKILL)
    (status,), (line,) = started.end(WHOLE)
    assert status == 0
    assert "process 1 on" in line
    assert "going on from step" in (started.folder / "out0").read_text()
    started.add(*TRAIN, *typed, "hydra.run.dir=whole")
    assert started.end(WHOLE)[0] == [0, 0]
    assert_same(learnt(started.folder / "whole"), learnt(started.folder / "cut"))


KINDS = {
    "compiled": ("n_envs=8", "n_steps=32", "batch_size=128", "total_timesteps=51200", "compile=true"),
    "a masked LSTM": (
        "env=Taxi-v3", "network.memory=lstm", "env.action_mask=true", "n_steps=32", "total_timesteps=7680",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_processes_killed_again_and_again_come_to_the_same_end(kind, started):
    chosen = {word.partition("=")[0]: word for word in (*TINY, *kind, "checkpoint.every=5")}
    started.by_hand(1, *chosen.values(), "hydra.run.dir=whole")
    assert started.end(WHOLE)[0] == [0]
    draw = random.Random(0)
    typed, processes = (*chosen.values(), "hydra.run.dir=cut"), 4
    for _ in range(4):
        before = set(started.folder.glob(CUT))
        started.by_hand(processes, *typed)
        end = time.monotonic() + draw.uniform(0, 12)
        while time.monotonic() < end or not (started.folder / "cut/checkpoints/last.pt").exists():
            if set(started.folder.glob(CUT)) - before:
                break
            time.sleep(0.05)
        os.kill(started.rank(draw.randrange(processes)), signal.SIGKILL)
        started.end()
        typed, processes = ("resume=cut",), draw.choice([1, 2, 4])
        started.programs.clear()
    started.by_hand(processes, *typed)
    assert started.end(WHOLE)[0] == [0] * processes
    assert_same(learnt(started.folder / "whole"), learnt(started.folder / "cut"))


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts():
    """Two hosts with a network between them: a namespace, an interface and an address each."""
    names = [f"ppo{os.getpid() % 10_000}{side}" for side in "ab"]
    if not shutil.which("ip") or os.geteuid():
        pytest.skip("network namespaces take `ip` and root")
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr}")
    a, b = names
    ip("link", "add", "one", "netns", a, "type", "veth", "peer", "name", "two", "netns", b)
    found = []
    for number, (name, link) in enumerate(zip(names, ("one", "two"), strict=True), 1):
        address = f"10.77.0.{number}"
        ip("-n", name, "address", "add", f"{address}/24", "dev", link)
        for each in ("lo", link):
            ip("-n", name, "link", "set", each, "up")
        found.append((name, link, address))
    yield found
    for name in names:
        ip("netns", "delete", name)


def torchrun_on(started, hosts, *typed):
    """Has torchrun start a process on each of two hosts."""
    for number, (name, link, address) in enumerate(hosts):
        inside = "import os, sys; os.execvp('ip', ['ip', 'netns', 'exec', *sys.argv[1:]])"
        conf = f"is_host={1 - number},read_timeout=10"
        started.add(
            "-c", inside, name, sys.executable, *TORCHRUN, "--nnodes=2", "--nproc_per_node=1",
            "--rdzv-backend=c10d", f"--rdzv-endpoint={hosts[0][2]}:29500", f"--local-addr={address}",
            f"--rdzv-conf={conf}", "-m", "ppo_cli", *typed, GLOO_SOCKET_IFNAME=link,
        )  # fmt: skip


@pytest.mark.slow
def test_a_host_that_is_cut_off_ends_the_run_on_both_and_it_goes_on_when_it_is_back(hosts, started):
    typed = (*TINY, "total_timesteps=19200", "checkpoint.every=5", "resume=auto")
    torchrun_on(started, hosts, *typed, "hydra.run.dir=cut")
    started.wait_for(CUT)
    name, link, _ = hosts[1]
    ip("-n", name, "link", "set", link, "down")
    statuses, lines = started.end(2 * END)
    assert all(statuses)
    first, second = lines
    host = os.uname().nodename
    assert f"process 1 on {host} gives no sign of life for 12 seconds" in first
    assert f"process 1 on {host} can't reach process 0 on {host}" in second
    ip("-n", name, "link", "set", link, "up")
    torchrun_on(started, hosts, *typed, "hydra.run.dir=cut")
    assert started.end(WHOLE)[0][2:] == [0, 0]
    started.add(*TRAIN, *typed, "hydra.run.dir=whole")
    assert started.end(WHOLE)[0][-1] == 0
    assert_same(learnt(started.folder / "whole"), learnt(started.folder / "cut"))
