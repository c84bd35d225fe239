"""The guards of policies: each rule with what it looks for, made once for each policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from schemas.events import Reason, Refusal
from schemas.policies import AnyRule, GuardRule, PolicySpec
from streams.guards.found import Detector, Hit
from streams.guards.kinds import GUARDS
from streams.guards.patience import Patience

log = structlog.get_logger()

# Policies whose guards are kept; about as many as a catalog has.
MOST_KEPT = 1024

Policies = Sequence[tuple[str, PolicySpec]]

# What the caller is told of a text, by its stage.
_TEXTS = {"input": "this request", "output": "the answer", "tools": "the arguments of a tool call"}


@dataclass(frozen=True, slots=True)
class Guard:
    """One rule of one policy.

    Attributes:
        name: policy/rule.
        rule: The rule.
        detector: What it looks for.
    """

    name: str
    rule: GuardRule
    detector: Detector

    def applies(self, stage: str) -> bool:
        """Returns whether it looks at a stage."""
        return stage in self.rule.on and not self.detector.idle

    def look(
        self, text: str, begin: int, stage: str, patience: Patience
    ) -> list[Hit] | Refusal | None:
        """Returns what it finds in a text from a place on.

        Without a judgement that is a refusal, or None where the rule lets such texts pass.
        """
        # A step asks nobody: whoever waits for the answers of others looks with the rest alone.
        if self.detector.remote or patience.lost(self.name):
            return self._unjudged(stage)
        try:
            if self.detector.within:
                return patience.look(self.name, self.detector.within, text, begin)
            return list(self.detector.find(text, begin))
        # Whatever goes wrong in a rule is no judgement, and none must not pass as a good one. The
        # error may quote the text, so only its kind is told.
        except Exception as error:  # noqa: BLE001
            log.error("guard failed", rule=self.name, stage=stage, error=type(error).__name__)
            return self._unjudged(stage)

    def denied(self, kinds: set[str], stage: str, where: str, *, ask: bool) -> Refusal:
        """Returns the refusal of a text; it quotes nothing of it."""
        held = self.detector.says or " and ".join(sorted(kinds))
        what = f"rule {self.name} stops {_TEXTS[stage]}: it holds {held}"
        todo = self.detector.todo
        if ask:
            todo = "an approval is needed, and nothing waits for one here; leave that out"
        elif stage == "output" or (stage == "tools" and not where):
            todo = "ask for something else"
        return Refusal(
            reason=Reason.POLICY_DENIED,
            message=f"{what}; {todo}",
            field=where or None,
            rule=self.name,
        )

    def _unjudged(self, stage: str) -> Refusal | None:
        if self.rule.fail_open or self.rule.shadow:
            return None
        return Refusal(
            reason=Reason.POLICY_FAILED,
            message=f"rule {self.name} could not judge {_TEXTS[stage]}, so it does not pass; "
            "try again later, or tell whoever keeps the policy",
            rule=self.name,
        )


# By the identity of the policy: what the catalog has stays the same object until it changes, and
# two that are equal would take as long to compare as to make.
_made: dict[int, tuple[PolicySpec, str, tuple[Guard, ...]]] = {}


def guards(policies: Policies) -> list[Guard]:
    """Returns the guards of policies, in order."""
    return [guard for name, spec in policies for guard in _of(name, spec)]


def _of(name: str, spec: PolicySpec) -> tuple[Guard, ...]:
    known = _made.get(id(spec))
    # The policy is kept with its guards, so that no other can get its identity meanwhile.
    if known and known[0] is spec and known[1] == name:
        return known[2]
    made = tuple(
        Guard(f"{name}/{rule.name}", rule, _detector(rule))
        for rule in spec.rules
        if isinstance(rule, GuardRule)
    )
    while len(_made) >= MOST_KEPT:
        _made.pop(next(iter(_made)))
    _made[id(spec)] = (spec, name, made)
    return made


def _detector(rule: AnyRule) -> Detector:
    try:
        return GUARDS[rule.type](rule)
    # A rule that cannot be made sense of judges nothing, like one that breaks while it looks.
    except Exception:  # noqa: BLE001
        return Detector(find=_unmade)


def _unmade(text: str, begin: int) -> list[Hit]:
    raise LookupError("this rule could not be made sense of")
