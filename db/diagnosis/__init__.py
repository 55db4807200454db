"""Checks of an installation's health in the database: what is missing, replaced, overdue, unknown or growing.

Reads only, and repairs nothing: each finding says what an operator can do. It calls no gateway.
"""

from db.diagnosis.finding import NAMED, Finding, Report, Severity, about, note, problem, size
from db.diagnosis.loops import check_loops
from db.diagnosis.registrations import (
    TokenOwner,
    WatchedChannel,
    WatchedGateway,
    check_channels,
    check_clocks,
    check_gateways,
    check_versions,
    read_channels,
    read_gateways,
    token_owners,
)
from db.diagnosis.schema import check_functions, check_migrations, check_schema
from db.diagnosis.telling import (
    check_alerts,
    check_destinations,
    check_maintenance,
    check_recipients,
)
from db.diagnosis.traffic import (
    check_deep_probes,
    check_disk,
    check_overdue,
    check_quarantine,
    check_retention,
)

__all__ = [
    "NAMED",
    "Finding",
    "Report",
    "Severity",
    "TokenOwner",
    "WatchedChannel",
    "WatchedGateway",
    "about",
    "check_alerts",
    "check_channels",
    "check_clocks",
    "check_deep_probes",
    "check_destinations",
    "check_disk",
    "check_functions",
    "check_gateways",
    "check_loops",
    "check_maintenance",
    "check_migrations",
    "check_overdue",
    "check_quarantine",
    "check_recipients",
    "check_retention",
    "check_schema",
    "check_versions",
    "note",
    "problem",
    "read_channels",
    "read_gateways",
    "size",
    "token_owners",
]
