"""A thread as OpenLineage events, for tools that read them (https://openlineage.io, 2-0-2). Pure.

What happens is a run: a response, a training run, a tool call. What lies there is a data set, with
its version. Where one came from others without a run, it gets a run of its own (a derivation), so
that no edge is lost. Each run is told as START and COMPLETE. Who asked, what decided and which
route was taken become tags. What is hidden is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID, uuid5

from openlineage.client.event_v2 import (
    InputDataset,
    Job,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
)
from openlineage.client.facet_v2 import DatasetFacet, JobFacet, RunFacet, parent_run
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.job_type_job import JobTypeJobFacet
from openlineage.client.generated.tags_run import TagsRunFacet, TagsRunFacetFields
from openlineage.client.serde import Serde

from catalog.lineage.lineage import Snapshot
from catalog.lineage.thread import Thread, ThreadEdge, plain

NAMESPACE = "tessera"
PRODUCER = "urn:tessera:catalog"
INTEGRATION = "TESSERA"
# Makes the ids of runs whose own are no UUIDs; any constant does.
RUN_IDS = UUID("6f1c2c9e-5f0e-4c7b-9a64-1f2b7c1d9e10")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# What happens, with the word for it; everything else lies there.
RUNS: dict[str, str] = {
    "response": "INFERENCE",
    "tool_call": "TOOL_CALL",
    "training_run": "TRAINING",
}
DERIVATION = "DERIVATION"
STREAMING = frozenset({"response", "tool_call"})
# What a response says of itself, rather than what it was made of.
TAGS = frozenset({"asked_by", "decided_by", "routed_by"})
# What a run is a run of.
JOBS: dict[str, str] = {
    "answered_by": "endpoint",
    "called": "function_version",
    "ran": "function_version",
}


class Named(NamedTuple):
    """A data set: its name and, where the thing's name says it, its version."""

    name: str
    version: str | None = None


def as_openlineage(thread: Thread) -> Iterator[str]:
    """Yields events, each a line of JSON."""
    export = _Export(thread)
    for place in range(len(thread.nodes)):
        for event in export.events(place):
            yield Serde.to_json(event)


class _Export:
    """A thread's visible things with the edges at both their ends."""

    def __init__(self, thread: Thread) -> None:
        self._nodes = thread.nodes
        self._made_of: dict[int, list[ThreadEdge]] = {}
        self._made_into: dict[int, list[ThreadEdge]] = {}
        for edge in thread.edges:
            if thread.nodes[edge.upstream].name and thread.nodes[edge.downstream].name:
                self._made_of.setdefault(edge.downstream, []).append(edge)
                self._made_into.setdefault(edge.upstream, []).append(edge)

    def events(self, place: int) -> Iterator[RunEvent]:
        """Yields the events of the run that a thing is, or that it came from."""
        edges = [*self._made_of.get(place, ()), *self._made_into.get(place, ())]
        inputs = [each.upstream for each in self._made_of.get(place, ()) if self._is_input(each)]
        if not edges or not (self._is_run(place) or inputs):
            return
        began, ended = min(each.first_at for each in edges), max(each.last_at for each in edges)
        run = Run(self._run_id(place), self._run_facets(place))
        job = Job(NAMESPACE, self._job_name(place), self._job_facets(place))
        for state, at in ((RunState.START, began), (RunState.COMPLETE, ended)):
            yield RunEvent(
                eventTime=at.isoformat(),
                producer=PRODUCER,
                eventType=state,
                run=run,
                job=job,
                inputs=[self._input(each) for each in inputs],
                outputs=[self._output(each) for each in self._outputs(place)],
            )

    def _is_run(self, place: int) -> bool:
        return self._nodes[place].kind in RUNS

    def _is_job(self, edge: ThreadEdge) -> bool:
        kind = self._nodes[edge.upstream].kind
        return self._is_run(edge.downstream) and JOBS.get(edge.relation) == kind

    def _is_input(self, edge: ThreadEdge) -> bool:
        """Returns whether an edge leads to an input: no tag, no job, and no run."""
        aside = edge.relation in TAGS or self._is_job(edge)
        return not aside and not self._is_run(edge.upstream)

    def _outputs(self, place: int) -> Iterator[int]:
        """Yields what a run made: an answer and a derived thing are what their runs made."""
        if not self._is_run(place) or self._nodes[place].kind == "response":
            yield place
        else:
            made = self._made_into.get(place, ())
            yield from (each.downstream for each in made if not self._is_run(each.downstream))

    def _run_id(self, place: int) -> str:
        node = self._nodes[place]
        if node.kind == "response" and _UUID.fullmatch(node.name or ""):
            return str(node.name)
        return str(uuid5(RUN_IDS, f"{node.kind} {node.name}"))

    def _job_name(self, place: int) -> str:
        jobs = [each.upstream for each in self._made_of.get(place, ()) if self._is_job(each)]
        if jobs:
            return self._name(jobs[0])
        kind = self._nodes[place].kind
        return kind if self._is_run(place) else f"{DERIVATION.lower()}.{kind}"

    def _job_facets(self, place: int) -> dict[str, JobFacet]:
        kind = self._nodes[place].kind
        way = "STREAMING" if kind in STREAMING else "BATCH"
        word = RUNS.get(kind, DERIVATION)
        return {"jobType": JobTypeJobFacet(way, INTEGRATION, word, producer=PRODUCER)}

    def _run_facets(self, place: int) -> dict[str, RunFacet]:
        facets: dict[str, RunFacet] = {}
        tags = [
            TagsRunFacetFields(each.relation, self._name(each.upstream), INTEGRATION)
            for each in self._made_of.get(place, ())
            if each.relation in TAGS
        ]
        if tags:
            facets["tags"] = TagsRunFacet(tags, producer=PRODUCER)
        above = [each.downstream for each in self._made_into.get(place, ())]
        parents = [each for each in above if self._is_run(each)]
        if self._is_run(place) and parents:
            run = parent_run.Run(self._run_id(parents[0]))
            job = parent_run.Job(NAMESPACE, self._job_name(parents[0]))
            facets["parent"] = parent_run.ParentRunFacet(run, job, producer=PRODUCER)
        return facets

    def _input(self, place: int) -> InputDataset:
        kind, named = self._nodes[place].kind, self._named(place)
        return InputDataset(f"{NAMESPACE}.{kind}", named.name, facets=_version(named))

    def _output(self, place: int) -> OutputDataset:
        kind, named = self._nodes[place].kind, self._named(place)
        return OutputDataset(f"{NAMESPACE}.{kind}", named.name, facets=_version(named))

    def _named(self, place: int) -> Named:
        return _named(self._nodes[place].kind, self._name(place))

    def _name(self, place: int) -> str:
        return plain(self._nodes[place].name or "")


def _version(named: Named) -> dict[str, DatasetFacet]:
    if named.version is None:
        return {}
    return {"version": DatasetVersionDatasetFacet(named.version, producer=PRODUCER)}


def _named(kind: str, name: str) -> Named:
    if kind == "snapshot":
        try:
            return Named(Snapshot.parse(name).place, name.partition("@")[2])
        except ValueError:
            return Named(name)
    if kind == "file":
        return Named(name)
    thing, _, version = name.rpartition("@")
    return Named(thing, version) if thing and version else Named(name)
