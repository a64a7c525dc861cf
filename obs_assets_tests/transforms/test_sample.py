"""The sampler, against a slow and obvious sampler of one event written from the original's rules."""

import hashlib
import json
import math
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from obs_assets import events
from obs_assets.events import Frame, count_by
from obs_assets.severities import LEVELS, STATUSES, level_of
from obs_assets.storage import engine
from obs_assets.storage import frames as store
from obs_assets.transforms.filter import FilterConfig, apply_filter
from obs_assets.transforms.sample import SampleConfig, sample
from obs_assets_tests.frames import frame_of

Event = dict[str, Any]


def redacted(connection: duckdb.DuckDBPyConnection, told: list[Event]) -> Frame:
    return frame_of(
        connection, [json.dumps(event, ensure_ascii=False) for event in told]
    ).project("* EXCLUDE (weight)")


def kept(frame: Frame) -> Frame:
    return frame.filter("dropped_by IS NULL")


def ids_of(frame: Frame) -> set[str]:
    return {event_id for (event_id,) in frame.project("event_id").fetchall()}


# ---- the reference


def stratum_of(event: Event, config: SampleConfig) -> tuple[str, float]:
    """The original's strata, in its order of precedence."""
    event_type = first(event, "type", "event_type")
    status = (first(event, "status") or "").lower()
    said = [
        level_of(text, key)
        for key in ("level", "severity")
        if (text := first(event, key)) is not None
    ]
    found = sorted(filter(None, said), key=lambda level: level not in LEVELS)
    level = next(iter(found), level_of(status) if status in STATUSES else None) or ""
    lower_type = (event_type or "").lower()
    if (
        has_error(event)
        or status in ("error", "failed")
        or level in ("error", "critical", "fatal")
        or "error" in lower_type
        or "fail" in lower_type
    ):
        return "error", config.error_rate
    type_or_unknown = "unknown" if event_type is None else event_type
    if type_or_unknown in config.type_rates:
        return f"type:{type_or_unknown}", config.type_rates[type_or_unknown]
    if status in ("success", "completed") or level in ("info", "success"):
        return "success", config.success_rate
    return "default", config.default_rate


def key_of(event: Event, row_uid: str, config: SampleConfig) -> str:
    if config.strategy in ("random", "adaptive"):
        return row_uid
    if config.deterministic_key == "event_id":
        return first(event, "id", "event_id", "_id") or row_uid
    names = (
        [config.deterministic_key] if config.deterministic_key else ["trace_id", "session_id"]
    )
    return next((text for name in names if (text := first(event, name))), row_uid)


def is_drawn(key: str, rate: float) -> bool:
    return Fraction(int(hashlib.md5(key.encode()).hexdigest(), 16), 2**128) < Fraction(rate)


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


def has_error(event: Event) -> bool:
    return first(event, "error") not in (None, "", "false", "0") or first(
        event, "error_message"
    ) not in (None, "")


# ---- plausible events with odd values

