/* sys_mount.c: see sys_mount.h.
 *
 * Mounts are known by their number, since one file system may show many device numbers (btrfs).
 * What /proc/self/mountinfo says of a number is remembered for the process.  The kernel may use the
 * number of a mount that has gone again; the worst of it is a call that waits. */
#include "sys_mount.h"
#include "sys.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MOUNT_ID_AT = 0x90, /* stx_mnt_id, which older libraries do not name */
    SLOTS = 64,         /* a power of two */
    CHUNK_BYTES = 4096,
    LINE_BYTES_MAX = 1024, /* of a line; what a longer one says in the end is not known */
};

static const char *const local_types[] = {
    "ext2",     "ext3",    "ext4",     "xfs",      "btrfs",     "f2fs",    "tmpfs",
    "ramfs",    "overlay", "zfs",      "jfs",      "erofs",     "vfat",    "bcachefs",
    "squashfs", "exfat",   "udf",      "devtmpfs", "iso9660",   "ntfs3",   "proc",
    "sysfs",    "nilfs2",  "reiserfs", "cgroup2",  "hugetlbfs", "debugfs", "tracefs",
};

/* mount number << 2 | KNOWN | LOCAL; 0: empty. */
enum { KNOWN = 2, LOCAL = 1 };
static atomic_uint_fast64_t slots[SLOTS];

static bool
is_local_type(const char *type, size_t len)
{
    for (unsigned i = 0; i < sizeof local_types / sizeof local_types[0]; i++) {
        if (strlen(local_types[i]) == len && memcmp(local_types[i], type, len) == 0)
            return true;
    }
    return false;
}

/* "36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/vda rw".  -1: another mount. */
static int
verdict_of_line(const char *line, uint64_t mount)
{
    uint64_t number = 0;
    const char *type;
    while (*line >= '0' && *line <= '9')
        number = number * 10 + (uint64_t)(*line++ - '0');
    if (number != mount || *line != ' ')
        return -1;
    type = strstr(line, " - ");
    if (type == NULL)
        return 0;
    type += 3;
    return is_local_type(type, strcspn(type, " "));
}

/* Reads line by line; a line that does not fit is cut. */
static bool
look_up(uint64_t mount)
{
    char line[LINE_BYTES_MAX];
    char chunk[CHUNK_BYTES];
    size_t len = 0;
    int found = -1;
    ssize_t got;
    int fd = gy_sys_open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    while (found < 0 && (got = gy_sys_read(fd, chunk, sizeof chunk)) > 0) {
        for (ssize_t i = 0; i < got && found < 0; i++) {
            if (chunk[i] != '\n') {
                if (len < sizeof line - 1)
                    line[len++] = chunk[i];
                continue;
            }
            line[len] = '\0';
            len = 0;
            found = verdict_of_line(line, mount);
        }
    }
    gy_sys_close(fd);
    return found > 0;
}

bool
gy_sys_is_local(const struct statx *status)
{
    atomic_uint_fast64_t *slot;
    uint64_t mount, known;
    bool local;
    if (!(status->stx_mask & GY_STATX_MNT_ID))
        return false;
    memcpy(&mount, (const char *)status + MOUNT_ID_AT, sizeof mount);
    slot = &slots[mount % SLOTS];
    known = atomic_load_explicit(slot, memory_order_relaxed);
    if (GY_LIKELY(known >> 2 == mount && (known & KNOWN)))
        return (known & LOCAL) != 0;
    local = look_up(mount);
    atomic_store_explicit(slot, mount << 2 | KNOWN | (local ? LOCAL : 0), memory_order_relaxed);
    return local;
}
