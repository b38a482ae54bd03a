"""Every metric of a coordinator. docs/monitoring.md has the same rows; all of them have the label `federation`, too."""

from __future__ import annotations

from collections.abc import Mapping

from fedcervix.monitoring.declared import Declared
from fedcervix.monitoring.home_metrics import COMMON

SITE = ("site",)

UP = Declared("coordinator_up", "1: the coordinator answers its operator; 0: it does not, the rest is by the journal.")
TROUBLE = Declared("coordinator_trouble", "1: `coordinator status` names a trouble; 0: it names none.")
UNDELIVERED = Declared("notifications_waiting", "Messages that the receiver has not taken yet.", ("receiver",))
UNDELIVERED_SINCE = Declared(
    "notifications_waiting_since_timestamp_seconds",
    "When that happened of which the oldest of them tells.",
    ("receiver",),
)
RUN = Declared("run_info", "1; which run these metrics are of.", ("run", "mode", "profile", "plan"))
OUTCOME = Declared("run_outcome", "1 for the way in which the run ended; left out before its end.", ("outcome",))
PHASE = Declared("phase", "1 for the present phase of the run.", ("phase",))
PHASE_SINCE = Declared("phase_since_timestamp_seconds", "When the present phase began.")
ROUND = Declared("round", "Number of the present round; 0 before the first.")
ROUNDS_MAX = Declared("rounds_max", "Number of rounds that the run has at most.")
BEST_ROUND = Declared("best_round", "Number of the round with the lowest validation loss so far.")
ROUND_BEGUN = Declared("round_begun_timestamp_seconds", "When the present round began.")
ROUND_ENDED = Declared("round_ended_timestamp_seconds", "When the last round ended that has ended.")
ROUND_DURATION = Declared("round_duration_seconds", "How long the last round took that has ended.")
ROUND_TYPICAL = Declared("round_duration_typical_seconds", "Median duration of the last 10 rounds that have ended.")
VALIDATION_LOSS = Declared("validation_loss", "Mean validation loss of the newest model that was scored.")
BEST_LOSS = Declared("best_validation_loss", "Mean validation loss of the best round's model.")
COLLAPSE_LOSS = Declared("collapse_loss", "Loss of a model that tells no image from another, by the plan.")

STATE = Declared("site_state", "1 for the state of a site in the run.", ("site", "state"))
STATE_SINCE = Declared("site_state_since_timestamp_seconds", "When the site's state began.", SITE)
CONNECTED = Declared("site_connected", "1: the site is connected to the coordinator; 0: it is not.", SITE)
LAST_HEARD = Declared(
    "site_last_heard_timestamp_seconds", "The site's last sign of life since the coordinator started.", SITE
)
LEASE = Declared("lease_expiry_timestamp_seconds", "When the site counts as silent if it is not heard.", SITE)
WAIT_SINCE = Declared("site_wait_since_timestamp_seconds", "Since when the run waits for the site.", SITE)
WAIT_UNTIL = Declared("site_wait_until_timestamp_seconds", "Until when the run waits for the site.", SITE)
PROGRESS = Declared("site_progress_ratio", "How much of its present task the site has done, 0 to 1.", SITE)
SPEED = Declared("site_images_per_second", "Images per second that the site trains on or scores.", SITE)
OTHER_VERSION = Declared("site_version_differs", "1: the site runs another version than the coordinator.", SITE)
CONNECTIONS = Declared("site_connections", "Open connections of the site.", SITE)
CALLS_REFUSED = Declared("site_calls_refused", "Calls of the site that were refused in the last minute.", SITE)
SET_ASIDE = Declared(
    "site_reports_set_aside_total",
    "Reports of the site that were not written down, since the coordinator started.", SITE, "counter",
)  # fmt: skip
TRANSFER = Declared(
    "transfer_bytes_total",
    "Bytes of models that the site has sent (upload) and was sent (download), since the coordinator started.",
    ("site", "direction"), "counter",
)  # fmt: skip

CONTRIBUTED = Declared(
    "site_rounds_contributed_total", "Rounds of the run in which the site's model counted.", SITE, "counter"
)
MISSED = Declared("site_rounds_missed_total", "Rounds of the run that the site missed.", SITE, "counter")
TRAINING_LOSS = Declared("site_training_loss", "Mean training loss of the site's last contribution.", SITE)
TRAINING_TIME = Declared("site_training_duration_seconds", "How long the site trained for its last contribution.", SITE)
IMAGES = Declared("site_images", "Images that the site trained on for its last contribution.", SITE)
SHARE = Declared("site_share_ratio", "The site's share of the last average; in a ring without one, 1.", SITE)
STEP_NORM = Declared("site_step_norm", "Length of the site's last step from the model that it began with.", SITE)
SITE_VALIDATION_LOSS = Declared("site_validation_loss", "The site's validation loss of the newest scored model.", SITE)
GAUGES: Mapping[str, Declared] = {
    "effective_rank": Declared(
        "effective_rank", "Effective rank of the representations at the site; 1: all on one line, collapsed.", SITE
    ),
    "zero_rows": Declared("zero_rows_ratio", "Share of representations at the site that are all zero.", SITE),
    "dead_units": Declared("dead_units_ratio", "Share of units that are zero for every image at the site.", SITE),
    "unit_std": Declared("unit_std", "Spread of the representations at the site: 1 spread out evenly, 0 alike.", SITE),
    "alignment": Declared("alignment", "Mean squared distance of the two views of an image; small is good.", SITE),
    "uniformity": Declared("uniformity", "Logarithm of the mean nearness of images: 0 all alike, -4 very good.", SITE),
}
"""by the name that a site gives it; what has another name is not shown"""

ALARMS = Declared("alarms_total", "Alarms that the ledger of the run has about the site.", SITE, "counter")
ALARM_ROUND = Declared(
    "alarm_last_round", "The last round with an alarm of this kind about the site.", ("site", "what")
)
FAILURES = Declared(
    "failures_total", "Failures that the site has reported in the run.", ("site", "continues"), "counter"
)
FAILURES_OPEN = Declared("failures_open", "Failures after which the site has not come back yet.", SITE)

NAMES = (*COMMON, *(one for one in globals().values() if isinstance(one, Declared)), *GAUGES.values())
"""all of them"""
