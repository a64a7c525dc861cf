"""Mappings: their names are those of the public schemas, and every destination uses them."""

import gzip
import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import duckdb
import pyarrow.parquet as pq
import pytest
import requests
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.semconv._incubating import attributes
from osmem_server import OsmemServer
from pydantic import SecretStr

from obs_assets.delivery.kinds import KINDS
from obs_assets.destinations.appending import AppendingDestination
from obs_assets.destinations.elasticsearch import ElasticsearchConfig, ElasticsearchDestination
from obs_assets.destinations.mapping import (
    CIM_SEVERITIES,
    SCHEMAS,
    SEVERITY_NUMBERS,
    VALUES,
    MappingName,
    object_sql,
    path_of,
    tree_of,
)
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.destinations.s3 import S3Config, S3Destination
from obs_assets.events import PROMOTED
from obs_assets.hours import utc_now
from obs_assets.settings import ElasticsearchSettings, Settings
from obs_assets.severities import LEVELS
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.destinations import receivers
from obs_assets_tests.destinations.receivers import receiving
from obs_assets_tests.destinations.test_appending import (
    cloudwatch_sender,
    datadog_sender,
    messages,
    splunk_sender,
)
from obs_assets_tests.frames import HOUR, frame_of, offer_of

NAMES = get_args(MappingName)

FOLDER = Path(__file__).parent / "schemas"

EVENT: dict[str, Any] = {
    "id": "e1",
    "type": "llm_call",
    "level": "error",
    "message": 'a quote ,"data": and é',
    "source": "agents",
    "hostname": "node-1",
    "trace_id": "t1",
    "session_id": "s1",
    "worker_id": "w1",
    "status": "failed",
    "error": "no answer",
    "duration_ms": 1500,
    "cost_usd": 0.25,
    "usage": {"model": "opus"},
}
STRANGE = '{"n":12345678901234567890.10,"x":1e400,"data":{"_obs":1},"host":{"name":"h"}}'
EVENTS: list[dict[str, Any] | str] = [EVENT, STRANGE, "{}"]


def listed(schema: str) -> dict[str, str]:
    """Name → type, where it is given, of the fields in a committed list of a schema."""
    lines = (FOLDER / f"{schema}.txt").read_text().splitlines()
    names = [line.partition(" ") for line in lines if not line.startswith("#")]
    return {name: kind for name, _, kind in names}


def semantic_conventions() -> set[str]:
    """The attributes of OpenTelemetry's own package."""
    found: set[str] = set()
    for module in pkgutil.iter_modules(attributes.__path__):
        members = vars(importlib.import_module(f"{attributes.__name__}.{module.name}"))
        found.update(value for value in members.values() if isinstance(value, str))
    return found


def published() -> Iterator[tuple[MappingName, set[str]]]:
    """Each mapping with the names of its schema, as `path_of` gives them joined by slashes."""
    yield "none", {"event_time", "message", "hostname", *PROMOTED}
    ecs = {name.replace(".", "/") for name in listed("ecs")}
    yield "ecs", ecs
    yield "datadog", set(listed("datadog"))
    yield "splunk_cim", set(listed("splunk_cim"))
    record = {field.name for field in LogRecord.DESCRIPTOR.fields}
    resource = ResourceLogs.DESCRIPTOR.fields_by_name["resource"]
    assert "attributes" in resource.message_type.fields_by_name
    conventions = semantic_conventions()
    in_record = {f"attributes/{name}" for name in conventions}
    in_resource = {f"resource/attributes/{name}" for name in conventions}
    yield "otel", record | in_record | in_resource


@pytest.mark.slow
def test_every_name_is_in_the_published_list_of_its_schema() -> None:
    """Other names are ours: they begin with ``obs.``, or stand in the object ECS has for names of users, ``labels``."""
    wrong = []
    checked = set()
    for mapping, names in published():
        checked.add(mapping)
        for value in SCHEMAS[mapping].names:
            path = path_of(mapping, value)
            is_ours = path[-1].startswith("obs.") or path[0] in ("obs", "labels")
            if "/".join(path) not in names and not is_ours:
                wrong.append(f"{mapping}: {value} is {'/'.join(path)}")
    assert wrong == []
    assert checked == set(SCHEMAS) == set(NAMES)


def test_types_are_those_of_ecs() -> None:
    """A date is a date, a number a number, a text a text in ECS's own table."""
    families = {
        "date": "time",
        "keyword": "keyword",
        "long": "long",
        "match_only_text": "text",
    }
    ecs = listed("ecs")
    compared = {}
    for value in SCHEMAS["ecs"].names:
        name = ".".join(path_of("ecs", value))
        if name in ecs:
            compared[name] = (families[ecs[name]], VALUES[value].kind)
    assert len(compared) >= 10
    assert {name: kinds for name, kinds in compared.items() if len(set(kinds)) > 1} == {}


