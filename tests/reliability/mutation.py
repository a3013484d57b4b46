"""Seeded mutators: bytes, JSON as a tree that keeps its spelling, and safetensors files.

A mutator that knows the structure gets behind the first check, which random bytes hardly ever do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from json.encoder import encode_basestring, encode_basestring_ascii
from random import Random
from typing import Any

Tree = Any
"""None, bool, int, float, str, `Raw`, a list, or `Members`."""


class Raw(str):
    """A token that is written as it stands, whether it is JSON or not."""


class Members(list[Any]):
    """An object as a list of `[key, value]`, so that keys can come twice and in any order."""


EDGES = (0, 1, -1, 7, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1,
         2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63))  # fmt: skip
TOKENS = ("NaN", "Infinity", "-Infinity", "-0", "1.0", "1e400", "1E2", "01", "+1", ".5", "0x10",
          "9" * 40, "9" * 5000, "0." + "1" * 60, '"\\ud800"', '"\\u0041"', '"\\u0000"', "'a'", "",
          "undefined", "[" * 3000, "[" * 40_000, "/**/0", '"a', "tru")  # fmt: skip
VALUES: tuple[Tree, ...] = (None, True, False, 0.5, -0.0, 1e308, "", "x", [], Members(), [0],
                            Members([["a", 1]]), [[[]]])  # fmt: skip
TRICKS = ("\x00", "\n", "\r", "\t", " ", "\x1b[2J", "\u202e", "\u200b", "\ufeff", "\ud800", "\xe9",
          "e\u0301", "\uff11", "\u0663", "\u0130", "\u1e9e", "../", "..\\", "%2e%2e/", "/", "//", "C:",
          "#", "A", "-", ".", "\U0001f600", "0" * 70, "a" * 300)  # fmt: skip


_MOST_VALUES, _MOST_BYTES = 40_000, 2 << 20
"""Of copies: enough to go over every limit a reader has, and little beside the memory it may take,
because both work in one process."""


def tree(value: Any) -> Tree:
    """A JSON value as a tree of its own; nothing in it is shared with another one."""
    if isinstance(value, dict):
        return Members([key, tree(inner)] for key, inner in value.items())
    if isinstance(value, Members):
        return Members(
            [tree(key), tree(inner)] for key, inner in value
        )  # a key may be a list by now
    return [tree(inner) for inner in value] if isinstance(value, list) else value


def write(node: Tree, *, tidy: bool = True, gap: str = "", ascii_only: bool = False) -> bytes:
    """The text of a tree. `tidy` sorts keys, as canonical JSON does."""
    quote = encode_basestring_ascii if ascii_only else encode_basestring

    def text(node: Tree) -> str:
        if isinstance(node, Raw):
            return node
        if isinstance(node, str):
            return quote(node)
        if isinstance(node, Members):
            pairs = sorted(node, key=lambda pair: str(pair[0])) if tidy else node
            return "{" + f",{gap}".join([f"{text(k)}:{gap}{text(v)}" for k, v in pairs]) + "}"
        if isinstance(node, list):
            return "[" + f",{gap}".join(map(text, node)) + "]"
        return json.dumps(node)

    return text(node).encode("utf-8", "surrogatepass")  # a lone surrogate becomes bad UTF-8


def respelled(rng: Random, node: Tree) -> bytes:
    """The same value, written as other programs might."""
    data = write(node, tidy=rng.random() < 0.3, gap=rng.choice(["", " ", "\n", "\t"]),
                 ascii_only=rng.random() < 0.5)  # fmt: skip
    before = rng.choice([b"", b"", b"", b" ", b"\xef\xbb\xbf"])
    return before + data + rng.choice([b"", b"", b" ", b"\n", b"\x00", b"{}", b" " * 64])


def mutate_tree(rng: Random, root: Tree, times: int) -> Tree:
    """A copy with `times` changes."""
    holder = [tree(root)]
    for _ in range(times):
        rng.choice(_CHANGES)(rng, holder)
    return holder[0]


def _slots(holder: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """Every place in a tree where a value stands: the list that holds it, and where."""
    for place, node in enumerate(holder):
        if not isinstance(holder, Members):
            yield holder, place
        if isinstance(node, list):
            yield from _slots(node)


def _slot(
    rng: Random, holder: list[Any], wanted: type | tuple[type, ...] = object
) -> tuple[list[Any], int]:
    found = [slot for slot in _slots(holder) if isinstance(slot[0][slot[1]], wanted)]
    return rng.choice(found) if found else (holder, 0)


def _other_type(rng: Random, holder: list[Any]) -> None:
    at, place = _slot(rng, holder)
    at[place] = rng.choice([Raw(rng.choice(TOKENS)), tree(rng.choice(VALUES)), rng.choice(EDGES)])


def _edge(rng: Random, holder: list[Any]) -> None:
    at, place = _slot(rng, holder, (int, float))
    if isinstance(number := at[place], int | float):
        at[place] = rng.choice([number + 1, number - 1, -number, number * 2, float(number), number // 2,
                                rng.choice(EDGES)])  # fmt: skip


def _respell(rng: Random, holder: list[Any]) -> None:
    """The same number in other letters, which some readers take and some do not."""
    at, place = _slot(rng, holder, int)
    if type(number := at[place]) is int:
        forms = (f"-{number}", f"{number}.0", f"{number}e0", f"0{number}", f"+{number}")
        at[place] = Raw(rng.choice(forms))


def _text(rng: Random, holder: list[Any]) -> None:
    at, place = _slot(rng, holder, str)
    if isinstance(text := at[place], str):
        where, trick = rng.randint(0, len(text)), rng.choice(TRICKS)
        at[place] = rng.choice([text[:where] + trick + text[where:], text + trick, text[:where], trick,
                                text.upper(), text * rng.choice([2, 50])])  # fmt: skip


def _drop(rng: Random, holder: list[Any]) -> None:
    at, place = _slot(rng, holder, list)
    if isinstance(inner := at[place], list) and inner:
        del inner[rng.randrange(len(inner))]


def _repeat(rng: Random, holder: list[Any]) -> None:
    at, place = _slot(rng, holder, list)
    if isinstance(inner := at[place], list) and inner:
        chosen = rng.randrange(len(inner))
        times = rng.choice([1, 1, 1, 2, 17, 600]) if rng.random() < 0.98 else 40_000
        values = 1 + sum(1 for _ in _slots([inner[chosen]]))
        size = len(write(inner[chosen], tidy=False))
        most = 1 + min(_MOST_VALUES // values, _MOST_BYTES // size)
        copies = [tree(inner[chosen]) for _ in range(min(times, most))]
        inner[chosen:chosen] = copies


def _unknown(rng: Random, holder: list[Any]) -> None:
    at, place = _slot(rng, holder, Members)
    if isinstance(inner := at[place], Members):
        inner.append([rng.choice([*TRICKS, "__proto__", "zz"]), tree(rng.choice(VALUES))])


def _transplant(rng: Random, holder: list[Any]) -> None:
    source, where = _slot(rng, holder)
    at, place = _slot(rng, holder)
    at[place] = tree(source[where])


def _nest(rng: Random, holder: list[Any]) -> None:
    at, place = _slot(rng, holder)
    for _ in range(rng.choice([1, 2, 14, 17, 60])):
        at[place] = [at[place]] if rng.random() < 0.5 else Members([["a", at[place]]])


def _swap(rng: Random, holder: list[Any]) -> None:
    at, place = _slot(rng, holder, list)
    if isinstance(inner := at[place], list):
        rng.shuffle(inner)


_CHANGES: Sequence[Callable[[Random, list[Any]], None]] = (
    _other_type, _edge, _edge, _respell, _text, _text, _drop, _repeat, _unknown, _transplant, _nest, _swap,
)  # fmt: skip


def mutate_bytes(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """One to four raw changes; `others` are texts to splice from."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        rng.choice(_RAW)(rng, out, rng.choice(others))
    return bytes(out)


