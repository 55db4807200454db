"""`zapwatch demo`: the service beside a sandbox fleet that misbehaves, for a look at what it does."""
