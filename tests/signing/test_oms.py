"""OpenSSF model-signing bundles: written for others, read from others, with both traps closed.

The library is an extra; this runs only where it is installed (`pip install 'foreword[oms]'`).
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from foreword.artifact import open_artifact, write_artifact
from foreword.artifact.package import ENVELOPES, MANIFEST, TENSORS
from foreword.errors import ArtifactError, ForewordError, StorageError, UsageError
from foreword.signing import keys, store
from foreword.signing.oms import SCHEME, export_bundle, open_bundle
from foreword.signing.policy import TrustedKey, TrustPolicy
from tests.artifact.samples import sample
from tests.signing.made import NOW, envelope, key, policy

pytest.importorskip("OpenSSL")
model_signing = pytest.importorskip("model_signing")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(keys.PASSPHRASE, raising=False)
    return write_artifact(sample(), tmp_path / "made", companions={"README.md": b"for people"})


@pytest.fixture
def curve(made: Path) -> keys.SigningKey:
    return keys.new_key("curve", SCHEME)


def refusal(path: Path, bundle: Path, trusting: TrustPolicy) -> str:
    with pytest.raises(ForewordError) as caught:
        open_bundle(path, bundle, trusting, NOW)
    assert str(caught.value).isprintable()
    return caught.value.code


def test_without_pyopenssl_it_says_so_instead_of_a_trace() -> None:
    code = (
        "import sys; sys.modules['OpenSSL'] = None\n"
        "from foreword.errors import UsageError\n"
        "from foreword.signing.oms import export_bundle\n"
        "try: export_bundle('a', 'b', 'c')\n"
        "except UsageError as e: print(e.code, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("oms.missing "), done.stderr
    assert "pyopenssl" in done.stdout


def test_a_bundle_is_written_and_read(made: Path, curve: keys.SigningKey) -> None:
    bundle = made.parent / "bundle"
    digest = export_bundle(made, "curve", bundle)
    artifact, key_id = open_bundle(made, bundle, policy(curve), NOW)
    assert (artifact, artifact.digest, key_id) == (sample(), digest, curve.id)
    store.add_envelope(made, envelope(artifact, curve))
    assert open_bundle(made, bundle, policy(curve), NOW)[0] == artifact, "envelopes came since"
    assert open_artifact(made) == artifact


def test_an_encrypted_key_writes_one_too(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.PASSPHRASE, "correct horse")
    curve = keys.new_key("locked", SCHEME)
    export_bundle(made, "locked", made.parent / "bundle")
    assert open_bundle(made, made.parent / "bundle", policy(curve), NOW)[1] == curve.id
    monkeypatch.delenv(keys.PASSPHRASE)
    keys.new_key("open", SCHEME)
    monkeypatch.setenv(keys.PASSPHRASE, "not needed")
    export_bundle(made, "open", made.parent / "another")


def test_their_own_command_verifies_what_we_write(made: Path, curve: keys.SigningKey) -> None:
    bundle = made.parent / "bundle"
    export_bundle(made, "curve", bundle)
    verify = [
        sys.executable, "-m", "model_signing", "verify", "key", str(made),
        "--signature", str(bundle), "--public_key", str(keys.key_path("curve").with_suffix(".pub")),
    ]  # fmt: skip
    done = subprocess.run(verify, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made / TENSORS).write_bytes(sample().tensor_bytes[:-1] + b"\x01")
    assert subprocess.run(verify, capture_output=True).returncode != 0


def test_we_verify_what_their_own_command_writes(made: Path, curve: keys.SigningKey) -> None:
    bundle = made.parent / "bundle"
    done = subprocess.run(
        [
            sys.executable, "-m", "model_signing", "sign", "key", str(made),
            "--signature", str(bundle), "--private_key", str(keys.key_path("curve")),
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert open_bundle(made, bundle, policy(curve), NOW)[0] == sample()


def signed_by_them(made: Path, ignored: Iterable[str]) -> Path:
    """A bundle from a legitimate key holder who chose what to leave out."""
    bundle = made.parent / "bundle"
    hashing = model_signing.hashing.Config().set_ignored_paths(
        paths=[Path(each) for each in ignored], ignore_git_paths=False
    )
    config = model_signing.signing.Config().use_elliptic_key_signer(
        private_key=keys.key_path("curve")
    )
    config.set_hashing_config(hashing).sign(made, bundle)
    return bundle


@pytest.mark.parametrize(
    "ignored", [[TENSORS], [MANIFEST], [TENSORS, MANIFEST], ["."], ["weights"]]
)
def test_what_the_signer_left_out_is_not_verified(
    made: Path, curve: keys.SigningKey, ignored: list[str]
) -> None:
    bundle = signed_by_them(made, ignored)
    if ignored == [TENSORS]:
        # The trap: the library calls tensors verified that nobody signed.
        (made / TENSORS).write_bytes(b"anything")
        public = keys.key_path("curve").with_suffix(".pub")
        theirs = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public)
        theirs.verify(made, bundle)
        (made / TENSORS).write_bytes(sample().tensor_bytes)
    assert refusal(made, bundle, policy(curve)) == "trust.oms_ignored"


def test_leaving_out_what_is_never_read_is_fine(made: Path, curve: keys.SigningKey) -> None:
    bundle = signed_by_them(made, ["README.md", ENVELOPES, "model.sig", ".git"])
    (made / "README.md").write_text("changed")
    assert open_bundle(made, bundle, policy(curve), NOW)[0] == sample()


def test_a_bundle_over_other_files_is_refused(made: Path, curve: keys.SigningKey) -> None:
    (made / TENSORS).rename(made.parent / TENSORS)
    bundle = signed_by_them(made, [])
    (made.parent / TENSORS).rename(made / TENSORS)
    assert refusal(made, bundle, policy(curve)) == "trust.oms_resources"


def test_shards_and_other_hashes_are_refused(made: Path, curve: keys.SigningKey) -> None:
    for hashing in (
        model_signing.hashing.Config().use_shard_serialization(),
        model_signing.hashing.Config().use_file_serialization(hashing_algorithm="blake2"),
    ):
        config = model_signing.signing.Config().use_elliptic_key_signer(
            private_key=keys.key_path("curve")
        )
        config.set_hashing_config(hashing).sign(made, made.parent / "bundle")
        # It names what it hashed in its own way, so the library finds no such files or we do not.
        code = refusal(made, made.parent / "bundle", policy(curve))
        assert code in ("trust.signature", "trust.oms_resources")


def test_changed_files_are_refused(made: Path, curve: keys.SigningKey) -> None:
    bundle = made.parent / "bundle"
    export_bundle(made, "curve", bundle)
    (made / TENSORS).write_bytes(sample().tensor_bytes[:-1] + b"\x01")
    assert refusal(made, bundle, policy(curve)) == "trust.signature"
    (made / TENSORS).unlink()
    with pytest.raises(ArtifactError):
        open_bundle(made, bundle, policy(curve), NOW)


def test_the_policy_judges_the_key(made: Path, curve: keys.SigningKey) -> None:
    bundle = made.parent / "bundle"
    export_bundle(made, "curve", bundle)
    revoked = TrustedKey(curve.public, "curve", status="revoked")
    rival = TrustedKey(curve.public, "curve", ("rival",))
    digest = sample().digest
    for trusting, code in (
        (policy(key("me")), "trust.unknown_key"),
        (policy(revoked), "trust.key_revoked"),
        (policy(rival), "trust.tenant"),
        (policy(curve, key("me"), threshold=2), "trust.threshold"),
        (policy(curve, require=("review",)), "trust.threshold"),
        (policy(curve, expires=NOW), "trust.policy_expired"),
        (policy(curve, floors={"acme/support": "2.0.0"}), "trust.floor"),
        (policy(curve).with_revoked(digest, "leaked"), "trust.digest_revoked"),
    ):
        assert refusal(made, bundle, trusting) == code


def test_a_changed_bundle_is_refused(made: Path, curve: keys.SigningKey) -> None:
    bundle = made.parent / "bundle"
    export_bundle(made, "curve", bundle)
    good = json.loads(bundle.read_text())
    hint = good["verificationMaterial"]["publicKey"]["hint"]
    envelope_ = good["dsseEnvelope"]
    payload = base64.b64decode(envelope_["payload"]).replace(b'"sha256"', b'"sha256" ', 1)
    for changed, code in (
        ({**good, "dsse_envelope": envelope_}, "trust.oms"),  # which one would the library read?
        ({**good, "mediaType": "x"}, "trust.signature"),
        ({"dsseEnvelope": envelope_, "mediaType": "x"}, "trust.oms"),
        ({**good, "dsseEnvelope": {**envelope_, "payload": "!"}}, "trust.oms"),
        ({**good, "dsseEnvelope": {**envelope_, "signatures": []}}, "trust.signature"),
        ({**good, "dsseEnvelope": {**envelope_, "payload": base64.b64encode(payload).decode()}},
         "trust.signature"),
    ):  # fmt: skip
        bundle.write_text(json.dumps(changed))
        assert refusal(made, bundle, policy(curve)) == code
    bundle.write_text(json.dumps(good).replace(hint, "0" * 64))
    assert refusal(made, bundle, policy(curve)) == "trust.unknown_key"
    bundle.write_text(json.dumps(good)[:-1] + ', "mediaType": "x"}')
    assert refusal(made, bundle, policy(curve)) == "trust.oms"
    for nonsense in ("", "[]", "[" * 9000, '{"mediaType": 1}'):
        bundle.write_text(nonsense)
        assert refusal(made, bundle, policy(curve)) == "trust.oms"


def test_mistakes_of_the_signer_are_told(made: Path, curve: keys.SigningKey) -> None:
    keys.new_key("edwards")
    for name, place, code in (
        ("edwards", made.parent / "bundle", "key.scheme"),
        ("nobody", made.parent / "bundle", "key.missing"),
        ("curve", made / "model.sig", "oms.place"),
    ):
        with pytest.raises(UsageError) as caught:
            export_bundle(made, name, place)
        assert caught.value.code == code
    (made.parent / "bundle").write_text("mine")
    with pytest.raises(StorageError) as stored:
        export_bundle(made, "curve", made.parent / "bundle")
    assert stored.value.code == "storage.exists"
    assert (made.parent / "bundle").read_text() == "mine"
