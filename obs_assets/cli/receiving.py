"""``obs receive``: an HTTP server that writes events into event files."""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from obs_assets.api.logs import write_log
from obs_assets.api.serving import listener_of, refuse_open, serve
from obs_assets.api.tokens import TokenFile, read_tokens, tokens_path
from obs_assets.cli.app import Pipeline, app, present_pipeline
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.present import Present, note_restart, open_valid
from obs_assets.receive.app import Receiver
from obs_assets.receive.keys import Keys
from obs_assets.receive.moving import move
from obs_assets.receive.spool import Rotation, Spool
from obs_assets.receive.upkeep import Uploader, every, remove_landed
from obs_assets.settings import ReceiveSettings, Settings

FOLDER = "receiver"
"""Folder of all receivers below the events folder."""

_LOOK_S = 10.0
"""Seconds between two looks at the pipeline file."""

_UPKEEP_S = 600.0
"""Seconds between two looks for files that can be removed."""


@app.command()
def receive(  # noqa: PLR0917 - the options of the command
    name: Annotated[
        str,
        typer.Option("--name", help="Name of this receiver; receivers need different names."),
    ] = "main",
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, show_default="OBS_RECEIVE_PORT, else 4318", help="Port."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            show_default="OBS_RECEIVE_HOST, else 127.0.0.1",
            help="Address to listen on.",
        ),
    ] = None,
    spool: Annotated[
        Path | None,
        typer.Option("--spool", help="Folder for files before their upload into a bucket."),
    ] = None,
    rotate_mb: Annotated[
        int, typer.Option(min=1, max=1024, help="Size of a file, in megabytes.")
    ] = 64,
    rotate_s: Annotated[
        float, typer.Option(min=1, max=86_400, help="Seconds after which a file is finished.")
    ] = 300.0,
    keep_received_hours: Annotated[
        int, typer.Option(min=0, help="Hours for which a file is kept after it has landed.")
    ] = 72,
    pipeline_name: Pipeline = "",
) -> None:
    """Receive events over HTTP (OpenTelemetry, JSON, Splunk, Elasticsearch) and write them into event files."""
    present = present_pipeline(pipeline_name, _refuse_bucket)
    hourly = present()
    machine = hourly.settings
    chosen = {key: value for key, value in {"port": port, "host": host}.items() if value}
    settings = machine.receive.model_copy(update=chosen)
    listener = listener_of(settings)
    refuse_open(listener)
    write_log()
    tokens = _tokens(settings, machine)
    events_dir = hourly.source.events_dir
    if events_dir is None:
        raise ConfigurationError(
            "there is no events folder to write into: set OBS_EVENTS_DIR, or source.events_dir "
            "in the pipeline file"
        )
    rotation = Rotation(rotate_mb << 20, rotate_s)
    with contextlib.ExitStack() as stack:
        uploader = None
        if isinstance(events_dir, Path):
            _refuse_spool(spool)
            files = Spool(_folder(events_dir, name), name, rotation)
        else:
            place = _spool_of(events_dir, spool, name)
            uploader = Uploader(events_dir, f"{FOLDER}/{name}")
            stack.callback(uploader.close)
            files = Spool(place, name, rotation, uploader.add)
        keys = Keys(files.folder, time.time())
        files.note_keys = keys.store
        receiver = Receiver(files, keys, tokens)
        stack.callback(receiver.close)
        typer.echo(f"Receiver: {settings.address}, files: {files.folder}  (Ctrl-C stops it)")
        if uploader is None:
            keep = timedelta(hours=keep_received_hours)
            stack.enter_context(every(_UPKEEP_S, lambda: _remove(receiver.spool, keep)))
        stack.enter_context(every(_LOOK_S, lambda: _follow(present, receiver, uploader)))
        note_restart(machine.data_dir, "", _note_of(name))
        serve(receiver, listener, lambda: None)


def _refuse_bucket(before: HourlyPipeline, after: HourlyPipeline) -> str:
    """A changed events folder is followed from folder to folder, and from bucket to bucket."""
    kinds = {type(each.source.events_dir) for each in (before, after)}
    if len({issubclass(kind, Path) for kind in kinds}) > 1:
        return (
            "restart `obs receive`: it writes into the events folder before, and cannot change "
            "between a folder and a bucket"
        )
    return ""


def _note_of(name: str) -> str:
    """Name of the note for ``obs status`` that the receiver of this name must be restarted."""
    return f"restart_receiver_{name}"


def _follow(present: Present, receiver: Receiver, uploader: Uploader | None) -> None:
    """Go on in the events folder that the pipeline file names now."""
    hourly = present()
    note_restart(hourly.settings.data_dir, present.refusal, _note_of(receiver.spool.name))
    events_dir = hourly.source.events_dir
    if isinstance(events_dir, Path):
        folder = _folder(events_dir, receiver.spool.name)
        if folder != receiver.spool.folder:
            move(receiver, folder)
    elif uploader and events_dir and events_dir != uploader.url:
        uploader.move(events_dir)


def _folder(events_dir: Path, name: str) -> Path:
    return events_dir.expanduser().absolute() / FOLDER / name


def _tokens(settings: ReceiveSettings, machine: Settings) -> TokenFile | None:
    if settings.auth == "none":
        return None
    path = tokens_path(machine)
    if not any("write" in token.scopes for token in read_tokens(path)):
        typer.echo("no token has the scope write yet: `obs tokens add NAME --scope write`")
    return TokenFile(path)


def _refuse_spool(spool: Path | None) -> None:
    if spool is not None:
        raise ConfigurationError(
            "--spool is for an events folder in a bucket, and this one is no bucket"
        )


def _spool_of(events_dir: str, spool: Path | None, name: str) -> Path:
    """The folder of a receiver's files before their upload into a bucket."""
    if spool is None:
        raise ConfigurationError(
            f"the events folder {events_dir} is in a bucket: name a folder of this machine with "
            "--spool DIR"
        )
    return spool.expanduser().absolute() / name


def _remove(files: Spool, keep: timedelta) -> None:
    finished = [path for path in files.files() if path != files.current]
    opened = open_valid()
    # A pipeline that cannot be read may not have landed the files.
    if all(file in opened.pipelines for file in opened.problems):
        # The events folder, above FOLDER and the receiver's own.
        events_dir = files.folder.parents[1]
        now = datetime.now(UTC)
        remove_landed(events_dir, finished, opened.pipelines.values(), now, keep)
