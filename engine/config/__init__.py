"""The operator's settings (agentmux.yaml): what there is to set, and how the file is read.

Knows nothing of what the settings are used for. A new setting is a field of a struct in `settings`
and a line of a table in `sections`.
"""

from __future__ import annotations

from engine.config.reading import SETTINGS, load_config, settings_file
from engine.config.settings import (
    HARMLESS,
    AgentConfig,
    AlertsConfig,
    ApiConfig,
    Config,
    GithubConfig,
    Mailbox,
    McpServer,
    Prices,
    Probe,
    Recover,
    RecoverStep,
    ScreenConfig,
    ServiceConfig,
    ShellConfig,
    WatchConfig,
    Webhook,
    WorktreeConfig,
)

__all__ = [
    "HARMLESS",
    "SETTINGS",
    "AgentConfig",
    "AlertsConfig",
    "ApiConfig",
    "Config",
    "GithubConfig",
    "Mailbox",
    "McpServer",
    "Prices",
    "Probe",
    "Recover",
    "RecoverStep",
    "ScreenConfig",
    "ServiceConfig",
    "ShellConfig",
    "WatchConfig",
    "Webhook",
    "WorktreeConfig",
    "load_config",
    "settings_file",
]
