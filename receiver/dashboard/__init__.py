"""Pages for people without a token."""
