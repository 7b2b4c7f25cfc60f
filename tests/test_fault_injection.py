"""Whatever fails in writing a run's files, and wherever it is killed, it goes on to the same bits.

A C shim (faults/shim.c) counts what a run does to the files of its folder and lets one operation fail, or
kills the run there. All operations of a run are tried in the slow suite, a sample of them in the fast one.
"""

import dataclasses
import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from run_ends import different_checkpoints, different_ends, files

from ppo_cli.runs.checkpoint import CheckpointError, load_checkpoint

HERE = Path(__file__).parent / "faults"
RUN = (  # 3 iterations, so that checkpoints are removed
    "env=CartPole-v1", "n_envs=2", "n_steps=32", "total_timesteps=192", "batch_size=64", "n_epochs=1",
    "compile=false", "vectorization=sync", "eval.episodes=2", "eval.every=1", "checkpoint.every=1",
    "checkpoint.keep=2", "network.hidden_sizes=[8]",
)  # fmt: skip
MODES = ("count", "kill", "torn", "short", "once", "full", "broken", "raise")  # as the shim numbers them
GIVEN_UP = "goes on without this log"  # train.log, which can't be written; nothing depends on it
NEED_SPACE = ("create", "link", "mkdir", "write")  # the operations that a full disk refuses
ERRNO = {"once": errno.EIO, "full": errno.ENOSPC, "broken": errno.EIO}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens at an operation, counted from 1.

    Attributes:
        number: an errno, or a signal.
    """

    mode: str
    at: int
    number: int = 0


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a command line did.

    Attributes:
        operations: on the files of the run's folder, each its name and path.
        hit: the operation that the fault met, or None.
        resumes: whether it was one that goes on with a run, so that it is known how to.
    """

    status: int
    out: str
    err: str
    operations: list[str]
    hit: str | None
    resumes: bool


class Commands:
    """Runs `ppo-train` command lines, with faults."""

    def __init__(self, shim: Path, folder: Path) -> None:
        """Starts the process of which each command line is a fork."""
        environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, sys.path)])
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), *RUN, "hydra.run.dir=warm"],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert json.loads(self._server.stdout.readline()) == {"status": 0}

    def __call__(
        self,
        cwd: Path,
        *arguments: str,
        fault: Fault | None = None,
        signal: int = 0,
        after: float = 0.0,
        longest_file: int = 0,
    ) -> Reply:
        """Runs one in a folder; what it does in the folder ``run`` there are the operations.

        Args:
            cwd: the folder.
            arguments: of the command line.
            fault: what happens at one of the operations.
            signal: is sent to it ``after`` so many seconds; 0 for none.
            after: see there.
            longest_file: bytes that a file may have; 0 for any number.
        """
        fault = fault or Fault("count", 0)
        request = {
            "cwd": str(cwd), "arguments": arguments, "folder": str(cwd / "run"),
            "mode": MODES.index(fault.mode), "at": fault.at, "number": fault.number,
            "signal": signal, "after": after, "longest_file": longest_file,
        }  # fmt: skip
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        reply = json.loads(self._server.stdout.readline())
        lines = reply["log"].splitlines()
        hit = next((line[2:] for line in lines if line.startswith("! ")), None)
        operations = [line for line in lines if not line.startswith("! ")]
        resumes = any(argument.startswith("resume=") for argument in arguments)
        return Reply(reply["status"], reply["out"], reply["err"], operations, hit, resumes)

    def close(self) -> None:
        """Ends it."""
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


@dataclasses.dataclass(frozen=True)
class Situation:
    """A command line, where it is typed, and what it leads to when nothing fails.

    Attributes:
        base: holds the folder ``run`` as it is before, or nothing.
        whole: the run as it is afterwards.
        operations: what the command line does to the run's files.
    """

    command: tuple[str, ...]
    base: Path
    whole: Path
    operations: list[str]

    def going_on(self, folder: Path) -> tuple[str, ...]:
        """The command line that goes on after a fault."""
        if "resume=run" in self.command:
            return self.command
        begun = (folder / "run" / "config.yaml").exists()
        return ("resume=run",) if begun else (*self.command, "resume=auto")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """A function that runs `ppo-train` with a fault."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("LD_PRELOAD is Linux's, and the shim needs a C compiler")
    folder = tmp_path_factory.mktemp("faults").resolve()
    shim = folder / "shim.so"
    build = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", shim, HERE / "shim.c", "-ldl"]
    subprocess.run(build, check=True)
    running = Commands(shim, folder)
    yield running
    running.close()


def made(commands, name, command, before=None):
    """A situation: where ``before`` leads to, and from there the command line."""
    base, whole = commands.folder / name / "base", commands.folder / name / "whole"
    base.mkdir(parents=True)
    if before is not None:
        before(base)
    shutil.copytree(base, whole)
    ended = commands(whole, *command)
    assert (ended.status, ended.err) == (0, "")
    return Situation(tuple(command), base, whole / "run", ended.operations)


@pytest.fixture(scope="module")
def situations(commands):
    """A run from its beginning, one that was killed, one that is finished and extended, and one whose
    metrics.csv gets columns on the way.
    """
    begin = (*RUN, "hydra.run.dir=run")
    fresh = made(commands, "fresh", begin)
    saving = next(
        i for i, each in enumerate(fresh.operations, 1) if each.startswith("write /checkpoints/.128.pt")
    )

    def killed(folder):
        assert commands(folder, *begin, fault=Fault("kill", saving)).status == -signal.SIGKILL

    def finished(folder):
        assert commands(folder, *begin).status == 0

    resumed = made(commands, "resumed", ("resume=run",), killed)
    assert different_ends(fresh.whole, resumed.whole) == []
    extended = made(commands, "extended", ("resume=run", "total_timesteps=256"), finished)
    wider = made(commands, "wider", (*RUN, "env.id=info_envs:Parts-v0", "+env.kwargs.shortest=40", begin[-1]))
    assert "rename /metrics.csv" in " ".join(wider.operations)
    return {"fresh": fresh, "resumed": resumed, "extended": extended, "wider": wider}


def faults(operations: Sequence[str], modes: Iterable[str]) -> list[Fault]:
    """Every fault of these kinds that these operations can meet."""
    met = {"torn": ("write",), "short": ("write",), "full": NEED_SPACE}
    return [
        Fault(mode, at, SIGNALS[at % len(SIGNALS)] if mode == "raise" else ERRNO.get(mode, 0))
        for (at, operation), mode in itertools.product(enumerate(operations, 1), modes)
        if mode not in met or operation.split()[0] in met[mode]
    ]


def spoken(reply: Reply, run: Path) -> list[str]:
    """What is wrong with what a command line said that ended by itself."""
    if "Traceback" in reply.err + reply.out or "Logging error" in reply.err:
        return [f"a traceback: {reply.err.splitlines()[-1]}"]
    lines = [line for line in reply.err.splitlines() if not line.endswith(GIVEN_UP)]
    if len(lines) != (reply.status != 0) or not all(line.startswith("ppo-train: ") for line in lines):
        return [f"status {reply.status}, {len(lines)} lines: {lines}"]
    begun = not reply.resumes and (run / "checkpoints" / "last.pt").exists()
    return [f"no advice: {line}" for line in lines if begun and "resume='run'" not in line]


def damaged(run: Path) -> list[str]:
    """The checkpoints that a fault damaged."""
    found = []
    for path in (run / "checkpoints").glob("[!.]*.pt"):
        try:
            load_checkpoint(path)
        except CheckpointError as error:  # noqa: PERF203 - each file fails on its own
            found.append(str(error))
    return found


def surplus(whole: Path, run: Path) -> list[str]:
    """Files that one run has and the other lacks."""
    one, other = files(whole), files(run)
    found = [f"{name} is left over" for name in other if name not in one]
    found += [f"{name} is missing" for name in one if name not in other]
    found += [f"{name} is there twice" for name in set(other) if other.count(name) > 1]
    return found


def same_end(whole: Path, run: Path) -> list[str]:
    """How a run's folder differs from one that nothing happened to."""
    names = [path.name for path in (whole / "checkpoints").iterdir() if path.name != "last.pt"]
    unequal = [each for name in names for each in different_checkpoints(whole, run, name)]
    return different_ends(whole, run) + unequal + surplus(whole, run)


