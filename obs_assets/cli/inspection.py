"""``obs inspect``: the events of files as the pipeline would read them, before anything lands."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from obs_assets.cli.app import AsJson, Pipeline, app, counted, hourly_pipeline, out, print_json


@app.command("inspect")
def inspect_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Event files.")],
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Read event files as the pipeline would, and print format, times, levels and counts. Nothing lands.

    Exit code 1 if there are dead letters, or a file cannot be read to its end.
    """
    # Imported here: the readers of all formats would slow every other command down.
    from obs_assets.audit.inspection import Inspection, inspect_file

    hourly = hourly_pipeline(pipeline_name)
    found = [inspect_file(hourly, path) for path in files]
    if as_json:
        print_json([asdict(inspection) for inspection in found])
    else:
        for inspection in found:
            out.print(_table(inspection))
    has_problem = any(
        isinstance(inspection, Inspection) and (inspection.dead_letters or inspection.warnings)
        for inspection in found
    )
    raise typer.Exit(int(has_problem))


def _table(found: "Inspection") -> Table:  # type: ignore[name-defined]  # noqa: F821
    table = Table(show_header=False, box=None, title=found.file, title_justify="left")
    dead = ", ".join(
        f"{name} {counted(lines, 'line')}" for name, lines in found.dead_lines.items()
    )
    if dead:
        dead += f" ({found.share_dead:.1%} of all)"
    times = "none"
    if found.first:
        times = f"{found.first:%Y-%m-%d %H:%M:%S} to {found.last:%Y-%m-%d %H:%M:%S} UTC"
    looked_at = sum(found.time_from.values())
    of = ""
    if looked_at < found.events:
        of = f", of {looked_at:,}"
    rows = {
        "compression": found.compression,
        "encoding": found.encoding,
        "framing": found.framing,
        "format": _counts(found.formats),
        "events": f"{found.events:,}",
        "dead letters": dead or "none",
        "times": times,
        f"time from{of}": _counts(found.time_from),
        f"type from{of}": _counts(found.type_from),
        f"id from{of}": _counts(found.id_from),
        "levels": _counts(found.levels),
        "remarks": _counts(found.remarks),
        "warnings": _counts(found.warnings),
        "would be redacted": _counts(found.redacted),
        "would be dropped": _counts(found.dropped),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _counts(counts: Mapping[str, int]) -> str:
    """``error 3, info 1,204``."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"
