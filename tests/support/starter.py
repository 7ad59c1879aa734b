"""Starts `agentmux` in a fifth of the time: what it imports is there, and each start is a fork.

The check runs the program a thousand times for a fifth of a second, most of which are imports.
A command is a process of its own all the same, with its own folder, output, loop and end. Where
the start itself is the promise, on a terminal, and for whatever stays, tests start it anew.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

_MOST = 1 << 17
_EXIT = 4


def start(
    *args: str, folder: Path, environment: dict[str, str], patience: float
) -> subprocess.CompletedProcess[str]:
    """Run `agentmux` with these arguments until it ends; as `subprocess.run` would."""
    with ExitStack() as opened:
        files = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
        ours, theirs = (opened.enter_context(one) for one in socket.socketpair())
        ours.settimeout(patience)
        order = json.dumps([args, os.fspath(folder), environment]).encode()
        starter = _starter()
        with starter.lock:
            fds = [theirs.fileno(), *(file.fileno() for file in files)]
            socket.send_fds(starter.connection, [order], fds)
        theirs.close()
        try:
            answer = ours.recv(_EXIT)
        except TimeoutError:
            raise subprocess.TimeoutExpired(args, patience) from None
        assert len(answer) == _EXIT, "whatever starts the program is gone"
        for file in files:
            file.seek(0)
        out, err = (file.read().decode() for file in files)
        return subprocess.CompletedProcess(args, int.from_bytes(answer, signed=True), out, err)


class _Starter:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self.connection.close()
        self._process.wait()


@cache
def _starter() -> _Starter:
    return _Starter()


def _serve(connection: socket.socket) -> None:
    """Fork for each order; return in the child. Ends when nobody can order any more."""
    waiting = selectors.DefaultSelector()
    waiting.register(connection, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.data is not None:
                _tell(waiting, key)
                continue
            order, fds, _, _ = socket.recv_fds(connection, _MOST, 3)
            if not order:
                sys.exit()
            child = os.fork()
            if child == 0:
                waiting.close()
                connection.close()
                _become(order, fds)
                return
            for fd in fds[1:]:
                os.close(fd)
            waiting.register(os.pidfd_open(child), selectors.EVENT_READ, (child, fds[0]))


def _tell(waiting: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    child, reply = key.data
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(reply, code.to_bytes(_EXIT, signed=True))
    for fd in (key.fd, reply):
        os.close(fd)
    waiting.unregister(key.fileobj)


def _become(order: bytes, fds: list[int]) -> None:
    args, folder, environment = json.loads(order)
    os.dup2(fds[1], 1)
    os.dup2(fds[2], 2)
    for fd in fds:
        os.close(fd)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = args


def _run() -> NoReturn:
    program = import_module("engine.cli.main")
    for name in ("session", "reading", "working", "steering", "report", "checking", "progress"):
        import_module(f"engine.cli.{name}")
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        _serve(connection)
    sys.exit(program.main())


if __name__ == "__main__":
    _run()
