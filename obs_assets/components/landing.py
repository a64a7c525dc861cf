"""The files and what has landed of them: two external assets, and the job that reports on them."""

import itertools
from collections.abc import Mapping, Sequence

import dagster as dg

from obs_assets.audit.checks import Finding, dead_letter_share
from obs_assets.components.cancel import in_process
from obs_assets.components.keys import Naming
from obs_assets.components.metadata import landing_metadata
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import parse_hour
from obs_assets.sources.landing import LandingReport

LANDING_CHECK = "dead_letter_share"
"""Name of the check that each landing pass evaluates."""


def landing_assets(naming: Naming) -> list[dg.AssetSpec]:
    """Where the lineage starts."""
    files = dg.AssetSpec(
        naming.key("event_files"),
        description="The event files themselves: JSON lines that programs append to, rotate and compress.",
        group_name=naming.group("landing"),
        kinds={"file", "json"},
        owners=naming.owners,
    )
    landed = dg.AssetSpec(
        naming.key("landed_events"),
        deps=[files],
        partitions_def=naming.hours,
        description=(
            "What has landed for an hour, by event time: each event's own bytes with file, byte offset, landing time "
            "and host. The landing generation grows whenever the hour gets bytes. What cannot be read is a dead letter."
        ),
        group_name=naming.group("landing"),
        kinds={"parquet"},
        owners=naming.owners,
    )
    return [files, landed]


def landing_job(hourly: HourlyPipeline, naming: Naming) -> dg.JobDefinition:
    """The job ``land_event_files``: one pass over the files, reported hour by hour."""

    @dg.op(
        name=naming.job("land"),
        out=dg.Out(dg.Nothing),
        config_schema={
            "max_passes": dg.Field(
                int, is_required=False, description="At most; by default all that it takes"
            )
        },
    )
    def land(context: dg.OpExecutionContext) -> None:
        said: set[str] = set()
        for number in itertools.count(1):
            report = hourly.land()
            context.log.info(_sentence(report))
            for reason, count in report.warnings.items():
                if reason not in said:
                    folder = hourly.source.events_dir
                    context.log.warning(
                        "passed over in %s (OBS_EVENTS_DIR): %s, %d times%s",
                        folder,
                        reason,
                        count,
                        _named(report.files_warned.get(reason, ())),
                    )
            said.update(report.warnings)
            if report.remarks:
                context.log.info(
                    "remarks of pass %s: %s", report.number, _counted(report.remarks)
                )
            if report.dead_letters:
                context.log.warning(
                    "dead letters of pass %s: %s", report.number, _counted(report.dead_letters)
                )
            _report_check(context.instance, hourly, naming, report)
            for event in _events(hourly, naming, report):
                context.log_event(event)
            if not report.files_left or number == context.op_config.get("max_passes"):
                return

    @dg.job(
        name=naming.job("land_event_files"),
        description="Lands everything new in the event files, split into hours. Harmless to repeat.",
        executor_def=in_process,
    )
    def land_event_files() -> None:
        land()

    return land_event_files


def replay_job(hourly: HourlyPipeline, naming: Naming) -> dg.JobDefinition:
    """The job ``replay_dead_letters``: what ``obs dead-letters replay`` does, and the hours that got events show it."""

    @dg.op(
        name=naming.job("replay"),
        out=dg.Out(dg.Nothing),
        config_schema={
            "reason": dg.Field(
                str, is_required=False, description="Only letters with this reason"
            ),
            "event_file": dg.Field(
                str, is_required=False, description="Only those of this file"
            ),
        },
    )
    def replay(context: dg.OpExecutionContext) -> None:
        try:
            report = hourly.replay(
                context.op_config.get("reason"), context.op_config.get("event_file")
            )
        except ObsError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        if report.number is None:
            context.log.info("none of the dead letters can be read")
            return
        context.log.info(_sentence(report))
        for event in _events(hourly, naming, report):
            context.log_event(event)

    @dg.job(
        name=naming.job("replay_dead_letters"),
        description="Reads dead letters once more and lands what can be read now, exactly once.",
        executor_def=in_process,
    )
    def replay_dead_letters() -> None:
        replay()

    return replay_dead_letters


def pass_check(hourly: HourlyPipeline, naming: Naming) -> dg.AssetChecksDefinition:
    """The share of dead letters of the last landing pass that read anything, as a check of the files.

    Each pass evaluates it; this is for the button in the UI.
    """

    @dg.asset_check(
        asset=naming.key("event_files"),
        name=LANDING_CHECK,
        description="No more than a small part of what the last landing pass read is a dead letter.",
    )
    def dead_letters_of_pass() -> dg.AssetCheckResult:
        dead, events = hourly.log.last_counts()
        finding = _finding(hourly, dead, events)
        return dg.AssetCheckResult(
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=finding.sentence,
            metadata=dict(finding.facts),
        )

    return dead_letters_of_pass


def _report_check(
    instance: dg.DagsterInstance, hourly: HourlyPipeline, naming: Naming, report: LandingReport
) -> None:
    if report.number is None:
        return
    finding = _finding(hourly, sum(report.dead_letters.values()), sum(report.hours.values()))
    evaluation = dg.AssetCheckEvaluation(
        asset_key=naming.key("event_files"),
        check_name=LANDING_CHECK,
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=finding.sentence,
        metadata=dict(finding.facts),
    )
    instance.report_runless_asset_event(evaluation)


def _finding(hourly: HourlyPipeline, dead: int, events: int) -> Finding:
    limit = hourly.config.checks.dead_letter_share
    return dead_letter_share(dead, dead + events, limit, "records of the last landing pass")


def _named(paths: Sequence[str]) -> str:
    return f": {', '.join(paths)}" if paths else ""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _sentence(report: LandingReport) -> str:
    if report.number is None:
        return f"nothing new in {report.files_listed:,} files"
    dead = sum(report.dead_letters.values())
    return (
        f"pass {report.number}: {sum(report.hours.values()):,} events of {len(report.hours)} hours and {dead:,} dead "
        f"letters from {report.bytes_read:,} bytes in {report.files_read:,} of {report.files_listed:,} files"
        + (
            f"; {report.files_left:,} files are left for the next pass"
            if report.files_left
            else ""
        )
    )


def _events(
    hourly: HourlyPipeline, naming: Naming, report: LandingReport
) -> list[dg.AssetObservation | dg.AssetMaterialization]:
    """Observation, then materialization of each hour that got bytes: staleness downstream reads the observation."""
    landed = hourly.landed()
    events: list[dg.AssetObservation | dg.AssetMaterialization] = [
        dg.AssetObservation(
            naming.key("event_files"), metadata=landing_metadata(report, landed)
        )
    ]
    for hour, rows in report.hours.items():
        total = landed.hours[hour]
        tags = {"dagster/data_version": landed.version(parse_hour(hour)).landing}
        metadata = {
            "events now": rows,
            "dagster/partition_row_count": total.rows,
            "landing generation": total.generation,
        }
        key = naming.key("landed_events")
        events.append(dg.AssetObservation(key, partition=hour, tags=tags, metadata=metadata))
        events.append(
            dg.AssetMaterialization(key, partition=hour, tags=tags, metadata=metadata)
        )
    return events
