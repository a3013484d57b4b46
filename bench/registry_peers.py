"""The other side of `bench/registry.py`, in a process and an environment of its own.

OpenSSF model-signing verifies the same directory; MLflow's model registry holds as many versions in an
SQLite file of its own and resolves an alias, or lists a page. Started by the benchmark with the Python
of that environment. One JSON request a line, one answer a line: the seconds that one operation took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def signed_model(directory: str) -> Callable[[], object]:
    """Signs a copy of the artifact with a new P-256 key and gives the function that verifies it."""
    import model_signing
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root = Path(directory)
    private = ec.generate_private_key(ec.SECP256R1())
    (root / "key.pem").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (root / "key.pub").write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    model, signature = root / "model", root / "model.sig"
    model_signing.signing.Config().use_elliptic_key_signer(private_key=root / "key.pem").sign(
        model, signature
    )
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=root / "key.pub")
    return lambda: config.verify(model, signature)


class Mlflow:
    """MLflow's registry, asked through its Python client without a server in between."""

    def __init__(self, directory: str, prefixes: int, versions: int) -> None:
        import mlflow
        from mlflow import MlflowClient

        uri = f"sqlite:///{directory}/mlflow.db"
        mlflow.set_tracking_uri(uri)
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        for index in range(prefixes):
            name = f"tenant-{index:04}.support"
            self.client.create_registered_model(name)
            for _ in range(versions):
                made = self.client.create_model_version(name, source=directory)
            self.client.set_registered_model_alias(name, "stable", made.version)

    def resolve(self, index: int) -> None:
        name = f"tenant-{index:04}.support"
        if self.client.get_model_version_by_alias(name, "stable").name != name:
            raise RuntimeError("another model came back")

    def page(self) -> None:
        self.client.search_registered_models(max_results=100)


def main() -> None:
    operations: dict[str, Callable[..., object]] = {}
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        began = time.perf_counter()
        if request["do"] == "sign":
            operations["verify"] = signed_model(request["directory"])
        elif request["do"] == "fill":
            mlflow = Mlflow(request["directory"], request["prefixes"], request["versions"])
            operations |= {"resolve": mlflow.resolve, "page": mlflow.page}
        else:
            operations[request["do"]](*request.get("with", []))
        print(json.dumps(time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
