/* >> stacks: their sizes, guards and overflows, and that they are used again. */
#include "tasks_fixture.h"

/* >> stacks ----------------------------------------------------------------------------------- */

static int64_t refusing_mprotect(void *page, size_t size, int rights) {
    (void)page, (void)size, (void)rights;
    return -ENOMEM;
}
static int64_t refusing_map(size_t size) {
    return maps_left-- > 0 ? casync__direct_map(size) : -ENOMEM;
}

static void refuse_mprotect(void) { casync_syscalls.mprotect = refusing_mprotect; }

/* Uses this many KiB of stack and then waits, or returns 0. */
static int64_t use_stack(int64_t kib, int64_t sleep) {
    volatile char frame[1024];
    int64_t result;
    size_t i;
    for (i = 0; i < sizeof frame; i++) frame[i] = (char)kib;
    if (kib <= 1) return sleep ? casync_sleep(sleep) : 0;
    result = use_stack(kib - 1, sleep);
    return result + frame[0] - (char)kib;
}
static int64_t uses_stack(casync_loop *where, void *kib) {
    (void)where;
    return use_stack((intptr_t)kib, CASYNC_MS(1));
}

static casync_task *spawn_sized(casync_coroutine coroutine, int kib, size_t stack_size) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    desc.coroutine = coroutine;
    desc.arg = (void *)(intptr_t)kib;
    desc.stack_size = stack_size;
    desc.name = "sized";
    EQ(casync_spawn_with(&loop, &desc, &task), 0);
    return task;
}

TEST(stacks_have_the_size_that_was_asked_for) {
    static const int kib[] = {1, 16, 64, 100, 1024, 4096};
    casync_task *tasks[6];
    int i;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    for (i = 0; i < 6; i++)
        tasks[i] = spawn_sized(uses_stack, SANITIZED ? 1 : kib[i] / 2, (size_t)kib[i] * 1024);
    for (i = 0; i < 6; i++) {
        EQ(casync_run_until_complete(&tasks[i]->future), 0);
        casync_task_release(tasks[i]);
    }
    close_loop();
}

TEST(stack_used_is_the_most_that_was_used) {
    casync_task *little, *much;
    actor *a = &actors[0];
    open_loop_and_gate();
    if (SANITIZED) SKIP("frames have another size here");
    start_at_gate(a, false);
    EQ(casync_task_stack_used(a->task), 0);
    little = spawn_sized(uses_stack, 1, 0);
    much = spawn_sized(uses_stack, 40, 0);
    turns(1);
    EXPECT(casync_task_stack_used(little) >= 1024);
    EXPECT(casync_task_stack_used(little) < 20 * 1024);
    EXPECT(casync_task_stack_used(much) >= 40 * 1024);
    EXPECT(casync_task_stack_used(much) <= 64 * 1024);
    EQ(casync_run_until_complete(&much->future), 0);
    EXPECT(casync_task_stack_used(much) >= 40 * 1024); /* also when it is done */
    EQ(casync_run_until_complete(&little->future), 0);
    casync_task_release(little);
    casync_task_release(much);
    close_loop();
}

TEST(stacks_are_used_again) {
    int64_t allocations;
    int i;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(run_task(sleeps, NULL), 0);
    allocations = memory.allocations;
    for (i = 0; i < 1000; i++) EQ(run_task(sleeps, NULL), 0);
    EQ(memory.allocations, allocations);
    close_loop();
}

/* Waves of tasks: slabs come and go, and whatever is left is found again. */
TEST(stacks_in_waves) {
    enum { MOST = 600 };
    static casync_task *tasks[MOST];
    int wave, i, kept = 0;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    for (wave = 0; wave < (test_quick ? 3 : 20); wave++) {
        int count = 1 + (int)random_below(MOST);
        for (i = kept; i < count; i++) tasks[i] = spawn(sleeps, MILLISECONDS(random_below(3)));
        if (count > kept) kept = count;
        EQ(casync_run_until_idle(&loop), 0);
        for (i = 0; i < kept;) {
            if (random_below(4) == 0) {
                i++;
                continue;
            }
            casync_task_release(tasks[i]);
            tasks[i] = tasks[--kept];
        }
    }
    while (kept > 0) casync_task_release(tasks[--kept]);
    close_loop();
}

/* -- when the kernel refuses -- */

