"""CRC-32C, the checksum inside TensorFlow's checkpoints; Python's zlib has another polynomial.

numpy works on many pieces of the data at once and then joins their checksums: 120 MB take seconds.
Facts: RFC 3720, appendix B.4, and LevelDB's `util/crc32c.h` for the masking.
"""

import numpy as np

POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli's, bits reversed.
# After these bytes a register that began at 0 holds ones, as CRC-32C wants it at the data's start.
ONES = bytes.fromhex("54641F64")
BITS = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))


def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ POLYNOMIAL, table >> 1)
    return table


TABLE = _byte_table()


def crc32c(data: bytes) -> int:
    """The checksum of bytes."""
    message = np.frombuffer(ONES + data, np.uint8)
    pieces = 1 << (len(message).bit_length() // 2)
    length = -(-len(message) // pieces)
    # Zeros in front of everything leave the register at 0. The last 32 columns hold zeros and
    # begin with one bit each: they learn what passing a whole piece does to each bit.
    columns = np.zeros((pieces + 32, length), np.uint8)
    columns[:pieces].reshape(-1)[pieces * length - len(message) :] = message
    register = np.concatenate([np.zeros(pieces, np.uint32), BITS])
    for row in np.ascontiguousarray(columns.T):
        register = TABLE[(register ^ row) & 0xFF] ^ (register >> 8)
    register, passing = register[:pieces], register[pieces:]
    while len(register) > 1:  # Join neighbours: the first passes the second's length.
        register = _pass(register[::2], passing) ^ register[1::2]
        passing = _pass(passing, passing)
    return int(register[0]) ^ 0xFFFFFFFF


def _pass(registers: np.ndarray, passing: np.ndarray) -> np.ndarray:
    """What is left of registers after zeros; `passing` says it for each of the 32 bits."""
    return np.bitwise_xor.reduce(np.where(registers[:, np.newaxis] & BITS, passing, 0), axis=1)


def masked(checksum: int) -> int:
    """As it is stored beside the data: rotated and shifted, so that it is no checksum of itself."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF
