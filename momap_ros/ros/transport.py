"""What DDS needs to be told so that images arrive."""

from __future__ import annotations

import os

# Fast DDS's shared memory holds 512 kB by default: best effort then loses nearly every message above that size on the
# way to another process. It is the publisher's setting that counts.
VARIABLE = "FASTDDS_BUILTIN_TRANSPORTS"
LARGE_MESSAGES = "DEFAULT?sockets_size=16MB"

ADVICE = (
    "best effort loses messages above about 0.5 MB between processes unless the publisher runs with "
    f"{VARIABLE}='{LARGE_MESSAGES}'; make it reliable, or start it with that variable"
)


def allow_large_messages() -> None:
    """Let what this process publishes reach best-effort subscribers in other processes; call it before rclpy.init."""
    os.environ.setdefault(VARIABLE, LARGE_MESSAGES)
