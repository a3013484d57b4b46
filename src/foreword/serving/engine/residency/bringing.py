"""What the threads do for a load: bring its bytes, compare facts, build tensors. Knows no state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foreword.artifact import Digest
from foreword.errors import ArtifactError, StorageError
from foreword.prefix.base_model import BaseModel
from foreword.prefix.loading import require_fit
from foreword.serving.engine.residency.flights import Built, Found
from foreword.serving.engine.residency.tiers import DiskTier
from foreword.signing.verify import VerifiedArtifact

Fetch = Callable[[Digest], VerifiedArtifact]


@dataclass(frozen=True)
class Bringing:
    """For one base. Every method may block and runs on any thread."""

    base: BaseModel
    fetch: Fetch

    def from_afar(self, digest: Digest) -> Found:
        """Fetch an artifact; whatever `fetch` raises comes through.

        Raises:
            ArtifactError: it gave another one than it was asked for.
            CompatibilityError: it was made for another base.
        """
        verified = self.fetch(digest)
        if verified.digest != digest:
            raise ArtifactError(
                f"asked for {digest}, the store gave {verified.digest}; it mixes up its artifacts",
                code="artifact.digest",
            )
        return self._fitting(verified)

    def from_disk(self, disk: DiskTier, digest: Digest) -> Found | None:
        """Our own copy, judged again; None if it is gone, no good, or cannot be read.

        Raises:
            TrustError: the trust policy itself is no good.
            CompatibilityError: it was made for another base.
        """
        try:
            verified = disk.get(digest)
        except StorageError:  # the disk is no more than a shortcut
            return None
        return self._fitting(verified) if verified else None

    def build(self, found: Found) -> Built:
        """The tensors, whose bytes have been reserved.

        Raises:
            MemoryError: there is no memory left for them.
            ArtifactError: one of them is not finite.
        """
        try:
            host = found.on_host()
            device = host.to(device=self.base.device)
            finite = host.is_finite()
        except RuntimeError as e:  # how torch says that there is no memory
            raise MemoryError(str(e)) from e
        if not finite:
            raise ArtifactError("a key or value is not finite", code="tensor.not_finite")
        return Built(host, device)

    def _fitting(self, verified: VerifiedArtifact) -> Found:
        require_fit(self.base, verified.artifact.manifest)
        return Found(verified.artifact.manifest, verified)
