"""Pinned Maven files: ``environments/jvm.txt`` names each with its SHA-256, and this fetches them.

Knows the lock file and how to download from it without a Java or Maven on the machine. Does not
know what the files are for; ``artifacts.py`` does. ``python -m infra.maven`` writes the lock anew
from ``WANTED``; nothing else resolves versions, so two machines hold the same bytes.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jgo.maven import MavenContext

LOCK = Path(__file__).parent / "environments" / "jvm.txt"
TIMEOUT_S = 60
PARALLEL = 8

KAFKA = "4.3.1"
REGISTRY = "3.3.3"
DEBEZIUM = "3.6.3"

# Folder: what it holds with all that it depends on, and what it holds alone.
WANTED: dict[str, tuple[list[str], list[str]]] = {
    "debezium": ([], [f"io.debezium:debezium-connector-postgres:{DEBEZIUM}.Final:plugin:tar.gz"]),
    "kafka": (
        [
            f"org.apache.kafka:kafka_2.13:{KAFKA}",
            f"org.apache.kafka:kafka-tools:{KAFKA}",
            f"org.apache.kafka:connect-runtime:{KAFKA}",
        ],
        # Kafka speaks SLF4J 1.7 and leaves the binding to its distribution.
        ["org.apache.logging.log4j:log4j-slf4j-impl:2.25.4::jar"],
    ),
    "registry": ([], [f"io.apicurio:apicurio-registry-app:{REGISTRY}:all:tar.gz"]),
}


class Corrupt(Exception):
    """A downloaded file does not have the digest that the lock names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """One file: its Maven coordinate (``group:artifact:version:classifier:packaging``)."""

    folder: str
    coordinate: str
    sha256: str

    def fetch(self, repository: Path) -> Path:
        """Download into ``repository`` unless it lies there already; blocks.

        Raises:
            Corrupt: the bytes are not those that were pinned.
            RuntimeError: the repository does not have the file.
            requests.RequestException: the network failed.
        """
        found = ""
        # What lies there may be the half of an interrupted download: that is fetched once more.
        for _ in range(2):
            path = _download(self.coordinate, repository)
            found = _digest(path)
            if found == self.sha256:
                return path
            path.unlink()
        raise Corrupt(f"{self.coordinate} has sha256 {found}, pinned is {self.sha256}")


def pinned(folder: str) -> list[Pinned]:
    """The files of one folder, as the lock names them."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    files = [Pinned(folder=name, coordinate=where, sha256=sha) for name, where, sha in lines]
    return [file for file in files if file.folder == folder]


def fetch(folder: str, repository: Path, arrived: Callable[[str], None]) -> list[Path]:
    """Download every file of ``folder``; calls ``arrived`` with each file's name."""

    def one(file: Pinned) -> Path:
        path = file.fetch(repository)
        arrived(path.name)
        return path

    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(one, pinned(folder)))


def _context(repository: Path) -> MavenContext:
    # A quarter of a second that only a first start has to pay.
    import truststore  # noqa: PLC0415

    # What the machine trusts, as uv is told, too: before jgo makes its own choice.
    truststore.inject_into_ssl()
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415

    return MavenContext(repo_cache=repository, resolver=PythonResolver(), timeout=TIMEOUT_S)


def _download(coordinate: str, repository: Path) -> Path:
    group, name, version, classifier, packaging = coordinate.split(":")
    return Path(
        _context(repository)
        .project(group, name)
        .at_version(version)
        .artifact(classifier, packaging)
        .resolve()
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _resolve(roots: list[str], repository: Path) -> list[str]:
    if not roots:
        return []
    context = _context(repository)
    inputs, rest = context.resolver.resolve([context.create_dependency(root) for root in roots])
    return [
        f"{d.groupId}:{d.artifactId}:{d.version}:{d.classifier}:{d.type}"
        for d in [*inputs, *rest]
        if not d.optional
    ]


def main() -> None:
    """Resolve ``WANTED`` and write the lock."""
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch)
        lines = []
        for folder, (roots, alone) in WANTED.items():
            resolved = sorted([*_resolve(roots, repository), *alone])
            with ThreadPoolExecutor(PARALLEL) as pool:
                paths = pool.map(lambda c: _download(c, repository), resolved)
            for coordinate, path in zip(resolved, paths, strict=True):
                lines.append(f"{folder} {coordinate} {_digest(path)}")
                print(coordinate, file=sys.stderr)
    LOCK.write_text("\n".join(["# Written by `python -m infra.maven`.", *lines]) + "\n")


if __name__ == "__main__":
    main()
