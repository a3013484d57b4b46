"""An artifact's signature as an OpenSSF model-signing bundle, for those who use that tool.

A bundle (https://github.com/ossf/model-signing-spec) is a DSSE envelope around an in-toto statement that
lists the files of a directory. The library behind it takes the list of ignored files from whoever signed,
so "verified" alone does not say that the tensors are covered; here the statement is read as well, and
compared with the bytes in hand. Needs the extra `oms`; ECDSA keys only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from foreword.artifact.digest import Digest
from foreword.artifact.fields import Fields
from foreword.artifact.manifest import Manifest
from foreword.artifact.package import (
    COMPANIONS,
    ENVELOPES,
    MANIFEST,
    TENSORS,
    Artifact,
    from_bytes,
    open_artifact,
    read_files,
)
from foreword.errors import ArtifactError, StorageError, TrustError, UsageError
from foreword.signing import files, keys
from foreword.signing.envelope import IN_TOTO, MAX_BYTES
from foreword.signing.keys import PublicKey
from foreword.signing.policy import TenantRule, TrustPolicy, tenant_of
from foreword.signing.statement import SIGN, STATEMENT

PREDICATE = "https://model_signing/signature/v1.0"
SCHEME = "ecdsa-sha2-nistp256"

_NEVER_READ = frozenset({*COMPANIONS, ENVELOPES})
"""The only names in an artifact's directory that its digest does not cover."""
_BY_DEFAULT = frozenset({"model.sig", ".git", ".gitattributes", ".github", ".gitignore"})
"""What the library's own command leaves out; an artifact's reader refuses these names."""


def export_bundle(directory: str | Path, key_name: str, bundle: str | Path) -> Digest:
    """Sign an artifact with an ECDSA key in `FOREWORD_HOME` and write the bundle; gives its digest.

    Raises:
        UsageError: the extra is missing, the key is no ECDSA key, or the bundle would lie inside.
        ArtifactError: it is no sound artifact.
        StorageError: the file exists already, or the disk refused.
    """
    directory, bundle = Path(directory), Path(bundle)
    library, key = _library(), keys.load_key(key_name)
    if key.public.scheme != SCHEME:
        raise UsageError(
            f"a model-signing bundle needs a key for {SCHEME}, {key_name!r} is one for "
            f"{key.public.scheme}; make one with `foreword keys new NAME --scheme {SCHEME}`",
            code="key.scheme",
        )
    if files.real(bundle).is_relative_to(files.real(directory)):
        raise UsageError(
            f"{bundle} would lie inside the artifact, which then could not be read; put it beside it",
            code="oms.place",
        )
    artifact = open_artifact(directory)
    _, phrase = keys.read_private(key_name)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "bundle"
        config = library.signing.Config().use_elliptic_key_signer(
            private_key=keys.key_path(key_name), password=phrase
        )
        config.set_hashing_config(_hashing(library)).sign(directory, made)
        data = made.read_bytes()
    # The library read the files by itself: what it signed has to be what was checked.
    _check_covers(_read(data)[1], artifact.manifest_bytes, artifact.tensor_bytes)
    if not files.create(bundle, data, 0o644):
        raise StorageError(f"{bundle} exists already; choose another name", code="storage.exists")
    return artifact.digest


def open_bundle(
    directory: str | Path, bundle: str | Path, policy: TrustPolicy, now: datetime
) -> tuple[Artifact, str]:
    """The artifact a bundle vouches for, and the id of the key that signed it.

    A bundle is one signature without attestations: a tenant whose rule asks for more needs envelopes.

    Raises:
        UsageError: the extra is missing.
        TrustError: the policy does not trust it, or it does not cover both files (`trust.oms_*`).
        ArtifactError, StorageError: as `open_artifact`.
    """
    library = _library()
    policy.check_current(now)
    manifest_bytes, tensor_bytes = read_files(directory)
    data = files.read(Path(bundle), MAX_BYTES)
    hint, statement = _read(data)
    key = _key_of(hint, policy)
    _check_signature(library, Path(directory), data, key)
    _check_covers(statement, manifest_bytes, tensor_bytes)
    manifest, digest = Manifest.from_bytes(manifest_bytes), Digest.of(manifest_bytes)
    tenant = tenant_of(manifest.name)
    if objection := policy.objection(key.id, SIGN, tenant, now, "use"):
        raise TrustError(objection.reason, code=objection.code)
    if policy.rule_for(tenant) != TenantRule():
        raise TrustError(
            f"the policy asks for more than one signature for {tenant!r}, a bundle is one signature; "
            "use envelopes (`foreword sign`)",
            code="trust.threshold",
        )
    policy.check_not_taken_back(manifest.name, manifest.version, digest)
    return from_bytes(manifest_bytes, tensor_bytes), key.id


