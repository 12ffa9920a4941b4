"""The memory that the server and its worker process share."""

import ctypes


class Flags(ctypes.Structure):
    """Flags of the current job."""

    stop: bool  # Set by the server when the client no longer waits.
    # Batch size, height and width for which the network is being compiled and run for the first
    # time; zeros at other times.
    compiling: ctypes.Array[ctypes.c_int]
    _fields_ = [("stop", ctypes.c_bool), ("compiling", ctypes.c_int * 3)]
