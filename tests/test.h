/* test.h - a test runner in one header, for C99 to C17 and C++17 under gcc, clang and tcc (Linux).

       #include "test.h"

       TEST(two_and_two) { EQ(2 + 2, 4); }
       TEST(needs_root) {
           if (getuid() != 0) SKIP("not root");
           EXPECT(chroot("/") == 0);
       }

   That is a whole program: main is in this header. TEST names a test once: before main, its
   constructor puts it on the list of tests, which are run in the order of their files and lines.
   TEST_WITHIN(2, name) fails after 2 seconds, where --timeout allows more.

   Each test runs in a child process: a crash, a hang or a changed signal mask costs one test. A
   failed expectation ends its test. In a child that a test forks it ends that child with status 1.

   Arguments: -k TEXT     only tests whose name (file.test) contains TEXT
              -l          list the names
              --tap       report in the Test Anything Protocol
              --timeout N seconds a test may take (default 30)
              --quick     test_quick is true: fewer rounds, for valgrind and the like
              --no-fork   in this process, where a failure aborts: for debuggers
   The last line is `N passed, N failed, N skipped`; the exit status is 1 if a test failed. */
#ifndef TEST_H
#define TEST_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before the first include"
#endif

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__GNUC__)
#define TEST__UNUSED __attribute__((unused))
#define TEST__PRINTF __attribute__((unused, format(printf, 3, 4)))
#else
#define TEST__UNUSED
#define TEST__PRINTF
#endif

/* A zero initialiser that neither language warns about. */
#ifdef __cplusplus
#define ZERO                                                                                       \
    {}
#else
#define ZERO                                                                                       \
    { 0 }
#endif

#define TEST(name) TEST_WITHIN(INT_MAX, name)
#define TEST_WITHIN(seconds, name)                                                                 \
    static void name(void);                                                                        \
    __attribute((constructor)) static void test__add_##name(void) {                                \
        static test__entry entry = {NULL, __FILE__, #name, name, __LINE__, seconds};               \
        test__add(&entry);                                                                         \
    }                                                                                              \
    static void name(void)

/* Each of these evaluates its arguments once. */
#define EXPECT(condition) test__expect(__FILE__, __LINE__, #condition, !!(condition))
#define EQ(got, expected) test__equal(__FILE__, __LINE__, #got, (int64_t)(got), (int64_t)(expected))
#define PTR_EQ(got, expected) test__equal_ptr(__FILE__, __LINE__, #got, got, expected)
#define STR_EQ(got, expected) test__equal_str(__FILE__, __LINE__, #got, got, expected)
#define MEM_EQ(got, expected, size) test__equal_mem(__FILE__, __LINE__, #got, got, expected, size)
#define SKIP(reason) test__skip(reason)

enum { TEST__SKIPPED = 77, TEST__REASON_SIZE = 256 };

static bool test_quick TEST__UNUSED; /* the run shall be short */

typedef struct test__entry test__entry;
struct test__entry {
    test__entry *next;
    const char *file;
    const char *name;
    void (*function)(void);
    int line;
    int seconds; /* it may take, if --timeout is not less */
};

static test__entry *test__entries; /* by file, line and name */

static struct {
    const char *filter;
    bool tap, list, no_fork;
    int timeout;
    int number, passed, failed, skipped;
    char *reason; /* why the test was skipped; shared with the children */
} test__run_state;

/* A failed expectation: says what and where, and ends the test. */
TEST__PRINTF static void test__fail(const char *file, int line, const char *format, ...) {
    va_list args;
    printf("# %s:%d: ", file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    if (test__run_state.no_fork) abort();
    _exit(1);
}

TEST__UNUSED static void test__expect(const char *file, int line, const char *what, bool held) {
    if (!held) test__fail(file, line, "expected %s", what);
}

TEST__UNUSED static void test__equal(const char *file, int line, const char *what, int64_t got,
                                     int64_t expected) {
    if (got == expected) return;
    test__fail(file, line, "%s: expected %" PRId64 ", got %" PRId64, what, expected, got);
}

TEST__UNUSED static void test__equal_ptr(const char *file, int line, const char *what,
                                         const void *got, const void *expected) {
    if (got == expected) return;
    test__fail(file, line, "%s: expected %p, got %p", what, expected, got);
}

TEST__UNUSED static void test__equal_str(const char *file, int line, const char *what,
                                         const char *got, const char *expected) {
    if (strcmp(got, expected) == 0) return;
    test__fail(file, line, "%s: expected \"%s\", got \"%s\"", what, expected, got);
}

TEST__UNUSED static void test__equal_mem(const char *file, int line, const char *what,
                                         const void *got, const void *expected, size_t size) {
    const unsigned char *a = (const unsigned char *)got, *b = (const unsigned char *)expected;
    size_t i;
    for (i = 0; i < size; i++) {
        if (a[i] == b[i]) continue;
        test__fail(file, line, "%s: byte %zu: expected 0x%02x, got 0x%02x", what, i, (unsigned)b[i],
                   (unsigned)a[i]);
    }
}

TEST__UNUSED static void test__skip(const char *reason) {
    snprintf(test__run_state.reason, TEST__REASON_SIZE, "%s", reason);
    fflush(stdout);
    _exit(TEST__SKIPPED);
}

static bool test__is_before(const test__entry *one, const test__entry *other) {
    int files = strcmp(one->file, other->file);
    if (files != 0) return files < 0;
    if (one->line != other->line) return one->line < other->line;
    return strcmp(one->name, other->name) < 0;
}

/* Constructors come in no order that compilers promise: with gcc's -flto the last comes first. */
TEST__UNUSED static void test__add(test__entry *entry) {
    test__entry **place = &test__entries;
    while (*place && test__is_before(*place, entry)) place = &(*place)->next;
    entry->next = *place;
    *place = entry;
}

enum { TEST__NAME_SIZE = 160 };

/* "tests/c/test_wheel.c" and "ticks" give "wheel.ticks". */
static void test__full_name(const test__entry *test, char name[TEST__NAME_SIZE]) {
    const char *file = strrchr(test->file, '/');
    file = file ? file + 1 : test->file;
    if (strncmp(file, "test_", 5) == 0) file += 5;
    snprintf(name, TEST__NAME_SIZE, "%.*s.%s", (int)strcspn(file, "."), file, test->name);
}

static void test__usage(const char *argument) {
    fprintf(stderr, "unknown argument %s; see the top of test.h\n", argument);
    exit(2);
}

static void test__begin(int argc, char **argv) {
    int i;
    test__run_state.timeout = 30;
    for (i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "-k") == 0 && more)
            test__run_state.filter = argv[++i];
        else if (strcmp(argv[i], "--timeout") == 0 && more)
            test__run_state.timeout = atoi(argv[++i]);
        else if (strcmp(argv[i], "-l") == 0)
            test__run_state.list = true;
        else if (strcmp(argv[i], "--tap") == 0)
            test__run_state.tap = true;
        else if (strcmp(argv[i], "--quick") == 0)
            test_quick = true;
        else if (strcmp(argv[i], "--no-fork") == 0)
            test__run_state.no_fork = true;
        else
            test__usage(argv[i]);
    }
    test__run_state.reason = (char *)mmap(NULL, TEST__REASON_SIZE, PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (test__run_state.reason == MAP_FAILED) exit(2);
}

