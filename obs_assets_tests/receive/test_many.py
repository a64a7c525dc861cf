"""Long proofs of the receiver: real senders while it is killed, and thousands of idle connections."""

import logging
import random
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import psutil
import pytest
import requests
import structlog
from elasticsearch import ApiError, Elasticsearch, TransportError, helpers
from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    InMemoryLogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from splunk_handler import SplunkHandler

from obs_assets_tests.receive.conftest import Process

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

EVENTS = 100_000
KILLS = 20
BATCH = 500


def test_ten_thousand_idle_connections(process: Process) -> None:
    """Connections that send nothing take no place of a sender, and little memory."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 12_000), most))
    try:
        process.start()
        idle = [socket.create_connection(("127.0.0.1", process.port)) for _ in range(10_000)]
        for n in range(20):
            body = f'{{"time": 1935738000, "n": {n}}}'
            assert requests.post(f"{process.url}/events", data=body, timeout=10).ok
        running = psutil.Process(process.process.pid)
        assert running.memory_info().rss < 200 << 20
        assert running.num_fds() < 600
        for connection in idle:
            connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    process.stop()
    assert len(process.landed()) == 20


class Killer:
    """Kills the receiver and starts it again, a short time after every so many batches.

    Args:
        process: the receiver, which runs.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.kills = 0
        self._random = random.Random(23)
        self._thread = threading.Thread(target=lambda: None)
        self._thread.start()

    def after(self, sent: int) -> None:
        """Note that so many events were sent before the batch that comes now."""
        if sent * (KILLS + 1) >= (self.kills + 1) * EVENTS and self.kills < KILLS:
            self.kills += 1
            self._thread.join()
            self._thread = threading.Thread(target=self._kill)
            self._thread.start()

    def _kill(self) -> None:
        time.sleep(self._random.random() / 10)
        self.process.kill()
        self.process.start()

    def end(self) -> None:
        self._thread.join()
        assert self.kills == KILLS


Sender = Callable[[str, Killer], Iterator[int]]
"""Sends numbered events, and yields the numbers that were acknowledged."""

Emit = Callable[[int], object]
"""Makes the record of a number."""


def by_sdk(provider: LoggerProvider) -> Emit:
    """OpenTelemetry's own logger."""
    logger = provider.get_logger("soak")
    return lambda n: logger.emit(timestamp=1_935_738_000_000_000_000 + n, attributes={"n": n})


def by_logging(provider: LoggerProvider) -> Emit:
    """Python's `logging`."""
    logger = logging.Logger("soak.logging")
    logger.addHandler(LoggingHandler(logger_provider=provider))
    return lambda n: logger.warning("step %d", n, extra={"n": n})


def by_structlog(provider: LoggerProvider) -> Emit:
    """`structlog`, on top of `logging`."""
    logger = logging.Logger("soak.structlog")
    logger.addHandler(LoggingHandler(logger_provider=provider))
    bound = structlog.wrap_logger(logger, processors=[structlog.stdlib.render_to_log_kwargs])
    return lambda n: bound.warning("step", n=n)


Export = Callable[[Sequence[ReadableLogRecord]], bool]
"""Exports a batch; whether it was acknowledged."""


def in_protobuf(url: str) -> Export:
    """The official exporter."""
    exporter = OTLPLogExporter(f"{url}/v1/logs", timeout=10)
    return lambda batch: exporter.export(batch) is LogRecordExportResult.SUCCESS


def in_json(url: str) -> Export:
    """The official encoding, as JSON. The exporter for JSON is a beta for another version of the SDK."""

    def export(batch: Sequence[ReadableLogRecord]) -> bool:
        body = MessageToJson(encode_logs(batch))
        headers = {"Content-Type": "application/json"}
        with suppress(requests.RequestException):
            return requests.post(f"{url}/v1/logs", body, headers=headers, timeout=10).ok
        return False

    return export


