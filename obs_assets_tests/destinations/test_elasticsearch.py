"""Elasticsearch as a destination, on a real server that speaks the API of OpenSearch."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests
from opensearchpy import OpenSearch, helpers
from osmem_server import OsmemServer
from pydantic import SecretStr

from obs_assets import crash
from obs_assets.audit.scan import scan
from obs_assets.audit.verify import verify
from obs_assets.components import pipeline_definitions
from obs_assets.destinations.elasticsearch import ElasticsearchConfig, ElasticsearchDestination
from obs_assets.destinations.elasticsearch.cluster import Cluster
from obs_assets.destinations.elasticsearch.documents import Body
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    ObsError,
    PermanentError,
    StaleHourError,
    TransientError,
)
from obs_assets.events import Frame
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.restore import archive_of, restore
from obs_assets.hours import utc_now
from obs_assets.settings import ElasticsearchSettings, Settings
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS
from obs_assets_tests.destinations.faults import Fault, gateway
from obs_assets_tests.frames import HOUR, frame_of, offer_of

pytestmark = DAGSTER_WARNINGS

NEXT = HOUR.next
DAY = "obs-events-2025.12.04"

EVENTS: list[dict[str, Any] | str] = [
    {
        "id": f"evt-{number}",
        "type": "llm_call",
        "level": "info",
        "message": f"called the model {number} times",
        "trace_id": f"trace-{number % 3}",
        "duration_ms": number,
        "usage": {"model": "opus", "tokens": [number, 2]},
    }
    for number in range(50)
]


@pytest.fixture(scope="module")
def server() -> Iterator[OsmemServer]:
    """The server; each test gets a cluster of its own."""
    started = OsmemServer.start()
    yield started
    started.close()
    if started.process.stdout:
        started.process.stdout.close()


@pytest.fixture
def url(server: OsmemServer) -> Iterator[str]:
    """The address of an empty cluster."""
    clone = server.clone()
    yield clone.url
    clone.close()


def connect(url: str, **options: Any) -> ElasticsearchDestination:
    """A destination at this address."""
    config = ElasticsearchConfig.model_validate({"max_retries": 3, **options})
    return ElasticsearchDestination(config, ElasticsearchSettings(url=SecretStr(url)), utc_now)


def stored(
    destination: ElasticsearchDestination, duck: duckdb.DuckDBPyConnection
) -> set[tuple[str, str]]:
    """The rows that the cluster holds for `HOUR`."""
    return set(destination.read_back(duck, HOUR).fetchall())


def offered(frame: Frame) -> set[tuple[str, str]]:
    return set(frame.project("row_uid, event").fetchall())


def documents(url: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    """The documents that a query of the API finds."""
    answer = requests.get(
        f"{url}/obs-events/_search", json={"size": 500, "query": question}, timeout=10
    )
    return [hit["_source"] for hit in answer.json()["hits"]["hits"]]


def test_an_hour_is_found_and_read_back_as_it_was(
    url: str, duck: duckdb.DuckDBPyConnection
) -> None:
    """Every row once, with the digits of its numbers; levels, traces and keys of events are searchable."""
    strange: list[dict[str, Any] | str] = [
        '{"n":12345678901234567890.10,"x":1e400,"type":"strange"}',
        '{"text":"line\\nline \\u2028 \\"quoted\\" é 🙂"}',
    ]
    frame = frame_of(duck, [*EVENTS, *strange])
    destination = connect(url)
    delivery = destination.deliver(offer_of(frame))
    assert (delivery.written, dict(delivery.refused)) == (len(EVENTS) + 2, {})
    assert stored(destination, duck) == offered(frame)
    assert len(documents(url, {"term": {"trace.id": "trace-1"}})) == 17
    assert len(documents(url, {"term": {"data.usage.tokens": "7"}})) == 1
    (found,) = documents(url, {"term": {"event.id": "evt-7"}})
    assert found["event"]["duration"] == 7_000_000
    assert found["@timestamp"] == "2025-12-04T10:00:07.000000Z"
    assert destination.holding(HOUR, count=True) == replace(
        destination.holdings()[HOUR], counted=len(EVENTS) + 2
    )


def test_fields_can_have_the_names_of_columns(
    url: str, duck: duckdb.DuckDBPyConnection
) -> None:
    """``mapping: none``: a search names what a table of PostgreSQL names."""
    frame = frame_of(duck, EVENTS)
    destination = connect(url, mapping="none")
    destination.deliver(offer_of(frame))
    assert stored(destination, duck) == offered(frame)
    (found,) = documents(url, {"term": {"event_id": "evt-7"}})
    assert (found["event_type"], found["trace_id"]) == ("llm_call", "trace-1")


def test_an_event_that_cannot_be_indexed_is_kept(
    url: str, duck: duckdb.DuckDBPyConnection
) -> None:
    """An event whose searchable copy the server refuses is stored without that copy, and counted as written."""
    refusal = {
        "errors": True,
        "items": [
            {
                "index": {
                    "_id": uid,
                    "status": 400,
                    "error": {"type": "x", "reason": "secret text"},
                }
            }
            for (uid,) in frame_of(duck, EVENTS[:3]).project("row_uid").fetchall()
        ],
    }
    fault = Fault("_bulk", status=200, body=json.dumps(refusal).encode())
    frame = frame_of(duck, EVENTS[:3])
    with gateway(url, fault) as address:
        destination = connect(address)
        delivery = destination.deliver(offer_of(frame))
    assert (delivery.written, dict(delivery.refused)) == (3, {})
    assert stored(connect(url), duck) == offered(frame)
    assert documents(url, {"term": {"data.usage.model": "opus"}}) == []


def test_a_document_that_is_refused_twice_is_counted(
    url: str, duck: duckdb.DuckDBPyConnection
) -> None:
    """Its reason names the field, and never repeats the server's sentence, which quotes the event."""
    reason = "failed to parse field [log.level] of type [keyword], value 'jane@example.com'"
    error = {"type": "mapper_parsing_exception", "reason": reason}
    ((uid,),) = frame_of(duck, EVENTS[:1]).project("row_uid").fetchall()
    item = {"index": {"_id": uid, "status": 400, "error": error}}
    refusal = json.dumps({"errors": True, "items": [item]}).encode()
    with gateway(url, Fault("_bulk", times=2, status=200, body=refusal)) as address:
        delivery = connect(address).deliver(offer_of(frame_of(duck, EVENTS[:1])))
    assert dict(delivery.refused) == {"mapper_parsing_exception: log.level": 1}
    assert delivery.written == 0


