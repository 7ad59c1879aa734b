"""The dashboard: looks, listens, asks. It never decides and never owns truth (DESIGN §4.8).

__main__      the command line of `agentmux-tui`
app           the Dashboard: refreshes, dispatches actions, quits
actions       one table of everything that a key can do
snapshot      one frozen picture of the store for each refresh
look          how a row is told: words, symbols, tones; pure
ports         all that the dashboard needs of the engine
screens/      what fills the terminal
panes/        one live list each
widgets/      things that paint lines
"""
