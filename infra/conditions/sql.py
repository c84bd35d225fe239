"""Conditions written as in SQL, behind WHERE.

sqlglot tells the words apart, in PostgreSQL's spelling; the grammar is here. That of sqlglot reads
all of SQL, does not tell where things stand, and ends at 50 parentheses in each other.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, ClassVar

from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from infra.conditions.tree import ESCAPE, And, Compare, Condition, Not, Op, Or, Value, joined
from infra.conditions.values import (
    MOST_CHARACTERS,
    MOST_LEAVES,
    MOST_LEVELS,
    ColumnTypes,
    FilterInvalid,
    compare,
    instant,
    kind_of,
    pattern,
    quoted,
    rfc3339,
)

NAME = re.compile(r"[^\W\d]\w*")
VALUE = "here stands a value: a number, TRUE, FALSE, or text in single quotes; never a column"
NUMBER, TEXT = TokenType.NUMBER, TokenType.STRING
COMPARED = {
    "!=": Op.NE,
    "<": Op.LT,
    "<=": Op.LE,
    "<>": Op.NE,
    "=": Op.EQ,
    ">": Op.GT,
    ">=": Op.GE,
}
# The same, read from the right.
TURNED = {Op.GE: Op.LE, Op.GT: Op.LT, Op.LE: Op.GE, Op.LT: Op.GT}
CONSTANTS = {"FALSE": False, "NULL": None, "TRUE": True}
DATED = frozenset({"DATE", "TIMESTAMP", "TIMESTAMPTZ"})
RESERVED = frozenset({"AND", "BETWEEN", "ESCAPE", "IN", "IS", "LIKE", "NOT", "OR", *CONSTANTS})


class Words(Postgres.Tokenizer):
    """PostgreSQL's words, none of them a command that swallows what follows."""

    COMMANDS: ClassVar[set[TokenType]] = set()


def read(text: str, columns: ColumnTypes) -> Condition:
    """Returns what an SQL condition says; see ``infra.conditions.parse``.

    Raises:
        FilterInvalid: It cannot be read.
    """
    if len(text) > MOST_CHARACTERS:
        raise FilterInvalid(f"the filter is longer than {MOST_CHARACTERS:,} characters: shorten it")
    try:
        words = Words().tokenize(text)
    except TokenError as error:
        raise FilterInvalid("a quote or comment is opened and never closed: close it") from error
    if any(word.comments for word in words):
        raise FilterInvalid("a condition has no comments: leave them out")
    reader = Reader(text, words, columns)
    found = reader.either()
    reader.end()
    return found


def write(condition: Condition) -> str:
    """Returns a condition as SQL that ``read`` reads as the same."""
    match condition:
        case And(parts):
            return " AND ".join(_inner(part) for part in parts)
        case Or(parts):
            return " OR ".join(_inner(part) for part in parts)
        case Not(part):
            return f"NOT {_inner(part)}"
    column, op, value = quoted(condition.column), condition.op, condition.value
    if op is Op.NULL:
        return f"{column} IS NULL" if value else f"{column} IS NOT NULL"
    if op is Op.IN and isinstance(value, tuple):
        return f"{column} IN ({', '.join(map(_literal, value))})"
    escape = f" ESCAPE '{ESCAPE}'" if op is Op.LIKE else ""
    return f"{column} {op} {_literal(value)}{escape}"


def _inner(condition: Condition) -> str:
    written = write(condition)
    return f"({written})" if isinstance(condition, And | Or) else written


