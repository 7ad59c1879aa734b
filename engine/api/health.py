"""How the fleet is doing: for load balancers, for people, for Prometheus."""

from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from engine.api.answers import Answer
from engine.api.asking import Opened
from engine.api.exposition import CONTENT_TYPE, exposition
from engine.api.shown import HEALTH, METRICS, QUEUE
from engine.care.health import take_health
from engine.model import to_json
from engine.views import HealthStatus

routes = APIRouter(tags=["health"])


@routes.get("/health", responses=HEALTH)
async def health(engine: Opened) -> Answer:
    """Say how every part is doing; 503 if something is wrong, and not only worth a look."""
    seen = await engine.health()
    is_wrong = seen.status is HealthStatus.DEGRADED
    status = HTTPStatus.SERVICE_UNAVAILABLE if is_wrong else HTTPStatus.OK
    return Answer(to_json(seen), status)


@routes.get("/api/v1/queue/health", responses=QUEUE)
async def queue_health(engine: Opened) -> Answer:
    """Count what runs and what waits, with what a person should look at."""
    return Answer(
        to_json(await take_health(engine.layout, engine.project, engine.config, engine.clock))
    )


@routes.get("/metrics", responses=METRICS, response_class=PlainTextResponse)
async def metrics(engine: Opened) -> PlainTextResponse:
    """Tell what is counted, in the text format of Prometheus."""
    text = exposition(await engine.queries.metrics(), await engine.health())
    return PlainTextResponse(text, media_type=CONTENT_TYPE)
