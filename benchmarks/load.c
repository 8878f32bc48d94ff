/* load: TLS clients in one thread, light enough that the server is the limit.
 *
 *     load [OPTION]... full|resumed|echo|upload|download|idle HOST PORT
 *
 *     -v 1.2|1.3  version of TLS (1.3)         -s BYTES    size of an echo or a write (64)
 *     -c CLIENTS  number of clients (32)       -i SECONDS  between two echoes of a client (0)
 *     -t SECONDS  length of measurement (1)    -p PID,...  the server's processes, whose CPU time is measured
 *     -w SECONDS  warm-up before it (a quarter of -t)
 *     -a          offers ALPN h2, http/1.1     -o          asks for an OCSP response
 *     -b CLIENTS  of idle: at most so many that are not idle yet (all)
 *
 * full, resumed: every client connects, does a handshake, sends close_notify, waits until the server closes, and begins
 * again. For "resumed", each first collects its own sessions by full handshakes before the measurement. Under TLS 1.2
 * it keeps the newest session and offers it every time. Under TLS 1.3 it offers each ticket once, the oldest first, and
 * waits for the next ticket before it closes. A server that gives none after a resumption (Node) is offered the old
 * ones again.
 *
 * echo: each client writes BYTES, reads as many, and begins again. upload: it writes BYTES at a time; what takes less than
 * 4 KiB goes out when it has come to as much. download: it reads
 * the first MiB as TLS, and then only counts bytes of ciphertext, because decrypting them would take longer than the
 * server needs. idle: each client echoes once. When all have, in at most SECONDS, the result is printed, and the
 * connections stay until standard input ends.
 *
 * It prints one line of JSON: handshakes, resumed ones, failures, exchanges, bytes; seconds; the median and the 99th
 * percentile of a handshake (from connect() on) or an echo in milliseconds, null if not every client had one; the share
 * of a core that it used itself (near 1, it was the limit); and the server's CPU seconds. All clients offer only
 * AES-256-GCM, so that all servers use the same cipher.
 */
#include <arpa/inet.h>
#include <errno.h>
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

enum phase { CONNECTING, HANDSHAKE, TICKET, CLOSING, TALKING, RESTING };
enum mode { FULL, RESUMED, ECHO, UPLOAD, DOWNLOAD, IDLE, MODES };
static const char *const names[MODES] = {"full", "resumed", "echo", "upload", "download", "idle"};

enum {
    LARGEST = 1 << 20, /* bytes of a write */
    PROVED = 1 << 20,  /* bytes of a download that are decrypted */
    TOGETHER = 4096,   /* bytes of small uploads that go out at once */
    TURN = 16,         /* reads or writes of one client before the next one's turn */
    KEPT = 4,          /* sessions of a client */
    AHEAD = 2,         /* sessions before it begins: the server's store surely has the older one */
    PATIENCE = 20,     /* seconds for all clients to collect sessions */
    SAMPLES = 4 << 20, /* highest number of kept latencies */
    SERVERS = 16,      /* processes of a server */
};

struct client {
    int fd;
    SSL *ssl;
    enum phase phase;
    int due;      /* bytes that the server has not echoed yet */
    int seen;     /* bytes of a download that were decrypted */
    int got;      /* tickets of this connection */
    double since; /* when the handshake or echo began; resting: when it ends */
    SSL_SESSION *sessions[KEPT], *offered;
    int kept;
};

/* Before "resumed" is measured, every client collects sessions. Then one tests whether a resumption gets tickets. */
enum preparation { READY, COLLECTING, TRYING };
static const double WHILE = 0.3; /* seconds that the test waits for its ticket */

static enum mode mode;
static int version = TLS1_3_VERSION, clients = 32, together, size = 64, alpn, staple, ready, renews = 1;
static enum preparation preparation;
static double seconds = 1, warm = -1, pause_between;
static pid_t servers[SERVERS];
static char block[LARGEST];
static const char *cipher = "";
static SSL_CTX *context;
static struct client *all;
static struct sockaddr_in address;
static int poller;
static long handshakes, resumptions, failures, exchanges, bytes, sampled;
static float *samples; /* seconds */

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

