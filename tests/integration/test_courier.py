"""Alerts reach a mailbox, a webhook and a command; what fails is tried again, then reported."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import threading
from contextlib import asynccontextmanager, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import until
from support.stores import tuples

from engine import courier as courier_module
from engine.clock import SystemClock
from engine.config import AlertsConfig, Mailbox, Webhook
from engine.courier import Courier
from engine.feed import Feed
from engine.files import Layout
from engine.model import AlertKind, NewAlert
from engine.processes import calling
from engine.store.lookout import Lookout
from engine.store.reader import Reader
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

ALERT = NewAlert(AlertKind.LOG, "app.log", "1 line in app.log: ERROR", body="alerts/one.md")


class Hook:
    """A webhook that answers with `code`, and keeps what it was sent."""

    def __init__(self) -> None:
        self.code = 200
        self.got: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.release = threading.Event()
        self.release.set()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                hook.release.wait(30)
                hook.got.append((dict(self.headers), json.loads(data)))
                self.send_response(hook.code)
                if hook.code == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                hook.got.append(({}, {"followed": self.path}))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook"


@contextmanager
def a_hook() -> Iterator[Hook]:
    hook = Hook()
    thread = threading.Thread(target=hook.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hook
    finally:
        hook.release.set()
        hook.server.shutdown()
        thread.join()
        hook.server.server_close()


class Post:
    """A store, and a courier at work over it."""

    def __init__(self, folder: Path, config: AlertsConfig) -> None:
        self.folder = folder
        self.layout = Layout(folder / "state")
        self.config = config
        self.store: Store

    async def raised(self, alert: NewAlert = ALERT) -> None:
        await self.store.raise_alerts([alert], self.config.targets)

    def waiting(self) -> list[tuple[Any, ...]]:
        return tuples(self.layout, "SELECT alert, target, attempts FROM deliveries ORDER BY 1, 2")

    async def until_delivered(self) -> None:
        await until(lambda: not self.waiting(), "all is delivered")

    def alerts(self) -> list[str]:
        return [row[0] for row in tuples(self.layout, "SELECT summary FROM alerts ORDER BY id")]


@asynccontextmanager
async def a_post(folder: Path, config: AlertsConfig) -> AsyncIterator[Post]:
    post = Post(folder, config)
    post.layout.create()
    (post.layout.alerts / "one.md").write_text("# what was found\n")
    reader = Reader(post.layout.database)
    feed = Feed(reader, post.layout.database)
    clock = SystemClock()
    post.store = Store(post.layout, clock, lease=600, on_commit=lambda _: feed.publish())
    await post.store.open()
    async with reader:
        await feed.open()
        courier = Courier(
            config=config,
            store=post.store,
            lookout=Lookout(reader, clock),
            feed=feed,
            layout=post.layout,
            project=folder,
            clock=clock,
        )
        at_work = asyncio.create_task(courier.carry())
        try:
            yield post
        finally:
            at_work.cancel()
            await asyncio.gather(at_work, return_exceptions=True)
            await feed.close()
            await post.store.close()


def quickly(monkeypatch: pytest.MonkeyPatch, most: int = 3) -> None:
    monkeypatch.setattr(courier_module, "_FIRST", 0.02)
    monkeypatch.setattr(courier_module, "_MOST", most)


def command(folder: Path, code: int = 0) -> tuple[str, ...]:
    script = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"
    return (sys.executable, "-c", f"{script}; sys.exit({code} and 'no door')", str(folder / "got"))


async def test_an_alert_goes_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "42")
    with a_hook() as hook:
        config = AlertsConfig(
            Mailbox("mail.txt", "planner"),
            Webhook(hook.url, {"Authorization": "Bearer ${HOOK}"}),
            command(tmp_path),
        )
        async with a_post(tmp_path, config) as post:
            await post.raised()
            await post.until_delivered()
        ((headers, sent),) = hook.got
    assert headers["Authorization"] == "Bearer 42"
    assert (sent["id"], sent["text"], sent["body"]) == (1, ALERT.summary, "# what was found\n")
    assert json.loads((tmp_path / "got").read_text()) == sent
    (line,) = (tmp_path / "mail.txt").read_text().splitlines()
    body = post.layout.alerts / "one.md"
    said = f"system:log-watcher -> planner: 1 line in app.log: ERROR (body: {body})"
    assert line == f"[{sent['ts']}] {said}"
    assert (tmp_path / "mail.txt").stat().st_mode & 0o777 == 0o600


async def test_what_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly(monkeypatch, most=1000)
    with a_hook() as hook:
        hook.code = 503
        async with a_post(tmp_path, AlertsConfig(webhook=Webhook(hook.url))) as post:
            await post.raised()
            await until(lambda: post.waiting() and post.waiting()[0][2] >= 3, "it was tried")
            hook.code = 200
            await post.until_delivered()
        assert post.alerts() == [ALERT.summary]


async def test_a_clock_that_is_set_back_puts_nothing_off_for_days(tmp_path: Path) -> None:
    config = AlertsConfig(mailbox=Mailbox("post/mail.txt"))
    async with a_post(tmp_path, config) as post:
        await post.raised()
        await until(lambda: post.waiting() and post.waiting()[0][2] == 1, "it was tried")
        (tmp_path / "post").mkdir()
        with closing(sqlite3.connect(post.layout.database)) as db, db:
            db.execute("UPDATE deliveries SET next_at = '2999-01-01T00:00:00.000Z'")
        await post.until_delivered()
    assert (tmp_path / "post" / "mail.txt").exists()


async def test_then_it_is_reported_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)
    config = AlertsConfig(Mailbox("mail.txt"), None, command(tmp_path, code=1))
    async with a_post(tmp_path, config) as post:
        for _ in range(3):
            await post.raised()
        await post.until_delivered()
    *told, report = post.alerts()
    assert told == [ALERT.summary] * 3
    assert report.startswith("alerts do not reach the command: ")
    assert "ended with 1: no door" in report
    assert len((tmp_path / "mail.txt").read_text().splitlines()) == 3


async def test_one_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    with a_hook() as hook:
        hook.release.clear()
        config = AlertsConfig(Mailbox("mail.txt"), Webhook(hook.url))
        async with a_post(tmp_path, config) as post:
            for _ in range(3):
                await post.raised()
            mail = tmp_path / "mail.txt"
            await until(lambda: mail.exists() and len(mail.read_text().splitlines()) == 3, "mail")
            hook.release.set()
            await post.until_delivered()


async def test_a_webhook_is_not_followed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch, most=1)
    with a_hook() as hook:
        hook.code = 302
        async with a_post(tmp_path, AlertsConfig(webhook=Webhook(hook.url))) as post:
            await post.raised()
            await post.until_delivered()
        assert [sent.get("followed") for _, sent in hook.got] == [None]
    assert "the webhook answered 302" in post.alerts()[1]


async def test_a_secret_in_a_complaint_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch, most=1)
    monkeypatch.setenv("HOOK_TOKEN", "sesame-4242")
    script = (sys.executable, "-c", "import sys; sys.exit('bad token sesame-4242')")
    async with a_post(tmp_path, AlertsConfig(command=script)) as post:
        await post.raised()
        await post.until_delivered()
    assert "bad token [HOOK_TOKEN]" in post.alerts()[1]


async def test_no_file_but_one_of_alerts_is_handed_on(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("not for others")
    config = AlertsConfig(command=command(tmp_path))
    async with a_post(tmp_path, config) as post:
        for body in ("../private", str(tmp_path / "private"), "alerts/../../private", ".."):
            await post.raised(NewAlert(AlertKind.LOG, "a", "b", body=body))
        await post.until_delivered()
    assert "not for others" not in (tmp_path / "got").read_text()


async def test_nobody_delivers_to_what_is_not_wanted_any_more(tmp_path: Path) -> None:
    async with a_post(tmp_path, AlertsConfig()) as post:
        await post.store.raise_alerts([ALERT], ["mailbox"])
    async with a_post(tmp_path, AlertsConfig(command=command(tmp_path))) as post:
        await post.until_delivered()
    assert not (tmp_path / "got").exists()


async def test_a_line_of_a_mailbox_cannot_act(tmp_path: Path) -> None:
    async with a_post(tmp_path, AlertsConfig(mailbox=Mailbox("mail.txt"))) as post:
        await post.raised(NewAlert(AlertKind.LOG, "a", "evil\x1b[31m\nline"))
        await post.until_delivered()
    (line,) = (tmp_path / "mail.txt").read_text().splitlines()
    assert line.endswith("system:log-watcher -> operator: evil line")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
async def test_a_mailbox_that_is_no_file_is_told_and_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    quickly(monkeypatch, most=1)
    mail = tmp_path / "mail.txt"
    match kind:
        case "pipe":
            os.mkfifo(mail)
        case "device":
            mail.symlink_to("/dev/full")
        case "folder":
            mail.mkdir()
    async with a_post(tmp_path, AlertsConfig(mailbox=Mailbox("mail.txt"))) as post:
        await post.raised()
        await post.until_delivered()
    assert post.alerts()[1].startswith(f"alerts do not reach the mailbox: {mail}: ")


async def test_a_mailbox_on_a_full_disk_has_not_got_the_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch, most=1000)
    mail = tmp_path / "mail.txt"
    config = AlertsConfig(mailbox=Mailbox("mail.txt"))
    write = os.write
    monkeypatch.setattr("engine.files.os.write", lambda handle, data: write(handle, data[:10]))
    async with a_post(tmp_path, config) as post:
        await post.raised()
        await until(lambda: post.waiting() and post.waiting()[0][2] >= 1, "it was tried")
        monkeypatch.undo()
        await post.until_delivered()
    assert "1 line in app.log: ERROR" in mail.read_text()


async def test_a_command_that_floods_fills_neither_disk_nor_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch, most=1)
    monkeypatch.setattr(calling, "_FLOOD", 1 << 20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import os, sys, time; line = b'x' * 65535 + b'\\n'\n"
        "held = lambda: os.fstat(2).st_blocks * 512\n"
        "for _ in range(3):\n"
        "    while held() < 8 << 20: os.write(1, line); os.write(2, line)\n"
        "    while held() >= 8 << 20: time.sleep(0.01)\n"
        "sys.exit('three times it was too much')\n"
    )
    config = AlertsConfig(command=(sys.executable, "-c", script))
    async with a_post(tmp_path, config) as post:
        await post.raised()
        await post.until_delivered()
    assert "ended with 1: three times it was too much" in post.alerts()[1]
