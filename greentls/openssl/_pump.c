/* The compiled pump. pump.py tells what a pump is, and is the same in Python; this is its twin, verb by verb.

   What C makes simple is that nobody comes between. Python runs signal handlers, finalizers and other greenlets between
   two bytecodes, and here there are none: the GIL is held but for the calls into OpenSSL, and descriptors never block.
   So a receive and its BIO_write(), or a look at the outgoing BIO, the send and the BIO_read() that takes away what was
   sent, are each one step to everybody else. Ciphertext that a descriptor does not take simply stays in the BIO.

   OpenSSL calls back while the GIL is given back. Callbacks are Python's: they may switch to another greenlet, which
   may be in here with another pump, or with this one, to send. Therefore

   - whatever belongs to a call is on the C stack, which a switch takes away and brings back, or has one owner
     (spare_plain); the buffer that is received into is shared, since nothing can switch while it is in use;
   - an SSL* has one occupant. It is noted before the call into OpenSSL and after the checks, with no Python between;
   - a verb holds a reference to its pump, so that neither the collector nor an exception takes it away;
   - the SSL* is freed with the pump's memory, when nobody can call a method of it any more. It is not Python's object, so
     the collector, which calls the finalizers of garbage in any order, cannot free it before one that uses it;
   - SSL_get_error(3) is asked before the GIL is taken again.

   A pause (has_paused()) switches, too. Nobody is inside OpenSSL then, and the verb owns no buffer.

   OpenSSL's functions come as addresses: no header and no library of it is needed to build this, and the very library
   is called that Python's side calls. */

#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE */
#endif
#ifndef MSG_MORE
#define MSG_MORE 0
#endif

#define CONTRACT 18 /* pump.py has the same number, or does not use this file */

/* What a verb answers besides a length: pump.py explains them. */
enum { DONE = 1, WANT_READ = 0, CLOSED = -1, WANT_WRITE = -2, ENDED = -3, SPENT = -4, UNSENT = -5 };
enum { FAILED = INT_MIN }; /* a Python exception is set */

enum { RECORD_SIZE = 16384, RECEIVE_SIZE = 65536, SEND_SIZE = 131072 + 4096 };
enum { MAX_UNSENT = 16384, TURN = 128, PER_UNIT = 4096, BULKY = 4096, HEADER_SIZE = 5 };

/* ssl.h, err.h, sslerr.h: numbers that OpenSSL cannot change any more */
enum { SSL_ERROR_WANT_READ = 2, SSL_ERROR_SYSCALL = 5, SSL_ERROR_ZERO_RETURN = 6 };
enum { SSL_SENT_SHUTDOWN = 1, SSL_RECEIVED_SHUTDOWN = 2, SSL_CB_CONNECT_EXIT = 0x1002, SSL_CB_ACCEPT_EXIT = 0x2002 };
enum { REASON_MASK = 0x7FFFFF, SSL_R_SHUTDOWN_WHILE_IN_INIT = 407 };

#ifdef _MSC_VER
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

static struct {
    void *(*SSL_new)(void *);
    void (*SSL_free)(void *);
    void (*SSL_set_accept_state)(void *);
    void (*SSL_set_connect_state)(void *);
    void (*SSL_set_bio)(void *, void *, void *);
    void (*SSL_set_shutdown)(void *, int);
    const void *(*BIO_s_mem)(void);
    void *(*BIO_new)(const void *);
    int (*BIO_free)(void *);
    int (*SSL_do_handshake)(void *);
    int (*SSL_read)(void *, void *, int);
    int (*SSL_write)(void *, const void *, int);
    int (*SSL_shutdown)(void *);
    int (*SSL_get_error)(const void *, int);
    int (*SSL_get_shutdown)(const void *);
    int (*BIO_read)(void *, void *, int);
    int (*BIO_write)(void *, const void *, int);
    long (*BIO_get_mem_data)(void *, char **);
    unsigned long (*ERR_peek_error)(void);
    void (*ERR_clear_error)(void);
    ssize_t (*recv)(int, void *, size_t, int);
    ssize_t (*send)(int, const void *, size_t, int);
} call;
enum { FUNCTIONS = sizeof(call) / sizeof(call.recv) };

static PyTypeObject *pump_type;
static PyObject *running; /* {SSL*: its Pump} of those that are inside OpenSSL, the last one last */
static PyObject *getcurrent, *ssl_at, *bio_at, *save_errors, *restore_errors;
static PyObject *no_text, *nobody;
static PyObject *n_handshake, *n_read, *n_write, *n_shutdown, *n_send, *n_receive;
static PyObject *a_config, *a_first, *a_handshake, *a_hello, *a_bindings, *a_server_name;
static PyObject *m_refusal, *m_failed, *m_not_now, *m_left, *m_next, *m_switch, *m_start, *m_stop;

static unsigned long long threads; /* that have been here */
static THREAD_LOCAL unsigned long long this_thread;

/* The one that entered OpenSSL last in this thread, or whose callback has returned last. It is inside, or this is NULL. */
static THREAD_LOCAL struct Pump *entered;

static char received_data[RECEIVE_SIZE];
static char *spare_plain; /* the buffer for plaintext that nobody owns */

typedef struct Pump {
    PyObject_HEAD
    void *c_ssl, *c_incoming, *c_outgoing;
    PyObject *ssl;    /* cffi's pointer, the key in running */
    PyObject *socket; /* keeps the descriptor open */
    int descriptor;   /* -1: none */
    PyObject *name, *dead, *failure, *entrant, *hub, *ask;
    PyObject *pause, *pause_on[2]; /* pause_by()'s */
    long long received, drained_at;
    int budget, messages;
    long ours; /* bytes at the front of the outgoing BIO that are a writer's, and what came before it */
    unsigned long long thread, waits; /* numbers of threads; 0: none */
    unsigned long long inside;        /* the occupant's */
    char busy, server_side, established, writable, eof, emptied, eager, attended, awaited, bulky, whole_records, leaving;
    char waiting, crowded, watched, patient;
    char blocked;  /* the descriptor has not taken all that it was given */
    char asks_for; /* in its hello, NOBODY or SOMEBODY, if on_client_hello() has dealt with it */
    unsigned char header[HEADER_SIZE];
    int header_length;
    int missing; /* bytes of the record whose header has come */
} Pump;

/* -- inside OpenSSL ------------------------------------------------------------------------------------------------ */

static void
keep(PyObject **where, PyObject *what)
{
    PyObject *before = *where;
    Py_INCREF(what);
    *where = what;
    Py_XDECREF(before);
}

static int
is_true(PyObject *thing)
{
    return thing != NULL && thing != Py_None && PyObject_IsTrue(thing) == 1;
}

static void
raise(PyObject *failed)
{
    if (failed != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(failed), failed);
        Py_DECREF(failed);
    }
}

/* Whether the running greenlet is the one that entered last, and so was admitted. -1: an exception. */
static int
was_admitted(Pump *pump)
{
    PyObject *entrant = pump->entrant, *who, *me;
    if (entrant == NULL || entrant == nobody) {
        return 0;
    }
    Py_INCREF(entrant);
    who = PyObject_CallNoArgs(entrant);
    Py_DECREF(entrant);
    if (who == NULL) {
        return -1;
    }
    me = PyObject_CallNoArgs(getcurrent);
    Py_DECREF(who); /* it runs, or is not the one: somebody else has a reference */
    if (me == NULL) {
        return -1;
    }
    Py_DECREF(me);
    return who == me;
}

static unsigned long long
thread_number(void)
{
    if (this_thread == 0) {
        this_thread = ++threads; /* under the GIL */
    }
    return this_thread;
}

static int
is_made(Pump *pump)
{
    if (pump->ssl == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Pump.__init__() was not called");
    }
    return pump->ssl != NULL;
}

/* Raises what refusal() returns. */
static int
refuse(Pump *pump, PyObject *name)
{
    raise(PyObject_CallMethodObjArgs((PyObject *)pump, m_refusal, name, NULL));
    return -1;
}

/* Notes who enters, or raises what forbids it: somebody is inside, an operation has failed for good, or this is the
   wrong thread, or the hub. 0, or -1 with an exception. */
static int
may_enter(Pump *pump, PyObject *name)
{
    PyObject *me, *entrant, *before;
    unsigned long long thread = thread_number();
    int admitted;
    if (!is_made(pump) || (admitted = was_admitted(pump)) < 0) {
        return -1;
    }
    if (admitted) {
        return pump->busy || is_true(pump->dead) ? refuse(pump, name) : 0;
    }
    if ((me = PyObject_CallNoArgs(getcurrent)) == NULL) {
        return -1;
    }
    entrant = PyWeakref_NewRef(me, NULL); /* may run the collector, and so Python: the checks come behind it */
    Py_DECREF(me);                        /* it runs */
    if (entrant == NULL) {
        return -1;
    }
    if (pump->busy || is_true(pump->dead) || (me == pump->hub && name != n_shutdown) || thread == pump->waits ||
        (pump->thread != 0 && pump->thread != thread)) {
        Py_DECREF(entrant);
        return refuse(pump, name);
    }
    before = pump->entrant;
    pump->thread = thread;
    pump->entrant = entrant;
    Py_XDECREF(before);
    return 0;
}

