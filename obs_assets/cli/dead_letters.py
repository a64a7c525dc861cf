"""``obs dead-letters``: what could not be read."""

import typer
from rich.table import Table

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json

dead_letters_app = typer.Typer(no_args_is_help=True, help="What could not be read, with file, offset and reason.")
app.add_typer(dead_letters_app, name="dead-letters")


@dead_letters_app.command("list")
def list_dead_letters(pipeline_name: Pipeline = "pipeline", as_json: AsJson = False) -> None:
    """Count the dead letters by file and reason."""
    rows = hourly_pipeline(pipeline_name).dead_letters()
    if as_json:
        print_json([dict(zip(("file", "reason", "letters", "bytes"), row, strict=True)) for row in rows])
        return
    table = Table("file", "reason", "letters", "bytes", box=None)
    for file, reason, letters, size in rows:
        table.add_row(file, reason, f"{letters:,}", f"{size:,}")
    out.print(table if rows else "no dead letters")
