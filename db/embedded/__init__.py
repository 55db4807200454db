"""The embedded PostgreSQL, used when no database URL is given."""
