"""Addresses: one form for one gateway, and a reason for every refusal."""

import pytest

from db.registry.address import AddressError, normalise


@pytest.mark.parametrize(
    ("provider", "address", "expected"),
    [
        ("evolution_api", "HTTP://Evo.Example:80/", "http://evo.example"),
        ("evolution_api", "https://evo.example:443//", "https://evo.example"),
        ("evolution_api", "https://evo.example:80", "https://evo.example:80"),
        ("evolution_api", " http://evo.example/API/ ", "http://evo.example/API"),
        ("evolution_api", "http://[::1]:8080", "http://[::1]:8080"),
        ("evolution_api", None, ""),
        ("evolution_api", " ", ""),
        ("waha", None, ""),
        ("wapi", None, "https://api.w-api.app/v1"),
        ("wapi", "", "https://api.w-api.app/v1"),
        ("wapi", "https://api.w-api.app", "https://api.w-api.app/v1"),
        ("wapi", "https://API.w-api.app:443/v1/", "https://api.w-api.app/v1"),
        ("wapi", "https://host.w-api.app/v1", "https://host.w-api.app/v1"),
        ("twilio", None, "https://messaging.twilio.com"),
        ("twilio", "https://messaging.twilio.com/", "https://messaging.twilio.com"),
    ],
)
def test_address_has_one_form(provider: str, address: str | None, expected: str) -> None:
    assert normalise(provider, address) == expected
    assert normalise(provider, normalise(provider, address)) == expected


@pytest.mark.parametrize(
    "address",
    ["evo.example", "ftp://evo.example", "http://", "http://:80", "http://a:0", "http://a:x", "http://a:70000",
     "http://[a", "http://u@a", "http://u:p@a", "http://a?b", "http://a#b", "http://ü", "http://a b", "http://a/\0",
     "javascript:alert(1)"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AddressError):
        normalise("evolution_api", address)
