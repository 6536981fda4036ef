"""An address at which metrics are served: HOST:PORT."""

from __future__ import annotations

import re
from typing import NamedTuple


class Address(NamedTuple):
    """A host and a port; as a string, HOST:PORT, with brackets around an IPv6 address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads `0.0.0.0:9101`, `localhost:9101` or `[::1]:9101`. Raises ValueError, which says what was expected."""
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})", text)
        if found is None or not 0 < int(found[3]) < 2**16:
            raise ValueError(f"HOST:PORT with a port from 1 to 65535, such as 127.0.0.1:9101, not {text!r}")
        return cls(found[1] or found[2], int(found[3]))

    def after(self, places: int) -> Address:
        """The address whose port is higher by `places`. Raises ValueError if there is no such port."""
        if self.port + places >= 2**16:
            raise ValueError(f"no port is left for worker {places} after {self}: the last one is 65535")
        return self._replace(port=self.port + places)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
