"""Python's asyncio as its documentation shows it: one thread, a coroutine for each connection."""

import asyncio
import sys
import time


def burn(seconds):
    """Spends this much CPU time of the only thread, which is what CPU work does to an event loop."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(50):
            pass


def parse_mode(text):
    """`echo`, `work-cpu:1ms` or `work-sleep:20ms` as a coroutine function to await before each answer."""
    if text == "echo":
        return None
    kind, _, amount = text.partition(":")
    if not amount.endswith("ms") or kind not in ("work-cpu", "work-sleep"):
        sys.exit(f"asyncio_tcp.py: `{text}` is not a mode: write echo, work-cpu:1ms or work-sleep:20ms")
    seconds = float(amount[:-2]) / 1000

    async def work():
        if kind == "work-sleep":
            await asyncio.sleep(seconds)
        else:
            burn(seconds)

    return work


async def converse(reader, writer, work):
    try:
        while data := await reader.read(65536):
            if work:
                await work()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the client went away
    finally:
        writer.close()


async def main():
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    host, _, port = options["--listen"].rpartition(":")
    work = parse_mode(options.get("--mode", "echo"))
    # The default is 100.
    backlog = int(options.get("--backlog", 4096))
    server = await asyncio.start_server(
        lambda reader, writer: converse(reader, writer, work), host, int(port), backlog=backlog
    )
    print("listening on tcp://%s:%d" % server.sockets[0].getsockname(), flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
