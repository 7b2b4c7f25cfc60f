"""The peers' own environments: where they are, how they are made, and one training run in one of them."""

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from peers.table import PEERS

BENCHMARKS = Path(__file__).resolve().parents[1]


class PeerError(Exception):
    """A peer that can't be installed or does not run; its message is one line."""


def interpreter(peer: str, folder: Path) -> Path:
    """The Python that runs a peer: ours where it has the peer's packages, else that of its own environment.

    Raises:
        PeerError: There is none.
    """
    entry = PEERS[peer]
    missing = [name for name in entry.imports if find_spec(name) is None]
    if entry.imports and not missing:
        return Path(sys.executable)
    found = python(folder / peer)
    if found.exists() and all(source(address, folder / peer).exists() for address, _ in entry.sources):
        return found
    if missing:
        raise PeerError(f"no {' and '.join(missing)}; pip install 'ppo-cli[bench]'")
    raise PeerError(f"not in {folder / peer}; python benchmarks/throughput.py --install {peer}")


def python(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def source(address: str, environment: Path) -> Path:
    """Where a peer's file that belongs to no package lies."""
    return environment / address.rsplit("/", 1)[1]


def install(peer: str, folder: Path) -> Path:
    """Makes a peer's environment, or completes it, and gives its folder.

    Raises:
        PeerError: A package or a file can't be had.
    """
    entry, environment = PEERS[peer], folder / peer
    if not python(environment).exists():
        venv.create(environment, with_pip=True)
    pip = [python(environment), "-m", "pip", "install", "--quiet"]
    for arguments in (entry.packages, ("--no-deps", *entry.without_dependencies)):
        if arguments != ("--no-deps",) and subprocess.run([*pip, *arguments], check=False).returncode:
            raise PeerError(f"pip install {' '.join(arguments)} failed; see above")
    for address, digest in entry.sources:
        path = source(address, environment)
        if not path.exists():
            fetch(address, path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise PeerError(f"{path} is not the file that was measured; remove it and install again")
    return environment


def fetch(address: str, path: Path) -> None:
    """Downloads a file.

    Raises:
        PeerError: It can't be had.
    """
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            path.write_bytes(answer.read())
    except OSError as error:
        raise PeerError(f"{address} can't be fetched ({error}); put it at {path}") from None


def run_peer(
    peer: str, executable: Path, settings: Path, folder: Path, variables: Mapping[str, str]
) -> dict[str, float]:
    """One process of a peer in a folder, with the settings of a JSON file and one thread.

    Returns:
        Its seconds, and its steps a second: all of the run, and after its first tenth.

    Raises:
        PeerError: It does not end well.
    """
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    started = time.perf_counter()
    done = subprocess.run(
        [executable, "-m", f"peers.{PEERS[peer].module}", peer, settings],
        cwd=folder, env={**os.environ, **threads, **variables, "PYTHONPATH": str(BENCHMARKS)},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    wall = time.perf_counter() - started
    if done.returncode:
        raise PeerError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    result = json.loads(done.stdout.splitlines()[-1])
    return {"wall": wall, "rate": result["steps"] / wall, "steady": result["steady"]}
