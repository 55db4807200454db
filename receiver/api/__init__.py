"""The ops API: one module per noun, each with its `operations`; what users may rely on is in docs/api.md."""

from typing import Final

from starlette.routing import Route

from receiver.api import gateways, incidents, openapi, service, tenants
from receiver.api.alerting import deliveries, destinations, maintenance, notifications
from receiver.api.channels import channels, checks, qr, recovery
from receiver.api.endpoint import Operation, PublicOperation
from receiver.app import App

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
    operations = [
        operation.route(app, openapi.require_known_parameters)
        if isinstance(operation, Operation)
        else operation.route(app)
        for operation in OPERATIONS
    ]
    return [*operations, *_DESCRIPTIONS]
