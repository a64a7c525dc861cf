"""The strict receivers against second implementations of the same services: a difference is a bug of the receiver."""

import gzip
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
import requests
from botocore.exceptions import ClientError
from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiException
from datadog_api_client.v2.api.logs_api import LogsApi
from datadog_api_client.v2.model.http_log import HTTPLog
from datadog_api_client.v2.model.http_log_item import HTTPLogItem
from moto import mock_aws
from splunk_handler import SplunkHandler

from obs_assets.destinations.appending import Line
from obs_assets_tests.api.process import free_port
from obs_assets_tests.destinations import receivers
from obs_assets_tests.destinations.receivers import KEY, TOKEN, receiving
from obs_assets_tests.destinations.test_appending import (
    EVENTS,
    datadog_sender,
    splunk_sender,
)
from obs_assets_tests.frames import HOUR, frame_of

# -- CloudWatch: moto


def _verdicts(client: Any, now_ms: int) -> list[str]:
    """The answers of CloudWatch to a series of requests: ``ok``, or the code of the error."""
    place = {"logGroupName": "g", "logStreamName": "s"}
    events = [{"timestamp": now_ms + n, "message": f"m{n}"} for n in range(3)]
    requests_of: list[tuple[str, dict[str, Any]]] = [
        ("create_log_stream", place),
        ("create_log_group", {"logGroupName": "g"}),
        ("create_log_group", {"logGroupName": "g"}),
        ("put_log_events", {**place, "logEvents": events}),
        ("create_log_stream", place),
        ("create_log_stream", place),
        ("put_retention_policy", {"logGroupName": "g", "retentionInDays": 7}),
        ("put_log_events", {**place, "logEvents": events}),
        ("put_log_events", {**place, "logEvents": events[::-1]}),
    ]
    found = []
    for action, arguments in requests_of:
        try:
            getattr(client, action)(**arguments)
        except ClientError as error:
            found.append(error.response["Error"]["Code"])
        else:
            found.append("ok")
    return found


@pytest.mark.slow
def test_moto_judges_requests_of_cloudwatch_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing and second groups and streams, the order of events; the limits that moto lacks are AWS's reference."""
    with receiving(receivers.cloudwatch) as received:
        client = receivers.logs_client(received.url)("logs", region_name="us-east-1")
        ours = _verdicts(client, int(HOUR.start.timestamp() * 1000))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        theirs = _verdicts(
            boto3.client("logs", region_name="us-east-1"), int(time.time() * 1000)
        )
    assert ours == theirs
    assert [event["message"] for event in received.events] == ["m0", "m1", "m2"]


# -- Datadog: the official client


def _texts(sender: Any, duck: duckdb.DuckDBPyConnection) -> list[bytes]:
    rows = frame_of(duck, EVENTS).project(f"encode({sender.lines_sql(HOUR)})").fetchall()
    return [text for (text,) in rows]


def _lines(texts: list[bytes]) -> list[Line]:
    return [Line(str(number), text, 0) for number, text in enumerate(texts)]


def _datadogs_own(url: str, key: str) -> LogsApi:
    configuration = Configuration(api_key={"apiKeyAuth": key})
    # The server that takes an address: `{protocol}://{name}`.
    configuration.server_index = 1
    protocol, _, name = url.partition("://")
    configuration.server_variables = {"protocol": protocol, "name": name}
    return LogsApi(ApiClient(configuration))


@pytest.mark.slow
def test_datadogs_own_client_sends_the_same_logs(duck: duckdb.DuckDBPyConnection) -> None:
    """Its models take our logs, the receiver gets equal logs from both, and refuses its mistakes as the API says."""
    with receiving(receivers.datadog) as received:
        sender = datadog_sender(received.url, tags=["env:test"])
        texts = _texts(sender, duck)
        list(sender.send(HOUR, _lines(texts)))
        ours, received.events = received.events, []
        items = [HTTPLogItem(**log) for log in ours]
        client = _datadogs_own(received.url, KEY)
        client.submit_log(HTTPLog(items), content_encoding="gzip")
        assert received.events == ours == [json.loads(text) for text in texts]
        with pytest.raises(ApiException) as too_many:
            client.submit_log(HTTPLog([HTTPLogItem(message="m")] * 1001))
        with pytest.raises(ApiException) as denied:
            _datadogs_own(received.url, "wrong").submit_log(HTTPLog(items))
    assert (too_many.value.status, denied.value.status) == (400, 403)


