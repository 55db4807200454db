"""The way of a signal into the database: queued, applied in batches, committed."""
