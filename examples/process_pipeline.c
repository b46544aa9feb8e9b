/* A pipeline of processes, as the shell's `sort file | uniq -c | sort -rn`: each reads what the one
   before it writes, by pipes that the kernel moves bytes through. We read the last one's output.

   Run it from the repository's root:   tcc -run examples/process_pipeline.c README.md
   It prints the most frequent words of a file, and how each process ended. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { STAGES = 4 };

static const char *const stages[STAGES][5] = {
    {"tr", "-cs", "A-Za-z", "\\n"}, {"sort"}, {"uniq", "-c"}, {"sort", "-rn"}};

/* Starts the stages. `in` is the first one's input; the last one's output is a stream of ours. */
static int64_t start(casync_loop *loop, casync_process processes[STAGES], int in) {
    int64_t result = 0;
    int i;
    for (i = 0; i < STAGES && result >= 0; i++) {
        casync_process_desc desc = {.args = stages[i], .in = CASYNC_STDIO_FD, .in_fd = in};
        int ends[2] = {-1, -1};
        if (i < STAGES - 1) {
            if (pipe2(ends, O_CLOEXEC) < 0) ends[1] = -1;
            desc.out = CASYNC_STDIO_FD;
            desc.out_fd = ends[1];
        } else {
            desc.out = CASYNC_STDIO_PIPE;
        }
        result = casync_process_start(loop, &processes[i], &desc);
        if (result < 0) printf("%s: %s\n", stages[i][0], casync_strerror(result));
        close(in); /* the child has it now */
        if (ends[1] >= 0) close(ends[1]);
        in = ends[0];
    }
    if (in >= 0) close(in);
    return result;
}

static int64_t print_first_lines(casync_stream *out, int count) {
    const void *line;
    int64_t n = 0;
    while (count-- > 0 && (n = casync_read_until(out, "\n", 1, &line)) > 0)
        printf("%.*s", (int)n, (const char *)line);
    return n == CASYNC_EOF ? 0 : n;
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_process processes[STAGES] = {0};
    int64_t result;
    int i, file = open((const char *)arg, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        perror((const char *)arg);
        return -1;
    }
    result = start(loop, processes, file);
    if (result >= 0) result = print_first_lines(&processes[STAGES - 1].out, 5);
    casync_close(&processes[STAGES - 1].out); /* we read no more: the last stage hears of it */
    for (i = 0; i < STAGES; i++) {
        int64_t status = casync_process_wait(&processes[i]);
        if (casync_process_signal(status))
            printf("%s: killed by signal %d\n", stages[i][0], casync_process_signal(status));
        else if (status >= 0)
            printf("%s: exit code %d\n", stages[i][0], (int)status);
        casync_process_close(&processes[i]);
    }
    return result;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: process_pipeline file\n");
        return 2;
    }
    return casync_run(amain, argv[1]) < 0;
}
