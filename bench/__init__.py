"""Comparisons behind the figures that the README states; `make bench` runs them all.

Each is a module with `async def run(quick) -> list[Figure]`. They use the
service's own parts and change none of them.
"""
