"""The streams of an HTTP/2 connection (RFC 9113 §5), and flow control (§5.2, §6.9), in both directions."""

import pytest

import http2_peer as h2
from conftest import Doors
from http2_peer import frame

pytestmark = pytest.mark.gateway

UNBEGUN = "mock:fault=never"
BEGUN = "mock:fault=stall@2,ttft=1ms,gap=1ms"
STREAM = "mock:tokens=3,gap=1ms,ttft=1ms"
# Some 200 kB, whole and streamed.
LARGE = "mock:tokens=200,token-bytes=1000,ttft=1ms,gap=0"
MAX = (1 << 31) - 1


def begin(peer, state):
    """Brings stream 1 into `state`."""
    match state:
        case "open":
            peer.request(peer.post(("content-length", "100")), end=False)
        case "half-closed-waiting":
            peer.chat(UNBEGUN)
        case "half-closed-answering":
            peer.chat(BEGUN)
            peer.pump(lambda: peer.on(1).pieces)
        case "closed-by-answer":
            assert peer.answer(peer.request()).ended
        case "closed-by-stream":
            assert peer.answer(peer.chat(STREAM)).ended
        case "closed-by-our-reset":
            peer.chat(BEGUN)
            peer.pump(lambda: peer.on(1).pieces)
            peer.pump_past(h2.reset(1))
        case "closed-by-our-reset-unbegun":
            peer.chat(UNBEGUN)
            peer.pump_past(h2.reset(1))
        case "closed-by-their-reset":
            peer.request(peer.post(("content-length", "100")), end=False)
            peer.send(h2.window_update(1, MAX))
            assert peer.answer(1).reset == h2.FLOW_CONTROL_ERROR
        case "closed-unused":
            peer.stream()
            peer.is_served()


# 5.1: what may come in which state.


@pytest.mark.parametrize("said", [h2.data(1, b"x"), h2.data(1, b"", True), h2.reset(1), h2.window_update(1, 1),
                                  frame(h2.CONTINUATION, 4, 1, b"\x82")],
                         ids=["data", "empty-data", "reset", "window-update", "continuation"])
def test_9113_5_1_idle_streams_take_headers_and_priority_only(peer, said):
    peer.send(said)
    peer.expect_connection_error(h2.PROTOCOL_ERROR)


@pytest.mark.parametrize("state", ["half-closed-waiting", "half-closed-answering"])
@pytest.mark.parametrize("said", ["data", "empty-data", "last-data", "headers", "last-headers"])
def test_9113_5_1_half_closed_streams_take_no_more_of_a_request(peer, state, said):
    begin(peer, state)
    peer.send({
        "data": lambda: h2.data(1, b"x"), "empty-data": lambda: h2.data(1, b""), "last-data": lambda: h2.data(1, b"x", True),
        "headers": lambda: peer.head(1, peer.get(), False), "last-headers": lambda: peer.head(1, [("x-trailer", "1")]),
    }[said]())
    peer.expect_stream_error(1, h2.STREAM_CLOSED)


@pytest.mark.parametrize("state", ["half-closed-waiting", "half-closed-answering"])
def test_9113_5_1_half_closed_streams_can_be_cancelled(peer, state):
    begin(peer, state)
    # 5.4.2: no reset is answered by one.
    peer.pump_past(h2.window_update(1, 1), frame(h2.PRIORITY, 0, 1, bytes(5)), h2.reset(1))
    assert peer.on(1).reset is None and not peer.on(1).ended
    peer.is_served()


CLOSED = ["closed-by-answer", "closed-by-stream", "closed-by-our-reset", "closed-by-our-reset-unbegun"]


@pytest.mark.parametrize("state", CLOSED)
def test_9113_5_1_closed_streams_take_no_data(peer, state):
    begin(peer, state)
    peer.answers.pop(1, None)
    peer.send(h2.data(1, b"x"))
    peer.expect_stream_error(1, h2.STREAM_CLOSED)


@pytest.mark.parametrize("state", [*CLOSED, "closed-unused"])
def test_9113_5_1_closed_streams_take_no_headers(peer, state):
    begin(peer, state)
    peer.answers.pop(1, None)
    peer.send(peer.head(1, peer.get()))
    # 5.1.1: or it is a new stream, of which numbers go up only.
    peer.expect_stream_error(1, h2.STREAM_CLOSED, h2.PROTOCOL_ERROR)


