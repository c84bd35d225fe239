"""The operator's command line: what ``tessera`` runs for the catalog, as a client of the bus."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from catalog.declared.documents import Placed, document_of, placed, write
from catalog.declared.problems import Invalid, Place, written
from catalog.lineage.lineage_command import lineage
from catalog.operator import indexes, keyring, printing, sources, things
from catalog.operator.applying import carried_out, show
from catalog.operator.asking import Registered, ask, reach
from catalog.operator.words import AsJson, DryRun, Unclear, Yes, content
from infra.asker import NoReply, RequestRefused
from infra.bus import BusUnreachable, PublishFailed
from infra.registry import RegistryUnreachable
from infra.secrets import SecretUnavailable
from infra.settings import SettingInvalid
from infra.signing import KeyUnusable
from infra.tail import TailBroken
from schemas.events import Reason

# What the command line or the environment says wrong.
OURS = (KeyUnusable, SecretUnavailable, SettingInvalid, Unclear)
# What is not reached.
THEIRS = (BusUnreachable, LookupError, PublishFailed, RegistryUnreachable, TailBroken)
DOCUMENT = re.compile(r"documents\[(\d+)\]([\w.\[\]*@-]*?)(?=: |[;, ]|$)")

GRANTED = "PRIVILEGE[,..] on NAME to PRINCIPAL"
WHAT = "QUERY, USE, MANAGE, ...; '*' is the name of everything."
# The word before the principal.
PREPOSITIONS = {"deny": "to", "grant": "to", "revoke": "from"}

Granted = Annotated[list[str], typer.Argument(metavar=GRANTED, help=WHAT)]
Revoked = Annotated[list[str], typer.Argument(metavar=GRANTED.replace(" to ", " from "), help=WHAT)]
Securable = Annotated[str, typer.Argument(metavar="NAME", help="What it is on; '*' is everything.")]
Principal = Annotated[str, typer.Argument(metavar="PRINCIPAL", help="A user, group, tenant, ...")]


class PlainErrors(typer.Typer):
    """Shows what can be expected to go wrong as one message instead of a traceback."""

    def __call__(self, *words: Any, **options: Any) -> Any:
        """Runs the command line; exits 1 with the message of an expected failure."""
        try:
            return super().__call__(*words, **options)
        except RequestRefused as refused:
            _say(f"{refused} (request {refused.request_id})")
        except NoReply as missing:
            _say(
                f"{missing}: it may have been done or not, look with tessera catalog get; "
                "is the registrar up? try: tessera status"
            )
        except Invalid as invalid:
            _say("\n         ".join(map(str, invalid.problems)))
        except OURS as problem:
            _say(str(problem))
        except THEIRS as problem:
            _say(f"{problem}; is the stack up? try: tessera status")
        except KeyboardInterrupt:
            _say("interrupted")
            raise SystemExit(130) from None
        raise SystemExit(1)


def _say(message: str) -> None:
    typer.secho(f"tessera: {message}", err=True, fg="red")


app = PlainErrors(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="What exists and who may use it.",
    epilog="[bold]Examples[/]\n\n"
    "tessera catalog list                               what there is\n\n"
    "tessera grant QUERY on main.default.smollm2 to alice\n\n"
    "tessera effective alice main.default.smollm2       what she may, and why\n\n"
    "tessera key create --principal alice               a pair of keys for her\n\n"
    "tessera export main > main.yaml; tessera apply -f main.yaml",
)
app.add_typer(things.app, name="catalog")
app.add_typer(indexes.app, name="index")
app.add_typer(keyring.app, name="key")
app.add_typer(sources.app, name="source")
app.command()(lineage)


@app.command()
def grant(words: Granted, *, as_json: AsJson = False) -> None:
    """Let a principal do something, here and on all that lies below.

    Example: tessera grant QUERY,BROWSE on main.default.smollm2 to analysts
    """
    _privileges("grant", words, as_json)


@app.command()
def deny(words: Granted, *, as_json: AsJson = False) -> None:
    """Keep a principal from something, whatever else allows it; owners are not kept.

    Example: tessera deny QUERY on main.default.smollm2 to interns
    """
    _privileges("deny", words, as_json)


@app.command()
def revoke(words: Revoked, *, as_json: AsJson = False) -> None:
    """Take back what was granted or denied.

    Example: tessera revoke QUERY on main.default.smollm2 from analysts
    """
    _privileges("revoke", words, as_json)


def _privileges(action: str, words: Sequence[str], as_json: bool) -> None:
    """Asks for privileges to be set and says what holds then.

    Raises:
        Unclear: The words do not have the form.
    """
    to = PREPOSITIONS[action]
    try:
        privileges, on, name, between, principal = words
    except ValueError:
        on = between = ""
    if (on.lower(), between.lower()) != ("on", to):
        raise Unclear(
            f"{action} {' '.join(words)}: say {action} PRIVILEGE[,..] on NAME {to} PRINCIPAL, "
            f"for example: tessera {action} QUERY on main.default.smollm2 {to} alice"
        )
    listed = [each.strip().upper() for each in privileges.split(",") if each.strip()]
    result = ask(action, privileges=listed, securable=name, principal=principal)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        typer.echo(held(result, name, principal))


def held(result: Mapping[str, Any], name: str, principal: str) -> str:
    """Returns what a principal is granted and denied on something, as a sentence."""
    granted, denied = (", ".join(result.get(each, ())) for each in ("allow", "deny"))
    more = f" and denied {denied}" if denied else ""
    return f"on {name} {principal} is now granted {granted or 'nothing'}{more}"


@app.command()
def effective(
    principal: Principal,
    name: Securable,
    as_json: AsJson = False,
) -> None:
    """Show what a principal may do to something, and why.

    Example: tessera effective alice main.default.smollm2
    """
    result = ask("effective", principal=principal, securable=name)
    printing.show(result, as_json, printing.effective(result))


@app.command()
def export(
    prefix: Annotated[str, typer.Argument(help="A name; everything if left out.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write what the catalog holds as YAML documents; applying them changes nothing.

    Example: tessera export main > main.yaml
    """
    result = ask("export", prefix=prefix)
    documents = [document_of(each) for each in result["documents"]]
    if as_json:
        printing.show(result, as_json, printing.record(result))
    else:
        sys.stdout.write(write(documents))


