"""What Dagster knows of the project: names that people have in scripts, lineage, words, and mistakes in YAML."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from obs_assets import definitions as code_location
from obs_assets.components import ObservabilityPipeline, pipeline_definitions
from obs_assets.components.automation import LEFT_TO_THE_SCHEDULE
from obs_assets.components.pipeline import PipelineAttributes
from obs_assets.components.project import project_definitions
from obs_assets.components.schema import schema_of
from obs_assets.errors import ConfigurationError
from obs_assets.events import LINEAGE, PROMOTED
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hours import parse_hour
from obs_assets.settings import Settings
from obs_assets.storage.engine import connect
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS
from obs_assets_tests.frames import HOUR
from obs_assets_tests.harness import PROJECT

pytestmark = DAGSTER_WARNINGS

EDGES = {
    "event_files": [],
    "landed_events": ["event_files"],
    "raw_events": ["landed_events"],
    "enriched_events": ["raw_events"],
    "redacted_events": ["enriched_events"],
    "sampled_events": ["redacted_events"],
    "postgres_events": ["sampled_events"],
    "s3_archive": ["sampled_events"],
    "webhook_alerts": ["redacted_events"],
}
FRAMES = ("raw_events", "enriched_events", "redacted_events", "sampled_events")


@pytest.fixture
def definitions(tmp_path: Path) -> dg.Definitions:
    """The project's own pipeline file, as definitions."""
    return pipeline_definitions(
        pipeline.load(pipeline_files.find().path, {}), machine=Settings(data_dir=tmp_path)
    )


def names(things: "Iterable[Any] | None") -> list[str]:
    return sorted(thing.name for thing in things or ())


SENSORS = [
    "dispatch_alerts_sensor",
    "event_file_sensor",
    "postgres_upkeep_sensor",
    "remove_expired_events_sensor",
    "stale_hour_sensor",
]


def test_no_public_name_changes_unnoticed(definitions: dg.Definitions) -> None:
    """Asset keys, jobs, the schedule and sensors are in people's scripts: renaming one breaks them."""
    assert sorted(
        key.to_user_string() for key in definitions.resolve_all_asset_keys()
    ) == sorted(EDGES)
    assert names(definitions.jobs) == [
        "dispatch_alerts",
        "hourly_pipeline",
        "land_event_files",
        "postgres_upkeep",
        "remove_expired_events",
        "replay_dead_letters",
    ]
    assert names(definitions.schedules) == ["hourly_pipeline_schedule"]
    assert names(definitions.sensors) == SENSORS
    checks = definitions.resolve_asset_graph().asset_check_keys
    assert {check.name for check in checks} == {
        "all_redacted",
        "dead_letter_share",
        "destinations_agree",
        "dispatches_move",
        "receipt_adds_up",
        "redaction_leftovers",
        "schema_drift",
        "volume",
    }
    assert {check.asset_key.to_user_string() for check in checks} == EDGES.keys() - {
        "landed_events"
    }


def test_one_lineage_leads_from_the_files_to_the_destinations(
    definitions: dg.Definitions,
) -> None:
    """Each destination hangs on the frame that it takes, and all of them on the files."""
    graph = definitions.resolve_asset_graph()
    found = {
        node.key.to_user_string(): [k.to_user_string() for k in node.parent_keys]
        for node in graph.asset_nodes
    }
    assert found == EDGES
    for name in ("postgres_events", "s3_archive", "webhook_alerts"):
        assert dg.AssetKey("event_files") in graph.get_ancestor_asset_keys(dg.AssetKey(name))


def test_an_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    """Every asset has a description, kinds and a group, and is hourly but for the files."""
    for spec in definitions.resolve_all_asset_specs():
        assert spec.description
        assert spec.description.endswith(".")
        assert spec.kinds
        assert spec.group_name in {"landing", "events", "destinations"}
        hours = spec.partitions_def
        assert isinstance(hours, dg.HourlyPartitionsDefinition) == (
            spec.key != dg.AssetKey("event_files")
        )
        if isinstance(hours, dg.HourlyPartitionsDefinition):
            first = parse_hour(hours.get_first_partition_key()).start  # nothing has landed
            assert first.hour == 0
            assert (datetime.now(UTC) - first).days in (1, 2)  # 2: midnight passed just now
            assert hours.end_offset == 1


