/* >> posts: any thread, and signal handlers, may call into a loop and wake it. */
#include "loop_fixture.h"

static casync_timer keep_alive;

/* As long as this timer runs, the loop waits for posts. */
static void open_waiting_loop(void) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_later(&loop, &keep_alive, CASYNC_SECONDS(1000), never, NULL), 0);
}

static casync_job self;

/* >> posts ------------------------------------------------------------------------------------ */

static void *post_word(void *arg) {
    EQ(casync_call_soon_threadsafe(&loop, NULL, say_and_stop, arg), 0);
    return NULL;
}

TEST(a_post_from_a_thread_ends_the_wait) {
    pthread_t thread;
    open_waiting_loop();
    thread = start_thread(post_word, WORD("posted"));
    EQ(casync_run_forever(&loop), 0);
    join_thread(thread);
    SAID("posted");
    close_loop();
}

TEST(a_post_to_a_loop_that_has_nothing_else_is_not_lost) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    post_word(WORD("before-the-run"));
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_run_until_idle(&loop), 0);
    SAID("before-the-run");
    close_loop();
}

TEST(posts_of_the_loops_own_thread_join_the_queue) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, WORD("1")), 0);
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, WORD("2")), 0);
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, WORD("3")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("1 2 3");
    close_loop();
}

TEST(a_job_of_ones_own_is_a_coalescing_wakeup) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, &job, say, WORD("once")), 0);
    EQ(casync_call_soon_threadsafe(&loop, &job, say, WORD("never")), -EALREADY);
    EQ(casync_call_soon(&loop, &job, say, WORD("never")), -EALREADY);
    EQ(casync_run_nowait(&loop), 0);
    SAID("once");
    EQ(casync_call_soon_threadsafe(&loop, &job, say, WORD("again")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("again");
    close_loop();
}

static int runs;
static void post_itself(void *arg) {
    say(arg);
    if (++runs < 3) EQ(casync_call_soon_threadsafe(&loop, &self, post_itself, arg), 0);
}

TEST(a_job_may_post_itself_again_from_its_callback) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, &self, post_itself, WORD("me")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("me me me");
    close_loop();
}

TEST(a_posted_job_can_be_cancelled) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, &job, never, NULL), 0);
    EQ(casync_job_cancel(&job), 1);
    EQ(casync_job_cancel(&job), 0);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_call_soon_threadsafe(&loop, &job, say, WORD("posted-again")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("posted-again");
    close_loop();
}

TEST(a_posted_job_is_pending_until_its_call_begins) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EXPECT(!casync_job_pending(&job));
    EQ(casync_call_soon_threadsafe(&loop, &job, say, WORD("called")), 0);
    EXPECT(casync_job_pending(&job));
    EQ(casync_run_until_idle(&loop), 0);
    SAID("called");
    EXPECT(!casync_job_pending(&job));
    EQ(casync_call_soon_threadsafe(&loop, &job, never, NULL), 0);
    EQ(casync_job_cancel(&job), 1);
    EXPECT(!casync_job_pending(&job));
    close_loop();
}

TEST(a_closed_loop_takes_no_posts) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    close_loop();
    EQ(casync_call_soon_threadsafe(&loop, &job, never, NULL), -EINVAL);
    EQ(casync_call_soon_threadsafe(&loop, NULL, never, NULL), -EINVAL);
    EXPECT(!casync_job_pending(&job));
}

TEST(a_post_without_a_callback_is_an_error) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, &job, NULL, NULL), -EINVAL);
    EQ(casync_call_soon_threadsafe(&loop, NULL, NULL, NULL), -EINVAL);
    EXPECT(!casync_loop_alive(&loop));
    close_loop();
}

TEST(without_memory_a_post_without_a_job_fails) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    fail_allocation(1, 0);
    EQ(casync_call_soon_threadsafe(&loop, NULL, never, NULL), -ENOMEM);
    EQ(casync_call_soon_threadsafe(&loop, &job, say, WORD("own")), 0);
    fail_no_allocation();
    EQ(casync_run_until_idle(&loop), 0);
    SAID("own");
    close_loop();
}

static void *wake(void *arg) {
    (void)arg;
    casync_wake(&loop);
    return NULL;
}

/* The loop is about to sleep: from here on a wakeup must not be slept through. */
static void wake_from_thread(void *arg, int64_t timeout) {
    (void)arg;
    if (timeout > 0) join_thread(start_thread(wake, NULL));
}

TEST(wake_ends_the_wait_and_calls_nothing) {
    casync_loop_desc desc = ZERO;
    desc.before_wait = wake_from_thread;
    open_loop_with(desc);
    EQ(casync_call_later(&loop, &keep_alive, CASYNC_SECONDS(1000), never, NULL), 0);
    EQ(casync_run_once(&loop), 0);
    EQ(casync_run_once(&loop), 0);
    close_loop();
}

