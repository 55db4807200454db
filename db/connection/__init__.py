"""Connections to PostgreSQL: opened, pooled, retried and narrowed to a tenant."""
