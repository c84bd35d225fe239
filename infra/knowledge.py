"""The demo's knowledge base: a table of PostgreSQL that is searched by meaning, as it is now.

Knows the table, what is made of it in the catalog, and what an update must change. Its role may
replicate and owns one database; the role's password is none of the platform's own, so that it can
be lent to the connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString, TypeVar
from uuid import uuid4

import psycopg
import typer
import yaml
from psycopg import sql

from infra.asker import Asker, NoReply, RepliesLost, RequestRefused
from infra.bus import BusUnreachable, PublishFailed
from infra.registry import Registry, RegistryUnreachable
from infra.secrets import SecretUnavailable, resolve
from infra.settings import ClientSettings, KafkaSettings, RegistrySettings
from infra.signing import KeyUnusable, Signer
from infra.stack import postgres
from infra.stack.local import LocalStack, StackFailed
from infra.stack.secret import kept_word
from infra.stack.service import LOOPBACK, data_folder
from infra.stack.settings import StackSettings
from infra.telemetry import now
from schemas.events import Completion, InferenceRequested, Reason, Sampling, Task
from schemas.search import Found, Hit, Search
from schemas.topics import INFERENCE_REQUESTED, REPLY

T = TypeVar("T")

# Runs a command of the command line; returns its exit code.
Types = Callable[[str, list[str]], int]

ENDPOINT = "main.default.minilm"
CONNECTION = "main.default.knowledge"
TABLE = "main.default.articles"
INDEX = "main.default.kb"
# The role and its database.
OWNER = "knowledge"
QUESTION = "a meal with fish in it"
SHOWN = 3

Article = tuple[int, str, str, str]
ARTICLES: tuple[Article, ...] = (
    (1, "Tides", "The moon pulls at the sea, and the water rises twice a day.", "nature"),
    (2, "Volcanoes", "Molten rock breaks through the crust and builds a mountain.", "nature"),
    (3, "Bicycle chains", "Oil the chain when it squeaks, and wipe off the rest.", "repair"),
    (4, "Dripping taps", "A worn washer lets water through; a new one costs cents.", "repair"),
    (5, "Sourdough", "Flour and water, left for a week, become a starter for bread.", "food"),
    (6, "Note of the day", "Choir practice begins an hour later on Thursday.", "news"),
    (7, "Chess openings", "Bring knights and bishops out before the queen.", "games"),
    (8, "Marathon training", "Run slowly and often; rest on the day before.", "sport"),
    (9, "Violins", "The bow's hair is rubbed with rosin so that it grips the string.", "music"),
    (10, "Income tax", "Returns for the last year are due at the end of July.", "money"),
    (11, "Sleep", "Dark, cool rooms and a steady hour help most people fall asleep.", "health"),
    (12, "Black holes", "Light that comes too close to one does not come back.", "space"),
)
CHANGED = 6
BECOMES = "For lunch there is grilled mackerel with lemon."

MAKE: LiteralString = """
CREATE TABLE IF NOT EXISTS public.articles (
    id bigint PRIMARY KEY, title text NOT NULL, body text NOT NULL, topic text NOT NULL
)
"""
# What stands there as it shall be is not written again: each write is a record and a vector.
PUT: LiteralString = """
INSERT INTO public.articles AS a VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE
SET title = excluded.title, body = excluded.body, topic = excluded.topic
WHERE (a.title, a.body, a.topic) IS DISTINCT FROM (excluded.title, excluded.body, excluded.topic)
"""
REST: LiteralString = "DELETE FROM public.articles WHERE id <> ALL(%s)"
UPDATE: LiteralString = "UPDATE public.articles SET body = %s WHERE id = %s"

CONNECT_S = 10
# Until a search finds what the table holds.
PATIENCE_S = 60.0
POLL_S = 0.05
DEADLINE = timedelta(seconds=30)
# Why nothing can be asked at all.
UNASKED = (
    BusUnreachable,
    KeyUnusable,
    LookupError,
    PublishFailed,
    RegistryUnreachable,
    RepliesLost,
    SecretUnavailable,
)


def show(stack: LocalStack, types: Types) -> bool:
    """Makes the table and its index, changes a row, and shows what is found before and after.

    Returns whether that could be; not in a catalog that lacks the endpoint which embeds.

    Raises:
        StackFailed: A command failed, or what the table holds was not found in time.
    """
    typer.secho(f"\na table that is searched by meaning: {TABLE}", bold=True)
    if not _run(_embeds(stack)):
        typer.echo(
            f"    nothing: this catalog is older than {ENDPOINT} (tessera reset begins anew)"
        )
        return False
    with closing(_table(stack.settings)) as session:
        typer.echo(f"    {len(ARTICLES)} articles in public.articles of database {OWNER}")
        for name, words in commands(_document(stack.settings)):
            typed(types, name, words)
        _run(_until(stack, is_as_made))
        _searched(types)
        statement = f"UPDATE public.articles SET body = '{BECOMES}' WHERE id = {CHANGED}"
        typer.secho(f"\n{statement}", bold=True)
        took = _run(_until(stack, is_changed, lambda: _update(session)))
    typer.echo(f"found {took:.2f} s after it was committed")
    _searched(types)
    return True


def connection(settings: StackSettings) -> dict[str, Any]:
    """Returns the catalog's document of the connection; the password is a reference in it."""
    return {
        "kind": "connection",
        "name": CONNECTION,
        "comment": "The demo's own database in the stack's PostgreSQL.",
        "spec": {
            "type": "postgresql",
            "url": f"postgresql://{LOOPBACK}:{settings.postgres_port}/{OWNER}",
            "user": OWNER,
            "secret": f"file:{password_path(settings)}",
            "private": True,
        },
    }


