#!/usr/bin/env python3
"""Measure `obs receive`: events a second from several connections, times to an answer, processor time, memory.

Each connection is a process that sends requests at its share of the rate, one after the other. An answer means
that the events are flushed to disk. The processor time and the memory are those of the receiver.

    python bench/receiving.py [--rate N] [--connections N] [--batch N] [--seconds N]
"""

import argparse
import http.client
import itertools
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import psutil
from make_events import make
from place import out

Times = list[float]

START = datetime(2025, 12, 4, 10, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rate", type=int, default=20_000, help="events a second; 0: all it takes"
    )
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--batch", type=int, default=50, help="events of a request")
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args)


def measure(folder: Path, args: argparse.Namespace) -> None:
    """Start a receiver, send, and print the figures."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "obs"), "receive", "--port", str(port)]
    env = {
        **os.environ,
        "OBS_EVENTS_DIR": str(folder / "events"),
        "OBS_DATA_DIR": str(folder / "data"),
    }
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as receiver:
        wait_until_it_answers(port)
        running = psutil.Process(receiver.pid)
        before = running.cpu_times()
        began = time.perf_counter()
        share = args.rate / args.connections / args.batch
        with multiprocessing.Pool(args.connections) as pool:
            jobs = [(port, args.batch, share, args.seconds)] * args.connections
            times = sorted(itertools.chain.from_iterable(pool.starmap(send, jobs)))
        seconds = time.perf_counter() - began
        after = running.cpu_times()
        memory = running.memory_info().rss / 1e6
        receiver.send_signal(signal.SIGTERM)
    events = len(times) * args.batch
    processor_s = after.user + after.system - before.user - before.system
    out.print(
        f"{events / seconds:,.0f} events/s from {args.connections} connections, {args.batch} events a request; "
        f"answers after {times[len(times) // 2] * 1e3:.0f} ms (median), "
        f"{times[int(len(times) * 0.99)] * 1e3:.0f} ms (p99); "
        f"{processor_s / events * 1e6:.1f} µs of processor time an event; {memory:.0f} MB"
    )


def send(port: int, batch: int, share: float, seconds: float) -> Times:
    """Send requests for some seconds, at most ``share`` a second; the time to each answer, in seconds."""
    chance = random.Random(port)
    events = [make(chance, n, START + timedelta(seconds=n)) for n in range(batch)]
    body = b"\n".join(map(orjson.dumps, events))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times: Times = []
    began = time.perf_counter()
    ends = began + seconds
    while time.perf_counter() < ends:
        if share:
            time.sleep(max(0.0, began + len(times) / share - time.perf_counter()))
        sent = time.perf_counter()
        connection.request("POST", "/events", body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        times.append(time.perf_counter() - sent)
    return times


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def wait_until_it_answers(port: int) -> None:
    for _ in range(1_200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the receiver does not answer")


if __name__ == "__main__":
    main()
