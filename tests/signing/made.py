"""Keys, envelopes and policies for the tests: real ones, made by the code that users call."""

from __future__ import annotations

import functools
import tempfile
from datetime import UTC, datetime

import pytest

from foreword.artifact import Artifact
from foreword.signing.envelope import Envelope, add_signature, sign
from foreword.signing.keys import Scheme, SigningKey, new_key
from foreword.signing.policy import TenantRule, TrustedKey, TrustPolicy
from foreword.signing.statement import Finding, Statement, Verdict

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@functools.cache
def key(name: str, scheme: Scheme = "ed25519") -> SigningKey:
    """A key of this name, the same for the whole run."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_HOME", home)
        patch.delenv("FOREWORD_KEY_PASSPHRASE", raising=False)
        return new_key(name, scheme)


def envelope(
    artifact: Artifact, *signers: SigningKey, now: datetime = NOW, finding: Finding | None = None
) -> Envelope:
    """An envelope over one statement, signed by each key."""
    first, *others = signers
    made = sign(Statement.about(artifact, now, finding).to_bytes(), first)
    for other in others:
        made = add_signature(made, other)
    return made


def signed(artifact: Artifact, *signers: SigningKey, now: datetime = NOW) -> bytes:
    return envelope(artifact, *signers, now=now).to_bytes()


def attested(
    artifact: Artifact, signer: SigningKey, kind: str = "evaluation", verdict: Verdict = "pass",
    now: datetime = NOW,
) -> bytes:  # fmt: skip
    return envelope(artifact, signer, now=now, finding=Finding(kind, verdict, {})).to_bytes()


def policy(*trusted: SigningKey | TrustedKey, threshold: int = 1, require: tuple[str, ...] = (),
           **changes: object) -> TrustPolicy:  # fmt: skip
    """A policy that trusts these keys, with one rule for all tenants."""
    keys = [k if isinstance(k, TrustedKey) else TrustedKey(k.public, k.name) for k in trusted]
    return TrustPolicy(
        keys={k.public.id: k for k in keys},
        tenants={"*": TenantRule(threshold, require)},
        **changes,  # type: ignore[arg-type]
    )
