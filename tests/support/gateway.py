"""A gateway on loopback that tells its version."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.support.serving import address, listening, serving


@asynccontextmanager
async def gateway(version: str) -> AsyncIterator[str]:
    """Yield the address of an Evolution server that tells its version."""

    async def root(request: Request) -> JSONResponse:
        return JSONResponse({"status": 200, "message": "Welcome to the Evolution API", "version": version})

    with listening() as listener:
        async with serving(Starlette(routes=[Route("/", root)]), listener):
            yield address(listener)
