/* >> stacks & switch: a switch of stacks keeps everything that belongs to a task: registers,
   floating point, frames. */
#include "loop_fixture.h"

#include <alloca.h>

#if defined(__GNUC__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE
#endif

#ifdef CASYNC_NO_STACKFUL

static int64_t never_runs(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    EXPECT(!"without stacks this must not be called");
    return 0;
}

TEST(without_stacks_there_are_no_stackful_tasks) {
    casync_task_desc desc = ZERO;
    casync_task *task;
    desc.coroutine = never_runs;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_spawn_with(&loop, &desc, &task), -ENOSYS);
    EXPECT(!casync_spawn(&loop, never_runs, NULL));
    EQ(casync_run(never_runs, NULL), -ENOSYS);
    EQ(casync_sleep(0), -EPERM);
    EQ(casync_report_overflow(), -ENOSYS);
    close_loop();
}

static int64_t count_turns(casync_task *task) {
    static int64_t turns, woken;
    CASYNC_BEGIN(task);
    for (turns = 0; turns < 3; turns++) {
        CASYNC_YIELD(task, woken);
        EQ(woken, 0);
    }
    CASYNC_END(task, turns);
}

TEST(without_stacks_stackless_tasks_run) {
    casync_task task = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_task_start(&loop, &task, count_turns), 0);
    EQ(casync_run_until_complete(&task.future), 3);
    casync_future_close(&task.future);
    close_loop();
}

#else

#if defined(__GNUC__) && defined(__GLIBC__)
#include <unwind.h>
#endif

/* Tasks that run one after the other in an order that random pauses make. */

enum { TASKS = 20 };

static int switches_left; /* of all tasks together */

static void pause_task(void) {
    uint64_t turns = random_below(3) + 1;
    while (turns-- > 0) EQ(casync_sleep(0), 0);
    switches_left--;
}

/* Runs TASKS tasks, each with its number in arg, until all have ended. */
static void run_tasks(casync_coroutine coroutine) {
    casync_task *tasks[TASKS];
    intptr_t i;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    for (i = 0; i < TASKS; i++) {
        tasks[i] = casync_spawn(&loop, coroutine, (void *)i);
        EXPECT(tasks[i]);
    }
    EQ(casync_run_until_idle(&loop), 0);
    for (i = 0; i < TASKS; i++) {
        EQ(tasks[i]->future.result, i);
        casync_task_release(tasks[i]);
    }
    close_loop();
}

/* -- values that a function keeps, in registers as long as there are any -- */

/* Numbers that the compiler can neither know nor compute again, as it reads a volatile: it has to
   keep them. All reals, and sums of two, are exact as float too: i386 computes with more digits. */
static volatile uint64_t factor = 31;
NOINLINE static uint64_t number(uint64_t seed, uint64_t i) { return (seed << 32 | i) * factor; }
NOINLINE static double real(uint64_t seed, uint64_t i) {
    return (double)(seed % 10007 * factor + i) / 8;
}

NOINLINE static void keep_values(uint64_t seed, int depth) {
    uint64_t a = number(seed, 0), b = number(seed, 1), c = number(seed, 2), d = number(seed, 3);
    uint64_t e = number(seed, 4), f = number(seed, 5), g = number(seed, 6), h = number(seed, 7);
    uint64_t i = number(seed, 8), j = number(seed, 9), k = number(seed, 10), l = number(seed, 11);
    double p = real(seed, 0), q = real(seed, 1), r = real(seed, 2), s = real(seed, 3),
           t = real(seed, 4);
    double u = real(seed, 5), v = real(seed, 6), w = real(seed, 7), x = real(seed, 8),
           y = real(seed, 9);
    float n = (float)real(seed, 10), o = (float)real(seed, 11);
    long double z = (long double)real(seed, 12) / 4;
    pause_task();
    if (depth > 0) keep_values(seed + 100, depth - 1);
    pause_task();
    EXPECT(a == number(seed, 0) && b == number(seed, 1) && c == number(seed, 2) &&
           d == number(seed, 3));
    EXPECT(e == number(seed, 4) && f == number(seed, 5) && g == number(seed, 6) &&
           h == number(seed, 7));
    EXPECT(i == number(seed, 8) && j == number(seed, 9) && k == number(seed, 10) &&
           l == number(seed, 11));
    EXPECT(p == real(seed, 0) && q == real(seed, 1) && r == real(seed, 2) && s == real(seed, 3));
    EXPECT(t == real(seed, 4) && u == real(seed, 5) && v == real(seed, 6) && w == real(seed, 7));
    EXPECT(x == real(seed, 8) && y == real(seed, 9) && z == (long double)real(seed, 12) / 4);
    EXPECT(n == (float)real(seed, 10) && o == (float)real(seed, 11));
}

