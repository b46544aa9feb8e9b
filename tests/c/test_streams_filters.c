/* >> streams: filters turn the bytes on their way in and out. */
#include "protocols_fixture.h"

static char large[100000];

TEST(a_filter_turns_bytes_both_ways) {
    xor_filter one;
    char raw[8] = "";
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    set_xor_filter(&a, &one);
    EQ(casync_set_filter(&a, &one.filter), CASYNC_INVALID_STATE);
    peer_says("\x9e\x9d\x9c"); /* ~"abc" */
    run_until_said("abc");
    EQ(write_text(&a, "abc"), 3);
    EQ(read(peer, raw, sizeof raw), 3);
    STR_EQ(raw, "\x9e\x9d\x9c");
    EQ(one.closed, 0);
    casync_close(&a);
    EQ(one.closed, 1);
    close_with_peer();
    EQ(one.closed, 1);
    EQ(casync_set_filter(&a, &one.filter), CASYNC_INVALID_STATE);
}

TEST(filtered_streams_read_by_operations_too) {
    xor_filter one, two;
    open_loop(CASYNC_CLOCK_MONOTONIC);
    EQ(casync_socketpair(&loop, &a, &b, NULL, NULL), 0);
    set_xor_filter(&a, &one);
    set_xor_filter(&b, &two);
    EQ(write_text(&b, "one\ntwo"), 7);
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "one\n");
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 3)), 3);
    MEM_EQ(text, "two", 3);
    EQ(result_of(casync_finish_op(&b, &the_op)), 0);
    EQ(result_of(read_op()), 0);
    casync_close(&a);
    EQ(one.closed, 1);
    EQ(two.closed, 1);
    close_loop();
}

TEST(filtered_bytes_fill_the_buffers_of_a_buffered_protocol) {
    xor_filter one;
    open_buffered(2);
    set_xor_filter(&a, &one);
    peer_says("\x9e\x9d\x9c");
    run_until_said("ab c");
    close_with_peer();
}

TEST(a_filtered_buffered_protocol_may_close_in_its_callbacks) {
    xor_filter one;
    open_buffered(2);
    set_xor_filter(&a, &one);
    protocol.buffer_updated = close_in_buffer_updated;
    peer_says("\x9e\x9d\x9c");
    run_until_said("ab");
    turns(2);
    close_with_peer();
    buffers_lent = 0;
    open_buffered(2);
    set_xor_filter(&a, &one);
    protocol.get_buffer = close_in_get_buffer;
    peer_says("\x9e\x9d\x9c");
    turns(3);
    SAID("");
    EXPECT(!casync_stream_is_open(&a));
    close_with_peer();
}

