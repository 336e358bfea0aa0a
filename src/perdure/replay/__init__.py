"""The functional core: history in, decisions out. No I/O, no clock, no threads, no logging.

An orchestrator is ordinary code that blocks on tasks. A `Fiber` drives one body, generator or coroutine alike:
the body yields a `Task` of its own context and continues when that task is done. An `Execution` is one running
orchestration: it receives one arrival at a time (a start, a finished activity, a raised event, a due timer),
and after each its code runs until it blocks; its decisions are a list of actions. Recorded arrivals bring the
code back to the same place: that is replay, and it is the same code. During replay each action is compared with
history as soon as the code requests it, so a mismatch is found at its line. `settle` turns actions into history
events, messages and effects, and never runs user code. Time, ids and randomness are arguments; the same history
gives the same decisions in any process, year or time zone.
"""
