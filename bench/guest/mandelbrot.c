/* Floating point in double, short dependent loops: how many points of a grid stay bounded. */
#include "report.h"

#ifndef ITERATIONS
#define ITERATIONS 512
#endif

int main(void)
{
    u64 inside = 0, start = ticks();

    for (u64 y = 0; y < ITERATIONS; y++)
        for (u64 x = 0; x < ITERATIONS; x++) {
            double cr = 3.0 * (double)x / ITERATIONS - 2.0, ci = 2.0 * (double)y / ITERATIONS - 1.0;
            double zr = 0, zi = 0;
            int left = 100;

            while (left && zr * zr + zi * zi < 4.0) {
                double next = zr * zr - zi * zi + cr;
                zi = 2.0 * zr * zi + ci;
                zr = next;
                left--;
            }
            inside += left == 0;
        }
    report("mandelbrot", ITERATIONS, ticks() - start, inside);
    return 0;
}