@app.command()
def apply(
    file: Annotated[list[str], typer.Option("-f", "--file", help="YAML documents; - for input.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the catalog as files say: shows the plan, asks, and does all of it or nothing.

    Example: tessera apply -f team.yaml --dry-run
    """
    documents = [each for name in file for each in placed(content(name), name)]
    said = [each.document.model_dump(mode="json", exclude_unset=True) for each in documents]

    async def applied(catalog: Registered) -> dict[str, Any]:
        return await carried_out(catalog, said, dry_run=dry_run, yes=yes, as_json=as_json)

    try:
        result = reach(applied)
    except RequestRefused as refused:
        if refused.refusal.reason is Reason.CONFLICT:
            raise
        raise Unclear(located(refused, documents)) from None
    show(result, as_json=as_json)


def located(refused: RequestRefused, documents: Sequence[Placed]) -> str:
    """Returns a refusal in which each place in the documents is one in a file."""

    def place(found: re.Match[str]) -> str:
        part = tuple(
            int(each) if each.isdecimal() else each for each in re.findall(r"[^.\[\]]+", found[2])
        )
        document = documents[int(found[1])]
        return f"{document.where(part)}: {written(part)}".removesuffix(": ")

    # One problem a line, as those that are found here.
    told = refused.refusal.message.replace("; documents[", "\n         documents[")
    message = DOCUMENT.sub(place, told)
    if message == told and (field := refused.refusal.field):
        words = field.split(".")
        if words[0] == "documents" and len(words) > 1:
            parts: Place = tuple(int(each) if each.isdecimal() else each for each in words[2:])
            return f"{documents[int(words[1])].where(parts)}: {message}"
    return message
