"""A reference is one of four forms and means the same when it is written down again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest
from foreword.errors import UsageError
from foreword.registry.references import (
    ByAlias,
    ByDigest,
    ByName,
    ByVersion,
    check_alias,
    parse_reference,
)

PART = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
NAMES = st.one_of(PART, st.tuples(PART, PART).map("/".join))
NUMBER = st.integers(0, 999_999_999).map(str)
VERSIONS = st.builds(
    lambda a, b, c, tail: f"{a}.{b}.{c}{tail}",
    NUMBER, NUMBER, NUMBER,
    st.sampled_from(["", "-rc.1", "-0", "-alpha-b.7", "+build.5", "-rc.1+exp.sha-5"]),
)  # fmt: skip
ALIASES = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)
REFERENCES = st.one_of(
    st.builds(ByName, NAMES),
    st.builds(ByVersion, NAMES, VERSIONS),
    st.builds(ByAlias, NAMES, ALIASES),
    st.builds(ByDigest, st.binary().map(Digest.of)),
)


@given(REFERENCES)
def test_what_is_written_is_read_back(reference: ByName | ByVersion | ByAlias | ByDigest) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text())
def test_any_text_is_read_exactly_or_refused(text: str) -> None:
    refusal = None
    try:
        assert str(parse_reference(text)) == text
    except UsageError as e:
        refusal = e
    assert refusal is None or (refusal.code == "reference.malformed" and str(refusal).isprintable())


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "a@", "@1.0.0", "a/b/c", "a//b", "/a", "a/", "A/b", "../etc", "a/..", "a/.hidden",
        "acme/support@", "acme/support@1.0", "acme/support@v1.0.0@1", "acme/support@Stable",
        "acme/support@1.0.0\n", "acme/support\n", " acme/support", "acme\\support", "acme%2fsupport",
        "acme/support@../../x", "acme/support@stable ", "acme/support@-x", "acme/suppört",
        "sha256:", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64,
        "SHA256:" + "0" * 64, "sha256:" + "0" * 63 + "\n", "sha256:../" + "0" * 61, "md5:" + "0" * 32,
        "acme/support@\u0661.0.0", "a" * 400, "acme/support@" + "a" * 33, "a\x00b", "a\u202eb", "\ud800",
    ],
)  # fmt: skip
def test_hostile_text_is_refused_and_cannot_steer_a_terminal(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert caught.value.code == "reference.malformed"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("alias", ["stable", "canary"])
def test_the_words_of_the_release_are_not_set_by_hand(alias: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_alias(alias)
    assert caught.value.code == "alias.reserved"


@pytest.mark.parametrize("alias", ["", "1", "1.0.0", "Next", "a b", "a\n", "é", "a" * 33])
def test_an_alias_never_looks_like_a_version(alias: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_alias(alias)
    assert caught.value.code == "alias.malformed"
