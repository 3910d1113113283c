/*
 * Bytes through a TCP connection, from guest to guest or to anybody who takes them as this does:
 *
 *     stream serve PORT                takes what comes, one connection after the other
 *     stream send ADDRESS PORT BYTES   reports how long the last three quarters took until the other end had it all
 *
 * The sender says in 8 bytes, little-endian, how many follow; the receiver answers with one once it has them.
 */
#include "linux.h"

enum { SYS_read = 63, SYS_socket = 198, SYS_bind = 200, SYS_listen = 201, SYS_accept = 202, SYS_connect = 203,
       SYS_setsockopt = 208 };

#define SOL_SOCKET 1
#define SO_REUSEADDR 2

static unsigned char buffer[1 << 18];

static i64 call(i64 number, i64 first, i64 second, i64 third)
{
    return linux_call(number, first, second, third, 0, 0, 0);
}

static i64 tcp_socket(void)
{
    i64 made = call(SYS_socket, 2, 1, 0);

    must(made >= 0, "socket");
    return made;
}

/* A struct sockaddr_in: family, port, four numbers of the address. */
static void address_of(unsigned char *to, const char *text, u64 port)
{
    for (int i = 0; i < 16; i++)
        to[i] = 0;
    to[0] = 2;
    to[2] = (unsigned char)(port >> 8);
    to[3] = (unsigned char)port;
    for (int i = 0; text && i < 4; i++) {
        to[4 + i] = (unsigned char)number_from(text);
        while (*text >= '0' && *text <= '9')
            text++;
        if (*text)
            text++;
    }
}

static int has_count(i64 connection, u64 *count)
{
    unsigned char said[8];

    for (u64 had = 0; had < sizeof said;) {
        i64 got = call(SYS_read, connection, (i64)(said + had), (i64)(sizeof said - had));
        if (got <= 0)
            return 0;
        had += (u64)got;
    }
    *count = 0;
    for (int i = 7; i >= 0; i--)
        *count = *count << 8 | said[i];
    return 1;
}

static void serve(u64 port)
{
    unsigned char address[16];
    i64 listener = tcp_socket();
    int on = 1;

    linux_call(SYS_setsockopt, listener, SOL_SOCKET, SO_REUSEADDR, (i64)&on, sizeof on, 0);
    address_of(address, 0, port);
    must(call(SYS_bind, listener, (i64)address, sizeof address) == 0, "bind");
    must(call(SYS_listen, listener, 8, 0) == 0, "listen");
    for (;;) {
        i64 connection = call(SYS_accept, listener, 0, 0), got = 1;
        u64 left;

        if (connection < 0)
            continue;
        if (has_count(connection, &left)) {
            while (left && got > 0) {
                got = call(SYS_read, connection, (i64)buffer, (i64)(left < sizeof buffer ? left : sizeof buffer));
                left -= got > 0 ? (u64)got : 0;
            }
            if (!left)
                call(SYS_write, connection, (i64) "+", 1);
        }
        call(SYS_close, connection, 0, 0);
    }
}

static void put(i64 connection, u64 count)
{
    while (count) {
        i64 done = call(SYS_write, connection, (i64)buffer, (i64)(count < sizeof buffer ? count : sizeof buffer));
        must(done > 0, "write");
        count -= (u64)done;
    }
}

static void send(const char *to, u64 port, u64 count)
{
    unsigned char address[16], said[8];
    i64 connection = tcp_socket();

    address_of(address, to, port);
    must(call(SYS_connect, connection, (i64)address, sizeof address) == 0, "connect");
    for (int i = 0; i < 8; i++)
        said[i] = (unsigned char)(count >> 8 * i);
    must(call(SYS_write, connection, (i64)said, sizeof said) == sizeof said, "write");
    put(connection, count / 4); /* TCP finds out how fast it may be */
    u64 began = ticks();
    put(connection, count - count / 4);
    must(call(SYS_read, connection, (i64)said, 1) == 1, "read");
    report("stream", count - count / 4, ticks() - began, 0);
}

int main(int count, char **words)
{
    must(count > 2, "the command line");
    if (words[1][1] == 'e' && words[1][2] == 'r')
        serve(number_from(words[2]));
    must(count == 5, "the command line");
    send(words[2], number_from(words[3]), number_from(words[4]));
    return 0;
}
