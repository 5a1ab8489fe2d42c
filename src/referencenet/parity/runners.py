"""Which runner produces the outputs of which case: one row per (method, kind) of case.json."""

from collections.abc import Callable, Mapping

from referencenet.parity import animate_anyone_runner as animate_anyone
from referencenet.parity import flashface_runner as flashface
from referencenet.parity import idm_vton_runner as idm_vton
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.reference_runner import Produced, run_reference

Runner = Callable[[Case], Produced]

RUNNERS: Mapping[tuple[str, str], Runner] = {
    ("reference_only", "reference"): run_reference,
    ("reference_adain", "reference"): run_reference,
    ("animate_anyone", "pose"): animate_anyone.run_pose,
    ("animate_anyone", "motion"): animate_anyone.run_motion,
    ("animate_anyone", "step"): animate_anyone.run_step,
    ("animate_anyone", "sample"): animate_anyone.run_sample,
    ("animate_anyone", "reenact"): animate_anyone.run_reenact,
    ("animate_anyone", "context"): animate_anyone.run_context,
    ("animate_anyone", "train"): animate_anyone.run_train,
    ("flashface", "attention-block"): flashface.run_attention_block,
    ("flashface", "norm-epsilon"): flashface.run_norm_epsilon,
    ("flashface", "schedule"): flashface.run_schedule,
    ("flashface", "face-mask"): flashface.run_face_mask,
    ("flashface", "step-two-way"): flashface.run_step,
    ("flashface", "step-three-way"): flashface.run_step,
    ("flashface", "sample"): flashface.run_sample,
    ("flashface", "vae"): flashface.run_vae,
    ("flashface", "clip-text"): flashface.run_clip_text,
    ("idm_vton", "resampler"): idm_vton.run_resampler,
    ("idm_vton", "garmentnet"): idm_vton.run_garmentnet,
    ("idm_vton", "tryonnet"): idm_vton.run_tryonnet,
    ("idm_vton", "sample"): idm_vton.run_sample,
    ("idm_vton", "mask"): idm_vton.run_mask,
    ("idm_vton", "train"): idm_vton.run_train,
}


def find_runner(method: str, kind: str) -> Runner:
    """Return the runner of a method's kind of case.

    Raises:
        CaseError: none is known for them.
    """
    runner = RUNNERS.get((method, kind))
    if runner is None:
        known = ", ".join("/".join(row) for row in sorted(RUNNERS))
        raise CaseError(f"no runner for {method}/{kind}; this version knows {known}")
    return runner
