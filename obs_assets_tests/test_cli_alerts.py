"""``obs alerts`` and ``obs backtest`` as people and scripts use them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs_assets.demo.receiver import Receiver
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import parse_hour
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR
from obs_assets_tests.test_cli import Obs, events_dir, obs  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

YAML = """
attributes:
  start: "2025-12-04-00:00"
  source: {events_dir: "{{ env.OBS_EVENTS_DIR }}"}
  redact: {mode: mask}
  destinations:
    - type: webhook
      url: "{{ env.WEBHOOK_URL }}"
      max_age_hours: null
      rules:
        - {levels: [error]}
        - {name: failing, types: [task_failed], above: 2, by: [data.owner], cooldown_hours: 2}
"""
HOURS = [HOUR, HOUR.next, HOUR.next.next]


@pytest.fixture
def hourly(
    obs: Obs,  # noqa: F811
    settings: Settings,
    events_dir: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[HourlyPipeline, Receiver]]:
    """Two hours of failures and a calm one, built, with a receiver; commands find the same pipeline."""
    for hour in HOURS[1:]:
        some = harness.an_hour(hour)
        some = (
            some
            if hour == HOURS[1]
            else [event for event in some if event["type"] != "task_failed"]
        )
        harness.write_events(events_dir / "b.jsonl", some)
    file = tmp_path / "pipelines" / "pipeline" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(YAML)
    monkeypatch.setenv("OBS_PIPELINES_DIR", str(tmp_path / "pipelines"))
    with Receiver() as receiver:
        monkeypatch.setenv("WEBHOOK_URL", receiver.url)
        config = pipeline.load(
            file, {"WEBHOOK_URL": receiver.url, "OBS_EVENTS_DIR": str(events_dir)}
        )
        webhook = settings.webhook.model_copy(update={"allow_private": True})
        built = HourlyPipeline(config, settings.model_copy(update={"webhook": webhook}))
        built.land()
        harness.build(built, *HOURS[:2])
        yield built, receiver


def test_what_fires_is_listed(obs: Obs, hourly: tuple[HourlyPipeline, Receiver]) -> None:  # noqa: F811
    """Rule, group, since when and how much, redacted, as a table and as JSON; nothing once it is calm."""
    table = obs("alerts", "firing")
    assert (table.code, "failing" in table.out, HOUR.key in table.out) == (0, True, True)
    (row,) = json.loads(obs("alerts", "firing", "--json").out)
    assert (row["rule"], row["status"], row["value"], row["destination"]) == (
        "failing",
        "firing",
        5,
        "webhook_alerts",
    )
    assert "555 867" not in table.out + json.dumps(row)
    harness.build(hourly[0], HOURS[2])
    assert obs("alerts", "firing").out == "no alert fires\n"


def test_a_dispatch_is_shown_with_the_body_that_is_sent(
    obs: Obs,  # noqa: F811
    hourly: tuple[HourlyPipeline, Receiver],
) -> None:
    """Its state and its redacted body, byte by byte; an id that is none is said, with exit code 1."""
    listed = json.loads(obs("alerts", "list", "--json").out)
    assert [(row["rule"], row["state"]) for row in listed] == [
        ("errors", "sent"),
        ("failing", "sent"),
        ("errors", "sent"),
    ]
    for row in listed:
        shown = json.loads(obs("alerts", "show", row["webhook_id"], "--json").out)
        (sent,) = [r.body for r in hourly[1].requests if r.webhook_id == row["webhook_id"]]
        assert shown["body"].encode() == sent
        text = obs("alerts", "show", row["webhook_id"])
        assert (text.code, "state: sent" in text.out, sent.decode() in text.out) == (
            0,
            True,
            True,
        )
        assert "555 867" not in text.out
    missing = obs("alerts", "show", "msg_none")
    assert (missing.code, missing.err) == (1, "obs: there is no dispatch 'msg_none'\n")


def test_a_backtest_says_what_rules_would_have_told(
    obs: Obs,  # noqa: F811
    hourly: tuple[HourlyPipeline, Receiver],
    tmp_path: Path,
) -> None:
    """A Markdown report beside the present rules, the same as JSON; no request is made and nothing is kept."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n  - {name: failing, types: [task_failed], above: 4}\n  - {name: none, above: 1000000}\n"
    )
    requests, listed = len(hourly[1].requests), obs("alerts", "list", "--json").out
    done = obs("backtest", f"{HOUR.key}...{HOURS[2].key}", "--rules", str(rules))
    assert (
        done.code,
        "# " in done.out,
        "| failing | " in done.out,
        "1 were not built" in done.out,
    ) == (0, *[True] * 3)
    told = json.loads(
        obs("backtest", f"{HOUR.key}...{HOURS[1].key}", "--rules", str(rules), "--json").out
    )
    firing, none = told["rules"]
    assert [parse_hour(hour) for hour in firing["firing_hours"]] == HOURS[:2]
    assert ([d["hour"] for d in firing["dispatches"]], none["dispatches"]) == ([HOUR.key], [])
    assert [outcome["rule"] for outcome in told["now"]] == ["errors", "failing"]
    assert "555 867" not in done.out + json.dumps(told)
    assert (len(hourly[1].requests), obs("alerts", "list", "--json").out) == (requests, listed)


@pytest.mark.parametrize(
    ("text", "arguments", "code", "says"),
    [
        ("rules: [{above: 1, colour: red}]", [], 2, "colour"),
        ("rules: [{above: ]", [], 2, "not YAML"),
        (None, [], 2, "cannot read"),
        ("rules: [{above: 1}]", ["--destination", "nobody"], 2, "--destination"),
        ("rules: [{above: 1}]", ["2025-12-04-23:00"], 1, "materialize redacted_events"),
    ],
)
def test_what_cannot_be_backtested_is_said(  # noqa: PLR0917 (fixtures)
    obs: Obs,  # noqa: F811
    hourly: tuple[HourlyPipeline, Receiver],
    tmp_path: Path,
    text: str | None,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    """Mistakes in the rules, a webhook that is none, hours that were not built: one sentence and an exit code."""
    rules = tmp_path / "rules.yaml"
    if text:
        rules.write_text(text)
    hours = arguments if arguments and arguments[0][0] == "2" else [HOUR.key, *arguments]
    done = obs("backtest", *hours, "--rules", str(rules))
    assert (done.code, says in done.err) == (code, True)


def test_build_says_which_dispatches_are_not_sent(
    obs: Obs,  # noqa: F811
    hourly: tuple[HourlyPipeline, Receiver],
    events_dir: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """An old hour beyond `max_age_hours` has a hint beside its count; an hour whose dispatches were sent has none."""
    file = tmp_path / "pipelines" / "pipeline" / "defs.yaml"
    file.write_text(YAML.replace("max_age_hours: null", "max_age_hours: 24"))
    failing = HOURS[2].next
    harness.write_events(events_dir / "b.jsonl", harness.an_hour(failing))
    hourly[0].land()
    requests = len(hourly[1].requests)
    done = obs("build", f"{HOURS[1]}...{failing}", OBS_WEBHOOK_SEND_OLD="")
    assert done.code == 0, done.err
    sent, _, unsent, _ = done.out.splitlines()
    assert "not sent" not in sent
    assert unsent.endswith(" (recorded, not sent: see `obs alerts list`)")
    assert len(hourly[1].requests) == requests
