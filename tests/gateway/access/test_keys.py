"""A key is believed by who has its secret, for as long as it counts, and nothing gives the secret away."""

from __future__ import annotations

import hashlib
import hmac
import pickle
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import AuthError, ConfigError, UsageError
from foreword.serving.gateway.access import keys
from foreword.serving.gateway.access.keys import (
    OPERATOR,
    KeyRecord,
    believe,
    draw,
    issue,
    require_scope,
    rotate,
)
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.tenants import Tenant
from tests.gateway.access.samples import NOW, table_of, with_key

HOUR = timedelta(hours=1)
ACME = table_of(Tenant("acme"))


def code_of(table: object, header: str | None, now: object = NOW) -> str:
    with pytest.raises(AuthError) as refused:
        believe(table, header, now)  # type: ignore[arg-type]
    return refused.value.code


def test_an_issued_key_speaks_for_its_tenant() -> None:
    table, header, key_id = with_key(ACME, "acme", only=("acme/support",), expires=NOW + HOUR)
    principal = believe(table, header, NOW)
    assert (principal.tenant, principal.key_id) == ("acme", key_id)
    assert principal.scopes == {"generate", "models"}
    assert principal.only == ("acme/support",)
    assert believe(table, header.replace("Bearer", "bearer  "), NOW) == principal


def test_a_secret_has_256_bits_and_only_its_hash_is_kept() -> None:
    text, record = issue("acme", NOW)
    secret = text.split("_", 2)[2]
    assert len(secret) == 43
    assert record.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret.encode() not in pickle.dumps(record)
    assert len({issue("acme", NOW)[0] for _ in range(200)}) == 200


def test_nothing_that_is_printed_holds_a_secret() -> None:
    secret = draw()
    assert secret.text not in repr(secret)
    text, record = issue("acme", NOW)
    assert record.sha256 not in repr(record)
    table = ACME.with_key(record)
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    for header in (f"Bearer {wrong}", f"Basic {text}", f"Bearer {text} more", text):
        with pytest.raises(AuthError) as refused:
            believe(table, header, NOW)
        assert text[22:40] not in str(refused.value)


MALFORMED = [
    "Bearer",
    "Bearer ",
    "Basic abc",
    "Bearer abc",
    "Bearer fwk_0123_x",
    "Bearer fwk_" + "g" * 16 + "_" + "a" * 43,
    "Bearer fwk_" + "0" * 16 + "_" + "a" * 42,
    "Bearer fwk_" + "0" * 16 + "_" + "a" * 44,
    "Bearer fwk_" + "0" * 16 + "_" + "a" * 43 + "\n",
    "Bearer fwk_" + "\u0660" * 16 + "_" + "a" * 43,
    "Bearer " + "a" * 20_000,
]


@pytest.mark.parametrize("header", MALFORMED)
def test_a_header_of_another_form_is_malformed(header: str) -> None:
    assert code_of(ACME, header) == "auth.malformed"


@pytest.mark.parametrize("header", [None, ""])
def test_no_header_is_missing(header: str | None) -> None:
    assert code_of(ACME, header) == "auth.missing"


@given(st.text(max_size=200))
def test_no_text_is_believed_by_chance_or_breaks_anything(text: str) -> None:
    table, _, _ = with_key(ACME, "acme")
    assert code_of(table, text or None) in {"auth.missing", "auth.malformed", "auth.unknown"}


def test_an_unknown_id_and_a_wrong_secret_are_told_alike_after_the_same_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, header, key_id = with_key(ACME, "acme")
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def watched(left: str, right: str) -> bool:
        compared.append((len(left), len(right)))
        return compare(left, right)

    monkeypatch.setattr(keys.hmac, "compare_digest", watched)
    told = []
    for which in (key_id, "0" * 16):
        with pytest.raises(AuthError) as refused:
            believe(table, f"Bearer fwk_{which}_{'a' * 43}", NOW)
        told.append((refused.value.code, str(refused.value)))
    assert told[0] == told[1]
    assert told[0][0] == "auth.unknown"
    assert compared == [(64, 64), (64, 64)]
    believe(table, header, NOW)
    assert len(compared) == 3


