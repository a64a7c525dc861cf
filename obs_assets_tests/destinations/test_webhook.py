"""One webhook request: its body, its signature, where it may go and how long it may take."""

import base64
import hashlib
import hmac
import json
import logging
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError
from pytest_httpserver import HTTPServer
from werkzeug import Response

from obs_assets.destinations.guard import is_allowed
from obs_assets.destinations.sending import retry_after_s
from obs_assets.destinations.webhook import (
    READ_LIMIT_BYTES,
    WebhookConfig,
    WebhookSender,
    authorization,
    compose,
    identify,
    judge,
    signatures,
)
from obs_assets.errors import ConfigurationError, PermanentError, TransientError

CANARY = "CANARY_9f31"
NOW = datetime(2025, 12, 4, 10, 30, tzinfo=UTC)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def config(**options: Any) -> WebhookConfig:
    return WebhookConfig.model_validate(options)


def sender(url: str, *, allow_private: bool = True, **options: Any) -> WebhookSender:
    return WebhookSender(config(url=url, **options), allow_private=allow_private)


def post(to: WebhookSender) -> None:
    to.send(b"[]", "application/json", "msg_1")


def read_request(connection: socket.socket) -> bytes:
    """A whole request: what is left unread when a server closes becomes a reset. Empty when the client is gone."""
    request = b""
    while not re.search(rb"\r\n\r\n\[\]$", request) and (more := connection.recv(65_536)):
        request += more
    return request


