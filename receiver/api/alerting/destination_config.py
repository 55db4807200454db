"""A destination's configuration as it comes and as it is shown; each kind's notifier says what it may be."""

from collections.abc import Collection, Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict

from db.alerts.destinations import Config
from db.connection.json_columns import merge_patch
from receiver.alerts.message import InvalidConfig as BadConfig
from receiver.alerts.message import Notifier
from receiver.api.body import pointer
from receiver.http.problems import FieldProblem, Invalid

AGAIN: Final = "Must be sent again: this changes where it is sent, or how"


class Configuration(BaseModel):
    """What a kind of destination needs; each kind checks its own."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    def given(self) -> dict[str, object]:
        """Return what was sent and nothing else."""
        return dict(self.model_extra or {})


def checked(notifier: Notifier, config: Config) -> Config:
    """Return a configuration in its normal form, or raise `Invalid` with a pointer for each wrong field."""
    try:
        return notifier.check(config)
    except BadConfig as error:
        raise _invalid(error.problems) from None


def changed(notifier: Notifier, before: Config, patch: Config) -> Config:
    """Return a configuration with a patch (RFC 7396) merged into it.

    Raises `Invalid` as `checked` does, and for each credential that stays while the patch would have it sent
    elsewhere: an operator who may change an address need not know the credential.
    """
    shown = notifier.shown(before)
    # What comes back as it was shown, secrets left out, changes nothing.
    fresh = {name: value for name, value in patch.items() if name not in shown or value != shown[name]}
    after = checked(notifier, merge_patch(before, fresh))
    moved = {
        credential: AGAIN
        for credential, address in notifier.credentials.items()
        if credential in after and credential not in fresh and _differ(before, after, address)
    }
    if moved:
        raise _invalid(moved)
    return after


def seen(notifier: Notifier | None, config: Config | None) -> Mapping[str, object] | None:
    """Return what may be seen of a configuration; nothing of a kind that this version doesn't know."""
    return None if notifier is None or config is None else notifier.shown(config)


def _differ(before: Config, after: Config, fields: Collection[str]) -> bool:
    return any(before.get(name) != after.get(name) for name in fields)


def _invalid(problems: Mapping[str, str]) -> Invalid:
    return Invalid(
        [
            FieldProblem(pointer("config", *name.split(".")), f"{problem.rstrip('.')}.")
            for name, problem in problems.items()
        ]
    )
