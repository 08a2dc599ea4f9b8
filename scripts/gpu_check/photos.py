"""Pictures with the size, the colours and the spectrum of photographs, for a pipeline that is to work as on real ones."""

import random
import struct
import zlib

WIDTH, HEIGHT = 341, 256  # a photograph whose short side was shrunk to 256
# Cells across the picture and their weight: amplitude falls with frequency, as in natural images.
OCTAVES = [(2, 90.0), (5, 55.0), (11, 32.0), (23, 18.0), (47, 10.0)]
GRAIN = 7.0


def octave(rng, cells, weight):
    """A row function of a smooth random surface: values of `WIDTH` pixels at a height."""
    grid = [[rng.uniform(-weight, weight) for _ in range(cells + 2)] for _ in range(cells + 2)]
    columns = [(int(x * cells / WIDTH), x * cells / WIDTH % 1.0) for x in range(WIDTH)]

    def row(y):
        at = y * cells / HEIGHT
        i, t = int(at), at % 1.0
        line = [a + t * (b - a) for a, b in zip(grid[i], grid[i + 1])]
        return [line[j] + u * (line[j + 1] - line[j]) for j, u in columns]

    return row


def pixels(seed):
    """Rows of RGB bytes."""
    rng = random.Random(seed)
    surfaces = [octave(rng, cells, weight) for cells, weight in OCTAVES]
    base = [rng.uniform(60, 190) for _ in range(3)]
    tint = [rng.uniform(0.5, 1.3) for _ in range(3)]
    grain = rng.gauss
    for y in range(HEIGHT):
        light = [sum(values) + grain(0.0, GRAIN) for values in zip(*(surface(y) for surface in surfaces))]
        colours = (base[c] + tint[c] * value for value in light for c in range(3))
        yield bytes(max(0, min(255, int(colour))) for colour in colours)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write(folder, count):
    """`count` PNG files, the same ones each time."""
    folder.mkdir(parents=True)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    for seed in range(count):
        data = zlib.compress(b"".join(b"\0" + row for row in pixels(seed)), 6)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
        (folder / f"{seed:03}.png").write_bytes(png)
