"""The data room: sources, reading, checks, duplicates, splits and the snapshot manifest."""