class RawServer(socketserver.ThreadingTCPServer):
    """Answers each connection with a function of its socket, after the first request was read."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self.answer = answer
        self.connections = 0
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        if read_request(request):
            with suppress(OSError):
                self.answer(request)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[RawServer]:
    with RawServer(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# ── the body and who signs it ────────────────────────────────────────────────────────────────────────────────────────

EVENTS = ['{"n": 123456789012345678901234567890, "x":1.10}', '{"ü":"\\u0000"}']


def test_events_go_in_as_they_are() -> None:
    """No number loses a digit and no text changes on its way into an array."""
    assert compose(config(), "d", EVENTS, NOW).decode() == f"[{EVENTS[0]},{EVENTS[1]}]"


def test_an_object_says_count_destination_and_when_it_was_made() -> None:
    """The original's metadata, with the dispatch's creation as its timestamp."""
    body = compose(
        config(payload_format="object", payload_key='my "key"'), "alerts", EVENTS, NOW
    )
    assert json.loads(body) == {
        'my "key"': [json.loads(event) for event in EVENTS],
        "metadata": {
            "count": 2,
            "destination": "alerts",
            "timestamp": "2025-12-04T10:30:00.000Z",
        },
    }
    assert EVENTS[0].encode() in body


def test_an_object_without_metadata_holds_the_events_alone() -> None:
    """``include_metadata: false`` leaves the metadata out."""
    assert json.loads(
        compose(config(payload_format="object", include_metadata=False), "d", ["{}"], NOW)
    ) == {"events": [{}]}


def test_an_individual_body_is_the_event() -> None:
    """One event, one request, nothing around it."""
    assert (
        compose(config(payload_format="individual"), "d", EVENTS[:1], NOW).decode() == EVENTS[0]
    )


def test_a_dispatch_is_known_by_what_is_in_it() -> None:
    """The same rows for the same reason give the same id; any other row, order, rule or receiver another."""
    same = identify("d", "errors", ["a", "b"])
    assert same == identify("d", "errors", ["a", "b"])
    others = [
        ("e", "errors", ["a", "b"]),
        ("d", "fatal", ["a", "b"]),
        ("d", "errors", ["b", "a"]),
        ("d", "errors", ["ab"]),
    ]
    assert same not in {identify(*other) for other in others}
    assert len(same) == len("msg_") + 32


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_" + base64.b64encode(b"k" * 24).decode(), b"k" * 24),
        ("plain words", b"plain words"),
    ],
)
def test_standard_webhooks_signature(secret: str, key: bytes) -> None:
    """``v1,`` and the base64 of HMAC-SHA256 over id, timestamp and body, with the decoded key."""
    headers = signatures(config(hmac_secret=secret), "msg_1", NOW, b"[]")
    expected = hmac.new(key, b"msg_1.%d.[]" % int(NOW.timestamp()), hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "sha512"])
def test_the_original_signature_is_hex_over_the_body(algorithm: str) -> None:
    """``X-Signature`` verifies with the secret alone, under the header and algorithm that were chosen."""
    headers = signatures(
        config(hmac_secret="s", hmac_algorithm=algorithm, hmac_header="X-Sig"),
        "msg_1",
        NOW,
        b"[]",
    )
    assert hmac.compare_digest(headers["X-Sig"], hmac.new(b"s", b"[]", algorithm).hexdigest())


def test_without_a_secret_only_the_id_is_sent() -> None:
    """Every request can be told from its repetition, signed or not."""
    assert signatures(config(), "msg_1", NOW, b"").keys() == {"webhook-id", "webhook-timestamp"}


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"auth_type": "bearer", "auth_token": "t"}, {"Authorization": "Bearer t"}),
        (
            {"auth_type": "basic", "username": "u", "password": "p:ä"},
            {"Authorization": "Basic dTpwOsOk"},
        ),
        ({"auth_type": "api-key", "api_key": "k"}, {"X-API-Key": "k"}),
        ({"auth_type": "api-key", "api_key": "k", "api_key_header": "X-K"}, {"X-K": "k"}),
        ({"auth_type": "hmac", "hmac_secret": "s"}, {}),
        ({"auth_token": "t", "api_key": "k"}, {}),
    ],
)
def test_authorization(options: dict[str, str], header: dict[str, str]) -> None:
    """Each ``auth_type`` of the original sends its header, and only the chosen one does."""
    assert authorization(config(**options)) == header


@pytest.mark.parametrize("auth_type", ["bearer", "basic", "api-key", "hmac"])
def test_a_missing_secret_is_said_at_start(auth_type: str) -> None:
    """An ``auth_type`` without its option is refused before anything is sent, and the option is named."""
    with pytest.raises(ConfigurationError, match=rf"{auth_type} needs "):
        sender("https://example.com", auth_type=auth_type)


@pytest.mark.parametrize(
    "options",
    [
        {"auth_type": "bearer", "auth_token": f"{CANARY}\n"},
        {"auth_type": "api-key", "api_key": f"{CANARY}€"},
        {"headers": {"X-Y": f"{CANARY}\r\nHost: evil"}},
        {"hmac_secret": f"whsec_{CANARY}!"},
    ],
)
def test_a_header_that_cannot_be_sent_is_said_at_start(options: dict[str, Any]) -> None:
    """No line break or wide character gets into a header, and the message does not repeat the secret."""
    with pytest.raises(ConfigurationError) as caught:
        sender("https://example.com", **options)
    assert CANARY not in str(caught.value)


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"timeout": 30_000}, "timeout_s"),
        ({"retry_delay": 1000}, "retry_delay_s"),
        ({"url": "ftp://example.com/"}, "https://"),
        ({"url": "https://"}, "name a host"),
        ({"url": f"https://user:{CANARY}@example.com/"}, "auth_type: basic"),
        ({"url": f"https://example.com:{CANARY}/"}, "port"),
        ({"rules": [{}, {}]}, "name"),
        ({"payload_format": "object", "payload_key": "metadata"}, "payload_key"),
    ],
)
def test_mistakes_are_said_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    """The original's milliseconds and addresses that cannot be called are refused with what to write instead."""
    with pytest.raises(ValidationError, match=sentence) as caught:
        config(**options)
    assert CANARY not in str(caught.value)


def test_defaults_are_the_originals() -> None:
    """A webhook block with an address alone does what the original's did, on the frame before sampling."""
    plain = config(url="https://example.com")
    assert (plain.from_, plain.method, plain.payload_format, plain.batch_size) == (
        "redacted",
        "POST",
        "array",
        10,
    )
    assert (plain.max_retries, plain.retry_delay_s, plain.retry_backoff, plain.timeout_s) == (
        3,
        1.0,
        2.0,
        30.0,
    )
    assert config(url="").url is None