def commands(document: Path) -> tuple[tuple[str, list[str]], ...]:
    """Returns what is typed to have the table searched; said again, all of it changes nothing.

    Args:
        document: File of the connection.
    """
    source = ["create", TABLE, "--connection", CONNECTION, "--table", "public.articles"]
    index = ["create", INDEX, "--source", TABLE, "--text", "{title}: {body}", "--column", "topic"]
    return (
        ("apply", ["--yes", "--file", str(document)]),
        ("source", source),
        ("index", [*index, "--endpoint", ENDPOINT]),
    )


def password_path(settings: StackSettings) -> Path:
    """Returns where the role's password is, for the owner of the stack alone."""
    return data_folder("demo", settings) / f"{OWNER}.secret"


def is_as_made(hits: Sequence[Hit]) -> bool:
    """Returns whether a search of all rows finds each article as it was at first, and no other."""
    made = {(number, f"{title}: {body}", topic) for number, title, body, topic in ARTICLES}
    return len(hits) == len(made) == len(made & set(map(_row, hits)))


def is_changed(hits: Sequence[Hit]) -> bool:
    """Returns whether the changed article is found before all others, as it is now."""
    titles = {number: title for number, title, _, _ in ARTICLES}
    return bool(hits) and _row(hits[0])[:2] == (CHANGED, f"{titles[CHANGED]}: {BECOMES}")


def _row(hit: Hit) -> tuple[Any, str, Any]:
    return hit.key.get("id"), hit.text, hit.columns.get("topic")


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except UNASKED as problem:
        raise StackFailed(f"the demo could not ask: {problem}") from None
    except psycopg.Error as problem:
        raise StackFailed(f"the update failed: {type(problem).__name__}") from None


async def _embeds(stack: LocalStack) -> bool:
    async with asking(stack) as (asker, client):
        return await _Searcher(asker, client).embeds()


async def _until(
    stack: LocalStack,
    holds: Callable[[Sequence[Hit]], bool],
    first: Callable[[], None] = lambda: None,
) -> float:
    # Connected before, so that only the way of the change is timed.
    async with asking(stack) as (asker, client):
        first()
        return await _Searcher(asker, client).until(holds)


def typed(types: Types, name: str, words: list[str]) -> None:
    """Shows a command, and runs it.

    Raises:
        StackFailed: It failed.
    """
    typer.secho(f"\ntessera {name} {' '.join(map(_quoted, words))}", bold=True)
    if code := types(name, words):
        raise StackFailed(f"tessera {name} failed (exit code {code}); see the logs")


def _searched(types: Types) -> None:
    typed(types, "search", [INDEX, QUESTION, "--k", str(SHOWN)])


def _update(session: psycopg.Connection[Any]) -> None:
    session.execute(UPDATE, (BECOMES, CHANGED))


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def _document(settings: StackSettings) -> Path:
    path = data_folder("demo", settings) / f"{OWNER}.yaml"
    path.write_text(yaml.safe_dump(connection(settings), sort_keys=False))
    return path


def _table(settings: StackSettings) -> psycopg.Connection[Any]:
    """Returns a session of the owner with the table as it is at first; all is made if missing."""
    password = kept_word(password_path(settings))
    reached = postgres.reached(settings)
    superuser = resolve(reached["POSTGRES_PASSWORD"])
    try:
        with closing(_session(settings, postgres.USER, postgres.DATABASE, superuser)) as session:
            _make_owner(session, password)
        session = owner_session(settings)
        with session.transaction():
            session.execute(MAKE)
            session.execute(REST, ([article[0] for article in ARTICLES],))
            session.cursor().executemany(PUT, ARTICLES)
    except psycopg.Error as problem:
        kind = type(problem).__name__
        raise StackFailed(
            f"the table could not be made: {kind}; see tessera logs postgres"
        ) from None
    return session


