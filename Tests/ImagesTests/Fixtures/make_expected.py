"""Writes expected.txt: what OpenCV, NumPy and Pillow make of the images below.

Run in an environment with opencv-python-headless, numpy and pillow:
    python make_expected.py > expected.txt

A line is a kind, a name, sizes and values, separated by spaces. The pictures are given by a
formula, so that the Swift tests can make the same ones.
"""

import base64
import io
import math

import cv2
import numpy as np
from PIL import Image


def picture(width, height):
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((x * 7 + y * 13 + c * 29 + (x * y) % 31 * 5 + (x * x * 3 + y * c) % 17 * 4) % 256).astype(
        np.uint8
    )


def line(kind, *fields):
    print(kind, *fields)


def flat(array):
    return " ".join(str(v) for v in array.reshape(-1))


def floats(array):
    return " ".join(format(float(v), ".7g") for v in array.reshape(-1))


SIZES = [(5, 4, 9, 7), (13, 11, 6, 5), (31, 17, 31, 40), (40, 30, 7, 29), (3, 3, 63, 1), (1, 1, 4, 3)]

for sw, sh, dw, dh in SIZES:
    source = picture(sw, sh)
    # Bytes in, bytes out: OpenCV's own fixed-point kernel, without Intel's replacement for it.
    cv2.ipp.setUseIPP(False)
    line("cv2_bytes", sw, sh, dw, dh, flat(cv2.resize(source, (dw, dh), interpolation=cv2.INTER_LINEAR)))
    line(
        "cv2_floats", sw, sh, dw, dh,
        floats(cv2.resize(source.astype(np.float32), (dw, dh), interpolation=cv2.INTER_LINEAR)),
    )


def legacy(source, dw, dh):
    """TensorFlow 1's resize_images: source = target * (in / out)."""
    sh, sw, _ = source.shape
    out = np.zeros((dh, dw, 3), np.float32)
    source = source.astype(np.float64)
    for row in range(dh):
        y = row * (sh / dh)
        y0 = int(math.floor(y))
        y1 = min(y0 + 1, sh - 1)
        for column in range(dw):
            x = column * (sw / dw)
            x0 = int(math.floor(x))
            x1 = min(x0 + 1, sw - 1)
            top = source[y0, x0] + (source[y0, x1] - source[y0, x0]) * (x - x0)
            bottom = source[y1, x0] + (source[y1, x1] - source[y1, x0]) * (x - x0)
            out[row, column] = top + (bottom - top) * (y - y0)
    return out


for sw, sh, dw, dh in SIZES:
    line("tf1_floats", sw, sh, dw, dh, floats(legacy(picture(sw, sh), dw, dh)))


def crop(image, xmin, ymin, xmax, ymax, context, side):
    """The crop of REFERENCE 3.4: a square about the box, padded with the mean, resized."""
    w, h = xmax - xmin + 1, ymax - ymin + 1
    cx, cy = xmin + (w - 1) / 2, ymin + (h - 1) / 2
    s = int(np.round(np.sqrt((w + context * (w + h)) * (h + context * (w + h)))))
    left, top = int(np.round(cx - (s - 1) / 2)), int(np.round(cy - (s - 1) / 2))
    pad = max(s, 1) + abs(left) + abs(top)
    mean = image.mean(axis=(0, 1))
    padded = np.stack(
        [np.pad(image[:, :, c], pad, mode="constant", constant_values=int(mean[c])) for c in range(3)],
        axis=2,
    )
    patch = padded[top + pad : top + pad + s, left + pad : left + pad + s]
    return s, left, top, cv2.resize(patch, (side, side), interpolation=cv2.INTER_LINEAR)


FRAME = picture(60, 45)
for box in [(10, 12, 30, 25), (0, 0, 5, 40), (50, 35, 59, 44), (-3, 20, 8, 29), (20, 10, 21, 10), (7, 7, 7, 7)]:
    s, left, top, patch = crop(FRAME, *box, 0.01, 16)
    line("crop", *box, s, left, top, flat(patch))

buffer = io.BytesIO()
Image.fromarray(cv2.resize(picture(40, 30), (24, 16), interpolation=cv2.INTER_AREA)).save(
    buffer, "JPEG", quality=90, subsampling="4:2:0"
)
decoded = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
line("jpeg", base64.b64encode(buffer.getvalue()).decode(), 24, 16, flat(decoded))

grey = io.BytesIO()
Image.fromarray(picture(9, 8)[:, :, 0]).save(grey, "JPEG", quality=95)
decoded = np.asarray(Image.open(io.BytesIO(grey.getvalue())).convert("RGB"))
line("jpeg", base64.b64encode(grey.getvalue()).decode(), 9, 8, flat(decoded))

progressive = io.BytesIO()
Image.fromarray(picture(33, 20)).save(progressive, "JPEG", quality=80, progressive=True)
decoded = np.asarray(Image.open(io.BytesIO(progressive.getvalue())).convert("RGB"))
line("jpeg", base64.b64encode(progressive.getvalue()).decode(), 33, 20, flat(decoded))

cmyk = io.BytesIO()
Image.new("CMYK", (8, 8), (10, 20, 30, 40)).save(cmyk, "JPEG")
line("cmyk", base64.b64encode(cmyk.getvalue()).decode())
