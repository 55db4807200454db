"""Rows behind alerts: decisions, messages, destinations and maintenance."""
