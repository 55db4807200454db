"""A destination's configuration as it comes and as it is shown; each kind's notifier says what it may be."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from db.destinations import Config
from db.documents import merge_patch
from receiver.alerts.notice import Invalid as BadConfig
from receiver.alerts.notice import Notifier
from receiver.api.body import pointer
from receiver.errors import FieldProblem, Invalid


class Configuration(BaseModel):
    """What a kind of destination needs; each kind checks its own."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """Return what was sent and nothing else."""
        return dict(self.model_extra or {})


def checked(notifier: Notifier, config: Config) -> Config:
    """Return a configuration in its normal form, or raise `Invalid` with a pointer for each wrong field."""
    try:
        return notifier.check(config)
    except BadConfig as error:
        raise _invalid(error.problems) from None


def changed(notifier: Notifier, before: Config, patch: Config) -> Config:
    """Return a configuration with a patch (RFC 7396) merged into it; raise `Invalid` as `checked` does."""
    shown = notifier.shown(before)
    # What comes back as it was shown, secrets left out, changes nothing.
    fresh = {name: value for name, value in patch.items() if name not in shown or value != shown[name]}
    return checked(notifier, merge_patch(before, fresh))


def seen(notifier: Notifier | None, config: Config | None) -> Mapping[str, object] | None:
    """Return what may be seen of a configuration; nothing of a kind that this version doesn't know."""
    return None if notifier is None or config is None else notifier.shown(config)


def _invalid(problems: Mapping[str, str]) -> Invalid:
    return Invalid(
        [
            FieldProblem(pointer("config", *name.split(".")), f"{problem.rstrip('.')}.")
            for name, problem in problems.items()
        ]
    )