def test_a_destination_without_news_is_overdue(definitions: dg.Definitions) -> None:
    """Dagster warns when no hour came for longer than one takes, healing included, and then calls it a failure."""
    policies = {
        spec.key.to_user_string(): spec.freshness_policy
        for spec in definitions.resolve_all_asset_specs()
    }
    overdue = {name for name, policy in policies.items() if policy}
    assert overdue == {"postgres_events", "s3_archive", "webhook_alerts"}
    for name in overdue:
        policy = policies[name]
        assert isinstance(policy, TimeWindowFreshnessPolicy)
        assert policy.warn_window
        late = timedelta(hours=1) + LEFT_TO_THE_SCHEDULE
        assert late < policy.warn_window.to_timedelta() < policy.fail_window.to_timedelta()


def test_a_frame_says_what_its_columns_are(definitions: dg.Definitions) -> None:
    """Name, type and meaning of every column, in the order in which they stand in the file."""
    more = {
        "raw_events": ["event_file", "collector"],
        "redacted_events": ["redactions"],
        "sampled_events": ["weight"],
    }
    for name in FRAMES:
        schema = (
            definitions.resolve_asset_graph()
            .get(dg.AssetKey(name))
            .metadata["dagster/column_schema"]
        )
        assert [column.name for column in schema.columns] == [
            *LINEAGE,
            *PROMOTED,
            *more.get(name, []),
            "event",
        ]
        assert all(column.type and column.description for column in schema.columns)


def test_the_column_schema_is_true(tmp_path: Path) -> None:
    """The columns of the catalogue are those of the frames on disk, in order."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    config = harness.everything_kept(tmp_path / "events")
    hourly = HourlyPipeline(config, Settings(data_dir=tmp_path / "data"))
    hourly.land()
    described = pipeline_definitions(config, machine=hourly.settings).resolve_asset_graph()
    with connect(hourly.store.temp_dir) as connection:
        for stage in pipeline.STAGES:
            hourly.build(stage, HOUR)
            schema = described.get(dg.AssetKey(stage)).metadata["dagster/column_schema"]
            columns = hourly.store.read_frame(connection, stage, HOUR).columns
            assert columns == [column.name for column in schema.columns]


def test_jobs_schedules_and_sensors_say_what_they_are_for(definitions: dg.Definitions) -> None:
    """Whoever opens the UI's automation page reads sentences."""
    for thing in [
        *(definitions.jobs or ()),
        *(definitions.schedules or ()),
        *(definitions.sensors or ()),
    ]:
        assert getattr(thing, "description", None)


def test_a_second_pipeline_has_names_of_its_own(
    definitions: dg.Definitions, tmp_path: Path
) -> None:
    """Two pipelines in one code location do not meet: keys, jobs, schedule and sensors carry the second one's name."""
    config = pipeline.load(pipeline_files.find().path, {})
    second = pipeline_definitions(config, "audit", Settings(data_dir=tmp_path))
    both = dg.Definitions.merge(definitions, second)
    dg.Definitions.validate_loadable(both)
    keys = {key.to_user_string() for key in both.resolve_all_asset_keys()}
    assert keys == EDGES.keys() | {f"audit/{name}" for name in EDGES}
    jobs = [
        "dispatch_alerts",
        "hourly_pipeline",
        "land_event_files",
        "postgres_upkeep",
        "remove_expired_events",
        "replay_dead_letters",
    ]
    assert names(second.jobs) == [f"audit_{job}" for job in jobs]
    assert names(second.schedules) == ["audit_hourly_pipeline_schedule"]
    assert names(second.sensors) == [f"audit_{sensor}" for sensor in SENSORS]
    groups = {spec.group_name for spec in second.resolve_all_asset_specs()}
    assert groups == {"audit_landing", "audit_events", "audit_destinations"}


