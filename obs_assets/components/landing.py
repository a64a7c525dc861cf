"""Two external assets, for the event files and the landed events, and the jobs that land events."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from logging import Logger

import dagster as dg

from obs_assets.audit.checks import Finding, dead_letter_share
from obs_assets.components.cancel import in_process, in_thread
from obs_assets.components.keys import Naming
from obs_assets.components.metadata import landing_metadata
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import parse_hour
from obs_assets.sources.landing import LandingReport

LANDING_CHECK = "dead_letter_share"
"""Name of the check that each landing pass evaluates."""


def landing_assets(naming: Naming) -> list[dg.AssetSpec]:
    """``event_files`` and ``landed_events``, where the lineage starts."""
    # External assets, which Dagster cannot materialize: a pass lands events of any hour.
    files = dg.AssetSpec(
        naming.key("event_files"),
        description=(
            "The event files themselves: JSON lines that programs append to, rotate and compress."
        ),
        group_name=naming.group("landing"),
        kinds={"file", "json"},
        owners=naming.owners,
    )
    landed = dg.AssetSpec(
        naming.key("landed_events"),
        deps=[files],
        partitions_def=naming.hours,
        description=(
            "The landed events of an hour, by event time: each event's own bytes with file, byte "
            "offset, landing time and host. The landing generation grows whenever the hour gets "
            "bytes. A record that cannot be read is a dead letter."
        ),
        group_name=naming.group("landing"),
        kinds={"parquet"},
        owners=naming.owners,
    )
    return [files, landed]


def landing_job(hourly: HourlyPipeline, naming: Naming) -> dg.JobDefinition:
    """The job ``land_event_files``: lands new events, and reports each hour that got events."""
    max_passes = dg.Field(
        int,
        is_required=False,
        description="Largest number of passes; by default, passes until no file is left",
    )

    @dg.op(
        name=naming.job("land"),
        out=dg.Out(dg.Nothing),
        config_schema={"max_passes": max_passes},
    )
    def land(context: dg.OpExecutionContext) -> None:
        warned: set[str] = set()
        for number in itertools.count(1):
            report = in_thread(hourly.land)
            _log(context.log, hourly.source.events_dir, report, warned)
            warned.update(report.warnings)
            # The job has no step of the asset `event_files` that could yield the result of its check.
            _report_check(context.instance, hourly, naming, report)
            for event in _events(hourly, naming, report):
                context.log_event(event)
            if not report.files_left or number == context.op_config.get("max_passes"):
                return

    @dg.job(
        name=naming.job("land_event_files"),
        description="Lands the new events of the event files, split into hours. Harmless to repeat.",
        executor_def=in_process,
    )
    def land_event_files() -> None:
        land()

    return land_event_files


def _log(log: Logger, folder: object, report: LandingReport, warned: Collection[str]) -> None:
    """Log a landing pass; warnings in ``warned`` were logged by an earlier pass of the run."""
    log.info(_sentence(report))
    if report.notice:
        log.warning(report.notice)
    for reason, count in report.warnings.items():
        if reason not in warned:
            files = _listed(report.files_warned.get(reason, ()))
            log.warning(
                "passed over in %s (OBS_EVENTS_DIR): %s, %d times%s",
                folder,
                reason,
                count,
                files,
            )
    if report.remarks:
        log.info("remarks of pass %s: %s", report.number, _counted(report.remarks))
    if report.dead_letters:
        log.warning("dead letters of pass %s: %s", report.number, _counted(report.dead_letters))


def replay_job(hourly: HourlyPipeline, naming: Naming) -> dg.JobDefinition:
    """The job ``replay_dead_letters``: ``obs dead-letters replay``, and reports each hour that got events."""
    fields = {
        "reason": dg.Field(
            str,
            is_required=False,
            description="Only dead letters with this reason",
        ),
        "event_file": dg.Field(
            str,
            is_required=False,
            description="Only dead letters of this file",
        ),
    }

    @dg.op(name=naming.job("replay"), out=dg.Out(dg.Nothing), config_schema=fields)
    def replay(context: dg.OpExecutionContext) -> None:
        chosen = context.op_config
        try:
            report = in_thread(
                lambda: hourly.replay(chosen.get("reason"), chosen.get("event_file"))
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
        description=(
            "Reads dead letters again. Lands each event that can be read now, exactly once."
        ),
        executor_def=in_process,
    )
    def replay_dead_letters() -> None:
        replay()

    return replay_dead_letters


def pass_check(hourly: HourlyPipeline, naming: Naming) -> dg.AssetChecksDefinition:
    """A check of ``event_files``: the share of dead letters of the last landing pass that read bytes.

    Each pass evaluates it by itself; this definition adds the button in the UI.
    """

    @dg.asset_check(
        asset=naming.key("event_files"),
        name=LANDING_CHECK,
        description="At most a small part of the records of the last landing pass are dead letters.",
    )
    def dead_letters_of_pass() -> dg.AssetCheckResult:
        dead, events = hourly.log.last_counts()
        finding = _finding(hourly, dead, events)
        return dg.AssetCheckResult(
            passed=finding.passed,
            # Never ERROR: the other events of the pass are good, and their hours can be built.
            severity=dg.AssetCheckSeverity.WARN,
            description=finding.sentence,
            metadata=dict(finding.facts),
        )

    return dead_letters_of_pass


def _report_check(
    instance: dg.DagsterInstance,
    hourly: HourlyPipeline,
    naming: Naming,
    report: LandingReport,
) -> None:
    if report.number is None:
        return
    dead = sum(report.dead_letters.values())
    events = sum(report.hours.values())
    finding = _finding(hourly, dead, events)
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
    where = "records of the last landing pass"
    command = hourly.command("obs dead-letters list")
    return dead_letter_share(dead, dead + events, limit, where, command)


def _listed(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    return f": {', '.join(paths)}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _sentence(report: LandingReport) -> str:
    if report.number is None:
        return f"nothing new in {report.files_listed:,} files"
    events = sum(report.hours.values())
    dead = sum(report.dead_letters.values())
    left = ""
    if report.files_left:
        left = f"; {report.files_left:,} files are left for the next pass"
    return (
        f"pass {report.number}: {events:,} events of {len(report.hours)} hours and "
        f"{dead:,} dead letters from {report.bytes_read:,} bytes in "
        f"{report.files_read:,} of {report.files_listed:,} files{left}"
    )


def _events(
    hourly: HourlyPipeline,
    naming: Naming,
    report: LandingReport,
) -> list[dg.AssetObservation | dg.AssetMaterialization]:
    """An observation of the files; then an observation and a materialization of each hour that got events.

    Dagster takes the data version of ``landed_events`` from the observation, and shows the hour as
    materialized because of the materialization.
    """
    landed = hourly.landed()
    events: list[dg.AssetObservation | dg.AssetMaterialization] = [
        dg.AssetObservation(
            naming.key("event_files"), metadata=landing_metadata(report, landed)
        )
    ]
    for hour, rows in report.hours.items():
        total = landed.hours[hour]
        # The data version lets Dagster's own views show stages as out of date after late events.
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
