"""The filter, against a slow and obvious filter of one event written from the original's rules."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from obs_assets import events
from obs_assets.events import Frame, count_by
from obs_assets.severities import LEVELS as ALL_LEVELS
from obs_assets.severities import STATUSES, level_of
from obs_assets.storage import engine
from obs_assets.storage import frames as store
from obs_assets.transforms.filter import NO_CONTENT, FilterConfig, apply_filter
from obs_assets_tests.frames import frame_of

Event = dict[str, Any]

SPARSE: Event = {
    "id": "1",
    "kind": 7,
    "timestamp": "2025-12-04T10:00:00Z",
    "source": "s",
    "seq": 1,
}


def redacted(connection: duckdb.DuckDBPyConnection, told: list[Event]) -> Frame:
    return frame_of(
        connection, [json.dumps(event, ensure_ascii=False) for event in told]
    ).project("* EXCLUDE (weight)")


def verdicts(frame: Frame) -> list[str | None]:
    return [verdict for (verdict,) in frame.project("dropped_by").fetchall()]


def verdict(
    connection: duckdb.DuckDBPyConnection, event: Event, config: FilterConfig
) -> str | None:
    (only,) = verdicts(apply_filter(connection, redacted(connection, [event]), config))
    return only


# ---- the reference

LOW_VALUE = ("heartbeat", "health_check", "ping", "pong", "keepalive", "status", "info")


def reference(event: Event, config: FilterConfig) -> str | None:
    """What the original does with one event, with our differences."""
    text = (
        list(texts_in(event))
        if config.patterns_in == "text"
        else [json.dumps(event, ensure_ascii=False)]
    )
    event_type = first(event, "type", "event_type")
    event_level = level(event)
    if event_type in config.keep_event_types or found(config.keep_patterns, text):
        return None
    if found(config.drop_patterns, text):
        return "filtered:pattern"
    if event_level in [
        {"warn": "warning"}.get(name.lower(), name.lower()) for name in config.drop_levels
    ]:
        return "filtered:level"
    if event_type in config.drop_event_types:
        return "filtered:type"
    if config.drop_low_value and is_low_value(event, event_type, event_level):
        return "filtered:low_value"
    return "filtered:not_allowed" if config.filter_mode == "allowlist" else None


def is_low_value(event: Event, event_type: str | None, event_level: str | None) -> bool:
    is_grave = event_level in ("warning", "error", "critical", "fatal")
    if is_grave or has_error(event) or has_failed(event):
        return False
    if event_type and event_type.lower() in LOW_VALUE:
        return True
    if event_level in ("debug", "trace"):
        return True
    if event_type is not None:
        return False
    content = [
        event.get(key) not in (None, "")
        for key in ("error", "message", "data", "result", "output", "response")
    ]
    own = [
        value
        for key, value in event.items()
        if not key.startswith("_") and key not in NO_CONTENT
    ]
    if any(content) or any(isinstance(value, str | dict | list) and value for value in own):
        return False
    added = ("hostname", "platform", "arch", "environment", "python_version", "process_id")
    return len([key for key in event if not key.startswith("_") and key not in added]) <= 5


def first(event: Event, *keys: str) -> str | None:
    """The first key that is there and not null, as text."""
    values = [event[key] for key in keys if event.get(key) is not None]
    if not values:
        return None
    return (
        values[0]
        if isinstance(values[0], str)
        else json.dumps(values[0], separators=(",", ":"))
    )


def level(event: Event) -> str | None:
    said = {key: first(event, key) for key in ("level", "severity")}
    found = [level_of(text, key) for key, text in said.items() if text is not None]
    # A word that is no level of the table counts only if no field has one.
    if known := sorted(filter(None, found), key=lambda level: level not in ALL_LEVELS):
        return known[0]
    status = first(event, "status")
    return level_of(status) if status is not None and status.lower() in STATUSES else None


def has_error(event: Event) -> bool:
    return any(
        first(event, key) not in (None, "", "false", "0") for key in ("error", "error_message")
    )


def has_failed(event: Event) -> bool:
    return (first(event, "status") or "").lower() in ("error", "failed", "failure", "fail")


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


def found(patterns: tuple[str, ...], texts: list[str]) -> bool:
    return any(
        re.search(pattern, text, re.IGNORECASE) for pattern in patterns for text in texts
    )


# ---- plausible events with odd values

WORDS = st.sampled_from(
    [
        "",
        "ok",
        "a:",
        '","',
        ":",
        "\\",
        'x\\"',
        "\n",
        "staging ",
        "\x7f",
        "Staging",
        "timeout 30 s",
        "été",
        'say "hi"',
        "worker-042",
        "a\\b\nc",
    ]
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2),
    st.just({}),
    st.just([]),
    st.just({"staging": 1}),
    WORDS,
)
ODD = st.one_of(ODD, st.lists(ODD, max_size=2), st.dictionaries(WORDS, ODD, max_size=2))
TYPES = st.sampled_from(
    [
        "heartbeat",
        "HEARTBEAT",
        "Ping",
        "info",
        "task_completed",
        "it's",
        "system_ERROR",
        "",
        5,
        None,
    ]
)
LEVELS = st.sampled_from(
    ["info", "DEBUG", "trace", "warn", "Warning", "error", "CRITICAL", "fatal", "", 3, None]
)
EVENTS: st.SearchStrategy[Event] = st.builds(
    lambda known, others: {**others, **known},
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("type", "event_type"), TYPES),
            **dict.fromkeys(("level", "severity", "status"), LEVELS),
            **dict.fromkeys(("error", "error_message", "message", "data"), ODD),
        },
    ),
    st.dictionaries(
        st.sampled_from(
            [
                "id",
                "n",
                "result",
                "output",
                "response",
                "hostname",
                "arch",
                "_source",
                "_a",
                "user",
                "région",
                "k1",
                "k2",
            ]
        ),
        ODD,
        max_size=8,
    ),
)
PATTERNS = st.lists(
    st.sampled_from(
        [
            "staging",
            "worker-\\d+",
            "ÉTÉ",
            '^\\{"type"',
            "timeout|refused",
            "it's",
            "\\\\n",
            "^ok$",
            "^:",
            '"',
            "\\\\",
            ",",
            "[^a-z ]$",
            "a.b",
            "a\\sb?",
            "\\bhi",
        ]
    ),
    max_size=2,
).map(tuple)
NAMED_TYPES = st.lists(
    st.sampled_from(["heartbeat", "task_completed", "it's", "5"]), max_size=2
).map(tuple)
CONFIGS = st.builds(
    FilterConfig,
    drop_patterns=PATTERNS,
    keep_patterns=PATTERNS,
    patterns_in=st.sampled_from(["text", "text", "json"]),
    drop_levels=st.lists(
        st.sampled_from(["info", "WARN", "warning", "Debug", "fatal"]), max_size=2
    ).map(tuple),
    drop_event_types=NAMED_TYPES,
    keep_event_types=NAMED_TYPES,
    drop_low_value=st.booleans(),
) | st.builds(
    FilterConfig,
    filter_mode=st.just("allowlist"),
    keep_patterns=st.just(("staging",)),
    keep_event_types=NAMED_TYPES,
    drop_event_types=NAMED_TYPES,
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(told=st.lists(EVENTS, min_size=1, max_size=40), config=CONFIGS)
@example(
    told=[{"error_message": False}],
    config=FilterConfig(filter_mode="allowlist", keep_patterns=("staging",)),
)
@example(
    told=[{"type": "heartbeat", "level": "info", "status": "Failed"}], config=FilterConfig()
)
def test_events_are_judged_as_the_reference_does(
    connection: duckdb.DuckDBPyConnection, told: list[Event], config: FilterConfig
) -> None:
    """Every event gets the reference's verdict and is otherwise untouched; the counts add up."""
    frame = redacted(connection, told)
    judged = apply_filter(connection, frame, config)
    expected = [reference(event, config) for event in told]
    assert verdicts(judged) == expected
    assert judged.project("* EXCLUDE (dropped_by)").fetchall() == frame.fetchall()
    counts = count_by(judged, "dropped_by")
    assert sum(counts.values()) + expected.count(None) == len(told)
    assert counts == {reason: expected.count(reason) for reason in set(expected) - {None}}


