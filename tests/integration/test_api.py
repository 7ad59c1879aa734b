"""The HTTP API does what the command line does, by the same commands, and answers in its shapes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from support.api import Client, serving
from support.engines import Project, until
from support.patience import PATIENCE
from support.stage import Stage, staged
from support.stores import a_task

from engine.api import answers
from engine.api import serving as api
from engine.api.answers import listed
from engine.commands import Seed
from engine.core import Engine
from engine.model import AlertKind, NewAlert, Outcome, RunOutcome
from engine.processes.census import tagged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.executors.base import RunContext
    from engine.model import TaskDef

ODD = ["a/b", "x/cancel", "cancel", "c:d e%f", "%2F", "?q=1&r#s", "ünïcode ✓", "..", "a//b"]
DEAF = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM", flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"""
SLEEPER = {"kind": "shell", "argv": ["sleep", "300"]}


@dataclass
class Site:
    """A project whose engine is served."""

    project: Project
    engine: Engine
    client: Client
    stage: Stage

    async def seed(self, *tasks: TaskDef) -> None:
        await self.engine.execute(Seed(self.project.dag(*tasks)))

    async def wait_for(self, task_id: str, state: str) -> None:
        async def is_so() -> bool:
            return (await self.engine.queries.task(task_id)).state == state

        await until(is_so, f"{task_id} is {state}")


@pytest.fixture
async def site(project: Project, stage: Stage) -> AsyncIterator[Site]:
    async with project.engine() as engine, serving(engine) as client:
        yield Site(project, engine, client, stage)


def path_of(task_id: str) -> str:
    return f"/api/v1/tasks/{quote(task_id, safe='')}"


async def test_tasks_are_listed_in_windows_with_how_many_there_are(site: Site) -> None:
    await site.seed(*(a_task(f"t{n}", agent="codex" if n % 2 else "claude") for n in range(7)))
    first = await site.client.get("/api/v1/tasks?limit=3")
    assert (first["total"], [one["id"] for one in first["items"]]) == (7, ["t0", "t1", "t2"])
    rest = await site.client.get("/api/v1/tasks?limit=1000&offset=3")
    assert [one["id"] for one in rest["items"]] == ["t3", "t4", "t5", "t6"]
    mine = await site.client.get("/api/v1/tasks?agent=codex&state=ready&q=id%3At3")
    assert [one["id"] for one in mine["items"]] == ["t3"]
    for wrong in ("limit=1001", "limit=0", "offset=-1", "state=sleepy", "q=stat%3Afailed"):
        reply = await site.client.ask("GET", f"/api/v1/tasks?{wrong}")
        assert (reply.status, reply.code) == (400, "VALIDATION_ERROR"), wrong


async def test_others_are_let_in_while_a_long_list_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "_STRETCH", 0)
    turns = 0

    async def beat() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(beat())
    written = await listed(range(100), total=200)
    beating.cancel()
    assert json.loads(bytes(written.body)) == {"total": 200, "items": list(range(100))}
    assert turns > 50


async def test_any_id_can_be_asked_for_and_cancelled(site: Site) -> None:
    await site.seed(*map(a_task, ODD))
    for task_id in ODD:
        shown = await site.client.get(path_of(task_id))
        assert shown["task"]["id"] == task_id
        reply = await site.client.ask("POST", f"{path_of(task_id)}/cancel")
        assert (reply.status, reply.json["done"]) == (200, {task_id: "cancelled"})
    assert site.project.states() == {"CANCELLED": len(ODD)}


async def test_what_is_no_text_is_nobodys_id(site: Site) -> None:
    await site.seed(a_task("\ufffd"))
    for wrong in ("%FF", "%C0%AF", "%ED%A0%80"):  # each would be shown as that character
        reply = await site.client.ask("DELETE", f"/api/v1/tasks/{wrong}?purge=true")
        assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
    assert site.project.states() == {"READY": 1}


async def test_an_id_that_ends_in_a_verb_is_no_verb(site: Site) -> None:
    await site.seed(a_task("x"), a_task("x/cancel"))
    await site.client.ask("DELETE", path_of("x/cancel"))
    assert (site.project.state("x"), site.project.state("x/cancel")) == ("READY", "CANCELLED")
    unquoted = await site.client.ask("GET", "/api/v1/tasks/x/cancel")
    assert (unquoted.status, unquoted.headers["allow"]) == (405, "OPTIONS, POST")


