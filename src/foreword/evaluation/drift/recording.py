"""An alarm in the journal: a `drifted` entry with the reference window and a snapshot to train from."""

from __future__ import annotations

from foreword.evaluation.drift.look import DriftReport
from foreword.registry.entries import By, Entry
from foreword.registry.references import ByDigest
from foreword.registry.registry import Registry


def record(report: DriftReport, registry: Registry, by: By) -> Entry | None:
    """The entry about the clearest alarm of a report; None if it has none.

    Raises:
        NotFound, RegistryError: the version is not live in this registry.
        UsageError: the snapshot is larger than 64 MB (`registry.window`).
        StorageError: nothing was recorded; record it again.
    """
    alarms = [finding for finding in report.findings if finding.alarm]
    if not alarms:
        return None
    return registry.record_drift(
        ByDigest(report.reference.window.digest),
        measure=alarms[0].measure,
        statistic=alarms[0].statistic,
        p=alarms[0].p,
        window=report.reference.data,
        snapshot=report.snapshot,
        by=by,
    )
