"""What was checked, and how long things took."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from time import monotonic, sleep


class Report:
    """Prints each check as it is made, and counts."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self._title = ""
        self._times: dict[tuple[str, str], list[float]] = defaultdict(list)

    def title(self, text: str) -> None:
        self._title = text
        print(f"\n{text}", flush=True)

    def check(self, what: str, wrong: Iterable[str] | str) -> None:
        """Passes if nothing is wrong; prints what is."""
        wrong = [wrong] if isinstance(wrong, str) else list(wrong)
        wrong = [line for text in wrong for line in text.splitlines()]
        if wrong:
            self.failed += 1
        else:
            self.passed += 1
        print(f"  {'FAILED' if wrong else 'ok    '} {what}", flush=True)
        for line in wrong:
            print(f"         {line}", flush=True)

    @contextmanager
    def timed(self, what: str):
        """Takes the time of what is done inside, for the table, under the title that was printed last."""
        start = monotonic()
        yield
        self._times[self._title, what].append(monotonic() - start)

    def print_times(self) -> None:
        self.title("times in milliseconds" + " " * 23 + f"{'median':>9}{'90 %':>9}{'longest':>9}{'calls':>7}")
        for (title, what), times in self._times.items():
            times.sort()
            figures = (statistics.median(times), times[int(0.9 * (len(times) - 1))], times[-1])
            print(f"  {what + ', ' + title:42}" + "".join(f"{1000 * it:9.1f}" for it in figures) + f"{len(times):7}")


def wait_until(what: str, probe: Callable[[], object], seconds: float = 30) -> None:
    """Asks again and again until `probe` returns something true.

    Raises TimeoutError, with the last exception of `probe` if there was one, when it does not in time.
    """
    end, last = monotonic() + seconds, None
    while monotonic() < end:
        try:
            if probe():
                return
            last = None
        except Exception as err:  # what `probe` waits for may show itself as any error until it is there
            last = err
        sleep(0.05)
    raise TimeoutError(f"{what}: not within {seconds} s" + (f": {last}" if last else ""))
