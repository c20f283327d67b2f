/* loop_internal.h: what loop.c, loop_wait.c and loop_life.c share. */
#ifndef GY_LOOP_INTERNAL_H
#define GY_LOOP_INTERNAL_H

struct gy_loop;

/* Takes an SQE for every cancel that waits; sets loop->sqe_shortage if there are not enough. */
void gy_loop_flush_cancels(struct gy_loop *loop);
/* The same for every op that is pending, after the cancels. */
void gy_loop_flush_ops(struct gy_loop *loop);

#endif
