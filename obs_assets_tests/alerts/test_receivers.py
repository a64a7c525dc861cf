"""Messages as Slack, PagerDuty and Teams take them: within their limits, and nothing in them is a command."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_assets.alerts import AlertRule
from obs_assets.alerts.evaluate import Group
from obs_assets.alerts.life import fingerprint
from obs_assets.alerts.notices import Notice, bundle, message
from obs_assets.alerts.receivers import compose, forwarded, with_routing_key
from obs_assets_tests.frames import HOUR

TEXT = st.text(max_size=300)


def notices(groups: list[Group], **others: Any) -> list[Notice]:
    return [
        Notice(fingerprint("r", g), "r", g, "firing", HOUR, HOUR, True, float(n), **others)
        for n, g in enumerate(groups)
    ]


def bodies(groups: list[Group], **options: Any) -> dict[str, Any]:
    rule = AlertRule.model_validate({"name": "r", "above": 1, "by": ["worker"], **options})
    told = message([rule], notices(groups), "hook")
    return {
        r: json.loads(compose(r, told, "2025-12-04T11:00:00Z"))
        for r in ("generic", "slack", "pagerduty", "teams")
    }


@pytest.mark.slow
@given(
    names=st.lists(TEXT, min_size=1, max_size=200, unique=True),
    summary=st.sampled_from([None, "{{ group.worker }}"]),
)
def test_limits_hold_whatever_the_text(names: list[str], summary: str | None) -> None:
    """Blocks, sections, summaries and whole messages stay below what the receivers take."""
    found = bodies([(name,) for name in names], summary=summary, labels={"team": "x" * 2000})
    blocks = found["slack"]["blocks"]
    assert len(blocks) <= 50
    assert all(
        len(block["text"]["text"]) <= 3000 for block in blocks if block["type"] == "section"
    )
    assert len(blocks[0]["text"]["text"]) <= 150
    assert sum(len(json.dumps(block, ensure_ascii=False)) for block in blocks) < 13_000
    assert 0 < len(found["pagerduty"]["payload"]["summary"]) <= 1024
    assert len(found["pagerduty"]["dedup_key"]) <= 255
    assert len(json.dumps(found["pagerduty"])) <= 512_000
    assert len(json.dumps(found["teams"])) <= 28_000


@pytest.mark.parametrize("text", ["<!channel>", "<@U123>", "<https://evil|click>", "a & b"])
def test_slack_calls_nobody(text: str) -> None:
    """No group name is a mention, a link or an entity."""
    found = json.dumps(bodies([(text,)], summary="{{ group.worker }}")["slack"])
    assert "<" not in found
    assert ">" not in found
    assert "& " not in found


def test_slack_code_block_is_not_left() -> None:
    """Backticks in a group's name do not end the table."""
    table = bodies([("```*x*",)])["slack"]["blocks"][2]["text"]["text"]
    assert table.count("```") == 2


def test_teams_formats_nothing() -> None:
    """No group name is a link, or a function of Adaptive Cards."""
    found = json.dumps(
        bodies([("[x](https://evil) {{DATE(1)}}",)], summary="{{ group.worker }}")["teams"]
    )
    assert "[x](" not in found
    assert "{{" not in found


def test_pagerduty_resolves_by_key_alone() -> None:
    """Resolve carries the key of the trigger, and the routing key goes in front of the stored bytes."""
    rule = AlertRule.model_validate(
        {"name": "r", "above": 1, "by": ["worker"], "grouping": "group"}
    )
    (one,) = notices([("w",)])
    fired, resolved = (
        json.loads(
            with_routing_key(compose("pagerduty", message([rule], [n], "hook"), ""), 'k"')
        )
        for n in (one, Notice(one.fingerprint, "r", ("w",), "resolved", HOUR.next, HOUR, True))
    )
    assert fired["dedup_key"] == resolved["dedup_key"]
    assert (fired["event_action"], resolved["event_action"]) == ("trigger", "resolve")
    assert fired["routing_key"] == 'k"'


def test_bundles_are_of_one_rule_hour_and_kind() -> None:
    """Groups go together, or each alone where the rule or the receiver asks for it."""
    two = notices([("a",), ("b",)])
    together = AlertRule.model_validate({"name": "r", "above": 1, "by": ["worker"]})
    alone = AlertRule.model_validate(
        {"name": "r", "above": 1, "by": ["worker"], "grouping": "group"}
    )
    assert [len(b) for b in bundle([together], two, each=False)] == [2]
    assert [len(b) for b in bundle([alone], two, each=False)] == [1, 1]
    assert [len(b) for b in bundle([together], two, each=True)] == [1, 1]


def test_forwarded_events_become_a_count_by_type() -> None:
    """A receiver of messages is told how many events there were of which type, and no event."""
    events = ['{"type": "a", "level": "error", "x": "CANARY"}'] * 2 + [
        '{"type": "b"}',
        "[" * 50_000,
    ]
    told = forwarded("errors", "hook", HOUR, events, severity="error", labels={})
    assert [(line.group["type"], line.value) for line in told.lines] == [
        ("a", 2.0),
        ("b", 1.0),
        (None, 1.0),
    ]
    assert b"CANARY" not in compose("slack", told, "")