@pytest.mark.parametrize("state", [*CLOSED, "closed-by-their-reset"])
def test_9113_5_1_what_crosses_the_end_of_a_stream_is_ignored(peer, state):
    begin(peer, state)
    peer.pump_past(h2.window_update(1, 1), frame(h2.PRIORITY, 0, 1, bytes(5)), h2.reset(1), h2.reset(1))
    peer.is_served()


def test_9113_5_1_what_follows_the_servers_reset_is_ignored_but_counted(peer):
    begin(peer, "closed-by-their-reset")
    peer.pump(lambda: peer.may_send > h2.WINDOW)
    # All that the connection's window allows, and twice as much again as it is given back; the last is compressed.
    left = 2 * peer.may_send
    while left > 0:
        peer.pump(lambda: peer.may_send >= 16384)
        peer.may_send -= 16384
        left -= 16384
        peer.send(h2.data(1, bytes(16384)))
    peer.pump_past(peer.head(1, [("x-kept", "in the table")]))
    assert peer.answer(peer.request(peer.get("/v1/models", "GET", ("x-kept", "in the table")))).status == 200


# 5.1.1: stream identifiers.


@pytest.mark.parametrize("stream", [2, 4, 1 << 30])
def test_9113_5_1_1_clients_streams_are_odd(peer, stream):
    peer.is_served()
    peer.send(peer.head(stream, peer.get()))
    peer.expect_connection_error(h2.PROTOCOL_ERROR)


@pytest.mark.parametrize("before", ["answered", "waiting"])
def test_9113_5_1_1_stream_ids_go_up(peer, before):
    peer.next_stream = 5
    if before == "answered":
        peer.is_served()
    else:
        peer.chat(UNBEGUN)
    peer.send(peer.head(3, peer.get()))
    peer.expect_connection_error(h2.PROTOCOL_ERROR, h2.STREAM_CLOSED)
    assert peer.goaways[-1][0] == 5


def test_9113_5_1_1_stream_ids_may_be_skipped(peer):
    for peer.next_stream in (3, 9, 1001, (1 << 31) - 3):
        peer.is_served()
    # The last there is.
    peer.next_stream = MAX
    assert peer.answer(peer.request()).status == 200


# 5.1.2: how many there may be.


def test_9113_5_1_2_more_streams_than_announced_are_refused(peer):
    peer.pump(lambda: peer.settings is not None)
    limit = peer.settings[h2.STREAMS_MAX]
    waiting = [peer.chat(UNBEGUN) for _ in range(limit)]
    peer.pump_past()
    # What is refused is part of the compression all the same (4.3).
    refused = [peer.request(peer.get("/v1/models", "GET", ("x-n", f"refused {n}"))) for n in range(3)]
    for stream in refused:
        answer = peer.answer(stream)
        assert answer.reset in (h2.REFUSED_STREAM, h2.PROTOCOL_ERROR), answer
    assert not any(peer.on(stream).over for stream in waiting), "and no other is"
    # One for one.
    for n in range(3):
        peer.pump_past(h2.reset(waiting[n]))
        assert peer.answer(peer.request(peer.get("/v1/models", "GET", ("x-n", f"refused {n}")))).status == 200


def test_9113_5_1_2_streams_that_have_ended_do_not_count(peer):
    peer.pump(lambda: peer.settings is not None)
    for _ in range(3):
        streams = [peer.chat(STREAM) for _ in range(peer.settings[h2.STREAMS_MAX])]
        assert [peer.answer(stream).status for stream in streams] == [200] * len(streams)


def test_9113_5_streams_are_answered_as_they_are_ready(peer):
    slow, fast = peer.chat(BEGUN), peer.chat(STREAM)
    assert peer.answer(fast).body.endswith(b"data: [DONE]\n\n")
    assert not peer.on(slow).over


# 5.2, 6.9: what the gateway may send.


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("window", [0, 1, 1000, 65535])
def test_9113_6_9_1_no_more_than_a_streams_window(connect, window, streamed):
    peer = connect({h2.INITIAL_WINDOW: window})
    peer.grants = False
    stream = peer.chat(LARGE, streamed)
    # 6.9: the head is not counted. That no more comes is seen by another stream, which is not held up.
    peer.pump(lambda: peer.on(stream).fields and len(peer.on(stream).body) == window)
    peer.grant(0, 1 << 20)
    if window > 100:
        peer.is_served()
    peer.pump_past()
    for more in (1, 16384, 5000):
        peer.grant(stream, more)
        window += more
        peer.pump(lambda: len(peer.on(stream).body) == window)
    peer.grant(stream, 1 << 20)
    assert peer.answer(stream).ended and len(peer.on(stream).body) > 200_000


