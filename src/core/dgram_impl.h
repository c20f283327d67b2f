/* dgram_impl.h: what dgram.c and dgram_send.c share, and nobody else includes. */
#ifndef GY_DGRAM_IMPL_H
#define GY_DGRAM_IMPL_H

#include "dgram.h"
#include "loop.h"

static inline bool
gy_dgram_alive(const struct gy_dgram *dgram)
{
    return (dgram->flags & GY_DGRAM_CLOSING) == 0 && dgram->failure == 0;
}

/* dgram.c */
void gy_dgram_queue_work(struct gy_dgram *dgram);
void gy_dgram_fail(struct gy_dgram *dgram, int err); /* host->broken hears of it in the next turn */
/* An op of a closing socket has landed: finishes when it was the last. */
void gy_dgram_settle(struct gy_dgram *dgram);

/* dgram_send.c */
extern const struct gy_poll_host gy_dgram_room_host;
void gy_dgram_drop_queue(struct gy_dgram *dgram);

#endif
