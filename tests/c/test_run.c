/* >> casync_run: what it returns, ends and leaves behind; what it reports, of overflows and of an
   end that takes long. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* The system's clock in the tests' hands: it stands still when it is told. */
static bool clock_stands;
static struct timespec standing_time;

static int test_clock_gettime(clockid_t clock, struct timespec *now) {
    int result = clock_gettime(clock, now);
    if (clock_stands) *now = standing_time;
    return result;
}
#define clock_gettime test_clock_gettime
#include "tasks_fixture.h"

static void stop_clock(void) {
    (void)clock_gettime(CLOCK_MONOTONIC, &standing_time);
    clock_stands = true;
}

/* >> main and what it left -------------------------------------------------------------------- */

static int64_t returns_arg(casync_loop *where, void *arg) {
    EXPECT(where);
    PTR_EQ(casync_get_running_loop(), where);
    STR_EQ(casync_task_name(casync_current_task()), "main");
    return (intptr_t)arg;
}
TEST(run_returns_what_main_returns) {
    EQ(casync_run(returns_arg, (void *)(intptr_t)7), 7);
    EQ(casync_run(returns_arg, (void *)(intptr_t)-EIO), -EIO);
    EQ(casync_run(returns_arg, (void *)(intptr_t)-ECANCELED), -ECANCELED);
    EQ(casync_run(NULL, NULL), -EINVAL);
    EQ(run_with_test_allocator(returns_arg, (void *)(intptr_t)5), 5);
    SAID("");
}

/* The read fails when casync_run closes what is open; who is told of that opens more. */
static casync_stream left_a, left_b, opened_late[2];
static casync_op left_read;
static casync_job late_job;
static char late_byte;

static void opens_late(void *where) {
    EQ(casync_socketpair((casync_loop *)where, &opened_late[0], &opened_late[1], NULL, NULL), 0);
    say(WORD("opened"));
}

static int64_t leaves_a_read(casync_loop *where, void *arg) {
    (void)arg;
    EQ(casync_socketpair(where, &left_a, &left_b, NULL, NULL), 0);
    return casync_future_add_done_callback(casync_read_op(&left_a, &left_read, &late_byte, 1),
                                           &late_job, opens_late, where);
}

TEST(run_closes_what_its_last_turn_opened) {
    int before = open_descriptors();
    EQ(run_with_test_allocator(leaves_a_read, NULL), 0);
    SAID("opened");
    EXPECT(!casync_stream_is_open(&opened_late[0]));
    EQ(open_descriptors(), before);
}

static int64_t says_how_it_ends(casync_loop *where, void *arg) {
    int64_t slept = sleeps(where, MILLISECONDS(1000000));
    say_number("slept", slept);
    slept = casync_sleep(CASYNC_MS(1)); /* cleaning up */
    say_number((const char *)arg, slept);
    return slept;
}
static casync_task left_stackless;
static casync_timer_op left_op;
static int64_t left_step(casync_task *task) {
    int64_t slept;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, slept, casync_sleep_op(task->future.loop, &left_op, CASYNC_SECONDS(1000)));
    say_number("step", slept);
    CASYNC_END(task, slept);
}
static int64_t leaves_tasks(casync_loop *where, void *arg) {
    casync_task_release(casync_spawn(where, says_how_it_ends, WORD("end")));
    casync_task_release(casync_spawn(where, fails_if_cancelled, MILLISECONDS(1000)));
    EQ(casync_task_start(where, &left_stackless, left_step), 0);
    EQ(casync_sleep(0), 0);
    return (intptr_t)arg;
}
TEST(run_cancels_the_tasks_that_are_left_and_waits_for_them) {
    EQ(run_with_test_allocator(leaves_tasks, (void *)(intptr_t)3), 3);
    SAID("slept=-125 exception=-33 step=-125 end=0");
    EQ(run_with_test_allocator(leaves_tasks, (void *)(intptr_t)-EIO), -EIO);
    SAID("slept=-125 exception=-33 step=-125 end=0");
}

static int64_t stops_the_loop(casync_loop *where, void *arg) {
    (void)arg;
    casync_stop(where);
    return sleeps(where, MILLISECONDS(1000000));
}
TEST(run_whose_loop_is_stopped_cancels_main) {
    EQ(run_with_test_allocator(stops_the_loop, NULL), -ECANCELED);
}

