"""What `doctor` looks at."""
from __future__ import annotations
from dataclasses import dataclass
from engine.files import Layout
from engine.store.queries import Queries
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that doctor found."""
    level: str
    check: str
    message: str
async def inspect(layout: Layout, queries: Queries) -> list[Finding]:
    """Look."""
    return []
