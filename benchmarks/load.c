/* load: TLS clients from one thread, so light that the server is what is measured.
 *
 *     load HOST PORT 1.2|1.3 full|resumed CLIENTS SECONDS
 *     load HOST PORT 1.2|1.3 echo|upload|download|idle CLIENTS SECONDS SIZE PID
 *
 * full, resumed: every client connects, does a handshake, sends close_notify, waits for the server's end, and begins
 * again. Resumed ones all resume one session, made by a first connection that exchanges a byte so that the ticket has
 * come. After a quarter of the time (at most a second) of warming up it counts for SECONDS, and prints one line of
 * JSON: handshakes, how many of them resumed, failures, seconds, and its own CPU's share of them: near 1.0 means that
 * it was the limit.
 *
 * echo: each client writes SIZE bytes, reads as many, and begins again. upload: it writes SIZE bytes at a time.
 * download: it reads what comes, the first MiB as TLS; of the rest it just counts the bytes of ciphertext. Warmed up
 * likewise, it counts bytes and, of echoes, exchanges, and the seconds of CPU that the server, process PID, had
 * meanwhile. idle: each client echoes once; when all have (in SECONDS at most) the line is printed, and the connections
 * stay until standard input ends.
 *
 * Build: cc -O2 -o load load.c -lssl -lcrypto
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum phase { CONNECTING, HANDSHAKE, CLOSING, TALKING, RESTING };
enum mode { FULL, RESUMED, ECHO, UPLOAD, DOWNLOAD, IDLE, MODES };
static const char *const names[MODES] = {"full", "resumed", "echo", "upload", "download", "idle"};

enum {
    LARGEST = 1 << 20, /* bytes of a write */
    PROVED = 1 << 20,  /* bytes of a download that are decrypted */
    TURN = 16,         /* reads or writes of one client before the next one's turn */
};

struct client {
    int fd;
    SSL *ssl;
    enum phase phase;
    int due;  /* bytes that the server has yet to echo */
    int seen; /* bytes of a download that were decrypted */
};

static enum mode mode;
static int size;
static char block[LARGEST];
static const char *cipher = "";
static SSL_CTX *context;
static SSL_SESSION *session;
static struct sockaddr_in address;
static int poller;
static long handshakes, resumptions, failures, exchanges, bytes;

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(2);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static double cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* CPU seconds of another process: to the nanosecond, where /proc has clock ticks */
static double cpu_of(pid_t pid)
{
    clockid_t clock;
    struct timespec time;
    if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &time) < 0)
        die("the server's CPU time");
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void begin(struct client *client)
{
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};

    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->fd < 0)
        die("socket");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    client->ssl = SSL_new(context);
    SSL_set_fd(client->ssl, client->fd);
    if (mode == UPLOAD) { /* one system call for the records of a block */
        BIO *buffer = BIO_new(BIO_f_buffer());
        BIO_set_write_buffer_size(buffer, size + 4096);
        BIO_up_ref(SSL_get_wbio(client->ssl));
        SSL_set0_wbio(client->ssl, BIO_push(buffer, SSL_get_wbio(client->ssl)));
    }
    SSL_set_connect_state(client->ssl);
    SSL_set_tlsext_host_name(client->ssl, "localhost");
    if (session)
        SSL_set_session(client->ssl, session);
    client->phase = CONNECTING;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event) < 0)
        die("epoll_ctl");
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        die("connect");
}

static void again(struct client *client, int good)
{
    if (good) {
        handshakes++;
        resumptions += SSL_session_reused(client->ssl);
    } else {
        failures++;
    }
    ERR_clear_error();
    /* or OpenSSL would call the session bad, for all of them */
    SSL_set_shutdown(client->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client->ssl);
    close(client->fd);
    begin(client);
}

