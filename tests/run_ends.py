"""What two runs ended with, held against each other."""

import csv

import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from ppo_cli.runs.checkpoint import CheckpointError, load_checkpoint


def is_clock(tag):
    """Whether a value of that name is what a clock says."""
    return tag == "charts/SPS" or tag.startswith("time/")


def differences(first, second, path=""):
    """Where two checkpoints differ, but for the lengths of files that hold times."""
    if path == "/log":
        return []
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [*first, *(key for key in second if key not in first)]
        return [d for key in keys for d in differences(first.get(key), second.get(key), f"{path}/{key}")]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [d for i, (one, other) in pairs for d in differences(one, other, f"{path}/{i}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = first.dtype == second.dtype and first.numpy().tobytes() == second.numpy().tobytes()
        return [] if same else [path]
    return [] if type(first) is type(second) and first == second else [path]


def rows(folder):
    """metrics.csv without what a clock says."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {key: cell for key, cell in row.items() if key is None or not is_clock(key)}
            for row in csv.DictReader(file)
        ]


def events(folder):
    """Step, tag and value of all that the event file holds, without what a clock says."""
    (file,) = folder.glob("events.out.tfevents.*")
    return [
        (event.step, value.tag, tuple(value.tensor.float_val))
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if not is_clock(value.tag)
    ]


def logged_steps(folder):
    """The steps of the losses in the event file."""
    return [step for step, tag, _ in events(folder) if tag == "losses/entropy"]


def files(folder):
    """Names of all files of a run; the event file's without its time, machine and process."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]
    return sorted("events" if name.startswith("events.out.tfevents.") else name for name in names)


def different_checkpoints(first, second, name):
    """Where the checkpoints of that name in two runs differ."""
    try:
        one, other = (load_checkpoint(folder / "checkpoints" / name) for folder in (first, second))
    except CheckpointError as error:
        return [str(error)]
    found = differences(one, other)
    return [f"{name} differs in {len(found)} places: {', '.join(found[:3])}"] if found else []


def different_ends(first, second):
    """How what a run left that went through something differs from what one left that did not: lines."""
    found = different_checkpoints(first, second, "last.pt")
    if [len(list(folder.glob("events.out.tfevents.*"))) for folder in (first, second)] != [1, 1]:
        found.append(f"event files: {[path.name for path in second.glob('events*')]}")
    elif events(first) != events(second):
        found.append(f"event file: steps {logged_steps(second)}")
    for name in ("metrics.csv", "eval.json"):
        if not (second / name).exists():
            found.append(f"{name} is missing")
        elif name == "metrics.csv" and rows(first) != rows(second):
            found.append(f"metrics.csv: steps {[row.get('step') for row in rows(second)]}")
        elif name == "eval.json" and (first / name).read_bytes() != (second / name).read_bytes():
            found.append(f"eval.json: {(second / name).read_text()!r}")
    return found


def assert_same_end(first, second):
    """Weights, metrics.csv, event file and eval.json are the same."""
    assert different_ends(first, second) == []
    assert logged_steps(second) == [int(row["step"]) for row in rows(first)]
