"""A server process: its address, its limits, and its end. It knows no route.

An application for `serve` is ASGI. It learns of the end of the process by its `Stop`, so that streams
can say good-bye.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from obs_assets.errors import ConfigurationError
from obs_assets.settings import ServerSettings

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""

MOST_CONNECTIONS = 500
"""Connections at a time. Beyond it, the server answers 503 at once."""

CROWDED = 400
"""Connections from which on each new connection closes the connection that is idle for longest."""

MOST_HEADER_BYTES = 32_768
"""Bytes of a request's line and headers: a query of 4,000 characters has at most 48,000 bytes when each of them
is escaped, but such a query has no Latin letter."""

REQUEST_S = 10.0
"""Seconds in which a client must send the line and the headers of a request."""

KEEP_ALIVE_S = 15
"""Seconds for which a connection without a request stays open."""

GRACE_S = 3
"""Seconds that answers have to end after SIGTERM; then they are cancelled. The process ends within 5 s."""

SWITCH_S = 0.001
"""Seconds for which a thread keeps Python's interpreter while another waits for it.

Python's own 5 ms would hold up the event loop at each of its steps beside a thread that computes.
"""

LOCAL_NAMES = frozenset({"localhost"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listener:
    """Where a server listens.

    Attributes:
        host: address or name to listen on.
        port: TCP port.
        prefix: beginning of the server's variables, for messages: ``OBS_API_`` of ``OBS_API_PORT``.
        is_guarded: whether clients must prove who they are; without it only loopback is allowed.
        names: names that a request may have in its header ``Host``, beside `LOCAL_NAMES` and addresses.
        tls_certificate: file of the certificate and its chain; None for plain HTTP.
        tls_key: file of its key.
    """

    host: str
    port: int
    prefix: str
    is_guarded: bool = False
    names: Sequence[str] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None


def listener_of(settings: ServerSettings) -> Listener:
    """Where the server of these settings listens."""
    return Listener(
        settings.host,
        settings.port,
        settings.prefix,
        is_guarded=settings.auth != "none",
        names=settings.hosts,
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
    )


class Stop:
    """The end of the process, or of the table that it reads, as streams see it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._parts: list[Stop] = []

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()
        for part in self._parts:
            part.set()

    def part(self) -> "Stop":
        """A stop that comes with this one, or before."""
        made = Stop()
        self._parts.append(made)
        return made

    async def wait(self) -> None:
        await self._event.wait()


def serve(app: Application, listener: Listener, stop: Callable[[], None]) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP. Answers that run then have `GRACE_S` to end.

    Args:
        app: the application.
        listener: where to listen.
        stop: called in the event loop when the process is to end.

    Raises:
        ConfigurationError: the address is not allowed or cannot be used, or the TLS files are wrong.
    """
    refuse_open(listener)
    _refuse_wrong_tls(listener)
    config = uvicorn.Config(
        only_known_hosts(app, listener.names, f"{listener.prefix}HOSTS"),
        http=_Protocol,
        ws="websockets-sansio",
        ws_max_size=65_536,
        ws_max_queue=4,
        # The query of a request would be in the log; the application writes its own lines.
        access_log=False,
        log_config=None,
        # The application decides which proxies it believes.
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=listener.tls_certificate,
        ssl_keyfile=listener.tls_key,
    )
    sys.setswitchinterval(SWITCH_S)
    with _bound(listener) as bound:
        _Server(config, stop).run(sockets=[bound])


class _Server(uvicorn.Server):
    """Tells the application that the process is to end before it waits for the answers."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop()
        await super().shutdown(sockets)


