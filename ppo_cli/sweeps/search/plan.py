"""What a search is to do: composed, checked, and stored as `search.json` before the first trial."""

import itertools
import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf.errors import OmegaConfBaseException

from ppo_cli.config.compose import compose_run, override_config, parse_overrides
from ppo_cli.config.convert import from_stored, to_dict
from ppo_cli.config.overrides import GROUPS
from ppo_cli.config.schema import KNOBS, Config, find_knob, is_entry
from ppo_cli.errors import ConfigError
from ppo_cli.files import printable, read_json, write_whole
from ppo_cli.importing import importing
from ppo_cli.runs.new_folder import folder_name, is_hydra
from ppo_cli.sweeps.schema import SearchSettings, composed_settings, read_settings
from ppo_cli.sweeps.search.space import NUMBERS, Axis, axis_from_dict, to_axis
from ppo_cli.text import flat

if TYPE_CHECKING:
    from ppo_cli.runs.build import Checked

PLAN = "search.json"
FOLDERS = "hydra.searchpath="
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Base:
    """The config that a trial's knobs are set in, for one choice of the groups that are searched."""

    groups: dict[str, str]
    config: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A whole search.

    Attributes:
        typed: The overrides as typed, but for what is searched and Hydra's settings.
        axes: The axes that are searched.
        seeds: The seeds of a trial's runs, in their order.
        settings: The settings of the search.
        bases: A config for each combination of the groups that are searched.
        folders: The overrides that name folders of the user's own files.
    """

    typed: list[str] = field(compare=False)
    axes: list[Axis]
    seeds: list[int]
    settings: SearchSettings
    bases: list[Base]
    folders: list[str] = field(default_factory=list, compare=False)


def make_plan(overrides: Sequence[str], config_dir: str | None, config_name: str) -> Plan:
    """Composes and checks a search, to both ends of its intervals.

    Args:
        overrides: The overrides as typed, in Hydra's own terms.
        config_dir: A folder of the user's own files, or None.
        config_name: The name of the primary config.

    Raises:
        ConfigError: one line on the first thing that is wrong.
    """
    parsed = parse_overrides(overrides, config_dir)
    swept = {o.get_key_element(): o for o in parsed if o.is_sweep_override()}
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    compose_run(fixed, config_dir, config_name)
    settings = composed_settings(SearchSettings, HydraConfig.get().sweeper)
    check_classes(settings)
    taken = {o.get_key_element() for o in parsed}
    ready = [f"{key}={value}" for key, value in settings.params.items() if key not in taken]
    space = parse_overrides(ready, config_dir)
    swept |= {o.get_key_element(): o for o in space if o.is_sweep_override()}
    given = [str(o.input_line) for o in space if not o.is_sweep_override()]
    fixed += given
    seeds = _seeds(swept.pop("seed", None))
    axes = [_checked_axis(override) for override in swept.values()]
    if not axes:
        raise ConfigError(
            "nothing to search: type KEY=choice(A,B) or KEY=interval(LOW,HIGH), or a ready space, search=NAME"
        )
    checked = _checked_bases(axes, fixed, config_dir, config_name)
    bases = [base for base, _ in checked]
    words = [*_typed(overrides, {*swept, "seed"}), *given]
    folders = [word for word in overrides if word.startswith(FOLDERS)]
    plan = Plan(words, axes, seeds or [bases[0].config["seed"]], settings, bases, folders)
    _check_ends(plan)
    for _, found in checked:
        _check_update(axes, found)
    return plan


def _typed(overrides: Sequence[str], drawn: Collection[str]) -> list[str]:
    """What to type for a trial beside what is drawn for it."""
    words = [word for word in overrides if not (is_hydra(word) or word.startswith("search="))]
    chosen = any(word.startswith("env.id=") for word in words)  # which leaves out the preset on its own
    return [word for word in words if word.partition("=")[0] not in drawn and not (chosen and word == "~env")]


def check_classes(settings: SearchSettings) -> None:
    """Raises ConfigError where a setting is not what Optuna's classes take."""
    from ppo_cli.sweeps.search.study import make_pruner, make_sampler  # late: they bring Optuna

    make_pruner(settings)
    make_sampler(settings, 0)


