"""A minimal runner for tests that share one expensive set-up.

Each case is a function of one argument; a failure is reported with its
traceback and the next case goes on. The closing line is the runner's contract
with scripts/run-tests.
"""

import sys
import time
import traceback


class Skip(Exception):
    """Raised by a case that cannot be tried here; the text says why."""


class Cases:
    def __init__(self):
        self._cases = []

    def case(self, function):
        self._cases.append(function)
        return function

    def names(self):
        return [c.__name__ for c in self._cases]

    def run(self, argument, only=(), after_failure=lambda argument: None):
        """Run the cases whose name contains a word of `only` (all if empty).
        Returns the exit code."""
        passed = failed = skipped = 0
        chosen = [
            c
            for c in self._cases
            if not only or any(word in c.__name__ for word in only)
        ]
        print("1..%d" % len(chosen), flush=True)
        for number, function in enumerate(chosen, 1):
            start = time.monotonic()
            try:
                function(argument)
                passed += 1
                word, note = "ok", ""
            except Skip as e:
                skipped += 1
                word, note = "ok", " # SKIP %s" % e
            except Exception:  # a case's failure is the next one's business
                failed += 1
                word, note = "not ok", ""
                for line in traceback.format_exc().splitlines():
                    print("# " + line)
                after_failure(argument)
            print(
                "%s %d %s (%.1f s)%s"
                % (word, number, function.__name__, time.monotonic() - start, note),
                flush=True,
            )
        print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
        sys.stdout.flush()
        return 1 if failed or not chosen else 0
