"""Commands of the service as somebody types them, each a process of its own.

Most of a command's work is to import the service. So one process does that once, and forks for each command.
"""

import asyncio
import atexit
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import IO, Any, Final, NoReturn

LONGEST_REQUEST: Final = 1 << 20


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int | None
    out: str
    err: str


async def zapwatch(*arguments: str, typed: str = "", **environ: str) -> Said:
    """Run the command with this environment and no other setting; `typed` is what it reads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZAPWATCH_")}
    with ExitStack() as opened:
        files = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(typed.encode())
        files[0].seek(0)
        ours, theirs = (opened.enter_context(end) for end in socket.socketpair())
        request = json.dumps({"arguments": arguments, "environ": kept | environ}).encode()
        fds = [*(file.fileno() for file in files), theirs.fileno()]
        socket.send_fds(_forker(), [request], fds)
        theirs.close()
        ours.setblocking(False)
        code = await asyncio.get_running_loop().sock_recv(ours, 16)
        return Said(int(code), *map(_written, files[1:]))


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@cache
def _forker() -> socket.socket:
    """Return the way to the process that forks; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.support.command", str(theirs.fileno())]
        forker = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def end() -> None:
        ours.close()
        forker.wait()

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> None:
    """Fork for each request, and tell each one's exit code, until nobody can ask any more."""
    import receiver.__main__  # noqa: F401  # what is to be there before

    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    selector.unregister(key.fileobj)
                    _tell(*key.data)
                elif not _begin(requests, selector):
                    return


def _begin(requests: socket.socket, selector: selectors.BaseSelector) -> bool:
    request, fds, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 4)
    if not request:
        return False
    *streams, reply = fds
    pid = os.fork()
    if pid == 0:
        _become(json.loads(request), streams)
    for stream in streams:
        os.close(stream)
    pidfd = os.pidfd_open(pid)
    selector.register(pidfd, selectors.EVENT_READ, (pid, pidfd, reply))
    return True


def _tell(pid: int, pidfd: int, reply: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.write(reply, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(pidfd)
    os.close(reply)


def _become(request: Any, streams: list[int]) -> NoReturn:
    """Be the command."""
    from receiver.__main__ import main

    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv[1:] = request["arguments"]
    main()
    sys.exit()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
