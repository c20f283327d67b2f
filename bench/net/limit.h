/* limit.h: what the two C echo servers share: arguments, the listener, the first line of output.
 * The floor has the clock from here. */
#ifndef BENCH_LIMIT_H
#define BENCH_LIMIT_H

#include <stdint.h>
#include <time.h>

static inline int64_t
limit_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

struct limit_options {
    const char *unix_path; /* NULL: TCP on a free port of 127.0.0.1 */
    int udp;               /* a UDP socket instead (limit_epoll only) */
    int64_t spin_us;       /* poll this long before sleeping */
};

struct limit_options limit_options(int argc, char **argv);
/* Non-blocking; TCP_NODELAY and cubic are set here and inherited by what it accepts. */
int limit_listen(const struct limit_options *options);
/* Non-blocking, with room for a burst. */
int limit_udp_socket(void);
void limit_announce(int listener, const char *kind);
_Noreturn void limit_die(const char *what);

#endif