def test_every_level_has_a_severity() -> None:
    """A level without one would be an event without severity."""
    assert set(SEVERITY_NUMBERS) == set(CIM_SEVERITIES) == set(LEVELS)
    allowed = {"critical", "high", "medium", "low", "informational"}
    assert set(CIM_SEVERITIES.values()) == allowed


EXPECTED: dict[str, dict[str, Any]] = {
    "none": {"event_type": "llm_call", "event_level": "error", "duration_ms": 1500},
    "otel": {
        "time_unix_nano": 1764842400000000000,
        "severity_number": 17,
        "severity_text": "error",
        "event_name": "llm_call",
        "trace_id": "t1",
        "resource": {"attributes": {"service.name": "agents", "host.name": "node-1"}},
    },
    "ecs": {
        "@timestamp": "2025-12-04T10:00:00.000000Z",
        "log": {"level": "error"},
        "event": {"id": "e1", "action": "llm_call", "duration": 1_500_000_000},
        "trace": {"id": "t1"},
    },
    "datadog": {
        "status": "error",
        "service": "agents",
        "dd.trace_id": "t1",
        "duration": 1_500_000_000,
        "evt.name": "llm_call",
    },
    "splunk_cim": {
        "severity": "high",
        "signature": "llm_call",
        "duration": 1.5,
        "src": "node-1",
    },
}


@pytest.mark.parametrize("mapping", NAMES)
def test_values_have_the_units_of_the_schema(
    mapping: MappingName, duck: duckdb.DuckDBPyConnection
) -> None:
    """Nanoseconds, seconds, numbers of severities; a value that the event lacks is left out."""
    records = frame_of(duck, EVENTS).project(object_sql(tree_of(mapping))).fetchall()
    full, _, empty = [json.loads(record) for (record,) in records]
    assert {name: full[name] for name in EXPECTED[mapping]} == EXPECTED[mapping]
    time_only = {"event_time", "time_unix_nano", "@timestamp", "timestamp", "_time"}
    assert set(empty) <= time_only


