"""Motion Map forecasting for ROS 2: where every point of a scene, and every object, is about to move."""

from pkgutil import extend_path

# The message generator installs momap_ros.msg under the same name, in another folder; this joins the two.
__path__ = extend_path(__path__, __name__)
