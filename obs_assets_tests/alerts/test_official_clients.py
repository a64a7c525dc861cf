"""Slack's and PagerDuty's own clients as oracles: what they accept and what they send is what we send."""

import json
import os
from dataclasses import replace
from typing import Any

import httpx
import pagerduty
import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from slack_sdk.models.blocks import Block
from slack_sdk.webhook import WebhookClient

from obs_assets.alerts import AlertRule
from obs_assets.alerts.notices import message
from obs_assets.alerts.receivers import compose
from obs_assets.destinations.webhook import CONTENT_TYPE, WebhookConfig, WebhookSender
from obs_assets_tests.alerts.test_receivers import notices

AT = "2025-12-04T11:00:00.000Z"


def body_of(receiver: Any, groups: int, **options: Any) -> bytes:
    rule = AlertRule.model_validate(
        {"name": "r", "above": 1, "by": ["worker"], "labels": {"team": "a&b"}, **options}
    )
    return compose(
        receiver,
        message([rule], notices([(f"<w{n}>" * 40,) for n in range(groups)]), "hook"),
        AT,
    )


def requests_of(httpserver: HTTPServer) -> list[tuple[str, Any]]:
    return [
        (r.headers["Content-Type"].partition(";")[0], json.loads(r.get_data()))
        for r, _ in httpserver.log
    ]


def send(httpserver: HTTPServer, body: bytes, **options: Any) -> None:
    config = WebhookConfig.model_validate({"url": httpserver.url_for("/in"), **options})
    WebhookSender(config, allow_private=True).send(body, CONTENT_TYPE, "msg_1")


@pytest.mark.parametrize("groups", [1, 200])
def test_slacks_client_accepts_and_sends_the_same(
    httpserver: HTTPServer, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block is one that slack_sdk knows and finds valid; its webhook client makes the same request."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    body = body_of("slack", groups, summary="x" * 5000)
    message_of = json.loads(body)
    blocks = Block.parse_all(message_of["blocks"])
    assert len(blocks) == len(message_of["blocks"])
    for block, written in zip(blocks, message_of["blocks"], strict=True):
        block.validate_json()
        assert json.loads(json.dumps(block.to_dict())) == written
    httpserver.expect_request("/in").respond_with_data("ok")
    answer = WebhookClient(httpserver.url_for("/in")).send_dict(message_of)
    assert (answer.status_code, answer.body) == (200, "ok")
    send(httpserver, body, receiver="slack")
    theirs, ours = requests_of(httpserver)
    assert ours == theirs


class Recording(pagerduty.EventsApiV2Client):
    """PagerDuty's client, whose requests go no further: it speaks to https alone."""

    def __init__(self) -> None:
        super().__init__("R" * 32)
        self.sent: list[dict[str, Any]] = []

    def post(self, url: str, **options: Any) -> httpx.Response:  # type: ignore[override]
        self.sent.append(options["json"])
        answer = {"dedup_key": options["json"]["dedup_key"]}
        return httpx.Response(
            202, json=answer, request=httpx.Request("POST", f"{self.base_url}{url}")
        )


def test_pagerdutys_client_sends_the_same(httpserver: HTTPServer) -> None:
    """The pagerduty package, given the same alert, makes the same trigger and the same resolve."""
    httpserver.expect_request("/in").respond_with_data("{}", status=202)
    trigger = json.loads(body_of("pagerduty", 1))
    payload = trigger["payload"]
    with Recording() as client:
        client.trigger(
            payload["summary"],
            payload["source"],
            dedup_key=trigger["dedup_key"],
            severity=payload["severity"],
            payload={name: payload[name] for name in ("timestamp", "class")},
            custom_details=payload["custom_details"],
        )
        client.resolve(trigger["dedup_key"])
    rule = AlertRule.model_validate({"name": "r", "above": 1, "by": ["worker"]})
    (firing,) = notices([("<w0>" * 40,)])
    over = message([rule], [replace(firing, kind="resolved")], "hook")
    for body in (body_of("pagerduty", 1), compose("pagerduty", over, AT)):
        send(httpserver, body, receiver="pagerduty", routing_key=SecretStr("R" * 32))
    ours = [body for _, body in requests_of(httpserver)]
    assert [body.pop("routing_key") for body in ours] == ["R" * 32] * 2
    assert ours[0].pop("client") == "obs_assets"
    assert ours == client.sent
