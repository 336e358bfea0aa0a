"""The simulator: the real engine in an invented world, to be believed because it can be repeated.

1. Everything that decides is real: `Dispatcher`, `Loop`, `Execution`, `settle` and the stores run as
   shipped, unpatched.
2. Everything that happens to them is invented: clocks, activities, clients, crashes and the store's failures.
3. One thread runs it all, and every draw comes from one seed split by purpose; a seed therefore *is* its run.
4. A seed writes programs (orchestrations as small syntax trees), clients that use them, and a list of faults.
5. Which faults occur at all, and how often, is drawn for each seed anew: rare combinations get seeds of their own.
6. A tiny reference interpreter, which knows nothing of perdure, says what each program may answer.
7. The ledger reads every committed batch and keeps the truth apart from the engine and from the store.
8. Then the world heals: no more faults, and within bounded steps every instance must have come to its end.
9. Now everything is compared: answers, histories, rows, messages, activity bodies, and the same histories replayed.
10. A run in which an interesting case never came up proves nothing about it, so that is a failure, too.

`python -m simulation --seeds 2000 --jobs 2` runs many, `--seed N` one; a failure is shrunk and told as a schedule.
With `--shared` several workers (`member`) serve one hub behind a model of PostgreSQL (`database`): the same programs
and clients, workers that die, stand still, leave and join, leases that run out, commits that land late or are not
heard of; and `ownership` keeps the truth about partitions apart from the roster. Where a call of one worker takes
long, the others live on inside it: that is how one thread comes to interleave them.
"""
