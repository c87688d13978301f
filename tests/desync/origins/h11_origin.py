"""h11 as an origin, which answers each request with what it took it for."""

import selectors
import socket
import zlib

import h11


class Client:
    def __init__(self, stream):
        self.stream = stream
        self.reset()

    def reset(self):
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
        self.begin()

    def begin(self):
        self.request, self.length, self.crc = None, 0, 0

    def come(self):
        """False at the connection's end."""
        data = self.stream.recv(1 << 16)
        out = []
        try:
            self.http.receive_data(data)
            while True:
                event = self.http.next_event()
                if event in (h11.NEED_DATA, h11.PAUSED):
                    break
                if isinstance(event, h11.ConnectionClosed):
                    return False
                if isinstance(event, h11.Request):
                    self.request = event
                elif isinstance(event, h11.Data):
                    self.length += len(event.data)
                    self.crc = zlib.crc32(event.data, self.crc)
                elif isinstance(event, h11.EndOfMessage):
                    out.append(self.answer())
                    if self.http.our_state is h11.MUST_CLOSE:
                        self.stream.sendall(b"".join(out))
                        return False
                    self.http.start_next_cycle()
                    self.begin()
        except h11.RemoteProtocolError as error:
            text = f"{error}".encode()
            out.append(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))
            self.stream.sendall(b"".join(out))
            return False
        self.stream.sendall(b"".join(out))
        return True

    def answer(self):
        method, target = self.request.method, self.request.target
        seen = b"0 %d %08x %s %s" % (self.length, self.crc, method, target)
        headers = [(b"x-seen", seen), (b"content-length", b"0")]
        return self.http.send(h11.Response(status_code=200, headers=headers)) + self.http.send(h11.EndOfMessage())


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    waits = selectors.DefaultSelector()
    waits.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waits.select():
            if key.data is None:
                stream, _ = listener.accept()
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                waits.register(stream, selectors.EVENT_READ, Client(stream))
                continue
            try:
                goes_on = key.data.come()
            except OSError:
                goes_on = False
            if not goes_on:
                waits.unregister(key.fileobj)
                key.fileobj.close()


main()
