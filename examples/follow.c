/* What is appended to a file, as `tail -F` shows it: the file is followed by its name, also when it
   is moved away and made anew, as logs are when they are rotated.

   Run it from the repository's root:   tcc -run examples/follow.c /tmp/log
   Append to it:                        echo hello >> /tmp/log */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

static casync_task *main_task;

static void stop(void *arg) {
    (void)arg;
    casync_task_cancel(main_task);
}

/* Shows what is there from the position on. */
static int64_t show_rest(int fd) {
    char text[4096];
    int64_t n;
    while ((n = casync_file_read(fd, text, sizeof text)) > 0) fwrite(text, 1, (size_t)n, stdout);
    fflush(stdout);
    return n;
}

/* The file of this name now, from its beginning: one that is not there yet is no error. */
static int64_t open_again(int *fd, const char *path) {
    int64_t result;
    if (*fd >= 0) casync_ignore(casync_file_close(*fd));
    result = casync_file_open(path, O_RDONLY, 0);
    *fd = result < 0 ? -1 : (int)result;
    return result < 0 && result != -ENOENT ? result : 0;
}

static int64_t follow(casync_watch *watch, const char *path) {
    casync_change change;
    int fd = -1;
    int64_t result = open_again(&fd, path);
    while (result >= 0) {
        if (fd >= 0) result = show_rest(fd);
        if (result >= 0) result = casync_watch_next(watch, &change);
        if (result >= 0 && change.kind == CASYNC_CHANGE_CREATED) {
            if (fd >= 0) result = show_rest(fd); /* what came to the old one last */
            if (result >= 0) result = open_again(&fd, path);
        }
    }
    if (fd >= 0) close(fd);
    return result;
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_watch_desc desc = {.path = (const char *)arg};
    casync_watch watch = {0};
    casync_signal interrupt = {0};
    int64_t result = casync_watch_start(loop, &watch, &desc);
    main_task = casync_current_task();
    if (result >= 0)
        result = casync_signal_start(loop, &interrupt, SIGINT, CASYNC_SIGNAL_ONCE, stop, NULL);
    if (result >= 0) printf("following %s\n", desc.path);
    fflush(stdout);
    if (result >= 0) result = follow(&watch, desc.path);
    casync_signal_stop(&interrupt);
    casync_watch_stop(&watch);
    return result == -ECANCELED ? 0 : result;
}

int main(int argc, char **argv) {
    int64_t result;
    if (argc != 2) {
        fprintf(stderr, "usage: follow file\n");
        return 2;
    }
    result = casync_run(amain, argv[1]);
    if (result < 0) fprintf(stderr, "follow: %s\n", casync_strerror(result));
    return result < 0;
}
