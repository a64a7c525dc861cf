"""``/api/v1/rule``: a search as an alert rule, tried on the hours of its range."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from obs_assets.api.about import Envelope, Q, Since, Until, ask_about, envelope, json_answer
from obs_assets.api.access import needs
from obs_assets.api.parameters import read
from obs_assets.api.served import served
from obs_assets.audit.rule_of_search import Tried, rule_text, try_rule
from obs_assets.search.language import parse
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

router = APIRouter(prefix="/api/v1", tags=["hours"], dependencies=[Depends(needs("read"))])


class RuleAnswer(Envelope):
    """A rule, and the alerts that it would have sent.

    Attributes:
        rule: YAML for the `rules` of a webhook, or for `obs backtest --rules`.
        hours: hours that were tried.
        left: hours of the range that are not built on this machine, or that the time did not allow.
        firing: starts of the hours in which the alert fired.
        messages: messages that would have been sent, firing and resolved.
    """

    rule: str
    hours: int
    left: int
    firing: list[datetime]
    messages: int


@router.get("/rule", responses={200: {"model": RuleAnswer}})
async def rule_of_a_search(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    above: Annotated[
        float, Query(ge=0, le=1e12, description="Fire above this number of events an hour.")
    ] = 0.0,
) -> Response:
    """A search as an alert rule, with the alerts that it would have sent. Nothing is sent or stored."""
    parse(q)
    parts = served(request)

    def question(connection: Connection, selection: Selection) -> Tried:
        del connection
        deadline_s = parts.limits.deadline_s
        return read(
            "q",
            try_rule,
            parts.hourly,
            selection.query,
            selection.span,
            above=above,
            deadline_s=deadline_s,
        )

    asked = await ask_about(request, q, since, until, question, is_cached=False)
    assert not isinstance(asked, Response)  # noqa: S101 - without a tag there is no 304
    span, tried = asked.selection.span, asked.answer
    common = envelope(span, span.start, is_complete=not tried.left, seconds=asked.seconds)
    shape = RuleAnswer.model_validate(
        {
            **common,
            "rule": rule_text(tried.rule),
            "hours": tried.hours,
            "left": tried.left,
            "firing": [hour.start for hour in tried.outcome.firing_hours],
            "messages": len(tried.outcome.dispatches),
        }
    )
    return json_answer(shape, None)
