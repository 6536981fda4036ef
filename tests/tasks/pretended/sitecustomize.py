"""Python imports this module when it starts. It prints the environment when the import of torch begins."""

from __future__ import annotations

import os
import sys


class Watch:
    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "torch":
            seen = [os.environ.get(variable) for variable in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")]
            print("torch would see", *seen, file=sys.__stderr__, flush=True)


sys.meta_path.insert(0, Watch)  # type: ignore[arg-type]  # it finds nothing
