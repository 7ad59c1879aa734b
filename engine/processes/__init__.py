"""How a run's processes are told apart, found and ended (DESIGN §4 rules 2, 4 and 5).

`proctable` asks the system, `census` finds a run's processes, `signalling` signals them by pid and
start, `trees` starts and ends whole trees. `guard` is what a host knows of its guard process,
`guardian` that process itself. Knows no task and no store.
"""