def test_the_same_hour_again_changes_nothing(url: str, duck: duckdb.DuckDBPyConnection) -> None:
    """A repeated offer sends no document."""
    offer = offer_of(frame_of(duck, EVENTS))
    connect(url).deliver(offer)
    seen: list[str] = []
    with gateway(url, seen=seen) as address:
        again = connect(address).deliver(offer)
    assert (again.written, again.already_there) == (0, len(EVENTS))
    assert not [request for request in seen if "_bulk" in request or "_delete" in request]


def test_a_new_version_replaces_the_hour(url: str, duck: duckdb.DuckDBPyConnection) -> None:
    """Rows that the new version lacks are gone, changed rows are new, the next hour stays."""
    destination = connect(url)
    neighbour = frame_of(duck, EVENTS[:5], NEXT)
    destination.deliver(offer_of(frame_of(duck, EVENTS)))
    destination.deliver(offer_of(neighbour, NEXT))
    changed = frame_of(duck, [{"type": "changed", "n": number} for number in range(20)])
    delivery = destination.deliver(offer_of(changed, generation=2))
    assert delivery.stats["documents of older versions"] == 30
    assert stored(destination, duck) == offered(changed)
    # Back within the minute in which the server remembers deleted documents.
    whole = frame_of(duck, EVENTS)
    destination.deliver(offer_of(whole, generation=3))
    assert stored(destination, duck) == offered(whole)
    assert set(destination.read_back(duck, NEXT).fetchall()) == offered(neighbour)


