"""Things that paint lines. They know tones and cells, and nothing of tasks and workers."""
