/* list.h: an intrusive doubly linked list; a node out of any list points at itself. */
#ifndef GY_LIST_H
#define GY_LIST_H

#include "base.h"

struct gy_list {
    struct gy_list *next;
    struct gy_list *prev;
};

static inline void
gy_list_init(struct gy_list *node)
{
    node->next = node;
    node->prev = node;
}

static inline bool
gy_list_empty(const struct gy_list *head)
{
    return head->next == head;
}

static inline bool
gy_list_linked(const struct gy_list *node)
{
    return node->next != node;
}

static inline void
gy_list_append(struct gy_list *head, struct gy_list *node)
{
    GY_ASSERT(!gy_list_linked(node));
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Unlinking a node that is in no list does nothing. */
static inline void
gy_list_remove(struct gy_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    gy_list_init(node);
}

static inline struct gy_list *
gy_list_pop(struct gy_list *head)
{
    struct gy_list *node = head->next;
    if (node == head)
        return NULL;
    gy_list_remove(node);
    return node;
}

/* Moves all of `from` to the end of `to`; `from` is empty afterwards. */
static inline void
gy_list_splice(struct gy_list *to, struct gy_list *from)
{
    if (gy_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    gy_list_init(from);
}

#endif