NAMES = st.sampled_from(["", "t-1", "t-2", "t-3", "träce", "42", 42, None])
EVENTS: st.SearchStrategy[Event] = st.fixed_dictionaries(
    {"n": st.integers(0, 10**6)},
    optional={
        **dict.fromkeys(("trace_id", "session_id", "id", "_id", "worker_id"), NAMES),
        "type": st.sampled_from(
            ["llm_call", "it's", "Task_FAILED", "system_ERROR", "unknown", "", 5, None]
        ),
        "event_type": st.sampled_from(["llm_call", "ping"]),
        "status": st.sampled_from(
            ["success", "Completed", "FAILED", "error", "info", "", "open", 1, None]
        ),
        "level": st.sampled_from(["INFO", "success", "warn", "Critical", "debug", "", None]),
        "severity": st.sampled_from(["fatal", "info"]),
        "error": st.sampled_from([None, "", False, 0, "0", {"code": 5}, ["x"], "boom", True]),
        "error_message": st.sampled_from([None, "", "boom"]),
        "_sampling": st.sampled_from([None, {"rate": 0.01, "sampled": True}]),
    },
)
RATES = st.sampled_from([0, 1, 0.1, 0.5, 1 / 3, 0.999, 1e-9])
CONFIGS = st.builds(
    SampleConfig,
    error_rate=RATES,
    success_rate=RATES,
    default_rate=RATES,
    type_rates=st.dictionaries(
        st.sampled_from(["llm_call", "it's", "unknown", "5"]), RATES, max_size=3
    ),
    strategy=st.sampled_from(["deterministic", "random"]),
    deterministic_key=st.sampled_from(
        [None, "trace_id", "session_id", "event_id", "worker_id", "row_uid", "id"]
    ),
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(told=st.lists(EVENTS, min_size=1, max_size=40), config=CONFIGS)
def test_events_are_sampled_as_the_reference_does(
    connection: duckdb.DuckDBPyConnection, told: list[Event], config: SampleConfig
) -> None:
    """Every event gets the reference's verdict, weight and note; a dropped one is otherwise untouched."""
    sampled = sample(redacted(connection, told), config)
    rows = sampled.project("row_uid, dropped_by, weight, event").fetchall()
    for event, (row_uid, dropped_by, weight, text) in zip(told, rows, strict=True):
        stratum, rate = stratum_of(event, config)
        if not is_drawn(
            key_of(event, row_uid, config)
            if config.deterministic_key != "row_uid"
            else row_uid,
            rate,
        ):
            assert (dropped_by, weight, json.loads(text)) == (
                f"sampled_out:{stratum}",
                None,
                event,
            )
            continue
        note = {"rate": rate, "strategy": config.strategy, "weight": 1 / rate}
        others = {key: value for key, value in event.items() if key != "_sampling"}
        assert (dropped_by, weight) == (None, 1 / rate)
        assert list(json.loads(text).items()) == list((others | {"_sampling": note}).items())
    assert sampled.columns == [
        *events.LINEAGE,
        *events.PROMOTED,
        "weight",
        "dropped_by",
        "event",
    ]
    assert sampled.fetchall() == events.with_columns(sampled, "weight", "dropped_by").fetchall()


# ---- strategies that look at the whole hour


def exactly(
    told: list[tuple[Event, str]], config: SampleConfig
) -> dict[str, tuple[float, float] | None]:
    """Row → rate and weight of the types that are drawn to an exact number, None if it is not drawn."""
    adaptive = config.strategy == "adaptive"
    by_type: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for event, row_uid in told:
        stratum, rate = stratum_of(event, config)
        if stratum != "error" and not (adaptive and stratum.startswith("type:")):
            event_type = first(event, "type", "event_type")
            by_type["unknown" if event_type is None else event_type].append((row_uid, rate))
    fates: dict[str, tuple[float, float] | None] = {}
    for rows in by_type.values():
        expected = math.ceil(sum(Fraction(str(rate)) for _, rate in rows))
        if not adaptive and expected >= 2 * config.min_per_type:
            continue
        size = min(
            len(rows),
            max(config.adaptive_target if adaptive else expected, config.min_per_type),
        )
        by_draw = sorted(
            (row_uid for row_uid, _ in rows),
            key=lambda uid: hashlib.md5(uid.encode()).hexdigest(),
        )
        for place, row_uid in enumerate(by_draw):
            fates[row_uid] = (size / len(rows), len(rows) / size) if place < size else None
    return fates


HOUR_CONFIGS = st.builds(
    SampleConfig,
    strategy=st.sampled_from(["adaptive", "tail", "deterministic"]),
    adaptive_target=st.integers(1, 5),
    min_per_type=st.integers(0, 4),
    tail_duration_ms=st.sampled_from([None, 0, 5]),
    type_rates=st.sampled_from([{}, {"llm_call": 0.5}]),
    success_rate=st.sampled_from([0, 0.1, 0.5]),
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    told=st.lists(EVENTS, min_size=1, max_size=40), config=HOUR_CONFIGS, durations=st.randoms()
)
def test_whole_hours_are_sampled_as_the_reference_does(
    connection: duckdb.DuckDBPyConnection,
    told: list[Event],
    config: SampleConfig,
    durations: Any,
) -> None:
    """Exact numbers by type, floors, and traces kept whole: each event's verdict, weight and note; order stays."""
    told = [event | {"duration_ms": durations.choice([0, 3, 9])} for event in told]
    frame = redacted(connection, told)
    uids = [row_uid for (row_uid,) in frame.project("row_uid").fetchall()]
    rows = sample(frame, config).project("row_uid, dropped_by, weight, event").fetchall()
    tails = {
        key_of(event, row_uid, config)
        for event, row_uid in zip(told, uids, strict=True)
        if stratum_of(event, config)[0] == "error"
        or (
            config.tail_duration_ms is not None
            and event["duration_ms"] > config.tail_duration_ms
        )
    }
    is_tail = [
        config.strategy == "tail" and key_of(event, row_uid, config) in tails
        for event, row_uid in zip(told, uids, strict=True)
    ]
    rest = [
        pair
        for pair, whole in zip(zip(told, uids, strict=True), is_tail, strict=True)
        if not whole
    ]
    exact = (
        exactly(rest, config) if config.min_per_type or config.strategy == "adaptive" else {}
    )
    assert [row[0] for row in rows] == uids
    for event, whole, (row_uid, dropped_by, weight, text) in zip(
        told, is_tail, rows, strict=True
    ):
        stratum, rate = ("tail", 1.0) if whole else stratum_of(event, config)
        fate = exact.get(row_uid) if row_uid in exact else None
        if row_uid not in exact and is_drawn(key_of(event, row_uid, config), rate):
            fate = (rate, 1 / rate)
        if fate is None:
            assert (dropped_by, weight) == (f"sampled_out:{stratum}", None)
        else:
            assert (dropped_by, weight) == (None, fate[1])
            assert json.loads(text)["_sampling"] == {
                "rate": fate[0],
                "strategy": config.strategy,
                "weight": fate[1],
            }


# ---- what sampling promises


def fleet(size: int) -> list[Event]:
    """Traces of five events; one event in a hundred is an error, and there are five kinds of others."""
    kinds: list[Event] = [
        {"level": "info"},
        {"status": "success"},
        {"type": "llm_call"},
        {"level": "warning"},
        {"type": "x"},
    ]
    return [
        {
            "id": f"e{n}",
            "trace_id": f"trace-{n // 5}",
            **(kinds[n % 5] if n % 100 else {"error": "boom"}),
        }
        for n in range(size)
    ]


@pytest.fixture(scope="module")
def many(connection: duckdb.DuckDBPyConnection) -> Frame:
    """Twenty thousand events, computed once."""
    redacted(connection, fleet(20_000)).create("many")
    return connection.table("many").order("file_offset")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["deterministic", "random"])
