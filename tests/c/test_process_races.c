/* >> process state & fork: races: what belongs to the process and not to a loop, touched by several
   threads at the same time. Most of what is wrong here only ThreadSanitizer sees. */
#define CASYNC_SYSCALL_TABLE
#include "loop_fixture.h"

#if defined(__SANITIZE_THREAD__)
/* It takes signalfd(2) for a call that makes the descriptor, though it changes the mask of one that
   others read meanwhile, which the kernel orders. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:casync__direct_signalfd"; }
#endif

enum { THREADS = 3 };
static pthread_barrier_t together;

static int64_t rounds(void) { return test_quick ? 20 : 200; }

static void run_together(void *(*run)(void *)) {
    pthread_t threads[THREADS];
    intptr_t i;
    EQ(pthread_barrier_init(&together, NULL, THREADS), 0);
    for (i = 0; i < THREADS; i++) threads[i] = start_thread(run, (void *)i);
    for (i = 0; i < THREADS; i++) join_thread(threads[i]);
    EQ(pthread_barrier_destroy(&together), 0);
}

/* >> the process's first loops ---------------------------------------------------------------- */

static void *make_a_loop(void *arg) {
    casync_loop own;
    (void)arg;
    pthread_barrier_wait(&together);
    PTR_EQ(casync_get_running_loop(), NULL);
    PTR_EQ(casync_current_task(), NULL);
    EQ(casync_loop_init(&own, NULL), 0);
    EQ(casync_run_until_idle(&own), 0);
    PTR_EQ(casync_get_running_loop(), NULL);
    EQ(casync_loop_close(&own), 0);
    return NULL;
}

TEST(threads_make_the_first_loops_at_the_same_time) { run_together(make_a_loop); }

/* In a forked child that has several threads when it first needs the library. */
static void make_loops_in_child(void) {
    run_together(make_a_loop);
    exit(0);
}

TEST(threads_of_a_forked_child_make_its_first_loops_at_the_same_time) {
    casync_signal watcher = ZERO;
    int64_t i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    expect_signal_descriptors();
    EQ(casync_signal_start(&loop, &watcher, SIGUSR1, 0, never, NULL), 0);
    for (i = 0; i < rounds() / 10; i++) {
        pid_t pid = fork_child();
        if (pid == 0) make_loops_in_child();
        EQ(child_status(pid), 0);
    }
    EQ(casync_signal_stop(&watcher), 1);
    close_loop();
}

/* >> what the kernel does not know ------------------------------------------------------------ */

static int64_t unknown_wait(int epfd, casync__epoll_event *events, int count, int64_t timeout) {
    (void)epfd, (void)events, (void)count, (void)timeout;
    return -ENOSYS;
}

static int64_t unknown_write(int fd, const struct iovec *spans, int count, int flags) {
    (void)fd, (void)spans, (void)count, (void)flags;
    return -EOPNOTSUPP;
}

static void *wait_and_write(void *arg) {
    casync_loop own;
    casync_stream reader = ZERO, writer = ZERO;
    (void)arg;
    EQ(casync_loop_init(&own, NULL), 0);
    EQ(casync_pipe(&own, &reader, &writer, NULL, NULL), 0);
    pthread_barrier_wait(&together);
    EQ(casync_write(&writer, "x", 1), 1);
    EQ(casync_call_later(&own, NULL, CASYNC_US(10), do_nothing, NULL), 0);
    EQ(casync_run_until_idle(&own), 0);
    casync_close(&reader);
    casync_close(&writer);
    EQ(casync_loop_close(&own), 0);
    return NULL;
}

TEST(threads_learn_at_the_same_time_what_the_kernel_does_not_know) {
    casync_syscalls.epoll_pwait2 = unknown_wait;
    casync_syscalls.pwritev2 = unknown_write;
    run_together(wait_and_write);
}

/* >> signals ---------------------------------------------------------------------------------- */

static uint32_t handled_before, ended;

static void count_signal(int signum) {
    (void)signum;
    casync__atomic_add(&handled_before, 1);
}

/* Starts and stops watching, while signals come. */
static void *watch_again_and_again(void *guest) {
    casync_loop_desc desc = ZERO;
    casync_loop own;
    casync_signal watcher = ZERO;
    int64_t i;
    desc.guest = guest != NULL;
    EQ(casync_loop_init(&own, &desc), 0);
    pthread_barrier_wait(&together);
    for (i = 0; i < rounds(); i++) {
        EQ(casync_signal_start(&own, &watcher, SIGUSR1, 0, do_nothing, NULL), 0);
        EQ(casync_run_nowait(&own), 0);
        EQ(casync_signal_stop(&watcher), 1);
    }
    EQ(casync_loop_close(&own), 0);
    return NULL;
}

static void *send_signals(void *arg) {
    (void)arg;
    pthread_barrier_wait(&together);
    while (!casync__atomic_load(&ended)) {
        kill(getpid(), SIGUSR1);
        sched_yield();
    }
    return NULL;
}

static void watch_while_signals_come(bool guests) {
    pthread_t threads[2], sender;
    struct sigaction action;
    int i;
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    EQ(sigaction(SIGUSR1, &action, NULL), 0);
    EQ(pthread_barrier_init(&together, NULL, 3), 0);
    for (i = 0; i < 2; i++)
        threads[i] = start_thread(watch_again_and_again, guests ? WORD("guest") : NULL);
    sender = start_thread(send_signals, NULL);
    for (i = 0; i < 2; i++) join_thread(threads[i]);
    casync__atomic_store(&ended, 1);
    join_thread(sender);
    casync__atomic_store(&handled_before, 0);
    EQ(raise(SIGUSR1), 0); /* what was there before is there again */
    EQ(casync__atomic_load(&handled_before), 1);
}

TEST(signals_come_while_guests_begin_and_end_to_watch) { watch_while_signals_come(true); }
TEST(signals_come_while_loops_begin_and_end_to_watch) { watch_while_signals_come(false); }

/* >> loops that run, and are posted to -------------------------------------------------------- */

static casync_job jobs[2];
static uint32_t finished;

static void *post_to_loop(void *job) {
    int64_t i;
    pthread_barrier_wait(&together);
    for (i = 0; i < rounds(); i++) {
        EQ(casync_call_soon_threadsafe(&loop, NULL, do_nothing, NULL), 0);
        (void)casync_call_soon_threadsafe(&loop, (casync_job *)job, do_nothing, NULL);
        casync_wake(&loop);
    }
    casync__atomic_add(&finished, 1);
    return NULL;
}

TEST(a_loop_begins_and_ends_to_run_while_others_post) {
    pthread_t threads[2];
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(pthread_barrier_init(&together, NULL, 3), 0);
    for (i = 0; i < 2; i++) threads[i] = start_thread(post_to_loop, &jobs[i]);
    pthread_barrier_wait(&together);
    while (casync__atomic_load(&finished) < 2) EQ(casync_run_nowait(&loop), 0);
    for (i = 0; i < 2; i++) join_thread(threads[i]);
    EQ(casync_run_until_idle(&loop), 0);
    close_loop();
}
