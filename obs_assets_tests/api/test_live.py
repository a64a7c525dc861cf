"""Live streams: every stored row comes, in time, once, also over connections that break off."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_websocket

from obs_assets.api.live import (
    KEPT_PAGES_BYTES,
    Message,
    Page,
    Pages,
    Wanted,
    _rows_message,
    with_signs_of_life,
)
from obs_assets.api.problems import UNAVAILABLE, ProblemError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.search.language import parse
from obs_assets.search.live import Change, Load, Mark
from obs_assets.search.questions import FoundEvent, Position
from obs_assets_tests.api.conftest import Load as LoadHour
from obs_assets_tests.api.conftest import some_events
from obs_assets_tests.api.process import running
from obs_assets_tests.frames import HOUR

pytestmark = pytest.mark.slow


@dataclass
class Received:
    """A server-sent event."""

    type: str
    body: Any
    id: str = ""


@pytest.fixture(scope="module")
def address(hourly: HourlyPipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with running(hourly, tmp_path_factory.mktemp("served")) as (_, at):
        yield at


@contextmanager
def tail(address: str, last: str = "", **parameters: str) -> Iterator[Iterator[Received]]:
    """The events of a stream."""
    headers = {"Last-Event-ID": last} if last else {}
    with httpx.stream(
        "GET", f"{address}/api/v1/tail", params=parameters, headers=headers, timeout=20
    ) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        yield parsed(answer.iter_lines())


def parsed(lines: Iterator[str]) -> Iterator[Received]:
    """Server-sent events as a browser reads them."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                body = json.loads(fields["data"])
                yield Received(fields["event"], body, fields.get("id", ""))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def rows_until(stream: Iterator[Received], count: int) -> tuple[list[str], str]:
    """Ids of events until there are so many, and the last message's id."""
    seen: list[str] = []
    for message in stream:
        if message.type == "rows":
            seen += [event["event_id"] for event in message.body["events"]]
            if len(seen) >= count:
                return seen, message.id
    raise AssertionError(seen)


def begin(stream: Iterator[Received]) -> None:
    """Read the first messages: from then on the stream follows."""
    assert next(stream).type == "hello"
    assert next(stream).type == "lag"


def hours_from(start: Hour, count: int) -> list[Hour]:
    return [Hour(start.start + timedelta(hours=number)) for number in range(count)]


def ids(hour: Hour) -> list[str]:
    return [event["id"] for event in some_events(hour)]


def test_a_loaded_hour_is_told_then_its_rows(address: str, load: LoadHour) -> None:
    """Only those that match, the oldest first; a late event is the only new row of its hour."""
    (hour,) = hours_from(HOUR, 1)
    with tail(address, q="-type:beat") as stream, tail(address, q="type:late") as late:
        begin(stream)
        begin(late)
        load(hour, some_events(hour), generation=1)
        told = next(stream)
        assert (told.type, told.body["state"], told.body["generation"]) == ("hour", "built", 1)
        assert told.body["hour"] == hour.start.isoformat()
        wanted = [event["id"] for event in some_events(hour) if event["type"] != "beat"]
        seen, _ = rows_until(stream, len(wanted))
        assert sorted(seen) == sorted(wanted)
        more = {
            "id": "late",
            "type": "late",
            "timestamp": hour.start.isoformat(),
            "x": "a\u2028b",
        }
        load(hour, [*some_events(hour), more], generation=2)
        assert rows_until(stream, 1)[0] == ["late"]
        assert [next(late).type for _ in range(2)] == ["hour", "hour"]
        (event,) = next(late).body["events"]
        assert event["data"]["x"] == "a\u2028b"


def test_a_stream_goes_on_where_it_broke_off(
    address: str, hourly: HourlyPipeline, load: LoadHour, tmp_path: Path
) -> None:
    """By the id of the last message: nothing is missed, nothing comes twice. Another process misses nothing."""
    first, second, third = hours_from(Hour(HOUR.start + timedelta(days=1)), 3)
    with tail(address) as other:
        begin(other)  # the hub looks on while the broken stream is away
        with tail(address) as stream:
            begin(stream)
            load(first, some_events(first))
            seen, last = rows_until(stream, 12)
        load(second, some_events(second))
        load(first, [*some_events(first), {"id": "more", "type": "more"}], generation=2)
        assert len(rows_until(other, 25)[0]) == 25
        with tail(address, last=last) as stream:
            begin(stream)
            again, last = rows_until(stream, 13)
            load(third, some_events(third))
            again += rows_until(stream, 12)[0]
    assert sorted(seen + again) == sorted([*ids(first), *ids(second), "more", *ids(third)])
    with running(hourly, tmp_path) as (_, elsewhere), tail(elsewhere, after=last) as stream:
        begin(stream)
        missed = set(ids(third))
        while missed:
            missed -= set(rows_until(stream, 1)[0])


def test_a_row_that_is_gone_is_no_place_to_go_on(address: str) -> None:
    """The client is told, and follows from now on; a text that is no id is a mistake."""
    mark = Mark(HOUR.start, 1, Position(HOUR.start, "ab"))
    with tail(address, last=mark.id) as stream:
        assert [next(stream).type for _ in range(3)] == ["hello", "stale", "lag"]
    for name in ("x", "1.2.3", "1.1.1.zz", "999999999999.1.1.ab"):
        refused = httpx.get(f"{address}/api/v1/tail", params={"after": name})
        assert (refused.status_code, refused.json()["parameter"]) == (400, "after")
    refused = httpx.get(f"{address}/api/v1/tail", params={"q": "(a"})
    assert (refused.status_code, refused.json()["type"]) == (400, "/problems#query")
    refused = httpx.get(f"{address}/api/v1/tail", params={"q": "duration:soon"})
    assert refused.status_code == 400


