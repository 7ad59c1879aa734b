"""Hands alerts on: into a mailbox file, to a webhook, to a command.

What has to go where is in the store, noted in the transaction that raised the alert. What fails is
tried again, with pauses that grow; after `_MOST` times it is given up, and that is an alert itself,
once until the target works again. Targets do not wait for each other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.clock import to_iso
from engine.files import append_regular, read_regular
from engine.model import AlertKind, NewAlert, to_json
from engine.processes.calling import call
from engine.secrets import fill, redact
from engine.text import clean_text
from engine.web import NoAnswer, ask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import AlertsConfig, Mailbox, Webhook
    from engine.feed import Feed
    from engine.files import Layout
    from engine.store.alerts import Delivery
    from engine.store.lookout import Lookout
    from engine.store.store import Store
    from engine.views import AlertRow

log = logging.getLogger(__name__)

_FIRST = 5.0
"""Seconds until the second try; each later one waits twice as long as the one before."""
_MOST = 8
"""Tries, within about ten minutes."""
_TIMEOUT = 15.0
"""Seconds that a webhook or a command may take."""
_LONGEST_BODY = 64 * 1024
_AT_ONCE = 50
_SENDERS = {AlertKind.LOG: "log-watcher"}


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """A target did not take an alert; the text says why."""


class Courier:
    """Hands on what the store has to be handed on."""

    def __init__(
        self,
        *,
        config: AlertsConfig,
        store: Store,
        lookout: Lookout,
        feed: Feed,
        layout: Layout,
        project: Path,
        clock: Clock,
    ) -> None:
        self._config = config
        self._targets = config.targets
        self._store = store
        self._lookout = lookout
        self._feed = feed
        self._layout = layout
        self._project = project
        self._clock = clock
        self._failing: set[str] = set()

    async def carry(self) -> None:
        """Hand alerts on until cancelled. Raises AgentmuxErrors: the store does not answer."""
        await self._store.forget_targets(self._targets)
        async with asyncio.TaskGroup() as group:
            for target in self._targets:
                group.create_task(self._serve(target), name=f"alerts to the {target}")

    async def _serve(self, target: str) -> None:
        async with self._feed.subscribe() as changed:
            while True:
                changed.clear()
                wait = await self._lookout.next_delivery(target)
                if wait is None or wait > 0:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await changed.wait()
                    continue
                for one in await self._lookout.due_deliveries(target, _AT_ONCE):
                    await self._hand_over(one)

    async def _hand_over(self, one: Delivery) -> None:
        try:
            await self._deliver(one.target, one.alert)
        except _Refused as error:
            await self._fail(one, str(error))
        else:
            await self._store.delivered(one.alert.id, one.target)
            self._failing.discard(one.target)

    async def _fail(self, one: Delivery, why: str) -> None:
        why = clean_text(redact(why, os.environ))[:500]
        if one.attempts + 1 < _MOST:
            wait = _FIRST * 2**one.attempts
            await self._store.put_off(one.alert.id, one.target, why, wait)
            return
        log.warning("alert %s did not reach the %s: %s", one.alert.id, one.target, why)
        alert = NewAlert(
            kind=AlertKind.DELIVERY,
            subject=one.target,
            summary=f"alerts do not reach the {one.target}: {why}; mend `alerts:` in agentmux.yaml",
            error=True,
        )
        known = one.target in self._failing
        self._failing.add(one.target)
        await self._store.give_up(one.alert.id, one.target, None if known else alert)

    async def _deliver(self, target: str, alert: AlertRow) -> None:
        """Hand one alert over. Raises _Refused."""
        config = self._config
        if target == "mailbox" and config.mailbox is not None:
            await asyncio.to_thread(self._append, config.mailbox, alert)
        elif target == "webhook" and config.webhook is not None:
            message = await asyncio.to_thread(self._message, alert)
            await _post(config.webhook, message)
        elif target == "command" and config.command is not None:
            message = await asyncio.to_thread(self._message, alert)
            await self._run(config.command, message)

    def _append(self, mailbox: Mailbox, alert: AlertRow) -> None:
        """Append a line, as one write: others may append to the same file."""
        path = self._project / os.path.expanduser(mailbox.file)  # noqa: PTH111 - `~name`, too
        try:
            append_regular(path, f"{self.line(mailbox.to, alert)}\n".encode())
        except OSError as error:
            raise _Refused(f"{path}: {error.strerror}") from error

    def line(self, to: str, alert: AlertRow) -> str:
        """Return an alert as a line of a mailbox."""
        body = f" (body: {self._layout.alert_file(alert.body)})" if alert.body else ""
        sender = _SENDERS.get(alert.kind, "alerts")
        return clean_text(f"[{to_iso(alert.ts)}] system:{sender} -> {to}: {alert.summary}{body}")

    def _message(self, alert: AlertRow) -> bytes:
        """Return an alert as JSON. `text` is what chats show that take webhooks."""
        told: dict[str, Any] = to_json(alert)
        del told["acknowledgedAt"], told["undelivered"]
        body = ""
        if alert.body is not None:
            with suppress(OSError):
                body = read_regular(self._layout.alert_file(alert.body))[:_LONGEST_BODY]
        told |= {"text": alert.summary, "body": body, "project": str(self._project)}
        return json.dumps(told).encode()

    async def _run(self, command: tuple[str, ...], message: bytes) -> None:
        try:
            called = await call(
                command,
                cwd=self._project,
                env=os.environ,
                seconds=_TIMEOUT,
                given=message,
                wants_output=False,
            )
        except TimeoutError as error:
            raise _Refused(f"{command[0]} took longer than {_TIMEOUT:g} s") from error
        except (OSError, ValueError) as error:
            raise _Refused(f"{command[0]} cannot be started: {error}") from error
        if called.code != 0:
            said = called.err.strip().splitlines()
            why = f": {said[-1]}" if said else ""
            raise _Refused(f"{command[0]} ended with {called.code}{why}")


async def _post(webhook: Webhook, message: bytes) -> None:
    """Post JSON. Raises _Refused for whatever is no success."""
    headers: Mapping[str, str] = {
        "Content-Type": "application/json",
        "User-Agent": "agentmux",
        **webhook.headers,
    }
    try:
        url, *values = (fill(text, os.environ) for text in (webhook.url, *headers.values()))
        filled = dict(zip(headers, values, strict=True))
        request = urllib.request.Request(url, data=message, headers=filled, method="POST")  # noqa: S310 - the settings take http and https alone
    except KeyError as error:
        raise _Refused(f"the variable {error.args[0]} is not set") from error
    except ValueError as error:
        raise _Refused(f"the webhook has no such URL: {error}") from error
    try:
        answer = await ask(request, seconds=_TIMEOUT)
    except NoAnswer as error:
        raise _Refused(f"the webhook did not answer: {error}") from error
    if not 200 <= answer.status < 300:
        raise _Refused(f"the webhook answered {answer.status} {answer.reason}")
