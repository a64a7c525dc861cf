#!/usr/bin/env python3
"""Write deterministic observability events as JSONL, for benchmarks.

    make_events.py OUT_DIR --events 1000000 --hours 1 --files 4 --seed 7 --personal 0.18

Events resemble an agent platform's own log: masters and workers that start,
complete and fail tasks, with token usage, traces, nested payloads and, in
about one event in five, personal data or a credential in free text or in a
nested field.  The mean event is about 430 bytes.  Every event's timestamp
falls in [start, start + hours).  Standard library and orjson only.
"""

import argparse
import datetime as dt
import pathlib
import random

import orjson

TYPES = [  # (type, level, status, weight)
    ("heartbeat", "debug", None, 12),
    ("health_check", "info", None, 4),
    ("task_started", "info", None, 18),
    ("task_completed", "info", "completed", 30),
    ("llm_call", "info", "success", 20),
    ("http_request", "info", "success", 8),
    ("task_failed", "error", "failed", 3),
    ("tool_error", "error", "error", 1),
    ("slow_query", "warning", None, 4),
]
MASTERS = ["development", "security", "inventory", "cicd", "coordinator"]
WORKERS = ["implementation", "scan", "documentation", "review", "test"]
FIRST = [
    "ana",
    "ben",
    "chloe",
    "dmitri",
    "emeka",
    "fatima",
    "george",
    "hana",
    "ivan",
    "julia",
    "kofi",
    "lena",
]
LAST = [
    "silva",
    "okafor",
    "meyer",
    "tanaka",
    "novak",
    "haddad",
    "brown",
    "rossi",
    "kim",
    "larsen",
]
NAMESAKES = 100
DOMAINS = ["example.com", "mail.example.org", "corp.example.net", "example.co.uk"]


def email(r):
    return f"{r.choice(FIRST)}.{r.choice(LAST)}{r.randrange(NAMESAKES)}@{r.choice(DOMAINS)}"


def ipv4(r):
    return f"{r.randrange(11, 200)}.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(1, 255)}"


def luhn(r):
    digits = [4] + [r.randrange(10) for _ in range(14)]
    total = sum(d if i % 2 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(digits))
    digits.append(-total % 10)
    text = "".join(map(str, digits))
    return "-".join(text[i : i + 4] for i in range(0, 16, 4))


PII = [
    lambda r: f"contact {email(r)} about the failed build",
    lambda r: (
        f"callback requested at ({r.randrange(201, 989)}) {r.randrange(200, 999)}-{r.randrange(10000):04d}"
    ),
    lambda r: f"request from {ipv4(r)} took longer than the budget",
    lambda r: f"payment with card {luhn(r)} was declined",
    lambda r: (
        f"connecting with password={''.join(r.choices('abcdefghjkmnpqrstuvwxyz23456789', k=14))} to the broker"
    ),
    lambda r: (
        f"using key sk-{''.join(r.choices('ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789', k=40))}"
    ),
    lambda r: (
        f"ssn on file {r.randrange(100, 665)}-{r.randrange(10, 99)}-{r.randrange(1000, 9999)}"
    ),
]
PLAIN = [
    "cloned repository and resolved 214 dependencies",
    "wrote 18 files, 412 insertions, 97 deletions",
    "all checks passed for revision 9f2c41d",
    "queue depth is 12, pool size is 14, threshold is 10",
    "retrying after upstream returned 503 Service Unavailable",
    "cache hit for prompt template v4.2.0 build 2025.11.3.1",
    "scheduled follow-up review in 15 minutes",
]


def make(r, n, ts, personal=0.18):
    kind, level, status, _ = r.choices(TYPES, weights=[t[3] for t in TYPES])[0]
    stamp = ts.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ts.microsecond // 1000:03d}Z"
    event = {
        "id": f"evt-{n:010d}",
        "type": kind,
        "level": level,
        "timestamp": stamp,
        "source": "agent-runtime",
        "master_type": r.choice(MASTERS),
        "worker_type": r.choice(WORKERS),
        "worker_id": f"worker-{r.randrange(400):03d}",
        "trace_id": f"{r.getrandbits(128):032x}",
        "message": r.choice(PII)(r) if r.random() < personal else r.choice(PLAIN),
    }
    if status:
        event["status"] = status
    if kind in ("task_completed", "llm_call", "task_failed"):
        ms = int(r.expovariate(1 / 900)) + 5
        begin = ts - dt.timedelta(milliseconds=ms)
        event["started_at"] = (
            begin.strftime("%Y-%m-%dT%H:%M:%S.") + f"{begin.microsecond // 1000:03d}Z"
        )
        event["completed_at"] = stamp
    if kind == "llm_call":
        event["model"] = "sonnet"
        event["tokens_used"] = {
            "input_tokens": r.randrange(200, 9000),
            "output_tokens": r.randrange(20, 2500),
        }
    if level == "error":
        event["error"] = r.choice(
            [
                "TimeoutError: upstream did not answer in 30 s",
                "ValueError: invalid worker specification",
                "PermissionError: cannot spawn workers",
            ]
        )
    event["data"] = {
        "task_id": f"task-{r.getrandbits(40):010x}",
        "attempt": r.randrange(1, 4),
        "tags": r.sample(["prod", "canary", "nightly", "eu", "us", "batch"], 2),
    }
    if r.random() < 0.05:
        event["data"]["user"] = {
            "name": r.choice(FIRST),
            "contact": {"email": email(r), "ip": ipv4(r)},
        }
    return event


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("out_dir", type=pathlib.Path)
    p.add_argument("--events", type=int, default=1_000_000)
    p.add_argument("--hours", type=int, default=1)
    p.add_argument("--files", type=int, default=4, help="files an hour")
    p.add_argument("--start", default="2025-12-04T10:00:00+00:00")
    p.add_argument("--seed", type=int, default=7)
    p.add_argument(
        "--personal",
        type=float,
        default=0.18,
        help="share of events with a value in their message",
    )
    p.add_argument("--unrepeated", action="store_true", help="hardly any value twice")
    a = p.parse_args()
    if a.unrepeated:
        global NAMESAKES  # noqa: PLW0603
        NAMESAKES = 10**9
    r = random.Random(a.seed)
    start = dt.datetime.fromisoformat(a.start)
    a.out_dir.mkdir(parents=True, exist_ok=True)
    per_hour = a.events // a.hours
    n = 0
    for h in range(a.hours):
        begin = start + dt.timedelta(hours=h)
        handles = [
            (a.out_dir / f"agent-events-{begin:%Y%m%dT%H}-{i}.jsonl").open("wb")
            for i in range(a.files)
        ]
        for k in range(per_hour):
            ts = begin + dt.timedelta(microseconds=3_600_000_000 * k // per_hour)
            handles[k % a.files].write(orjson.dumps(make(r, n, ts, a.personal)) + b"\n")
            n += 1
        for handle in handles:
            handle.close()
    print(f"{n} events in {a.out_dir}")


if __name__ == "__main__":
    main()
