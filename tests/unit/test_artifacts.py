"""Artifacts are there whole or not at all."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra import artifacts, converter, maven
from infra.artifacts import Artifact, ensure, folder
from infra.bootstrap import Unready, lock_of
from infra.progress import Step
from infra.stack.settings import StackSettings


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    return StackSettings().model_copy(update={"cache": tmp_path})


def table(monkeypatch: pytest.MonkeyPatch, make: artifacts.Make) -> None:
    monkeypatch.setattr(
        artifacts, "ARTIFACTS", {"toy": Artifact(version="1", what="Toy", make=make)}
    )


def test_it_is_made_once_even_when_two_ask(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(target: Path, _: StackSettings, __: Step) -> None:
        (target / "file").write_text("whole")
        made.append(target)

    table(monkeypatch, make)
    with ThreadPoolExecutor(2) as pool:
        found = set(pool.map(lambda _: ensure("toy", settings), range(2)))
    assert found == {folder("toy", settings.cache)}
    assert (found.pop() / "file").read_text() == "whole"
    assert len(made) == 1


def test_a_failure_leaves_nothing_and_is_one_message(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(target: Path, _: StackSettings, __: Step) -> None:
        (target / "half").touch()
        raise OSError("no space left on device")

    table(monkeypatch, make)
    with pytest.raises(Unready, match="Toy 1 could not be fetched: no space left"):
        ensure("toy", settings)
    assert list((settings.cache / "artifacts").iterdir()) == []


def test_a_file_with_other_bytes_than_pinned_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "kafka.jar"

    def download(coordinate: str, repository: Path) -> Path:
        wrong.write_bytes(b"something else")
        return wrong

    monkeypatch.setattr(maven, "_download", download)
    pinned = maven.Pinned(folder="kafka", coordinate="g:a:1::jar", sha256="0" * 64)
    with pytest.raises(maven.Corrupt, match="pinned is 0000"):
        pinned.fetch(tmp_path)
    assert not wrong.exists()


def test_an_interrupted_fetch_goes_on_where_it_was(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["whole", "half", "late"]
    fetched: list[str] = []

    def download(coordinate: str, repository: Path) -> Path:
        path = repository / coordinate
        if not path.exists():
            repository.mkdir(parents=True, exist_ok=True)
            fetched.append(coordinate)
            first = fetched.count(coordinate) == 1
            path.write_text("ha" if first and coordinate == "half" else coordinate)
            if first and coordinate == "late":
                path.unlink()
                raise OSError("the network is down")
        return path

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    files = [maven.Pinned(folder="toy", coordinate=name, sha256=digest(name)) for name in names]
    repository = settings.cache / "m2" / "toy"
    monkeypatch.setattr(maven, "pinned", lambda name: files)
    monkeypatch.setattr(maven, "_download", download)
    table(monkeypatch, artifacts._jars("toy"))
    with pytest.raises(Unready, match="network is down"):
        ensure("toy", settings)
    assert (repository / "whole").exists()
    (repository / "half").write_text("ha")
    found = ensure("toy", settings)
    assert {path.name: path.read_text() for path in found.iterdir()} == {n: n for n in names}
    assert fetched.count("whole") == 1
    assert not repository.exists()


def test_what_a_killed_one_left_is_swept(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(target: Path, _: StackSettings, __: Step) -> None:
        (target / "file").touch()

    table(monkeypatch, make)
    left = settings.cache / "artifacts" / ".toy-a1b2c3d4"
    left.mkdir(parents=True)
    made = ensure("toy", settings)
    assert list((settings.cache / "artifacts").iterdir()) == [made]


def test_only_the_server_stays_of_its_build(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(command: list[str], environment: Mapping[str, str]) -> None:
        Path(environment["GOCACHE"]).mkdir(parents=True)
        Path(environment["GOBIN"], "weaviate-server").touch()

    monkeypatch.setattr(artifacts, "_go", lambda settings: "go")
    monkeypatch.setattr(artifacts, "_quiet", build)
    table(monkeypatch, artifacts._weaviate)
    assert (ensure("toy", settings) / "weaviate-server").exists()
    assert not (settings.cache / "go").exists()


def test_the_lock_pins_what_is_wanted() -> None:
    for name, (roots, alone) in maven.WANTED.items():
        coordinates = [file.coordinate for file in maven.pinned(name)]
        assert set(alone) <= set(coordinates)
        assert all(any(c.startswith(f"{root}:") for c in coordinates) for root in roots)
        assert all(len(file.sha256) == 64 for file in maven.pinned(name))


def test_a_package_without_the_converter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "avro-1.jar").touch()
    with pytest.raises(FileNotFoundError, match="no Avro converter"):
        converter.pick(tmp_path / "site", tmp_path / "plugin")


def test_an_archive_is_unpacked_by_a_python_that_knows_no_filters(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "inside").write_text("kept")
    archive = tmp_path / "all.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "inside", "inside")
    whole = tarfile.TarFile.extractall
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}

    def extract_all(
        self: tarfile.TarFile, path: Path, members: None = None, *, numeric_owner: bool = False
    ) -> None:
        whole(self, path, members, numeric_owner=numeric_owner, **safely)

    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(tarfile.TarFile, "extractall", extract_all)
    monkeypatch.setattr(maven, "fetch", lambda name, repository, arrived: [archive])
    table(monkeypatch, artifacts._unpacked("toy"))
    assert (ensure("toy", settings) / "inside").read_text() == "kept"


def test_what_comes_as_an_artifact_need_not_be_installed() -> None:
    packages = (converter.PACKAGE, artifacts.GO_PACKAGE, artifacts.REDIS_PACKAGE)
    lock = lock_of("service").read_text()
    assert not [name for name in packages if f"\n{name.partition('==')[0]}==" in lock]
