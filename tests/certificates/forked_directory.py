"""A parent that has asked its directory already, and a child of it: both see the change. Prints how many look in each.

python forked_directory.py DIRECTORY NEW_CERTIFICATE NEW_KEY
"""

import gc
import os
import shutil
import sys

import gevent
import gevent.os

from greentls.certificates import Directory


def watching():
    greenlets = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet)]
    return sum(not each.ready() for each in greenlets)


def look(who, source, old):
    with gevent.Timeout(100):
        # The copy of the parent's greenlet, if there is one, wakes up and goes.
        while source.get("a.example") == old or watching() != 1:
            gevent.sleep(0.01)
    os.write(1, f"{who}:{watching()}\n".encode())


def main(path, certificate, key):
    source = Directory(path, interval=0.02)
    old = source.get("a.example")
    gevent.sleep(0)  # the watching has begun
    child = gevent.os.fork()
    if not child:
        look("child", source, old)
        os._exit(0)
    shutil.copy(key, f"{path}/a.key")
    shutil.copy(certificate, f"{path}/a.pem")
    look("parent", source, old)
    _, status = gevent.os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(*sys.argv[1:])
