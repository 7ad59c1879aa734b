"""Output files of any size: read in parts, laid out a screenful at a time, searched in slices."""
