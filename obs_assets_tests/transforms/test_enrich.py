"""Enrichment, against a slow and obvious enricher of one event written from the original's rules."""

import functools
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from obs_assets import events
from obs_assets.errors import ConfigurationError
from obs_assets.events import Frame
from obs_assets.hourly.pipeline import PipelineConfig, parse
from obs_assets.storage import engine
from obs_assets.storage import frames as store
from obs_assets.transforms.enrich import (
    DEFAULT_PRICE,
    ENRICHMENTS,
    OWN_NAMES,
    EnrichConfig,
    Price,
    enrich,
)
from obs_assets_tests.frames import HOUR, frame_of

Event = dict[str, Any]

ADDED = (
    *(
        "timestamp",
        "hostname",
        "platform",
        "arch",
        "environment",
        "python_version",
        "process_id",
    ),
    *("duration_ms", "cost_estimate", "_context"),
)
COLLECTOR = {
    "hostname": 'ho"st\\ä',
    "platform": "Linux",
    "arch": "x86_64",
    "process_id": 4711,
    "python_version": "3.11.2",
}
ALL = EnrichConfig(enrichments=("all",))


def raw(
    connection: duckdb.DuckDBPyConnection,
    told: list[Event | str],
    collector: Event | None = COLLECTOR,
) -> Frame:
    """A raw frame; the n-th event happens n seconds into the hour."""
    texts = [event if isinstance(event, str) else json.dumps(event) for event in told]
    landed = events.quote(json.dumps(collector)) if collector is not None else "NULL::VARCHAR"
    frame = frame_of(connection, texts).project("* EXCLUDE (weight)")
    return frame.project(f"*, {landed} AS collector, 'a.jsonl' AS event_file")


def texts_of(frame: Frame) -> list[str]:
    return [text for (text,) in frame.project("event").fetchall()]


def enriched(
    connection: duckdb.DuckDBPyConnection, event: Event | str, config: EnrichConfig = ALL
) -> Event:
    """One event, enriched, its numbers exact."""
    (text,) = texts_of(enrich(connection, raw(connection, [event]), config))
    return exact(text)


def exact(text: str) -> Event:
    value: Event = json.loads(text, parse_float=Decimal)
    return value


# ---- the reference


def reference(
    event: Event, event_time: datetime, collector: Event, config: EnrichConfig
) -> Event:
    """What the original does to one event, with our differences."""
    configured = [
        name
        for name in ENRICHMENTS
        if name in config.enrichments or "all" in config.enrichments
    ]
    out = dict(event)
    flags = []

    def add(key: str, value: Any) -> None:
        if key not in out and value is not None:
            out[key] = value

    if "timestamp" in configured:
        unit = "milliseconds" if event_time.microsecond % 1000 == 0 else "microseconds"
        add("timestamp", event_time.isoformat(timespec=unit).replace("+00:00", "Z"))
    flat = collector if config.collector_fields == "flat" else {}
    facts: Event = {}
    if "hostname" in configured:
        facts |= {key: collector.get(key) for key in ("hostname", "platform", "arch")}
        named = own(event, HOSTS)  # 0 is a name, too
        add("hostname", flat.get("hostname") if named is None else named)
        add("platform", flat.get("platform"))
        add("arch", flat.get("arch"))
    if "environment" in configured:
        facts["python_version"] = collector.get("python_version")
        named = own(event, ENVIRONMENTS)
        add("environment", config.environment if named is None else named)
        add("python_version", flat.get("python_version"))
    if "process" in configured:
        facts["process_id"] = collector.get("process_id")
        named = own(event, PROCESSES)
        add("process_id", flat.get("process_id") if named is None else named)
    if "performance" in configured:
        start, end = (
            milliseconds(event.get("started_at")),
            milliseconds(event.get("completed_at")),
        )
        if "duration_ms" not in event and start is not None and end is not None:
            if end >= start:
                out["duration_ms"] = end - start
            else:
                flags.append("negative_duration")
        if event.get("cost_usd") is None and event.get("cost") is None:
            add("cost_estimate", cost(event, config))
    if "context" in configured:
        add("_context", context(event) or None)
    about: Event = {"enriched_by": config.name or "enricher", "enrichments_applied": configured}
    if flags:
        about["flags"] = flags
    known = {key: value for key, value in facts.items() if value is not None}
    if known and not flat:
        about["collector"] = known
    add("_enrichment", about)
    return out


