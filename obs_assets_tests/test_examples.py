"""The pipelines of docs/examples: each is one that people had, and each takes an hour to where it says."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from obs_assets.audit.suites import check
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets_tests.frames import HOUR
from obs_assets_tests.harness import an_hour, build, write_events, wrong

EXAMPLES = sorted((Path(__file__).parents[1] / "docs" / "examples").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_tests_of_an_example_pass_and_notice_a_mistake(
    example: Path, tmp_path: Path
) -> None:
    """Each example has tests; with another filter, a test is red."""
    suite = example.parent / "tests" / example.name
    assert [outcome.problems for outcome in check(example, suite) if outcome.problems] == []
    wrong_file = tmp_path / example.name
    text = example.read_text()
    mistake = "  filter: {filter_mode: allowlist, keep_event_types: [no_such_type]}\n"
    text = re.sub(r"^  filter: .*\n", "", text, flags=re.MULTILINE)
    wrong_file.write_text(text.replace("  destinations:\n", f"{mistake}  destinations:\n"))
    assert any(outcome.problems for outcome in check(wrong_file, suite))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_takes_an_hour_to_its_destinations(
    example: Path, settings: Settings, tmp_path: Path
) -> None:
    """What the documentation shows runs as it stands, and every store holds the hour."""
    assert settings.postgres
    assert settings.s3
    env = {
        "OBS_EVENTS_DIR": str(tmp_path / "events"),
        "POSTGRES_DB": settings.postgres.database,
        "AWS_S3_BUCKET": settings.s3.bucket,
    }
    (tmp_path / "events").mkdir()
    write_events(tmp_path / "events" / "agents.jsonl", an_hour())
    machine = settings.model_copy(update={"hash_key": SecretStr("a key of the tests")})
    hourly = HourlyPipeline(pipeline.load(example, env), machine, example.stem)
    hourly.land()
    build(hourly, HOUR)
    assert wrong(hourly) == []
