"""Checkpoints: tensors and plain values only, with a checksum that is verified on loading."""

import hashlib
import io
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppo_cli.files import NotPlainError, open_own, read_bytes, sync_folder, written_aside
from ppo_cli.runs.checkpoint_schema import Checkpoint, SchemaError
from ppo_cli.text import headline

FORMAT = 3  # 2 had no snapshots of the kinds `anew` and `none`, but two others
MOST_BYTES = 16 * 2**30
DEEPEST = 32  # levels of dicts and lists; a run's checkpoint has five


class CheckpointError(ValueError):
    """A file is not an intact checkpoint; the message is one line."""


class NewerCheckpointError(CheckpointError):
    """A file is a checkpoint of a newer version, in place of which no older one is taken."""


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Writes a checkpoint aside, syncs it and renames it, so that nothing leaves half a file.

    Args:
        path: The path of the file; an existing one is replaced.
        payload: Nested dicts and lists of tensors, NumPy arrays, numbers, strings, booleans and None.

    Raises:
        TypeError: a value of any other kind.
        OSError: it can't be written, a link instead of its folder included.
    """
    folder = own_folder(path.parent)
    tree = plain({"format": FORMAT, **payload})
    data = io.BytesIO()  # PyTorch's own writer of files hides why a write failed
    torch.save({**tree, "sha256": digest(tree)}, data)
    with written_aside(path) as aside, open_own(aside, new=True) as file:
        file.write(data.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def own_folder(path: Path) -> Path:
    """Makes a folder where there is none, in one that there is: a run's that was moved away is not made anew.

    Raises:
        OSError: a link or a file lies there.
    """
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise OSError(f"{path} is a link, through which nothing is written; remove it")
    return path


def link_checkpoint(path: Path, name: str) -> None:
    """Makes ``name`` in its folder another name of a checkpoint, at once; a copy where links can't be."""
    with written_aside(path.with_name(name)) as aside:
        try:
            os.link(path, aside)
        except OSError:
            shutil.copyfile(path, aside)


def plain_state(state: dict[str, Any]) -> dict[str, Any]:
    """A state of somebody else's as a checkpoint holds it, so that it can be read again.

    Raises:
        TypeError: It holds more than tensors and plain values.
    """
    try:
        tree: dict[str, Any] = plain(state)
    except RecursionError:
        raise TypeError("its contents are nested too deeply, or hold themselves") from None
    check_plain(tree, MOST_BYTES, depth=3)  # the state of a hook lies in a list of dicts
    return tree


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads any file that `save_checkpoint` wrote onto the CPU. No code in it is ever run.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but tensors and plain values.
        OSError: it can't be read.
    """
    try:
        data = read_bytes(path, MOST_BYTES)
        payload: dict[str, Any] = load_tensors(data)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except (NotPlainError, IsADirectoryError) as error:
        raise CheckpointError(str(error)) from error
    except OSError:  # what can't be read now is not damaged
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is damaged, or holds more than tensors and plain values"
        ) from error
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise CheckpointError(f"{path} is not a readable checkpoint: {headline(error)}") from error
    version = payload.get("format") if isinstance(payload, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise NewerCheckpointError(
            f"{path} has format {version}, from a newer ppo-cli; this one reads up to {FORMAT}: upgrade it"
        )
    if not isinstance(version, int) or version not in (2, FORMAT) or "sha256" not in payload:
        raise CheckpointError(f"{path} is not a ppo-cli checkpoint of format 2 or {FORMAT}")
    expected = payload.pop("sha256")
    try:
        check_plain(payload, len(data))
        found = digest(payload)
    except (TypeError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path} is refused: {error}") from error
    if found != expected:
        raise CheckpointError(f"{path} is damaged: its contents do not have the checksum written with them")
    return payload


def load_tensors(data: bytes) -> Any:  # noqa: ANN401
    """What `torch.save` made, on the CPU; no code in it is ever run.

    Raises:
        ValueError: it is none, or unpacks to more than it is.
        pickle.UnpicklingError: it holds something else than tensors and plain values.
        Exception: it is damaged; this may be almost anything.
    """
    check_container(data)
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def save_run(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the checkpoint of a run as `save_checkpoint` does."""
    save_checkpoint(path, checkpoint.payload())


