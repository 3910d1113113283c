/* Floating point in double: five bodies that attract each other (starting values: the Sun and the outer planets). */
#include "report.h"

#ifndef ITERATIONS
#define ITERATIONS 500000
#endif
#define BODIES 5

struct body {
    double x, y, z, speed_x, speed_y, speed_z, mass;
};

#define SOLAR (4 * 3.141592653589793 * 3.141592653589793)
#define YEAR 365.24

static struct body bodies[BODIES] = {
    {0, 0, 0, 0, 0, 0, SOLAR},
    {4.841431442464721, -1.1603200440274284, -0.10362204447112311,
     0.001660076642744037 * YEAR, 0.007699011184197404 * YEAR, -0.0000690460016972063 * YEAR,
     0.0009547919384243266 * SOLAR},
    {8.34336671824458, 4.124798564124305, -0.4035234171143214,
     -0.002767425107268624 * YEAR, 0.004998528012349172 * YEAR, 0.00002304172975737639 * YEAR,
     0.0002858859806661308 * SOLAR},
    {12.894369562139131, -15.111151401698631, -0.22330757889265573,
     0.002964601375647616 * YEAR, 0.0023784717395948095 * YEAR, -0.000029658956854023756 * YEAR,
     0.00004366244043351563 * SOLAR},
    {15.379697114850917, -25.919314609987964, 0.17925877295037118,
     0.0026806777249038932 * YEAR, 0.001628241700382423 * YEAR, -0.00009515922545197159 * YEAR,
     0.000051513890204661145 * SOLAR},
};

static void advance(double step)
{
    for (int i = 0; i < BODIES; i++) {
        struct body *a = &bodies[i];

        for (int j = i + 1; j < BODIES; j++) {
            struct body *b = &bodies[j];
            double x = a->x - b->x, y = a->y - b->y, z = a->z - b->z;
            double square = x * x + y * y + z * z;
            double pull = step / (square * __builtin_sqrt(square));

            a->speed_x -= x * b->mass * pull;
            a->speed_y -= y * b->mass * pull;
            a->speed_z -= z * b->mass * pull;
            b->speed_x += x * a->mass * pull;
            b->speed_y += y * a->mass * pull;
            b->speed_z += z * a->mass * pull;
        }
    }
    for (int i = 0; i < BODIES; i++) {
        bodies[i].x += step * bodies[i].speed_x;
        bodies[i].y += step * bodies[i].speed_y;
        bodies[i].z += step * bodies[i].speed_z;
    }
}

int main(void)
{
    u64 start = ticks(), sum = 0;

    for (u64 i = 0; i < ITERATIONS; i++)
        advance(0.01);
    start = ticks() - start;
    for (int i = 0; i < BODIES; i++) {
        u64 bits[3];

        __builtin_memcpy(bits, &bodies[i], sizeof bits);
        for (int k = 0; k < 3; k++)
            sum = sum * 31 + bits[k];
    }
    report("nbody", ITERATIONS, start, sum);
    return 0;
}
