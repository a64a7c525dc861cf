"""An invented destination: hours on a tape drive that is reached by HTTP.

This module is all that CONTRIBUTING's recipe asks for beside the row in `ROW`: options, a server of
its own, and a class with the methods of `Destination`. Run as a program it is that server.
"""

import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import requests

from obs_assets.delivery.kinds import Kind, Order
from obs_assets.destinations.base import (
    Column,
    Delivery,
    DestinationConfig,
    Holding,
    Offer,
    Page,
    refuse_older,
)
from obs_assets.embedded import EmbeddedServer, process
from obs_assets.embedded.process import Access
from obs_assets.errors import HourBusyError, TransientError
from obs_assets.events import Frame
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion

EVENTS = pa.schema({"row_uid": pa.string(), "event": pa.string()})


class TapeConfig(DestinationConfig, frozen=True):
    """Hours on a tape.

    Attributes:
        label: name of the tape.
    """

    type: Literal["tape", "reel"] = "tape"
    label: str = "events"


class TapeDestination:
    """Writes an hour as one JSON document."""

    def __init__(self, config: TapeConfig, url: str) -> None:
        self._url = f"{url}/{config.label}"

    def deliver(self, offer: Offer) -> Delivery:
        """Write the hour in the place of the one before."""
        held = self.holding(offer.hour)
        refuse_older("the tape", held, offer)
        events = offer.frame.project("row_uid, event").to_arrow_table().to_pylist()
        version = asdict(offer.version)
        document = {"version": version, "content_hash": offer.content_hash, "events": events}
        self._ask("PUT", offer.hour.stamp, document)
        return Delivery(written=offer.rows)

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """What the tape says of an hour."""
        document = self._ask("GET", hour.stamp)
        return _holding(document, count=count) if document else None

    def holdings(self) -> Mapping[Hour, Holding]:
        """What the tape says of all its hours."""
        found = self._ask("GET", "")
        return {
            parse_hour(key): _holding(document, count=False) for key, document in found.items()
        }

    def adopt(self, hour: Hour, held: Holding, version: InputVersion) -> None:
        """Write the hour's document with another version."""
        document = self._ask("GET", hour.stamp)
        there = _holding(document, count=False)
        if (there.version, there.content_hash) != (held.version, held.content_hash):
            raise HourBusyError(f"the tape holds another {hour} by now: try again")
        self._ask("PUT", hour.stamp, {**document, "version": asdict(version)})

    def selected(self, frame: Frame) -> Frame:
        """All rows."""
        return frame

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """The events of an hour."""
        document = self._ask("GET", hour.stamp) or {"events": []}
        return connection.from_arrow(pa.Table.from_pylist(document["events"], EVENTS))

    def check(self) -> str:
        """Where the drive is."""
        self._ask("GET", "")
        return f"a tape drive at {self._url}"

    def _ask(self, method: str, path: str, document: Any = None) -> Any:
        try:
            answer = requests.request(method, f"{self._url}/{path}", json=document, timeout=10)
        except requests.ConnectionError:
            raise TransientError(f"no tape drive answers at {self._url}") from None
        return answer.json()


def _holding(document: Any, *, count: bool) -> Holding:
    rows = len(document["events"])
    version = InputVersion(**document["version"])
    return Holding(version, rows, document["content_hash"], counted=rows if count else None)


class TapeServer(process.Server):
    """This module as a program, as `process` starts and ends it."""

    name = "Tape drive"
    setting = "TAPE_URL"
    program = Path(sys.executable).name
    endings = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))

    @property
    def mark(self) -> str:
        """The folder of its tapes."""
        return str(self.data)

    def address(self, access: Access) -> str:
        """Its URL."""
        return f"http://{process.LOOPBACK}:{access.port}"

    def prepare(self, access: Access) -> list[str]:
        """Its command line."""
        self.data.mkdir(exist_ok=True)
        return [sys.executable, str(Path(__file__)), str(access.port), self.mark]

    def environment(self, access: Access) -> dict[str, str]:
        """With the packages that its imports need."""
        return {**super().environment(access), "PYTHONPATH": ":".join(filter(None, sys.path))}

    def answers(self, access: Access) -> bool:
        """Whether it listens."""
        return not process.is_free(access.port)

    def clean_up(self, access: Access) -> None:
        """It leaves nothing behind."""


def _server(data_dir: Path) -> TapeServer:
    return TapeServer(data_dir.resolve() / "servers" / "tape")


def _start(data_dir: Path) -> str:
    server = _server(data_dir)
    return server.address(process.ensure(server))


def _make(order: Order) -> TapeDestination:
    return TapeDestination(order.config, order.server)


ROW = Kind(
    name="tape",
    aliases=("reel",),
    config=TapeConfig,
    asset_name="tape_events",
    description="The hour's events on a tape.",
    dagster_kinds=frozenset({"tape"}),
    server=EmbeddedServer(_server, _start, lambda _: None),
    make=_make,
    page=lambda config: Page(config.label, (Column("event", "json", "the whole event"),)),
)


class _Drive(BaseHTTPRequestHandler):
    """Answers with the document of an hour, or with all documents by hour."""

    def do_GET(self) -> None:
        path = self._path()
        if path.is_file():
            self._answer(path.read_bytes())
        elif self.path.endswith("/"):
            hours = {file.stem: json.loads(file.read_bytes()) for file in path.glob("*.json")}
            keys = {f"{s[:4]}-{s[4:6]}-{s[6:8]}-{s[8:]}:00": hours[s] for s in hours}
            self._answer(json.dumps(keys).encode())
        else:
            self._answer(b"null")

    def do_PUT(self) -> None:
        path = self._path()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"{}")

    def _path(self) -> Path:
        label, _, stamp = self.path.strip("/").partition("/")
        folder = Path(sys.argv[2]) / label
        return folder / f"{stamp}.json" if stamp else folder

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer((process.LOOPBACK, int(sys.argv[1])), _Drive).serve_forever()