def load_run(path: Path) -> Checkpoint:
    """The checkpoint of a run, held against its schema.

    Raises:
        CheckpointError: as `load_checkpoint`; or a field is missing, of another type or out of range.
    """
    payload = load_checkpoint(path)
    if payload["format"] == 2 and payload.get("snapshot_kind") in ("restart", "own"):
        payload.update(snapshot_kind="none", environments=None)  # what brought these back is gone
    try:
        return Checkpoint.checked(payload)
    except SchemaError as error:
        raise CheckpointError(f"{path} is not the checkpoint of a run: {error}") from error


def keep_newest(folder: Path, keep: int) -> None:
    """Deletes all numbered checkpoints of a folder but the ``keep`` newest."""
    for path in numbered(folder)[keep:]:
        path.unlink()


def numbered(folder: Path) -> list[Path]:
    """The checkpoints ``<steps>.pt`` of a folder, newest first."""
    steps = re.compile(r"0|[1-9][0-9]{0,15}")
    found = [path for path in folder.glob("*.pt") if steps.fullmatch(path.stem) and path.is_file()]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


class Newest(NamedTuple):
    """The newest intact checkpoint of a folder, or None where it has none; and a line on each damaged one."""

    saved: Checkpoint | None
    damage: list[str]


def load_newest(folder: Path) -> Newest:
    """The newest intact checkpoint of a folder.

    Raises:
        CheckpointError: there are checkpoints, and none is intact, or the newest intact one is of a newer
            version.
    """
    damage: list[str] = []
    for path in numbered(folder):
        try:
            return Newest(_load_numbered(path), damage)
        except NewerCheckpointError:  # noqa: PERF203 - each file fails on its own
            raise
        except CheckpointError as error:
            damage.append(str(error))
    if damage:
        raise CheckpointError(damage[0])
    return Newest(None, damage)


def _load_numbered(path: Path) -> Checkpoint:
    saved = load_run(path)
    if saved.steps != int(path.stem):
        raise CheckpointError(f"{path} is not the checkpoint of {path.stem} steps, but of {saved.steps}")
    return saved


def plain(value: Any) -> Any:  # noqa: ANN401 - any tree of plain values
    """A tree of values as a checkpoint holds it: arrays as tensors, tuples as lists.

    Raises:
        TypeError: It holds something else than tensors and plain values.
    """
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a checkpoint's keys are strings, given {list(value)}")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    # a subclass, such as torch's version string, would need its own code to load
    for kind, as_plain in ((int, int), (float, float), (str, str.__str__)):
        if isinstance(value, kind):
            return as_plain(value)
    raise TypeError(f"a checkpoint holds tensors and plain values, given {type(value).__name__}")


def check_container(data: bytes) -> None:
    """Raises ValueError for what `torch.save` does not write, such as an archive that unpacks to more."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise ValueError("its parts are larger than the file")


def check_plain(value: Any, size: int, depth: int = 0) -> None:  # noqa: ANN401
    """Raises TypeError for a tree that is deeper, larger or of other things than a checkpoint's.

    Args:
        value: The tree, which may be part of itself.
        size: The size of the file in bytes.
        depth: At which the tree lies in it.
    """
    left, stack = size, [(value, depth)]
    while stack:
        item, depth = stack.pop()
        left -= 1  # whatever is in the tree takes a byte of the file at least
        if depth > DEEPEST or left < 0:
            raise TypeError("its contents are nested too deeply, or hold themselves")
        if type(item) is dict:
            if not all(type(key) is str for key in item):
                raise TypeError("its keys are not all strings")
            stack += [(below, depth + 1) for below in item.values()]
        elif type(item) is list:
            stack += [(below, depth + 1) for below in item]
        elif type(item) is Tensor:
            if item.layout != torch.strided or item.is_quantized or item.device.type != "cpu":
                raise TypeError("it holds a tensor that is not a plain one")
            if item.numel() * item.element_size() > size:
                raise TypeError("it holds a tensor that is larger than the file")
        elif item is not None and type(item) not in (bool, int, float, str):
            raise TypeError(f"it holds a value of type {type(item).__name__}")


def digest(value: Any) -> str:  # noqa: ANN401
    """The SHA-256 of a tree of plain values and tensors, in letters."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:  # noqa: ANN401
    if isinstance(value, dict):
        for key in sorted(value, key=repr):
            sha.update(f"key:{key!r};".encode())
            _feed(sha, value[key])
        sha.update(b"end;")
    elif isinstance(value, list):
        for item in value:
            _feed(sha, item)
        sha.update(b"end;")
    elif isinstance(value, Tensor):
        sha.update(f"tensor:{value.dtype}:{tuple(value.shape)};".encode())
        if value.numel():
            sha.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    else:
        sha.update(f"{type(value).__name__}:{value!r};".encode())
