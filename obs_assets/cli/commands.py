"""The table of commands, and the group that imports a command's module when the command is used.

The modules of commands import databases and engines, which takes a second. ``obs --help`` imports none of them.
"""

from importlib import import_module
from typing import Any, NamedTuple

from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class Row(NamedTuple):
    """A command, or a group of commands.

    Attributes:
        module: name of the module in `obs_assets.cli` that adds it to the application; a module of
            another package is named in full.
        summary: first sentence of its help, for the list of ``obs --help``.
    """

    module: str
    summary: str


COMMANDS: dict[str, Row] = {
    "up": Row("servers", "Start the embedded PostgreSQL and S3 server; print their addresses."),
    "down": Row("servers", "Stop the embedded servers; data is kept."),
    "status": Row(
        "servers",
        "Show files and events that have landed, events of the last day, stale hours, tables and servers.",
    ),
    "dev": Row(
        "dev", "Start Dagster's UI, schedule and sensors, the explorer and the receiver."
    ),
    "env": Row(
        "connections",
        'Print variables, passwords included, for psql, AWS tools and Dagster: eval "$(obs env)".',
    ),
    "psql": Row(
        "connections",
        "Open psql on the tables of events, in the embedded PostgreSQL or in your own.",
    ),
    "land": Row(
        "running", "Land new events of the event files, in a run that Dagster's UI shows."
    ),
    "build": Row(
        "running",
        "Build hours that have landed, up to every destination, in a run that Dagster's UI shows.",
    ),
    "init": Row(
        "configuration",
        "Write a pipeline, DIR/pipelines/NAME/defs.yaml, its tests, and a README with the next commands.",
    ),
    "import": Row(
        "importing", "Write a pipeline file from the configuration of Vector or Fluent Bit."
    ),
    "validate": Row(
        "configuration",
        "Check pipeline files, then whether events folders and servers can be reached. Starts no server.",
    ),
    "test": Row(
        "testing",
        "Run the tests beside pipeline files: given events, expected outcomes. Starts no server.",
    ),
    "inspect": Row(
        "inspection",
        "Read event files as the pipeline would, and print format, times, levels and counts. Nothing lands.",
    ),
    "search": Row(
        "searching",
        "Find stored events: a line for each event, then the range that was searched.",
    ),
    "tail": Row(
        "tailing",
        "Print events as they are stored: the new rows of each hour that is loaded or replaced.",
    ),
    "where": Row(
        "whereabouts",
        "Say where an event is: stored, sampled out, filtered, dead, waiting, not landed or expired.",
    ),
    "serve": Row("serving", "Serve the search API and the explorer over HTTP."),
    "receive": Row(
        "receiving",
        "Receive events over HTTP (OpenTelemetry, JSON, Splunk, Elasticsearch) and write them into event files.",
    ),
    "tokens": Row("tokens", "Tokens of clients of the search API."),
    "verify": Row(
        "verification",
        "Count hours again in every store and compare contents; exit code 1 on any difference.",
    ),
    "scan": Row(
        "verification",
        "Look for personal data and secrets that redaction missed; exit code 1 if there are any.",
    ),
    "redact": Row(
        "redaction",
        "Print JSON events redacted as the pipeline redacts them; counts by type go to standard error.",
    ),
    "expire": Row(
        "retention",
        "Remove landed events, dead letters, raw and enriched frames older than retention_days.",
    ),
    "adopt": Row(
        "adoption", "Take over hours that destinations hold from another data folder."
    ),
    "metrics": Row(
        "metrics",
        "Print lag, missing hours, events, drops by reason and dispatches, for Prometheus.",
    ),
    "backtest": Row(
        "backtest", "Dry-run alert rules over hours that were built, beside the present rules."
    ),
    "diff": Row(
        "diff", "Dry-run a changed pipeline file on hours that have landed; changes nothing."
    ),
    "dead-letters": Row(
        "dead_letters",
        "Records that could not be read or redacted, with file, offset and reason.",
    ),
    "alerts": Row("alerts", "Dispatches to webhooks: sent, waiting and given up."),
    "postgres": Row(
        "postgres", "Create and migrate the tables of events; maintain their partitions."
    ),
    "s3": Row("s3", "The archive: list and read its objects, restore hours from it."),
}
"""Name → its row, in the order of ``obs --help``. A new command is a row here."""


class CommandsOnDemand(TyperGroup):
    """A group whose commands are listed from `COMMANDS`. A command's module is imported when it is used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        listed = {name: TyperCommand(name, help=row.summary) for name, row in COMMANDS.items()}
        self.commands = {**listed, **self.commands}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names, imported."""
        name = args[0]
        if name in COMMANDS:
            self.commands[name] = imported(name)
        return super().resolve_command(ctx, args)


def imported(name: str) -> Any:
    """The command of this name, after the import of its module."""
    from obs_assets.cli.app import app

    module = COMMANDS[name].module
    if "." not in module:
        module = f"obs_assets.cli.{module}"
    import_module(module)
    return get_group(app).commands[name]
