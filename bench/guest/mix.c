/* What embedded benchmarks mix: a linked list that is searched and reversed, small matrices, a state machine that reads
   numbers from text, and a checksum over everything. */
#include "report.h"

#ifndef ITERATIONS
#define ITERATIONS 24000
#endif
#define NODES 128
#define SIDE 16

struct node {
    struct node *next;
    short key, value;
};

static struct node nodes[NODES];
static short left[SIDE][SIDE], right[SIDE][SIDE];
static int product[SIDE][SIDE];
static const char text[] = "12,-7,0x1f,3.25,+44,1e9,junk,900,-0.5e-3,0xZZ,77,,8,1.2.3,65535,+,-12e4";

static u32 checksum(u32 sum, u32 word)
{
    for (int i = 0; i < 16; i++) {
        u32 carry = (sum ^ word) & 1;
        sum >>= 1;
        word >>= 1;
        if (carry)
            sum ^= 0xa001;
    }
    return sum & 0xffff;
}

static struct node *build(u64 seed)
{
    struct node *head = 0;

    for (int i = 0; i < NODES; i++) {
        nodes[i].key = (short)((seed * 31 + (u64)i * 17) & 0x7f);
        nodes[i].value = (short)i;
        nodes[i].next = head;
        head = &nodes[i];
    }
    return head;
}

static u32 walk(struct node *head, short wanted)
{
    u32 found = 0;

    for (; head; head = head->next)
        if (head->key == wanted)
            found = found * 3 + (u32)head->value;
    return found;
}

static struct node *reverse(struct node *head)
{
    struct node *done = 0;

    while (head) {
        struct node *next = head->next;
        head->next = done;
        done = head;
        head = next;
    }
    return done;
}

static u32 multiply(u64 seed)
{
    u32 sum = 0;

    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            left[i][j] = (short)(seed + (u64)(i * j));
            right[i][j] = (short)(seed - (u64)(i + j));
        }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            int total = 0;
            for (int k = 0; k < SIDE; k++)
                total += left[i][k] * right[k][j];
            product[i][j] = total;
            sum += (u32)(total >> 2 & 0xff);
        }
    return sum;
}

enum state { START, SIGN, INTEGER, FRACTION, EXPONENT, EXPONENT_SIGN, HEX, INVALID, STATES };

static u32 scan(u64 seed)
{
    u32 seen[STATES] = {0};
    enum state state = START;

    for (const char *p = text; *p; p++) {
        char c = (char)(*p ^ (char)((seed & 15) == 15 ? 1 : 0));
        int digit = c >= '0' && c <= '9';

        if (c == ',') {
            seen[state]++;
            state = START;
            continue;
        }
        switch (state) {
        case START:
            state = digit ? INTEGER : (c == '+' || c == '-') ? SIGN : c == '.' ? FRACTION : INVALID;
            break;
        case SIGN:
            state = digit ? INTEGER : c == '.' ? FRACTION : INVALID;
            break;
        case INTEGER:
            state = digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : c == 'x' ? HEX : INVALID;
            break;
        case FRACTION:
            state = digit ? FRACTION : c == 'e' ? EXPONENT : INVALID;
            break;
        case EXPONENT:
            state = digit ? EXPONENT_SIGN : (c == '+' || c == '-') ? EXPONENT_SIGN : INVALID;
            break;
        case EXPONENT_SIGN:
            state = digit ? EXPONENT_SIGN : INVALID;
            break;
        case HEX:
            state = digit || (c >= 'a' && c <= 'f') ? HEX : INVALID;
            break;
        default:
            break;
        }
    }
    for (int i = 1; i < STATES; i++)
        seen[0] = seen[0] * 5 + seen[i];
    return seen[0];
}

int main(void)
{
    u32 sum = 0;
    u64 start = ticks();

    for (u64 i = 0; i < ITERATIONS; i++) {
        struct node *head = build(i);

        for (short wanted = 0; wanted < 8; wanted++) {
            sum = checksum(sum, walk(head, wanted));
            head = reverse(head);
        }
        sum = checksum(sum, multiply(i));
        for (int j = 0; j < 4; j++)
            sum = checksum(sum, scan(i + (u64)j));
    }
    report("mix", ITERATIONS, ticks() - start, sum);
    return 0;
}
