"""Who is at the other end, and how the other end knows us: TLS, and signatures that other people's libraries verify."""

import base64
import datetime as dt
import json
import random
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from standardwebhooks import Webhook, WebhookVerificationError

from obs_assets.destinations.webhook import WebhookConfig, WebhookSender, signatures
from obs_assets.errors import TransientError

NEW, OLD = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
BODY = '{"n": 123456789012345678901234567890.10, "ü": "🙂"}'.encode()


def signed() -> dict[str, str]:
    config = WebhookConfig.model_validate({"hmac_secret": NEW, "hmac_previous_secrets": [OLD]})
    return signatures(config, "msg_1", dt.datetime.now(dt.UTC), BODY)


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_the_official_library_verifies_new_and_old_key(secret: str) -> None:
    """While a key is rotated, a receiver with either verifies; one with another, or another body, does not."""
    assert Webhook(secret).verify(BODY.decode(), signed())
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"3" * 32).decode()).verify(BODY.decode(), signed())
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY.decode() + " ", signed())


@pytest.mark.system
@pytest.mark.enable_socket
def test_the_official_javascript_library_verifies(tmp_path: Path) -> None:
    """The npm package `standardwebhooks` takes what we sign, with both keys."""
    npm = shutil.which("npm")
    assert npm, "npm is needed: .ci/run installs it"
    subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "standardwebhooks@1"],
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    script = (
        "const { Webhook } = require('standardwebhooks'); const [s, b, h] = JSON.parse(process.argv[1]);"
        "console.log(JSON.stringify(new Webhook(s).verify(b, h)) !== undefined ? 'verified' : 'no')"
    )
    for secret in (NEW, OLD):
        arguments = json.dumps([secret, BODY.decode(), signed()])
        done = subprocess.run(
            ["node", "-e", script, arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.strip() == "verified", done.stderr


class _Taker(BaseHTTPRequestHandler):
    taken: list[bytes]

    def do_POST(self) -> None:
        self.taken.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def tls_server(certificate: trustme.LeafCert) -> Iterator[tuple[int, list[bytes]]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    taken: list[bytes] = []
    handler = type("Taker", (_Taker,), {"taken": taken})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.server_address[1], taken
        server.shutdown()
        thread.join()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that requests trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "ca.pem"))
    return authority


def post(port: int) -> None:
    config = WebhookConfig.model_validate({"url": f"https://localhost:{port}/", "timeout_s": 5})
    WebhookSender(config, allow_private=True).send(b"[]", "application/json", "msg_1")


def test_a_good_certificate_is_taken(trusted: trustme.CA) -> None:
    """The control: name, time and authority are right."""
    with tls_server(trusted.issue_cert("localhost")) as (port, taken):
        post(port)
        assert taken == [b"[]"]


@pytest.mark.parametrize("wrong", ["name", "expired", "self-signed"])
def test_a_bad_certificate_gets_nothing(trusted: trustme.CA, wrong: str) -> None:
    """Another name, a time that is over, an authority that nobody knows: no request leaves."""
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = {
        "name": lambda: trusted.issue_cert("elsewhere.example"),
        "expired": lambda: trusted.issue_cert(
            "localhost", not_before=past, not_after=past + dt.timedelta(days=1)
        ),
        "self-signed": lambda: trustme.CA().issue_cert("localhost"),
    }[wrong]()
    with tls_server(certificate) as (port, taken):
        with pytest.raises(TransientError):
            post(port)
        assert taken == []


@pytest.mark.soak
def test_a_hundred_a_second_for_ten_seconds() -> None:
    """``rate_limit: 100`` is held within 5 % over ten seconds; a machine too busy for as many is given three tries."""
    found = []
    while len(found) < 3 and not any(sent >= 950 for sent in found):
        found.append(requests_in_ten_seconds(100))
    assert max(found) <= 1050
    assert max(found) >= 950


def requests_in_ten_seconds(rate: int) -> int:
    with _Server(
        ("127.0.0.1", 0),
        type("Taker", (_Taker,), {"taken": [], "protocol_version": "HTTP/1.1"}),
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        config = WebhookConfig.model_validate({"url": url, "rate_limit": rate})
        sender = WebhookSender(config, allow_private=True)
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < 10:
            sender.send(b"[]", "application/json", f"msg_{sent}")
            sent += 1
        server.shutdown()
        thread.join()
    return sent


def test_the_rate_is_held_whatever_else_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late wake-ups, slow answers and pauses of the machine: any ten seconds have 950 to 1,050."""
    chance = random.Random(1)
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds + chance.uniform(0, 0.004)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    config = WebhookConfig.model_validate({"url": "http://localhost/", "rate_limit": 100})
    sender = WebhookSender(config, sleep=sleep)
    moments = []
    while now[0] < 1080:
        sender._await_slot()
        moments.append(now[0])
        now[0] += chance.uniform(0, 0.008) if chance.random() > 0.002 else 0.4
        if 1060 < now[0] < 1061:
            now[0] += 4  # who was away for long catches up on half a second of it
    for start in range(1000, 1070):
        sent = sum(start <= moment < start + 10 for moment in moments)
        assert sent <= 1050
        assert sent >= 950 or start > 1050