/* Bulk goes by level and in turns, or the first client would have all of the time; echo by edge, as it began. */
static void start_talking(struct client *client)
{
    struct epoll_event event = {.events = mode == DOWNLOAD ? EPOLLIN : EPOLLOUT, .data.ptr = client};

    handshakes++;
    cipher = SSL_get_cipher(client->ssl);
    client->phase = TALKING;
    client->due = client->seen = 0;
    if ((mode == UPLOAD || mode == DOWNLOAD) && epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void talk(struct client *client)
{
    char scratch[16384];
    int result, error;

    for (int turn = 0; mode == ECHO || mode == IDLE || turn < TURN; turn++) {
        int reading = mode == DOWNLOAD || client->due;
        if (client->seen >= PROVED) { /* decrypting all of it would take a core longer than the server */
            result = recv(client->fd, NULL, LARGEST, MSG_TRUNC);
            if (result < 0 && errno == EAGAIN)
                return;
            if (result > 0)
                bytes += result;
            else
                again(client, 0);
            return;
        }
        if (mode == UPLOAD && BIO_flush(SSL_get_wbio(client->ssl)) <= 0) {
            if (errno != EAGAIN)
                again(client, 0);
            return;
        }
        result = reading ? SSL_read(client->ssl, scratch, sizeof scratch) : SSL_write(client->ssl, block, size);
        if (result <= 0) {
            error = SSL_get_error(client->ssl, result);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
                again(client, 0);
            return;
        }
        if (mode == UPLOAD || mode == DOWNLOAD) {
            bytes += result;
            client->seen += reading ? result : 0;
            continue;
        }
        client->due += reading ? -result : result;
        if (client->due == 0) {
            exchanges++;
            bytes += size;
            if (mode == IDLE) {
                client->phase = RESTING;
                return;
            }
        }
    }
}

static void step(struct client *client)
{
    char scratch[16384];
    int result, error;

    if (client->phase == CONNECTING) {
        int problem = 0;
        socklen_t length = sizeof problem;
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &problem, &length);
        if (problem) {
            again(client, 0);
            return;
        }
        client->phase = HANDSHAKE;
    }
    if (client->phase == HANDSHAKE) {
        result = SSL_do_handshake(client->ssl);
        if (result != 1) {
            error = SSL_get_error(client->ssl, result);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
                again(client, 0);
            return;
        }
        if (mode == FULL || mode == RESUMED) {
            SSL_shutdown(client->ssl);
            client->phase = CLOSING;
        } else {
            start_talking(client);
        }
    }
    if (client->phase == TALKING)
        talk(client);
    if (client->phase != CLOSING)
        return;
    for (;;) { /* until the server has ended it, so that all of its work is done */
        result = SSL_read(client->ssl, scratch, sizeof scratch);
        if (result > 0)
            continue;
        error = SSL_get_error(client->ssl, result);
        if (error == SSL_ERROR_WANT_READ)
            return;
        again(client, error == SSL_ERROR_ZERO_RETURN);
        return;
    }
}

static int keep(SSL *ssl, SSL_SESSION *made)
{
    (void)ssl;
    if (session)
        return 0;
    session = made;
    return 1;
}

static void make_session(void)
{
    char byte = 'x';
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    SSL *ssl = SSL_new(context);

    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    SSL_set_fd(ssl, fd);
    SSL_set_tlsext_host_name(ssl, "localhost");
    if (SSL_connect(ssl) != 1 || SSL_write(ssl, &byte, 1) != 1 || SSL_read(ssl, &byte, 1) != 1)
        die("the first handshake");
    SSL_shutdown(ssl);
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    close(fd);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    if (!session) {
        fprintf(stderr, "load: the server gave no session\n");
        exit(2);
    }
    usleep(200000); /* the server's store has it */
}

static int usage(void)
{
    fprintf(stderr, "usage: load HOST PORT 1.2|1.3 full|resumed CLIENTS SECONDS\n"
                    "       load HOST PORT 1.2|1.3 echo|upload|download|idle CLIENTS SECONDS SIZE PID\n");
    return 2;
}

int main(int count, char **words)
{
    if (count < 7)
        return usage();
    int version = strcmp(words[3], "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION;
    while (mode < MODES && strcmp(words[4], names[mode]))
        mode++;
    if (mode == MODES || count != (mode < ECHO ? 7 : 9))
        return usage();
    int clients = atoi(words[5]);
    double seconds = atof(words[6]);
    pid_t server = 0;
    if (mode >= ECHO) {
        size = atoi(words[7]);
        server = atoi(words[8]);
    }

    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(words[2]));
    if (inet_pton(AF_INET, words[1], &address.sin_addr) != 1 || clients < 1 || seconds <= 0) {
        fprintf(stderr, "load: HOST must be an IPv4 address, CLIENTS and SECONDS above 0\n");
        return 2;
    }
    if (mode >= ECHO && (size < 1 || size > LARGEST)) {
        fprintf(stderr, "load: SIZE must be from 1 to %d\n", LARGEST);
        return 2;
    }
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    if (mode != ECHO && mode != UPLOAD && mode != DOWNLOAD) /* there, buffers are needed again at once */
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    if (mode == RESUMED)
        make_session();
    poller = epoll_create1(0);

    struct client *all = calloc(clients, sizeof *all);
    for (int i = 0; i < clients; i++)
        begin(&all[i]);

    double warm = seconds / 4 < 1 ? seconds / 4 : 1;
    double start = now() + warm, end = start + seconds, began = now(), used = cpu(), served = 0;
    int counting = mode == IDLE;
    while (now() < end && !(mode == IDLE && exchanges >= clients)) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < ready; i++)
            step(events[i].data.ptr);
        if (!counting && now() >= start) {
            counting = 1;
            handshakes = resumptions = failures = exchanges = bytes = 0;
            began = now();
            used = cpu();
            served = server ? cpu_of(server) : 0;
        }
    }
    double elapsed = now() - began;
    if (mode < ECHO) {
        printf("{\"handshakes\": %ld, \"resumed\": %ld, \"failures\": %ld, \"seconds\": %.3f, "
               "\"own_cpu\": %.2f}\n",
               handshakes, resumptions, failures, elapsed, (cpu() - used) / elapsed);
        return 0;
    }
    printf("{\"cipher\": \"%s\", \"exchanges\": %ld, \"bytes\": %ld, \"failures\": %ld, \"seconds\": %.4f, "
           "\"own_cpu\": %.3f, \"server_cpu\": %.6f}\n",
           cipher, exchanges, bytes, failures, elapsed, (cpu() - used) / elapsed, cpu_of(server) - served);
    fflush(stdout);
    while (mode == IDLE && getchar() != EOF)
        ;
    return 0;
}
