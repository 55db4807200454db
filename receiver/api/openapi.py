"""The API's description: `/openapi.json`, made from operations and models, and `/docs`, a page."""

import re
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.api import gateways, incidents, tenants
from receiver.api.alerting import destinations, maintenance
from receiver.api.channels import channels
from receiver.api.endpoint import Json, Operation, PublicOperation
from receiver.api.query import require_known

Schema = dict[str, Any]
"""An OpenAPI document or a part of it. Any: it is nested, and read by names that its specification fixes."""
Described = Operation | PublicOperation

_BODIES: Final[dict[tuple[str, str], type[BaseModel]]] = {
    ("POST", "/channels"): channels.NewChannel,
    ("PATCH", "/channels/{id}"): channels.ChannelPatch,
    ("POST", "/gateways"): gateways.NewGateway,
    ("POST", "/gateways/{id}/import"): gateways.Import,
    ("POST", "/tenants"): tenants.NewTenant,
    ("PATCH", "/tenants/{id}"): tenants.TenantPatch,
    ("POST", "/destinations"): destinations.NewDestination,
    ("PATCH", "/destinations/{id}"): destinations.DestinationPatch,
    ("POST", "/maintenance"): maintenance.NewWindow,
}
_OPTIONAL_BODIES: Final = frozenset({("POST", "/gateways/{id}/import")})
_ID: Final = {"type": "string", "format": "uuid"}
_TIME: Final = {"type": "string", "format": "date-time"}
_PAGE: Final = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
    "cursor": {"type": "string", "description": "`next` of the page before"},
}
_DOWN: Final = "neither open nor unknown, watched, and connected before"
_QUERIES: Final[dict[tuple[str, str], Schema]] = {
    ("GET", "/channels"): {
        "state": {"type": "array", "items": {"type": "string", "enum": list(channels.SHOWN_STATES)}},
        "down": {"type": "string", "enum": ["true"], "description": _DOWN},
        "never_connected": {"type": "string", "enum": ["true"]},
        "incident": {"type": "string", "enum": ["open"]},
        "tenant_id": _ID,
        "gateway_id": _ID,
        "q": {"type": "string", "description": "part of name, instance or phone number"},
        **_PAGE,
    },
    ("GET", "/channels/{id}/events"): _PAGE,
    ("GET", "/channels/{id}/incidents"): {"days": {"type": "number", "default": 7}, **_PAGE},
    ("GET", "/channels/{id}/qr"): {
        "number": {
            "type": "string",
            "pattern": "^[0-9]{8,15}$",
            "description": "the phone's number, country code first, for a pairing code",
        }
    },
    ("GET", "/incidents"): {
        "subject": {"type": "string", "enum": list(incidents.SUBJECTS)},
        "status": {"type": "string", "enum": ["open", "resolved", "all"], "default": "all"},
        "tenant_id": _ID,
        "channel_id": _ID,
        "gateway_id": _ID,
        "kind": {"type": "string", "enum": list(incidents.KINDS)},
        "since": _TIME,
        "until": _TIME,
        **_PAGE,
    },
    ("POST", "/check"): {"channel_id": _ID},
    ("POST", "/gateways/{id}/import"): {"tenant_id": _ID},
    ("GET", "/gateways"): _PAGE,
    ("GET", "/tenants"): _PAGE,
    ("GET", "/destinations"): {"tenant_id": _ID, **_PAGE},
    ("GET", "/deliveries"): {"incident_id": _ID, "destination_id": _ID, **_PAGE},
    ("GET", "/maintenance"): {"tenant_id": _ID, **_PAGE},
    ("GET", "/notifications"): {"tenant_id": _ID, "unread": {"type": "boolean"}, **_PAGE},
}
_PROBLEM: Final = {"description": "What is wrong", "content": {"application/problem+json": {"schema": {
    "type": "object",
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object", "properties": {
            "pointer": {"type": "string"}, "detail": {"type": "string"}}}},
    }}}}}  # fmt: skip
_TOO_MANY: Final = {
    **_PROBLEM,
    "description": "Too often",
    "headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}},
}
_LIMITED: Final = frozenset(
    {("GET", "/channels/{id}/qr"), ("POST", "/channels/{id}/restart"), ("POST", "/destinations/{id}/test")}
)
"""What may be asked for only so often, by all callers together."""
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}"
    "code{font-size:.95em}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0;vertical-align:top}"
)


def document(operations: Sequence[Described]) -> Schema:
    """Return the OpenAPI 3.1 document of these operations."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in _BODIES.values()], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Zapwatch", "version": version("zapwatch")},
        "security": [{"operator": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"operator": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(described: Described) -> Schema:
    method, path = described.method, described.path
    operation: Schema = {
        "summary": (described.endpoint.__doc__ or "").strip(),
        "parameters": list(_parameters(path, method)),
        "responses": {"2XX": {"description": "Done"}, "default": _PROBLEM},
    }
    if isinstance(described, PublicOperation):
        operation["security"] = []
    if (method, path) in _LIMITED:
        operation["responses"]["429"] = _TOO_MANY
    body = _BODIES.get((method, path))
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        required = (method, path) not in _OPTIONAL_BODIES
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    return operation


def _parameters(path: str, method: str) -> Sequence[Schema]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": _ID} for name in re.findall(r"{(\w+)}", path)
    ]
    query = _QUERIES.get((method, path), {})
    return found + [{"name": name, "in": "query", "schema": schema} for name, schema in query.items()]


def require_known_parameters(operation: Operation, request: Request) -> None:
    """Refuse query parameters that this operation doesn't have, or has once and is given twice."""
    query = _QUERIES.get((operation.method, operation.path), {})
    repeated = [name for name, schema in query.items() if schema["type"] == "array"]
    require_known(request, query.keys(), repeated)


def _page(described: Schema) -> str:
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Zapwatch API</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>Zapwatch API {escape(described['info']['version'])}</h1>",
        "<p>Send <code>Authorization: Bearer TOKEN</code>. The same for programs: ",
        "<a href=openapi.json>openapi.json</a>.</p>",
    ]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation['summary'])}</p>")
            parts.append(_table(operation, described["components"]["schemas"]))
    return "".join(parts)


def _table(operation: Schema, schemas: Schema) -> str:
    rows = [(item["name"], item["in"]) for item in operation["parameters"]]
    if "requestBody" in operation:
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = schemas[reference.rpartition("/")[2]]
        required = schema.get("required", ())
        rows += [
            (name, "body, required" if name in required else "body") for name in schema.get("properties", {})
        ]
    cells = "".join(f"<tr><td><code>{escape(name)}</code><td>{use}" for name, use in rows)
    return f"<table>{cells}</table>" if cells else ""


def routes_about(operations: Sequence[Described]) -> list[Route]:
    """Return the routes that describe these operations."""
    described = document(operations)
    page = _page(described)
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

    async def as_json(_request: Request) -> Response:
        """Describe the API for programs."""
        return Json(described)

    async def as_page(_request: Request) -> Response:
        """Describe the API for people."""
        return Response(page, media_type="text/html", headers=headers)

    return [
        Route("/openapi.json", as_json, methods=["GET"]),
        Route("/docs", as_page, methods=["GET"]),
    ]