def _flip(rng: Random, out: bytearray, _: bytes) -> None:
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def _overwrite(rng: Random, out: bytearray, _: bytes) -> None:
    width = rng.choice([1, 2, 4, 8])
    number = (rng.choice(EDGES) % (1 << 8 * width)).to_bytes(width, "little")
    place = rng.randint(0, max(0, len(out) - width))
    out[place : place + width] = number


def _delete(rng: Random, out: bytearray, _: bytes) -> None:
    place = rng.randint(0, len(out))
    del out[place : place + rng.choice([1, 2, 8, 64, len(out)])]


def _insert(rng: Random, out: bytearray, _: bytes) -> None:
    place = rng.randint(0, len(out))
    out[place:place] = rng.randbytes(rng.choice([1, 2, 8, 64]))


def _double(rng: Random, out: bytearray, _: bytes) -> None:
    place = rng.randint(0, len(out))
    chunk = bytes(out[place : place + rng.choice([1, 8, 64, 300])])
    out[place:place] = chunk * rng.choice([1, 1, 2, 100])


def _splice(rng: Random, out: bytearray, other: bytes) -> None:
    place, start = rng.randint(0, len(out)), rng.randint(0, len(other))
    out[place:] = other[start:]


def _move(rng: Random, out: bytearray, _: bytes) -> None:
    start = rng.randint(0, len(out))
    chunk = bytes(out[start : start + rng.choice([1, 4, 32])])
    del out[start : start + len(chunk)]
    place = rng.randint(0, len(out))
    out[place:place] = chunk


_RAW: Sequence[Callable[[Random, bytearray, bytes], None]] = (
    _flip, _flip, _overwrite, _delete, _insert, _double, _splice, _move,
)  # fmt: skip


