"""The simulator: the real engine in a simulated, reproducible world.

1. All deciding code is real: `Dispatcher`, `Loop`, `Execution`, `settle` and the stores run as
   shipped, unpatched.
2. Their environment is simulated: clocks, activities, clients, crashes and the store's failures.
3. One thread runs it all, and every draw comes from one seed split by purpose; a seed therefore *is* its run.
4. A seed writes programs (orchestrations as small syntax trees), clients that use them, and a list of faults.
5. Each seed draws the kinds and the number of its faults: rare combinations get seeds of their own.
6. A tiny reference interpreter, independent of perdure, computes the possible answers of each program.
7. The ledger reads every committed batch and keeps the expected state, apart from the engine and the store.
8. Then the faults stop, and within bounded steps every instance must finish.
9. Now everything is compared: answers, histories, rows, messages, activity bodies, and the same histories
   replayed.
10. A campaign in which an interesting case never occurs proves nothing about it, so that is a failure, too.

`python -m simulation --seeds 2000 --jobs 2` runs many, `--seed N` one; a failure is shrunk and printed as a
schedule. With `--shared` several workers (`member`) serve one hub behind a model of PostgreSQL (`database`):
the same programs and clients, workers that die, freeze, leave and join, leases that expire, commits that
execute late or lose their answers; and `ownership` keeps the true owners of partitions apart from the roster.
During a long call of one worker the others run: so one thread interleaves them.
"""
