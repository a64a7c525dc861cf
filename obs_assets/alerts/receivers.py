"""A message in the form of its receiver: JSON within the receiver's limits, text escaped by its rules.

Limits: Slack https://api.slack.com/reference/block-kit/blocks, PagerDuty
https://developer.pagerduty.com/docs/events-api-v2/trigger-events, Teams https://learn.microsoft.com/microsoftteams/platform.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from obs_assets.alerts.notices import Line, Message

Receiver = Literal["generic", "slack", "pagerduty", "teams"]

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
SLACK_TEXT_CHARACTERS = 2_900
"""Slack's limit for a section is 3,000 characters."""

TABLE_LINES = 10
"""Groups that a message lists."""

TEAMS_BYTES = 20_000
"""Teams documents 28 KB; users report refusals near 21 KB."""

PAGERDUTY_SUMMARY_CHARACTERS = 1_024
"""PagerDuty's limit for a summary."""

PAGERDUTY_BYTES = 500_000
"""PagerDuty's limit for an event is 512 KB; headers and the other fields need the rest."""

HEADER_CHARACTERS = 150
"""Slack's limit for a header."""

CONTEXT_CHARACTERS = 600
"""Characters of the last line of a message: severity, hour and labels."""

CELL_CHARACTERS = 60
"""Characters of a group's name in a table."""

_COLOURS = {
    "critical": "attention",
    "error": "attention",
    "warning": "warning",
    "info": "accent",
}


def compose(receiver: Receiver, message: Message, timestamp: str) -> bytes:
    """The body of a dispatch.

    Args:
        receiver: decides the form. The body for PagerDuty lacks the ``routing_key``: it is a secret, and the sender
            adds it.
        message: the content.
        timestamp: time at which the dispatch was composed, ISO 8601.
    """
    forms = {
        "generic": generic,
        "slack": slack,
        "pagerduty": pagerduty,
        "teams": teams,
    }
    body = forms[receiver](message, timestamp)
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair in an event's text has no form in UTF-8.
    return text.encode("utf-8", "replace")


def generic(message: Message, timestamp: str) -> dict[str, Any]:
    """Type, timestamp and data, as https://www.standardwebhooks.com advises."""
    return {
        "type": f"alert.{message.status}",
        "timestamp": timestamp,
        "data": {
            "rule": message.rule,
            "status": message.status,
            "severity": message.severity,
            "destination": message.destination,
            "hour": message.hour.key,
            "since": message.since.key,
            "summary": message.summary,
            "labels": dict(message.labels),
            "key": message.key,
            "measure": message.measure,
            "threshold": message.threshold,
            "alerts": [_alert(line) for line in message.lines],
            "more": message.more,
        },
    }


def _alert(line: Line) -> dict[str, Any]:
    return {
        "fingerprint": line.fingerprint,
        "group": dict(line.group),
        "value": line.value,
        "since": line.since,
    }


def slack(message: Message, timestamp: str) -> dict[str, Any]:
    """Block Kit: headline, summary, a table of the top groups, and a line with severity, hour and labels."""
    del timestamp
    title = _cut(message.title, HEADER_CHARACTERS)
    summary = _cut(escape_slack(message.summary), SLACK_TEXT_CHARACTERS)
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {
                "type": "plain_text",
                "text": title,
                "emoji": False,
            },
        },
        {"type": "section", "text": {"type": "plain_text", "text": summary}},
    ]
    if table := _table(message):
        # A backquote in a value would end the fixed-width block.
        fenced = _cut(escape_slack(table.replace("`", "'")), SLACK_TEXT_CHARACTERS)
        blocks.append(
            {"type": "section", "text": {"type": "mrkdwn", "text": f"```{fenced}```"}}
        )
    context = escape_slack(_context(message))
    element = {"type": "plain_text", "text": context}
    blocks.append({"type": "context", "elements": [element]})
    # Phones show this line instead of the blocks.
    headline = escape_slack(f"{message.title}: {message.summary}")
    notification = _cut(headline, SLACK_TEXT_CHARACTERS)
    return {"text": notification, "blocks": blocks}


