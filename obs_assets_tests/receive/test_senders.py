"""Official senders send to `obs receive` as they send to their own servers."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from elasticsearch import Elasticsearch, helpers
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from splunk_handler import SplunkHandler

from obs_assets_tests.receive.conftest import Process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A running receiver."""
    process = Process(Path(tmp_path_factory.mktemp("senders")))
    process.start()
    yield process
    process.stop()


def landed(process: Process, name: str) -> list[dict[str, Any]]:
    """The events in which a word stands, in the order of their files."""
    return [event for event in process.landed() if name in str(event)]


@pytest.mark.filterwarnings("ignore:`LoggingHandler`:DeprecationWarning")
def test_opentelemetry_sends_python_logs(shared: Process) -> None:
    """`logging` and `structlog` through OpenTelemetry's SDK and exporter, compressed."""
    exporter = OTLPLogExporter(f"{shared.url}/v1/logs", compression=Compression.Gzip)
    provider = LoggerProvider(Resource.create({"service.name": "cart"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = logging.getLogger("obs_tests.otel")
    handler = LoggingHandler(logger_provider=provider)
    logger.addHandler(handler)
    logger.error("otel %s", "plain", extra={"order": 7})
    bound = structlog.wrap_logger(logger, processors=[structlog.stdlib.render_to_log_kwargs])
    bound.warning("otel structured", user_id=9)
    for number in range(1_000):
        logger.warning("otel many %d", number)
    provider.shutdown()
    logger.removeHandler(handler)
    events = landed(shared, "otel ")
    assert len(events) == 1_002
    assert events[0]["body"] == "otel plain"
    assert events[0]["severityText"] == "ERROR"
    assert events[0]["attributes"]["order"] == 7
    assert events[1]["attributes"]["user_id"] == 9
    assert events[0]["resource"]["service.name"] == "cart"


def test_elasticsearch_helpers(shared: Process) -> None:
    """`helpers.bulk` and `helpers.parallel_bulk` of the official client, and its check of the server."""
    client = Elasticsearch(shared.url, http_compress=True)
    assert client.info()["version"]["number"]
    actions = [
        {"_index": "logs", "@timestamp": "2031-05-05T09:00:00Z", "es": n} for n in range(500)
    ]
    assert helpers.bulk(client, actions) == (500, [])
    creations = (
        {**action, "_op_type": "create", "_id": str(action["es"])} for action in actions
    )
    assert all(ok for ok, _ in helpers.parallel_bulk(client, creations, chunk_size=100))
    client.close()
    events = landed(shared, "'es'")
    assert sorted(event["es"] for event in events) == sorted([*range(500), *range(500)])
    assert {event["_index"] for event in events} == {"logs"}


def test_splunk_handler(shared: Process) -> None:
    """The handler of `logging` for Splunk's collector."""
    handler = SplunkHandler(
        host="127.0.0.1",
        port=shared.port,
        token="any",
        index="main",
        protocol="http",
        flush_interval=0.1,
    )
    logger = logging.getLogger("obs_tests.splunk")
    logger.addHandler(handler)
    logger.warning("splunk says %d", 5)
    handler.force_flush()
    logger.removeHandler(handler)
    handler.close()
    (event,) = landed(shared, "splunk says")
    assert event["index"] == "main"
    assert "splunk says 5" in event["message"]
