"""Two functions for a worker: a picture of the Mandelbrot set, and a poster of it in a file.

Run them as ``txgearman worker --threads 1 --python pictures:picture --python pictures:poster``.
"""

import json
import os
import struct
import zlib
from pathlib import Path

LARGEST = 16_000_000  # pixels of a picture: what a stranger may ask for


def picture(job):
    """An online job: its data is JSON, its result a PNG file."""
    return draw(job, **json.loads(job.data))


def poster(job):
    """An offline job: the same as a file, which is called like the job's unique."""
    name = job.unique.decode()
    if not name.isidentifier():
        raise ValueError(f"not a name for a poster: {name!r}")
    folder = Path(os.environ.get("STATE_DIRECTORY", "."))  # systemd sets it
    unfinished = folder / f"{name}.unfinished"
    unfinished.write_bytes(draw(job, **json.loads(job.data)))
    unfinished.replace(folder / f"{name}.png")


def draw(job, width, height, x=0.28, y=0.008, size=0.02, depth=150):
    """The part of the set around `x` and `y` that is `size` wide, as PNG.

    Tells at most a hundred times how many rows are done.
    """
    if min(width, height, depth) < 1 or width * height > LARGEST or depth > 1000:
        raise ValueError("this picture is too large")
    scale = size / width
    rows = []
    for row in range(height):
        imaginary = y + (height / 2 - row) * scale
        columns = (x + (column - width / 2) * scale for column in range(width))
        points = (complex(real, imaginary) for real in columns)
        rows.append(bytes(shade(point, depth) for point in points))
        if row * 100 // height != (row + 1) * 100 // height:
            job.send_status(row + 1, height)
    return png(width, height, rows)


def shade(point, depth):
    """From 255, which leaves the set at once, to 0, which never does."""
    value = 0j
    for step in range(depth):
        value = value * value + point
        if value.real * value.real + value.imag * value.imag > 4:
            return 255 - 255 * step // depth
    return 0


def png(width, height, rows):
    """A PNG file of 8-bit greys."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