def test_an_older_generation_is_refused(url: str, duck: duckdb.DuckDBPyConnection) -> None:
    """Events that landed later are not taken away."""
    destination = connect(url)
    frame = frame_of(duck, EVENTS)
    destination.deliver(offer_of(frame, generation=2))
    with pytest.raises(StaleHourError, match="generation 2"):
        destination.deliver(offer_of(frame_of(duck, EVENTS[:1]), generation=1))
    assert stored(destination, duck) == offered(frame)


def test_an_empty_hour_is_held(url: str, duck: duckdb.DuckDBPyConnection) -> None:
    """Without documents the ledger still says that the hour was delivered."""
    destination = connect(url)
    destination.deliver(offer_of(frame_of(duck, EVENTS)))
    destination.deliver(offer_of(frame_of(duck, EVENTS).limit(0), generation=2))
    assert destination.holdings()[HOUR].rows == 0
    assert stored(destination, duck) == set()


POINTS = (
    "elasticsearch.after_ledger",
    "elasticsearch.after_request",
    "elasticsearch.after_documents",
    "elasticsearch.after_removal",
    "elasticsearch.after_commit",
)


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_ends_at_any_point_is_repaired(
    url: str, duck: duckdb.DuckDBPyConnection, point: str
) -> None:
    """Until the hour is whole the ledger says that it is missing; the next run makes it exactly right."""
    destination = connect(url, request_size_mb=0.0625)
    destination.deliver(offer_of(frame_of(duck, EVENTS)))
    changed = frame_of(duck, [{"n": number, "pad": "x" * 2000} for number in range(80)])
    offer = offer_of(changed, generation=2)

    def end() -> None:
        raise KeyboardInterrupt

    with crash.interrupted(point, end), pytest.raises(KeyboardInterrupt):
        destination.deliver(offer)
    held = connect(url).holding(HOUR)
    assert (held is not None) == (point == "elasticsearch.after_commit")
    repaired = connect(url)
    repaired.deliver(offer)
    assert stored(repaired, duck) == offered(changed)
    assert repaired.holdings()[HOUR].rows == 80


def test_a_run_that_was_overtaken_changes_no_document(
    url: str, duck: duckdb.DuckDBPyConnection
) -> None:
    """A slow run whose hour was delivered by a newer run meanwhile ends with an error, and the hour is the newer."""
    newer = frame_of(duck, [{"n": number} for number in range(50)])

    def overtake() -> None:
        with crash.interrupted("elasticsearch.after_ledger", lambda: None):
            connect(url).deliver(offer_of(newer, generation=2))

    with (
        crash.interrupted("elasticsearch.after_ledger", overtake),
        pytest.raises(HourBusyError),
    ):
        connect(url).deliver(offer_of(frame_of(duck, EVENTS), generation=1))
    assert stored(connect(url), duck) == offered(newer)


