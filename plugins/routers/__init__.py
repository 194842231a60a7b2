"""Which replica of a fleet serves a request: one router per file."""
