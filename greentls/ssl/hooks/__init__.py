"""The hooks that an SSLContext's callbacks and settings are compiled to."""