def _seeds(override: Override | None) -> list[int]:
    if override is None:
        return []
    typed = override.input_line
    if isinstance(override.value(), IntervalSweep):
        raise ConfigError(f"{typed}: a trial's seeds are listed, as in seed=range(3)")
    try:
        seeds = [int(value) for value in override.sweep_string_iterator()]
    except ValueError as error:
        raise ConfigError(f"{typed}: expected integers") from error
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{typed}: expected seeds that differ, at least one")
    return seeds


def _checked_axis(override: Override) -> Axis:
    key = override.get_key_element().lstrip("+~")
    if _is_not_searched(key):
        raise ConfigError(
            f"{override.input_line}: {key} can't be searched, because trials would not be comparable; "
            "give it one value"
        )
    return to_axis(override)


def _is_not_searched(key: str) -> bool:
    return key == "search" or is_hydra(key) or not find_knob(key).searched


def _checked_bases(
    axes: Sequence[Axis], fixed: Sequence[str], config_dir: str | None, config_name: str
) -> list[tuple[Base, "Checked"]]:
    with importing():  # late: it brings PyTorch
        from ppo_cli.runs.build import check_environment

    bases = []
    for chosen in _combinations(axes):
        overrides = [*fixed, *(f"{key}={value}" for key, value in chosen.items())]
        config = compose_run(overrides, config_dir, config_name).config
        if not config.eval.episodes:
            raise ConfigError("eval.episodes=0: a search needs evaluations; give at least 1")
        if config.processes not in ("auto", 1):
            raise ConfigError(
                f"processes={config.processes}: a search follows runs of one process; leave it out"
            )
        checked = check_environment(config)
        bases.append((Base(chosen, to_dict(checked.config)), checked))
    return bases