static int
enter(Pump *pump, PyObject *name, PyObject **found)
{
    PyObject *before;
    *found = NULL;
    if (may_enter(pump, name) < 0) {
        return -1;
    }
    if (PyDict_SetItem(running, pump->ssl, (PyObject *)pump) < 0) {
        return -1;
    }
    pump->busy = 1;
    entered = pump;
    pump->inside = thread_number();
    before = pump->name;
    Py_INCREF(name);
    pump->name = name;
    Py_XDECREF(before);
    return 0;
}

/* Keeps an exception that is set. */
static void
leave(Pump *pump, PyObject *found)
{
    PyObject *type, *value, *traceback;
    pump->busy = 0;
    if (entered == pump) {
        entered = NULL;
    }
    PyErr_Fetch(&type, &value, &traceback);
    if (PyDict_DelItem(running, pump->ssl) < 0) {
        PyErr_WriteUnraisable((PyObject *)pump);
    }
    if (found != NULL) {
        if (PyDict_Size(running) > 0) { /* they are those of an operation that was interrupted */
            PyObject *done = PyObject_CallFunctionObjArgs(restore_errors, found, NULL);
            if (done == NULL) {
                PyErr_WriteUnraisable(restore_errors);
            }
            Py_XDECREF(done);
        }
        Py_DECREF(found);
    }
    if (pump->awaited) {
        PyObject *done;
        pump->awaited = 0;
        done = PyObject_CallMethodObjArgs((PyObject *)pump, m_left, NULL);
        if (done == NULL && type == NULL) {
            return; /* a signal handler's */
        }
        if (done == NULL) {
            PyErr_WriteUnraisable((PyObject *)pump);
        }
        Py_XDECREF(done);
    }
    PyErr_Restore(type, value, traceback);
}

/* What an operation came to: a positive number, WANT_READ, CLOSED, or FAILED with *failed set to what is to be raised,
   or with an exception. */
static int
outcome(Pump *pump, PyObject *name, int result, int error, PyObject **failed)
{
    if (pump->failure == NULL || pump->failure == Py_None) {
        if (result > 0) {
            return result;
        }
        if (error == SSL_ERROR_WANT_READ) {
            return WANT_READ;
        }
        if (error == SSL_ERROR_ZERO_RETURN ||
            (error == SSL_ERROR_SYSCALL && (call.SSL_get_shutdown(pump->c_ssl) & SSL_RECEIVED_SHUTDOWN) &&
             !call.ERR_peek_error())) {
            return CLOSED;
        }
    }
    *failed = PyObject_CallMethodObjArgs((PyObject *)pump, m_failed, name,
                                         result <= 0 && error != SSL_ERROR_WANT_READ ? Py_True : Py_False, NULL);
    return FAILED;
}

static int
shut(void *ssl)
{
    int result = call.SSL_shutdown(ssl);
    if (result < 0 && (call.ERR_peek_error() & REASON_MASK) == SSL_R_SHUTDOWN_WHILE_IN_INIT) {
        call.ERR_clear_error();
        result = call.SSL_do_handshake(ssl);
        if (result > 0) {
            result = call.SSL_shutdown(ssl);
        }
    }
    if (!call.ERR_peek_error()) {
        return result + (result >= 0);
    }
    return result > 0 ? -1 : result;
}

/* One SSL_* function, whose callbacks may wait: as outcome(), with the exception raised. */
static int
operate(Pump *pump, PyObject *name, void *data, int length)
{
    PyObject *found, *failed = NULL;
    PyThreadState *thread;
    int result, error = 0;
    if (enter(pump, name, &found) < 0) {
        return FAILED;
    }
    if (call.ERR_peek_error()) {
        found = PyObject_CallNoArgs(save_errors);
        if (found == NULL) {
            leave(pump, NULL);
            return FAILED;
        }
    }
    thread = PyEval_SaveThread();
    if (name == n_read) {
        result = call.SSL_read(pump->c_ssl, data, length);
    }
    else if (name == n_write) {
        result = call.SSL_write(pump->c_ssl, data, length);
    }
    else if (name == n_handshake) {
        result = call.SSL_do_handshake(pump->c_ssl);
    }
    else {
        result = shut(pump->c_ssl);
    }
    if (result <= 0) {
        error = call.SSL_get_error(pump->c_ssl, result);
    }
    PyEval_RestoreThread(thread);
    result = outcome(pump, name, result, error, &failed);
    leave(pump, found);
    if (result == FAILED) {
        raise(failed);
    }
    else if (PyErr_Occurred()) {
        return FAILED;
    }
    return result;
}

/* 1, with an exception: another thread is inside OpenSSL, without the GIL, so that the BIOs are not to be touched. */
static int
is_elsewhere(Pump *pump, PyObject *name)
{
    if (!is_made(pump)) {
        return 1;
    }
    return pump->busy && pump->inside != thread_number() && refuse(pump, name);
}

/* -- the descriptor ------------------------------------------------------------------------------------------------ */

static long
pending(void *bio)
{
    char *start;
    return call.BIO_get_mem_data(bio, &start);
}

static void
discard(void *bio, long length)
{
    char scratch[RECORD_SIZE];
    while (length > 0) {
        int some = call.BIO_read(bio, scratch, (int)(length < RECORD_SIZE ? length : RECORD_SIZE));
        if (some <= 0) {
            return;
        }
        length -= some;
    }
}

/* DONE: all is sent. WANT_WRITE. FAILED: an OSError. */
static int
push(Pump *pump)
{
    if (is_elsewhere(pump, n_send)) {
        return FAILED;
    }
    for (;;) {
        char *start;
        long length = call.BIO_get_mem_data(pump->c_outgoing, &start);
        ssize_t sent;
        if (length <= 0) {
            pump->blocked = 0;
            return DONE;
        }
        pump->blocked = 1;
        pump->bulky |= length > BULKY;
        if (pump->descriptor < 0) {
            errno = EBADF;
            PyErr_SetFromErrno(PyExc_OSError);
            return FAILED;
        }
        if (length > SEND_SIZE) {
            length = SEND_SIZE;
        }
        sent = call.send(pump->descriptor, start, (size_t)length, pump->leaving ? MSG_NOSIGNAL | MSG_MORE : MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return WANT_WRITE;
        }
        if (sent < 0 && errno == EINTR) {
            if (PyErr_CheckSignals() < 0) { /* may run Python: the BIO may be another's turn now */
                return FAILED;
            }
            continue;
        }
        if (sent < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return FAILED;
        }
        if (sent > length) {
            PyErr_SetString(PyExc_SystemError, "send() has sent more than there is");
            return FAILED;
        }
        discard(pump->c_outgoing, sent);
        pump->ours -= sent < pump->ours ? sent : pump->ours;
        if (sent < length) {
            return WANT_WRITE;
        }
    }
}

static void
note_records(Pump *pump, const unsigned char *data, long length)
{
    while (length > 0) {
        long some = pump->missing < length ? pump->missing : length;
        pump->missing -= (int)some;
        data += some;
        length -= some;
        while (length > 0 && pump->header_length < HEADER_SIZE) {
            pump->header[pump->header_length++] = *data++;
            length--;
        }
        if (pump->header_length == HEADER_SIZE) {
            pump->missing = pump->header[3] << 8 | pump->header[4];
            pump->header_length = 0;
        }
    }
}

/* Ciphertext in *length, or the end, for whom there is room in `received_data`. DONE, WANT_READ, FAILED. */
static int
pull(Pump *pump, int *length)
{
    if (is_elsewhere(pump, n_receive)) {
        return FAILED;
    }
    for (;;) {
        size_t wanted = RECEIVE_SIZE;
        ssize_t some;
        if (pump->budget <= 0 || (pump->emptied && !pump->eager)) {
            pump->emptied = 0;
            return WANT_READ;
        }
        if (pump->descriptor < 0) {
            errno = EBADF;
            PyErr_SetFromErrno(PyExc_OSError);
            return FAILED;
        }
        if (pump->whole_records) {
            int rest = pump->missing ? pump->missing : HEADER_SIZE - pump->header_length;
            wanted = rest < RECEIVE_SIZE ? (size_t)rest : RECEIVE_SIZE;
        }
        some = call.recv(pump->descriptor, received_data, wanted, 0);
        if (some < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return WANT_READ;
        }
        if (some < 0 && errno == EINTR) {
            if (PyErr_CheckSignals() < 0) {
                return FAILED;
            }
            continue;
        }
        if (some < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return FAILED;
        }
        if (some > (ssize_t)wanted) {
            PyErr_SetString(PyExc_SystemError, "recv() has received more than there is room for");
            return FAILED;
        }
        if (some == 0) {
            pump->eof = 1;
        }
        else if (call.BIO_write(pump->c_incoming, received_data, (int)some) != some) {
            PyErr_NoMemory();
            return FAILED;
        }
        if (pump->whole_records) {
            note_records(pump, (unsigned char *)received_data, (long)some);
        }
        pump->received++;
        pump->budget -= 1 + (int)(some / PER_UNIT);
        pump->bulky |= some > BULKY;
        pump->emptied = some > 0 && (size_t)some < wanted;
        *length = (int)some;
        return DONE;
    }
}

