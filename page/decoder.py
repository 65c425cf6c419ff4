"""The process behind decoding.py."""

from __future__ import annotations

import math
import pickle
import sys
import types
from pathlib import Path

try:
    import resource
except ImportError:  # Windows, where decoding.py's own clock is the only limit
    resource = None


def serve(seconds: int, memory: int) -> None:
    """Answer (function of unet.images, path, options), pickled."""
    if resource:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    package = types.ModuleType("unet")  # without its __init__, which imports torch
    package.__path__ = [str(Path(__file__).parents[1] / "unet")]
    sys.modules["unet"] = package
    from unet import images

    requests, answers, sys.stdout = sys.stdin.buffer, sys.stdout.buffer, sys.stderr
    while True:
        try:
            function, path, options = pickle.load(requests)
        except EOFError:
            return
        notes: list[str] = []
        if function != "image_size":
            options["notify"] = notes.append
        if resource:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            limit = math.ceil(usage.ru_utime + usage.ru_stime) + seconds  # its signal ends the process
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            result = getattr(images, function)(path, **options)
        except images.ImageError as error:
            result = error
        except MemoryError:
            result = images.ImageError(f"{Path(path).name!r} needs more memory than there is: make it smaller first.")
        pickle.dump((result, notes), answers, protocol=5)
        answers.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
