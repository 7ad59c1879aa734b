"""What did happen: the one SQLite database of a state folder. Only this package knows its SQL.

`database` opens it and `writer` commits groups of changes. The changes are functions of a
`transaction`: `claims`, `endings`, `seeding`, `roster`. `reader` is the connection of `queries`
(for screens) and `lookout` (for hosts); `audit` checks it all. `Store` in `store` is the face of
writing that the rest of the engine sees. What happens before a database can be used is in
`recovery` and `adoption`.
"""
