"""Questions end with their clients, with the database, and with the process; too many are sent away."""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from psycopg import sql
from pydantic import SecretStr
from starlette.testclient import TestClient

from obs_assets.api.app import make_app, make_readable
from obs_assets.api.problems import ProblemError
from obs_assets.api.reader import LONG_S, ROLE, Gate, Limits
from obs_assets.api.serving import Stop
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import PostgresSettings
from obs_assets.storage.postgres import Connection, connect
from obs_assets_tests.api.process import running

PATH = "/api/v1/events"


@contextlib.contextmanager
def locked(hourly: HourlyPipeline) -> Iterator[Connection]:
    """Within the block, every question about the table waits."""
    with connect(hourly.searched_table().server) as connection:
        connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield connection
        connection.rollback()


def statements(hourly: HourlyPipeline) -> int:
    """Statements of the server that run now."""
    with connect(hourly.searched_table().server, autocommit=True) as connection:
        ((count,),) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'obs serve' "
            "AND state <> 'idle' AND datname = current_database()"
        ).fetchall()
        return int(count)


def wait_for(hourly: HourlyPipeline, count: int, within_s: float) -> float:
    """Seconds until so many statements run."""
    began = time.monotonic()
    while statements(hourly) != count:
        assert time.monotonic() - began < within_s
        time.sleep(0.02)
    return time.monotonic() - began


def ask_and_leave(address: str) -> socket.socket:
    """Send a request and read nothing."""
    host, _, port = address.removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)))
    client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


@pytest.mark.slow
def test_a_statement_ends_with_its_client_and_with_the_process(
    hourly: HourlyPipeline, tmp_path: Path
) -> None:
    """Within a second of the client's end; within five of SIGTERM. The place is free again at once.

    Long questions leave their places to quick ones; when these places are taken too, the next question
    is sent away at once.
    """
    with running(hourly, tmp_path) as (process, address):
        with locked(hourly):
            clients = [ask_and_leave(address) for _ in range(4)]
            wait_for(hourly, 4, 10)
            time.sleep(1.2 * LONG_S)
            # It does not read the table of events.
            quick = httpx.get(f"{address}/api/v1/hours?from=2025-12-04&to=2025-12-05")
            assert quick.status_code == 200
            clients += [ask_and_leave(address) for _ in range(4)]
            wait_for(hourly, 8, 10)
            began = time.monotonic()
            busy = httpx.get(f"{address}{PATH}", timeout=20)
            assert time.monotonic() - began < 1
            assert (busy.status_code, busy.json()["type"]) == (429, "/problems#busy")
            assert busy.headers["retry-after"] == "2"
            for client in clients:
                client.close()
            assert wait_for(hourly, 0, 10) < 1.5  # a second, and the look at the server itself
        assert httpx.get(f"{address}{PATH}").status_code == 200
        with locked(hourly):
            left = ask_and_leave(address)
            wait_for(hourly, 1, 10)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            process.wait(timeout=10)
            assert time.monotonic() - began < 5.5
            assert statements(hourly) == 0
            left.close()


class Forwarder:
    """Stands before a server: its connections can be cut, and it can be away for a while."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._is_away = False
        threading.Thread(target=self._accept, daemon=True).start()

    def away(self) -> None:
        """Cut all connections and refuse new ones."""
        self._is_away = True
        for side in self._open:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
        self._open.clear()

    def back(self) -> None:
        """Take connections again."""
        self._is_away = False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_away:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=(source, sink), daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.away()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def at(hourly: HourlyPipeline, **changes: object) -> HourlyPipeline:
    """The pipeline with another address or user of the database."""
    assert isinstance(hourly.settings.postgres, PostgresSettings)
    postgres = hourly.settings.postgres.model_copy(update=changes)
    return replace(hourly, settings=hourly.settings.model_copy(update={"postgres": postgres}))


@pytest.mark.slow
def test_a_database_that_goes_away_is_waited_for(hourly: HourlyPipeline) -> None:
    """503 without a message of the database while it is away; answers as before when it is back."""
    assert hourly.settings.postgres
    forwarder = Forwarder(hourly.settings.postgres.host, hourly.settings.postgres.port)
    behind = at(hourly, host="127.0.0.1", port=forwarder.port)
    app = make_app(behind, Stop(), Limits(connection_s=1.0))
    with TestClient(app, "http://localhost") as client:
        for _ in range(2):
            assert client.get(PATH).status_code == 200
            forwarder.away()
            for address in (PATH, "/readyz", "/health", "/api/stats"):
                answered = client.get(address)
                assert answered.status_code == 503
                body = answered.json()
                message = body.get("detail") or body["message"]
                assert message == "the database does not answer: ask again in a moment"
            assert client.get("/healthz").status_code == 200
            forwarder.back()
    forwarder.close()


def test_a_session_that_is_ended_is_replaced(hourly: HourlyPipeline) -> None:
    """An administrator who ends all sessions causes no error."""
    with TestClient(make_app(hourly, Stop(), Limits()), "http://localhost") as client:
        assert client.get(PATH).status_code == 200
        with connect(hourly.searched_table().server, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'obs serve' AND datname = current_database()"
            )
        assert client.get(PATH).status_code == 200


@pytest.mark.slow
def test_questions_are_asked_as_the_reader(hourly: HourlyPipeline) -> None:
    """A user without the role, or a server without it, is refused with the command that helps."""
    with connect(hourly.searched_table().server, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS api_stranger")
        admin.execute("CREATE ROLE api_stranger LOGIN PASSWORD 'x'")
        other = at(hourly, user="api_stranger", password=SecretStr("x"))
        try:
            with pytest.raises(ConfigurationError, match=f"GRANT {ROLE} TO api_stranger"):
                make_readable(other)
            with TestClient(make_app(other, Stop(), Limits()), "http://localhost") as client:
                refused = client.get(PATH)
                assert (refused.status_code, refused.json()["type"]) == (
                    503,
                    "/problems#not-ready",
                )
                assert "obs postgres init" in refused.json()["detail"]
                assert "permission" not in refused.text
            admin.execute(sql.SQL("GRANT {} TO api_stranger").format(sql.Identifier(ROLE)))
            make_readable(other)
            with TestClient(make_app(other, Stop(), Limits()), "http://localhost") as client:
                assert client.get(PATH).status_code == 200
        finally:
            admin.execute("DROP ROLE api_stranger")


def test_a_gate_lets_so_many_in_and_so_many_wait() -> None:
    """The others are sent away at once; those that wait are after a while."""

    async def scene() -> list[str]:
        gate = Gate(places=1, waiting=1, wait_s=0.1)
        said: list[str] = []

        async def enter(name: str, seconds: float) -> None:
            try:
                async with gate.enter():
                    await asyncio.sleep(seconds)
                    said.append(f"{name} in")
            except ProblemError as problem:
                said.append(f"{name} {problem.kind.name}")

        first = asyncio.create_task(enter("first", 0.3))
        await asyncio.sleep(0.01)
        waits = asyncio.create_task(enter("second", 0))
        await asyncio.sleep(0.01)
        await enter("third", 0)
        await asyncio.gather(first, waits)
        await enter("fourth", 0)
        return said

    assert asyncio.run(scene()) == ["third busy", "second busy", "first in", "fourth in"]
