"""The versions of this package and of what it runs on, of which none is imported."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ppo_cli import __version__

COMPUTING = ("torch", "gymnasium")  # the packages that a run's numbers depend on most


def version_line() -> str:
    """This package's version and those of what it runs on, of which none is imported."""
    ours, *others = versions(COMPUTING)
    return f"{ours} ({', '.join(others)})"


def versions(packages: Sequence[str]) -> list[str]:
    """This package's version, those of others and Python's, each behind its name."""
    others = (f"{package} {_installed(package)}" for package in packages)
    return [f"ppo-cli {__version__}", *others, f"Python {platform.python_version()}"]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
