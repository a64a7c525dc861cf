"""``/api/v1/page``: what the explorer shows beside events: environment, links, saved searches."""

import asyncio

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from obs_assets.api.access import needs
from obs_assets.api.served import served
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.saved_searches import FILE_NAME, SavedSearch, read_searches
from obs_assets.hourly.stage_rows import STAGES

router = APIRouter(prefix="/api/v1", tags=["page"], dependencies=[Depends(needs("read"))])


class PageAnswer(BaseModel):
    """Facts about this server.

    Attributes:
        environment: its name; empty for none.
        version: version of the package.
        pipeline: name of the pipeline.
        table: name of the table that is searched.
        dagster: address of an hour's partition in Dagster's UI, with ``{hour}`` in it; null without one.
        searches: saved searches.
        searches_problem: the mistake in their file, with its line; empty for none.
    """

    model_config = ConfigDict(populate_by_name=True)

    environment: str
    version: str
    pipeline: str
    table: str
    dagster: str | None
    searches: list[SavedSearch]
    searches_problem: str


@router.get("/page")
async def facts_of_the_page(request: Request) -> PageAnswer:
    """Facts about this server and the saved searches of ``searches.yaml``."""
    parts = served(request)
    settings = parts.hourly.settings.api
    problem = ""
    saved: tuple[SavedSearch, ...] = ()
    if parts.pipeline_folder is not None:
        path = parts.pipeline_folder / FILE_NAME
        try:
            # Read for each page, so that an edited file is shown without a restart.
            saved = (await asyncio.to_thread(read_searches, path)).searches
        except ConfigurationError as error:
            # Of the file's path, its name is enough for a browser.
            problem = str(error).replace(str(path), FILE_NAME)
    return PageAnswer(
        environment=settings.environment,
        version=request.app.version,
        pipeline=parts.hourly.name,
        table=parts.table.key,
        dagster=_address_of_partitions(settings.dagster_url, parts.hourly.config.asset_prefix),
        searches=list(saved),
        searches_problem=problem,
    )


def _address_of_partitions(url: str | None, prefix: str | None) -> str | None:
    """Address of an hour in Dagster's UI: the page of the last stage's asset."""
    if url is None:
        return None
    key = "/".join(part for part in (prefix, STAGES[-1]) if part)
    return f"{url.rstrip('/')}/assets/{key}?view=partitions&partition={{hour}}"
