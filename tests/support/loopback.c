/* bind() for programs that listen on every address and cannot be told otherwise: with LD_PRELOAD, on loopback only. */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } asked;

    if (length > sizeof asked)
        return syscall(SYS_bind, fd, address, length);
    memcpy(&asked, address, length);
    if (length >= sizeof asked.v4 && asked.any.sa_family == AF_INET && asked.v4.sin_addr.s_addr == INADDR_ANY)
        asked.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (length >= sizeof asked.v6 && asked.any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&asked.v6.sin6_addr)) {
        int alone = 1;
        socklen_t size = sizeof alone;
        asked.v6.sin6_addr = in6addr_loopback;
        if (!getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &alone, &size) && !alone) /* stands for both, so for 127.0.0.1 */
            memcpy(&asked.v6.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
    }
    return syscall(SYS_bind, fd, &asked, length);
}
