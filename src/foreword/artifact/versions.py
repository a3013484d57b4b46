"""Which of two semantic versions is newer."""

from __future__ import annotations

from foreword.artifact.manifest import check_version

Precedence = tuple[int, int, int, tuple[int, ...], tuple[tuple[int, int, str], ...]]


def precedence(version: str) -> Precedence:
    """A value that sorts as the version does (https://semver.org, section 11).

    A pre-release comes before its release, numbers before words; the build part does not count, so
    1.0.0+a and 1.0.0+b are equal.

    Raises:
        ArtifactError: not a semantic version (`manifest.version`).
    """
    check_version(version)
    core, _, pre = version.partition("+")[0].partition("-")
    major, minor, patch = (int(number) for number in core.split("."))
    words = tuple(_identifier(word) for word in pre.split(".")) if pre else ()
    return major, minor, patch, () if words else (1,), words


def _identifier(word: str) -> tuple[int, int, str]:
    return (0, int(word), "") if word.isdecimal() else (1, 0, word)
