"""Looking after a fleet: what is wrong with it, what can be mended, and what can go.

`inspection` is doctor, `repair` mends what it finds, `leftovers` is what both look for. `health`
and its `alerts` are for every minute; `gc` removes what `gcplan` finds old enough.
"""
