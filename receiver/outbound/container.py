"""Detects a container, where `localhost` in an address means the container's host."""

import socket
from pathlib import Path
from typing import Final

MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""What Docker and Podman leave in a container's root. In Kubernetes `localhost` means the pod, and stays."""
HOST: Final = "host.docker.internal"


def localhost(marks: tuple[Path, ...] = MARKS, host: str = HOST) -> str:
    """Return the host for `localhost` in an address: the container's host, where that has a name."""
    if not any(mark.exists() for mark in marks):
        return "localhost"
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return "localhost"
    return host
