"""Keys: a public half that others may trust, a private half in `FOREWORD_HOME/keys`.

Private keys are PKCS #8 PEM, readable by their owner alone, encrypted if `FOREWORD_KEY_PASSPHRASE` is
set when they are made. A key is never overwritten. The public half lies beside it as NAME.pub.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from foreword.artifact.digest import Digest
from foreword.config import foreword_home
from foreword.errors import ArtifactError, StorageError, UsageError
from foreword.signing import files

Scheme = Literal["ed25519", "ecdsa-sha2-nistp256"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
PASSPHRASE = "FOREWORD_KEY_PASSPHRASE"  # noqa: S105  the variable's name, not a secret

MAX_PEM = 8 << 10
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class PublicKey:
    """The half that verifies. Made by `from_pem`, which computes id and scheme from the key."""

    id: str
    """`sha256:<hex>` over the DER SubjectPublicKeyInfo: it depends on the key and on nothing else."""
    scheme: Scheme
    pem: str
    """SubjectPublicKeyInfo as PEM, in the one form our writer gives it."""

    @classmethod
    def from_pem(cls, pem: str | bytes) -> PublicKey:
        """Read a public key of one of the `SCHEMES`.

        Raises:
            UsageError: not a public key (`key.malformed`), or one of another kind (`key.scheme`).
        """
        try:
            data = pem.encode() if isinstance(pem, str) else pem
            if len(data) > MAX_PEM:
                raise ValueError(f"more than {MAX_PEM} bytes")
            key = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as e:
            raise UsageError(
                f"expected a public key as PEM (-----BEGIN PUBLIC KEY-----), got {pem[:40]!r} "
                f"({str(e)[:120]})",
                code="key.malformed",
            ) from e
        return _public(key)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """True if this key made the signature over exactly this message."""
        key = SSlibKey.from_crypto(
            serialization.load_pem_public_key(self.pem.encode()), self.id, self.scheme
        )
        try:
            key.verify_signature(Signature(self.id, signature.hex()), message)
        except UnverifiedSignatureError:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """The half that signs."""

    name: str
    public: PublicKey
    _signer: CryptoSigner = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """The raw signature: 64 bytes for ed25519, DER for ECDSA."""
        return bytes.fromhex(self._signer.sign(message).signature)


def new_key(name: str, scheme: Scheme = "ed25519") -> SigningKey:
    """Make a key and keep it as `FOREWORD_HOME/keys/NAME.pem`, its public half as NAME.pub.

    Raises:
        UsageError: the name has not its form, or is taken (`key.exists`).
        StorageError: the disk refused; there is no key.
    """
    path = key_path(name)
    private = _generate(scheme)
    key = _signing_key(name, private)
    public = path.with_suffix(".pub")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise StorageError(
            f"{path.parent} could not be made ({e.strerror})", code="storage.write"
        ) from e
    if public.exists() or not files.create(path, _private_pem(private), 0o600):
        raise UsageError(
            f"there is a key {name!r} already ({path}); keys are never overwritten, choose another "
            "name",
            code="key.exists",
        )
    files.replace(public, key.public.pem.encode(), 0o644)
    return key


def load_key(name: str) -> SigningKey:
    """The key `new_key` made under this name.

    Raises:
        UsageError: no such key, not a key, or a passphrase that is missing or wrong.
        StorageError: the disk refused.
    """
    data, phrase = read_private(name)
    try:
        private = serialization.load_pem_private_key(data, phrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        why = f"{PASSPHRASE} does not open it" if phrase else "it is not a private key as PEM"
        raise UsageError(
            f"the key {name!r} could not be read: {why}",
            code="key.passphrase" if phrase else "key.malformed",
        ) from e
    if not isinstance(private, _PrivateKey):
        raise _other_kind(private)
    return _signing_key(name, private)


def read_private(name: str) -> tuple[bytes, bytes | None]:
    """The file of a private key, and the passphrase if it is encrypted.

    Raises:
        UsageError: no such key, or its passphrase is not set (`key.passphrase`).
        StorageError: the disk refused.
    """
    data = _read(name, ".pem")
    if b"ENCRYPTED" not in data[:40]:
        return data, None
    phrase = _passphrase()
    if phrase is None:
        raise UsageError(f"the key {name!r} is encrypted; set {PASSPHRASE}", code="key.passphrase")
    return data, phrase


def load_public(name: str) -> PublicKey:
    """The public half of a key, without its passphrase where NAME.pub is there.

    Raises:
        UsageError, StorageError: as `load_key`.
    """
    if not key_path(name).with_suffix(".pub").exists():
        return load_key(name).public
    return PublicKey.from_pem(_read(name, ".pub"))


def list_keys() -> tuple[tuple[str, PublicKey], ...]:
    """Name and public half of every key in `FOREWORD_HOME/keys`, by name.

    Raises:
        UsageError, StorageError: as `load_key`.
    """
    directory = foreword_home() / "keys"
    try:
        found = sorted(directory.glob("*.pem")) if directory.is_dir() else []
    except OSError as e:
        raise StorageError(f"{directory} cannot be read ({e.strerror})", code="storage.read") from e
    names = [path.name.removesuffix(".pem") for path in found]
    return tuple((name, load_public(name)) for name in names if _NAME.fullmatch(name))


def key_path(name: str) -> Path:
    """Where the private half of a key lies.

    Raises:
        UsageError: the name has not its form (`key.name`).
    """
    check_key_name(name)
    return foreword_home() / "keys" / f"{name}.pem"


def check_key_name(name: str) -> None:
    """At most 63 lower-case letters, digits, '.', '_' or '-'.

    Raises:
        UsageError: with code `key.name`.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "the name of a key is at most 63 lower-case letters, digits, '.', '_' or '-', got "
            f"{name[:80]!r}",
            code="key.name",
        )


