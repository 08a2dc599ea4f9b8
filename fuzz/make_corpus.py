"""Writes the first inputs of every target into fuzz/corpus (Pillow 13, NumPy, target/release/disentangle): small ones that are right, from which the fuzzer
makes wrong ones. No photographs: ramps and noise. What it found later lies beside them under the name of its digest."""

import gzip
import io
import json
import pathlib
import random
import struct
import subprocess
import tarfile
import tempfile
import zlib

import numpy
from PIL import Image

CORPUS = pathlib.Path(__file__).parent / "corpus"
random.seed(1)


def keep(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def ramp(mode, width=9, height=7):
    picture = Image.new("RGB", (width, height))
    picture.putdata([(20 * x, 30 * y, 10 * (x + y)) for y in range(height) for x in range(width)])
    return picture.convert(mode)


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pictures():
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "grey.jpg", encoded(ramp("L"), "JPEG")
    yield "colour.jpg", encoded(ramp("RGB"), "JPEG", subsampling=0)
    yield "subsampled.jpg", encoded(ramp("RGB", 17, 18), "JPEG", subsampling=2, quality=40)
    yield "progressive.jpg", encoded(ramp("RGB"), "JPEG", progressive=True)
    yield "cmyk.jpg", encoded(ramp("CMYK"), "JPEG")
    yield "restarts.jpg", encoded(ramp("RGB", 40, 40), "JPEG", restart_marker_blocks=1)
    yield "turned.jpg", encoded(ramp("RGB"), "JPEG", exif=exif)
    for mode in ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]:
        picture = ramp("L").convert("I;16") if mode == "I;16" else ramp(mode)
        yield f"{mode.replace(';', '').lower()}.png", encoded(picture, "PNG")
    yield "pixel.png", encoded(Image.new("1", (1, 1)), "PNG", optimize=True)
    yield "lossy.webp", encoded(ramp("RGB"), "WEBP", quality=30)
    yield "lossless.webp", encoded(ramp("RGBA"), "WEBP", lossless=True)
    yield "transparent.png", encoded(ramp("P"), "PNG", transparency=3)
    yield "turned.png", encoded(ramp("RGB"), "PNG", exif=exif)


def archive(members, layout=tarfile.USTAR_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=layout) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname, content = tarfile.SYMTYPE, content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue().rstrip(b"\0") + bytes(1024)


