"""Limits of outgoing requests: checked addresses only, and a deadline for the whole request.

A receiver's address comes from users, so it may point into the network of this machine (server-side
request forgery), and the receiver may answer too slowly on purpose.
"""

import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, TypeAlias

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from obs_assets.errors import PermanentError, TransientError

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEVER = (
    # link-local addresses, where clouds serve their metadata
    "169.254.0.0/16",
    "fe80::/10",
    # metadata at other addresses: Alibaba, Oracle, Azure, AWS, Google
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd20:ce::254",
    # this host
    "0.0.0.0/8",
    "::",
    # site-local addresses
    "fec0::/10",
    # local NAT64, which hides an IPv4 address
    "64:ff9b:1::/48",
)
"""Networks that are refused whatever the configuration says."""

_PRIVATE = (
    # loopback
    "127.0.0.0/8",
    "::1",
    # private networks
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    # addresses that a provider shares among its customers
    "100.64.0.0/10",
    # unique local addresses
    "fc00::/7",
)
"""Networks that are refused unless the configuration allows private addresses."""

_NEVER_NETWORKS = tuple(map(ipaddress.ip_network, _NEVER))
_PRIVATE_NETWORKS = tuple(map(ipaddress.ip_network, _PRIVATE))

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 addresses whose last 32 bits are an IPv4 address that a gateway calls."""

_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")
"""The old form of an IPv4 address inside an IPv6 address."""

_LAST_32_BITS = 0xFFFFFFFF

_LEAST_TIMEOUT_S = 0.001
"""Seconds; a socket reads a timeout of 0 as "do not wait at all"."""


def is_allowed(address: str, *, allow_private: bool) -> bool:
    """Whether a request may go to an IP address, for example ``10.1.2.3`` or ``fe80::1``.

    Global addresses are allowed; loopback and private addresses only with ``allow_private``;
    link-local, metadata, multicast and reserved addresses never. An IPv4 address inside an IPv6
    address is judged as an IPv4 address.
    """
    ip = _unwrapped(ipaddress.ip_address(address))
    if any(ip in network for network in _NEVER_NETWORKS):
        return False
    if any(ip in network for network in _PRIVATE_NETWORKS):
        return allow_private
    return ip.is_global and not ip.is_multicast


def _unwrapped(ip: IpAddress) -> IpAddress:
    """The IPv4 address inside an IPv6 address, for example in ``::ffff:10.0.0.1``; else the address."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    wrapped = ip.ipv4_mapped or ip.sixtofour
    if wrapped:
        return wrapped
    # :: and ::1 are addresses of their own, not 0.0.0.0 and 0.0.0.1.
    if ip in _NAT64 or (ip in _IPV4_COMPATIBLE and int(ip) > 1):
        return ipaddress.IPv4Address(int(ip) & _LAST_32_BITS)
    return ip


class Deadline:
    """Shuts the socket in use when the time is over.

    The timeout of `requests` begins again with each read, so a receiver that sends a byte now and
    then could hold a request for ever.

    Args:
        seconds: time from the construction to the deadline.

    Attributes:
        ends_at: the deadline, in seconds of `time.monotonic`.
        passed: whether the deadline has passed.
    """

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
        """Seconds until the deadline, at least a millisecond."""
        return max(_LEAST_TIMEOUT_S, self.ends_at - time.monotonic())

    def check(self) -> None:
        """Raise if the deadline has passed: a socket shut before its connection reports no error.

        Raises:
            TimeoutError: the deadline has passed.
        """
        if self.passed:
            raise TimeoutError

    def watch(self, connection: socket.socket) -> None:
        """Shut this socket at the deadline, instead of the socket that was watched before."""
        with self._lock:
            # A duplicate, because TLS and ``Connection: close`` detach the socket object.
            self._hold(socket.socket(fileno=os.dup(connection.fileno())))
            if self.passed:
                self._shut()

    # The lock is held in the functions below: the timer's thread uses the socket too.

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

    A host name is resolved once, and the connection goes to an address that was checked. So a
    resolver cannot give a harmless address to the check and another address to the connection.

    Args:
        allow_private: let each host have loopback and private addresses.
        allow_hosts: host names that may have loopback and private addresses, for example
            ``alerts.internal``.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        allow_hosts: Sequence[str] = (),
    ) -> None:
        self._allow_private = allow_private
        self._allow_hosts = frozenset(host.lower().strip("[]") for host in allow_hosts)
        self._deadline: Deadline

    @contextlib.contextmanager
    def watching(self, seconds: float) -> Iterator[Deadline]:
        """Put all connections inside under a deadline, in seconds from now.

        The system's resolver has a timeout of its own, 30 seconds at most.
        """
        with Deadline(seconds) as self._deadline:
            yield self._deadline

    def watch(self, connection: socket.socket) -> None:
        """Put a connection that was kept from an earlier request under the deadline."""
        self._deadline.watch(connection)

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to the first address of the host that answers.

        Raises:
            TransientError: the name cannot be resolved.
            PermanentError: an address of the host is refused.
            OSError: no address answers.
        """
        addresses = self._resolve(host, port)
        failure: OSError = ConnectionError()
        for index, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                self.watch(connection)
                # The remaining addresses share the remaining time.
                connection.settimeout(self._deadline.left_s / (len(addresses) - index))
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
        """Addresses of a host, as `socket.getaddrinfo` gives them; all of them are allowed."""
        name = host.lower().strip("[]")
        try:
            addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise TransientError("the webhook's host name cannot be resolved") from None
        allow_private = self._allow_private or name.rstrip(".") in self._allow_hosts
        # A host with a single refused address is refused: its resolver chooses the order.
        ips = [str(address[4][0]) for address in addresses]
        if not all(is_allowed(ip, allow_private=allow_private) for ip in ips):
            raise PermanentError(
                "the webhook's host has a loopback, private or reserved address, which is refused: "
                "name the host in allow_hosts or set OBS_WEBHOOK_ALLOW_PRIVATE=true "
                "(link-local and metadata addresses stay refused)"
            )
        return addresses


class _Guarded(HTTPConnection):
    """urllib3's connection over a socket that a guard opens.

    The header ``Host`` and the name in TLS stay those of the URL.
    """

    guard: ClassVar[Guard]

    def _new_conn(self) -> socket.socket:
        return self.guard.connect(self._dns_host, int(self.port or self.default_port))

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.guard.watch(self.sock)
        super().request(*args, **kwargs)


class _GuardedTls(_Guarded, HTTPSConnection):
    """The same connection over TLS."""


class GuardedAdapter(HTTPAdapter):
    """An adapter of `requests` whose connections a guard opens.

    It is used without a `requests.Session`: a session keeps cookies, and reads the whole body of a
    redirect that it does not follow.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        # urllib3 makes connections itself, so the guard is an attribute of their class.
        plain = type("_Guarded", (_Guarded,), {"guard": self._guard})
        tls = type("_GuardedTls", (_GuardedTls,), {"guard": self._guard})
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("GuardedPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("GuardedTlsPool", (HTTPSConnectionPool,), {"ConnectionCls": tls}),
        }


_sending: ContextVar[bool] = ContextVar("sending a webhook", default=False)
# urllib3 logs the path of a URL, and the path of a webhook's address is often a secret.
logging.getLogger("urllib3.connectionpool").addFilter(lambda _: not _sending.get())


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keep urllib3 from logging the requests that are made inside."""
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)
