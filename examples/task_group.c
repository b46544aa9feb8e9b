/* A task group with a failure: tasks that succeed or fail together. When one fails the others are
   cancelled, clean up, and are waited for; none outlives the block that made it.

   Run it from the repository's root:   tcc -run examples/task_group.c
   It makes three copies at once. One disk fills up: it prints how the others undo what they did. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <stdio.h>

typedef struct copy {
    const char *disk;
    int blocks; /* to be copied */
    int room;   /* for so many */
} copy;

static int64_t write_blocks(const copy *c) {
    int64_t result;
    int i;
    for (i = 0; i < c->blocks; i++) {
        if (i == c->room) return -ENOSPC;
        if ((result = casync_sleep(CASYNC_MS(20))) < 0) return result; /* stands for the writing */
    }
    return 0;
}

/* Cancelled, the await in which a task is returns -ECANCELED, once. What comes after may await
   again. */
static int64_t make_copy(casync_loop *loop, void *arg) {
    const copy *c = (const copy *)arg;
    int64_t result = write_blocks(c);
    (void)loop;
    if (result >= 0) {
        printf("%s: copied\n", c->disk);
        return 0;
    }
    printf("%s: %s, removing what is there\n", c->disk, casync_strerror(result));
    if (casync_sleep(CASYNC_MS(20)) >= 0) printf("%s: removed\n", c->disk);
    return result;
}

static int64_t make_copies(copy *copies, int count) {
    casync_task_group group;
    int64_t result = casync_task_group_begin(&group);
    size_t e;
    int i;
    if (result < 0) return result;
    for (i = 0; i < count && result >= 0; i++)
        if (!casync_task_group_spawn(&group, make_copy, &copies[i])) result = -ENOMEM;
    result = casync_task_group_end(&group, result); /* waits for all: 0, or the first error */
    for (e = 0; e < group.error_count && e < CASYNC_GROUP_ERRORS; e++)
        printf("error: %s\n", casync_strerror(group.errors[e]));
    return result;
}

static int64_t amain(casync_loop *loop, void *arg) {
    copy copies[] = {{"disk a", 2, 10}, {"disk b", 5, 3}, {"disk c", 9, 10}};
    int64_t result = make_copies(copies, 3);
    (void)loop;
    (void)arg;
    if (result != -ENOSPC) return result;
    copies[1].room = 10;
    printf("once more, with room on disk b\n");
    return make_copies(copies, 3);
}

int main(void) {
    int64_t result = casync_run(amain, NULL);
    if (result < 0) fprintf(stderr, "task_group: %s\n", casync_strerror(result));
    return result < 0;
}