def test_an_ended_key_is_told_apart_only_to_who_has_its_secret() -> None:
    table, header, key_id = with_key(ACME, "acme", expires=NOW + HOUR)
    wrong = f"Bearer fwk_{key_id}_{'a' * 43}"
    assert code_of(table, wrong, NOW + 2 * HOUR) == "auth.unknown"
    assert code_of(table, header, NOW + HOUR) == "auth.expired"
    believe(table, header, NOW + HOUR - timedelta(seconds=1))
    revoked = table.with_revoked(key_id, NOW)
    assert code_of(revoked, wrong) == "auth.unknown"
    assert code_of(revoked, header) == "auth.revoked"


def test_a_revocation_keeps_its_first_moment() -> None:
    table, _, key_id = with_key(ACME, "acme")
    again = table.with_revoked(key_id, NOW + HOUR).with_revoked(key_id, NOW + 2 * HOUR)
    assert again.key(key_id).revoked == NOW + HOUR


def test_a_rotation_believes_both_for_a_while_and_then_only_the_successor() -> None:
    table, header, key_id = with_key(ACME, "acme", only=("acme/x",), expires=NOW + 100 * HOUR)
    secret, later = draw(), NOW + 10 * HOUR
    table = table.with_successor(key_id, secret, later, HOUR)
    new = f"Bearer {secret.text}"
    assert believe(table, new, later).only == ("acme/x",)
    assert believe(table, header, later + HOUR - timedelta(seconds=1)).key_id == key_id
    assert code_of(table, header, later + HOUR) == "auth.expired"
    assert believe(table, new, later + HOUR).key_id == secret.id
    assert table.key(secret.id).expires == later + 100 * HOUR


def test_a_rotation_never_lengthens_the_life_of_the_old_key() -> None:
    _, record = issue("acme", NOW, expires=NOW + HOUR)
    _, old = rotate(record, draw(), NOW, 5 * HOUR)
    assert old.expires == NOW + HOUR


@pytest.mark.parametrize("change", [{"revoked": NOW}, {"expires": NOW}])
def test_an_ended_key_has_no_successor(change: dict[str, object]) -> None:
    _, record = issue("acme", NOW - HOUR)
    with pytest.raises(UsageError) as refused:
        rotate(replace(record, **change), draw(), NOW, HOUR)  # type: ignore[arg-type]
    assert refused.value.code == "access.key_ended"


def test_keys_of_a_tenant_that_is_off_are_not_believed() -> None:
    table, header, _ = with_key(ACME, "acme")
    off = table.with_tenant(Tenant("acme", enabled=False))
    assert code_of(off, header) == "auth.tenant"
    killed = table.with_killed_tenant("acme", Kill("spam", "me", NOW))
    assert code_of(killed, header) == "auth.tenant"
    believe(killed.without_killed_tenant("acme"), header, NOW)
    assert code_of(table.without_tenant("acme"), header) == "auth.unknown"


def test_an_admin_key_has_the_admin_scope_and_no_other() -> None:
    table, header, _ = with_key(ACME, OPERATOR)
    principal = believe(table, header, NOW)
    require_scope(principal, "admin")
    for scope in ("generate", "models"):
        with pytest.raises(AuthError) as refused:
            require_scope(principal, scope)  # type: ignore[arg-type]
        assert refused.value.code == "auth.scope"


@pytest.mark.parametrize(
    ("tenant", "scopes"),
    [("acme", {"admin"}), ("acme", {"generate", "admin"}), (OPERATOR, {"generate"}),
     (OPERATOR, {"admin", "models"}), ("acme", set()), ("acme", {"root"})],
)  # fmt: skip
def test_no_key_is_both_an_operators_and_a_tenants(tenant: str, scopes: set[str]) -> None:
    with pytest.raises(ConfigError):
        issue(tenant, NOW, scopes=frozenset(scopes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"id": "short"}, {"sha256": "x"}, {"tenant": "No"}, {"only": ()}, {"only": ("a b",)},
     {"note": "two\nlines"}, {"created": NOW.replace(tzinfo=None)}],
)  # fmt: skip
def test_a_record_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    record: KeyRecord = issue("acme", NOW)[1]
    with pytest.raises(ConfigError) as refused:
        replace(record, **change)  # type: ignore[arg-type]
    assert refused.value.code == "access.value"