def promised(reply: Reply, run: Path, whole: Path, allowed: Sequence[int]) -> list[str]:
    """What a fault led to that it must not, before anything goes on.

    Args:
        reply: of the command line that it happened to.
        run: the run's folder.
        whole: the folder of a run that nothing happened to.
        allowed: statuses.
    """
    wrong = damaged(run)
    if reply.status not in allowed:
        wrong.append(f"status {reply.status}")
    if reply.status != -signal.SIGKILL:  # it can have said something
        wrong += spoken(reply, run)
    if reply.status == 0:
        expected = ["train.log is missing"] if GIVEN_UP in reply.err else []
        wrong += [line for line in same_end(whole, run) if line not in expected]
    return wrong


def statuses(fault: Fault, reply: Reply) -> tuple[int, ...]:
    """How a command line may end that a fault happened to."""
    if reply.hit is None or fault.mode == "short":
        return (0,)
    if fault.mode == "raise":
        return (0, 128 + fault.number)
    return (-signal.SIGKILL,) if fault.mode in ("kill", "torn") else (0, 1, 2)


def goes_on(commands, situation: Situation, folder: Path) -> list[str]:
    """Goes on after a fault; what does not end as if there had been none."""
    command = situation.going_on(folder)
    ended = commands(folder, *command)
    if ended.status != 0 or ended.err:
        last = (ended.err.splitlines() or [""])[-1]
        return [f"then `{command[-1]}`: status {ended.status}, {last}"]
    return [f"then `{command[-1]}`: {line}" for line in same_end(situation.whole, folder / "run")]


def tried(commands, situation: Situation, chain: Sequence[Fault], folder: Path) -> list[str]:
    """Lets faults happen one after the other, then goes on; what did not end as promised."""
    shutil.copytree(situation.base, folder)
    command, said, wrong = situation.command, [], []
    for fault in chain:
        reply = commands(folder, *command, fault=fault)
        said.append(f"{fault.mode} {fault.number or ''} at {fault.at} ({reply.hit})")
        if fault is chain[0] and reply.hit is None:
            wrong.append("it did not happen")
        wrong += promised(reply, folder / "run", situation.whole, statuses(fault, reply))
        command = situation.going_on(folder)
    wrong += goes_on(commands, situation, folder)
    shutil.rmtree(folder)
    return [f"{', '.join(said)}: {line}" for line in wrong]


def assert_identical(found: Sequence[Sequence[str]]) -> None:
    """Everything that was tried ended as a run that nothing happened to."""
    print(f"{len(found)} tried, {sum(not each for each in found)} identical")
    assert not any(found), "\n".join(line for each in found for line in each)


def test_the_shim_sees_what_a_run_does_to_its_files(situations):
    seen = {operation.split()[0] for each in situations.values() for operation in each.operations}
    assert seen == {"create", "link", "mkdir", "open", "rename", "sync", "truncate", "unlink", "write"}


def test_a_sample_of_faults_ends_in_identical_runs(commands, situations, tmp_path):
    generator, found = random.Random(0), []
    for mode in MODES[1:]:
        situation = situations[generator.choice(sorted(situations))]
        fault = generator.choice(faults(situation.operations, [mode]))
        found.append(tried(commands, situation, [fault], tmp_path / "case"))
    assert_identical(found)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("name", ["fresh", "resumed", "extended", "wider"])
def test_every_fault_ends_in_an_identical_run(commands, situations, tmp_path, name, mode):
    situation = situations[name]
    chosen = faults(situation.operations, [mode])
    assert_identical([tried(commands, situation, [fault], tmp_path / "case") for fault in chosen])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fresh", "resumed", "wider"])
