#!/usr/bin/python3
"""Loads for the benchmark, run inside a namespace; each prints one JSON object.

    load.py dns SERVER SECONDS PARALLEL    queries/s and latency (ms)
    load.py connections URL COUNT          concurrent connections held open
"""

import asyncio
import json
import socket
import struct
import sys
import time
import urllib.parse


def query(number):
    name = "n%d-%d.bench.lab.test" % (time.monotonic_ns(), number)
    packet = struct.pack(">HHHHHH", number & 0xFFFF, 0x100, 1, 0, 0, 0)
    for label in name.split("."):
        packet += bytes([len(label)]) + label.encode()
    return packet + b"\0" + struct.pack(">HH", 1, 1)


def ask(server, end, counts):
    """One worker: asks a new name, waits for its answer, again, until `end`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.connect((server, 53))
        while time.monotonic() < end:
            start = time.monotonic()
            s.send(query(len(counts)))
            try:
                s.recv(2048)
            except socket.timeout:
                counts.append(None)
                continue
            counts.append((time.monotonic() - start) * 1000)


async def dns(server, seconds, parallel):
    end = time.monotonic() + seconds
    counts = []
    loop = asyncio.get_running_loop()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(parallel) as pool:
        jobs = [
            loop.run_in_executor(pool, ask, server, end, counts)
            for _ in range(parallel)
        ]
        await asyncio.gather(*jobs)
    good = sorted(c for c in counts if c is not None)
    return {
        "answers_per_s": round(len(good) / seconds, 1),
        "lost": len(counts) - len(good),
        "median_ms": round(good[len(good) // 2], 1) if good else None,
        "p95_ms": round(good[int(len(good) * 0.95)], 1) if good else None,
    }


async def hold(host, port, path, held, counts, release):
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(host, port), 120
        )
        writer.write(b"GET %s HTTP/1.1\r\nHost: lab\r\n\r\n" % path.encode())
        await asyncio.wait_for(reader.readline(), 120)
        counts["answered"] += 1
    except (OSError, asyncio.TimeoutError):
        counts["failed"] += 1
        held.release()
        return
    held.release()
    # All of them stay open until the last one is.
    await release.wait()
    writer.close()


async def connections(url, count):
    parts = urllib.parse.urlsplit(url)
    counts = {"answered": 0, "failed": 0}
    held, release = asyncio.Semaphore(0), asyncio.Event()
    start = time.monotonic()
    tasks = [
        asyncio.ensure_future(
            hold(parts.hostname, parts.port or 80, parts.path, held, counts, release)
        )
        for _ in range(count)
    ]
    for _ in range(count):
        await held.acquire()
    seconds = time.monotonic() - start
    release.set()
    await asyncio.gather(*tasks)
    return {**counts, "seconds": round(seconds, 2)}


def main():
    if sys.argv[1] == "dns":
        result = asyncio.run(dns(sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
    else:
        result = asyncio.run(connections(sys.argv[2], int(sys.argv[3])))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
