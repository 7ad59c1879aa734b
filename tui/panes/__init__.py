"""The four live panes: each knows how its rows look, none knows where they come from."""
