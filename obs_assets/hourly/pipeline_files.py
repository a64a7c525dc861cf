"""Where pipeline files are: one folder for each pipeline, with a file ``defs.yaml`` in it.

Dagster's definitions, the command line, the demo, ``make dev`` and `read_hour` all ask here, so that all of them see
the same pipelines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from obs_assets import settings
from obs_assets.delivery.kinds import kind_of
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE
from obs_assets.settings import Settings

VARIABLE = settings.PIPELINES_DIR
FILE_NAME = "defs.yaml"

OWN_DIR = Path("pipelines")
"""Looked at below the working directory when the variable is not set."""

PACKAGED_DIR = Path(__file__).parents[1] / "defs"
"""The example that the package brings: used where there is no pipeline of one's own."""


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline that was found.

    Attributes:
        name: of its folder; ``--pipeline`` takes it.
        path: of its ``defs.yaml``.
    """

    name: str
    path: Path

    def open(
        self, env: Mapping[str, str] | None = None, machine: Settings | None = None
    ) -> HourlyPipeline:
        """Read the file, and bind the pipeline to this machine.

        Args:
            env: for ``{{ env.NAME }}`` in the file, and for the settings; the process's environment by default.
            machine: the settings, instead of those of the environment.

        Raises:
            ConfigurationError: the file is wrong; says file, line and field.
        """
        config = pipeline.load(self.path, env)
        return HourlyPipeline(
            config, machine or settings.load(env), config.stored_name(self.name)
        )


def pipelines_dir(env: Mapping[str, str] | None = None) -> Path:
    """The folder that holds the pipelines: the variable's, else ``./pipelines`` if there are any, else the package's.

    Args:
        env: the process's environment by default.

    Raises:
        ConfigurationError: the variable names a folder that is missing, or that holds no pipeline.
    """
    named = (settings.environment() if env is None else env).get(VARIABLE)
    folder = Path(named).absolute() if named else OWN_DIR.absolute()
    if named and not folder.is_dir():
        raise ConfigurationError(
            f"{VARIABLE} names {folder}, which is no folder: create it, or unset the variable"
        )
    if _files_in(folder):
        return folder
    misplaced = [path for pattern in (FILE_NAME, "*/defs.yml") for path in folder.glob(pattern)]
    if misplaced:
        raise ConfigurationError(
            f"{misplaced[0]} is not where a pipeline file is looked for: {folder}/NAME/{FILE_NAME}, "
            f"one folder for each pipeline"
        )
    if named:
        raise ConfigurationError(
            f"{VARIABLE} names {folder}, which holds no pipeline: put one at {folder}/NAME/{FILE_NAME}, "
            f"for example by `obs init`"
        )
    return PACKAGED_DIR


def list_files(env: Mapping[str, str] | None = None) -> list[PipelineFile]:
    """All pipelines, by name.

    Args:
        env: the process's environment by default.

    Raises:
        ConfigurationError: see `pipelines_dir`.
    """
    return _files_in(pipelines_dir(env))


def find(name: str = "", env: Mapping[str, str] | None = None) -> PipelineFile:
    """The pipeline of that name.

    Args:
        name: of its folder, or of its data below ``OBS_DATA_DIR/pipelines``. Empty: the only pipeline, or of several
            the one whose ``asset_prefix`` is empty.
        env: the process's environment by default.

    Raises:
        ConfigurationError: there is none of that name, or several and no name was given.
    """
    files = list_files(env)
    of_this_name = [file for file in files if file.name == name]
    if of_this_name:
        return of_this_name[0]
    if not name and len(files) == 1:
        return files[0]
    stored = [file for file in files if _stored_name(file, env) == (name or DEFAULT_PIPELINE)]
    if stored:
        return stored[0]
    folder, known = files[0].path.parents[1], ", ".join(file.name for file in files)
    if name:
        raise ConfigurationError(
            f"no pipeline is called {name!r}; in {folder} there are {known}"
        )
    raise ConfigurationError(
        f"there are several pipelines in {folder}: choose with --pipeline one of {known}"
    )


def open_all(
    files: Iterable[PipelineFile], env: Mapping[str, str] | None = None
) -> tuple[dict[PipelineFile, HourlyPipeline], dict[PipelineFile, str]]:
    """Open pipelines, each for itself.

    Args:
        files: as `list_files` finds them.
        env: the process's environment by default.

    Returns:
        The pipelines that are right, and of each other file the mistakes, one a line.
    """
    opened: dict[PipelineFile, HourlyPipeline] = {}
    problems: dict[PipelineFile, str] = {}
    owners: dict[str, PipelineFile] = {}
    for file in files:
        try:
            hourly = file.open(env)
        except ObsError as error:
            problems[file] = str(error)
            continue
        things = [f"the name or asset_prefix {hourly.name}", *_places(hourly)]
        taken = [thing for thing in things if thing in owners or things.count(thing) > 1]
        if taken:
            owner = owners.get(taken[0], file)
            problems[file] = (
                f"{file.path}: {owner.path} has {taken[0]} already: give each one of its own"
            )
        else:
            opened[file] = hourly
            owners.update(dict.fromkeys(things, file))
    return opened, problems


def _places(hourly: HourlyPipeline) -> list[str]:
    """Where the destinations keep their hours: a second pipeline there would replace them."""
    places = [kind_of(block).place(block) for block in hourly.config.enabled_destinations]
    return [place for place in places if place]


def open_pipeline(name: str = "", env: Mapping[str, str] | None = None) -> HourlyPipeline:
    """The pipeline of that name with this machine's settings: `find`, then `PipelineFile.open`."""
    return find(name, env).open(env)


def _files_in(folder: Path) -> list[PipelineFile]:
    paths = sorted(folder.glob(f"*/{FILE_NAME}"))
    return [
        PipelineFile(path.parent.name, path)
        for path in paths
        if not path.parent.name.startswith(".")
    ]


def _stored_name(file: PipelineFile, env: Mapping[str, str] | None) -> str:
    """The name of a pipeline's data; its folder's while its file is wrong."""
    try:
        return pipeline.load(file.path, env).stored_name(file.name)
    except ConfigurationError:
        return file.name
