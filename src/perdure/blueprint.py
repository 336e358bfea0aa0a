"""Blueprints: the decorators, and functions of an application in a module of their own.

billing = Blueprint(prefix="billing-", path="/billing")

@billing.activity
def charge(order: Order) -> Receipt: ...            # registered as billing-charge

app.register_functions(billing)

A decorator checks the function, so that an error is reported at its place in the code, adds a definition to the
registry, and returns the function unchanged. So the function can be called in a test, typed, and imported elsewhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, overload

from perdure.azure_names import AzureNames
from perdure.engine.activities.executors.factories import Source, check_crossing, checked_source
from perdure.engine.core.placement import POOL_NAME, is_pool_name
from perdure.engine.functions.callables import called, is_unbound, own_name, plain, where, yields
from perdure.engine.functions.entity_definitions import check_entity
from perdure.engine.functions.registry import (
    HANDED_OUT,
    NAMED_EVENT,
    Activity,
    Definition,
    Entity,
    Orchestrator,
    Registry,
    Route,
    TaskPanel,
    activity_timeout,
    caller_locals,
    checked_name,
    orchestrator_parameters,
)
from perdure.engine.functions.versions import checked_version
from perdure.errors import RegistrationError
from perdure.model import payload
from perdure.model.durations import Seconds
from perdure.model.retry import RetryPolicy
from perdure.triggers.definitions import DELIVERIES, Queue, Schedule
from perdure.triggers.schedule_orchestration import CatchUp, Overlap, SchedulePlan
from perdure.triggers.source import QueueSource

F = TypeVar("F", bound=Callable[..., Any])
LEVELS = ("anonymous", "function", "admin")
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Blueprint(AzureNames):
    """Functions to add to an `App` with `app.register_functions(blueprint)`.

    A blueprint has the decorators of an application. Several applications can register the same blueprint.

    Parameters:
        prefix: a prefix for the name of each activity, orchestrator and entity. "billing-" makes `charge`
            "billing-charge". Code that passes functions by reference does not need the prefix.
        path: a prefix for the path of each route. It begins with a slash.
    """

    def __init__(self, *, prefix: str = "", path: str = "") -> None:
        if path and (not path.startswith("/") or path.endswith("/")):
            raise RegistrationError(
                f"Blueprint path {path!r} is invalid: it must begin with a slash and must not end with one"
            )
        self.registry = Registry()
        self._prefix = prefix
        self._path = path
        self._auth = "function"
        self._taken_by: str | None = None

    @overload
    def activity(self, function: F, /) -> F: ...
    @overload
    def activity(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        retry: RetryPolicy | None = None,
        timeout: Seconds | None = None,
        heartbeat_timeout: Seconds | None = None,
        concurrency: int | None = None,
        executor: str | Source | None = None,
        pool: str | None = None,
    ) -> Callable[[F], F]: ...
    def activity(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        retry: RetryPolicy | None = None,
        timeout: Seconds | None = None,
        heartbeat_timeout: Seconds | None = None,
        concurrency: int | None = None,
        executor: str | Source | None = None,
        pool: str | None = None,
    ) -> Any:
        """Register an activity: a function that does I/O. The function is returned unchanged.

        The function takes its input, its `ActivityContext`, both or neither, and lifespan resources by their type.
        An `async def` function runs on the event loop, a `def` function on a thread. The body can run more than once
        (after a crash, or by retry), so pass `context.idempotency_key` to external systems. Its result counts once.

        Parameters:
            name: the registered name. Default: the function's own.
            aliases: former names. Calls recorded under these names run this function.
            retry: the retry policy. Default: no retry. A call can override it.
            timeout: the time limit of one attempt in seconds. After it, the attempt fails with TimeoutError. A call
                can override it.
            heartbeat_timeout: the longest time in seconds between two calls of `context.heartbeat()`. After it, the
                attempt fails with TimeoutError. A call can override it.
            concurrency: the most runs of this activity at a time on one worker. Default: no limit of its own.
            executor: where to run the activity: a `concurrent.futures.Executor`, a function that makes one (such as
                `perdure.process_pool(workers=4)`), or the name of one registered with `executor`. The function must
                be importable by its module and name. Input, result and failure are passed as JSON.
            pool: a pool of workers. Among several workers, only those of this pool run the activity
                (`perdure run --pool gpu`). A single engine runs every activity.

        Raises:
            RegistrationError for a name that is already registered, or a function that cannot be an activity.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse(found, generators=True)
            if concurrency is not None and concurrency < 1:
                raise RegistrationError(f"{where(found)}: concurrency must be 1 or more")
            if executor is not None:
                check_crossing(found)
            if pool is not None and not is_pool_name(pool):
                raise RegistrationError(
                    f"{where(found)}: the pool name {pool!r} is invalid. A pool's name is {POOL_NAME}"
                )
            self._add(
                Activity(
                    self._name(found, name),
                    called(found),
                    localns,
                    self._aliases(found, aliases),
                    retry=retry,
                    timeout=activity_timeout(timeout),
                    heartbeat=activity_timeout(heartbeat_timeout, "heartbeat_timeout"),
                    concurrency=concurrency or 0,
                    executor=checked_source(executor, found),
                    pool=pool or "",
                )
            )
            return found

        return register if function is None else register(function)

    @overload
    def executor(self, name: str, source: Source) -> None: ...
    @overload
    def executor(self, name: str) -> Callable[[F], F]: ...
    def executor(self, name: str, source: Any = None) -> Any:
        """Register an executor for activities, to be used by its name: `@app.activity(executor="cpu")`.

        `app.executor("cpu", perdure.process_pool(workers=4))`, or as a decorator on a function that makes one:

            @app.executor("dask")
            def dask():
                with LocalCluster() as cluster, Client(cluster) as client:
                    yield client.get_executor()

        The function is called once for each engine. The executor it made is shut down with the engine, and a
        generator function is then resumed to clean up. An existing executor is not shut down.

        Raises:
            RegistrationError for a name that is already registered, or a source that is not an executor.
        """
        checked_name(name, source)

        def register(found: F) -> F:
            if isinstance(found, str):
                raise RegistrationError(
                    f"executor {name!r}: the source must be an executor or a function that makes one, not a name"
                )
            self.registry.add_executor(name, checked_source(found, found))
            return found

        if source is None:
            return register
        register(source)
        return None

    @overload
    def orchestrator(self, function: F, /) -> F: ...
    @overload
    def orchestrator(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        version: str = "",
        events: Mapping[str, Any] | None = None,
        input_type: Any = Any,
        summary: Callable[[Any], str] | None = None,
    ) -> Callable[[F], F]: ...
    def orchestrator(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        version: str = "",
        events: Mapping[str, Any] | None = None,
        input_type: Any = Any,
        summary: Callable[[Any], str] | None = None,
    ) -> Any:
        """Register an orchestrator: `def` with `yield`, or `async def` with `await`. It is returned unchanged.

        The function takes the context alone (`context.get_input()`) or the context and a typed input. Its code must
        be deterministic, because it is replayed: it takes time, ids and random values from the context and does I/O
        in activities.

        Parameters:
            name: the registered name. Default: the function's own.
            aliases: former names. Instances started under these names run this function.
            version: the version of the function. A name can be registered once for each version. An instance keeps
                the version it started with. If no function has that version, it runs the function without a version.
            events: the accepted external events: names and types. Events with other names, or with data that does not
                fit the type, are rejected when they are raised (400 over HTTP). A name with a trailing `*` is a
                prefix. Default: every event is accepted.
            input_type: the type of `context.get_input()`, if the function takes the context alone.
            summary: makes one to three words of the output of a completed instance, for the list of instances, as
                `lambda output: output["verdict"]` does. It gets the output as JSON. Default: a short custom status.

        Raises:
            RegistrationError for a name that is already registered, or a function that cannot be an orchestrator.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse_unbound(found)
            if inspect.isasyncgenfunction(plain(found)):
                raise RegistrationError(
                    f"{where(found)} is an async generator. An orchestrator uses either await or yield, not both"
                )
            definition = Orchestrator(
                self._name(found, name),
                called(found),
                localns,
                self._aliases(found, aliases),
                version=checked_version(version),
                events=_events(events, found),
                input_type=input_type,
                summary=summary,
            )
            orchestrator_parameters(found)
            self._add(definition)
            return found

        return register if function is None else register(function)

    @overload
    def entity(self, function: F, /) -> F: ...
    @overload
    def entity(
        self, function: None = None, /, *, name: str | None = None, offload: bool = False
    ) -> Callable[[F], F]: ...
    def entity(self, function: Any = None, /, *, name: str | None = None, offload: bool = False) -> Any:
        """Register an entity: a class with a method for each operation, or a function. It is returned unchanged.

        For a class, the object is the state: a whole dataclass, Struct or Pydantic model, or the attributes without a
        leading underscore of any other class. Public methods are the operations. Each takes at most one input, and
        its `EntityContext` in a parameter with that annotation. The operation "delete" deletes the state. A function
        takes its `EntityContext`, or the context and the input, and reads `operation_name`.

        An entity runs one operation at a time. A failed operation does not change the state and sends no messages.

        Parameters:
            name: the registered name, case-insensitive. Default: the function's or class's own.
            offload: run operations like activities, on threads or, for `async def`, on the event loop. Then they can
                do I/O. A body can run more than once (after a crash). Its result counts once.

        Raises:
            RegistrationError for a name that is already registered, or an object that cannot be an entity.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            check_entity(found, offload)
            self._add(Entity(self._name(found, name).lower(), called(found), localns, offload=offload))
            return found

        return register if function is None else register(function)

    def route(
        self,
        path: str | None = None,
        methods: Sequence[str] | None = None,
        *,
        auth: str | None = None,
        links: Sequence[str] = ("status",),
        route: str | None = None,
        auth_level: Any = None,
    ) -> Callable[[F], F]:
        """Register a client function as the HTTP route `/api` + `path`. It is returned unchanged.

        Its parameters are filled by their types: the Starlette `Request`, the `Client`, lifespan resources. Without a
        `path` it is Azure's decorator: `route` has no leading slash, and `route` and `methods` are optional.

        Parameters:
            path: the path, beginning with a slash.
            methods: the HTTP methods. Default: GET. With Azure's decorator: GET and POST.
            auth: anonymous, function or admin. Default: function, or the level of `DFApp`.
            links: the links in the responses of `create_check_status_response` and similar functions, for a caller
                whose key lacks the scope `operate`: any of status, raise, raise:EVENT for one event, terminate,
                purge, restart, suspend, resume, rewind. Default: a link that shows the status only. A caller with the
                scope `operate` gets all links.
            route: Azure's name for the path. Default: the function's own name.
            auth_level: Azure's name for `auth`, as text or as `azure.functions.AuthLevel`.

        Raises:
            RegistrationError for a route that is already registered, or an unknown method, `auth` or link.
        """
        localns = caller_locals()
        if path is not None and route is not None:
            raise RegistrationError(f"route {path!r}: give a path, or Azure's route={route!r}, not both")
        shown = path if path is not None else route
        given = methods or (("GET", "POST") if path is None else ("GET",))
        verbs = tuple(str(getattr(method, "value", method)).upper() for method in given)
        if (path is not None and not path.startswith("/")) or not METHODS.issuperset(verbs):
            raise RegistrationError(
                f"route {shown!r}: the path must begin with / and the methods must be HTTP methods, not {verbs}"
            )
        level = level_of(auth_level if auth is None else auth, self._auth)
        if level not in LEVELS:
            raise RegistrationError(
                f"route {shown!r}: auth must be anonymous, function or admin, not {level!r}"
            )
        handed_out = _links(shown or "", links)

        def register(found: F) -> F:
            _refuse(found, generators=True)
            template = route if route is not None else own_name(found)
            self._add(
                Route(
                    own_name(found),
                    called(found),
                    localns,
                    path=self._path + (path if path is not None else f"/{template.strip('/')}"),
                    methods=verbs,
                    auth=level,
                    links=handed_out,
                )
            )
            return found

        return register

    def task_panel(self, event: str, *, template: str | Path, on_links: bool = False) -> Callable[[F], F]:
        """Show a panel of your own beside the facts of people's tasks: photos, a score, a map.

        The decorated function takes the task (an `OpenTask`) and returns a dict with the values of the template. It
        can be `async`. The template has them, and `task` and `base`, the path of perdure's pages.

            @app.task_panel("ApproverDecision", template=HERE / "claim_panel.html")
            def claim_panel(task: df.OpenTask) -> dict[str, Any]:
                return {"photos": photos_of(task.facts["claim"])}

        Parameters:
            event: the event of the tasks.
            template: the path of a Jinja template. Every value is escaped. The pages forbid scripts and styles in
                the template, and pictures of other sites.
            on_links: show the panel on the pages of signed links as well. Their holders have no key, so the
                pictures in it need addresses that are open to them.

        If the function or the template fails, the page shows a line instead, and the log has the error.

        Raises:
            RegistrationError for an event that has a panel, and for a template that does not exist.
        """

        def register(function: F) -> F:
            _refuse(function, generators=True)
            self.registry.add_panel(TaskPanel(event, Path(template), function, on_links))
            return function

        return register

    def schedule(
        self,
        cron: str,
        *,
        timezone: str = "UTC",
        name: str | None = None,
        catch_up: CatchUp = "latest",
        overlap: Overlap = "skip",
        retry: RetryPolicy | None = None,
    ) -> Callable[[F], F]:
        """Register a client function that runs on a schedule. It is returned unchanged.

        Its parameters are filled by their types: the `Tick` it runs for, the `Client`, lifespan resources. A tick
        fires once for the hub, however many workers there are. The body can run more than once (after a crash, or by
        retry). An instance that its client starts without an id is started once for a tick.

        Parameters:
            cron: five fields (minute hour day month weekday), or six with seconds first, as in Azure's NCRONTAB.
            timezone: the time zone of the expression, such as Europe/Berlin. Clock changes are taken into account.
            name: the name of the schedule. Default: the function's own.
            catch_up: how to handle ticks that were missed while no worker ran: `latest` fires once for the last of
                them, `all` for each (at most 1,000), `skip` for none.
            overlap: how to handle a tick during a run: `skip` it, `queue` it (at most one), or `allow` both runs.
            retry: the retry policy of the function. Default: no retry.

        Raises:
            RegistrationError for an invalid expression or zone, or a name that is already registered.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse(found, generators=True)
            chosen = self._name(found, name)
            plan = SchedulePlan(chosen, cron, timezone, catch_up, overlap)
            if catch_up not in get_args(CatchUp) or overlap not in get_args(Overlap):
                raise RegistrationError(
                    f"{where(found)}: catch_up must be one of {', '.join(get_args(CatchUp))}, "
                    f"and overlap one of {', '.join(get_args(Overlap))}"
                )
            try:
                plan.when.next(0)
            except ValueError as error:
                raise RegistrationError(f"{where(found)}: {error}") from error
            self._add(Schedule(chosen, called(found), localns, plan=plan, retry=retry))
            return found

        return register

    def queue(
        self,
        source: str | QueueSource,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = DELIVERIES,
        concurrency: int = 16,
    ) -> Callable[[F], F]:
        """Register a client function that runs for each message of a queue. It is returned unchanged.

        It takes the message, decoded to its annotation, and by type the `Client`, its `ActivityContext` and lifespan
        resources. The body can run more than once for a message (after a crash, or by retry). An instance that its
        client starts without an id is started once. A message whose last attempt fails becomes a dead letter.

        Parameters:
            source: the name of a queue in the hub (`Queues(client).send(...)`), or a `QueueSource` of a broker.
            name: the name of the queue for operators. Default: the queue's own.
            retry: the retry policy of the function. Default: five attempts, 1 s, 2 s, 4 s and 8 s apart.
            concurrency: the most messages handled at a time on one worker.

        Raises:
            RegistrationError for a name that is already registered, or a concurrency below 1.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse(found, generators=True)
            if concurrency < 1:
                raise RegistrationError(f"{where(found)}: concurrency must be 1 or more")
            queue_name = source if isinstance(source, str) else source.name
            chosen = checked_name(queue_name if name is None else name, found)
            broker = None if isinstance(source, str) else source
            self._add(
                Queue(chosen, called(found), localns, source=broker, retry=retry, concurrency=concurrency)
            )
            return found

        return register

    def lifespan(self, function: F, /) -> F:
        """Register an async generator that yields resources (one, or a tuple) and cleans them up afterwards.

        An activity or client function gets a resource in a parameter that is annotated with the resource's type.
        """
        if not inspect.isasyncgenfunction(function):
            raise RegistrationError(
                f"{where(function)}: a lifespan must be an async generator that yields the resources"
            )
        self._add(Definition(own_name(function), function))
        return function

    # ----------------------------------------------------------------------------------------------- inside

    def close(self, app: str) -> None:
        """Record the application that registered this blueprint, so that functions added later are rejected."""
        self._taken_by = app

    def _add(self, definition: Definition) -> None:
        if self._taken_by is not None:
            raise RegistrationError(
                f"{where(definition.function)} is registered too late: the application {self._taken_by!r} has "
                "already registered this blueprint. Import the module with the function before "
                "app.register_functions(...)"
            )
        self.registry.add(definition)

    def _name(self, function: Callable[..., Any], name: str | None) -> str:
        return checked_name(self._prefix + (own_name(function) if name is None else name), function)

    def _aliases(self, function: Callable[..., Any], aliases: Sequence[str]) -> tuple[str, ...]:
        if isinstance(aliases, str):
            raise RegistrationError(f"{where(function)}: aliases must be a sequence of names, not a string")
        return tuple(self._name(function, alias) for alias in aliases)


