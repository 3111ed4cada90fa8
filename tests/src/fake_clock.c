/* A clock that jumps: loaded before libc, it adds to the clocks what the file FAKE_CLOCK says.
   The file holds two numbers: seconds for the wall clock, and for the clock that counts suspension. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    const char *path = getenv("FAKE_CLOCK");
    long wall = 0, boot = 0;
    if (path && (clock == CLOCK_REALTIME || clock == CLOCK_BOOTTIME)) {
        FILE *file = fopen(path, "r");
        if (file) {
            if (fscanf(file, "%ld %ld", &wall, &boot) != 2)
                wall = boot = 0;
            fclose(file);
        }
    }
    time->tv_sec += clock == CLOCK_REALTIME ? wall : clock == CLOCK_BOOTTIME ? boot : 0;
    return result;
}
