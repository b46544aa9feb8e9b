/* What blocks and what does not.

   Run it from the repository's root:   tcc -run examples/study/01_what_blocks.c

   An event loop is one thread that calls your functions one after the other. Nothing else runs
   while one of them runs. So a function that waits inside the kernel ("blocks") stops everything,
   however much there is:

       blocks                                 what lets the others run
       sleep(1)                               a timer (casync_call_later); in a task, casync_sleep
       read(2) of a pipe or a socket          O_NONBLOCK, and casync_add_reader or a casync_stream
       pthread_mutex_lock, sem_wait           among tasks casync_lock and casync_semaphore
       getaddrinfo(3): asks a name server     a thread: casync_run_in_executor
       read(2) of a file: never "not ready"   the same; files ignore O_NONBLOCK (open(2))
       computing                              the same; in C it has a CPU of its own: page 2 */
#define CASYNC_IMPLEMENTATION
#include "../../casync.h"
#include <stdio.h>

static casync_loop loop;
static int beats, beats_at_stop;

/* Something else, which wants to run every millisecond. */
static void beat(void *arg) {
    (void)arg;
    beats++;
}

static void blocking_sleep(int milliseconds) {
    struct timespec t = {0, milliseconds * 1000000L};
    nanosleep(&t, NULL);
}

/* Each of the three ways waits 100 ms, and then stops the loop. */

static void stop(void *arg) {
    (void)arg;
    beats_at_stop = beats;
    casync_stop(&loop);
}

/* Runs in a thread of the loop's pool. */
static int64_t sleep_in_a_thread(void *arg, void **ptr) {
    (void)arg;
    (void)ptr;
    blocking_sleep(100);
    return 0;
}

static void by_blocking(void *arg) {
    blocking_sleep(100);
    stop(arg);
}

static void by_timer(void *arg) {
    static casync_timer timer;
    casync_call_later(&loop, &timer, CASYNC_MS(100), stop, arg);
}

static void by_thread(void *arg) {
    static casync_op op;
    static casync_job when_done;
    casync_future *slept =
        casync_run_in_executor_op(&loop, NULL, &op, sleep_in_a_thread, arg, NULL);
    casync_future_add_done_callback(slept, &when_done, stop, arg);
}

static void watch(const char *name, casync_callback way) {
    casync_timer heart = {0};
    int64_t start = casync_time(&loop);
    beats = 0;
    casync_call_soon(&loop, NULL, way, NULL);
    casync_timer_start(&loop, &heart, CASYNC_MS(1), CASYNC_MS(1), beat, NULL);
    casync_run_forever(&loop);
    casync_timer_stop(&heart);
    printf("%s: %s, %d ms\n", name, beats_at_stop ? "others ran" : "nobody else ran",
           (int)((casync_time(&loop) - start) / CASYNC_MS(1)));
}

int main(void) {
    int fds[2];
    char byte;
    if (casync_loop_init(&loop, NULL) < 0) return 1;
    watch("a sleep", by_blocking);
    watch("a timer", by_timer);
    watch("a sleep in a thread", by_thread);

    /* What "would block" looks like: the call comes back at once and says so. */
    if (pipe(fds) < 0 || fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0) return 1;
    if (read(fds[0], &byte, 1) < 0) printf("read of an empty pipe: %s\n", strerror(errno));
    if (write(fds[1], "x", 1) == 1 && read(fds[0], &byte, 1) == 1)
        printf("read of a full one: %c\n", byte);
    close(fds[0]);
    close(fds[1]);
    return casync_loop_close(&loop) < 0;
}

/* Prints:
     a sleep: nobody else ran, 100 ms
     a timer: others ran, 100 ms
     a sleep in a thread: others ran, 100 ms
     read of an empty pipe: Resource temporarily unavailable
     read of a full one: x
*/
