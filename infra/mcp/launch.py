"""Becomes the command of an MCP server, with less than the process that starts it may.

    python -I -S launch.py PARENT WORD...

PARENT is who starts it, by process id: the command ends with it. A script of a bare interpreter,
so that nothing of ours is in the command's process.
Sources: prctl(2), setrlimit(2).
"""

import ctypes
import os
import resource
import sys

MIB = 1024 * 1024
LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_CPU: 600,  # seconds, of all its calls together
    resource.RLIMIT_DATA: 2048 * MIB,
    resource.RLIMIT_FSIZE: 256 * MIB,
    resource.RLIMIT_NOFILE: 1024,
}
DEATH_SIGNAL, NO_NEW_PRIVILEGES, KILL = 1, 38, 9
NOT_RUN = 127


def main(parent: int, command: list[str]) -> int:
    """Becomes the command; returns an exit code where it cannot."""
    for kind, wanted in LIMITS.items():
        hard = resource.getrlimit(kind)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))
    libc = ctypes.CDLL(None)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(DEATH_SIGNAL, KILL, 0, 0, 0)
    if os.getppid() != parent:
        return NOT_RUN
    try:
        os.execvp(command[0], command)
    except OSError:
        return NOT_RUN


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
