"""The only floor that touches OpenSSL's C: ``library`` has its functions, ``symbols`` finds those that are hidden."""
