/* loop_fixture.h - a loop, and what the tests of all sections share. Each test is a process of its
   own, so these are plain globals. */
#ifndef LOOP_FIXTURE_H
#define LOOP_FIXTURE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef TEST_LINKED /* with the implementation, which tests/run compiles once for many files */
#define CASYNC_IMPLEMENTATION
#endif
#include "casync.h"
#include "test.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#define HELPER TEST__UNUSED static

/* >> what happened: callbacks say words, tests compare the sentence --------------------------- */

static char said[1 << 16];
static size_t said_size;

HELPER void say(void *word) {
    size_t left = sizeof said - said_size;
    int n = snprintf(said + said_size, left, "%s%s", said_size ? " " : "", (const char *)word);
    EXPECT(n >= 0 && (size_t)n < left);
    said_size += (size_t)n;
}

HELPER void say_number(const char *word, int64_t number) {
    char text[64];
    snprintf(text, sizeof text, "%s=%" PRId64, word, number);
    say(text);
}

/* A word in the type that callbacks take. */
#define WORD(text) ((void *)(uintptr_t)(text))

/* Compares what was said so far, and forgets it. */
#define SAID(sentence)                                                                             \
    do {                                                                                           \
        STR_EQ(said, sentence);                                                                    \
        said[0] = 0;                                                                               \
        said_size = 0;                                                                             \
    } while (0)

/* qemu-user, where tests/run tells it by this variable what the foreign libraries are: it answers
   some calls with success and does nothing. */
HELPER void skip_under_qemu(const char *reason) {
    if (getenv("QEMU_LD_PREFIX")) SKIP(reason);
}

/* >> memory: an allocator that counts, and fails when it is told ------------------------------ */

static struct {
    int64_t live;        /* blocks allocated and not freed */
    int64_t allocations; /* calls that asked for memory */
    int64_t fail_from;   /* the number of the first of these that fails; 0: none */
    int64_t fail_count;  /* how many fail; 0: all from then on */
} memory;

static bool memory_fails(void) {
    int64_t number = ++memory.allocations;
    if (memory.fail_from == 0 || number < memory.fail_from) return false;
    return memory.fail_count == 0 || number < memory.fail_from + memory.fail_count;
}

static void *counting_allocator(void *user, void *ptr, size_t size) {
    (void)user;
    if (size == 0) {
        if (ptr) memory.live--;
        free(ptr);
        return NULL;
    }
    if (memory_fails()) return NULL;
    if (!ptr) memory.live++;
    return realloc(ptr, size);
}

HELPER casync_allocator test_allocator(void) {
    casync_allocator allocator;
    allocator.function = counting_allocator;
    allocator.user = NULL;
    return allocator;
}

/* Makes the n-th allocation from now fail: that one, or all after it as well. */
HELPER void fail_allocation(int64_t n, int64_t count) {
    memory.fail_from = memory.allocations + n;
    memory.fail_count = count;
}

HELPER void fail_no_allocation(void) { memory.fail_from = 0; }

/* >> descriptors ------------------------------------------------------------------------------ */

HELPER int open_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int n = 0;
    EXPECT(directory);
    while (readdir(directory)) n++;
    closedir(directory);
    return n - 3; /* ".", ".." and the directory's own */
}

HELPER bool under_valgrind(void) {
    const char *preload = getenv("LD_PRELOAD");
    return preload && strstr(preload, "vgpreload");
}

/* No descriptor can be opened after this; undone by allow_descriptors. */
static struct rlimit descriptor_limit;
HELPER void forbid_descriptors(void) {
    struct rlimit limit;
    int next = dup(0);
    if (under_valgrind()) SKIP("valgrind's limit of descriptors is not the kernel's");
    EXPECT(next >= 0);
    close(next);
    EQ(getrlimit(RLIMIT_NOFILE, &descriptor_limit), 0);
    limit = descriptor_limit;
    limit.rlim_cur = (rlim_t)next;
    EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}
