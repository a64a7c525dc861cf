"""Health of the process, of its database, and metrics."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from obs_assets.api.access import needs
from obs_assets.api.served import served

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """Whether a part works."""

    status: str


@router.get("/healthz")
async def process_health() -> Health:
    """Whether the process answers. It does not ask the database."""
    return Health(status="ok")


@router.get("/readyz")
async def readiness(request: Request) -> Health:
    """Whether the database answers and the table of events can be read; 503 otherwise."""
    reader = served(request).reader
    await reader.ask(request, reader.probe)
    return Health(status="ok")


@router.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(needs("read"))])
async def metrics(request: Request) -> PlainTextResponse:
    """The samples of `obs metrics`, then the server's own, in Prometheus' text format."""
    parts = served(request)
    text = await parts.metrics.text() + parts.counters.exposition()
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")
