import json
import subprocess
import sys
from pathlib import Path

STARTS = Path(__file__).parents[1] / "benchmarks/starts.py"


def test_second_start_reads_no_image(tmp_path):
    command = [sys.executable, STARTS, "--files", "40", "--folder", tmp_path]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    first, second = map(json.loads, printed.splitlines())
    assert (first["start"], second["start"]) == ("first", "second")
    assert first["files"] == second["files"] == 40
    assert second["megabytes_read"] < first["megabytes_read"]
