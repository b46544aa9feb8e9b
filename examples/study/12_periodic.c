/* A periodic background task.

   Run it from the repository's root:   tcc -run examples/study/12_periodic.c

   Two things go wrong with periodic work:

   - Drift. "Work, then wait 20 ms" takes 20 ms and the work's time a round. Wait until start + n *
     period instead: then the time that the work takes is not added up. A repeating casync_timer
     does that.
   - A period that is missed altogether: skip it. Catching up makes a late program later still.

   And one with background work as such: it must not keep the program alive. casync_run_until_idle
   runs until nothing is left to wait for; a timer that is not referenced does not count
   (casync_timer_ref). casync_run ends with its main task, and cancels what that leaves behind.

   The clock of this loop is virtual: it jumps to the next deadline instead of waiting for it. So
   the program takes no time, and its times are exact. Tests of whatever has to do with time should
   run like this. */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

static casync_loop loop;
static casync_timer timer, end;
static int rounds;

static int now(void) { return (int)(casync_time(&loop) / CASYNC_MS(1)); }

static void work(const char *name, int milliseconds) {
    printf("%s: at %d\n", name, now());
    casync_clock_advance(&loop, CASYNC_MS(milliseconds)); /* the work takes this long */
    rounds++;
}

static void naive(void *arg) {
    work("sleep in between", 10);
    if (rounds < 3) casync_call_later(&loop, &timer, CASYNC_MS(20), naive, arg);
}

static void periodic(void *arg) {
    (void)arg;
    work("repeating timer", rounds == 1 ? 45 : 10); /* the second time it is slow */
    if (rounds == 4) casync_timer_stop(&timer);
}

static void background(void *arg) {
    (void)arg;
    work("background", 0);
}

static void the_last_work(void *arg) {
    (void)arg;
    printf("the program's own work is done: at %d\n", now());
}

/* The same as a task. It is told of its end, and nobody but itself knows of its errors: it reports
   them. */
static int64_t periodic_task(casync_loop *running, void *arg) {
    int64_t start = casync_time(running), result = 0;
    (void)arg;
    while (result >= 0) {
        /* What is left of this period; so those that were missed are skipped. */
        result = casync_sleep(CASYNC_MS(20) - (casync_time(running) - start) % CASYNC_MS(20));
        if (result >= 0) printf("task: at %d\n", (int)(casync_time(running) / CASYNC_MS(1)));
    }
    printf("task: %s\n", casync_strerror(result));
    return result;
}

static int64_t amain(casync_loop *running, void *arg) {
    int64_t result = casync_spawn_detached(running, periodic_task, arg); /* nobody will await it */
    return result < 0 ? result : casync_sleep(CASYNC_MS(50));
}

static void start_clock_anew(void) {
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL};
    casync_loop_close(&loop);
    if (casync_loop_init(&loop, &desc) < 0) abort();
    rounds = 0;
}

int main(void) {
    casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL};
    start_clock_anew();
    casync_call_later(&loop, &timer, CASYNC_MS(20), naive, NULL);
    casync_run_until_idle(&loop);

    start_clock_anew();
    casync_timer_start(&loop, &timer, CASYNC_MS(20), CASYNC_MS(20), periodic, NULL);
    casync_run_until_idle(&loop);

    start_clock_anew();
    casync_timer_start(&loop, &timer, CASYNC_MS(20), CASYNC_MS(20), background, NULL);
    casync_timer_ref(&timer, false);
    casync_call_later(&loop, &end, CASYNC_MS(50), the_last_work, NULL);
    casync_run_until_idle(&loop);
    casync_loop_close(&loop);
    return casync_run_with(&desc, amain, NULL) < 0;
}

/* At 40 the repeating timer's work takes 45. So the call for 60 comes at 85, that for 80 is
   skipped, and at 100 all is as it would have been.

   Prints:
     sleep in between: at 20
     sleep in between: at 50
     sleep in between: at 80
     repeating timer: at 20
     repeating timer: at 40
     repeating timer: at 85
     repeating timer: at 100
     background: at 20
     background: at 40
     the program's own work is done: at 50
     task: at 20
     task: at 40
     task: Operation canceled
*/