static int64_t spawns_when_cancelled(casync_loop *where, void *arg) {
    int64_t slept = sleeps(where, MILLISECONDS(1000000));
    casync_task_release(casync_spawn(where, says_how_it_ends, arg));
    return slept;
}
static int64_t leaves_one_that_spawns(casync_loop *where, void *arg) {
    casync_task_release(casync_spawn(where, spawns_when_cancelled, arg));
    return casync_sleep(0);
}
TEST(run_cancels_tasks_that_were_made_by_cleaning_up) {
    EQ(run_with_test_allocator(leaves_one_that_spawns, WORD("late")), 0);
    SAID("slept=-125 late=0"); /* it had begun, and was asked then */
}

static int64_t keeps_a_handle(casync_loop *where, void *arg) {
    casync_task *tasks[64];
    int i;
    (void)arg;
    for (i = 0; i < 64; i++) {
        tasks[i] = casync_spawn(where, sleeps, NULL);
        EXPECT(tasks[i]);
    }
    for (i = 0; i < 64; i++)
        if (i % 40 != 0) EQ(casync_join(tasks[i]), 0);
    return 7;
}
TEST(run_ends_although_a_handle_was_not_released) {
    EQ(run_with_test_allocator(keeps_a_handle, NULL), 7);
}

static int64_t leaves_streams_open(casync_loop *where, void *arg) {
    static casync_stream streams[2];
    static casync_server server;
    casync_listen_desc desc = ZERO;
    int ends[2];
    (void)arg;
    make_socketpair(ends);
    EQ(casync_stream_open(where, &streams[0], ends[0], NULL, NULL), 0);
    EQ(casync_stream_open(where, &streams[1], ends[1], NULL, NULL), 0);
    desc.host = "127.0.0.1";
    EQ(casync_listen(where, &server, &desc), 0);
    return 0;
}
TEST(run_closes_what_is_open) { EQ(run_with_test_allocator(leaves_streams_open, NULL), 0); }

static int64_t runs_inside_run(casync_loop *where, void *arg) {
    casync_loop *inner = casync_get_running_loop();
    (void)arg;
    PTR_EQ(inner, where);
    EQ(casync_run(returns_arg, (void *)(intptr_t)4), 4);
    PTR_EQ(casync_get_running_loop(), where);
    return casync_sleep(CASYNC_MS(1));
}
TEST(run_inside_run) { EQ(run_with_test_allocator(runs_inside_run, NULL), 0); }

static void nothing_to_do(void *arg) { (void)arg; }
static int64_t leaves_a_timer(casync_loop *where, void *arg) {
    static casync_timer timer;
    static casync_hook hook;
    (void)arg;
    EQ(casync_hook_start(where, &hook, CASYNC_HOOK_AFTER_POLL, 0, nothing_to_do, NULL), 0);
    return casync_call_later(where, &timer, CASYNC_SECONDS(1000), never, NULL);
}
TEST(run_drops_what_main_left) { EQ(run_with_test_allocator(leaves_a_timer, NULL), 0); }

/* >> overflows: each in a child, which ends by the fault --------------------------------------- */

static int64_t use_stack(int64_t kib) {
    volatile char frame[1024];
    size_t i;
    for (i = 0; i < sizeof frame; i++) frame[i] = (char)kib;
    return kib <= 1 ? 0 : use_stack(kib - 1) + frame[0] - (char)kib;
}
static int64_t overflows(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return use_stack(80); /* of 64 */
}
static int64_t overflows_by_name(casync_loop *where, void *name) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    desc.coroutine = overflows;
    desc.name = (const char *)name;
    EQ(casync_spawn_with(where, &desc, &task), 0);
    return casync_join(task);
}

static void expect_report(void (*program)(void), const char *report) {
    if (CASYNC__COMPILER_SANITIZED) SKIP("overflows are the sanitizer's");
    EQ(run_in_child(program), -SIGSEGV);
    EXPECT(strstr(words_on_stderr, report));
    EQ(times_on_stderr("casync: stack overflow"), 1);
}
static void expect_no_report(void (*program)(void)) {
    if (CASYNC__COMPILER_SANITIZED) SKIP("overflows are the sanitizer's");
    EQ(run_in_child(program), -SIGSEGV);
    EQ(times_on_stderr("casync"), 0);
}

static void run_overflow(void) { EXPECT(casync_run(overflows, NULL) < 0); }
TEST(an_overflow_of_main_is_reported) {
    expect_report(run_overflow, "casync: stack overflow in task main;");
}

static void run_overflow_by_name(void) { casync_run(overflows_by_name, WORD("greedy")); }
TEST(an_overflow_is_reported_with_the_tasks_name) {
    expect_report(run_overflow_by_name, "casync: stack overflow in task greedy;");
}

