"""What a name, a version, a digest and a reference may be, said a second time and without a regex,
and texts that try to be more than that."""

from __future__ import annotations

from random import Random

LOWER, DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
LETTERS = LOWER + LOWER.upper()


def is_part(text: str) -> bool:
    return (
        1 <= len(text) <= 63
        and text[0] in LOWER + DIGITS
        and set(text) <= set(LOWER + DIGITS + "._-")
    )


def is_name(text: str) -> bool:
    parts = text.split("/")
    return len(parts) <= 2 and all(map(is_part, parts))


def is_version(text: str) -> bool:
    """Semantic version 2.0, with bounds of 9 digits and 64 characters."""
    rest, plus, build = text.partition("+")
    core, dash, before = rest.partition("-")
    numbers = core.split(".")
    return (
        len(numbers) == 3
        and all(_is_number(number) and len(number) <= 9 for number in numbers)
        and (not dash or _are_words(before, numeric=True))
        and (not plus or _are_words(build, numeric=False))
    )


def is_digest(text: str) -> bool:
    return text[:7] == "sha256:" and len(text) == 71 and set(text[7:]) <= set("0123456789abcdef")


def is_alias(text: str) -> bool:
    return 1 <= len(text) <= 32 and text[0] in LOWER and set(text) <= set(LOWER + DIGITS + "-")


def is_reference(text: str) -> bool:
    if text.startswith("sha256:"):
        return is_digest(text)
    name, at, rest = text.partition("@")
    return len(text) <= 320 and is_name(name) and (not at or is_alias(rest) or is_version(rest))


def _is_number(text: str) -> bool:
    return text != "" and set(text) <= set(DIGITS) and (text == "0" or text[0] != "0")


def _are_words(text: str, *, numeric: bool) -> bool:
    """`numeric`: a word of digits alone has no nought in front."""
    words = text.split(".")
    return 1 <= len(text) <= 64 and all(
        word != ""
        and set(word) <= set(LETTERS + DIGITS + "-")
        and not (numeric and set(word) <= set(DIGITS) and not _is_number(word))
        for word in words
    )


_SOUND = ("acme/support", "support", "a", "x" * 63, "acme/a.b-c_d", "acme/support@1.2.3", "1.2.3",
          "acme/support@stable", "2.0.0-rc.1", "1.0.0-a.0.b-c+build.007", "a/b@10.20.30+x",
          *("sha256:" + digit * 64 for digit in "07af"), "acme/support@own-alias")  # fmt: skip
_PIECES = (*LOWER, *DIGITS, *".-_/@+:", "..", "//", "0", "00", "-", "A", "\n", "\0", " ", "%2e", "\\",
           "\u00e9", "e\u0301", "\u0661", "\uff0f", "\u2024", "\u202e", "\u200b", "x" * 60)  # fmt: skip


def texts(count: int, seed: int) -> list[str]:
    """Sound texts with one to three small changes; about a third of them are still sound."""
    rng, found = Random(seed), []
    for _ in range(count):
        text = rng.choice(_SOUND)
        for _ in range(rng.choice([1, 1, 2, 3])):
            start = rng.randint(0, len(text))
            end = rng.choice([start, start, start + 1, len(text)])
            text = text[:start] + rng.choice([*_PIECES, ""]) + text[end:]
        found.append(text)
    return found


_TRICKS = (
    "..", "../..", "../../etc/passwd", "..\\..\\x", "%2e%2e", "%2e%2e%2f", "%252e", "..%c0%af", "....//",
    ".", ".x/..", ".ssh", "/", "/etc/passwd", "//host/x", "\\\\host\\x", "C:", "C:\\x", "c:/x", "x:y",
    "~", "~root/x", "$HOME", "${HOME}", "`id`", "$(id)", ";id", "|id", "*", "?", "#x", "?x=1",
    "file:///etc/passwd", "http://127.0.0.1/x", "x\0", "x\0.txt", "x\n", "\nx", "x\r\n", "x\t", " x", "x ",
    "\u202etxt", "x\u200b", "caf\u00e9", "cafe\u0301", "\uff0e\uff0e\uff0f", "\u2024\u2024/", "-rf", "x" * 64,
)  # fmt: skip
"""Of the advisories on path traversal by id or digest, and what shells and terminals take badly."""


def hand_made() -> list[str]:
    """Each trick alone, as a prefix's name, as a tenant's, and behind a sound name."""
    return [
        form.format(trick) for trick in _TRICKS for form in ("{}", "acme/{}", "{}/x", "acme/x{}")
    ]