HOSTS = (
    *(("host.name",), ("host", "name"), ("host", "hostname"), ("host",), ("_HOSTNAME",)),
    *(("resource", "attributes", "host.name"), ("resource", "host.name")),
)
ENVIRONMENTS = (
    *(
        ("env",),
        ("service.environment",),
        ("service", "environment"),
        ("deployment.environment",),
    ),
    ("resource", "attributes", "deployment.environment.name"),
    ("resource", "attributes", "deployment.environment"),
)
PROCESSES = (
    *(("pid",), ("process.pid",), ("process", "pid"), ("_PID",)),
    ("resource", "attributes", "process.pid"),
)


def own(event: Event, paths: tuple[tuple[str, ...], ...]) -> Any:
    """The first text that is not empty, or number, at one of these paths."""
    for path in paths:
        value: Any = event
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if (
            not isinstance(value, bool)
            and isinstance(value, str | int | float | Decimal)
            and value != ""
        ):
            return value
    return None


def milliseconds(value: Any) -> int | None:
    """A time as JavaScript's Date counts it; numbers by magnitude."""
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,19}(\.[0-9]{1,9})?", str(value)):
        return None
    number = Decimal(str(value))
    for limit, per_second in ((10**11, 1), (10**14, 10**3), (10**17, 10**6)):
        if number < limit:
            return int(number * 1000 // per_second)
    return int(number * 1000 // 10**9)


def cost(event: Event, config: EnrichConfig) -> Event | None:
    counted: dict[str, int] = {}
    for key in ("input_tokens", "output_tokens"):
        objects = [
            usage
            for usage in (event.get("tokens_used"), event.get("token_usage"))
            if isinstance(usage, dict)
        ]
        told = next((usage[key] for usage in objects if usage.get(key) is not None), None)
        if told is None:
            continue
        if isinstance(told, bool) or not re.fullmatch(r"[0-9]{1,15}(\.0+)?", str(told)):
            return None
        counted[key] = int(Decimal(str(told)))
    if not counted:
        return None
    read, written = counted.get("input_tokens", 0), counted.get("output_tokens", 0)
    model = event.get("model")
    name = model if isinstance(model, str) and model else "unknown"
    price = config.prices.get(name) or config.prices.get("*")
    if price is None:
        return None
    input_cost = read * price.input_usd_per_million / 1_000_000
    output_cost = written * price.output_usd_per_million / 1_000_000
    return {
        "input_cost_usd": input_cost,
        "output_cost_usd": output_cost,
        "total_cost_usd": input_cost + output_cost,
        "model": name,
        "tokens": {"input": read, "output": written, "total": read + written},
    }


def context(event: Event) -> Event:
    def given(key: str) -> bool:
        return event.get(key) not in (None, "")

    out: Event = {}
    if given("master_type"):
        out = {"master_type": event["master_type"], "is_master": True}
    elif given("worker_type"):
        worker_id = (
            {"worker_id": event["worker_id"]} if event.get("worker_id") is not None else {}
        )
        out = {"worker_type": event["worker_type"], **worker_id, "is_worker": True}
    return out | {
        key: event[key] for key in ("trace_id", "session_id", "parent_span_id") if given(key)
    }


# ---- plausible events with odd values

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
ODD = st.one_of(
    st.none(), st.booleans(), st.just(""), st.just({}), st.just([]), st.integers(-5, 5), TEXT
)
TIMES = st.one_of(
    st.integers(0, 2_000_000).map(
        lambda us: (HOUR.start + timedelta(microseconds=us)).isoformat()
    ),
    st.sampled_from(
        [
            "2025-12-04T04:00:01-0600",
            "2025-12-04T15:30:00.5+05:30",
            "2025-12-04 10:00:01.999999",
            "2025-12-04T10:00:00.000Z",
            "2025-12-04T10:00:00.000999Z",
            "2025-12-04",
            "2025-99-99T00:00:00Z",
            "yesterday",
            1764842400,
            1764842400.25,
            1764842401500,
            1764842400000001,
            1764842400000000999,
            "1764842400123",
        ]
    ),
)
COUNTS: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 10**6),
    st.sampled_from(
        [
            0,
            1,
            999_999_999_999_999,
            10**15,
            12.5,
            12.0,
            "2118",
            "2118.5",
            "many",
            -3,
            True,
            {},
            None,
        ]
    ),
)
USAGE = st.one_of(
    st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "total"]), COUNTS), ODD
)
NAMES = st.one_of(TEXT, ODD, st.sampled_from(["development", "wörker 'x'", 7]))

