"""Encrypts credentials before they become rows; knows no table and writes no log.

Sealed: version (1 byte), key id (4), nonce (12), AES-256-GCM ciphertext and tag. The row's identity is
associated data, so that a sealed value copied into another row doesn't open there.
"""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_HEAD: Final = len(_VERSION) + _ID_BYTES


class VaultError(Exception):
    """A sealed value can't be opened; the message says why and carries neither key nor value."""


class Vault:
    """Seals with the first key and opens with any of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise VaultError("no secret key is given")
        if any(len(key) != KEY_BYTES for key in keys):
            raise VaultError(f"a secret key must be {KEY_BYTES} bytes long")
        self._keys: Final = [(_key_id(key), AESGCM(key)) for key in keys]

    def __repr__(self) -> str:
        return f"<Vault of {len(self._keys)} keys>"

    def seal(self, plaintext: bytes | str, identity: str) -> bytes:
        """Return the sealed value; `identity` names its row (`channel:<id>`) and is needed to open it."""
        data = plaintext.encode() if isinstance(plaintext, str) else plaintext
        key_id, cipher = self._keys[0]
        head = _VERSION + key_id
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + cipher.encrypt(nonce, data, head + identity.encode())

    def open(self, sealed: bytes, identity: str) -> bytes:
        """Return the plaintext, or raise `VaultError`: no key fits, another row, or changed."""
        if sealed[:1] != _VERSION or len(sealed) < _HEAD + _NONCE_BYTES:
            raise VaultError(f"{identity}: this isn't a value that was sealed here")
        head, nonce, data = (
            sealed[:_HEAD],
            sealed[_HEAD : _HEAD + _NONCE_BYTES],
            sealed[_HEAD + _NONCE_BYTES :],
        )
        fitting = [cipher for key_id, cipher in self._keys if key_id == head[1:]]
        for cipher in fitting:
            try:
                return cipher.decrypt(nonce, data, head + identity.encode())
            except InvalidTag:
                continue
        if not fitting:
            raise VaultError(f"{identity}: sealed with a key that is not among SECRET_KEYS")
        raise VaultError(f"{identity}: sealed for another row, or changed since")


def kept_keys(path: Path) -> tuple[bytes, ...]:
    """Return the keys kept in a file of mode 0600, made with one new key when it doesn't exist.

    Two processes that start at once agree: the file appears whole, and only once.
    """
    if not path.exists():
        _keep_new_key(path)
    try:
        text = path.read_text(encoding="ascii")
        keys = tuple(urlsafe_b64decode(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        keys = ()
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise VaultError(f"{path} doesn't hold keys of {KEY_BYTES} bytes in url-safe base64")
    return keys


def _keep_new_key(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(urlsafe_b64encode(os.urandom(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails when the name is taken: the first process makes the key for all.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _key_id(key: bytes) -> bytes:
    return sha256(b"zapwatch key id" + key).digest()[:_ID_BYTES]
