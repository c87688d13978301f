"""HTTP/2 as an abuser speaks it: any frame in any place, heads as literals, and of what comes back only how it ended."""

import collections
import select
import socket
import struct
import time

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REASONS = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
           "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"]


def reason(code):
    return REASONS[code] if code < len(REASONS) else str(code)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(number, prefix, first=0):
    """RFC 7541 §5.1."""
    most = (1 << prefix) - 1
    if number < most:
        return bytes([first | number])
    coded, number = [first | most], number - most
    while number >= 128:
        coded.append(number & 127 | 128)
        number >>= 7
    return bytes([*coded, number])


def field(name, value):
    """A literal that nobody is to remember."""
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(method, path, fields, authority=b"x"):
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]
    return b"".join(field(name, value) for name, value in [*pseudo, *fields])


def setting(name, value):
    return struct.pack(">HI", name, value)


class Connection:
    """One connection of an abuser. `tally` counts how it ended, and what was said of streams."""

    def __init__(self, sock, tally, settings=b"", client=True):
        self.sock, self.tally, self.held, self.open, self.goaway = sock, tally, b"", True, None
        self.frames = collections.deque(maxlen=10_000)
        self.keep = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.skip = 0 if client else len(PREFACE)
        self.push((PREFACE if client else b"") + frame(SETTINGS, 0, 0, settings))

    @classmethod
    def connect(cls, address, tally, settings=b""):
        return cls(socket.create_connection(address, timeout=10), tally, settings)

    def push(self, data, timeout=10.0):
        """Sends `data`, reading on meanwhile; False once the other side has ended, or takes nothing for so long."""
        view, end = memoryview(data), time.monotonic() + timeout
        while self.open and view:
            readable, writable, _ = select.select([self.sock], [self.sock], [], max(0.0, end - time.monotonic()))
            if readable:
                self._read()
            if writable and self.open:
                try:
                    sent = self.sock.send(view)
                    view, end = view[sent:], time.monotonic() + timeout
                except BlockingIOError:
                    pass
                except OSError:
                    # What it said last may still be there.
                    self.listen(0.2)
                    self.end()
            if not readable and not writable:
                self.tally["takes nothing"] += 1
                return False
        return self.open

    def listen(self, seconds, enough=lambda: False):
        """Reads for so long, or until `enough`."""
        end = time.monotonic() + seconds
        while self.open and not enough():
            left = end - time.monotonic()
            if left <= 0:
                break
            if select.select([self.sock], [], [], left)[0]:
                self._read()
        return self.open

    def _read(self):
        try:
            came = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            came = b""
        if not came:
            return self.end()
        held = self.held + came
        if self.skip:
            part = min(self.skip, len(held))
            held, self.skip = held[part:], self.skip - part
        at = 0
        while len(held) - at >= 9:
            length = int.from_bytes(held[at:at + 3], "big")
            if len(held) - at < 9 + length:
                break
            kind, flags, stream = held[at + 3], held[at + 4], int.from_bytes(held[at + 5:at + 9], "big")
            self._frame(kind, flags, stream, held[at + 9:at + 9 + length])
            at += 9 + length
        self.held = held[at:]

    def _frame(self, kind, flags, stream, payload):
        if kind == GOAWAY:
            self.goaway = reason(int.from_bytes(payload[4:8], "big"))
        elif kind == RST_STREAM:
            self.tally[f"RST_STREAM {reason(int.from_bytes(payload[:4], 'big'))}"] += 1
        elif kind == HEADERS:
            self.tally["answers"] += 1
        if self.keep:
            self.frames.append((kind, flags, stream, payload))

    def end(self):
        if self.open:
            self.open = False
            self.tally[f"GOAWAY {self.goaway}" if self.goaway else "closed"] += 1
            self.sock.close()

    def leave(self):
        """Goes, for reasons of its own."""
        if self.open:
            self.open = False
            self.tally["was let on"] += 1
            self.sock.close()
