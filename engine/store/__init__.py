"""What did happen: the one SQLite database of a state folder. Only this package knows its SQL.

`database` opens it, `writer` commits groups of changes, `lifecycle`, `seeding` and `roster` are the
changes, `queries` reads, `Store` in `store` is the face that the rest of the engine sees.
"""
