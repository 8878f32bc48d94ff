"""TLS without a loop: OpenSSL's connections and callbacks, which may wait because a greenlet may switch in them."""
