"""The only floor that touches OpenSSL's C: ``symbols`` finds hidden functions, ``binding`` types and wraps the rest."""
