"""A shop's database, for functions in SQL: on a real PostgreSQL, for a role that may do little."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from infra.stack.local import LocalStack
from tests.harness import PATIENCE_S
from tests.unit.calling import WORD

DATABASE, ROLE = "shop", "clerk"
TABLES = """
CREATE SCHEMA other;
CREATE SEQUENCE public.numbers;
CREATE TABLE public.orders (
    id int PRIMARY KEY, customer text NOT NULL, amount numeric, key text UNIQUE
);
CREATE TABLE other.orders (id int);
CREATE TABLE public.payroll (pay int);
CREATE TABLE public.late (id int REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO public.orders VALUES
    (1, 'Ada', 10.50, 'a'), (2, 'Bob', 20, 'b'), (3, 'O''Hara', 0.1, 'c');
GRANT USAGE ON SCHEMA other TO clerk;
GRANT SELECT ON other.orders TO clerk;
GRANT ALL ON public.orders, public.late TO clerk;
GRANT ALL ON SEQUENCE public.numbers TO clerk;
"""
CUSTOMERS = ["Ada", "Bob", "O'Hara"]


@pytest.fixture
def located(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's address is known at once."""

    async def permitted(host: str, port: int, *, private: bool) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr("workers.tools.sql.permitted", permitted)


@pytest.fixture
def graceful(located: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it has all the time that it takes to say that a statement was stopped."""
    monkeypatch.setattr("workers.tools.sql.GRACE_S", PATIENCE_S)


@dataclass
class Shop:
    """The database."""

    environment: dict[str, str]

    @property
    def port(self) -> int:
        return int(self.environment["POSTGRES_PORT"])

    @property
    def connection(self) -> dict[str, Any]:
        """What a connection to it holds."""
        return {
            "type": "postgresql",
            "url": f"postgresql://localhost:{self.port}/{DATABASE}",
            "user": ROLE,
            "secret": "env:SHOP",
            "private": True,
        }

    def session(self, database: str = DATABASE) -> psycopg.Connection[Any]:
        """Returns a session of the superuser."""
        password = self.environment["POSTGRES_PASSWORD"]
        return psycopg.connect(
            host=self.environment["POSTGRES_HOST"],
            port=self.port,
            user=self.environment["POSTGRES_USER"],
            password=Path(password[5:]).read_text() if password[:5] == "file:" else password,
            dbname=database,
            autocommit=True,
        )

    def runs(self, *statements: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Runs statements as the superuser; returns the rows of the last."""
        with self.session(database) as session:
            for statement in statements:
                cursor = session.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def customers(self) -> list[str]:
        """Returns who has ordered."""
        return [name for (name,) in self.runs("SELECT customer FROM orders ORDER BY id")]

    def open(self) -> None:
        """Puts everything in its place, as in the morning."""
        self.runs(
            f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)",
            f"CREATE DATABASE {DATABASE}",
            database="postgres",
        )
        self.runs(*TABLES.strip().split(";\n"))


def built(stack: LocalStack) -> Shop:
    """Returns a shop that is yet to be opened."""
    shop = Shop(dict(stack.environment()))
    shop.runs(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{WORD}'", database="postgres")
    return shop


@asynccontextmanager
async def encrypted(shop: Shop, folder: Path) -> AsyncIterator[tuple[dict[str, Any], Path]]:
    """A connection that speaks TLS with what stands for the database, and its certificate.

    The packaged PostgreSQL is built without TLS.
    """
    certificate = _certified(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(65536):
                target.write(piece)
                await target.drain()
        target.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What asks for TLS, and yes.
        await reader.readexactly(8)
        writer.write(b"S")
        try:
            await writer.start_tls(context)
        except OSError:
            writer.close()
            return
        answers, there = await asyncio.open_connection("127.0.0.1", shop.port)
        await asyncio.gather(carry(reader, there), carry(answers, writer))

    listening = await asyncio.start_server(join, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    url = f"postgresql://localhost:{port}/{DATABASE}"
    try:
        yield {**shop.connection, "url": url, "options": {"sslmode": "verify-full"}}, certificate
    finally:
        listening.close()


def _certified(folder: Path) -> Path:
    """Returns the file of a key and a certificate for localhost that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = datetime.now(UTC), timedelta(days=1)
    alone = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - day, now + day
    )
    certificate = made.add_extension(alone, critical=False).sign(key, hashes.SHA256())
    file = folder / "localhost.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    return file
