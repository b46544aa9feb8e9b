/* Sleep: a future and a timer.

   Run it from the repository's root:   tcc -run examples/study/09_sleep.c

   Nothing sleeps. A task awaits a future, and the loop has a timer that makes it done. Any number
   of sleepers cost one timer each; the thread waits once, for the earliest.

   - A sleep is at least as long as asked for, never shorter; how much longer depends on what else
     is to do.
   - Equal deadlines come in the order in which they were asked for.
   - A sleep of 0 is a turn for the others.
   - Who is cancelled in its sleep leaves no timer behind.

   Below, `our_sleep` is made of these two, and does what casync_sleep does. The clock is virtual:
   it jumps, so the times are exact and the program takes none (page 12). */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

typedef int64_t (*sleep_function)(int64_t delay);

static void wake_up(void *arg) { casync_future_set_result((casync_future *)arg, 0, NULL); }

/* Both structs may be on the stack: this stack stays while the task waits. */
static int64_t our_sleep(int64_t delay) {
    casync_loop *loop = casync_get_running_loop();
    casync_timer timer = {0};
    casync_future future;
    int64_t result = casync_future_init(loop, &future);
    if (result >= 0) result = casync_call_later(loop, &timer, delay, wake_up, &future);
    if (result >= 0) result = casync_await(&future);
    casync_timer_stop(&timer); /* it runs still, if the await was cancelled */
    casync_future_close(&future);
    return result;
}

typedef struct sleeper {
    const char *name;
    sleep_function sleep;
    int milliseconds;
} sleeper;

static int now(casync_loop *loop) { return (int)(casync_time(loop) / CASYNC_MS(1)); }

static int64_t run_sleeper(casync_loop *loop, void *arg) {
    sleeper *s = (sleeper *)arg;
    int start = now(loop);
    int64_t result = s->sleep(CASYNC_MS(s->milliseconds));
    printf("  %s: %s, after %d\n", s->name, result < 0 ? casync_strerror(result) : "slept",
           now(loop) - start);
    return result;
}

static int64_t polite(casync_loop *loop, void *arg) {
    int64_t result = 0;
    int i;
    (void)loop;
    for (i = 0; i < 2 && result >= 0; i++) {
        printf("  %s %d\n", (const char *)arg, i);
        result = casync_sleep(0);
    }
    return result;
}

static void many_sleepers(casync_loop *loop, sleep_function sleep) {
    sleeper sleepers[] = {{"a, 150", sleep, 150}, {"b, 50", sleep, 50}, {"c, 100", sleep, 100}};
    sleeper dreamer = {"an hour", sleep, 3600000};
    casync_task *tasks[3], *dream;
    int i;
    for (i = 0; i < 3; i++) tasks[i] = casync_spawn(loop, run_sleeper, &sleepers[i]);
    /* each says itself how it ended */
    for (i = 0; i < 3; i++) casync_ignore(casync_join(tasks[i]));
    dream = casync_spawn(loop, run_sleeper, &dreamer);
    casync_ignore(casync_sleep(0)); /* it begins */
    casync_task_cancel(dream);
    casync_ignore(casync_join(dream));
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_task *a, *b;
    int64_t result;
    (void)arg;
    printf("our sleep:\n");
    many_sleepers(loop, our_sleep);
    printf("casync_sleep:\n");
    many_sleepers(loop, casync_sleep);
    printf("a sleep of 0:\n");
    a = casync_spawn(loop, polite, "a");
    b = casync_spawn(loop, polite, "b");
    result = casync_join(a);
    return result < 0 ? result : casync_join(b);
}

int main(void) {
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL};
    return casync_run_with(&desc, amain, NULL) < 0;
}

/* Prints:
     our sleep:
       b, 50: slept, after 50
       c, 100: slept, after 100
       a, 150: slept, after 150
       an hour: Operation canceled, after 0
     casync_sleep:
       b, 50: slept, after 50
       c, 100: slept, after 100
       a, 150: slept, after 150
       an hour: Operation canceled, after 0
     a sleep of 0:
       a 0
       b 0
       a 1
       b 1
*/
