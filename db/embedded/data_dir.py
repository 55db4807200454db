"""Relocates the embedded database's data folder when root starts it where PostgreSQL's account has no access.

A first start by root in a folder of root's own should still work. No permissions are changed: the data
folder becomes a link to one that the account may enter.
"""

import logging
import tempfile
from pathlib import Path
from typing import Final

from db.embedded.binaries import choose_account

FALLBACKS: Final = Path("/var/lib/zapwatch")

log = logging.getLogger(__name__)


def relocate(data_dir: Path, fallbacks: Path = FALLBACKS) -> None:
    """Make a data folder that doesn't exist yet a link into `fallbacks`, if PostgreSQL could not reach it.

    Does nothing for an ordinary user, for a folder that exists, and for one that can be reached.
    Raises OSError when no folder can be made.
    """
    if data_dir.exists() or data_dir.is_symlink():
        return
    parent = data_dir.absolute().parent
    account = choose_account(parent / "postgres")
    if account is None or account.can("-x", parent):
        return
    fallbacks.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="data-", dir=fallbacks))
    folder.chmod(0o711)
    data_dir.symlink_to(folder)
    log.warning(
        "PostgreSQL runs as the account %s, which may not enter %s: the data is in %s, linked from %s",
        account.name,
        parent,
        folder,
        data_dir,
    )
