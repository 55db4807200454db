"""Signals from outside: webhooks, live traffic, and those of operators."""