FAULTS = {
    "busy": lambda: Fault("_bulk", times=2, status=429, headers={"Retry-After": "0"}),
    "down": lambda: Fault("_bulk", times=2, status=503),
    "closed": lambda: Fault("_bulk", status=0),
    "answer lost": lambda: Fault("_bulk", status=0, is_passed_on=True),
    "gateway error after the request": lambda: Fault("_bulk", status=502, is_passed_on=True),
    "ledger's answer lost": lambda: Fault("2025120410", status=0, is_passed_on=True),
    "refresh lost": lambda: Fault("_refresh", status=0),
    "deletion's answer lost": lambda: Fault("_delete_by_query", status=0, is_passed_on=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_passing_fault_loses_and_doubles_nothing(
    url: str, duck: duckdb.DuckDBPyConnection, name: str
) -> None:
    """Counted at the receiver: exactly the rows of the hour, at the latest after a second run."""
    make: Callable[[], Fault] = FAULTS[name]
    connect(url).deliver(offer_of(frame_of(duck, EVENTS[:5])))
    frame = frame_of(duck, EVENTS)
    with gateway(url, make()) as address:
        try:
            connect(address).deliver(offer_of(frame, generation=2))
        except ObsError:
            connect(address).deliver(offer_of(frame, generation=2))
    assert stored(connect(url), duck) == offered(frame)
    assert connect(url).holdings()[HOUR].rows == len(EVENTS)


def test_documents_without_time_are_sent_again_alone(url: str) -> None:
    """Of a request with one busy document, only that document is sent a second time."""
    items = [{"index": {"_id": str(n), "status": 429 if n == 1 else 201}} for n in range(3)]
    answer = json.dumps({"errors": True, "items": items}).encode()
    waits: list[float] = []
    with gateway(url, Fault("_bulk", status=200, body=answer)) as address:
        cluster = Cluster(
            ElasticsearchConfig(timeout_s=10, max_retries=3),
            ElasticsearchSettings(url=SecretStr(address)),
            sleep=waits.append,
        )
        lines = b"".join(b'{"index":{"_id":"%d"}}\n{"n":%d}\n' % (n, n) for n in range(3))
        verdicts = cluster.store("busy", Body(3, lines))
    assert (verdicts.taken, len(waits)) == (3, 1)
    requests.post(f"{url}/busy/_refresh", timeout=10)
    found = requests.get(f"{url}/busy/_search", timeout=10).json()["hits"]["hits"]
    assert [hit["_source"] for hit in found] == [{"n": 1}]


def test_errors_name_the_setting_and_no_secret(duck: duckdb.DuckDBPyConnection) -> None:
    """Wrong credentials, a body that is too large and a wrong address say what to change."""
    offer = offer_of(frame_of(duck, EVENTS[:1]))
    told = {
        401: (ConfigurationError, "ELASTICSEARCH_API_KEY"),
        403: (ConfigurationError, "ELASTICSEARCH_API_KEY"),
        413: (PermanentError, "request_size_mb"),
        503: (TransientError, "HTTP 503"),
    }
    for status, (kind, words) in told.items():
        with gateway("", Fault("", times=99, status=status)) as address:
            host = address.removeprefix("http://")
            destination = connect(f"http://reader:pass-word-1@{host}", max_retries=0)
            with pytest.raises(kind, match=words) as raised:
                destination.deliver(offer)
            assert "pass-word-1" not in str(raised.value)
    with pytest.raises(TransientError, match="ELASTICSEARCH_URL"):
        connect("http://127.0.0.1:9", max_retries=0).check()


def test_credentials_are_sent(url: str) -> None:
    """An API key goes before user and password; a .netrc file is not asked."""
    headers: list[str] = []

    def send(settings: ElasticsearchSettings) -> None:
        cluster = Cluster(ElasticsearchConfig(timeout_s=10, max_retries=0), settings)
        session = cluster.poster.session
        request = session.prepare_request(requests.Request("GET", url))
        headers.append(str(request.headers.get("Authorization")))

    host = url.removeprefix("http://")
    send(ElasticsearchSettings(url=SecretStr(f"http://me:p%40ss@{host}")))
    send(
        ElasticsearchSettings(
            url=SecretStr(f"http://me:pass@{host}"), api_key=SecretStr("a2V5")
        )
    )
    assert headers == ["Basic bWU6cEBzcw==", "ApiKey a2V5"]


def test_what_was_deleted_by_hand_is_missing(url: str, duck: duckdb.DuckDBPyConnection) -> None:
    """An index that is gone makes its hours missing, and they are delivered again."""
    destination = connect(url)
    frame = frame_of(duck, EVENTS)
    destination.deliver(offer_of(frame))
    requests.delete(f"{url}/{DAY}", timeout=10).raise_for_status()
    assert dict(destination.holdings()) == {}
    destination.deliver(offer_of(frame))
    assert stored(destination, duck) == offered(frame)


def test_the_official_client_reads_the_documents(
    url: str, duck: duckdb.DuckDBPyConnection
) -> None:
    """opensearch-py finds by the alias what was delivered, and its own bulk helper stores equal documents."""
    connect(url).deliver(offer_of(frame_of(duck, EVENTS)))
    client = OpenSearch(url)
    ours = {hit["_id"]: hit["_source"] for hit in helpers.scan(client, index="obs-events")}
    assert len(ours) == len(EVENTS)
    actions = [
        {"_index": "theirs", "_id": uid, "_source": source} for uid, source in ours.items()
    ]
    helpers.bulk(client, actions, refresh=True)
    theirs = {hit["_id"]: hit["_source"] for hit in helpers.scan(client, index="theirs")}
    assert theirs == ours


def of_one_destination(tmp_path: Path) -> PipelineConfig:
    """A configuration with this destination alone."""
    return pipeline.parse(
        {
            "source": {"events_dir": str(tmp_path / "events")},
            "destinations": [{"type": "opensearch", "from": "redacted"}],
        }
    )


def a_pipeline(tmp_path: Path, address: str | None) -> HourlyPipeline:
    """A pipeline with this destination alone, an hour of it landed."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    cluster = ElasticsearchSettings(url=SecretStr(address)) if address else None
    settings = Settings(data_dir=tmp_path / "data", elasticsearch=cluster)
    hourly = HourlyPipeline(of_one_destination(tmp_path), settings)
    hourly.land()
    return hourly


def test_it_is_verified_scanned_and_restored(url: str, tmp_path: Path) -> None:
    """The questions that are asked of an hour reach the cluster and find a changed document there."""
    hourly = a_pipeline(tmp_path, url)
    harness.build(hourly, HOUR)
    assert harness.wrong(hourly) == []
    assert hourly.staleness().hours == []
    (found,) = scan(hourly, HOUR, ["elasticsearch"])
    assert (found.events, found.ok) == (len(harness.an_hour()), True)
    fresh = HourlyPipeline(hourly.config, replaced(hourly.settings, tmp_path / "fresh"))
    report = restore(archive_of(hourly, "elasticsearch_events"), fresh, HOUR)
    assert report.hours == {HOUR.key: len(harness.an_hour())}
    (first,) = documents(url, {"term": {"event.id": "evt-3"}})
    first["event"]["original"] = '{"mail": "jane.doe@example.com"}'
    path = f"{url}/{DAY}/_doc/{first['obs']['row_uid']}?refresh=true"
    requests.put(path, json=first, timeout=10).raise_for_status()
    (verdict,) = [verdict for verdict in verify(hourly, HOUR) if not verdict.ok]
    assert (verdict.store, verdict.different) == ("elasticsearch_events", 1)
    (found,) = scan(hourly, HOUR, ["elasticsearch_events"])
    assert found.by_type == {"email": 1}


def replaced(settings: Settings, data_dir: Path) -> Settings:
    """The same servers with another data folder."""
    return settings.model_copy(update={"data_dir": data_dir})


def test_without_an_address_it_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No asset, no hour that is missing there; the log of the code location names the variable, once."""
    hourly = a_pipeline(tmp_path, None)
    assert hourly.off == {"elasticsearch_events": "ELASTICSEARCH_URL"}
    assert hourly.destination_names == []
    assert hourly.staleness().hours == []
    definitions = pipeline_definitions(of_one_destination(tmp_path), machine=hourly.settings)
    names = [
        asset.key.to_user_string() for asset in definitions.resolve_asset_graph().asset_nodes
    ]
    assert "elasticsearch_events" not in names
    lines = [record.getMessage() for record in caplog.records]
    assert sum("elasticsearch_events is off: ELASTICSEARCH_URL" in line for line in lines) == 1
