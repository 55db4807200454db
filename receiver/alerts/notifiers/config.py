"""What configurations of all kinds of destinations share; knows no kind."""

from collections.abc import Mapping
from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from receiver.alerts.message import InvalidConfig

LONGEST_URL: Final = 2048
"""Characters."""


class Config(BaseModel):
    """A destination's configuration: exactly the declared fields, in JSON for encryption."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def stored(self) -> Mapping[str, object]:
        """Return the normal form."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)


Model = TypeVar("Model", bound=Config)


def read(model: type[Model], config: Mapping[str, object]) -> Model:
    """Return a configuration as its model, or raise `InvalidConfig` with all problems."""
    try:
        return model.model_validate(config)
    except ValidationError as error:
        problems = {
            ".".join(map(str, one["loc"])) or "config": one["msg"]
            for one in error.errors(include_input=False)
        }
        raise InvalidConfig(problems) from None


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or not text.isprintable() or " " in text:
        raise PydanticCustomError("address", "Must be an http or https address with a host")
    return text


Url = Annotated[str, Field(max_length=LONGEST_URL), AfterValidator(_address)]


def bare(url: str) -> str:
    """Return an address without its user, password and query values, which may be secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query="***" if parts.query else "", fragment=""))


def origin(url: str) -> str:
    """Return an address without its path, where that is the secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/***"
