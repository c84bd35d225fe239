"""Putting an answer together from parts that are repeated, late, lost or begun anew."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Completion, Delta, FinishReason, InferenceReplied, ToolCallDelta, Usage
from streams.client import Part, Reply, Stitch

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
Version = tuple[int, int]


def part(version: Version, seq: int, content: str) -> InferenceReplied:
    attempt, epoch = version
    return InferenceReplied(
        request_id="r",
        attempt=attempt,
        epoch=epoch,
        seq=seq,
        delta=Delta(content=content),
        replied_at=NOON,
    )


def reply(content: str) -> Reply:
    completion = Completion(
        model="m", content=content, finish_reason=FinishReason.STOP, usage=Usage()
    )
    return Reply(request_id="r", completion=completion)


def shown(parts: list[InferenceReplied], whole: str) -> tuple[list[Part], str]:
    """Returns what the caller gets, and the text they are left with."""
    stitch = Stitch()
    got = [each for replied in parts if (each := stitch.add(replied))]
    got.append(stitch.end(reply(whole)))
    text = ""
    for each in got:
        text = each.content if each.restarted else text + each.content
    return got, text


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[InferenceReplied], str]:
    """Several tries at an answer; all of them cut at some point, parts repeated and overtaken."""
    versions = sorted(
        draw(
            st.sets(
                st.tuples(st.integers(0, 2), st.integers(0, 2)),
                min_size=1,
                max_size=4,
            )
        )
    )
    delivered: list[InferenceReplied] = []
    texts: list[str] = []
    for version in versions:
        texts = draw(st.lists(st.sampled_from(["", "a", "b", "ab "]), max_size=6))
        sent = [part(version, seq, text) for seq, text in enumerate(texts)]
        seen = sent[: draw(st.integers(0, len(sent)))]
        # A crash after publishing makes a worker say again what it said.
        again = draw(st.integers(0, len(seen)))
        fresh = [*seen, *seen[again:]]
        stale = draw(st.lists(st.sampled_from(delivered), max_size=3)) if delivered else []
        for late in stale:
            fresh.insert(draw(st.integers(1, len(fresh))) if fresh else 0, late)
        delivered += fresh
    return delivered, "".join(texts)


@settings(max_examples=500, deadline=None)
@given(delivery=deliveries())
def test_what_is_shown_since_the_last_restart_is_the_whole_answer(
    delivery: tuple[list[InferenceReplied], str],
) -> None:
    parts, whole = delivery
    got, text = shown(parts, whole)
    assert text == whole
    assert [each.reply for each in got[:-1]] == [None] * (len(got) - 1)
    assert got[-1].reply == reply(whole)


def test_parts_that_come_in_order_are_shown_once_each() -> None:
    got, text = shown([part((0, 0), 0, "a"), part((0, 0), 1, "b"), part((0, 0), 1, "b")], "abc")
    assert [each.content for each in got] == ["a", "b", "c"]
    assert text == "abc"


def test_a_new_try_begins_anew() -> None:
    got, text = shown([part((0, 0), 0, "old"), part((1, 0), 0, "new")], "new one")
    assert [(each.content, each.restarted) for each in got] == [
        ("old", False),
        ("new", True),
        (" one", False),
    ]
    assert text == "new one"


def test_a_try_of_which_nothing_was_shown_is_no_restart() -> None:
    got, _ = shown([part((1, 0), 0, "first")], "first")
    assert not any(each.restarted for each in got)


def test_behind_a_gap_nothing_is_shown_until_the_end() -> None:
    got, text = shown([part((0, 0), 0, "a"), part((0, 0), 2, "c")], "abc")
    assert [each.content for each in got] == ["a", "bc"]
    assert text == "abc"


def test_pieces_of_tool_calls_are_passed_on() -> None:
    piece = ToolCallDelta(index=0, id="call", name="weather", arguments="{")
    replied = InferenceReplied(request_id="r", delta=Delta(tool_calls=(piece,)), replied_at=NOON)
    added = Stitch().add(replied)
    assert added is not None
    assert added.tool_calls == (piece,)


def test_a_terminal_reply_is_no_part() -> None:
    whole = reply("all")
    replied = InferenceReplied(request_id="r", completion=whole.completion, replied_at=NOON)
    assert Stitch().add(replied) is None


def test_a_part_of_an_earlier_try_is_never_shown_after_a_later_one_began() -> None:
    parts = [
        part((0, 5), 0, "old "),
        part((0, 6), 0, "again "),
        part((0, 5), 1, "stale"),
        part((1, 0), 0, "new "),
        part((0, 6), 1, "stale"),
        part((1, 0), 1, "text"),
    ]
    got, text = shown(parts, "new text")
    assert "stale" not in "".join(each.content for each in got)
    assert sum(each.restarted for each in got) == 2
    assert text == "new text"


@settings(max_examples=300, deadline=None)
@given(delivery=deliveries(), data=st.data())
def test_the_whole_answer_is_shown_even_when_any_parts_are_lost_and_in_any_order(
    delivery: tuple[list[InferenceReplied], str], data: st.DataObject
) -> None:
    parts, whole = delivery
    order = data.draw(st.permutations(parts))
    left = order[: data.draw(st.integers(0, len(order)))]
    assert shown(left, whole)[1] == whole
