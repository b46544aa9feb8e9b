/* Sleep: a future and a timer.

   Run it from the repository's root:   tcc -run examples/study/09_sleep.c

   Nothing sleeps. Somebody wants to know when a future is done, and the loop has a timer that makes it done.
   Any number of sleepers cost one timer each; the thread waits once, for the earliest.

   - A sleep is at least as long as asked for, never shorter; how much longer depends on what else is to do.
   - Equal deadlines come in the order in which they were asked for.
   - Who gives up its sleep stops the timer: nothing of it is left behind.

   The clock is virtual: it jumps, so the times are exact and the program takes none (page 12). */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

static casync_loop loop;

typedef struct sleeper {
    const char *name;
    casync_future future;
    casync_timer timer;
    casync_job job;
} sleeper;

static int now(void) { return (int)(casync_time(&loop) / CASYNC_MS(1)); }

static void wake_up(void *arg) { casync_future_set_result(&((sleeper *)arg)->future, 0, NULL); }

/* What one awaits in order to sleep. */
static casync_future *sleep_for(sleeper *s, int milliseconds) {
    casync_future_init(&loop, &s->future);
    casync_call_later(&loop, &s->timer, CASYNC_MS(milliseconds), wake_up, s);
    return &s->future;
}

static void give_up(sleeper *s) {
    casync_timer_stop(&s->timer);
    casync_future_cancel(&s->future);
}

static void slept(void *arg) {
    sleeper *s = (sleeper *)arg;
    int64_t result = casync_future_result(&s->future);
    printf("%s: %s, at %d\n", s->name, result < 0 ? casync_strerror(result) : "slept", now());
    casync_future_close(&s->future);
}

static void sleep_and_tell(sleeper *s, const char *name, int milliseconds) {
    s->name = name;
    casync_future_add_done_callback(sleep_for(s, milliseconds), &s->job, slept, s);
}

int main(void) {
    static sleeper a, b, c, d, dreamer;
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL};
    if (casync_loop_init(&loop, &desc) < 0) return 1;
    sleep_and_tell(&a, "a, 150", 150);
    sleep_and_tell(&b, "b, 50", 50);
    sleep_and_tell(&c, "c, 100", 100);
    sleep_and_tell(&d, "d, 100", 100);
    casync_run_until_idle(&loop);

    sleep_and_tell(&dreamer, "an hour", 3600000);
    give_up(&dreamer);
    casync_run_until_idle(&loop);
    return casync_loop_close(&loop) < 0;
}

/* Prints:
     b, 50: slept, at 50
     c, 100: slept, at 100
     d, 100: slept, at 100
     a, 150: slept, at 150
     an hour: Operation canceled, at 150
*/
