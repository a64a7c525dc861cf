"""Live events: `/api/v1/tail` (server-sent events) and `/api/v1/ws` (the same messages over WebSocket).

A hub asks the ledger each second for all streams. Each stream reads its rows from the table, a page at
a time, as fast as its client takes them: a slow client is late, and loses nothing. Streams with the same
query share their pages. A stream sends a sign of life whatever it waits for.
"""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError

from obs_assets.api.about import Q
from obs_assets.api.access import needs, refuse_other_sites
from obs_assets.api.events import event_json
from obs_assets.api.problems import ProblemError, wrong_parameter
from obs_assets.api.reader import Reader
from obs_assets.api.served import Served, served
from obs_assets.api.serving import Stop
from obs_assets.api.streams import SEND_S, StreamedAnswer
from obs_assets.search.language import Query as Search
from obs_assets.search.language import QuerySyntaxError, parse
from obs_assets.search.live import Change, Ledger, Load, Mark, changes_since, new_rows
from obs_assets.search.postgres import condition
from obs_assets.search.questions import FoundEvent, Position
from obs_assets.search.rows import QueryValueError
from obs_assets.storage.postgres import Connection

router = APIRouter(prefix="/api/v1", tags=["live"])

LOOK_EVERY_S = 1.0
"""Seconds between two looks at the ledger."""

BEAT_S = 10.0
"""Seconds after which a stream without a message sends a sign of life.

Proxies and clients close a connection without any. Less than the 15 seconds that are promised: the
event loop can be late.
"""

LAG_EVERY_S = 15.0
"""Seconds between two messages ``lag`` on a quiet stream."""

RETRY_MS = 3000
"""Milliseconds after which a browser connects again."""

PAGE_ROWS = 200
"""Rows of a message."""

KEPT_PAGES_BYTES = 8 << 20
"""Bytes of pages that are kept for other streams with the same query."""

MOST_ROWS = 10_000
"""Rows that a stream sends of one load of an hour; a message says that there are more."""

STALE_S = 5.0
"""Seconds without an answer of the database after which streams are told."""


@dataclass(frozen=True)
class Message:
    """A message of a stream.

    Attributes:
        type: hello, rows, hour, lag, dropped, stale or bye.
        body: JSON text of an object.
        id: mark of the last row in it; empty for other messages.
    """

    type: str
    body: str
    id: str = ""

    def sse(self) -> bytes:
        """The message as server-sent event."""
        lines = [f"event: {self.type}", f"data: {self.body}"]
        if self.id:
            lines.insert(0, f"id: {self.id}")
        return ("\n".join(lines) + "\n\n").encode()

    def json(self) -> str:
        """The message as a JSON object, for a WebSocket."""
        head: dict[str, str] = {"type": self.type}
        if self.id:
            head["id"] = self.id
        rest = self.body[1:]
        # `{}` closes at once: a comma in front of the brace would be wrong JSON.
        separator = "" if rest == "}" else ", "
        return f"{json.dumps(head)[:-1]}{separator}{rest}"


BEAT = b": alive\n\n"


@dataclass(frozen=True)
class Page:
    """Rows of a changed hour, as a message.

    Attributes:
        rows: their number.
        message: the message; None without a row.
        last: position of the last row; None without a row.
    """

    rows: int
    message: Message | None = None
    last: Position | None = None

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        body = self.message.body if self.message else ""
        # An empty page is not free, so that their number has a bound too.
        return 10_000 + len(body)


def _message(kind: str, **members: Any) -> Message:
    return Message(kind, json.dumps(members, default=_plain))


def _plain(value: object) -> str:
    assert isinstance(value, datetime)  # noqa: S101 - the only such value in a message
    return value.isoformat()


def _rows_message(change: Change, events: tuple[FoundEvent, ...]) -> Message:
    last = events[-1]
    position = Position(last.timestamp, last.row_uid)
    mark = Mark(change.load.hour, change.load.generation, position)
    listed = ", ".join(map(event_json, events))
    # Some clients end a line at these characters too; inside JSON they stand in strings only.
    for character in "\x85\u2028\u2029":
        listed = listed.replace(character, f"\\u{ord(character):04x}")
    head = json.dumps(
        {"hour": change.load.hour.isoformat(), "generation": change.load.generation}
    )
    return Message("rows", f'{head[:-1]}, "events": [{listed}]}}', mark.id)


def _page_of(change: Change, events: tuple[FoundEvent, ...]) -> Page:
    if not events:
        return Page(0)
    last = Position(events[-1].timestamp, events[-1].row_uid)
    return Page(len(events), _rows_message(change, events), last)


