"""What DDS needs to be told so that images arrive, and arrive in time."""

from __future__ import annotations

import os
from pathlib import Path

PROFILES = Path(__file__).with_name("fastdds.xml")
# The second name is that of Fast DDS 2, in ROS 2 up to Jazzy.
VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
# Either is a user's own choice of transports.
OWN_CHOICE = (*VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")

ADVICE = (
    "best effort loses messages above about 0.5 MB between processes unless the publisher has room for them in shared "
    f"memory; make it reliable, or start it with {' and '.join(VARIABLES)} set to {PROFILES}"
)


def allow_large_messages() -> None:
    """Give this process, and those it starts, room for images in shared memory; call it before rclpy.init.

    Nothing is changed where the environment already chooses profiles or transports of Fast DDS.
    """
    if not any(name in os.environ for name in OWN_CHOICE):
        os.environ.update(dict.fromkeys(VARIABLES, str(PROFILES)))
