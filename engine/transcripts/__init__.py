"""What agents said and did in their runs: read from disk at any size, told in words for all.

Knows files and the vocabulary of agents; knows no store, no screen and no format of a CLI.
"""