TEST(wake_of_a_loop_that_does_not_wait_spares_one_wait) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    casync_wake(&loop);
    EQ(casync_call_later(&loop, &timer, CASYNC_MS(20), say, WORD("later")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("later");
    EXPECT(loop.polls <= 4); /* a loop that stayed awake would poll all the time */
    close_loop();
}

static void on_alarm(int signum) {
    (void)signum;
    casync_call_soon_threadsafe(&loop, &self, say_and_stop, WORD("from-handler"));
}

TEST(a_signal_handler_may_post) {
    struct itimerval interval = {{0, 0}, {0, 1000}};
    open_waiting_loop();
    signal(SIGALRM, on_alarm);
    EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
    EQ(casync_run_forever(&loop), 0);
    SAID("from-handler");
    close_loop();
}

/* >> many threads ----------------------------------------------------------------------------- */

enum { THREADS = 4 };

typedef struct post {
    casync_job job;
    int thread, number;
} post;

static int64_t received, expected_next[THREADS];
static int posts_a_thread;

static void receive(void *arg) {
    post *p = (post *)arg;
    EQ(p->number, expected_next[p->thread]++);
    received++;
    free(p);
    if (received == (int64_t)THREADS * posts_a_thread) casync_stop(&loop);
}

static void *post_many(void *arg) {
    int i;
    for (i = 0; i < posts_a_thread; i++) {
        post *p = (post *)calloc(1, sizeof *p);
        p->thread = (int)(intptr_t)arg;
        p->number = i;
        EQ(casync_call_soon_threadsafe(&loop, i % 3 == 0 ? NULL : &p->job, receive, p), 0);
    }
    return NULL;
}

static void *plain_malloc(void *user, void *ptr, size_t size) {
    (void)user;
    if (size > 0) return realloc(ptr, size);
    free(ptr);
    return NULL;
}

/* The counting allocator of open_loop is for one thread. */
static void open_loop_for_threads(void) {
    casync_loop_desc desc = ZERO;
    desc.allocator.function = plain_malloc;
    EQ(casync_loop_init(&loop, &desc), 0);
    EQ(casync_call_later(&loop, &keep_alive, CASYNC_SECONDS(1000), never, NULL), 0);
}

TEST(posts_of_each_thread_keep_their_order) {
    pthread_t threads[THREADS];
    intptr_t i;
    posts_a_thread = test_quick ? 500 : 50000;
    open_loop_for_threads();
    for (i = 0; i < THREADS; i++) threads[i] = start_thread(post_many, (void *)i);
    EQ(casync_run_forever(&loop), 0);
    for (i = 0; i < THREADS; i++) join_thread(threads[i]);
    EQ(received, (int64_t)THREADS * posts_a_thread);
    EQ(casync_loop_close(&loop), 0);
}

static void receive_word(void *arg) {
    (void)arg;
    if (++received == (int64_t)THREADS * posts_a_thread) casync_stop(&loop);
}

static void *post_many_pooled(void *arg) {
    int i;
    (void)arg;
    for (i = 0; i < posts_a_thread; i++)
        EQ(casync_call_soon_threadsafe(&loop, NULL, receive_word, NULL), 0);
    return NULL;
}

TEST(posts_without_a_job_come_from_any_thread) {
    pthread_t threads[THREADS];
    int i;
    posts_a_thread = test_quick ? 500 : 20000;
    open_loop_for_threads();
    for (i = 0; i < THREADS; i++) threads[i] = start_thread(post_many_pooled, NULL);
    EQ(casync_run_forever(&loop), 0);
    for (i = 0; i < THREADS; i++) join_thread(threads[i]);
    EQ(casync_loop_close(&loop), 0);
}

static void break_loop(void *arg) {
    say(arg);
    casync_break(&loop);
}

TEST(a_break_among_posts_without_a_job_keeps_the_rest) {
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, NULL, break_loop, WORD("1")), 0);
    EQ(casync_call_soon_threadsafe(&loop, NULL, break_loop, WORD("2")), 0);
    EQ(casync_call_soon(&loop, NULL, say, WORD("5")), 0);
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, WORD("3")), 0);
    EQ(casync_run_once(&loop), 0);
    SAID("5 1");
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, WORD("4")), 0);
    EQ(casync_run_once(&loop), 0);
    EQ(casync_run_once(&loop), 0);
    SAID("2 3 4");
    close_loop();
}

static void nothing(void *arg) { (void)arg; }
static void post_nothing(void *arg) {
    EQ(casync_call_soon_threadsafe(&loop, NULL, nothing, arg), 0);
}

TEST(a_posted_call_may_post_the_next) {
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < 200; i++) {
        EQ(casync_call_soon_threadsafe(&loop, NULL, post_nothing, NULL), 0);
        EQ(casync_run_once(&loop), 0);
        EQ(casync_run_once(&loop), 0);
    }
    EXPECT(memory.allocations < 20); /* batches are used again */
    close_loop();
}

TEST(a_forked_child_gets_the_posts_before_the_fork) {
    pid_t child;
    int status;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, NULL, say, WORD("before")), 0);
    child = fork();
    if (child == 0) {
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_call_soon_threadsafe(&loop, NULL, say, WORD("after")), 0);
        EQ(casync_run_until_idle(&loop), 0);
        SAID("before after");
        close_loop();
        _exit(0);
    }
    EQ(waitpid(child, &status, 0), child);
    EQ(status, 0);
    close_loop();
}