/* A server's peer may have said all it wanted and left before its tickets or answers came: what it said is read. */
static int
push_or_forget(Pump *pump)
{
    int sent = push(pump);
    if (sent == FAILED && pump->server_side && pump->established &&
        (PyErr_ExceptionMatches(PyExc_BrokenPipeError) || PyErr_ExceptionMatches(PyExc_ConnectionResetError))) {
        PyErr_Clear();
        discard(pump->c_outgoing, LONG_MAX);
        pump->ours = pump->blocked = 0;
        return DONE;
    }
    return sent;
}

static int
refill(Pump *pump)
{
    int length;
    if (pump->socket == NULL) {
        return WANT_READ;
    }
    if (pending(pump->c_outgoing) > 0) {
        int sent = push_or_forget(pump);
        if (sent == FAILED) {
            return FAILED;
        }
        if (sent == WANT_WRITE && (!pump->attended || pending(pump->c_outgoing) - pump->ours > MAX_UNSENT)) {
            return WANT_WRITE;
        }
    }
    return pull(pump, &length);
}

/* Calls a function that waits until the socket can be read, unless somebody else waits for that: 0. 1: it has returned.
   -1: an exception. Its arguments: up to two, then NULL. */
static int
wait_to_receive(Pump *pump, PyObject *function, PyObject *first, PyObject *second)
{
    PyObject *done, *type, *value, *traceback;
    if (pump->waiting) {
        return 0;
    }
    pump->waiting = 1;
    Py_INCREF(function);
    Py_XINCREF(first);
    Py_XINCREF(second);
    done = PyObject_CallFunctionObjArgs(function, first, second, NULL);
    Py_DECREF(function);
    Py_XDECREF(first);
    Py_XDECREF(second);
    pump->waiting = 0;
    if (pump->crowded) {
        PyObject *told;
        PyErr_Fetch(&type, &value, &traceback);
        pump->crowded = 0;
        told = PyObject_CallMethodObjArgs((PyObject *)pump, m_next, NULL);
        if (told == NULL) {
            PyErr_WriteUnraisable((PyObject *)pump);
        }
        Py_XDECREF(told);
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(done);
    return done == NULL ? -1 : 1;
}

/* Whether to go on: after a pause, where the caller has said how, nobody else is in one, and no BIO has grown that
   nobody watches. *step, which is WANT_READ, becomes FAILED if the pause raises. */
static int
has_paused(Pump *pump, int *step)
{
    int waited;
    if (pump->pause == NULL || pump->pause == Py_None || (pump->ask != NULL && pump->ask != Py_None) ||
        (pump->bulky && !pump->watched)) {
        return 0;
    }
    waited = wait_to_receive(pump, pump->pause, pump->pause_on[0], pump->pause_on[1]);
    if (waited < 0) {
        *step = FAILED;
        return 0;
    }
    if (waited) {
        pump->budget = TURN; /* others have had their turn */
    }
    return waited;
}

/* -- the verbs ----------------------------------------------------------------------------------------------------- */

static int
not_now(Pump *pump, PyObject *name)
{
    PyObject *done = PyObject_CallMethodObjArgs((PyObject *)pump, m_not_now, name, NULL);
    if (done != NULL) {
        Py_DECREF(done);
        PyErr_SetString(PyExc_RuntimeError, "not_now() has raised nothing");
    }
    return FAILED;
}

static int
do_handshake(Pump *pump)
{
    for (;;) {
        long long received = pump->received;
        int step;
        if (received == pump->drained_at) {
            if (may_enter(pump, n_handshake) < 0) {
                return FAILED;
            }
        }
        else {
            step = operate(pump, n_handshake, NULL, 0);
            if (step > 0) {
                if (!pump->eof && !pending(pump->c_incoming)) {
                    pump->drained_at = received;
                }
                return DONE;
            }
            if (step != WANT_READ) {
                return step;
            }
            if (pump->eof) {
                return ENDED;
            }
            pump->drained_at = received;
        }
        step = refill(pump);
        if (step != DONE) {
            return step;
        }
    }
}

static int
do_read(Pump *pump, char *plain, int room)
{
    if (pump->budget <= 0 && pump->socket != NULL) {
        return SPENT;
    }
    for (;;) {
        long long received = pump->received;
        int step;
        if (!pump->established) {
            return not_now(pump, n_read);
        }
        if (received == pump->drained_at) {
            if (may_enter(pump, n_read) < 0) {
                return FAILED;
            }
        }
        else {
            step = operate(pump, n_read, plain, room);
            if (step > 0) {
                pump->messages = 0;
                pump->budget -= pump->socket != NULL;
                if (step < room && !pump->eof && !pending(pump->c_incoming)) {
                    pump->drained_at = received; /* the rest of a record, then: OpenSSL has none of it any more */
                }
            }
            if (step != WANT_READ) {
                return step;
            }
            if (pump->eof) {
                return ENDED;
            }
            pump->drained_at = received;
        }
        step = refill(pump);
        if (step != DONE) {
            return step;
        }
    }
}

static int
do_write(Pump *pump, const char *data, Py_ssize_t length)
{
    int connected = pump->socket != NULL, step;
    if (!pump->writable) {
        return not_now(pump, n_write);
    }
    if (length == 0) {
        return DONE;
    }
    if (length > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "more than 2 GiB at once");
        return FAILED;
    }
    if (connected) {
        if (pump->budget <= 0) {
            return SPENT;
        }
        if (pump->blocked && (step = push(pump)) != DONE) {
            return step;
        }
        pump->budget -= 1 + (int)(length / RECORD_SIZE);
    }
    for (;;) {
        step = operate(pump, n_write, (void *)data, (int)length);
        if (step > 0) {
            break;
        }
        if (step == FAILED) {
            return FAILED;
        }
        if (pump->eof) {
            return ENDED;
        }
        step = refill(pump);
        if (step != DONE) {
            return step;
        }
    }
    if (!connected) {
        return DONE;
    }
    pump->ours = pending(pump->c_outgoing);
    step = push(pump);
    return step == WANT_WRITE ? UNSENT : step;
}

static int
do_shutdown(Pump *pump)
{
    int step;
    if (!pump->established) {
        return not_now(pump, n_shutdown);
    }
    step = operate(pump, n_shutdown, NULL, 0);
    return step == WANT_READ && pump->eof ? ENDED : step;
}

/* A verb's answer as Python has it; gives back the verb's reference to the pump. */
static PyObject *
answer(Pump *pump, int step)
{
    Py_DECREF(pump);
    return step == FAILED ? NULL : PyLong_FromLong(step);
}

static PyObject *
Pump_admit(PyObject *self, PyObject *name)
{
    int step;
    Py_INCREF(self);
    step = may_enter((Pump *)self, name);
    Py_DECREF(self);
    if (step < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static void give_back(Pump *pump);

static PyObject *
Pump_do_handshake(PyObject *self, PyObject *Py_UNUSED(none))
{
    Pump *pump = (Pump *)self;
    int step;
    Py_INCREF(self);
    do {
        step = do_handshake(pump);
        if (step == WANT_READ && pump->received > 0) {
            give_back(pump);
        }
    } while (step == WANT_READ && has_paused(pump, &step));
    return answer(pump, step);
}

static PyObject *
Pump_read(PyObject *self, PyObject *size)
{
    Py_ssize_t room = PyNumber_AsSsize_t(size, NULL);
    PyObject *data = NULL;
    int step;
    if (room <= 0) {
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "a read of %zd bytes", room);
    }
    Py_INCREF(self);
    do { /* nobody owns a buffer in a pause */
        char *plain = spare_plain;
        spare_plain = NULL;
        if (plain == NULL && (plain = PyMem_Malloc(RECORD_SIZE)) == NULL) {
            PyErr_NoMemory();
            step = FAILED;
            break;
        }
        step = do_read((Pump *)self, plain, room < RECORD_SIZE ? (int)room : RECORD_SIZE);
        if (step > 0) {
            data = PyBytes_FromStringAndSize(plain, step);
        }
        if (spare_plain == NULL) {
            spare_plain = plain;
        }
        else {
            PyMem_Free(plain);
        }
    } while (step == WANT_READ && has_paused((Pump *)self, &step));
    if (step > 0) {
        Py_DECREF(self);
        return data;
    }
    return answer((Pump *)self, step);
}

static int
memory(PyObject *const *arguments, Py_ssize_t count, char **start, Py_ssize_t *length)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "an address and a length");
        return -1;
    }
    *start = PyLong_AsVoidPtr(arguments[0]);
    *length = PyErr_Occurred() ? -1 : PyNumber_AsSsize_t(arguments[1], PyExc_OverflowError);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *
Pump_read_into(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    char *start;
    Py_ssize_t room;
    int step;
    if (memory(arguments, count, &start, &room) < 0) {
        return NULL;
    }
    if (room <= 0) {
        return PyErr_Format(PyExc_ValueError, "a read of %zd bytes", room);
    }
    Py_INCREF(self);
    do {
        step = do_read((Pump *)self, start, room < RECORD_SIZE ? (int)room : RECORD_SIZE);
    } while (step == WANT_READ && has_paused((Pump *)self, &step));
    return answer((Pump *)self, step);
}

static PyObject *
Pump_write(PyObject *self, PyObject *data)
{
    char *start;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(data, &start, &length) < 0) {
        return NULL;
    }
    Py_INCREF(self);
    return answer((Pump *)self, do_write((Pump *)self, start, length));
}

static PyObject *
Pump_write_from(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    char *start;
    Py_ssize_t length;
    if (memory(arguments, count, &start, &length) < 0) {
        return NULL;
    }
    Py_INCREF(self);
    return answer((Pump *)self, do_write((Pump *)self, start, length));
}

static PyObject *
Pump_shutdown(PyObject *self, PyObject *Py_UNUSED(none))
{
    Py_INCREF(self);
    return answer((Pump *)self, do_shutdown((Pump *)self));
}

static PyObject *
Pump_send(PyObject *self, PyObject *Py_UNUSED(none))
{
    Py_INCREF(self);
    return answer((Pump *)self, push((Pump *)self));
}

static PyObject *
Pump_send_or_forget(PyObject *self, PyObject *Py_UNUSED(none))
{
    Py_INCREF(self);
    return answer((Pump *)self, push_or_forget((Pump *)self));
}

static PyObject *
Pump_refill(PyObject *self, PyObject *Py_UNUSED(none))
{
    Py_INCREF(self);
    return answer((Pump *)self, refill((Pump *)self));
}

static PyObject *
Pump_receive(PyObject *self, PyObject *Py_UNUSED(none))
{
    int length, step = pull((Pump *)self, &length);
    if (step == DONE) {
        return PyBytes_FromStringAndSize(received_data, length);
    }
    return step == FAILED ? NULL : PyLong_FromLong(step);
}

static PyObject *
Pump_wait(PyObject *self, PyObject *function)
{
    int waited;
    Py_INCREF(self);
    waited = wait_to_receive((Pump *)self, function, NULL, NULL);
    Py_DECREF(self);
    return waited < 0 ? NULL : PyBool_FromLong(waited);
}

static PyObject *
Pump_feed(PyObject *self, PyObject *data)
{
    Pump *pump = (Pump *)self;
    char *start;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(data, &start, &length) < 0 || is_elsewhere(pump, n_receive)) {
        return NULL;
    }
    if (length > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "more than 2 GiB at once");
        return NULL;
    }
    if (length == 0) {
        pump->eof = 1;
    }
    else if (call.BIO_write(pump->c_incoming, start, (int)length) != length) {
        return PyErr_NoMemory();
    }
    if (pump->whole_records) {
        note_records(pump, (unsigned char *)start, (long)length);
    }
    pump->received++;
    Py_RETURN_NONE;
}

static PyObject *
Pump_run(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    Pump *pump = (Pump *)self;
    PyObject *found, *failed = NULL, *said, *name;
    int result = FAILED, error;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "run() takes a name, a function, and its arguments");
    }
    name = arguments[0];
    Py_INCREF(self);
    if (enter(pump, name, &found) < 0) {
        return answer(pump, FAILED);
    }
    if (call.ERR_peek_error() && (found = PyObject_CallNoArgs(save_errors)) == NULL) {
        leave(pump, NULL);
        return answer(pump, FAILED);
    }
    said = PyObject_CallObject(arguments[1], arguments[2]);
    if (said != NULL) {
        long number = PyLong_AsLong(said);
        Py_DECREF(said);
        if (!PyErr_Occurred()) {
            result = number > INT_MAX ? INT_MAX : number < -1 ? -1 : (int)number;
            error = result > 0 ? 0 : call.SSL_get_error(pump->c_ssl, result);
            result = outcome(pump, name, result, error, &failed);
        }
    }
    leave(pump, found);
    if (result == FAILED) {
        raise(failed);
    }
    else if (PyErr_Occurred()) {
        result = FAILED;
    }
    return answer(pump, result);
}

static PyObject *
Pump_attach(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    Pump *pump = (Pump *)self;
    PyObject *socket, *before, *number;
    long descriptor;
    if (count < 1 || count > 4) {
        return PyErr_Format(PyExc_TypeError, "attach() takes a socket, whether whole_records, whether eager, and a hub");
    }
    socket = arguments[0];
    number = PyObject_CallMethod(socket, "fileno", NULL);
    if (number == NULL) {
        return NULL;
    }
    descriptor = PyLong_AsLong(number);
    Py_DECREF(number);
    if (descriptor == -1 && PyErr_Occurred()) {
        return NULL;
    }
    pump->whole_records = count > 1 && arguments[1] == Py_True;
    pump->eager = count > 2 && arguments[2] == Py_True;
    keep(&pump->hub, count > 3 ? arguments[3] : Py_None);
    before = pump->socket;
    Py_INCREF(socket);
    pump->socket = socket;
    pump->descriptor = descriptor < 0 || descriptor > INT_MAX ? -1 : (int)descriptor;
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static void
set_pause(Pump *pump, PyObject *pause, PyObject *first, PyObject *second)
{
    PyObject *before[] = {pump->pause, pump->pause_on[0], pump->pause_on[1]};
    Py_INCREF(pause);
    Py_XINCREF(first);
    Py_XINCREF(second);
    pump->pause = pause;
    pump->pause_on[0] = first;
    pump->pause_on[1] = second;
    Py_XDECREF(before[0]);
    Py_XDECREF(before[1]);
    Py_XDECREF(before[2]);
}

static PyObject *
Pump_detach(PyObject *self, PyObject *Py_UNUSED(none))
{
    ((Pump *)self)->emptied = 0;
    ((Pump *)self)->descriptor = -1; /* and its sends and receives are EBADF, as a closed socket's */
    set_pause((Pump *)self, Py_None, NULL, NULL);
    Py_RETURN_NONE;
}

static PyObject *
Pump_leave(PyObject *self, PyObject *for_good)
{
    Pump *pump = (Pump *)self;
    PyObject *type, *value, *traceback;
    int step = WANT_READ;
    if (!is_made(pump)) {
        return NULL;
    }
    pump->leaving = for_good == Py_True;
    if (pump->busy || !(pump->writable || (pump->established && !is_true(pump->dead)))) {
        return PyLong_FromLong(step);
    }
    Py_INCREF(self);
    if (pump->writable) { /* else it has been said, or cannot be */
        step = do_shutdown(pump);
    }
    PyErr_Fetch(&type, &value, &traceback);
    if (pending(pump->c_outgoing) > 0 && !(pump->busy && pump->inside != thread_number()) && push(pump) == FAILED) {
        if (!PyErr_ExceptionMatches(PyExc_OSError)) { /* a signal handler's */
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
            return answer(pump, FAILED);
        }
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
    return answer(pump, step);
}

static PyObject *
Pump_attend(PyObject *self, PyObject *attended)
{
    ((Pump *)self)->attended = attended == Py_True;
    Py_RETURN_NONE;
}

static PyObject *
Pump_look(PyObject *self, PyObject *eager)
{
    ((Pump *)self)->eager = eager == Py_True;
    Py_RETURN_NONE;
}

static PyObject *
Pump_pause_by(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count < 1 || count > 3) {
        return PyErr_Format(PyExc_TypeError, "pause_by() takes a function, and up to two arguments for it");
    }
    set_pause((Pump *)self, arguments[0], count > 1 ? arguments[1] : NULL, count > 2 ? arguments[2] : NULL);
    Py_RETURN_NONE;
}

static PyObject *
Pump_watch(PyObject *self, PyObject *Py_UNUSED(none))
{
    ((Pump *)self)->watched = 1;
    Py_RETURN_NONE;
}

static PyObject *
Pump_rest(PyObject *self, PyObject *Py_UNUSED(none))
{
    ((Pump *)self)->budget = TURN;
    Py_RETURN_NONE;
}

/* -- the object ---------------------------------------------------------------------------------------------------- */

/* A memory BIO at each side of an SSL*, which owns them. */
static int
make(Pump *pump, void *context, int server_side)
{
    void *ssl = call.SSL_new(context), *incoming = call.BIO_new(call.BIO_s_mem());
    void *outgoing = call.BIO_new(call.BIO_s_mem());
    PyObject *address;
    if (ssl == NULL || incoming == NULL || outgoing == NULL) {
        call.BIO_free(incoming);
        call.BIO_free(outgoing);
        call.SSL_free(ssl);
        PyErr_NoMemory();
        return -1;
    }
    if (server_side) {
        call.SSL_set_accept_state(ssl);
    }
    else {
        call.SSL_set_connect_state(ssl);
    }
    call.SSL_set_bio(ssl, incoming, outgoing);
    pump->c_ssl = ssl;
    pump->c_incoming = incoming;
    pump->c_outgoing = outgoing;
    address = PyLong_FromVoidPtr(ssl);
    if (address == NULL) {
        return -1;
    }
    pump->ssl = PyObject_CallFunctionObjArgs(ssl_at, address, NULL);
    Py_DECREF(address);
    return pump->ssl == NULL ? -1 : 0;
}

static int
Pump_init(PyObject *self, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    Pump *pump = (Pump *)self;
    PyObject *address;
    void *context;
    int server_side;
    if (!PyArg_ParseTuple(arguments, "Op", &address, &server_side)) {
        return -1;
    }
    context = PyLong_AsVoidPtr(address);
    if (context == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "NULL");
        }
        return -1;
    }
    if (pump->c_ssl != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a pump is made once");
        return -1;
    }
    pump->descriptor = -1;
    pump->server_side = (char)server_side;
    pump->drained_at = server_side ? 0 : -1; /* a client begins */
    pump->budget = TURN;
    keep(&pump->dead, no_text);
    keep(&pump->name, no_text);
    keep(&pump->entrant, nobody);
    return make(pump, context, server_side);
}