async def test_what_the_only_task_is_refused_for_is_the_answer(site: Site) -> None:
    await site.seed(a_task("t"))
    for verb in ("release", "kill", "retry"):
        reply = await site.client.ask("POST", f"{path_of('t')}/{verb}")
        assert (reply.status, reply.code) == (409, "ILLEGAL_TRANSITION"), verb
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
        reply = await site.client.ask(method, path_of("nobody") + path)
        assert (reply.status, reply.code) == (404, "TASK_NOT_FOUND")


async def test_a_dry_run_is_the_plan_and_changes_nothing(site: Site) -> None:
    await site.seed(a_task("t"))
    for method, path in (
        ("POST", f"{path_of('t')}/cancel?dryRun=true"),
        ("DELETE", f"{path_of('t')}?purge=true&dryRun=true"),
        ("DELETE", "/api/v1/tasks?status=READY&purge=true&dryRun=true"),
    ):
        reply = await site.client.ask(method, path)
        assert (reply.status, reply.json["dryRun"], list(reply.json["done"])) == (200, True, ["t"])
    assert site.project.states() == {"READY": 1}


@pytest.mark.parametrize(
    "path",
    [
        "POST /api/v1/tasks/t/cancel?dryrun=true",
        "POST /api/v1/tasks/t/cancel?dryRun=true&dryRun=false",
        "POST /api/v1/tasks/t/cancel?dryRun=perhaps",
        "DELETE /api/v1/tasks",
        "DELETE /api/v1/tasks?status=READY",
        "DELETE /api/v1/tasks?status=READY&purge=false",
        "DELETE /api/v1/tasks?purge=true",
        "DELETE /api/v1/tasks?status=none&purge=true",
    ],
)
async def test_what_is_not_asked_for_as_it_must_be_is_not_done(site: Site, path: str) -> None:
    await site.seed(a_task("t"))
    reply = await site.client.ask(*path.split(" "))
    assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
    with_body = await site.client.ask("POST", "/api/v1/tasks/t/cancel", body='{"dryRun": true}')
    assert with_body.status == 400
    assert site.project.states() == {"READY": 1}


async def test_many_are_purged_with_one_receipt(site: Site) -> None:
    await site.seed(a_task("a"), a_task("b"))
    await site.client.ask("POST", f"{path_of('a')}/cancel")
    reply = await site.client.ask("DELETE", "/api/v1/tasks?status=cancelled&purge=true")
    assert (reply.status, reply.json["counts"]["purged"]) == (200, 1)
    assert site.project.states() == {"READY": 1}
    assert (await site.client.ask("GET", path_of("a"))).status == 404


async def test_a_running_task_that_is_purged_leaves_no_process(site: Site) -> None:
    await site.seed(a_task("long", payload=SLEEPER))
    await site.engine.start_worker("codex")
    await site.wait_for("long", "RUNNING")
    await until(lambda: tagged(site.engine.layout.state), "its process is there")
    reply = await site.client.ask("DELETE", f"{path_of('long')}?purge=true")
    assert (reply.status, [one["taskId"] for one in reply.json["ends"]]) == (200, ["long"])
    assert tagged(site.engine.layout.state) == {}
    assert site.project.states() == {}


async def test_a_command_is_carried_out_though_its_client_has_gone(project: Project) -> None:
    project.settings("grace: 0.5\n")
    deaf = await asyncio.create_subprocess_exec(sys.executable, "-c", DEAF, stdout=subprocess.PIPE)
    try:
        assert deaf.stdout
        assert await deaf.stdout.readline() == b"ready\n"
        async with project.engine() as engine, serving(engine) as client, asyncio.timeout(PATIENCE):
            await client.post("/api/v1/agents", {"id": "deaf", "type": "robot", "pid": deaf.pid})
            with client.connect() as wire:
                head = f"Host: localhost\r\nAuthorization: Bearer {client.token}\r\n"
                path = "/api/v1/agents/deaf?end=true"
                wire.sendall(f"DELETE {path} HTTP/1.1\r\n{head}\r\n".encode())
                assert await deaf.stdout.readline() == b"SIGTERM\n"
            # It has gone; and nobody else has a reason to kill that process.
            assert await deaf.wait() == -signal.SIGKILL

            async def is_forgotten() -> bool:
                return not await client.get("/api/v1/agents")

            await until(is_forgotten, "it is forgotten")
    finally:
        with suppress(ProcessLookupError):
            deaf.kill()
        await deaf.wait()