def test_destinations_are_what_the_file_names(tmp_path: Path) -> None:
    """A name is the asset's name, a disabled destination is none, and `from` decides what it hangs on."""
    config = pipeline.parse(
        {
            "destinations": [
                {"type": "s3", "name": "everything", "from": "redacted"},
                {"type": "s3"},
                {"type": "postgresql", "enabled": False},
            ]
        }
    )
    graph = pipeline_definitions(
        config, machine=Settings(data_dir=tmp_path)
    ).resolve_asset_graph()
    parents = {
        key.to_user_string(): graph.get(key).parent_keys
        for key in graph.materializable_asset_keys
    }
    assert parents.keys() == {*FRAMES, "everything", "s3_archive"}
    assert parents["everything"] == {dg.AssetKey("redacted_events")}


# -- mistakes in YAML --------------------------------------------------------------------------------------------------

MISTAKES = """\
type: obs_assets.components.ObservabilityPipeline
attributes:
  sample:
    success_rate: 0.5
    error_rat: 1.0
  redact: {mode: blur}
  destinations:
    - {type: s33, prefix: archive}
    - type: postgres
      port: "{{ env('PORT', '5432') }}"
      retention_days: soon
"""


def violations(attributes: dict[str, Any]) -> list[tuple[str, str]]:
    """Where and what `dg check yaml` finds wrong."""
    errors = Draft202012Validator(schema_of(PipelineConfig)).iter_errors(attributes)
    return [(".".join(map(str, error.absolute_path)), error.message) for error in errors]


def test_the_schema_takes_what_pipelines_say() -> None:
    """The project's own file, null, templates instead of numbers and words, and every option's default are right."""
    own = yaml.safe_load(pipeline_files.find().path.read_text())["attributes"]
    assert violations(own) == []
    assert violations(json.loads(PipelineConfig().model_dump_json(exclude={"source"}))) == []
    templates = {
        "allowed_lateness_minutes": "{{ env.LATENESS }}",
        "redact": {"mode": "{{ env('MODE', 'mask') }}"},
        "sample": {"type_rates": {"task": "{{ env.RATE }}"}, "deterministic_key": None},
        "destinations": [
            {
                "type": "postgresql",
                "port": "{{ env.PORT }}",
                "filter": None,
                "retention_days": None,
            }
        ],
    }
    assert violations(templates) == []


@pytest.mark.parametrize(
    ("attributes", "where", "words"),
    [
        (
            {"destinations": [{"type": "s33"}]},
            "destinations.0.type",
            ["'s33'", "'postgres'", "'s3'", "'webhook'"],
        ),
        (
            {"destinations": [{"prefix": "x"}]},
            "destinations.0",
            ["'type' is a required property"],
        ),
        (
            {"destinations": [{"type": "s3", "prefx": "x"}]},
            "destinations.0",
            ["'prefx'", "'prefix'"],
        ),
        ({"redact": {"mode": "blur"}}, "redact.mode", ["'mask'", "'hash'", "'remove'"]),
        ({"sample": {"error_rate": 7}}, "sample.error_rate", ["7", "maximum of 1"]),
        (
            {"sample": {"type_rates": {"task": 2}}},
            "sample.type_rates.task",
            ["2", "maximum of 1"],
        ),
        (
            {"allowed_lateness_minutes": "soon"},
            "allowed_lateness_minutes",
            ["'soon' is not of type 'integer'"],
        ),
        (
            {"enrich": {"prices": {"m": {"input_usd_per_m": 1}}}},
            "enrich.prices.m",
            ["'output_usd_per_million'"],
        ),
        ({"enrich": {"prices": 3}}, "enrich.prices", ["3 is not of type 'object'"]),
        ({"filtr": {}}, "", ["'filtr'", "'filter'"]),
    ],
)
def test_a_violation_names_the_field_and_what_is_allowed(
    attributes: dict[str, Any], where: str, words: list[str]
) -> None:
    """Never only "not valid under any of the given schemas"."""
    found = violations(attributes)
    assert all("any of the given schemas" not in message for _, message in found)
    assert any(
        place == where and all(word in message for word in words) for place, message in found
    )


