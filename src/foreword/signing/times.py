"""Moments in UTC, to the second, written as in a manifest: 2026-01-31T12:00:00Z."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_FORM = "%Y-%m-%dT%H:%M:%SZ"
_TEXT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def stamp(moment: datetime) -> str:
    """The text of a moment; parts of a second are dropped.

    Raises:
        ValueError: the moment has no time zone, so it names no moment.
    """
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone; use datetime.now(UTC)")
    moment = moment.astimezone(UTC)
    return f"{moment.year:04}{moment.strftime(_FORM.removeprefix('%Y'))}"


def moment(text: str) -> datetime:
    """The moment of a text.

    Raises:
        ValueError: the text has another form, or there is no such moment.
    """
    if not _TEXT.fullmatch(text):  # strptime also takes 2026-1-1 and digits of other scripts
        raise ValueError(f"expected a time as 2026-01-31T12:00:00Z, got {text[:40]!r}")
    return datetime.strptime(text, _FORM).replace(tzinfo=UTC)
