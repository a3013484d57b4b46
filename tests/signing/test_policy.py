"""The trust policy: what its file may say, and the order in which a key is judged."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest
from foreword.errors import TrustError, UsageError
from foreword.signing.policy import TenantRule, TrustedKey, TrustPolicy, tenant_of
from foreword.signing.trusted import Objection, nearest
from tests.signing.made import NOW, key, policy

HOUR = timedelta(hours=1)
ME, YOU = key("me").public, key("you").public
NAME = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True)
TENANTS = st.lists(NAME | st.just("*"), min_size=1, max_size=3, unique=True).map(tuple)
WORDS = st.lists(
    st.sampled_from(["sign", "review", "evaluation", "own-word", "*"]), min_size=1, unique=True
).map(tuple)
MOMENTS = st.datetimes(
    datetime(1900, 1, 1), datetime(2900, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3))]),
)  # fmt: skip
REASON = st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=30
)


@st.composite
def trusted_keys(draw: st.DrawFn, public: Any) -> TrustedKey:
    moments = sorted(draw(st.lists(MOMENTS, min_size=2, max_size=2, unique=True)))
    return TrustedKey(
        public,
        draw(NAME.map(lambda name: f"{name}-{public.id[7:9]}")),
        draw(TENANTS),
        draw(WORDS),
        draw(st.none() | st.just(moments[0])),
        draw(st.none() | st.just(moments[1])),
        draw(st.sampled_from(["active", "retiring", "revoked"])),
    )


@st.composite
def policies(draw: st.DrawFn) -> TrustPolicy:
    keys = [draw(trusted_keys(public)) for public in draw(st.sets(st.sampled_from([ME, YOU])))]
    rules = st.builds(
        TenantRule, st.integers(1, 9), st.just(("review", "evaluation")) | st.just(())
    )
    return TrustPolicy(
        {k.public.id: k for k in keys},
        draw(st.dictionaries(NAME | st.just("*"), rules, max_size=3)),
        draw(st.dictionaries(st.binary().map(Digest.of), REASON, max_size=3)),
        draw(st.dictionaries(NAME, st.sampled_from(["1.0.0", "2.0.0-rc.1"]), max_size=3)),
        draw(st.none() | MOMENTS),
    )


@given(policies())
def test_it_comes_back_from_its_file_as_it_was(given_policy: TrustPolicy) -> None:
    text = given_policy.to_toml()
    assert TrustPolicy.from_toml(text) == given_policy
    assert TrustPolicy.from_toml(text).to_toml() == text


@given(st.binary(max_size=100) | st.text().map(lambda text: text.encode(errors="replace")))
def test_noise_is_refused_with_a_typed_error(data: bytes) -> None:
    with pytest.raises(TrustError, match="trust policy"):
        TrustPolicy.from_toml(data)


def file(edit: str = "", *, old: str = "", new: str = "") -> bytes:
    """A good policy's file with something appended, or one text replaced by another."""
    good = policy(
        TrustedKey(ME, "me", not_before=NOW, not_after=NOW + HOUR), expires=NOW,
        floors={"acme/support": "1.0.0"}, revoked={Digest.of(b""): "leaked"},
    ).to_toml().decode()  # fmt: skip
    assert old in good
    return (good.replace(old, new, 1) + edit).encode()


