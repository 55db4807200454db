"""Rows to values and back: a channel, its record and its rules; no SQL and no connection."""
