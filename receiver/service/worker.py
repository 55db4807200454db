"""`python -m receiver.service.worker`: one of several serving processes; only the supervisor starts it.

What to do comes pickled through stdin, for a command line is public and the database's password is in it. The
end of stdin is the end of the supervisor.
"""

import asyncio
import os
import pickle
import shutil
import signal
import socket
import sys

from receiver.service.server import run, serve_until_stopped
from receiver.service.supervisor import WorkerSpec
from receiver.telemetry.logs import configure
from receiver.telemetry.metrics import share


def main() -> int:
    """Serve until a signal, or until the supervisor is gone; return the exit code."""
    supervisor = os.getppid()
    work: WorkerSpec = pickle.load(sys.stdin.buffer)
    configure(work.settings.log_format)
    share(work.shared, work.number)
    with socket.socket(fileno=work.listener) as listener:
        code = run(_serve(work, listener))
    if os.getppid() != supervisor:
        # The supervisor, which would have removed it, is gone.
        shutil.rmtree(work.shared, ignore_errors=True)
    return code


async def _serve(work: WorkerSpec, listener: socket.socket) -> None:
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _end)
    await serve_until_stopped(work.settings, listener, work.shared, _report_serving)


def _end() -> None:
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    signal.raise_signal(signal.SIGTERM)


def _report_serving() -> None:
    sys.stdout.write("serving\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