def _refuse(function: Callable[..., Any], *, generators: bool) -> None:
    if isinstance(function, classmethod):
        raise RegistrationError(
            f"{where(function)} is a class method, and its class does not exist yet. Register it after the class, "
            f"with app.activity(TheClass.{function.__name__})"
        )
    _refuse_unbound(function)
    if inspect.isclass(function) or not callable(function):
        raise RegistrationError(f"{payload.title(function)} is not a function")
    if generators and yields(function):
        raise RegistrationError(
            f"{where(function)} is a generator. Only an orchestrator can yield; this function must return its result"
        )


def _refuse_unbound(function: Callable[..., Any]) -> None:
    """Raise RegistrationError for an unbound method, whose `self` would get the context or the input."""
    if is_unbound(function):
        raise RegistrationError(
            f"{where(function)} is a method without an object. Register the_object."
            f"{function.__name__}, or make it a @staticmethod without its first parameter"
        )


def level_of(given: Any, default: str) -> str:
    """The access level of a route, given as text or as Azure's AuthLevel. `default` if none is given."""
    return default if given is None else str(getattr(given, "value", given)).lower()


def _links(path: str, links: Sequence[str]) -> tuple[str, ...]:
    if isinstance(links, str):
        raise RegistrationError(
            f"route {path!r}: links must be a sequence of words, such as ('status', 'raise:Paid'), not a string"
        )
    for one in links:
        if one not in HANDED_OUT and not (one.startswith(NAMED_EVENT) and one[len(NAMED_EVENT) :].strip()):
            raise RegistrationError(
                f"route {path!r}: there is no link {one!r}. The links are {', '.join(HANDED_OUT)}, and raise:EVENT"
            )
    return tuple(links)


def _events(events: Mapping[str, Any] | None, function: object) -> Mapping[str, Any] | None:
    if events is None:
        return None
    for name in events:
        if not isinstance(name, str) or not name.strip("*") or "*" in name[:-1]:
            raise RegistrationError(
                f"{where(function)}: event name {name!r} is invalid: it must be a non-empty string, with * only "
                "at its end"
            )
    return dict(events)