_INNER = st.dictionaries(
    st.sampled_from(
        [
            "name",
            "hostname",
            "environment",
            "pid",
            "host.name",
            "process.pid",
            "deployment.environment",
        ]
    ),
    NAMES,
)
MAPPINGS = st.one_of(
    NAMES, _INNER, st.dictionaries(st.sampled_from(["attributes", "host.name"]), NAMES | _INNER)
)

EVENTS: st.SearchStrategy[Event] = st.builds(
    lambda known, others: {**others, **known},
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(
                ("started_at", "completed_at"), st.one_of(TIMES, TIMES, TIMES, ODD)
            ),
            **dict.fromkeys(("tokens_used", "token_usage"), USAGE),
            **dict.fromkeys(
                ("master_type", "worker_type", "worker_id", "trace_id", "session_id", "model"),
                NAMES,
            ),
            "parent_span_id": NAMES,
            **dict.fromkeys(("host", "resource", "service", "process"), MAPPINGS),
            **dict.fromkeys(
                ("host.name", "_HOSTNAME", "env", "deployment.environment", "pid", "_PID"),
                NAMES,
            ),
            **dict.fromkeys(("cost_usd", "cost", "duration"), COUNTS),
        },
    ),
    st.one_of(
        st.just({}),
        st.dictionaries(TEXT, ODD, max_size=3),
        st.dictionaries(
            st.sampled_from([*ADDED, "_enrichment"]),
            ODD,
            max_size=3,
        ),
    ),
)
CONFIGS = st.builds(
    EnrichConfig,
    enrichments=st.lists(st.sampled_from([*ENRICHMENTS, "all"]), max_size=4).map(tuple),
    environment=st.none() | TEXT,
    collector_fields=st.sampled_from(["nested", "flat"]),
    name=st.none() | TEXT,
    prices=st.dictionaries(
        st.sampled_from(["*", "unknown", "development", "wörker 'x'", "7"]),
        st.builds(
            Price,
            input_usd_per_million=st.sampled_from(
                [Decimal(3), Decimal("0.075"), Decimal(0), Decimal("999999.999999")]
            ),
            output_usd_per_million=st.sampled_from([Decimal(15), Decimal("0.3")]),
        ),
        min_size=1,
    ),
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    told=st.lists(EVENTS, min_size=1, max_size=40),
    config=CONFIGS,
    compact=st.booleans(),
    ascii_only=st.booleans(),
)
def test_events_are_enriched_as_the_reference_does(
    connection: duckdb.DuckDBPyConnection,
    told: list[Event],
    config: EnrichConfig,
    compact: bool,
    ascii_only: bool,
) -> None:
    """Every event gets the reference's fields in the reference's order, and its own text stays as it was."""
    separators = (",", ":") if compact else (", ", " : ")
    texts = [
        json.dumps(event, separators=separators, ensure_ascii=ascii_only) for event in told
    ]
    out = texts_of(enrich(connection, raw(connection, list(texts)), config))
    for n, (before, after) in enumerate(zip(texts, out, strict=True)):
        expected = reference(
            exact(before), HOUR.start + timedelta(seconds=n), COLLECTOR, config
        )
        assert list(exact(after).items()) == list(expected.items())
        assert after.startswith(before[:-1])


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(told=st.lists(EVENTS, min_size=1, max_size=25))
def test_columns_agree_with_the_event_and_nothing_is_added_twice(
    connection: duckdb.DuckDBPyConnection, told: list[Event]
) -> None:
    """Promoted columns are what the new text says; enriching again changes nothing."""
    frame = raw(connection, list(told))
    once = enrich(connection, frame, ALL)
    assert once.columns == [*events.LINEAGE, *events.PROMOTED, "event"]
    assert once.fetchall() == events.with_columns(once).fetchall()
    again = enrich(
        connection,
        once.project("*, '{\"hostname\":\"another\"}' AS collector, 'b' AS event_file"),
        EnrichConfig(name="x"),
    )
    assert once.fetchall() == again.fetchall()


