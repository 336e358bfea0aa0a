"""Queries of a remote client about people's tasks."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from perdure.engine.client.tasks import OpenTask, TaskPage
from perdure.errors import TaskClosed
from perdure.http.api.tasks import task_from
from perdure.http.mounting import quoted
from perdure.http.parameters import CONTINUATION
from perdure.http.timestamps import stamp
from perdure.model.human_tasks import Person

if TYPE_CHECKING:
    from perdure.http.remote.gateway import HttpGateway
    from perdure.http.remote.requests import Query


class RemoteTasks:
    """The queries of a `RemoteClient` about tasks. Claims and answers are messages like any other; the server takes
    the person from the key.
    """

    _remote: HttpGateway

    async def list_tasks(
        self,
        *,
        person: str = "",
        role: str = "",
        orchestrator: str = "",
        event: str = "",
        due_before: datetime | None = None,
        tags: dict[str, str] | None = None,
        text: str = "",
        top: int = 100,
        continuation: str | None = None,
        visible_to: Person | None = None,
    ) -> TaskPage:
        query: Query = {
            "person": person,
            "role": role,
            "orchestrator": orchestrator,
            "event": event,
            "dueBefore": stamp(due_before) if due_before else None,
            "tag": [f"{name}={value}" for name, value in (tags or {}).items()],
            "text": text,
            "top": top,
        }
        headers = {CONTINUATION: continuation} if continuation else {}
        found, answered = await self._remote.ask("/tasks", query, headers)
        tasks = [task_from(document) for document in found]
        if visible_to is not None:
            tasks = [task for task in tasks if task.may_be_decided_by(visible_to)]
        return TaskPage(tasks, answered.get(CONTINUATION))

    async def get_task(self, task_id: str) -> OpenTask | None:
        try:
            found, _ = await self._remote.ask(f"/tasks/{quoted(task_id)}", {})
        except TaskClosed:
            return None
        return task_from(found)


__all__ = ["RemoteTasks"]
