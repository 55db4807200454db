"""All settings of the service, read once at start and frozen; does no I/O but reading `…_FILE` values.

Names, defaults and meaning are public: docs/operations.md, "Settings". A secret's value never appears in an
error or a repr.
"""

import difflib
import math
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_origin, get_type_hints
from urllib.parse import urlsplit

PREFIX: Final = "ZAPWATCH_"
FILE_SUFFIX: Final = "_FILE"
KEY_BYTES: Final = 32
LONGEST: Final = timedelta(days=365)
DEFAULT_DATA_DIR: Final = Path(".zapwatch")

Network = IPv4Network | IPv6Network
LogFormat = Literal["text", "json"]


class SettingsError(Exception):
    """Names every wrong setting at once; no message carries a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems: Final = problems


def _text(value: str) -> str:
    return value


def _path(value: str) -> Path:
    return Path(value).expanduser()


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= 18 and low <= int(value) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return read


def _seconds(low: float) -> Callable[[str], timedelta]:
    def read(value: str) -> timedelta:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not low <= seconds <= LONGEST.total_seconds():
            raise ValueError(f"must be a number of seconds, at least {low:g}; fractions are allowed")
        return timedelta(seconds=seconds)

    return read


def _database_url(value: str) -> str:
    if not value.startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    return value


def _web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("is not an address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_right:
        raise ValueError("must be an http or https address with a host")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be an address without query, fragment or password")
    return value.rstrip("/")


def _alert_url(value: str) -> str:
    """Like `_web_address`, but what is secret of such addresses is often in their path or query."""
    try:
        parts = urlsplit(value)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right:
        raise ValueError("must be an http or https address with a host")
    return value


def _secret_keys(value: str) -> tuple[bytes, ...]:
    keys = tuple(_secret_key(part.strip()) for part in value.split(",") if part.strip())
    if not keys:
        raise ValueError("must hold at least one key")
    return keys


def _secret_key(text: str) -> bytes:
    try:
        key = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"must be {KEY_BYTES} bytes in url-safe base64, several parted by commas; one is made by "
            "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
        )
    return key


def _operator_token(value: str) -> str:
    if len(value) < 16 or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be at least 16 characters of ASCII without spaces")
    return value


def _networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError("must be networks in CIDR such as 10.0.0.0/8, parted by commas") from None


def _log_format(value: str) -> LogFormat:
    match value:
        case "text" | "json":
            return value
        case _:
            raise ValueError("must be text or json")


@dataclass(frozen=True, slots=True)
class Setting:
    """How one setting is read and what it is for."""

    read: Callable[[str], object]
    help: str
    secret: bool = False
    suffix: str = ""


def _duration(low: float, help: str) -> Setting:
    return Setting(_seconds(low), help, suffix="_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting in lower case; durations are `timedelta`, secrets are left out of the repr."""

    database_url: Annotated[
        str | None, Setting(_database_url, "PostgreSQL to use; unset: the embedded one", secret=True)
    ] = field(default=None, repr=False)
    data_dir: Annotated[Path, Setting(_path, "folder of the embedded database and its keys")] = (
        DEFAULT_DATA_DIR
    )
    host: Annotated[str, Setting(_text, "address to listen on")] = "127.0.0.1"
    port: Annotated[int, Setting(_whole(0, 65535), "port to listen on")] = 8080
    public_url: Annotated[
        str | None,
        Setting(_web_address, "what gateways can reach; webhook addresses are built on it"),
    ] = None
    secret_keys: Annotated[
        tuple[bytes, ...],
        Setting(_secret_keys, "keys for credentials; the first encrypts, all decrypt", secret=True),
    ] = field(default=(), repr=False)
    operator_token: Annotated[
        str | None,
        Setting(_operator_token, "an operator's token; unset: one is made on first start", secret=True),
    ] = field(default=None, repr=False)
    stale_after: Annotated[
        timedelta, _duration(0.1, "a channel without fresh evidence for longer is probed")
    ] = timedelta(seconds=120)
    retry_after: Annotated[
        timedelta, _duration(0.1, "first gap between probes of a doubtful or unhealthy channel")
    ] = timedelta(seconds=10)
    terminal_grace: Annotated[
        timedelta, _duration(0, "how long a state that can't heal waits for its incident")
    ] = timedelta(seconds=15)
    probe_timeout: Annotated[timedelta, _duration(0.1, "how long a gateway may take to answer a probe")] = (
        timedelta(seconds=8)
    )
    gateway_settle: Annotated[
        timedelta, _duration(0, "after a gateway's return, before its channels are judged")
    ] = timedelta(seconds=60)
    gateway_tell_after: Annotated[
        timedelta, _duration(0, "how long a gateway's incident lasts before operators are told; 0: at once")
    ] = timedelta(seconds=30)
    breaker_max: Annotated[
        timedelta, _duration(1, "longest pause between attempts at a gateway that is down")
    ] = timedelta(seconds=60)
    connectivity_url: Annotated[
        str | None,
        Setting(_web_address, "asked whether Zapwatch is online, when gateways don't answer"),
    ] = None
    outgoing_allow: Annotated[
        tuple[Network, ...],
        Setting(_networks, "networks (CIDR) that tenants' destinations may reach besides public ones"),
    ] = ()
    alert_url: Annotated[
        str | None, Setting(_alert_url, "a first destination of alerts for operators", secret=True)
    ] = field(default=None, repr=False)
    heartbeat_url: Annotated[
        str | None,
        Setting(_web_address, "asked once a minute while everything works", secret=True),
    ] = field(default=None, repr=False)
    events_keep_days: Annotated[int, Setting(_whole(1, 36500), "days that events are kept")] = 90
    workers: Annotated[int, Setting(_whole(1, 256), "processes that serve")] = 1
    log_format: Annotated[LogFormat, Setting(_log_format, "how log lines look: text or json")] = "text"
    warnings: tuple[str, ...] = ()

    @property
    def embedded(self) -> bool:
        """Whether the service runs its own PostgreSQL."""
        return self.database_url is None

    @property
    def base_url(self) -> str:
        """Where webhook addresses begin: PUBLIC_URL, else the address that the service listens on."""
        if self.public_url is not None:
            return self.public_url
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def _declared() -> dict[str, Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated}


