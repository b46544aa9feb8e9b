/* >> files: calls in the pool that POSIX has, whole files, and files sent by streams. */
#include "pool_fixture.h"

/* A directory of this test's own. */
static char directory[64], path[128], other[128];

static int64_t done(casync_future *future) { return casync_run_until_complete(future); }

static void open_directory(void) {
    open_pool_loop(CASYNC_CLOCK_MONOTONIC);
    snprintf(directory, sizeof directory, "/tmp/casync-files-XXXXXX");
    EQ(done(casync_file_mkdtemp_op(&loop, &ops[0], directory)), 0);
    EXPECT(!strstr(directory, "XXXXXX"));
    snprintf(path, sizeof path, "%s/file", directory);
    snprintf(other, sizeof other, "%s/other", directory);
}

static void close_directory(void) {
    EQ(done(casync_file_rmdir_op(&loop, &ops[0], directory)), 0); /* and it is empty */
    close_pool_loop();
}

static int64_t put(const char *text) {
    return done(casync_file_write_all_op(&loop, &ops[0], path, text, strlen(text), 0600, 0));
}

static void has(const char *name, const char *text) {
    casync_file_data data;
    EQ(done(casync_file_read_all_op(&loop, &ops[0], name, &data, 0)), strlen(text));
    EQ(data.len, strlen(text));
    STR_EQ((const char *)data.ptr, text);
    casync_file_data_free(&data);
    PTR_EQ(data.ptr, NULL);
}

static void remove_file(const char *name) {
    EQ(done(casync_file_unlink_op(&loop, &ops[0], name)), 0);
}

/* >> one call after the other ------------------------------------------------------------------ */

