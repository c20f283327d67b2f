/* test_list.c: the intrusive list. */
#include "gy_test.h"
#include "list.h"

struct item {
    struct gy_list link;
    int number;
};

static void
items_init(struct item *items, int count)
{
    for (int i = 0; i < count; i++) {
        gy_list_init(&items[i].link);
        items[i].number = i;
    }
}

/* Pops everything and compares with the numbers given. */
static void
check_order(struct gy_list *head, const int *numbers, int count)
{
    for (int i = 0; i < count; i++) {
        struct gy_list *node = gy_list_pop(head);
        CHECK(node != NULL);
        CHECK_EQ(container_of(node, struct item, link)->number, numbers[i]);
        CHECK(!gy_list_linked(node));
    }
    CHECK(gy_list_pop(head) == NULL);
    CHECK(gy_list_empty(head));
}

static void
test_order_is_first_in_first_out(void)
{
    struct gy_list head;
    struct item items[3];
    gy_list_init(&head);
    items_init(items, 3);
    CHECK(gy_list_empty(&head));
    for (int i = 0; i < 3; i++)
        gy_list_append(&head, &items[i].link);
    CHECK(!gy_list_empty(&head));
    CHECK(gy_list_linked(&items[1].link));
    check_order(&head, (const int[]){0, 1, 2}, 3);
}

static void
test_remove_anywhere_and_twice(void)
{
    struct gy_list head;
    struct item items[4];
    gy_list_init(&head);
    items_init(items, 4);
    for (int i = 0; i < 4; i++)
        gy_list_append(&head, &items[i].link);
    gy_list_remove(&items[1].link);
    gy_list_remove(&items[1].link);
    CHECK(!gy_list_linked(&items[1].link));
    gy_list_remove(&items[3].link);
    gy_list_append(&head, &items[1].link);
    check_order(&head, (const int[]){0, 2, 1}, 3);
}

static void
test_splice(void)
{
    struct gy_list to;
    struct gy_list from;
    struct item items[4];
    gy_list_init(&to);
    gy_list_init(&from);
    items_init(items, 4);
    gy_list_splice(&to, &from);
    CHECK(gy_list_empty(&to));
    gy_list_append(&from, &items[0].link);
    gy_list_splice(&to, &from);
    CHECK(gy_list_empty(&from));
    gy_list_append(&from, &items[1].link);
    gy_list_append(&from, &items[2].link);
    gy_list_splice(&to, &from);
    gy_list_splice(&to, &from);
    gy_list_append(&to, &items[3].link);
    check_order(&to, (const int[]){0, 1, 2, 3}, 4);
}

/* A node leaves whatever list it is in: the loop takes lists over and nodes are removed meanwhile.
 */
static void
test_remove_after_splice(void)
{
    struct gy_list to;
    struct gy_list from;
    struct item items[3];
    gy_list_init(&to);
    gy_list_init(&from);
    items_init(items, 3);
    for (int i = 0; i < 3; i++)
        gy_list_append(&from, &items[i].link);
    gy_list_splice(&to, &from);
    gy_list_remove(&items[1].link);
    CHECK(gy_list_empty(&from));
    check_order(&to, (const int[]){0, 2}, 2);
}

static const struct gy_test tests[] = {
    GY_TEST(test_order_is_first_in_first_out),
    GY_TEST(test_remove_anywhere_and_twice),
    GY_TEST(test_splice),
    GY_TEST(test_remove_after_splice),
};
GY_TEST_MAIN(tests)
