"""The vault: opens for the row and the keys it was sealed for, and for nothing else."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.vault import Vault, VaultError, kept_keys

OLD, NEW, OTHER = (bytes([number]) * 32 for number in range(3))


@pytest.mark.parametrize("plaintext", ["chave ü", "", b"\0\xff" * 1000])
def test_sealed_value_opens_for_its_row(plaintext: bytes | str) -> None:
    sealed = Vault([OLD]).seal(plaintext, "channel:1")

    opened = Vault([OLD]).open(sealed, "channel:1")

    assert opened == (plaintext.encode() if isinstance(plaintext, str) else plaintext)


def test_sealed_value_shows_nothing_and_is_never_the_same() -> None:
    vault = Vault([OLD])

    first, second = vault.seal("s3cret", "channel:1"), vault.seal("s3cret", "channel:1")

    assert first != second
    assert b"s3cret" not in first


def test_any_key_opens_and_the_first_seals() -> None:
    sealed = Vault([OLD]).seal("s3cret", "channel:1")
    both = Vault([NEW, OLD])

    assert both.open(sealed, "channel:1") == b"s3cret"
    assert Vault([NEW]).open(both.seal("s3cret", "channel:1"), "channel:1") == b"s3cret"


def test_value_copied_into_another_row_does_not_open() -> None:
    sealed = Vault([OLD]).seal("s3cret", "channel:1")

    with pytest.raises(VaultError, match="channel:2: sealed for another row"):
        Vault([OLD]).open(sealed, "channel:2")


def test_missing_key_is_told_apart_from_a_changed_value() -> None:
    sealed = Vault([OLD]).seal("s3cret", "channel:1")

    with pytest.raises(VaultError, match="not among SECRET_KEYS"):
        Vault([NEW, OTHER]).open(sealed, "channel:1")


@pytest.mark.parametrize("position", range(0, 38, 3))
def test_changed_byte_is_noticed(position: int) -> None:
    sealed = bytearray(Vault([OLD]).seal("s3cret", "channel:1"))
    sealed[position] ^= 1

    with pytest.raises(VaultError):
        Vault([OLD]).open(bytes(sealed), "channel:1")


@pytest.mark.parametrize("length", range(33))
def test_cut_value_is_noticed(length: int) -> None:
    sealed = Vault([OLD]).seal("", "channel:1")

    with pytest.raises(VaultError):
        Vault([OLD]).open(sealed[:length], "channel:1")


@pytest.mark.parametrize("keys", [[], [b"short"], [OLD, b"x" * 33]])
def test_unusable_keys_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(VaultError):
        Vault(keys)


def test_key_is_in_no_repr() -> None:
    assert repr(Vault([OLD, NEW])) == "<Vault of 2 keys>"


def test_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secret_keys"

    first, second = kept_keys(path), kept_keys(path)

    assert first == second
    assert len(first[0]) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secret_keys"]


def test_processes_that_start_at_once_agree_on_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: kept_keys(tmp_path / "secret_keys"), range(8)))

    assert len(set(found)) == 1


@pytest.mark.parametrize("content", ["", "short", "ü"])
def test_damaged_key_file_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret_keys"
    path.write_text(content)

    with pytest.raises(VaultError, match="secret_keys"):
        kept_keys(path)

    assert path.read_text() == content
