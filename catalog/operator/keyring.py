"""``tessera key``: pairs of keys that requests are signed with.

A pair is made here; the private key goes into a file for its owner alone and nowhere else.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from catalog.operator import printing
from catalog.operator.asking import Registered, ask, reach
from catalog.operator.words import AsJson, Unclear, instant, seconds
from infra.asker import RequestRefused
from infra.signing import Signer, generate

Expires = Annotated[str | None, typer.Option(help="When it ends: 90d, or 2027-01-31.")]
Out = Annotated[Path | None, typer.Option(help="Where the private key goes; must not exist.")]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Keys that requests are signed with. A private key never leaves this machine.",
    epilog="[bold]Examples[/]\n\n"
    "tessera key create --principal alice --out alice.pem --expires 90d\n\n"
    "CLIENT_KEY=file:alice.pem CLIENT_TENANT=acme tessera ask 'What is Kafka?'\n\n"
    "tessera key rotate --out alice-2.pem --overlap 1h      your own key\n\n"
    "tessera key revoke 0123456789abcdef0123456789abcdef",
)


@app.command()
def create(
    principal: Annotated[str, typer.Option(help="Whose it is: a user or service principal.")],
    out: Out = None,
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a pair of keys, keep the private one in a file and tell the catalog the public one.

    Example: tessera key create --principal alice --out alice.pem --expires 90d
    """
    with _new_pair(out or Path(f"{principal}.pem")) as signer:
        result = ask(
            "key-create",
            principal=principal,
            public_key=_told(signer),
            expires_at=expires and instant(expires).isoformat(),
        )
    told = {**result, "private_key": str(out or f"{principal}.pem")}
    printing.show(told, as_json, printing.record(told))


@app.command()
def rotate(
    out: Out = None,
    key_id: Annotated[str | None, typer.Option(help="The old key; yours if left out.")] = None,
    overlap: Annotated[str, typer.Option(help="How long the old one still counts.")] = "1h",
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Put a new key in the place of another, which counts on for the overlap.

    Example: tessera key rotate --out alice-2.pem --overlap 1h --expires 90d
    """

    async def rotated(catalog: Registered) -> dict[str, object]:
        old = key_id or (catalog.signer.key_id if catalog.signer else None)
        if old is None:
            raise Unclear("say which key with --key-id, or set CLIENT_KEY to your own")
        path = out or Path(f"{old[:8]}-next.pem")
        with _new_pair(path) as signer:
            result = await catalog.ask(
                "key-rotate",
                key_id=old,
                public_key=_told(signer),
                overlap_s=seconds(overlap),
                expires_at=expires and instant(expires).isoformat(),
            )
        return {**result, "private_key": str(path)}

    told = reach(rotated)
    printing.show(told, as_json, printing.record(told))
    typer.echo(
        f"The old key counts until {told['until']}. Before that, whoever signs must set "
        f"CLIENT_KEY=file:{told['private_key']}, or put this file in the place of the old one.",
        err=True,
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id.")], as_json: AsJson = False
) -> None:
    """Let a key count no longer; what it signed before can still be verified."""
    result = ask("key-revoke", key_id=key_id)
    printing.show(result, as_json, printing.record(result))


@contextmanager
def _new_pair(path: Path) -> Iterator[Signer]:
    """Yields a new key that lies in a file; takes the file away where the catalog refuses it."""
    pem = generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Unclear(f"{path} is there already and is not overwritten; choose --out") from None
    except OSError as problem:
        raise Unclear(f"{path} cannot be made: {problem.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(pem)
    try:
        yield Signer(pem)
    # Without an answer the catalog may know the key: then the file stays.
    except (RequestRefused, Unclear):
        path.unlink()
        raise


def _told(signer: Signer) -> str:
    return base64.b64encode(signer.public_key).decode()
