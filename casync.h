/* casync.h - asyncio for C, in one header.  MIT license, see the end of this file.

   casync is an event loop for Linux with asyncio's nouns and semantics: callbacks, timers, fd
   watchers, threadsafe calls, signals, futures, tasks, locks and queues, streams, servers,
   datagrams, names, processes, files and their changes, and a pool of threads. It depends on libc
   and pthreads alone. The Python package `casync` runs on the same engine.

   This comment is the manual. Each chapter explains one subject and shows the shortest program that
   works, with what it prints; casync's tests compile and run all of these programs. The functions
   are documented one by one where they are declared.

   CONTENTS: `grep -n '^   >>' casync.h` prints the chapters of the manual with their lines, and
   `grep -n '^/\* >>' casync.h` the sections of the code, with -- in place of >> their parts. The
   API's sections come in the same order as the implementation's, which has a few more.

       1. a first program
       2. callbacks or tasks
       3. a server
       4. a client
       5. datagrams
       6. names
       7. terminals
       8. processes
       9. files
      10. watches
      11. TLS
      12. time
      13. ending: close, finish, abort
      14. cancelling and time limits
      15. groups of tasks
      16. locks and queues
      17. threads
      18. signals and fork
      19. embedding in another loop
      20. testing with the virtual and the manual clock
      21. memory and allocators
      22. errors
      23. what each thing costs
      24. asyncio's names in casync
      25. libuv's names in casync
      26. rules
      27. configuration, platforms, compatibility

   >> 1. a first program

   A task is a function that may wait. While it waits, the other tasks and callbacks of its thread
   run. casync_run makes a loop, runs a function as the loop's first task, and closes the loop when
   that function has returned. It is asyncio.run.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t hello(casync_loop *loop, void *name) {
           int64_t result = casync_sleep(CASYNC_MS(10));
           (void)loop;
           if (result >= 0) printf("hello, %s\n", (const char *)name);
           return result;
       }

       int main(void) { return casync_run(hello, "world") < 0; }

   Prints:
       hello, world

   Save the program as hello.c beside this file. Either of these lines runs it:

       tcc -run hello.c
       cc hello.c -o hello -lpthread && ./hello

   With musl, or with glibc 2.34 or newer, you can leave -lpthread out.

   Every C file of your program may include casync.h. Exactly one of them defines
   CASYNC_IMPLEMENTATION before the include. That file must be compiled with _GNU_SOURCE defined
   before its first include. If casync.h is its first include, the header defines _GNU_SOURCE
   itself; if another header came before and it is too late, an #error says so.

   A function that waits returns a result below 0 if it failed, and -ECANCELED if its task was asked
   to end (chapter 14). A task that overlooks this does not end when it should, so gcc and clang
   warn if a program ignores such a result. Write casync_ignore(casync_sleep(delay)) if you mean it.

   >> 2. callbacks or tasks

   You can write code for a loop in three ways. All of them run on the same loop and can wait for
   each other.

   - A stackful task is a function with a stack of its own, which looks like sequential code. The
     task can wait in this function and in every function that it calls. Take this if you have no
     reason to take another.
   - A stackless task is a struct and a step function, which the loop calls again after each wait.
     It needs no stack, so a million of them fit into 128 MB. In return, a step function must keep
     in its struct what it needs after a wait, and can wait only in its own body.
   - A callback is a function that the loop calls once for an event: a timer that is due, bytes that
     came, a signal. It cannot wait. It costs the least time and memory.

   This program uses callbacks. casync_run_until_idle returns when nothing is left that could run.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static void hello(void *name) { printf("hello, %s\n", (const char *)name); }

       int main(void) {
           casync_loop loop;
           casync_timer later = {0};
           int64_t result = casync_loop_init(&loop, NULL);
           if (result >= 0) result = casync_call_later(&loop, &later, CASYNC_MS(9), hello, "world");
           if (result >= 0) result = casync_call_soon(&loop, NULL, hello, "you");
           if (result >= 0) result = casync_run_until_idle(&loop);
           if (result >= 0) result = casync_loop_close(&loop);
           return result < 0;
       }

   Prints:
       hello, you
       hello, world

   The next program has a task of each kind. A stackless task is written between CASYNC_BEGIN and
   CASYNC_END. CASYNC_AWAIT(task, result, future) awaits a future and assigns its result;
   CASYNC_YIELD(task, result) lets the other tasks run for a turn. Write at most one of these two on
   a line, and none inside a switch statement of yours.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       typedef struct counter {
           casync_task task; // first, so that a pointer to it is a pointer to the counter
           casync_timer_op sleep;
           int n;
       } counter;

       static int64_t count(casync_task *task) { // stackless
           counter *c = (counter *)task;
           casync_loop *loop = task->future.loop;
           int64_t slept;
           CASYNC_BEGIN(task);
           for (c->n = 1; c->n <= 3; c->n++) {
               CASYNC_AWAIT(task, slept, casync_sleep_op(loop, &c->sleep, CASYNC_MS(1)));
               if (slept < 0) return slept;
               printf("%d\n", c->n);
           }
           CASYNC_END(task, 42);
       }

       static int64_t amain(casync_loop *loop, void *arg) { // stackful
           counter c;
           int64_t result = casync_task_start(loop, &c.task, count);
           (void)arg;
           if (result < 0) return result;
           result = casync_await(&c.task.future);
           printf("the result is %d\n", (int)result);
           casync_future_close(&c.task.future);
           return result;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       1
       2
       3
       the result is 42

   Whatever can wait has the same forms everywhere, so you can derive the names:

       casync_read(...)           waits; for stackful tasks; anywhere else it returns -EPERM
       casync_read_op(..., &op)   starts the operation and returns its future, which is never NULL
       casync_read_timeout(...)   waits, but only so long: -ETIMEDOUT; only some functions have it
       casync_connect_start(...)  starts it, and a protocol's callback tells how it went; only
                                  connect and finish have it

   A form with _op is for stackless tasks, for casync_gather and its like (chapter 15), and for
   callbacks, by casync_future_add_done_callback. If the start failed, the future is done and holds
   the error. The op and its buffers are yours again when the future is done. casync_join,
   casync_select, casync_wait_for, casync_once_call and the forms with _timeout consist of several
   waits, and so they have no form with _op. What has its result at once, such as casync_write,
   casync_listen or casync_close, has one form, which tasks and callbacks can both call.

   The first time that a function which waits is called where it cannot wait, the exception handler
   (chapter 22) gets the name of that function.

   The loop runs in turns, which are asyncio's. A turn asks the kernel which descriptors are ready,
   and waits for one if there is nothing to do. Then it queues the callbacks of what became ready,
   then those of the timers that are due, and then it runs the queue as it stands. What these
   callbacks queue waits for the next turn.

   A descriptor that becomes ready waits for one turn at most. There is one exception: when 16 polls
   in a row have found nothing, turns that have work to do skip the poll, for at most 64 turns or
   100 us, whichever ends first. They stop skipping when a poll finds something or when a descriptor
   is newly watched. The first turn of a run always polls.

   casync_run_forever runs turns until casync_stop, casync_run_until_complete until a future is
   done, casync_run_once and casync_run_nowait run a single turn. casync_stop lets the turn end;
   casync_break ends the run after the callback that is running, and keeps the rest queued. A loop
   cannot be run inside its own callbacks (-EBUSY), but another loop can.

   >> 3. a server

   casync_listen opens a listening socket. This server runs a task for each connection. The program
   also contains a client, so that it has something to do and ends.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t echo(casync_loop *loop, void *connection) {
           char buffer[4096];
           int64_t n;
           (void)loop;
           while ((n = casync_read(connection, buffer, sizeof buffer)) > 0)
               if ((n = casync_write_all(connection, buffer, (size_t)n)) < 0) break;
           return n;
       }

       static int64_t ask(casync_loop *loop, int port) { // stands for a client elsewhere
           casync_connect_desc desc = {.host = "127.0.0.1", .port = port};
           casync_stream stream = {0};
           char answer[6];
           int64_t n = casync_connect(loop, &stream, &desc);
           if (n >= 0) n = casync_write_all(&stream, "echo!\n", 6);
           if (n >= 0) n = casync_read_exactly(&stream, answer, 6);
           if (n >= 0) printf("the server answers: %.6s", answer);
           casync_close(&stream);
           return n;
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_listen_desc desc = {.host = "127.0.0.1", .task = echo};
           casync_server server = {0};
           casync_address address;
           int64_t result = casync_listen(loop, &server, &desc);
           (void)arg;
           if (result >= 0) result = casync_server_address(&server, &address);
           if (result >= 0) result = ask(loop, casync_address_port(&address));
           casync_server_close(&server);
           return result;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       the server answers: echo!

   A server for real use waits for its end by casync_server_join, or for a signal (chapter 18), and
   closes itself in order (chapter 13). When the task of a connection returns, the library sends
   what the task wrote, closes the connection and frees its memory. If the task returns an error,
   the library aborts the connection and tells the exception handler.

   casync_listen_desc says where to listen, and what becomes of a connection.

   - host is numeric: "127.0.0.1", "::1"; NULL means all addresses, IPv6 and IPv4. With port 0 the
     kernel chooses a free port, which casync_server_address tells. With path the server listens on
     a Unix socket; a path that begins with "@" is an abstract name. With use_fd it takes a socket
     that you opened. With reuse_port several servers share a port, for instance one in each thread.
   - task makes the library allocate a stream for each connection and run a stackful task for it;
     step does the same with a stackless task; protocol makes it call the functions of a protocol.
     accepted gives you the bare descriptor. Without any of these, casync_accept takes one
     connection after the other.
   - conn_size and stream_offset make the library allocate a larger struct of yours, zeroed, with
     the connection's casync_stream in it. Use them to keep what you know about a client. For step
     the struct begins with a casync_task.

   casync_write never waits: what the kernel does not take is queued in memory. A client that sends
   much and reads nothing could fill your memory with its answers. A task avoids that by
   casync_write_all, which waits until the kernel has the data, or by casync_drain after
   casync_write. A protocol has pause_writing, which is called when more than the high-water mark is
   queued, and resume_writing, when the queue has fallen to the low-water mark; there it can call
   casync_pause_reading and casync_resume_reading.

   Callbacks get the events of a stream by a protocol: a table of functions, as asyncio's Protocol.
   With a framing, data_received gets whole frames: those of a fixed size, those that end in a
   delimiter, or those behind a prefix that holds the length. Here both ends of a pair of streams
   have the same protocol.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static void data_received(casync_stream *stream, casync_span line) {
           (void)stream;
           printf("a line: %.*s", (int)line.len, (const char *)line.ptr);
       }

       static void connection_lost(casync_stream *stream, int64_t error) {
           (void)stream;
           printf("the end: %s\n", casync_strerror(error));
       }

       static const casync_protocol protocol = {
           .data_received = data_received, .connection_lost = connection_lost};
       static const casync_framing lines = {CASYNC_FRAMING_DELIMITER, .size = 1, .delimiter = "\n"};

       int main(void) {
           casync_stream_options options = {.framing = &lines};
           casync_loop loop;
           casync_stream from = {0}, to = {0};
           int64_t result = casync_loop_init(&loop, NULL);
           if (result >= 0) result = casync_socketpair(&loop, &from, &to, &protocol, &options);
           if (result >= 0) result = casync_write(&from, "one\ntwo\n", 8);
           casync_close(&from);
           if (result >= 0) result = casync_run_until_idle(&loop);
           if (result >= 0) result = casync_loop_close(&loop);
           return result < 0;
       }

   Prints:
       a line: one
       a line: two
       the end: success

   When the process has run out of descriptors, a server stops accepting for 100 ms and tells the
   exception handler. A casync_filter between a stream and its descriptor translates the bytes of
   either direction; TLS can be added in this way.

   >> 4. a client

   casync_connect connects a stream of yours. Zero it first. When casync_connect fails, the stream
   is closed. A host may be a name (chapter 6).

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t serve(casync_loop *loop, void *connection) {
           (void)loop;
           return casync_write_all(connection, "one\nthree\n", 10);
       }

       static int64_t read_lines(casync_stream *stream) {
           const void *line;
           int64_t n;
           while ((n = casync_read_until_timeout(stream, "\n", 1, &line, CASYNC_SECONDS(5))) > 0)
               printf("%d bytes: %.*s", (int)n, (int)n, (const char *)line);
           return n == CASYNC_EOF ? 0 : n;
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_listen_desc listen = {.host = "127.0.0.1", .task = serve};
           casync_connect_desc connect = {.host = "127.0.0.1"};
           casync_server server = {0};
           casync_stream stream = {0};
           casync_address address;
           int64_t result = casync_listen(loop, &server, &listen);
           (void)arg;
           if (result >= 0) result = casync_server_address(&server, &address);
           if (result >= 0) connect.port = casync_address_port(&address);
           if (result >= 0) result = casync_connect(loop, &stream, &connect);
           if (result >= 0) result = read_lines(&stream);
           casync_close(&stream);
           casync_server_close(&server);
           return result;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       4 bytes: one
       6 bytes: three

   A stream reads either by a protocol (chapter 3) or by the functions below, one at a time.

       casync_read           1 to size bytes, as soon as there are any; 0 at the end of the stream
       casync_read_exactly   size bytes
       casync_read_until     up to and with a delimiter, such as "\n" or "\r\n\r\n"
       casync_read_frame     a frame of a casync_framing

   The last two return a pointer into the stream's buffer. It is valid until the next read from this
   stream. If the stream ends, the last three return CASYNC_EOF when nothing was read, and
   CASYNC_INCOMPLETE_READ when a part was. A frame that is longer than options.read_limit, by
   default 64 KiB, is CASYNC_LIMIT_OVERRUN. No byte is lost when a read is cancelled: what it has
   read is kept for the next.

   To write, take casync_write (queues what the kernel does not take), casync_writev (several pieces
   as one), casync_write_ref (refers to your bytes instead of copying them, and calls a function
   when they are needed no more), casync_write_frame, casync_try_write (queues nothing), or
   casync_write_all (waits until the kernel has everything). casync_write_eof sends the end of the
   stream while you go on reading.

   casync_stream_open makes a stream of a descriptor that you have, casync_socketpair and
   casync_pipe make two streams that are joined. Regular files are always ready and cannot be
   streams (-EPERM). Over Unix sockets casync_send_fd and casync_receive_fd pass descriptors. casync
   turns Nagle's algorithm off, as asyncio does.

   >> 5. datagrams

   A casync_datagram is a UDP socket, over IPv4 and IPv6, or a Unix one. casync_datagram_write sends
   at once and never waits; casync_datagram_send waits until the kernel has the datagram;
   casync_datagram_receive waits for one.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_datagram_desc to_anybody = {.local_host = "127.0.0.1"};
           casync_datagram_desc to_server = {.remote_host = "127.0.0.1"};
           casync_datagram server = {0}, client = {0};
           casync_address address;
           char data[512];
           int64_t n = casync_datagram_open(loop, &server, &to_anybody);
           (void)arg;
           if (n >= 0) n = casync_datagram_local_address(&server, &address);
           if (n >= 0) to_server.remote_port = casync_address_port(&address);
           if (n >= 0) n = casync_datagram_open(loop, &client, &to_server);
           if (n >= 0) n = casync_datagram_write(&client, "question", 8, NULL);
           if (n >= 0) n = casync_datagram_receive(&server, data, sizeof data, &address);
           if (n >= 0) printf("server: %.*s\n", (int)n, data);
           if (n >= 0) n = casync_datagram_write(&server, "answer", 6, &address);
           if (n >= 0) n = casync_datagram_receive(&client, data, sizeof data, NULL);
           if (n >= 0) printf("client: %.*s\n", (int)n, data);
           casync_datagram_close(&client);
           casync_datagram_close(&server);
           return n;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       server: question
       client: answer

   A casync_datagram_protocol gets the datagrams by callbacks. A datagram that the kernel does not
   take is queued, up to desc.queue_limit, by default 1 MiB; after that writes return -ENOBUFS. A
   socket that is connected hears of datagrams that did not arrive, as -ECONNREFUSED and the like.
   The description also has options for broadcast and multicast; casync_datagram_join_group joins a
   group.

   >> 6. names

   desc.host of casync_connect takes a name, such as "example.com". The name is looked up in a
   thread, by the C library, as /etc/hosts and /etc/resolv.conf say. Its addresses are then tried in
   the order of RFC 8305 (Happy Eyeballs): IPv6 and IPv4 by turns, each with a quarter of a second
   for itself (desc.attempt_delay) before the next is tried beside it. The first that connects is
   taken. If none does, desc.errors, a buffer of yours, has the words of every attempt.

   casync_getaddrinfo looks up the addresses of a host, casync_getnameinfo the name of an address.
   As with every function that waits, a time limit or a cancellation ends the wait at once.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_getaddrinfo_desc question = {.host = "127.0.0.1", .port = 80};
           casync_connect_desc connect = {.host = "no.such.name.invalid", .port = 80};
           casync_addrinfo info = {0};
           casync_stream stream = {0};
           char text[CASYNC_ADDRESS_TEXT];
           int64_t n = casync_getaddrinfo(loop, &info, &question);
           (void)arg;
           for (size_t i = 0; i < info.count; i++)
               printf("%s\n", casync_address_text(&info.addresses[i], text));
           casync_addrinfo_free(&info);
           if (n < 0) return n;
           n = casync_connect_timeout(loop, &stream, &connect, CASYNC_SECONDS(20));
           printf("connected: %s\n", n < 0 ? "no" : "yes");
           casync_close(&stream);
           return 0;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       127.0.0.1:80
       connected: no

   Addresses in numbers, and no host at all, are answered at once and never reach a thread. Names
   take half of the threads of the loop's default pool at most, so that a name server which does not
   answer leaves threads to other calls; the same name is not asked for twice at the same time. The
   errors of the C library are CASYNC_EAI_NONAME (there is no such name), CASYNC_EAI_AGAIN (nobody
   knows now) and others, with words by casync_strerror.

   casync_listen and casync_datagram_open take names too, where they can wait: in a stackful task. A
   server listens at every address of its name, so "localhost" serves "::1" and "127.0.0.1". In
   callbacks and stackless tasks, look the name up with casync_getaddrinfo_op, and give what it
   found as desc.addresses. A program that is linked statically to glibc needs glibc's shared
   library of the same version on the machine where it runs; musl needs nothing.

   >> 7. terminals

   casync_terminal_set_mode gives you the keys of a terminal as they are pressed. Whatever ends your
   program, the terminal is normal again. This program sets it for a moment, where there is one.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       int main(void) {
           int fds[2], columns, rows;
           if (casync_openpty(fds, 80, 24) < 0) return 1;
           if (casync_terminal_size(fds[1], &columns, &rows) < 0) return 1;
           printf("%d x %d\n", columns, rows);
           printf("%s\n", casync_strerror(casync_terminal_set_mode(fds[1],
           CASYNC_TERMINAL_CBREAK))); return 0;
       }

   Prints:
       80 x 24
       success

   casync_stream_open makes a stream of a terminal, from which a task reads keys and to which it
   writes. CASYNC_TERMINAL_CBREAK leaves Ctrl-C and Ctrl-Z what they are; CASYNC_TERMINAL_RAW makes
   keys of them. When the window changes its size, SIGWINCH comes (casync_signal_start), and
   casync_terminal_size tells the new one. casync_openpty makes a pseudoterminal, for a program that
   is to believe it has a user; casync_process_desc.terminal starts one so.

   >> 8. processes

   casync_process_start starts a program, with pipes as streams where the desc says so. The child
   has the standard descriptors, the environment and the working directory of your program, unless
   the desc says otherwise; it has no other descriptor, no blocked signal and no handler.
   casync_process_communicate writes its input, reads its output, and waits for its end;
   casync_process_wait waits alone.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t amain(casync_loop *loop, void *arg) {
           const char *args[] = {"tr", "a-z", "A-Z", NULL};
           casync_process_desc desc = {
               .args = args, .in = CASYNC_STDIO_PIPE, .out = CASYNC_STDIO_PIPE};
           casync_process process = {0};
           casync_process_output output;
           casync_span input = {"hello\n", 6};
           int64_t result = casync_process_start(loop, &process, &desc);
           (void)arg;
           if (result < 0) return result;
           result = casync_process_communicate(&process, input, &output, 1 << 20);
           printf("%.*s", (int)output.out.len, (const char *)output.out.ptr);
           printf("exit code %d\n", (int)result);
           casync_process_output_free(&output);
           casync_process_close(&process);
           return result;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       HELLO
       exit code 0

   A program that is missing, or an option that cannot be had, is an error of casync_process_start,
   and process.step names the call that failed. What casync_process_wait returns is the exit code,
   or 256 plus the number of the signal that killed the process: casync_process_signal tells which.
   casync_process_terminate, casync_process_kill and casync_process_send_signal send signals, and
   never to a process that took the number of one that has ended.

   To read and write as it goes, use process.in, process.out and process.err: they are streams
   (chapter 4). desc.shell runs a command line in /bin/sh.

   When you close a process, it goes on by itself, and the loop reaps it when it ends. A loop that
   is closed kills its processes that have not ended, unless desc.detached is set. There is no
   handler for SIGCHLD, and children that other code starts are left alone. If other code takes the
   status of one that casync started (wait(2), or SIGCHLD ignored), the wait ends with
   CASYNC_NO_STATUS. casync_wait_pid waits for the end of a process that need not be a child.

   >> 9. files

   The kernel cannot tell when a regular file is ready, so the functions for files work in threads
   of the loop's default pool. They have POSIX's names: casync_file_open, _read, _pread, _write,
   _stat, _rename, _mkdir, _scandir and so on. Each is one call of the pool.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t amain(casync_loop *loop, void *arg) {
           char path[] = "/tmp/casync-XXXXXX";
           casync_file_data data = {0};
           int fd = (int)casync_file_mkstemp(path);
           int64_t n;
           (void)loop, (void)arg;
           if (fd < 0) return fd;
           n = casync_file_pwrite(fd, "hello\n", 6, 0);
           if (n >= 0) n = casync_file_close(fd);
           if (n >= 0) n = casync_file_read_all(path, &data, 1 << 20);
           if (n >= 0) printf("%d bytes: %s", (int)n, (const char *)data.ptr);
           casync_file_data_free(&data);
           casync_ignore(casync_file_unlink(path));
           return n;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       6 bytes: hello

   casync_file_read_all and casync_file_write_all take whole files. With CASYNC_FILE_ATOMIC a file
   is replaced as a whole or not at all; with CASYNC_FILE_SYNC it is on disk afterwards.
   casync_file_copy copies by reference where the file system can. casync_sendfile sends a file by a
   stream, from the kernel's memory where that is possible.

   A call that is cancelled ends at once. Its thread goes on, but touches nothing of yours: a buffer
   that was to be filled is yours again, and a descriptor that was opened is closed.

   >> 10. watches

   A casync_watch tells what changes in a directory, in a tree of directories, or of a file, by a
   callback or to a task that waits. A file is followed by its name: it may be removed and made
   anew, or replaced, as logs are when they are rotated.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t amain(casync_loop *loop, void *arg) {
           char path[] = "/tmp/casync-XXXXXX";
           casync_watch_desc desc = {.path = path};
           casync_watch watch = {0};
           casync_change change;
           int fd = (int)casync_file_mkstemp(path);
           int64_t result = fd < 0 ? fd : casync_watch_start(loop, &watch, &desc);
           (void)arg;
           if (result >= 0) result = casync_file_write(fd, "text", 4);
           if (result >= 0) result = casync_watch_next(&watch, &change);
           if (result >= 0) printf("modified: %d\n", change.kind == CASYNC_CHANGE_MODIFIED);
           if (result >= 0) result = casync_file_unlink(path);
           while (result >= 0 && change.kind != CASYNC_CHANGE_REMOVED)
               result = casync_watch_next(&watch, &change);
           if (result >= 0) printf("removed\n");
           casync_watch_stop(&watch);
           return result;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       modified: 1
       removed

   With desc.recursive new directories are watched as they come, and what is in them already is told
   as created. The two halves of a rename come as one change, with old_path. CASYNC_CHANGE_OVERFLOW
   says that the kernel lost events, so that you look at everything yourself.

   >> 11. TLS

   With `#define CASYNC_OPENSSL` before the include of the implementation, and -lssl -lcrypto, the
   library has TLS by OpenSSL 3. casync_start_tls puts it into a connected stream, of a client or of
   a server, at once or after a STARTTLS. What you read and write afterwards is what is inside, by
   the same functions. A client that reads a page:

       casync_tls_context_desc trust = {0};
       casync_tls_desc tls = {.server_name = "example.com"};
       casync_connect_desc connect = {.host = "example.com", .port = 443};
       int64_t result = casync_tls_context_make(&tls.context, &trust);
       if (result >= 0) result = casync_connect(loop, &stream, &connect);
       if (result >= 0) result = casync_start_tls(&stream, &tls);
       if (result >= 0) result = casync_write_all(&stream, request, sizeof request - 1);
       while (result >= 0 && (result = casync_read(&stream, buffer, sizeof buffer)) > 0)
           fwrite(buffer, 1, (size_t)result, stdout);

   The certificate is verified, by the system's store, and its name is checked, unless you say
   no_verify. A server sets certificate_file and key_file; a task that serves a connection begins
   with casync_start_tls. One context serves any number of connections.

   casync_finish and casync_write_eof say goodbye (close_notify). A peer that ends without it is
   CASYNC_INCOMPLETE_READ, as what it sent may have been cut. Bytes that were read ahead before
   casync_start_tls are taken as TLS, never as data. OpenSSL's words about an error are in
   desc.errors. casync_tls_info_of tells the version, the cipher, the protocol that ALPN chose, and
   the peer's certificate. The kernel's TLS (kTLS) is not used: it wants OpenSSL on the socket.

   >> 12. time

   A time is an int64_t in nanoseconds: CASYNC_US(5), CASYNC_MS(5), CASYNC_SECONDS(5), and
   CASYNC_FOREVER, a deadline that never comes. The loop's clock is CLOCK_MONOTONIC, read by
   casync_time. Timers are never early. They run in the order of their deadlines, and timers with
   the same deadline run in the order in which they were started.

   A task sleeps by casync_sleep. A callback is called by casync_call_later after a delay, by
   casync_call_at at a time, or by casync_timer_start again and again. The following program has a
   virtual clock (chapter 20), so it does not take any time.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static casync_loop loop;
       static casync_timer ticker;
       static int ticks;

       static void say(void *text) {
           printf("%d ms: %s\n", (int)(casync_time(&loop) / CASYNC_MS(1)), (const char *)text);
       }

       static void tick(void *text) {
           say(text);
           if (++ticks == 3) casync_timer_stop(&ticker);
       }

       int main(void) {
           casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL};
           int64_t result = casync_loop_init(&loop, &desc);
           if (result >= 0) result = casync_call_later(&loop, NULL, CASYNC_MS(40), say, "late");
           if (result >= 0) result = casync_call_later(&loop, NULL, CASYNC_MS(10), say, "soon");
           if (result >= 0)
               result = casync_timer_start(&loop, &ticker, CASYNC_MS(15), CASYNC_MS(10), tick,
                                           "tick");
           if (result >= 0) result = casync_run_until_idle(&loop);
           if (result >= 0) result = casync_loop_close(&loop);
           return result < 0;
       }

   Prints:
       10 ms: soon
       15 ms: tick
       25 ms: tick
       35 ms: tick
       40 ms: late

   A repeating timer is due one period after its previous deadline, not after its previous call, so
   it does not drift. If it comes so late that whole periods have passed, it skips them.
   casync_timer_stop ends any timer, and casync_timer_again restarts a repeating one from now. If
   you give NULL for the timer to casync_call_later or casync_call_at, the loop lends one, which you
   cannot stop.

   >> 13. ending: close, finish, abort

   A stream ends in one of four ways:

       casync_finish       in order: sends what is queued, then closes. asyncio's close()
       casync_abort        soon, without sending what is queued. asyncio's abort()
       casync_close        at once; what is queued is lost, and the exception handler hears of it
       casync_close_reset  at once, by a TCP reset, and nothing is reported

   casync_close is immediate: no callback of the stream comes after it, operations that wait for the
   stream fail with -ECONNABORTED, and its memory may go. The same holds when you close a server or
   a datagram socket, stop a timer, a signal or a hook, remove a watcher, or cancel a job. After
   casync_finish_start and casync_abort the protocol still gets connection_lost, and until then the
   struct belongs to the library. casync_finish waits until the stream is closed. TCP has a trap: if
   you close a connection while received bytes are unread, the kernel sends a reset, which may drop
   what you sent before.

   To shut a server down in order, close it, which ends listening; wait for its clients within a
   time limit; then abort those that are left. The struct of a closed server still leads to its
   connections. Here a client still waits for its answer when the server is closed.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <errno.h>
       #include <stdio.h>

       static casync_event asked;

       static int64_t serve(casync_loop *loop, void *connection) {
           const void *question;
           int64_t n = casync_read_until(connection, "\n", 1, &question);
           (void)loop;
           casync_event_set(&asked);
           if (n >= 0) n = casync_sleep(CASYNC_MS(10)); // the work
           return n < 0 ? n : casync_write(connection, "answer\n", 7);
       }

       static int64_t shut_down(casync_server *server) {
           int64_t result;
           casync_server_close(server);
           result = casync_server_wait_clients_timeout(server, CASYNC_SECONDS(5));
           if (result == -ETIMEDOUT) result = casync_server_abort_clients(server);
           if (result >= 0) printf("shut down, %d clients aborted\n", (int)result);
           return result;
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_listen_desc listen = {.host = "127.0.0.1", .task = serve};
           casync_connect_desc connect = {.host = "127.0.0.1"};
           casync_server server = {0};
           casync_stream client = {0};
           casync_address address;
           char line[8];
           int64_t n = casync_listen(loop, &server, &listen);
           (void)arg;
           if (n >= 0) n = casync_server_address(&server, &address);
           if (n >= 0) connect.port = casync_address_port(&address);
           if (n >= 0) n = casync_connect(loop, &client, &connect);
           if (n >= 0) n = casync_write_all(&client, "question\n", 9);
           if (n >= 0) n = casync_event_wait(&asked);
           if (n >= 0) n = shut_down(&server);
           if (n >= 0) n = casync_read(&client, line, sizeof line);
           if (n >= 0) printf("the client still got: %.*s", (int)n, line);
           casync_close(&client);
           return n;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       shut down, 0 clients aborted
       the client still got: answer

   When the task of a connection has returned, the client has 30 s to take what is queued
   (casync_listen_desc.finish_timeout). After that time the library aborts the connection and tells
   the exception handler. A server of protocols ends its connections in order by
   casync_server_finish_clients.

   When the first task of casync_run returns, casync_run cancels the tasks that are left and waits
   for them, closes servers, waits for the default pool of threads and for connections that are
   being finished, and closes what is still open. If all this takes longer than a second, it prints
   what it waits for. Timers, streams and other structs on the first task's stack go when that task
   returns, so stop or close them before.

   casync_loop_close drops jobs, timers, watchers, signals and stackless tasks without a call. It
   refuses with CASYNC_STILL_OPEN while a stream, a server, a datagram socket or a stackful task is
   left; casync_dump names them.

   >> 14. cancelling and time limits

   casync_task_cancel asks a task to end. The wait in which the task is, or else its next one,
   returns -ECANCELED, once. The task can then clean up, wait while it cleans up, and return. A task
   that has not begun ends without running. casync_timeout_begin and casync_timeout_end limit the
   time of all that a task does between them.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <errno.h>
       #include <stdio.h>

       static int64_t work(casync_loop *loop, void *arg) {
           int64_t result = casync_sleep(CASYNC_SECONDS(3600));
           (void)loop, (void)arg;
           if (result == -ECANCELED) printf("work: asked to end, cleaning up\n");
           return result;
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_task *task = casync_spawn(loop, work, NULL);
           casync_timeout limit;
           int64_t result = casync_sleep(0); // lets the task begin
           (void)arg;
           casync_task_cancel(task);
           if (result >= 0) result = casync_join(task);
           printf("work returned: %s\n", casync_strerror(result));

           result = casync_timeout_begin(&limit, CASYNC_MS(10));
           if (result >= 0) result = casync_sleep(CASYNC_SECONDS(3600));
           if (result >= 0) result = casync_sleep(CASYNC_SECONDS(3600));
           result = casync_timeout_end(&limit, result);
           printf("two hours in 10 ms: %s\n", casync_strerror(result));
           return 0;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       work: asked to end, cleaning up
       work returned: Operation canceled
       two hours in 10 ms: Connection timed out

   When the time is up, the library cancels the task, and casync_timeout_end turns the -ECANCELED
   that you give to it into -ETIMEDOUT; it returns every other result as it is. Time limits nest.
   casync_timeout_reschedule moves a limit. For a single future there is casync_wait_for, and
   casync_read, casync_connect and some others have a form with _timeout.

   Cancelling a task cancels the future that it awaits. An operation ends at once; an awaited task
   is asked to end. casync_shield awaits a future without passing the request on. Requests are
   counted. Code that asks a task to end, and then handles that itself, takes its request back by
   casync_task_uncancel, as time limits and groups do.

   In one case cancelling differs from asyncio's. If a request comes after the awaited future was
   done, but before the task went on, the task gets the result, and the next wait returns
   -ECANCELED. So a task never loses bytes that were read for it or a lock that was handed to it.

   >> 15. groups of tasks

   casync_spawn makes a task, which begins in the next turn, and returns a handle. Give the handle
   back, either by casync_join, which waits for the task and returns its result, or by
   casync_task_release. casync_spawn_detached makes a task without a handle.

   It is easier to start tasks in a group. No task of a group outlives the block that made it, and
   when one fails, the group cancels the others and the block.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <errno.h>
       #include <stdio.h>

       static int64_t copy(casync_loop *loop, void *disk) {
           int64_t result = casync_sleep(CASYNC_SECONDS(3600));
           (void)loop;
           printf("%s: %s\n", (const char *)disk, casync_strerror(result));
           return result;
       }

       static int64_t copy_to_full_disk(casync_loop *loop, void *disk) {
           (void)loop;
           printf("%s: %s\n", (const char *)disk, casync_strerror(-ENOSPC));
           return -ENOSPC;
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_task_group group;
           int64_t result = casync_task_group_begin(&group);
           (void)loop, (void)arg;
           if (result < 0) return result;
           if (!casync_task_group_spawn(&group, copy, "disk a") ||
               !casync_task_group_spawn(&group, copy_to_full_disk, "disk b"))
               result = -ENOMEM;
           result = casync_task_group_end(&group, result); // waits for both
           printf("the group: %s\n", casync_strerror(result));
           return 0;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       disk b: No space left on device
       disk a: Operation canceled
       the group: No space left on device

   The group returns the first error. group.errors has all of them in their order, up to
   CASYNC_GROUP_ERRORS. A task must end the group that it began. Stackless tasks join a group by
   casync_task_group_start.

   To wait for futures of any kind, fill an array of casync_waiter. The array and the futures must
   live until the wait is over.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_timer_op hour, minute;
           casync_waiter both[2] = {0};
           int64_t result;
           (void)arg;
           both[0].future = casync_sleep_op(loop, &hour, CASYNC_SECONDS(3600));
           both[1].future = casync_sleep_op(loop, &minute, CASYNC_SECONDS(60));
           result = casync_wait(both, 2, CASYNC_FIRST_COMPLETED, CASYNC_FOREVER);
           printf("%d done, the minute: %d\n", (int)result, casync_future_done(&minute.future));
           if (result >= 0) result = casync_gather(both, 2, CASYNC_FIRST_ERROR);
           printf("all: %s\n", casync_strerror(result));
           return result;
       }

       int main(void) {
           casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL};
           return casync_run_with(&desc, amain, NULL) < 0;
       }

   Prints:
       1 done, the minute: 1
       all: success

   These functions wait for several futures:

       casync_gather        all of them, or the first error; CASYNC_RETURN_ERRORS: all in any case
       casync_wait          all, the first that is done, or the first that fails; cancels none
       casync_select        at least one; cancels the others, operations above all
       casync_as_completed  one after the other, in the order in which they are done

   Two more things come from asyncio. A casync_generator is a task that gives values one by one. A
   casync_context_var is a value that each task has for itself and passes on to the tasks that it
   makes.

   >> 16. locks and queues

   Between two waits a task is alone: no other task of its loop runs, so it needs no lock. Where
   something must stay consistent across a wait, or where one task waits for another, take one of
   these:

       casync_event         something has happened, or not yet
       casync_lock          one at a time
       casync_rwlock        many readers, or one writer
       casync_condition     wait, holding a lock, until another task changed what it protects
       casync_semaphore     n at a time; with a bound: asyncio's BoundedSemaphore
       casync_barrier       wait until n tasks have come
       casync_wait_group    wait until so many things are done; Go's WaitGroup
       casync_once          the first task that needs it does it, and the others wait
       casync_queue         pointers from task to task: FIFO, LIFO or by priority

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <errno.h>
       #include <stdio.h>

       static int64_t consume(casync_loop *loop, void *queue) {
           void *item;
           int64_t result;
           (void)loop;
           while ((result = casync_queue_get(queue, &item)) >= 0) printf("job %d\n", *(int *)item);
           printf("%s\n", casync_strerror(result));
           return result == CASYNC_QUEUE_SHUT_DOWN ? 0 : result;
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_queue_desc desc = {.maxsize = 2};
           casync_queue queue;
           casync_task_group group;
           int jobs[3] = {1, 2, 3}, i;
           int64_t result = casync_queue_init(loop, &queue, &desc);
           (void)arg;
           if (result >= 0) result = casync_task_group_begin(&group);
           if (result < 0) return result;
           if (!casync_task_group_spawn(&group, consume, &queue)) result = -ENOMEM;
           for (i = 0; i < 3 && result >= 0; i++) result = casync_queue_put(&queue, &jobs[i]);
           casync_queue_shutdown(&queue, false); // the consumer still gets what is in it
           result = casync_task_group_end(&group, result);
           casync_queue_close(&queue);
           return result;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       job 1
       job 2
       job 3
       the queue is shut down

   All of them are structs of yours, and a zeroed one is ready to use: a lock is free, an event is
   not set, a semaphore is 0, a queue has no limit. What needs a parameter has a function _init.
   Only a queue has to be closed. The task that comes first is served first. What becomes free goes
   at once to the first task that waits for it, and no other can come between, so the lock or item
   is the task's even if the task is cancelled before it goes on. Functions with try_ or _nowait in
   their names return -EAGAIN instead of waiting. All of this is for the tasks of one loop; the next
   chapter is about threads.

   >> 17. threads

   One thread owns a loop: the thread that runs it. Other threads may call only
   casync_call_soon_threadsafe and casync_wake on it. Several loops in several threads share nothing
   but the signal registry and the pools of threads that you give to several of them.

   A function that computes for long, or that blocks, would hold up the loop. Run it in a pool of
   threads by casync_run_in_executor. NULL means the loop's default pool, which is made when it is
   first used.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t sum(void *limit, void **ptr) { // runs in a thread of the pool
           int64_t total = 0, n;
           (void)ptr;
           for (n = 1; n <= *(int64_t *)limit; n++) total += n;
           return total;
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           int64_t limit = 1000000;
           int64_t result = casync_run_in_executor(NULL, sum, &limit, NULL, NULL);
           (void)loop, (void)arg;
           if (result >= 0) printf("%lld\n", (long long)result);
           return result;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       500000500000

   A call that waits in the pool can be cancelled. A call that runs cannot be stopped: its future is
   cancelled at once, and the function goes on without it. If somebody must then free its result,
   give a `discard` function. casync_pool_init makes a pool of your own, with its number of threads
   and a limit for waiting calls.

   A thread of your own sends something to the loop by casync_call_soon_threadsafe. What the thread
   wrote before, the callback can read.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <pthread.h>
       #include <stdio.h>

       static casync_loop loop;
       static casync_job job; // with a job of your own nothing is allocated
       static int measured;

       static void show(void *arg) { // in the loop's thread
           printf("the thread measured %d\n", *(int *)arg);
           casync_stop(&loop);
       }

       static void *measure(void *arg) { // in a thread of yours
           measured = 42;
           casync_call_soon_threadsafe(&loop, &job, show, &measured);
           return arg;
       }

       int main(void) {
           pthread_t thread;
           int64_t result = casync_loop_init(&loop, NULL);
           if (result >= 0) result = -pthread_create(&thread, NULL, measure, NULL);
           if (result < 0) return 1;
           result = casync_run_forever(&loop); // it does not know of the thread
           pthread_join(thread, NULL);
           if (result >= 0) result = casync_loop_close(&loop);
           return result < 0;
       }

   Prints:
       the thread measured 42

   A job that is still posted is not posted again (-EALREADY), so a job works as a wakeup that
   coalesces. With a NULL job the loop keeps the call, and each call is made.

   >> 18. signals and fork

   casync_signal_start watches a signal. The callback runs in the loop's thread like any other, so
   it may call any function, which a signal handler may not.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <signal.h>
       #include <stdio.h>

       static casync_signal terminate;
       static casync_event stopping;

       static void stop(void *arg) { // in the loop's thread, as every callback
           (void)arg;
           casync_event_set(&stopping);
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           int64_t result = casync_signal_start(loop, &terminate, SIGTERM, 0, stop, NULL);
           (void)arg;
           if (result < 0) return result;
           raise(SIGTERM);
           result = casync_event_wait(&stopping);
           casync_signal_stop(&terminate);
           if (result >= 0) printf("SIGTERM came\n");
           return result;
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints:
       SIGTERM came

   By default a watched signal is blocked in the thread and read from a signalfd. A program that is
   started by exec or posix_spawn inherits what is blocked. If your program starts others, set
   casync_loop_desc.signal_handlers: then a handler passes the signal on, and nothing is blocked. In
   a process whose signals belong to somebody else set casync_loop_desc.guest. Any number of
   watchers in any number of loops may watch the same signal. CASYNC_SIGNAL_ONCE ends a watch before
   its first callback. Deliveries that come before the callback has run are merged into one, as in
   the kernel.

   In a forked child call casync_loop_fork before you use an inherited loop. It gives the loop
   an epoll instance of its own, which watches what the inherited one did; the parent's loop is not
   touched. Before this call, the child may only close the loop; running it is -ECHILD.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>
       #include <sys/wait.h>
       #include <unistd.h>

       static void hello(void *arg) {
           printf("hello from %s\n", (const char *)arg);
           fflush(stdout);
       }

       int main(void) {
           casync_loop loop;
           casync_timer one = {0};
           int64_t result = casync_loop_init(&loop, NULL);
           if (result >= 0) result = casync_call_later(&loop, &one, 0, hello, "the child");
           if (result < 0) return 1;
           if (fork() == 0) {
               result = casync_loop_fork(&loop);
               if (result >= 0) result = casync_run_until_idle(&loop);
               _exit(result < 0);
           }
           wait(NULL);
           hello("the parent");
           return casync_loop_close(&loop) < 0;
       }

   Prints:
       hello from the child
       hello from the parent

   A program that is started by exec inherits no descriptor of the library: all of them are
   close-on-exec.

   >> 19. embedding in another loop

   To run a casync loop inside another loop, wait until casync_loop_fd is readable or until
   casync_loop_timeout has passed, and then call casync_run_nowait. Ask for the timeout before each
   wait, because the call also tells the kernel what is to be watched. The timeout may be shorter
   than needed, never longer. In this program the other loop is one of poll(2):

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <errno.h>
       #include <limits.h>
       #include <poll.h>
       #include <stdio.h>

       static void hello(void *name) { printf("hello, %s\n", (const char *)name); }

       static int milliseconds(int64_t timeout) { // rounded up; -1 is for ever
           if (timeout > CASYNC_MS(INT_MAX - 1)) return -1;
           return (int)((timeout + CASYNC_MS(1) - 1) / CASYNC_MS(1));
       }

       int main(void) {
           casync_loop loop;
           struct pollfd fd = {.events = POLLIN};
           int64_t result = casync_loop_init(&loop, NULL);
           if (result >= 0) result = casync_call_later(&loop, NULL, CASYNC_MS(5), hello, "host");
           fd.fd = casync_loop_fd(&loop);
           while (result >= 0 && casync_loop_alive(&loop)) {
               int ready = poll(&fd, 1, milliseconds(casync_loop_timeout(&loop)));
               result = ready < 0 && errno != EINTR ? -errno : casync_run_nowait(&loop);
           }
           if (result >= 0) result = casync_loop_close(&loop);
           return result < 0;
       }

   Prints:
       hello, host

   The other way round, a library that has descriptors of its own, such as a database's client, can
   run on a casync loop: watch its descriptors by casync_add_reader and casync_add_writer. The
   callback comes in each turn in which the descriptor is ready; an error or a hangup counts as
   ready. A descriptor has one watcher at most. It stays yours: remove the watcher before you close
   the descriptor. A task waits for a descriptor by casync_wait_readable and casync_wait_writable.
   Hooks (casync_hook_start) run in each turn, before the poll, after it, or when there is nothing
   to do. casync_loop_desc.before_wait and after_wait are called around the wait in the kernel, for
   hosts with a lock to drop meanwhile; with casync_loop_desc.locked, threads that hold this lock
   may all use the loop.

   >> 20. testing with the virtual and the manual clock

   With CASYNC_CLOCK_VIRTUAL the loop's time starts at 0 and jumps to the next deadline when there
   is nothing else to do, so a test with long waits takes no time. While the loop waits for
   something outside, a descriptor, a signal or a call in a pool, time passes as it really does;
   CASYNC_CLOCK_VIRTUAL_FORCED jumps even then.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static int64_t backup(casync_loop *loop, void *arg) {
           int64_t result = casync_sleep(CASYNC_SECONDS(24 * 3600));
           (void)arg;
           printf("after %d hours\n", (int)(casync_time(loop) / CASYNC_SECONDS(3600)));
           return result;
       }

       int main(void) {
           casync_loop_desc desc = {.clock = CASYNC_CLOCK_VIRTUAL};
           return casync_run_with(&desc, backup, NULL) < 0;
       }

   Prints:
       after 24 hours

   With CASYNC_CLOCK_MANUAL time moves only when you call casync_clock_advance. Run the loop by
   casync_run_nowait then, because a wait for a timer would not end.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       static void ring(void *arg) { *(bool *)arg = true; }

       int main(void) {
           casync_loop_desc desc = {.clock = CASYNC_CLOCK_MANUAL};
           casync_loop loop;
           bool rang = false;
           if (casync_loop_init(&loop, &desc) < 0) return 1;
           casync_call_later(&loop, NULL, CASYNC_SECONDS(10), ring, &rang);
           casync_clock_advance(&loop, CASYNC_SECONDS(10) - 1);
           casync_run_nowait(&loop);
           printf("a nanosecond before: %d\n", rang);
           casync_clock_advance(&loop, 1);
           casync_run_nowait(&loop);
           printf("on time: %d\n", rang);
           return casync_loop_close(&loop) < 0;
       }

   Prints:
       a nanosecond before: 0
       on time: 1

   With CASYNC_SYSCALL_TABLE the implementation makes each system call through a table, whose
   entries a test in the same file can replace. So you can test what your program does when the
   kernel refuses something. An entry returns the result, or -errno.

       #define CASYNC_SYSCALL_TABLE
       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <errno.h>
       #include <stdio.h>

       static int64_t no_more_descriptors(void) { return -EMFILE; }

       int main(void) {
           casync_loop loop;
           casync_syscalls.eventfd = no_more_descriptors;
           printf("%s\n", casync_strerror(casync_loop_init(&loop, NULL)));
           return 0;
       }

   Prints:
       Too many open files

   >> 21. memory and allocators

   Structs are yours: you declare, embed or allocate them, and zero them before their first use. Set
   options in structs named _desc and _options, where 0 is the default. A struct must not move while
   it is in use, and must stay until it is done, closed or stopped. Jobs and timers may be NULL;
   then the loop lends one.

   The library allocates only what outlives a call: connections of a server, stacks, bytes that wait
   to be sent, tables. Stacks are mapped by mmap(2). Everything else comes from the loop's
   allocator, casync_loop_desc.allocator, and for a pool of threads from its own; the default is
   CASYNC_REALLOC and CASYNC_FREE, which are realloc and free. Any allocation may fail: the call
   returns -ENOMEM, or NULL if it returns a pointer, and has changed nothing.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>
       #include <stdlib.h>

       static void *count(void *blocks, void *ptr, size_t size) {
           if (size > 0) {
               if (!ptr) ++*(int *)blocks;
               return realloc(ptr, size);
           }
           --*(int *)blocks;
           free(ptr);
           return NULL;
       }

       static void nothing(void *arg) { (void)arg; }

       int main(void) {
           int blocks = 0;
           casync_loop_desc desc = {.allocator = {count, &blocks}};
           casync_loop loop;
           casync_job job = {0};
           if (casync_loop_init(&loop, &desc) < 0) return 1;
           casync_call_soon(&loop, &job, nothing, NULL);
           printf("with a job of ours: %d\n", blocks);
           casync_call_soon(&loop, NULL, nothing, NULL);
           printf("with one of the loop's: %d\n", blocks);
           casync_loop_close(&loop);
           printf("closed: %d\n", blocks);
           return 0;
       }

   Prints:
       with a job of ours: 0
       with one of the loop's: 1
       closed: 0

   A stackful task has 64 KiB of stack by default, of which it takes pages as it needs them. Set
   casync_loop_desc.stack_size, or casync_task_desc.stack_size for one task; casync_task_stack_used
   tells how much a task needed. Under casync_run, a stack overflow ends the process with a line
   that names the task; casync_report_overflow does the same without casync_run.

   Descriptors that you hand to the library become its own, and are closed with the object that got
   them; keep_fd changes that. Descriptors given to casync_add_reader and casync_add_writer stay
   yours.

   >> 22. errors

   Functions that can fail return an int64_t. A value of 0 or more is the result. A value below 0 is
   an error: -errno, or one of casync's own codes, enum casync_error. casync_strerror names both. A
   call that fails changes nothing. casync does not use errno for its results. Every function
   accepts NULL and zeroed structs: it returns an error, or does nothing and returns false, 0 or
   NULL if it has no result for errors.

   Errors that nobody waits for go to the loop's exception handler: a task that failed and whose
   result nobody took, bytes that were lost (chapter 13), a server that cannot accept. The default
   handler prints a line on standard error; casync_set_exception_handler sets yours. In this program
   a task fails after its handle was released.

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <errno.h>

       static int64_t save(casync_loop *loop, void *arg) {
           (void)loop, (void)arg;
           return -ENOSPC;
       }

       static int64_t amain(casync_loop *loop, void *arg) {
           casync_task_desc desc = {.coroutine = save, .name = "save"};
           casync_task *task;
           int64_t result = casync_spawn_with(loop, &desc, &task);
           (void)arg;
           if (result >= 0) casync_task_release(task); // nobody will ask how it went
           return result < 0 ? result : casync_sleep(0);
       }

       int main(void) { return casync_run(amain, NULL) < 0; }

   Prints, on standard error:
       casync: a future failed and nobody retrieved its error: No space left on device, task save

   Using an object after its close, using a loop in the wrong thread, or moving a struct that is in
   use cannot be answered by an error. CASYNC_ASSERT, by default assert, catches some of these; with
   NDEBUG it catches none.

   When a program hangs, ask what it waits for: casync_dump writes to a descriptor what each task
   waits for, and which streams and servers are open; casync_dump_on_signal does it at a signal.
   casync_task_set_name gives a task a name for these messages. casync_loop_metrics has counters
   and, if you set casync_loop_desc.metrics, idle and busy times.

   >> 23. what each thing costs

   System calls and allocations, once the loop's pools have grown to the need:

       call_soon, a timer        none; O(1)
       a turn                    one epoll_wait or epoll_pwait2, or none while polls are skipped
       a future, a callback      none
       await, switch of tasks    none
       a stackful task           none if its stack comes from the pool; else a system call for the
                                 guard at the stack's end, and an mmap for each 32 stacks
       gather, wait, select      none; all is in your structs
       a task group              an allocation, and one for each of its tasks
       locks and queues          none; a queue without maxsize grows by allocations
       a message of a stream     a read and a send
       a write that is queued    an allocation for about 4 KiB; a sendmsg for up to 64 of these
       a connection              accept4, setsockopt (TCP), epoll_ctl, close; an allocation
       casync_wait_readable      two epoll_ctl, unless others wait for the descriptor; an allocation
       a datagram                a sendto; one recvmmsg for up to 16 that came
       a change of a watcher     an epoll_ctl: the first at once, later ones before the next poll
       call_soon_threadsafe      one write if the loop sleeps; a NULL job: 1 KiB for 60 calls
       run_in_executor           an allocation; two futex calls if the pool's thread slept, and a
                                 write if the loop did
       getaddrinfo of numbers    an allocation, and no system call
       getaddrinfo of a name     the same as run_in_executor, and two allocations more
       a call for a file         the same as run_in_executor, with the data in its allocation
       a watch                   inotify_init1, epoll_ctl and stat; an inotify_add_watch for each
                                 directory, and at least four calls to list it if recursive
       a process                 vfork and execve, and some 75 short calls; an epoll_ctl and a
                                 waitid for its end; two allocations while it starts, one after
       a signal                  a read, and a wakeup of each loop that watches it
       a loop                    an epoll and an eventfd

   An idle stream has no memory but its struct. A task that only waits has about 4 KiB of stack in
   use. A level of the timer wheel is 1 KiB, allocated when it is first needed. The first stream
   that reads for a protocol or up to a delimiter gives its loop a buffer of about 128 KiB, which
   all share; the first datagram socket with a protocol reserves 1 MiB of addresses, of which only
   the filled part becomes memory. All of the library is about 150 KB of code (gcc -Os, x86-64).

   The sizes of the structs on 64-bit processors, in bytes:

       #define CASYNC_IMPLEMENTATION
       #include "casync.h"
       #include <stdio.h>

       #define SIZE(type) printf("%3d  %s\n", (int)sizeof(type), #type)

       int main(void) {
           SIZE(casync_job);
           SIZE(casync_timer);
           SIZE(casync_future);
           SIZE(casync_task);
           SIZE(casync_op);
           SIZE(casync_watcher);
           SIZE(casync_stream);
           SIZE(casync_server);
           SIZE(casync_datagram);
           SIZE(casync_loop);
           return 0;
       }

   Prints:
        48  casync_job
        64  casync_timer
        48  casync_future
       128  casync_task
       112  casync_op
       120  casync_watcher
       288  casync_stream
       440  casync_server
       320  casync_datagram
       688  casync_loop

   >> 24. asyncio's names in casync

       asyncio                             casync
       ---------------------------------   -------------------------------------------------------
       new_event_loop(), loop.close()      casync_loop_init, casync_loop_close
       loop.run_forever(), stop()          casync_run_forever, casync_stop
       loop.run_until_complete(future)     casync_run_until_complete
       get_running_loop()                  casync_get_running_loop
       loop.time()                         casync_time
       loop.call_soon                      casync_call_soon
       loop.call_soon_threadsafe           casync_call_soon_threadsafe
       loop.call_later, call_at            casync_call_later, casync_call_at
       Handle, TimerHandle                 casync_job, casync_timer
       Handle.cancel()                     casync_job_cancel, casync_timer_stop
       loop.add_reader, remove_reader      casync_add_reader, casync_remove_reader
       loop.add_signal_handler             casync_signal_start
       loop.set_exception_handler          casync_set_exception_handler
       Future                              casync_future
       asyncio.run(main())                 casync_run
       create_task(coroutine)              casync_spawn; stackless: casync_task_start
       await future                        casync_await; stackless: CASYNC_AWAIT
       task.cancel(), uncancel()           casync_task_cancel, casync_task_uncancel
       current_task(), all_tasks()         casync_current_task, casync_walk
       sleep                               casync_sleep
       gather, wait, as_completed          casync_gather, casync_wait, casync_as_completed
       wait_for, timeout, shield           casync_wait_for, casync_timeout_begin, casync_shield
       TaskGroup                           casync_task_group
       ContextVar                          casync_context_var
       async generator                     casync_generator
       Transport, StreamWriter             casync_stream: write, writev, drain, write_eof, abort
       transport.close(), writer.close()   casync_finish (casync_close drops what is unsent)
       StreamReader                        casync_read, casync_read_exactly, casync_read_until
       Protocol, BufferedProtocol          casync_protocol
       Server, start_server                casync_server, casync_listen
       close(), wait_closed()              casync_server_close, casync_server_wait_clients
       open_connection                     casync_connect
       loop.getaddrinfo, getnameinfo       casync_getaddrinfo, casync_getnameinfo
       loop.sendfile                       casync_sendfile
       loop.start_tls, SSLContext          casync_start_tls, casync_tls_context (CASYNC_OPENSSL)
       loop.create_datagram_endpoint       casync_datagram_open
       create_subprocess_exec, _shell      casync_process_start, desc.args and desc.shell
       Process: wait, communicate          casync_process_wait, casync_process_communicate
       send_signal, terminate, kill        casync_process_send_signal, _terminate, _kill
       DatagramTransport                   casync_datagram: write, finish_start, abort
       DatagramProtocol                    casync_datagram_protocol
       loop.sock_sendto, sock_recvfrom     casync_datagram_send, casync_datagram_receive
       Event, Lock                         casync_event, casync_lock
       Condition, Barrier                  casync_condition, casync_barrier
       Semaphore, BoundedSemaphore         casync_semaphore
       Queue, LifoQueue, PriorityQueue     casync_queue, casync_queue_desc.order
       async with lock                     casync_lock_acquire, casync_lock_release
       QueueEmpty, QueueFull               -EAGAIN
       QueueShutDown                       CASYNC_QUEUE_SHUT_DOWN
       BrokenBarrierError                  CASYNC_BROKEN_BARRIER
       CancelledError, TimeoutError        -ECANCELED, -ETIMEDOUT
       IncompleteReadError                 CASYNC_EOF, CASYNC_INCOMPLETE_READ
       LimitOverrunError                   CASYNC_LIMIT_OVERRUN
       InvalidStateError                   CASYNC_INVALID_STATE
       ThreadPoolExecutor                  casync_pool
       loop.run_in_executor                casync_run_in_executor
       executor.shutdown(wait=True)        casync_pool_shutdown
       executor.shutdown(wait=False,       casync_pool_close
           cancel_futures=True)
       loop.shutdown_default_executor      casync_shutdown_default_executor

   >> 25. libuv's names in casync

       libuv                               casync
       ---------------------------------   -------------------------------------------------------
       uv_loop_t, uv_run, uv_stop          casync_loop, casync_run_until_idle, casync_stop
       uv_ref, uv_unref, uv_walk           casync_timer_ref and its like, casync_walk
       uv_prepare_t, uv_check_t, uv_idle_t casync_hook
       uv_async_t                          casync_call_soon_threadsafe
       uv_timer_t                          casync_timer
       uv_poll_t                           casync_watcher
       uv_signal_t                         casync_signal
       uv_process_t, uv_spawn              casync_process
       uv_tcp_t, uv_pipe_t, uv_tty_t       casync_stream; casync_connect, casync_listen, casync_pipe
       uv_read_start, uv_write             casync_protocol or casync_read; casync_write
       uv_shutdown, uv_close               casync_write_eof; casync_finish, casync_close
       uv_udp_t                            casync_datagram
       uv_tty_set_mode, uv_tty_get_winsize casync_terminal_set_mode, casync_terminal_size
       uv_fs_t                             casync_file_open and its like
       uv_fs_event_t, uv_fs_poll_t         casync_watch
       uv_fs_sendfile                      casync_sendfile
       uv_getaddrinfo, uv_getnameinfo      casync_getaddrinfo, casync_getnameinfo
       uv_queue_work                       casync_run_in_executor
       uv_ip4_addr, uv_ip4_name            casync_address_from_host, casync_address_text
       uv_metrics_info, uv_metrics_idle    casync_loop_metrics
       uv_hrtime, uv_now                   casync_time, casync_now
       uv_strerror                         casync_strerror

   What does not wait is not here. Use instead:

       random bytes                        getrandom(2)
       processors, memory, load            sysconf(3), /proc, getloadavg(3)
       interfaces, host name, users        getifaddrs(3), gethostname(2), getpwuid_r(3)
       environment, directories            getenv(3), getcwd(3)
       threads, locks, thread keys         pthreads(7)
       shared libraries                    dlopen(3)
       credentials of a peer               SO_PEERCRED (unix(7)), of stream.endpoint.watcher.fd
       fast open, busy polling, a device   TCP_FASTOPEN (tcp(7)), SO_BUSY_POLL and SO_BINDTODEVICE
                                           (socket(7)), of a socket that you open and hand over
       HTTP, the protocol of DNS           llhttp, c-ares

   >> 26. rules

   These hold for all functions; the chapter in brackets says more.

   - Structs are yours, visible, embeddable, and zeroed before their first use. They do not move
     while they are in use [21].
   - A result below 0 is an error, and a call that fails changes nothing [22].
   - x() waits, x_op() gives a future, and what has its result at once has one form [2].
   - A callback gets the `arg` that was given with it. It may stop, close or free any object, its
     own included.
   - Close is immediate, and finish ends in order [13].
   - Any wait may return -ECANCELED. A time limit for whatever waits is a pair of
     casync_timeout_begin and casync_timeout_end around it [14].
   - One thread owns a loop [17].
   - Time is int64_t nanoseconds. Timers are never early [12].
   - A forked child calls casync_loop_fork first [18].

   >> 27. configuration, platforms, compatibility

   Define these macros before you include the implementation:

       CASYNC_IMPLEMENTATION      put the implementation here
       CASYNC_STATIC              make all of it static; define it also where only the API is
                                  included
       CASYNC_REALLOC(ptr, size)  the default allocator, together with
       CASYNC_FREE(ptr)           its other half: define both or neither
       CASYNC_ASSERT(condition)   checks of the caller's errors that no error code can report;
                                  assert if absent, so NDEBUG turns them off
       CASYNC_OPENSSL             with TLS, by OpenSSL 3: link with -lssl -lcrypto; define it also
                                  where only the API is included
       CASYNC_NO_STACKFUL         leave stackful tasks out, which need assembly or ucontext
       CASYNC_NO_WARN_UNUSED      no warning where the result of a function that waits is ignored
       CASYNC_SYSCALL_TABLE       make each system call through the table `casync_syscalls`
       CASYNC_IMPORT              for extension modules of Python: use the implementation in the
                                  Python package casync; not together with CASYNC_IMPLEMENTATION

   PLATFORMS. Linux 4.14 or newer; before 5.11, which has epoll_pwait2, a wait ends up to 1 ms late.
   glibc 2.28 or musl 1.2. gcc and clang on any processor, tcc 0.9.27 on x86-64. C99 to C17, and
   C++17. Stackful tasks switch by assembly on x86-64, i386, aarch64, arm and riscv64, elsewhere by
   ucontext, which is slower and which musl does not have: define CASYNC_NO_STACKFUL there.

   C++. Exceptions end in their task at the latest. A catch block may wait, but not where tcc
   compiled the implementation, nor where C++'s runtime came by dlopen(3) into a program in C.

   COMPATIBILITY. Until version 1.0, a minor version may change the API; a patch version does not.
   Names that begin with casync__ are private, and so are the members of structs that are marked so.
*/
#ifndef CASYNC_H
#define CASYNC_H

/* A library's TU may define CASYNC_IMPLEMENTATION before any include: then this comes in time. */
#if defined(CASYNC_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The comment of a function begins with what the function does. After that come, in this order:

       Returns:    the result of a call that succeeds
       Errors:     the negative results, by name
       Call from:  where you may call it; if absent, in the loop's thread: in tasks, in callbacks,
                   and while the loop does not run
       Lifetime:   which memory must live, and until when; if absent, until the call returns, and
                   for x_op() until its future is done
       Cost:       system calls and allocations, where a program calls the function often enough to
                   want to know them

   When several functions share a comment, they do the same thing in different ways. x() waits.
   x_op() starts the same and returns a future, which gets x's result or error. x_timeout() waits
   for at most `timeout` nanoseconds: when time is up it returns -ETIMEDOUT, and without memory for
   its timer -ENOMEM.

   These errors are not repeated. A function that gets NULL or a zeroed struct returns an error, or
   0, false or NULL. A function that waits (CASYNC_WAITS) returns -EPERM if no stackful task calls
   it, and -ECANCELED if its task is cancelled while it waits, or was cancelled before and it has to
   wait. A function that begins something returns -ECHILD in a forked child that has not called
   casync_loop_fork. */

/* >> config & compiler (API) ------------------------------------------------------------------- */

#define CASYNC_VERSION_MAJOR 0
#define CASYNC_VERSION_MINOR 1
#define CASYNC_VERSION_PATCH 0
#define CASYNC_VERSION "0.1.0"

#ifdef CASYNC_STATIC
#if defined(__GNUC__)
#define CASYNC_API static __attribute__((unused))
#else
#define CASYNC_API static
#endif
#else
#define CASYNC_API extern
#endif

/* Compilers warn where the result of a function that waits is not looked at, for it may be
   -ECANCELED or -EPERM. CASYNC_NO_WARN_UNUSED turns the warning off. */
#if defined(__GNUC__) && !defined(CASYNC_NO_WARN_UNUSED)
#define CASYNC_WAITS CASYNC_API __attribute__((warn_unused_result))
#else
#define CASYNC_WAITS CASYNC_API
#endif

/* Discards the result of a function that waits, and says that this is meant. */
static inline void casync_ignore(int64_t result) { (void)result; }

#ifdef __cplusplus
extern "C" {
#endif

/* casync's own error codes, below every errno. */
enum casync_error {
    CASYNC_EOF = -5001,             /* the stream ended before the first byte of what was asked
                                       for */
    CASYNC_INCOMPLETE_READ = -5002, /* the stream ended inside what was asked for */
    CASYNC_LIMIT_OVERRUN = -5003,   /* more bytes than the limit allows: of a frame, a file, ... */
    CASYNC_INVALID_STATE = -5004,   /* the object is not in a state that allows this call */
    CASYNC_QUEUE_SHUT_DOWN = -5005, /* the queue takes no more items, or has none left to give */
    CASYNC_BROKEN_BARRIER = -5006,  /* the barrier was reset or aborted */
    CASYNC_NOT_NUMERIC = -5007,     /* a host is a name where an address in numbers is needed */
    CASYNC_STILL_OPEN = -5008,      /* a loop has open streams, servers, datagrams or tasks: see
                                 casync_dump */
    CASYNC_NO_STATUS = -5009,       /* a process ended, and other code took its status */
    CASYNC_TLS_FAILED = -5010,      /* OpenSSL says why: see casync_tls_desc.errors */
    /* Of looking up names: getaddrinfo(3)'s EAI_BADFLAGS and so on, which overlap errno. EAI_MEMORY
       is -ENOMEM, and EAI_SYSTEM the errno that it stands for. */
    CASYNC_EAI_BADFLAGS = -5101,
    CASYNC_EAI_NONAME = -5102, /* there is no such name, or no such service */
    CASYNC_EAI_AGAIN = -5103,  /* no answer, or "try again": nobody knows whether the name exists */
    CASYNC_EAI_FAIL = -5104,   /* the name server refuses, or answers what nobody understands */
    CASYNC_EAI_NODATA = -5105, /* the name exists, but has no address of this family */
    CASYNC_EAI_FAMILY = -5106,
    CASYNC_EAI_SOCKTYPE = -5107,
    CASYNC_EAI_SERVICE = -5108,
    CASYNC_EAI_ADDRFAMILY = -5109, /* the host has no address of the family that was asked for */
    CASYNC_EAI_OVERFLOW = -5112
};

/* Describes an error code in words.
   Returns: a string; "success" for a value of 0 or more. For an errno it is strerror(3)'s, which
   the next call may change.
   Call from: any thread. */
CASYNC_API const char *casync_strerror(int64_t error);

/* An allocator. function(user, NULL, n) allocates, function(user, p, n) resizes, and function(user,
   p, 0) frees and returns NULL. If there is no memory it returns NULL and leaves p as it was. It
   must be thread-safe in a program that calls casync_call_soon_threadsafe with a NULL job, or uses
   a pool of threads, as looking up names does, and waiting for processes where there are no
   pidfds. */
typedef struct casync_allocator {
    void *(*function)(void *user, void *ptr, size_t size);
    void *user;
} casync_allocator;

/* Bytes that somebody else owns. */
typedef struct casync_span {
    const void *ptr;
    size_t len;
} casync_span;

/* A place for bytes. */
typedef struct casync_buffer {
    void *ptr;
    size_t len;
} casync_buffer;

/* A link of a circular doubly linked list. next is NULL in what is on no list. Private. */
typedef struct casync_link {
    struct casync_link *next, *prev;
} casync_link;

/* The type of every plain callback. */
typedef void (*casync_callback)(void *arg);

typedef struct casync_loop casync_loop;
typedef struct casync_job casync_job;
typedef struct casync_timer casync_timer;
typedef struct casync_future casync_future;
typedef struct casync_task casync_task;
typedef struct casync_op casync_op;
typedef struct casync_watcher casync_watcher;
typedef struct casync_signal casync_signal;
typedef struct casync_stream casync_stream;
typedef struct casync_server casync_server;
typedef struct casync_datagram casync_datagram;
typedef struct casync_address casync_address;
typedef struct casync_pool casync_pool;
typedef struct casync_process casync_process;
typedef struct casync_watch casync_watch;

/* >> system calls (API) ------------------------------------------------------------------------ */

/* No function of this section is public. With CASYNC_SYSCALL_TABLE the implementation has a static
   table, `casync_syscalls`, of every system call that it makes, so that a test can count them or
   let them fail. */

/* >> clock (API) ------------------------------------------------------------------------------- */

/* Times in nanoseconds. */
#define CASYNC_US(n) ((int64_t)(n)*1000)
#define CASYNC_MS(n) ((int64_t)(n)*1000000)
#define CASYNC_SECONDS(n) ((int64_t)(n)*1000000000)
#define CASYNC_FOREVER INT64_MAX /* a deadline that never comes; later than any sum of times */

/* Where a loop's time comes from. */
enum casync_clock {
    CASYNC_CLOCK_MONOTONIC, /* the system's CLOCK_MONOTONIC */
    CASYNC_CLOCK_MANUAL,    /* starts at 0; moves by casync_clock_advance alone: a wait for a timer
                             is for ever, so run it with casync_run_nowait */
    CASYNC_CLOCK_VIRTUAL,   /* starts at 0; jumps to the next deadline when nothing is ready, a
                             poll that does not wait finds nothing, and nothing outside is
                             awaited (no fd or signal, no call in a pool); else waits for it in
                             real time */
    CASYNC_CLOCK_VIRTUAL_FORCED /* as VIRTUAL, but jumps although something outside is awaited */
};

/* Reads the loop's clock.
   Returns: the loop's time now, in nanoseconds.
   Errors: none.
   Cost: one clock_gettime with the system's clock, which needs no system call on most machines. */
CASYNC_API int64_t casync_time(const casync_loop *loop);

/* Tells the time at which this turn looked at its timers: it is as old as the turn. With a manual
   or virtual clock it is the same as casync_time.
   Returns: nanoseconds of the loop's time.
   Errors: none. */
CASYNC_API int64_t casync_now(const casync_loop *loop);

/* Moves a manual or virtual clock forward. Timers that become due run in the loop's next turn.
   Returns: 0.
   Errors: -EINVAL for a negative time; -EPERM if the clock is the system's. */
CASYNC_API int64_t casync_clock_advance(casync_loop *loop, int64_t nanoseconds);

/* >> jobs (API) -------------------------------------------------------------------------------- */

/* A callback in a queue: asyncio's Handle. It is yours, zeroed before its first use; embed it or
   use it alone. */
struct casync_job {
    casync_link link;         /* private */
    casync_callback callback; /* read-only */
    void *arg;                /* read-only */
    casync_loop *loop;        /* read-only; set when first queued */
    uint32_t flags, posted;   /* private */
};

/* Calls callback(arg) in the next turn; if a hook calls this, in the present turn. The job serves
   to cancel the call; with NULL the loop lends a job.
   Returns: 0.
   Errors: -EALREADY if the job is queued; -EINVAL if the loop is closed or callback is NULL;
   -ENOMEM with a NULL job.
   Lifetime: the job is yours and stays where it is until the callback begins or the job is
   cancelled.
   Cost: no system call, and no allocation once the loop has as many jobs to lend as are needed. */
CASYNC_API int64_t casync_call_soon(casync_loop *loop, casync_job *job, casync_callback callback,
                                    void *arg);

/* Takes a job out of the queue that holds it. The call does not happen.
   Returns: 1, or 0 if no queue held it: it was never queued, is running, or has run.
   Errors: none. */
CASYNC_API int64_t casync_job_cancel(casync_job *job);

/* Tells whether a job is queued, or posted by another thread.
   Returns: true until the call begins or is cancelled. */
CASYNC_API bool casync_job_pending(const casync_job *job);

/* An error that no code awaits, for the exception handler. All that it points to is the library's,
   and is good until the handler returns. The default handler prints a line with the names and
   addresses of the objects concerned. */
typedef struct casync_exception {
    const char *message;        /* what happened, in English */
    int64_t error;              /* the error code */
    casync_future *future;      /* the future whose error nobody retrieved, a task's for
                                   instance; or NULL */
    casync_stream *stream;      /* the stream concerned, or NULL */
    casync_server *server;      /* the server concerned, or NULL */
    casync_datagram *datagram;  /* the datagram socket concerned, or NULL */
    size_t unsent;              /* bytes that are lost with what was closed, or 0 */
    const casync_address *peer; /* the other end of the connection, or NULL if it is not known */
} casync_exception;

typedef void (*casync_exception_handler)(casync_loop *loop, const casync_exception *exception,
                                         void *arg);

/* Hands an error to the loop's exception handler.
   Lifetime: the exception and what it points to need to live only during the call. */
CASYNC_API void casync_call_exception_handler(casync_loop *loop, const casync_exception *exception);

/* >> timer wheel (API) ------------------------------------------------------------------------- */

/* The timers of a loop. The implementation explains it. Private. */
typedef struct casync_wheel {
    uint64_t elapsed;                       /* every timer in the wheel is due after this time */
    uint64_t next_deadline;                 /* lower bound of the earliest deadline in the wheel */
    uint32_t occupied;                      /* bit l is set: level l holds timers */
    bool next_is_exact;                     /* next_deadline is that timer's deadline itself */
    struct casync__wheel_level *levels[11]; /* NULL until first used */
    casync_link past;                       /* timers started when already due, for the next turn */
} casync_wheel;

/* A timer: asyncio's TimerHandle. It is yours, zeroed before its first use. 64 bytes. */
struct casync_timer {
    casync_job job;
    int64_t deadline; /* read-only: when it is (or was last) due, in the loop's time */
    int64_t repeat;   /* read-only: the period of a repeating timer, else 0 */
};

/* Starts a timer that calls callback(arg) once: casync_call_later `delay` nanoseconds from now, as
   soon as possible if delay is negative; casync_call_at at the time `when`. The timer serves to
   stop it; with NULL the loop lends a timer.
   Returns: 0.
   Errors: -EALREADY if the timer is started; -EINVAL if the loop is closed or callback is NULL;
   -ENOMEM with a NULL timer, or when a level of the wheel is used for the first time.
   Lifetime: the timer is yours and stays where it is until its callback begins or it is stopped. */
CASYNC_API int64_t casync_call_later(casync_loop *loop, casync_timer *timer, int64_t delay,
                                     casync_callback callback, void *arg);
CASYNC_API int64_t casync_call_at(casync_loop *loop, casync_timer *timer, int64_t when,
                                  casync_callback callback, void *arg);

/* Starts a timer that is first due after `delay` nanoseconds and then, if repeat is not 0, every
   `repeat` nanoseconds after the last deadline, without drift. Periods that have passed entirely
   are skipped: a late timer is called once, and is next due at the first of its times that is still
   ahead. A timer that is started already is moved.
   Returns: 0.
   Errors: -EINVAL for a negative repeat, a closed loop or a NULL callback; -ENOMEM as for
   casync_call_later.
   Lifetime: the timer is yours and stays where it is until it is stopped. */
CASYNC_API int64_t casync_timer_start(casync_loop *loop, casync_timer *timer, int64_t delay,
                                      int64_t repeat, casync_callback callback, void *arg);

/* Stops a timer. No call follows, even if the timer is due and queued in this turn.
   Returns: 1, or 0 if it was not started.
   Errors: none. */
CASYNC_API int64_t casync_timer_stop(casync_timer *timer);

/* Restarts a repeating timer. It is next due `repeat` nanoseconds from now.
   Returns: 0.
   Errors: -EINVAL if the timer does not repeat or the loop is closed; -ENOMEM as for
   casync_call_later. */
CASYNC_API int64_t casync_timer_again(casync_timer *timer);

/* Tells how long it is until a timer is due.
   Returns: nanoseconds; 0 if the timer is overdue.
   Errors: CASYNC_INVALID_STATE if the timer is not started. */
CASYNC_API int64_t casync_timer_remaining(const casync_timer *timer);

/* Sets whether the timer keeps casync_run_until_idle running. At first it does. */
CASYNC_API void casync_timer_ref(casync_timer *timer, bool referenced);

/* >> futures (API) ----------------------------------------------------------------------------- */

enum casync_future_state {
    CASYNC_FUTURE_PENDING,
    CASYNC_FUTURE_DONE,
    CASYNC_FUTURE_FAILED,
    CASYNC_FUTURE_CANCELLED
};

/* A result that may not be there yet. Any number of tasks may wait for it, and to wait does not
   consume it. It is yours. */
struct casync_future {
    casync_link callbacks; /* private: jobs to queue when it is done */
    casync_loop *loop;
    int64_t result;    /* read-only once done: >= 0, or the error; -ECANCELED if cancelled */
    void *ptr;         /* read-only once done: a result that is a pointer */
    uint8_t state;     /* read-only: enum casync_future_state */
    uint8_t retrieved; /* private */
    uint8_t kind;      /* private: a bare future, or what it is the first member of */
};

/* Makes a pending future in *future, whatever was there.
   Returns: 0.
   Errors: -EINVAL if the loop is closed.
   Lifetime: the future is yours and stays where it is until casync_future_close. */
CASYNC_API int64_t casync_future_init(casync_loop *loop, casync_future *future);

/* Ends the use of a future. Call it before the future's memory is used again or freed; but never
   for a stackful task, whose handle you release. If the future is pending, its callbacks are
   dropped, tasks that await it get -ECANCELED, and an operation is cancelled. If it is done, its
   callbacks are in the ready queue already, as jobs of their own: cancel those that must not run.
   The exception handler is told of a failure that nobody retrieved. */
CASYNC_API void casync_future_close(casync_future *future);

/* Makes a pending future done if result >= 0, and failed otherwise. ptr is a result that is a
   pointer, or NULL.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE unless the future is pending and casync_future_init made it:
   operations and tasks end by themselves. */
CASYNC_API int64_t casync_future_set_result(casync_future *future, int64_t result, void *ptr);

/* Cancels a future. An operation ends together with its future. A task, a gather, a task group and
   the wait for a condition have something to do first: they are asked to end, and are still pending
   when this returns.
   Returns: 1, or 0 if the future was done, or is a gather or a wait of which all futures are done.
   Errors: none. */
CASYNC_API int64_t casync_future_cancel(casync_future *future);

/* Tells whether a future is no longer pending.
   Returns: true if it is done, failed or cancelled. */
CASYNC_API bool casync_future_done(const casync_future *future);

/* Takes the result of a future. The result counts as retrieved.
   Returns: the result, 0 or more.
   Errors: CASYNC_INVALID_STATE while the future is pending; -ECANCELED if it was cancelled; the
   error with which it failed. */
CASYNC_API int64_t casync_future_result(casync_future *future);

/* Calls callback(arg) from the ready queue once the future is done, in the next turn if it is done
   already. Callbacks run in the order in which they were added. casync_job_cancel removes one.
   Returns: 0.
   Errors: -EALREADY if the job is queued; -EINVAL if callback is NULL; -ENOMEM with a NULL job.
   Lifetime: the job as in casync_call_soon. */
CASYNC_API int64_t casync_future_add_done_callback(casync_future *future, casync_job *job,
                                                   casync_callback callback, void *arg);

/* >> operations (API) -------------------------------------------------------------------------- */

/* How to find the frames in a stream of bytes. */
enum casync_framing_kind {
    CASYNC_FRAMING_NONE,
    CASYNC_FRAMING_FIXED,     /* `size` bytes each */
    CASYNC_FRAMING_DELIMITER, /* each ends in the `size` bytes at `delimiter`, which belong to it */
    CASYNC_FRAMING_LENGTH     /* a prefix of `size` bytes (1, 2, 4 or 8) holds the payload's
                                 length */
};
typedef struct casync_framing {
    int kind;
    bool little_endian; /* the byte order of LENGTH's prefix; default: network order, the big end
                           first */
    size_t size;
    const void *delimiter; /* must live as long as the framing is used */
} casync_framing;

/* An operation: a future, and what the library needs to complete it. x_op(..., &op, ...) returns
   &op->future, never NULL; if the start failed, that future has failed. The op and the memory given
   to it are yours again when the future is done. It needs no zeroing. */
struct casync_op {
    casync_future future;
    casync_link link; /* private: in the list of those that wait for the same thing */
    int kind;         /* private */
    void *owner;      /* private: the stream, server, socket, lock, queue, ... it waits for */
    size_t done;      /* read-only: bytes in the buffer so far */
    union {           /* private: what its kind needs */
        struct {
            uint8_t *data;
            size_t size;
            casync_address *from; /* gets the sender of a datagram, or NULL */
        } buffer;
        casync_framing framing;
        casync_stream *accepted; /* becomes the connection */
        struct casync__call *call;
        struct casync_addrinfo *found; /* gets the addresses */
        struct casync_change *change;  /* gets what changed */
        struct {
            int fd;
            int64_t offset, left; /* in the file; bytes to send */
        } file;
        int phase; /* of the wait for a condition */
    } as;
};

/* >> fd watchers (API) ------------------------------------------------------------------------- */

/* A watcher of one descriptor, for reading, writing or both. It is level-triggered: the callback
   comes in every turn in which the descriptor is ready. A descriptor has one watcher at most. It is
   yours, zeroed before its first use. */
struct casync_watcher {
    casync_job reader, writer;
    casync_link changed;   /* private */
    int fd;                /* read-only while it watches */
    uint8_t wanted, armed; /* private: what is asked for, what the kernel knows */
    uint8_t kind, flags;   /* private */
};

/* Watches a descriptor, until casync_remove_reader or casync_remove_writer: casync_add_reader calls
   callback(arg) in every turn in which the descriptor is readable, casync_add_writer in every turn
   in which it is writable. A call for a direction that is watched already replaces its callback. An
   error or a hangup of the descriptor counts as readable and as writable, as in asyncio.
   Returns: 0.
   Errors: -EPERM for a descriptor that cannot be waited for, such as a regular file, which is
   always ready; -EEXIST if another watcher or a stream has the descriptor; -EBUSY if this watcher
   has another descriptor; -EBADF; -EINVAL; -ENOMEM; -ENOSPC (epoll_ctl(2)).
   Lifetime: the watcher is yours and stays where it is while it watches. The descriptor stays
   yours: remove both directions before you close it.
   Cost: the first start makes one epoll_ctl at once. Later changes wait for the next poll and are
   made together. */
CASYNC_API int64_t casync_add_reader(casync_loop *loop, casync_watcher *watcher, int fd,
                                     casync_callback callback, void *arg);
CASYNC_API int64_t casync_add_writer(casync_loop *loop, casync_watcher *watcher, int fd,
                                     casync_callback callback, void *arg);

/* Stops watching one direction: casync_remove_reader for reading, casync_remove_writer for writing.
   No call follows.
   Returns: 1, or 0 if that direction was not watched.
   Errors: none.
   Cost: one epoll_ctl at once when neither direction is left, else none before the next poll. */
CASYNC_API int64_t casync_remove_reader(casync_watcher *watcher);
CASYNC_API int64_t casync_remove_writer(casync_watcher *watcher);

/* Keeps a watcher registered with the kernel while neither direction is watched, so that the next
   start costs no system call; false ends that. Use it for a descriptor that is waited for again and
   again, one event at a time. A kept watcher of which neither direction is watched rests. A watcher
   at rest does not keep the loop running, casync_watcher_find does not find it, and it gives way to
   any other watcher of its descriptor. You may close the descriptor, and its number may be used
   again. To start a watcher at rest is to promise that the descriptor is still the same open file.
   If you do not know that, call this with false first. That ends the rest, as do an event that
   comes meanwhile, another watcher of the descriptor, and the close of the loop; the next start is
   a first one then, and the watcher is no longer kept. The call does nothing to a watcher that is
   not started. */
CASYNC_API void casync_watcher_keep(casync_watcher *watcher, bool keep);

/* Finds the watcher that has a descriptor, a stream's watcher included.
   Returns: the watcher, or NULL. */
CASYNC_API casync_watcher *casync_watcher_find(casync_loop *loop, int fd);

/* Asks the kernel whether it still watches the file that was watched. Ask this when no event comes,
   in a program where other code may close descriptors whose numbers are then used again.
   Returns: 1, or 0 if it does not: the descriptor was closed. Stop the watcher then, and start it
   anew.
   Errors: CASYNC_INVALID_STATE for a watcher that the kernel does not know.
   Cost: one epoll_ctl. */
CASYNC_API int64_t casync_watcher_check(casync_watcher *watcher);

/* Tells to what kind of object a watcher belongs that casync_watcher_find found: it is the object's
   first member.
   Returns: CASYNC_KIND_STREAM, CASYNC_KIND_SERVER or CASYNC_KIND_DATAGRAM of enum casync_kind, else
   CASYNC_KIND_WATCHER. */
CASYNC_API int casync_watcher_kind(const casync_watcher *watcher);

/* Sets whether the watcher keeps casync_run_until_idle running. At first it does. */
CASYNC_API void casync_watcher_ref(casync_watcher *watcher, bool referenced);

/* Waits until a descriptor is ready, has failed, or is hung up: casync_wait_readable for reading,
   casync_wait_writable for writing. Any number of tasks may wait for one descriptor.
   Returns: 0.
   Errors: those of casync_add_reader.
   Cost: an allocation and two epoll_ctl, unless another task waits for the descriptor. For repeated
   waits casync_add_reader or a stream costs less. */
CASYNC_WAITS int64_t casync_wait_readable(int fd);
CASYNC_API casync_future *casync_wait_readable_op(casync_loop *loop, casync_op *op, int fd);
CASYNC_WAITS int64_t casync_wait_writable(int fd);
CASYNC_API casync_future *casync_wait_writable_op(casync_loop *loop, casync_op *op, int fd);

/* >> posts (API) ------------------------------------------------------------------------------- */

/* Calls callback(arg) in a later turn of a loop that another thread may run. The calls of one
   thread run in their order. A job whose call is still to come is not queued again, so a job works
   as a wakeup that coalesces. With a NULL job the loop keeps the call itself. The callback sees all
   that this thread wrote before the post, even if the post returned -EALREADY.
   Returns: 0.
   Errors: -EALREADY if the job's call is still to come; -EINVAL for a closed loop or a NULL
   callback; -ENOMEM with a NULL job.
   Call from: any thread; with a job of your own also from a signal handler.
   Lifetime: the job is yours and serves for posts alone, not for casync_call_soon as well. The loop
   must not be closed while another thread is in this call.
   Cost: one write to an eventfd each time the loop sleeps. No lock, except for one in 60 calls
   without a job. */
CASYNC_API int64_t casync_call_soon_threadsafe(casync_loop *loop, casync_job *job,
                                               casync_callback callback, void *arg);

/* Ends the loop's wait, or keeps its next wait from happening. The turn goes on.
   Call from: any thread, and signal handlers. */
CASYNC_API void casync_wake(casync_loop *loop);

/* >> calls & thread pool (API) ----------------------------------------------------------------- */

/* A pool of threads for work that would hold the loop up: computation, and calls that block. This
   is asyncio's ThreadPoolExecutor. One pool may serve any number of loops in any threads. It is
   yours. */
struct casync_pool {
    struct casync__pool *shared; /* private: NULL if it is closed */
};

typedef struct casync_pool_desc {
    int size;         /* threads at most, 1 to 4096; default: four more than processors, but 32
                         at most */
    int queue_limit;  /* calls that may wait when every thread is busy; default: any number */
    const char *name; /* of its threads, name-0, name-1, ...: 10 bytes at most. Default: casync */
    casync_allocator allocator; /* must be thread-safe; default: CASYNC_REALLOC and CASYNC_FREE */
} casync_pool_desc;

/* Makes a pool in *pool, whatever was there; desc may be NULL. Threads start when there is work for
   them, and then stay. All signals are blocked in them except those for faults, such as SIGSEGV.
   Returns: 0.
   Errors: -EINVAL for a size or a limit out of range; -ENOMEM. */
CASYNC_API int64_t casync_pool_init(casync_pool *pool, const casync_pool_desc *desc);

/* Ends a pool at once. Calls that wait are cancelled. Calls that run go on, and their results still
   reach their futures. If no call is running, all threads have ended when this returns. Otherwise
   idle threads end soon, and the others when their calls have returned: to be sure of that (before
   dlclose, or the end of `tcc -run`), wait for casync_pool_shutdown. A closed pool may be closed
   again.
   Call from: one thread, when no other thread starts calls any more. */
CASYNC_API void casync_pool_close(casync_pool *pool);

/* Ends a pool gracefully. It takes no more calls; this is done when all the calls it has were made
   and the threads have ended. The pool is closed then. If this is cancelled, only the wait ends:
   close the pool, or wait for it again. casync_pool_close ends this with -ECANCELED.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the pool is closed or another task waits for this already;
   -ECHILD in a forked child before casync_loop_fork; -EINVAL; -ENOMEM.
   Lifetime: the pool stays where it is until this is done. */
CASYNC_WAITS int64_t casync_pool_shutdown(casync_pool *pool);
CASYNC_API casync_future *casync_pool_shutdown_op(casync_loop *loop, casync_pool *pool,
                                                  casync_op *op);

/* A function that runs in a thread of a pool. Its result, and the pointer that it puts into *ptr
   (NULL at first), become those of the future. It must return, without pthread_exit; in a child
   that it forks it must not. */
typedef int64_t (*casync_pool_function)(void *arg, void **ptr);

/* A function that frees the result of a call that nobody will get, and arg. It gets the result and
   the pointer of a function that ran, or -ECANCELED and NULL if the function never ran. It is
   called in a thread of the pool, or in the loop's thread inside the cancel or close that was the
   cause, and must not use the loop. */
typedef void (*casync_pool_discard)(void *arg, int64_t result, void *ptr);

/* Calls function(arg, &ptr) in a thread of the pool; a NULL pool is the loop's default pool, which
   is made when it is first used. Calls begin in the order in which they came. This is asyncio's
   loop.run_in_executor. A call that still waits can be cancelled: it never runs. A call that runs
   cannot be stopped: its future is cancelled at once, and the function goes on without it.
   `discard`, unless it is NULL, is called exactly once if nobody will get the result: because the
   future is cancelled (by you or by casync_pool_close), or is closed while it is pending, or
   because the loop is closed first. It is not called in any other case, nor when the start fails.
   The call keeps casync_run_until_idle running and a virtual clock from jumping. In a forked child
   the calls of an inherited loop fail with -ECHILD in casync_loop_fork; `discard` is not called for
   what runs in the parent. An inherited pool starts threads of its own there.
   Returns: what the function returned. *ptr, unless ptr is NULL, gets the function's pointer; with
   _op it is in future.ptr.
   Errors: -ENOBUFS if the queue is full; CASYNC_INVALID_STATE if the pool is closed or shut down;
   -EAGAIN if its first thread cannot be started (pthread_create(3)); -ECHILD in a forked child
   before casync_loop_fork; -EINVAL if the loop is closed or function is NULL; -ENOMEM; what the
   function returns below 0.
   Lifetime: arg belongs to the call until the future is done, or `discard` was called.
   Cost: one allocation and 10 to 15 us from start to result, most of it the two wakeups; the
   implementation has the counts. */
CASYNC_WAITS int64_t casync_run_in_executor(casync_pool *pool, casync_pool_function function,
                                            void *arg, casync_pool_discard discard, void **ptr);
CASYNC_API casync_future *casync_run_in_executor_op(casync_loop *loop, casync_pool *pool,
                                                    casync_op *op, casync_pool_function function,
                                                    void *arg, casync_pool_discard discard);

/* Ends the loop's default pool gracefully, even if it was never used. Calls to a NULL pool fail
   with CASYNC_INVALID_STATE afterwards. This is asyncio's loop.shutdown_default_executor.
   casync_loop_close does not wait for the default pool: it closes the pool as casync_pool_close
   does.
   Returns: 0.
   Errors: those of casync_pool_shutdown. */
CASYNC_WAITS int64_t casync_shutdown_default_executor(void);
CASYNC_API casync_future *casync_shutdown_default_executor_op(casync_loop *loop, casync_op *op);

/* >> signals (API) ----------------------------------------------------------------------------- */

/* A watcher of one signal. Any number of watchers in any number of loops may watch the same signal.
   Each is told once per delivery. Deliveries that come before its callback has run are merged, as
   the kernel merges them. It is yours, zeroed before its first use. */
struct casync_signal {
    casync_job job;           /* private */
    casync_link link;         /* private: in the process's registry */
    casync_callback callback; /* read-only */
    void *arg;                /* read-only */
    int signum;               /* read-only */
    uint32_t flags;           /* private */
};

enum { CASYNC_SIGNAL_ONCE = 1 }; /* stop before the first callback */

/* Starts to watch a signal. callback(arg) is called after it was delivered; flags is 0 or
   CASYNC_SIGNAL_ONCE. How a loop watches depends on its desc:

   - A plain loop blocks the signal in the calling thread and reads it from a signalfd
     (signalfd(2)). In threads that do not block the signal a handler passes it on, so that it is
     not lost and does not kill the process. Threads and programs started afterwards inherit the
     blocked mask: reset it there (pthread_sigmask), or start them before.
   - With desc.signal_handlers masks are left alone. A handler passes the signal on and then calls
     the handler that was there before. A program that is started by exec begins with the default
     action: set this in a program that starts others.
   - With desc.guest it is the same, with the flags that the earlier handler had, SA_RESTART above
     all.

   To watch SIGCHLD leaves reaping to you: call waitpid(2) with WNOHANG until it finds no more.
   When the last watcher of a signal stops, a pending signal is dropped, and mask and action are put
   back.
   Returns: 0.
   Errors: -EALREADY if the watcher is started; -EINVAL for a number that cannot be caught; -EBUSY
   if a signalfd that does not belong to this copy of casync takes the signal, since only one of two
   would get it; -EMFILE; -ENOMEM.
   Lifetime: the watcher is yours and stays where it is until it is stopped.
   Cost: two descriptors per process, which stay open once made. For the first watcher of a signal
   it reads /proc/self/fdinfo, one file per descriptor. */
CASYNC_API int64_t casync_signal_start(casync_loop *loop, casync_signal *signal, int signum,
                                       int flags, casync_callback callback, void *arg);

/* Stops watching a signal. No call follows. Call it in the thread that called casync_signal_start,
   so that the thread's mask can be restored.
   Returns: 1, or 0 if it was not started.
   Errors: none. */
CASYNC_API int64_t casync_signal_stop(casync_signal *signal);

/* Sets whether the signal keeps casync_run_until_idle running. At first it does. */
CASYNC_API void casync_signal_ref(casync_signal *signal, bool referenced);

/* >> tasks (API) ------------------------------------------------------------------------------- */

/* A task is a future that the loop runs. There are two ways to write one:

   - stackful: a coroutine, which is an ordinary C function with a stack of its own. A function
     that waits stops this task alone, however deep the call is.
   - stackless: a struct that begins with a casync_task, and a step function between CASYNC_BEGIN
     and CASYNC_END. It costs the struct, and no stack.

   Each awaits any future, tasks of the other kind included. Functions that wait are for stackful
   tasks. A stackless task awaits their x_op form by CASYNC_AWAIT. What consists of several waits
   has no such form: casync_join, casync_select, casync_wait_for, casync_once_call, and
   x_timeout.

   Cancelling is asyncio's. A request makes the await in which the task is, or else its next one,
   return -ECANCELED, once. The task may clean up, which may await, and it may go on. One case
   differs from asyncio: a request that comes after the awaited future is done, but before the task
   goes on, is kept for the next await. The task gets the result, so that no byte and no lock is
   lost. */

/* The function of a stackful task. What it returns is the task's result: 0 or more, or an error. In
   C++ an exception must be caught in its task: otherwise std::terminate ends the program. A catch
   block may wait, since each task has the exceptions that it has caught for itself; this does not
   hold where tcc compiled the implementation, nor where C++'s runtime came by dlopen(3) into a
   program in C. */
typedef int64_t (*casync_coroutine)(casync_loop *loop, void *arg);

/* The function of a stackless task: see CASYNC_BEGIN. */
typedef int64_t (*casync_step)(casync_task *task);

/* A task of either kind. 128 bytes. */
struct casync_task {
    casync_future future;     /* done with the task's result */
    casync_job job;           /* private: lets the task go on */
    casync_link link;         /* private: in the loop's list of tasks */
    casync_step step;         /* private: NULL for a stackful task */
    uint32_t line;            /* private: where a stackless task goes on */
    uint16_t cancel_requests; /* read-only: see casync_task_cancel */
    uint8_t flags;            /* private */
    uint8_t open_groups;      /* private: task groups between begin and end */
};

typedef struct casync_task_desc {
    casync_coroutine coroutine;
    void *arg;
    const char *name; /* for messages and casync_dump, not copied; or NULL */
    /* Bytes, rounded up to a power of two from 16 KiB to 1 GiB; the library uses 500 to 1,500 of
       them. Default: casync_loop_desc.stack_size. */
    size_t stack_size;
} casync_task_desc;

/* Makes a stackful task, which begins to run in the next turn. casync_spawn_with takes more options
   and tells the error; *task gets the handle.
   Returns: casync_spawn the handle, or NULL after an error; casync_spawn_with 0.
   Errors: -EINVAL for a missing coroutine, a closed loop or a stack size out of range; -ENOMEM;
   -ENOSYS where there are no stackful tasks: with CASYNC_NO_STACKFUL, or under a shadow stack.
   Lifetime: the handle is counted. You have one reference, and give it back by casync_task_release
   or casync_join; the task itself has another until it ends.
   Cost: no system call and no allocation while the loop has a free stack; else one mmap for 32
   stacks and one call for the guard of each. The guard turns an overflow into a fault (see
   casync_report_overflow). A function whose frame is larger than 64 KiB steps over the guard,
   unless it is compiled with -fstack-clash-protection. */
CASYNC_API casync_task *casync_spawn(casync_loop *loop, casync_coroutine coroutine, void *arg);
CASYNC_API int64_t casync_spawn_with(casync_loop *loop, const casync_task_desc *desc,
                                     casync_task **task);

/* Makes a task that nobody awaits. If it fails, its error goes to the exception handler when it
   ends.
   Returns: 0.
   Errors: those of casync_spawn_with. */
CASYNC_API int64_t casync_spawn_detached(casync_loop *loop, casync_coroutine coroutine, void *arg);

/* Counts the references to a task: casync_task_retain adds one, casync_task_release gives one back.
   A task without any runs on and is freed when it ends; if it fails, the exception handler is told.
   A failed task whose handle is never released is reported when the loop is closed; until then
   casync_dump names it. Both do nothing to a stackless task, which has no count.
   Returns: casync_task_retain the task. */
CASYNC_API casync_task *casync_task_retain(casync_task *task);
CASYNC_API void casync_task_release(casync_task *task);

/* Makes a stackless task in *task, whatever was there. Its first step runs in the next turn.
   Returns: 0.
   Errors: -EINVAL for a closed loop or a NULL step; -ENOMEM.
   Lifetime: the memory is yours again when the task is done. Call
   casync_future_close(&task->future) then, which reports a failure that nobody retrieved. Closing
   it earlier ends the task without another step. */
CASYNC_API int64_t casync_task_start(casync_loop *loop, casync_task *task, casync_step step);

/* Asks a task to end. A task that has not run yet ends without running. Requests are counted.
   Returns: 1, or 0 if the task is done.
   Errors: none. */
CASYNC_API int64_t casync_task_cancel(casync_task *task);

/* Takes back one request of casync_task_cancel. Call it when you have seen the -ECANCELED of your
   own request, as timeouts and task groups do. If no request is left, one that no await has
   returned yet is dropped.
   Returns: how many requests are left.
   Errors: none. */
CASYNC_API int64_t casync_task_uncancel(casync_task *task);

/* Tells which task this thread is running.
   Returns: the task, or NULL. */
CASYNC_API casync_task *casync_current_task(void);

/* Waits until a future is done. Its result counts as retrieved. Cancelling a task cancels the
   future that it awaits; casync_shield prevents that.
   Returns: the future's result.
   Errors: the future's error; -ECANCELED if the future, or this task, was cancelled; -EPERM outside
   of a stackful task of the future's loop; -EDEADLK if the task awaits itself, or a parent that
   waits for it at casync_task_group_end.
   Cost: no turn if the future is done already. */
CASYNC_WAITS int64_t casync_await(casync_future *future);

/* Awaits a task and gives back the caller's reference to it.
   Returns: the task's result.
   Errors: those of casync_await. You keep the reference after -EPERM and -EINVAL, and if the task
   awaits itself. */
CASYNC_WAITS int64_t casync_join(casync_task *task);

/* An operation that is done at a time. It is yours, and needs no zeroing. */
typedef struct casync_timer_op {
    casync_future future;
    casync_timer timer; /* private */
} casync_timer_op;

/* Waits `delay` nanoseconds. A delay of 0 or less lets all other work run for a turn.
   Returns: 0.
   Errors: -ENOMEM when a level of the timer wheel is used for the first time. */
CASYNC_WAITS int64_t casync_sleep(int64_t delay);
CASYNC_API casync_future *casync_sleep_op(casync_loop *loop, casync_timer_op *op, int64_t delay);

/* Writes a stackless task. The loop calls its step function again and again until the function
   returns something other than CASYNC_WAITING; each time it goes on where it was. Variables that
   must outlive an await live in the struct.

       typedef struct { casync_task task; casync_timer_op op; int64_t n; } ticker;
       static int64_t tick(casync_task *task) {
           ticker *t = (ticker *)task;
           CASYNC_BEGIN(task);
           for (t->n = 0; t->n < 3; t->n++) {
               int64_t slept;
               CASYNC_AWAIT(task, slept, casync_sleep_op(task->future.loop, &t->op, CASYNC_MS(10)));
               if (slept < 0) return slept;
           }
           CASYNC_END(task, t->n);
       }

   CASYNC_AWAIT(task, result, future) awaits a future and assigns its result; it evaluates `future`
   once. CASYNC_YIELD(task, result) lets all other work run for a turn. Write one of these a line,
   and none inside a switch of yours: the task would not find its way back, and would end with
   CASYNC_INVALID_STATE. A step function may return its result early. CASYNC_END stands once, at its
   end. */
#define CASYNC_WAITING ((int64_t)-5100)
#define CASYNC_BEGIN(task)                                                                         \
    switch ((task)->line) {                                                                        \
    case 0:
#define CASYNC_AWAIT(task, outcome, awaited)                                                       \
    do {                                                                                           \
        (task)->line = __LINE__;                                                                   \
        if (casync_await_begin((task), (awaited))) return CASYNC_WAITING;                          \
        if (0) {                                                                                   \
        case __LINE__:;                                                                            \
        }                                                                                          \
        (outcome) = casync_await_end(task);                                                        \
    } while (0)
#define CASYNC_YIELD(task, outcome) CASYNC_AWAIT(task, outcome, NULL)
#define CASYNC_END(task, outcome)                                                                  \
    return (outcome);                                                                              \
    default:                                                                                       \
        return CASYNC_INVALID_STATE;                                                               \
        }

/* Implements CASYNC_AWAIT, which calls casync_await_begin before the task returns and
   casync_await_end when it goes on. A NULL future waits for a turn.
   Returns: casync_await_begin whether the task must wait; casync_await_end the future's result.
   Errors: casync_await_end those of the future; -ECANCELED.
   Call from: a step function. */
CASYNC_API bool casync_await_begin(casync_task *task, casync_future *future);
CASYNC_API int64_t casync_await_end(casync_task *task);

/* Tells the name of a task.
   Returns: the string that casync_task_set_name or the desc gave, not a copy; "task" without one,
   and for a stackless task that is done. */
CASYNC_API const char *casync_task_name(const casync_task *task);

/* Gives a task a name for messages and casync_dump.
   Returns: 0.
   Errors: -ENOMEM; CASYNC_INVALID_STATE if the task is done.
   Lifetime: the string is not copied, and must live as long as the task. */
CASYNC_API int64_t casync_task_set_name(casync_task *task, const char *name);

/* Tells how many bytes of its stack a stackful task has used at most. An earlier task on the same
   stack counts too.
   Returns: bytes; 0 for a stackless task.
   Cost: a walk over the pages of the stack that were used. */
CASYNC_API size_t casync_task_stack_used(const casync_task *task);

/* A value that each task has for itself: asyncio's ContextVar. A task begins with the values of the
   task that made it. Callbacks, and the tasks of a server's connections, begin with none. */
typedef struct casync_context_var {
    void *default_value;
} casync_context_var;

/* Reads the current task's value of a context variable.
   Returns: the value; var->default_value if the task has none, or if no task runs. */
CASYNC_API void *casync_context_get(const casync_context_var *var);

/* Sets a context variable for the current task and for the tasks that it makes from now on.
   Returns: 0.
   Errors: -EPERM outside of a task; -ENOMEM.
   Lifetime: var is a static object; its address is the variable's name. The value stays yours. */
CASYNC_API int64_t casync_context_set(const casync_context_var *var, void *value);

/* >> structured concurrency (API) -------------------------------------------------------------- */

/* One of several futures that are waited for together, as a struct pollfd is to poll(2): set
   `future` and leave the rest zeroed. */
typedef struct casync_waiter {
    casync_job job; /* private */
    casync_future *future;
    struct casync_wait_set *set; /* private */
} casync_waiter;

/* A wait for several futures. It is yours, and needs no zeroing. */
typedef struct casync_wait_set {
    casync_future future;
    casync_timer timer; /* private, as is the rest */
    casync_waiter *waiters;
    size_t count, pending;
    int mode;
    bool cancelled, cancelling;
} casync_wait_set;

enum casync_gather_mode { CASYNC_FIRST_ERROR = 16, CASYNC_RETURN_ERRORS };

/* Waits for all futures. With CASYNC_FIRST_ERROR it ends with the first error as soon as that
   happens, and the other futures go on; with CASYNC_RETURN_ERRORS it always waits for all. The
   results are in the futures, and count as retrieved. Cancelling the gather cancels all its futures
   and waits until they are done.
   Returns: 0.
   Errors: the first error of a future, unless mode is CASYNC_RETURN_ERRORS; -EINVAL for a NULL
   future or an unknown mode.
   Lifetime: the waiters and the set are yours and stay where they are until this is done. */
CASYNC_WAITS int64_t casync_gather(casync_waiter *waiters, size_t count, int mode);
CASYNC_API casync_future *casync_gather_op(casync_loop *loop, casync_wait_set *set,
                                           casync_waiter *waiters, size_t count, int mode);

enum casync_wait_mode { CASYNC_ALL_COMPLETED, CASYNC_FIRST_COMPLETED, CASYNC_FIRST_EXCEPTION };

/* Waits until all futures are done, until one is (CASYNC_FIRST_COMPLETED), or until one failed or
   all are done (CASYNC_FIRST_EXCEPTION; a future that is cancelled has not failed), for at most
   `timeout` nanoseconds; CASYNC_FOREVER is no limit. It cancels none, and retrieves no result.
   Returns: how many are done. Ask each by casync_future_done.
   Errors: -EINVAL for no futures, a NULL future or an unknown mode; -ENOMEM.
   Lifetime: as for casync_gather. */
CASYNC_WAITS int64_t casync_wait(casync_waiter *waiters, size_t count, int mode, int64_t timeout);
CASYNC_API casync_future *casync_wait_op(casync_loop *loop, casync_wait_set *set,
                                         casync_waiter *waiters, size_t count, int mode,
                                         int64_t timeout);

/* Waits until at least one future is done, for at most `timeout` nanoseconds, then cancels the
   others and waits until none is pending. An operation that it cancels did not happen. If it is
   cancelled, it cancels all futures. All results count as retrieved.
   Returns: how many futures were done, which may be more than one; 0 if time was up.
   Errors: those of casync_wait.
   Lifetime: as for casync_gather. */
CASYNC_WAITS int64_t casync_select(casync_waiter *waiters, size_t count, int64_t timeout);

/* A wait that gives the futures one by one, in the order in which they are done. It is yours. */
typedef struct casync_completion {
    casync_wait_set set; /* private, as is the rest */
    casync_link done;
    bool waiting;
} casync_completion;

/* Prepares to give futures in the order in which they are done. Call casync_completion_next for
   each.
   Returns: 0.
   Errors: -EINVAL for a NULL future or a closed loop.
   Lifetime: the completion and the waiters are yours and stay where they are until
   casync_completion_next returned 0, or casync_completion_stop. */
CASYNC_API int64_t casync_as_completed(casync_loop *loop, casync_completion *completion,
                                       casync_waiter *waiters, size_t count);

/* Waits for the next future that is done. *future gets it; with _op future.ptr has it, and one such
   operation may be under way at a time.
   Returns: 1, or 0 when there are no more.
   Errors: casync_completion_next -EBUSY if another task waits for it. */
CASYNC_WAITS int64_t casync_completion_next(casync_completion *completion, casync_future **future);
CASYNC_API casync_future *casync_completion_next_op(casync_completion *completion);

/* Removes the futures that are left from the wait. Call it unless casync_completion_next returned
   0. */
CASYNC_API void casync_completion_stop(casync_completion *completion);

/* Awaits a future for at most `timeout` nanoseconds. When time is up it cancels the future and
   waits until the future is done.
   Returns: the future's result, also when time was up but the future ended with a result
   nonetheless.
   Errors: -ETIMEDOUT; those of casync_await; -ENOMEM. */
CASYNC_WAITS int64_t casync_wait_for(casync_future *future, int64_t timeout);

/* A wait for a future that can be cancelled without it. It is yours, and needs no zeroing. */
typedef struct casync_shielded {
    casync_future future;
    casync_job job; /* private, as is the rest */
    casync_future *inner;
} casync_shielded;

/* Awaits a future. Cancelling this wait does not cancel the future.
   Returns: the future's result.
   Errors: those of casync_await.
   Lifetime: `shielded` is yours and stays where it is until it is done. */
CASYNC_WAITS int64_t casync_shield(casync_future *future);
CASYNC_API casync_future *casync_shield_op(casync_shielded *shielded, casync_future *future);

/* A time limit for what the current task, of either kind, does between begin and end. Time limits
   nest.

       casync_timeout limit;
       casync_timeout_begin(&limit, CASYNC_SECONDS(5));
       n = casync_read(stream, buffer, sizeof buffer);
       n = casync_timeout_end(&limit, n);                      -ETIMEDOUT if it took longer

   When time is up the task is cancelled. casync_timeout_end turns the -ECANCELED that comes of it
   into -ETIMEDOUT. */
typedef struct casync_timeout {
    casync_timer timer; /* private, as is the rest */
    casync_task *task;
    uint32_t cancelling;
    bool active, expired;
} casync_timeout;

/* Begins a time limit of `delay` nanoseconds for what the current task does until
   casync_timeout_end. CASYNC_FOREVER is no limit.
   Returns: 0.
   Errors: -EPERM outside of a task; -ENOMEM.
   Lifetime: the timeout is yours and stays where it is until casync_timeout_end. */
CASYNC_API int64_t casync_timeout_begin(casync_timeout *timeout, int64_t delay);

/* Ends the time limit. `result` is what the limited code returned. If it is the -ECANCELED that
   came of the time limit, and no other code asked for it too, it becomes -ETIMEDOUT.
   Returns: `result`, if it is not changed.
   Errors: -ETIMEDOUT; `result`, if it is another error. */
CASYNC_API int64_t casync_timeout_end(casync_timeout *timeout, int64_t result);

/* Sets a new limit of `delay` nanoseconds from now.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE once time was up or the timeout is not begun; -ENOMEM. */
CASYNC_API int64_t casync_timeout_reschedule(casync_timeout *timeout, int64_t delay);

/* Tells whether time was up.
   Returns: true once the timeout cancelled its task. */
CASYNC_API bool casync_timeout_expired(const casync_timeout *timeout);

/* A task group: tasks that end before the block that made them does. Between begin and end the
   group belongs to the current task, its parent. When a child fails, the other children and the
   parent's block are cancelled.

       casync_task_group group;
       casync_task_group_begin(&group);
       casync_task_group_spawn(&group, fetch, "a");
       casync_task_group_spawn(&group, fetch, "b");
       result = casync_task_group_end(&group, 0);

   `errors` has the first CASYNC_GROUP_ERRORS of `error_count` errors. */
#define CASYNC_GROUP_ERRORS 8
typedef struct casync_task_group {
    int64_t errors[CASYNC_GROUP_ERRORS]; /* read-only */
    size_t error_count;                  /* read-only */
    size_t children;                     /* read-only: how many are not done */
    casync_future ended;                 /* private, as is the rest */
    struct casync__group_record *record;
    casync_task *parent;
    int64_t result;
    bool ending, aborting, parent_cancelled;
} casync_task_group;

/* Begins a task group, of which the current task is the parent.
   Returns: 0.
   Errors: -EPERM outside of a task; -ENOMEM.
   Lifetime: the group is yours and stays where it is until casync_task_group_end is done. A parent
   that ends without it is reported to the exception handler, and its children are cancelled. */
CASYNC_API int64_t casync_task_group_begin(casync_task_group *group);

/* Makes a stackful task as a child of the group, as casync_spawn and casync_spawn_with do.
   Returns: casync_task_group_spawn the child's handle, or NULL after an error;
   casync_task_group_spawn_with 0.
   Errors: those of casync_spawn_with; CASYNC_INVALID_STATE if no more children may come: after a
   failure, or when casync_task_group_end is done.
   Lifetime: the handle is the group's, and good until the child has ended. */
CASYNC_API casync_task *casync_task_group_spawn(casync_task_group *group,
                                                casync_coroutine coroutine, void *arg);
CASYNC_API int64_t casync_task_group_spawn_with(casync_task_group *group,
                                                const casync_task_desc *desc, casync_task **task);

/* Makes a stackless task in *task as a child of the group.
   Returns: 0.
   Errors: those of casync_task_start; CASYNC_INVALID_STATE if no more children may come; -ENOMEM.
   Lifetime: the task stays where it is until it is done. The group closes its future. */
CASYNC_API int64_t casync_task_group_start(casync_task_group *group, casync_task *task,
                                           casync_step step);

/* Waits until all children have ended, even if it is cancelled itself. `result` is the result of
   the parent's own code; if that is an error, the children are cancelled. Call it once.
   Returns: `result`.
   Errors: the first error of a child; if no child failed, `result`. group->errors lists the
   children's errors in the order in which they happened, then `result`. -EPERM in another task than
   the parent. */
CASYNC_WAITS int64_t casync_task_group_end(casync_task_group *group, int64_t result);
CASYNC_API casync_future *casync_task_group_end_op(casync_task_group *group, int64_t result);

/* An asynchronous generator: a coroutine that gives values one by one. It is yours. */
typedef struct casync_generator {
    casync_task *task; /* private, as is the rest */
    casync_coroutine coroutine;
    void *arg;
    casync_future asked, given;
    bool busy, ended;
} casync_generator;

/* Prepares a generator. The coroutine begins to run with the first casync_generator_next.
   Returns: 0.
   Errors: those of casync_spawn_with.
   Lifetime: the generator is yours and stays where it is until casync_generator_close. */
CASYNC_API int64_t casync_generator_start(casync_loop *loop, casync_generator *generator,
                                          casync_coroutine coroutine, void *arg);

/* Hands a value to the consumer and waits until the next value is asked for.
   Returns: 0.
   Errors: -ECANCELED when the generator is closed: clean up and return.
   Call from: the generator's coroutine. */
CASYNC_WAITS int64_t casync_generator_yield(casync_generator *generator, void *value);

/* Waits for the next value. *value gets it; with _op future.ptr has it, and one such operation may
   be under way at a time. Cancelling casync_generator_next cancels the generator; cancelling the
   operation does not.
   Returns: 1, or 0 at the end.
   Errors: casync_generator_next -EBUSY if another task waits for the next value;
   CASYNC_INVALID_STATE after casync_generator_close; the error that the coroutine returned. */
CASYNC_WAITS int64_t casync_generator_next(casync_generator *generator, void **value);
CASYNC_API casync_future *casync_generator_next_op(casync_generator *generator);

/* Ends a generator: the coroutine's casync_generator_yield returns -ECANCELED. It waits until the
   coroutine has returned. Call it once for each generator, even after its end.
   Returns: 0.
   Errors: the error that the coroutine returned, other than -ECANCELED. */
CASYNC_WAITS int64_t casync_generator_close(casync_generator *generator);

/* >> sync primitives (API) --------------------------------------------------------------------- */

/* asyncio's locks and queues, by which the tasks of one loop wait for each other, with asyncio's
   names and meaning. The rules are the same for all:

   1. The structs are yours, and ready to use when they are zeroed: a lock is free, an event is not
      set, a semaphore is at 0, a queue has no limit. A struct that needs a parameter has an init
      function. Only a queue needs a close. A struct must outlive the tasks that wait for it.
   2. A wait belongs to the loop that this thread runs. Where no loop runs, it is -EPERM. All other
      functions may be called from tasks and callbacks alike.
   3. Tasks are served in the order in which they came. What becomes free is handed at once to the
      first task that waits for it, and no other task can come between.
   4. So an operation that is done has had its effect, even if its task is cancelled before it goes
      on: the task has the lock, or the item. An operation that is cancelled or closed while it is
      pending has had none.

   Costs: no system call, and no allocation except for a queue's items. Every function is O(1),
   except that a priority queue takes O(log n), and that to wake n tasks takes O(n). */

/* Something that has happened, or has not happened yet. */
typedef struct casync_event {
    casync_link waiting; /* private */
    bool set;            /* private */
} casync_event;

/* Sets the event. All tasks that wait for it go on, and so does any that waits later, until
   casync_event_clear. */
CASYNC_API void casync_event_set(casync_event *event);

/* Clears the event. */
CASYNC_API void casync_event_clear(casync_event *event);

/* Tells whether the event is set.
   Returns: true after casync_event_set. */
CASYNC_API bool casync_event_is_set(const casync_event *event);

/* Waits until the event is set.
   Returns: 0.
   Errors: none. */
CASYNC_WAITS int64_t casync_event_wait(casync_event *event);
CASYNC_API casync_future *casync_event_wait_op(casync_event *event, casync_op *op);

/* A lock, which one task holds at a time. As in asyncio it has no owner: any task may release it,
   and a task that holds it and acquires it again waits for ever. */
typedef struct casync_lock {
    casync_link waiting; /* private */
    bool locked;         /* private */
} casync_lock;

/* Waits until the lock is free, and takes it.
   Returns: 0.
   Errors: casync_lock_acquire_timeout -ETIMEDOUT. */
CASYNC_WAITS int64_t casync_lock_acquire(casync_lock *lock);
CASYNC_WAITS int64_t casync_lock_acquire_timeout(casync_lock *lock, int64_t timeout);
CASYNC_API casync_future *casync_lock_acquire_op(casync_lock *lock, casync_op *op);

/* Takes the lock if that needs no wait.
   Returns: 0.
   Errors: -EAGAIN. */
CASYNC_API int64_t casync_lock_try_acquire(casync_lock *lock);

/* Gives the lock to the first that waits for it, or frees it.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if it is free. */
CASYNC_API int64_t casync_lock_release(casync_lock *lock);

/* Tells whether the lock is taken.
   Returns: true while it is. */
CASYNC_API bool casync_lock_locked(const casync_lock *lock);

/* A lock that many tasks hold for reading, or one for writing. A reader that comes after a writer
   waits behind it, so neither starves. */
typedef struct casync_rwlock {
    casync_link waiting; /* private */
    int64_t readers;     /* read-only: how many tasks hold it for reading */
    bool writing;        /* read-only: a task holds it for writing */
} casync_rwlock;

/* Waits until no task holds the lock for writing or waits to do so, and takes it for reading.
   Returns: 0.
   Errors: none. */
CASYNC_WAITS int64_t casync_rwlock_acquire_read(casync_rwlock *rwlock);
CASYNC_API casync_future *casync_rwlock_acquire_read_op(casync_rwlock *rwlock, casync_op *op);

/* Takes the lock for reading if that needs no wait.
   Returns: 0.
   Errors: -EAGAIN. */
CASYNC_API int64_t casync_rwlock_try_acquire_read(casync_rwlock *rwlock);

/* Waits until the lock is free, and takes it for writing.
   Returns: 0.
   Errors: none. */
CASYNC_WAITS int64_t casync_rwlock_acquire_write(casync_rwlock *rwlock);
CASYNC_API casync_future *casync_rwlock_acquire_write_op(casync_rwlock *rwlock, casync_op *op);

/* Takes the lock for writing if that needs no wait.
   Returns: 0.
   Errors: -EAGAIN. */
CASYNC_API int64_t casync_rwlock_try_acquire_write(casync_rwlock *rwlock);

/* Gives back a lock that was taken for reading or for writing.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if it is free. */
CASYNC_API int64_t casync_rwlock_release(casync_rwlock *rwlock);

/* A condition: a task that holds a lock waits for others to change what the lock protects. The task
   has the lock when casync_condition_wait returns, and looks again at what it waits for:

       while (result >= 0 && !ready) result = casync_condition_wait(&condition); */
typedef struct casync_condition {
    casync_link waiting; /* private */
    casync_lock *lock;   /* read-only */
} casync_condition;

/* Makes a condition in *condition, whatever was there. Several conditions may share a lock.
   Lifetime: the lock must outlive the condition. */
CASYNC_API void casync_condition_init(casync_condition *condition, casync_lock *lock);

/* Releases the lock, waits until the condition is notified, and takes the lock again. A wait that
   is cancelled takes the lock again too before it ends. To close its future instead gives up the
   wait without the lock.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the lock is free. */
CASYNC_WAITS int64_t casync_condition_wait(casync_condition *condition);
CASYNC_API casync_future *casync_condition_wait_op(casync_condition *condition, casync_op *op);

/* Wakes those that wait, in the order in which they came: casync_condition_notify the first n,
   casync_condition_notify_all all. They go on, one after the other, when you have released the
   lock. If one of them is cancelled before it has the lock, its notification goes to the next.
   Returns: how many were woken.
   Errors: CASYNC_INVALID_STATE if the lock is free; -EINVAL for a negative n. */
CASYNC_API int64_t casync_condition_notify(casync_condition *condition, int64_t n);
CASYNC_API int64_t casync_condition_notify_all(casync_condition *condition);

/* A number from which acquire takes 1 once it is not 0, and to which release adds 1. */
typedef struct casync_semaphore {
    casync_link waiting; /* private */
    int64_t value;       /* read-only */
    int64_t bound;       /* read-only */
} casync_semaphore;

/* Makes a semaphore in *semaphore, whatever was there. `bound` is the highest value, or 0 for none:
   asyncio's BoundedSemaphore(n) is value n and bound n.
   Returns: 0.
   Errors: -EINVAL for a negative value or bound, or a value above the bound. */
CASYNC_API int64_t casync_semaphore_init(casync_semaphore *semaphore, int64_t value, int64_t bound);

/* Waits until the value is not 0, and takes 1 from it.
   Returns: 0.
   Errors: none. */
CASYNC_WAITS int64_t casync_semaphore_acquire(casync_semaphore *semaphore);
CASYNC_API casync_future *casync_semaphore_acquire_op(casync_semaphore *semaphore, casync_op *op);

/* Takes 1 from the value if that needs no wait.
   Returns: 0.
   Errors: -EAGAIN. */
CASYNC_API int64_t casync_semaphore_try_acquire(casync_semaphore *semaphore);

/* Adds 1 to the value, or lets the first that waits go on.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the value is at its bound. */
CASYNC_API int64_t casync_semaphore_release(casync_semaphore *semaphore);

/* Tells whether an acquire would have to wait.
   Returns: true if it would. */
CASYNC_API bool casync_semaphore_locked(const casync_semaphore *semaphore);

/* A barrier, at which `parties` tasks wait until all have come, again and again. */
typedef struct casync_barrier {
    casync_link waiting; /* private */
    int64_t parties;     /* read-only */
    int64_t n_waiting;   /* read-only */
    bool broken;         /* read-only */
} casync_barrier;

/* Makes a barrier for `parties` tasks in *barrier, whatever was there.
   Returns: 0.
   Errors: -EINVAL for less than one party. */
CASYNC_API int64_t casync_barrier_init(casync_barrier *barrier, int64_t parties);

/* Waits until all parties have come. A party whose wait is cancelled no longer counts.
   Returns: the party's number, from 0 in the order in which they came.
   Errors: CASYNC_BROKEN_BARRIER if the barrier is reset or aborted; CASYNC_INVALID_STATE without
   casync_barrier_init. */
CASYNC_WAITS int64_t casync_barrier_wait(casync_barrier *barrier);
CASYNC_API casync_future *casync_barrier_wait_op(casync_barrier *barrier, casync_op *op);

/* Resets the barrier. The tasks that wait get CASYNC_BROKEN_BARRIER; the barrier can be used
   again. */
CASYNC_API void casync_barrier_reset(casync_barrier *barrier);

/* Breaks the barrier. The tasks that wait get CASYNC_BROKEN_BARRIER, and so does any that comes
   later, until casync_barrier_reset. */
CASYNC_API void casync_barrier_abort(casync_barrier *barrier);

/* A count of work that is still to be done: Go's WaitGroup. */
typedef struct casync_wait_group {
    casync_link waiting; /* private */
    int64_t count;       /* read-only */
} casync_wait_group;

/* Adds n to the count.
   Returns: 0.
   Errors: -EINVAL for a negative n, or a count that would overflow. */
CASYNC_API int64_t casync_wait_group_add(casync_wait_group *group, int64_t n);

/* Takes 1 from the count. At 0 all that wait go on.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the count is 0. */
CASYNC_API int64_t casync_wait_group_done(casync_wait_group *group);

/* Waits until the count is 0.
   Returns: 0.
   Errors: none. */
CASYNC_WAITS int64_t casync_wait_group_wait(casync_wait_group *group);
CASYNC_API casync_future *casync_wait_group_wait_op(casync_wait_group *group, casync_op *op);

/* Work that is to be done once, by the first task that needs it. */
typedef struct casync_once {
    casync_link waiting; /* private */
    bool doing, done;    /* read-only */
} casync_once;

/* Waits until the work is done, or is the caller's to do.
   Returns: 0 when it is done; 1 when it is yours to do: do it, and call casync_once_end.
   Errors: none. */
CASYNC_WAITS int64_t casync_once_begin(casync_once *once);
CASYNC_API casync_future *casync_once_begin_op(casync_once *once, casync_op *op);

/* Ends the work that casync_once_begin gave you. With a result of 0 or more it is done; otherwise
   the next that waits is asked to do it.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if no task is at it. */
CASYNC_API int64_t casync_once_end(casync_once *once, int64_t result);

/* Waits until the work is done, or calls the coroutine to do it.
   Returns: 0.
   Errors: the error that the coroutine returned. */
CASYNC_WAITS int64_t casync_once_call(casync_once *once, casync_coroutine coroutine, void *arg);

/* The order in which a queue's items come out. */
enum casync_queue_order {
    CASYNC_QUEUE_FIFO,    /* first in, first out */
    CASYNC_QUEUE_LIFO,    /* last in, first out */
    CASYNC_QUEUE_PRIORITY /* the least by compare first; first in, first out among equals */
};

typedef struct casync_queue_desc {
    int64_t maxsize; /* items; 0: no limit */
    int order;       /* enum casync_queue_order */
    /* Compares two items, as in qsort(3). It must not touch the queue. */
    int (*compare)(const void *a, const void *b);
} casync_queue_desc;

/* A queue of pointers, which stay yours. Its items are kept in memory of the loop given to
   casync_queue_init; a zeroed queue takes the memory of the loop that runs when it is first needed.
   With a maxsize the memory is allocated once, by casync_queue_init; otherwise it doubles when it
   is full. It is freed by casync_queue_close. */
typedef struct casync_queue {
    int64_t maxsize;    /* read-only */
    int64_t unfinished; /* read-only: items that were put and are not done */
    bool is_shutdown;   /* read-only */
    int order;          /* private, as is the rest */
    casync_link getters, putters, joining;
    casync_allocator allocator;
    int (*compare)(const void *a, const void *b);
    struct casync__queue_entry *entries;
    size_t first, count, capacity;
    uint64_t sequence;
} casync_queue;

/* Makes an empty queue in *queue, whatever was there; desc may be NULL. With a maxsize it allocates
   the queue's memory, and a put cannot fail for want of memory afterwards.
   Returns: 0.
   Errors: -EINVAL for a negative maxsize, an unknown order, CASYNC_QUEUE_PRIORITY without compare,
   or a closed loop; -ENOMEM.
   Lifetime: the loop's allocator must outlive the queue. */
CASYNC_API int64_t casync_queue_init(casync_loop *loop, casync_queue *queue,
                                     const casync_queue_desc *desc);

/* Shuts the queue down at once and frees its memory. A closed queue may be closed again. */
CASYNC_API void casync_queue_close(casync_queue *queue);

/* Puts an item into the queue, and waits while the queue is full. An item that a task waits for
   goes to that task at once, past the queue's order. casync_queue_put_nowait does not wait.
   Returns: 0.
   Errors: CASYNC_QUEUE_SHUT_DOWN; casync_queue_put_timeout -ETIMEDOUT, with nothing put;
   casync_queue_put_nowait -EAGAIN if the queue is full; -ENOMEM in a queue without maxsize; -EPERM
   in a zeroed queue if no loop runs. */
CASYNC_WAITS int64_t casync_queue_put(casync_queue *queue, void *item);
CASYNC_WAITS int64_t casync_queue_put_timeout(casync_queue *queue, void *item, int64_t timeout);
CASYNC_API casync_future *casync_queue_put_op(casync_queue *queue, casync_op *op, void *item);
CASYNC_API int64_t casync_queue_put_nowait(casync_queue *queue, void *item);

/* Takes the next item from the queue, and waits while the queue is empty. *item gets it; with _op
   future.ptr has it. casync_queue_get_nowait does not wait.
   Returns: 0.
   Errors: CASYNC_QUEUE_SHUT_DOWN once the queue is shut down and empty; casync_queue_get_timeout
   -ETIMEDOUT, with nothing taken; casync_queue_get_nowait -EAGAIN if the queue is empty. */
CASYNC_WAITS int64_t casync_queue_get(casync_queue *queue, void **item);
CASYNC_WAITS int64_t casync_queue_get_timeout(casync_queue *queue, void **item, int64_t timeout);
CASYNC_API casync_future *casync_queue_get_op(casync_queue *queue, casync_op *op);
CASYNC_API int64_t casync_queue_get_nowait(casync_queue *queue, void **item);

/* Marks an item that was taken as done. Call it once per item, for casync_queue_join.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if every item is marked as done. */
CASYNC_API int64_t casync_queue_task_done(casync_queue *queue);

/* Waits until every item that was put is marked as done.
   Returns: 0.
   Errors: CASYNC_QUEUE_SHUT_DOWN if the queue is closed before. */
CASYNC_WAITS int64_t casync_queue_join(casync_queue *queue);
CASYNC_API casync_future *casync_queue_join_op(casync_queue *queue, casync_op *op);

/* Ends the queue: puts fail with CASYNC_QUEUE_SHUT_DOWN from now on, those that wait included, and
   gets do when the queue is empty. With `immediate` the queue is emptied at once, and each item
   counts as done. The items' memory is yours to free: if you do not have the items elsewhere, shut
   down without `immediate` and take the rest by casync_queue_get_nowait. */
CASYNC_API void casync_queue_shutdown(casync_queue *queue, bool immediate);

/* Counts the items in the queue.
   Returns: how many there are. */
CASYNC_API size_t casync_queue_qsize(const casync_queue *queue);

/* Tells whether a get would have to wait.
   Returns: true if the queue has no item. */
CASYNC_API bool casync_queue_empty(const casync_queue *queue);

/* Tells whether a put would have to wait.
   Returns: true if the queue has maxsize items. */
CASYNC_API bool casync_queue_full(const casync_queue *queue);

/* >> buffers (API) ----------------------------------------------------------------------------- */

/* Called exactly once, when bytes given by reference are no longer needed. */
typedef void (*casync_release)(void *arg);

/* OutBuf: a queue of bytes on their way out. Small ones are copied and share chunks, large ones are
   referenced and released when they are sent. Each stream has one; make your own for descriptors of
   your own. */
typedef struct casync_outbuf {
    const casync_allocator *allocator;
    struct casync__outbuf_chunk *last; /* private */
    size_t size;                       /* read-only: bytes in the queue */
} casync_outbuf;

/* Fewer bytes than this are copied and released at once when they are given by reference. */
#define CASYNC_REFERENCE_MIN 4096

/* Makes an empty queue of bytes in *out, whatever was there.
   Lifetime: the allocator stays where it is as long as the queue is used; NULL is the default
   one. */
CASYNC_API void casync_outbuf_init(casync_outbuf *out, const casync_allocator *allocator);

/* Drops all bytes. Their releases run inside. */
CASYNC_API void casync_outbuf_clear(casync_outbuf *out);

/* Appends a copy of the bytes of all spans, or nothing.
   Returns: 0.
   Errors: -ENOMEM; -EINVAL for more bytes than PTRDIFF_MAX.
   Cost: an allocation for each chunk that is begun; small appends share one. */
CASYNC_API int64_t casync_outbuf_append(casync_outbuf *out, const casync_span *spans, size_t count);

/* Appends bytes by reference. Below CASYNC_REFERENCE_MIN it copies and releases them at once.
   Returns: 0.
   Errors: -ENOMEM; -EINVAL for more bytes than PTRDIFF_MAX; release is not called then.
   Lifetime: the bytes are the queue's until release(arg) is called, once. */
CASYNC_API int64_t casync_outbuf_append_ref(casync_outbuf *out, const void *data, size_t size,
                                            casync_release release, void *arg);

/* Shows the first bytes of the queue as up to `count` spans.
   Returns: how many spans it wrote.
   Lifetime: the spans are good until the queue changes. */
CASYNC_API size_t casync_outbuf_peek(const casync_outbuf *out, casync_span *spans, size_t count);

/* Removes the first `size` bytes, or all if there are fewer. Releases run inside. */
CASYNC_API void casync_outbuf_consume(casync_outbuf *out, size_t size);

/* Writes as much of the queue as the descriptor takes: by sendmsg with MSG_NOSIGNAL to a socket,
   else by writev without SIGPIPE.
   Returns: how many bytes were written.
   Errors: -EAGAIN if the descriptor took nothing; others of write(2).
   Cost: one system call for every 64 chunks, until the descriptor takes less than it is given. For
   what is no socket four, before Linux 6.18 (pwritev2(2), RWF_NOSIGNAL). */
CASYNC_API int64_t casync_outbuf_flush(casync_outbuf *out, int fd, bool is_socket);

/* >> addresses & sockets (API) ----------------------------------------------------------------- */

/* An address of a socket: a struct sockaddr of any family. */
struct casync_address {
    uint32_t size;
    union {
        uint64_t align;
        uint8_t bytes[128]; /* sizeof(struct sockaddr_storage) */
    } storage;
};

#define CASYNC_ADDRESS_TEXT 128 /* enough for every address in words */

/* Writes an address in words: "127.0.0.1:80", "[::1]:80", "/run/x.sock", "@abstract", "" for an
   unnamed socket.
   Returns: text. */
CASYNC_API const char *casync_address_text(const casync_address *address,
                                           char text[CASYNC_ADDRESS_TEXT]);

/* Makes an address: casync_address_from_host of a numeric host ("127.0.0.1", "::1", "fe80::1%eth0")
   and a port; casync_address_from_path of the path of a Unix socket, where "@name" is an abstract
   one.
   Returns: 0.
   Errors: CASYNC_NOT_NUMERIC for a host that is a name, or no IPv4 address; -EINVAL for a bad IPv6
   address, zone or port, or a path that is empty or too long. */
CASYNC_API int64_t casync_address_from_host(casync_address *address, const char *host, int port);
CASYNC_API int64_t casync_address_from_path(casync_address *address, const char *path);

/* Tells the port of an address.
   Returns: the port; 0 for an address that has none. */
CASYNC_API int casync_address_port(const casync_address *address);

/* >> names (API) ------------------------------------------------------------------------------- */

/* What to look up: getaddrinfo(3). Zero means the default in every member. */
typedef struct casync_getaddrinfo_desc {
    const char *host; /* a name or an address; NULL: loopback, or with AI_PASSIVE all addresses */
    const char *service; /* "http": its port, in place of `port` */
    int port;
    int family; /* AF_INET, AF_INET6; default: both */
    int type;   /* SOCK_DGRAM and so on: of the service; default: SOCK_STREAM */
    int flags;  /* AI_PASSIVE, AI_CANONNAME and so on */
} casync_getaddrinfo_desc;

/* The addresses of a host, in the order in which to try them (RFC 6724), each with the port. */
typedef struct casync_addrinfo {
    size_t count;
    casync_address *addresses;  /* `count` of them */
    const char *canonical_name; /* with AI_CANONNAME, else NULL */
    casync_allocator allocator; /* private */
} casync_addrinfo;

/* Looks up the addresses of a host: asyncio's loop.getaddrinfo. Addresses in numbers and NULL are
   answered at once. Names are looked up by the C library, as its configuration says, in threads of
   the loop's default pool: in half of them at most, so that slow name servers leave threads to
   other calls. What is being looked up already is not asked again. To cancel this, or to close the
   op, ends the wait at once; a thread may go on for as long as the C library asks.
   Returns: how many addresses; they are in *info.
   Errors: CASYNC_EAI_NONAME and the others of CASYNC_EAI; those of casync_run_in_executor;
   casync_getaddrinfo_timeout -ETIMEDOUT; -EINVAL for a bad port. *info is left as it was.
   Lifetime: the desc is read during the call. *info is yours, and is written when this is done; its
   memory is the loop's allocator's until casync_addrinfo_free.
   Cost: see casync_run_in_executor. In numbers: one allocation, and no system call. A statically
   linked program needs the shared C library of the same version, as the linker warns. */
CASYNC_WAITS int64_t casync_getaddrinfo(casync_loop *loop, casync_addrinfo *info,
                                        const casync_getaddrinfo_desc *desc);
CASYNC_API casync_future *casync_getaddrinfo_op(casync_loop *loop, casync_addrinfo *info,
                                                casync_op *op, const casync_getaddrinfo_desc *desc);
CASYNC_WAITS int64_t casync_getaddrinfo_timeout(casync_loop *loop, casync_addrinfo *info,
                                                const casync_getaddrinfo_desc *desc,
                                                int64_t timeout);

/* Frees what casync_getaddrinfo found, and zeroes *info. May be called after the loop is closed. */
CASYNC_API void casync_addrinfo_free(casync_addrinfo *info);

/* A host and a service in words. */
typedef struct casync_nameinfo {
    char host[1025]; /* NI_MAXHOST */
    char service[32];
} casync_nameinfo;

/* Looks up the name of an address: asyncio's loop.getnameinfo. The flags are those of
   getnameinfo(3): NI_NAMEREQD, NI_DGRAM and so on. With both NI_NUMERICHOST and NI_NUMERICSERV it
   is answered at once.
   Returns: 0.
   Errors: those of casync_getaddrinfo; CASYNC_EAI_NONAME with NI_NAMEREQD for an address that has
   no name; CASYNC_EAI_FAMILY for an address of another family than IP's and Unix sockets'.
   Lifetime: *info is written when this is done. */
CASYNC_WAITS int64_t casync_getnameinfo(casync_loop *loop, casync_nameinfo *info,
                                        const casync_address *address, int flags);
CASYNC_API casync_future *casync_getnameinfo_op(casync_loop *loop, casync_nameinfo *info,
                                                casync_op *op, const casync_address *address,
                                                int flags);

/* >> endpoint (API) ---------------------------------------------------------------------------- */

/* The head of a stream and of a datagram socket. Private, except for the descriptor, watcher.fd. */
typedef struct casync_endpoint {
    casync_watcher watcher;
    const struct casync__endpoint_kind *kind;
    casync_link waiting;          /* connect, drain, write_all and finish operations */
    size_t high_water, low_water; /* of what waits to be sent */
    int32_t error;                /* what it ended with */
    uint8_t state;
    uint8_t options;     /* what it is, once and for all */
    bool reading_paused; /* by its user */
    bool writing_paused; /* the user was told to */
} casync_endpoint;

/* >> streams (API) ----------------------------------------------------------------------------- */

#define CASYNC_NOT_NOW ((void *)-1) /* see get_buffer */

/* The most bytes that a stream reads at once. A buffer of this size stays below malloc's
   threshold for mmap, 128 KiB (mallopt(3)). */
#define CASYNC_READ_SIZE 131008

/* A stream's protocol: the functions by which a stream tells its user what happens, as asyncio's
   Protocol does. Any member may be NULL. The table must outlive its streams. The functions may
   close, abort or finish the stream. */
typedef struct casync_protocol {
    /* The stream is connected. This is the first call for an accepted or connected stream. */
    void (*connection_made)(casync_stream *stream);
    /* Bytes came; with options.framing, a whole frame. They are the library's, and good until this
       returns. */
    void (*data_received)(casync_stream *stream, casync_span data);
    /* asyncio's BufferedProtocol: get_buffer says where to read to, and buffer_updated hears how
       much was read, 0 included: each get_buffer is followed by exactly one buffer_updated. With
       get_buffer, data_received is not called. size_hint as in asyncio. A buffer of length 0 ends
       the stream with -ENOBUFS, unless its ptr is CASYNC_NOT_NOW: then nothing is read, and
       get_buffer is called again in the next turn. */
    casync_buffer (*get_buffer)(casync_stream *stream, int64_t size_hint);
    void (*buffer_updated)(casync_stream *stream, size_t size);
    /* The other side will send no more. Return true to keep the stream open for writing. If this
       returns false or is NULL, the stream is finished. It is called for a protocol without
       data_received and get_buffer, too. If a read operation was ever begun, it is called when
       read operations have read all that came before, and not at all if one of them was told of
       the end. If none was begun, the bytes that came are dropped. */
    bool (*eof_received)(casync_stream *stream);
    /* pause_writing: more than the high-water mark waits to be sent. resume_writing: no more than
       the low-water mark does again. */
    void (*pause_writing)(casync_stream *stream);
    void (*resume_writing)(casync_stream *stream);
    /* The stream ended. error is 0 if it was finished or the other side ended it, -ECONNABORTED if
       it was aborted, else what went wrong. This is the last call, and does not come after
       casync_close. The stream is closed already: you may open its struct again or free it. A
       stream that a server allocated is freed soon after this returns. */
    void (*connection_lost)(casync_stream *stream, int64_t error);
} casync_protocol;

/* How a stream behaves. Zero means the default in every member. */
typedef struct casync_stream_options {
    void *user;                    /* stream->user */
    size_t high_water, low_water;  /* bytes queued; default 64 KiB and a quarter of high_water */
    size_t read_limit;             /* bytes of the longest frame; default 64 KiB */
    const casync_framing *framing; /* lets data_received get frames; it must outlive the stream */
    bool start_paused;             /* do not read until casync_resume_reading */
    bool keep_fd;                  /* the descriptor stays yours, and open after the stream */
    bool accepted;    /* casync_listen_desc.accepted gave the descriptor: it is prepared already */
    bool receive_fds; /* accept passed descriptors (Unix sockets); see casync_receive_fd */
    bool nagle;       /* leave Nagle's algorithm on (TCP); casync turns it off, as asyncio does */
    int keepalive;    /* seconds of idleness before TCP probes, up to 32,767; 0: no keepalive */
} casync_stream_options;

typedef struct casync_filter casync_filter;

/* A stream of bytes over a descriptor: TCP, Unix, a pipe. It is read either by a protocol with
   data_received or get_buffer, or by read operations, of which one may be under way at a time. A
   stream without a protocol that ended keeps its descriptor: close or finish it. It is yours,
   zeroed before its first use. 288 bytes at most. */
struct casync_stream {
    casync_endpoint endpoint;        /* private, but for the descriptor: endpoint.watcher.fd */
    const casync_protocol *protocol; /* read-only */
    void *user;                      /* yours */
    casync_outbuf out;               /* read-only */
    casync_filter *filter;           /* read-only */
    /* private from here on */
    struct casync__connection *connection;        /* if a server allocated it, else NULL */
    struct casync__stream_connecting *connecting; /* what takes more than one connect(2), or NULL */
    struct casync__input *input; /* bytes read and not yet asked for, frames in the making; or
                                    NULL */
    struct casync__input *lent;  /* an earlier input, in which the frame last read still is; or
                                    NULL */
    size_t read_limit;
    const casync_framing *framing;
    casync_op *reading; /* the read that waits */
    struct casync__stream_passed_fds
        *passed_fds;               /* that came and were not asked for yet; or NULL */
    uint8_t read_side, write_side; /* has either of them ended? */
    bool more;                     /* the last read was full: more may be there */
    bool frame_lent;               /* the frame last read is the user's until the next read */
    bool delivering;               /* data_received is called with bytes of the input */
    bool read_by_ops;              /* a read operation was begun: what came is for these */
    bool end_waits;                /* the peer's end is told when they have read what came before */
    bool loss_told;                /* the caller of close hears by an error that bytes are lost */
};

/* Makes a stream of a connected descriptor, which is made non-blocking and, without
   options.keep_fd, close-on-exec. protocol and options may be NULL. The stream is open when this
   returns; connection_made is not called.
   Returns: 0.
   Errors: -EALREADY if the stream is open; -EPERM for a regular file, which is always ready:
   read(2) it; -EBADF; -EEXIST if a watcher or another stream has the descriptor; -EINVAL for a
   closed loop or bad options; -ENOMEM.
   Lifetime: the stream is yours and stays where it is until it is closed. The descriptor becomes
   the library's; after an error it stays yours. */
CASYNC_API int64_t casync_stream_open(casync_loop *loop, casync_stream *stream, int fd,
                                      const casync_protocol *protocol,
                                      const casync_stream_options *options);

/* Makes two streams that are joined: casync_socketpair by socketpair(2), casync_pipe by pipe(2),
   from writer to reader.
   Returns: 0.
   Errors: those of casync_stream_open; -EMFILE; -ENFILE.
   Lifetime: both streams as in casync_stream_open. */
CASYNC_API int64_t casync_socketpair(casync_loop *loop, casync_stream *a, casync_stream *b,
                                     const casync_protocol *protocol,
                                     const casync_stream_options *options);
CASYNC_API int64_t casync_pipe(casync_loop *loop, casync_stream *reader, casync_stream *writer,
                               const casync_protocol *protocol,
                               const casync_stream_options *options);

typedef struct casync_connect_desc {
    const char *host; /* a name, or "127.0.0.1", "::1", "fe80::1%eth0"; NULL: loopback */
    int port;
    const char *path; /* a Unix socket instead; "@name" for an abstract one */
    /* Addresses that are known already, as by casync_getaddrinfo, instead of host and port. */
    const casync_address *addresses;
    size_t address_count;
    const char *local_host; /* bind to this address first, in numbers, or NULL */
    int local_port;         /* 0: any */
    /* Nanoseconds that an attempt to connect to one address of several has before the next begins
       beside it, 10 ms at least; CASYNC_FOREVER: until it fails. Default: 250 ms. */
    int64_t attempt_delay;
    /* If connecting to several addresses fails: room for the words of each attempt, "[::1]:80:
       Connection refused; 127.0.0.1:80: Connection timed out". It is yours, and may be NULL. */
    char *errors;
    size_t errors_size;
    const casync_protocol *protocol;      /* or NULL */
    const casync_stream_options *options; /* or NULL */
} casync_connect_desc;

/* Begins to connect a stream. The protocol's connection_made follows, or its connection_lost with
   the error. The stream may be closed before it is connected. A Unix socket whose listener has no
   place for it tries again until there is one.
   A name is looked up by casync_getaddrinfo, and its addresses are tried as RFC 8305 says (Happy
   Eyeballs, sections 4, 5 and 8): in the order found, but the families by turns; each has
   attempt_delay for itself; when one fails the next begins at once; the first that connects wins,
   and the others are closed. Unlike section 3, both families are asked for by one question, as
   getaddrinfo(3) does, so a slow answer of one holds up the other. A lookup keeps the loop running,
   whatever casync_stream_ref says. Until the stream is connected its descriptor is none that socket
   options could be set on.
   Returns: 0.
   Errors: -EINVAL for a bad address, port or attempt_delay, or a path that is too long;
   CASYNC_NOT_NUMERIC for a local_host that is a name; -EALREADY if the stream is open; those of
   socket(2), bind(2) and connect(2), at once or later; those of casync_getaddrinfo; -EEXIST;
   -ENOMEM. If all attempts failed: the error of the one that failed last.
   Lifetime: the stream is yours and stays where it is until it is closed. The desc is read during
   the call, but desc.errors is written until the stream is connected or closed. */
CASYNC_API int64_t casync_connect_start(casync_loop *loop, casync_stream *stream,
                                        const casync_connect_desc *desc);

/* Connects a stream, and waits until it is connected. With a protocol, connection_made is called as
   well; if connecting fails the stream is closed, and connection_lost is not called.
   Returns: 0.
   Errors: those of casync_connect_start; casync_connect_timeout -ETIMEDOUT.
   Lifetime: as for casync_connect_start. */
CASYNC_WAITS int64_t casync_connect(casync_loop *loop, casync_stream *stream,
                                    const casync_connect_desc *desc);
CASYNC_API casync_future *casync_connect_op(casync_loop *loop, casync_stream *stream, casync_op *op,
                                            const casync_connect_desc *desc);
CASYNC_WAITS int64_t casync_connect_timeout(casync_loop *loop, casync_stream *stream,
                                            const casync_connect_desc *desc, int64_t timeout);

/* Reads 1 to `size` bytes, as soon as there are any. A size of 0 never waits.
   Returns: how many bytes; 0 at the end of the stream.
   Errors: CASYNC_INVALID_STATE if the stream is not connected, or its protocol has data_received or
   get_buffer; -ECONNABORTED if this side closes, aborts or finishes the stream; -EBUSY if another
   read is under way; what ended the stream; casync_read_timeout -ETIMEDOUT.
   Lifetime: the buffer is the operation's until this is done.
   Cost: none for bytes that were read ahead; else one read(2), in the next turn in which the
   descriptor is readable. */
CASYNC_WAITS int64_t casync_read(casync_stream *stream, void *buffer, size_t size);
CASYNC_API casync_future *casync_read_op(casync_stream *stream, casync_op *op, void *buffer,
                                         size_t size);
CASYNC_WAITS int64_t casync_read_timeout(casync_stream *stream, void *buffer, size_t size,
                                         int64_t timeout);

/* Reads exactly `size` bytes. If it is cancelled, the bytes that came are kept for the next read.
   Returns: size.
   Errors: those of casync_read; CASYNC_EOF if the stream ended before the first byte;
   CASYNC_INCOMPLETE_READ if it ended later: op->done of the bytes are in the buffer
   (casync_read_exactly does not tell how many).
   Lifetime: the buffer is the operation's until this is done. */
CASYNC_WAITS int64_t casync_read_exactly(casync_stream *stream, void *buffer, size_t size);
CASYNC_API casync_future *casync_read_exactly_op(casync_stream *stream, casync_op *op, void *buffer,
                                                 size_t size);
CASYNC_WAITS int64_t casync_read_exactly_timeout(casync_stream *stream, void *buffer, size_t size,
                                                 int64_t timeout);

/* Reads the bytes up to a delimiter of 1 to 64 bytes, and the delimiter. *data points to them; with
   _op future.ptr does.
   Returns: how many bytes, the delimiter's included.
   Errors: those of casync_read_exactly; CASYNC_LIMIT_OVERRUN if there is no delimiter within the
   read limit: the bytes stay, take them by casync_read; -EINVAL for a delimiter of another size;
   -ENOMEM.
   Lifetime: the delimiter must live until this is done. The bytes are inside the stream and yours
   until the next read. A task that is given them in the turn in which the stream is closed has them
   until its next wait; the library frees them after at most 16 turns. */
CASYNC_WAITS int64_t casync_read_until(casync_stream *stream, const void *delimiter, size_t size,
                                       const void **data);
CASYNC_API casync_future *casync_read_until_op(casync_stream *stream, casync_op *op,
                                               const void *delimiter, size_t size);
CASYNC_WAITS int64_t casync_read_until_timeout(casync_stream *stream, const void *delimiter,
                                               size_t size, const void **data, int64_t timeout);

/* Reads a frame. Of a CASYNC_FRAMING_LENGTH frame it gives what follows the prefix. *data points to
   the bytes; with _op future.ptr does.
   Returns: how many bytes.
   Errors: those of casync_read_until; -EINVAL for a framing that is not valid.
   Lifetime: what the framing points to must live until this is done. The bytes as for
   casync_read_until. */
CASYNC_WAITS int64_t casync_read_frame(casync_stream *stream, const casync_framing *framing,
                                       const void **data);
CASYNC_API casync_future *casync_read_frame_op(casync_stream *stream, casync_op *op,
                                               const casync_framing *framing);
CASYNC_WAITS int64_t casync_read_frame_timeout(casync_stream *stream, const casync_framing *framing,
                                               const void **data, int64_t timeout);

/* Stops a protocol's reading; casync_resume_reading restarts it. While it is paused no
   data_received is called, so that the kernel's buffers hold up the other side. Read operations are
   not affected.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the stream is not open. */
CASYNC_API int64_t casync_pause_reading(casync_stream *stream);
CASYNC_API int64_t casync_resume_reading(casync_stream *stream);

/* Writes a copy of the bytes, and never waits. What the kernel does not take at once is queued.
   casync_writev writes the bytes of several spans: collect small writes in one.
   Returns: how many bytes were taken: all, unless memory is short.
   Errors: CASYNC_INVALID_STATE if the stream is not connected; -EPIPE after casync_write_eof or
   casync_finish; what ended the stream (-EPIPE, -ECONNRESET, ...); -EINVAL for more bytes than
   PTRDIFF_MAX; -ENOMEM.
   Cost: one system call if nothing is queued, else none until the descriptor is writable. */
CASYNC_API int64_t casync_write(casync_stream *stream, const void *data, size_t size);
CASYNC_API int64_t casync_writev(casync_stream *stream, const casync_span *spans, size_t count);

/* Writes bytes by reference, and never waits. Bytes below CASYNC_REFERENCE_MIN are copied.
   Returns: how many bytes were taken.
   Errors: those of casync_write.
   Lifetime: the bytes are the stream's until release(arg) is called, which may happen inside the
   call; release may be NULL. It is not called after an error, nor if fewer bytes were taken.
   release may not close or free the stream.
   Cost: as casync_write. */
CASYNC_API int64_t casync_write_ref(casync_stream *stream, const void *data, size_t size,
                                    casync_release release, void *arg);

/* Writes what the kernel takes at once, and queues nothing.
   Returns: how many bytes were taken.
   Errors: -EAGAIN if the kernel takes none, or bytes are queued; -EOPNOTSUPP through a filter;
   those of casync_write.
   Cost: one system call at most. */
CASYNC_API int64_t casync_try_write(casync_stream *stream, const void *data, size_t size);

/* Writes a frame: puts the prefix of a CASYNC_FRAMING_LENGTH framing before the bytes.
   Returns: size.
   Errors: -EMSGSIZE if the prefix cannot hold the length; -EINVAL for another kind of framing;
   those of casync_write. After -ENOMEM the stream has ended if a part of the frame is on its way.
   Cost: as casync_write. */
CASYNC_API int64_t casync_write_frame(casync_stream *stream, const casync_framing *framing,
                                      const void *data, size_t size);

/* Waits until no more than the low-water mark is queued. If writing is not paused, it returns at
   once.
   Returns: 0.
   Errors: what ended the stream; -ECONNABORTED if this side closed or aborted it;
   CASYNC_INVALID_STATE if it is not open; casync_drain_timeout -ETIMEDOUT. */
CASYNC_WAITS int64_t casync_drain(casync_stream *stream);
CASYNC_API casync_future *casync_drain_op(casync_stream *stream, casync_op *op);
CASYNC_WAITS int64_t casync_drain_timeout(casync_stream *stream, int64_t timeout);

/* Writes the bytes, and waits until the kernel has all of them and all that was queued before. It
   queues no more than the high-water mark, or 4 KiB, at a time. Several go one after the other. If
   it is cancelled, what it queued by then is still sent.
   Returns: size.
   Errors: those of casync_write and casync_drain; -EPIPE after casync_write_eof;
   casync_write_all_timeout -ETIMEDOUT.
   Lifetime: the bytes are the operation's until this is done. */
CASYNC_WAITS int64_t casync_write_all(casync_stream *stream, const void *data, size_t size);
CASYNC_API casync_future *casync_write_all_op(casync_stream *stream, casync_op *op,
                                              const void *data, size_t size);
CASYNC_WAITS int64_t casync_write_all_timeout(casync_stream *stream, const void *data, size_t size,
                                              int64_t timeout);

/* Sets at how many queued bytes writing pauses (more than `high`) and resumes (`low` or less); (0,
   0) pauses at the first queued byte. It takes effect at once: pause_writing or resume_writing may
   be called inside.
   Returns: 0.
   Errors: -EINVAL if low > high; CASYNC_INVALID_STATE if the stream is not open. */
CASYNC_API int64_t casync_set_write_limits(casync_stream *stream, size_t high, size_t low);

/* Sends the end of the stream once all that is queued is sent. Reading goes on.
   Returns: 0.
   Errors: -EOPNOTSUPP for a pipe: finish it; -EPIPE after casync_finish; CASYNC_INVALID_STATE if
   the stream is not connected; what ended it. */
CASYNC_API int64_t casync_write_eof(casync_stream *stream);

/* Begins to end a stream gracefully: reading stops, except for a read operation that waits, what is
   queued is sent, then the descriptor is closed. connection_lost follows. A stream that is still
   connecting is aborted. This is asyncio's transport.close().
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the stream is not open.
   Lifetime: the struct is the stream's until connection_lost is called. */
CASYNC_API int64_t casync_finish_start(casync_stream *stream);

/* Ends a stream gracefully, and waits until it is closed. If this is cancelled, the stream is
   closed at once, and lost bytes are reported as by casync_close. When time is up
   casync_finish_timeout closes the stream too; its result is the only report.
   Returns: 0.
   Errors: what ended the stream before all was sent; CASYNC_INVALID_STATE if it is not open;
   casync_finish_timeout -ETIMEDOUT.
   Lifetime: the struct is the stream's until this is done. */
CASYNC_WAITS int64_t casync_finish(casync_stream *stream);
CASYNC_API casync_future *casync_finish_op(casync_stream *stream, casync_op *op);
CASYNC_WAITS int64_t casync_finish_timeout(casync_stream *stream, int64_t timeout);

/* Ends a stream soon without sending what is queued, even one that is finishing.
   connection_lost(-ECONNABORTED) follows by the ready queue. This is asyncio's transport.abort().
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the stream is not open. */
CASYNC_API int64_t casync_abort(casync_stream *stream);

/* Ends a stream now. No callback follows, operations that wait fail with -ECONNABORTED, and the
   descriptor is closed. What is still queued is lost: asyncio's close() is casync_finish.
   casync_close_reset makes TCP send a reset instead of its normal end (SO_LINGER, socket(7)), and
   reports nothing. A closed stream may be closed again.
   Lost bytes are reported to the exception handler as the last act (exception.unsent and .peer),
   unless they were given up before, by casync_abort or by an error. The stream is closed then, and
   the handler may use it again or free it. What the kernel has is not counted: the kernel still
   sends it, but if bytes were received that nobody read, TCP sends a reset, which may drop it.
   Lifetime: the memory is yours when this returns. That of a connection which a server allocated is
   freed soon after. */
CASYNC_API void casync_close(casync_stream *stream);
CASYNC_API void casync_close_reset(casync_stream *stream);

/* Tells whether a stream is connected or connecting.
   Returns: true if it is. */
CASYNC_API bool casync_stream_is_open(const casync_stream *stream);

/* Gives an open stream another protocol: asyncio's transport.set_protocol.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the stream is not open; -EBUSY if a read operation is under way.
   Lifetime: the protocol must outlive the stream. */
CASYNC_API int64_t casync_set_protocol(casync_stream *stream, const casync_protocol *protocol);

/* Tells the address of one end of a stream: casync_local_address of this end, casync_peer_address
   of the other.
   Returns: 0.
   Errors: those of getsockname(2) and getpeername(2).
   Cost: one system call. */
CASYNC_API int64_t casync_local_address(const casync_stream *stream, casync_address *address);
CASYNC_API int64_t casync_peer_address(const casync_stream *stream, casync_address *address);

/* Sets TCP_NODELAY (tcp(7)): on = true, the default, turns Nagle's algorithm off.
   Returns: 0.
   Errors: those of setsockopt(2); nothing is changed then. */
CASYNC_API int64_t casync_set_nodelay(casync_stream *stream, bool on);

/* Lets TCP probe a connection after `seconds` of idleness; 0 turns that off: SO_KEEPALIVE,
   socket(7).
   Returns: 0.
   Errors: -EINVAL for a negative number or one above 32,767; those of setsockopt(2); nothing is
   changed then. */
CASYNC_API int64_t casync_set_keepalive(casync_stream *stream, int seconds);

/* Passes a copy of a descriptor over a Unix socket, with at least one byte (unix(7)).
   casync_send_fd_frame puts the prefix of a CASYNC_FRAMING_LENGTH framing before the bytes.
   Returns: how many bytes were taken, as casync_write and casync_write_frame.
   Errors: -EOPNOTSUPP for another kind of stream, or through a filter; -EINVAL without a byte;
   those of dup(2), casync_write and casync_write_frame.
   Lifetime: the descriptor stays yours. */
CASYNC_API int64_t casync_send_fd(casync_stream *stream, int fd, const void *data, size_t size);
CASYNC_API int64_t casync_send_fd_frame(casync_stream *stream, int fd,
                                        const casync_framing *framing, const void *data,
                                        size_t size);

/* Takes the next descriptor that came, in the order of the bytes with which they came. Set
   options.receive_fds before. A stream in which more than 256 descriptors wait ends with -ENOBUFS.
   Returns: the descriptor, which is yours and close-on-exec.
   Errors: -EAGAIN if there is none. */
CASYNC_API int64_t casync_receive_fd(casync_stream *stream);

/* Sets whether the stream keeps casync_run_until_idle running. At first it does, while it waits to
   read, write or connect. */
CASYNC_API void casync_stream_ref(casync_stream *stream, bool referenced);

/* A filter, which sits between the stream's user and the descriptor and turns the bytes of each
   into those of the other, as TLS does. Embed this struct first in yours. A function returns 0 or
   an error, which ends the stream; where it is NULL, bytes pass unchanged. */
struct casync_filter {
    /* Bytes came from the descriptor: call casync_filter_receive with what the user is to see.
       Returning CASYNC_EOF tells the user of the end (TLS: close_notify). */
    int64_t (*received)(casync_filter *filter, casync_span raw);
    /* The descriptor ended. Call casync_filter_receive first if something is left. */
    int64_t (*received_eof)(casync_filter *filter);
    /* The user writes: call casync_filter_send with what the descriptor is to get. */
    int64_t (*write)(casync_filter *filter, const casync_span *spans, size_t count);
    /* The user is done writing: send a last word, if there is one. */
    int64_t (*write_eof)(casync_filter *filter);
    /* The stream goes. Last call. */
    void (*close)(casync_filter *filter);
    casync_stream *stream; /* set by casync_set_filter */
    bool reads; /* set by the filter: read though the stream's user does not, as in a handshake */
};

/* Puts a filter into an open stream.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if there is a filter or the stream is not open; -EBUSY if bytes were
   read ahead that nobody has asked for: take them by casync_read, and judge whether the filter
   should have them (after a STARTTLS they are an attack).
   Lifetime: the filter is the stream's until its close is called. */
CASYNC_API int64_t casync_set_filter(casync_stream *stream, casync_filter *filter);

/* Hands bytes on: casync_filter_receive to the stream's user, casync_filter_send to the descriptor.
   A filter calls them in its callbacks or later, but not while the stream's user is in
   data_received.
   Returns: 0.
   Errors: -ECONNABORTED or what ended the stream: the filter may be freed, return the error at
   once; casync_filter_send -ENOMEM. */
CASYNC_API int64_t casync_filter_receive(casync_filter *filter, const void *data, size_t size);
CASYNC_API int64_t casync_filter_send(casync_filter *filter, const void *data, size_t size);

/* >> servers (API) ----------------------------------------------------------------------------- */

typedef struct casync_listen_desc {
    const char *host; /* an address in numbers, or in a task a name; NULL: all, IPv6 and IPv4 */
    int port;         /* 0: any free one, which casync_server_address tells */
    /* Addresses that are known already, as by casync_getaddrinfo, instead of host and port. Each
       IPv6 address is for IPv6 alone then. */
    const casync_address *addresses;
    size_t address_count;
    /* The path of a Unix socket, instead of host and port; "@name" for an abstract one. A socket
       file that is in the way is removed, as asyncio does. Close leaves the file behind. */
    const char *path;
    int fd; /* with use_fd: a socket that listens or is bound, and becomes the library's */
    bool use_fd;
    bool keep_fd;      /* with use_fd: the descriptor stays yours, and open after the server */
    bool reuse_port;   /* SO_REUSEPORT: several servers share the port */
    bool ipv6_only;    /* IPV6_V6ONLY */
    bool start_paused; /* do not accept until casync_server_resume (or casync_accept_op) */
    int backlog;       /* default 100, as asyncio */
    /* Set one of these four, or none to take connections by casync_accept.
       - protocol: the library allocates each connection. Operations and jobs in its memory must be
         done or cancelled when connection_lost returns; then the library frees it.
       - accepted: the descriptor is yours.
       - task: the library allocates each connection and runs this coroutine as a task, with the
         connection as its arg. When the task ends, the library finishes the connection and frees
         it. If the task failed, the library aborts the connection and tells the exception handler,
         unless the error is the -ECONNABORTED that comes of this side ending the connection.
       - step: the same with a stackless task, with which the connection begins. */
    const casync_protocol *protocol;
    void (*accepted)(casync_server *server, int fd, const casync_address *peer);
    casync_coroutine task;
    casync_step step;
    size_t conn_size;     /* bytes, which are zeroed, of a connection; default: a casync_stream's */
    size_t stream_offset; /* where in them the connection's casync_stream is */
    casync_stream_options options; /* of each connection */
    /* Nanoseconds for sending what a task wrote that returned success or was cancelled; when they
       are over, the connection is aborted and the exception handler is told. Default: 30 s;
       negative: no limit. */
    int64_t finish_timeout;
    void *user; /* server->user */
} casync_listen_desc;

/* A listening socket. It is yours, zeroed before its first use. */
struct casync_server {
    casync_watcher watcher;          /* private, but for server->watcher.fd */
    void *user;                      /* yours */
    casync_listen_desc desc;         /* read-only */
    casync_link waiting;             /* private: accept operations */
    casync_link joining;             /* private: join operations */
    casync_link listeners;           /* private: of further addresses */
    casync_timer retry;              /* private: after the process ran out of descriptors */
    struct casync__clients *clients; /* private: its connections, while it is open */
    uint64_t clients_id;             /* private: by which the loop finds them afterwards */
    bool open, tcp;                  /* private */
};

/* Begins to listen. When the process runs out of descriptors, accepting stops for 100 ms, and the
   exception handler is told. Connections that broke before they were accepted are skipped.
   A host that is a name is looked up by casync_getaddrinfo, for which this waits: in a stackful
   task. Elsewhere look it up yourself, and set desc.addresses. The server listens at all addresses
   of a name, as "localhost" is both "::1" and "127.0.0.1": with port 0 at the same port, each IPv6
   address for IPv6 alone. An address that this host does not have is passed over, unless it is the
   last one left.
   Returns: 0.
   Errors: -EALREADY if the server is open; -EEXIST if a watcher or a stream has desc.fd; -EBADF and
   -ENOTSOCK for a bad desc.fd; CASYNC_NOT_NUMERIC for a name where nothing can wait; those of
   casync_getaddrinfo; -EINVAL for a bad address, port or desc; those of socket(2), bind(2) and
   listen(2); -ENOMEM.
   Lifetime: the server is yours and stays where it is until it is closed. The desc is copied; what
   it points to must outlive the server. After an error desc.fd stays yours. */
CASYNC_API int64_t casync_listen(casync_loop *loop, casync_server *server,
                                 const casync_listen_desc *desc);

/* Waits for a connection, and opens `stream` with it. Several accepts are served in their order.
   Returns: 0.
   Errors: -ECONNABORTED if the server is closed; CASYNC_INVALID_STATE if it is not open; -EALREADY
   if the stream is open; -ENOMEM; casync_accept_timeout -ETIMEDOUT.
   Lifetime: the stream as in casync_stream_open. */
CASYNC_WAITS int64_t casync_accept(casync_server *server, casync_stream *stream);
CASYNC_API casync_future *casync_accept_op(casync_server *server, casync_op *op,
                                           casync_stream *stream);
CASYNC_WAITS int64_t casync_accept_timeout(casync_server *server, casync_stream *stream,
                                           int64_t timeout);

/* Waits until the server is closed.
   Returns: 0.
   Errors: none. */
CASYNC_WAITS int64_t casync_server_join(casync_server *server);
CASYNC_API casync_future *casync_server_join_op(casync_server *server, casync_op *op);

/* Waits until no connection is left that the server allocated, those that are being finished
   included. It may be called after casync_server_close. To end a server gracefully, close it, call
   casync_server_wait_clients_timeout, and after -ETIMEDOUT casync_server_abort_clients: asyncio's
   close() and wait_closed().
   Returns: 0.
   Errors: casync_server_wait_clients_timeout -ETIMEDOUT. */
CASYNC_WAITS int64_t casync_server_wait_clients(casync_server *server);
CASYNC_API casync_future *casync_server_wait_clients_op(casync_server *server, casync_op *op);
CASYNC_WAITS int64_t casync_server_wait_clients_timeout(casync_server *server, int64_t timeout);

/* Stops accepting; casync_server_resume restarts it, and so does an accept.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the server is not open. */
CASYNC_API int64_t casync_server_pause(casync_server *server);
CASYNC_API int64_t casync_server_resume(casync_server *server);

/* Stops listening. No connection follows, and accepts that wait fail with -ECONNABORTED. The
   connections go on without the server. A closed server may be closed again.
   Lifetime: the server's memory is yours when this returns. While you leave it as it is, it still
   leads to its connections. */
CASYNC_API void casync_server_close(casync_server *server);

/* Ends all connections that the server allocated: casync_server_abort_clients by casync_abort,
   casync_server_finish_clients by casync_finish_start. They may be called after
   casync_server_close.
   Returns: how many connections it told to end.
   Errors: none. */
CASYNC_API int64_t casync_server_abort_clients(casync_server *server);
CASYNC_API int64_t casync_server_finish_clients(casync_server *server);

/* Sets whether the server keeps casync_run_until_idle running. At first it does. */
CASYNC_API void casync_server_ref(casync_server *server, bool referenced);

/* Tells the address on which a server listens (of several the first), with the port that the kernel
   chose.
   Returns: 0.
   Errors: those of getsockname(2).
   Cost: one system call. */
CASYNC_API int64_t casync_server_address(const casync_server *server, casync_address *address);

/* >> datagrams (API) --------------------------------------------------------------------------- */

/* A datagram socket's protocol: the functions by which it tells its user what happens, as asyncio's
   DatagramProtocol does. Any member may be NULL. The table must outlive its sockets. The functions
   may send, pause, close, abort or finish. */
typedef struct casync_datagram_protocol {
    /* One datagram came, which may be empty. An unnamed Unix socket has an address of size 0. Data
       and address are the library's, and good until this returns. */
    void (*datagram_received)(casync_datagram *datagram, casync_span data,
                              const casync_address *from);
    /* A receive failed, or the sending of a datagram that was queued. The socket goes on.
       -ECONNREFUSED and the like: ICMP tells of an earlier datagram (on connected sockets only,
       ip(7)). -EMSGSIZE: a queued datagram was too long, or one that came was longer than
       desc.max_size; it is dropped. Without a protocol the exception handler is told. */
    void (*error_received)(casync_datagram *datagram, int64_t error);
    /* As those of casync_protocol. */
    void (*pause_writing)(casync_datagram *datagram);
    void (*resume_writing)(casync_datagram *datagram);
    /* The socket was finished (error 0) or aborted (-ECONNABORTED). This is the last call, and does
       not come after casync_datagram_close. The socket is closed already: you may open its struct
       again or free it. */
    void (*connection_lost)(casync_datagram *datagram, int64_t error);
} casync_datagram_protocol;

/* How to make a datagram socket. Zero means the default in every member. */
typedef struct casync_datagram_desc {
    const char *local_host; /* in numbers, or in a task a name; NULL: all, IPv6 and IPv4 */
    int local_port;         /* 0: any free one, which casync_datagram_local_address tells */
    const char *local_path; /* of a Unix socket, as casync_listen_desc.path */
    /* With a remote address the socket is connected: it sends there by default, and receives from
       there alone. It is bound only if a local address is given as well. */
    const char *remote_host; /* in numbers, or in a task a name; NULL with a port: loopback */
    int remote_port;
    const char *remote_path;
    /* Addresses that are known already, as by casync_getaddrinfo, instead of the above; or NULL. */
    const casync_address *local_address, *remote_address;
    int fd; /* with use_fd: a datagram socket, used in place of the addresses above */
    bool use_fd;
    bool keep_fd;       /* with use_fd: the descriptor stays yours, and open after the socket */
    bool reuse_port;    /* SO_REUSEPORT: several sockets share the port */
    bool reuse_address; /* SO_REUSEADDR: the same, for multicast with other programs that set it */
    bool ipv6_only;     /* IPV6_V6ONLY */
    bool broadcast;     /* SO_BROADCAST: may send to broadcast addresses */
    bool start_paused;  /* do not receive until casync_datagram_resume_reading */
    int receive_buffer, send_buffer; /* bytes: SO_RCVBUF, SO_SNDBUF (socket(7)); default: the
                                        system's */
    /* Multicasts are sent by this interface, a name or a number (NULL: as the routes say), over so
       many hops (default 1, the local network). They reach this host's members too, unless
       no_multicast_loop is set. */
    const char *multicast_interface;
    int multicast_ttl;
    bool no_multicast_loop;
    size_t high_water, low_water; /* bytes queued; default 64 KiB and a quarter of high_water */
    size_t queue_limit;           /* bytes queued at most; default 1 MiB, SIZE_MAX for no limit */
    /* Bytes of the longest datagram that the protocol gets, up to 1 MiB. Default: 64 KiB, which no
       UDP datagram exceeds, and 256 KiB for Unix sockets. A batch has 16 datagrams, or as many as
       fit in 1 MiB. */
    size_t max_size;
    const casync_datagram_protocol *protocol; /* or NULL */
    void *user;                               /* datagram->user */
} casync_datagram_desc;

/* A datagram socket: UDP over IPv4 and IPv6, or Unix. It receives either by a protocol with
   datagram_received, or by receive operations. It is yours, zeroed before its first use. 512 bytes
   at most. */
struct casync_datagram {
    casync_endpoint endpoint; /* private, but for the descriptor: endpoint.watcher.fd */
    const casync_datagram_protocol *protocol; /* read-only */
    void *user;                               /* yours */
    size_t queued; /* read-only: bytes that wait to be sent, and 8 a datagram, as asyncio counts */
    /* private from here on */
    size_t queue_limit, max_size;
    casync_link out;       /* datagrams that wait to be sent */
    casync_link in;        /* datagrams of a batch that came when nobody took them any more */
    casync_link receiving; /* receive operations that wait */
    casync_timer retry;    /* of a send that the kernel would not tell us to try again */
};

/* Makes and opens a datagram socket: asyncio's create_datagram_endpoint. It is open when this
   returns; connection_made is not called. Hosts that are names are looked up by casync_getaddrinfo,
   for which this waits: in a stackful task. The first pair of their addresses that works is taken.
   Elsewhere look them up yourself, and set desc.local_address and desc.remote_address.
   Returns: 0.
   Errors: -EALREADY if it is open; CASYNC_NOT_NUMERIC for a name where nothing can wait; those of
   casync_getaddrinfo; CASYNC_EAI_ADDRFAMILY if the two names have no family in common; -EINVAL for
   a path
   that is too long, a bad port, an unknown interface, low_water > high_water or max_size > 1 MiB;
   -EPROTOTYPE if desc.fd is a stream socket; -ENOTSOCK; -EBADF; -EEXIST; -ENOMEM; those of
   socket(2), setsockopt(2), bind(2) and connect(2).
   Lifetime: the struct is yours and stays where it is until the socket is closed. desc.fd becomes
   the library's; after an error it stays yours.
   Cost: for the first protocol with datagram_received 1 MiB of address space per loop, of which
   only what datagrams fill becomes memory. */
CASYNC_API int64_t casync_datagram_open(casync_loop *loop, casync_datagram *datagram,
                                        const casync_datagram_desc *desc);

/* Sends one datagram, which may be empty, to an address, or with NULL to where the socket is
   connected. It never waits: what the kernel does not take at once is copied and queued.
   casync_datagram_writev sends the bytes of several spans as one datagram.
   Returns: the datagram's size.
   Errors: -ENOBUFS if the queue is at its limit; CASYNC_INVALID_STATE if the socket is not open;
   -EPIPE after finish or abort; -EDESTADDRREQ or -ENOTCONN without an address; -EMSGSIZE; -ENOMEM;
   -ECONNREFUSED and the like for what ICMP told of an earlier datagram; others of send(2). After an
   error nothing was sent or queued, and error_received is not called.
   Cost: one system call if nothing is queued; else none until the socket is writable, and then one
   for up to 16 datagrams. */
CASYNC_API int64_t casync_datagram_write(casync_datagram *datagram, const void *data, size_t size,
                                         const casync_address *address);
CASYNC_API int64_t casync_datagram_writev(casync_datagram *datagram, const casync_span *spans,
                                          size_t count, const casync_address *address);

/* Sends one datagram if the kernel takes it at once, and queues nothing.
   Returns: the datagram's size.
   Errors: -EAGAIN; those of casync_datagram_write.
   Cost: one system call at most. */
CASYNC_API int64_t casync_datagram_try_write(casync_datagram *datagram, const void *data,
                                             size_t size, const casync_address *address);

/* Sends one datagram, and waits until the kernel has it. It waits its turn behind what is queued,
   whatever queue_limit is. If this is cancelled, the datagram is not sent.
   Returns: the datagram's size.
   Errors: those of casync_datagram_write; -ECONNABORTED if the socket is closed or aborted.
   Lifetime: the bytes are the operation's until this is done. */
CASYNC_WAITS int64_t casync_datagram_send(casync_datagram *datagram, const void *data, size_t size,
                                          const casync_address *address);
CASYNC_API casync_future *casync_datagram_send_op(casync_datagram *datagram, casync_op *op,
                                                  const void *data, size_t size,
                                                  const casync_address *address);

/* Waits for one datagram. *address, unless address is NULL, gets the sender's address. Several
   receives are served in their order.
   Returns: the datagram's size; 0 for an empty one.
   Errors: -EMSGSIZE if the datagram was longer than the buffer, which has its first op->done bytes;
   -ECONNREFUSED and others of recv(2); -ECONNABORTED if this side closes the socket;
   CASYNC_INVALID_STATE if the socket is not open or its protocol has datagram_received.
   Lifetime: buffer and address are the operation's until this is done. */
CASYNC_WAITS int64_t casync_datagram_receive(casync_datagram *datagram, void *buffer, size_t size,
                                             casync_address *address);
CASYNC_API casync_future *casync_datagram_receive_op(casync_datagram *datagram, casync_op *op,
                                                     void *buffer, size_t size,
                                                     casync_address *address);

/* Waits until no more than the low-water mark is queued. If writing is not paused, it returns at
   once.
   Returns: 0.
   Errors: those of casync_drain. */
CASYNC_WAITS int64_t casync_datagram_drain(casync_datagram *datagram);
CASYNC_API casync_future *casync_datagram_drain_op(casync_datagram *datagram, casync_op *op);

/* Sets at how many queued bytes writing pauses and resumes, as casync_set_write_limits does.
   Returns: 0.
   Errors: -EINVAL if low > high; CASYNC_INVALID_STATE if the socket is not open. */
CASYNC_API int64_t casync_datagram_set_write_limits(casync_datagram *datagram, size_t high,
                                                    size_t low);

/* Stops a protocol's receiving; casync_datagram_resume_reading restarts it. Receive operations are
   not affected. What came in a batch before the pause is kept.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the socket is not open. */
CASYNC_API int64_t casync_datagram_pause_reading(casync_datagram *datagram);
CASYNC_API int64_t casync_datagram_resume_reading(casync_datagram *datagram);

/* Gives an open socket another protocol.
   Returns: 0.
   Errors: -EBUSY if receive operations wait and the protocol has datagram_received;
   CASYNC_INVALID_STATE if the socket is not open; -ENOMEM.
   Lifetime: the protocol must outlive the socket. */
CASYNC_API int64_t casync_datagram_set_protocol(casync_datagram *datagram,
                                                const casync_datagram_protocol *protocol);

/* Tells whether a socket is open.
   Returns: true if it is. */
CASYNC_API bool casync_datagram_is_open(const casync_datagram *datagram);

/* Sets whether the socket keeps casync_run_until_idle running. At first it does. */
CASYNC_API void casync_datagram_ref(casync_datagram *datagram, bool referenced);

/* Begins to end a socket gracefully: receiving stops, what is queued is sent, then the descriptor
   is closed. connection_lost follows. This is asyncio's transport.close().
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the socket is not open.
   Lifetime: the struct is the socket's until connection_lost is called. */
CASYNC_API int64_t casync_datagram_finish_start(casync_datagram *datagram);

/* Ends a socket gracefully, and waits until it is closed. If this is cancelled, the socket is
   closed at once, and lost datagrams are reported as by casync_datagram_close.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the socket is not open; -ECONNABORTED if it is closed or aborted.
   Lifetime: the struct is the socket's until this is done. */
CASYNC_WAITS int64_t casync_datagram_finish(casync_datagram *datagram);
CASYNC_API casync_future *casync_datagram_finish_op(casync_datagram *datagram, casync_op *op);

/* Ends a socket soon without sending what is queued. connection_lost(-ECONNABORTED) follows by the
   ready queue. This is asyncio's transport.abort().
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if the socket is not open. */
CASYNC_API int64_t casync_datagram_abort(casync_datagram *datagram);

/* Ends a socket now. No callback follows, operations that wait fail with -ECONNABORTED, and the
   descriptor is closed. What is still queued is lost and reported, as by casync_close. A closed
   socket may be closed again.
   Lifetime: the memory is yours when this returns. */
CASYNC_API void casync_datagram_close(casync_datagram *datagram);

/* Tells an address of a socket: casync_datagram_local_address its own, casync_datagram_peer_address
   the one to which it is connected.
   Returns: 0.
   Errors: -ENOTCONN if it is not connected; others of getsockname(2) and getpeername(2).
   Cost: one system call. */
CASYNC_API int64_t casync_datagram_local_address(const casync_datagram *datagram,
                                                 casync_address *address);
CASYNC_API int64_t casync_datagram_peer_address(const casync_datagram *datagram,
                                                casync_address *address);

/* Joins a multicast group, "239.1.2.3" or "ff02::1"; casync_datagram_leave_group leaves it.
   `interface` is a name or a number; NULL takes the zone of the group ("ff02::1%eth0"), or what the
   routes say. `source` is the one sender to hear, or NULL for all.
   Returns: 0.
   Errors: CASYNC_NOT_NUMERIC for a name; -EINVAL for an address that is no multicast address;
   -EBADF if the socket is not open; -EADDRINUSE if it has joined already; -EADDRNOTAVAIL if it has
   not joined; others of ip(7). */
CASYNC_API int64_t casync_datagram_join_group(casync_datagram *datagram, const char *group,
                                              const char *interface, const char *source);
CASYNC_API int64_t casync_datagram_leave_group(casync_datagram *datagram, const char *group,
                                               const char *interface, const char *source);

/* Lets the socket send to broadcast addresses, or no longer: SO_BROADCAST, socket(7).
   Returns: 0.
   Errors: -EBADF if the socket is not open; others of setsockopt(2). */
CASYNC_API int64_t casync_datagram_set_broadcast(casync_datagram *datagram, bool on);

/* Sets over how many hops datagrams to one receiver travel.
   Returns: 0.
   Errors: -EOPNOTSUPP for a Unix socket; -EBADF if the socket is not open; -EINVAL for a bad
   number. */
CASYNC_API int64_t casync_datagram_set_ttl(casync_datagram *datagram, int hops);

/* Sets the interface that sends multicasts, by its name or number; NULL leaves that to the routes.
   Returns: 0.
   Errors: -EOPNOTSUPP for a Unix socket; -EBADF if the socket is not open; -EINVAL for an unknown
   interface. */
CASYNC_API int64_t casync_datagram_set_multicast_interface(casync_datagram *datagram,
                                                           const char *interface);

/* Sets over how many hops multicasts travel.
   Returns: 0.
   Errors: those of casync_datagram_set_ttl. */
CASYNC_API int64_t casync_datagram_set_multicast_ttl(casync_datagram *datagram, int hops);

/* Sets whether this host's members of the group get what the socket sends.
   Returns: 0.
   Errors: -EOPNOTSUPP for a Unix socket; -EBADF if the socket is not open. */
CASYNC_API int64_t casync_datagram_set_multicast_loop(casync_datagram *datagram, bool on);

/* >> terminals (API) --------------------------------------------------------------------------- */

enum casync_terminal_mode {
    CASYNC_TERMINAL_NORMAL, /* as it was: lines, with an echo */
    CASYNC_TERMINAL_CBREAK, /* each key at once and without an echo; Ctrl-C still interrupts */
    CASYNC_TERMINAL_RAW     /* the same, and Ctrl-C, Ctrl-Z and the like are keys */
};

/* Sets how a terminal gives its keys, as Python's tty.setcbreak and tty.setraw do. What is written
   keeps its line ends. The terminal is normal again when this process exits, stops (and is as you
   set it when it goes on), or dies of a signal that can be caught. For that, handlers are installed
   while the mode is not normal, in the place of SIG_DFL alone: a handler of yours decides by
   itself. One terminal at a time is changed.
   Returns: 0.
   Errors: -ENOTTY; -EBADF; -EBUSY while another terminal is changed; -EINVAL for an unknown mode.
   Call from: any thread. */
CASYNC_API int64_t casync_terminal_set_mode(int fd, int mode);

/* Tells the size of a terminal in characters. A change comes as SIGWINCH: see casync_signal_start.
   Returns: 0.
   Errors: -ENOTTY; -EBADF; -EINVAL. */
CASYNC_API int64_t casync_terminal_size(int fd, int *columns, int *rows);

/* Makes a pseudoterminal: fds[1] is a terminal for a program, and fds[0] the side of whoever plays
   the user of that terminal. casync_stream_open makes a stream of it, which ends with -EIO when the
   program has closed its side.
   Returns: 0.
   Errors: those of open(2) and ioctl(2) on /dev/ptmx; -EINVAL.
   Lifetime: both descriptors are yours. They are close-on-exec. */
CASYNC_API int64_t casync_openpty(int fds[2], int columns, int rows);

/* >> processes (API) --------------------------------------------------------------------------- */

/* What a standard descriptor of a child process is. */
enum casync_stdio {
    CASYNC_STDIO_INHERIT, /* this process's own */
    CASYNC_STDIO_NULL,    /* /dev/null */
    CASYNC_STDIO_PIPE,    /* a pipe: process->in to write to, process->out or err to read from */
    CASYNC_STDIO_FD, /* a descriptor of this process's, which stays yours: in_fd, out_fd, err_fd */
    CASYNC_STDIO_STDOUT /* for err: where out goes */
};

/* A descriptor of this process that the child gets as number `as`. */
typedef struct casync_process_fd {
    int fd, as;
} casync_process_fd;

/* setrlimit(2): a resource such as RLIMIT_NOFILE. */
typedef struct casync_process_limit {
    int resource;
    uint64_t soft, hard;
} casync_process_limit;

/* How to start a process. Zero means the default in every member. */
typedef struct casync_process_desc {
    const char *const *args; /* its arguments, its own name first, NULL at the end */
    const char *program;    /* the file to run; default: args[0]. Without a slash it is searched for
                                in PATH: of `env` if that is given */
    const char *shell;      /* instead of args and program: a command line for /bin/sh */
    const char *const *env; /* "NAME=value", NULL at the end; default: this process's */
    const char *cwd;        /* its working directory; default: this process's */
    int in, out, err;       /* enum casync_stdio */
    int in_fd, out_fd, err_fd;
    /* in, out and err are a terminal of the child's own, of so many characters, in a session of its
       own. process->in is the user's side of it: what you write are its keys, and what you read is
       its screen, until -EIO when the child has closed it. */
    bool terminal;
    int columns, rows;
    const casync_process_fd *fds; /* further descriptors */
    size_t fd_count;
    const casync_process_limit *limits;
    size_t limit_count;
    bool keep_fds;    /* leave other descriptors open that are not close-on-exec */
    bool new_session; /* setsid(2) */
    bool set_process_group;
    int process_group; /* with set_process_group: setpgid(2); 0: a group of its own */
    bool set_umask;
    int umask;
    int nice; /* added to this process's */
    bool set_user, set_group;
    uint32_t user, group;
    /* Supplementary groups; NULL leaves this process's: with `user` give them, if only none. */
    const uint32_t *groups;
    size_t group_count;
    /* A loop that closes kills its processes that have not ended. This one goes on, and a thread
       waits for its end, so that no zombie is left. */
    bool detached;
} casync_process_desc;

/* A child process: asyncio's subprocess. It is yours, zeroed before its first use. */
struct casync_process {
    casync_stream in, out, err; /* open where desc says CASYNC_STDIO_PIPE; yours to close before */
    int pid;                    /* read-only */
    const char *step;           /* read-only: the call that failed, as "execve", if the start did */
    int64_t status;             /* private: what casync_process_wait returns, once it has ended */
    struct casync__process_child *child; /* private: while it runs */
    casync_loop *loop;                   /* private: the one that started it */
};

/* Starts a process: asyncio's create_subprocess_exec, and with desc.shell create_subprocess_shell.
   The child has no signal blocked and no handler or ignored signal of this process's, and of its
   descriptors only 0 to 2 and those that the desc names. The process is started when this returns:
   the program was found, and every option took effect. This is vfork(2): no memory is copied, and
   the caller is held up until the child runs its program, for some 50 to 80 us however large this
   process is. With other ids it is fork(2), which takes longer the larger this process is.
   Returns: 0.
   Errors: those of execve(2), chdir(2) and the other calls that the options ask for, and
   process->step says which; -EALREADY if the process runs or a stream of it is open; -EINVAL for a
   bad desc; -EMFILE; -ENOMEM; -EAGAIN.
   Lifetime: the struct is yours and stays where it is until casync_process_close. The desc is read
   during the call.
   Cost: vfork, a pipe and what the desc asks for; one pidfd, on which the loop waits. */
CASYNC_API int64_t casync_process_start(casync_loop *loop, casync_process *process,
                                        const casync_process_desc *desc);

/* Waits until the process has ended. Any number of tasks may wait, and ask again afterwards. No
   SIGCHLD handler is needed: the loop waits for a pidfd (Linux 5.4), and a thread waits where there
   is none.
   Returns: the exit code, 0 to 255; or 256 plus the number of the signal that killed it, of which
   casync_process_signal tells.
   Errors: CASYNC_NO_STATUS if other code of this program took the status, by waitpid(2) or by
   ignoring SIGCHLD; CASYNC_INVALID_STATE if it was never started; -ECONNABORTED if it is closed
   meanwhile; casync_process_wait_timeout -ETIMEDOUT. */
CASYNC_WAITS int64_t casync_process_wait(casync_process *process);
CASYNC_API casync_future *casync_process_wait_op(casync_process *process, casync_op *op);
CASYNC_WAITS int64_t casync_process_wait_timeout(casync_process *process, int64_t timeout);

/* Tells which signal killed a process, of what casync_process_wait returned.
   Returns: its number, or 0 if the process exited. */
static inline int casync_process_signal(int64_t status) {
    return status > 256 ? (int)(status - 256) : 0;
}

/* Sends a signal to the process: casync_process_terminate SIGTERM, casync_process_kill SIGKILL. A
   process that has ended is left alone, and no other gets the signal, whoever has its number by
   now.
   Returns: 0.
   Errors: -ESRCH if it has ended; CASYNC_INVALID_STATE if it was never started; -EINVAL for a bad
   signal; -EPERM. */
CASYNC_API int64_t casync_process_send_signal(casync_process *process, int signum);
CASYNC_API int64_t casync_process_terminate(casync_process *process);
CASYNC_API int64_t casync_process_kill(casync_process *process);

/* What a process wrote. */
typedef struct casync_process_output {
    casync_buffer out, err;
    casync_allocator allocator; /* private */
} casync_process_output;

/* Writes all of `input` to process->in and closes it, reads process->out and err to their ends, and
   waits for the process: asyncio's communicate. Pipes that are not open are left out. A child that
   does not read its input is no error. `limit`: bytes of out, and of err, at most; 0: any number.
   Returns: what casync_process_wait returns; *output has the bytes, which `output` may be NULL to
   drop.
   Errors: CASYNC_LIMIT_OVERRUN; those of casync_read and casync_process_wait; -ENOMEM;
   casync_process_communicate_timeout -ETIMEDOUT. The process goes on then, and *output has what
   came until then.
   Lifetime: the memory of *output is the loop's allocator's until casync_process_output_free. */
CASYNC_WAITS int64_t casync_process_communicate(casync_process *process, casync_span input,
                                                casync_process_output *output, size_t limit);
CASYNC_WAITS int64_t casync_process_communicate_timeout(casync_process *process, casync_span input,
                                                        casync_process_output *output, size_t limit,
                                                        int64_t timeout);
CASYNC_API void casync_process_output_free(casync_process_output *output);

/* Ends the use of a process. Its streams are closed; it goes on by itself, and is reaped when it
   ends, for which the loop does not keep running. A loop that closes before kills it where it has a
   pidfd, unless desc.detached is set. A closed process may be closed again.
   Lifetime: the struct is yours when this returns. */
CASYNC_API void casync_process_close(casync_process *process);

/* Waits for the end of any process, also of one that is no child of this one. Its status is told to
   its parent alone.
   Returns: 0.
   Errors: -ESRCH if there is none; -EINVAL for a bad number; -ENOMEM.
   Cost: a pidfd. Where there is none, the process is looked for every 100 ms. */
CASYNC_WAITS int64_t casync_wait_pid(int pid);
CASYNC_API casync_future *casync_wait_pid_op(casync_loop *loop, casync_op *op, int pid);

/* >> files (API) ------------------------------------------------------------------------------- */

/* The kernel has no way to wait for a regular file, so each of these functions calls the one of its
   name in POSIX in a thread of the loop's default pool. What they have in common:
   - Errors are those of the system call, those of casync_run_in_executor, and -EINVAL for what is
     missing: "those of files".
   - Paths and data are copied. Results are written to your memory when the call is done and not
     after: if you cancel it, or close the op, the memory is yours at once, and what the thread has
     is dropped. A descriptor that was opened for nobody is closed, and a temporary file removed.
     What changes a file may still happen after it was cancelled, and a close does.
   - The cost is that of casync_run_in_executor; data is copied once. */

/* Opens a file: open(2), with O_CLOEXEC; casync_file_close closes one: close(2).
   Returns: casync_file_open the descriptor, casync_file_close 0.
   Errors: those of files. */
CASYNC_WAITS int64_t casync_file_open(const char *path, int flags, int mode);
CASYNC_API casync_future *casync_file_open_op(casync_loop *loop, casync_op *op, const char *path,
                                              int flags, int mode);
CASYNC_WAITS int64_t casync_file_close(int fd);
CASYNC_API casync_future *casync_file_close_op(casync_loop *loop, casync_op *op, int fd);

/* Reads or writes a part of a file: casync_file_read and casync_file_write at its position,
   casync_file_pread and casync_file_pwrite at `offset`. A call takes 1 MiB at most.
   Returns: how many bytes, which may be fewer than `size`; 0 at the end of the file.
   Errors: those of files. */
CASYNC_WAITS int64_t casync_file_read(int fd, void *buffer, size_t size);
CASYNC_API casync_future *casync_file_read_op(casync_loop *loop, casync_op *op, int fd,
                                              void *buffer, size_t size);
CASYNC_WAITS int64_t casync_file_pread(int fd, void *buffer, size_t size, int64_t offset);
CASYNC_API casync_future *casync_file_pread_op(casync_loop *loop, casync_op *op, int fd,
                                               void *buffer, size_t size, int64_t offset);
CASYNC_WAITS int64_t casync_file_write(int fd, const void *data, size_t size);
CASYNC_API casync_future *casync_file_write_op(casync_loop *loop, casync_op *op, int fd,
                                               const void *data, size_t size);
CASYNC_WAITS int64_t casync_file_pwrite(int fd, const void *data, size_t size, int64_t offset);
CASYNC_API casync_future *casync_file_pwrite_op(casync_loop *loop, casync_op *op, int fd,
                                                const void *data, size_t size, int64_t offset);

/* Waits until a file is on its disk: fsync(2); casync_file_datasync leaves out what is not needed
   to read it: fdatasync(2).
   Returns: 0.
   Errors: those of files. */
CASYNC_WAITS int64_t casync_file_sync(int fd);
CASYNC_API casync_future *casync_file_sync_op(casync_loop *loop, casync_op *op, int fd);
CASYNC_WAITS int64_t casync_file_datasync(int fd);
CASYNC_API casync_future *casync_file_datasync_op(casync_loop *loop, casync_op *op, int fd);

/* Sets the size of a file: ftruncate(2).
   Returns: 0.
   Errors: those of files. */
CASYNC_WAITS int64_t casync_file_truncate(int fd, int64_t size);
CASYNC_API casync_future *casync_file_truncate_op(casync_loop *loop, casync_op *op, int fd,
                                                  int64_t size);

/* What stat(2) tells, the same on every processor. */
typedef struct casync_file_status {
    uint64_t device, inode, special_device;
    uint32_t mode; /* type and permissions: S_ISREG(mode) */
    uint32_t user, group;
    uint64_t links;
    int64_t size;                        /* bytes */
    int64_t allocated;                   /* bytes that it takes on disk */
    int64_t accessed, modified, changed; /* nanoseconds since 1970, or the nearest there is */
} casync_file_status;

/* Tells what a file is: stat(2); casync_file_lstat of a symbolic link itself, casync_file_fstat of
   an open file.
   Returns: 0; the answer is in *status.
   Errors: those of files. */
CASYNC_WAITS int64_t casync_file_stat(const char *path, casync_file_status *status);
CASYNC_API casync_future *casync_file_stat_op(casync_loop *loop, casync_op *op, const char *path,
                                              casync_file_status *status);
CASYNC_WAITS int64_t casync_file_lstat(const char *path, casync_file_status *status);
CASYNC_API casync_future *casync_file_lstat_op(casync_loop *loop, casync_op *op, const char *path,
                                               casync_file_status *status);
CASYNC_WAITS int64_t casync_file_fstat(int fd, casync_file_status *status);
CASYNC_API casync_future *casync_file_fstat_op(casync_loop *loop, casync_op *op, int fd,
                                               casync_file_status *status);

/* Changes what a directory holds: rename(2); casync_file_link, casync_file_symlink,
   casync_file_unlink, casync_file_mkdir, casync_file_rmdir and casync_file_chmod by their calls.
   Returns: 0.
   Errors: those of files. */
CASYNC_WAITS int64_t casync_file_rename(const char *from, const char *to);
CASYNC_API casync_future *casync_file_rename_op(casync_loop *loop, casync_op *op, const char *from,
                                                const char *to);
CASYNC_WAITS int64_t casync_file_link(const char *from, const char *to);
CASYNC_API casync_future *casync_file_link_op(casync_loop *loop, casync_op *op, const char *from,
                                              const char *to);
CASYNC_WAITS int64_t casync_file_symlink(const char *from, const char *to);
CASYNC_API casync_future *casync_file_symlink_op(casync_loop *loop, casync_op *op, const char *from,
                                                 const char *to);
CASYNC_WAITS int64_t casync_file_unlink(const char *path);
CASYNC_API casync_future *casync_file_unlink_op(casync_loop *loop, casync_op *op, const char *path);
CASYNC_WAITS int64_t casync_file_mkdir(const char *path, int mode);
CASYNC_API casync_future *casync_file_mkdir_op(casync_loop *loop, casync_op *op, const char *path,
                                               int mode);
CASYNC_WAITS int64_t casync_file_rmdir(const char *path);
CASYNC_API casync_future *casync_file_rmdir_op(casync_loop *loop, casync_op *op, const char *path);
CASYNC_WAITS int64_t casync_file_chmod(const char *path, int mode);
CASYNC_API casync_future *casync_file_chmod_op(casync_loop *loop, casync_op *op, const char *path,
                                               int mode);

/* Tells where a symbolic link leads: readlink(2); casync_file_realpath the absolute path without
   any link: realpath(3).
   Returns: the length of the text in `buffer`, without its final zero.
   Errors: those of files; -ENAMETOOLONG if it has no room in `size` bytes. */
CASYNC_WAITS int64_t casync_file_readlink(const char *path, char *buffer, size_t size);
CASYNC_API casync_future *casync_file_readlink_op(casync_loop *loop, casync_op *op,
                                                  const char *path, char *buffer, size_t size);
CASYNC_WAITS int64_t casync_file_realpath(const char *path, char *buffer, size_t size);
CASYNC_API casync_future *casync_file_realpath_op(casync_loop *loop, casync_op *op,
                                                  const char *path, char *buffer, size_t size);

/* Makes a file of a new name: mkstemp(3), with O_CLOEXEC; casync_file_mkdtemp a directory. The last
   six characters of `path` are XXXXXX, and become the name when this is done.
   Returns: casync_file_mkstemp the descriptor, casync_file_mkdtemp 0.
   Errors: those of files. */
CASYNC_WAITS int64_t casync_file_mkstemp(char *path);
CASYNC_API casync_future *casync_file_mkstemp_op(casync_loop *loop, casync_op *op, char *path);
CASYNC_WAITS int64_t casync_file_mkdtemp(char *path);
CASYNC_API casync_future *casync_file_mkdtemp_op(casync_loop *loop, casync_op *op, char *path);

/* What a directory holds, in no order; without "." and "..". */
typedef struct casync_file_entry {
    const char *name;
    int type; /* DT_REG, DT_DIR and so on of readdir(3); DT_UNKNOWN on some file systems */
} casync_file_entry;
typedef struct casync_file_entries {
    size_t count;
    casync_file_entry *entries;
    casync_allocator allocator; /* private */
} casync_file_entries;

/* Lists a directory: scandir(3).
   Returns: how many entries; they are in *entries.
   Errors: those of files; -ENOMEM.
   Lifetime: the memory is the loop's allocator's until casync_file_entries_free. */
CASYNC_WAITS int64_t casync_file_scandir(const char *path, casync_file_entries *entries);
CASYNC_API casync_future *casync_file_scandir_op(casync_loop *loop, casync_op *op, const char *path,
                                                 casync_file_entries *entries);

/* Frees what casync_file_scandir found, and zeroes *entries. */
CASYNC_API void casync_file_entries_free(casync_file_entries *entries);

/* All of a file. */
typedef struct casync_file_data {
    void *ptr; /* len bytes, and a zero behind them */
    size_t len;
    casync_allocator allocator; /* private */
} casync_file_data;

/* Reads a whole file.
   Returns: how many bytes; they are in *data.
   Errors: those of files; CASYNC_LIMIT_OVERRUN if it has more bytes than `limit`, where 0 is any
   number; -ENOMEM.
   Lifetime: the memory is the loop's allocator's until casync_file_data_free. */
CASYNC_WAITS int64_t casync_file_read_all(const char *path, casync_file_data *data, size_t limit);
CASYNC_API casync_future *casync_file_read_all_op(casync_loop *loop, casync_op *op,
                                                  const char *path, casync_file_data *data,
                                                  size_t limit);

/* Frees what casync_file_read_all read, and zeroes *data. */
CASYNC_API void casync_file_data_free(casync_file_data *data);

enum casync_file_flags {
    CASYNC_FILE_ATOMIC = 1,   /* write to a new file, which then takes the name: others see the old
                                 content or the new, and a failure leaves the old */
    CASYNC_FILE_SYNC = 2,     /* wait until it is on disk; with ATOMIC its new name too */
    CASYNC_FILE_EXCLUSIVE = 4 /* -EEXIST if there is such a file */
};

/* Writes a whole file, which is made (with `mode`) or replaced; flags are of enum
   casync_file_flags.
   Returns: size.
   Errors: those of files. */
CASYNC_WAITS int64_t casync_file_write_all(const char *path, const void *data, size_t size,
                                           int mode, int flags);
CASYNC_API casync_future *casync_file_write_all_op(casync_loop *loop, casync_op *op,
                                                   const char *path, const void *data, size_t size,
                                                   int mode, int flags);

/* Sends `count` bytes of a file, from `offset` on, by a stream: asyncio's loop.sendfile. With count
   0 it sends the file to its end. The bytes come after what is queued; until they are sent nothing
   else can be written (-EBUSY), as in asyncio. The kernel sends them without a copy (sendfile(2)),
   and reads the disk if they are not in memory; where it cannot, or the stream has a filter,
   casync_sendfile reads them in a thread and writes them.
   Returns: how many bytes were sent; fewer than `count` at the end of the file. After an error,
   op.done says how many.
   Errors: those of casync_write_all, casync_file_pread and sendfile(2); -EBUSY while a write_all or
   another sendfile of this stream goes on; casync_sendfile_op -EOPNOTSUPP if the stream has a
   filter, and -EINVAL for a file of which the kernel cannot send.
   Lifetime: the descriptor stays yours, and open until this is done. */
CASYNC_WAITS int64_t casync_sendfile(casync_stream *stream, int fd, int64_t offset, int64_t count);
CASYNC_API casync_future *casync_sendfile_op(casync_stream *stream, casync_op *op, int fd,
                                             int64_t offset, int64_t count);

/* Copies a file, with its permissions: by reference where the file system can (FICLONE), else by
   copy_file_range(2), else through memory. Flags: CASYNC_FILE_SYNC, CASYNC_FILE_EXCLUSIVE.
   Returns: its size in bytes.
   Errors: those of files; -EINVAL for a copy to itself. A copy that fails may leave a part. */
CASYNC_WAITS int64_t casync_file_copy(const char *from, const char *to, int flags);
CASYNC_API casync_future *casync_file_copy_op(casync_loop *loop, casync_op *op, const char *from,
                                              const char *to, int flags);

/* >> watches (API) ----------------------------------------------------------------------------- */

/* What happened to a file or directory. */
enum casync_change_kind {
    CASYNC_CHANGE_CREATED,    /* or moved here from outside, or put in the place of another */
    CASYNC_CHANGE_MODIFIED,   /* its content */
    CASYNC_CHANGE_WRITTEN,    /* who wrote it has closed it */
    CASYNC_CHANGE_ATTRIBUTES, /* permissions, owner, times, links */
    CASYNC_CHANGE_REMOVED,    /* or moved away from what is watched */
    CASYNC_CHANGE_RENAMED,    /* from old_path to path */
    CASYNC_CHANGE_OVERFLOW    /* the kernel lost events: look at everything yourself */
};

typedef struct casync_change {
    int kind;             /* enum casync_change_kind */
    bool directory;       /* it is one */
    const char *path;     /* that of the desc; of an entry with a slash and its name behind */
    const char *old_path; /* of CASYNC_CHANGE_RENAMED, else NULL */
} casync_change;

typedef struct casync_watch_desc {
    const char *path;
    bool recursive; /* a directory with all below it, also what is made later */
    /* Called with each change; the strings live as long as the call. It may stop the watch. NULL:
       take the changes by casync_watch_next. */
    void (*changed)(casync_watch *watch, const casync_change *change);
    void *user; /* watch->user */
} casync_watch_desc;

/* A watch of files by inotify(7). It is yours, zeroed before its first use. */
struct casync_watch {
    void *user;                  /* yours */
    struct casync__watch *state; /* private: while it watches */
};

/* Starts to watch a file or a directory. A file is followed by its name: it may be removed and made
   again, or be replaced (`tail -F`), and need not exist yet; its directory must. Of a directory the
   changes of its entries are told, and its own removal, which is the last that is told. What is in
   a new directory of a recursive watch is told as created: some of it perhaps twice, none never.
   Directories below the path that may not be read are passed over. A symbolic link to a file is
   watched itself. If a directory above is renamed, nothing is told and paths keep the old name.
   What other hosts change on a network file system, and writes by mmap(2), are not told
   (inotify(7)).
   Returns: 0.
   Errors: -EALREADY if it watches; -ENOENT; -ENOTDIR; -EACCES; -EMFILE and -ENOSPC if the kernel
   has no more inotify instances or watches for this user (/proc/sys/fs/inotify); -EINVAL; -ENOMEM.
   Lifetime: the watch is yours and stays where it is until casync_watch_stop, also after the last
   removal. The desc is copied. A relative path is looked up again whenever a directory comes: do
   not change the working directory meanwhile.
   Cost: an inotify instance each, of which a user has 128 in all processes by default: watch one
   tree rather than many directories. Recursive: each directory is read, in the loop's thread. */
CASYNC_API int64_t casync_watch_start(casync_loop *loop, casync_watch *watch,
                                      const casync_watch_desc *desc);

/* Waits for the next change. Changes that came before are kept, in their order: a thousand, and
   then the kernel keeps some, and tells of an overflow.
   Returns: 0; *change has it, whose strings live until the next call or casync_watch_stop.
   Errors: CASYNC_EOF after the directory was removed; CASYNC_INVALID_STATE if the watch is not
   started or has a callback; -EBUSY if another task waits; -ECONNABORTED if it is stopped; -ENOMEM
   if a change was lost for want of memory; others, such as -ENOSPC, if a new directory could not be
   watched. */
CASYNC_WAITS int64_t casync_watch_next(casync_watch *watch, casync_change *change);
CASYNC_API casync_future *casync_watch_next_op(casync_watch *watch, casync_op *op,
                                               casync_change *change);

/* Ends a watch. No call follows. A watch that is not started may be stopped. */
CASYNC_API void casync_watch_stop(casync_watch *watch);

/* >> TLS (API) --------------------------------------------------------------------------------- */

#ifdef CASYNC_OPENSSL

/* Certificates, keys, and how to judge those of peers: OpenSSL's SSL_CTX. It may serve any number
   of connections in any threads, and goes with the last of them. */
typedef struct casync_tls_context casync_tls_context;

/* Zero means the default in every member. Files and texts are PEM. */
typedef struct casync_tls_context_desc {
    bool server;
    const char *certificate_file; /* with its chain */
    const char *key_file;
    const char *certificate, *key;      /* the same as texts, instead of files */
    const char *ca_file, *ca_directory; /* whom to trust; default: the system's */
    const char *ca;                     /* the same as a text */
    bool no_verify;                     /* client: take any certificate, of anyone */
    bool verify_client;                 /* server: demand a certificate of the client */
    const char *const *protocols; /* ALPN: what is spoken inside, the best first, NULL at the end */
    bool only_tls13;              /* default: 1.2 and newer */
    /* Server: the context for the name that the client asks for (SNI); NULL is this one. */
    casync_tls_context *(*choose)(const char *server_name, void *arg);
    void *arg;
    char *errors; /* room for OpenSSL's words if this fails, or NULL */
    size_t errors_size;
} casync_tls_context_desc;

/* Makes a context.
   Returns: 0.
   Errors: CASYNC_TLS_FAILED for certificates and keys that cannot be used; -EINVAL; -ENOMEM.
   Lifetime: the context is yours until casync_tls_context_release; the desc is read during the
   call, but for arg. */
CASYNC_API int64_t casync_tls_context_make(casync_tls_context **context,
                                           const casync_tls_context_desc *desc);

/* Gives a context back. Connections that use it go on. */
CASYNC_API void casync_tls_context_release(casync_tls_context *context);

typedef struct casync_tls_desc {
    casync_tls_context *context;
    /* Client: who the server must be, a name or an address; sent to it too (SNI). It may be left
       out only with no_verify. */
    const char *server_name;
    int64_t handshake_timeout; /* nanoseconds; default: 60 s; CASYNC_FOREVER: none */
    char *errors;              /* room for OpenSSL's words if the handshake fails, or NULL */
    size_t errors_size;
} casync_tls_desc;

/* Puts TLS into a connected stream, and waits for the handshake: asyncio's loop.start_tls. What is
   read and written from then on is what is inside; finish and write_eof send a close_notify, and a
   peer that ends without one is CASYNC_INCOMPLETE_READ. Bytes that were read ahead are taken as
   the peer's TLS, never as data.
   Returns: 0.
   Errors: CASYNC_TLS_FAILED, of which desc.errors says more; -ETIMEDOUT; CASYNC_INVALID_STATE if
   the stream is not connected or has a filter; what ended the stream; -EINVAL; -ENOMEM. The stream
   has ended then, and so it has if this is cancelled.
   Lifetime: the desc is read during the call, but desc.errors is written until this is done. */
CASYNC_WAITS int64_t casync_start_tls(casync_stream *stream, const casync_tls_desc *desc);
CASYNC_API casync_future *casync_start_tls_op(casync_stream *stream, casync_op *op,
                                              const casync_tls_desc *desc);

typedef struct casync_tls_info {
    const char *version, *cipher; /* "TLSv1.3", "TLS_AES_256_GCM_SHA384" */
    const char *protocol;         /* of ALPN, or NULL */
    bool resumed;                 /* a session of an earlier connection */
    const void *peer_certificate; /* an X509 of OpenSSL's, or NULL */
    char protocol_text[256];      /* private */
} casync_tls_info;

/* Tells about the TLS of a stream.
   Returns: 0.
   Errors: CASYNC_INVALID_STATE if it has none, or the handshake is not over.
   Lifetime: what *info points to lives as long as the stream is open. */
CASYNC_API int64_t casync_tls_info_of(const casync_stream *stream, casync_tls_info *info);

#endif /* CASYNC_OPENSSL */

/* >> metrics & dump (API) ---------------------------------------------------------------------- */

/* What a loop has done since it was made. */
typedef struct casync_metrics {
    uint64_t turns;     /* turns of the loop */
    uint64_t polls;     /* of these, those that asked the kernel for events */
    uint64_t events;    /* descriptors that the kernel said were ready */
    uint64_t callbacks; /* called from the ready queue in turns that are over: jobs, timers,
                           steps of tasks; up to 60 calls that another thread posted without a
                           job are one */
    uint64_t tasks;     /* tasks that are not done */
    /* nanoseconds; with casync_loop_desc.metrics, else 0 */
    int64_t idle_time;    /* spent waiting in the kernel */
    int64_t busy_time;    /* spent in callbacks, hooks aside */
    int64_t longest_turn; /* the most spent in one turn's callbacks: how late a callback may have
                             been */
} casync_metrics;

/* Copies the loop's numbers.
   Cost: a walk over the tasks. */
CASYNC_API void casync_loop_metrics(const casync_loop *loop, casync_metrics *metrics);

/* Writes to a descriptor what every live task of the loop waits for and which task awaits it; the
   tasks that failed and whose handles nobody has asked or released; the streams, servers and
   datagram sockets that are open; and how many calls the default pool has.
   Returns: 0.
   Errors: those of write(2). */
CASYNC_API int64_t casync_dump(casync_loop *loop, int fd);

/* Calls casync_dump for stderr whenever the signal comes, SIGUSR1 for example. casync_signal_stop
   ends it. It does not keep casync_run_until_idle running.
   Returns: 0.
   Errors: those of casync_signal_start.
   Lifetime: the watcher as in casync_signal_start. */
CASYNC_API int64_t casync_dump_on_signal(casync_loop *loop, casync_signal *watcher, int signum);

/* >> loop (API) -------------------------------------------------------------------------------- */

typedef struct casync_loop_desc {
    casync_allocator allocator; /* default: CASYNC_REALLOC and CASYNC_FREE */
    int clock;                  /* enum casync_clock */
    size_t stack_size;          /* of tasks that do not say; default 64 KiB: see casync_task_desc */
    bool metrics;               /* measure time for casync_loop_metrics: two readings of the
                                   clock a turn, and two a wait */
    /* The process's signals belong to its host: see casync_signal_start. */
    bool guest;
    /* Watch signals by handlers, and block none: see casync_signal_start. */
    bool signal_handlers;
    bool no_overflow_report; /* casync_run: leave SIGSEGV and SIGBUS alone */
    /* Calls come from any thread, each under a lock of the caller's that before_wait drops and
       after_wait takes, so no assertion looks at the thread. A thread other than the loop's calls
       casync_wake after it queued something. */
    bool locked;
    casync_exception_handler exception_handler; /* default: a line on stderr */
    /* Called directly before and after the system call that waits, so that a host can drop a lock
       while the loop sleeps. They must not touch the loop. timeout as in casync_loop_timeout. */
    void (*before_wait)(void *arg, int64_t timeout);
    void (*after_wait)(void *arg, int64_t timeout);
    void *arg; /* given to the three functions above */
} casync_loop_desc;

enum casync_loop_state {
    CASYNC_LOOP_CLOSED = 0, /* also before init */
    CASYNC_LOOP_INIT,       /* made, never run */
    CASYNC_LOOP_RUNNING,
    CASYNC_LOOP_STOPPED
};

/* A loop. You may read the members up to `exception_arg`. */
struct casync_loop {
    int state;      /* enum casync_loop_state */
    int clock;      /* enum casync_clock */
    uint64_t turns; /* turns run since init */
    uint64_t polls; /* of these, turns that asked the kernel for events */
    casync_allocator allocator;
    casync_exception_handler exception_handler;
    void (*before_wait)(void *arg, int64_t timeout);
    void (*after_wait)(void *arg, int64_t timeout);
    void *arg, *exception_arg;
    /* private from here on */
    bool stopping, breaking, closing, guest, signal_handlers, no_overflow_report, locked, measures;
    bool told_await_forbidden;  /* that a function which waits was called where nothing can */
    uint32_t empty_polls;       /* polls in a row that found nothing, since something was watched
                                   anew */
    uint32_t skipped_polls;     /* turns since the last poll */
    uint64_t events, callbacks; /* see casync_metrics */
    int64_t idle_time, busy_time, longest_turn;
    int64_t active; /* referenced timers, watchers and signals: what keeps the loop running */
    int64_t now, last_poll, last_reading; /* of the clock */
    bool short_turns;                     /* little time passed between the last two readings */
    bool rebuild_failed;                  /* an epoll instance in place of one with stale events */
    casync_link ready;                    /* jobs for the next turn */
    casync_link running;                  /* jobs of this turn that have not run yet */
    casync_link free_jobs;                /* to be lent for a NULL job or timer */
    struct casync__job_slab *job_slabs;
    casync_link hooks[3];
    casync_wheel wheel;
    const struct casync__backend *backend;
    int backend_fd, wakeup_fd;
    struct casync__fd_row *fds; /* what watches which descriptor, by number */
    uint32_t fds_size, fds_active;
    casync_link changed; /* watchers whose interest the kernel does not know yet */
    void *posted;        /* casync_job: from other threads, last first */
    void *mailbox;       /* casync__mailbox: what other threads posted without a job, or NULL */
    uint32_t sleeping;   /* the loop waits, or may be waiting, in the kernel */
    uint32_t woken;      /* casync_wake was called since the last wait: the next is none */
    uint32_t fork_generation;

    casync_task *task;             /* the one that runs, or NULL */
    casync_link tasks;             /* all that are not done */
    casync_link groups;            /* open task groups */
    struct casync__stacks *stacks; /* of stackful tasks; NULL before the first */
    size_t stack_size;
    casync_task *outer_task;                   /* what loop->outer was running */
    struct casync__cpp_exceptions *exceptions; /* of C++, in the thread that runs the loop; NULL if
                                              it has none */

    struct casync__weakref *weakrefs; /* objects whose callback is running */
    uint8_t *scratch;                 /* where streams read to; shared by all of the loop's */
    uint8_t *datagram_area;           /* the same for datagrams */
    struct casync__signals *signals;
    casync_link calls;             /* what it waits for in pools of threads */
    struct casync__pool *executor; /* the default pool, or NULL */
    uint32_t posting;              /* pools' threads that are about to post */
    bool executor_shut_down;
    casync_link clients;         /* casync__clients by link: of servers that are open, or whose
                            connections are */
    uint32_t finishing;          /* connections that the library finishes for their tasks */
    casync_link children;        /* casync__process_child by link: processes that have not ended */
    struct casync__pool *reaper; /* threads that wait for processes, or NULL: pidfds are enough */
    casync_loop *outer;          /* the loop this thread ran before this one */
};

/* Makes a loop in *loop, whatever was there; desc may be NULL.
   Returns: 0.
   Errors: -EMFILE; -ENFILE; -ENOMEM; -EINVAL for an unknown clock.
   Call from: the thread that will run the loop.
   Lifetime: the loop is yours and stays where it is until casync_loop_close.
   Cost: an epoll and an eventfd, and no memory beside the struct. */
CASYNC_API int64_t casync_loop_init(casync_loop *loop, const casync_loop_desc *desc);

/* Ends a loop. Its jobs, timers, watchers, signals and stackless tasks are dropped without a call,
   and their structs may go. Close its streams, servers and datagram sockets before, which own
   descriptors and memory, and let its stackful tasks end. The memory of tasks whose handles were
   never released goes with the loop, and the exception handler is told of a failure of theirs that
   nobody retrieved. A closed loop may be closed again.
   Returns: 0.
   Errors: CASYNC_STILL_OPEN if a stream, server, datagram socket or stackful task is left:
   casync_dump names them; -EBUSY if the loop is running. */
CASYNC_API int64_t casync_loop_close(casync_loop *loop);

/* Runs turns until casync_stop.
   Returns: 0.
   Errors: -EBUSY inside the same loop's callbacks or while another thread runs it; -EINVAL if the
   loop is closed; -ECHILD in a forked child before casync_loop_fork; others if the kernel refuses
   to wait (epoll_wait(2)). */
CASYNC_API int64_t casync_run_forever(casync_loop *loop);

/* Runs turns until casync_stop, or until nothing is left that could run: no job, no call in a pool,
   no idle hook, and no referenced timer, watcher, signal, stream, server or datagram socket.
   Returns: 0.
   Errors: those of casync_run_forever. */
CASYNC_API int64_t casync_run_until_idle(casync_loop *loop);

/* Runs turns until the future is done. Its result counts as retrieved.
   Returns: the future's result.
   Errors: the future's error; CASYNC_INVALID_STATE if the loop was stopped before: the future goes
   on; those of casync_run_forever. */
CASYNC_API int64_t casync_run_until_complete(casync_future *future);

/* Runs one turn. It waits for something to do, unless nothing is left to wait for.
   Returns: 0.
   Errors: those of casync_run_forever. */
CASYNC_API int64_t casync_run_once(casync_loop *loop);

/* Runs one turn without waiting.
   Returns: 0.
   Errors: those of casync_run_forever. */
CASYNC_API int64_t casync_run_nowait(casync_loop *loop);

/* Ends the run after the present turn. Called before a run, it lets that run do one turn. This is
   asyncio's loop.stop(). */
CASYNC_API void casync_stop(casync_loop *loop);

/* Ends the run as soon as the callback that is running returns. What has not run stays queued, in
   its order, for the next run. */
CASYNC_API void casync_break(casync_loop *loop);

/* Tells whether casync_run_until_idle would go on.
   Returns: true if so. */
CASYNC_API bool casync_loop_alive(const casync_loop *loop);

/* Tells whether the next turn has work that is ready: a job, or a post of another thread.
   Returns: true if so. */
CASYNC_API bool casync_loop_ready(casync_loop *loop);

/* Tells which loop this thread is running.
   Returns: the loop, or NULL.
   Call from: any thread. */
CASYNC_API casync_loop *casync_get_running_loop(void);

/* When a hook is called, in every turn: before or after the poll, even if the poll is skipped; or,
   for an idle hook, when the turn begins with nothing ready to run. An idle hook keeps the loop
   from waiting. */
enum casync_hook_kind { CASYNC_HOOK_BEFORE_POLL, CASYNC_HOOK_AFTER_POLL, CASYNC_HOOK_IDLE };

/* A callback that is called in every turn. It is yours, zeroed before its first use. */
typedef struct casync_hook {
    casync_job job;
    int kind, priority;
} casync_hook;

/* Adds a hook. Hooks of higher priority run first, equal ones in the order in which they were
   started. Hooks do not keep the loop running, except idle hooks. A hook that is started while its
   kind runs is first called in the next turn.
   Returns: 0.
   Errors: -EALREADY if it is started; -EINVAL for a closed loop, an unknown kind or a NULL
   callback.
   Lifetime: the hook is yours and stays where it is until it is stopped. */
CASYNC_API int64_t casync_hook_start(casync_loop *loop, casync_hook *hook, int kind, int priority,
                                     casync_callback callback, void *arg);

/* Ends a hook. No call follows.
   Returns: 1, or 0 if it was not started.
   Errors: none. */
CASYNC_API int64_t casync_hook_stop(casync_hook *hook);

/* What casync_walk can find. */
enum casync_kind {
    CASYNC_KIND_JOB,      /* casync_job */
    CASYNC_KIND_TIMER,    /* casync_timer */
    CASYNC_KIND_HOOK,     /* casync_hook */
    CASYNC_KIND_WATCHER,  /* casync_watcher */
    CASYNC_KIND_SIGNAL,   /* casync_signal */
    CASYNC_KIND_STREAM,   /* casync_stream */
    CASYNC_KIND_SERVER,   /* casync_server */
    CASYNC_KIND_TASK,     /* casync_task */
    CASYNC_KIND_DATAGRAM, /* casync_datagram */
    CASYNC_KIND_PROCESS,  /* casync_process */
    CASYNC_KIND_WATCH     /* casync_watch */
};

/* Visits every live object of the loop, except jobs that wait in a future and calls that
   casync_call_soon_threadsafe keeps without a job; called in a hook, it leaves out the hooks that
   run after that one. The visitor must not start or stop anything: collect first, act
   afterwards. */
CASYNC_API void casync_walk(casync_loop *loop, void (*visit)(int kind, void *object, void *arg),
                            void *arg);

/* Sets the handler of errors that nobody awaits; NULL restores the default, which prints a line on
   stderr. */
CASYNC_API void casync_set_exception_handler(casync_loop *loop, casync_exception_handler handler,
                                             void *arg);

/* Hosts the loop in a foreign loop: wait until the descriptor of casync_loop_fd is readable or the
   time of casync_loop_timeout has passed, call casync_run_nowait, and so on. Call
   casync_loop_timeout anew before each wait, since it also tells the kernel which descriptors are
   watched.
   Returns: casync_loop_fd a descriptor that stays the loop's; casync_loop_timeout nanoseconds,
   which may be early and are never late: 0 if there is something to do at once, CASYNC_FOREVER if
   only an event can wake the loop.
   Errors: -EINVAL if the loop is closed. */
CASYNC_API int casync_loop_fd(const casync_loop *loop);
CASYNC_API int64_t casync_loop_timeout(casync_loop *loop);

/* Gives a loop that a forked child inherited a backend of its own, and registers all that was
   watched. The parent's loop is not touched. It does nothing where no fork happened.
   Returns: 0.
   Errors: those of casync_loop_init; the loop can only be closed then, or asked again. */
CASYNC_API int64_t casync_loop_fork(casync_loop *loop);

/* >> casync_run (API) -------------------------------------------------------------------------- */

/* Makes a loop and runs the coroutine as its first task: asyncio.run. Then it cancels the tasks
   that are left, waits for them and for the calls in the default pool, and closes what is open and
   the loop. Connections that tasks served are finished before the loop is closed, within
   casync_listen_desc.finish_timeout. If this end takes more than a second, casync_dump writes to
   stderr, once, what it waits for. casync_run_with takes the loop's desc. A stack overflow ends the
   process with the name of the task while this runs, as after casync_report_overflow; but not with
   desc.guest or desc.no_overflow_report, under a sanitizer, or where SIGSEGV has a handler already.
   Returns: the coroutine's result.
   Errors: the coroutine's; those of casync_loop_init, casync_spawn_with and casync_run_forever.
   Lifetime: stop or close what lies on the coroutine's stack (timers, streams, ...) before it
   returns. */
CASYNC_API int64_t casync_run(casync_coroutine coroutine, void *arg);
CASYNC_API int64_t casync_run_with(const casync_loop_desc *desc, casync_coroutine coroutine,
                                   void *arg);

/* Installs handlers for SIGSEGV and SIGBUS, and an alternate stack for this thread: a stack
   overflow of a task then ends the process with a message that names the task. Other faults go
   where they went before. casync_run does this by itself.
   Returns: 0.
   Errors: -ENOMEM; -ENOSYS with CASYNC_NO_STACKFUL.
   Call from: each thread that runs tasks. */
CASYNC_API int64_t casync_report_overflow(void);

#ifdef __cplusplus
}
#endif

/* An extension module of Python that is to work on the loops of the package casync, not on a copy
   of the library: its calls go through the package's table (casync.get_include() has the file). */
#ifdef CASYNC_IMPORT
#ifdef CASYNC_IMPLEMENTATION
#error "casync.h: CASYNC_IMPORT takes the Python package's implementation: no CASYNC_IMPLEMENTATION"
#endif
#include "casync_import.h"
#endif

#endif /* CASYNC_H */

/* ============================================================================================== */
/*                                       IMPLEMENTATION                                           */
/* ============================================================================================== */

#if defined(CASYNC_IMPLEMENTATION) && !defined(CASYNC_IMPLEMENTATION_DONE)
#define CASYNC_IMPLEMENTATION_DONE

/* Glossary. A private name is casync__NOUN_rest. The noun is a word of its section's banner, or
   one of the words below. Each word means one thing in the whole implementation.

     atomic      a load, store or exchange of one word, between threads
     await       a task's wait for one future, and whether it may wait where it stands
     barrier     asyncio.Barrier
     clients     what a server knows of its connections; it outlives the server
     completion  the futures of casync_as_completed, one by one as they are done
     condition   asyncio.Condition
     connection  the record of one stream that a server made, with the user's memory behind it
     container   the struct of which a given member is a part (Linux's container_of)
     context     the context variables of a task (Python's contextvars)
     cpp         what C++'s runtime keeps for a thread, exchanged with each switch of tasks
     direct      a system call itself, past the table that tests may put in its way
     epoll       the backend by epoll(7)
     exception   a report to the loop's exception handler; never a C++ exception
     executor    the loop's default thread pool (asyncio's run_in_executor)
     fault       SIGSEGV or SIGBUS, and the report that a task overflowed its stack
     fiber       a stackful task, with its stack and what it needs to be switched to
     framing     how frames are told apart in a stream of bytes
     gather      asyncio.gather
     generator   a coroutine that gives values one by one
     group       a task group, or its record
     hook        a callback of each turn, before or after the poll or when idle
     input       bytes of a stream that were read from the descriptor and not yet asked for
     line        one line of text for people, in a report or in a dump
     linkage     whether the library's functions are external, or static with CASYNC_STATIC
     list        a doubly linked ring of links that are members of what is listed
     lock        asyncio.Lock
     mailbox     the place in a loop for the functions that other threads post without a job
     memory      what the allocator or the kernel gives
     once        work that is done once, by the first task that needs it
     op          an operation: casync_op
     outbuf      the queue of bytes that wait to be sent, a ring of chunks
     queue       asyncio.Queue; the loop's ready queue is called ready
     rwlock      a lock for many readers or one writer
     shield      asyncio.shield
     span        a pointer and a length, as in the kernel's iovec
     sys         the seam to the kernel: one function for each system call
     timeout     a time limit that cancels its task (asyncio.timeout)
     turn        one round of the loop: poll, queue what is ready and due, run the queue
     wait        what a task waits for: several futures (casync_wait, ...), or a descriptor
     weakref     a note on the C stack that learns when a callback closes its object */

/* >> config & compiler (implementation) -------------------------------------------------------- */

/* What differs between compilers and C libraries is here, and nowhere else: atomics, bit scans. So
   are the lists that everything is made of, and the allocator's two calls. */

#include <features.h>
#if !defined(__linux__)
#error "casync.h runs on Linux alone so far: its backend is epoll"
#endif
#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "casync.h: put `#define _GNU_SOURCE` before the first #include of the implementation's file"
#endif

#include <arpa/inet.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(CASYNC_REALLOC) != defined(CASYNC_FREE)
#error "casync.h: define both CASYNC_REALLOC and CASYNC_FREE, or neither"
#endif
#ifndef CASYNC_REALLOC
#define CASYNC_REALLOC(ptr, size) realloc(ptr, size)
#define CASYNC_FREE(ptr) free(ptr)
#endif
#ifndef CASYNC_ASSERT
#define CASYNC_ASSERT(condition) assert(condition)
#endif

#ifdef CASYNC_STATIC
#define CASYNC__LINKAGE CASYNC_API
#else
#define CASYNC__LINKAGE
#endif

#if defined(__GNUC__)
#define CASYNC__COMPILER_INLINE static inline __attribute__((always_inline))
#define CASYNC__COMPILER_NOINLINE static __attribute__((noinline))
#else
#define CASYNC__COMPILER_INLINE static inline
#define CASYNC__COMPILER_NOINLINE static
#endif

#if defined(__GNUC__)
#define CASYNC__COMPILER_PREFETCH(address) __builtin_prefetch(address)
#else
#define CASYNC__COMPILER_PREFETCH(address) ((void)(address))
#endif

/* Where a thread may be preempted in the middle of something: tests let other threads run here. */
#ifndef CASYNC__THREAD_PREEMPT
#define CASYNC__THREAD_PREEMPT(point) ((void)0)
#endif

#define casync__container(pointer, type, member)                                                   \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Atomics are sequentially consistent, but for the store, which releases: it is on hot paths where
   no later load must wait for it. */
#if defined(__GNUC__)

static inline uint32_t casync__atomic_load(uint32_t *p) {
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
static inline void casync__atomic_store(uint32_t *p, uint32_t value) {
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
}
static inline uint32_t casync__atomic_exchange(uint32_t *p, uint32_t value) {
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);
}
static inline bool casync__atomic_compare_exchange(uint32_t *p, uint32_t expected, uint32_t value) {
    return __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}
static inline uint64_t casync__atomic_or64(uint64_t *p, uint64_t bits) {
    return __atomic_fetch_or(p, bits, __ATOMIC_SEQ_CST);
}
static inline uint64_t casync__atomic_take64(uint64_t *p) {
    return __atomic_exchange_n(p, 0, __ATOMIC_SEQ_CST);
}
static inline uint32_t casync__atomic_add(uint32_t *p, uint32_t value) {
    return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}
static inline void *casync__atomic_load_pointer(void **p) {
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
static inline void *casync__atomic_take_pointer(void **p) {
    return __atomic_exchange_n(p, (void *)NULL, __ATOMIC_SEQ_CST);
}
static inline bool casync__atomic_compare_exchange_pointer(void **p, void *expected, void *value) {
    return __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}
static inline void casync__atomic_store_pointer(void **p, void *value) {
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
}
static inline int casync__compiler_lowest_bit(uint64_t bits) { return __builtin_ctzll(bits); }
static inline int casync__compiler_highest_bit(uint64_t bits) { return 63 - __builtin_clzll(bits); }

#elif defined(__TINYC__) && defined(__x86_64__)

/* tcc has neither builtins nor <stdatomic.h>. xchg with memory is locked by itself; a plain load of
   an aligned word is atomic on x86, and volatile keeps the compiler from caching it. */
static inline uint32_t casync__atomic_load(uint32_t *p) { return *(volatile uint32_t *)p; }
static inline void casync__atomic_store(uint32_t *p, uint32_t value) {
    *(volatile uint32_t *)p = value;
}
static inline uint32_t casync__atomic_exchange(uint32_t *p, uint32_t value) {
    __asm__ __volatile__("xchgl %0, %1" : "+r"(value), "+m"(*p) : : "memory");
    return value;
}
static inline bool casync__atomic_compare_exchange(uint32_t *p, uint32_t expected, uint32_t value) {
    uint32_t old;
    __asm__ __volatile__("lock cmpxchgl %2, %1"
                         : "=a"(old), "+m"(*p)
                         : "r"(value), "0"(expected)
                         : "memory");
    return old == expected;
}
static inline uint64_t casync__atomic_compare_exchange64(uint64_t *p, uint64_t expected,
                                                         uint64_t value) {
    uint64_t old;
    __asm__ __volatile__("lock cmpxchgq %2, %1"
                         : "=a"(old), "+m"(*p)
                         : "r"(value), "0"(expected)
                         : "memory");
    return old;
}
static inline uint64_t casync__atomic_or64(uint64_t *p, uint64_t bits) {
    uint64_t old = *(volatile uint64_t *)p, seen;
    while ((seen = casync__atomic_compare_exchange64(p, old, old | bits)) != old) old = seen;
    return old;
}
static inline uint64_t casync__atomic_take64(uint64_t *p) {
    uint64_t value = 0;
    __asm__ __volatile__("xchgq %0, %1" : "+r"(value), "+m"(*p) : : "memory");
    return value;
}
static inline uint32_t casync__atomic_add(uint32_t *p, uint32_t value) {
    __asm__ __volatile__("lock xaddl %0, %1" : "+r"(value), "+m"(*p) : : "memory");
    return value;
}
static inline void *casync__atomic_load_pointer(void **p) { return *(void *volatile *)p; }
static inline void *casync__atomic_take_pointer(void **p) {
    return (void *)casync__atomic_take64((uint64_t *)p);
}
static inline bool casync__atomic_compare_exchange_pointer(void **p, void *expected, void *value) {
    return casync__atomic_compare_exchange64((uint64_t *)p, (uint64_t)expected, (uint64_t)value) ==
           (uint64_t)expected;
}
static inline void casync__atomic_store_pointer(void **p, void *value) {
    *(void *volatile *)p = value;
}
static inline int casync__compiler_lowest_bit(uint64_t bits) {
    uint64_t index;
    __asm__("bsfq %1, %0" : "=r"(index) : "r"(bits));
    return (int)index;
}
static inline int casync__compiler_highest_bit(uint64_t bits) {
    uint64_t index;
    __asm__("bsrq %1, %0" : "=r"(index) : "r"(bits));
    return (int)index;
}

#else
#error "casync.h: this compiler is not known; gcc, clang, and tcc on x86-64 are"
#endif

static inline void casync__list_init(casync_link *list) { list->next = list->prev = list; }

static inline bool casync__list_is_empty(const casync_link *list) { return list->next == list; }

/* An operation on the stack of a task that waits for it is in a list, and leaves it before the wait
   is over, which gcc 12 and later cannot see: -Wdangling-pointer. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdangling-pointer"
#endif
static inline void casync__list_append(casync_link *list, casync_link *link) {
    link->next = list;
    link->prev = list->prev;
    list->prev->next = link;
    list->prev = link;
}

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic pop
#endif

static inline void casync__list_remove(casync_link *link) {
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = NULL;
}

/* Appends all of `from`, which becomes empty, to `list`. */
static inline void casync__list_move(casync_link *list, casync_link *from) {
    if (casync__list_is_empty(from)) return;
    from->next->prev = list->prev;
    list->prev->next = from->next;
    from->prev->next = list;
    list->prev = from->prev;
    casync__list_init(from);
}

static void *casync__memory_default(void *user, void *ptr, size_t size) {
    (void)user;
    if (size > 0) return CASYNC_REALLOC(ptr, size);
    CASYNC_FREE(ptr);
    return NULL;
}

static void *casync__memory_realloc(const casync_allocator *allocator, void *ptr, size_t size) {
    return allocator->function(allocator->user, ptr, size);
}

static void casync__memory_free(const casync_allocator *allocator, void *ptr) {
    if (ptr) (void)allocator->function(allocator->user, ptr, 0);
}

/* casync's own codes in words: X(code, text). */
#define CASYNC__CONFIG_ERRORS(X)                                                                   \
    X(EOF, "end of stream")                                                                        \
    X(INCOMPLETE_READ, "the stream ended inside what was to be read")                              \
    X(LIMIT_OVERRUN, "more bytes than the limit allows")                                           \
    X(INVALID_STATE, "the object's state does not allow this")                                     \
    X(QUEUE_SHUT_DOWN, "the queue is shut down")                                                   \
    X(BROKEN_BARRIER, "the barrier was reset or aborted")                                          \
    X(NOT_NUMERIC, "the host is a name, and an address in numbers is needed")                      \
    X(STILL_OPEN, "streams, servers, datagrams or tasks of the loop are still open")               \
    X(TLS_FAILED, "TLS failed")                                                                    \
    X(NO_STATUS, "the process ended, but other code took its status")                              \
    X(EAI_BADFLAGS, "bad flags for looking up a name")                                             \
    X(EAI_NONAME, "no such name or service")                                                       \
    X(EAI_AGAIN, "the name could not be looked up now: try again later")                           \
    X(EAI_FAIL, "the name cannot be looked up")                                                    \
    X(EAI_NODATA, "the name has no address of this family")                                        \
    X(EAI_FAMILY, "names are not looked up for this address family")                               \
    X(EAI_SOCKTYPE, "names are not looked up for this type of socket")                             \
    X(EAI_SERVICE, "no such service for this type of socket")                                      \
    X(EAI_ADDRFAMILY, "the host has no address of this family")                                    \
    X(EAI_OVERFLOW, "the name is too long")

#define CASYNC__CONFIG_ERROR_CASE(code, text)                                                      \
    case CASYNC_##code:                                                                            \
        return text;

CASYNC__LINKAGE const char *casync_strerror(int64_t error) {
    switch (error) {
        CASYNC__CONFIG_ERRORS(CASYNC__CONFIG_ERROR_CASE)
    default:
        break;
    }
    if (error >= 0) return "success";
    return error >= -4095 ? strerror((int)-error) : "unknown error";
}

/* >> system calls (implementation) ------------------------------------------------------------- */

/* The one seam to the kernel, and to the C library's looking up of names. Two things are outside of
   it: reading /proc by stdio, and looking up the names of interfaces. Each row of the list below
   becomes casync__sys_NAME, which returns the call's result or -errno, and repeats calls that a
   signal interrupted, but for those that wait. With CASYNC_SYSCALL_TABLE the calls go through
   casync_syscalls.NAME; without, they are inlined. */

/* tcc ignores the packed attribute of glibc's struct epoll_event, so on x86-64 its second event of
   a batch would be read from the wrong place. This is the kernel's layout for every compiler. */
#if defined(__x86_64__)
#pragma pack(push, 1)
#endif
typedef struct casync__epoll_event {
    uint32_t events;
    uint64_t data;
} casync__epoll_event;
#if defined(__x86_64__)
#pragma pack(pop)
typedef char casync__epoll_event_has_the_kernels_size[sizeof(casync__epoll_event) == 12 ? 1 : -1];
#endif

/* epoll_pwait2(2), Linux 5.11, takes nanoseconds; C libraries and headers of the time lack it. Its
   number is the same everywhere but on alpha, which has no C library with the 64-bit time it
   takes. */
#define CASYNC__SYS_EPOLL_PWAIT2 441
/* pwritev2(2) without SIGPIPE, Linux 6.18. */
#define CASYNC__SYS_RWF_NOSIGNAL 0x100
/* madvise(2): zero the page in children, Linux 4.14; make the page fault, Linux 6.13. */
#define CASYNC__SYS_MADV_WIPEONFORK 18
#define CASYNC__SYS_MADV_GUARD_INSTALL 102

/* On 32-bit processors glibc has functions of their own for large files; musl has no others. */
#if defined(__GLIBC__)
#define CASYNC__SYS_LARGE(name) name##64
#define CASYNC__SYS_O_LARGEFILE O_LARGEFILE
typedef struct stat64 casync__sys_status;
#else
#define CASYNC__SYS_LARGE(name) name
#define CASYNC__SYS_O_LARGEFILE 0
typedef struct stat casync__sys_status;
#endif
#define CASYNC__SYS_TIOCGPTPEER _IO('T', 0x41) /* ioctl_tty(2), Linux 4.13 */
#define CASYNC__SYS_FICLONE 0x40049409         /* ioctl_ficlonerange(2), Linux 4.5 */
#ifdef SYS_copy_file_range                     /* Linux 4.5 */
#define CASYNC__SYS_COPY_FILE_RANGE SYS_copy_file_range
#else
#define CASYNC__SYS_COPY_FILE_RANGE (-1) /* the kernel says ENOSYS */
#endif

/* Linux 5.1, 5.3, 5.9; the same everywhere. */
#define CASYNC__SYS_PIDFD_SEND_SIGNAL 424
#define CASYNC__SYS_PIDFD_OPEN 434
#define CASYNC__SYS_CLOSE_RANGE 436
#define CASYNC__SYS_P_PIDFD 3 /* of waitid(2), Linux 5.4 */
/* The C library's functions change the ids of all threads, by a signal to each; a child that has
   not run its program yet must not do that to its parent's. Ids have 32 bits. */
#ifdef SYS_setresuid32
#define CASYNC__SYS_SETRESUID SYS_setresuid32
#define CASYNC__SYS_SETRESGID SYS_setresgid32
#define CASYNC__SYS_SETGROUPS SYS_setgroups32
#else
#define CASYNC__SYS_SETRESUID SYS_setresuid
#define CASYNC__SYS_SETRESGID SYS_setresgid
#define CASYNC__SYS_SETGROUPS SYS_setgroups
#endif

typedef struct casync__sys_timespec {
    int64_t seconds, nanoseconds;
} casync__sys_timespec;

static inline long casync__epoll_pwait2(int epfd, casync__epoll_event *events, int count,
                                        int64_t timeout) {
    casync__sys_timespec time;
    time.seconds = timeout / 1000000000;
    time.nanoseconds = timeout % 1000000000;
    return syscall(CASYNC__SYS_EPOLL_PWAIT2, epfd, events, count,
                   timeout == CASYNC_FOREVER ? NULL : &time, NULL, (size_t)0);
}

static inline int casync__sys_unlock_pty(int fd) {
    int locked = 0;
    return ioctl(fd, TIOCSPTLCK, &locked);
}

static inline int64_t casync__sys_send_file(int to, int from, int64_t *offset, size_t size) {
    return CASYNC__SYS_LARGE(sendfile)(to, from, offset, size);
}

/* Runs `run` in a child process that shares this one's memory, and this stack, until it runs a
   program or ends: so this function must not return in it (vfork(2)). */
static inline int casync__sys_run_in_vfork(void (*run)(void *), void *arg) {
    pid_t pid = vfork();
    if (pid != 0) return pid;
    run(arg);
    _exit(127);
    return 0; /* for tcc, which does not know that _exit never returns */
}

/* The same in a copy of this process. */
static inline int casync__sys_run_in_fork(void (*run)(void *), void *arg) {
    pid_t pid = fork();
    if (pid != 0) return pid;
    run(arg);
    _exit(127);
    return 0; /* for tcc */
}

/* The address of new memory, or -1. It counts when it is used, not before. */
static inline int64_t casync__memory_map(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? -1 : (int64_t)(uintptr_t)memory;
}

/* X(name, parameters, arguments, call) */
#define CASYNC__SYS_CALLS(X)                                                                       \
    X(map, (size_t size), (size), casync__memory_map(size))                                        \
    X(unmap, (void *address, size_t size), (address, size), munmap(address, size))                 \
    X(mprotect, (void *address, size_t size, int rights), (address, size, rights),                 \
      mprotect(address, size, rights))                                                             \
    X(mincore, (void *address, size_t size, unsigned char *pages), (address, size, pages),         \
      mincore(address, size, pages))                                                               \
    X(madvise, (void *page, size_t size, int advice), (page, size, advice),                        \
      madvise(page, size, advice))                                                                 \
    X(sigpending, (sigset_t * set), (set), sigpending(set))                                        \
    X(epoll_create, (void), (), epoll_create1(EPOLL_CLOEXEC))                                      \
    X(epoll_ctl, (int epfd, int op, int fd, casync__epoll_event *event), (epfd, op, fd, event),    \
      epoll_ctl(epfd, op, fd, (struct epoll_event *)(void *)event))                                \
    X(eventfd, (void), (), eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))                                 \
    X(signalfd, (int fd, const sigset_t *mask), (fd, mask),                                        \
      signalfd(fd, mask, SFD_CLOEXEC | SFD_NONBLOCK))                                              \
    X(sigaction, (int signum, const struct sigaction *action, struct sigaction *old),              \
      (signum, action, old), sigaction(signum, action, old))                                       \
    X(sigaltstack, (const stack_t *stack, stack_t *old), (stack, old), sigaltstack(stack, old))    \
    X(thread_sigmask, (int how, const sigset_t *set, sigset_t *old), (how, set, old),              \
      casync__thread_result(pthread_sigmask(how, set, old)))                                       \
    X(thread_create, (pthread_t * thread, void *(*run)(void *), void *arg), (thread, run, arg),    \
      casync__thread_result(pthread_create(thread, NULL, run, arg)))                               \
    X(thread_name, (const char *name), (name),                                                     \
      prctl(PR_SET_NAME, (unsigned long)(uintptr_t)name, 0, 0, 0))                                 \
    X(sigtimedwait, (const sigset_t *set, const struct timespec *timeout), (set, timeout),         \
      sigtimedwait(set, NULL, timeout))                                                            \
    X(read, (int fd, void *data, size_t size), (fd, data, size), read(fd, data, size))             \
    X(write, (int fd, const void *data, size_t size), (fd, data, size), write(fd, data, size))     \
    X(writev, (int fd, const struct iovec *iov, int count), (fd, iov, count),                      \
      writev(fd, iov, count))                                                                      \
    X(pwritev2, (int fd, const struct iovec *iov, int count, int flags), (fd, iov, count, flags),  \
      syscall(SYS_pwritev2, fd, iov, (long)count, -1L, -1L, (long)flags))                          \
    X(sendmsg, (int fd, const struct msghdr *message), (fd, message),                              \
      sendmsg(fd, message, MSG_NOSIGNAL | MSG_DONTWAIT))                                           \
    X(send, (int fd, const void *data, size_t size), (fd, data, size),                             \
      send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT))                                           \
    X(recvmsg, (int fd, struct msghdr *message), (fd, message),                                    \
      recvmsg(fd, message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT))                                       \
    X(accept, (int fd, struct sockaddr *address, socklen_t *size), (fd, address, size),            \
      accept4(fd, address, size, SOCK_NONBLOCK | SOCK_CLOEXEC))                                    \
    X(socket, (int family), (family),                                                              \
      socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))                               \
    X(datagram_socket, (int family), (family),                                                     \
      socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))                                \
    X(sendto,                                                                                      \
      (int fd, const void *data, size_t size, const struct sockaddr *address, socklen_t length),   \
      (fd, data, size, address, length),                                                           \
      sendto(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT, address, length))                        \
    X(sendmmsg, (int fd, struct mmsghdr *messages, unsigned count), (fd, messages, count),         \
      sendmmsg(fd, messages, count, MSG_NOSIGNAL | MSG_DONTWAIT))                                  \
    X(recvmmsg, (int fd, struct mmsghdr *messages, unsigned count), (fd, messages, count),         \
      recvmmsg(fd, messages, count, MSG_CMSG_CLOEXEC | MSG_DONTWAIT, NULL))                        \
    X(socketpair, (int fds[2]), (fds),                                                             \
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds))                     \
    X(pipe, (int fds[2]), (fds), pipe2(fds, O_NONBLOCK | O_CLOEXEC))                               \
    X(bind, (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size),         \
      bind(fd, address, size))                                                                     \
    X(connect, (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size),      \
      connect(fd, address, size))                                                                  \
    X(listen, (int fd, int backlog), (fd, backlog), listen(fd, backlog))                           \
    X(getsockopt, (int fd, int level, int name, void *value, socklen_t *size),                     \
      (fd, level, name, value, size), getsockopt(fd, level, name, value, size))                    \
    X(setsockopt, (int fd, int level, int name, const void *value, socklen_t size),                \
      (fd, level, name, value, size), setsockopt(fd, level, name, value, size))                    \
    X(getsockname, (int fd, struct sockaddr *address, socklen_t *size), (fd, address, size),       \
      getsockname(fd, address, size))                                                              \
    X(getpeername, (int fd, struct sockaddr *address, socklen_t *size), (fd, address, size),       \
      getpeername(fd, address, size))                                                              \
    X(unread, (int fd, int *bytes), (fd, bytes), ioctl(fd, FIONREAD, bytes))                       \
    X(shutdown, (int fd, int how), (fd, how), shutdown(fd, how))                                   \
    X(fcntl, (int fd, int command, int argument), (fd, command, argument),                         \
      fcntl(fd, command, argument))                                                                \
    X(dup3, (int fd, int as), (fd, as), dup3(fd, as, O_CLOEXEC))                                   \
    X(fstat, (int fd, casync__sys_status *status), (fd, status),                                   \
      CASYNC__SYS_LARGE(fstat)(fd, status))                                                        \
    X(stat, (const char *path, casync__sys_status *status), (path, status),                        \
      CASYNC__SYS_LARGE(stat)(path, status))                                                       \
    X(lstat, (const char *path, casync__sys_status *status), (path, status),                       \
      CASYNC__SYS_LARGE(lstat)(path, status))                                                      \
    X(pread, (int fd, void *data, size_t size, int64_t offset), (fd, data, size, offset),          \
      CASYNC__SYS_LARGE(pread)(fd, data, size, offset))                                            \
    X(pwrite, (int fd, const void *data, size_t size, int64_t offset), (fd, data, size, offset),   \
      CASYNC__SYS_LARGE(pwrite)(fd, data, size, offset))                                           \
    X(fsync, (int fd), (fd), fsync(fd))                                                            \
    X(fdatasync, (int fd), (fd), fdatasync(fd))                                                    \
    X(ftruncate, (int fd, int64_t size), (fd, size), CASYNC__SYS_LARGE(ftruncate)(fd, size))       \
    X(rename, (const char *from, const char *to), (from, to), rename(from, to))                    \
    X(link, (const char *from, const char *to), (from, to), link(from, to))                        \
    X(symlink, (const char *from, const char *to), (from, to), symlink(from, to))                  \
    X(mkdir, (const char *path, int mode), (path, mode), mkdir(path, (mode_t)mode))                \
    X(rmdir, (const char *path), (path), rmdir(path))                                              \
    X(chmod, (const char *path, int mode), (path, mode), chmod(path, (mode_t)mode))                \
    X(fchmod, (int fd, int mode), (fd, mode), fchmod(fd, (mode_t)mode))                            \
    X(realpath, (const char *path, char *text), (path, text), realpath(path, text) ? 0 : -1)       \
    X(readlink, (const char *path, char *text, size_t size), (path, text, size),                   \
      readlink(path, text, size))                                                                  \
    X(mkstemp, (char *path), (path), CASYNC__SYS_LARGE(mkostemp)(path, O_CLOEXEC))                 \
    X(mkdtemp, (char *path), (path), mkdtemp(path) ? 0 : -1)                                       \
    X(clone_file, (int to, int from), (to, from), ioctl(to, CASYNC__SYS_FICLONE, from))            \
    X(copy_file_range, (int from, int to, size_t size), (from, to, size),                          \
      syscall(CASYNC__SYS_COPY_FILE_RANGE, from, NULL, to, NULL, size, 0))                         \
    X(sendfile, (int to, int from, int64_t *offset, size_t size), (to, from, offset, size),        \
      casync__sys_send_file(to, from, offset, size))                                               \
    X(unlink, (const char *path), (path), unlink(path))                                            \
    X(tcgetattr, (int fd, struct termios *mode), (fd, mode), tcgetattr(fd, mode))                  \
    X(tcsetattr, (int fd, const struct termios *mode), (fd, mode), tcsetattr(fd, TCSANOW, mode))   \
    X(get_window_size, (int fd, struct winsize *size), (fd, size), ioctl(fd, TIOCGWINSZ, size))    \
    X(set_window_size, (int fd, const struct winsize *size), (fd, size),                           \
      ioctl(fd, TIOCSWINSZ, size))                                                                 \
    X(take_terminal, (int fd), (fd), ioctl(fd, TIOCSCTTY, 0))                                      \
    X(pty_unlock, (int fd), (fd), casync__sys_unlock_pty(fd))                                      \
    X(pty_peer, (int fd), (fd), ioctl(fd, CASYNC__SYS_TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) \
    X(inotify_init, (void), (), inotify_init1(IN_CLOEXEC | IN_NONBLOCK))                           \
    X(inotify_add, (int fd, const char *path, uint32_t mask), (fd, path, mask),                    \
      inotify_add_watch(fd, path, mask))                                                           \
    X(inotify_remove, (int fd, int wd), (fd, wd), inotify_rm_watch(fd, wd))                        \
    X(open, (const char *path, int flags, int mode), (path, flags, mode),                          \
      open(path, flags | O_CLOEXEC | CASYNC__SYS_O_LARGEFILE, mode))                               \
    X(blocking_pipe, (int fds[2]), (fds), pipe2(fds, O_CLOEXEC))                                   \
    X(vfork, (void (*run)(void *), void *arg), (run, arg), casync__sys_run_in_vfork(run, arg))     \
    X(fork, (void (*run)(void *), void *arg), (run, arg), casync__sys_run_in_fork(run, arg))       \
    X(pidfd_open, (int pid), (pid), syscall(CASYNC__SYS_PIDFD_OPEN, pid, 0))                       \
    X(pidfd_send_signal, (int fd, int signum), (fd, signum),                                       \
      syscall(CASYNC__SYS_PIDFD_SEND_SIGNAL, fd, signum, NULL, 0))                                 \
    X(waitid, (int type, int id, siginfo_t *info, int options), (type, id, info, options),         \
      waitid((idtype_t)type, (id_t)id, info, options))                                             \
    X(kill, (int pid, int signum), (pid, signum), kill(pid, signum))                               \
    X(getpriority, (void), (), syscall(SYS_getpriority, PRIO_PROCESS, 0))                          \
    /* in a child process, before its program runs */                                              \
    X(setsid, (void), (), setsid())                                                                \
    X(setpgid, (int group), (group), setpgid(0, group))                                            \
    X(umask, (int mask), (mask), umask((mode_t)mask))                                              \
    X(setpriority, (int value), (value), setpriority(PRIO_PROCESS, 0, value))                      \
    X(getrlimit, (int resource, struct rlimit *limit), (resource, limit),                          \
      getrlimit(resource, limit))                                                                  \
    X(setrlimit, (int resource, const struct rlimit *limit), (resource, limit),                    \
      setrlimit(resource, limit))                                                                  \
    X(dup2, (int fd, int as), (fd, as), dup2(fd, as))                                              \
    X(chdir, (const char *path), (path), chdir(path))                                              \
    X(setgroups, (size_t count, const uint32_t *groups), (count, groups),                          \
      syscall(CASYNC__SYS_SETGROUPS, count, groups))                                               \
    X(setgid, (uint32_t id), (id), syscall(CASYNC__SYS_SETRESGID, id, id, id))                     \
    X(setuid, (uint32_t id), (id), syscall(CASYNC__SYS_SETRESUID, id, id, id))                     \
    X(close_range, (unsigned first, unsigned last), (first, last),                                 \
      syscall(CASYNC__SYS_CLOSE_RANGE, first, last, 0))                                            \
    X(read_directory, (int fd, void *entries, size_t size), (fd, entries, size),                   \
      syscall(SYS_getdents64, fd, entries, size))                                                  \
    X(execve, (const char *path, char *const *args, char *const *env), (path, args, env),          \
      execve(path, args, env))                                                                     \
    X(getaddrinfo,                                                                                 \
      (const char *host, const char *service, const struct addrinfo *hints,                        \
       struct addrinfo **found),                                                                   \
      (host, service, hints, found),                                                               \
      casync__name_result(getaddrinfo(host, service, hints, found)))                               \
    X(freeaddrinfo, (struct addrinfo * found), (found), (freeaddrinfo(found), 0))                  \
    X(getnameinfo,                                                                                 \
      (const struct sockaddr *address, socklen_t size, casync_nameinfo *info, int flags),          \
      (address, size, info, flags),                                                                \
      casync__name_result(getnameinfo(address, size, info->host, sizeof info->host, info->service, \
                                      sizeof info->service, flags)))

/* These wait, or must not be repeated: close(2) frees the descriptor even when it says EINTR. */
#define CASYNC__SYS_CALLS_ONCE(X)                                                                  \
    X(epoll_pwait2, (int epfd, casync__epoll_event *events, int count, int64_t timeout),           \
      (epfd, events, count, timeout), casync__epoll_pwait2(epfd, events, count, timeout))          \
    X(epoll_wait, (int epfd, casync__epoll_event *events, int count, int milliseconds),            \
      (epfd, events, count, milliseconds),                                                         \
      epoll_wait(epfd, (struct epoll_event *)(void *)events, count, milliseconds))                 \
    X(close, (int fd), (fd), close(fd))

static inline int casync__thread_result(int error) {
    if (error) errno = error;
    return error ? -1 : 0;
}

/* The EAI codes of glibc and musl are -1 to -12. Others, as of a cancelled call, cannot come. */
#define CASYNC__NAME_ERRORS 5100

/* 0, or the code of casync's that stands for an EAI code, as a positive number; -1 with errno for
   what is an errno. */
static inline int casync__name_result(int error) {
    if (error == 0) return 0;
    if (error == EAI_MEMORY) errno = ENOMEM;
    if (error == EAI_MEMORY || error == EAI_SYSTEM) return -1;
    return CASYNC__NAME_ERRORS - error;
}

#ifdef CASYNC_SYSCALL_TABLE
#define CASYNC__SYS_DEFINE(name, parameters, body)                                                 \
    static int64_t casync__direct_##name parameters body
#define CASYNC__SYS_MEMBER(name, parameters, arguments, call) int64_t(*name) parameters;
#define CASYNC__SYS_ROW(name, parameters, arguments, call) casync__direct_##name,
#define CASYNC__SYS_FUNCTION(name, parameters, arguments, call)                                    \
    static inline int64_t casync__sys_##name parameters { return casync_syscalls.name arguments; }
#else
#define CASYNC__SYS_DEFINE(name, parameters, body)                                                 \
    static inline int64_t casync__sys_##name parameters body
#endif

#define CASYNC__SYS_REPEATED(name, parameters, arguments, call)                                    \
    CASYNC__SYS_DEFINE(name, parameters, {                                                         \
        int64_t result;                                                                            \
        do result = call;                                                                          \
        while (result < 0 && errno == EINTR);                                                      \
        return result < 0 ? -errno : result;                                                       \
    })
#define CASYNC__SYS_ONCE(name, parameters, arguments, call)                                        \
    CASYNC__SYS_DEFINE(name, parameters, {                                                         \
        int64_t result = call;                                                                     \
        return result < 0 ? -errno : result;                                                       \
    })

CASYNC__SYS_CALLS(CASYNC__SYS_REPEATED)
CASYNC__SYS_CALLS_ONCE(CASYNC__SYS_ONCE)

#ifdef CASYNC_SYSCALL_TABLE
static struct {
    CASYNC__SYS_CALLS(CASYNC__SYS_MEMBER)
    CASYNC__SYS_CALLS_ONCE(CASYNC__SYS_MEMBER)
} casync_syscalls = {CASYNC__SYS_CALLS(CASYNC__SYS_ROW) CASYNC__SYS_CALLS_ONCE(CASYNC__SYS_ROW)};
CASYNC__SYS_CALLS(CASYNC__SYS_FUNCTION)
CASYNC__SYS_CALLS_ONCE(CASYNC__SYS_FUNCTION)
#endif

static sigset_t casync__signal_set(int signum) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signum);
    return set;
}

/* >> process state & fork (implementation) ----------------------------------------------------- */

/* Everything that belongs to the process and not to a loop is in one struct: the key by which a
   thread finds its loop, which features the kernel lacks, the registry of signals, and the terminal
   whose mode is to be put back. The kernel
   wipes one page in a forked child (MADV_WIPEONFORK, madvise(2)). The child's first call that looks
   at this page notices the fork, and makes anew what a fork breaks. (pthread_atfork would tell, but
   crashes under tcc -run.) Costs: one load where a fork matters. */

typedef struct casync__signal_source {
    casync_link watchers;      /* casync_signal by link; next is NULL before the first */
    struct sigaction previous; /* to put back when the last watcher goes */
    /* For the handler, atomic: the previous action, if the handler is to call it. One of the two at
       most; cast, as only data pointers are loaded atomically. */
    void *chained_action, *chained_handler;
    int plain_watchers; /* of the watchers, those of loops that block the signal */
} casync__signal_source;

/* Zero is the initial value of all of it, of mutex too (PTHREAD_MUTEX_INITIALIZER is zeros in glibc
   and musl). */
static struct {
    pthread_mutex_t mutex;
    /* atomic: flags that any thread may set, once, and what they say is there */
    uint32_t has_key, has_fork_page;
    uint32_t no_epoll_pwait2, no_rwf_nosignal; /* the kernel, or a sandbox, refuses these */
    uint32_t no_guard_install;                 /* the kernel does not know MADV_GUARD_INSTALL */
    uint32_t mprotect_guards;                  /* guards that are mappings of their own */
    uint32_t handled_fd;                       /* the eventfd by which the signal handler wakes
                                                  the loops */
    uint64_t handled;                          /* signals the handler saw: bit signum - 1 */
    uint32_t *fork_page; /* one word in a page of its own, which the kernel zeroes in a child */
    pthread_key_t running_loop;
    /* written by a child's first call alone, while others wait for it */
    uint32_t fork_generation; /* how many forks lie between this process and the first */
    /* with the mutex */
    uint32_t overflow_reports;  /* who asked for them: the handlers are there */
    uint64_t last_clients_id;   /* of a server */
    void *tls_bio_method;       /* with CASYNC_OPENSSL: a BIO_METHOD, or NULL */
    struct sigaction faults[2]; /* what was there for SIGSEGV and SIGBUS: set before the handler
                                   is */
    bool has_signal_fds;
    int signalfd;
    sigset_t signalfd_mask;
    casync__signal_source signals[65];
    /* of the terminal whose mode is changed. Its handlers read it without the mutex: it is whole
       before they are there. */
    bool restores_terminal; /* at exit: asked for once */
    uint32_t terminal_pid;  /* atomic: the process that changed it; 0: it is normal */
    int terminal_fd;
    struct termios terminal_normal, terminal_mode;
} casync__process;

/* Puts a fresh descriptor where an inherited one is, or should be: fork copies the table of
   descriptors before the memory, so one that another thread was just opening may be known and yet
   missing. */
static void casync__fd_replace(int64_t fresh, int fd) {
    if (fresh < 0 || fresh == fd) return;
    casync__sys_dup3((int)fresh, fd);
    casync__sys_close((int)fresh);
}

/* In a forked child: descriptors of its own in place of those shared with the parent, under the
   same numbers, for loops know them by number. What fails here shows in the child's next
   signal_start. */
static void casync__signals_after_fork(void) {
    if (!casync__process.has_signal_fds) return;
    casync__fd_replace(casync__sys_signalfd(-1, &casync__process.signalfd_mask),
                       casync__process.signalfd);
    casync__fd_replace(casync__sys_eventfd(), (int)casync__process.handled_fd);
    (void)casync__atomic_take64(&casync__process.handled);
}

/* What the fork page says: 0 in a forked child, until its first call is through with what a fork
   changes. */
enum { CASYNC__FORK_UNNOTICED = 0, CASYNC__FORK_NOTICED = 1, CASYNC__FORK_BEING_NOTICED = 2 };

/* The first call in a forked child finds the page wiped. */
static void casync__fork_check(void) {
    uint32_t *page;
    if (!casync__atomic_load(&casync__process.has_fork_page)) return;
    page = casync__process.fork_page;
    while (casync__atomic_load(page) != CASYNC__FORK_NOTICED) {
        if (!casync__atomic_compare_exchange(page, CASYNC__FORK_UNNOTICED,
                                             CASYNC__FORK_BEING_NOTICED)) {
            sched_yield(); /* another thread of the forked child came first */
            continue;
        }
        /* A thread of the parent process, which is not here, may have held the mutex. */
        memset(&casync__process.mutex, 0, sizeof casync__process.mutex);
        casync__process.fork_generation++;
        casync__signals_after_fork();
        casync__atomic_store(page, CASYNC__FORK_NOTICED);
    }
}

static void casync__process_lock(void) {
    casync__fork_check();
    pthread_mutex_lock(&casync__process.mutex);
}

static int64_t casync__fork_page_make(void) {
    int64_t address = casync__sys_map((size_t)sysconf(_SC_PAGESIZE)), result;
    uint32_t *page = (uint32_t *)(uintptr_t)address;
    if (address < 0) return address;
    result = casync__sys_madvise(page, (size_t)sysconf(_SC_PAGESIZE), CASYNC__SYS_MADV_WIPEONFORK);
    if (result < 0) {
        munmap(page, (size_t)sysconf(_SC_PAGESIZE));
        return result;
    }
    *page = CASYNC__FORK_NOTICED;
    casync__process.fork_page = page;
    casync__atomic_store(&casync__process.has_fork_page, 1); /* read before the mutex is locked */
    return 0;
}

static int64_t casync__process_init(void) {
    int64_t result = 0;
    casync__process_lock();
    if (!casync__process.has_key) {
        result = -pthread_key_create(&casync__process.running_loop, NULL);
        casync__atomic_store(&casync__process.has_key, result == 0);
    }
    if (result == 0 && !casync__process.fork_page) result = casync__fork_page_make();
    pthread_mutex_unlock(&casync__process.mutex);
    return result;
}

CASYNC__LINKAGE casync_loop *casync_get_running_loop(void) {
    if (!casync__atomic_load(&casync__process.has_key)) return NULL;
    return (casync_loop *)pthread_getspecific(casync__process.running_loop);
}

/* >> stacks & switch (implementation) ---------------------------------------------------------- */

/* Each stackful task has a stack of its own. Going there and back is an exchange of the stack
   pointer and of the registers that a function call preserves (casync__fiber_resume and _suspend);
   the rounding mode of floating point is not exchanged. A fiber, which is the task and what it
   needs to be switched to, sits at the top of its stack. Stacks come from slabs of 32, by size, and
   go to a bin when their task ends; when many are idle, a slab is given back.

   Each stack ends in a guard, which turns an overflow into a fault; casync_run reports it. From
   Linux 6.13 on, MADV_GUARD_INSTALL makes guards without further mappings. Before, mprotect splits
   a mapping for each guard, and the kernel allows 65,530 mappings (max_map_count). So stacks beyond
   CASYNC__STACK_GUARDS_MAX end in a pattern instead, which is checked whenever the task waits. A
   damaged pattern aborts the process.

   Costs: a switch is no system call and no allocation; where C++'s runtime is in the process, it
   moves two words more each way, else one predicted branch tells that it is not. A stack from the
   bin costs nothing; a new one costs a guard (one system call), and every 32nd an mmap. */

#ifndef CASYNC_NO_STACKFUL

/* AddressSanitizer, ThreadSanitizer and valgrind follow the stack pointer, and must be told when it
   goes elsewhere. Their interfaces: sanitizer/common_interface_defs.h, tsan_interface.h;
   valgrind.h, whose requests are an instruction sequence that does nothing on a real processor. */
#if defined(__SANITIZE_ADDRESS__)
#define CASYNC__COMPILER_ASAN
#elif defined(__SANITIZE_THREAD__)
#define CASYNC__COMPILER_TSAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CASYNC__COMPILER_ASAN
#elif __has_feature(thread_sanitizer)
#define CASYNC__COMPILER_TSAN
#endif
#endif

#if defined(CASYNC__COMPILER_ASAN) || defined(CASYNC__COMPILER_TSAN)
#define CASYNC__COMPILER_SANITIZED true
#else
#define CASYNC__COMPILER_SANITIZED false
#endif

#if defined(CASYNC__COMPILER_ASAN)
void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack_save, const void **bottom, size_t *size);
void __asan_unpoison_memory_region(void const volatile *address, size_t size);
#elif defined(CASYNC__COMPILER_TSAN)
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

/* What C++'s runtime keeps for a thread: the exceptions that catch blocks are about, and how many
   are on their way (struct __cxa_eh_globals of the Itanium C++ ABI, 2.2.2; of the ARM EABI, with
   one word more). Each task has its own. The name is there if C++'s runtime is in the process,
   though this be compiled as C.
*/
typedef struct casync__cpp_exceptions {
    void *caught;
    unsigned uncaught;
#if defined(__arm__)
    void *propagating;
#endif
} casync__cpp_exceptions;

#if defined(__GNUC__)
extern void *casync__cpp_get_globals(void) __asm__("__cxa_get_globals") __attribute__((weak));
static casync__cpp_exceptions *casync__cpp_thread_exceptions(void) {
    return casync__cpp_get_globals ? (casync__cpp_exceptions *)casync__cpp_get_globals() : NULL;
}
#else
static casync__cpp_exceptions *casync__cpp_thread_exceptions(void) { return NULL; }
#endif

static inline void casync__cpp_exchange(casync__cpp_exceptions *a, casync__cpp_exceptions *b) {
    casync__cpp_exceptions other = *a;
    *a = *b;
    *b = other;
}

typedef struct casync__fiber {
    casync_task task;
    void *stack_pointer;      /* of the task, while it does not run */
    void *loop_stack_pointer; /* of who let it run */
    casync_coroutine coroutine;
    void *arg;
    const char *name;
    struct casync__stack_slab *slab;
    char *stack; /* its lowest address; the fiber is at the other end */
    casync_loop *loop;
    int64_t result;
    casync__cpp_exceptions exceptions; /* of the task, while it does not run; else the loop's */
    uint32_t references;
    bool finished;
    uint8_t guard;        /* how an overflow is found: CASYNC__STACK_GUARD_ */
    uint64_t valgrind_id; /* of the stack */
#if defined(CASYNC__COMPILER_ASAN)
    void *fake_stack, *loop_fake_stack;
    const void *loop_stack;
    size_t loop_stack_size;
#elif defined(CASYNC__COMPILER_TSAN)
    void *tsan_fiber, *tsan_loop;
#endif
} casync__fiber;

/* The compiler must not see where it came from: it takes what follows `step == NULL` as done to a
   stackless task too, and warns. */
static inline casync__fiber *casync__fiber_of(casync_task *task) {
#if defined(__GNUC__)
    __asm__("" : "+r"(task));
#endif
    return (casync__fiber *)(void *)task;
}

/* -- stacks -- */

#define CASYNC__STACKS_IN_SLAB 32
#define CASYNC__STACKS_IDLE_MAX                                                                    \
    1024 /* beyond these, a slab of idle stacks is given back each time the loop sleeps */
#define CASYNC__STACK_DEFAULT ((size_t)64 * 1024)
#define CASYNC__STACK_SMALLEST ((size_t)16 * 1024)
#define CASYNC__STACK_SIZES 17 /* powers of two from the smallest: up to 1 GiB */
#define CASYNC__STACK_GUARDS_MAX 16000
#define CASYNC__SYS_MADV_UNKNOWN 9999 /* -EINVAL */
enum { CASYNC__STACK_GUARD_PATTERN, CASYNC__STACK_GUARD_INSTALLED, CASYNC__STACK_GUARD_MPROTECT };
static const uint64_t casync__stack_pattern[2] = {UINT64_C(0x5ca1ab1ec0ffee5a),
                                                  UINT64_C(0xa5eeff0ce1ba1ac5)};

typedef struct casync__stack_slab {
    casync_link link; /* in its bin's list */
    casync_link idle; /* in the list of those without a task */
    struct casync__stack_bin *bin;
    char *memory;
    uint32_t made; /* stacks used so far: the first ones of the slab */
    uint32_t live; /* of these, those of tasks */
} casync__stack_slab;

/* Stacks of one size. */
typedef struct casync__stack_bin {
    size_t size;       /* of a stack, without its guard */
    casync_link idle;  /* casync_task by link */
    casync_link slabs; /* only the last may have stacks that were not used yet */
} casync__stack_bin;

struct casync__stacks {
    const casync_allocator *allocator;
    size_t smallest;        /* size of a stack: a page, or CASYNC__STACK_SMALLEST */
    size_t idle_count;      /* stacks without a task */
    casync_link idle_slabs; /* casync__stack_slab by idle: those all of whose stacks are */
    casync__stack_bin bins[CASYNC__STACK_SIZES];
};

static size_t casync__memory_page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

/* Addresses that fault, at the end of a stack: a function whose frame is larger would step over
   them. A page more than a power of two: else the parts of all stacks that are in use would share
   few lines of the caches. Where addresses are scarce it is that page alone. */
static size_t casync__stack_guard_size(void) {
    return casync__memory_page_size() + (sizeof(void *) > 4 ? CASYNC__STACK_DEFAULT : 0);
}

static struct casync__stacks *casync__stacks_make(const casync_allocator *allocator) {
    size_t size = CASYNC__STACK_SMALLEST;
    int i;
    struct casync__stacks *stacks =
        (struct casync__stacks *)casync__memory_realloc(allocator, NULL, sizeof *stacks);
    if (!stacks) return NULL;
    stacks->allocator = allocator;
    stacks->smallest = casync__memory_page_size();
    stacks->idle_count = 0;
    casync__list_init(&stacks->idle_slabs);
    /* qemu-user takes any advice and follows none of this kind: so there are no guards to be had by
       it. */
    if (casync__sys_madvise(NULL, 0, CASYNC__SYS_MADV_UNKNOWN) == 0)
        casync__atomic_store(&casync__process.no_guard_install, 1);
    for (i = 0; i < CASYNC__STACK_SIZES; i++, size *= 2) {
        stacks->bins[i].size = size;
        casync__list_init(&stacks->bins[i].idle);
        casync__list_init(&stacks->bins[i].slabs);
    }
    return stacks;
}

/* The bin for stacks of at least this size, or NULL. */
static casync__stack_bin *casync__stack_bin_for(struct casync__stacks *stacks, size_t size) {
    int i;
    if (size == 0) size = CASYNC__STACK_DEFAULT;
    if (size < stacks->smallest) size = stacks->smallest;
    for (i = 0; i < CASYNC__STACK_SIZES; i++)
        if (stacks->bins[i].size >= size) return &stacks->bins[i];
    return NULL;
}

static size_t casync__stack_distance(const casync__stack_bin *bin) {
    return bin->size + casync__stack_guard_size();
}

/* A slab of stacks that are large is the stack alone. */
static uint32_t casync__stacks_in_slab(const casync__stack_bin *bin) {
    return bin->size > CASYNC__STACK_DEFAULT * 16 ? 1 : CASYNC__STACKS_IN_SLAB;
}

static size_t casync__stack_slab_size(const casync__stack_bin *bin) {
    return casync__stacks_in_slab(bin) * casync__stack_distance(bin);
}

static int64_t casync__stack_slab_make(struct casync__stacks *stacks, casync__stack_bin *bin) {
    int64_t address;
    casync__stack_slab *slab =
        (casync__stack_slab *)casync__memory_realloc(stacks->allocator, NULL, sizeof *slab);
    if (!slab) return -ENOMEM;
    address = casync__sys_map(casync__stack_slab_size(bin));
    if (address < 0) {
        casync__memory_free(stacks->allocator, slab);
        return address;
    }
    memset(slab, 0, sizeof *slab);
    slab->bin = bin;
    slab->memory = (char *)(uintptr_t)address;
    /* A huge page for a stack's first page is too much of a good thing. */
    (void)casync__sys_madvise(slab->memory, casync__stack_slab_size(bin), MADV_NOHUGEPAGE);
    casync__list_append(&bin->slabs, &slab->link);
    return 0;
}

/* Makes the addresses at the end of a stack such that fault. */
static uint8_t casync__stack_guard_install(char *guard) {
    size_t size = casync__stack_guard_size();
    if (!casync__atomic_load(&casync__process.no_guard_install)) {
        if (casync__sys_madvise(guard, size, CASYNC__SYS_MADV_GUARD_INSTALL) == 0)
            return CASYNC__STACK_GUARD_INSTALLED;
        casync__atomic_store(&casync__process.no_guard_install, 1);
    }
    if (casync__atomic_add(&casync__process.mprotect_guards, 1) < CASYNC__STACK_GUARDS_MAX &&
        casync__sys_mprotect(guard, size, PROT_NONE) == 0)
        return CASYNC__STACK_GUARD_MPROTECT;
    casync__atomic_add(&casync__process.mprotect_guards, UINT32_MAX);
    return CASYNC__STACK_GUARD_PATTERN;
}

/* Where the guard of a slab's stack is, and where its fiber: each some lines below its top, another
   number for each of 16, for the same reason as in stack_distance. */
static char *casync__stack_guard(const casync__stack_slab *slab, uint32_t number) {
    return slab->memory + number * casync__stack_distance(slab->bin);
}
static casync__fiber *casync__fiber_at(const casync__stack_slab *slab, uint32_t number) {
    char *top = casync__stack_guard(slab, number) + casync__stack_distance(slab->bin);
    return (casync__fiber *)(void *)((uintptr_t)(top - sizeof(casync__fiber) - number % 16 * 64) /
                                     64 * 64);
}

/* valgrind's request `code` with two arguments; 0 without valgrind. */
static uint64_t casync__stack_valgrind(uint64_t code, const void *first, const void *second) {
    uint64_t result = 0;
#if defined(__x86_64__) && defined(__GNUC__)
    volatile uint64_t request[6] = {0, 0, 0, 0, 0, 0};
    request[0] = code;
    request[1] = (uint64_t)(uintptr_t)first;
    request[2] = (uint64_t)(uintptr_t)second;
    __asm__ __volatile__("rolq $3, %%rdi; rolq $13, %%rdi; rolq $61, %%rdi; rolq $51, %%rdi\n\t"
                         "xchgq %%rbx, %%rbx"
                         : "+d"(result)
                         : "a"(request)
                         : "cc", "memory", "rdi");
#else
    (void)code, (void)first, (void)second;
#endif
    return result;
}
#define CASYNC__STACK_VALGRIND_REGISTER 0x1501
#define CASYNC__STACK_VALGRIND_DEREGISTER 0x1502
#define CASYNC__STACK_VALGRIND_MAKE_DEFINED 0x4d430002

static void casync__stack_made(casync__fiber *fiber) {
    fiber->valgrind_id =
        casync__stack_valgrind(CASYNC__STACK_VALGRIND_REGISTER, fiber->stack, fiber);
#if defined(CASYNC__COMPILER_TSAN)
    fiber->tsan_fiber = __tsan_create_fiber(0);
#endif
}

static void casync__stack_gone(casync__fiber *fiber) {
    casync__stack_valgrind(CASYNC__STACK_VALGRIND_DEREGISTER,
                           (const void *)(uintptr_t)fiber->valgrind_id, NULL);
#if defined(CASYNC__COMPILER_TSAN)
    __tsan_destroy_fiber(fiber->tsan_fiber);
#endif
}

/* The first use of the next stack of a slab. */
static casync__fiber *casync__fiber_make(casync__stack_slab *slab) {
    uint32_t number = slab->made++;
    casync__fiber *fiber = casync__fiber_at(slab, number);
    memset(fiber, 0, sizeof *fiber);
    fiber->slab = slab;
    fiber->stack = casync__stack_guard(slab, number) + casync__stack_guard_size();
    fiber->guard = casync__stack_guard_install(casync__stack_guard(slab, number));
    if (fiber->guard == CASYNC__STACK_GUARD_PATTERN)
        memcpy(fiber->stack, casync__stack_pattern, sizeof casync__stack_pattern);
    casync__stack_made(fiber);
    return fiber;
}

/* A stack from the bin, or a new one. */
static int64_t casync__fiber_take(struct casync__stacks *stacks, casync__stack_bin *bin,
                                  casync__fiber **fiber) {
    casync__stack_slab *slab = casync__container(bin->slabs.prev, casync__stack_slab, link);
    int64_t result;
    if (!casync__list_is_empty(&bin->idle)) {
        *fiber = casync__container(bin->idle.next, casync__fiber, task.link);
        casync__list_remove(&(*fiber)->task.link);
        stacks->idle_count--;
    } else {
        if (casync__list_is_empty(&bin->slabs) || slab->made == casync__stacks_in_slab(bin)) {
            result = casync__stack_slab_make(stacks, bin);
            if (result < 0) return result;
            slab = casync__container(bin->slabs.prev, casync__stack_slab, link);
        }
        *fiber = casync__fiber_make(slab);
    }
    slab = (*fiber)->slab;
    if (slab->live++ == 0 && slab->idle.next) casync__list_remove(&slab->idle);
    return 0;
}

static void casync__stack_slab_free(struct casync__stacks *stacks, casync__stack_slab *slab) {
    uint32_t number;
    for (number = 0; number < slab->made; number++) {
        casync__fiber *fiber = casync__fiber_at(slab, number);
        if (fiber->guard == CASYNC__STACK_GUARD_MPROTECT)
            casync__atomic_add(&casync__process.mprotect_guards, UINT32_MAX);
        casync__stack_gone(fiber);
    }
    casync__list_remove(&slab->link);
    casync__sys_unmap(slab->memory, casync__stack_slab_size(slab->bin));
    casync__memory_free(stacks->allocator, slab);
}

/* A stack whose task has ended and has no reference left. */
static void casync__fiber_return(struct casync__stacks *stacks, casync__fiber *fiber) {
    casync__stack_slab *slab = fiber->slab;
    casync__list_append(slab->bin->idle.next, &fiber->task.link); /* last used, first taken */
    stacks->idle_count++;
    if (--slab->live == 0) casync__list_append(&stacks->idle_slabs, &slab->idle);
}

/* Gives a slab back if many stacks are idle. Those that come and go in numbers stay. */
static void casync__stacks_trim(struct casync__stacks *stacks) {
    casync__stack_slab *slab;
    uint32_t number;
    if (stacks->idle_count <= CASYNC__STACKS_IDLE_MAX || casync__list_is_empty(&stacks->idle_slabs))
        return;
    slab = casync__container(stacks->idle_slabs.next, casync__stack_slab, idle);
    casync__list_remove(&slab->idle);
    for (number = 0; number < slab->made; number++)
        casync__list_remove(&casync__fiber_at(slab, number)->task.link);
    stacks->idle_count -= slab->made;
    casync__stack_slab_free(stacks, slab);
}

static void casync__stacks_free(struct casync__stacks *stacks) {
    int i;
    for (i = 0; stacks && i < CASYNC__STACK_SIZES; i++) {
        casync_link *slabs = &stacks->bins[i].slabs;
        while (!casync__list_is_empty(slabs))
            casync__stack_slab_free(stacks,
                                    casync__container(slabs->next, casync__stack_slab, link));
    }
    if (stacks) casync__memory_free(stacks->allocator, stacks);
}

/* A stack without a guard: has its task gone beyond its end? What lies there is ruined by now. */
static void casync__stack_check(const casync__fiber *fiber) {
    if (fiber->guard != CASYNC__STACK_GUARD_PATTERN ||
        memcmp(fiber->stack, casync__stack_pattern, sizeof casync__stack_pattern) == 0)
        return;
    fprintf(stderr, "casync: task %s used more than its stack of %zu bytes\n",
            casync_task_name(&fiber->task), fiber->slab->bin->size);
    abort();
}

/* -- switching stacks -- */

/* casync__switch saves the registers that a call preserves, with the address to go on at, on the
   stack, whose pointer goes to *from; and takes over those of the stack whose pointer is `to`. All
   other registers are clobbered: the compiler saves what it needs of them, which is as much work
   and less text. It ends in a jump, not in a return, because the processor predicts returns by the
   calls it saw, and these were on the other stack. The jump leads behind itself, or to fiber_main
   for the first time, for which the fiber is in the register of the first argument. */

/* Registers of floating point and vectors, which casync__switch clobbers: those that the compiler
   has. */
#if defined(__TINYC__) /* keeps nothing in registers from one statement to the next */
#define CASYNC__SWITCH_X86_VECTORS
#define CASYNC__SWITCH_X86_64_VECTORS
#else
#define CASYNC__SWITCH_X86_VECTORS                                                                 \
    , "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)",                                  \
        "st(7)" CASYNC__SWITCH_SSE_REGISTERS CASYNC__SWITCH_AVX512_MASKS
#define CASYNC__SWITCH_X86_64_VECTORS                                                              \
    , "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",                                 \
        "xmm15" CASYNC__SWITCH_AVX512_VECTORS
#endif
#if defined(__SSE__) /* else gcc refuses their names */
#define CASYNC__SWITCH_SSE_REGISTERS                                                               \
    , "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7"
#else
#define CASYNC__SWITCH_SSE_REGISTERS
#endif
#if defined(__AVX512F__)
#define CASYNC__SWITCH_AVX512_MASKS , "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#define CASYNC__SWITCH_AVX512_VECTORS                                                              \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",    \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"
#else
#define CASYNC__SWITCH_AVX512_MASKS
#define CASYNC__SWITCH_AVX512_VECTORS
#endif

#if !defined(CASYNC__SWITCH_UCONTEXT) && defined(__x86_64__) && !defined(__ILP32__)

/* Below the red zone. The bytes before the end are endbr64, for indirect branch tracking. */
CASYNC__COMPILER_INLINE void casync__switch(void **from, void *to, casync__fiber *fiber) {
    __asm__ __volatile__("leaq -128(%%rsp), %%rsp\n\t"
                         "leaq 1f(%%rip), %%rax\n\t"
                         "pushq %%rax\n\t"
                         "pushq %%rbp\n\t"
                         "pushq %%rbx\n\t"
                         "pushq %%r12\n\t"
                         "pushq %%r13\n\t"
                         "pushq %%r14\n\t"
                         "pushq %%r15\n\t"
                         "movq %%rsp, (%%rsi)\n\t"
                         "movq %%rdx, %%rsp\n\t"
                         "popq %%r15\n\t"
                         "popq %%r14\n\t"
                         "popq %%r13\n\t"
                         "popq %%r12\n\t"
                         "popq %%rbx\n\t"
                         "popq %%rbp\n\t"
                         "popq %%rax\n\t"
                         "jmp *%%rax\n"
                         "1:\n\t"
                         ".byte 0xf3, 0x0f, 0x1e, 0xfa\n\t"
                         "leaq 128(%%rsp), %%rsp\n\t"
                         : "+S"(from), "+d"(to), "+D"(fiber)
                         :
                         : "rax", "rcx", "r8", "r9", "r10", "r11", "memory",
                           "cc" CASYNC__SWITCH_X86_VECTORS CASYNC__SWITCH_X86_64_VECTORS);
}
#define CASYNC__SWITCH_WORDS 8 /* the last one is a return address, of 0 */
#define CASYNC__SWITCH_JUMP 6

/* A shadow stack (CET) knows where each return goes to, and does not know of other stacks. The
   instruction is rdssp, which does nothing where there is none. */
static bool casync__stack_has_shadow(void) {
    uint64_t pointer = 0;
    __asm__ __volatile__(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" : "+a"(pointer));
    return pointer != 0;
}

#elif !defined(CASYNC__SWITCH_UCONTEXT) && defined(__i386__)

/* The address of 1 comes by a call that returns, as position independent code must; the bytes there
   are endbr32. 4(%esp) is where fiber_main looks for its argument. */
CASYNC__COMPILER_INLINE void casync__switch(void **from, void *to, casync__fiber *fiber) {
    __asm__ __volatile__("leal -8(%%esp), %%esp\n\t"
                         "pushl %%ebp\n\t"
                         "pushl %%ebx\n\t"
                         "pushl %%esi\n\t"
                         "pushl %%edi\n\t"
                         "jmp 3f\n"
                         "2:\n\t"
                         "movl (%%esp), %%ebx\n\t"
                         "ret\n"
                         "3:\n\t"
                         "call 2b\n"
                         "4:\n\t"
                         "addl $1f-4b, %%ebx\n\t"
                         "pushl %%ebx\n\t"
                         "movl %%esp, (%%ecx)\n\t"
                         "movl %%edx, %%esp\n\t"
                         "popl %%ecx\n\t"
                         "popl %%edi\n\t"
                         "popl %%esi\n\t"
                         "popl %%ebx\n\t"
                         "popl %%ebp\n\t"
                         "movl %%eax, 4(%%esp)\n\t"
                         "jmp *%%ecx\n"
                         "1:\n\t"
                         ".byte 0xf3, 0x0f, 0x1e, 0xfb\n\t"
                         "leal 8(%%esp), %%esp\n\t"
                         : "+c"(from), "+d"(to), "+a"(fiber)
                         :
                         : "memory", "cc" CASYNC__SWITCH_X86_VECTORS);
}
#define CASYNC__SWITCH_WORDS                                                                       \
    10 /* with a return address of 0, and the argument at a multiple of 16 */
#define CASYNC__SWITCH_JUMP 0
#define CASYNC__STACK_NO_SHADOW

#elif !defined(CASYNC__SWITCH_UCONTEXT) && defined(__aarch64__) && !defined(__ILP32__)

#if defined(__ARM_FEATURE_SVE)
#define CASYNC__SWITCH_SVE_PREDICATES                                                              \
    , "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13",      \
        "p14", "p15"
#else
#define CASYNC__SWITCH_SVE_PREDICATES
#endif

/* hint #36 is bti j, for branch target identification, which lets br x16 go to the begin of a
   function, too. x18 is a temporary on Linux. */
CASYNC__COMPILER_INLINE void casync__switch(void **from, void *to, casync__fiber *fiber) {
    register casync__fiber *x0 __asm__("x0") = fiber;
    register void **x1 __asm__("x1") = from;
    register void *x2 __asm__("x2") = to;
    __asm__ __volatile__("adr x16, 1f\n\t"
                         "stp x19, x20, [sp, #-112]!\n\t"
                         "stp x21, x22, [sp, #16]\n\t"
                         "stp x23, x24, [sp, #32]\n\t"
                         "stp x25, x26, [sp, #48]\n\t"
                         "stp x27, x28, [sp, #64]\n\t"
                         "stp x29, x30, [sp, #80]\n\t"
                         "str x16, [sp, #96]\n\t"
                         "mov x17, sp\n\t"
                         "str x17, [x1]\n\t"
                         "mov sp, x2\n\t"
                         "ldp x21, x22, [sp, #16]\n\t"
                         "ldp x23, x24, [sp, #32]\n\t"
                         "ldp x25, x26, [sp, #48]\n\t"
                         "ldp x27, x28, [sp, #64]\n\t"
                         "ldp x29, x30, [sp, #80]\n\t"
                         "ldr x16, [sp, #96]\n\t"
                         "ldp x19, x20, [sp], #112\n\t"
                         "br x16\n"
                         "1:\n\t"
                         "hint #36\n\t"
                         : "+r"(x0), "+r"(x1), "+r"(x2)
                         :
                         : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
                           "x14", "x15", "x16", "x17", "x18", "v0", "v1", "v2", "v3", "v4", "v5",
                           "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16",
                           "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
                           "v27", "v28", "v29", "v30", "v31", "memory",
                           "cc" CASYNC__SWITCH_SVE_PREDICATES);
}
#define CASYNC__SWITCH_WORDS 14
#define CASYNC__SWITCH_JUMP 12

/* As on x86-64; here it is the guarded control stack. The instruction is chkfeat, which clears the
   bits of x16 whose features are on, and does nothing where it is not known. */
static bool casync__stack_has_shadow(void) {
    register uint64_t x16 __asm__("x16") = 1;
    __asm__ __volatile__("hint #40" : "+r"(x16));
    return x16 == 0;
}

#elif !defined(CASYNC__SWITCH_UCONTEXT) && defined(__arm__) &&                                     \
    (!defined(__thumb__) || defined(__thumb2__))

#if defined(__thumb__)
#define CASYNC__SWITCH_THUMB_ADDRESS "orr r12, r12, #1\n\t"
#else
#define CASYNC__SWITCH_THUMB_ADDRESS
#endif
#if defined(__SOFTFP__)
#define CASYNC__SWITCH_ARM_VECTORS
#else
#define CASYNC__SWITCH_ARM_VECTORS                                                                 \
    , "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d10", "d11", "d12", "d13",      \
        "d14", "d15" CASYNC__SWITCH_ARM_UPPER_VECTORS
#endif
#if defined(__ARM_NEON) || !defined(__clang__) /* else clang warns that it has none of them */
#define CASYNC__SWITCH_ARM_UPPER_VECTORS                                                           \
    , "d16", "d17", "d18", "d19", "d20", "d21", "d22", "d23", "d24", "d25", "d26", "d27", "d28",   \
        "d29", "d30", "d31"
#else
#define CASYNC__SWITCH_ARM_UPPER_VECTORS
#endif

/* bx goes on in Thumb's instructions if the address is odd. */
CASYNC__COMPILER_INLINE void casync__switch(void **from, void *to, casync__fiber *fiber) {
    register casync__fiber *r0 __asm__("r0") = fiber;
    register void **r1 __asm__("r1") = from;
    register void *r2 __asm__("r2") = to;
    __asm__ __volatile__("adr r12, 1f\n\t" CASYNC__SWITCH_THUMB_ADDRESS "push {r4-r12, lr}\n\t"
                         "mov r12, sp\n\t"
                         "str r12, [r1]\n\t"
                         "mov sp, r2\n\t"
                         "pop {r4-r12, lr}\n\t"
                         "bx r12\n"
                         "1:\n\t"
                         : "+r"(r0), "+r"(r1), "+r"(r2)
                         :
                         : "r3", "r12", "memory", "cc" CASYNC__SWITCH_ARM_VECTORS);
}
#define CASYNC__SWITCH_WORDS 10
#define CASYNC__SWITCH_JUMP 8
#define CASYNC__STACK_NO_SHADOW

#elif !defined(CASYNC__SWITCH_UCONTEXT) && defined(__riscv) && __riscv_xlen == 64

#if defined(__riscv_flen)
#define CASYNC__SWITCH_RISCV_FLOATS                                                                \
    , "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "ft8", "ft9", "ft10", "ft11", "fs0", \
        "fs1", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "fa0",      \
        "fa1", "fa2", "fa3", "fa4", "fa5", "fa6", "fa7"
#else
#define CASYNC__SWITCH_RISCV_FLOATS
#endif
#if defined(__riscv_vector)
#define CASYNC__SWITCH_RISCV_VECTORS                                                               \
    , "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",      \
        "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", \
        "v27", "v28", "v29", "v30", "v31"
#else
#define CASYNC__SWITCH_RISCV_VECTORS
#endif

/* A jump by t2 needs no landing pad (Zicfilp), and is no return to the predictor, as one by t0
   would be. */
CASYNC__COMPILER_INLINE void casync__switch(void **from, void *to, casync__fiber *fiber) {
    register casync__fiber *a0 __asm__("a0") = fiber;
    register void **a1 __asm__("a1") = from;
    register void *a2 __asm__("a2") = to;
    __asm__ __volatile__("lla t2, 1f\n\t"
                         "addi sp, sp, -112\n\t"
                         "sd s0, 0(sp)\n\t"
                         "sd s1, 8(sp)\n\t"
                         "sd s2, 16(sp)\n\t"
                         "sd s3, 24(sp)\n\t"
                         "sd s4, 32(sp)\n\t"
                         "sd s5, 40(sp)\n\t"
                         "sd s6, 48(sp)\n\t"
                         "sd s7, 56(sp)\n\t"
                         "sd s8, 64(sp)\n\t"
                         "sd s9, 72(sp)\n\t"
                         "sd s10, 80(sp)\n\t"
                         "sd s11, 88(sp)\n\t"
                         "sd ra, 96(sp)\n\t"
                         "sd t2, 104(sp)\n\t"
                         "sd sp, 0(a1)\n\t"
                         "mv sp, a2\n\t"
                         "ld s0, 0(sp)\n\t"
                         "ld s1, 8(sp)\n\t"
                         "ld s2, 16(sp)\n\t"
                         "ld s3, 24(sp)\n\t"
                         "ld s4, 32(sp)\n\t"
                         "ld s5, 40(sp)\n\t"
                         "ld s6, 48(sp)\n\t"
                         "ld s7, 56(sp)\n\t"
                         "ld s8, 64(sp)\n\t"
                         "ld s9, 72(sp)\n\t"
                         "ld s10, 80(sp)\n\t"
                         "ld s11, 88(sp)\n\t"
                         "ld ra, 96(sp)\n\t"
                         "ld t2, 104(sp)\n\t"
                         "addi sp, sp, 112\n\t"
                         "jr t2\n"
                         "1:\n\t"
                         : "+r"(a0), "+r"(a1), "+r"(a2)
                         :
                         : "a3", "a4", "a5", "a6", "a7", "t0", "t1", "t2", "t3", "t4", "t5", "t6",
                           "memory" CASYNC__SWITCH_RISCV_FLOATS CASYNC__SWITCH_RISCV_VECTORS);
}
#define CASYNC__SWITCH_WORDS 14
#define CASYNC__SWITCH_JUMP 13
#define CASYNC__STACK_NO_SHADOW

#elif defined(__GLIBC__)

#include <ucontext.h>

/* Any other processor; musl has no ucontext. It costs two system calls more, for it exchanges the
   signal mask as well: that is the thread's, not the task's, so the other context gets the one of
   now. */
static void casync__switch(void **from, void *to, casync__fiber *fiber) {
    ucontext_t here;
    (void)fiber;
    *from = &here;
    (void)casync__sys_thread_sigmask(SIG_SETMASK, NULL, &((ucontext_t *)to)->uc_sigmask);
    swapcontext(&here, (ucontext_t *)to);
}

#define CASYNC__STACK_NO_SHADOW

#else
#error                                                                                             \
    "casync.h: no stackful tasks on this processor or C library; do without: -DCASYNC_NO_STACKFUL"
#endif

#if defined(CASYNC__STACK_NO_SHADOW)
static bool casync__stack_has_shadow(void) { return false; }
#endif

/* What the tools are told: before the stack pointer goes to a task, and when it is back; before it
   goes back to the loop, and when it is in the task (again). */
static inline void casync__fiber_before_resume(casync__fiber *fiber) {
#if defined(CASYNC__COMPILER_ASAN)
    __sanitizer_start_switch_fiber(&fiber->loop_fake_stack, fiber->stack,
                                   (size_t)((char *)fiber - fiber->stack));
#elif defined(CASYNC__COMPILER_TSAN)
    fiber->tsan_loop = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber->tsan_fiber, 0);
#else
    (void)fiber;
#endif
}

static inline void casync__fiber_after_resume(casync__fiber *fiber) {
#if defined(CASYNC__COMPILER_ASAN)
    __sanitizer_finish_switch_fiber(fiber->loop_fake_stack, NULL, NULL);
#else
    (void)fiber;
#endif
}

static inline void casync__fiber_before_suspend(casync__fiber *fiber) {
#if defined(CASYNC__COMPILER_ASAN)
    __sanitizer_start_switch_fiber(fiber->finished ? NULL : &fiber->fake_stack, fiber->loop_stack,
                                   fiber->loop_stack_size);
#elif defined(CASYNC__COMPILER_TSAN)
    __tsan_switch_to_fiber(fiber->tsan_loop, 0);
#else
    (void)fiber;
#endif
}

static inline void casync__fiber_after_suspend(casync__fiber *fiber) {
#if defined(CASYNC__COMPILER_ASAN)
    __sanitizer_finish_switch_fiber(fiber->fake_stack, &fiber->loop_stack, &fiber->loop_stack_size);
#else
    (void)fiber;
#endif
}

/* Runs a stackful task until it waits (false) or ends. `exceptions` are those of the thread. */
CASYNC__COMPILER_INLINE bool
casync__fiber_resume(casync__fiber *fiber, casync__cpp_exceptions *exceptions, int64_t *result) {
    if (exceptions) casync__cpp_exchange(exceptions, &fiber->exceptions);
    casync__fiber_before_resume(fiber);
    casync__switch(&fiber->loop_stack_pointer, fiber->stack_pointer, fiber);
    casync__fiber_after_resume(fiber);
    if (exceptions) casync__cpp_exchange(exceptions, &fiber->exceptions);
    casync__stack_check(fiber);
    if (fiber->finished) *result = fiber->result;
    return fiber->finished;
}

/* Back to the loop, from the running task. */
CASYNC__COMPILER_INLINE void casync__fiber_suspend(casync__fiber *fiber) {
    casync__fiber_before_suspend(fiber);
    casync__switch(&fiber->stack_pointer, fiber->loop_stack_pointer, fiber);
    casync__fiber_after_suspend(fiber);
}

/* The bottom of every task's stack. */
static void casync__fiber_main(casync__fiber *fiber) {
    casync__fiber_after_suspend(fiber);
    fiber->result = fiber->coroutine(fiber->loop, fiber->arg);
    fiber->finished = true;
    casync__fiber_suspend(fiber);
    abort(); /* nobody lets a task run that has ended */
}

#if defined(CASYNC__SWITCH_WORDS)
/* Lays out a stack as casync__switch leaves it. What fiber_main finds in place of its caller's
   registers and return address is 0, where debuggers and exceptions see the end of the stack. */
static void *casync__fiber_lay_out(casync__fiber *fiber) {
    void **frame = (void **)(void *)fiber - CASYNC__SWITCH_WORDS;
    memset(frame, 0, CASYNC__SWITCH_WORDS * sizeof(void *));
    frame[CASYNC__SWITCH_JUMP] = (void *)(uintptr_t)casync__fiber_main;
    return frame;
}
#else

/* makecontext hands over ints alone, and here they are not needed. */
static void casync__fiber_enter(void) {
    casync__fiber_main(casync__fiber_of(casync_current_task()));
}

static void *casync__fiber_lay_out(casync__fiber *fiber) {
    ucontext_t *context =
        (ucontext_t *)(void *)((uintptr_t)((char *)fiber - sizeof(ucontext_t)) / 64 * 64);
    getcontext(context);
    context->uc_link = NULL;
    context->uc_stack.ss_sp = fiber->stack;
    context->uc_stack.ss_size = (size_t)((char *)context - fiber->stack);
    makecontext(context, casync__fiber_enter, 0);
    return context;
}
#endif

/* While one stackful task runs, what the next job will touch comes into the cache, if it is such a
   task's: its fiber, and the part of its stack that is in use, right below. With more tasks than
   the cache holds this halves the time of an await. */
#define CASYNC__STACK_PREFETCHED 5
#define CASYNC__FIBER_PREFETCHED 4
static inline void casync__fiber_prefetch(const casync_link *next_job) {
    const char *address = (const char *)next_job;
    int line;
    for (line = -CASYNC__STACK_PREFETCHED; line < CASYNC__FIBER_PREFETCHED; line++)
        CASYNC__COMPILER_PREFETCH(address + line * 64);
}

#else /* CASYNC_NO_STACKFUL */

typedef struct casync__fiber { /* none is ever made */
    casync_task task;
    casync_coroutine coroutine;
    const char *name;
} casync__fiber;

static struct casync__cpp_exceptions *casync__cpp_thread_exceptions(void) { return NULL; }

static casync__fiber *casync__fiber_of(casync_task *task) { return (casync__fiber *)(void *)task; }
static bool casync__fiber_resume(casync__fiber *fiber, struct casync__cpp_exceptions *exceptions,
                                 int64_t *result) {
    return (void)fiber, (void)exceptions, (void)result, true;
}
static void casync__fiber_suspend(casync__fiber *fiber) { (void)fiber; }
static void casync__fiber_prefetch(const casync_link *next_job) { (void)next_job; }

static void casync__stacks_trim(struct casync__stacks *stacks) { (void)stacks; }
static void casync__stacks_free(struct casync__stacks *stacks) { (void)stacks; }

#endif

/* >> clock (implementation) -------------------------------------------------------------------- */

/* The system's clock costs one clock_gettime in the vdso (about 25 ns, no system call). A turn
   reads it once (a busy one without timers every other time), and once more for the timeout of a
   wait if there are timers. A manual or virtual clock is loop->now itself. */

/* Also a loop that was never made, and none. */
static inline bool casync__loop_is_closed(const casync_loop *loop) {
    return !loop || loop->state == CASYNC_LOOP_CLOSED;
}

/* Not in the table of system calls: the vdso answers, and cannot fail for a clock that exists. */
static inline int64_t casync__clock_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

CASYNC__LINKAGE int64_t casync_time(const casync_loop *loop) {
    if (!loop) return 0;
    return loop->clock == CASYNC_CLOCK_MONOTONIC ? casync__clock_monotonic() : loop->now;
}

CASYNC__LINKAGE int64_t casync_now(const casync_loop *loop) {
    if (!loop) return 0;
    return loop->now;
}

/* a + b for a >= 0, where too much is for ever. */
static inline int64_t casync__clock_add(int64_t a, int64_t b) {
    if (b < 0) return a + b < 0 ? 0 : a + b;
    return a > CASYNC_FOREVER - b ? CASYNC_FOREVER : a + b;
}

CASYNC__LINKAGE int64_t casync_clock_advance(casync_loop *loop, int64_t nanoseconds) {
    if (casync__loop_is_closed(loop)) return -EINVAL;
    if (nanoseconds < 0) return -EINVAL;
    if (loop->clock == CASYNC_CLOCK_MONOTONIC) return -EPERM;
    loop->now = casync__clock_add(loop->now, nanoseconds);
    return 0;
}

/* >> jobs (implementation) --------------------------------------------------------------------- */

/* The ready queue is a list of jobs, linked through the jobs themselves: queueing cannot fail, and
   taking a job out of the middle (cancel) costs the same as taking the first. A job is on one list
   at a time, whatever list that is, so cancel need not know which. Jobs that other threads post
   form a chain of their own (by link.prev), which the loop takes whole.

   Costs: queueing a job is no system call and no allocation (a NULL job takes one from a free list
   that grows by a slab of 31). The job of a task lets the task go on, see the turn. */

enum {
    CASYNC__JOB_LENT = 1,            /* goes back to the loop's free jobs before it is called */
    CASYNC__JOB_TIMER = 2,           /* is the head of a casync_timer */
    CASYNC__JOB_POSTED = 4,          /* came from another thread: job->posted is to be reset */
    CASYNC__JOB_NEEDS_PREPARING = 7, /* any of these: casync__job_prepare has something to do */
    CASYNC__JOB_UNREFERENCED = 8,
    CASYNC__JOB_INTERNAL = 16, /* not the user's: casync_walk passes over it */
    CASYNC__JOB_FINALLY = 32,  /* called even when the loop is closed, to free what it has */
    CASYNC__JOB_TASK = 64      /* the job of a casync_task, which has no callback:
                                  casync__task_run */
};

#define CASYNC__JOBS_IN_SLAB 31

typedef struct casync__job_slab {
    struct casync__job_slab *next;
    casync_timer jobs[CASYNC__JOBS_IN_SLAB]; /* a timer is a job with more at its end: one slab
                                                serves for both */
} casync__job_slab;

/* An object whose callback is running; gone is set if the callback closes it. On the C stack. */
typedef struct casync__weakref {
    struct casync__weakref *outer;
    void *object;
    bool gone;
} casync__weakref;

/* Has this process been forked since the loop was made, or made anew? */
static bool casync__loop_is_forked(const casync_loop *loop) {
    casync__fork_check();
    return loop->fork_generation != casync__process.fork_generation;
}

static void casync__weakref_begin(casync_loop *loop, casync__weakref *weak, void *object) {
    weak->outer = loop->weakrefs;
    weak->object = object;
    weak->gone = false;
    loop->weakrefs = weak;
}

/* Is the object still there? */
static bool casync__weakref_end(casync_loop *loop, casync__weakref *weak) {
    loop->weakrefs = weak->outer;
    return !weak->gone;
}

static void casync__weakref_object_gone(casync_loop *loop, void *object) {
    casync__weakref *weak;
    for (weak = loop->weakrefs; weak; weak = weak->outer)
        if (weak->object == object) weak->gone = true;
}

static inline casync_job *casync__job_of(casync_link *link) {
    return casync__container(link, casync_job, link);
}

/* For assertions. A loop that is not run has no thread; one may be run inside another's
   callback. */
static inline bool casync__loop_in_thread(const casync_loop *loop) {
    const casync_loop *running = casync_get_running_loop();
    while (running && running != loop) running = running->outer;
    return loop->state != CASYNC_LOOP_RUNNING || running == loop || loop->locked;
}

/* Puts a job of the library's own into the ready queue, if it is not there. */
static inline void casync__job_make_ready(casync_loop *loop, casync_job *job) {
    if (!job->link.next) casync__list_append(&loop->ready, &job->link);
}

static inline void casync__job_init(casync_loop *loop, casync_job *job, casync_callback callback,
                                    void *arg) {
    job->callback = callback;
    job->arg = arg;
    job->loop = loop;
}

static bool casync__job_slab_add(casync_loop *loop) {
    int i;
    casync__job_slab *slab =
        (casync__job_slab *)casync__memory_realloc(&loop->allocator, NULL, sizeof *slab);
    if (!slab) return false;
    slab->next = loop->job_slabs;
    loop->job_slabs = slab;
    for (i = 0; i < CASYNC__JOBS_IN_SLAB; i++)
        casync__list_append(&loop->free_jobs, &slab->jobs[i].job.link);
    return true;
}

static inline casync_timer *casync__job_lend(casync_loop *loop) {
    casync_timer *timer;
    if (casync__list_is_empty(&loop->free_jobs) && !casync__job_slab_add(loop)) return NULL;
    timer = (casync_timer *)(void *)casync__job_of(loop->free_jobs.next);
    casync__list_remove(&timer->job.link);
    timer->job.flags = CASYNC__JOB_LENT;
    timer->job.posted = 0;
    return timer;
}

/* Last used, first lent: what is in the cache is used again. */
static inline void casync__job_return(casync_loop *loop, casync_job *job) {
    casync__list_append(loop->free_jobs.next, &job->link);
}

/* Puts a job at the end of a list, to be called some day. */
static inline int64_t casync__job_enqueue(casync_loop *loop, casync_link *list, casync_job *job,
                                          casync_callback callback, void *arg) {
    CASYNC_ASSERT(casync__loop_in_thread(loop));
    if (!job) {
        casync_timer *lent = casync__job_lend(loop);
        if (!lent) return -ENOMEM;
        job = &lent->job;
    } else if (job->link.next || casync__atomic_load(&job->posted)) {
        return -EALREADY;
    }
    casync__job_init(loop, job, callback, arg);
    casync__list_append(list, &job->link);
    return 0;
}

CASYNC__LINKAGE int64_t casync_call_soon(casync_loop *loop, casync_job *job,
                                         casync_callback callback, void *arg) {
    if (casync__loop_is_closed(loop) || !callback) return -EINVAL;
    return casync__job_enqueue(loop, &loop->ready, job, callback, arg);
}

CASYNC__LINKAGE bool casync_job_pending(const casync_job *job) {
    return job && (job->link.next || casync__atomic_load((uint32_t *)(uintptr_t)&job->posted));
}

/* A job leaves the queue, to be called or not: what is lent goes back. */
static void casync__job_release(casync_loop *loop, casync_job *job) {
    if (job->flags & CASYNC__JOB_POSTED) {
        job->flags &= ~(uint32_t)CASYNC__JOB_POSTED;
        /* a barrier: see casync_call_soon_threadsafe */
        (void)casync__atomic_exchange(&job->posted, 0);
    }
    if (job->flags & CASYNC__JOB_LENT) casync__job_return(loop, job);
}

static void casync__post_push(casync_loop *loop, casync_job *job) {
    casync_job *last;
    do {
        last = (casync_job *)casync__atomic_load_pointer(&loop->posted);
        job->link.prev = last ? &last->link : NULL;
    } while (!casync__atomic_compare_exchange_pointer(&loop->posted, last, job));
}

/* Takes the chain, first come first served. */
static void casync__posts_take_chain(casync_loop *loop) {
    casync_job *job = (casync_job *)casync__atomic_take_pointer(&loop->posted);
    casync_link *first = &loop->ready;
    while (job) {
        casync_link *before = job->link.prev;
        job->flags |= CASYNC__JOB_POSTED;
        /* The chain is last first: each goes before the one taken before it. */
        casync__list_append(first, &job->link);
        first = &job->link;
        job = before ? casync__job_of(before) : NULL;
    }
}

/* Moves what other threads posted to the ready queue. */
static inline void casync__posts_take(casync_loop *loop) {
    if (casync__atomic_load_pointer(&loop->posted)) casync__posts_take_chain(loop);
}

CASYNC__LINKAGE int64_t casync_job_cancel(casync_job *job) {
    if (!job) return 0;
    if (job->flags & CASYNC__JOB_TIMER) return casync_timer_stop((casync_timer *)(void *)job);
    if (!job->link.next && job->loop && casync__atomic_load(&job->posted))
        casync__posts_take(job->loop);
    if (!job->link.next) return 0;
    CASYNC_ASSERT(casync__loop_in_thread(job->loop));
    casync__list_remove(&job->link);
    casync__job_release(job->loop, job);
    return 1;
}

/* Takes every job off a list, so that its struct may be used with another loop. */
static void casync__jobs_drop(casync_loop *loop, casync_link *list) {
    while (!casync__list_is_empty(list)) {
        casync_job *job = casync__job_of(list->next);
        casync_callback callback = job->flags & CASYNC__JOB_FINALLY ? job->callback : NULL;
        void *arg = job->arg;
        casync__list_remove(&job->link);
        casync__job_release(loop, job);
        if (callback) callback(arg);
    }
}

/* What other threads posted, last first; their posts may go on meanwhile. */
static void casync__posts_walk(casync_loop *loop, void (*visit)(int, void *, void *), void *arg) {
    casync_job *job = (casync_job *)casync__atomic_load_pointer(&loop->posted);
    casync_link *before;
    for (; job; job = before ? casync__job_of(before) : NULL) {
        before = job->link.prev;
        if (!(job->flags & CASYNC__JOB_INTERNAL)) visit(CASYNC_KIND_JOB, job, arg);
    }
}

static void casync__jobs_walk(const casync_link *list, void (*visit)(int, void *, void *),
                              void *arg) {
    casync_link *link;
    for (link = list->next; link != list; link = link->next) {
        casync_job *job = casync__job_of(link);
        if (!(job->flags & CASYNC__JOB_INTERNAL))
            visit(job->flags & CASYNC__JOB_TIMER ? CASYNC_KIND_TIMER : CASYNC_KIND_JOB, job, arg);
    }
}

static bool casync__loop_has_work(casync_loop *loop) {
    return !casync__list_is_empty(&loop->ready) ||
           casync__atomic_load_pointer(&loop->posted) != NULL;
}

static bool casync__clock_is_virtual(const casync_loop *loop) {
    return loop->clock == CASYNC_CLOCK_VIRTUAL || loop->clock == CASYNC_CLOCK_VIRTUAL_FORCED;
}

static casync_exception casync__exception_make(const char *message, int64_t error) {
    casync_exception exception;
    memset(&exception, 0, sizeof exception);
    exception.message = message;
    exception.error = error;
    return exception;
}

CASYNC__LINKAGE void casync_call_exception_handler(casync_loop *loop,
                                                   const casync_exception *exception) {
    if (!loop || !exception || !loop->exception_handler) return;
    loop->exception_handler(loop, exception, loop->exception_arg);
}

/* >> timer wheel (implementation) -------------------------------------------------------------- */

/* Eleven levels of 64 slots cover all 64 bits of a deadline, six bits a level; a slot of level 0 is
   one nanosecond. A timer sits at the level of the highest six-bit digit in which its deadline
   differs from `elapsed`, in the slot of that digit's value. Three things follow:

   - The place of a timer is a function of (deadline, elapsed): it is computed, never stored, and
     all timers of one deadline are in one slot, in the order they were started.
   - Lower levels hold earlier timers, and in a level lower slots do: the first bit of the lowest
     occupied level leads to the next deadline.
   - A timer with deadline <= elapsed is not in the wheel: it is on the list `past` or in the ready
     queue, and plain unlinking stops it.

   The turn advances the wheel to `now`, which empties every slot that begins at or before `now`. A
   crowded slot is first spread over the levels below (elapsed becomes the slot's beginning). From
   any other slot, the due timers are sorted by deadline, by a stable merge sort that keeps the
   order of equal ones, and appended to the ready queue; the rest is put back at a lower level
   (elapsed becomes `now`). So a timer moves at most once per level, and only short lists are
   sorted. A repeating timer is started anew just before its callback is called, at the first of its
   times that is still ahead (casync__timer_prepare).

   Costs: start, stop and rearm are O(1): two or three cache lines, no system call. A level is 1
   KiB. It is allocated with all those below it when it is first used, so that moving down cannot
   fail. */

typedef struct casync__wheel_level {
    uint64_t occupied; /* bit s is set: slots[s] is not empty */
    casync_link slots[64];
} casync__wheel_level;

/* A slot with more timers is crowded: it is not searched for its earliest (its beginning is a good
   enough bound), and not sorted before it was spread over the levels below. */
#define CASYNC__WHEEL_CROWD 32

static inline casync_timer *casync__timer_of(casync_link *link) {
    return (casync_timer *)(void *)casync__job_of(link);
}

/* The span of a slot of that level, in nanoseconds. */
static inline uint64_t casync__wheel_slot_duration(int level) { return (uint64_t)1 << (6 * level); }

static inline int casync__wheel_level_of(uint64_t elapsed, uint64_t deadline) {
    return casync__compiler_highest_bit(elapsed ^ deadline) / 6;
}

static inline int casync__wheel_slot_of(uint64_t deadline, int level) {
    return (int)(deadline / casync__wheel_slot_duration(level) % 64);
}

static int64_t casync__wheel_add_levels(casync_loop *loop, int top) {
    int level, slot;
    for (level = 0; level <= top; level++) {
        casync__wheel_level *made;
        if (loop->wheel.levels[level]) continue;
        made = (casync__wheel_level *)casync__memory_realloc(&loop->allocator, NULL, sizeof *made);
        if (!made) return -ENOMEM;
        made->occupied = 0;
        for (slot = 0; slot < 64; slot++) casync__list_init(&made->slots[slot]);
        loop->wheel.levels[level] = made;
    }
    return 0;
}

/* Puts a timer in by its deadline. The levels up to its own must be there. */
static inline void casync__wheel_insert(casync_wheel *wheel, casync_timer *timer) {
    uint64_t deadline = (uint64_t)timer->deadline;
    int level = casync__wheel_level_of(wheel->elapsed, deadline),
        slot = casync__wheel_slot_of(deadline, level);
    casync__list_append(&wheel->levels[level]->slots[slot], &timer->job.link);
    wheel->levels[level]->occupied |= (uint64_t)1 << slot;
    wheel->occupied |= 1u << level;
}

static bool casync__wheel_is_empty(const casync_wheel *wheel) {
    return !wheel->occupied && casync__list_is_empty(&wheel->past);
}

static inline int64_t casync__wheel_add(casync_loop *loop, casync_timer *timer) {
    casync_wheel *wheel = &loop->wheel;
    uint64_t deadline = (uint64_t)timer->deadline;
    int level;
    if (deadline <= wheel->elapsed) {
        casync__list_append(&wheel->past, &timer->job.link);
        return 0;
    }
    level = casync__wheel_level_of(wheel->elapsed, deadline);
    if (!wheel->levels[level] && casync__wheel_add_levels(loop, level) < 0) return -ENOMEM;
    casync__wheel_insert(wheel, timer);
    if (deadline < wheel->next_deadline) {
        wheel->next_deadline = deadline;
        wheel->next_is_exact = true;
    }
    return 0;
}

static inline void casync__wheel_remove(casync_loop *loop, casync_timer *timer) {
    casync_wheel *wheel = &loop->wheel;
    uint64_t deadline = (uint64_t)timer->deadline;
    casync_link *prev = timer->job.link.prev;
    casync__list_remove(&timer->job.link);
    if (deadline <= wheel->elapsed) return;
    if (deadline == wheel->next_deadline) wheel->next_is_exact = false;
    if (casync__list_is_empty(prev)) { /* prev is the slot itself, and its last timer went */
        int level = casync__wheel_level_of(wheel->elapsed, deadline);
        wheel->levels[level]->occupied &= ~((uint64_t)1 << casync__wheel_slot_of(deadline, level));
        if (!wheel->levels[level]->occupied) wheel->occupied &= ~(1u << level);
        if (!wheel->occupied) wheel->next_deadline = UINT64_MAX;
    }
}

/* The first occupied slot, and when it begins. There must be one. */
static casync_link *casync__wheel_first(casync_wheel *wheel, int *level, uint64_t *begins) {
    int slot;
    uint64_t span;
    *level = casync__compiler_lowest_bit(wheel->occupied);
    slot = casync__compiler_lowest_bit(wheel->levels[*level]->occupied);
    span = casync__wheel_slot_duration(*level);
    *begins = wheel->elapsed / span / 64 * 64 * span + (uint64_t)slot * span;
    return &wheel->levels[*level]->slots[slot];
}

/* When the next timer is due. Unless exact is asked for, it may be earlier: the beginning of a
   slot. */
static int64_t casync__wheel_next(casync_wheel *wheel, bool exact) {
    int level, searched = 0;
    uint64_t begins, earliest = UINT64_MAX;
    casync_link *slot, *link;
    if (!casync__list_is_empty(&wheel->past)) return (int64_t)wheel->elapsed;
    if (!wheel->occupied) return CASYNC_FOREVER;
    if (wheel->next_is_exact) return (int64_t)wheel->next_deadline;
    slot = casync__wheel_first(wheel, &level, &begins);
    for (link = slot->next; link != slot; link = link->next) {
        if (++searched > CASYNC__WHEEL_CROWD && !exact) return (int64_t)begins;
        if ((uint64_t)casync__timer_of(link)->deadline < earliest)
            earliest = (uint64_t)casync__timer_of(link)->deadline;
    }
    wheel->next_deadline = earliest;
    wheel->next_is_exact = true;
    return (int64_t)earliest;
}

/* Merges two chains (linked by next, ended by NULL), a before b among equals. */
static casync_link *casync__timers_merge(casync_link *a, casync_link *b) {
    casync_link head, *last = &head;
    while (a && b) {
        casync_link **first =
            casync__timer_of(b)->deadline < casync__timer_of(a)->deadline ? &b : &a;
        last = last->next = *first;
        *first = (*first)->next;
    }
    last->next = a ? a : b;
    return head.next;
}

static bool casync__timers_are_sorted(const casync_link *list) {
    casync_link *link;
    for (link = list->next; link->next != list; link = link->next)
        if (casync__timer_of(link->next)->deadline < casync__timer_of(link)->deadline) return false;
    return true;
}

/* Stable bottom-up merge sort: runs[i] is a sorted chain of 2^i timers, older than those in
   runs[i-1]. */
static void casync__timers_sort(casync_link *list) {
    casync_link *runs[64], *chain = list->next, *sorted = NULL;
    int i, used = 0;
    if (casync__list_is_empty(list) || casync__timers_are_sorted(list)) return;
    list->prev->next = NULL;
    while (chain) {
        casync_link *run = chain;
        chain = chain->next;
        run->next = NULL;
        for (i = 0; i < used && runs[i]; i++) {
            run = casync__timers_merge(runs[i], run);
            runs[i] = NULL;
        }
        if (i == used) used++;
        runs[i] = run;
    }
    for (i = 0; i < used; i++)
        if (runs[i]) sorted = casync__timers_merge(runs[i], sorted);
    casync__list_init(list);
    while (sorted) {
        casync_link *next = sorted->next;
        casync__list_append(list, sorted);
        sorted = next;
    }
}

static bool casync__wheel_slot_is_crowded(const casync_link *slot) {
    const casync_link *link = slot->next;
    int count = 0;
    while (link != slot && ++count <= CASYNC__WHEEL_CROWD) link = link->next;
    return count > CASYNC__WHEEL_CROWD;
}

/* Puts timers in again after `elapsed` moved; those that it reached go to `due`. */
static void casync__wheel_insert_all(casync_wheel *wheel, casync_link *timers, casync_link *due) {
    while (!casync__list_is_empty(timers)) {
        casync_timer *timer = casync__timer_of(timers->next);
        casync__list_remove(&timer->job.link);
        if ((uint64_t)timer->deadline <= wheel->elapsed)
            casync__list_append(due, &timer->job.link);
        else
            casync__wheel_insert(wheel, timer);
    }
}

/* Splits a slot: timers due by now to `due`, in order; the others to `later`. */
static void casync__wheel_slot_split(casync_link *slot, int64_t now, casync_link *due,
                                     casync_link *later) {
    casync_link batch;
    casync__list_init(&batch);
    while (!casync__list_is_empty(slot)) {
        casync_timer *timer = casync__timer_of(slot->next);
        casync__list_remove(&timer->job.link);
        casync__list_append(timer->deadline <= now ? &batch : later, &timer->job.link);
    }
    casync__timers_sort(&batch);
    casync__list_move(due, &batch);
}

/* Moves the timers that are due at `now` to the ready queue. */
static void casync__wheel_advance(casync_loop *loop, int64_t now) {
    casync_wheel *wheel = &loop->wheel;
    casync_link slot, later;
    if (casync__list_is_empty(&wheel->past) && (uint64_t)now < wheel->next_deadline) return;
    casync__timers_sort(&wheel->past);
    casync__list_move(&loop->ready, &wheel->past);
    casync__list_init(&slot);
    casync__list_init(&later);
    while (wheel->occupied) {
        int level;
        uint64_t begins;
        casync_link *first = casync__wheel_first(wheel, &level, &begins);
        if (begins > (uint64_t)now) break;
        casync__list_move(&slot, first);
        wheel->levels[level]->occupied &= wheel->levels[level]->occupied - 1;
        if (!wheel->levels[level]->occupied) wheel->occupied &= ~(1u << level);
        if (level > 0 && casync__wheel_slot_is_crowded(&slot)) {
            wheel->elapsed = begins;
            casync__wheel_insert_all(wheel, &slot, &loop->ready);
        } else {
            casync__wheel_slot_split(&slot, now, &loop->ready, &later);
        }
    }
    if ((uint64_t)now > wheel->elapsed) wheel->elapsed = (uint64_t)now;
    casync__wheel_insert_all(wheel, &later, &loop->ready);
    wheel->next_is_exact = false;
    wheel->next_deadline = UINT64_MAX;
    if (wheel->occupied) wheel->next_deadline = (uint64_t)casync__wheel_next(wheel, false);
}

static void casync__wheel_close(casync_loop *loop) {
    casync_wheel *wheel = &loop->wheel;
    int level, slot;
    casync__jobs_drop(loop, &wheel->past);
    for (level = 0; level < 11; level++) {
        if (!wheel->levels[level]) continue;
        for (slot = 0; slot < 64; slot++)
            casync__jobs_drop(loop, &wheel->levels[level]->slots[slot]);
        casync__memory_free(&loop->allocator, wheel->levels[level]);
        wheel->levels[level] = NULL;
    }
    wheel->occupied = 0;
}

static void casync__timers_walk(casync_loop *loop, void (*visit)(int, void *, void *), void *arg) {
    int level, slot;
    casync__jobs_walk(&loop->wheel.past, visit, arg);
    for (level = 0; level < 11; level++)
        for (slot = 0; slot < 64 && loop->wheel.levels[level]; slot++)
            casync__jobs_walk(&loop->wheel.levels[level]->slots[slot], visit, arg);
}

static inline int casync__timer_references(const casync_timer *timer) {
    return timer->job.flags & CASYNC__JOB_UNREFERENCED ? 0 : 1;
}

static int64_t casync__timer_arm(casync_loop *loop, casync_timer *timer, int64_t when) {
    int64_t before = timer->deadline;
    timer->deadline = when < 0 ? 0 : when;
    if (casync__wheel_add(loop, timer) < 0) {
        timer->deadline = before;
        return -ENOMEM;
    }
    loop->active += casync__timer_references(timer);
    return 0;
}

/* A timer leaves the ready queue to be called: a repeating one is started again first. Its next
   deadline is the first of its series that lies ahead. */
static void casync__timer_prepare(casync_loop *loop, casync_timer *timer) {
    int64_t next;
    loop->active -= casync__timer_references(timer);
    if (timer->repeat == 0) return;
    next = casync__clock_add(timer->deadline, timer->repeat);
    if (next <= loop->now) {
        int64_t missed = (loop->now - timer->deadline) / timer->repeat;
        next = casync__clock_add(timer->deadline + missed * timer->repeat, timer->repeat);
    }
    if (casync__timer_arm(loop, timer, next) < 0) {
        casync_exception exception = casync__exception_make(
            "a repeating timer ends: no memory for a level of the wheel", -ENOMEM);
        casync_call_exception_handler(loop, &exception);
    }
}

static int64_t casync__timer_start_at(casync_loop *loop, casync_timer *timer, int64_t when,
                                      int64_t repeat, casync_callback callback, void *arg) {
    casync_timer *lent = NULL;
    if (!timer) timer = lent = casync__job_lend(loop);
    if (!timer) return -ENOMEM;
    CASYNC_ASSERT(casync__loop_in_thread(loop));
    if (casync__timer_arm(loop, timer, when) < 0) {
        if (lent) casync__job_return(loop, &lent->job);
        return -ENOMEM;
    }
    casync__job_init(loop, &timer->job, callback, arg);
    timer->job.flags |= CASYNC__JOB_TIMER;
    timer->repeat = repeat;
    return 0;
}

/* Meets the one failure that a start can have, before anything is changed. */
static int64_t casync__wheel_prepare(casync_loop *loop, int64_t when) {
    uint64_t key = when < 0 ? 0 : (uint64_t)when;
    if (key <= loop->wheel.elapsed) return 0;
    return casync__wheel_add_levels(loop, casync__wheel_level_of(loop->wheel.elapsed, key));
}

CASYNC__LINKAGE int64_t casync_call_at(casync_loop *loop, casync_timer *timer, int64_t when,
                                       casync_callback callback, void *arg) {
    if (casync__loop_is_closed(loop) || !callback) return -EINVAL;
    if (timer && timer->job.link.next) return -EALREADY;
    return casync__timer_start_at(loop, timer, when, 0, callback, arg);
}

CASYNC__LINKAGE int64_t casync_call_later(casync_loop *loop, casync_timer *timer, int64_t delay,
                                          casync_callback callback, void *arg) {
    return casync_call_at(loop, timer, casync__clock_add(casync_time(loop), delay), callback, arg);
}

CASYNC__LINKAGE int64_t casync_timer_stop(casync_timer *timer) {
    if (!timer) return 0;
    if (!timer->job.link.next) return 0;
    CASYNC_ASSERT(casync__loop_in_thread(timer->job.loop));
    casync__wheel_remove(timer->job.loop, timer);
    timer->job.loop->active -= casync__timer_references(timer);
    casync__job_release(timer->job.loop, &timer->job);
    return 1;
}

CASYNC__LINKAGE int64_t casync_timer_start(casync_loop *loop, casync_timer *timer, int64_t delay,
                                           int64_t repeat, casync_callback callback, void *arg) {
    int64_t when;
    if (casync__loop_is_closed(loop) || !timer || !callback || repeat < 0) return -EINVAL;
    when = casync__clock_add(casync_time(loop), delay);
    if (casync__wheel_prepare(loop, when) < 0) return -ENOMEM;
    casync_timer_stop(timer);
    return casync__timer_start_at(loop, timer, when, repeat, callback, arg);
}

CASYNC__LINKAGE int64_t casync_timer_again(casync_timer *timer) {
    if (!timer) return -EINVAL;
    if (!timer->job.loop || timer->repeat <= 0) return -EINVAL;
    return casync_timer_start(timer->job.loop, timer, timer->repeat, timer->repeat,
                              timer->job.callback, timer->job.arg);
}

CASYNC__LINKAGE int64_t casync_timer_remaining(const casync_timer *timer) {
    int64_t left;
    if (!timer) return CASYNC_INVALID_STATE;
    if (!timer->job.link.next) return CASYNC_INVALID_STATE;
    left = timer->deadline - casync_time(timer->job.loop);
    return left < 0 ? 0 : left;
}

CASYNC__LINKAGE void casync_timer_ref(casync_timer *timer, bool referenced) {
    int before;
    if (!timer) return;
    before = casync__timer_references(timer);
    timer->job.flags &= ~(uint32_t)CASYNC__JOB_UNREFERENCED;
    if (!referenced) timer->job.flags |= CASYNC__JOB_UNREFERENCED;
    if (timer->job.link.next) timer->job.loop->active += casync__timer_references(timer) - before;
}

/* >> futures (implementation) ------------------------------------------------------------------ */

/* A future's callbacks are jobs on a list of its own; when it is done the whole list is appended to
   the ready queue in O(1). Operations, tasks and waits begin with one, and the table of kinds tells
   how each is asked to end. No allocation, no system call. */

/* What a future is the first member of: X(kind, cancel, abandon, is_task). `cancel` is how it is
   asked to end; `abandon` ends, at once, what would make it done. */
#define CASYNC__FUTURE_KINDS(X)                                                                    \
    X(PLAIN, casync__future_cancel_now, casync__future_abandon_nothing, false)                     \
    X(OP, casync__future_cancel_now, casync__op_abandon, false)                                    \
    /* an operation that is not over when it is cancelled */                                       \
    X(CONDITION, casync__condition_cancel, casync__op_abandon, false)                              \
    X(TIMER, casync__future_cancel_now, casync__timer_op_abandon, false)                           \
    X(TASK, casync__task_future_cancel, casync__task_abandon, true)                                \
    X(FIBER, casync__task_future_cancel, casync__task_abandon, true) /* a stackful task */         \
    X(GATHER, casync__gather_cancel, casync__wait_set_abandon, false)                              \
    X(WAIT, casync__wait_cancel, casync__wait_set_abandon, false)                                  \
    X(SHIELD, casync__future_cancel_now, casync__shield_abandon, false)                            \
    X(GROUP, casync__group_cancel, casync__future_abandon_nothing, false)

#define CASYNC__FUTURE_ENUM(kind, cancel, abandon, is_task) CASYNC__FUTURE_##kind,
#define CASYNC__FUTURE_DECLARE(kind, cancel, abandon, is_task)                                     \
    static int64_t cancel(casync_future *future);                                                  \
    static void abandon(casync_future *future);
#define CASYNC__FUTURE_ROW(kind, cancel, abandon, is_task) {cancel, abandon, is_task},

enum { CASYNC__FUTURE_KINDS(CASYNC__FUTURE_ENUM) CASYNC__FUTURE_KIND_COUNT };
CASYNC__FUTURE_KINDS(CASYNC__FUTURE_DECLARE)

typedef struct casync__future_kind {
    int64_t (*cancel)(casync_future *future);
    void (*abandon)(casync_future *future);
    bool is_task;
} casync__future_kind;

/* By kind. */
static const casync__future_kind casync__future_kinds[CASYNC__FUTURE_KIND_COUNT] = {
    CASYNC__FUTURE_KINDS(CASYNC__FUTURE_ROW)};

/* What an operation gives that has no place for a future of its own. Never written. */
static casync_future casync__future_invalid = {
    {NULL, NULL}, NULL, -EINVAL, NULL, CASYNC_FUTURE_FAILED, 1, CASYNC__FUTURE_PLAIN};

static inline bool casync__future_is_task(const casync_future *future) {
    return casync__future_kinds[future->kind].is_task;
}
static inline bool casync__future_is_fiber(const casync_future *future) {
    return future->kind == CASYNC__FUTURE_FIBER;
}

static void casync__future_abandon_nothing(casync_future *future) { (void)future; }

static void casync__future_abandon(casync_future *future) {
    casync__future_kinds[future->kind].abandon(future);
}

static void casync__future_reset(casync_loop *loop, casync_future *future, int kind) {
    memset(future, 0, sizeof *future);
    casync__list_init(&future->callbacks);
    future->loop = loop;
    future->kind = (uint8_t)kind;
}

CASYNC__LINKAGE int64_t casync_future_init(casync_loop *loop, casync_future *future) {
    if (casync__loop_is_closed(loop) || !future) return -EINVAL;
    casync__future_reset(loop, future, CASYNC__FUTURE_PLAIN);
    return 0;
}

static void casync__task_interrupt(casync_task *task, casync_future *outcome);

/* Tells those who wait for a future that is about to go: tasks, and what the library itself waits
   with. */
static void casync__future_drop_callbacks(casync_loop *loop, casync_future *future) {
    while (!casync__list_is_empty(&future->callbacks)) {
        casync_job *job = casync__job_of(future->callbacks.next);
        if (job->flags & CASYNC__JOB_TASK) {
            casync__task_interrupt((casync_task *)job->arg, NULL);
            continue;
        }
        casync__list_remove(&job->link);
        if ((job->flags & CASYNC__JOB_INTERNAL) && !(job->flags & CASYNC__JOB_FINALLY))
            job->callback(job->arg);
        else
            casync__job_release(loop, job);
    }
}

CASYNC__LINKAGE void casync_future_close(casync_future *future) {
    casync_loop *loop = future ? future->loop : NULL;
    bool pending;
    if (!loop) return;
    pending = future->state == CASYNC_FUTURE_PENDING;
    if (casync__loop_is_closed(loop)) {
        future->loop = NULL;
        return;
    }
    if (future->state == CASYNC_FUTURE_FAILED && !future->retrieved) {
        casync_exception exception = casync__exception_make(
            "a future failed and nobody retrieved its error", future->result);
        exception.future = future;
        casync_call_exception_handler(loop, &exception);
    }
    if (pending && casync__future_is_task(future)) {
        casync__future_abandon(future); /* first: a pending task's result holds something else */
        pending = false;
    }
    if (pending) {
        future->state = CASYNC_FUTURE_CANCELLED;
        future->result = -ECANCELED;
    }
    casync__future_drop_callbacks(loop, future);
    future->loop = NULL;
    if (pending) casync__future_abandon(future); /* last: the future may be gone with it */
}

static void casync__future_end(casync_future *future, int state, int64_t result, void *ptr) {
    future->state = (uint8_t)state;
    future->result = result;
    future->ptr = ptr;
    if (!future->loop) return;
    CASYNC_ASSERT(casync__loop_in_thread(future->loop));
    casync__list_move(&future->loop->ready, &future->callbacks);
}

static void casync__future_set_result(casync_future *future, int64_t result, void *ptr) {
    if (future->state != CASYNC_FUTURE_PENDING) return;
    casync__future_end(future, result < 0 ? CASYNC_FUTURE_FAILED : CASYNC_FUTURE_DONE, result, ptr);
}

CASYNC__LINKAGE int64_t casync_future_set_result(casync_future *future, int64_t result, void *ptr) {
    if (!future) return -EINVAL;
    if (!future->loop) return CASYNC_INVALID_STATE;
    if (future->state != CASYNC_FUTURE_PENDING || future->kind != CASYNC__FUTURE_PLAIN)
        return CASYNC_INVALID_STATE;
    casync__future_set_result(future, result, ptr);
    return 0;
}

static int64_t casync__future_cancel_now(casync_future *future) {
    casync__future_end(future, CASYNC_FUTURE_CANCELLED, -ECANCELED, NULL);
    casync__future_abandon(future);
    return 1;
}

CASYNC__LINKAGE int64_t casync_future_cancel(casync_future *future) {
    if (!future || casync__loop_is_closed(future->loop)) return 0;
    if (future->state != CASYNC_FUTURE_PENDING) return 0;
    return casync__future_kinds[future->kind].cancel(future);
}

CASYNC__LINKAGE bool casync_future_done(const casync_future *future) {
    if (!future) return false;
    return future->state != CASYNC_FUTURE_PENDING;
}

CASYNC__LINKAGE int64_t casync_future_result(casync_future *future) {
    if (!future || future->state == CASYNC_FUTURE_PENDING) return CASYNC_INVALID_STATE;
    if (!future->retrieved) /* casync__future_deadlock is every thread's, and only read */
        future->retrieved = 1;
    return future->result;
}

CASYNC__LINKAGE int64_t casync_future_add_done_callback(casync_future *future, casync_job *job,
                                                        casync_callback callback, void *arg) {
    bool pending = future && future->state == CASYNC_FUTURE_PENDING;
    if (!future || casync__loop_is_closed(future->loop) || !callback) return -EINVAL;
    return casync__job_enqueue(future->loop, pending ? &future->callbacks : &future->loop->ready,
                               job, callback, arg);
}

/* >> operations (implementation) --------------------------------------------------------------- */

/* An operation (casync_op) is what a caller waits for. If it cannot be done at once its owner, such
   as a stream, a lock or a pool, keeps it and completes it later. The list below gives for each
   kind its owner, its name in a dump, and what to do when it is given up while it is pending.

   Costs: none beside those of its kind. The struct is the caller's. */

/* What an operation is for: X(kind, owner, name, abandon). `abandon` is told that the operation,
   which is in no list any more, was given up while it was pending. */
#define CASYNC__OP_KINDS(X)                                                                        \
    X(READABLE, DESCRIPTOR, "readable", casync__fd_abandon)                                        \
    X(WRITABLE, DESCRIPTOR, "writable", casync__fd_abandon)                                        \
    X(CALL, NONE, "call in a thread", casync__call_op_abandon)                                     \
    X(GETADDRINFO, OBJECT, "getaddrinfo", casync__name_question_abandon)                           \
    X(EVENT, OBJECT, "event", casync__op_abandon_nothing)                                          \
    X(LOCK, OBJECT, "lock", casync__op_abandon_nothing)                                            \
    X(READ_LOCK, OBJECT, "rwlock, to read", casync__rwlock_abandon)                                \
    X(WRITE_LOCK, OBJECT, "rwlock, to write", casync__rwlock_abandon)                              \
    X(CONDITION, OBJECT, "condition", casync__condition_abandon)                                   \
    X(SEMAPHORE, OBJECT, "semaphore", casync__op_abandon_nothing)                                  \
    X(BARRIER, OBJECT, "barrier", casync__barrier_abandon)                                         \
    X(WAIT_GROUP, OBJECT, "wait group", casync__op_abandon_nothing)                                \
    X(ONCE, OBJECT, "once", casync__op_abandon_nothing)                                            \
    X(PUT, OBJECT, "put to queue", casync__op_abandon_nothing)                                     \
    X(GET, OBJECT, "get from queue", casync__op_abandon_nothing)                                   \
    X(JOIN, OBJECT, "join of queue", casync__op_abandon_nothing)                                   \
    X(READ, DESCRIPTOR, "read", casync__stream_read_abandon)                                       \
    X(READ_EXACTLY, DESCRIPTOR, "read_exactly", casync__stream_read_abandon)                       \
    X(READ_FRAME, DESCRIPTOR, "read_until", casync__stream_read_abandon)                           \
    X(CONNECT, DESCRIPTOR, "connect", casync__stream_connect_abandon)                              \
    X(DRAIN, DESCRIPTOR, "drain", casync__op_abandon_nothing)                                      \
    X(WRITE_ALL, DESCRIPTOR, "write_all", casync__op_abandon_nothing)                              \
    X(SENDFILE, DESCRIPTOR, "sendfile", casync__stream_sendfile_abandon)                           \
    X(SENDFILE_COPY, DESCRIPTOR, "sendfile, by copy", casync__op_abandon_nothing)                  \
    X(FINISH, DESCRIPTOR, "finish", casync__endpoint_finish_abandon)                               \
    X(START_TLS, DESCRIPTOR, "start_tls", casync__stream_start_tls_abandon)                        \
    X(ACCEPT, DESCRIPTOR, "accept", casync__server_accept_abandon)                                 \
    X(SERVER_JOIN, DESCRIPTOR, "server", casync__op_abandon_nothing)                               \
    X(WAIT_CLIENTS, OBJECT, "clients of server", casync__op_abandon_nothing)                       \
    X(RECEIVE, DESCRIPTOR, "receive", casync__datagram_receive_abandon)                            \
    X(SEND, DESCRIPTOR, "send", casync__datagram_send_abandon)                                     \
    X(PROCESS, OBJECT, "process", casync__op_abandon_nothing)                                      \
    X(PID, OBJECT, "end of a pid", casync__process_pid_abandon)                                    \
    X(CHANGE, OBJECT, "change of a file", casync__watch_abandon)

#define CASYNC__OP_ENUM(kind, owner, name, abandon) CASYNC__OP_##kind,
#define CASYNC__OP_DECLARE(kind, owner, name, abandon) static void abandon(casync_op *op);
#define CASYNC__OP_ROW(kind, owner, name, abandon) {CASYNC__OP_OWNER_##owner, name, abandon},

/* An owner with a descriptor begins with a casync_watcher. */
enum { CASYNC__OP_OWNER_NONE, CASYNC__OP_OWNER_OBJECT, CASYNC__OP_OWNER_DESCRIPTOR };

enum { CASYNC__OP_KINDS(CASYNC__OP_ENUM) CASYNC__OP_KIND_COUNT };
CASYNC__OP_KINDS(CASYNC__OP_DECLARE)

typedef struct casync__op_kind {
    int owner;
    const char *name;
    void (*abandon)(casync_op *op);
} casync__op_kind;

/* By kind. */
static const casync__op_kind casync__op_kinds[CASYNC__OP_KIND_COUNT] = {
    CASYNC__OP_KINDS(CASYNC__OP_ROW)};

static void casync__op_abandon_nothing(casync_op *op) { (void)op; }

static void casync__op_abandon(casync_future *future) {
    casync_op *op = (casync_op *)(void *)future;
    if (op->link.next) casync__list_remove(&op->link);
    casync__op_kinds[op->kind].abandon(op); /* may free op */
}

static casync_future *casync__op_begin(casync_loop *loop, casync_op *op, int kind) {
    /* Nobody ever opened the stream: the operation fails, with or without a loop to tell it. */
    if (!loop) loop = casync_get_running_loop();
    memset(op, 0, sizeof *op);
    casync__future_reset(loop, &op->future, CASYNC__FUTURE_OP);
    op->kind = kind;
    return &op->future;
}

static casync_future *casync__op_done(casync_op *op, int64_t result, void *ptr) {
    if (op->link.next) casync__list_remove(&op->link);
    casync__future_set_result(&op->future, result, ptr);
    return &op->future;
}

static casync_future *casync__op_started(casync_op *op, int64_t result) {
    return result < 0 ? casync__op_done(op, result, NULL) : &op->future;
}

/* An operation on nothing, or without a place for its future. */
static casync_future *casync__op_invalid(casync_op *op) {
    if (!op) return &casync__future_invalid;
    casync__op_begin(NULL, op, CASYNC__OP_EVENT);
    return casync__op_done(op, -EINVAL, NULL);
}

/* Ends all operations of a list. */
static void casync__ops_done(casync_link *list, int64_t result) {
    while (list->next && !casync__list_is_empty(list))
        casync__op_done(casync__container(list->next, casync_op, link), result, NULL);
}

/* The stackful task that runs now, and so may wait; or NULL. Without a loop (a lock has none, nor
   has a stream that was never opened) it is that of this thread's. */
static inline casync_task *casync__fiber_current(const casync_loop *loop) {
    if (!loop) loop = casync_get_running_loop();
    return loop && loop->task && !loop->task->step ? loop->task : NULL;
}

static int64_t casync__await_forbidden(casync_loop *loop, const char *function);
CASYNC__COMPILER_INLINE int64_t casync__await(casync_task *task, casync_future *future);

/* May `function` wait, which was called in no other task than one of this loop? Else its user
   hears of it. */
static inline bool casync__await_is_allowed(casync_loop *loop, const char *function) {
    if (casync__fiber_current(loop)) return true;
    (void)casync__await_forbidden(loop, function);
    return false;
}

/* The current task waits for an operation that it began. */
static inline int64_t casync__await_op(casync_future *future) {
    return casync__await(future->loop->task, future);
}

/* The result of `wait`, where the task that calls a function may wait; -EPERM elsewhere. */
#define CASYNC__AWAIT_IF_ALLOWED(loop, wait)                                                       \
    (casync__await_is_allowed(loop, __func__) ? (wait) : -EPERM)

/* The result of the operation that `start` begins. */
#define CASYNC__AWAIT_OP(loop, start) CASYNC__AWAIT_IF_ALLOWED(loop, casync__await_op(start))

/* >> backend (implementation) ------------------------------------------------------------------ */

/* A backend tells when descriptors are ready, and a watcher stands for one descriptor. The code
   above tries first, and tries again when the watcher is ready. No other section knows how
   readiness is learned, so another backend (kqueue, io_uring by POLL_ADD, a simulation) is another
   casync__backend. A backend that completes operations by itself learns of them in
   casync__op_begin.

   The table `fds` maps a descriptor's number to its watcher and to a generation, which changes with
   each watcher. epoll hands back (generation, number), so an event that was meant for an earlier
   watcher is recognised. Such events exist: epoll watches the open file, not the number. It goes on
   while a dup or a forked child holds the file, and then cannot even be told to stop (EBADF,
   epoll(7) questions 6 and 9). The remedy is a new epoll instance in the old one's place.

   Costs: the first interest in a descriptor makes one epoll_ctl at once. Later changes are
   collected and made before the next wait, one epoll_ctl each, and none if they were undone
   meanwhile. Interest in reading that ends is left with the kernel until an event proves it wrong:
   a stream that is read again and again by operations makes no epoll_ctl. A wait brings up to 512
   events. While the kernel refuses an interest, a wait lasts 100 ms at most. */

/* What a watcher may want: bits of a byte. END, that the peer sends no more, is EPOLLRDHUP to the
   kernel. */
enum { CASYNC__FD_READ = EPOLLIN, CASYNC__FD_WRITE = EPOLLOUT, CASYNC__FD_END = 2 };
#define CASYNC__EPOLL_EVENTS_MAX 512
#define CASYNC__BACKEND_REFUSED_RETRY CASYNC_MS(100)
#define CASYNC__FDS_MIN 16u
enum {
    CASYNC__WATCHER_REGISTERED = 1,
    CASYNC__WATCHER_UNREFERENCED = 2,
    CASYNC__WATCHER_REFUSED = 4,
    CASYNC__WATCHER_KEPT = 8
};
#define CASYNC__EPOLL_WAKEUP_DATA UINT64_MAX

typedef struct casync__fd_row {
    casync_watcher *watcher;
    uint64_t key; /* the data of its events: generation in the upper half, descriptor in the
                     lower */
} casync__fd_row;

#define CASYNC__FD_GENERATION ((uint64_t)1 << 32)

typedef struct casync__backend {
    const char *name;
    int64_t (*open)(casync_loop *loop);
    /* Makes the kernel's interest (watcher->armed) that of the watcher (watcher->wanted). */
    int64_t (*submit)(casync_loop *loop, casync_watcher *watcher);
    /* No event of this watcher may come any more. */
    void (*cancel)(casync_loop *loop, casync_watcher *watcher);
    /* Is the kernel's interest still in the file that it was asked to watch? */
    bool (*check)(casync_loop *loop, casync_watcher *watcher);
    /* Waits at most `timeout` and makes ready what is ready. */
    int64_t (*reap)(casync_loop *loop, int64_t timeout);
    /* Ends a wait from any thread or signal handler. */
    void (*wake)(casync_loop *loop);
    void (*close)(casync_loop *loop);
    /* In a forked child: as open, with everything that is watched registered again. */
    int64_t (*fork)(casync_loop *loop);
} casync__backend;

/* Whose a watcher is: X(kind, walked, refused). `walked` is what casync_walk calls it, -1 if it is
   hidden. `refused` is told that the kernel will not watch the descriptor, and fails what waits
   for it: true if that is the end of the matter, else it is tried again. */
#define CASYNC__WATCHER_KINDS(X)                                                                   \
    X(USER, CASYNC_KIND_WATCHER, casync__watcher_refused)                                          \
    X(INTERNAL, -1, casync__watcher_refused)                                                       \
    X(FD_WAITS, -1, casync__fd_waits_refused)      /* allocated: the head of a casync__fd_waits */ \
    X(ATTEMPT, -1, casync__stream_attempt_refused) /* the same of a casync__stream_attempt */      \
    X(LISTENER, -1, casync__server_listener_refused) /* the same of a casync__server_listener */   \
    X(PROCESS, -1, casync__process_refused)          /* of a pidfd */                              \
    X(WATCH, -1, casync__watch_refused)              /* of an inotify instance */                  \
    /* from here on: what must be closed before the loop */                                        \
    X(STREAM, CASYNC_KIND_STREAM, casync__stream_refused)                                          \
    X(SERVER, CASYNC_KIND_SERVER, casync__server_refused)                                          \
    X(DATAGRAM, CASYNC_KIND_DATAGRAM, casync__datagram_refused)

#define CASYNC__WATCHER_ENUM(kind, walked, refused) CASYNC__WATCHER_##kind,
#define CASYNC__WATCHER_DECLARE(kind, walked, refused)                                             \
    static bool refused(casync_watcher *watcher, int64_t error);
#define CASYNC__WATCHER_ROW(kind, walked, refused) {walked, refused},

enum { CASYNC__WATCHER_KINDS(CASYNC__WATCHER_ENUM) CASYNC__WATCHER_KIND_COUNT };
CASYNC__WATCHER_KINDS(CASYNC__WATCHER_DECLARE)

typedef struct casync__watcher_kind {
    int walked;
    bool (*refused)(casync_watcher *watcher, int64_t error);
} casync__watcher_kind;

/* By kind. */
static const casync__watcher_kind casync__watcher_kinds[CASYNC__WATCHER_KIND_COUNT] = {
    CASYNC__WATCHER_KINDS(CASYNC__WATCHER_ROW)};

static inline casync_watcher *casync__watcher_of(casync_link *changed) {
    return casync__container(changed, casync_watcher, changed);
}

static void casync__watcher_mark_changed(casync_loop *loop, casync_watcher *watcher) {
    if (!watcher->changed.next) casync__list_append(&loop->changed, &watcher->changed);
}

static inline bool casync__watcher_is_resting(const casync_watcher *watcher) {
    return (watcher->flags & CASYNC__WATCHER_KEPT) && !watcher->wanted;
}

static casync_watcher *casync__watcher_at(const casync_loop *loop, int fd) {
    return fd >= 0 && (uint32_t)fd < loop->fds_size ? loop->fds[fd].watcher : NULL;
}

/* The next watcher from descriptor *fd on, which goes behind it; NULL at the end. */
static casync_watcher *casync__watcher_next(const casync_loop *loop, uint32_t *fd) {
    casync_watcher *watcher = NULL;
    while (!watcher && *fd < loop->fds_size) watcher = loop->fds[(*fd)++].watcher;
    return watcher;
}

static int64_t casync__fds_grow(casync_loop *loop, int fd) {
    uint32_t size = loop->fds_size ? loop->fds_size : CASYNC__FDS_MIN, i;
    casync__fd_row *rows;
    while (size <= (uint32_t)fd) size *= 2;
    rows =
        (casync__fd_row *)casync__memory_realloc(&loop->allocator, loop->fds, size * sizeof *rows);
    if (!rows) return -ENOMEM;
    for (i = loop->fds_size; i < size; i++) {
        rows[i].watcher = NULL;
        rows[i].key = i;
    }
    loop->fds = rows;
    loop->fds_size = size;
    return 0;
}

static inline bool casync__watcher_is_registered(const casync_watcher *watcher) {
    return (watcher->flags & CASYNC__WATCHER_REGISTERED) != 0;
}

/* Keeps the counts of what is awaited when a watcher begins (sign 1) or ends (-1) to want
   something. */
static void casync__watcher_count(casync_watcher *watcher, int sign) {
    casync_loop *loop = watcher->reader.loop;
    if (watcher->kind != CASYNC__WATCHER_INTERNAL) loop->fds_active += (uint32_t)sign;
    if (!(watcher->flags & CASYNC__WATCHER_UNREFERENCED)) loop->active += sign;
}

static void casync__watcher_set_wanted(casync_watcher *watcher, int events) {
    bool wanted = watcher->wanted != 0;
    watcher->wanted = (uint8_t)events;
    if (wanted != (events != 0)) casync__watcher_count(watcher, events ? 1 : -1);
}

static void casync__watcher_start(casync_watcher *watcher, int event) {
    casync_loop *loop = watcher->reader.loop;
    if (watcher->wanted & event) return;
    casync__watcher_set_wanted(watcher, watcher->wanted | event);
    loop->empty_polls = 0; /* what the kernel is asked is new */
    if (watcher->wanted != watcher->armed) casync__watcher_mark_changed(loop, watcher);
}

/* Reading that lapses is not told to the kernel before an event shows that it matters; writing is:
   a socket is nearly always writable. */
static void casync__watcher_stop(casync_watcher *watcher, int event) {
    if (!(watcher->wanted & event)) return;
    casync__watcher_set_wanted(watcher, watcher->wanted & ~event);
    casync_job_cancel(event == CASYNC__FD_WRITE ? &watcher->writer : &watcher->reader);
    if (event == CASYNC__FD_WRITE) casync__watcher_mark_changed(watcher->reader.loop, watcher);
}

/* The descriptor will be closed soon: no job of the watcher runs any more. */
static void casync__watcher_quiet(casync_watcher *watcher) {
    casync__watcher_set_wanted(watcher, 0);
    casync_job_cancel(&watcher->reader);
    casync_job_cancel(&watcher->writer);
    if (watcher->changed.next) casync__list_remove(&watcher->changed);
}

/* Takes the descriptor from the watcher. `closing`: nobody else holds the file, and the caller
   closes it now, so the kernel forgets it without being told. */
static void casync__watcher_unregister(casync_watcher *watcher, bool closing) {
    casync_loop *loop = watcher->reader.loop;
    if (!casync__watcher_is_registered(watcher)) return;
    casync__watcher_quiet(watcher);
    if (watcher->armed && !closing) loop->backend->cancel(loop, watcher);
    watcher->armed = 0;
    watcher->flags &= CASYNC__WATCHER_UNREFERENCED;
    loop->fds[watcher->fd].watcher = NULL;
    /* events on their way are stale from here on */
    loop->fds[watcher->fd].key += CASYNC__FD_GENERATION;
}

/* Gives the descriptor to the watcher. */
static int64_t casync__watcher_register(casync_loop *loop, casync_watcher *watcher, int fd,
                                        int kind) {
    casync_watcher *before;
    if (casync__loop_is_closed(loop)) return -EINVAL;
    if (fd < 0) return -EBADF;
    if (casync__loop_is_forked(loop)) return -ECHILD;
    CASYNC_ASSERT(casync__loop_in_thread(loop));
    if ((uint32_t)fd >= loop->fds_size) { /* no table for a number that is no descriptor */
        if (casync__sys_fcntl(fd, F_GETFD, 0) < 0) return -EBADF;
        if (casync__fds_grow(loop, fd) < 0) return -ENOMEM;
    }
    before = loop->fds[fd].watcher;
    if (before && !casync__watcher_is_resting(before)) return -EEXIST;
    if (before) casync__watcher_unregister(before, false);
    loop->fds[fd].watcher = watcher;
    watcher->fd = fd;
    watcher->kind = (uint8_t)kind;
    watcher->flags |= CASYNC__WATCHER_REGISTERED;
    watcher->wanted = watcher->armed = 0;
    watcher->reader.loop = watcher->writer.loop = loop;
    watcher->reader.flags = watcher->writer.flags = CASYNC__JOB_INTERNAL;
    return 0;
}

/* The descriptor of this watcher is ready for `events`, or has failed or hung up, which is both, as
   in asyncio's selectors. */
static inline void casync__watcher_ready(casync_loop *loop, casync_watcher *watcher,
                                         uint32_t events) {
    /* Its descriptor may be closed, and the kernel deaf: what comes after this one is stale. */
    if (casync__watcher_is_resting(watcher)) {
        casync__watcher_unregister(watcher, false);
        return;
    }
    if ((events & ~(uint32_t)EPOLLOUT) && (watcher->wanted & CASYNC__FD_READ))
        casync__job_make_ready(loop, &watcher->reader);
    else if ((events & ~(uint32_t)(EPOLLOUT | EPOLLIN)) && (watcher->wanted & CASYNC__FD_END))
        casync__job_make_ready(loop, &watcher->reader);
    if ((events & ~(uint32_t)EPOLLIN) && (watcher->wanted & CASYNC__FD_WRITE))
        casync__job_make_ready(loop, &watcher->writer);
    if (watcher->wanted != watcher->armed) casync__watcher_mark_changed(loop, watcher);
}

/* The registration of the wakeup eventfd is edge-triggered: each write is an event, and nobody
   needs to read it. */
static int64_t casync__epoll_add_wakeup(casync_loop *loop, int epfd) {
    casync__epoll_event event;
    event.events = EPOLLIN | EPOLLET;
    event.data = CASYNC__EPOLL_WAKEUP_DATA;
    return casync__sys_epoll_ctl(epfd, EPOLL_CTL_ADD, loop->wakeup_fd, &event);
}

static void casync__epoll_close(casync_loop *loop) {
    if (loop->backend_fd >= 0) casync__sys_close(loop->backend_fd);
    if (loop->wakeup_fd >= 0) casync__sys_close(loop->wakeup_fd);
    loop->backend_fd = loop->wakeup_fd = -1;
}

static int64_t casync__epoll_open(casync_loop *loop) {
    int64_t result;
    loop->backend_fd = loop->wakeup_fd = -1;
    result = casync__sys_epoll_create();
    if (result < 0) return result;
    loop->backend_fd = (int)result;
    result = casync__sys_eventfd();
    if (result >= 0) {
        loop->wakeup_fd = (int)result;
        result = casync__epoll_add_wakeup(loop, loop->backend_fd);
    }
    if (result < 0) casync__epoll_close(loop);
    return result;
}

static int64_t casync__epoll_submit(casync_loop *loop, casync_watcher *watcher) {
    casync__epoll_event event;
    int64_t result;
    int op = watcher->armed == 0    ? EPOLL_CTL_ADD
             : watcher->wanted == 0 ? EPOLL_CTL_DEL
                                    : EPOLL_CTL_MOD;
    if (watcher->wanted == watcher->armed) return 0;
    if (casync__loop_is_forked(loop)) return -ECHILD;
    event.events = watcher->wanted & (EPOLLIN | EPOLLOUT);
    if (watcher->wanted & CASYNC__FD_END) event.events |= EPOLLRDHUP;
    event.data = loop->fds[watcher->fd].key;
    result = casync__sys_epoll_ctl(loop->backend_fd, op, watcher->fd, &event);
    /* The descriptor was closed and its number used again behind our back, or it is still
       registered from before: the kernel's view is the truth. */
    if (result == -ENOENT && op == EPOLL_CTL_MOD)
        result = casync__sys_epoll_ctl(loop->backend_fd, EPOLL_CTL_ADD, watcher->fd, &event);
    else if (result == -EEXIST)
        result = casync__sys_epoll_ctl(loop->backend_fd, EPOLL_CTL_MOD, watcher->fd, &event);
    else if (op == EPOLL_CTL_DEL)
        result = 0; /* gone, or stale: then its next event rebuilds the instance */
    if (result == 0) watcher->armed = watcher->wanted;
    return result;
}

static void casync__epoll_cancel(casync_loop *loop, casync_watcher *watcher) {
    watcher->wanted = 0;
    casync__epoll_submit(loop, watcher);
    watcher->armed = 0;
}

/* The kernel refuses to add the file that it watches already. */
static bool casync__epoll_check(casync_loop *loop, casync_watcher *watcher) {
    casync__epoll_event event;
    event.events = watcher->armed & (EPOLLIN | EPOLLOUT);
    event.data = loop->fds[watcher->fd].key;
    return casync__sys_epoll_ctl(loop->backend_fd, EPOLL_CTL_ADD, watcher->fd, &event) == -EEXIST;
}

/* Registers everything anew in the present instance. */
static void casync__epoll_register_all(casync_loop *loop) {
    casync_watcher *watcher;
    uint32_t fd = 0;
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL) {
        watcher->armed = 0;
        if (watcher->wanted) casync__watcher_mark_changed(loop, watcher);
    }
}

/* Replaces the epoll instance, under the same descriptor, so that hosts of the loop need not
   know. */
static int64_t casync__epoll_rebuild(casync_loop *loop) {
    int64_t fresh = casync__sys_epoll_create(), result;
    if (fresh < 0) return fresh;
    result = casync__epoll_add_wakeup(loop, (int)fresh);
    if (result == 0) result = casync__sys_dup3((int)fresh, loop->backend_fd);
    casync__sys_close((int)fresh);
    if (result < 0) return result;
    casync__epoll_register_all(loop);
    return 0;
}

/* In the child the instance is shared with the parent: closing our descriptors leaves the
   parent's. */
static int64_t casync__epoll_fork(casync_loop *loop) {
    int64_t result;
    casync__epoll_close(loop);
    result = casync__epoll_open(loop);
    if (result == 0) casync__epoll_register_all(loop);
    return result;
}

/* An event for a watcher that is gone. True if the instance was replaced: the other events are
   void then. */
static bool casync__epoll_stale(casync_loop *loop, uint32_t fd) {
    bool reused = fd < loop->fds_size && loop->fds[fd].watcher;
    casync__epoll_event unused;
    casync_exception exception;
    int64_t result;
    if (!reused && casync__sys_epoll_ctl(loop->backend_fd, EPOLL_CTL_DEL, (int)fd, &unused) == 0)
        return false;
    result = casync__epoll_rebuild(loop);
    if (result == 0) {
        loop->rebuild_failed = false;
        return true;
    }
    exception = casync__exception_make(
        "events of a closed descriptor cannot be ended, and keep the loop busy", result);
    if (!loop->rebuild_failed) casync_call_exception_handler(loop, &exception);
    /* until the next of these events, which comes with the next poll */
    loop->rebuild_failed = true;
    return false;
}

/* The kernel does not know the call, or a sandbox that does not lets nobody make it
   (seccomp(2)). */
static bool casync__sys_is_refused(int64_t result) { return result == -ENOSYS || result == -EPERM; }

static int64_t casync__epoll_wait(casync_loop *loop, casync__epoll_event *events, int64_t timeout) {
    int64_t count = -ENOSYS;
    int milliseconds;
    if (timeout > 0 && timeout != CASYNC_FOREVER &&
        !casync__atomic_load(&casync__process.no_epoll_pwait2)) {
        count =
            casync__sys_epoll_pwait2(loop->backend_fd, events, CASYNC__EPOLL_EVENTS_MAX, timeout);
        if (!casync__sys_is_refused(count)) return count;
        casync__atomic_store(&casync__process.no_epoll_pwait2, 1);
    }
    /* Rounded up: never early. */
    milliseconds = timeout == CASYNC_FOREVER           ? -1
                   : timeout >= CASYNC_MS(INT_MAX - 1) ? INT_MAX
                                                       : (int)((timeout + 999999) / 1000000);
    return casync__sys_epoll_wait(loop->backend_fd, events, CASYNC__EPOLL_EVENTS_MAX, milliseconds);
}

static int64_t casync__epoll_reap(casync_loop *loop, int64_t timeout) {
    casync__epoll_event events[CASYNC__EPOLL_EVENTS_MAX];
    int64_t count, i;
    if (loop->before_wait) loop->before_wait(loop->arg, timeout);
    count = casync__epoll_wait(loop, events, timeout);
    if (loop->after_wait) loop->after_wait(loop->arg, timeout);
    /* what was posted meanwhile comes before the events, as in asyncio */
    casync__posts_take(loop);
    if (count == -EINTR) return 0;
    if (count > 0) loop->events += (uint64_t)count;
    for (i = 0; i < count; i++) {
        uint32_t fd = (uint32_t)events[i].data;
        if (fd < loop->fds_size && loop->fds[fd].key == events[i].data)
            casync__watcher_ready(loop, loop->fds[fd].watcher, events[i].events);
        else if (events[i].data != CASYNC__EPOLL_WAKEUP_DATA && casync__epoll_stale(loop, fd))
            return 0;
    }
    return count < 0 ? count : 0;
}

static void casync__epoll_wake(casync_loop *loop) {
    uint64_t one = 1;
    /* EAGAIN, the one error possible, means the counter is full: then it is readable already. */
    (void)casync__sys_write(loop->wakeup_fd, &one, sizeof one);
}

static const casync__backend casync__epoll = {"epoll",
                                              casync__epoll_open,
                                              casync__epoll_submit,
                                              casync__epoll_cancel,
                                              casync__epoll_check,
                                              casync__epoll_reap,
                                              casync__epoll_wake,
                                              casync__epoll_close,
                                              casync__epoll_fork};

static int64_t casync__backend_open(casync_loop *loop) {
    loop->backend = &casync__epoll;
    return loop->backend->open(loop);
}

/* A post finds that there is none. */
static void casync__backend_close(casync_loop *loop) {
    loop->backend->close(loop);
    loop->backend = NULL;
}

/* The user's watchers, and the library's own, are tried again. */
static bool casync__watcher_refused(casync_watcher *watcher, int64_t error) {
    return (void)watcher, (void)error, false;
}

/* The kernel refused an interest, which is in the list of those to be tried again. Want of memory
   passes; any other refusal lasts (ENOSPC, EPERM, EBADF), and fails who waits. What nobody waits
   for by an operation is reported once. */
static void casync__watcher_interest_refused(casync_loop *loop, casync_watcher *watcher,
                                             int64_t error) {
    bool passes = error == -ENOMEM || error == -ECHILD,
         reported = watcher->flags & CASYNC__WATCHER_REFUSED;
    casync_exception exception =
        casync__exception_make("the kernel refuses to watch a descriptor", error);
    watcher->flags |= CASYNC__WATCHER_REFUSED;
    if (!passes && casync__watcher_kinds[watcher->kind].refused(watcher, error)) return;
    if (!reported) casync_call_exception_handler(loop, &exception);
}

/* Tells the kernel of the interests that changed. What it refuses is tried again at each poll. */
static void casync__backend_flush(casync_loop *loop) {
    casync_link refused;
    casync__list_init(&refused);
    while (!casync__list_is_empty(&loop->changed)) {
        casync_watcher *watcher = casync__watcher_of(loop->changed.next);
        int64_t result = loop->backend->submit(loop, watcher);
        casync__list_remove(&watcher->changed);
        watcher->flags &= result < 0 ? UINT8_MAX : (uint8_t)~CASYNC__WATCHER_REFUSED;
        if (result == 0) continue;
        casync__list_append(&refused, &watcher->changed);
        casync__watcher_interest_refused(loop, watcher, result);
    }
    casync__list_move(&loop->changed, &refused);
}

/* Waits no longer than until what the kernel refused is to be tried again. */
static int64_t casync__backend_limit_wait(const casync_loop *loop, int64_t timeout) {
    bool refused = !casync__list_is_empty(&loop->changed);
    return refused && timeout > CASYNC__BACKEND_REFUSED_RETRY ? CASYNC__BACKEND_REFUSED_RETRY
                                                              : timeout;
}

/* A post or wake that comes before `sleeping` is set is seen here; one that comes after writes the
   eventfd. */
static int64_t casync__backend_poll(casync_loop *loop, int64_t timeout) {
    int64_t result, began = 0;
    bool waits = timeout > 0;
    if (!casync__list_is_empty(&loop->changed)) casync__backend_flush(loop);
    if (waits) {
        timeout = casync__loop_has_work(loop) ? 0 : casync__backend_limit_wait(loop, timeout);
        if (loop->stacks) casync__stacks_trim(loop->stacks);
        casync__atomic_exchange(&loop->sleeping, 1);
        if (loop->stopping || casync__atomic_load_pointer(&loop->posted) ||
            casync__atomic_load(&loop->woken))
            timeout = 0;
    }
    loop->polls++;
    if (waits && loop->measures) began = casync__clock_monotonic();
    result = loop->backend->reap(loop, timeout);
    if (waits && loop->measures) loop->idle_time += casync__clock_monotonic() - began;
    casync__atomic_store(&loop->sleeping, 0);
    if (waits) casync__atomic_store(&loop->woken, 0);
    return result;
}

/* >> fd watchers (implementation) -------------------------------------------------------------- */

/* Each row of the table above points to a watcher. A watcher has two jobs, one per direction, which
   events put into the ready queue, so they are ordered and cancelled as any other job is. `kind`
   says what the watcher is a part of: it may stand alone, or belong to a stream, a server, a
   datagram socket or the library itself. A kept watcher stays armed while nothing is wanted of it.
   It rests until it is started again, or another watcher takes its descriptor, or an event comes.
   Operations that wait for the same descriptor share one record, whose first member is their
   watcher.

   Costs: see the backend. The table has 16 bytes per descriptor number, and doubles when needed. */

static int64_t casync__watcher_add(casync_loop *loop, casync_watcher *watcher, int kind, int fd,
                                   int event, casync_callback callback, void *arg) {
    casync_job *job;
    int64_t result;
    if (casync__loop_is_closed(loop) || !watcher || !callback) return -EINVAL;
    CASYNC_ASSERT(casync__loop_in_thread(loop));
    job = event == CASYNC__FD_READ ? &watcher->reader : &watcher->writer;
    if (casync__watcher_is_registered(watcher)) {
        if (watcher->fd != fd || watcher->reader.loop != loop) return -EBUSY;
        casync__job_init(loop, job, callback, arg);
        casync__watcher_start(watcher, event);
        return 0;
    }
    result = casync__watcher_register(loop, watcher, fd, kind);
    if (result < 0) return result;
    casync__job_init(loop, job, callback, arg);
    casync__watcher_set_wanted(watcher, event);
    loop->empty_polls = 0;
    /* at once: the caller hears if it cannot be watched */
    result = loop->backend->submit(loop, watcher);
    if (result < 0) casync__watcher_unregister(watcher, true);
    return result;
}

static int64_t casync__watcher_remove(casync_watcher *watcher, int event) {
    if (!watcher || !casync__watcher_is_registered(watcher) || !(watcher->wanted & event)) return 0;
    CASYNC_ASSERT(casync__loop_in_thread(watcher->reader.loop));
    casync__watcher_stop(watcher, event);
    if (!watcher->wanted && !(watcher->flags & CASYNC__WATCHER_KEPT))
        casync__watcher_unregister(watcher, false);
    return 1;
}

CASYNC__LINKAGE int64_t casync_add_reader(casync_loop *loop, casync_watcher *watcher, int fd,
                                          casync_callback callback, void *arg) {
    return casync__watcher_add(loop, watcher, CASYNC__WATCHER_USER, fd, CASYNC__FD_READ, callback,
                               arg);
}

CASYNC__LINKAGE int64_t casync_add_writer(casync_loop *loop, casync_watcher *watcher, int fd,
                                          casync_callback callback, void *arg) {
    return casync__watcher_add(loop, watcher, CASYNC__WATCHER_USER, fd, CASYNC__FD_WRITE, callback,
                               arg);
}

CASYNC__LINKAGE int64_t casync_remove_reader(casync_watcher *watcher) {
    return casync__watcher_remove(watcher, CASYNC__FD_READ);
}

CASYNC__LINKAGE int64_t casync_remove_writer(casync_watcher *watcher) {
    return casync__watcher_remove(watcher, CASYNC__FD_WRITE);
}

CASYNC__LINKAGE void casync_watcher_keep(casync_watcher *watcher, bool keep) {
    if (!watcher) return;
    if (!casync__watcher_is_registered(watcher)) return;
    CASYNC_ASSERT(casync__loop_in_thread(watcher->reader.loop));
    watcher->flags &= (uint8_t)~CASYNC__WATCHER_KEPT;
    if (keep)
        watcher->flags |= CASYNC__WATCHER_KEPT;
    else if (!watcher->wanted)
        casync__watcher_unregister(watcher, false);
}

/* Is the watcher one that the library has for itself, or at rest? */
static bool casync__watcher_is_hidden(const casync_watcher *watcher) {
    return casync__watcher_kinds[watcher->kind].walked < 0 || casync__watcher_is_resting(watcher);
}

CASYNC__LINKAGE casync_watcher *casync_watcher_find(casync_loop *loop, int fd) {
    casync_watcher *watcher;
    if (casync__loop_is_closed(loop)) return NULL;
    watcher = casync__watcher_at(loop, fd);
    return watcher && !casync__watcher_is_hidden(watcher) ? watcher : NULL;
}

CASYNC__LINKAGE int64_t casync_watcher_check(casync_watcher *watcher) {
    casync_loop *loop;
    if (!watcher) return -EINVAL;
    loop = watcher->reader.loop;
    if (!watcher->armed) return CASYNC_INVALID_STATE;
    return loop->backend->check(loop, watcher);
}

CASYNC__LINKAGE int casync_watcher_kind(const casync_watcher *watcher) {
    int walked = watcher ? casync__watcher_kinds[watcher->kind].walked : -1;
    return walked < 0 ? CASYNC_KIND_WATCHER : walked;
}

CASYNC__LINKAGE void casync_watcher_ref(casync_watcher *watcher, bool referenced) {
    bool counted;
    if (!watcher) return;
    counted = casync__watcher_is_registered(watcher) && watcher->wanted;
    if (counted) casync__watcher_count(watcher, -1);
    watcher->flags &= (uint8_t)~CASYNC__WATCHER_UNREFERENCED;
    if (!referenced) watcher->flags |= CASYNC__WATCHER_UNREFERENCED;
    if (counted) casync__watcher_count(watcher, 1);
}

static bool casync__loop_has_endpoints(casync_loop *loop) {
    casync_watcher *watcher;
    uint32_t fd = 0;
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL)
        if (watcher->kind >= CASYNC__WATCHER_STREAM) return true;
    return false;
}

/* The instance is closed next, which ends all registrations: the kernel need not hear of each. */
static void casync__watchers_close(casync_loop *loop) {
    casync_watcher *watcher;
    uint32_t fd = 0;
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL) {
        casync__watcher_unregister(watcher, true);
        if (watcher->kind == CASYNC__WATCHER_FD_WAITS)
            casync__memory_free(&loop->allocator, watcher);
    }
    casync__memory_free(&loop->allocator, loop->fds);
    loop->fds = NULL;
    loop->fds_size = 0;
}

static void casync__watchers_walk(casync_loop *loop, void (*visit)(int, void *, void *),
                                  void *arg) {
    casync_watcher *watcher;
    uint32_t fd = 0;
    /* The watcher is the first member of a stream, of a server and of a datagram. */
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL)
        if (!casync__watcher_is_hidden(watcher))
            visit(casync__watcher_kinds[watcher->kind].walked, watcher, arg);
}

/* -- waiting for a descriptor -- */

/* Those who wait for one descriptor: there can be only one watcher for all of them. */
typedef struct casync__fd_waits {
    casync_watcher watcher;
    casync_link readers, writers; /* casync_op by link */
} casync__fd_waits;

/* Ends the watching that nobody waits for any more. */
static void casync__fd_waits_update(casync__fd_waits *waits) {
    casync_loop *loop = waits->watcher.reader.loop;
    if (casync__list_is_empty(&waits->readers)) casync_remove_reader(&waits->watcher);
    if (casync__list_is_empty(&waits->writers)) casync_remove_writer(&waits->watcher);
    if (!casync__watcher_is_registered(&waits->watcher))
        casync__memory_free(&loop->allocator, waits);
}

static void casync__fd_abandon(casync_op *op) {
    casync__fd_waits_update((casync__fd_waits *)op->owner);
}

static void casync__fd_readable(void *arg) {
    casync__fd_waits *waits = (casync__fd_waits *)arg;
    casync__ops_done(&waits->readers, 0);
    casync__fd_waits_update(waits);
}

static void casync__fd_writable(void *arg) {
    casync__fd_waits *waits = (casync__fd_waits *)arg;
    casync__ops_done(&waits->writers, 0);
    casync__fd_waits_update(waits);
}

static bool casync__fd_waits_refused(casync_watcher *watcher, int64_t error) {
    casync__fd_waits *waits = (casync__fd_waits *)(void *)watcher;
    casync__ops_done(&waits->readers, error);
    casync__ops_done(&waits->writers, error);
    casync__fd_waits_update(waits);
    return true;
}

/* The record of the descriptor, or a new one that does not watch yet. */
static casync__fd_waits *casync__fd_waits_get(casync_loop *loop, int fd) {
    casync_watcher *watcher = casync__watcher_at(loop, fd);
    casync__fd_waits *waits;
    if (watcher && watcher->kind == CASYNC__WATCHER_FD_WAITS)
        return casync__container(watcher, casync__fd_waits, watcher);
    waits = (casync__fd_waits *)casync__memory_realloc(&loop->allocator, NULL, sizeof *waits);
    if (!waits) return NULL;
    memset(waits, 0, sizeof *waits);
    casync__list_init(&waits->readers);
    casync__list_init(&waits->writers);
    return waits;
}

static casync_future *casync__fd_op_begin(casync_loop *loop, casync_op *op, int fd, bool writes) {
    casync__fd_waits *waits;
    int64_t result;
    if (casync__loop_is_closed(loop) || !op) return casync__op_invalid(op);
    casync__op_begin(loop, op, writes ? CASYNC__OP_WRITABLE : CASYNC__OP_READABLE);
    waits = casync__fd_waits_get(loop, fd);
    if (!waits) return casync__op_done(op, -ENOMEM, NULL);
    result = casync__watcher_add(loop, &waits->watcher, CASYNC__WATCHER_FD_WAITS, fd,
                                 writes ? CASYNC__FD_WRITE : CASYNC__FD_READ,
                                 writes ? casync__fd_writable : casync__fd_readable, waits);
    if (result < 0) {
        if (!casync__watcher_is_registered(&waits->watcher))
            casync__memory_free(&loop->allocator, waits);
        return casync__op_done(op, result, NULL);
    }
    op->owner = waits;
    casync__list_append(writes ? &waits->writers : &waits->readers, &op->link);
    return &op->future;
}

CASYNC__LINKAGE casync_future *casync_wait_readable_op(casync_loop *loop, casync_op *op, int fd) {
    return casync__fd_op_begin(loop, op, fd, false);
}

CASYNC__LINKAGE int64_t casync_wait_readable(int fd) {
    casync_loop *loop = casync_get_running_loop();
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_wait_readable_op(loop, &op, fd));
}

CASYNC__LINKAGE casync_future *casync_wait_writable_op(casync_loop *loop, casync_op *op, int fd) {
    return casync__fd_op_begin(loop, op, fd, true);
}

CASYNC__LINKAGE int64_t casync_wait_writable(int fd) {
    casync_loop *loop = casync_get_running_loop();
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_wait_writable_op(loop, &op, fd));
}

/* >> posts (implementation) -------------------------------------------------------------------- */

/* Posted jobs form a chain (by link.prev). Other threads push onto it with a compare-and-swap, and
   the loop takes it whole with an exchange, so there is no ABA problem and no lock. The loop sets
   `sleeping` before it looks at the chain for the last time. A thread that pushes and then finds
   `sleeping` set clears it, and is the one to write the eventfd.

   Functions posted without a job (NULL) are collected in batches. A batch is one job in the chain,
   and while it is the last one there, further functions join it: so the order of the posts stays,
   and a function moves 16 bytes from thread to thread, where a job moves 48. A thread that adds one
   reserves its place with a fetch-and-add and publishes it by storing the callback. The loop closes
   the batch with an exchange and waits for the threads that are between the two: a few
   instructions, unless such a thread is preempted; then the loop gives up the processor. Batches
   stay the mailbox's until the loop is closed. A thread that still looks at an old batch finds it
   closed, or in the chain for something new, which is as good: nobody can join a batch before it is
   in the chain, so what a thread adds comes before all that it posts afterwards.

   Costs: a post is two locked instructions, a job's claim and its push; a function without a job is
   one, and a mutex and 1 KiB for every 60 of them. The loop runs one more before it calls a job.
   One system call each time the loop sleeps. */

#define CASYNC__POST_BATCH_SIZE 60
/* In `reserved`, more than were ever reserved: a batch that its opener is about to put into the
   chain, with a function of its own, and one that the loop has closed. */
#define CASYNC__POST_BATCH_OPENING (UINT32_MAX / 4)
#define CASYNC__POST_BATCH_CLOSED (UINT32_MAX / 2)

typedef struct casync__post_batch {
    casync_job job;
    struct casync__post_batch *next; /* in the list of the free ones */
    uint32_t reserved, count, called;
    uint32_t fork_generation;
    struct {
        void *callback; /* NULL until published; cast, as only data pointers are loaded
                           atomically */
        void *arg;
    } posts[CASYNC__POST_BATCH_SIZE];
} casync__post_batch;

typedef struct casync__mailbox {
    pthread_mutex_t mutex;     /* who opens a batch holds it */
    void *open;                /* the batch that functions are added to, or NULL */
    void *free;                /* casync__post_batch: those that came back from the loop */
    casync__post_batch *taken; /* of these, what the threads have taken over; with the mutex */
} casync__mailbox;

static void casync__loop_wake(casync_loop *loop) {
    if (casync__atomic_load(&loop->sleeping) && casync__atomic_exchange(&loop->sleeping, 0))
        loop->backend->wake(loop);
}

static void casync__post_job(casync_loop *loop, casync_job *job) {
    casync__post_push(loop, job);
    casync__loop_wake(loop);
}

/* The loop's mailbox, made by the first thread that needs it. NULL: no memory. */
static casync__mailbox *casync__mailbox_get(casync_loop *loop) {
    casync__mailbox *mailbox = (casync__mailbox *)casync__atomic_load_pointer(&loop->mailbox);
    if (mailbox) return mailbox;
    casync__process_lock();
    mailbox = (casync__mailbox *)loop->mailbox;
    if (!mailbox)
        mailbox =
            (casync__mailbox *)casync__memory_realloc(&loop->allocator, NULL, sizeof *mailbox);
    if (mailbox && !loop->mailbox) {
        memset(mailbox, 0, sizeof *mailbox);
        pthread_mutex_init(&mailbox->mutex, NULL);
        casync__atomic_store_pointer(&loop->mailbox, mailbox);
    }
    pthread_mutex_unlock(&casync__process.mutex);
    return mailbox;
}

/* The loop alone puts batches here, and who holds the mutex takes all: no ABA problem. */
static void casync__post_batch_return(casync_loop *loop, casync__post_batch *batch) {
    casync__mailbox *mailbox = (casync__mailbox *)loop->mailbox;
    void *first;
    do {
        first = casync__atomic_load_pointer(&mailbox->free);
        batch->next = (casync__post_batch *)first;
    } while (!casync__atomic_compare_exchange_pointer(&mailbox->free, first, batch));
}

static bool casync__post_batch_add(casync_loop *loop, casync__post_batch *batch,
                                   casync_callback callback, void *arg) {
    uint32_t i;
    if (!batch || casync__atomic_load_pointer(&loop->posted) != &batch->job) return false;
    CASYNC__THREAD_PREEMPT("reserve");
    i = casync__atomic_add(&batch->reserved, 1);
    if (i >= CASYNC__POST_BATCH_SIZE) return false;
    CASYNC__THREAD_PREEMPT("publish");
    batch->posts[i].arg = arg;
    casync__atomic_store_pointer(&batch->posts[i].callback, (void *)(uintptr_t)callback);
    return true;
}

/* The batch is in the chain. Those who tried to join it before count in `reserved`; the loop may
   have closed it already. */
static void casync__post_batch_open_to_others(casync__post_batch *batch) {
    uint32_t reserved;
    do reserved = casync__atomic_load(&batch->reserved);
    while (reserved < CASYNC__POST_BATCH_CLOSED &&
           !casync__atomic_compare_exchange(&batch->reserved, reserved, 1));
}

/* The loop closes the batch: how many functions are in it? */
static uint32_t casync__post_batch_close(casync__post_batch *batch) {
    uint32_t reserved = casync__atomic_exchange(&batch->reserved, CASYNC__POST_BATCH_CLOSED);
    if (reserved >= CASYNC__POST_BATCH_OPENING) return 1;
    return reserved < CASYNC__POST_BATCH_SIZE ? reserved : CASYNC__POST_BATCH_SIZE;
}

/* Lets another thread run that is in the middle of something. sched_yield does not give way to a
   thread of lower real-time priority (sched(7)), sleeping does. */
static void casync__thread_give_way(int *rounds) {
    struct timespec pause = {0, 50000};
    if (++*rounds < 100)
        sched_yield();
    else
        nanosleep(&pause, NULL);
}

/* Takes the next function out of a closed batch. false if there is none. */
static bool casync__post_batch_next(casync_loop *loop, casync__post_batch *batch,
                                    casync_callback *callback, void **arg) {
    int rounds = 0;
    while (batch->called < batch->count) {
        uint32_t i = batch->called;
        *callback =
            (casync_callback)(uintptr_t)casync__atomic_load_pointer(&batch->posts[i].callback);
        /* In a forked child the thread that would publish it is not there. */
        if (*callback || batch->fork_generation != loop->fork_generation) batch->called++;
        if (*callback) {
            *arg = batch->posts[i].arg;
            return true;
        }
        casync__thread_give_way(&rounds);
    }
    return false;
}

static void casync__post_batch_run(void *arg) {
    casync__post_batch *batch = (casync__post_batch *)arg;
    casync_loop *loop = batch->job.loop;
    casync_callback callback;
    if (batch->count == 0) batch->count = casync__post_batch_close(batch);
    while (!loop->breaking && !loop->closing &&
           casync__post_batch_next(loop, batch, &callback, &arg))
        callback(arg);
    if (batch->called == batch->count || loop->closing)
        casync__post_batch_return(loop, batch);
    else /* after a break: the rest is the first that the next turn runs */
        casync__list_append(loop->running.next, &batch->job.link);
}

/* A batch with its first function, posted. With the mutex. */
static int64_t casync__post_batch_open(casync_loop *loop, casync__mailbox *mailbox,
                                       casync_callback callback, void *arg) {
    casync__post_batch *batch = mailbox->taken;
    if (!batch) batch = (casync__post_batch *)casync__atomic_take_pointer(&mailbox->free);
    if (batch)
        mailbox->taken = batch->next;
    else
        batch = (casync__post_batch *)casync__memory_realloc(&loop->allocator, NULL, sizeof *batch);
    if (!batch) return -ENOMEM;
    memset(batch->posts, 0, sizeof batch->posts);
    memset(&batch->job, 0, sizeof batch->job);
    casync__job_init(loop, &batch->job, casync__post_batch_run, batch);
    batch->job.flags = CASYNC__JOB_INTERNAL | CASYNC__JOB_FINALLY;
    batch->fork_generation = loop->fork_generation;
    batch->count = batch->called = 0;
    batch->posts[0].callback = (void *)(uintptr_t)callback;
    batch->posts[0].arg = arg;
    casync__atomic_store(&batch->reserved, CASYNC__POST_BATCH_OPENING);
    casync__atomic_store_pointer(&mailbox->open, batch);
    CASYNC__THREAD_PREEMPT("push");
    casync__post_push(loop, &batch->job);
    CASYNC__THREAD_PREEMPT("pushed");
    casync__post_batch_open_to_others(batch);
    return 0;
}

static int64_t casync__post_function(casync_loop *loop, casync_callback callback, void *arg) {
    int64_t result = 0;
    casync__mailbox *mailbox = casync__mailbox_get(loop);
    if (!mailbox) return -ENOMEM;
    /* A batch in the chain: who put it there has woken the loop, or is about to. */
    if (casync__post_batch_add(
            loop, (casync__post_batch *)casync__atomic_load_pointer(&mailbox->open), callback, arg))
        return 0;
    CASYNC__THREAD_PREEMPT("lock");
    pthread_mutex_lock(&mailbox->mutex);
    if (!casync__post_batch_add(loop, (casync__post_batch *)mailbox->open, callback, arg))
        result = casync__post_batch_open(loop, mailbox, callback, arg);
    pthread_mutex_unlock(&mailbox->mutex);
    casync__loop_wake(loop);
    return result;
}

static void casync__post_batches_free(casync_loop *loop, void *first) {
    while (first) {
        casync__post_batch *batch = (casync__post_batch *)first;
        first = batch->next;
        casync__memory_free(&loop->allocator, batch);
    }
}

static void casync__mailbox_close(casync_loop *loop) {
    casync__mailbox *mailbox = (casync__mailbox *)loop->mailbox;
    if (!mailbox) return;
    casync__post_batches_free(loop, mailbox->free);
    casync__post_batches_free(loop, mailbox->taken);
    pthread_mutex_destroy(&mailbox->mutex);
    casync__memory_free(&loop->allocator, mailbox);
    loop->mailbox = NULL;
}

/* Another thread of the parent process may have held the mutex, which nobody here would give back,
   and may have left what it was at half made: that is not used again. */
static void casync__mailbox_fork(casync_loop *loop) {
    casync__mailbox *mailbox = (casync__mailbox *)loop->mailbox;
    if (!mailbox) return;
    pthread_mutex_init(&mailbox->mutex, NULL);
    mailbox->open = mailbox->taken = NULL;
}

CASYNC__LINKAGE int64_t casync_call_soon_threadsafe(casync_loop *loop, casync_job *job,
                                                    casync_callback callback, void *arg) {
    if (!loop || !loop->backend || !callback) return -EINVAL;
    if (!job) return casync__post_function(loop, callback, arg);
    /* An exchange on both sides, and no look before it: whichever comes second sees what the other
       wrote, so a call that is still to come sees all that came before a post which found it
       there. */
    if (casync__atomic_exchange(&job->posted, 1)) return -EALREADY;
    casync__job_init(loop, job, callback, arg);
    casync__post_job(loop, job);
    return 0;
}

CASYNC__LINKAGE void casync_wake(casync_loop *loop) {
    if (!loop || !loop->backend) return;
    casync__atomic_exchange(&loop->woken, 1);
    casync__loop_wake(loop);
}

/* >> calls & thread pool (implementation) ------------------------------------------------------ */

/* A pool is a queue of calls with a mutex, and a condition variable on which threads wait for work.
   Each call is in a lane. Of some lanes only so many calls may be in the queue or run: the others
   are held by the lane.
   A call is a record of the library's, since both the op and the loop may be gone when its function
   returns. A copy of the arguments follows the record, and its kind says what to do with them. The
   call belongs to its loop, in the list loop->calls, until it is delivered or abandoned. While it
   waits it is also in the pool's queue, by its job's link. When its function has returned, the job
   is posted to the loop, where it completes the op.

   `state`, which the mutex protects, says whose a call is: one that is abandoned while it runs is
   its thread's, and one that has returned is the loop's. The thread posts the call after it
   unlocked the mutex, because a post may be a system call. loop->posting counts the threads in that
   gap. A loop that closes, or that abandons a call which has returned, waits until the count is 0:
   as long as a post takes, unless a thread is preempted. References count the handle, the threads,
   and the calls that belong to a loop; the last to go frees the pool.

   In a forked child, where there are no threads, the first to lock the pool makes it an empty one.
   What was in it is recognised by its older generation.

   Costs: a call is one allocation, three locks of the mutex (start, take, finish) and four locked
   instructions: in all about 1,200 instructions in both threads, of which malloc and free are 400
   and the C library's mutex and condition variable 350. System calls: none while both threads have
   work; two futex(2) if the pool's thread slept, one write and one wait if the loop did: then 1,700
   instructions, and 10 to 15 us from start to result (glibc 2.36, two virtual processors). */

enum {
    CASYNC__CALL_QUEUED,
    CASYNC__CALL_HELD, /* its lane is full */
    CASYNC__CALL_RUNNING,
    CASYNC__CALL_ABANDONED, /* and running */
    CASYNC__CALL_DONE,      /* returned, and posted or about to be */
    CASYNC__CALL_CANCELLED  /* by the pool's close, and posted */
};

#define CASYNC__POOL_SIZE_MAX 4096

/* What a call waits for: any thread, one of those that look up names, or the end of all threads. */
enum {
    CASYNC__CALL_LANE_WORK,
    CASYNC__CALL_LANE_NAMES,
    CASYNC__CALL_LANE_END,
    CASYNC__CALL_LANE_COUNT
};

/* The calls of one kind that are in the queue or run, and those that are held until one of these is
   over. So names that are slow to look up leave threads to work. */
typedef struct casync__pool_lane {
    uint32_t taken;
    casync_link held; /* casync__call by job.link */
} casync__pool_lane;

typedef struct casync__pool {
    pthread_mutex_t mutex;
    pthread_cond_t work; /* there is a call, or the pool is closing */
    casync_allocator allocator;
    uint32_t references, fork_generation;
    uint32_t size, queue_limit;
    /* with the mutex */
    bool closing;
    uint32_t started, threads; /* how many were started, and of these, how many have not ended */
    uint32_t named, queued, running;
    casync_link queue; /* casync__call by job.link */
    casync__pool_lane
        lanes[CASYNC__CALL_LANE_COUNT]; /* the last holds what waits for the threads' end */
    char name[11];
    pthread_t *ids; /* of the threads that were started; behind this struct */
} casync__pool;

typedef struct casync__call casync__call;

typedef struct casync__call_kind {
    int lane;
    /* In a thread of the pool, with the copied arguments; NULL where there is nothing to run. */
    int64_t (*run)(void *arguments, void **ptr);
    /* In the loop, when it is over: ends the operation. */
    void (*deliver)(casync__call *call);
    /* In either, when nobody will get the result any more; or NULL. */
    void (*discard)(casync__call *call);
} casync__call_kind;

struct casync__call {
    casync_job job;
    casync_link link; /* in loop->calls */
    const casync__call_kind *kind;
    casync__pool *pool;
    casync_op *op;
    int64_t result;
    void *ptr;
    uint32_t fork_generation;
    int state; /* with the pool's mutex until it is posted */
    /* the arguments follow */
};

static inline void *casync__call_arguments(casync__call *call) { return call + 1; }

static void casync__pool_unref(casync__pool *pool) {
    casync_allocator allocator = pool->allocator;
    if (casync__atomic_add(&pool->references, UINT32_MAX) != 1) return;
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    casync__memory_free(&allocator, pool);
}

static void casync__pool_init_queues(casync__pool *pool) {
    int lane;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    casync__list_init(&pool->queue);
    for (lane = 0; lane < CASYNC__CALL_LANE_COUNT; lane++) {
        pool->lanes[lane].taken = 0;
        casync__list_init(&pool->lanes[lane].held);
    }
}

/* The parent's threads may have held the mutex, and left the queue half changed. */
static void casync__pool_after_fork(casync__pool *pool) {
    casync__process_lock();
    if (pool->fork_generation != casync__process.fork_generation) {
        casync__pool_init_queues(pool);
        casync__atomic_add(&pool->references, 0 - pool->threads);
        pool->started = pool->threads = pool->queued = pool->running = 0;
        casync__atomic_store(&pool->fork_generation, casync__process.fork_generation);
    }
    pthread_mutex_unlock(&casync__process.mutex);
}

static void casync__pool_lock(casync__pool *pool) {
    casync__fork_check();
    if (casync__atomic_load(&pool->fork_generation) != casync__process.fork_generation)
        casync__pool_after_fork(pool);
    pthread_mutex_lock(&pool->mutex);
}

static inline casync__call *casync__call_of(casync_link *job_link) {
    return (casync__call *)(void *)casync__job_of(job_link);
}

/* How many calls of a lane may be in the queue or run. */
static uint32_t casync__pool_lane_limit(const casync__pool *pool, int lane) {
    return lane == CASYNC__CALL_LANE_NAMES ? (pool->size + 1) / 2 : UINT32_MAX;
}

static void casync__pool_enqueue(casync__pool *pool, casync__call *call) {
    call->state = CASYNC__CALL_QUEUED;
    pool->lanes[call->kind->lane].taken++;
    casync__list_append(&pool->queue, &call->job.link);
    pool->queued++;
}

static void casync__pool_hold(casync__pool *pool, casync__call *call) {
    call->state = CASYNC__CALL_HELD;
    casync__list_append(&pool->lanes[call->kind->lane].held, &call->job.link);
}

/* A call is over: one that was held may come in its place. */
static void casync__pool_leave_lane(casync__pool *pool, int lane) {
    casync_link *held = &pool->lanes[lane].held;
    casync__call *call;
    pool->lanes[lane].taken--;
    if (casync__list_is_empty(held)) return;
    call = casync__call_of(held->next);
    casync__list_remove(&call->job.link);
    casync__pool_enqueue(pool, call);
}

/* -- in the pool's threads -- */

/* The call is its loop's again. With the mutex; casync__call_post follows. */
static void casync__call_end(casync__call *call, int state, int64_t result) {
    call->state = state;
    call->result = result;
    casync__atomic_add(&call->job.loop->posting, 1);
}

static void casync__call_post(casync__call *call) {
    casync_loop *loop = call->job.loop;
    casync__atomic_store(&call->job.posted, 1);
    casync__post_job(loop, &call->job);
    casync__atomic_add(&loop->posting, UINT32_MAX); /* after this the loop may be gone */
}

static void casync__calls_end(casync_link *list, int state, int64_t result) {
    while (!casync__list_is_empty(list)) {
        casync__call *call = casync__call_of(list->next);
        casync__list_remove(&call->job.link);
        casync__call_end(call, state, result);
        casync__call_post(call);
    }
}

/* The last thread has ended. */
static void casync__pool_ended(casync__pool *pool) {
    casync__calls_end(&pool->lanes[CASYNC__CALL_LANE_END].held, CASYNC__CALL_DONE, 0);
}

/* Waits for a call to run; NULL if there will be none. */
static casync__call *casync__pool_take(casync__pool *pool) {
    casync__call *call;
    while (casync__list_is_empty(&pool->queue) && !pool->closing)
        pthread_cond_wait(&pool->work, &pool->mutex);
    if (casync__list_is_empty(&pool->queue)) return NULL;
    call = casync__call_of(pool->queue.next);
    casync__list_remove(&call->job.link);
    call->state = CASYNC__CALL_RUNNING;
    pool->queued--;
    pool->running++;
    return call;
}

static void casync__call_run(casync__pool *pool, casync__call *call) {
    int lane = call->kind->lane;
    int64_t result;
    pthread_mutex_unlock(&pool->mutex);
    result = call->kind->run(casync__call_arguments(call), &call->ptr);
    pthread_mutex_lock(&pool->mutex);
    casync__pool_leave_lane(pool, lane);
    if (call->state == CASYNC__CALL_RUNNING) {
        casync__call_end(call, CASYNC__CALL_DONE, result);
        pool->running--;
        pthread_mutex_unlock(&pool->mutex);
        casync__call_post(call);
        pthread_mutex_lock(&pool->mutex);
    } else {
        pthread_mutex_unlock(&pool->mutex);
        call->result = result;
        if (call->kind->discard) call->kind->discard(call);
        casync__memory_free(&pool->allocator, call);
        pthread_mutex_lock(&pool->mutex);
        pool->running--;
    }
}

static void *casync__pool_thread(void *arg) {
    casync__pool *pool = (casync__pool *)arg;
    casync__call *call;
    char name[sizeof pool->name + 5];
    pthread_mutex_lock(&pool->mutex);
    snprintf(name, sizeof name, "%s-%u", pool->name, (unsigned)pool->named++);
    (void)casync__sys_thread_name(name); /* a name is not worth a failure */
    while ((call = casync__pool_take(pool)) != NULL) casync__call_run(pool, call);
    if (--pool->threads == 0) casync__pool_ended(pool);
    pthread_mutex_unlock(&pool->mutex);
    casync__pool_unref(pool);
    return NULL;
}

/* -- in the loops' threads -- */

/* A thread inherits the mask of the one that starts it. Faults must end the process where they
   happen, and reach the handlers of sanitizers and debuggers. */
static int64_t casync__pool_start_thread(casync__pool *pool) {
    sigset_t blocked, before;
    int64_t result;
    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    sigdelset(&blocked, SIGTRAP);
    sigdelset(&blocked, SIGSYS);
    result = casync__sys_thread_sigmask(SIG_SETMASK, &blocked, &before);
    if (result < 0) return result;
    result = casync__sys_thread_create(&pool->ids[pool->started], casync__pool_thread, pool);
    casync__sys_thread_sigmask(SIG_SETMASK, &before, NULL);
    if (result < 0) return result;
    pool->started++;
    pool->threads++;
    casync__atomic_add(&pool->references, 1);
    return 0;
}

/* Queues the call. Without a new thread it is served by those that are there. */
static int64_t casync__pool_put(casync__pool *pool, casync__call *call) {
    int lane = call->kind->lane;
    int64_t result = 0;
    if (pool->closing) return CASYNC_INVALID_STATE;
    if (pool->queue_limit > 0 && pool->queued + pool->running >= pool->size + pool->queue_limit)
        return -ENOBUFS;
    if (pool->lanes[lane].taken >= casync__pool_lane_limit(pool, lane)) {
        casync__pool_hold(pool, call);
        return 0;
    }
    if (pool->queued >= pool->threads - pool->running && pool->threads < pool->size)
        result = casync__pool_start_thread(pool);
    if (pool->threads == 0) return result;
    casync__pool_enqueue(pool, call);
    return 0;
}

/* Holds what waits for the threads' end, which may be now. */
static int64_t casync__pool_put_shutdown(casync__pool *pool, casync__call *call) {
    if (!casync__list_is_empty(&pool->lanes[CASYNC__CALL_LANE_END].held))
        return CASYNC_INVALID_STATE;
    pool->closing = true;
    casync__pool_hold(pool, call);
    if (pool->threads == 0) casync__pool_ended(pool);
    return 0;
}

static int64_t casync__pool_make(casync__pool **handle, const casync_pool_desc *desc) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int size = desc->size;
    casync_allocator allocator = desc->allocator;
    casync__pool *pool;
    if (size < 0 || size > CASYNC__POOL_SIZE_MAX || desc->queue_limit < 0) return -EINVAL;
    if (size == 0) size = processors > 0 && processors < 28 ? (int)processors + 4 : 32;
    if (!allocator.function) allocator.function = casync__memory_default;
    pool = (casync__pool *)casync__memory_realloc(&allocator, NULL,
                                                  sizeof *pool + (size_t)size * sizeof(pthread_t));
    if (!pool) return -ENOMEM;
    memset(pool, 0, sizeof *pool);
    casync__pool_init_queues(pool);
    pool->allocator = allocator;
    pool->references = 1;
    pool->fork_generation = casync__process.fork_generation;
    pool->size = (uint32_t)size;
    pool->queue_limit = (uint32_t)desc->queue_limit;
    pool->ids = (pthread_t *)(void *)(pool + 1);
    snprintf(pool->name, sizeof pool->name, "%s", desc->name ? desc->name : "casync");
    *handle = pool;
    return 0;
}

/* Threads that do nothing can be waited for: all they do is end. */
static void casync__pool_close(casync__pool **handle) {
    casync__pool *pool = *handle;
    uint32_t i;
    int lane;
    bool busy;
    if (!pool) return;
    *handle = NULL;
    casync__pool_lock(pool);
    pool->closing = true;
    pool->queued = 0;
    casync__calls_end(&pool->queue, CASYNC__CALL_CANCELLED, -ECANCELED);
    for (lane = 0; lane < CASYNC__CALL_LANE_COUNT; lane++)
        casync__calls_end(&pool->lanes[lane].held, CASYNC__CALL_CANCELLED, -ECANCELED);
    busy = pool->running > 0;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (i = 0; i < pool->started; i++) {
        if (busy)
            pthread_detach(pool->ids[i]);
        else
            pthread_join(pool->ids[i], NULL);
    }
    casync__pool_unref(pool);
}

/* The call leaves its loop, which need not wait for it any more. */
static void casync__call_leave(casync__call *call) {
    casync__list_remove(&call->link);
    call->job.loop->active--;
    call->op->as.call = NULL;
}

static void casync__call_free(casync__call *call) {
    casync__pool *pool = call->pool;
    casync__memory_free(&pool->allocator, call);
    casync__pool_unref(pool);
}

/* The job that a thread posted. */
static void casync__call_done(void *arg) {
    casync__call *call = (casync__call *)arg;
    casync_op *op = call->op;
    casync__call_leave(call);
    if (call->state == CASYNC__CALL_DONE) {
        call->kind->deliver(call);
    } else {
        casync_future_cancel(&op->future);
        if (call->kind->discard) call->kind->discard(call);
    }
    casync__call_free(call);
}

/* In a forked child the threads that were about to post are not there. */
static void casync__calls_wait_posting(casync_loop *loop) {
    int rounds = 0;
    while (!casync__loop_is_forked(loop) && casync__atomic_load(&loop->posting))
        casync__thread_give_way(&rounds);
}

/* The call is abandoned: nobody wants its result any more. */
static void casync__call_abandon(casync__call *call) {
    casync__pool *pool = call->pool;
    bool forked;
    int state;
    casync__call_leave(call);
    casync__pool_lock(pool);
    forked = call->fork_generation != casync__process.fork_generation;
    state = call->state;
    if (state <= CASYNC__CALL_HELD && !forked) casync__list_remove(&call->job.link);
    if (state == CASYNC__CALL_QUEUED && !forked) {
        pool->queued--;
        casync__pool_leave_lane(pool, call->kind->lane);
    }
    if (state == CASYNC__CALL_RUNNING) call->state = CASYNC__CALL_ABANDONED;
    pthread_mutex_unlock(&pool->mutex);
    if (state == CASYNC__CALL_RUNNING && !forked) {
        casync__pool_unref(pool); /* the thread, which has a reference of its own, frees the call */
        return;
    }
    if (state >= CASYNC__CALL_DONE) {
        casync__calls_wait_posting(call->job.loop);
        casync_job_cancel(&call->job);
    }
    if (call->kind->discard && state != CASYNC__CALL_RUNNING) call->kind->discard(call);
    casync__call_free(call);
}

/* A call that is over has no record any more. */
static void casync__call_op_abandon(casync_op *op) {
    if (op->as.call) casync__call_abandon(op->as.call);
}

static void casync__calls_close(casync_loop *loop) {
    while (!casync__list_is_empty(&loop->calls))
        casync__call_abandon(casync__container(loop->calls.next, casync__call, link));
    casync__pool_close(&loop->executor);
    casync__calls_wait_posting(loop);
}

/* In a forked child: what the parent's threads have posted is delivered; for the rest nobody is
   there. */
static void casync__calls_fork(casync_loop *loop) {
    casync_link *link, *next;
    loop->posting = 0;
    casync__posts_take(loop);
    for (link = loop->calls.next; link != &loop->calls; link = next) {
        casync__call *call = casync__container(link, casync__call, link);
        next = link->next;
        casync__pool_after_fork(call->pool);
        if (call->state >= CASYNC__CALL_DONE && call->job.link.next) continue;
        casync__call_leave(call);
        call->result = -ECHILD;
        call->kind->deliver(call);
        casync__call_free(call);
    }
}

/* A call of the op's, not queued yet, with room for its arguments. */
static casync__call *casync__call_make(casync_op *op, casync__pool *pool,
                                       const casync__call_kind *kind, size_t size) {
    casync__call *call =
        (casync__call *)casync__memory_realloc(&pool->allocator, NULL, sizeof *call + size);
    if (!call) return NULL;
    memset(call, 0, sizeof *call);
    casync__job_init(op->future.loop, &call->job, casync__call_done, call);
    call->job.flags = CASYNC__JOB_INTERNAL;
    call->kind = kind;
    call->pool = pool;
    call->op = op;
    call->result = -ECANCELED; /* if it never runs */
    call->fork_generation = casync__process.fork_generation;
    casync__atomic_add(&pool->references, 1);
    return call;
}

/* Gives a call to its pool, and to its loop. It signals without the mutex, so that the thread does
   not wake up to wait for it; the call's reference keeps the pool. */
static int64_t casync__call_submit(casync__call *call) {
    bool ends = call->kind->lane == CASYNC__CALL_LANE_END;
    casync__pool *pool = call->pool;
    casync_op *op = call->op;
    int64_t result;
    casync__pool_lock(pool);
    result = ends ? casync__pool_put_shutdown(pool, call) : casync__pool_put(pool, call);
    pthread_mutex_unlock(&pool->mutex);
    if (result < 0) {
        casync__call_free(call);
        return result;
    }
    casync__list_append(&op->future.loop->calls, &call->link);
    op->future.loop->active++;
    op->as.call = call;
    if (ends)
        pthread_cond_broadcast(&pool->work);
    else
        pthread_cond_signal(&pool->work);
    return 0;
}

/* Makes a call with a copy of its arguments, and submits it. */
static int64_t casync__call_start(casync_op *op, casync__pool *pool, const casync__call_kind *kind,
                                  const void *arguments, size_t size) {
    casync__call *call;
    if (!pool) return CASYNC_INVALID_STATE;
    call = casync__call_make(op, pool, kind, size);
    if (!call) return -ENOMEM;
    memcpy(casync__call_arguments(call), arguments, size);
    return casync__call_submit(call);
}

static int64_t casync__call_check(casync_loop *loop) {
    if (casync__loop_is_closed(loop)) return -EINVAL;
    CASYNC_ASSERT(casync__loop_in_thread(loop));
    return casync__loop_is_forked(loop) ? -ECHILD : 0;
}

/* -- kinds of calls -- */

typedef struct casync__executor_arguments {
    casync_pool_function function;
    void *arg;
    casync_pool_discard discard;
} casync__executor_arguments;

static int64_t casync__call_function_run(void *arguments, void **ptr) {
    casync__executor_arguments *call = (casync__executor_arguments *)arguments;
    return call->function(call->arg, ptr);
}

static void casync__call_function_deliver(casync__call *call) {
    casync__op_done(call->op, call->result, call->ptr);
}

static void casync__call_function_discard(casync__call *call) {
    casync__executor_arguments *arguments =
        (casync__executor_arguments *)casync__call_arguments(call);
    if (arguments->discard) arguments->discard(arguments->arg, call->result, call->ptr);
}

static const casync__call_kind casync__call_function = {
    CASYNC__CALL_LANE_WORK, casync__call_function_run, casync__call_function_deliver,
    casync__call_function_discard};

/* The argument is the handle of the pool, which is closed when its threads have ended, unless
   somebody did so meanwhile. */
static void casync__pool_shutdown_deliver(casync__call *call) {
    casync__pool **handle = *(casync__pool ***)casync__call_arguments(call);
    if (*handle == call->pool && call->result == 0) casync__pool_close(handle);
    casync__op_done(call->op, call->result, NULL);
}

static const casync__call_kind casync__pool_shutdown_call = {CASYNC__CALL_LANE_END, NULL,
                                                             casync__pool_shutdown_deliver, NULL};

static int64_t casync__pool_shutdown_start(casync_op *op, casync__pool **handle) {
    return casync__call_start(op, *handle, &casync__pool_shutdown_call, &handle, sizeof handle);
}

/* The default pool is there after this, unless it was shut down. */
static int64_t casync__executor_make(casync_loop *loop) {
    casync_pool_desc desc;
    if (loop->executor || loop->executor_shut_down) return 0;
    memset(&desc, 0, sizeof desc);
    desc.allocator = loop->allocator;
    return casync__pool_make(&loop->executor, &desc);
}

CASYNC__LINKAGE int64_t casync_pool_init(casync_pool *pool, const casync_pool_desc *desc) {
    casync_pool_desc defaults;
    int64_t result = casync__process_init();
    if (!pool) return -EINVAL;
    memset(&defaults, 0, sizeof defaults);
    pool->shared = NULL;
    return result < 0 ? result : casync__pool_make(&pool->shared, desc ? desc : &defaults);
}

CASYNC__LINKAGE void casync_pool_close(casync_pool *pool) {
    if (pool) casync__pool_close(&pool->shared);
}

CASYNC__LINKAGE casync_future *casync_pool_shutdown_op(casync_loop *loop, casync_pool *pool,
                                                       casync_op *op) {
    int64_t result = casync__call_check(loop);
    if (!op) return &casync__future_invalid;
    casync__op_begin(loop, op, CASYNC__OP_CALL);
    if (result == 0 && !pool) result = -EINVAL;
    if (result == 0) result = casync__pool_shutdown_start(op, &pool->shared);
    return casync__op_started(op, result);
}

CASYNC__LINKAGE int64_t casync_pool_shutdown(casync_pool *pool) {
    casync_loop *loop = casync_get_running_loop();
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_pool_shutdown_op(loop, pool, &op));
}

CASYNC__LINKAGE casync_future *casync_run_in_executor_op(casync_loop *loop, casync_pool *pool,
                                                         casync_op *op,
                                                         casync_pool_function function, void *arg,
                                                         casync_pool_discard discard) {
    casync__executor_arguments arguments;
    int64_t result = function ? casync__call_check(loop) : -EINVAL;
    if (!op) return &casync__future_invalid;
    arguments.function = function;
    arguments.arg = arg;
    arguments.discard = discard;
    casync__op_begin(loop, op, CASYNC__OP_CALL);
    if (result == 0 && !pool) result = casync__executor_make(loop);
    if (result == 0)
        result = casync__call_start(op, pool ? pool->shared : loop->executor,
                                    &casync__call_function, &arguments, sizeof arguments);
    return casync__op_started(op, result);
}

CASYNC__LINKAGE int64_t casync_run_in_executor(casync_pool *pool, casync_pool_function function,
                                               void *arg, casync_pool_discard discard, void **ptr) {
    casync_loop *loop = casync_get_running_loop();
    casync_op op;
    int64_t result;
    if (!casync__await_is_allowed(loop, __func__)) return -EPERM;
    result = casync__await_op(casync_run_in_executor_op(loop, pool, &op, function, arg, discard));
    if (ptr) *ptr = op.future.ptr;
    return result;
}

CASYNC__LINKAGE casync_future *casync_shutdown_default_executor_op(casync_loop *loop,
                                                                   casync_op *op) {
    int64_t result = casync__call_check(loop);
    if (!op) return &casync__future_invalid;
    casync__op_begin(loop, op, CASYNC__OP_CALL);
    if (result == 0 && loop->executor) result = casync__pool_shutdown_start(op, &loop->executor);
    if (result == 0) loop->executor_shut_down = true;
    if (result == 0 && !loop->executor) return casync__op_done(op, 0, NULL);
    return casync__op_started(op, result);
}

CASYNC__LINKAGE int64_t casync_shutdown_default_executor(void) {
    casync_loop *loop = casync_get_running_loop();
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_shutdown_default_executor_op(loop, &op));
}

/* >> signals (implementation) ------------------------------------------------------------------ */

/* One registry for the process: for each signal the watchers of all loops. Two descriptors lead to
   it, and every loop that has watchers watches both; whichever loop comes first reads, and tells
   all watchers by posting their jobs to their loops (a job still posted is not posted twice, which
   merges deliveries as the kernel does).

   - signalfd: for signals that plain loops watch, which are blocked in their threads. One for the
     process, since of two only one would get a signal (signalfd(2)).
   - handled_fd, an eventfd: written by the handler, which runs where the signal is not blocked
     (other threads; everywhere, for loops that block none: guests, and desc.signal_handlers). It
     notes the signal in `handled`.

   The mutex covers the registry; handlers do not take it: all they touch is atomic. Costs: a
   delivery is a wakeup, one read of each descriptor, and a post a watcher. */

/* beside CASYNC_SIGNAL_ONCE */
enum { CASYNC__SIGNAL_STARTED = 2, CASYNC__SIGNAL_UNREFERENCED = 4 };

typedef struct casync__signals {
    casync_watcher signalfd_watcher, handled_watcher;
    int watchers;     /* this loop's */
    sigset_t blocked; /* signals that this loop blocked in its thread, and unblocks at the end */
} casync__signals;

static inline casync_signal *casync__signal_of(casync_link *link) {
    return casync__container(link, casync_signal, link);
}

static void casync__signal_handler(int signum, siginfo_t *info, void *context) {
    int saved_errno = errno;
    uint64_t one = 1;
    casync__signal_source *source = &casync__process.signals[signum];
    void *action, *handler;
    casync__atomic_or64(&casync__process.handled, (uint64_t)1 << (signum - 1));
    /* full is readable too */
    (void)casync__sys_write((int)casync__atomic_load(&casync__process.handled_fd), &one,
                            sizeof one);
    action = casync__atomic_load_pointer(&source->chained_action);
    handler = casync__atomic_load_pointer(&source->chained_handler);
    if (action)
        ((void (*)(int, siginfo_t *, void *))(uintptr_t)action)(signum, info, context);
    else if (handler)
        ((void (*)(int))(uintptr_t)handler)(signum);
    errno = saved_errno;
}

/* Tells the handler what to call after it: what was there before, unless a plain loop watches the
   signal. */
static void casync__signal_chain_handler(casync__signal_source *source) {
    const struct sigaction *previous = &source->previous;
    void *handler = (void *)(uintptr_t)previous->sa_handler; /* a union with sa_sigaction */
    bool chains = source->plain_watchers == 0 && !casync__list_is_empty(&source->watchers) &&
                  previous->sa_handler != SIG_DFL && previous->sa_handler != SIG_IGN;
    bool has_info = (previous->sa_flags & SA_SIGINFO) != 0;
    casync__atomic_store_pointer(&source->chained_action, chains && has_info ? handler : NULL);
    casync__atomic_store_pointer(&source->chained_handler, chains && !has_info ? handler : NULL);
}

/* A signal watcher's job: the user's callback, in its loop. */
static void casync__signal_fire(void *arg) {
    casync_signal *watcher = (casync_signal *)arg;
    casync_callback callback = watcher->callback;
    void *callback_arg = watcher->arg;
    if (watcher->flags & CASYNC_SIGNAL_ONCE) casync_signal_stop(watcher);
    callback(callback_arg);
}

static void casync__signal_deliver(int signum) {
    casync_link *list = &casync__process.signals[signum].watchers, *link;
    casync__process_lock();
    for (link = list->next; link && link != list; link = link->next) {
        casync_signal *watcher = casync__signal_of(link);
        if (!casync__atomic_exchange(&watcher->job.posted, 1))
            casync__post_job(watcher->job.loop, &watcher->job);
    }
    pthread_mutex_unlock(&casync__process.mutex);
}

static void casync__signal_read_signalfd(void *loop) {
    struct signalfd_siginfo info;
    (void)loop;
    while (casync__sys_read(casync__process.signalfd, &info, sizeof info) == (int64_t)sizeof info)
        casync__signal_deliver((int)info.ssi_signo);
}

static void casync__signal_read_handled(void *loop) {
    uint64_t count, handled;
    (void)loop;
    /* The bits are taken after the descriptor is read: a signal in between wakes once more, for
       nothing. */
    (void)casync__sys_read((int)casync__process.handled_fd, &count, sizeof count);
    handled = casync__atomic_take64(&casync__process.handled);
    while (handled) {
        casync__signal_deliver(casync__compiler_lowest_bit(handled) + 1);
        handled &= handled - 1;
    }
}

static int64_t casync__signal_fds_open(void) {
    int64_t signal_fd, handled_fd;
    if (casync__process.has_signal_fds) return 0;
    sigemptyset(&casync__process.signalfd_mask);
    signal_fd = casync__sys_signalfd(-1, &casync__process.signalfd_mask);
    if (signal_fd < 0) return signal_fd;
    handled_fd = casync__sys_eventfd();
    if (handled_fd < 0) {
        casync__sys_close((int)signal_fd);
        return handled_fd;
    }
    casync__process.signalfd = (int)signal_fd;
    casync__atomic_store(&casync__process.handled_fd, (uint32_t)handled_fd);
    casync__process.has_signal_fds = true;
    return 0;
}

/* Watches the two descriptors in this loop, which they do not keep running. */
static int64_t casync__signals_open(casync_loop *loop) {
    casync__signals *signals;
    int64_t result = casync__signal_fds_open();
    if (result < 0 || loop->signals) return result;
    signals = (casync__signals *)casync__memory_realloc(&loop->allocator, NULL, sizeof *signals);
    if (!signals) return -ENOMEM;
    memset(signals, 0, sizeof *signals);
    sigemptyset(&signals->blocked);
    signals->signalfd_watcher.flags = signals->handled_watcher.flags = CASYNC__WATCHER_UNREFERENCED;
    result = casync__watcher_add(loop, &signals->signalfd_watcher, CASYNC__WATCHER_INTERNAL,
                                 casync__process.signalfd, CASYNC__FD_READ,
                                 casync__signal_read_signalfd, loop);
    if (result == 0)
        result = casync__watcher_add(loop, &signals->handled_watcher, CASYNC__WATCHER_INTERNAL,
                                     (int)casync__process.handled_fd, CASYNC__FD_READ,
                                     casync__signal_read_handled, loop);
    if (result < 0) {
        casync__watcher_unregister(&signals->signalfd_watcher, false);
        casync__memory_free(&loop->allocator, signals);
        return result;
    }
    loop->signals = signals;
    return 0;
}

static void casync__signals_release(casync_loop *loop) {
    if (!loop->signals || loop->signals->watchers > 0) return;
    casync__watcher_unregister(&loop->signals->signalfd_watcher, false);
    casync__watcher_unregister(&loop->signals->handled_watcher, false);
    casync__memory_free(&loop->allocator, loop->signals);
    loop->signals = NULL;
}

/* Does this /proc/self/fdinfo file belong to a signalfd that takes the signal? proc(5):
   "sigmask:". */
static bool casync__signal_fdinfo_takes(const char *name, int signum) {
    char path[64], line[128];
    unsigned long long mask = 0;
    bool found = false;
    FILE *file;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%.20s", name);
    file = fopen(path, "re");
    if (!file) return false;
    while (!found && fgets(line, sizeof line, file))
        found = sscanf(line, "sigmask: %llx", &mask) == 1;
    fclose(file);
    return found && (mask & (1ULL << (signum - 1)));
}

/* Would a signalfd that is not ours compete for the signal? Without /proc nobody can tell. */
static bool casync__signal_is_taken(int signum) {
    DIR *directory = opendir("/proc/self/fdinfo");
    struct dirent *entry;
    bool taken = false;
    if (!directory) return false;
    while (!taken && (entry = readdir(directory)) != NULL)
        taken = entry->d_name[0] != '.' && atoi(entry->d_name) != casync__process.signalfd &&
                casync__signal_fdinfo_takes(entry->d_name, signum);
    closedir(directory);
    return taken;
}

static int64_t casync__signal_set_signalfd(int signum, bool on) {
    sigset_t mask = casync__process.signalfd_mask;
    int64_t result;
    if (on)
        sigaddset(&mask, signum);
    else
        sigdelset(&mask, signum);
    result = casync__sys_signalfd(casync__process.signalfd, &mask);
    if (result >= 0) casync__process.signalfd_mask = mask;
    return result < 0 ? result : 0;
}

/* A guest's handler keeps the flags of the one before: whether system calls of the host are
   interrupted, and on which stack handlers run, is the host's affair. */
static int64_t casync__signal_install_handler(casync__signal_source *source, int signum,
                                              bool guest) {
    struct sigaction action;
    int64_t result;
    if (casync__signal_is_taken(signum)) return -EBUSY;
    /* previous must be there before the handler can run */
    result = casync__sys_sigaction(signum, NULL, &source->previous);
    if (result < 0) return result;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = casync__signal_handler;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    if (guest)
        action.sa_flags = source->previous.sa_flags & (SA_RESTART | SA_ONSTACK | SA_NOCLDSTOP);
    action.sa_flags |= SA_SIGINFO;
    sigfillset(&action.sa_mask);
    return casync__sys_sigaction(signum, &action, NULL);
}

/* What a signal that is still pending would do once unblocked, nobody asked for any more: it is
   dropped. Then mask and action can be put back; not over a handler that somebody installed
   since. */
static void casync__signal_uninstall_handler(casync__signal_source *source, int signum) {
    struct timespec none = {0, 0};
    struct sigaction current;
    sigset_t set = casync__signal_set(signum);
    uint64_t handled;
    while (casync__sys_sigtimedwait(&set, &none) > 0) continue;
    if (casync__sys_sigaction(signum, NULL, &current) == 0 && (current.sa_flags & SA_SIGINFO) &&
        current.sa_sigaction == casync__signal_handler)
        casync__sys_sigaction(signum, &source->previous, NULL);
    /* What the handler noted is for nobody; the other signals' bits go back. */
    handled = casync__atomic_take64(&casync__process.handled) & ~((uint64_t)1 << (signum - 1));
    if (handled) casync__atomic_or64(&casync__process.handled, handled);
}

/* Blocks the signal in this thread, which is the loop's, if it is not blocked. */
static void casync__signal_block(casync_loop *loop, int signum) {
    sigset_t set = casync__signal_set(signum), old;
    casync__sys_thread_sigmask(SIG_BLOCK, &set, &old);
    if (!sigismember(&old, signum)) sigaddset(&loop->signals->blocked, signum);
}

static void casync__signal_unblock(casync_loop *loop, int signum) {
    sigset_t set = casync__signal_set(signum);
    if (!sigismember(&loop->signals->blocked, signum)) return;
    sigdelset(&loop->signals->blocked, signum);
    casync__sys_thread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Adds a signal watcher to the registry, which is locked. */
static int64_t casync__signal_add(casync_loop *loop, casync_signal *watcher) {
    casync__signal_source *source = &casync__process.signals[watcher->signum];
    int64_t result = casync__signals_open(loop);
    if (result < 0) return result;
    if (!source->watchers.next) casync__list_init(&source->watchers);
    if (casync__list_is_empty(&source->watchers))
        result = casync__signal_install_handler(source, watcher->signum, loop->guest);
    if (result < 0) return result;
    if (!loop->signal_handlers) {
        casync__signal_block(loop, watcher->signum);
        if (source->plain_watchers == 0)
            result = casync__signal_set_signalfd(watcher->signum, true);
        if (result < 0) {
            casync__signal_unblock(loop, watcher->signum);
            if (casync__list_is_empty(&source->watchers))
                casync__signal_uninstall_handler(source, watcher->signum);
            return result;
        }
        source->plain_watchers++;
    }
    casync__list_append(&source->watchers, &watcher->link);
    casync__signal_chain_handler(source);
    loop->signals->watchers++;
    return 0;
}

/* A watcher of the loop for the signal, or NULL; the registry is locked. */
static casync_signal *casync__signal_find(const casync_loop *loop, int signum) {
    casync_link *list = &casync__process.signals[signum].watchers, *link;
    for (link = list->next; link && link != list; link = link->next)
        if (casync__signal_of(link)->job.loop == loop) return casync__signal_of(link);
    return NULL;
}

static void casync__signal_remove(casync_loop *loop, casync_signal *watcher) {
    casync__signal_source *source = &casync__process.signals[watcher->signum];
    casync__list_remove(&watcher->link);
    loop->signals->watchers--;
    if (!loop->signal_handlers && --source->plain_watchers == 0)
        casync__signal_set_signalfd(watcher->signum, false);
    casync__signal_chain_handler(source);
    if (casync__list_is_empty(&source->watchers))
        casync__signal_uninstall_handler(source, watcher->signum);
    if (!casync__signal_find(loop, watcher->signum)) casync__signal_unblock(loop, watcher->signum);
}

CASYNC__LINKAGE int64_t casync_signal_start(casync_loop *loop, casync_signal *watcher, int signum,
                                            int flags, casync_callback callback, void *arg) {
    casync_signal before;
    int64_t result;
    if (casync__loop_is_closed(loop) || !watcher || !callback || (flags & ~CASYNC_SIGNAL_ONCE))
        return -EINVAL;
    if (signum < 1 || signum > 64 || signum == SIGKILL || signum == SIGSTOP) return -EINVAL;
    if (watcher->flags & CASYNC__SIGNAL_STARTED) return -EALREADY;
    if (casync__loop_is_forked(loop)) return -ECHILD;
    before = *watcher;
    casync__job_init(loop, &watcher->job, casync__signal_fire, watcher);
    watcher->callback = callback;
    watcher->arg = arg;
    watcher->signum = signum;
    casync__process_lock();
    result = casync__signal_add(loop, watcher);
    pthread_mutex_unlock(&casync__process.mutex);
    if (result < 0) {
        *watcher = before;
        casync__signals_release(loop);
        return result;
    }
    watcher->job.flags = CASYNC__JOB_INTERNAL;
    watcher->flags =
        (watcher->flags & CASYNC__SIGNAL_UNREFERENCED) | CASYNC__SIGNAL_STARTED | (uint32_t)flags;
    if (!(watcher->flags & CASYNC__SIGNAL_UNREFERENCED)) loop->active++;
    return 0;
}

CASYNC__LINKAGE int64_t casync_signal_stop(casync_signal *watcher) {
    casync_loop *loop;
    if (!watcher) return 0;
    loop = watcher->job.loop;
    if (!(watcher->flags & CASYNC__SIGNAL_STARTED)) return 0;
    /* a forked child must not change the signalfd that it shares with its parent process */
    (void)casync__loop_is_forked(loop);
    CASYNC_ASSERT(casync__loop_in_thread(loop));
    casync__process_lock();
    casync__signal_remove(loop, watcher);
    pthread_mutex_unlock(&casync__process.mutex);
    casync_job_cancel(&watcher->job);
    watcher->flags &= ~(uint32_t)CASYNC__SIGNAL_STARTED;
    if (!(watcher->flags & CASYNC__SIGNAL_UNREFERENCED)) loop->active--;
    casync__signals_release(loop);
    return 1;
}

CASYNC__LINKAGE void casync_signal_ref(casync_signal *watcher, bool referenced) {
    bool started;
    if (!watcher) return;
    started = (watcher->flags & CASYNC__SIGNAL_STARTED) != 0;
    if (started && !(watcher->flags & CASYNC__SIGNAL_UNREFERENCED)) watcher->job.loop->active--;
    watcher->flags &= ~(uint32_t)CASYNC__SIGNAL_UNREFERENCED;
    if (!referenced) watcher->flags |= CASYNC__SIGNAL_UNREFERENCED;
    if (started && referenced) watcher->job.loop->active++;
}

/* The loop's first signal watcher in the registry, or NULL. Only this thread can remove it. */
static casync_signal *casync__signal_first(casync_loop *loop) {
    casync_signal *found = NULL;
    int signum;
    casync__process_lock();
    for (signum = 1; signum <= 64 && loop->signals && !found; signum++)
        found = casync__signal_find(loop, signum);
    pthread_mutex_unlock(&casync__process.mutex);
    return found;
}

static void casync__signals_close(casync_loop *loop) {
    casync_signal *watcher;
    while ((watcher = casync__signal_first(loop)) != NULL) casync_signal_stop(watcher);
}

static void casync__signals_walk(casync_loop *loop, void (*visit)(int, void *, void *), void *arg) {
    int signum;
    casync__process_lock();
    for (signum = 1; signum <= 64 && loop->signals; signum++) {
        casync_link *list = &casync__process.signals[signum].watchers, *link;
        for (link = list->next; link && link != list; link = link->next)
            if (casync__signal_of(link)->job.loop == loop)
                visit(CASYNC_KIND_SIGNAL, casync__signal_of(link), arg);
    }
    pthread_mutex_unlock(&casync__process.mutex);
}

/* >> tasks (implementation) -------------------------------------------------------------------- */

/* A task is a future with a job. What lets the task go on queues the job: the awaited future has it
   in its list of callbacks. The job runs the task until it waits again or ends. While a task is
   pending, its future's result and ptr mean nothing to others, so they hold what a task needs only
   then: its context, and what it awaits.

   To cancel a task is to cancel what it awaits. A request that no await can hear yet is kept as
   CASYNC__TASK_MUST_CANCEL, for the next one.

   Costs: to await a pending future and to be woken is no system call and no allocation, and two
   switches for a stackful task. A new task takes a stack from the bin (see stacks & switch). */

enum {
    CASYNC__TASK_STARTED = 1,
    CASYNC__TASK_MUST_CANCEL = 2, /* a request to cancel that no await has heard of yet */
    CASYNC__TASK_ASKED = 4        /* by casync_run, to end */
};

static casync_loop *casync__task_loop(const casync_task *task) { return task->future.loop; }

/* Until a task is done, its future's result and ptr hold the task's context and what it awaits.
   Four functions know that: casync__task_awaits, _set_awaits, _context and _set_context. */

/* What a pending task awaits, or NULL: a task that lets all other work run for a turn awaits
   nothing. */
static casync_future *casync__task_awaits(const casync_task *task) {
    return (casync_future *)task->future.ptr;
}

static void casync__task_set_awaits(casync_task *task, casync_future *future) {
    task->future.ptr = future;
}

/* The task that a task awaits, or NULL. */
static casync_task *casync__task_awaited(const casync_task *task) {
    casync_future *awaited = casync__task_awaits(task);
    return awaited && casync__future_is_task(awaited) && !casync_future_done(awaited)
               ? (casync_task *)(void *)awaited
               : NULL;
}

/* -- context: an array that tasks share until one of them changes it -- */

typedef struct casync__context_binding {
    const void *key; /* a casync_context_var; or a task, whose name this is */
    void *value;
} casync__context_binding;

typedef struct casync__context {
    uint32_t references, count;
    casync__context_binding bindings[1]; /* count of them */
} casync__context;

static casync__context *casync__task_context(const casync_task *task) {
    return (casync__context *)(intptr_t)task->future.result;
}

/* Gives the task a context in place of the one it had. */
static void casync__task_set_context(casync_task *task, casync__context *context) {
    casync__context *previous = casync__task_context(task);
    task->future.result = (int64_t)(intptr_t)context;
    if (previous && --previous->references == 0)
        casync__memory_free(&casync__task_loop(task)->allocator, previous);
}

static casync__context_binding *casync__context_find(casync__context *context, const void *key) {
    uint32_t i;
    for (i = 0; context && i < context->count; i++)
        if (context->bindings[i].key == key) return &context->bindings[i];
    return NULL;
}

/* A copy without `key`, with room for one binding more. NULL: no memory. */
static casync__context *casync__context_copy(casync_loop *loop, casync__context *context,
                                             const void *key) {
    uint32_t i, count = context ? context->count : 0;
    casync__context *copy = (casync__context *)casync__memory_realloc(
        &loop->allocator, NULL, sizeof(casync__context) + count * sizeof(casync__context_binding));
    if (!copy) return NULL;
    copy->references = 1;
    copy->count = 0;
    for (i = 0; i < count; i++)
        if (context->bindings[i].key != key) copy->bindings[copy->count++] = context->bindings[i];
    return copy;
}

static int64_t casync__context_set(casync_task *task, const void *key, void *value) {
    casync__context *context = casync__task_context(task), *copy;
    casync__context_binding *binding = casync__context_find(context, key);
    if (binding && context->references == 1) {
        binding->value = value;
        return 0;
    }
    copy = casync__context_copy(casync__task_loop(task), context, key);
    if (!copy) return -ENOMEM;
    copy->bindings[copy->count].key = key;
    copy->bindings[copy->count++].value = value;
    casync__task_set_context(task, copy);
    return 0;
}

/* A new task begins with the context of the one that makes it, but not with its name. */
static int64_t casync__context_inherit(casync_task *task, const casync_task *maker) {
    casync__context *context = maker ? casync__task_context(maker) : NULL;
    if (!context) return 0;
    if (casync__context_find(context, maker)) {
        context = casync__context_copy(casync__task_loop(task), context, maker);
        if (!context) return -ENOMEM;
        context->references = 0;
    }
    context->references++;
    task->future.result = (int64_t)(intptr_t)context;
    return 0;
}

CASYNC__LINKAGE casync_task *casync_current_task(void) {
    casync_loop *loop = casync_get_running_loop();
    return loop ? loop->task : NULL;
}

CASYNC__LINKAGE void *casync_context_get(const casync_context_var *var) {
    casync_task *task = casync_current_task();
    casync__context_binding *binding =
        task ? casync__context_find(casync__task_context(task), var) : NULL;
    if (!var) return NULL;
    return binding ? binding->value : var->default_value;
}

CASYNC__LINKAGE int64_t casync_context_set(const casync_context_var *var, void *value) {
    casync_task *task = casync_current_task();
    if (!var) return -EINVAL;
    return task ? casync__context_set(task, var, value) : -EPERM;
}

/* -- names -- */

#define CASYNC__LINE_SIZE 512

/* Adds to a line what there is room for. */
static void casync__line_append(char line[CASYNC__LINE_SIZE], const char *format, ...) {
    size_t length = strlen(line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + length, CASYNC__LINE_SIZE - length, format, arguments);
    va_end(arguments);
}

/* NULL if it was given none. */
static const char *casync__task_given_name(const casync_task *task) {
    casync__context_binding *binding = NULL;
    if (casync__future_is_fiber(&task->future))
        return ((const casync__fiber *)(const void *)task)->name;
    if (task->future.state == CASYNC_FUTURE_PENDING)
        binding = casync__context_find(casync__task_context(task), task);
    return binding ? (const char *)binding->value : NULL;
}

static void *casync__task_function(const casync_task *task) {
    if (casync__future_is_fiber(&task->future))
        return (void *)(uintptr_t)((const casync__fiber *)(const void *)task)->coroutine;
    return (void *)(uintptr_t)task->step;
}

CASYNC__LINKAGE const char *casync_task_name(const casync_task *task) {
    const char *name = task ? casync__task_given_name(task) : NULL;
    return name ? name : "task";
}

CASYNC__LINKAGE int64_t casync_task_set_name(casync_task *task, const char *name) {
    union {
        const char *name;
        void *value;
    } cast;
    if (!task || !task->future.loop) return -EINVAL;
    cast.name = name;
    if (task->future.state != CASYNC_FUTURE_PENDING) return CASYNC_INVALID_STATE;
    if (casync__future_is_fiber(&task->future)) {
        casync__fiber_of(task)->name = name;
        return 0;
    }
    return casync__context_set(task, task, cast.value);
}

/* A task by its name, or if it has none by its function. */
static void casync__line_append_task(char line[CASYNC__LINE_SIZE], const casync_task *task) {
    const char *name = casync__task_given_name(task);
    if (name)
        casync__line_append(line, "task %s", name);
    else
        casync__line_append(line, "task of function %p", casync__task_function(task));
}

/* -- the life of a task -- */

static void casync__groups_leave(casync_task *task);
static bool casync__group_awaits_child(const casync_task *parent, const casync_task *child);

/* What a task awaits must not go before it has seen the result: it holds a reference to other
   tasks. */
static void casync__await_release(casync_future *future) {
    if (casync__future_is_fiber(future)) casync_task_release((casync_task *)(void *)future);
}

/* Puts a fresh task into the loop. Its future was made by casync__future_reset. */
static int64_t casync__task_begin(casync_loop *loop, casync_task *task) {
    int64_t result = casync__context_inherit(task, loop->task);
    if (result < 0) return result;
    casync__job_init(loop, &task->job, NULL, task);
    task->job.flags = CASYNC__JOB_INTERNAL | CASYNC__JOB_TASK;
    casync__list_append(&loop->tasks, &task->link);
    casync__job_make_ready(loop, &task->job);
    return 0;
}

/* The task will not run any more: what it has beside its future goes. */
static void casync__task_leave(casync_task *task) {
    if (task->open_groups > 0) casync__groups_leave(task);
    casync__task_set_context(task, NULL);
    casync__list_remove(&task->link);
    casync__task_set_awaits(task, NULL);
}

/* A request to cancel that nobody heard of turns a success into a cancellation, but hides no
   failure. */
static void casync__task_end(casync_task *task, int64_t result) {
    bool cancelled =
        result == -ECANCELED || (result >= 0 && (task->flags & CASYNC__TASK_MUST_CANCEL));
    int state = cancelled    ? CASYNC_FUTURE_CANCELLED
                : result < 0 ? CASYNC_FUTURE_FAILED
                             : CASYNC_FUTURE_DONE;
    casync__task_leave(task);
    casync__future_end(&task->future, state, cancelled ? -ECANCELED : result, NULL);
    if (casync__future_is_fiber(&task->future)) casync_task_release(task);
}

/* Lets the task run until it waits or ends. */
CASYNC__COMPILER_INLINE void casync__task_run(casync_loop *loop, casync_task *task) {
    casync_task *outer = loop->task;
    int64_t result = -ECANCELED;
    bool ended = true;
    if ((task->flags & CASYNC__TASK_STARTED) || !(task->flags & CASYNC__TASK_MUST_CANCEL)) {
        task->flags |= CASYNC__TASK_STARTED;
        loop->task = task;
        if (task->step) {
            ended = (result = task->step(task)) != CASYNC_WAITING;
        } else {
            casync__fiber_prefetch(loop->running.next);
            ended = casync__fiber_resume(casync__fiber_of(task), loop->exceptions, &result);
        }
        loop->task = outer;
    }
    if (ended) casync__task_end(task, result);
}

CASYNC__LINKAGE int64_t casync_task_start(casync_loop *loop, casync_task *task, casync_step step) {
    int64_t result;
    if (casync__loop_is_closed(loop) || !task || !step) return -EINVAL;
    memset(task, 0, sizeof *task);
    casync__future_reset(loop, &task->future, CASYNC__FUTURE_TASK);
    task->step = step;
    result = casync__task_begin(loop, task);
    if (result < 0) memset(task, 0, sizeof *task); /* nothing to be closed */
    return result;
}

/* -- stackful tasks -- */

#ifndef CASYNC_NO_STACKFUL

CASYNC__LINKAGE int64_t casync_spawn_with(casync_loop *loop, const casync_task_desc *desc,
                                          casync_task **task) {
    casync__stack_bin *bin;
    casync__fiber *fiber;
    int64_t result;
    if (casync__loop_is_closed(loop) || !desc || !desc->coroutine || !task) return -EINVAL;
    if (casync__stack_has_shadow()) return -ENOSYS;
    if (!loop->stacks) loop->stacks = casync__stacks_make(&loop->allocator);
    if (!loop->stacks) return -ENOMEM;
    bin =
        casync__stack_bin_for(loop->stacks, desc->stack_size ? desc->stack_size : loop->stack_size);
    if (!bin) return -EINVAL;
    result = casync__fiber_take(loop->stacks, bin, &fiber);
    if (result < 0) return result;
    memset(&fiber->task, 0, sizeof fiber->task);
    casync__future_reset(loop, &fiber->task.future, CASYNC__FUTURE_FIBER);
    fiber->coroutine = desc->coroutine;
    fiber->arg = desc->arg;
    fiber->name = desc->name;
    fiber->loop = loop;
    fiber->finished = false;
    fiber->references = 2;
    memset(&fiber->exceptions, 0, sizeof fiber->exceptions);
#if defined(CASYNC__COMPILER_ASAN)
    fiber->fake_stack = NULL;
    __asan_unpoison_memory_region(fiber->stack, (size_t)((char *)fiber - fiber->stack));
#endif
    fiber->stack_pointer = casync__fiber_lay_out(fiber);
    result = casync__task_begin(loop, &fiber->task);
    if (result < 0)
        casync__fiber_return(loop->stacks, fiber);
    else
        *task = &fiber->task;
    return result;
}

CASYNC__LINKAGE casync_task *casync_task_retain(casync_task *task) {
    if (task && casync__future_is_fiber(&task->future)) casync__fiber_of(task)->references++;
    return task;
}

CASYNC__LINKAGE void casync_task_release(casync_task *task) {
    casync__fiber *fiber = casync__fiber_of(task);
    if (!task || !casync__future_is_fiber(&task->future) || --fiber->references > 0) return;
    casync_future_close(&fiber->task.future);
    casync__fiber_return(fiber->loop->stacks, fiber);
}

CASYNC__LINKAGE size_t casync_task_stack_used(const casync_task *task) {
    const casync__fiber *fiber = (const casync__fiber *)(const void *)task;
    size_t page = casync__memory_page_size(), size, unused = 0;
    unsigned char resident;
    const unsigned char *used; /* what lies below is no part of the stack at present: valgrind
                                  minds */
    if (!task || !casync__future_is_fiber(&task->future)) return 0;
    size = fiber->slab->bin->size;
    used = task == fiber->loop->task ? &resident : (const unsigned char *)fiber->stack_pointer;
    (void)casync__stack_valgrind(
        CASYNC__STACK_VALGRIND_MAKE_DEFINED, fiber->stack,
        (const void *)(uintptr_t)(used - (const unsigned char *)fiber->stack));
    while (unused < size && casync__sys_mincore(fiber->stack + unused, page, &resident) == 0 &&
           !(resident & 1))
        unused += page;
    if (fiber->guard == CASYNC__STACK_GUARD_PATTERN && unused == 0)
        unused = sizeof casync__stack_pattern;
    while (unused < size && fiber->stack[unused] == 0) unused++;
    return size - unused;
}

/* The first stackful task from number *number on, in this slab and those after it, that has ended
   and whose handle was not released; NULL if there is none. */
static casync_task *casync__fiber_find_unreleased(const casync_link *slabs, casync_link **link,
                                                  uint32_t *number) {
    for (; *link != slabs; *link = (*link)->next, *number = 0) {
        const casync__stack_slab *slab = casync__container(*link, casync__stack_slab, link);
        while (*number < slab->made) {
            casync__fiber *fiber = casync__fiber_at(slab, (*number)++);
            if (fiber->references > 0 && casync_future_done(&fiber->task.future))
                return &fiber->task;
        }
    }
    return NULL;
}

static void casync__fibers_each_unreleased(casync_loop *loop,
                                           void (*visit)(casync_task *task, void *arg), void *arg) {
    int i;
    for (i = 0; loop->stacks && i < CASYNC__STACK_SIZES; i++) {
        casync_link *slabs = &loop->stacks->bins[i].slabs, *link = slabs->next;
        uint32_t number = 0;
        casync_task *task;
        while ((task = casync__fiber_find_unreleased(slabs, &link, &number)) != NULL)
            visit(task, arg);
    }
}

#else /* CASYNC_NO_STACKFUL */

CASYNC__LINKAGE int64_t casync_spawn_with(casync_loop *loop, const casync_task_desc *desc,
                                          casync_task **task) {
    return (void)loop, (void)desc, (void)task, -ENOSYS;
}
CASYNC__LINKAGE casync_task *casync_task_retain(casync_task *task) { return task; }
CASYNC__LINKAGE void casync_task_release(casync_task *task) { (void)task; }
CASYNC__LINKAGE size_t casync_task_stack_used(const casync_task *task) {
    return (void)task, (size_t)0;
}

static void casync__fibers_each_unreleased(casync_loop *loop,
                                           void (*visit)(casync_task *task, void *arg), void *arg) {
    (void)loop, (void)visit, (void)arg;
}

#endif

static void casync__task_desc_init(casync_task_desc *desc, casync_coroutine coroutine, void *arg,
                                   const char *name) {
    memset(desc, 0, sizeof *desc);
    desc->coroutine = coroutine;
    desc->arg = arg;
    desc->name = name;
}

CASYNC__LINKAGE casync_task *casync_spawn(casync_loop *loop, casync_coroutine coroutine,
                                          void *arg) {
    casync_task_desc desc;
    casync_task *task;
    casync__task_desc_init(&desc, coroutine, arg, NULL);
    return casync_spawn_with(loop, &desc, &task) < 0 ? NULL : task;
}

CASYNC__LINKAGE int64_t casync_spawn_detached(casync_loop *loop, casync_coroutine coroutine,
                                              void *arg) {
    casync_task_desc desc;
    casync_task *task;
    int64_t result;
    casync__task_desc_init(&desc, coroutine, arg, NULL);
    result = casync_spawn_with(loop, &desc, &task);
    if (result == 0) casync_task_release(task);
    return result;
}

/* -- cancelling -- */

/* casync_future_close of a task that is not done. */
static void casync__task_abandon(casync_future *future) {
    casync_task *task = (casync_task *)(void *)future;
    CASYNC_ASSERT(task->step); /* a stackful task has a stack full of things: cancel it */
    casync_job_cancel(&task->job);
    if (casync__task_awaits(task)) casync__await_release(casync__task_awaits(task));
    casync__task_leave(task);
    task->future.state = CASYNC_FUTURE_CANCELLED;
    task->future.result = -ECANCELED;
}

/* A task of the circle in which the chain of those that await each other ends, or NULL: nothing but
   an interruption would ever end that. */
static casync_task *casync__task_find_deadlock(casync_task *task) {
    casync_task *slow = task, *fast = task;
    do {
        slow = casync__task_awaited(slow);
        fast = casync__task_awaited(fast);
        if (fast) fast = casync__task_awaited(fast);
    } while (fast && fast != slow);
    return fast;
}

/* What the await of a task finds which waits for it: as if it had awaited this. */
static casync_future casync__future_deadlock = {
    {NULL, NULL}, NULL, -EDEADLK, NULL, CASYNC_FUTURE_FAILED, 1, CASYNC__FUTURE_PLAIN};

/* Ends the task's await without regard to what it awaits: it returns the outcome's result, or
   -ECANCELED. */
static void casync__task_interrupt(casync_task *task, casync_future *outcome) {
    casync_future *awaited = casync__task_awaits(task);
    casync__list_remove(&task->job.link);
    casync__job_make_ready(casync__task_loop(task), &task->job);
    casync__task_set_awaits(task, outcome);
    if (!outcome) task->flags |= CASYNC__TASK_MUST_CANCEL;
    casync__await_release(awaited);
}

/* A chain of tasks that await each other is followed to what its last one awaits, or until it would
   go in a circle. */
CASYNC__LINKAGE int64_t casync_task_cancel(casync_task *task) {
    casync_task *asked = task, *next, *deadlocked;
    if (!task || !task->future.loop || task->future.state != CASYNC_FUTURE_PENDING) return 0;
    deadlocked = casync__task_find_deadlock(task);
    for (;; task = next) {
        casync_future *awaited = casync__task_awaits(task);
        bool circle;
        next = casync__task_awaited(task);
        circle = next && (task == deadlocked || casync__group_awaits_child(next, asked));
        if (task->cancel_requests < UINT16_MAX) task->cancel_requests++;
        if (next && !circle) continue;
        if (circle)
            casync__task_interrupt(task, NULL);
        else if (!awaited || casync_future_cancel(awaited) == 0)
            task->flags |= CASYNC__TASK_MUST_CANCEL;
        return 1;
    }
}

static int64_t casync__task_future_cancel(casync_future *future) {
    return casync_task_cancel((casync_task *)(void *)future);
}

CASYNC__LINKAGE int64_t casync_task_uncancel(casync_task *task) {
    if (!task) return 0;
    if (task->cancel_requests > 0) task->cancel_requests--;
    if (task->cancel_requests == 0) task->flags &= (uint8_t)~CASYNC__TASK_MUST_CANCEL;
    return task->cancel_requests;
}

/* -- awaiting -- */

/* Does a task wait for itself if it awaits the other: that one, or an end of a group with it as a
   child? */
static bool casync__await_is_deadlock(const casync_task *task, const casync_task *awaited) {
    return awaited == task ||
           (awaited->open_groups > 0 && casync__group_awaits_child(awaited, task));
}

/* A future that would never be done for the task: what it awaits in its place, or NULL if there is
   nothing wrong. Apart from casync__await_begin, which is in every function that waits, and where
   gcc -O3 would take an operation for a task. */
CASYNC__COMPILER_NOINLINE casync_future *casync__await_refuse(const casync_task *task,
                                                              casync_future *future) {
    if (future->state != CASYNC_FUTURE_PENDING) return NULL;
    if (future->loop != casync__task_loop(task)) {
        CASYNC_ASSERT(!future->loop);
        return &casync__future_invalid;
    }
    return casync__await_is_deadlock(task, (casync_task *)(void *)future) ? &casync__future_deadlock
                                                                          : NULL;
}

CASYNC__COMPILER_INLINE bool casync__await_begin(casync_task *task, casync_future *future) {
    casync__task_set_awaits(task, future);
    if (!future) {
        casync__job_make_ready(casync__task_loop(task), &task->job);
        return true;
    }
    if (future->loop != task->future.loop || casync__future_is_task(future)) {
        casync_future *refused = casync__await_refuse(task, future);
        if (refused) {
            casync__task_set_awaits(task, refused);
            return false;
        }
    }
    if (casync__future_is_fiber(future)) casync_task_retain((casync_task *)(void *)future);
    if (future->state != CASYNC_FUTURE_PENDING) return false;
    casync__list_append(&future->callbacks, &task->job.link);
    if ((task->flags & CASYNC__TASK_MUST_CANCEL) && casync_future_cancel(future))
        task->flags &= (uint8_t)~CASYNC__TASK_MUST_CANCEL;
    return true;
}

CASYNC__COMPILER_INLINE int64_t casync__await_end(casync_task *task) {
    casync_future *future = casync__task_awaits(task);
    int64_t result = 0;
    casync__task_set_awaits(task, NULL);
    if (future) {
        result = casync_future_result(future);
        casync__await_release(future);
    } else if (task->flags & CASYNC__TASK_MUST_CANCEL) {
        task->flags &= (uint8_t)~CASYNC__TASK_MUST_CANCEL;
        result = -ECANCELED;
    }
    return result;
}

CASYNC__LINKAGE bool casync_await_begin(casync_task *task, casync_future *future) {
    if (!task || !task->future.loop) return false;
    return casync__await_begin(task, future);
}

CASYNC__LINKAGE int64_t casync_await_end(casync_task *task) {
    if (!task) return -EINVAL;
    return casync__await_end(task);
}

/* A function that waits was called where nothing can: -EPERM, and once a loop its user hears
   where. */
static int64_t casync__await_forbidden(casync_loop *loop, const char *function) {
    casync_loop *running = casync_get_running_loop();
    casync_exception exception;
    char message[CASYNC__LINE_SIZE] = "";
    if (!loop) loop = running;
    if (casync__loop_is_closed(loop) || loop->told_await_forbidden) return -EPERM;
    casync__line_append(
        message, "%s waits, which only a stackful task of the loop can: it was called ", function);
    if (running != loop)
        casync__line_append(message, running ? "in another loop" : "where no loop runs");
    else if (!running->task)
        casync__line_append(message, "in a callback");
    else
        casync__line_append(message, "in the stackless ");
    if (running == loop && running->task) casync__line_append_task(message, running->task);
    exception = casync__exception_make(message, -EPERM);
    loop->told_await_forbidden = true;
    casync_call_exception_handler(loop, &exception);
    return -EPERM;
}

CASYNC__COMPILER_INLINE int64_t casync__await(casync_task *task, casync_future *future) {
    if (casync__await_begin(task, future)) casync__fiber_suspend(casync__fiber_of(task));
    return casync__await_end(task);
}

CASYNC__LINKAGE int64_t casync_await(casync_future *future) {
    casync_task *task = future ? casync__fiber_current(future->loop) : NULL;
    if (!future) return -EINVAL;
    if (!task) return casync__await_forbidden(future->loop, __func__);
    return casync__await(task, future);
}

CASYNC__LINKAGE int64_t casync_join(casync_task *task) {
    int64_t result;
    if (!task || !task->future.loop) return -EINVAL;
    if (!casync__fiber_current(task->future.loop))
        return casync__await_forbidden(task->future.loop, __func__);
    if (task == task->future.loop->task) return -EDEADLK;
    result = casync_await(&task->future);
    casync_task_release(task);
    return result;
}

/* -- sleep -- */

static void casync__timer_op_done(void *op) {
    casync__future_set_result(&((casync_timer_op *)op)->future, 0, NULL);
}

/* In a loop that is closed, or without a place for its future. */
static casync_future *casync__timer_op_invalid(casync_timer_op *op) {
    if (!op) return &casync__future_invalid;
    memset(op, 0, sizeof *op);
    casync__future_reset(NULL, &op->future, CASYNC__FUTURE_TIMER);
    casync__future_set_result(&op->future, -EINVAL, NULL);
    return &op->future;
}

static void casync__timer_op_abandon(casync_future *future) {
    casync_timer_stop(&((casync_timer_op *)(void *)future)->timer);
}

CASYNC__LINKAGE casync_future *casync_sleep_op(casync_loop *loop, casync_timer_op *op,
                                               int64_t delay) {
    int64_t result;
    if (!op || casync__loop_is_closed(loop)) return casync__timer_op_invalid(op);
    memset(op, 0, sizeof *op);
    casync__future_reset(loop, &op->future, CASYNC__FUTURE_TIMER);
    result = casync_call_later(loop, &op->timer, delay, casync__timer_op_done, op);
    op->timer.job.flags |= CASYNC__JOB_INTERNAL;
    if (result < 0) casync__future_set_result(&op->future, result, NULL);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_sleep(int64_t delay) {
    casync_loop *loop = casync_get_running_loop();
    casync_task *task = casync__fiber_current(loop);
    casync_timer_op op;
    if (!task) return casync__await_forbidden(loop, __func__);
    return casync__await(task, delay > 0 ? casync_sleep_op(loop, &op, delay) : NULL);
}

/* -- the end of a loop -- */

/* Is there a stackful task that has not ended? */
static bool casync__loop_has_fibers(const casync_loop *loop) {
    const casync_link *link;
    for (link = loop->tasks.next; link != &loop->tasks; link = link->next)
        if (casync__future_is_fiber(&casync__container(link, casync_task, link)->future))
            return true;
    return false;
}

static void casync__fiber_forget(casync_task *task, void *arg) {
    (void)arg;
    casync_future_close(&task->future);
}

/* The loop ends, and with it the memory of tasks whose handles nobody released; not what they had
   to say. */
static void casync__fibers_forget(casync_loop *loop) {
    casync__fibers_each_unreleased(loop, casync__fiber_forget, NULL);
}

static void casync__tasks_walk(casync_loop *loop, void (*visit)(int, void *, void *), void *arg) {
    casync_link *link;
    for (link = loop->tasks.next; link != &loop->tasks; link = link->next)
        visit(CASYNC_KIND_TASK, casync__container(link, casync_task, link), arg);
}

/* At the loop's end: stackless tasks are dropped, as jobs are. Stackful ones were asked for
   before. */
static void casync__tasks_close(casync_loop *loop) {
    while (!casync__list_is_empty(&loop->tasks)) {
        casync_task *task = casync__container(loop->tasks.next, casync_task, link);
        if (task->step) {
            casync__task_abandon(&task->future);
            casync__list_move(&loop->ready, &task->future.callbacks);
        } else
            casync__list_remove(&task->link);
    }
}

/* >> structured concurrency (implementation) --------------------------------------------------- */

/* A wait set is a future with a job on each future that it waits for, all in the caller's memory.
   When it is done, cancelled or closed, it takes its jobs back, so that the memory is the caller's
   again. A timeout is a timer that cancels a task.

   A task group is in its parent's memory, but its children refer to a record of the library's,
   since a parent may end without casync_task_group_end. When the last child is done, and the parent
   waits for that, the group's future is done with the result of them all.

   Deadlocks: before a task awaits another one that has open groups, it checks whether that one
   already waits for it at the end of a group. The check climbs from child to parent. A task that
   ends a group makes the same check for the tasks that await it.

   Costs: no system call. One allocation for each group and each of its children; else none, except
   the wheel's when a timer is the first of its level. */

static void casync__wait_set_detach(casync_wait_set *set) {
    size_t i;
    for (i = 0; i < set->count; i++) casync_job_cancel(&set->waiters[i].job);
    casync_timer_stop(&set->timer);
}

static void casync__wait_set_abandon(casync_future *future) {
    casync__wait_set_detach((casync_wait_set *)(void *)future);
}

static void casync__wait_set_done(casync_wait_set *set, int64_t result) {
    casync__wait_set_detach(set);
    casync__future_set_result(&set->future, result, NULL);
}

/* Begins to wait: callback(waiter) for each future when it is done. */
static int64_t casync__wait_set_begin(casync_loop *loop, casync_wait_set *set, int kind,
                                      casync_waiter *waiters, size_t count, int mode,
                                      casync_callback callback) {
    size_t i;
    if (!set) return -EINVAL;
    memset(set, 0, sizeof *set);
    casync__future_reset(loop, &set->future, kind);
    if (casync__loop_is_closed(loop) || (count > 0 && !waiters)) {
        casync__future_set_result(&set->future, -EINVAL, NULL);
        return -EINVAL;
    }
    set->waiters = waiters;
    set->mode = mode;
    for (i = 0; i < count; i++) {
        int64_t result;
        memset(&waiters[i].job, 0, sizeof waiters[i].job);
        waiters[i].set = set;
        result = casync_future_add_done_callback(waiters[i].future, &waiters[i].job, callback,
                                                 &waiters[i]);
        if (result < 0) {
            casync__wait_set_done(set, result);
            return result;
        }
        waiters[i].job.flags = CASYNC__JOB_INTERNAL;
        set->count = set->pending = i + 1;
    }
    return 0;
}

static void casync__wait_set_cancel_all(casync_wait_set *set, bool *any) {
    size_t i;
    for (i = 0; i < set->count; i++)
        if (casync_future_cancel(set->waiters[i].future)) *any = true;
}

/* -- gather -- */

static void casync__gather_one_done(void *arg) {
    casync_waiter *waiter = (casync_waiter *)arg;
    casync_wait_set *set = waiter->set;
    int64_t result = casync_future_result(waiter->future);
    set->pending--;
    if (result < 0 && set->mode == CASYNC_FIRST_ERROR && !set->cancelled)
        casync__wait_set_done(set, result);
    else if (set->pending == 0 && set->cancelled)
        casync__future_end(&set->future, CASYNC_FUTURE_CANCELLED, -ECANCELED, NULL);
    else if (set->pending == 0)
        casync__wait_set_done(set, 0);
}

/* The gather is cancelled when all that it waits for have been told, and are done. */
static int64_t casync__gather_cancel(casync_future *future) {
    casync_wait_set *set = (casync_wait_set *)(void *)future;
    bool any = false;
    if (set->cancelling) { /* by way of others it waits for itself: let go */
        casync__wait_set_detach(set);
        casync__future_end(future, CASYNC_FUTURE_CANCELLED, -ECANCELED, NULL);
        return 1;
    }
    set->cancelling = true;
    casync__wait_set_cancel_all(set, &any);
    set->cancelling = false;
    if (any) set->cancelled = true;
    return any;
}

CASYNC__LINKAGE casync_future *casync_gather_op(casync_loop *loop, casync_wait_set *set,
                                                casync_waiter *waiters, size_t count, int mode) {
    int64_t result = casync__wait_set_begin(loop, set, CASYNC__FUTURE_GATHER, waiters, count, mode,
                                            casync__gather_one_done);
    bool known = mode == CASYNC_FIRST_ERROR || mode == CASYNC_RETURN_ERRORS;
    if (!set) return &casync__future_invalid;
    if (result == 0 && !known)
        casync__wait_set_done(set, -EINVAL);
    else if (result == 0 && count == 0)
        casync__wait_set_done(set, 0);
    return &set->future;
}

CASYNC__LINKAGE int64_t casync_gather(casync_waiter *waiters, size_t count, int mode) {
    casync_loop *loop = casync_get_running_loop();
    casync_wait_set set;
    return CASYNC__AWAIT_OP(loop, casync_gather_op(loop, &set, waiters, count, mode));
}

/* -- wait and select -- */

static int64_t casync__wait_set_count_done(const casync_wait_set *set) {
    int64_t done = 0;
    size_t i;
    for (i = 0; i < set->count; i++) done += casync_future_done(set->waiters[i].future);
    return done;
}

/* A wait that is over, though the task does not know yet, is not cancelled: what is done would be
   lost. */
static int64_t casync__wait_cancel(casync_future *future) {
    casync_wait_set *set = (casync_wait_set *)(void *)future;
    int64_t done = casync__wait_set_count_done(set);
    if (done == (int64_t)set->count || (done > 0 && set->mode == CASYNC_FIRST_COMPLETED)) return 0;
    casync__wait_set_detach(set);
    casync__future_end(future, CASYNC_FUTURE_CANCELLED, -ECANCELED, NULL);
    return 1;
}

static void casync__wait_end(void *set) {
    casync__wait_set_done((casync_wait_set *)set,
                          casync__wait_set_count_done((casync_wait_set *)set));
}

static void casync__wait_one_done(void *arg) {
    casync_waiter *waiter = (casync_waiter *)arg;
    casync_wait_set *set = waiter->set;
    bool failed = waiter->future->state == CASYNC_FUTURE_FAILED;
    set->pending--;
    if (set->pending == 0 || set->mode == CASYNC_FIRST_COMPLETED ||
        (failed && set->mode == CASYNC_FIRST_EXCEPTION))
        casync__wait_end(set);
}

CASYNC__LINKAGE casync_future *casync_wait_op(casync_loop *loop, casync_wait_set *set,
                                              casync_waiter *waiters, size_t count, int mode,
                                              int64_t timeout) {
    int64_t result = casync__wait_set_begin(loop, set, CASYNC__FUTURE_WAIT, waiters, count, mode,
                                            casync__wait_one_done);
    if (!set) return &casync__future_invalid;
    if (result == 0 && (count == 0 || mode < CASYNC_ALL_COMPLETED || mode > CASYNC_FIRST_EXCEPTION))
        result = -EINVAL;
    if (result == 0 && timeout != CASYNC_FOREVER) {
        result = casync_call_later(loop, &set->timer, timeout, casync__wait_end, set);
        set->timer.job.flags |= CASYNC__JOB_INTERNAL;
    }
    if (result < 0) casync__wait_set_done(set, result);
    return &set->future;
}

CASYNC__LINKAGE int64_t casync_wait(casync_waiter *waiters, size_t count, int mode,
                                    int64_t timeout) {
    casync_loop *loop = casync_get_running_loop();
    casync_wait_set set;
    return CASYNC__AWAIT_OP(loop, casync_wait_op(loop, &set, waiters, count, mode, timeout));
}

/* Waits for one that was asked to end. A request to cancel, old or new, is kept for the next
   await. */
static void casync__await_end_of(casync_task *task, casync_future *future) {
    bool asked = (task->flags & CASYNC__TASK_MUST_CANCEL) != 0;
    uint16_t requests = task->cancel_requests;
    task->flags &= (uint8_t)~CASYNC__TASK_MUST_CANCEL;
    while (!casync_future_done(future) && future != &task->future)
        (void)casync__await(task, future);
    if (asked || task->cancel_requests > requests) task->flags |= CASYNC__TASK_MUST_CANCEL;
}

CASYNC__LINKAGE int64_t casync_select(casync_waiter *waiters, size_t count, int64_t timeout) {
    casync_task *task = casync__fiber_current(casync_get_running_loop());
    size_t i;
    int64_t result;
    if (!task) return casync__await_forbidden(NULL, __func__);
    result = casync_wait(waiters, count, CASYNC_FIRST_COMPLETED, timeout);
    if (result == -EINVAL) return result; /* it waited for none */
    for (i = 0; i < count; i++) casync_future_cancel(waiters[i].future);
    for (i = 0; i < count; i++) { /* some take their time: tasks, a condition that needs its lock
                                     again */
        casync__await_end_of(task, waiters[i].future);
        waiters[i].future->retrieved = 1;
    }
    return result;
}

/* -- as_completed -- */

/* Answers who waits, if there is something to say. */
static void casync__completion_answer(casync_completion *completion) {
    casync_waiter *waiter;
    if (!completion->waiting || casync_future_done(&completion->set.future)) return;
    if (!casync__list_is_empty(&completion->done)) {
        waiter = casync__container(completion->done.next, casync_waiter, job.link);
        casync__list_remove(&waiter->job.link);
        casync__future_set_result(&completion->set.future, 1, waiter->future);
    } else if (completion->set.pending == 0) {
        casync__future_set_result(&completion->set.future, 0, NULL);
    }
}

static void casync__completion_arrived(void *arg) {
    casync_waiter *waiter = (casync_waiter *)arg;
    casync_completion *completion = casync__container(waiter->set, casync_completion, set);
    casync__list_append(&completion->done, &waiter->job.link);
    completion->set.pending--;
    casync__completion_answer(completion);
}

CASYNC__LINKAGE int64_t casync_as_completed(casync_loop *loop, casync_completion *completion,
                                            casync_waiter *waiters, size_t count) {
    if (!completion) return -EINVAL;
    memset(completion, 0, sizeof *completion);
    casync__list_init(&completion->done);
    return casync__wait_set_begin(loop, &completion->set, CASYNC__FUTURE_PLAIN, waiters, count, 0,
                                  casync__completion_arrived);
}

CASYNC__LINKAGE casync_future *casync_completion_next_op(casync_completion *completion) {
    casync_wait_set *set;
    if (!completion) return &casync__future_invalid;
    set = &completion->set;
    if (!completion->done.next) return &casync__future_invalid; /* never begun */
    casync__future_reset(set->future.loop, &set->future, CASYNC__FUTURE_PLAIN);
    completion->waiting = true;
    casync__completion_answer(completion);
    return &set->future;
}

CASYNC__LINKAGE int64_t casync_completion_next(casync_completion *completion,
                                               casync_future **future) {
    casync_future *next;
    casync_task *task;
    int64_t result;
    if (!completion || !future) return -EINVAL;
    next = &completion->set.future;
    task = casync__fiber_current(next->loop);
    if (!task) return casync__await_forbidden(next->loop, __func__);
    if (completion->waiting && !casync_future_done(next)) return -EBUSY;
    result = casync__await(task, casync_completion_next_op(completion));
    if (result == 1) *future = (casync_future *)next->ptr;
    return result;
}

CASYNC__LINKAGE void casync_completion_stop(casync_completion *completion) {
    if (!completion) return;
    casync__wait_set_detach(&completion->set);
    completion->set.pending = completion->set.count = 0;
}

/* -- shield -- */

static void casync__shield_done(void *arg) {
    casync_shielded *shield = (casync_shielded *)arg;
    const casync_future *inner = shield->inner;
    if (inner->state == CASYNC_FUTURE_CANCELLED)
        casync_future_cancel(&shield->future);
    else
        casync__future_set_result(&shield->future, casync_future_result(shield->inner), inner->ptr);
}

static void casync__shield_abandon(casync_future *future) {
    casync_job_cancel(&((casync_shielded *)(void *)future)->job);
}

CASYNC__LINKAGE casync_future *casync_shield_op(casync_shielded *shield, casync_future *future) {
    int64_t result;
    if (!shield) return &casync__future_invalid;
    memset(shield, 0, sizeof *shield);
    casync__future_reset(future ? future->loop : NULL, &shield->future, CASYNC__FUTURE_SHIELD);
    shield->inner = future;
    result = casync_future_add_done_callback(future, &shield->job, casync__shield_done, shield);
    shield->job.flags = CASYNC__JOB_INTERNAL;
    if (result < 0) casync__future_set_result(&shield->future, result, NULL);
    return &shield->future;
}

CASYNC__LINKAGE int64_t casync_shield(casync_future *future) {
    casync_task *task;
    casync_shielded shield;
    if (!future) return -EINVAL;
    task = casync__fiber_current(future->loop);
    if (!task) return casync__await_forbidden(future->loop, __func__);
    if (casync_future_done(future)) return casync_future_result(future);
    return casync__await(task, casync_shield_op(&shield, future));
}

/* -- timeouts -- */

static void casync__timeout_fires(void *arg) {
    casync_timeout *timeout = (casync_timeout *)arg;
    timeout->expired = true;
    casync_task_cancel(timeout->task);
}

CASYNC__LINKAGE int64_t casync_timeout_reschedule(casync_timeout *timeout, int64_t delay) {
    casync_loop *loop;
    int64_t when, result;
    if (!timeout) return -EINVAL;
    if (!timeout->active || timeout->expired) return CASYNC_INVALID_STATE;
    loop = casync__task_loop(timeout->task);
    when = casync__clock_add(casync_time(loop), delay);
    if (delay != CASYNC_FOREVER && casync__wheel_prepare(loop, when) < 0) return -ENOMEM;
    casync_job_cancel(&timeout->timer.job);
    if (delay == CASYNC_FOREVER) return 0;
    timeout->timer.job.flags = 0;
    result = delay <= 0 /* timers that are due come after what is ready, but this must not be
                           late */
                 ? casync_call_soon(loop, &timeout->timer.job, casync__timeout_fires, timeout)
                 : casync_call_at(loop, &timeout->timer, when, casync__timeout_fires, timeout);
    timeout->timer.job.flags |= CASYNC__JOB_INTERNAL;
    return result;
}

CASYNC__LINKAGE int64_t casync_timeout_begin(casync_timeout *timeout, int64_t delay) {
    int64_t result;
    if (!timeout) return -EINVAL;
    memset(timeout, 0, sizeof *timeout);
    timeout->task = casync_current_task();
    if (!timeout->task) return -EPERM;
    timeout->cancelling = timeout->task->cancel_requests;
    timeout->active = true;
    result = casync_timeout_reschedule(timeout, delay);
    timeout->active = result == 0;
    return result;
}

CASYNC__LINKAGE int64_t casync_timeout_end(casync_timeout *timeout, int64_t result) {
    if (!timeout) return result;
    if (!timeout->active) return result;
    timeout->active = false;
    casync_job_cancel(&timeout->timer.job);
    if (!timeout->expired) return result;
    if (casync_task_uncancel(timeout->task) <= timeout->cancelling && result == -ECANCELED)
        return -ETIMEDOUT;
    return result;
}

CASYNC__LINKAGE bool casync_timeout_expired(const casync_timeout *timeout) {
    return timeout && timeout->expired;
}

CASYNC__LINKAGE int64_t casync_wait_for(casync_future *future, int64_t delay) {
    casync_task *task;
    casync_timeout timeout;
    int64_t result;
    if (!future) return -EINVAL;
    task = casync__fiber_current(future->loop);
    if (!task) return casync__await_forbidden(future->loop, __func__);
    if (delay <= 0 && !casync_future_done(future)) { /* not even a turn */
        uint16_t requests = task->cancel_requests;
        casync_future_cancel(future);
        result = casync__await(task, future);
        return result == -ECANCELED && task->cancel_requests == requests ? -ETIMEDOUT : result;
    }
    result = casync_timeout_begin(&timeout, delay);
    if (result < 0) return result;
    return casync_timeout_end(&timeout, casync_await(future));
}

/* -- task groups -- */

/* What must outlive a parent that forgets its group. */
typedef struct casync__group_record {
    casync_link link;         /* in loop->groups */
    casync_link members;      /* casync__group_member by link: children that are not done */
    casync_task_group *group; /* NULL: the parent is gone */
    casync_task *parent;
    casync_loop *loop;
} casync__group_record;

typedef struct casync__group_member {
    casync_job job;
    casync_link link;
    casync_task *task;
    casync__group_record *record;
} casync__group_member;

static void casync__group_add_error(casync_task_group *group, int64_t error) {
    if (group->error_count < CASYNC_GROUP_ERRORS) group->errors[group->error_count] = error;
    group->error_count++;
}

static void casync__group_cancel_members(casync__group_record *record) {
    casync_link *link;
    for (link = record->members.next; link != &record->members; link = link->next)
        casync_task_cancel(casync__container(link, casync__group_member, link)->task);
}

static void casync__group_abort(casync_task_group *group) {
    group->aborting = true;
    casync__group_cancel_members(group->record);
}

static void casync__group_record_free(casync__group_record *record) {
    casync__list_remove(&record->link);
    casync__memory_free(&record->loop->allocator, record);
}

static void casync__groups_close(casync_loop *loop) {
    while (!casync__list_is_empty(&loop->groups))
        casync__group_record_free(casync__container(loop->groups.next, casync__group_record, link));
}

/* All children are done, and the parent waits for that: what comes of the group? */
static void casync__group_finish(casync_task_group *group) {
    int64_t result = group->result;
    group->parent->open_groups--;
    casync__group_record_free(group->record);
    if (group->parent_cancelled && casync_task_uncancel(group->parent) == 0 && result == -ECANCELED)
        result = 0;
    if (result < 0 && result != -ECANCELED) casync__group_add_error(group, result);
    if (group->error_count > 0) {
        result = group->errors[0];
        /* The error goes first; a request that somebody else made is heard by the next await. */
        if (group->parent->cancel_requests > 0) group->parent->flags |= CASYNC__TASK_MUST_CANCEL;
    }
    casync__future_set_result(&group->ended, result, NULL);
}

/* A task ends, or is closed, and has open groups: their children are orphans. */
static void casync__groups_leave(casync_task *task) {
    casync_loop *loop = casync__task_loop(task);
    casync_exception exception = casync__exception_make(
        "a task ended inside of its task group: call casync_task_group_end", CASYNC_INVALID_STATE);
    casync_link *link = loop->groups.next;
    if (loop->closing) return;
    exception.future = &task->future;
    casync_call_exception_handler(loop, &exception);
    while (link != &loop->groups) {
        casync__group_record *record = casync__container(link, casync__group_record, link);
        link = link->next;
        if (record->parent != task || !record->group) continue;
        record->group = NULL;
        casync__group_cancel_members(record);
        if (casync__list_is_empty(&record->members)) casync__group_record_free(record);
    }
}

/* What the group learns of a child that is done. */
static void casync__group_child_done(casync_task_group *group, casync_future *child) {
    group->children--;
    if (child->state != CASYNC_FUTURE_FAILED) return;
    casync__group_add_error(group, child->result);
    if (group->aborting) return;
    casync__group_abort(group);
    group->parent_cancelled = !group->ending;
    if (!group->ending) casync_task_cancel(group->parent);
}

static void casync__group_member_done(void *arg) {
    casync__group_member *member = (casync__group_member *)arg;
    casync__group_record *record = member->record;
    casync_future *future = &member->task->future;
    if (future->loop->closing) { /* parent and group may be gone */
        casync__memory_free(&future->loop->allocator, member);
        return;
    }
    casync__list_remove(&member->link);
    if (record->group) {
        future->retrieved = 1;
        casync__group_child_done(record->group, future);
    }
    if (casync__future_is_fiber(future))
        casync_task_release(member->task);
    else
        casync_future_close(future);
    casync__memory_free(&record->loop->allocator, member);
    if (!record->group && casync__list_is_empty(&record->members))
        casync__group_record_free(record);
    else if (record->group && record->group->ending && record->group->children == 0)
        casync__group_finish(record->group);
}

/* What the group knows of a task that is its child, or NULL. */
static casync__group_record *casync__group_record_of(const casync_task *task) {
    const casync_link *link, *callbacks = &task->future.callbacks;
    for (link = callbacks->next; link && link != callbacks; link = link->next) {
        const casync_job *job = casync__job_of((casync_link *)(uintptr_t)link);
        if (job->callback == casync__group_member_done)
            return ((casync__group_member *)job->arg)->record;
    }
    return NULL;
}

/* Does the task wait, at the end of a group, for this child, or for one that waits for it so? */
static bool casync__group_awaits_child(const casync_task *parent, const casync_task *child) {
    const casync__group_record *record;
    while ((record = casync__group_record_of(child)) != NULL && record->group &&
           record->group->ending) {
        if (record->parent == parent) return true;
        child = record->parent;
    }
    return false;
}

/* A task began to wait for its children. Those that await it would wait for ever, and so would
   their children; and so would those that await an ancestor which waits for it. */
static void casync__group_interrupt_deadlocked(casync_task *parent) {
    const casync__group_record *record = NULL;
    do {
        casync_link *callbacks = &parent->future.callbacks, *link = callbacks->next;
        while (link != callbacks) {
            casync_job *job = casync__job_of(link);
            link = link->next;
            if ((job->flags & CASYNC__JOB_TASK) &&
                casync__group_awaits_child(parent, (casync_task *)job->arg))
                casync__task_interrupt((casync_task *)job->arg, &casync__future_deadlock);
        }
        record = casync__group_record_of(parent);
        parent = record ? record->parent : NULL;
    } while (record && record->group && record->group->ending);
}

CASYNC__LINKAGE int64_t casync_task_group_begin(casync_task_group *group) {
    casync_task *parent = casync_current_task();
    casync_loop *loop = parent ? casync__task_loop(parent) : NULL;
    casync__group_record *record;
    if (!group) return -EINVAL;
    memset(group, 0, sizeof *group);
    if (!parent) return -EPERM;
    if (parent->open_groups == UINT8_MAX) return -ENOMEM;
    record = (casync__group_record *)casync__memory_realloc(&loop->allocator, NULL, sizeof *record);
    if (!record) return -ENOMEM;
    parent->open_groups++;
    casync__list_append(&loop->groups, &record->link);
    casync__list_init(&record->members);
    record->group = group;
    record->parent = parent;
    record->loop = loop;
    group->record = record;
    group->parent = parent;
    casync__future_reset(loop, &group->ended, CASYNC__FUTURE_GROUP);
    return 0;
}

/* May children still come? They may make others while the parent waits. */
static bool casync__group_is_open(const casync_task_group *group) {
    return group->parent && !group->aborting && !casync_future_done(&group->ended);
}

static int64_t casync__group_member_add(casync_task_group *group, casync__group_member **added) {
    casync__group_member *member;
    if (!group) return -EINVAL;
    if (!casync__group_is_open(group)) return CASYNC_INVALID_STATE;
    member = (casync__group_member *)casync__memory_realloc(&group->ended.loop->allocator, NULL,
                                                            sizeof *member);
    if (!member) return -ENOMEM;
    memset(member, 0, sizeof *member);
    member->record = group->record;
    casync__list_append(&group->record->members, &member->link);
    group->children++;
    *added = member;
    return 0;
}

/* The member is watched from now on, or dropped if its task could not be started. */
static int64_t casync__group_member_started(casync__group_member *member, casync_task **task,
                                            int64_t result) {
    casync__group_record *record = member->record;
    if (result < 0) {
        casync__list_remove(&member->link);
        record->group->children--;
        casync__memory_free(&record->loop->allocator, member);
        return result;
    }
    member->task = *task;
    casync__job_init(record->loop, &member->job, casync__group_member_done, member);
    member->job.flags = CASYNC__JOB_INTERNAL | CASYNC__JOB_FINALLY;
    casync__list_append(&member->task->future.callbacks, &member->job.link);
    return 0;
}

CASYNC__LINKAGE int64_t casync_task_group_spawn_with(casync_task_group *group,
                                                     const casync_task_desc *desc,
                                                     casync_task **task) {
    casync__group_member *member;
    int64_t result = casync__group_member_add(group, &member);
    if (result < 0) return result;
    result = casync_spawn_with(member->record->loop, desc, task);
    return casync__group_member_started(member, task, result);
}

CASYNC__LINKAGE casync_task *casync_task_group_spawn(casync_task_group *group,
                                                     casync_coroutine coroutine, void *arg) {
    casync_task_desc desc;
    casync_task *task = NULL;
    casync__task_desc_init(&desc, coroutine, arg, NULL);
    return casync_task_group_spawn_with(group, &desc, &task) < 0 ? NULL : task;
}

CASYNC__LINKAGE int64_t casync_task_group_start(casync_task_group *group, casync_task *task,
                                                casync_step step) {
    casync__group_member *member;
    int64_t result = casync__group_member_add(group, &member);
    if (result < 0) return result;
    result = casync_task_start(member->record->loop, task, step);
    return casync__group_member_started(member, &task, result);
}

/* The parent is cancelled while it waits: the children are, and then the parent hears of it. */
static int64_t casync__group_cancel(casync_future *future) {
    casync_task_group *group = casync__container(future, casync_task_group, ended);
    if (!group->aborting) {
        group->result = -ECANCELED;
        casync__group_abort(group);
    }
    return 1;
}

CASYNC__LINKAGE casync_future *casync_task_group_end_op(casync_task_group *group, int64_t result) {
    if (!group) return &casync__future_invalid;
    if (group->ending) return &group->ended;
    if (!group->parent) { /* it never began */
        casync__future_reset(casync_get_running_loop(), &group->ended, CASYNC__FUTURE_GROUP);
        casync__future_set_result(&group->ended, -EPERM, NULL);
        return &group->ended;
    }
    CASYNC_ASSERT(casync_current_task() == group->parent);
    group->ending = true;
    group->result = result;
    if (result < 0 && !group->aborting) casync__group_abort(group);
    casync__group_interrupt_deadlocked(group->parent);
    if (group->children == 0) casync__group_finish(group);
    return &group->ended;
}

CASYNC__LINKAGE int64_t casync_task_group_end(casync_task_group *group, int64_t result) {
    casync_task *task = casync__fiber_current(NULL);
    if (!group) return -EINVAL;
    if (!task) return casync__await_forbidden(NULL, __func__);
    if (task != group->parent) return -EPERM;
    return casync__await(task, casync_task_group_end_op(group, result));
}

/* -- generators -- */

static int64_t casync__generator_main(casync_loop *loop, void *arg) {
    casync_generator *generator = (casync_generator *)arg;
    int64_t result = casync_await(&generator->asked);
    if (result >= 0) result = generator->coroutine(loop, generator->arg);
    generator->ended = true;
    casync__future_set_result(&generator->given, result < 0 ? result : 0, NULL);
    return result < 0 ? result : 0;
}

CASYNC__LINKAGE int64_t casync_generator_start(casync_loop *loop, casync_generator *generator,
                                               casync_coroutine coroutine, void *arg) {
    casync_task_desc desc;
    if (!generator || !coroutine) return -EINVAL;
    casync__task_desc_init(&desc, casync__generator_main, generator, "generator");
    memset(generator, 0, sizeof *generator);
    generator->coroutine = coroutine;
    generator->arg = arg;
    casync__future_reset(loop, &generator->asked, CASYNC__FUTURE_PLAIN);
    return casync_spawn_with(loop, &desc, &generator->task);
}

/* A coroutine that has not begun never will: nobody but us would tell who waits for its first
   value. */
static void casync__generator_cancel(casync_generator *generator, casync_task *task) {
    casync_task_cancel(task);
    if (task->flags & CASYNC__TASK_STARTED) return;
    generator->ended = true;
    casync__future_set_result(&generator->given, 0, NULL);
}

CASYNC__LINKAGE int64_t casync_generator_yield(casync_generator *generator, void *value) {
    casync_task *task = casync__fiber_current(casync_get_running_loop());
    if (!generator) return -EINVAL;
    if (!task) return casync__await_forbidden(generator->asked.loop, __func__);
    if (task != generator->task) return -EPERM;
    casync__future_reset(casync__task_loop(task), &generator->asked, CASYNC__FUTURE_PLAIN);
    casync__future_set_result(&generator->given, 1, value);
    return casync_await(&generator->asked);
}

CASYNC__LINKAGE casync_future *casync_generator_next_op(casync_generator *generator) {
    if (!generator) return &casync__future_invalid;
    casync__future_reset(generator->asked.loop, &generator->given, CASYNC__FUTURE_PLAIN);
    if (!generator->task)
        casync__future_set_result(&generator->given, CASYNC_INVALID_STATE, NULL);
    else if (generator->ended)
        casync__future_set_result(&generator->given, 0, NULL);
    else
        casync__future_set_result(&generator->asked, 0, NULL);
    return &generator->given;
}

CASYNC__LINKAGE int64_t casync_generator_next(casync_generator *generator, void **value) {
    casync_task *task; /* close, which another task may call, forgets it and joins it */
    casync_task *consumer;
    int64_t result;
    if (!generator || !value) return -EINVAL;
    task = generator->task;
    consumer = casync__fiber_current(generator->asked.loop);
    if (!task) return CASYNC_INVALID_STATE;
    if (!consumer) return casync__await_forbidden(generator->asked.loop, __func__);
    if (generator->busy) return -EBUSY;
    generator->busy = true;
    result = casync__await(consumer, casync_generator_next_op(generator));
    generator->busy = false;
    if (result == -ECANCELED && !generator->ended) casync__generator_cancel(generator, task);
    if (result == 1) *value = generator->given.ptr;
    return result;
}

CASYNC__LINKAGE int64_t casync_generator_close(casync_generator *generator) {
    casync_task *task;
    int64_t result;
    if (!generator) return 0;
    task = generator->task;
    if (!task) return 0;
    if (!casync__fiber_current(casync__task_loop(task)))
        return casync__await_forbidden(casync__task_loop(task), __func__);
    generator->task = NULL;
    casync__generator_cancel(generator, task);
    result = casync_join(task);
    return result == -ECANCELED ? 0 : result;
}

/* >> sync primitives (implementation) ---------------------------------------------------------- */

/* Each primitive is a little state and a list of the operations that wait for it, in the order in
   which they came. An operation tries first; if the answer is -EAGAIN, it joins the list. Code that
   frees something hands it to the first operation of the list there and then, and completes that
   operation. Nothing is ever both free and promised, so a cancelled task has nothing to undo: its
   operation just leaves the list. Where that lets others go on, the kind has an `abandon`.

   No system call. No allocation except for queue entries: an operation is its caller's memory, or
   in the waiting form on the task's stack. The waiting forms that are called often try first, and
   make an operation only if they have to wait. */

static casync_op *casync__ops_first(const casync_link *waiting) {
    if (!waiting->next || casync__list_is_empty(waiting)) return NULL;
    return casync__container(waiting->next, casync_op, link);
}

static void casync__ops_append(casync_link *waiting, casync_op *op) {
    if (!waiting->next) casync__list_init(waiting); /* zeroed until now */
    casync__list_append(waiting, &op->link);
}

/* Makes the future of an operation on `object`, the outcome of which is `result`; if that is
   -EAGAIN, the operation waits. */
static casync_future *casync__sync_op(casync_op *op, int kind, void *object, casync_link *waiting,
                                      int64_t result) {
    casync__op_begin(NULL, op, kind);
    op->owner = object;
    if (result == -EAGAIN && !op->future.loop) result = -EPERM;
    if (result != -EAGAIN) return casync__op_done(op, result, NULL);
    casync__ops_append(waiting, op);
    return &op->future;
}

/* Waits for an operation of the caller's own, which is not pending after that. */
static int64_t casync__await_for(casync_future *future, int64_t timeout) {
    int64_t result;
    if (casync_future_done(future)) return casync_future_result(future);
    result = casync_wait_for(future, timeout);
    casync_future_cancel(future); /* if there was no memory for the timer */
    return result;
}

/* -- event -- */

CASYNC__LINKAGE void casync_event_set(casync_event *event) {
    if (!event) return;
    event->set = true;
    casync__ops_done(&event->waiting, 0);
}

CASYNC__LINKAGE void casync_event_clear(casync_event *event) {
    if (event) event->set = false;
}

CASYNC__LINKAGE bool casync_event_is_set(const casync_event *event) { return event && event->set; }

CASYNC__LINKAGE casync_future *casync_event_wait_op(casync_event *event, casync_op *op) {
    if (!event || !op) return casync__op_invalid(op);
    return casync__sync_op(op, CASYNC__OP_EVENT, event, &event->waiting, event->set ? 0 : -EAGAIN);
}

CASYNC__LINKAGE int64_t casync_event_wait(casync_event *event) {
    casync_op op;
    return CASYNC__AWAIT_OP(NULL, casync_event_wait_op(event, &op));
}

/* -- lock -- */

/* How far the wait for a condition is: until it is notified or cancelled it is in the condition's
   list; then it is in the lock's, beside those who acquire it, and ends when it has that. */
enum { CASYNC__CONDITION_WAITING, CASYNC__CONDITION_NOTIFIED, CASYNC__CONDITION_CANCELLED };

/* The lock is this operation's now. */
static void casync__lock_granted(casync_op *op) {
    if (op->kind != CASYNC__OP_CONDITION || op->as.phase != CASYNC__CONDITION_CANCELLED) {
        casync__op_done(op, 0, NULL);
        return;
    }
    if (op->link.next) casync__list_remove(&op->link);
    casync__future_end(&op->future, CASYNC_FUTURE_CANCELLED, -ECANCELED, NULL);
}

CASYNC__LINKAGE int64_t casync_lock_try_acquire(casync_lock *lock) {
    if (!lock) return -EINVAL;
    if (lock->locked) return -EAGAIN;
    lock->locked = true;
    return 0;
}

CASYNC__LINKAGE int64_t casync_lock_release(casync_lock *lock) {
    casync_op *next;
    if (!lock) return -EINVAL;
    next = casync__ops_first(&lock->waiting);
    if (!lock->locked) return CASYNC_INVALID_STATE;
    if (next)
        casync__lock_granted(next);
    else
        lock->locked = false;
    return 0;
}

CASYNC__LINKAGE bool casync_lock_locked(const casync_lock *lock) { return lock && lock->locked; }

CASYNC__LINKAGE casync_future *casync_lock_acquire_op(casync_lock *lock, casync_op *op) {
    if (!lock || !op) return casync__op_invalid(op);
    return casync__sync_op(op, CASYNC__OP_LOCK, lock, &lock->waiting,
                           casync_lock_try_acquire(lock));
}

CASYNC__LINKAGE int64_t casync_lock_acquire(casync_lock *lock) {
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(NULL, casync_lock_try_acquire(lock));
    casync_op op;
    return result == -EAGAIN ? casync__await_op(casync_lock_acquire_op(lock, &op)) : result;
}

CASYNC__LINKAGE int64_t casync_lock_acquire_timeout(casync_lock *lock, int64_t timeout) {
    casync_op op;
    return CASYNC__AWAIT_IF_ALLOWED(NULL,
                                    casync__await_for(casync_lock_acquire_op(lock, &op), timeout));
}

/* -- rwlock -- */

CASYNC__LINKAGE int64_t casync_rwlock_try_acquire_read(casync_rwlock *rwlock) {
    if (!rwlock) return -EINVAL;
    if (rwlock->writing || casync__ops_first(&rwlock->waiting)) return -EAGAIN;
    rwlock->readers++;
    return 0;
}

CASYNC__LINKAGE int64_t casync_rwlock_try_acquire_write(casync_rwlock *rwlock) {
    if (!rwlock) return -EINVAL;
    if (rwlock->writing || rwlock->readers > 0) return -EAGAIN;
    rwlock->writing = true;
    return 0;
}

/* Hands the lock to those first in its list that can have it now. */
static void casync__rwlock_hand_over(casync_rwlock *rwlock) {
    casync_op *op;
    while (!rwlock->writing && (op = casync__ops_first(&rwlock->waiting)) != NULL) {
        bool writer = op->kind == CASYNC__OP_WRITE_LOCK;
        if (writer && rwlock->readers > 0) return;
        rwlock->writing = writer;
        rwlock->readers += !writer;
        casync__op_done(op, 0, NULL);
    }
}

/* A writer that gives up may have held up readers. */
static void casync__rwlock_abandon(casync_op *op) {
    casync__rwlock_hand_over((casync_rwlock *)op->owner);
}

CASYNC__LINKAGE int64_t casync_rwlock_release(casync_rwlock *rwlock) {
    if (!rwlock) return -EINVAL;
    if (rwlock->writing)
        rwlock->writing = false;
    else if (rwlock->readers > 0)
        rwlock->readers--;
    else
        return CASYNC_INVALID_STATE;
    casync__rwlock_hand_over(rwlock);
    return 0;
}

CASYNC__LINKAGE casync_future *casync_rwlock_acquire_read_op(casync_rwlock *rwlock, casync_op *op) {
    if (!rwlock || !op) return casync__op_invalid(op);
    return casync__sync_op(op, CASYNC__OP_READ_LOCK, rwlock, &rwlock->waiting,
                           casync_rwlock_try_acquire_read(rwlock));
}

CASYNC__LINKAGE casync_future *casync_rwlock_acquire_write_op(casync_rwlock *rwlock,
                                                              casync_op *op) {
    if (!rwlock || !op) return casync__op_invalid(op);
    return casync__sync_op(op, CASYNC__OP_WRITE_LOCK, rwlock, &rwlock->waiting,
                           casync_rwlock_try_acquire_write(rwlock));
}

CASYNC__LINKAGE int64_t casync_rwlock_acquire_read(casync_rwlock *rwlock) {
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(NULL, casync_rwlock_try_acquire_read(rwlock));
    casync_op op;
    return result == -EAGAIN ? casync__await_op(casync_rwlock_acquire_read_op(rwlock, &op))
                             : result;
}

CASYNC__LINKAGE int64_t casync_rwlock_acquire_write(casync_rwlock *rwlock) {
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(NULL, casync_rwlock_try_acquire_write(rwlock));
    casync_op op;
    return result == -EAGAIN ? casync__await_op(casync_rwlock_acquire_write_op(rwlock, &op))
                             : result;
}

/* -- condition -- */

CASYNC__LINKAGE void casync_condition_init(casync_condition *condition, casync_lock *lock) {
    if (!condition) return;
    memset(condition, 0, sizeof *condition);
    condition->lock = lock;
}

static void casync__condition_reacquire(casync_op *op, int phase) {
    casync_lock *lock = ((casync_condition *)op->owner)->lock;
    casync__list_remove(&op->link);
    op->as.phase = phase;
    if (casync_lock_try_acquire(lock) == 0)
        casync__lock_granted(op);
    else
        casync__ops_append(&lock->waiting, op);
}

static int64_t casync__condition_wake(casync_condition *condition, int64_t n) {
    int64_t woken = 0;
    casync_op *op;
    while (woken < n && (op = casync__ops_first(&condition->waiting)) != NULL) {
        casync__condition_reacquire(op, CASYNC__CONDITION_NOTIFIED);
        woken++;
    }
    return woken;
}

/* The wait goes on, for the lock. What it was notified of, another has to hear. */
static int64_t casync__condition_cancel(casync_future *future) {
    casync_op *op = (casync_op *)(void *)future;
    if (op->as.phase == CASYNC__CONDITION_WAITING) {
        casync__condition_reacquire(op, CASYNC__CONDITION_CANCELLED);
    } else if (op->as.phase == CASYNC__CONDITION_NOTIFIED) {
        op->as.phase = CASYNC__CONDITION_CANCELLED;
        casync__condition_wake((casync_condition *)op->owner, 1);
    }
    return 1;
}

static void casync__condition_abandon(casync_op *op) {
    if (op->as.phase == CASYNC__CONDITION_NOTIFIED)
        casync__condition_wake((casync_condition *)op->owner, 1);
}

CASYNC__LINKAGE casync_future *casync_condition_wait_op(casync_condition *condition,
                                                        casync_op *op) {
    casync_lock *lock;
    casync_future *future;
    if (!condition || !op) return casync__op_invalid(op);
    lock = condition->lock;
    future = casync__sync_op(op, CASYNC__OP_CONDITION, condition, &condition->waiting,
                             lock && lock->locked ? -EAGAIN : CASYNC_INVALID_STATE);
    if (casync_future_done(future)) return future;
    future->kind = CASYNC__FUTURE_CONDITION;
    casync_lock_release(lock);
    return future;
}

CASYNC__LINKAGE int64_t casync_condition_wait(casync_condition *condition) {
    casync_op op;
    return CASYNC__AWAIT_OP(NULL, casync_condition_wait_op(condition, &op));
}

CASYNC__LINKAGE int64_t casync_condition_notify(casync_condition *condition, int64_t n) {
    if (!condition) return -EINVAL;
    if (n < 0) return -EINVAL;
    if (!condition->lock || !condition->lock->locked) return CASYNC_INVALID_STATE;
    return casync__condition_wake(condition, n);
}

CASYNC__LINKAGE int64_t casync_condition_notify_all(casync_condition *condition) {
    return casync_condition_notify(condition, INT64_MAX);
}

/* -- semaphore -- */

CASYNC__LINKAGE int64_t casync_semaphore_init(casync_semaphore *semaphore, int64_t value,
                                              int64_t bound) {
    if (!semaphore) return -EINVAL;
    if (value < 0 || bound < 0 || (bound > 0 && value > bound)) return -EINVAL;
    memset(semaphore, 0, sizeof *semaphore);
    semaphore->value = value;
    semaphore->bound = bound;
    return 0;
}

CASYNC__LINKAGE bool casync_semaphore_locked(const casync_semaphore *semaphore) {
    return semaphore && semaphore->value == 0;
}

CASYNC__LINKAGE int64_t casync_semaphore_try_acquire(casync_semaphore *semaphore) {
    if (!semaphore) return -EINVAL;
    if (semaphore->value == 0) return -EAGAIN;
    semaphore->value--;
    return 0;
}

CASYNC__LINKAGE int64_t casync_semaphore_release(casync_semaphore *semaphore) {
    int64_t bound;
    casync_op *next;
    if (!semaphore) return -EINVAL;
    bound = semaphore->bound > 0 ? semaphore->bound : INT64_MAX;
    next = casync__ops_first(&semaphore->waiting);
    if (semaphore->value == bound) return CASYNC_INVALID_STATE;
    if (next)
        casync__op_done(next, 0, NULL);
    else
        semaphore->value++;
    return 0;
}

CASYNC__LINKAGE casync_future *casync_semaphore_acquire_op(casync_semaphore *semaphore,
                                                           casync_op *op) {
    if (!semaphore || !op) return casync__op_invalid(op);
    return casync__sync_op(op, CASYNC__OP_SEMAPHORE, semaphore, &semaphore->waiting,
                           casync_semaphore_try_acquire(semaphore));
}

CASYNC__LINKAGE int64_t casync_semaphore_acquire(casync_semaphore *semaphore) {
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(NULL, casync_semaphore_try_acquire(semaphore));
    casync_op op;
    return result == -EAGAIN ? casync__await_op(casync_semaphore_acquire_op(semaphore, &op))
                             : result;
}

/* -- barrier -- */

CASYNC__LINKAGE int64_t casync_barrier_init(casync_barrier *barrier, int64_t parties) {
    if (!barrier) return -EINVAL;
    if (parties < 1) return -EINVAL;
    memset(barrier, 0, sizeof *barrier);
    barrier->parties = parties;
    return 0;
}

static void casync__barrier_abandon(casync_op *op) { ((casync_barrier *)op->owner)->n_waiting--; }

/* One more party comes: its number if it is the last, and the others go on; else -EAGAIN. */
static int64_t casync__barrier_arrive(casync_barrier *barrier) {
    int64_t index = 0;
    casync_op *op;
    if (barrier->broken) return CASYNC_BROKEN_BARRIER;
    if (barrier->parties == 0) return CASYNC_INVALID_STATE;
    if (barrier->n_waiting + 1 < barrier->parties) return -EAGAIN;
    barrier->n_waiting = 0;
    while ((op = casync__ops_first(&barrier->waiting)) != NULL) casync__op_done(op, index++, NULL);
    return index;
}

CASYNC__LINKAGE casync_future *casync_barrier_wait_op(casync_barrier *barrier, casync_op *op) {
    casync_future *future;
    if (!barrier || !op) return casync__op_invalid(op);
    future = casync__sync_op(op, CASYNC__OP_BARRIER, barrier, &barrier->waiting,
                             casync__barrier_arrive(barrier));
    if (!casync_future_done(future)) barrier->n_waiting++;
    return future;
}

CASYNC__LINKAGE int64_t casync_barrier_wait(casync_barrier *barrier) {
    casync_op op;
    return CASYNC__AWAIT_OP(NULL, casync_barrier_wait_op(barrier, &op));
}

static void casync__barrier_break(casync_barrier *barrier, bool for_good) {
    if (!barrier) return;
    barrier->broken = for_good;
    barrier->n_waiting = 0;
    casync__ops_done(&barrier->waiting, CASYNC_BROKEN_BARRIER);
}

CASYNC__LINKAGE void casync_barrier_reset(casync_barrier *barrier) {
    casync__barrier_break(barrier, false);
}

CASYNC__LINKAGE void casync_barrier_abort(casync_barrier *barrier) {
    casync__barrier_break(barrier, true);
}

/* -- wait group -- */

CASYNC__LINKAGE int64_t casync_wait_group_add(casync_wait_group *group, int64_t n) {
    if (!group) return -EINVAL;
    if (n < 0 || n > INT64_MAX - group->count) return -EINVAL;
    group->count += n;
    return 0;
}

CASYNC__LINKAGE int64_t casync_wait_group_done(casync_wait_group *group) {
    if (!group) return -EINVAL;
    if (group->count == 0) return CASYNC_INVALID_STATE;
    if (--group->count == 0) casync__ops_done(&group->waiting, 0);
    return 0;
}

CASYNC__LINKAGE casync_future *casync_wait_group_wait_op(casync_wait_group *group, casync_op *op) {
    if (!group || !op) return casync__op_invalid(op);
    return casync__sync_op(op, CASYNC__OP_WAIT_GROUP, group, &group->waiting,
                           group->count == 0 ? 0 : -EAGAIN);
}

CASYNC__LINKAGE int64_t casync_wait_group_wait(casync_wait_group *group) {
    casync_op op;
    return CASYNC__AWAIT_OP(NULL, casync_wait_group_wait_op(group, &op));
}

/* -- once -- */

static int64_t casync__once_try(casync_once *once) {
    if (once->done) return 0;
    if (once->doing) return -EAGAIN;
    once->doing = true;
    return 1;
}

CASYNC__LINKAGE casync_future *casync_once_begin_op(casync_once *once, casync_op *op) {
    if (!once || !op) return casync__op_invalid(op);
    return casync__sync_op(op, CASYNC__OP_ONCE, once, &once->waiting, casync__once_try(once));
}

CASYNC__LINKAGE int64_t casync_once_begin(casync_once *once) {
    casync_op op;
    return CASYNC__AWAIT_OP(NULL, casync_once_begin_op(once, &op));
}

CASYNC__LINKAGE int64_t casync_once_end(casync_once *once, int64_t result) {
    casync_op *next;
    if (!once) return -EINVAL;
    next = casync__ops_first(&once->waiting);
    if (!once->doing) return CASYNC_INVALID_STATE;
    if (result < 0 && next) {
        casync__op_done(next, 1, NULL);
        return 0;
    }
    once->doing = false;
    once->done = result >= 0;
    casync__ops_done(&once->waiting, 0);
    return 0;
}

CASYNC__LINKAGE int64_t casync_once_call(casync_once *once, casync_coroutine coroutine, void *arg) {
    int64_t result;
    if (!once || !coroutine) return -EINVAL;
    result = casync_once_begin(once);
    if (result != 1) return result;
    result = coroutine(casync_get_running_loop(), arg);
    casync_once_end(once, result);
    return result < 0 ? result : 0;
}

/* -- queue -- */

/* The items are a ring of entries, from `first` on; a priority queue's are a heap, for which first
   stays 0. Somebody waits to get only while there are no items, and to put only while there are
   maxsize. While a put waits, its item is in future.ptr. */

#define CASYNC__QUEUE_MIN 16u

typedef struct casync__queue_entry {
    void *item;
    uint64_t sequence; /* orders equals in a priority queue */
} casync__queue_entry;

static casync__queue_entry *casync__queue_at(const casync_queue *queue, size_t i) {
    i += queue->first;
    return &queue->entries[i < queue->capacity ? i : i - queue->capacity];
}

/* Moves the items to a larger ring. */
static int64_t casync__queue_reserve(casync_queue *queue, uint64_t capacity) {
    casync__queue_entry *entries;
    size_t i;
    if (!queue->allocator.function) {
        const casync_loop *loop = casync_get_running_loop();
        if (!loop) return -EPERM;
        queue->allocator = loop->allocator;
    }
    if (capacity > PTRDIFF_MAX / sizeof *entries) return -ENOMEM;
    entries = (casync__queue_entry *)casync__memory_realloc(&queue->allocator, NULL,
                                                            (size_t)capacity * sizeof *entries);
    if (!entries) return -ENOMEM;
    for (i = 0; i < queue->count; i++) entries[i] = *casync__queue_at(queue, i);
    casync__memory_free(&queue->allocator, queue->entries);
    queue->entries = entries;
    queue->capacity = (size_t)capacity;
    queue->first = 0;
    return 0;
}

static bool casync__queue_entry_is_before(const casync_queue *queue, const casync__queue_entry *a,
                                          const casync__queue_entry *b) {
    int order = queue->compare(a->item, b->item);
    return order < 0 || (order == 0 && a->sequence < b->sequence);
}

/* Puts the entry into the heap, at i or above: parents that come after it move down. */
static void casync__queue_heap_up(casync_queue *queue, size_t i, casync__queue_entry entry) {
    while (i > 0 && casync__queue_entry_is_before(queue, &entry, &queue->entries[(i - 1) / 2])) {
        queue->entries[i] = queue->entries[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    queue->entries[i] = entry;
}

/* Puts the entry into the heap, at i or below: children that come before it move up. */
static void casync__queue_heap_down(casync_queue *queue, size_t i, casync__queue_entry entry) {
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < queue->count &&
            casync__queue_entry_is_before(queue, &queue->entries[child + 1],
                                          &queue->entries[child]))
            child++;
        if (child >= queue->count ||
            !casync__queue_entry_is_before(queue, &queue->entries[child], &entry))
            break;
        queue->entries[i] = queue->entries[child];
        i = child;
    }
    queue->entries[i] = entry;
}

/* There is room, or the queue has no limit. */
static int64_t casync__queue_insert(casync_queue *queue, void *item) {
    casync__queue_entry entry;
    if (queue->count == queue->capacity) {
        int64_t result =
            casync__queue_reserve(queue, queue->count > 0 ? 2 * queue->count : CASYNC__QUEUE_MIN);
        if (result < 0) return result;
    }
    entry.item = item;
    entry.sequence = queue->sequence++;
    if (queue->order == CASYNC_QUEUE_PRIORITY)
        casync__queue_heap_up(queue, queue->count, entry);
    else
        *casync__queue_at(queue, queue->count) = entry;
    queue->count++;
    return 0;
}

/* There is an item. */
static void *casync__queue_take(casync_queue *queue) {
    void *item;
    queue->count--;
    if (queue->order == CASYNC_QUEUE_LIFO) return casync__queue_at(queue, queue->count)->item;
    item = queue->entries[queue->first].item;
    if (queue->order == CASYNC_QUEUE_PRIORITY)
        casync__queue_heap_down(queue, 0, queue->entries[queue->count]);
    else if (++queue->first == queue->capacity)
        queue->first = 0;
    return item;
}

CASYNC__LINKAGE int64_t casync_queue_init(casync_loop *loop, casync_queue *queue,
                                          const casync_queue_desc *desc) {
    int64_t result = 0;
    if (casync__loop_is_closed(loop) || !queue) return -EINVAL;
    memset(queue, 0, sizeof *queue);
    queue->allocator = loop->allocator;
    if (!desc) return 0;
    if (desc->maxsize < 0 || desc->order < CASYNC_QUEUE_FIFO ||
        desc->order > CASYNC_QUEUE_PRIORITY ||
        (desc->order == CASYNC_QUEUE_PRIORITY && !desc->compare))
        return -EINVAL;
    if (desc->maxsize > 0) result = casync__queue_reserve(queue, (uint64_t)desc->maxsize);
    if (result < 0) return result;
    queue->maxsize = desc->maxsize;
    queue->order = desc->order;
    queue->compare = desc->compare;
    return 0;
}

CASYNC__LINKAGE size_t casync_queue_qsize(const casync_queue *queue) {
    if (!queue) return 0;
    return queue->count;
}

CASYNC__LINKAGE bool casync_queue_empty(const casync_queue *queue) {
    return !queue || queue->count == 0;
}

CASYNC__LINKAGE bool casync_queue_full(const casync_queue *queue) {
    return queue && queue->maxsize > 0 && queue->count >= (size_t)queue->maxsize;
}

CASYNC__LINKAGE int64_t casync_queue_put_nowait(casync_queue *queue, void *item) {
    casync_op *getter;
    int64_t result;
    if (!queue) return -EINVAL;
    getter = casync__ops_first(&queue->getters);
    result = 0;
    if (queue->is_shutdown) return CASYNC_QUEUE_SHUT_DOWN;
    if (casync_queue_full(queue)) return -EAGAIN;
    if (getter)
        casync__op_done(getter, 0, item);
    else
        result = casync__queue_insert(queue, item);
    if (result == 0) queue->unfinished++;
    return result;
}

CASYNC__LINKAGE int64_t casync_queue_get_nowait(casync_queue *queue, void **item) {
    casync_op *putter;
    if (!queue || !item) return -EINVAL;
    putter = casync__ops_first(&queue->putters);
    if (queue->count == 0) return queue->is_shutdown ? CASYNC_QUEUE_SHUT_DOWN : -EAGAIN;
    *item = casync__queue_take(queue);
    if (putter) {
        casync_queue_put_nowait(queue, putter->future.ptr); /* which cannot fail: there is room */
        casync__op_done(putter, 0, NULL);
    }
    return 0;
}

CASYNC__LINKAGE casync_future *casync_queue_put_op(casync_queue *queue, casync_op *op, void *item) {
    casync_future *future;
    if (!queue || !op) return casync__op_invalid(op);
    future = casync__sync_op(op, CASYNC__OP_PUT, queue, &queue->putters,
                             casync_queue_put_nowait(queue, item));
    future->ptr = item;
    return future;
}

CASYNC__LINKAGE casync_future *casync_queue_get_op(casync_queue *queue, casync_op *op) {
    void *item = NULL;
    int64_t result;
    casync_future *future;
    if (!queue || !op) return casync__op_invalid(op);
    result = casync_queue_get_nowait(queue, &item);
    future = casync__sync_op(op, CASYNC__OP_GET, queue, &queue->getters, result);
    future->ptr = item;
    return future;
}

CASYNC__LINKAGE int64_t casync_queue_put(casync_queue *queue, void *item) {
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(NULL, casync_queue_put_nowait(queue, item));
    casync_op op;
    return result == -EAGAIN ? casync__await_op(casync_queue_put_op(queue, &op, item)) : result;
}

CASYNC__LINKAGE int64_t casync_queue_put_timeout(casync_queue *queue, void *item, int64_t timeout) {
    casync_op op;
    return CASYNC__AWAIT_IF_ALLOWED(
        NULL, casync__await_for(casync_queue_put_op(queue, &op, item), timeout));
}

CASYNC__LINKAGE int64_t casync_queue_get(casync_queue *queue, void **item) {
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(NULL, casync_queue_get_nowait(queue, item));
    casync_op op;
    if (!item) return -EINVAL;
    if (result != -EAGAIN) return result;
    result = casync__await_op(casync_queue_get_op(queue, &op));
    if (result >= 0) *item = op.future.ptr;
    return result;
}

CASYNC__LINKAGE int64_t casync_queue_get_timeout(casync_queue *queue, void **item,
                                                 int64_t timeout) {
    casync_op op;
    int64_t result;
    if (!item) return -EINVAL;
    result =
        CASYNC__AWAIT_IF_ALLOWED(NULL, casync__await_for(casync_queue_get_op(queue, &op), timeout));
    if (result >= 0) *item = op.future.ptr;
    return result;
}

CASYNC__LINKAGE int64_t casync_queue_task_done(casync_queue *queue) {
    if (!queue) return -EINVAL;
    if (queue->unfinished == 0) return CASYNC_INVALID_STATE;
    if (--queue->unfinished == 0) casync__ops_done(&queue->joining, 0);
    return 0;
}

CASYNC__LINKAGE casync_future *casync_queue_join_op(casync_queue *queue, casync_op *op) {
    if (!queue || !op) return casync__op_invalid(op);
    return casync__sync_op(op, CASYNC__OP_JOIN, queue, &queue->joining,
                           queue->unfinished == 0 ? 0 : -EAGAIN);
}

CASYNC__LINKAGE int64_t casync_queue_join(casync_queue *queue) {
    casync_op op;
    return CASYNC__AWAIT_OP(NULL, casync_queue_join_op(queue, &op));
}

CASYNC__LINKAGE void casync_queue_shutdown(casync_queue *queue, bool immediate) {
    if (!queue) return;
    queue->is_shutdown = true;
    casync__ops_done(&queue->getters, CASYNC_QUEUE_SHUT_DOWN);
    casync__ops_done(&queue->putters, CASYNC_QUEUE_SHUT_DOWN);
    if (!immediate) return;
    for (; queue->count > 0; queue->count--) casync_queue_task_done(queue);
    queue->first = 0;
}

CASYNC__LINKAGE void casync_queue_close(casync_queue *queue) {
    if (!queue) return;
    casync_queue_shutdown(queue, true);
    casync__memory_free(&queue->allocator, queue->entries);
    queue->entries = NULL;
    queue->capacity = 0;
    casync__ops_done(&queue->joining, CASYNC_QUEUE_SHUT_DOWN);
}

/* >> buffers (implementation) ------------------------------------------------------------------ */

/* OutBuf, the queue of bytes that wait to be sent; input, the bytes that were read and that nobody
   has asked for yet; and framing, which finds the frames in the input.

   OutBuf is a queue of chunks. A copied chunk has its bytes behind its header, at least
   CASYNC__OUTBUF_ROOM of them, and takes further small writes while it has room; a referenced one
   points to bytes of somebody else. They are a ring: the queue has the last, which has the first
   behind it. Sending takes up to CASYNC__SPANS_MAX chunks as one vector. Input is one block, which
   doubles when it is full.

   Costs: an append copies, and allocates once in about 4 KiB; a reference is one allocation of 56
   bytes; a flush is one system call unless the vector was taken whole and more is queued. Input has
   no memory while it is empty. */

#define CASYNC__OUTBUF_ROOM 4024 /* with its header and malloc's, a page */
#define CASYNC__SPANS_MAX 64

typedef struct casync__outbuf_chunk {
    struct casync__outbuf_chunk *next;
    const uint8_t *data; /* what is left of it */
    size_t size, room;   /* bytes left; bytes that can be appended behind them */
    casync_release release;
    void *arg;
    int passed_fd; /* a descriptor that goes with the first byte, or -1 */
} casync__outbuf_chunk;

/* Spans go to the kernel as they are. */
typedef char
    casync__span_is_an_iovec[sizeof(casync_span) == sizeof(struct iovec) &&
                                     offsetof(casync_span, len) == offsetof(struct iovec, iov_len)
                                 ? 1
                                 : -1];

static inline struct iovec *casync__span_iovec(const casync_span *spans) {
    return (struct iovec *)(void *)spans;
}

CASYNC__COMPILER_INLINE casync_span casync__span_make(const void *data, size_t size) {
    casync_span span;
    span.ptr = data;
    span.len = size;
    return span;
}

/* Makes the message by which the kernel sends these spans, or fills them. */
static inline void casync__spans_message(struct msghdr *message, const casync_span *spans,
                                         size_t count) {
    memset(message, 0, sizeof *message);
    message->msg_iov = casync__span_iovec(spans);
    message->msg_iovlen = count;
}

#define CASYNC__BUFFER_SIZE_MAX                                                                    \
    ((size_t)PTRDIFF_MAX) /* of anything that is sent: what write(2) could say it wrote */

/* SIZE_MAX if that is more than CASYNC__BUFFER_SIZE_MAX, or if a span's bytes are nowhere. */
static size_t casync__spans_size(const casync_span *spans, size_t count) {
    size_t i, size = 0;
    for (i = 0; i < count; i++) {
        if (spans[i].len > CASYNC__BUFFER_SIZE_MAX - size || (!spans[i].ptr && spans[i].len > 0))
            return SIZE_MAX;
        size += spans[i].len;
    }
    return size;
}

CASYNC__LINKAGE void casync_outbuf_init(casync_outbuf *out, const casync_allocator *allocator) {
    static const casync_allocator default_allocator = {casync__memory_default, NULL};
    if (!out) return;
    memset(out, 0, sizeof *out);
    out->allocator = allocator ? allocator : &default_allocator;
}

static inline casync__outbuf_chunk *casync__outbuf_first(const casync_outbuf *out) {
    return out->last ? out->last->next : NULL;
}

static casync__outbuf_chunk *casync__outbuf_add_chunk(casync_outbuf *out, size_t room) {
    casync__outbuf_chunk *chunk = NULL;
    if (!out->allocator) casync_outbuf_init(out, NULL); /* zeroed until now */
    if (room <= CASYNC__BUFFER_SIZE_MAX - sizeof *chunk)
        chunk = (casync__outbuf_chunk *)casync__memory_realloc(out->allocator, NULL,
                                                               sizeof *chunk + room);
    if (!chunk) return NULL;
    memset(chunk, 0, sizeof *chunk);
    chunk->data = (const uint8_t *)(chunk + 1);
    chunk->room = room;
    chunk->passed_fd = -1;
    chunk->next = chunk;
    if (out->last) {
        chunk->next = out->last->next;
        out->last->next = chunk;
    }
    out->last = chunk;
    return chunk;
}

static void casync__outbuf_fill(casync_outbuf *out, casync__outbuf_chunk *chunk, const void *data,
                                size_t size) {
    if (size == 0) return;
    memcpy((uint8_t *)chunk->data + chunk->size, data, size);
    chunk->size += size;
    chunk->room -= size;
    out->size += size;
}

/* Appends what comes after the first `skip` bytes of the spans. */
static int64_t casync__outbuf_append_after(casync_outbuf *out, const casync_span *spans,
                                           size_t count, size_t skip) {
    casync__outbuf_chunk *chunk = out->last;
    size_t i, total = casync__spans_size(spans, count) - skip, room = chunk ? chunk->room : 0;
    if (total > CASYNC__BUFFER_SIZE_MAX - out->size) return -ENOMEM;
    if (total > room) {
        size_t missing = total - room;
        if (!casync__outbuf_add_chunk(out, missing > CASYNC__OUTBUF_ROOM ? missing
                                                                         : CASYNC__OUTBUF_ROOM))
            return -ENOMEM;
        if (!chunk) chunk = out->last;
    }
    for (i = 0; i < count; i++) {
        const uint8_t *data = (const uint8_t *)spans[i].ptr;
        size_t size = spans[i].len, fits;
        if (skip >= size) {
            skip -= size;
            continue;
        }
        data += skip;
        size -= skip;
        skip = 0;
        fits = size < chunk->room ? size : chunk->room;
        casync__outbuf_fill(out, chunk, data, fits);
        if (fits == size) continue;
        chunk = out->last;
        casync__outbuf_fill(out, chunk, data + fits, size - fits);
    }
    return 0;
}

CASYNC__LINKAGE int64_t casync_outbuf_append(casync_outbuf *out, const casync_span *spans,
                                             size_t count) {
    if (!out || (count > 0 && !spans)) return -EINVAL;
    if (casync__spans_size(spans, count) > CASYNC__BUFFER_SIZE_MAX) return -EINVAL;
    return casync__outbuf_append_after(out, spans, count, 0);
}

CASYNC__LINKAGE int64_t casync_outbuf_append_ref(casync_outbuf *out, const void *data, size_t size,
                                                 casync_release release, void *arg) {
    casync__outbuf_chunk *chunk;
    if (!out || (size > 0 && !data) || size > CASYNC__BUFFER_SIZE_MAX) return -EINVAL;
    if (size < CASYNC_REFERENCE_MIN) {
        casync_span span = casync__span_make(data, size);
        if (casync__outbuf_append_after(out, &span, 1, 0) < 0) return -ENOMEM;
        if (release) release(arg);
        return 0;
    }
    chunk = size <= CASYNC__BUFFER_SIZE_MAX - out->size ? casync__outbuf_add_chunk(out, 0) : NULL;
    if (!chunk) return -ENOMEM;
    chunk->data = (const uint8_t *)data;
    chunk->size = size;
    chunk->release = release;
    chunk->arg = arg;
    out->size += size;
    return 0;
}

/* What goes out as one vector: chunks up to one that passes a descriptor, which must come first in
   its own, for the receiver gets it with that byte (unix(7)). */
CASYNC__LINKAGE size_t casync_outbuf_peek(const casync_outbuf *out, casync_span *spans,
                                          size_t count) {
    const casync__outbuf_chunk *chunk;
    size_t used;
    if (!out || !spans) return 0;
    chunk = casync__outbuf_first(out);
    used = 0;
    while (chunk && used < count) {
        if (chunk->passed_fd >= 0 && used > 0) break;
        spans[used].ptr = chunk->data;
        spans[used++].len = chunk->size;
        chunk = chunk == out->last ? NULL : chunk->next;
    }
    return used;
}

/* Takes the chunks that these bytes fill out of the queue, and shortens the one behind them.
   Returns the first of a chain, or NULL. */
static casync__outbuf_chunk *casync__outbuf_take(casync_outbuf *out, size_t size) {
    casync__outbuf_chunk *first = casync__outbuf_first(out), *chunk = first, *last_taken = NULL;
    while (chunk && size >= chunk->size) {
        size -= chunk->size;
        out->size -= chunk->size;
        last_taken = chunk;
        chunk = chunk == out->last ? NULL : chunk->next;
    }
    if (chunk && size > 0) {
        chunk->data += size;
        chunk->size -= size;
        out->size -= size;
        if (chunk->passed_fd >= 0) casync__sys_close(chunk->passed_fd);
        chunk->passed_fd = -1;
    }
    if (!last_taken) return NULL;
    last_taken->next = NULL;
    if (chunk)
        out->last->next = chunk;
    else
        out->last = NULL;
    return first;
}

/* They are out of the queue before the first release is called, which may use it. */
CASYNC__LINKAGE void casync_outbuf_consume(casync_outbuf *out, size_t size) {
    const casync_allocator *allocator;
    casync__outbuf_chunk *chunk;
    if (!out) return;
    allocator = out->allocator;
    chunk = casync__outbuf_take(out, size);
    while (chunk) {
        casync__outbuf_chunk *next = chunk->next;
        casync_release release = chunk->release;
        void *arg = chunk->arg;
        if (chunk->passed_fd >= 0) casync__sys_close(chunk->passed_fd);
        casync__memory_free(allocator, chunk);
        if (release) release(arg);
        chunk = next;
    }
}

CASYNC__LINKAGE void casync_outbuf_clear(casync_outbuf *out) {
    if (out) casync_outbuf_consume(out, out->size);
}

/* What blocks SIGPIPE for a system call that has no flag against it. */
typedef struct casync__sys_sigpipe {
    sigset_t signal, old, pending;
} casync__sys_sigpipe;

static int64_t casync__sys_block_sigpipe(casync__sys_sigpipe *sigpipe) {
    sigemptyset(&sigpipe->pending); /* sigpending may fail where a test makes it */
    sigpipe->signal = casync__signal_set(SIGPIPE);
    casync__sys_sigpending(&sigpipe->pending);
    return casync__sys_thread_sigmask(SIG_BLOCK, &sigpipe->signal, &sigpipe->old);
}

/* The call's own signal is taken, if none was pending already. */
static void casync__sys_unblock_sigpipe(casync__sys_sigpipe *sigpipe, int64_t result) {
    struct timespec none = {0, 0};
    if (result == -EPIPE && !sigismember(&sigpipe->pending, SIGPIPE))
        casync__sys_sigtimedwait(&sigpipe->signal, &none);
    casync__sys_thread_sigmask(SIG_SETMASK, &sigpipe->old, NULL);
}

/* Writes to what is no socket, where a reader that is gone means SIGPIPE. From Linux 6.18 on a flag
   of pwritev2 prevents it; before, the signal is blocked. */
static int64_t casync__spans_write_without_sigpipe(int fd, const casync_span *spans, size_t count) {
    casync__sys_sigpipe sigpipe;
    int64_t written;
    bool refused = false;
    if (!casync__atomic_load(&casync__process.no_rwf_nosignal)) {
        written = casync__sys_pwritev2(fd, casync__span_iovec(spans), (int)count,
                                       CASYNC__SYS_RWF_NOSIGNAL);
        if (written != -EOPNOTSUPP && written != -EINVAL && !casync__sys_is_refused(written))
            return written;
        refused = true;
    }
    written = casync__sys_block_sigpipe(&sigpipe);
    if (written < 0) return written;
    written = casync__sys_writev(fd, casync__span_iovec(spans), (int)count);
    casync__sys_unblock_sigpipe(&sigpipe, written);
    /* else it was the descriptor that was refused */
    if (refused && written != -EPERM) casync__atomic_store(&casync__process.no_rwf_nosignal, 1);
    return written;
}

static int64_t casync__spans_send_with_fd(int fd, const casync_span *spans, size_t count,
                                          int passed_fd) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message;
    casync__spans_message(&message, spans, count);
    if (passed_fd >= 0) {
        memset(&control, 0, sizeof control);
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        memcpy(CMSG_DATA(&control.header), &passed_fd, sizeof passed_fd);
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
    }
    return casync__sys_sendmsg(fd, &message);
}

static inline int64_t casync__spans_write(int fd, bool is_socket, const casync_span *spans,
                                          size_t count) {
    if (!is_socket) return casync__spans_write_without_sigpipe(fd, spans, count);
    if (count == 1) return casync__sys_send(fd, spans[0].ptr, spans[0].len);
    return casync__spans_send_with_fd(fd, spans, count, -1);
}

CASYNC__LINKAGE int64_t casync_outbuf_flush(casync_outbuf *out, int fd, bool is_socket) {
    casync_span spans[CASYNC__SPANS_MAX];
    int64_t total = 0;
    if (!out) return -EINVAL;
    while (out->size > 0) {
        size_t count = casync_outbuf_peek(out, spans, CASYNC__SPANS_MAX),
               size = casync__spans_size(spans, count);
        int passed_fd = casync__outbuf_first(out)->passed_fd;
        int64_t written = passed_fd >= 0 ? casync__spans_send_with_fd(fd, spans, count, passed_fd)
                                         : casync__spans_write(fd, is_socket, spans, count);
        /* an error comes again with the next flush */
        if (written < 0) return total > 0 ? total : written;
        total += written;
        casync_outbuf_consume(out, (size_t)written);
        if ((size_t)written < size) break; /* the kernel's buffer is full */
    }
    return total;
}

/* -- input: bytes that were read and not asked for yet -- */

/* Memory, the header of which this is. Bytes that a user may still look at are not freed
   at once but by the ready queue, when nothing else is queued any more, or after some turns: a task
   that was to be given a frame finds it, although the stream was closed meanwhile and the frame
   comes to the task by way of other futures. So does a callback that closes the stream itself. */
typedef struct casync__input {
    casync_job retired; /* frees it */
    int turns;          /* for which it was kept since */
    size_t start, end;  /* of what waits, in the bytes that follow */
    size_t size;        /* of these */
    size_t scanned;     /* how much of what waits is known to hold no delimiter */
} casync__input;

#define CASYNC__INPUT_RETIRED_TURNS 16 /* at most, that a retired input is kept */

static inline size_t casync__input_size(const casync__input *input) {
    return input ? input->end - input->start : 0;
}

/* NULL if there is none. */
static inline uint8_t *casync__input_bytes(casync__input *input) {
    return input ? (uint8_t *)(input + 1) + input->start : NULL;
}

static void casync__input_consume(casync__input *input, size_t size) {
    input->start += size;
    input->scanned = 0;
}

/* Moves up to `size` bytes to where they are wanted. */
static size_t casync__input_take(casync__input *input, uint8_t *buffer, size_t size) {
    size_t taken = casync__input_size(input);
    if (taken > size) taken = size;
    if (taken == 0) return 0;
    memcpy(buffer, casync__input_bytes(input), taken);
    casync__input_consume(input, taken);
    return taken;
}

/* An input with the bytes of another, or none, and room for `size` in all; NULL if there is no
   memory. */
static casync__input *casync__input_clone(const casync_allocator *allocator, casync__input *other,
                                          size_t size) {
    casync__input *input = NULL;
    if (size <= CASYNC__BUFFER_SIZE_MAX - sizeof *input)
        input = (casync__input *)casync__memory_realloc(allocator, NULL, sizeof *input + size);
    if (!input) return NULL;
    input->start = 0;
    input->end = casync__input_size(other);
    input->size = size;
    input->scanned = other ? other->scanned : 0;
    if (input->end > 0) memcpy(input + 1, casync__input_bytes(other), input->end);
    return input;
}

/* Makes room in an input that has it, but not behind its bytes. */
static void casync__input_compact(casync__input *input) {
    size_t size = casync__input_size(input);
    memmove(input + 1, casync__input_bytes(input), size);
    input->start = 0;
    input->end = size;
}

static void casync__input_retired(void *arg) {
    casync__input *input = (casync__input *)arg;
    casync_loop *loop = input->retired.loop;
    if (!loop->closing && !casync__list_is_empty(&loop->ready) &&
        ++input->turns < CASYNC__INPUT_RETIRED_TURNS)
        casync__job_make_ready(loop, &input->retired);
    else
        casync__memory_free(&loop->allocator, input);
}

/* Frees an input that a user may still look at. */
static void casync__input_retire(casync_loop *loop, casync__input *input) {
    if (!input) return;
    input->turns = 0;
    memset(&input->retired, 0, sizeof input->retired);
    casync__job_init(loop, &input->retired, casync__input_retired, input);
    input->retired.flags = CASYNC__JOB_INTERNAL | CASYNC__JOB_FINALLY;
    casync__job_make_ready(loop, &input->retired);
}

/* -- framing -- */

#define CASYNC__FRAMING_DELIMITER_MAX 64

static bool casync__framing_is_valid(const casync_framing *framing) {
    switch (framing->kind) {
    case CASYNC_FRAMING_FIXED:
        return framing->size > 0;
    case CASYNC_FRAMING_DELIMITER:
        return framing->delimiter && framing->size > 0 &&
               framing->size <= CASYNC__FRAMING_DELIMITER_MAX;
    case CASYNC_FRAMING_LENGTH:
        return framing->size == 1 || framing->size == 2 || framing->size == 4 || framing->size == 8;
    default:
        return false;
    }
}

/* Byte i of a length prefix counts this many bits up. */
static inline unsigned casync__framing_prefix_bit(const casync_framing *framing, size_t i) {
    return 8 * (unsigned)(framing->little_endian ? i : framing->size - 1 - i);
}

static uint64_t casync__framing_read_prefix(const casync_framing *framing, const uint8_t *data) {
    uint64_t length = 0;
    size_t i;
    for (i = 0; i < framing->size; i++)
        length |= (uint64_t)data[i] << casync__framing_prefix_bit(framing, i);
    return length;
}

/* A LENGTH framing's prefix, as spans[0] before the payload: its size, or an error. */
static int64_t casync__framing_spans(const casync_framing *framing, const void *data, size_t size,
                                     uint8_t prefix[8], casync_span spans[2]) {
    size_t i;
    if (!framing || framing->kind != CASYNC_FRAMING_LENGTH || !casync__framing_is_valid(framing) ||
        size > CASYNC__BUFFER_SIZE_MAX - sizeof(uint64_t) || (!data && size > 0))
        return -EINVAL;
    if (framing->size < 8 && size / ((uint64_t)1 << (8 * framing->size)) > 0) return -EMSGSIZE;
    for (i = 0; i < framing->size; i++)
        prefix[i] =
            (uint8_t)((uint64_t)size / ((uint64_t)1 << casync__framing_prefix_bit(framing, i)));
    spans[0] = casync__span_make(prefix, framing->size);
    spans[1] = casync__span_make(data, size);
    return (int64_t)framing->size;
}

/* Looks for a frame at the beginning of the input. Returns its whole length, with *skip of it in
   front of the payload; -EAGAIN if there is not enough, CASYNC_LIMIT_OVERRUN if there will not
   be, for it is longer than the limit. */
static int64_t casync__framing_find(const casync_framing *framing, casync__input *input,
                                    size_t limit, size_t *skip) {
    const uint8_t *data = casync__input_bytes(input);
    size_t size = casync__input_size(input);
    uint64_t length;
    *skip = 0;
    if (framing->kind == CASYNC_FRAMING_DELIMITER) {
        size_t scanned = size > 0 ? input->scanned : 0;
        const uint8_t *found = NULL;
        if (size > scanned)
            found = (const uint8_t *)memmem(data + scanned, size - scanned, framing->delimiter,
                                            framing->size);
        if (size > 0) input->scanned = size >= framing->size ? size - framing->size + 1 : 0;
        length = found ? (uint64_t)(found - data) + framing->size : size;
        if (length > limit || (!found && size == limit)) return CASYNC_LIMIT_OVERRUN;
        return found ? (int64_t)length : -EAGAIN;
    }
    length = framing->size;
    if (framing->kind == CASYNC_FRAMING_LENGTH) {
        if (size < framing->size) return -EAGAIN;
        *skip = framing->size;
        length = casync__framing_read_prefix(framing, data);
    }
    if (length > limit) return CASYNC_LIMIT_OVERRUN;
    length += *skip;
    return size >= length ? (int64_t)length : -EAGAIN;
}

/* >> addresses & sockets (implementation) ------------------------------------------------------ */

/* Addresses as text and as the kernel's structs, and the options of sockets by descriptor: what
   streams, servers and datagram sockets are made with. Costs: parsing and printing are no system
   call, but for the name of an interface; an option is one. */

static inline struct sockaddr *casync__address_sockaddr(const casync_address *address) {
    return (struct sockaddr *)(void *)address->storage.bytes;
}

typedef int64_t (*casync__address_getter)(int fd, struct sockaddr *address, socklen_t *size);

static int64_t casync__address_of(int fd, casync__address_getter get, casync_address *address) {
    socklen_t size = sizeof address->storage;
    int64_t result;
    if (!address) return -EINVAL;
    result = get(fd, casync__address_sockaddr(address), &size);
    address->size = result < 0 ? 0 : size;
    return result;
}

/* The address family of a socket, or an error: -ENOTSOCK for other descriptors. */
static int64_t casync__socket_family(int fd) {
    int family = 0;
    socklen_t size = sizeof family;
    int64_t result = casync__sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    return result < 0 ? result : family;
}

static inline bool casync__address_family_is_inet(int64_t family) {
    return family == AF_INET || family == AF_INET6;
}

/* 1 if the descriptor blocked before, else 0; or an error. */
static int64_t casync__fd_set_blocking(int fd, bool blocking) {
    int64_t status = casync__sys_fcntl(fd, F_GETFL, 0), result = 0;
    bool blocked = status >= 0 && !(status & O_NONBLOCK);
    if (status < 0) return status;
    if (blocked != blocking) result = casync__sys_fcntl(fd, F_SETFL, (int)status ^ O_NONBLOCK);
    return result < 0 ? result : blocked;
}

/* Descriptors of the library's are closed in what is exec'd. */
static int64_t casync__fd_set_cloexec(int fd) { return casync__sys_fcntl(fd, F_SETFD, FD_CLOEXEC); }

static int64_t casync__socket_set_int(int fd, int level, int name, int value) {
    return casync__sys_setsockopt(fd, level, name, &value, sizeof value);
}

#define CASYNC__SOCKET_KEEPALIVE_MAX                                                               \
    32767 /* seconds: MAX_TCP_KEEPIDLE of Linux's include/net/tcp.h */

static bool casync__socket_keepalive_is_valid(int seconds) {
    return seconds >= 0 && seconds <= CASYNC__SOCKET_KEEPALIVE_MAX;
}

/* The time first, which means nothing while probes are off: so a refusal changes nothing. */
static int64_t casync__socket_set_keepalive(int fd, int seconds) {
    int64_t result = 0;
    if (!casync__socket_keepalive_is_valid(seconds)) return -EINVAL;
    if (seconds > 0) result = casync__socket_set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    return result < 0 ? result : casync__socket_set_int(fd, SOL_SOCKET, SO_KEEPALIVE, seconds > 0);
}

/* For what these refuse a stream works all the same. */
static void casync__socket_set_tcp_options(int fd, const casync_stream_options *options) {
    if (!options || !options->nagle) (void)casync__socket_set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (options && options->keepalive > 0)
        (void)casync__socket_set_keepalive(fd, options->keepalive);
}

/* The error that the kernel has for a socket, or 0. */
static int64_t casync__socket_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    int64_t result = casync__sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return result == 0 ? -error : result == -ENOTSOCK ? 0 : result;
}

/* Is this the end of a pipe that is written to? 1, 0, or an error. */
static int64_t casync__fd_is_pipe_writer(int fd) {
    casync__sys_status status;
    int64_t result = casync__sys_fstat(fd, &status);
    if (result < 0 || !S_ISFIFO(status.st_mode)) return result;
    result = casync__sys_fcntl(fd, F_GETFL, 0);
    return result < 0 ? result : (result & O_ACCMODE) == O_WRONLY;
}

/* -- addresses -- */

/* The number of a network interface, given by name or as that number: digits alone. */
static int64_t casync__address_interface_index(const char *name) {
    int64_t index = if_nametoindex(name);
    const char *digit;
    if (index > 0) return index;
    for (digit = name; *digit >= '0' && *digit <= '9' && index <= UINT32_MAX; digit++)
        index = 10 * index + (*digit - '0');
    return *digit || index == 0 || index > UINT32_MAX ? -EINVAL : index;
}

static int64_t casync__address_parse_ipv6(const char *host, int port, casync_address *address) {
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)address->storage.bytes;
    const char *zone = strchr(host, '%');
    size_t size = zone ? (size_t)(zone - host) : strlen(host);
    char text[INET6_ADDRSTRLEN];
    if (size >= sizeof text) return -EINVAL;
    memcpy(text, host, size);
    text[size] = 0;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    if (inet_pton(AF_INET6, text, &in6->sin6_addr) != 1) return -EINVAL;
    if (zone) {
        int64_t index = casync__address_interface_index(zone + 1);
        if (index < 0) return index;
        in6->sin6_scope_id = (uint32_t)index;
    }
    address->size = sizeof *in6;
    return 0;
}

static int64_t casync__address_parse_host(const char *host, int port, casync_address *address) {
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)address->storage.bytes;
    memset(address, 0, sizeof *address);
    if (port < 0 || port > 65535) return -EINVAL;
    if (strchr(host, ':')) return casync__address_parse_ipv6(host, port, address);
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    address->size = sizeof *in;
    return inet_pton(AF_INET, host, &in->sin_addr) == 1 ? 0 : CASYNC_NOT_NUMERIC;
}

static int64_t casync__address_parse_path(const char *path, casync_address *address) {
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)address->storage.bytes;
    size_t size = strlen(path);
    memset(address, 0, sizeof *address);
    if (size == 0 || size >= sizeof un->sun_path) return -EINVAL;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, size);
    address->size = (uint32_t)(offsetof(struct sockaddr_un, sun_path) + size + 1);
    if (path[0] == '@') { /* abstract: a zero byte, and no zero byte at the end (unix(7)) */
        un->sun_path[0] = 0;
        address->size--;
    }
    return 0;
}

CASYNC__LINKAGE int64_t casync_address_from_host(casync_address *address, const char *host,
                                                 int port) {
    casync_address parsed;
    int64_t result;
    if (!address || !host) return -EINVAL;
    result = casync__address_parse_host(host, port, &parsed);
    if (result == 0) *address = parsed;
    return result;
}

CASYNC__LINKAGE int64_t casync_address_from_path(casync_address *address, const char *path) {
    casync_address parsed;
    int64_t result;
    if (!address || !path) return -EINVAL;
    result = casync__address_parse_path(path, &parsed);
    if (result == 0) *address = parsed;
    return result;
}

CASYNC__LINKAGE int casync_address_port(const casync_address *address) {
    if (!address) return 0;
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address->storage.bytes;
    const struct sockaddr_in6 *in6 =
        (const struct sockaddr_in6 *)(const void *)address->storage.bytes;
    if (casync__address_sockaddr(address)->sa_family == AF_INET) return ntohs(in->sin_port);
    return casync__address_sockaddr(address)->sa_family == AF_INET6 ? ntohs(in6->sin6_port) : 0;
}

CASYNC__LINKAGE const char *casync_address_text(const casync_address *address,
                                                char text[CASYNC_ADDRESS_TEXT]) {
    if (!address || !text) return "";
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address->storage.bytes;
    const struct sockaddr_in6 *in6 =
        (const struct sockaddr_in6 *)(const void *)address->storage.bytes;
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)address->storage.bytes;
    size_t path_size = address->size - offsetof(struct sockaddr_un, sun_path);
    char host[INET6_ADDRSTRLEN] = "", zone[16] = "";
    text[0] = 0;
    switch (address->size < sizeof(sa_family_t) ? AF_UNSPEC
                                                : casync__address_sockaddr(address)->sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(text, CASYNC_ADDRESS_TEXT, "%s:%d", host, casync_address_port(address));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        if (in6->sin6_scope_id) snprintf(zone, sizeof zone, "%%%u", (unsigned)in6->sin6_scope_id);
        snprintf(text, CASYNC_ADDRESS_TEXT, "[%s%s]:%d", host, zone, casync_address_port(address));
        break;
    case AF_UNIX:
        if (address->size <= offsetof(struct sockaddr_un, sun_path)) break;
        if (un->sun_path[0])
            snprintf(text, CASYNC_ADDRESS_TEXT, "%.*s", (int)path_size, un->sun_path);
        else
            snprintf(text, CASYNC_ADDRESS_TEXT, "@%.*s", (int)path_size - 1, un->sun_path + 1);
        break;
    default:
        break;
    }
    return text;
}

/* NULL is any address of the family. */
static int64_t casync__socket_bind_to(int fd, int family, const char *host, int port) {
    const char *any = family == AF_INET6 ? "::" : "0.0.0.0";
    casync_address address;
    int64_t result = casync__address_parse_host(host ? host : any, port, &address);
    return result < 0 ? result
                      : casync__sys_bind(fd, casync__address_sockaddr(&address), address.size);
}

/* A socket file that nobody listens at any more is in the way of bind(2); what is no socket
   stays. */
static void casync__socket_remove_file(const char *path) {
    casync__sys_status status;
    if (path[0] != '@' && casync__sys_lstat(path, &status) == 0 && S_ISSOCK(status.st_mode))
        (void)casync__sys_unlink(path);
}

/* -- options -- */

/* Sets an option that has one number for each version of IP. A socket for IPv6 may send by IPv4
   too, unless it is for IPv6 alone, which the kernel may tell by an error. */
static int64_t casync__socket_set_ip(int fd, int name4, int name6, int value) {
    int64_t family = casync__socket_family(fd), result;
    if (family == AF_INET) return casync__socket_set_int(fd, IPPROTO_IP, name4, value);
    if (family != AF_INET6) return family < 0 ? family : -EOPNOTSUPP;
    result = casync__socket_set_int(fd, IPPROTO_IPV6, name6, value);
    if (result == 0) (void)casync__socket_set_int(fd, IPPROTO_IP, name4, value);
    return result;
}

static int64_t casync__socket_set_multicast_interface4(int fd, int index) {
    struct ip_mreqn request;
    memset(&request, 0, sizeof request);
    request.imr_ifindex = index;
    return casync__sys_setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request);
}

static int64_t casync__socket_set_multicast_interface(int fd, const char *interface) {
    int64_t family = casync__socket_family(fd), index, result;
    index = interface ? casync__address_interface_index(interface) : 0;
    if (index < 0) return index;
    if (family == AF_INET) return casync__socket_set_multicast_interface4(fd, (int)index);
    if (family != AF_INET6) return family < 0 ? family : -EOPNOTSUPP;
    result = casync__socket_set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)index);
    if (result == 0) (void)casync__socket_set_multicast_interface4(fd, (int)index);
    return result;
}

/* A group, and the interface and source of a membership: RFC 3678's, the same for both versions of
   IP. */
static int64_t casync__address_parse_membership(const char *group, const char *interface,
                                                const char *source,
                                                struct group_source_req *request) {
    casync_address address;
    int64_t result = casync__address_parse_host(group, 0, &address);
    memset(request, 0, sizeof *request);
    if (result < 0) return result;
    memcpy(&request->gsr_group, address.storage.bytes, address.size);
    if (casync__address_sockaddr(&address)->sa_family == AF_INET6)
        request->gsr_interface =
            ((struct sockaddr_in6 *)(void *)&request->gsr_group)->sin6_scope_id;
    if (interface) {
        result = casync__address_interface_index(interface);
        if (result < 0) return result;
        request->gsr_interface = (uint32_t)result;
    }
    if (!source) return 0;
    result = casync__address_parse_host(source, 0, &address);
    if (result < 0) return result;
    memcpy(&request->gsr_source, address.storage.bytes, address.size);
    return request->gsr_source.ss_family == request->gsr_group.ss_family ? 0 : -EINVAL;
}

/* >> names (implementation) -------------------------------------------------------------------- */

/* Addresses in numbers are parsed at once. A name becomes a question, a call in the lane for names
   of the loop's default pool. Its arguments, the words of the question, tell whether the same is
   asked already; then the operation joins those that wait for the answer. Each of them gets a copy.
   A question that nobody waits for any more is abandoned.

   Costs: a name is two allocations beside the C library's, and one for each copy. */

/* What a thread asks: hints, then the host and the service, each with its zero. */
typedef struct casync__name_question_text {
    int family, type, flags, port;
    bool has_host, has_service;
    char text[sizeof(casync_nameinfo)];
} casync__name_question_text;

typedef struct casync__name_question {
    casync_op op; /* of the call */
    size_t size;  /* of the words */
    casync_link waiting;
} casync__name_question;

static inline casync__name_question *casync__name_question_of(casync_op *op) {
    return (casync__name_question *)(void *)op;
}

static int64_t casync__name_question_ask(void *arguments, void **ptr) {
    const casync__name_question_text *words = (const casync__name_question_text *)arguments;
    const char *service = words->text + (words->has_host ? strlen(words->text) + 1 : 0);
    struct addrinfo hints, *found = NULL;
    int64_t result;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = words->family;
    hints.ai_socktype = words->type;
    hints.ai_flags = words->flags;
    result = casync__sys_getaddrinfo(words->has_host ? words->text : NULL,
                                     words->has_service ? service : NULL, &hints, &found);
    *ptr = found;
    return result > 0 ? -result : result;
}

static void casync__address_set_port(casync_address *address, int port) {
    struct sockaddr *any = casync__address_sockaddr(address);
    if (any->sa_family == AF_INET)
        ((struct sockaddr_in *)(void *)any)->sin_port = htons((uint16_t)port);
    else if (any->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)any)->sin6_port = htons((uint16_t)port);
}

/* Makes room for `count` addresses and a name of `name_size` bytes, zeroed. */
static int64_t casync__name_addrinfo_make(casync_addrinfo *info, const casync_allocator *allocator,
                                          size_t count, size_t name_size) {
    size_t size = count * sizeof(casync_address) + name_size;
    casync_addrinfo made;
    memset(&made, 0, sizeof made);
    made.allocator = *allocator;
    made.addresses = (casync_address *)casync__memory_realloc(allocator, NULL, size);
    if (!made.addresses) return -ENOMEM;
    memset(made.addresses, 0, size);
    made.count = count;
    *info = made;
    return (int64_t)count;
}

/* One copy of the C library's answer. */
static int64_t casync__name_addrinfo_copy(casync_addrinfo *info, const casync_allocator *allocator,
                                          const struct addrinfo *found,
                                          const casync__name_question_text *words) {
    const char *name = found ? found->ai_canonname : NULL;
    const struct addrinfo *entry;
    size_t count = 0, i = 0;
    int64_t result;
    for (entry = found; entry; entry = entry->ai_next)
        count += entry->ai_addrlen <= sizeof info->addresses->storage;
    if (count == 0) return CASYNC_EAI_NODATA;
    result = casync__name_addrinfo_make(info, allocator, count, name ? strlen(name) + 1 : 0);
    if (result < 0) return result;
    for (entry = found; entry; entry = entry->ai_next) {
        casync_address *address = &info->addresses[i];
        if (entry->ai_addrlen > sizeof address->storage) continue;
        address->size = entry->ai_addrlen;
        memcpy(address->storage.bytes, entry->ai_addr, entry->ai_addrlen);
        if (!words->has_service) casync__address_set_port(address, words->port);
        i++;
    }
    if (!name) return result;
    memcpy(info->addresses + count, name, strlen(name) + 1);
    info->canonical_name = (const char *)(info->addresses + count);
    return result;
}

static void casync__name_question_answered(casync__call *call) {
    casync__name_question *question = casync__name_question_of(call->op);
    const casync_allocator *allocator = &call->job.loop->allocator;
    struct addrinfo *found = (struct addrinfo *)call->ptr;
    while (!casync__list_is_empty(&question->waiting)) {
        casync_op *op = casync__container(question->waiting.next, casync_op, link);
        int64_t result = call->result;
        if (result >= 0)
            result = casync__name_addrinfo_copy(
                op->as.found, allocator, found,
                (const casync__name_question_text *)casync__call_arguments(call));
        casync__op_done(op, result, NULL);
    }
    if (found) casync__sys_freeaddrinfo(found);
    casync__memory_free(allocator, question);
}

/* In a thread of the pool or in the loop; the question is gone already. */
static void casync__name_question_discard(casync__call *call) {
    if (call->ptr) casync__sys_freeaddrinfo((struct addrinfo *)call->ptr);
}

static const casync__call_kind casync__name_question_call = {
    CASYNC__CALL_LANE_NAMES, casync__name_question_ask, casync__name_question_answered,
    casync__name_question_discard};

static void casync__name_question_drop(casync__name_question *question) {
    casync_loop *loop = question->op.future.loop;
    casync__call_abandon(question->op.as.call);
    casync__memory_free(&loop->allocator, question);
}

/* One of those that waited for an answer is gone. */
static void casync__name_question_abandon(casync_op *op) {
    casync__name_question *question = (casync__name_question *)op->owner;
    if (casync__list_is_empty(&question->waiting)) casync__name_question_drop(question);
}

static void casync__name_questions_close(casync_loop *loop) {
    casync_link *link, *next;
    for (link = loop->calls.next; link != &loop->calls; link = next) {
        casync__call *call = casync__container(link, casync__call, link);
        next = link->next;
        if (call->kind == &casync__name_question_call)
            casync__name_question_drop(casync__name_question_of(call->op));
    }
}

/* The same question, under way; or NULL. */
static casync__name_question *casync__name_question_find(casync_loop *loop,
                                                         const casync__name_question_text *words,
                                                         size_t size) {
    casync_link *link;
    for (link = loop->calls.next; link != &loop->calls; link = link->next) {
        casync__call *call = casync__container(link, casync__call, link);
        if (call->kind == &casync__name_question_call &&
            casync__name_question_of(call->op)->size == size &&
            memcmp(casync__call_arguments(call), words, size) == 0)
            return casync__name_question_of(call->op);
    }
    return NULL;
}

static int64_t casync__name_question_make(casync_loop *loop, casync__name_question **made,
                                          const casync__name_question_text *words, size_t size) {
    casync__name_question *question =
        (casync__name_question *)casync__memory_realloc(&loop->allocator, NULL, sizeof *question);
    int64_t result;
    if (!question) return -ENOMEM;
    casync__list_init(&question->waiting);
    question->size = size;
    casync__op_begin(loop, &question->op, CASYNC__OP_CALL);
    result = casync__executor_make(loop);
    if (result == 0)
        result = casync__call_start(&question->op, loop->executor, &casync__name_question_call,
                                    words, size);
    if (result < 0)
        casync__memory_free(&loop->allocator, question);
    else
        *made = question;
    return result;
}

/* The words of a question; their size, or an error. */
static int64_t casync__name_question_write(casync__name_question_text *words,
                                           const casync_getaddrinfo_desc *desc) {
    size_t host_size = desc->host ? strlen(desc->host) + 1 : 0,
           service_size = desc->service ? strlen(desc->service) + 1 : 0;
    if (host_size > sizeof((casync_nameinfo *)0)->host) return CASYNC_EAI_NONAME;
    if (service_size > sizeof((casync_nameinfo *)0)->service) return CASYNC_EAI_SERVICE;
    memset(words, 0, offsetof(casync__name_question_text, text));
    words->family = desc->family;
    words->type = desc->type ? desc->type : SOCK_STREAM;
    words->flags = desc->flags;
    words->port = desc->port;
    words->has_host = host_size > 0;
    words->has_service = service_size > 0;
    if (host_size > 0) memcpy(words->text, desc->host, host_size);
    if (service_size > 0) memcpy(words->text + host_size, desc->service, service_size);
    return (int64_t)(offsetof(casync__name_question_text, text) + host_size + service_size);
}

/* -- answers without a thread -- */

/* Loopback, or all addresses. */
static int64_t casync__name_addrinfo_here(casync_addrinfo *info, const casync_allocator *allocator,
                                          const casync_getaddrinfo_desc *desc) {
    bool passive = desc->flags & AI_PASSIVE;
    size_t count = desc->family == AF_UNSPEC ? 2 : 1, i = 0;
    int64_t result = casync__name_addrinfo_make(info, allocator, count, 0);
    if (result < 0) return result;
    if (desc->family != AF_INET)
        casync__address_parse_host(passive ? "::" : "::1", desc->port, &info->addresses[i++]);
    if (desc->family != AF_INET6)
        casync__address_parse_host(passive ? "0.0.0.0" : "127.0.0.1", desc->port,
                                   &info->addresses[i]);
    return result;
}

static int64_t casync__name_addrinfo_numeric(casync_addrinfo *info,
                                             const casync_allocator *allocator,
                                             const casync_getaddrinfo_desc *desc) {
    casync_address address;
    int64_t result = casync__address_parse_host(desc->host, desc->port, &address);
    if (result == CASYNC_NOT_NUMERIC) return result;
    if (result < 0) return CASYNC_EAI_NONAME; /* no name has a colon */
    if (desc->family && desc->family != casync__address_sockaddr(&address)->sa_family)
        return CASYNC_EAI_ADDRFAMILY;
    result = casync__name_addrinfo_make(info, allocator, 1, 0);
    if (result > 0) info->addresses[0] = address;
    return result;
}

/* CASYNC_NOT_NUMERIC if the C library must be asked. */
static int64_t casync__name_addrinfo_at_once(casync_addrinfo *info,
                                             const casync_allocator *allocator,
                                             const casync_getaddrinfo_desc *desc) {
    if (desc->family && !casync__address_family_is_inet(desc->family)) return CASYNC_EAI_FAMILY;
    if (desc->service || (desc->flags & (AI_CANONNAME | AI_V4MAPPED))) return CASYNC_NOT_NUMERIC;
    return desc->host ? casync__name_addrinfo_numeric(info, allocator, desc)
                      : casync__name_addrinfo_here(info, allocator, desc);
}

CASYNC__LINKAGE casync_future *casync_getaddrinfo_op(casync_loop *loop, casync_addrinfo *info,
                                                     casync_op *op,
                                                     const casync_getaddrinfo_desc *desc) {
    casync__name_question_text words;
    casync__name_question *question;
    int64_t result = info && desc ? casync__call_check(loop) : -EINVAL;
    if (!op) return &casync__future_invalid;
    casync__op_begin(loop, op, CASYNC__OP_GETADDRINFO);
    if (result == 0 && (desc->port < 0 || desc->port > 65535)) result = -EINVAL;
    if (result == 0) result = casync__name_addrinfo_at_once(info, &loop->allocator, desc);
    if (result != CASYNC_NOT_NUMERIC) return casync__op_done(op, result, NULL);
    result = casync__name_question_write(&words, desc);
    if (result < 0) return casync__op_done(op, result, NULL);
    question = casync__name_question_find(loop, &words, (size_t)result);
    if (!question) result = casync__name_question_make(loop, &question, &words, (size_t)result);
    if (result < 0) return casync__op_done(op, result, NULL);
    op->owner = question;
    op->as.found = info;
    casync__list_append(&question->waiting, &op->link);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_getaddrinfo(casync_loop *loop, casync_addrinfo *info,
                                           const casync_getaddrinfo_desc *desc) {
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_getaddrinfo_op(loop, info, &op, desc));
}

CASYNC__LINKAGE int64_t casync_getaddrinfo_timeout(casync_loop *loop, casync_addrinfo *info,
                                                   const casync_getaddrinfo_desc *desc,
                                                   int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(loop, casync_timeout_begin(&scope, timeout));
    return result < 0 ? result : casync_timeout_end(&scope, casync_getaddrinfo(loop, info, desc));
}

CASYNC__LINKAGE void casync_addrinfo_free(casync_addrinfo *info) {
    if (!info || !info->addresses) return;
    casync__memory_free(&info->allocator, info->addresses);
    memset(info, 0, sizeof *info);
}

/* -- the names of addresses -- */

typedef struct casync__name_info_arguments {
    casync_nameinfo *info; /* the user's */
    int flags;
    casync_address address;
    casync_nameinfo found; /* by the thread */
} casync__name_info_arguments;

static int64_t casync__name_info_look_up(const casync_address *address, int flags,
                                         casync_nameinfo *info) {
    int64_t result =
        casync__sys_getnameinfo(casync__address_sockaddr(address), address->size, info, flags);
    return result > 0 ? -result : result;
}

static int64_t casync__name_info_run(void *arguments, void **ptr) {
    casync__name_info_arguments *call = (casync__name_info_arguments *)arguments;
    (void)ptr;
    return casync__name_info_look_up(&call->address, call->flags, &call->found);
}

static void casync__name_info_deliver(casync__call *call) {
    casync__name_info_arguments *arguments =
        (casync__name_info_arguments *)casync__call_arguments(call);
    if (call->result >= 0) *arguments->info = arguments->found;
    casync__op_done(call->op, call->result, NULL);
}

static const casync__call_kind casync__name_info_call = {
    CASYNC__CALL_LANE_NAMES, casync__name_info_run, casync__name_info_deliver, NULL};

CASYNC__LINKAGE casync_future *casync_getnameinfo_op(casync_loop *loop, casync_nameinfo *info,
                                                     casync_op *op, const casync_address *address,
                                                     int flags) {
    int64_t result = info && address ? casync__call_check(loop) : -EINVAL;
    casync__name_info_arguments arguments;
    if (!op) return &casync__future_invalid;
    casync__op_begin(loop, op, CASYNC__OP_CALL);
    if (result < 0) return casync__op_done(op, result, NULL);
    if ((flags & NI_NUMERICHOST) && (flags & NI_NUMERICSERV))
        return casync__op_done(op, casync__name_info_look_up(address, flags, info), NULL);
    memset(&arguments, 0, sizeof arguments);
    arguments.info = info;
    arguments.flags = flags;
    arguments.address = *address;
    result = casync__executor_make(loop);
    if (result == 0)
        result = casync__call_start(op, loop->executor, &casync__name_info_call, &arguments,
                                    sizeof arguments);
    return casync__op_started(op, result);
}

CASYNC__LINKAGE int64_t casync_getnameinfo(casync_loop *loop, casync_nameinfo *info,
                                           const casync_address *address, int flags) {
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_getnameinfo_op(loop, info, &op, address, flags));
}

/* >> endpoint (implementation) ----------------------------------------------------------------- */

/* The common part of a stream and a datagram socket: a watched descriptor, a state, water marks for
   what waits to be sent, the operations that wait, and the way to the end. Their differences are
   behind a table of functions, which the fast paths never call.

   An endpoint ends once. The way there is the same for both:

       finish             the state is FINISHING; the table's `flush` sends what is queued
       abort, an error,
       or all was sent    casync__endpoint_end notes the error, fails the operations that wait, lets
                          the table's `drop` drop what is queued, and queues the writer's job
       the writer's job   calls the table's `lost`, which closes the endpoint and then calls the
                          protocol's connection_lost
       close              the table's `close` closes the descriptor, from wherever it is called, and
                          calls nobody; the exception handler hears of bytes that are lost

   A callback may do any of these, or free the endpoint: so a weakref tells after each call whether
   to go on.

   Costs: no system call and no allocation beside those of its kind. */

enum {
    CASYNC__ENDPOINT_CLOSED,
    CASYNC__ENDPOINT_CONNECTING,
    CASYNC__ENDPOINT_OPEN,
    CASYNC__ENDPOINT_FINISHING,
    CASYNC__ENDPOINT_ENDED
};

/* Options. */
enum {
    CASYNC__ENDPOINT_FD_UNSHARED = 1, /* the library made it: closing it is the end of the file */
    CASYNC__ENDPOINT_FD_KEPT = 2,     /* it is the user's again at the end */
    CASYNC__ENDPOINT_FD_WAS_BLOCKING = 4, /* and will be again, if it is kept */
    CASYNC__ENDPOINT_CLOSES_ITSELF = 8,   /* by itself when it ended */
    CASYNC__ENDPOINT_IS_SOCKET = 16,
    CASYNC__ENDPOINT_IS_PIPE_WRITER = 32, /* readable means that the pipe's reader is gone */
    CASYNC__ENDPOINT_RECEIVES_FDS = 64
};

#define CASYNC__ENDPOINT_HIGH_WATER 65536

typedef struct casync__endpoint_kind {
    /* Bytes that wait to be sent. */
    size_t (*queued)(const casync_endpoint *endpoint);
    /* Whether bytes are wanted may have changed: begins, or ends, to watch for them. */
    void (*update_reading)(casync_endpoint *endpoint);
    /* Tells the protocol that writing is paused, or resumed. */
    void (*tell_writing)(casync_endpoint *endpoint);
    /* It is to be finished: ends it when everything is sent, which may be now. */
    void (*flush)(casync_endpoint *endpoint);
    /* It ended: fails operations that are in no list of the endpoint's with `error`, then calls
       casync__endpoint_end_soon, and then forgets what is queued, which may close it. */
    void (*drop)(casync_endpoint *endpoint, int64_t error);
    void (*close)(casync_endpoint *endpoint);
    /* Closes it, and tells its protocol, which may then use the struct again. */
    void (*lost)(casync_endpoint *endpoint);
} casync__endpoint_kind;

/* These take NULL for one that was never opened. */
static inline bool casync__endpoint_has_fd(const casync_endpoint *endpoint) {
    return endpoint && endpoint->state != CASYNC__ENDPOINT_CLOSED;
}
static inline bool casync__endpoint_is_open(const casync_endpoint *endpoint) {
    return endpoint && endpoint->state != CASYNC__ENDPOINT_CLOSED &&
           endpoint->state != CASYNC__ENDPOINT_ENDED;
}
static inline bool casync__endpoint_is_connected(const casync_endpoint *endpoint) {
    return endpoint && (endpoint->state == CASYNC__ENDPOINT_OPEN ||
                        endpoint->state == CASYNC__ENDPOINT_FINISHING);
}
static inline casync_loop *casync__endpoint_loop(const casync_endpoint *endpoint) {
    return endpoint ? endpoint->watcher.reader.loop : NULL;
}

/* The high-water mark, or its default; that of the low one is a quarter of it. */
static size_t casync__endpoint_high_water(size_t high) {
    return high ? high : CASYNC__ENDPOINT_HIGH_WATER;
}

/* Gives the endpoint its descriptor. */
static int64_t casync__endpoint_begin(casync_loop *loop, casync_endpoint *endpoint, int fd,
                                      int watcher_kind, const casync__endpoint_kind *kind,
                                      size_t high, size_t low) {
    int64_t result = casync__watcher_register(loop, &endpoint->watcher, fd, watcher_kind);
    if (result < 0) return result;
    endpoint->kind = kind;
    casync__list_init(&endpoint->waiting);
    endpoint->high_water = casync__endpoint_high_water(high);
    endpoint->low_water = low ? low : endpoint->high_water / 4;
    endpoint->error = 0;
    endpoint->state = CASYNC__ENDPOINT_OPEN;
    endpoint->options = 0;
    endpoint->reading_paused = endpoint->writing_paused = false;
    return 0;
}

/* Tries again what the kernel will not tell of. The timer keeps the loop running if the watcher
   does. */
static int64_t casync__watcher_retry_later(casync_watcher *watcher, casync_timer *retry,
                                           int64_t delay, casync_callback callback, void *arg) {
    casync_timer_ref(retry, !(watcher->flags & CASYNC__WATCHER_UNREFERENCED));
    retry->job.flags |= CASYNC__JOB_INTERNAL;
    return casync_call_later(watcher->reader.loop, retry, delay, callback, arg);
}

/* -- pausing -- */

/* Ends the operations of one kind in a list. */
static void casync__ops_done_of_kind(casync_link *waiting, int kind, int64_t result) {
    casync_link *link = waiting->next;
    while (link != waiting) {
        casync_op *op = casync__container(link, casync_op, link);
        link = link->next;
        if (op->kind == kind) casync__op_done(op, result, NULL);
    }
}

static void casync__endpoint_pause_if_full(casync_endpoint *endpoint) {
    if (endpoint->writing_paused || endpoint->kind->queued(endpoint) <= endpoint->high_water)
        return;
    endpoint->writing_paused = true;
    endpoint->kind->tell_writing(endpoint);
}

static void casync__endpoint_resume_if_drained(casync_endpoint *endpoint) {
    if (!endpoint->writing_paused || endpoint->kind->queued(endpoint) > endpoint->low_water) return;
    endpoint->writing_paused = false;
    casync__ops_done_of_kind(&endpoint->waiting, CASYNC__OP_DRAIN, 0);
    endpoint->kind->tell_writing(endpoint);
}

static int64_t casync__endpoint_set_write_limits(casync_endpoint *endpoint, size_t high,
                                                 size_t low) {
    if (!endpoint || low > high) return -EINVAL;
    if (!casync__endpoint_is_open(endpoint)) return CASYNC_INVALID_STATE;
    endpoint->high_water = high;
    endpoint->low_water = low;
    if (!casync__endpoint_is_connected(endpoint)) return 0;
    if (endpoint->kind->queued(endpoint) > high)
        casync__endpoint_pause_if_full(endpoint);
    else
        casync__endpoint_resume_if_drained(endpoint);
    return 0;
}

/* `refused`: why the user may not write, or 0. What is being finished can still be drained. */
static casync_future *casync__endpoint_drain(casync_endpoint *endpoint, casync_op *op,
                                             int64_t refused) {
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__endpoint_loop(endpoint), op, CASYNC__OP_DRAIN);
    op->owner = endpoint;
    if (!casync__endpoint_is_connected(endpoint)) return casync__op_done(op, refused, NULL);
    if (!endpoint->writing_paused) return casync__op_done(op, 0, NULL);
    casync__list_append(&endpoint->waiting, &op->link);
    return &op->future;
}

static int64_t casync__endpoint_set_reading_paused(casync_endpoint *endpoint, bool paused) {
    if (!casync__endpoint_is_open(endpoint)) return CASYNC_INVALID_STATE;
    endpoint->reading_paused = paused;
    endpoint->kind->update_reading(endpoint);
    return 0;
}

/* -- the end -- */

/* Bytes that nobody will send any more, and who was to get them. */
typedef struct casync__endpoint_loss {
    size_t size;
    casync_address peer; /* of size 0 if it has none */
} casync__endpoint_loss;

static void casync__endpoint_loss_measure(casync__endpoint_loss *loss, size_t size, int fd) {
    loss->size = size;
    loss->peer.size = 0;
    if (size > 0) (void)casync__address_of(fd, casync__sys_getpeername, &loss->peer);
}

static void casync__endpoint_loss_report(casync_loop *loop, const casync__endpoint_loss *loss,
                                         const char *message) {
    casync_exception exception = casync__exception_make(message, -ECONNABORTED);
    if (loss->size == 0) return;
    exception.unsent = loss->size;
    if (loss->peer.size > 0) exception.peer = &loss->peer;
    casync_call_exception_handler(loop, &exception);
}

/* By the writer's job, which does what the state asks for: connects, flushes, or ends. It comes
   behind the callbacks of the operations that just failed, which may be in memory that ends with
   the endpoint. */
static void casync__endpoint_end_soon(casync_endpoint *endpoint) {
    if (endpoint->options & CASYNC__ENDPOINT_CLOSES_ITSELF)
        casync__job_make_ready(casync__endpoint_loop(endpoint), &endpoint->watcher.writer);
}

/* Nothing more comes or goes. Operations fail with what ended it, but for finish operations, which
   are done when it is closed. */
static void casync__endpoint_end(casync_endpoint *endpoint, int64_t error) {
    int64_t reason = error < 0 ? error : -ECONNABORTED;
    casync_link *link;
    if (!casync__endpoint_is_open(endpoint)) return;
    CASYNC_ASSERT(casync__loop_in_thread(casync__endpoint_loop(endpoint)));
    endpoint->state = CASYNC__ENDPOINT_ENDED;
    endpoint->error = error < INT32_MIN ? INT32_MIN : (int32_t)error;
    casync__watcher_quiet(&endpoint->watcher);
    for (link = endpoint->waiting.next; link != &endpoint->waiting;) {
        casync_op *op = casync__container(link, casync_op, link);
        link = link->next;
        if (op->kind != CASYNC__OP_FINISH) casync__op_done(op, reason, NULL);
    }
    endpoint->kind->drop(endpoint, reason);
}

/* Gives the descriptor back to the kernel, or as it was to the user. */
static void casync__endpoint_give_fd_back(casync_endpoint *endpoint) {
    int fd = endpoint->watcher.fd;
    bool kept = endpoint->options & CASYNC__ENDPOINT_FD_KEPT;
    casync__watcher_unregister(&endpoint->watcher,
                               !kept && (endpoint->options & CASYNC__ENDPOINT_FD_UNSHARED));
    if (!kept)
        casync__sys_close(fd);
    else if (endpoint->options & CASYNC__ENDPOINT_FD_WAS_BLOCKING)
        (void)casync__fd_set_blocking(fd, true); /* what fails now never worked */
}

static void casync__endpoint_close(casync_endpoint *endpoint) {
    casync__endpoint_end(endpoint, -ECONNABORTED);
    casync__weakref_object_gone(casync__endpoint_loop(endpoint), endpoint);
    casync__endpoint_give_fd_back(endpoint);
    endpoint->state = CASYNC__ENDPOINT_CLOSED;
    casync__ops_done(&endpoint->waiting, -ECONNABORTED);
}

/* The same for one that ended by itself: its finish operations learn how. */
static void casync__endpoint_close_ended(casync_endpoint *endpoint) {
    int64_t error = endpoint->error;
    casync_link finishing;
    casync__list_init(&finishing);
    casync__list_move(&finishing, &endpoint->waiting);
    endpoint->kind->close(endpoint);
    casync__ops_done(&finishing, error);
}

static int64_t casync__endpoint_abort(casync_endpoint *endpoint) {
    if (!casync__endpoint_is_open(endpoint)) return CASYNC_INVALID_STATE;
    endpoint->options |= CASYNC__ENDPOINT_CLOSES_ITSELF;
    casync__endpoint_end(endpoint, -ECONNABORTED);
    return 0;
}

static int64_t casync__endpoint_finish_start(casync_endpoint *endpoint) {
    if (!casync__endpoint_is_open(endpoint)) return CASYNC_INVALID_STATE;
    if (endpoint->state == CASYNC__ENDPOINT_FINISHING) return 0;
    if (endpoint->state == CASYNC__ENDPOINT_CONNECTING) return casync__endpoint_abort(endpoint);
    endpoint->state = CASYNC__ENDPOINT_FINISHING;
    endpoint->options |= CASYNC__ENDPOINT_CLOSES_ITSELF;
    endpoint->kind->update_reading(endpoint);
    endpoint->kind->flush(endpoint);
    return 0;
}

static casync_future *casync__endpoint_finish(casync_endpoint *endpoint, casync_op *op) {
    int64_t error;
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__endpoint_loop(endpoint), op, CASYNC__OP_FINISH);
    if (!casync__endpoint_has_fd(endpoint)) return casync__op_done(op, CASYNC_INVALID_STATE, NULL);
    op->owner = endpoint;
    error = endpoint->error;
    if (endpoint->state == CASYNC__ENDPOINT_ENDED &&
        !casync_job_pending(&endpoint->watcher.writer)) {
        endpoint->kind->close(endpoint);
        return casync__op_done(op, error, NULL);
    }
    casync__list_append(&endpoint->waiting, &op->link);
    (void)casync__endpoint_finish_start(endpoint); /* if it ended already, its end is on the way */
    return &op->future;
}

static void casync__endpoint_finish_abandon(casync_op *op) {
    casync_endpoint *endpoint = (casync_endpoint *)op->owner;
    endpoint->kind->close(endpoint);
}

static int64_t casync__endpoint_address(const casync_endpoint *endpoint, casync__address_getter get,
                                        casync_address *address) {
    if (!casync__endpoint_has_fd(endpoint)) return -EBADF;
    return casync__address_of(endpoint->watcher.fd, get, address);
}

/* >> streams (implementation) ------------------------------------------------------------------ */

/* One type of stream over the readiness of a descriptor. Incoming bytes take the shortest way that
   there is: into the buffer of the read operation that waits, into the protocol's own buffer, or
   through the loop's scratch to the protocol. Only what must be put together (frames), and what a
   filter made, is kept in `input`, which exists while something is in it. Outgoing bytes are tried
   at once. What is left is queued in `out`, and casync__stream_writable, the writer's job, sends it
   when the descriptor is writable.

   A protocol that does not read learns of the peer's end by EPOLLRDHUP. Bytes of `input` that a
   user may still look at when the stream is closed are freed by a job in the ready queue.

   Its life is the endpoint's. Besides, reading ends when the peer sends no more, and writing ends
   when the user writes no more.

   Costs: a message that is received and answered is one read and one send, beside the wait. An idle
   stream has no memory but its struct. */

/* How far each side is: the end came, and the protocol was told; a file is being sent, and nothing
   else can be; the end is asked for, and sent. */
enum { CASYNC__STREAM_READ_OPEN, CASYNC__STREAM_READ_EOF, CASYNC__STREAM_READ_TOLD };
enum {
    CASYNC__STREAM_WRITE_OPEN,
    CASYNC__STREAM_WRITE_FILE,
    CASYNC__STREAM_WRITE_EOF_ASKED,
    CASYNC__STREAM_WRITE_EOF_SENT
};

#define CASYNC__STREAM_READS_MAX 4   /* of one stream in one turn */
#define CASYNC__STREAM_WRITES_MAX 16 /* of the pieces of write_all, the same */

#define CASYNC__STREAM_READ_LIMIT 65536 /* of a frame, by default */
#define CASYNC__STREAM_READ_LIMIT_MAX                                                              \
    (SIZE_MAX / 4)                       /* so that its length with a prefix cannot overflow */
#define CASYNC__STREAM_PASSED_FDS_MAX 16 /* taken with one read */
#define CASYNC__STREAM_PASSED_FDS_WAITING 256
#define CASYNC__STREAM_CONNECT_RETRY_MIN                                                           \
    CASYNC_MS(1) /* at first; then twice as long each time, up to */
#define CASYNC__STREAM_CONNECT_RETRY_MAX CASYNC_MS(50)

/* Descriptors that came: a ring. A peer that sends more than its reader takes must not run the
   process out of them. */
typedef struct casync__stream_passed_fds {
    uint32_t first, count;
    int fds[CASYNC__STREAM_PASSED_FDS_WAITING];
} casync__stream_passed_fds;

/* What a stream has while connecting takes more than one connect(2). With a Unix socket whose
   listener has no place for it, connect(2) says EAGAIN, and nobody tells when there is one
   (unix(7)): so it is tried again. With a name there is an attempt for each address; until one of
   them wins, the stream has a descriptor that only keeps the number for it. */
typedef struct casync__stream_connecting {
    casync_stream *stream;
    casync_timer timer; /* of the next try, or of the next attempt */
    int64_t delay;
    casync_address address; /* of the Unix socket */
    /* by name */
    casync_connect_desc desc; /* which points to the copies below */
    casync_stream_options options;
    char local_host[64];
    casync_op lookup;
    casync_job found; /* the lookup is done */
    casync_addrinfo info;
    size_t cursor[2]; /* of the addresses of the first one's family, and of those of others */
    int turn;         /* whose it is */
    casync_link attempts;
    int64_t error; /* of the last attempt that failed */
} casync__stream_connecting;

/* One address is tried. */
typedef struct casync__stream_attempt {
    casync_watcher watcher;
    casync_link link; /* in connecting->attempts */
    casync__stream_connecting *connecting;
    const casync_address *address;
} casync__stream_attempt;

/* All of these take no stream for one that is not open. */
static inline casync_loop *casync__stream_loop(const casync_stream *stream) {
    return stream ? stream->endpoint.watcher.reader.loop : NULL;
}

/* The endpoint of a stream that may be NULL. */
static inline casync_endpoint *casync__stream_endpoint(const casync_stream *stream) {
    return (casync_endpoint *)(uintptr_t)stream;
}

/* Open, connected and not ended. */
static inline bool casync__stream_is_connected(const casync_stream *stream) {
    return casync__endpoint_is_connected(casync__stream_endpoint(stream));
}

/* May its user still read? */
static inline bool casync__stream_may_read(const casync_stream *stream) {
    return stream->endpoint.state == CASYNC__ENDPOINT_OPEN && !stream->endpoint.reading_paused;
}

static inline bool casync__stream_is_socket(const casync_stream *stream) {
    return (stream->endpoint.options & CASYNC__ENDPOINT_IS_SOCKET) != 0;
}

static inline void casync__stream_end(casync_stream *stream, int64_t error) {
    casync__endpoint_end(&stream->endpoint, error);
}

/* -- input: bytes that wait to be asked for -- */

/* May the user look at bytes of the input: of the frame last read, or of that which a callback is
   given? */
static inline bool casync__stream_lends(const casync_stream *stream) {
    return stream->frame_lent || stream->delivering;
}

/* The memory of an earlier frame, which is the user's no more, unless a callback has it. */
static void casync__stream_free_lent(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    if (casync__stream_lends(stream))
        casync__input_retire(loop, stream->lent);
    else
        casync__memory_free(&loop->allocator, stream->lent);
    stream->lent = NULL;
}

static void casync__stream_free_input(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    if (casync__stream_lends(stream))
        casync__input_retire(loop, stream->input);
    else
        casync__memory_free(&loop->allocator, stream->input);
    stream->input = NULL;
    casync__stream_free_lent(stream);
}

/* Makes room for `size` more bytes behind the input. While the frame last read is the user's, the
   memory it is in stays as it is. */
static int64_t casync__stream_reserve_input(casync_stream *stream, size_t size) {
    casync__input *old = stream->input, *input;
    size_t old_size = old ? old->size : 0, needed = casync__input_size(stream->input) + size;
    bool lend = stream->frame_lent && !stream->lent;
    bool retire = !lend && stream->delivering;
    if (needed <= old_size && !lend && !retire) {
        casync__input_compact(old);
        return 0;
    }
    if (needed > old_size && needed < old_size * 2) needed = old_size * 2;
    input = casync__input_clone(&casync__stream_loop(stream)->allocator, old,
                                needed > old_size ? needed : old_size);
    if (!input) return -ENOMEM;
    if (lend)
        stream->lent = old;
    else if (retire)
        casync__input_retire(casync__stream_loop(stream), old);
    else
        casync__memory_free(&casync__stream_loop(stream)->allocator, old);
    stream->input = input;
    return 0;
}

static int64_t casync__stream_append_input(casync_stream *stream, const uint8_t *data,
                                           size_t size) {
    if (casync__stream_reserve_input(stream, size) < 0) return -ENOMEM;
    memcpy(casync__input_bytes(stream->input) + stream->input->end, data, size);
    stream->input->end += size;
    return 0;
}

/* -- reading -- */

static inline bool casync__stream_protocol_reads(const casync_stream *stream) {
    return stream->protocol && (stream->protocol->data_received || stream->protocol->get_buffer);
}

/* Shall the protocol be given bytes now? */
static inline bool casync__stream_may_deliver(const casync_stream *stream) {
    return casync__stream_protocol_reads(stream) && casync__stream_may_read(stream);
}

/* Does a protocol that does not read hear of the peer's end? As asyncio's base protocol it does,
   and what nobody ever read is dropped then. While an operation reads, that is told first. */
static bool casync__stream_hears_end(const casync_stream *stream) {
    const casync_protocol *protocol = stream->protocol;
    return protocol && (protocol->connection_lost || protocol->eof_received) &&
           !casync__stream_protocol_reads(stream) && casync__stream_may_read(stream) &&
           !stream->filter && !stream->end_waits && stream->read_side == CASYNC__STREAM_READ_OPEN;
}

/* Will no more bytes come? */
static inline bool casync__stream_has_read_all(const casync_stream *stream) {
    return stream->read_side != CASYNC__STREAM_READ_OPEN ||
           stream->endpoint.state == CASYNC__ENDPOINT_ENDED;
}

static void casync__stream_update_reading(casync_stream *stream) {
    bool reads = stream->reading || casync__stream_may_deliver(stream) ||
                 (stream->filter && stream->filter->reads) ||
                 ((stream->endpoint.options & CASYNC__ENDPOINT_IS_PIPE_WRITER) && stream->protocol);
    if (!casync__watcher_is_registered(&stream->endpoint.watcher)) return;
    if (reads && !casync__stream_has_read_all(stream))
        casync__watcher_start(&stream->endpoint.watcher, CASYNC__FD_READ);
    else
        casync__watcher_stop(&stream->endpoint.watcher, CASYNC__FD_READ);
    if (casync__stream_hears_end(stream))
        casync__watcher_start(&stream->endpoint.watcher, CASYNC__FD_END);
    else
        casync__watcher_stop(&stream->endpoint.watcher, CASYNC__FD_END);
}

/* What an operation gets when the stream ended after `done` of its bytes. */
static int64_t casync__stream_end_result(const casync_stream *stream, const casync_op *op) {
    if (stream->endpoint.state == CASYNC__ENDPOINT_ENDED && stream->endpoint.error < 0)
        return stream->endpoint.error;
    if (op->kind == CASYNC__OP_READ) return 0;
    return op->done > 0 || casync__input_size(stream->input) > 0 ? CASYNC_INCOMPLETE_READ
                                                                 : CASYNC_EOF;
}

/* Serves the read that waits from the input: its result, or -EAGAIN if that needs more bytes. */
static int64_t casync__stream_attempt_read(casync_stream *stream, casync_op *op, void **ptr) {
    int64_t length;
    size_t skip;
    if (op->kind == CASYNC__OP_READ_FRAME) {
        length = casync__framing_find(&op->as.framing, stream->input, stream->read_limit, &skip);
        if (length < 0) return length;
        *ptr = casync__input_bytes(stream->input) + skip;
        stream->frame_lent = true;
        casync__input_consume(stream->input, (size_t)length);
        return length - (int64_t)skip;
    }
    op->done += casync__input_take(stream->input, op->as.buffer.data + op->done,
                                   op->as.buffer.size - op->done);
    if (op->done == op->as.buffer.size || (op->kind == CASYNC__OP_READ && op->done > 0))
        return (int64_t)op->done;
    return -EAGAIN;
}

/* Ends the read that waits if it can be served, or if the stream has no more to come. */
static void casync__stream_serve_read(casync_stream *stream) {
    casync_op *op = stream->reading;
    void *ptr = NULL;
    int64_t result;
    if (!op) return;
    result = casync__stream_attempt_read(stream, op, &ptr);
    if (result == -EAGAIN && casync__stream_has_read_all(stream))
        result = casync__stream_end_result(stream, op);
    if (result == -EAGAIN) return;
    stream->reading = NULL;
    casync__stream_update_reading(stream);
    casync__op_done(op, result, ptr);
}

/* Copies input into a buffer of a protocol with get_buffer. False if it takes no more for now. */
static bool casync__stream_deliver_copy(casync_stream *stream, const casync__weakref *weak) {
    const casync_protocol *protocol = stream->protocol;
    casync_buffer buffer = protocol->get_buffer(stream, (int64_t)casync__input_size(stream->input));
    size_t taken;
    if (weak->gone) return false;
    taken = casync__input_take(stream->input, (uint8_t *)buffer.ptr, buffer.len);
    if (protocol->buffer_updated) protocol->buffer_updated(stream, taken);
    if (weak->gone || taken > 0) return !weak->gone;
    if (buffer.ptr == CASYNC_NOT_NOW)
        casync__job_make_ready(casync__stream_loop(stream),
                               &stream->endpoint.watcher.reader); /* not now: in the next turn */
    else
        casync__stream_end(stream, -ENOBUFS);
    return false;
}

/* Gives a protocol with data_received the next frame, or all there is. False if that is no whole
   frame. */
static bool casync__stream_deliver_span(casync_stream *stream) {
    casync_span span;
    size_t skip = 0;
    int64_t length = (int64_t)casync__input_size(stream->input);
    if (stream->framing)
        length = casync__framing_find(stream->framing, stream->input, stream->read_limit, &skip);
    if (length < 0) {
        if (length != -EAGAIN) casync__stream_end(stream, length);
        return false;
    }
    span = casync__span_make(casync__input_bytes(stream->input) + skip, (size_t)length - skip);
    casync__input_consume(stream->input, (size_t)length);
    stream->delivering = true;
    stream->protocol->data_received(stream, span);
    return true;
}

CASYNC__LINKAGE int64_t casync_finish_start(casync_stream *stream) {
    return casync__endpoint_finish_start(casync__stream_endpoint(stream));
}

/* Tells the protocol of the end, once it had all that came before. */
static void casync__stream_deliver_eof(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__weakref weak;
    bool keep = false;
    stream->read_side = CASYNC__STREAM_READ_TOLD;
    casync__weakref_begin(loop, &weak, stream);
    if (stream->protocol->eof_received) keep = stream->protocol->eof_received(stream);
    if (casync__weakref_end(loop, &weak) && !keep) casync_finish_start(stream);
}

static inline bool casync__stream_has_eof_to_tell(const casync_stream *stream) {
    return stream->read_side == CASYNC__STREAM_READ_EOF;
}

/* Gives the protocol what it may have of the input. */
static void casync__stream_deliver_input(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__weakref weak;
    /* by a callback that runs the loop */
    bool delivering = stream->delivering, more = true;
    casync__weakref_begin(loop, &weak, stream);
    while (more && !weak.gone && casync__stream_may_deliver(stream) &&
           casync__input_size(stream->input) > 0) {
        if (stream->protocol->get_buffer)
            more = casync__stream_deliver_copy(stream, &weak);
        else
            more = casync__stream_deliver_span(stream);
        if (!weak.gone) stream->delivering = delivering;
    }
    if (!casync__weakref_end(loop, &weak)) return;
    if (casync__input_size(stream->input) == 0) casync__stream_free_input(stream);
    if (casync__stream_may_deliver(stream) && casync__stream_has_eof_to_tell(stream))
        casync__stream_deliver_eof(stream);
}

/* Did bytes, or the end, wait for the protocol? */
static inline bool casync__stream_has_input(const casync_stream *stream) {
    return casync__stream_protocol_reads(stream) &&
           (stream->input || casync__stream_has_eof_to_tell(stream));
}

/* By the ready queue, so that the protocol is not called inside its own call. */
static void casync__stream_deliver_soon(casync_stream *stream) {
    if (casync__stream_has_input(stream) && casync__stream_may_deliver(stream))
        casync__job_make_ready(casync__stream_loop(stream), &stream->endpoint.watcher.reader);
}

/* Bytes for the stream's user. To a protocol without frames they go as they are; all others get
   them from the input, where they also wait while reading is paused. */
static void casync__stream_receive(casync_stream *stream, const uint8_t *data, size_t size) {
    if (stream->endpoint.state != CASYNC__ENDPOINT_OPEN || size == 0) return;
    if (casync__stream_may_deliver(stream) && !stream->protocol->get_buffer && !stream->framing &&
        casync__input_size(stream->input) == 0) {
        stream->protocol->data_received(stream, casync__span_make(data, size));
    } else if (casync__stream_append_input(stream, data, size) < 0) {
        casync__stream_end(stream, -ENOMEM);
    } else if (casync__stream_protocol_reads(stream)) {
        casync__stream_deliver_input(stream);
    } else {
        casync__stream_serve_read(stream);
    }
}

/* The other side will send no more. */
static void casync__stream_received_eof(casync_stream *stream) {
    stream->read_side = CASYNC__STREAM_READ_EOF;
    casync__watcher_stop(&stream->endpoint.watcher, CASYNC__FD_READ);
    if (casync__stream_protocol_reads(stream))
        casync__stream_deliver_input(stream);
    else
        casync__stream_serve_read(stream);
}

static int64_t casync__stream_keep_fd(casync_stream *stream, int fd) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__stream_passed_fds *passed = stream->passed_fds;
    if (!passed) {
        passed = (casync__stream_passed_fds *)casync__memory_realloc(&loop->allocator, NULL,
                                                                     sizeof *passed);
        if (passed) passed->first = passed->count = 0;
    }
    stream->passed_fds = passed;
    if (passed && passed->count < CASYNC__STREAM_PASSED_FDS_WAITING) {
        passed->fds[(passed->first + passed->count++) % CASYNC__STREAM_PASSED_FDS_WAITING] = fd;
        return 0;
    }
    casync__sys_close(fd);
    return passed ? -ENOBUFS : -ENOMEM;
}

/* Keeps the descriptors of a message. If any is lost, the stream cannot go on: -EMSGSIZE, -ENOBUFS,
   -ENOMEM.
*/
static int64_t casync__stream_take_fds(casync_stream *stream, struct msghdr *message) {
    int64_t result = message->msg_flags & MSG_CTRUNC ? -EMSGSIZE : 0;
    struct cmsghdr *header;
    for (header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        size_t i, count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        for (i = 0; i < count; i++) {
            int fd;
            int64_t queued;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            queued = casync__stream_keep_fd(stream, fd);
            if (queued < 0) result = queued;
        }
    }
    return result;
}

static int64_t casync__stream_read_with_fds(casync_stream *stream, void *buffer, size_t size) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(CASYNC__STREAM_PASSED_FDS_MAX * sizeof(int))];
    } control;
    casync_span span = casync__span_make(buffer, size);
    struct msghdr message;
    int64_t count, result;
    casync__spans_message(&message, &span, 1);
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    count = casync__sys_recvmsg(stream->endpoint.watcher.fd, &message);
    if (count < 0) return count;
    result = casync__stream_take_fds(stream, &message);
    return result < 0 ? result : count;
}

/* One read(2). Notes whether it filled the buffer. */
static int64_t casync__stream_read_fd(casync_stream *stream, void *buffer, size_t size) {
    int64_t count = (stream->endpoint.options & CASYNC__ENDPOINT_RECEIVES_FDS)
                        ? casync__stream_read_with_fds(stream, buffer, size)
                        : casync__sys_read(stream->endpoint.watcher.fd, buffer, size);
    stream->more = false;
    if (count > 0 && (size_t)count == size) stream->more = true;
    return count;
}

/* The end, or an error, of the descriptor. */
static void casync__stream_read_failed(casync_stream *stream, int64_t result) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__weakref weak;
    if (result == -EAGAIN) return;
    if (result == 0 && stream->filter && stream->filter->received_eof) {
        casync__weakref_begin(loop, &weak, stream);
        result = stream->filter->received_eof(stream->filter);
        if (!casync__weakref_end(loop, &weak) || !casync__stream_is_connected(stream)) return;
    }
    if (result < 0)
        casync__stream_end(stream, result);
    else
        casync__stream_received_eof(stream);
}

static void casync__stream_read_for_op(casync_stream *stream, casync_op *op) {
    int64_t count = casync__stream_read_fd(stream, op->as.buffer.data + op->done,
                                           op->as.buffer.size - op->done);
    if (count > 0) {
        op->done += (size_t)count;
        casync__stream_serve_read(stream);
    } else {
        casync__stream_read_failed(stream, count);
    }
}

static void casync__stream_read_for_buffered(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    const casync_protocol *protocol = stream->protocol;
    casync__weakref weak;
    casync_buffer buffer;
    int64_t count = -ENOBUFS;
    casync__weakref_begin(loop, &weak, stream);
    buffer = protocol->get_buffer(stream, -1);
    if (buffer.ptr == CASYNC_NOT_NOW) count = -EAGAIN;
    if (!weak.gone && buffer.len > 0)
        count = casync__stream_read_fd(stream, buffer.ptr, buffer.len);
    if (!weak.gone && protocol->buffer_updated)
        protocol->buffer_updated(stream, count > 0 ? (size_t)count : 0);
    if (!casync__weakref_end(loop, &weak)) return;
    if (count <= 0 && casync__stream_is_connected(stream))
        casync__stream_read_failed(stream, count);
}

static void casync__stream_read_to_scratch(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    int64_t count = -ENOMEM, result = 0;
    if (!loop->scratch)
        loop->scratch = (uint8_t *)casync__memory_realloc(&loop->allocator, NULL, CASYNC_READ_SIZE);
    if (loop->scratch) count = casync__stream_read_fd(stream, loop->scratch, CASYNC_READ_SIZE);
    if (count <= 0) {
        casync__stream_read_failed(stream, count);
    } else if (stream->filter && stream->filter->received) {
        casync__weakref weak;
        casync__weakref_begin(loop, &weak, stream);
        result = stream->filter->received(stream->filter,
                                          casync__span_make(loop->scratch, (size_t)count));
        if (!casync__weakref_end(loop, &weak)) return;
        if (result == CASYNC_EOF)
            casync__stream_received_eof(stream);
        else if (result < 0)
            casync__stream_end(stream, result);
    } else {
        casync__stream_receive(stream, loop->scratch, (size_t)count);
    }
}

static void casync__stream_read_once(casync_stream *stream) {
    casync_op *op = stream->reading;
    if (!stream->filter && op && op->kind != CASYNC__OP_READ_FRAME)
        casync__stream_read_for_op(stream, op);
    else if (!stream->filter && stream->protocol && stream->protocol->get_buffer)
        casync__stream_read_for_buffered(stream);
    else
        casync__stream_read_to_scratch(stream);
}

/* Are there bytes that read operations, once begun, have not read yet? */
static bool casync__stream_has_unread(const casync_stream *stream) {
    int unread = 0;
    if (!stream->read_by_ops) return false;
    if (casync__input_size(stream->input) > 0) return true;
    return casync__sys_unread(stream->endpoint.watcher.fd, &unread) == 0 && unread > 0;
}

/* The peer's end, for a protocol that does not read. */
static void casync__stream_peer_ended(casync_stream *stream) {
    int64_t error = casync__socket_error(stream->endpoint.watcher.fd);
    if (error < 0) {
        casync__stream_end(stream, error);
        return;
    }
    if (casync__stream_has_unread(stream)) {
        stream->end_waits = true;
        casync__stream_update_reading(stream);
        return;
    }
    stream->read_side = CASYNC__STREAM_READ_EOF;
    casync__watcher_stop(&stream->endpoint.watcher, CASYNC__FD_END);
    casync__stream_deliver_eof(stream);
}

/* The watcher says readable. Full reads are repeated, but not without end: other streams wait
   too. */
static void casync__stream_readable(void *arg) {
    casync_stream *stream = (casync_stream *)arg;
    casync_loop *loop = casync__stream_loop(stream);
    casync__weakref weak;
    bool waits;
    int i;
    if ((stream->endpoint.options & CASYNC__ENDPOINT_IS_PIPE_WRITER)) {
        casync__stream_end(stream, stream->out.size > 0 ? -EPIPE : 0);
        return;
    }
    if ((stream->endpoint.watcher.wanted & (CASYNC__FD_END | CASYNC__FD_READ)) == CASYNC__FD_END) {
        casync__stream_peer_ended(stream);
        return;
    }
    casync__weakref_begin(loop, &weak, stream);
    /* what a pause left */
    if (casync__stream_has_input(stream)) casync__stream_deliver_input(stream);
    /* and comes first */
    waits = !weak.gone && casync__stream_has_input(stream) && stream->protocol->get_buffer;
    for (i = 0; i < CASYNC__STREAM_READS_MAX && !waits && !weak.gone &&
                (stream->endpoint.watcher.wanted & CASYNC__FD_READ);
         i++) {
        casync__stream_read_once(stream);
        if (weak.gone || !stream->more) break;
    }
    casync__weakref_end(loop, &weak);
}

/* A read waits in no list. */
static void casync__stream_read_abandon(casync_op *op) {
    casync_stream *stream = (casync_stream *)op->owner;
    if (!stream || stream->reading != op) return;
    stream->reading = NULL;
    /* What came so far is for the next read. */
    if (op->done > 0 && casync__stream_append_input(stream, op->as.buffer.data, op->done) < 0)
        casync__stream_end(stream, -ENOMEM);
    else
        casync__stream_update_reading(stream);
}

/* -- writing -- */

static void casync__stream_send_eof(casync_stream *stream) {
    int64_t result = casync__sys_shutdown(stream->endpoint.watcher.fd, SHUT_WR);
    stream->write_side = CASYNC__STREAM_WRITE_EOF_SENT;
    /* ENOTCONN: the other side reset the connection, which reading will tell. */
    if (result < 0 && result != -ENOTCONN) casync__stream_end(stream, result);
}

/* The first write_all or sendfile that waits, or NULL. */
static casync_op *casync__stream_first_write(casync_stream *stream) {
    casync_link *link;
    for (link = stream->endpoint.waiting.next; link != &stream->endpoint.waiting;
         link = link->next) {
        casync_op *op = casync__container(link, casync_op, link);
        if (op->kind == CASYNC__OP_WRITE_ALL || op->kind == CASYNC__OP_SENDFILE) return op;
    }
    return NULL;
}

/* Writes the next piece of an operation; what is queued of it at a time is no more than the
   high-water mark, or CASYNC_REFERENCE_MIN. The write may call pause_writing, which may end the
   operation and free it: so the piece counts as done before, and the operation is touched
   afterwards only if it is the same still. False if the stream ended with that, and the operation
   with it. */
static bool casync__stream_feed_piece(casync_stream *stream, casync_op *op) {
    casync_loop *loop = casync__stream_loop(stream);
    const uint8_t *data = op->as.buffer.data + op->done;
    size_t piece = stream->endpoint.high_water, done;
    casync__weakref weak;
    int64_t result;
    if (piece < CASYNC_REFERENCE_MIN) piece = CASYNC_REFERENCE_MIN;
    if (piece > op->as.buffer.size - op->done) piece = op->as.buffer.size - op->done;
    op->done = done = op->done + piece;
    casync__weakref_begin(loop, &weak, stream);
    result = casync_write(stream, data, piece);
    if (!casync__weakref_end(loop, &weak) || !casync__stream_is_connected(stream))
        return false; /* it ended with it */
    if (result == (int64_t)piece || casync__stream_first_write(stream) != op ||
        op->done != done) /* another operation at its address has done nothing yet */
        return true;
    op->done -= result < 0 ? piece : piece - (size_t)result;
    if (result < 0) casync__op_done(op, result, NULL); /* no memory */
    return true;
}

#define CASYNC__STREAM_SENDFILE_MAX 1048576 /* of one sendfile(2): others have their turn */
#define CASYNC__STREAM_SENDFILE_TOTAL ((int64_t)PTRDIFF_MAX) /* of one operation, which counts */

/* Sends the next piece of a file, straight from the kernel's cache of it. False if the socket takes
   no more now, or the stream ended. */
static bool casync__stream_feed_file(casync_stream *stream, casync_op *op) {
    int64_t size = op->as.file.left < CASYNC__STREAM_SENDFILE_MAX ? op->as.file.left
                                                                  : CASYNC__STREAM_SENDFILE_MAX;
    casync__sys_sigpipe sigpipe;
    int64_t sent = casync__sys_block_sigpipe(&sigpipe);
    if (sent >= 0) {
        sent = size == 0 ? 0
                         : casync__sys_sendfile(stream->endpoint.watcher.fd, op->as.file.fd,
                                                &op->as.file.offset, (size_t)size);
        casync__sys_unblock_sigpipe(&sigpipe, sent);
    }
    if (sent == -EAGAIN) {
        casync__watcher_start(&stream->endpoint.watcher, CASYNC__FD_WRITE);
        return false;
    }
    if (sent == -EPIPE || sent == -ECONNRESET) {
        casync__stream_end(stream, sent);
        return false;
    }
    if (sent > 0) {
        op->as.file.left -= sent;
        op->done += (size_t)sent;
        return true;
    }
    stream->write_side = CASYNC__STREAM_WRITE_OPEN;
    casync__op_done(op, sent < 0 ? sent : (int64_t)op->done, NULL);
    return true;
}

static void casync__stream_sendfile_abandon(casync_op *op) {
    ((casync_stream *)op->owner)->write_side = CASYNC__STREAM_WRITE_OPEN;
}

/* Nothing is queued: write_all and sendfile operations go on. True if they are through, and nothing
   is queued still. */
static bool casync__stream_feed(casync_stream *stream) {
    casync_op *op;
    int pieces = 0;
    while ((op = casync__stream_first_write(stream)) != NULL) {
        bool is_file = op->kind == CASYNC__OP_SENDFILE;
        if (!is_file && op->done == op->as.buffer.size) {
            casync__op_done(op, (int64_t)op->as.buffer.size, NULL);
        } else if (pieces++ == CASYNC__STREAM_WRITES_MAX) {
            /* in the next turn: others want theirs */
            casync__watcher_start(&stream->endpoint.watcher, CASYNC__FD_WRITE);
            return false;
        } else if (!(is_file ? casync__stream_feed_file(stream, op)
                             : casync__stream_feed_piece(stream, op))) {
            return false;
        }
        if (stream->out.size > 0) return false;
    }
    return true;
}

/* Everything queued is sent: now the end of the stream can be. */
static void casync__stream_all_sent(casync_stream *stream) {
    casync__watcher_stop(&stream->endpoint.watcher, CASYNC__FD_WRITE);
    if (!casync__stream_feed(stream)) return;
    if (stream->endpoint.state == CASYNC__ENDPOINT_FINISHING)
        casync__stream_end(stream, 0);
    else if (stream->write_side == CASYNC__STREAM_WRITE_EOF_ASKED)
        casync__stream_send_eof(stream);
}

static void casync__stream_flush_out(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__weakref weak;
    int64_t result;
    casync__weakref_begin(loop, &weak, stream);
    result = casync_outbuf_flush(&stream->out, stream->endpoint.watcher.fd,
                                 casync__stream_is_socket(stream));
    if (!weak.gone && result < 0 && result != -EAGAIN) casync__stream_end(stream, result);
    if (!weak.gone && casync__stream_is_connected(stream))
        casync__endpoint_resume_if_drained(&stream->endpoint);
    if (!casync__weakref_end(loop, &weak) || !casync__stream_is_connected(stream)) return;
    if (stream->out.size == 0)
        casync__stream_all_sent(stream);
    else
        casync__watcher_start(&stream->endpoint.watcher, CASYNC__FD_WRITE);
}

/* Why the user may not write. */
static int64_t casync__stream_refuse_write(const casync_stream *stream) {
    if (!casync__endpoint_has_fd(casync__stream_endpoint(stream)) ||
        stream->endpoint.state == CASYNC__ENDPOINT_CONNECTING)
        return CASYNC_INVALID_STATE;
    if (stream->endpoint.state == CASYNC__ENDPOINT_OPEN &&
        stream->write_side == CASYNC__STREAM_WRITE_FILE)
        return -EBUSY;
    return stream->endpoint.state == CASYNC__ENDPOINT_ENDED && stream->endpoint.error < 0
               ? stream->endpoint.error
               : -EPIPE;
}

/* May the user write? */
static inline int64_t casync__stream_check_write(const casync_stream *stream) {
    bool may = stream && stream->endpoint.state == CASYNC__ENDPOINT_OPEN &&
               stream->write_side == CASYNC__STREAM_WRITE_OPEN;
    return may ? 0 : casync__stream_refuse_write(stream);
}

/* What the descriptor takes at once: 0 if nothing, or if bytes before these still wait. */
static int64_t casync__stream_send_now(casync_stream *stream, const casync_span *spans,
                                       size_t count) {
    int64_t sent;
    if (stream->out.size > 0) return 0;
    sent = casync__spans_write(stream->endpoint.watcher.fd, casync__stream_is_socket(stream), spans,
                               count < CASYNC__SPANS_MAX ? count : CASYNC__SPANS_MAX);
    if (sent == -EAGAIN) return 0;
    if (sent < 0) casync__stream_end(stream, sent);
    return sent;
}

/* Bytes were queued: they go when the descriptor is writable. */
static void casync__stream_out_queued(casync_stream *stream) {
    casync__watcher_start(&stream->endpoint.watcher, CASYNC__FD_WRITE);
    casync__endpoint_pause_if_full(&stream->endpoint);
}

/* Sends spans to the descriptor, past any filter. */
static inline int64_t casync__stream_send(casync_stream *stream, const casync_span *spans,
                                          size_t count) {
    size_t size = casync__spans_size(spans, count);
    int64_t total = (int64_t)size, sent;
    if (size == 0) return 0;
    if (size > CASYNC__BUFFER_SIZE_MAX) return -EINVAL;
    sent = casync__stream_send_now(stream, spans, count);
    if (sent < 0 || sent == total) return sent;
    if (casync__outbuf_append_after(&stream->out, spans, count, (size_t)sent) < 0)
        return sent > 0 ? sent : -ENOMEM;
    casync__stream_out_queued(stream);
    return total;
}

/* Through the filter, if there is one. */
CASYNC__LINKAGE int64_t casync_writev(casync_stream *stream, const casync_span *spans,
                                      size_t count) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__weakref weak;
    int64_t total, result = casync__stream_check_write(stream);
    if (result < 0) return result;
    if (!spans && count > 0) return -EINVAL;
    CASYNC_ASSERT(casync__loop_in_thread(loop));
    if (!stream->filter || !stream->filter->write) return casync__stream_send(stream, spans, count);
    total = (int64_t)casync__spans_size(spans, count);
    if (total < 0 || (size_t)total > CASYNC__BUFFER_SIZE_MAX) return -EINVAL;
    casync__weakref_begin(loop, &weak, stream);
    result = stream->filter->write(stream->filter, spans, count);
    if (casync__weakref_end(loop, &weak) && result < 0) casync__stream_end(stream, result);
    return result < 0 ? result : total;
}

CASYNC__LINKAGE int64_t casync_write(casync_stream *stream, const void *data, size_t size) {
    casync_span span = casync__span_make(data, size);
    return casync_writev(stream, &span, 1);
}

CASYNC__LINKAGE int64_t casync_write_ref(casync_stream *stream, const void *data, size_t size,
                                         casync_release release, void *arg) {
    casync_span span = casync__span_make(data, size);
    int64_t sent = casync__stream_check_write(stream);
    if (sent < 0) return sent;
    if (size < CASYNC_REFERENCE_MIN || (stream->filter && stream->filter->write)) {
        sent = casync_writev(stream, &span, 1);
        if (sent == (int64_t)size && release) release(arg);
        return sent;
    }
    if (!data || size > CASYNC__BUFFER_SIZE_MAX) return -EINVAL;
    sent = casync__stream_send_now(stream, &span, 1);
    if (sent < 0) return sent;
    if (sent == (int64_t)size) {
        if (release) release(arg);
        return sent;
    }
    if (casync_outbuf_append_ref(&stream->out, (const uint8_t *)data + sent, size - (size_t)sent,
                                 release, arg) < 0)
        return sent > 0 ? sent : -ENOMEM;
    casync__stream_out_queued(stream);
    return (int64_t)size;
}

CASYNC__LINKAGE int64_t casync_try_write(casync_stream *stream, const void *data, size_t size) {
    casync_span span = casync__span_make(data, size);
    int64_t sent = casync__stream_check_write(stream);
    if (sent < 0 || size == 0) return sent;
    if (!data || size > CASYNC__BUFFER_SIZE_MAX) return -EINVAL;
    if (stream->filter && stream->filter->write) return -EOPNOTSUPP;
    sent = casync__stream_send_now(stream, &span, 1);
    return sent == 0 ? -EAGAIN : sent;
}

/* A part of a frame is worth nothing: what follows would be read as the rest of it. */
CASYNC__LINKAGE int64_t casync_write_frame(casync_stream *stream, const casync_framing *framing,
                                           const void *data, size_t size) {
    uint8_t bytes[8];
    casync_span spans[2];
    int64_t prefix = casync__framing_spans(framing, data, size, bytes, spans), result;
    if (prefix < 0) return prefix;
    result = casync_writev(stream, spans, 2);
    if (result < 0 || result - prefix == (int64_t)size) return result < 0 ? result : (int64_t)size;
    casync__stream_end(stream, -ENOMEM);
    return -ENOMEM;
}

CASYNC__LINKAGE casync_future *casync_write_all_op(casync_stream *stream, casync_op *op,
                                                   const void *data, size_t size) {
    int64_t state = casync__stream_check_write(stream);
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__stream_loop(stream), op, CASYNC__OP_WRITE_ALL);
    if (state == 0 && ((!data && size > 0) || size > CASYNC__BUFFER_SIZE_MAX)) state = -EINVAL;
    if (state < 0) return casync__op_done(op, state, NULL);
    op->owner = stream;
    op->as.buffer.data = (uint8_t *)(uintptr_t)data;
    op->as.buffer.size = size;
    casync__list_append(&stream->endpoint.waiting, &op->link);
    if (stream->out.size == 0) (void)casync__stream_feed(stream);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_write_all(casync_stream *stream, const void *data, size_t size) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__stream_loop(stream),
                            casync_write_all_op(stream, &op, data, size));
}

CASYNC__LINKAGE int64_t casync_write_all_timeout(casync_stream *stream, const void *data,
                                                 size_t size, int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__stream_loop(stream),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0 ? result : casync_timeout_end(&scope, casync_write_all(stream, data, size));
}

CASYNC__LINKAGE casync_future *casync_sendfile_op(casync_stream *stream, casync_op *op, int fd,
                                                  int64_t offset, int64_t count) {
    int64_t result = casync__stream_check_write(stream);
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__stream_loop(stream), op, CASYNC__OP_SENDFILE);
    if (result == 0 && (offset < 0 || count < 0)) result = -EINVAL;
    if (result == 0 && stream->filter) result = -EOPNOTSUPP;
    if (result == 0 && casync__stream_first_write(stream)) result = -EBUSY;
    if (result < 0) return casync__op_done(op, result, NULL);
    op->owner = stream;
    op->as.file.fd = fd;
    op->as.file.offset = offset;
    op->as.file.left =
        count > 0 && count < CASYNC__STREAM_SENDFILE_TOTAL ? count : CASYNC__STREAM_SENDFILE_TOTAL;
    casync__list_append(&stream->endpoint.waiting, &op->link);
    stream->write_side = CASYNC__STREAM_WRITE_FILE;
    if (stream->out.size == 0) (void)casync__stream_feed(stream);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_set_write_limits(casync_stream *stream, size_t high, size_t low) {
    return casync__endpoint_set_write_limits(casync__stream_endpoint(stream), high, low);
}

/* The user is done writing: a filter has a last word. False if that ended the stream. */
static bool casync__stream_filter_write_eof(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__weakref weak;
    int64_t result;
    if (!stream->filter || !stream->filter->write_eof) return true;
    if (stream->write_side != CASYNC__STREAM_WRITE_OPEN) return true;
    casync__weakref_begin(loop, &weak, stream);
    result = stream->filter->write_eof(stream->filter);
    if (!casync__weakref_end(loop, &weak)) return false;
    if (result < 0) casync__stream_end(stream, result);
    return casync__stream_is_connected(stream);
}

CASYNC__LINKAGE int64_t casync_write_eof(casync_stream *stream) {
    int64_t result = casync__stream_check_write(stream);
    if (result < 0)
        return result == -EPIPE && stream->write_side != CASYNC__STREAM_WRITE_OPEN ? 0 : result;
    if (!casync__stream_is_socket(stream)) return -EOPNOTSUPP;
    if (!casync__stream_filter_write_eof(stream)) return 0;
    stream->write_side = CASYNC__STREAM_WRITE_EOF_ASKED;
    if (stream->out.size == 0) casync__stream_all_sent(stream);
    return 0;
}

/* -- connecting -- */

/* The file stays open if another descriptor leads to it. */
static void casync__stream_attempt_end(casync__stream_attempt *attempt, bool shared) {
    casync_loop *loop = attempt->watcher.reader.loop;
    casync__watcher_unregister(&attempt->watcher, !shared);
    casync__sys_close(attempt->watcher.fd);
    casync__list_remove(&attempt->link);
    casync__memory_free(&loop->allocator, attempt);
}

static void casync__stream_connect_forget(casync_stream *stream) {
    casync__stream_connecting *connecting = stream->connecting;
    casync_loop *loop = casync__stream_loop(stream);
    if (!connecting) return;
    stream->connecting = NULL;
    casync_timer_stop(&connecting->timer);
    casync_job_cancel(&connecting->found);
    if (connecting->lookup.future.loop) casync_future_cancel(&connecting->lookup.future);
    while (!casync__list_is_empty(&connecting->attempts))
        casync__stream_attempt_end(
            casync__container(connecting->attempts.next, casync__stream_attempt, link), false);
    casync_addrinfo_free(&connecting->info);
    loop->fds_active--;
    casync__memory_free(&loop->allocator, connecting);
}

static casync__stream_connecting *casync__stream_connect_make(casync_stream *stream) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__stream_connecting *connecting = (casync__stream_connecting *)casync__memory_realloc(
        &loop->allocator, NULL, sizeof *connecting);
    if (!connecting) return NULL;
    memset(connecting, 0, sizeof *connecting);
    casync__list_init(&connecting->attempts);
    connecting->stream = stream;
    stream->connecting = connecting;
    loop->fds_active++; /* who listens is outside: virtual time must not jump */
    return connecting;
}

/* A socket, bound to where the desc says. */
static int64_t casync__stream_connect_socket(const casync_connect_desc *desc,
                                             const casync_address *address) {
    int64_t fd = casync__sys_socket(casync__address_sockaddr(address)->sa_family), result = 0;
    if (fd < 0) return fd;
    if (desc->local_host || desc->local_port)
        result = casync__socket_bind_to((int)fd, casync__address_sockaddr(address)->sa_family,
                                        desc->local_host, desc->local_port);
    if (result == 0) return fd;
    casync__sys_close((int)fd);
    return result;
}

/* The operation that waits for the stream to be connected, or NULL. */
static casync_op *casync__stream_connect_waiting(casync_stream *stream) {
    return casync__list_is_empty(&stream->endpoint.waiting)
               ? NULL
               : casync__container(stream->endpoint.waiting.next, casync_op, link);
}

static void casync__stream_connect_failed(casync_stream *stream, int64_t error) {
    casync_op *op = casync__stream_connect_waiting(stream);
    if (!op) {
        casync__stream_end(stream, error);
        return;
    }
    casync__list_remove(&op->link); /* nobody but the operation knows of the stream yet */
    casync_close(stream);
    casync__op_done(op, error, NULL);
}

static int64_t casync__stream_connect_to(casync_stream *stream, const casync_address *address);

static void casync__stream_connect_again(void *arg) {
    casync__stream_connecting *connecting = (casync__stream_connecting *)arg;
    casync_stream *stream = connecting->stream;
    int64_t result = casync__stream_connect_to(stream, &connecting->address);
    if (result < 0) casync__stream_connect_failed(stream, result);
}

/* The listener has no place: waits a while. */
static int64_t casync__stream_connect_later(casync_stream *stream, const casync_address *address) {
    casync__stream_connecting *connecting = stream->connecting;
    if (!connecting) {
        connecting = casync__stream_connect_make(stream);
        if (!connecting) return -ENOMEM;
        connecting->address = *address;
    }
    connecting->delay =
        connecting->delay == 0 ? CASYNC__STREAM_CONNECT_RETRY_MIN : connecting->delay * 2;
    if (connecting->delay > CASYNC__STREAM_CONNECT_RETRY_MAX)
        connecting->delay = CASYNC__STREAM_CONNECT_RETRY_MAX;
    return casync__watcher_retry_later(&stream->endpoint.watcher, &connecting->timer,
                                       connecting->delay, casync__stream_connect_again, connecting);
}

/* Connects, now or soon: then the socket is writable. */
static int64_t casync__stream_connect_to(casync_stream *stream, const casync_address *address) {
    int64_t result = casync__sys_connect(stream->endpoint.watcher.fd,
                                         casync__address_sockaddr(address), address->size);
    if (result == -EAGAIN && casync__address_sockaddr(address)->sa_family == AF_UNIX)
        return casync__stream_connect_later(stream, address);
    if (result < 0 && result != -EINPROGRESS) return result;
    casync__stream_connect_forget(stream); /* the address may be in it */
    casync__watcher_start(&stream->endpoint.watcher, CASYNC__FD_WRITE);
    return 0;
}

static bool casync__stream_refused(casync_watcher *watcher, int64_t error) {
    casync_stream *stream = (casync_stream *)(void *)watcher;
    if (stream->endpoint.state == CASYNC__ENDPOINT_CONNECTING)
        casync__stream_connect_failed(stream, error);
    else
        casync__stream_end(stream, error);
    return true;
}

static void casync__stream_connected(casync_stream *stream) {
    casync_op *op = casync__stream_connect_waiting(stream);
    int64_t error = casync__socket_error(stream->endpoint.watcher.fd);
    if (error < 0) {
        casync__stream_connect_failed(stream, error);
        return;
    }
    stream->endpoint.state = CASYNC__ENDPOINT_OPEN;
    casync__watcher_stop(&stream->endpoint.watcher, CASYNC__FD_WRITE);
    casync__stream_update_reading(stream);
    if (op) casync__op_done(op, 0, NULL);
    if (stream->protocol && stream->protocol->connection_made)
        stream->protocol->connection_made(stream);
}

/* The writer's job: takes the stream's next step. */
static void casync__stream_writable(void *arg) {
    casync_stream *stream = (casync_stream *)arg;
    if (stream->endpoint.state == CASYNC__ENDPOINT_ENDED)
        stream->endpoint.kind->lost(&stream->endpoint);
    else if (stream->endpoint.state == CASYNC__ENDPOINT_CONNECTING)
        casync__stream_connected(stream);
    else
        casync__stream_flush_out(stream);
}

static void casync__connection_closed(struct casync__connection *connection);

/* -- a stream as an endpoint -- */

static inline casync_stream *casync__stream_of(const casync_endpoint *endpoint) {
    return (casync_stream *)(uintptr_t)endpoint;
}

static size_t casync__stream_queued(const casync_endpoint *endpoint) {
    return casync__stream_of(endpoint)->out.size;
}

static void casync__stream_reading(casync_endpoint *endpoint) {
    casync__stream_update_reading(casync__stream_of(endpoint));
    casync__stream_deliver_soon(casync__stream_of(endpoint));
}

static void casync__stream_tell_writing(casync_endpoint *endpoint) {
    casync_stream *stream = casync__stream_of(endpoint);
    const casync_protocol *protocol = stream->protocol;
    void (*tell)(casync_stream * stream);
    if (!protocol) return;
    tell = endpoint->writing_paused ? protocol->pause_writing : protocol->resume_writing;
    if (tell) tell(stream);
}

static void casync__stream_flush(casync_endpoint *endpoint) {
    casync_stream *stream = casync__stream_of(endpoint);
    if (casync__stream_filter_write_eof(stream) && stream->out.size == 0)
        casync__stream_all_sent(stream);
}

static void casync__stream_drop(casync_endpoint *endpoint, int64_t error) {
    casync_stream *stream = casync__stream_of(endpoint);
    casync_loop *loop = casync__endpoint_loop(endpoint);
    casync_allocator allocator = loop->allocator; /* a release may close the loop, too */
    casync_outbuf unsent = stream->out;
    casync_op *op = stream->reading;
    casync__stream_connect_forget(stream);
    stream->reading = NULL;
    if (op) casync__op_done(op, error, NULL);
    casync__endpoint_end_soon(endpoint);
    unsent.allocator = &allocator;
    casync_outbuf_init(&stream->out, &loop->allocator);
    casync_outbuf_clear(&unsent); /* last: a release may close the stream */
}

static void casync__stream_close(casync_endpoint *endpoint) {
    casync_close(casync__stream_of(endpoint));
}

static void casync__stream_lost(casync_endpoint *endpoint) {
    casync_stream *stream = casync__stream_of(endpoint);
    const casync_protocol *protocol = stream->protocol;
    struct casync__connection *connection = stream->connection;
    int64_t error = endpoint->error;
    stream->connection = NULL;
    casync__endpoint_close_ended(endpoint);
    if (protocol && protocol->connection_lost) protocol->connection_lost(stream, error);
    casync__connection_closed(connection);
}

static const casync__endpoint_kind casync__stream_kind = {
    casync__stream_queued, casync__stream_reading, casync__stream_tell_writing,
    casync__stream_flush,  casync__stream_drop,    casync__stream_close,
    casync__stream_lost};

/* -- opening -- */

static bool casync__stream_options_are_valid(const casync_stream_options *options) {
    return (!options->framing || casync__framing_is_valid(options->framing)) &&
           options->low_water <= casync__endpoint_high_water(options->high_water) &&
           casync__socket_keepalive_is_valid(options->keepalive);
}

/* Gives the stream its descriptor and its options; `what` are those that the caller knows. */
static int64_t casync__stream_begin(casync_loop *loop, casync_stream *stream, int fd,
                                    const casync_protocol *protocol,
                                    const casync_stream_options *options, int what) {
    casync_stream_options defaults;
    int64_t result;
    if (casync__endpoint_has_fd(&stream->endpoint)) return -EALREADY;
    memset(&defaults, 0, sizeof defaults);
    if (!options) options = &defaults;
    if (!casync__stream_options_are_valid(options)) return -EINVAL;
    result = casync__endpoint_begin(loop, &stream->endpoint, fd, CASYNC__WATCHER_STREAM,
                                    &casync__stream_kind, options->high_water, options->low_water);
    if (result < 0) return result;
    casync__job_init(loop, &stream->endpoint.watcher.reader, casync__stream_readable, stream);
    casync__job_init(loop, &stream->endpoint.watcher.writer, casync__stream_writable, stream);
    stream->endpoint.options =
        (uint8_t)(what | (options->keep_fd ? CASYNC__ENDPOINT_FD_KEPT : 0) |
                  (options->receive_fds ? CASYNC__ENDPOINT_RECEIVES_FDS : 0) |
                  (protocol ? CASYNC__ENDPOINT_CLOSES_ITSELF : 0));
    stream->endpoint.reading_paused = options->start_paused;

    stream->protocol = protocol;
    stream->user = options->user;
    casync_outbuf_init(&stream->out, &loop->allocator);
    stream->filter = NULL;
    stream->connection = NULL;
    stream->connecting = NULL;
    stream->passed_fds = NULL;
    stream->read_limit = options->read_limit ? options->read_limit : CASYNC__STREAM_READ_LIMIT;
    if (stream->read_limit > CASYNC__STREAM_READ_LIMIT_MAX)
        stream->read_limit = CASYNC__STREAM_READ_LIMIT_MAX;
    stream->framing = options->framing;
    stream->reading = NULL;
    stream->read_side = CASYNC__STREAM_READ_OPEN;
    stream->write_side = CASYNC__STREAM_WRITE_OPEN;
    stream->more = stream->frame_lent = stream->delivering = stream->read_by_ops =
        stream->end_waits = stream->loss_told = false;
    return 0;
}

/* Takes back a begin: the descriptor is the caller's again. */
static void casync__stream_undo(casync_stream *stream) {
    casync__stream_connect_forget(stream);
    stream->endpoint.options |= CASYNC__ENDPOINT_FD_KEPT;
    casync__endpoint_give_fd_back(&stream->endpoint);
    stream->endpoint.state = CASYNC__ENDPOINT_CLOSED;
}

/* What is no socket is registered at once: epoll tells a regular file. */
static int64_t casync__stream_probe(casync_loop *loop, casync_stream *stream) {
    int64_t result;
    casync__watcher_set_wanted(&stream->endpoint.watcher, CASYNC__FD_READ);
    result = loop->backend->submit(loop, &stream->endpoint.watcher);
    if (result == 0) result = casync__fd_is_pipe_writer(stream->endpoint.watcher.fd);
    if (result > 0) stream->endpoint.options |= CASYNC__ENDPOINT_IS_PIPE_WRITER;
    return result < 0 ? result : 0;
}

/* Makes a descriptor of the user's such as the library needs it. */
static int64_t casync__stream_prepare_fd(casync_stream *stream, int64_t family,
                                         const casync_stream_options *options) {
    int fd = stream->endpoint.watcher.fd;
    int64_t result = casync__fd_set_blocking(fd, false);
    if (result > 0) stream->endpoint.options |= CASYNC__ENDPOINT_FD_WAS_BLOCKING;
    if (result >= 0 && (!options || !options->keep_fd)) result = casync__fd_set_cloexec(fd);
    if (result >= 0 && casync__address_family_is_inet(family))
        casync__socket_set_tcp_options(fd, options);
    return result;
}

CASYNC__LINKAGE int64_t casync_stream_open(casync_loop *loop, casync_stream *stream, int fd,
                                           const casync_protocol *protocol,
                                           const casync_stream_options *options) {
    int64_t family, result;
    if (!stream) return -EINVAL;
    if (casync__loop_is_closed(loop)) return -EINVAL;
    if (options && options->accepted) {
        result = casync__stream_begin(loop, stream, fd, protocol, options,
                                      CASYNC__ENDPOINT_IS_SOCKET | CASYNC__ENDPOINT_FD_UNSHARED);
        if (result == 0) casync__stream_update_reading(stream);
        return result;
    }
    family = casync__socket_family(fd);
    if (family < 0 && family != -ENOTSOCK) return family;
    result = casync__stream_begin(loop, stream, fd, protocol, options,
                                  family >= 0 ? CASYNC__ENDPOINT_IS_SOCKET : 0);
    if (result < 0) return result;
    if (family < 0) result = casync__stream_probe(loop, stream);
    if (result == 0) result = casync__stream_prepare_fd(stream, family, options);
    if (result < 0) {
        casync__stream_undo(stream);
        return result;
    }
    casync__stream_update_reading(stream);
    return 0;
}

/* Makes a pair of descriptors and opens both ends, or none. */
static int64_t casync__stream_open_pair(casync_loop *loop, casync_stream *a, casync_stream *b,
                                        int64_t (*make)(int fds[2]),
                                        const casync_protocol *protocol,
                                        const casync_stream_options *options) {
    int fds[2];
    int64_t result;
    if (casync__loop_is_closed(loop) || !a || !b) return -EINVAL;
    result = make(fds);
    if (result < 0) return result;
    result = casync_stream_open(loop, a, fds[0], protocol, options);
    if (result < 0) {
        casync__sys_close(fds[0]);
        casync__sys_close(fds[1]);
        return result;
    }
    result = casync_stream_open(loop, b, fds[1], protocol, options);
    if (result < 0) {
        casync_close(a);
        casync__sys_close(fds[1]);
        return result;
    }
    a->endpoint.options |= CASYNC__ENDPOINT_FD_UNSHARED;
    b->endpoint.options |= CASYNC__ENDPOINT_FD_UNSHARED;
    return 0;
}

CASYNC__LINKAGE int64_t casync_socketpair(casync_loop *loop, casync_stream *a, casync_stream *b,
                                          const casync_protocol *protocol,
                                          const casync_stream_options *options) {
    return casync__stream_open_pair(loop, a, b, casync__sys_socketpair, protocol, options);
}

CASYNC__LINKAGE int64_t casync_pipe(casync_loop *loop, casync_stream *reader, casync_stream *writer,
                                    const casync_protocol *protocol,
                                    const casync_stream_options *options) {
    return casync__stream_open_pair(loop, reader, writer, casync__sys_pipe, protocol, options);
}

/* -- connecting to one of several addresses -- */

#define CASYNC__STREAM_ATTEMPT_DELAY CASYNC_MS(250) /* RFC 8305, section 8 */
#define CASYNC__STREAM_ATTEMPT_DELAY_MIN CASYNC_MS(10)

/* The next address to try, of the families by turns; or NULL. */
static const casync_address *
casync__stream_connecting_next_address(casync__stream_connecting *connecting) {
    const casync_addrinfo *info = &connecting->info;
    int first = casync__address_sockaddr(&info->addresses[0])->sa_family, tries;
    for (tries = 0; tries < 2; tries++) {
        int turn = connecting->turn;
        connecting->turn = !turn;
        while (connecting->cursor[turn] < info->count) {
            const casync_address *address = &info->addresses[connecting->cursor[turn]++];
            if ((casync__address_sockaddr(address)->sa_family != first) == turn) return address;
        }
    }
    return NULL;
}

static void casync__stream_connecting_note(casync__stream_connecting *connecting,
                                           const casync_address *address, int64_t error) {
    char *errors = connecting->desc.errors, text[CASYNC_ADDRESS_TEXT];
    size_t size = connecting->desc.errors_size, used = errors && size > 0 ? strlen(errors) : 0;
    connecting->error = error;
    if (used + 1 < size)
        snprintf(errors + used, size - used, "%s%s: %s", used ? "; " : "",
                 casync_address_text(address, text), casync_strerror(error));
}

static void casync__stream_attempt_writable(void *arg);

/* Begins to connect to one address. */
static int64_t casync__stream_attempt_start(casync__stream_connecting *connecting,
                                            const casync_address *address) {
    casync_loop *loop = casync__stream_loop(connecting->stream);
    int64_t fd = casync__stream_connect_socket(&connecting->desc, address), result;
    casync__stream_attempt *attempt;
    if (fd < 0) return fd;
    casync__socket_set_tcp_options((int)fd, &connecting->options);
    attempt =
        (casync__stream_attempt *)casync__memory_realloc(&loop->allocator, NULL, sizeof *attempt);
    result = attempt
                 ? casync__sys_connect((int)fd, casync__address_sockaddr(address), address->size)
                 : -ENOMEM;
    if (result == 0 || result == -EINPROGRESS) {
        memset(attempt, 0, sizeof *attempt);
        attempt->connecting = connecting;
        attempt->address = address;
        casync_watcher_ref(&attempt->watcher, !(connecting->stream->endpoint.watcher.flags &
                                                CASYNC__WATCHER_UNREFERENCED));
        result = casync__watcher_add(loop, &attempt->watcher, CASYNC__WATCHER_ATTEMPT, (int)fd,
                                     CASYNC__FD_WRITE, casync__stream_attempt_writable, attempt);
    }
    if (result == 0) {
        casync__list_append(&connecting->attempts, &attempt->link);
        return 0;
    }
    casync__sys_close((int)fd);
    casync__memory_free(&loop->allocator, attempt);
    return result;
}

/* Begins the next attempt, which those under way go on beside. */
static void casync__stream_connecting_go_on(void *arg) {
    casync__stream_connecting *connecting = (casync__stream_connecting *)arg;
    casync_stream *stream = connecting->stream;
    const casync_address *address;
    casync_timer_stop(&connecting->timer);
    while ((address = casync__stream_connecting_next_address(connecting)) != NULL) {
        int64_t delay = connecting->desc.attempt_delay,
                result = casync__stream_attempt_start(connecting, address);
        if (result < 0) {
            casync__stream_connecting_note(connecting, address, result);
            continue;
        }
        if (delay == CASYNC_FOREVER) return;
        result = casync__watcher_retry_later(&stream->endpoint.watcher, &connecting->timer, delay,
                                             casync__stream_connecting_go_on, connecting);
        if (result == 0) return; /* else there is no memory for a timer: the next begins now */
    }
    if (casync__list_is_empty(&connecting->attempts))
        casync__stream_connect_failed(stream, connecting->error);
}

static void casync__stream_attempt_failed(casync__stream_attempt *attempt, int64_t error) {
    casync__stream_connecting *connecting = attempt->connecting;
    casync__stream_connecting_note(connecting, attempt->address, error);
    casync__stream_attempt_end(attempt, false);
    casync__stream_connecting_go_on(connecting);
}

static bool casync__stream_attempt_refused(casync_watcher *watcher, int64_t error) {
    casync__stream_attempt_failed(casync__container(watcher, casync__stream_attempt, watcher),
                                  error);
    return true;
}

/* The first to connect wins: its file goes where the stream's descriptor is. */
static void casync__stream_attempt_writable(void *arg) {
    casync__stream_attempt *attempt = (casync__stream_attempt *)arg;
    casync_stream *stream = attempt->connecting->stream;
    int fd = attempt->watcher.fd;
    int64_t result = casync__socket_error(fd);
    if (result == 0) {
        result = casync__sys_dup3(fd, stream->endpoint.watcher.fd);
        if (result >= 0) casync__stream_attempt_end(attempt, true);
    }
    if (result < 0) {
        casync__stream_attempt_failed(attempt, result);
        return;
    }
    casync__stream_connect_forget(stream);
    casync__stream_connected(stream);
}

/* The name was looked up. */
static void casync__stream_connecting_found(void *arg) {
    casync__stream_connecting *connecting = (casync__stream_connecting *)arg;
    int64_t result = connecting->info.count > 0 ? 0 : connecting->lookup.future.result;
    if (result < 0)
        casync__stream_connect_failed(connecting->stream, result);
    else
        casync__stream_connecting_go_on(connecting);
}

/* Copies what is needed after the call that begins to connect. */
static int64_t casync__stream_connecting_copy_desc(casync__stream_connecting *connecting,
                                                   const casync_connect_desc *desc) {
    connecting->desc = *desc;
    if (desc->options) connecting->options = *desc->options;
    if (desc->attempt_delay == 0) connecting->desc.attempt_delay = CASYNC__STREAM_ATTEMPT_DELAY;
    if (desc->errors && desc->errors_size > 0) desc->errors[0] = 0;
    if (!desc->local_host) return 0;
    if (strlen(desc->local_host) >= sizeof connecting->local_host) return -EINVAL;
    snprintf(connecting->local_host, sizeof connecting->local_host, "%s", desc->local_host);
    connecting->desc.local_host = connecting->local_host;
    return 0;
}

/* Learns the addresses: soon, or now from the desc. */
static int64_t casync__stream_connecting_look_up(casync__stream_connecting *connecting,
                                                 int family) {
    casync_loop *loop = casync__stream_loop(connecting->stream);
    const casync_connect_desc *desc = &connecting->desc;
    casync_getaddrinfo_desc question;
    int64_t result;
    if (desc->addresses) {
        casync__job_init(loop, &connecting->found, casync__stream_connecting_found, connecting);
        connecting->found.flags = CASYNC__JOB_INTERNAL;
        result =
            casync__name_addrinfo_make(&connecting->info, &loop->allocator, desc->address_count, 0);
        if (result < 0) return result;
        memcpy(connecting->info.addresses, desc->addresses,
               desc->address_count * sizeof *desc->addresses);
        casync__job_make_ready(loop, &connecting->found);
        return 0;
    }
    memset(&question, 0, sizeof question);
    question.host = desc->host;
    question.port = desc->port;
    question.family = family;
    casync_getaddrinfo_op(loop, &connecting->info, &connecting->lookup, &question);
    if (connecting->lookup.future.state != CASYNC_FUTURE_PENDING)
        return connecting->lookup.future.result;
    result = casync_future_add_done_callback(&connecting->lookup.future, &connecting->found,
                                             casync__stream_connecting_found, connecting);
    connecting->found.flags |= CASYNC__JOB_INTERNAL;
    return result;
}

/* Connects to the first of several addresses that answers. `family` is that of local_host, or 0. */
static int64_t casync__stream_connect_to_any(casync_loop *loop, casync_stream *stream,
                                             const casync_connect_desc *desc, int family) {
    int64_t fd = casync__sys_socket(AF_UNIX), result;
    casync__stream_connecting *connecting;
    if (fd < 0) return fd;
    result = casync__stream_begin(loop, stream, (int)fd, desc->protocol, desc->options,
                                  CASYNC__ENDPOINT_IS_SOCKET | CASYNC__ENDPOINT_FD_UNSHARED);
    if (result == 0) {
        stream->endpoint.state = CASYNC__ENDPOINT_CONNECTING;
        connecting = casync__stream_connect_make(stream);
        result = connecting ? casync__stream_connecting_copy_desc(connecting, desc) : -ENOMEM;
        if (result == 0) result = casync__stream_connecting_look_up(connecting, family);
        if (result < 0) casync__stream_undo(stream);
    }
    if (result < 0) casync__sys_close((int)fd);
    return result;
}

/* The family of an address in numbers, 0 for none, or an error. */
static int64_t casync__address_family_of_host(const char *host) {
    casync_address address;
    int64_t result;
    if (!host) return 0;
    result = casync__address_parse_host(host, 0, &address);
    return result < 0 ? result : casync__address_sockaddr(&address)->sa_family;
}

static int64_t casync__stream_connect_to_one(casync_loop *loop, casync_stream *stream,
                                             const casync_connect_desc *desc,
                                             const casync_address *address) {
    int64_t fd = casync__stream_connect_socket(desc, address), result;
    if (fd < 0) return fd;
    result = casync__stream_begin(loop, stream, (int)fd, desc->protocol, desc->options,
                                  CASYNC__ENDPOINT_IS_SOCKET | CASYNC__ENDPOINT_FD_UNSHARED);
    if (result == 0) {
        stream->endpoint.state = CASYNC__ENDPOINT_CONNECTING;
        if (!desc->path) casync__socket_set_tcp_options((int)fd, desc->options);
        result = casync__stream_connect_to(stream, address);
        if (result < 0) casync__stream_undo(stream);
    }
    if (result < 0) casync__sys_close((int)fd);
    return result;
}

CASYNC__LINKAGE int64_t casync_connect_start(casync_loop *loop, casync_stream *stream,
                                             const casync_connect_desc *desc) {
    casync_address address;
    int64_t result, local_family;
    if (casync__loop_is_closed(loop) || !stream || !desc) return -EINVAL;
    if (casync__endpoint_has_fd(casync__stream_endpoint(stream))) return -EALREADY;
    if (desc->attempt_delay != 0 && desc->attempt_delay < CASYNC__STREAM_ATTEMPT_DELAY_MIN)
        return -EINVAL;
    if (desc->addresses && desc->address_count == 0) return -EINVAL;
    local_family = casync__address_family_of_host(desc->local_host);
    if (local_family < 0) return local_family;
    if (desc->path)
        result = casync__address_parse_path(desc->path, &address);
    else if (desc->addresses)
        result = CASYNC_NOT_NUMERIC;
    else
        result =
            casync__address_parse_host(desc->host ? desc->host : "127.0.0.1", desc->port, &address);
    if (result == CASYNC_NOT_NUMERIC)
        return casync__stream_connect_to_any(loop, stream, desc, (int)local_family);
    return result < 0 ? result : casync__stream_connect_to_one(loop, stream, desc, &address);
}

CASYNC__LINKAGE casync_future *casync_connect_op(casync_loop *loop, casync_stream *stream,
                                                 casync_op *op, const casync_connect_desc *desc) {
    int64_t result;
    if (!op) return &casync__future_invalid;
    casync__op_begin(loop, op, CASYNC__OP_CONNECT);
    op->owner = stream;
    result = casync_connect_start(loop, stream, desc);
    if (result < 0) return casync__op_done(op, result, NULL);
    casync__list_append(&stream->endpoint.waiting, &op->link);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_connect(casync_loop *loop, casync_stream *stream,
                                       const casync_connect_desc *desc) {
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_connect_op(loop, stream, &op, desc));
}

CASYNC__LINKAGE int64_t casync_connect_timeout(casync_loop *loop, casync_stream *stream,
                                               const casync_connect_desc *desc, int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(loop, casync_timeout_begin(&scope, timeout));
    return result < 0 ? result : casync_timeout_end(&scope, casync_connect(loop, stream, desc));
}

CASYNC__LINKAGE int64_t casync_receive_fd(casync_stream *stream) {
    casync__stream_passed_fds *passed = stream ? stream->passed_fds : NULL;
    int fd;
    if (!passed || passed->count == 0) return -EAGAIN;
    fd = passed->fds[passed->first];
    passed->first = (passed->first + 1) % CASYNC__STREAM_PASSED_FDS_WAITING;
    passed->count--;
    return fd;
}

/* Closes what nobody asked for. */
static void casync__stream_drop_passed_fds(casync_stream *stream) {
    int64_t fd;
    while ((fd = casync_receive_fd(stream)) >= 0) casync__sys_close((int)fd);
    casync__memory_free(&casync__stream_loop(stream)->allocator, stream->passed_fds);
    stream->passed_fds = NULL;
}

static void casync__stream_close_with(casync_stream *stream, bool tells) {
    casync_loop *loop = casync__stream_loop(stream);
    casync_filter *filter = stream->filter;
    struct casync__connection *connection = stream->connection;
    casync_allocator allocator = loop->allocator; /* a release may close the loop, too */
    casync_outbuf unsent = stream->out;
    casync__weakref weak;
    casync__endpoint_loss loss;
    casync__endpoint_loss_measure(&loss, tells ? unsent.size : 0, stream->endpoint.watcher.fd);
    unsent.allocator = &allocator;
    casync_outbuf_init(&stream->out, &loop->allocator);
    casync__endpoint_close(&stream->endpoint);
    casync__stream_free_input(stream);
    casync__stream_drop_passed_fds(stream);
    stream->filter = NULL;
    stream->connection = NULL;
    if (filter && filter->close) filter->close(filter);
    casync__connection_closed(connection);
    /* Last, as these may use the stream's struct again, and a release may close the loop. */
    casync__weakref_begin(loop, &weak, loop);
    casync_outbuf_clear(&unsent);
    if (weak.gone) return;
    casync__weakref_end(loop, &weak);
    casync__endpoint_loss_report(loop, &loss, "a stream was closed before all was sent");
}

CASYNC__LINKAGE void casync_close(casync_stream *stream) {
    if (!casync__endpoint_has_fd(casync__stream_endpoint(stream))) return;
    casync__stream_close_with(stream, !stream->loss_told);
}

CASYNC__LINKAGE void casync_close_reset(casync_stream *stream) {
    struct linger reset = {1, 0};
    if (!casync__endpoint_has_fd(casync__stream_endpoint(stream))) return;
    /* what is no socket has nothing to be reset */
    (void)casync__sys_setsockopt(stream->endpoint.watcher.fd, SOL_SOCKET, SO_LINGER, &reset,
                                 sizeof reset);
    casync__stream_close_with(stream, false);
}

CASYNC__LINKAGE int64_t casync_abort(casync_stream *stream) {
    return casync__endpoint_abort(casync__stream_endpoint(stream));
}

CASYNC__LINKAGE casync_future *casync_finish_op(casync_stream *stream, casync_op *op) {
    return casync__endpoint_finish(casync__stream_endpoint(stream), op);
}

CASYNC__LINKAGE int64_t casync_finish(casync_stream *stream) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__stream_loop(stream), casync_finish_op(stream, &op));
}

/* When time is up the caller hears by that error, and need not by a report, that bytes are lost. */
CASYNC__LINKAGE int64_t casync_finish_timeout(casync_stream *stream, int64_t timeout) {
    casync_op op;
    casync_waiter waiter;
    int64_t result;
    if (!casync__fiber_current(casync__stream_loop(stream)))
        return casync__await_forbidden(casync__stream_loop(stream), __func__);
    memset(&waiter, 0, sizeof waiter);
    waiter.future = casync_finish_op(stream, &op);
    if (casync_future_done(waiter.future)) return casync_future_result(waiter.future);
    result = casync_wait(&waiter, 1, CASYNC_ALL_COMPLETED, timeout);
    if (result == 1) return casync_future_result(waiter.future);
    if (result == 0) stream->loss_told = true;
    casync_future_cancel(waiter.future);
    return result == 0 ? -ETIMEDOUT : result;
}

CASYNC__LINKAGE bool casync_stream_is_open(const casync_stream *stream) {
    return casync__endpoint_is_open(casync__stream_endpoint(stream));
}

CASYNC__LINKAGE int64_t casync_set_protocol(casync_stream *stream,
                                            const casync_protocol *protocol) {
    if (!casync_stream_is_open(stream)) return CASYNC_INVALID_STATE;
    if (stream->reading) return -EBUSY;
    stream->protocol = protocol;
    if (stream->endpoint.state != CASYNC__ENDPOINT_FINISHING) {
        stream->endpoint.options &= (uint8_t)~CASYNC__ENDPOINT_CLOSES_ITSELF;
        if (protocol) stream->endpoint.options |= CASYNC__ENDPOINT_CLOSES_ITSELF;
    }
    casync__stream_reading(&stream->endpoint);
    return 0;
}

CASYNC__LINKAGE void casync_stream_ref(casync_stream *stream, bool referenced) {
    casync__stream_connecting *connecting = stream ? stream->connecting : NULL;
    casync_link *link;
    if (!stream) return;
    casync_watcher_ref(&stream->endpoint.watcher, referenced);
    if (!casync__endpoint_has_fd(&stream->endpoint) || !connecting) return;
    casync_timer_ref(&connecting->timer, referenced);
    for (link = connecting->attempts.next; link != &connecting->attempts; link = link->next)
        casync_watcher_ref(&casync__container(link, casync__stream_attempt, link)->watcher,
                           referenced);
}

/* The stream goes with it, and may free op. */
static void casync__stream_connect_abandon(casync_op *op) {
    casync_close((casync_stream *)op->owner);
}

/* -- reading and writing by operations -- */

static bool casync__stream_may_read_by_ops(const casync_stream *stream) {
    return casync__endpoint_has_fd(casync__stream_endpoint(stream)) &&
           stream->endpoint.state != CASYNC__ENDPOINT_CONNECTING &&
           !casync__stream_protocol_reads(stream);
}

static casync_future *casync__stream_start_read(casync_stream *stream, casync_op *op) {
    op->owner = stream;
    if (!casync__stream_may_read_by_ops(stream))
        return casync__op_done(op, CASYNC_INVALID_STATE, NULL);
    if (stream->reading) return casync__op_done(op, -EBUSY, NULL);
    if (stream->endpoint.state == CASYNC__ENDPOINT_FINISHING)
        return casync__op_done(op, -ECONNABORTED, NULL);
    stream->frame_lent = stream->end_waits = false;
    stream->read_by_ops = true;
    casync__stream_free_lent(stream);
    if (casync__input_size(stream->input) == 0) casync__stream_free_input(stream);
    stream->reading = op;
    casync__stream_serve_read(stream);
    if (!stream->reading) return &op->future;
    casync__stream_update_reading(stream);
    /* By the ready queue, not here: a callback that is running may be using the loop's scratch. */
    if (stream->more)
        casync__job_make_ready(casync__stream_loop(stream), &stream->endpoint.watcher.reader);
    return &op->future;
}

static casync_future *casync__stream_start_read_to(casync_stream *stream, casync_op *op, int kind,
                                                   void *buffer, size_t size) {
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__stream_loop(stream), op, kind);
    if (!buffer && size > 0) return casync__op_done(op, -EINVAL, NULL);
    if (size == 0 &&
        casync__stream_may_read_by_ops(stream)) /* as asyncio's readexactly(0): nothing to
                                                      wait for */
        return casync__op_done(
            op, stream->endpoint.state == CASYNC__ENDPOINT_ENDED ? stream->endpoint.error : 0,
            NULL);
    op->as.buffer.data = (uint8_t *)buffer;
    op->as.buffer.size = size;
    return casync__stream_start_read(stream, op);
}

CASYNC__LINKAGE casync_future *casync_read_op(casync_stream *stream, casync_op *op, void *buffer,
                                              size_t size) {
    return casync__stream_start_read_to(stream, op, CASYNC__OP_READ, buffer, size);
}

CASYNC__LINKAGE int64_t casync_read(casync_stream *stream, void *buffer, size_t size) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__stream_loop(stream), casync_read_op(stream, &op, buffer, size));
}

CASYNC__LINKAGE int64_t casync_read_timeout(casync_stream *stream, void *buffer, size_t size,
                                            int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__stream_loop(stream),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0 ? result : casync_timeout_end(&scope, casync_read(stream, buffer, size));
}

CASYNC__LINKAGE casync_future *casync_read_exactly_op(casync_stream *stream, casync_op *op,
                                                      void *buffer, size_t size) {
    return casync__stream_start_read_to(stream, op, CASYNC__OP_READ_EXACTLY, buffer, size);
}

CASYNC__LINKAGE int64_t casync_read_exactly(casync_stream *stream, void *buffer, size_t size) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__stream_loop(stream),
                            casync_read_exactly_op(stream, &op, buffer, size));
}

CASYNC__LINKAGE int64_t casync_read_exactly_timeout(casync_stream *stream, void *buffer,
                                                    size_t size, int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__stream_loop(stream),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0 ? result
                      : casync_timeout_end(&scope, casync_read_exactly(stream, buffer, size));
}

CASYNC__LINKAGE casync_future *casync_read_frame_op(casync_stream *stream, casync_op *op,
                                                    const casync_framing *framing) {
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__stream_loop(stream), op, CASYNC__OP_READ_FRAME);
    if (!framing || !casync__framing_is_valid(framing)) return casync__op_done(op, -EINVAL, NULL);
    op->as.framing = *framing;
    if (stream && stream->input) stream->input->scanned = 0; /* that was another delimiter's */
    return casync__stream_start_read(stream, op);
}

static int64_t casync__await_data(casync_future *future, const void **data) {
    int64_t result = casync__await_op(future);
    if (result >= 0 && data) *data = future->ptr;
    return result;
}

CASYNC__LINKAGE int64_t casync_read_frame(casync_stream *stream, const casync_framing *framing,
                                          const void **data) {
    casync_op op;
    return CASYNC__AWAIT_IF_ALLOWED(
        casync__stream_loop(stream),
        casync__await_data(casync_read_frame_op(stream, &op, framing), data));
}

CASYNC__LINKAGE int64_t casync_read_frame_timeout(casync_stream *stream,
                                                  const casync_framing *framing, const void **data,
                                                  int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__stream_loop(stream),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0 ? result
                      : casync_timeout_end(&scope, casync_read_frame(stream, framing, data));
}

CASYNC__LINKAGE casync_future *casync_read_until_op(casync_stream *stream, casync_op *op,
                                                    const void *delimiter, size_t size) {
    casync_framing framing;
    if (!op) return &casync__future_invalid;
    memset(&framing, 0, sizeof framing);
    framing.kind = CASYNC_FRAMING_DELIMITER;
    framing.delimiter = delimiter;
    framing.size = size;
    return casync_read_frame_op(stream, op, &framing);
}

CASYNC__LINKAGE int64_t casync_read_until(casync_stream *stream, const void *delimiter, size_t size,
                                          const void **data) {
    casync_op op;
    return CASYNC__AWAIT_IF_ALLOWED(
        casync__stream_loop(stream),
        casync__await_data(casync_read_until_op(stream, &op, delimiter, size), data));
}

CASYNC__LINKAGE int64_t casync_read_until_timeout(casync_stream *stream, const void *delimiter,
                                                  size_t size, const void **data, int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__stream_loop(stream),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0
               ? result
               : casync_timeout_end(&scope, casync_read_until(stream, delimiter, size, data));
}

CASYNC__LINKAGE int64_t casync_pause_reading(casync_stream *stream) {
    return casync__endpoint_set_reading_paused(casync__stream_endpoint(stream), true);
}

CASYNC__LINKAGE int64_t casync_resume_reading(casync_stream *stream) {
    return casync__endpoint_set_reading_paused(casync__stream_endpoint(stream), false);
}

CASYNC__LINKAGE casync_future *casync_drain_op(casync_stream *stream, casync_op *op) {
    return casync__endpoint_drain(casync__stream_endpoint(stream), op,
                                  casync__stream_check_write(stream));
}

CASYNC__LINKAGE int64_t casync_drain(casync_stream *stream) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__stream_loop(stream), casync_drain_op(stream, &op));
}

CASYNC__LINKAGE int64_t casync_drain_timeout(casync_stream *stream, int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__stream_loop(stream),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0 ? result : casync_timeout_end(&scope, casync_drain(stream));
}

/* -- descriptors over Unix sockets -- */

/* A chunk of its own for the bytes that a descriptor goes with. */
static int64_t casync__stream_write_with_fd(casync_stream *stream, int fd, const casync_span *spans,
                                            size_t count) {
    casync_loop *loop = casync__stream_loop(stream);
    casync__outbuf_chunk *chunk;
    casync__weakref weak;
    size_t i, size = casync__spans_size(spans, count);
    int64_t copy = casync__sys_fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return copy;
    chunk = size <= CASYNC__BUFFER_SIZE_MAX - stream->out.size
                ? casync__outbuf_add_chunk(&stream->out, size)
                : NULL;
    if (!chunk) {
        casync__sys_close((int)copy);
        return -ENOMEM;
    }
    chunk->passed_fd = (int)copy;
    for (i = 0; i < count; i++)
        casync__outbuf_fill(&stream->out, chunk, spans[i].ptr, spans[i].len);
    casync__weakref_begin(loop, &weak, stream);
    if (casync__outbuf_first(&stream->out) == chunk) casync__stream_flush_out(stream);
    if (!casync__weakref_end(loop, &weak)) return -ECONNABORTED; /* by pause_writing */
    if (!casync__stream_is_connected(stream))
        return stream->endpoint.error < 0 ? stream->endpoint.error : -ECONNABORTED;
    if (stream->out.size > 0) casync__stream_out_queued(stream);
    return 0;
}

/* Can descriptors be passed over it, and bytes written? */
static int64_t casync__stream_check_send_fd(const casync_stream *stream) {
    int64_t family, result = casync__stream_check_write(stream);
    if (result < 0) return result;
    family = casync__socket_family(stream->endpoint.watcher.fd);
    if (family < 0 && family != -ENOTSOCK) return family;
    return stream->filter || family != AF_UNIX ? -EOPNOTSUPP : 0;
}

CASYNC__LINKAGE int64_t casync_send_fd(casync_stream *stream, int fd, const void *data,
                                       size_t size) {
    int64_t result = casync__stream_check_send_fd(stream);
    casync_span span = casync__span_make(data, size);
    if (result < 0) return result;
    if (!data || size == 0 || size > CASYNC__BUFFER_SIZE_MAX) return -EINVAL;
    result = casync__stream_write_with_fd(stream, fd, &span, 1);
    return result < 0 ? result : (int64_t)size;
}

CASYNC__LINKAGE int64_t casync_send_fd_frame(casync_stream *stream, int fd,
                                             const casync_framing *framing, const void *data,
                                             size_t size) {
    uint8_t bytes[8];
    casync_span spans[2];
    int64_t result = casync__stream_check_send_fd(stream);
    if (result == 0) result = casync__framing_spans(framing, data, size, bytes, spans);
    if (result >= 0) result = casync__stream_write_with_fd(stream, fd, spans, 2);
    return result < 0 ? result : (int64_t)size;
}

/* -- filters -- */

/* A handshake that is given up leaves nothing to go on with. */
static void casync__stream_start_tls_abandon(casync_op *op) {
    (void)casync_abort((casync_stream *)op->owner);
}

CASYNC__LINKAGE int64_t casync_set_filter(casync_stream *stream, casync_filter *filter) {
    if (!filter) return -EINVAL;
    if (!casync_stream_is_open(stream) || stream->filter) return CASYNC_INVALID_STATE;
    if (casync__input_size(stream->input) > 0) return -EBUSY;
    stream->filter = filter;
    filter->stream = stream;
    return 0;
}

CASYNC__LINKAGE int64_t casync_filter_receive(casync_filter *filter, const void *data,
                                              size_t size) {
    casync_stream *stream;
    casync_loop *loop;
    casync__weakref weak;
    if (!filter || !filter->stream) return -EINVAL;
    stream = filter->stream;
    loop = casync__stream_loop(stream);
    if (!casync__stream_is_connected(stream)) return -ECONNABORTED;
    casync__weakref_begin(loop, &weak, stream);
    casync__stream_receive(stream, (const uint8_t *)data, size);
    return casync__weakref_end(loop, &weak) && casync__stream_is_connected(stream) ? 0
                                                                                   : -ECONNABORTED;
}

CASYNC__LINKAGE int64_t casync_filter_send(casync_filter *filter, const void *data, size_t size) {
    casync_stream *stream;
    casync_loop *loop;
    casync__weakref weak;
    casync_span span = casync__span_make(data, size);
    int64_t sent;
    if (!filter || !filter->stream) return -EINVAL;
    stream = filter->stream;
    loop = casync__stream_loop(stream);
    if (!casync__stream_is_connected(stream)) return -ECONNABORTED;
    casync__weakref_begin(loop, &weak, stream);
    sent = casync__stream_send(stream, &span, 1);
    if (!casync__weakref_end(loop, &weak)) return -ECONNABORTED;
    if (sent < 0) return sent;
    return sent == (int64_t)size ? 0 : -ENOMEM;
}

CASYNC__LINKAGE int64_t casync_local_address(const casync_stream *stream, casync_address *address) {
    return casync__endpoint_address(casync__stream_endpoint(stream), casync__sys_getsockname,
                                    address);
}

CASYNC__LINKAGE int64_t casync_peer_address(const casync_stream *stream, casync_address *address) {
    return casync__endpoint_address(casync__stream_endpoint(stream), casync__sys_getpeername,
                                    address);
}

CASYNC__LINKAGE int64_t casync_set_nodelay(casync_stream *stream, bool on) {
    if (!casync_stream_is_open(stream)) return -EBADF;
    return casync__socket_set_int(stream->endpoint.watcher.fd, IPPROTO_TCP, TCP_NODELAY, on);
}

CASYNC__LINKAGE int64_t casync_set_keepalive(casync_stream *stream, int seconds) {
    if (!casync_stream_is_open(stream)) return -EBADF;
    return casync__socket_set_keepalive(stream->endpoint.watcher.fd, seconds);
}

/* >> servers (implementation) ------------------------------------------------------------------ */

/* A server accepts until the kernel has no more, 32 at most in a turn. What a server makes is a
   connection, a record with the user's memory behind it. A job in the ready queue frees it when its
   stream is closed and its task, if one serves it, is done. The server's connections are in the
   list of another record, casync__clients, which goes when the server is closed and the last of
   them has gone.

   Costs: a connection is one accept4, one setsockopt (TCP), one epoll_ctl and one close. */

#define CASYNC__SERVER_ACCEPTS_MAX 32 /* of one server in one turn */
#define CASYNC__SERVER_ACCEPT_RETRY CASYNC_MS(100)
#define CASYNC__CONNECTION_FINISH_TIMEOUT                                                          \
    CASYNC_SECONDS(30) /* by default, for a connection whose task is done */

/* What a server knows of its connections. It outlives the server's struct, which may go when it is
   closed. */
typedef struct casync__clients {
    casync_link link; /* in loop->clients */
    uint64_t id;
    casync_loop *loop;
    casync_link connections; /* casync__connection by link */
    casync_link waiting;     /* operations that wait for the end of all */
    int64_t finish_timeout;
    bool server_is_open;
} casync__clients;

/* A connection that a server allocated: this, and behind it what the user asked for. It goes when
   its stream is closed and its task, if it has one, is done. */
typedef struct casync__connection {
    casync_link link; /* in clients->connections */
    casync__clients *clients;
    casync_stream *stream;
    casync_task *task;  /* NULL when it is done, and with a protocol */
    casync_job job;     /* the task is done; or frees this, by the queue */
    casync_timer limit; /* of the time to finish it, for its task */
    bool finishing, closed;
    uint8_t peer_size; /* of what accept4(2) said; the kernel forgets it with a reset. 0: longer,
                          or none */
    uint8_t peer[sizeof(struct sockaddr_in6)];
} casync__connection;

/* A socket of a server that listens at several addresses, but for the first, which is the server's
   own watcher. */
typedef struct casync__server_listener {
    casync_watcher watcher;
    casync_link link; /* in server->listeners */
    casync_server *server;
} casync__server_listener;

static inline casync_loop *casync__server_loop(const casync_server *server) {
    return server ? server->watcher.reader.loop : NULL;
}

static inline bool casync__server_is_open(const casync_server *server) {
    return server && server->open;
}

static void casync__server_report(casync_server *server, const char *message, int64_t error) {
    casync_exception exception = casync__exception_make(message, error);
    exception.server = server;
    casync_call_exception_handler(server->watcher.reader.loop, &exception);
}

/* Without connections nobody need wait, and without a server there will be none. */
static void casync__clients_changed(casync__clients *clients) {
    if (!casync__list_is_empty(&clients->connections)) return;
    casync__ops_done(&clients->waiting, 0);
    if (clients->server_is_open) return;
    casync__list_remove(&clients->link);
    casync__memory_free(&clients->loop->allocator, clients);
}

static void casync__connection_free(void *arg) {
    casync__connection *connection = (casync__connection *)arg;
    casync__memory_free(&connection->job.loop->allocator, connection);
}

/* The connection's stream is closed, or its task is done. When both are, it leaves its server, and
   its memory goes by the queue: callbacks of operations that just ended may be in it, and come
   first. */
static void casync__connection_left(casync__connection *connection) {
    casync__clients *clients = connection->clients;
    casync_loop *loop = clients->loop;
    if (!connection->closed || connection->task) return;
    casync_close(connection->stream); /* its user may have opened it again */
    casync_timer_stop(&connection->limit);
    if (connection->finishing) loop->finishing--;
    casync__list_remove(&connection->link);
    casync__job_init(loop, &connection->job, casync__connection_free, connection);
    connection->job.flags = CASYNC__JOB_INTERNAL | CASYNC__JOB_FINALLY;
    casync__job_make_ready(loop, &connection->job);
    casync__clients_changed(clients);
}

static void casync__connection_closed(casync__connection *connection) {
    if (!connection) return;
    connection->closed = true;
    casync__connection_left(connection);
}

/* Does the library make the connections? */
static bool casync__server_allocates(const casync_server *server) {
    return server->desc.protocol || server->desc.task || server->desc.step;
}

static bool casync__server_wants(const casync_server *server) {
    return casync__server_allocates(server) || server->desc.accepted ||
           !casync__list_is_empty(&server->waiting);
}

static inline casync__server_listener *casync__server_listener_of(casync_link *link) {
    return casync__container(link, casync__server_listener, link);
}

static void casync__server_start_accepting(casync_server *server) {
    casync_link *link;
    casync__watcher_start(&server->watcher, CASYNC__FD_READ);
    for (link = server->listeners.next; link != &server->listeners; link = link->next)
        casync__watcher_start(&casync__server_listener_of(link)->watcher, CASYNC__FD_READ);
}

static void casync__server_stop_accepting(casync_server *server) {
    casync_link *link;
    casync__watcher_stop(&server->watcher, CASYNC__FD_READ);
    for (link = server->listeners.next; link != &server->listeners; link = link->next)
        casync__watcher_stop(&casync__server_listener_of(link)->watcher, CASYNC__FD_READ);
}

static void casync__server_accept_abandon(casync_op *op) {
    casync_server *server = (casync_server *)op->owner;
    if (!casync__server_wants(server)) casync__server_stop_accepting(server);
}

CASYNC__LINKAGE int64_t casync_server_resume(casync_server *server) {
    if (!casync__server_is_open(server)) return CASYNC_INVALID_STATE;
    casync_timer_stop(&server->retry);
    if (casync__server_wants(server)) casync__server_start_accepting(server);
    return 0;
}

static void casync__server_retry(void *arg) { (void)casync_server_resume((casync_server *)arg); }

/* Accepting fails for want of something that may come back: going on at once would spin. */
static void casync__server_back_off(casync_server *server, int64_t error) {
    casync__server_stop_accepting(server);
    if (casync__watcher_retry_later(&server->watcher, &server->retry, CASYNC__SERVER_ACCEPT_RETRY,
                                    casync__server_retry, server) < 0)
        /* no memory for the timer: spinning is what is left */
        casync__server_start_accepting(server);
    casync__server_report(server, "cannot accept connections, trying again in 100 ms", error);
}

/* Opens the stream of a connection; its descriptor is closed if that fails. */
static int64_t casync__connection_open(casync_server *server, casync_stream *stream, int fd,
                                       const casync_protocol *protocol) {
    casync_loop *loop = server->watcher.reader.loop;
    int64_t result =
        casync__stream_begin(loop, stream, fd, protocol, &server->desc.options,
                             CASYNC__ENDPOINT_IS_SOCKET | CASYNC__ENDPOINT_FD_UNSHARED);
    if (result < 0)
        casync__sys_close(fd);
    else if (server->tcp)
        casync__socket_set_tcp_options(fd, &server->desc.options);
    return result;
}

/* The user's part of a connection. */
#define CASYNC__CONNECTION_SIZE ((sizeof(casync__connection) + 15) / 16 * 16)
static uint8_t *casync__connection_memory(casync__connection *connection) {
    return (uint8_t *)connection + CASYNC__CONNECTION_SIZE;
}

/* Reports what is wrong with a connection: its stream, if that is still there, and its peer. */
static void casync__connection_report(const casync__connection *connection,
                                      casync_exception *exception) {
    casync_address peer;
    peer.size = connection->peer_size;
    memcpy(peer.storage.bytes, connection->peer, connection->peer_size);
    if (peer.size > 0) exception->peer = &peer;
    if (!connection->closed) exception->stream = connection->stream;
    casync_call_exception_handler(connection->clients->loop, exception);
    exception->peer = NULL;
}

/* It took too long to send what the task left. */
static void casync__connection_finish_too_long(void *arg) {
    casync__connection *connection = (casync__connection *)arg;
    casync_stream *stream = connection->stream;
    casync_loop *loop = casync__stream_loop(stream);
    casync_exception exception = casync__exception_make(
        "a connection could not be finished in time and is aborted", -ETIMEDOUT);
    casync__weakref weak;
    exception.unsent = stream->out.size;
    casync__weakref_begin(loop, &weak, stream);
    casync__connection_report(connection, &exception);
    if (casync__weakref_end(loop, &weak)) (void)casync_abort(stream);
}

/* What its task wrote is sent, and then it is closed. */
static void casync__connection_finish(casync__connection *connection) {
    casync_loop *loop = connection->clients->loop;
    casync_stream *stream = connection->stream;
    int64_t limit = connection->clients->finish_timeout;
    connection->finishing = true;
    loop->finishing++;
    (void)casync_finish_start(stream);
    if (limit < 0 || !casync_stream_is_open(stream)) return;
    if (casync_call_later(loop, &connection->limit, limit, casync__connection_finish_too_long,
                          connection) < 0)
        casync__connection_finish_too_long(connection); /* no memory for the timer */
    else
        connection->limit.job.flags |= CASYNC__JOB_INTERNAL;
}

/* Was the connection closed, aborted or finished by this side? */
static bool casync__connection_was_ended_here(const casync__connection *connection) {
    return connection->closed || connection->stream->endpoint.state == CASYNC__ENDPOINT_FINISHING ||
           connection->stream->endpoint.state == CASYNC__ENDPOINT_ENDED;
}

/* The task's failure, for the exception handler. */
static void casync__connection_report_served(casync__connection *connection,
                                             casync_future *future) {
    casync_exception exception =
        casync__exception_make("the task of a connection failed", future->result);
    bool told = future->result == -ECONNABORTED && casync__connection_was_ended_here(connection);
    if (future->state != CASYNC_FUTURE_FAILED || future->retrieved) return;
    future->retrieved = 1;
    if (told) return; /* as was asked for */
    exception.future = future;
    casync__connection_report(connection, &exception);
}

/* The task that served a connection is done. One that failed is not worth sending what it left. */
static void casync__connection_served(void *arg) {
    casync__connection *connection = (casync__connection *)arg;
    casync_task *task = connection->task;
    bool failed = task->future.state == CASYNC_FUTURE_FAILED;
    casync__connection_report_served(connection, &task->future);
    connection->task = NULL;
    if (casync__future_is_fiber(&task->future))
        casync_task_release(task);
    else
        casync_future_close(&task->future);
    if (connection->closed)
        casync__connection_left(connection);
    else if (!casync_stream_is_open(connection->stream)) /* it ended, and was left to the task */
        casync_close(connection->stream);
    else if (failed)
        (void)casync_abort(connection->stream);
    else
        casync__connection_finish(connection);
}

static int64_t casync__connection_serve(casync_server *server, casync__connection *connection) {
    casync_loop *loop = connection->clients->loop;
    void *memory = casync__connection_memory(connection);
    int64_t result;
    if (server->desc.step) {
        connection->task = (casync_task *)memory;
        result = casync_task_start(loop, connection->task, server->desc.step);
    } else {
        casync_task_desc desc;
        casync__task_desc_init(&desc, server->desc.task, memory, "connection");
        result = casync_spawn_with(loop, &desc, &connection->task);
    }
    if (result < 0) return result;
    casync__job_init(loop, &connection->job, casync__connection_served, connection);
    connection->job.flags = CASYNC__JOB_INTERNAL | CASYNC__JOB_FINALLY;
    casync__list_append(&connection->task->future.callbacks, &connection->job.link);
    return 0;
}

static void casync__connection_tell(casync_server *server, casync_stream *stream) {
    casync_loop *loop = server->watcher.reader.loop;
    casync__weakref weak;
    casync__weakref_begin(loop, &weak, stream);
    if (stream->protocol->connection_made) stream->protocol->connection_made(stream);
    if (casync__weakref_end(loop, &weak)) casync__stream_update_reading(stream);
}

/* Allocates a connection, and tells its protocol or starts its task. */
static int64_t casync__connection_make(casync_server *server, int fd, const casync_address *peer) {
    casync_loop *loop = server->watcher.reader.loop;
    size_t size = server->desc.conn_size ? server->desc.conn_size : sizeof(casync_stream);
    casync__connection *connection = (casync__connection *)casync__memory_realloc(
        &loop->allocator, NULL, CASYNC__CONNECTION_SIZE + size);
    int64_t result;
    if (!connection) {
        casync__sys_close(fd);
        return -ENOMEM;
    }
    memset(connection, 0, CASYNC__CONNECTION_SIZE + size);
    connection->clients = server->clients;
    if (peer->size <= sizeof connection->peer) {
        connection->peer_size = (uint8_t)peer->size;
        memcpy(connection->peer, peer->storage.bytes, peer->size);
    }
    connection->stream = (casync_stream *)(void *)(casync__connection_memory(connection) +
                                                   server->desc.stream_offset);
    result = casync__connection_open(server, connection->stream, fd, server->desc.protocol);
    if (result == 0 && !server->desc.protocol) {
        result = casync__connection_serve(server, connection);
        if (result < 0) casync_close(connection->stream);
    }
    if (result < 0) {
        casync__memory_free(&loop->allocator, connection);
        return result;
    }
    connection->stream->connection = connection;
    casync__list_append(&server->clients->connections, &connection->link);
    if (server->desc.protocol) casync__connection_tell(server, connection->stream);
    return 0;
}

/* A connection came: to an operation, to the user as a descriptor, or to the protocol. */
static int64_t casync__server_take(casync_server *server, int fd, const casync_address *peer) {
    if (!casync__list_is_empty(&server->waiting)) {
        casync_op *op = casync__container(server->waiting.next, casync_op, link);
        casync__op_done(op, casync__connection_open(server, op->as.accepted, fd, NULL), NULL);
        return 0;
    }
    if (casync__server_allocates(server)) return casync__connection_make(server, fd, peer);
    if (server->tcp) casync__socket_set_tcp_options(fd, &server->desc.options);
    server->desc.accepted(server, fd, peer);
    return 0;
}

/* These say that a connection broke before it was accepted (accept(2)): there may be others. EPERM
   may also mean that a sandbox refuses the call, so a turn in which nothing else comes backs
   off. */
static bool casync__server_accept_was_lost(int64_t error) {
    switch (error) {
    case -ECONNABORTED:
    case -EPROTO:
    case -EPERM:
    case -ENETDOWN:
    case -ENOPROTOOPT:
    case -EHOSTDOWN:
    case -ENONET:
    case -EHOSTUNREACH:
    case -EOPNOTSUPP:
    case -ENETUNREACH:
        return true;
    default:
        return false;
    }
}

/* Accepts from one of the server's sockets. */
static void casync__server_accept(casync_server *server, casync_watcher *watcher) {
    casync_loop *loop = server->watcher.reader.loop;
    casync__weakref weak;
    int i, lost = 0;
    casync__weakref_begin(loop, &weak, server);
    for (i = 0; i < CASYNC__SERVER_ACCEPTS_MAX && !weak.gone && (watcher->wanted & CASYNC__FD_READ);
         i++) {
        casync_address peer;
        socklen_t size = sizeof peer.storage;
        int64_t fd = casync__sys_accept(watcher->fd, casync__address_sockaddr(&peer), &size),
                result;
        if (fd == -EAGAIN) break;
        if (casync__server_accept_was_lost(fd) && ++lost < CASYNC__SERVER_ACCEPTS_MAX) continue;
        if (fd < 0) {
            casync__server_back_off(server, fd);
            break;
        }
        peer.size = size;
        result = casync__server_take(server, (int)fd, &peer);
        if (weak.gone) break;
        if (result < 0) casync__server_report(server, "a connection was dropped", result);
        if (!weak.gone && !casync__server_wants(server)) casync__server_stop_accepting(server);
    }
    casync__weakref_end(loop, &weak);
}

static void casync__server_readable(void *arg) {
    casync_server *server = (casync_server *)arg;
    casync__server_accept(server, &server->watcher);
}

static void casync__server_listener_readable(void *arg) {
    casync__server_listener *listener = (casync__server_listener *)arg;
    casync__server_accept(listener->server, &listener->watcher);
}

static int64_t casync__server_bind(int fd, const casync_listen_desc *desc,
                                   const casync_address *address) {
    int64_t result = 0;
    int family = casync__address_sockaddr(address)->sa_family;
    if (family != AF_UNIX) result = casync__socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (result == 0 && desc->reuse_port)
        result = casync__socket_set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (result == 0 && family == AF_INET6)
        result = casync__socket_set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY,
                                        desc->ipv6_only || desc->addresses);
    if (result == 0 && desc->path) casync__socket_remove_file(desc->path);
    return result < 0 ? result
                      : casync__sys_bind(fd, casync__address_sockaddr(address), address->size);
}

static int64_t casync__server_listen(int fd, const casync_listen_desc *desc) {
    return casync__sys_listen(fd, desc->backlog > 0 ? desc->backlog : 100);
}

/* A socket that listens at an address. */
static int64_t casync__server_socket(const casync_listen_desc *desc,
                                     const casync_address *address) {
    int64_t fd = casync__sys_socket(casync__address_sockaddr(address)->sa_family), result;
    if (fd < 0) return fd;
    result = casync__server_bind((int)fd, desc, address);
    if (result == 0) result = casync__server_listen((int)fd, desc);
    if (result == 0) return fd;
    casync__sys_close((int)fd);
    return result;
}

/* A socket that listens where the desc says. */
static int64_t casync__server_socket_of(const casync_listen_desc *desc) {
    casync_address address;
    int64_t fd, result = desc->path ? casync__address_parse_path(desc->path, &address)
                                    : casync__address_parse_host(
                                          desc->host ? desc->host : "::", desc->port, &address);
    if (result < 0) return result;
    fd = casync__server_socket(desc, &address);
    if (fd == -EAFNOSUPPORT && !desc->host && !desc->path) { /* a kernel without IPv6 */
        casync__address_parse_host("0.0.0.0", desc->port, &address);
        fd = casync__server_socket(desc, &address);
    }
    return fd;
}

/* A descriptor of the user's. */
static int64_t casync__server_adopt(const casync_listen_desc *desc) {
    int64_t result = desc->fd < 0 ? -EBADF : casync__server_listen(desc->fd, desc);
    if (result == 0) result = casync__fd_set_blocking(desc->fd, false);
    if (result >= 0 && !desc->keep_fd) result = casync__fd_set_cloexec(desc->fd);
    return result < 0 ? result : desc->fd;
}

static bool casync__server_desc_is_valid(const casync_listen_desc *desc) {
    size_t conn_size = desc->conn_size ? desc->conn_size : sizeof(casync_stream);
    size_t first = desc->step ? sizeof(casync_task) : 0; /* where the stream may begin */
    int ways = !!desc->protocol + !!desc->accepted + !!desc->task + !!desc->step;
    return ways <= 1 && conn_size >= sizeof(casync_stream) &&
           conn_size <= CASYNC__BUFFER_SIZE_MAX / 2 &&
           desc->stream_offset <= conn_size - sizeof(casync_stream) &&
           desc->stream_offset >= first && desc->stream_offset % sizeof(void *) == 0 &&
           casync__stream_options_are_valid(&desc->options);
}

static int64_t casync__clients_make(casync_loop *loop, casync_server *server) {
    casync__clients *clients =
        (casync__clients *)casync__memory_realloc(&loop->allocator, NULL, sizeof *clients);
    if (!clients) return -ENOMEM;
    memset(clients, 0, sizeof *clients);
    clients->loop = loop;
    /* numbers that no loop uses again: a struct may be older than its loop */
    casync__process_lock();
    clients->id = ++casync__process.last_clients_id;
    pthread_mutex_unlock(&casync__process.mutex);
    clients->finish_timeout = server->desc.finish_timeout == 0 ? CASYNC__CONNECTION_FINISH_TIMEOUT
                                                               : server->desc.finish_timeout;
    clients->server_is_open = true;
    casync__list_init(&clients->connections);
    casync__list_init(&clients->waiting);
    casync__list_append(&loop->clients, &clients->link);
    server->clients = clients;
    server->clients_id = clients->id;
    return 0;
}

/* The descriptor is the server's; -ENOMEM leaves it the caller's. */
static int64_t casync__server_begin(casync_loop *loop, casync_server *server, int fd,
                                    const casync_listen_desc *desc) {
    int64_t family = casync__socket_family(fd), result = family;
    if (result >= 0)
        result = casync__watcher_register(loop, &server->watcher, fd, CASYNC__WATCHER_SERVER);
    if (result < 0) return result;
    server->desc = *desc;
    server->user = desc->user;
    server->tcp = casync__address_family_is_inet(family);
    casync__list_init(&server->waiting);
    casync__list_init(&server->joining);
    casync__list_init(&server->listeners);
    casync__job_init(loop, &server->watcher.reader, casync__server_readable, server);
    if (!casync__server_allocates(server)) {
        server->clients = NULL;
        server->clients_id = 0;
    } else if (casync__clients_make(loop, server) < 0) {
        casync__watcher_unregister(&server->watcher, true);
        return -ENOMEM;
    }
    server->open = true;
    return 0;
}

/* Listens at a further address, with the descriptor if that succeeds. */
static int64_t casync__server_add_listener(casync_server *server, int fd) {
    casync_loop *loop = casync__server_loop(server);
    casync__server_listener *listener =
        (casync__server_listener *)casync__memory_realloc(&loop->allocator, NULL, sizeof *listener);
    int64_t result;
    if (!listener) return -ENOMEM;
    memset(listener, 0, sizeof *listener);
    listener->server = server;
    result = casync__watcher_register(loop, &listener->watcher, fd, CASYNC__WATCHER_LISTENER);
    if (result < 0) {
        casync__memory_free(&loop->allocator, listener);
        return result;
    }
    casync__job_init(loop, &listener->watcher.reader, casync__server_listener_readable, listener);
    casync_watcher_ref(&listener->watcher, !(server->watcher.flags & CASYNC__WATCHER_UNREFERENCED));
    casync__list_append(&server->listeners, &listener->link);
    return 0;
}

/* Listens at one of several addresses: the first opens the server. */
static int64_t casync__server_listen_at(casync_loop *loop, casync_server *server,
                                        const casync_listen_desc *desc, casync_address *address) {
    casync_address first;
    int64_t fd, result;
    if (server->open && casync_address_port(address) == 0 &&
        casync_server_address(server, &first) == 0)
        casync__address_set_port(address, casync_address_port(&first));
    fd = casync__server_socket(desc, address);
    if (fd < 0) return fd;
    result = server->open ? casync__server_add_listener(server, (int)fd)
                          : casync__server_begin(loop, server, (int)fd, desc);
    if (result < 0) casync__sys_close((int)fd);
    return result;
}

/* Is an address there twice? /etc/hosts may have a name in two lines. */
static bool casync__server_address_came(const casync_listen_desc *desc, size_t i) {
    const casync_address *address = &desc->addresses[i];
    size_t j;
    for (j = 0; j < i; j++)
        if (desc->addresses[j].size == address->size &&
            memcmp(desc->addresses[j].storage.bytes, address->storage.bytes, address->size) == 0)
            return true;
    return false;
}

static int64_t casync__server_listen_at_all(casync_loop *loop, casync_server *server,
                                            const casync_listen_desc *desc) {
    int64_t result = -EINVAL;
    size_t i;
    for (i = 0; i < desc->address_count; i++) {
        casync_address address = desc->addresses[i];
        bool missing;
        if (casync__server_address_came(desc, i)) continue;
        result = casync__server_listen_at(loop, server, desc, &address);
        missing = result == -EADDRNOTAVAIL || result == -EAFNOSUPPORT;
        if (result < 0 && !missing) break;
    }
    if (result < 0 && i < desc->address_count) casync_server_close(server);
    return i == desc->address_count && server->open ? 0 : result;
}

#define CASYNC__SERVER_PORTS_MAX 8 /* ports to try until one is free at all addresses */

/* The kernel chooses a port that is free at the first address, and may not be at others. */
static int64_t casync__server_open_at_all(casync_loop *loop, casync_server *server,
                                          const casync_listen_desc *desc) {
    int64_t result = -EADDRINUSE;
    int tries = desc->address_count > 0 && casync_address_port(desc->addresses) > 0
                    ? 1
                    : CASYNC__SERVER_PORTS_MAX;
    while (result == -EADDRINUSE && tries-- > 0)
        result = casync__server_listen_at_all(loop, server, desc);
    return result;
}

static int64_t casync__server_open(casync_loop *loop, casync_server *server,
                                   const casync_listen_desc *desc) {
    int64_t fd, result;
    if (server->open) return -EALREADY;
    if (desc->addresses && !desc->use_fd && !desc->path)
        return casync__server_open_at_all(loop, server, desc);
    fd = desc->use_fd ? casync__server_adopt(desc) : casync__server_socket_of(desc);
    if (fd < 0) return fd;
    result = casync__server_begin(loop, server, (int)fd, desc);
    if (result < 0 && !desc->use_fd) casync__sys_close((int)fd);
    return result;
}

/* The current task waits for the addresses of the name. */
static int64_t casync__server_open_by_name(casync_loop *loop, casync_server *server,
                                           const casync_listen_desc *desc) {
    casync_listen_desc found = *desc;
    casync_getaddrinfo_desc question;
    casync_addrinfo info;
    int64_t result;
    memset(&info, 0, sizeof info);
    memset(&question, 0, sizeof question);
    question.host = desc->host;
    question.port = desc->port;
    question.flags = AI_PASSIVE;
    result = casync_getaddrinfo(loop, &info, &question);
    if (result < 0) return result;
    found.addresses = info.addresses;
    found.address_count = info.count;
    result = casync__server_open(loop, server, &found);
    if (result == 0) server->desc = *desc;
    casync_addrinfo_free(&info);
    return result;
}

CASYNC__LINKAGE int64_t casync_listen(casync_loop *loop, casync_server *server,
                                      const casync_listen_desc *desc) {
    int64_t result;
    if (casync__loop_is_closed(loop) || !server || !desc) return -EINVAL;
    if (!casync__server_desc_is_valid(desc)) return -EINVAL;
    result = casync__server_open(loop, server, desc);
    if (result == CASYNC_NOT_NUMERIC && casync__fiber_current(loop))
        result = casync__server_open_by_name(loop, server, desc);
    if (result < 0) return result;
    if (!desc->start_paused && casync__server_wants(server)) casync__server_start_accepting(server);
    return 0;
}

CASYNC__LINKAGE casync_future *casync_accept_op(casync_server *server, casync_op *op,
                                                casync_stream *stream) {
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__server_loop(server), op, CASYNC__OP_ACCEPT);
    if (!casync__server_is_open(server)) return casync__op_done(op, CASYNC_INVALID_STATE, NULL);
    if (!stream) return casync__op_done(op, -EINVAL, NULL);
    if (casync__endpoint_has_fd(casync__stream_endpoint(stream)))
        return casync__op_done(op, -EALREADY, NULL);
    op->owner = server;
    op->as.accepted = stream;
    casync__list_append(&server->waiting, &op->link);
    if (!server->retry.job.link.next) casync__server_start_accepting(server);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_accept(casync_server *server, casync_stream *stream) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__server_loop(server), casync_accept_op(server, &op, stream));
}

CASYNC__LINKAGE int64_t casync_accept_timeout(casync_server *server, casync_stream *stream,
                                              int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__server_loop(server),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0 ? result : casync_timeout_end(&scope, casync_accept(server, stream));
}

CASYNC__LINKAGE casync_future *casync_server_join_op(casync_server *server, casync_op *op) {
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__server_loop(server), op, CASYNC__OP_SERVER_JOIN);
    if (!casync__server_is_open(server)) return casync__op_done(op, server ? 0 : -EINVAL, NULL);
    op->owner = server;
    casync__list_append(&server->joining, &op->link);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_server_join(casync_server *server) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__server_loop(server), casync_server_join_op(server, &op));
}

static casync__clients *casync__clients_find(casync_loop *loop, uint64_t id) {
    casync_link *link;
    if (casync__loop_is_closed(loop)) return NULL;
    for (link = loop->clients.next; link != &loop->clients; link = link->next)
        if (casync__container(link, casync__clients, link)->id == id)
            return casync__container(link, casync__clients, link);
    return NULL;
}

/* What is left of the server's connections, or NULL: a closed server has but a number to find them
   by. */
static casync__clients *casync__clients_of(const casync_server *server) {
    return server ? casync__clients_find(server->watcher.reader.loop, server->clients_id) : NULL;
}

CASYNC__LINKAGE casync_future *casync_server_wait_clients_op(casync_server *server, casync_op *op) {
    casync__clients *clients = casync__clients_of(server);
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__server_loop(server), op, CASYNC__OP_WAIT_CLIENTS);
    if (!clients || casync__list_is_empty(&clients->connections))
        return casync__op_done(op, server ? 0 : -EINVAL, NULL);
    op->owner = clients;
    casync__list_append(&clients->waiting, &op->link);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_server_wait_clients(casync_server *server) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__server_loop(server),
                            casync_server_wait_clients_op(server, &op));
}

CASYNC__LINKAGE int64_t casync_server_wait_clients_timeout(casync_server *server, int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__server_loop(server),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0 ? result : casync_timeout_end(&scope, casync_server_wait_clients(server));
}

static bool casync__server_refused(casync_watcher *watcher, int64_t error) {
    casync__ops_done(&((casync_server *)(void *)watcher)->waiting, error);
    return false;
}

static bool casync__server_listener_refused(casync_watcher *watcher, int64_t error) {
    return casync__server_refused(
        &casync__container(watcher, casync__server_listener, watcher)->server->watcher, error);
}

CASYNC__LINKAGE int64_t casync_server_pause(casync_server *server) {
    if (!casync__server_is_open(server)) return CASYNC_INVALID_STATE;
    casync_timer_stop(&server->retry);
    casync__server_stop_accepting(server);
    return 0;
}

static void casync__server_close_listeners(casync_server *server) {
    while (!casync__list_is_empty(&server->listeners)) {
        casync__server_listener *listener = casync__server_listener_of(server->listeners.next);
        casync__list_remove(&listener->link);
        casync__watcher_unregister(&listener->watcher, true);
        casync__sys_close(listener->watcher.fd);
        casync__memory_free(&casync__server_loop(server)->allocator, listener);
    }
}

CASYNC__LINKAGE void casync_server_close(casync_server *server) {
    casync__clients *clients;
    if (!casync__server_is_open(server)) return;
    clients = server->clients;
    casync__weakref_object_gone(casync__server_loop(server), server);
    server->open = false;
    server->clients = NULL;
    casync_timer_stop(&server->retry);
    casync__watcher_unregister(&server->watcher, !server->desc.use_fd);
    if (!server->desc.use_fd || !server->desc.keep_fd) casync__sys_close(server->watcher.fd);
    casync__server_close_listeners(server);
    casync__ops_done(&server->waiting, -ECONNABORTED);
    casync__ops_done(&server->joining, 0);
    if (!clients) return;
    clients->server_is_open = false;
    casync__clients_changed(clients);
}

/* Each goes to the end of the list before it is told, which may end it, others, or the server,
   whose struct may go. */
static int64_t casync__clients_for_each(casync_server *server, int64_t (*act)(casync_stream *)) {
    casync_loop *loop = casync__server_loop(server);
    casync__clients *clients = casync__clients_of(server);
    casync_link *link;
    uint64_t id;
    int64_t count = 0, told = 0;
    if (!server) return -EINVAL;
    if (!clients) return loop ? 0 : CASYNC_INVALID_STATE;
    id = clients->id;
    for (link = clients->connections.next; link != &clients->connections; link = link->next)
        count++;
    for (; count > 0 && (clients = casync__clients_find(loop, id)) != NULL; count--) {
        casync__connection *connection;
        if (casync__list_is_empty(&clients->connections)) break;
        connection = casync__container(clients->connections.next, casync__connection, link);
        casync__list_remove(&connection->link);
        casync__list_append(&clients->connections, &connection->link);
        if (!connection->closed && act(connection->stream) >= 0) told++;
    }
    return told;
}

CASYNC__LINKAGE int64_t casync_server_abort_clients(casync_server *server) {
    return casync__clients_for_each(server, casync_abort);
}

CASYNC__LINKAGE int64_t casync_server_finish_clients(casync_server *server) {
    return casync__clients_for_each(server, casync_finish_start);
}

CASYNC__LINKAGE void casync_server_ref(casync_server *server, bool referenced) {
    casync_link *link;
    if (!server) return;
    casync_watcher_ref(&server->watcher, referenced);
    casync_timer_ref(&server->retry, referenced);
    if (!casync__server_is_open(server)) return;
    for (link = server->listeners.next; link != &server->listeners; link = link->next)
        casync_watcher_ref(&casync__server_listener_of(link)->watcher, referenced);
}

CASYNC__LINKAGE int64_t casync_server_address(const casync_server *server,
                                              casync_address *address) {
    if (!casync__server_is_open(server)) return -EBADF;
    return casync__address_of(server->watcher.fd, casync__sys_getsockname, address);
}

/* >> datagrams (implementation) ---------------------------------------------------------------- */

/* Like a stream, except that each datagram succeeds or fails on its own, and only the user ends the
   socket. Datagrams are received in batches, into an area that all sockets of the loop share: one
   part per datagram, of which the kernel touches only what it fills. What cannot be sent at once
   waits in `out`, one packet per datagram, with its address. If a callback stops the reading during
   a batch, the rest of the batch waits in `in`.

   Costs: receiving is one recvmmsg for up to 16 datagrams. Sending is one sendto per datagram, or
   one sendmmsg for up to 16 that were queued. So a datagram that is answered is 3 system calls with
   the wait, and a burst of 64 that the protocol answers 69. Measured on one machine, for small
   datagrams: a recvmmsg that finds 16 takes 520 ns for each, one that finds a single one 1.06 us,
   where recvmsg until EAGAIN takes 1.22. A queued datagram is one allocation of 184 bytes and its
   own. A socket has no memory but its struct; the first with a protocol gives the loop the area. */

#define CASYNC__DATAGRAM_BATCH 16   /* at most, received or sent by one call */
#define CASYNC__DATAGRAM_BATCHES 4  /* of one socket in one turn, each way */
#define CASYNC__DATAGRAM_COUNTED 8  /* bytes that a datagram in the queue counts beside its own */
#define CASYNC__DATAGRAM_SIZE 65536 /* the longest by default */
#define CASYNC__DATAGRAM_UNIX_SIZE 262144
#define CASYNC__DATAGRAM_AREA 1048576
#define CASYNC__DATAGRAM_QUEUE_LIMIT 1048576
#define CASYNC__DATAGRAM_RETRY CASYNC_MS(1)

/* A datagram in a queue. The bytes follow it, but for those of an operation. */
typedef struct casync__datagram_packet {
    casync_link link;
    casync_op *op; /* the send operation it belongs to, or NULL */
    const uint8_t *data;
    size_t size;
    int64_t error; /* in `in`: this came in its place, or 0 */
    casync_address address;
} casync__datagram_packet;

static inline casync_loop *casync__datagram_loop(const casync_datagram *datagram) {
    return datagram ? datagram->endpoint.watcher.reader.loop : NULL;
}

/* The endpoint of a socket that may be NULL, and back. */
static inline casync_endpoint *casync__datagram_endpoint(const casync_datagram *datagram) {
    return (casync_endpoint *)(uintptr_t)datagram;
}
static inline casync_datagram *casync__datagram_of(const casync_endpoint *endpoint) {
    return (casync_datagram *)(uintptr_t)endpoint;
}

static inline casync__datagram_packet *casync__datagram_packet_first(const casync_link *list) {
    return casync__list_is_empty(list)
               ? NULL
               : casync__container(list->next, casync__datagram_packet, link);
}

/* Makes a packet with a copy of the spans. */
static casync__datagram_packet *casync__datagram_packet_make(casync_loop *loop,
                                                             const casync_span *spans, size_t count,
                                                             const casync_address *address) {
    size_t i, size = casync__spans_size(spans, count);
    casync__datagram_packet *packet = (casync__datagram_packet *)casync__memory_realloc(
        &loop->allocator, NULL, sizeof *packet + size);
    uint8_t *bytes;
    if (!packet) return NULL;
    memset(packet, 0, sizeof *packet);
    packet->data = bytes = (uint8_t *)(packet + 1);
    packet->size = size;
    if (address) packet->address = *address;
    for (i = 0; i < count; i++) {
        if (spans[i].len > 0) memcpy(bytes, spans[i].ptr, spans[i].len);
        bytes += spans[i].len;
    }
    return packet;
}

/* An error that no call returned. As in asyncio, a protocol that does not want to hear of it need
   not. */
static void casync__datagram_report_error(casync_datagram *datagram, int64_t error) {
    casync_exception exception = casync__exception_make("a datagram failed", error);
    exception.datagram = datagram;
    if (!datagram->protocol)
        casync_call_exception_handler(casync__datagram_loop(datagram), &exception);
    else if (datagram->protocol->error_received)
        datagram->protocol->error_received(datagram, error);
}

/* -- receiving -- */

static inline bool casync__datagram_protocol_reads(const casync_datagram_protocol *protocol) {
    return protocol && protocol->datagram_received;
}

/* Shall the protocol be given datagrams now? */
static inline bool casync__datagram_delivers(const casync_datagram *datagram) {
    return casync__datagram_protocol_reads(datagram->protocol) &&
           datagram->endpoint.state == CASYNC__ENDPOINT_OPEN && !datagram->endpoint.reading_paused;
}

static inline bool casync__datagram_wants_to_read(const casync_datagram *datagram) {
    return casync__datagram_delivers(datagram) || !casync__list_is_empty(&datagram->receiving);
}

static void casync__datagram_update_reading(casync_datagram *datagram) {
    if (!casync__endpoint_is_open(casync__datagram_endpoint(datagram))) return;
    if (!casync__datagram_wants_to_read(datagram)) {
        casync__watcher_stop(&datagram->endpoint.watcher, CASYNC__FD_READ);
        return;
    }
    casync__watcher_start(&datagram->endpoint.watcher, CASYNC__FD_READ);
    if (!casync__list_is_empty(&datagram->in)) /* by the queue: no callback inside its own call */
        casync__job_make_ready(casync__datagram_loop(datagram), &datagram->endpoint.watcher.reader);
}

/* The area of the loop, where batches are received. */
static int64_t casync__datagram_area_make(casync_loop *loop) {
    if (!loop->datagram_area)
        loop->datagram_area =
            (uint8_t *)casync__memory_realloc(&loop->allocator, NULL, CASYNC__DATAGRAM_AREA);
    return loop->datagram_area ? 0 : -ENOMEM;
}

/* Gives a datagram, or the error in its place, to the operation that waits. */
static void casync__datagram_serve(casync_datagram *datagram,
                                   const casync__datagram_packet *packet) {
    casync_op *op = casync__container(datagram->receiving.next, casync_op, link);
    int64_t error = packet->error < 0                   ? packet->error
                    : packet->size > op->as.buffer.size ? -EMSGSIZE
                                                        : 0;
    op->done = packet->size < op->as.buffer.size ? packet->size : op->as.buffer.size;
    if (op->done > 0) memcpy(op->as.buffer.data, packet->data, op->done);
    if (op->as.buffer.from) *op->as.buffer.from = packet->address;
    casync__op_done(op, error < 0 ? error : (int64_t)op->done, NULL);
}

/* Hands out what a batch left, as far as it is wanted. */
static void casync__datagram_deliver_kept(casync_datagram *datagram, const casync__weakref *weak) {
    casync_loop *loop = casync__datagram_loop(datagram);
    casync__datagram_packet *packet;
    while (!weak->gone && !loop->breaking && casync__datagram_wants_to_read(datagram) &&
           (packet = casync__datagram_packet_first(&datagram->in)) != NULL) {
        casync__list_remove(&packet->link);
        if (!casync__list_is_empty(&datagram->receiving)) {
            casync__datagram_serve(datagram, packet);
        } else if (packet->error < 0) {
            casync__datagram_report_error(datagram, packet->error);
        } else {
            datagram->protocol->datagram_received(
                datagram, casync__span_make(packet->data, packet->size), &packet->address);
        }
        casync__memory_free(&loop->allocator, packet);
    }
}

/* Receives one datagram into the buffer of the operation that waits. */
static bool casync__datagram_receive_for_op(casync_datagram *datagram) {
    casync_op *op = casync__container(datagram->receiving.next, casync_op, link);
    casync_span span = casync__span_make(op->as.buffer.data, op->as.buffer.size);
    struct msghdr message;
    int64_t result;
    casync__spans_message(&message, &span, 1);
    if (op->as.buffer.from) {
        message.msg_name = op->as.buffer.from->storage.bytes;
        message.msg_namelen = sizeof op->as.buffer.from->storage;
    }
    result = casync__sys_recvmsg(datagram->endpoint.watcher.fd, &message);
    if (result == -EAGAIN) return false;
    if (result >= 0) op->done = (size_t)result;
    if (result >= 0 && op->as.buffer.from) op->as.buffer.from->size = message.msg_namelen;
    if (result >= 0 && message.msg_flags & MSG_TRUNC) result = -EMSGSIZE;
    casync__op_done(op, result, NULL);
    return true;
}

/* One datagram of a batch: to the protocol, or to wait until it is wanted. */
static void casync__datagram_take(casync_datagram *datagram, casync_span data,
                                  const casync_address *from, int64_t error) {
    casync_loop *loop = casync__datagram_loop(datagram);
    casync__datagram_packet *packet;
    if (casync__datagram_delivers(datagram) && casync__list_is_empty(&datagram->in) &&
        !loop->breaking) {
        if (error < 0)
            casync__datagram_report_error(datagram, error);
        else
            datagram->protocol->datagram_received(datagram, data, from);
        return;
    }
    if (datagram->endpoint.state != CASYNC__ENDPOINT_OPEN) return;
    packet = casync__datagram_packet_make(loop, &data, 1, from);
    if (!packet) {
        casync__datagram_report_error(datagram, -ENOMEM);
        return;
    }
    packet->error = error;
    casync__list_append(&datagram->in, &packet->link);
}

/* Where batches are refused, one at a time. */
static int64_t casync__datagram_receive_messages(int fd, struct mmsghdr *messages, unsigned size) {
    int64_t result = casync__sys_recvmmsg(fd, messages, size);
    if (!casync__sys_is_refused(result)) return result;
    result = casync__sys_recvmsg(fd, &messages[0].msg_hdr);
    if (result < 0) return result;
    messages[0].msg_len = (unsigned)result;
    return 1;
}

static int64_t casync__datagram_send_messages(int fd, struct mmsghdr *messages, unsigned size) {
    int64_t result = casync__sys_sendmmsg(fd, messages, size);
    if (!casync__sys_is_refused(result)) return result;
    result = casync__sys_sendmsg(fd, &messages[0].msg_hdr);
    return result < 0 ? result : 1;
}

/* Receives as many datagrams as one call gives. False if there are no more for now. The area is
   this batch's until it is delivered: a callback may run the loop inside of itself, by a host that
   allows that, and another socket there makes an area of its own. */
static bool casync__datagram_receive_batch(casync_datagram *datagram, const casync__weakref *weak) {
    struct mmsghdr messages[CASYNC__DATAGRAM_BATCH];
    casync_span spans[CASYNC__DATAGRAM_BATCH];
    casync_address from[CASYNC__DATAGRAM_BATCH];
    size_t size = CASYNC__DATAGRAM_AREA / datagram->max_size, i;
    casync_loop *loop = casync__datagram_loop(datagram);
    uint8_t *area;
    int64_t count;
    if (casync__datagram_area_make(loop) < 0) {
        casync__datagram_report_error(datagram, -ENOMEM);
        return false;
    }
    area = loop->datagram_area;
    loop->datagram_area = NULL;
    if (size > CASYNC__DATAGRAM_BATCH) size = CASYNC__DATAGRAM_BATCH;
    for (i = 0; i < size; i++) {
        spans[i] = casync__span_make(area + i * datagram->max_size, datagram->max_size);
        casync__spans_message(&messages[i].msg_hdr, &spans[i], 1);
        messages[i].msg_hdr.msg_name = from[i].storage.bytes;
        messages[i].msg_hdr.msg_namelen = sizeof from[i].storage;
    }
    count =
        casync__datagram_receive_messages(datagram->endpoint.watcher.fd, messages, (unsigned)size);
    if (count < 0 && count != -EAGAIN) casync__datagram_report_error(datagram, count);
    for (i = 0; (int64_t)i < count && !weak->gone; i++) {
        from[i].size = messages[i].msg_hdr.msg_namelen;
        casync__datagram_take(datagram, casync__span_make(spans[i].ptr, messages[i].msg_len),
                              &from[i], messages[i].msg_hdr.msg_flags & MSG_TRUNC ? -EMSGSIZE : 0);
    }
    if (loop->datagram_area)
        casync__memory_free(&loop->allocator, area);
    else
        loop->datagram_area = area;
    return count == (int64_t)size;
}

static void casync__datagram_readable(void *arg) {
    casync_datagram *datagram = (casync_datagram *)arg;
    casync_loop *loop = casync__datagram_loop(datagram);
    casync__weakref weak;
    bool more = true;
    int i;
    casync__weakref_begin(loop, &weak, datagram);
    casync__datagram_deliver_kept(datagram, &weak);
    for (i = 0; i < CASYNC__DATAGRAM_BATCHES && more && !weak.gone; i++) {
        if (!casync__datagram_wants_to_read(datagram) || !casync__list_is_empty(&datagram->in) ||
            loop->breaking)
            break;
        more = casync__list_is_empty(&datagram->receiving)
                   ? casync__datagram_receive_batch(datagram, &weak)
                   : casync__datagram_receive_for_op(datagram);
    }
    if (casync__weakref_end(loop, &weak)) casync__datagram_update_reading(datagram);
}

/* -- sending -- */

/* Ends the wait of a datagram: it is sent, dropped, or failed. */
static void casync__datagram_dequeue(casync_datagram *datagram, casync__datagram_packet *packet,
                                     int64_t result) {
    casync_op *op = packet->op;
    casync__list_remove(&packet->link);
    datagram->queued -= packet->size + CASYNC__DATAGRAM_COUNTED;
    casync__memory_free(&casync__datagram_loop(datagram)->allocator, packet);
    if (op) casync__op_done(op, result, NULL);
}

static void casync__datagram_want_write(casync_datagram *datagram) {
    if (!datagram->retry.job.link.next)
        casync__watcher_start(&datagram->endpoint.watcher, CASYNC__FD_WRITE);
}

static void casync__datagram_enqueue(casync_datagram *datagram, casync__datagram_packet *packet) {
    casync__list_append(&datagram->out, &packet->link);
    datagram->queued += packet->size + CASYNC__DATAGRAM_COUNTED;
    casync__datagram_want_write(datagram);
    casync__endpoint_pause_if_full(&datagram->endpoint);
}

static void casync__datagram_writable(void *arg);

/* A Unix socket that is not connected counts as writable although the receiver's queue is full
   (unix(7); epoll knows of no receiver), so waiting for that would spin: the next attempt comes a
   little later. */
static void casync__datagram_back_off(casync_datagram *datagram) {
    const casync__datagram_packet *packet = casync__datagram_packet_first(&datagram->out);
    if (packet->address.size == 0 ||
        casync__address_sockaddr(&packet->address)->sa_family != AF_UNIX)
        return;
    if (casync__watcher_retry_later(&datagram->endpoint.watcher, &datagram->retry,
                                    CASYNC__DATAGRAM_RETRY, casync__datagram_writable,
                                    datagram) == 0)
        casync__watcher_stop(&datagram->endpoint.watcher,
                             CASYNC__FD_WRITE); /* else spinning is what is left */
}

/* Sends the first datagrams of the queue. False if the kernel took less than all it was given: then
   it tells of the rest, or of an error in it, when the socket is writable next. (An error that ICMP
   told is lost if it comes in the middle of a batch, see sendmmsg(2), BUGS; the datagram it hit is
   sent again.) */
static bool casync__datagram_send_batch(casync_datagram *datagram) {
    struct mmsghdr messages[CASYNC__DATAGRAM_BATCH];
    casync_span spans[CASYNC__DATAGRAM_BATCH];
    casync_link *link;
    unsigned size = 0;
    int64_t count, i;
    for (link = datagram->out.next; link != &datagram->out && size < CASYNC__DATAGRAM_BATCH;
         link = link->next) {
        casync__datagram_packet *packet = casync__container(link, casync__datagram_packet, link);
        spans[size] = casync__span_make(packet->data, packet->size);
        casync__spans_message(&messages[size].msg_hdr, &spans[size], 1);
        if (packet->address.size > 0) {
            messages[size].msg_hdr.msg_name = packet->address.storage.bytes;
            messages[size].msg_hdr.msg_namelen = packet->address.size;
        }
        size++;
    }
    count = casync__datagram_send_messages(datagram->endpoint.watcher.fd, messages, size);
    for (i = 0; i < count; i++) {
        casync__datagram_packet *packet = casync__datagram_packet_first(&datagram->out);
        casync__datagram_dequeue(datagram, packet, (int64_t)packet->size);
    }
    if (count == -EAGAIN) {
        casync__datagram_back_off(datagram);
    } else if (count < 0) {
        casync__datagram_packet *failed = casync__datagram_packet_first(&datagram->out);
        bool tell = !failed->op;
        casync__datagram_dequeue(datagram, failed, count);
        if (tell) casync__datagram_report_error(datagram, count);
    }
    return count == (int64_t)size || (count < 0 && count != -EAGAIN);
}

/* The socket is writable, or it is time to try again; or it ended. */
static void casync__datagram_writable(void *arg) {
    casync_datagram *datagram = (casync_datagram *)arg;
    casync_loop *loop = casync__datagram_loop(datagram);
    casync__weakref weak;
    bool more = true;
    int i;
    if (datagram->endpoint.state == CASYNC__ENDPOINT_ENDED) {
        datagram->endpoint.kind->lost(&datagram->endpoint);
        return;
    }
    casync__weakref_begin(loop, &weak, datagram);
    for (i = 0; i < CASYNC__DATAGRAM_BATCHES && more && !weak.gone && !loop->breaking; i++)
        more = !casync__list_is_empty(&datagram->out) && casync__datagram_send_batch(datagram);
    if (!weak.gone) casync__endpoint_resume_if_drained(&datagram->endpoint);
    if (!casync__weakref_end(loop, &weak) ||
        !casync__endpoint_is_open(casync__datagram_endpoint(datagram)))
        return;
    if (!casync__list_is_empty(&datagram->out)) {
        casync__datagram_want_write(datagram);
    } else {
        casync__watcher_stop(&datagram->endpoint.watcher, CASYNC__FD_WRITE);
        if (datagram->endpoint.state == CASYNC__ENDPOINT_FINISHING)
            casync__endpoint_end(&datagram->endpoint, 0);
    }
}

/* May the user send? */
static int64_t casync__datagram_check_send(const casync_datagram *datagram) {
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram))) return CASYNC_INVALID_STATE;
    return datagram->endpoint.state != CASYNC__ENDPOINT_OPEN ? -EPIPE : 0;
}

/* What the kernel says to it now; -EAGAIN also if others wait before it. */
static int64_t casync__datagram_send_now(casync_datagram *datagram, const casync_span *spans,
                                         size_t count, const casync_address *address) {
    struct msghdr message;
    int64_t result = casync__datagram_check_send(datagram);
    if (result < 0) return result;
    CASYNC_ASSERT(casync__loop_in_thread(casync__datagram_loop(datagram)));
    if (!spans && count > 0) return -EINVAL;
    if (casync__spans_size(spans, count) > CASYNC__BUFFER_SIZE_MAX) return -EMSGSIZE;
    if (!casync__list_is_empty(&datagram->out)) return -EAGAIN;
    if (count == 1)
        return casync__sys_sendto(datagram->endpoint.watcher.fd, spans[0].ptr, spans[0].len,
                                  address ? casync__address_sockaddr(address) : NULL,
                                  address ? address->size : 0);
    casync__spans_message(&message, spans, count);
    if (address) {
        message.msg_name = casync__address_sockaddr(address);
        message.msg_namelen = address->size;
    }
    return casync__sys_sendmsg(datagram->endpoint.watcher.fd, &message);
}

CASYNC__LINKAGE int64_t casync_datagram_writev(casync_datagram *datagram, const casync_span *spans,
                                               size_t count, const casync_address *address) {
    int64_t result = casync__datagram_send_now(datagram, spans, count, address);
    casync__datagram_packet *packet;
    size_t size;
    if (result != -EAGAIN) return result;
    size = casync__spans_size(spans, count);
    if (datagram->queued >= datagram->queue_limit ||
        size + CASYNC__DATAGRAM_COUNTED > datagram->queue_limit - datagram->queued)
        return -ENOBUFS;
    packet = casync__datagram_packet_make(casync__datagram_loop(datagram), spans, count, address);
    if (!packet) return -ENOMEM;
    casync__datagram_enqueue(datagram, packet);
    return (int64_t)size;
}

CASYNC__LINKAGE int64_t casync_datagram_write(casync_datagram *datagram, const void *data,
                                              size_t size, const casync_address *address) {
    casync_span span = casync__span_make(data, size);
    return casync_datagram_writev(datagram, &span, 1, address);
}

CASYNC__LINKAGE int64_t casync_datagram_try_write(casync_datagram *datagram, const void *data,
                                                  size_t size, const casync_address *address) {
    casync_span span = casync__span_make(data, size);
    return casync__datagram_send_now(datagram, &span, 1, address);
}

/* -- operations -- */

static casync_future *casync__datagram_op_begin(casync_datagram *datagram, casync_op *op,
                                                int kind) {
    casync__op_begin(casync__datagram_loop(datagram), op, kind);
    op->owner = datagram;
    return &op->future;
}

CASYNC__LINKAGE casync_future *casync_datagram_send_op(casync_datagram *datagram, casync_op *op,
                                                       const void *data, size_t size,
                                                       const casync_address *address) {
    casync__datagram_packet *packet;
    int64_t result;
    if (!op) return &casync__future_invalid;
    casync__datagram_op_begin(datagram, op, CASYNC__OP_SEND);
    result = casync_datagram_try_write(datagram, data, size, address);
    if (result != -EAGAIN) return casync__op_done(op, result, NULL);
    packet = casync__datagram_packet_make(casync__datagram_loop(datagram), NULL, 0, address);
    if (!packet) return casync__op_done(op, -ENOMEM, NULL);
    packet->op = op;
    packet->data = (const uint8_t *)data;
    packet->size = size;
    casync__datagram_enqueue(datagram, packet);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_datagram_send(casync_datagram *datagram, const void *data,
                                             size_t size, const casync_address *address) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__datagram_loop(datagram),
                            casync_datagram_send_op(datagram, &op, data, size, address));
}

CASYNC__LINKAGE casync_future *casync_datagram_receive_op(casync_datagram *datagram, casync_op *op,
                                                          void *buffer, size_t size,
                                                          casync_address *address) {
    if (!op) return &casync__future_invalid;
    casync__datagram_op_begin(datagram, op, CASYNC__OP_RECEIVE);
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram)) ||
        casync__datagram_protocol_reads(datagram->protocol))
        return casync__op_done(op, CASYNC_INVALID_STATE, NULL);
    if (datagram->endpoint.state != CASYNC__ENDPOINT_OPEN)
        return casync__op_done(op, -ECONNABORTED, NULL);
    if (!buffer && size > 0) return casync__op_done(op, -EINVAL, NULL);
    op->as.buffer.data = (uint8_t *)buffer;
    op->as.buffer.size = size;
    op->as.buffer.from = address;
    casync__list_append(&datagram->receiving, &op->link);
    casync__datagram_update_reading(datagram);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_datagram_receive(casync_datagram *datagram, void *buffer,
                                                size_t size, casync_address *address) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__datagram_loop(datagram),
                            casync_datagram_receive_op(datagram, &op, buffer, size, address));
}

CASYNC__LINKAGE casync_future *casync_datagram_drain_op(casync_datagram *datagram, casync_op *op) {
    return casync__endpoint_drain(casync__datagram_endpoint(datagram), op,
                                  casync__datagram_check_send(datagram));
}

CASYNC__LINKAGE int64_t casync_datagram_drain(casync_datagram *datagram) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__datagram_loop(datagram),
                            casync_datagram_drain_op(datagram, &op));
}

/* Takes the datagram of a send operation out of the queue. */
static void casync__datagram_send_abandon(casync_op *op) {
    casync_datagram *datagram = (casync_datagram *)op->owner;
    casync_link *link;
    for (link = datagram->out.next; link != &datagram->out; link = link->next) {
        casync__datagram_packet *packet = casync__container(link, casync__datagram_packet, link);
        if (packet->op != op) continue;
        packet->op = NULL;
        casync__datagram_dequeue(datagram, packet, 0);
        return; /* that the queue may be empty now is noticed when the socket is writable */
    }
}

static void casync__datagram_receive_abandon(casync_op *op) {
    casync__datagram_update_reading((casync_datagram *)op->owner);
}

/* -- the life of a datagram socket -- */

/* Bytes of datagrams that wait to be sent; those of operations hear of their end by these. */
static size_t casync__datagrams_size(const casync_datagram *datagram) {
    const casync_link *link;
    size_t size = 0;
    for (link = datagram->out.next; link != &datagram->out; link = link->next) {
        const casync__datagram_packet *packet = (const casync__datagram_packet *)(const void *)link;
        if (!packet->op) size += packet->size;
    }
    return size;
}

CASYNC__LINKAGE void casync_datagram_close(casync_datagram *datagram) {
    casync_loop *loop = casync__datagram_loop(datagram);
    casync__endpoint_loss loss;
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram))) return;
    casync__endpoint_loss_measure(&loss, casync__datagrams_size(datagram),
                                  datagram->endpoint.watcher.fd);
    casync__endpoint_close(&datagram->endpoint);
    casync__endpoint_loss_report(loop, &loss, "a datagram socket was closed before all was sent");
}

CASYNC__LINKAGE int64_t casync_datagram_abort(casync_datagram *datagram) {
    return casync__endpoint_abort(casync__datagram_endpoint(datagram));
}

CASYNC__LINKAGE int64_t casync_datagram_finish_start(casync_datagram *datagram) {
    return casync__endpoint_finish_start(casync__datagram_endpoint(datagram));
}

CASYNC__LINKAGE casync_future *casync_datagram_finish_op(casync_datagram *datagram, casync_op *op) {
    return casync__endpoint_finish(casync__datagram_endpoint(datagram), op);
}

CASYNC__LINKAGE int64_t casync_datagram_finish(casync_datagram *datagram) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__datagram_loop(datagram),
                            casync_datagram_finish_op(datagram, &op));
}

CASYNC__LINKAGE bool casync_datagram_is_open(const casync_datagram *datagram) {
    return casync__endpoint_is_open(casync__datagram_endpoint(datagram));
}

CASYNC__LINKAGE int64_t casync_datagram_set_protocol(casync_datagram *datagram,
                                                     const casync_datagram_protocol *protocol) {
    if (!casync__endpoint_is_open(casync__datagram_endpoint(datagram))) return CASYNC_INVALID_STATE;
    if (casync__datagram_protocol_reads(protocol)) {
        if (!casync__list_is_empty(&datagram->receiving)) return -EBUSY;
        if (casync__datagram_area_make(casync__datagram_loop(datagram)) < 0) return -ENOMEM;
    }
    datagram->protocol = protocol;
    casync__datagram_update_reading(datagram);
    return 0;
}

CASYNC__LINKAGE int64_t casync_datagram_pause_reading(casync_datagram *datagram) {
    return casync__endpoint_set_reading_paused(casync__datagram_endpoint(datagram), true);
}

CASYNC__LINKAGE int64_t casync_datagram_resume_reading(casync_datagram *datagram) {
    return casync__endpoint_set_reading_paused(casync__datagram_endpoint(datagram), false);
}

CASYNC__LINKAGE int64_t casync_datagram_set_write_limits(casync_datagram *datagram, size_t high,
                                                         size_t low) {
    return casync__endpoint_set_write_limits(casync__datagram_endpoint(datagram), high, low);
}

CASYNC__LINKAGE void casync_datagram_ref(casync_datagram *datagram, bool referenced) {
    if (!datagram) return;
    casync_watcher_ref(&datagram->endpoint.watcher, referenced);
    casync_timer_ref(&datagram->retry, referenced);
}

CASYNC__LINKAGE int64_t casync_datagram_local_address(const casync_datagram *datagram,
                                                      casync_address *address) {
    return casync__endpoint_address(casync__datagram_endpoint(datagram), casync__sys_getsockname,
                                    address);
}

CASYNC__LINKAGE int64_t casync_datagram_peer_address(const casync_datagram *datagram,
                                                     casync_address *address) {
    return casync__endpoint_address(casync__datagram_endpoint(datagram), casync__sys_getpeername,
                                    address);
}

/* -- options of the socket -- */

CASYNC__LINKAGE int64_t casync_datagram_set_broadcast(casync_datagram *datagram, bool on) {
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram))) return -EBADF;
    return casync__socket_set_int(datagram->endpoint.watcher.fd, SOL_SOCKET, SO_BROADCAST, on);
}

CASYNC__LINKAGE int64_t casync_datagram_set_ttl(casync_datagram *datagram, int hops) {
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram))) return -EBADF;
    return casync__socket_set_ip(datagram->endpoint.watcher.fd, IP_TTL, IPV6_UNICAST_HOPS, hops);
}

CASYNC__LINKAGE int64_t casync_datagram_set_multicast_interface(casync_datagram *datagram,
                                                                const char *interface) {
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram))) return -EBADF;
    return casync__socket_set_multicast_interface(datagram->endpoint.watcher.fd, interface);
}

CASYNC__LINKAGE int64_t casync_datagram_set_multicast_ttl(casync_datagram *datagram, int hops) {
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram))) return -EBADF;
    return casync__socket_set_ip(datagram->endpoint.watcher.fd, IP_MULTICAST_TTL,
                                 IPV6_MULTICAST_HOPS, hops);
}

CASYNC__LINKAGE int64_t casync_datagram_set_multicast_loop(casync_datagram *datagram, bool on) {
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram))) return -EBADF;
    return casync__socket_set_ip(datagram->endpoint.watcher.fd, IP_MULTICAST_LOOP,
                                 IPV6_MULTICAST_LOOP, on);
}

/* Joins or leaves, by the option of the two that fits. */
static int64_t casync__datagram_change_membership(casync_datagram *datagram, const char *group,
                                                  const char *interface, const char *source,
                                                  int option, int option_with_source) {
    struct group_source_req request;
    struct group_req any;
    int64_t result = casync__address_parse_membership(group, interface, source, &request);
    int level = request.gsr_group.ss_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    if (!casync__endpoint_has_fd(casync__datagram_endpoint(datagram))) return -EBADF;
    if (result < 0) return result;
    if (source)
        return casync__sys_setsockopt(datagram->endpoint.watcher.fd, level, option_with_source,
                                      &request, sizeof request);
    memset(&any, 0, sizeof any);
    any.gr_interface = request.gsr_interface;
    any.gr_group = request.gsr_group;
    return casync__sys_setsockopt(datagram->endpoint.watcher.fd, level, option, &any, sizeof any);
}

CASYNC__LINKAGE int64_t casync_datagram_join_group(casync_datagram *datagram, const char *group,
                                                   const char *interface, const char *source) {
    if (!group) return -EINVAL;
    return casync__datagram_change_membership(datagram, group, interface, source, MCAST_JOIN_GROUP,
                                              MCAST_JOIN_SOURCE_GROUP);
}

CASYNC__LINKAGE int64_t casync_datagram_leave_group(casync_datagram *datagram, const char *group,
                                                    const char *interface, const char *source) {
    if (!group) return -EINVAL;
    return casync__datagram_change_membership(datagram, group, interface, source, MCAST_LEAVE_GROUP,
                                              MCAST_LEAVE_SOURCE_GROUP);
}

/* -- opening -- */

static int64_t casync__datagram_configure(int fd, const casync_datagram_desc *desc) {
    int64_t result = 0;
    if (desc->reuse_address) result = casync__socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (result == 0 && desc->reuse_port)
        result = casync__socket_set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (result == 0 && desc->broadcast)
        result = casync__socket_set_int(fd, SOL_SOCKET, SO_BROADCAST, 1);
    if (result == 0 && desc->receive_buffer)
        result = casync__socket_set_int(fd, SOL_SOCKET, SO_RCVBUF, desc->receive_buffer);
    if (result == 0 && desc->send_buffer)
        result = casync__socket_set_int(fd, SOL_SOCKET, SO_SNDBUF, desc->send_buffer);
    if (result == 0 && desc->multicast_interface)
        result = casync__socket_set_multicast_interface(fd, desc->multicast_interface);
    if (result == 0 && desc->multicast_ttl)
        result =
            casync__socket_set_ip(fd, IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS, desc->multicast_ttl);
    if (result == 0 && desc->no_multicast_loop)
        result = casync__socket_set_ip(fd, IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP, 0);
    return result;
}

/* Where the desc leads: addresses of size 0 where it says nothing. */
static int64_t casync__datagram_addresses(const casync_datagram_desc *desc, casync_address *local,
                                          casync_address *remote) {
    int64_t result = 0;
    bool ipv4;
    local->size = remote->size = 0;
    if (desc->remote_address)
        *remote = *desc->remote_address;
    else if (desc->remote_path)
        result = casync__address_parse_path(desc->remote_path, remote);
    else if (desc->remote_host || desc->remote_port)
        result = casync__address_parse_host(desc->remote_host ? desc->remote_host : "127.0.0.1",
                                            desc->remote_port, remote);
    if (result < 0) return result;
    ipv4 = remote->size > 0 && casync__address_sockaddr(remote)->sa_family == AF_INET;
    if (desc->local_address)
        *local = *desc->local_address;
    else if (desc->local_path)
        result = casync__address_parse_path(desc->local_path, local);
    else if (desc->local_host || desc->local_port || remote->size == 0)
        result = casync__address_parse_host(desc->local_host ? desc->local_host
                                            : ipv4           ? "0.0.0.0"
                                                             : "::",
                                            desc->local_port, local);
    return result;
}

static int64_t casync__datagram_bind(int fd, const casync_datagram_desc *desc,
                                     const casync_address *local) {
    int64_t result = 0;
    if (local->size == 0) return 0;
    if (casync__address_sockaddr(local)->sa_family == AF_INET6)
        result = casync__socket_set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, desc->ipv6_only);
    if (desc->local_path) casync__socket_remove_file(desc->local_path);
    return result < 0 ? result : casync__sys_bind(fd, casync__address_sockaddr(local), local->size);
}

/* A socket that is bound and connected as the desc says. */
static int64_t casync__datagram_socket(const casync_datagram_desc *desc) {
    casync_address local, remote;
    int64_t fd, result = casync__datagram_addresses(desc, &local, &remote);
    if (result < 0) return result;
    fd = casync__sys_datagram_socket(
        casync__address_sockaddr(local.size ? &local : &remote)->sa_family);
    if (fd == -EAFNOSUPPORT && remote.size == 0 && !desc->local_host) { /* a kernel without IPv6 */
        casync__address_parse_host("0.0.0.0", desc->local_port, &local);
        fd = casync__sys_datagram_socket(AF_INET);
    }
    if (fd < 0) return fd;
    result = casync__datagram_configure((int)fd, desc);
    if (result == 0) result = casync__datagram_bind((int)fd, desc, &local);
    if (result == 0 && remote.size > 0)
        result = casync__sys_connect((int)fd, casync__address_sockaddr(&remote), remote.size);
    if (result == 0) return fd;
    casync__sys_close((int)fd);
    return result;
}

/* A given descriptor may block: every call asks for itself that it does not. */
static int64_t casync__datagram_adopt(const casync_datagram_desc *desc) {
    int type = 0;
    socklen_t size = sizeof type;
    int64_t result = casync__sys_getsockopt(desc->fd, SOL_SOCKET, SO_TYPE, &type, &size);
    if (result == 0 && type == SOCK_STREAM) result = -EPROTOTYPE;
    if (result == 0) result = casync__datagram_configure(desc->fd, desc);
    return result < 0 ? result : desc->fd;
}

/* -- a datagram socket as an endpoint -- */

static size_t casync__datagram_queued(const casync_endpoint *endpoint) {
    return casync__datagram_of(endpoint)->queued;
}

static void casync__datagram_reading(casync_endpoint *endpoint) {
    casync__datagram_update_reading(casync__datagram_of(endpoint));
}

static void casync__datagram_tell_writing(casync_endpoint *endpoint) {
    casync_datagram *datagram = casync__datagram_of(endpoint);
    const casync_datagram_protocol *protocol = datagram->protocol;
    void (*tell)(casync_datagram * datagram);
    if (!protocol) return;
    tell = endpoint->writing_paused ? protocol->pause_writing : protocol->resume_writing;
    if (tell) tell(datagram);
}

static void casync__datagram_flush(casync_endpoint *endpoint) {
    if (casync__list_is_empty(&casync__datagram_of(endpoint)->out))
        casync__endpoint_end(endpoint, 0);
}

static void casync__datagram_drop(casync_endpoint *endpoint, int64_t error) {
    casync_datagram *datagram = casync__datagram_of(endpoint);
    casync__datagram_packet *packet;
    casync_timer_stop(&datagram->retry);
    casync__ops_done(&datagram->receiving, error);
    while ((packet = casync__datagram_packet_first(&datagram->out)) != NULL)
        casync__datagram_dequeue(datagram, packet, error);
    while ((packet = casync__datagram_packet_first(&datagram->in)) != NULL) {
        casync__list_remove(&packet->link);
        casync__memory_free(&casync__endpoint_loop(endpoint)->allocator, packet);
    }
    casync__endpoint_end_soon(endpoint);
}

static void casync__datagram_close(casync_endpoint *endpoint) {
    casync_datagram_close(casync__datagram_of(endpoint));
}

static void casync__datagram_lost(casync_endpoint *endpoint) {
    casync_datagram *datagram = casync__datagram_of(endpoint);
    const casync_datagram_protocol *protocol = datagram->protocol;
    int64_t error = endpoint->error;
    casync__endpoint_close_ended(endpoint);
    if (protocol && protocol->connection_lost) protocol->connection_lost(datagram, error);
}

static const casync__endpoint_kind casync__datagram_kind = {
    casync__datagram_queued, casync__datagram_reading, casync__datagram_tell_writing,
    casync__datagram_flush,  casync__datagram_drop,    casync__datagram_close,
    casync__datagram_lost};

static int64_t casync__datagram_begin(casync_loop *loop, casync_datagram *datagram, int fd,
                                      const casync_datagram_desc *desc) {
    int64_t family = casync__socket_family(fd), result = family;
    size_t default_size = family == AF_UNIX ? CASYNC__DATAGRAM_UNIX_SIZE : CASYNC__DATAGRAM_SIZE;
    if (family >= 0)
        result = casync__endpoint_begin(loop, &datagram->endpoint, fd, CASYNC__WATCHER_DATAGRAM,
                                        &casync__datagram_kind, desc->high_water, desc->low_water);
    if (result < 0) return result;
    casync__job_init(loop, &datagram->endpoint.watcher.reader, casync__datagram_readable, datagram);
    casync__job_init(loop, &datagram->endpoint.watcher.writer, casync__datagram_writable, datagram);
    if (!desc->use_fd) datagram->endpoint.options |= CASYNC__ENDPOINT_FD_UNSHARED;
    if (desc->use_fd && desc->keep_fd) datagram->endpoint.options |= CASYNC__ENDPOINT_FD_KEPT;
    datagram->endpoint.options |= CASYNC__ENDPOINT_CLOSES_ITSELF;
    datagram->endpoint.reading_paused = desc->start_paused;

    datagram->protocol = desc->protocol;
    datagram->user = desc->user;
    datagram->queued = 0;
    datagram->queue_limit = desc->queue_limit ? desc->queue_limit : CASYNC__DATAGRAM_QUEUE_LIMIT;
    datagram->max_size = desc->max_size ? desc->max_size : default_size;
    casync__list_init(&datagram->out);
    casync__list_init(&datagram->in);
    casync__list_init(&datagram->receiving);
    casync__datagram_update_reading(datagram);
    return 0;
}

static int64_t casync__datagram_open(casync_loop *loop, casync_datagram *datagram,
                                     const casync_datagram_desc *desc) {
    int64_t fd, result;
    if (casync__endpoint_has_fd(&datagram->endpoint)) return -EALREADY;
    if (desc->low_water > casync__endpoint_high_water(desc->high_water) ||
        desc->max_size > CASYNC__DATAGRAM_AREA)
        return -EINVAL;
    if (casync__datagram_protocol_reads(desc->protocol) && casync__datagram_area_make(loop) < 0)
        return -ENOMEM;
    fd = desc->use_fd ? casync__datagram_adopt(desc) : casync__datagram_socket(desc);
    if (fd < 0) return fd;
    result = desc->use_fd && !desc->keep_fd ? casync__fd_set_cloexec((int)fd) : 0;
    if (result >= 0) result = casync__datagram_begin(loop, datagram, (int)fd, desc);
    if (result < 0 && !desc->use_fd) casync__sys_close((int)fd);
    return result;
}

/* The current task waits for the addresses of a host; none without a host. */
static int64_t casync__datagram_look_up(casync_loop *loop, casync_addrinfo *info, const char *host,
                                        int port) {
    casync_getaddrinfo_desc question;
    memset(info, 0, sizeof *info);
    if (!host) return 0;
    memset(&question, 0, sizeof question);
    question.host = host;
    question.port = port;
    question.type = SOCK_DGRAM;
    return casync_getaddrinfo(loop, info, &question);
}

/* Opens with the first pair of addresses that works. */
static int64_t casync__datagram_open_at_any(casync_loop *loop, casync_datagram *datagram,
                                            const casync_datagram_desc *desc,
                                            const casync_addrinfo *local,
                                            const casync_addrinfo *remote) {
    int64_t result = CASYNC_EAI_ADDRFAMILY;
    casync_datagram_desc pair = *desc;
    size_t i, j;
    for (i = 0; i < remote->count || i == 0; i++) {
        if (remote->count > 0) pair.remote_address = &remote->addresses[i];
        for (j = 0; j < local->count || j == 0; j++) {
            if (local->count > 0) pair.local_address = &local->addresses[j];
            if (local->count > 0 && remote->count > 0 &&
                casync__address_sockaddr(pair.local_address)->sa_family !=
                    casync__address_sockaddr(pair.remote_address)->sa_family)
                continue;
            result = casync__datagram_open(loop, datagram, &pair);
            if (result >= 0) return result;
        }
    }
    return result;
}

static int64_t casync__datagram_open_by_name(casync_loop *loop, casync_datagram *datagram,
                                             const casync_datagram_desc *desc) {
    casync_addrinfo local, remote;
    int64_t result = casync__datagram_look_up(loop, &remote, desc->remote_host, desc->remote_port);
    if (result < 0) return result;
    result = casync__datagram_look_up(loop, &local, desc->local_host, desc->local_port);
    if (result >= 0) result = casync__datagram_open_at_any(loop, datagram, desc, &local, &remote);
    casync_addrinfo_free(&local);
    casync_addrinfo_free(&remote);
    return result;
}

CASYNC__LINKAGE int64_t casync_datagram_open(casync_loop *loop, casync_datagram *datagram,
                                             const casync_datagram_desc *desc) {
    int64_t result;
    if (casync__loop_is_closed(loop) || !datagram || !desc) return -EINVAL;
    result = casync__datagram_open(loop, datagram, desc);
    if (result == CASYNC_NOT_NUMERIC && casync__fiber_current(loop))
        result = casync__datagram_open_by_name(loop, datagram, desc);
    return result;
}

/* Nobody will say when it can receive, or send what is queued. */
static bool casync__datagram_refused(casync_watcher *watcher, int64_t error) {
    casync_datagram *datagram = (casync_datagram *)(void *)watcher;
    casync_loop *loop = casync__datagram_loop(datagram);
    casync__datagram_packet *packet;
    casync_link *link;
    casync__weakref weak;
    size_t count = 0; /* not what error_received queues anew */
    for (link = datagram->out.next; link != &datagram->out; link = link->next) count++;
    casync__weakref_begin(loop, &weak, datagram);
    casync__ops_done(&datagram->receiving, error);
    while (count-- > 0 && !weak.gone &&
           (packet = casync__datagram_packet_first(&datagram->out)) != NULL) {
        bool tell = !packet->op;
        casync__datagram_dequeue(datagram, packet, error);
        if (tell) casync__datagram_report_error(datagram, error);
    }
    if (!weak.gone) casync__endpoint_resume_if_drained(&datagram->endpoint);
    if (casync__weakref_end(loop, &weak) && datagram->endpoint.state == CASYNC__ENDPOINT_FINISHING)
        casync__endpoint_end(&datagram->endpoint, error);
    return false;
}

/* >> terminals (implementation) ---------------------------------------------------------------- */

/* A terminal outlives the process that changed its mode, so whatever ends that process sets it
   back: atexit(3), and handlers of the signals whose default is to end or to stop it. The handlers
   make one tcsetattr(3), which POSIX allows in them, and let the signal do what it does by default.
   A forked child that exits is not the process that changed it.

   Costs: a tcsetattr and two sigaction for each signal of the list. */

static const int casync__terminal_signals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGABRT, SIGBUS,
                                               SIGFPE,  SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1,
                                               SIGUSR2, SIGXCPU, SIGSYS,  SIGTSTP, SIGCONT};

static bool casync__terminal_is_changed(void) {
    return casync__atomic_load(&casync__process.terminal_pid) == (uint32_t)getpid();
}

/* Also in signal handlers. */
static void casync__terminal_restore(void) {
    if (casync__terminal_is_changed())
        casync__sys_tcsetattr(casync__process.terminal_fd, &casync__process.terminal_normal);
}

static void casync__terminal_change_again(void) {
    if (casync__terminal_is_changed())
        casync__sys_tcsetattr(casync__process.terminal_fd, &casync__process.terminal_mode);
}

static void casync__terminal_handler(int signum);

static void casync__terminal_install(int signum) {
    struct sigaction action, current;
    memset(&action, 0, sizeof action);
    action.sa_handler = casync__terminal_handler;
    action.sa_flags = SA_ONSTACK; /* of a task that overflowed its own */
    if (casync__sys_sigaction(signum, NULL, &current) == 0 && !(current.sa_flags & SA_SIGINFO) &&
        current.sa_handler == SIG_DFL)
        (void)casync__sys_sigaction(signum, &action, NULL);
}

static void casync__terminal_uninstall(int signum) {
    struct sigaction action, current;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    if (casync__sys_sigaction(signum, NULL, &current) == 0 && !(current.sa_flags & SA_SIGINFO) &&
        current.sa_handler == casync__terminal_handler)
        (void)casync__sys_sigaction(signum, &action, NULL);
}

/* Does what the signal does by default: the process ends here, or stops until it is continued. */
static void casync__terminal_default(int signum) {
    sigset_t set = casync__signal_set(signum), before;
    casync__terminal_uninstall(signum);
    raise(signum);
    casync__sys_thread_sigmask(SIG_UNBLOCK, &set, &before);
    casync__sys_thread_sigmask(SIG_SETMASK, &before, NULL);
    casync__terminal_install(signum);
}

static void casync__terminal_handler(int signum) {
    int error = errno;
    if (signum != SIGCONT) {
        casync__terminal_restore();
        casync__terminal_default(signum);
    }
    casync__terminal_change_again();
    errno = error;
}

static void casync__terminal_for_each_signal(void (*act)(int signum)) {
    size_t i;
    for (i = 0; i < sizeof casync__terminal_signals / sizeof *casync__terminal_signals; i++)
        act(casync__terminal_signals[i]);
}

static void casync__terminal_make(struct termios *mode, bool raw) {
    mode->c_iflag &= (tcflag_t) ~(ICRNL | INLCR | IGNCR);
    mode->c_lflag &= (tcflag_t) ~(ECHO | ICANON);
    mode->c_cc[VMIN] = 1;
    mode->c_cc[VTIME] = 0;
    if (!raw) return;
    mode->c_iflag &= (tcflag_t) ~(BRKINT | INPCK | ISTRIP | IXON);
    mode->c_lflag &= (tcflag_t) ~(ISIG | IEXTEN);
    mode->c_cflag &= (tcflag_t)~CSIZE;
    mode->c_cflag |= CS8;
}

/* With the process's mutex. */
static int64_t casync__terminal_set_normal(int fd) {
    int64_t result;
    if (!casync__terminal_is_changed() || casync__process.terminal_fd != fd) return 0;
    result = casync__sys_tcsetattr(fd, &casync__process.terminal_normal);
    casync__terminal_for_each_signal(casync__terminal_uninstall);
    casync__atomic_store(&casync__process.terminal_pid, 0);
    return result;
}

/* The same. */
static int64_t casync__terminal_change(int fd, bool raw) {
    struct termios mode;
    bool again = casync__terminal_is_changed();
    int64_t result = again ? 0 : casync__sys_tcgetattr(fd, &mode);
    if (again && casync__process.terminal_fd != fd) return -EBUSY;
    if (result < 0) return result;
    if (again) mode = casync__process.terminal_normal;
    casync__process.terminal_normal = mode;
    casync__terminal_make(&mode, raw);
    result = casync__sys_tcsetattr(fd, &mode);
    if (result < 0) return result;
    casync__process.terminal_mode = mode;
    casync__process.terminal_fd = fd;
    casync__atomic_store(&casync__process.terminal_pid, (uint32_t)getpid());
    if (!casync__process.restores_terminal) atexit(casync__terminal_restore);
    casync__process.restores_terminal = true;
    casync__terminal_for_each_signal(casync__terminal_install);
    return 0;
}

CASYNC__LINKAGE int64_t casync_terminal_set_mode(int fd, int mode) {
    struct termios now;
    int64_t result = mode < CASYNC_TERMINAL_NORMAL || mode > CASYNC_TERMINAL_RAW
                         ? -EINVAL
                         : casync__sys_tcgetattr(fd, &now);
    if (result < 0) return result;
    casync__process_lock();
    result = mode == CASYNC_TERMINAL_NORMAL
                 ? casync__terminal_set_normal(fd)
                 : casync__terminal_change(fd, mode == CASYNC_TERMINAL_RAW);
    pthread_mutex_unlock(&casync__process.mutex);
    return result;
}

CASYNC__LINKAGE int64_t casync_terminal_size(int fd, int *columns, int *rows) {
    struct winsize size;
    int64_t result = columns && rows ? casync__sys_get_window_size(fd, &size) : -EINVAL;
    if (result < 0) return result;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return 0;
}

CASYNC__LINKAGE int64_t casync_openpty(int fds[2], int columns, int rows) {
    struct winsize size;
    int64_t user, terminal;
    if (!fds || columns < 0 || columns > UINT16_MAX || rows < 0 || rows > UINT16_MAX)
        return -EINVAL;
    memset(&size, 0, sizeof size);
    size.ws_col = (unsigned short)columns;
    size.ws_row = (unsigned short)rows;
    user = casync__sys_open("/dev/ptmx", O_RDWR | O_NOCTTY, 0);
    if (user < 0) return user;
    terminal = casync__sys_pty_unlock((int)user);
    if (terminal == 0) terminal = casync__sys_set_window_size((int)user, &size);
    if (terminal == 0) terminal = casync__sys_pty_peer((int)user);
    if (terminal < 0) {
        casync__sys_close((int)user);
        return terminal;
    }
    fds[0] = (int)user;
    fds[1] = (int)terminal;
    return 0;
}

/* >> processes (implementation) ---------------------------------------------------------------- */

/* A child is started by vfork(2), which copies no memory and holds the caller up until the child
   runs its program; by fork(2) if its ids are to change. All that needs memory is made before: the
   child makes system calls alone. If one of them fails it writes which, and the error, to a pipe
   that closes with execve(2). After a vfork the parent need not wait for that pipe: the child has
   run its program or failed. A copy (fork, and what valgrind and qemu-user make of vfork) is waited
   for to the pipe's end; plan->shared tells the two apart. All signals are blocked from before the
   start until the child has no handler of its parent's.

   A child that runs has a record in loop->children, which outlives its casync_process. The loop
   waits for its pidfd; where there is none, a thread of the loop's reaper pool waits for its end,
   and leaves the status, so that the number stays the child's. When the child ended the loop takes
   the status. A loop that closes kills its children that have not ended, and waits for them, or
   leaves each to a thread. A process that is no child has such a record while somebody waits for
   its end.

   Costs: vfork, and some ten short calls for the pipe and the mask of signals; in the child a
   sigaction for each signal, a close_range for each gap between descriptors that it keeps, and
   execve. A pidfd, one epoll_ctl and one waitid for its end. */

typedef struct casync__process_child {
    casync_watcher watcher; /* of the pidfd; unused without one */
    casync_link link;       /* in loop->children */
    casync_loop *loop;
    casync_process *process; /* NULL when it is closed */
    casync_link waiting;     /* casync_op by link */
    casync_op ended;         /* of the call in the reaper pool, without a pidfd */
    casync_timer timer;      /* looks for a foreign process, without a pidfd */
    int pid, pidfd;
    uint32_t fork_generation;
    bool detached;
    bool foreign; /* casync_wait_pid's: no child, or somebody else's */
} casync__process_child;

/* What the vfork child works with. */
typedef struct casync__process_plan {
    const casync_process_desc *desc;
    char *const *args, *const *env;
    char **programs;          /* paths to try, NULL at the end */
    casync_process_fd *moves; /* what becomes which descriptor, all at once */
    size_t move_count;
    int report;           /* where to write what failed */
    volatile bool shared; /* set by the child: this process sees it if the memory is shared */
    int highest;          /* of the descriptors of moves, and 2 */
    int priority;
    int64_t most_fds; /* that may be open in this process */
} casync__process_plan;

typedef struct casync__process_failure {
    int64_t error;
    const char *step;
} casync__process_failure;

/* -- in the child, until it runs its program -- */

static void casync__process_fail(const casync__process_plan *plan, const char *step,
                                 int64_t error) {
    casync__process_failure failure;
    failure.error = error;
    failure.step = step;
    (void)casync__sys_write(plan->report, &failure, sizeof failure);
    _exit(127);
}

static int64_t casync__process_try(const casync__process_plan *plan, const char *step,
                                   int64_t result) {
    if (result < 0) casync__process_fail(plan, step, result);
    return result;
}

/* No handler of the parent's may run here; and ignored signals would stay so. */
static void casync__process_reset_signals(void) {
    struct sigaction action;
    int signum;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    for (signum = 1; signum < NSIG; signum++) /* for some of these that is EINVAL */
        (void)casync__sys_sigaction(signum, &action, NULL);
}

static void casync__process_set_limits(const casync__process_plan *plan) {
    size_t i;
    for (i = 0; i < plan->desc->limit_count; i++) {
        struct rlimit limit;
        limit.rlim_cur = (rlim_t)plan->desc->limits[i].soft;
        limit.rlim_max = (rlim_t)plan->desc->limits[i].hard;
        casync__process_try(plan, "setrlimit",
                            casync__sys_setrlimit(plan->desc->limits[i].resource, &limit));
    }
}

/* First out of the way of each other, then to where they belong. */
static void casync__process_move_fds(casync__process_plan *plan) {
    size_t i;
    plan->report = (int)casync__process_try(
        plan, "fcntl", casync__sys_fcntl(plan->report, F_DUPFD_CLOEXEC, plan->highest + 1));
    for (i = 0; i < plan->move_count; i++)
        if (plan->moves[i].fd <= plan->highest)
            plan->moves[i].fd = (int)casync__process_try(
                plan, "fcntl",
                casync__sys_fcntl(plan->moves[i].fd, F_DUPFD_CLOEXEC, plan->highest + 1));
    for (i = 0; i < plan->move_count; i++)
        casync__process_try(plan, "dup2", casync__sys_dup2(plan->moves[i].fd, plan->moves[i].as));
}

/* Closes by what /proc/self/fd lists, or one by one: without close_range(2). */
static void casync__process_close_listed(int64_t first, int64_t last, int64_t most) {
    int64_t directory = casync__sys_open("/proc/self/fd", O_RDONLY | O_DIRECTORY, 0), size, fd;
    union {
        int64_t align;
        char bytes[1024];
    } entries;
    if (directory < 0) {
        for (fd = first; fd <= last && fd < most; fd++) (void)casync__sys_close((int)fd);
        return;
    }
    while ((size = casync__sys_read_directory((int)directory, entries.bytes, sizeof entries)) > 0) {
        int64_t at = 0;
        while (at < size) { /* struct linux_dirent64: the name is behind 19 bytes */
            uint16_t length;
            memcpy(&length, entries.bytes + at + 16, sizeof length);
            fd = atoi(entries.bytes + at + 19);
            if (fd >= first && fd <= last && fd != directory) (void)casync__sys_close((int)fd);
            at += length;
        }
    }
    (void)casync__sys_close((int)directory);
}

/* The lowest descriptor from `from` on that the child keeps. */
static int64_t casync__process_next_kept(const casync__process_plan *plan, int64_t from) {
    int64_t lowest = plan->report >= from ? plan->report : INT_MAX;
    size_t i;
    for (i = 0; i < plan->move_count; i++)
        if (plan->moves[i].as >= from && plan->moves[i].as < lowest) lowest = plan->moves[i].as;
    return lowest;
}

static void casync__process_close_others(const casync__process_plan *plan) {
    int64_t from = 3;
    while (from < INT_MAX) {
        int64_t kept = casync__process_next_kept(plan, from);
        if (kept > from && casync__sys_close_range((unsigned)from, (unsigned)kept - 1) < 0)
            casync__process_close_listed(from, kept - 1, plan->most_fds);
        from = kept + 1;
    }
}

static void casync__process_set_ids(const casync__process_plan *plan) {
    const casync_process_desc *desc = plan->desc;
    if (desc->groups)
        casync__process_try(plan, "setgroups",
                            casync__sys_setgroups(desc->group_count, desc->groups));
    if (desc->set_group) casync__process_try(plan, "setgid", casync__sys_setgid(desc->group));
    if (desc->set_user) casync__process_try(plan, "setuid", casync__sys_setuid(desc->user));
}

/* Where a program is not there the next is tried; what cannot be run for another reason is told if
   none can. */
static void casync__process_execute(const casync__process_plan *plan) {
    int64_t told = -ENOENT;
    char *const *program;
    for (program = plan->programs; *program; program++) {
        int64_t error = casync__sys_execve(*program, plan->args, plan->env);
        if (error != -ENOENT && error != -ENOTDIR) told = error;
    }
    casync__process_fail(plan, "execve", told);
}

static void casync__process_run(void *arg) {
    casync__process_plan *plan = (casync__process_plan *)arg;
    const casync_process_desc *desc = plan->desc;
    sigset_t none;
    plan->shared = true;
    sigemptyset(&none);
    casync__process_reset_signals();
    casync__process_move_fds(plan);
    if (desc->new_session || desc->terminal)
        casync__process_try(plan, "setsid", casync__sys_setsid());
    if (desc->terminal) casync__process_try(plan, "TIOCSCTTY", casync__sys_take_terminal(0));
    if (desc->set_process_group)
        casync__process_try(plan, "setpgid", casync__sys_setpgid(desc->process_group));
    if (desc->set_umask) (void)casync__sys_umask(desc->umask);
    if (desc->nice)
        casync__process_try(plan, "setpriority", casync__sys_setpriority(plan->priority));
    casync__process_set_limits(plan);
    if (desc->cwd) casync__process_try(plan, "chdir", casync__sys_chdir(desc->cwd));
    casync__process_set_ids(plan);
    if (!desc->keep_fds) casync__process_close_others(plan);
    casync__process_try(plan, "sigprocmask", casync__sys_thread_sigmask(SIG_SETMASK, &none, NULL));
    casync__process_execute(plan);
}

/* -- the plan -- */

/* Where to search for a program: PATH of the child's environment. */
static const char *casync__process_search_path(const casync_process_desc *desc) {
    const char *const *variable = desc->env;
    const char *path = desc->env ? NULL : getenv("PATH");
    for (; variable && *variable && !path; variable++)
        if (strncmp(*variable, "PATH=", 5) == 0) path = *variable + 5;
    return path ? path : "/usr/local/bin:/bin:/usr/bin";
}

/* Every place where the program may be: an array of paths, which are behind it. */
static char **casync__process_programs(const casync_allocator *allocator,
                                       const casync_process_desc *desc, const char *program) {
    bool searches = !strchr(program, '/');
    const char *path = searches ? casync__process_search_path(desc) : "";
    size_t length = strlen(program), count = 1, i;
    char **programs, *text;
    const char *at;
    for (at = path; *at; at++) count += *at == ':';
    programs = (char **)casync__memory_realloc(
        allocator, NULL, (count + 1) * sizeof *programs + strlen(path) + count * (length + 2));
    if (!programs) return NULL;
    text = (char *)(programs + count + 1);
    for (i = 0, at = path; i < count; i++) {
        size_t size = strcspn(at, ":");
        programs[i] = text;
        memcpy(text, at, size);
        text += size;
        if (size > 0) *text++ = '/';
        memcpy(text, program, length + 1);
        text += length + 1;
        at += size + (at[size] == ':');
    }
    programs[count] = NULL;
    return programs;
}

static void casync__process_add_move(casync__process_plan *plan, int fd, int as) {
    plan->moves[plan->move_count].fd = fd;
    plan->moves[plan->move_count++].as = as;
    if (as > plan->highest) plan->highest = as;
}

/* The descriptors of this process while it starts a child, or -1: the child's ends of pipes, and
   this process's. */
typedef struct casync__process_pipes {
    int theirs[3], ours[3], null;
} casync__process_pipes;

static void casync__process_close_fds(int *fds, int count) {
    int i;
    for (i = 0; i < count; i++) {
        if (fds[i] >= 0) casync__sys_close(fds[i]);
        fds[i] = -1;
    }
}

static int64_t casync__process_make_pipe(casync__process_pipes *pipes, int number) {
    int fds[2];
    int64_t result = casync__sys_blocking_pipe(fds);
    if (result < 0) return result;
    pipes->theirs[number] = fds[number == 0 ? 0 : 1];
    pipes->ours[number] = fds[number == 0 ? 1 : 0];
    return 0;
}

/* Makes what one standard descriptor of the child is. */
static int64_t casync__process_plan_stdio(casync__process_plan *plan, casync__process_pipes *pipes,
                                          int number, int kind, int fd) {
    int64_t result = 0;
    switch (kind) {
    case CASYNC_STDIO_INHERIT:
        return 0;
    case CASYNC_STDIO_NULL:
        if (pipes->null < 0) {
            result = casync__sys_open("/dev/null", O_RDWR, 0);
            if (result < 0) return result;
            pipes->null = (int)result;
        }
        fd = pipes->null;
        break;
    case CASYNC_STDIO_PIPE:
        result = casync__process_make_pipe(pipes, number);
        if (result < 0) return result;
        fd = pipes->theirs[number];
        break;
    case CASYNC_STDIO_STDOUT:
        fd = plan->desc->out == CASYNC_STDIO_INHERIT ? 1 : plan->moves[plan->move_count - 1].fd;
        break;
    default:
        break;
    }
    casync__process_add_move(plan, fd, number);
    return 0;
}

/* A descriptor that is not open would become one of those that are opened for the child. */
static int64_t casync__process_check_fds(const casync_process_desc *desc) {
    int given[3], i;
    int64_t result = 0;
    size_t j;
    given[0] = desc->in == CASYNC_STDIO_FD ? desc->in_fd : -1;
    given[1] = desc->out == CASYNC_STDIO_FD ? desc->out_fd : -1;
    given[2] = desc->err == CASYNC_STDIO_FD ? desc->err_fd : -1;
    if (desc->err == CASYNC_STDIO_STDOUT && desc->out == CASYNC_STDIO_INHERIT) given[2] = 1;
    for (i = 0; i < 3 && result >= 0; i++)
        if (given[i] >= 0) result = casync__sys_fcntl(given[i], F_GETFD, 0);
    for (j = 0; j < desc->fd_count && result >= 0; j++)
        result = casync__sys_fcntl(desc->fds[j].fd, F_GETFD, 0);
    return result < 0 ? result : 0;
}

static int64_t casync__process_plan_terminal(casync__process_plan *plan,
                                             casync__process_pipes *pipes) {
    int fds[2], number;
    int64_t result = casync_openpty(fds, plan->desc->columns, plan->desc->rows);
    if (result < 0) return result;
    pipes->ours[0] = fds[0];
    pipes->theirs[0] = fds[1];
    for (number = 0; number < 3; number++) casync__process_add_move(plan, fds[1], number);
    return 0;
}

static int64_t casync__process_plan_fds(casync__process_plan *plan, casync__process_pipes *pipes) {
    const casync_process_desc *desc = plan->desc;
    int64_t result = desc->terminal
                         ? casync__process_plan_terminal(plan, pipes)
                         : casync__process_plan_stdio(plan, pipes, 0, desc->in, desc->in_fd);
    size_t i;
    if (result == 0) result = casync__process_plan_stdio(plan, pipes, 1, desc->out, desc->out_fd);
    if (result == 0) result = casync__process_plan_stdio(plan, pipes, 2, desc->err, desc->err_fd);
    for (i = 0; result == 0 && i < desc->fd_count; i++)
        casync__process_add_move(plan, desc->fds[i].fd, desc->fds[i].as);
    return result;
}

static bool casync__process_stdio_is_valid(int kind, int fd) {
    return kind >= CASYNC_STDIO_INHERIT && kind < CASYNC_STDIO_STDOUT &&
           (kind != CASYNC_STDIO_FD || fd >= 0);
}

static bool casync__process_desc_is_valid(const casync_process_desc *desc) {
    bool err_is_out = desc->err == CASYNC_STDIO_STDOUT;
    size_t i;
    if (desc->terminal && (desc->in || desc->out || desc->err)) return false;
    for (i = 0; i < desc->fd_count; i++) {
        size_t j;
        if (!desc->fds || desc->fds[i].fd < 0 || desc->fds[i].as < 3) return false;
        for (j = 0; j < i; j++)
            if (desc->fds[j].as == desc->fds[i].as) return false;
    }
    return (desc->shell ? !desc->args && !desc->program : desc->args && desc->args[0]) &&
           casync__process_stdio_is_valid(desc->in, desc->in_fd) &&
           casync__process_stdio_is_valid(desc->out, desc->out_fd) &&
           (err_is_out || casync__process_stdio_is_valid(desc->err, desc->err_fd)) &&
           (desc->limits || desc->limit_count == 0) && (desc->groups || desc->group_count == 0);
}

/* -- starting -- */

/* The child writes what failed, or nothing: then its program runs. After a vfork(2) it has run or
   failed already. A copy of this process is waited for, until all copies of the pipe are closed. */
static int64_t casync__process_read_report(int fd, bool shared, casync__process_failure *failure) {
    int64_t size = shared ? casync__fd_set_blocking(fd, false) : 0;
    if (size >= 0) size = casync__sys_read(fd, failure, sizeof *failure);
    if (shared && size == -EAGAIN) return 0; /* a child of somebody else's has the pipe too */
    if (size == 0) return 0;
    if (size < 0) return size;
    return size == (int64_t)sizeof *failure && failure->error < 0 && failure->error >= -4095
               ? failure->error
               : -EIO;
}

/* Waits for a child's end. */
static int64_t casync__process_wait_for(int pid, int options) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    return casync__sys_waitid(P_PID, pid, &info, WEXITED | options);
}

/* A child of other ids must not share this process's memory: the kernel would let no debugger and
   no core dump near this process any more (commit_creds in kernel/cred.c), and the other user could
   stop the child while this process waits for it. */
static bool casync__process_changes_ids(const casync_process_desc *desc) {
    return desc->set_user || desc->set_group || desc->groups;
}

/* Starts the child with all signals blocked; returns its number. */
static int64_t casync__process_spawn(casync__process_plan *plan, const char **step) {
    casync__process_failure failure;
    sigset_t all, before;
    int report[2];
    int64_t pid, result = casync__sys_blocking_pipe(report);
    if (result < 0) return result;
    plan->report = report[1];
    sigfillset(&all);
    pid = casync__sys_thread_sigmask(SIG_SETMASK, &all, &before);
    if (pid >= 0) {
        pid = casync__process_changes_ids(plan->desc)
                  ? casync__sys_fork(casync__process_run, plan)
                  : casync__sys_vfork(casync__process_run, plan);
        casync__sys_thread_sigmask(SIG_SETMASK, &before, NULL);
        if (pid < 0) *step = "fork";
    }
    casync__sys_close(report[1]);
    memset(&failure, 0, sizeof failure);
    result = pid < 0 ? pid : casync__process_read_report(report[0], plan->shared, &failure);
    casync__sys_close(report[0]);
    if (pid < 0 || result == 0) return pid;
    *step = failure.step;
    if (!failure.step) (void)casync__sys_kill((int)pid, SIGKILL); /* nobody knows what it does */
    (void)casync__process_wait_for((int)pid, 0); /* it has ended, or other code has its status */
    return result;
}

static int64_t casync__process_most_fds(void) {
    struct rlimit limit;
    bool known = casync__sys_getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536;
    return known ? (int64_t)limit.rlim_cur : 65536;
}

static int64_t casync__process_plan_and_spawn(const casync_allocator *allocator,
                                              casync__process_plan *plan,
                                              casync__process_pipes *pipes, const char **step) {
    static const char *const shell[] = {"/bin/sh", "-c", NULL, NULL};
    const casync_process_desc *desc = plan->desc;
    const char *args[4];
    int64_t result;
    memcpy(args, shell, sizeof args);
    args[2] = desc->shell;
    plan->args = (char *const *)(uintptr_t)(desc->shell ? args : desc->args);
    plan->env = desc->env ? (char *const *)(uintptr_t)desc->env : environ;
    plan->highest = 2;
    plan->most_fds = casync__process_most_fds();
    if (desc->nice) plan->priority = (int)(20 - casync__sys_getpriority()) + desc->nice;
    plan->programs =
        casync__process_programs(allocator, desc, desc->program ? desc->program : plan->args[0]);
    plan->moves = (casync_process_fd *)casync__memory_realloc(
        allocator, NULL, (3 + desc->fd_count) * sizeof *plan->moves);
    result = plan->programs && plan->moves ? casync__process_check_fds(desc) : -ENOMEM;
    if (result == -EBADF) *step = "fcntl";
    if (result == 0) result = casync__process_plan_fds(plan, pipes);
    if (result == 0) result = casync__process_spawn(plan, step);
    casync__memory_free(allocator, plan->programs);
    casync__memory_free(allocator, plan->moves);
    return result;
}

/* -- the end -- */

/* The code that a process ended with: what casync_process_wait returns; -EAGAIN if it runs. */
static int64_t casync__process_take_status(const casync__process_child *child) {
    siginfo_t info;
    int64_t result;
    memset(&info, 0, sizeof info);
    result = child->pidfd < 0
                 ? -EINVAL
                 : casync__sys_waitid(CASYNC__SYS_P_PIDFD, child->pidfd, &info, WEXITED | WNOHANG);
    if (result == -EINVAL) /* no pidfd, or Linux 5.3 */
        result = casync__sys_waitid(P_PID, child->pid, &info, WEXITED | WNOHANG);
    if (result == -ECHILD) return CASYNC_NO_STATUS;
    if (result < 0) return result;
    if (info.si_pid == 0) return -EAGAIN;
    return info.si_code == CLD_EXITED ? info.si_status & 255 : 256 + info.si_status;
}

static void casync__process_child_free(casync__process_child *child) {
    casync__watcher_unregister(&child->watcher, true);
    casync_timer_stop(&child->timer);
    if (child->pidfd >= 0) casync__sys_close(child->pidfd);
    casync__list_remove(&child->link);
    casync__memory_free(&child->loop->allocator, child);
}

static void casync__process_ended(casync__process_child *child, int64_t status) {
    casync_link waiting;
    casync__list_init(&waiting);
    casync__list_move(&waiting, &child->waiting);
    if (child->process) {
        child->process->status = status;
        child->process->child = NULL;
    }
    casync__process_child_free(child);
    casync__ops_done(&waiting, status);
}

static void casync__process_readable(void *arg) {
    casync__process_child *child = (casync__process_child *)arg;
    int64_t status = child->foreign ? 0 : casync__process_take_status(child);
    if (status != -EAGAIN) casync__process_ended(child, status);
}

/* -- without a pidfd -- */

static void *casync__process_reap(void *arg) {
    (void)casync__process_wait_for((int)(intptr_t)arg, 0);
    return NULL;
}

/* Nobody asks for the status of this child, whose number is its own still: a thread takes it when
   the child ends. Without that thread it is a zombie until this process ends. */
static void casync__process_leave(int pid) {
    pthread_t thread;
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (casync__sys_waitid(P_PID, pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid == pid) return;
    if (casync__sys_thread_create(&thread, casync__process_reap, (void *)(intptr_t)pid) == 0)
        pthread_detach(thread);
}

static int64_t casync__process_wait_run(void *arguments, void **ptr) {
    (void)ptr;
    return casync__process_wait_for(*(int *)arguments, WNOWAIT);
}

static void casync__process_wait_deliver(casync__call *call) {
    casync__process_child *child = casync__container(call->op, casync__process_child, ended);
    bool taken = call->result == -ECHILD;
    casync__process_ended(child,
                          taken ? (int64_t)CASYNC_NO_STATUS : casync__process_take_status(child));
}

static void casync__process_wait_discard(casync__call *call) {
    casync__process_leave(*(int *)casync__call_arguments(call));
}

static const casync__call_kind casync__process_wait_call = {
    CASYNC__CALL_LANE_WORK, casync__process_wait_run, casync__process_wait_deliver,
    casync__process_wait_discard};

/* A thread waits for the child. */
static int64_t casync__process_wait_in_thread(casync__process_child *child) {
    casync_loop *loop = child->loop;
    casync_pool_desc desc;
    int64_t result = 0;
    memset(&desc, 0, sizeof desc);
    desc.size = CASYNC__POOL_SIZE_MAX;
    desc.name = "reaper";
    desc.allocator = loop->allocator;
    if (!loop->reaper) result = casync__pool_make(&loop->reaper, &desc);
    if (result < 0) return result;
    casync__op_begin(loop, &child->ended, CASYNC__OP_CALL);
    return casync__call_start(&child->ended, loop->reaper, &casync__process_wait_call, &child->pid,
                              sizeof child->pid);
}

static int64_t casync__process_watch_pidfd(casync__process_child *child) {
    int64_t result = casync__sys_pidfd_open(child->pid);
    if (result < 0) return result;
    child->pidfd = (int)result;
    result = casync__watcher_add(child->loop, &child->watcher, CASYNC__WATCHER_PROCESS,
                                 child->pidfd, CASYNC__FD_READ, casync__process_readable, child);
    if (result == 0) return 0;
    casync__sys_close(child->pidfd);
    child->pidfd = -1;
    return result;
}

/* The kernel does not tell of the pidfd any more. */
static bool casync__process_refused(casync_watcher *watcher, int64_t error) {
    (void)watcher, (void)error;
    return false;
}

/* Begins to wait for a child that was started. */
static int64_t casync__process_watch(casync__process_child *child) {
    int64_t result = casync__process_watch_pidfd(child);
    return result < 0 ? casync__process_wait_in_thread(child) : 0;
}

/* By its pidfd, which never leads to another process; without one the number is the child's as long
   as its status was not taken. */
static int64_t casync__process_signal_child(const casync__process_child *child, int signum) {
    int64_t result =
        child->pidfd >= 0 ? casync__sys_pidfd_send_signal(child->pidfd, signum) : -ENOSYS;
    return result == -ENOSYS ? casync__sys_kill(child->pid, signum) : result;
}

/* Ends a child for good. One that may not be killed, as it has become another user's, is left to a
   thread. */
static void casync__process_kill_and_reap(const casync__process_child *child) {
    int64_t status = casync__process_take_status(child), killed;
    if (status != -EAGAIN) return; /* it has ended */
    killed = casync__process_signal_child(child, SIGKILL);
    if (killed == 0 || killed == -ESRCH)
        (void)casync__process_wait_for(child->pid, 0);
    else
        casync__process_leave(child->pid);
}

/* The record of a process goes, before the process has ended. */
static void casync__process_child_drop(casync__process_child *child) {
    if (child->pidfd < 0 && !child->foreign && child->ended.as.call)
        casync__call_abandon(child->ended.as.call); /* its thread takes the status */
    casync__process_child_free(child);
}

/* The loop closes. In a forked child the processes are the parent's. */
static void casync__process_children_close(casync_loop *loop) {
    while (!casync__list_is_empty(&loop->children)) {
        casync__process_child *child =
            casync__container(loop->children.next, casync__process_child, link);
        bool ours = !child->foreign && child->fork_generation == casync__process.fork_generation;
        if (child->process) {
            child->process->child = NULL;
            child->process->status = -ECONNABORTED;
        }
        if (ours && !child->detached)
            casync__process_kill_and_reap(child);
        else if (ours && child->pidfd >= 0 && casync__process_take_status(child) == -EAGAIN)
            casync__process_leave(child->pid);
        casync__process_child_drop(child);
    }
    casync__pool_close(&loop->reaper);
}

/* -- casync_process -- */

static bool casync__process_is_open(const casync_process *process) {
    return process->child || casync__endpoint_has_fd(&process->in.endpoint) ||
           casync__endpoint_has_fd(&process->out.endpoint) ||
           casync__endpoint_has_fd(&process->err.endpoint);
}

static casync_stream *casync__process_stream(casync_process *process, int number) {
    return number == 0 ? &process->in : number == 1 ? &process->out : &process->err;
}

/* Opens this process's ends of the pipes; those that are open are not in `pipes` any more. */
static int64_t casync__process_open_streams(casync_loop *loop, casync_process *process,
                                            casync__process_pipes *pipes) {
    int number;
    for (number = 0; number < 3; number++) {
        casync_stream *stream = casync__process_stream(process, number);
        int64_t result;
        if (pipes->ours[number] < 0) continue;
        result = casync_stream_open(loop, stream, pipes->ours[number], NULL, NULL);
        if (result < 0) return result;
        stream->endpoint.options |= CASYNC__ENDPOINT_FD_UNSHARED;
        pipes->ours[number] = -1;
    }
    return 0;
}

static casync__process_child *casync__process_child_make(casync_loop *loop,
                                                         casync_process *process) {
    casync__process_child *child =
        (casync__process_child *)casync__memory_realloc(&loop->allocator, NULL, sizeof *child);
    if (!child) return NULL;
    memset(child, 0, sizeof *child);
    casync__list_init(&child->waiting);
    casync__list_append(&loop->children, &child->link);
    child->loop = loop;
    child->process = process;
    child->pidfd = -1;
    child->fork_generation = casync__process.fork_generation;
    return child;
}

static void casync__process_close_streams(casync_process *process) {
    int number;
    for (number = 0; number < 3; number++) casync_close(casync__process_stream(process, number));
}

/* The child runs: takes it under watch, with its pipes; or ends it. */
static int64_t casync__process_started(casync_loop *loop, casync_process *process,
                                       casync__process_child *child, casync__process_pipes *pipes) {
    int64_t result = casync__process_watch(child);
    if (result == 0) result = casync__process_open_streams(loop, process, pipes);
    if (result == 0) return 0;
    casync__process_close_streams(process);
    casync__process_kill_and_reap(child);
    return result;
}

CASYNC__LINKAGE int64_t casync_process_start(casync_loop *loop, casync_process *process,
                                             const casync_process_desc *desc) {
    casync__process_pipes pipes = {{-1, -1, -1}, {-1, -1, -1}, -1};
    casync__process_plan plan;
    casync__process_child *child;
    int64_t result;
    if (casync__loop_is_closed(loop) || !process || !desc) return -EINVAL;
    if (casync__process_is_open(process)) return -EALREADY;
    if (!casync__process_desc_is_valid(desc)) return -EINVAL;
    if (casync__loop_is_forked(loop)) return -ECHILD;
    process->step = NULL;
    process->pid = 0;
    process->status = CASYNC_INVALID_STATE;
    child = casync__process_child_make(loop, process);
    if (!child) return -ENOMEM;
    memset(&plan, 0, sizeof plan);
    plan.desc = desc;
    child->detached = desc->detached;
    result = casync__process_plan_and_spawn(&loop->allocator, &plan, &pipes, &process->step);
    casync__process_close_fds(pipes.theirs, 3);
    casync__process_close_fds(&pipes.null, 1);
    if (result >= 0) {
        child->pid = (int)result;
        result = casync__process_started(loop, process, child, &pipes);
    }
    casync__process_close_fds(pipes.ours, 3);
    if (result < 0) {
        casync__process_child_drop(child);
        return result;
    }
    process->pid = child->pid;
    process->child = child;
    process->loop = loop;
    return 0;
}

static casync_loop *casync__process_loop(const casync_process *process) {
    return process ? process->loop : NULL;
}

/* What is known of its end without waiting; CASYNC_INVALID_STATE if it was never started. */
static int64_t casync__process_status(const casync_process *process) {
    return process->pid > 0 ? process->status : (int64_t)CASYNC_INVALID_STATE;
}

CASYNC__LINKAGE casync_future *casync_process_wait_op(casync_process *process, casync_op *op) {
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__process_loop(process), op, CASYNC__OP_PROCESS);
    if (!process) return casync__op_done(op, -EINVAL, NULL);
    if (!process->child) return casync__op_done(op, casync__process_status(process), NULL);
    op->owner = process;
    casync__list_append(&process->child->waiting, &op->link);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_process_wait(casync_process *process) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__process_loop(process), casync_process_wait_op(process, &op));
}

CASYNC__LINKAGE int64_t casync_process_wait_timeout(casync_process *process, int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__process_loop(process),
                                              casync_timeout_begin(&scope, timeout));
    return result < 0 ? result : casync_timeout_end(&scope, casync_process_wait(process));
}

CASYNC__LINKAGE int64_t casync_process_send_signal(casync_process *process, int signum) {
    casync__process_child *child = process ? process->child : NULL;
    if (!process) return -EINVAL;
    if (!child) return process->pid > 0 ? -ESRCH : (int64_t)CASYNC_INVALID_STATE;
    if (child->fork_generation != casync__process.fork_generation) return -ECHILD;
    return casync__process_signal_child(child, signum);
}

CASYNC__LINKAGE int64_t casync_process_terminate(casync_process *process) {
    return casync_process_send_signal(process, SIGTERM);
}

CASYNC__LINKAGE int64_t casync_process_kill(casync_process *process) {
    return casync_process_send_signal(process, SIGKILL);
}

CASYNC__LINKAGE void casync_process_close(casync_process *process) {
    casync__process_child *child = process ? process->child : NULL;
    if (!process) return;
    process->child = NULL;
    process->status = -ECONNABORTED;
    if (child) {
        child->process = NULL;
        casync__ops_done(&child->waiting, -ECONNABORTED);
        casync_watcher_ref(&child->watcher, false);
        if (child->pidfd < 0) casync__process_child_drop(child);
    }
    casync__process_close_streams(process);
}

static void casync__process_walk(casync_loop *loop, void (*visit)(int, void *, void *), void *arg) {
    casync_link *link, *next;
    for (link = loop->children.next; link != &loop->children; link = next) {
        casync__process_child *child = casync__container(link, casync__process_child, link);
        next = link->next;
        if (child->process) visit(CASYNC_KIND_PROCESS, child->process, arg);
    }
}

/* -- communicate -- */

/* One of the three pipes, while it is written to or read from. */
typedef struct casync__process_channel {
    casync_stream *stream; /* NULL when it is over */
    casync_op op;
    casync_buffer *buffer; /* what came */
    size_t capacity;
} casync__process_channel;

/* Makes room for at least 4 KiB more than there is. */
static int64_t casync__process_channel_grow(casync__process_channel *channel,
                                            const casync_allocator *allocator) {
    size_t capacity = channel->capacity ? 2 * channel->capacity : 8192;
    void *bytes;
    if (channel->capacity - channel->buffer->len >= 4096) return 0;
    if (capacity > CASYNC__BUFFER_SIZE_MAX) return -ENOMEM;
    bytes = casync__memory_realloc(allocator, channel->buffer->ptr, capacity);
    if (!bytes) return -ENOMEM;
    channel->buffer->ptr = bytes;
    channel->capacity = capacity;
    return 0;
}

/* Begins to read what comes. */
static int64_t casync__process_channel_read(casync__process_channel *channel,
                                            const casync_allocator *allocator) {
    int64_t result = casync__process_channel_grow(channel, allocator);
    if (result < 0) return result;
    casync_read_op(channel->stream, &channel->op,
                   (uint8_t *)channel->buffer->ptr + channel->buffer->len,
                   channel->capacity - channel->buffer->len);
    return 0;
}

/* The operation of this channel is done: begins the next, unless the channel is over. */
static int64_t casync__process_channel_go_on(casync__process_channel *channel,
                                             const casync_allocator *allocator, size_t limit) {
    casync_stream *stream = channel->stream;
    int64_t result = casync_future_result(&channel->op.future);
    if (result == -ECONNABORTED) return result; /* it was closed: the process may be gone */
    if (!channel->buffer) { /* a child that does not read is no error, as in asyncio */
        channel->stream = NULL;
        casync_close(stream);
        return result == -EPIPE || result == -ECONNRESET ? 0 : result;
    }
    if (result <= 0) channel->stream = NULL;
    if (result < 0) return result;
    if (limit > 0 && (size_t)result > limit - channel->buffer->len) {
        channel->buffer->len = limit;
        return CASYNC_LIMIT_OVERRUN;
    }
    channel->buffer->len += (size_t)result;
    return result == 0 ? 0 : casync__process_channel_read(channel, allocator);
}

/* Works on the channels until all are over. */
static int64_t casync__process_channels_run(casync__process_channel channels[3],
                                            const casync_allocator *allocator, size_t limit) {
    for (;;) {
        casync_waiter waiters[3];
        casync__process_channel *waited[3];
        int64_t result;
        size_t count = 0, i;
        memset(waiters, 0, sizeof waiters);
        for (i = 0; i < 3; i++) {
            if (!channels[i].stream) continue;
            waited[count] = &channels[i];
            waiters[count++].future = &channels[i].op.future;
        }
        if (count == 0) return 0;
        result = casync_wait(waiters, count, CASYNC_FIRST_COMPLETED, CASYNC_FOREVER);
        for (i = 0; result >= 0 && i < count; i++)
            if (casync_future_done(waiters[i].future))
                result = casync__process_channel_go_on(waited[i], allocator, limit);
        if (result < 0) return result;
    }
}

static int64_t casync__process_communicate(casync_process *process, casync_span input,
                                           casync_process_output *output, size_t limit) {
    const casync_allocator *allocator = &output->allocator;
    casync__process_channel channels[3];
    int64_t result = 0;
    int i;
    memset(channels, 0, sizeof channels);
    channels[1].buffer = &output->out;
    channels[2].buffer = &output->err;
    for (i = 0; i < 3 && result >= 0; i++) {
        casync_stream *stream = casync__process_stream(process, i);
        if (!casync_stream_is_open(stream)) continue;
        channels[i].stream = stream;
        if (i > 0)
            result = casync__process_channel_read(&channels[i], allocator);
        else
            casync_write_all_op(stream, &channels[i].op, input.ptr, input.len);
    }
    if (result >= 0) result = casync__process_channels_run(channels, allocator, limit);
    for (i = 0; i < 3; i++) {
        if (!channels[i].stream || !channels[i].op.future.loop) continue;
        casync_future_cancel(&channels[i].op.future);
        (void)casync_future_result(&channels[i].op.future); /* `result` is what is told */
    }
    return result < 0 ? result : casync_process_wait(process);
}

CASYNC__LINKAGE int64_t casync_process_communicate(casync_process *process, casync_span input,
                                                   casync_process_output *output, size_t limit) {
    casync_loop *loop = casync__process_loop(process);
    casync_process_output dropped;
    int64_t result;
    if (!process) return -EINVAL;
    if (!casync__await_is_allowed(loop, __func__)) return -EPERM;
    if (!loop) return CASYNC_INVALID_STATE;
    if (!output) output = &dropped;
    memset(output, 0, sizeof *output);
    output->allocator = loop->allocator;
    result = casync__process_communicate(process, input, output, limit);
    if (output == &dropped) casync_process_output_free(output);
    return result;
}

CASYNC__LINKAGE int64_t casync_process_communicate_timeout(casync_process *process,
                                                           casync_span input,
                                                           casync_process_output *output,
                                                           size_t limit, int64_t timeout) {
    casync_timeout scope;
    int64_t result = CASYNC__AWAIT_IF_ALLOWED(casync__process_loop(process),
                                              casync_timeout_begin(&scope, timeout));
    if (output) memset(output, 0, sizeof *output);
    return result < 0 ? result
                      : casync_timeout_end(
                            &scope, casync_process_communicate(process, input, output, limit));
}

CASYNC__LINKAGE void casync_process_output_free(casync_process_output *output) {
    if (!output || !output->allocator.function) return;
    casync__memory_free(&output->allocator, output->out.ptr);
    casync__memory_free(&output->allocator, output->err.ptr);
    memset(output, 0, sizeof *output);
}

/* -- any process -- */

#define CASYNC__PROCESS_POLL CASYNC_MS(100)

/* One who waited for a process that is no child gave up. */
static void casync__process_pid_abandon(casync_op *op) {
    casync__process_child_free((casync__process_child *)op->owner);
}

/* Without a pidfd: looks whether the process is there, and again later. */
static void casync__process_pid_poll(void *arg) {
    casync__process_child *child = (casync__process_child *)arg;
    int64_t result = casync__sys_kill(child->pid, 0);
    if (result == -ESRCH) {
        casync__process_ended(child, 0);
        return;
    }
    result = casync_call_later(child->loop, &child->timer, CASYNC__PROCESS_POLL,
                               casync__process_pid_poll, child);
    if (result < 0)
        casync__process_ended(child, result);
    else
        child->timer.job.flags |= CASYNC__JOB_INTERNAL;
}

CASYNC__LINKAGE casync_future *casync_wait_pid_op(casync_loop *loop, casync_op *op, int pid) {
    casync__process_child *child;
    int64_t result = casync__loop_is_closed(loop) || pid <= 0 ? -EINVAL : 0;
    if (!op) return &casync__future_invalid;
    casync__op_begin(loop, op, CASYNC__OP_PID);
    if (result == 0) result = casync__sys_kill(pid, 0);
    if (result < 0 && result != -EPERM) return casync__op_done(op, result, NULL);
    child = casync__process_child_make(loop, NULL);
    if (!child) return casync__op_done(op, -ENOMEM, NULL);
    child->pid = pid;
    child->foreign = true;
    op->owner = child;
    casync__list_append(&child->waiting, &op->link);
    if (casync__process_watch_pidfd(child) < 0) casync__process_pid_poll(child);
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_wait_pid(int pid) {
    casync_loop *loop = casync_get_running_loop();
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_wait_pid_op(loop, &op, pid));
}

/* >> files (implementation) -------------------------------------------------------------------- */

/* Each function is a row of the list below: a call in the pool, whose arguments and data are in the
   call's record, so that nothing of the user's is touched while a thread may be at work.

   Costs: one call of the pool; one copy of the data, and its memory while the call goes on. */

#define CASYNC__FILE_SIZE_MAX ((size_t)1 << 20) /* of the data of one read or write */

/* What a call has for its user when it is done. */
enum {
    CASYNC__FILE_RESULT,  /* its result alone */
    CASYNC__FILE_FD,      /* a descriptor */
    CASYNC__FILE_BYTES,   /* as many bytes of data as the result says */
    CASYNC__FILE_STATUS,  /* a casync_file_status */
    CASYNC__FILE_TEXT,    /* data up to a zero */
    CASYNC__FILE_NAMED,   /* the same, and a descriptor */
    CASYNC__FILE_CONTENT, /* memory that the thread allocated: a casync_file_data */
    CASYNC__FILE_ENTRIES  /* the same: casync_file_entries */
};

typedef struct casync__file_arguments {
    int kind, fd, flags, mode;
    int64_t offset;
    size_t size; /* of data */
    const void *from;
    const char *path, *other;
    void *to;      /* the user's, for what the call has for him */
    uint8_t *data; /* in the record, where `from` was copied, or what goes `to` */
    void *memory;  /* what the thread allocated */
    casync_allocator allocator;
} casync__file_arguments;

/* X(name, result, texts, parameters, arguments, request, call): `texts` of the arguments are paths;
   `request` fills in the arguments r; `call` does the work with them, f, in a thread. */
#define CASYNC__FILE_CALLS(X)                                                                      \
    X(open, FD, 1, (const char *path, int flags, int mode), (path, flags, mode),                   \
      (r.path = path, r.flags = flags, r.mode = mode),                                             \
      casync__sys_open(f->path, f->flags, f->mode))                                                \
    X(close, RESULT, 0, (int fd), (fd), (r.fd = fd), casync__sys_close(f->fd))                     \
    X(read, BYTES, 0, (int fd, void *buffer, size_t size), (fd, buffer, size),                     \
      (r.fd = fd, r.to = buffer, r.size = size), casync__sys_read(f->fd, f->data, f->size))        \
    X(pread, BYTES, 0, (int fd, void *buffer, size_t size, int64_t offset),                        \
      (fd, buffer, size, offset), (r.fd = fd, r.to = buffer, r.size = size, r.offset = offset),    \
      casync__sys_pread(f->fd, f->data, f->size, f->offset))                                       \
    X(write, RESULT, 0, (int fd, const void *data, size_t size), (fd, data, size),                 \
      (r.fd = fd, r.from = data, r.size = size), casync__sys_write(f->fd, f->data, f->size))       \
    X(pwrite, RESULT, 0, (int fd, const void *data, size_t size, int64_t offset),                  \
      (fd, data, size, offset), (r.fd = fd, r.from = data, r.size = size, r.offset = offset),      \
      casync__sys_pwrite(f->fd, f->data, f->size, f->offset))                                      \
    X(sync, RESULT, 0, (int fd), (fd), (r.fd = fd), casync__sys_fsync(f->fd))                      \
    X(datasync, RESULT, 0, (int fd), (fd), (r.fd = fd), casync__sys_fdatasync(f->fd))              \
    X(truncate, RESULT, 0, (int fd, int64_t size), (fd, size), (r.fd = fd, r.offset = size),       \
      casync__sys_ftruncate(f->fd, f->offset))                                                     \
    X(stat, STATUS, 1, (const char *path, casync_file_status *status), (path, status),             \
      (r.path = path, r.to = status), casync__file_ask_status(f))                                  \
    X(lstat, STATUS, 1, (const char *path, casync_file_status *status), (path, status),            \
      (r.path = path, r.flags = AT_SYMLINK_NOFOLLOW, r.to = status), casync__file_ask_status(f))   \
    X(fstat, STATUS, 0, (int fd, casync_file_status *status), (fd, status),                        \
      (r.fd = fd, r.to = status), casync__file_ask_status(f))                                      \
    X(rename, RESULT, 2, (const char *from, const char *to), (from, to),                           \
      (r.path = from, r.other = to), casync__sys_rename(f->path, f->other))                        \
    X(link, RESULT, 2, (const char *from, const char *to), (from, to),                             \
      (r.path = from, r.other = to), casync__sys_link(f->path, f->other))                          \
    X(symlink, RESULT, 2, (const char *from, const char *to), (from, to),                          \
      (r.path = from, r.other = to), casync__sys_symlink(f->path, f->other))                       \
    X(unlink, RESULT, 1, (const char *path), (path), (r.path = path), casync__sys_unlink(f->path)) \
    X(mkdir, RESULT, 1, (const char *path, int mode), (path, mode),                                \
      (r.path = path, r.mode = mode), casync__sys_mkdir(f->path, f->mode))                         \
    X(rmdir, RESULT, 1, (const char *path), (path), (r.path = path), casync__sys_rmdir(f->path))   \
    X(chmod, RESULT, 1, (const char *path, int mode), (path, mode),                                \
      (r.path = path, r.mode = mode), casync__sys_chmod(f->path, f->mode))                         \
    X(readlink, TEXT, 1, (const char *path, char *buffer, size_t size), (path, buffer, size),      \
      (r.path = path, r.to = buffer, r.size = size), casync__file_readlink(f))                     \
    X(realpath, TEXT, 1, (const char *path, char *buffer, size_t size), (path, buffer, size),      \
      (r.path = path, r.to = buffer, r.size = size), casync__file_realpath(f))                     \
    X(mkstemp, NAMED, 1, (char *path), (path),                                                     \
      (r.from = r.path = path, r.to = path, r.size = casync__file_size_of(path)),                  \
      casync__sys_mkstemp((char *)f->data))                                                        \
    X(mkdtemp, TEXT, 1, (char *path), (path),                                                      \
      (r.from = r.path = path, r.to = path, r.size = casync__file_size_of(path)),                  \
      casync__sys_mkdtemp((char *)f->data))                                                        \
    X(scandir, ENTRIES, 1, (const char *path, casync_file_entries *entries), (path, entries),      \
      (r.path = path, r.to = entries), casync__file_scan(f))                                       \
    X(read_all, CONTENT, 1, (const char *path, casync_file_data *data, size_t limit),              \
      (path, data, limit), (r.path = path, r.to = data, r.size = limit), casync__file_read_all(f)) \
    X(write_all, RESULT, 1,                                                                        \
      (const char *path, const void *data, size_t size, int mode, int flags),                      \
      (path, data, size, mode, flags),                                                             \
      (r.path = path, r.from = data, r.size = size, r.mode = mode, r.flags = flags),               \
      casync__file_write_all(f))                                                                   \
    X(copy, RESULT, 2, (const char *from, const char *to, int flags), (from, to, flags),           \
      (r.path = from, r.other = to, r.flags = flags), casync__file_copy(f))

#define CASYNC__FILE_ENUM(name, result, texts, parameters, arguments, request, call)               \
    CASYNC__FILE_CALL_##name,
enum { CASYNC__FILE_CALLS(CASYNC__FILE_ENUM) CASYNC__FILE_CALL_COUNT };

/* -- in a thread -- */

/* The nearest that 64 bits hold: the years 1677 to 2262. */
static int64_t casync__file_time(const struct timespec *time) {
    int64_t seconds = (int64_t)time->tv_sec, last = INT64_MAX / CASYNC_SECONDS(1) - 1;
    if (seconds > last) return INT64_MAX;
    return seconds < -last ? INT64_MIN : seconds * CASYNC_SECONDS(1) + time->tv_nsec;
}

/* The kernel's status in casync's form. */
static void casync__file_convert(const casync__sys_status *status, void *to) {
    casync_file_status told;
    memset(&told, 0, sizeof told);
    told.device = status->st_dev;
    told.inode = status->st_ino;
    told.special_device = status->st_rdev;
    told.mode = status->st_mode;
    told.user = status->st_uid;
    told.group = status->st_gid;
    told.links = status->st_nlink;
    told.size = status->st_size;
    told.allocated = (int64_t)status->st_blocks * 512;
    told.accessed = casync__file_time(&status->st_atim);
    told.modified = casync__file_time(&status->st_mtim);
    told.changed = casync__file_time(&status->st_ctim);
    memcpy(to, &told, sizeof told);
}

static int64_t casync__file_ask_status(casync__file_arguments *f) {
    casync__sys_status status;
    int64_t result = !f->path                         ? casync__sys_fstat(f->fd, &status)
                     : f->flags & AT_SYMLINK_NOFOLLOW ? casync__sys_lstat(f->path, &status)
                                                      : casync__sys_stat(f->path, &status);
    if (result == 0) casync__file_convert(&status, f->data);
    return result;
}

static int64_t casync__file_readlink(casync__file_arguments *f) {
    int64_t result = casync__sys_readlink(f->path, (char *)f->data, f->size);
    if (result >= (int64_t)f->size) return -ENAMETOOLONG;
    if (result >= 0) f->data[result] = 0;
    return result;
}

static int64_t casync__file_realpath(casync__file_arguments *f) {
    char text[PATH_MAX];
    int64_t result = casync__sys_realpath(f->path, text);
    size_t length;
    if (result < 0) return result;
    length = strlen(text);
    if (length >= f->size) return -ENAMETOOLONG;
    memcpy(f->data, text, length + 1);
    return (int64_t)length;
}

/* Bytes that grow, in memory of the user's allocator. */
typedef struct casync__file_bytes {
    uint8_t *ptr;
    size_t size, capacity;
} casync__file_bytes;

static int64_t casync__file_bytes_reserve(casync__file_bytes *bytes,
                                          const casync_allocator *allocator, size_t more) {
    size_t capacity = bytes->capacity ? bytes->capacity : 4096;
    void *grown;
    while (capacity - bytes->size < more && capacity < CASYNC__BUFFER_SIZE_MAX) capacity *= 2;
    if (capacity - bytes->size < more) return -ENOMEM;
    if (capacity == bytes->capacity) return 0;
    grown = casync__memory_realloc(allocator, bytes->ptr, capacity);
    if (!grown) return -ENOMEM;
    bytes->ptr = (uint8_t *)grown;
    bytes->capacity = capacity;
    return 0;
}

/* Reads to the end of the file, and puts a zero behind. */
static int64_t casync__file_read_to_end(casync__file_arguments *f, int fd,
                                        casync__file_bytes *bytes) {
    casync__sys_status status;
    int64_t result = casync__sys_fstat(fd, &status);
    size_t expected =
        result == 0 && status.st_size > 0 && (uint64_t)status.st_size < CASYNC__BUFFER_SIZE_MAX / 2
            ? (size_t)status.st_size
            : 0;
    if (f->size > 0 && expected > f->size) return CASYNC_LIMIT_OVERRUN;
    for (;;) {
        if (result >= 0)
            result = casync__file_bytes_reserve(
                bytes, &f->allocator, expected > bytes->size ? expected - bytes->size + 1 : 1);
        if (result == 0)
            result = casync__sys_read(fd, bytes->ptr + bytes->size, bytes->capacity - bytes->size);
        if (result < 0) return result;
        if (result == 0) break;
        bytes->size += (size_t)result;
        if (f->size > 0 && bytes->size > f->size) return CASYNC_LIMIT_OVERRUN;
        result = 0;
    }
    bytes->ptr[bytes->size] = 0; /* the last read had room for more */
    return (int64_t)bytes->size;
}

static int64_t casync__file_read_all(casync__file_arguments *f) {
    casync__file_bytes bytes = {NULL, 0, 0};
    int64_t fd = casync__sys_open(f->path, O_RDONLY, 0), result;
    if (fd < 0) return fd;
    result = casync__file_read_to_end(f, (int)fd, &bytes);
    casync__sys_close((int)fd);
    if (result < 0)
        casync__memory_free(&f->allocator, bytes.ptr);
    else
        f->memory = bytes.ptr;
    return result;
}

static int64_t casync__file_write_to_end(int fd, const uint8_t *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        int64_t result = casync__sys_write(fd, data + done, size - done);
        if (result < 0) return result;
        done += (size_t)result;
    }
    return (int64_t)size;
}

/* Closes a file that was written, which may be the first to tell an error. */
static int64_t casync__file_finish(int fd, int flags, int64_t result) {
    int64_t closed;
    if (result >= 0 && (flags & CASYNC_FILE_SYNC)) {
        int64_t synced = casync__sys_fsync(fd);
        if (synced < 0) result = synced;
    }
    closed = casync__sys_close(fd);
    return result >= 0 && closed < 0 ? closed : result;
}

/* A new name is on disk when its directory is. */
static int64_t casync__file_sync_directory(const char *path) {
    char directory[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    int64_t fd, result;
    if (slash)
        snprintf(directory, sizeof directory, "%.*s", slash == path ? 1 : (int)(slash - path),
                 path);
    fd = casync__sys_open(directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return fd;
    result = casync__sys_fsync((int)fd);
    casync__sys_close((int)fd);
    return result;
}

/* Opens a new file beside `path`, with the permissions of the file that it will replace. */
static int64_t casync__file_open_beside(const casync__file_arguments *f, char name[PATH_MAX]) {
    casync__sys_status status;
    const char *slash = strrchr(f->path, '/');
    int directory = slash ? (int)(slash + 1 - f->path) : 0;
    int64_t fd;
    unsigned number = 0;
    do {
        if (snprintf(name, PATH_MAX, "%.*s.casync-%d-%u", directory, f->path, (int)getpid(),
                     number++) >= PATH_MAX)
            return -ENAMETOOLONG;
        fd = casync__sys_open(name, O_WRONLY | O_CREAT | O_EXCL, f->mode);
    } while (fd == -EEXIST && number < 1000);
    if (fd >= 0 && casync__sys_stat(f->path, &status) == 0)
        (void)casync__sys_fchmod((int)fd, (int)(status.st_mode & 07777)); /* else as `mode` says */
    return fd;
}

/* The new file takes the name, or goes. */
static int64_t casync__file_take_name(const casync__file_arguments *f, const char *name,
                                      int64_t result) {
    int64_t taken = result;
    if (result >= 0)
        taken = f->flags & CASYNC_FILE_EXCLUSIVE ? casync__sys_link(name, f->path)
                                                 : casync__sys_rename(name, f->path);
    if (taken < 0 || (f->flags & CASYNC_FILE_EXCLUSIVE)) (void)casync__sys_unlink(name);
    if (taken >= 0 && (f->flags & CASYNC_FILE_SYNC)) taken = casync__file_sync_directory(f->path);
    return taken < 0 ? taken : result;
}

/* Can the name be given to another file? What is no regular file (a device, a pipe) is written to;
   of a symbolic link it is the file that is replaced, whose path comes in f->path, or the link if
   it leads nowhere. */
static bool casync__file_is_replaced(casync__file_arguments *f, char target[PATH_MAX]) {
    casync__sys_status status;
    if (!(f->flags & CASYNC_FILE_ATOMIC)) return false;
    if (casync__sys_stat(f->path, &status) < 0) return true;
    if (casync__sys_realpath(f->path, target) == 0) f->path = target;
    return S_ISREG(status.st_mode);
}

static int64_t casync__file_write_all(casync__file_arguments *f) {
    char name[PATH_MAX], target[PATH_MAX];
    bool atomic = casync__file_is_replaced(f, target);
    int exclusive = f->flags & CASYNC_FILE_EXCLUSIVE ? O_EXCL : 0;
    int64_t fd = atomic
                     ? casync__file_open_beside(f, name)
                     : casync__sys_open(f->path, O_WRONLY | O_CREAT | O_TRUNC | exclusive, f->mode),
            result;
    if (fd < 0) return fd;
    result = casync__file_write_to_end((int)fd, f->data, f->size);
    result = casync__file_finish((int)fd, f->flags, result);
    return atomic ? casync__file_take_name(f, name, result) : result;
}

/* Copies what is left through memory. */
static int64_t casync__file_copy_bytes(const casync__file_arguments *f, int from, int to) {
    uint8_t *buffer = (uint8_t *)casync__memory_realloc(&f->allocator, NULL, CASYNC__FILE_SIZE_MAX);
    int64_t total = 0, result;
    if (!buffer) return -ENOMEM;
    while ((result = casync__sys_read(from, buffer, CASYNC__FILE_SIZE_MAX)) > 0) {
        result = casync__file_write_to_end(to, buffer, (size_t)result);
        if (result < 0) break;
        total += result;
    }
    casync__memory_free(&f->allocator, buffer);
    return result < 0 ? result : total;
}

/* By reference, in the kernel, or through memory: for what one cannot do the next is tried. (The
   kernel copies nothing of some files of /proc, which have no size.) */
static int64_t casync__file_copy_content(const casync__file_arguments *f, int from, int to,
                                         int64_t size) {
    int64_t total = 0, result;
    if (size > 0 && casync__sys_clone_file(to, from) == 0) return size;
    do {
        result = casync__sys_copy_file_range(from, to, (size_t)1 << 30);
        if (result > 0) total += result;
    } while (result > 0);
    if (result == 0 && total > 0) return total;
    if (result < 0 && total > 0) return result;
    return casync__file_copy_bytes(f, from, to);
}

static int64_t casync__file_copy(casync__file_arguments *f) {
    int exclusive = f->flags & CASYNC_FILE_EXCLUSIVE ? O_EXCL : 0;
    int64_t from = casync__sys_open(f->path, O_RDONLY, 0), to, result;
    casync__sys_status status, target;
    if (from < 0) return from;
    result = casync__sys_fstat((int)from, &status);
    if (result == 0 && S_ISDIR(status.st_mode)) result = -EISDIR;
    if (result == 0 && casync__sys_stat(f->other, &target) == 0 && target.st_ino == status.st_ino &&
        target.st_dev == status.st_dev)
        result = exclusive ? -EEXIST : -EINVAL; /* to itself: it would be emptied */
    to = result < 0 ? result
                    : casync__sys_open(f->other, O_WRONLY | O_CREAT | O_TRUNC | exclusive,
                                       (int)(status.st_mode & 0777));
    if (to >= 0) {
        result = casync__file_copy_content(f, (int)from, (int)to, status.st_size);
        if (result >= 0 && casync__sys_fstat((int)to, &target) == 0 && S_ISREG(target.st_mode))
            (void)casync__sys_fchmod((int)to, (int)(status.st_mode & 0777));
        result = casync__file_finish((int)to, f->flags, result);
    }
    casync__sys_close((int)from);
    return to < 0 ? to : result;
}

/* Adds the entries of a buffer of getdents64(2): for each a byte for its type, and its name. */
static int64_t casync__file_add_entries(casync__file_arguments *f, casync__file_bytes *bytes,
                                        const char *entries, int64_t size, size_t *count) {
    int64_t at = 0;
    while (at < size) { /* struct linux_dirent64 */
        const char *name = entries + at + 19;
        size_t length = strlen(name) + 1;
        uint16_t record;
        memcpy(&record, entries + at + 16, sizeof record);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            int64_t result = casync__file_bytes_reserve(bytes, &f->allocator, length + 1);
            if (result < 0) return result;
            bytes->ptr[bytes->size] = (uint8_t)entries[at + 18];
            memcpy(bytes->ptr + bytes->size + 1, name, length);
            bytes->size += length + 1;
            ++*count;
        }
        at += record;
    }
    return 0;
}

/* An array of entries, and their names behind it. */
static int64_t casync__file_make_entries(casync__file_arguments *f, const casync__file_bytes *bytes,
                                         size_t count) {
    casync_file_entry *entries = (casync_file_entry *)casync__memory_realloc(
        &f->allocator, NULL, (count + 1) * sizeof *entries + bytes->size);
    char *names = (char *)(entries + count + 1);
    size_t i;
    if (!entries) return -ENOMEM;
    if (bytes->size > 0) memcpy(names, bytes->ptr, bytes->size);
    for (i = 0; i < count; i++) {
        entries[i].type = (uint8_t)*names;
        entries[i].name = names + 1;
        names += 1 + strlen(names + 1) + 1;
    }
    f->memory = entries;
    return (int64_t)count;
}

static int64_t casync__file_scan(casync__file_arguments *f) {
    casync__file_bytes bytes = {NULL, 0, 0};
    int64_t fd = casync__sys_open(f->path, O_RDONLY | O_DIRECTORY, 0), result;
    size_t count = 0;
    union {
        int64_t align;
        char bytes[4096];
    } buffer;
    if (fd < 0) return fd;
    while ((result = casync__sys_read_directory((int)fd, buffer.bytes, sizeof buffer)) > 0) {
        result = casync__file_add_entries(f, &bytes, buffer.bytes, result, &count);
        if (result < 0) break;
    }
    casync__sys_close((int)fd);
    if (result == 0) result = casync__file_make_entries(f, &bytes, count);
    casync__memory_free(&f->allocator, bytes.ptr);
    return result;
}

#define CASYNC__FILE_CASE(name, result_kind, texts, parameters, arguments, request, call)          \
    case CASYNC__FILE_CALL_##name:                                                                 \
        result = call;                                                                             \
        break;

static int64_t casync__file_run(void *arguments, void **ptr) {
    casync__file_arguments *f = (casync__file_arguments *)arguments;
    int64_t result = -ENOSYS;
    switch (f->kind) {
        CASYNC__FILE_CALLS(CASYNC__FILE_CASE)
    default:
        break;
    }
    *ptr = f->memory;
    return result;
}

/* -- in the loop -- */

#define CASYNC__FILE_RESULT_KIND(name, result_kind, texts, parameters, arguments, request, call)   \
    CASYNC__FILE_##result_kind,
static const uint8_t casync__file_results[CASYNC__FILE_CALL_COUNT] = {
    CASYNC__FILE_CALLS(CASYNC__FILE_RESULT_KIND)};

/* Gives the user what the call has for him. */
static void casync__file_give(const casync__file_arguments *f, int64_t result) {
    casync_file_entries *entries = (casync_file_entries *)f->to;
    casync_file_data *content = (casync_file_data *)f->to;
    switch (casync__file_results[f->kind]) {
    case CASYNC__FILE_BYTES:
        if (result > 0) memcpy(f->to, f->data, (size_t)result);
        break;
    case CASYNC__FILE_STATUS:
        memcpy(f->to, f->data, sizeof(casync_file_status));
        break;
    case CASYNC__FILE_TEXT:
    case CASYNC__FILE_NAMED:
        memcpy(f->to, f->data, strlen((const char *)f->data) + 1);
        break;
    case CASYNC__FILE_CONTENT:
        content->ptr = f->memory;
        content->len = (size_t)result;
        content->allocator = f->allocator;
        break;
    case CASYNC__FILE_ENTRIES:
        entries->entries = (casync_file_entry *)f->memory;
        entries->count = (size_t)result;
        entries->allocator = f->allocator;
        break;
    default:
        break;
    }
}

static void casync__file_deliver(casync__call *call) {
    casync__file_arguments *f = (casync__file_arguments *)casync__call_arguments(call);
    if (call->result >= 0) casync__file_give(f, call->result);
    casync__op_done(call->op, call->result, NULL);
}

/* Nobody wants the result: what was opened or made goes, and what was to be closed is closed. */
static void casync__file_discard(casync__call *call) {
    casync__file_arguments *f = (casync__file_arguments *)casync__call_arguments(call);
    int kind = casync__file_results[f->kind];
    if (f->kind == CASYNC__FILE_CALL_close && call->result == -ECANCELED)
        casync__sys_close(f->fd); /* no thread came to it */
    if (call->result < 0) return;
    if (kind == CASYNC__FILE_FD || kind == CASYNC__FILE_NAMED) casync__sys_close((int)call->result);
    if (kind == CASYNC__FILE_NAMED) (void)casync__sys_unlink((const char *)f->data);
    if (f->kind == CASYNC__FILE_CALL_mkdtemp) (void)casync__sys_rmdir((const char *)f->data);
    casync__memory_free(&f->allocator, f->memory);
}

static const casync__call_kind casync__file_call = {CASYNC__CALL_LANE_WORK, casync__file_run,
                                                    casync__file_deliver, casync__file_discard};

#define CASYNC__FILE_TEXTS(name, result_kind, texts, parameters, arguments, request, call) texts,
static const uint8_t casync__file_texts[CASYNC__FILE_CALL_COUNT] = {
    CASYNC__FILE_CALLS(CASYNC__FILE_TEXTS)};

/* With the zero at its end. */
static size_t casync__file_size_of(const char *text) { return text ? strlen(text) + 1 : 0; }

/* Is what a call cannot do without there? */
static bool casync__file_is_valid(const casync__file_arguments *r) {
    int result = casync__file_results[r->kind], texts = casync__file_texts[r->kind];
    bool by_size = result == CASYNC__FILE_BYTES || result == CASYNC__FILE_TEXT,
         fills = result >= CASYNC__FILE_BYTES && !(by_size && r->size == 0);
    if ((texts > 0 && !r->path) || (texts > 1 && !r->other)) return false;
    if (fills && !r->to) return false;
    if (result == CASYNC__FILE_RESULT && r->size > 0 && !r->from) return false;
    return r->size <= CASYNC__BUFFER_SIZE_MAX || result == CASYNC__FILE_CONTENT;
}

/* Bytes of data in the record. */
static size_t casync__file_data_size(const casync__file_arguments *r) {
    int result = casync__file_results[r->kind];
    if (result == CASYNC__FILE_STATUS) return sizeof(casync_file_status);
    return result == CASYNC__FILE_CONTENT ? 0 : r->size;
}

static char *casync__file_put_text(char *at, const char *text, const char **place) {
    size_t size = casync__file_size_of(text);
    *place = text ? at : NULL;
    if (text) memcpy(at, text, size);
    return at + size;
}

/* Copies the arguments into the record: the data, then the paths. */
static void casync__file_fill(casync__call *call, const casync__file_arguments *r,
                              size_t data_size) {
    casync__file_arguments *f = (casync__file_arguments *)casync__call_arguments(call);
    char *text;
    *f = *r;
    f->allocator = call->pool->allocator;
    f->memory = NULL;
    f->data = (uint8_t *)(f + 1);
    if (r->from && data_size > 0) memcpy(f->data, r->from, data_size);
    text = casync__file_put_text((char *)f->data + data_size, r->path, &f->path);
    (void)casync__file_put_text(text, r->other, &f->other);
}

static int64_t casync__file_submit(casync_loop *loop, casync_op *op, casync__file_arguments *r) {
    casync__call *call;
    size_t data_size;
    int64_t result = casync__call_check(loop);
    bool piece = r->kind <= CASYNC__FILE_CALL_pwrite;
    if (result < 0) return result;
    if (!casync__file_is_valid(r)) return -EINVAL;
    if (piece && r->size > CASYNC__FILE_SIZE_MAX) r->size = CASYNC__FILE_SIZE_MAX;
    data_size = casync__file_data_size(r);
    result = casync__executor_make(loop);
    if (result < 0) return result;
    if (!loop->executor) return CASYNC_INVALID_STATE;
    call = casync__call_make(op, loop->executor, &casync__file_call,
                             sizeof *r + data_size + casync__file_size_of(r->path) +
                                 casync__file_size_of(r->other));
    if (!call) return -ENOMEM;
    casync__file_fill(call, r, data_size);
    return casync__call_submit(call);
}

static casync_future *casync__file_start(casync_loop *loop, casync_op *op,
                                         casync__file_arguments *r) {
    if (!op) return &casync__future_invalid;
    casync__op_begin(loop, op, CASYNC__OP_CALL);
    return casync__op_started(op, casync__file_submit(loop, op, r));
}

#define CASYNC__FILE_WITHOUT_PARENTHESES(...) __VA_ARGS__
#define CASYNC__FILE_FUNCTIONS(name, result, texts, parameters, arguments, request, call)          \
    CASYNC__LINKAGE casync_future *casync_file_##name##_op(                                        \
        casync_loop *loop, casync_op *op, CASYNC__FILE_WITHOUT_PARENTHESES parameters) {           \
        casync__file_arguments r;                                                                  \
        memset(&r, 0, sizeof r);                                                                   \
        r.kind = CASYNC__FILE_CALL_##name;                                                         \
        request;                                                                                   \
        return casync__file_start(loop, op, &r);                                                   \
    }                                                                                              \
    CASYNC__LINKAGE int64_t casync_file_##name parameters {                                        \
        casync_loop *loop = casync_get_running_loop();                                             \
        casync_op op;                                                                              \
        return CASYNC__AWAIT_OP(                                                                   \
            loop, casync_file_##name##_op(loop, &op, CASYNC__FILE_WITHOUT_PARENTHESES arguments)); \
    }
CASYNC__FILE_CALLS(CASYNC__FILE_FUNCTIONS)

/* Reads in a thread, and writes. `open` is an operation of the stream's, which ends with it: then
   the struct may be another's. */
static int64_t casync__file_copy_to_stream(casync_stream *stream, const casync_op *open, int fd,
                                           uint8_t *buffer, int64_t offset, int64_t count) {
    int64_t total = 0;
    while (count == 0 || total < count) {
        int64_t piece =
            count > 0 && count - total < CASYNC_READ_SIZE ? count - total : CASYNC_READ_SIZE;
        int64_t result = casync_file_pread(fd, buffer, (size_t)piece, offset + total);
        if (casync_future_done(&open->future)) return open->future.result;
        if (result > 0) result = casync_write_all(stream, buffer, (size_t)result);
        if (result < 0) return result;
        if (result == 0) break;
        total += result;
    }
    return total;
}

/* What the kernel does not send. */
static int64_t casync__file_send_by_copy(casync_stream *stream, int fd, int64_t offset,
                                         int64_t count) {
    casync_loop *loop = casync__stream_loop(stream);
    uint8_t *buffer = (uint8_t *)casync__memory_realloc(&loop->allocator, NULL, CASYNC_READ_SIZE);
    casync_op open;
    int64_t result;
    if (!buffer) return -ENOMEM;
    casync__op_begin(loop, &open, CASYNC__OP_SENDFILE_COPY);
    open.owner = stream;
    casync__list_append(&stream->endpoint.waiting, &open.link);
    result = casync__file_copy_to_stream(stream, &open, fd, buffer, offset, count);
    casync_future_cancel(&open.future);
    (void)casync_future_result(&open.future); /* `result` is what is told */
    casync__memory_free(&loop->allocator, buffer);
    return result;
}

CASYNC__LINKAGE int64_t casync_sendfile(casync_stream *stream, int fd, int64_t offset,
                                        int64_t count) {
    casync_op op;
    int64_t result = CASYNC__AWAIT_OP(casync__stream_loop(stream),
                                      casync_sendfile_op(stream, &op, fd, offset, count));
    bool by_copy = offset >= 0 && count >= 0 &&
                   (result == -EINVAL || result == -EOPNOTSUPP || result == -ENOSYS);
    return by_copy && casync__stream_check_write(stream) == 0
               ? casync__file_send_by_copy(stream, fd, offset, count)
               : result;
}

CASYNC__LINKAGE void casync_file_entries_free(casync_file_entries *entries) {
    if (!entries || !entries->entries) return;
    casync__memory_free(&entries->allocator, entries->entries);
    memset(entries, 0, sizeof *entries);
}

CASYNC__LINKAGE void casync_file_data_free(casync_file_data *data) {
    if (!data || !data->ptr) return;
    casync__memory_free(&data->allocator, data->ptr);
    memset(data, 0, sizeof *data);
}

/* >> watches (implementation) ------------------------------------------------------------------ */

/* A watch has an inotify instance of its own, and a row for each directory that it watches: a file
   is watched by its directory, so that it can be followed by name. Rows are in the order of their
   numbers, which grow. The two halves of a rename come one after the other, mostly; the first half
   waits 20 ms for the second, and is a removal otherwise.

   Costs: inotify_init1, an epoll_ctl and a stat; for each directory an inotify_add_watch, and to
   list it at least four calls. One read for up to 4 KiB of changes. */

#define CASYNC__WATCH_EVENTS                                                                       \
    (IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_FROM |              \
     IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)
#define CASYNC__WATCH_READS_MAX 16 /* in one turn */
#define CASYNC__WATCH_KEPT_MAX                                                                     \
    1024                                        /* then the kernel keeps them, and tells of overflow
*/
#define CASYNC__WATCH_RENAME_WAIT CASYNC_MS(20) /* for the second half of a rename */

typedef struct casync__watch_row {
    int number; /* the kernel's, of a directory */
    char *path;
} casync__watch_row;

/* A change that nobody has taken yet. Its strings are behind it. */
typedef struct casync__watch_change {
    casync_link link;
    casync_change change;
} casync__watch_change;

/* A directory that is to be watched. Its path is behind it. */
typedef struct casync__watch_directory {
    casync_link link;
} casync__watch_directory;

typedef struct casync__watch {
    casync_watcher watcher; /* of the inotify instance */
    casync_timer timer;     /* of the half of a rename */
    casync_loop *loop;
    casync_watch *watch; /* the user's */
    void (*changed)(casync_watch *watch, const casync_change *change);
    casync__watch_row *rows;
    size_t row_count, row_capacity;
    char *root;       /* the path of the desc */
    const char *name; /* of a file, in root; else NULL */
    bool recursive, ended;
    int64_t lost;               /* an error for the next to ask */
    casync_op *waiting;         /* or NULL */
    casync_link changes;        /* casync__watch_change by link: that nobody took */
    size_t kept;                /* how many */
    casync__watch_change *lent; /* the user has its strings */
    casync_link to_add;         /* casync__watch_directory by link: still to be watched */
    char *moved;                /* the path of the first half of a rename, or NULL */
    uint32_t moved_cookie;
    bool moved_directory;
} casync__watch;

static char *casync__watch_text(const casync__watch *w, const char *directory, const char *name) {
    size_t length = strlen(directory), size = length + strlen(name) + 2;
    char *text = (char *)casync__memory_realloc(&w->loop->allocator, NULL, size);
    bool slash = *name && length > 0 && directory[length - 1] != '/';
    if (text) snprintf(text, size, "%s%s%s", directory, slash ? "/" : "", name);
    return text;
}

static void casync__watch_free_text(const casync__watch *w, char **text) {
    casync__memory_free(&w->loop->allocator, *text);
    *text = NULL;
}

/* -- telling -- */

static void casync__watch_lend(casync__watch *w, casync__watch_change *record) {
    casync_op *op = w->waiting;
    casync__memory_free(&w->loop->allocator, w->lent);
    w->lent = record;
    w->waiting = NULL;
    *op->as.change = record->change;
    casync__op_done(op, 0, NULL);
}

/* Something cannot be told: who waits hears of that, or else who asks next. */
static void casync__watch_lose(casync__watch *w, int64_t error) {
    casync_op *op = w->waiting;
    w->waiting = NULL;
    if (op)
        casync__op_done(op, error, NULL);
    else
        w->lost = error;
}

/* Keeps a change for who asks, or gives it to who waits. */
static void casync__watch_keep(casync__watch *w, const casync_change *change) {
    size_t path_size = strlen(change->path) + 1,
           old_size = change->old_path ? strlen(change->old_path) + 1 : 0;
    casync__watch_change *record = (casync__watch_change *)casync__memory_realloc(
        &w->loop->allocator, NULL, sizeof *record + path_size + old_size);
    char *text = (char *)(record + 1);
    if (!record) {
        casync__watch_lose(w, -ENOMEM);
        return;
    }
    memset(record, 0, sizeof *record);
    record->change = *change;
    record->change.path = (const char *)memcpy(text, change->path, path_size);
    if (change->old_path)
        record->change.old_path =
            (const char *)memcpy(text + path_size, change->old_path, old_size);
    if (w->waiting) {
        casync__watch_lend(w, record);
        return;
    }
    casync__list_append(&w->changes, &record->link);
    if (++w->kept >= CASYNC__WATCH_KEPT_MAX) casync__watcher_stop(&w->watcher, CASYNC__FD_READ);
}

/* Tells one change. False if the watch was stopped by that. */
static bool casync__watch_tell(casync__watch *w, int kind, bool directory, const char *path,
                               const char *old_path) {
    casync_loop *loop = w->loop;
    casync__weakref weak;
    casync_change change;
    change.kind = kind;
    change.directory = directory;
    change.path = path;
    change.old_path = old_path;
    if (!w->changed) {
        casync__watch_keep(w, &change);
        return true;
    }
    casync__weakref_begin(loop, &weak, w);
    w->changed(w->watch, &change);
    return casync__weakref_end(loop, &weak);
}

/* Tells of what is watched as a whole. Its path lives until the callback returns. */
static bool casync__watch_tell_root(casync__watch *w, int kind) {
    const casync_allocator allocator = w->loop->allocator;
    char *root = w->root;
    bool goes_on;
    w->root = NULL;
    goes_on = casync__watch_tell(w, kind, !w->name, root, NULL);
    if (goes_on)
        w->root = root;
    else
        casync__memory_free(&allocator, root);
    return goes_on;
}

/* -- the directories -- */

/* The row of the kernel's number, or where it belongs. */
static size_t casync__watch_find(const casync__watch *w, int number) {
    size_t low = 0, high = w->row_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (w->rows[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static casync__watch_row *casync__watch_row_of(const casync__watch *w, int number) {
    size_t at = casync__watch_find(w, number);
    return at < w->row_count && w->rows[at].number == number ? &w->rows[at] : NULL;
}

static void casync__watch_drop_row(casync__watch *w, casync__watch_row *row) {
    size_t after = w->row_count - (size_t)(row - w->rows) - 1;
    casync__watch_free_text(w, &row->path);
    memmove(row, row + 1, after * sizeof *row);
    w->row_count--;
}

/* Makes room for one more row. */
static int64_t casync__watch_reserve(casync__watch *w) {
    size_t capacity = w->row_capacity ? 2 * w->row_capacity : 4;
    void *rows;
    if (w->row_count < w->row_capacity) return 0;
    rows = casync__memory_realloc(&w->loop->allocator, w->rows, capacity * sizeof *w->rows);
    if (!rows) return -ENOMEM;
    w->rows = (casync__watch_row *)rows;
    w->row_capacity = capacity;
    return 0;
}

/* Watches one directory: 1, or 0 if it is watched already. */
static int64_t casync__watch_add(casync__watch *w, const char *path) {
    int64_t number, result = casync__watch_reserve(w);
    char *text = result == 0 ? casync__watch_text(w, path, "") : NULL;
    casync__watch_row *row;
    size_t at;
    if (!text) return -ENOMEM;
    number = casync__sys_inotify_add(w->watcher.fd, path, CASYNC__WATCH_EVENTS);
    if (number < 0) {
        casync__watch_free_text(w, &text);
        return number;
    }
    row = casync__watch_row_of(w, (int)number);
    if (row) { /* it may have another name by now */
        casync__memory_free(&w->loop->allocator, row->path);
        row->path = text;
        return 0;
    }
    at = casync__watch_find(w, (int)number);
    memmove(&w->rows[at + 1], &w->rows[at], (w->row_count - at) * sizeof *w->rows);
    w->rows[at].number = (int)number;
    w->rows[at].path = text;
    w->row_count++;
    return 1;
}

static int64_t casync__watch_push(casync__watch *w, const char *path) {
    size_t size = strlen(path) + 1;
    casync__watch_directory *directory = (casync__watch_directory *)casync__memory_realloc(
        &w->loop->allocator, NULL, sizeof *directory + size);
    if (!directory) return -ENOMEM;
    memcpy(directory + 1, path, size);
    casync__list_append(&w->to_add, &directory->link);
    return 0;
}

static void casync__watch_drop_list(const casync_allocator *allocator, casync_link *list) {
    while (!casync__list_is_empty(list)) {
        casync_link *link = list->next;
        casync__list_remove(link);
        casync__memory_free(allocator, link); /* it is the first member */
    }
}

/* One entry of a directory of a recursive watch. -ECANCELED if the watch was stopped, and is
   gone. */
static int64_t casync__watch_add_entry(casync__watch *w, const char *directory,
                                       const casync_file_entry *entry, bool tell) {
    const casync_allocator allocator = w->loop->allocator;
    char *path = casync__watch_text(w, directory, entry->name);
    bool is_directory = entry->type == DT_DIR, goes_on = true;
    casync__sys_status status;
    int64_t result = 0;
    if (!path) return -ENOMEM;
    if (entry->type == DT_UNKNOWN && casync__sys_lstat(path, &status) == 0)
        is_directory = S_ISDIR(status.st_mode);
    if (is_directory) result = casync__watch_push(w, path);
    if (tell) goes_on = casync__watch_tell(w, CASYNC_CHANGE_CREATED, is_directory, path, NULL);
    casync__memory_free(&allocator, path);
    return goes_on ? result : -ECANCELED;
}

/* Watches one directory. Its entries are told as created, with `tell`, if it was not watched
   before; those that are directories are next. */
static int64_t casync__watch_add_level(casync__watch *w, const char *path, bool tell) {
    casync__file_arguments listing;
    const casync_file_entry *entries;
    int64_t result = casync__watch_add(w, path), count, i;
    bool is_new = result > 0;
    if (result < 0) return result;
    memset(&listing, 0, sizeof listing);
    listing.path = path;
    listing.allocator = w->loop->allocator;
    count = casync__file_scan(&listing);
    entries = (const casync_file_entry *)listing.memory;
    result = count < 0 ? count : 0;
    for (i = 0; i < count && result >= 0; i++)
        result = casync__watch_add_entry(w, path, &entries[i], tell && is_new);
    casync__memory_free(&listing.allocator, listing.memory);
    return result;
}

/* Watches a directory and those below, also below those that are watched already. -ECANCELED if
   the watch was stopped by what was told, and is gone. */
static int64_t casync__watch_add_tree(casync__watch *w, const char *path, bool tell) {
    const casync_allocator allocator = w->loop->allocator;
    int64_t result = casync__watch_push(w, path);
    bool is_first = true;
    while (result >= 0 && !casync__list_is_empty(&w->to_add)) {
        casync__watch_directory *directory =
            casync__container(w->to_add.next, casync__watch_directory, link);
        casync__list_remove(&directory->link);
        result = casync__watch_add_level(w, (const char *)(directory + 1), tell);
        casync__memory_free(&allocator, directory);
        if (!is_first && (result == -ENOENT || result == -ENOTDIR || result == -EACCES))
            result = 0; /* it is gone already, or not ours to see */
        is_first = false;
    }
    if (result != -ECANCELED) casync__watch_drop_list(&allocator, &w->to_add);
    return result;
}

/* Is a path this one, or below it? */
static bool casync__watch_is_below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || !path[length]);
}

/* A directory has another name: so have those below. */
static void casync__watch_rename_rows(casync__watch *w, const char *from, const char *to) {
    size_t i;
    for (i = 0; i < w->row_count; i++) {
        char *path = w->rows[i].path, *renamed;
        if (!casync__watch_is_below(path, from)) continue;
        renamed = casync__watch_text(w, to, path + strlen(from) + (path[strlen(from)] == '/'));
        if (!renamed) {
            w->lost = -ENOMEM;
            continue;
        }
        casync__memory_free(&w->loop->allocator, path);
        w->rows[i].path = renamed;
    }
}

/* A directory went somewhere else: what happens there is none of ours. */
static void casync__watch_forget_rows(casync__watch *w, const char *path) {
    size_t i = w->row_count;
    while (i-- > 0) {
        if (!casync__watch_is_below(w->rows[i].path, path)) continue;
        (void)casync__sys_inotify_remove(w->watcher.fd, w->rows[i].number);
        casync__watch_drop_row(w, &w->rows[i]);
    }
}

/* -- events -- */

/* Is it about what the user watches? Of a file's directory only that file is. */
static bool casync__watch_concerns(const casync__watch *w, const char *path) {
    return !w->name || strcmp(path, w->root) == 0;
}

/* No second half came: what was moved is gone. False if the watch was stopped. */
static bool casync__watch_move_lost(casync__watch *w) {
    char *path = w->moved;
    casync_loop *loop = w->loop;
    bool goes_on = true;
    if (!path) return true;
    w->moved = NULL;
    casync_timer_stop(&w->timer);
    if (w->moved_directory && w->recursive) casync__watch_forget_rows(w, path);
    if (casync__watch_concerns(w, path))
        goes_on = casync__watch_tell(w, CASYNC_CHANGE_REMOVED, w->moved_directory, path, NULL);
    casync__memory_free(&loop->allocator, path);
    return goes_on;
}

static void casync__watch_move_over(void *arg) {
    (void)casync__watch_move_lost((casync__watch *)arg);
}

/* The first half of a rename. */
static bool casync__watch_moved_from(casync__watch *w, uint32_t cookie, bool directory,
                                     const char *path) {
    w->moved = casync__watch_text(w, path, "");
    w->moved_cookie = cookie;
    w->moved_directory = directory;
    if (!w->moved) {
        w->lost = -ENOMEM;
        return true;
    }
    if (casync_call_later(w->loop, &w->timer, CASYNC__WATCH_RENAME_WAIT, casync__watch_move_over,
                          w) < 0)
        return casync__watch_move_lost(w);
    w->timer.job.flags |= CASYNC__JOB_INTERNAL;
    return true;
}

/* Watches a directory that came to this path. False if the watch was stopped. */
static bool casync__watch_follow(casync__watch *w, const char *path) {
    int64_t result = w->recursive ? casync__watch_add_tree(w, path, true) : 0;
    if (result == -ECANCELED) return false;
    if (result < 0 && result != -ENOENT && result != -ENOTDIR && result != -EACCES)
        w->lost = result;
    return true;
}

/* What is new here, by its making or by a move. */
static bool casync__watch_appeared(casync__watch *w, bool directory, const char *path) {
    if (casync__watch_concerns(w, path) &&
        !casync__watch_tell(w, CASYNC_CHANGE_CREATED, directory, path, NULL))
        return false;
    return !directory || casync__watch_follow(w, path);
}

/* The second half of a rename, if its first half was the event before. */
static bool casync__watch_moved_to(casync__watch *w, uint32_t cookie, bool directory,
                                   const char *path) {
    char *from = w->moved;
    casync_loop *loop = w->loop;
    bool goes_on = true;
    if (!from || w->moved_cookie != cookie)
        return casync__watch_move_lost(w) && casync__watch_appeared(w, directory, path);
    w->moved = NULL;
    casync_timer_stop(&w->timer);
    if (directory && w->recursive) casync__watch_rename_rows(w, from, path);
    if (w->name && strcmp(path, w->root) == 0) /* the file was replaced */
        goes_on = casync__watch_tell(w, CASYNC_CHANGE_CREATED, directory, path, NULL);
    else if (casync__watch_concerns(w, from))
        goes_on = casync__watch_tell(w, CASYNC_CHANGE_RENAMED, directory, path, from);
    if (goes_on && directory) /* either may be another by now, or not watched yet */
        goes_on = casync__watch_follow(w, path) && casync__watch_follow(w, from);
    casync__memory_free(&loop->allocator, from);
    return goes_on;
}

static int casync__watch_kind(uint32_t mask) {
    if (mask & IN_MODIFY) return CASYNC_CHANGE_MODIFIED;
    if (mask & IN_CLOSE_WRITE) return CASYNC_CHANGE_WRITTEN;
    return mask & IN_ATTRIB ? CASYNC_CHANGE_ATTRIBUTES : CASYNC_CHANGE_REMOVED;
}

/* An event of an entry. */
static bool casync__watch_entry_event(casync__watch *w, const struct inotify_event *event,
                                      const char *path) {
    bool directory = event->mask & IN_ISDIR;
    if (event->mask & IN_MOVED_TO) return casync__watch_moved_to(w, event->cookie, directory, path);
    if (!casync__watch_move_lost(w)) return false;
    if (event->mask & IN_MOVED_FROM)
        return casync__watch_moved_from(w, event->cookie, directory, path);
    if (event->mask & IN_CREATE) return casync__watch_appeared(w, directory, path);
    return !casync__watch_concerns(w, path) ||
           casync__watch_tell(w, casync__watch_kind(event->mask), directory, path, NULL);
}

/* What was watched as a whole is gone: the last that is told. */
static bool casync__watch_end(casync__watch *w) {
    if (w->ended) return true;
    if (!casync__watch_move_lost(w)) return false;
    w->ended = true;
    casync__watcher_stop(&w->watcher, CASYNC__FD_READ);
    if (!casync__watch_tell_root(w, CASYNC_CHANGE_REMOVED)) return false;
    if (w->waiting) {
        casync_op *op = w->waiting;
        w->waiting = NULL;
        casync__op_done(op, CASYNC_EOF, NULL);
    }
    return true;
}

static bool casync__watch_named_event(casync__watch *w, const struct inotify_event *event,
                                      const casync__watch_row *row) {
    const casync_allocator allocator = w->loop->allocator;       /* the watch may be stopped */
    bool is_root = w->name && strcmp(event->name, w->name) == 0; /* as the desc writes it */
    char *path = is_root ? casync__watch_text(w, w->root, "")
                         : casync__watch_text(w, row->path, event->name);
    bool goes_on = true;
    if (path)
        goes_on = casync__watch_entry_event(w, event, path);
    else
        w->lost = -ENOMEM;
    casync__memory_free(&allocator, path);
    return goes_on;
}

/* False if the watch was stopped, or has ended. */
static bool casync__watch_event(casync__watch *w, const struct inotify_event *event) {
    casync__watch_row *row;
    if (event->mask & IN_Q_OVERFLOW) {
        if (!casync__watch_move_lost(w) || !casync__watch_tell_root(w, CASYNC_CHANGE_OVERFLOW))
            return false;
        return !w->recursive || casync__watch_add_tree(w, w->root, false) != -ECANCELED;
    }
    row = casync__watch_row_of(w, event->wd);
    if (!row) return true; /* of a directory that we forgot */
    if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) {
        bool whole = w->name || strcmp(row->path, w->root) == 0;
        if (event->mask & IN_MOVE_SELF && !whole) return true; /* its parent tells */
        if (whole) {
            (void)casync__watch_end(w);
            return false;
        }
        if (event->mask & IN_IGNORED) casync__watch_drop_row(w, row);
        return true;
    }
    return event->len == 0 /* of the directory itself */ ||
           casync__watch_named_event(w, event, row);
}

/* False if the watch was stopped, or has ended. */
static bool casync__watch_read(casync__watch *w) {
    union {
        int64_t align;
        char bytes[4096];
    } buffer;
    int reads;
    for (reads = 0; reads < CASYNC__WATCH_READS_MAX; reads++) {
        int64_t size, at = 0;
        if (!(w->watcher.wanted & CASYNC__FD_READ)) break;
        size = casync__sys_read(w->watcher.fd, buffer.bytes, sizeof buffer);
        if (size <= 0) break;
        while (at < size) {
            const struct inotify_event *event =
                (const struct inotify_event *)(void *)(buffer.bytes + at);
            if (!casync__watch_event(w, event)) return false;
            at += (int64_t)(sizeof *event + event->len);
        }
        if (size <= (int64_t)(sizeof buffer - sizeof(struct inotify_event) - NAME_MAX - 1))
            break; /* there was room for one more: that was all */
    }
    return true;
}

/* Reads the events. What was lost is told to a callback; casync_watch_next tells it itself. */
static void casync__watch_readable(void *arg) {
    casync__watch *w = (casync__watch *)arg;
    if (!casync__watch_read(w) || !w->lost || !w->changed) return;
    w->lost = 0;
    (void)casync__watch_tell_root(w, CASYNC_CHANGE_OVERFLOW);
}

static bool casync__watch_refused(casync_watcher *watcher, int64_t error) {
    (void)watcher, (void)error;
    return false;
}

/* -- starting and stopping -- */

static void casync__watch_free(casync__watch *w) {
    const casync_allocator *allocator = &w->loop->allocator;
    casync_timer_stop(&w->timer);
    casync__watcher_unregister(&w->watcher, true);
    casync__sys_close(w->watcher.fd);
    casync__watch_drop_list(allocator, &w->changes);
    casync__watch_drop_list(allocator, &w->to_add);
    while (w->row_count > 0) casync__watch_drop_row(w, &w->rows[w->row_count - 1]);
    casync__memory_free(allocator, w->rows);
    casync__memory_free(allocator, w->lent);
    casync__memory_free(allocator, w->moved);
    casync__memory_free(allocator, w->root);
    casync__memory_free(allocator, w);
}

CASYNC__LINKAGE void casync_watch_stop(casync_watch *watch) {
    casync__watch *w = watch ? watch->state : NULL;
    casync_op *op;
    if (!w) return;
    CASYNC_ASSERT(casync__loop_in_thread(w->loop));
    watch->state = NULL;
    op = w->waiting;
    casync__weakref_object_gone(w->loop, w);
    casync__watch_free(w);
    if (op) casync__op_done(op, -ECONNABORTED, NULL);
}

/* Watches what the path says: a directory, with or without those below, or a file's. */
static int64_t casync__watch_begin(casync__watch *w) {
    casync__sys_status status;
    int64_t result = casync__sys_stat(w->root, &status);
    char *slash = strrchr(w->root, '/'), *directory;
    if (result < 0 && result != -ENOENT) return result;
    if (result == 0 && S_ISDIR(status.st_mode))
        return w->recursive ? casync__watch_add_tree(w, w->root, false)
                            : casync__watch_add(w, w->root);
    if (slash && !slash[1]) return result < 0 ? result : -ENOTDIR; /* "file/" */
    w->recursive = false;
    w->name = slash ? slash + 1 : w->root;
    if (!slash) return casync__watch_add(w, ".");
    directory = casync__watch_text(w, w->root, "");
    if (!directory) return -ENOMEM;
    directory[slash == w->root ? 1 : slash - w->root] = 0;
    result = casync__watch_add(w, directory);
    casync__watch_free_text(w, &directory);
    return result;
}

static int64_t casync__watch_open(casync__watch *w, const char *path) {
    int64_t fd = casync__sys_inotify_init(), result;
    if (fd < 0) return fd;
    w->root = casync__watch_text(w, path, "");
    result = w->root ? casync__watcher_add(w->loop, &w->watcher, CASYNC__WATCHER_WATCH, (int)fd,
                                           CASYNC__FD_READ, casync__watch_readable, w)
                     : -ENOMEM;
    w->watcher.fd = (int)fd;
    return result < 0 ? result : casync__watch_begin(w);
}

CASYNC__LINKAGE int64_t casync_watch_start(casync_loop *loop, casync_watch *watch,
                                           const casync_watch_desc *desc) {
    casync__watch *w;
    int64_t result;
    if (casync__loop_is_closed(loop) || !watch || !desc || !desc->path || !*desc->path)
        return -EINVAL;
    if (watch->state) return -EALREADY;
    w = (casync__watch *)casync__memory_realloc(&loop->allocator, NULL, sizeof *w);
    if (!w) return -ENOMEM;
    memset(w, 0, sizeof *w);
    w->loop = loop;
    w->watch = watch;
    w->changed = desc->changed;
    w->recursive = desc->recursive;
    w->watcher.fd = -1;
    casync__list_init(&w->changes);
    casync__list_init(&w->to_add);
    result = casync__watch_open(w, desc->path);
    if (result < 0) {
        casync__watch_free(w);
        return result;
    }
    watch->user = desc->user;
    watch->state = w;
    return 0;
}

/* In a forked child: an inotify instance of its own, under the same number. What changed meanwhile
   is not known. */
static void casync__watches_fork(casync_loop *loop) {
    casync_watcher *watcher;
    uint32_t fd = 0;
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL)
        if (watcher->kind == CASYNC__WATCHER_WATCH) {
            casync__watch *w = casync__container(watcher, casync__watch, watcher);
            int64_t result;
            while (w->row_count > 0) casync__watch_drop_row(w, &w->rows[w->row_count - 1]);
            casync__fd_replace(casync__sys_inotify_init(), watcher->fd);
            result = w->ended ? 0 : casync__watch_begin(w);
            if (result < 0) casync__watch_lose(w, result);
        }
}

static void casync__watches_walk(casync_loop *loop, void (*visit)(int, void *, void *), void *arg) {
    casync_watcher *watcher;
    uint32_t fd = 0;
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL)
        if (watcher->kind == CASYNC__WATCHER_WATCH)
            visit(CASYNC_KIND_WATCH, casync__container(watcher, casync__watch, watcher)->watch,
                  arg);
}

static void casync__watches_close(casync_loop *loop) {
    casync_watcher *watcher;
    uint32_t fd = 0;
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL)
        if (watcher->kind == CASYNC__WATCHER_WATCH) {
            casync__watch *w = casync__container(watcher, casync__watch, watcher);
            w->watch->state = NULL;
            casync__watch_free(w);
        }
}

CASYNC__LINKAGE casync_future *casync_watch_next_op(casync_watch *watch, casync_op *op,
                                                    casync_change *change) {
    casync__watch *w = watch ? watch->state : NULL;
    int64_t result = 0;
    if (!op) return &casync__future_invalid;
    casync__op_begin(w ? w->loop : NULL, op, CASYNC__OP_CHANGE);
    if (!watch || !change)
        result = -EINVAL;
    else if (!w || w->changed)
        result = CASYNC_INVALID_STATE;
    else if (w->waiting)
        result = -EBUSY;
    if (result < 0) return casync__op_done(op, result, NULL);
    op->owner = w;
    op->as.change = change;
    w->waiting = op;
    if (!casync__list_is_empty(&w->changes)) {
        casync_link *link = w->changes.next;
        casync__list_remove(link);
        casync__watch_lend(w, casync__container(link, casync__watch_change, link));
        if (--w->kept < CASYNC__WATCH_KEPT_MAX / 2 && !w->ended)
            casync__watcher_start(&w->watcher, CASYNC__FD_READ);
    } else if (w->lost || w->ended) {
        result = w->lost ? w->lost : (int64_t)CASYNC_EOF;
        w->lost = 0;
        w->waiting = NULL;
        casync__op_done(op, result, NULL);
    }
    return &op->future;
}

static void casync__watch_abandon(casync_op *op) { ((casync__watch *)op->owner)->waiting = NULL; }

CASYNC__LINKAGE int64_t casync_watch_next(casync_watch *watch, casync_change *change) {
    casync_loop *loop = watch && watch->state ? watch->state->loop : NULL;
    casync_op op;
    return CASYNC__AWAIT_OP(loop, casync_watch_next_op(watch, &op, change));
}

/* >> TLS (implementation) ---------------------------------------------------------------------- */

#ifdef CASYNC_OPENSSL

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* TLS is a filter of a stream. OpenSSL reads what came from the descriptor, and writes to the
   stream's queue, by a BIO of ours: no copy between. A call of OpenSSL may so end the stream, whose
   close would free what OpenSSL is in: then it is freed when OpenSSL has returned. OpenSSL's error
   queue of this thread is left as it was found.

   Costs: OpenSSL's; a record of 16 KiB at most is on the loop's stack while it is handed on. */

#define CASYNC__TLS_HANDSHAKE_TIMEOUT CASYNC_SECONDS(60)
#define CASYNC__TLS_PLAIN_SIZE 16384 /* of one record (RFC 8446, 5.1) */

struct casync_tls_context {
    SSL_CTX *ssl;
    uint32_t references;
    bool server, no_verify;
    casync_tls_context *(*choose)(const char *server_name, void *arg);
    void *arg;
    uint8_t protocols[256]; /* as ALPN has them, each behind its length */
    unsigned protocols_size;
    pthread_mutex_t mutex;
    SSL_SESSION *session; /* of the client's last connection, and to whom; with the mutex */
    char session_name[256];
};

typedef struct casync__tls {
    casync_filter filter;
    casync_loop *loop;
    SSL *ssl;
    casync_tls_context *context;
    casync_timer limit; /* of the handshake */
    const uint8_t *raw; /* what came and OpenSSL has not read */
    size_t raw_size;
    casync_outbuf early; /* what the user wrote before the handshake was over */
    casync_op *handshake;
    int64_t failed; /* a send of OpenSSL's */
    char *errors;
    size_t errors_size;
    int busy; /* calls of OpenSSL that have not returned */
    bool established, closed, said_goodbye;
} casync__tls;

/* -- errors -- */

/* The words of the newest error, and of errno if that is behind it. */
static void casync__tls_tell(char *errors, size_t size) {
    unsigned long code = ERR_peek_last_error();
    int error = errno;
    size_t used;
    if (!errors || size == 0 || !code) return;
    ERR_error_string_n(code, errors, size);
    used = strlen(errors);
    if (ERR_GET_REASON(code) == ERR_R_SYS_LIB && used + 1 < size)
        snprintf(errors + used, size - used, ": %s", strerror(error));
}

/* -- contexts -- */

static casync_tls_context *casync__tls_context_ref(casync_tls_context *context) {
    casync__atomic_add(&context->references, 1);
    return context;
}

CASYNC__LINKAGE void casync_tls_context_release(casync_tls_context *context) {
    if (!context || casync__atomic_add(&context->references, UINT32_MAX) != 1) return;
    if (context->session) SSL_SESSION_free(context->session);
    if (context->ssl) SSL_CTX_free(context->ssl);
    pthread_mutex_destroy(&context->mutex);
    CASYNC_FREE(context);
}

static BIO *casync__tls_text(const char *text) { return BIO_new_mem_buf(text, (int)strlen(text)); }

/* The certificate of a text, then those of its chain. */
static bool casync__tls_use_certificate_text(SSL_CTX *ssl, const char *text) {
    BIO *bio = casync__tls_text(text);
    X509 *certificate = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL;
    bool used = certificate && SSL_CTX_use_certificate(ssl, certificate) == 1;
    X509_free(certificate);
    while (used && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
        if (SSL_CTX_add0_chain_cert(ssl, certificate) != 1) {
            X509_free(certificate);
            used = false;
        }
    BIO_free(bio);
    return used;
}

static bool casync__tls_use_key_text(SSL_CTX *ssl, const char *text) {
    BIO *bio = casync__tls_text(text);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    bool used = key && SSL_CTX_use_PrivateKey(ssl, key) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    return used;
}

static bool casync__tls_trust_text(SSL_CTX *ssl, const char *text) {
    BIO *bio = casync__tls_text(text);
    X509_STORE *store = SSL_CTX_get_cert_store(ssl);
    X509 *certificate;
    int count = 0;
    while (bio && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        count += X509_STORE_add_cert(store, certificate);
        X509_free(certificate);
    }
    BIO_free(bio);
    return count > 0;
}

static bool casync__tls_load(SSL_CTX *ssl, const casync_tls_context_desc *desc) {
    bool trusts = desc->ca || desc->ca_file || desc->ca_directory;
    if (desc->certificate_file &&
        SSL_CTX_use_certificate_chain_file(ssl, desc->certificate_file) != 1)
        return false;
    if (desc->certificate && !casync__tls_use_certificate_text(ssl, desc->certificate))
        return false;
    if (desc->key_file && SSL_CTX_use_PrivateKey_file(ssl, desc->key_file, SSL_FILETYPE_PEM) != 1)
        return false;
    if (desc->key && !casync__tls_use_key_text(ssl, desc->key)) return false;
    if ((desc->key || desc->key_file) && SSL_CTX_check_private_key(ssl) != 1) return false;
    if (desc->ca && !casync__tls_trust_text(ssl, desc->ca)) return false;
    if ((desc->ca_file || desc->ca_directory) &&
        SSL_CTX_load_verify_locations(ssl, desc->ca_file, desc->ca_directory) != 1)
        return false;
    return trusts || SSL_CTX_set_default_verify_paths(ssl) == 1;
}

/* The protocols in ALPN's form (RFC 7301). */
static int64_t casync__tls_set_protocols(casync_tls_context *context,
                                         const char *const *protocols) {
    for (; protocols && *protocols; protocols++) {
        size_t length = strlen(*protocols), at = context->protocols_size;
        if (length == 0 || length > 255 || at + 1 + length > sizeof context->protocols)
            return -EINVAL;
        context->protocols[at] = (uint8_t)length;
        memcpy(context->protocols + at + 1, *protocols, length);
        context->protocols_size += (unsigned)length + 1;
    }
    return 0;
}

/* Server: the first of ours that the client offers; without one there is no protocol. */
static int casync__tls_select_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *size,
                                       const unsigned char *offered, unsigned offered_size,
                                       void *arg) {
    const casync_tls_context *context = (const casync_tls_context *)arg;
    unsigned char *out;
    int result = SSL_select_next_proto(&out, size, context->protocols, context->protocols_size,
                                       offered, offered_size);
    (void)ssl;
    *chosen = out;
    return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static int casync__tls_server_named(SSL *ssl, int *alert, void *arg) {
    const casync_tls_context *context = (const casync_tls_context *)arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    casync_tls_context *chosen = name ? context->choose(name, context->arg) : NULL;
    (void)alert;
    if (chosen) SSL_set_SSL_CTX(ssl, chosen->ssl);
    return SSL_TLSEXT_ERR_OK;
}

/* Client: keeps the newest session. 1: the reference is ours. */
static int casync__tls_session_came(SSL *ssl, SSL_SESSION *session) {
    casync_tls_context *context = (casync_tls_context *)SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (!name || strlen(name) >= sizeof context->session_name) return 0;
    pthread_mutex_lock(&context->mutex);
    if (context->session) SSL_SESSION_free(context->session);
    context->session = session;
    memcpy(context->session_name, name, strlen(name) + 1);
    pthread_mutex_unlock(&context->mutex);
    return 1;
}

static void casync__tls_context_configure(casync_tls_context *context,
                                          const casync_tls_context_desc *desc) {
    static const unsigned char session_id[] = "casync";
    SSL_CTX *ssl = context->ssl;
    int verify = desc->server
                     ? (desc->verify_client ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                                            : SSL_VERIFY_NONE)
                     : (desc->no_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER);
    SSL_CTX_set_min_proto_version(ssl, desc->only_tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(ssl, verify, NULL);
    SSL_CTX_set_app_data(ssl, context);
    if (desc->server) {
        SSL_CTX_set_session_id_context(ssl, session_id, sizeof session_id - 1);
        if (context->protocols_size > 0)
            SSL_CTX_set_alpn_select_cb(ssl, casync__tls_select_protocol, context);
        if (context->choose) {
            SSL_CTX_set_tlsext_servername_callback(ssl, casync__tls_server_named);
            SSL_CTX_set_tlsext_servername_arg(ssl, context);
        }
    } else {
        SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ssl, casync__tls_session_came);
        if (context->protocols_size > 0)
            SSL_CTX_set_alpn_protos(ssl, context->protocols, context->protocols_size);
    }
}

static int64_t casync__tls_context_fill(casync_tls_context *context,
                                        const casync_tls_context_desc *desc) {
    int64_t result = casync__tls_set_protocols(context, desc->protocols);
    if (result < 0) return result;
    ERR_set_mark();
    context->ssl = SSL_CTX_new(desc->server ? TLS_server_method() : TLS_client_method());
    if (context->ssl) casync__tls_context_configure(context, desc);
    result = context->ssl && casync__tls_load(context->ssl, desc) ? 0 : CASYNC_TLS_FAILED;
    if (result < 0) casync__tls_tell(desc->errors, desc->errors_size);
    ERR_pop_to_mark();
    return result;
}

CASYNC__LINKAGE int64_t casync_tls_context_make(casync_tls_context **context,
                                                const casync_tls_context_desc *desc) {
    casync_tls_context *made;
    int64_t result;
    if (!context || !desc) return -EINVAL;
    *context = NULL;
    if (desc->errors && desc->errors_size > 0) desc->errors[0] = 0;
    made = (casync_tls_context *)CASYNC_REALLOC(NULL, sizeof *made);
    if (!made) return -ENOMEM;
    memset(made, 0, sizeof *made);
    pthread_mutex_init(&made->mutex, NULL);
    made->references = 1;
    made->server = desc->server;
    made->no_verify = desc->no_verify;
    made->choose = desc->choose;
    made->arg = desc->arg;
    result = casync__tls_context_fill(made, desc);
    if (result < 0)
        casync_tls_context_release(made);
    else
        *context = made;
    return result;
}

/* -- the BIO -- */

static int casync__tls_bio_read(BIO *bio, char *data, int size) {
    casync__tls *t = (casync__tls *)BIO_get_data(bio);
    size_t count = t->raw_size < (size_t)size ? t->raw_size : (size_t)size;
    BIO_clear_retry_flags(bio);
    if (count == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(data, t->raw, count);
    t->raw += count;
    t->raw_size -= count;
    return (int)count;
}

static int casync__tls_bio_write(BIO *bio, const char *data, int size) {
    casync__tls *t = (casync__tls *)BIO_get_data(bio);
    int64_t result = t->closed ? -ECONNABORTED : casync_filter_send(&t->filter, data, (size_t)size);
    BIO_clear_retry_flags(bio);
    if (result < 0) t->failed = result;
    return result < 0 ? -1 : size;
}

static long casync__tls_bio_control(BIO *bio, int command, long number, void *ptr) {
    (void)bio, (void)number, (void)ptr;
    return command == BIO_CTRL_FLUSH;
}

/* One for the process, which OpenSSL keeps. */
static BIO_METHOD *casync__tls_bio_method(void) {
    BIO_METHOD *method;
    casync__process_lock();
    method = (BIO_METHOD *)casync__process.tls_bio_method;
    if (!method) method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "casync");
    if (method && !casync__process.tls_bio_method) {
        BIO_meth_set_read(method, casync__tls_bio_read);
        BIO_meth_set_write(method, casync__tls_bio_write);
        BIO_meth_set_ctrl(method, casync__tls_bio_control);
        casync__process.tls_bio_method = method;
    }
    pthread_mutex_unlock(&casync__process.mutex);
    return method;
}

/* -- a connection -- */

static void casync__tls_free(casync__tls *t) {
    SSL_free(t->ssl);
    casync_outbuf_clear(&t->early);
    casync_tls_context_release(t->context);
    casync__memory_free(&t->loop->allocator, t);
}

/* Around each call of OpenSSL. `leave` is false if the stream went meanwhile, and t with it. */
static void casync__tls_enter(casync__tls *t) {
    t->busy++;
    ERR_set_mark();
}

static bool casync__tls_leave(casync__tls *t) {
    ERR_pop_to_mark();
    if (--t->busy > 0 || !t->closed) return true;
    casync__tls_free(t);
    return false;
}

static void casync__tls_close(casync_filter *filter) {
    casync__tls *t = casync__container(filter, casync__tls, filter);
    casync_timer_stop(&t->limit);
    t->closed = true;
    if (t->busy == 0) casync__tls_free(t);
}

/* Why a call of OpenSSL failed: 0 if it wants more bytes. */
static int64_t casync__tls_judge(casync__tls *t, int result) {
    int error = SSL_get_error(t->ssl, result);
    if (t->failed < 0) return t->failed;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_NONE) return 0;
    if (error == SSL_ERROR_ZERO_RETURN) return CASYNC_EOF;
    casync__tls_tell(t->errors, t->errors_size);
    return CASYNC_TLS_FAILED;
}

static int64_t casync__tls_send_spans(casync__tls *t, const casync_span *spans, size_t count) {
    size_t i;
    for (i = 0; i < count && !t->closed; i++) {
        size_t written;
        if (spans[i].len == 0) continue;
        if (SSL_write_ex(t->ssl, spans[i].ptr, spans[i].len, &written) != 1)
            return t->failed < 0 ? t->failed : (int64_t)CASYNC_TLS_FAILED;
    }
    return t->closed ? -ECONNABORTED : 0;
}

/* What was written before the handshake was over. */
static int64_t casync__tls_send_early(casync__tls *t) {
    casync_span spans[16];
    int64_t result = 0;
    while (t->early.size > 0 && result == 0) {
        size_t count = casync_outbuf_peek(&t->early, spans, 16),
               size = casync__spans_size(spans, count);
        result = casync__tls_send_spans(t, spans, count);
        if (!t->closed) casync_outbuf_consume(&t->early, size);
    }
    return result;
}

/* A step of the handshake: it may be the last. */
static int64_t casync__tls_shake(casync__tls *t) {
    int result = SSL_do_handshake(t->ssl);
    int64_t error = result == 1 ? 0 : casync__tls_judge(t, result);
    casync_op *op = t->handshake;
    if (error < 0 || result != 1 || t->closed) return error == CASYNC_EOF ? -ECONNRESET : error;
    t->established = true;
    t->filter.reads = false;
    t->errors = NULL;
    casync_timer_stop(&t->limit);
    t->handshake = NULL;
    if (op) casync__op_done(op, 0, NULL);
    casync__stream_update_reading(t->filter.stream);
    return casync__tls_send_early(t);
}

/* Hands on what is in the records that came. */
static int64_t casync__tls_read_records(casync__tls *t) {
    uint8_t plain[CASYNC__TLS_PLAIN_SIZE];
    size_t size;
    while (!t->closed) {
        int result = SSL_read_ex(t->ssl, plain, sizeof plain, &size);
        int64_t error;
        if (result != 1) return casync__tls_judge(t, result);
        error = casync_filter_receive(&t->filter, plain, size);
        if (error < 0) return error;
    }
    return -ECONNABORTED;
}

static int64_t casync__tls_received(casync_filter *filter, casync_span raw) {
    casync__tls *t = casync__container(filter, casync__tls, filter);
    int64_t result = 0;
    casync__tls_enter(t);
    t->raw = (const uint8_t *)raw.ptr;
    t->raw_size = raw.len;
    if (!t->established) result = casync__tls_shake(t);
    if (result == 0 && t->established) result = casync__tls_read_records(t);
    return casync__tls_leave(t) ? result : -ECONNABORTED;
}

/* The peer ended without a close_notify. */
static int64_t casync__tls_received_eof(casync_filter *filter) {
    casync__tls *t = casync__container(filter, casync__tls, filter);
    if (SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN) return 0;
    return t->established ? (int64_t)CASYNC_INCOMPLETE_READ : -ECONNRESET;
}

static int64_t casync__tls_write(casync_filter *filter, const casync_span *spans, size_t count) {
    casync__tls *t = casync__container(filter, casync__tls, filter);
    int64_t result;
    if (!t->established) return casync_outbuf_append(&t->early, spans, count);
    casync__tls_enter(t);
    result = casync__tls_send_spans(t, spans, count);
    return casync__tls_leave(t) ? result : -ECONNABORTED;
}

/* A close_notify, once. */
static int64_t casync__tls_write_eof(casync_filter *filter) {
    casync__tls *t = casync__container(filter, casync__tls, filter);
    int64_t result = 0;
    if (!t->established || t->said_goodbye) return 0;
    t->said_goodbye = true;
    casync__tls_enter(t);
    if (SSL_shutdown(t->ssl) < 0) result = casync__tls_judge(t, -1);
    return casync__tls_leave(t) ? result : -ECONNABORTED;
}

static void casync__tls_too_late(void *arg) {
    casync__tls *t = (casync__tls *)arg;
    casync__stream_end(t->filter.stream, -ETIMEDOUT);
}

/* Client: who the server must be, and a session that it may remember. */
static int64_t casync__tls_expect(casync__tls *t, const char *name) {
    casync_address address;
    bool numeric = name && casync__address_parse_host(name, 0, &address) == 0;
    casync_tls_context *context = t->context;
    if (!name) return context->no_verify ? 0 : -EINVAL;
    if (numeric && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), name) != 1) return -EINVAL;
    if (numeric) return 0;
    if (SSL_set1_host(t->ssl, name) != 1 || SSL_set_tlsext_host_name(t->ssl, name) != 1)
        return -EINVAL;
    pthread_mutex_lock(&context->mutex);
    if (context->session && strcmp(context->session_name, name) == 0)
        (void)SSL_set_session(t->ssl, context->session);
    pthread_mutex_unlock(&context->mutex);
    return 0;
}

static int64_t casync__tls_open(casync__tls *t, const casync_tls_desc *desc) {
    BIO_METHOD *method = casync__tls_bio_method();
    BIO *bio = method ? BIO_new(method) : NULL;
    t->ssl = bio ? SSL_new(t->context->ssl) : NULL;
    if (!t->ssl) {
        BIO_free(bio);
        return -ENOMEM;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    if (t->context->server) {
        SSL_set_accept_state(t->ssl);
        return 0;
    }
    SSL_set_connect_state(t->ssl);
    return casync__tls_expect(t, desc->server_name);
}

static casync__tls *casync__tls_make(casync_loop *loop, const casync_tls_desc *desc) {
    casync__tls *t = (casync__tls *)casync__memory_realloc(&loop->allocator, NULL, sizeof *t);
    if (!t) return NULL;
    memset(t, 0, sizeof *t);
    casync_outbuf_init(&t->early, &loop->allocator);
    t->filter.received = casync__tls_received;
    t->filter.received_eof = casync__tls_received_eof;
    t->filter.write = casync__tls_write;
    t->filter.write_eof = casync__tls_write_eof;
    t->filter.close = casync__tls_close;
    t->filter.reads = true;
    t->loop = loop;
    t->context = casync__tls_context_ref(desc->context);
    t->errors = desc->errors;
    t->errors_size = desc->errors_size;
    if (desc->errors && desc->errors_size > 0) desc->errors[0] = 0;
    return t;
}

/* What was read ahead is the beginning of the peer's TLS. */
static int64_t casync__tls_begin(casync_stream *stream, casync__tls *t) {
    casync__input *ahead = stream->input;
    size_t size = casync__input_size(ahead);
    casync__weakref weak;
    int64_t result;
    stream->input = NULL;
    stream->filter = &t->filter;
    t->filter.stream = stream;
    casync__weakref_begin(t->loop, &weak, stream);
    result = casync__tls_received(
        &t->filter, casync__span_make(ahead ? casync__input_bytes(ahead) : NULL, size));
    casync__memory_free(&t->loop->allocator, ahead);
    if (!casync__weakref_end(t->loop, &weak)) return -ECONNABORTED;
    if (result == CASYNC_EOF)
        casync__stream_received_eof(stream);
    else if (result < 0)
        casync__stream_end(stream, result);
    else
        casync__stream_update_reading(stream);
    return result < 0 && result != CASYNC_EOF ? result : 0;
}

static int64_t casync__tls_start(casync_stream *stream, const casync_tls_desc *desc,
                                 casync__tls **made) {
    int64_t limit =
        desc->handshake_timeout ? desc->handshake_timeout : CASYNC__TLS_HANDSHAKE_TIMEOUT;
    casync__tls *t;
    int64_t result;
    if (!casync__stream_is_connected(stream) || stream->filter || stream->reading)
        return CASYNC_INVALID_STATE;
    t = casync__tls_make(casync__stream_loop(stream), desc);
    if (!t) return -ENOMEM;
    ERR_set_mark();
    result = casync__tls_open(t, desc);
    ERR_pop_to_mark();
    if (result == 0 && limit != CASYNC_FOREVER)
        result = casync_call_later(t->loop, &t->limit, limit, casync__tls_too_late, t);
    if (result < 0) {
        casync_timer_stop(&t->limit);
        casync__tls_free(t);
        return result;
    }
    t->limit.job.flags |= CASYNC__JOB_INTERNAL;
    *made = t;
    return 0;
}

CASYNC__LINKAGE casync_future *casync_start_tls_op(casync_stream *stream, casync_op *op,
                                                   const casync_tls_desc *desc) {
    casync__tls *t;
    int64_t result = stream && desc && desc->context ? 0 : -EINVAL;
    if (!op) return &casync__future_invalid;
    casync__op_begin(casync__stream_loop(stream), op, CASYNC__OP_START_TLS);
    if (result == 0) result = casync__tls_start(stream, desc, &t);
    if (result < 0) return casync__op_done(op, result, NULL);
    op->owner = stream;
    t->handshake = op;
    casync__list_append(&stream->endpoint.waiting, &op->link);
    (void)casync__tls_begin(stream, t); /* what fails ends the stream, and the operation with it */
    return &op->future;
}

CASYNC__LINKAGE int64_t casync_start_tls(casync_stream *stream, const casync_tls_desc *desc) {
    casync_op op;
    return CASYNC__AWAIT_OP(casync__stream_loop(stream), casync_start_tls_op(stream, &op, desc));
}

CASYNC__LINKAGE int64_t casync_tls_info_of(const casync_stream *stream, casync_tls_info *info) {
    const casync__tls *t;
    const unsigned char *protocol;
    unsigned size;
    if (!stream || !info) return -EINVAL;
    if (!casync__stream_is_connected(stream) || !stream->filter ||
        stream->filter->received != casync__tls_received)
        return CASYNC_INVALID_STATE;
    t = casync__container(stream->filter, casync__tls, filter);
    if (!t->established) return CASYNC_INVALID_STATE;
    memset(info, 0, sizeof *info);
    info->version = SSL_get_version(t->ssl);
    info->cipher = SSL_get_cipher_name(t->ssl);
    info->resumed = SSL_session_reused(t->ssl) == 1;
    info->peer_certificate = SSL_get0_peer_certificate(t->ssl);
    SSL_get0_alpn_selected(t->ssl, &protocol, &size);
    if (size == 0) return 0;
    memcpy(info->protocol_text, protocol, size);
    info->protocol = info->protocol_text;
    return 0;
}

#endif /* CASYNC_OPENSSL */

/* >> metrics & dump (implementation) ----------------------------------------------------------- */

/* What a loop does, in numbers and in words, for people to read. Counters are always kept: an
   addition for each callback, poll and turn. Time is measured if the loop's desc asks for it. Text
   is made only when it is asked for. */

CASYNC__LINKAGE void casync_loop_metrics(const casync_loop *loop, casync_metrics *metrics) {
    const casync_link *link;
    if (!metrics) return;
    memset(metrics, 0, sizeof *metrics);
    if (!loop) return;
    metrics->turns = loop->turns;
    metrics->polls = loop->polls;
    metrics->events = loop->events;
    metrics->callbacks = loop->callbacks;
    metrics->idle_time = loop->idle_time;
    metrics->busy_time = loop->busy_time;
    metrics->longest_turn = loop->longest_turn;
    if (casync__loop_is_closed(loop)) return;
    for (link = loop->tasks.next; link != &loop->tasks; link = link->next) metrics->tasks++;
}

/* -- what tasks await, in words -- */

static void casync__line_append_op(char line[CASYNC__LINE_SIZE], const casync_op *op) {
    const casync__op_kind *kind = &casync__op_kinds[op->kind];
    if (op->kind == CASYNC__OP_CONDITION && op->as.phase != CASYNC__CONDITION_WAITING)
        casync__line_append(line, "lock of ");
    casync__line_append(line, "%s", kind->name);
    if (kind->owner == CASYNC__OP_OWNER_DESCRIPTOR)
        casync__line_append(line, ", descriptor %d", ((const casync_watcher *)op->owner)->fd);
    else if (kind->owner == CASYNC__OP_OWNER_OBJECT)
        casync__line_append(line, " %p", op->owner);
}

static void casync__line_append_children(char line[CASYNC__LINE_SIZE],
                                         const casync_task_group *group) {
    const casync_link *link, *members = &group->record->members;
    casync__line_append(line, "children");
    for (link = members->next; link != members; link = link->next) {
        const casync__group_member *member =
            (const casync__group_member *)(const void *)((const char *)link -
                                                         offsetof(casync__group_member, link));
        casync__line_append(line, ", task %s", casync_task_name(member->task));
    }
}

/* How many are awaited, and the tasks among them. */
static void casync__line_append_wait_set(char line[CASYNC__LINE_SIZE], const casync_wait_set *set) {
    size_t i;
    casync__line_append(line, "%zu of %zu futures", set->pending, set->count);
    for (i = 0; i < set->count; i++) {
        casync_future *future = set->waiters[i].future;
        if (casync__future_is_task(future) && !casync_future_done(future))
            casync__line_append(line, ", task %s",
                                casync_task_name((const casync_task *)(const void *)future));
    }
}

/* What a pending future stands for, in words. */
static void casync__line_append_future(char line[CASYNC__LINE_SIZE], casync_future *future) {
    switch (future->kind) {
    case CASYNC__FUTURE_OP:
    case CASYNC__FUTURE_CONDITION:
        casync__line_append_op(line, (const casync_op *)(const void *)future);
        break;
    case CASYNC__FUTURE_TIMER:
        casync__line_append(
            line, "sleep, %lld us left",
            (long long)casync_timer_remaining(&((casync_timer_op *)(void *)future)->timer) / 1000);
        break;
    case CASYNC__FUTURE_TASK:
    case CASYNC__FUTURE_FIBER:
        casync__line_append(line, "task %s",
                            casync_task_name((const casync_task *)(const void *)future));
        break;
    case CASYNC__FUTURE_GATHER:
    case CASYNC__FUTURE_WAIT:
        casync__line_append_wait_set(line, (const casync_wait_set *)(const void *)future);
        break;
    case CASYNC__FUTURE_GROUP:
        casync__line_append_children(line, casync__container(future, casync_task_group, ended));
        break;
    case CASYNC__FUTURE_SHIELD:
        casync__line_append_future(line, ((casync_shielded *)(void *)future)->inner);
        break;
    default:
        casync__line_append(line, "future %p", (void *)future);
    }
}

/* A line: the task, and along the chain of tasks that await each other what the last of them
   awaits. A chain that is a circle ends with the room. */
static void casync__line_describe_task(char line[CASYNC__LINE_SIZE], const casync_task *task) {
    const casync_loop *loop = casync__task_loop(task);
    line[0] = 0;
    casync__line_append(line, "task %s", casync_task_name(task));
    while (task && strlen(line) < CASYNC__LINE_SIZE - 1) {
        casync_future *awaited = casync__task_awaits(task);
        if (task == loop->task) {
            casync__line_append(line, " runs");
        } else if (!awaited || casync_future_done(awaited)) {
            casync__line_append(line, " is ready");
        } else {
            casync__line_append(line, " awaits ");
            casync__line_append_future(line, awaited);
        }
        task = task == loop->task ? NULL : casync__task_awaited(task);
    }
    if (strlen(line) == CASYNC__LINE_SIZE - 1) memcpy(line + CASYNC__LINE_SIZE - 5, " ...", 4);
}

/* -- streams, servers and sockets in words -- */

static void casync__line_append_peer(char line[CASYNC__LINE_SIZE], const casync_address *address) {
    char text[CASYNC_ADDRESS_TEXT];
    if (address->size > 0 && *casync_address_text(address, text))
        casync__line_append(line, ", peer %s", text);
}

/* The descriptor, and whose it is at the other end, as far as the kernel knows. */
static void casync__line_append_stream(char line[CASYNC__LINE_SIZE], const casync_stream *stream) {
    casync_address address;
    casync__line_append(line, ", descriptor %d", stream->endpoint.watcher.fd);
    if (casync_peer_address(stream, &address) == 0) casync__line_append_peer(line, &address);
}

static void casync__line_append_local(char line[CASYNC__LINE_SIZE], int fd) {
    char text[CASYNC_ADDRESS_TEXT];
    casync_address address;
    casync__line_append(line, ", descriptor %d", fd);
    if (casync__address_of(fd, casync__sys_getsockname, &address) == 0)
        casync__line_append(line, ", at %s", casync_address_text(&address, text));
}

static void casync__line_describe_stream(char line[CASYNC__LINE_SIZE],
                                         const casync_stream *stream) {
    casync__line_append(line, "stream");
    casync__line_append_stream(line, stream);
    if (stream->out.size > 0) casync__line_append(line, ", %zu bytes unsent", stream->out.size);
    if (stream->endpoint.state == CASYNC__ENDPOINT_CONNECTING)
        casync__line_append(line, ", connecting");
    if (stream->endpoint.state == CASYNC__ENDPOINT_FINISHING)
        casync__line_append(line, ", finishing");
}

/* The default exception handler. */
static void casync__exception_print(casync_loop *loop, const casync_exception *exception,
                                    void *arg) {
    const casync_future *future = exception->future;
    char line[CASYNC__LINE_SIZE] = "casync: ";
    (void)loop, (void)arg;
    casync__line_append(line, "%s: %s", exception->message, casync_strerror(exception->error));
    if (exception->unsent > 0) casync__line_append(line, ", %zu bytes unsent", exception->unsent);
    if (future && casync__future_is_task(future)) {
        casync__line_append(line, ", ");
        casync__line_append_task(line, (const casync_task *)(const void *)future);
    } else if (future && future->kind == CASYNC__FUTURE_OP) {
        casync__line_append(line, ", %s",
                            casync__op_kinds[((const casync_op *)(const void *)future)->kind].name);
    }
    if (exception->stream && !exception->peer) casync__line_append_stream(line, exception->stream);
    if (exception->server) casync__line_append_local(line, exception->server->watcher.fd);
    if (exception->datagram)
        casync__line_append_local(line, exception->datagram->endpoint.watcher.fd);
    if (exception->peer) casync__line_append_peer(line, exception->peer);
    fprintf(stderr, "%s\n", line);
}

/* -- the dump -- */

typedef struct casync__dump {
    int fd;
    int64_t result; /* 0, or the first error */
} casync__dump;

static void casync__dump_line(casync__dump *dump, char line[CASYNC__LINE_SIZE + 1]) {
    strcat(line, "\n");
    if (dump->result == 0) dump->result = casync__sys_write(dump->fd, line, strlen(line));
    if (dump->result > 0) dump->result = 0;
}

static void casync__dump_unreleased(casync_task *task, void *arg) {
    char line[CASYNC__LINE_SIZE + 1] = "";
    if (task->future.state != CASYNC_FUTURE_FAILED || task->future.retrieved) return;
    casync__line_append_task(line, task);
    casync__line_append(line, " failed (%s), and nobody has asked it yet",
                        casync_strerror(task->future.result));
    casync__dump_line((casync__dump *)arg, line);
}

/* Streams, servers and datagram sockets: what keeps a loop from being closed. */
static void casync__dump_open(casync_loop *loop, casync__dump *dump) {
    const casync_watcher *watcher;
    uint32_t fd = 0;
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL) {
        char line[CASYNC__LINE_SIZE + 1] = "";
        if (watcher->kind < CASYNC__WATCHER_STREAM) continue;
        if (watcher->kind == CASYNC__WATCHER_STREAM) {
            casync__line_describe_stream(line, (const casync_stream *)(const void *)watcher);
        } else {
            casync__line_append(
                line, "%s", watcher->kind == CASYNC__WATCHER_SERVER ? "server" : "datagram socket");
            casync__line_append_local(line, watcher->fd);
        }
        casync__dump_line(dump, line);
    }
}

static void casync__dump_processes(casync_loop *loop, casync__dump *dump) {
    casync_link *link;
    for (link = loop->children.next; link != &loop->children; link = link->next) {
        char line[CASYNC__LINE_SIZE + 1] = "";
        casync__line_append(line, "process %d",
                            casync__container(link, casync__process_child, link)->pid);
        casync__dump_line(dump, line);
    }
}

/* Calls that run, also those that nobody waits for any more. */
static void casync__dump_executor(casync_loop *loop, casync__dump *dump) {
    casync__pool *pool = loop->executor;
    char line[CASYNC__LINE_SIZE + 1] = "";
    const casync_link *held, *link;
    unsigned waiting;
    casync__pool_lock(pool);
    held = &pool->lanes[CASYNC__CALL_LANE_NAMES].held;
    waiting = pool->queued;
    for (link = held->next; link != held; link = link->next) waiting++;
    casync__line_append(line, "default pool, %u calls run, %u wait", (unsigned)pool->running,
                        waiting);
    pthread_mutex_unlock(&pool->mutex);
    casync__dump_line(dump, line);
}

CASYNC__LINKAGE int64_t casync_dump(casync_loop *loop, int fd) {
    casync__dump dump = {0, 0};
    casync_link *link;
    dump.fd = fd;
    if (casync__loop_is_closed(loop)) return 0;
    for (link = loop->tasks.next; link != &loop->tasks; link = link->next) {
        char line[CASYNC__LINE_SIZE + 1];
        casync__line_describe_task(line, casync__container(link, casync_task, link));
        casync__dump_line(&dump, line);
    }
    casync__fibers_each_unreleased(loop, casync__dump_unreleased, &dump);
    casync__dump_open(loop, &dump);
    casync__dump_processes(loop, &dump);
    if (loop->executor) casync__dump_executor(loop, &dump);
    return dump.result;
}

static void casync__dump_to_stderr(void *loop) {
    (void)casync_dump((casync_loop *)loop, STDERR_FILENO);
}

CASYNC__LINKAGE int64_t casync_dump_on_signal(casync_loop *loop, casync_signal *watcher,
                                              int signum) {
    int64_t result = casync_signal_start(loop, watcher, signum, 0, casync__dump_to_stderr, loop);
    if (result == 0) casync_signal_ref(watcher, false);
    return result;
}

/* >> loop (implementation) --------------------------------------------------------------------- */

/* A turn is asyncio's. It asks the kernel, queues what became ready, queues the timers that are
   due, and runs the ready queue as it stands. It moves that queue to `running` and works it off, so
   what the callbacks queue is for the next turn.

   Costs: a turn without work is one epoll_pwait2. A turn with work asks the kernel by one
   epoll_wait; after 16 in a row that found nothing, only every 64 turns or 100 us. It reads the
   clock once if there are timers or turns take long, else every other turn. */

/* Polls are skipped after so many in a row that found nothing; then at most so many, for at most so
   long. */
#define CASYNC__TURN_EMPTY_POLLS 16
#define CASYNC__TURN_SKIPPED_POLLS_MAX 64
#define CASYNC__TURN_SKIPPED_TIME_MAX CASYNC_US(100)
#define CASYNC__TURN_SHORT CASYNC_US(10)

/* -- hooks -- */

static void casync__hook_insert(casync_link *hooks, casync_hook *hook) {
    casync_link *before = hooks->next;
    while (before != hooks &&
           ((casync_hook *)(void *)casync__job_of(before))->priority >= hook->priority)
        before = before->next;
    casync__list_append(before, &hook->job.link);
}

/* Each hook is put back before it is called, so that it can stop itself or any other. */
static void casync__hooks_run_all(casync_loop *loop, int kind) {
    casync_link pending;
    casync__list_init(&pending);
    casync__list_move(&pending, &loop->hooks[kind]);
    while (!casync__list_is_empty(&pending)) {
        casync_hook *hook = (casync_hook *)(void *)casync__job_of(pending.next);
        casync__list_remove(&hook->job.link);
        casync__hook_insert(&loop->hooks[kind], hook);
        hook->job.callback(hook->job.arg);
    }
}

static inline void casync__hooks_run(casync_loop *loop, int kind) {
    if (!casync__list_is_empty(&loop->hooks[kind])) casync__hooks_run_all(loop, kind);
}

CASYNC__LINKAGE int64_t casync_hook_start(casync_loop *loop, casync_hook *hook, int kind,
                                          int priority, casync_callback callback, void *arg) {
    if (casync__loop_is_closed(loop) || !hook || !callback || kind < 0 || kind > CASYNC_HOOK_IDLE)
        return -EINVAL;
    if (hook->job.link.next) return -EALREADY;
    CASYNC_ASSERT(casync__loop_in_thread(loop));
    casync__job_init(loop, &hook->job, callback, arg);
    hook->kind = kind;
    hook->priority = priority;
    casync__hook_insert(&loop->hooks[kind], hook);
    return 0;
}

CASYNC__LINKAGE int64_t casync_hook_stop(casync_hook *hook) {
    if (!hook) return 0;
    return casync_job_cancel(&hook->job);
}

/* -- a turn -- */

/* What has to happen before some jobs are called. */
static void casync__job_prepare(casync_loop *loop, casync_job *job) {
    if (job->flags & CASYNC__JOB_TIMER) casync__timer_prepare(loop, (casync_timer *)(void *)job);
    casync__job_release(loop, job);
}

/* Tasks go on from here, without a call in between, so that the processor's memory of calls is in
   step with the tasks' returns: see the switch of stacks. */
static void casync__turn_run_ready(casync_loop *loop) {
    uint64_t called = 0;
    casync__list_move(&loop->running, &loop->ready);
    while (!loop->breaking && !casync__list_is_empty(&loop->running)) {
        casync_job *job = casync__job_of(loop->running.next);
        casync_callback callback = job->callback;
        void *arg = job->arg;
        casync__list_remove(&job->link);
        called++;
        if (job->flags & (CASYNC__JOB_NEEDS_PREPARING | CASYNC__JOB_TASK)) {
            if (job->flags & CASYNC__JOB_TASK) {
                casync__task_run(loop, (casync_task *)arg);
                continue;
            }
            casync__job_prepare(loop, job);
        }
        callback(arg);
    }
    loop->callbacks += called;
    if (casync__list_is_empty(&loop->running)) return;
    /* After a break: what has not run comes before what was queued since. */
    casync__list_move(&loop->running, &loop->ready);
    casync__list_move(&loop->ready, &loop->running);
}

static void casync__turn_run_measured(casync_loop *loop) {
    int64_t began = casync__clock_monotonic(), passed;
    casync__turn_run_ready(loop);
    passed = casync__clock_monotonic() - began;
    loop->busy_time += passed;
    if (passed > loop->longest_turn) loop->longest_turn = passed;
}

/* How long the kernel may be waited in: 0 if there is work, else until the next deadline. */
static int64_t casync__turn_wait_time(casync_loop *loop) {
    int64_t deadline, now;
    if (loop->stopping || casync__loop_has_work(loop) ||
        !casync__list_is_empty(&loop->hooks[CASYNC_HOOK_IDLE]))
        return 0;
    deadline = casync__wheel_next(&loop->wheel, casync__clock_is_virtual(loop));
    if (deadline == CASYNC_FOREVER) return CASYNC_FOREVER;
    now = casync_time(loop);
    if (deadline <= now) return 0;
    return loop->clock == CASYNC_CLOCK_MANUAL ? CASYNC_FOREVER : deadline - now;
}

/* Samples this turn's time. */
static void casync__clock_read(casync_loop *loop) {
    int64_t now = casync__clock_monotonic();
    loop->short_turns = now - loop->last_reading < CASYNC__TURN_SHORT;
    loop->last_reading = now;
    if (loop->clock == CASYNC_CLOCK_MONOTONIC) loop->now = now;
}

/* While there is work, and the kernel had nothing to say for a while, asking it each turn would
   cost more than the work. While turns are short, and no timer needs the time either, it is read in
   every other turn alone. */
static bool casync__turn_skip_poll(casync_loop *loop) {
    if (loop->empty_polls < CASYNC__TURN_EMPTY_POLLS || casync__list_is_empty(&loop->ready) ||
        loop->skipped_polls >= CASYNC__TURN_SKIPPED_POLLS_MAX)
        return false;
    loop->skipped_polls++;
    if (loop->short_turns && casync__wheel_is_empty(&loop->wheel) && loop->skipped_polls % 2 != 0)
        return true;
    casync__clock_read(loop);
    return loop->last_reading - loop->last_poll < CASYNC__TURN_SKIPPED_TIME_MAX;
}

/* Virtual time: only when nothing can happen at this moment does it jump to the next deadline.
   While something outside is awaited it passes as real time does. */
static int64_t casync__turn_wait_virtual(casync_loop *loop, int64_t timeout) {
    int64_t result = casync__backend_poll(loop, 0), began = casync__clock_monotonic(),
            passed = timeout;
    bool outside = loop->fds_active > 0 || loop->signals || !casync__list_is_empty(&loop->calls);
    if (result < 0 || casync__loop_has_work(loop)) return result;
    if (timeout == CASYNC_FOREVER) return casync__backend_poll(loop, timeout);
    if (outside && loop->clock != CASYNC_CLOCK_VIRTUAL_FORCED) {
        result = casync__backend_poll(loop, timeout);
        passed = casync__clock_monotonic() - began;
    }
    loop->now += passed < timeout ? passed : timeout;
    return result;
}

enum { CASYNC__TURN_WAIT_NOT, CASYNC__TURN_WAIT_IF_ALIVE, CASYNC__TURN_WAIT };

CASYNC__LINKAGE bool casync_loop_alive(const casync_loop *loop) {
    return !casync__loop_is_closed(loop) &&
           (loop->active > 0 || casync__loop_has_work((casync_loop *)loop) ||
            !casync__list_is_empty(&loop->hooks[CASYNC_HOOK_IDLE]));
}

/* Lets what happens outside reach the ready queue, and samples this turn's time. */
static int64_t casync__turn_wait(casync_loop *loop, int mode) {
    int64_t timeout, result;
    uint64_t events = loop->events;
    bool may_wait;
    if (casync__turn_skip_poll(loop)) return 0;
    may_wait = mode == CASYNC__TURN_WAIT ||
               (mode == CASYNC__TURN_WAIT_IF_ALIVE && casync_loop_alive(loop));
    timeout = may_wait ? casync__turn_wait_time(loop) : 0;
    result = timeout > 0 && casync__clock_is_virtual(loop)
                 ? casync__turn_wait_virtual(loop, timeout)
                 : casync__backend_poll(loop, timeout);
    loop->empty_polls = loop->events == events ? loop->empty_polls + 1 : 0;
    loop->skipped_polls = 0;
    casync__clock_read(loop);
    loop->last_poll = loop->last_reading;
    return result;
}

static int64_t casync__turn(casync_loop *loop, int mode) {
    int64_t result;
    loop->turns++;
    casync__posts_take(loop);
    casync__hooks_run(loop, CASYNC_HOOK_BEFORE_POLL);
    if (!casync__loop_has_work(loop)) casync__hooks_run(loop, CASYNC_HOOK_IDLE);
    result = casync__turn_wait(loop, mode);
    casync__hooks_run(loop, CASYNC_HOOK_AFTER_POLL);
    casync__wheel_advance(loop, loop->now);
    if (loop->measures)
        casync__turn_run_measured(loop);
    else
        casync__turn_run_ready(loop);
    return result;
}

/* -- running -- */

static int64_t casync__loop_run_begin(casync_loop *loop) {
    if (casync__loop_is_closed(loop)) return -EINVAL;
    if (casync__loop_is_forked(loop)) return -ECHILD;
    if (loop->state == CASYNC_LOOP_RUNNING) return -EBUSY;
    loop->outer = casync_get_running_loop();
    if (loop->outer) { /* what runs in here is no task of the outer loop */
        loop->outer_task = loop->outer->task;
        loop->outer->task = NULL;
    }
    pthread_setspecific(casync__process.running_loop, loop);
    loop->exceptions = casync__cpp_thread_exceptions();
    loop->state = CASYNC_LOOP_RUNNING;
    loop->empty_polls = 0; /* the first turns poll */
    return 0;
}

static int64_t casync__loop_run_end(casync_loop *loop, int64_t result) {
    loop->state = CASYNC_LOOP_STOPPED;
    loop->stopping = loop->breaking = false;
    pthread_setspecific(casync__process.running_loop, loop->outer);
    if (loop->outer) loop->outer->task = loop->outer_task;
    loop->outer = NULL;
    return result < 0 ? result : 0;
}

CASYNC__LINKAGE int64_t casync_run_forever(casync_loop *loop) {
    int64_t result = casync__loop_run_begin(loop);
    if (result < 0) return result;
    do result = casync__turn(loop, CASYNC__TURN_WAIT);
    while (result >= 0 && !loop->stopping);
    return casync__loop_run_end(loop, result);
}

CASYNC__LINKAGE int64_t casync_run_until_idle(casync_loop *loop) {
    int64_t result = casync__loop_run_begin(loop);
    if (result < 0) return result;
    while (result >= 0 && casync_loop_alive(loop)) {
        result = casync__turn(loop, CASYNC__TURN_WAIT_IF_ALIVE);
        if (loop->stopping) break;
    }
    return casync__loop_run_end(loop, result);
}

static int64_t casync__loop_run_turn(casync_loop *loop, int mode) {
    int64_t result = casync__loop_run_begin(loop);
    if (result < 0) return result;
    return casync__loop_run_end(loop, casync__turn(loop, mode));
}

CASYNC__LINKAGE int64_t casync_run_once(casync_loop *loop) {
    return casync__loop_run_turn(loop, CASYNC__TURN_WAIT_IF_ALIVE);
}

CASYNC__LINKAGE int64_t casync_run_nowait(casync_loop *loop) {
    return casync__loop_run_turn(loop, CASYNC__TURN_WAIT_NOT);
}

CASYNC__LINKAGE void casync_stop(casync_loop *loop) {
    if (loop) loop->stopping = true;
}

static void casync__loop_stop(void *loop) { casync_stop((casync_loop *)loop); }

CASYNC__LINKAGE int64_t casync_run_until_complete(casync_future *future) {
    int64_t result;
    casync_job job;
    if (!future || !future->loop) return -EINVAL;
    if (casync_future_done(future)) return casync_future_result(future);
    memset(&job, 0, sizeof job);
    result = casync_future_add_done_callback(future, &job, casync__loop_stop, future->loop);
    if (result < 0) return result;
    result = casync_run_forever(future->loop);
    casync_job_cancel(&job);
    return result < 0 ? result : casync_future_result(future);
}

CASYNC__LINKAGE void casync_break(casync_loop *loop) {
    if (loop) loop->stopping = loop->breaking = true;
}

CASYNC__LINKAGE bool casync_loop_ready(casync_loop *loop) {
    return !casync__loop_is_closed(loop) && casync__loop_has_work(loop);
}

/* -- making and ending -- */

CASYNC__LINKAGE void casync_set_exception_handler(casync_loop *loop,
                                                  casync_exception_handler handler, void *arg) {
    if (!loop) return;
    loop->exception_handler = handler ? handler : casync__exception_print;
    loop->exception_arg = arg;
}

CASYNC__LINKAGE int64_t casync_loop_init(casync_loop *loop, const casync_loop_desc *desc) {
    int kind;
    int64_t result;
    if (!loop) return -EINVAL;
    memset(loop, 0, sizeof *loop);
    result = casync__process_init();
    if (result < 0) return result;
    if (desc && (desc->clock < CASYNC_CLOCK_MONOTONIC || desc->clock > CASYNC_CLOCK_VIRTUAL_FORCED))
        return -EINVAL;
    if (desc) {
        loop->allocator = desc->allocator;
        loop->clock = desc->clock;
        loop->guest = desc->guest;
        loop->signal_handlers = desc->signal_handlers || desc->guest;
        loop->no_overflow_report = desc->no_overflow_report;
        loop->locked = desc->locked;
        loop->measures = desc->metrics;
        loop->stack_size = desc->stack_size;
        loop->before_wait = desc->before_wait;
        loop->after_wait = desc->after_wait;
        loop->arg = desc->arg;
    }
    casync_set_exception_handler(loop, desc ? desc->exception_handler : NULL, loop->arg);
    if (!loop->allocator.function) loop->allocator.function = casync__memory_default;
    casync__list_init(&loop->ready);
    casync__list_init(&loop->running);
    casync__list_init(&loop->free_jobs);
    casync__list_init(&loop->changed);
    casync__list_init(&loop->tasks);
    casync__list_init(&loop->groups);
    casync__list_init(&loop->calls);
    casync__list_init(&loop->clients);
    casync__list_init(&loop->children);
    casync__list_init(&loop->wheel.past);
    for (kind = 0; kind <= CASYNC_HOOK_IDLE; kind++) casync__list_init(&loop->hooks[kind]);
    loop->wheel.next_deadline = UINT64_MAX;

    loop->fork_generation = casync__process.fork_generation;
    result = casync__backend_open(loop);
    if (result < 0) return result;
    loop->now = casync_time(loop);
    loop->wheel.elapsed = (uint64_t)loop->now;
    loop->state = CASYNC_LOOP_INIT;
    return 0;
}

static void casync__loop_close(casync_loop *loop) {
    int kind;
    casync__fibers_forget(loop);
    casync__weakref_object_gone(loop, loop);
    loop->closing = true;
    casync__name_questions_close(loop);
    casync__process_children_close(loop);
    casync__watches_close(loop);
    casync__calls_close(loop);
    casync__signals_close(loop);
    casync__watchers_close(loop);
    casync__backend_close(loop);
    casync__posts_take(loop);
    casync__tasks_close(loop);
    casync__wheel_close(loop);
    for (kind = 0; kind <= CASYNC_HOOK_IDLE; kind++) casync__jobs_drop(loop, &loop->hooks[kind]);
    casync__jobs_drop(loop,
                      &loop->ready); /* some of these free memory, which what was dropped before
                                        may be in */
    casync__mailbox_close(loop);
    casync__groups_close(loop);
    casync__stacks_free(loop->stacks); /* what was dropped until here may lie on them */
    loop->stacks = NULL;
    while (loop->job_slabs) {
        casync__job_slab *slab = loop->job_slabs;
        loop->job_slabs = slab->next;
        casync__memory_free(&loop->allocator, slab);
    }
    casync__memory_free(&loop->allocator, loop->scratch);
    casync__memory_free(&loop->allocator, loop->datagram_area);
    loop->scratch = loop->datagram_area = NULL;
    loop->state = CASYNC_LOOP_CLOSED;
}

CASYNC__LINKAGE int64_t casync_loop_close(casync_loop *loop) {
    if (casync__loop_is_closed(loop)) return 0;
    if (loop->state == CASYNC_LOOP_RUNNING) return -EBUSY;
    if (casync__loop_has_endpoints(loop) || casync__loop_has_fibers(loop)) return CASYNC_STILL_OPEN;
    casync__loop_close(loop);
    return 0;
}

CASYNC__LINKAGE void casync_walk(casync_loop *loop,
                                 void (*visit)(int kind, void *object, void *arg), void *arg) {
    int kind;
    casync_link *link;
    if (casync__loop_is_closed(loop) || !visit) return;
    casync__jobs_walk(&loop->running, visit, arg);
    casync__jobs_walk(&loop->ready, visit, arg);
    casync__posts_walk(loop, visit, arg);
    casync__timers_walk(loop, visit, arg);
    for (kind = 0; kind <= CASYNC_HOOK_IDLE; kind++)
        for (link = loop->hooks[kind].next; link != &loop->hooks[kind]; link = link->next)
            visit(CASYNC_KIND_HOOK, casync__job_of(link), arg);
    casync__watchers_walk(loop, visit, arg);
    casync__process_walk(loop, visit, arg);
    casync__watches_walk(loop, visit, arg);
    casync__signals_walk(loop, visit, arg);
    casync__tasks_walk(loop, visit, arg);
}

CASYNC__LINKAGE int casync_loop_fd(const casync_loop *loop) {
    if (casync__loop_is_closed(loop)) return -EINVAL;
    return loop->backend_fd;
}

CASYNC__LINKAGE int64_t casync_loop_timeout(casync_loop *loop) {
    if (casync__loop_is_closed(loop)) return -EINVAL;
    casync__backend_flush(loop);
    /* From here on posts must write the eventfd, for the host program is about to sleep. */
    casync__atomic_exchange(&loop->sleeping, 1);
    if (casync__atomic_exchange(&loop->woken, 0)) return 0;
    return casync__backend_limit_wait(loop, casync__turn_wait_time(loop));
}

CASYNC__LINKAGE int64_t casync_loop_fork(casync_loop *loop) {
    int64_t result;
    if (casync__loop_is_closed(loop)) return -EINVAL;
    if (!casync__loop_is_forked(loop)) return 0;
    casync__mailbox_fork(loop);
    casync__calls_fork(loop);
    casync__watches_fork(loop);
    result = loop->backend->fork(loop);
    if (result == 0) loop->fork_generation = casync__process.fork_generation;
    return result;
}

/* >> casync_run (implementation) --------------------------------------------------------------- */

/* asyncio.run: a loop, a task, and an orderly end of both. While it runs, handlers of SIGSEGV and
   SIGBUS report a stack overflow with the name of the task. Costs: those of the loop's init and
   close, and a stack for the handlers. */

/* -- reporting an overflow -- */

#ifndef CASYNC_NO_STACKFUL

#define CASYNC__FAULT_STACK_SIZE 65536

/* Fails silently: nothing can be done about it, and the process is about to end. */
static void casync__fault_print(const char *text) {
    (void)casync__sys_write(2, text, strlen(text));
}

/* For SIGSEGV and SIGBUS. It puts back what was there before and returns: if it was a fault, it
   happens again, and goes where it would have gone. */
static void casync__fault_handler(int signum, siginfo_t *info, void *context) {
    casync_task *task = casync_current_task();
    const char *address = (const char *)info->si_addr;
    (void)context;
    casync__terminal_restore();
    if (task && casync__future_is_fiber(&task->future)) {
        const char *stack = casync__fiber_of(task)->stack;
        if (address >= stack - casync__stack_guard_size() && address < stack) {
            casync__fault_print("casync: stack overflow in task ");
            casync__fault_print(casync_task_name(task));
            casync__fault_print("; give it more by casync_task_desc.stack_size\n");
        }
    }
    casync__sys_sigaction(signum, &casync__process.faults[signum == SIGBUS], NULL);
    if (info->si_code <= 0) raise(signum); /* sent by kill(2): it does not come again by itself */
}

/* An alternate stack for this thread's handlers, if it has none: its memory, or NULL, or an
   error. */
static int64_t casync__fault_stack_make(void **memory) {
    stack_t stack;
    int64_t result = casync__sys_sigaltstack(NULL, &stack);
    *memory = NULL;
    if (result < 0 || !(stack.ss_flags & SS_DISABLE)) return result;
    result = casync__sys_map(CASYNC__FAULT_STACK_SIZE);
    if (result < 0) return result;
    memset(&stack, 0, sizeof stack);
    stack.ss_sp = *memory = (void *)(uintptr_t)result;
    stack.ss_size = CASYNC__FAULT_STACK_SIZE;
    result = casync__sys_sigaltstack(&stack, NULL);
    if (result < 0) casync__sys_unmap(*memory, CASYNC__FAULT_STACK_SIZE);
    return result;
}

static void casync__fault_stack_free(void *memory) {
    stack_t stack;
    if (!memory) return;
    memset(&stack, 0, sizeof stack);
    stack.ss_flags = SS_DISABLE;
    if (casync__sys_sigaltstack(&stack, NULL) == 0)
        casync__sys_unmap(memory, CASYNC__FAULT_STACK_SIZE);
}

static const int casync__fault_signals[2] = {SIGSEGV, SIGBUS};

/* Puts back what was there, unless somebody else has put something there since. With the process's
   mutex. */
static void casync__fault_uninstall_handler(int i) {
    struct sigaction current;
    if (casync__sys_sigaction(casync__fault_signals[i], NULL, &current) == 0 &&
        (current.sa_flags & SA_SIGINFO) && current.sa_sigaction == casync__fault_handler)
        casync__sys_sigaction(casync__fault_signals[i], &casync__process.faults[i], NULL);
}

/* What was there is noted before the handler can run. With the process's mutex. */
static int64_t casync__fault_install_handlers(void) {
    struct sigaction action;
    int64_t result = 0;
    int i;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = casync__fault_handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (i = 0; i < 2 && result == 0; i++)
        result = casync__sys_sigaction(casync__fault_signals[i], NULL, &casync__process.faults[i]);
    for (i = 0; i < 2 && result == 0; i++)
        result = casync__sys_sigaction(casync__fault_signals[i], &action, NULL);
    if (result < 0)
        while (i-- > 0) casync__fault_uninstall_handler(i);
    return result;
}

/* Each who begins ends, but for casync_report_overflow. */
static int64_t casync__fault_report_begin(void **fault_stack) {
    int64_t result = casync__fault_stack_make(fault_stack);
    if (result < 0) return result;
    casync__process_lock();
    if (casync__process.overflow_reports == 0) result = casync__fault_install_handlers();
    if (result == 0) casync__process.overflow_reports++;
    pthread_mutex_unlock(&casync__process.mutex);
    if (result < 0) casync__fault_stack_free(*fault_stack);
    return result;
}

static void casync__fault_report_end(void *fault_stack) {
    casync__process_lock();
    if (--casync__process.overflow_reports == 0) {
        casync__fault_uninstall_handler(0);
        casync__fault_uninstall_handler(1);
    }
    pthread_mutex_unlock(&casync__process.mutex);
    casync__fault_stack_free(fault_stack);
}

/* Is nobody else in charge of faults: a sanitizer, the host of a guest, a handler of the
   program's? */
static bool casync__fault_may_report(const casync_loop *loop) {
    struct sigaction current;
    bool ours;
    if (loop->guest || loop->no_overflow_report || CASYNC__COMPILER_SANITIZED) return false;
    if (casync__sys_sigaction(SIGSEGV, NULL, &current) < 0) return false;
    ours = (current.sa_flags & SA_SIGINFO) && current.sa_sigaction == casync__fault_handler;
    return ours || (!(current.sa_flags & SA_SIGINFO) && current.sa_handler == SIG_DFL);
}

CASYNC__LINKAGE int64_t casync_report_overflow(void) {
    void *fault_stack;
    return casync__fault_report_begin(&fault_stack);
}

#else /* CASYNC_NO_STACKFUL */

static bool casync__fault_may_report(const casync_loop *loop) { return (void)loop, false; }
static int64_t casync__fault_report_begin(void **fault_stack) { return (void)fault_stack, -ENOSYS; }
static void casync__fault_report_end(void *fault_stack) { (void)fault_stack; }
CASYNC__LINKAGE int64_t casync_report_overflow(void) { return -ENOSYS; }

#endif

/* -- running a program -- */

/* Asks those that were not asked yet and await no other task; the others hear of it by them. True
   if any task was asked, now or before. */
static bool casync__run_ask_tasks(casync_loop *loop) {
    casync_link *link;
    bool asked = false;
    for (link = loop->tasks.next; link != &loop->tasks; link = link->next) {
        casync_task *task = casync__container(link, casync_task, link);
        if (!(task->flags & CASYNC__TASK_ASKED) && !casync__task_awaited(task)) {
            task->flags |= CASYNC__TASK_ASKED;
            casync_task_cancel(task);
        }
        asked = asked || (task->flags & CASYNC__TASK_ASKED);
    }
    return asked;
}

/* After each round of requests come some turns, in which a long chain of tasks ends by itself. */
static void casync__run_end_tasks(casync_loop *loop) {
    int turns;
    while (!casync__list_is_empty(&loop->tasks)) {
        if (!casync__run_ask_tasks(loop)) /* they await each other in a circle */
            casync_task_cancel(casync__container(loop->tasks.next, casync_task, link));
        if (casync__loop_run_turn(loop, CASYNC__TURN_WAIT) < 0) return;
        for (turns = 0; turns < 1000 && !casync__list_is_empty(&loop->ready); turns++)
            if (casync__loop_run_turn(loop, CASYNC__TURN_WAIT_NOT) < 0) return;
    }
}

static void casync__run_close(casync_loop *loop, bool servers_alone) {
    casync_watcher *watcher;
    uint32_t fd = 0;
    while ((watcher = casync__watcher_next(loop, &fd)) != NULL) {
        casync_endpoint *endpoint = (casync_endpoint *)(void *)watcher;
        if (watcher->kind == CASYNC__WATCHER_SERVER)
            casync_server_close(casync__container(watcher, casync_server, watcher));
        else if (watcher->kind >= CASYNC__WATCHER_STREAM && !servers_alone)
            endpoint->kind->close(endpoint);
    }
}

/* Ends tasks until there are none, and waits for connections that are finished for theirs, each
   within its server's limit: what callbacks spawn meanwhile ends, too. */
static void casync__run_end_tasks_and_connections(casync_loop *loop) {
    while (!casync__list_is_empty(&loop->tasks) || loop->finishing > 0) {
        casync__run_end_tasks(loop);
        if (loop->finishing > 0 && casync__loop_run_turn(loop, CASYNC__TURN_WAIT) < 0) return;
    }
}

/* Tells what casync_run waits for at its end. */
static void casync__run_dump_slow_end(void *loop) {
    static const char text[] =
        "casync: the end of casync_run takes more than a second, it waits for:\n";
    (void)casync__sys_write(STDERR_FILENO, text, sizeof text - 1);
    (void)casync_dump((casync_loop *)loop, STDERR_FILENO);
}

#define CASYNC__RUN_SLOW_END CASYNC_SECONDS(1)

static void casync__run_clean_up(casync_loop *loop, casync_task *task, int64_t *result) {
    casync_timer slow;
    casync_op shutdown;
    memset(&slow, 0, sizeof slow);
    casync_timer_ref(&slow, false);
    /* Without memory for the timer nothing is told. Virtual seconds are not worth telling of. */
    if (loop->clock == CASYNC_CLOCK_MONOTONIC)
        (void)casync_call_later(loop, &slow, CASYNC__RUN_SLOW_END, casync__run_dump_slow_end, loop);
    casync__run_end_tasks(loop); /* main too, if the loop was stopped */
    if (*result == CASYNC_INVALID_STATE && casync_future_done(&task->future))
        *result = casync_future_result(&task->future);
    casync_task_release(task);
    casync__run_close(loop, true);
    if (loop->executor)
        (void)casync_run_until_complete(casync_shutdown_default_executor_op(loop, &shutdown));
    casync__run_end_tasks_and_connections(loop);
    casync_timer_stop(&slow);
}

CASYNC__LINKAGE int64_t casync_run_with(const casync_loop_desc *desc, casync_coroutine coroutine,
                                        void *arg) {
    casync_loop loop;
    casync_task_desc main_desc;
    casync_task *task;
    void *fault_stack = NULL;
    bool reports;
    int64_t result = casync_loop_init(&loop, desc);
    if (result < 0) return result;
    casync__task_desc_init(&main_desc, coroutine, arg, "main");
    reports = casync__fault_may_report(&loop) && casync__fault_report_begin(&fault_stack) == 0;
    result = casync_spawn_with(&loop, &main_desc, &task);
    if (result == 0) {
        result = casync_run_until_complete(&task->future);
        casync__run_clean_up(&loop, task, &result);
    }
    casync__run_close(&loop, false);
    casync_run_nowait(&loop);
    casync__run_close(&loop, false); /* what that turn opened */
    casync__loop_close(&loop);
    if (reports) casync__fault_report_end(fault_stack);
    return result;
}

CASYNC__LINKAGE int64_t casync_run(casync_coroutine coroutine, void *arg) {
    return casync_run_with(NULL, coroutine, arg);
}

#ifdef __cplusplus
}
#endif

#endif /* CASYNC_IMPLEMENTATION */
