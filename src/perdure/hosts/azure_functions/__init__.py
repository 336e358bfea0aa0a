"""Azure Functions apps with `azure-functions-durable` 1.x, unmodified, on perdure's engine.

    folder     what stands in an app's folder: host.json, local.settings.json, the settings it is run with
    indexing   from a folder to its functions, in both programming models; every fault at once
    sdk        all that is borrowed of the inside of Azure's packages, and nothing else
    bridge     an orchestration: the user's generator, the SDK's own tasks, perdure's context underneath
    asking     what each of the SDK's actions asks of perdure
    invoking   activities, entities and client functions, with what their bindings hand them
    in_process the SDK's client, answered by the server's own routes without a socket
    application  the functions as a `perdure.App`

`perdure run FOLDER` imports this package, and with it Azure's packages, for a folder that has a host.json.
"""
