"""What keys do: what an action is, when it makes sense, and the one table of them all."""
