"""What runs in the child: it confines itself, then reads a function, calls it, says what came.

Started by ``sandbox.py`` as a script of a bare interpreter (``-I -S``), so it imports nothing of
ours but ``confining.py``. Standard input brings lines of JSON: the bounds, what is to be called,
then the number of each checkpoint that is saved. Standard output takes a line that says that it is
confined, a line a checkpoint, then the outcome, which has no end of line. Before any source runs
both are moved out of the way, so that what a function prints goes nowhere.
"""

from __future__ import annotations

import _thread
import errno
import inspect
import json
import os
import sys
import types

TYPE_CHECKING = False  # as in typing, whose import would take a tenth of all that a call takes
if TYPE_CHECKING:
    from typing import Any

    from workers.tools.confining import Unavailable, confine
else:
    # A function that asks for a module of this name, or for one beside it, is to find none.
    sys.path.insert(0, os.path.dirname(__file__))
    from confining import Unavailable, confine

    del sys.path[0], sys.modules["confining"]

SPENT = {errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}
REFUSED = {errno.EACCES, errno.EPERM}
MOST_WORDS = 300
MISSING = "missing"  # of the fault that the source is, the kind that a caller may expect


class Failed(Exception):
    """The call came to no result: a fault, and why."""


class CheckpointTooLarge(ValueError):
    """A checkpoint is larger than one may be."""


class Channel:
    """The way to the worker and back; what is printed goes nowhere once this is made.

    Attributes:
        turn: Held by the thread whose turn it is to tell, and to hear what is said of it.
    """

    def __init__(self) -> None:
        os.closerange(3, 2**31 - 1)
        self._out, back, nowhere = os.dup(1), os.dup(0), os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        os.close(nowhere)
        self._back = open(back, "rb")  # noqa: SIM115 - for as long as this process lives
        self.turn = _thread.allocate_lock()

    def tell(self, what: bytes) -> None:
        """Writes all of it."""
        while what:
            what = what[os.write(self._out, what) :]

    def hear(self) -> bytes:
        """Returns the next line; an empty one when there will be none."""
        return self._back.readline()


class Checkpoint:
    """Where a call goes on that was cut off; any thread may save.

    Attributes:
        last: What an earlier attempt of the same call saved last; None where none did.
    """

    def __init__(self, last: Any, channel: Channel, most: int) -> None:
        self.last = last
        self._channel = channel
        self._most = most
        self._number = 0
        self._savers: set[int] = set()

    def save(self, value: Any) -> None:
        """Returns once the value is what a later attempt would have as its last.

        Args:
            value: What JSON can say.

        Raises:
            CheckpointTooLarge: It is too large, as JSON.
            RuntimeError: This thread is saving already, and was interrupted by a signal.
            TypeError: It is not JSON.
            ValueError: It is not JSON.
        """
        text = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        if len(text) > self._most:
            raise CheckpointTooLarge(f"its checkpoint is larger than {self._most} bytes")
        saver = _thread.get_ident()
        if saver in self._savers:
            raise RuntimeError("it saves a checkpoint already: a signal handler may not meanwhile")
        try:
            self._savers.add(saver)
            self._exchange(text)
        finally:
            self._savers.discard(saver)

    def _exchange(self, text: bytes) -> None:
        """Tells of a checkpoint, and returns once it is said to be saved."""
        with self._channel.turn:
            self._number += 1
            number = b"%d" % self._number
            self._channel.tell(b'{"number": %b, "checkpoint": %b}\n' % (number, text))
            # One whose wait a signal cut short left its answer behind.
            while (said := self._channel.hear()) != number + b"\n":
                if not said:
                    raise BrokenPipeError(errno.EPIPE, "nobody saves its checkpoints any more")


def outcome(request: dict[str, Any], beside: dict[str, Any]) -> bytes:
    """Returns what calling came to, as JSON."""
    bounds = request["bounds"]
    try:
        answer = json.dumps(called(request, beside), allow_nan=False, ensure_ascii=False).encode()
    except Failed as failed:
        return faulted(*failed.args)
    except (RecursionError, TypeError, ValueError) as error:
        return faulted("raised", f"what it returned is not JSON: {words(error)}")
    # What is returned may run code of the function while it is written.
    except BaseException as error:  # noqa: BLE001
        return faulted(*failure(error, bounds))
    if len(answer) > bounds["output_bytes"]:
        return faulted("limit", f"its result is larger than {bounds['output_bytes']} bytes")
    return b'{"result": ' + answer + b"}"


