"""One HTTP request: its connection, its limits, its caller, and errors as problem+json."""
