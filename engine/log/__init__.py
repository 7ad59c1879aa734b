"""events.jsonl and its rotated files: the mirror of the events table.

`journal` keeps it up to date through `mirror`; `check` compares it with the table, `repair` writes
it anew from there. Where its files lie, and what is in them, `engine.logfiles` says.
"""
