"""Run a module as a child that ends with the process that started it, however that process ends.

    python -m examples.claims.demo.child MODULE [ARGUMENT ...]

The parent holds the other end of the child's standard input. The system closes that end when the parent is gone, also
after `kill -9`, and the child then stops as it does after SIGTERM.
"""

import os
import runpy
import signal
import sys
import threading
import time

LONGEST_STOP = 30.0  # seconds for an orderly end


def end_with_parent() -> None:
    """Wait for the end of the standard input, then end this process."""
    while os.read(sys.stdin.fileno(), 1_024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LONGEST_STOP)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    threading.Thread(target=end_with_parent, name="end with the parent", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
