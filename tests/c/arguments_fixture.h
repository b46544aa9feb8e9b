/* arguments_fixture.h - cases of what a function answers to its arguments, and how they are run. */
#ifndef ARGUMENTS_FIXTURE_H
#define ARGUMENTS_FIXTURE_H

#include "loop_fixture.h"

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
    casync_addrinfo addrinfo;
    casync_getaddrinfo_desc question;
    casync_nameinfo nameinfo;
    casync_watch watch;
    casync_watch_desc watch_desc;
    casync_change change;
    casync_process process;
    casync_process_desc process_desc;
    casync_process_output output;
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

static void wrong(const char *file, int line, const char *expected, int64_t got) {
    printf("# %s:%d: %s: expected %s, got %" PRId64 "\n", file, line, progress->call, expected,
           got);
    progress->failed++;
}

static void answered(const char *file, int line, int64_t got, int64_t expected) {
    char number[32];
    if (expected == ANYTHING || (expected == AN_ERROR && got < 0) ||
        (expected == NO_RESULT && got <= 0))
        return;
    if (expected == AN_ERROR || expected == NO_RESULT) {
        wrong(file, line, expected == AN_ERROR ? "an error" : "no result", got);
        return;
    }
    snprintf(number, sizeof number, "%" PRId64, expected);
    if (got != expected) wrong(file, line, number, got);
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
    if (begins(#function, #arguments))                                                             \
    answered(__FILE__, __LINE__, (int64_t)function arguments, expected)
#define NOTHING(function, arguments)                                                               \
    if (begins(#function, #arguments)) function arguments
#define POINTER(function, arguments)                                                               \
    if (begins(#function, #arguments)) answered(__FILE__, __LINE__, function arguments != NULL, 0)
#define FUTURE(function, arguments, expected)                                                      \
    if (begins(#function, #arguments))                                                             \
    answered(__FILE__, __LINE__, answer_of(function arguments), expected)
#define WITHOUT_OP(function, arguments)                                                            \
    if (begins(#function, #arguments))                                                             \
    answered(__FILE__, __LINE__, answer_without_op(function arguments), AN_ERROR)
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

#endif /* ARGUMENTS_FIXTURE_H */
