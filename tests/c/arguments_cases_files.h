/* arguments_cases_files.h - what the functions for files answer to nothing. */
#ifndef ARGUMENTS_CASES_FILES_H
#define ARGUMENTS_CASES_FILES_H

#include "arguments_fixture.h"

static void terminals(void) {
    NUMBER(casync_terminal_set_mode, (-1, 0), -EBADF);
    NUMBER(casync_terminal_size, (-1, NULL, NULL), -EINVAL);
    NUMBER(casync_openpty, (NULL, 1, 1), -EINVAL);
}

static void watches(void) {
    NUMBER(casync_watch_start, (NULL, &zero.watch, &zero.watch_desc), -EINVAL);
    NUMBER(casync_watch_start, (&zero.loop, &zero.watch, &zero.watch_desc), -EINVAL);
    NUMBER(casync_watch_start, (&loop, NULL, &zero.watch_desc), -EINVAL);
    NUMBER(casync_watch_start, (&loop, &zero.watch, NULL), -EINVAL);
    NUMBER(casync_watch_start, (&loop, &zero.watch, &zero.watch_desc), -EINVAL);
    FUTURE(casync_watch_next_op, (NULL, &zero.op, &zero.change), -EINVAL);
    FUTURE(casync_watch_next_op, (&zero.watch, &zero.op, NULL), -EINVAL);
    FUTURE(casync_watch_next_op, (&zero.watch, &zero.op, &zero.change), CASYNC_INVALID_STATE);
    WITHOUT_OP(casync_watch_next_op, (&zero.watch, NULL, &zero.change));
    NUMBER(casync_watch_next, (NULL, &zero.change), AN_ERROR);
    NOTHING(casync_watch_stop, (NULL));
    NOTHING(casync_watch_stop, (&zero.watch));
}

