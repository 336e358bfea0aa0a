"""People's tasks over HTTP: the person comes from the key, and never from the request."""