async def with_signs_of_life(
    messages: AsyncGenerator[Message, None], beat_s: float = BEAT_S
) -> AsyncGenerator[Message | None, None]:
    """The messages, and None each time that none comes for some seconds, also while a question waits."""
    coming: asyncio.Future[Message] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(messages))
            # Not `wait_for`, which would cancel the question that the message waits for.
            while not coming.done():
                await asyncio.wait({coming}, timeout=beat_s)
                if not coming.done():
                    yield None
            yield coming.result()
    except StopAsyncIteration:
        return
    finally:
        # A generator that is at work cannot be closed.
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.wait({coming})
        await messages.aclose()


@dataclass(eq=False)
class Stream:
    """What a client follows.

    Attributes:
        query: the rows that it gets.
        changes: hours that it has not got yet, in the order of their loading.
        news: set when there is something to look at.
        is_stale: whether the client was told that the database does not answer.
    """

    query: Search
    changes: deque[Change] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    is_stale: bool = False


@dataclass(frozen=True)
class Wanted:
    """A page of an hour: the matching new rows behind a position; None: the first page."""

    query: Search
    change: Change
    after: Position | None


class Pages:
    """Pages that several streams want at about the same time: each is read once.

    Args:
        read: reads a page from the table.
    """

    def __init__(self, read: Callable[[Wanted], Awaitable[Page]]) -> None:
        self._read_page = read
        self._kept: dict[Wanted, asyncio.Task[Page]] = {}

    def close(self) -> None:
        """End the questions that run."""
        for page in self._kept.values():
            page.cancel()

    async def get(self, wanted: Wanted) -> Page:
        """A page, read from the table or kept from another stream. Errors of the reading are raised."""
        reading = self._kept.get(wanted)
        if reading is None:
            reading = asyncio.create_task(self._read(wanted))
            reading.add_done_callback(_seen)
            self._kept[wanted] = reading
        # Shielded: a client that goes away must not take the page from the others.
        page = await asyncio.shield(reading)
        self._forget_some()
        return page

    async def _read(self, wanted: Wanted) -> Page:
        try:
            return await self._read_page(wanted)
        except BaseException:
            # Asked again by the next stream.
            self._kept.pop(wanted, None)
            raise

    def _forget_some(self) -> None:
        """Forget the oldest pages beyond `KEPT_PAGES_BYTES`."""
        read = {
            wanted: reading.result().size
            for wanted, reading in self._kept.items()
            if reading.done()
        }
        excess = sum(read.values()) - KEPT_PAGES_BYTES
        for wanted, size in read.items():
            if excess <= 0:
                return
            del self._kept[wanted]
            excess -= size


def _seen(reading: asyncio.Task[Page]) -> None:
    """Look at the error of a question whose streams have gone, so that asyncio does not report it."""
    if not reading.cancelled():
        reading.exception()


