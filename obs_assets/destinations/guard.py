"""Where an outgoing request may go, and for how long: checked addresses only, and never past a total deadline."""

import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from obs_assets.errors import PermanentError, TransientError

_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        # link-local, where clouds keep their metadata, and where else they do: Alibaba, Oracle, Azure, AWS, Google
        *("169.254.0.0/16", "fe80::/10"),
        *("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"),
        # this host, site-local, a network's own NAT64
        *("0.0.0.0/8", "::", "fec0::/10", "64:ff9b:1::/48"),
    )
)
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8",
        "::1",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


def is_allowed(address: str, *, allow_private: bool) -> bool:
    """May a request go to this IP address?

    Global ones yes; loopback and private ones if ``allow_private``; link-local, metadata, multicast and reserved never.
    An IPv4 address inside an IPv6 one counts as itself.
    """
    ip = _unwrapped(ipaddress.ip_address(address))
    if any(ip in network for network in _NEVER):
        return False
    if any(ip in network for network in _PRIVATE):
        return allow_private
    return ip.is_global and not ip.is_multicast


def _unwrapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    embedded = ip in _NAT64 or (ip in _IPV4_COMPATIBLE and int(ip) > 1)
    return (
        ip.ipv4_mapped
        or ip.sixtofour
        or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if embedded else ip)
    )


class Deadline:
    """Cuts the socket in use when time is up. A timeout of `requests` is per read: a drip starts it anew for ever."""

    def __init__(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds
        self.passed = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._hold(None)

    @property
    def left_s(self) -> float:
        """Seconds left, a little more than none."""
        return max(0.001, self.ends_at - time.monotonic())

    def check(self) -> None:
        """Go on only in time: a socket cut before it was connected does not know of it.

        Raises:
            TimeoutError: time is up.
        """
        if self.passed:
            raise TimeoutError

    def watch(self, connection: socket.socket) -> None:
        """From now on this is the socket to cut: a duplicate of it, since TLS and ``Connection: close`` detach it."""
        with self._lock:
            self._hold(socket.socket(fileno=os.dup(connection.fileno())))
            if self.passed:
                self._shut()

    def _hold(self, connection: socket.socket | None) -> None:
        if self._socket:
            self._socket.close()
        self._socket = connection

    def _cut(self) -> None:
        with self._lock:
            self.passed = True
            self._shut()

    def _shut(self) -> None:
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class Guard:
    """Opens connections, to checked addresses only.

    A name is resolved once and the connection goes to what was checked: a resolver has no second answer to give.
    """

    def __init__(self, *, allow_private: bool, allow_hosts: Sequence[str] = ()) -> None:
        self._allow_private = allow_private
        self._allow_hosts = frozenset(host.lower().strip("[]") for host in allow_hosts)
        self._deadline: Deadline

    @contextlib.contextmanager
    def watching(self, seconds: float) -> Iterator[Deadline]:
        """Put everything inside under one deadline. (The resolver keeps its own time, half a minute at worst.)"""
        with Deadline(seconds) as self._deadline:
            yield self._deadline

    def watch(self, connection: socket.socket) -> None:
        """Put a connection that is used again under the deadline."""
        self._deadline.watch(connection)

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to the first address of the host that answers.

        Raises:
            TransientError: the name cannot be resolved.
            PermanentError: one of its addresses is refused.
            OSError: none of them answers.
        """
        addresses = self._resolve(host, port)
        failure: OSError = ConnectionError()
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                self.watch(connection)
                connection.settimeout(self._deadline.left_s / (len(addresses) - position))
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._deadline.check()
            except OSError as error:
                connection.close()
                failure = error
            else:
                connection.settimeout(self._deadline.left_s)
                return connection
        raise failure

    def _resolve(self, host: str, port: int) -> list[Any]:
        name = host.lower().strip("[]")
        try:
            addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise TransientError("the webhook's host name cannot be resolved") from None
        allow_private = self._allow_private or name.rstrip(".") in self._allow_hosts
        if not all(
            is_allowed(str(address[4][0]), allow_private=allow_private) for address in addresses
        ):
            raise PermanentError(
                "the webhook's host has a loopback, private or reserved address, which is refused: "
                "name the host in allow_hosts or set OBS_WEBHOOK_ALLOW_PRIVATE=true "
                "(link-local and metadata addresses stay refused)"
            )
        return addresses


class _Guarded(HTTPConnection):
    """urllib3's connection, its socket opened by a guard. ``Host`` and the name in TLS stay those of the URL."""

    guard: ClassVar[Guard]

    def _new_conn(self) -> socket.socket:
        return self.guard.connect(self._dns_host, int(self.port or self.default_port))

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.guard.watch(self.sock)
        super().request(*args, **kwargs)


class _GuardedTls(_Guarded, HTTPSConnection):
    """The same over TLS."""


class GuardedAdapter(HTTPAdapter):
    """Used without a `requests.Session`.

    A session keeps cookies, and reads the whole body of a redirect even when told not to follow it.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        plain, tls = (
            type(base.__name__, (base,), {"guard": self._guard})
            for base in (_Guarded, _GuardedTls)
        )
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("GuardedPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("GuardedTlsPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
        }


_sending: ContextVar[bool] = ContextVar("sending a webhook", default=False)
# urllib3 logs the path of a URL, and the path of a webhook's URL is its secret.
logging.getLogger("urllib3.connectionpool").addFilter(lambda _: not _sending.get())


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keep urllib3 from logging the request that is made meanwhile."""
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)
