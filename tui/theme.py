"""Colours. One colour has one meaning in every pane and every theme (DESIGN §8).

The stylesheets speak of meanings only (`$running`, `$failed` …); here each theme says which
colour carries which. Built-in themes get theirs from their own palette where it has the hue.
"""

from __future__ import annotations

from textual.theme import Theme

AGENTMUX = Theme(
    name="agentmux",
    primary="#6cb6ff",
    secondary="#8ea2c6",
    accent="#6cb6ff",
    warning="#f2cc60",
    error="#ff7b72",
    success="#7ee787",
    foreground="#d5dce6",
    background="#0e1218",
    surface="#141a22",
    panel="#1b232e",
    dark=True,
    variables={
        "running": "#6cb6ff",
        "ready": "#d5dce6",
        "waiting": "#7d8898",
        "done": "#6fce7a",
        "failed": "#ff7b72",
        "human": "#f2cc60",
        "stale": "#ff9e4a",
        "rule": "#2c3746",
        "off": "#4b5768",
        "rule-focus": "#aeb9c8",
        "row-cursor": "#25344a",
        "row-cursor-faint": "#1a232f",
        "row-hover": "#18212c",
    },
)


def meanings(theme: Theme) -> dict[str, str]:
    """Return the colour of each meaning for a theme that does not name them itself."""
    if theme.ansi:
        return {
            "running": "ansi_bright_blue",
            "ready": "ansi_default",
            "waiting": "ansi_bright_black",
            "done": "ansi_green",
            "failed": "ansi_red",
            "human": "ansi_yellow",
            "stale": "ansi_magenta",  # 16 colours have no orange
            "rule": "ansi_bright_black",
            "off": "ansi_bright_black",
            "rule-focus": "ansi_default",
            "row-cursor": "ansi_blue",
            "row-cursor-faint": "ansi_default",
            "row-hover": "ansi_default",
        }
    dark = theme.dark
    surface = theme.surface or ("#1e1e1e" if dark else "#d8d8d8")
    return {
        "running": theme.primary,
        "ready": theme.foreground or ("#e0e0e0" if dark else "#1f1f1f"),
        "waiting": "#858d99" if dark else "#666d78",
        "done": theme.success or ("#4ebf71" if dark else "#1a7f37"),
        "failed": theme.error or ("#ff6b6b" if dark else "#b3261e"),
        "human": "#f2cc60" if dark else "#8a6a00",
        "stale": "#ff9e4a" if dark else "#b75300",
        "off": "#565d68" if dark else "#9aa0a8",
        "rule": theme.panel or ("#3a3f47" if dark else "#b9bec6"),
        "rule-focus": theme.foreground or ("#c9ced6" if dark else "#4a4f57"),
        "row-cursor": theme.panel or ("#2d3b4f" if dark else "#c3d0e2"),
        "row-cursor-faint": surface,
        "row-hover": surface,
    }
