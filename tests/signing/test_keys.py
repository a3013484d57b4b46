"""Keys: their names, their files, and what is not a key."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from foreword.errors import StorageError, UsageError
from foreword.signing import keys
from foreword.signing.keys import SCHEMES, PublicKey, Scheme, list_keys, load_key, new_key

SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    monkeypatch.delenv(keys.PASSPHRASE, raising=False)
    return tmp_path / "keys"


def refused(code: str, action: object, *arguments: object) -> None:
    with pytest.raises(UsageError) as caught:
        action(*arguments)  # type: ignore[operator]
    assert caught.value.code == code


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_key_comes_back_and_signs(scheme: Scheme, home: Path) -> None:
    made = new_key("me", scheme)
    loaded = load_key("me")
    assert loaded == made
    assert made.public.verifies(loaded.sign(b"text"), b"text")
    assert not made.public.verifies(loaded.sign(b"text"), b"text.")
    assert not new_key("other", scheme).public.verifies(loaded.sign(b"text"), b"text")
    for nonsense in (b"", b"\0" * 64, b"\xff" * 72, b"x" * 5000):
        assert not made.public.verifies(nonsense, b"text")
    assert PublicKey.from_pem((home / "me.pub").read_bytes()) == made.public


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_id_is_of_the_key_and_of_nothing_else(scheme: Scheme) -> None:
    public = new_key("me", scheme).public
    loaded = serialization.load_pem_public_key(public.pem.encode())
    der = loaded.public_bytes(serialization.Encoding.DER, SPKI)
    assert public.id == f"sha256:{hashlib.sha256(der).hexdigest()}"
    spaced = public.pem.replace("\n", "\r\n") + "\n\nsome text\n"
    assert PublicKey.from_pem(spaced) == public


def test_a_compressed_point_is_the_same_key() -> None:
    public = new_key("me", "ecdsa-sha2-nistp256").public
    loaded = serialization.load_pem_public_key(public.pem.encode())
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    point = loaded.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    again = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    pem = again.public_bytes(serialization.Encoding.PEM, SPKI)
    assert PublicKey.from_pem(pem).id == public.id


def test_a_private_key_is_for_its_owner_alone_and_shows_in_no_text(home: Path) -> None:
    made = new_key("me")
    assert stat.S_IMODE((home / "me.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "me.pub").stat().st_mode) == 0o644
    assert "PRIVATE" not in repr(made)
    assert "Signer" not in repr(made)
    assert sorted(path.name for path in home.iterdir()) == ["me.pem", "me.pub"]


def test_a_key_is_never_overwritten(home: Path) -> None:
    new_key("me")
    before = {path: path.read_bytes() for path in home.iterdir()}
    refused("key.exists", new_key, "me")
    (home / "friend.pub").write_bytes(before[home / "me.pub"])
    refused("key.exists", new_key, "friend")
    assert {p: p.read_bytes() for p in home.iterdir() if p.name != "friend.pub"} == before


def test_a_passphrase_encrypts_and_opens(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.PASSPHRASE, "correct horse")
    made = new_key("me")
    assert (home / "me.pem").read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert load_key("me") == made
    monkeypatch.setenv(keys.PASSPHRASE, "wrong horse")
    refused("key.passphrase", load_key, "me")
    monkeypatch.delenv(keys.PASSPHRASE)
    refused("key.passphrase", load_key, "me")
    assert list_keys() == (("me", made.public),), "public halves need no passphrase"
    new_key("plain")
    monkeypatch.setenv(keys.PASSPHRASE, "not needed")
    assert load_key("plain").name == "plain"


def test_a_lost_public_half_is_derived_again(home: Path) -> None:
    assert list_keys() == ()
    made = new_key("b"), new_key("a.pem")
    (home / "b.pub").unlink()
    (home / ".hidden.pem").write_text("no key")
    assert list_keys() == (("a.pem", made[1].public), ("b", made[0].public))


@pytest.mark.parametrize(
    "name", ["", "../me", "me/you", "Me", ".me", "m" * 64, "me\n", "m\0e", "mé", "-", "a b"]
)
def test_a_name_never_becomes_a_path(name: str, tmp_path: Path) -> None:
    for action in (new_key, load_key, keys.load_public, keys.key_path):
        refused("key.name", action, name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_key_of_ours_is_refused(home: Path) -> None:
    refused("key.missing", load_key, "me")
    home.mkdir()
    for data, code in (
        (b"", "key.malformed"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key.malformed"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", "key.passphrase"),
        (b"x" * (keys.MAX_PEM + 1), "key.malformed"),
        (_rsa_pem(), "key.scheme"),
        (_p384_pem(), "key.scheme"),
    ):
        (home / "me.pem").write_bytes(data)
        refused(code, load_key, "me")
    (home / "me.pem").unlink()
    (home / "me.pem").mkdir()
    refused("key.malformed", load_key, "me")
    refused("key.scheme", new_key, "you", "rsa")


@pytest.mark.parametrize(
    ("pem", "code"),
    [
        ("", "key.malformed"),
        ("-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n", "key.malformed"),
        ("x" * (keys.MAX_PEM + 1), "key.malformed"),
        ("\udcff", "key.malformed"),
    ],
)
def test_what_is_no_public_key_is_refused(pem: str, code: str) -> None:
    refused(code, PublicKey.from_pem, pem)


def test_other_kinds_of_public_keys_are_refused() -> None:
    for private in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        pem = private.public_key().public_bytes(serialization.Encoding.PEM, SPKI)
        refused("key.scheme", PublicKey.from_pem, pem)
    refused("key.malformed", PublicKey.from_pem, _rsa_pem())  # a private key


def test_a_disk_that_refuses_leaves_no_key(tmp_path: Path, home: Path) -> None:
    home.write_text("a file where the directory should be")
    with pytest.raises(StorageError):
        new_key("me")
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def _rsa_pem() -> bytes:
    return _pem(rsa.generate_private_key(65537, 2048))


def _p384_pem() -> bytes:
    return _pem(ec.generate_private_key(ec.SECP384R1()))


def _pem(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
