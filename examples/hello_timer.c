/* Timers: a repeating one, and one that ends it.

   Run it from the repository's root:   tcc -run examples/hello_timer.c
   It prints a tick every 100 ms and ends after half a second. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <stdio.h>

static casync_loop loop;
static casync_timer ticker, alarm_clock;

static void tick(void *arg) {
    int *count = (int *)arg;
    printf("tick %d\n", ++*count);
}

static void goodbye(void *arg) {
    printf("goodbye, %s\n", (const char *)arg);
    casync_timer_stop(&ticker); /* nothing is left to wait for now, so the loop ends */
}

static int64_t run(void) {
    int count = 0;
    int64_t result;
    if ((result = casync_loop_init(&loop, NULL)) < 0) return result;
    result = casync_timer_start(&loop, &ticker, CASYNC_MS(100), CASYNC_MS(100), tick, &count);
    if (result < 0) return result;
    result = casync_call_later(&loop, &alarm_clock, CASYNC_MS(550), goodbye, "world");
    if (result < 0) return result;
    return casync_run_until_idle(&loop);
}

int main(void) {
    int64_t result = run();
    if (result >= 0) result = casync_loop_close(&loop);
    if (result < 0) fprintf(stderr, "hello_timer: %s\n", casync_strerror(result));
    return result < 0;
}
