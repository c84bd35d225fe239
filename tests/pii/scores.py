"""How well personal data is found: recall and precision, by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.pii.sentences import Labelled

Found = Iterable[tuple[int, int, str]]


@dataclass(slots=True)
class Scores:
    """Counts by kind.

    Attributes:
        labels: What there is.
        covered: What of it is found with nothing of it left to be read.
        exact: What of it is found with nothing beside it.
        finds: What is found.
        right: What of that is, in part at least, what it is said to be.
        missed: Sentences that have what is not found.
        wrong: Sentences in which is found what is not there.
    """

    labels: Counter[str] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    exact: Counter[str] = field(default_factory=Counter)
    finds: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)

    def recall(self, *kinds: str) -> float:
        return _share(self.covered, self.labels, kinds)

    def precision(self, *kinds: str) -> float:
        return _share(self.right, self.finds, kinds)


def _share(part: Counter[str], whole: Counter[str], kinds: tuple[str, ...]) -> float:
    chosen = kinds or tuple(whole)
    total = sum(whole[kind] for kind in chosen)
    return sum(part[kind] for kind in chosen) / total if total else 1.0


def scored(sentences: Iterable[Labelled], find: Callable[[str], Found]) -> Scores:
    """Returns how ``find`` does on sentences."""
    scores = Scores()
    for sentence in sentences:
        found = list(find(sentence.text))
        for start, end, kind in sentence.labels:
            scores.labels[kind] += 1
            own = [(first, last) for first, last, said in found if said == kind]
            scores.exact[kind] += (start, end) in own
            if any(first <= start and end <= last for first, last in own):
                scores.covered[kind] += 1
            else:
                scores.missed.append((kind, sentence.text))
        for first, last, said in found:
            scores.finds[said] += 1
            if any(
                said == kind and first < end and start < last
                for start, end, kind in sentence.labels
            ):
                scores.right[said] += 1
            else:
                scores.wrong.append((said, sentence.text[first:last], sentence.text))
    return scores
