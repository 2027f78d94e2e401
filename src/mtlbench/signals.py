"""Stop signals: noted when they come, obeyed after the step."""

import signal
from types import FrameType, TracebackType

STOPPED = 85
"""The exit code of a run that was stopped by a signal after saving its state."""


class Stop:
    """Notes SIGTERM, SIGUSR1 and SIGUSR2 while it is entered; `number` is the first that came.

    Ctrl-C is noted only after `ready()`: while a run is being built there is nothing to save, and somebody waits.
    When all is saved and given back, `obey()` calls the handler that was there before (a queue's: it may requeue
    the job, which ends this process).
    """

    QUEUES = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        for number in self.QUEUES:
            self._before[number] = signal.signal(number, self._note)
        return self

    def ready(self) -> None:
        """From now on Ctrl-C is noted too."""
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number

    def obey(self) -> None:
        """Calls the former handler of the signal that came, if it was a function."""
        former = self._before.get(self.number)
        if callable(former) and former is not signal.default_int_handler:
            former(self.number, None)
