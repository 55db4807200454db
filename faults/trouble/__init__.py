"""Gateways in trouble, from outside: scripted hosts, the service as a process, and what everybody is told.

Each scenario is a module with `async def play(town) -> Line` or one that returns lines. It runs at any speed:
`python -m faults` plays them slowly, the tests quickly.
"""
