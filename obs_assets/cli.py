"""The command line, ``obs``: servers, configuration, and questions to an hour.

Exit codes: 0 all is well, 1 a finding, 2 misuse or a wrong setting.
"""

import json
import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from obs_assets import embedded, pipeline, settings
from obs_assets.delivery.outbox import State
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly import HourlyPipeline
from obs_assets.hours import Hour, parse_hours

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Event files in, trusted hours out. Hours are written as Dagster's keys, 2025-12-04-10:00, ranges as A...B.",
)
dead_letters_app = typer.Typer(no_args_is_help=True, help="What could not be read, with file, offset and reason.")
alerts_app = typer.Typer(no_args_is_help=True, help="Dispatches to webhooks: sent, waiting and given up.")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(alerts_app, name="alerts")

out = Console(soft_wrap=True)

Pipeline = Annotated[str, typer.Option("--pipeline", help="Which pipeline: the name of its folder below defs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Hours = Annotated[str, typer.Argument(metavar="HOUR|A...B", help="An hour, 2025-12-04-10:00, or a range A...B.")]


def main() -> None:
    """Run the command line; every error is one sentence."""
    try:
        app()
    except ConfigurationError as error:
        _fail(str(error), 2)
    except ObsError as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"obs: {message}", err=True)
    sys.exit(code)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _hourly(name: str) -> HourlyPipeline:
    return HourlyPipeline(pipeline.load(pipeline.file_of(name)), settings.load(), name)


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start the embedded PostgreSQL and S3 server, or say that they run."""
    machine = settings.load()
    embedded.resolve(machine)
    _print_servers(machine.data_dir, as_json)


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop the embedded servers; their data stays."""
    stopped = embedded.stop(settings.load().data_dir)
    if as_json:
        _print_json({"stopped": stopped})
    else:
        out.print(f"stopped {', '.join(stopped)}" if stopped else "no embedded server was running")


@app.command()
def status(pipeline_name: Pipeline = "pipeline", as_json: AsJson = False) -> None:
    """Show the embedded servers, what has landed and which hours are stale."""
    hourly = _hourly(pipeline_name)
    landed = hourly.landed()
    looked_at = hourly.log.looked_at()
    facts = {
        "events folder": str(hourly.config.source.events_dir or "not set: OBS_EVENTS_DIR"),
        "data folder": str(hourly.settings.data_dir),
        "last landing pass": looked_at.isoformat(timespec="seconds") if looked_at else "none yet",
        "files landed": len(landed.files),
        "hours landed": len(landed.hours),
        "events landed": sum(hour.rows for hour in landed.hours.values()),
        "stale hours": len(hourly.stale_hours()),
    }
    if as_json:
        _print_json({**facts, "servers": [asdict(server) for server in embedded.status(hourly.settings.data_dir)]})
        return
    for name, value in facts.items():
        out.print(f"{name:>18}  {value:,}" if isinstance(value, int) else f"{name:>18}  {value}", highlight=False)
    _print_servers(hourly.settings.data_dir, as_json=False)


def _print_servers(data_dir: Path, as_json: bool) -> None:
    servers = embedded.status(data_dir)
    if as_json:
        _print_json([asdict(server) for server in servers])
        return
    for server in servers:
        state = f"running at {server.address} (pid {server.pid})" if server.running else "not running"
        out.print(f"{server.name:>18}  {state}", highlight=False)


@app.command()
def validate(
    file: Annotated[Path | None, typer.Argument(help="A pipeline file; the project's own by default.")] = None,
    pipeline_name: Pipeline = "pipeline",
    offline: Annotated[bool, typer.Option("--offline", help="Do not try to reach the servers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a pipeline file, then whether its events folder and its servers can be reached."""
    path = file or pipeline.file_of(pipeline_name)
    hourly = HourlyPipeline(pipeline.load(path), settings.load(), pipeline_name)
    findings: dict[str, str] = {}
    lines = {"configuration": f"{path} is right"}
    if not offline:
        for name, question in {
            "events folder": _check_source,
            **dict.fromkeys(hourly.destination_names, _check_destination),
        }.items():
            try:
                lines[name] = question(hourly, name)
            except ObsError as error:
                lines[name] = findings[name] = str(error)
    if as_json:
        _print_json({"checks": lines, "findings": findings})
    else:
        for name, line in lines.items():
            out.print(
                f"[{'red' if name in findings else 'green'}]{'✗' if name in findings else '✓'}[/] {name:>18}  {line}",
                highlight=False,
            )
    if findings:
        raise typer.Exit(1)


def _check_source(hourly: HourlyPipeline, _: str) -> str:
    return f"{len(hourly.listing().files):,} event files in {hourly.config.source.events_dir}"


def _check_destination(hourly: HourlyPipeline, name: str) -> str:
    return hourly.destination(name).check()


@app.command()
def verify(hours: Hours, pipeline_name: Pipeline = "pipeline", as_json: AsJson = False) -> None:
    """Count an hour again in every store and compare contents; exit 1 on any difference."""
    from obs_assets.verify import verify as verify_hour

    hourly = _hourly(pipeline_name)
    found = [(hour, verdict) for hour in parse_hours(hours) for verdict in verify_hour(hourly, hour)]
    if as_json:
        _print_json([{"hour": hour.key, "ok": verdict.ok, **asdict(verdict)} for hour, verdict in found])
    else:
        for hour, verdict in found:
            mark = "[green]✓[/]" if verdict.ok else "[red]✗[/]"
            out.print(f"{mark} {hour}  {verdict.store:<16}  {verdict}", highlight=False)
    if not all(verdict.ok for _, verdict in found):
        raise typer.Exit(1)


@app.command()
def redact(
    file: Annotated[typer.FileText, typer.Argument(help="A file of JSON lines, or - for standard input.")],
    pipeline_name: Pipeline = "pipeline",
    as_json: AsJson = False,
) -> None:
    """Print JSON lines redacted as the pipeline would; counts by type go to standard error."""
    from obs_assets.transforms.redact import redact_text

    hourly = _hourly(pipeline_name)
    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    counts: Counter[str] = Counter()
    lines: list[str] = []
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            json.loads(line)
        except ValueError:
            _fail(f"line {number} of {file.name} is not JSON", 1)
        text, found = redact_text(line.strip(), hourly.config.redact, secret)
        counts.update(found)
        if as_json:
            lines.append(text)
        else:
            typer.echo(text)
    if as_json:  # the events as they are, so that their numbers keep all digits
        typer.echo(f'{{"events": [{", ".join(lines)}], "redacted": {json.dumps(counts)}}}')
        return
    typer.echo(", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "nothing to redact", err=True)


@dead_letters_app.command("list")
def list_dead_letters(pipeline_name: Pipeline = "pipeline", as_json: AsJson = False) -> None:
    """Count the dead letters by file and reason."""
    rows = _hourly(pipeline_name).dead_letters()
    if as_json:
        _print_json([dict(zip(("file", "reason", "letters", "bytes"), row, strict=True)) for row in rows])
        return
    table = Table("file", "reason", "letters", "bytes", box=None)
    for file, reason, letters, size in rows:
        table.add_row(file, reason, f"{letters:,}", f"{size:,}")
    out.print(table if rows else "no dead letters")


@alerts_app.command("list")
def list_alerts(
    state: Annotated[State | None, typer.Option(help="Only dispatches in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 50,
    pipeline_name: Pipeline = "pipeline",
    as_json: AsJson = False,
) -> None:
    """List dispatches: when, to which destination, how many events, what became of them."""
    rows = [row for outbox in _hourly(pipeline_name).outboxes() for row in outbox.dispatches(state, limit)]
    if as_json:
        _print_json([{k: v for k, v in asdict(row).items() if k != "body"} for row in rows])
        return
    table = Table("webhook id", "destination", "hour", "events", "state", "attempts", "last error", box=None)
    for row in rows:
        table.add_row(
            row.webhook_id,
            row.destination,
            Hour.of(row.hour).key,
            str(row.events),
            row.state,
            str(row.attempts),
            row.last_error or "",
        )
    out.print(table if rows else "no dispatches")


@alerts_app.command("retry")
def retry_alert(
    webhook_id: Annotated[str, typer.Argument(help="As `obs alerts list` shows it.")],
    pipeline_name: Pipeline = "pipeline",
    as_json: AsJson = False,
) -> None:
    """Send a dispatch that was given up once more, with the same id and the same bytes; exit 1 if it is not taken."""
    for outbox in _hourly(pipeline_name).outboxes():
        if outbox.retry(webhook_id):
            stats = outbox.drain(datetime.now(UTC))
            waiting = [*outbox.dispatches("pending", sys.maxsize), *outbox.dispatches("failed", sys.maxsize)]
            sent = webhook_id not in {row.webhook_id for row in waiting}
            if as_json:
                _print_json({"webhook_id": webhook_id, "sent": sent, **stats})
            else:
                out.print(f"{webhook_id} is {'sent' if sent else 'not sent: see `obs alerts list`'}", highlight=False)
            raise typer.Exit(0 if sent else 1)
    _fail(f"no dispatch {webhook_id!r} was given up", 1)
