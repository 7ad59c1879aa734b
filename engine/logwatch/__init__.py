"""The log watcher: logs that other programs write, read as they grow, and told of in alerts."""
