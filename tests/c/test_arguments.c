/* What every public function answers to NULL, and to a zeroed struct of its kind: an error, or
   nothing, false, 0 or NULL where it has no result. The cases name every function that the header
   declares. */
#include "support.h"

/* >> cases ------------------------------------------------------------------------------------ */

/* Answers that are no number: an error of whatever kind; an error, 0, false or NULL; and any, as
   long as it comes. */
#define AN_ERROR (INT64_MIN + 1)
#define NO_RESULT (INT64_MIN + 2)
#define ANYTHING (INT64_MIN + 3)

/* What a future says that is not failed. */
#define NO_FUTURE INT64_MAX
#define PENDING (INT64_MAX - 1)

#define FUNCTIONS_MAX 400

/* The cases run one after the other in a child, which notes where it is: when a case ends it,
   another child goes on behind. So a crash is one line of many. */
static struct {
    int number;     /* of the case that runs */
    int first;      /* the first case to run */
    int failed;     /* cases that were not answered as they should be */
    char call[200]; /* the case that runs, in words */
} * progress;

/* A zeroed struct of each kind, anew for each case. */
static struct {
    casync_loop loop;
    casync_loop_desc loop_desc;
    casync_job job;
    casync_timer timer;
    casync_hook hook;
    casync_future future;
    casync_op op;
    casync_framing framing;
    casync_watcher watcher;
    casync_signal signal;
    casync_outbuf outbuf;
    casync_task task;
    casync_task_desc task_desc;
    casync_timer_op timer_op;
    casync_context_var var;
    casync_generator generator;
    casync_waiter waiters[2];
    casync_wait_set set;
    casync_completion completion;
    casync_shielded shielded;
    casync_timeout timeout;
    casync_task_group group;
    casync_event event;
    casync_lock lock;
    casync_rwlock rwlock;
    casync_condition condition;
    casync_semaphore semaphore;
    casync_barrier barrier;
    casync_wait_group wait_group;
    casync_once once;
    casync_queue queue;
    casync_address address;
    casync_stream stream, other_stream;
    casync_connect_desc connect_desc;
    casync_filter filter;
    casync_listen_desc listen_desc;
    casync_server server;
    casync_datagram datagram;
    casync_datagram_desc datagram_desc;
    casync_pool pool;
    casync_metrics metrics;
    /* what is asked for beside them */
    casync_op the_op;
    casync_span span;
    casync_task *task_made;
    casync_future *future_found;
    void *item;
    const void *data;
    char text[CASYNC_ADDRESS_TEXT];
} zero;

static struct {
    char name[64];
    bool has_case;
} declared[FUNCTIONS_MAX];
static int declared_count;
static bool only_naming; /* the cases do not run, but say which functions they are about */

static void name_case(const char *function) {
    int i;
    for (i = 0; i < declared_count; i++)
        if (strcmp(declared[i].name, function) == 0) declared[i].has_case = true;
}

/* Is it this child's turn to run the next case? */
static bool begins(const char *function, const char *arguments) {
    if (only_naming) name_case(function);
    if (only_naming || ++progress->number < progress->first) return false;
    snprintf(progress->call, sizeof progress->call, "%s%s", function, arguments);
    memset(&zero, 0, sizeof zero);
    return true;
}

static void wrong(int line, const char *expected, int64_t got) {
    printf("# %s:%d: %s: expected %s, got %" PRId64 "\n", __FILE__, line, progress->call, expected,
           got);
    progress->failed++;
}

static void answered(int line, int64_t got, int64_t expected) {
    char number[32];
    if (expected == ANYTHING || (expected == AN_ERROR && got < 0) ||
        (expected == NO_RESULT && got <= 0))
        return;
    if (expected == AN_ERROR || expected == NO_RESULT) {
        wrong(line, expected == AN_ERROR ? "an error" : "no result", got);
        return;
    }
    snprintf(number, sizeof number, "%" PRId64, expected);
    if (got != expected) wrong(line, number, got);
}

static int64_t answer_of(casync_future *future) {
    if (!future) return NO_FUTURE;
    return casync_future_done(future) ? casync_future_result(future) : PENDING;
}

/* A future has no place without its operation: there is none, or a failed one. */
static int64_t answer_without_op(casync_future *future) {
    return future ? answer_of(future) : -EINVAL;
}

