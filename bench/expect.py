"""How long a cell takes, from what it took on the machine that gyre is developed on.

Only the progress display and --list use this; the report says what it really took.
"""

from dataclasses import dataclass

# Seconds of one sample beside its warm-up and its window: start, connections, end.
NET_S = 0.02
PER_CONNECTION_S = 0.0001
TLS_CONNECTION_S = 0.001
LOADS_S = {"public": 0.08, "burst": 1.3, "idle": 0.3}
# Seconds of one sample of all else, by the start of the cell's name; the longest start counts.
OTHERS_S = {
    "http": 1.9,
    "http.client": 1.8,
    "micro": 0.18,
    "micro.loop.threadsafe_4": 0.42,
    "proc": 0.2,
    "files": 0.35,
    "files.sequential.write": 2.0,
    "files.small": 1.0,
}
AT_ONCE = 0.5  # of their times added: arms that run at the same time
ONCE_S = 0.02  # per repetition: what all arms have in common
TRACED_S = 0.2  # beside its connections
RETAKE_SHARE = 0.04  # of all: cells below the line, and repetitions that the host disturbed


@dataclass(frozen=True)
class Lengths:
    warmup_s: float
    window_s: float


def connections_s(parameters):
    each = TLS_CONNECTION_S if parameters.get("tls") else PER_CONNECTION_S
    return parameters["connections"] * each


def sample_s(cell, lengths):
    """One arm, one repetition."""
    if cell.family == "net":
        extra = LOADS_S.get(cell.parameters.get("load"), 0)
        extra += lengths.warmup_s + lengths.window_s * cell.window_times
        return NET_S + connections_s(cell.parameters) + extra
    starts = [start for start in OTHERS_S if f"{cell.name}.".startswith(start + ".")]
    return OTHERS_S[max(starts, key=len)]


def repetition_s(cell, arm_count, lengths):
    together = AT_ONCE if cell.parameters.get("load") in ("burst", "idle") else 1
    return ONCE_S + together * arm_count * sample_s(cell, lengths)


def traced_s(cell):
    return TRACED_S + connections_s(cell.parameters)