# -- Splunk: a handler of logging, and Tenzir's own receiver


@pytest.mark.slow
def test_events_of_another_client_of_splunk_are_taken(duck: duckdb.DuckDBPyConnection) -> None:
    """splunk-handler's envelopes have the keys that ours have."""
    with receiving(receivers.splunk) as received:
        handler = SplunkHandler(
            host="unused",
            port=1,
            token=TOKEN,
            index="main",
            url=f"{received.url}/services/collector/event",
            sourcetype="_json",
            flush_interval=0,
        )
        for number in range(3):
            record = logging.LogRecord("x", logging.INFO, "p", 1, f"m{number}", None, None)
            handler.emit(record)
        theirs, received.events = received.events, []
        sender = splunk_sender(received.url, index="main")
        frame = frame_of(duck, [{"hostname": "node-1", "n": 1}])
        ((text,),) = frame.project(f"encode({sender.lines_sql(HOUR)})").fetchall()
        list(sender.send(HOUR, [Line("1", text, 0)]))
    assert [event["event"] for event in theirs] == ["m0", "m1", "m2"]
    (ours,) = received.events
    assert set(ours) - set(theirs[0]) == {"fields"}
    assert ours["host"] == "node-1"
    assert set(theirs[0]) <= set(ours)


@contextmanager
def tenzir(folder: Path) -> Iterator[tuple[str, Callable[[], list[Any]]]]:
    """Tenzir's receiver for HEC: its address, and the events that it has received."""
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, "tenzir==6.20.0"], check=True
    )
    port = free_port()
    program = f'accept_splunk "127.0.0.1:{port}", hec_token="{TOKEN}"\nwrite_ndjson'
    out = folder / "events.jsonl"
    with out.open("w") as stored:
        process = subprocess.Popen([environment / "bin" / "tenzir", program], stdout=stored)
        try:
            yield (
                f"http://127.0.0.1:{port}",
                lambda: [json.loads(line) for line in out.read_text().splitlines()],
            )
        finally:
            process.terminate()
            process.wait(30)


def _hec(url: str, body: bytes, token: str = TOKEN) -> tuple[int, int]:
    """Status and code of an answer."""
    headers = {"Authorization": f"Splunk {token}", "Content-Encoding": "gzip"}
    path = f"{url}/services/collector/event"
    answer = requests.post(path, data=gzip.compress(body), headers=headers, timeout=10)
    return answer.status_code, answer.json()["code"]


def _wait_until(is_done: Callable[[], bool]) -> None:
    for _ in range(300):
        if is_done():
            return
        time.sleep(0.2)
    raise AssertionError("nothing happened within a minute")


def _is_up(url: str) -> bool:
    try:
        requests.get(f"{url}/services/collector/health", timeout=2)
    except requests.ConnectionError:
        return False
    return True


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_tenzir_judges_requests_of_splunk_alike(
    tmp_path: Path, duck: duckdb.DuckDBPyConnection
) -> None:
    """Another program's receiver decodes our bodies to the same events, and answers mistakes with the same codes."""

    def judged(url: str) -> list[tuple[int, int]]:
        sender = splunk_sender(url)
        texts = _texts(sender, duck)
        assert [answer.lines for answer in sender.send(HOUR, _lines(texts))] == [len(texts)]
        mistakes = [_hec(url, b"{not json"), _hec(url, b'{"event":1}', "wrong")]
        return [*mistakes, _hec(url, b'{"event":"last"}')]

    with receiving(receivers.splunk) as received:
        ours = judged(received.url)
    with tenzir(tmp_path) as (url, events):
        _wait_until(lambda: _is_up(url))
        theirs = judged(url)
        _wait_until(lambda: len(events()) >= len(received.events))
        found = [(event["event"], event.get("fields")) for event in events()]
    assert ours == theirs
    assert found == [(event["event"], event.get("fields")) for event in received.events]
