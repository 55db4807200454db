"""The ops API: one module per noun, each with its `operations`; what users may rely on is in docs/api.md."""

from typing import Final

from starlette.routing import Route

from receiver.api import (
    channels,
    checks,
    deliveries,
    destinations,
    gateways,
    incidents,
    maintenance,
    notifications,
    openapi,
    qr,
    recovery,
    service,
    tenants,
)
from receiver.api.endpoint import Operation, PublicOperation
from receiver.application import App

OPERATIONS: Final[list[Operation | PublicOperation]] = [
    *channels.operations,
    *checks.operations,
    *qr.operations,
    *recovery.operations,
    *gateways.operations,
    *incidents.operations,
    *tenants.operations,
    *destinations.operations,
    *deliveries.operations,
    *maintenance.operations,
    *notifications.operations,
    *service.operations,
]
_DESCRIPTIONS: Final = openapi.routes_about(OPERATIONS)


def routes(app: App) -> list[Route]:
    """Return the routes of the API for one app, and of its own description."""
    return [*(operation.route(app) for operation in OPERATIONS), *_DESCRIPTIONS]