def test_a_websocket_has_the_same_messages(address: str, load: LoadHour) -> None:
    """A new subscription takes the place of the one before; a mistake closes with a reason."""
    (hour,) = hours_from(Hour(HOUR.start + timedelta(days=2)), 1)
    url = address.replace("http", "ws") + "/api/v1/ws"
    with connect_websocket(url) as socket:
        socket.send(json.dumps({"subscribe": {"q": "type:nothing"}}))
        assert json.loads(socket.recv(5))["type"] == "hello"
        socket.send(json.dumps({"subscribe": {"q": "type:task"}}))
        kinds = []
        while kinds.count("hello") < 1 or kinds[-1] != "lag":
            kinds.append(json.loads(socket.recv(5))["type"])
        load(hour, some_events(hour))
        messages = []
        while not messages or messages[-1]["type"] != "rows":
            messages.append(json.loads(socket.recv(10)))
        events = messages[-1]["events"]
        assert {event["event_type"] for event in events} == {"task"}
        assert Mark.of_id(messages[-1]["id"])
        socket.send(json.dumps({"subscribe": {"q": "("}}))
        with suppress(ConnectionClosed):
            while socket.recv(5):
                pass
        assert socket.close_code == 1008
        assert "expected" in (socket.close_reason or "")
    with connect_websocket(url) as socket:
        socket.send("{}")
        with pytest.raises(ConnectionClosed):
            socket.recv(5)
    with pytest.raises(InvalidStatus):
        connect_websocket(url, origin="http://evil.example")  # type: ignore[arg-type]


def test_streams_end_with_the_process(hourly: HourlyPipeline, tmp_path: Path) -> None:
    """SIGTERM with ten streams: each says good-bye, and the process ends within five seconds."""
    with running(hourly, tmp_path) as (process, address), ExitStack() as stack:
        streams = [stack.enter_context(tail(address)) for _ in range(10)]
        for stream in streams:
            begin(stream)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        process.wait(timeout=10)
        assert time.monotonic() - began < 5
        assert [[message.type for message in stream][-1] for stream in streams] == ["bye"] * 10


def test_a_stream_that_waits_shows_that_it_lives() -> None:
    """While a message is being made, signs of life come; a client that goes away ends the making."""
    said: list[str] = []

    async def slow() -> AsyncGenerator[Message, None]:
        try:
            yield Message("hello", "{}")
            await asyncio.sleep(0.35)
            yield Message("lag", "{}")
            await asyncio.sleep(60)
        finally:
            said.append("closed")

    async def scene() -> None:
        async with aclosing(with_signs_of_life(slow(), beat_s=0.1)) as messages:
            async for message in messages:
                said.append(message.type if message else "alive")
                if said[-2:] == ["lag", "alive"]:
                    break

    asyncio.run(scene())
    assert said == ["hello", "alive", "alive", "alive", "lag", "alive", "closed"]


def test_streams_with_the_same_query_share_their_pages() -> None:
    """A page is read once for all; a failed one is read again; a client that leaves takes it from nobody."""
    change = Change(Load(HOUR.start, 1, 1, HOUR.end), False, ())
    wanted = Wanted(parse("level:error -type:beat"), change, None)
    read: list[Wanted] = []

    async def reading(page: Wanted) -> Page:
        read.append(page)
        await asyncio.sleep(0.05)
        if len(read) == 1:
            raise ProblemError(UNAVAILABLE, "away")
        return Page(1, Message("rows", "x" * (KEPT_PAGES_BYTES // 2)))

    async def scene() -> None:
        pages = Pages(reading)
        with pytest.raises(ProblemError):
            await pages.get(wanted)
        streams = [asyncio.create_task(pages.get(wanted)) for _ in range(10)]
        await asyncio.sleep(0.01)
        streams[0].cancel()
        results = await asyncio.gather(*streams, return_exceptions=True)
        assert [type(result) for result in results[1:]] == [Page] * 9
        assert len(read) == 2
        # Two more pages take the place of the first.
        for second in (1, 2):
            after = Position(HOUR.start + timedelta(seconds=second), "")
            await pages.get(replace(wanted, after=after))
        await pages.get(wanted)
        assert len(read) == 5

    asyncio.run(scene())


def test_lines_of_a_message_are_lines_for_every_client() -> None:
    """Characters at which some clients end a line are written as escapes."""
    event = FoundEvent(
        HOUR.start, "ab", *[None] * 9, error="a\u2028b", duration_ms=None, cost_usd=None,
        weight=1.0, data='{"a": "x\u2029\x85y"}',
    )  # fmt: skip
    change = Change(Load(HOUR.start, 1, 1, HOUR.end), False, ())
    sent = _rows_message(change, (event,)).sse().decode()
    assert len(sent.splitlines()) == 4
    assert json.loads(sent.split("data: ")[1])["events"][0]["data"]["a"] == "x\u2029\x85y"
