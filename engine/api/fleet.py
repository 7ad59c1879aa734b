"""The fleet beside its tasks: workers, registered agents, services, alerts, claims."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from msgspec import Meta, Struct, field
from starlette.responses import Response

from engine.api.answers import Answer, listed, not_found, told
from engine.api.asking import LARGEST, NAME, AgentOrAll, DryRun, Name, Opened, body_of, read_body
from engine.api.shown import AGENTS, ALERT, ALERTS, HOLDS, RECEIPT, SERVICES, WORKERS
from engine.commands import (
    Acknowledge,
    BeatAgents,
    Hold,
    RegisterAgent,
    RestartServices,
    Resume,
    StartServices,
    StopServices,
    UnregisterAgents,
)
from engine.errors import ValidationError
from engine.model import ALL_AGENTS, External
from engine.orders.control import NO_ALERT
from engine.processes.signalling import identify
from engine.shapes import alert_json, worker_json
from engine.views import AlertRow

routes = APIRouter(prefix="/api/v1")

_MOST_ALERTS = 1000

Every = Annotated[bool, Query(alias="all", description="Those that are over, too.")]
_Label = Annotated[str, Meta(pattern=f"^{NAME}$", max_length=64)]


async def _known_service(engine: Opened, service: Name) -> str:
    if service not in engine.config.services:
        raise not_found(f"agentmux.yaml names no service {service!r}")
    return service


Service = Annotated[str, Depends(_known_service)]


async def _known_alert(engine: Opened, alert: Annotated[int, Path(ge=1, le=LARGEST)]) -> AlertRow:
    found = await engine.queries.alert(alert)
    if found is None:
        raise not_found(f"alert {alert}: {NO_ALERT}")
    return found


Alert = Annotated[AlertRow, Depends(_known_alert)]


class Registration(Struct, forbid_unknown_fields=True):
    """An agent that somebody else has started; see `agentmux agents register`."""

    id: _Label
    type: _Label
    pid: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    tmux: Annotated[str, Meta(min_length=1, max_length=201)] | None = None
    meta: dict[str, str] = field(default_factory=dict)


@routes.get("/workers", responses=WORKERS, tags=["workers"])
async def list_workers(engine: Opened, every: Every = False) -> Response:
    """List the workers whose processes live, or all that are known."""
    now, stale_after = engine.clock.now(), engine.config.stale_after
    workers = await engine.queries.workers()
    return await listed(
        (one for one in workers if every or one.alive),
        lambda one: worker_json(one, now, stale_after),
    )


@routes.get("/agents", responses=AGENTS, tags=["agents"])
async def list_agents(engine: Opened) -> Response:
    """List the registered agents: those that somebody else has started."""
    return await listed(await engine.queries.externals())


@routes.post("/agents", responses=RECEIPT, tags=["agents"], openapi_extra=body_of(Registration))
async def register_agent(engine: Opened, request: Request, dry_run: DryRun = False) -> Answer:
    """Register an agent, or change what is known of it."""
    new = await read_body(request, Registration)
    process = None if new.pid is None else identify(new.pid)
    if new.pid is not None and process is None:
        raise ValidationError(f"there is no process {new.pid}")
    agent = External(new.id, new.type, process, new.tmux, new.meta)
    return told(await engine.execute(RegisterAgent(agent), dry_run=dry_run))


@routes.post("/agents/{agent}/beat", responses=RECEIPT, tags=["agents"])
async def beat_agent(engine: Opened, agent: Name, dry_run: DryRun = False) -> Answer:
    """Say that a registered agent is alive."""
    return told(await engine.execute(BeatAgents((agent,)), dry_run=dry_run))


@routes.delete("/agents/{agent}", responses=RECEIPT, tags=["agents"])
async def unregister_agent(
    engine: Opened,
    agent: Name,
    end: Annotated[bool, Query(description="End its process or window first.")] = False,
    dry_run: DryRun = False,
) -> Answer:
    """Forget a registered agent."""
    return told(await engine.execute(UnregisterAgents((agent,), end=end), dry_run=dry_run))


@routes.get("/services", responses=SERVICES, tags=["services"])
async def list_services(engine: Opened) -> Response:
    """List the services that a process has begun to keep."""
    return await listed(await engine.queries.services())


@routes.post("/services/{service}/start", responses=RECEIPT, tags=["services"])
async def start_service(engine: Opened, service: Service, dry_run: DryRun = False) -> Answer:
    """Start a service, and what it depends on."""
    return told(await engine.execute(StartServices((service,)), dry_run=dry_run))


@routes.post("/services/{service}/stop", responses=RECEIPT, tags=["services"])
async def stop_service(engine: Opened, service: Service, dry_run: DryRun = False) -> Answer:
    """End a service, and all that it has started."""
    return told(await engine.execute(StopServices((service,)), dry_run=dry_run))


@routes.post("/services/{service}/restart", responses=RECEIPT, tags=["services"])
async def restart_service(engine: Opened, service: Service, dry_run: DryRun = False) -> Answer:
    """End a service and start it anew."""
    return told(await engine.execute(RestartServices((service,)), dry_run=dry_run))


@routes.get("/alerts", responses=ALERTS, tags=["alerts"])
async def list_alerts(engine: Opened, every: Every = False) -> Response:
    """List the newest 1,000 alerts that nobody has acknowledged, or of all; oldest first."""
    return await listed(await engine.queries.alerts(_MOST_ALERTS, every=every))


@routes.get("/alerts/{alert}", responses=ALERT, tags=["alerts"])
async def show_alert(engine: Opened, alert: Alert) -> Answer:
    """Show all that an alert tells: the lines that were found are in `text`."""
    return Answer(alert_json(alert, await engine.alert_text(alert.id)))


@routes.post("/alerts/{alert}/ack", responses=RECEIPT, tags=["alerts"])
async def acknowledge_alert(engine: Opened, alert: Alert, dry_run: DryRun = False) -> Answer:
    """Say that somebody has seen to an alert."""
    return told(await engine.execute(Acknowledge((alert.id,)), dry_run=dry_run))


@routes.get("/holds", responses=HOLDS, tags=["claims"])
async def list_holds(engine: Opened) -> Response:
    """List the claims that are held."""
    return await listed(await engine.queries.holds())


@routes.post("/hold", responses=RECEIPT, tags=["claims"])
async def hold_claims(
    engine: Opened, agent: AgentOrAll = ALL_AGENTS, dry_run: DryRun = False
) -> Answer:
    """Let no new runs begin."""
    return told(await engine.execute(Hold(agent), dry_run=dry_run))


@routes.post("/resume", responses=RECEIPT, tags=["claims"])
async def resume_claims(
    engine: Opened, agent: AgentOrAll = ALL_AGENTS, dry_run: DryRun = False
) -> Answer:
    """Let runs begin again."""
    return told(await engine.execute(Resume(agent), dry_run=dry_run))