static int
Pump_traverse(PyObject *self, visitproc visit, void *arg)
{
    Pump *pump = (Pump *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(pump->failure);
    Py_VISIT(pump->entrant);
    Py_VISIT(pump->hub);
    Py_VISIT(pump->ask);
    Py_VISIT(pump->pause);
    Py_VISIT(pump->pause_on[0]);
    Py_VISIT(pump->pause_on[1]);
    return 0; /* The socket is not told. So the collector takes it for somebody else's, and does not close it before a
                 finalizer has said close_notify. It refers to nothing, and so is in no cycle. */
}

/* Not the pointers: finalizers may come here as long as there is an object. */
static int
Pump_clear(PyObject *self)
{
    Pump *pump = (Pump *)self;
    pump->descriptor = -1;
    Py_CLEAR(pump->failure);
    Py_CLEAR(pump->entrant);
    Py_CLEAR(pump->hub);
    Py_CLEAR(pump->ask);
    Py_CLEAR(pump->pause);
    Py_CLEAR(pump->pause_on[0]);
    Py_CLEAR(pump->pause_on[1]);
    return 0;
}

static void
Pump_dealloc(PyObject *self)
{
    Pump *pump = (Pump *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    PyObject_GC_UnTrack(self);
    Pump_clear(self);
    Py_CLEAR(pump->socket);
    Py_CLEAR(pump->name);
    Py_CLEAR(pump->dead);
    Py_CLEAR(pump->ssl);
    if (pump->c_ssl != NULL) {
        PyObject *type_of, *value, *traceback;
        PyErr_Fetch(&type_of, &value, &traceback);
        /* As if close_notify had been sent, so that its session stays resumable (SSL_set_shutdown(3)). A session that
           must not be resumed is gone by then: OpenSSL removes it with each fatal alert. */
        call.SSL_set_shutdown(pump->c_ssl, SSL_SENT_SHUTDOWN);
        call.SSL_free(pump->c_ssl);
        PyErr_Restore(type_of, value, traceback);
    }
    release(self);
    Py_DECREF(type);
}

static PyObject *
bio(void *bio)
{
    PyObject *address = PyLong_FromVoidPtr(bio), *pointer;
    if (address == NULL) {
        return NULL;
    }
    pointer = PyObject_CallFunctionObjArgs(bio_at, address, NULL);
    Py_DECREF(address);
    return pointer;
}

static PyObject *
Pump_incoming(PyObject *self, void *Py_UNUSED(closure))
{
    return bio(((Pump *)self)->c_incoming);
}

static PyObject *
Pump_outgoing(PyObject *self, void *Py_UNUSED(closure))
{
    return bio(((Pump *)self)->c_outgoing);
}

static PyObject *
Pump_unsent(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(pending(((Pump *)self)->c_outgoing));
}

static PyObject *
Pump_attached(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Pump *)self)->socket != NULL);
}

static PyObject *
Pump_moving(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_FALSE; /* to everybody else, a send or a receive is over before it has begun */
}

