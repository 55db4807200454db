"""The ops API: one module per noun, each with its `routes`; what users may rely on is in docs/api.md."""

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

_described: Final = [
    *channels.routes,
    *checks.routes,
    *qr.routes,
    *recovery.routes,
    *gateways.routes,
    *incidents.routes,
    *tenants.routes,
    *destinations.routes,
    *deliveries.routes,
    *maintenance.routes,
    *notifications.routes,
    *service.routes,
]
routes: Final[list[Route]] = [*_described, *openapi.routes_about(_described)]
