"""Which order each gateway has for a channel that stands so, and why it has none."""

from datetime import timedelta

import pytest

from receiver.providers import RECOVERY_SUPPORT
from receiver.providers.report import Condition, NotApplicable, Order, RecoveryAction, RecoveryPlan
from statemachine.model import Reason, State, Trigger

STUCK_AFTER = timedelta(seconds=60)


def plan_recovery(
    provider: str, state: State, reason: Reason | None, seconds: float = 61, version: str | None = "2.3.6"
) -> RecoveryPlan | NotApplicable:
    """What helps a channel that has stood so for so long."""
    condition = Condition(state, reason, timedelta(seconds=seconds), STUCK_AFTER, version)
    return RECOVERY_SUPPORT[provider].plan_recovery(condition)


def order(provider: str, action: RecoveryAction, version: str | None = None) -> Order:
    """The call."""
    return RECOVERY_SUPPORT[provider].order(action, "loja 01", "k", version)


@pytest.mark.parametrize(
    ("provider", "state", "reason", "helps"),
    [
        ("evolution_api", State.CONNECTING, Reason.CONNECTING, (RecoveryAction.RESTART, Trigger.CONNECTING)),
        (
            "evolution_api",
            State.CONNECTING,
            Reason.RESTART_REQUIRED,
            (RecoveryAction.RESTART, Trigger.CONNECTING),
        ),
        ("evolution_api", State.DROPPED, Reason.CONNECTION_CLOSED, (RecoveryAction.CONNECT, Trigger.DROPPED)),
        ("wapi", State.DROPPED, Reason.DISCONNECTED, (RecoveryAction.RESTART, Trigger.DROPPED)),
        ("wapi", State.CONNECTING, Reason.INCOMPLETE_SESSION, (RecoveryAction.RESTART, None)),
        ("waha", State.DROPPED, Reason.BAD_SESSION, (RecoveryAction.RESTART, Trigger.DROPPED)),
    ],
)
def test_this_helps_if_a_probe_still_says_so(
    provider: str, state: State, reason: Reason, helps: tuple[RecoveryAction, Trigger | None]
) -> None:
    assert plan_recovery(provider, state, reason) == RecoveryPlan(*helps)


@pytest.mark.parametrize("provider", sorted(RECOVERY_SUPPORT))
@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State.OPEN, None),
        (State.UNKNOWN, None),
        (State.UNPAIRED, Reason.LOGGED_OUT),
        (State.UNPAIRED, Reason.DISCONNECTED),
        (State.QR_PENDING, Reason.SCAN_NEEDED),
        (State.ERROR, Reason.UNREACHABLE),
    ],
)
def test_no_gateway_has_an_order_for_what_none_can_mend(
    provider: str, state: State, reason: Reason | None
) -> None:
    assert isinstance(plan_recovery(provider, state, reason), NotApplicable)


@pytest.mark.parametrize(
    ("provider", "state", "reason", "seconds", "version"),
    [
        ("evolution_api", State.CONNECTING, Reason.CONNECTING, 59, "2.3.6"),
        ("evolution_api", State.CONNECTING, Reason.CONNECTING, 61, None),
        ("wapi", State.CONNECTING, Reason.CONNECTING, 61, None),
        ("waha", State.DROPPED, Reason.DISCONNECTED, 61, None),
        ("waha", State.CONNECTING, Reason.CONNECTING, 61, None),
    ],
    ids=["fresh", "version unknown", "W-API connects", "stopped on purpose", "WAHA starts"],
)
def test_nothing_is_ordered_on_a_guess(
    provider: str, state: State, reason: Reason, seconds: float, version: str | None
) -> None:
    assert isinstance(plan_recovery(provider, state, reason, seconds, version), NotApplicable)


def test_orders_are_those_of_the_dialect() -> None:
    assert order("evolution_api", RecoveryAction.RESTART, "1.8.2")[:2] == (
        "PUT",
        "/instance/restart/loja%2001",
    )
    assert order("evolution_api", RecoveryAction.RESTART, "2.3.6")[:2] == (
        "POST",
        "/instance/restart/loja%2001",
    )
    assert order("evolution_api", RecoveryAction.CONNECT, "2.3.6")[:2] == (
        "GET",
        "/instance/connect/loja%2001",
    )
    assert order("wapi", RecoveryAction.RESTART)[:2] == ("GET", "/instance/restart?instanceId=loja%2001")
    assert order("waha", RecoveryAction.RESTART)[:2] == ("POST", "/api/sessions/loja%2001/restart")


@pytest.mark.parametrize("provider", sorted(RECOVERY_SUPPORT))
@pytest.mark.parametrize(
    ("status", "body", "is_taken"),
    [
        (200, b'{"instance":{"instanceName":"loja-01","state":"open"}}', True),
        (200, b'{"count":0}', True),
        (201, b"{}", True),
        (200, b"", True),
        (200, b'{"error":false,"message":"ok"}', True),
        (200, b'{"error":true,"message":"[object Object]"}', False),
        (404, b'{"response":{"message":["Cannot PUT /instance/restart/loja-01"]}}', False),
        (500, b"", False),
        (302, b"", False),
    ],
)
def test_an_error_is_a_failure_whatever_its_status(
    provider: str, status: int, body: bytes, is_taken: bool
) -> None:
    assert (RECOVERY_SUPPORT[provider].read_order(status, body) is None) == is_taken