static void files(void) {
    NUMBER(casync_file_open, (NULL, 0, 0), AN_ERROR);
    FUTURE(casync_file_open_op, (NULL, &zero.op, NULL, 0, 0), -EINVAL);
    FUTURE(casync_file_open_op, (&zero.loop, &zero.op, NULL, 0, 0), -EINVAL);
    FUTURE(casync_file_open_op, (&loop, &zero.op, NULL, 0, 0), -EINVAL);
    WITHOUT_OP(casync_file_open_op, (&loop, NULL, NULL, 0, 0));
    NUMBER(casync_file_close, (-1), AN_ERROR);
    FUTURE(casync_file_close_op, (NULL, &zero.op, -1), -EINVAL);
    FUTURE(casync_file_close_op, (&zero.loop, &zero.op, -1), -EINVAL);
    WITHOUT_OP(casync_file_close_op, (&loop, NULL, -1));
    NUMBER(casync_file_read, (-1, NULL, 5), AN_ERROR);
    FUTURE(casync_file_read_op, (NULL, &zero.op, -1, NULL, 5), -EINVAL);
    FUTURE(casync_file_read_op, (&zero.loop, &zero.op, -1, NULL, 5), -EINVAL);
    FUTURE(casync_file_read_op, (&loop, &zero.op, -1, NULL, 5), -EINVAL);
    WITHOUT_OP(casync_file_read_op, (&loop, NULL, -1, NULL, 5));
    NUMBER(casync_file_pread, (-1, NULL, 5, 0), AN_ERROR);
    FUTURE(casync_file_pread_op, (NULL, &zero.op, -1, NULL, 5, 0), -EINVAL);
    FUTURE(casync_file_pread_op, (&zero.loop, &zero.op, -1, NULL, 5, 0), -EINVAL);
    FUTURE(casync_file_pread_op, (&loop, &zero.op, -1, NULL, 5, 0), -EINVAL);
    WITHOUT_OP(casync_file_pread_op, (&loop, NULL, -1, NULL, 5, 0));
    NUMBER(casync_file_write, (-1, NULL, 5), AN_ERROR);
    FUTURE(casync_file_write_op, (NULL, &zero.op, -1, NULL, 5), -EINVAL);
    FUTURE(casync_file_write_op, (&zero.loop, &zero.op, -1, NULL, 5), -EINVAL);
    FUTURE(casync_file_write_op, (&loop, &zero.op, -1, NULL, 5), -EINVAL);
    WITHOUT_OP(casync_file_write_op, (&loop, NULL, -1, NULL, 5));
    NUMBER(casync_file_pwrite, (-1, NULL, 5, 0), AN_ERROR);
    FUTURE(casync_file_pwrite_op, (NULL, &zero.op, -1, NULL, 5, 0), -EINVAL);
    FUTURE(casync_file_pwrite_op, (&zero.loop, &zero.op, -1, NULL, 5, 0), -EINVAL);
    FUTURE(casync_file_pwrite_op, (&loop, &zero.op, -1, NULL, 5, 0), -EINVAL);
    WITHOUT_OP(casync_file_pwrite_op, (&loop, NULL, -1, NULL, 5, 0));
    NUMBER(casync_file_sync, (-1), AN_ERROR);
    FUTURE(casync_file_sync_op, (NULL, &zero.op, -1), -EINVAL);
    FUTURE(casync_file_sync_op, (&zero.loop, &zero.op, -1), -EINVAL);
    WITHOUT_OP(casync_file_sync_op, (&loop, NULL, -1));
    NUMBER(casync_file_datasync, (-1), AN_ERROR);
    FUTURE(casync_file_datasync_op, (NULL, &zero.op, -1), -EINVAL);
    FUTURE(casync_file_datasync_op, (&zero.loop, &zero.op, -1), -EINVAL);
    WITHOUT_OP(casync_file_datasync_op, (&loop, NULL, -1));
    NUMBER(casync_file_truncate, (-1, 0), AN_ERROR);
    FUTURE(casync_file_truncate_op, (NULL, &zero.op, -1, 0), -EINVAL);
    FUTURE(casync_file_truncate_op, (&zero.loop, &zero.op, -1, 0), -EINVAL);
    WITHOUT_OP(casync_file_truncate_op, (&loop, NULL, -1, 0));
    NUMBER(casync_file_stat, (NULL, NULL), AN_ERROR);
    FUTURE(casync_file_stat_op, (NULL, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_stat_op, (&zero.loop, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_stat_op, (&loop, &zero.op, NULL, NULL), -EINVAL);
    WITHOUT_OP(casync_file_stat_op, (&loop, NULL, NULL, NULL));
    NUMBER(casync_file_lstat, (NULL, NULL), AN_ERROR);
    FUTURE(casync_file_lstat_op, (NULL, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_lstat_op, (&zero.loop, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_lstat_op, (&loop, &zero.op, NULL, NULL), -EINVAL);
    WITHOUT_OP(casync_file_lstat_op, (&loop, NULL, NULL, NULL));
    NUMBER(casync_file_fstat, (-1, NULL), AN_ERROR);
    FUTURE(casync_file_fstat_op, (NULL, &zero.op, -1, NULL), -EINVAL);
    FUTURE(casync_file_fstat_op, (&zero.loop, &zero.op, -1, NULL), -EINVAL);
    FUTURE(casync_file_fstat_op, (&loop, &zero.op, -1, NULL), -EINVAL);
    WITHOUT_OP(casync_file_fstat_op, (&loop, NULL, -1, NULL));
    NUMBER(casync_file_rename, (NULL, NULL), AN_ERROR);
    FUTURE(casync_file_rename_op, (NULL, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_rename_op, (&zero.loop, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_rename_op, (&loop, &zero.op, NULL, NULL), -EINVAL);
    WITHOUT_OP(casync_file_rename_op, (&loop, NULL, NULL, NULL));
    NUMBER(casync_file_link, (NULL, NULL), AN_ERROR);
    FUTURE(casync_file_link_op, (NULL, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_link_op, (&zero.loop, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_link_op, (&loop, &zero.op, NULL, NULL), -EINVAL);
    WITHOUT_OP(casync_file_link_op, (&loop, NULL, NULL, NULL));
    NUMBER(casync_file_symlink, (NULL, NULL), AN_ERROR);
    FUTURE(casync_file_symlink_op, (NULL, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_symlink_op, (&zero.loop, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_symlink_op, (&loop, &zero.op, NULL, NULL), -EINVAL);
    WITHOUT_OP(casync_file_symlink_op, (&loop, NULL, NULL, NULL));
    NUMBER(casync_file_unlink, (NULL), AN_ERROR);
    FUTURE(casync_file_unlink_op, (NULL, &zero.op, NULL), -EINVAL);
    FUTURE(casync_file_unlink_op, (&zero.loop, &zero.op, NULL), -EINVAL);
    FUTURE(casync_file_unlink_op, (&loop, &zero.op, NULL), -EINVAL);
    WITHOUT_OP(casync_file_unlink_op, (&loop, NULL, NULL));
    NUMBER(casync_file_mkdir, (NULL, 0), AN_ERROR);
    FUTURE(casync_file_mkdir_op, (NULL, &zero.op, NULL, 0), -EINVAL);
    FUTURE(casync_file_mkdir_op, (&zero.loop, &zero.op, NULL, 0), -EINVAL);
    FUTURE(casync_file_mkdir_op, (&loop, &zero.op, NULL, 0), -EINVAL);
    WITHOUT_OP(casync_file_mkdir_op, (&loop, NULL, NULL, 0));
    NUMBER(casync_file_rmdir, (NULL), AN_ERROR);
    FUTURE(casync_file_rmdir_op, (NULL, &zero.op, NULL), -EINVAL);
    FUTURE(casync_file_rmdir_op, (&zero.loop, &zero.op, NULL), -EINVAL);
    FUTURE(casync_file_rmdir_op, (&loop, &zero.op, NULL), -EINVAL);
    WITHOUT_OP(casync_file_rmdir_op, (&loop, NULL, NULL));
    NUMBER(casync_file_chmod, (NULL, 0), AN_ERROR);
    FUTURE(casync_file_chmod_op, (NULL, &zero.op, NULL, 0), -EINVAL);
    FUTURE(casync_file_chmod_op, (&zero.loop, &zero.op, NULL, 0), -EINVAL);
    FUTURE(casync_file_chmod_op, (&loop, &zero.op, NULL, 0), -EINVAL);
    WITHOUT_OP(casync_file_chmod_op, (&loop, NULL, NULL, 0));
    NUMBER(casync_file_readlink, (NULL, NULL, 5), AN_ERROR);
    FUTURE(casync_file_readlink_op, (NULL, &zero.op, NULL, NULL, 5), -EINVAL);
    FUTURE(casync_file_readlink_op, (&zero.loop, &zero.op, NULL, NULL, 5), -EINVAL);
    FUTURE(casync_file_readlink_op, (&loop, &zero.op, NULL, NULL, 5), -EINVAL);
    WITHOUT_OP(casync_file_readlink_op, (&loop, NULL, NULL, NULL, 5));
    NUMBER(casync_file_realpath, (NULL, NULL, 5), AN_ERROR);
    FUTURE(casync_file_realpath_op, (NULL, &zero.op, NULL, NULL, 5), -EINVAL);
    FUTURE(casync_file_realpath_op, (&zero.loop, &zero.op, NULL, NULL, 5), -EINVAL);
    FUTURE(casync_file_realpath_op, (&loop, &zero.op, NULL, NULL, 5), -EINVAL);
    WITHOUT_OP(casync_file_realpath_op, (&loop, NULL, NULL, NULL, 5));
    NUMBER(casync_file_mkstemp, (NULL), AN_ERROR);
    FUTURE(casync_file_mkstemp_op, (NULL, &zero.op, NULL), -EINVAL);
    FUTURE(casync_file_mkstemp_op, (&zero.loop, &zero.op, NULL), -EINVAL);
    FUTURE(casync_file_mkstemp_op, (&loop, &zero.op, NULL), -EINVAL);
    WITHOUT_OP(casync_file_mkstemp_op, (&loop, NULL, NULL));
    NUMBER(casync_file_mkdtemp, (NULL), AN_ERROR);
    FUTURE(casync_file_mkdtemp_op, (NULL, &zero.op, NULL), -EINVAL);
    FUTURE(casync_file_mkdtemp_op, (&zero.loop, &zero.op, NULL), -EINVAL);
    FUTURE(casync_file_mkdtemp_op, (&loop, &zero.op, NULL), -EINVAL);
    WITHOUT_OP(casync_file_mkdtemp_op, (&loop, NULL, NULL));
    NUMBER(casync_file_scandir, (NULL, NULL), AN_ERROR);
    FUTURE(casync_file_scandir_op, (NULL, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_scandir_op, (&zero.loop, &zero.op, NULL, NULL), -EINVAL);
    FUTURE(casync_file_scandir_op, (&loop, &zero.op, NULL, NULL), -EINVAL);
    WITHOUT_OP(casync_file_scandir_op, (&loop, NULL, NULL, NULL));
    NOTHING(casync_file_entries_free, (NULL));
    NUMBER(casync_file_read_all, (NULL, NULL, 0), AN_ERROR);
    FUTURE(casync_file_read_all_op, (NULL, &zero.op, NULL, NULL, 0), -EINVAL);
    FUTURE(casync_file_read_all_op, (&zero.loop, &zero.op, NULL, NULL, 0), -EINVAL);
    FUTURE(casync_file_read_all_op, (&loop, &zero.op, NULL, NULL, 0), -EINVAL);
    WITHOUT_OP(casync_file_read_all_op, (&loop, NULL, NULL, NULL, 0));
    NOTHING(casync_file_data_free, (NULL));
    NUMBER(casync_file_write_all, (NULL, NULL, 5, 0, 0), AN_ERROR);
    FUTURE(casync_file_write_all_op, (NULL, &zero.op, NULL, NULL, 5, 0, 0), -EINVAL);
    FUTURE(casync_file_write_all_op, (&zero.loop, &zero.op, NULL, NULL, 5, 0, 0), -EINVAL);
    FUTURE(casync_file_write_all_op, (&loop, &zero.op, NULL, NULL, 5, 0, 0), -EINVAL);
    WITHOUT_OP(casync_file_write_all_op, (&loop, NULL, NULL, NULL, 5, 0, 0));
    NUMBER(casync_sendfile, (NULL, -1, 0, 0), AN_ERROR);
    FUTURE(casync_sendfile_op, (NULL, &zero.op, 0, 0, 0), AN_ERROR);
    FUTURE(casync_sendfile_op, (&zero.stream, &zero.op, 0, 0, 0), AN_ERROR);
    WITHOUT_OP(casync_sendfile_op, (&zero.stream, NULL, 0, 0, 0));
    NUMBER(casync_file_copy, (NULL, NULL, 0), AN_ERROR);
    FUTURE(casync_file_copy_op, (NULL, &zero.op, NULL, NULL, 0), -EINVAL);
    FUTURE(casync_file_copy_op, (&zero.loop, &zero.op, NULL, NULL, 0), -EINVAL);
    FUTURE(casync_file_copy_op, (&loop, &zero.op, NULL, NULL, 0), -EINVAL);
    WITHOUT_OP(casync_file_copy_op, (&loop, NULL, NULL, NULL, 0));
}

#endif /* ARGUMENTS_CASES_FILES_H */
