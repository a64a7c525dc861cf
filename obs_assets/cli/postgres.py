"""``obs postgres``: make and migrate the tables, and keep their leaves in order."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.destinations.postgres import PostgresDestination
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

postgres = typer.Typer(
    no_args_is_help=True,
    help="Make and migrate the tables of events, and keep their leaves in order.",
)
app.add_typer(postgres, name="postgres")

Reader = Annotated[
    str,
    typer.Option(
        "--reader", help="The role that may read the events and nothing else; '' for none."
    ),
]


@postgres.command()
def init(
    pipeline_name: Pipeline = "", reader: Reader = "obs_reader", as_json: AsJson = False
) -> None:
    """Make tables and ledger, or migrate them to this version, and make a role for readers; says what it does."""
    tables = _tables(hourly_pipeline(pipeline_name))
    done = {table.key: table.init(reader=reader or None) for table in tables}
    _print(done, as_json, nothing="is up to date")


@postgres.command()
def upkeep(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Drop the leaves that retention_days no longer keeps, and roll small old leaves up into larger ones."""
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
