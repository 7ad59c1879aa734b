"""Coding agents as programs: how their CLIs are called, what they print, how their runs end.

Starts nothing and knows no task: executors do that with what stands here.
"""
