/* >> calls & thread pool: functions run in other threads, their results come back as futures. */
#include "pool_fixture.h"

static void wait_discards(int n) {
    pthread_mutex_lock(&gate.mutex);
    while (gate.discards < n) pthread_cond_wait(&gate.changed, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);
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

/* >> cancelling ------------------------------------------------------------------------------- */

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
