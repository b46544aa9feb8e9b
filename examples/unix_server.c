/* A Unix-socket server, by a path or by an abstract name. The kernel knows who is at the other end
   of such a socket: the server tells each client which process and user it is.

   Run it from the repository's root:   tcc -run examples/unix_server.c [address]
   Ask it:                              nc -U /tmp/casync-example.sock
   An address that begins with @ is abstract: no file, and gone with the server. Ctrl-C ends it. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static casync_loop loop;
static casync_server server;
static casync_signal interrupt, terminate;

static void connection_made(casync_stream *stream) {
    struct ucred peer; /* see unix(7), SO_PEERCRED */
    socklen_t size = sizeof peer;
    char text[100];
    if (getsockopt(stream->endpoint.watcher.fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        perror("unix_server: SO_PEERCRED");
        casync_abort(stream);
        return;
    }
    snprintf(text, sizeof text, "You are process %d of user %u.\n", (int)peer.pid,
             (unsigned)peer.uid);
    fputs(text, stdout);
    if (casync_write(stream, text, strlen(text)) != (int64_t)strlen(text))
        casync_abort(stream);
    else if (casync_finish_start(stream) < 0)
        casync_abort(stream); /* closed when the text is sent */
}

static const casync_protocol whoami = {.connection_made = connection_made};

static void quit(void *arg) {
    (void)arg;
    casync_server_abort_clients(&server);
    casync_server_close(&server);
}

static int64_t watch_signal(casync_signal *signal, int signum) {
    int64_t result = casync_signal_start(&loop, signal, signum, CASYNC_SIGNAL_ONCE, quit, NULL);
    if (result >= 0) casync_signal_ref(signal, false); /* the signal alone is no reason to go on */
    return result;
}

static int64_t serve(const char *path) {
    casync_listen_desc desc = {.path = path, .protocol = &whoami};
    casync_address address;
    char text[CASYNC_ADDRESS_TEXT];
    int64_t result;
    if ((result = casync_loop_init(&loop, NULL)) < 0) return result;
    if ((result = watch_signal(&interrupt, SIGINT)) < 0) return result;
    if ((result = watch_signal(&terminate, SIGTERM)) < 0) return result;
    if ((result = casync_listen(&loop, &server, &desc)) < 0) return result;
    if ((result = casync_server_address(&server, &address)) < 0) return result;
    printf("listening on %s\n", casync_address_text(&address, text));
    result = casync_run_until_idle(&loop); /* ends when the server and all connections are closed */
    if (path[0] != '@' && unlink(path) < 0) perror(path); /* the file is ours to remove */
    return result;
}

int main(int argc, char **argv) {
    int64_t result;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* line by line, into a pipe too */
    result = serve(argc > 1 ? argv[1] : "/tmp/casync-example.sock");
    casync_server_close(&server); /* after an error it may be open still */
    if (result >= 0) result = casync_loop_close(&loop);
    if (result < 0) fprintf(stderr, "unix_server: %s\n", casync_strerror(result));
    return result < 0;
}
