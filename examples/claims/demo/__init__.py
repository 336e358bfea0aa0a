"""The claims process at work: a server that may be killed, and customers and a desk that use it by HTTP."""