# ---- fixed tables


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (SPARSE, "filtered:low_value"),
        (SPARSE | {"sixth": 1}, None),
        (SPARSE | {"kind": "", "type": "tick"}, None),
        ({"event_type": "zombie_detected", "data": ""}, None),
        (
            SPARSE
            | {"hostname": "h", "process_id": 1, "_enrichment": {}, "_context": {"a": 1}},
            "filtered:low_value",
        ),
        ({"message": "hello"}, None),
        ({"_time": "2026-11-25T09:00:00Z", "_msg": "VictoriaLogs"}, None),
        ({"_COMM": "sshd", "_PID": "5"}, None),
        ({"type": "health_check", "status": "failed"}, None),
        ({"type": "ping", "event.outcome": "failure"}, None),
        ({"message": "", "data": None, "result": ""}, "filtered:low_value"),
        ({"data": {}}, None),
        ({"result": 0}, None),
        ({"output": False}, None),
        ({}, "filtered:low_value"),
        ({"type": "Heartbeat", "message": "beat"}, "filtered:low_value"),
        ({"event_type": "ping", "message": "x"}, "filtered:low_value"),
        ({"severity": "DEBUG", "message": "x"}, "filtered:low_value"),
        ({"status": "info", "message": "x"}, None),
        ({"type": "heartbeat", "error": "no answer"}, None),
        ({"type": "heartbeat", "level": "CRITICAL"}, None),
        ({"type": "heartbeat", "error": False, "error_message": ""}, "filtered:low_value"),
    ],
)
def test_low_value(
    connection: duckdb.DuckDBPyConnection, event: Event, reason: str | None
) -> None:
    """Noise and empty events go, whatever enrichment added to them; what says or is an error stays."""
    assert verdict(connection, event, FilterConfig()) == reason
    assert verdict(connection, event, FilterConfig(drop_low_value=False)) is None


