"""A service decides: POST of ``text``, ``texts``, ``stage`` and ``request_id`` as JSON.

It answers with a JSON object: ``verdict`` is ALLOW, DENY, ASK or MASK. Beside MASK stands what goes
on instead: ``texts``, one for each, or ``text`` where there is one only. All else is left unread.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import httpx2

from infra.addresses import AddressForbidden, forbidden
from infra.secrets import SecretUnavailable, lend
from schemas.kinds import ConnectionSpec
from schemas.policies import HttpRule
from workers.guards import VERDICTS, Case, Office, Unjudged, Verdict


async def ask_service(rule: HttpRule, case: Case, office: Office) -> Verdict:
    """Returns what the service behind the rule's connection says.

    Raises:
        Unjudged: It cannot be asked, or says nothing that can be read.
    """
    return await post(rule.connection, rule.path, case, office)


async def post(connection: str, path: str, case: Case, office: Office) -> Verdict:
    """Returns what a service says.

    Args:
        connection: Its connection.
        path: Where it is asked, below the connection's address.
        case: What it is asked about.
        office: What there is at hand.

    Raises:
        Unjudged: It cannot be asked, or says nothing that can be read.
    """
    spec = office.view.connections.get(connection)
    if spec is None:
        raise Unjudged(f"the catalog has no connection {connection}")
    body = {
        "request_id": case.held.request_id,
        "stage": case.held.stage,
        "text": "\n\n".join(case.texts),
        "texts": case.texts,
    }
    headers = await _key(spec, case)
    try:
        with office.lines.lent(connection, spec) as client:
            # What begins with two slashes, or names a host, would lead elsewhere.
            answer = await client.post("/" + path.lstrip("/"), json=body, headers=headers)
    except AddressForbidden:
        raise Unjudged("its service is at an address that may not be called") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as problem:
        if forbidden(problem):
            raise Unjudged("its service is at an address that may not be called") from None
        raise Unjudged("its service cannot be reached") from None
    if answer.status_code != HTTPStatus.OK:
        raise Unjudged(f"its service answers with status {answer.status_code}")
    return read(answer.content, case.texts)


def read(content: bytes, texts: tuple[str, ...]) -> Verdict:
    """Returns the verdict in an answer.

    Args:
        content: The answer's body.
        texts: What was judged.

    Raises:
        Unjudged: There is none in it.
    """
    said = _object(content)
    verdict = said.get("verdict")
    if verdict not in VERDICTS:
        raise Unjudged("its service answers with no verdict")
    if verdict != "MASK":
        return Verdict(says=verdict)
    others = said.get("texts", [said.get("text")])
    if not isinstance(others, list) or len(others) != len(texts):
        raise Unjudged("its service masks, and does not say each text that goes on instead")
    if not all(_sendable(each) for each in others):
        raise Unjudged("its service masks, and puts no text in place of one")
    return Verdict(says="MASK", texts=tuple(others))


def _object(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except (RecursionError, ValueError):
        said = None
    if not isinstance(said, dict):
        raise Unjudged("its service answers with no JSON object")
    return said


def _sendable(text: object) -> bool:
    """Returns whether a text can go on: it says something, and Avro can hold it."""
    if not isinstance(text, str) or not text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _key(spec: ConnectionSpec, case: Case) -> dict[str, str]:
    """Returns the header that carries the connection's key, read now; none where it has none."""
    if spec.secret is None:
        return {}
    try:
        # A store may take a while.
        secret = await asyncio.to_thread(lend, spec.secret)
    except SecretUnavailable as lack:
        case.tell(spec.secret, str(lack))
        raise Unjudged("the key of its service cannot be read on this platform") from None
    case.tell(spec.secret, None)
    if not secret.isascii() or not secret.isprintable():
        raise Unjudged("the key of its service has characters that no header carries")
    return {"Authorization": f"Bearer {secret}"}