def test_rates_hold(many: Frame, strategy: str) -> None:
    """Each stratum keeps its share, within four standard errors; a trace counts as one draw."""
    config = SampleConfig(strategy=strategy, type_rates={"llm_call": 0.4}, default_rate=0.02)
    size = Counter(stratum_of(event, config) for event in fleet(20_000))
    dropped = count_by(sample(many, config), "dropped_by")
    for (stratum, rate), n in size.items():
        draws = n if strategy == "random" or stratum.startswith("type") else n / 2
        error = math.sqrt(rate * (1 - rate) / draws) * n
        assert abs(n - dropped.get(f"sampled_out:{stratum}", 0) - rate * n) <= 4 * error


def test_weights_make_counts_unbiased(many: Frame) -> None:
    """One per cent of errors reads as one per cent, where a count without weights would say nine."""
    sampled = kept(sample(many, SampleConfig()))
    weighted, errors, rows = sampled.aggregate(
        "sum(weight), sum(weight) FILTER (error IS NOT NULL), count(*)"
    ).fetchall()[0]
    share = errors / weighted
    others = 19_800 / 5  # traces: what is drawn together
    standard_error = 0.01 * math.sqrt((1 - 0.1) / 0.1 / others)
    assert abs(share - 0.01) <= 2 * standard_error
    assert errors == 200
    assert 0.08 < errors / rows < 0.10


