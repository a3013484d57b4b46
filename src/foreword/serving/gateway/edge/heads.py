"""h11 with limits on the head of a request, however its bytes come in."""

from __future__ import annotations

import h11


class LimitedConnection(h11.Connection):
    """One client's side of HTTP/1.1.

    h11 bounds what it keeps of a head that is not complete; one that comes in a single piece passes
    it at any size and with any number of headers.
    """

    refused_status: int | None = None
    """Why the last request was not taken, as an HTTP status."""

    def __init__(self, *, head_bytes: int, headers: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=head_bytes)
        self._head_bytes = head_bytes
        self._headers = headers

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """
        Raises:
            RemoteProtocolError: as h11 says; and for a head that is too large (431), of another
                version (505), or that says in two ways where its body ends (400).
        """
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._check(event)
        except h11.RemoteProtocolError as error:
            self.refused_status = error.error_status_hint
            raise
        return event

    def _check(self, request: h11.Request) -> None:
        headers = list(request.headers)
        names = [name for name, _ in headers]
        # Of each line also the colon, the blank and the line break.
        size = sum(len(name) + len(value) + 4 for name, value in headers)
        size += len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n\r\n")
        if len(names) > self._headers or size > self._head_bytes:
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        if request.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("another version of HTTP", error_status_hint=505)
        # A proxy may believe the one and we the other, and then disagree where a request begins
        # (RFC 9112, section 6.3, point 3).
        if {b"content-length", b"transfer-encoding"} <= set(names):
            raise h11.RemoteProtocolError("two lengths of one body", error_status_hint=400)
