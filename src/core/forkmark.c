/* forkmark.c: the page that children of fork() find empty; see forkmark.h.
 *
 * Invariant: the word in the page is 0, or a number that none of the processes that this one
 * descends from has had: `last` is inherited and only grows. */
#include "forkmark.h"
#include "sys.h"

#include <errno.h>

enum { PAGE_BYTES = 4096 };

static _Atomic(atomic_uint *) page;
static atomic_uint last;
static atomic_uint no_word; /* stays 0 */

static atomic_uint *
page_of_process(void)
{
    atomic_uint *there = atomic_load(&page);
    atomic_uint *made;
    if (there != NULL)
        return there;
    made = gy_map_wiped_on_fork(PAGE_BYTES);
    if (made == NULL)
        return NULL;
    if (atomic_compare_exchange_strong(&page, &there, made))
        return made;
    gy_unmap(made, PAGE_BYTES); /* another thread was first */
    return there;
}

int
gy_forkmark_init(struct gy_forkmark *mark)
{
    atomic_uint *word = page_of_process();
    unsigned value;
    if (word == NULL)
        return -ENOMEM;
    value = atomic_load(word);
    if (value == 0) {
        unsigned fresh = atomic_fetch_add(&last, 1) + 1;
        if (atomic_compare_exchange_strong(word, &value, fresh))
            value = fresh;
    }
    GY_ASSERT(value != 0);
    mark->word = word;
    mark->value = value;
    return 0;
}

void
gy_forkmark_clear(struct gy_forkmark *mark)
{
    mark->word = &no_word;
    mark->value = 0;
}
