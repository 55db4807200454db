"""Alerts: decided for each destination, batched into messages, dispatched."""
