/* Keys of the terminal, one by one as they are pressed, and the size of its window. The terminal is
   as it was when the program ends: by q, by Ctrl-C, or by kill.

   Run it from the repository's root, in a terminal:   tcc -run examples/keys.c */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void show_size(void *arg) {
    int columns, rows;
    (void)arg;
    if (casync_terminal_size(STDIN_FILENO, &columns, &rows) < 0) return;
    printf("%d columns, %d rows\n", columns, rows);
    fflush(stdout);
}

static int64_t read_keys(casync_stream *keys) {
    unsigned char key = 0;
    int64_t n = 1;
    while (n > 0 && key != 'q') {
        n = casync_read(keys, &key, 1);
        if (n > 0) printf("key %d: %c\n", key, key > ' ' && key < 127 ? key : '?');
        fflush(stdout);
    }
    return n < 0 ? n : 0;
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_stream_options options = {.keep_fd = true};
    casync_stream keys = {0};
    casync_signal resized = {0};
    int64_t result = casync_terminal_set_mode(STDIN_FILENO, CASYNC_TERMINAL_CBREAK);
    (void)arg;
    if (result >= 0) result = casync_signal_start(loop, &resized, SIGWINCH, 0, show_size, NULL);
    if (result >= 0) result = casync_stream_open(loop, &keys, STDIN_FILENO, NULL, &options);
    if (result >= 0) {
        printf("press keys; q ends\n");
        show_size(NULL);
        result = read_keys(&keys);
    }
    casync_close(&keys);
    casync_signal_stop(&resized);
    return result;
}

int main(void) {
    int64_t result = casync_run(amain, NULL);
    if (result < 0) fprintf(stderr, "keys: %s\n", casync_strerror(result));
    return result < 0;
}
