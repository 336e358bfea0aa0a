"""Patches: `context.patched(name)` keeps the code before and after a change in one function.

If an execution first asks while it runs new code, the answer is True and history gets a marker. If it first
asks during replay, the answer is whether history has the marker: without it the execution passed this place
before the change and keeps the old code. The answer stays the same for the whole execution, so a loop never
changes its code in the middle; continue-as-new starts again. Markers have no place in the order of decisions: a
marker that the code no longer requests is no mismatch.
"""

from __future__ import annotations

from perdure.errors import OrchestratorError
from perdure.model import actions as act
from perdure.model.names import is_name, not_a_name
from perdure.replay.recorder import Recorder


def patched(recorder: Recorder, name: str) -> bool:
    """Whether this execution runs the patched code."""
    known = _known(recorder, name)
    if known is not None:
        return known
    answer = not recorder._replaying
    _note(recorder, name, answer)
    if answer:
        recorder._emit(act.MarkPatch(name, False))
    return answer


def deprecate(recorder: Recorder, name: str) -> None:
    """Mark new executions as patched, in case code with `patched` is deployed again."""
    if _known(recorder, name) is None:
        live = not recorder._replaying
        _note(recorder, name, live)
        if live:
            recorder._emit(act.MarkPatch(name, True))


def check_version(version: str | None) -> None:
    """Reject a version that no worker can have."""
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
