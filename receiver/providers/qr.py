"""What providers read alike of QRs: only what can be scanned, shown or typed passes; sets no state."""

import re
from base64 import b64decode
from binascii import Error
from enum import Enum, auto
from typing import Final

from db.reconcile.qr import Qr
from receiver.providers.report import clean

CODE_LENGTH: Final = 4096
"""Characters of a QR's content; a QR holds no more."""
IMAGE_LENGTH: Final = 96 * 1024
"""Characters of a picture in base64; real ones have 10,000."""
PNG: Final = "data:image/png;base64,"
PICTURE: Final = re.compile(rf"(?:{re.escape(PNG)})?(iVBORw0K[A-Za-z0-9+/]+)={{0,2}}", re.ASCII)
"""A PNG in base64, with or without what makes it a data URL; it always begins so."""
PAIRING_CODE: Final = re.compile(r"[A-Z0-9]{4}-?[A-Z0-9]{4}", re.ASCII)


class NoQr(Enum):
    """Why an answer holds no QR."""

    CONNECTED = auto()
    """The gateway says that there is nothing to scan."""
    NOT_YET = auto()
    """It has begun to make one."""
    MISSING = auto()
    """It has no such instance."""
    UNAUTHORIZED = auto()
    FAILED = auto()
    """It couldn't, or this is no answer to the question."""


def qr_of(code: object = None, image: object = None, pairing_code: object = None) -> Qr | None:
    """Return what a gateway gave of a QR; None when there is nothing of use in it."""
    picture = _picture(image)
    typed = pairing_code if isinstance(pairing_code, str) and PAIRING_CODE.fullmatch(pairing_code) else None
    content = clean(code, CODE_LENGTH) if isinstance(code, str) and len(code) <= CODE_LENGTH else None
    return None if (content, picture, typed) == (None, None, None) else Qr(content, picture, typed)


def by_status(status: int) -> NoQr:
    """Return what an HTTP status other than 200 alone says."""
    return NoQr.UNAUTHORIZED if status in (401, 403) else NoQr.FAILED


def png_of(image: str) -> bytes:
    """Return the picture in a data URL that `qr_of` let pass."""
    return b64decode(image.removeprefix(PNG))


def _picture(image: object) -> str | None:
    found = PICTURE.fullmatch(image) if isinstance(image, str) and len(image) <= IMAGE_LENGTH else None
    if found is None:
        return None
    padded = found[1] + "=" * (-len(found[1]) % 4)
    try:
        b64decode(padded)
    except Error:
        return None
    return PNG + padded
