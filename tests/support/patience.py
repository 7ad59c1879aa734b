"""How long a test waits until a wait has failed. Nothing is measured by it.

What is waited for takes a moment; with eight processes on two cores, five seconds were measured.
"""

PATIENCE = 60.0
