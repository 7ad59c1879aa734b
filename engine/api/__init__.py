"""The engine over HTTP: the commands, receipts and reads that the command line has.

    serving    a socket, and a server on it for as long as an engine is open
    wire       one connection: how many there are, and how long a request may take to arrive
    door       what every request must show before anything is done for it
    app        the application: routes, errors, its OpenAPI document
    tasks, fleet, services, runs, events, health       the routes, by subject
    asking, answers    what a request can ask for, what comes back
    schemas    the shapes of answers as JSON Schemas, from the structs that they are made of
    token      the secret that clients show

FastAPI and uvicorn come with the extra `api`: only `load_serving` may fail for want of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from engine.errors import CommandNotAllowed

if TYPE_CHECKING:
    from types import ModuleType


def load_serving() -> ModuleType:
    """Return engine.api.serving. Takes half a second the first time.

    Raises:
        CommandNotAllowed: the extra is not installed.

    """
    try:
        return importlib.import_module("engine.api.serving")
    except ImportError as error:
        raise CommandNotAllowed(
            "to serve needs packages that are not installed: install agentmux anew, with its extra"
            " (in its clone `uv tool install '.[api]'`, or pipx or pip install '.[api]'), and start"
            f" it anew ({error})"
        ) from error
