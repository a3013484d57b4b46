"""Picking is sticky, fair, and as steady as its share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest
from foreword.registry.releases import Release
from foreword.registry.tagged import tagged

STABLE, CANARY, NEXT = Digest.of(b"stable"), Digest.of(b"canary"), Digest.of(b"next")
RELEASE = Release("acme/support", STABLE, CANARY, 0.3)
KEYS = [f"user-{i}" for i in range(100_000)]
SHARES = st.floats(0, 1)


@given(st.text(), SHARES)
def test_the_same_key_gets_the_same_version(key: str, share: float) -> None:
    release = replace(RELEASE, share=share)
    assert release.pick(key) == replace(release).pick(key)


@given(st.text(), SHARES, SHARES)
def test_a_key_never_leaves_the_canary_while_the_share_grows(key: str, a: float, b: float) -> None:
    less, more = sorted((a, b))
    if replace(RELEASE, share=less).pick(key).arm == "canary":
        assert replace(RELEASE, share=more).pick(key).arm == "canary"


@given(st.text())
def test_nobody_gets_a_canary_of_no_share_and_everybody_one_of_all(key: str) -> None:
    assert replace(RELEASE, share=0.0).pick(key).digest == STABLE
    assert replace(RELEASE, share=1.0).pick(key).digest == CANARY
    assert Release("acme/support", STABLE).pick(key).digest == STABLE


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5, 0.9])
def test_the_share_is_kept_within_half_a_point(share: float) -> None:
    release = replace(RELEASE, share=share)
    got = sum(release.pick(key).arm == "canary" for key in KEYS) / len(KEYS)
    assert abs(got - share) < 0.005


def test_another_canary_and_another_name_draw_anew() -> None:
    # Independent draws meet at the product of the shares: 9 %. The same draw would meet at 30 %.
    first = {key for key in KEYS if RELEASE.pick(key).arm == "canary"}
    for other in (replace(RELEASE, canary=NEXT), replace(RELEASE, name="acme/other")):
        both = sum(other.pick(key).arm == "canary" for key in first) / len(KEYS)
        assert abs(both - 0.09) < 0.005


def test_the_draw_is_the_one_that_was_written_down() -> None:
    # Servers of different versions must pick alike; these were computed once and never change.
    drawn = tagged("foreword.pick/1", b"acme/support", bytes.fromhex(CANARY.hex), b"user-1")
    assert drawn.hex()[:16] == "99ea335331de1216"
    at = int.from_bytes(drawn[:8], "big") / 2**64
    assert replace(RELEASE, share=at * 0.999).pick("user-1").arm == "stable"
    assert replace(RELEASE, share=at * 1.001).pick("user-1").arm == "canary"


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_different_fields_never_give_the_same_hash(a: list[bytes], b: list[bytes]) -> None:
    assert (tagged("t", *a) == tagged("t", *b)) == (a == b)
    assert tagged("t", *a) != tagged("u", *a)
