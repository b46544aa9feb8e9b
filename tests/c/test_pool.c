/* >> thread pool: functions run in other threads, their results come back as futures. */
#define CASYNC_SYSCALL_TABLE
#include "support.h"

static casync_pool pool;
static casync_op ops[512];

/* >> support ---------------------------------------------------------------------------------- */

/* Records of abandoned calls are freed by the pool's threads: the counting allocator needs a
   mutex. */
static pthread_mutex_t memory_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *locked_allocator(void *user, void *ptr, size_t size) {
    pthread_mutex_lock(&memory_mutex);
    ptr = counting_allocator(user, ptr, size);
    pthread_mutex_unlock(&memory_mutex);
    return ptr;
}

static int64_t live_memory(void) {
    int64_t live;
    pthread_mutex_lock(&memory_mutex);
    live = memory.live;
    pthread_mutex_unlock(&memory_mutex);
    return live;
}

/* How many threads of pools there are, by the name that they have unless a test gives another. */
static int pool_threads(void) {
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    int n = 0;
    EXPECT(directory);
    while ((entry = readdir(directory)) != NULL) {
        char path[64], name[32] = "";
        FILE *file;
        snprintf(path, sizeof path, "/proc/self/task/%.20s/comm", entry->d_name);
        file = fopen(path, "re");
        if (file && fgets(name, sizeof name, file)) n += strncmp(name, "casync-", 7) == 0;
        if (file) fclose(file);
    }
    closedir(directory);
    return n;
}

/* A thread that was joined may still be in /proc for a moment. */
static void wait_for_no_threads(void) {
    while (pool_threads() > 0) sched_yield();
}

static void open_pool_loop(int clock) {
    casync_loop_desc desc = ZERO;
    desc.clock = clock;
    desc.allocator.function = locked_allocator;
    desc.exception_handler = say_exception;
    descriptors_before = open_descriptors();
    EQ(casync_loop_init(&loop, &desc), 0);
}

static void open_pool(int size, int queue_limit) {
    casync_pool_desc desc = ZERO;
    desc.size = size;
    desc.queue_limit = queue_limit;
    desc.allocator.function = locked_allocator;
    EQ(casync_pool_init(&pool, &desc), 0);
}

static void open_both(int size) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    open_pool(size, 0);
}

/* Nothing is left, once the threads that were detached are gone. */
static void close_pool_loop(void) {
    EQ(casync_loop_close(&loop), 0);
    while (live_memory() > 0) sched_yield();
    wait_for_no_threads();
    EQ(open_descriptors(), descriptors_before);
    STR_EQ(said, "");
}

static void close_all(void) {
    casync_pool_close(&pool);
    close_pool_loop();
}

/* A gate: calls wait in it until it is opened. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int inside;   /* how many have come to it */
    int passing;  /* how many may go on */
    int discards; /* results that were discarded in any thread */
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};

static int64_t pass_gate(void *arg, void **ptr) {
    (void)ptr;
    pthread_mutex_lock(&gate.mutex);
    gate.inside++;
    pthread_cond_broadcast(&gate.changed);
    while (gate.passing == 0) pthread_cond_wait(&gate.changed, &gate.mutex);
    gate.passing--;
    pthread_mutex_unlock(&gate.mutex);
    return (int64_t)(intptr_t)arg;
}

static void let_pass(int n) {
    pthread_mutex_lock(&gate.mutex);
    gate.passing += n;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.mutex);
}

static void wait_inside(int n) {
    pthread_mutex_lock(&gate.mutex);
    while (gate.inside < n) pthread_cond_wait(&gate.changed, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);
}

static int64_t discarded[512];

/* arg is the number of the call. */
static void discard(void *arg, int64_t result, void *ptr) {
    (void)ptr;
    pthread_mutex_lock(&gate.mutex);
    discarded[(intptr_t)arg] = result;
    gate.discards++;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.mutex);
}

static void wait_discards(int n) {
    pthread_mutex_lock(&gate.mutex);
    while (gate.discards < n) pthread_cond_wait(&gate.changed, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);
}

static void never_discard(void *arg, int64_t result, void *ptr) {
    (void)result;
    (void)ptr;
    never(arg);
}

