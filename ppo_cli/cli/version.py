"""What `--version` prints."""

import platform
from importlib.metadata import PackageNotFoundError, version

from ppo_cli import __version__

COMPUTING = ("torch", "gymnasium")  # the packages that a run's numbers depend on most


def version_line() -> str:
    """This package's version and those of what it runs on, of which none is imported."""
    others = ", ".join(f"{package} {_installed(package)}" for package in COMPUTING)
    return f"ppo-cli {__version__} ({others}, Python {platform.python_version()})"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
