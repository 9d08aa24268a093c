"""Bodies that are too large for memory lie in files without a name: not too many at once, nor too much together."""

from __future__ import annotations

from attrs import define

#: Bytes of a body that are kept in memory.
IN_MEMORY = 65_536
#: All bodies in files have at most so many times what one may have.
TIMES = 32
#: One of so many connections may have its body in a file, which takes a descriptor.
PART = 8


@define
class Spools:
    """How many bodies are in files, and their bytes; with `most_files` None any number of them."""

    most_bytes: int
    most_files: int | None
    files: int = 0
    size: int = 0

    def begin(self) -> bool:
        """Whether there is room for one more file; whoever got it has to `end` it."""
        if self.most_files is not None and self.files >= self.most_files:
            return False
        self.files += 1
        return True

    def grow(self, count: int) -> bool:
        """Whether there is room for so many bytes more, which count from now on."""
        if self.size + count > self.most_bytes:
            return False
        self.size += count
        return True

    def end(self, size: int) -> None:
        """A file of so many bytes is gone."""
        self.files -= 1
        self.size -= size
