"""Patches: `context.patched(name)` lets one function hold the code of before and of after a change.

The first time an execution asks while it is living something new, the answer is True and history gets a marker. The
first time it asks while history is being replayed, the answer is whether that history has the marker: without it
the execution passed this place before the change and keeps to the old code. Either way the answer stays the same
for the whole execution, so a loop never changes its code in the middle; continue-as-new begins afresh.
Markers have no place in the order of decisions: one that today's code no longer asks for disagrees with nothing.
"""

from __future__ import annotations

from perdure.errors import OrchestratorError
from perdure.model import actions as act
from perdure.model.names import is_name, not_a_name
from perdure.replay.recorder import Recorder


def patched(recorder: Recorder, name: str) -> bool:
    """Whether this execution runs the code behind the patch."""
    known = _known(recorder, name)
    if known is not None:
        return known
    answer = not recorder._replaying
    _note(recorder, name, answer)
    if answer:
        recorder._emit(act.MarkPatch(name, False))
    return answer


def deprecate(recorder: Recorder, name: str) -> None:
    """Mark new executions as running the patch, for the case that code which asks is deployed again."""
    if _known(recorder, name) is None:
        live = not recorder._replaying
        _note(recorder, name, live)
        if live:
            recorder._emit(act.MarkPatch(name, True))


def check_version(version: str | None) -> None:
    """Refuse a version that no worker could have."""
    if version and not is_name(version):
        raise OrchestratorError(not_a_name(version, "a version"))


def _known(recorder: Recorder, name: str) -> bool | None:
    known = None if recorder._patches is None else recorder._patches.get(name)
    if known is None and not is_name(name):
        raise OrchestratorError(not_a_name(name, "the name of a patch"))
    return known


def _note(recorder: Recorder, name: str, answer: bool) -> None:
    if recorder._patches is None:
        recorder._patches = {}
    recorder._patches[name] = answer