@pytest.mark.parametrize(
    "options", [{"strategy": "adaptive", "adaptive_target": 50}, {"min_per_type": 300}]
)
def test_exact_numbers_make_counts_exact(many: Frame, options: dict[str, Any]) -> None:
    """Where exactly m of a type's n events are drawn, their weights add up to n, and errors read as they are."""
    config = SampleConfig(**options)
    sampled = kept(sample(many, config))
    weighted, errors = sampled.aggregate(
        "sum(weight), sum(weight) FILTER (error IS NOT NULL)"
    ).fetchall()[0]
    by_type = dict(
        sampled.filter("error IS NULL").aggregate("event_type, sum(weight)").fetchall()
    )
    assert errors == 200
    assert by_type["x"] == pytest.approx(4000)
    if config.strategy == "adaptive":
        assert weighted == pytest.approx(20_000)
        counts = dict(
            sampled.filter("error IS NULL").aggregate("event_type, count(*)").fetchall()
        )
        assert counts == {"llm_call": 50, "x": 50, None: 50}


def test_a_trace_is_kept_or_dropped_whole(many: Frame) -> None:
    """All events of a trace that share a rate share their fate, whatever stratum they are in."""
    config = SampleConfig(error_rate=0.1, type_rates={"llm_call": 0.1})
    fates = defaultdict(set)
    for trace_id, dropped_by in sample(many, config).project("trace_id, dropped_by").fetchall():
        fates[trace_id].add(dropped_by is None)
    assert len(fates) == 4000
    assert all(len(fate) == 1 for fate in fates.values())


@pytest.mark.slow
def test_what_is_kept_at_a_rate_is_kept_at_a_higher_one(many: Frame) -> None:
    """A trace kept at 0.1 is kept at 0.5: raising a rate only adds."""
    samples = [
        ids_of(
            kept(
                sample(
                    many, SampleConfig(error_rate=rate, success_rate=rate, default_rate=rate)
                )
            )
        )
        for rate in (0, 0.01, 0.1, 0.5, 0.999, 1)
    ]
    assert samples[0] == set()
    assert len(samples[-1]) == 20_000
    assert all(lower < higher for lower, higher in pairwise(samples))


def test_filter_and_sampler_account_for_every_event(
    connection: duckdb.DuckDBPyConnection, many: Frame
) -> None:
    """What goes in is kept or counted under one reason; the filter's verdicts stand."""
    judged = sample(
        apply_filter(
            connection, many, FilterConfig(drop_event_types=("x",), drop_low_value=False)
        ),
        SampleConfig(),
    )
    counts = count_by(judged, "dropped_by")
    rest = kept(judged).aggregate("count(*)").fetchall()[0][0]
    assert rest + sum(counts.values()) == 20_000
    assert set(counts) == {"filtered:type", "sampled_out:success", "sampled_out:default"}
    assert counts["filtered:type"] == 4000


def test_sampling_again_changes_nothing(many: Frame) -> None:
    """What was kept is kept again, with the same weight; its event says so once."""
    once = kept(sample(many, SampleConfig()))
    again = sample(once, SampleConfig())
    for before, after in zip(once.fetchall(), again.fetchall(), strict=True):
        assert before[:-1] == after[:-1]
        assert json.loads(before[-1]) == json.loads(after[-1])


def test_the_draw_is_pinned(connection: duckdb.DuckDBPyConnection) -> None:
    """The draw is md5 ÷ 2¹²⁸ of the trace id: these stay as they are, whatever version of DuckDB computes them."""
    told = [
        {"id": trace, "trace_id": trace}
        for trace in ("trace-1", "trace-2", "trace-3", "träce", "a", "b", "c", "d")
    ]
    sampled = sample(redacted(connection, told), SampleConfig(default_rate=0.5))
    assert {event["id"] for event in told if is_drawn(event["trace_id"], 0.5)} == ids_of(
        kept(sampled)
    )
    assert hashlib.md5(b"a").hexdigest().startswith("0cc175b9")
    assert "a" in ids_of(
        kept(sample(redacted(connection, told), SampleConfig(default_rate=0.05)))
    )
    assert "a" not in ids_of(
        kept(sample(redacted(connection, told), SampleConfig(default_rate=0.0498)))
    )


# ---- fixed cases


