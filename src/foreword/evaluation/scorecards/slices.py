"""Slices: the parts of a golden set that are looked at on their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foreword.evaluation.golden import GoldenRow


@dataclass(frozen=True, order=True)
class Slice:
    """Rows with these properties; an empty text means any."""

    cohort: str = ""
    specialty: str = ""
    language: str = ""
    tag: str = ""

    @property
    def label(self) -> str:
        """For people: `all rows`, or what the rows have in common."""
        named = [
            text
            for text in (self.cohort, self.specialty, self.language, self.tag and f"#{self.tag}")
            if text
        ]
        return " · ".join(named) or "all rows"

    def has(self, row: GoldenRow) -> bool:
        return (
            self.cohort in ("", row.cohort)
            and self.specialty in ("", row.specialty)
            and self.language in ("", row.language)
            and (not self.tag or self.tag in row.tags)
        )


ALL = Slice()


def slices_of(rows: Sequence[GoldenRow]) -> dict[Slice, tuple[str, ...]]:
    """Row ids of all rows, of every cohort, specialty, language and tag, and of what they have together.

    A slice with exactly the rows of an earlier one says nothing new and is left out.
    """
    found: dict[Slice, tuple[str, ...]] = {}
    seen: set[tuple[str, ...]] = set()
    for each in dict.fromkeys(_all(rows)):
        ids = tuple(row.id for row in rows if each.has(row))
        if ids not in seen:
            seen.add(ids)
            found[each] = ids
    return found


def _all(rows: Sequence[GoldenRow]) -> Iterator[Slice]:
    yield ALL
    yield from sorted({Slice(cohort=row.cohort) for row in rows})
    yield from sorted({Slice(specialty=row.specialty) for row in rows})
    yield from sorted({Slice(language=row.language) for row in rows})
    yield from sorted({Slice(tag=tag) for row in rows for tag in row.tags})
    yield from sorted({Slice(row.cohort, row.specialty, row.language) for row in rows})
