"""Promises of `mcp-call`: what it calls, what it refuses, what it leaves; no server outlives it."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import logging
import os
import stat
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.mcp_server import (
    PNG,
    TOKEN,
    answering,
    command,
    over_http,
    respond,
    self_signed,
    serving,
)
from support.patience import PATIENCE

from engine.clock import SystemClock
from engine.config import Config, McpServer, ShellConfig
from engine.errors import LeaseLost
from engine.executors import builtin_executors
from engine.executors.base import RunContext, Site
from engine.executors.mcp import McpExecutor
from engine.files import Layout
from engine.model import Claim, Outcome, ProcessId, RunOutcome, Spending, State, TaskDef
from engine.processes.census import tagged, tree_of
from engine.processes.signalling import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from engine.clock import Clock

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Stage:
    """Everything that a run needs of the engine, kept for the test to look at."""

    project: Path
    clock: Clock = field(default_factory=SystemClock)
    grace: float = 5.0
    servers: dict[str, McpServer] = field(default_factory=dict)
    started: list[ProcessId] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: bool = False
    executor: McpExecutor = field(default_factory=McpExecutor)
    on_started: Callable[[], object] = lambda: None

    @property
    def folder(self) -> Path:
        return self.project / "artifacts" / "t" / "run-1"

    @property
    def config(self) -> Config:
        return Config(grace=self.grace, mcp=self.servers, shell=ShellConfig(max_output=65_536))

    def context(self, **payload: Any) -> RunContext:
        task = TaskDef("t", "t", "a", payload={"kind": "mcp-call", **payload})
        return RunContext(
            claim=Claim("run-1", task, "a-1", 1, State.RUNNING, MOMENT, MOMENT),
            layout=Layout(self.project / "state"),
            project=self.project,
            config=self.config,
            clock=self.clock,
            starting=lambda: None,
            started=self.on_start,
            progress=self.on_progress,
            results=self.on_results,
        )

    async def on_start(self, process: ProcessId) -> None:
        if self.lost:
            raise LeaseLost("run-1")
        self.started.append(process)
        self.on_started()

    async def on_progress(self, note: str, spending: Spending | None = None) -> None:
        assert spending is None
        self.notes.append(note)

    async def on_results(self) -> dict[str, Mapping[str, Any] | None]:
        raise AssertionError("nobody told it to ask for results")

    async def call(self, tool: str, server: str = "s", **arguments: Any) -> Outcome:
        context = self.context(server=server, tool=tool, arguments=arguments)
        async with asyncio.timeout(PATIENCE):
            outcome = await builtin_executors()["mcp-call"].run(context)
        assert self.tree() == set()
        return outcome

    async def by_hand(self, mode: str, tool: str = "do", **arguments: Any) -> Outcome:
        self.servers["s"] = McpServer(command=command(mode))
        return await self.call(tool, **arguments)

    async def respond(self, **response: Any) -> Outcome:
        return await self.by_hand("plain", "respond", response=response)

    async def preflight(self, tool: str, server: str = "s", **arguments: Any) -> str | None:
        payload = {"kind": "mcp-call", "server": server, "tool": tool, "arguments": arguments}
        return (await self.look(payload)).get("0")

    async def look(self, *payloads: Mapping[str, Any]) -> Mapping[str, str]:
        """Look ahead at tasks; return why they are unfit, by their number."""
        layout = Layout(self.project / "state")
        tasks = [TaskDef(str(n), "t", "a", payload=payload) for n, payload in enumerate(payloads)]
        async with asyncio.timeout(PATIENCE):
            unfit = await self.executor.preflight(tasks, Site(layout, self.project, self.config))
        assert tagged(layout.state) == {}, "nothing is left"
        return unfit

    def tree(self) -> set[ProcessId]:
        return tree_of("run-1", self.project / "state", self.started)

    def stderr(self) -> str:
        log = self.folder / "stderr.log"
        return log.read_text() if log.exists() else ""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached directly whatever stands between the machine and the world."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def result_of(outcome: Outcome) -> Mapping[str, Any]:
    assert outcome.kind is RunOutcome.DONE, outcome.error
    assert outcome.result is not None
    return outcome.result


def blocked(outcome: Outcome) -> str:
    assert outcome.kind is RunOutcome.BLOCKED, outcome
    assert outcome.error is not None
    return outcome.error


def failed(outcome: Outcome) -> str:
    assert outcome.kind is RunOutcome.FAILED, outcome
    assert outcome.error is not None
    return outcome.error


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - files and processes tell nobody
            await asyncio.sleep(0.01)


async def stopped(stage: Stage, when: Callable[[], bool]) -> float:
    """Cancel a call of `do` once `when` holds; return how long its end took."""
    run = asyncio.create_task(stage.call("do"))
    await until(when)
    began = time.monotonic()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert stage.tree() == set()
    return time.monotonic() - began


# A server of the SDK


async def test_a_tool_on_stdio_is_called_and_its_response_kept(stage: Stage) -> None:
    stage.servers["s"] = McpServer(command=command("sdk"))
    result = result_of(await stage.call("add", a=1, b=2))
    assert json.loads(result["text"]) == {"total": 3}
    assert result["structuredContent"] == {"total": 3}
    assert isinstance(result["durationMs"], int)
    response = json.loads((stage.folder / "result.json").read_text())
    assert response["structuredContent"] == {"total": 3}
    assert response["isError"] is False
    assert [item["type"] for item in response["content"]] == ["text"]


async def test_the_tools_of_a_server_over_http_are_called(stage: Stage) -> None:
    told: list[str] = []
    async with over_http(told) as url:
        stage.servers["s"] = McpServer(url=url)
        result = result_of(await stage.call("add", a=1, b=2))
        assert result["structuredContent"] == {"total": 3}
        picture = result_of(await stage.call("picture"))
        assert picture["files"] == ["image-1.png"]
        assert (stage.folder / "image-1.png").read_bytes() == PNG
        assert "has no tool 'ad'" in blocked(await stage.call("ad"))
        assert "payload.arguments.b: 'x' is not" in blocked(await stage.call("add", a=1, b="x"))
        assert "full answers with an error: " in failed(await stage.call("full"))
        assert failed(await stage.call("quota")) == "MCP server 's': error -32050: quota is used up"
        assert stage.started == []


async def test_a_stop_during_a_slow_tool_over_http_reaches_the_server(stage: Stage) -> None:
    told: list[str] = []
    async with over_http(told) as url:
        stage.servers["s"] = McpServer(url=url)
        run = asyncio.create_task(stage.call("slow", seconds=600))
        await until(lambda: told == ["begun"])
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await until(lambda: told == ["begun", "interrupted"])


async def test_headers_are_sent_with_secrets_of_the_environment_and_never_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DOOR", TOKEN)
    seen: list[dict[bytes, bytes]] = []
    caplog.set_level(logging.DEBUG)
    async with over_http([], seen, token=TOKEN) as url:
        headers = {"Authorization": "Bearer ${DOOR}", "X-Team": "night"}
        stage.servers["s"] = McpServer(url=url, headers=headers)
        stage.servers["wrong"] = McpServer(url=url, headers={"Authorization": "Bearer no"})
        outcome = await stage.call("add", a=1, b=2)
        assert result_of(outcome)["structuredContent"] == {"total": 3}
        assert all(one[b"x-team"] == b"night" for one in seen)
        sentence = blocked(await stage.call("add", "wrong", a=1, b=2))
        assert "does not let us in (HTTP 401); mend mcp.wrong.headers" in sentence
    assert TOKEN not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith(("mcp", "httpx2"))]


async def test_a_url_where_nobody_listens_fails_and_names_the_server(stage: Stage) -> None:
    async with over_http([]) as url:
        pass
    stage.servers["s"] = McpServer(url=url)
    assert failed(await stage.call("add", a=1)).startswith("MCP server 's': it cannot be reached: ")
    assert await stage.preflight("add", a=1) is None, "what may pass by itself is for the run"


async def test_a_redirect_within_its_origin_is_followed(stage: Stage) -> None:
    async with over_http([]) as url:
        stage.servers["s"] = McpServer(url=url.replace("/mcp", "/moved"))
        result = result_of(await stage.call("add", a=1, b=2))
    assert result["structuredContent"] == {"total": 3}


async def test_a_redirect_to_elsewhere_is_not_followed_and_says_what_to_do(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR_TOKEN", TOKEN)
    there = f"https://u:{TOKEN}@other.example.org:8443/mcp/x?key={TOKEN}"
    async with serving(answering(307, {"location": there})) as port:
        stage.servers["s"] = McpServer(
            url=f"http://127.0.0.1:{port}/", headers={"Authorization": "Bearer ${DOOR_TOKEN}"}
        )
        sentence = blocked(await stage.call("add"))
        assert sentence == (
            "the MCP server 's' redirects to https://other.example.org:8443/mcp/x; put that into "
            "mcp.s.url in agentmux.yaml if it is the one you mean, then retry the task"
        )
        assert await stage.preflight("add") == sentence


async def test_a_certificate_that_nobody_vouches_for_is_refused_until_it_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(stage.project)
    app = answering(403, {})
    async with serving(app, ssl_certfile=str(certificate), ssl_keyfile=str(key)) as port:
        stage.servers["s"] = McpServer(url=f"https://127.0.0.1:{port}/")
        sentence = blocked(await stage.call("add"))
        assert sentence.startswith("the certificate of the MCP server 's' is not trusted (self")
        assert "SSL_CERT_FILE" in sentence
        assert await stage.preflight("add") == sentence
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert "does not let us in (HTTP 403)" in blocked(await stage.call("add"))


@pytest.mark.parametrize(
    ("headers", "blocks", "sentence"),
    [
        ({}, [b"x" * 100_000] * 30, "it sent a message of more than 1 MiB"),
        ({"content-encoding": "gzip"}, [b"\x1f\x8b"], "it compresses what it was asked not to"),
    ],
)
async def test_an_answer_over_http_is_bounded(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    blocks: list[bytes],
    sentence: str,
) -> None:
    await stage.by_hand("plain")  # imports the package
    monkeypatch.setattr("engine.executors.mcp.ways._LONGEST", 1024 * 1024)
    app = answering(200, {"content-type": "application/json"} | headers, *blocks)
    async with serving(app) as port:
        stage.servers["s"] = McpServer(url=f"http://127.0.0.1:{port}/")
        assert failed(await stage.call("add")) == f"MCP server 's': {sentence}"


@pytest.mark.parametrize("value", ["sesame\nopens-the-door", "sesame-\u00f6pens", "a\x7fb-sesame"])
async def test_a_header_that_cannot_be_sent_is_named_and_not_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DOOR", value)
    stage.servers["s"] = McpServer(url="http://localhost/", headers={"X-Door": "Bearer ${DOOR}"})
    sentence = blocked(await stage.call("do"))
    assert sentence.startswith("mcp.s.headers.X-Door: holds what no header can")
    assert "sesame" not in sentence


async def test_a_variable_with_a_line_end_makes_a_header_and_is_hidden_without_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR", f"{TOKEN}\n")
    said = json.dumps({"jsonrpc": "2.0", "id": 0, "error": {"code": 1, "message": f"no {TOKEN}"}})
    app = answering(400, {"content-type": "application/json"}, said.encode())
    async with serving(app) as port:
        stage.servers["s"] = McpServer(
            url=f"http://127.0.0.1:{port}/", headers={"X-Door": "${DOOR}"}
        )
        sentence = failed(await stage.call("do"))
    assert "no [secret DOOR]" in sentence
    assert TOKEN not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "http://${DOOR}:x@localhost:port/",
        "http://localhost:99999999/${DOOR}",
        "http://[::1/${DOOR}",
        "http:///${DOOR}",
        "http://x y/${DOOR}\x1b[2J",
    ],
)
async def test_a_url_that_is_none_is_not_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DOOR", TOKEN)
    stage.servers["s"] = McpServer(url=url)
    assert blocked(await stage.call("do")).startswith("mcp.s.url: is no address; mend it")


async def test_a_url_takes_secrets_of_the_environment_and_never_tells_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR", TOKEN)
    paths: list[str] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        paths.append(scope["query_string"].decode())
        await respond(send, 500, {"content-type": "text/plain"}, TOKEN.encode())

    async with serving(app) as port:
        stage.servers["s"] = McpServer(url=f"http://127.0.0.1:{port}/?apiKey=${{DOOR}}&x=1")
        sentence = failed(await stage.call("do"))
    assert paths[0] == f"apiKey={TOKEN}&x=1"
    assert TOKEN not in sentence
    assert "HTTP 500" in sentence


async def test_progress_is_told_clean_and_once_a_second_at_most(stage: Stage) -> None:
    clock = ManualClock()
    stage.clock = clock
    async with over_http([]) as url:
        stage.servers["s"] = McpServer(url=url)
        run = asyncio.create_task(stage.call("slow", seconds=0.5))
        await clock.until_asleep()
        assert stage.notes == ["step 1 (1/10)"]
        result_of(await run)
    assert clock.slept == [1.0]
    assert stage.notes == ["step 1 (1/10)"]


# What is refused


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ({}, "payload: needs the names of a server and of a tool"),
        ({"server": "s", "tool": 1}, "payload: needs the names of a server and of a tool"),
        ({"server": "s", "tool": "t", "arguments": []}, "payload.arguments: must be a mapping"),
        ({"server": "by hand", "tool": "t"}, "server is called 'by hand' (is it by-hand?); add"),
        ({"server": "x", "tool": "t"}, "no MCP server is called 'x' (there is by-hand, holey"),
        ({"server": "lacks", "tool": "t"}, "mcp.lacks.command: 'no-such-program' was not found"),
        ({"server": "nowhere", "tool": "t"}, "mcp.nowhere.cwd: "),
        ({"server": "holey", "tool": "t"}, "mcp.holey.env.A: the variable NOT_THERE is not set"),
        ({"server": "top", "tool": "t"}, "mcp.top.headers.A: the variable NOT_THERE is not set"),
        ({"server": "by-hand", "tool": "dot"}, "has no tool 'dot' (is it do?); mend payload.tool"),
        ({"server": "by-hand", "tool": "xxx"}, "has no tool 'xxx' (there is do, respond)"),
        ({"server": "by-hand", "tool": "respond"}, "payload.arguments: 'response' is a required"),
        (
            {"server": "by-hand", "tool": "respond", "arguments": {"response": 5}},
            "payload.arguments.response: 5 is not of type 'object'; mend the DAG",
        ),
    ],
)
async def test_what_no_retry_can_help_is_blocked_and_found_by_the_preflight(
    stage: Stage, payload: dict[str, Any], sentence: str
) -> None:
    stage.servers = {
        "by-hand": McpServer(command=command("plain")),
        "lacks": McpServer(command=("no-such-program",)),
        "nowhere": McpServer(command=command("plain"), cwd="no/such/folder"),
        "holey": McpServer(command=command("plain"), env={"A": "x${NOT_THERE}"}),
        "top": McpServer(url="http://localhost/", headers={"A": "${NOT_THERE}"}),
    }
    async with asyncio.timeout(PATIENCE):
        outcome = await builtin_executors()["mcp-call"].run(stage.context(**payload))
    assert sentence in blocked(outcome)
    assert stage.tree() == set()
    if "server" in payload and isinstance(payload["tool"], str) and payload.get("arguments") != []:
        told = await stage.preflight(
            payload["tool"], payload["server"], **payload.get("arguments", {})
        )
        assert told == outcome.error


async def test_the_preflight_calls_nothing_and_writes_nothing(stage: Stage) -> None:
    stage.servers["s"] = McpServer(command=command("dies"))
    assert await stage.preflight("do") is None
    assert not stage.folder.exists()


async def test_the_preflight_looks_at_each_server_once_and_at_every_call(stage: Stage) -> None:
    script = f"echo x >> starts; exec {' '.join(command('plain'))}"
    stage.servers["s"] = McpServer(command=("sh", "-c", script))
    payload = {"kind": "mcp-call", "server": "s", "tool": "respond"}
    payloads = [payload | {"arguments": {"response": {"n": n}}} for n in range(30)]
    wrong = [payload | {"arguments": {"response": n}} for n in range(30)]
    unfit = await stage.look(*payloads, *wrong, payload | {"tool": "nothing"})
    assert list(unfit) == [str(n) for n in range(30, 61)]
    assert "response: 7 is not of type" in unfit["37"]
    assert "has no tool 'nothing'" in unfit["60"]
    assert (stage.project / "starts").read_text() == "x\n"


async def test_mute_servers_cost_a_preflight_its_patience_once_and_leave_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.executors.mcp.lookahead.PREFLIGHT", 3.0)
    monkeypatch.setattr("engine.executors.mcp.lookahead._AT_ONCE", 4)
    names = [f"mute-{n}" for n in range(6)]
    script = f"echo x >> starts; exec {' '.join(command('stubborn-mute'))}"
    stage.servers = {name: McpServer(command=("sh", "-c", script)) for name in names}
    stage.servers["s"] = McpServer(command=("no-such-program",))
    payloads = [{"kind": "mcp-call", "server": name, "tool": "do"} for name in (*names, "s")]
    starts = stage.project / "starts"
    starts.touch()
    unfit = await stage.look(*payloads)
    assert list(unfit) == ["6"], "who says nothing may say something when the run comes"
    started = starts.read_text()
    assert len(started.split()) <= 4, "so many at a time"
    await stage.look(*payloads)
    assert starts.read_text() == started, "they are not waited for again"


async def test_a_preflight_that_is_cut_short_leaves_no_server(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.executors.mcp.lookahead.PREFLIGHT", PATIENCE)
    stage.servers["s"] = McpServer(command=command("stubborn-mute"))
    look = asyncio.create_task(stage.preflight("do"))
    state = stage.project / "state"
    await until(lambda: len(tagged(state)) == 1)
    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look
    assert tagged(state) == {}


async def test_without_the_package_it_says_what_to_install(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "engine.executors.mcp.conversation", raising=False)
    monkeypatch.delattr("engine.executors.mcp.conversation", raising=False)
    for name in ("mcp", "mcp.client.session"):
        monkeypatch.setitem(sys.modules, name, None)
    sentence = blocked(await stage.by_hand("plain"))
    assert "uv tool install '.[mcp]'" in sentence


def test_the_package_is_not_imported_until_a_task_needs_it() -> None:
    assert importlib.util.find_spec("mcp") is not None
    code = (
        "import sys, engine.core, engine.executors as e; e.builtin_executors(); "
        "sys.exit(bool({'mcp', 'pydantic', 'jsonschema', 'httpx2'} & set(sys.modules)))"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


# What a server is given


async def test_a_server_gets_its_own_variables_and_none_of_ours_but_a_few(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_TOKEN", "not-for-this-server")
    monkeypatch.setenv("DATABASE", "db.example")
    (stage.project / "there").mkdir()
    stage.servers["s"] = McpServer(
        command=command("environment"),
        env={"URL": "https://${DATABASE}/x", "SECRET": TOKEN},
        cwd="there",
    )
    text = str(result_of(await stage.call("do"))["text"])
    variables = json.loads(text)
    assert variables["URL"] == "https://db.example/x"
    assert variables["cwd"] == str((stage.project / "there").resolve())
    assert variables["PATH"] == os.environ["PATH"]
    assert variables["AGENTMUX_RUN_ID"] == "run-1"
    assert "OTHER_TOKEN" not in variables
    assert variables["SECRET"] == "[SECRET]"
    assert TOKEN not in (stage.folder / "result.json").read_text()


async def test_a_server_is_recorded_and_tagged_before_it_is_spoken_to(stage: Stage) -> None:
    stage.servers["s"] = McpServer(command=command("sleeps"))
    trees: list[set[ProcessId]] = []
    heard: list[str] = []
    stage.on_started = lambda: heard.append(stage.stderr())

    def called() -> bool:
        if "got tools/call" in stage.stderr():
            trees.append(tree_of("run-1", stage.project / "state", ()))
        return bool(trees)

    await stopped(stage, called)
    assert heard == [""]
    assert trees == [set(stage.started)]


async def test_a_server_whose_run_lost_its_task_at_once_hears_nothing_and_is_ended(
    stage: Stage,
) -> None:
    stage.lost = True
    with pytest.raises(LeaseLost):
        await stage.by_hand("plain")
    assert stage.tree() == set()
    assert stage.stderr() == ""


# What comes back


async def test_texts_are_joined_and_harmless_and_links_are_listed(stage: Stage) -> None:
    content = [
        {"type": "text", "text": "one\x1b[2J"},
        {"type": "resource", "resource": {"uri": "file:///a", "text": "two\r\nthree"}},
        {"type": "resource_link", "uri": "https://example.org/\u202e", "name": "n"},
    ]
    outcome = await stage.respond(content=content)
    result = result_of(outcome)
    assert result["text"] == "one\ntwo\nthree"
    assert result["links"] == ["https://example.org/"]
    assert json.loads((stage.folder / "result.json").read_text())["content"][:2] == content[:2]


async def test_pictures_sounds_and_blobs_become_files_with_names_of_ours(stage: Stage) -> None:
    def item(kind: str, mime: str, data: bytes) -> dict[str, str]:
        return {"type": kind, "mimeType": mime, "data": base64.b64encode(data).decode()}

    blob = {"uri": "file:///../../x", "blob": "aGVsbG8=", "mimeType": "../../etc/passwd"}
    content = [
        item("image", "image/PNG; x=y", PNG),
        item("audio", "audio/wav", b"RIFF"),
        {"type": "resource", "resource": blob},
        {"type": "image", "mimeType": "image/png", "data": "no base64 at all!"},
        {"type": "image", "mimeType": "image/gif", "data": "R0lG\nODlh"},
    ]
    result = result_of(await stage.respond(content=content))
    files = ["image-1.png", "audio-2.wav", "resource-3.bin", "image-5.gif"]
    assert result["files"] == files
    assert [(stage.folder / name).read_bytes() for name in files] == [
        PNG,
        b"RIFF",
        b"hello",
        b"GIF89a",
    ]
    assert {stat.S_IMODE((stage.folder / name).stat().st_mode) for name in files} == {0o600}
    (note,) = result["notes"]
    assert note.startswith("content[3] is no base64: ")


async def test_what_is_too_long_for_the_store_is_cut_and_kept_in_the_file(stage: Stage) -> None:
    text = "\N{EURO SIGN}" * 300_000
    structured = {"all": "x" * 70_000}
    outcome = await stage.respond(
        content=[{"type": "text", "text": text}], structuredContent=structured
    )
    result = result_of(outcome)
    assert len(result["text"].encode()) <= 65_536
    assert result["text"].endswith("(cut; result.json has all of it)")
    assert "structuredContent" not in result
    assert "structuredContent is too long" in result["notes"][0]
    response = json.loads((stage.folder / "result.json").read_text())
    assert response["content"][0]["text"] == text
    assert response["structuredContent"] == structured


async def test_a_message_of_many_megabytes_arrives_whole(stage: Stage) -> None:
    data = base64.b64encode(bytes(6_000_000)).decode()
    content = [{"type": "image", "mimeType": "image/webp", "data": data}]
    assert result_of(await stage.respond(content=content))["files"] == ["image-1.webp"]
    assert (stage.folder / "image-1.webp").stat().st_size == 6_000_000


async def test_an_error_response_is_a_failure_with_its_text(stage: Stage) -> None:
    content = [{"type": "text", "text": "the \x1b[5mdisk\nis full"}]
    outcome = await stage.respond(content=content, isError=True)
    assert failed(outcome) == "respond answers with an error: the disk is full"
    assert outcome.result is not None
    assert outcome.result["text"] == "the disk\nis full"
    assert json.loads((stage.folder / "result.json").read_text())["isError"] is True


async def test_secrets_are_kept_out_of_results_errors_and_progress(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", TOKEN)
    said = [{"type": "text", "text": f"key={TOKEN}"}]
    outcome = await stage.respond(content=said, structuredContent={TOKEN: [TOKEN]}, isError=True)
    assert failed(outcome) == "respond answers with an error: key=[MY_API_KEY]"
    assert TOKEN not in json.dumps(outcome.result)
    assert TOKEN not in (stage.folder / "result.json").read_text()


# Servers that misbehave


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("dies", "MCP server 's': it is gone (exit code 7): out of cheese"),
        ("dies-leaving", "MCP server 's': it is gone (exit code 7): out of cheese"),
        ("closes", "MCP server 's': it closed the connection: closing"),
        ("exits", "MCP server 's': it is gone (exit code 1): no such database: /etc/cheese"),
        ("garbage", "it prints what is no message of the protocol: Listening on port 8000"),
        ("half", 'it sent a message that cannot be read: {"jsonrpc": "2.0", "id": 3, "result"'),
        (
            "unfit",
            "what do returned is not as it promises: structuredContent.n: 'bad' is not of type",
        ),
        ("promises", "MCP server 's': do promises structured content and returned none"),
        ("newlines", "it prints what is no message of the protocol"),
        ("huge", "MCP server 's': it sent a message of more than 64 MiB"),
    ],
)
async def test_a_server_that_fails_is_told_by_what_it_did_and_said_last(
    stage: Stage, mode: str, sentence: str
) -> None:
    outcome = await stage.by_hand(mode)
    assert sentence in failed(outcome)
    assert outcome.exit_code == (7 if mode.startswith("dies") else 1 if mode == "exits" else None)


async def test_a_mute_server_fails_once_it_had_time_to_connect(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.executors.mcp.asking.CONNECT", 0.5)
    sentence = failed(await stage.by_hand("mute"))
    assert sentence.startswith("MCP server 's': it did not tell its tools within 0.5 s")


@pytest.mark.parametrize("mode", ["plain", "modern", "chatty", "debug", "child"])
async def test_servers_of_all_ages_are_understood_and_nothing_of_them_is_left(
    stage: Stage, mode: str
) -> None:
    assert result_of(await stage.by_hand(mode))["text"] == ""


async def test_a_flood_on_stderr_holds_up_nobody_and_its_log_is_capped(stage: Stage) -> None:
    result_of(await stage.by_hand("floods"))
    assert (stage.folder / "stderr.log").stat().st_size <= 70_000
    assert "of output left out here" in stage.stderr()


async def test_no_question_of_the_newest_protocol_holds_up_an_older_server(stage: Stage) -> None:
    await stage.by_hand("plain")  # imports the package
    took = min([result_of(await stage.by_hand("plain"))["durationMs"] for _ in range(3)])
    assert took < 8000, "the SDK's own probe would wait for ten seconds"


async def test_a_stop_tells_the_server_and_ends_it(stage: Stage) -> None:
    stage.servers["s"] = McpServer(command=command("mute-call"))
    await stopped(stage, lambda: "got tools/call" in stage.stderr())
    assert "got notifications/cancelled" in stage.stderr()


async def test_a_stop_while_a_server_starts_ends_it(stage: Stage) -> None:
    stage.servers["s"] = McpServer(command=command("mute"))
    await stopped(stage, lambda: bool(stage.started))


async def test_a_server_that_ignores_sigterm_and_the_end_of_its_input_is_killed(
    stage: Stage,
) -> None:
    stage.servers["s"] = McpServer(command=command("stubborn"))
    stage.grace = 0.2
    took = await stopped(stage, lambda: "got tools/call" in stage.stderr())
    assert took < PATIENCE / 2
    assert not any(map(is_alive, stage.started))


async def test_a_stop_in_the_moment_of_the_answer_loses_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer_and_stop(
        _way: object, *, answer: asyncio.Future[Any], **_more: object
    ) -> None:
        answer.set_result({"content": [{"type": "text", "text": "done"}]})
        run.cancel()

    monkeypatch.setattr("engine.executors.mcp.conversation.converse", answer_and_stop)
    stage.servers["s"] = McpServer(url="http://localhost/")
    run = asyncio.create_task(stage.call("do"))
    assert result_of(await run)["text"] == "done"


async def test_a_stop_that_comes_after_the_answer_loses_nothing(stage: Stage) -> None:
    stage.servers["s"] = McpServer(command=command("stubborn"))
    stage.grace = 1.0
    context = stage.context(server="s", tool="respond", arguments={"response": {"content": []}})
    run = asyncio.create_task(builtin_executors()["mcp-call"].run(context))
    await until(lambda: "no more input" in stage.stderr())
    run.cancel()  # it has answered, and does not end: that takes its second
    async with asyncio.timeout(PATIENCE):
        assert (await run).kind is RunOutcome.DONE
    assert stage.tree() == set()
