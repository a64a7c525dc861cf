"""Pipeline files: what they may say, and what a mistake is answered with."""

from pathlib import Path

import pytest

from obs_assets.delivery.kinds import asset_name
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.stage_rows import STAGES


def write(tmp_path: Path, attributes: str) -> Path:
    path = tmp_path / "defs.yaml"
    path.write_text(
        f"type: obs_assets.components.ObservabilityPipeline\nattributes:\n{attributes}"
    )
    return path


def refusal(tmp_path: Path, attributes: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        pipeline.load(write(tmp_path, attributes), {})
    return str(caught.value)


def test_the_default_pipeline_loads_without_any_environment() -> None:
    """A stranger's first command must not fail for a variable that is not set."""
    config = pipeline.load(pipeline_files.find().path, {})
    assert [asset_name(block) for block in config.destinations] == [
        "postgres_events",
        "s3_archive",
        "webhook_alerts",
    ]
    assert config.source.events_dir is None


def test_the_environment_fills_templates_in(tmp_path: Path) -> None:
    """``{{ env.NAME }}`` is the variable, ``{{ env('NAME', 'default') }}`` has a default."""
    path = write(
        tmp_path,
        "  source: {events_dir: \"{{ env.EVENTS }}\", name: \"{{ env('WHO', 'nobody') }}\"}\n",
    )
    config = pipeline.load(path, {"EVENTS": "/srv/events"})
    assert (str(config.source.events_dir), config.source.name) == ("/srv/events", "nobody")


@pytest.mark.parametrize(
    ("attributes", "line", "words"),
    [
        ("  sample:\n    error_rat: 1.0\n", 4, ["error_rat", "did you mean 'error_rate'"]),
        (
            "  sample:\n    adaptive_target_rate: 0.1\n",
            4,
            ["adaptive keeps adaptive_target events of each type and hour"],
        ),
        ("  sample:\n    error_rate: 7\n", 4, ["error_rate", "less than or equal to 1"]),
        (
            "  destinations:\n    - {type: s33}\n",
            4,
            [
                "type must be one of cloudwatch, datadog, elasticsearch, postgres, s3, splunk, webhook"
            ],
        ),
        (
            "  destinations:\n    - {type: s3}\n    - {type: s3}\n",
            2,
            ["s3_archive", "a name of its own"],
        ),
        (
            "  destinations:\n    - type: postgres\n      buffer_size: 100\n",
            5,
            ["buffer_size", "hours are loaded whole"],
        ),
        ("  start: yesterday\n", 3, ["start", "2025-12-04-10:00"]),
        ("  redact:\n    enabled: false\n", 3, ["allow_unredacted"]),
        ("  redact:\n    mode: blur\n", 4, ["mode", "'mask', 'hash' or 'remove'"]),
        (
            "  destinations:\n    - type: webhook\n      rules:\n        - {levels_: [error]}\n",
            6,
            ["did you mean 'levels'"],
        ),
        (
            "  redact:\n    patterns:\n      - {name: a, regex: b, validate: luhn}\n",
            5,
            ["did you mean 'validator'"],
        ),
        ("  enrich:\n    prices:\n      a: {output_usd: 1}\n", 5, ["output_usd_per_million"]),
        (
            "  enrich:\n    static_fields: {a: .nan}\n",
            4,
            ["static_fields.a", "must not be NaN"],
        ),
        (
            '  enrich:\n    static_fields: {a: ["\\0"]}\n',
            4,
            ["static_fields.a", "must not hold \\u0000"],
        ),
        ("  filter:\n    drop_levels: debug\n", 4, ["drop_levels", "must be a list"]),
        ("  destinations:\n    - type: s3\n      name: a/b\n", 5, ["name", "pattern"]),
        (
            "  destinations:\n    - {type: s3, name: raw_events}\n",
            2,
            ["'raw_events', as another asset is"],
        ),
        (
            "  destinations:\n    - {type: s3, prefix: ../other}\n",
            4,
            ["prefix", "must not have . or .."],
        ),
        ("  destinations:\n    - {type: webhook, max_age_hours: .inf}\n", 4, ["max_age_hours"]),
        ("  source:\n    type: kafka\n", 4, ["source.type", "'event-stream'"]),
        ("  retention_days: 99999999999\n", 3, ["retention_days"]),
        ("  source: {}\n  start: 2025-13-01\n", 4, ["not YAML", "month must be in 1..12"]),
        (
            '  source:\n    events_dir: "{{ env.X + 1 }}"\n',
            4,
            ["source.events_dir", "is wrong: TypeError"],
        ),
        (
            '  owners: [a]\n  source:\n    events_dir: "{{ envX }}"\n',
            5,
            ["'envX' is undefined"],
        ),
        (
            "  destinations:\n    - {type: s3}\n    - {type: s3, name: '{{ env.X'}\n",
            5,
            ["destinations.1.name", "wrong"],
        ),
    ],
)
def test_a_mistake_names_file_line_field_and_what_is_allowed(
    tmp_path: Path, attributes: str, line: int, words: list[str]
) -> None:
    """Whoever mistypes an option reads where it stands and what they meant."""
    message = refusal(tmp_path, attributes)
    assert message.startswith(f"{tmp_path / 'defs.yaml'}:{line}: ")
    for word in words:
        assert word in message


def test_a_secret_is_not_repeated_in_a_message(tmp_path: Path) -> None:
    """A wrong value may be a password in the wrong place."""
    assert "hunter2" not in refusal(
        tmp_path, "  destinations:\n    - {type: postgres, port: hunter2}\n"
    )


def test_a_file_that_is_missing_or_no_yaml_is_one_sentence(tmp_path: Path) -> None:
    """No traceback for a path that was mistyped."""
    with pytest.raises(ConfigurationError, match="cannot read the pipeline file"):
        pipeline.load(tmp_path / "nowhere.yaml", {})
    for wrong in (
        b"attributes: [",
        b"attributes: {start: caf\xe9}",
        b"attributes: {source: &a [*a]}",
    ):
        (tmp_path / "defs.yaml").write_bytes(wrong)
        with pytest.raises(
            ConfigurationError,
            match=r"defs.yaml.*: (not YAML|a value is nested too deeply)",
        ):
            pipeline.load(tmp_path / "defs.yaml", {})


def test_the_builder_takes_the_originals_names() -> None:
    """Code that configured the original reads nearly the same here."""
    config = (
        PipelineConfig.builder()
        .add_source(
            "event-stream",
            name="CortexEvents",
            events_dir="coordination/events",
            event_types=["all"],
        )
        .add_processor(
            "enricher", enrichments=["timestamp", "hostname", "performance", "context"]
        )
        .add_processor("pii-redactor", mode="mask")
        .add_processor("filter", drop_low_value=True, drop_levels=["debug"])
        .add_processor("sampler", error_rate=1.0, success_rate=0.1)
        .add_destination(
            "postgresql", name="queryable_storage", database="cortex_observability"
        )
        .add_destination("s3", bucket="cortex-observability", compression=True)
        .build()
    )
    assert [asset_name(block) for block in config.destinations] == [
        "queryable_storage",
        "s3_archive",
    ]
    with pytest.raises(
        ConfigurationError,
        match=r"Unknown destination type 'kafka'; there are cloudwatch, datadog, elasticsearch, "
        "opensearch, postgres, postgresql, s3, splunk, webhook",
    ):
        PipelineConfig.builder().add_destination("kafka")


def test_a_stages_version_changes_with_its_own_block_and_those_before_it() -> None:
    """Changing the sampler makes sampled hours stale, and leaves redacted ones alone."""
    one = pipeline.parse({"sample": {"error_rate": 1.0}})
    other = pipeline.parse({"sample": {"error_rate": 0.5}})
    same = {stage: one.version(stage) == other.version(stage) for stage in STAGES}
    assert same == {
        "raw_events": True,
        "enriched_events": True,
        "redacted_events": True,
        "sampled_events": False,
    }
    removing = pipeline.parse({"redact": {"mode": "remove"}})
    assert removing.version("sampled_events") != one.version("sampled_events")


def test_a_variable_that_looks_like_a_number_stays_the_text_that_it_is(tmp_path: Path) -> None:
    """A password ``0123`` or ``1e5`` reaches the server as it was typed."""
    path = write(
        tmp_path, '  destinations:\n    - {type: postgres, password: "{{ env.PGPASS }}"}\n'
    )
    for secret in ("0123", "12345", "1e5", "None", "{}"):
        (block,) = pipeline.load(path, {"PGPASS": secret}).destinations
        assert block.model_dump()["password"].get_secret_value() == secret
