"""How the fleet is and what ever happened in it, as lines of text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.figures import TOTALS, describe_counters, totals_row
from engine.views import DURATION_BOUNDS, HealthStatus
from tui import look
from tui.describe import section
from tui.widgets.cells import Line, Tone, fitted, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.views import Health, HealthPart, Metrics

_PART = 12
_LEAST = 5
_BAR = 40
_FULL, _PIECES = "█", " ▏▎▍▌▋▊▉"


def health_lines(health: Health, width: int) -> list[Line]:
    """Return each part that is not ok with its reasons, and the others by name."""
    if not health.parts:
        return [(("nobody has looked yet", Tone.DIM),)]
    lines: list[Line] = []
    for part in health.parts:
        if part.status is not HealthStatus.OK:
            lines += _part(part, width)
    well = ", ".join(part.name for part in health.parts if part.status is HealthStatus.OK)
    if well:
        told = wrapped(well, max(8, width - _PART))
        lines += _labelled("ok", Tone.DONE, told, Tone.DIM)
    return lines


def _part(part: HealthPart, width: int) -> list[Line]:
    room = max(8, width - _PART)
    told = [line for reason in part.reasons for line in wrapped(reason, room)]
    return _labelled(part.name, look.STATUS_TONES[part.status], told, Tone.TEXT)


def _labelled(label: str, tone: Tone, told: Sequence[str], words: Tone) -> list[Line]:
    labels = [label, *("" for _ in told[1:])]
    return [
        ((fitted(label, _PART), tone), (text, words))
        for label, text in zip(labels, told, strict=True)
    ]


def metrics_lines(health: Health, metrics: Metrics, width: int) -> list[Line]:
    """Return health, a table of what ever happened by agent, and how long runs took."""
    lines = health_lines(health, width)
    lines += section("Runs since the beginning", width)
    rows = [totals_row(agent) for agent in metrics.of_agents()]
    if not rows:
        return [*lines, (("no run yet", Tone.DIM),)]
    lines += _table([TOTALS, *rows], width)
    lines.append(((describe_counters(metrics), Tone.DIM),))
    lines += section("How long they took", width)
    return [*lines, *_histogram(metrics, width)]


def _table(rows: Sequence[Sequence[str]], width: int) -> Iterator[Line]:
    sizes = [max(len(row[at]) for row in rows) for at in range(len(TOTALS))]
    gap = 2 if sum(sizes) + 2 * (len(sizes) - 1) <= width else 1
    others = sum(sizes[1:]) + gap * (len(sizes) - 1)
    sizes[0] = max(_LEAST, min(sizes[0], width - others))  # the agent gives way
    for index, row in enumerate(rows):
        texts = [fitted(row[0], sizes[0], middle=True)]
        texts += [
            " " * gap + fitted(text, size, right=True)
            for text, size in zip(row[1:], sizes[1:], strict=True)
        ]
        tone = Tone.DIM if index == 0 else Tone.TEXT
        yield tuple((text, Tone.DIM if text.strip() == "0" else tone) for text in texts)


def _histogram(metrics: Metrics, width: int) -> Iterator[Line]:
    """Yield a bar for each class of durations: all agents, however the runs ended."""
    upto = [sum(column) for column in zip(*(d.buckets for d in metrics.durations), strict=True)]
    upto.append(sum(one.count for one in metrics.durations))
    counts = [now - before for before, now in zip([0, *upto], upto, strict=False)]
    names = [f"≤ {_span(bound)}" for bound in DURATION_BOUNDS]
    names.append(f"> {_span(DURATION_BOUNDS[-1])}")
    number = max(len(f"{count:,}") for count in counts)
    room = max(1, min(_BAR, width - _PART - number - 2))
    for name, count in zip(names, counts, strict=True):
        bar = _bar(count, max(counts), room)
        yield (
            (fitted(name, _PART), Tone.DIM),
            (fitted(f"{count:,}", number, right=True) + "  ", Tone.TEXT if count else Tone.DIM),
            (bar, Tone.RUNNING),
        )


def _bar(count: int, most: int, room: int) -> str:
    eighths = count * room * 8 // most if most else 0
    if count:
        eighths = max(1, eighths)  # what exists is seen
    return _FULL * (eighths // 8) + _PIECES[eighths % 8].strip()


def _span(seconds: int) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
