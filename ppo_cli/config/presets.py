"""Presets of environments: the file that a config was composed with, and that of a retired id's successor."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

from ppo_cli.config.schema import conf_dir
from ppo_cli.errors import EnvError

GROUP = "env"
NO_PRESET = "no preset"


def preset_words() -> str:
    """The preset of the config that was composed last, as a run's first line has it: its file, or none."""
    hydra = HydraConfig.get()
    choice, folders = _choice(hydra), _folders(hydra)
    if choice is None:
        return NO_PRESET
    name = successor_with_preset(choice, folders) or choice
    file = _file(name, folders)
    return NO_PRESET if file is None else f"preset {_shown(file)}"


def take_successors_preset(hydra: HydraConf) -> bool:
    """Has Hydra find a preset for a retired id that has none of its own: that of its successor.

    It is put where Hydra looks last, so that a file of that name wins, and stays there for this process and,
    with Hydra's other state, for those of the launchers.

    Args:
        hydra: Hydra's part of the config that was composed without it.

    Returns:
        Whether there is one, so that the config has to be composed again.
    """
    choice, folders = _choice(hydra), _folders(hydra)
    successor = None if choice is None else successor_with_preset(choice, folders)
    if choice is None or successor is None:
        return False
    above, _, name = choice.rpartition("/")
    group = f"{GROUP}/{above}" if above else GROUP
    node = {"defaults": [f"/{GROUP}/{successor}"]}
    ConfigStore.instance().store(name, node, group, package="_global_", provider="ppo_cli")
    return True


def forget_successors() -> None:
    """Undoes `take_successors_preset`: another command line may have other folders."""
    ConfigStore.instance().repo.pop(GROUP, None)


def successor_with_preset(env_id: str, folders: Sequence[Path]) -> str | None:
    """The id that runs for another, where that has no preset of its own and this has one; else None.

    Another is one that is retired, that names no version, or the module that registers it.

    Args:
        env_id: The environment's id as it was typed.
        folders: The folders with presets.
    """
    named = re.fullmatch(r"(?P<stem>\w[\w./:-]*?)(-v\d+)?", env_id)
    if named is None or ".." in env_id or _file(env_id, folders) is not None:
        return None
    module, _, bare = env_id.rpartition(":")
    if module and _file(bare, folders) is not None:
        return bare
    stem = named["stem"].removeprefix(f"{module}:")
    others = f"{glob.escape(stem)}-v*.yaml"
    if not any(found for folder in folders for found in folder.glob(others)):
        return None
    from ppo_cli.envs.make import resolve_env_id  # late: it brings Gymnasium

    try:
        successor = resolve_env_id(env_id).rpartition(":")[2]
    except EnvError:  # which is said where all ids are checked
        return None
    return successor if successor != bare and _file(successor, folders) is not None else None


def _choice(hydra: HydraConf) -> str | None:
    chosen = hydra.runtime.choices.get(GROUP)
    return None if chosen is None else str(chosen)


def _folders(hydra: HydraConf) -> list[Path]:
    """Where Hydra looks for presets, in its order."""
    sources = hydra.runtime.config_sources
    return [Path(source.path) / GROUP for source in sources if source.schema == "file"]


def _file(env_id: str, folders: Sequence[Path]) -> Path | None:
    files = (folder / f"{env_id}.yaml" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _shown(file: Path) -> str:
    """A path as short as it can be: from this folder, or of our own files, from where ``conf`` lies."""
    base = conf_dir().parent if file.is_relative_to(conf_dir()) else Path.cwd()
    return str(file.relative_to(base) if file.is_relative_to(base) else file)
