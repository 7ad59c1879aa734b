"""What happens to a database before it is used: brought up to date, replaced, rebuilt from the log.

`opening` is the order of it all and `condition` says what damage is. `migrations` go from schema to
schema. `rebuild` reads the log through `loglines` and folds it with `refolding`; `replacing` puts
the new file in the place of the old one, whatever dies on the way.
"""
