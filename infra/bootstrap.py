"""From a bare Python to the two environments; standard library only, since nothing else is there.

Knows uv, the lock files and the folders. Does not know what runs inside the environments. Every
step is safe to repeat, to interrupt and to run twice at once: a file lock lets one through, and
the stamp that says an environment is complete is written last.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV_VERSION = "0.13.9"


class Unready(Exception):
    """Something this machine lacks; the message names it and says what to run next."""


# What the machine trusts, as pip does: its owner may have a mirror with a certificate of its own.
SYSTEM_CERTS = "--system-certs"


def say(message: str) -> None:
    """Print one line of progress to standard error."""
    print(f"tessera: {message}", file=sys.stderr, flush=True)


def cache_folder(named: str | Path | None) -> Path:
    """What ``TESSERA_CACHE`` names, a relative one from this clone; the usual one where empty."""
    return (ROOT / Path(named or "~/.cache/tessera").expanduser()).resolve()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the file lock at ``path``; waits for whoever has it and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another tessera that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def python_of(name: str, root: Path = ROOT) -> Path:
    """The interpreter of the environment ``service`` or ``worker``."""
    return root / ".tessera" / "envs" / name / "bin" / "python"


def lock_of(name: str, root: Path = ROOT) -> Path:
    """The pinned packages of an environment."""
    return root / "infra" / "environments" / f"{name}.txt"


def stamp_of(name: str, root: Path = ROOT) -> str:
    """What an environment was made from: the lock, the installer, the interpreter, the place."""
    digest = hashlib.sha256(lock_of(name, root).read_bytes())
    digest.update(f"{sys.version} {UV_VERSION} {root}".encode())
    return digest.hexdigest()


def is_ready(name: str, root: Path = ROOT) -> bool:
    """Whether the environment is complete and made from the present lock; reads two files."""
    python = python_of(name, root)
    stamp = python.parent.parent / "tessera.stamp"
    return python.exists() and stamp.exists() and stamp.read_text() == stamp_of(name, root)


def ensure_uv(cache: Path) -> Path:
    """The pinned uv, installed into the cache on first use.

    Raises:
        Unready: Python lacks ``venv``, or uv cannot be installed.
    """
    home = cache / "uv"
    uv, stamp = home / "bin" / "uv", home / "tessera.stamp"
    with exclusive(cache / "locks" / "uv"):
        if uv.exists() and stamp.exists() and stamp.read_text() == UV_VERSION:
            return uv
        say(f"installing uv {UV_VERSION} (the package installer) into {home}")
        shutil.rmtree(home, ignore_errors=True)
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(home)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            shutil.rmtree(home, ignore_errors=True)
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise Unready(
                f"{sys.executable} cannot make a virtual environment. On Debian and Ubuntu run: "
                f"apt-get install python{version}-venv; then run this command again. "
                f"({_last_line(made.stdout + made.stderr)})"
            )
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
        _run([*pip, "--quiet", f"uv=={UV_VERSION}"], "uv could not be installed with pip")
        stamp.write_text(UV_VERSION)
    return uv


def ensure_environment(name: str, cache: Path, root: Path = ROOT) -> Path:
    """Make the environment unless it is there and current; returns its interpreter.

    Raises:
        Unready: what could not be installed, and what to do.
    """
    python = python_of(name, root)
    if is_ready(name, root):
        return python
    if name == "worker":
        _require_libnuma()
    uv = ensure_uv(cache)
    home = python.parent.parent
    with exclusive(home.parent / f"{name}.lock"):
        if is_ready(name, root):
            return python
        size = {"service": "about 100 packages", "worker": "torch and vLLM, about 6 GB"}[name]
        say(f"making the {name} environment ({size}) in {home}")
        (home / "tessera.stamp").unlink(missing_ok=True)
        why = f"the {name} environment could not be made"
        if not _runs(python) or _version_of(home) != sys.version_info[:3]:
            venv = [str(uv), "venv", "--quiet", "--clear", "--relocatable", "-p", sys.executable]
            _run([*venv, str(home)], why)
        target = ["--python", str(python)]
        _run([str(uv), "pip", "sync", SYSTEM_CERTS, *target, str(lock_of(name, root))], why)
        _run(
            [
                str(uv),
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                SYSTEM_CERTS,
                *target,
                "-e",
                str(root),
            ],
            why,
        )
        (home / "tessera.stamp").write_text(stamp_of(name, root))
    return python


def _require_libnuma() -> None:
    """The kernels of vLLM for a CPU load it from the system; no package carries it."""
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError as lack:
        raise Unready(
            f"vLLM needs the library libnuma ({lack}). On Debian and Ubuntu run: "
            "apt-get install libnuma1; then run this command again."
        ) from None


def _runs(python: Path) -> bool:
    """Whether the interpreter starts: a moved or half-made environment does not."""
    if not python.exists():
        return False
    return subprocess.run([str(python), "-c", ""], capture_output=True, check=False).returncode == 0


def _version_of(home: Path) -> tuple[int, ...]:
    """The version of Python that an environment was made with; empty when it does not say."""
    said = re.search(r"^version_info = ([\d.]+)", (home / "pyvenv.cfg").read_text(), re.MULTILINE)
    return tuple(map(int, said[1].split("."))) if said else ()


def _run(command: list[str], failure: str) -> None:
    # uv's own bars go to the terminal; large wheels on slow links need more than its 30 s.
    done = subprocess.run(["env", "UV_HTTP_TIMEOUT=300", *command], check=False)
    if done.returncode:
        raise Unready(
            f"{failure}: `{' '.join(command)}` ended with {done.returncode}. "
            "Read its message above; when it names the network or the disk, mend that and run "
            "this command again (what was fetched is kept). uv looks for a package index of your "
            "own in UV_DEFAULT_INDEX and for certificates in SSL_CERT_FILE."
        )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