@pytest.mark.parametrize(
    "event",
    [
        {"time": "2026-11-25T09:21:40.000Z", "level": "WARN", "msg": "disk 93 percent full"},
        {"level": "warn", "ts": 1795598501.5, "caller": "pay/capture.go:88"},
        {"level": "info", "msg": "licence expired", "time": "2026-11-25T09:21:42.000Z"},
        {"level": 30, "time": 1795598503000, "pid": 41, "hostname": "web-3", "msg": "captured"},
        {
            "@t": "2026-11-25T09:21:44.000000Z",
            "@mt": "Order failed",
            "@l": "Error",
            "@x": "System.Exception: x",
        },
        {"@t": "2026-11-25T09:21:44.000000Z", "@mt": "Order {Id} sent", "Id": 7},
        {
            "severity": "INFO",
            "timestamp": "2026-11-25T09:21:45.000Z",
            "insertId": "a1",
            "textPayload": "sent",
        },
        {"severity": "INFO", "timestamp": "2026-11-25T09:21:45.000Z", "jsonPayload": {"n": 1}},
        {"@timestamp": 1795598506000, "actor": "octo", "repo": "example/demo"},
        {
            "version": "1.1",
            "host": "app-1",
            "short_message": "node left",
            "timestamp": 1795598507,
        },
        {"timeUnixNano": "1795597200000000000", "body": {"stringValue": "x"}},
        {"__REALTIME_TIMESTAMP": "1795597200000000", "PRIORITY": "6", "MESSAGE": "gate opened"},
        {"log": "listening on 80\n", "stream": "stdout", "time": "2026-11-25T09:21:45.000Z"},
        {"time": "2026-11-25T09:21:45Z", "category": "Audit", "resourceId": "/X"},
    ],
)
def test_an_event_with_content_of_its_own_is_not_empty(
    connection: duckdb.DuckDBPyConnection, event: Event
) -> None:
    """Whatever the logger calls its text; and no warning is of low value."""
    assert verdict(connection, event, FilterConfig(drop_levels=("debug",))) is None


