/* probe.c: names of the features and the words for a refusal; ring_uring_probe.c asks the kernel.
 * Thread: any; no state. */
#include "probe.h"
#include "sys.h"
#include "sys_pipe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t bit;
} feature_names[] = {
    {"poll_multishot", GY_FEAT_POLL_MULTISHOT},
    {"accept_multishot", GY_FEAT_ACCEPT_MULTISHOT},
    {"recv_multishot", GY_FEAT_RECV_MULTISHOT},
    {"buf_ring", GY_FEAT_BUF_RING},
    {"sync_cancel", GY_FEAT_SYNC_CANCEL},
    {"no_iowait", GY_FEAT_NO_IOWAIT},
    {"abs_timer", GY_FEAT_ABS_TIMER},
    {"ring_fd", GY_FEAT_RING_FD},
    {"no_sqarray", GY_FEAT_NO_SQARRAY},
    {"accept", GY_FEAT_ACCEPT},
    {"epoll_pwait2", GY_FEAT_EPOLL_PWAIT2},
    {"udp_gso", GY_FEAT_UDP_GSO},
    {"udp_gro", GY_FEAT_UDP_GRO},
    {"pipe_nowait", GY_FEAT_PIPE_NOWAIT},
    {"ftruncate", GY_FEAT_FTRUNCATE},
    {"fixed_buffers", GY_FEAT_FIXED_BUFFERS},
};
enum { FEATURES = sizeof feature_names / sizeof feature_names[0] };
_Static_assert(GY_FEAT_ALL == (1u << FEATURES) - 1, "every feature has a name");

uint32_t
gy_feature_by_name(const char *name, size_t len)
{
    for (unsigned i = 0; i < FEATURES; i++) {
        if (strlen(feature_names[i].name) == len && memcmp(feature_names[i].name, name, len) == 0)
            return feature_names[i].bit;
    }
    return 0;
}

const char *
gy_feature_name(uint32_t bit)
{
    for (unsigned i = 0; i < FEATURES; i++) {
        if (feature_names[i].bit == bit)
            return feature_names[i].name;
    }
    return NULL;
}

int
gy_features_parse(const char *text, uint32_t *off, const char **bad)
{
    uint32_t bits = 0;
    if (*text == '\0') {
        *off = 0;
        return 0;
    }
    for (;;) {
        size_t len = strcspn(text, ",");
        uint32_t bit = len > 1 && *text == '-' ? gy_feature_by_name(text + 1, len - 1) : 0;
        if (bit == 0) {
            *bad = text;
            return -EINVAL;
        }
        bits |= bit;
        text += len;
        if (*text == '\0')
            break;
        text++;
    }
    *off = bits;
    return 0;
}

uint32_t
gy_probe_sockets(void)
{
    bool gso;
    bool gro;
    gy_sys_udp_offload(&gso, &gro);
    return (gso ? (uint32_t)GY_FEAT_UDP_GSO : 0) | (gro ? (uint32_t)GY_FEAT_UDP_GRO : 0) |
           (gy_sys_pipe_nowait() ? (uint32_t)GY_FEAT_PIPE_NOWAIT : 0);
}

uint32_t
gy_features_effective(uint32_t found, uint32_t off)
{
    uint32_t features = found & ~off;
    if (!(features & GY_FEAT_BUF_RING))
        features &= ~(uint32_t)GY_FEAT_RECV_MULTISHOT;
    if (!(features & GY_FEAT_ACCEPT))
        features &= ~(uint32_t)GY_FEAT_ACCEPT_MULTISHOT;
    return features;
}

/* ---- words ---- */

/* kernel.io_uring_disabled: 0, 1 (members of a group only), 2 (nobody), or -1 where there is no
 * such file. */
static int
sysctl_disabled(void)
{
    char digit = 0;
    ssize_t got = gy_sys_read_file("/proc/sys/kernel/io_uring_disabled", &digit, 1);
    return got == 1 && digit >= '0' && digit <= '2' ? digit - '0' : -1;
}

static const char *
explain_forbidden(enum gy_probe_stage stage)
{
    if (stage == GY_PROBE_SETUP && sysctl_disabled() > 0)
        return "The sysctl kernel.io_uring_disabled forbids io_uring to this process. "
               "Set it to 0 (sysctl -w kernel.io_uring_disabled=0), or to 1 and add the user to "
               "the group of kernel.io_uring_group.";
    return "io_uring is forbidden to this process, most likely by a seccomp filter: the default "
           "profiles of Docker and containerd have one. Allow io_uring_setup, io_uring_enter and "
           "io_uring_register in the profile of the container (docker run --security-opt "
           "seccomp=profile.json).";
}

static const char *
explain_stage(enum gy_probe_stage stage)
{
    switch (stage) {
    case GY_PROBE_FLAGS:
        return "The kernel has io_uring, but an older one than gyre needs (IORING_SETUP_DEFER_"
               "TASKRUN, Linux 6.1). Run it on Linux 6.1 or newer.";
    case GY_PROBE_REGISTER:
        return "io_uring_setup works here, but io_uring_register is refused. Allow it in the "
               "seccomp profile, or run on a complete Linux 6.1 or newer.";
    case GY_PROBE_ENTER:
        return "io_uring_setup works here, but io_uring_enter is refused. Allow it in the seccomp "
               "profile, or run on a complete Linux 6.1 or newer.";
    case GY_PROBE_OK:
    case GY_PROBE_SETUP:
        break;
    }
    return "io_uring could not be set up. Try Linux 6.1 or newer outside of a sandbox.";
}

static const char *
explain(int err, enum gy_probe_stage stage)
{
    switch (-err) {
    case 0:
        return "io_uring works.";
    case EPERM:
    case EACCES:
        return explain_forbidden(stage);
    case ENOSYS:
        if (stage == GY_PROBE_SETUP)
            return "This kernel or sandbox has no io_uring (an old or stripped kernel, gVisor, or "
                   "a seccomp filter that says so). Run on Linux 6.1 or newer and allow io_uring.";
        break;
    case ENOMEM:
        return "There is not enough locked memory for the queues of io_uring. Raise "
               "RLIMIT_MEMLOCK (ulimit -l) or close other rings of this user.";
    case EMFILE:
    case ENFILE:
        return "There is no descriptor left for io_uring. Raise the limit of open files "
               "(ulimit -n) or close some.";
    default:
        break;
    }
    return explain_stage(stage);
}

void
gy_probe_explain(int err, enum gy_probe_stage stage, char *text, size_t text_bytes)
{
    GY_ASSERT(err <= 0);
    GY_ASSERT(text_bytes > 0);
    const char *reason = explain(err, stage);
    /* An error that has no words of its own in explain() is named at least. */
    if (reason == explain_stage(GY_PROBE_SETUP))
        (void)snprintf(text, text_bytes, "%s The kernel said: %s.", reason, strerror(-err));
    else
        (void)snprintf(text, text_bytes, "%s", reason);
}
