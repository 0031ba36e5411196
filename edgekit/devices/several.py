"""Several devices at once: one that fails is told, and the others go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edgekit.devices.address import Address
from edgekit.errors import EdgeKitError
from edgekit.progress import Progress

ResultT = TypeVar("ResultT")
Work = Callable[[Address, Progress], ResultT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[ResultT]):
    """What came of some work on one device: a result, or why there is none."""

    address: Address
    result: ResultT | None
    error: EdgeKitError | None


def on_each(addresses: Sequence[Address], work: Work[ResultT], progress: Progress) -> list[Outcome[ResultT]]:
    """Does the same work on every device, on all of them at the same time.

    Args:
        addresses: The devices.
        work: What is done, given the device and where to tell how far it is.
        progress: Told the steps of every device, with its name before them.

    Returns:
        One outcome a device, in order.
    """
    outcomes: list[Outcome[ResultT] | BaseException | None] = [None] * len(addresses)

    def do(index: int) -> None:
        try:
            outcomes[index] = _outcome(addresses[index], work, progress)
        except BaseException as exc:  # noqa: BLE001  # raised below, in the thread that asked
            outcomes[index] = exc

    # Threads that do not keep the program from ending: who interrupts it leaves devices that clear up by themselves.
    threads = [threading.Thread(target=do, args=(index,), daemon=True) for index in range(1, len(addresses))]
    for thread in threads:
        thread.start()
    do(0)
    for thread in threads:
        thread.join()
    failure = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
    if failure is not None:
        raise failure
    return [outcome for outcome in outcomes if isinstance(outcome, Outcome)]


def _outcome(address: Address, work: Work[ResultT], progress: Progress) -> Outcome[ResultT]:
    def named(step: str, done: int, total: int, note: str = "") -> None:
        progress(f"{address.name}: {step}", done, total, note)

    try:
        return Outcome(address=address, result=work(address, named), error=None)
    except EdgeKitError as exc:
        return Outcome(address=address, result=None, error=exc)


def told(outcome: Outcome[Any]) -> dict[str, Any] | None:
    """Why there is no result, as JSON; None where there is one."""
    error = outcome.error
    if error is None:
        return None
    parts = {"found": error.found, "allowed": error.allowed, "fix": error.fix}
    return {"problem": error.problem} | {key: None if part is None else str(part) for key, part in parts.items()}