HELPER void allow_descriptors(void) { EQ(setrlimit(RLIMIT_NOFILE, &descriptor_limit), 0); }

/* A pipe, with ends[0] to read from. */
HELPER void make_pipe(int ends[2]) { EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0); }

HELPER int socket_option(int fd, int level, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    EQ(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

HELPER void make_socketpair(int ends[2]) {
    EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
}

HELPER void close_both(int ends[2]) {
    close(ends[0]);
    close(ends[1]);
}

HELPER bool has_ipv6(void) {
    struct sockaddr_in6 local;
    int fd = socket(AF_INET6, SOCK_STREAM, 0), result;
    if (fd < 0) return false;
    memset(&local, 0, sizeof local);
    local.sin6_family = AF_INET6;
    local.sin6_addr = in6addr_loopback;
    result = bind(fd, (struct sockaddr *)&local, sizeof local);
    close(fd);
    return result == 0;
}

HELPER void put_byte(int fd) { EQ(write(fd, "x", 1), 1); }
HELPER void get_byte(int fd) {
    char byte;
    EQ(read(fd, &byte, 1), 1);
}

/* >> the loop under test ---------------------------------------------------------------------- */

static casync_loop loop;
static int descriptors_before;

/* Errors that nobody awaited are said as "exception=CODE". */
HELPER void say_exception(casync_loop *where, const casync_exception *exception, void *arg) {
    (void)where;
    (void)arg;
    EXPECT(exception->message && exception->message[0]);
    say_number("exception", exception->error);
}

HELPER void open_loop_with(casync_loop_desc desc) {
    descriptors_before = open_descriptors();
    desc.allocator = test_allocator();
    if (!desc.exception_handler) desc.exception_handler = say_exception;
    EQ(casync_loop_init(&loop, &desc), 0);
}

HELPER void open_loop(int clock) {
    casync_loop_desc desc = ZERO;
    desc.clock = clock;
    open_loop_with(desc);
}

/* Ends the loop; everything that was said has been looked at, nothing has leaked. */
HELPER void close_loop(void) {
    EQ(casync_loop_close(&loop), 0);
    EQ(memory.live, 0);
    EQ(open_descriptors(), descriptors_before);
    STR_EQ(said, "");
}

/* For tests that watch signals: the process keeps two descriptors for these. */
HELPER void expect_signal_descriptors(void) { descriptors_before += 2; }

HELPER void stop_loop(void *arg) {
    (void)arg;
    casync_stop(&loop);
}

HELPER void say_and_stop(void *arg) {
    say(arg);
    casync_stop(&loop);
}

HELPER void do_nothing(void *arg) { (void)arg; }

HELPER void never(void *arg) {
    (void)arg;
    EXPECT(!"this callback must not be called");
}

/* >> turns and operations --------------------------------------------------------------------- */

HELPER casync_op the_op;

/* Runs turns that do not wait. */
HELPER void turn(void) { EQ(casync_run_nowait(&loop), 0); }

HELPER void turns(int count) {
    while (count-- > 0) turn();
}

/* Runs until exactly this was said. */
HELPER void run_until_said(const char *sentence) {
    while (strcmp(said, sentence) != 0) {
        if (said_size >= strlen(sentence)) SAID(sentence); /* something else: fails */
        EQ(casync_run_once(&loop), 0);
    }
    SAID(sentence);
}

HELPER void run_until_done(casync_future *future) {
    while (!casync_future_done(future)) EQ(casync_run_once(&loop), 0);
}

/* Awaits an operation and ends it. */
HELPER int64_t result_of(casync_future *future) {
    int64_t result;
    run_until_done(future);
    result = casync_future_result(future);
    casync_future_close(future);
    return result;
}

/* >> random numbers, the same in every run (splitmix64) --------------------------------------- */

static uint64_t random_state;

HELPER uint64_t random_number(void) {
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

HELPER uint64_t random_below(uint64_t limit) { return random_number() % limit; }

/* >> tasks ------------------------------------------------------------------------------------ */

HELPER casync_task *spawn(casync_coroutine coroutine, void *arg) {
    casync_task *task = casync_spawn(&loop, coroutine, arg);
    EXPECT(task);
    return task;
}

/* The result of a stackful task that was run to its end. */
HELPER int64_t run_task(casync_coroutine coroutine, void *arg) {
    casync_task *task = spawn(coroutine, arg);
    int64_t result = casync_run_until_complete(&task->future);
    casync_task_release(task);
    return result;
}

/* A test whose body is a stackful task in a loop with virtual time. */
#define IN_TASK(name)                                                                              \
    static void in_task_##name(void);                                                              \
    static int64_t main_of_##name(casync_loop *where, void *arg) {                                 \
        (void)where, (void)arg;                                                                    \
        in_task_##name();                                                                          \
        return 0;                                                                                  \
    }                                                                                              \
    TEST(name) {                                                                                   \
        open_loop(CASYNC_CLOCK_VIRTUAL);                                                           \
        EQ(run_task(main_of_##name, NULL), 0);                                                     \
        close_loop();                                                                              \
    }                                                                                              \
    static void in_task_##name(void)

/* Coroutines. Each sleeps some milliseconds, its argument. */
#define MILLISECONDS(n) ((void *)(intptr_t)(n))

/* Returns how long it slept, or that it was cancelled. */
HELPER int64_t sleeps(casync_loop *where, void *ms) {
    int64_t slept = casync_sleep(CASYNC_MS((intptr_t)ms));
    (void)where;
    return slept < 0 ? slept : (intptr_t)ms;
}

HELPER int64_t awaits(casync_loop *where, void *future) {
    (void)where;
    return casync_await((casync_future *)future);
}

HELPER int64_t fails_after(casync_loop *where, void *ms) {
    int64_t slept = sleeps(where, ms);
    return slept < 0 ? slept : -EIO;
}

/* Makes of its cancellation an error. */
HELPER int64_t fails_if_cancelled(casync_loop *where, void *ms) {
    int64_t slept = sleeps(where, ms);
    return slept == -ECANCELED ? -EDOM : slept;
}

/* Takes no notice of being cancelled. */
HELPER int64_t sleeps_on(casync_loop *where, void *ms) {
    int64_t end = casync_time(where) + CASYNC_MS((intptr_t)ms);
    while (casync_time(where) < end) casync_ignore(casync_sleep(end - casync_time(where)));
    return (intptr_t)ms;
}

/* >> processes and threads -------------------------------------------------------------------- */

/* Forks: 0 in the child. */
HELPER pid_t fork_child(void) {
    pid_t pid;
    fflush(stdout);
    pid = fork();
    EXPECT(pid >= 0);
    return pid;
}

/* The child's exit status, or -N if signal N killed it. */
HELPER int child_status(pid_t pid) {
    int status;
    EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static char words_on_stderr[1 << 16];

/* Runs it in a child, whose words on stderr are looked at; returns the child's status. */
HELPER int run_in_child(void (*function)(void)) {
    int ends[2];
    size_t size = 0;
    ssize_t n;
    pid_t pid;
    EQ(pipe(ends), 0);
    pid = fork_child();
    if (pid == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(ends[1], 2);
        close_both(ends);
        function();
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], words_on_stderr + size, sizeof words_on_stderr - 1 - size)) > 0)
        size += (size_t)n;
    words_on_stderr[size] = 0;
    close(ends[0]);
    return child_status(pid);
}

HELPER int times_on_stderr(const char *words) {
    const char *found = words_on_stderr;
    int times = 0;
    for (; (found = strstr(found, words)) != NULL; found++) times++;
    return times;
}

HELPER pthread_t start_thread(void *(*run)(void *), void *arg) {
    pthread_t thread;
    EQ(pthread_create(&thread, NULL, run, arg), 0);
    return thread;
}

HELPER void join_thread(pthread_t thread) { EQ(pthread_join(thread, NULL), 0); }

#endif /* LOOP_FIXTURE_H */