def _read(name: str, suffix: str) -> bytes:
    path = key_path(name).with_suffix(suffix)
    try:
        return files.read(path, MAX_PEM)
    except ArtifactError as e:
        if e.code != "artifact.missing":
            raise UsageError(f"{e}; expected a key", code="key.malformed") from e
        raise UsageError(
            f"there is no key {name!r} ({path}); make one with `foreword keys new {name}`",
            code="key.missing",
        ) from e


def _generate(scheme: Scheme) -> _PrivateKey:
    if scheme == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if scheme == "ecdsa-sha2-nistp256":
        return ec.generate_private_key(ec.SECP256R1())
    raise UsageError(
        f"expected a scheme of {', '.join(SCHEMES)}, got {str(scheme)[:40]!r}", code="key.scheme"
    )


def _signing_key(name: str, private: _PrivateKey) -> SigningKey:
    public = _public(private.public_key())
    library = SSlibKey.from_crypto(private.public_key(), public.id, public.scheme)
    return SigningKey(name, public, CryptoSigner(private, library))


def _public(key: object) -> PublicKey:
    scheme: Scheme
    if isinstance(key, ed25519.Ed25519PublicKey):
        scheme = "ed25519"
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        scheme = "ecdsa-sha2-nistp256"
    else:
        raise _other_kind(key)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    der = key.public_bytes(serialization.Encoding.DER, form)
    pem = key.public_bytes(serialization.Encoding.PEM, form)
    return PublicKey(str(Digest.of(der)), scheme, pem.decode())


def _other_kind(key: object) -> UsageError:
    return UsageError(
        f"expected a key for {' or '.join(SCHEMES)}, got {type(key).__name__}", code="key.scheme"
    )


def _private_pem(private: _PrivateKey) -> bytes:
    phrase = _passphrase()
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(phrase) if phrase else serialization.NoEncryption(),
    )


def _passphrase() -> bytes | None:
    return os.environ.get(PASSPHRASE, "").encode() or None