static int64_t never_run(void *arg, void **ptr) {
    (void)ptr;
    never(arg);
    return 0;
}

static int64_t return_number(void *arg, void **ptr) {
    *ptr = arg;
    return (int64_t)(intptr_t)arg;
}

static casync_future *call_with(intptr_t i, casync_pool_function function,
                                casync_pool_discard discarding) {
    return casync_run_in_executor_op(&loop, &pool, &ops[i], function, (void *)i, discarding);
}

static casync_future *call(intptr_t i, casync_pool_function function) {
    return call_with(i, function, never_discard);
}

static void say_result(void *arg) {
    intptr_t i = (intptr_t)arg;
    say_number("result", casync_future_result(&ops[i].future));
}

static void say_when_done(intptr_t i) {
    EQ(casync_future_add_done_callback(&ops[i].future, NULL, say_result, (void *)i), 0);
}

static void shut_down(void) {
    casync_op op;
    EQ(casync_run_until_complete(casync_pool_shutdown_op(&loop, &pool, &op)), 0);
}

/* Until the loop has been told of a result that it has not looked at. */
static void wait_posted(void) {
    while (!casync__atomic_load_pointer(&loop.posted)) sched_yield();
}

/* >> calls and results ------------------------------------------------------------------------ */

static pthread_t called_in;
static int64_t note_thread(void *arg, void **ptr) {
    called_in = pthread_self();
    EXPECT(casync_get_running_loop() == NULL);
    *ptr = arg;
    return 42;
}

TEST(a_call_runs_in_another_thread_and_its_result_comes_back) {
    open_both(1);
    EQ(casync_run_until_complete(call(1, note_thread)), 42);
    EXPECT(!pthread_equal(called_in, pthread_self()));
    PTR_EQ(ops[1].future.ptr, (void *)1);
    EQ(ops[1].future.state, CASYNC_FUTURE_DONE);
    close_all();
}

static int64_t fail(void *arg, void **ptr) {
    (void)arg;
    (void)ptr;
    return -ENOENT;
}

TEST(a_negative_result_is_an_error) {
    open_both(1);
    EQ(casync_run_until_complete(call(1, fail)), -ENOENT);
    EQ(ops[1].future.state, CASYNC_FUTURE_FAILED);
    EQ(casync_run_until_complete(call(1, fail)), -ENOENT);
    call(2, fail);
    EQ(casync_run_until_idle(&loop), 0);
    casync_future_close(&ops[2].future);
    SAID("exception=-2");
    close_all();
}

TEST(a_call_keeps_the_loop_running) {
    open_both(1);
    call(1, pass_gate);
    say_when_done(1);
    wait_inside(1);
    EXPECT(casync_loop_alive(&loop));
    EQ(casync_call_soon(&loop, NULL, say, WORD("meanwhile")), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("meanwhile");
    let_pass(1);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("result=1");
    close_all();
}

TEST(calls_of_one_thread_run_in_order) {
    intptr_t i;
    open_both(1);
    for (i = 0; i < 5; i++) {
        call(i, return_number);
        say_when_done(i);
    }
    EQ(casync_run_until_idle(&loop), 0);
    SAID("result=0 result=1 result=2 result=3 result=4");
    close_all();
}

TEST(a_result_may_start_the_next_call) {
    int i;
    open_both(2);
    for (i = 0; i < 100; i++) EQ(casync_run_until_complete(call(i, return_number)), i);
    close_all();
}

TEST(bad_arguments_are_refused) {
    casync_pool_desc desc = ZERO;
    desc.size = -1;
    EQ(casync_pool_init(&pool, &desc), -EINVAL);
    desc.size = 5000;
    EQ(casync_pool_init(&pool, &desc), -EINVAL);
    desc.size = 1;
    desc.queue_limit = -1;
    EQ(casync_pool_init(&pool, &desc), -EINVAL);
    casync_pool_close(&pool);
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_future_result(call(1, return_number)), CASYNC_INVALID_STATE);
    EQ(casync_future_result(casync_pool_shutdown_op(&loop, &pool, &ops[2])), CASYNC_INVALID_STATE);
    open_pool(1, 0);
    EQ(casync_future_result(call(1, NULL)), -EINVAL);
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_loop_close(&loop), 0);
    EQ(casync_future_result(call(1, return_number)), -EINVAL);
    EQ(casync_future_result(casync_pool_shutdown_op(&loop, &pool, &ops[2])), -EINVAL);
    close_all();
}

