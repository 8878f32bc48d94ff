"""The only floor that touches OpenSSL's C: ``library`` has its functions, ``symbols`` finds those that are hidden.

``use`` chooses another OpenSSL than cryptography's.
"""

from greentls.openssl.foundation import use

__all__ = ["use"]