TEST(a_file_is_opened_written_read_and_closed) {
    char text[16] = "";
    casync_file_status status;
    int fd;
    open_directory();
    fd = (int)done(casync_file_open_op(&loop, &ops[0], path, O_RDWR | O_CREAT | O_EXCL, 0640));
    EXPECT(fd >= 0);
    EXPECT(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    EQ(done(casync_file_write_op(&loop, &ops[0], fd, "hello", 5)), 5);
    EQ(done(casync_file_pwrite_op(&loop, &ops[0], fd, "J", 1, 0)), 1);
    EQ(done(casync_file_read_op(&loop, &ops[0], fd, text, sizeof text)), 0);
    EQ(done(casync_file_pread_op(&loop, &ops[0], fd, text, 3, 1)), 3);
    STR_EQ(text, "ell");
    EQ(done(casync_file_fstat_op(&loop, &ops[0], fd, &status)), 0);
    EQ(status.size, 5);
    EXPECT(S_ISREG(status.mode));
    EQ(status.links, 1);
    EXPECT(status.modified > 1000000000 * INT64_C(1000000000));
    EQ(done(casync_file_truncate_op(&loop, &ops[0], fd, 2)), 0);
    EQ(done(casync_file_datasync_op(&loop, &ops[0], fd)), 0);
    EQ(done(casync_file_sync_op(&loop, &ops[0], fd)), 0);
    EQ(done(casync_file_close_op(&loop, &ops[0], fd)), 0);
    EQ(fcntl(fd, F_GETFD), -1);
    has(path, "Je");
    remove_file(path);
    close_directory();
}

TEST(errors_are_those_of_the_kernel) {
    casync_file_status status;
    char text[4];
    open_directory();
    EQ(done(casync_file_open_op(&loop, &ops[0], path, O_RDONLY, 0)), -ENOENT);
    EQ(done(casync_file_stat_op(&loop, &ops[0], path, &status)), -ENOENT);
    EQ(done(casync_file_read_op(&loop, &ops[0], -1, text, 4)), -EBADF);
    EQ(done(casync_file_close_op(&loop, &ops[0], 12345)), -EBADF);
    EQ(done(casync_file_rmdir_op(&loop, &ops[0], path)), -ENOENT);
    EQ(done(casync_file_mkdir_op(&loop, &ops[0], directory, 0700)), -EEXIST);
    close_directory();
}

static void refuse(casync_future *future) {
    EXPECT(casync_future_done(future));
    EQ(casync_future_result(future), -EINVAL);
}

TEST(what_is_missing_is_refused_at_once) {
    open_directory();
    refuse(casync_file_open_op(&loop, &ops[0], NULL, O_RDONLY, 0));
    refuse(casync_file_read_op(&loop, &ops[0], 0, NULL, 5));
    refuse(casync_file_write_op(&loop, &ops[0], 1, NULL, 5));
    refuse(casync_file_rename_op(&loop, &ops[0], path, NULL));
    refuse(casync_file_stat_op(&loop, &ops[0], path, NULL));
    refuse(casync_file_scandir_op(&loop, &ops[0], path, NULL));
    refuse(casync_file_mkstemp_op(&loop, &ops[0], NULL));
    refuse(casync_file_write_all_op(&loop, &ops[0], path, NULL, 1, 0, 0));
    close_directory();
}

/* >> directories ------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const casync_file_entry *)a)->name, ((const casync_file_entry *)b)->name);
}

TEST(a_directory_is_changed_and_listed) {
    casync_file_entries entries;
    casync_file_status status;
    char text[128], expected[128];
    open_directory();
    EQ(done(casync_file_scandir_op(&loop, &ops[0], directory, &entries)), 0);
    casync_file_entries_free(&entries);
    EQ(put("1"), 1);
    EQ(done(casync_file_link_op(&loop, &ops[0], path, other)), 0);
    snprintf(text, sizeof text, "%s/sub", directory);
    EQ(done(casync_file_mkdir_op(&loop, &ops[0], text, 0700)), 0);
    snprintf(expected, sizeof expected, "%s/link", directory);
    EQ(done(casync_file_symlink_op(&loop, &ops[0], "file", expected)), 0);
    EQ(done(casync_file_scandir_op(&loop, &ops[0], directory, &entries)), 4);
    EQ(entries.count, 4);
    qsort(entries.entries, 4, sizeof *entries.entries, by_name);
    STR_EQ(entries.entries[0].name, "file");
    STR_EQ(entries.entries[1].name, "link");
    EQ(entries.entries[1].type, DT_LNK);
    STR_EQ(entries.entries[3].name, "sub");
    EQ(entries.entries[3].type, DT_DIR);
    casync_file_entries_free(&entries);
    EQ(done(casync_file_lstat_op(&loop, &ops[0], expected, &status)), 0);
    EXPECT(S_ISLNK(status.mode));
    EQ(done(casync_file_stat_op(&loop, &ops[0], expected, &status)), 0);
    EXPECT(S_ISREG(status.mode));
    EQ(status.links, 2);
    EQ(done(casync_file_chmod_op(&loop, &ops[0], path, 0400)), 0);
    EQ(done(casync_file_stat_op(&loop, &ops[0], path, &status)), 0);
    EQ(status.mode & 07777, 0400);
    EQ(done(casync_file_rmdir_op(&loop, &ops[0], text)), 0);
    EQ(done(casync_file_readlink_op(&loop, &ops[0], expected, text, sizeof text)), 4);
    STR_EQ(text, "file");
    EQ(done(casync_file_readlink_op(&loop, &ops[0], expected, text, 4)), -ENAMETOOLONG);
    EQ(done(casync_file_realpath_op(&loop, &ops[0], expected, text, sizeof text)), strlen(path));
    STR_EQ(text, path);
    EQ(done(casync_file_realpath_op(&loop, &ops[0], expected, text, 5)), -ENAMETOOLONG);
    remove_file(expected);
    EQ(done(casync_file_rename_op(&loop, &ops[0], path, other)), 0);
    remove_file(other);
    if (access(path, F_OK) == 0) remove_file(path); /* the two were one file: rename did nothing */
    close_directory();
}

TEST(a_directory_may_hold_thousands) {
    casync_file_entries entries;
    int i;
    open_directory();
    for (i = 0; i < 3000; i++) {
        snprintf(path, sizeof path, "%s/a-file-of-number-%d", directory, i);
        close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    EQ(done(casync_file_scandir_op(&loop, &ops[0], directory, &entries)), 3000);
    for (i = 0; i < 3000; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, entries.entries[i].name);
        EQ(unlink(path), 0);
    }
    casync_file_entries_free(&entries);
    close_directory();
}

