"""Settings: all that is wrong is said at once, and no secret is ever shown."""

import base64
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from receiver.settings import DECLARED, Settings, SettingsError, load_settings, variable

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
DATABASE = "postgresql://zapwatch:pass-word@one,two/zapwatch"


def test_nothing_set_is_the_embedded_service_on_loopback() -> None:
    settings = load_settings({})

    assert settings == Settings()
    assert settings.embedded
    assert settings.base_url == "http://127.0.0.1:8080"
    assert settings.stale_after == timedelta(seconds=120)
    assert settings.data_dir == Path(".zapwatch")


def test_every_documented_setting_is_known() -> None:
    names = {variable(name).removeprefix("ZAPWATCH_") for name in DECLARED}

    assert names == {
        "DATABASE_URL", "DATA_DIR", "HOST", "PORT", "PUBLIC_URL", "SECRET_KEYS", "OPERATOR_TOKEN",
        "STALE_AFTER_SECONDS", "RETRY_AFTER_SECONDS", "TERMINAL_GRACE_SECONDS", "PROBE_TIMEOUT_SECONDS",
        "GATEWAY_SETTLE_SECONDS", "GATEWAY_TELL_AFTER_SECONDS", "BREAKER_MAX_SECONDS", "OUTGOING_ALLOW",
        "ALERT_URL", "EVENTS_KEEP_DAYS", "WORKERS", "LOG_FORMAT", "CONNECTIVITY_URL", "HEARTBEAT_URL",
    }  # fmt: skip


def test_values_are_read_as_what_they_are() -> None:
    settings = load_settings(
        {
            "ZAPWATCH_DATABASE_URL": DATABASE,
            "ZAPWATCH_SECRET_KEYS": f"{KEY}, {KEY.rstrip('=')}",
            "ZAPWATCH_RETRY_AFTER_SECONDS": "0.25",
            "ZAPWATCH_OUTGOING_ALLOW": "10.0.0.0/8, fd00::/8",
            "ZAPWATCH_PUBLIC_URL": "https://watch.example/zap/",
            "ZAPWATCH_LOG_FORMAT": "json",
        }
    )

    assert settings.secret_keys == (bytes(range(32)),) * 2
    assert settings.retry_after == timedelta(milliseconds=250)
    assert settings.outgoing_allow == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert settings.base_url == "https://watch.example/zap"
    assert not settings.embedded


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"), ("PORT", "-1"), ("PORT", "٨٠"), ("PORT", "8080.0"), ("PORT", "9" * 5000),
        ("WORKERS", "0"), ("EVENTS_KEEP_DAYS", "0"),
        ("STALE_AFTER_SECONDS", "nan"), ("STALE_AFTER_SECONDS", "inf"), ("STALE_AFTER_SECONDS", "0"),
        ("TERMINAL_GRACE_SECONDS", "-1"), ("PROBE_TIMEOUT_SECONDS", "8 s"), ("RETRY_AFTER_SECONDS", "1e99"),
        ("PUBLIC_URL", "watch.example"), ("PUBLIC_URL", "https://"), ("PUBLIC_URL", "https://a:b@c"),
        ("PUBLIC_URL", "https://a?b"), ("PUBLIC_URL", "http://[a"), ("PUBLIC_URL", "http://a:x"),
        ("SECRET_KEYS", "short"), ("SECRET_KEYS", ","), ("SECRET_KEYS", "ü" * 43), ("DATABASE_URL", "mysql://x"),
        ("OPERATOR_TOKEN", "short"), ("OPERATOR_TOKEN", "with spaces in between"),
        ("OUTGOING_ALLOW", "10.0.0.1/8"), ("LOG_FORMAT", "xml"), ("HOST_FILE", "/does/not/exist"),
    ],
)  # fmt: skip
def test_wrong_value_names_its_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({f"ZAPWATCH_{name}": value})

    assert error.value.problems[0].startswith(f"ZAPWATCH_{name.removesuffix('_FILE')} ")


def test_all_wrong_settings_are_named_at_once() -> None:
    environ = {"ZAPWATCH_PORT": "x", "ZAPWATCH_WORKERS": "x", "ZAPWATCH_DATABASE_URL": DATABASE}

    with pytest.raises(SettingsError) as error:
        load_settings(environ)

    named = [problem.split()[0] for problem in error.value.problems]
    assert named == ["ZAPWATCH_PORT", "ZAPWATCH_WORKERS", "ZAPWATCH_SECRET_KEYS"]


@pytest.mark.parametrize("name", [name for name, setting in DECLARED.items() if setting.secret])
def test_secret_is_in_no_error_and_no_repr(name: str) -> None:
    environ = {
        "ZAPWATCH_DATABASE_URL": DATABASE,
        "ZAPWATCH_SECRET_KEYS": KEY,
        "ZAPWATCH_OPERATOR_TOKEN": "operator-token-0123",
        "ZAPWATCH_ALERT_URL": "https://hooks.example/bot-token/chat",
        "ZAPWATCH_HEARTBEAT_URL": "https://hc.example/ping/9f2b",
    }

    settings = load_settings(environ)
    with pytest.raises(SettingsError) as error:
        load_settings({variable(name): "s3cret x", "ZAPWATCH_PORT": "x", variable(name) + "_FILE": "/x"})

    shown = repr(settings)
    assert "s3cret" not in str(error.value)
    assert environ[variable(name)] not in shown
    assert repr(getattr(settings, name)) not in shown


def test_file_suffix_reads_the_value_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("operator-token-0123\n")

    settings = load_settings({"ZAPWATCH_OPERATOR_TOKEN_FILE": str(file)})

    assert settings.operator_token == "operator-token-0123"


def test_value_and_file_together_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="both set"):
        load_settings({"ZAPWATCH_HOST": "::1", "ZAPWATCH_HOST_FILE": str(tmp_path / "host")})


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_file_without_a_text_is_wrong(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "host").write_bytes(content)

    with pytest.raises(SettingsError, match=r"ZAPWATCH_HOST can't be read"):
        load_settings({"ZAPWATCH_HOST_FILE": str(tmp_path / "host")})


def test_override_wins_over_environment_and_its_file() -> None:
    environ = {"ZAPWATCH_PORT_FILE": "/does/not/exist", "ZAPWATCH_HOST": "::1", "ZAPWATCH_WORKERS": "2"}

    settings = load_settings(environ, {"port": "9", "host": None, "workers": "3"})

    assert (settings.port, settings.host, settings.workers) == (9, "::1", 3)
    assert settings.base_url == "http://[::1]:9"


def test_empty_value_counts_as_unset() -> None:
    settings = load_settings({"ZAPWATCH_PORT": "", "ZAPWATCH_DATABASE_URL": ""})

    assert settings == Settings()


def test_unknown_name_is_a_warning_that_guesses_what_was_meant() -> None:
    settings = load_settings({"ZAPWATCH_PUBLIC_ULR": "x", "ZAPWATCH_QQQQQQQ": "x", "PORT": "x"})

    assert settings.warnings == (
        "ZAPWATCH_PUBLIC_ULR is not a setting; did you mean ZAPWATCH_PUBLIC_URL?",
        "ZAPWATCH_QQQQQQQ is not a setting",
    )