async def test_what_is_cut_short_by_the_end_of_the_server_is_told_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def slow() -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(site.engine.queries, "holds", slow)
    monkeypatch.setattr(api, "_GRACE", 0.1)
    async with serving(site.engine) as client:
        asking = asyncio.create_task(client.ask("GET", "/api/v1/holds"))
        await asked.wait()
    reply = await asking
    assert (reply.status, reply.code) == (503, "IO_ERROR")


async def test_a_task_is_killed_retried_and_released(site: Site) -> None:
    await site.seed(staged("t"))
    await site.engine.start_worker("codex")
    await site.wait_for("t", "RUNNING")
    assert (await site.client.ask("POST", f"{path_of('t')}/kill?force=true")).status == 200
    assert site.project.state("t") == "FAILED"
    await site.client.ask("POST", "/api/v1/hold?agent=codex")
    assert (await site.client.get("/api/v1/holds"))[0]["agent"] == "codex"
    assert (await site.client.ask("POST", f"{path_of('t')}/retry")).status == 200
    await site.client.ask("POST", "/api/v1/resume?agent=codex")
    await site.wait_for("t", "RUNNING")
    await site.client.ask("POST", "/api/v1/hold")
    assert (await site.client.ask("POST", f"{path_of('t')}/release")).status == 200
    assert site.project.state("t") == "READY"


async def test_workers_and_runs_are_those_of_the_command_line(site: Site) -> None:
    async def play(_context: RunContext) -> Outcome:
        return Outcome(RunOutcome.DONE, result={"half": "\ud800"})

    site.stage.play = play
    await site.seed(staged("a"), staged("b"))
    await site.engine.start_worker("codex")
    await site.engine.settled()
    (worker,) = await site.client.get("/api/v1/workers")
    assert (worker["id"], worker["activity"]) == ("codex-1", "idle")
    runs = await site.client.get("/api/v1/runs?limit=1")
    assert (runs["total"], runs["items"][0]["taskId"]) == (2, "b")
    assert runs["items"][0]["result"] == {"half": "\ud800"}
    runs = await site.client.get("/api/v1/runs?task=a&q=outcome%3Adone")
    assert [one["taskId"] for one in runs["items"]] == ["a"]
    assert (await site.client.ask("GET", "/api/v1/runs?q=took%3Along")).status == 400
    shown = await site.client.get(path_of("a"))
    assert shown["events"][0]["type"] == "TASK_CREATED"
    assert shown["runs"][0]["branch"] is None


async def test_agents_come_beat_and_go(site: Site) -> None:
    mine = {"id": "mine", "type": "robot", "pid": os.getpid(), "meta": {"k": "v"}}
    assert (await site.client.post("/api/v1/agents", mine)).json["done"] == {"mine": "registered"}
    assert (await site.client.ask("POST", "/api/v1/agents/mine/beat")).status == 200
    (agent,) = await site.client.get("/api/v1/agents")
    assert (agent["pid"], agent["meta"]) == (os.getpid(), {"k": "v"})
    assert (await site.client.ask("DELETE", "/api/v1/agents/mine")).status == 200
    gone = await site.client.ask("POST", "/api/v1/agents/mine/beat")
    assert (gone.status, gone.code) == (404, "WORKER_NOT_FOUND")


