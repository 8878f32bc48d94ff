"""gevent.ssl under StreamServer, as people usually write it or with TCP_NODELAY.

Without TCP_NODELAY, the second TLS 1.3 ticket waits for the client's delayed ACK.
"""

import gevent
import gevent.ssl
from common import announce, arguments, end_with_stdin
from gevent_handlers import handlers, listen

given = arguments(("--nodelay", {"action": "store_true"}))
context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(given.certificate, given.key)
announce({name: listen(handle, context, given.nodelay) for name, handle in handlers(given.block).items()})
end_with_stdin()
gevent.wait()
