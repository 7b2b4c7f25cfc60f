"""Several processes of one run tell each other what one that has all shards knows."""

import os
from functools import partial

import pytest
import torch

from ppo_cli.collective import ALONE
from ppo_cli.runs import group
from ppo_cli.runs.pulse import Pulse
from ppo_cli.sharded import weighted_sum

PROCESSES, OWN = 3, 2  # shards of each
SHARES = [3.0, 1.0, 0.0, 2.0, 2.0, 5.0]  # one shard has no rows left
SIZES = [1, 2, 7, 64, 1001]  # what three processes can't share equally, or not at all


def vectors(size):
    generator = torch.Generator().manual_seed(size)
    return [torch.randn(size, generator=generator) for _ in SHARES]


def combine(collective, size):
    own = vectors(size)[collective.rank * OWN :][: len(SHARES) // collective.processes]
    return collective.combine(own, partial(weighted_sum, shares=SHARES))


@pytest.fixture
def on_processes(monkeypatch, tmp_path):
    """A function that has several forked processes call another one, and gives what each returned."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(32_000 + os.getpid() % 700))
    monkeypatch.setenv("WORLD_SIZE", str(PROCESSES))

    def call(function):
        pids = []
        for rank in range(PROCESSES):
            pids.append(os.fork())
            if not pids[-1]:
                status = 1
                try:
                    os.environ["RANK"] = str(rank)
                    pulse = Pulse(rank, PROCESSES)
                    collective = group.Group(pulse)
                    torch.save(function(collective), tmp_path / str(rank))
                    collective.close()
                    pulse.close()
                    status = 0
                finally:
                    os._exit(status)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * PROCESSES
        return [torch.load(tmp_path / str(rank)) for rank in range(PROCESSES)]

    return call


def test_sums_that_processes_share_have_the_bits_of_one_process(on_processes, monkeypatch):
    taken = []

    def both_ways(collective):
        swap = group._swap
        monkeypatch.setattr(
            group,
            "_swap",
            lambda sent, got, group: taken.append(sum(map(len, got))) or swap(sent, got, group),
        )
        whole = [combine(collective, size) for size in SIZES]
        assert taken == [len(SHARES)] * len(SIZES)  # small vectors are not worth a second exchange
        monkeypatch.setattr(group, "SPARED", 0)
        slices = [combine(collective, size) for size in SIZES]
        assert len(taken) == 3 * len(SIZES)
        return whole, slices

    expected = [combine(ALONE, size) for size in SIZES]
    for whole, slices in on_processes(both_ways):
        assert all(map(torch.equal, whole, expected))
        assert all(map(torch.equal, slices, expected))