@pytest.mark.parametrize("mapping", NAMES)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_an_archive_has_the_names_and_gives_the_events_back(
    mapping: MappingName, form: Any, duck: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Lines and columns have the names of the mapping; every event is read back with its digits."""
    options: dict[str, Any] = {
        "bucket": f"file://{tmp_path}",
        "mapping": mapping,
        "format": form,
    }
    archive = S3Destination(S3Config.model_validate(options))
    frame = frame_of(duck, EVENTS)
    archive.deliver(offer_of(frame))
    # Hours that were stored under another mapping can be read.
    for other in (
        archive,
        S3Destination(S3Config.model_validate({**options, "mapping": "none"})),
    ):
        rows = other.read_back(duck, HOUR).fetchall()
        assert sorted(rows) == sorted(frame.project("row_uid, event").fetchall())
    (path,) = tmp_path.rglob(f"events-*.{form}*")
    name = next(iter(EXPECTED[mapping]))
    if form == "parquet":
        assert {".".join(path_of(mapping, value)) for value in SCHEMAS[mapping].names} <= {
            *pq.read_schema(path).names,
            # A column of a frame has them.
            "message",
            "hostname",
        }
        return
    first = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    if mapping == "none":
        del first["_obs"]
        assert first == EVENT
    else:
        assert first[name] == EXPECTED[mapping][name]
        assert first["data"] == EVENT
        assert first["_obs"]["mapping"] == mapping


@pytest.fixture(scope="module")
def cluster() -> Iterator[OsmemServer]:
    """A server with the API of OpenSearch."""
    started = OsmemServer.start()
    yield started
    started.close()
    if started.process.stdout:
        started.process.stdout.close()


SEARCHED = {
    "none": {"event_type": "llm_call"},
    "otel": {"resource.attributes.service.name": "agents"},
    "ecs": {"log.level": "error"},
    "datadog": {"evt.name": "llm_call"},
    "splunk_cim": {"severity": "high"},
}
"""A search that a user of each schema would write."""


@pytest.mark.slow
def test_a_search_by_the_names_of_the_schema_finds_the_event(
    cluster: OsmemServer, duck: duckdb.DuckDBPyConnection
) -> None:
    """In Elasticsearch, with times in ``@timestamp``; events are read back as they were."""
    settings = ElasticsearchSettings(url=SecretStr(cluster.url))
    frame = frame_of(duck, EVENTS)
    ((uid,), *_) = frame.project("row_uid").fetchall()
    by_time = {"range": {"@timestamp": {"lte": HOUR.start.isoformat()}}}
    for mapping in NAMES:
        config = ElasticsearchConfig(index=f"by-{mapping.replace('_', '-')}", mapping=mapping)
        ours = ElasticsearchDestination(config, settings, utc_now)
        assert dict(ours.deliver(offer_of(frame)).refused) == {}
        rows = ours.read_back(duck, HOUR).fetchall()
        assert sorted(rows) == sorted(frame.project("row_uid, event").fetchall())
        for question in ({"term": SEARCHED[mapping]}, by_time):
            found = requests.get(
                f"{cluster.url}/{config.index}/_search", json={"query": question}, timeout=10
            )
            assert [hit["_id"] for hit in found.json()["hits"]["hits"]] == [uid]


@pytest.mark.slow
def test_services_get_the_names_of_the_schema(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Splunk in its indexed fields, Datadog in attributes beside those it reserves, CloudWatch in the message."""
    assert settings.postgres
    offer = offer_of(frame_of(duck, EVENTS))
    for mapping in NAMES:
        with (
            receiving(receivers.splunk) as splunk,
            receiving(receivers.datadog) as datadog,
            receiving(receivers.cloudwatch) as cloudwatch,
        ):
            senders: list[Any] = [
                splunk_sender(splunk.url, mapping=mapping),
                datadog_sender(datadog.url, mapping=mapping),
                cloudwatch_sender(cloudwatch.url, mapping=mapping),
            ]
            for number, sender in enumerate(senders):
                AppendingDestination(
                    f"{mapping}-{number}",
                    sender.config,
                    settings.postgres,
                    sender,
                    lambda: HOUR.next.start,
                ).deliver(offer)
        envelope, log, message = splunk.events[0], datadog.events[0], messages(cloudwatch)[0]
        ((name, value),) = SEARCHED[mapping].items()
        assert envelope["fields"][name] == log[name] == value
        assert (log["service"], log["status"], log["dd.trace_id"]) == ("agents", "error", "t1")
        assert log["data"] == envelope["event"] == EVENT
        whole = message if mapping == "none" else message["data"]
        assert whole["usage"] == EVENT["usage"]


@pytest.mark.slow
def test_a_table_has_a_view_with_the_names_of_the_schema(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """``events_ecs`` and its siblings over the same table; the role of readers may read them."""
    assert settings.postgres
    durations = {
        "otel": ("attributes.obs.duration_ms", 1500),
        "ecs": ("event.duration", 1_500_000_000),
        "datadog": ("duration", 1_500_000_000),
        "splunk_cim": ("duration", 1.5),
    }
    offer = offer_of(frame_of(duck, EVENTS))
    for mapping in NAMES:
        config = PostgresConfig(mapping=mapping)
        ours = PostgresDestination(config, settings.postgres, clock=lambda: HOUR.end)
        ours.deliver(offer)
        ours.init(reader="obs_reader")
    with connect_postgres(settings.postgres) as connection:
        connection.execute("SET ROLE obs_reader")
        assert connection.execute("SELECT to_regclass('events_none')").fetchall() == [(None,)]
        for mapping, (column, duration) in durations.items():
            ((name, value),) = SEARCHED[mapping].items()
            rows = connection.execute(
                f'SELECT data->>\'id\', "{column}" FROM events_{mapping} WHERE "{name}" = %s',
                [value],
            ).fetchall()
            assert rows == [("e1", duration)]


def test_defaults_are_what_the_users_of_a_destination_search_by() -> None:
    """A table and an archive stay as they are by default; a webhook has no mapping."""
    defaults = {
        kind.name: kind.config.model_fields["mapping"].default
        for kind in KINDS
        if "mapping" in kind.config.model_fields
    }
    assert defaults == {
        "postgres": "none",
        "s3": "none",
        "elasticsearch": "ecs",
        "splunk": "splunk_cim",
        "datadog": "datadog",
        "cloudwatch": "none",
    }


def test_the_page_has_the_table() -> None:
    """docs/mappings.md shows each value with its name in each mapping."""
    page = (Path(__file__).parents[2] / "docs" / "mappings.md").read_text()
    for value in VALUES:
        cells = [
            f"`{'.'.join(path_of(mapping, value))}`".replace("``", "") for mapping in NAMES
        ]
        assert f"| {' | '.join(cells)} |" in page, value