@pytest.mark.parametrize(
    ("event", "stratum"),
    [
        ({"error": "boom", "type": "llm_call", "level": "info"}, "error"),
        ({"error": {"code": 5}}, "error"),
        ({"error": False, "error_message": ""}, "default"),
        ({"status": "failed"}, "error"),
        ({"status": "FAILED"}, "error"),
        ({"level": "Critical"}, "error"),
        ({"severity": "fatal"}, "error"),
        ({"type": "system_ERROR"}, "error"),
        ({"event_type": "login_Failure"}, "error"),
        ({"type": "llm_call", "status": "success"}, "type:llm_call"),
        ({"type": "LLM_call", "status": "success"}, "success"),
        ({"message": "no type"}, "type:unknown"),
        ({"type": "x", "status": "Completed"}, "success"),
        ({"type": "x", "level": "INFO"}, "success"),
        ({"type": "x", "level": "success"}, "success"),
        ({"type": "x", "level": "warning"}, "default"),
        ({"type": "x", "status": "open"}, "default"),
    ],
)
def test_strata(connection: duckdb.DuckDBPyConnection, event: Event, stratum: str) -> None:
    """Errors come before rates of types, these before successes; where nothing is said of a type, it is ``unknown``."""
    rates = {"llm_call": 0.0} if stratum == "default" else {"llm_call": 0.0, "unknown": 0.0}
    config = SampleConfig(error_rate=0, success_rate=0, default_rate=0, type_rates=rates)
    assert count_by(sample(redacted(connection, [event]), config), "dropped_by") == {
        f"sampled_out:{stratum}": 1
    }


@pytest.mark.parametrize("config", [None, SampleConfig(enabled=False, default_rate=0)])
def test_no_sampler_keeps_everything(
    connection: duckdb.DuckDBPyConnection, config: SampleConfig | None
) -> None:
    """Without a sample block, or with a disabled one, every event weighs 1 and its text stays; earlier drops stand."""
    frame = redacted(connection, [{"a": 1}, {"type": "ping"}])
    sampled = sample(
        apply_filter(connection, frame, FilterConfig(keep_event_types=("ping",))), config
    )
    assert sampled.project("dropped_by, weight, event").fetchall() == [
        ("filtered:low_value", None, '{"a": 1}'),
        (None, 1.0, '{"type": "ping"}'),
    ]
    assert sample(frame, config).project("weight").fetchall() == [(1.0,), (1.0,)]


def test_the_note_in_the_event(connection: duckdb.DuckDBPyConnection) -> None:
    """``_sampling`` says rate, strategy and weight, and leaves the digits of the event alone."""
    frame = frame_of(
        connection, ['{"level":"info","trace_id":"a","x":1.50}', '{"error":"e"}', "{}"]
    )
    texts = [
        text
        for (text,) in sample(frame, SampleConfig(default_rate=1)).project("event").fetchall()
    ]
    assert texts == [
        '{"level":"info","trace_id":"a","x":1.50,"_sampling":{"rate":0.1,"strategy":"deterministic","weight":10}}',
        '{"error":"e","_sampling":{"rate":1,"strategy":"deterministic","weight":1}}',
        '{"_sampling":{"rate":1,"strategy":"deterministic","weight":1}}',
    ]


def test_counting_does_not_read_the_events(connection: duckdb.DuckDBPyConnection) -> None:
    """The verdict needs columns only: here the text could not be parsed."""
    frame = redacted(connection, [{"error": "x"}, {"level": "info"}]).project(
        "* REPLACE ('no JSON' AS event)"
    )
    assert count_by(sample(frame, SampleConfig(success_rate=0)), "dropped_by") == {
        "sampled_out:success": 1
    }


@pytest.mark.parametrize(
    "options",
    [
        {"error_rate": 1.1},
        {"success_rate": -0.1},
        {"default_rate": math.nan},
        {"type_rates": {"a": 2}},
        {"strategy": "clever"},
        {"adaptive_target": 0},
        {"min_per_type": -1},
        {"tail_duration_ms": -1},
        {"deterministic_key": "event"},
        {"deterministic_key": "trace_id; DROP TABLE x"},
    ],
)
def test_mistakes_are_refused_at_start(options: Event) -> None:
    """Rates outside [0, 1], and keys that are no column to draw by, are named when the configuration is read."""
    with pytest.raises(ValidationError, match=next(iter(options))):
        SampleConfig(**options)


