"""``obs alerts``: dispatches and what became of them."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Column, Table

from obs_assets.cli.app import AsJson, Pipeline, app, fail, hourly_pipeline, out, print_json
from obs_assets.delivery.dispatches import State
from obs_assets.hours import Hour

alerts_app = typer.Typer(
    no_args_is_help=True, help="Dispatches to webhooks: sent, waiting and given up."
)
app.add_typer(alerts_app, name="alerts")


@alerts_app.command("list")
def list_alerts(
    state: Annotated[State | None, typer.Option(help="Only dispatches in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 50,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """List dispatches: when, to which destination, how many events, what became of them."""
    rows = [
        row
        for outbox in hourly_pipeline(pipeline_name).outboxes().values()
        for row in outbox.dispatches(state, limit)
    ]
    if as_json:
        print_json([{k: v for k, v in asdict(row).items() if k != "body"} for row in rows])
        return
    ids = [row.webhook_id for row in rows]
    # Never cut or folded: `show` and `retry` take the id as it is printed here
    table = Table(
        Column("webhook id", no_wrap=True, min_width=max(map(len, ids), default=0)),
        "destination",
        "hour",
        "events",
        "state",
        "attempts",
        "last error",
        box=None,
    )
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


@alerts_app.command("firing")
def firing_alerts(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """List the alerts that fire, or are about to, after the latest hour; the view obs.alerts in PostgreSQL."""
    rows = [
        row
        for outbox in hourly_pipeline(pipeline_name).outboxes().values()
        for row in outbox.alerts()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("rule", "group", "status", "since", "value", "destination", box=None)
    for row in rows:
        group = ", ".join("(none)" if value is None else str(value) for value in row["group"])
        value = "" if row["value"] is None else f"{row['value']:g}"
        since = Hour.of(row["since"]).key
        table.add_row(row["rule"], group, row["status"], since, value, row["destination"])
    out.print(table if rows else "no alert fires")


@alerts_app.command("show")
def show_alert(
    webhook_id: Annotated[str, typer.Argument(help="As `obs alerts list` shows it.")],
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Show a dispatch and the redacted body that is sent."""
    for outbox in hourly_pipeline(pipeline_name).outboxes().values():
        for row in outbox.dispatches(limit=1, webhook_id=webhook_id):
            values = {**asdict(row), "body": row.body.decode(errors="replace")}
            if as_json:
                print_json(values)
            else:
                out.print("\n".join(f"{k}: {v}" for k, v in values.items()), highlight=False)
            return
    fail(f"there is no dispatch {webhook_id!r}", 1)


@alerts_app.command("retry")
def retry_alert(
    webhook_id: Annotated[str, typer.Argument(help="As `obs alerts list` shows it.")],
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Send a dispatch that was given up once more, with the same id and the same bytes; exit 1 if it is not taken."""
    for outbox in hourly_pipeline(pipeline_name).outboxes().values():
        if outbox.retry(webhook_id):
            stats = outbox.drain(datetime.now(UTC))
            waiting = [
                *outbox.dispatches("pending", sys.maxsize),
                *outbox.dispatches("failed", sys.maxsize),
            ]
            sent = webhook_id not in {row.webhook_id for row in waiting}
            if as_json:
                print_json({"webhook_id": webhook_id, "sent": sent, **stats})
            else:
                out.print(
                    f"{webhook_id} is {'sent' if sent else 'not sent: see `obs alerts list`'}",
                    highlight=False,
                )
            raise typer.Exit(0 if sent else 1)
    fail(f"no dispatch {webhook_id!r} was given up", 1)