class _Protocol(H11Protocol):
    """Closes a connection whose client does not finish the headers of its request in time, or for a new connection.

    uvicorn itself waits for ever, so that a client that sends a byte a minute keeps a connection, and
    clients that send nothing at all would take every place.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since: float | None = self.loop.time()
        self._make_room()
        self._look()

    def _make_room(self) -> None:
        """Keep a place free for the next connection, at the cost of the longest idle connection."""
        others = [each for each in self.connections if isinstance(each, _Protocol)]
        present = [each for each in others if not each.transport.is_closing()]
        if len(present) < CROWDED:
            return
        idle = [each for each in present if each is not self and not each.has_request]
        if idle:
            min(idle, key=lambda each: each._idle_since or self.loop.time()).transport.abort()

    @property
    def has_request(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        # A WebSocket has its own protocol object on the same transport.
        if self.transport.get_protocol() is not self:
            return
        now = self.loop.time()
        if self.has_request:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > max(REQUEST_S, KEEP_ALIVE_S):
            self.transport.close()
            return
        self.loop.call_later(1.0, self._look)


def refuse_open(listener: Listener) -> None:
    """Raise unless the address is on loopback or clients must prove who they are.

    Raises:
        ConfigurationError: see above.
    """
    if listener.is_guarded or _is_loopback(listener.host):
        return
    raise ConfigurationError(
        f"{listener.prefix}HOST={listener.host} can be reached from other machines: set "
        f"{listener.prefix}AUTH to token, or listen on 127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    if host in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_wrong_tls(listener: Listener) -> None:
    # Plain HTTP: loopback, or TLS that ends at a proxy.
    if listener.tls_certificate is None and listener.tls_key is None:
        return
    if listener.tls_certificate is None or listener.tls_key is None:
        raise ConfigurationError(
            "TLS needs a certificate and its key: name both files, or neither"
        )
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(listener.tls_certificate, listener.tls_key)
    except OSError as error:
        reason = error.strerror
        # Also an OSError, whose text names a line of OpenSSL.
        if isinstance(error, ssl.SSLError):
            reason = (
                "the key does not belong to the certificate, or a file is not in PEM format"
            )
        raise ConfigurationError(
            f"the certificate {listener.tls_certificate} or the key {listener.tls_key} cannot "
            f"be used: {reason}"
        ) from None


def _bound(listener: Listener) -> socket.socket:
    """A socket that has the address.

    Raises:
        ConfigurationError: the address cannot be had; the message names its setting.
    """
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        raise ConfigurationError(
            f"{listener.prefix}HOST={listener.host} is no address of this machine"
        ) from None
    bound = socket.socket(family, kind, protocol)
    # Without this option, the port of a server that has just ended seems to be in use.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        # Here, because a second server could bind the port until it is listened on.
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise ConfigurationError(_unusable(error, listener)) from None
    return bound


def _unusable(error: OSError, listener: Listener) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{listener.prefix}HOST={listener.host} is no address of this machine"
    problem = f"cannot be used ({os.strerror(error.errno or 0)})"
    if error.errno == errno.EADDRINUSE:
        problem = "is in use"
    setting = f"{listener.prefix}PORT"
    return f"port {listener.port} {problem}: set {setting}, for example {setting}=3100"


# -- the header Host -------------------------------------------------------------------------------


def only_known_hosts(app: Application, names: Iterable[str], setting: str) -> Application:
    """The application, for requests whose header ``Host`` is an address, ``localhost`` or a listed name.

    A page of another site can make a browser ask this server under a name of that site, which it
    points to this machine (DNS rebinding). An address needs no list: no site can be named like it.

    Args:
        app: the application.
        names: the listed names.
        setting: variable that lists them; a refusal names it.
    """
    known = LOCAL_NAMES | {name.lower().rstrip(".") for name in names}

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and not _is_known(scope, known):
            return await _refuse_host(scope, receive, send, setting)
        return await app(scope, receive, send)

    return guarded


def _is_known(scope: Scope, known: frozenset[str]) -> bool:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    # Two headers could be read differently by a proxy and by this server.
    if len(hosts) != 1:
        return False
    name = host_name(hosts[0].decode("latin-1"))
    return name in known or _is_address(name)


def host_name(header: str) -> str:
    """The name in a header ``Host``, without its port: ``[::1]:3001`` → ``::1``."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse_host(scope: Scope, receive: Receive, send: Send, setting: str) -> None:
    if scope["type"] == "websocket":
        # A WebSocket must be received before it can be closed.
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    body = (
        b'{"type":"/problems#host","title":"Unknown host","status":421,"detail":'
        b'"This server does not answer under this name: ask it by its address, or add the name to '
        b'%s."}' % setting.encode()
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": body})