def _combinations(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """Every choice of the groups that are searched."""
    groups = [axis for axis in axes if axis.key in GROUPS]
    values = itertools.product(*(axis.ends() for axis in groups))
    return [dict(zip((axis.key for axis in groups), each, strict=True)) for each in values]


def _check_ends(plan: Plan) -> None:
    """Every value, or both ends, of every axis on its own, and every seed; what else there is may not fit."""
    for base in plan.bases:
        for seed in plan.seeds:
            override_config(from_stored(base.config), [f"seed={seed}"])
    for _ in end_configs(plan):
        pass


def end_configs(plan: Plan) -> Iterator[Config]:
    """The config of every base, and of it with each value, or both ends, of every axis on its own."""
    for base in plan.bases:
        config = from_stored(base.config)
        yield config
        for axis in plan.axes:
            for value in axis.ends() if axis.key not in GROUPS else ():
                yield override_config(config, [f"{axis.key}={value}"])


def _check_update(axes: Sequence[Axis], base: "Checked") -> None:
    """Builds what a word, or an option of a user's own, stands for: alone, or beside the others' first.

    Raises:
        ConfigError: it can be built in neither way.
    """
    own = [axis for axis in axes if axis.key not in GROUPS]
    first = {axis.key: axis.ends()[0] for axis in own}
    for axis in own:
        for value in axis.ends() if find_knob(axis.key.lstrip("+")).kind not in NUMBERS else ():
            alone = {axis.key: value}
            if _refusal(base, alone) and (why := _refusal(base, first | alone)):
                raise why


def _refusal(base: "Checked", knobs: Mapping[str, str]) -> ConfigError | None:
    """Why a network, or the update that trains it, can't be built with those knobs."""
    from ppo_cli.runs.build import check_network  # late: it brings PyTorch

    try:
        check_network(
            override_config(base.config, [f"{key}={value}" for key, value in knobs.items()]), base.spaces
        )
    except ConfigError as error:
        return error
    return None


def job_config(plan: Plan, values: Mapping[str, str], seed: int) -> Config:
    """The config of one run of a trial.

    Args:
        plan: The plan of the search.
        values: The trial's value for each axis.
        seed: The seed of the run.

    Raises:
        ConfigError: the values do not go together.
    """
    groups = {key: value for key, value in values.items() if key in GROUPS}
    base = next(base for base in plan.bases if base.groups == groups)
    knobs = [f"{key}={value}" for key, value in values.items() if key not in GROUPS]
    config = override_config(from_stored(base.config), [*knobs, f"seed={seed}"])
    every = evaluate_every(plan.settings, config)
    return replace(config, eval=replace(config.eval, every=every))


def evaluate_every(settings: SearchSettings, config: Config) -> int:
    """Iterations between evaluations: as typed, or so that no point of comparison goes without one."""
    if config.eval.every:
        return int(config.eval.every)
    if settings.pruner == "none" and settings.objective == "final":
        return 0
    return int(max(1, config.iterations // settings.evaluations))


def trial_folder(number: int, values: Mapping[str, str]) -> str:
    """The name of a trial's folder."""
    return folder_name(f"{number:03}_{','.join(f'{key}={value}' for key, value in values.items())}")


def command_line(plan: Plan, values: Mapping[str, str]) -> str:
    """What to type to run a trial's config."""
    words = [*plan.folders, *plan.typed, *(f"{key}={value}" for key, value in values.items())]
    return shlex.join(["ppo-train", *words])


def save_plan(plan: Plan, folder: Path) -> None:
    """Writes `search.json`, whole or not at all."""
    write_whole(folder / PLAN, json.dumps(asdict(plan), indent=1) + "\n")


def load_plan(folder: Path) -> Plan:
    """What `save_plan` wrote, held against what a plan may say: the folder may come from anybody.

    Raises:
        ConfigError: the file is not a plan, or one that can't be run; one line.
    """
    try:
        stored = read_json(folder / PLAN)
        plan = Plan(
            [_word(word) for word in _of(list, stored["typed"])],
            [_axis(axis) for axis in _of(list, stored["axes"])],
            [_of(int, seed) for seed in _of(list, stored["seeds"])],
            read_settings(SearchSettings, _of(dict, stored["settings"])),
            [_base(base) for base in _of(list, stored["bases"])],
            [_folder(word) for word in _of(list, stored.get("folders", []))],  # older plans have none
        )
        _check_whole(plan)
        check_classes(plan.settings)
        _check_ends(plan)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OmegaConfBaseException) as error:
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        text = printable(flat(error))
        raise ConfigError(f"{folder / PLAN} is no search: {kind}{text:.1000}") from error
    return plan


def _of(kind: type[Kind], value: Any) -> Kind:  # noqa: ANN401
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"expected a {kind.__name__}, given {value!r:.80}")
    return value


def _word(value: Any) -> str:  # noqa: ANN401
    """A stored override: it is shown, to be typed; never one of Hydra's settings."""
    if not isinstance(value, str) or not value.isprintable() or not re.match(r"[+~]{0,2}\w", value):
        raise TypeError(f"expected an override, given {value!r:.80}")
    if is_hydra(value) or "${" in value:
        raise ValueError(f"it has {value:.200}, which isn't taken from a file")
    return value


def _folder(value: Any) -> str:  # noqa: ANN401
    """A stored folder of configs: it is shown, to be typed, and not looked into."""
    if not isinstance(value, str) or not value.isprintable() or not value.startswith(FOLDERS):
        raise TypeError(f"expected a folder of configs, given {value!r:.80}")
    return value


def _axis(stored: Any) -> Axis:  # noqa: ANN401
    axis = axis_from_dict(_of(dict, stored))
    key = _word(axis.key).lstrip("+")
    if _is_not_searched(key) or not (key in (*KNOBS, *GROUPS) or is_entry(key)):
        raise ValueError(f"{key:.80} can't be searched")
    for value in axis.ends():
        _word(f"{axis.key}={value}")
    return axis


def _base(stored: Any) -> Base:  # noqa: ANN401
    groups = {
        _word(key): _word(f"{key}={value}").partition("=")[2] for key, value in stored["groups"].items()
    }
    return Base(groups, to_dict(from_stored(_of(dict, stored["config"]))))


def _check_whole(plan: Plan) -> None:
    """Raises ValueError where a trial could draw what the plan has no config for."""
    if not plan.axes or not plan.seeds or [base.groups for base in plan.bases] != _combinations(plan.axes):
        raise ValueError("expected axes, seeds, and a config for each choice of a group")
    if len({axis.key for axis in plan.axes}) < len(plan.axes) or len(set(plan.seeds)) < len(plan.seeds):
        raise ValueError("an axis or a seed comes twice")
    if not all(base.config["eval"]["episodes"] for base in plan.bases):
        raise ValueError("eval.episodes=0: a search needs evaluations")
