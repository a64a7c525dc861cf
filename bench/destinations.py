#!/usr/bin/env python3
"""Measure the services that are reached by HTTP: from the redacted frame of an hour to their receiver.

Elasticsearch: processor seconds of the delivering process beside `elasticsearch.helpers.parallel_bulk`, which gets
the same documents as finished dictionaries; by turns, into the same server (osmem-server). With `--quick` their
documents are acknowledged and not stored: osmem-server needs 1.3 ms of processor time for a document, so that
a million of them take an hour. The others: events a
second of a delivery, and of finished chunks that are only sent, into the strict receivers of the tests.

    python bench/destinations.py [--events N] [--rounds N] [--only elasticsearch splunk datadog cloudwatch] [--quick]

Each part prints its table as it ends, and each round its line. With `--only` a part is measured alone. The
redacted frame is built once for a number of events; `--rebuild` builds it again, after a change of the code.
"""

import argparse
import json
import multiprocessing
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from place import DATA, HERE, HOUR, environment, events_of, fresh_data_dir, out
from rich.table import Table

sys.path.insert(0, str(HERE.parent))

SENT = 50_000
"""Events that go to the strict receivers, which are written in Python."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(globals()[args.step](args.events, args.url)))
        return
    build_once(args.events, rebuild=args.rebuild)
    for part in args.only:
        if part == "elasticsearch":
            elasticsearch(args.events, args.rounds, quick=args.quick)
        else:
            service(part, args.events, args.rounds)


def build_once(events: int, *, rebuild: bool) -> None:
    """The redacted frame of the events, unless an earlier run has built it."""
    built = DATA / "obs" / "built"
    if not rebuild and built.exists() and built.read_text() == str(events):
        return
    events_of(events)
    fresh_data_dir()
    child("build", events)
    built.write_text(str(events))


def child(step: str, events: int, url: str = "") -> dict[str, float]:
    """One step in a fresh process."""
    command = [sys.executable, __file__, "--step", step, "--events", str(events), "--url", url]
    run = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment(events)
    )
    return json.loads(run.stdout.splitlines()[-1])


def build(events: int, url: str) -> dict[str, float]:
    import s3

    del url
    return s3.build(events)


# -- Elasticsearch


def elasticsearch(events: int, rounds: int, *, quick: bool) -> None:
    """Both clients by turns, each into an empty server, which keeps its documents in memory."""
    from osmem_server import OsmemServer

    measured: dict[str, list[dict[str, float]]] = {"ours": [], "parallel_bulk": []}
    for _ in range(rounds):
        for step, results in measured.items():
            with OsmemServer.start() as server, served(acknowledge, server.url) as front:
                results.append(child(step, events, front if quick else server.url))
            last = results[-1]
            out.print(
                f"{step}: {last['processor_seconds']:.1f} processor seconds in {last['seconds']:.0f} s"
            )
    table = Table("client", "processor seconds", "events/s", title=f"{events:,} documents")
    for step, results in measured.items():
        seconds = sorted(result["processor_seconds"] for result in results)
        rate = statistics.median(events / result["seconds"] for result in results)
        table.add_row(step, ", ".join(f"{s:.2f}" for s in seconds), f"{rate:,.0f}")
    out.print(table)
    medians = {
        step: statistics.median(result["processor_seconds"] for result in results)
        for step, results in measured.items()
    }
    out.print(
        f"ours takes {medians['ours'] / medians['parallel_bulk']:.2f} of its processor time"
    )


@contextmanager
def served(serve: Callable[[str, Any], None], given: str) -> Iterator[str]:
    """The address of a server in a process of its own, which sends its address through a pipe."""
    ours_end, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(given, theirs), daemon=True)
    process.start()
    yield ours_end.recv()
    process.terminate()
    process.join()


def acknowledge(server: str, pipe: Any) -> None:
    """Acknowledge and count documents; pass all other requests on to a server."""
    import zlib
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    import requests

    made: set[str] = set()
    documents: list[int] = []

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if "_bulk" in self.path:
                if self.headers.get("Content-Encoding") == "gzip":
                    body = zlib.decompress(body, wbits=31)
                status, content = 200, self.acknowledged(body)
            elif self.path.endswith("/_count"):
                status, content = 200, json.dumps({"count": sum(documents)}).encode()
            else:
                kept = {"Content-Type": self.headers.get("Content-Type", "application/json")}
                found = requests.request(
                    self.command, server + self.path, data=body, headers=kept, timeout=600
                )
                status, content = found.status_code, found.content
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            # Elastic's client talks to no other server.
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - http.server's names

        def acknowledged(self, body: bytes) -> bytes:
            action = json.loads(body[: body.index(b"\n")])
            (about,) = action.values()
            index = about.get("_index") or self.path.strip("/").partition("/")[0]
            if index not in made:
                requests.put(f"{server}/{index}", timeout=600)
                made.add(index)
            item = b'{"index":{"_index":"i","_id":"1","_version":1,"result":"created","status":201}}'
            documents.append(body.count(b"\n") // 2)
            items = b",".join([item] * documents[-1])
            return b'{"took":1,"errors":false,"items":[%b]}' % items

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    pipe.send(f"http://127.0.0.1:{listening.server_port}")
    listening.serve_forever()


def timed(work: Callable[[], Any]) -> dict[str, float]:
    began, began_processor = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - began_processor,
    }


def offer_of(frame: Any, rows: int) -> Any:
    from obs_assets.destinations.base import Offer
    from obs_assets.hours import parse_hour
    from obs_assets.receipts import InputVersion

    return Offer(frame, parse_hour(HOUR), InputVersion(1, "", "", ""), rows, "", rebuild=True)


def ours(events: int, url: str) -> dict[str, float]:
    import s3
    from pydantic import SecretStr

    from obs_assets.destinations.elasticsearch import (
        ElasticsearchConfig,
        ElasticsearchDestination,
    )
    from obs_assets.hours import utc_now
    from obs_assets.settings import ElasticsearchSettings
    from obs_assets.storage.engine import connect_to_stream

    config = ElasticsearchConfig(index=f"ours-{time.time_ns()}", timeout_s=600)
    settings = ElasticsearchSettings(url=SecretStr(url))
    with connect_to_stream(DATA / "obs" / "spill", s3.frame_path()) as connection:
        frame = s3.frame_of(connection)
        destination = ElasticsearchDestination(config, settings, utc_now)
        return timed(lambda: destination.deliver(offer_of(frame, events)))


def plain_node() -> Any:
    """A connection of Elastic's client whose media types a server of OpenSearch knows too."""
    from elastic_transport import HttpHeaders, Urllib3HttpNode

    class PlainNode(Urllib3HttpNode):
        def perform_request(self, method: str, target: str, **options: Any) -> Any:
            headers = HttpHeaders(options.pop("headers", None) or {})
            for name, value in headers.items():
                vendor = r"application/vnd\.elasticsearch\+([a-z-]+); *compatible-with=\d+"
                headers[name] = re.sub(vendor, r"application/\1", value)
            return super().perform_request(method, target, headers=headers, **options)

    return PlainNode


