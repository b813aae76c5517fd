"""Small files in the formats of the real ones."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01443537", "n01629819")


def idx(data: bytes, *shape: int, magic: bytes = b"\0\0\x08") -> bytes:
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def cifar_pickle(labels: list[int], pixels: bytes, names: tuple[str, ...] = ("labels",)) -> bytes:
    """Write what Python 2 wrote: its instructions, in its order."""

    def string(text: bytes) -> bytes:
        return (
            b"U" + bytes([len(text)]) + text
            if len(text) < 256
            else b"T" + struct.pack("<i", len(text)) + text
        )

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
        + b"(K\x01M"
        + struct.pack("<H", len(labels))
        + b"M\x00\x0c\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + string(pixels)
        + b"tb"
    )
    listed = b"]q\x03(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    lists = b"".join(string(name.encode()) + b"q\x02" + listed for name in names)
    return (
        b"\x80\x02}q\x01(" + string(b"batch_label") + string(b"x") + lists + string(b"data") + array + b"u."
    )


def picture(width: int, height: int, mode: str = "RGB", kind: str = "PNG", seed: int = 0) -> bytes:
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode).save(out, kind)
    return out.getvalue()


def tiny_imagenet(folder: Path) -> Path:
    """Lay out two classes of three pictures, one of them grey; two pictures to test, one without label."""
    (folder / "wnids.txt").parent.mkdir(parents=True, exist_ok=True)
    (folder / "wnids.txt").write_text("\n".join(WNIDS))
    for wnid in WNIDS:
        inner = folder / "train" / wnid / "images"
        inner.mkdir(parents=True)
        for number in (0, 2, 10):
            mode = "L" if number == 2 else "RGB"
            (inner / f"{wnid}_{number}.JPEG").write_bytes(picture(64, 64, mode, "JPEG", number))
    for name in ("val", "test"):
        (folder / name / "images").mkdir(parents=True)
    lines = [f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63" for number, wnid in enumerate(reversed(WNIDS))]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    for number in range(2):
        (folder / "val" / "images" / f"val_{number}.JPEG").write_bytes(picture(64, 64, "RGB", "JPEG", number))
    (folder / "test" / "images" / "test_0.JPEG").write_bytes(picture(64, 64, "RGB", "JPEG"))
    return folder


CENSUS = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, "
    "2174, 0, 40, United-States, {}\n"
    "50, ?, 83311, Bachelors, 13, Married-civ-spouse, ?, Husband, White, Female, 0, 0, 13, ?, {}\n\n"
)


def census(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adult.data").write_text(CENSUS.format("<=50K", ">50K"))
    (folder / "adult.test").write_text("|1x3 Cross validator\n" + CENSUS.format("<=50K.", ">50K."))
    return folder