static int64_t keep_values_again_and_again(casync_loop *where, void *arg) {
    (void)where;
    while (switches_left > 0) keep_values((uint64_t)(intptr_t)arg * 1000000, (int)random_below(20));
    return (intptr_t)arg;
}

TEST(locals_survive_random_switches) {
    switches_left = test_quick ? 2000 : 20000;
    run_tasks(keep_values_again_and_again);
    EXPECT(switches_left <= 0);
}

/* A signal may interrupt a switch at every instruction, and its handler runs on the stack of the
   moment. */
static volatile sig_atomic_t alarms;
static volatile double from_handler;
static void on_alarm(int signum) {
    volatile char bytes[256];
    (void)signum;
    memset((void *)(uintptr_t)bytes, 0xff, sizeof bytes);
    from_handler = from_handler / 3 + 1;
    alarms = alarms + 1;
}

TEST(signals_may_interrupt_a_switch) {
    struct sigaction action = ZERO;
    struct itimerval often = ZERO;
    struct itimerval off = ZERO;
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    EQ(sigaction(SIGALRM, &action, NULL), 0);
    often.it_value.tv_usec = often.it_interval.tv_usec = 200;
    EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    while (alarms < (test_quick ? 20 : 200)) {
        switches_left = 500;
        run_tasks(keep_values_again_and_again);
    }
    EQ(setitimer(ITIMER_REAL, &off, NULL), 0);
}

/* -- functions of the C library that need the stack to be aligned, and variable arguments -- */

NOINLINE static void format(char *text, size_t size, const char *pattern, ...) {
    va_list args;
    va_start(args, pattern);
    pause_task();
    vsnprintf(text, size, pattern, args);
    va_end(args);
}

static int64_t print(casync_loop *where, void *arg) {
    char got[128], expected[128];
    int number_of_task = (int)(intptr_t)arg, i;
    (void)where;
    for (i = 0; i < 50; i++) {
        format(got, sizeof got, "%.4f %.3Lf %d %s %g %.1f", number_of_task + 0.25, 0.125L, i, "one",
               1e10, -3.5);
        snprintf(expected, sizeof expected, "%d.2500 0.125 %d one 1e+10 -3.5", number_of_task, i);
        STR_EQ(got, expected);
    }
    return (intptr_t)arg;
}

TEST(variable_arguments_and_printf_of_doubles) { run_tasks(print); }

/* -- frames of a size that is not known at compile time, and deep ones -- */

NOINLINE static int64_t descend(int depth, unsigned char byte) {
    size_t size = 1 + random_below(300), i;
    unsigned char *bytes = (unsigned char *)alloca(size);
    int64_t deepest = 0;
    memset(bytes, byte, size);
    if (random_below(4) == 0) pause_task();
    if (depth > 0) deepest = descend(depth - 1, (unsigned char)(byte * 5 + 1));
    if (random_below(4) == 0) pause_task();
    for (i = 0; i < size; i++) EQ(bytes[i], byte);
    return deepest + 1;
}

static int64_t descend_often(casync_loop *where, void *arg) {
    int i;
    (void)where;
    for (i = 0; i < 10; i++) {
        int depth = (int)random_below(60);
        EQ(descend(depth, (unsigned char)(intptr_t)arg), depth + 1);
    }
    return (intptr_t)arg;
}

TEST(alloca_and_recursion) { run_tasks(descend_often); }

static int64_t descend_deep(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    return descend(2000, 1);
}

TEST(a_large_stack_can_be_used_to_its_end) {
    casync_task_desc desc = ZERO;
    casync_task *task;
    desc.coroutine = descend_deep;
    desc.stack_size = 4 << 20;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_spawn_with(&loop, &desc, &task), 0);
    EQ(casync_run_until_complete(&task->future), 2001);
    EXPECT(casync_task_stack_used(task) > 2001 * 32);
    casync_task_release(task);
    close_loop();
}

/* What casync__fiber_suspend does, inlined here: so values of this function are in registers that
   no call would preserve. */
CASYNC__COMPILER_INLINE void suspend_inlined(casync_task *task) {
    casync__fiber *fiber = casync__fiber_of(task);
    casync__job_make_ready(&loop, &task->job);
    casync__fiber_before_suspend(fiber);
    casync__switch(&fiber->stack_pointer, fiber->loop_stack_pointer, fiber);
    casync__fiber_after_suspend(fiber);
}

#if defined(__GNUC__)

/* -- alignment and vectors -- */

typedef double vector __attribute__((vector_size(16)));

