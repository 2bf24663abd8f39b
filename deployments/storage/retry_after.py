"""The header by which a server says when to come again (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds until then; None when the header is missing or says nothing that can be read."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
