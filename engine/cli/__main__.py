"""`python -m engine.cli` is the same as `agentmux`."""

from __future__ import annotations

import sys

from engine.cli import main

sys.exit(main())
