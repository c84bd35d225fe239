"""Functions that want more than they may have: refused or stopped, whatever they try."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.unit.sandboxes import BOUNDS, call, fails, nothing_left_behind
from workers.tools import Fault, seccomp


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    with nothing_left_behind():
        yield


TOO_MUCH = {
    "many files": """
        def act():
            for n in range(1000):
                open(str(n), "wb").write(bytes(1024 * 1024))
    """,
    "memory": "def act(): return len(bytearray(10 * 1024 ** 3))",
    "memory by and by": "def act():\n    a = []\n    while True: a.append(bytes(1 << 20))",
    "one file": "def act():\n    open('f', 'wb').write(bytes(9 << 20))",
    "open files": "def act(): return [open('/dev/null') for _ in range(999)] and 1",
    "output": "def act(): return 'x' * (2 << 20)",
}


@pytest.mark.parametrize("source", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_what_takes_too_much_is_stopped(source: str) -> None:
    assert (await fails(source)).fault is Fault.LIMIT


async def test_a_function_that_floods_its_own_channel_is_stopped() -> None:
    flood = """
        import os

        def act():
            for descriptor in range(3, 64):
                try:
                    while True:
                        os.write(descriptor, bytes(1 << 16))
                except OSError:
                    pass
    """
    assert (await fails(flood)).fault is Fault.LIMIT


@pytest.mark.parametrize(
    "forged",
    [
        '{"result": "\\\\ud800"}',
        '{"result": 1e999}',
        '{"result": NaN}',
        '{"fault": "unsettled", "message": "m"}',
        '{"unavailable": "this machine"}',
        "[" * 90_000,
        "7",
        "\\xff",
    ],
)
async def test_what_a_function_writes_in_our_place_cannot_harm(forged: str) -> None:
    source = f"""
        import os

        def act():
            for descriptor in range(3, 64):
                try:
                    os.write(descriptor, '{forged}'.encode("latin-1"))
                except OSError:
                    pass
            os._exit(0)
    """
    assert (await fails(source)).fault is Fault.RAISED


FORBIDDEN = {
    "a program": "import os\n    os.execv('/bin/true', ['true'])",
    "a subprocess": "import subprocess\n    subprocess.run(['/bin/true'])",
    "a datagram": "import socket\n    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "a fork": "import os\n    os.fork()",
    "a fork bomb": "import os\n    while True: os.fork()",
    "a daemon": "import os\n    os.fork() or os.setsid() or os.fork()",
    "a local socket": "import socket\n    socket.socket(socket.AF_UNIX)",
    "a name on the network": "import socket\n    socket.getaddrinfo('example.org', 80)",
    "a page": "import urllib.request\n    urllib.request.urlopen('http://127.0.0.1:1')",
    "a session": "import os\n    os.setsid()",
    "a signal to its group": "import os, signal\n    os.killpg(0, signal.SIGKILL)",
    "a signal to the worker": "import os, signal\n    os.kill(os.getppid(), signal.SIGTERM)",
    "a socket": "import socket\n    socket.socket()",
    "a user": "import os\n    os.setuid(0)",
    "memory beside": "import os\n    os.memfd_create('m')",
    "passwords": "return open('/etc/passwd').read()",
    "processes": "import os\n    return os.listdir('/proc')",
    "shared memory": "open('/dev/shm/tessera-test', 'w')",
    "the device": "open('/dev/kmsg').read()",
    "the surroundings of the worker": (
        "import os\n    return open(f'/proc/{os.getppid()}/environ').read()"
    ),
    "the system": "return open('/proc/self/status').read()",
    "the limits": "import resource\n    resource.prlimit(1, resource.RLIMIT_CPU)",
}


@pytest.mark.parametrize("body", FORBIDDEN.values(), ids=FORBIDDEN)
async def test_what_it_may_not_is_refused(body: str) -> None:
    failed = await fails(f"def act():\n    {body}")
    assert failed.fault is Fault.FORBIDDEN, failed


async def test_the_kernel_refuses_every_forbidden_call_and_knows_no_newer_one() -> None:
    source = """
        import ctypes

        def act(numbers):
            libc = ctypes.CDLL(None, use_errno=True)
            answers = []
            for number in numbers:
                answered = libc.syscall(number, -1, 0, 0, 0, 0, 0)
                answers.append([answered, ctypes.get_errno()])
            return answers
    """
    column = ("x86_64", "aarch64").index(os.uname().machine)
    tables = (*seccomp.FORBIDDEN.values(), seccomp.NETWORK)
    numbers = [numbers[column] for table in tables for numbers in table.values()]
    known = [number for number in numbers if number is not None]
    assert await call(source, numbers=known) == [[-1, errno.EPERM]] * len(known)
    newer = [435, seccomp.LAST + 1, 462, 0x40000000]
    assert await call(source, numbers=newer) == [[-1, errno.ENOSYS]] * len(newer)


TOUCHES = {
    "appends": "open(path, 'a')",
    "lists its folder": "os.listdir(os.path.dirname(path))",
    "makes a folder": "os.mkdir(path + '-new')",
    "moves": "os.rename(path, path + '-new')",
    "overwrites": "open(path, 'w')",
    "reads": "open(path).read()",
    "removes": "os.remove(path)",
    "shortens": "os.truncate(path, 0)",
    "takes a link": "os.link(path, 'mine')",
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
async def test_files_are_out_of_reach_even_where_every_user_may_touch_them(touch: str) -> None:
    source = f"import os\ndef act(path): {touch}"
    # Not in /tmp, of which it has its own.
    with TemporaryDirectory(dir="/var/tmp") as folder:
        theirs = Path(folder) / "theirs"
        theirs.write_text("tiger")
        Path(folder).chmod(0o777)
        theirs.chmod(0o666)
        failed = await fails(source, path=str(theirs))
        assert failed.fault in {Fault.FORBIDDEN, Fault.RAISED}, failed
        assert "Errno 18" in failed.message or failed.fault is Fault.FORBIDDEN
        assert theirs.read_text() == "tiger"
        assert list(Path(folder).iterdir()) == [theirs]


async def test_it_changes_no_rights_or_dates_of_a_file_that_is_not_its_own() -> None:
    source = "import os\ndef act(path): os.chmod(path, 0), os.utime(path, (0, 0))"
    with TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o777)
        before = os.stat(folder)
        await call(source, path=folder)
        assert os.stat(folder) == before


async def test_threads_are_counted() -> None:
    source = """
        import threading

        def act():
            for _ in range(999):
                threading.Thread(target=threading.Event().wait).start()
    """
    assert "thread" in (await fails(source)).message


async def test_with_the_network_granted_it_still_serves_nobody() -> None:
    source = "import socket\ndef act(): socket.create_server(('127.0.0.1', 0))"
    assert (await fails(source, replace(BOUNDS, network=True))).fault is Fault.FORBIDDEN
