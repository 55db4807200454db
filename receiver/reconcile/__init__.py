"""Probes of channels and gateways, and the deadlines of both."""
