"""docs/signing.md says what the code does: its examples are real, its limits and codes are all there."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from foreword.artifact import Digest
from foreword.signing import envelope as envelopes
from foreword.signing import policy as policies
from foreword.signing.envelope import Envelope
from foreword.signing.keys import SCHEMES
from foreword.signing.policy import TenantRule, TrustPolicy
from foreword.signing.statement import ATTESTATION, SIGNATURE, VERDICTS, Statement
from foreword.signing.verify import MAX_ENVELOPES, SKEW

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "signing.md").read_text()
SOURCE = "".join(
    path.read_text()
    for path in [*(ROOT / "src/foreword/signing").glob("*.py"), ROOT / "src/foreword/cli/sign.py"]
)
GROUPS = "trust|key|attestation|oms"


def block(text: str, language: str) -> bytes:
    found = re.search(rf"```{language}\n(.*?)\n```", text, re.DOTALL)
    assert found
    return found[1].encode()


def test_the_example_envelope_vouches_for_the_example_manifest() -> None:
    manifest = block((ROOT / "docs" / "artifact-format.md").read_text(), "json")
    example = Envelope.from_bytes(block(TEXT, "json"))
    policy = TrustPolicy.from_toml(block(TEXT, "toml"))
    (key,) = policy.keys.values()
    assert example.verified_by(key.public)
    statement = Statement.from_bytes(example.payload)
    assert statement.artifact == Digest.of(manifest)
    assert str(statement.tensors).encode() in manifest
    assert (statement.name, statement.version) == ("acme/support", "1.2.3")


def test_the_example_policy_says_what_the_text_says() -> None:
    policy = TrustPolicy.from_toml(block(TEXT, "toml"))
    assert policy.rule_for("acme") == TenantRule(2, ("review", "evaluation"))
    assert policy.rule_for("other") == TenantRule(1, ("evaluation",))
    assert policy.floors == {"acme/support": "1.2.0"}
    for word in re.findall(r'^"?([a-z_]+)"? =', block(TEXT, "toml").decode(), re.MULTILINE):
        assert re.search(rf"\| `[^|]*\b{word}`", TEXT), word


def test_every_code_is_documented_and_no_other() -> None:
    documented = set(re.findall(rf"`((?:{GROUPS})\.[a-z_]+)`", TEXT)) - {"trust.toml"}
    written = set(re.findall(rf'"((?:{GROUPS})\.[a-z_]+)"', SOURCE)) - {"trust.toml"}
    # These are put together where they are raised; the cases in test_tamper.py raise each of them.
    composed = {
        code for code in documented if re.match(r"trust\.(envelope|policy)_|trust\.oms", code)
    }
    assert written <= documented
    assert documented - written <= composed | {"trust.subject", "trust.tensors", "trust.policy"}


def test_the_limits_and_words_are_documented() -> None:
    assert f"{envelopes.MAX_BYTES:,} bytes" in TEXT
    assert f"1 to {envelopes.MAX_SIGNATURES} of" in TEXT
    assert f"at most {MAX_ENVELOPES} envelopes" in TEXT
    assert timedelta(minutes=5) == SKEW
    assert "5 minutes" in TEXT
    for word in (*SCHEMES, *VERDICTS, SIGNATURE, ATTESTATION, envelopes.IN_TOTO, policies.SCHEMA):
        assert f"`{word}`" in TEXT, word