#define NUMBER(function, arguments, expected)                                                      \
    if (begins(#function, #arguments)) answered(__LINE__, (int64_t)function arguments, expected)
#define NOTHING(function, arguments)                                                               \
    if (begins(#function, #arguments)) function arguments
#define POINTER(function, arguments)                                                               \
    if (begins(#function, #arguments)) answered(__LINE__, function arguments != NULL, 0)
#define FUTURE(function, arguments, expected)                                                      \
    if (begins(#function, #arguments)) answered(__LINE__, answer_of(function arguments), expected)
#define WITHOUT_OP(function, arguments)                                                            \
    if (begins(#function, #arguments))                                                             \
    answered(__LINE__, answer_without_op(function arguments), AN_ERROR)
/* Whatever it answers. */
#define CALLED(function, arguments)                                                                \
    if (begins(#function, #arguments)) (void)function arguments
/* Has no argument that could be NULL. */
#define NAMED(function) (void)begins(#function, "")

/* >> functions that the cases hand over ------------------------------------------------------- */

static int64_t returns_zero(casync_loop *where, void *arg) { return (void)where, (void)arg, 0; }
static int64_t step(casync_task *task) { return (void)task, 0; }
static int64_t in_a_thread(void *arg, void **ptr) { return (void)arg, (void)ptr, 0; }
static void visit(int kind, void *object, void *arg) { (void)kind, (void)object, (void)arg; }
static char byte[1];

/* >> the cases, by the header's sections; `loop` is an open one ------------------------------- */

static void clock_and_loop(void) {
    NAMED(casync_strerror);
    NUMBER(casync_time, (NULL), NO_RESULT);
    NUMBER(casync_time, (&zero.loop), ANYTHING);
    NUMBER(casync_now, (NULL), NO_RESULT);
    NUMBER(casync_now, (&zero.loop), NO_RESULT);
    NUMBER(casync_clock_advance, (NULL, 1), -EINVAL);
    NUMBER(casync_clock_advance, (&zero.loop, 1), -EINVAL);
    NUMBER(casync_loop_init, (NULL, NULL), -EINVAL);
    NUMBER(casync_loop_close, (NULL), NO_RESULT);
    NUMBER(casync_loop_close, (&zero.loop), 0);
    NUMBER(casync_run_forever, (NULL), -EINVAL);
    NUMBER(casync_run_forever, (&zero.loop), -EINVAL);
    NUMBER(casync_run_until_idle, (NULL), -EINVAL);
    NUMBER(casync_run_until_idle, (&zero.loop), -EINVAL);
    NUMBER(casync_run_until_complete, (NULL), AN_ERROR);
    NUMBER(casync_run_until_complete, (&zero.future), AN_ERROR);
    NUMBER(casync_run_once, (NULL), -EINVAL);
    NUMBER(casync_run_once, (&zero.loop), -EINVAL);
    NUMBER(casync_run_nowait, (NULL), -EINVAL);
    NUMBER(casync_run_nowait, (&zero.loop), -EINVAL);
    NOTHING(casync_stop, (NULL));
    NOTHING(casync_stop, (&zero.loop));
    NOTHING(casync_break, (NULL));
    NOTHING(casync_break, (&zero.loop));
    NUMBER(casync_loop_alive, (NULL), false);
    NUMBER(casync_loop_alive, (&zero.loop), false);
    NAMED(casync_get_running_loop);
    NUMBER(casync_call_soon, (NULL, NULL, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_soon, (NULL, &zero.job, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_soon, (&zero.loop, NULL, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_soon, (&zero.loop, &zero.job, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_soon, (&loop, NULL, NULL, NULL), -EINVAL);
    NUMBER(casync_job_cancel, (NULL), 0);
    NUMBER(casync_job_cancel, (&zero.job), 0);
    NUMBER(casync_job_pending, (NULL), false);
    NUMBER(casync_job_pending, (&zero.job), false);
    NUMBER(casync_hook_start, (NULL, &zero.hook, CASYNC_HOOK_IDLE, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_hook_start, (&zero.loop, &zero.hook, CASYNC_HOOK_IDLE, 0, do_nothing, NULL),
           -EINVAL);
    NUMBER(casync_hook_start, (&loop, NULL, CASYNC_HOOK_IDLE, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_hook_start, (&loop, &zero.hook, CASYNC_HOOK_IDLE, 0, NULL, NULL), -EINVAL);
    NUMBER(casync_hook_stop, (NULL), 0);
    NUMBER(casync_hook_stop, (&zero.hook), 0);
    NOTHING(casync_walk, (NULL, visit, NULL));
    NOTHING(casync_walk, (&zero.loop, visit, NULL));
    NOTHING(casync_walk, (&zero.loop, NULL, NULL));
    NOTHING(casync_walk, (&loop, NULL, NULL));
    NOTHING(casync_set_exception_handler, (NULL, NULL, NULL));
    NOTHING(casync_set_exception_handler, (&zero.loop, NULL, NULL));
    NOTHING(casync_call_exception_handler, (NULL, NULL));
    NOTHING(casync_call_exception_handler, (&zero.loop, NULL));
    NOTHING(casync_call_exception_handler, (&loop, NULL));
    NUMBER(casync_loop_fd, (NULL), AN_ERROR);
    NUMBER(casync_loop_fd, (&zero.loop), AN_ERROR);
    NUMBER(casync_loop_timeout, (NULL), -EINVAL);
    NUMBER(casync_loop_timeout, (&zero.loop), -EINVAL);
    NUMBER(casync_loop_fork, (NULL), -EINVAL);
    NUMBER(casync_loop_fork, (&zero.loop), -EINVAL);
}

static void timers_and_futures(void) {
    NUMBER(casync_call_later, (NULL, NULL, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_later, (NULL, &zero.timer, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_later, (&zero.loop, NULL, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_later, (&zero.loop, &zero.timer, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_later, (&loop, NULL, 5, NULL, NULL), -EINVAL);
    NUMBER(casync_call_at, (NULL, NULL, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_at, (&zero.loop, &zero.timer, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_at, (&loop, NULL, 5, NULL, NULL), -EINVAL);
    NUMBER(casync_timer_start, (NULL, &zero.timer, 5, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_timer_start, (&zero.loop, &zero.timer, 5, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_timer_start, (&loop, NULL, 5, 5, do_nothing, NULL), -EINVAL);
    NUMBER(casync_timer_start, (&loop, &zero.timer, 5, 5, NULL, NULL), -EINVAL);
    NUMBER(casync_timer_stop, (NULL), 0);
    NUMBER(casync_timer_stop, (&zero.timer), 0);
    NUMBER(casync_timer_again, (NULL), -EINVAL);
    NUMBER(casync_timer_again, (&zero.timer), -EINVAL);
    NUMBER(casync_timer_remaining, (NULL), AN_ERROR);
    NUMBER(casync_timer_remaining, (&zero.timer), CASYNC_INVALID_STATE);
    NOTHING(casync_timer_ref, (NULL, false));
    NOTHING(casync_timer_ref, (&zero.timer, true));
    NUMBER(casync_future_init, (NULL, &zero.future), -EINVAL);
    NUMBER(casync_future_init, (&zero.loop, &zero.future), -EINVAL);
    NUMBER(casync_future_init, (&loop, NULL), -EINVAL);
    NOTHING(casync_future_close, (NULL));
    NOTHING(casync_future_close, (&zero.future));
    NUMBER(casync_future_set_result, (NULL, 0, NULL), AN_ERROR);
    NUMBER(casync_future_set_result, (&zero.future, 0, NULL), CASYNC_INVALID_STATE);
    NUMBER(casync_future_cancel, (NULL), 0);
    NUMBER(casync_future_cancel, (&zero.future), 0);
    NUMBER(casync_future_done, (NULL), false);
    NUMBER(casync_future_done, (&zero.future), false);
    NUMBER(casync_future_result, (NULL), AN_ERROR);
    NUMBER(casync_future_result, (&zero.future), CASYNC_INVALID_STATE);
    NUMBER(casync_future_add_done_callback, (NULL, NULL, do_nothing, NULL), -EINVAL);
    NUMBER(casync_future_add_done_callback, (&zero.future, NULL, do_nothing, NULL), -EINVAL);
    NUMBER(casync_future_add_done_callback, (&zero.future, &zero.job, NULL, NULL), -EINVAL);
}

static void watchers_posts_and_signals(void) {
    NUMBER(casync_add_reader, (NULL, &zero.watcher, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_add_reader, (&zero.loop, &zero.watcher, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_add_reader, (&loop, NULL, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_add_reader, (&loop, &zero.watcher, 0, NULL, NULL), -EINVAL);
    NUMBER(casync_add_writer, (NULL, &zero.watcher, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_add_writer, (&zero.loop, &zero.watcher, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_add_writer, (&loop, NULL, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_add_writer, (&loop, &zero.watcher, 0, NULL, NULL), -EINVAL);
    NUMBER(casync_remove_reader, (NULL), 0);
    NUMBER(casync_remove_reader, (&zero.watcher), 0);
    NUMBER(casync_remove_writer, (NULL), 0);
    NUMBER(casync_remove_writer, (&zero.watcher), 0);
    NOTHING(casync_watcher_keep, (NULL, true));
    NOTHING(casync_watcher_keep, (&zero.watcher, true));
    POINTER(casync_watcher_find, (NULL, 0));
    POINTER(casync_watcher_find, (&zero.loop, 0));
    NOTHING(casync_watcher_ref, (NULL, true));
    NOTHING(casync_watcher_ref, (&zero.watcher, false));
    NUMBER(casync_call_soon_threadsafe, (NULL, NULL, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_soon_threadsafe, (NULL, &zero.job, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_soon_threadsafe, (&zero.loop, NULL, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_soon_threadsafe, (&zero.loop, &zero.job, do_nothing, NULL), -EINVAL);
    NUMBER(casync_call_soon_threadsafe, (&loop, NULL, NULL, NULL), -EINVAL);
    NOTHING(casync_wake, (NULL));
    NOTHING(casync_wake, (&zero.loop));
    NUMBER(casync_signal_start, (NULL, &zero.signal, SIGUSR1, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_signal_start, (&zero.loop, &zero.signal, SIGUSR1, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_signal_start, (&loop, NULL, SIGUSR1, 0, do_nothing, NULL), -EINVAL);
    NUMBER(casync_signal_start, (&loop, &zero.signal, SIGUSR1, 0, NULL, NULL), -EINVAL);
    NUMBER(casync_signal_stop, (NULL), 0);
    NUMBER(casync_signal_stop, (&zero.signal), 0);
    NOTHING(casync_signal_ref, (NULL, true));
    NOTHING(casync_signal_ref, (&zero.signal, false));
}

static void buffers(void) {
    NOTHING(casync_outbuf_init, (NULL, NULL));
    NOTHING(casync_outbuf_clear, (NULL));
    NOTHING(casync_outbuf_clear, (&zero.outbuf));
    NUMBER(casync_outbuf_append, (NULL, &zero.span, 1), AN_ERROR);
    NUMBER(casync_outbuf_append, (&zero.outbuf, &zero.span, 1), NO_RESULT);
    NUMBER(casync_outbuf_append, (&zero.outbuf, NULL, 0), NO_RESULT);
    NUMBER(casync_outbuf_append, (&zero.outbuf, NULL, 1), AN_ERROR);
    NUMBER(casync_outbuf_append_ref, (NULL, byte, 1, NULL, NULL), AN_ERROR);
    NUMBER(casync_outbuf_append_ref, (&zero.outbuf, NULL, 1, NULL, NULL), AN_ERROR);
    NUMBER(casync_outbuf_peek, (NULL, &zero.span, 1), 0);
    NUMBER(casync_outbuf_peek, (&zero.outbuf, &zero.span, 1), 0);
    NUMBER(casync_outbuf_peek, (&zero.outbuf, NULL, 0), 0);
    NOTHING(casync_outbuf_consume, (NULL, 1));
    NOTHING(casync_outbuf_consume, (&zero.outbuf, 1));
    NUMBER(casync_outbuf_flush, (NULL, 0, false), NO_RESULT);
    NUMBER(casync_outbuf_flush, (&zero.outbuf, 0, false), NO_RESULT);
}

static void tasks(void) {
    NUMBER(casync_run, (NULL, NULL), AN_ERROR);
    NUMBER(casync_run_with, (NULL, NULL, NULL), AN_ERROR);
    NUMBER(casync_run_with, (&zero.loop_desc, NULL, NULL), AN_ERROR);
    POINTER(casync_spawn, (NULL, returns_zero, NULL));
    NUMBER(casync_spawn_detached, (NULL, returns_zero, NULL), -EINVAL);
    NUMBER(casync_spawn_detached, (&zero.loop, returns_zero, NULL), -EINVAL);
    NUMBER(casync_spawn_detached, (&loop, NULL, NULL), -EINVAL);
    POINTER(casync_spawn, (&zero.loop, returns_zero, NULL));
    POINTER(casync_spawn, (&loop, NULL, NULL));
    NUMBER(casync_spawn_with, (NULL, &zero.task_desc, &zero.task_made), AN_ERROR);
    NUMBER(casync_spawn_with, (&zero.loop, &zero.task_desc, &zero.task_made), AN_ERROR);
    NUMBER(casync_spawn_with, (&loop, &zero.task_desc, &zero.task_made), AN_ERROR);
    NUMBER(casync_spawn_with, (&loop, NULL, &zero.task_made), AN_ERROR);
    NUMBER(casync_spawn_with, (&loop, &zero.task_desc, NULL), AN_ERROR);
    NUMBER(casync_spawn_detached, (NULL, returns_zero, NULL), AN_ERROR);
    NUMBER(casync_spawn_detached, (&zero.loop, returns_zero, NULL), AN_ERROR);
    NUMBER(casync_spawn_detached, (&loop, NULL, NULL), AN_ERROR);
    POINTER(casync_task_retain, (NULL));
    CALLED(casync_task_retain, (&zero.task));
    NOTHING(casync_task_release, (NULL));
    NOTHING(casync_task_release, (&zero.task));
    NUMBER(casync_task_start, (NULL, &zero.task, step), -EINVAL);
    NUMBER(casync_task_start, (&zero.loop, &zero.task, step), -EINVAL);
    NUMBER(casync_task_start, (&loop, NULL, step), -EINVAL);
    NUMBER(casync_task_start, (&loop, &zero.task, NULL), -EINVAL);
    NUMBER(casync_task_cancel, (NULL), 0);
    NUMBER(casync_task_cancel, (&zero.task), 0);
    NUMBER(casync_task_uncancel, (NULL), 0);
    NUMBER(casync_task_uncancel, (&zero.task), 0);
    NAMED(casync_current_task);
    NUMBER(casync_await, (NULL), AN_ERROR);
    NUMBER(casync_await, (&zero.future), AN_ERROR);
    NUMBER(casync_join, (NULL), AN_ERROR);
    NUMBER(casync_join, (&zero.task), AN_ERROR);
    NUMBER(casync_sleep, (0), -EPERM);
    FUTURE(casync_sleep_op, (NULL, &zero.timer_op, 5), -EINVAL);
    FUTURE(casync_sleep_op, (&zero.loop, &zero.timer_op, 5), -EINVAL);
    WITHOUT_OP(casync_sleep_op, (&loop, NULL, 5));
    NUMBER(casync_wait_readable, (0), -EPERM);
    NUMBER(casync_wait_writable, (0), -EPERM);
    FUTURE(casync_wait_readable_op, (NULL, &zero.op, 0), -EINVAL);
    FUTURE(casync_wait_readable_op, (&zero.loop, &zero.op, 0), -EINVAL);
    WITHOUT_OP(casync_wait_readable_op, (&loop, NULL, 0));
    FUTURE(casync_wait_writable_op, (NULL, &zero.op, 0), -EINVAL);
    FUTURE(casync_wait_writable_op, (&zero.loop, &zero.op, 0), -EINVAL);
    WITHOUT_OP(casync_wait_writable_op, (&loop, NULL, 0));
    NUMBER(casync_await_begin, (NULL, NULL), false);
    NUMBER(casync_await_begin, (NULL, &zero.future), false);
    NUMBER(casync_await_begin, (&zero.task, NULL), false);
    NUMBER(casync_await_begin, (&zero.task, &zero.future), false);
    NUMBER(casync_await_end, (NULL), NO_RESULT);
    NUMBER(casync_await_end, (&zero.task), NO_RESULT);
    CALLED(casync_task_name, (NULL));
    CALLED(casync_task_name, (&zero.task));
    NUMBER(casync_task_set_name, (NULL, "name"), AN_ERROR);
    NUMBER(casync_task_set_name, (&zero.task, "name"), AN_ERROR);
    NUMBER(casync_task_stack_used, (NULL), 0);
    NUMBER(casync_task_stack_used, (&zero.task), 0);
    POINTER(casync_context_get, (NULL));
    POINTER(casync_context_get, (&zero.var));
    NUMBER(casync_context_set, (NULL, NULL), AN_ERROR);
    NUMBER(casync_context_set, (&zero.var, NULL), -EPERM);
    NUMBER(casync_dump, (NULL, -1), NO_RESULT);
    NUMBER(casync_dump, (&zero.loop, -1), NO_RESULT);
    NUMBER(casync_dump_on_signal, (NULL, &zero.signal, SIGUSR1), -EINVAL);
    NUMBER(casync_dump_on_signal, (&zero.loop, &zero.signal, SIGUSR1), -EINVAL);
    NUMBER(casync_dump_on_signal, (&loop, NULL, SIGUSR1), -EINVAL);
    NAMED(casync_report_overflow);
    NUMBER(casync_generator_start, (NULL, &zero.generator, returns_zero, NULL), AN_ERROR);
    NUMBER(casync_generator_start, (&zero.loop, &zero.generator, returns_zero, NULL), AN_ERROR);
    NUMBER(casync_generator_start, (&loop, NULL, returns_zero, NULL), AN_ERROR);
    NUMBER(casync_generator_start, (&loop, &zero.generator, NULL, NULL), AN_ERROR);
    NUMBER(casync_generator_yield, (NULL, NULL), AN_ERROR);
    NUMBER(casync_generator_yield, (&zero.generator, NULL), -EPERM);
    NUMBER(casync_generator_next, (NULL, &zero.item), AN_ERROR);
    NUMBER(casync_generator_next, (&zero.generator, &zero.item), AN_ERROR);
    WITHOUT_OP(casync_generator_next_op, (NULL));
    FUTURE(casync_generator_next_op, (&zero.generator), CASYNC_INVALID_STATE);
    NUMBER(casync_generator_close, (NULL), NO_RESULT);
    NUMBER(casync_generator_close, (&zero.generator), 0);
}

static void groups_of_futures_and_tasks(void) {
    NUMBER(casync_gather, (NULL, 1, CASYNC_FIRST_ERROR), AN_ERROR);
    NUMBER(casync_gather, (zero.waiters, 2, CASYNC_FIRST_ERROR), AN_ERROR);
    FUTURE(casync_gather_op, (NULL, &zero.set, zero.waiters, 0, CASYNC_FIRST_ERROR), -EINVAL);
    FUTURE(casync_gather_op, (&zero.loop, &zero.set, zero.waiters, 0, CASYNC_FIRST_ERROR), -EINVAL);
    FUTURE(casync_gather_op, (&loop, &zero.set, zero.waiters, 2, CASYNC_FIRST_ERROR), -EINVAL);
    FUTURE(casync_gather_op, (&loop, &zero.set, NULL, 2, CASYNC_RETURN_ERRORS), -EINVAL);
    WITHOUT_OP(casync_gather_op, (&loop, NULL, zero.waiters, 0, CASYNC_FIRST_ERROR));
    NUMBER(casync_wait, (NULL, 1, CASYNC_ALL_COMPLETED, 5), AN_ERROR);
    NUMBER(casync_wait, (zero.waiters, 2, CASYNC_ALL_COMPLETED, 5), AN_ERROR);
    FUTURE(casync_wait_op, (NULL, &zero.set, zero.waiters, 2, CASYNC_ALL_COMPLETED, 5), -EINVAL);
    FUTURE(casync_wait_op, (&zero.loop, &zero.set, zero.waiters, 2, CASYNC_ALL_COMPLETED, 5),
           -EINVAL);
    FUTURE(casync_wait_op, (&loop, &zero.set, zero.waiters, 2, CASYNC_ALL_COMPLETED, 5), -EINVAL);
    FUTURE(casync_wait_op, (&loop, &zero.set, NULL, 2, CASYNC_ALL_COMPLETED, 5), -EINVAL);
    WITHOUT_OP(casync_wait_op, (&loop, NULL, zero.waiters, 2, CASYNC_ALL_COMPLETED, 5));
    NUMBER(casync_select, (NULL, 1, 5), AN_ERROR);
    NUMBER(casync_select, (zero.waiters, 2, 5), AN_ERROR);
    NUMBER(casync_as_completed, (NULL, &zero.completion, zero.waiters, 0), -EINVAL);
    NUMBER(casync_as_completed, (&zero.loop, &zero.completion, zero.waiters, 0), -EINVAL);
    NUMBER(casync_as_completed, (&loop, NULL, zero.waiters, 0), -EINVAL);
    NUMBER(casync_as_completed, (&loop, &zero.completion, zero.waiters, 2), -EINVAL);
    NUMBER(casync_as_completed, (&loop, &zero.completion, NULL, 2), -EINVAL);
    NUMBER(casync_completion_next, (NULL, &zero.future_found), AN_ERROR);
    NUMBER(casync_completion_next, (&zero.completion, &zero.future_found), AN_ERROR);
    WITHOUT_OP(casync_completion_next_op, (NULL));
    FUTURE(casync_completion_next_op, (&zero.completion), NO_RESULT);
    NOTHING(casync_completion_stop, (NULL));
    NOTHING(casync_completion_stop, (&zero.completion));
    NUMBER(casync_wait_for, (NULL, 5), AN_ERROR);
    NUMBER(casync_wait_for, (&zero.future, 5), AN_ERROR);
    NUMBER(casync_shield, (NULL), AN_ERROR);
    NUMBER(casync_shield, (&zero.future), AN_ERROR);
    WITHOUT_OP(casync_shield_op, (NULL, &zero.future));
    FUTURE(casync_shield_op, (&zero.shielded, NULL), AN_ERROR);
    FUTURE(casync_shield_op, (&zero.shielded, &zero.future), AN_ERROR);
    NUMBER(casync_timeout_begin, (NULL, 5), AN_ERROR);
    NUMBER(casync_timeout_begin, (&zero.timeout, 5), -EPERM);
    NUMBER(casync_timeout_end, (NULL, 0), NO_RESULT);
    NUMBER(casync_timeout_end, (&zero.timeout, -EIO), -EIO);
    NUMBER(casync_timeout_reschedule, (NULL, 5), AN_ERROR);
    NUMBER(casync_timeout_reschedule, (&zero.timeout, 5), CASYNC_INVALID_STATE);
    NUMBER(casync_timeout_expired, (NULL), false);
    NUMBER(casync_timeout_expired, (&zero.timeout), false);
    NUMBER(casync_task_group_begin, (NULL), AN_ERROR);
    NUMBER(casync_task_group_begin, (&zero.group), -EPERM);
    POINTER(casync_task_group_spawn, (NULL, returns_zero, NULL));
    POINTER(casync_task_group_spawn, (&zero.group, returns_zero, NULL));
    NUMBER(casync_task_group_spawn_with, (NULL, &zero.task_desc, &zero.task_made), AN_ERROR);
    NUMBER(casync_task_group_spawn_with, (&zero.group, &zero.task_desc, &zero.task_made), AN_ERROR);
    NUMBER(casync_task_group_spawn_with, (&zero.group, NULL, NULL), AN_ERROR);
    NUMBER(casync_task_group_start, (NULL, &zero.task, step), AN_ERROR);
    NUMBER(casync_task_group_start, (&zero.group, &zero.task, step), AN_ERROR);
    NUMBER(casync_task_group_start, (&zero.group, NULL, step), AN_ERROR);
    NUMBER(casync_task_group_end, (NULL, 0), AN_ERROR);
    NUMBER(casync_task_group_end, (&zero.group, 0), -EPERM);
    WITHOUT_OP(casync_task_group_end_op, (NULL, 0));
    FUTURE(casync_task_group_end_op, (&zero.group, 0), -EPERM);
}

static void sync_primitives(void) {
    NOTHING(casync_event_set, (NULL));
    NOTHING(casync_event_set, (&zero.event));
    NOTHING(casync_event_clear, (NULL));
    NOTHING(casync_event_clear, (&zero.event));
    NUMBER(casync_event_is_set, (NULL), false);
    NUMBER(casync_event_is_set, (&zero.event), false);
    NUMBER(casync_event_wait, (NULL), AN_ERROR);
    NUMBER(casync_event_wait, (&zero.event), -EPERM);
    FUTURE(casync_event_wait_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_event_wait_op, (&zero.event, &zero.op), -EPERM);
    WITHOUT_OP(casync_event_wait_op, (&zero.event, NULL));
    NUMBER(casync_lock_acquire, (NULL), AN_ERROR);
    NUMBER(casync_lock_acquire, (&zero.lock), -EPERM);
    NUMBER(casync_lock_acquire_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_lock_acquire_timeout, (&zero.lock, 5), -EPERM);
    FUTURE(casync_lock_acquire_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_lock_acquire_op, (&zero.lock, &zero.op), 0);
    WITHOUT_OP(casync_lock_acquire_op, (&zero.lock, NULL));
    NUMBER(casync_lock_try_acquire, (NULL), AN_ERROR);
    NUMBER(casync_lock_try_acquire, (&zero.lock), 0);
    NUMBER(casync_lock_release, (NULL), AN_ERROR);
    NUMBER(casync_lock_release, (&zero.lock), CASYNC_INVALID_STATE);
    NUMBER(casync_lock_locked, (NULL), false);
    NUMBER(casync_lock_locked, (&zero.lock), false);
    NUMBER(casync_rwlock_acquire_read, (NULL), AN_ERROR);
    NUMBER(casync_rwlock_acquire_read, (&zero.rwlock), -EPERM);
    FUTURE(casync_rwlock_acquire_read_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_rwlock_acquire_read_op, (&zero.rwlock, &zero.op), 0);
    WITHOUT_OP(casync_rwlock_acquire_read_op, (&zero.rwlock, NULL));
    NUMBER(casync_rwlock_try_acquire_read, (NULL), AN_ERROR);
    NUMBER(casync_rwlock_try_acquire_read, (&zero.rwlock), 0);
    NUMBER(casync_rwlock_acquire_write, (NULL), AN_ERROR);
    NUMBER(casync_rwlock_acquire_write, (&zero.rwlock), -EPERM);
    FUTURE(casync_rwlock_acquire_write_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_rwlock_acquire_write_op, (&zero.rwlock, &zero.op), 0);
    WITHOUT_OP(casync_rwlock_acquire_write_op, (&zero.rwlock, NULL));
    NUMBER(casync_rwlock_try_acquire_write, (NULL), AN_ERROR);
    NUMBER(casync_rwlock_try_acquire_write, (&zero.rwlock), 0);
    NUMBER(casync_rwlock_release, (NULL), AN_ERROR);
    NUMBER(casync_rwlock_release, (&zero.rwlock), CASYNC_INVALID_STATE);
    NOTHING(casync_condition_init, (NULL, &zero.lock));
    NOTHING(casync_condition_init, (&zero.condition, NULL));
    NUMBER(casync_condition_wait, (NULL), AN_ERROR);
    NUMBER(casync_condition_wait, (&zero.condition), -EPERM);
    FUTURE(casync_condition_wait_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_condition_wait_op, (&zero.condition, &zero.op), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_condition_wait_op, (&zero.condition, NULL));
    NUMBER(casync_condition_notify, (NULL, 1), AN_ERROR);
    NUMBER(casync_condition_notify, (&zero.condition, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_condition_notify_all, (NULL), AN_ERROR);
    NUMBER(casync_condition_notify_all, (&zero.condition), CASYNC_INVALID_STATE);
    NUMBER(casync_semaphore_init, (NULL, 1, 0), -EINVAL);
    NUMBER(casync_semaphore_acquire, (NULL), AN_ERROR);
    NUMBER(casync_semaphore_acquire, (&zero.semaphore), -EPERM);
    FUTURE(casync_semaphore_acquire_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_semaphore_acquire_op, (&zero.semaphore, &zero.op), -EPERM);
    WITHOUT_OP(casync_semaphore_acquire_op, (&zero.semaphore, NULL));
    NUMBER(casync_semaphore_try_acquire, (NULL), AN_ERROR);
    NUMBER(casync_semaphore_try_acquire, (&zero.semaphore), -EAGAIN);
    NUMBER(casync_semaphore_release, (NULL), AN_ERROR);
    NUMBER(casync_semaphore_release, (&zero.semaphore), 0);
    NUMBER(casync_semaphore_locked, (NULL), false);
    NUMBER(casync_semaphore_locked, (&zero.semaphore), true);
    NUMBER(casync_barrier_init, (NULL, 1), -EINVAL);
    NUMBER(casync_barrier_wait, (NULL), AN_ERROR);
    NUMBER(casync_barrier_wait, (&zero.barrier), AN_ERROR);
    FUTURE(casync_barrier_wait_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_barrier_wait_op, (&zero.barrier, &zero.op), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_barrier_wait_op, (&zero.barrier, NULL));
    NOTHING(casync_barrier_reset, (NULL));
    NOTHING(casync_barrier_reset, (&zero.barrier));
    NOTHING(casync_barrier_abort, (NULL));
    NOTHING(casync_barrier_abort, (&zero.barrier));
    NUMBER(casync_wait_group_add, (NULL, 1), -EINVAL);
    NUMBER(casync_wait_group_add, (&zero.wait_group, 1), 0);
    NUMBER(casync_wait_group_done, (NULL), AN_ERROR);
    NUMBER(casync_wait_group_done, (&zero.wait_group), CASYNC_INVALID_STATE);
    NUMBER(casync_wait_group_wait, (NULL), AN_ERROR);
    NUMBER(casync_wait_group_wait, (&zero.wait_group), -EPERM);
    FUTURE(casync_wait_group_wait_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_wait_group_wait_op, (&zero.wait_group, &zero.op), 0);
    WITHOUT_OP(casync_wait_group_wait_op, (&zero.wait_group, NULL));
    NUMBER(casync_once_begin, (NULL), AN_ERROR);
    NUMBER(casync_once_begin, (&zero.once), -EPERM);
    FUTURE(casync_once_begin_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_once_begin_op, (&zero.once, &zero.op), 1);
    WITHOUT_OP(casync_once_begin_op, (&zero.once, NULL));
    NUMBER(casync_once_end, (NULL, 0), AN_ERROR);
    NUMBER(casync_once_end, (&zero.once, 0), CASYNC_INVALID_STATE);
    NUMBER(casync_once_call, (NULL, returns_zero, NULL), AN_ERROR);
    NUMBER(casync_once_call, (&zero.once, NULL, NULL), AN_ERROR);
    NUMBER(casync_queue_init, (NULL, &zero.queue, NULL), -EINVAL);
    NUMBER(casync_queue_init, (&zero.loop, &zero.queue, NULL), -EINVAL);
    NUMBER(casync_queue_init, (&loop, NULL, NULL), -EINVAL);
    NOTHING(casync_queue_close, (NULL));
    NOTHING(casync_queue_close, (&zero.queue));
    NUMBER(casync_queue_put, (NULL, NULL), AN_ERROR);
    NUMBER(casync_queue_put, (&zero.queue, NULL), -EPERM);
    NUMBER(casync_queue_put_timeout, (NULL, NULL, 5), AN_ERROR);
    NUMBER(casync_queue_put_timeout, (&zero.queue, NULL, 5), -EPERM);
    FUTURE(casync_queue_put_op, (NULL, &zero.op, NULL), AN_ERROR);
    FUTURE(casync_queue_put_op, (&zero.queue, &zero.op, NULL), -EPERM);
    WITHOUT_OP(casync_queue_put_op, (&zero.queue, NULL, NULL));
    NUMBER(casync_queue_put_nowait, (NULL, NULL), AN_ERROR);
    NUMBER(casync_queue_put_nowait, (&zero.queue, NULL), -EPERM);
    NUMBER(casync_queue_get, (NULL, &zero.item), AN_ERROR);
    NUMBER(casync_queue_get, (&zero.queue, &zero.item), -EPERM);
    NUMBER(casync_queue_get, (&zero.queue, NULL), AN_ERROR);
    NUMBER(casync_queue_get_timeout, (NULL, &zero.item, 5), AN_ERROR);
    NUMBER(casync_queue_get_timeout, (&zero.queue, &zero.item, 5), -EPERM);
    FUTURE(casync_queue_get_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_queue_get_op, (&zero.queue, &zero.op), -EPERM);
    WITHOUT_OP(casync_queue_get_op, (&zero.queue, NULL));
    NUMBER(casync_queue_get_nowait, (NULL, &zero.item), AN_ERROR);
    NUMBER(casync_queue_get_nowait, (&zero.queue, &zero.item), -EAGAIN);
    NUMBER(casync_queue_get_nowait, (&zero.queue, NULL), AN_ERROR);
    NUMBER(casync_queue_task_done, (NULL), AN_ERROR);
    NUMBER(casync_queue_task_done, (&zero.queue), CASYNC_INVALID_STATE);
    NUMBER(casync_queue_join, (NULL), AN_ERROR);
    NUMBER(casync_queue_join, (&zero.queue), -EPERM);
    FUTURE(casync_queue_join_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_queue_join_op, (&zero.queue, &zero.op), 0);
    WITHOUT_OP(casync_queue_join_op, (&zero.queue, NULL));
    NOTHING(casync_queue_shutdown, (NULL, true));
    NOTHING(casync_queue_shutdown, (&zero.queue, true));
    NUMBER(casync_queue_qsize, (NULL), 0);
    NUMBER(casync_queue_qsize, (&zero.queue), 0);
    NUMBER(casync_queue_empty, (NULL), ANYTHING);
    NUMBER(casync_queue_empty, (&zero.queue), true);
    NUMBER(casync_queue_full, (NULL), false);
    NUMBER(casync_queue_full, (&zero.queue), false);
}

static void addresses(void) {
    CALLED(casync_address_text, (NULL, zero.text));
    CALLED(casync_address_text, (&zero.address, zero.text));
    CALLED(casync_address_text, (&zero.address, NULL));
    NUMBER(casync_address_from_host, (NULL, "::1", 1), -EINVAL);
    NUMBER(casync_address_from_host, (&zero.address, NULL, 1), -EINVAL);
    NUMBER(casync_address_from_path, (NULL, "path"), -EINVAL);
    NUMBER(casync_address_from_path, (&zero.address, NULL), -EINVAL);
    NUMBER(casync_address_port, (NULL), 0);
    NUMBER(casync_address_port, (&zero.address), 0);
}

static void streams(void) {
    NUMBER(casync_stream_open, (NULL, &zero.stream, 0, NULL, NULL), -EINVAL);
    NUMBER(casync_stream_open, (&zero.loop, &zero.stream, 0, NULL, NULL), -EINVAL);
    NUMBER(casync_stream_open, (&zero.loop, &zero.stream, -1, NULL, NULL), -EINVAL);
    NUMBER(casync_stream_open, (&loop, NULL, 0, NULL, NULL), -EINVAL);
    NUMBER(casync_socketpair, (NULL, &zero.stream, &zero.other_stream, NULL, NULL), -EINVAL);
    NUMBER(casync_socketpair, (&zero.loop, &zero.stream, &zero.other_stream, NULL, NULL), -EINVAL);
    NUMBER(casync_socketpair, (&loop, NULL, &zero.other_stream, NULL, NULL), -EINVAL);
    NUMBER(casync_socketpair, (&loop, &zero.stream, NULL, NULL, NULL), -EINVAL);
    NUMBER(casync_pipe, (NULL, &zero.stream, &zero.other_stream, NULL, NULL), -EINVAL);
    NUMBER(casync_pipe, (&zero.loop, &zero.stream, &zero.other_stream, NULL, NULL), -EINVAL);
    NUMBER(casync_pipe, (&loop, NULL, &zero.other_stream, NULL, NULL), -EINVAL);
    NUMBER(casync_pipe, (&loop, &zero.stream, NULL, NULL, NULL), -EINVAL);
    NUMBER(casync_connect_start, (NULL, &zero.stream, &zero.connect_desc), -EINVAL);
    NUMBER(casync_connect_start, (&zero.loop, &zero.stream, &zero.connect_desc), -EINVAL);
    NUMBER(casync_connect_start, (&loop, NULL, &zero.connect_desc), -EINVAL);
    NUMBER(casync_connect_start, (&loop, &zero.stream, NULL), -EINVAL);
    FUTURE(casync_connect_op, (NULL, &zero.stream, &zero.op, &zero.connect_desc), -EINVAL);
    FUTURE(casync_connect_op, (&zero.loop, &zero.stream, &zero.op, &zero.connect_desc), -EINVAL);
    FUTURE(casync_connect_op, (&loop, NULL, &zero.op, &zero.connect_desc), -EINVAL);
    FUTURE(casync_connect_op, (&loop, &zero.stream, &zero.op, NULL), -EINVAL);
    WITHOUT_OP(casync_connect_op, (&loop, &zero.stream, NULL, &zero.connect_desc));
    NUMBER(casync_connect, (NULL, &zero.stream, &zero.connect_desc), AN_ERROR);
    NUMBER(casync_connect, (&zero.loop, &zero.stream, &zero.connect_desc), AN_ERROR);
    NUMBER(casync_connect, (&loop, NULL, NULL), AN_ERROR);
    NUMBER(casync_connect_timeout, (NULL, &zero.stream, &zero.connect_desc, 5), AN_ERROR);
    NUMBER(casync_connect_timeout, (&zero.loop, &zero.stream, &zero.connect_desc, 5), AN_ERROR);
    FUTURE(casync_read_op, (NULL, &zero.op, byte, 1), AN_ERROR);
    FUTURE(casync_read_op, (&zero.stream, &zero.op, byte, 1), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_read_op, (&zero.stream, NULL, byte, 1));
    FUTURE(casync_read_exactly_op, (NULL, &zero.op, byte, 1), AN_ERROR);
    FUTURE(casync_read_exactly_op, (&zero.stream, &zero.op, byte, 1), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_read_exactly_op, (&zero.stream, NULL, byte, 1));
    FUTURE(casync_read_until_op, (NULL, &zero.op, "x", 1), AN_ERROR);
    FUTURE(casync_read_until_op, (&zero.stream, &zero.op, "x", 1), CASYNC_INVALID_STATE);
    FUTURE(casync_read_until_op, (&zero.stream, &zero.op, NULL, 1), AN_ERROR);
    WITHOUT_OP(casync_read_until_op, (&zero.stream, NULL, "x", 1));
    FUTURE(casync_read_frame_op, (NULL, &zero.op, &zero.framing), AN_ERROR);
    FUTURE(casync_read_frame_op, (&zero.stream, &zero.op, NULL), AN_ERROR);
    FUTURE(casync_read_frame_op, (&zero.stream, &zero.op, &zero.framing), AN_ERROR);
    WITHOUT_OP(casync_read_frame_op, (&zero.stream, NULL, &zero.framing));
    NUMBER(casync_read, (NULL, byte, 1), AN_ERROR);
    NUMBER(casync_read, (&zero.stream, byte, 1), AN_ERROR);
    NUMBER(casync_read_exactly, (NULL, byte, 1), AN_ERROR);
    NUMBER(casync_read_exactly, (&zero.stream, byte, 1), AN_ERROR);
    NUMBER(casync_read_until, (NULL, "x", 1, &zero.data), AN_ERROR);
    NUMBER(casync_read_until, (&zero.stream, "x", 1, &zero.data), AN_ERROR);
    NUMBER(casync_read_frame, (NULL, &zero.framing, &zero.data), AN_ERROR);
    NUMBER(casync_read_frame, (&zero.stream, &zero.framing, &zero.data), AN_ERROR);
    NUMBER(casync_read_timeout, (NULL, byte, 1, 5), AN_ERROR);
    NUMBER(casync_read_timeout, (&zero.stream, byte, 1, 5), AN_ERROR);
    NUMBER(casync_read_exactly_timeout, (NULL, byte, 1, 5), AN_ERROR);
    NUMBER(casync_read_exactly_timeout, (&zero.stream, byte, 1, 5), AN_ERROR);
    NUMBER(casync_read_until_timeout, (NULL, "x", 1, &zero.data, 5), AN_ERROR);
    NUMBER(casync_read_until_timeout, (&zero.stream, "x", 1, &zero.data, 5), AN_ERROR);
    NUMBER(casync_read_frame_timeout, (NULL, &zero.framing, &zero.data, 5), AN_ERROR);
    NUMBER(casync_read_frame_timeout, (&zero.stream, &zero.framing, &zero.data, 5), AN_ERROR);
    NUMBER(casync_read_frame_timeout, (&zero.stream, NULL, &zero.data, 5), AN_ERROR);
    NUMBER(casync_pause_reading, (NULL), AN_ERROR);
    NUMBER(casync_pause_reading, (&zero.stream), CASYNC_INVALID_STATE);
    NUMBER(casync_resume_reading, (NULL), AN_ERROR);
    NUMBER(casync_resume_reading, (&zero.stream), CASYNC_INVALID_STATE);
    NUMBER(casync_write, (NULL, byte, 1), AN_ERROR);
    NUMBER(casync_write, (&zero.stream, byte, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_write, (&zero.stream, NULL, 1), AN_ERROR);
    NUMBER(casync_write_ref, (NULL, byte, 1, NULL, NULL), AN_ERROR);
    NUMBER(casync_write_ref, (&zero.stream, byte, 1, NULL, NULL), CASYNC_INVALID_STATE);
    NUMBER(casync_write_ref, (&zero.stream, NULL, CASYNC_REFERENCE_MIN, NULL, NULL), AN_ERROR);
    NUMBER(casync_writev, (NULL, &zero.span, 1), AN_ERROR);
    NUMBER(casync_writev, (&zero.stream, &zero.span, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_writev, (&zero.stream, NULL, 1), AN_ERROR);
    NUMBER(casync_try_write, (NULL, byte, 1), AN_ERROR);
    NUMBER(casync_try_write, (&zero.stream, byte, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_write_frame, (NULL, &zero.framing, byte, 1), AN_ERROR);
    NUMBER(casync_write_frame, (&zero.stream, NULL, byte, 1), AN_ERROR);
    NUMBER(casync_write_frame, (&zero.stream, &zero.framing, byte, 1), AN_ERROR);
    NUMBER(casync_drain_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_drain_timeout, (&zero.stream, 5), AN_ERROR);
    NUMBER(casync_read_frame_timeout, (NULL, &zero.framing, &zero.data, 5), AN_ERROR);
    NUMBER(casync_read_frame_timeout, (&zero.stream, NULL, &zero.data, 5), AN_ERROR);
    NUMBER(casync_write_all, (NULL, byte, 1), AN_ERROR);
    FUTURE(casync_write_all_op, (NULL, &zero.op, byte, 1), AN_ERROR);
    FUTURE(casync_write_all_op, (&zero.stream, &zero.op, byte, 1), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_write_all_op, (&zero.stream, NULL, byte, 1));
    NUMBER(casync_write_all, (&zero.stream, byte, 1), AN_ERROR);
    NUMBER(casync_write_all_timeout, (NULL, byte, 1, 5), AN_ERROR);
    NUMBER(casync_write_all_timeout, (&zero.stream, byte, 1, 5), AN_ERROR);
    NUMBER(casync_finish_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_finish_timeout, (&zero.stream, 5), AN_ERROR);
    FUTURE(casync_drain_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_drain_op, (&zero.stream, &zero.op), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_drain_op, (&zero.stream, NULL));
    NUMBER(casync_drain, (NULL), AN_ERROR);
    NUMBER(casync_drain, (&zero.stream), AN_ERROR);
    NUMBER(casync_drain_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_drain_timeout, (&zero.stream, 5), AN_ERROR);
    NUMBER(casync_set_write_limits, (NULL, 2, 1), AN_ERROR);
    NUMBER(casync_set_write_limits, (&zero.stream, 2, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_write_eof, (NULL), AN_ERROR);
    NUMBER(casync_write_eof, (&zero.stream), CASYNC_INVALID_STATE);
    NUMBER(casync_finish_start, (NULL), AN_ERROR);
    NUMBER(casync_finish_start, (&zero.stream), CASYNC_INVALID_STATE);
    FUTURE(casync_finish_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_finish_op, (&zero.stream, &zero.op), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_finish_op, (&zero.stream, NULL));
    NUMBER(casync_finish, (NULL), AN_ERROR);
    NUMBER(casync_finish, (&zero.stream), AN_ERROR);
    NUMBER(casync_finish_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_finish_timeout, (&zero.stream, 5), AN_ERROR);
    NUMBER(casync_abort, (NULL), AN_ERROR);
    NUMBER(casync_abort, (&zero.stream), CASYNC_INVALID_STATE);
    NOTHING(casync_close, (NULL));
    NOTHING(casync_close, (&zero.stream));
    NOTHING(casync_close_reset, (NULL));
    NOTHING(casync_close_reset, (&zero.stream));
    NUMBER(casync_stream_is_open, (NULL), false);
    NUMBER(casync_stream_is_open, (&zero.stream), false);
    NUMBER(casync_set_protocol, (NULL, NULL), AN_ERROR);
    NUMBER(casync_set_protocol, (&zero.stream, NULL), CASYNC_INVALID_STATE);
    NUMBER(casync_local_address, (NULL, &zero.address), AN_ERROR);
    NUMBER(casync_local_address, (&zero.stream, &zero.address), -EBADF);
    NUMBER(casync_local_address, (&zero.stream, NULL), AN_ERROR);
    NUMBER(casync_peer_address, (NULL, &zero.address), AN_ERROR);
    NUMBER(casync_peer_address, (&zero.stream, &zero.address), -EBADF);
    NUMBER(casync_peer_address, (&zero.stream, NULL), AN_ERROR);
    NUMBER(casync_set_nodelay, (NULL, true), AN_ERROR);
    NUMBER(casync_set_nodelay, (&zero.stream, true), -EBADF);
    NUMBER(casync_set_keepalive, (NULL, 5), AN_ERROR);
    NUMBER(casync_set_keepalive, (&zero.stream, 5), -EBADF);
    NUMBER(casync_send_fd, (NULL, 0, byte, 1), AN_ERROR);
    NUMBER(casync_send_fd_frame, (NULL, 0, &zero.framing, byte, 1), AN_ERROR);
    NUMBER(casync_send_fd_frame, (&zero.stream, 0, NULL, byte, 1), AN_ERROR);
    NUMBER(casync_send_fd, (&zero.stream, 0, byte, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_send_fd_frame, (NULL, 0, &zero.framing, byte, 1), AN_ERROR);
    NUMBER(casync_send_fd_frame, (&zero.stream, 0, &zero.framing, byte, 1), AN_ERROR);
    NUMBER(casync_send_fd_frame, (&zero.stream, 0, NULL, byte, 1), AN_ERROR);
    NUMBER(casync_receive_fd, (NULL), AN_ERROR);
    NUMBER(casync_receive_fd, (&zero.stream), -EAGAIN);
    NOTHING(casync_stream_ref, (NULL, true));
    NOTHING(casync_stream_ref, (&zero.stream, false));
    NUMBER(casync_set_filter, (NULL, &zero.filter), AN_ERROR);
    NUMBER(casync_set_filter, (&zero.stream, &zero.filter), CASYNC_INVALID_STATE);
    NUMBER(casync_set_filter, (&zero.stream, NULL), AN_ERROR);
    NUMBER(casync_filter_receive, (NULL, byte, 1), AN_ERROR);
    NUMBER(casync_filter_receive, (&zero.filter, byte, 1), AN_ERROR);
    NUMBER(casync_filter_send, (NULL, byte, 1), AN_ERROR);
    NUMBER(casync_filter_send, (&zero.filter, byte, 1), AN_ERROR);
}

static void servers(void) {
    NUMBER(casync_listen, (NULL, &zero.server, &zero.listen_desc), -EINVAL);
    NUMBER(casync_listen, (&zero.loop, &zero.server, &zero.listen_desc), -EINVAL);
    NUMBER(casync_listen, (&loop, NULL, &zero.listen_desc), -EINVAL);
    NUMBER(casync_listen, (&loop, &zero.server, NULL), -EINVAL);
    NUMBER(casync_server_address, (NULL, &zero.address), AN_ERROR);
    NUMBER(casync_server_address, (&zero.server, &zero.address), -EBADF);
    NUMBER(casync_server_address, (&zero.server, NULL), AN_ERROR);
    FUTURE(casync_accept_op, (NULL, &zero.op, &zero.stream), AN_ERROR);
    FUTURE(casync_accept_op, (&zero.server, &zero.op, &zero.stream), CASYNC_INVALID_STATE);
    FUTURE(casync_accept_op, (&zero.server, &zero.op, NULL), AN_ERROR);
    WITHOUT_OP(casync_accept_op, (&zero.server, NULL, &zero.stream));
    NUMBER(casync_accept, (NULL, &zero.stream), AN_ERROR);
    NUMBER(casync_accept, (&zero.server, &zero.stream), AN_ERROR);
    NUMBER(casync_accept_timeout, (NULL, &zero.stream, 5), AN_ERROR);
    NUMBER(casync_accept_timeout, (&zero.server, &zero.stream, 5), AN_ERROR);
    FUTURE(casync_server_join_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_server_join_op, (&zero.server, &zero.op), 0);
    WITHOUT_OP(casync_server_join_op, (&zero.server, NULL));
    NUMBER(casync_server_join, (NULL), AN_ERROR);
    NUMBER(casync_server_join, (&zero.server), AN_ERROR);
    FUTURE(casync_server_wait_clients_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_server_wait_clients_op, (&zero.server, &zero.op), 0);
    WITHOUT_OP(casync_server_wait_clients_op, (&zero.server, NULL));
    NUMBER(casync_server_wait_clients, (NULL), AN_ERROR);
    NUMBER(casync_server_wait_clients, (&zero.server), AN_ERROR);
    NUMBER(casync_server_wait_clients_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_server_wait_clients_timeout, (&zero.server, 5), AN_ERROR);
    NUMBER(casync_accept_timeout, (NULL, &zero.stream, 5), AN_ERROR);
    NUMBER(casync_accept_timeout, (&zero.server, &zero.stream, 5), AN_ERROR);
    NUMBER(casync_server_pause, (NULL), AN_ERROR);
    NUMBER(casync_server_pause, (&zero.server), CASYNC_INVALID_STATE);
    NUMBER(casync_server_resume, (NULL), AN_ERROR);
    NUMBER(casync_server_resume, (&zero.server), CASYNC_INVALID_STATE);
    NOTHING(casync_server_close, (NULL));
    NOTHING(casync_server_close, (&zero.server));
    NUMBER(casync_server_abort_clients, (NULL), AN_ERROR);
    NUMBER(casync_server_abort_clients, (&zero.server), NO_RESULT);
    NUMBER(casync_server_finish_clients, (NULL), AN_ERROR);
    NUMBER(casync_server_finish_clients, (&zero.server), NO_RESULT);
    NOTHING(casync_server_ref, (NULL, true));
    NOTHING(casync_server_ref, (&zero.server, false));
}

static void datagrams(void) {
    NUMBER(casync_datagram_open, (NULL, &zero.datagram, &zero.datagram_desc), -EINVAL);
    NUMBER(casync_datagram_open, (&zero.loop, &zero.datagram, &zero.datagram_desc), -EINVAL);
    NUMBER(casync_datagram_open, (&loop, NULL, &zero.datagram_desc), -EINVAL);
    NUMBER(casync_datagram_open, (&loop, &zero.datagram, NULL), -EINVAL);
    NUMBER(casync_datagram_write, (NULL, byte, 1, NULL), AN_ERROR);
    NUMBER(casync_datagram_write, (&zero.datagram, byte, 1, NULL), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_writev, (NULL, &zero.span, 1, NULL), AN_ERROR);
    NUMBER(casync_datagram_writev, (&zero.datagram, &zero.span, 1, NULL), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_writev, (&zero.datagram, NULL, 1, NULL), AN_ERROR);
    NUMBER(casync_datagram_try_write, (NULL, byte, 1, NULL), AN_ERROR);
    NUMBER(casync_datagram_try_write, (&zero.datagram, byte, 1, &zero.address),
           CASYNC_INVALID_STATE);
    FUTURE(casync_datagram_send_op, (NULL, &zero.op, byte, 1, NULL), AN_ERROR);
    FUTURE(casync_datagram_send_op, (&zero.datagram, &zero.op, byte, 1, NULL),
           CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_datagram_send_op, (&zero.datagram, NULL, byte, 1, NULL));
    NUMBER(casync_datagram_send, (NULL, byte, 1, NULL), AN_ERROR);
    NUMBER(casync_datagram_send, (&zero.datagram, byte, 1, NULL), AN_ERROR);
    FUTURE(casync_datagram_receive_op, (NULL, &zero.op, byte, 1, NULL), AN_ERROR);
    FUTURE(casync_datagram_receive_op, (&zero.datagram, &zero.op, byte, 1, NULL),
           CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_datagram_receive_op, (&zero.datagram, NULL, byte, 1, NULL));
    NUMBER(casync_datagram_receive, (NULL, byte, 1, NULL), AN_ERROR);
    NUMBER(casync_datagram_receive, (&zero.datagram, byte, 1, NULL), AN_ERROR);
    FUTURE(casync_datagram_drain_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_datagram_drain_op, (&zero.datagram, &zero.op), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_datagram_drain_op, (&zero.datagram, NULL));
    NUMBER(casync_datagram_drain, (NULL), AN_ERROR);
    NUMBER(casync_datagram_drain, (&zero.datagram), AN_ERROR);
    NUMBER(casync_datagram_set_write_limits, (NULL, 2, 1), AN_ERROR);
    NUMBER(casync_datagram_set_write_limits, (&zero.datagram, 2, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_pause_reading, (NULL), AN_ERROR);
    NUMBER(casync_datagram_pause_reading, (&zero.datagram), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_resume_reading, (NULL), AN_ERROR);
    NUMBER(casync_datagram_resume_reading, (&zero.datagram), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_set_protocol, (NULL, NULL), AN_ERROR);
    NUMBER(casync_datagram_set_protocol, (&zero.datagram, NULL), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_is_open, (NULL), false);
    NUMBER(casync_datagram_is_open, (&zero.datagram), false);
    NOTHING(casync_datagram_ref, (NULL, true));
    NOTHING(casync_datagram_ref, (&zero.datagram, false));
    NUMBER(casync_datagram_finish_start, (NULL), AN_ERROR);
    NUMBER(casync_datagram_finish_start, (&zero.datagram), CASYNC_INVALID_STATE);
    FUTURE(casync_datagram_finish_op, (NULL, &zero.op), AN_ERROR);
    FUTURE(casync_datagram_finish_op, (&zero.datagram, &zero.op), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_datagram_finish_op, (&zero.datagram, NULL));
    NUMBER(casync_datagram_finish, (NULL), AN_ERROR);
    NUMBER(casync_datagram_finish, (&zero.datagram), AN_ERROR);
    NUMBER(casync_datagram_abort, (NULL), AN_ERROR);
    NUMBER(casync_datagram_abort, (&zero.datagram), CASYNC_INVALID_STATE);
    NOTHING(casync_datagram_close, (NULL));
    NOTHING(casync_datagram_close, (&zero.datagram));
    NUMBER(casync_datagram_local_address, (NULL, &zero.address), AN_ERROR);
    NUMBER(casync_datagram_local_address, (&zero.datagram, &zero.address), -EBADF);
    NUMBER(casync_datagram_peer_address, (NULL, &zero.address), AN_ERROR);
    NUMBER(casync_datagram_peer_address, (&zero.datagram, &zero.address), -EBADF);
    NUMBER(casync_datagram_join_group, (NULL, "239.1.2.3", NULL, NULL), AN_ERROR);
    NUMBER(casync_datagram_join_group, (&zero.datagram, "239.1.2.3", NULL, NULL), -EBADF);
    NUMBER(casync_datagram_join_group, (&zero.datagram, NULL, NULL, NULL), AN_ERROR);
    NUMBER(casync_datagram_leave_group, (NULL, "239.1.2.3", NULL, NULL), AN_ERROR);
    NUMBER(casync_datagram_leave_group, (&zero.datagram, "239.1.2.3", NULL, NULL), -EBADF);
    NUMBER(casync_datagram_leave_group, (&zero.datagram, NULL, NULL, NULL), AN_ERROR);
    NUMBER(casync_datagram_set_broadcast, (NULL, true), AN_ERROR);
    NUMBER(casync_datagram_set_broadcast, (&zero.datagram, true), -EBADF);
    NUMBER(casync_datagram_set_ttl, (NULL, 1), AN_ERROR);
    NUMBER(casync_datagram_set_ttl, (&zero.datagram, 1), -EBADF);
    NUMBER(casync_datagram_set_multicast_interface, (NULL, "lo"), AN_ERROR);
    NUMBER(casync_datagram_set_multicast_interface, (&zero.datagram, "lo"), -EBADF);
    NUMBER(casync_datagram_set_multicast_ttl, (NULL, 1), AN_ERROR);
    NUMBER(casync_datagram_set_multicast_ttl, (&zero.datagram, 1), -EBADF);
    NUMBER(casync_datagram_set_multicast_loop, (NULL, true), AN_ERROR);
    NUMBER(casync_datagram_set_multicast_loop, (&zero.datagram, true), -EBADF);
}

static void pools_and_metrics(void) {
    NUMBER(casync_pool_init, (NULL, NULL), -EINVAL);
    NOTHING(casync_pool_close, (NULL));
    NOTHING(casync_pool_close, (&zero.pool));
    FUTURE(casync_pool_shutdown_op, (NULL, &zero.pool, &zero.op), -EINVAL);
    FUTURE(casync_pool_shutdown_op, (&zero.loop, &zero.pool, &zero.op), -EINVAL);
    FUTURE(casync_pool_shutdown_op, (&loop, NULL, &zero.op), AN_ERROR);
    FUTURE(casync_pool_shutdown_op, (&loop, &zero.pool, &zero.op), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_pool_shutdown_op, (&loop, &zero.pool, NULL));
    NUMBER(casync_pool_shutdown, (NULL), AN_ERROR);
    NUMBER(casync_pool_shutdown, (&zero.pool), AN_ERROR);
    FUTURE(casync_run_in_executor_op, (NULL, NULL, &zero.op, in_a_thread, NULL, NULL), -EINVAL);
    FUTURE(casync_run_in_executor_op, (&zero.loop, NULL, &zero.op, in_a_thread, NULL, NULL),
           -EINVAL);
    FUTURE(casync_run_in_executor_op, (&loop, &zero.pool, &zero.op, in_a_thread, NULL, NULL),
           CASYNC_INVALID_STATE);
    FUTURE(casync_run_in_executor_op, (&loop, NULL, &zero.op, NULL, NULL, NULL), -EINVAL);
    WITHOUT_OP(casync_run_in_executor_op, (&loop, NULL, NULL, in_a_thread, NULL, NULL));
    NUMBER(casync_run_in_executor, (NULL, NULL, NULL, NULL, NULL), AN_ERROR);
    NUMBER(casync_run_in_executor, (&zero.pool, in_a_thread, NULL, NULL, NULL), AN_ERROR);
    FUTURE(casync_shutdown_default_executor_op, (NULL, &zero.op), -EINVAL);
    FUTURE(casync_shutdown_default_executor_op, (&zero.loop, &zero.op), -EINVAL);
    WITHOUT_OP(casync_shutdown_default_executor_op, (&loop, NULL));
    NUMBER(casync_shutdown_default_executor, (), -EPERM);
    NOTHING(casync_loop_metrics, (NULL, &zero.metrics));
    NOTHING(casync_loop_metrics, (&zero.loop, &zero.metrics));
    NOTHING(casync_loop_metrics, (&loop, NULL));
}

/* What waits, in a task that could. (Zeroed locks, queues and their like are ready to use: not
   here.) */
static void waits(void) {
    NUMBER(casync_await, (NULL), AN_ERROR);
    NUMBER(casync_await, (&zero.future), AN_ERROR);
    NUMBER(casync_join, (NULL), AN_ERROR);
    NUMBER(casync_join, (&zero.task), AN_ERROR);
    NUMBER(casync_await_begin, (NULL, NULL), false);
    NUMBER(casync_await_begin, (&zero.task, NULL), false);
    NUMBER(casync_await_begin, (casync_current_task(), &zero.future), false);
    NUMBER(casync_context_set, (NULL, byte), AN_ERROR);
    NUMBER(casync_wait_readable, (-1), AN_ERROR);
    NUMBER(casync_generator_yield, (NULL, NULL), AN_ERROR);
    NUMBER(casync_generator_yield, (&zero.generator, NULL), -EPERM);
    NUMBER(casync_generator_next, (NULL, &zero.item), AN_ERROR);
    NUMBER(casync_generator_next, (&zero.generator, &zero.item), CASYNC_INVALID_STATE);
    NUMBER(casync_generator_close, (NULL), NO_RESULT);
    NUMBER(casync_generator_close, (&zero.generator), 0);
    NUMBER(casync_await, (casync_generator_next_op(&zero.generator)), CASYNC_INVALID_STATE);
    NUMBER(casync_gather, (NULL, 1, CASYNC_FIRST_ERROR), -EINVAL);
    NUMBER(casync_gather, (zero.waiters, 2, CASYNC_FIRST_ERROR), -EINVAL);
    NUMBER(casync_wait, (NULL, 1, CASYNC_ALL_COMPLETED, 5), -EINVAL);
    NUMBER(casync_wait, (zero.waiters, 2, CASYNC_ALL_COMPLETED, 5), -EINVAL);
    NUMBER(casync_select, (NULL, 1, 5), -EINVAL);
    NUMBER(casync_select, (zero.waiters, 2, 5), -EINVAL);
    NUMBER(casync_completion_next, (NULL, &zero.future_found), AN_ERROR);
    NUMBER(casync_completion_next, (&zero.completion, &zero.future_found), NO_RESULT);
    NUMBER(casync_wait_for, (NULL, 5), AN_ERROR);
    NUMBER(casync_wait_for, (&zero.future, 5), AN_ERROR);
    NUMBER(casync_wait_for, (&zero.future, 0), AN_ERROR);
    NUMBER(casync_shield, (NULL), AN_ERROR);
    NUMBER(casync_shield, (&zero.future), AN_ERROR);
    NUMBER(casync_await, (casync_shield_op(&zero.shielded, &zero.future)), AN_ERROR);
    NUMBER(casync_timeout_begin, (NULL, 5), AN_ERROR);
    NUMBER(casync_task_group_begin, (NULL), AN_ERROR);
    NUMBER(casync_task_group_end, (NULL, 0), AN_ERROR);
    NUMBER(casync_task_group_end, (&zero.group, 0), -EPERM);
    NUMBER(casync_event_wait, (NULL), AN_ERROR);
    NUMBER(casync_lock_acquire, (NULL), AN_ERROR);
    NUMBER(casync_lock_acquire_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_rwlock_acquire_read, (NULL), AN_ERROR);
    NUMBER(casync_rwlock_acquire_write, (NULL), AN_ERROR);
    NUMBER(casync_condition_wait, (NULL), AN_ERROR);
    NUMBER(casync_condition_wait, (&zero.condition), CASYNC_INVALID_STATE);
    NUMBER(casync_semaphore_acquire, (NULL), AN_ERROR);
    NUMBER(casync_barrier_wait, (NULL), AN_ERROR);
    NUMBER(casync_barrier_wait, (&zero.barrier), CASYNC_INVALID_STATE);
    NUMBER(casync_wait_group_wait, (NULL), AN_ERROR);
    NUMBER(casync_once_begin, (NULL), AN_ERROR);
    NUMBER(casync_once_call, (NULL, returns_zero, NULL), AN_ERROR);
    NUMBER(casync_once_call, (&zero.once, NULL, NULL), AN_ERROR);
    NUMBER(casync_queue_put, (NULL, NULL), AN_ERROR);
    NUMBER(casync_queue_put_timeout, (NULL, NULL, 5), AN_ERROR);
    NUMBER(casync_queue_get, (NULL, &zero.item), AN_ERROR);
    NUMBER(casync_queue_get, (&zero.queue, NULL), AN_ERROR);
    NUMBER(casync_queue_get_timeout, (NULL, &zero.item, 5), AN_ERROR);
    NUMBER(casync_queue_join, (NULL), AN_ERROR);
    NUMBER(casync_connect, (NULL, &zero.stream, &zero.connect_desc), AN_ERROR);
    NUMBER(casync_connect, (&zero.loop, &zero.stream, &zero.connect_desc), AN_ERROR);
    NUMBER(casync_connect, (&loop, NULL, &zero.connect_desc), -EINVAL);
    NUMBER(casync_connect, (&loop, &zero.stream, NULL), -EINVAL);
    NUMBER(casync_connect_timeout, (&loop, &zero.stream, NULL, 5), -EINVAL);
    NUMBER(casync_read, (NULL, byte, 1), AN_ERROR);
    NUMBER(casync_read, (&zero.stream, byte, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_read_exactly, (NULL, byte, 1), AN_ERROR);
    NUMBER(casync_read_exactly, (&zero.stream, byte, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_read_until, (NULL, "x", 1, &zero.data), AN_ERROR);
    NUMBER(casync_read_until, (&zero.stream, "x", 1, &zero.data), CASYNC_INVALID_STATE);
    NUMBER(casync_read_frame, (NULL, &zero.framing, &zero.data), AN_ERROR);
    NUMBER(casync_read_frame, (&zero.stream, NULL, &zero.data), AN_ERROR);
    NUMBER(casync_read_timeout, (NULL, byte, 1, 5), AN_ERROR);
    NUMBER(casync_read_exactly_timeout, (NULL, byte, 1, 5), AN_ERROR);
    NUMBER(casync_read_until_timeout, (NULL, "x", 1, &zero.data, 5), AN_ERROR);
    NUMBER(casync_read_frame_timeout, (NULL, &zero.framing, &zero.data, 5), AN_ERROR);
    NUMBER(casync_read_frame_timeout, (&zero.stream, NULL, &zero.data, 5), AN_ERROR);
    NUMBER(casync_drain, (NULL), AN_ERROR);
    NUMBER(casync_drain, (&zero.stream), CASYNC_INVALID_STATE);
    NUMBER(casync_drain_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_drain_timeout, (&zero.stream, 5), AN_ERROR);
    NUMBER(casync_write_all, (NULL, byte, 1), AN_ERROR);
    FUTURE(casync_write_all_op, (NULL, &zero.op, byte, 1), AN_ERROR);
    FUTURE(casync_write_all_op, (&zero.stream, &zero.op, byte, 1), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_write_all_op, (&zero.stream, NULL, byte, 1));
    NUMBER(casync_write_all, (&zero.stream, byte, 1), AN_ERROR);
    NUMBER(casync_write_all_timeout, (NULL, byte, 1, 5), AN_ERROR);
    NUMBER(casync_write_all_timeout, (&zero.stream, byte, 1, 5), AN_ERROR);
    NUMBER(casync_finish, (NULL), AN_ERROR);
    NUMBER(casync_finish, (&zero.stream), CASYNC_INVALID_STATE);
    NUMBER(casync_finish_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_finish_timeout, (&zero.stream, 5), CASYNC_INVALID_STATE);
    NUMBER(casync_write_all, (NULL, byte, 1), AN_ERROR);
    FUTURE(casync_write_all_op, (NULL, &zero.op, byte, 1), AN_ERROR);
    FUTURE(casync_write_all_op, (&zero.stream, &zero.op, byte, 1), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_write_all_op, (&zero.stream, NULL, byte, 1));
    NUMBER(casync_write_all, (&zero.stream, byte, 1), CASYNC_INVALID_STATE);
    NUMBER(casync_write_all_timeout, (&zero.stream, byte, 1, 5), CASYNC_INVALID_STATE);
    NUMBER(casync_drain_timeout, (&zero.stream, 5), CASYNC_INVALID_STATE);
    NUMBER(casync_read_frame_timeout, (&zero.stream, NULL, &zero.data, 5), AN_ERROR);
    NUMBER(casync_accept_timeout, (&zero.server, &zero.stream, 5), CASYNC_INVALID_STATE);
    NUMBER(casync_server_wait_clients_timeout, (&zero.server, 5), 0);
    NUMBER(casync_accept, (NULL, &zero.stream), AN_ERROR);
    NUMBER(casync_accept, (&zero.server, &zero.stream), CASYNC_INVALID_STATE);
    NUMBER(casync_accept_timeout, (NULL, &zero.stream, 5), AN_ERROR);
    NUMBER(casync_accept_timeout, (&zero.server, &zero.stream, 5), AN_ERROR);
    NUMBER(casync_server_join, (NULL), AN_ERROR);
    NUMBER(casync_server_join, (&zero.server), 0);
    NUMBER(casync_server_wait_clients, (NULL), AN_ERROR);
    NUMBER(casync_server_wait_clients, (&zero.server), 0);
    NUMBER(casync_server_wait_clients_timeout, (NULL, 5), AN_ERROR);
    NUMBER(casync_server_wait_clients_timeout, (&zero.server, 5), 0);
    NUMBER(casync_datagram_send, (NULL, byte, 1, NULL), AN_ERROR);
    NUMBER(casync_datagram_send, (&zero.datagram, byte, 1, NULL), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_receive, (NULL, byte, 1, NULL), AN_ERROR);
    NUMBER(casync_datagram_receive, (&zero.datagram, byte, 1, NULL), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_drain, (NULL), AN_ERROR);
    NUMBER(casync_datagram_drain, (&zero.datagram), CASYNC_INVALID_STATE);
    NUMBER(casync_datagram_finish, (NULL), AN_ERROR);
    NUMBER(casync_datagram_finish, (&zero.datagram), CASYNC_INVALID_STATE);
    NUMBER(casync_pool_shutdown, (NULL), AN_ERROR);
    NUMBER(casync_pool_shutdown, (&zero.pool), CASYNC_INVALID_STATE);
    NUMBER(casync_run_in_executor, (&zero.pool, in_a_thread, NULL, NULL, NULL),
           CASYNC_INVALID_STATE);
    NUMBER(casync_run_in_executor, (NULL, NULL, NULL, NULL, NULL), -EINVAL);
}

/* >> running them ----------------------------------------------------------------------------- */

typedef void (*cases)(void);

/* The child ends here if a case waits: nothing else would happen in its loop. */
static void still_waits(void *arg) {
    (void)arg;
    _exit(2);
}

static cases cases_in_task;

static int64_t run_in_task(casync_loop *where, void *arg) {
    (void)where, (void)arg;
    cases_in_task();
    return 0;
}

static void run_from_first(cases list, bool in_task) {
    casync_timer timer = ZERO;
    open_loop(CASYNC_CLOCK_VIRTUAL_FORCED);
    EQ(casync_call_later(&loop, &timer, CASYNC_SECONDS(1000000), still_waits, NULL), 0);
    cases_in_task = list;
    if (in_task)
        EQ(run_task(run_in_task, NULL), 0);
    else
        list();
    fflush(stdout);
    _exit(0);
}

/* Runs the cases of a list. Each that is answered wrongly, waits or crashes is told. */
static void run_cases(cases list, bool in_task) {
    int status = -1;
    progress->first = 1;
    progress->failed = 0;
    while (status != 0) {
        pid_t pid;
        progress->number = 0;
        pid = fork_child();
        if (pid == 0) run_from_first(list, in_task);
        status = child_status(pid);
        if (status == 0) break;
        if (status == 2)
            printf("# %s: waits\n", progress->call);
        else
            printf("# %s: ended by %s\n", progress->call,
                   status < 0 ? strsignal(-status) : "an exit");
        progress->failed++;
        progress->first = progress->number + 1;
    }
    EQ(progress->failed, 0);
}

static void share_progress(void) {
    void *memory_shared =
        mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(memory_shared != MAP_FAILED);
    memcpy(&progress, &memory_shared, sizeof progress);
}

TEST(clock_and_loop_of_nothing) {
    share_progress();
    run_cases(clock_and_loop, false);
}

TEST(timers_and_futures_of_nothing) {
    share_progress();
    run_cases(timers_and_futures, false);
}

TEST(watchers_posts_and_signals_of_nothing) {
    share_progress();
    run_cases(watchers_posts_and_signals, false);
}

TEST(buffers_of_nothing) {
    share_progress();
    run_cases(buffers, false);
}

TEST(tasks_of_nothing) {
    share_progress();
    run_cases(tasks, false);
}

TEST(groups_of_futures_and_tasks_of_nothing) {
    share_progress();
    run_cases(groups_of_futures_and_tasks, false);
}

TEST(sync_primitives_of_nothing) {
    share_progress();
    run_cases(sync_primitives, false);
}

TEST(addresses_of_nothing) {
    share_progress();
    run_cases(addresses, false);
}

TEST(streams_of_nothing) {
    share_progress();
    run_cases(streams, false);
}

TEST(servers_of_nothing) {
    share_progress();
    run_cases(servers, false);
}

TEST(datagrams_of_nothing) {
    share_progress();
    run_cases(datagrams, false);
}

TEST(pools_and_metrics_of_nothing) {
    share_progress();
    run_cases(pools_and_metrics, false);
}

TEST(waits_of_nothing) {
    share_progress();
    run_cases(waits, true);
}

/* >> that they are all ------------------------------------------------------------------------- */

/* The header beside which the tests run, or from whose directory they were compiled. */
static FILE *open_header(void) {
    FILE *header = fopen("casync.h", "re");
    char path[4096];
    const char *directory = strrchr(__FILE__, '/');
    if (header || !directory) return header;
    snprintf(path, sizeof path, "%.*s/../../casync.h", (int)(directory - __FILE__), __FILE__);
    return fopen(path, "re");
}

/* The name that stands before the parenthesis. */
static void note_declaration(char *line) {
    char *end = strchr(line, '('), *begin = end;
    EXPECT(end);
    while (begin > line && (begin[-1] == '_' || (begin[-1] >= 'a' && begin[-1] <= 'z'))) begin--;
    EXPECT(declared_count < FUNCTIONS_MAX);
    snprintf(declared[declared_count++].name, sizeof declared[0].name, "%.*s", (int)(end - begin),
             begin);
}

static void read_declarations(void) {
    FILE *header = open_header();
    char line[256];
    if (!header) SKIP("the header is not where the tests run");
    while (fgets(line, sizeof line, header) && strncmp(line, "#endif /* CASYNC_H */", 21) != 0)
        if (strncmp(line, "CASYNC_API ", 11) == 0 || strncmp(line, "CASYNC_WAITS ", 13) == 0)
            note_declaration(line);
    fclose(header);
}

TEST(every_function_has_its_cases) {
    int i, missing = 0;
    share_progress();
    read_declarations();
    EXPECT(declared_count > 200);
    only_naming = true;
    clock_and_loop();
    timers_and_futures();
    watchers_posts_and_signals();
    buffers();
    tasks();
    groups_of_futures_and_tasks();
    sync_primitives();
    addresses();
    streams();
    servers();
    datagrams();
    pools_and_metrics();
    for (i = 0; i < declared_count; i++) {
        if (declared[i].has_case) continue;
        printf("# no case for %s\n", declared[i].name);
        missing++;
    }
    EQ(missing, 0);
}

TEST_MAIN