/* >> threads ---------------------------------------------------------------------------------- */

TEST(threads_start_on_demand_up_to_the_size) {
    open_both(3);
    EQ(pool_threads(), 0);
    let_pass(2);
    EQ(casync_run_until_complete(call(1, pass_gate)), 1);
    EQ(pool_threads(), 1);
    EQ(casync_run_until_complete(call(1, pass_gate)), 1); /* by the same thread */
    EQ(pool_threads(), 1);
    call(1, pass_gate);
    call(2, pass_gate);
    wait_inside(4);
    EQ(pool_threads(), 2);
    call(3, pass_gate);
    call(4, pass_gate);
    wait_inside(5);
    EQ(pool_threads(), 3);
    let_pass(4);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(pool_threads(), 3);
    close_all();
}

static int64_t say_name(void *arg, void **ptr) {
    char name[16];
    (void)arg;
    (void)ptr;
    EQ(prctl(PR_GET_NAME, name), 0);
    say(name);
    return 0;
}

TEST(threads_have_names) {
    casync_pool_desc desc = ZERO;
    open_both(1);
    EQ(casync_run_until_complete(call(1, say_name)), 0);
    SAID("casync-0");
    casync_pool_close(&pool);
    desc.name = "a-rather-long-name";
    desc.size = 1;
    EQ(casync_pool_init(&pool, &desc), 0);
    EQ(casync_run_until_complete(call(1, say_name)), 0);
    SAID("a-rather-l-0");
    close_all();
}

static int64_t blocked_signals(void *arg, void **ptr) {
    sigset_t set;
    (void)arg;
    (void)ptr;
    EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
    return sigismember(&set, SIGINT) && sigismember(&set, SIGCHLD) && sigismember(&set, SIGRTMIN) &&
           !sigismember(&set, SIGSEGV);
}

TEST(signals_are_blocked_in_the_threads_alone) {
    sigset_t set;
    open_both(1);
    EQ(casync_run_until_complete(call(1, blocked_signals)), 1);
    EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
    EQ(sigismember(&set, SIGINT), 0);
    close_all();
}

TEST(a_full_queue_refuses_calls) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    open_pool(2, 1);
    call(1, pass_gate);
    call(2, pass_gate);
    call_with(3, never_run, discard);
    EQ(casync_future_result(call(4, never_run)), -ENOBUFS);
    EQ(casync_future_cancel(&ops[3].future), 1);
    call(3, pass_gate);
    EQ(casync_future_result(call(4, never_run)), -ENOBUFS);
    let_pass(3);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_run_until_complete(call(4, return_number)), 4);
    close_all();
}

/* >> cancel ----------------------------------------------------------------------------------- */

TEST(a_call_that_waits_is_cancelled_and_never_runs) {
    open_both(1);
    call(1, pass_gate);
    call_with(2, never_run, discard);
    say_when_done(2);
    wait_inside(1);
    EQ(casync_future_cancel(&ops[2].future), 1);
    EQ(gate.discards, 1);
    EQ(discarded[2], -ECANCELED);
    EQ(casync_run_nowait(&loop), 0);
    SAID("result=-125");
    let_pass(1);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_run_until_complete(call(3, return_number)), 3);
    EQ(gate.discards, 1);
    close_all();
}

TEST(a_call_that_runs_is_abandoned_and_its_result_discarded) {
    open_both(1);
    call_with(7, pass_gate, discard);
    wait_inside(1);
    EQ(casync_future_cancel(&ops[7].future), 1);
    EQ(casync_future_result(&ops[7].future), -ECANCELED);
    memset(ops, 0xff, sizeof ops); /* the op is ours again */
    EXPECT(!casync_loop_alive(&loop));
    EQ(casync_run_until_idle(&loop), 0);
    EQ(gate.discards, 0);
    let_pass(1);
    wait_discards(1);
    EQ(discarded[7], 7);
    EQ(casync_run_until_complete(call(3, return_number)), 3);
    close_all();
}

