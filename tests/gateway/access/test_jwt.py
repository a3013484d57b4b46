"""Tokens are believed if an issuer of the table signed them for us and for now, and not otherwise."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from foreword.errors import AuthError, ConfigError
from foreword.serving.gateway.access.identify import identify
from foreword.serving.gateway.access.issuers import Issuer
from foreword.serving.gateway.access.jwks import REFRESH, RETRY, IssuerKeys
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Tenant
from tests.gateway.access.samples import NOW, table_of, with_key

T = int(NOW.timestamp())
KEY = ECKey.generate_key("P-256", {"kid": "one"})
NEXT = ECKey.generate_key("P-256", {"kid": "two"})
STRANGER = ECKey.generate_key("P-256", {"kid": "one"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})


@dataclass
class IssuerServer:
    """A real issuer on this machine: its discovery document and its keys, as the test wants them."""

    keys: list[Any] = field(default_factory=lambda: [KEY])
    status: int = 200
    body: bytes | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if self.status != 200 or self.body is not None:
            return self.status, self.body or b""
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": self.url, "jwks_uri": self.url + "/jwks"}).encode()
        return 200, json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()


@pytest.fixture(scope="module")
def listening() -> Iterator[IssuerServer]:
    known = IssuerServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = known.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 302:
                self.send_header("Location", known.url + "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def issuer_server(listening: IssuerServer) -> IssuerServer:
    fresh = IssuerServer(url=listening.url)
    vars(listening).update(vars(fresh))
    return listening


@dataclass
class World:
    """A table with one issuer, its keys fetched, and a clock for fetching."""

    server: IssuerServer
    table: AccessTable
    keys: IssuerKeys
    now: float = 0.0

    @property
    def issuer(self) -> Issuer:
        return next(iter(self.table.issuers.values()))

    def refresh(self, after: float = 0.0) -> None:
        self.now += after
        self.keys.refresh()


@pytest.fixture
def world(issuer_server: IssuerServer) -> World:
    issuer = Issuer(issuer_server.url, "foreword", ("acme", "off"), ("ES256",))
    table = replace(
        table_of(Tenant("acme"), Tenant("other"), Tenant("off", enabled=False)),
        issuers={issuer.url: issuer},
    )
    made: list[World] = []
    keys = IssuerKeys(lambda: made[0].table.issuers, lambda: made[0].now)
    made.append(World(issuer_server, table, keys))
    made[0].refresh()
    return made[0]


def token(
    world: World, key: Any = KEY, alg: str = "ES256", kid: str = "one", **changes: Any
) -> str:
    claims = {
        "iss": world.issuer.url, "aud": "foreword", "sub": "robot-7", "tenant": "acme",
        "scope": "generate models admin", "exp": T + 600, "iat": T, **changes,
    }  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not ...}
    return f"Bearer {jwt.encode({'alg': alg, 'kid': kid}, claims, key, algorithms=[alg])}"


def code_of(world: World, header: str) -> str:
    with pytest.raises(AuthError) as refused:
        identify(world.table, header, NOW, world.keys)
    assert header.removeprefix("Bearer ")[:20] not in str(refused.value)
    return refused.value.code


def test_a_token_speaks_for_the_tenant_of_its_claim(world: World) -> None:
    principal = identify(world.table, token(world), NOW, world.keys)
    assert principal.tenant == "acme"
    assert principal.scopes == {"generate", "models"}  # never admin, whatever a claim says
    assert principal.expires == NOW + timedelta(seconds=630)
    assert principal.key_id.startswith("jwt:")
    assert "robot" not in principal.key_id
    again = identify(world.table, token(world, scope=["models"], iat=T - 5), NOW, world.keys)
    assert again.key_id == principal.key_id
    assert again.scopes == {"models"}
    assert world.server.asked == ["/.well-known/openid-configuration", "/jwks"]


def test_api_keys_work_beside_tokens(world: World) -> None:
    table, header, key_id = with_key(world.table, "acme")
    assert identify(table, header, NOW, world.keys).key_id == key_id
    assert identify(table, header, NOW).key_id == key_id


CLAIMS = [
    ("somebody else's service", {"aud": "other"}, "auth.token_audience"),
    ("no audience", {"aud": ...}, "auth.token_audience"),
    ("an audience that contains ours", {"aud": "foreword2"}, "auth.token_audience"),
    ("another issuer", {"iss": "https://evil.example.com"}, "auth.token_issuer"),
    ("no issuer", {"iss": ...}, "auth.token_issuer"),
    ("an issuer that is no text", {"iss": ["x"]}, "auth.token_issuer"),
    ("expired", {"exp": T - 31}, "auth.expired"),
    ("no end", {"exp": ...}, "auth.token_claims"),
    ("an end that is no number", {"exp": "2030"}, "auth.token_claims"),
    ("an end beyond all dates", {"exp": 10**18}, "auth.token_claims"),
    ("not yet", {"nbf": T + 31}, "auth.token_claims"),
    ("from the future", {"iat": T + 31}, "auth.token_claims"),
    ("no subject", {"sub": ...}, "auth.token_claims"),
    ("an empty subject", {"sub": ""}, "auth.token_claims"),
    ("no tenant", {"tenant": ...}, "auth.token_tenant"),
    ("a tenant it does not speak for", {"tenant": "other"}, "auth.token_tenant"),
    ("several tenants", {"tenant": ["acme"]}, "auth.token_tenant"),
    ("the operator", {"tenant": ""}, "auth.token_tenant"),
    ("a tenant that is off", {"tenant": "off"}, "auth.tenant"),
]


@pytest.mark.parametrize(
    ("claims", "code"), [case[1:] for case in CLAIMS], ids=[c[0] for c in CLAIMS]
)
def test_a_token_that_is_not_for_us_and_now_is_refused(
    world: World, claims: dict[str, Any], code: str
) -> None:
    assert code_of(world, token(world, **claims)) == code


def test_the_clock_may_differ_by_the_leeway_and_no_more(world: World) -> None:
    identify(world.table, token(world, exp=T - 29, nbf=T + 30, iat=T + 30), NOW, world.keys)
    assert code_of(world, token(world, exp=T - 30)) == "auth.expired"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_token_without_a_signature_is_refused(world: World) -> None:
    _, claims, signature = token(world).split(".")
    for alg in ("none", "None", "NONE", ""):
        header = b64(json.dumps({"alg": alg, "kid": "one"}).encode())
        assert code_of(world, f"Bearer {header}.{claims}.") == "auth.token_algorithm"
        assert code_of(world, f"Bearer {header}.{claims}.{signature}") == "auth.token_algorithm"


def test_the_public_key_is_no_secret_to_sign_with(world: World) -> None:
    claims = token(world).split(".")[1]
    header = b64(json.dumps({"alg": "HS256", "kid": "one"}).encode())
    for secret in (KEY.as_pem(private=False), json.dumps(KEY.as_dict(private=False)).encode()):
        signature = b64(hmac.digest(secret, f"{header}.{claims}".encode(), "sha256"))
        forged = f"Bearer {header}.{claims}.{signature}"
        assert code_of(world, forged) == "auth.token_algorithm"


def test_an_algorithm_that_the_issuer_does_not_use_is_refused(world: World) -> None:
    world.server.keys = [KEY, RSA]
    world.refresh(REFRESH)
    assert code_of(world, token(world, RSA, "RS256", "rsa")) == "auth.token_algorithm"
    allowed = replace(world.issuer, algorithms=("ES256", "RS256"))
    world.table = replace(world.table, issuers={allowed.url: allowed})
    world.refresh()
    identify(world.table, token(world, RSA, "RS256", "rsa"), NOW, world.keys)


@pytest.mark.parametrize("kid", ["rsa", "one"])
def test_a_key_of_another_kind_than_the_algorithm_proves_nothing(world: World, kid: str) -> None:
    world.server.keys = [KEY, RSA]
    world.refresh(REFRESH)
    code = code_of(world, token(world, STRANGER, kid=kid))
    assert code in {"auth.token_signature", "auth.token_key"}


def test_changed_claims_are_refused(world: World) -> None:
    header, claims, signature = token(world).split(".")
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=="))
    for change in ({"tenant": "off"}, {"exp": T + 10**6}, {"sub": "root"}):
        forged = b64(json.dumps({**decoded, **change}).encode())
        assert code_of(world, f"{header}.{forged}.{signature}") == "auth.token_signature"
    assert code_of(world, token(world, STRANGER)) == "auth.token_signature"


@pytest.mark.parametrize(
    "text",
    ["a.b.c", "..", "a.b", "a.b.c.d.e", "e30.e30.e30", "e30.W10.", "\u00ff.a.b", "." * 7_000],
)
def test_what_is_no_token_is_malformed_or_unknown(world: World, text: str) -> None:
    assert code_of(world, f"Bearer {text}") in {"auth.malformed", "auth.token_issuer"}


def test_a_killed_tenant_has_no_tokens(world: World) -> None:
    world.table = world.table.with_killed_tenant("acme", Kill("spam", "me", NOW))
    assert code_of(world, token(world)) == "auth.tenant"


# The issuer's keys


def test_a_new_key_is_fetched_soon_after_a_token_names_it(world: World) -> None:
    world.server.keys = [KEY, NEXT]
    new = token(world, NEXT, kid="two")
    assert code_of(world, new) == "auth.token_key"
    world.refresh(1)  # not at once: strangers could make us ask the issuer for every request
    assert code_of(world, new) == "auth.token_key"
    world.refresh(RETRY)
    assert identify(world.table, new, NOW, world.keys).tenant == "acme"


def test_a_key_that_the_issuer_took_back_is_forgotten(world: World) -> None:
    world.server.keys = [NEXT]
    world.refresh(REFRESH)
    assert code_of(world, token(world)) == "auth.token_key"


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, None), (302, None), (200, b"no json"), (200, b"[]"), (200, b"{}"), (200, b'{"keys": 1}'),
     (200, b'{"keys": []}'), (200, b'{"keys": [1]}'), (200, b"[" * 100_000),
     (200, b'{"keys": [{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}'), (200, b" " * (300 << 10)),
     (200, json.dumps({"keys": [KEY.as_dict(private=True)]}).encode())],
)  # fmt: skip
def test_an_issuer_that_fails_keeps_its_last_good_keys(
    world: World, status: int, body: bytes | None
) -> None:
    world.table = replace(
        world.table,
        issuers={world.issuer.url: replace(world.issuer, jwks=f"{world.server.url}/jwks")},
    )
    world.refresh()
    world.server.status, world.server.body = status, body
    world.refresh(REFRESH)
    assert world.keys.states()[0].problem
    assert identify(world.table, token(world), NOW, world.keys).tenant == "acme"
    world.server.status, world.server.body = 200, None
    world.refresh(RETRY)
    assert not world.keys.states()[0].problem


def test_an_issuer_that_was_never_reached_is_a_reason_to_come_back(world: World) -> None:
    world.server.status = 503
    fresh = IssuerKeys(lambda: world.table.issuers)
    fresh.refresh()
    with pytest.raises(AuthError) as refused:
        identify(world.table, token(world), NOW, fresh)
    assert (refused.value.code, refused.value.retry_after) == ("auth.token_key", RETRY)


def test_a_discovery_document_of_somebody_else_is_refused(world: World) -> None:
    for document in (
        {"issuer": "https://evil.example.com", "jwks_uri": world.server.url + "/jwks"},
        {"issuer": world.server.url, "jwks_uri": "http://evil.example.com/jwks"},
        {"issuer": world.server.url, "jwks_uri": "file:///etc/passwd"},
    ):
        world.server.body = json.dumps(document).encode()
        fresh = IssuerKeys(lambda: world.table.issuers)
        fresh.refresh()
        assert fresh.of(world.issuer) is None
        assert fresh.states()[0].problem


def test_keys_can_lie_in_a_file(world: World, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(json.dumps({"keys": [NEXT.as_dict(private=False)]}).encode())
    issuer = replace(world.issuer, jwks=str(path))
    world.table = replace(world.table, issuers={issuer.url: issuer})
    world.refresh()
    identify(world.table, token(world, NEXT, kid="two"), NOW, world.keys)
    assert code_of(world, token(world)) == "auth.token_key"


def test_an_issuer_that_is_taken_out_is_not_believed(world: World) -> None:
    header, issuer = token(world), world.issuer
    world.table = replace(world.table, issuers={})
    world.refresh()
    assert code_of(world, header) == "auth.malformed"
    assert world.keys.of(issuer) is None


def test_a_thread_keeps_the_keys_fresh_and_ends(world: World) -> None:
    keys = IssuerKeys(lambda: world.table.issuers)
    keys.start()
    since = time.monotonic()
    while keys.of(world.issuer) is None:
        assert time.monotonic() - since < 5
        time.sleep(0.01)
    keys.stop()
    assert not keys._thread.is_alive()


@pytest.mark.parametrize(
    "change",
    [{"algorithms": ("HS256",)}, {"algorithms": ("none",)}, {"algorithms": ()}, {"leeway": 61},
     {"url": "http://id.example.com"}, {"jwks": "http://id.example.com"}, {"jwks": "relative.json"},
     {"tenants": ()}, {"tenants": ("No",)}, {"audience": ""}, {"url": "https://a b"},
     {"url": "http://localhost.example.com"}, {"url": "http://127.0.0.1@example.com"}],
)  # fmt: skip
def test_an_issuer_that_could_not_be_believed_safely_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(Issuer("https://id.example.com", "foreword", ("acme",)), **change)
