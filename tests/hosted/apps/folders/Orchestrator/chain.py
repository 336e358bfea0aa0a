import azure.durable_functions as df

from ..shared_code import names


def orchestrate(context: df.DurableOrchestrationContext):
    said = []
    for city in context.get_input():
        greeting = yield context.call_activity(names.HELLO, city)
        said += [greeting]
    total = yield context.call_entity(df.EntityId("Old", "x"), "add", len(said))
    return [said, total]


chained = df.Orchestrator.create(orchestrate)