/* CPU seconds of the server's processes, to the nanosecond; /proc has only clock ticks */
static double servers_cpu(void)
{
    double sum = 0;
    for (int i = 0; i < SERVERS && servers[i]; i++) {
        clockid_t clock;
        struct timespec time;
        if (clock_getcpuclockid(servers[i], &clock) || clock_gettime(clock, &time) < 0)
            die("the server's CPU time");
        sum += time.tv_sec + time.tv_nsec * 1e-9;
    }
    return sum;
}

static void sample(double since)
{
    if (sampled < SAMPLES)
        samples[sampled++] = now() - since;
}

/* -- sessions ------------------------------------------------------------------------------------------------------ */

static void keep(struct client *client, SSL_SESSION *session)
{
    int room = version == TLS1_3_VERSION ? KEPT : 1;
    if (client->kept == room) {
        SSL_SESSION_free(client->sessions[0]);
        memmove(client->sessions, client->sessions + 1, --client->kept * sizeof *client->sessions);
    }
    client->sessions[client->kept++] = session;
}

static int on_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct client *client = SSL_get_app_data(ssl);
    if (SSL_version(ssl) != TLS1_3_VERSION) /* handled after the handshake */
        return 0;
    client->got++;
    keep(client, session);
    return 1;
}

static void offer(struct client *client)
{
    if (preparation == COLLECTING || !client->kept)
        return;
    if (version == TLS1_2_VERSION) {
        SSL_set_session(client->ssl, client->sessions[0]);
    } else {
        SSL_SESSION *copy = SSL_SESSION_dup(client->sessions[0]); /* OpenSSL makes a used one unusable */
        SSL_set_session(client->ssl, copy);
        SSL_SESSION_free(copy);
        client->offered = client->sessions[0];
        memmove(client->sessions, client->sessions + 1, --client->kept * sizeof *client->sessions);
    }
}

static void forget_offered(struct client *client)
{
    if (client->offered && !renews)
        keep(client, client->offered);
    else
        SSL_SESSION_free(client->offered);
    client->offered = NULL;
}

/* -- one client ---------------------------------------------------------------------------------------------------- */

static void begin(struct client *client)
{
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};

    client->since = now();
    client->got = client->due = client->seen = 0;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->fd < 0)
        die("socket");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    client->ssl = SSL_new(context);
    SSL_set_app_data(client->ssl, client);
    SSL_set_fd(client->ssl, client->fd);
    if (mode == UPLOAD) { /* one system call for the records of a block */
        BIO *buffer = BIO_new(BIO_f_buffer());
        BIO_set_write_buffer_size(buffer, size + TOGETHER);
        BIO_up_ref(SSL_get_wbio(client->ssl));
        SSL_set0_wbio(client->ssl, BIO_push(buffer, SSL_get_wbio(client->ssl)));
    }
    SSL_set_connect_state(client->ssl);
    SSL_set_tlsext_host_name(client->ssl, "localhost");
    if (staple)
        SSL_set_tlsext_status_type(client->ssl, TLSEXT_STATUSTYPE_ocsp);
    offer(client);
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
    /* or OpenSSL would call the session bad */
    SSL_set_shutdown(client->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client->ssl);
    close(client->fd);
    forget_offered(client);
    if (preparation == TRYING || (preparation && client->kept >= (version == TLS1_3_VERSION ? AHEAD : 1))) {
        client->phase = RESTING;
        ready++;
        return;
    }
    begin(client);
}

