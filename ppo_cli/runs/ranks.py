"""Which of a run's processes this one is, as torchrun's environment variables say."""

import os
from typing import TYPE_CHECKING

from ppo_cli.errors import ConfigError

if TYPE_CHECKING:
    from ppo_cli.config.schema import Config


def world_size() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def are_many() -> bool:
    """Whether this process is one of several."""
    return world_size() > 1


def rank() -> int:
    """The number of this process; the first one, 0, has the folder and the terminal."""
    return int(os.environ.get("RANK", "0")) if are_many() else 0


def is_first_here() -> bool:
    """Whether this process is the first of those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def check_processes(config: "Config") -> None:
    """Raises ConfigError where processes are not as many as a run asks for, or can't share its shards."""
    many = world_size()
    if many > 1 and config.processes not in ("auto", many):
        raise ConfigError(
            f"processes={config.processes}: this run has {many}; `ppo-train` starts more of a single run, "
            "torchrun of one with processes=auto"
        )
    if config.shards % many:
        raise ConfigError(
            f"{many} processes can't share shards={config.shards} equally: expected a multiple of {many}"
        )


def follow() -> None:
    """Follows the first process of a run, which alone reads what is typed."""
    from ppo_cli.runs import following  # late: it brings PyTorch

    following.follow()
