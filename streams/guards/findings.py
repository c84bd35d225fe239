"""What guards found, counted; never what it was."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from schemas.events import Judgement, Refusal
from streams.guards.found import Hit
from streams.guards.patience import Patience
from streams.guards.rules import Guard

# What is counted where a rule that may pass what it cannot judge could not judge.
FAILED = "FAILED"
TOO_LONG = "TOO_LONG"


class Findings:
    """What was found so far, and whether that refuses what it was found in.

    Attributes:
        patience: The time that is left to find more.
    """

    def __init__(self) -> None:
        self.patience = Patience()
        self._found: dict[tuple[str, str, bool], Counter[str]] = defaultdict(Counter)
        self._verdicts: dict[tuple[str, str, bool], str] = {}
        self._characters: Counter[tuple[str, str]] = Counter()

    def looked(
        self, guard: Guard, stage: str, hits: Iterable[Hit] | None, where: str = ""
    ) -> Refusal | None:
        """Counts what a guard found for good, or None where it could not judge.

        Returns:
            The refusal that follows of it.
        """
        if hits is None:
            # Once is enough, however often the text was looked at.
            if not self._found[guard.name, stage, guard.rule.shadow][FAILED]:
                self._note(guard, stage, "ALLOW", (FAILED,))
            return None
        stops = [hit for hit in hits if hit.deal in ("ask", "deny")]
        ask = bool(stops) and all(hit.deal == "ask" for hit in stops)
        if found := [hit.kind for hit in hits]:
            self._note(guard, stage, "ASK" if ask else "DENY" if stops else "MASK", found)
        if not stops or guard.rule.shadow:
            return None
        return guard.denied({hit.kind for hit in stops}, stage, where, ask=ask)

    def grown(self, guard: Guard, stage: str, characters: int, where: str = "") -> Refusal | None:
        """Counts characters of a stage; returns a refusal once they are more than a guard allows.

        Characters that no guard of this kind looks at need not be told.
        """
        most = guard.detector.most
        if most is None:
            return None
        before = self._characters[guard.name, stage]
        self._characters[guard.name, stage] = before + characters
        if not before <= most < before + characters:
            return None
        self._note(guard, stage, "DENY", (TOO_LONG,))
        return None if guard.rule.shadow else guard.denied({TOO_LONG}, stage, where, ask=False)

    def asks(self, guard: Guard) -> bool:
        """Returns whether what a guard found wants a person's approval, and nothing worse."""
        said = [verdict for (rule, *_), verdict in self._verdicts.items() if rule == guard.name]
        return "ASK" in said and "DENY" not in said

    def judgements(self) -> tuple[Judgement, ...]:
        """Returns one judgement for each rule and stage where anything was found."""
        return tuple(
            Judgement(
                rule=rule,
                stage=stage,
                verdict=self._verdicts[rule, stage, shadow],
                found=dict(found),
                shadow=shadow,
            )
            for (rule, stage, shadow), found in self._found.items()
        )

    def _note(self, guard: Guard, stage: str, verdict: str, found: Iterable[str]) -> None:
        key = (guard.name, stage, guard.rule.shadow)
        self._found[key].update(found)
        order = ("ALLOW", "MASK", "ASK", "DENY")
        self._verdicts[key] = max(self._verdicts.get(key, "ALLOW"), verdict, key=order.index)
