/* A Linux program without a C library: one TCP connection to the benchmark's server on the host.
 *
 *     network ADDRESS PORT send|receive|exchange COUNT
 *
 * The server is told what comes, as the command's first letter and COUNT in 8 bytes, little-endian. `send` and
 * `receive` move COUNT bytes; `exchange` sends one byte and waits for one, COUNT times. The server takes the time.
 */

typedef unsigned char u8;
typedef unsigned long u64;

enum { SYS_READ = 63, SYS_WRITE = 64, SYS_EXIT = 93, SYS_SOCKET = 198, SYS_CONNECT = 203, SYS_SETSOCKOPT = 208 };

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
        call(SYS_EXIT, status, 0, 0, 0, 0);
}

static void fail(const char *what)
{
    int length = 0;

    while (what[length])
        length++;
    call(SYS_WRITE, 2, (long)what, length, 0, 0);
    call(SYS_WRITE, 2, (long)" failed\n", 8, 0, 0);
    finish(1);
}

static u64 number(const char **text)
{
    u64 value = 0;

    while (**text >= '0' && **text <= '9')
        value = 10 * value + (u64)(*(*text)++ - '0');
    return value;
}

static u8 buffer[1 << 17];

static void put(int connection, const u8 *data, u64 count)
{
    while (count) {
        long done = call(SYS_WRITE, connection, (long)data, (long)count, 0, 0);
        if (done <= 0)
            fail("write");
        data += done;
        count -= (u64)done;
    }
}

static u64 get(int connection, u64 most)
{
    long done = call(SYS_READ, connection, (long)buffer, (long)most, 0, 0);

    if (done <= 0)
        fail("read");
    return (u64)done;
}

static u64 least(u64 a, u64 b)
{
    return a < b ? a : b;
}

int run(long *stack)
{
    const char **arguments = (const char **)(stack + 1);
    u8 address[16] = {2, 0}, request[9];

    if (stack[0] != 5)
        fail("the command line");
    const char *text = arguments[1], *kind = arguments[3], *count_text = arguments[4], *port_text = arguments[2];
    for (int i = 0; i < 4; i++, text++)
        address[4 + i] = (u8)number(&text);
    u64 port = number(&port_text), count = number(&count_text);
    address[2] = (u8)(port >> 8);
    address[3] = (u8)port;

    int connection = (int)call(SYS_SOCKET, 2, 1, 0, 0, 0), on = 1;
    if (connection < 0)
        fail("socket");
    call(SYS_SETSOCKOPT, connection, 6, 1, (long)&on, sizeof on); /* TCP_NODELAY */
    if (call(SYS_CONNECT, connection, (long)address, sizeof address, 0, 0) < 0)
        fail("connect");
    request[0] = (u8)kind[0];
    for (int i = 0; i < 8; i++)
        request[1 + i] = (u8)(count >> 8 * i);
    put(connection, request, sizeof request);

    if (kind[0] == 's') {
        for (u64 left = count; left;) {
            u64 part = least(left, sizeof buffer);
            put(connection, buffer, part);
            left -= part;
        }
    } else if (kind[0] == 'r') {
        for (u64 left = count; left;)
            left -= get(connection, least(left, sizeof buffer));
    } else {
        for (u64 round = 0; round < count; round++) {
            put(connection, buffer, 1);
            get(connection, 1);
        }
    }
    get(connection, 1); /* the server has it all, and has taken the time */
    finish(0);
    return 0;
}

__asm__(".globl _start\n_start: mv a0, sp\n    andi sp, sp, -16\n    call run\n");