# ---- fixed tables


@pytest.mark.parametrize(
    ("tokens", "amounts"),
    [
        ((2118, 2042), ("0.006354", "0.03063", "0.036984")),
        ((0, 0), ("0", "0", "0")),
        ((1_000_000, 2_000_000), ("3", "30", "33")),
        ((1, 0), ("0.000003", "0", "0.000003")),
        ((10_000_000, 1), ("30", "0.000015", "30.000015")),
        (
            (999_999_999_999_999, 999_999_999_999_999),
            ("2999999999.999997", "14999999999.999985", "17999999999.999982"),
        ),
    ],
)
def test_costs_are_exact_decimals_in_plain_notation(
    connection: duckdb.DuckDBPyConnection,
    tokens: tuple[int, int],
    amounts: tuple[str, str, str],
) -> None:
    """0.0063540 is written 0.006354, and never 6.354e-3 or 0.006353999."""
    usage = {"input_tokens": tokens[0], "output_tokens": tokens[1]}
    (text,) = texts_of(enrich(connection, raw(connection, [{"tokens_used": usage}]), ALL))
    found = re.search(
        r'"input_cost_usd":(.*),"output_cost_usd":(.*),"total_cost_usd":(.*),"model":"unknown"',
        text,
    )
    assert found
    assert found.groups() == amounts