def test_9113_6_9_1_no_more_than_the_connections_window(connect):
    peer = connect({h2.INITIAL_WINDOW: MAX})
    peer.grants = False
    streams = [peer.chat(LARGE), peer.chat(LARGE, False)]
    sent = lambda: sum(len(peer.on(stream).body) for stream in streams)
    peer.pump(lambda: sent() == h2.WINDOW)
    peer.pump_past()
    assert sent() == h2.WINDOW
    for more in (1, 16384, 5000):
        window = sent() + more
        peer.grant(0, more)
        peer.pump(lambda: sent() == window)
    peer.grant(0, 1 << 20)
    assert all(peer.answer(stream).ended for stream in streams)


def test_9113_6_9_1_an_empty_end_needs_no_window(connect):
    whole = connect()
    length = len(whole.answer(whole.chat(STREAM)).body)
    peer = connect({h2.INITIAL_WINDOW: length})
    peer.grants = False
    stream = peer.chat(STREAM)
    assert peer.answer(stream).ended and peer.on(stream).window == 0


def test_9113_6_9_2_settings_change_the_windows_that_there_are(connect):
    peer = connect({h2.INITIAL_WINDOW: 100})
    peer.grants = False
    peer.grant(0, 1 << 20)
    stream = peer.chat(LARGE)
    peer.pump(lambda: len(peer.on(stream).body) == 100)
    peer.pump_past(peer.own_settings({h2.INITIAL_WINDOW: 1100}))
    peer.pump(lambda: len(peer.on(stream).body) == 1100)
    # Below zero, and up again: nothing before it is above.
    peer.pump_past(peer.own_settings({h2.INITIAL_WINDOW: 0}))
    assert peer.on(stream).window == -1100
    peer.grant(stream, 1100)
    peer.pump_past()
    assert len(peer.on(stream).body) == 1100
    peer.grant(stream, 1)
    peer.pump(lambda: len(peer.on(stream).body) == 1101)
    # A change holds for new streams.
    other = peer.chat(STREAM)
    peer.pump(lambda: peer.on(other).fields)
    peer.pump_past()
    assert not peer.on(other).body
    peer.pump_past(peer.own_settings({h2.INITIAL_WINDOW: MAX - 1101}))
    assert peer.answer(other).ended
    assert peer.answer(stream).ended


def test_9113_6_9_2_settings_do_not_change_the_connections_window(connect):
    peer = connect({h2.INITIAL_WINDOW: 0})
    peer.grants = False
    stream = peer.chat(LARGE)
    peer.pump_past(peer.own_settings({h2.INITIAL_WINDOW: MAX}))
    peer.pump(lambda: peer.window == 0)
    peer.pump_past()
    peer.grant(0, 1 << 20)
    assert peer.answer(stream).ended


@pytest.mark.parametrize("size, streamed", [(16384, False), (16385, False), (100_000, False), ((1 << 24) - 1, True)])
def test_9113_4_2_frames_are_no_longer_than_the_client_takes(connect, size, streamed):
    peer = connect({h2.FRAME_MAX: size, h2.INITIAL_WINDOW: 1 << 20})
    peer.grant(0, 1 << 20)
    assert peer.answer(peer.chat(LARGE, streamed)).ended
    peer.pump_past(peer.own_settings({h2.FRAME_MAX: 16384}))
    assert peer.answer(peer.chat(LARGE, streamed)).ended


# 6.9: what the gateway takes.


def upload(peer, stream, length, padding=0):
    """Sends `length` bytes of a chat's body as the windows allow."""
    body = h2.chat_body(STREAM).replace(b'"hi"', b'"%b"' % (b"x" * length))
    while body:
        overhead = padding + 1 if padding else 0
        peer.pump(lambda: min(peer.may_send, peer.room(stream)) > overhead)
        size = min(16384, peer.may_send, peer.room(stream)) - overhead
        piece, body = body[:size], body[size:]
        end = 0 if body else h2.END_STREAM
        cost = len(piece) + overhead
        peer.may_send -= cost
        peer.may_send_on[stream] -= cost
        if padding:
            peer.send(frame(h2.DATA, h2.PADDED | end, stream, bytes([padding]) + piece + bytes(padding)))
        else:
            peer.send(h2.data(stream, piece, bool(end)))


