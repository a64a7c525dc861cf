"""`obs receive` as a process: it is killed while senders send, and each acknowledged event lands."""

import itertools
import os
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
import requests

from obs_assets_tests.receive.conftest import Process, wait_for

pytestmark = pytest.mark.slow

BATCH = 20
"""Events of a request."""


def send_until(url: str, sender: int, stop: threading.Event) -> list[int]:
    """Send requests until the end, each until it is acknowledged; the numbers of acknowledged events."""
    acknowledged: list[int] = []
    for batch in itertools.count():
        first = sender * 1_000_000 + batch * BATCH
        numbers = range(first, first + BATCH)
        body = "".join(f'{{"time": 1935738000, "n": {n}}}\n' for n in numbers)
        headers = {"Idempotency-Key": f"{sender}-{batch}"}
        while True:
            with suppress(requests.RequestException):
                answer = requests.post(f"{url}/events", data=body, headers=headers, timeout=10)
                if answer.status_code == 200:
                    acknowledged += numbers
                    break
            if stop.is_set():
                return acknowledged
            time.sleep(0.02)
        if stop.is_set():
            return acknowledged
    return acknowledged


def check_kills(process: Process, senders: int, kills: int) -> None:
    """Kill the process while senders send; then each acknowledged event is in the files, whole."""
    process.start()
    stop = threading.Event()
    with ThreadPoolExecutor(senders) as executor:
        jobs = [
            executor.submit(send_until, process.url, sender, stop) for sender in range(senders)
        ]
        for _ in range(kills):
            time.sleep(0.3)
            process.kill()
            process.start()
        stop.set()
        acknowledged = [number for job in jobs for number in job.result()]
    process.stop()
    landed = Counter(event["n"] for event in process.landed())
    assert len(acknowledged) > BATCH
    assert set(acknowledged) <= landed.keys()
    # A kill between the flushes of events and keys doubles the requests of a single flush.
    doubled = sum(count - 1 for count in landed.values())
    assert doubled <= kills * senders * BATCH


def test_each_acknowledged_event_lands(process: Process) -> None:
    """Senders that try again until they are answered lose nothing, whatever the moment of the kill."""
    check_kills(process, senders=4, kills=2)


@pytest.mark.soak
def test_twenty_kills(process: Process) -> None:
    """The same for longer, with more senders."""
    check_kills(process, senders=20, kills=20)


@pytest.mark.parametrize("point", ["receive.before_sync", "receive.after_sync"])
def test_a_kill_at_a_flush(process: Process, point: str) -> None:
    """The request in flight is not acknowledged; the next process takes it, and no line is torn."""
    process.env = {"OBS_CRASH_AT": f"{point}:2"}
    process.start()
    url = f"{process.url}/events"
    assert requests.post(url, data='{"time": 1935738000, "n": 1}', timeout=10).ok
    with pytest.raises(requests.ConnectionError):
        requests.post(url, data='{"time": 1935738000, "n": 2}', timeout=10)
    assert process.process.wait(timeout=10) == -signal.SIGKILL
    process.env = {}
    process.start()
    assert requests.post(url, data='{"time": 1935738000, "n": 2}', timeout=10).ok
    process.stop()
    landed = Counter(event["n"] for event in process.landed())
    assert landed[1] == 1
    assert landed[2] >= 1


def test_slow_clients_hold_up_no_other(process: Process) -> None:
    """Connections that send half a header, half a body or nothing stay bounded; others are served meanwhile."""
    process.start()
    half_header = b"POST /events HTTP/1.1\r\nHost: localhost\r\nX: "
    half_body = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", process.port)) for _ in range(600)]
    for number, connection in enumerate(slow):
        connection.sendall((half_header, half_body, b"")[number % 3])
    for n in range(5):
        body = f'{{"time": 1935738000, "n": {n}}}'
        assert requests.post(f"{process.url}/events", data=body, timeout=5).ok
    resident = psutil.Process(process.process.pid).memory_info().rss
    assert resident < 200 << 20
    wait_for(lambda: all_closed(slow[::3] + slow[2::3]))
    for connection in slow:
        connection.close()
    process.stop()


def all_closed(connections: list[socket.socket]) -> bool:
    """Whether the server has closed these connections."""
    for connection in connections:
        connection.setblocking(False)
        try:
            if connection.recv(100):
                return False
        except BlockingIOError:
            return False
        except ConnectionError:
            continue
    return True


def test_it_listens_on_loopback_unless_senders_have_tokens(process: Process) -> None:
    """A wrong address is refused before anything is written."""
    process.env = {"OBS_RECEIVE_HOST": "0.0.0.0", **os.environ}
    with pytest.raises(AssertionError, match="OBS_RECEIVE_AUTH"):
        process.start()
