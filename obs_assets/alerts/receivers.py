"""A message as its receiver takes it: JSON within the receiver's limits, text escaped by its rules.

Limits: Slack https://api.slack.com/reference/block-kit/blocks, PagerDuty
https://developer.pagerduty.com/docs/events-api-v2/trigger-events, Teams https://learn.microsoft.com/microsoftteams/platform.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from obs_assets.alerts.notices import Line, Message

Receiver = Literal["generic", "slack", "pagerduty", "teams"]

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
SLACK_TEXT = 2_900
"""Of 3,000 characters of a section."""
TABLE_LINES = 10
TEAMS_BYTES = 20_000
"""Of 28 KB; people have met the limit near 21 KB."""
PAGERDUTY_SUMMARY = 1_024
PAGERDUTY_BYTES = 500_000
HEADER = 150
CELL = 60

_COLOURS = {"critical": "attention", "error": "attention", "warning": "warning", "info": "accent"}


def compose(receiver: Receiver, message: Message, timestamp: str) -> bytes:
    """The body of a dispatch.

    Args:
        receiver: decides the form. PagerDuty's lacks the ``routing_key``, a secret, which the sender puts in.
        message: what to say.
        timestamp: when the dispatch was made, ISO 8601.
    """
    body = {"generic": generic, "slack": slack, "pagerduty": pagerduty, "teams": teams}[receiver](message, timestamp)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def generic(message: Message, timestamp: str) -> dict[str, Any]:
    """Type, timestamp and data, as https://www.standardwebhooks.com advises."""
    return {
        "type": f"alert.{message.status}",
        "timestamp": timestamp,
        "data": {
            **{"rule": message.rule, "status": message.status, "severity": message.severity},
            **{"destination": message.destination, "hour": message.hour.key, "since": message.since.key},
            **{"summary": message.summary, "labels": dict(message.labels), "key": message.key},
            **{"measure": message.measure, "threshold": message.threshold},
            "alerts": [
                {"fingerprint": line.fingerprint, "group": dict(line.group), "value": line.value, "since": line.since}
                for line in message.lines
            ],
            "more": message.more,
        },
    }


def slack(message: Message, timestamp: str) -> dict[str, Any]:
    """Block Kit: headline, summary, a table of the top groups, and whose it is."""
    del timestamp
    header = {"type": "plain_text", "text": _cut(message.title, HEADER), "emoji": False}
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": header},
        {"type": "section", "text": {"type": "plain_text", "text": _cut(escape_slack(message.summary), SLACK_TEXT)}},
    ]
    if table := _table(message):
        fenced = escape_slack(table.replace("`", "'"))
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": f"```{_cut(fenced, SLACK_TEXT)}```"}})
    context = escape_slack(_cut(_context(message), 600))
    blocks.append({"type": "context", "elements": [{"type": "plain_text", "text": context}]})
    return {"text": _cut(escape_slack(f"{message.title}: {message.summary}"), SLACK_TEXT), "blocks": blocks}


def escape_slack(text: str) -> str:
    """Nothing in it is a link, a mention or a channel: https://api.slack.com/reference/surfaces/formatting#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def pagerduty(message: Message, timestamp: str) -> dict[str, Any]:
    """Events API v2: ``trigger`` and ``resolve`` with one ``dedup_key`` for an alert."""
    action = {"firing": "trigger", "resolved": "resolve"}[message.status]
    event = {"event_action": action, "dedup_key": f"{message.destination}/{message.key}"[-255:]}
    if action == "resolve":
        return event
    details = generic(message, timestamp)["data"]
    while len(json.dumps(details)) > PAGERDUTY_BYTES:
        details["alerts"] = details["alerts"][: len(details["alerts"]) // 2]
    payload = {
        "summary": _cut(message.summary, PAGERDUTY_SUMMARY),
        "source": message.destination,
        "severity": message.severity,
        "timestamp": timestamp,
        "class": message.rule,
        "custom_details": details,
    }
    return {**event, "client": "obs_assets", "payload": payload}


def teams(message: Message, timestamp: str) -> dict[str, Any]:
    """A workflow's message with one Adaptive Card."""
    del timestamp
    lines = list(message.lines[:TABLE_LINES])
    while True:
        card = _card(message, lines)
        if len(json.dumps(card)) <= TEAMS_BYTES or not lines:
            return {
                "type": "message",
                "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
            }
        lines = lines[: len(lines) // 2]


def _card(message: Message, lines: Sequence[Line]) -> dict[str, Any]:
    colour = "good" if message.status == "resolved" else _COLOURS[message.severity]
    facts = [{"title": escape_teams(_name(line)), "value": _number(line.value)} for line in lines if line.group]
    body: list[dict[str, Any]] = [
        {
            "type": "TextBlock",
            "size": "large",
            "weight": "bolder",
            "wrap": True,
            "color": colour,
            "text": escape_teams(_cut(message.title, HEADER)),
        },
        {"type": "TextBlock", "wrap": True, "text": escape_teams(message.summary)},
    ]
    if facts:
        body.append({"type": "FactSet", "facts": facts})
    body.append(
        {"type": "TextBlock", "isSubtle": True, "wrap": True, "text": escape_teams(_cut(_context(message), 600))}
    )
    return {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.4",
        "body": body,
    }


def escape_teams(text: str) -> str:
    """Nothing in it is Markdown, or a function of Adaptive Cards."""
    return re.sub(r"([\\`*_\[\]()#~>|<!-])", r"\\\1", text).replace("{{", "{\u200b{")


def _table(message: Message) -> str:
    rows = [(_cut(_name(line), CELL), _number(line.value)) for line in message.lines[:TABLE_LINES] if line.group]
    if not rows:
        return ""
    width = max(len(name) for name, _ in rows)
    text = "\n".join(f"{name:<{width}}  {value:>12}" for name, value in rows)
    left = len(message.lines) - len(rows) + message.more
    return f"{text}\nand {left} more" if left else text


def _name(line: Line) -> str:
    return ", ".join(
        f"{key}={'(none)' if value is None else ' '.join(value.split())}" for key, value in line.group.items()
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"  # noqa: PLR2004


def _context(message: Message) -> str:
    labels = "".join(f" · {key}: {value}" for key, value in message.labels.items())
    return f"{message.severity} · {message.hour.key} · since {message.since.key} · {message.destination}{labels}"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def with_routing_key(body: bytes, routing_key: str) -> bytes:
    """PagerDuty's body with its secret in front."""
    return b'{"routing_key":' + json.dumps(routing_key).encode() + b"," + body[1:]


def _parsed(event: str) -> dict[str, Any]:
    """An event, or nothing of it if it is too deep or its numbers too long for Python."""
    try:
        parsed = json.loads(event, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def forwarded(
    rule: str, destination: str, hour: Any, events: Sequence[str], *, severity: str, labels: Mapping[str, str]
) -> Message:
    """A message for receivers that take no events: how many were matched, and of which types."""
    counts: dict[tuple[str | None, str | None], int] = {}
    for event in events:
        parsed = _parsed(event)
        kind = parsed.get("type", parsed.get("event_type")), parsed.get("level", parsed.get("severity"))
        named = tuple(None if value is None else str(value)[:CELL] for value in kind)
        counts[named[0], named[1]] = counts.get((named[0], named[1]), 0) + 1
    lines = [Line({"type": kind, "level": level}, "", float(n)) for (kind, level), n in counts.items()]
    lines.sort(key=lambda line: -(line.value or 0))
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
