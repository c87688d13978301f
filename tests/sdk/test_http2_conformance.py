"""HTTP/2 as RFC 9113 has it: the beginning of a connection (3), frames (4) and each kind of them (6).

Each test names the section whose MUST it is; each runs over TLS and in the clear. Streams and flow control,
compression, and messages are tested beside this file. Where the RFC leaves a choice all that it allows is right.
"""

import socket
import ssl
import struct

import pytest

import http2_peer as h2
from conftest import KEY, PATIENCE_S
from http2_peer import frame

pytestmark = pytest.mark.gateway

# Streams of an answer, or of its absence, that stay as they are until their client leaves.
UNBEGUN = "mock:fault=never"
BEGUN = "mock:fault=stall@2,ttft=1ms,gap=1ms"
STREAM = "mock:tokens=3,gap=1ms,ttft=1ms"


def u32(*numbers):
    return struct.pack(f">{len(numbers)}I", *numbers)


def agree(doors, protocols, version=None):
    """A TLS connection whose client offers `protocols`."""
    trust = doors.trust()
    if version:
        trust.minimum_version = trust.maximum_version = version
    if protocols:
        trust.set_alpn_protocols(protocols)
    raw = socket.create_connection(("127.0.0.1", doors.ports["tls"]), timeout=PATIENCE_S)
    return trust.wrap_socket(raw, server_hostname="localhost")


def first_line(sock, more=b""):
    """Asks as HTTP/1.1 does and returns the first line of the answer."""
    sock.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n%b\r\n" % (KEY.encode(), more))
    with sock, sock.makefile("rb") as file:
        return file.readline()


# 3: how a connection begins.


