"""Faults that the service must live through, each brought about for real and judged by SQL and HTTP.

Each row is a module with `LIMIT`, the seconds that it may take, and `async def run(folder) -> list[Line]`,
which gets an empty folder. The service is a process of its own, on a PostgreSQL of the harness's own.
"""
