"""The decorators, and a part of an application in a module of its own.

billing = Blueprint(prefix="billing-", path="/billing")

@billing.activity
def charge(order: Order) -> Receipt: ...            # registered as billing-charge

app.register_functions(billing)

A decorator checks what can be checked at once, so that a mistake shows where it was made, notes a definition in
the registry, and gives the function back unchanged: it can be tested by calling it, typed, and imported elsewhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
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
    """Functions that an `App` takes over with `app.register_functions(blueprint)`.

    It has the application's decorators. Several applications may register the same blueprint.

    Parameters:
        prefix: put before the name of each activity, orchestrator and entity; "billing-" makes `charge`
            "billing-charge". Functions passed by reference need not know it.
        path: put before the path of each route; begins with a slash.
    """

    def __init__(self, *, prefix: str = "", path: str = "") -> None:
        if path and (not path.startswith("/") or path.endswith("/")):
            raise RegistrationError(
                f"a blueprint's path begins with a slash and ends without one, not {path!r}"
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
        """Register a function that does the I/O. It is returned unchanged.

        It takes its input, its `ActivityContext`, both, or neither, and lifespan resources by their type.
        `async def` ones run on the event loop, `def` ones on threads. The body may run more than once (after a
        crash, or by retry): use `context.idempotency_key` towards the outside. Its result counts once.

        Parameters:
            name: the registered name; default the function's own.
            aliases: names it had before: calls recorded under these are calls of this function.
            retry: how failures are tried again; default not at all. A call may override it.
            timeout: seconds one attempt may take; then it fails with TimeoutError. A call may override it.
            heartbeat_timeout: seconds one attempt may go without `context.heartbeat()`; then it fails with
                TimeoutError. A call may override it.
            concurrency: how many of this activity run at a time on one worker; default no limit of its own.
            executor: where to run it instead: a `concurrent.futures.Executor`, a function that makes one (such as
                `perdure.process_pool(workers=4)`), or the name of one registered with `executor`. The function
                must be importable by its module and name; input, result and failure cross as JSON.
            pool: where several workers serve the hub, only those that serve the pool of this name run it
                (`perdure run --pool gpu`); an engine that has its hub to itself runs everything.

        Raises:
            RegistrationError for a name that is taken, or a function that cannot be an activity.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse(found, generators=True)
            if concurrency is not None and concurrency < 1:
                raise RegistrationError(f"{where(found)}: concurrency is 1 or more")
            if executor is not None:
                check_crossing(found)
            if pool is not None and not is_pool_name(pool):
                raise RegistrationError(f"{where(found)}: a pool's name is {POOL_NAME}, not {pool!r}")
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
        """Register an executor for activities, which name it: `@app.activity(executor="cpu")`.

        `app.executor("cpu", perdure.process_pool(workers=4))`, or as a decorator on a function that makes one:

            @app.executor("dask")
            def dask():
                with LocalCluster() as cluster, Client(cluster) as client:
                    yield client.get_executor()

        A function is called once for each engine that runs; what it made is shut down with the engine, and a
        generator then runs to its end. An executor given ready-made is left to its owner.

        Raises:
            RegistrationError for a name that is taken, or for what is no source of executors.
        """
        checked_name(name, source)

        def register(found: F) -> F:
            if isinstance(found, str):
                raise RegistrationError(
                    f"executor {name!r}: give an executor or a function that makes one, not a name"
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
    ) -> Any:
        """Register an orchestrator: `def` with `yield`, or `async def` with `await`. It is returned unchanged.

        It takes the context alone (`context.get_input()`) or the context and a typed input. Its code must do the
        same again when it is replayed: time, ids and randomness come from the context, I/O from activities.

        Parameters:
            name: the registered name; default the function's own.
            aliases: names it had before: instances started under these run this function.
            version: a name may be registered once for each version. An instance stays with the version it
                started with; where none is registered for it, it runs the function registered without one.
            events: the door: names of external events and their types. Other names, and bodies that do not
                fit, are refused when they are raised (400 over HTTP). A trailing `*` admits every name that
                begins so. Without it every event is admitted.
            input_type: what `context.get_input()` gives, where the function takes the context alone.

        Raises:
            RegistrationError for a name that is taken, or a function that cannot be an orchestrator.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse_unbound(found)
            if inspect.isasyncgenfunction(plain(found)):
                raise RegistrationError(
                    f"{where(found)} is an async generator: use await, or yield, not both"
                )
            definition = Orchestrator(
                self._name(found, name),
                called(found),
                localns,
                self._aliases(found, aliases),
                version=checked_version(version),
                events=_events(events, found),
                input_type=input_type,
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

        Of a class, the object is the state: a dataclass, Struct or Pydantic model as a whole, of another class
        its attributes that do not begin with an underscore. Public methods are the operations; each takes at
        most one input, and its `EntityContext` where a parameter is annotated so. Operation "delete" deletes.
        A function takes its `EntityContext`, or that and the input, and looks at `operation_name`.

        An entity does one operation at a time. One that fails leaves the state as it was and sends nothing.

        Parameters:
            name: the registered name, in which case does not matter; default the function's or class's own.
            offload: run operations like activities: on threads, or on the event loop if `async def`. Then they
                may do I/O; a body may run more than once (after a crash), what it comes to counts once.

        Raises:
            RegistrationError for a name that is taken, or what cannot be an entity.
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
        """Register a client function behind HTTP: `/api` + `path`. It is returned unchanged.

        It receives by type what it asks for: the Starlette `Request`, the `Client`, lifespan resources. Without a
        `path` it is Azure's decorator: `route` has no slash in front, and `route` and `methods` may be left out.

        Parameters:
            methods: default GET; of Azure's decorator GET and POST.
            auth: anonymous, function or admin; default function, or what `DFApp` says.
            links: what `create_check_status_response` and its like hand a caller whose key does not have the
                scope `operate`: any of status, raise, raise:EVENT for one event, terminate, purge, restart,
                suspend, resume, rewind. Default is a link that shows the status and nothing else. A caller who may
                operate gets all links.
            route: Azure's name for the path; default the function's own name.
            auth_level: Azure's name for `auth`, as text or as `azure.functions.AuthLevel`.

        Raises:
            RegistrationError for a route that is taken, or for a method, `auth` or link that there is not.
        """
        localns = caller_locals()
        if path is not None and route is not None:
            raise RegistrationError(f"route {path!r}: give a path, or Azure's route={route!r}, not both")
        shown = path if path is not None else route
        given = methods or (("GET", "POST") if path is None else ("GET",))
        verbs = tuple(str(getattr(method, "value", method)).upper() for method in given)
        if (path is not None and not path.startswith("/")) or not METHODS.issuperset(verbs):
            raise RegistrationError(
                f"route {shown!r}: a path begins with / and methods are HTTP's, not {verbs}"
            )
        level = level_of(auth_level if auth is None else auth, self._auth)
        if level not in LEVELS:
            raise RegistrationError(f"route {shown!r}: auth is anonymous, function or admin, not {level!r}")
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
        """Register a client function that a clock calls. It is returned unchanged.

        It takes, by type, the `Tick` it runs for, the `Client`, lifespan resources: any of them, or none. A tick
        fires once for the hub, however many workers it has. The body may run more than once (after a crash, or
        by retry); what its client starts without an id, it starts once for a tick.

        Parameters:
            cron: five fields (minute hour day month weekday), or six with seconds first, as Azure's NCRONTAB.
            timezone: the zone the expression is read in, such as Europe/Berlin; clock changes are heeded.
            name: what operators call it; default the function's own name.
            catch_up: what becomes of ticks that passed while nothing ran: `latest` fires once for the last of
                them, `all` for each (1,000 at most), `skip` for none.
            overlap: when a tick comes while the one before is still running: `skip` it, `queue` it (one at
                most), or `allow` both.
            retry: how a body that failed is tried again; default not at all.

        Raises:
            RegistrationError for an expression or a zone that cannot be read, or a name that is taken.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse(found, generators=True)
            chosen = self._name(found, name)
            plan = SchedulePlan(chosen, cron, timezone, catch_up, overlap)
            if catch_up not in get_args(CatchUp) or overlap not in get_args(Overlap):
                raise RegistrationError(
                    f"{where(found)}: catch_up is one of {', '.join(get_args(CatchUp))}, "
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
        """Register a client function that is handed each message of a queue. It is returned unchanged.

        It takes the message, decoded to its annotation, and by type the `Client`, its `ActivityContext`,
        lifespan resources. The body may run more than once for a message (after a crash, or by retry); what
        its client starts without an id, it starts once. A message whose last attempt fails is a dead letter.

        Parameters:
            source: the name of a queue in the hub's own store (`Queues(client).send(...)`), or a `QueueSource`.
            name: what operators call it; default the queue's name.
            retry: how a body that failed is tried again; default five attempts, 1 s, 2 s, 4 s, 8 s apart.
            concurrency: how many messages are handled at a time on one worker.

        Raises:
            RegistrationError for a name that is taken, or a concurrency below 1.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse(found, generators=True)
            if concurrency < 1:
                raise RegistrationError(f"{where(found)}: concurrency is 1 or more")
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

        Activities and client functions receive a resource by annotating a parameter with its type.
        """
        if not inspect.isasyncgenfunction(function):
            raise RegistrationError(
                f"{where(function)}: a lifespan is an async generator: `yield` the resources"
            )
        self._add(Definition(own_name(function), function))
        return function

    # ----------------------------------------------------------------------------------------------- inside

    def close(self, app: str) -> None:
        """Note that an application took it over: what came later would be in none."""
        self._taken_by = app

    def _add(self, definition: Definition) -> None:
        if self._taken_by is not None:
            raise RegistrationError(
                f"{where(definition.function)} comes too late: this blueprint is already registered in the "
                f"application {self._taken_by!r}, which would not have it. Import the module with the "
                "function before app.register_functions(...)"
            )
        self.registry.add(definition)

    def _name(self, function: Callable[..., Any], name: str | None) -> str:
        return checked_name(self._prefix + (own_name(function) if name is None else name), function)

    def _aliases(self, function: Callable[..., Any], aliases: Sequence[str]) -> tuple[str, ...]:
        if isinstance(aliases, str):
            raise RegistrationError(f"{where(function)}: aliases is a sequence of names, not one name")
        return tuple(self._name(function, alias) for alias in aliases)


def _refuse(function: Callable[..., Any], *, generators: bool) -> None:
    if isinstance(function, classmethod):
        raise RegistrationError(
            f"{where(function)} is a class method of a class that is not there yet: register it behind the class, "
            f"by app.activity(TheClass.{function.__name__})"
        )
    _refuse_unbound(function)
    if inspect.isclass(function) or not callable(function):
        raise RegistrationError(f"{payload.title(function)} is not a function")
    if generators and yields(function):
        raise RegistrationError(
            f"{where(function)} is a generator: only orchestrators yield; an activity returns its result"
        )


def _refuse_unbound(function: Callable[..., Any]) -> None:
    """Raise RegistrationError for a method of a class, whose `self` would take the place of the context or input."""
    if is_unbound(function):
        raise RegistrationError(
            f"{where(function)} is a method, and no object is bound to it: register it as the_object."
            f"{function.__name__}, or put @staticmethod on it and leave out its first parameter"
        )


def level_of(given: Any, default: str) -> str:
    """Who may call a route: as text, or as Azure's AuthLevel."""
    return default if given is None else str(getattr(given, "value", given)).lower()


def _links(path: str, links: Sequence[str]) -> tuple[str, ...]:
    if isinstance(links, str):
        raise RegistrationError(
            f"route {path!r}: links is a sequence of words, such as ('status', 'raise:Paid')"
        )
    for one in links:
        if one not in HANDED_OUT and not (one.startswith(NAMED_EVENT) and one[len(NAMED_EVENT) :].strip()):
            raise RegistrationError(
                f"route {path!r}: there is no link {one!r}; there are {', '.join(HANDED_OUT)}, and raise:EVENT"
            )
    return tuple(links)


def _events(events: Mapping[str, Any] | None, function: object) -> Mapping[str, Any] | None:
    if events is None:
        return None
    for name in events:
        if not isinstance(name, str) or not name.strip("*") or "*" in name[:-1]:
            raise RegistrationError(
                f"{where(function)}: event name {name!r}: a non-empty string, with * only at its end"
            )
    return dict(events)
