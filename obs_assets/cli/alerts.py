"""``obs alerts``: list, show and repeat the dispatches of webhooks; list the alerts that fire."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from obs_assets.cli.app import AsJson, Pipeline, app, fail, hourly_pipeline, out, print_json
from obs_assets.delivery.dispatches import Dispatch, State
from obs_assets.hours import Hour

alerts_app = typer.Typer(
    no_args_is_help=True, help="Dispatches to webhooks: sent, waiting and given up."
)
app.add_typer(alerts_app, name="alerts")

WebhookId = Annotated[
    str, typer.Argument(help="The webhook id, as `obs alerts list` prints it.")
]


@alerts_app.command("list")
def list_alerts(
    state: Annotated[State | None, typer.Option(help="Only dispatches in this state.")] = None,
    limit: Annotated[int, typer.Option(help="Show at most N, newest first.", min=1)] = 50,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """List dispatches: webhook id, destination, hour, number of events, state."""
    rows: list[Dispatch] = []
    for outbox in hourly_pipeline(pipeline_name).outboxes().values():
        rows += outbox.dispatches(state, limit)
    if as_json:
        print_json([_without_body(row) for row in rows])
        return
    if not rows:
        out.print("no dispatches")
        return
    # Never cut or folded: `show` and `retry` take the id as it is printed here.
    width = max(len(row.webhook_id) for row in rows)
    webhook_id = Column("webhook id", no_wrap=True, min_width=width)
    heads = ("destination", "hour", "events", "state", "attempts", "last error")
    table = Table(webhook_id, *heads, box=None)
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
    out.print(table)


def _without_body(row: Dispatch) -> dict[str, Any]:
    # A body can have megabytes. `obs alerts show` prints it.
    values = asdict(row)
    del values["body"]
    return values


@alerts_app.command("firing")
def firing_alerts(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """List the alerts that fire or are pending after the latest hour.

    The view obs.alerts in PostgreSQL shows the same.
    """
    rows: list[dict[str, Any]] = []
    for outbox in hourly_pipeline(pipeline_name).outboxes().values():
        rows += outbox.alerts()
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("no alert fires")
        return
    table = Table("rule", "group", "status", "since", "value", "destination", box=None)
    for row in rows:
        group = ", ".join(_group_value(value) for value in row["group"])
        value = ""
        if row["value"] is not None:
            value = f"{row['value']:g}"
        table.add_row(
            row["rule"],
            group,
            row["status"],
            Hour.of(row["since"]).key,
            value,
            row["destination"],
        )
    out.print(table)


def _group_value(value: object) -> str:
    """A field's value in a group; events without the field are a group, too."""
    if value is None:
        return "(none)"
    return str(value)


@alerts_app.command("show")
def show_alert(
    webhook_id: WebhookId, pipeline_name: Pipeline = "", as_json: AsJson = False
) -> None:
    """Show a dispatch and its redacted body, as it is sent."""
    for outbox in hourly_pipeline(pipeline_name).outboxes().values():
        for row in outbox.dispatches(limit=1, webhook_id=webhook_id):
            values = {**asdict(row), "body": row.body.decode(errors="replace")}
            if as_json:
                print_json(values)
                return
            lines = [f"{name}: {value}" for name, value in values.items()]
            out.print("\n".join(lines), highlight=False)
            return
    fail(f"there is no dispatch {webhook_id!r}", 1)


@alerts_app.command("retry")
def retry_alert(
    webhook_id: WebhookId, pipeline_name: Pipeline = "", as_json: AsJson = False
) -> None:
    """Send again a dispatch that was given up, with the same id and the same bytes.

    Exit code 1 if the receiver refuses it or does not answer.
    """
    for outbox in hourly_pipeline(pipeline_name).outboxes().values():
        if not outbox.retry(webhook_id):
            continue
        stats = outbox.drain(datetime.now(UTC))
        # The dispatch was sent if it is neither due again nor given up.
        waiting = [
            *outbox.dispatches("pending", sys.maxsize),
            *outbox.dispatches("failed", sys.maxsize),
        ]
        sent = webhook_id not in {row.webhook_id for row in waiting}
        if as_json:
            print_json({"webhook_id": webhook_id, "sent": sent, **stats})
        else:
            result = "sent"
            if not sent:
                result = "not sent: see `obs alerts list`"
            out.print(f"{webhook_id} is {result}", highlight=False)
        raise typer.Exit(int(not sent))
    fail(f"no dispatch {webhook_id!r} was given up", 1)