@pytest.mark.parametrize(
    ("event", "tokens"),
    [
        ({"tokens_used": {"input_tokens": 2, "output_tokens": 3}}, (2, 3)),
        ({"token_usage": {"input_tokens": "2", "output_tokens": 3.0}}, (2, 3)),
        ({"tokens_used": {"input_tokens": 2}, "token_usage": {"input_tokens": 9}}, (2, 0)),
        ({"tokens_used": 77, "token_usage": {"output_tokens": 3}}, (0, 3)),
        ({"tokens_used": {"input_tokens": None, "output_tokens": 3}}, (0, 3)),
        ({"tokens_used": {"input_tokens": "many", "output_tokens": 3}}, None),
        ({"tokens_used": {"input_tokens": 2, "output_tokens": -3}}, None),
        ({"tokens_used": {"input_tokens": 2.5}}, None),
        ({"tokens_used": {"total": 5}}, None),
        ({"tokens_used": 77}, None),
    ],
)
def test_token_counts(
    connection: duckdb.DuckDBPyConnection, event: Event, tokens: tuple[int, int] | None
) -> None:
    """A missing count is zero; one that is no count makes the estimate impossible; a plain number says nothing."""
    estimate = enriched(connection, event).get("cost_estimate")
    expected = tokens and {"input": tokens[0], "output": tokens[1], "total": sum(tokens)}
    assert (estimate and estimate["tokens"]) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("usage", "tokens", "input_cost"),
    [
        (  # Anthropic: beside
            {"cache_read_input_tokens": 9000, "cache_creation_input_tokens": 100},
            (10_100, 9000, 100),
            "0.006075",
        ),
        (
            {"cacheReadInputTokens": 9000, "cacheWriteInputTokens": 0},
            (10_000, 9000, 0),
            "0.0057",
        ),
        ({"input_tokens_details": {"cached_tokens": 900}}, (1000, 900, 0), "0.00057"),
        ({"prompt_tokens_details": {"cached_tokens": 900}}, (1000, 900, 0), "0.00057"),
        (  # LangChain: inside
            {"input_token_details": {"cache_read": 800, "cache_creation": 200}},
            (1000, 800, 200),
            "0.00099",
        ),
        ({"cached_input_tokens": "900"}, (1000, 900, 0), "0.00057"),
        ({"prompt_cache_hit_tokens": 1000}, (1000, 1000, 0), "0.0003"),
        (
            {"cached_input_tokens": 9, "input_tokens_details": {"cached_tokens": 9}},
            (1000, 9, 0),
            "0.0029757",
        ),
    ],
)
@pytest.mark.parametrize("name", ["tokens_used", "token_usage"])
def test_cached_tokens_have_their_own_price(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    usage: Event,
    tokens: tuple[int, int, int],
    input_cost: str,
) -> None:
    """A provider's name of the field says whether `input_tokens` holds them; both ways the cost is right."""
    event = {name: {"input_tokens": 1000, "output_tokens": 10, **usage}}
    (text,) = texts_of(enrich(connection, raw(connection, [event]), ALL))
    estimate = exact(text)["cost_estimate"]
    assert estimate["input_cost_usd"] == Decimal(input_cost)
    assert estimate["total_cost_usd"] == Decimal(input_cost) + Decimal("0.00015")
    names = ("input", "cache_read", "cache_write")
    assert tuple(estimate["tokens"][key] for key in names) == tokens
    assert estimate["tokens"]["total"] == tokens[0] + 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("usage", "flag"),
    [
        ({"cached_tokens": 90}, "cached_tokens_unclear"),  # inside or beside?
        ({"cached_tokens": 0}, None),
        (
            {"cacheHitTokens": 90},
            "cached_tokens_unclear",
        ),  # a name that no provider of the table uses
        ({"inputCachedTokenCount": 90}, "cached_tokens_unclear"),
        ({"cache_read": 90}, "cached_tokens_unclear"),  # a name without the word token
        ({"inputTokenDetails": {"cacheReadTokens": 90}}, "cached_tokens_unclear"),
        ({"tokens": {"cache": {"read": 90, "write": 0}}}, "cached_tokens_unclear"),
        ({"cacheHitTokens": 0, "cache_ttl": 300, "cacheHit": True}, None),
        ({"cache_read_input_tokens": "many"}, "cached_tokens_unclear"),
        ({"cached_input_tokens": 1001}, "cached_tokens_unclear"),  # more than all
        (
            {"cache_read_input_tokens": 5, "prompt_tokens_details": {"cached_tokens": 5}},
            "cached_tokens_unclear",
        ),
        (
            {"cached_input_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}},
            "cached_tokens_unclear",
        ),
        ({"cache_read_input_tokens": 5}, "cached_tokens_without_price"),
        ({"cache_creation_input_tokens": 5}, "cached_tokens_without_price"),
        ({"cache_read_input_tokens": None}, None),
    ],
)
@pytest.mark.parametrize("own", [{}, {"cost_usd": 0.5}], ids=["", "own cost"])
def test_no_cost_is_guessed_for_cached_tokens(
    connection: duckdb.DuckDBPyConnection, usage: Event, flag: str | None, own: Event
) -> None:
    """Without a price, or where their count is unclear, there is no estimate and a flag; none beside an own cost."""
    price = Price(input_usd_per_million=Decimal(3), output_usd_per_million=Decimal(15))
    if flag == "cached_tokens_unclear":
        price = DEFAULT_PRICE
    event = {**own, "tokens_used": {"input_tokens": 1000, "output_tokens": 10, **usage}}
    frame = enrich(connection, raw(connection, [event]), EnrichConfig(prices={"*": price}))
    (text,) = texts_of(frame)
    found = json.loads(text)
    assert ("cost_estimate" in found) == (flag is None and not own)
    expected = [flag] if flag and not own else None
    assert found["_enrichment"].get("flags") == expected


