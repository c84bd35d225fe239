"""``python -m infra.probe PORT``: ends with 0 if the process that listens there is ready.

For container health checks, where neither curl nor wget is at hand.
"""

from __future__ import annotations

import sys
import urllib.request


def main() -> None:
    """Ask ``/ready``; any answer but 200 is an error and the exit code 1."""
    with urllib.request.urlopen(f"http://127.0.0.1:{int(sys.argv[1])}/ready", timeout=4):
        pass


if __name__ == "__main__":
    main()
