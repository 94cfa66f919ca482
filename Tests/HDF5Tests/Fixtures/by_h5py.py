"""Writes by_h5py.h5, which HDF5FileTests reads: python by_h5py.py (h5py 3, numpy)."""
import h5py
import numpy as np

with h5py.File("by_h5py.h5", "w") as file:
    numbers = np.arange(12, dtype=np.float64).reshape(4, 3) / 8
    file["emb"] = numbers.astype(np.float32)
    file["double"] = numbers
    file.create_dataset("packed", data=numbers.astype(np.float16), chunks=(2, 3), compression="gzip")
    file["identities"] = np.array([3, -1, 2**40], dtype=np.int64)
    file["bytes"] = np.array([b"a.jpg", b"longer/b.jpg", b""], dtype="S12")
    file["texts"] = ["é.jpg", "b", ""]
    file["one"] = np.float32(2.5)
    file["empty"] = np.zeros((0, 3), dtype=np.float32)
    file.create_group("group")
