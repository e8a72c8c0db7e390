"""HTTP as bytes on a socket, read strictly: what a lenient client library forgives fails here."""
import json
import re
import socket


class Response:
    def __init__(self, status, headers):
        self.status = status
        self.headers = headers  # names in lower case
        self.body = b""
        self.chunks = []  # of a chunked body

    def json(self):
        return json.loads(self.body.decode("utf-8", "strict"))

    def events(self):
        return read_events(self.body)


def read_events(body):
    """The data of server-sent events, parsed; every event is one `data: ` line that is JSON, or [DONE]. Comments are left out.

    No other line may be there: after an `id:` the official client stumbles over comments, after an `event:` over no data.
    """
    assert body.endswith(b"\n\n"), body[-80:]
    events = []
    for block in body[:-2].split(b"\n\n"):
        assert not re.search(rb"[\r\n]", block), f"more than one line: {block[:200]}"
        if block.startswith(b":"):
            continue
        assert block.startswith(b"data: "), block[:200]
        data = block.removeprefix(b"data: ").decode("utf-8", "strict")
        events.append(data if data == "[DONE]" else json.loads(data))
    return events


class Connection:
    def __init__(self, address, timeout=120):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()

    def send(self, method, path, body=None, headers=()):
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + content)

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("the connection ended")
        self.unread += data

    def until(self, mark):
        while mark not in self.unread:
            self.more()
        found, self.unread = self.unread.split(mark, 1)
        return found

    def exactly(self, count):
        while len(self.unread) < count:
            self.more()
        found, self.unread = self.unread[:count], self.unread[count:]
        return found

    def head(self):
        first, *lines = self.until(b"\r\n\r\n").decode("ascii").split("\r\n")
        assert re.fullmatch(r"HTTP/1\.1 \d{3} [ -~]+", first), first
        headers = {}
        for line in lines:
            name, value = line.split(": ", 1)
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value
        return Response(int(first.split()[1]), headers)

    def chunk(self):
        """One chunk's data; b"" is the end of the body."""
        size = self.until(b"\r\n")
        assert re.fullmatch(rb"[0-9a-fA-F]+", size), size
        data = self.exactly(int(size, 16))
        assert self.exactly(2) == b"\r\n"
        return data

    def response(self, to_head=False):
        response = self.head()
        if response.headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in response.headers, response.headers
            while data := self.chunk():
                response.chunks.append(data)
            response.body = b"".join(response.chunks)
        elif not to_head:
            response.body = self.exactly(int(response.headers["content-length"]))
        return response

    def ask(self, method, path, body=None, headers=()):
        self.send(method, path, body, headers)
        return self.response(method == "HEAD")


def ask(address, method, path, body=None, headers=()):
    with Connection(address) as connection:
        return connection.ask(method, path, body, headers)