@pytest.mark.parametrize("padding", [0, 255], ids=["plain", "6.9.1-padding-counts"])
def test_9113_6_9_windows_are_given_back_as_a_request_is_read(peer, padding):
    for _ in range(2):
        stream = peer.request(peer.post(), end=False)
        upload(peer, stream, 3 << 20, padding)
        answer = peer.answer(stream)
        assert answer.status == 200 and answer.ended
        assert answer.body.endswith(b"data: [DONE]\n\n"), answer


def test_9113_6_9_padding_alone_does_not_use_the_windows_up(peer):
    stream = peer.request(peer.post(), end=False)
    peer.pump(lambda: peer.settings is not None)
    sent = 0
    while sent < 2 * peer.settings[h2.INITIAL_WINDOW]:
        peer.pump(lambda: min(peer.may_send, peer.room(stream)) >= 256 + 1)
        peer.may_send -= 257
        peer.may_send_on[stream] -= 257
        sent += 257
        peer.send(frame(h2.DATA, h2.PADDED, stream, b"\xff" + b" " + bytes(255)))
    upload(peer, stream, 1)
    assert peer.answer(stream).status == 200


@pytest.mark.parametrize("what", ["stream", "connection"])
def test_9113_6_9_1_who_does_not_wait_for_a_window_is_told_unless_it_was_opened(connect, what):
    peer = connect()
    peer.pump(lambda: peer.settings is not None and peer.acks)
    peer.pump_past()
    size = peer.settings[h2.INITIAL_WINDOW]
    wanted = (size if what == "stream" else peer.may_send) + 65536
    streams = [peer.request(peer.post(), end=False) for _ in range(-(-wanted // size) if what == "connection" else 1)]
    for n in range(wanted // 16384):
        stream = streams[n % len(streams)]
        peer.may_send -= 16384
        peer.may_send_on[stream] = peer.room(stream) - 16384
        peer.send(h2.data(stream, b" " * 16384))

    def told():
        return peer.closed or any(peer.on(stream).over for stream in streams)

    def opened():
        return peer.may_send >= 0 and all(peer.room(stream) >= 0 for stream in streams)

    peer.pump(lambda: told() or opened())
    if peer.closed:
        peer.expect_connection_error(h2.FLOW_CONTROL_ERROR)
    elif told():
        assert what == "stream"
        peer.expect_stream_error(streams[0], h2.FLOW_CONTROL_ERROR)


# 5.4, 6.8: how it ends.


def test_9113_5_4_1_the_last_stream_is_named(peer):
    for _ in range(3):
        peer.is_served()
    peer.send(h2.ping(b"short"))
    peer.expect_connection_error(h2.FRAME_SIZE_ERROR)
    assert peer.goaways == [(5, h2.FRAME_SIZE_ERROR)]


@pytest.mark.parametrize("door", ["tls", "clear"])
def test_9113_6_8_a_connection_that_has_served_enough_ends_in_order(mock, tmp_path, door):
    doors = Doors(mock, tmp_path, "[client]\nrequests_max = 3\n")
    try:
        peer = doors.connect(door)
        streams = [peer.chat("mock:tokens=20,gap=2ms,ttft=1ms") for _ in range(3)]
        assert [peer.answer(stream).ended for stream in streams] == [True] * 3
        peer.pump(lambda: peer.closed)
        assert peer.goaways[0][1] == peer.goaway == h2.NO_ERROR, peer
        assert peer.goaways[-1][0] == 5, "6.8: what has a higher number was not served"
        peer.close()
    finally:
        doors.stop()


@pytest.mark.parametrize("door", ["tls", "clear"])
def test_9113_6_8_what_is_beyond_the_last_stream_is_not_served(mock, tmp_path, door):
    doors = Doors(mock, tmp_path, "[client]\nrequests_max = 1\n")
    try:
        peer = doors.connect(door)
        first = peer.chat("mock:tokens=3,gap=1ms,ttft=100ms")
        peer.pump(lambda: peer.goaways and peer.goaways[-1][0] == first)
        second = peer.request()
        peer.send(h2.data(peer.chat(STREAM, end=False), b"x"))
        assert peer.answer(first).ended
        peer.pump(lambda: peer.closed)
        assert peer.on(second).status is None and peer.goaway == h2.NO_ERROR, peer
        peer.close()
    finally:
        doors.stop()