DECLARED: Final = _declared()


def variable(name: str) -> str:
    """Return the environment variable of a setting: `stale_after` is ZAPWATCH_STALE_AFTER_SECONDS."""
    return PREFIX + (name + DECLARED[name].suffix).upper()


def load_settings(environ: Mapping[str, str], overrides: Mapping[str, str | None] | None = None) -> Settings:
    """Return the settings or raise one `SettingsError`; an empty value counts as unset, as in compose files.

    Overrides are named like the variables without prefix, in lower case (`stale_after_seconds`, `port_file`).
    """
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    for name, value in (overrides or {}).items():
        if value:
            _override(given, PREFIX + name.upper(), value)
    problems: list[str] = []
    values = {name: _read(name, given, problems) for name in DECLARED}
    values = {name: value for name, value in values.items() if value is not None}
    if _named(given, "database_url") and not _named(given, "secret_keys"):
        problems.append(f"{PREFIX}SECRET_KEYS is required when {PREFIX}DATABASE_URL is set")
    if problems:
        raise SettingsError(problems)
    return Settings(**values, warnings=_unknown(given))


def _override(given: dict[str, str], name: str, value: str) -> None:
    base = name.removesuffix(FILE_SUFFIX)
    given.pop(base, None)
    given.pop(base + FILE_SUFFIX, None)
    given[name] = value


def _named(given: Mapping[str, str], name: str) -> bool:
    return variable(name) in given or variable(name) + FILE_SUFFIX in given


def _read(name: str, given: Mapping[str, str], problems: list[str]) -> Any:
    # Any: the annotation of the setting's field tells its type, which is read at run time.
    setting, env = DECLARED[name], variable(name)
    try:
        text = _text_of(env, given)
        return None if text is None else setting.read(text)
    except ValueError as error:
        shown = "" if setting.secret or env not in given else f" (it is {given[env][:80]!r})"
        problems.append(f"{env} {error}{shown}")
        return None


def _text_of(name: str, given: Mapping[str, str]) -> str | None:
    path = given.get(name + FILE_SUFFIX)
    if path is None:
        return given.get(name)
    if name in given:
        raise ValueError(f"and {name}{FILE_SUFFIX} are both set; keep one")
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"can't be read from {path}: it isn't UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"can't be read from {path}: {error.strerror}") from None
    if not text:
        raise ValueError(f"can't be read from {path}: the file is empty")
    return text


def _unknown(given: Mapping[str, str]) -> tuple[str, ...]:
    known = [variable(name).removeprefix(PREFIX) for name in DECLARED]
    known += [name + FILE_SUFFIX for name in known]
    warnings = []
    for name in sorted({name.removeprefix(PREFIX) for name in given} - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        warnings.append(f"{PREFIX}{name} is not a setting{hint}")
    return tuple(warnings)