TEST(a_result_on_its_way_is_discarded_when_its_call_is_cancelled) {
    open_both(1);
    call_with(5, return_number, discard);
    wait_posted();
    EQ(casync_future_cancel(&ops[5].future), 1);
    EQ(gate.discards, 1);
    EQ(discarded[5], 5);
    EXPECT(!casync_loop_alive(&loop));
    call_with(6, return_number, discard);
    wait_posted();
    EQ(casync_future_add_done_callback(&ops[6].future, NULL, never, NULL), 0);
    casync_future_close(&ops[6].future);
    EQ(discarded[6], 6);
    EQ(casync_run_until_idle(&loop), 0);
    close_all();
}

TEST(closing_a_future_cancels_its_call) {
    open_both(1);
    call_with(1, pass_gate, discard);
    call_with(2, never_run, discard);
    call_with(3, never_run, NULL);
    wait_inside(1);
    casync_future_close(&ops[1].future);
    casync_future_close(&ops[2].future);
    casync_future_close(&ops[3].future);
    EQ(discarded[2], -ECANCELED);
    let_pass(1);
    wait_discards(2);
    EQ(discarded[1], 1);
    EXPECT(!casync_loop_alive(&loop));
    close_all();
}

/* >> close and shutdown ----------------------------------------------------------------------- */

TEST(close_cancels_what_waits_and_delivers_what_runs) {
    open_both(1);
    call(1, pass_gate);
    call_with(2, never_run, discard);
    say_when_done(1);
    say_when_done(2);
    wait_inside(1);
    casync_pool_close(&pool);
    memset(&pool, 0xff, sizeof pool); /* the pool is ours again */
    EQ(casync_run_once(&loop), 0);
    EQ(casync_run_nowait(&loop), 0);
    SAID("result=-125");
    EQ(discarded[2], -ECANCELED);
    EQ(ops[2].future.state, CASYNC_FUTURE_CANCELLED);
    let_pass(1);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("result=1");
    EQ(gate.discards, 1);
    close_pool_loop();
}

TEST(close_of_an_idle_pool_leaves_no_thread) {
    open_both(4);
    call(1, return_number);
    call(2, return_number);
    EQ(casync_run_until_idle(&loop), 0);
    casync_pool_close(&pool);
    EQ(live_memory(), 0);
    wait_for_no_threads();
    casync_pool_close(&pool);
    close_pool_loop();
}

TEST(a_call_cancelled_by_close_can_be_cancelled_before_it_is_told) {
    open_both(1);
    call(1, pass_gate);
    call_with(2, never_run, discard);
    wait_inside(1);
    casync_pool_close(&pool);
    EQ(casync_future_cancel(&ops[2].future), 1);
    EQ(discarded[2], -ECANCELED);
    let_pass(1);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(gate.discards, 1);
    close_pool_loop();
}

TEST(shutdown_waits_for_all_calls) {
    casync_op op;
    open_both(1);
    call(1, pass_gate);
    call(2, pass_gate);
    say_when_done(1);
    say_when_done(2);
    casync_pool_shutdown_op(&loop, &pool, &op);
    EQ(casync_future_add_done_callback(&op.future, NULL, say, WORD("down")), 0);
    EQ(casync_future_result(call(3, never_run)), CASYNC_INVALID_STATE);
    EQ(casync_future_result(casync_pool_shutdown_op(&loop, &pool, &ops[4])), CASYNC_INVALID_STATE);
    EQ(casync_run_nowait(&loop), 0);
    SAID("");
    let_pass(2);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("result=1 result=2 down");
    EQ(casync_future_result(&op.future), 0);
    PTR_EQ(pool.shared, NULL);
    close_pool_loop();
}

TEST(shutdown_of_an_unused_pool_is_done_at_once) {
    open_both(1);
    shut_down();
    EQ(live_memory(), 0);
    close_pool_loop();
}

