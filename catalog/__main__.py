"""Starts the registrar, or is the command line of the catalog.

    python -m catalog                       the registrar
    python -m catalog grant --help          a command, as tessera runs it

Settings come from the environment: of the registrar KAFKA_*, REGISTRY_*, POSTGRES_*, CATALOG_*,
HEALTH_*, TELEMETRY_*; of the commands KAFKA_*, REGISTRY_*, CLIENT_*.
"""

from __future__ import annotations

import sys
from importlib import import_module

import structlog

from infra.settings import SettingInvalid
from infra.telemetry import close, configure_command

log = structlog.get_logger()


def main() -> int:
    """Runs the registrar, or the command that the words name; returns the exit code."""
    # A command has nothing to do with databases, nor the registrar with terminals.
    if not sys.argv[1:]:
        code: int = import_module("catalog.registrar.process").main()
        return code
    try:
        configure_command(sys.argv[1])
    except SettingInvalid as problem:
        print(f"{sys.argv[1]}: {problem}", file=sys.stderr)
        return 1
    import_module("catalog.operator.cli").app(prog_name="tessera", args=sys.argv[1:])
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:  # noqa: BLE001 - the last stop: what ended the work is logged already.
        log.error("process ends", reason=type(error).__name__)
        code = 70
    close()
    sys.exit(code)
