"""The HTTP API: routes over the engine's one door."""
