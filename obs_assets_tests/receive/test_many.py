"""Long proofs of the receiver: real senders while it is killed, and thousands of idle connections."""

import random
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest
import requests
from elasticsearch import ApiError, Elasticsearch, TransportError, helpers
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    InMemoryLogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)

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


def with_opentelemetry(url: str, killer: Killer) -> Iterator[int]:
    """The official exporter in Protocol Buffers; a batch that it gave up is exported again."""
    made = InMemoryLogRecordExporter()
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(made))
    logger = provider.get_logger("soak")
    exporter = OTLPLogExporter(f"{url}/v1/logs", timeout=10)
    for first in range(0, EVENTS, BATCH):
        made.clear()
        for n in range(first, first + BATCH):
            logger.emit(timestamp=1_935_738_000_000_000_000 + n, attributes={"n": n})
        batch = made.get_finished_logs()
        killer.after(first)
        while exporter.export(batch) is not LogRecordExportResult.SUCCESS:
            time.sleep(0.1)
        yield from range(first, first + BATCH)
    exporter.shutdown()


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


Sender = Callable[[str, Killer], Iterator[int]]


@pytest.mark.parametrize("send", [with_opentelemetry, with_elasticsearch])
def test_a_sender_and_twenty_kills(process: Process, send: Sender) -> None:
    """Each of 100,000 acknowledged events lands; only batches that a kill has met are there twice."""
    process.start()
    killer = Killer(process)
    acknowledged = set(send(process.url, killer))
    killer.end()
    process.stop()
    landed = Counter(
        event.get("n", event.get("attributes", {}).get("n")) for event in process.landed()
    )
    assert len(acknowledged) == EVENTS
    assert acknowledged == set(landed)
    assert sum(landed.values()) - EVENTS <= KILLS * BATCH
