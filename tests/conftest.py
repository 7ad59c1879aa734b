"""What all tests share: how long Hypothesis may look, and that it finds the same things again."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from support import calm

calm.install()

_SLOW_BY_NATURE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

# "ci" is the same run every time; "long" goes where no run was before:
# HYPOTHESIS_PROFILE=long pytest --timeout 0 tests/integration/test_store_machine.py
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=100,
    stateful_step_count=40,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=_SLOW_BY_NATURE,
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=2000,
    stateful_step_count=60,
    print_blob=True,
    suppress_health_check=_SLOW_BY_NATURE,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def _hear_signals_again() -> None:
    """Undo what `nohup`, or a shell's `&`, passes on to us and so to the programs under test.

    A program whose parent ignores SIGINT rightly ignores it too; the tests send it all the same.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


_hear_signals_again()

# Nobody's own preferences are read or written, here or in a program that a test starts.
CONFIG = Path(tempfile.mkdtemp(prefix="agentmux-config-"))
os.environ["XDG_CONFIG_HOME"] = str(CONFIG)


def pytest_sessionfinish() -> None:
    """Leave nothing behind. Not at exit: one that runs tests for another is cut short."""
    shutil.rmtree(CONFIG, ignore_errors=True)


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what is there to stay: 4,000 tests and their imports.

    It would walk through all of it time and again; that takes an eighth of a test with a screen.
    Looking at the young ones less often than every 700 saves a sixteenth more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(autouse=True)
def as_for_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test with nothing remembered, and apps in the terminal that most people have."""
    for left in CONFIG.iterdir():
        shutil.rmtree(left)
    for name in ("NO_COLOR", "TEXTUAL_THEME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
