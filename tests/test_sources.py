"""Sources of pictures: folders, lists and TensorFlow Datasets, and files that cannot be used."""

import pytest
from data_streams import (
    encode,
    evaluation,
    noise,
    numbers,
    take,
    training,
    transparent_images,
    write_pictures,
)
from PIL import Image

from deepfill_jax.data import files, sources
from deepfill_jax.errors import UsageError


def test_transparent_files_are_left_out_and_counted(tmp_path, caplog):
    write_pictures(tmp_path, 3)
    images = transparent_images()
    for name, encoded in images.items():
        (tmp_path / name).write_bytes(encoded)
    (tmp_path / "text.jpg").write_text("not an image")
    source = sources.open_source(f"folder:{tmp_path}")
    assert len(source) == 3 and len(source.left_out) == len(images) + 1
    unreadable, transparent = (x.getMessage() for x in caplog.records if x.levelname == "WARNING")
    assert "left out 1 of 13 image files that cannot be read: " in unreadable
    assert f"left out {len(images)} of 13 image files that have transparent pixels" in transparent
    assert all(name in transparent for name in images) and "text.jpg" not in transparent


def test_file_that_becomes_transparent_is_replaced_by_the_next(tmp_path, caplog):
    source = write_pictures(tmp_path, 2)
    Image.new("RGBA", (20, 20)).save(tmp_path / "00.png")
    assert numbers(evaluation(source, batch_size=2)) == [1, 1]
    assert "00.png can no longer be used" in caplog.text and "transparent pixels" in caplog.text


def test_folder_is_searched_recursively_and_sorted(tmp_path):
    for name in ("b/2.png", "a/deeper/1.JPG", "c.bmp", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("not an image")
        else:
            Image.new("RGB", (8, 8)).save(tmp_path / name)
    source = sources.open_source(f"folder:{tmp_path}")
    assert source.name == f"folder:{tmp_path}" and len(source) == 3
    assert list(source.paths) == [str(tmp_path / p) for p in ("a/deeper/1.JPG", "b/2.png", "c.bmp")]


def test_unreadable_files_are_left_out_and_listed_once(tmp_path, caplog):
    write_pictures(tmp_path, 3)
    jpeg = encode(Image.fromarray(noise(64, 64)), "JPEG")
    (tmp_path / "whole.jpg").write_bytes(jpeg)
    (tmp_path / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    source = sources.open_source(f"folder:{tmp_path}")
    assert len(source) == 4
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "left out 3 of 7" in warning
    assert all(name in warning for name in ("half.jpg", "text.jpg", "empty.png"))
    assert "whole.jpg" not in warning


def test_warning_names_at_most_ten_unreadable_files(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(files, "MAX_MISSING", 1.0)
    write_pictures(tmp_path, 1)
    for i in range(12):
        (tmp_path / f"bad{i}.png").write_text("not an image")
    assert len(sources.open_source(f"folder:{tmp_path}")) == 1
    assert "left out 12 of 13" in caplog.text
    assert caplog.text.count(".png") == files._MAX_NAMED_FILES == 10


def test_list_keeps_its_order(tmp_path, caplog):
    write_pictures(tmp_path / "pictures", 3)
    lines = ["# comment", "pictures/02.png", "", f"{tmp_path}/pictures/00.png", "pictures/gone.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    source = sources.open_source(f"flist:{tmp_path}/list.txt")
    assert numbers(evaluation(source, batch_size=1)) == [2, 0]
    assert "left out 1 of 3" in caplog.text and "gone.png" in caplog.text


def test_identity_does_not_depend_on_the_parent_folder(tmp_path):
    for host in "ab":
        write_pictures(tmp_path / host, 3)
    identity = {host: sources.open_source(f"folder:{tmp_path / host}").identity() for host in "ab"}
    assert identity["a"] == identity["b"]
    (tmp_path / "b" / "01.png").write_text("not an image")
    assert sources.open_source(f"folder:{tmp_path / 'b'}").identity() != identity["a"]


@pytest.mark.parametrize(
    "spec, message",
    [
        ("folder:{}/missing", "there is no folder .*missing"),
        ("folder:{}/empty", "0 image files were found, but none can be used;"),
        ("folder:{}/bad", "1 image files were found, but none can be used;"),
        (
            "folder:{}/clear",
            "1 image files were found, but none can be used: 1 of them has transparent",
        ),
        ("flist:{}/missing.txt", "missing.txt cannot be read"),
        ("flist:{}/bad/bad.png", "1 image files were found, but none can be used"),
        ("flist:{}/empty", "empty cannot be read"),
        ("{}", "none of the forms folder:PATH, flist:FILE"),
        ("folder:", "none of the forms"),
        ("tfds:", "none of the forms"),
    ],
)
def test_unusable_sources_are_refused(tmp_path, spec, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/bad.png").write_bytes(b"\xff\xfe not an image")
    (tmp_path / "clear").mkdir()
    Image.new("RGBA", (20, 20)).save(tmp_path / "clear" / "clear.png")
    with pytest.raises(UsageError, match=message):
        sources.open_source(spec.format(tmp_path))


def test_file_that_becomes_unreadable_is_replaced_by_the_next(tmp_path, caplog):
    source = write_pictures(tmp_path, 5)
    for name in ("01.png", "04.png"):
        (tmp_path / name).write_text("not an image")
    (tmp_path / "02.png").unlink()
    for _ in range(2):
        assert numbers(evaluation(source, batch_size=5)) == [0, 3, 3, 3, 0]
    assert sorted(numbers(take(5, training(source, batch_size=1)))) == [0, 0, 3, 3, 3]
    assert caplog.text.count("can no longer be used") == 3


def test_lost_disk_raises_usage_error(tmp_path):
    source = write_pictures(tmp_path, 3)
    batches = training(source)
    next(batches)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="can be read any more"):
        take(50, batches)