static int64_t spawns_and_joins(casync_loop *where, void *arg) {
    casync_task *tasks[40]; /* more than a slab has */
    int i;
    (void)where, (void)arg;
    for (i = 0; i < 40; i++) {
        tasks[i] = casync_spawn(&loop, sleeps, MILLISECONDS(1));
        if (!tasks[i]) break;
    }
    while (i > 0) EQ(casync_join(tasks[--i]), 1);
    return 0;
}

static void run_some_tasks(void) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    EQ(run_task(spawns_and_joins, NULL), 0);
    close_loop();
}

TEST(kernel_without_huge_pages) {
    advice_refused = MADV_NOHUGEPAGE;
    casync_syscalls.madvise = refusing_madvise;
    run_some_tasks();
}
TEST(kernel_without_guard_install) {
    refuse_guard_install();
    run_some_tasks();
    run_some_tasks();
    EQ(casync__process.mprotect_guards, 0); /* the budget was given back */
}
TEST(kernel_without_guard_install_and_mprotect) {
    refuse_guard_install();
    refuse_mprotect();
    run_some_tasks();
    EQ(casync__process.mprotect_guards, 0);
}
TEST(kernel_without_memory_for_stacks) {
    casync_task_desc desc = ZERO;
    casync_task *task = NULL;
    open_loop(CASYNC_CLOCK_VIRTUAL);
    casync_syscalls.map = refusing_map;
    maps_left = 0;
    desc.coroutine = sleeps;
    EQ(casync_spawn_with(&loop, &desc, &task), -ENOMEM);
    PTR_EQ(task, NULL);
    maps_left = 1;
    EQ(run_task(spawns_and_joins, NULL), 0);
    close_loop();
}

/* -- overflow: each case in a child, whose words on stderr are looked at -- */

static volatile int64_t overflow_in_kib = 80; /* of 64 */

static int64_t overflows(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return use_stack(overflow_in_kib, CASYNC_MS(1));
}
static void overflow(void) {
    open_loop(CASYNC_CLOCK_VIRTUAL);
    (void)spawn_sized(overflows, 0, 0);
    (void)casync_run_until_idle(&loop);
}
static void overflow_reported(void) {
    EQ(casync_report_overflow(), 0);
    EQ(casync_report_overflow(), 0); /* once more does no harm */
    overflow();
}
static void expect_overflow_message(void) {
    int status = run_in_child(overflow_reported);
    EXPECT(status != 0);
    if (!SANITIZED) EQ(status, -SIGSEGV);
    EXPECT(strstr(words_on_stderr, "casync: stack overflow in task sized;"));
}

TEST(overflow_faults) {
    EXPECT(run_in_child(overflow) != 0);
    skip_under_qemu("qemu-user says a word of its own");
    if (!SANITIZED) STR_EQ(words_on_stderr, "");
}
TEST(overflow_is_reported_if_asked_for) { expect_overflow_message(); }
TEST(overflow_is_reported_without_guard_install) {
    refuse_guard_install();
    expect_overflow_message();
}

/* Without any guard page the pattern at the end of the stack tells, when the task waits. Frames are
   larger than 1 KiB by an unknown amount: go deeper step by step. */
static void overflow_a_little(void) {
    for (overflow_in_kib = 32; overflow_in_kib < 80; overflow_in_kib++) {
        open_loop(CASYNC_CLOCK_VIRTUAL);
        (void)spawn_sized(overflows, 0, 0);
        (void)casync_run_until_idle(&loop);
    }
}
TEST(overflow_without_guards_is_found) {
#if defined(CASYNC__SWITCH_UCONTEXT)
    SKIP("a saved ucontext is larger than the step, and has holes that leave the pattern alone");
#endif
    if (SANITIZED) SKIP("frames have another size here");
    refuse_guard_install();
    refuse_mprotect();
    EQ(run_in_child(overflow_a_little), -SIGABRT);
    EXPECT(strstr(words_on_stderr, "casync: task sized used more than its stack of 65536 bytes"));
}

static int64_t refusing_sigaltstack(const stack_t *stack, stack_t *old) {
    return stack ? -ENOMEM : casync__direct_sigaltstack(stack, old);
}
static int64_t refusing_sigaction(int signum, const struct sigaction *action,
                                  struct sigaction *old) {
    (void)signum, (void)action, (void)old;
    return -EINVAL;
}
TEST(report_of_overflows_that_the_kernel_refuses) {
    if (SANITIZED) SKIP("the sanitizer has a signal stack already");
    casync_syscalls.map = refusing_map;
    EQ(casync_report_overflow(), -ENOMEM);
    casync_syscalls.map = casync__direct_map;
    casync_syscalls.sigaltstack = refusing_sigaltstack;
    EQ(casync_report_overflow(), -ENOMEM);
    casync_syscalls.sigaltstack = casync__direct_sigaltstack;
    casync_syscalls.sigaction = refusing_sigaction;
    EQ(casync_report_overflow(), -EINVAL);
    casync_syscalls.sigaction = casync__direct_sigaction;
    EQ(casync_report_overflow(), 0);
}

