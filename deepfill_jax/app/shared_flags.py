"""The memory that the server and its worker process share."""

import ctypes


class Flags(ctypes.Structure):
    """Flags of the current job."""

    stop: bool  # Set by the server when the client no longer waits.
    # Whether the network is being compiled and run for the first time at an image's size.
    is_compiling: bool
    _fields_ = [("stop", ctypes.c_bool), ("is_compiling", ctypes.c_bool)]
