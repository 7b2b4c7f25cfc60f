"""Several processes of one run, over `torch.distributed`."""

import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.nn.functional import pad

from ppo_cli.collective import Collective
from ppo_cli.runs.checkpoint import load_tensors, plain
from ppo_cli.runs.pulse import Pulse
from ppo_cli.runs.talk import MEETING, own_store
from ppo_cli.text import headline

T = TypeVar("T")

# One may wait for another that compiles or evaluates. Sidecars find out who is gone.
WAITING = timedelta(days=7)
SPARED = 2**20  # bytes that a second collective has to spare each process to be worth its latency


def _reason(error: RuntimeError) -> str:
    """What a backend says, without the place in its source and what to do about it."""
    return re.sub(r"^\[\S+:\d+\] |\. .*$", "", headline(error))


def _stacked(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors along a new axis; of one no copy."""
    return torch.stack(list(parts), axis) if len(parts) > 1 else parts[0].contiguous().unsqueeze(axis)


def _swap(sent: Iterable[Tensor], got: Iterable[Tensor], group: distributed.ProcessGroup) -> None:
    """Sends each process a tensor and takes in one of each, straight to where it belongs.

    gloo's own collectives copy on both sides, and pass on from process to process what all are to have.
    """
    calls = []
    for process, (out, place) in enumerate(zip(sent, got, strict=True)):
        if process == distributed.get_rank():
            place.copy_(out)
        else:
            calls.append(distributed.P2POp(distributed.isend, out, process, group))
            calls.append(distributed.P2POp(distributed.irecv, place, process, group))
    for call in distributed.batch_isend_irecv(calls):
        call.wait()


class Group(Collective):
    """The processes that torchrun, or `ppo-train` itself, has started."""

    def __init__(self, pulse: Pulse) -> None:
        """Meets the others.

        Args:
            pulse: What says when another is gone.
        """
        self.rank, self.processes, self._pulse = pulse.rank, pulse.processes, pulse
        name = pulse.meet()
        backends = "cpu:gloo,cuda:nccl" if distributed.is_nccl_available() else "gloo"
        try:
            distributed.init_process_group(
                backends, store=own_store(name),
                rank=self.rank, world_size=self.processes, timeout=timedelta(seconds=MEETING),
            )  # fmt: skip
            if torch.cuda.is_available():  # one each
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
            self._group = distributed.new_group(timeout=WAITING)
        except RuntimeError as error:
            raise pulse.lost(_reason(error)) from error

    def gather(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """A tensor of each shard, in their order, of one shape and dtype."""
        return self._gather(_stacked(parts)).unbind()

    def _gather(self, own: Tensor) -> Tensor:
        """The tensors of all processes, one behind the other along their first axis."""
        sent = own.view(torch.uint8) if own.dtype == torch.bool else own  # which gloo can't send
        whole = sent.new_empty((self.processes * len(sent), *sent.shape[1:]))
        self._do(_swap, [sent] * self.processes, whole.chunk(self.processes))
        return whole.view(own.dtype)

    def combine(self, parts: Sequence[Tensor], function: Callable[[Sequence[Tensor]], Tensor]) -> Tensor:
        """What a function makes of a vector of each shard, in their order, element by element.

        Each process takes in all vectors; or, where that is much more, a slice of each, of which it makes a
        slice of the result, and then those of the others. The bits are the same.
        """
        many, size = self.processes, len(parts[0])
        spared = ((many - 1) * len(parts) - 1) * (many - 1) * size // many  # numbers
        if spared * parts[0].element_size() < SPARED:
            return function(self.gather(parts))
        # [size] each -> [P, S/P, size/P]: what each process gets
        sent = _stacked([pad(part, (0, -size % many)).view(many, -1) for part in parts], axis=1)
        got = torch.empty_like(sent)
        self._do(_swap, sent, got)
        return self._gather(function(got.flatten(0, 1).unbind()))[:size]

    def gather_plain(self, parts: Sequence[T]) -> Sequence[T]:
        """A value of each shard, in their order; arrays come back as tensors, and tuples as lists."""
        file = io.BytesIO()
        torch.save(plain(list(parts)), file)
        own = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
        lengths = [int(length) for length in self.gather([torch.tensor(len(own))])]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(own)] = own
        everyones = zip(self.gather([padded]), lengths, strict=True)
        return [part for sent, n in everyones for part in load_tensors(sent[:n].numpy().tobytes())]

    def of_first(self, number: int) -> int:
        """The number that the first process has."""
        told = torch.tensor(number)
        self._do(distributed.broadcast, told, 0)
        return int(told)

    def most(self, number: int) -> int:
        """The largest of the numbers that the processes have."""
        told = torch.tensor(number)
        self._do(distributed.all_reduce, told, distributed.ReduceOp.MAX)
        return int(told)

    def plain_of_first(self, value: T) -> T:
        """The value that the first process has; arrays come as tensors, and tuples as lists."""
        file = io.BytesIO()
        torch.save(plain(value), file)
        size = self.of_first(len(file.getbuffer()))
        sent = torch.zeros(size, dtype=torch.uint8)
        if self.rank == 0:
            sent[:] = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
        self._do(distributed.broadcast, sent, 0)
        told: T = load_tensors(sent.numpy().tobytes())
        return told

    def _do(self, collective: Callable[..., object], *arguments: object) -> None:
        """Calls one of PyTorch's collectives.

        Raises:
            BaseException: Another process is gone; see `Pulse.lost`.
        """
        try:
            collective(*arguments, group=self._group)
        except RuntimeError as error:  # of gloo and NCCL alike
            raise self._pulse.lost(_reason(error)) from error

    def advise(self, advice: Callable[[], str]) -> None:
        """Takes what to do when the run has ended, for what speaks where the first process can't."""
        self._pulse.advise(advice)

    def part(self) -> None:
        """Does no longer watch whether the others are there."""
        self._pulse.part()

    def close(self) -> None:
        """Leaves the others."""
        distributed.destroy_process_group()