def test_the_environment_fills_in_what_is_left_open() -> None:
    """What the file says wins over the environment."""
    filled = config(auth_token="file").with_fallbacks(
        auth_token=SecretStr("env"), api_key=SecretStr("env"), url=None
    )
    assert filled.auth_token == SecretStr("file")
    assert filled.api_key == SecretStr("env")
    assert filled.url is None
    with pytest.raises(
        ConfigurationError, match="url from the environment: must begin with https://"
    ) as caught:
        config().with_fallbacks(url=SecretStr(f"gopher://{CANARY}"))
    assert CANARY not in str(caught.value)


def test_secrets_are_masked() -> None:
    """Neither a representation nor a dump of the configuration shows a secret, headers and address included."""
    names = ("auth_token", "password", "api_key", "hmac_secret")
    secretive = config(
        url=f"https://example.com/{CANARY}",
        headers={"X": CANARY},
        **dict.fromkeys(names, CANARY),
    )

    class Outer(BaseModel):
        webhook: WebhookConfig

    for text in (
        repr(secretive),
        str(secretive),
        secretive.model_dump_json(),
        repr(Outer(webhook=secretive)),
    ):
        assert CANARY not in text


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_taken(status: int) -> None:
    """Whatever 2xx the receiver answers, it has the dispatch."""
    judge(status)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    """Timeouts, too early, too many and the server's own errors are transient."""
    with pytest.raises(TransientError, match=str(status)) as caught:
        judge(status, 7.0)
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    "status", [100, 301, 302, 304, 307, 308, 400, 401, 403, 404, 409, 410, 413, 422, 600]
)
def test_what_stays_is_not_tried_again(status: int) -> None:
    """The same request would get the same answer."""
    with pytest.raises(PermanentError, match=str(status)):
        judge(status)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("100000", 3600.0),
        ("9" * 5000, 3600.0),
        ("Thu, 04 Dec 2025 10:30:20 GMT", 20.0),
        ("Thu, 04 Dec 2025 10:30:20 -0000", 20.0),
        ("Thu, 04 Dec 2025 09:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("soon", None),
        ("-5", None),
        ("²", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds and dates are understood, an hour is the most, nonsense is nothing."""
    assert retry_after_s(header, NOW) == seconds


# ── where it may go ──────────────────────────────────────────────────────────────────────────────────────────────────

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "fd12::1",
]
PRIVATE += ["::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::1", "::7f00:1"]
NEVER = [
    "169.254.169.254",
    "169.254.1.1",
    "fe80::1",
    "fe80::1%lo",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
]
NEVER += [
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
]
NEVER += ["240.0.0.1", "192.0.2.1", "198.18.0.1", "2001:db8::1", "fec0::1"]
GLOBAL = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize(
    ("address", "closed", "opened"),
    [(a, False, True) for a in PRIVATE]
    + [(a, False, False) for a in NEVER]
    + [(a, True, True) for a in GLOBAL],
)
def test_addresses(address: str, closed: bool, opened: bool) -> None:
    """Global addresses are open, private ones can be opened, link-local, metadata and reserved ones cannot."""
    assert is_allowed(address, allow_private=False) is closed
    assert is_allowed(address, allow_private=True) is opened


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]"],
)
def test_a_private_address_is_refused_however_it_is_written(
    httpserver: HTTPServer, host: str
) -> None:
    """The check is on what the name resolves to, so that no spelling of loopback gets past it."""
    with pytest.raises(PermanentError, match="OBS_WEBHOOK_ALLOW_PRIVATE"):
        post(sender(f"http://{host}:{httpserver.port}/", allow_private=False))
    assert httpserver.log == []


def test_an_allowed_host_may_be_private(httpserver: HTTPServer) -> None:
    """``allow_hosts`` opens single hosts and no others."""
    httpserver.expect_request("/").respond_with_data("ok")
    post(
        sender(
            f"http://LocalHost:{httpserver.port}/",
            allow_private=False,
            allow_hosts=["localhost"],
        )
    )
    with pytest.raises(PermanentError):
        post(
            sender(
                f"http://127.0.0.1:{httpserver.port}/",
                allow_private=False,
                allow_hosts=["localhost"],
            )
        )
    assert len(httpserver.log) == 1


@pytest.mark.parametrize("host", ["169.254.169.254", "0xa9fea9fe", "[::ffff:169.254.169.254]"])
def test_metadata_is_refused_whatever_is_allowed(host: str) -> None:
    """No setting opens a cloud's metadata address."""
    with pytest.raises(PermanentError, match="stay refused"):
        post(sender(f"http://{host}/", allow_private=True, allow_hosts=[host]))


def test_one_bad_address_among_good_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address of a name is checked, not the first alone."""
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80))
        for ip in ("93.184.216.34", "10.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(PermanentError):
        post(sender("http://example.com/", allow_private=False))


def test_a_name_is_resolved_once(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that gives another address the second time is not asked a second time."""
    httpserver.expect_request("/").respond_with_data("ok")
    answers = iter(["127.0.0.1", "169.254.169.254"])

    def rebinding(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        assert host == "rebinds.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    post(sender(f"http://rebinds.example:{httpserver.port}/"))
    assert next(answers) == "169.254.169.254"
    assert httpserver.log[0][0].headers["Host"] == f"rebinds.example:{httpserver.port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(httpserver: HTTPServer, status: int) -> None:
    """The second hop is never visited, with or without the credentials."""
    to = httpserver.url_for("/second")
    httpserver.expect_request("/first").respond_with_data(
        "", status=status, headers={"Location": to}
    )
    with pytest.raises(PermanentError, match=f"{status}: redirects are refused"):
        post(sender(httpserver.url_for("/first"), auth_type="bearer", auth_token="t"))
    assert [request.path for request, _ in httpserver.log] == ["/first"]


def test_proxies_netrc_and_cookies_play_no_part(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Nothing that lies about on the machine, or that the receiver hands out, gets into a request."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {CANARY}")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    httpserver.expect_request("/").respond_with_data("ok", headers={"Set-Cookie": "a=b"})
    to = sender(f"http://127.0.0.1:{httpserver.port}/")
    post(to)
    post(to)
    headers = httpserver.log[1][0].headers
    assert "Cookie" not in headers
    assert "Authorization" not in headers
    assert headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("obs_assets/")


def test_what_arrives_is_what_was_composed(httpserver: HTTPServer) -> None:
    """Method, own headers, credentials, id and bytes arrive as configured."""
    httpserver.expect_request("/in").respond_with_data("", status=204)
    to = sender(
        httpserver.url_for("/in"),
        method="PUT",
        headers={"X-Own": "1"},
        auth_type="bearer",
        auth_token="t",
    )
    to.send('{"ü":1}'.encode(), "application/json", "msg_7")
    request = httpserver.log[0][0]
    assert (request.method, request.get_data()) == ("PUT", '{"ü":1}'.encode())
    assert (request.headers["X-Own"], request.headers["Authorization"]) == ("1", "Bearer t")
    assert (request.headers["webhook-id"], request.headers["Content-Type"]) == (
        "msg_7",
        "application/json",
    )


# ── how long it may take ─────────────────────────────────────────────────────────────────────────────────────────────


HALF_OF_AN_ANSWER_S = 5.0
"""The answers of these servers take ten seconds: a sender that waits for their end takes longer than this."""


def drip(head: bytes, byte: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(byte)
            time.sleep(0.05)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"", b"H"),
        drip(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda _: time.sleep(10),
    ],
    ids=["status", "headers", "continue", "hang"],
)
def test_a_request_ends_at_its_deadline(answer: Callable[[socket.socket], None]) -> None:
    """A byte now and then does not prolong the time; the time is that of the whole request."""
    with raw_server(answer) as server:
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"no answer within 0\.4 s"):
            post(sender(server.url, timeout_s=0.4))
        assert time.monotonic() - began < HALF_OF_AN_ANSWER_S


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 999999", b"Connection: close", b"Transfer-Encoding: chunked"]
)
def test_a_dripped_body_ends_at_the_deadline_and_changes_nothing(framing: bytes) -> None:
    """The status has said that the receiver has it: sending again would only repeat it."""
    with raw_server(
        drip(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n", b"1\r\nx\r\n")
    ) as server:
        began = time.monotonic()
        post(sender(server.url, timeout_s=0.4))
        assert time.monotonic() - began < HALF_OF_AN_ANSWER_S


def test_a_bomb_is_not_read_to_its_end() -> None:
    """At most 64 KiB are read of an endless answer that claims to be compressed."""
    sent = 0

    def bomb(connection: socket.socket) -> None:
        nonlocal sent
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
        )
        while True:
            sent += connection.send(b"\x1f\x8b" * 32_768)

    with raw_server(bomb) as server:
        began = time.monotonic()
        post(sender(server.url, timeout_s=30))
        assert time.monotonic() - began < 15  # it has not waited for its deadline
    assert (
        READ_LIMIT_BYTES <= sent < 200 * READ_LIMIT_BYTES
    )  # what is above the limit lies in socket buffers


