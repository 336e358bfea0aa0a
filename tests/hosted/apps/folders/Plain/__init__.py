"""No handle: it gets perdure's own context."""


def main(context):
    said = yield context.call_activity("Hello", "plain")
    return [said, type(context).__module__.partition(".")[0]]