class Hub:
    """Looks at the ledger for all streams, while there is one.

    Args:
        reader: asks the questions.
        stop: the end of the process.
    """

    def __init__(self, reader: Reader, stop: Stop) -> None:
        self._reader = reader
        self._stop = stop
        self._tables = reader.table.table.searched
        self._ledger = Ledger(self._tables)
        self._pages = Pages(self._read_page)
        self._streams: set[Stream] = set()
        # A client that connects again after more changes gets some rows a second time.
        self._announced: deque[Change] = deque(maxlen=1_000)
        self._newest: Load | None = None
        self._answered_at = time.monotonic()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def close(self) -> None:
        """End the looks."""
        self._pages.close()
        if self._task is not None:
            self._task.cancel()

    async def follow(self, query: Search, mark: Mark | None) -> AsyncGenerator[Message, None]:
        """Messages for a client. The last is ``bye``, when the process ends.

        Args:
            query: the rows that it gets.
            mark: the last row that it has seen; None: it gets what arrives from now on.
        """
        stream = Stream(query)
        # At once, so that a client knows that it is connected before the first event.
        yield _message("hello", speed="stored")
        try:
            if not await self._join(stream, mark):
                yield _message(
                    "stale", reason="the last row that you have is not stored any more"
                )
            yield self._lag()
            while not self._stop.is_set:
                while stream.changes and not self._stop.is_set:
                    change = stream.changes.popleft()
                    async with aclosing(self._of_change(stream, change)) as messages:
                        async for message in messages:
                            yield message
                for sign in await self._signs(stream):
                    yield sign
        finally:
            self._streams.discard(stream)
        yield _message("bye", reason="the server ends; connect again")

    async def _join(self, stream: Stream, mark: Mark | None) -> bool:
        """Begin to follow; whether the mark is known."""
        async with self._lock:
            if self._task is None or self._task.done():
                # The first look notes the rows that are stored already.
                await self._look()
                self._task = asyncio.create_task(self._look_on())
            self._streams.add(stream)
            if mark is None:
                return True
            announced = list(self._announced)
            missed = await self._reader.run(
                lambda connection: changes_since(connection, self._tables, mark, announced)
            )
        # Changes that came in the meantime are behind the missed ones.
        stream.changes.extendleft(reversed(missed or []))
        return missed is not None

    async def _signs(self, stream: Stream) -> list[Message]:
        """Wait for news, or for `LAG_EVERY_S`; returns messages about the state to send."""
        stop = asyncio.ensure_future(self._stop.wait())
        news = asyncio.ensure_future(stream.news.wait())
        try:
            await asyncio.wait(
                {stop, news}, timeout=LAG_EVERY_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            # A wait that is left behind would stay in the event loop until the process ends.
            stop.cancel()
            news.cancel()
        is_stale = time.monotonic() - self._answered_at > STALE_S
        # Only a change is sent: a client shows the state until the next message.
        if is_stale != stream.is_stale:
            stream.is_stale = is_stale
            if is_stale:
                return [_message("stale", reason="the database does not answer")]
            return [self._lag()]
        if stream.news.is_set():
            stream.news.clear()
            return []
        return [self._lag()]

    def _lag(self) -> Message:
        """How old the newest stored hour is."""
        # A table without a loaded hour has no age.
        if self._newest is None:
            return _message("lag", hour=None, loaded_at=None, seconds=None)
        age = datetime.now(UTC) - self._newest.loaded_at
        return _message(
            "lag",
            hour=self._newest.hour,
            loaded_at=self._newest.loaded_at,
            seconds=round(age.total_seconds(), 1),
        )

    async def _look_on(self) -> None:
        """Look each second until no stream is left."""
        while not self._stop.is_set:
            await asyncio.sleep(LOOK_EVERY_S)
            # Under the lock, so that no stream joins between the look and the end.
            async with self._lock:
                if not self._streams:
                    self._ledger = Ledger(self._tables)
                    self._announced.clear()
                    return
                with suppress(ProblemError):
                    await self._look()
            if time.monotonic() - self._answered_at > STALE_S:
                for stream in self._streams:
                    stream.news.set()

    async def _look(self) -> None:
        changes = await self._reader.run(self._ledger.changes)
        self._answered_at = time.monotonic()
        self._announced.extend(changes)
        self._newest = self._ledger.newest
        for stream in self._streams:
            stream.changes.extend(changes)
            # A stale stream wakes up without news: the client must learn that the database is back.
            if changes or stream.is_stale:
                stream.news.set()

    async def _of_change(self, stream: Stream, change: Change) -> AsyncGenerator[Message, None]:
        """Messages about an hour: that it was loaded, then its new rows."""
        load = change.load
        if change.after is None:
            yield _message(
                "hour",
                hour=load.hour,
                generation=load.generation,
                state="replaced" if change.is_replaced else "built",
                rows=load.rows,
                loaded_at=load.loaded_at,
            )
        after, sent = change.after, 0
        while not self._stop.is_set:
            # An hour of millions of rows would keep its client from every later hour.
            if sent >= MOST_ROWS:
                yield _message("dropped", hour=load.hour, generation=load.generation, sent=sent)
                return
            try:
                page = await self._pages.get(Wanted(stream.query, change, after))
            except ProblemError:
                # The rest of the hour is sent when the database is back.
                stream.changes.appendleft(replace(change, after=after))
                await asyncio.sleep(LOOK_EVERY_S)
                return
            if page.message is not None:
                yield page.message
                sent += page.rows
                after = page.last
            # A page that is not full is the last: the next question would find no row.
            if page.rows < PAGE_ROWS:
                return

    async def _read_page(self, wanted: Wanted) -> Page:
        """The rows of a page.

        Raises:
            ProblemError: the database does not answer.
        """

        def question(connection: Connection) -> Page:
            events = new_rows(
                connection,
                self._tables,
                wanted.query,
                wanted.change,
                after=wanted.after,
                limit=PAGE_ROWS,
            )
            # In the thread: the event loop answers other clients meanwhile.
            return _page_of(wanted.change, events)

        return await self._reader.run(question)


# -- HTTP ------------------------------------------------------------------------------------------

Speed = Literal["stored"]


def _mark(name: str, text: str) -> Mark | None:
    if not text:
        return None
    mark = Mark.of_id(text)
    if mark is None:
        wrong_parameter(name, f"{text[:100]!r} is no id of a message")
    return mark


async def _bytes(messages: AsyncGenerator[Message, None]) -> AsyncGenerator[bytes, None]:
    """The messages as server-sent events, after the browser's time to connect again."""
    yield f"retry: {RETRY_MS}\n\n".encode()
    async with aclosing(with_signs_of_life(messages)) as lively:
        async for message in lively:
            yield BEAT if message is None else message.sse()


@contextlib.asynccontextmanager
async def _counted(parts: Served) -> AsyncIterator[None]:
    """Hold the place of a stream.

    Raises:
        ProblemError: there are too many streams.
    """
    async with parts.reader.streams.enter():
        parts.counters.streams.inc()
        try:
            yield
        finally:
            parts.counters.streams.dec()


@router.get(
    "/tail",
    dependencies=[Depends(needs("tail"))],
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def follow(
    request: Request,
    q: Q = "",
    speed: Annotated[
        Speed, Query(description="`stored`: rows as hours are loaded.")
    ] = "stored",
    after: Annotated[str, Query(description="`id` of the last message that you have.")] = "",
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Live events, as server-sent events. A browser that connects again goes on where it was."""
    del speed
    mark = _mark("after", after) or _mark("Last-Event-ID", last_event_id)
    parts = served(request)
    query = _checked(q)
    return StreamedAnswer(
        lambda: _bytes(parts.hub.follow(query, mark)), _counted(parts), "text/event-stream", {}
    )


def _checked(q: str) -> Search:
    """A query whose mistakes are found before the stream begins."""
    query = parse(q)
    # The text is not used here: making it finds values that the table cannot compare.
    condition(query)
    return query


FIRST_MESSAGE_S = 10.0
"""Seconds in which a WebSocket must subscribe."""

POLICY = 1008
"""Code with which a WebSocket is closed that is not allowed to ask, or asks wrongly."""

GOING_AWAY = 1001
"""Code with which a WebSocket is closed when the process ends."""


class Subscription(BaseModel, extra="forbid"):
    """What a WebSocket follows; the same as the parameters of `/tail`."""

    q: str = ""
    speed: Speed = "stored"
    after: str = ""


class ClientMessage(BaseModel, extra="forbid"):
    """A message of a client: a new subscription takes the place of the one before."""

    subscribe: Subscription


@router.websocket("/ws")
async def follow_by_websocket(socket: WebSocket) -> None:
    """The messages of `/tail`; the first message of the client is ``{"subscribe": {"q": …}}``."""
    parts = served(socket)
    try:
        refuse_other_sites(socket)
        await needs("tail")(socket)
        async with _counted(parts):
            await socket.accept()
            await _converse(socket, parts)
    except ProblemError as problem:
        await _close(socket, problem.detail)
    except (QuerySyntaxError, QueryValueError) as error:
        await _close(socket, str(error))
    except (ValidationError, TimeoutError):
        await _close(socket, 'send {"subscribe": {"q": "level:error"}}')
    except WebSocketDisconnect:
        pass


async def _close(socket: WebSocket, reason: str) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        # A close frame has room for 123 bytes.
        await socket.close(POLICY, reason.encode()[:120].decode(errors="ignore"))


async def _converse(socket: WebSocket, parts: Served) -> None:
    """Send the messages of the present subscription until the client goes away or the process ends."""
    async with asyncio.timeout(FIRST_MESSAGE_S):
        text = await socket.receive_text()
    while True:
        asked = ClientMessage.model_validate_json(text).subscribe
        messages = parts.hub.follow(_checked(asked.q), _mark("after", asked.after))
        sending = asyncio.create_task(_send_all(socket, messages))
        receiving = asyncio.create_task(socket.receive_text())
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            # The messages end by themselves only when the process ends.
            if sending.done():
                sending.result()
                await socket.close(GOING_AWAY)
                return
            text = receiving.result()
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)


async def _send_all(socket: WebSocket, messages: AsyncGenerator[Message, None]) -> None:
    async with aclosing(messages):
        async for message in messages:
            # Without signs of life: the protocol itself pings.
            async with asyncio.timeout(SEND_S):
                await socket.send_text(message.json())
