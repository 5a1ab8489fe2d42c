"""What a system is (`spec`), and the life that all systems share: files, references, prediction, steps, results."""

from referencenet.pipelines.films import FilmOutput, FilmPipeline
from referencenet.pipelines.lifecycle import ReferencePipeline
from referencenet.pipelines.options import FilmOptions, Options, PictureOptions
from referencenet.pipelines.passes import Guidance, Pass, TwoWay, reading_plan
from referencenet.pipelines.pictures import PicturePipeline
from referencenet.pipelines.spec import Canvas, Condition, EachStep, Once, Shown, Spec

__all__ = [
    "Canvas",
    "Condition",
    "EachStep",
    "FilmOptions",
    "FilmOutput",
    "FilmPipeline",
    "Guidance",
    "Once",
    "Options",
    "Pass",
    "PictureOptions",
    "PicturePipeline",
    "ReferencePipeline",
    "Shown",
    "Spec",
    "TwoWay",
    "reading_plan",
]