static PyMemberDef Pump_members[] = {
    {"ssl", T_OBJECT, offsetof(Pump, ssl), READONLY, NULL},
    {"server_side", T_BOOL, offsetof(Pump, server_side), READONLY, NULL},
    {"name", T_OBJECT, offsetof(Pump, name), 0, NULL},
    {"dead", T_OBJECT, offsetof(Pump, dead), 0, NULL},
    {"failure", T_OBJECT, offsetof(Pump, failure), 0, NULL},
    {"entrant", T_OBJECT, offsetof(Pump, entrant), 0, NULL},
    {"hub", T_OBJECT, offsetof(Pump, hub), 0, NULL},
    {"ask", T_OBJECT, offsetof(Pump, ask), 0, NULL},
    {"pause", T_OBJECT, offsetof(Pump, pause), READONLY, NULL},
    {"waiting", T_BOOL, offsetof(Pump, waiting), READONLY, NULL},
    {"crowded", T_BOOL, offsetof(Pump, crowded), 0, NULL},
    {"watched", T_BOOL, offsetof(Pump, watched), 0, NULL},
    {"patient", T_BOOL, offsetof(Pump, patient), 0, NULL},
    {"thread", T_ULONGLONG, offsetof(Pump, thread), 0, NULL},
    {"waits", T_ULONGLONG, offsetof(Pump, waits), 0, NULL},
    {"busy", T_BOOL, offsetof(Pump, busy), READONLY, NULL},
    {"entered", T_BOOL, offsetof(Pump, busy), READONLY, NULL}, /* the same here */
    {"established", T_BOOL, offsetof(Pump, established), 0, NULL},
    {"writable", T_BOOL, offsetof(Pump, writable), 0, NULL},
    {"eof", T_BOOL, offsetof(Pump, eof), 0, NULL},
    {"eager", T_BOOL, offsetof(Pump, eager), READONLY, NULL},
    {"attended", T_BOOL, offsetof(Pump, attended), READONLY, NULL},
    {"awaited", T_BOOL, offsetof(Pump, awaited), 0, NULL},
    {"bulky", T_BOOL, offsetof(Pump, bulky), 0, NULL},
    {"whole_records", T_BOOL, offsetof(Pump, whole_records), READONLY, NULL},
    {"received", T_LONGLONG, offsetof(Pump, received), 0, NULL},
    {"drained_at", T_LONGLONG, offsetof(Pump, drained_at), 0, NULL},
    {"budget", T_INT, offsetof(Pump, budget), 0, NULL},
    {"messages", T_INT, offsetof(Pump, messages), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Pump_properties[] = {
    {"incoming", Pump_incoming, NULL, NULL, NULL},
    {"outgoing", Pump_outgoing, NULL, NULL, NULL},
    {"unsent", Pump_unsent, NULL, NULL, NULL},
    {"attached", Pump_attached, NULL, NULL, NULL},
    {"moving", Pump_moving, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef Pump_methods[] = {
    {"admit", Pump_admit, METH_O, NULL},
    {"run", FAST(Pump_run), NULL},
    {"continue_handshake", Pump_do_handshake, METH_NOARGS, NULL},
    {"step_read", Pump_read, METH_O, NULL},
    {"step_read_into", FAST(Pump_read_into), NULL},
    {"step_write", Pump_write, METH_O, NULL},
    {"step_write_from", FAST(Pump_write_from), NULL},
    {"step_shutdown", Pump_shutdown, METH_NOARGS, NULL},
    {"send", Pump_send, METH_NOARGS, NULL},
    {"send_or_forget", Pump_send_or_forget, METH_NOARGS, NULL},
    {"refill", Pump_refill, METH_NOARGS, NULL},
    {"receive", Pump_receive, METH_NOARGS, NULL},
    {"wait", Pump_wait, METH_O, NULL},
    {"feed", Pump_feed, METH_O, NULL},
    {"attach", FAST(Pump_attach), NULL},
    {"attend", Pump_attend, METH_O, NULL},
    {"leave", Pump_leave, METH_O, NULL},
    {"look", Pump_look, METH_O, NULL},
    {"pause_by", FAST(Pump_pause_by), NULL},
    {"watch", Pump_watch, METH_NOARGS, NULL},
    {"rest", Pump_rest, METH_NOARGS, NULL},
    {"detach", Pump_detach, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Pump_slots[] = {
    {Py_tp_init, Pump_init},       {Py_tp_dealloc, Pump_dealloc}, {Py_tp_traverse, Pump_traverse},
    {Py_tp_clear, Pump_clear},     {Py_tp_methods, Pump_methods}, {Py_tp_members, Pump_members},
    {Py_tp_getset, Pump_properties}, {0, NULL},
};

static PyType_Spec Pump_spec = {
    "greentls.openssl._pump.Pump",
    sizeof(Pump),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    Pump_slots,
};

/* -- the module ---------------------------------------------------------------------------------------------------- */

static PyObject *
occupant(PyObject *Py_UNUSED(module), PyObject *ssl)
{
    PyObject *pump = PyDict_GetItemWithError(running, ssl);
    if (pump == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    Py_INCREF(pump);
    return pump;
}

static PyObject *
occupants(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    return PyDict_Values(running);
}

/* -1, with an exception, unless there are as many as wanted. */
static int
read_addresses(PyObject *addresses, void **functions, int count)
{
    Py_ssize_t index;
    if (PyTuple_Size(addresses) != count) {
        PyErr_Format(PyExc_ValueError, "%d addresses", count);
        return -1;
    }
    for (index = 0; index < count; index++) {
        functions[index] = PyLong_AsVoidPtr(PyTuple_GetItem(addresses, index));
        if (functions[index] == NULL && PyErr_Occurred()) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
bind_functions(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *addresses, *current, *ssl, *bio, *save, *restore, *absent;
    void *functions[FUNCTIONS];
    Py_ssize_t index;
    if (!PyArg_ParseTuple(arguments, "O!OOOOOO", &PyTuple_Type, &addresses, &current, &ssl, &bio, &save, &restore,
                          &absent) ||
        read_addresses(addresses, functions, FUNCTIONS) < 0) {
        return NULL;
    }
    if (functions[FUNCTIONS - 2] == NULL) {
        functions[FUNCTIONS - 2] = (void *)(uintptr_t)recv;
    }
    if (functions[FUNCTIONS - 1] == NULL) {
        functions[FUNCTIONS - 1] = (void *)(uintptr_t)send;
    }
    for (index = 0; index < FUNCTIONS; index++) {
        if (functions[index] == NULL) {
            return PyErr_Format(PyExc_ValueError, "address %zd is 0", index);
        }
    }
    memcpy(&call, functions, sizeof(call));
    keep(&getcurrent, current);
    keep(&ssl_at, ssl);
    keep(&bio_at, bio);
    keep(&save_errors, save);
    keep(&restore_errors, restore);
    keep(&nobody, absent);
    Py_RETURN_NONE;
}

/* What is raised, as what a callback of the pump's raised. */
static void
note_failure(Pump *pump)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    keep(&pump->failure, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

static int
has_failed(Pump *pump)
{
    return pump->failure != NULL && pump->failure != Py_None;
}

/* What a function(pump, ...) of a callback returns. fatal, if it raises: that is noted; or if the pump has failed. */
static PyObject *
ask_for(Pump *pump, PyObject *function, PyObject *fatal, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *saved = NULL, *asked = NULL, *answer = NULL;
    Py_ssize_t index, elsewhere;
    if (has_failed(pump)) {
        Py_INCREF(fatal);
        return fatal;
    }
    Py_INCREF(pump);
    if (call.ERR_peek_error() && (saved = PyObject_CallNoArgs(save_errors)) == NULL) {
        goto failed;
    }
    elsewhere = pump->ask != NULL && pump->ask != Py_None;
    asked = PyTuple_New(1 + count + elsewhere);
    if (asked == NULL) {
        goto failed;
    }
    if (elsewhere) {
        Py_INCREF(function);
        PyTuple_SetItem(asked, 0, function);
        function = pump->ask;
    }
    Py_INCREF(pump);
    PyTuple_SetItem(asked, elsewhere, (PyObject *)pump);
    for (index = 0; index < count; index++) {
        Py_INCREF(arguments[index]);
        PyTuple_SetItem(asked, 1 + index + elsewhere, arguments[index]);
    }
    Py_INCREF(function);
    answer = PyObject_CallObject(function, asked);
    Py_DECREF(function);
failed:
    if (answer == NULL) {
        note_failure(pump);
    }
    Py_XDECREF(asked);
    if (saved != NULL || call.ERR_peek_error()) {
        PyObject *done = PyObject_CallFunctionObjArgs(restore_errors, saved == NULL ? Py_None : saved, NULL);
        if (done == NULL) {
            note_failure(pump);
            Py_CLEAR(answer);
        }
        Py_XDECREF(done);
        Py_XDECREF(saved);
    }
    if (answer == NULL) {
        answer = fatal;
        Py_INCREF(answer);
    }
    entered = pump; /* others may have been inside meanwhile */
    Py_DECREF(pump);
    return answer;
}

/* (function, fatal, SSL*, ...): guard() in pump.py is the same. */
static PyObject *
ask(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *pump;
    if (count < 3) {
        return PyErr_Format(PyExc_TypeError, "a function, its fatal value, an SSL*");
    }
    pump = PyDict_GetItemWithError(running, arguments[2]);
    if (pump == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        Py_INCREF(arguments[1]);
        return arguments[1];
    }
    return ask_for((Pump *)pump, arguments[0], arguments[1], arguments + 3, count - 3);
}

/* (hub, watcher): gevent's hub.wait(watcher), in its C steps: no Waiter is made, which would only tell apart who has
   woken the greenlet. Whoever it was, the caller looks again. */
static PyObject *
wait_until(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *hub, *watcher, *me, *wake, *done, *stopped, *type, *value, *traceback;
    if (count != 2) {
        return PyErr_Format(PyExc_TypeError, "a hub and a watcher");
    }
    hub = arguments[0];
    watcher = arguments[1];
    me = PyObject_CallNoArgs(getcurrent);
    wake = me == NULL ? NULL : PyObject_GetAttr(me, m_switch);
    Py_XDECREF(me); /* it runs */
    if (wake == NULL) {
        return NULL;
    }
    done = PyObject_CallMethodObjArgs(watcher, m_start, wake, NULL);
    Py_DECREF(wake);
    if (done == NULL) {
        return NULL;
    }
    Py_DECREF(done);
    done = PyObject_CallMethodObjArgs(hub, m_switch, NULL);
    PyErr_Fetch(&type, &value, &traceback);
    stopped = PyObject_CallMethodObjArgs(watcher, m_stop, NULL);
    if (stopped == NULL && type != NULL) {
        PyErr_WriteUnraisable(watcher);
    }
    if (stopped != NULL || type != NULL) {
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(done);
    if (done == NULL || stopped == NULL) {
        Py_XDECREF(stopped);
        return NULL;
    }
    return stopped;
}

/* -- what OpenSSL tells, in one call: facts.py --------------------------------------------------------------------- */

enum { SUPPORTED_VERSIONS = 43, SERVER_NAME = 0 };     /* ExtensionType */
enum { GET_PEER_TMP_KEY = 109, GET_TMP_KEY = 133, GET_NEGOTIATED_GROUP = 134 }; /* SSL_ctrl(3) */
enum { GROUP_OF_A_PROVIDER = 1 << 24, X25519 = 1034, TLS1_3_VERSION = 0x0304 }; /* connections.py explains them */
enum { BEFORE_CIPHERS = 4 + 2 + 32 + 1 + 2, CLIENT_HELLO = 1 }; /* client_hello.py explains it */

static struct {
    int (*SSL_client_hello_get0_ext)(void *, unsigned int, const unsigned char **, size_t *);
    size_t (*SSL_client_hello_get0_ciphers)(void *, const unsigned char **);
    size_t (*SSL_client_hello_get0_session_id)(void *, const unsigned char **);
    const char *(*SSL_SESSION_get_id)(const void *, unsigned int *);
    const char *(*SSL_SESSION_get0_id_context)(const void *, unsigned int *);
    long (*SSL_SESSION_get_time)(const void *);
    long (*SSL_SESSION_get_timeout)(const void *);
    int (*i2d_SSL_SESSION)(const void *, unsigned char **);
    void *(*d2i_SSL_SESSION)(void **, const unsigned char **, long);
    void (*SSL_SESSION_free)(void *);
    int (*SSL_session_reused)(const void *);
    long (*SSL_ctrl)(void *, int, long, void *);
    int (*EVP_PKEY_set_type)(void *, int);
    void (*EVP_PKEY_free)(void *);
    void (*SSL_set_info_callback)(void *, void (*)(const void *, int, int));
    int (*SSL_version)(const void *);
    int (*SSL_set_session_id_context)(void *, const unsigned char *, unsigned int);
    int (*SSL_SESSION_up_ref)(void *);
    long (*BIO_ctrl)(void *, int, long, void *);
    void *(*BUF_MEM_new)(void);
    void (*CRYPTO_free)(void *, const char *, int);
} tell;
static const char SESSION[] = "SSL_SESSION"; /* a capsule's name */
enum { TELLERS = sizeof(tell) / sizeof(tell.CRYPTO_free) };

enum { SET_BUF_MEM = 114, CLOSE_IT = 1 }; /* bio.h */

/* The memory of the BIOs, if they are empty: bios.shrink(). For a handshake that waits. What its flights took lies among
   what lives as long as the connection; if it is freed later than that is made, holes stay in the heap. */
static void
give_back(Pump *pump)
{
    void *bios[] = {pump->c_incoming, pump->c_outgoing}, *fresh;
    int index;
    for (index = 0; index < 2 && tell.BUF_MEM_new != NULL; index++) {
        if (pending(bios[index]) == 0 && (fresh = tell.BUF_MEM_new()) != NULL) {
            tell.BIO_ctrl(bios[index], SET_BUF_MEM, CLOSE_IT, fresh);
        }
    }
}

/* Of the ClientHello of an SSL* in its client-hello callback: the message, or None; the server_name extension, or None. */
static int
read_hello(void *ssl, PyObject **message, PyObject **name)
{
    const unsigned char *start, *begin = NULL;
    size_t length = 0;
    if (tell.SSL_client_hello_get0_ext(ssl, SUPPORTED_VERSIONS, NULL, NULL)) {
        tell.SSL_client_hello_get0_ciphers(ssl, &start);
        begin = start - BEFORE_CIPHERS - tell.SSL_client_hello_get0_session_id(ssl, NULL);
        length = begin[0] == CLIENT_HELLO ? 4 + ((size_t)begin[1] << 16 | begin[2] << 8 | begin[3]) : 0;
    }
    *message = Py_BuildValue("y#", (const char *)begin, (Py_ssize_t)length);
    start = NULL;
    length = 0;
    tell.SSL_client_hello_get0_ext(ssl, SERVER_NAME, &start, &length);
    *name = Py_BuildValue("y#", (const char *)start, (Py_ssize_t)length);
    return *message == NULL || *name == NULL ? -1 : 0;
}

/* (the pump of an SSL* in its client-hello callback): both in a tuple. */
static PyObject *
hello(PyObject *Py_UNUSED(module), PyObject *pump)
{
    PyObject *message, *name, *both = NULL;
    if (!PyObject_TypeCheck(pump, pump_type) || tell.CRYPTO_free == NULL) {
        return PyErr_Format(PyExc_TypeError, "a Pump, after bind_facts()");
    }
    if (!is_made((Pump *)pump)) {
        return NULL;
    }
    if (read_hello(((Pump *)pump)->c_ssl, &message, &name) == 0) {
        both = PyTuple_Pack(2, message, name);
    }
    Py_XDECREF(message);
    Py_XDECREF(name);
    return both;
}

static void
free_session(PyObject *capsule)
{
    tell.SSL_SESSION_free(PyCapsule_GetPointer(capsule, SESSION));
}

/* (bytes, where the DER begins in them, an id): a capsule with a new SSL_SESSION; None if it is none, or of another id. */
static PyObject *
parse(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const unsigned char *start;
    const char *blob, *id;
    Py_ssize_t length, skipped, id_length;
    unsigned int found_length;
    PyObject *capsule;
    void *session;
    if (!PyArg_ParseTuple(arguments, "y#ny#", &blob, &length, &skipped, &id, &id_length)) {
        return NULL;
    }
    if (skipped < 0 || tell.CRYPTO_free == NULL) {
        return PyErr_Format(PyExc_ValueError, "a session in bytes, after bind_facts()");
    }
    if (skipped >= length) {
        Py_RETURN_NONE;
    }
    start = (const unsigned char *)blob + skipped;
    session = tell.d2i_SSL_SESSION(NULL, &start, (long)(length - skipped));
    if (session == NULL) {
        call.ERR_clear_error();
        Py_RETURN_NONE;
    }
    start = (const unsigned char *)tell.SSL_SESSION_get_id(session, &found_length);
    if (found_length != (size_t)id_length || memcmp(start, id, found_length) != 0) {
        tell.SSL_SESSION_free(session);
        Py_RETURN_NONE;
    }
    capsule = PyCapsule_New(session, SESSION, free_session);
    if (capsule == NULL) {
        tell.SSL_SESSION_free(session);
    }
    return capsule;
}

static void (*count_messages)(const void *, int, int);

/* An info callback in front of Python's, which wants to know of whole messages only, and OpenSSL tells of alerts, too. */
static void
count_whole_messages(const void *ssl, int where, int result)
{
    if (result == 1 && (where == SSL_CB_ACCEPT_EXIT || where == SSL_CB_CONNECT_EXIT)) {
        count_messages(ssl, where, result);
    }
}

/* (the pump of an SSL* whose handshake is over, an info callback's address): whether it resumed a session. */
static PyObject *
settle(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    void *ssl, *callback, *key = NULL;
    if (count != 2 || !PyObject_TypeCheck(arguments[0], pump_type) || tell.CRYPTO_free == NULL) {
        return PyErr_Format(PyExc_TypeError, "a Pump and an address, after bind_facts()");
    }
    callback = PyLong_AsVoidPtr(arguments[1]);
    if ((callback == NULL && PyErr_Occurred()) || !is_made((Pump *)arguments[0])) {
        return NULL;
    }
    ssl = ((Pump *)arguments[0])->c_ssl;
    if (tell.SSL_ctrl(ssl, GET_NEGOTIATED_GROUP, 0, NULL) >= GROUP_OF_A_PROVIDER &&
        (tell.SSL_ctrl(ssl, GET_PEER_TMP_KEY, 0, &key) == 1 || tell.SSL_ctrl(ssl, GET_TMP_KEY, 0, &key) == 1)) {
        tell.EVP_PKEY_set_type(key, X25519);
        tell.EVP_PKEY_free(key);
    }
    count_messages = (void (*)(const void *, int, int))callback;
    tell.SSL_set_info_callback(ssl, callback == NULL ? NULL : count_whole_messages);
    ((Pump *)arguments[0])->patient = ((Pump *)arguments[0])->server_side && tell.SSL_version(ssl) >= TLS1_3_VERSION;
    return PyBool_FromLong(tell.SSL_session_reused(ssl));
}

static PyObject *
bind_facts(PyObject *Py_UNUSED(module), PyObject *addresses)
{
    void *functions[TELLERS];
    if (read_addresses(addresses, functions, TELLERS) < 0) {
        return NULL;
    }
    memcpy(&tell, functions, sizeof(tell));
    Py_RETURN_NONE;
}

/* -- callbacks that ask no hook, or only what a session is: callbacks.py --------------------------------------------- */

enum { GO_ON = 1, REFUSE = 0, TLSEXT_OK = 0, TLSEXT_NOACK = 3 }; /* ssl.h */
enum { NOT_READ, NOBODY, SOMEBODY };
enum { TOLD = 5 }; /* of facts.record() */

/* The same in Python, which does what is not done here. */
static struct {
    int (*client_hello)(void *, int *, void *);
    int (*servername)(void *, int *, void *);
} python;
enum { CALLBACKS = sizeof(python) / sizeof(python.client_hello) };

static PyObject *look_up, *store, *address_of;

/* The pump that is inside OpenSSL with an SSL*; NULL, if it has failed, or others have been inside meanwhile. */
static Pump *
current(void *ssl)
{
    return entered != NULL && entered->c_ssl == ssl && !has_failed(entered) ? entered : NULL;
}

/* The same, whoever has been inside. NULL may be an exception. */
static Pump *
find(void *ssl)
{
    Pump *pump = current(ssl);
    if (pump == NULL) {
        PyObject *address = PyLong_FromVoidPtr(ssl), *key = NULL;
        if (address != NULL && (key = PyObject_CallFunctionObjArgs(ssl_at, address, NULL)) != NULL) {
            pump = (Pump *)PyDict_GetItemWithError(running, key);
        }
        Py_XDECREF(address);
        Py_XDECREF(key);
    }
    return pump;
}

/* What Config.bindings has for the hello. 1: it is done. 0: that is Python's to do. -1: an exception. */
static int
note_hello(Pump *pump)
{
    PyObject *config = PyObject_GetAttr((PyObject *)pump, a_config), *first = PyObject_GetAttr((PyObject *)pump, a_first);
    PyObject *record = PyObject_GetAttr((PyObject *)pump, a_handshake), *names = NULL, *before = NULL;
    PyObject *message = NULL, *name = NULL, *known, *digest;
    char *value;
    Py_ssize_t length;
    int done = -1;
    if (config == NULL || first == NULL || record == NULL || (names = PyObject_GetAttr(config, a_bindings)) == NULL ||
        (before = PyObject_GetAttr(record, a_hello)) == NULL) {
        goto end;
    }
    if (config != first || names == Py_None || before != Py_None) {
        done = 0;
        goto end;
    }
    if (read_hello(pump->c_ssl, &message, &name) < 0) {
        goto end;
    }
    known = PyDict_GetItemWithError(names, name);
    if (known == NULL) {
        done = PyErr_Occurred() ? -1 : 0;
        goto end;
    }
    Py_INCREF(known);
    digest = PyTuple_GetItem(known, 1);
    if (digest != NULL && PyBytes_AsStringAndSize(digest, &value, &length) == 0 &&
        PyObject_SetAttr(record, a_hello, message) == 0 &&
        PyObject_SetAttr(record, a_server_name, PyTuple_GetItem(known, 0)) == 0) {
        tell.SSL_set_session_id_context(pump->c_ssl, (unsigned char *)value, (unsigned int)length);
        pump->asks_for = name == Py_None ? NOBODY : SOMEBODY;
        done = 1;
    }
    Py_DECREF(known);
end:
    Py_XDECREF(config);
    Py_XDECREF(first);
    Py_XDECREF(record);
    Py_XDECREF(names);
    Py_XDECREF(before);
    Py_XDECREF(message);
    Py_XDECREF(name);
    return done;
}

static int
on_client_hello(void *ssl, int *alert, void *argument)
{
    Pump *pump = current(ssl);
    int done = 0;
    if (pump != NULL) {
        PyGILState_STATE state = PyGILState_Ensure();
        done = note_hello(pump);
        if (done < 0) {
            note_failure(pump);
        }
        PyGILState_Release(state);
    }
    return done == 0 ? python.client_hello(ssl, alert, argument) : done > 0 ? GO_ON : REFUSE;
}

static int
on_servername(void *ssl, int *alert, void *argument)
{
    Pump *pump = current(ssl);
    if (pump == NULL || pump->asks_for == NOT_READ) {
        return python.servername(ssl, alert, argument);
    }
    return pump->asks_for == NOBODY || tell.SSL_session_reused(ssl) ? TLSEXT_NOACK : TLSEXT_OK;
}

/* Whether there is an exception, which is the pump's from then on; nobody's, if that is NULL. */
static int
tell_error(Pump *pump)
{
    if (!PyErr_Occurred()) {
        return 0;
    }
    if (pump != NULL) {
        note_failure(pump);
    }
    else {
        PyErr_WriteUnraisable(NULL);
    }
    return 1;
}

static void *
on_get_session(void *ssl, const unsigned char *id, int length, int *copy)
{
    PyGILState_STATE state = PyGILState_Ensure();
    Pump *pump = find(ssl);
    PyObject *session_id = NULL, *found = NULL;
    void *session = NULL;
    if (pump != NULL && (session_id = PyBytes_FromStringAndSize((const char *)id, length)) != NULL) {
        found = ask_for(pump, look_up, Py_None, &session_id, 1);
        Py_DECREF(session_id);
    }
    if (found != NULL && found != Py_None) {
        if (PyCapsule_IsValid(found, SESSION)) {
            session = PyCapsule_GetPointer(found, SESSION);
        }
        else {
            PyObject *address = PyObject_CallFunctionObjArgs(address_of, found, NULL);
            session = address == NULL ? NULL : PyLong_AsVoidPtr(address);
            Py_XDECREF(address);
        }
    }
    if (tell_error(pump)) {
        session = NULL;
    }
    if (session != NULL) {
        tell.SSL_SESSION_up_ref(session); /* this one is OpenSSL's */
    }
    *copy = 0;
    Py_XDECREF(found);
    PyGILState_Release(state);
    return session;
}

/* facts.record(). */
static int
record(const void *ssl, const void *session, PyObject **told)
{
    unsigned int id_length, context_length;
    const char *id = tell.SSL_SESSION_get_id(session, &id_length);
    const char *context = tell.SSL_SESSION_get0_id_context(session, &context_length);
    unsigned char *der = NULL;
    int length = tell.i2d_SSL_SESSION(session, &der);
    if (length <= 0 || der == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    told[0] = PyBytes_FromStringAndSize(id, id_length);
    told[1] = PyBytes_FromStringAndSize(context, context_length);
    told[2] = PyLong_FromLong(tell.SSL_SESSION_get_time(session) + tell.SSL_SESSION_get_timeout(session));
    told[3] = PyBytes_FromStringAndSize((char *)der, length);
    told[4] = PyBool_FromLong(tell.SSL_session_reused(ssl));
    tell.CRYPTO_free(der, "", 0);
    return told[0] && told[1] && told[2] && told[3] && told[4] ? 0 : -1;
}

static int
on_new_session(void *ssl, void *session)
{
    PyGILState_STATE state = PyGILState_Ensure();
    Pump *pump = find(ssl);
    PyObject *told[TOLD] = {NULL}, *done = NULL;
    int index;
    if (pump != NULL && !has_failed(pump) && record(ssl, session, told) == 0) {
        done = ask_for(pump, store, Py_None, told, TOLD);
    }
    tell_error(pump);
    Py_XDECREF(done);
    for (index = 0; index < TOLD; index++) {
        Py_XDECREF(told[index]);
    }
    PyGILState_Release(state);
    return 0; /* OpenSSL keeps its reference */
}

/* (addresses of Python's callbacks, what on_get_session() and on_new_session() call, what tells a pointer's address):
   those of the above. */
static PyObject *
bind_callbacks(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *addresses, *looks_up, *stores, *address;
    void *functions[CALLBACKS];
    if (!PyArg_ParseTuple(arguments, "OOOO", &addresses, &looks_up, &stores, &address) ||
        read_addresses(addresses, functions, CALLBACKS) < 0) {
        return NULL;
    }
    memcpy(&python, functions, sizeof(python));
    keep(&look_up, looks_up);
    keep(&store, stores);
    keep(&address_of, address);
    return Py_BuildValue("NNNN", PyLong_FromVoidPtr((void *)(uintptr_t)on_client_hello),
                         PyLong_FromVoidPtr((void *)(uintptr_t)on_servername),
                         PyLong_FromVoidPtr((void *)(uintptr_t)on_get_session),
                         PyLong_FromVoidPtr((void *)(uintptr_t)on_new_session));
}

static PyObject *
current_thread(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    return PyLong_FromUnsignedLongLong(thread_number());
}

static PyMethodDef functions[] = {
    {"bind", bind_functions, METH_VARARGS, NULL},
    {"bind_facts", bind_facts, METH_O, NULL},
    {"bind_callbacks", bind_callbacks, METH_VARARGS, NULL},
    {"hello", hello, METH_O, NULL},
    {"parse", parse, METH_VARARGS, NULL},
    {"settle", FAST(settle), NULL},
    {"current_thread", current_thread, METH_NOARGS, NULL},
    {"ask", FAST(ask), NULL},
    {"wait_until", FAST(wait_until), NULL},
    {"occupant", occupant, METH_O, NULL},
    {"occupants", occupants, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "greentls.openssl._pump", NULL, -1, functions,
                                        NULL, NULL, NULL, NULL};

static const struct {
    PyObject **where;
    const char *text;
} texts[] = {
    {&no_text, ""},          {&n_handshake, "do_handshake"}, {&n_read, "read"},       {&n_write, "write"},
    {&n_shutdown, "shutdown"}, {&n_send, "send"},            {&n_receive, "receive"}, {&m_refusal, "refusal"},
    {&m_failed, "failed"},   {&m_not_now, "not_now"},    {&m_left, "tell_those_who_wait"},
    {&m_next, "tell_the_next"}, {&m_switch, "switch"}, {&m_start, "start"}, {&m_stop, "stop"},
    {&a_config, "config"}, {&a_first, "_original"}, {&a_handshake, "handshake"}, {&a_hello, "hello"},
    {&a_bindings, "bindings"}, {&a_server_name, "server_name"},
};

PyMODINIT_FUNC
PyInit__pump(void)
{
    PyObject *module = PyModule_Create(&definition);
    size_t index;
    if (module == NULL) {
        return NULL;
    }
    for (index = 0; index < sizeof(texts) / sizeof(texts[0]); index++) {
        *texts[index].where = PyUnicode_InternFromString(texts[index].text);
        if (*texts[index].where == NULL) {
            return NULL;
        }
    }
    running = PyDict_New();
    pump_type = (PyTypeObject *)PyType_FromSpec(&Pump_spec);
    Py_XINCREF(pump_type);
    if (running == NULL || pump_type == NULL || PyModule_AddObject(module, "Pump", (PyObject *)pump_type) < 0 ||
        PyModule_AddIntConstant(module, "CONTRACT", CONTRACT) < 0) {
        return NULL;
    }
    return module;
}
