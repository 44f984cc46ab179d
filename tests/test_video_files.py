"""Video files: what was written is read again, to the frame; damage is one line."""

import av
import numpy as np
import pytest

from smolvla_core.data.video_files import frames_at, inspect_video, write_hevc
from smolvla_core.errors import DataError

TOLERANCE = 1e-4


def pictures(frames=25, height=64, width=96, seed=0):
    """Frame t is a grey of 8 t with a bright square that moves."""
    shown = []
    for t in range(frames):
        picture = np.full((height, width, 3), 8 * t, dtype=np.uint8)
        picture[8:24, 2 * t : 2 * t + 16] = (250, 40, 90)
        shown.append(picture)
    return shown


def greys(shown):
    return [int(round(float(picture[40:].mean()) / 8)) for picture in shown]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64), (64, 96), (480, 640)])
def test_hevc_round_trip(tmp_path, height, width):
    path = tmp_path / "deep" / "clip.mp4"
    shown = pictures(25, height, width)
    write_hevc(path, shown, 30)
    facts = inspect_video(path)
    assert (facts.frames, facts.height, facts.width, facts.codec, facts.pix_fmt) == (
        25,
        height,
        width,
        "hevc",
        "yuv420p",
    )
    np.testing.assert_allclose(facts.seconds, np.arange(25) / 30, atol=1e-6)
    decoded = frames_at(path, facts.seconds.tolist(), TOLERANCE)
    assert greys(decoded) == list(range(25)) if height > 40 else True
    worst = max(float(np.abs(a.astype(int) - b).mean()) for a, b in zip(decoded, shown, strict=True))
    assert worst < 4


def test_another_pixel_format_and_rate(tmp_path):
    write_hevc(tmp_path / "clip.mp4", pictures(5), 15, "yuv444p")
    facts = inspect_video(tmp_path / "clip.mp4")
    assert facts.pix_fmt == "yuv444p"
    np.testing.assert_allclose(np.diff(facts.seconds), 1 / 15, atol=1e-6)


def test_the_same_pictures_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_hevc(tmp_path / name / "clip.mp4", pictures(), 30)
    assert (tmp_path / "a/clip.mp4").read_bytes() == (tmp_path / "b/clip.mp4").read_bytes()


def test_single_pictures_in_any_place(tmp_path):
    path = tmp_path / "clip.mp4"
    write_hevc(path, pictures(), 30)
    seconds = inspect_video(path).seconds
    for frame in (0, 9, 10, 11, 24):
        assert greys(frames_at(path, [seconds[frame]], TOLERANCE)) == [frame]
    with pytest.raises(DataError, match=r"no whole picture at 0.017 s"):
        frames_at(path, [0.5 / 30], TOLERANCE)
    with pytest.raises(DataError, match=r"no whole picture at 9.000 s"):
        frames_at(path, [9.0], TOLERANCE)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_pictures_between_open_groups(tmp_path, codec):
    """Other people's encoders let pictures before a key frame refer to it: seeking lands behind them."""
    path = tmp_path / "clip.mp4"
    options = {"x265-params": "log-level=none:keyint=8:min-keyint=8:open-gop=1:bframes=3", "preset": "medium"}
    options |= {"x264-params": "keyint=8:min-keyint=8:open-gop=1:bframes=3"}
    encode(path, pictures(30), codec, options)
    seconds = inspect_video(path).seconds
    assert len(seconds) == 30
    assert greys(frames_at(path, seconds.tolist(), TOLERANCE)) == list(range(30))


def damaged(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "cut off":
        content = content[: len(content) // 2]
    elif kind == "empty":
        content = bytearray()
    elif kind == "text":
        content = bytearray(b"<html>404 not found</html>" * 40)
    elif kind == "zeros":
        content[:] = bytes(len(content))
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["cut off", "empty", "text", "zeros"])
def test_what_is_no_video_is_one_line(tmp_path, kind, capfd):
    path = tmp_path / "clip.mp4"
    write_hevc(path, pictures(), 30)
    damaged(path, kind)
    with pytest.raises(DataError, match=r"clip.mp4: the video cannot be read \(.*\); download it again") as caught:
        inspect_video(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # FFmpeg adds nothing of its own


def test_damage_inside_is_found_by_decoding(tmp_path):
    path = tmp_path / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (25, 64, 96, 3), dtype=np.uint8)
    write_hevc(path, noise, 30)
    spoil(path, 4000)
    facts = inspect_video(path)
    assert facts.frames == 25
    with pytest.raises(DataError, match=r"a picture cannot be decoded \(.*\); download it again"):
        frames_at(path, facts.seconds.tolist(), TOLERANCE)


def test_a_picture_that_the_decoder_had_to_make_up_is_no_picture(tmp_path):
    path = tmp_path / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (25, 64, 96, 3), dtype=np.uint8)
    encode(path, noise, "libx264", {"g": "10"})
    spoil(path, 20)
    with pytest.raises(DataError, match=r"no whole picture at \d.\d+ s; download the video again"):
        frames_at(path, inspect_video(path).seconds.tolist(), TOLERANCE)


def spoil(path, count):
    """Turn the bits of some bytes in the middle."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + count] = bytes(255 - byte for byte in content[middle : middle + count])
    path.write_bytes(content)


def encode(path, shown, codec, options):
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = *shown[0].shape[:2], "yuv420p"
        for picture in shown:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())


def test_missing_and_soundtrack_only(tmp_path):
    with pytest.raises(DataError, match="the video is missing"):
        inspect_video(tmp_path / "none.mp4")
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with pytest.raises(DataError, match="holds no video stream"):
        inspect_video(path)


@pytest.mark.parametrize("pixels", [32, 48])
def test_so_do_small_ones(tmp_path, pixels):
    """x265 left to itself reads memory that was never written where pictures are small."""
    texture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    texture = np.kron(texture, np.ones((8, 8, 1), dtype=np.uint8))
    shown = [texture[t : t + pixels, 2 * t : 2 * t + pixels] for t in range(90)]
    for name in "abcd":
        write_hevc(tmp_path / f"{name}.mp4", shown, 30)
    assert len({(tmp_path / f"{name}.mp4").read_bytes() for name in "abcd"}) == 1
