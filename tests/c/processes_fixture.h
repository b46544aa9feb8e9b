/* processes_fixture.h - a process, and what it wrote. */
#ifndef PROCESSES_FIXTURE_H
#define PROCESSES_FIXTURE_H

#include "pool_fixture.h" /* without pidfds, as in valgrind, threads wait */

HELPER casync_process process;
HELPER casync_process_desc desc;
HELPER casync_process_output output;
HELPER casync_span input;

HELPER int64_t communicates_with(casync_loop *where, void *arg) {
    (void)where;
    return casync_process_communicate((casync_process *)arg, input, &output, 0);
}

HELPER int64_t communicates(casync_loop *where, void *arg) {
    (void)arg;
    return communicates_with(where, &process);
}

/* Starts what desc says, and returns what it ended with; out and err are in `output`. */
HELPER int64_t run_process(void) {
    int64_t result;
    if (desc.out == CASYNC_STDIO_INHERIT) desc.out = CASYNC_STDIO_PIPE;
    EQ(casync_process_start(&loop, &process, &desc), 0);
    result = run_task(communicates, NULL);
    casync_process_close(&process);
    return result;
}

/* Compares what was written with words, and frees it. */
HELPER void wrote(const casync_buffer *buffer, const char *expected) {
    char text[4096];
    EXPECT(buffer->len < sizeof text);
    memcpy(text, buffer->ptr ? buffer->ptr : "", buffer->len);
    text[buffer->len] = 0;
    STR_EQ(text, expected);
}

/* Runs a command line for the shell, and compares what it wrote. */
HELPER void shell_writes(const char *command, const char *expected) {
    desc.shell = command;
    EQ(run_process(), 0);
    wrote(&output.out, expected);
    casync_process_output_free(&output);
}

/* This process has no child left, not even a zombie. */
HELPER void expect_no_child(void) {
    EQ(waitpid(-1, NULL, WNOHANG), -1);
    EQ(errno, ECHILD);
}

/* Threads may take the status of a child later. */
HELPER void wait_for_no_child(void) {
    siginfo_t info;
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0) sched_yield();
    expect_no_child();
}

HELPER void close_processes(void) {
    casync_process_close(&process);
    close_pool_loop();
    expect_no_child();
}

#endif /* PROCESSES_FIXTURE_H */
