"""Asks questions of the tables for clients: bounded in number, cancelled when a client goes away."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg_pool import PoolTimeout
from starlette.requests import HTTPConnection

from obs_assets.api.problems import BUSY, NOT_READY, UNAVAILABLE, ProblemError
from obs_assets.destinations.postgres import PostgresDestination
from obs_assets.errors import ConfigurationError
from obs_assets.search.questions import snapshot
from obs_assets.storage.postgres import Connection, make_pool, session
from obs_assets.storage.postgres_errors import explained, where

Answer = TypeVar("Answer")

ROLE = "obs_reader"
"""Role whose rights every question has; `obs postgres init` makes it."""

LONG_S = 0.5
"""Seconds after which a question is long: it leaves its place to others, if there is a place for long ones."""

BACKGROUND = 3
"""Questions of live streams at a time."""

CANCEL_EVERY_S = 0.2
"""Seconds between two requests to cancel: one that comes between two statements cancels nothing."""

_NOT_READY = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidParameterValue,  # SET ROLE of a role that does not exist
    psycopg.errors.UndefinedObject,
)

_log = logging.getLogger(__name__)

# The pool warns of each attempt to connect, with the server's text; `Reader.connection` says it once.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class GoneError(Exception):
    """The client went away; nobody reads an answer."""


@dataclass(frozen=True)
class Limits:
    """How much the server does at a time.

    Attributes:
        searches: questions at a time.
        long: questions that take longer than `LONG_S` and have left the places of the others.
        exports: exports at a time.
        streams: live streams at a time.
        waiting: questions that may wait for a place.
        wait_s: seconds for which a question waits for a place.
        deadline_s: seconds of a search, see `questions.list_events`.
        statement_s: seconds after which the database ends a statement.
        connection_s: seconds to wait for a connection. There are as many connections as admitted
            questions, so that a longer wait means a database that does not answer.
    """

    searches: int = 4
    long: int = 4
    exports: int = 2
    streams: int = 50
    waiting: int = 40
    wait_s: float = 0.25
    deadline_s: float = 10.0
    statement_s: float = 15.0
    connection_s: float = 3.0


class Gate:
    """Lets a number of questions in at a time; the others wait for a moment, or are sent away."""

    def __init__(self, places: int, waiting: int, wait_s: float) -> None:
        self._places = asyncio.Semaphore(places)
        self._may_wait = waiting
        self._wait_s = wait_s
        self._waiting = 0

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Hold a place within the block.

        Raises:
            ProblemError: no place became free.
        """
        # Refused at once: a long queue would answer clients that have gone away already.
        if self._places.locked() and self._waiting >= self._may_wait:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()


def _busy() -> ProblemError:
    return ProblemError(
        BUSY, "the server answers as many questions as it can: ask again in a moment"
    )


