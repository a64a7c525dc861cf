"""``obs inspect``: what the pipeline would make of files, before anything lands."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from obs_assets.audit.inspection import inspect_file
from obs_assets.cli import app
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import parse
from obs_assets.settings import Settings

LINES = [
    {"time": "2026-11-25T09:00:00Z", "level": "WARN", "msg": "from jane.roe@example.org"},
    {"@timestamp": "2026-11-25T10:00:00Z", "level": "dbg", "msg": "x"},
    {"msg": "no time", "eventName": "a", "eventID": "secret-id"},
]


@pytest.fixture
def hourly(tmp_path: Path) -> HourlyPipeline:
    config = parse({"filter": {"drop_levels": ["debug"]}, "redact": {}, "destinations": []})
    return HourlyPipeline(config, Settings(data_dir=tmp_path / "data"), "events")


def test_a_file_is_described_and_nothing_lands(tmp_path: Path, hourly: HourlyPipeline) -> None:
    """Packing, format, times and their fields, levels, dead letters, values to hide, events to drop; no event text."""
    path = tmp_path / "a.log"
    content = "".join(json.dumps(line) + "\n" for line in LINES) + "<34>1 no json\n2 x\n3\n"
    path.write_bytes(gzip.compress(content.encode("utf-16")))
    found = inspect_file(hourly, path)
    assert (found.compression, found.encoding, found.framing) == (
        ".gz",
        "utf-16-le",
        "over many lines, or text",
    )
    assert (found.events, found.formats) == (3, {"json": 3})
    assert found.dead_letters == {"not_json": 1, "not_an_object": 1}
    assert found.dead_lines == {"not_json": 2, "not_an_object": 1}
    assert found.share_dead == 0.5
    assert found.remarks["looks_like_syslog"] == 1
    assert found.time_from == {"time": 1, "@timestamp": 1, "landed_at": 1}
    assert found.type_from == {"none": 2, "eventName": 1}
    assert found.id_from == {"none": 2, "eventID": 1}
    assert found.levels == {"warning": 1, "debug": 1, "none": 1}
    assert found.redacted == {"email": 1}
    assert found.dropped == {"filtered:level": 1}
    assert "jane" not in repr(found)
    assert "secret-id" not in repr(found)
    assert not (tmp_path / "data").exists()


def test_the_fields_of_a_file_are_those_of_all_its_parts(
    tmp_path: Path, hourly: HourlyPipeline
) -> None:
    """A file of several programs, one behind the other: each has its share among the events that are looked at."""
    moment = "2025-12-04T10:00:00Z"
    parts = [{"time": moment, "type": "a"}, {"@timestamp": moment, "id": "1"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{json.dumps(part)}\n" * 500 for part in parts))
    found = inspect_file(hourly, path)
    assert found.events == 1000
    assert found.time_from == {"time": 100, "@timestamp": 100}
    assert found.type_from == {"type": 100, "none": 100}
    assert found.id_from == {"none": 100, "id": 100}


def test_a_file_that_is_not_there_is_named(tmp_path: Path, hourly: HourlyPipeline) -> None:
    """The message says which."""
    with pytest.raises(ConfigurationError, match=r"nowhere\.log is no file"):
        inspect_file(hourly, tmp_path / "nowhere.log")


@pytest.mark.slow
def test_the_command_prints_a_table_and_says_whether_all_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 as soon as a file has dead letters."""
    monkeypatch.setenv("OBS_DATA_DIR", str(tmp_path / "data"))
    good, bad = tmp_path / "good.log", tmp_path / "bad.log"
    good.write_text(json.dumps(LINES[0]) + "\n")
    bad.write_text("no event\n")
    runner = CliRunner()
    shown = runner.invoke(app, ["inspect", str(good)])
    assert shown.exit_code == 0
    assert "time 1" in shown.stdout
    both = runner.invoke(app, ["inspect", str(good), str(bad)])
    assert both.exit_code == 1
    assert "not_json 1 line (100.0% of all)" in both.stdout
    as_json = json.loads(runner.invoke(app, ["inspect", "--json", str(bad)]).stdout)
    assert as_json[0]["dead_letters"] == {"not_json": 1}