TEST(temporary_files_have_names_of_their_own) {
    char one[128], two[128];
    int fds[2];
    open_directory();
    snprintf(one, sizeof one, "%s/t-XXXXXX", directory);
    snprintf(two, sizeof two, "%s/t-XXXXXX", directory);
    fds[0] = (int)done(casync_file_mkstemp_op(&loop, &ops[0], one));
    fds[1] = (int)done(casync_file_mkstemp_op(&loop, &ops[0], two));
    EXPECT(fds[0] >= 0 && fds[1] >= 0 && strcmp(one, two) != 0);
    EXPECT(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
    close_both(fds);
    remove_file(one);
    remove_file(two);
    snprintf(one, sizeof one, "%s/no-template", directory);
    EQ(done(casync_file_mkstemp_op(&loop, &ops[0], one)), -EINVAL);
    close_directory();
}

/* >> whole files ------------------------------------------------------------------------------- */

TEST(a_whole_file_is_written_and_read) {
    casync_file_data data;
    open_directory();
    EQ(put("some text"), 9);
    has(path, "some text");
    EQ(put("less"), 4);
    has(path, "less");
    EQ(done(casync_file_read_all_op(&loop, &ops[0], path, &data, 4)), 4);
    casync_file_data_free(&data);
    EQ(done(casync_file_read_all_op(&loop, &ops[0], path, &data, 3)), CASYNC_LIMIT_OVERRUN);
    EQ(put(""), 0);
    has(path, "");
    EQ(done(casync_file_read_all_op(&loop, &ops[0], other, &data, 0)), -ENOENT);
    EQ(done(casync_file_read_all_op(&loop, &ops[0], directory, &data, 0)), -EISDIR);
    EXPECT(done(casync_file_read_all_op(&loop, &ops[0], "/proc/self/status", &data, 0)) > 100);
    casync_file_data_free(&data);
    EQ(done(casync_file_write_all_op(&loop, &ops[0], path, "x", 1, 0600, CASYNC_FILE_EXCLUSIVE)),
       -EEXIST);
    remove_file(path);
    close_directory();
}

TEST(an_atomic_write_leaves_the_old_file_or_the_new) {
    int flags = CASYNC_FILE_ATOMIC | CASYNC_FILE_SYNC;
    casync_file_status status;
    open_directory();
    EQ(put("old"), 3);
    EQ(chmod(path, 0604), 0);
    EQ(done(casync_file_write_all_op(&loop, &ops[0], path, "new", 3, 0600, flags)), 3);
    has(path, "new");
    EQ(done(casync_file_stat_op(&loop, &ops[0], path, &status)), 0);
    EQ(status.mode & 07777, 0604); /* it keeps its permissions */
    flags |= CASYNC_FILE_EXCLUSIVE;
    EQ(done(casync_file_write_all_op(&loop, &ops[0], path, "newer", 5, 0600, flags)), -EEXIST);
    EQ(done(casync_file_write_all_op(&loop, &ops[0], other, "first", 5, 0600, flags)), 5);
    has(other, "first");
    has(path, "new");
    remove_file(path);
    remove_file(other);
    close_directory(); /* and no other file is left */
}

static int64_t no_space_for_new(int fd, const void *data, size_t size) {
    if (size == 3 && memcmp(data, "new", 3) == 0) return -ENOSPC;
    return casync__direct_write(fd, data, size);
}

static int64_t no_sync(int fd) { return (void)fd, -EIO; }

TEST(a_write_that_fails_leaves_the_old_file) {
    int flags = CASYNC_FILE_ATOMIC | CASYNC_FILE_SYNC;
    casync_syscalls.write = no_space_for_new; /* before there are threads */
    casync_syscalls.fsync = no_sync;
    open_directory();
    EQ(put("old"), 3);
    EQ(done(casync_file_write_all_op(&loop, &ops[0], path, "other", 5, 0600, flags)), -EIO);
    has(path, "old");
    EQ(done(casync_file_write_all_op(&loop, &ops[0], path, "new", 3, 0600, CASYNC_FILE_ATOMIC)),
       -ENOSPC);
    has(path, "old");
    remove_file(path);
    close_directory(); /* and no other file is left */
}

/* >> copies ------------------------------------------------------------------------------------ */

static int64_t refuse_clone(int to, int from) { return (void)to, (void)from, -EOPNOTSUPP; }
static int64_t refuse_copy(int from, int to, size_t size) {
    return (void)from, (void)to, (void)size, -ENOSYS;
}

static void copies_well(void) {
    static char big[3 << 20];
    casync_file_data data;
    memset(big, 'b', sizeof big - 1);
    EQ(put(big), sizeof big - 1);
    EQ(chmod(path, 0640), 0);
    EQ(done(casync_file_copy_op(&loop, &ops[0], path, other, 0)), sizeof big - 1);
    EQ(done(casync_file_read_all_op(&loop, &ops[0], other, &data, 0)), sizeof big - 1);
    EXPECT(memcmp(data.ptr, big, sizeof big) == 0);
    casync_file_data_free(&data);
    EQ(put("short"), 5);
    EQ(done(casync_file_copy_op(&loop, &ops[0], path, other, CASYNC_FILE_SYNC)), 5);
    has(other, "short");
    remove_file(other);
}

TEST(a_copy_has_the_content_and_the_permissions) {
    casync_file_status status;
    open_directory();
    copies_well();
    casync_syscalls.clone_file = refuse_clone;
    copies_well();
    casync_syscalls.copy_file_range = refuse_copy;
    copies_well();
    EQ(done(casync_file_copy_op(&loop, &ops[0], path, other, CASYNC_FILE_EXCLUSIVE)), 5);
    EQ(done(casync_file_copy_op(&loop, &ops[0], path, other, CASYNC_FILE_EXCLUSIVE)), -EEXIST);
    EQ(done(casync_file_stat_op(&loop, &ops[0], other, &status)), 0);
    EQ(status.mode & 07777, 0640);
    EQ(done(casync_file_copy_op(&loop, &ops[0], path, path, 0)), -EINVAL);
    has(path, "short"); /* it was not emptied */
    EQ(done(casync_file_copy_op(&loop, &ops[0], directory, other, 0)), -EISDIR);
    EQ(done(casync_file_copy_op(&loop, &ops[0], "/no/such", other, 0)), -ENOENT);
    has(other, "short");
    remove_file(path);
    remove_file(other);
    close_directory();
}

TEST(a_file_of_proc_is_copied_though_it_has_no_size) {
    open_directory();
    EXPECT(done(casync_file_copy_op(&loop, &ops[0], "/proc/self/status", other, 0)) > 100);
    remove_file(other);
    close_directory();
}

/* >> giving up --------------------------------------------------------------------------------- */

static int64_t (*open_before)(const char *path, int flags, int mode);

static int64_t open_at_gate(const char *name, int flags, int mode) {
    void *nothing;
    int64_t fd = open_before(name, flags, mode);
    pass_gate(NULL, &nothing);
    return fd;
}

static int64_t read_at_gate(int fd, void *data, size_t size) {
    void *nothing;
    int64_t result = casync__direct_read(fd, data, size);
    if (fd == 1000) pass_gate(NULL, &nothing);
    return result;
}

TEST(what_was_opened_for_nobody_is_closed) {
    open_directory();
    EQ(put("text"), 4);
    open_before = casync_syscalls.open;
    casync_syscalls.open = open_at_gate;
    casync_file_open_op(&loop, &ops[1], path, O_RDONLY, 0);
    wait_inside(1);
    EQ(casync_future_cancel(&ops[1].future), 1);
    let_pass(1);
    casync_syscalls.open = open_before;
    while (live_memory() > 1) sched_yield(); /* the pool's own */
    remove_file(path);
    close_directory(); /* and no descriptor is left */
}

TEST(a_buffer_is_its_owners_as_soon_as_the_read_is_cancelled) {
    static char buffer[100];
    int fd;
    open_directory();
    EQ(put("text"), 4);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    EQ(dup3(fd, 1000, O_CLOEXEC), 1000);
    casync_syscalls.read = read_at_gate;
    casync_file_read_op(&loop, &ops[1], 1000, buffer, sizeof buffer);
    wait_inside(1);
    EQ(casync_future_cancel(&ops[1].future), 1);
    let_pass(1);
    while (live_memory() > 1) sched_yield();
    STR_EQ(buffer, ""); /* the thread had read by then */
    close(1000);
    close(fd);
    remove_file(path);
    close_directory();
}

TEST(a_close_that_is_cancelled_closes_all_the_same) {
    int fd;
    open_directory();
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    casync_file_close_op(&loop, &ops[1], fd);
    casync_future_cancel(&ops[1].future);
    while (fcntl(fd, F_GETFD) != -1) sched_yield();
    close_directory();
}

TEST(want_of_memory_is_an_error_of_the_call) {
    casync_file_data data;
    int n, failures = 0;
    int64_t result;
    open_directory();
    EQ(put("text"), 4);
    for (n = 1; n < 10; n++) {
        pthread_mutex_lock(&memory_mutex);
        fail_allocation(n, 1);
        pthread_mutex_unlock(&memory_mutex);
        result = done(casync_file_read_all_op(&loop, &ops[0], path, &data, 0));
        pthread_mutex_lock(&memory_mutex);
        fail_no_allocation();
        pthread_mutex_unlock(&memory_mutex);
        if (result >= 0) break;
        EQ(result, -ENOMEM);
        failures++;
    }
    EQ(failures, 2); /* the call, the content */
    casync_file_data_free(&data);
    remove_file(path);
    close_directory();
}

/* >> sendfile ---------------------------------------------------------------------------------- */

static casync_stream a, b;
static int file;
static char content[1 << 20];

static int64_t receives(casync_loop *where, void *arg) {
    static char received[sizeof content + 16];
    int64_t size = (int64_t)(intptr_t)arg, n;
    (void)where;
    n = casync_read_exactly(&b, received, (size_t)size);
    return n == size && memcmp(received, content, (size_t)size) == 0 ? n : -EBADMSG;
}

static void open_sender(void) {
    size_t i;
    open_directory();
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    for (i = 0; i < sizeof content; i++) content[i] = (char)(i * 7 / 3);
    EQ(done(casync_file_write_all_op(&loop, &ops[0], path, content, sizeof content, 0600, 0)),
       sizeof content);
    file = open(path, O_RDONLY | O_CLOEXEC);
}

static void close_sender(void) {
    casync_close(&a);
    casync_close(&b);
    close(file);
    remove_file(path);
    close_directory();
}

TEST(a_file_is_sent_by_a_stream) {
    open_sender();
    casync_sendfile_op(&a, &ops[1], file, 0, 0);
    EXPECT(!casync_future_done(&ops[1].future)); /* it is more than a socket takes */
    EQ(casync_write(&a, "x", 1), -EBUSY);
    EQ(casync_future_result(casync_sendfile_op(&a, &ops[2], file, 0, 0)), -EBUSY);
    EQ(run_task(receives, (void *)(intptr_t)sizeof content), sizeof content);
    EQ(done(&ops[1].future), sizeof content);
    EQ(casync_write(&a, content, 5), 5);
    EQ(run_task(receives, (void *)(intptr_t)5), 5);
    close_sender();
}

TEST(a_part_of_a_file_is_sent_after_what_is_queued) {
    open_sender();
    EQ(casync_write(&a, content, 100), 100);
    casync_sendfile_op(&a, &ops[1], file, 100, 400);
    EQ(run_task(receives, (void *)(intptr_t)500), 500);
    EQ(done(&ops[1].future), 400);
    casync_sendfile_op(&a, &ops[1], file, (int64_t)sizeof content - 10, 400);
    EQ(done(&ops[1].future), 10); /* there was no more */
    EQ(casync_future_result(casync_sendfile_op(&a, &ops[1], file, -1, 0)), -EINVAL);
    EQ(casync_future_result(casync_sendfile_op(&a, &ops[1], -1, 0, 5)), -EBADF);
    close_sender();
}

TEST(sending_can_be_given_up_and_the_stream_goes_on) {
    open_sender();
    casync_sendfile_op(&a, &ops[1], file, 0, 0);
    EQ(casync_future_cancel(&ops[1].future), 1);
    EQ(casync_write(&a, "x", 1), 1);
    casync_close(&b);
    casync_sendfile_op(&a, &ops[1], file, 0, 0);
    EXPECT(done(&ops[1].future) < 0); /* EPIPE, and no signal */
    close_sender();
}

static int64_t refuse_sendfile(int to, int from, int64_t *offset, size_t size) {
    return (void)to, (void)from, (void)offset, (void)size, -EINVAL;
}

static int64_t fail_after_4096(int to, int from, int64_t *offset, size_t size) {
    if (*offset > 0) return -EIO;
    return casync__direct_sendfile(to, from, offset, size < 4096 ? size : 4096);
}

TEST(an_error_of_the_file_is_no_end_of_it) {
    open_sender();
    casync_syscalls.sendfile = fail_after_4096;
    EQ(casync_future_result(casync_sendfile_op(&a, &ops[1], file, 0, 0)), -EIO);
    EQ(ops[1].done, 4096);
    close_sender();
}

TEST(after_the_end_of_the_stream_writes_say_so) {
    open_sender();
    casync_sendfile_op(&a, &ops[1], file, 0, 0);
    casync_close(&b);
    EXPECT(done(&ops[1].future) < 0);
    EXPECT(casync_write(&a, "x", 1) < 0 && casync_write(&a, "x", 1) != -EBUSY);
    close_sender();
}

static int64_t sends_file_to(casync_loop *where, void *stream) {
    (void)where;
    return casync_sendfile((casync_stream *)stream, file, 0, 0);
}

TEST(what_the_kernel_does_not_send_is_read_and_written) {
    casync_task *task;
    open_sender();
    casync_syscalls.sendfile = refuse_sendfile;
    EQ(casync_future_result(casync_sendfile_op(&a, &ops[1], file, 0, 0)), -EINVAL);
    task = spawn(sends_file_to, &a);
    EQ(run_task(receives, (void *)(intptr_t)sizeof content), sizeof content);
    EQ(casync_run_until_complete(&task->future), sizeof content);
    casync_task_release(task);
    close_sender();
}

static int64_t pread_at_gate(int fd, void *data, size_t size, int64_t offset) {
    void *nothing;
    pass_gate(NULL, &nothing);
    return casync__direct_pread(fd, data, size, offset);
}

TEST(a_stream_may_be_closed_while_a_file_is_read_for_it) {
    casync_stream *own = (casync_stream *)calloc(1, sizeof *own);
    casync_task *task;
    open_sender();
    casync_close(&a);
    EQ(casync_socketpair(&loop, own, &a, NULL, NULL), 0);
    casync_syscalls.sendfile = refuse_sendfile;
    casync_syscalls.pread = pread_at_gate;
    task = spawn(sends_file_to, own);
    EQ(casync_run_nowait(&loop), 0);
    wait_inside(1);
    casync_close(own);
    free(own);
    let_pass(1);
    EQ(casync_run_until_complete(&task->future), -ECONNABORTED);
    casync_task_release(task);
    close_sender();
}

TEST(an_atomic_write_replaces_what_a_link_leads_to) {
    casync_file_status status;
    open_directory();
    EQ(put("old"), 3);
    EQ(symlink("file", other), 0);
    EQ(done(casync_file_write_all_op(&loop, &ops[0], other, "new", 3, 0600, CASYNC_FILE_ATOMIC)),
       3);
    EQ(done(casync_file_lstat_op(&loop, &ops[0], other, &status)), 0);
    EXPECT(S_ISLNK(status.mode));
    has(path, "new");
    EQ(done(
           casync_file_write_all_op(&loop, &ops[0], "/dev/null", "x", 1, 0600, CASYNC_FILE_ATOMIC)),
       1);
    EQ(done(casync_file_stat_op(&loop, &ops[0], "/dev/null", &status)), 0);
    EXPECT(S_ISCHR(status.mode));
    remove_file(other);
    remove_file(path);
    close_directory();
}
