/* sys_file.h: the calls on files that an SQE names, made as plain system calls.
 *
 * The SQEs are those that gy_prep_* fills.  Results are >= 0 or -errno; EINTR is retried inside.
 * Thread: any. */
#ifndef GY_SYS_FILE_H
#define GY_SYS_FILE_H

#include "base.h"
#include "uring_compat.h"
#include <sys/uio.h>

/* Is it an opcode of files that gy_sys_file() can do? */
bool gy_sys_file_knows(uint8_t opcode);

/* As the kernel would execute the SQE: may block.  -EINVAL for an opcode that is no file's. */
int32_t gy_sys_file(const struct io_uring_sqe *sqe);

/* Only what can be answered from memory: -EAGAIN where the call might wait for a disk, a peer or a
 * server, or where it cannot be told. */
int32_t gy_sys_file_nowait(const struct io_uring_sqe *sqe);

/* preadv2 or pwritev2 with RWF_NOWAIT; -EAGAIN: it would wait; -EOPNOTSUPP: the file cannot tell.
 * offset -1: the current position, or a file that has none. */
ssize_t gy_sys_rw_nowait(int fd, const struct iovec *iov, int count, int64_t offset, bool write);

#endif