TEST(a_shutdown_that_is_cancelled_goes_on_without_a_waiter) {
    casync_op op;
    open_both(1);
    call(1, pass_gate);
    wait_inside(1);
    casync_pool_shutdown_op(&loop, &pool, &op);
    EQ(casync_future_cancel(&op.future), 1);
    EQ(casync_future_result(call(2, never_run)), CASYNC_INVALID_STATE);
    casync_pool_shutdown_op(&loop, &pool, &op);
    let_pass(1);
    EQ(casync_run_until_complete(&op.future), 0);
    close_pool_loop();
}

TEST(close_ends_a_shutdown) {
    casync_op op;
    open_both(1);
    call(1, pass_gate);
    call_with(2, never_run, discard);
    wait_inside(1);
    casync_pool_shutdown_op(&loop, &pool, &op);
    casync_pool_close(&pool);
    memset(&pool, 0xff, sizeof pool);
    EQ(casync_run_until_complete(&op.future), -ECANCELED);
    let_pass(1);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(discarded[2], -ECANCELED);
    close_pool_loop();
}

static int64_t close_pool(void *arg, void **ptr) {
    (void)arg;
    (void)ptr;
    casync_pool_close(&pool);
    return 1;
}

TEST(a_call_may_close_its_pool) {
    open_both(1);
    EQ(casync_run_until_complete(call(1, close_pool)), 1);
    close_pool_loop();
}

/* >> the default pool ------------------------------------------------------------------------- */

TEST(the_default_pool_starts_at_first_use) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(memory.allocations, 0);
    EQ(casync_run_until_complete(casync_run_in_executor_op(&loop, NULL, &ops[1], return_number,
                                                           (void *)1, never_discard)),
       1);
    EQ(pool_threads(), 1);
    close_pool_loop();
}

TEST(the_default_pool_can_be_shut_down) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    casync_run_in_executor_op(&loop, NULL, &ops[1], pass_gate, (void *)1, never_discard);
    wait_inside(1);
    casync_shutdown_default_executor_op(&loop, &ops[2]);
    EQ(casync_future_result(
           casync_run_in_executor_op(&loop, NULL, &ops[3], never_run, NULL, never_discard)),
       CASYNC_INVALID_STATE);
    let_pass(1);
    EQ(casync_run_until_complete(&ops[2].future), 0);
    EQ(casync_future_result(&ops[1].future), 1);
    EQ(live_memory(), 0);
    EQ(casync_future_result(
           casync_run_in_executor_op(&loop, NULL, &ops[3], never_run, NULL, never_discard)),
       CASYNC_INVALID_STATE);
    EQ(casync_future_result(casync_shutdown_default_executor_op(&loop, &ops[2])), 0);
    close_pool_loop();
}

TEST(the_default_pool_can_be_shut_down_unused) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_future_result(casync_shutdown_default_executor_op(&loop, &ops[2])), 0);
    EQ(casync_future_result(
           casync_run_in_executor_op(&loop, NULL, &ops[3], never_run, NULL, never_discard)),
       CASYNC_INVALID_STATE);
    EQ(memory.allocations, 0);
    close_pool_loop();
}

/* >> the loop --------------------------------------------------------------------------------- */

TEST(loop_close_abandons_its_calls) {
    casync_op op;
    open_both(2);
    call_with(1, return_number, discard);
    wait_posted();
    call_with(2, pass_gate, discard);
    call_with(3, pass_gate, discard);
    wait_inside(2);
    call_with(4, never_run, discard);
    casync_pool_shutdown_op(&loop, &pool, &op);
    EQ(casync_loop_close(&loop), 0);
    EQ(gate.discards, 2);
    EQ(discarded[1], 1);
    EQ(discarded[4], -ECANCELED);
    memset(&loop, 0xff, sizeof loop); /* no thread may touch the loop */
    let_pass(2);
    wait_discards(4);
    EQ(discarded[2], 2);
    EQ(discarded[3], 3);
    memset(&loop, 0, sizeof loop);
    close_all();
}

