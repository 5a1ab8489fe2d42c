"""Small networks that diffusers has not."""

from referencenet.networks.observer import Observation, Observer
from referencenet.networks.pose_guider import PoseContext, PoseGuider

__all__ = ["Observation", "Observer", "PoseContext", "PoseGuider"]