@pytest.mark.parametrize(
    "body",
    [
        '{"id": "mine"}',
        '{"id": "mine", "type": "robot", "typo": 1}',
        '{"id": "../up", "type": "robot"}',
        '{"id": "mine", "type": "robot", "pid": -1}',
        '{"id": "mine", "type": "robot", "meta": {"k": "\\ud800"}}',
        '{"id": "mine", "type": "robot", "meta": {"k": 1}}',
        "{",
        "\xff",
        "",
    ],
)
async def test_a_registration_that_is_wrong_is_refused(site: Site, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    reply = await site.client.ask(
        "POST", "/api/v1/agents", headers=headers, body=body.encode("latin-1")
    )
    assert (reply.status, reply.code) == (400, "VALIDATION_ERROR")
    plain = await site.client.ask("POST", "/api/v1/agents", body='{"id": "mine", "type": "robot"}')
    assert plain.status == 415
    assert await site.client.get("/api/v1/agents") == []


async def test_alerts_are_listed_until_somebody_has_seen_to_them(site: Site) -> None:
    (site.engine.layout.alerts / "one.md").write_text("    ERROR \x1b[31mred\n")
    alert = NewAlert(AlertKind.LOG, "web.log", "2 lines", body="alerts/one.md")
    await site.engine._store.raise_alerts([alert, NewAlert(AlertKind.DELIVERY, "hook", "is down")])
    found, other = await site.client.get("/api/v1/alerts")
    shown = await site.client.get(f"/api/v1/alerts/{found['id']}")
    assert shown == found | {"text": "    ERROR red"}
    assert (await site.client.get(f"/api/v1/alerts/{other['id']}"))["text"] == "is down"
    assert (await site.client.ask("GET", "/api/v1/alerts/99")).status == 404
    await site.client.ask("POST", f"/api/v1/alerts/{other['id']}/ack")
    assert (await site.client.ask("POST", f"/api/v1/alerts/{found['id']}/ack")).status == 200
    assert await site.client.get("/api/v1/alerts") == []
    seen = await site.client.get("/api/v1/alerts?all=true")
    assert [bool(one["acknowledgedAt"]) for one in seen] == [True, True]
    again = await site.client.ask("POST", f"/api/v1/alerts/{found['id']}/ack")
    assert again.code == "VALIDATION_ERROR"
    assert (await site.client.ask("POST", "/api/v1/alerts/99/ack")).status == 404


async def test_services_are_started_and_stopped(project: Project) -> None:
    project.settings("services: {web: {command: sleep 300}}\n")
    layout = project.layout
    async with (
        Engine(layout.state, project=project.folder, keeps_services=True) as engine,
        serving(engine) as client,
    ):
        assert (await client.ask("POST", "/api/v1/services/web/start")).status == 200

        async def is_ready() -> bool:
            services = await client.get("/api/v1/services")
            return [one["state"] for one in services] == ["ready"]

        await until(is_ready, "it is ready")
        assert (await client.ask("POST", "/api/v1/services/web/restart")).status == 200
        assert (await client.ask("POST", "/api/v1/services/web/stop")).status == 200
        (web,) = await client.get("/api/v1/services")
        assert web["state"] == "stopped"
        assert (await client.ask("POST", "/api/v1/services/other/start")).status == 404


async def test_health_counts_and_metrics_are_told(site: Site) -> None:
    await site.seed(a_task("t"))
    seen = await site.client.get("/health")
    assert {"status", "parts"} == set(seen)
    counts = await site.client.get("/api/v1/queue/health")
    assert counts["queuedCount"] == 1
    told = await site.client.ask("GET", "/metrics")
    assert told.status == 200
    assert told.headers["content-type"].startswith("text/plain; version=")


async def test_who_only_looks_is_refused_what_changes_something(site: Site) -> None:
    await site.seed(a_task("t"))
    async with (
        Engine(site.engine.layout.state, project=site.project.folder, read_only=True) as engine,
        serving(engine) as client,
    ):
        assert (await client.get("/api/v1/tasks"))["total"] == 1
        reply = await client.ask("POST", f"{path_of('t')}/cancel")
        assert (reply.status, reply.code) == (503, "IO_ERROR")


async def test_what_paths_take_is_told(site: Site) -> None:
    asked = await site.client.ask("OPTIONS", "/api/v1/tasks")
    assert (asked.status, asked.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")
    wrong = await site.client.ask("PUT", "/api/v1/tasks")
    assert (wrong.status, wrong.code) == (405, "COMMAND_NOT_ALLOWED")
    assert (await site.client.ask("GET", "/docs")).status == 404
    whole = await site.client.ask("GET", "/api/v1/tasks")
    head = await site.client.ask("HEAD", "/api/v1/tasks")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))


async def test_a_bug_is_told_of_and_kept_to_ourselves(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(site.engine.queries, "externals", broken)
    reply = await site.client.ask("GET", "/api/v1/agents")
    assert (reply.status, reply.code) == (500, "IO_ERROR")
    assert b"secret" not in reply.body
    assert "secret" in site.engine.layout.own_log.read_text()
    assert (await site.client.ask("GET", "/api/v1/workers")).status == 200


async def test_the_document_names_every_shape_it_uses(site: Site) -> None:
    document = await site.client.get("/openapi.json")
    text = json.dumps(document)
    used = {one.split('"')[0] for one in text.split("#/components/schemas/")[1:]}
    assert used - set(document["components"]["schemas"]) == set()
    assert "422" not in text
