"""How a sweep or a search starts: Hydra makes the sweeper that is chosen, which plans and runs the jobs."""

from collections.abc import Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from ppo_cli.config.compose import compose_job, fixed_folder, parse_overrides
from ppo_cli.config.explain import composing
from ppo_cli.config.quoting import hydra_quoted, shell_quoted
from ppo_cli.config.remembered import remember_files
from ppo_cli.config.schema import conf_dir
from ppo_cli.config.user_files import with_folder
from ppo_cli.errors import ConfigError, RunError
from ppo_cli.importing import importing
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.new_folder import is_hydra
from ppo_cli.runs.ranks import are_many
from ppo_cli.sweeps.ending import failed_table
from ppo_cli.sweeps.job import run_job
from ppo_cli.sweeps.plan import JOBS, REPLACED, key_of, load_jobs, plan_jobs, sweep_folder
from ppo_cli.sweeps.schema import OPTUNA, PREFIX, SWEEPER, check_extras, check_typed, without_swept
from ppo_cli.sweeps.search.plan import PLAN, load_plan, make_plan

OURS = "hydra_plugins.ppo_cli"  # what the targets of our sweepers begin with


def start(overrides: Sequence[str], config_dir: str | None, config_name: str, go_on: bool = False) -> None:
    """Starts a sweep or a search.

    Args:
        overrides: The overrides as typed, in Hydra's own terms.
        config_dir: A folder of the user's own files, or None.
        config_name: The name of the primary config.
        go_on: Whether to go on with the one that is there already, if one is.

    Raises:
        ConfigError: it can't be run like that, or another one is there.
        Interrupted: a signal ended it.
        RunError: jobs failed.
    """
    remember_files()
    if are_many():
        raise ConfigError("a sweep's jobs are runs of one process each: start it without torchrun")
    check_typed(overrides)
    parsed = parse_overrides(overrides, config_dir)
    if any(is_hydra(str(o.input_line)) and o.is_sweep_override() for o in parsed):
        raise ConfigError("settings of Hydra's can't be swept: give each one value")
    fixed = [str(override.input_line) for override in without_swept(parsed)]
    composed = compose_job(fixed, config_dir, config_name)
    if not str(composed.hydra.sweeper.get("_target_", "")).startswith(OURS):
        _start_other(overrides, config_dir, config_name, go_on)
        return
    if go_on and _gone_on(overrides, config_dir, config_name):
        return
    multirun(with_folder(overrides, config_dir), config_name)


def _gone_on(overrides: Sequence[str], config_dir: str | None, config_name: str) -> bool:
    """Goes on with what the folder that is named has, if it is what is typed; False where it has nothing."""
    folder = fixed_folder("sweep")
    settings = [o for o in overrides if is_hydra(o) and key_of(o) not in REPLACED]
    if OPTUNA in overrides and (folder / PLAN).is_file():
        is_same, settings = make_plan(overrides, config_dir, config_name) == load_plan(folder), []
    elif OPTUNA not in overrides and (folder / JOBS).is_file():
        is_same = plan_jobs(overrides, config_dir, config_name) == load_jobs(folder, settings)
    else:
        return False
    if not is_same:
        raise ConfigError(
            f"{folder} has other jobs than are typed now; name another folder for these, or "
            f"sweep.resume={shell_quoted(folder)} to go on with those"
        )
    resume(folder, settings)
    return True


def _start_other(overrides: Sequence[str], config_dir: str | None, config_name: str, go_on: bool) -> None:
    """Starts what another sweeper does, of whose jobs some are chosen on the way."""
    if go_on:
        raise ConfigError(
            "resume=auto: another sweeper than ppo-train's keeps no plan to go on with; leave it out"
        )
    plan_jobs(overrides, config_dir, config_name)
    with sweep_folder() as folder:
        multirun(
            [*with_folder(overrides, config_dir), f"hydra.sweep.dir={hydra_quoted(folder)}"], config_name
        )
        failed = sorted(note.parent.name for note in folder.glob(f"*/{RunFolder.failed_txt.name}"))
        if failed:
            raise RunError(f"{len(failed)} jobs of {folder} failed{failed_table(folder, failed)}")


def resume(folder: Path, overrides: Sequence[str]) -> None:
    """Runs what is missing of a sweep or a search, goes on with what is partial, leaves the rest alone.

    Args:
        folder: The folder of the sweep or the search.
        overrides: Settings of Hydra's to change, such as the launcher.

    Raises:
        ConfigError: the folder holds no sweep, or an override can't be taken.
        Interrupted: a signal ended it.
        RunError: jobs failed.
    """
    if (folder / PLAN).is_file():
        check_extras([OPTUNA])
        with importing():  # late: it brings Optuna and PyTorch
            from ppo_cli.sweeps.search.run import resume_search

        resume_search(folder, overrides)
        return
    for override in overrides:
        if not is_hydra(override):
            raise ConfigError(
                f"{override}: sweep.resume= takes settings of Hydra's only, such as hydra/launcher=joblib; "
                "the jobs keep their configs"
            )
        if key_of(override) == SWEEPER.removesuffix("="):
            raise ConfigError(f"{override}: a sweep goes on with the sweeper that planned it; leave it out")
    stored = load_jobs(folder, overrides)
    check_extras(stored.overrides)
    own = [f"hydra.sweep.dir={hydra_quoted(folder)}", f"{PREFIX}stored=true"]
    multirun([*stored.overrides, *own], stored.config_name)


def multirun(overrides: Sequence[str], config_name: str) -> None:
    """Has Hydra make the sweeper that the overrides choose, and sweep.

    Raises:
        ConfigError: a setting of Hydra's is none.
    """
    with composing():
        with initialize_config_dir(str(conf_dir()), "train", "1.3"):
            hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.multirun(config_name, run_job, [*overrides, "hydra.mode=MULTIRUN"])
