"""Instances of other workers, looked at for a start."""

from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.partitions import Partitions
from perdure.engine.core.ports import RandomSource
from perdure.engine.functions.registry import Registry
from perdure.engine.functions.resolved import FunctionTable
from perdure.engine.functions.versions import Versioning
from perdure.model.messages import Start
from perdure.model.records import StoredInstance
from perdure.testing.conformance import instance


def test_an_instance_of_another_worker_is_not_parked_for_what_went_wrong_here() -> None:
    territory = Partitions()
    territory.settle(1, 32, [n for n in range(32) if n != territory_of("claim-1")])
    random = RandomSource(lambda: bytes(16), lambda: 1.0)
    hub = Dispatcher(FunctionTable(Registry(), Versioning()), random, territory=territory)
    hub.quarantine["claim-1"] = "the store rejected its changes when it was this worker's"

    cold = hub.advance([Envelope(Start(instance_id="claim-1", name="x"), object())], 1)
    hub.admit(cold, [StoredInstance(instance(7, "claim-1"))])
    hub.advance((), 1)
    batch = hub.seal()

    assert cold == ["claim-1"]
    assert not batch.updates and not batch.history


def territory_of(instance_id: str) -> int:
    territory = Partitions()
    territory.partitions = 32
    return territory.partition_of(instance_id)