/* Ping-pong between two loops in two threads: each post has to end a wait, none may be lost. */
static casync_loop partner;
static casync_job ping_job, pong_job;
static int rallies;

static void pong(void *arg);
static void ping(void *arg) {
    (void)arg;
    EQ(casync_call_soon_threadsafe(&partner, &pong_job, pong, NULL), 0);
}

static void pong(void *arg) {
    (void)arg;
    if (rallies-- > 0) {
        EQ(casync_call_soon_threadsafe(&loop, &ping_job, ping, NULL), 0);
        return;
    }
    casync_stop(&partner);
    EQ(casync_call_soon_threadsafe(&loop, &self, stop_loop, NULL), 0);
}

static void *run_partner(void *arg) {
    (void)arg;
    EQ(casync_run_forever(&partner), 0);
    return NULL;
}

TEST(no_wakeup_is_lost_between_two_loops) {
    pthread_t thread;
    rallies = test_quick ? 200 : 20000;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_loop_init(&partner, NULL), 0);
    EQ(casync_call_soon(&loop, NULL, ping, NULL), 0);
    thread = start_thread(run_partner, NULL);
    EQ(casync_run_forever(&loop), 0);
    join_thread(thread);
    EQ(rallies, -1);
    EQ(casync_loop_close(&partner), 0);
    close_loop();
}

TEST(close_drops_posts_that_were_not_seen) {
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon_threadsafe(&loop, &job, never, NULL), 0);
    EQ(casync_call_soon_threadsafe(&loop, NULL, never, NULL), 0);
    close_loop();
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &job, say, WORD("free-again")), 0);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("free-again");
    close_loop();
}

/* >> what a coalesced post makes visible ------------------------------------------------------ */

/* Without an order of their own: what the posts order is what is looked at. */
#if defined(__GNUC__)
#define LOAD(place) __atomic_load_n(place, __ATOMIC_RELAXED)
#define STORE(place, value) __atomic_store_n(place, value, __ATOMIC_RELAXED)
#else
#define LOAD(place) (*(volatile int *)(place))
#define STORE(place, value) (*(volatile int *)(place) = (value))
#endif

enum { POSTERS = 2 };
static struct { int written, seen; } counters[POSTERS];
static casync_job counted;
static int rounds;

static void look_at_counters(void *arg) {
    int i, ended = 0;
    (void)arg;
    for (i = 0; i < POSTERS; i++) {
        STORE(&counters[i].seen, LOAD(&counters[i].written));
        ended += counters[i].seen == rounds;
    }
    if (ended == POSTERS) casync_stop(&loop);
}

/* Goes on when its number was seen, so each is the last that a call has to see. */
static void *count_and_post(void *arg) {
    int self_number = (int)(intptr_t)arg, n;
    for (n = 1; n <= rounds; n++) {
        int64_t posted;
        STORE(&counters[self_number].written, n);
        posted = casync_call_soon_threadsafe(&loop, &counted, look_at_counters, NULL);
        EXPECT(posted == 0 || posted == -EALREADY);
        while (LOAD(&counters[self_number].seen) < n) sched_yield();
    }
    return NULL;
}

TEST(a_call_sees_what_was_written_before_each_of_its_posts) {
    pthread_t threads[POSTERS];
    int i;
    rounds = test_quick ? 500 : 50000;
    open_waiting_loop();
    for (i = 0; i < POSTERS; i++) threads[i] = start_thread(count_and_post, (void *)(intptr_t)i);
    EQ(casync_run_forever(&loop), 0);
    for (i = 0; i < POSTERS; i++) {
        join_thread(threads[i]);
        EQ(counters[i].seen, rounds);
    }
    close_loop();
}

/* Plain memory, which a sanitizer of threads watches: nothing orders it but a post that was
   refused. */
static int plain, was_refused;

static void look_at_plain_memory(void *arg) {
    (void)arg;
    say_number("plain", plain);
}
static void *post_twice(void *arg) {
    EQ(casync_call_soon_threadsafe(&loop, &counted, look_at_plain_memory, NULL), 0);
    plain = (int)(intptr_t)arg;
    EQ(casync_call_soon_threadsafe(&loop, &counted, look_at_plain_memory, NULL), -EALREADY);
    STORE(&was_refused, 1);
    return NULL;
}

TEST(a_call_sees_what_was_written_before_a_post_that_was_refused) {
    int i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < (test_quick ? 20 : 1000); i++) {
        pthread_t thread = start_thread(post_twice, (void *)(intptr_t)i);
        char sentence[32];
        snprintf(sentence, sizeof sentence, "plain=%d", i);
        while (!LOAD(&was_refused)) sched_yield();
        while (said_size == 0) EQ(casync_run_nowait(&loop), 0);
        SAID(sentence);
        join_thread(thread);
        STORE(&was_refused, 0);
    }
    close_loop();
}
