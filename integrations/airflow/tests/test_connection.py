"""The Airflow connection: its fields, and every way to get into a NATS server."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import nkeys
import pytest
from airflow.sdk import Connection
from conftest import Server
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import air_executor_provider
from air_executor_provider.hook import dashboard_of, settings_of
from air_executor_provider.link import AirError, Refused, Settings, Unreachable
from air_executor_provider.protocol import connected


def connection(**fields: Any) -> Connection:
    extra = fields.pop("extra", None)
    return Connection(conn_id="c", conn_type="air_executor", extra=json.dumps(extra) if extra else None, **fields)


@contextmanager
def running(folder: Path, extra: str) -> Iterator[Server]:
    server = Server(folder, extra)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def enters(settings: Settings) -> bool:
    async with connected(settings) as air:
        return bool(air.nats.is_connected)


@pytest.mark.parametrize(
    ("fields", "servers"),
    [
        ({}, ("nats://127.0.0.1:4222",)),
        ({"host": "a"}, ("nats://a:4222",)),
        ({"host": "a", "port": 1}, ("nats://a:1",)),
        ({"host": "nats://a:2, tls://b ,c:3", "port": 1}, ("nats://a:2", "tls://b:1", "nats://c:3")),
        ({"host": "[::1]", "port": 1}, ("nats://[::1]:1",)),
        ({"host": "nats://u:p@a"}, ("nats://u:p@a:4222",)),
    ],
)
def test_servers(fields: dict[str, Any], servers: tuple[str, ...]) -> None:
    assert settings_of(connection(**fields)).servers == servers


def test_fields() -> None:
    settings = settings_of(
        connection(
            host="a", login="u", password="p", extra={"token": "t", "tls": "true", "prefix": "my-air", "creds_file": ""}
        )
    )
    assert (settings.user, settings.password, settings.token, settings.tls) == ("u", "p", "t", True)
    assert (settings.prefix, settings.creds_file) == ("my-air", None)
    with pytest.raises(Refused, match="connection c has the unknown extra field crds_file"):
        settings_of(connection(extra={"crds_file": "x"}))
    with pytest.raises(Refused, match="both tls_cert and tls_key"):
        settings_of(connection(extra={"tls_cert": "x"}))


def test_the_dashboard() -> None:
    assert dashboard_of(connection(), "j") == ""
    assert dashboard_of(connection(extra={"dashboard": "http://d/"}), "j", "t") == "http://d/#/jobs/j/t"
    assert dashboard_of(connection(extra={"dashboard": "http://d/?job={job}"}), "j") == "http://d/?job=j"


def test_airflow_takes_the_description_of_the_package() -> None:
    import airflow

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    info = air_executor_provider.get_provider_info()
    jsonschema.validate(info, schema)
    fields = info["connection-types"][0]["conn-fields"]
    settings_of(connection(extra=dict.fromkeys(fields, None)))


def certificates(folder: Path) -> None:
    """A CA, and one certificate for both the server and a client."""

    def key(name: str) -> ec.EllipticCurvePrivateKey:
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(pem)
        return made

    def certificate(name: str, of: Any, by: Any, issuer: str, ca: bool) -> None:
        def called(common: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

        now = datetime.now(timezone.utc)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        usage = x509.KeyUsage(True, False, False, False, False, ca, ca, False, False)
        made = (
            x509.CertificateBuilder()
            .subject_name(called(name))
            .issuer_name(called(issuer))
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
            .add_extension(names, critical=False)
            .sign(by, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))

    authority, server = key("ca"), key("server")
    certificate("ca", authority, authority, "ca", True)
    certificate("server", server, authority, "ca", False)


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    certificates(tmp_path)
    files = ", ".join(
        f'{name}: "{tmp_path}/{file}"' for name, file in [("cert_file", "server.pem"), ("key_file", "server.key")]
    )
    with running(tmp_path, f'tls {{ {files}, ca_file: "{tmp_path}/ca.pem", verify: true }}') as server:
        address = server.url.replace("nats://", "tls://")
        ca, pair = f"{tmp_path}/ca.pem", {"tls_cert": f"{tmp_path}/server.pem", "tls_key": f"{tmp_path}/server.key"}
        assert await enters(settings_of(connection(host=address, extra={"tls_ca": ca, **pair})))
        for bad in ({"tls_ca": ca}, {"tls": True}):
            with pytest.raises(AirError):
                await enters(settings_of(connection(host=address, extra={**bad, "connect_timeout": 2})))


async def test_user_token_and_nkey(tmp_path: Path) -> None:
    with running(tmp_path, 'authorization { user: "u", password: "p" }') as server:
        assert await enters(settings_of(connection(host=server.url, login="u", password="p")))
        with pytest.raises(Refused, match="refuses the credentials"):
            await enters(settings_of(connection(host=server.url, login="u", password="q")))
    with running(tmp_path, 'authorization { token: "secret" }') as server:
        assert await enters(settings_of(connection(host=server.url, extra={"token": "secret"})))
        with pytest.raises(Refused, match="refuses the credentials") as refused:
            await enters(settings_of(connection(host=server.url, extra={"token": "other"})))
        assert "other" not in str(refused.value)
    seed = nkeys.encode_seed(b"s" * 32, nkeys.PREFIX_BYTE_USER)
    (tmp_path / "seed").write_bytes(seed)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    with running(tmp_path, f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        assert await enters(settings_of(connection(host=server.url, extra={"nkey_seed": seed.decode()})))
        assert await enters(settings_of(connection(host=server.url, extra={"nkey_file": str(tmp_path / "seed")})))
        with pytest.raises(Refused, match="refuses the credentials"):
            await enters(settings_of(connection(host=server.url)))


def token(by: nkeys.KeyPair, subject: str, kind: str, nats: dict[str, Any]) -> str:
    """A JWT as NATS has them: signed by an NKEY, with its own hash as id."""

    def part(value: Any) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    claims = {"iat": int(time.time()), "iss": by.public_key.decode(), "name": kind, "sub": subject}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    claims["nats"] = {**nats, "type": kind, "version": 2}
    body = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
    return f"{body}.{part(by.sign(body.encode()))}"


async def test_credentials_as_file_and_text(tmp_path: Path) -> None:
    kinds = [
        ("o", nkeys.PREFIX_BYTE_OPERATOR),
        ("a", nkeys.PREFIX_BYTE_ACCOUNT),
        ("s", nkeys.PREFIX_BYTE_ACCOUNT),
        ("u", nkeys.PREFIX_BYTE_USER),
    ]
    seeds = {name: nkeys.encode_seed(name.encode() * 32, prefix) for name, prefix in kinds}
    operator, account, user, system = (nkeys.from_seed(bytearray(seeds[name])) for name in "oaus")
    names = [pair.public_key.decode() for pair in (operator, account, user, system)]
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    of_account, of_system = (
        token(operator, names[at], "account", {"limits": {**limits, "wildcards": True}}) for at in (1, 3)
    )
    everything = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
    creds = (
        f"-----BEGIN NATS USER JWT-----\n{token(account, names[2], 'user', everything)}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seeds['u'].decode()}\n------END USER NKEY SEED------\n"
    )
    (tmp_path / "user.creds").write_text(creds)
    conf = (
        f"operator: {token(operator, names[0], 'operator', {})}\nresolver: MEMORY\n"
        f"system_account: {names[3]}\nresolver_preload: {{ {names[1]}: {of_account}, {names[3]}: {of_system} }}\n"
    )
    with running(tmp_path, conf) as server:
        assert await enters(
            settings_of(connection(host=server.url, extra={"creds_file": str(tmp_path / "user.creds")}))
        )
        assert await enters(settings_of(connection(host=server.url, extra={"creds": creds})))
        with pytest.raises(Refused, match="refuses the credentials"):
            await enters(settings_of(connection(host=server.url)))
        with pytest.raises(AirError):
            await enters(settings_of(connection(host=server.url, extra={"creds_file": str(tmp_path / "none.creds")})))


async def test_a_server_that_is_not_there() -> None:
    with pytest.raises(Unreachable, match=r"no NATS server answers at nats://127\.0\.0\.1:1 "):
        await enters(settings_of(connection(port=1, extra={"connect_timeout": 1})))
