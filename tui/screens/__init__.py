"""What fills the terminal: the panes together, one task, and the questions."""
