"""``/api/v1/alerts``: alerts that fire, their last notices, and messages of the last day."""

from datetime import UTC, datetime

from fastapi import APIRouter, Depends, Request

from obs_assets.api.about import Shape
from obs_assets.api.access import needs
from obs_assets.api.served import served
from obs_assets.delivery.overview import AlertsNow, alerts_now
from obs_assets.storage.postgres import Connection

router = APIRouter(prefix="/api/v1", tags=["hours"], dependencies=[Depends(needs("read"))])


class AlertShape(Shape):
    """An alert after the latest hour of its webhook; `notice` is the last message about it."""

    destination: str
    rule: str
    group: list[str | None]
    status: str
    since: datetime
    hour: datetime
    value: float | None
    notice: str | None
    notice_hour: datetime | None
    is_sent: bool | None


class AlertsAnswer(Shape):
    """Alerts that fire or are pending, and the number of messages by state.

    Attributes:
        readable: false without webhooks, or before `obs postgres init` gave the right to read.
        messages: `pending`, `sent`, `failed`, `unsent` → messages of the last day; all that wait.
    """

    readable: bool
    alerts: list[AlertShape]
    messages: dict[str, int]
    last_sent_at: datetime | None


@router.get("/alerts")
async def alerts(request: Request) -> AlertsAnswer:
    """Alerts as they are now. Bodies of messages are not shown."""

    def question(connection: Connection) -> AlertsNow | None:
        return alerts_now(connection, datetime.now(UTC))

    found = await served(request).reader.ask(request, question)
    if found is None:
        return AlertsAnswer(readable=False, alerts=[], messages={}, last_sent_at=None)
    return AlertsAnswer(
        readable=True,
        alerts=[AlertShape.model_validate(alert) for alert in found.alerts],
        messages=dict(found.messages),
        last_sent_at=found.last_sent_at,
    )