static void *run_in_thread(void *name) {
    casync_run(overflows_by_name, name);
    return NULL;
}
static void run_overflow_in_thread(void) { join_thread(start_thread(run_in_thread, WORD("far"))); }
TEST(an_overflow_in_a_thread_is_reported) {
    expect_report(run_overflow_in_thread, "casync: stack overflow in task far;");
}

static int64_t runs_inside(casync_loop *where, void *name) {
    (void)where;
    return casync_run(overflows_by_name, name);
}
static void run_overflow_inside(void) { casync_run(runs_inside, WORD("inner")); }
TEST(an_overflow_in_a_run_inside_a_run_is_reported) {
    expect_report(run_overflow_inside, "casync: stack overflow in task inner;");
}

static int64_t does_nothing(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return 0;
}
static int64_t overflows_after_a_run(casync_loop *where, void *name) {
    EQ(casync_run(does_nothing, NULL), 0);
    return overflows_by_name(where, name);
}
static void run_overflow_after_inner(void) { casync_run(overflows_after_a_run, WORD("outer")); }
TEST(an_overflow_after_a_run_inside_a_run_is_reported) {
    expect_report(run_overflow_after_inner, "casync: stack overflow in task outer;");
}

static void run_overflow_unreported(void) {
    casync_loop_desc desc = ZERO;
    desc.no_overflow_report = true;
    casync_run_with(&desc, overflows, NULL);
}
TEST(an_overflow_is_not_reported_if_that_is_not_wanted) {
    expect_no_report(run_overflow_unreported);
}

static void run_overflow_as_guest(void) {
    casync_loop_desc desc = ZERO;
    desc.guest = true;
    casync_run_with(&desc, overflows, NULL);
}
TEST(an_overflow_in_a_guest_is_not_reported) { expect_no_report(run_overflow_as_guest); }

static void run_overflow_after_run(void) {
    EQ(casync_run(does_nothing, NULL), 0);
    open_loop(CASYNC_CLOCK_VIRTUAL);
    (void)run_task(overflows, NULL);
}
TEST(an_overflow_after_a_run_is_not_reported) { expect_no_report(run_overflow_after_run); }

/* >> what it leaves behind --------------------------------------------------------------------- */

typedef struct {
    struct sigaction segv, bus;
    stack_t stack;
} fault_state;

static fault_state faults_now(void) {
    fault_state state;
    memset(&state, 0, sizeof state);
    EQ(sigaction(SIGSEGV, NULL, &state.segv), 0);
    EQ(sigaction(SIGBUS, NULL, &state.bus), 0);
    EQ(sigaltstack(NULL, &state.stack), 0);
    return state;
}

/* The C library adds a flag of its own, SA_RESTORER, to whatever is set. */
static bool are_same(const struct sigaction *x, const struct sigaction *y) {
    return x->sa_handler == y->sa_handler && ((x->sa_flags ^ y->sa_flags) & ~0x04000000) == 0;
}
static void expect_faults(const fault_state *expected) {
    fault_state now = faults_now();
    EXPECT(are_same(&now.segv, &expected->segv));
    EXPECT(are_same(&now.bus, &expected->bus));
    EQ(now.stack.ss_flags & SS_DISABLE, expected->stack.ss_flags & SS_DISABLE);
    if (!(now.stack.ss_flags & SS_DISABLE)) PTR_EQ(now.stack.ss_sp, expected->stack.ss_sp);
}

static fault_state before, during;
static int64_t looks_at_faults(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    during = faults_now();
    return 0;
}
static void look_at_run(void) {
    before = faults_now();
    EQ(casync_run(looks_at_faults, NULL), 0);
    expect_faults(&before);
}

TEST(a_run_puts_actions_and_the_signal_stack_back) {
    look_at_run();
    if (CASYNC__COMPILER_SANITIZED) SKIP("overflows are the sanitizer's");
    EXPECT(!are_same(&during.segv, &before.segv));
    EXPECT(!are_same(&during.bus, &before.bus));
    EXPECT(!(during.stack.ss_flags & SS_DISABLE));
}

static char own_stack[65536];
static void set_own_stack(void) {
    stack_t stack = ZERO;
    stack.ss_sp = own_stack;
    stack.ss_size = sizeof own_stack;
    EQ(sigaltstack(&stack, NULL), 0);
}
TEST(a_run_leaves_a_signal_stack_that_is_there) {
    set_own_stack();
    look_at_run();
    PTR_EQ(during.stack.ss_sp, own_stack);
}

