"""RGB-D images in, label images with stable instance ids out."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle.publisher import LifecyclePublisher
from sensor_msgs.msg import Image

from momap_ros.config import NodeConfig, SegmentationConfig
from momap_ros.ros.camera_inputs import CameraMessages
from momap_ros.ros.conversions import labels_to_msg
from momap_ros.ros.diagnostics import release_gpu_memory
from momap_ros.ros.frame_node import FrameNode
from momap_ros.ros.managed_node import run_nodes
from momap_ros.ros.segmenting import StableSegmenter


class SegmentationNode(FrameNode):
    """Publishes ~/instances: 16UC1, 0 = no instance, with the header of the colour image."""

    def __init__(self, **node_arguments: Any) -> None:  # noqa: ANN401  (rclpy's own arguments)
        """Declare parameters."""
        super().__init__("segmentation_node", [NodeConfig, SegmentationConfig], **node_arguments)
        self._segmenter: StableSegmenter | None = None
        self._publisher: LifecyclePublisher | None = None

    def configure(self) -> None:
        """Load the segmenter and advertise."""
        self._segmenter = self.load_segmenter()
        self._publisher = self.create_output(Image, "~/instances")

    def cleanup(self) -> None:
        """Free the segmenter."""
        if self._publisher is not None:
            self.destroy_lifecycle_publisher(self._publisher)
            self._publisher = None
        self._segmenter = None
        release_gpu_memory()

    def forget(self) -> None:
        """Ids start anew with the next frame."""
        if self._segmenter is not None:
            self._segmenter.reset()

    def process(self, messages: CameraMessages) -> None:
        """Segment one frame and publish it, also where there is no instance."""
        if self._segmenter is None or self._publisher is None:
            return
        frame = self.decode(messages)
        with self.statistics.stage("instances"):
            instances = self._segmenter(frame, self.parameters.read(SegmentationConfig))
        with self.statistics.stage("publish"):
            self._publisher.publish(labels_to_msg(instances, messages.color.header))


def main(args: list[str] | None = None) -> int:
    """Run the node; args as in sys.argv. Returns the exit code."""
    return run_nodes(lambda: [SegmentationNode()], args)
