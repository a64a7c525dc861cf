"""A gateway in front of a real receiver that answers some requests with a fault."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

HOP_BY_HOP = {
    "connection",
    "content-length",
    "transfer-encoding",
    "content-encoding",
    "date",
    "server",
}


@dataclass
class Fault:
    """A fault for requests whose path ends with ``path``.

    Attributes:
        path: end of the path without the query.
        times: how many requests meet the fault.
        status: status of the answer; 0 closes the connection without an answer.
        headers: headers of the answer.
        body: body of the answer.
        is_passed_on: the receiver gets the request, and only its answer is lost.
    """

    path: str
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    is_passed_on: bool = False


@contextmanager
def gateway(receiver: str, *faults: Fault, seen: list[str] | None = None) -> Iterator[str]:
    """The address of a gateway to ``receiver``; ``seen`` gets method and path of each request."""
    lock = threading.Lock()

    def met(path: str) -> Fault | None:
        with lock:
            for fault in faults:
                if fault.times and path.partition("?")[0].endswith(fault.path):
                    fault.times -= 1
                    return fault
        return None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if seen is not None:
                seen.append(f"{self.command} {self.path}")
            fault = met(self.path)
            if fault is None or fault.is_passed_on:
                answer = requests.request(
                    self.command,
                    f"{receiver}{self.path}",
                    data=body,
                    headers={
                        "Content-Type": self.headers.get("Content-Type", "application/json")
                    },
                    timeout=30,
                )
                if fault is None:
                    self._answer(answer.status_code, answer.headers, answer.content)
                    return
            if fault.status == 0:
                self.close_connection = True
                self.connection.close()
                return
            self._answer(fault.status, fault.headers, fault.body)

        do_GET = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - http.server's names

        def _answer(self, status: int, headers: object, body: bytes) -> None:
            self.send_response(status)
            for name, value in dict(headers).items():  # type: ignore[call-overload]
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serve: Callable[[], None] = server.serve_forever
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