def test_the_cost_reaches_its_column(connection: duckdb.DuckDBPyConnection) -> None:
    """cost_usd is the estimate's total, to the last digit."""
    frame = enrich(
        connection,
        raw(connection, [{"tokens_used": {"input_tokens": 2118, "output_tokens": 2042}}]),
        EnrichConfig(),
    )
    assert frame.project("cost_usd").fetchall() == [(Decimal("0.036984"),)]


@pytest.mark.parametrize("own", [{"cost_usd": 0.5}, {"cost": 0.5}])
def test_an_events_own_cost_wins(connection: duckdb.DuckDBPyConnection, own: Event) -> None:
    """What an event says that it cost is its cost; nothing is estimated beside it."""
    frame = enrich(
        connection,
        raw(connection, [own | {"tokens_used": {"input_tokens": 2118}}]),
        EnrichConfig(),
    )
    ((cost_usd, text),) = frame.project("cost_usd, event").fetchall()
    assert cost_usd == Decimal("0.5")
    assert "cost_estimate" not in json.loads(text)


@pytest.mark.slow
def test_each_model_has_its_price(connection: duckdb.DuckDBPyConnection) -> None:
    """Prices of a million tokens, written as 0.15 or "0.15", by model; a model without one gets no estimate."""
    prices: dict[str, Any] = {
        "smäll": {"input_usd_per_million": 0.15, "output_usd_per_million": "0.6"}
    }
    other = {"*": {"input_usd_per_million": 1, "output_usd_per_million": 2}}
    usage = {"input_tokens": 7, "output_tokens": 3}

    def total(model: str | None, prices: dict[str, Any]) -> Decimal | None:
        event = enriched(
            connection, {"model": model, "token_usage": usage}, EnrichConfig(prices=prices)
        )
        return event.get("cost_estimate", {}).get("total_cost_usd")

    assert total("smäll", prices) == total("smäll", prices | other) == Decimal("0.00000285")
    assert (total("large", prices), total(None, prices)) == (None, None)
    assert total("large", prices | other) == total(None, prices | other) == Decimal("0.000013")


def test_a_price_table_is_a_file_and_part_of_the_version(tmp_path: Path) -> None:
    """The table in a YAML file is the configuration: an edited price is another version of the hours."""
    path = tmp_path / "prices.yaml"

    def config(price: str) -> PipelineConfig:
        path.write_text(
            f"model-a: {{input_usd_per_million: {price}, output_usd_per_million: 2}}\n"
        )
        return parse({"enrich": {"prices": str(path)}})

    before, same, after = config("0.10"), config("0.10"), config("0.11")
    assert before.enrich is not None
    assert before.enrich.prices["model-a"].input_usd_per_million == Decimal("0.10")
    versions = [
        config.version("enriched_events").config_hash for config in (before, same, after)
    ]
    assert versions[0] == versions[1] != versions[2]
    assert before.version("raw_events") == after.version("raw_events")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "enrich.prices: cannot read the file .*prices.yaml: No such file"),
        ("a: {b: [", r"enrich.prices: the file .*prices.yaml, line \d+ is not YAML"),
        ("", "enrich.prices: must be a mapping"),
        ("{}", "enrich.prices: .*at least 1"),
        (
            "a: {input_usd_per_million: 1}",
            "enrich.prices.a.output_usd_per_million: is missing",
        ),
        (
            "a: {input_usd_per_million: -1, output_usd_per_million: 1}",
            "enrich.prices.a.input_usd_per_million: ",
        ),
    ],
)
def test_mistakes_in_a_price_table_are_found_at_start(
    tmp_path: Path, text: str | None, message: str
) -> None:
    """The message names the file, or the model and the price that are wrong."""
    path = tmp_path / "prices.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        parse({"enrich": {"prices": str(path)}})


