"""What an operator asks, carried out: `control` is the one door, and hands each command on.

`on_tasks`, `on_workers` and `reset` plan it, have it committed, and see to it that processes end.
"""