def mutate_lines(rng: Random, text: bytes, tokens: Sequence[bytes]) -> bytes:
    """A text of lines `key = value` with lines and values changed; `tokens` are values to put in."""
    lines = text.split(b"\n")
    for _ in range(rng.choice([1, 1, 2, 3])):
        place = rng.randrange(len(lines))
        key, equals, _value = lines[place].partition(b" = ")
        lines[place : place + 1] = rng.choice(
            [
                [],
                [lines[place]] * 2,
                [rng.choice(lines)],
                [key + equals + rng.choice(tokens)],
                [key + equals + rng.choice(tokens)],
                [rng.choice(tokens) + equals + _value],
                [mutate_bytes(rng, lines[place], lines)],
                [lines[place], rng.choice(lines)],
            ]
        )
        lines = lines or [b""]
    return b"\n".join(lines)


def mutate_tensor_file(rng: Random, data: bytes) -> bytes:
    """A safetensors file with its header, its length field or its numbers changed."""
    size = int.from_bytes(data[:8], "little")
    root, body = tree(json.loads(data[8 : 8 + size])), bytearray(data[8 + size :])
    kind = rng.random()
    if kind < 0.35:
        root = mutate_tree(rng, root, rng.choice([1, 1, 2]))
    elif kind < 0.65:
        rng.choice(_LAYOUTS)(rng, root, body)
    elif kind < 0.75:
        _poke(rng, body)
    other_spelling = 0.75 <= kind < 0.85 or rng.random() < 0.3
    text = respelled(rng, root) if other_spelling else write(root)
    length = len(text)
    if kind >= 0.85:
        length = rng.choice([length + 1, length - 1, length + 8, length + len(body), *EDGES])
    if kind >= 0.97:
        body += bytes(rng.choice([1, 8, 4096]))
    return (length % 2**64).to_bytes(8, "little") + text + bytes(body)


def _entry(rng: Random, root: Members) -> dict[str, list[Any]]:
    """One tensor's pairs by key."""
    return {pair[0]: pair for pair in rng.choice(root)[1]}


def _shift(rng: Random, root: Members, body: bytearray) -> None:
    offsets = _entry(rng, root)["data_offsets"]
    by = rng.choice([1, 4, -4, 8, 2**40])
    offsets[1] = [offset + by for offset in offsets[1]]
    if by > 0 and rng.random() < 0.5:
        body += bytes(min(by, 8))


def _overlap(rng: Random, root: Members, body: bytearray) -> None:
    _entry(rng, root)["data_offsets"][1] = list(_entry(rng, root)["data_offsets"][1])


def _trade_places(rng: Random, root: Members, body: bytearray) -> None:
    one, other = _entry(rng, root)["data_offsets"], _entry(rng, root)["data_offsets"]
    one[1], other[1] = other[1], one[1]  # sound if both have the same size


def _other_dtype(rng: Random, root: Members, body: bytearray) -> None:
    _entry(rng, root)["dtype"][1] = rng.choice(
        ["F32", "I32", "F16", "BF16", "F64", "BOOL", "F8_E4M3"]
    )


def _other_shape(rng: Random, root: Members, body: bytearray) -> None:
    shape = _entry(rng, root)["shape"]
    shape[1] = rng.choice(
        [shape[1][::-1], [1, *shape[1]], [*shape[1], 1], [0, 2**62], [], [2**32] * 2]
    )


def _extra(rng: Random, root: Members, body: bytearray) -> None:
    name = rng.choice(["spare", "__metadata__", "../x", "\u202etxt", root[0][0]])
    empty = Members([["data_offsets", [0, 0]], ["dtype", "F32"], ["shape", [0]]])
    for i in range(rng.choice([1, 1, 1, 200])):
        root.append([f"{name}{i}" if i else name, tree(empty)])


def _rename(rng: Random, root: Members, body: bytearray) -> None:
    one, other = rng.choice(root), rng.choice(root)
    one[0] = rng.choice([other[0], one[0] + ".", one[0].replace(".", ".0", 1), one[0].upper()])


def _cut(rng: Random, root: Members, body: bytearray) -> None:
    del body[rng.randint(0, len(body)) :]


def _poke(rng: Random, body: bytearray) -> None:
    """Bits of NaN and infinity in any of the types, and ordinary numbers."""
    place = rng.randrange(0, max(1, len(body) - 4), 2)
    body[place : place + 4] = rng.choice(
        [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\x00\x7e\x00\x7c", b"\x80\x7f\x80\xff",
         b"\x00\x00\x80\x3f", rng.randbytes(4)]
    )  # fmt: skip


_LAYOUTS: Sequence[Callable[[Random, Members, bytearray], None]] = (
    _shift, _overlap, _trade_places, _other_dtype, _other_shape, _extra, _rename, _cut,
)  # fmt: skip
