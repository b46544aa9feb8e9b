/* >> watches: changes of files are told in their order, and files are followed by name. */
#include "loop_fixture.h"

static char directory[64];
static casync_watch watch;
static casync_watch_desc desc;

/* A path below the directory; a few are valid at a time. */
static const char *below(const char *name) {
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static void write_file(const char *name, const char *text) {
    int fd = open(below(name), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    EXPECT(fd >= 0);
    EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static const char *const kinds[] = {"created", "modified", "written", "attributes",
                                    "removed", "renamed",  "overflow"};

/* Says "kind:path", or "renamed:old>path", below the directory. */
static void say_change(casync_watch *from, const casync_change *change) {
    size_t skip = strlen(directory);
    static char words[4096];
    PTR_EQ(from, &watch);
    EXPECT(strncmp(change->path, directory, skip) == 0);
    snprintf(words, sizeof words, "%s:%s%s%s%s", kinds[change->kind],
             change->old_path ? change->old_path + skip : "", change->old_path ? ">" : "",
             change->path + skip, change->directory ? "/" : "");
    say(words);
}

static void open_watch(const char *name, bool recursive) {
    casync_loop_desc loop_desc = ZERO;
    loop_desc.clock = CASYNC_CLOCK_VIRTUAL_FORCED;
    open_loop_with(loop_desc);
    if (!directory[0]) {
        snprintf(directory, sizeof directory, "/tmp/casync-watches-XXXXXX");
        EXPECT(mkdtemp(directory));
    }
    desc.path = name ? below(name) : directory;
    desc.recursive = recursive;
    if (!desc.changed) desc.changed = say_change;
    EQ(casync_watch_start(&loop, &watch, &desc), 0);
}

/* The kernel has told of what was done before: it is in the instance's queue when a call returns.
   */
static void look(void) {
    int i;
    for (i = 0; i < 5; i++) EQ(casync_run_nowait(&loop), 0);
}

/* The time for the second half of a rename is over. */
static void look_later(void) {
    look();
    EQ(casync_run_once(&loop), 0);
    look();
}

static void close_watch(void) {
    char command[128];
    casync_watch_stop(&watch);
    casync_watch_stop(&watch);
    snprintf(command, sizeof command, "rm -rf %s", directory);
    EQ(system(command), 0);
    close_loop();
}

TEST(changes_in_a_directory_are_told) {
    open_watch(NULL, false);
    write_file("a", "text");
    look();
    SAID("created:/a modified:/a written:/a");
    EQ(chmod(below("a"), 0400), 0);
    EQ(mkdir(below("sub"), 0700), 0);
    EQ(unlink(below("a")), 0);
    EQ(rmdir(below("sub")), 0);
    look();
    SAID("attributes:/a created:/sub/ removed:/a removed:/sub/");
    close_watch();
}

TEST(the_halves_of_a_rename_come_as_one) {
    open_watch(NULL, false);
    write_file("a", "x");
    look();
    SAID("created:/a modified:/a written:/a");
    EQ(rename(below("a"), below("b")), 0);
    look();
    SAID("renamed:/a>/b");
    close_watch();
}

TEST(what_is_moved_away_is_removed_and_what_comes_is_created) {
    char outside[] = "/tmp/casync-outside-XXXXXX";
    int fd = mkstemp(outside);
    close(fd);
    open_watch(NULL, false);
    EQ(rename(outside, below("in")), 0);
    look();
    SAID("created:/in");
    EQ(rename(below("in"), outside), 0);
    look_later();
    SAID("removed:/in");
    EQ(unlink(outside), 0);
    close_watch();
}

TEST(a_file_is_followed_by_its_name) {
    open_watch("log", false); /* it need not be there */
    write_file("other", "x");
    look();
    SAID("");
    write_file("log", "1");
    look();
    SAID("created:/log modified:/log written:/log");
    EQ(rename(below("log"), below("log.1")), 0); /* as logrotate does */
    write_file("log", "2");
    look();
    SAID("renamed:/log>/log.1 created:/log modified:/log written:/log");
    write_file("log.1", "late");
    EQ(rename(below("other"), below("log")), 0); /* replaced as a whole */
    look();
    SAID("created:/log");
    EQ(unlink(below("log")), 0);
    look();
    SAID("removed:/log");
    close_watch();
}

TEST(a_recursive_watch_has_what_comes_later_too) {
    open_watch(NULL, false);
    casync_watch_stop(&watch);
    EQ(mkdir(below("one"), 0700), 0);
    EQ(mkdir(below("one/two"), 0700), 0);
    desc.path = directory;
    desc.recursive = true;
    EQ(casync_watch_start(&loop, &watch, &desc), 0);
    write_file("one/two/a", "x");
    look();
    SAID("created:/one/two/a modified:/one/two/a written:/one/two/a");
    EQ(mkdir(below("new"), 0700), 0);
    EQ(mkdir(below("new/deep"), 0700), 0);
    close(open(below("new/deep/b"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    look();
    SAID("created:/new/ created:/new/deep/ created:/new/deep/b");
    write_file("new/deep/b", "x");
    look();
    SAID("modified:/new/deep/b written:/new/deep/b");
    EQ(rename(below("new"), below("old")), 0);
    write_file("old/deep/b", "x");
    look();
    SAID("renamed:/new>/old/ modified:/old/deep/b written:/old/deep/b");
    EQ(unlink(below("old/deep/b")), 0);
    EQ(rmdir(below("old/deep")), 0);
    look();
    SAID("removed:/old/deep/b removed:/old/deep/");
    close_watch();
}

TEST(the_end_of_the_directory_is_the_last_change) {
    open_watch(NULL, false);
    EQ(rmdir(directory), 0);
    look();
    SAID("removed:/");
    EXPECT(!casync_loop_alive(&loop));
    close_watch();
}

static void stop_at_once(casync_watch *from, const casync_change *change) {
    say_change(from, change);
    casync_watch_stop(from);
}

static void stop_at_second(casync_watch *from, const casync_change *change) {
    bool second = said_size > 0;
    say_change(from, change);
    if (second) casync_watch_stop(from);
}

TEST(a_callback_may_stop_the_watch) {
    desc.changed = stop_at_once;
    open_watch(NULL, true);
    EQ(mkdir(below("a"), 0700), 0);
    EQ(mkdir(below("a/b"), 0700), 0);
    EQ(mkdir(below("c"), 0700), 0);
    look();
    SAID("created:/a/");
    close_watch();
}

TEST(a_loop_that_closes_ends_its_watches) {
    open_watch(NULL, true);
    EQ(rmdir(directory), 0);
    look();
    SAID("removed:/");
    EQ(casync_loop_close(&loop), 0);
    casync_watch_stop(&watch);
    EQ(memory.live, 0);
    EQ(open_descriptors(), descriptors_before);
}

TEST(a_callback_may_stop_the_watch_in_a_new_tree) {
    desc.changed = stop_at_second;
    open_watch(NULL, true);
    EQ(mkdir(below("a"), 0700), 0);
    EQ(mkdir(below("a/b"), 0700), 0);
    EQ(mkdir(below("a/b/c"), 0700), 0);
    look();
    SAID("created:/a/ created:/a/b/");
    close_watch();
}

static void never_changed(casync_watch *from, const casync_change *change) {
    (void)from, (void)change;
    say(WORD("never"));
}

TEST(what_cannot_be_watched_is_refused) {
    static casync_watch second;
    desc.changed = never_changed;
    open_watch(NULL, false);
    EQ(casync_watch_start(&loop, &watch, &desc), -EALREADY);
    desc.path = "/no/such/file";
    EQ(casync_watch_start(&loop, &second, &desc), -ENOENT);
    desc.path = "";
    EQ(casync_watch_start(&loop, &second, &desc), -EINVAL);
    desc.path = below("no/such");
    EQ(casync_watch_start(&loop, &second, &desc), -ENOENT);
    desc.path = directory;
    forbid_descriptors();
    EQ(casync_watch_start(&loop, &second, &desc), -EMFILE);
    allow_descriptors();
    close_watch();
}

TEST(a_relative_path_is_told_as_it_was_written) {
    open_watch(NULL, false);
    casync_watch_stop(&watch);
    EQ(chdir(directory), 0);
    desc.path = "name";
    EQ(casync_watch_start(&loop, &watch, &desc), 0);
    snprintf(directory, sizeof directory, "n"); /* what say_change leaves out */
    close(open("name", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    look();
    SAID("created:ame written:ame");
    EQ(unlink("name"), 0);
    look();
    SAID("removed:ame");
    casync_watch_stop(&watch);
    close_loop();
}

TEST(a_directory_that_is_renamed_before_anybody_looks_is_watched) {
    open_watch(NULL, true);
    EQ(mkdir(below("a"), 0700), 0);
    EQ(rename(below("a"), below("b")), 0);
    look();
    SAID("created:/a/ renamed:/a>/b/");
    close(open(below("b/file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    look();
    SAID("created:/b/file written:/b/file");
    close_watch();
}

static int64_t watches_deep(casync_loop *where, void *arg) {
    (void)arg;
    return casync_watch_start(where, &watch, &desc);
}

TEST(a_deep_tree_needs_no_deep_stack) {
    int depth;
    if (under_valgrind()) SKIP("it takes valgrind too long");
    open_watch(NULL, true);
    casync_watch_stop(&watch);
    desc.path = directory;
    EQ(chdir(directory), 0);
    for (depth = 0; depth < 1000; depth++) {
        EQ(mkdir("d", 0700), 0);
        EQ(chdir("d"), 0);
    }
    EQ(run_task(watches_deep, NULL), 0); /* on the stack of a task */
    close(open("file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    look();
    EXPECT(strstr(said, "/d/d/d/file"));
    said[0] = 0;
    said_size = 0;
    EQ(chdir("/"), 0);
    close_watch();
}

static int overflows;

static void count_overflows(casync_watch *from, const casync_change *change) {
    (void)from;
    overflows += change->kind == CASYNC_CHANGE_OVERFLOW;
}

TEST(lost_events_are_told) {
    int i;
    if (under_valgrind()) SKIP("it takes valgrind too long");
    desc.changed = count_overflows;
    open_watch(NULL, true);
    EQ(mkdir(below("a"), 0700), 0);
    EQ(mkdir(below("b"), 0700), 0);
    look();
    for (i = 0; i < 17000; i++) { /* more than /proc/sys/fs/inotify/max_queued_events */
        EQ(chmod(below("a"), 0700), 0);
        EQ(chmod(below("b"), 0700), 0);
    }
    for (i = 0; i < 1000 && overflows == 0; i++) EQ(casync_run_nowait(&loop), 0);
    EQ(overflows, 1);
    close_watch();
}

TEST(a_forked_child_has_an_instance_of_its_own) {
    pid_t child;
    int status;
    skip_under_qemu("qemu-user does not zero pages in a child");
    open_watch(NULL, false);
    child = fork();
    if (child == 0) {
        EQ(casync_loop_fork(&loop), 0);
        EQ(mkdir(below("child"), 0700), 0);
        look();
        SAID("created:/child/");
        _exit(0);
    }
    EQ(waitpid(child, &status, 0), child);
    EQ(status, 0);
    look();
    SAID("created:/child/"); /* nobody took it */
    close_watch();
}

/* >> by waiting -------------------------------------------------------------------------------- */

static int64_t next_change(void) {
    static casync_op op;
    static casync_change change;
    int64_t result = casync_run_until_complete(casync_watch_next_op(&watch, &op, &change));
    if (result == 0) say_change(&watch, &change);
    return result;
}

static void open_watch_to_wait(void) {
    desc.changed = say_change;
    open_watch(NULL, false);
    casync_watch_stop(&watch);
    desc.changed = NULL;
    EQ(casync_watch_start(&loop, &watch, &desc), 0);
}

TEST(changes_are_kept_until_somebody_asks) {
    open_watch_to_wait();
    write_file("a", "x");
    look();
    EQ(next_change(), 0);
    EQ(next_change(), 0);
    EQ(next_change(), 0);
    SAID("created:/a modified:/a written:/a");
    EQ(mkdir(below("b"), 0700), 0);
    EQ(next_change(), 0);
    SAID("created:/b/");
    write_file("a", "x"); /* and these are dropped */
    look();
    close_watch();
}

TEST(what_nobody_takes_is_bounded) {
    int i, taken = 0;
    open_watch_to_wait();
    for (i = 0; i < 2000; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        EQ(mkdir(below(name), 0700), 0);
    }
    look();
    EXPECT(memory.live < 1200);
    while (taken < 2000) {
        EQ(next_change(), 0);
        taken++;
        said[0] = 0;
        said_size = 0;
    }
    close_watch();
}

TEST(a_wait_ends_with_the_watch) {
    static casync_op op, other;
    static casync_change change;
    open_watch_to_wait();
    casync_watch_next_op(&watch, &op, &change);
    EQ(casync_future_result(casync_watch_next_op(&watch, &other, &change)), -EBUSY);
    EQ(casync_future_cancel(&op.future), 1);
    casync_watch_next_op(&watch, &op, &change);
    casync_watch_stop(&watch);
    EQ(casync_future_result(&op.future), -ECONNABORTED);
    EQ(casync_future_result(casync_watch_next_op(&watch, &op, &change)), CASYNC_INVALID_STATE);
    EQ(casync_watch_start(&loop, &watch, &desc), 0);
    EQ(rmdir(directory), 0);
    EQ(next_change(), 0);
    SAID("removed:/");
    EQ(next_change(), CASYNC_EOF);
    close_watch();
}

TEST(want_of_memory_is_told_to_who_asks_next) {
    open_watch_to_wait();
    EQ(mkdir(below("a"), 0700), 0);
    fail_allocation(2, 1); /* the path, then the record */
    look();
    fail_no_allocation();
    EQ(next_change(), -ENOMEM);
    EQ(mkdir(below("b"), 0700), 0);
    EQ(next_change(), 0);
    SAID("created:/b/");
    close_watch();
}
