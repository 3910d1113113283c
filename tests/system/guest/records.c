/* Machine mode, hart 0, without an operating system: writes numbered records to the first virtio block device, flushes,
   and only then says each number on the serial line. Record n is n in every doubleword of sector n modulo SECTORS. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define UART ((volatile u8 *)0x10000000)
#define REGISTER(offset) (*(volatile u32 *)(0x10001000UL + (offset)))
#define CONFIGURATION 0x100
#define SIZE 8
#define SECTORS 1024

enum { OUT = 1, FLUSH = 4 };
enum { NEXT = 1, WRITE = 2 };

struct descriptor {
    u64 address;
    u32 length;
    u16 flags, next;
};

static struct descriptor descriptors[SIZE] __attribute__((aligned(4096)));
static volatile struct {
    u16 flags, index, ring[SIZE];
} available __attribute__((aligned(4096)));
static volatile struct {
    u16 flags, index;
    struct {
        u32 id, length;
    } ring[SIZE];
} used __attribute__((aligned(4096)));
static struct {
    u32 type, reserved;
    u64 sector;
} header;
static u64 data[64];
static volatile u8 status;

static void fence(void) { __asm__ volatile("fence" ::: "memory"); }

static void place(u32 low, volatile void *address)
{
    REGISTER(low) = (u32)(u64)address;
    REGISTER(low + 4) = (u32)((u64)address >> 32);
}

static void start(void)
{
    REGISTER(0x70) = 0;
    REGISTER(0x70) = 3;
    REGISTER(0x24) = 0;
    REGISTER(0x20) = 1 << 9; /* a flush is asked for, not implied */
    REGISTER(0x24) = 1;
    REGISTER(0x20) = 1;
    REGISTER(0x70) = 11;
    REGISTER(0x30) = 0;
    REGISTER(0x38) = SIZE;
    place(0x80, descriptors);
    place(0x90, &available);
    place(0xa0, &used);
    REGISTER(0x44) = 1;
    REGISTER(0x70) = 15;
}

static int request(u32 type, u64 sector)
{
    u16 count = 0;

    header.type = type;
    header.sector = sector;
    status = 255;
    descriptors[count] = (struct descriptor){(u64)&header, 16, NEXT, 1};
    count++;
    if (type == OUT) {
        descriptors[count] = (struct descriptor){(u64)data, 512, NEXT, (u16)(count + 1)};
        count++;
    }
    descriptors[count] = (struct descriptor){(u64)&status, 1, WRITE, 0};
    available.ring[available.index % SIZE] = 0;
    fence();
    available.index++;
    fence();
    REGISTER(0x50) = 0;
    while (used.index != available.index)
        fence();
    return status;
}

static void put(u8 byte)
{
    while (!(UART[5] & 0x20))
        ;
    UART[0] = byte;
}

static void put_number(u64 n)
{
    u8 digits[20];
    int count = 0;

    do {
        digits[count++] = (u8)('0' + n % 10);
        n /= 10;
    } while (n);
    while (count)
        put(digits[--count]);
    put('\n');
}

void main(void)
{
    start();
    for (u64 n = 1;; n++) {
        for (int i = 0; i < 64; i++)
            data[i] = n;
        if (request(OUT, n % SECTORS) || request(FLUSH, 0)) {
            put('E');
            put('\n');
        } else {
            put_number(n);
        }
    }
}

/* The compiler may call this for what it sets itself. */
void *memset(void *to, int value, u64 n)
{
    u8 *t = to;

    while (n--)
        *t++ = (u8)value;
    return to;
}
