"""``obs postgres``: create and migrate the tables of events, maintain their partitions."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.destinations.postgres import PostgresDestination
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

postgres = typer.Typer(
    no_args_is_help=True,
    help="Create and migrate the tables of events; maintain their partitions.",
)
app.add_typer(postgres, name="postgres")

Reader = Annotated[
    str,
    typer.Option("--reader", help="A role that may only read the events; '' creates no role."),
]


@postgres.command()
def init(
    pipeline_name: Pipeline = "", reader: Reader = "obs_reader", as_json: AsJson = False
) -> None:
    """Create or migrate tables and ledger, create a role for readers; print each step."""
    tables = _tables(hourly_pipeline(pipeline_name))
    done = {table.key: table.init(reader=reader or None) for table in tables}
    _print(done, as_json, nothing="is up to date")


@postgres.command()
def upkeep(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Drop partitions older than retention_days; merge small old partitions."""
    now = datetime.now(UTC)
    done = {
        found.key: found.upkeep.run(now) for found in _tables(hourly_pipeline(pipeline_name))
    }
    _print(done, as_json, nothing="needs nothing")


def _tables(hourly: HourlyPipeline) -> list[PostgresDestination]:
    tables = list(hourly.tables().values())
    if not tables:
        raise ConfigurationError(
            "the pipeline has no destination of type postgres that is enabled"
        )
    return tables


def _print(done: dict[str, list[str]], as_json: bool, nothing: str) -> None:
    if as_json:
        print_json(done)
        return
    for key, lines in done.items():
        for line in lines or [nothing]:
            out.print(f"{key:>18}  {line}", highlight=False)