TEST(loop_close_does_not_wait_for_the_default_pool) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    casync_run_in_executor_op(&loop, NULL, &ops[1], pass_gate, (void *)1, discard);
    wait_inside(1);
    EQ(casync_loop_close(&loop), 0);
    let_pass(1);
    wait_discards(1);
    close_pool_loop();
}

/* The gate opens when the loop waits, in real time: not to wait would be to jump. */
static void open_gate_from_wait(void *arg, int64_t timeout) {
    (void)arg;
    if (timeout > 0) let_pass(1);
}

TEST(virtual_time_does_not_jump_over_a_call) {
    casync_timer timer = ZERO;
    open_both(1);
    EQ(casync_loop_close(&loop), 0);
    open_pool_loop(CASYNC_CLOCK_VIRTUAL);
    loop.before_wait = open_gate_from_wait;
    EQ(casync_call_later(&loop, &timer, CASYNC_SECONDS(1000), say, WORD("timer")), 0);
    call(1, pass_gate);
    say_when_done(1);
    EQ(casync_run_until_idle(&loop), 0);
    SAID("result=1 timer");
    close_all();
}

static int wakes; /* with the gate's mutex */
static int64_t counting_write(int fd, const void *data, size_t size) {
    pthread_mutex_lock(&gate.mutex);
    wakes++;
    pthread_mutex_unlock(&gate.mutex);
    return casync__direct_write(fd, data, size);
}

static int count_wakes(void) {
    int n;
    pthread_mutex_lock(&gate.mutex);
    n = wakes;
    pthread_mutex_unlock(&gate.mutex);
    return n;
}

TEST(results_come_in_batches_and_wake_a_loop_that_sleeps_alone) {
    casync_op op;
    int i;
    casync_syscalls.write = counting_write;
    open_both(1);
    for (i = 0; i < 100; i++) call_with(i, i == 99 ? pass_gate : return_number, NULL);
    wait_inside(1);
    EQ(count_wakes(), 0);
    EQ(casync_run_once(&loop), 0); /* all of them in one turn */
    for (i = 0; i < 99; i++) EQ(casync_future_result(&ops[i].future), i);
    loop.before_wait = open_gate_from_wait;
    EQ(casync_run_until_idle(&loop), 0);
    EXPECT(count_wakes() <= 1);
    EQ(casync_run_until_complete(casync_pool_shutdown_op(&loop, &pool, &op)), 0);
    close_pool_loop();
}

/* >> many loops, one pool --------------------------------------------------------------------- */

enum { LOOPS = 4, OPS = 16, CALLS = 50 };

typedef struct customer {
    casync_loop loop;
    casync_op ops[OPS];
    uint64_t state;
    int rounds, results, discards; /* discards: with the gate's mutex */
} customer;

static void count_discard(void *arg, int64_t result, void *ptr) {
    customer *c = (customer *)arg;
    (void)ptr;
    EXPECT(result == 1 || result == -ECANCELED);
    pthread_mutex_lock(&gate.mutex);
    c->discards++;
    pthread_mutex_unlock(&gate.mutex);
}

static int64_t return_one(void *arg, void **ptr) {
    (void)arg;
    (void)ptr;
    return 1;
}

static bool is_pending(const casync_op *op) {
    return op->future.loop && !casync_future_done(&op->future);
}

static void count_result(customer *c, casync_op *op) {
    if (op->future.loop && casync_future_result(&op->future) == 1) c->results++;
}

/* Calls at random, some of which are cancelled at random, and in the end closes the loop, with or
   without calls outstanding. */
static void be_customer_once(customer *c, int calls) {
    casync_loop_desc desc = ZERO;
    int i;
    desc.allocator.function = locked_allocator;
    EQ(casync_loop_init(&c->loop, &desc), 0);
    memset(c->ops, 0, sizeof c->ops);
    for (i = 0; i < calls; i++) {
        casync_op *op = &c->ops[i % OPS];
        c->state = c->state * 6364136223846793005u + 1442695040888963407u;
        if (is_pending(op) && (c->state / 16777216) % 4 != 0) casync_future_cancel(&op->future);
        while (is_pending(op)) EQ(casync_run_once(&c->loop), 0);
        count_result(c, op);
        casync_run_in_executor_op(&c->loop, &pool, op, return_one, c, count_discard);
    }
    if ((c->state / 65536) % 2) EQ(casync_run_until_idle(&c->loop), 0);
    EQ(casync_loop_close(&c->loop), 0);
    for (i = 0; i < OPS; i++) count_result(c, &c->ops[i]);
}

