"""The teacher cache: what the teacher answered, found by content and never by position."""