def _literal(value: Value | tuple[Value, ...]) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        value = rfc3339(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


class Reader:
    """The words of a condition, read from left to right."""

    def __init__(self, text: str, words: list[Token], columns: ColumnTypes) -> None:
        self.text, self.words, self.columns = text, words, columns
        self.at = self.level = self.leaves = 0

    def either(self) -> Condition:
        """Reads conditions between OR."""
        parts = [self.both()]
        while self.taken("OR"):
            parts.append(self.both())
        return joined(Or, parts)

    def both(self) -> Condition:
        """Reads conditions between AND."""
        parts = [self.one()]
        while self.taken("AND"):
            parts.append(self.one())
        return joined(And, parts)

    def one(self) -> Condition:
        """Reads a condition, one in parentheses, or the opposite of one."""
        if not self.seen("NOT", "("):
            return self.predicate()
        self.level += 1
        if self.level > MOST_LEVELS:
            raise self.invalid(f"more than {MOST_LEVELS} levels in each other: write it flatter")
        if self.taken("NOT"):
            found: Condition = Not(self.one())
        else:
            self.take("(", "a condition")
            found = self.either()
            self.take(")", "AND, OR or )")
        self.level -= 1
        return found

    def predicate(self) -> Condition:
        """Reads a column compared with something."""
        start = self.at
        if self.literal_ahead():
            value, op = self.literal(), self.sign()
            return self.compare(self.column(), TURNED.get(op, op), value, start)
        column = self.column()
        if self.taken("IS"):
            negated = self.taken("NOT")
            self.take("NULL", "NULL; for booleans write = TRUE or = FALSE")
            return self.compare(column, Op.NULL, not negated, start)
        if self.taken("NOT"):
            return Not(self.ranged(column, start))
        if self.seen("BETWEEN", "IN", "LIKE"):
            return self.ranged(column, start)
        op = self.sign()
        return self.compare(column, op, self.literal(), start)

    def ranged(self, column: str, start: int) -> Condition:
        """Reads what follows a column where NOT may stand between."""
        if self.taken("BETWEEN"):
            low = self.compare(column, Op.GE, self.literal(), start)
            self.take("AND", "AND and the upper end")
            return And((low, self.compare(column, Op.LE, self.literal(), start)))
        if self.taken("LIKE"):
            return self.like(column, start)
        self.take("IN", "IN, BETWEEN or LIKE")
        self.take("(", "a list of values in parentheses")
        values = [self.literal()]
        while self.taken(","):
            values.append(self.literal())
        self.take(")", "a comma or )")
        return self.compare(column, Op.IN, values, start)

    def like(self, column: str, start: int) -> Condition:
        """Reads a pattern."""
        found = self.compare(column, Op.LIKE, self.literal(), start)
        place = self.place(self.words[start])
        escape = self.literal() if self.taken("ESCAPE") else ESCAPE
        written = pattern(str(found.value), escape, place)
        return Compare(column, Op.LIKE, written)

    def compare(self, column: str, op: Op, raw: Any, start: int) -> Compare:
        """Returns a column compared with raw values, and counts them."""
        self.leaves += len(raw) if isinstance(raw, list) else 1
        if self.leaves > MOST_LEAVES:
            raise FilterInvalid(
                f"the filter compares with more than {MOST_LEAVES:,} values: shorten it"
            )
        return compare(column, op, raw, self.columns, self.place(self.words[start]))

    def column(self) -> str:
        """Reads the name of a column."""
        word = self.word()
        if word is None or not self.names(word):
            raise self.invalid("here stands a column; names of other characters in double quotes")
        self.at += 1
        if self.seen("("):
            raise self.invalid("functions are not known: compare a column with a value", word)
        if self.seen("."):
            raise self.invalid("write the column alone, or in double quotes with its dot", word)
        kind_of(word.text, self.columns, self.place(word))
        return word.text

    def sign(self) -> Op:
        """Reads what compares."""
        word = self.word()
        if word is None or self.spelled(word) not in COMPARED:
            raise self.invalid("here stands =, <>, <, <=, >, >=, IN, BETWEEN, LIKE or IS NULL")
        self.at += 1
        return COMPARED[self.spelled(word)]

    def literal(self) -> Any:
        """Reads a value."""
        word = self.word()
        if word is None or not self.literal_ahead():
            raise self.invalid(VALUE)
        self.at += 1
        spelled = self.spelled(word)
        if word.token_type is TEXT:
            return word.text
        if spelled == "-":
            return -self.literal()
        if spelled in DATED:
            return self.dated()
        return CONSTANTS[spelled] if spelled in CONSTANTS else _number(spelled)

    def literal_ahead(self) -> bool:
        """Tells whether a value comes next."""
        word, follows = self.word(), self.word(1)
        if word is None:
            return False
        if self.spelled(word) == "-":
            return follows is not None and follows.token_type is NUMBER
        if self.spelled(word) in DATED:
            return follows is not None and follows.token_type is TEXT
        return word.token_type in (NUMBER, TEXT) or self.spelled(word) in CONSTANTS

    def dated(self) -> datetime:
        """Reads the text of a date."""
        found = instant(self.words[self.at].text)
        if found is None:
            raise self.invalid("here stands a date like '2026-05-01T12:30:00Z'")
        self.at += 1
        return found

    def end(self) -> None:
        """Makes sure that nothing is left."""
        if self.word():
            raise self.invalid("here stands AND, OR or the end")

    def take(self, spelled: str, wanted: str) -> None:
        """Reads a word that must stand here."""
        if not self.taken(spelled):
            raise self.invalid(f"here stands {wanted}")

    def taken(self, spelled: str) -> bool:
        """Reads a word if it stands here, and tells whether it does."""
        found = self.seen(spelled)
        self.at += found
        return found

    def seen(self, *spelled: str) -> bool:
        """Tells whether one of these words comes next."""
        word = self.word()
        return word is not None and self.spelled(word) in spelled

    def word(self, ahead: int = 0) -> Token | None:
        """Returns the next word, or one behind it; None at the end."""
        place = self.at + ahead
        return self.words[place] if place < len(self.words) else None

    def spelled(self, word: Token) -> str:
        """Returns a word in capitals; nothing if it is quoted, whatever it says."""
        plain = self.text[word.start : word.end + 1] == word.text
        return word.text.upper() if plain else ""

    def names(self, word: Token) -> bool:
        """Tells whether a word may be a column's name."""
        if word.token_type is TokenType.IDENTIFIER:
            return True
        spelled = self.spelled(word)
        return NAME.fullmatch(spelled) is not None and spelled not in RESERVED

    def place(self, word: Token | None) -> str:
        """Returns where a word stands."""
        return f"at character {word.start + 1}" if word else "at the end"

    def invalid(self, reason: str, word: Token | None = None) -> FilterInvalid:
        """Returns the error that something, else the next word, should read otherwise."""
        return FilterInvalid(f"{self.place(word or self.word())}: {reason}")


def _number(spelled: str) -> int | float:
    return int(spelled) if spelled.isdecimal() else float(spelled)
