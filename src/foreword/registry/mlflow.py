"""A version as MLflow shows it: a run with what was measured, and a version of a registered model.

The bytes stay in the registry, which is the only place where they are verified; MLflow gets their digest.
Needs the extra `mlflow`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreword.artifact import Digest, Manifest
from foreword.errors import ConfigError, Conflict, StorageError
from foreword.registry.references import Reference
from foreword.registry.registry import Registry
from foreword.registry.state import State, Version
from foreword.signing.times import moment

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "foreword"
_DIGEST, _NAME = "foreword.digest", "foreword.name"
# https://mlflow.org/docs/latest/ml/tracking: what a server takes in one batch.
_BATCH, _MAX_VALUE, _MAX_KEY = 100, 6_000, 250
_NO_KEY = re.compile(r"[^A-Za-z0-9_\-. /]")


@dataclass(frozen=True)
class Mirror:
    """What MLflow is told of a version."""

    model: str
    """`acme.support` for acme/support: MLflow has no tenants and takes no '/'."""
    name: str
    version: str
    digest: Digest
    created: int
    """Milliseconds since 1970."""
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Mirrored:
    """Where it is in MLflow."""

    model: str
    version: str
    """MLflow's own number."""
    run_id: str
    is_new: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model, "version": self.version, "run_id": self.run_id, "new": self.is_new,
        }  # fmt: skip


def mirror(state: State, version: Version, manifest: Manifest) -> Mirror:
    """Decide what to tell; pure."""
    facts, training = version.facts, manifest.training
    return Mirror(
        model=facts.name.replace("/", "."),
        name=facts.name,
        version=facts.version,
        digest=facts.digest,
        created=int(moment(manifest.created).timestamp() * 1000),
        params=dict(_texts(training.get("settings"))),
        metrics={**_numbers(training.get("metrics")), **_numbers(training.get("run"), "run.")},
        tags={
            _DIGEST: str(facts.digest),
            _NAME: facts.name,
            "foreword.version": facts.version,
            "foreword.status": version.status,
            "foreword.arm": _arm(state, version),
            "foreword.base": facts.base.id,
            "foreword.base_fingerprint": str(facts.base.fingerprint),
            "foreword.data": str(facts.lineage.data or ""),
            "foreword.parent": str(facts.lineage.parent or ""),
            "foreword.code": facts.lineage.code or "",
        },
    )


def register(
    registry: Registry, reference: Reference | str, uri: str, experiment: str = EXPERIMENT
) -> Mirrored:
    """Show a version in the MLflow server at `uri`; again brings its tags up to date.

    One that was cut short can be run again. Two at the same time may show a version twice, because
    MLflow has nothing that is unique.

    Raises:
        ConfigError: MLflow is not installed (`mlflow.missing`).
        NotFound, RegistryError: no such live version here, or its manifest is missing or damaged.
        Conflict: another name has the same model name in MLflow (`mlflow.name`).
        StorageError: the server cannot be reached, or refused.
    """
    version = registry.resolve(reference).version
    told = mirror(registry.state, version, registry.manifest(version.digest))
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as e:
        raise ConfigError(
            "showing a version in MLflow needs its client: pip install 'foreword[mlflow]'",
            code="mlflow.missing",
        ) from e
    try:
        return _show(MlflowClient(uri, uri), told, experiment)
    except MlflowException as e:
        said = " ".join(str(e).split())
        raise StorageError(
            f"the MLflow server at {uri} refused ({said[:200]!r}); check its address and try again",
            code="storage.remote",
        ) from e


def _show(client: MlflowClient, told: Mirror, experiment: str) -> Mirrored:
    _require_model(client, told)
    run_id = _run(client, told, experiment)
    found = _versions(client, told)
    if found:
        number = found[0].version
    else:
        number = client.create_model_version(
            told.model, f"foreword://{told.name}@{told.version}", run_id,
            tags=dict(told.tags), description=str(told.digest), await_creation_for=0,
        ).version  # fmt: skip
    for key, value in told.tags.items():
        client.set_model_version_tag(told.model, str(number), key, value)
    return Mirrored(told.model, str(number), run_id, is_new=not found)


def _require_model(client: MlflowClient, told: Mirror) -> None:
    found = client.search_registered_models(f"name = '{told.model}'")  # a name holds no quote
    if not found:
        client.create_registered_model(told.model, tags={_NAME: told.name})
    elif found[0].tags.get(_NAME) != told.name:
        raise Conflict(
            f"MLflow has a model {told.model!r} that stands for {found[0].tags.get(_NAME)!r} and not for "
            f"{told.name!r}; rename one of the two",
            code="mlflow.name",
        )


def _run(client: MlflowClient, told: Mirror, experiment: str) -> str:
    """The run of this digest, made or completed; logging the same again changes nothing."""
    from mlflow.entities import Metric, Param

    known = client.get_experiment_by_name(experiment)
    place = known.experiment_id if known else client.create_experiment(experiment)
    runs = client.search_runs([place], f"tags.`{_DIGEST}` = '{told.digest}'", max_results=1)
    run_id: str = (
        runs[0].info.run_id
        if runs
        else client.create_run(
            place, told.created, dict(told.tags), f"{told.name} {told.version}"
        ).info.run_id
    )
    metrics = [Metric(key, value, told.created, 0) for key, value in told.metrics.items()]
    params = [Param(key, value) for key, value in told.params.items()]
    for start in range(0, max(len(metrics), len(params)), _BATCH):
        batch = slice(start, start + _BATCH)
        client.log_batch(run_id, metrics[batch], params[batch])
    for key, value in told.tags.items():
        client.set_tag(run_id, key, value)
    client.update_run(run_id, status="FINISHED")
    return run_id


def _versions(client: MlflowClient, told: Mirror) -> list[Any]:
    query = f"name = '{told.model}' and tags.`{_DIGEST}` = '{told.digest}'"
    return list(client.search_model_versions(query))


def _arm(state: State, version: Version) -> str:
    release = state.names[version.name].release
    if release and release.stable == version.digest:
        return "stable"
    return "canary" if release and release.canary == version.digest else "none"


def _texts(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested settings, `a.b` for b in a; what MLflow would refuse is shortened."""
    pairs = value.items() if isinstance(value, Mapping) else ()
    for key, inner in pairs:
        path = _NO_KEY.sub("_", f"{prefix}{key}")[:_MAX_KEY]
        if isinstance(inner, Mapping):
            yield from _texts(inner, f"{path}.")
        else:
            text = str(inner)
            yield path, text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


def _numbers(value: Any, prefix: str = "") -> dict[str, float]:
    """Those values of a record that are finite numbers."""
    pairs = value.items() if isinstance(value, Mapping) else ()
    return {
        _NO_KEY.sub("_", f"{prefix}{key}")[:_MAX_KEY]: float(inner)
        for key, inner in pairs
        if isinstance(inner, int | float) and not isinstance(inner, bool) and math.isfinite(inner)
    }