static void own_handler(int signum) { (void)signum; }
static void set_own_handler(int signum) {
    struct sigaction action = ZERO;
    action.sa_handler = own_handler;
    EQ(sigaction(signum, &action, NULL), 0);
}
TEST(a_run_leaves_a_handler_that_is_there) {
    set_own_handler(SIGSEGV);
    look_at_run();
    EXPECT(during.segv.sa_handler == own_handler);
    EXPECT(are_same(&during.bus, &before.bus));
}
TEST(a_run_leaves_faults_that_are_ignored) {
    EXPECT(signal(SIGSEGV, SIG_IGN) != SIG_ERR);
    look_at_run();
    EXPECT(during.segv.sa_handler == SIG_IGN);
}
TEST(a_run_puts_a_handler_of_bus_errors_back) {
    set_own_handler(SIGBUS);
    look_at_run();
    EXPECT(faults_now().bus.sa_handler == own_handler);
}

static int64_t sets_a_handler(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    set_own_handler(SIGSEGV);
    return 0;
}
TEST(a_run_leaves_a_handler_that_came_meanwhile) {
    EQ(casync_run(sets_a_handler, NULL), 0);
    EXPECT(faults_now().segv.sa_handler == own_handler);
}

TEST(a_report_that_was_asked_for_outlives_a_run) {
    EQ(casync_report_overflow(), 0);
    look_at_run();
    EXPECT(are_same(&during.segv, &before.segv));
    EQ(casync_run(does_nothing, NULL), 0);
    expect_faults(&before);
}

static int64_t runs_and_looks(casync_loop *where, void *arg) {
    fault_state outer = faults_now();
    (void)where, (void)arg;
    EQ(casync_run(looks_at_faults, NULL), 0);
    expect_faults(&outer);
    return 0;
}
TEST(a_run_inside_a_run_puts_things_back) {
    before = faults_now();
    EQ(casync_run(runs_and_looks, NULL), 0);
    expect_faults(&before);
}

static int asked[2], answered[2];
static int64_t waits_for_a_byte(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    put_byte(answered[1]);
    EQ(casync_wait_readable(asked[0]), 0);
    return 0;
}
static void *run_until_asked(void *arg) {
    fault_state mine = faults_now();
    (void)arg;
    EQ(casync_run(waits_for_a_byte, NULL), 0);
    EQ(faults_now().stack.ss_flags & SS_DISABLE, mine.stack.ss_flags & SS_DISABLE);
    return NULL;
}
TEST(runs_in_two_threads_put_things_back_when_both_are_over) {
    pthread_t thread;
    struct pollfd answer;
    fault_state now;
    before = faults_now();
    make_pipe(asked);
    make_pipe(answered);
    thread = start_thread(run_until_asked, NULL);
    answer.fd = answered[0];
    answer.events = POLLIN;
    EQ(poll(&answer, 1, -1), 1);
    EQ(casync_run(looks_at_faults, NULL), 0);
    now = faults_now();
    EXPECT(are_same(&now.segv, &during.segv)); /* the other needs it */
    put_byte(asked[1]);
    join_thread(thread);
    expect_faults(&before);
}

/* >> an end that takes long -------------------------------------------------------------------- */

static int turns_to_go;
static time_t seconds_a_turn;

/* Takes no notice of being cancelled, while time goes by. */
static int64_t is_stubborn(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    for (; turns_to_go > 0; turns_to_go--) {
        casync_ignore(casync_sleep(0));
        standing_time.tv_sec += seconds_a_turn;
    }
    return 0;
}
static int64_t leaves_a_stubborn_task(casync_loop *where, void *arg) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    (void)arg;
    desc.coroutine = is_stubborn;
    desc.name = "stubborn";
    EQ(casync_spawn_with(where, &desc, &task), 0);
    casync_task_release(task);
    return 0;
}
static void run_stubborn(void) {
    stop_clock();
    turns_to_go = 10;
    EQ(casync_run(leaves_a_stubborn_task, NULL), 0);
}

#define TAKES_LONG "casync: the end of casync_run takes more than a second"

TEST(an_end_of_more_than_a_second_tells_once_what_it_waits_for) {
    seconds_a_turn = 1;
    EQ(run_in_child(run_stubborn), 0);
    EQ(times_on_stderr(TAKES_LONG), 1);
    EQ(times_on_stderr("task stubborn"), 1);
    EXPECT(strstr(words_on_stderr, TAKES_LONG) < strstr(words_on_stderr, "task stubborn"));
}
TEST(a_short_end_tells_nothing) {
    seconds_a_turn = 0;
    EQ(run_in_child(run_stubborn), 0);
    STR_EQ(words_on_stderr, "");
}