def parallel_bulk(events: int, url: str) -> dict[str, float]:
    """The documents are made before the clock starts, and the index has the same mappings."""
    import s3
    from elasticsearch import Elasticsearch, helpers

    from obs_assets.destinations.elasticsearch.documents import Documents, index_mappings
    from obs_assets.storage.engine import connect

    index = f"theirs-{time.time_ns()}"
    made = Documents("ecs", HOUR, "1", 1)
    with connect(DATA / "obs" / "spill") as connection:
        rows = s3.frame_of(connection).project(f"{made.lines_sql()} AS lines").fetchall()
    actions = []
    for (lines,) in rows:
        action, document = map(json.loads, lines.splitlines())
        actions.append({"_index": index, "_id": action["index"]["_id"], "_source": document})
    with Elasticsearch(url, node_class=plain_node(), request_timeout=3600) as client:
        client.indices.create(index=index, mappings=index_mappings("ecs", is_opensearch=True))

        def send() -> None:
            done = helpers.parallel_bulk(
                client, actions, thread_count=8, chunk_size=2_000, max_chunk_bytes=5 << 20
            )
            assert sum(ok for ok, _ in done) == events
            client.indices.refresh(index=index)

        return timed(send)


# -- Splunk, Datadog, CloudWatch


def receive(kind: str, pipe: Any) -> None:
    """Serve as the strict receiver of a kind."""
    from obs_assets_tests.destinations import receivers

    with receivers.receiving(getattr(receivers, kind)) as received:
        pipe.send(received.url)
        while True:
            time.sleep(1)
            received.events.clear()


def service(kind: str, events: int, rounds: int) -> None:
    """A whole delivery and finished chunks by turns."""
    rates: dict[str, list[float]] = {"delivered": [], "sent": []}
    for _ in range(rounds):
        with served(receive, kind) as url:
            for step, found in rates.items():
                found.append(child(f"{kind}_{step}", events, url)["rate"])
    delivered, sent = map(statistics.median, rates.values())
    out.print(
        f"{kind}: {delivered:,.0f} events/s; finished chunks of {SENT:,} events: {sent:,.0f} events/s"
    )


def sender_of(kind: str, url: str) -> Any:
    from obs_assets_tests.destinations import test_appending

    return getattr(test_appending, f"{kind}_sender")(url)


def delivered(kind: str, url: str) -> dict[str, float]:
    """A whole delivery, with the ledger."""
    import s3

    from obs_assets.destinations.appending import AppendingDestination
    from obs_assets.hours import parse_hour
    from obs_assets.storage.engine import connect

    sender, server = sender_of(kind, url), s3.hourly().settings.postgres
    now = parse_hour(HOUR).end + timedelta(minutes=5)
    with connect(DATA / "obs" / "spill") as connection:
        frame = s3.frame_of(connection).limit(SENT)
        ours = AppendingDestination(
            f"{kind}-{time.time_ns()}", sender.config, server, sender, lambda: now
        )
        seconds = timed(lambda: ours.deliver(offer_of(frame, SENT)))["seconds"]
    return {"rate": SENT / seconds}


def sent(kind: str, url: str) -> dict[str, float]:
    """Chunks that are finished, sent as a delivery sends them."""
    import s3

    from obs_assets.destinations.appending import Line
    from obs_assets.destinations.sending import flow
    from obs_assets.hours import parse_hour
    from obs_assets.storage.engine import connect

    sender, hour = sender_of(kind, url), parse_hour(HOUR)
    columns = f"row_uid, encode({sender.lines_sql(hour)}), epoch_us(event_time)"
    with connect(DATA / "obs" / "spill") as connection:
        rows = s3.frame_of(connection).limit(SENT).project(columns).fetchall()
    chunks = list(sender.chunks(Line(*row) for row in rows))

    def send() -> None:
        list(flow(chunks, lambda chunk: list(sender.send(hour, chunk)), sender.limit, len))

    return {"rate": SENT / timed(send)["seconds"]}


SERVICES = ("splunk", "datadog", "cloudwatch")

PARTS = ("elasticsearch", *SERVICES)
"""Names for `--only`."""

for _kind in SERVICES:
    for _step in (delivered, sent):
        # `--step splunk_sent` and its siblings.
        globals()[f"{_kind}_{_step.__name__}"] = lambda _events, url, kind=_kind, step=_step: (
            step(kind, url)
        )


if __name__ == "__main__":
    main()