static void *be_customer(void *arg) {
    customer *c = (customer *)arg;
    int i;
    for (i = 0; i < c->rounds; i++) be_customer_once(c, 1 + i % CALLS);
    return NULL;
}

/* Each call has a result, or is discarded, once. */
TEST(many_loops_share_a_pool) {
    static customer customers[LOOPS];
    pthread_t threads[LOOPS];
    int i;
    open_both(3);
    for (i = 0; i < LOOPS; i++) {
        customers[i].state = (uint64_t)i;
        customers[i].rounds = test_quick ? CALLS : 20 * CALLS;
        threads[i] = start_thread(be_customer, &customers[i]);
    }
    for (i = 0; i < LOOPS; i++) join_thread(threads[i]);
    shut_down();
    for (i = 0; i < LOOPS; i++)
        EQ(customers[i].results + customers[i].discards, customers[i].rounds * (CALLS + 1) / 2);
    close_pool_loop();
}

/* >> fork ------------------------------------------------------------------------------------- */

static void need_threads_after_fork(void) {
#ifdef __SANITIZE_THREAD__
    SKIP("TSan's runtime starts no threads in a child of a process that has several");
#endif
}

TEST(a_forked_child_has_its_calls_failed_and_threads_of_its_own) {
    pid_t child;
    skip_under_qemu("qemu-user does not zero pages in a child");
    need_threads_after_fork();
    open_both(1);
    call(0, return_number);
    wait_posted();
    call(1, pass_gate);
    call(2, pass_gate);
    wait_inside(1);
    child = fork_child();
    if (child == 0) {
        EQ(casync_future_result(call(3, never_run)), -ECHILD);
        EQ(casync_loop_fork(&loop), 0);
        EQ(casync_future_result(&ops[1].future), -ECHILD);
        EQ(casync_future_result(&ops[2].future), -ECHILD);
        EQ(casync_run_until_idle(&loop), 0);
        EQ(casync_future_result(&ops[0].future), 0); /* what had returned is kept */
        EQ(casync_run_until_complete(call(3, return_number)), 3);
        shut_down();
        EQ(live_memory(), 0);
        EQ(casync_loop_close(&loop), 0);
        _exit(0);
    }
    EQ(child_status(child), 0);
    let_pass(2);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_future_result(&ops[2].future), 2);
    close_all();
}

TEST(a_forked_child_may_close_all_it_inherited) {
    pid_t child;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_both(1);
    casync_run_in_executor_op(&loop, NULL, &ops[9], pass_gate, (void *)9, discard);
    call_with(1, pass_gate, discard);
    call_with(2, pass_gate, discard);
    wait_inside(2);
    child = fork_child();
    if (child == 0) {
        pthread_cond_init(&gate.changed, NULL); /* its waiters are in the parent */
        EQ(casync_loop_close(&loop), 0);
        casync_pool_close(&pool);
        EQ(gate.discards, 1); /* what runs, runs in the parent */
        EQ(discarded[2], -ECANCELED);
        EQ(memory.live, 0);
        _exit(0);
    }
    EQ(child_status(child), 0);
    let_pass(3);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(gate.discards, 0);
    close_all();
}

static pthread_barrier_t held, forked;
static void *hold_mutex(void *arg) {
    (void)arg;
    pthread_mutex_lock(&pool.shared->mutex);
    pthread_barrier_wait(&held);
    pthread_barrier_wait(&forked);
    pthread_mutex_unlock(&pool.shared->mutex);
    return NULL;
}

