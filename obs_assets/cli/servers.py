"""``obs up``, ``down``, ``status``: the embedded servers, and the state of a pipeline."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from obs_assets import embedded, settings
from obs_assets.audit.last_day import last_day
from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.delivery import kinds
from obs_assets.destinations.base import DestinationConfig
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.present import restart_reason
from obs_assets.hours import parse_hour


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start the embedded PostgreSQL and S3 server; print their addresses."""
    machine = settings.load()
    for server in kinds.servers():
        # To find an embedded server starts it.
        server.find(machine)
    _print_servers(machine.data_dir, as_json)


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop the embedded servers; data is kept."""
    stopped = embedded.stop(settings.load().data_dir, kinds.servers())
    if as_json:
        print_json({"stopped": stopped})
    elif stopped:
        out.print(f"stopped {', '.join(stopped)}")
    else:
        out.print("no embedded server was running")


@app.command()
def status(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Show files and events that have landed, events of the last day, stale hours, tables and servers."""
    hourly = hourly_pipeline(pipeline_name)
    landed = hourly.landed()
    # The last pass that looked at the folder, also if it found no new event.
    looked_at = hourly.log.looked_at()
    finished = "none yet"
    if looked_at:
        finished = looked_at.isoformat(timespec="seconds")
    # The time at which each reason was first seen is left out here.
    letters = {reason: count for reason, (count, _) in landed.letters.items()}
    facts = {
        "events folder": str(hourly.source.events_dir or "not set: OBS_EVENTS_DIR"),
        "passed over": _passed_over(hourly),
        "data folder": str(hourly.settings.data_dir),
        "last landing pass": finished,
        "files landed": len(landed.files),
        "hours landed": len(landed.hours),
        "events landed": sum(hour.rows for hour in landed.hours.values()),
        "dead letters": _counted(letters),
        "remarks": _counted(landed.remarks),
        **_staleness(hourly),
        **_breakers(hourly),
    }
    first_hour = hourly.config.first_hour
    if before_start := sum(parse_hour(key) < first_hour for key in landed.hours):
        facts["hours before start"] = (
            f"{before_start:,}, left alone: they landed before `start` was moved"
        )
    restart = restart_reason(hourly.settings.data_dir)
    if restart:
        facts["to restart"] = restart
    day = last_day(hourly)
    tables = _tables(hourly)
    if as_json:
        servers = [asdict(server) for server in _servers(hourly.settings.data_dir)]
        print_json({**facts, "last day": asdict(day), "tables": tables, "servers": servers})
        return
    for name, value in facts.items():
        out.print(f"{name:>18}  {_plain(value)}", highlight=False)
    # The heading stands in front of the first line only.
    heading = "last day"
    for line in day.lines():
        out.print(f"{heading:>18}  {line}", highlight=False)
        heading = ""
    for key, health in tables.items():
        line = ", ".join(f"{name} {_plain(value)}" for name, value in health.items())
        out.print(f"{key:>18}  {line}", highlight=False)
    _print_servers(hourly.settings.data_dir, as_json=False)


def _counted(counts: Mapping[str, int]) -> str:
    """``time_missing 1,204, format_otlp 80``: most first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ranked) or "none"


def _plain(value: Any) -> str:
    """A value as text; whole numbers with separators, for example ``1,234``."""
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _tables(hourly: HourlyPipeline) -> dict[str, dict[str, Any]]:
    """Destination → health of its table of events; empty if a server of these tables does not run.

    No server is started.
    """
    # Asking would start an embedded server: `obs status` must change nothing.
    if not all(_is_there(hourly, config) for config in hourly.enabled("has_tables")):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, table in hourly.tables().items():
        try:
            health = table.health()
        except ObsError as error:
            # A table that cannot be read must not hide the state of the others.
            found[name] = {"problem": str(error)}
            continue
        found[name] = {"table": "does not exist yet"}
        if health:
            found[name] = health.facts()
    return found


def _passed_over(hourly: HourlyPipeline) -> str:
    """The files of the events folder that are not read, or why they are not known."""
    try:
        return hourly.listing().passed_over or "nothing"
    except ObsError as error:
        return f"not known: {error}"


def _staleness(hourly: HourlyPipeline) -> dict[str, int | str]:
    """Number of stale hours, or why it is not known; and which hours belong to another data folder.

    No server is started, and a server that does not answer is no error.
    """
    if not all(_is_there(hourly, config) for config in hourly.config.enabled_destinations):
        return {"stale hours": "not known while the embedded servers are down: obs up"}
    staleness = hourly.staleness()
    facts: dict[str, int | str] = {"stale hours": len(staleness.missing)}
    # Without the hours of an unreachable destination, the number would be too low.
    if staleness.unreachable:
        # Two destinations on the same server give the same reason.
        reasons = dict.fromkeys(staleness.unreachable.values())
        facts["stale hours"] = f"not known: {'; '.join(reasons)}"
    for name, hours in staleness.lent.items():
        if hours:
            holder = hourly.holder(name, min(hours))
            facts["held elsewhere"] = f"{len(hours):,} hours of {name} are held by {holder}"
    if staleness.elsewhere:
        facts["another folder's"] = staleness.sentence_elsewhere()
    return facts


def _breakers(hourly: HourlyPipeline) -> dict[str, str]:
    """Since when and why destinations get no hours; empty if all get them. No server is asked."""
    resting = hourly.resting(hourly.clock())
    if not resting:
        return {}
    return {"breakers": "; ".join(f"{name} {sentence}" for name, sentence in resting.items())}


def _is_there(hourly: HourlyPipeline, config: DestinationConfig) -> bool:
    """Whether a destination can be asked without starting an embedded server for it."""
    server = kinds.kind_of(config).server_of(config)
    if server is None or not server.is_embedded(hourly.settings):
        return True
    (found,) = embedded.status(hourly.settings.data_dir, [server])
    return found.running


def _servers(data_dir: Path) -> list[embedded.ServerStatus]:
    return embedded.status(data_dir, kinds.servers())


def _print_servers(data_dir: Path, as_json: bool) -> None:
    servers = _servers(data_dir)
    if as_json:
        print_json([asdict(server) for server in servers])
        return
    for server in servers:
        state = "not running"
        if server.running:
            state = f"running at {server.address} (pid {server.pid})"
        out.print(f"{server.name:>18}  {state}", highlight=False)
