"""Finds pipeline files: each pipeline has a folder with a file ``defs.yaml``.

Dagster's definitions, the command line, the demo, ``make dev`` and `read_hour` call this module, so
all of them see the same pipelines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from obs_assets import settings
from obs_assets.delivery.kinds import kind_of
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE
from obs_assets.settings import Settings

VARIABLE = settings.PIPELINES_DIR
"""Environment variable that names the folder of the pipelines."""

FILE_NAME = "defs.yaml"
"""Name of a pipeline file."""

OWN_DIR = Path("pipelines")
"""Folder of the pipelines when the variable is unset, relative to the working directory."""

PACKAGED_DIR = Path(__file__).parents[1] / "defs"
"""Folder of the packaged example, for users without pipelines."""


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline that was found.

    Attributes:
        name: name of its folder, for ``--pipeline``.
        path: path of its ``defs.yaml``.
    """

    name: str
    path: Path

    def open(
        self,
        env: Mapping[str, str] | None = None,
        machine: Settings | None = None,
        text: str | None = None,
    ) -> HourlyPipeline:
        """Read the file, and bind the pipeline to this machine.

        Args:
            env: environment for ``{{ env.NAME }}`` in the file and for the settings; the process's
                environment by default.
            machine: settings to use instead of those of the environment.
            text: content to use instead of the file's.

        Raises:
            ConfigurationError: the file is wrong; the message says file, line and field.
        """
        config = pipeline.load(self.path, env, text)
        machine = machine or settings.load(env)
        return HourlyPipeline(config, machine, config.stored_name(self.name))


def pipelines_dir(env: Mapping[str, str] | None = None) -> Path:
    """The folder of the pipelines.

    It is the folder that the variable names, else ``./pipelines`` if that holds a pipeline, else the
    folder of the packaged example.

    Args:
        env: environment; the process's environment by default.

    Raises:
        ConfigurationError: the variable names a folder that is missing, or that holds no pipeline.
    """
    if env is None:
        env = settings.environment()
    named = env.get(VARIABLE)
    folder = Path(named or OWN_DIR).absolute()
    if named and not folder.is_dir():
        raise ConfigurationError(
            f"{VARIABLE} names {folder}, which is no folder: create it, or unset the variable"
        )
    if _files_in(folder):
        return folder
    # Two frequent mistakes; without a message, the packaged example would run instead.
    misplaced = [*folder.glob(FILE_NAME), *folder.glob("*/defs.yml")]
    if misplaced:
        raise ConfigurationError(
            f"{misplaced[0]} is in the wrong place: a pipeline file is {folder}/NAME/{FILE_NAME}, "
            f"in a folder of its own"
        )
    if named:
        raise ConfigurationError(
            f"{VARIABLE} names {folder}, which holds no pipeline: create {folder}/NAME/{FILE_NAME}, "
            f"for example with `obs init`"
        )
    return PACKAGED_DIR


def list_files(env: Mapping[str, str] | None = None) -> list[PipelineFile]:
    """All pipelines, sorted by name.

    Args:
        env: environment; the process's environment by default.

    Raises:
        ConfigurationError: see `pipelines_dir`.
    """
    return _files_in(pipelines_dir(env))


def find(name: str = "", env: Mapping[str, str] | None = None) -> PipelineFile:
    """The pipeline of that name.

    Args:
        name: name of its folder, or of its data below ``OBS_DATA_DIR/pipelines``. An empty name
            means the only pipeline, or of several the pipeline whose ``asset_prefix`` is empty.
        env: environment; the process's environment by default.

    Raises:
        ConfigurationError: no pipeline has that name, or the name is empty and there are several.
    """
    files = list_files(env)
    of_this_name = [file for file in files if file.name == name]
    if of_this_name:
        return of_this_name[0]
    if not name and len(files) == 1:
        return files[0]
    wanted = name or DEFAULT_PIPELINE
    stored = [file for file in files if _stored_name(file, env) == wanted]
    if stored:
        return stored[0]
    folder = files[0].path.parents[1]
    known = ", ".join(file.name for file in files)
    if name:
        raise ConfigurationError(
            f"no pipeline is called {name!r}; in {folder} there are {known}"
        )
    raise ConfigurationError(
        f"there are several pipelines in {folder}: choose with --pipeline from {known}"
    )


def open_all(
    files: Iterable[PipelineFile],
    env: Mapping[str, str] | None = None,
    texts: Mapping[PipelineFile, str | None] = MappingProxyType({}),
) -> tuple[dict[PipelineFile, HourlyPipeline], dict[PipelineFile, str]]:
    """Open pipelines; a mistake in one file does not stop the others.

    Args:
        files: pipeline files, for example from `list_files`. Of two that want the same table, the
            first has it.
        env: environment; the process's environment by default.
        texts: file → content to use instead of the file's.

    Returns:
        File → pipeline for the correct files, and file → its mistakes, a line each, for the others.
    """
    opened: dict[PipelineFile, HourlyPipeline] = {}
    problems: dict[PipelineFile, str] = {}
    owners: dict[str, PipelineFile] = {}
    for file in files:
        try:
            hourly = file.open(env, text=texts.get(file))
        except ObsError as error:
            problems[file] = str(error)
            continue
        claims = [f"the name or asset_prefix {hourly.name}", *_stores(hourly)]
        taken = [claim for claim in claims if claim in owners or claims.count(claim) > 1]
        if taken:
            # Without an owner, two destinations of this file have the same table or folder.
            owner = owners.get(taken[0], file)
            problems[file] = (
                f"{file.path}: {owner.path} has {taken[0]} already: give each its own"
            )
            continue
        opened[file] = hourly
        owners.update(dict.fromkeys(claims, file))
    return opened, problems


def _stores(hourly: HourlyPipeline) -> list[str]:
    """Tables and folders of the destinations: a second pipeline that writes there would replace hours."""
    stores = [
        kind_of(block).place(block) for block in hourly.config.destinations if block.enabled
    ]
    return [store for store in stores if store]


def open_pipeline(name: str = "", env: Mapping[str, str] | None = None) -> HourlyPipeline:
    """The pipeline of that name with this machine's settings: `find`, then `PipelineFile.open`."""
    return find(name, env).open(env)


def _files_in(folder: Path) -> list[PipelineFile]:
    files = [PipelineFile(path.parent.name, path) for path in folder.glob(f"*/{FILE_NAME}")]
    # Editors and version control keep copies in folders whose name begins with a dot.
    visible = [file for file in files if not file.name.startswith(".")]
    return sorted(visible, key=lambda file: file.path)


def _stored_name(file: PipelineFile, env: Mapping[str, str] | None) -> str:
    """The name of a pipeline's data; of a wrong file, the name of its folder."""
    try:
        return pipeline.load(file.path, env).stored_name(file.name)
    except ConfigurationError:
        return file.name