def owner_session(settings: StackSettings) -> psycopg.Connection[Any]:
    """Returns a session of the role that owns the database; both are made."""
    return _session(settings, OWNER, OWNER, kept_word(password_path(settings)))


def _session(
    settings: StackSettings, user: str, database: str, password: str
) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=LOOPBACK,
        port=settings.postgres_port,
        user=user,
        password=password,
        dbname=database,
        autocommit=True,
        connect_timeout=CONNECT_S,
    )


def _make_owner(session: psycopg.Connection[Any], password: str) -> None:
    # Only what proves the password reaches the server, and so its log.
    verifier = session.pgconn.encrypt_password(password.encode(), OWNER.encode(), b"scram-sha-256")
    role = sql.Identifier(OWNER)
    known = session.execute("SELECT FROM pg_roles WHERE rolname = %s", (OWNER,)).rowcount
    session.execute(
        sql.SQL("{} ROLE {} LOGIN REPLICATION PASSWORD {}").format(
            sql.SQL("ALTER" if known else "CREATE"), role, sql.Literal(verifier.decode())
        )
    )
    if not session.execute("SELECT FROM pg_database WHERE datname = %s", (OWNER,)).rowcount:
        session.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))


class _Searcher:
    """Asks as the client of the stack, in this process, so that what takes time is the search."""

    def __init__(self, asker: Asker, client: ClientSettings) -> None:
        self._asker = asker
        self._client = client

    async def embeds(self) -> bool:
        """Returns whether the embedding endpoint exists."""
        try:
            await self._ask(ENDPOINT, Task.EMBEDDING, inputs=(QUESTION,))
        except RequestRefused as refused:
            if refused.refusal.reason is Reason.ENDPOINT_UNKNOWN:
                return False
            raise StackFailed(f"{ENDPOINT} does not embed: {refused}") from None
        except NoReply as problem:
            raise StackFailed(f"{ENDPOINT} does not embed: {problem}") from None
        return True

    async def until(self, holds: Callable[[Sequence[Hit]], bool]) -> float:
        """Searches until something holds of what is found; returns how many seconds that took.

        Raises:
            StackFailed: It did not come to hold.
        """
        began = time.monotonic()
        last = ""
        while (took := time.monotonic() - began) < PATIENCE_S:
            try:
                if holds(await self._search()):
                    return time.monotonic() - began
            except (NoReply, RequestRefused) as problem:
                last = f": {problem}"
            await asyncio.sleep(POLL_S)
        raise StackFailed(
            f"{INDEX} does not have what its table has after {took:.0f} s{last}; "
            f"look: tessera index describe {INDEX}; tessera source show {TABLE}"
        )

    async def _search(self) -> tuple[Hit, ...]:
        how = Search(k=len(ARTICLES) + 1).model_dump_json(exclude_defaults=True)
        completion = await self._ask(INDEX, Task.SEARCH, query=QUESTION, search=how)
        return Found.model_validate_json(completion.found or "{}").hits

    async def _ask(self, endpoint: str, task: Task, **what: Any) -> Completion:
        instant = now()
        request = InferenceRequested(
            request_id=str(uuid4()),
            tenant=self._client.tenant,
            principal=self._client.principal,
            endpoint=endpoint,
            messages=(),
            sampling=Sampling(),
            reply_to=REPLY.member(self._client.tenant).name,
            requested_at=instant,
            deadline=instant + DEADLINE,
            task=task,
            **what,
        )
        replies = self._asker.replies(
            INFERENCE_REQUESTED, request, request.request_id, request.deadline
        )
        [completion] = [reply.completion async for reply in replies if reply.completion]
        return completion


@asynccontextmanager
async def asking(stack: LocalStack) -> AsyncIterator[tuple[Asker, ClientSettings]]:
    """Yields who asks as the client of the stack, and who that is."""
    at = stack.environment()
    client = ClientSettings(
        tenant=at.get("CLIENT_TENANT", "demo"),
        principal=at.get("CLIENT_PRINCIPAL", ""),
        key=at.get("CLIENT_KEY", ""),
    )
    asker = Asker(
        KafkaSettings(bootstrap_servers=at["KAFKA_BOOTSTRAP_SERVERS"]),
        Registry(RegistrySettings(url=at["REGISTRY_URL"])),
        client.tenant,
        REPLY.member(client.tenant).name,
        Signer(resolve(client.key)) if client.key else None,
    )
    async with asker:
        yield asker, client
