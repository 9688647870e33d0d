"""HDF5 files, as much of the format as Keras' files of weights use, read without its library.

The library follows a file into other files, and a damaged one into endless loops. This reader
knows groups, names in attributes and plain arrays of floats, and refuses everything else.
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import math
import struct
from collections.abc import Iterator

import numpy as np

MAGIC = b"\x89HDF\r\n\x1a\n"
# Kinds of messages, by their numbers in the format.
DATASPACE, DATATYPE, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE = 0x1, 0x3, 0x7, 0x8, 0xB, 0xC
CONTINUATION, GROUP = 0x10, 0x11
FLOAT, STRING, VARIABLE = 1, 3, 9
# The bits of the numbers of IEEE 754, as a datatype lists them after its size.
FLOATS = {
    struct.pack("<HHBBBBI", 0, 16, 10, 5, 0, 10, 15): "f2",
    struct.pack("<HHBBBBI", 0, 32, 23, 8, 0, 23, 127): "f4",
    struct.pack("<HHBBBBI", 0, 64, 52, 11, 0, 52, 1023): "f8",
}


class HDF5File:
    """The groups, names and arrays in the bytes of a file; objects are known by their address."""

    def __init__(self, data: bytes):
        self.data = data
        if not data.startswith(MAGIC):
            raise ValueError("it is not an HDF5 file")
        version, offset_size, length_size = data[8], *self.unpack("<13x2B", 0)
        if (version, offset_size, length_size) != (0, 8, 8):
            raise ValueError(f"it must be of version 0 with 8 bytes an address, got {version}")
        base, _, end, _, _, self.root = self.unpack("<6Q", 24)
        if base or end > len(data):
            raise ValueError(f"it must have {end} bytes, got {len(data)}: the file is truncated")
        self.heaps: dict[int, dict[int, bytes]] = {}
        self.groups: dict[int, dict[str, int]] = {}
        self.objects: dict[int, tuple[dict[int, bytes], dict[bytes, list[bytes]]]] = {}
        # An honest file has each byte read once, but names twice: as bytes, then as texts.
        self.left = 2 * len(data)

    def take(self, start: int, size: int) -> bytes:
        """Return some bytes, which must be there."""
        if start + size > len(self.data):
            raise ValueError("it points beyond its end: the file is truncated or damaged")
        return self.data[start : start + size]

    def spend(self, size: int) -> None:
        """Count what is read: a small file may show the same bytes at a million places."""
        self.left -= size
        if self.left < 0:
            raise ValueError("its parts overlap: the file is damaged")

    def unpack(self, form: str, start: int) -> tuple[int, ...]:
        return struct.unpack(form, self.take(start, struct.calcsize(form)))

    def messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """Yield the kind and the bytes of all that is said of an object."""
        version, count, size = self.unpack("<BxH4xI", address)
        if version != 1:
            raise ValueError(f"an object must be of version 1, got {version}")
        blocks = [(address + 16, size)]
        while blocks and count:
            start, size = blocks.pop(0)
            end = start + size
            while start + 8 <= end and count:
                kind, size, flags = self.unpack("<HHB3x", start)
                body, start, count = self.take(start + 8, size), start + 8 + size, count - 1
                self.spend(8 + size)
                if flags & 2:
                    raise ValueError("it shares descriptions between objects")
                if kind == CONTINUATION:
                    blocks.append(struct.unpack("<2Q", body[:16]))
                yield kind, body

    def describe(self, address: int) -> tuple[dict[int, bytes], dict[bytes, list[bytes]]]:
        """Return what is said of an object by kind, and its attributes by name."""
        if address not in self.objects:
            said, attributes = {}, {}
            for kind, body in self.messages(address):
                said[kind] = body
                if kind == ATTRIBUTE:
                    name, *parts = parts_of(body)
                    attributes.setdefault(name, parts)
            self.objects[address] = said, attributes
        return self.objects[address]

    def links(self, address: int) -> dict[str, int]:
        """Return the address of each object in a group; a link to elsewhere has none."""
        if address not in self.groups:
            said, _ = self.describe(address)
            if GROUP not in said:
                raise ValueError("a group must have a table of its members")
            self.groups[address] = self.members(*struct.unpack("<2Q", said[GROUP][:16]))
        return self.groups[address]

    def members(self, tree: int, heap: int) -> dict[str, int]:
        """Read the table of a group: a tree, whose leaves point to names in a heap."""
        magic, names = self.unpack("<4s20xQ", heap)
        if magic != b"HEAP":
            raise ValueError("a group has no names")
        found = {}
        for leaf in self.leaves(tree):
            magic, count = self.unpack("<4s2xH", leaf)
            if magic != b"SNOD":
                raise ValueError("a group has a damaged table")
            self.spend(8 + 40 * count)
            for start in range(leaf + 8, leaf + 8 + 40 * count, 40):
                name, target, cached = self.unpack("<2QI", start)
                if cached != 2:  # that is a link by name, which may be of anything
                    found[self.text(names + name)] = target
        return found

    def leaves(self, tree: int) -> list[int]:
        """List the ends of a group's tree."""
        nodes, ends = [tree], []
        for node in nodes:
            magic, kind, level, count = self.unpack("<4s2BH", node)
            children = self.unpack(f"<{2 * count}Q", node + 24)[1::2]
            if magic != b"TREE" or kind != 0 or len(set(children)) < count:
                raise ValueError("a group has a damaged tree")
            # A damaged tree may grow into itself, until all is spent.
            self.spend(24 + 16 * count)
            (nodes if level else ends).extend(children)
        return ends

    def text(self, start: int) -> str:
        end = self.data.find(b"\0", start)
        if end < 0:
            raise ValueError("a name has no end: the file is damaged")
        self.spend(end - start)
        return self.data[start:end].decode("utf8")

    def names(self, address: int, attribute: str) -> list[str] | None:
        """Return the texts in an attribute of an object, or None where it has no such one."""
        self.spend(8)
        _, attributes = self.describe(address)
        parts = attributes.get(attribute.encode())
        return None if parts is None else self.texts(*parts)

    def texts(self, datatype: bytes, dataspace: bytes, raw: bytes) -> list[str]:
        """Return the elements of an array of texts, of a fixed length or in a heap."""
        kind, size = datatype[0] & 15, struct.unpack("<I", datatype[4:8])[0]
        count = math.prod(shape_of(dataspace))
        if count == 0:  # no names at all are an array of numbers
            return []
        if kind not in (STRING, VARIABLE) or not size or count * size > len(raw):
            raise ValueError("an attribute must hold names")
        items = [raw[start : start + size] for start in range(0, count * size, size)]
        if kind == VARIABLE:
            items = [self.in_heap(*struct.unpack("<IQI", item)) for item in items]
        # What has a name has an entry of 40 bytes in a group too.
        self.spend(sum(40 + len(item) for item in items))
        return [item.rstrip(b"\0").decode("utf8") for item in items]

    def in_heap(self, length: int, address: int, index: int) -> bytes:
        """Return one object of a heap, all of whose objects are read at its first use."""
        if address not in self.heaps:
            magic, size = self.unpack("<4s4xQ", address)
            if magic != b"GCOL":
                raise ValueError("a heap is damaged")
            found, start, end = {}, address + 16, address + min(size, len(self.data))
            while start + 16 <= end and (about := self.unpack("<H6xQ", start))[0]:
                self.spend(16 + about[1])
                found[about[0]] = self.take(start + 16, about[1])
                start += 16 + -(-about[1] // 8) * 8
            self.heaps[address] = found
        if index not in self.heaps[address]:
            raise ValueError("a heap is damaged")
        return self.heaps[address][index][:length]

    def array(self, address: int) -> np.ndarray:
        """Return an array of floats, which must lie in the file in one piece."""
        said, _ = self.describe(address)
        if {EXTERNAL, FILTERS} & set(said):
            raise ValueError("an array must lie in the file itself, not compressed")
        if not {DATASPACE, DATATYPE, LAYOUT} <= set(said):
            raise ValueError("an array must have a type, a shape and a place")
        datatype, shape, layout = said[DATATYPE], shape_of(said[DATASPACE]), said[LAYOUT]
        if datatype[0] & 15 != FLOAT or (name := FLOATS.get(datatype[8:20])) is None:
            raise ValueError("an array must be of floating-point numbers")
        dtype = np.dtype(("<", ">")[datatype[1] & 1] + name)
        size = math.prod(shape) * dtype.itemsize
        if layout[:2] == b"\3\0":
            raw = memoryview(layout)[4 : 4 + size]
        elif layout[:2] == b"\3\1":
            raw = memoryview(self.data)[(start := struct.unpack("<Q", layout[2:10])[0]) :][:size]
            raw = raw if start else b""
        else:
            raise ValueError("an array must lie in the file in one piece")
        if len(raw) != size:
            raise ValueError("an array is larger than its bytes: the file is truncated or damaged")
        return np.frombuffer(raw, dtype).reshape(shape)


def parts_of(attribute: bytes) -> list[bytes]:
    """Cut an attribute into its name, its type, its shape and its value."""
    version, *sizes = struct.unpack("<Bx3H", attribute[:8])
    pad = 8 if version == 1 else 1
    start, parts = 9 if version == 3 else 8, []
    for size in sizes:
        parts.append(attribute[start : start + size])
        start += -(-size // pad) * pad
    return [parts[0].rstrip(b"\0"), *parts[1:], attribute[start:]]


def shape_of(dataspace: bytes) -> tuple[int, ...]:
    version, rank = dataspace[:2]
    if version not in (1, 2):
        raise ValueError(f"a shape must be of version 1 or 2, got {version}")
    start = 8 if version == 1 else 4
    return struct.unpack(f"<{rank}Q", dataspace[start : start + 8 * rank])
