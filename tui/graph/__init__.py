"""The DAG as a picture: folded, put in layers, wired, drawn. Pure: no widget, no store, no clock.

`boxes` folds large fans, `layers` gives each box its layer and row, `channels` runs the lines
between two layers, `drawing` and `tree` paint the lines of the screen that are asked for.
"""
