"""A WebSocket server, and a client of it: gate_socket.py serve PORT | ask PORT."""

import asyncio
import sys

import websockets


async def echo(socket):
    async for message in socket:
        await socket.send(message.upper() if isinstance(message, str) else message[::-1])


async def serve(port):
    async with websockets.serve(echo, "127.0.0.1", port):
        await asyncio.get_running_loop().create_future()


async def ask(port):
    async with websockets.connect(f"ws://127.0.0.1:{port}/chat") as socket:
        for number in range(100):
            await socket.send(f"message {number}")
            assert await socket.recv() == f"MESSAGE {number}"
        large = bytes(range(256)) * 2_000
        await socket.send(large)
        assert await socket.recv() == large[::-1]
    print("all was answered")


asyncio.run((serve if sys.argv[1] == "serve" else ask)(int(sys.argv[2])))
