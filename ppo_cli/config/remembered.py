"""Config files of a sweep, which Hydra reads for every job: one is parsed again only where it changed."""

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydrasFiles
from hydra._internal.core_plugins.importlib_resources_config_source import (
    ImportlibResourcesConfigSource as HydrasPackages,
)
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult, ConfigSource

_parsed: dict[str, tuple[bytes, ConfigResult]] = {}  # by its place, each text and what it was parsed to


class FileConfigSource(HydrasFiles):
    """Hydra's source of files, which parses a text once: parsing takes a fifth of composing."""

    def load_config(self, config_path: str) -> ConfigResult:
        """What a file holds by now."""
        path = Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path))))
        return _remembered(self, str(path), partial(_bytes, path), partial(super().load_config, config_path))


class ImportlibResourcesConfigSource(HydrasPackages):
    """Hydra's source of files in packages, likewise; Hydra's own settings are there."""

    def _read_config(self, res: Any) -> ConfigResult:  # noqa: ANN401
        return _remembered(self, f"pkg://{res}", res.read_bytes, partial(super()._read_config, res))


def _remembered(
    source: ConfigSource, place: str, read: Callable[[], bytes | None], parse: Callable[[], ConfigResult]
) -> ConfigResult:
    text, known = read(), _parsed.get(place)
    if known is None or known[0] != text:
        found = parse()
        if text is None or read() != text:  # it is being written
            return found
        known = text, found
        _parsed[place] = known
    own = copy.deepcopy(known[1])
    return replace(own, path=f"{source.scheme()}://{source.path}", provider=source.provider)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:  # of which Hydra says what it is
        return None


def remember_files() -> None:
    """Has Hydra take our sources of files for its own, which it does where ours come first."""
    for source in (FileConfigSource, ImportlibResourcesConfigSource):
        SourcesRegistry.instance().register(source)
