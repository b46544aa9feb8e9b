/* A supervisor: it runs a program, and starts it again when it fails, each time after a longer
   pause.

   Run it from the repository's root:   tcc -run examples/supervisor.c 3 sh -c "echo hi; exit 1"
   The number says how often it is started again. A program that ends with code 0 is done. SIGINT
   and SIGTERM are passed on to it, and end the supervisor when it has ended. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_PAUSE CASYNC_MS(100)
#define LONGEST_PAUSE CASYNC_SECONDS(10)

static casync_process process;
static casync_task *supervisor;
static int stopped_by;

/* The program ends first; a pause is cut short. */
static void stop(void *signum) {
    stopped_by = *(int *)signum;
    if (casync_process_send_signal(&process, stopped_by) < 0) casync_task_cancel(supervisor);
}

static void report(int64_t status) {
    if (casync_process_signal(status))
        printf("killed by signal %d\n", casync_process_signal(status));
    else
        printf("exit code %d\n", (int)status);
}

/* Runs the program once: what it ended with, or an error. */
static int64_t run_once(casync_loop *loop, const char *const *args) {
    casync_process_desc desc = {.args = args};
    int64_t status = casync_process_start(loop, &process, &desc);
    if (status < 0) {
        printf("cannot start %s: %s: %s\n", args[0], process.step ? process.step : "start",
               casync_strerror(status));
        return status;
    }
    printf("started %s as %d\n", args[0], process.pid);
    status = casync_process_wait(&process);
    if (status >= 0) report(status);
    casync_process_close(&process);
    return status;
}

static int64_t supervise(casync_loop *loop, void *arg) {
    char **argv = (char **)arg;
    const char *const *args = (const char *const *)&argv[2];
    int64_t pause = FIRST_PAUSE, status;
    int left = atoi(argv[1]);
    supervisor = casync_current_task();
    while ((status = run_once(loop, args)) > 0 && !stopped_by && left-- > 0) {
        int64_t result = casync_sleep(pause);
        if (result < 0) return result;
        pause = pause * 2 < LONGEST_PAUSE ? pause * 2 : LONGEST_PAUSE;
    }
    return status < 0 ? status : 0;
}

static int64_t amain(casync_loop *loop, void *arg) {
    static int signals[] = {SIGINT, SIGTERM};
    casync_signal watchers[2] = {0};
    int64_t result = 0;
    int i;
    for (i = 0; i < 2 && result >= 0; i++)
        result = casync_signal_start(loop, &watchers[i], signals[i], 0, stop, &signals[i]);
    if (result >= 0) result = supervise(loop, arg);
    for (i = 0; i < 2; i++) casync_signal_stop(&watchers[i]);
    return stopped_by ? 0 : result;
}

int main(int argc, char **argv) {
    if (argc < 3 || atoi(argv[1]) < 0) {
        fprintf(stderr, "usage: supervisor times program [argument ...]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* lines of the program's come between ours */
    return casync_run(amain, argv) < 0;
}
