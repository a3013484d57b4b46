"""fsck: everything in a registry that contradicts itself, and how to mend each. Changes nothing."""

from foreword.registry.fsck.finding import Finding, Severity
from foreword.registry.fsck.run import Report, fsck

__all__ = ["Finding", "Report", "Severity", "fsck"]
