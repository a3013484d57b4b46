"""`foreword keys`, `sign` and `verify` as a user meets them: by output and exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foreword.artifact import write_artifact
from foreword.artifact.package import ENVELOPES, TENSORS
from foreword.cli.main import main
from foreword.signing import keys, store
from foreword.signing.policy import TrustPolicy
from tests.artifact.samples import sample

Run = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(keys.PASSPHRASE, raising=False)
    return tmp_path / "home"


@pytest.fixture
def made(home: Path, tmp_path: Path) -> str:
    return str(write_artifact(sample(), tmp_path / "made"))


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; gives its stdout, or its one line of error if it should fail with a code."""

    def running(*words: object, fails: tuple[str, int] | None = None) -> str:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        said = capsys.readouterr()
        if fails is None:
            assert left.value.code == 0, said.err
            return said.out
        code, exit_code = fails
        assert said.err.startswith(f"error[{code}]: "), said.err
        assert left.value.code == exit_code
        assert said.out == ""
        return said.err

    return running


def test_from_a_new_key_to_a_verified_artifact(run: Run, made: str, home: Path) -> None:
    assert "foreword keys new" in run("verify", made, fails=("trust.policy_missing", 7))
    assert "trusts it for every tenant" in run("keys", "new", "me")
    run("verify", made, fails=("trust.unsigned", 7))
    assert "signed acme/support 1.2.3" in run("sign", made, "--key", "me")
    assert (
        run("verify", made).splitlines()[0] == f"verified  acme/support 1.2.3  ({sample().digest})"
    )
    facts = json.loads(run("verify", made, "--json"))
    me = {"id": keys.load_key("me").id, "name": "me"}
    assert facts == {
        "digest": str(sample().digest), "name": "acme/support", "version": "1.2.3",
        "signers": [me], "attestations": [],
    }  # fmt: skip
    path = Path(made) / TENSORS
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    run("verify", made, fails=("trust.tensors", 7))
    run("verify", home, fails=("artifact.extra_file", 3))
    run("sign", made, "--key", "me", fails=("artifact.digest", 3))


def test_a_second_key_is_trusted_only_if_that_is_said(run: Run, made: str) -> None:
    run("keys", "new", "me")
    assert "policy" not in run("keys", "new", "ci", "--scheme", "ecdsa-sha2-nistp256")
    assert len(store.load_policy().keys) == 1
    run("sign", made, "--key", "ci")
    run("verify", made, fails=("trust.unknown_key", 7))
    run("keys", "new", "other", "--trust")
    run("keys", "trust", "ci", "--tenant", "acme", "--tenant", "rival", "--may", "sign")
    trusted = {key.name: key for key in store.load_policy().keys.values()}
    assert set(trusted) == {"me", "ci", "other"}
    assert (trusted["ci"].tenants, trusted["ci"].may) == (("acme", "rival"), ("sign",))
    assert "ci" in run("verify", made)
    run("keys", "trust", "ci", fails=("key.exists", 2))
    run("keys", "new", "me", fails=("key.exists", 2))


def test_somebody_elses_key_comes_as_a_file(run: Run, made: str, tmp_path: Path) -> None:
    run("keys", "new", "me")
    run("sign", made, "--key", "me")
    public = tmp_path / "alice.pub"
    public.write_bytes(keys.key_path("me").with_suffix(".pub").read_bytes())
    policy = tmp_path / "trust.toml"
    store.save_policy(TrustPolicy(), policy)
    run("verify", made, "--trust", policy, fails=("trust.unknown_key", 7))
    store.save_policy(TrustPolicy())
    run("keys", "trust", public)
    assert "signed    alice" in run("verify", made)
    (tmp_path / "text.pub").write_text("not a key")
    run("keys", "trust", tmp_path / "text.pub", fails=("key.malformed", 2))
    run("keys", "trust", tmp_path / "none.pub", fails=("artifact.missing", 3))
    run("keys", "trust", "nobody", fails=("key.missing", 2))


