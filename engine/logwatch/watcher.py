"""Watches logs: those that the settings name, the errors of every run, and our own.

One process of a state folder does, whoever holds the lock. It is woken by the file system, and
looks every `_POLL` seconds all the same. What it finds becomes an alert; within the cooldown of a
log further lines wait for the next one. How far each log was read is noted together with what was
found there, so that the next process, or this one after a crash, goes on from the same line.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.clock import to_stamp
from engine.errors import AgentmuxError
from engine.files import shown_path
from engine.logwatch.discovering import discover, most_at_once
from engine.logwatch.finding import Finder
from engine.logwatch.gathering import GatheredLog
from engine.logwatch.waking import Waker
from engine.shield import shielded
from engine.store.watched import WatchedLog, WatchedRun, Watching
from engine.text import clean_text, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.clock import Clock
    from engine.config import WatchConfig
    from engine.files import Layout
    from engine.model import NewAlert
    from engine.store.lookout import Lookout
    from engine.store.store import Store

log = logging.getLogger(__name__)

STDERR = "stderr.log"
"""Of a run, in its folder."""

_POLL = 2.0
"""Seconds between two looks that nobody has asked for."""
_PAUSE = 0.2
"""Seconds at least between two looks."""
_NOTE = 5.0
"""Seconds after which it is noted how far logs were read in which nothing was found."""
_SHARE = 50
"""A look for files that took long is good for so many times as long."""
_RUNS = 500
"""Runs at most whose output is taken up in one look."""
_OWN = "own"
_FILE = "file:"
_RUN = "run:"


class _Seen(Struct):
    """What one look has seen, by the sources of the logs. `due_in`: seconds until more is told."""

    news: dict[str, WatchedLog] = field(default_factory=dict)
    told: dict[str, WatchedLog] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    alerts: list[NewAlert] = field(default_factory=list)
    trouble: dict[str, str] = field(default_factory=dict)
    due_in: float = float("inf")
    behind: bool = False


class LogWatcher:
    """Watches the logs of one state folder. `targets` are where alerts have to go; see Courier."""

    def __init__(
        self,
        *,
        config: WatchConfig,
        targets: tuple[str, ...],
        store: Store,
        lookout: Lookout,
        layout: Layout,
        project: Path,
        clock: Clock,
    ) -> None:
        self._files = config.files
        self._cooldown = timedelta(seconds=config.cooldown)
        self._finder = Finder(config.errors, config.ignore)
        self._targets = targets
        self._store = store
        self._lookout = lookout
        self._layout = layout
        self._project = project
        self._clock = clock
        self._most = most_at_once()
        self._waker = Waker()
        self._logs: dict[str, GatheredLog] = {}
        self._known: dict[str, WatchedLog] = {}
        self._named: frozenset[str] = frozenset()
        self._patterns = self._noted_patterns = frozenset[str]()
        self._upto = self._noted_upto = 0
        self._took_up_runs = self._behind = False
        self._unwanted: list[str] = []
        self._discover_at = self._note_at = 0.0
        self._said: dict[str, str] = {}

    async def watch(self) -> None:
        """Watch until cancelled.

        Raises:
            AgentmuxError: the store does not answer; begin anew.

        """
        await self.begin()
        try:
            while True:
                self._waker.woken.clear()
                due = await self.look()
                await asyncio.sleep(_PAUSE)
                try:
                    async with asyncio.timeout(max(0.0, min(_POLL, due) - _PAUSE)):
                        await self._waker.woken.wait()
                except TimeoutError:
                    continue
        finally:
            # The runs of this process are over by now: what they wrote last is told at once.
            with suppress(AgentmuxError):
                await shielded(self.look(), reraise=False)
            await self.end()

    async def begin(self) -> None:
        """Go on where the last one was. Raises AgentmuxError: the store does not answer."""
        known = await self._lookout.watched()
        self._known = dict(known.logs)
        self._patterns = self._noted_patterns = known.patterns
        self._upto = self._noted_upto = known.runs
        self._took_up_runs = False
        self._discover_at = self._note_at = 0.0

    async def end(self) -> None:
        """Let go of all files; the next who begins reads on in them."""
        await self._waker.close()
        for one in self._logs.values():
            one.close()
        self._logs.clear()

    async def look(self) -> float:
        """Look at all logs once; return in how many seconds something has to be told.

        Raises:
            AgentmuxError: the store does not answer; what was found is told by the next look.

        """
        await self._find_files()
        await self._find_runs()
        # To its end in any case: nobody may close a file that is being read.
        seen = await shielded(asyncio.to_thread(self._read))
        self._complain(seen.trouble)
        await self._note(seen)
        return 0.0 if seen.behind or self._behind else seen.due_in

    async def _find_files(self) -> None:
        now = self._clock.monotonic()
        if now < self._discover_at:
            return
        found = await asyncio.to_thread(discover, self._files, self._project, self._most)
        took = self._clock.monotonic() - now
        self._discover_at = now + max(_POLL, took * _SHARE)
        if not self._logs:
            self._go_on()
        for named in found.logs:
            if named.source not in self._logs:
                # Before this pattern was watched nobody wanted to know.
                fresh = WatchedLog(named.source, pattern=named.pattern)
                known = self._known.get(named.source, fresh)
                from_end = named.pattern not in self._patterns
                self._add(known, named.path, named.label, from_end=from_end)
        self._named = frozenset(named.source for named in found.logs)
        self._patterns = frozenset(self._files)
        await self._waker.follow(found.folders, found.deep)
        trouble = {"files": "", "names": ""}
        if found.more:
            words = f"{found.more:,} more than {self._most:,} files are not watched"
            trouble["files"] = f"{words}; see `ulimit -n`"
        if found.unnamed:
            files = plural(found.unnamed, "file is", "files are")
            trouble["names"] = f"{files} not watched: no UTF-8 in the name"
        self._complain(trouble)

    def _go_on(self) -> None:
        """Take up what others have read: files that were rotated away meanwhile, too."""
        own = WatchedLog(_OWN)
        self._add(self._known.get(_OWN, own), self._layout.own_log, "agentmux.log")
        files = [one for one in self._known.values() if one.source.startswith(_FILE)]
        for known in files[: self._most]:
            if known.pattern in self._files:
                path = Path(known.source.removeprefix(_FILE))
                self._add(known, path, shown_path(path, self._project))
            else:
                self._unwanted.append(known.source)

    def _add(
        self,
        known: WatchedLog,
        path: Path,
        label: str,
        *,
        from_end: bool = False,
        run: WatchedRun | None = None,
    ) -> None:
        self._logs[known.source] = GatheredLog(
            known,
            path,
            label,
            self._layout.alert_draft(known.source),
            from_end=from_end,
            run=run,
            others=self._logs.values(),
        )

    async def _find_runs(self) -> None:
        """Take up the output of runs that have begun, and hear which are over."""
        open_runs = {one.run.id for one in self._logs.values() if one.run is not None}
        if not self._took_up_runs:
            open_runs |= {
                source.removeprefix(_RUN) for source in self._known if source.startswith(_RUN)
            }
        most = min(_RUNS, self._most)
        runs = await self._lookout.watched_runs(self._upto, open_runs, most)
        self._took_up_runs = True
        # Purged: nothing more is written there, and nobody could be told whose it was.
        lost = open_runs - {run.id for run in runs}
        runs += [WatchedRun(0, run_id, "", over=True) for run_id in lost]
        await shielded(asyncio.to_thread(self._take_up, runs))
        self._upto = max([self._upto, *(run.n for run in runs)])
        self._behind = len(runs) - len(open_runs) >= most

    def _take_up(self, runs: Iterable[WatchedRun]) -> None:
        for run in runs:
            source = f"{_RUN}{run.id}"
            if (one := self._logs.get(source)) is not None and one.run is not None:
                one.run = WatchedRun(run.n, run.id, one.run.task_id, run.over)
                continue
            path = self._layout.run_folder(run.task_id, run.id) / STDERR
            if source in self._known or not run.over or path.exists():
                known = self._known.get(source, WatchedLog(source))
                self._add(known, path, f"the errors of {clean_text(run.task_id)}", run=run)

    def _read(self) -> _Seen:
        """Read what is new in every log, and write down what is to be told."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        seen = _Seen()
        with suppress(OSError):  # if it cannot be made, whoever writes there says so
            self._layout.alerts.mkdir(mode=0o700, exist_ok=True)
        for one in list(self._logs.values()):
            over = one.run is not None and one.run.over
            trouble = one.look(self._finder, monotonic, now, last=over)
            seen.behind |= one.behind
            over = over and not one.behind
            try:
                one.write()
                due = one.due(now, self._cooldown)
                if due is not None and due <= now:
                    body = self._layout.alert_body(to_stamp(now), one.label)
                    seen.alerts.append(one.alert(now, body, self._layout.state))
                    seen.told[one.source] = one.told(now, self._cooldown)
                elif due is not None:
                    seen.due_in = min(seen.due_in, (due - now).total_seconds())
            except OSError as error:
                # Tried again with the next look; until then the store knows nothing of these lines.
                trouble = f"{error.filename or self._layout.alerts}: {error.strerror}"
            else:
                if over or not (one.source in self._named or one.is_open or one.source == _OWN):
                    seen.gone.append(one.source)
                elif one.source not in seen.told and (news := one.news()) is not None:
                    seen.news[one.source] = news
            seen.trouble[one.source] = f"{one.label}: {trouble}" if trouble else ""
        return seen

    async def _note(self, seen: _Seen) -> None:
        """Note what was seen: at once if there is something to tell, else now and then."""
        monotonic = self._clock.monotonic()
        gone = [source for source in (*seen.gone, *self._unwanted) if source in self._known]
        for source in seen.gone:
            if source not in gone and source not in seen.told:
                self._logs.pop(source).end()
        found = any(one.count for one in seen.news.values())
        if not (seen.alerts or gone) and monotonic < self._note_at - (_NOTE - 1) * found:
            return
        rows = [
            one for source, one in {**seen.news, **seen.told}.items() if source not in seen.gone
        ]
        upto = None if self._upto == self._noted_upto else self._upto
        patterns = None if self._patterns == self._noted_patterns else (*sorted(self._patterns),)
        if rows or gone or seen.alerts or upto is not None or patterns is not None:
            await self._store.note_watched(
                Watching(tuple(rows), tuple(gone), upto, patterns, (*seen.alerts,), self._targets)
            )
        self._note_at = monotonic + _NOTE
        self._noted_upto, self._noted_patterns = self._upto, self._patterns
        self._known |= {one.source: one for one in rows}
        for row in rows:
            self._logs[row.source].settle(row)
        self._unwanted.clear()
        for source in (*seen.gone, *gone):
            self._known.pop(source, None)
            if (one := self._logs.pop(source, None)) is not None:
                one.end()

    def _complain(self, trouble: Mapping[str, str]) -> None:
        """Warn of what is wrong with a log, once for as long as it is so."""
        for source, words in trouble.items():
            if words and words != self._said.get(source):
                log.warning("%s", words)
                self._said[source] = words
            elif not words:
                self._said.pop(source, None)