def test_chains_of_faults_end_in_identical_runs(commands, situations, tmp_path, name):
    situation, generator = situations[name], random.Random(1)
    chosen = faults(situation.operations, MODES[1:])
    chains = [generator.sample(chosen, generator.choice((2, 2, 3))) for _ in range(60)]
    assert_identical([tried(commands, situation, chain, tmp_path / "case") for chain in chains])


@pytest.mark.slow
def test_signals_at_any_moment_end_in_identical_runs(commands, situations, tmp_path):
    situation, generator, found = situations["fresh"], random.Random(2), []
    folder = tmp_path / "case"
    began = time.monotonic()
    assert commands(tmp_path, *situation.command).status == 0
    takes = time.monotonic() - began
    for number in 12 * (*SIGNALS, signal.SIGKILL):
        shutil.copytree(situation.base, folder)
        after = generator.uniform(0.02, takes)
        reply = commands(folder, *situation.command, signal=number, after=after)
        allowed = (0, -number if number == signal.SIGKILL else 128 + number)
        wrong = promised(reply, folder / "run", situation.whole, allowed)
        wrong += goes_on(commands, situation, folder)
        found.append([f"signal {number} after {after:.3f} s: {line}" for line in wrong])
        shutil.rmtree(folder)
    assert_identical(found)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_that_never_was(commands, tmp_path):
    lander = (
        "env=LunarLander-v3", "n_steps=128", "total_timesteps=4e4", "checkpoint.every=1",
        "vectorization=async", "compile=false", "hydra.run.dir=run",
    )  # fmt: skip
    situation = made(commands, "lander", lander)
    command, generator = situation.command, random.Random(3)
    for _ in range(15):
        reply = commands(tmp_path, *command, signal=signal.SIGKILL, after=generator.uniform(0.1, 2.0))
        assert reply.status in (0, -signal.SIGKILL), reply.err
        command = situation.going_on(tmp_path)
    assert goes_on(commands, situation, tmp_path) == []


@pytest.fixture
def disk(tmp_path):
    """A function that makes a file system of so many bytes, or makes it larger; its folder is ``disk``."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, *options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={size}"]), "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def unmount():
        subprocess.run(["umount", str(folder)], check=True)

    if os.geteuid() or shutil.which("mount") is None or not mount(1 << 20):
        pytest.skip("mounting a file system is not permitted here")
    unmount()
    yield folder, mount, unmount
    if os.path.ismount(folder):
        unmount()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fresh", "resumed", "extended"])
def test_a_full_disk_ends_in_an_identical_run_when_there_is_room_again(commands, situations, disk, name):
    situation, found = situations[name], []
    folder, mount, unmount = disk
    needed = sum(path.stat().st_size for path in situation.whole.rglob("*"))
    for step in range(20):
        assert mount(1 << 26)
        shutil.copytree(situation.base, folder, dirs_exist_ok=True)
        usage = os.statvfs(folder)
        size = (usage.f_blocks - usage.f_bfree) * usage.f_bsize + 4096 + needed * step // 20
        assert mount(size, "remount")
        reply = commands(folder, *situation.command)
        wrong = promised(reply, folder / "run", situation.whole, (0, 1, 2))
        assert mount(1 << 26, "remount")
        wrong += goes_on(commands, situation, folder)
        found.append([f"{size} bytes: {line}" for line in wrong])
        unmount()
    assert_identical(found)


@pytest.mark.slow
def test_files_that_may_not_grow_end_in_an_identical_run_when_they_may(commands, situations, tmp_path):
    situation, found = situations["fresh"], []
    for size in range(256, 40_000, 2_000):
        folder = tmp_path / str(size)
        shutil.copytree(situation.base, folder)
        reply = commands(folder, *situation.command, longest_file=size)
        wrong = promised(reply, folder / "run", situation.whole, (0, 1, 2))
        found.append([f"{size} bytes: {line}" for line in wrong + goes_on(commands, situation, folder)])
    assert_identical(found)
