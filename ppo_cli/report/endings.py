"""Lines on how the runs of groups stand where they did not simply train to their end."""

from collections import Counter
from collections.abc import Sequence

from ppo_cli.report.groups import RunGroup


def ending_notes(groups: Sequence[RunGroup]) -> list[str]:
    """Lines on groups with runs that are still going, that lost episodes at a stop, or that ended early."""
    found = [[describe(group) for group in groups] for describe in (_unfinished, _inexact, _stopped)]
    return [line for lines in found for line in lines if line]


def _unfinished(group: RunGroup) -> str:
    going = [run for run in group.runs if run.status == "running"]
    if not going:
        return ""
    least = min(run.last_step for run in going)
    seeds = ", ".join(str(run.seed) for run in going)
    held = sum(run.held for run in going)
    return (
        f"{group.name}: {len(going)} of {len(group.runs)} runs (seed {seeds}) still short of "
        f"{group.runs[0].budget:,} steps; the shortest stands at {least:,}, {held or 'none'} being run now."
    )


def _inexact(group: RunGroup) -> str:
    cut = [run for run in group.runs if run.cut_episodes]
    if not cut:
        return ""
    seeds = ", ".join(str(run.seed) for run in cut)
    return (
        f"{group.name}: {len(cut)} of {len(group.runs)} runs (seed {seeds}) went on after a stop with new "
        "episodes, and are not to the bit what they would have been."
    )


def _stopped(group: RunGroup) -> str:
    ended = [run for run in group.runs if run.stopped]
    if not ended:
        return ""
    least, most = (f"{each(run.last_step for run in ended):,}" for each in (min, max))
    steps = least if least == most else f"{least} to {most}"
    reasons = Counter(run.stopped for run in ended)
    if len(reasons) > 1:  # what follows the colon is one run's alone
        reasons = Counter(run.stopped.partition(": ")[0] for run in ended)
    why = ", ".join(reasons)
    if len(reasons) > 1:
        why = ", ".join(f"{count} by {reason}" for reason, count in reasons.items())
    return f"{group.name}: {len(ended)} of {len(group.runs)} runs stopped at {steps} steps: {why}."