TEST(filtered_bytes_wait_while_reading_is_paused) {
    casync_filter filter = ZERO;
    filter.received = single_bytes;
    protocol = saying_protocol();
    protocol.data_received = say_and_pause;
    open_with_peer(&protocol, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    peer_says("ab");
    run_until_said("a");
    turns(3);
    SAID("");
    EQ(casync_resume_reading(&a), 0);
    run_until_said("b");
    close_with_peer();
}

TEST(no_filtered_bytes_follow_a_finish) {
    casync_filter filter = ZERO;
    filter.received = single_bytes;
    protocol = saying_protocol();
    protocol.data_received = finish_in_data;
    open_with_peer(&protocol, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    peer_says("ab");
    run_until_said("a lost=0");
    close_with_peer();
}

TEST(a_filtered_stream_may_be_closed_and_freed_in_data_received) {
    casync_filter filter = ZERO;
    filter.received = single_bytes;
    open_heap("data");
    EQ(casync_set_filter(heap, &filter), 0);
    peer_says("several bytes");
    turns(3);
    SAID("data");
    close_with_peer();
}

/* An expanding filter: bytes go as two hexadecimal digits each, the end as a full stop. */
typedef struct hex_filter {
    casync_filter filter;
    int digits, value;
    bool ended;
} hex_filter;

static int64_t hex_received(casync_filter *filter, casync_span raw) {
    hex_filter *hex = (hex_filter *)filter;
    size_t i;
    for (i = 0; i < raw.len; i++) {
        char digit = ((const char *)raw.ptr)[i];
        if (digit == '.') {
            hex->ended = true;
            continue;
        }
        if (hex->ended || !strchr("0123456789abcdef", digit)) return -EILSEQ;
        hex->value = hex->value * 16 + (digit <= '9' ? digit - '0' : digit - 'a' + 10);
        if (++hex->digits == 2) {
            char byte = (char)hex->value;
            int64_t result;
            hex->digits = hex->value = 0;
            result = casync_filter_receive(filter, &byte, 1);
            if (result < 0) return result;
        }
    }
    return 0;
}

static int64_t hex_received_eof(casync_filter *filter) {
    return ((hex_filter *)filter)->ended ? 0 : -EPROTO;
}

static int64_t hex_write(casync_filter *filter, const casync_span *spans, size_t count) {
    size_t i, j;
    for (i = 0; i < count; i++) {
        for (j = 0; j < spans[i].len; j++) {
            char digits[3];
            int64_t result;
            snprintf(digits, sizeof digits, "%02x", ((const unsigned char *)spans[i].ptr)[j]);
            result = casync_filter_send(filter, digits, 2);
            if (result < 0) return result;
        }
    }
    return 0;
}

static int64_t hex_write_eof(casync_filter *filter) {
    int64_t result = casync_filter_send(filter, ".", 1);
    return result < 0 ? result : 0;
}

static void set_hex_filter(casync_stream *stream, hex_filter *hex) {
    memset(hex, 0, sizeof *hex);
    hex->filter.received = hex_received;
    hex->filter.received_eof = hex_received_eof;
    hex->filter.write = hex_write;
    hex->filter.write_eof = hex_write_eof;
    EQ(casync_set_filter(stream, &hex->filter), 0);
}

TEST(a_filter_may_expand_and_have_a_last_word) {
    hex_filter hex;
    protocol = saying_protocol();
    keep_open_at_eof = true;
    open_with_peer(&protocol, NULL);
    set_hex_filter(&a, &hex);
    EQ(write_text(&a, "abc"), 3);
    peer_hears("616263");
    EQ(casync_write_eof(&a), 0);
    peer_hears(".");
    peer_hears_the_end();
    peer_says("78.");
    run_until_said("x");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("eof");
    close_with_peer();
}

TEST(finish_sends_the_filters_last_word) {
    hex_filter hex;
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    set_hex_filter(&a, &hex);
    EQ(write_text(&a, "abc"), 3);
    EQ(casync_finish_start(&a), 0);
    run_until_said("lost=0");
    peer_hears("616263.");
    peer_hears_the_end();
    close_with_peer();
}

TEST(a_filters_error_ends_the_stream) {
    hex_filter hex;
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    set_hex_filter(&a, &hex);
    peer_says("6xyz");
    run_until_said("lost=-84"); /* EILSEQ */
    close_with_peer();
    open_with_peer(&protocol, NULL);
    set_hex_filter(&a, &hex);
    peer_says("61");
    EQ(shutdown(peer, SHUT_WR), 0);
    run_until_said("a lost=-71"); /* EPROTO: no full stop before the end */
    close_with_peer();
}

TEST(references_through_a_filter_are_released_at_once) {
    xor_filter one;
    open_with_peer(NULL, NULL);
    set_xor_filter(&a, &one);
    squeeze(&a);
    EQ(casync_write_ref(&a, large, sizeof large, release_says, WORD("released")), sizeof large);
    SAID("released");
    close_losing();
}

static int64_t failing_write_eof(casync_filter *filter) {
    (void)filter;
    return -EPROTO;
}

TEST(finish_is_done_although_the_filters_last_word_fails) {
    casync_filter filter = ZERO;
    filter.write_eof = failing_write_eof;
    open_with_peer(NULL, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    EQ(result_of(casync_finish_op(&a, &the_op)), -EPROTO);
    EXPECT(!casync_stream_is_open(&a));
    peer_hears_the_end();
    close_with_peer();
}

static int64_t end_at_full_stop(casync_filter *filter, casync_span raw) {
    int64_t result = casync_filter_receive(filter, raw.ptr, raw.len - 1);
    return result < 0 ? result : (int64_t)CASYNC_EOF;
}

TEST(a_filter_may_say_that_the_stream_ended) {
    casync_filter filter = ZERO;
    filter.received = end_at_full_stop;
    keep_open_at_eof = true;
    protocol = saying_protocol();
    open_with_peer(&protocol, NULL);
    EQ(casync_set_filter(&a, &filter), 0);
    peer_says("last words.");
    run_until_said("last words eof");
    EQ(write_text(&a, "answer"), 6);
    peer_hears("answer");
    close_with_peer();
}

/* What came with the line before is plain text that somebody may have smuggled in front of what is
   encrypted. */
TEST(a_filter_is_not_set_while_bytes_wait_that_it_should_have_seen) {
    casync_filter filter = ZERO;
    filter.received = xor_received;
    open_with_peer(NULL, NULL);
    peer_says("STARTTLS\n\x9e\x9d");
    expect_bytes(casync_read_until_op(&a, &the_op, "\n", 1), "STARTTLS\n");
    EQ(casync_set_filter(&a, &filter), -EBUSY);
    EQ(result_of(casync_read_op(&a, &the_op, text, sizeof text)), 2);
    EQ(casync_set_filter(&a, &filter), 0);
    peer_says("\x9e\x9d");
    EQ(result_of(casync_read_exactly_op(&a, &the_op, text, 2)), 2);
    MEM_EQ(text, "ab", 2);
    close_with_peer();
}
