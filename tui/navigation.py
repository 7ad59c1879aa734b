"""Which screen an action opens, and for what. Screens are imported when they are first wanted."""

# ruff: noqa: PLC0415 - the first paint must not pay for screens that nobody has opened yet

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.actions.model import Place, Target, leads_to_transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tui.actions.model import Selection
    from tui.ports import Engine
    from tui.screens.paned import PanedScreen


def target_of(name: str, selection: Selection) -> Target | None:
    """Return where an action leads from a selection; None if it opens no screen."""
    lead = _LEADS.get(name)
    return lead(selection) if lead is not None else None


def screen_for(target: Target, engine: Engine, *, watching: bool) -> PanedScreen:
    """Return a new screen that shows the target."""
    return _SCREENS[target.name](target, engine, watching)


# -- from a selection to a target ------------------------------------------------------------


def _detail(selection: Selection) -> Target:
    if selection.place in {Place.HISTORY, Place.WORKER} and selection.run is not None:
        return _transcript(selection) if leads_to_transcript(selection) else _log(selection)
    if selection.service is not None:
        return Target("service", service=selection.service.name)
    if selection.external is not None:
        return Target("external", external=selection.external.id)
    if selection.opens is None:
        return _worker(selection)
    return Target("detail", selection.opens)


def _log(selection: Selection) -> Target:
    if selection.service is not None:
        return Target("service log", service=selection.service.name)
    if selection.run is not None:
        return Target("log", selection.run.task_id, selection.run.id)
    return Target("log", _task_id(selection), selection.run_id)


def _transcript(selection: Selection) -> Target:
    log = _log(selection)
    return Target("transcript", log.task_id, log.run_id)


def _history(selection: Selection) -> Target:
    # Of one task where one looks at one task; elsewhere of all.
    return Target("history", _task_id(selection) if selection.place is Place.DETAIL else None)


def _worker(selection: Selection) -> Target:
    worker_id = selection.task.worker_id if selection.task is not None else selection.who
    if selection.run is not None:
        worker_id = selection.run.worker_id
    if selection.worker is not None:
        worker_id = selection.worker.id
    return Target("worker", worker_id=worker_id)


def _task_id(selection: Selection) -> str | None:
    return selection.task.id if selection.task is not None else selection.opens


_LEADS: Mapping[str, Callable[[Selection], Target]] = {
    "detail": _detail,
    "log": _log,
    "transcript": _transcript,
    "history": _history,
    "graph": lambda selection: Target("graph", _task_id(selection)),
    "timeline": lambda _selection: Target("timeline"),
    "attention": lambda _selection: Target("attention"),
    "metrics": lambda _selection: Target("metrics"),
    "worker": _worker,
}


# -- from a target to a screen ---------------------------------------------------------------


def _detail_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.detail import DetailScreen

    assert target.task_id is not None
    return DetailScreen(engine, target.task_id, watching=watching)


def _log_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.log import LogScreen

    assert target.task_id is not None
    return LogScreen(engine, target.task_id, target.run_id, watching=watching)


def _transcript_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.transcript import TranscriptScreen

    assert target.task_id is not None
    return TranscriptScreen(engine, target.task_id, target.run_id, watching=watching)


def _history_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.history import HistoryScreen

    return HistoryScreen(engine, target.task_id, watching=watching)


def _graph_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.graph import GraphScreen

    return GraphScreen(engine, target.task_id, watching=watching)


def _timeline_screen(_target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.timeline import TimelineScreen

    return TimelineScreen(engine, watching=watching)


def _attention_screen(_target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.attention import AttentionScreen

    return AttentionScreen(engine, watching=watching)


def _metrics_screen(_target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.metrics import MetricsScreen

    return MetricsScreen(engine, watching=watching)


def _worker_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.worker import WorkerScreen

    assert target.worker_id is not None
    return WorkerScreen(engine, target.worker_id, watching=watching)


def _service_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.service import ServiceScreen

    assert target.service is not None
    return ServiceScreen(engine, target.service, watching=watching)


def _service_log_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.service import ServiceLogScreen

    assert target.service is not None
    return ServiceLogScreen(engine, target.service, watching=watching)


def _external_screen(target: Target, engine: Engine, watching: bool) -> PanedScreen:
    from tui.screens.external import ExternalScreen

    assert target.external is not None
    return ExternalScreen(engine, target.external, watching=watching)


_SCREENS: Mapping[str, Callable[[Target, Engine, bool], PanedScreen]] = {
    "detail": _detail_screen,
    "log": _log_screen,
    "transcript": _transcript_screen,
    "history": _history_screen,
    "graph": _graph_screen,
    "timeline": _timeline_screen,
    "attention": _attention_screen,
    "metrics": _metrics_screen,
    "worker": _worker_screen,
    "service": _service_screen,
    "service log": _service_log_screen,
    "external": _external_screen,
}