class _Statement:
    """The connection that a question uses, while it uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._is_cancelled = False

    @contextlib.contextmanager
    def on(self, connection: Connection) -> Iterator[None]:
        """Within the block, `cancel` cancels statements of this connection."""
        with self._lock:
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None
                # A request to cancel can arrive late, when another question has the connection.
                if self._is_cancelled:
                    connection.close()

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._connection is not None:
                # The statement has ended meanwhile, or the connection is lost: both are what is wanted.
                with contextlib.suppress(psycopg.Error):
                    self._connection.cancel_safe(timeout=2)


class Reader:
    """Questions about the table of a destination.

    Args:
        table: the destination.
        limits: how much is done at a time.
    """

    def __init__(self, table: PostgresDestination, limits: Limits) -> None:
        self.table = table
        self.limits = limits
        self.searches = Gate(limits.searches, limits.waiting, limits.wait_s)
        self._long = asyncio.Semaphore(limits.long)
        self.streams = Gate(limits.streams, 0, limits.wait_s)
        self._background = asyncio.Semaphore(BACKGROUND)
        self.exports = Gate(limits.exports, limits.exports, limits.wait_s)
        # No admitted question waits for a connection.
        size = limits.searches + limits.long + limits.exports + BACKGROUND + 1
        self._pool = make_pool(table.server, size=size, application_name="obs serve")
        self._running: set[_Statement] = set()
        self._cleaning: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(size + 2, "obs-question")

    def open(self) -> None:
        """Start the pool; it connects when a question needs it."""
        # The server starts while the database is away, and answers 503 until it is back.
        self._pool.open(wait=False)

    def close(self) -> None:
        """Cancel the statements that run, and close the pool."""
        # A copy: a statement that ends takes itself out of the set.
        for statement in list(self._running):
            statement.cancel()
        self._pool.close(timeout=1)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(
        self,
        client: HTTPConnection,
        question: Callable[[Connection], Answer],
        gate: Gate | None = None,
    ) -> Answer:
        """The answer to a question; its statement ends soon after the client went away.

        Args:
            client: the request; its body is read.
            question: called in a thread, with a connection within `snapshot`.
            gate: by default the gate of searches.

        Raises:
            ProblemError: there was no place, or the database does not answer.
            GoneError: the client went away.
        """
        place = self._search_place() if gate is None else gate.enter()
        async with place:
            return await self._until(_disconnected(client), question)

    @asynccontextmanager
    async def _search_place(self) -> AsyncIterator[None]:
        """A place among the searches, later among the long ones, within the block."""
        async with contextlib.AsyncExitStack() as place:
            await place.enter_async_context(self.searches.enter())
            moving = asyncio.create_task(self._move(place))
            try:
                yield
            finally:
                moving.cancel()
                # Until it has ended, it may still take a place.
                await asyncio.wait({moving})

    async def _move(self, place: contextlib.AsyncExitStack) -> None:
        """Move a long question to a place for long ones, so that quick questions do not wait for it."""
        await asyncio.sleep(LONG_S)
        await self._long.acquire()
        # No wait in between: the question holds one of the two places at any time.
        quick = place.pop_all()
        place.callback(self._long.release)
        await quick.aclose()

    async def run(self, question: Callable[[Connection], Answer]) -> Answer:
        """The answer to a question of the server itself.

        Args:
            question: called in a thread, with a connection within `snapshot`.

        Raises:
            ProblemError: the database does not answer.
        """
        async with self._background:
            return await self._until(asyncio.Event().wait(), question)

    async def chunks(
        self, begin: Callable[[Connection], Generator[bytes, None, None]]
    ) -> AsyncGenerator[bytes, None]:
        """The pieces that a generator makes in a thread. Its statement ends when nobody wants the rest.

        Args:
            begin: makes the generator for a connection in autocommit mode, outside any snapshot.

        Raises:
            ProblemError: the database does not answer.
        """
        loop = asyncio.get_running_loop()
        statement = _Statement()
        stack = contextlib.ExitStack()
        work: asyncio.Future[Any] | None = None
        self._running.add(statement)
        try:
            work = loop.run_in_executor(self._threads, self._begun, stack, statement, begin)
            await asyncio.wait({work})
            pieces = work.result()
            while True:
                work = loop.run_in_executor(self._threads, self._next, pieces)
                await asyncio.wait({work})
                piece = work.result()
                if piece is None:
                    return
                yield piece
        finally:
            await self._in_any_case(self._closed(work, statement, stack))

    async def _in_any_case(self, cleaning: Coroutine[Any, Any, None]) -> None:
        """Do something to its end, although the caller is cancelled, and is again at its next wait."""
        task = asyncio.create_task(cleaning)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)
        await asyncio.shield(task)

    async def _closed(
        self,
        work: "asyncio.Future[Any] | None",
        statement: _Statement,
        stack: contextlib.ExitStack,
    ) -> None:
        """End the work of a thread, then give its connection back."""
        if work is not None:
            await self._ended(work, statement)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, stack.close)
        self._running.discard(statement)

    def _begun(
        self,
        stack: contextlib.ExitStack,
        statement: _Statement,
        begin: Callable[[Connection], Generator[bytes, None, None]],
    ) -> Generator[bytes, None, None]:
        connection = stack.enter_context(self._lent())
        stack.enter_context(statement.on(connection))
        pieces = begin(connection)
        # The generator holds a cursor of the server, which must end before its connection is given back.
        stack.callback(pieces.close)
        return pieces

    def _next(self, pieces: Generator[bytes, None, None]) -> bytes | None:
        with self._explained():
            return next(pieces, None)

    async def _until(
        self, end: Coroutine[Any, Any, Any], question: Callable[[Connection], Answer]
    ) -> Answer:
        """The answer to a question, unless something ends before."""
        statement = _Statement()
        gone = asyncio.ensure_future(end)
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self._answer, question, statement)
        try:
            either: set[asyncio.Future[Any]] = {work, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise GoneError
        finally:
            gone.cancel()
            await self._in_any_case(self._ended(work, statement))

    def probe(self, connection: Connection) -> None:
        """A question that succeeds if the table can be read."""
        look = sql.SQL("SELECT FROM {} LIMIT 1").format(self.table.table.name)
        connection.execute(look)

    async def _ended(self, work: "asyncio.Future[Any]", statement: _Statement) -> None:
        """Cancel the statement until the thread is free."""
        loop = asyncio.get_running_loop()
        while not work.done():
            await loop.run_in_executor(None, statement.cancel)
            await asyncio.wait({work}, timeout=CANCEL_EVERY_S)
        if not work.cancelled():
            work.exception()  # seen, so that asyncio does not report it

    def _answer(
        self, question: Callable[[Connection], Answer], statement: _Statement
    ) -> Answer:
        self._running.add(statement)
        try:
            with self.connection() as connection, statement.on(connection):
                return question(connection)
        finally:
            self._running.discard(statement)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection within `snapshot`, for a thread.

        Raises:
            ProblemError: the database does not answer, or its tables cannot be read.
        """
        with (
            self._lent() as connection,
            self._explained(),
            snapshot(connection, role=ROLE, timeout_s=self.limits.statement_s),
        ):
            yield connection

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Connection]:
        """A connection of the pool."""
        timeout_s = self.limits.connection_s
        with self._explained(), self._pool.connection(timeout=timeout_s) as connection:
            yield connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Within the block, errors of the database become problems, and their texts go to the log."""
        try:
            yield
        except PoolTimeout:
            at = where(self.table.server)
            _log.warning("PostgreSQL at %s gives no connection", at)
            raise _unavailable() from None
        except _NOT_READY as error:
            _log.warning("%s", explained(error, self.table.server))
            raise ProblemError(
                NOT_READY, f"{self.table.key} cannot be read: run `obs postgres init`"
            ) from None
        except psycopg.Error as error:
            _log.warning("%s", explained(error, self.table.server))
            raise _unavailable() from None


def refuse_unreadable(table: PostgresDestination) -> None:
    """Raise unless the table can be read in the role of readers.

    Raises:
        ConfigurationError: the role or a right is missing; the message says the command.
        TransientError: the database does not answer.
    """
    with session(table.server, application_name="obs serve", autocommit=True) as connection:
        try:
            with snapshot(connection, role=ROLE):
                connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(table.table.name))
                connection.execute("SELECT FROM obs.hour_loads LIMIT 1")
        except _NOT_READY:
            user = table.server.user
            raise ConfigurationError(
                f"user {user} cannot read {table.key} as {ROLE}: run `obs postgres init`, "
                f"and GRANT {ROLE} TO {user} unless {user} is a superuser"
            ) from None


def _unavailable() -> ProblemError:
    return ProblemError(UNAVAILABLE, "the database does not answer: ask again in a moment")


async def _disconnected(client: HTTPConnection) -> None:
    """Returns when the client has gone."""
    while True:
        # Starlette's own `is_disconnected` does not wait: it would have to be asked in a loop.
        message = await client._receive()  # type: ignore[attr-defined]
        if message["type"] == "http.disconnect":
            return