def test_every_option_is_explained() -> None:
    """Editors and the UI show what an option is for: it stands in the docstring of its block."""
    schema = schema_of(PipelineConfig)
    blocks = [schema, *(block for block in schema["$defs"].values() if "properties" in block)]
    silent = {
        name
        for block in blocks
        for name, option in block["properties"].items()
        if "description" not in option
    }
    assert silent == set()
    assert not any("Attributes:" in block["description"] for block in blocks)
    assert PipelineAttributes.model_json_schema() == schema


def test_the_component_reads_its_file_as_the_command_line_does(tmp_path: Path) -> None:
    """A mistake is answered with file, line, field and the nearest known option, and no value is repeated."""
    (folder := tmp_path / "pipeline").mkdir()
    (folder / "defs.yaml").write_text(MISTAKES)
    with pytest.raises(ConfigurationError) as caught:
        ObservabilityPipeline.load(None, SimpleNamespace(path=folder))  # type: ignore[arg-type]
    lines = sorted(str(caught.value).splitlines(), key=lambda line: int(line.split(":")[1]))
    file = folder / "defs.yaml"
    assert (
        lines[0] == f"{file}:5: sample: unknown option 'error_rat'; did you mean 'error_rate'?"
    )
    assert lines[1].startswith(f"{file}:6: redact.mode: ")
    assert (
        lines[2]
        == f"{file}:8: destinations.0: type must be one of cloudwatch, datadog, elasticsearch, postgres, "
        "s3, splunk, webhook"
    )
    assert lines[3].startswith(f"{file}:11: destinations.1.retention_days: ")
    assert "soon" not in lines[3]


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["dg check yaml", "dg check defs", "dagster definitions validate"]
)
def test_the_project_passes_dagsters_own_checks(command: str, settings: Settings) -> None:
    """The present commands and the older ones, from the project's folder."""
    done = harness.run(*command.split(), env=harness.environment(settings))
    assert done.code == 0, done.said
    assert "successful" in done.said


