"""What a hostile peer does, in families. Each attack is a function of a Peer and drives it to the end of its part.

An attack says what must come of it: peer.forged (the target may not finish its handshake), peer.doomed (the target
has to end with an error), peer.said (what it may give to its caller). Where it says nothing, both answers are right.
"""

from tests.adversary.attacks import after, during, early, hello, retry  # noqa: F401 - they add their attacks to FAMILIES
from tests.adversary.attacks.during import FORGERIES
from tests.adversary.attacks.families import FAMILIES, leave, talk
from tests.adversary.attacks.noise import NOISE

__all__ = ["FAMILIES", "FORGERIES", "NOISE", "leave", "talk"]
