"""The claims process at work: a server that you can kill, and customers and adjusters who use it over HTTP."""