static int test__end(void) {
    if (test__run_state.list) return 0;
    if (test__run_state.tap) printf("1..%d\n", test__run_state.number);
    printf("%d passed, %d failed, %d skipped\n", test__run_state.passed, test__run_state.failed,
           test__run_state.skipped);
    return test__run_state.failed != 0;
}

/* Runs the test in this process, which it ends by exit() so that leak checkers see it. */
static void test__child(void (*test)(void), pid_t parent, const sigset_t *mask) {
    setpgid(0, 0); /* a timeout kills what the test forked, too */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    sigprocmask(SIG_SETMASK, mask, NULL);
    test();
    exit(0);
}

/* Waits for the child, or kills its process group after the timeout. Returns whether it ended. */
static bool test__wait(pid_t pid, int seconds, const sigset_t *sigchld, int *status) {
    struct timespec now, deadline, left;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += seconds;
    while (waitpid(pid, status, WNOHANG) == 0) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec >= deadline.tv_sec) {
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            waitpid(pid, status, 0);
            return false;
        }
        left.tv_sec = deadline.tv_sec - now.tv_sec;
        left.tv_nsec = 0;
        sigtimedwait(sigchld, NULL, &left);
    }
    kill(-pid, SIGKILL); /* what it forked and did not reap */
    return true;
}

/* Runs the test in a child. Returns its exit status; says why if it did not exit by itself. */
static int test__fork(const char *name, const test__entry *test) {
    sigset_t sigchld, mask;
    pid_t pid, parent = getpid();
    int status, seconds = test__run_state.timeout;
    if (seconds > test->seconds) seconds = test->seconds;
    sigemptyset(&sigchld);
    sigaddset(&sigchld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &sigchld, &mask);
    fflush(stdout);
    pid = fork();
    if (pid == 0) test__child(test->function, parent, &mask);
    if (pid < 0) {
        printf("# fork: %s\n", strerror(errno));
        status = -1;
    } else if (!test__wait(pid, seconds, &sigchld, &status)) {
        printf("# %s: no end after %d seconds\n", name, seconds);
        status = -1;
    } else if (WIFSIGNALED(status)) {
        printf("# killed by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
        status = -1;
    } else {
        status = WEXITSTATUS(status);
        if (status != 0 && status != 1 && status != TEST__SKIPPED)
            printf("# exit status %d\n", status);
    }
    sigprocmask(SIG_SETMASK, &mask, NULL);
    return status;
}

static void test__report(const char *name, int status) {
    bool tap = test__run_state.tap;
    if (status == 0)
        test__run_state.passed++;
    else if (status == TEST__SKIPPED)
        test__run_state.skipped++;
    else
        test__run_state.failed++;

    if (tap)
        printf("%s %d - %s", status && status != TEST__SKIPPED ? "not ok" : "ok",
               test__run_state.number, name);
    else
        printf("%s %s", status == 0 ? "pass" : status == TEST__SKIPPED ? "SKIP" : "FAIL", name);
    if (status == TEST__SKIPPED) printf(tap ? " # SKIP %s" : ": %s", test__run_state.reason);
    printf("\n");
    fflush(stdout);
}

static void test__run(const test__entry *test) {
    char name[TEST__NAME_SIZE];
    int status = 0;
    test__full_name(test, name);
    if (test__run_state.filter && !strstr(name, test__run_state.filter)) return;
    if (test__run_state.list) {
        printf("%s\n", name);
        return;
    }
    test__run_state.number++;
    if (test__run_state.no_fork)
        test->function();
    else
        status = test__fork(name, test);
    test__report(name, status);
}

int main(int argc, char **argv) {
    const test__entry *test;
    test__begin(argc, argv);
    for (test = test__entries; test; test = test->next) test__run(test);
    return test__end();
}

#endif /* TEST_H */
