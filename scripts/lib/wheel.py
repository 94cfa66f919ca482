"""Reads torch and nvidia wheels: needed at set-up alone, with nothing but Python's own library.

usage: wheel.py requirements WHEEL all|cpu     the nvidia packages it asks for, one a line
       wheel.py unpack WHEEL OUT PREFIX...     its files below these prefixes, each checked
       wheel.py unresolved LIB DIR...          libraries that LIB and those it loads ask for in vain
"""
import base64
import csv
import hashlib
import io
import os
import re
import struct
import sys
import zipfile

# What the CPU part of a CUDA build loads; the rest is loaded by libtorch_cuda.so.
CPU_PART = ("cudart", "cuda-runtime", "cupti", "cuda-cupti")


def requirements(wheel, part):
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    for line in text.split("\n\n")[0].splitlines():
        if not line.startswith("Requires-Dist:"):
            continue
        requirement, _, marker = line[len("Requires-Dist:"):].partition(";")
        requirement = requirement.strip().replace(" ", "").replace("(", "").replace(")", "")
        if "extra" in marker:
            continue
        found = re.match(r"([A-Za-z0-9._-]+)(\[[^\]]*\])?(.*)", requirement)
        if not found:
            continue
        package, extras, version = found.groups()
        if package == "cuda-toolkit":
            names = (extras or "[]")[1:-1].split(",")
            if part == "cpu":
                names = [n for n in names if n in CPU_PART]
            print(f"cuda-toolkit[{','.join(names)}]{version}")
        elif package.startswith("nvidia-"):
            if part == "all" or any(word in package for word in CPU_PART):
                print(package + version)


def unpack(wheel, out, prefixes):
    with zipfile.ZipFile(wheel) as archive:
        record = next(n for n in archive.namelist() if n.endswith(".dist-info/RECORD"))
        digests = {}
        for row in csv.reader(io.StringIO(archive.read(record).decode())):
            if len(row) >= 2 and row[1]:
                digests[row[0]] = row[1]
        for entry in archive.infolist():
            name = entry.filename
            if entry.is_dir() or not any(name.startswith(p) for p in prefixes):
                continue
            target = os.path.normpath(os.path.join(out, name))
            if not target.startswith(os.path.normpath(out) + os.sep):
                sys.exit(f"{wheel}: '{name}' would leave the folder; the wheel is not to be trusted")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            digest = hashlib.sha256()
            with archive.open(entry) as source, open(target, "wb") as copy:
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    copy.write(chunk)
            wanted = digests.get(name, "")
            found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
            if wanted.startswith("sha256=") and wanted[len("sha256="):] != found:
                sys.exit(f"{wheel}: '{name}' does not have the digest that the wheel states; "
                         "run make setup again")


def needed(path):
    """The DT_NEEDED names of a 64-bit little-endian ELF file."""
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:4] != b"\x7fELF" or header[4] != 2:
            return []
        section_offset, = struct.unpack_from("<Q", header, 40)
        size, count = struct.unpack_from("<HH", header, 58)
        file.seek(section_offset)
        table = file.read(size * count)
        sections = [struct.unpack_from("<IIQQQQIIQQ", table, i * size) for i in range(count)]
        for section in sections:
            if section[1] != 6:  # SHT_DYNAMIC
                continue
            file.seek(section[4])
            entries = file.read(section[5])
            strings = sections[section[6]]
            file.seek(strings[4])
            names = file.read(strings[5])
            found = []
            for at in range(0, len(entries) - 15, 16):
                tag, value = struct.unpack_from("<qQ", entries, at)
                if tag == 1:  # DT_NEEDED
                    found.append(names[value:names.index(b"\0", value)].decode())
            return found
    return []


# In every Linux, or brought by the driver.
SYSTEM = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|util|z|cuda|nvidia-ml|mlx5"
                    r"|ibverbs|rdmacm|numa|fabric|pmix|mpi|efa|gdrapi)\.so(\.\d+)*)$")


def unresolved(library, folders):
    missing, seen, queue = set(), set(), [library]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in needed(path):
            if SYSTEM.match(name):
                continue
            places = [os.path.join(folder, name) for folder in folders]
            place = next((p for p in places if os.path.exists(p)), None)
            if place is None:
                missing.add(name)
            else:
                queue.append(place)
    for name in sorted(missing):
        print(name)


def main(words):
    if len(words) == 3 and words[0] == "requirements":
        requirements(words[1], words[2])
    elif len(words) >= 4 and words[0] == "unpack":
        unpack(words[1], words[2], tuple(words[3:]))
    elif len(words) >= 3 and words[0] == "unresolved":
        unresolved(words[1], words[2:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, zipfile.BadZipFile, StopIteration, struct.error) as error:
        sys.exit(f"{' '.join(sys.argv[1:3])}: {error or type(error).__name__}")