TEST(a_fork_at_any_moment_leaves_the_child_a_pool_that_works) {
    pid_t child;
    pthread_t holder;
    skip_under_qemu("qemu-user does not zero pages in a child");
    need_threads_after_fork();
    open_both(2);
    EQ(casync_run_until_complete(call(1, return_number)), 1);
    EQ(pthread_barrier_init(&held, NULL, 2), 0);
    EQ(pthread_barrier_init(&forked, NULL, 2), 0);
    holder = start_thread(hold_mutex, NULL);
    pthread_barrier_wait(&held);
    child = fork_child();
    if (child == 0) {
        casync_loop own;
        EQ(casync_loop_init(&own, NULL), 0);
        EQ(casync_run_until_complete(casync_run_in_executor_op(&own, &pool, &ops[2], return_number,
                                                               (void *)2, never_discard)),
           2);
        casync_pool_close(&pool);
        EQ(casync_loop_close(&own), 0);
        _exit(0);
    }
    pthread_barrier_wait(&forked);
    join_thread(holder);
    EQ(child_status(child), 0);
    EQ(casync_run_until_complete(call(1, return_number)), 1);
    close_all();
}

/* >> failures --------------------------------------------------------------------------------- */

TEST(without_memory_a_call_fails_and_nothing_changes) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    fail_allocation(1, 1); /* the default pool */
    EQ(casync_future_result(
           casync_run_in_executor_op(&loop, NULL, &ops[1], never_run, NULL, never_discard)),
       -ENOMEM);
    EQ(memory.live, 0);
    fail_allocation(2, 1); /* the record */
    EQ(casync_future_result(
           casync_run_in_executor_op(&loop, NULL, &ops[1], never_run, NULL, never_discard)),
       -ENOMEM);
    fail_allocation(1, 1); /* the shutdown's record */
    EQ(casync_future_result(casync_shutdown_default_executor_op(&loop, &ops[2])), -ENOMEM);
    EXPECT(!casync_loop_alive(&loop));
    EQ(pool_threads(), 0);
    fail_no_allocation();
    EQ(casync_run_until_complete(casync_run_in_executor_op(&loop, NULL, &ops[1], return_number,
                                                           (void *)1, never_discard)),
       1);
    fail_allocation(1, 1);
    EQ(casync_pool_init(&pool, NULL), 0); /* by the default allocator */
    casync_pool_close(&pool);
    {
        casync_pool_desc desc = ZERO;
        desc.allocator.function = locked_allocator;
        EQ(casync_pool_init(&pool, &desc), -ENOMEM);
    }
    fail_no_allocation();
    close_all();
}

static int creations_allowed;
static int64_t failing_thread_create(pthread_t *thread, void *(*run)(void *), void *arg) {
    if (creations_allowed-- <= 0) return -EAGAIN;
    return casync__direct_thread_create(thread, run, arg);
}

TEST(without_any_thread_a_call_fails) {
    sigset_t set;
    casync_syscalls.thread_create = failing_thread_create;
    open_both(2);
    EQ(casync_future_result(call(1, never_run)), -EAGAIN);
    EXPECT(!casync_loop_alive(&loop));
    EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
    EQ(sigismember(&set, SIGINT), 0);
    creations_allowed = 1;
    EQ(casync_run_until_complete(call(1, return_number)), 1);
    close_all();
}

TEST(without_another_thread_a_call_waits_for_the_first) {
    casync_syscalls.thread_create = failing_thread_create;
    creations_allowed = 1;
    open_both(2);
    call(1, pass_gate);
    call(2, return_number);
    wait_inside(1);
    let_pass(1);
    EQ(casync_run_until_idle(&loop), 0);
    EQ(casync_future_result(&ops[2].future), 2);
    close_all();
}

static int64_t failing_sigmask(int how, const sigset_t *set, sigset_t *old) {
    (void)how;
    (void)set;
    (void)old;
    return -EINVAL;
}

static int64_t failing_name(const char *name) {
    (void)name;
    return -EPERM;
}

TEST(a_kernel_that_refuses_is_reported_or_ignored) {
    open_both(1);
    casync_syscalls.thread_sigmask = failing_sigmask;
    EQ(casync_future_result(call(1, never_run)), -EINVAL);
    casync_syscalls.thread_sigmask = casync__direct_thread_sigmask;
    casync_syscalls.thread_name = failing_name;
    EQ(casync_run_until_complete(call(1, return_number)), 1);
    close_all();
}

TEST_MAIN
