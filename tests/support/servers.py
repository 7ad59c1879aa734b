"""Services to keep: small real servers on loopback, good ones and bad ones."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SERVER = """
import http.server, os, pathlib, signal, subprocess, sys, time
how, port = sys.argv[1], int(sys.argv[2])
here = pathlib.Path.cwd()
print("begins", how, flush=True)
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how == "crash":
    sys.exit(3)
if how == "done":
    sys.exit(0)
if how == "slow":
    while not (here / "go").exists():
        time.sleep(0.02)

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            sick = (here / "sick").exists()
            self.send_response(500 if sick else 200)
            self.end_headers()
        elif self.path == "/pid":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(str(os.getpid()).encode())
        else:
            super().do_GET()
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer.allow_reuse_address = True
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
if how == "forks":
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            break
if how == "child":
    # The leader goes; who holds the port has another session, and no parent of ours.
    if os.fork() == 0:
        os.setsid()
    else:
        time.sleep(0.3)
        os._exit(0 if (here / "well").exists() else 7)
server.serve_forever()
"""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def server(folder: Path, how: str, port: int) -> list[str]:
    """Write the server into a folder, and return the command that starts it."""
    script = folder / "server.py"
    if not script.exists():
        script.write_text(SERVER)
    return [sys.executable, str(script), how, str(port)]


def answers(port: int, path: str = "/health") -> int:
    """Return the status with which a server answers, 0 if it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def listens(port: int) -> bool:
    """Say whether anybody listens on a port."""
    with closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
