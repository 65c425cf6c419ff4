"""What only train.py needs: data sets and training."""

import time

#: When the process was about to import torch, in the seconds of time.monotonic(): --minutes counts from here.
STARTED = time.monotonic()
