"""The asyncio engine of agentmux: tasks, workers, leases and events over one SQLite store.

Knows nothing of the dashboard: no module below imports `tui` or `textual`.
"""

__version__ = "0.1.0"