def test_a_huge_redirect_is_not_read_either() -> None:
    """The body of a redirect is bounded like any other, which `requests` alone would read whole."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nConnection: close\r\n\r\n"
        )
        while True:
            connection.send(b"x" * 65_536)

    with raw_server(answer) as server, pytest.raises(PermanentError, match="302"):
        post(sender(server.url, timeout_s=5))


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def test_a_broken_connection_is_transient() -> None:
    """Reset, closed without an answer, nonsense instead of HTTP, nobody there, no such name: all may work later."""
    for answer in (
        reset,
        lambda connection: None,
        lambda connection: connection.sendall(b"\0nonsense\r\n\r\n"),
    ):
        with raw_server(answer) as server, pytest.raises(TransientError, match="no answer: "):
            post(sender(server.url, timeout_s=2))
    with pytest.raises(TransientError, match="no answer: "):
        post(sender("http://127.0.0.1:9/"))
    with pytest.raises(TransientError, match="resolved"):
        post(sender("http://no-such-name.invalid/"))


def test_a_receiver_without_tls_gets_nothing() -> None:
    """https to a server that speaks plain HTTP fails before the request, and within the deadline."""
    with (
        raw_server(lambda connection: connection.sendall(OK)) as server,
        pytest.raises(TransientError),
    ):
        post(sender(server.url.replace("http:", "https:"), timeout_s=0.5))


def test_a_connection_serves_again() -> None:
    """Several dispatches go over one connection, each under its own deadline."""

    def keep_alive(connection: socket.socket) -> None:
        while True:
            connection.sendall(OK)
            if not read_request(connection):
                return

    with raw_server(keep_alive) as server:
        to = sender(server.url, timeout_s=2)
        for _ in range(3):
            post(to)
        assert server.connections == 1


def test_the_rate_is_held(httpserver: HTTPServer) -> None:
    """``rate_limit`` spaces the requests of a process: 26 at 50 a second take half a second or more."""
    httpserver.expect_request("/").respond_with_data("ok")
    to = sender(f"http://127.0.0.1:{httpserver.port}/", rate_limit=50)
    began = time.monotonic()
    for _ in range(26):
        post(to)
    assert time.monotonic() - began >= 0.45


def test_no_message_holds_the_address(
    httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The path of an address is its secret: it is in no error and in no log, the HTTP library's own included."""
    caplog.set_level(logging.DEBUG)
    secretive: dict[str, Any] = {
        "auth_type": "bearer",
        "auth_token": CANARY,
        "hmac_secret": CANARY,
    }
    httpserver.expect_request(f"/{CANARY}/ok").respond_with_data("ok")
    httpserver.expect_request(f"/{CANARY}/no").respond_with_response(
        Response(CANARY, status=500)
    )
    post(sender(httpserver.url_for(f"/{CANARY}/ok"), **secretive))
    said = ""
    for url in (
        httpserver.url_for(f"/{CANARY}/no"),
        f"http://127.0.0.1:9/{CANARY}",
        f"http://10.0.0.1/{CANARY}",
    ):
        with pytest.raises((TransientError, PermanentError)) as caught:
            post(sender(url, allow_private="10.0" not in url, **secretive))
        said += repr(caught.value) + repr(caught.value.__cause__)
    own_records = [
        record.getMessage() for record in caplog.records if record.name != "werkzeug"
    ]
    assert CANARY not in said + "".join(own_records)


def test_reaching_makes_no_request(httpserver: HTTPServer) -> None:
    """A check connects and says where, without sending anything."""
    assert (
        sender(f"http://127.0.0.1:{httpserver.port}/{CANARY}").reach()
        == f"127.0.0.1:{httpserver.port}"
    )
    with pytest.raises(TransientError, match="no connection"):
        sender("http://127.0.0.1:9/").reach()
    assert httpserver.log == []
