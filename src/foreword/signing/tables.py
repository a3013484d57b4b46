"""Read a TOML table key by key, and write TOML; for the policy file, which knows no unknown keys."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, NoReturn

from foreword.errors import TrustError

_ROOT = "the file"
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,80}")
_MAX_DOTS = 100
"""In one line. The TOML reader takes time and memory squared in the length of a dotted key."""
_MAX_INTEGER = 2**53


def refuse(path: str, kind: str | None, reason: str, cause: Exception | None = None) -> NoReturn:
    """Raise the `TrustError` for one place of the file: `trust.policy`, or `trust.policy_<kind>`."""
    code = f"trust.policy_{kind}" if kind else "trust.policy"
    raise TrustError(f"trust policy, {path}: {reason}", code=code) from cause


def parse(data: bytes) -> Table:
    """The root table of a TOML file.

    Raises:
        TrustError: not TOML in UTF-8 (`trust.policy`).
    """
    if any(line.count(b".") > _MAX_DOTS for line in data.splitlines()):
        refuse(_ROOT, None, f"expected at most {_MAX_DOTS} dots in a line")
    try:
        return Table(tomllib.loads(data.decode()), _ROOT)
    except (ValueError, RecursionError) as e:
        refuse(_ROOT, None, f"not valid TOML ({str(e)[:200]})", e)


class Table:
    """One table being read; `done` refuses keys that nobody asked for, naming the nearest known."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            self._wrong(path, "a table", value)
        self._left = dict(value)
        self._asked: list[str] = []
        self._path = path

    def at(self, name: str) -> str:
        """Where a key stands, for messages."""
        shown = name if _PLAIN.fullmatch(name) else repr(name[:80])
        return shown if self._path == _ROOT else f"{self._path}.{shown}"

    def has(self, name: str) -> bool:
        if name not in self._left:
            self._asked.append(name)
        return name in self._left

    def text(self, name: str) -> str:
        value = self._take(name)
        if not isinstance(value, str):
            self._wrong(self.at(name), "text", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._take(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self._wrong(self.at(name), "a list of texts", values)
        return tuple(values)

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        value = self.text(name)
        if value not in allowed:
            refuse(self.at(name), "value",
                   f"expected one of {', '.join(allowed)}, got {value[:80]!r}")  # fmt: skip
        return value

    def integer(self, name: str) -> int:
        value = self._take(name)
        if type(value) is not int:
            self._wrong(self.at(name), "an integer", value)
        if abs(value) > _MAX_INTEGER:
            refuse(self.at(name), "value", "expected an integer within 2^53")
        return value

    def moment(self, name: str) -> datetime:
        """A date and time with its offset, as 2027-01-31T12:00:00Z; without one it names no moment."""
        value = self._take(name)
        if not isinstance(value, datetime) or value.tzinfo is None:
            self._wrong(self.at(name), "a time as 2027-01-31T12:00:00Z, without quotes", value)
        try:
            return value.astimezone(UTC)
        except OverflowError as e:  # the first or last day there is, in another time zone
            refuse(self.at(name), None, f"there is no such time in UTC: {value}", e)

    def table(self, name: str) -> Table:
        """A table inside, empty if it is not there."""
        return Table(self._take(name) if self.has(name) else {}, self.at(name))

    def names(self) -> tuple[str, ...]:
        """The keys of a table whose keys are names."""
        return tuple(self._left)

    def done(self) -> None:
        """Refuse what is left: a misspelt `not_after` would be a key that never expires."""
        if self._left:
            name = min(self._left)
            near = get_close_matches(name, self._asked, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(self._asked)}"
            refuse(self.at(name), "unknown", f"nobody knows this key; {hint}")

    def _take(self, name: str) -> Any:
        self._asked.append(name)
        if name not in self._left:
            refuse(self.at(name), None, "it is missing")
        return self._left.pop(name)

    def _wrong(self, path: str, expected: str, value: Any) -> NoReturn:
        try:
            shown = repr(str(value)[:80])
        except ValueError:  # an integer of too many digits for Python to write
            shown = f"a {type(value).__name__}"
        refuse(path, None, f"expected {expected}, got {shown}")


def quoted(text: str) -> str:
    """A TOML basic string; `text` is printable, so only two letters need escaping."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def listed(texts: Iterable[str]) -> str:
    return f"[{', '.join(quoted(text) for text in texts)}]"


def moment_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
