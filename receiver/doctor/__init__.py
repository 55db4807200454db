"""`zapwatch doctor`: what is wrong with this installation, and what to do about it.

Changes nothing, neither in the database nor on a gateway, and shows no key, no token and of another's webhook
only the host. A check that fails is a finding too.
"""

from receiver.doctor.address import check_public_url
from receiver.doctor.examination import Examination, check_free_disk, examine
from receiver.doctor.webhooks import AT_ONCE, IN_ALL, PER_GATEWAY

__all__ = [
    "AT_ONCE",
    "IN_ALL",
    "PER_GATEWAY",
    "Examination",
    "check_free_disk",
    "check_public_url",
    "examine",
]
