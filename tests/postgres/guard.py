"""Ends a server when the last of its users is gone, however they went: see `tests.postgres.servers`.

    python guard.py DIRECTORY ACCOUNT COMMAND ...      # the command that ends it, run as that account

Every user holds a shared lock on a file of the directory. The kernel lets go of a dead process's locks, so the
exclusive one is granted when nobody is left, and then server and directory go. Nothing is asked in between.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys


def main(directory: str, account: str, *command: str) -> None:
    for sign in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # meant for the tests; what follows from them is seen
        signal.signal(sign, signal.SIG_IGN)
    users = os.open(os.path.join(directory, "users"), os.O_RDWR)
    fcntl.flock(users, fcntl.LOCK_EX)
    subprocess.run(
        command,
        user=account or None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
