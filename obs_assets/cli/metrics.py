"""``obs metrics``: how far behind the pipeline is and what became of its events, for Prometheus."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, print_json
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import parse_hour
from obs_assets.receipts import Receipt
from obs_assets.storage.disk import replacing

HELP = {
    "obs_landing_age_seconds": "Since the last finished landing pass began.",
    "obs_landed_partitions": "Hours that have landed.",
    "obs_landed_events": "Events that have landed.",
    "obs_dead_letters": "What could not be read, by reason.",
    "obs_lag_seconds": "From the end of the newest hour of a stage or destination to now.",
    "obs_events": "Events of all hours, by stage or destination, and what became of them.",
    "obs_missing_partitions": "Closed hours that a destination does not hold as they have landed.",
    "obs_destination_up": "Whether a destination could be asked.",
    "obs_dispatches": "Webhook dispatches by state.",
}
"""Every metric is a gauge: it is read from what is there, and a rebuilt hour counts once."""

Samples = list[tuple[str, Mapping[str, str], float]]


@app.command()
def metrics(
    textfile: Annotated[
        Path | None, typer.Option("--textfile", help="Write there, whole or not at all, for node_exporter's collector.")
    ] = None,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Print lag, missing hours, events, drops by reason and dispatches in the format of Prometheus."""
    samples = measure(hourly_pipeline(pipeline_name), datetime.now(UTC))
    if as_json:
        print_json([{"metric": name, "labels": dict(labels), "value": value} for name, labels, value in samples])
    elif textfile:
        with replacing(textfile.absolute()) as aside:
            aside.write_text(exposition(samples))
        textfile.chmod(0o644)  # it holds counts only, and the collector is somebody else
    else:
        typer.echo(exposition(samples), nl=False)


def measure(hourly: HourlyPipeline, now: datetime) -> Samples:
    """Every metric's samples; a destination that cannot be asked is down, and that is all that is known of it."""
    of = {"pipeline": hourly.name}
    landed = hourly.landed()
    looked_at = hourly.log.looked_at()
    samples: Samples = [
        ("obs_landed_partitions", of, len(landed.hours)),
        ("obs_landed_events", of, sum(hour.rows for hour in landed.hours.values())),
    ]
    if looked_at:
        samples.append(("obs_landing_age_seconds", of, (now - looked_at).total_seconds()))
    reasons: dict[str, int] = {}
    for _, reason, letters, *_ in hourly.dead_letters():
        reasons[reason] = reasons.get(reason, 0) + letters
    samples += [("obs_dead_letters", {**of, "reason": reason}, count) for reason, count in sorted(reasons.items())]
    if landed.hours:
        newest = parse_hour(max(landed.hours))
        samples.append(("obs_lag_seconds", {**of, "stage": "landed_events"}, (now - newest.end).total_seconds()))
    for stage in (*STAGES, *hourly.destination_names):
        samples += _of_stage(hourly, stage, now)
    return samples + _of_destinations(hourly)


def _of_stage(hourly: HourlyPipeline, stage: str, now: datetime) -> Samples:
    labels = {"pipeline": hourly.name, "stage": stage}
    receipts = [Receipt.from_json(path.read_text()) for path in sorted(hourly.store.receipt_dir(stage).glob("*.json"))]
    if not receipts:
        return []
    outcomes: dict[str, int] = {"kept": 0}
    for receipt in receipts:
        outcomes["kept"] += receipt.kept
        for reason, count in receipt.other.items():
            outcomes[reason] = outcomes.get(reason, 0) + count
    newest = parse_hour(max(receipt.hour for receipt in receipts))
    return [
        ("obs_lag_seconds", labels, (now - newest.end).total_seconds()),
        *(("obs_events", {**labels, "outcome": outcome}, count) for outcome, count in sorted(outcomes.items())),
    ]


def _of_destinations(hourly: HourlyPipeline) -> Samples:
    staleness = hourly.staleness()
    samples: Samples = []
    for name in hourly.destination_names:
        labels = {"pipeline": hourly.name, "destination": name}
        samples.append(("obs_destination_up", labels, name not in staleness.unreachable))
        if name not in staleness.unreachable:
            missing = sum(name in names for names in staleness.missing.values())
            samples.append(("obs_missing_partitions", labels, missing))
    for name, outbox in hourly.outboxes().items():
        if name not in staleness.unreachable:
            labels = {"pipeline": hourly.name, "destination": outbox.name}
            states = outbox.states()
            samples += [("obs_dispatches", {**labels, "state": state}, count) for state, count in states.items()]
    return samples


def exposition(samples: Iterable[tuple[str, Mapping[str, str], Any]]) -> str:
    """Prometheus's text format: samples of a metric together, below what it means."""
    found = list(samples)
    lines = []
    for metric, meaning in HELP.items():
        mine = [(labels, value) for name, labels, value in found if name == metric]
        if mine:
            lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge"]
            lines += [f"{metric}{{{_labels(labels)}}} {float(value):.15g}" for labels, value in mine]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for name, value in labels.items()
    }
    return ",".join(f'{name}="{value}"' for name, value in escaped.items())
