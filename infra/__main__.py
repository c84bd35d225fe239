"""``python3 -m infra COMMAND``: make the service environment if need be, then run the command.

Only the standard library is known here; everything else is on the far side of ``execv``.
"""

from __future__ import annotations

import os
import platform
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this line is for the Python that is too old
    raise SystemExit("tessera needs Python 3.11 or newer; this is " + sys.version.split()[0])

if (system := (platform.system(), platform.machine())) != ("Linux", "x86_64"):
    raise SystemExit("tessera needs Linux on x86-64; this is " + " on ".join(system))

from infra.bootstrap import Unready, cache_folder, ensure_environment


def main() -> None:
    """Replace this process by the command, running in the service environment."""
    cache = cache_folder(os.environ.get("TESSERA_CACHE"))
    try:
        python = ensure_environment("service", cache)
    except Unready as lack:
        raise SystemExit(f"tessera: {lack}") from None
    except OSError as fault:
        raise SystemExit(
            f"tessera: {fault}. This clone and {cache} (TESSERA_CACHE) must be writable, and the "
            "disk not full."
        ) from None
    except KeyboardInterrupt:
        raise SystemExit("tessera: interrupted; run it again, it goes on where it was") from None
    os.execv(python, [str(python), "-m", "infra.cli", *sys.argv[1:]])


if __name__ == "__main__":
    main()
