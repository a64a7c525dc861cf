"""``obs serve``: the HTTP server of searches and of the explorer."""

from typing import Annotated

import typer

from obs_assets.api.access import refuse_contradictions
from obs_assets.api.app import make_app, make_readable
from obs_assets.api.logs import write_log
from obs_assets.api.reader import Limits
from obs_assets.api.serving import Stop, listener_of, refuse_open
from obs_assets.api.serving import serve as serve_app
from obs_assets.api.tokens import read_tokens, tokens_path
from obs_assets.cli.app import Pipeline, app, present_pipeline
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline


@app.command()
def serve(
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, show_default="OBS_API_PORT, else 3001", help="Port."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", show_default="OBS_API_HOST, else 127.0.0.1", help="Address to listen on."
        ),
    ] = None,
    pipeline_name: Pipeline = "",
) -> None:
    """Serve the search API and the explorer over HTTP."""
    present = present_pipeline(pipeline_name, _refuse_without_table)
    hourly = present()
    chosen = {name: value for name, value in {"port": port, "host": host}.items() if value}
    settings = hourly.settings.api.model_copy(update=chosen)
    listener = listener_of(settings)
    # Before a database is asked: a wrong address is the more frequent mistake.
    refuse_open(listener)
    refuse_contradictions(settings)
    write_log()
    try:
        make_readable(hourly)
    except ConfigurationError as error:
        # The first load may make the table later; until then each search is answered with this advice.
        typer.echo(f"obs: {error}", err=True)
    stop = Stop()
    if settings.auth == "token" and not read_tokens(tokens_path(hourly.settings)):
        typer.echo("nobody has a token yet: make one with `obs tokens add NAME`")
    typer.echo(f"Search API and explorer: {settings.address}  (Ctrl-C stops it)")
    folder = present.file.path.parent
    serve_app(make_app(hourly, stop, Limits(), folder, present), listener, stop.set)


def _refuse_without_table(before: HourlyPipeline, after: HourlyPipeline) -> str:
    del before
    try:
        after.searched_table()
    except ConfigurationError as error:
        return str(error)
    return ""
