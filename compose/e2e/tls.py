"""TLS for what the stack has without: an authority of the run's own, and a proxy that ends TLS before a service."""

import asyncio
import contextlib
import ssl
import threading
import urllib.parse

import trustme

HOST = "127.0.0.1"
CHUNK = 1 << 16


class Authority:
    """A certificate authority; `file` holds its certificate, for clients that are to trust it alone."""

    def __init__(self, file):
        self.file, self.authority = file, trustme.CA()
        self.authority.cert_pem.write_to_path(str(file))

    def server(self):
        """The context of a server on this machine."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(HOST).configure_cert(context)
        return context


class Terminator:
    """Speaks TLS within `with` and hands the bytes on to the service at `upstream`: what a client says of the host stays as it is, and with it the
    signature of a request to S3."""

    def __init__(self, upstream, authority):
        place = urllib.parse.urlsplit(upstream)
        self.upstream, self.context = (place.hostname, place.port), authority.server()
        self.loop, self.address = asyncio.new_event_loop(), None
        self.is_ready = threading.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self):
        self.thread.start()
        assert self.is_ready.wait(10), "the proxy starts"
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join()

    async def _serve(self):
        self.stopping = asyncio.Event()
        server = await asyncio.start_server(self._connection, HOST, 0, ssl=self.context)
        self.address = f"https://{HOST}:{server.sockets[0].getsockname()[1]}"
        self.is_ready.set()
        await self.stopping.wait()
        server.close()

    async def _connection(self, reader, writer):
        # A service that is away, or a client that is killed, ends the connection.
        with contextlib.suppress(OSError):
            try:
                there, back = await asyncio.open_connection(*self.upstream)
            except OSError:
                writer.close()
                return
            await asyncio.gather(pass_on(reader, back), pass_on(there, writer))


async def pass_on(reader, writer):
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