def test_levels_to_drop_may_be_written_as_loggers_write_them(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """`drop_levels: [dbg]` drops what pino calls 20 and Serilog Debug."""
    config = FilterConfig(drop_levels=("dbg",))
    for event in (
        {"level": 20, "msg": "x"},
        {"@l": "Debug", "@mt": "x"},
        {"severityNumber": 7, "body": "x"},
    ):
        assert verdict(connection, event, config) == "filtered:level"


@pytest.mark.slow
def test_keep_rules_win_and_drop_rules_have_an_order(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """The first drop rule that holds gives the reason; a keep rule overrides all of them."""
    event = {"type": "heartbeat", "level": "debug", "message": "from Staging"}
    rules: Event = {
        "drop_patterns": ["staging"],
        "drop_levels": ["DEBUG"],
        "drop_event_types": ["heartbeat"],
    }
    for dropped, reason in zip(rules.copy(), ("pattern", "level", "type"), strict=True):
        assert verdict(connection, event, FilterConfig(**rules)) == f"filtered:{reason}"
        for keep in ({"keep_event_types": ["heartbeat"]}, {"keep_patterns": ["FROM staging"]}):
            assert verdict(connection, event, FilterConfig(**rules, **keep)) is None
        del rules[dropped]
    assert verdict(connection, event, FilterConfig(**rules)) == "filtered:low_value"


def test_an_allowlist_drops_what_no_keep_rule_names(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """The original's allowlist keeps everything; ours keeps what is named."""
    config = FilterConfig(
        filter_mode="allowlist", keep_event_types=("deploy",), keep_patterns=("prod",)
    )
    told = [
        {"type": "deploy"},
        {"type": "a", "message": "in PROD"},
        {"type": "a", "message": "x"},
        {"type": "ping"},
    ]
    assert verdicts(apply_filter(connection, redacted(connection, told), config)) == [
        None,
        None,
        "filtered:not_allowed",
        "filtered:low_value",
    ]


@pytest.mark.parametrize(
    ("event", "pattern", "verdicts"),
    [
        ({"staging": 1}, "staging", (False, True)),
        ({"data": [{"where": {"env": "STAGING"}}]}, "staging", (True, True)),
        ({"message": 'says "no"'}, 'says "no"', (True, False)),
        ({"message": "two\nlines"}, r"two\slines", (True, False)),
        ({"message": "caf\u00e9"}, "CAFÉ", (True, True)),
        ({"message": "ends here", "n": 1}, "here$", (True, False)),
        ({"message": "begins"}, "^begins", (True, False)),
        ({"code": 503}, "503", (False, True)),
        ({"a": "x", "b": "y"}, "x.*y", (False, True)),
        ({"a": "c:/x", "staging:": ""}, "staging|:$", (False, True)),
    ],
)
def test_patterns_are_searched_for_in_texts(
    connection: duckdb.DuckDBPyConnection,
    event: Event,
    pattern: str,
    verdicts: tuple[bool, bool],
) -> None:
    """Each string as it reads, at any depth, but no key or number, nothing across strings; JSON if asked for."""
    for patterns_in, dropped in zip(("text", "json"), verdicts, strict=True):
        config = FilterConfig(
            drop_patterns=(pattern,), patterns_in=patterns_in, drop_low_value=False
        )
        assert verdict(connection, event, config) == ("filtered:pattern" if dropped else None)


def test_patterns_do_not_mind_each_other(connection: duckdb.DuckDBPyConnection) -> None:
    """What each of them may be alone they may be together: groups of one name, a quotation that goes on to the end."""
    patterns = (r"(?P<who>alice)", r"(?P<who>bob)", r"\Qa.(b", r"x\\Qy", r"\Q(\E\d")
    config = FilterConfig.model_validate({"drop_patterns": patterns, "drop_low_value": False})
    said = {"bob": True, "a.(b": True, "a.b": False, r"x\Qy": True, "(1": True, "carol": False}
    for message, dropped in said.items():
        assert verdict(connection, {"message": message}, config) == (
            "filtered:pattern" if dropped else None
        )


def test_an_earlier_verdict_stays(connection: duckdb.DuckDBPyConnection) -> None:
    """What was dropped before is not judged again, not even by a keep rule, and other columns pass through."""
    frame = redacted(connection, [{"type": "ping"}, {"type": "ping"}]).project(
        "*, CASE WHEN file_offset = 0 THEN 'dead' END AS dropped_by, 2.0::DOUBLE AS weight"
    )
    for config, expected in (
        (FilterConfig(), ["dead", "filtered:low_value"]),
        (FilterConfig(keep_event_types=("ping",)), ["dead", None]),
        (None, ["dead", None]),
    ):
        judged = apply_filter(connection, frame, config)
        assert verdicts(judged) == expected
        assert judged.columns == [
            *events.LINEAGE,
            *events.PROMOTED,
            "weight",
            "dropped_by",
            "event",
        ]


@pytest.mark.parametrize("config", [None, FilterConfig(enabled=False, drop_patterns=(".",))])
def test_no_filter_keeps_everything(
    connection: duckdb.DuckDBPyConnection, config: FilterConfig | None
) -> None:
    """Without a filter block, or with a disabled one, even a heartbeat stays."""
    judged = apply_filter(connection, redacted(connection, [{"type": "heartbeat"}, {}]), config)
    assert verdicts(judged) == [None, None]
    assert judged.columns == [*events.LINEAGE, *events.PROMOTED, "dropped_by", "event"]


def test_the_event_is_read_only_where_it_matters(connection: duckdb.DuckDBPyConnection) -> None:
    """Rules over columns do not touch the text: here it is one that cannot be parsed."""
    told = [{"type": "ping"}, {"level": "debug"}, {"level": "error"}, {"type": "x"}]
    frame = redacted(connection, told).project("* REPLACE ('no JSON' AS event)")
    columns_only = FilterConfig(
        drop_low_value=False, drop_levels=("debug",), drop_event_types=("x",)
    )
    assert count_by(apply_filter(connection, frame, columns_only), "dropped_by") == {
        "filtered:level": 1,
        "filtered:type": 1,
    }
    decided = apply_filter(connection, frame, FilterConfig(drop_event_types=("x",)))
    assert count_by(decided, "dropped_by") == {"filtered:low_value": 2, "filtered:type": 1}
    untyped = redacted(connection, [{"id": "1"}]).project("* REPLACE ('no JSON' AS event)")
    with pytest.raises(duckdb.Error):
        count_by(apply_filter(connection, untyped, FilterConfig()), "dropped_by")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_patterns": ["(?=secret)"]}, r"RE2 does not take the pattern '\(\?=secret\)'"),
        ({"keep_patterns": ["ok", "(a"]}, r"keep_patterns\.1\n.*missing \)"),
        ({"drop_patterns": [""]}, "an empty pattern is found in every event"),
        ({"drop_patterns": ["(?<name>x)"]}, r"\(\?P<name>"),
        ({"filter_mode": "allowlist"}, "name the events to keep"),
        ({"filter_mode": "both"}, "filter_mode"),
        ({"drop_event_type": ["x"]}, "drop_event_type"),
    ],
)
def test_mistakes_are_refused_at_start(options: Event, message: str) -> None:
    """A pattern that RE2 cannot take, or rules that make no sense, are named when the configuration is read."""
    with pytest.raises(ValidationError, match=message):
        FilterConfig(**options)


@pytest.mark.slow
def test_order_is_kept_by_several_threads(tmp_path: Path) -> None:
    """An hour of several row groups comes out in the order in which it went in, however long the lists are."""
    config = FilterConfig(
        drop_event_types=tuple(f"t{n}" for n in range(0, 60, 2)),
        drop_levels=("a", "b", "c", "d", "e", "f"),
    )
    with engine.connect(tmp_path, threads=2) as connection:
        rows = connection.sql(
            """SELECT md5(n::VARCHAR) AS row_uid, TIMESTAMPTZ '2025-12-04 10:00:00Z' AS event_time, 'f' AS file_id,
            n AS file_offset, event_time AS landed_at, '{"type":"t' || n % 60 || '","message":"m"}' AS event
            FROM range(150000) t(n)"""
        )
        store.write_parquet(events.with_columns(rows), tmp_path / "in.parquet")
        judged = apply_filter(
            connection, connection.read_parquet(str(tmp_path / "in.parquet")), config
        )
        store.write_parquet(judged.filter("dropped_by IS NULL"), tmp_path / "out.parquet")
        out = (
            connection.read_parquet(str(tmp_path / "out.parquet"))
            .project("file_offset")
            .fetchall()
        )
        assert (
            "join" not in judged.explain().lower()
        )  # DuckDB's joins lose the order of rows, sometimes
    assert out == [(n,) for n in range(150000) if n % 2]