def _library() -> Any:
    try:
        import model_signing
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as e:  # the library imports pyopenssl without asking for it
        raise UsageError(
            f"model-signing cannot be imported ({e}); install the extra with "
            "`pip install 'foreword[oms]'`, which also brings pyopenssl",
            code="oms.missing",
        ) from e
    return model_signing


def _hashing(library: Any) -> Any:
    config = library.hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return config.set_ignored_paths(paths=sorted(_NEVER_READ), ignore_git_paths=False)


def _key_of(hint: str, policy: TrustPolicy) -> PublicKey:
    """The policy's key that a bundle names: by sha256 over its PEM."""
    for key in policy.keys.values():
        if hashlib.sha256(key.public.pem.encode()).hexdigest() == hint:
            return key.public
    raise TrustError(
        f"the policy has no key whose PEM has sha256 {hint[:80]!r}; have it added "
        "(`foreword keys trust FILE.pub`)",
        code="trust.unknown_key",
    )


def _check_signature(library: Any, directory: Path, data: bytes, key: PublicKey) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        bundle, public = Path(scratch) / "bundle", Path(scratch) / "public.pem"
        bundle.write_bytes(data)  # the bytes in hand, not the file they came from
        public.write_text(key.pem)
        config = library.verifying.Config().use_elliptic_key_verifier(public_key=public)
        try:
            # Names that are not an artifact's are refused already; envelopes may have come since.
            config.set_ignore_unsigned_files(True).verify(directory, bundle)
        except Exception as e:  # it reads a stranger's file; whatever it raises, it did not verify
            raise TrustError(
                f"model-signing does not verify the bundle ({str(e)[:200]!r}); get another copy",
                code="trust.signature",
            ) from e


def _read(data: bytes) -> tuple[str, Fields]:
    """A bundle's hint and its statement. Every field is known, so the library reads the same ones."""
    try:
        bundle = Fields(_json(data), "bundle")
        bundle.text("mediaType")
        material, envelope = bundle.object("verificationMaterial"), bundle.object("dsseEnvelope")
        bundle.done()
        hint = material.object("publicKey").text("hint")
        envelope.choice("payloadType", (IN_TOTO,))
        payload = base64.b64decode(envelope.text("payload"), validate=True)
        envelope.objects("signatures", 1)
        envelope.done()
        return hint, Fields(_json(payload), "statement")
    except (ArtifactError, ValueError, RecursionError) as e:
        raise TrustError(
            f"expected a model-signing bundle signed with a key ({str(e)[:200]})", code="trust.oms"
        ) from e


def _json(data: bytes) -> Any:
    return json.loads(data, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _check_covers(statement: Fields, manifest: bytes, tensors: bytes) -> None:
    """The statement has to list both files, with the digests of these very bytes."""
    try:
        statement.choice("_type", (STATEMENT,))
        statement.choice("predicateType", (PREDICATE,))
        predicate = statement.object("predicate")
        how = predicate.object("serialization").rest()
        listed = {
            each.text("name"): (each.text("algorithm"), each.text("digest"))
            for each in predicate.objects("resources", 64)
        }
    except ArtifactError as e:
        raise TrustError(f"not a statement of model-signing ({e})", code="trust.oms") from e
    ignored = how.get("ignore_paths", [])
    names = {str(path) for path in ignored} if isinstance(ignored, list) else {str(ignored)}
    if left_out := names - _NEVER_READ - _BY_DEFAULT:
        raise TrustError(
            f"whoever signed left out {min(left_out)[:80]!r}; sign the artifact as it is",
            code="trust.oms_ignored",
        )
    if not {MANIFEST, TENSORS} <= set(listed) <= {MANIFEST, TENSORS} | _NEVER_READ:
        raise TrustError(
            f"expected a statement about {MANIFEST} and {TENSORS}, got "
            f"{', '.join(sorted(listed))[:200]!r}",
            code="trust.oms_resources",
        )
    for name, code, data in ((MANIFEST, "subject", manifest), (TENSORS, "tensors", tensors)):
        if listed[name] != ("sha256", Digest.of(data).hex):
            raise TrustError(
                f"{name} is not what was signed ({': '.join(listed[name])[:100]!r}); get another copy",
                code=f"trust.{code}",
            )