KEY = '[keys."me"]\n'
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "not TOML": (b"a =", "trust.policy", "not valid TOML"),
    "not UTF-8": (b'a = "\xff"', "trust.policy", "not valid TOML"),
    "lists without end": (b"a = " + b"[" * 5000, "trust.policy", "not valid TOML"),
    "larger than anyone needs": (b"#" * ((1 << 20) + 1), "trust.policy", "at most"),
    "an empty file": (b"", "trust.policy", "schema: it is missing"),
    "another schema": (b'schema = "foreword.trust/2"', "trust.policy_value", "foreword.trust/1"),
    "a schema that is a number": (b"schema = 1", "trust.policy", "expected text"),
    "a table nobody knows": (file("[floor]\n"), "trust.policy_unknown", "'floors'"),
    "a misspelt end of a key": (
        file(old="not_after", new="not_aftr"), "trust.policy_unknown", "'not_after'",
    ),
    "a misspelt status": (file(old="status", new="state"), "trust.policy_unknown", "'status'"),
    "a misspelt threshold": (
        file(old="threshold", new="treshold"), "trust.policy_unknown", "'threshold'",
    ),
    "a key that is given twice": (
        file(old="status =", new='status = "revoked"\nstatus ='), "trust.policy", "not valid",
    ),
    "a status nobody knows": (
        file(old='"active"', new='"on"'), "trust.policy_value", "active, retiring, revoked",
    ),
    "a threshold of none": (
        file(old="threshold = 1", new="threshold = 0"), "trust.policy_value", "at least 1",
    ),
    "a negative threshold": (
        file(old="threshold = 1", new="threshold = -1"), "trust.policy_value", "at least 1",
    ),
    "a threshold that is true": (
        file(old="threshold = 1", new="threshold = true"), "trust.policy", "an integer",
    ),
    "a time without a zone": (
        file(old="2026-06-01T12:00:00Z", new="2026-06-01T12:00:00"), "trust.policy", "a time as",
    ),
    "a time in quotes": (
        file(old="2026-06-01T12:00:00Z", new='"2026-06-01T12:00:00Z"'), "trust.policy", "a time as",
    ),
    "a time before all time": (
        file(old="2026-06-01T12:00:00Z", new="0001-01-01T00:00:00+01:00"), "trust.policy", "UTC",
    ),
    "a window that closes before it opens": (
        file(old="not_after = 2026", new="not_after = 2025"), "trust.policy_value", "earlier",
    ),
    "a tenant that is a name": (
        file(old='tenants = ["*"]', new='tenants = ["a/b"]'), "trust.policy_value", "tenant",
    ),
    "no tenant at all": (
        file(old='tenants = ["*"]', new="tenants = []"), "trust.policy_value", "at least one",
    ),
    "a tenant twice": (
        file(old='tenants = ["*"]', new='tenants = ["a", "a"]'), "trust.policy_value", "each once",
    ),
    "tenants that are left out": (
        file(old='tenants = ["*"]\n', new=""), "trust.policy", "tenants: it is missing",
    ),
    "a word that is no kind": (
        file(old='may = ["*"]', new='may = ["Sign"]'), "trust.policy_value", "kind of attestation",
    ),
    "an id of another key": (
        file(old=ME.id, new=YOU.id), "trust.policy_value", f"has the id {ME.id}",
    ),
    "a public key that is none": (
        file(old="BEGIN PUBLIC", new="BEGIN PRIVATE"), "trust.policy_value", "BEGIN PUBLIC KEY",
    ),
    "one key under two names": (
        file("\n".join(TrustedKey(ME, "alias").to_lines())), "trust.policy_value", "twice",
    ),
    "keys that are no table": (b'schema = "foreword.trust/1"\nkeys = 1', "trust.policy", "a table"),
    "a key that is no table": (
        b'schema = "foreword.trust/1"\nkeys.me = 1', "trust.policy", "a table",
    ),
    "a required signature": (
        file(old="threshold = 1", new='threshold = 1\nrequire = ["sign"]'),
        "trust.policy_value", "kind of attestation",
    ),
    "a floor that is no version": (
        file(old='"1.0.0"', new='"1"'), "trust.policy_value", "semantic",
    ),
    "a floor of no name": (
        file(old='"acme/support"', new='"/"'), "trust.policy_value", "tenant/prefix",
    ),
    "a digest that is none": (
        file(old='"sha256:e3b0', new='"sha256:E3B0'), "trust.policy_value", "digest",
    ),
    "no reason": (file(old='"leaked"', new='""'), "trust.policy_value", "a reason"),
    "a reason that steers a terminal": (
        file(old='"leaked"', new='"\\u001b[2J"'), "trust.policy_value", "a reason",
    ),
    "an unknown word that steers a terminal": (
        file('"\\u001b[2J" = 1\n'), "trust.policy", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_says_anything_else_is_refused(case: str) -> None:
    data, code, words = REFUSED[case]
    with pytest.raises(TrustError) as caught:
        TrustPolicy.from_toml(data)
    assert caught.value.code == code, str(caught.value)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


HUGE = b"0x" + b"f" * 5000


@pytest.mark.parametrize(
    "text",
    [
        b"a" + b".a" * 8_000 + b" = 1",
        b"tenants.acme.threshold = " + HUGE,
        b"tenants.acme.require = [" + HUGE + b"]",
        b"schema = " + HUGE,
    ],
    ids=["a key of many parts", "a huge integer", "in a list", "instead of text"],
)
def test_what_would_take_long_or_cannot_be_shown_is_refused_at_once(text: bytes) -> None:
    began = time.process_time()
    with pytest.raises(TrustError, match="trust policy"):
        TrustPolicy.from_toml(b'schema = "foreword.trust/1"\n' * (b"schema" not in text) + text)
    assert time.process_time() - began < 0.5


def test_the_edits_of_these_cases_touch_what_they_name() -> None:
    assert TrustPolicy.from_toml(file()).keys[ME.id].name == "me"


def test_a_policy_in_code_is_checked_like_a_file() -> None:
    bad: list[Any] = [
        lambda: TenantRule(0),
        lambda: TrustedKey(ME, "Me"),
        lambda: TrustedKey(ME, "me", status="on"),  # type: ignore[arg-type]
        lambda: TrustPolicy({YOU.id: TrustedKey(ME, "me")}),
        lambda: TrustPolicy({ME.id: TrustedKey(ME, "a"), YOU.id: TrustedKey(YOU, "a")}),
        lambda: TrustPolicy(tenants={"": TenantRule()}),
        lambda: TrustPolicy(expires=NOW.replace(tzinfo=None)),
        lambda: TrustedKey(ME, "me", not_after=NOW.replace(tzinfo=None)),
    ]
    for make in bad:
        with pytest.raises(TrustError) as caught:
            make()
        assert caught.value.code == "trust.policy_value"


def objection(trusted: TrustedKey, **changes: Any) -> str | None:
    given = {"says": "sign", "tenant": "acme", "now": NOW, "purpose": "use"} | changes
    found = policy(trusted).objection(trusted.public.id, **given)
    return found and found.code


def test_a_key_counts_where_it_may() -> None:
    assert objection(TrustedKey(ME, "me")) is None
    assert objection(TrustedKey(ME, "me"), tenant="") is None
    narrow = TrustedKey(ME, "me", ("acme",), ("review",), NOW, NOW + HOUR)
    assert objection(narrow, says="review") is None
    assert objection(narrow, says="sign") == "trust.role"
    assert objection(narrow, says="review", tenant="acm") == "trust.tenant"
    assert objection(narrow, says="review", tenant="") == "trust.tenant"
    tick = timedelta(microseconds=1)
    assert objection(narrow, says="review", now=NOW - tick) == "trust.key_not_yet"
    assert objection(narrow, says="review", now=NOW + HOUR) is None
    assert objection(narrow, says="review", now=NOW + HOUR + tick) == "trust.key_expired"
    retiring = TrustedKey(ME, "me", status="retiring")
    assert objection(retiring) is None
    assert objection(retiring, purpose="publish") == "trust.key_retiring"
    assert objection(TrustedKey(ME, "me", status="revoked")) == "trust.key_revoked"


def test_nobody_else_counts() -> None:
    found = policy(key("me")).objection(YOU.id, "sign", "acme", NOW, "use")
    assert found
    assert found.code == "trust.unknown_key"


def test_of_several_objections_the_key_nearest_to_counting_is_named() -> None:
    codes = ["trust.tenant", "trust.key_expired", "trust.unknown_key", "trust.role"]
    assert nearest(Objection(code, "") for code in codes).code == "trust.key_expired"


def test_a_tenants_own_rule_stands_alone() -> None:
    rules = {"*": TenantRule(2, ("review",)), "acme": TenantRule(1)}
    assert TrustPolicy(tenants=rules).rule_for("acme") == TenantRule(1)
    assert TrustPolicy(tenants=rules).rule_for("other") == rules["*"]
    assert TrustPolicy(tenants=rules).rule_for("") == rules["*"]
    assert TrustPolicy().rule_for("acme") == TenantRule(1, ())
    assert (tenant_of("acme/support"), tenant_of("support")) == ("acme", "")


def test_edits_give_a_new_policy_and_leave_the_old_one() -> None:
    old = policy(key("me"))
    digest = Digest.of(b"bad")
    new = old.with_key(TrustedKey(YOU, "you", ("acme",))).with_revoked(digest, "leaked")
    new = new.with_status(ME.id, "revoked")
    assert list(old.keys) == [ME.id]
    assert old.keys[ME.id].status == "active"
    assert not old.revoked
    assert new.keys[ME.id].status == "revoked"
    assert new.keys[YOU.id].tenants == ("acme",)
    assert new.revoked == {digest: "leaked"}
    with pytest.raises(TypeError):
        new.keys[ME.id] = new.keys[YOU.id]  # type: ignore[index]


def test_edits_that_make_no_sense_are_refused() -> None:
    old = policy(key("me"))
    for trusted in (TrustedKey(ME, "again"), TrustedKey(YOU, "me")):
        with pytest.raises(UsageError) as caught:
            old.with_key(trusted)
        assert caught.value.code == "key.exists"
    with pytest.raises(UsageError) as caught:
        old.with_status(YOU.id, "revoked")
    assert caught.value.code == "key.missing"
