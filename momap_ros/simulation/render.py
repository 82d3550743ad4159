"""Colour, depth and body ids of a scene, by one OpenGL context per process."""

from __future__ import annotations

import atexit
import importlib
import os
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from momap_ros.data.sample import UInt8
from momap_ros.geometry import Float32
from momap_ros.simulation.cameras import View
from momap_ros.simulation.room import CAMERA

MIN_MEAN_LUMA = 45.0
_SHADOW_MAP_PIXELS = 1024  # a 4096 map takes five times as long and looks the same at these sizes
_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])
_BRIGHTER_AMBIENT = (0.0, 0.15, 0.35)  # added to the headlight until the image is not too dark
_CONTEXT_SIZE = 16  # the context's own window is never drawn to
_context: Any = None  # mujoco's GLContext; one per process, as making one takes 0.2 s


class SceneRenderer:
    """Renders one model in images of up to one size; call `close` when done to free its textures."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int, *, supersampling: int = 1) -> None:
        """Upload the model to the process's OpenGL context; each colour pixel averages `supersampling`^2 samples."""
        self._model, self._supersampling = model, supersampling
        visual = model.vis
        visual.global_.offwidth, visual.global_.offheight = width * supersampling, height * supersampling
        visual.quality.shadowsize = _SHADOW_MAP_PIXELS
        visual.quality.offsamples = 0  # multisampling would blend depths and ids at edges
        _ensure_context()
        self._gl = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._gl)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(CAMERA).id
        self._near_m = visual.map.znear * model.stat.extent
        self._far_m = visual.map.zfar * model.stat.extent
        self._body_of_geom = np.append(model.geom_bodyid, -1)  # index -1: no geom
        self._ambient = np.array(model.vis.headlight.ambient)

    def close(self) -> None:
        """Free what the model holds in the OpenGL context."""
        self._gl.free()

    def bright_rgb(self, data: mujoco.MjData, view: View) -> UInt8 | None:
        """As `rgb`, with more light where the mean luma is below MIN_MEAN_LUMA; None if that does not help.

        The light stays as found for calls of `rgb` that follow.
        """
        for extra in _BRIGHTER_AMBIENT:
            self._model.vis.headlight.ambient[:] = self._ambient + extra
            image = self.rgb(data, view)
            if float(image.mean((0, 1)) @ _LUMA_WEIGHTS) >= MIN_MEAN_LUMA:
                return image
        return None

    def rgb(self, data: mujoco.MjData, view: View) -> UInt8:
        """(H, W, 3) colour image."""
        self._update(data, view)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 1
        count, height, width = self._supersampling, view.camera.height, view.camera.width
        image = np.empty((height * count, width * count, 3), np.uint8)
        viewport = mujoco.MjrRect(0, 0, width * count, height * count)
        mujoco.mjr_render(viewport, self._scene, self._gl)
        mujoco.mjr_readPixels(image, None, viewport, self._gl)
        image = image[::-1]
        if count > 1:
            blocks = image.reshape(height, count, width, count, 3)
            image = blocks.mean((1, 3)).round().astype(np.uint8)
        return np.ascontiguousarray(image)

    def depth_and_bodies(self, data: mujoco.MjData, view: View) -> tuple[Float32, npt.NDArray[np.int32]]:
        """(H, W) depth in metres along optical z, and (H, W) body index, -1 where nothing is seen."""
        self._update(data, view)
        flags = self._scene.flags
        before = flags.copy()
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = 1
        flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        height, width = view.camera.height, view.camera.width
        colors = np.empty((height, width, 3), np.uint8)
        buffer = np.empty((height, width), np.float32)
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, self._scene, self._gl)
        mujoco.mjr_readPixels(colors, buffer, viewport, self._gl)
        flags[:] = before
        packed = colors[::-1].astype(np.int32)
        segments = packed[..., 0] + packed[..., 1] * 256 + packed[..., 2] * 65536
        bodies = self._body_of_geom[self._geom_of_segment()[segments]]
        return self._linear_depth(buffer[::-1]), bodies

    def _update(self, data: mujoco.MjData, view: View) -> None:
        """Rebuild the visual scene as seen by `view`."""
        mujoco.mjr_restoreBuffer(self._gl)  # another renderer may have drawn since
        pose, index = view.world_from_camera, self._camera.fixedcamid
        data.cam_xpos[index] = pose[:3, 3]
        data.cam_xmat[index] = (pose[:3, :3] * [1, -1, -1]).reshape(-1)  # OpenGL: x right, y up, z backward
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._options,
            mujoco.MjvPerturb(),
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        camera = view.camera
        near = self._near_m
        for eye in self._scene.camera:  # MuJoCo averages two eyes; both carry the frustum at the near plane
            eye.frustum_near, eye.frustum_far = near, self._far_m
            eye.frustum_top = near * (camera.cy + 0.5) / camera.fy
            eye.frustum_bottom = -near * (camera.height - 0.5 - camera.cy) / camera.fy
            eye.frustum_width = near * 0.5 * camera.width / camera.fx  # half the width, despite its name
            eye.frustum_center = near * (0.5 * camera.width - 0.5 - camera.cx) / camera.fx

    def _geom_of_segment(self) -> npt.NDArray[np.int32]:
        """Geom index of every segmentation colour of the current scene; -1 for none."""
        table = np.full(self._scene.ngeom + 1, -1, np.int32)
        for index in range(self._scene.ngeom):
            geom: Any = self._scene.geoms[index]
            if geom.segid != -1 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid + 1] = geom.objid
        return table

    def _linear_depth(self, buffer: Float32) -> Float32:
        """Metres from the depth buffer; inverts the projection, in double precision as the buffer is hyperbolic."""
        if self._gl.readDepthMap == mujoco.mjtDepthMap.mjDEPTH_ZEROFAR:
            buffer = 1 - buffer
        near, far = self._near_m, self._far_m
        slope = -(far + near) / (far - near) * 0.5 - 0.5
        offset = -(2 * far * near) / (far - near) * 0.5
        return np.asarray(offset / (buffer.astype(np.float64) + slope), np.float32)


def _ensure_context() -> None:
    global _context
    if _context is not None:
        return
    # mujoco.GLContext is fixed by MUJOCO_GL at the first import of mujoco, which need not have been ours.
    backend = os.environ.get("MUJOCO_GL", "glfw").lower()
    module = importlib.import_module(f"mujoco.{backend}")
    _context = module.GLContext(_CONTEXT_SIZE, _CONTEXT_SIZE)
    _context.make_current()
    atexit.register(_context.free)