def test_who_only_verifies_needs_no_key_of_their_own(
    run: Run, made: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("keys", "new", "me")
    run("sign", made, "--key", "me")
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "elsewhere"))
    run("keys", "trust", home / "keys" / "me.pub", "--tenant", "acme")
    assert run("keys", "show").startswith("no keys yet")
    assert "signed    me" in run("verify", made)


def test_keys_are_shown_without_their_secrets(run: Run) -> None:
    assert "no keys yet" in run("keys", "show")
    assert run("keys", "show", "--json") == "[]\n"
    run("keys", "new", "me")
    made = keys.load_key("me")
    assert run("keys", "show").split() == ["me", "ed25519", made.id]
    assert json.loads(run("keys", "show", "--json")) == [
        {"name": "me", "id": made.id, "scheme": "ed25519", "public": made.public.pem}
    ]


def test_a_key_is_retired_and_revoked_by_name_or_id(run: Run, made: str) -> None:
    run("keys", "new", "me")
    run("sign", made, "--key", "me")
    assert "retiring me" in run("keys", "retire", "me")
    run("verify", made)
    assert "revoked  me" in run("keys", "revoke", keys.load_key("me").id)
    run("verify", made, fails=("trust.key_revoked", 7))
    run("keys", "revoke", "nobody", fails=("key.missing", 2))


def test_an_attestation_is_signed_with_its_evidence(run: Run, made: str, tmp_path: Path) -> None:
    body = tmp_path / "report.json"
    body.write_text('{"bleu": 60.1,\n "rows": 12}')
    run("keys", "new", "me")
    run("sign", made, "--key", "me")
    run("sign", made, "--key", "me", "--attest", "evaluation", "--verdict", "pass", "--body", body)
    run("sign", made, "--key", "me", "--attest", "own-check", "--verdict", "insufficient")
    found = json.loads(run("verify", made, "--json"))["attestations"]
    assert [(each["kind"], each["verdict"], each["body"]) for each in found] == [
        ("evaluation", "pass", {"bleu": 60.1, "rows": 12}), ("own-check", "insufficient", {}),
    ]  # fmt: skip
    assert "attested  evaluation pass, me" in run("verify", made)


def test_mistakes_give_one_line_and_leave_nothing(run: Run, made: str, tmp_path: Path) -> None:
    run("keys", "new", "me")
    sign = ("sign", made, "--key", "me")
    for words, code, exit_code in (
        (("--attest", "review"), "usage", 2),
        (("--verdict", "pass"), "usage", 2),
        (("--body", "x.json"), "usage", 2),
        (("--attest", "review", "--verdict", "maybe"), "usage", 2),
        (("--attest", "Sign", "--verdict", "pass"), "attestation.kind", 2),
        (("--attest", "a", "--verdict", "pass", "--oms", "x"), "usage", 2),
        (("--attest", "a", "--verdict", "pass", "--body", tmp_path / "no"), "attestation.body", 2),
        (("--attest", "a", "--verdict", "pass", "--body", made), "attestation.body", 2),
    ):
        run(*sign, *words, fails=(code, exit_code))
    for text, code, exit_code in (
        ("[1]", "attestation.body", 2),
        ("{", "attestation.body", 2),
        ('{"a": NaN}', "json.value", 3),
        (json.dumps({"a": "b" * (64 << 10)}), "trust.too_large", 7),
    ):
        (tmp_path / "body.json").write_text(text)
        run(*sign, "--attest", "a", "--verdict", "pass", "--body", tmp_path / "body.json",
            fails=(code, exit_code))  # fmt: skip
    run("sign", made, "--key", "../me", fails=("key.name", 2))
    run("sign", made, "--key", "nobody", fails=("key.missing", 2))
    run("keys", "new", "you", "--scheme", "rsa", fails=("usage", 2))
    run("verify", made, "--trust", tmp_path / "none.toml", fails=("trust.policy_missing", 7))
    assert not (Path(made) / ENVELOPES).exists()


def test_verifying_needs_no_torch(run: Run, made: str, home: Path) -> None:
    run("keys", "new", "me")
    run("sign", made, "--key", "me")
    code = (
        "import sys\nfor n in ('torch', 'transformers', 'sqlalchemy'): sys.modules[n] = None\n"
        "from foreword.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", made], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