static int64_t is_long_but_ends_by_itself(casync_loop *where, void *arg) {
    turns_to_go = 10;
    return is_stubborn(where, arg);
}
static void run_long(void) {
    stop_clock();
    EQ(casync_run(is_long_but_ends_by_itself, NULL), 0);
}
TEST(a_long_run_with_a_short_end_tells_nothing) {
    seconds_a_turn = 1;
    EQ(run_in_child(run_long), 0);
    STR_EQ(words_on_stderr, "");
}

static void run_stubborn_in_virtual_time(void) {
    casync_loop_desc desc = ZERO;
    desc.clock = CASYNC_CLOCK_VIRTUAL;
    EQ(casync_run_with(&desc, leaves_a_stubborn_task, NULL), 0);
}
static int64_t sleeps_for_long(casync_loop *where, void *arg) {
    (void)arg;
    return sleeps_on(where, MILLISECONDS(5000));
}
static int64_t leaves_a_sleeper(casync_loop *where, void *arg) {
    (void)arg;
    EQ(casync_spawn_detached(where, sleeps_for_long, NULL), 0);
    return casync_sleep(0);
}
static void run_sleeper_in_virtual_time(void) {
    casync_loop_desc desc = ZERO;
    desc.clock = CASYNC_CLOCK_VIRTUAL;
    EQ(casync_run_with(&desc, leaves_a_sleeper, NULL), 0);
}
TEST(seconds_that_are_not_real_tell_nothing) {
    EQ(run_in_child(run_stubborn_in_virtual_time), 0);
    STR_EQ(words_on_stderr, "");
    EQ(run_in_child(run_sleeper_in_virtual_time), 0);
    STR_EQ(words_on_stderr, "");
}

/* The end waits for a descriptor, in real time: the text comes while it does, and then it is let
   go. */
static int64_t waits_for_a_byte_whatever_comes(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    while (casync_wait_readable(asked[0]) < 0) continue;
    return 0;
}
static int64_t leaves_one_that_waits(casync_loop *where, void *arg) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    (void)arg;
    desc.coroutine = waits_for_a_byte_whatever_comes;
    desc.name = "deaf";
    EQ(casync_spawn_with(where, &desc, &task), 0);
    casync_task_release(task);
    return casync_sleep(0);
}
static void *let_go_when_told(void *arg) {
    FILE *told = fdopen(answered[0], "r");
    char line[512];
    (void)arg;
    EXPECT(told && fgets(line, sizeof line, told));
    EXPECT(strstr(line, TAKES_LONG));
    EXPECT(fgets(line, sizeof line, told));
    EXPECT(strstr(line, "task deaf"));
    EXPECT(strstr(line, "descriptor"));
    put_byte(asked[1]);
    EXPECT(!fgets(line, sizeof line, told));
    fclose(told);
    return NULL;
}
TEST(what_a_long_end_waits_for_is_told_while_it_waits) {
    pthread_t thread;
    make_pipe(asked);
    EQ(pipe(answered), 0);
    EXPECT(dup2(answered[1], STDERR_FILENO) >= 0);
    close(answered[1]);
    thread = start_thread(let_go_when_told, NULL);
    EQ(casync_run(leaves_one_that_waits, NULL), 0);
    close(STDERR_FILENO);
    join_thread(thread);
}

/* >> tasks that nobody asked ------------------------------------------------------------------- */

static int64_t fails_at_once(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return -EIO;
}
static int64_t forgets_a_handle(casync_loop *where, void *arg) {
    (void)arg;
    EXPECT(casync_spawn(where, fails_at_once, NULL) != NULL);
    EQ(casync_sleep(0), 0);
    EQ(casync_sleep(0), 0);
    SAID("");
    return 0;
}
static int64_t spawns_detached(casync_loop *where, void *arg) {
    (void)arg;
    EQ(casync_spawn_detached(where, fails_at_once, NULL), 0);
    return casync_sleep(0);
}
static void expect_one_report_by(casync_coroutine coroutine) {
    casync_loop_desc desc = ZERO;
    desc.allocator = test_allocator();
    desc.exception_handler = say_exception;
    EQ(casync_run_with(&desc, coroutine, NULL), 0);
    SAID("exception=-5");
    EQ(memory.live, 0);
}
TEST(a_failure_that_nobody_asked_about_is_told_when_a_run_ends) {
    expect_one_report_by(forgets_a_handle);
}
TEST(a_failure_of_a_detached_task_is_told) { expect_one_report_by(spawns_detached); }
