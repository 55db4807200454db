"""Writes signals to the database: queued, applied in batches, committed."""