@pytest.fixture
def copy_of_project(tmp_path: Path) -> Iterator[Path]:
    """The project's package in a folder that a test may change."""
    folder = tmp_path / "project"
    shutil.copytree(
        PROJECT / "obs_assets",
        folder / "obs_assets",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(PROJECT / "pyproject.toml", folder)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_dg_names_the_line_of_a_mistake(settings: Settings, copy_of_project: Path) -> None:
    """`dg check yaml` and `dagster definitions validate` name file, line, field and the allowed values."""
    file = copy_of_project / "obs_assets" / "defs" / "agents" / "defs.yaml"
    file.write_text(MISTAKES)
    env = harness.environment(settings, PYTHONPATH=str(copy_of_project))
    checked = harness.run("dg", "check", "yaml", env=env, cwd=copy_of_project)
    assert checked.code == 1
    for line, words in {
        5: "attributes.sample.error_rat Additional properties are not allowed ('error_rat' was unexpected)",
        6: "attributes.redact.mode 'blur' is not one of ['mask', 'hash', 'remove']",
        8: "attributes.destinations.0.type 's33' is not one of ['postgres', 'postgresql', 's3',",
        11: "attributes.destinations.1.retention_days 'soon' is not of type 'integer'",
    }.items():
        assert (
            f"{file}:{line} - obs_assets.components.ObservabilityPipeline {words}"
            in checked.out
        )
    assert (
        "'error_rat' is not one of ['adaptive_target', 'default_rate', 'deterministic_key', 'enabled', 'error_rate'"
        in checked.out
    )

    validated = harness.run("dagster", "definitions", "validate", env=env, cwd=copy_of_project)
    assert validated.code == 1
    assert (
        f"{file}:5: sample: unknown option 'error_rat'; did you mean 'error_rate'?"
        in validated.said
    )


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    """A folder of one's own with two pipelines, the example and one more."""
    folder = tmp_path / "own"
    for name in ("agents", "audit"):
        shutil.copytree(pipeline_files.PACKAGED_DIR / "agents", folder / name)
    audit = folder / "audit" / "defs.yaml"
    for old, new in {
        'asset_prefix: ""': "asset_prefix: audit",
        "cortex-events": "audit",
        ": events,": ": audit,",
    }.items():
        audit.write_text(audit.read_text().replace(old, new))
    return folder


def project(pipelines: Path) -> dg.Definitions:
    """All of a folder, as the code location loads it."""
    return project_definitions(
        {"OBS_PIPELINES_DIR": str(pipelines), "OBS_DATA_DIR": str(pipelines / "data")}
    )


@pytest.mark.slow
def test_another_folder_is_another_pipeline(pipelines: Path) -> None:
    """A second `defs.yaml` needs no code: its assets and jobs are there, under its folder's name."""
    found = project(pipelines)
    dg.Definitions.validate_loadable(found)
    jobs = {
        "land_event_files",
        "hourly_pipeline",
        "audit_land_event_files",
        "audit_hourly_pipeline",
    }
    assert jobs <= set(names(found.jobs))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ("{sample: {success_rat: 1}}", "did you mean 'success_rate'?"),
        ("{owners: [no address]}", "an owner is an e-mail address or team:name"),
        ("[", "not YAML"),
        ('{asset_prefix: ""}', "has the name or asset_prefix pipeline already"),
    ],
)
def test_a_broken_pipeline_takes_no_other_down(
    pipelines: Path, attributes: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is in the log of the code location, on an asset, and in each tick of a sensor until it is mended."""
    file = pipelines / "audit" / "defs.yaml"
    right = file.read_text()
    file.write_text(
        f"type: obs_assets.components.ObservabilityPipeline\nattributes: {attributes}\n"
    )
    found = project(pipelines)
    dg.Definitions.validate_loadable(found)
    assert {"land_event_files", "hourly_pipeline"} <= set(names(found.jobs))
    assert not any(name.startswith("audit") for name in names(found.jobs))
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith("the pipeline audit is not loaded: ")
    assert words in said
    (spec,) = [spec for spec in found.resolve_all_asset_specs() if spec.key.path[0] == "audit"]
    assert spec.key.path == ["audit", "pipeline_file"]
    assert words in (spec.description or "")
    sensor = found.resolve_sensor_def("pipeline_file_sensor")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    with pytest.raises(dg.Failure, match=re.escape(words)):
        sensor(dg.build_sensor_context())
    file.write_text(right)
    skipped = sensor(dg.build_sensor_context())
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == f"changed since the code was loaded: {file}"


def test_if_no_pipeline_is_right_the_code_location_is_an_error(pipelines: Path) -> None:
    """Every mistake is told, with its file."""
    for name in ("agents", "audit"):
        (pipelines / name / "defs.yaml").write_text(MISTAKES)
    with pytest.raises(ConfigurationError) as caught:
        project(pipelines)
    for name in ("agents", "audit"):
        assert f"{pipelines}/{name}/defs.yaml:5: sample: unknown option 'error_rat'" in str(
            caught.value
        )


def test_the_ui_explains_the_component() -> None:
    """The page of components shows ours: Dagster finds it by the package's entry point."""
    listed = project_definitions({}).metadata or {}
    told = listed["plugin_component_types_json"].value
    assert isinstance(told, list)
    assert "obs_assets.components.ObservabilityPipeline" in json.dumps(told)


def test_a_process_makes_its_definitions_once() -> None:
    """Dagster asks for the definitions seven times in a run; the pipeline files are read the first time."""
    first = code_location.defs()
    assert code_location.defs() is first