@pytest.mark.parametrize(
    ("times", "duration", "flags"),
    [
        (("2025-12-04T10:00:00Z", "2025-12-04T10:00:01.5Z"), 1500, None),
        (("2025-12-04T10:00:00Z", "2025-12-04T04:00:00-0600"), 0, None),
        (("2025-12-04T10:00:00.000900Z", "2025-12-04T10:00:00.001100Z"), 1, None),
        (("2025-12-04T10:00:01Z", "2025-12-04T10:00:00Z"), None, ["negative_duration"]),
        ((1764842400, 1764842401500), 1500, None),
        (("soon", "2025-12-04T10:00:00Z"), None, None),
        (("infinity", "epoch"), None, None),
    ],
)
def test_durations(
    connection: duckdb.DuckDBPyConnection,
    times: tuple[Any, Any],
    duration: int | None,
    flags: list[str] | None,
) -> None:
    """Zero is a duration; a negative one is flagged instead of written; what is no time gives none."""
    event = enriched(connection, {"started_at": times[0], "completed_at": times[1]})
    assert event.get("duration_ms") == duration
    assert event["_enrichment"].get("flags") == flags


def test_what_is_there_stays(connection: duckdb.DuckDBPyConnection) -> None:
    """A key that is there is not overwritten, not even if it holds null or nonsense."""
    event: Event = dict.fromkeys(ADDED) | {
        "hostname": "its own",
        "started_at": "2025-12-04T10:00:01Z",
        "completed_at": "2025-12-04T10:00:00Z",
        "tokens_used": {"input_tokens": 1},
        "trace_id": "t",
    }
    out = enriched(connection, event)
    about = {
        "enriched_by": "enricher",
        "enrichments_applied": list(ENRICHMENTS),
        "collector": COLLECTOR,
    }
    assert out == event | {"_enrichment": about}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "hostname"),
    [
        ({}, None),
        ({"host": "web-1"}, "web-1"),
        ({"host": {"name": "web-1", "ip": "10.0.0.1"}}, "web-1"),
        ({"host.name": "web-1"}, "web-1"),
        ({"_HOSTNAME": "web-1", "_PID": "17"}, "web-1"),
        ({"resource": {"attributes": {"host.name": "web-1"}}}, "web-1"),
        ({"resource": {"host.name": "web-1"}}, "web-1"),
        ({"host": "", "_HOSTNAME": None, "resource": []}, None),
        ({"host": "", "_HOSTNAME": 0}, 0),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_an_event_of_another_machine_keeps_its_own_host(
    connection: duckdb.DuckDBPyConnection, event: Event, hostname: str | int | None, flat: bool
) -> None:
    """The collector's host name stands in `_enrichment.collector`; as a field only where that is asked for."""
    config = EnrichConfig(enrichments=("all",), collector_fields="flat" if flat else "nested")
    out = enriched(connection, event, config)
    of_collector = COLLECTOR["hostname"] if flat else None
    assert out.get("hostname") == (of_collector if hostname is None else hostname)
    assert out["_enrichment"].get("collector") == (None if flat else COLLECTOR)
    assert "environment" not in out
    assert out.get("process_id") == event.get("_PID", COLLECTOR["process_id"] if flat else None)


def test_the_names_of_a_host_are_documented() -> None:
    """docs/transforms.md lists the paths in the order in which they are looked at."""
    page = (Path(__file__).parents[2] / "docs" / "transforms.md").read_text()
    for field, paths in OWN_NAMES.items():
        assert f"| `{field}` | {', '.join(f'`{path}`' for path in paths)}" in page


def test_a_missing_timestamp_is_the_event_time(connection: duckdb.DuckDBPyConnection) -> None:
    """Milliseconds, or microseconds if there are any; UTC whatever the session's time zone."""
    frame = raw(connection, [{}, {}])
    at = "'2025-12-04 10:00:00.120000+00'::TIMESTAMPTZ + to_microseconds(file_offset * 7)"
    try:
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        texts = texts_of(
            enrich(connection, frame.project(f"* REPLACE ({at} AS event_time)"), EnrichConfig())
        )
    finally:
        connection.execute("SET TimeZone = 'UTC'")
    assert [json.loads(text)["timestamp"] for text in texts] == [
        "2025-12-04T10:00:00.120Z",
        "2025-12-04T10:00:00.120007Z",
    ]


def test_events_of_many_landing_processes_keep_their_own_facts(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Also where more processes landed the hour than have a text that is made once."""
    collectors = [{**COLLECTOR, "process_id": number} for number in range(12)]
    frames = [raw(connection, [{"n": n}], facts) for n, facts in enumerate(collectors)]
    together = functools.reduce(lambda upper, lower: upper.union(lower), frames)
    found = map(json.loads, texts_of(enrich(connection, together, ALL)))
    by_number = {event["n"]: event["_enrichment"]["collector"] for event in found}
    assert by_number == dict(enumerate(collectors))


@pytest.mark.parametrize("collector", [None, {}, {"hostname": None}])
def test_what_landing_did_not_record_is_not_added(
    connection: duckdb.DuckDBPyConnection, collector: Event | None
) -> None:
    """An hour landed by an older version is enriched with what there is."""
    (text,) = texts_of(enrich(connection, raw(connection, [{}], collector), EnrichConfig()))
    added = json.loads(text)
    assert set(added) == {"timestamp", "_enrichment"}
    assert "collector" not in added["_enrichment"]


def test_a_disabled_enricher_leaves_the_text_alone(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """``enabled: false`` drops landing's columns and nothing else."""
    told: list[Event | str] = ['{ "a" : 1.50 }', "{}"]
    frame = enrich(connection, raw(connection, told), EnrichConfig(enabled=False))
    assert frame.columns == [*events.LINEAGE, *events.PROMOTED, "event"]
    assert texts_of(frame) == told


def test_the_events_own_digits_survive(connection: duckdb.DuckDBPyConnection) -> None:
    """Numbers keep the digits they came with: the text is extended, never written anew."""
    (text,) = texts_of(
        enrich(
            connection,
            raw(connection, ['{"a":1.50,"b":1e2,"c":123456789012345678901234567890}']),
            ALL,
        )
    )
    assert text.startswith('{"a":1.50,"b":1e2,"c":123456789012345678901234567890,"timestamp":')


def test_unknown_enrichments_and_prices_are_refused() -> None:
    """A typo in the configuration is found at start."""
    price = {"input_usd_per_million": "0.0000001", "output_usd_per_million": 1}
    for wrong in ({"enrichments": ("memory",)}, {"prices": {"*": price}}):
        with pytest.raises(ValidationError):
            EnrichConfig(**wrong)


@pytest.mark.slow
def test_order_is_kept_by_several_threads(tmp_path: Path) -> None:
    """An hour of several row groups, worked on by two threads, comes out in the order in which it went in."""
    with engine.connect(tmp_path, threads=2) as connection:
        rows = connection.sql(
            """SELECT printf('%032x', (n * 7919) % 150001) AS row_uid, TIMESTAMPTZ '2025-12-04 10:00:00Z' AS event_time,
            'f' AS file_id, n AS file_offset, event_time AS landed_at, '{"id":' || n || '}' AS event,
            '{"hostname":"h"}' AS collector, 'a' AS event_file FROM range(150000) t(n)"""
        )
        store.write_parquet(
            events.with_columns(rows, "collector", "event_file"), tmp_path / "raw.parquet"
        )
        store.write_parquet(
            enrich(
                connection,
                connection.read_parquet(str(tmp_path / "raw.parquet")),
                EnrichConfig(),
            ),
            tmp_path / "out.parquet",
        )
        out = (
            connection.read_parquet(str(tmp_path / "out.parquet"))
            .project("file_offset, event_id")
            .fetchall()
        )
        plan = enrich(
            connection, connection.read_parquet(str(tmp_path / "raw.parquet")), ALL
        ).explain()
    assert "join" not in plan.lower()  # DuckDB's joins lose the order of rows, sometimes
    assert out == [(n, str(n)) for n in range(150000)]
