"""Which alerts share a message: those close in time, and those with one cause. Pure."""
