"""From an SSLContext's callbacks to the core's hooks."""
