"""Stop strings against the definition, for every way of cutting the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.serving.engine.text.stops import StopScanner


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    starts = [text.find(stop) for stop in stops if stop in text]
    return (text[: min(starts)], True) if starts else (text, False)


def scan(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    scanner, out = StopScanner(stops), ""
    for piece in pieces:
        scanned = scanner.push(piece)
        out += scanned.text
        if scanned.hit:
            return out, True
    scanned = scanner.flush()
    return out + scanned.text, scanned.hit


small = st.text("ab", max_size=6)


@given(st.lists(small, max_size=8), st.lists(small.filter(bool), max_size=4))
def test_any_text_in_any_pieces_stops_where_the_whole_would(
    pieces: list[str], stops: list[str]
) -> None:
    assert scan(pieces, stops) == naive("".join(pieces), stops)


@given(st.lists(small, max_size=8), st.lists(small.filter(bool), max_size=4))
def test_nothing_is_held_that_cannot_become_a_stop(pieces: list[str], stops: list[str]) -> None:
    scanner, seen, out = StopScanner(stops), "", ""
    for piece in pieces:
        scanned = scanner.push(piece)
        seen, out = seen + piece, out + scanned.text
        if scanned.hit:
            return
        begun = [n for stop in stops for n in range(len(stop)) if seen.endswith(stop[:n])]
        assert len(seen) - len(out) == max(begun, default=0)
        assert seen.startswith(out)


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["one\n", "\ntwo"], ["\n\n"], ("one", True)),
        (["a stop inside"], ["stop"], ("a ", True)),
        (["ab", "c", "d"], ["bc", "abcd"], ("", True)),
        (["ab", "c", "x"], ["bc", "abcd"], ("a", True)),
        (["ab", "c"], ["bc", "abcd"], ("a", True)),
        (["aab"], ["ab"], ("a", True)),
        (["almost sto"], ["stop"], ("almost sto", False)),
        (["anything"], [], ("anything", False)),
        (["", ""], ["x"], ("", False)),
    ],
)
def test_stops_over_pieces(pieces: list[str], stops: list[str], expected: tuple[str, bool]) -> None:
    assert scan(pieces, stops) == expected


def test_only_what_may_be_a_stop_waits() -> None:
    scanner = StopScanner(["END."])
    assert scanner.push("The EN").text == "The "
    assert scanner.push("D of").text == "END of"
