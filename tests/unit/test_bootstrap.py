"""From a bare Python to an environment: what happens when it is repeated, broken or doubled."""

from __future__ import annotations

import ctypes
import errno
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import __main__ as entry
from infra.bootstrap import (
    ROOT,
    UV_VERSION,
    Unready,
    cache_folder,
    ensure_environment,
    ensure_uv,
    exclusive,
    is_ready,
    python_of,
    stamp_of,
)
from infra.stack.settings import StackSettings

PROJECT = """\
[project]
name = "small"
version = "0"
[project.scripts]
small = "small:main"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[tool.setuptools]
py-modules = ["small"]
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with one pinned package instead of a hundred."""
    (tmp_path / "infra" / "environments").mkdir(parents=True)
    (tmp_path / "infra" / "environments" / "service.txt").write_text("iniconfig==2.3.0\n")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "small.py").write_text("def main() -> None:\n    print('small')\n")
    return tmp_path


@pytest.fixture(scope="module")
def cache() -> Path:
    """The machine's cache, which holds uv."""
    return StackSettings().cache


@pytest.fixture
def made(clone: Path, cache: Path) -> Path:
    """The small clone with its environment made."""
    ensure_environment("service", cache, clone)
    return clone


def imports(python: Path, module: str) -> bool:
    command = [str(python), "-c", f"import {module}"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_the_environment_holds_the_pinned_packages_and_the_console_script(made: Path) -> None:
    python = python_of("service", made)
    assert imports(python, "iniconfig")
    said = subprocess.run([python.parent / "small"], capture_output=True, check=True)
    assert said.stdout == b"small\n"


def test_a_second_time_nothing_is_run(made: Path) -> None:
    # A cache that does not exist: any use of the installer would have to make it.
    nowhere = made / "nowhere"
    began = time.monotonic()
    assert ensure_environment("service", nowhere, made) == python_of("service", made)
    assert time.monotonic() - began < 60
    assert not nowhere.exists()


def test_a_changed_lock_makes_the_environment_stale(made: Path, cache: Path) -> None:
    lock = made / "infra" / "environments" / "service.txt"
    lock.write_text("iniconfig==2.3.0\nsniffio==1.3.1\n")
    assert not is_ready("service", made)
    ensure_environment("service", cache, made)
    assert imports(python_of("service", made), "sniffio")


def test_an_interrupted_one_is_finished(made: Path, cache: Path) -> None:
    home = python_of("service", made).parent.parent
    (home / "tessera.stamp").unlink()
    shutil.rmtree(next(home.glob("lib/python*/site-packages/iniconfig")))
    shutil.rmtree(next(home.glob("lib/python*/site-packages/iniconfig-*.dist-info")))
    ensure_environment("service", cache, made)
    assert imports(python_of("service", made), "iniconfig")


def test_a_broken_interpreter_is_replaced(made: Path, cache: Path) -> None:
    python = python_of("service", made)
    (python.parent.parent / "tessera.stamp").unlink()
    python.unlink()
    python.symlink_to("/nowhere/python")
    ensure_environment("service", cache, made)
    assert imports(python, "iniconfig")


def test_an_environment_of_another_python_is_replaced(made: Path, cache: Path) -> None:
    home = python_of("service", made).parent.parent
    config = home / "pyvenv.cfg"
    assert "relocatable = true" in config.read_text()
    config.write_text(re.sub("version_info = .*", "version_info = 3.8.1", config.read_text()))
    (home / "tessera.stamp").unlink()
    ensure_environment("service", cache, made)
    assert f"version_info = {platform.python_version()}" in config.read_text()


@pytest.mark.parametrize(
    ("named", "folder"),
    [
        ("", "~/.cache/tessera"),
        ("/var/cache/tessera", "/var/cache/tessera"),
        ("here/it/is", f"{ROOT}/here/it/is"),
        ("~/there", "~/there"),
    ],
)
def test_the_cache_lies_where_it_is_named(
    named: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Path(folder).expanduser().resolve()
    assert cache_folder(named) == expected
    monkeypatch.setenv("TESSERA_CACHE", named)
    assert StackSettings().cache == expected


def test_a_moved_clone_is_made_anew(made: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = tmp_path_factory.mktemp("moved") / "clone"
    shutil.copytree(made, moved, symlinks=True)
    assert is_ready("service", made)
    assert not is_ready("service", moved)


def test_what_cannot_be_installed_is_named(clone: Path, cache: Path) -> None:
    lock = clone / "infra" / "environments" / "service.txt"
    lock.write_text("iniconfig==999.0\n")
    with pytest.raises(Unready, match=r"service environment could not be made.* UV_DEFAULT_INDEX"):
        ensure_environment("service", cache, clone)
    assert not is_ready("service", clone)


def test_a_python_without_venv_says_which_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 'ensurepip is not available'\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(Unready, match=r"apt-get install python3\.\d+-venv"):
        ensure_uv(tmp_path / "cache")


def test_uv_is_the_pinned_one(cache: Path) -> None:
    said = subprocess.run([ensure_uv(cache), "--version"], capture_output=True, check=True)
    assert UV_VERSION in said.stdout.decode()


def test_two_at_once_make_one(clone: Path, cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from infra.bootstrap import ensure_environment;"
        "ensure_environment('service', Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(cache), str(clone)]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=300)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("making the service environment" in text for text in said) == 1
    assert is_ready("service", clone)


def test_the_lock_is_released_when_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from infra.bootstrap import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
        holder.wait(60)
        with exclusive(lock):
            pass


def test_the_stamp_knows_the_interpreter(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamp_of("service", clone)
    monkeypatch.setattr(sys, "version", "3.99.0")
    assert stamp_of("service", clone) != before


def test_the_entry_needs_nothing_but_the_standard_library() -> None:
    # -S and -I: no site-packages, so an import of anything installed would fail.
    code = "import sys; sys.path.insert(0, '.'); import infra.__main__, infra.bootstrap"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, check=True)


def test_another_kind_of_machine_is_refused_in_one_line() -> None:
    code = "import platform; platform.machine = lambda: 'aarch64'; import infra.__main__"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert said.returncode == 1
    assert said.stderr == "tessera needs Linux on x86-64; this is Linux on aarch64\n"


def test_a_machine_without_libnuma_is_told_so_before_vllm_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    (tmp_path / "infra" / "environments").mkdir(parents=True)
    (tmp_path / "infra" / "environments" / "worker.txt").touch()
    monkeypatch.setattr(ctypes, "CDLL", lacks)
    with pytest.raises(Unready, match="apt-get install libnuma1"):
        ensure_environment("worker", tmp_path / "cache", tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_fault_of_the_machine_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str, cache: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", "/full/file")

    monkeypatch.setattr(entry, "ensure_environment", full)
    with pytest.raises(SystemExit, match=r"tessera: .*No space left.*TESSERA_CACHE") as ended:
        entry.main()
    assert "\n" not in str(ended.value)


def test_the_entry_hands_the_words_over_to_the_command_line() -> None:
    command = [sys.executable, "-m", "infra", "up", "--only", "nothing"]
    said = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert said.returncode == 1
    assert "no service is called nothing" in said.stderr
    assert "Traceback" not in said.stderr
