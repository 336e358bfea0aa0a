"""Activities: run after the commit that scheduled them."""

from perdure.engine.activities.pool import ActivityPool
from perdure.engine.activities.ports import Concurrency
from perdure.engine.activities.results import completed, failed
from perdure.engine.activities.runner import Attempt, Runner

__all__ = ["ActivityPool", "Attempt", "Concurrency", "Runner", "completed", "failed"]
