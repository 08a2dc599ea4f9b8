"""Writes the first inputs of every target into fuzz/corpus (Pillow 13): small ones that are right, from which the fuzzer
makes wrong ones. No photographs: ramps and noise. What it found later lies beside them under the name of its digest."""

import gzip
import io
import pathlib
import random
import tarfile

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


def main():
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

    keep("cifar", "ten", bytes([0]) + record)
    keep("cifar", "ten_and_a_half", bytes([0]) + record + record[:1500])
    keep("cifar", "hundred_coarse", bytes([1, 19]) + bytes([99]) + bytes(3072))
    keep("cifar", "hundred_fine", bytes([3, 0]) + bytes([7]) + bytes(3072))
    keep("cifar", "bad_label", bytes([0, 10]) + bytes(3072) + bytes(3073))
    keep("cifar", "no_test_part", bytes([4]) + bytes(3073))


main()
