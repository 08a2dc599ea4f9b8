"""A hash of the weights in a checkpoint, whatever else stands in it."""

import hashlib
import json
import struct


def digest(path):
    """Of every tensor of a safetensors file: name, type, shape and bytes, in the order of names."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    data, sha = memoryview(content)[8 + length :], hashlib.sha256()
    for name in sorted(header):
        entry = header[name]
        first, last = entry["data_offsets"]
        sha.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        sha.update(data[first:last])
    return sha.hexdigest()[:32]


def newest_checkpoint(run):
    """Of a run's folder."""
    found = sorted(run.glob("*.safetensors"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not found:
        raise FileNotFoundError(f"no checkpoint in {run}")
    return found[-1]
