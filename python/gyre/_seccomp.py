"""Seccomp profiles, as Docker, Podman and Kubernetes read them, that allow io_uring."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["CALLS", "profile"]

CALLS = ("io_uring_setup", "io_uring_enter", "io_uring_register")

# What the default profiles of the container runtimes keep from a container without capabilities.
_FORBIDDEN = """
    acct add_key bpf clock_adjtime clock_settime create_module delete_module fanotify_init
    finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module ioperm
    iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind migrate_pages mount
    mount_setattr move_mount move_pages name_to_handle_at nfsservctl open_by_handle_at open_tree
    perf_event_open pivot_root process_vm_readv process_vm_writev ptrace query_module
    quotactl quotactl_fd reboot request_key set_mempolicy setns settimeofday stime swapoff swapon
    sysfs syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old
""".split()

_CLONE_NEWUSER = 0x10000000
_EPERM, _ENOSYS = 1, 38


def _short() -> dict[str, Any]:
    """A profile of its own: everything is allowed but what administers the machine."""
    refuse = {"action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}
    new_user = {
        "index": 0,
        "value": _CLONE_NEWUSER,
        "valueTwo": _CLONE_NEWUSER,
        "op": "SCMP_CMP_MASKED_EQ",
    }
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": _FORBIDDEN, **refuse},
            {"names": ["clone"], **refuse, "args": [new_user]},
            # Its flags are in memory, where a filter cannot look: the C library then calls clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }


def _without_calls(rule: dict[str, Any]) -> dict[str, Any] | None:
    """The rule for its other calls; None if there are none."""
    if rule.get("name") in CALLS:  # the older spelling: one call a rule
        return None
    names = rule.get("names")
    if names is None:
        return rule
    rest = [name for name in names if name not in CALLS]
    return {**rule, "names": rest} if rest else None


def profile(base: dict[str, Any] | None = None) -> dict[str, Any]:
    """`base` with the calls of io_uring allowed, or a short profile if there is none."""
    if base is None:
        return _short()
    result = copy.deepcopy(base)
    rules = [_without_calls(rule) for rule in result.get("syscalls") or []]
    result["syscalls"] = [rule for rule in rules if rule is not None]
    # libseccomp refuses a rule that says what goes without it.
    if result.get("defaultAction") != "SCMP_ACT_ALLOW":
        result["syscalls"].append({"names": list(CALLS), "action": "SCMP_ACT_ALLOW"})
    return result
