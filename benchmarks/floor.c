/* floor: the lower bound for any server. It is one thread with epoll and OpenSSL over memory BIOs, as in greentls, and
 * nothing else.
 *
 *     floor CERTIFICATE KEY BLOCK
 *
 * It prints the ports of echo, upload and download as JSON, and serves until standard input ends.
 */
#define _GNU_SOURCE /* accept4() */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum kind { ECHO, UPLOAD, DOWNLOAD, KINDS };
enum { RECEIVE = 65536, RECORD = 16384 };

struct connection {
    int fd, established, blocked;
    enum kind kind;
    SSL *ssl;
    BIO *incoming, *outgoing;
};

static SSL_CTX *context;
static char *block, received[RECEIVE], plain[RECORD];
static int size, poller;

static void die(const char *what)
{
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(2);
}

static void end(struct connection *each)
{
    SSL_set_shutdown(each->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(each->ssl);
    close(each->fd);
    free(each);
}

/* Returns 1 if all is sent, 0 if the socket is full, -1 if it is gone. */
static int flush(struct connection *each)
{
    char *data;
    long left = BIO_get_mem_data(each->outgoing, &data);
    while (left > 0) {
        ssize_t sent = send(each->fd, data, left, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN ? 0 : -1;
        if (sent == left) {
            (void)BIO_reset(each->outgoing);
            return 1;
        }
        while (sent > 0) { /* a memory BIO has no way to skip */
            int taken = BIO_read(each->outgoing, plain, sent < RECORD ? sent : RECORD);
            sent -= taken;
        }
        left = BIO_get_mem_data(each->outgoing, &data);
    }
    return 1;
}

static int talk(struct connection *each)
{
    int result;
    if (!each->established) {
        result = SSL_do_handshake(each->ssl);
        if (result != 1 && SSL_get_error(each->ssl, result) != SSL_ERROR_WANT_READ) {
            flush(each);
            return -1;
        }
        if (flush(each) < 0)
            return -1;
        if (result != 1)
            return 1;
        each->established = 1;
    }
    if (each->kind == DOWNLOAD) {
        for (int turn = 0; turn < 4; turn++) {
            if ((result = flush(each)) != 1)
                return result;
            SSL_write(each->ssl, block, size);
        }
        return flush(each);
    }
    while ((result = SSL_read(each->ssl, plain, sizeof plain)) > 0)
        if (each->kind == ECHO)
            SSL_write(each->ssl, plain, result);
    if (flush(each) < 0)
        return -1;
    return SSL_get_error(each->ssl, result) == SSL_ERROR_WANT_READ ? 1 : -1;
}

static void serve(struct connection *each, unsigned happened)
{
    ERR_clear_error();
    if (happened & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t length = recv(each->fd, received, sizeof received, 0);
        if (length == 0 || (length < 0 && errno != EAGAIN)) {
            end(each);
            return;
        }
        if (length > 0)
            BIO_write(each->incoming, received, length);
    }
    int result = talk(each);
    if (result < 0) {
        end(each);
        return;
    }
    int blocked = each->kind == DOWNLOAD && each->established;
    if (blocked != each->blocked) {
        struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = each};
        each->blocked = blocked;
        epoll_ctl(poller, EPOLL_CTL_MOD, each->fd, &event);
    }
}

static void admit(int listener, enum kind kind)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *each = calloc(1, sizeof *each);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = each};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        each->fd = fd;
        each->kind = kind;
        each->ssl = SSL_new(context);
        each->incoming = BIO_new(BIO_s_mem());
        each->outgoing = BIO_new(BIO_s_mem());
        BIO_set_mem_eof_return(each->incoming, -1);
        SSL_set_bio(each->ssl, each->incoming, each->outgoing);
        SSL_set_accept_state(each->ssl);
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    *port = ntohs(address.sin_port);
    return fd;
}

int main(int count, char **words)
{
    int listeners[KINDS], ports[KINDS];

    if (count != 4 || (size = atoi(words[3])) < 1) {
        fprintf(stderr, "usage: floor CERTIFICATE KEY BLOCK\n");
        return 2;
    }
    block = calloc(1, size);
    context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"floor", 5);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    if (SSL_CTX_use_certificate_chain_file(context, words[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, words[2], SSL_FILETYPE_PEM) != 1)
        die("the certificate");
    poller = epoll_create1(0);
    for (int kind = 0; kind < KINDS; kind++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listeners[kind]};
        listeners[kind] = listen_on(&ports[kind]);
        epoll_ctl(poller, EPOLL_CTL_ADD, listeners[kind], &event);
    }
    struct epoll_event standard_input = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &standard_input);
    printf("{\"echo\": %d, \"upload\": %d, \"download\": %d}\n", ports[ECHO], ports[UPLOAD], ports[DOWNLOAD]);
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int some = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < some; i++) {
            char *what = events[i].data.ptr;
            if (!what) {
                if (read(0, received, sizeof received) <= 0)
                    return 0;
            } else if (what >= (char *)listeners && what < (char *)(listeners + KINDS)) {
                admit(*(int *)what, (enum kind)((int *)what - listeners));
            } else {
                serve((struct connection *)what, events[i].events);
            }
        }
    }
}