def checkpoint(config, tensors, **changed):
    """What Checkpoint::save writes; `changed` metadata come after the checksums."""
    header, checksums, numbers = {}, {}, b""
    for name, values in tensors.items():
        data = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(numbers), len(numbers) + len(data)]}
        sides = b"".join(struct.pack("<Q", side) for side in values.shape)
        checksums[name] = f"{zlib.crc32(sides + data):08x}"
        numbers += data
    metadata = {
        "format": "disentangle.checkpoint", "format_version": "1", "program": "0.1.0", "config": config, "epoch": "2",
        "step": "9", "step_in_epoch": "1", "data": "procedural shapes, 64 images", "data_images": "64",
        "data_fingerprint": "0123456789abcdef", "losses": "6.5 3.5 3 NaN", "tensor_crc32": compact(checksums),
    }
    summed = b"".join(f"{key}\0{value}\0".encode() for key, value in sorted(metadata.items()))
    header["__metadata__"] = {**metadata, "metadata_crc32": f"{zlib.crc32(summed):08x}", **changed}
    text = compact(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + numbers


def compact(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def run_files(program):
    """What a run folder holds, but for its pictures."""
    dry = [program, "train", "--data", "shapes:64", "--batch-size", "16", "--device", "cpu", "--dry-run"]
    config = subprocess.run(dry, check=True, capture_output=True, text=True).stdout
    config = "\n".join(line for line in config.splitlines() if not line.startswith("#")) + "\n"
    small = 'data = ["shapes:64"]\n'
    weights = {"backbone.conv1.weight": numpy.arange(6).reshape(1, 2, 3, 1), "none": numpy.zeros((0, 3)), "one": numpy.array(1)}
    keep("checkpoint", "whole", checkpoint(small, weights))
    keep("checkpoint", "full_config", checkpoint(config, {}))
    keep("checkpoint", "future", checkpoint(small, {}, format_version="2", program="9.9"))
    keep("checkpoint", "damaged", checkpoint(small, {"a": numpy.ones(1)})[:-4] + bytes(4))

    keep("config", "full", config.encode())
    keep("config", "changes", b'data = "x"\nbackbone = 50\n[augment]\nblur = 1\ncrop_scale = [0.5, 1]\n')
    keep("config", "dotted", b'data = ["a", \'b\']\neval.clusters = 3\nclasses = "x, y"\nlearning_rate = 1e-3\n')
    keep("set", "plain", b"epochs=3\nblur = 0.5\naugment.crop_scale=[0.2, 1.0]\ndata=photos\n")
    keep("set", "odd", b"clusters=\nseed=7\nepoch=3\npreset=cifar10\ndevice=cuda:1\nclasses=a,b\n")

    line = '{"kind":"step","epoch":1,"step":%d,"loss":5.25}\n'
    log = "".join(line % step for step in range(1, 6))
    end = '{"kind":"epoch","epoch":1,"step":5,"loss":5}\n{"kind":"eval","step":5,"seconds":null}\n'
    keep("metrics", "rewound", b"\3" + log.encode())
    keep("metrics", "torn", b"\5" + (log + end).encode()[:-7])
    keep("metrics", "damaged", b"\4" + (line % 1 + "\n{\"kind\"}\n" + end + line % 2).encode())
    keep("engines", "known", b'{"device":{"convolution":{"fallback":false,"engine":3}}}')
    stamp = {"format": "disentangle.run", "format_version": 1, "program": "0.1.0"}
    data = {"description": "procedural shapes, 64 images, 10 classes", "images": 64, "fingerprint": 1311768467463790320}
    keep("run", "stamp", compact({**stamp, "data": data}).encode())
    keep("run", "future", compact({**stamp, "format_version": 2, "data": "elsewhere"}).encode())
    scores = {"nmi": 0.25, "ari": -0.5, "acc": 1e-3}
    factor = {"factor": "colour", "classes": 8, "accuracy": 0.1, "chance": 0.0, "score": 0.1}
    keep("run", "baselines", compact({"pixels": scores, "untrained": scores, "untrained_factors": [factor]}).encode())
    keep("engines", "other", b'{"device 2":{"x":{"fallback":true,"engine":0}},"device":{}}')


def main():
    run_files(CORPUS.parent.parent / "target/release/disentangle")
    all_pictures = dict(pictures())
    for name, content in all_pictures.items():
        keep("decode", name, content)

    picture = all_pictures["l.png"]
    labelled = [("set/a/1.png", picture), ("set/a/2.jpg", all_pictures["grey.jpg"]), ("set/b/1.png", picture)]
    keep("tar", "labelled.tar", archive(labelled))
    keep("tar", "labelled.tar.gz", gzip.compress(archive(labelled), mtime=0))
    keep("tar", "flat.tar", archive([("1.png", picture), ("notes.txt", b"no picture")]))
    keep("tar", "splits.tar", archive([("train/a/1.png", picture), ("test/b/1.png", picture)]))
    odd = [("../1.png", picture), ("/1.png", picture), ("a/../1.png", picture), ("l.png", "/etc/passwd"), ("x.png", b"")]
    keep("tar", "odd_names.tar", archive([*odd, ("1.png", picture), ("1.png", picture), ("._1.png", picture)]))
    long_name = "/".join(["folder"] * 30) + "/\u00e9.png"
    keep("tar", "gnu_long_name.tar", archive([(long_name, picture)], tarfile.GNU_FORMAT))
    keep("tar", "pax_long_name.tar", archive([(long_name, picture)], tarfile.PAX_FORMAT))
    record = bytes([3]) + random.randbytes(3072)
    keep("tar", "cifar.tar", archive([("c/data_batch_1.bin", record), ("c/batches.meta.txt", b"plane\ncar\n")]))

    names = b"\x1b[2J\nc\xff\n"
    keep("tar", "cifar_odd_classes.tar", archive([("data_batch_1.bin", record), ("batches.meta.txt", names)]))

    keep("cifar", "ten", bytes([0]) + record)
    keep("cifar", "ten_and_a_half", bytes([0]) + record + record[:1500])
    keep("cifar", "hundred_coarse", bytes([1, 19]) + bytes([99]) + bytes(3072))
    keep("cifar", "hundred_fine", bytes([3, 0]) + bytes([7]) + bytes(3072))
    keep("cifar", "bad_label", bytes([0, 10]) + bytes(3072) + bytes(3073))
    keep("cifar", "no_test_part", bytes([4]) + bytes(3073))

    images = numpy.arange(3 * 4 * 5 * 3, dtype=numpy.uint8).reshape(3, 4, 5, 3)
    array = lambda values: saved(numpy.ascontiguousarray(values))
    keep("npy", "rgb", array(images))
    keep("npy", "grey", array(images[..., 0]))
    keep("npy", "labelled", array(images) + array(numpy.array([1, 0, -1])))
    keep("npy", "column_of_bytes", array(images[..., :1]) + array(numpy.array([[2], [2], [3]], numpy.uint8)))
    keep("npy", "fortran", saved(numpy.asfortranarray(images)))

    keep("list", "plain", b"\0a.png 1\nb.png 0\n")
    keep("list", "tabs", b"\1# pictures\n./a.png\tcat\nb.png\tdog\nb.png\tcat\nmissing.png\n")
    keep("list", "csv", b"\2a.png,cat\n\"b.png\",\"a, \"\"dog\"\"\"\n")
    keep("list", "header", b"\2id,label,path\n1,-1,a.png\n2,7,b.png\n")
    keep("list", "tsv", b"\3\xef\xbb\xbfb.png\t3\r\na.png\r\n")

    image = random.randbytes(64) * (3 * 96 * 96 // 64)
    keep("stl10", "labelled", bytes([1 << 1, 10]) + image)
    keep("stl10", "unlabelled", bytes([1]) + image + image[:100])
    keep("stl10", "bad_label", bytes([2 << 1, 0, 3]) + image + image[:1])

    with tempfile.TemporaryDirectory() as folder:
        for name in ["cats/grey.jpg", "cats/l.png", "dogs/rgb.png"]:
            path = pathlib.Path(folder) / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(all_pictures[path.name])
        program = CORPUS.parent.parent / "target/release/disentangle"
        for name, sources, options in [
            ("raw", ["set"], []),
            ("jpeg", ["set"], ["--payload", "jpeg"]),
            ("factors", ["shapes:2"], ["--resize-short", "3"]),
        ]:
            subprocess.run([program, "pack", *sources, name, *options], cwd=folder, check=True, capture_output=True)
            keep("packed", name, (pathlib.Path(folder) / name).read_bytes())


def saved(values):
    file = io.BytesIO()
    numpy.save(file, values)
    return file.getvalue()


main()
