"""Which version is newer: the order that semver.org gives as its example, and what must not count."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact.versions import precedence
from foreword.errors import ArtifactError

# https://semver.org, section 11, with numbers of several digits between
RISING = [
    "0.9.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2",
    "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0-0", "2.0.0--",
    "2.0.0", "10.0.0",
]  # fmt: skip


def test_each_is_newer_than_the_ones_before() -> None:
    for older, newer in itertools.combinations(RISING, 2):
        assert precedence(older) < precedence(newer), (older, newer)


def test_the_build_part_does_not_count() -> None:
    assert precedence("1.0.0+a") == precedence("1.0.0+b.1") == precedence("1.0.0")
    assert precedence("1.0.0-rc.1+a-b") == precedence("1.0.0-rc.1")


@given(st.lists(st.sampled_from(RISING)))
def test_sorting_by_it_is_stable_and_total(versions: list[str]) -> None:
    assert sorted(versions, key=precedence) == sorted(versions, key=RISING.index)


@pytest.mark.parametrize("text", ["1.0", "v1.0.0", "1.0.0-01", "", "1.0.0\n", "\uff11.0.0"])
def test_what_is_no_version_has_no_order(text: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        precedence(text)
    assert caught.value.code == "manifest.version"
