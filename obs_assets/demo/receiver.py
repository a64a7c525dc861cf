"""A webhook receiver on this machine that keeps its requests."""

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True)
class Received:
    """A request.

    Attributes:
        webhook_id: its header ``webhook-id``, the same at every repetition.
        body: its body.
    """

    webhook_id: str
    body: bytes


class Receiver:
    """Listens on a free port of the loopback interface while it is open; answers 204 to every POST.

    Attributes:
        requests: the requests so far, in order.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        # Port 0: the system chooses a free port.
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The address of the receiver, for ``WEBHOOK_URL``."""
        return f"http://127.0.0.1:{self._server.server_port}/alerts"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                requests.append(Received(self.headers.get("webhook-id", ""), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing: the terminal shows the report."""

        return Handler
