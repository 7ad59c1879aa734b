"""`services:` of the settings: programs that run beside the tasks."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from engine.config.fields import LINE, entries, fields, read_command, texts, variables
from engine.config.settings import Probe, Recover, RecoverStep, ServiceConfig
from engine.parsing.checks import DAY, mapping, name_of, number, one_of, sequence, show, whole
from engine.parsing.cycles import find_cycles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.parsing.checks import Check, Findings, Place

RESTARTS = ("always", "on-failure", "never")
NEW = "{new}"
"""What stands for the new folder in the commands of `recover:`."""

NO_SERVICES = "agentmux.yaml names no services; give some under `services:`"
_SERVICE_NAME = name_of("a service")
_PORT = whole(low=1, high=65535)
_STATUS = whole(low=100, high=599)


def _anything(_value: object) -> None:
    """Leave it to a function of its own."""


_SERVICE: Mapping[str, Check] = {
    "command": _anything,
    "cwd": LINE,
    "env": mapping,
    "port": _PORT,
    "depends_on": sequence,
    "ready": mapping,
    "ready_timeout": number(above=0, high=DAY),
    "health": mapping,
    "restart": one_of(*RESTARTS),
    "backoff": number(above=0, high=3600),
    "stop_timeout": number(low=0, high=60),
    "tmux": _anything,
    "recover": mapping,
}
_PROBE: Mapping[str, Check] = {
    "http": LINE,
    "status": _anything,
    "port": _PORT,
    "files": sequence,
    "command": _anything,
    "every": number(above=0, high=DAY),
    "timeout": number(above=0, high=3600),
    "failures": whole(low=1, high=1000),
}
_RECOVER: Mapping[str, Check] = {
    "steps": sequence,
    "folder": LINE,
    "attempts": whole(low=1, high=1000),
    "timeout": number(above=0, high=DAY),
}
_STEP: Mapping[str, Check] = {"run": _anything, "else": _anything}


def read_services(value: object, place: Place, findings: Findings) -> dict[str, ServiceConfig]:
    """Read `services:`, an entry for each."""
    services = {}
    for name, item in entries(value, place, findings):
        findings.check(name, _SERVICE_NAME, (*place, name))
        service = _service(item, (*place, name), findings)
        if service is not None:
            services[name] = service
    _check_deps(services, place, findings)
    return services


def _service(value: object, place: Place, findings: Findings) -> ServiceConfig | None:
    found = fields(value, _SERVICE, place, findings)
    if "command" not in found:
        if isinstance(value, dict):
            findings.add(place, "has no command")
        return None
    found["command"] = read_command(found["command"], (*place, "command"), findings)
    if "env" in found:
        found["env"] = variables(found["env"], (*place, "env"), findings)
    if "depends_on" in found:
        found["depends_on"] = texts(found["depends_on"], (*place, "depends_on"), findings)
    if "tmux" in found:
        listed = found["tmux"] if isinstance(found["tmux"], list) else [found["tmux"]]
        found["tmux"] = texts(listed, (*place, "tmux"), findings)
    for name in ("ready", "health"):
        if name in found:
            found[name] = _probe(found[name], found.get("port"), (*place, name), findings)
    if "recover" in found:
        found["recover"] = _recover(found["recover"], (*place, "recover"), findings)
    return ServiceConfig(**found)


def _probe(value: object, port: int | None, place: Place, findings: Findings) -> Probe:
    found = fields(value, _PROBE, place, findings)
    if "files" in found:
        found["files"] = texts(found["files"], (*place, "files"), findings)
    if "command" in found:
        found["command"] = read_command(found["command"], (*place, "command"), findings)
    if "status" in found:
        found["status"] = _statuses(found["status"], (*place, "status"), findings)
    if not {"http", "port", "files", "command"} & found.keys():
        findings.add(place, "names nothing to look at: http, port, files or command")
    if (url := found.get("http")) is not None:
        if url.startswith("/"):
            if port is None:
                findings.add((*place, "http"), "is a path; give the service a port, or a whole URL")
        elif not url.startswith(("http://", "https://")):
            findings.add((*place, "http"), "must be a path or begin with http:// or https://")
    return Probe(**found)


def _statuses(value: object, place: Place, findings: Findings) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    for index, item in enumerate(listed):
        findings.check(item, _STATUS, (*place, index) if isinstance(value, list) else place)
    return tuple(item for item in listed if isinstance(item, int))


def _recover(value: object, place: Place, findings: Findings) -> Recover:
    found = fields(value, _RECOVER, place, findings)
    steps = []
    for index, item in enumerate(found.get("steps", ())):
        steps.append(_step(item, (*place, "steps", index), findings))
    if isinstance(value, dict) and not steps:
        findings.add(place, "has no steps")
    found["steps"] = tuple(steps)
    if PurePath(found.get("folder", "x")).name in {"", ".."}:
        findings.add((*place, "folder"), "must name a folder in whose place another can come")
    names_new = any(NEW in word for step in steps for word in _words(step))
    if names_new and "folder" not in found:
        findings.add(place, f"has {NEW} in a step and no folder, whose place it would take")
    elif "folder" in found and steps and not names_new:
        findings.add((*place, "folder"), f"no step has {NEW}, where what takes its place is made")
    return Recover(**found)


def _words(step: RecoverStep) -> list[str]:
    return [*step.run, *(word for command in step.otherwise for word in command)]


def _step(value: object, place: Place, findings: Findings) -> RecoverStep:
    if not isinstance(value, dict):
        return RecoverStep(read_command(value, place, findings))
    found = fields(value, _STEP, place, findings)
    if "run" not in found:
        findings.add(place, "has no run")
        return RecoverStep(())
    otherwise = found.get("else", [])
    commands = otherwise if _is_list_of_commands(otherwise) else [otherwise]
    return RecoverStep(
        read_command(found["run"], (*place, "run"), findings),
        tuple(read_command(one, (*place, "else"), findings) for one in commands),
    )


def _is_list_of_commands(value: object) -> bool:
    """Say whether it is no single command: `[npm, ci]` are words, `[npm ci, npm run build]` not."""
    return isinstance(value, list) and all(
        isinstance(one, list) or (isinstance(one, str) and " " in one) for one in value
    )


def _check_deps(services: Mapping[str, ServiceConfig], place: Place, findings: Findings) -> None:
    names = {name: number for number, name in enumerate(services)}
    graph: list[list[int]] = [[] for _ in names]
    for name, service in services.items():
        for index, dep in enumerate(service.depends_on):
            at = (*place, name, "depends_on", index)
            if dep == name:
                findings.add(at, "a service cannot depend on itself")
            elif dep in names:
                graph[names[name]].append(names[dep])
            else:
                findings.add(at, f"there is no service {show(dep)}")
    for cycle in find_cycles(graph):
        listed = [list(names)[number] for number in cycle]
        findings.add((*place, listed[0], "depends_on"), f"a cycle: {' → '.join(listed)}")