@pytest.mark.parametrize("offered, chosen", [
    (["h2"], "h2"), (["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), ([], None)])
def test_9113_3_2_h2_is_agreed_on_by_alpn(doors, offered, chosen):
    sock = agree(doors, offered)
    assert sock.selected_alpn_protocol() == chosen
    if chosen != "h2":
        assert first_line(sock).startswith(b"HTTP/1.1 200 ")
    sock.close()


def test_9113_3_1_h2c_is_no_name_for_http2_over_tls(doors):
    try:
        sock = agree(doors, ["h2c"])
    except ssl.SSLError:
        return
    assert sock.selected_alpn_protocol() is None
    sock.close()


def test_9113_3_1_there_is_no_upgrade_to_h2c(doors):
    sock = socket.create_connection(("127.0.0.1", doors.ports["clear"]), timeout=PATIENCE_S)
    wish = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    assert first_line(sock, wish).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_9113_9_2_tls_is_as_http2_wants_it(doors, version):
    with agree(doors, ["h2"], version) as sock:
        assert sock.selected_alpn_protocol() == "h2"
        # 9.2.1, and 9.2.2: none of appendix A, all of which lack one of the two.
        assert sock.compression() is None
        name = sock.cipher()[0]
        assert "GCM" in name or "CHACHA20" in name, name
        assert version == ssl.TLSVersion.TLSv1_3 or "ECDHE" in name, name


def test_9113_3_4_the_first_frame_is_settings_and_ours_are_acknowledged(peer):
    peer.pump(lambda: peer.settings is not None and peer.acks == 1)
    assert peer.frames[0][:3] == (h2.SETTINGS, 0, 0)
    assert peer.settings[h2.STREAMS_MAX] >= 100, "6.5.2 recommends no less"


def test_9113_3_4_a_preface_may_come_byte_by_byte(connect):
    peer = connect(hello=False)
    for byte in h2.PREFACE + peer.own_settings():
        peer.send(bytes([byte]))
    peer.is_served()


def test_9113_3_4_requests_need_not_wait_for_the_servers_settings(connect):
    peer = connect(hello=False)
    stream = peer.stream()
    peer.send(h2.PREFACE, peer.own_settings(), peer.head(stream, peer.get()))
    assert peer.answer(stream).status == 200


@pytest.mark.parametrize("preface", [
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", id="last-byte"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", id="magic"),
    pytest.param(b"\x16\x03\x01\x00\x10" + bytes(32), id="something-else"),
])
def test_9113_3_4_an_invalid_preface_ends_the_connection(connect, preface):
    peer = connect(hello=False)
    peer.send(preface, peer.own_settings())
    with peer.sock:
        said = b""
        while more := receive(peer.sock):
            said += more
    # HTTP/1.1 may still be meant in the clear; else nothing but SETTINGS has been said, for a GOAWAY may be left out.
    goaway = said[-17:-8] == frame(h2.GOAWAY, length=8) and said[-4:] == u32(h2.PROTOCOL_ERROR)
    alone = said[3:4] == bytes([h2.SETTINGS]) and len(said) == 9 + int.from_bytes(said[:3], "big")
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 ")) or goaway or alone or not said, said


def receive(sock):
    try:
        return sock.recv(65536)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("other", [
    pytest.param(h2.ping(), id="ping"),
    pytest.param(h2.settings(flags=h2.ACK), id="settings-ack"),
    pytest.param(frame(0x42), id="unknown"),
    pytest.param(h2.window_update(0, 1), id="window-update"),
])
def test_9113_3_4_a_preface_without_settings_is_an_error(connect, other):
    peer = connect(hello=False)
    peer.send(h2.PREFACE, other)
    peer.expect_connection_error(h2.PROTOCOL_ERROR)


# 4: frames.


@pytest.mark.parametrize("stream", [0, 1, 2])
@pytest.mark.parametrize("kind", [0x0a, 0x42, 0xff])
def test_9113_4_1_unknown_kinds_are_ignored(peer, kind, stream):
    peer.pump_past(frame(kind, 0xff, stream, b"x" * 16384), frame(kind, 0, stream))
    peer.is_served()


def test_9113_4_1_undefined_flags_are_ignored(peer):
    stream = peer.stream()
    peer.send(frame(h2.SETTINGS, 0xfe), frame(h2.PING, 0xfe, 0, b"flagging"), frame(h2.WINDOW_UPDATE, 0xff, 0, u32(1)),
              frame(h2.PRIORITY, 0xff, stream, bytes(4) + b"\x10"), frame(h2.HEADERS, 0xd6, stream, peer.block(peer.post())),
              frame(h2.WINDOW_UPDATE, 0xff, stream, u32(1)), frame(h2.DATA, 0xf7, stream, h2.chat_body(STREAM)))
    peer.unacknowledged.append([])
    assert peer.answer(stream).status == 200
    assert b"flagging" in peer.pongs and peer.acks == 2


def test_9113_4_1_the_reserved_bit_is_ignored(peer):
    stream, r = peer.stream(), 1 << 31
    peer.send(frame(h2.SETTINGS, 0, r), frame(h2.PING, 0, r, b"reserved"), frame(h2.WINDOW_UPDATE, 0, r, u32(r | 1)),
              frame(h2.PRIORITY, 0, r | stream, bytes(5)), frame(h2.HEADERS, 0x4, r | stream, peer.block(peer.post())),
              frame(h2.WINDOW_UPDATE, 0, r | stream, u32(r | 1)), frame(h2.DATA, 1, r | stream, h2.chat_body(STREAM)))
    peer.unacknowledged.append([])
    assert peer.answer(stream).status == 200
    assert b"reserved" in peer.pongs and peer.acks == 2


def test_9113_4_2_frames_of_16384_bytes_are_taken(peer):
    stream = peer.stream()
    body = h2.chat_body(STREAM).replace(b'"hi"', b'"%b"' % (b"x" * 16384))
    fields = [*peer.post(), ("x-long", "y" * 17000)]
    block = peer.block(fields)
    assert len(block) > 9000
    peer.send(frame(h2.HEADERS, 0x4 | h2.PADDED, stream, b"\xff" + block + bytes(255)) if len(block) + 256 <= 16384 else
              frame(h2.HEADERS, 0, stream, block[:16384]) + frame(h2.CONTINUATION, 4, stream, block[16384:]))
    peer.send(h2.data(stream, body[:16384]), h2.data(stream, body[16384:], True))
    assert peer.answer(stream).status == 200


# 4.2 and 6: what each kind may hold. Streams: 1 is open, its body to come; 3 waits for its answer; 5 is idle.

PROTOCOL, SIZE, FLOW = [h2.PROTOCOL_ERROR], [h2.FRAME_SIZE_ERROR], [h2.FLOW_CONTROL_ERROR]

FATAL = {
    "9113-4.2-data-too-long": (SIZE, frame(h2.DATA, 0, 1, bytes(16385))),
    "9113-4.2-headers-too-long": (SIZE, frame(h2.HEADERS, 0x5, 5, bytes(16385))),
    "9113-4.2-settings-too-long": (SIZE, frame(h2.SETTINGS, 0, 0, bytes(6 * 2731))),
    "9113-4.2-continuation-too-long": (SIZE, frame(h2.HEADERS, 1, 5) + frame(h2.CONTINUATION, 4, 5, bytes(16385))),
    "9113-4.2-unknown-too-long": (SIZE, frame(0x42, 0, 0, bytes(16385))),
    "9113-6.1-data-on-stream-0": (PROTOCOL, h2.data(0, b"x")),
    "9113-6.1-padding-as-long-as-the-payload": (PROTOCOL, frame(h2.DATA, h2.PADDED, 1, b"\x05hell")),
    "9113-6.1-padding-longer-than-the-payload": (PROTOCOL, frame(h2.DATA, h2.PADDED, 1, b"\xffhell")),
    "9113-6.1-no-room-for-the-padding-length": (SIZE, frame(h2.DATA, h2.PADDED, 1)),
    "9113-6.2-headers-on-stream-0": (PROTOCOL, frame(h2.HEADERS, 0x5, 0, b"\x82\x87\x84")),
    "9113-6.2-padding-as-long-as-the-payload": (PROTOCOL, frame(h2.HEADERS, 0x5 | h2.PADDED, 5, b"\x04\x82\x87\x84")),
    "9113-6.2-padding-longer-than-the-payload": (PROTOCOL, frame(h2.HEADERS, 0x5 | h2.PADDED, 5, b"\xff\x82\x87\x84")),
    "9113-6.2-padding-over-the-priority": (PROTOCOL, frame(h2.HEADERS, 0x2d, 5, b"\x01" + bytes(5))),
    "9113-6.2-no-room-for-the-padding-length": (SIZE, frame(h2.HEADERS, 0x5 | h2.PADDED, 5)),
    "9113-6.2-no-room-for-the-priority": (SIZE, frame(h2.HEADERS, 0x5 | h2.PRIORITIZED, 5, bytes(4))),
    "9113-6.3-priority-on-stream-0": (PROTOCOL, frame(h2.PRIORITY, 0, 0, bytes(5))),
    "9113-6.4-reset-of-stream-0": (PROTOCOL, h2.reset(0)),
    "9113-6.4-reset-of-an-idle-stream": (PROTOCOL, h2.reset(5)),
    "9113-6.4-reset-too-short": (SIZE, frame(h2.RST_STREAM, 0, 1, bytes(3))),
    "9113-6.4-reset-too-long": (SIZE, frame(h2.RST_STREAM, 0, 1, bytes(5))),
    "9113-6.4-reset-empty": (SIZE, frame(h2.RST_STREAM, 0, 1)),
    "9113-6.5-acknowledgement-with-settings": (SIZE, h2.settings({h2.STREAMS_MAX: 1}, h2.ACK)),
    "9113-6.5-settings-on-a-stream": (PROTOCOL, frame(h2.SETTINGS, 0, 1)),
    "9113-6.5-acknowledgement-on-a-stream": (PROTOCOL, frame(h2.SETTINGS, h2.ACK, 1)),
    "9113-6.5-settings-of-five-bytes": (SIZE, frame(h2.SETTINGS, 0, 0, bytes(5))),
    "9113-6.5-settings-of-thirteen-bytes": (SIZE, frame(h2.SETTINGS, 0, 0, bytes(13))),
    "9113-6.5.2-enable-push-of-2": (PROTOCOL, h2.settings({h2.ENABLE_PUSH: 2})),
    "9113-6.5.2-enable-push-of-all-ones": (PROTOCOL, h2.settings({h2.ENABLE_PUSH: (1 << 32) - 1})),
    "9113-6.5.2-initial-window-of-2^31": (FLOW, h2.settings({h2.INITIAL_WINDOW: 1 << 31})),
    "9113-6.5.2-initial-window-of-all-ones": (FLOW, h2.settings({h2.INITIAL_WINDOW: (1 << 32) - 1})),
    "9113-6.5.2-frame-size-of-16383": (PROTOCOL, h2.settings({h2.FRAME_MAX: 16383})),
    "9113-6.5.2-frame-size-of-0": (PROTOCOL, h2.settings({h2.FRAME_MAX: 0})),
    "9113-6.5.2-frame-size-of-2^24": (PROTOCOL, h2.settings({h2.FRAME_MAX: 1 << 24})),
    "9113-6.6-push-promise-from-a-client": (PROTOCOL, frame(h2.PUSH_PROMISE, 4, 1, u32(2) + b"\x82\x87\x84")),
    "9113-6.6-push-promise-on-stream-0": (PROTOCOL, frame(h2.PUSH_PROMISE, 4, 0, u32(2) + b"\x82\x87\x84")),
    "9113-6.7-ping-on-a-stream": (PROTOCOL, frame(h2.PING, 0, 1, bytes(8))),
    "9113-6.7-ping-too-short": (SIZE, frame(h2.PING, 0, 0, bytes(7))),
    "9113-6.7-ping-too-long": (SIZE, frame(h2.PING, 0, 0, bytes(9))),
    "9113-6.7-ping-empty": (SIZE, frame(h2.PING)),
    "9113-6.7-acknowledged-ping-too-short": (SIZE, frame(h2.PING, h2.ACK, 0, bytes(6))),
    "9113-6.8-goaway-on-a-stream": (PROTOCOL, frame(h2.GOAWAY, 0, 1, bytes(8))),
    "9113-6.8-goaway-too-short": (SIZE, frame(h2.GOAWAY, 0, 0, bytes(7))),
    "9113-6.9-window-update-of-0": (PROTOCOL, h2.window_update(0, 0)),
    "9113-6.9-window-update-of-an-idle-stream": (PROTOCOL, h2.window_update(5, 1)),
    "9113-6.9-window-update-too-short": (SIZE, frame(h2.WINDOW_UPDATE, 0, 0, bytes(3))),
    "9113-6.9-window-update-too-long": (SIZE, frame(h2.WINDOW_UPDATE, 0, 0, u32(1, 1))),
    "9113-6.9-window-update-of-a-stream-too-short": (SIZE, frame(h2.WINDOW_UPDATE, 0, 1, bytes(3))),
    "9113-6.9.1-connection-window-beyond-2^31-1": (FLOW, h2.window_update(0, (1 << 31) - 1)),
    "9113-6.9.2-settings-raise-a-window-beyond-2^31-1":
        (FLOW, h2.window_update(1, (1 << 31) - 1 - h2.WINDOW) + h2.settings({h2.INITIAL_WINDOW: h2.WINDOW + 1})),
    "9113-6.10-continuation-of-nothing": (PROTOCOL, frame(h2.CONTINUATION, 4, 5, b"\x82")),
    "9113-6.10-continuation-on-stream-0": (PROTOCOL, frame(h2.HEADERS, 1, 5, b"\x82") + frame(h2.CONTINUATION, 4, 0)),
    "9113-6.10-continuation-of-an-ended-block": (PROTOCOL, frame(h2.CONTINUATION, 4, 1, b"\x82")),
    "9113-6.10-continuation-after-data": (PROTOCOL, h2.data(1, b"{") + frame(h2.CONTINUATION, 4, 1, b"\x82")),
    "9113-6.10-continuation-of-another-stream": (PROTOCOL, frame(h2.HEADERS, 1, 5, b"\x82") + frame(h2.CONTINUATION, 4, 7)),
    "9113-6.10-continuation-after-the-last": (
        PROTOCOL, frame(h2.HEADERS, 0, 5, b"\x82") + frame(h2.CONTINUATION, 4, 5, b"\x87\x84") + frame(h2.CONTINUATION, 4, 5)),
}
# 6.2, 6.10, 5.5: nothing comes between HEADERS and its CONTINUATION.
FATAL |= {
    f"9113-6.2-{name}-within-a-block": (PROTOCOL, frame(h2.HEADERS, 1, 5, b"\x82") + between + frame(h2.CONTINUATION, 4, 5))
    for name, between in {
        "data": h2.data(1, b"{"), "headers": frame(h2.HEADERS, 0x5, 7, b"\x82\x87\x84"), "same-headers": frame(h2.HEADERS, 5, 5),
        "priority": frame(h2.PRIORITY, 0, 5, bytes(5)), "reset": h2.reset(1), "settings": h2.settings(), "ping": h2.ping(),
        "goaway": frame(h2.GOAWAY, 0, 0, bytes(8)), "window-update": h2.window_update(0, 1), "unknown": frame(0x42, 0, 5, b"?"),
        "settings-ack": h2.settings(flags=h2.ACK)}.items()}


@pytest.mark.parametrize("codes, said", FATAL.values(), ids=FATAL)
def test_ends_the_connection(peer, codes, said):
    assert peer.request(peer.post(("content-length", "100")), end=False) == 1
    assert peer.chat(BEGUN) == 3
    peer.pump(lambda: peer.on(3).pieces)
    peer.next_stream += 2
    # Settings may be acknowledged before the window is looked at.
    peer.unacknowledged.append([])
    peer.send(said)
    peer.expect_connection_error(*codes)
    assert peer.goaways[-1][0] in (1, 3, 5), f"6.8: the last stream that was seen: {peer!r}"


# What is wrong with one stream alone: 1 is open, its body to come.

LOCAL = {
    "9113-6.3-priority-too-short": (SIZE, frame(h2.PRIORITY, 0, 1, bytes(4))),
    "9113-6.3-priority-too-long": (SIZE, frame(h2.PRIORITY, 0, 1, bytes(6))),
    "9113-6.9-window-update-of-0": (PROTOCOL, h2.window_update(1, 0)),
    "9113-6.9.1-window-beyond-2^31-1": (FLOW, h2.window_update(1, (1 << 31) - 1)),
    "9113-6.9.1-window-beyond-2^31-1-bit-by-bit":
        (FLOW, h2.window_update(1, (1 << 31) - 1 - h2.WINDOW) + h2.window_update(1, 1)),
}


@pytest.mark.parametrize("codes, said", LOCAL.values(), ids=LOCAL)
@pytest.mark.parametrize("state", ["open", "waiting", "answering"])
def test_ends_the_stream(peer, codes, said, state):
    if state == "open":
        peer.request(peer.post(("content-length", "100")), end=False)
    else:
        peer.chat(UNBEGUN if state == "waiting" else BEGUN)
    if state == "answering":
        peer.pump(lambda: peer.on(1).pieces)
    peer.send(said)
    peer.expect_stream_error(1, *codes)


# What changes nothing, or is answered.

HARMLESS = {
    "9113-4.2-empty-data": lambda peer: h2.data(1, b""),
    "9113-6.1-data-all-padding": lambda peer: frame(h2.DATA, h2.PADDED, 1, b"\xff" + bytes(255)),
    "9113-6.1-data-with-padding-length-0": lambda peer: frame(h2.DATA, h2.PADDED, 1, b"\x00"),
    "9113-6.3-priority": lambda peer: frame(h2.PRIORITY, 0, 1, u32(0) + b"\xff"),
    "9113-6.3-priority-of-an-idle-stream": lambda peer: frame(h2.PRIORITY, 0, 99, u32(1 << 31 | 1) + b"\x00"),
    "9113-6.3-priority-of-a-servers-stream": lambda peer: frame(h2.PRIORITY, 0, 2, u32(1) + b"\x00"),
    "9113-5.3.2-stream-that-depends-on-itself": lambda peer: frame(h2.PRIORITY, 0, 1, u32(1) + b"\x00"),
    "9113-5.3.2-idle-stream-that-depends-on-itself": lambda peer: frame(h2.PRIORITY, 0, 99, u32(99) + b"\x00"),
    "9113-6.5-settings-empty": lambda peer: peer.own_settings(),
    "9113-6.5.2-settings-unknown": lambda peer: peer.own_settings({0xff: 1, 0x7: 2, 0x0: 3, 0xfff0: (1 << 32) - 1}),
    "9113-6.5.2-settings-at-their-bounds": lambda peer: peer.own_settings(
        [(h2.TABLE_SIZE, (1 << 32) - 1), (h2.ENABLE_PUSH, 1), (h2.STREAMS_MAX, (1 << 32) - 1), (h2.STREAMS_MAX, 0),
         (h2.FRAME_MAX, (1 << 24) - 1), (h2.FRAME_MAX, 16384), (h2.HEAD_MAX, (1 << 32) - 1)]),
    "9113-6.7-acknowledged-ping-that-was-not-sent": lambda peer: h2.ping(b"whatever", h2.ACK),
    "9113-6.9-window-update-of-1": lambda peer: h2.window_update(0, 1) + h2.window_update(1, 1),
    "9113-6.9.1-windows-of-2^31-1": lambda peer: (
        h2.window_update(0, (1 << 31) - 1 - h2.WINDOW) + h2.window_update(1, (1 << 31) - 1 - h2.WINDOW)),
}


@pytest.mark.parametrize("said", HARMLESS.values(), ids=HARMLESS)
def test_changes_nothing(peer, said):
    body = h2.chat_body(STREAM)
    peer.request(peer.post(("content-length", str(len(body)))), end=False)
    peer.grants = False
    peer.pump_past(said(peer))
    peer.send(h2.data(1, body, True))
    answer = peer.answer(1)
    assert (answer.status, answer.reset) == (200, None) and answer.body.endswith(b"data: [DONE]\n\n"), answer
    assert not peer.unacknowledged and b"whatever" not in peer.pongs
    peer.is_served()


@pytest.mark.parametrize("flags, before", [(0, b""), (h2.PADDED, b"\x09"), (h2.PRIORITIZED, u32(1 << 31 | 3) + b"\x07"),
                                           (h2.PRIORITIZED, u32(1) + b"\x00"),
                                           (h2.PADDED | h2.PRIORITIZED, b"\x09" + u32(0) + b"\xff")],
                         ids=["plain", "padded", "priority", "5.3.2-depends-on-itself", "padded-priority"])
@pytest.mark.parametrize("cuts", [0, 1, 3])
def test_9113_6_2_headers_in_every_dress(peer, flags, before, cuts):
    stream, block = peer.stream(), peer.block(peer.get())
    parts = [block[i * len(block) // (cuts + 1):(i + 1) * len(block) // (cuts + 1)] for i in range(cuts + 1)]
    padding = bytes(9) if flags & h2.PADDED else b""
    head = frame(h2.HEADERS, flags | h2.END_STREAM | (0 if cuts else 4), stream, before + parts[0] + padding)
    more = [frame(h2.CONTINUATION, 4 if i == cuts else 0, stream, parts[i]) for i in range(1, cuts + 1)]
    # 6.10: any number of them, of any length.
    peer.send(head, *(frame(h2.CONTINUATION, 0, stream) for _ in more[:1]), *more)
    assert peer.answer(stream).status == 200
    peer.is_served()


def test_9113_6_5_3_settings_are_acknowledged_in_their_order_and_at_once(peer):
    peer.chat(BEGUN)
    peer.send(*(peer.own_settings({h2.STREAMS_MAX: n}) for n in range(20)))
    peer.pump(lambda: peer.acks == 21)
    peer.is_served()


def test_9113_6_5_3_of_settings_said_twice_the_last_counts(connect):
    peer = connect([(h2.INITIAL_WINDOW, 0), (h2.INITIAL_WINDOW, 7)])
    peer.pump(lambda: peer.acks == 1)
    peer.grants = False
    stream = peer.chat(STREAM)
    peer.pump(lambda: len(peer.on(stream).body) == 7)
    peer.pump_past()
    assert len(peer.on(stream).body) == 7


@pytest.mark.parametrize("state", ["idle", UNBEGUN, BEGUN])
def test_9113_6_7_a_ping_is_answered_with_its_own_bytes(peer, state):
    if state != "idle":
        peer.chat(state)
    words = [bytes([n]) * 8 for n in range(50)]
    peer.send(*map(h2.ping, words))
    peer.pump(lambda: len(peer.pongs) == 50)
    assert peer.pongs == words


@pytest.mark.parametrize("code", [h2.NO_ERROR, h2.CANCEL, 0xffffffff])
def test_9113_6_8_a_client_that_goes_away_is_answered_first(peer, code):
    stream = peer.chat("mock:tokens=20,gap=5ms,ttft=5ms")
    peer.pump(lambda: peer.on(stream).pieces)
    peer.send(frame(h2.GOAWAY, 0, 0, u32(0, code) + b"some words"))
    answer = peer.answer(stream)
    assert code != h2.NO_ERROR or (answer.ended and answer.body.endswith(b"data: [DONE]\n\n")), answer
    peer.pump(lambda: peer.closed)
