"""memcached, for the servers that keep sessions there."""

import os
import sys

from common import announce, free_port

port = free_port()
announce({"memcached": port})
sys.stdout.flush()
# If it changed its user, it would outlive a killed parent: prctl(2), PR_SET_PDEATHSIG.
user = ["-u", "root"] if os.getuid() == 0 else []
os.execvp("memcached", ["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "64", "-t", "1", *user])
