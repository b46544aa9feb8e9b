/* Many small writes as one: each write is a system call as long as nothing waits to be sent, and
   over TCP a packet. So collect the pieces of an answer in an array of spans, and write that.

   Run it from the repository's root:   tcc -run examples/small_writes.c
   It sends a table of 50 pieces many times, both ways, and prints what a table takes. */
#define CASYNC_IMPLEMENTATION
#include "../casync.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PIECES = 50, ROUNDS = 2000 };

typedef int64_t (*sending)(casync_stream *stream, const casync_span *pieces, size_t count);

static int64_t piece_by_piece(casync_stream *stream, const casync_span *pieces, size_t count) {
    int64_t total = 0, taken = 0;
    size_t i;
    for (i = 0; i < count && taken >= 0; i++) {
        taken = casync_write(stream, pieces[i].ptr, pieces[i].len);
        total += taken;
    }
    return taken < 0 ? taken : total;
}

/* The pieces are copied only if the kernel does not take them at once: they may go when this
   returns. */
static int64_t all_at_once(casync_stream *stream, const casync_span *pieces, size_t count) {
    return casync_writev(stream, pieces, count);
}

/* Words of different lengths. Returns how many bytes the table has. */
static size_t make_table(casync_span *pieces) {
    static const char *const words[] = {"name", "\t", "value", "\n"};
    size_t i, size = 0;
    for (i = 0; i < PIECES; i++) {
        pieces[i].ptr = words[i % 4];
        pieces[i].len = strlen(words[i % 4]);
        size += pieces[i].len;
    }
    return size;
}

static int64_t measure(casync_loop *loop, casync_stream ends[2], const char *name, sending send) {
    casync_span pieces[PIECES];
    char received[1024];
    size_t size = make_table(pieces);
    int64_t start = casync_time(loop), result = 0;
    int i;
    for (i = 0; i < ROUNDS; i++) {
        if ((result = send(&ends[0], pieces, PIECES)) < 0) return result;
        if (result != (int64_t)size) return -ENOMEM;
        if ((result = casync_read_exactly(&ends[1], received, size)) < 0) return result;
    }
    printf("%s: %d bytes in %.1f us\n", name, (int)size,
           (double)(casync_time(loop) - start) / ROUNDS / 1000);
    return 0;
}

static int64_t amain(casync_loop *loop, void *arg) {
    casync_stream ends[2] = {0};
    int64_t result = casync_socketpair(loop, &ends[0], &ends[1], NULL, NULL);
    (void)arg;
    if (result < 0) return result;
    result = measure(loop, ends, "casync_write for each piece", piece_by_piece);
    if (result >= 0) result = measure(loop, ends, "casync_writev of all", all_at_once);
    casync_close(&ends[0]);
    casync_close(&ends[1]);
    return result;
}

int main(void) {
    int64_t result = casync_run(amain, NULL);
    if (result < 0) fprintf(stderr, "small_writes: %s\n", casync_strerror(result));
    return result < 0;
}
