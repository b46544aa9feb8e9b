/* >> calls & thread pool: how it is closed and shut down, shared by loops and inherited by a forked
   child. */
#include "pool_fixture.h"

static void shut_down(void) {
    casync_op op;
    EQ(casync_run_until_complete(casync_pool_shutdown_op(&loop, &pool, &op)), 0);
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
