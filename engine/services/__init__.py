"""Services: programs that run beside the tasks, kept alive, looked at, and ended as a whole."""
