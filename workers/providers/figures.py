"""What dialects share that embed and rank: numbers, one for each input, or no answer at all.

Knows no provider's form.
"""

from __future__ import annotations

from collections.abc import Sequence

from infra import tokens
from schemas.events import Completion, FinishReason, InferenceRequested, Usage
from schemas.openai import FormInvalid, listing, mapping, number
from workers.providers import ProviderRefused
from workers.providers.answer import failed

# Vectors travel in floats of 32 bits.
MOST_FLOAT = 3.4e38


def embedded(
    request: InferenceRequested, model: str, vectors: Sequence[object], read: int | None
) -> Completion:
    """Returns the embeddings of a request's inputs.

    Args:
        request: The request.
        model: The model that made them.
        vectors: One list of numbers for each input, in their order.
        read: Tokens read; counted here where the provider did not.

    Raises:
        FormInvalid: A vector is none.
        ProviderRefused: There is not one for each input.
    """
    made = tuple(tuple(_numbers(vector)) for vector in vectors)
    if len(made) != len(request.inputs) or not all(made):
        raise ProviderRefused(failed("the provider did not give one vector for each input"))
    usage = Usage(prompt_tokens=read) if read else _counted(request)
    return Completion(model=model, finish_reason=FinishReason.STOP, usage=usage, vectors=made)


def ranked(
    request: InferenceRequested, model: str, results: Sequence[object], usage: Usage
) -> Completion:
    """Returns how relevant a request's inputs are, in the order of the inputs.

    Args:
        request: The request.
        model: The model that ranked them.
        results: An ``index`` and a ``relevance_score`` for each input, in any order.
        usage: Tokens read, if the provider counts by them.

    Raises:
        FormInvalid: A result is none.
        ProviderRefused: There is not one for each input.
    """
    forms = [mapping(result, "results[]") for result in results]
    scores = {
        int(number(form.get("index"), "index")): number(form.get("relevance_score"), "score")
        for form in forms
    }
    if sorted(scores) != list(range(len(request.inputs))) or len(forms) != len(scores):
        raise ProviderRefused(failed("the provider did not give one score for each input"))
    return Completion(
        model=model,
        finish_reason=FinishReason.STOP,
        usage=usage,
        scores=tuple(float(score) for _, score in sorted(scores.items())),
    )


def _numbers(vector: object) -> list[float]:
    numbers = [float(number(value, "embedding[]")) for value in listing(vector, "embedding")]
    if any(abs(each) > MOST_FLOAT for each in numbers):
        raise FormInvalid("embedding[]: a number of 32 bits belongs here")
    return numbers


def _counted(request: InferenceRequested) -> Usage:
    return Usage(prompt_tokens=sum(map(tokens.count, request.inputs)), estimated=True)