static void dump_on_signal(void) {
    casync_signal watcher = ZERO;
    open_loop_and_gate();
    EQ(casync_dump_on_signal(&loop, &watcher, SIGUSR1), 0);
    EXPECT(!casync_loop_alive(&loop)); /* the watcher keeps no loop running */
    start_at_gate(&actors[0], false);
    EQ(casync_task_set_name(actors[0].task, "dumped"), 0);
    EQ(raise(SIGUSR1), 0);
    turns(3); /* it is heard, told to the loop, and dumped */
    EQ(casync_signal_stop(&watcher), 1);
}
TEST(dump_comes_with_a_signal) {
    casync_signal watcher = ZERO;
    EQ(run_in_child(dump_on_signal), 0);
    EXPECT(strstr(words_on_stderr, "task dumped awaits future "));
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_dump_on_signal(&loop, &watcher, 0), -EINVAL);
    close_loop();
}

static void segfault(void) {
    EQ(casync_report_overflow(), 0);
    (void)raise(SIGSEGV);
}
static void segfault_in_task(void) {
    EQ(casync_report_overflow(), 0);
    open_loop(CASYNC_CLOCK_VIRTUAL);
    (void)kill(getpid(), SIGSEGV);
}
static void exit_with_7(int signum) {
    (void)signum;
    _exit(7);
}
static void overflow_with_a_handler(void) {
    struct sigaction action = ZERO;
    action.sa_handler = exit_with_7;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    overflow_reported();
}
TEST(other_faults_go_where_they_went) {
    int status = run_in_child(segfault);
    EXPECT(status != 0);
    EXPECT(!strstr(words_on_stderr, "casync"));
    EXPECT(run_in_child(segfault_in_task) != 0);
    EXPECT(!strstr(words_on_stderr, "casync"));
    status = run_in_child(overflow_with_a_handler);
    if (!under_valgrind()) EQ(status, 7); /* for which the overflow is an error of its own */
    EXPECT(strstr(words_on_stderr, "casync: stack overflow in task sized;"));
}

/* >> many ------------------------------------------------------------------------------------- */

TEST(many_live_stackful_tasks) {
    int i, count = test_quick || SANITIZED ? 1000 : 100000;
    int64_t sum = 0;
    casync_task **tasks = (casync_task **)calloc((size_t)count, sizeof *tasks);
    open_loop_and_gate();
    for (i = 0; i < count; i++) {
        casync_task_desc desc = ZERO;
        desc.coroutine = awaits;
        desc.arg = &gate;
        desc.stack_size = 16384;
        EQ(casync_spawn_with(&loop, &desc, &tasks[i]), 0);
    }
    turns(1);
    EQ(casync_future_set_result(&gate, 3, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    for (i = 0; i < count; i++) {
        sum += casync_future_result(&tasks[i]->future);
        casync_task_release(tasks[i]);
    }
    EQ(sum, (int64_t)count * 3);
    free(tasks);
    close_loop();
}

static int64_t steps_through_the_gate(casync_task *task) {
    int64_t result;
    CASYNC_BEGIN(task);
    CASYNC_AWAIT(task, result, &gate);
    CASYNC_END(task, result);
}
TEST(many_live_stackless_tasks) {
    int i, count = test_quick ? 10000 : 1000000;
    int64_t sum = 0;
    casync_task *tasks = (casync_task *)calloc((size_t)count, sizeof *tasks);
    open_loop_and_gate();
    for (i = 0; i < count; i++) EQ(casync_task_start(&loop, &tasks[i], steps_through_the_gate), 0);
    turns(1);
    EQ(memory.allocations, 0);
    EQ(casync_future_set_result(&gate, 3, NULL), 0);
    EQ(casync_run_until_idle(&loop), 0);
    for (i = 0; i < count; i++) {
        sum += casync_future_result(&tasks[i].future);
        casync_future_close(&tasks[i].future);
    }
    EQ(sum, (int64_t)count * 3);
    free(tasks);
    close_loop();
}
