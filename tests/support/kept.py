"""A project with services in its settings, and what becomes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psutil
from support.servers import free_port, server
from support.stores import tuples

from engine.core import Engine

if TYPE_CHECKING:
    from support.engines import Project


class Fleet:
    """A project with services in its settings."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.folder = project.folder
        self.ports: dict[str, int] = {}
        self.settings: dict[str, Any] = {}

    def add(self, name: str, how: str = "well", **settings: Any) -> int:
        """Add a service that listens on a port of its own; return that."""
        port = self.ports[name] = free_port()
        (self.folder / name).mkdir(exist_ok=True)
        self.settings[name] = {
            "command": server(self.folder, how, port),
            "cwd": name,
            "port": port,
            "ready": {"port": port, "every": 0.1},
            "backoff": 0.05,
            "stop_timeout": 0.5,
            **settings,
        }
        self.write()
        return port

    def write(self) -> None:
        self.project.settings(json.dumps({"services": self.settings}))

    def engine(self) -> Engine:
        return Engine(self.folder / "state", project=self.folder, keeps_services=True)

    def states(self) -> dict[str, str]:
        return dict(tuples(self.project.layout, "SELECT name, state FROM services"))

    def row(self, name: str) -> tuple[Any, ...]:
        columns = "state, message, restarts, recovery, pid"
        sql = f"SELECT {columns} FROM services WHERE name = ?"
        return tuples(self.project.layout, sql, name)[0]

    def log(self, name: str) -> str:
        return self.project.layout.service_log(name).read_text()

    def alerts(self) -> list[str]:
        return [row[0] for row in tuples(self.project.layout, "SELECT summary FROM alerts")]

    def lives(self) -> list[int]:
        """Return the pids of all processes that carry the tag of a service of ours."""
        found = []
        for process in psutil.process_iter():
            try:
                variables = process.environ()
            except (psutil.Error, OSError):
                continue
            here = variables.get("AGENTMUX_STATE_DIR") == str(self.project.layout.state.resolve())
            if here and "AGENTMUX_SERVICE" in variables:
                found.append(process.pid)
        return found
