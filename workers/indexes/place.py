"""Where the documents of an index are, of whom queries see which generation."""

from __future__ import annotations

from infra.catalog import CatalogView
from infra.latest import Latest
from infra.vectors import Place
from schemas.events import IndexReported, IndexState, Reason
from schemas.indexes import IndexSpec
from workers.indexes.refusals import refused, unavailable


def defined(index: str, view: CatalogView) -> IndexSpec:
    """Returns an index as the catalog has it.

    Raises:
        ProviderRefused: It has none of this name any more.
    """
    spec = view.indexes.get(index)
    if spec is None:
        message = f"there is no index {index} any more"
        raise refused(Reason.ENDPOINT_UNKNOWN, message, "endpoint")
    return spec


def serving(index: str, spec: IndexSpec, reports: Latest[IndexReported]) -> Place:
    """Returns the place that queries see.

    What callers write to themselves is there as soon as it is defined.

    Raises:
        ProviderRefused: No generation is complete yet.
    """
    if spec.source is None:
        return Place(index, spec.generation)
    told = reports.get(index)
    if told is not None and told.generation:
        return Place(index, told.generation)
    if told is None or told.state is IndexState.UNKNOWN:
        raise unavailable(
            f"{index} is not built yet, and nobody tells of it: is an indexer running?"
        )
    if told.state is IndexState.BUILDING:
        raise unavailable(
            f"{index} is being built, {told.waiting} records of {spec.source} wait: try again later"
        )
    because = f": {told.reason}; {told.remedy or 'see its indexer'}" if told.reason else ""
    raise unavailable(f"{index} is not built yet, it is {told.state}{because}")
