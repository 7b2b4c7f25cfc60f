"""Checkpoints: tensors and plain values only, with a checksum that is verified on loading."""

import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FORMAT = 2


class CheckpointError(ValueError):
    """A file is not an intact checkpoint; the message is one line."""


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Writes a checkpoint aside, syncs it and renames it, so that no kill leaves half a file.

    Args:
        path: where to; an existing file is replaced.
        payload: nested dicts and lists of tensors, NumPy arrays, numbers, strings, booleans and None.

    Raises:
        TypeError: a value of any other kind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = _plain({"format": FORMAT, **payload})
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("wb") as file:
            torch.save({**plain, "sha256": _digest(plain)}, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def link_checkpoint(path: Path, name: str) -> None:
    """Makes ``name`` in its folder another name of a checkpoint, at once; a copy where links can't be."""
    aside = path.with_name(f".{name}.tmp")
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:
        shutil.copyfile(path, aside)
    aside.replace(path.with_name(name))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU. No code in the file is ever run.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        payload: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is damaged, or holds more than tensors and plain values"
        ) from error
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error
    version = payload.get("format") if isinstance(payload, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, from a newer ppo-cli; this one reads up to {FORMAT}: upgrade it"
        )
    if not isinstance(version, int) or version != FORMAT or "sha256" not in payload:
        raise CheckpointError(f"{path} is not a ppo-cli checkpoint of format {FORMAT}")
    expected = payload.pop("sha256")
    if _digest(payload) != expected:
        raise CheckpointError(f"{path} is damaged: its contents do not have the checksum written with them")
    return payload


def keep_newest(folder: Path, keep: int) -> None:
    """Deletes all numbered checkpoints of a folder but the ``keep`` newest."""
    for path in numbered(folder)[keep:]:
        path.unlink()


def numbered(folder: Path) -> list[Path]:
    """The checkpoints ``<steps>.pt`` of a folder, newest first."""
    found = [path for path in folder.glob("*.pt") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest intact checkpoint of a folder.

    Returns:
        It, or None where there is none at all; and a line on each newer one that is damaged.

    Raises:
        CheckpointError: there are checkpoints, and none is intact.
    """
    damage: list[str] = []
    for path in numbered(folder):
        try:
            return load_checkpoint(path), damage
        except CheckpointError as error:  # noqa: PERF203 - each file fails on its own
            damage.append(str(error))
    if damage:
        raise CheckpointError(damage[0])
    return None, damage


def _plain(value: Any) -> Any:  # noqa: ANN401 - any tree of plain values
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a checkpoint's keys are strings, given {list(value)}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    # a subclass, such as torch's version string, would need its own code to load
    for kind, plain in ((int, int), (float, float), (str, str.__str__)):
        if isinstance(value, kind):
            return plain(value)
    raise TypeError(f"a checkpoint holds tensors and plain values, given {type(value).__name__}")


def _digest(value: Any) -> str:  # noqa: ANN401
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
