"""The functional core: history in, decisions out. No I/O, no clock, no threads, no logging.

An orchestrator is ordinary code that blocks on tasks. A `Fiber` drives one body, generator or coroutine alike:
whatever it yields must be a `Task` of its own context, and it goes on when that task is done.
An `Execution` is one orchestration being lived: it is told one arrival at a time (a start, a finished activity,
a raised event, a due timer) and after each its code runs until it blocks; what it asked for meanwhile is a list
of actions. Being told again what happened before, from history, brings it back to where it was: that is replay,
and it is the same code. During replay each action is held against what history recorded in its place the
moment it is asked for, so a disagreement is found at the very line that disagrees.
`settle` turns actions into history events, messages and effects, and never runs user code.
Time, ids and randomness are arguments; the same history gives the same decisions in any process, year or time zone.
"""
