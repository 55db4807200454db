"""Calls to gateways and destinations, and the addresses that they may reach."""