def faulted(fault: str, message: str) -> bytes:
    """Returns a failure as JSON."""
    return json.dumps({"fault": fault, "message": message}).encode()


def called(request: dict[str, Any], beside: dict[str, Any]) -> Any:
    """Returns what the function returns.

    Raises:
        Failed: It raised, or could not be called.
    """
    function = loaded(request["source"], request["name"], request["bounds"])
    given = fitted(function, request["arguments"], beside)
    try:
        answer = function(**given)
        if inspect.isawaitable(answer):
            import asyncio  # noqa: PLC0415 - it takes longer than all else here

            answer = asyncio.run(awaited(answer))
    # All that a function raises is an outcome of the call, also what would end the process.
    except BaseException as error:  # noqa: BLE001
        raise Failed(*failure(error, request["bounds"])) from None
    return answer


async def awaited(answer: Any) -> Any:
    """Returns what an awaitable comes to."""
    return await answer


def loaded(source: str, name: str, bounds: dict[str, Any]) -> Any:
    """Returns the function of that name that the source defines.

    Raises:
        Failed: It defines none.
    """
    module = sys.modules["function"] = types.ModuleType("function")
    try:
        exec(compile(source, "<function>", "exec"), module.__dict__)
    # As where it is called.
    except BaseException as error:  # noqa: BLE001
        fault, message = failure(error, bounds)
        if fault != "raised":
            raise Failed(fault, message) from None
        kind = type(error).__name__
        raise Failed("source", f"it does not import: {kind} at line {line_of(error)}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise Failed(MISSING, f"its source defines no function {name}")
    return function


def line_of(error: BaseException) -> int | None:
    """Returns the line of the source where it stopped."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<function>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def fitted(function: Any, arguments: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    """Returns what to call it with: the arguments, and of what is beside them what it takes.

    Raises:
        Failed: They do not fit.
    """
    try:
        signature = inspect.signature(function)
        taken = beside.keys() & signature.parameters.keys()
        arguments = {**arguments, **{name: beside[name] for name in taken}}
        signature.bind(**arguments)
    except (TypeError, ValueError) as error:
        raise Failed("arguments", f"its arguments do not fit: {words(error)}") from None
    return arguments


def failure(error: BaseException, bounds: dict[str, Any]) -> tuple[str, str]:
    """Returns the fault behind what was raised, and what to say of it."""
    cause: BaseException | None = error
    while cause is not None:
        said = words(cause)
        number = cause.errno if isinstance(cause, OSError) else None
        if isinstance(cause, CheckpointTooLarge):
            return "limit", said
        if isinstance(cause, MemoryError):
            return "limit", f"it wanted more memory than {bounds['memory_mib']} MiB"
        if number in SPENT:
            return "limit", f"it went past a bound on files, disk or memory: {said}"
        if number in REFUSED:
            return "forbidden", f"it tried what it may not: {said}"
        if type(cause).__name__ == "gaierror" and not bounds["network"]:
            return "forbidden", f"it may not reach the network: {said}"
        cause = cause.__cause__ or cause.__context__
    return "raised", words(error)


def words(error: BaseException) -> str:
    """Returns an exception in one short line."""
    try:
        said = " ".join(str(error).split())
    # What a function raises may fail in telling what it is.
    except BaseException:  # noqa: BLE001
        said = ""
    return f"{type(error).__name__}: {said}".removesuffix(": ")[:MOST_WORDS]


def main() -> None:
    """Runs one call."""
    channel = Channel()
    bounds = json.loads(channel.hear())
    try:
        confine(bounds)
    except (OSError, Unavailable) as error:
        channel.tell(json.dumps({"unavailable": str(error)}).encode() + b"\n")
        return
    channel.tell(b'{"confined": true}\n')
    request = {**json.loads(channel.hear()), "bounds": bounds}
    beside = {"idempotency_key": request["key"]}
    if kept := request["checkpoint"]:
        last = json.loads(kept["last"] or "null")
        beside["checkpoint"] = Checkpoint(last, channel, bounds["checkpoint_bytes"])
    said = outcome(request, beside)
    with channel.turn:
        channel.tell(said)
        os._exit(0)  # whatever threads it left


if __name__ == "__main__":
    main()
