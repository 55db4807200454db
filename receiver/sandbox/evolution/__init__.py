"""Evolution API, v1 and v2: its webhooks, and the few of its endpoints that a monitor calls."""
