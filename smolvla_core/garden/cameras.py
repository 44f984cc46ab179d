"""Pictures of the robot's three cameras, without a screen.

On Linux through EGL, which Mesa also provides in software. Shadows, reflections and multisampling are
off: with them a picture takes ten times as long on a CPU.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from smolvla_core.errors import UserError
from smolvla_core.garden.robot import CAMERAS
from smolvla_core.r1pro import CAMERA_PIXELS

Picture = NDArray[np.uint8]

PACKAGES = "libegl1 libgl1-mesa-dri"
"""Debian's packages that pictures need."""
_MOST_SHAPES = 400
_GROUPS = (0, 1, 2)
"""Geom groups that are drawn."""


class NoDisplayError(UserError):
    """Pictures cannot be rendered on this machine."""


class Cameras:
    """Draws what the cameras see; one OpenGL context for all of them.

    Args:
        model: of the garden.
        pixels: pixels to a side of each camera, by BEHAVIOR's name.

    Raises:
        NoDisplayError: EGL is missing.
    """

    def __init__(self, model: mujoco.MjModel, pixels: Mapping[str, int] = CAMERA_PIXELS):
        self.pixels = dict(pixels)
        self._model = model
        widest = max(self.pixels.values())
        model.vis.global_.offwidth = model.vis.global_.offheight = widest
        self._gl: Any = _gl_context(widest)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=_MOST_SHAPES)
        for flag in ("SHADOW", "REFLECTION", "HAZE", "FOG"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = [int(group in _GROUPS) for group in range(len(self._option.geomgroup))]
        self._option.sitegroup[:] = 0
        self._view = mujoco.MjvCamera()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)

    def pictures(self, data: mujoco.MjData, names: Sequence[str] | None = None) -> dict[str, Picture]:
        """What cameras see, (H, W, 3) uint8 each, by BEHAVIOR's name of the camera."""
        self._gl.make_current()
        return {name: self._fixed(data, name) for name in (names or self.pixels)}

    def view(self, data: mujoco.MjData, size: tuple[int, int], lookat: Sequence[float], distance: float) -> Picture:
        """A bystander's look at a point, (H, W, 3); ``size`` is (width, height), at most the widest camera's."""
        self._gl.make_current()
        camera = mujoco.MjvCamera()
        camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = lookat, distance, 120.0, -28.0
        return self._draw(data, camera, *size)

    def close(self) -> None:
        """Free the context; a closed object draws nothing any more."""
        if self._gl is not None:
            self._gl.make_current()
            if hasattr(self, "_context"):
                self._context.free()
            self._gl.free()
            self._gl = None

    def __del__(self) -> None:
        # left to Python, the context would free its textures in whichever other context is current
        if getattr(self, "_gl", None) is not None and not sys.is_finalizing():
            self.close()

    def _fixed(self, data: mujoco.MjData, name: str) -> Picture:
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = self._model.camera(CAMERAS[name]).id
        return self._draw(data, self._view, self.pixels[name], self.pixels[name])

    def _draw(self, data: mujoco.MjData, camera: mujoco.MjvCamera, width: int, height: int) -> Picture:
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        rectangle = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(rectangle, self._scene, self._context)
        picture = np.empty((height, width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(picture, None, rectangle, self._context)
        return np.ascontiguousarray(picture[::-1])


def _gl_context(pixels: int) -> Any:
    try:
        return _context(pixels)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NoDisplayError(
            f"the garden's pictures need EGL, which does not start here ({reason}); on Debian and Ubuntu: "
            f"apt-get install {PACKAGES}"
        ) from None


def _context(pixels: int) -> Any:
    """EGL on Linux unless the user's ``MUJOCO_GL`` names another; elsewhere what MuJoCo finds."""
    if sys.platform == "linux" and os.environ.get("MUJOCO_GL", "").lower() in ("", "egl"):
        from mujoco.egl import GLContext
    else:
        from mujoco.gl_context import GLContext
    return GLContext(pixels, pixels)
