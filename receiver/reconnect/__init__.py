"""The page behind a reconnect link."""
