/* sys_mount.h: which file systems answer from memory what is in memory.
 *
 * A lookup or a close on a local file system waits for nothing but its disk; on a network file
 * system or one in user space it may wait for somebody else, for ever. */
#ifndef GY_SYS_MOUNT_H
#define GY_SYS_MOUNT_H

#include "base.h"

struct statx;

enum {
    /* STATX_MNT_ID (5.8), to be added to the mask of a statx whose answer is asked about. */
    GY_STATX_MNT_ID = 0x1000,
};

/* Does the file that statx described lie on a local file system?  false also where it cannot be
 * told.  Thread: any. */
bool gy_sys_is_local(const struct statx *status);

#endif
