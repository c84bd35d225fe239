"""The arguments of each action: the body of a command. Nothing unknown is taken."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import AwareDatetime, Field

from catalog.declared.documents import Document, documents_of
from schemas.kinds import Privilege
from schemas.shapes import Name, Shape, Text

MOST_DOCUMENTS = 10_000
MOST_LISTED = 1000
LONGEST_OVERLAP_S = 30 * 24 * 60 * 60


class Arguments(Shape):
    """What is the same for all: whether the action changes anything when it is taken."""

    def changes(self) -> bool:
        """Returns whether the catalog may be another afterwards."""
        return True

    def check(self) -> None:
        """Returns if what their shape does not say is right, too; called before anybody waits.

        Raises:
            Invalid: It is not.
        """


class Asking(Arguments):
    """Arguments of an action that changes nothing."""

    def changes(self) -> bool:
        """Returns that the catalog stays as it is."""
        return False


class Naming(Shape):
    """Something by its name, and by its kind where a name alone says too little."""

    name: Text
    kind: str | None = None


class Alias(Naming, Arguments):
    """Names of versions: those to set with their numbers, those to take away."""

    set: dict[Name, int] = Field(default_factory=dict)
    unset: tuple[Name, ...] = ()
    etag: str | None = None


class Apply(Arguments):
    """Documents that the catalog shall be like.

    Attributes:
        dry_run: Only tells what would change.
        base: Position of the catalog that the caller's plan was made at.
        digest: What that plan was.
    """

    documents: tuple[dict[str, Any], ...] = Field(max_length=MOST_DOCUMENTS)
    dry_run: bool = False
    base: int | None = None
    digest: str | None = None

    def changes(self) -> bool:
        """Returns whether this is no dry run."""
        return not self.dry_run

    def check(self) -> None:
        """Returns if the documents are some.

        Raises:
            Invalid: One is none.
        """
        _ = self.parsed

    @cached_property
    def parsed(self) -> list[Document]:
        """The documents; raises Invalid where one is none."""
        return documents_of(self.documents)


class Create(Arguments):
    """Something new; whoever makes it owns it, unless another owner is named."""

    kind: str
    name: Text
    owner: Name | None = None
    comment: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    spec: dict[str, Any] = Field(default_factory=dict)


class Delete(Naming, Arguments):
    """Something to be gone; with an etag only as it was then."""

    etag: str | None = None


class Effective(Asking):
    """A principal and something that it may or may not act on."""

    principal: Name
    securable: Text


class Export(Asking):
    """All of the catalog, or what begins with a name."""

    prefix: str = ""


class Get(Naming, Asking):
    """One thing, or one version of it: ``a.b.c@3``, ``a.b.c@prod``."""


class KeyCreate(Arguments):
    """A public key of 32 bytes in base64; the private one stays where it was made."""

    principal: Name
    public_key: str
    expires_at: AwareDatetime | None = None


class KeyRevoke(Arguments):
    """A key that counts no longer, by its id."""

    key_id: Text


class KeyRotate(Arguments):
    """A key in place of another, which still counts for a while."""

    key_id: Text
    public_key: str
    expires_at: AwareDatetime | None = None
    overlap_s: int = Field(default=3600, ge=0, le=LONGEST_OVERLAP_S)


class List(Asking):
    """What begins with a name, a page at a time.

    Attributes:
        page: Where the page before said that the next one begins.
    """

    prefix: str = ""
    kind: str | None = None
    limit: int = Field(default=100, gt=0, le=MOST_LISTED)
    page: str = ""


class Privileges(Arguments):
    """Privileges of a principal on something in the hierarchy; ``*`` is the root."""

    privileges: tuple[Privilege, ...] = Field(min_length=1)
    securable: Text
    principal: Name


class Search(Asking):
    """Words that all stand in names, kinds, comments or tags."""

    text: Text
    limit: int = Field(default=100, gt=0, le=MOST_LISTED)
    page: str = ""


class Tag(Naming, Arguments):
    """Tags: those to set with their values, those to take away."""

    set: dict[str, str] = Field(default_factory=dict)
    unset: tuple[str, ...] = ()
    etag: str | None = None


class Update(Naming, Arguments):
    """What shall be different; what is not said stays."""

    etag: str | None = None
    owner: Name | None = None
    comment: str | None = None
    properties: dict[str, str] | None = None
    spec: dict[str, Any] | None = None


class AddVersion(Arguments):
    """A new version of a function, model or prompt."""

    name: Text
    spec: dict[str, Any]
    comment: str = ""
