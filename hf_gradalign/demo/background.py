"""Work in a thread that reports its progress and can be cancelled."""

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """The work was cancelled."""


class Progress:
    """How much of the work is done, and whether it should continue.

    Attributes:
        fraction: The part that is done, in [0, 1].
    """

    def __init__(self) -> None:
        self.fraction = 0.0
        self._cancelled = threading.Event()

    def report(self, fraction: float) -> None:
        """Set the fraction. Raises `Cancelled` as `check` does."""
        self.check()
        self.fraction = fraction

    def check(self) -> None:
        """Raise `Cancelled` if the work was cancelled. Work calls this often."""
        if self.is_cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """Let the work end at its next report or check."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled.is_set()


class BackgroundWork(Generic[T]):
    """Runs work in a thread.

        work = BackgroundWork(do)
        for fraction in work.fractions():
            print(fraction)
        print(work.result())

    Args:
        do: The work: a function that takes a `Progress`, keeps it up to date, and returns the result.

    Attributes:
        progress: The progress, to cancel the work.
    """

    def __init__(self, do: Callable[[Progress], T]) -> None:
        self.progress = Progress()
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(do,), daemon=True)
        self._thread.start()

    def _run(self, do: Callable[[Progress], T]) -> None:
        try:
            self._results.append(do(self.progress))
        except BaseException as error:  # raised again in the thread that asks for the result
            self._error = error

    def fractions(self, interval: float = 0.2) -> Iterator[float]:
        """Yield the fraction that is done, now and every `interval` seconds, until the work ends or is cancelled."""
        while self._thread.is_alive() and not self.progress.is_cancelled:
            yield self.progress.fraction
            self._thread.join(interval)

    def result(self) -> T:
        """Wait for the result.

        Raises:
            Cancelled: If the work was cancelled, without waiting for its end.
            BaseException: What the work raised.
        """
        self.progress.check()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]
