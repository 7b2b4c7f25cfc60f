"""Checkpoints: what is stored comes back bit for bit, or loading says that it can't."""

import contextlib
import enum
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ppo_cli.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

PAYLOAD: dict[str, Any] = {
    "model": {"weight": torch.linspace(-1, 1, 12).reshape(3, 4), "bias": torch.tensor([1e-45, -0.0])},
    "optimizer": {"step": torch.tensor(7.0)},
    "steps": 2**40,
    "learning_rate": 0.1 + 0.2,
    "config": {
        "env": {"id": "CartPole-v1", "kwargs": {}},
        "hidden_sizes": [64, 64],
        "shared": True,
        "kl": None,
    },
}


def identical(a: Any, b: Any) -> bool:
    """Whether two payloads agree in structure, types and bits."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, Tensor):
        same_kind = isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return same_kind and a.numpy().tobytes() == b.numpy().tobytes()
    return type(a) is type(b) and repr(a) == repr(b)


def round_trip(path: Path, value: Any) -> Any:
    save_checkpoint(path, {"value": value})
    return load_checkpoint(path)["value"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "last.pt"


def test_round_trip_is_bit_for_bit(path: Path) -> None:
    assert identical(round_trip(path, PAYLOAD), PAYLOAD)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(0, 3),
        torch.tensor(3.5, dtype=torch.bfloat16).reshape(()),
        torch.tensor([True, False]),
        torch.arange(6, dtype=torch.uint8).reshape(2, 3).t(),
        torch.tensor([float("nan"), float("inf"), -0.0, 1e-310], dtype=torch.float64),
        torch.Generator().manual_seed(3).get_state(),
    ],
    ids=lambda tensor: f"{tensor.dtype}{tuple(tensor.shape)}",
)
def test_tensors_of_any_kind(path: Path, tensor: Tensor) -> None:
    loaded = round_trip(path, tensor)
    assert loaded.dtype == tensor.dtype
    assert loaded.shape == tensor.shape
    as_bytes = [t.contiguous().reshape(-1).view(torch.uint8).tolist() for t in (loaded, tensor)]
    assert as_bytes[0] == as_bytes[1]


@pytest.mark.parametrize(
    "value", [float("nan"), float("-inf"), -0.0, 5e-324, 2**100, -1, "", "é\n\0", False, None]
)
def test_plain_values(path: Path, value: Any) -> None:
    assert identical(round_trip(path, value), value)


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("value", "plain"), [(Colour.RED, "red"), (Level.LOW, 1), (torch.__version__, str(torch.__version__))]
)
def test_subclasses_of_plain_values_are_stored_as_plain_ones(path: Path, value: Any, plain: Any) -> None:
    assert identical(round_trip(path, value), plain)


def test_numpy_values_become_tensors_and_numbers(path: Path) -> None:
    array = np.arange(6, dtype=np.float64).reshape(2, 3)[:, ::-1]  # a view with a negative stride
    loaded = round_trip(
        path, {"array": array, "scalar": np.float64(0.1), "integer": np.int32(3), "yes": np.True_}
    )
    assert identical(
        loaded, {"array": torch.from_numpy(array.copy()), "scalar": 0.1, "integer": 3, "yes": True}
    )


def test_a_network_loads_into_another(path: Path) -> None:
    torch.manual_seed(0)
    source, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    target.load_state_dict(round_trip(path, source.state_dict()))
    assert torch.equal(source.weight, target.weight)


def test_what_is_stored_does_not_follow_the_source(path: Path) -> None:
    weight = torch.zeros(1000)
    part = weight[:1]  # a view: only it is stored, not the storage behind it
    save_checkpoint(path, {"part": part})
    size = path.stat().st_size
    save_checkpoint(path, {"part": torch.zeros(1)})
    assert path.stat().st_size == size


def test_torch_reads_it_without_running_code(path: Path) -> None:
    save_checkpoint(path, PAYLOAD)
    theirs = torch.load(path, weights_only=True)
    assert identical(theirs["model"], PAYLOAD["model"])
    assert len(theirs["sha256"]) == 64


def test_saving_replaces_the_file_and_leaves_nothing_else(path: Path) -> None:
    save_checkpoint(path, {"steps": 1})
    save_checkpoint(path, {"steps": 2})
    assert load_checkpoint(path)["steps"] == 2
    assert os.listdir(path.parent) == ["last.pt"]


@pytest.mark.parametrize(
    "value",
    [
        Path("x"),
        {1, 2},
        b"bytes",
        1j,
        object(),
        print,
        np.array(["word"]),
        np.array([None]),
        torch.nn.Linear(1, 1),
        # NumPy scalars that `.item()` does not make a plain value
        np.datetime64("2020-01-01"),
        np.longdouble(1.5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_refused_before_anything_is_written(path: Path, value: Any) -> None:
    save_checkpoint(path, {"steps": 1})
    with pytest.raises(TypeError):
        save_checkpoint(path, {"steps": 2, "nested": [{"deep": value}]})
    assert load_checkpoint(path)["steps"] == 1
    assert os.listdir(path.parent) == ["last.pt"]


def test_a_failed_write_keeps_the_old_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(path, {"steps": 1})

    def disk_full(payload: object, file: Any) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"steps": 2})
    monkeypatch.undo()
    assert load_checkpoint(path)["steps"] == 1
    assert os.listdir(path.parent) == ["last.pt"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_byte_is_never_read_as_another_value(path: Path) -> None:
    save_checkpoint(
        path, {"weight": torch.linspace(-1, 1, 6), "steps": 3, "env": "CartPole-v1", "knobs": [0.1, None]}
    )
    intact, raw = load_checkpoint(path), path.read_bytes()
    caught, crashes = 0, {}
    for position in range(0, len(raw), 3):
        damaged = bytearray(raw)
        damaged[position] ^= (0x01, 0x80, 0xFF, 0x20)[position % 4]
        path.write_bytes(damaged)
        try:
            assert identical(load_checkpoint(path), intact), f"byte {position} changed the payload in silence"
        except CheckpointError as error:
            caught += 1
            assert "\n" not in str(error)
        except AssertionError as error:
            if "in silence" in str(error):
                raise
            crashes[position] = repr(error)
        except Exception as error:
            crashes[position] = repr(error)
    assert caught > 100  # the payload's own bytes, not only the container's filler
    assert not crashes


def test_a_changed_weight_is_noticed(path: Path) -> None:
    save_checkpoint(path, {"weight": torch.tensor([1.0, 2.0])})
    content = torch.load(path, weights_only=True)
    content["weight"][0] = 1.0000001
    torch.save(content, path)  # intact as a file, so that only the checksum can tell
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file(path: Path, share: float) -> None:
    save_checkpoint(path, PAYLOAD)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"\x80\x02.", b"hello world", b"PK\x03\x04", b"\0" * 100])
def test_a_file_that_is_something_else(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "payload",
    [
        [1, 2],
        {"model": {}},
        {"format": 99, "sha256": ""},
        {"format": 1, "sha256": "0" * 64, "weight": torch.zeros(2)},
        {"format": 1, "sha256": "", 3: "a key that is no string"},
        {"format": torch.ones(2), "sha256": ""},
    ],
    ids=str,
)
def test_a_torch_file_that_is_no_checkpoint(path: Path, payload: object) -> None:
    path.parent.mkdir()
    torch.save(payload, path)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        load_checkpoint(path)


def test_missing_file_and_folder(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*last\.pt"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def write_pickle(payload: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(payload, protocol=2))


def write_legacy(payload: object, path: Path) -> None:
    torch.save(payload, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch.save, write_legacy, write_pickle])
def test_code_in_a_file_never_runs(path: Path, tmp_path: Path, write: Callable[[object, Path], None]) -> None:
    path.parent.mkdir()
    marker = tmp_path / "it-ran"
    write({"format": 1, "sha256": "0" * 64, "model": Malicious(marker)}, path)
    with pytest.raises(CheckpointError, match=r"last\.pt") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    with contextlib.suppress(RuntimeError):
        torch.load(path, weights_only=False)  # the trap is a working one
    assert marker.exists()
