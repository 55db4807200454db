"""What a state and its reason say together."""

import pytest

from statemachine.model import Reason, State, Status

ENDED_BY_OTHERS = {Reason.BANNED, Reason.EXPIRED, Reason.INSTANCE_REMOVED}
ENDED_BY_SCAN = {
    Reason.LOGGED_OUT,
    Reason.LOGGED_OUT_BY_API,
    Reason.BANNED_TEMPORARILY,
    Reason.QR_LIMIT,
    Reason.SCAN_NEEDED,
    Reason.SESSION_MISSING,
    Reason.QR_SHOWN,
}


@pytest.mark.parametrize("state", State)
def test_scan_helps_by_the_reason_and_where_that_does_not_tell_by_the_state(state: State) -> None:
    waits_for_scan = state in {State.UNPAIRED, State.QR_PENDING}

    helped = {reason for reason in (None, *Reason) if Status(state, reason).scan_helps}

    assert helped == ({None, *Reason} - ENDED_BY_OTHERS if waits_for_scan else ENDED_BY_SCAN)
