"""The retry policies of the process: each says how long a step is worth trying, and what follows is in its module."""

from datetime import timedelta

import perdure as df

UNTIL_DONE = df.RetryPolicy(  # opinions, and money that must come back: nothing can go on without them
    first_interval=timedelta(seconds=1),
    backoff=2.0,
    max_interval=timedelta(minutes=10),
    max_attempts=0,
    jitter=0.2,
)
AT_THE_BANK = df.RetryPolicy(  # then the payment waits at the gate, and goes out when its turn comes
    first_interval=timedelta(seconds=1), backoff=2.0, max_attempts=4, jitter=0.2
)
FOR_A_DAY = df.RetryPolicy(  # messages and bookkeeping: then a person takes over
    first_interval=timedelta(seconds=1),
    backoff=2.0,
    max_interval=timedelta(hours=1),
    max_attempts=0,
    max_elapsed=timedelta(days=1),
    jitter=0.2,
    non_retryable=("Undeliverable",),
)
IN_TIME = df.RetryPolicy(  # reminders: an old one is of no use
    first_interval=timedelta(seconds=1), backoff=2.0, max_attempts=8, jitter=0.2
)
AWAY = (429, 500, 502, 503, 504)  # the statuses of a service that is busy or down
