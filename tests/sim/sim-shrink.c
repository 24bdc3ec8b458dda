/* Copyright (c) 2026 dovecot-director authors, see the included COPYING file */

#include "sim-batch.h"

#include <stdio.h>

struct shrink {
	struct sim_plan *plan;
	const struct sim_failure *failure;
	unsigned int tries;
};

static bool shrink_still_fails(struct shrink *shrink)
{
	struct sim_failure failure;

	shrink->tries++;
	return !sim_run_apart(shrink->plan, &failure) &&
		strcmp(failure.kind, shrink->failure->kind) == 0;
}

static bool shrink_may_disable(const struct sim_plan_item *item)
{
	return item->type != PLAN_START && !item->disabled;
}

/* Tries to leave out size items from first on (among those that are there).
   Returns FALSE if there are none. */
static bool shrink_range(struct shrink *shrink, unsigned int first,
			 unsigned int size, bool *removed_r)
{
	struct sim_plan_item *item;
	ARRAY(struct sim_plan_item *) range;
	unsigned int idx = 0;

	*removed_r = FALSE;
	t_array_init(&range, size);
	array_foreach_modifiable(&shrink->plan->items, item) {
		if (!shrink_may_disable(item))
			continue;
		if (idx >= first && idx < first + size)
			array_push_back(&range, &item);
		idx++;
	}
	if (array_count(&range) == 0)
		return FALSE;
	array_foreach_elem(&range, item)
		item->disabled = TRUE;
	*removed_r = shrink_still_fails(shrink);
	if (!*removed_r) {
		array_foreach_elem(&range, item)
			item->disabled = FALSE;
	}
	return TRUE;
}

static bool shrink_pass(struct shrink *shrink, unsigned int size)
{
	unsigned int first = 0;
	bool removed, any = FALSE, more = TRUE;

	while (more) T_BEGIN {
		more = shrink_range(shrink, first, size, &removed);
		if (removed)
			any = TRUE;
		else
			first += size;
	} T_END;
	return any;
}

static void shrink_nodes(struct shrink *shrink)
{
	struct sim_plan *plan = shrink->plan;
	unsigned int i;

	for (i = 0; i < plan->nodes_count; i++) {
		if (plan->absent[i])
			continue;
		plan->absent[i] = TRUE;
		if (!shrink_still_fails(shrink))
			plan->absent[i] = FALSE;
	}
}

void sim_shrink(struct sim_plan *plan, const struct sim_failure *failure)
{
	struct shrink shrink = {
		.plan = plan,
		.failure = failure,
	};
	unsigned int size = array_count(&plan->items);

	if (!shrink_still_fails(&shrink)) {
		printf("seed %llu doesn't fail again\n",
		       (unsigned long long)plan->seed);
		return;
	}
	shrink_nodes(&shrink);
	while (size > 1) {
		size = (size + 1) / 2;
		(void)shrink_pass(&shrink, size);
	}
	shrink_nodes(&shrink);
	while (shrink_pass(&shrink, 1)) ;
}

static void print_list(const char *option, const bool *in, unsigned int count)
{
	unsigned int i, first;
	const char *separator = "";

	printf(" %s ", option);
	for (i = 0; i < count; i++) {
		if (!in[i])
			continue;
		first = i;
		while (i + 1 < count && in[i + 1])
			i++;
		printf("%s%u", separator, first);
		if (i > first)
			printf("-%u", i);
		separator = ",";
	}
	if (*separator == '\0')
		printf("none");
}

void sim_shrink_print(const struct sim_plan *plan)
{
	const struct sim_plan_item *item;
	unsigned int i, count = array_count(&plan->items), absent = 0;
	bool *in;

	for (i = 0; i < plan->nodes_count; i++) {
		if (plan->absent[i])
			absent++;
		else {
			printf("  d%u %s, clock %+lld ms\n", i,
			       ring_address_str(&plan->addresses[i]),
			       (long long)plan->skew[i] / 1000);
		}
	}
	printf("  latency up to %llu us, expire %u s, window %zu\n",
	       (unsigned long long)plan->max_latency, plan->expire_secs,
	       plan->window);
	in = t_new(bool, count);
	for (i = 0; i < count; i++) {
		item = array_idx(&plan->items, i);
		if (item->disabled || plan->absent[item->node] ||
		    (item->node2 != SIM_NONE && plan->absent[item->node2]))
			continue;
		in[i] = TRUE;
		printf("  %10.6f %s\n", item->time / 1e6,
		       sim_plan_item_str(plan, item));
	}
	printf("replay: ring-sim --verbose --seed %llu",
	       (unsigned long long)plan->seed);
	print_list("--only", in, count);
	if (absent > 0)
		print_list("--absent", plan->absent, plan->nodes_count);
	putchar('\n');
}

/* -- The same, from the command line -- */

static int parse_list(const char *list, bool *in, unsigned int count)
{
	const char *const *entry, *p;
	unsigned int first, last;

	if (strcmp(list, "none") == 0)
		return 0;
	for (entry = t_strsplit(list, ","); *entry != NULL; entry++) {
		p = strchr(*entry, '-');
		if (str_to_uint(p == NULL ? *entry :
				t_strdup_until(*entry, p), &first) < 0)
			return -1;
		last = first;
		if (p != NULL && str_to_uint(p + 1, &last) < 0)
			return -1;
		if (last < first || last >= count)
			return -1;
		for (; first <= last; first++)
			in[first] = TRUE;
	}
	return 0;
}

int sim_plan_only(struct sim_plan *plan, const char *list)
{
	unsigned int i, count = array_count(&plan->items);
	bool *in = t_new(bool, count);
	struct sim_plan_item *item;

	if (parse_list(list, in, count) < 0)
		return -1;
	for (i = 0; i < count; i++) {
		item = array_idx_modifiable(&plan->items, i);
		item->disabled = !in[i] && item->type != PLAN_START;
	}
	return 0;
}

int sim_plan_absent(struct sim_plan *plan, const char *list)
{
	return parse_list(list, plan->absent, plan->nodes_count);
}
