/* A Linux program without a C library: many short TCP connections, one after another.
 *
 *     traffic connect ADDRESS PORT COUNT    connects COUNT times; sends a byte, reads to the end, closes
 *     traffic serve PORT                    answers each connection's first byte with the same one, and closes
 */

typedef unsigned char u8;
typedef unsigned int u32;

enum { READ = 63, WRITE = 64, CLOSE = 57, EXIT = 93, SOCKET = 198, BIND = 200, LISTEN = 201, ACCEPT = 202, CONNECT = 203,
       SETSOCKOPT = 208 };

static long call(long number, long a, long b, long c, long d, long e)
{
    register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a3 __asm__("a3") = d;
    register long a4 __asm__("a4") = e, a7 __asm__("a7") = number;

    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a7) : "memory");
    return a0;
}

static void finish(int status)
{
    for (;;)
        call(EXIT, status, 0, 0, 0, 0);
}

static void check(long result, const char *what)
{
    int length = 0;

    if (result >= 0)
        return;
    while (what[length])
        length++;
    call(WRITE, 2, (long)what, length, 0, 0);
    call(WRITE, 2, (long)" failed\n", 8, 0, 0);
    finish(1);
}

static u32 number(const char **text)
{
    u32 value = 0;

    while (**text >= '0' && **text <= '9')
        value = 10 * value + (u32)(*(*text)++ - '0');
    return value;
}

struct address { unsigned short family; u8 port[2]; u8 ip[4]; u8 zero[8]; };

static void set_port(struct address *address, const char *text)
{
    u32 port = number(&text);

    address->family = 2;
    address->port[0] = (u8)(port >> 8);
    address->port[1] = (u8)port;
}

static void connect_often(const char *ip, const char *port, const char *count)
{
    struct address to = {0};
    u8 byte = 'x';

    set_port(&to, port);
    for (int i = 0; i < 4; i++, ip++)
        to.ip[i] = (u8)number(&ip);
    for (u32 left = number(&count); left; left--) {
        long socket = call(SOCKET, 2, 1, 0, 0, 0);
        check(socket, "socket");
        check(call(CONNECT, socket, (long)&to, sizeof to, 0, 0), "connect");
        check(call(WRITE, socket, (long)&byte, 1, 0, 0) - 1, "write");
        check(call(READ, socket, (long)&byte, 1, 0, 0) - 1, "read");
        check(-call(READ, socket, (long)&byte, 1, 0, 0), "end");
        call(CLOSE, socket, 0, 0, 0, 0);
    }
}

static void serve(const char *port)
{
    struct address at = {0};
    int one = 1;
    u8 byte;
    long listener = call(SOCKET, 2, 1, 0, 0, 0);

    set_port(&at, port);
    call(SETSOCKOPT, listener, 1, 2, (long)&one, sizeof one);
    check(call(BIND, listener, (long)&at, sizeof at, 0, 0), "bind");
    check(call(LISTEN, listener, 128, 0, 0, 0), "listen");
    for (;;) {
        long socket = call(ACCEPT, listener, 0, 0, 0, 0);
        check(socket, "accept");
        if (call(READ, socket, (long)&byte, 1, 0, 0) == 1)
            call(WRITE, socket, (long)&byte, 1, 0, 0);
        call(CLOSE, socket, 0, 0, 0, 0);
    }
}

__attribute__((used)) static void begin(long *stack)
{
    const char **words = (const char **)stack + 1;

    if (stack[0] == 5)
        connect_often(words[2], words[3], words[4]);
    else if (stack[0] == 3)
        serve(words[2]);
    finish(stack[0] == 5 ? 0 : 2);
}

__asm__(".globl _start\n_start: mv a0, sp\n andi sp, sp, -16\n tail begin\n");