NOINLINE static bool is_aligned(const void *pointer, uintptr_t alignment) {
    return (uintptr_t)pointer % alignment == 0;
}

/* By address, as not every i386 can return a vector in a register. */
NOINLINE static const vector *some_vector(uint64_t seed, uint64_t i) {
    static vector v;
    v[0] = real(seed, i);
    v[1] = -real(seed, i + 1);
    return &v;
}

#define SAME(a, b) ((a)[0] == (b)[0] && (a)[1] == (b)[1])

NOINLINE static void keep_vectors(casync_task *task, uint64_t seed) {
    vector a = *some_vector(seed, 0), b = *some_vector(seed, 1), c = *some_vector(seed, 2);
    vector d = *some_vector(seed, 3), e = *some_vector(seed, 4), f = *some_vector(seed, 5);
    vector g = *some_vector(seed, 6), h = *some_vector(seed, 7), i = *some_vector(seed, 8);
    vector in_memory __attribute__((aligned(64))) = *some_vector(seed, 9);
    EXPECT(is_aligned(&in_memory, 64));
    suspend_inlined(task);
    a += b, c += d, e += f, g += h;
    b = *some_vector(seed, 0), b += *some_vector(seed, 1), d = *some_vector(seed, 2),
    d += *some_vector(seed, 3);
    f = *some_vector(seed, 4), f += *some_vector(seed, 5), h = *some_vector(seed, 6),
    h += *some_vector(seed, 7);
    EXPECT(SAME(a, b) && SAME(c, d) && SAME(e, f) && SAME(g, h));
    EXPECT(SAME(i, *some_vector(seed, 8)) && SAME(in_memory, *some_vector(seed, 9)));
}

static int64_t keep_vectors_often(casync_loop *where, void *arg) {
    int i;
    for (i = 0; i < 500; i++) keep_vectors(where->task, (uint64_t)(intptr_t)arg);
    return (intptr_t)arg;
}

TEST(vectors_survive_an_inlined_switch) { run_tasks(keep_vectors_often); }

#if defined(__GLIBC__)

/* -- the end of a stack -- */

static _Unwind_Reason_Code count_frame(struct _Unwind_Context *context, void *arg) {
    (void)context;
    return ++*(int *)arg < 1000 ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static int64_t unwind(casync_loop *where, void *arg) {
    int frames = 0;
    (void)where;
    pause_task();
    _Unwind_Backtrace(count_frame, &frames);
    EXPECT(frames < 20); /* it ends at the bottom of the task's stack, and does not go on to the
                            loop's */
    return (intptr_t)arg;
}

TEST(a_backtrace_ends_with_the_task) { run_tasks(unwind); }

#endif

#endif

/* -- errno, and exceptions of C++ -- */

static int64_t expect_errno(casync_loop *where, void *arg) {
    (void)arg;
    EQ(errno, EDOM);
    errno = ERANGE;
    suspend_inlined(where->task);
    return 7;
}

/* Runs the task until it suspends, with nothing of the loop's between. */
static void resume_with_errno(void *arg) {
    casync_task *task = (casync_task *)arg;
    casync__fiber *fiber = casync__fiber_of(task);
    casync_job_cancel(&task->job);
    loop.task = task;
    errno = EDOM;
    casync__fiber_before_resume(fiber);
    casync__switch(&fiber->loop_stack_pointer, fiber->stack_pointer, fiber);
    casync__fiber_after_resume(fiber);
    EQ(errno, ERANGE);
    loop.task = NULL;
}

TEST(a_switch_leaves_errno_alone) {
    casync_task *task;
    casync_job job = ZERO;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_call_soon(&loop, &job, resume_with_errno, NULL), 0);
    task = casync_spawn(&loop, expect_errno, NULL);
    EXPECT(task);
    job.arg = task;
    EQ(casync_run_until_complete(&task->future), 7);
    casync_task_release(task);
    close_loop();
}

#if defined(__cplusplus)

NOINLINE static void throw_from(int depth, int value) {
    pause_task();
    if (depth == 0) throw value;
    throw_from(depth - 1, value);
    pause_task();
}

static int64_t throw_and_catch(casync_loop *where, void *arg) {
    int i, caught;
    (void)where;
    for (i = 0; i < 50; i++) {
        caught = -1;
        try {
            throw_from((int)random_below(10), i);
        } catch (int value) {
            caught = value;
        }
        EQ(caught, i);
        pause_task();
    }
    return (intptr_t)arg;
}

TEST(exceptions_are_caught_within_a_task) { run_tasks(throw_and_catch); }

#endif

#endif /* CASYNC_NO_STACKFUL */
