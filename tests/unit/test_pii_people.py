"""Names of people: whom a text speaks of, and which words are names only elsewhere."""

from __future__ import annotations

import pytest

from streams.guards.pii import find


def people(text: str) -> list[str]:
    return [text[span.start : span.end] for span in find(text, {"PERSON"})]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Mike. What is my name?", ["Mike"]),
        ("My name is Ada Lovelace and I am tired.", ["Ada Lovelace"]),
        ("Dear Mr. Smith, ask Bill about Grace Hopper.", ["Smith", "Bill", "Grace Hopper"]),
        ("John F. Kennedy met J. R. R. Tolkien.", ["John F. Kennedy", "J. R. R. Tolkien"]),
        ("Ludwig van Beethoven's friend", ["Ludwig van Beethoven"]),
        ("Dr. Priya Sharma's note", ["Priya Sharma"]),
        ("Yesterday Aoife met Jean-Luc.", ["Aoife", "Jean-Luc"]),
        ("Write to Nguyen Van Anh and Oksana Melnyk", ["Nguyen Van Anh", "Oksana Melnyk"]),
        ("José called; Jose\u0301 did, too", ["José", "Jose\u0301"]),
        ("Rose, can you send it? Thanks, Mark", ["Rose", "Mark"]),
        ("JOHN SMITH, 12 MAIN STREET", ["JOHN SMITH"]),
        ("Hi Tendai, how are you?", ["Tendai"]),
        ("Ольга пришла", ["Ольга"]),
        ("🙂 Alice & Bob", ["Alice", "Bob"]),
    ],
)
def test_whom_a_text_speaks_of_is_found(text: str, names: list[str]) -> None:
    assert people(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "May I ask? Will it rain in April? Hope this helps.",
        "Mark all as read, then the Grace Period ends.",
        "The Rose Garden Hotel is near Victoria Station.",
        "Bill payment is due. Rich answers are rare.",
        "The Paris office of Amazon is closed.",
        "Wells Fargo, Morgan Stanley, Ben & Jerry's and Johnson & Johnson",
        "Explain Newton's method and train with the Adam optimizer.",
        "Use Ruby on Rails, Jenkins, Travis CI and Apache Kafka.",
        "We flew from San Jose over Lake Victoria to New Orleans.",
        "S3 EKS INTRODUCTORY SELECT",
        "src/Alice/Bob.py and alice.Carol() and #Dave",
        "no capitals, no names: mike",
    ],
)
def test_words_that_are_names_elsewhere_are_let_be(text: str) -> None:
    assert people(text) == []