/* Bulk is level-triggered and in turns; otherwise the first client would take all the time. Echo is edge-triggered. */
static void start_talking(struct client *client)
{
    struct epoll_event event = {.events = mode == DOWNLOAD ? EPOLLIN : EPOLLOUT, .data.ptr = client};

    handshakes++;
    client->phase = TALKING;
    client->since = now();
    if ((mode == UPLOAD || mode == DOWNLOAD) && epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &event) < 0)
        die("epoll_ctl");
}

static void talk(struct client *client)
{
    char scratch[16384];
    int result, error;

    for (int turn = 0; mode == ECHO || mode == IDLE || turn < TURN; turn++) {
        int reading = mode == DOWNLOAD || client->due;
        if (client->seen >= PROVED) {
            result = recv(client->fd, NULL, LARGEST, MSG_TRUNC);
            if (result < 0 && errno == EAGAIN)
                return;
            if (result > 0)
                bytes += result;
            else
                again(client, 0);
            return;
        }
        if (mode == UPLOAD && size > TOGETHER && BIO_flush(SSL_get_wbio(client->ssl)) <= 0) {
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
        if (client->due)
            continue;
        exchanges++;
        bytes += size;
        sample(client->since);
        client->since = now() + pause_between;
        if (mode == IDLE || pause_between > 0) {
            client->phase = RESTING;
            return;
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
        cipher = SSL_get_cipher(client->ssl);
        if (mode == FULL || mode == RESUMED) {
            if (!preparation)
                sample(client->since);
            if (mode == RESUMED && version == TLS1_2_VERSION)
                keep(client, SSL_get1_session(client->ssl));
            client->phase = TICKET;
        } else {
            start_talking(client);
        }
    }
    if (client->phase == TALKING)
        talk(client);
    if (client->phase == TICKET && mode == RESUMED && version == TLS1_3_VERSION && !client->got) {
        result = SSL_read(client->ssl, scratch, sizeof scratch);
        if (result <= 0 && SSL_get_error(client->ssl, result) != SSL_ERROR_WANT_READ) {
            again(client, 0);
            return;
        }
        if (!client->got && (renews || !SSL_session_reused(client->ssl)))
            return;
    }
    if (client->phase == TICKET) { /* it is there, or not waited for */
        SSL_shutdown(client->ssl);
        client->phase = CLOSING;
    }
    if (client->phase != CLOSING)
        return;
    for (;;) { /* until the server closes, so that all its work is done */
        result = SSL_read(client->ssl, scratch, sizeof scratch);
        if (result > 0)
            continue;
        error = SSL_get_error(client->ssl, result);
        if (error == SSL_ERROR_WANT_READ)
            return;
        /* a server that does not read our close_notify resets */
        again(client, error == SSL_ERROR_ZERO_RETURN || (error == SSL_ERROR_SYSCALL && errno == ECONNRESET));
        return;
    }
}

/* -- the program --------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void percentile(const char *name, double share)
{
    if (sampled < clients)
        printf("\"%s\": null, ", name);
    else
        printf("\"%s\": %.4f, ", name, samples[(long)(share * (sampled - 1))] * 1e3);
}

static int usage(void)
{
    fprintf(stderr, "usage: load [-v 1.2|1.3] [-c CLIENTS] [-t SECONDS] [-w SECONDS] [-s BYTES] [-i SECONDS]\n"
                    "            [-p PID,...] [-a] [-o] full|resumed|echo|upload|download|idle HOST PORT\n");
    return 2;
}

static int options(int count, char **words)
{
    int letter, servers_named = 0;
    while ((letter = getopt(count, words, "v:c:t:w:s:i:p:b:ao")) != -1) {
        switch (letter) {
        case 'v': version = strcmp(optarg, "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION; break;
        case 'c': clients = atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'w': warm = atof(optarg); break;
        case 's': size = atoi(optarg); break;
        case 'i': pause_between = atof(optarg); break;
        case 'b': together = atoi(optarg); break;
        case 'a': alpn = 1; break;
        case 'o': staple = 1; break;
        case 'p':
            for (char *pid = strtok(optarg, ","); pid && servers_named < SERVERS; pid = strtok(NULL, ","))
                servers[servers_named++] = atoi(pid);
            break;
        default: return 0;
        }
    }
    if (count - optind != 3)
        return 0;
    while (mode < MODES && strcmp(words[optind], names[mode]))
        mode++;
    if (warm < 0)
        warm = seconds / 4;
    if (mode != IDLE || together < 1 || together > clients)
        together = clients;
    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(words[optind + 2]));
    return mode < MODES && inet_pton(AF_INET, words[optind + 1], &address.sin_addr) == 1 && clients >= 1 &&
           seconds > 0 && size >= 1 && size <= LARGEST && pause_between >= 0;
}

int main(int count, char **words)
{
    if (!options(count, words))
        return usage();
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384");
    SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384");
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF); /* many servers just close */
    if (mode == RESUMED) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, on_ticket);
    }
    if (alpn)
        SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\2h2\10http/1.1", 12);
    if (mode != ECHO && mode != UPLOAD && mode != DOWNLOAD) /* those modes need buffers again at once */
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    poller = epoll_create1(0);
    all = calloc(clients, sizeof *all);
    samples = malloc(SAMPLES * sizeof *samples);
    preparation = mode == RESUMED ? COLLECTING : READY;
    double began = now(), used = cpu(), served = servers_cpu(), start = began + warm, end = start + seconds;
    double patience = began + PATIENCE, trial = 0;
    int counting = mode == IDLE, pacing = mode == ECHO && pause_between > 0;
    int begun = 0;
    for (; begun < together; begun++)
        begin(&all[begun]);
    while (preparation || (now() < end && !(mode == IDLE && exchanges >= clients))) {
        struct epoll_event events[256];
        int some = epoll_wait(poller, events, 256, pacing ? 1 : 50);
        for (int i = 0; i < some; i++)
            step(events[i].data.ptr);
        for (; begun < clients && begun - exchanges < together; begun++)
            begin(&all[begun]);
        if (preparation == COLLECTING && ready == clients) {
            preparation = TRYING;
            trial = now() + WHILE;
            begin(&all[0]);
        } else if (preparation == TRYING && ready > clients) {
            preparation = READY;
            start = now() + warm;
            end = start + seconds;
            for (int i = 0; i < clients; i++)
                begin(&all[i]);
        } else if (preparation == TRYING && all[0].phase == TICKET && now() > trial) {
            renews = 0;
            step(&all[0]);
        } else if (preparation && (now() > patience || failures > clients)) {
            fprintf(stderr, "load: %d of %d clients have got sessions, %ld failures\n", ready, clients, failures);
            return 1;
        }
        for (int i = 0; pacing && i < clients; i++)
            if (all[i].phase == RESTING && now() >= all[i].since) {
                all[i].phase = TALKING;
                all[i].since = now();
                talk(&all[i]);
            }
        if (!counting && !preparation && now() >= start) {
            counting = 1;
            handshakes = resumptions = failures = exchanges = bytes = sampled = 0;
            began = now();
            used = cpu();
            served = servers_cpu();
        }
    }
    double elapsed = now() - began, own = (cpu() - used) / elapsed, theirs = servers_cpu() - served;
    qsort(samples, sampled, sizeof *samples, by_size);
    printf("{\"handshakes\": %ld, \"resumed\": %ld, \"failures\": %ld, \"exchanges\": %ld, \"bytes\": %ld, "
           "\"seconds\": %.4f, ",
           handshakes, resumptions, failures, exchanges, bytes, elapsed);
    percentile("p50_ms", 0.5);
    percentile("p99_ms", 0.99);
    printf("\"own_cpu\": %.3f, \"server_cpu\": %.6f, \"cipher\": \"%s\"}\n", own, theirs, cipher);
    fflush(stdout);
    while (mode == IDLE && getchar() != EOF)
        ;
    return 0;
}