def opentelemetry(
    make_emit: Callable[[LoggerProvider], Emit], export_to: Callable[[str], Export]
) -> Sender:
    """A sender through OpenTelemetry's SDK; a batch that the exporter gave up is exported again."""

    def send(url: str, killer: Killer) -> Iterator[int]:
        made = InMemoryLogRecordExporter()
        provider = LoggerProvider()
        provider.add_log_record_processor(SimpleLogRecordProcessor(made))
        emit, export = make_emit(provider), export_to(url)
        for first in range(0, EVENTS, BATCH):
            made.clear()
            numbers = range(first, first + BATCH)
            for n in numbers:
                emit(n)
            batch = made.get_finished_logs()
            killer.after(first)
            while not export(batch):
                time.sleep(0.1)
            yield from numbers

    return send


def with_splunk_handler(url: str, killer: Killer) -> Iterator[int]:
    """The handler of `logging` for Splunk's collector, which tries a request again for minutes."""
    logger = logging.Logger("soak.splunk")
    handler = SplunkHandler(
        host="127.0.0.1",
        port=int(url.rpartition(":")[2]),
        token="any",
        index="main",
        protocol="http",
        flush_interval=0,
        queue_size=0,
        retry_count=1_000,
        retry_backoff=0.01,
    )
    logger.addHandler(handler)
    for first in range(0, EVENTS, BATCH):
        numbers = range(first, first + BATCH)
        for n in numbers:
            logger.warning("step %d", n)
        killer.after(first)
        handler.force_flush()
        yield from numbers
    handler.close()


def with_elasticsearch(url: str, killer: Killer) -> Iterator[int]:
    """The official client's `helpers.bulk`; a batch that failed is sent again under the same ids."""
    client = Elasticsearch(url, request_timeout=10)
    for first in range(0, EVENTS, BATCH):
        numbers = range(first, first + BATCH)
        actions = [
            {
                "_index": "logs",
                "_id": str(n),
                "_op_type": "create",
                "time": 1_935_738_000,
                "n": n,
            }
            for n in numbers
        ]
        killer.after(first)
        while True:
            with suppress(ApiError, TransportError):
                stored, _ = helpers.bulk(client, actions, chunk_size=BATCH)
                assert stored == BATCH
                break
            time.sleep(0.1)
        yield from numbers
    client.close()


SENDERS: dict[str, Sender] = {
    "opentelemetry": opentelemetry(by_sdk, in_protobuf),
    "opentelemetry in JSON": opentelemetry(by_sdk, in_json),
    "logging": opentelemetry(by_logging, in_protobuf),
    "structlog": opentelemetry(by_structlog, in_protobuf),
    "elasticsearch": with_elasticsearch,
    "splunk-handler": with_splunk_handler,
}


def number_of(event: dict[str, Any]) -> int:
    """The number that its sender gave an event."""
    if "n" in event:
        return int(event["n"])
    attributes = event.get("attributes", {})
    if "n" in attributes:
        return int(attributes["n"])
    return int(event["message"].rpartition("step ")[2].split()[0].strip('",}'))


@pytest.mark.filterwarnings("ignore:`LoggingHandler`:DeprecationWarning")
@pytest.mark.parametrize("name", SENDERS)
def test_a_sender_and_twenty_kills(process: Process, name: str) -> None:
    """Each of 100,000 acknowledged events lands; only batches that a kill has met are there twice."""
    process.start()
    killer = Killer(process)
    acknowledged = set(SENDERS[name](process.url, killer))
    killer.end()
    process.stop()
    landed = Counter(map(number_of, process.landed()))
    print(
        f"{name}: {len(landed):,} events, {killer.kills} kills, {landed.total() - len(landed)} twice"
    )
    assert len(acknowledged) == EVENTS
    assert acknowledged == set(landed)
    assert sum(landed.values()) - EVENTS <= KILLS * BATCH