def escape_slack(text: str) -> str:
    """Text without links, mentions and channels: https://api.slack.com/reference/surfaces/formatting#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def pagerduty(message: Message, timestamp: str) -> dict[str, Any]:
    """Events API v2: ``trigger`` and ``resolve`` with the same ``dedup_key`` for the same alert."""
    action = {"firing": "trigger", "resolved": "resolve"}[message.status]
    # The end of the key differs between alerts; PagerDuty takes 255 characters.
    dedup_key = f"{message.destination}/{message.key}"[-255:]
    event = {"event_action": action, "dedup_key": dedup_key}
    if action == "resolve":
        return event
    details = generic(message, timestamp)["data"]
    # The alerts are sorted, so that the worst stay.
    while len(json.dumps(details)) > PAGERDUTY_BYTES:
        half = len(details["alerts"]) // 2
        details["alerts"] = details["alerts"][:half]
    payload = {
        "summary": _cut(message.summary, PAGERDUTY_SUMMARY_CHARACTERS),
        "source": message.destination,
        "severity": message.severity,
        "timestamp": timestamp,
        "class": message.rule,
        "custom_details": details,
    }
    return {**event, "client": "obs_assets", "payload": payload}


def teams(message: Message, timestamp: str) -> dict[str, Any]:
    """The message of a workflow, with an Adaptive Card."""
    del timestamp
    lines = list(message.lines[:TABLE_LINES])
    while True:
        card = _card(message, lines)
        # Without a group, the size is bounded by the limits of title, summary and context.
        if len(json.dumps(card)) <= TEAMS_BYTES or not lines:
            attachment = {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "content": card,
            }
            return {"type": "message", "attachments": [attachment]}
        lines = lines[: len(lines) // 2]


def _card(message: Message, lines: Sequence[Line]) -> dict[str, Any]:
    colour = _COLOURS[message.severity]
    if message.status == "resolved":
        colour = "good"
    facts: list[dict[str, str]] = []
    for line in lines:
        if line.group:
            title = escape_teams(_name(line))
            facts.append({"title": title, "value": _number(line.value)})
    body: list[dict[str, Any]] = [
        {
            "type": "TextBlock",
            "size": "large",
            "weight": "bolder",
            "wrap": True,
            "color": colour,
            "text": escape_teams(_cut(message.title, HEADER_CHARACTERS)),
        },
        {"type": "TextBlock", "wrap": True, "text": escape_teams(message.summary)},
    ]
    if facts:
        body.append({"type": "FactSet", "facts": facts})
    context = escape_teams(_context(message))
    body.append(
        {
            "type": "TextBlock",
            "isSubtle": True,
            "wrap": True,
            "text": context,
        }
    )
    return {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.4",
        "body": body,
    }


def escape_teams(text: str) -> str:
    """Text without Markdown and without functions of Adaptive Cards."""
    plain = re.sub(r"([\\`*_\[\]()#~>|<!-])", r"\\\1", text)
    # `{{DATE(…)}}` is a function of a card; a space of no width breaks it.
    return plain.replace("{{", "{\u200b{")


def _table(message: Message) -> str:
    listed = [line for line in message.lines[:TABLE_LINES] if line.group]
    rows = []
    for line in listed:
        rows.append((_cut(_name(line), CELL_CHARACTERS), _number(line.value)))
    if not rows:
        return ""
    width = max(len(name) for name, _ in rows)
    text = "\n".join(f"{name:<{width}}  {value:>12}" for name, value in rows)
    left = len(message.lines) - len(rows) + message.more
    if left:
        return f"{text}\nand {left} more"
    return text


def _name(line: Line) -> str:
    """The group in words, for example ``worker_type=review, model=(none)``."""
    pairs: list[str] = []
    for key, value in line.group.items():
        text = "(none)"
        if value is not None:
            # A line end in a value would break the table.
            text = " ".join(value.split())
        pairs.append(f"{key}={text}")
    return ", ".join(pairs)


def _number(value: float | None) -> str:
    """At most four digits of a small number, all digits before the point of a large number."""
    if value is None:
        return ""
    # Four significant digits would show a larger number with an exponent.
    if abs(value) < 10_000:  # noqa: PLR2004
        return f"{value:,.4g}"
    return f"{value:,.0f}"


def _context(message: Message) -> str:
    parts = [
        message.severity,
        message.hour.key,
        f"since {message.since.key}",
        message.destination,
    ]
    parts += [f"{key}: {value}" for key, value in message.labels.items()]
    return _cut(" · ".join(parts), CONTEXT_CHARACTERS)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return text[: limit - 1] + "…"


def with_routing_key(body: bytes, routing_key: str) -> bytes:
    """The body for PagerDuty with its secret in front."""
    # The stored body stays without the secret; only the bytes on the wire hold it.
    key = json.dumps(routing_key).encode()
    return b'{"routing_key":' + key + b"," + body[1:]


def _parsed(event: str) -> dict[str, Any]:
    """The fields of an event; empty if Python cannot read it because of its depth or its numbers."""
    try:
        parsed = json.loads(event, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(parsed, dict):
        return {}
    return parsed


def _short(value: Any) -> str | None:
    if value is None:
        return None
    return str(value)[:CELL_CHARACTERS]


def forwarded(
    rule: str,
    destination: str,
    hour: Any,
    events: Sequence[str],
    *,
    severity: str,
    labels: Mapping[str, str],
) -> Message:
    """A message about forwarded events, for receivers of messages: the number of events by type and level."""
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for event in events:
        fields = _parsed(event)
        kind = fields.get("type", fields.get("event_type"))
        level = fields.get("level", fields.get("severity"))
        counts[_short(kind), _short(level)] += 1
    lines = []
    for (kind, level), number in counts.most_common():
        group = {"type": kind, "level": level}
        lines.append(Line(group, "", float(number)))
    return Message(
        rule=rule,
        status="firing",
        severity=severity,
        destination=destination,
        hour=hour,
        since=hour,
        summary=f"{len(events):,} events match {rule} in {hour.key}",
        labels=labels,
        measure="count",
        threshold="each event",
        lines=tuple(lines),
        more=0,
        key=f"{rule}/{hour.stamp}",
    )
