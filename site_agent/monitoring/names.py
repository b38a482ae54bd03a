"""Every metric of a site. docs/monitoring.md has the same rows; all have the labels `federation` and `site`, too."""

from __future__ import annotations

from collections.abc import Mapping

from fedcervix.monitoring.declared import Declared
from fedcervix.monitoring.home_metrics import COMMON

GPU = ("gpu",)

UP = Declared("agent_up", "1: an agent works on the home folder; 0: none does.")
CONNECTED = Declared("agent_connected", "1: the agent is connected to the coordinator; 0: it is not.")
LINE_SINCE = Declared("agent_line_since_timestamp_seconds", "Since when it is connected, or is not.")
TROUBLE = Declared("agent_trouble", "1: the agent is in a trouble that is not over; 0: it is in none.")
INCIDENT = Declared("agent_last_incident_timestamp_seconds", "When the newest failure was written to incidents/.")
UNREADABLE = Declared("agent_unreadable_files", "Files of the home folder that could not be read for these metrics.")

RUN = Declared("agent_run_info", "1; the run that the site takes part in.", ("run", "mode", "profile", "plan"))
OUTCOME = Declared("agent_run_outcome", "1 for the way in which the run ended; left out before its end.", ("outcome",))
STATE = Declared("agent_state", "1 for what the agent does now.", ("state",))
STATE_SINCE = Declared("agent_state_since_timestamp_seconds", "Since when it does that.")
ROUND = Declared("agent_round", "Number of the round that the site works on, or worked on last.")
PROGRESS = Declared("agent_progress_ratio", "How much of the present stage of its task is done, 0 to 1.")
SPEED = Declared("agent_images_per_second", "Images per second that the site trains on or scores.")
HEARD = Declared("agent_work_heard_timestamp_seconds", "When the work was last heard of.")

TRAINING_LOSS = Declared("agent_training_loss", "Training loss of the last round that the site trained.")
TRAINING_TIME = Declared("agent_training_duration_seconds", "How long that training took.")
IMAGES = Declared("agent_images", "Images that it trained on.")
VALIDATION_LOSS = Declared("agent_validation_loss", "Validation loss of the last model that the site scored.")
COLLAPSE_LOSS = Declared("agent_collapse_loss", "Loss of a model that tells no image from another, by the plan.")
GAUGES: Mapping[str, Declared] = {
    "effective_rank": Declared("agent_effective_rank", "Effective rank of the representations; 1: collapsed."),
    "zero_rows": Declared("agent_zero_rows_ratio", "Share of representations that are all zero."),
    "dead_units": Declared("agent_dead_units_ratio", "Share of units that are zero for every image."),
    "unit_std": Declared("agent_unit_std", "Spread of the representations: 1 spread out evenly, 0 all alike."),
    "alignment": Declared("agent_alignment", "Mean squared distance of the two views of an image; small is good."),
    "uniformity": Declared("agent_uniformity", "Logarithm of the mean nearness of images: 0 alike, -4 very good."),
}
"""of the last model that the site scored"""

SENT_BYTES = Declared("agent_sent_bytes_total", "Bytes that have left the site, by its egress ledger.", (), "counter")
SENT_MODELS = Declared("agent_sent_models_total", "Models that have left the site.", (), "counter")
SENT_REPORTS = Declared("agent_sent_reports_total", "Reports of numbers that have left the site.", (), "counter")

GPU_BUSY = Declared("agent_gpu_busy_ratio", "Share of the last moments in which the GPU computed.", GPU)
GPU_MEMORY_USED = Declared("agent_gpu_memory_used_bytes", "Memory of the GPU that is used.", GPU)
GPU_MEMORY = Declared("agent_gpu_memory_bytes", "Memory of the GPU.", GPU)
GPU_TEMPERATURE = Declared("agent_gpu_temperature_celsius", "Temperature of the GPU.", GPU)

NAMES = (*COMMON, *(one for one in globals().values() if isinstance(one, Declared)), *GAUGES.values())
"""all of them"""