def test_the_originals_key_is_ours() -> None:
    """``deterministic_key: id`` means the event's id."""
    assert SampleConfig(deterministic_key="id").deterministic_key == "event_id"


@pytest.mark.slow
def test_order_is_kept_by_several_threads(tmp_path: Path) -> None:
    """An hour of several row groups comes out in the order in which it went in."""
    config = SampleConfig(default_rate=0.5, type_rates={f"t{n}": 0.25 for n in range(20)})
    with engine.connect(tmp_path, threads=2) as connection:
        rows = connection.sql(
            """SELECT md5(n::VARCHAR) AS row_uid, TIMESTAMPTZ '2025-12-04 10:00:00Z' AS event_time, 'f' AS file_id,
            n AS file_offset, event_time AS landed_at, '{"type":"t' || n % 60 || '"}' AS event
            FROM range(150000) t(n)"""
        )
        store.write_parquet(events.with_columns(rows), tmp_path / "in.parquet")
        sampled = sample(connection.read_parquet(str(tmp_path / "in.parquet")), config)
        store.write_parquet(kept(sampled), tmp_path / "out.parquet")
        out = [
            n
            for (n,) in connection.read_parquet(str(tmp_path / "out.parquet"))
            .project("file_offset")
            .fetchall()
        ]
        assert (
            "join" not in sampled.explain().lower()
        )  # DuckDB's joins lose the order of rows, sometimes
    assert out == sorted(out)
    assert 60_000 < len(out) < 65_000


PLACEHOLDERS = [
    "0" * 32,
    "0000000000000000",
    "-",
    "N/A",
    "null",
    "None",
    "undefined",
    "no-op",
    "<nil>",
    "[empty]",
    "NaN",
    "${trace_id}",
    "-1",
    "?",
    "",
    " ",
    "(null)",
    "0x0",
    "n.a.",
    "no trace",
    "UNSET",
    "f" * 32,
    "%{trace_id}",
    "$trace_id",
    f"00-{'0' * 32}-{'0' * 16}-01",
    f"Root=1-00000000-{'0' * 24}",
    f"projects/shop/traces/{'0' * 32}",
]
ZERO_UUID = "00000000-0000-0000-0000-000000000000"


@pytest.mark.slow
@pytest.mark.parametrize("placeholder", [*PLACEHOLDERS, ZERO_UUID])
def test_a_placeholder_is_no_trace(
    connection: duckdb.DuckDBPyConnection, placeholder: str
) -> None:
    """Events outside any trace are drawn one by one: a tenth of them stays, and an error keeps no other."""
    told = [{"n": n, "trace_id": placeholder, "type": "x"} for n in range(1000)]
    frame = redacted(connection, told)
    kept = sample(frame, SampleConfig()).filter("dropped_by IS NULL")
    (count, weight), *_ = kept.aggregate("count(*), sum(weight)").fetchall()
    assert 60 < count < 140
    assert weight == pytest.approx(10 * count)
    with_error = redacted(connection, [*told, {"level": "emerg", "trace_id": placeholder}])
    tail = SampleConfig(strategy="tail", success_rate=0, default_rate=0)
    assert len(sample(with_error, tail).filter("dropped_by IS NULL")) == 1


@pytest.mark.parametrize(
    "event",
    [
        {"level": 50},
        {"level": 400},
        {"level": 3},
        {"PRIORITY": "2"},
        {"level": "emerg"},
        {"level": "alert"},
        {"s": "F"},
    ],
)
def test_errors_on_every_scale_are_errors(
    connection: duckdb.DuckDBPyConnection, event: dict[str, Any]
) -> None:
    """`error_rate` promises all errors, whatever the logger calls them."""
    config = SampleConfig(error_rate=1, success_rate=0, default_rate=0)
    assert len(sample(redacted(connection, [event]), config).filter("dropped_by IS NULL")) == 1
