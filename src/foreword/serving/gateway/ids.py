"""Random ids. One look at the system's generator gives many: each look is a call of the kernel."""

from __future__ import annotations

import secrets

_BYTES, _MANY = 16, 256
_left: list[str] = []


def new_id() -> str:
    """32 hexadecimal digits that nobody can guess and that no other id has."""
    while True:
        try:
            return _left.pop()
        except IndexError:
            drawn = secrets.token_hex(_BYTES * _MANY)
            _left.extend(drawn[at : at + 2 * _BYTES] for at in range(0, len(drawn), 2 * _BYTES))
